"""Mode diffusion: a renormalizing model whose levels are cutoffs and whose conditional is a reverse diffusion."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from renorm.bases import basis_for
from renorm.data.fields import Fields
from renorm.diffusion.batches import Asked, Batches
from renorm.diffusion.build import make_denoiser, make_flow, make_sampler
from renorm.diffusion.conditioned import Known, known_modes
from renorm.diffusion.denoiser import NetworkDenoiser
from renorm.diffusion.likelihood import modes_log_prob
from renorm.diffusion.moments import Moments, measure_moments
from renorm.diffusion.nested import NestedDenoiser
from renorm.diffusion.objective import DenoisingLoss
from renorm.diffusion.octaves import octaves, shells
from renorm.diffusion.reverse import Callback, Sampler, start
from renorm.diffusion.sampler import Analytic, Ancestral
from renorm.diffusion.schedule import CLEAN
from renorm.diffusion.spacing import grid
from renorm.diffusion.spec import DiffusionSpec
from renorm.diffusion.storage import ModelCard, load, save_frame, save_weights
from renorm.errors import CheckpointError, DataError, RecipeError
from renorm.fit.spec import FitSpec
from renorm.lattice import Lattice
from renorm.model import Grade, Level, Pyramid
from renorm.spec import require

__all__ = ["ModeDiffusion"]


class ModeDiffusion:
    r"""A diffusion whose noise is fixed for each mode by the renormalization group.

    $$ \phi_k(t) = \alpha_k(t)\,\phi_k(0) + \sigma_k(t)\,z_k, \qquad z_k\sim N(0,1) $$

    The forward flow erases fine modes first; the reverse one, driven by a denoiser, draws them again, coarse to
    fine. DDPM and EDM are the same class with a white schedule.

    Level 0 is the data. At level l > 0 the cutoff stands at 1/2^l of the finest wavenumber: the modes beyond it have
    lost more than half of their signal to noise. Fields there are noisy, as in any diffusion, and live on the same
    lattice, modes that carry nothing any more at zero.

    Args:
        spec: Schedule, denoiser, sampler and spacing as values.
        lattice: Where the fields live.
        network: Any module (x, t) -> x, or (x, t, condition) -> x; none for the Gaussian denoiser.
        moments: Mean and spectrum of the data, for the parts that need them; ``fit`` measures them.
        num_classes: Number of classes that the network is conditioned on; 0: none. The network must know one more:
            class ``num_classes`` means any, and so does no condition at all.

    Source:
        Masuki & Ashida 2025, arXiv:2501.09064.

    Example:
        >>> lattice = Lattice((8,), boundary="periodic")
        >>> x = torch.randn(1000, 1, 8, generator=torch.Generator().manual_seed(0))
        >>> model = ModeDiffusion(DiffusionSpec(denoiser="gaussian"), lattice).fit(x)
        >>> y = model.sample(2000, generator=torch.Generator().manual_seed(1))
        >>> y.shape, round(y.var().item(), 1)
        (torch.Size([2000, 1, 8]), 1.0)
    """

    grade = Grade.BOUND

    def __init__(
        self,
        spec: DiffusionSpec,
        lattice: Lattice,
        *,
        network: nn.Module | None = None,
        moments: Moments | None = None,
        num_classes: int = 0,
    ) -> None:
        self.spec, self.lattice, self.num_classes = spec, lattice, num_classes
        self.network, self.moments = network, moments
        self.basis = basis_for(lattice)
        self.sampler = make_sampler(spec.sampler)
        if moments is not None or not spec.needs_moments:
            self._assemble()

    def _assemble(self) -> None:
        """Put the parts together; those that adapt to the data must know its moments by now."""
        self.schedule, self.spacing, self.training = make_flow(self.spec, self.lattice, self.moments)
        self.denoiser = make_denoiser(self.spec, self.schedule, self.moments, self.network)

    # -- the hallway -----------------------------------------------------------------------------------------------

    @property
    def domain(self) -> Lattice:
        """The lattice."""
        return self.lattice

    @property
    def levels(self) -> Sequence[Level]:
        """Octaves of the cutoff, finest first; the last is the coarsest scale of the schedule."""
        self._require_fitted()
        return octaves(self.schedule)

    def fit(
        self,
        x: Fields | Float[Tensor, "batch channel *sites"],
        *,
        condition: Int[Tensor, " batch"] | None = None,
        spec: FitSpec | None = None,
        folder: Path | None = None,
        flip: bool = False,
        resume: bool = False,
        progress: bool = True,
        identity: dict[str, Any] | None = None,
    ) -> "ModeDiffusion":
        """Learn from fields: measure their moments where needed, then train the network where there is one.

        Args:
            x: Fields, or a data set that stays in bytes.
            condition: Class of each field (a data set brings its own).
            spec: Settings of the training loop.
            folder: Where checkpoints and metrics go; a temporary one if not given.
            flip: Mirror fields at random along the last axis.
            resume: Go on from the last checkpoint in ``folder``.
            progress: Show progress on stderr.
            identity: What the run is, for the check on resuming.

        Raises:
            CheckpointError, NonFiniteLossError: See ``renorm.fit.gradient.fit``.
            DataError: If the fields are not finite or not on the lattice, or lack the classes that the model has.
        """
        named = None if condition is None else self.num_classes or None
        fields = x if isinstance(x, Fields) else Fields(x, self.lattice, condition, named)
        ours, theirs = ((a.event_shape, a.boundary) for a in (self.lattice, fields.lattice))
        if ours != theirs:
            raise DataError(f"fields must live on the model's lattice {ours}, got {theirs}")
        if self.num_classes not in (0, fields.num_classes):
            raise DataError(f"the data must have the model's {self.num_classes} classes, got {fields.num_classes}")
        if self.num_classes:
            fields.require_classes()
        if self.spec.needs_moments and self.moments is None:
            self.measure(fields)
        if not isinstance(self.denoiser, NetworkDenoiser | NestedDenoiser):
            return self
        how = {"resume": resume, "progress": progress, "identity": identity}
        with nullcontext(folder) if folder is not None else TemporaryDirectory() as place:
            return self._train(fields, spec or FitSpec(), Path(place), flip=flip, **how)

    def measure(self, fields: Fields) -> "ModeDiffusion":
        """Measure the mean and the spectrum of the data, and put the parts that adapt to them together."""
        self.moments = measure_moments(fields, centred=self.spec.subtract_mean, isotropic=self.spec.isotropic)
        self._assemble()
        return self

    def sample(
        self,
        num: int,
        *,
        condition: Int[Tensor, " batch"] | None = None,
        generator: torch.Generator,
        level: int = 0,
        steps: int | None = None,
        guidance: float = 1.0,
        batch: int = 256,
        callback: Callback | None = None,
    ) -> Float[Tensor, "num channel *sites"]:
        """New fields at a level, coarse to fine.

        Args:
            num: How many.
            condition: Class of each, where the model has classes; ``None``: any.
            generator: Source of all randomness.
            level: Stop at this level (0: the data).
            steps: Steps of the whole walk, coarsest to finest; the spec's if not given.
            guidance: How much of the class, see ``Guided``; 1: as it was learned.
            batch: Fields that walk together; bounds the memory.
            callback: Called after each step with (step, steps, scale, modes) of the current batch.
        """
        stop = self._level(level).scale
        coarsest = stop >= 1.0  # there is nowhere to walk: the start itself is asked for
        times = [1.0] if coarsest else self._times(1.0, stop, steps)

        def begin(noise: Tensor, rows: slice) -> Tensor:
            return start(self.schedule, times[0], noise, self._mean, self._spectrum)

        asked = Asked(condition, generator, guidance, batch, callback)
        return self._batches().up(num, self.sampler, times, begin, asked)

    def coarsen(
        self,
        x: Float[Tensor, "batch channel *sites"],
        level: int,
        *,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "batch channel *sites"]:
        """The field at a coarser level: a draw from the forward flow, or its mean without a generator."""
        return self.coarsen_to(x, self._level(level).scale, generator=generator)

    def coarsen_to(
        self, x: Float[Tensor, "batch channel *sites"], t: float, *, generator: torch.Generator | None = None
    ) -> Float[Tensor, "batch channel *sites"]:
        r"""As ``coarsen``, to any scale t: $U^\top C_t(\alpha U\phi + \sigma z)$."""
        self._require_fitted()
        self._require_on_lattice(x)
        modes = self.schedule.alpha(t).to(x) * self.basis.forward(x)
        if generator is not None:
            noise = torch.randn(x.shape, generator=generator, device=generator.device).to(x)
            modes = modes + self.schedule.sigma(t).to(x) * noise
        return self.basis.inverse(torch.where(self.schedule.alive(t).to(x.device), modes, 0.0))

    def refine(
        self,
        coarse: Float[Tensor, "batch channel *coarse"],
        *,
        level: int | None = None,
        to: int = 0,
        condition: Int[Tensor, " batch"] | None = None,
        generator: torch.Generator,
        steps: int | None = None,
        guidance: float = 1.0,
        particles: int = 1,
        batch: int = 256,
        callback: Callback | None = None,
    ) -> Float[Tensor, "batch channel *sites"]:
        """Finer fields given coarse ones, one draw each.

        A field of ``level`` is one on the way: the walk up begins there. It is ancestral: a deterministic one would tie
        each fine field to its coarse one by one curve, instead of drawing from the conditional law.

        A clean field on fewer sites (and no level) has the low modes of a clean fine one, which keeps them, to rounding
        (1e-6 of their size in float32): super-resolution, see ``walk_given``.

        Args:
            coarse: Fields at ``level``, as ``sample(level=...)`` gives them; or clean ones on a smaller lattice.
            level: Where they stand; none: on a smaller lattice.
            to: Where to stop; fields on a smaller lattice go to 0.
            condition, generator, guidance, batch, callback: As in ``sample``.
            steps: Steps of a whole walk; one from a level takes its share of them.
            particles: Of each field on a smaller lattice, by which its draw comes nearer to the conditional law.

        Raises:
            ValueError: If the fields are neither on the lattice nor on a smaller one, or ``to`` is not finer.
        """
        asked = Asked(condition, generator, guidance, batch, callback)
        if level is None:
            require(to == 0, "fields on a smaller lattice are refined to level 0", to)
            known = known_modes(coarse, self.lattice)
            times = self._times(1.0, CLEAN, steps)
            return self._batches().given(known, times, particles, asked)
        require(to < level, "to must be finer (smaller) than level", (to, level))
        require(particles == 1, "particles are for clean fields on a smaller lattice", particles)
        self._require_on_lattice(coarse)
        begin_scale, stop = self._level(level).scale, self._level(to).scale
        times = self._times(begin_scale, stop, steps)
        times[0] = begin_scale  # a spacing may begin later, but these fields stand here
        modes = self.basis.forward(coarse)

        def begin(noise: Tensor, rows: slice) -> Tensor:
            return modes[rows].to(noise)

        return self._batches().up(len(coarse), self._refiner(), times, begin, asked)

    def inpaint(
        self,
        x: Float[Tensor, "batch channel *sites"],
        known: Bool[Tensor, "*space"],
        *,
        space: str = "sites",
        condition: Int[Tensor, " batch"] | None = None,
        generator: torch.Generator,
        steps: int | None = None,
        guidance: float = 1.0,
        particles: int = 1,
        batch: int = 256,
        callback: Callback | None = None,
    ) -> Float[Tensor, "batch channel *sites"]:
        """Fields that agree with what is known of others, the rest drawn: see ``walk_given``.

        Args:
            x: Fields, of which only what is known is looked at.
            known: True for the sites, or the modes (``space``), that are kept.
            space: Which of them.
            condition, generator, steps, guidance, batch, callback: As in ``sample``.
            particles: As in ``refine``; where modes are known.

        Raises:
            ValueError: If the mask is not one of the lattice, or particles are asked for where sites are known.
        """
        self._require_on_lattice(x)
        shape, right = tuple(known.shape), tuple(known.shape) == self.lattice.shape
        require(right, f"the mask of what is known has one entry a site or mode, {self.lattice.shape}", shape)
        require(space in ("sites", "modes"), "space must be 'sites' or 'modes'", space)
        weighed = particles == 1 or space == "modes"
        require(weighed, "particles have weights where modes are known; of sites take 1", particles)
        given = Known(x, known, self.basis) if space == "sites" else Known(self.basis.forward(x), known)
        asked = Asked(condition, generator, guidance, batch, callback)
        return self._batches().given(given, self._times(1.0, CLEAN, steps), particles, asked)

    def encode(self, x: Float[Tensor, "batch channel *sites"]) -> Pyramid:
        """The field's modes, shell by shell: the coarsest level's, then those that each finer level adds."""
        self._require_on_lattice(x)
        modes = self.basis.forward(x)
        parts = [torch.where(shell.to(x.device), modes, 0.0) for shell in shells(self.schedule, self.levels)]
        return Pyramid(parts[0], tuple(parts[1:]))

    def decode(self, pyramid: Pyramid) -> Float[Tensor, "batch channel *sites"]:
        """The field whose modes stand in the pyramid."""
        total = pyramid.coarse
        for detail in pyramid.details:
            total = total + detail
        return self.basis.inverse(total)

    def log_prob(
        self,
        x: Float[Tensor, "batch channel *sites"],
        *,
        condition: Int[Tensor, " batch"] | None = None,
        per_level: bool = False,
        method: str = "bound",
        evaluations: int = 100,
        generator: torch.Generator | None = None,
        batch: int = 64,
    ) -> Tensor:
        """Nats of each field: the variational bound (in expectation), or the density that the probability flow carries.

        Args:
            x: Fields.
            condition: Class of each, where the model has classes.
            per_level: Give what the modes of each level add to those of the coarser ones, the coarsest first.
            method: ``"bound"``, see ``variational_bound``; or ``"flow"``, see ``flow_log_prob``.
            evaluations: Of the denoiser, for each field.
            generator: Of noise and signs; one of seed 0 on the CPU if not given: the same fields, the same numbers.
            batch: Fields at a time; bounds the memory.

        Example: Gaussian data, whose density is known.
            >>> from renorm.laws.gaussian_field import GaussianField
            >>> law = GaussianField((8,), mass_sq=0.25)
            >>> x = law.sample(4000, generator=torch.Generator().manual_seed(0))
            >>> model = ModeDiffusion(DiffusionSpec(denoiser="gaussian"), law.lattice).fit(x)
            >>> bool((model.log_prob(x[:100]) - law.log_prob(x[:100])).mean().abs() < 0.02)
            True
        """
        self._require_on_lattice(x)
        require(method in ("bound", "flow"), "method must be 'bound' or 'flow'", method)
        condition, generator = self._batches().classes(len(x), condition), generator or torch.Generator().manual_seed(0)
        if self.network is not None:
            self.network.to(generator.device).eval()
        modes = (self.basis.forward(part.to(generator.device)) for part in x.split(batch))
        parts = modes_log_prob(
            self.schedule,
            self.denoiser,
            modes,
            method=method,
            condition=None if condition is None else condition.to(generator.device).split(batch),
            generator=generator,
            evaluations=evaluations,
            mean=self._mean,
            spectrum=self._spectrum,
        )
        own = [shell.to(parts.device) for shell in shells(self.schedule, self.levels)]
        levels = torch.stack([torch.where(shell, parts, 0.0).flatten(1).sum(1) for shell in own], -1)
        return (levels if per_level else levels.sum(-1)).to(x)

    def save(self, path: Path) -> None:
        """Write spec, lattice, moments and weights to a folder."""
        self.save_frame(path)
        if self.network is not None:
            save_weights(self.network, path)

    def save_frame(self, path: Path) -> None:
        """Write all but the weights, which a fit writes by itself."""
        save_frame(ModelCard.of(self.spec, self.lattice, self.num_classes), self.moments, path)

    @classmethod
    def load(cls, path: Path, *, network: nn.Module | None = None) -> "ModeDiffusion":
        """Read a saved model or a run folder; the U-Net of the spec is built unless a network is given."""
        card, moments, network = load(path, network)
        return cls(card.spec, card.lattice, network=network, moments=moments, num_classes=card.num_classes)

    # -- inside ----------------------------------------------------------------------------------------------------

    def with_walk(
        self, *, sampler: str | None = None, spacing: str | None = None, steps: int | None = None
    ) -> "ModeDiffusion":
        """The same model with another sampler, spacing or number of steps."""
        named: dict[str, Any] = {"sampler": sampler, "spacing": spacing, "steps": steps}
        changed = replace(self.spec, **{key: value for key, value in named.items() if value is not None})
        if changed.needs_moments and self.moments is None:
            raise RecipeError(f"spacing '{spacing}' needs the data's spectrum, which this model was fitted without")
        return type(self)(
            changed, self.lattice, network=self.network, moments=self.moments, num_classes=self.num_classes
        )

    def _batches(self) -> Batches:
        """What its walks need; a model that is not fitted has none yet."""
        self._require_fitted()
        parts = (self.schedule, self.basis, self.denoiser, self.network, self._mean, self._spectrum)
        return Batches(*parts, self.num_classes)

    @property
    def _mean(self) -> Tensor | None:
        """Mean of the modes of the data where it is taken out."""
        return self.moments.mean if self.moments is not None and self.spec.subtract_mean else None

    @property
    def _spectrum(self) -> Tensor | None:
        """Variance of the modes of the data about what is taken out, where it was measured."""
        return None if self.moments is None else self.moments.spectrum

    def _level(self, index: int) -> Level:
        levels = self.levels
        require(0 <= index < len(levels), f"level must be 0 (finest) to {len(levels) - 1} (coarsest)", index)
        return levels[index]

    def _times(self, begin: float, stop: float, steps: int | None) -> list[float]:
        """Scales of a part of the walk, at its share of the steps of the whole."""
        steps = self.spec.steps if steps is None else steps
        require(steps >= 1, "steps must be >= 1 (a walk needs at least one step)", steps)
        whole = grid(self.spacing, self.schedule, steps)
        share = max(1, sum(stop < t <= begin for t in whole[:-1]))
        return grid(self.spacing, self.schedule, share, start=begin, stop=stop)

    def _refiner(self) -> Sampler:
        """A sampler that draws at each step, with the variance of the data where it is known."""
        if isinstance(self.sampler, (Analytic, Ancestral)):
            return self.sampler
        return Ancestral("large" if self.moments is None else self.moments.spectrum)

    def _require_on_lattice(self, x: Tensor) -> None:
        if tuple(x.shape[1:]) != self.lattice.event_shape:
            raise ValueError(f"fields must be (batch, *{self.lattice.event_shape}), got {tuple(x.shape)}")

    def _require_fitted(self) -> None:
        if not hasattr(self, "schedule"):
            raise CheckpointError("this model adapts to its data and has not been fitted yet; call fit first")

    def _train(self, fields: Fields, spec: FitSpec, folder: Path, *, flip: bool, **how: Any) -> "ModeDiffusion":
        from renorm.fit.gradient import fit

        assert isinstance(self.denoiser, NetworkDenoiser | NestedDenoiser)
        assert self.network is not None
        loss = DenoisingLoss(self.denoiser, fields, self.training, num_classes=self.num_classes, flip=flip)
        result = fit(self.network, loss, len(fields), spec, folder, **how)
        self.network.load_state_dict(result.ema.state_dict())
        self.network.eval()
        return self
