"""Which tokens a factor looks at together: blocks of a lattice, blocks of blocks, and so on until one is left."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64

from renorm.errors import RecipeError

__all__ = ["block_groups", "with_streams"]


def block_groups(
    shape: Sequence[int], edge: int | Sequence[int] = 2, *, per_site: int = 1
) -> list[Int64[np.ndarray, "_"]]:
    """Groups for the levels of a ``Tower``: blocks of sites, then of blocks, as equal as they can be.

    Args:
        shape: Sites along each axis; tokens lie in row-major order.
        edge: Sites of a block along each axis: one number for all levels, or one each, of which the last goes on.
        per_site: Tokens at each site, one after the other.

    Raises:
        RecipeError: If a number is below 1, or no edge of the last level is above 1: it would never end.

    Example: four sites in a row.
        >>> [groups.tolist() for groups in block_groups((4,))]
        [[0, 0, 1, 1], [0, 0]]
        >>> [groups.tolist() for groups in block_groups((2, 3), 3, per_site=2)]
        [[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]]
    """
    edges = [edge] if isinstance(edge, int) else list(edge)
    if not shape or min(*shape, *edges, per_site, 1) < 1 or not edges or edges[-1] < 2:
        raise RecipeError(
            f"blocks need sites, tokens and edges >= 1, the last edge >= 2, got {tuple(shape)}, {per_site} and {edges}"
        )
    levels: list[np.ndarray] = []
    sites, tokens = tuple(shape), per_site
    while not levels or math.prod(sites) > 1:
        own = edges[min(len(levels), len(edges) - 1)]
        blocks = tuple(-(-n // own) for n in sites)
        along = [np.arange(n) * m // n for n, m in zip(sites, blocks, strict=True)]
        place = np.ravel_multi_index(np.meshgrid(*along, indexing="ij"), blocks)
        levels.append(place.reshape(-1).astype(np.int64).repeat(tokens))
        sites, tokens = blocks, 1
    return levels


def with_streams(groups: Sequence[Int64[np.ndarray, "_"]], number: int) -> list[Int64[np.ndarray, "_"]]:
    """Groups for a tower with streams beside the pixels, such as rewards, costs and actions: tokens after all others.

    Each stream renormalises by itself, a factor at every level, and joins the pixels at the highest one. So a state
    there says what is seen, won and done, and any of them can be told from the others.

    Args:
        groups: Of the pixels; the last level is one group.
        number: Of streams, a token each.

    Raises:
        RecipeError: If the last level has several groups, or a number is below 0.

    Example: two pixels, and a reward.
        >>> [level.tolist() for level in with_streams([np.array([0, 0]), np.array([0])], 1)]
        [[0, 0, 1], [0, 0]]
    """
    if number < 0 or not groups or groups[-1].any():
        raise RecipeError(f"streams join one group of pixels, and their number is >= 0, got {number}")
    levels = [np.append(group, group.max() + 1 + np.arange(number)) for group in groups[:-1]]
    return [*levels, np.zeros(len(groups[-1]) + number, np.int64)]
