"""What other codecs make of the same grey images, in bits per pixel: the peers of ``renorm compress``."""

import bz2
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from importlib import import_module

import numpy as np
from jaxtyping import UInt8

from renorm.errors import DataError, RecipeError

__all__ = ["CODECS", "bits_per_pixel", "mosaic", "peers"]

WEBP_LIMIT = 16383  # sites along an axis of a WebP image
ZSTD_LEVEL = 19


def png(image: UInt8[np.ndarray, "height width"]) -> bytes:
    """A grey image as PNG, Pillow's strongest setting."""
    return _pillow(image, "PNG", optimize=True)


def webp(image: UInt8[np.ndarray, "height width"]) -> bytes:
    """A grey image as lossless WebP, slowest and smallest setting."""
    if max(image.shape) > WEBP_LIMIT:
        raise DataError(f"WebP holds at most {WEBP_LIMIT} sites along an axis, got {image.shape}: give fewer images")
    return _pillow(image, "WEBP", lossless=True, quality=100, method=6)


def deflate(image: UInt8[np.ndarray, "..."]) -> bytes:
    """The bytes of the pixels by zlib, level 9."""
    return zlib.compress(image.tobytes(), 9)


def bzip2(image: UInt8[np.ndarray, "..."]) -> bytes:
    """The bytes of the pixels by bzip2, level 9."""
    return bz2.compress(image.tobytes(), 9)


def xz(image: UInt8[np.ndarray, "..."]) -> bytes:
    """The bytes of the pixels by LZMA, strongest preset, without the container's checksum."""
    # The preset's own window of 64 MiB would be cleared anew for each small image.
    window = min(max(image.size, 4096), 2**26)
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": window}]
    return lzma.compress(image.tobytes(), check=lzma.CHECK_NONE, filters=filters)


def zstd(image: UInt8[np.ndarray, "..."]) -> bytes:
    """The bytes of the pixels by Zstandard, level 19.

    Raises:
        RecipeError: If neither Python's own module (3.14) nor ``zstandard`` is there.
    """
    packed: bytes
    try:
        packed = import_module("compression.zstd").compress(image.tobytes(), ZSTD_LEVEL)
    except ImportError:
        try:
            packed = import_module("zstandard").ZstdCompressor(level=ZSTD_LEVEL).compress(image.tobytes())
        except ImportError:
            raise RecipeError("zstd needs a package that is not installed: pip install zstandard") from None
    return packed


CODECS: dict[str, Callable[[np.ndarray], bytes]] = {
    "png": png,
    "webp": webp,
    "zlib": deflate,
    "bzip2": bzip2,
    "xz": xz,
    "zstd": zstd,
}
"""Name -> pixels of one image to the bytes of its file."""

ON_IMAGES = ("png", "webp")


def bits_per_pixel(images: UInt8[np.ndarray, "number height width"], codec: str, *, together: bool = False) -> float:
    r"""Bits of all files over the number of pixels, $8 \sum_i |\mathrm{file}_i| / (N H W)$.

    Args:
        images: Grey images.
        codec: One of `CODECS`.
        together: One file of all images, side by side where the codec knows images (`mosaic`), one after the other
            where it knows bytes. Otherwise each image is its own file.

    Raises:
        RecipeError: If the codec is unknown or not installed.
        DataError: If there is no image, or too many for one file.

    Example:
        >>> images = np.zeros((100, 8, 8), np.uint8)
        >>> bits_per_pixel(images, "zlib") > bits_per_pixel(images, "zlib", together=True)
        True
    """
    if codec not in CODECS:
        raise RecipeError(f"unknown codec '{codec}'; known: {', '.join(CODECS)}")
    if images.size == 0:
        raise DataError(f"bits per pixel need at least one pixel (they divide by their number), got {images.shape}")
    if together:
        files = [mosaic(images) if codec in ON_IMAGES else images]
    else:
        files = list(images)
    return 8 * sum(len(CODECS[codec](file)) for file in files) / images.size


def mosaic(images: UInt8[np.ndarray, "number height width"]) -> UInt8[np.ndarray, "rows columns"]:
    """All images side by side on a grid as near to a square as can be; cells left over are black.

    Example:
        >>> mosaic(np.arange(3, dtype=np.uint8)[:, None, None] + 1).tolist()
        [[1, 2], [3, 0]]
    """
    number, height, width = images.shape
    columns = int(np.ceil(np.sqrt(number)))
    rows = -(-number // columns)
    cells = np.zeros((rows * columns, height, width), np.uint8)
    cells[:number] = images
    return cells.reshape(rows, columns, height, width).transpose(0, 2, 1, 3).reshape(rows * height, columns * width)


def peers(images: UInt8[np.ndarray, "number height width"]) -> Iterator[dict[str, str | float]]:
    """One row for each codec that is installed: bits per pixel of one file per image and of one file of all."""
    for codec in CODECS:
        try:
            yield {
                "codec": codec,
                "bits per pixel": bits_per_pixel(images, codec),
                "one file": bits_per_pixel(images, codec, together=True),
            }
        except RecipeError:
            continue


def _pillow(image: np.ndarray, kind: str, **options: object) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    try:
        Image.fromarray(image).save(file, kind, **options)
    except (KeyError, OSError) as error:
        raise RecipeError(f"this build of Pillow writes no {kind} ({error}): install another build") from None
    return file.getvalue()
