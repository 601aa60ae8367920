r"""Are angles of one set of chains distributed as those of another? Jensen-Shannon distances of histograms.

A row of counts belongs to one chain: values along a chain depend on each other, so errors leave out whole chains.
"""

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from renorm.errors import DataError
from renorm.measure.statistics import Estimate

__all__ = ["angle_counts", "bin_counts", "dihedral_counts", "js_distance"]

ANGLE_BINS = 36  # of 5 degrees
DIHEDRAL_BINS = 72
ROUNDING = 1e-6  # of the range: pi in float32 is above pi


def bin_counts(
    values: Float[Tensor, "*batch num"], *, bins: int, low: float, high: float, periodic: bool = False
) -> Int64[Tensor, "*batch bins"]:
    r"""How many values fall into each of equal bins from ``low`` to ``high``, closed on the left; nan falls nowhere.

    Args:
        values: In the unit of the edges.
        bins: How many.
        low: The first edge.
        high: The last edge.
        periodic: Whether ``high`` is ``low`` again, and values beyond come round. Else ``high`` is in the last bin.

    Raises:
        DataError: If there is no bin, ``high`` is not above ``low``, or a value is infinite or (not periodic) outside.

    Example:
        >>> bin_counts(torch.tensor([0.0, 0.4, 1.0, torch.nan]), bins=2, low=0.0, high=1.0)
        tensor([2, 1])
        >>> bin_counts(torch.tensor([0.0, 0.4, 1.0, 1.7]), bins=2, low=0.0, high=1.0, periodic=True)
        tensor([3, 1])
    """
    if bins < 1 or not low < high:
        raise DataError(f"a histogram needs bins >= 1 and low < high, got {bins} from {low} to {high}")
    v = values.detach().cpu().double()
    known, hair = ~v.isnan(), ROUNDING * (high - low)
    if v[known].isinf().any() or (not periodic and ((v[known] < low - hair) | (v[known] > high + hair)).any()):
        raise DataError(f"values of a histogram must be finite and lie from {low:.4g} to {high:.4g}, or be periodic")
    place = ((v - low) * (bins / (high - low))).where(known, 0.0).floor().long()
    place = place.remainder(bins) if periodic else place.clamp(0, bins - 1)
    return torch.zeros(*v.shape[:-1], bins, dtype=torch.int64).scatter_add(-1, place, known.long())


def angle_counts(angles: Float[Tensor, "*batch num"]) -> Int64[Tensor, "*batch 36"]:
    r"""Histogram of pseudo-angles in radians: 36 bins from 0 to $\pi$, of 5 degrees each.

    Args:
        angles: In radians, as `pseudo_angles` gives them.

    Raises:
        DataError: If an angle lies outside.

    Example:
        >>> angle_counts(torch.tensor([1.6, 1.6, 3.1])).nonzero().flatten()
        tensor([18, 35])
    """
    return bin_counts(angles, bins=ANGLE_BINS, low=0.0, high=math.pi)


def dihedral_counts(dihedrals: Float[Tensor, "*batch num"]) -> Int64[Tensor, "*batch 72"]:
    r"""Histogram of dihedrals in radians: 72 bins from $-\pi$ to $\pi$, of 5 degrees each; $\pi$ is $-\pi$ again.

    Args:
        dihedrals: In radians, as `pseudo_dihedrals` gives them.

    Raises:
        DataError: If a dihedral is infinite.

    Example:
        >>> dihedral_counts(torch.tensor([torch.pi, 0.87]).double()).nonzero().flatten()
        tensor([ 0, 45])
    """
    return bin_counts(dihedrals, bins=DIHEDRAL_BINS, low=-math.pi, high=math.pi, periodic=True)


def js_distance(a: Int64[Tensor, "num bins"], b: Int64[Tensor, "other bins"]) -> Estimate:
    r"""Jensen-Shannon distance of two histograms: 0 for the same shares, 1 where no bin is shared.

    $$ \mathrm{JS} = \Big( \tfrac12 \sum_k p_k \log_2 \frac{p_k}{m_k} + \tfrac12 \sum_k q_k \log_2 \frac{q_k}{m_k}
       \Big)^{1/2}, \qquad m = \tfrac12 (p + q), $$

    with $p, q$ the shares of the summed rows. Finite samples of one law are not at 0: with $n$ and $n'$ independent
    values in $K$ bins that are all used, $\langle \mathrm{JS}^2 \rangle \approx \frac{K - 1}{8 \ln 2} (1/n + 1/n')$.
    Hold the value against that of two halves of the reference.

    Args:
        a: Counts, a row for each independent part, such as a chain.
        b: Counts of the other side in the same bins.

    Returns:
        The distance, and one standard error by a jackknife that leaves out one row at a time of either side; nan where
        a side has one row. Near the floor, where the distance is not linear in the counts, it is a rough one.

    Raises:
        DataError: If the bins differ in number, a count is negative, or a side has no count.

    Source:
        Endres & Schindelin 2003, "A new metric for probability distributions".

    Example:
        >>> a, b = torch.tensor([[2, 2, 0]]), torch.tensor([[0, 2, 2]])
        >>> round(float(js_distance(a, b).value), 6)  # half of each side is shared
        0.707107
    """
    if a.dim() != 2 or b.dim() != 2 or a.shape[1] != b.shape[1]:
        raise DataError(f"histograms need the same bins, (num, bins), got {tuple(a.shape)} and {tuple(b.shape)}")
    a, b = a.detach().cpu().double(), b.detach().cpu().double()
    if min(a.min() if a.numel() else 0, b.min() if b.numel() else 0) < 0 or not (a.sum() and b.sum()):
        raise DataError("a histogram needs counts >= 0, and one above 0 on each side")
    p, q = a.sum(0), b.sum(0)
    value = _root_divergence(p, q)
    if min(len(a), len(b)) < 2:
        return Estimate(value, torch.full_like(value, torch.nan))
    error = torch.zeros_like(value)
    for left in (_root_divergence(p - a, q), _root_divergence(p, q - b)):
        error += (len(left) - 1) / len(left) * (left - left.mean()).square().sum()
    return Estimate(value, error.sqrt())


def _root_divergence(p: Tensor, q: Tensor) -> Tensor:
    """From counts, row by row."""
    p, q = p / p.sum(-1, keepdim=True), q / q.sum(-1, keepdim=True)
    m = (p + q) / 2
    # p log p is 0 at 0, and m is 0 only where both are.
    bits = torch.xlogy(p, p / m.where(m > 0, 1.0)) + torch.xlogy(q, q / m.where(m > 0, 1.0))
    return (bits.sum(-1) / (2 * math.log(2))).clamp(0, 1).sqrt()
