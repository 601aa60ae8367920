"""Maps in HDF5 and FITS files: one map, or a stack of them."""

import gzip
import re
import warnings
import zlib
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from renorm.errors import DataError

__all__ = ["read_map", "split_path"]

NAMED = re.compile(r"(?P<file>.*\.(?P<kind>h5|hdf5|fits|fit|fits\.gz))(?::(?P<inside>.+))?", re.IGNORECASE | re.DOTALL)
EXACT = 2**24
"""Whole numbers up to here keep all their digits as float32."""

_DAMAGED = (OSError, ValueError, TypeError, KeyError, IndexError, EOFError, RuntimeError, zlib.error)


def split_path(path: str) -> tuple[Path, str | None] | None:
    """File and what inside it, or nothing if the name is not that of an HDF5 or FITS file.

    Example:
        >>> split_path("runs/maps.h5:z1/kappa")
        (PosixPath('runs/maps.h5'), 'z1/kappa')
        >>> split_path("x.npy") is None
        True
    """
    found = NAMED.fullmatch(path)
    return None if found is None else (Path(found["file"]), found["inside"])


def read_map(file: Path, inside: str | None) -> np.ndarray:
    """An array of maps: uint8 or floating-point, a single map (height, width) as a stack of one.

    Args:
        file: Its ending says what it is.
        inside: Of HDF5: the data set; not needed if there is only one. Of FITS: the name or number of an image, or
            ``"all"`` for a stack of all; the first one if not given.

    Raises:
        DataError: If the file is absent or damaged, lacks what is asked for, or does not hold real numbers, or
            the library that reads it is not installed.
    """
    if not file.is_file():
        raise DataError(f"there is no file {file}")
    x = _read_hdf5(file, inside) if file.suffix.lower() in (".h5", ".hdf5") else _read_fits(file, inside)
    if x.dtype.kind not in "iuf":
        raise DataError(f"{file} must hold maps of real numbers, got an array of type {x.dtype}")
    if x.dtype.kind in "iu" and x.dtype != np.uint8:
        largest = max(abs(int(x.max())), abs(int(x.min()))) if x.size else 0
        if largest > EXACT:
            raise DataError(f"whole numbers must be within ±2^24 (float32 keeps no more), got {largest} in {file}")
        x = x.astype(np.float32)
    return x[None] if x.ndim == 2 else x


def _read_hdf5(file: Path, inside: str | None) -> np.ndarray:
    h5py = _library("h5py", file)
    try:
        with h5py.File(file, "r") as opened:
            names: list[str] = []
            opened.visititems(lambda name, node: names.append(name) if isinstance(node, h5py.Dataset) else None)
            wanted = inside.strip("/") if inside else (names[0] if len(names) == 1 else None)
            if wanted in names:
                return np.asarray(opened[wanted][()])
    except _DAMAGED as error:
        raise _damaged(file, error) from None
    listed = ", ".join(names) or "none"
    if wanted is None:
        raise DataError(f"{file} must have one data set, or path name it ('{file.name}:NAME'), got {listed}")
    raise DataError(f"{file} has no data set '{wanted}', only {listed}")


def _read_fits(file: Path, inside: str | None) -> np.ndarray:
    fits = _library("astropy.io.fits", file)
    try:
        # Opened here and not by astropy, which leaves a damaged file open.
        with warnings.catch_warnings(), gzip.open(file) if file.suffix.lower() == ".gz" else file.open("rb") as stream:
            warnings.simplefilter("ignore")  # remarks on odd but readable headers
            warnings.filterwarnings("error", message=".*truncated.*")
            with fits.open(stream, memmap=False, lazy_load_hdus=False) as opened:
                images = {
                    (index, hdu.name): np.asarray(hdu.data)
                    for index, hdu in enumerate(opened)
                    if hdu.is_image and hdu.data is not None and hdu.data.ndim
                }
    except (*_DAMAGED, Warning) as error:
        raise _damaged(file, error) from None
    return _chosen(images, inside, file)


def _chosen(images: dict[tuple[int, str], np.ndarray], inside: str | None, file: Path) -> np.ndarray:
    if not images:
        raise DataError(f"{file} has no image (tables, as of a HEALPix map, must be projected to flat maps first)")
    if inside is None:
        return next(iter(images.values()))
    if inside.lower() == "all":
        shapes = sorted({x.shape for x in images.values()})
        if len(shapes) > 1:
            raise DataError(f"images of {file} must have one shape to be stacked, got {', '.join(map(str, shapes))}")
        return np.stack(list(images.values()))
    for (index, name), x in images.items():
        if inside in (str(index), name):
            return x
    listed = ", ".join(f"{index} ({name})" if name else str(index) for index, name in images)
    raise DataError(f"{file} has no image '{inside}', only {listed}")


def _library(name: str, file: Path) -> ModuleType | Any:
    try:
        return import_module(name)
    except ImportError:
        package = name.split(".")[0]
        raise DataError(f"reading {file} needs {package}: pip install 'renorm[physics]'") from None


def _damaged(file: Path, error: BaseException) -> DataError:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return DataError(f"cannot read {file}, which is truncated, damaged or of another format: {reason}")
