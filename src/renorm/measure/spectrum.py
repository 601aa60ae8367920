r"""The power spectrum of fields: how much variance stands at each wavenumber.

In the orthonormal basis of the lattice's boundary a field has one mode $\phi_k$ for each site, and its power
is $P_k = \langle \phi_k^2 \rangle$. White noise of unit variance has $P_k = 1$ on every lattice.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from renorm.bases import basis_for
from renorm.errors import DataError
from renorm.lattice import Lattice

__all__ = [
    "About",
    "ModeMoments",
    "Spectrum",
    "SpectrumComparison",
    "compare_spectra",
    "mode_moments",
    "mode_power",
    "power_spectrum",
]

About = Literal["zero", "mean"]


@dataclass(frozen=True)
class Spectrum:
    """A radial power spectrum; every tensor has one entry for each bin that holds a mode.

    Args:
        k: Mean wavenumber of the bin's modes, in rad/site.
        power: Mean power of the bin's modes, in field units squared.
        error: One standard error of ``power`` over fields.
        count: Modes in the bin (channels not counted).
    """

    k: Float64[Tensor, " bins"]
    power: Float64[Tensor, " bins"]
    error: Float64[Tensor, " bins"]
    count: Int64[Tensor, " bins"]


@dataclass(frozen=True)
class SpectrumComparison:
    r"""Two spectra bin by bin: ``log_ratio`` is $\ln(P_a / P_b)$, ``z`` the difference in standard errors."""

    log_ratio: Float64[Tensor, " bins"]
    z: Float64[Tensor, " bins"]
    max_log_ratio: float
    max_z: float


@dataclass(frozen=True)
class ModeMoments:
    """First two moments of every mode over ``num`` fields; ``second`` is about zero."""

    num: int
    mean: Float64[Tensor, "channel *sites"]
    second: Float64[Tensor, "channel *sites"]


def power_spectrum(
    x: Float[Tensor, "batch channel *sites"],
    lattice: Lattice,
    *,
    bins: Float[Tensor, " edges"] | None = None,
    about: About = "zero",
) -> Spectrum:
    r"""Mean power of the modes in each bin of $|k|$, with error bars over fields.

    $$ P_b = \frac1n \sum_{i=1}^{n} p_{ib}, \qquad
       p_{ib} = \frac{1}{|b|} \sum_{k \in b} (\phi^{(i)}_k - m_k)^2, \qquad
       \mathrm{error}_b^2 = \frac{1}{n (n-1)} \sum_i (p_{ib} - P_b)^2 $$

    with $p$ averaged over channels. About zero, $m_k = 0$; about the mean, $m_k$ is the mean over the fields
    and $P_b$ carries the unbiasing factor $n / (n - 1)$.

    Args:
        bins: Rising edges in rad/site, bins closed on the left; modes outside them are left out. By default
            each bin is one fundamental $k_1$ wide and centred on a multiple of it, so the zero mode stands
            alone: $k_1 = \pi/L$ (open) or $2\pi/L$ (periodic), $L$ the longest axis. A bin without a mode has no
            entry in what is given back.
        about: The point about which the second moment is taken.

    Raises:
        DataError: If there are fewer than two fields, they do not live on ``lattice``, edges do not rise, or no mode
            lies between them.

    Invariant:
        Parseval: ``(count * power).sum()`` is the mean squared norm of a channel, with the default bins.

    Example:
        >>> x = torch.tensor([[[1.0, 1.0, 1.0, 1.0]], [[3.0, 3.0, 3.0, 3.0]]])
        >>> spectrum = power_spectrum(x, Lattice((4,)))
        >>> spectrum.power.round(decimals=6) + 0
        tensor([20.,  0.,  0.,  0.], dtype=torch.float64)
        >>> power_spectrum(x, Lattice((4,)), about="mean").power[0].round(decimals=6)
        tensor(8., dtype=torch.float64)
    """
    num = x.shape[0]
    if num < 2:
        raise DataError(f"a spectrum needs at least 2 fields (its error bar is taken over fields), got {num}")
    modes = _modes(x, lattice)
    unbias = 1.0
    if about == "mean":
        modes, unbias = modes - modes.mean(0), num / (num - 1)
    member, count, k = _bins(lattice, bins)
    power = unbias * (modes**2).mean(1).flatten(1) @ member.T / count  # (batch, bins)
    return Spectrum(k, power.mean(0), power.std(0) / math.sqrt(num), count)


def compare_spectra(a: Spectrum, b: Spectrum) -> SpectrumComparison:
    r"""Log ratio $\ln(P_a/P_b)$ and $z = (P_a - P_b) / \sqrt{e_a^2 + e_b^2}$ of two spectra in the same bins.

    Equal powers give zero for both, also where power and error vanish. The maxima are of absolute values.

    Raises:
        DataError: If the spectra have different bins.

    Example:
        >>> k, one, count = torch.zeros(1).double(), torch.ones(1).double(), torch.ones(1).long()
        >>> a, b = Spectrum(k, 8 * one, 3 * one, count), Spectrum(k, 3 * one, 4 * one, count)
        >>> result = compare_spectra(a, b)
        >>> result.max_z, round(result.max_log_ratio, 4)
        (1.0, 0.9808)
    """
    if a.k.shape != b.k.shape or not torch.equal(a.count, b.count) or not torch.allclose(a.k, b.k):
        raise DataError(f"spectra to compare need the same bins, got {len(a.k)} and {len(b.k)} bins, or other k")
    same = a.power == b.power
    log_ratio = torch.where(same, 0.0, (a.power / b.power).log())
    z = torch.where(same, 0.0, (a.power - b.power) / (a.error**2 + b.error**2).sqrt())
    return SpectrumComparison(log_ratio, z, float(log_ratio.abs().max()), float(z.abs().max()))


def mode_moments(x_batches: Iterable[Tensor], lattice: Lattice) -> ModeMoments:
    """Mean and second moment about zero of every mode, streamed over batches (batch, channel, *sites).

    Raises:
        DataError: If there is no field, or a batch does not live on ``lattice``.

    Example:
        >>> moments = mode_moments([torch.ones(3, 1, 4), torch.ones(1, 1, 4)], Lattice((4,)))
        >>> moments.num, moments.mean[0, 0].round(decimals=6), moments.second[0, 0].round(decimals=6)
        (4, tensor(2., dtype=torch.float64), tensor(4., dtype=torch.float64))
    """
    num, first, second = 0, torch.zeros(()), torch.zeros(())
    for x in x_batches:
        modes = _modes(x, lattice)
        num, first, second = num + len(x), first + modes.sum(0), second + (modes**2).sum(0)
    if num == 0:
        raise DataError("moments need at least 1 field, got 0")
    return ModeMoments(num, first / num, second / num)


def mode_power(
    x_batches: Iterable[Tensor], lattice: Lattice, *, about: About = "zero", radial: bool = False
) -> Float64[Tensor, "*sites"]:
    r"""Power of every mode, $P_k = \langle (\phi_k - m_k)^2 \rangle$, averaged over channels, streamed.

    Args:
        about: ``"zero"`` ($m_k = 0$) or ``"mean"`` (variance, unbiased).
        radial: Give each mode the mean power of its bin of $|k|$ (the bins of `power_spectrum`): less noise
            where the law is isotropic.

    Raises:
        DataError: If there is no field (about the mean: fewer than two), or a batch does not live on
            ``lattice``.

    Example:
        >>> mode_power([torch.ones(3, 1, 4)], Lattice((4,))).round(decimals=6) + 0
        tensor([4., 0., 0., 0.], dtype=torch.float64)
    """
    moments = mode_moments(x_batches, lattice)
    power = moments.second
    if about == "mean":
        if moments.num < 2:
            raise DataError(f"a variance needs at least 2 fields, got {moments.num}")
        power = (power - moments.mean**2).clamp_min(0) * moments.num / (moments.num - 1)
    power = power.mean(0)
    if radial:
        member, count, _ = _bins(lattice, None)
        power = (member.T @ (member @ power.flatten() / count)).reshape(lattice.shape)
    return power


def _modes(x: Tensor, lattice: Lattice) -> Float64[Tensor, "batch channel *sites"]:
    if tuple(x.shape[2:]) != lattice.shape:
        raise DataError(f"fields must be (batch, channel, *{lattice.shape}) to live here, got {tuple(x.shape)}")
    return basis_for(lattice).forward(x.detach().cpu().double())


def _bins(
    lattice: Lattice, edges: Tensor | None
) -> tuple[Float64[Tensor, "bins modes"], Int64[Tensor, " bins"], Float64[Tensor, " bins"]]:
    """Membership of modes in bins (0 or 1), modes in each bin, their mean wavenumber; empty bins left out."""
    k = lattice.k_sq().sqrt().flatten()
    if edges is None:
        fundamental = (1 if lattice.boundary == "open" else 2) * math.pi / max(lattice.shape)
        # A hair below one half: modes midway between two bins go to the upper one, whatever the rounding.
        edges = (torch.arange(int(k.max() / fundamental + 0.5) + 2).double() - 0.5 - 1e-9) * fundamental
    edges = edges.detach().cpu().double()
    if len(edges) < 2 or not (edges.diff() > 0).all():
        raise DataError(f"bins need at least 2 edges that rise, got {edges.tolist()}")
    member = ((k >= edges[:-1, None]) & (k < edges[1:, None])).double()
    member = member[member.sum(1) > 0]
    if len(member) == 0:
        raise DataError(
            f"a spectrum needs a bin with a mode: wavenumbers here are 0 to {k.max():.4g} rad/site, got bins from "
            f"{edges[0]:.4g} to {edges[-1]:.4g}"
        )
    count = member.sum(1).long()
    return member, count, member @ k / count
