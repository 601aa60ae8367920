"""Labels of classes as places in a sorted list, with room for images whose class nobody knows."""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d

from renorm.errors import DataError

__all__ = ["Labels", "weights"]


@dataclass(frozen=True, eq=False)
class Labels:
    """Place of each image's label among the classes.

    Attributes:
        index: int64 (number,), -1 where the label is unknown; all 0 where there are no labels at all.
        classes: The labels, sorted.

    Example:
        >>> labels = Labels.of(["b", "a", None], 3)
        >>> labels.index.tolist(), labels.classes.tolist()
        ([1, 0, -1], ['a', 'b'])
    """

    index: np.ndarray
    classes: np.ndarray

    @classmethod
    def of(cls, y: Any, number: int, classes: Any = None) -> "Labels":
        """Read labels; -1, NaN and ``None`` say that a class is unknown.

        A warning is given where -1 may have been meant as one of two classes, as in y = -1, +1.

        Args:
            y: The labels, or ``None`` where there are none.
            number: How many there should be.
            classes: The classes that there are; those of ``y`` if not given.

        Raises:
            DataError: If there are too few or too many, all are unknown, one is infinite, or none of the classes.
        """
        known_classes = None if classes is None else np.unique(np.asarray(classes))
        if known_classes is not None and known_classes.dtype.kind in "iuf" and (known_classes == -1).any():
            raise DataError("a class cannot be called -1 (that says that a class is unknown); give it another name")
        if y is None:
            one = known_classes is None or len(known_classes) == 1
            index = np.zeros(number, np.int64) if one else np.full(number, -1, np.int64)
            return cls(index, np.zeros(1, np.int64) if known_classes is None else known_classes)
        labels = column_or_1d(y.numpy() if hasattr(y, "numpy") else y, warn=True)
        if len(labels) != number:
            raise DataError(f"each of {number} images needs a label (-1: unknown), got {len(labels)} labels")
        known = _is_known(labels)
        if not known.any() and known_classes is None:
            raise DataError("at least one label must be known, got none; leave y away to learn without classes")
        seen = labels[known]
        if seen.dtype == object:
            seen = np.array(seen.tolist())
        if seen.dtype.kind == "f" and np.isinf(seen).any():
            raise DataError("labels must be finite (each is the name of a class), got an infinite one")
        if len(seen):
            check_classification_targets(seen)
        classes_, place = np.unique(seen, return_inverse=True)
        if known_classes is None and len(classes_) == 1 and -1 in labels[~known].tolist():
            warnings.warn(
                f"-1 was read as 'class unknown', which leaves the one class {classes_.tolist()[0]!r}; if -1 is a "
                "class, give it another name, as by np.where(y == -1, 0, y); if there are no classes, leave y away",
                UserWarning,
                stacklevel=4,
            )
        if known_classes is not None:
            strange = np.setdiff1d(classes_, known_classes)
            if len(strange):
                raise DataError(
                    f"label {strange.tolist()[0]!r} is none of the classes {known_classes.tolist()}; name all that "
                    "will come at the first partial_fit (classes=...)"
                )
            place = np.searchsorted(known_classes, seen)
        index = np.full(number, -1, np.int64)
        index[known] = place
        return cls(index, classes_ if known_classes is None else known_classes)


def _is_known(labels: np.ndarray) -> np.ndarray:
    if labels.dtype.kind in "iu":
        return np.asarray(labels != -1)
    if labels.dtype.kind == "f":
        return ~np.isnan(labels) & (labels != -1)
    if labels.dtype == object:
        return np.array([label is not None and label == label and label != -1 for label in labels], bool)
    return np.ones(len(labels), bool)


def weights(weight: Any, number: int) -> Float64[np.ndarray, " number"] | None:
    """How often each image counts, if it was said.

    Raises:
        DataError: If there is not one for each image, one is negative or no number, or all are zero.

    Example:
        >>> weights([1, 0.5], 2)
        array([1. , 0.5])
    """
    if weight is None:
        return None
    found = np.asarray(weight, np.float64)
    if found.shape != (number,):
        raise DataError(f"sample_weight needs one number for each of {number} images, got shape {found.shape}")
    if not (np.isfinite(found).all() and found.min() >= 0):
        raise DataError(f"sample_weight must be finite and >= 0 (it says how often an image counts), got {found.min()}")
    if not found.any():
        raise DataError(f"at least one sample_weight must not be zero (nothing would be learned), got {number} zeros")
    return found
