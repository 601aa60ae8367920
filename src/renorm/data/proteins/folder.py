"""A folder of structure files becomes chains, and a list of what was left out and why."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from renorm.data.proteins.chains import Chain, Chains
from renorm.data.proteins.choosing import require_range
from renorm.data.proteins.reading import Dropped, read_files
from renorm.data.proteins.structure_files import MMCIF, PDB
from renorm.data.store import cache as cache_folder
from renorm.errors import DataError

__all__ = ["Dropped", "FolderChains", "default_cache", "read_folder", "structure_paths"]

SUFFIXES = {f"{suffix}{packed}" for suffix in PDB + MMCIF for packed in ("", ".gz")}


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
        cache: An ``.npz`` file (such as `default_cache`) that keeps what was read of each file, whatever the lengths
            asked for, while its size and time stay the same. Where it cannot be written, nothing is kept.
        progress: Called with the number of files that are done and that of all, for each that the cache has not.

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
    paths = structure_paths(folder)
    whole = read_files(folder, paths, cache=cache, progress=progress)
    chosen = _choose(FolderChains(whole.chains, whole.dropped), shortest, longest, unique)
    if not len(chosen.chains):
        first = chosen.dropped[0]
        raise DataError(f"no chain of {folder} is left of {len(paths)} files; first, {first.file}: {first.reason}")
    return chosen


def structure_paths(folder: Path) -> list[Path]:
    """The structure files below a folder, in the order of their names; hidden ones are none.

    Raises:
        DataError: If the folder is absent or has no structure file.

    Example:
        >>> structure_paths(Path("no-such-folder"))
        Traceback (most recent call last):
        renorm.errors.DataError: there is no folder no-such-folder
    """
    if not folder.is_dir():
        what = f"{folder} is no folder" if folder.exists() else f"there is no folder {folder}"
        raise DataError(what)
    paths = sorted(path for path in folder.rglob("*") if _is_structure(path))
    if not paths:
        raise DataError(f"{folder} has no structure files ({' '.join(sorted(SUFFIXES))})")
    return paths


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


def _choose(whole: FolderChains, shortest: int, longest: int | None, unique: bool) -> FolderChains:
    kept: list[Chain] = []
    dropped = list(whole.dropped)
    seen: dict[str, str] = {}
    for chain in whole.chains:
        reason = kind = ""
        if len(chain) < shortest:
            reason, kind = f"a chain must have at least {shortest} residues, got {len(chain)}", "chains too short"
        elif longest is not None and len(chain) > longest:
            reason, kind = f"a chain must have at most {longest} residues, got {len(chain)}", "chains too long"
        elif unique and chain.sequence in seen:
            reason, kind = f"has the same sequence as {seen[chain.sequence]}", "chains that come twice"
        if reason:
            dropped.append(Dropped(chain.name, reason, kind))
        else:
            seen.setdefault(chain.sequence, chain.name)
            kept.append(chain)
    return FolderChains(Chains(kept), tuple(dropped))
