"""A folder of structure files becomes chains, and a list of what was left out and why."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from renorm.data.npz import read_npz
from renorm.data.proteins.chains import Chain, Chains
from renorm.data.proteins.choosing import require_range
from renorm.data.proteins.storage import from_arrays, to_arrays, write_arrays
from renorm.data.proteins.structure_files import MMCIF, PDB, library, read_structure, without_suffix
from renorm.data.store import cache as cache_folder
from renorm.errors import DataError

__all__ = ["Dropped", "FolderChains", "default_cache", "read_folder"]

LAYOUT = "1"  # of the cache file; another one is read anew
SUFFIXES = {f"{suffix}{packed}" for suffix in PDB + MMCIF for packed in ("", ".gz")}


class Dropped(NamedTuple):
    """A file, or a chain of one, that was left out, and why."""

    file: str
    reason: str


class FolderChains(NamedTuple):
    """What a folder of structures holds: chains to go on with, and what was left out for people."""

    chains: Chains
    dropped: tuple[Dropped, ...]


def read_folder(
    folder: Path,
    *,
    shortest: int = 1,
    longest: int | None = None,
    unique: bool = False,
    cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> FolderChains:
    """All protein chains of the structure files below a folder, in the order of their names.

    A file that cannot be read is left out and listed, as are chains that are too short, too long, or double. A chain
    is called by its file, from ``folder`` on and without ending, and its own name: ``"sub/1abc.A"``.

    Args:
        folder: Searched with its sub-folders for ``.pdb``, ``.ent``, ``.cif``, ``.mmcif`` and these with ``.gz``.
        shortest: Fewest residues of a chain, the missing ones counted.
        longest: Most residues of a chain; ``None``: any.
        unique: Whether only the first chain of each sequence is kept.
        cache: An ``.npz`` file (such as `default_cache`) that keeps what was read, whatever the lengths asked for,
            while names, sizes and times of the files stay the same. Where it cannot be written, nothing is kept.
        progress: Called with the number of files that are done and that of all.

    Raises:
        DataError: If the folder is absent or has no structure file, lengths are out of range, gemmi is not installed,
            or no chain is left (with the first reason).

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> line = "ATOM      1  CA  MSE A   1       1.000   2.000   3.000  1.00 20.00           C"
        >>> with TemporaryDirectory() as name:
        ...     _ = (Path(name) / "good.pdb").write_text(line)
        ...     _ = (Path(name) / "empty.pdb").write_text("")
        ...     chains, dropped = read_folder(Path(name))
        >>> chains.names, [entry.file for entry in dropped]
        (['good.A'], ['empty.pdb'])
    """
    require_range(shortest, longest)
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}")
    paths = sorted(path for path in folder.rglob("*") if _is_structure(path))
    if not paths:
        raise DataError(f"{folder} has no structure files ({' '.join(sorted(SUFFIXES))})")
    digest = _digest(folder, paths)
    whole = _from_cache(cache, digest) if cache else None
    if whole is None:
        library(folder)  # else every file would be left out for the want of it
        whole = _read_all(folder, paths, progress)
        if cache:
            _to_cache(cache, digest, whole)
    chosen = _choose(whole, shortest, longest, unique)
    if not len(chosen.chains):
        first = chosen.dropped[0]
        raise DataError(f"no chain of {folder} is left of {len(paths)} files; first, {first.file}: {first.reason}")
    return chosen


def default_cache(folder: Path) -> Path:
    """Where the chains of a folder are kept unless a caller says otherwise: in the user's cache, one file a folder.

    Example:
        >>> default_cache(Path("mine")).suffix
        '.npz'
    """
    name = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    return cache_folder() / "proteins" / f"{folder.resolve().name}-{name}.npz"


def _is_structure(path: Path) -> bool:
    return path.name.lower().endswith(tuple(SUFFIXES)) and not path.name.startswith(".") and path.is_file()


def _digest(folder: Path, paths: list[Path]) -> str:
    """Of names, sizes and times of change."""
    digest = hashlib.sha256(LAYOUT.encode())
    for path in paths:
        status = path.stat()
        digest.update(repr((path.relative_to(folder).as_posix(), status.st_size, status.st_mtime_ns)).encode())
    return digest.hexdigest()


def _read_all(folder: Path, paths: list[Path], progress: Callable[[int, int], None] | None) -> FolderChains:
    chains: list[Chain] = []
    dropped: list[Dropped] = []
    for done, path in enumerate(paths, start=1):
        inside = path.relative_to(folder)
        name = (inside.parent / without_suffix(path)[0]).as_posix()
        try:
            chains.extend(read_structure(path, name=name))
        except DataError as error:
            dropped.append(Dropped(inside.as_posix(), str(error)))
        if progress:
            progress(done, len(paths))
    return FolderChains(Chains(chains), tuple(dropped))


def _choose(whole: FolderChains, shortest: int, longest: int | None, unique: bool) -> FolderChains:
    kept: list[Chain] = []
    dropped = list(whole.dropped)
    seen: dict[str, str] = {}
    for chain in whole.chains:
        reason = None
        if len(chain) < shortest:
            reason = f"a chain must have at least {shortest} residues, got {len(chain)}"
        elif longest is not None and len(chain) > longest:
            reason = f"a chain must have at most {longest} residues, got {len(chain)}"
        elif unique and chain.sequence in seen:
            reason = f"has the same sequence as {seen[chain.sequence]}"
        if reason:
            dropped.append(Dropped(chain.name, reason))
        else:
            seen.setdefault(chain.sequence, chain.name)
            kept.append(chain)
    return FolderChains(Chains(kept), tuple(dropped))


def _from_cache(path: Path, digest: str) -> FolderChains | None:
    """What the cache has of these very files, or nothing: a cache is no source of errors."""
    try:
        arrays = read_npz(path)
        if str(arrays["digest"]) != digest:
            return None
        dropped = zip(arrays["dropped"].tolist(), arrays["reasons"].tolist(), strict=True)
        return FolderChains(from_arrays(arrays), tuple(Dropped(file, reason) for file, reason in dropped))
    except (DataError, KeyError, ValueError):
        return None


def _to_cache(path: Path, digest: str, whole: FolderChains) -> None:
    extra = {
        "digest": np.array(digest),
        "dropped": np.array([entry.file for entry in whole.dropped], dtype=np.str_),
        "reasons": np.array([entry.reason for entry in whole.dropped], dtype=np.str_),
    }
    try:
        write_arrays(path, {**to_arrays(whole.chains), **extra})
    except DataError:
        return  # a full or read-only disk costs time, not chains
