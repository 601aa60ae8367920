"""Many structure files read one by one, and kept: what was read once is not read again, also after a kill."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from renorm.data.npz import read_npz
from renorm.data.proteins.chains import Chain, Chains
from renorm.data.proteins.storage import from_arrays, to_arrays, write_arrays
from renorm.data.proteins.structure_files import ABSENT, library, read_structure, without_suffix
from renorm.errors import DataError, StructureError

__all__ = ["Dropped", "FilesRead", "read_files"]

LAYOUT = "2"  # of the cache file; another one is read anew
SAVE_SECONDS = 5.0  # of reading that a kill may cost
SAVE_SHARE = 20  # of reading to writing: a large cache is written less often


class Dropped(NamedTuple):
    """A file, or a chain of one, that was left out, and why; ``kind`` is the same for all of one fault."""

    file: str
    reason: str
    kind: str


class FilesRead(NamedTuple):
    """Chains of many files, in their order.

    Attributes:
        chains: All of them.
        dropped: Files that could not be read.
        files: How many files there are.
        anew: How many of them no cache had.
        cached: Whether the cache has them all now, but for those that could not be opened.
    """

    chains: Chains
    dropped: tuple[Dropped, ...]
    files: int
    anew: int
    cached: bool


class _Stamp(NamedTuple):
    """What changes when a file does."""

    size: int
    time: int  # of the last change, in ns

    @classmethod
    def of(cls, path: Path) -> "_Stamp":
        status = path.stat()
        return cls(status.st_size, status.st_mtime_ns)


class _Entry(NamedTuple):
    """What one file holds: chains, or a fault."""

    stamp: _Stamp
    chains: tuple[Chain, ...]
    fault: Dropped | None


def read_files(
    folder: Path,
    paths: Sequence[Path],
    *,
    cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> FilesRead:
    """The chains of structure files below a folder; those that the cache has are taken from there.

    The cache is written every few seconds and at the end, also when reading is interrupted. A file is read again if its
    size or its time of change is another, or if it could not be opened.

    Args:
        folder: Names of files and chains are told from here on.
        paths: The files.
        cache: An ``.npz`` file. Where it cannot be written, nothing is kept.
        progress: Called with the number of files that are done, those of the cache too, and that of all.

    Raises:
        DataError: If a file must be read and gemmi is not installed.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> line = "ATOM      1  CA  MSE A   1       1.000   2.000   3.000  1.00 20.00           C"
        >>> with TemporaryDirectory() as name:
        ...     path, cache = Path(name) / "mine.pdb", Path(name) / "cache.npz"
        ...     _ = path.write_text(line)
        ...     [read_files(path.parent, [path], cache=cache).anew for _ in range(2)]
        [1, 0]
    """
    inside = [path.relative_to(folder).as_posix() for path in paths]
    kept = _from_cache(cache) if cache else {}
    stamps = dict(zip(inside, map(_stamp, paths), strict=True))
    entries = {name: entry for name, entry in kept.items() if stamps.get(name) == entry.stamp}
    todo = [(name, path) for name, path in zip(inside, paths, strict=True) if name not in entries]
    saved = bool(cache) and len(kept) == len(entries)
    if todo:
        library(folder)  # else every file would be left out for the want of it
        saved = False
    done, cost, last = len(entries), 0.0, time.monotonic()
    try:
        for name, path in todo:
            entries[name] = _read(path, name, stamps[name])
            done += 1
            if cache and time.monotonic() - last > max(SAVE_SECONDS, SAVE_SHARE * cost):
                began = time.monotonic()
                _to_cache(cache, entries)
                last = time.monotonic()
                cost = last - began
            if progress:
                progress(done, len(paths))
    finally:
        if cache and not saved:
            saved = _to_cache(cache, entries)
    found = [entries[name] for name in inside]
    return FilesRead(
        Chains(chain for entry in found for chain in entry.chains),
        tuple(entry.fault for entry in found if entry.fault),
        len(paths),
        len(todo),
        saved,
    )


def _stamp(path: Path) -> _Stamp:
    try:
        return _Stamp.of(path)
    except OSError:  # it went away meanwhile: reading says so
        return _Stamp(-1, -1)


def _read(path: Path, inside: str, stamp: _Stamp) -> _Entry:
    name = Path(inside).with_name(without_suffix(path)[0]).as_posix()
    try:
        return _Entry(stamp, tuple(read_structure(path, name=name)), None)
    except StructureError as error:
        return _Entry(stamp, (), Dropped(inside, str(error), error.kind))


def _from_cache(path: Path) -> dict[str, _Entry]:
    """What the cache has, by file, or nothing: a cache is no source of errors."""
    try:
        arrays = read_npz(path)
        if str(arrays["layout"]) != LAYOUT:
            return {}
        chains = from_arrays(arrays)
        stops = np.cumsum(arrays["count"]).tolist()
        columns = (arrays[key].tolist() for key in ("faulty", "reason", "kind"))
        faults = {file: Dropped(file, reason, kind) for file, reason, kind in zip(*columns, strict=True)}
        files = zip(arrays["path"].tolist(), arrays["stamp"].tolist(), [0, *stops[:-1]], stops, strict=True)
        return {
            name: _Entry(_Stamp(*stamp), tuple(chains[start:stop]), faults.get(name))
            for name, stamp, start, stop in files
        }
    except (DataError, KeyError, ValueError, TypeError):
        return {}


def _to_cache(path: Path, entries: dict[str, _Entry]) -> bool:
    """Write what was read; whether that went well: a full or read-only disk costs time, not chains."""
    kept = {name: entry for name, entry in entries.items() if not (entry.fault and entry.fault.kind == ABSENT)}
    faults = [entry.fault for entry in kept.values() if entry.fault]
    arrays = {
        "layout": np.array(LAYOUT),
        "path": np.array(list(kept), dtype=np.str_),
        "stamp": np.array([entry.stamp for entry in kept.values()], dtype=np.int64).reshape(-1, 2),
        "count": np.array([len(entry.chains) for entry in kept.values()], dtype=np.int64),
        "faulty": np.array([fault.file for fault in faults], dtype=np.str_),
        "reason": np.array([fault.reason for fault in faults], dtype=np.str_),
        "kind": np.array([fault.kind for fault in faults], dtype=np.str_),
    }
    chains = Chains(chain for entry in kept.values() for chain in entry.chains)
    try:
        write_arrays(path, {**to_arrays(chains), **arrays})
    except DataError:
        return False
    return True
