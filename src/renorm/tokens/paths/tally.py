"""How often each distinct row was seen."""

import numpy as np
from jaxtyping import Int64, Integer

from renorm.errors import DataError
from renorm.tokens.paths.register import Register

__all__ = ["Tally"]


class Tally:
    """A ``Register`` that counts. Tallies add: order and parts of the data do not matter to the counts.

    Args:
        width: Numbers in a row.

    Example:
        >>> tally = Tally(1)
        >>> tally.learn(np.array([[4], [2], [4]])).tolist(), tally.counts.tolist()
        ([0, 1, 0], [2, 1])
        >>> tally.learn(np.array([[2], [9]]), np.array([10, 1])).tolist(), tally.counts.tolist()
        ([1, 2], [2, 11, 1])
    """

    def __init__(self, width: int) -> None:
        self.register = Register(width)
        self._counts = np.zeros(16, np.int64)

    @classmethod
    def of(cls, rows: Integer[np.ndarray, "number width"], counts: Integer[np.ndarray, " counts"]) -> "Tally":
        """The tally of these rows, all different, in this order.

        Raises:
            DataError: If two are equal, or a count is negative or missing.
        """
        tally = cls(rows.shape[1])
        if len(counts) != len(rows) or (len(counts) and counts.min() < 0):
            raise DataError(f"every row needs a count >= 0, got {len(counts)} counts of {len(rows)} rows")
        tally.register = Register.of(rows)
        tally._counts = counts.astype(np.int64)
        return tally

    def __len__(self) -> int:
        return len(self.register)

    @property
    def rows(self) -> Int64[np.ndarray, "known width"]:
        """All, in the order in which they were first seen."""
        return self.register.rows

    @property
    def counts(self) -> Int64[np.ndarray, " known"]:
        """Of each row."""
        return self._counts[: len(self)]

    @property
    def nbytes(self) -> int:
        """Memory of rows, counts and the table that finds them, in bytes."""
        return self.register.nbytes + self._counts.nbytes

    def learn(
        self, rows: Integer[np.ndarray, "number width"], times: Integer[np.ndarray, " number"] | None = None
    ) -> Int64[np.ndarray, " number"]:
        """Numbers of rows, each counted so many times (once, if not told)."""
        found = self.register.learn(rows)
        if len(self) > len(self._counts):
            self._counts = np.concatenate([self._counts, np.zeros(len(self), np.int64)])  # doubles: few copies
        if times is None:
            self._counts[: len(self)] += np.bincount(found, minlength=len(self))
        else:
            np.add.at(self._counts, found, times)
        return found

    def find(self, rows: Integer[np.ndarray, "number width"]) -> Int64[np.ndarray, " number"]:
        """Numbers of rows; -1 for those that were never seen."""
        return self.register.find(rows)
