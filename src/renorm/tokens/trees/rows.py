"""Which rows of a table are equal."""

import numpy as np
from jaxtyping import Int64, Integer

__all__ = ["distinct_rows"]

FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd, so that no number of a row is lost


def distinct_rows(
    rows: Integer[np.ndarray, "number width"],
) -> tuple[Int64[np.ndarray, " distinct"], Int64[np.ndarray, " number"]]:
    """Where each distinct row stands first, in that order, and for every row which of them it is.

    Example:
        >>> first, which = distinct_rows(np.array([[3, 1], [0, 0], [3, 1]]))
        >>> first.tolist(), which.tolist()
        ([0, 1], [0, 1, 0])
    """
    if not len(rows):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    mark = np.zeros(len(rows), np.uint64)
    for column in rows.T:  # sums wrap around: a fingerprint, much faster to sort than rows
        mark = (mark ^ (mark >> np.uint64(29))) * FACTOR + column.astype(np.uint64)
    _, first, inverse = np.unique(mark, return_index=True, return_inverse=True)
    if not np.array_equal(rows[first][inverse], rows):  # two rows of one fingerprint
        _, first, inverse = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return first[order].astype(np.int64), place[inverse.reshape(-1)].astype(np.int64)
