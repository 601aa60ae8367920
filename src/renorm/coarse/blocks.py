"""Blocks of b sites on every axis: their sites as one last axis, and back."""

from jaxtyping import Shaped
from torch import Tensor

__all__ = ["from_blocks", "to_blocks"]


def to_blocks(x: Shaped[Tensor, "batch channel *sites"], size: int) -> Shaped[Tensor, "batch channel *blocks block"]:
    """The sites of each block as the last axis, the last axis of the lattice running fastest.

    Example:
        >>> import torch
        >>> to_blocks(torch.arange(8).reshape(1, 1, 2, 4), 2).tolist()
        [[[[[0, 1, 4, 5], [2, 3, 6, 7]]]]]
    """
    dim = x.ndim - 2
    for axis in range(2, 2 + 2 * dim, 2):
        x = x.unflatten(axis, (-1, size))
    whole, within = range(2, 2 + 2 * dim, 2), range(3, 2 + 2 * dim, 2)
    return x.permute(0, 1, *whole, *within).flatten(2 + dim)


def from_blocks(
    blocks: Shaped[Tensor, "batch channel *blocks block"], size: int
) -> Shaped[Tensor, "batch channel *sites"]:
    """The field of these blocks; ``from_blocks(to_blocks(x, b), b) == x``."""
    dim = blocks.ndim - 3
    x = blocks.unflatten(-1, (size,) * dim)
    pairs = [place for axis in range(dim) for place in (2 + axis, 2 + dim + axis)]
    x = x.permute(0, 1, *pairs)
    for axis in range(2, 2 + dim):
        x = x.flatten(axis, axis + 1)
    return x
