r"""How much another look would teach of a law that is known by counts.

Source:
    Expected information gain of counts as a part of the expected free energy: Friston et al. 2017, Neural Computation
    29, 1.
"""

import numpy as np
from jaxtyping import Float, Float64
from scipy.special import digamma

from renorm.errors import DataError

__all__ = ["novelty"]


def novelty(counts: Float[np.ndarray, "*lead outcomes"]) -> Float64[np.ndarray, "*lead"]:
    r"""Expected information, in nats, that one more outcome gives of a law with Dirichlet counts $a$.

    $$ \sum_o \frac{a_o}{a_0} \mathrm{KL}\big[\mathrm{Dir}(a + e_o) \,\|\, \mathrm{Dir}(a)\big] =
       \sum_o \frac{a_o}{a_0} \Big[ \ln\frac{a_0}{a_o} + \psi(a_o + 1) - \psi(a_0 + 1) \Big],
       \qquad a_0 = \sum_o a_o . $$

    Raises:
        DataError: If a count is not above 0.

    Example: a coin never thrown, thrown ten times, and a thousand times.
        >>> novelty(np.array([[1.0, 1.0], [6.0, 6.0], [501.0, 501.0]])).round(4).tolist()
        [0.1931, 0.0399, 0.0005]
    """
    if not (counts > 0).all():
        raise DataError(f"Dirichlet counts must be > 0, got {counts.min()}")
    total = counts.sum(axis=-1, keepdims=True)
    gain = np.log(total / counts) + digamma(counts + 1) - digamma(total + 1)
    return np.asarray((counts / total * gain).sum(axis=-1), np.float64)
