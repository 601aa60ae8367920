"""Fields in one ``.npy``, ``.npz``, HDF5 or FITS file."""

from pathlib import Path

import numpy as np

from renorm.data.maps import read_map, split_path
from renorm.data.npz import read_npy, read_npz
from renorm.data.raw import Raw, hold_out
from renorm.data.spec import DataSpec, Split
from renorm.errors import DataError

__all__ = ["read"]

RULE = (
    "an array must be (n, length), (n, h, w), (n, channel, h, w) or (n, h, w, channel) with 1 or 3 channels, "
    "or (n, channel, d, h, w); with channels set, (n, channel, *sites)"
)


def read(spec: DataSpec, split: Split) -> Raw:
    """Fields of one file; a seeded tenth of them is the test.

    An ``.npz`` file holds the fields as ``x`` (or as its only array) and, if there are classes, whole numbers
    from 0 as ``y``, -1 where the class of a field is unknown. ``.h5``, ``.hdf5`` and ``.fits`` files hold maps without
    classes, see `renorm.data.maps`; two axes are one map there, and whole numbers become floating-point. uint8 stays;
    float16, float32 and float64 become float32, unscaled. What the axes mean:

    ================  ==================================================================================
    array             fields
    ================  ==================================================================================
    2 axes            (n, length): 1-D, one channel
    3 axes            (n, h, w): 2-D, one channel
    4 axes            (n, channel, h, w) or else (n, h, w, channel), with 1 or 3 channels
    5 axes            (n, channel, d, h, w): 3-D
    ``channels`` set  (n, channel, *sites), of any dimension; 4 axes also (n, h, w, channel)
    ================  ==================================================================================

    Raises:
        DataError: If the file is absent or damaged, its array is of another type or shape, or not finite, or classes
            are asked for and none is known.
    """
    path = Path(spec.path or "")
    x, y = _open(spec.path or "")
    if x.dtype != np.uint8 and x.dtype.kind != "f":
        raise DataError(f"{path} must hold uint8 or floating-point fields, got {x.dtype}")
    x = _channels_first(x, spec.channels, path)
    if x.dtype != np.uint8:
        with np.errstate(over="ignore"):  # what overflows is reported as not finite
            x = x.astype(np.float32, copy=False)
        _require_finite(x, path)
    if len(x) == 1 and split != "all":
        raise DataError(
            f"{path} has one field, of which no test can be held out; cut it into patches of (n, {_sites(x)}) and save "
            "these, or simulate more"
        )
    index = hold_out(len(x), split, spec.seed, str(path))[: spec.limit]
    if y is None:
        return Raw(x[index])
    if y.shape != (len(x),) or y.dtype.kind not in "iu" or y.min() < -1:
        raise DataError(
            f"y of {path} must be {len(x)} whole numbers from 0 on (-1: class unknown), got {y.dtype} {y.shape}"
        )
    if spec.labels and y.max() < 0:
        raise DataError(
            f"labels = true needs a class for at least one field, y of {path} is -1 (unknown) everywhere; set "
            "labels = false"
        )
    return Raw(x[index], y[index], int(y.max()) + 1)


def _sites(x: np.ndarray) -> str:
    return ", ".join("abc"[: x.ndim - 2])


def _open(name: str) -> tuple[np.ndarray, np.ndarray | None]:
    maps = split_path(name)
    if maps is not None:
        return read_map(*maps), None
    path = Path(name)
    if path.suffix == ".npy":
        return read_npy(path), None
    if path.suffix != ".npz":
        raise DataError(f"path must name an .npy, .npz, .h5, .hdf5 or .fits file, got {str(path)!r}")
    arrays = read_npz(path)
    y = arrays.pop("y", None)
    if "x" not in arrays and len(arrays) != 1:
        raise DataError(f"{path} must hold its fields as 'x' or as its only array, got {', '.join(arrays) or 'none'}")
    return arrays["x"] if "x" in arrays else next(iter(arrays.values())), y


def _channels_first(x: np.ndarray, channels: int | None, path: Path) -> np.ndarray:
    """``x`` as (n, channel, *sites), by the table above."""
    if 0 in x.shape:
        raise DataError(f"{path} is empty, its shape is {x.shape}")
    allowed = (1, 3) if channels is None else (channels,)
    if channels is None and x.ndim in (2, 3):
        return x[:, None]
    if 3 <= x.ndim <= 5:
        if (channels is None and x.ndim == 5) or x.shape[1] in allowed:
            return x
        if x.ndim == 4 and x.shape[3] in allowed:
            return x.transpose(0, 3, 1, 2)
    asked = "" if channels is None else f" with channels = {channels}"
    raise DataError(f"{RULE}; got {x.shape}{asked} in {path}")


def _require_finite(x: np.ndarray, path: Path) -> None:
    import torch

    from renorm.data.fields import require_finite

    require_finite(torch.from_numpy(np.ascontiguousarray(x)), str(path))
