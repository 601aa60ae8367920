r"""The Ising model on a square lattice, solved: finite tori (Kaufman) and the infinite plane (Onsager).

With $K = \beta J$ and $s = \sinh 2K$, one dispersion relation carries everything:

$$ \cosh g(q) = \cosh 2K \coth 2K - \cos q, \qquad
   g(q) = 2\,\mathrm{arsinh}\sqrt{\frac{(s - 1)^2}{2s} + \sin^2\frac q2}, \qquad
   g(0) = 2\,\mathrm{arsinh}\frac{s - 1}{\sqrt{2s}}. $$

The second form loses no digits near the critical point, and $g(0)$ has a sign: it is negative above $T_c$.
"""

import math

import torch
from jaxtyping import Float64
from scipy.integrate import quad
from scipy.special import ellipkm1
from torch import Tensor

from renorm.errors import RecipeError

__all__ = [
    "CRITICAL_BETA",
    "kaufman_energy",
    "kaufman_heat_capacity",
    "kaufman_log_z",
    "onsager_energy",
    "onsager_log_z",
    "spontaneous_magnetisation",
]

CRITICAL_BETA = math.log(1 + math.sqrt(2)) / 2
r"""$\beta_c = \tfrac12\ln(1 + \sqrt2)$, where $\sinh 2\beta = 1$."""


def kaufman_log_z(shape: tuple[int, int], beta: float) -> float:
    r"""Log of the partition function on an $L_1 \times L_2$ torus, exact, for sides up to thousands.

    $$ Z = \tfrac12 (2\sinh 2K)^{L_1 L_2/2} \Big[\prod_r 2\cosh\tfrac{L_1 g_{2r+1}}2
         + \prod_r 2\sinh\tfrac{L_1 g_{2r+1}}2 + \prod_r 2\cosh\tfrac{L_1 g_{2r}}2
         + \prod_r 2\sinh\tfrac{L_1 g_{2r}}2\Big], $$

    $g_l = g(\pi l/L_2)$, $r = 0, \dots, L_2 - 1$. A side of 2 has two bonds between its sites.

    Args:
        shape: Sides in sites, each at least 2.
        beta: $K$, inverse temperature in units of the exchange, > 0.

    Returns:
        $\ln Z$ in nats.

    Raises:
        RecipeError: If a side is shorter than 2, or beta is not positive.

    Source:
        Kaufman 1949, "Crystal statistics II", Phys. Rev. 76, 1232.

    Example:
        >>> round(kaufman_log_z((4, 4), CRITICAL_BETA), 10)
        15.5219154588
    """
    return float(_log_z(shape, _positive(beta)))


def kaufman_energy(shape: tuple[int, int], beta: float) -> float:
    r"""Mean energy per site on a torus, $U/N = -\tfrac1N\,\partial\ln Z/\partial\beta$, in units of the exchange.

    Raises:
        RecipeError: If a side is shorter than 2, or beta is not positive.

    Example:
        >>> round(kaufman_energy((16, 16), CRITICAL_BETA), 6)
        -1.453065
    """
    k = _positive(beta).requires_grad_()
    (slope,) = torch.autograd.grad(_log_z(shape, k), k)
    return -float(slope) / math.prod(shape)


def kaufman_heat_capacity(shape: tuple[int, int], beta: float) -> float:
    r"""Heat capacity per site on a torus, $C/N = \tfrac{\beta^2}N\,\partial^2\ln Z/\partial\beta^2$, in $k_B$.

    Raises:
        RecipeError: If a side is shorter than 2, or beta is not positive.

    Example:
        >>> round(kaufman_heat_capacity((16, 16), CRITICAL_BETA), 7)
        1.498705
    """
    k = _positive(beta).requires_grad_()
    (slope,) = torch.autograd.grad(_log_z(shape, k), k, create_graph=True)
    (curvature,) = torch.autograd.grad(slope, k)
    return beta**2 * float(curvature) / math.prod(shape)


