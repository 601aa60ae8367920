"""The peer of the quick token hierarchy: k-means and naive Bayes of scikit-learn on the same windows."""

import time
from typing import NamedTuple

import numpy as np

from renorm.tokens.codebooks.straighten import straighten

__all__ = ["PeerRun", "run_peers"]

TOKENS, WINDOW, STRIDE, COMPONENTS, SAMPLE, CHUNK = 1024, 8, 2, 32, 200_000, 500
FLOOR = 0.02


class PeerRun(NamedTuple):
    """Test accuracy, and seconds from images of bytes to predicted classes."""

    accuracy: float
    seconds: float


def run_peers(
    x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray, *, seed: int
) -> tuple[PeerRun, PeerRun]:
    """Fit and predict with scikit-learn, as one would who has our windows but not our counts.

    Digits are sheared upright, cut into the same windows, standardised with the same floor and projected on as many
    principal components; MiniBatchKMeans learns as many centroids from as many windows. Then

    * GaussianNB reads how often each token comes in each quarter of the image (Coates, Ng, Lee 2011, pooled like that);
    * CategoricalNB reads the token at every position.

    Args:
        x, y: Images (number, 1, height, width) of bytes, and labels.
        x_test, y_test: Those that are predicted.
        seed: Of the draw of windows and of k-means.

    Returns:
        GaussianNB's and CategoricalNB's; both seconds include all that they share.
    """
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.decomposition import PCA
    from sklearn.naive_bayes import CategoricalNB, GaussianNB

    begun = time.perf_counter()
    train, test = (straighten(images.astype(np.float32) / 255) for images in (x, x_test))
    rng = np.random.default_rng(seed)
    drawn = _windows(train[rng.choice(len(train), 2 * SAMPLE // _positions(train), replace=False)])
    drawn = drawn[rng.choice(len(drawn), SAMPLE, replace=False)]
    axes = PCA(COMPONENTS, random_state=seed).fit(drawn)
    means = MiniBatchKMeans(TOKENS, random_state=seed, n_init=1).fit(axes.transform(drawn))

    def tokens(images: np.ndarray) -> np.ndarray:
        parts = [images[i : i + CHUNK] for i in range(0, len(images), CHUNK)]
        return np.concatenate([means.predict(axes.transform(_windows(p))).reshape(len(p), -1) for p in parts])

    z, z_test = tokens(train), tokens(test)
    shared = time.perf_counter() - begun

    begun = time.perf_counter()
    gauss = GaussianNB(var_smoothing=1e-3)
    for start in range(0, len(z), 5000):  # all at once would take gigabytes
        gauss.partial_fit(_pooled(z[start : start + 5000]), y[start : start + 5000], classes=np.unique(y))
    right = [gauss.score(_pooled(z_test[i : i + 2500]), y_test[i : i + 2500]) for i in range(0, len(z_test), 2500)]
    pooled = PeerRun(float(np.mean(right)), shared + time.perf_counter() - begun)

    begun = time.perf_counter()
    placed = CategoricalNB(alpha=0.1, min_categories=TOKENS).fit(z, y).score(z_test, y_test)
    return pooled, PeerRun(float(placed), shared + time.perf_counter() - begun)


def _positions(images: np.ndarray) -> int:
    return int(np.prod([(sites - WINDOW) // STRIDE + 1 for sites in images.shape[2:]]))


def _windows(images: np.ndarray) -> np.ndarray:
    """Windows as rows, standardised."""
    view = np.lib.stride_tricks.sliding_window_view(images[:, 0], (WINDOW, WINDOW), axis=(1, 2))[:, ::STRIDE, ::STRIDE]
    rows = view.reshape(-1, WINDOW * WINDOW)
    return np.asarray((rows - rows.mean(1, keepdims=True)) / np.sqrt(rows.var(1, keepdims=True) + FLOOR))


def _pooled(z: np.ndarray) -> np.ndarray:
    """How often each token comes in each quarter of the image, (number, 4 tokens)."""
    edge = int(np.sqrt(z.shape[1]))
    half = (np.arange(edge) * 2) // edge
    quarter = (2 * half[:, None] + half).reshape(-1)
    cell = quarter * TOKENS + z
    return np.stack([np.bincount(row, minlength=4 * TOKENS) for row in cell]).astype(np.float32)
