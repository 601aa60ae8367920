"""``Cascade``: one coarse-graining step after the other, each with the law that undoes it."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from renorm.cascade.build import Maker, make_parts
from renorm.cascade.conditional import CascadeConditional, Draw
from renorm.cascade.conditionals.heads import SpinHead
from renorm.cascade.learning.descent import Keeper, Tell, descend
from renorm.cascade.learning.levels import (
    begin_from_coarser,
    fit_level,
    require_learnable,
    require_transferable,
    standardise,
)
from renorm.cascade.spec import CascadeFit, CascadeSpec
from renorm.cascade.storage import CascadeCard, read, write
from renorm.cascade.weighing import Action, Weighed, Weighted
from renorm.coarse.base import CoarseGraining, merged
from renorm.data.fields import require_finite
from renorm.errors import DataError, RecipeError
from renorm.fit.checkpoint import load_weights
from renorm.fit.randomness import seed_of
from renorm.lattice import Lattice
from renorm.laws.build import make_law
from renorm.laws.spec import LawSpec
from renorm.model import Grade, Level, Pyramid

__all__ = ["Action", "Cascade", "Weighted"]


class Cascade(nn.Module, Weighed):
    r"""A law of fields, coarse to fine, whose density is exact.

    $$ \ln p(\phi_0) = \ln p_L(\phi_L) + \sum_{l=0}^{L-1} \Big[ \ln p_l(y_l \mid \phi_{l+1})
       + \ln\left|\det \tfrac{\partial T_l}{\partial \phi_l}\right| \Big], \qquad (\phi_{l+1}, y_l) = T_l(\phi_l) $$

    Args:
        lattice: Where the finest field lives.
        steps: T, finest first.
        conditionals: p(detail | coarse) of each step, finest first.
        top: Law of the coarsest field; it is told nothing (``coarse`` has no columns).

    Raises:
        RecipeError: If a step cannot coarse-grain what the one before leaves, or the numbers differ.

    Invariant:
        ``log_prob(x, per_level=True)`` sums to ``log_prob(x)``; ``log_prob_level(coarsen(x, l), l)`` is the law of
        level l itself.

    Example: a free field on a chain, exact.
        >>> from renorm.cascade.gaussian import gaussian_cascade
        >>> from renorm.coarse.wavelet import Wavelet
        >>> k = Lattice((8,), boundary="periodic")
        >>> variance = 1 / (0.1 + 4 * torch.sin(math.pi * torch.arange(8, dtype=torch.float64) / 8) ** 2)
        >>> model = gaussian_cascade(k, variance.to(torch.complex128)[:, None, None], [Wavelet(dim=1)] * 2)
        >>> x = model.sample(5, generator=torch.Generator().manual_seed(0))
        >>> model.coarsen(x, 2).shape, model.log_prob(x, per_level=True).shape
        (torch.Size([5, 1, 2]), torch.Size([5, 3]))
    """

    def __init__(
        self,
        lattice: Lattice,
        steps: Sequence[CoarseGraining],
        conditionals: Sequence[CascadeConditional],
        top: CascadeConditional,
    ) -> None:
        super().__init__()
        if len(steps) != len(conditionals):
            raise RecipeError(f"each of {len(steps)} steps needs a conditional, got {len(conditionals)}")
        self.lattice, self.steps = lattice, tuple(steps)
        self.lattices = [lattice]
        for step in steps:
            self.lattices.append(step.coarse_lattice(self.lattices[-1]))
        self.conditionals = nn.ModuleList(conditionals)
        self.top = top
        # Steps with parameters (a learned block) are trained along with the rest.
        self.learned_steps = nn.ModuleList([step for step in steps if isinstance(step, nn.Module)])
        self.card: CascadeCard | None = None

    @classmethod
    def of(
        cls,
        spec: CascadeSpec,
        lattice: Lattice,
        *,
        law: LawSpec | None = None,
        seed: int = 0,
        makers: Mapping[str, Maker] | None = None,
    ) -> "Cascade":
        """A cascade that a spec describes, not fitted yet; ``save`` can write it.

        Args:
            spec: What is coarse-grained how, and which law undoes it.
            lattice: Where the finest field lives.
            law: Of the data, where a heat bath needs it.
            seed: Of the networks' first weights.
            makers: Of conditionals that cascades do not know themselves, by kind.

        Raises:
            RecipeError: If the lattice cannot be coarse-grained so, or spec and law do not go together.

        Example:
            >>> model = Cascade.of(CascadeSpec(coarse="haar"), Lattice((4, 4), boundary="periodic"))
            >>> [level.event_shape for level in model.levels]
            [(1, 4, 4), (1, 2, 2), (1, 1, 1)]
        """
        if law is not None:
            make_law(law, lattice.shape)  # refuses couplings that no field on this lattice can have
        model = cls(lattice, *make_parts(spec, lattice, law, seed=seed, makers=makers))
        model.card = CascadeCard.of(spec, lattice, law)
        return model

    # -- the hallway -------------------------------------------------------------------------------------------------

    def fit(
        self, x: Tensor, *, condition: Tensor | None = None, spec: CascadeFit | None = None, tell: Tell | None = None
    ) -> "Cascade":
        r"""Maximise the likelihood of samples: each level on its own, or, where they share weights, all at once.

        Args:
            x: Fields (batch, channel, sites).
            condition: Cascades have none.
            spec: Steps, batch, rate and seed; of levels that are not solved in closed form.
            tell: Told of each step of a level.

        Raises:
            DataError: If there are too few fields, or of another lattice.
        """
        _no_condition(condition)
        spec = spec or CascadeFit()
        for stage in self.order(spec):
            self.fit_stage(x, stage, spec, tell=tell)
        return self

    @property
    def stages(self) -> int:
        """Parts that ``fit`` learns one after the other: the levels and the top, or one where they share weights."""
        tied = self.card is not None and self.card.spec.tied
        return 1 if tied or len(self.learned_steps) else len(self.parts)

    def order(self, spec: CascadeFit) -> list[int]:
        """Stages in the order in which they are learned: finest first, or, where weights are handed on, coarsest first.

        Raises:
            RecipeError: If ``spec.transfer`` asks to hand on weights that there are not.
        """
        if spec.transfer:
            require_transferable(self.parts, at_once=self.stages == 1)
        return sorted(range(self.stages), reverse=spec.transfer)

    def fit_stage(
        self, x: Tensor, stage: int, spec: CascadeFit, *, tell: Tell | None = None, keeper: Keeper | None = None
    ) -> list[float]:
        """Learn one stage, going on from the weights that it has or is handed; gives the losses in nats. All else is
        of the fields, the spec and the stage alone; a keeper makes it go on where it was stopped.
        """
        self._require_event(x, 0)
        require_learnable(len(x))
        require_finite(x, "what is fitted")
        self._require_spins(x)
        generator = torch.Generator().manual_seed(seed_of(spec.seed, "order", stage))
        if self.stages == 1:
            return self._fit_at_once(x, spec, generator, tell, keeper)
        coarse = self.coarsen(x, min(stage, len(self.steps)))
        if stage < len(self.steps):
            coarse, detail, _ = self.steps[stage].split(coarse)
        else:
            coarse, detail = coarse.new_empty(len(coarse), 0), coarse
        law = self.parts[stage]
        if spec.transfer:
            begin_from_coarser(law, self.parts[stage + 1 :])
        size = {"steps": spec.steps, "batch": spec.batch, "rate": spec.rate, "tell": tell, "keeper": keeper}
        return fit_level(law, detail, coarse, **size, generator=generator).losses  # type: ignore[arg-type]

    @property
    def domain(self) -> Lattice:
        """Where a field lives."""
        return self.lattice

    @property
    def levels(self) -> Sequence[Level]:
        """Finest first."""
        found, modes = [], self.lattice.sites * self.lattice.channels
        for index, lattice in enumerate(self.lattices):
            here = lattice.sites * lattice.channels
            cutoff = math.pi * (here / modes) ** (1 / lattice.dim)
            found.append(Level(index, cutoff, float(index), here, lattice.event_shape))
        return found

    @property
    def grade(self) -> Grade:
        """The weakest of its parts' grades."""
        order = [Grade.EXACT, Grade.ENERGY, Grade.BOUND, Grade.NONE]
        return max((part.grade for part in self.parts), key=order.index)

    @property
    def parts(self) -> list[CascadeConditional]:
        """All conditionals, finest first, and the top."""
        return [*self.conditionals, self.top]  # type: ignore[list-item]

    @torch.no_grad()
    def sample(
        self, num: int, *, condition: Tensor | None = None, generator: torch.Generator, level: int = 0
    ) -> Tensor:
        """Fields at a level."""
        _no_condition(condition)
        return self.draw(num, generator=generator, level=level).value

    def coarsen(self, x: Tensor, level: int, *, generator: torch.Generator | None = None) -> Tensor:
        """The field at a level: the steps, one after the other."""
        self._require_level(level)
        self._require_event(x, 0)
        for step in self.steps[:level]:
            x = step.split(x).coarse
        return x

    @torch.no_grad()
    def refine(
        self,
        coarse: Tensor,
        *,
        level: int,
        to: int = 0,
        condition: Tensor | None = None,
        generator: torch.Generator,
    ) -> Tensor:
        """A draw of the finer field given the coarse one, which it keeps."""
        _no_condition(condition)
        self._require_level(level)
        if not 0 <= to < level:
            raise DataError(f"refine goes to a finer level, 0 ... {level - 1}, got to = {to}")
        self._require_event(coarse, level)
        return self._grow(Draw(coarse, coarse.new_zeros(len(coarse))), level, to, generator).value

    def encode(self, x: Tensor) -> Pyramid:
        """The coarsest field, then the details from coarse to fine."""
        self._require_event(x, 0)
        details = []
        for step in self.steps:
            x, detail, _ = step.split(x)
            details.append(detail)
        return Pyramid(x, tuple(details[::-1]))

    def decode(self, pyramid: Pyramid) -> Tensor:
        """The inverse of ``encode``."""
        x = pyramid.coarse
        for step, detail in zip(self.steps[::-1], pyramid.details, strict=True):
            x = step.merge(x, detail)
        return x

    def log_prob(self, x: Tensor, *, condition: Tensor | None = None, per_level: bool = False) -> Tensor:
        """Nats of each field.

        Args:
            x: Fields.
            condition: Cascades have none.
            per_level: Give each level's part, the coarsest first: (batch, levels).
        """
        _no_condition(condition)
        return self.log_prob_level(x, 0, per_level=per_level)

    def save(self, path: Path) -> None:
        """Write the model to a folder: ``model.toml`` and ``model.safetensors``.

        Raises:
            RecipeError: If the cascade was put together by hand: a folder holds a spec, no code.
        """
        if self.card is None:
            raise RecipeError("only a cascade of a spec can be saved (Cascade.of, or a recipe); this one has no spec")
        write(self.card, self.state_dict(), Path(path))

    @classmethod
    def load(cls, path: Path, *, makers: Mapping[str, Maker] | None = None) -> "Cascade":
        """Read what ``save`` wrote; with the ``makers`` that it was made with.

        Raises:
            CheckpointError: If the folder holds no cascade, or a damaged one.
        """
        card, tensors = read(Path(path))
        model = cls.of(card.spec, card.lattice, law=card.law, makers=makers)
        load_weights(model, tensors, source=str(path))
        return model

    # -- what only a cascade can do ----------------------------------------------------------------------------------

    def log_prob_level(self, x: Tensor, level: int, *, per_level: bool = False) -> Tensor:
        """Nats of fields of a level: the model's own law of coarse fields, its effective theory there.

        Args:
            x: Fields of that level.
            level: Which.
            per_level: Give the parts, the coarsest first.
        """
        self._require_level(level)
        self._require_event(x, level)
        self._require_spins(x)
        parts = []
        for step, conditional in zip(self.steps[level:], self.conditionals[level:], strict=True):
            x, detail, log_det = step.split(x)
            assert isinstance(conditional, CascadeConditional)
            parts.append(conditional.log_prob(detail, x) + log_det)
        parts.append(self.top.log_prob(x, x.new_empty(len(x), 0)))
        each = torch.stack(parts[::-1], dim=-1)
        return each if per_level else each.sum(-1)

    def draw(self, num: int, *, generator: torch.Generator, level: int = 0) -> Draw:
        """Fields at a level, and the log density that they were drawn with."""
        self._require_level(level)
        if num < 1:
            raise DataError(f"num must be >= 1, got {num}")
        at = next(self.parameters(), None)
        blank = torch.empty(num, 0, dtype=None if at is None else at.dtype, device=generator.device)
        return self._grow(self.top.draw(blank, generator=generator), len(self.steps), level, generator)

    # -- inside ------------------------------------------------------------------------------------------------------

    def _grow(self, start: Draw, level: int, to: int, generator: torch.Generator) -> Draw:
        x, total = start
        for index in range(level - 1, to - 1, -1):
            conditional, step = self.conditionals[index], self.steps[index]
            assert isinstance(conditional, CascadeConditional)
            detail, log_prob = conditional.draw(x, generator=generator)
            x, log_det = merged(step, x, detail)
            total = total + log_prob + log_det.to(log_prob.dtype)
        return Draw(x, total)

    def _fit_at_once(
        self, x: Tensor, spec: CascadeFit, generator: torch.Generator, tell: Tell | None, keeper: Keeper | None
    ) -> list[float]:
        """All levels together: they share weights, or the steps themselves learn."""
        for index, (step, law) in enumerate(zip(self.steps, self.conditionals, strict=True)):
            split = step.split(self.coarsen(x, index))
            standardise(law, split.detail.detach(), split.coarse.detach())
        standardise(self.top, self.coarsen(x, len(self.steps)).detach(), x.new_empty(len(x), 0))

        def loss() -> tuple[Tensor, float]:
            index = torch.randint(len(x), (min(spec.batch, len(x)),), generator=generator)
            nats = -self.log_prob(x[index])
            return nats.mean(), float(nats.detach().std())

        kept = {"tell": tell, "keeper": keeper, "generator": generator}
        return descend(self.parameters(), loss, steps=spec.steps, rate=spec.rate, **kept).losses  # type: ignore[arg-type]

    def _require_spins(self, x: Tensor) -> None:
        spins = any(isinstance(getattr(part, "head", None), SpinHead) for part in self.parts)
        if spins and not bool((x.abs() == 1).all()):
            raise DataError(f"this cascade is one of spins, +1 and -1, got the value {x[x.abs() != 1][0].item():g}")

    def _require_level(self, level: int) -> None:
        if not 0 <= level <= len(self.steps):
            raise DataError(f"level must be 0 ... {len(self.steps)}, got {level}")

    def _require_event(self, x: Tensor, level: int) -> None:
        event = self.lattices[level].event_shape
        if tuple(x.shape[1:]) != event:
            wanted = ", ".join(map(str, event))
            raise DataError(f"fields of level {level} have the shape (batch, {wanted}), got {tuple(x.shape)}")


def _no_condition(condition: Tensor | None) -> None:
    if condition is not None:
        raise DataError("cascades have no classes yet; leave condition away")
