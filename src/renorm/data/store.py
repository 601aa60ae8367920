"""Where data sets lie: ``RENORM_DATA``, then ``../shared/data``, then the user's cache folder."""

import os
from pathlib import Path

from renorm.errors import DataError

__all__ = ["cache", "find", "roots", "single", "where"]

IDX = tuple(f"{part}-{kind}-ubyte.gz" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1"))

# The layouts in which a set is understood, the quickest to read first: every file of a layout must be there.
LAYOUTS: dict[str, tuple[tuple[str, ...], ...]] = {
    "mnist": (("mnist.npz",), IDX),
    "fashion-mnist": (("fashion-mnist.npz",), IDX),
    "cifar10": (("train_a.npz", "train_b.npz", "test.npz"), ("cifar-10-binary.tar.gz",)),
    "clothing64": (("train.npz", "test.npz"),),
}
BUILT_IN = {
    "digits": "scikit-learn's own files",
    "photos": "scikit-learn's own files",
    "gaussian": "simulated, no file",
    "law": "simulated, no file",
}


def cache() -> Path:
    """The user's cache folder, where downloads go: ``$XDG_CACHE_HOME/renorm`` or ``~/.cache/renorm``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "renorm"


def roots() -> list[Path]:
    """Folders that are searched for data sets, in order.

    Raises:
        DataError: If ``RENORM_DATA`` is set and names no folder: a slip that must not lead to a download.
    """
    named = os.environ.get("RENORM_DATA")
    if named and not Path(named).is_dir():
        raise DataError(f"RENORM_DATA must name a folder with data sets, got {named!r}")
    repository = Path(__file__).resolve().parents[3]
    shared = [repository.parent / "shared" / "data", Path.cwd().parent / "shared" / "data"]
    return [*([Path(named)] if named else []), *dict.fromkeys(shared), cache()]


def single(path: Path, *, otherwise: str) -> Path:
    """A file that no address serves, from the first folder that has it.

    Args:
        path: Within a folder of data sets.
        otherwise: What else to do, for the error.

    Raises:
        DataError: If it is nowhere; the error says where it was looked for.
    """
    for root in roots():
        if (root / path).is_file():
            return root / path
    raise DataError(
        f"there is no {path} in {', '.join(map(str, roots()))}, and no address serves it; put it there, set "
        f"RENORM_DATA to a folder that has it, or {otherwise}"
    )


def find(name: str) -> list[Path] | None:
    """Files of the set ``name``, from the first folder that has a whole layout of it, or ``None``."""
    for root in roots():
        for layout in LAYOUTS[name]:
            paths = [root / name / file for file in layout]
            if all(path.is_file() for path in paths):
                return paths
    return None


def where(name: str) -> str | None:
    """Where the set ``name`` would be read from, without reading it; ``None`` if it must be downloaded first.

    Raises:
        DataError: If no set has that name.

    Example:
        >>> where("gaussian")
        'simulated, no file'
    """
    if name in BUILT_IN:
        return BUILT_IN[name]
    if name not in LAYOUTS:
        raise DataError(f"data name must be one of {', '.join([*LAYOUTS, *BUILT_IN])}, got {name!r}")
    paths = find(name)
    return str(paths[0].parent) if paths else None
