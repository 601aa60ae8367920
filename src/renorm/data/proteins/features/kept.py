"""Features of a language model, computed once: what was computed is kept on disk, batch by batch."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from renorm.data.proteins.features.values import checked
from renorm.data.proteins.storage import whole
from renorm.data.store import cache as cache_folder
from renorm.errors import DataError

__all__ = ["ResidueModel", "batches", "default_cache", "features_of"]

LAYOUT = "1"  # of the files; those of another one are not looked at


@runtime_checkable  # shapes are checked under test
class ResidueModel(Protocol):
    """What turns sequences into one vector a residue."""

    @property
    def key(self) -> str:
        """What its values depend on, beside the sequence: its weights, its layer."""
        ...

    def __call__(self, sequences: Sequence[str]) -> list[Tensor]:
        """Features of a batch, each (residues, features)."""
        ...


def default_cache() -> Path:
    """Where features are kept unless a caller says otherwise: in the user's cache."""
    return cache_folder() / "proteins" / "features"


def features_of(
    model: ResidueModel,
    sequences: Sequence[str],
    *,
    cache: Path | None = None,
    dtype: torch.dtype = torch.float16,
    batch: int = 4096,
    progress: Callable[[int, int], None] | None = None,
) -> list[Float[Tensor, "_ feature"]]:
    """Features of sequences, each computed once.

    What is computed is written to ``cache`` after each batch, so that a kill loses one batch. Files are named by what
    they hold, and several processes may share a folder. Features are rounded to ``dtype`` whether they are kept or not,
    so the first call gives what later ones read.

    Args:
        model: Is called with sequences of about one length.
        sequences: Letters; double ones are computed once.
        cache: Folder, such as `default_cache`. Where it cannot be written, nothing is kept.
        dtype: ``torch.float16`` or ``torch.float32``.
        batch: Residues in a batch, those that pad it counted; a longer chain goes alone.
        progress: Called with the residues that are done, 0 at first, and those that must be computed, if any.

    Raises:
        DataError: If features are not one row a residue, not finite, too large for ``dtype``, or of several widths.

    Invariant: A sequence has the same features whatever stands beside it, to the digits of float32.

    Example:
        >>> class Counts:
        ...     key = "counts"
        ...     def __call__(self, sequences):
        ...         return [torch.arange(2.0 * len(text)).reshape(-1, 2) for text in sequences]
        >>> features_of(Counts(), ["MKV", "A"])[0]
        tensor([[0., 1.],
                [2., 3.],
                [4., 5.]], dtype=torch.float16)
    """
    wanted = {_name(text): text for text in sequences}
    folder = None if cache is None else cache / _name(f"{LAYOUT} {model.key} {dtype}")[:24]
    found = {} if folder is None else _read(folder, wanted, dtype)
    missing = [text for name, text in wanted.items() if name not in found]
    every, done = sum(map(len, missing)), 0
    if progress and every:
        progress(0, every)
    for part in batches(missing, batch):
        rows = model(part)
        new = {
            _name(s): checked(x, len(s), dtype, f"the sequence {_short(s)}") for s, x in zip(part, rows, strict=True)
        }
        if folder is not None:
            _write(folder, new)
        found |= new
        done += sum(map(len, part))
        if progress:
            progress(done, every)
    widths = {x.shape[1] for x in found.values()}
    if len(widths) > 1:
        raise DataError(f"all residues must have as many features, got {' and '.join(map(str, sorted(widths)))}")
    return [found[_name(text)] for text in sequences]


def batches(sequences: Iterable[str], most: int) -> list[list[str]]:
    """Sequences of similar lengths together, the longest first: what does not fit the memory is known at once.

    Args:
        sequences: Letters.
        most: Residues of a batch when all are as long as its longest.

    Example:
        >>> batches(["AA", "GGGG", "V", "LLL"], 8)
        [['GGGG', 'LLL'], ['AA', 'V']]
    """
    found: list[list[str]] = []
    for text in sorted(sequences, key=len, reverse=True):
        if found and len(found[-1][0]) * (len(found[-1]) + 1) <= most:
            found[-1].append(text)
        else:
            found.append([text])
    return found


def _name(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _short(text: str) -> str:
    return text if len(text) <= 24 else f"{text[:20]}... ({len(text)} residues)"


def _read(folder: Path, wanted: dict[str, str], dtype: torch.dtype) -> dict[str, Tensor]:
    """What the folder has of it; a cache is no source of errors, what is damaged is computed again."""
    found: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt") as file:  # type: ignore[no-untyped-call]
                for name in wanted.keys() & set(file.keys()) - found.keys():
                    found[name] = checked(file.get_tensor(name), len(wanted[name]), dtype, name)
        except (SafetensorError, OSError, DataError):
            continue
    return found


def _write(folder: Path, tensors: dict[str, Tensor]) -> None:
    try:
        with whole(folder / f"{_name(' '.join(sorted(tensors)))[:24]}.safetensors") as part:
            save_file(tensors, part)
    except (DataError, SafetensorError):
        return  # a full or read-only disk costs time, not features
