r"""Orthonormal wavelets: one level of the periodic, separable transform in one, two or three dimensions.

Along each axis of $L$ sites, with Daubechies' low-pass filter $h$ and its mirror $g$,

$$ a_i = \sum_k h_k\, x_{(2i + k) \bmod L}, \qquad d_i = \sum_k g_k\, x_{(2i + k) \bmod L} . $$

The transform is orthonormal for every even $L$, also where the filter is longer than the axis and wraps around it:
wrapping folds the conditions $\sum_k h_k h_{k+2n} = \delta_{n0}$ onto each other, which leaves $\delta$.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from renorm.coarse.base import Split, check_field, check_parts, shrunk
from renorm.coarse.filters import daubechies, mirror
from renorm.errors import RecipeError
from renorm.lattice import Lattice

__all__ = ["Wavelet"]


@dataclass(frozen=True)
class Wavelet:
    r"""One level of the orthonormal Daubechies transform; $\ln|\det| = 0$.

    The coarse field is low-pass on every axis. A constant field $c$ becomes the constant $2^{d/2} c$: amplitudes grow
    by 2 in two dimensions, since the transform keeps squared norms.

    The detail has $2^d - 1$ bands, band after band, each with the channels of the field: band $s$ of channel $c$ is
    ``detail[:, (s - 1) * channels + c]``. Written in binary, $s$ says where the band is high-pass, the last axis being
    the last digit. In two dimensions 1 is high-pass along the last axis ("horizontal"), 2 along the first
    ("vertical"), 3 along both ("diagonal"). For Haar,

    $$ a = \tfrac12(x_{00} + x_{01} + x_{10} + x_{11}), \quad
       y_1 = \tfrac12(x_{00} - x_{01} + x_{10} - x_{11}), \quad
       y_2 = \tfrac12(x_{00} + x_{01} - x_{10} - x_{11}), \quad
       y_3 = \tfrac12(x_{00} - x_{01} - x_{10} + x_{11}). $$

    Phase: the taps of coarse site $i$ begin at fine site $2i$ and reach to the right, so the coarse field is read a
    little to the right of it, by ``phase`` fine sites on every axis.

    Args:
        order: Vanishing moments, 1 (Haar) to 10; the filter has twice as many taps.
        dim: Axes of the lattice, 1 to 3.

    Raises:
        RecipeError: If order or dim are out of range.

    Example:
        >>> x = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
        >>> coarse, detail, log_det = Wavelet().split(x)
        >>> coarse.item(), detail.flatten().tolist(), log_det.item()
        (5.0, [-1.0, -2.0, 0.0], 0.0)
    """

    order: int = 1
    dim: int = 2

    def __post_init__(self) -> None:
        daubechies(self.order)  # refuses an order that it cannot make
        if not 1 <= self.dim <= 3:
            raise RecipeError(f"a lattice has one to three axes, so dim is 1, 2 or 3, got {self.dim!r}")

    @property
    def phase(self) -> float:
        r"""Where coarse site 0 reads the field, in fine sites: $\sum_k k\,h_k / \sum_k h_k$ (Haar: ½)."""
        low = daubechies(self.order)
        return float(sum(k * tap for k, tap in enumerate(low)) / low.sum())

    def coarse_lattice(self, lattice: Lattice) -> Lattice:
        """Half the sites on every axis, twice as far apart.

        Raises:
            RecipeError: If an axis is odd, the lattice has not ``dim`` axes, or it is open and the order is not 1.
        """
        if lattice.dim != self.dim:
            raise RecipeError(f"this wavelet is made for {self.dim} axes (set dim), got a lattice of {lattice.shape}")
        if lattice.boundary == "open" and self.order > 1:
            raise RecipeError(
                f"a filter of {2 * self.order} taps wraps around the lattice, which must be periodic "
                f"(only Haar, order 1, stays within its block), got boundary {lattice.boundary!r}"
            )
        return shrunk(lattice, 2)

    def detail_shape(self, lattice: Lattice) -> tuple[int, ...]:
        r"""(bands times channels, \*coarse sites)."""
        coarse = self.coarse_lattice(lattice)
        return self._detail_shape(coarse.channels, coarse.shape)

    def split(self, x: Float[Tensor, "batch channel *sites"]) -> Split:
        """Low-pass field and bands; the squared norms add up to that of ``x``.

        Raises:
            DataError: If an axis of ``x`` is odd, or there are not ``dim`` of them.
        """
        check_field(x, self.dim, 2)
        bands = [x]
        for axis in range(-self.dim, 0):
            bands = [half for band in bands for half in self._analyse(band, axis)]
        detail = torch.cat(bands[1:], dim=1)
        return Split(self._scaled(bands[0]), self._scaled(detail), x.new_zeros(len(x)))

    def merge(
        self, coarse: Float[Tensor, "batch channel *sites"], detail: Float[Tensor, "batch details *sites"]
    ) -> Float[Tensor, "batch channel *fine"]:
        """The field of these bands.

        Raises:
            DataError: If coarse field and detail do not belong together.
        """
        channels, sites = coarse.shape[1], tuple(coarse.shape[2:])
        check_parts(coarse, detail, self.dim, self._detail_shape(channels, sites))
        bands = [coarse, *detail.split(channels, dim=1)]
        for axis in range(-1, -self.dim - 1, -1):
            pairs = zip(bands[::2], bands[1::2], strict=True)
            bands = [self._synthesise(low, high, axis) for low, high in pairs]
        return self._scaled(bands[0])

    def _detail_shape(self, channels: int, sites: tuple[int, ...]) -> tuple[int, ...]:
        return ((2**self.dim - 1) * channels, *sites)

    def _scaled(self, x: Tensor) -> Tensor:
        """Haar's sums are made without their factors, which come here, all at once."""
        return x * 2 ** (-self.dim / 2) if self.order == 1 else x

    def _analyse(self, x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        even, odd = x.unflatten(axis, (-1, 2)).unbind(axis)
        if self.order == 1:
            return even + odd, even - odd
        size = even.shape[axis]
        wrapped = [_wrapped(phase, axis, 0, size + self.order - 1) for phase in (even, odd)]
        taps = daubechies(self.order)
        low, high = (_sum_of_shifts(wrapped, _phases(filter), axis, size) for filter in (taps, mirror(taps)))
        return low, high

    def _synthesise(self, low: Tensor, high: Tensor, axis: int) -> Tensor:
        if self.order == 1:
            return _interleaved(low + high, low - high, axis)
        size = low.shape[axis]
        wrapped = [_wrapped(band, axis, 1 - self.order, size) for band in (low, high)]
        taps = daubechies(self.order)
        of_low, of_high = _phases(taps), _phases(mirror(taps))
        even, odd = (
            _sum_of_shifts(wrapped, [of_low[phase][::-1], of_high[phase][::-1]], axis, size) for phase in (0, 1)
        )
        return _interleaved(even, odd, axis)


def _phases(taps: NDArray[np.float64]) -> list[list[float]]:
    """Taps that meet even sites, and taps that meet odd sites."""
    return [[float(tap) for tap in taps[phase::2]] for phase in (0, 1)]


def _wrapped(x: Tensor, axis: int, start: int, stop: int) -> Tensor:
    """Entries start ... stop - 1 along a periodic axis."""
    index = torch.arange(start, stop, device=x.device) % x.shape[axis]
    return x.index_select(axis, index)


def _sum_of_shifts(parts: list[Tensor], weights: list[list[float]], axis: int, size: int) -> Tensor:
    """Sum over parts and shifts m of weight m times the part from entry m on."""
    total = None
    for part, row in zip(parts, weights, strict=True):
        for m, weight in enumerate(row):
            window = part.narrow(axis, m, size)
            total = window * weight if total is None else total.add(window, alpha=weight)
    assert total is not None
    return total


def _interleaved(even: Tensor, odd: Tensor, axis: int) -> Tensor:
    return torch.stack((even, odd), dim=axis).flatten(axis - 1, axis)
