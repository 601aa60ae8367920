"""Pictures of a world for a terminal."""

import numpy as np
from jaxtyping import UInt8

from renorm.worlds.world import WorldSpace

__all__ = ["coloured"]

RESET = "\x1b[0m"


def coloured(picture: UInt8[np.ndarray, "rows columns"], space: WorldSpace) -> str:
    """Lines of coloured half blocks, two rows of the picture in each.

    Example: two sites, one above the other, of which the lower one is red.
        >>> space = WorldSpace((2, 1), ((0, 0, 0), (255, 0, 0)), ())
        >>> coloured(np.array([[0], [1]], np.uint8), space).encode("unicode_escape").decode()
        '\\\\x1b[38;2;0;0;0m\\\\x1b[48;2;255;0;0m\\\\u2580\\\\u2580\\\\x1b[0m'
    """
    lines = []
    for top in range(0, len(picture), 2):
        cells = []
        for column in range(picture.shape[1]):
            upper = space.palette[picture[top, column]]
            lower = space.palette[picture[top + 1, column]] if top + 1 < len(picture) else None
            ground = f"\x1b[48;2;{lower[0]};{lower[1]};{lower[2]}m" if lower else "\x1b[49m"
            cells.append(f"\x1b[38;2;{upper[0]};{upper[1]};{upper[2]}m{ground}▀▀")
        lines.append("".join(cells) + RESET)
    return "\n".join(lines)
