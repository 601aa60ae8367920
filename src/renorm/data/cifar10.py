"""CIFAR-10: the authors' binary archive, or losslessly residual-coded ``.npz`` stacks."""

import tarfile
import zlib
from pathlib import Path

import numpy as np

from renorm.data import store
from renorm.data.download import fetch
from renorm.data.raw import Raw
from renorm.data.residual import read_residual
from renorm.data.spec import DataSpec, Split
from renorm.errors import DataError

__all__ = ["read", "read_binary"]

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
            stacks.append(read_residual(path, classes=10, limit=missing))
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
