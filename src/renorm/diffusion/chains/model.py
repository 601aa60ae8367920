"""The model: one network for chains of all lengths; each length is a mode diffusion."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from renorm.diffusion.build import make_sampler, make_spacing
from renorm.diffusion.chains.denoiser import ChainDenoiser
from renorm.diffusion.chains.flow import schedule_of
from renorm.diffusion.chains.objective import ChainLoss, TrainingChain, modes_of
from renorm.diffusion.chains.profile import measure_profile, spectrum_of
from renorm.diffusion.chains.spec import ChainSpec
from renorm.diffusion.mode_diffusion import ModeDiffusion
from renorm.diffusion.moments import Moments
from renorm.diffusion.remaining import Look, RemainingError
from renorm.diffusion.reverse import Callback
from renorm.diffusion.sampler import Analytic
from renorm.diffusion.spacing import Spacing
from renorm.diffusion.spec import DiffusionSpec
from renorm.errors import CheckpointError, RecipeError
from renorm.fit.checkpoint import atomic, load_weights, read_tensors, write_tensors
from renorm.fit.spec import FitSpec
from renorm.nn.chain import ChainNet
from renorm.nn.weights import sha256_of
from renorm.spec import load_toml, to_toml

__all__ = ["ChainDiffusion", "OneLength"]


LOOKED_AT, SCALES = 32, 25
"""Chains, and scales of each, by which it is measured what a network leaves open."""


class OneLength(ModeDiffusion):
    """Chains of one length and one sequence: what a mode diffusion can do, it can (see ``ChainDiffusion.of``).

    Args:
        spec: Of the family.
        denoiser: Of chains of this length, with its schedule.
        remaining: What the denoiser leaves open, for the ``analytic`` sampler; not measured if not given.
    """

    def __init__(self, spec: ChainSpec, denoiser: ChainDenoiser, remaining: RemainingError | None = None) -> None:
        self.family, self._chain, self._remaining = spec, denoiser, remaining
        steps = spec.steps or denoiser.schedule.steps
        walk = DiffusionSpec(sampler=spec.sampler, steps=steps)  # spacings are looked up by ``_assemble``
        network = denoiser.network
        lattice = denoiser.schedule.lattice
        moments = None
        if denoiser.spectrum is not None:
            moments = Moments(torch.zeros_like(denoiser.spectrum), denoiser.spectrum)
        super().__init__(walk, lattice, network=network if isinstance(network, nn.Module) else None, moments=moments)

    def _assemble(self) -> None:
        self.schedule, self.denoiser = self._chain.schedule, self._chain
        spectrum = self._chain.spectrum if self._chain.spectrum is not None else self.schedule.prior_spectrum
        self.spacing, self.training = (spacing_of(self.family, spectrum, training=part) for part in (False, True))
        if isinstance(self.sampler, Analytic):
            self.sampler = Analytic(self._remaining)

    def with_walk(
        self, *, sampler: str | None = None, spacing: str | None = None, steps: int | None = None
    ) -> "OneLength":
        """The same model with another sampler, spacing or number of steps."""
        named: dict[str, Any] = {"sampler": sampler, "spacing": spacing, "steps": steps}
        changed = replace(self.family, **{key: value for key, value in named.items() if value is not None})
        return OneLength(changed, self._chain, self._remaining)

    def fit(self, *_: Any, **__: Any) -> "OneLength":
        """Refused: all lengths learn together."""
        raise RecipeError("chains of one length are a part of a ChainDiffusion; fit that one, on chains of all lengths")

    def save(self, path: Path) -> None:
        """Refused: all lengths are kept together."""
        raise RecipeError(f"chains of one length are a part of a ChainDiffusion; save that one to {path}")


def spacing_of(spec: ChainSpec, spectrum: Float[Tensor, " modes"], *, training: bool = False) -> Spacing:
    """Where the steps of chains of one length lie, or where training draws their scales."""
    flow = DiffusionSpec(schedule="white" if spec.schedule == "ddpm" else "rgdm")
    moments = Moments(torch.zeros_like(spectrum), spectrum)
    return make_spacing(replace(flow, spacing=spec.spacing, training=spec.training), moments, training=training)


class ChainDiffusion:
    r"""A diffusion of C-alpha chains, coarse to fine, for chains of all lengths and sequences.

    $$ \phi_k(t) = \alpha_k(t)\,\phi_k(0) + \sigma_k(t)\,z_k $$

    with the schedule of each length (``rgdm_chain``, or ``ddpm_chain``), and one network that sees a coarse chain
    while few modes are alive. The centre of a chain stays at the origin.

    Args:
        spec: Flow, network and walk as values.
        network: As ``ChainNet``; the one of the spec if not given, its weights drawn by ``seed``.
        seed: Of the initial weights.
        profile: Of the spectrum of chains, which ``fit`` measures (see ``measure_profile``).
        remaining: What the network leaves open, which ``fit`` measures.

    Source:
        Masuki & Ashida 2025, arXiv:2501.09064, with another network.

    Example:
        >>> from renorm.nn.spec import ChainNetSpec
        >>> model = ChainDiffusion(ChainSpec(network=ChainNetSpec(width=16, layers=1)))
        >>> model.fold(torch.zeros(40, dtype=torch.int64), 2, generator=torch.Generator().manual_seed(0)).shape
        torch.Size([2, 3, 40])
    """

    def __init__(
        self,
        spec: ChainSpec,
        network: nn.Module | None = None,
        *,
        seed: int = 0,
        profile: Float[Tensor, " bins"] | None = None,
        remaining: RemainingError | None = None,
    ) -> None:
        self.spec, self.profile, self.remaining = spec, profile, remaining
        if network is None:
            network = ChainNet(spec.network, generator=torch.Generator().manual_seed(seed))
        self.network = network
        self._lacks: str | None = None  # said where an analytic walk is asked for
        for part in (False, True):  # unknown names are told now
            spacing_of(spec, torch.ones(3), training=part)

    def of(
        self,
        sites: int,
        letters: Int64[Tensor, " sites"] | None = None,
        features: Float[Tensor, "sites feature"] | None = None,
    ) -> OneLength:
        """The mode diffusion of chains of one length.

        Args:
            sites: N.
            letters: Kinds of the residues; none: of any sequence.
            features: Their further features, which a network that has some needs.

        Raises:
            ValueError: If there are fewer than three sites.
            RecipeError: If letters or features are not one a site.
            CheckpointError: If the walk is analytic, and the run that was read lacks what its network leaves open.
        """
        for what, value in (("letters", letters), ("features", features)):
            if value is not None and len(value) != sites:
                raise RecipeError(f"{what} must be one for each of the {sites} residues, got {len(value)}")
        if self._lacks is not None and self.spec.sampler == "analytic":
            raise CheckpointError(self._lacks)
        self.network.eval()
        schedule = schedule_of(self.spec, sites)
        known = self.spec.spectrum == "measured" and self.profile is not None
        spectrum = spectrum_of(self.profile, sites, self.spec.mass) if known else None
        return OneLength(self.spec, ChainDenoiser(self.network, schedule, letters, features, spectrum), self.remaining)

    def with_walk(
        self, *, sampler: str | None = None, spacing: str | None = None, steps: int | None = None
    ) -> "ChainDiffusion":
        """The same model with another sampler, spacing or number of steps."""
        named: dict[str, Any] = {"sampler": sampler, "spacing": spacing, "steps": steps}
        changed = replace(self.spec, **{key: value for key, value in named.items() if value is not None})
        make_sampler(changed.sampler)
        model = ChainDiffusion(changed, self.network, profile=self.profile, remaining=self.remaining)
        model._lacks = self._lacks
        return model

    def fold(
        self,
        letters: Int64[Tensor, " sites"],
        num: int = 1,
        *,
        generator: torch.Generator,
        features: Float[Tensor, "sites feature"] | None = None,
        steps: int | None = None,
        batch: int = 16,
        callback: Callback | None = None,
    ) -> Float[Tensor, "num 3 sites"]:
        """Chains of a sequence, in angstrom, centred.

        Args:
            letters: Kinds of the residues; ``renorm.nn.chain.LETTERS`` where it is not told.
            num: How many.
            generator: Source of all randomness.
            features: Further features of the residues.
            steps: Of the walk; T(N) if not given.
            batch: Chains that walk together.
            callback: See ``ModeDiffusion.sample``.
        """
        model = self.of(len(letters), letters, features)
        return model.sample(num, generator=generator, steps=steps, batch=batch, callback=callback)

    def fit(
        self,
        chains: Sequence[TrainingChain],
        *,
        spec: FitSpec,
        folder: Path,
        resume: bool = False,
        progress: bool = True,
        identity: dict[str, Any] | None = None,
    ) -> "ChainDiffusion":
        """Train the network, leave a run in the folder, and keep the averaged weights.

        The spectrum is that of these chains if none was measured before.

        Raises:
            CheckpointError, NonFiniteLossError: See ``renorm.fit.gradient.fit``.
        """
        from renorm.fit.gradient import fit

        if self.profile is None:
            self.measure(chains)
        loss = ChainLoss(chains, self.spec, partial(spacing_of, self.spec, training=True), self.profile)
        result = fit(self.network, loss, len(chains), spec, folder, identity=identity, resume=resume, progress=progress)
        self.network.load_state_dict(result.ema.state_dict())
        self.network.eval()
        self.remaining = _read_remaining(folder)
        if self.remaining is None:
            self.measure_remaining(chains, seed=spec.seed)
            self._save_remaining(folder)
        return self

    @torch.no_grad()
    def measure_remaining(self, chains: Sequence[TrainingChain], *, seed: int = 0) -> "ChainDiffusion":
        """Measure what the network leaves open of some chains, drawn by a seed, for the ``analytic`` sampler.

        Their sequences are told. Of chains that it was not trained on a network leaves more open.
        """
        self._lacks = None
        generator = torch.Generator().manual_seed(seed)
        some = torch.randperm(len(chains), generator=generator)[:LOOKED_AT].tolist()
        device = next(self.network.parameters(), torch.empty(0)).device

        def looks() -> Iterator[Look]:
            for i in some:
                chain = chains[i]
                features = None if chain.features is None else chain.features.float()  # kept in half precision
                denoiser = self.of(chain.x.shape[1], chain.letters, features)._chain
                x = modes_of(chain.x)[None].to(device)
                for t in torch.linspace(0, 1, SCALES).tolist():
                    yield denoiser.look(x, t, torch.randn(x.shape, generator=generator).to(device))

        self.remaining = RemainingError.measured(looks(), scales=SCALES)
        return self

    def measure(self, chains: Sequence[TrainingChain]) -> "ChainDiffusion":
        """Measure the spectrum of chains."""
        self.profile = measure_profile((modes_of(chain.x) for chain in chains), self.spec.mass)
        return self

    def save(self, path: Path) -> None:
        """Write spec, spectrum and weights to a folder."""
        self.save_frame(path)
        write_tensors(path / "model.safetensors", self.network.state_dict(), {"kind": "chain-diffusion"})
        self._save_remaining(path)

    def save_frame(self, path: Path) -> None:
        """Write all but the weights, which a fit writes by itself."""
        with atomic(path / "chain.toml") as temporary:
            temporary.write_text(to_toml(self.spec), encoding="utf-8")
        if self.profile is not None:
            write_tensors(path / "profile.safetensors", {"profile": self.profile}, {"kind": "chain-profile"})

    def _save_remaining(self, path: Path) -> None:
        """With the weights that it was measured of, which lie there already."""
        if self.remaining is None:
            (path / "remaining.safetensors").unlink(missing_ok=True)
            return
        about = {"kind": "chain-remaining", "weights": sha256_of(path / "model.safetensors")}
        write_tensors(path / "remaining.safetensors", {"share": self.remaining.share}, about)

    @classmethod
    def load(cls, path: Path) -> "ChainDiffusion":
        """Read a saved model, or a run folder whose fit is finished.

        Raises:
            CheckpointError: If there is none, or it is damaged.
        """
        if not (path / "chain.toml").is_file():
            raise CheckpointError(f"{path} holds no chain diffusion (there is no chain.toml); give a run folder")
        if not (path / "model.safetensors").is_file():
            raise CheckpointError(f"{path} holds no weights yet; finish the fit with `renorm fit --resume`")
        try:
            spec = load_toml(ChainSpec, path / "chain.toml")
        except RecipeError as error:
            raise CheckpointError(f"{error}; the folder is damaged or of another version") from None
        profile = None
        if (path / "profile.safetensors").is_file():
            profile = read_tensors(path / "profile.safetensors")[0].get("profile")
        if profile is None and spec.spectrum == "measured":
            raise CheckpointError(f"{path} lacks profile.safetensors, which its model needs; fit again")
        model = cls(spec, profile=profile, remaining=_read_remaining(path))
        if model.remaining is None and (path / "metrics.jsonl").is_file():
            model._lacks = (
                f"{path} lacks what its network leaves open (remaining.safetensors is absent, or of other weights), "
                f"which sampler 'analytic' needs; `renorm fit {path / 'recipe.toml'} --out {path} --resume` measures it"
            )
        load_weights(model.network, read_tensors(path / "model.safetensors")[0], source=str(path / "model.safetensors"))
        model.network.eval()
        return model


def _read_remaining(path: Path) -> RemainingError | None:
    """What a folder keeps of it, if that is sound and of the weights that lie there: else it is measured again."""
    file = path / "remaining.safetensors"
    if not file.is_file():
        return None
    try:
        tensors, about = read_tensors(file)
        known = RemainingError(tensors["share"])
    except (CheckpointError, KeyError, ValueError):
        return None
    return known if about.get("weights") == sha256_of(path / "model.safetensors") else None
