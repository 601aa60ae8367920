"""The bat of Pong and Breakout: three sites of the lowest row."""

from renorm.worlds.world import Picture

__all__ = ["ACTIONS", "BAT", "MOVES", "draw_bat"]

ACTIONS = ("left", "stay", "right")
MOVES = (-1, 0, 1)
BAT = ((107, 116, 128), (32, 38, 46), (107, 116, 128))
"""Colours of its left, middle and right."""


def draw_bat(picture: Picture, column: int, *, first: int, wraps: bool = False) -> None:
    """Colours ``first``, ``first + 1`` and ``first + 2`` around a column; what leaves the picture is lost, or wraps.

    Example:
        >>> import numpy as np
        >>> picture = np.zeros((2, 4), np.uint8)
        >>> draw_bat(picture, 0, first=1)
        >>> picture.tolist()
        [[0, 0, 0, 0], [2, 3, 0, 0]]
    """
    columns = picture.shape[1]
    for offset in (-1, 0, 1):
        place = column + offset
        if wraps or 0 <= place < columns:
            picture[-1, place % columns] = first + 1 + offset