def onsager_log_z(beta: float) -> float:
    r"""Log of the partition function per site of the infinite plane.

    $$ \lim \frac{\ln Z}{N} = \tfrac12\ln(2\sinh 2K) + \frac1{2\pi}\int_0^\pi g(q)\,dq $$

    Raises:
        RecipeError: If beta is not positive.

    Source:
        Onsager 1944, "Crystal statistics I", Phys. Rev. 65, 117.

    Example:
        >>> round(onsager_log_z(CRITICAL_BETA), 12)  # ln(2)/2 + 2 Catalan/pi
        0.929695398342
    """
    s = math.sinh(2 * float(_positive(beta)))
    gap = (s - 1) ** 2 / (2 * s)
    bend = min(math.pi, 2 * abs(s - 1) / math.sqrt(2 * s))  # below it the gap rounds off the kink at q = 0
    total = 0.0
    for low, high in ((0.0, bend), (bend, math.pi)):
        total += quad(lambda q: 2 * math.asinh(math.sqrt(gap + math.sin(q / 2) ** 2)), low, high, epsabs=1e-13)[0]
    return math.log(2 * s) / 2 + total / (2 * math.pi)


def onsager_energy(beta: float) -> float:
    r"""Mean energy per site of the infinite plane, in units of the exchange.

    $$ \frac UN = -\coth 2K\Big[1 + \frac2\pi\,r\,\mathsf K(1 - r^2)\Big], \qquad r = \frac{s^2 - 1}{s^2 + 1}, $$

    $\mathsf K$ the complete elliptic integral as a function of its parameter; $-\sqrt2$ at the critical point.

    Raises:
        RecipeError: If beta is not positive.

    Example:
        >>> round(onsager_energy(CRITICAL_BETA), 12)
        -1.414213562373
    """
    s = math.sinh(2 * float(_positive(beta)))
    r = (s**2 - 1) / (s**2 + 1)
    singular = r * float(ellipkm1(r**2)) if r**2 > 0 else 0.0
    return -(1 + 2 / math.pi * singular) / math.tanh(2 * beta)


def spontaneous_magnetisation(beta: float) -> float:
    r"""Magnetisation per site of the infinite plane, $m = (1 - \sinh^{-4} 2K)^{1/8}$ below $T_c$, else 0.

    Raises:
        RecipeError: If beta is not positive.

    Example:
        >>> spontaneous_magnetisation(0.4), round(spontaneous_magnetisation(0.5), 6)
        (0.0, 0.911319)
    """
    s = math.sinh(2 * float(_positive(beta)))
    return (1 - s**-4) ** 0.125 if s > 1 else 0.0


def _positive(beta: float) -> Float64[Tensor, ""]:
    if not (beta > 0 and math.isfinite(beta)):
        raise RecipeError(f"beta must be > 0 and finite (at 0 spins are free: log Z = N ln 2), got {beta}")
    return torch.tensor(beta, dtype=torch.float64)


def _log_z(shape: tuple[int, int], k: Float64[Tensor, ""]) -> Float64[Tensor, ""]:
    length, width = shape
    if min(shape) < 2:
        raise RecipeError(f"sides must be >= 2 (a site has no bond with itself), got {shape}")
    s = torch.sinh(2 * k)
    gap = (s - 1) ** 2 / (2 * s)
    q = math.pi * torch.arange(1, 2 * width, dtype=torch.float64) / width
    half = length * torch.asinh((gap + torch.sin(q / 2) ** 2).sqrt())  # L g_l / 2 for l = 1, 2, ...
    zero = length * torch.asinh((s - 1) / (2 * s).sqrt())  # signed
    log_cosh = half + torch.log1p(torch.exp(-2 * half))  # ln(2 cosh)
    log_sinh = half + torch.log(-torch.expm1(-2 * half))
    odd, even = slice(0, None, 2), slice(1, None, 2)
    plus = torch.stack(
        [
            log_cosh[odd].sum(),
            log_sinh[odd].sum(),
            log_cosh[even].sum() + torch.logaddexp(zero, -zero),
            log_sinh[even].sum() + zero,
        ]
    )
    minus = log_sinh[even].sum() - zero  # 2 sinh(zero) is e^zero - e^-zero, and may have either sign
    top = torch.maximum(plus.max(), minus).detach()
    bracket = top + torch.log((plus - top).exp().sum() - (minus - top).exp())
    return length * width / 2 * torch.log(2 * s) + bracket - math.log(2)
