"""Bring fields to a target edge: block mean, padding, bicubic."""

import itertools
from typing import Any

import numpy as np

from renorm.data.spec import Resize
from renorm.errors import DataError

__all__ = ["block_mean", "centre_crop", "pad", "resize"]

CHUNK = 1024  # fields per bicubic call, which bounds the float copy of byte images


def resize(values: np.ndarray, size: int, how: Resize = "auto") -> np.ndarray:
    """Fields with ``size`` sites along every axis, of the same type.

    Args:
        values: (number, channel, *sites), uint8 or float32.
        size: Target edge.
        how: See ``DataSpec.resize``.

    Raises:
        DataError: If the way asked for cannot reach ``size``.

    Example:
        >>> resize(np.ones((1, 1, 28, 28), np.uint8), 16).shape
        (1, 1, 16, 16)
    """
    values = centre_crop(values)
    edge, axes, channels = values.shape[-1], values.ndim - 2, values.shape[1]
    if how == "auto":
        if edge == 28 and axes == 2 and channels == 1 and size != 28 and 32 % size == 0:
            values, edge = pad(values, 32), 32
        how = "mean" if edge % size == 0 else "bicubic"
    if edge == size:
        return values
    if how == "mean":
        if edge % size:
            raise DataError(f"resize = 'mean' needs a size that divides the edge {edge}, got {size}")
        return block_mean(values, edge // size)
    if how == "pad":
        return pad(values, size)
    if axes != 2:
        raise DataError(f"a {axes}-D field of edge {edge} needs a size that divides it, got {size}")
    return _bicubic(values, size)


def centre_crop(values: np.ndarray) -> np.ndarray:
    """The centred part whose axes are all as long as the shortest."""
    sites = values.shape[2:]
    edge = min(sites)
    starts = [(n - edge) // 2 for n in sites]
    inner: tuple[Any, ...] = (..., *(slice(start, start + edge) for start in starts))
    return values[inner]


def block_mean(values: np.ndarray, factor: int) -> np.ndarray:
    """Mean over blocks of ``factor`` sites along every axis; bytes are rounded to the nearest, half to even.

    Example:
        >>> block_mean(np.array([[[0, 1, 10, 20]]], dtype=np.uint8), 2)
        array([[[ 0, 15]]], dtype=uint8)
    """
    axes = values.ndim - 2
    coarse = tuple(n // factor for n in values.shape[2:])
    # One strided sum per site of a block: exact for bytes, and without a float copy of all fields.
    total = np.zeros((*values.shape[:2], *coarse), np.uint32 if values.dtype == np.uint8 else np.float64)
    for offset in itertools.product(range(factor), repeat=axes):
        sites: tuple[Any, ...] = (..., *(slice(start, None, factor) for start in offset))
        total += values[sites]
    mean = total / factor**axes
    return (np.rint(mean) if values.dtype == np.uint8 else mean).astype(values.dtype)


def pad(values: np.ndarray, size: int) -> np.ndarray:
    """Surround fields with zeros up to ``size`` sites, evenly (an odd site goes after).

    Raises:
        DataError: If the fields are larger than ``size``.
    """
    missing = [size - n for n in values.shape[2:]]
    if min(missing) < 0:
        raise DataError(f"resize = 'pad' needs a size of at least the edge {max(values.shape[2:])}, got {size}")
    return np.pad(values, [(0, 0), (0, 0), *((m // 2, m - m // 2) for m in missing)])


def _bicubic(values: np.ndarray, size: int) -> np.ndarray:
    import torch
    from torch.nn.functional import interpolate

    out = np.empty((*values.shape[:2], size, size), values.dtype)
    for start in range(0, len(values), CHUNK):
        x = torch.from_numpy(values[start : start + CHUNK].astype(np.float32))
        y = interpolate(x, (size, size), mode="bicubic", antialias=True, align_corners=False)
        if values.dtype == np.uint8:
            y = y.round().clamp(0, 255)
        out[start : start + CHUNK] = y.numpy().astype(values.dtype)
    return out
