"""Chains as plain arrays, and in one NumPy file that is written whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path

import numpy as np
import torch

from renorm.data.npz import read_npz
from renorm.data.proteins.chains import Chain, Chains
from renorm.errors import DataError

__all__ = ["from_arrays", "read_chains", "to_arrays", "whole", "write_arrays", "write_chains"]

KEYS = ("name", "sequence", "offsets", "coordinates", "residue_number", "release_date", "cluster", "modified")


def to_arrays(chains: Chains) -> dict[str, np.ndarray]:
    """All chains end to end, cut by ``offsets``; an unknown date is empty, an unknown cluster -1.

    Example:
        >>> arrays = to_arrays(Chains([Chain("a", "MK", torch.zeros(2, 3)), Chain("b", "VLA", torch.zeros(3, 3))]))
        >>> arrays["sequence"], arrays["offsets"]
        (array('MKVLA', dtype='<U5'), array([0, 2, 5]))
    """
    none = [torch.zeros(0, 3)]
    return {
        "name": np.array(chains.names, dtype=np.str_),
        "sequence": np.array("".join(chain.sequence for chain in chains)),
        "offsets": np.concatenate([[0], np.cumsum(chains.lengths.numpy())]).astype(np.int64),
        "coordinates": torch.cat([chain.coordinates for chain in chains] or none).numpy(),
        "residue_number": torch.cat([chain.residue_numbers for chain in chains] or [torch.zeros(0).long()]).numpy(),
        "release_date": np.array([str(chain.released or "") for chain in chains], dtype=np.str_),
        "cluster": np.array([-1 if chain.cluster is None else chain.cluster for chain in chains], dtype=np.int64),
        "modified": np.array([chain.modified for chain in chains], dtype=np.int64),
    }


def from_arrays(arrays: dict[str, np.ndarray]) -> Chains:
    """The inverse of `to_arrays`.

    Raises:
        DataError: If the arrays do not belong together, or a chain is none.

    Example:
        >>> chains = Chains([Chain("a", "MK", torch.zeros(2, 3), cluster=3)])
        >>> from_arrays(to_arrays(chains)).sha256() == chains.sha256()
        True
    """
    sequence, offsets = str(arrays["sequence"]), arrays["offsets"]
    check_offsets(offsets, len(arrays["name"]), len(sequence))
    try:
        return Chains(
            Chain(
                str(arrays["name"][index]),
                sequence[start:stop],
                torch.from_numpy(arrays["coordinates"][start:stop].astype(np.float32)),
                torch.from_numpy(arrays["residue_number"][start:stop].astype(np.int64)),
                to_date(str(arrays["release_date"][index])),
                cluster if (cluster := int(arrays["cluster"][index])) >= 0 else None,
                int(arrays["modified"][index]),
            )
            for index, (start, stop) in enumerate(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True))
        )
    except (IndexError, TypeError, RuntimeError) as error:
        raise DataError(f"arrays of chains must belong together: {error}") from None


def check_offsets(offsets: np.ndarray, number: int, residues: int) -> None:
    """Raise ``DataError`` unless ``offsets`` cut ``residues`` into ``number`` chains, none of them empty."""
    fits = offsets.dtype.kind in "iu" and offsets.shape == (number + 1,)
    if not (fits and offsets[0] == 0 and offsets[-1] == residues and (np.diff(offsets) > 0).all()):
        raise DataError(
            f"offsets must be {number + 1} ascending whole numbers from 0 to {residues} ({number} chains of {residues} "
            f"residues), got {offsets.dtype} {offsets.shape}"
        )


def to_date(text: str) -> date | None:
    """A date such as ``2022-08-03``; an empty text is ``None``.

    Raises:
        DataError: If the text is no date.

    Example:
        >>> to_date("2022-08-03"), to_date("")
        (datetime.date(2022, 8, 3), None)
    """
    if not text:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise DataError(f"a date must be written as 2022-08-03, got {text!r}") from None


def write_chains(path: Path, chains: Chains) -> None:
    """Write chains as an ``.npz`` file, which appears whole or not at all.

    Raises:
        DataError: If the file cannot be written.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> chains = Chains([Chain("a", "MK", torch.zeros(2, 3))])
        >>> with TemporaryDirectory() as folder:
        ...     write_chains(Path(folder) / "mine.npz", chains)
        ...     read_chains(Path(folder) / "mine.npz").sha256() == chains.sha256()
        True
    """
    write_arrays(path, to_arrays(chains))


def read_chains(path: Path) -> Chains:
    """Chains of a file that `write_chains` made.

    Raises:
        DataError: If the file is absent, damaged, or holds something else.
    """
    return from_arrays(read_npz(path, *KEYS))


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write an ``.npz`` file, `whole`.

    Raises:
        DataError: If the file cannot be written.
    """
    with whole(path) as part, part.open("wb") as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A place beside ``path`` to write to, which then becomes ``path``: no reader meets half a file.

    Raises:
        DataError: If the file cannot be written.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     with whole(Path(folder) / "deep" / "note") as part:
        ...         _ = part.write_text("all of it")
        ...     (Path(folder) / "deep" / "note").read_text()
        'all of it'
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
        mode = part.stat().st_mode
        yield part
        part.chmod(mode)  # safetensors makes its files private, whatever the umask says
        part.replace(path)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
