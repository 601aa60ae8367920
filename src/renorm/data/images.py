"""The registry of data sets, and ``load``: from a ``DataSpec`` to ``Fields``.

A new data set is one new file with a function ``read(spec, split) -> Raw`` and one line in ``SOURCES``.
"""

from typing import TYPE_CHECKING

import numpy as np

from renorm.data import array, bundled, cifar10, clothing64, folder, gaussian, law, mnist
from renorm.data.raw import Source
from renorm.data.resize import resize
from renorm.data.spec import DataSpec, Split
from renorm.errors import DataError, RecipeError
from renorm.lattice import Lattice

if TYPE_CHECKING:
    from renorm.data.fields import Fields

__all__ = ["SOURCES", "load"]

SOURCES: dict[str, Source] = {
    "mnist": mnist.read,
    "fashion-mnist": mnist.read,
    "cifar10": cifar10.read,
    "clothing64": clothing64.read,
    "digits": bundled.read_digits,
    "photos": bundled.read_photos,
    "gaussian": gaussian.read,
    "law": law.read,
    "folder": folder.read,
    "array": array.read,
}

GREY = np.array([0.299, 0.587, 0.114])  # luma of red, green, blue (ITU-R BT.601)


def load(spec: DataSpec, split: Split = "train") -> "Fields":
    """Read a data set into memory, at the size, with the channels and on the lattice that ``spec`` asks for.

    MNIST, Fashion-MNIST and CIFAR-10 have their own test split; of folders, arrays and digits a seeded tenth
    is held out; photographs are cut apart; Gaussian fields and those of a law are simulated anew.

    Args:
        spec: What to read.
        split: ``"train"`` or ``"test"``.

    Raises:
        RecipeError: If there is no data set of this name.
        DataError: If files are absent or damaged, or do not have what ``spec`` asks for.

    Example:
        >>> digits = load(DataSpec("digits", size=4))
        >>> len(digits), digits.lattice.event_shape
        (1618, (1, 4, 4))
    """
    import torch

    from renorm.data.fields import Fields

    if spec.name not in SOURCES:
        raise RecipeError(f"unknown data set '{spec.name}'; known: {', '.join(SOURCES)}")
    raw = SOURCES[spec.name](spec, split)
    if spec.labels and raw.labels is None:
        raise DataError(f"labels = true needs a data set with classes; {spec.path or spec.name} has none")
    values = _with_channels(raw.values[: spec.limit], spec)
    if spec.size is not None:
        values = resize(values, spec.size, spec.resize)
    labels = raw.labels[: spec.limit].astype(np.int64) if spec.labels and raw.labels is not None else None
    return Fields(
        # Copies what is a mere view of something larger (a limit, a crop) or cannot be written to.
        values=torch.from_numpy(np.require(values, requirements=["C", "W", "O"])),
        lattice=Lattice(values.shape[2:], boundary=spec.boundary, channels=values.shape[1]),
        labels=None if labels is None else torch.from_numpy(labels),
        num_classes=None if labels is None else raw.num_classes,
        value_range=spec.value_range,
    )


def _with_channels(values: np.ndarray, spec: DataSpec) -> np.ndarray:
    """``values`` with the channels asked for: unchanged, or colour turned grey."""
    has = values.shape[1]
    if spec.channels in (None, has):
        return values
    if (spec.channels, has) == (1, 3) and values.dtype == np.uint8:
        grey = np.einsum("nc...,c->n...", values, GREY.astype(np.float32), dtype=np.float32, casting="unsafe")
        return np.rint(grey).clip(0, 255).astype(np.uint8)[:, None]
    raise DataError(f"{spec.path or spec.name} has {has} channels, which cannot become {spec.channels}")
