r"""Daubechies' filters, computed from the equations that define them.

The low-pass filter of order $p$ has $2p$ taps, $p$ vanishing moments of its high-pass partner, and

$$ |H(\omega)|^2 = 2 \cos^{2p}\tfrac{\omega}{2}\, P(\sin^2\tfrac{\omega}{2}), \qquad
   P(y) = \sum_{k=0}^{p-1} \binom{p-1+k}{k} y^k . $$

Each root $y$ of $P$ stands for a pair of zeros $z, 1/z$ with $z + 1/z = 2 - 4y$. Of each pair the one inside the
unit circle is taken (minimum phase), which puts the weight on the first taps.
"""

import math
from functools import lru_cache

import numpy as np
from jaxtyping import Float64

from renorm.errors import RecipeError

__all__ = ["MAX_ORDER", "daubechies", "mirror"]

MAX_ORDER = 10
"""Beyond it, roots in float64 lose the digits that keep the filter orthonormal."""


@lru_cache(maxsize=MAX_ORDER)
def daubechies(order: int) -> Float64[np.ndarray, " taps"]:
    r"""The orthonormal low-pass filter of Daubechies with ``order`` vanishing moments.

    $$ \sum_k h_k = \sqrt 2, \qquad \sum_k h_k h_{k+2n} = \delta_{n0}, \qquad
       \sum_k (-1)^k k^m h_k = 0 \quad (m < p) $$

    Args:
        order: $p$, from 1 (Haar) to 10.

    Returns:
        The $2p$ taps, read-only.

    Raises:
        RecipeError: If the order is not a whole number from 1 to 10.

    Source:
        Daubechies 1988, Comm. Pure Appl. Math. 41, 909.

    Example:
        >>> daubechies(1).round(6)
        array([0.707107, 0.707107])
        >>> daubechies(2).round(6)
        array([ 0.482963,  0.836516,  0.224144, -0.12941 ])
    """
    if not 1 <= order <= MAX_ORDER:
        raise RecipeError(f"the order of a Daubechies filter is 1 (Haar) to {MAX_ORDER}, got {order!r}")
    binomials = [math.comb(order - 1 + k, k) for k in range(order)]
    taps = np.array([1.0])
    if order > 1:
        half = 1 - 2 * np.roots(binomials[::-1])  # (z + 1/z) / 2
        distance = np.sqrt(half**2 - 1 + 0j)
        outside = np.where(np.abs(half + distance) > 1, half + distance, half - distance)
        taps = np.real(np.poly(1 / outside))
    for _ in range(order):
        taps = np.convolve(taps, [1.0, 1.0])
    taps = taps * (math.sqrt(2) / taps.sum())
    taps.setflags(write=False)
    return taps


def mirror(low: Float64[np.ndarray, " taps"]) -> Float64[np.ndarray, " taps"]:
    r"""The high-pass partner of a low-pass filter of m taps, $g_k = (-1)^k h_{m-1-k}$.

    Example:
        >>> mirror(daubechies(1)).round(6)
        array([ 0.707107, -0.707107])
    """
    return low[::-1] * (-1.0) ** np.arange(len(low))
