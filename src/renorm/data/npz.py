"""Read NumPy files without ever unpickling, with one-line errors."""

import zipfile
import zlib
from pathlib import Path

import numpy as np

from renorm.errors import DataError

__all__ = ["read_npy", "read_npz"]

_DAMAGED = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError)


def read_npz(path: Path, *keys: str) -> dict[str, np.ndarray]:
    """Arrays of an ``.npz`` file: those named, or all.

    Raises:
        DataError: If the file is absent, truncated, holds Python objects, or lacks one of the arrays.
    """
    try:
        # Opened here and not by NumPy, which leaves a damaged file open.
        with path.open("rb") as stream:
            file = np.load(stream, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise ValueError("it is a single array; name it .npy")
            names = list(file.files)
            missing = [key for key in keys if key not in names]
            if not missing:
                return {key: file[key] for key in keys or names}
    except FileNotFoundError:
        raise DataError(f"there is no file {path}") from None
    except _DAMAGED as error:
        raise _damaged(path, error) from None
    raise DataError(f"{path} must hold an array '{missing[0]}', got {', '.join(names) or 'no array'}")


def read_npy(path: Path) -> np.ndarray:
    """The array of an ``.npy`` file.

    Raises:
        DataError: If the file is absent, truncated, or holds Python objects.
    """
    try:
        with path.open("rb") as file:
            return np.lib.format.read_array(file, allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"there is no file {path}") from None
    except _DAMAGED as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> DataError:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return DataError(f"cannot read {path}, which is truncated, damaged or no NumPy file of numbers: {reason}")
