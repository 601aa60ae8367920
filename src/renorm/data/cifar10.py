"""CIFAR-10: the authors' binary archive, or losslessly residual-coded ``.npz`` stacks."""

import tarfile
import zlib
from pathlib import Path

import numpy as np

from renorm.data import store
from renorm.data.download import fetch
from renorm.data.npz import read_npz
from renorm.data.raw import Raw
from renorm.data.spec import DataSpec, Split
from renorm.errors import DataError

__all__ = ["decode_residual", "read", "read_binary"]

EDGE, CHANNELS = 32, 3
BATCHES = {"train": [f"data_batch_{i}.bin" for i in range(1, 6)], "test": ["test_batch.bin"]}


def read(spec: DataSpec, split: Split) -> Raw:
    """Colour 32 x 32 images in ten classes, 50 000 to train and 10 000 to test.

    Source:
        Krizhevsky, "Learning multiple layers of features from tiny images" (2009).
    """
    paths = store.find("cifar10") or [fetch("cifar10") / "cifar-10-binary.tar.gz"]
    if paths[0].suffix != ".npz":
        return read_binary(paths[0], split)
    stacks: list[Raw] = []
    for path in paths[:2] if split == "train" else paths[2:]:
        missing = None if spec.limit is None else spec.limit - sum(len(stack.values) for stack in stacks)
        if missing is None or missing > 0:  # decoding takes seconds: no more than the limit asks for
            stacks.append(_read_residual(path, missing))
    values, labels = (np.concatenate([stack[i] for stack in stacks]) for i in (0, 1))
    return Raw(values, labels, 10)


def read_binary(path: Path, split: Split) -> Raw:
    """Images and labels of ``cifar-10-binary.tar.gz``: records of a label and 3 x 32 x 32 bytes.

    Raises:
        DataError: If the archive is damaged or lacks a batch.
    """
    record = 1 + CHANNELS * EDGE**2
    batches = []
    try:
        with tarfile.open(path, "r:gz") as archive:
            for name in BATCHES[split]:
                member = archive.extractfile(f"cifar-10-batches-bin/{name}")
                data = member.read() if member else b""
                if not data or len(data) % record:
                    raise DataError(f"{path} must hold records of {record} bytes in {name}, got {len(data)} bytes")
                batches.append(np.frombuffer(data, np.uint8).reshape(-1, record))
    except (OSError, EOFError, KeyError, tarfile.TarError, zlib.error) as error:
        raise DataError(f"cannot read {path}: {error}; delete it to download it again") from None
    records = np.concatenate(batches)
    return Raw(records[:, 1:].reshape(-1, CHANNELS, EDGE, EDGE), records[:, 0], 10)


def _read_residual(path: Path, limit: int | None) -> Raw:
    arrays = read_npz(path, "residual", "label")
    residual, label = arrays["residual"], arrays["label"]
    if residual.ndim != 4 or len(residual) != CHANNELS or residual.dtype != np.uint8:
        raise DataError(f"{path} must hold uint8 residuals (3, n, h, w), got {residual.dtype} {residual.shape}")
    if label.shape != residual.shape[1:2]:
        raise DataError(f"{path} must hold {residual.shape[1]} labels, got {label.shape}")
    return Raw(decode_residual(residual[:, :limit]), label[:limit], 10)


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
