"""Frames of a world for the eye."""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from renorm.errors import RecipeError
from renorm.worlds.world import WorldSpace

__all__ = ["animation", "painted", "strip"]

GAP = 0.5  # between frames of a strip, in sites


def painted(
    pictures: UInt8[np.ndarray, "frames rows columns"], space: WorldSpace, scale: int = 12
) -> UInt8[np.ndarray, "frames height width 3"]:
    """Each site a square of its colour.

    Raises:
        RecipeError: If a picture has colours that the world has not, or the scale is below 1.

    Example:
        >>> space = WorldSpace((1, 2), ((0, 0, 0), (255, 0, 0)), ())
        >>> painted(np.array([[[0, 1]]], np.uint8), space, scale=1).tolist()
        [[[[0, 0, 0], [255, 0, 0]]]]
    """
    if scale < 1:
        raise RecipeError(f"a site needs a scale >= 1, got {scale}")
    if pictures.max(initial=0) >= len(space.palette):
        raise RecipeError(f"this world has colours 0 to {len(space.palette) - 1}, got {pictures.max()}")
    return np.asarray(space.palette, np.uint8)[pictures].repeat(scale, axis=1).repeat(scale, axis=2)


def strip(pictures: UInt8[np.ndarray, "frames rows columns"], space: WorldSpace, scale: int = 12) -> Image.Image:
    """Frames side by side.

    Example:
        >>> space = WorldSpace((2, 2), ((0, 0, 0),), ())
        >>> strip(np.zeros((3, 2, 2), np.uint8), space, scale=10).size
        (70, 20)
    """
    frames = painted(pictures, space, scale)
    gap = np.full((frames.shape[1], int(GAP * scale), 3), 255, np.uint8)
    parts = [part for frame in frames for part in (gap, frame)][1:]
    return Image.fromarray(np.concatenate(parts, axis=1))


def animation(
    path: Path,
    pictures: UInt8[np.ndarray, "frames rows columns"],
    space: WorldSpace,
    *,
    scale: int = 12,
    seconds: float = 0.08,
) -> None:
    """Write frames as a GIF that begins again and again.

    Raises:
        RecipeError: If there is no frame.
    """
    if not len(pictures):
        raise RecipeError("an animation needs one frame or more, got none")
    first, *rest = (Image.fromarray(frame) for frame in painted(pictures, space, scale))
    first.save(path, format="GIF", save_all=True, append_images=rest, duration=int(1000 * seconds), loop=0)
