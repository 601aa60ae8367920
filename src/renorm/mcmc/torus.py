"""Neighbours on a periodic lattice: sums over bonds, and the two colours of a checkerboard."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from renorm.errors import RecipeError

__all__ = ["checkerboard", "forward_sum", "neighbour_sum"]


def forward_sum(x: Float[Tensor, "batch channel *sites"]) -> Float[Tensor, "batch channel *sites"]:
    r"""Sum over the neighbour ahead on every axis, $\sum_\mu \phi_{x+\hat\mu}$: each bond of the torus once.

    An axis of two sites has two bonds, one each way around; an axis of one site has a bond to itself.

    Example:
        >>> forward_sum(torch.tensor([[[1.0, 2.0, 4.0]]]))
        tensor([[[2., 4., 1.]]])
    """
    total = torch.zeros_like(x)
    for axis in range(2, x.dim()):
        total = total + x.roll(-1, axis)
    return total


def neighbour_sum(x: Float[Tensor, "batch channel *sites"]) -> Float[Tensor, "batch channel *sites"]:
    r"""Sum over all neighbours, $h_x = \sum_\mu (\phi_{x+\hat\mu} + \phi_{x-\hat\mu})$: the local field.

    Example:
        >>> neighbour_sum(torch.tensor([[[1.0, 2.0, 4.0, 8.0]]]))
        tensor([[[10.,  5., 10.,  5.]]])
    """
    total = torch.zeros_like(x)
    for axis in range(2, x.dim()):
        total = total + x.roll(-1, axis) + x.roll(1, axis)
    return total


def checkerboard(shape: tuple[int, ...], device: torch.device | None = None) -> Bool[Tensor, "*sites"]:
    r"""Sites whose coordinates add to an even number; no two of them are neighbours.

    Raises:
        RecipeError: If a side is odd: around the torus two sites of one colour would then be neighbours.

    Example:
        >>> checkerboard((2, 2))
        tensor([[ True, False],
                [False,  True]])
    """
    if any(side % 2 for side in shape):
        raise RecipeError(
            "a checkerboard needs even sides (around an odd one two sites of a colour are neighbours, and may not "
            f"move at once); use hmc or cluster there, got {shape}"
        )
    parity = torch.zeros(shape, dtype=torch.int64, device=device)
    for axis, side in enumerate(shape):
        view = [1] * len(shape)
        view[axis] = side
        parity = parity + torch.arange(side, device=device).reshape(view)
    return parity % 2 == 0
