"""Renormalization of the Ising couplings in closed form: exact where decimation closes, Migdal-Kadanoff where not."""

import math
from typing import NamedTuple

from scipy.optimize import brentq

from renorm.errors import RecipeError

__all__ = [
    "Star",
    "decimate_chain",
    "migdal_kadanoff",
    "migdal_kadanoff_exponent",
    "migdal_kadanoff_fixed_point",
    "star",
]


class Star(NamedTuple):
    """Couplings between the four neighbours of a spin that was summed over, in nats."""

    constant: float
    pair: float
    quartic: float


def decimate_chain(coupling: float) -> float:
    r"""Coupling of a chain after every other spin is summed over, exactly: $K' = \tfrac12\ln\cosh 2K$.

    Equivalently $\tanh K' = \tanh^2 K$, so decimations compose.

    Example:
        >>> round(math.tanh(decimate_chain(0.7)), 12), round(math.tanh(0.7) ** 2, 12)
        (0.365260410018, 0.365260410018)
    """
    return _log_cosh(2 * coupling) / 2


def star(coupling: float) -> Star:
    r"""What a spin leaves behind between its four neighbours on a square lattice, when it is summed over.

    $$ \ln 2\cosh\big(K\textstyle\sum_i s_i\big) = A + K_2\sum_{i<j}s_i s_j + K_4\,s_1 s_2 s_3 s_4, $$
    $$ K_2 = \tfrac18\ln\cosh 4K, \quad K_4 = K_2 - \tfrac12\ln\cosh 2K, \quad
       A = \ln 2 + \tfrac12\ln\cosh 2K + K_2 $$

    Summing over one colour of the checkerboard, two stars meet on each nearest-neighbour bond of the other colour:
    its coupling is $2K_2$.

    Example:
        >>> round(2 * star(0.4406867935097715).pair, 12)
        0.274653072167
    """
    pair, half = _log_cosh(4 * coupling) / 8, _log_cosh(2 * coupling) / 2
    return Star(math.log(2) + half + pair, pair, pair - half)


def migdal_kadanoff(coupling: float, dim: int = 2) -> float:
    r"""One Migdal-Kadanoff step of length 2: bonds are moved, then a chain is decimated.

    $$ K' = \tfrac12\ln\cosh(2 \cdot 2^{d-1} K) $$

    Raises:
        RecipeError: If ``dim`` < 1.

    Example:
        >>> round(migdal_kadanoff(0.3046889317180031), 12)
        0.304688931718
    """
    if dim < 1:
        raise RecipeError(f"dim must be >= 1 (a lattice has an axis), got {dim}")
    return decimate_chain(2 ** (dim - 1) * coupling)


def migdal_kadanoff_fixed_point(dim: int = 2) -> float:
    r"""The unstable fixed point $K^* = K'(K^*)$ of `migdal_kadanoff`.

    Raises:
        RecipeError: If ``dim`` < 2: a chain flows to $K = 0$ from everywhere.

    Example:
        >>> round(migdal_kadanoff_fixed_point(), 12)
        0.304688931718
    """
    if dim < 2:
        raise RecipeError(f"dim must be >= 2 (a chain has no transition, so no fixed point but 0), got {dim}")
    return float(brentq(lambda k: migdal_kadanoff(k, dim) - k, 4.0**-dim / 2, 1.0, xtol=1e-16, rtol=1e-15))


def migdal_kadanoff_exponent(dim: int = 2) -> float:
    r"""Thermal eigenvalue exponent $y_t = \log_2\,\partial K'/\partial K$ at the fixed point; $\nu = 1/y_t$.

    Raises:
        RecipeError: If ``dim`` < 2.

    Example:
        >>> round(migdal_kadanoff_exponent(), 12)
        0.747235718929
    """
    moved = 2 ** (dim - 1)
    return math.log2(moved * math.tanh(2 * moved * migdal_kadanoff_fixed_point(dim)))


def _log_cosh(x: float) -> float:
    x = abs(x)
    return x + math.log1p(math.exp(-2 * x)) - math.log(2) if x > 0.5 else math.log1p(2 * math.sinh(x / 2) ** 2)
