"""Coarse fields of a cascade as fields on its finest lattice, for the eye."""

import torch
from torch import Tensor

from renorm.cascade.cascade import Cascade
from renorm.coarse.checkerboard import Checkerboard, RotatedCheckerboard

__all__ = ["rendered"]


@torch.no_grad()
def rendered(model: Cascade, y: Tensor, level: int) -> Tensor:
    """Coarse fields spread over the finest lattice: without details, or, on checkerboards, each site shown twice.

    Args:
        model: Whose level it is.
        y: Fields of that level.
        level: Which; 0 gives ``y`` itself.

    Example:
        >>> from renorm.cascade.spec import CascadeSpec
        >>> from renorm.lattice import Lattice
        >>> model = Cascade.of(CascadeSpec(), Lattice((2, 2), boundary="periodic"))
        >>> rendered(model, torch.tensor([[[[1.0]], [[-1.0]]]]), 1).tolist()  # sites (0, 0) and (1, 1)
        [[[[1.0, 1.0], [-1.0, -1.0]]]]
    """
    for index in range(level - 1, -1, -1):
        step = model.steps[index]
        shape = step.detail_shape(model.lattices[index])
        kept = isinstance(step, Checkerboard | RotatedCheckerboard)
        y = step.merge(y, y if kept else y.new_zeros(len(y), *shape))
    return y
