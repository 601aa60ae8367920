"""Distinct rows of whole numbers, numbered in the order in which they were first seen."""

import sys

import numpy as np
from jaxtyping import Int64, Integer

from renorm.errors import DataError
from renorm.tokens.trees.rows import distinct_rows

__all__ = ["Register"]

FEW = 4096  # rows that are looked up one by one
NUMBER = 32  # bytes of a number of Python's


class Register:
    """A table of rows that grows: what was seen before has its number, what was not gets the next one.

    Learned from two data sets in turn, it is the same table as learned from both at once. Nothing in it is larger than
    what is in the rows: no array over pairs or over all possible rows is ever made.

    Args:
        width: Numbers in a row.

    Example:
        >>> register = Register(2)
        >>> register.learn(np.array([[5, 1], [7, 7], [5, 1]])).tolist()
        [0, 1, 0]
        >>> register.learn(np.array([[0, 0], [7, 7]])).tolist(), len(register)
        ([2, 1], 3)
        >>> register.rows.tolist()
        [[5, 1], [7, 7], [0, 0]]
        >>> register.find(np.array([[7, 7], [9, 9]])).tolist()
        [1, -1]
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self._numbers: dict[bytes, int] = {}
        self._parts: list[Int64[np.ndarray, "some width"]] = []

    @classmethod
    def of(cls, rows: Integer[np.ndarray, "number width"]) -> "Register":
        """The table that holds these rows, all different, in this order.

        Raises:
            DataError: If two are equal.
        """
        register = cls(rows.shape[1])
        if register.learn(rows).tolist() != list(range(len(rows))):
            raise DataError("a table of distinct rows holds one twice")
        return register

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def rows(self) -> Int64[np.ndarray, "known width"]:
        """All, in the order of their numbers."""
        if len(self._parts) != 1:
            self._parts = [np.concatenate([np.empty((0, self.width), np.int64), *self._parts])]
        return self._parts[0]

    @property
    def nbytes(self) -> int:
        """Memory of rows and of the table that finds them, in bytes."""
        keys = len(self) * (sys.getsizeof(b"") + 8 * self.width + NUMBER)
        return self.rows.nbytes + keys + sys.getsizeof(self._numbers)

    def learn(self, rows: Integer[np.ndarray, "number width"]) -> Int64[np.ndarray, " number"]:
        """Numbers of rows, those of new ones included.

        Raises:
            DataError: If rows have another width.
        """
        self._check(rows)
        first, inverse = distinct_rows(rows)
        found, known = np.empty(len(first), np.int64), len(self)
        for i, key in enumerate(_keys(rows[first])):
            found[i] = self._numbers.setdefault(key, len(self._numbers))
        if len(self) > known:
            self._parts.append(rows[first[found >= known]].astype(np.int64))
        return found[inverse]

    def find(self, rows: Integer[np.ndarray, "number width"]) -> Int64[np.ndarray, " number"]:
        """Numbers of rows; -1 for those that were never learned."""
        self._check(rows)
        first, inverse = distinct_rows(rows) if len(rows) > FEW else (slice(None), slice(None))
        return np.asarray([self._numbers.get(key, -1) for key in _keys(rows[first])], np.int64)[inverse]

    def _check(self, rows: np.ndarray) -> None:
        if rows.ndim != 2 or rows.shape[1] != self.width:
            raise DataError(f"this table has rows of {self.width} numbers, got an array of shape {rows.shape}")


def _keys(rows: np.ndarray) -> list[bytes]:
    """Each row as the bytes of int64 numbers."""
    width = rows.shape[1] * 8
    data = np.ascontiguousarray(rows, np.int64).tobytes()
    return [data[i * width : (i + 1) * width] for i in range(len(rows))]
