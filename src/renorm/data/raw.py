"""What a source hands over: plain NumPy arrays, before size, range and lattice are settled."""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np

from renorm.data.spec import DataSpec, Split
from renorm.errors import DataError

__all__ = ["Raw", "Source", "hold_out"]


class Raw(NamedTuple):
    """Fields ``values`` (number, channel, *sites), uint8 or float32, and their classes, if any (-1: unknown)."""

    values: np.ndarray
    labels: np.ndarray | None = None
    num_classes: int | None = None


Source: TypeAlias = Callable[[DataSpec, Split], Raw]


def hold_out(number: int, split: Split, seed: int, what: str) -> np.ndarray:
    """Indices of one split of a set without a test split: a seeded shuffle whose first tenth is the test.

    Args:
        number: How many fields the whole set has.
        split: ``"train"`` or ``"test"``, which are disjoint and together complete; or ``"all"``, in order.
        seed: Of the shuffle.
        what: Names the set in the message.

    Raises:
        DataError: If there are fewer than two fields to divide.

    Example:
        >>> hold_out(10, "test", 0, "set"), hold_out(10, "train", 0, "set")
        (array([4]), array([6, 2, 7, 3, 5, 9, 0, 8, 1]))
    """
    if split == "all":
        return np.arange(number)
    if number < 2:
        raise DataError(f"{what} needs at least 2 fields (a tenth is held out as the test), got {number}")
    order = np.random.default_rng(seed).permutation(number)
    cut = max(1, number // 10)
    return order[:cut] if split == "test" else order[cut:]
