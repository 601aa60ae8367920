"""A lognormal density field, as of galaxies: not Gaussian at all, and yet exact to every order."""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from renorm.errors import DataError, RecipeError
from renorm.lattice import Lattice
from renorm.laws.stationary import StationaryGaussian

__all__ = ["Lognormal"]


@dataclass(frozen=True)
class Lognormal:
    r"""The contrast of a density whose logarithm is a Gaussian field, on a torus of one to three axes.

    $$ 1 + \delta = e^{G - \sigma^2/2}, \qquad
       P_G(k) = \frac{A\,k^{-n}}{1 + (k/k_0)^2}, \qquad \sigma^2 = \xi_G(0) = \frac1N\sum_k P_G(k) $$

    All correlations follow from those of $G$: $\xi(r) = e^{\xi_G(r)} - 1$, and
    $\langle\prod_i(1 + \delta_i)\rangle = \prod_{i<j}(1 + \xi_{ij})$.

    Args:
        shape: Sites along each axis.
        amplitude: $A > 0$, in nats squared.
        index: $n$; 1 to 2 looks like large-scale structure.
        knee: $k_0 > 0$ in rad/site, where the spectrum bends down.
        zero_power: $P_G(0)$, the variance of the mode $k = 0$, where the formula has no value. By default one
            hundredth of the power at the longest wave: small, so that a map's mean stays near its place, and
            not zero, so that a density exists.

    Raises:
        RecipeError: If ``amplitude`` or ``knee`` is not positive, or ``zero_power`` is negative.

    Source:
        Coles & Jones 1991, "A lognormal model for the cosmological mass distribution".

    Example:
        >>> law = Lognormal((16, 16), amplitude=0.5, index=1.5, knee=1.0)
        >>> delta = law.sample(2, generator=torch.Generator().manual_seed(0))
        >>> delta.shape, bool((delta > -1).all()), law.log_prob(delta).shape
        (torch.Size([2, 1, 16, 16]), True, torch.Size([2]))
    """

    shape: tuple[int, ...]
    amplitude: float
    index: float = 1.5
    knee: float = 1.0
    zero_power: float | None = None

    def __post_init__(self) -> None:
        if not self.amplitude > 0:
            raise RecipeError(f"amplitude must be > 0 (else there is no field), got {self.amplitude}")
        if not self.knee > 0:
            raise RecipeError(f"knee must be > 0 (it is a wavenumber), got {self.knee}")
        if self.zero_power is not None and not self.zero_power >= 0:
            raise RecipeError(f"zero_power must be >= 0 (it is a variance), got {self.zero_power}")

    @cached_property
    def gaussian(self) -> StationaryGaussian:
        """The law of $G$."""
        lattice = Lattice(self.shape, "periodic")
        k = lattice.k_sq().sqrt()
        k_min = 2 * math.pi / max(self.shape)
        power = self._power(k.clamp_min(k_min / 2))  # the clamp touches the zero mode only
        zero = (
            0.01 * float(self._power(torch.tensor(k_min, dtype=torch.float64)))
            if self.zero_power is None
            else self.zero_power
        )
        power[(0,) * lattice.dim] = zero
        return StationaryGaussian(lattice, power)

    @property
    def log_variance(self) -> float:
        r"""$\sigma^2$, the variance of $G$ at a site."""
        return float(self.gaussian.power.mean())

    @property
    def variance(self) -> float:
        r"""$\langle\delta^2\rangle = e^{\sigma^2} - 1$; the mean of $\delta$ is zero."""
        return math.expm1(self.log_variance)

    @property
    def skewness(self) -> float:
        r"""$\langle\delta^3\rangle/\langle\delta^2\rangle^{3/2} = (e^{\sigma^2} + 2)\sqrt{e^{\sigma^2} - 1}$."""
        return (self.variance + 3) * math.sqrt(self.variance)

    @property
    def correlation(self) -> Float64[Tensor, "*sites"]:
        r"""$\xi(r) = e^{\xi_G(r)} - 1$ at every separation $r$."""
        return self.gaussian.correlation.expm1()

    @property
    def power(self) -> Float64[Tensor, "*sites"]:
        r"""Exact power of every mode of $\delta$, $P(k) = \sum_r\xi(r)\cos k\cdot r$, in the order of the modes."""
        rising = [torch.ceil(torch.arange(side) / 2).long() for side in self.shape]
        power = self._fourier_power()
        for axis, order in enumerate(rising):
            power = power.index_select(axis, order)
        return power

    def three_point(self, first: tuple[int, ...], second: tuple[int, ...]) -> float:
        r"""Exact $\zeta = \langle\delta_x\,\delta_{x+r_1}\,\delta_{x+r_2}\rangle$.

        $$ \zeta = \xi_{01}\xi_{12}\xi_{02} + \xi_{01}\xi_{12} + \xi_{12}\xi_{02} + \xi_{01}\xi_{02} $$

        Args:
            first: $r_1$ in sites, around the torus.
            second: $r_2$ in sites.

        Raises:
            RecipeError: If a separation has not one number an axis.

        Example:
            >>> law = Lognormal((8, 8), 0.3)
            >>> round(law.three_point((0, 0), (0, 0)) / law.variance**1.5 / law.skewness, 12)
            1.0
        """
        a, b = (self._xi(self._vector(r)) for r in (first, second))
        c = self._xi(tuple(i - j for i, j in zip(second, first, strict=True)))
        return a * b * c + a * b + b * c + c * a

    def bispectrum(self, first: tuple[int, ...], second: tuple[int, ...]) -> float:
        r"""Exact bispectrum of the triangle $k_1 + k_2 + k_3 = 0$.

        $$ B = \sum_{r_1, r_2}\zeta(r_1, r_2)\,e^{-i(k_1 r_1 + k_2 r_2)}
             = P_1 P_2 + P_2 P_3 + P_3 P_1 + \frac1N\sum_q P(q)\,P(q - k_1)\,P(q + k_2) $$

        With $\delta_k = N^{-1/2}\sum_x\delta_x e^{-ikx}$ it is
        $\sqrt N\,\langle\delta_{k_1}\delta_{k_2}\delta_{k_3}\rangle$.

        Args:
            first: $k_1 L/2\pi$, a whole number for each axis.
            second: $k_2 L/2\pi$.

        Returns:
            $B$, without unit.

        Raises:
            RecipeError: If a wavenumber has not one number an axis.
        """
        n1, n2 = self._vector(first), self._vector(second)
        power, axes = self._fourier_power(), tuple(range(len(self.shape)))
        p1, p2 = float(power[self._around(n1)]), float(power[self._around(n2)])
        p3 = float(power[self._around(tuple(i + j for i, j in zip(n1, n2, strict=True)))])
        loop = power * power.roll(n1, axes) * power.roll(tuple(-n for n in n2), axes)
        return p1 * p2 + p2 * p3 + p3 * p1 + float(loop.mean())

    def log_prob(self, delta: Float[Tensor, "batch 1 *sites"]) -> Float[Tensor, " batch"]:
        r"""Exact log-density, in nats.

        $$ \ln p(\delta) = \ln N\big(\ln(1 + \delta) + \sigma^2/2;\; 0, \xi_G\big) - \sum_x\ln(1 + \delta_x) $$

        Raises:
            DataError: If a contrast is not above -1: a density is positive.
            RecipeError: If ``zero_power`` is 0: the law has no density then.
        """
        if not bool((delta > -1).all()):
            raise DataError(f"contrasts must be > -1 (a density is positive), got {float(delta.min())}")
        log_density = delta.log1p()
        return self.gaussian.log_prob(log_density + self.log_variance / 2) - log_density.flatten(1).sum(1)

    def sample(
        self, num: int, *, generator: torch.Generator, dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "num 1 *sites"]:
        """Independent maps of the contrast, exact."""
        return (self.gaussian.sample(num, generator=generator, dtype=dtype) - self.log_variance / 2).expm1()

    def _power(self, k: Tensor) -> Tensor:
        return self.amplitude * k**-self.index / (1 + (k / self.knee) ** 2)

    def _fourier_power(self) -> Float64[Tensor, "*sites"]:
        return torch.fft.fftn(self.correlation).real

    def _xi(self, separation: tuple[int, ...]) -> float:
        return float(self.correlation[self._around(separation)])

    def _around(self, vector: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(n % side for n, side in zip(vector, self.shape, strict=True))

    def _vector(self, vector: tuple[int, ...]) -> tuple[int, ...]:
        if len(vector) != len(self.shape):
            raise RecipeError(f"one whole number for each of {len(self.shape)} axes is needed, got {vector}")
        return vector
