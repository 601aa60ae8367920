"""Weights from a file: read without running anything in it, and fitted to a network key by key."""

import hashlib
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from renorm.errors import DataError

__all__ = ["check_sha256", "fill", "read_weights", "sha256_of"]

COUNTERS = "*num_batches_tracked"  # how often batch norm was trained: old files lack it, and no figure needs it
N = TypeVar("N", bound=nn.Module)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The named tensors of a safetensors file.

    Raises:
        DataError: If the file is absent or damaged, or of another kind.
    """
    if not path.is_file():
        raise DataError(f"weights are absent: there is no file {path}")
    if path.suffix != ".safetensors":
        raise DataError(
            f"weights are read from .safetensors files (nothing is unpickled), got {path}; "
            "safetensors.torch.save_file writes one from a state dict"
        )
    try:
        return load_file(path)
    except SafetensorError as error:
        raise DataError(f"{path} is damaged or no safetensors file: {str(error).splitlines()[0]}") from None


def fill(network: N, weights: Mapping[str, Tensor], *, ignored: Sequence[str] = ()) -> N:
    """The same network with these weights, in its own dtype; every key and every shape must fit.

    Args:
        network: It may be on the device ``meta``, where it was made without drawing a number.
        weights: Key -> tensor.
        ignored: Patterns of keys that the weights may have or lack: what the network does not use. The counters of
            batch norm are always among them.

    Raises:
        DataError: If a key is missing or unknown, or a shape is another.

    Example:
        >>> fill(torch.nn.Linear(2, 1), {"weight": torch.ones(1, 2)})
        Traceback (most recent call last):
        renorm.errors.DataError: the keys do not fit the network: 1 missing (bias)
    """
    own, ignored = network.state_dict(), [*ignored, COUNTERS]
    needed = {key: value for key, value in own.items() if not _any_fits(key, ignored)}
    given = {key: value for key, value in weights.items() if not _any_fits(key, ignored)}
    wrong = {
        "missing": needed.keys() - given.keys(),
        "unknown": given.keys() - needed.keys(),
        "of another shape": {key for key in needed.keys() & given.keys() if needed[key].shape != given[key].shape},
    }
    if any(wrong.values()):
        counted = (f"{len(keys)} {what} ({min(keys)})" for what, keys in wrong.items() if keys)
        raise DataError(f"the keys do not fit the network: {', '.join(counted)}")
    whole = {key: torch.zeros(value.shape, dtype=value.dtype) for key, value in own.items() if key not in needed}
    whole |= {key: given[key].to(value.dtype).contiguous() for key, value in needed.items()}
    network.load_state_dict(whole, assign=True)
    return network


def _any_fits(key: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(key, pattern) for pattern in patterns)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, 64 hex digits.

    Raises:
        DataError: If the file is absent.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        raise DataError(f"weights are absent: there is no file {path}") from None


def check_sha256(path: Path, recorded: str) -> str:
    """The SHA-256 of a file, which must begin with the recorded digits.

    Raises:
        DataError: If it does not.
    """
    found = sha256_of(path)
    if not found.startswith(recorded):
        raise DataError(
            f"{path} is not the file that was recorded: its SHA-256 must begin with {recorded}, it is {found}"
        )
    return found
