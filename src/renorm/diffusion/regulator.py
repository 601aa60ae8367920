"""Regulators: how sharply the modes beyond the cutoff are integrated out.

A new regulator is one new class with the four methods of ``Regulator`` and one line in ``REGULATORS``.
"""

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["REGULATORS", "Exponential", "Litim", "LogSquared", "Rational", "Regulator", "Sharp", "Sharpened"]


@runtime_checkable
class Regulator(Protocol):
    r"""Shape function $r(x)$ of $x = q^2/\Lambda^2$, falling from $\infty$ (far below the cutoff) to 0 (far above).

    A mode keeps the share $\alpha^2 = r / (1 + r)$ of its signal and gets the share $1 - \alpha^2 = 1 / (1 + r)$ of
    the prior's noise. Both shares are given apart, so that neither loses its digits to cancellation.
    """

    def r(self, x: Float[Tensor, "*modes"]) -> Float[Tensor, "*modes"]:
        """The shape function itself."""
        ...

    def inverse(self, r: float) -> float:
        """The x at which the shape function has the value ``r`` > 0."""
        ...

    def signal_share(self, x: Float[Tensor, "*modes"]) -> Float[Tensor, "*modes"]:
        r"""$\alpha^2 = r / (1 + r)$."""
        ...

    def noise_share(self, x: Float[Tensor, "*modes"]) -> Float[Tensor, "*modes"]:
        r"""$1 - \alpha^2 = 1 / (1 + r)$."""
        ...


class Rational:
    r"""$r(x) = 1/x$, so $\alpha^2 = 1/(1+x)$: the paper's images.

    Source:
        Masuki & Ashida 2025, arXiv:2501.09064.

    Example:
        >>> Rational().signal_share(torch.tensor([0.0, 1.0, 3.0, math.inf]))
        tensor([1.0000, 0.5000, 0.2500, 0.0000])
    """

    def r(self, x: Float[Tensor, "*modes"]) -> Float[Tensor, "*modes"]:
        return 1 / x

    def inverse(self, r: float) -> float:
        return 1 / r

    def signal_share(self, x: Float[Tensor, "*modes"]) -> Float[Tensor, "*modes"]:
        return 1 / (1 + x)

    def noise_share(self, x: Float[Tensor, "*modes"]) -> Float[Tensor, "*modes"]:
        return 1 / (1 + 1 / x)


class LogSquared:
    r"""$\alpha^2 = e^{-u^2}$ with $u = \ln(1+x)$: the paper's proteins.

    Source:
        Masuki & Ashida 2025, arXiv:2501.09064.

    Example:
        >>> LogSquared().inverse(9999.0)
        0.0100504196...
    """

    def r(self, x: Float[Tensor, "*modes"]) -> Float[Tensor, "*modes"]:
        return 1 / torch.expm1(torch.log1p(x) ** 2)

    def inverse(self, r: float) -> float:
        return math.expm1(math.sqrt(math.log1p(1 / r)))

    def signal_share(self, x: Float[Tensor, "*modes"]) -> Float[Tensor, "*modes"]:
        return torch.exp(-(torch.log1p(x) ** 2))

    def noise_share(self, x: Float[Tensor, "*modes"]) -> Float[Tensor, "*modes"]:
        return -torch.expm1(-(torch.log1p(x) ** 2))


class Exponential:
    r"""$r(x) = 1/(e^x - 1)$, so $\alpha^2 = e^{-x}$: the heat kernel, Wetterich's regulator.

    Source:
        Wetterich 1993, Phys. Lett. B 301, 90.

    Example:
        >>> Exponential().signal_share(torch.tensor([0.0, 1.0]))
        tensor([1.0000, 0.3679])
    """

    def r(self, x: Float[Tensor, "*modes"]) -> Float[Tensor, "*modes"]:
        return 1 / torch.expm1(x)

    def inverse(self, r: float) -> float:
        return math.log1p(1 / r)

    def signal_share(self, x: Float[Tensor, "*modes"]) -> Float[Tensor, "*modes"]:
        return torch.exp(-x)

    def noise_share(self, x: Float[Tensor, "*modes"]) -> Float[Tensor, "*modes"]:
        return -torch.expm1(-x)


class Litim:
    r"""$r(x) = (1/x - 1)\,\theta(1 - x)$, so $\alpha^2 = \max(1 - x, 0)$: optimised, with compact support.

    A mode dies with infinite slope of alpha, where samplers lose their order: lay the steps by equal error.

    Source:
        Litim 2001, Phys. Rev. D 64, 105007.

    Example:
        >>> Litim().signal_share(torch.tensor([0.0, 0.25, 2.0]))
        tensor([1.0000, 0.7500, 0.0000])
    """

    def r(self, x: Float[Tensor, "*modes"]) -> Float[Tensor, "*modes"]:
        return (1 / x - 1).clamp(min=0)

    def inverse(self, r: float) -> float:
        return 1 / (1 + r)

    def signal_share(self, x: Float[Tensor, "*modes"]) -> Float[Tensor, "*modes"]:
        return (1 - x).clamp(min=0)

    def noise_share(self, x: Float[Tensor, "*modes"]) -> Float[Tensor, "*modes"]:
        return x.clamp(max=1)


class Sharp:
    r"""$r(x) = \infty$ below the cutoff, 0 beyond it: the theorist's momentum cutoff.

    A mode is either untouched or pure noise, so the reverse of one step is the whole conditional law of a shell. Use it
    to coarse-grain; a diffusion needs a regulator that lets a mode fade.

    Example:
        >>> Sharp().signal_share(torch.tensor([0.5, 1.0, 2.0]))
        tensor([1., 0., 0.])
    """

    def r(self, x: Float[Tensor, "*modes"]) -> Float[Tensor, "*modes"]:
        return torch.where(x < 1, math.inf, 0.0).to(x.dtype)

    def inverse(self, r: float) -> float:
        return 1.0

    def signal_share(self, x: Float[Tensor, "*modes"]) -> Float[Tensor, "*modes"]:
        return (x < 1).to(x.dtype)

    def noise_share(self, x: Float[Tensor, "*modes"]) -> Float[Tensor, "*modes"]:
        return (x >= 1).to(x.dtype)


@dataclass(frozen=True)
class Sharpened:
    r"""Another regulator of a power of x, $r(x^s)$: s > 1 parts the scales further, s < 1 lets them fade together.

    Args:
        base: The regulator.
        sharpness: s > 0; 0.25 to 4 keep the digits of float32.

    Example:
        >>> soft = Sharpened(Rational(), 0.5)
        >>> soft.r(torch.tensor(4.0)), soft.inverse(0.5)
        (tensor(0.5000), 4.0)
    """

    base: Regulator
    sharpness: float

    def r(self, x: Float[Tensor, "*modes"]) -> Float[Tensor, "*modes"]:
        return self.base.r(x**self.sharpness)

    def inverse(self, r: float) -> float:
        return self.base.inverse(r) ** (1 / self.sharpness)

    def signal_share(self, x: Float[Tensor, "*modes"]) -> Float[Tensor, "*modes"]:
        return self.base.signal_share(x**self.sharpness)

    def noise_share(self, x: Float[Tensor, "*modes"]) -> Float[Tensor, "*modes"]:
        return self.base.noise_share(x**self.sharpness)


REGULATORS: dict[str, type[Regulator]] = {
    "rational": Rational,
    "log-squared": LogSquared,
    "exponential": Exponential,
    "litim": Litim,
    "sharp": Sharp,
}
