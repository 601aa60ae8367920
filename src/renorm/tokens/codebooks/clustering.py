"""Centroids of many points: scikit-learn's k-means, or Lloyd's iteration with nothing added."""

import warnings
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Float, Int

from renorm.errors import DataError

__all__ = ["Method", "cluster", "nearest"]

Method: TypeAlias = Literal["mini-batch", "full", "lloyd"]
_ROWS = 256  # points searched together: their scores stay in the second-level cache


def cluster(
    points: Float[np.ndarray, "points features"], number: int, *, method: Method, iterations: int, seed: int
) -> Float[np.ndarray, "number features"]:
    r"""Centroids that lower the mean squared distance of each point to its nearest.

    $$ z_i = \arg\min_k |y_i - c_k|^2, \qquad c_k = \frac{\sum_i [z_i = k]\, y_i}{\sum_i [z_i = k]} $$

    Args:
        points: What to cluster, one a row.
        number: How many centroids.
        method: ``"mini-batch"`` and ``"full"`` are scikit-learn's; ``"lloyd"`` starts at ``number`` points drawn
            without replacement and leaves a centroid without members where it was.
        iterations: Passes over the points at most.
        seed: Of the draw of the first centroids.

    Raises:
        DataError: If fewer than ``number`` points differ.

    Example:
        >>> points = np.array([[0.0], [0.2], [5.0], [5.2]], np.float32)
        >>> np.sort(cluster(points, 2, method="full", iterations=9, seed=0), axis=0).round(1).tolist()
        [[0.10000000149011612], [5.099999904632568]]
    """
    _require_distinct(points, number)
    if method == "lloyd":
        return _lloyd(points, number, iterations, seed)
    from sklearn.cluster import KMeans, MiniBatchKMeans
    from sklearn.exceptions import ConvergenceWarning

    if method == "full":
        model = KMeans(number, init="random", n_init=1, max_iter=iterations, random_state=seed)
    else:
        model = MiniBatchKMeans(
            number, init="random", n_init=1, batch_size=8192, max_iter=iterations, random_state=seed
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # few iterations are what was asked for
        return model.fit(points).cluster_centers_.astype(np.float32)


def nearest(
    points: Float[np.ndarray, "points features"], centroids: Float[np.ndarray, "tokens features"], number: int = 1
) -> Int[np.ndarray, "points number"]:
    r"""The ``number`` nearest centroids of each point, nearest first.

    $$ z_i = \arg\max_k \big( y_i \cdot c_k - |c_k|^2 / 2 \big) $$

    Example:
        >>> nearest(np.array([[0.9], [3.0]], np.float32), np.array([[0.0], [1.0], [4.0]], np.float32), 2).tolist()
        [[1, 0], [2, 1]]
    """
    table = centroids.T.astype(np.float32)
    half = np.einsum("kd,kd->k", centroids, centroids).astype(np.float32) / 2
    out = np.empty((len(points), number), np.int64)
    score = np.empty((_ROWS, len(centroids)), np.float32)
    for start in range(0, len(points), _ROWS):
        block = points[start : start + _ROWS]
        here = score[: len(block)]
        np.matmul(block, table, out=here)
        here -= half
        found = out[start : start + _ROWS]
        found[:, 0] = here.argmax(axis=1)
        for order in range(1, number):
            here[np.arange(len(block)), found[:, order - 1]] = -np.inf
            found[:, order] = here.argmax(axis=1)
    return out


def _lloyd(points: np.ndarray, number: int, iterations: int, seed: int) -> np.ndarray:
    start = np.random.default_rng(seed).choice(len(points), size=number, replace=False)
    centroids = points[start].astype(np.float32)
    for _ in range(iterations):
        member = nearest(points, centroids)[:, 0]
        size = np.bincount(member, minlength=number)
        total = np.stack([np.bincount(member, column, number) for column in points.T], axis=1)
        moved = np.divide(total, size[:, None], out=centroids.astype(np.float64), where=size[:, None] > 0)
        centroids = moved.astype(np.float32)
    return centroids


def _require_distinct(points: np.ndarray, number: int) -> None:
    # Nearly always the first few points already suffice; sorting all of them would take longer than k-means.
    looked_at = 2 * number
    while True:
        distinct = len(np.unique(points[:looked_at], axis=0))
        if distinct >= number:
            return
        if looked_at >= len(points):
            raise DataError(
                "there must be at least as many different windows as tokens (two centroids would coincide); "
                f"ask for fewer tokens or give more images: {number} tokens, {distinct} different windows"
            )
        looked_at *= 4
