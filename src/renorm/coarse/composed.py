r"""Many steps, one after another: a tower from the finest field to the coarsest."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from renorm.coarse.base import CoarseGraining
from renorm.errors import DataError, RecipeError
from renorm.lattice import Lattice

__all__ = ["Tower", "TowerSplit"]


class TowerSplit(NamedTuple):
    r"""A field after all steps.

    Attributes:
        coarse: The coarsest field.
        details: The detail of each step, fine to coarse, in the order of the steps.
        log_det: $\ln|\det|$ of all steps together, in nats, (batch,).
    """

    coarse: Tensor
    details: tuple[Tensor, ...]
    log_det: Tensor


class Tower:
    r"""Steps applied in turn, each to the coarse field that the one before it left.

    $$ (x_{l+1}, y_l) = T_l(x_l), \qquad
       \ln|\det| = \sum_l \ln\left|\det\frac{\partial(x_{l+1}, y_l)}{\partial x_l}\right| $$

    Args:
        steps: From the finest to the coarsest. Parameters of learned steps stay theirs: put the steps into a
            ``torch.nn.ModuleList`` too where an optimizer shall find them.

    Raises:
        RecipeError: If there is no step.

    Example:
        >>> import torch
        >>> from renorm.coarse.wavelet import Wavelet
        >>> tower = Tower([Wavelet(), Wavelet()])
        >>> [lattice.shape for lattice in tower.lattices(Lattice((8, 8), boundary="periodic"))]
        [(8, 8), (4, 4), (2, 2)]
        >>> coarse, details, log_det = tower.split(torch.ones(1, 1, 8, 8))
        >>> coarse.flatten().tolist(), [tuple(detail.shape[1:]) for detail in details]
        ([4.0, 4.0, 4.0, 4.0], [(3, 4, 4), (3, 2, 2)])
    """

    def __init__(self, steps: Sequence[CoarseGraining]) -> None:
        if not steps:
            raise RecipeError("a tower needs at least one step, got none")
        self.steps = tuple(steps)

    def lattices(self, lattice: Lattice) -> tuple[Lattice, ...]:
        """The lattice of each level, the finest first: one more than there are steps.

        Raises:
            RecipeError: If a step cannot coarse-grain the lattice that reaches it; the message counts steps from 0.
        """
        levels = [lattice]
        for number, step in enumerate(self.steps):
            try:
                levels.append(step.coarse_lattice(levels[-1]))
            except RecipeError as error:
                raise RecipeError(f"step {number} of the tower: {error}") from None
        return tuple(levels)

    def detail_shapes(self, lattice: Lattice) -> tuple[tuple[int, ...], ...]:
        """Shape of one detail of each step, fine to coarse."""
        levels = self.lattices(lattice)[:-1]
        return tuple(step.detail_shape(level) for step, level in zip(self.steps, levels, strict=True))

    def split(self, x: Tensor) -> TowerSplit:
        """The coarsest field, all details, and the volume that all steps change together."""
        details: list[Tensor] = []
        log_det = x.new_zeros(len(x))
        for step in self.steps:
            x, detail, change = step.split(x)
            details.append(detail)
            log_det = log_det + change
        return TowerSplit(x, tuple(details), log_det)

    def merge(self, coarse: Tensor, details: Sequence[Tensor]) -> Tensor:
        """The finest field; details from fine to coarse, as ``split`` gives them.

        Raises:
            DataError: If there is not one detail for each step.
        """
        if len(details) != len(self.steps):
            raise DataError(f"a tower of {len(self.steps)} steps needs as many details, got {len(details)}")
        for step, detail in zip(reversed(self.steps), reversed(details), strict=True):
            coarse = step.merge(coarse, detail)
        return coarse
