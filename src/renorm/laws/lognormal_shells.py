"""What a lognormal law says of bins of wavenumbers: exact means over all modes, and over all triples that close."""

import itertools
import math

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from renorm.errors import DataError
from renorm.lattice import Lattice
from renorm.laws.lognormal import Lognormal

__all__ = ["shell_bispectrum", "shell_power"]


def shell_power(law: Lognormal, edges: Float[Tensor, " edges"]) -> Float64[Tensor, " bins"]:
    r"""Mean exact power of the modes of each bin of $|k|$, closed on the left.

    Args:
        law: Whose.
        edges: Rising, in rad/site.

    Raises:
        DataError: If a bin holds no mode.

    Example: one bin of all modes but the zero mode.
        >>> law = Lognormal((8, 8), 0.5)
        >>> value = shell_power(law, torch.tensor([1e-3, 9.0]))
        >>> round(float(value * 63 + law.power[0, 0]) / 64 / law.variance, 9)
        1.0
    """
    k = Lattice(law.shape, "periodic").k_sq().sqrt()
    bins = [(k >= a) & (k < b) for a, b in itertools.pairwise(edges.double())]
    empty = [index for index, chosen in enumerate(bins) if not bool(chosen.any())]
    if empty:
        raise DataError(f"every bin needs a mode: merge it with the next, got no mode in bins {empty}")
    return torch.stack([law.power[chosen].mean() for chosen in bins])


def shell_bispectrum(
    law: Lognormal, edges: Float[Tensor, " edges"], triangles: Int64[Tensor, "triangles 3"]
) -> Float64[Tensor, " triangles"]:
    r"""Exact bispectrum averaged over all triples of modes of three shells that close, modulo $2\pi$.

    $$ B_{abc} = \frac{1}{T_{abc}} \sum_{k_1 \in a}\, \sum_{k_2 \in b,\; -k_1 - k_2 \in c} B(k_1, k_2) $$

    For each $k_1$ one Fourier transform gives the loop of $B$ at every $k_2$.

    Args:
        law: Whose.
        edges: Of the shells, rising, in rad/site, closed on the left.
        triangles: Triples of shells, counted from 0.

    Raises:
        DataError: If no triple of modes closes a triangle.

    Example: shells of one length, |k| = 1, 1 and sqrt 2 fundamentals.
        >>> law, unit = Lognormal((8, 8), 0.5), 2 * math.pi / 8
        >>> found = shell_bispectrum(law, torch.tensor([0.9, 1.1, 1.5]) * unit, torch.tensor([[0, 0, 1]]))
        >>> round(float(found) / law.bispectrum((1, 0), (0, 1)), 9)
        1.0
    """
    axes = tuple(range(len(law.shape)))
    parts = [2 * math.pi * torch.fft.fftfreq(side, dtype=torch.float64) for side in law.shape]
    k = torch.stack(torch.meshgrid(*parts, indexing="ij")).square().sum(0).sqrt()
    shell = torch.bucketize(k, edges.double(), right=True) - 1
    power = torch.fft.fftn(law.correlation).real
    totals, counts = torch.zeros(len(triangles), dtype=torch.float64), torch.zeros(len(triangles))
    for first in sorted({int(t[0]) for t in triangles}):
        for place in (shell == first).nonzero().tolist():
            back = [-n for n in place]
            closing, at = power.roll(back, axes), shell.roll(back, axes)  # of k1 + k2, at k2
            loop = _correlated(power * power.roll(place, axes), power)
            value = power[tuple(place)] * (power + closing) + power * closing + loop
            for index, (a, b, c) in enumerate(triangles.tolist()):
                if a == first:
                    chosen = (shell == b) & (at == c)
                    totals[index] += value[chosen].sum()
                    counts[index] += chosen.sum()
    if not bool((counts > 0).all()):
        raise DataError(f"every triangle of shells must close, got {triangles[counts == 0].tolist()}")
    return totals / counts


def _correlated(a: Tensor, b: Tensor) -> Tensor:
    r"""$\frac1N \sum_q a(q)\, b(q + k)$ at every k."""
    return torch.fft.ifftn(torch.fft.fftn(a).conj() * torch.fft.fftn(b)).real / a.numel()
