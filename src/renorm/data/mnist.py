"""MNIST and Fashion-MNIST: the IDX files of their authors, or one ``.npz``."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from renorm.data import store
from renorm.data.download import fetch
from renorm.data.npz import read_npz
from renorm.data.raw import Raw
from renorm.data.spec import DataSpec, Split
from renorm.errors import DataError

__all__ = ["read", "read_idx"]

IDX_UINT8 = 0x08


def read(spec: DataSpec, split: Split) -> Raw:
    """Grey 28 x 28 images in ten classes, 60 000 to train and 10 000 to test, in the authors' order.

    Source:
        LeCun, Cortes, Burges, "The MNIST database of handwritten digits" (1998); Xiao, Rasul, Vollgraf,
        arXiv:1708.07747.
    """
    paths = store.find(spec.name) or [fetch(spec.name) / file for file in store.IDX]
    if paths[0].suffix == ".npz":
        arrays = read_npz(paths[0], f"X_{split}", f"y_{split}")
        images, labels = arrays[f"X_{split}"], arrays[f"y_{split}"]
    else:
        pair = paths[:2] if split == "train" else paths[2:]
        images, labels = (read_idx(path) for path in pair)
    if images.ndim != 3 or images.dtype != np.uint8 or labels.shape != images.shape[:1]:
        raise DataError(
            f"{paths[0]} must hold uint8 images (n, h, w) with n labels, "
            f"got {images.dtype} {images.shape} with {labels.shape}"
        )
    return Raw(images[:, None], labels, 10)


def read_idx(path: Path) -> np.ndarray:
    """The bytes of a gzipped IDX file: two zeros, type, number of axes, sizes (big-endian int32), values.

    Raises:
        DataError: If the file is no IDX file of bytes, or its length does not fit its sizes.
    """
    try:
        with gzip.open(path, "rb") as file:
            data = file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read {path}: {error}; delete it to download it again") from None
    if len(data) < 4 or data[:3] != bytes((0, 0, IDX_UINT8)):
        raise DataError(f"{path} must be an IDX file of bytes (it starts with 00 00 08), got {data[:4].hex(' ')}")
    start = 4 + 4 * data[3]
    shape = tuple(int(n) for n in np.frombuffer(data[4:start], ">i4"))
    if len(data) - start != math.prod(shape):
        raise DataError(f"{path} must hold {shape} = {math.prod(shape)} bytes, got {len(data) - start}")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)
