"""A movie that needs no file: a disc and a square that fly and are reflected by the edges."""

import numpy as np
from jaxtyping import UInt8

from renorm.errors import RecipeError

__all__ = ["two_shapes"]

GROUND, DISC, SQUARE = (243, 245, 247), (14, 124, 123), (180, 83, 42)


def two_shapes(frames: int = 64, edge: int = 64) -> UInt8[np.ndarray, "frames rows columns 3"]:
    """The square moves one site along both axes in each frame, the disc one down and two across; the square is on top.

    Raises:
        RecipeError: If there is no frame, or an edge of less than 8 sites.

    Example:
        >>> movie = two_shapes(3, 32)
        >>> movie.shape, len(np.unique(movie.reshape(-1, 3), axis=0))
        ((3, 32, 32, 3), 3)
    """
    if frames < 1 or edge < 8:
        raise RecipeError(f"the shapes need frames >= 1 and an edge >= 8, got {frames} and {edge}")
    radius, side = edge // 8, edge // 8 + 2
    y, x = np.mgrid[:edge, :edge]
    movie = np.empty((frames, edge, edge, 3), np.uint8)
    movie[:] = GROUND
    for t in range(frames):
        down, across = (radius + _reflected(edge // 10 + n, edge - 2 * radius - 1) for n in (t, edge // 3 + 2 * t))
        movie[t][(y - down) ** 2 + (x - across) ** 2 <= radius**2] = DISC
        top, left = (_reflected(edge // n + t, edge - side) for n in (2, 6))
        movie[t, top : top + side, left : left + side] = SQUARE
    return movie


def _reflected(place: int, last: int) -> int:
    place %= 2 * last
    return min(place, 2 * last - place)
