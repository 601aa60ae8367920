"""What stands around a block: the sites at a stated distance, a ring in between left out."""

import itertools

import torch
from jaxtyping import Shaped
from torch import Tensor

from renorm.coarse.base import check_sites
from renorm.coarse.blocks import to_blocks
from renorm.errors import DataError, RecipeError

__all__ = ["block_values", "surroundings"]


def block_values(x: Shaped[Tensor, "batch channel *sites"], size: int) -> Shaped[Tensor, "batch blocks inner"]:
    r"""The values of each block as one row, blocks row by row, a block's channels one after the other.

    Raises:
        DataError: If fields have no site axis or more than three, or blocks do not fill the lattice.

    Example:
        >>> block_values(torch.arange(8).reshape(1, 1, 2, 4), 2).tolist()
        [[[0, 1, 4, 5], [2, 3, 6, 7]]]
    """
    _check(x, size)
    return to_blocks(x, size).movedim(1, -2).flatten(-2).flatten(1, -2)


def surroundings(
    x: Shaped[Tensor, "batch channel *sites"], size: int, *, buffer: int = 1, reach: int = 2
) -> Shaped[Tensor, "batch blocks outer"]:
    r"""The sites around each block of a torus whose distance is above ``buffer`` and at most ``buffer + reach``.

    $$ E = \{y : b < d(y, V) \le b + r\}, \qquad d(y, V) = \min_{x \in V}\max_\mu|y_\mu - x_\mu| $$

    The ring that is left out keeps what a coarse value knows of its nearest neighbours from counting: it is the far
    part that survives coarse-graining.

    Args:
        x: Fields on a torus.
        size: Sites of a block along each axis.
        buffer: Width of the ring that is left out, in sites; 0: none is.
        reach: Width of the ring that is looked at, in sites.

    Returns:
        One row for each block, in the order of ``block_values``; channels one after the other.

    Raises:
        RecipeError: If a width is out of range.
        DataError: If blocks do not fill the lattice, or the ring meets itself around the torus.

    Source:
        Koch-Janusz & Ringel 2018, Nature Physics 14, 578.

    Example: a chain; the block of sites 0 and 1 looks past 7 and 2.
        >>> surroundings(torch.arange(8.0).reshape(1, 1, 8), 2, buffer=1, reach=1)[0, 0]
        tensor([6., 3.])
    """
    if buffer < 0 or reach < 1:
        raise RecipeError(
            f"buffer must be >= 0 and reach >= 1 sites (there is nothing to look at), got {buffer, reach}"
        )
    _check(x, size)
    margin, dim = buffer + reach, x.ndim - 2
    window = size + 2 * margin
    if min(x.shape[2:]) < window:
        raise DataError(
            f"a block of {size} with {buffer} + {reach} sites on either side needs axes of {window} sites or more "
            f"(else the ring meets itself around the torus), got {tuple(x.shape[2:])}"
        )
    for axis in range(2, x.ndim):
        sites = x.shape[axis]
        x = x.index_select(axis, torch.arange(-margin, sites + margin, device=x.device) % sites)
    for axis in range(2, 2 + dim):
        x = x.unfold(axis, window, size)
    rows = x.flatten(2 + dim).movedim(1, -2).flatten(1, -3)  # (batch, blocks, channel, window)
    return rows[..., _ring(window, size, buffer, dim).to(x.device)].flatten(-2)


def _ring(window: int, size: int, buffer: int, dim: int) -> Tensor:
    """Places of a window, row by row, that lie in the ring."""
    margin = (window - size) // 2
    apart = [max(margin - i, i - margin - size + 1, 0) for i in range(window)]
    distance = torch.tensor([max(axes) for axes in itertools.product(apart, repeat=dim)])
    return torch.nonzero(distance > buffer)[:, 0]


def _check(x: Tensor, size: int) -> None:
    if not 3 <= x.ndim <= 5:
        raise DataError(f"fields are (batch, channel, *sites) with one to three axes, got shape {tuple(x.shape)}")
    check_sites(tuple(x.shape[2:]), size, DataError)
