"""The hallway: what is true of every renormalizing model, said once.

    x, y = model.coarsen(phi, level=2), model.sample(4, generator=g)

is the same line in every wing. ``renorm.testing.check_model`` checks that a class keeps to it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from renorm.lattice import Lattice

__all__ = ["Conditional", "Grade", "Level", "Pyramid", "RenormModel"]


class Grade(StrEnum):
    """What ``log_prob`` means for a model."""

    EXACT = "exact"
    ENERGY = "energy"  # up to a constant
    BOUND = "bound"
    NONE = "none"


@dataclass(frozen=True)
class Level:
    """One scale of the hierarchy; ``levels[0]`` is the finest, the data themselves.

    Attributes:
        index: 0 = finest.
        cutoff: Wavenumber beyond which modes are integrated out, in rad/site of the finest lattice (infinite: none).
        scale: The model's own continuous scale, where it has one.
        modes: Number of modes (or sites, or tokens) below the cutoff.
        event_shape: Shape of a field at this level, (channel, *sites); the domain's if not given.
    """

    index: int
    cutoff: float
    scale: float
    modes: int
    event_shape: tuple[int, ...] | None = None


class Pyramid(NamedTuple):
    """The hierarchy of latents: the coarsest field, then the details from coarse to fine."""

    coarse: Tensor
    details: tuple[Tensor, ...]


@runtime_checkable
class Conditional(Protocol):
    """A law of the detail given the coarse field: what undoes one coarse-graining step."""

    def sample(self, coarse: Tensor, *, generator: torch.Generator) -> Tensor:
        """One detail for each coarse field."""
        ...

    def log_prob(self, detail: Tensor, coarse: Tensor) -> Tensor:
        """Log density of each detail given its coarse field, in nats."""
        ...


@runtime_checkable
class RenormModel(Protocol):
    """A generative model that coarse-grains and refines."""

    @property
    def domain(self) -> Lattice:
        """Where a field lives."""
        ...

    @property
    def levels(self) -> Sequence[Level]:
        """Finest first."""
        ...

    @property
    def grade(self) -> Grade:
        """What ``log_prob`` means."""
        ...

    def fit(self, x: Any, *, condition: Tensor | None = None) -> "RenormModel":
        """Learn from fields (batch, channel, *sites)."""
        ...

    def sample(
        self, num: int, *, condition: Tensor | None = None, generator: torch.Generator, level: int = 0
    ) -> Tensor:
        """Fields at a level."""
        ...

    def coarsen(self, x: Tensor, level: int, *, generator: torch.Generator | None = None) -> Tensor:
        """The forward flow from the finest level; where it is random, ``None`` gives its mean."""
        ...

    def refine(
        self,
        coarse: Tensor,
        *,
        level: int,
        to: int = 0,
        condition: Tensor | None = None,
        generator: torch.Generator,
    ) -> Tensor:
        """A draw from the law of the finer field given the coarse one."""
        ...

    def encode(self, x: Tensor) -> Pyramid:
        """Latents by level."""
        ...

    def decode(self, pyramid: Pyramid) -> Tensor:
        """The inverse of ``encode``."""
        ...

    def log_prob(self, x: Tensor, *, condition: Tensor | None = None, per_level: bool = False) -> Tensor:
        """Nats; raises ``NoLikelihoodError`` where the grade is ``NONE``."""
        ...

    def save(self, path: Path) -> None:
        """Write the model to a folder: tensors as safetensors, values as TOML, no code."""
        ...

    @classmethod
    def load(cls, path: Path) -> "RenormModel":
        """Read what ``save`` wrote."""
        ...
