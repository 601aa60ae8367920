"""Stacks of colour images in ``.npz`` files, losslessly coded as residuals of a guess from the sites around."""

from pathlib import Path

import numpy as np

from renorm.data.npz import read_npz
from renorm.data.raw import Raw
from renorm.errors import DataError

__all__ = ["decode_residual", "read_residual"]

CHANNELS = 3


def read_residual(path: Path, *, classes: int, limit: int | None = None) -> Raw:
    """Images and labels of one file, the first ``limit`` of them: decoding takes seconds.

    Raises:
        DataError: If it holds no such stack.
    """
    arrays = read_npz(path, "residual", "label")
    residual, label = arrays["residual"], arrays["label"]
    if residual.ndim != 4 or len(residual) != CHANNELS or residual.dtype != np.uint8:
        raise DataError(f"{path} must hold uint8 residuals (3, n, h, w), got {residual.dtype} {residual.shape}")
    if label.shape != residual.shape[1:2]:
        raise DataError(f"{path} must hold {residual.shape[1]} labels, got {label.shape}")
    return Raw(decode_residual(residual[:, :limit]), label[:limit], classes)


def decode_residual(residual: np.ndarray) -> np.ndarray:
    r"""Undo a LOCO-I coding of the planes G, R - G, B - G.

    A site $p$ of a plane is guessed from its left, upper and upper left neighbours $a, b, c$ as the median of
    $a$, $b$ and $a + b - c$, where neighbours outside are zero; the residual is kept modulo 256,

    $$ \mathrm{byte} = (\mathrm{guess} + \mathrm{residual} + \mathrm{base}) \bmod 256, \qquad
       p = \mathrm{byte} - \mathrm{base}, $$

    with base 0 for G itself and G for the two differences.

    Args:
        residual: uint8 (3, number, height, width), planes in the order G, R - G, B - G.

    Returns:
        uint8 (number, 3, height, width), channels in the order R, G, B.

    Source:
        Weinberger, Seroussi, Sapiro, IEEE Trans. Image Process. 9, 1309 (2000), section III.
    """
    _, number, height, width = residual.shape
    image = np.empty((number, CHANNELS, height, width), np.uint8)
    base = np.zeros((height, width, number), np.int16)
    for channel, plane in zip((1, 0, 2), residual, strict=True):
        # Sites first: the guess needs them one after the other, and all images at once.
        byte = _undo_guess(np.ascontiguousarray(plane.transpose(1, 2, 0)).astype(np.int16), base)
        image[:, channel] = byte.transpose(2, 0, 1)
        if channel == 1:
            base = byte
    return image


def _undo_guess(residual: np.ndarray, base: np.ndarray) -> np.ndarray:
    """Bytes (height, width, number) of one plane, site by site in reading order."""
    height, width, number = residual.shape
    p = np.zeros((height + 1, width + 1, number), np.int16)  # a border of zeros stands for the outside
    for i in range(height):
        for j in range(width):
            a, b, c = p[i + 1, j], p[i, j + 1], p[i, j]
            guess = np.minimum(np.maximum(a + b - c, np.minimum(a, b)), np.maximum(a, b))
            p[i + 1, j + 1] = ((guess + residual[i, j] + base[i, j]) & 255) - base[i, j]
    return p[1:, 1:] + base
