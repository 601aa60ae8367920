r"""Sound as amplitudes in time and frequency, and back: a lapped cosine transform.

Blocks of 2N samples, N apart, under a sine window $w_n = \sin[\pi (n + 1/2) / 2N]$:

$$ X_{tk} = \sqrt{2/N} \sum_{n=0}^{2N-1} w_n\, x_{tN + n} \cos\!\Big[\frac{\pi}{N} \Big(n + \frac{1 + N}{2}\Big)
   \Big(k + \frac12\Big)\Big], \qquad k = 0, \dots, N - 1 . $$

The transform is orthonormal: energy is kept, and sums of the windowed blocks give the samples back.

Source:
    Princen, Johnson, Bradley 1987 (time-domain aliasing cancellation).
"""

from functools import lru_cache

import numpy as np
from jaxtyping import Float64

from renorm.errors import RecipeError

__all__ = ["lapped", "unlapped"]


def lapped(samples: Float64[np.ndarray, " samples"], size: int) -> Float64[np.ndarray, "blocks size"]:
    """Amplitudes of a sound, which is silent before and after.

    Args:
        samples: At least one.
        size: N.

    Raises:
        RecipeError: If there is no sample, or the size is below 1.

    Example:
        >>> x = np.sin(np.arange(100.0))
        >>> amplitudes = lapped(x, 16)
        >>> amplitudes.shape, bool(abs((amplitudes**2).sum() - (x**2).sum()) < 1e-9)
        ((8, 16), True)
    """
    if size < 1 or not len(samples):
        raise RecipeError(f"a transform needs samples, and size >= 1, got {len(samples)} and {size}")
    blocks = -(-len(samples) // size) + 1
    padded = np.zeros((blocks + 1) * size)
    padded[size : size + len(samples)] = samples
    whole = padded.reshape(-1, size)
    return np.concatenate([whole[:-1], whole[1:]], axis=1) @ _basis(size)


def unlapped(amplitudes: Float64[np.ndarray, "blocks size"], samples: int) -> Float64[np.ndarray, " samples"]:
    """The sound of amplitudes, its first samples.

    Example:
        >>> x = np.sin(np.arange(100.0))
        >>> bool(abs(unlapped(lapped(x, 16), 100) - x).max() < 1e-12)
        True
    """
    blocks, size = amplitudes.shape
    parts = amplitudes @ _basis(size).T
    whole = np.zeros((blocks + 1, size))
    whole[:-1] += parts[:, :size]
    whole[1:] += parts[:, size:]
    return whole.reshape(-1)[size : size + samples]


@lru_cache(maxsize=4)
def _basis(size: int) -> Float64[np.ndarray, "twice size"]:
    n, k = np.arange(2 * size)[:, None], np.arange(size)
    window = np.sin(np.pi * (n + 0.5) / (2 * size))
    return np.sqrt(2 / size) * window * np.cos(np.pi / size * (n + (1 + size) / 2) * (k + 0.5))
