r"""What every coarse-graining step does: split a field into coarse field and detail, and merge them again.

One step $T$ is a bijection, so that the law of the fine field is that of coarse field and detail:

$$ \ln p(x) = \ln p(c) + \ln p(y \mid c) + \ln\left|\det\frac{\partial(c, y)}{\partial x}\right|,
   \qquad (c, y) = T(x) $$

A ``BlockRule`` keeps the coarse field alone: it is what a block-spin transformation does.
"""

from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from renorm.errors import DataError, RecipeError
from renorm.lattice import Lattice

__all__ = ["BlockRule", "CoarseGraining", "Split", "check_field", "check_parts", "check_sites", "merged", "shrunk"]


class Split(NamedTuple):
    r"""A field after one step.

    Attributes:
        coarse: The coarser field, (batch, channel, \*coarse sites).
        detail: What the coarse field does not know, (batch, details, \*detail sites).
        log_det: $\ln|\det\partial(c, y)/\partial x|$ of each field, in nats, (batch,).
    """

    coarse: Tensor
    detail: Tensor
    log_det: Tensor


@runtime_checkable
class CoarseGraining(Protocol):
    """An invertible step; ``merge`` undoes ``split``. ``renorm.testing.check_coarse_graining`` says whether it does."""

    def coarse_lattice(self, lattice: Lattice) -> Lattice:
        """Where the coarse fields of this lattice live; RecipeError where the lattice cannot be coarse-grained."""
        ...

    def detail_shape(self, lattice: Lattice) -> tuple[int, ...]:
        r"""Shape of one detail, (details, \*detail sites)."""
        ...

    def split(self, x: Tensor) -> Split:
        """Coarse field, detail, and the volume that the step changes."""
        ...

    def merge(self, coarse: Tensor, detail: Tensor) -> Tensor:
        """The fine field; ``merge(split(x).coarse, split(x).detail) == x``."""
        ...


def merged(step: CoarseGraining, coarse: Tensor, detail: Tensor) -> tuple[Tensor, Tensor]:
    """The fine field, and the ``log_det`` that ``split`` has there; in one pass where the step knows how.

    Example:
        >>> from renorm.coarse.checkerboard import RotatedCheckerboard
        >>> x, log_det = merged(RotatedCheckerboard(), torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2))
        >>> tuple(x.shape), log_det.tolist()
        ((1, 2, 2, 2), [0.0])
    """
    together = getattr(step, "merge_log_det", None)
    if together is not None:
        return together(coarse, detail)  # type: ignore[no-any-return]
    x = step.merge(coarse, detail)
    return x, step.split(x).log_det


@runtime_checkable
class BlockRule(Protocol):
    """A step that forgets the detail: many fine fields have the same coarse one."""

    def coarsen(self, x: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """The coarse field; a generator decides where the rule leaves a choice."""
        ...


def shrunk(lattice: Lattice, factor: int, *, channels: int | None = None) -> Lattice:
    """The lattice with ``factor`` times fewer sites on each axis, that much further apart.

    Raises:
        RecipeError: If an axis cannot be cut into whole blocks.

    Example:
        >>> shrunk(Lattice((8, 4), boundary="periodic"), 2)
        Lattice(shape=(4, 2), boundary='periodic', channels=1, spacing=2.0)
    """
    check_sites(lattice.shape, factor, RecipeError)
    return Lattice(
        tuple(n // factor for n in lattice.shape),
        boundary=lattice.boundary,
        channels=channels or lattice.channels,
        spacing=lattice.spacing * factor,
    )


def check_sites(shape: tuple[int, ...], factor: int, error: type[ValueError]) -> None:
    """Raise ``error`` unless every axis is a whole number of blocks of ``factor`` sites, and at least one."""
    if any(n < factor or n % factor for n in shape):
        raise error(
            f"every axis must have a multiple of {factor} sites, so that blocks of {factor} fill the lattice "
            f"(crop or pad the field), got {shape}"
        )


def check_field(x: Tensor, dim: int, factor: int) -> None:
    r"""Raise ``DataError`` unless ``x`` is (batch, channel, \*sites) on ``dim`` axes that blocks fill."""
    if x.ndim != dim + 2:
        raise DataError(f"this step is made for {dim}-D fields, (batch, channel, *sites), got shape {tuple(x.shape)}")
    check_sites(tuple(x.shape[2:]), factor, DataError)


def check_parts(coarse: Tensor, detail: Tensor, coarse_dim: int, detail_shape: tuple[int, ...]) -> None:
    """Raise ``DataError`` unless coarse field and detail belong together."""
    if coarse.ndim != coarse_dim + 2:
        raise DataError(f"coarse fields of this step have {coarse_dim} axes of sites, got shape {tuple(coarse.shape)}")
    if tuple(detail.shape) != (len(coarse), *detail_shape):
        raise DataError(
            f"a coarse field of shape {tuple(coarse.shape)} goes with a detail of shape "
            f"{(len(coarse), *detail_shape)}, got {tuple(detail.shape)}"
        )
