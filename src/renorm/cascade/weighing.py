r"""Models whose draws are weighed in another law: what a cascade and its symmetrised version have in common."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor

from renorm.cascade.conditional import Draw
from renorm.errors import DataError, NoLikelihoodError
from renorm.lattice import Lattice
from renorm.model import Grade

__all__ = ["Action", "Weighed", "Weighted"]

Action = Callable[[Tensor], Tensor]
"""Fields (batch, channel, *sites) to nats (batch,); their density is exp(-S) / Z."""

ROWS, COMPONENTS = 1024, 2**20  # fields, and components of fields, that are drawn or weighed together at most


class Weighted(NamedTuple):
    r"""Fields drawn from a model, and what each weighs in another law.

    Attributes:
        fields: (batch, channel, \*sites).
        log_prob: Under the model, (batch,).
        log_weight: $-S(\phi) - \ln q(\phi)$, float64 (batch,); its exponential's mean is Z.
    """

    fields: Tensor
    log_prob: Tensor
    log_weight: Tensor


class Weighed(ABC):
    """A model that gives the density along with each draw, and can so weigh its draws in another law.

    Attributes:
        lattice: Where its fields live.
    """

    lattice: Lattice

    @property
    @abstractmethod
    def grade(self) -> Grade:
        """What ``log_prob`` means."""

    @abstractmethod
    def draw(self, num: int, *, generator: torch.Generator) -> Draw:
        """Fields, and the log density that they were drawn with."""

    @abstractmethod
    def log_prob(self, x: Tensor) -> Tensor:
        """Nats of each field."""

    @torch.no_grad()
    def draw_many(self, num: int, *, generator: torch.Generator) -> Draw:
        """What ``draw`` gives, as many together as fit into memory; without gradients."""
        starts = range(0, max(num, 1), self.together)  # draw refuses 0
        drawn = [self.draw(min(self.together, num - start), generator=generator) for start in starts]
        return Draw(torch.cat([part.value for part in drawn]), torch.cat([part.log_prob for part in drawn]))

    def weigh(self, action: Action, num: int, *, generator: torch.Generator) -> Weighted:
        r"""Draw fields and weigh them in the law $e^{-S}/Z$.

        Args:
            action: S.
            num: How many.
            generator: Source of randomness.

        Raises:
            DataError: If the action is no number, or minus infinity, on a field that the model draws.
            NoLikelihoodError: If the densities are not exact.
        """
        self.require_density()
        value, log_prob = self.draw_many(num, generator=generator)
        return Weighted(value, log_prob, self.log_weight(action, value, log_prob))

    @torch.no_grad()
    def log_weight(self, action: Action, x: Tensor, log_prob: Tensor | None = None) -> Float64[Tensor, " batch"]:
        r"""$\ln w = -S(\phi) - \ln q(\phi)$ of each field, in nats, as many together as fit into memory.

        A field of infinite action (a broken bond) weighs nothing.

        Args:
            action: S.
            x: Fields.
            log_prob: Their $\ln q$ where it is known, as of a draw.

        Raises:
            DataError: If the action is no number, or minus infinity, on a field, or infinite on all.
            NoLikelihoodError: If the densities are not exact.
        """
        self.require_density()
        energy = torch.cat([action(part).double() for part in x.split(self.together)])
        bad = int((energy.isnan() | (energy == -torch.inf)).sum())
        if bad or (len(energy) and bool(energy.isinf().all())):
            which = f"{bad} of {len(energy)} that are nan or -inf" if bad else f"infinity on all {len(energy)}"
            raise DataError(
                "the action must be finite on every field, but for infinity where a field weighs nothing, got "
                f"{which}: is it bounded below, are its couplings finite, and is the model trained?"
            )
        if log_prob is None:
            log_prob = torch.cat([self.log_prob(part) for part in x.split(self.together)])
        return torch.where(energy.isinf(), -torch.inf, -energy - log_prob.double())

    @property
    def together(self) -> int:
        """Fields that are drawn or weighed together, so that they fit into memory."""
        return max(1, min(ROWS, COMPONENTS // (self.lattice.sites * self.lattice.channels)))

    def require_density(self) -> None:
        """Raise ``NoLikelihoodError`` unless densities are exact: weights and log Z need their constants."""
        if self.grade is not Grade.EXACT:
            raise NoLikelihoodError(
                f"weights need exact densities, and those of this model have the grade '{self.grade}' (a part is an "
                "energy or a diffusion); take other conditionals"
            )
