r"""The law of one site's value, and of the peaks of a field: histograms, a two-sample test, counts of maxima."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy.stats
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from renorm.errors import DataError
from renorm.measure.statistics import Estimate, check_log_weights, ess, jackknife

__all__ = [
    "Histogram",
    "KolmogorovSmirnov",
    "bin_shares",
    "histogram",
    "kolmogorov_smirnov",
    "peak_counts",
    "total_variation",
]


@dataclass(frozen=True)
class Histogram:
    """A one-point density: ``density`` in inverse field units, one standard error of it, and the edges of its bins.

    An empty bin has a density of 0 and an error that is nan: what was never seen has no spread to be measured.
    """

    edges: Float64[Tensor, " edges"]
    density: Float64[Tensor, " bins"]
    error: Float64[Tensor, " bins"]


class KolmogorovSmirnov(NamedTuple):
    """Largest distance of two distribution functions, and the chance of one as large where the laws are the same."""

    statistic: float
    p_value: float


def histogram(
    x: Float[Tensor, "batch channel *sites"],
    edges: Float[Tensor, " edges"],
    *,
    log_weights: Float[Tensor, " batch"] | None = None,
    blocks: int | None = None,
) -> Histogram:
    r"""Density of the values of a site, all sites and channels together, with error bars over fields.

    $$ p_b = \frac{\langle \text{share of the sites with } e_b \le \phi_x < e_{b+1} \rangle}{e_{b+1} - e_b} $$

    The last bin holds its upper edge too, as in NumPy. Values outside the edges count in the shares: the densities
    times the widths sum to the share that lies inside.

    Raises:
        DataError: If edges do not rise, there are fewer values than bins, fields are too few for the blocks, or not
            finite.

    Example:
        >>> x = torch.tensor([[[0.0, 0.2, 0.7, 1.0]], [[0.1, 0.2, 0.3, 9.0]]])
        >>> histogram(x, torch.tensor([0.0, 0.5, 1.0])).density
        tensor([1.2500, 0.5000], dtype=torch.float64)
    """
    e = edges.detach().cpu().double()
    if len(e) < 2 or not (e.diff() > 0).all():
        raise DataError(f"a histogram needs at least 2 edges that rise, got {e.tolist()}")
    values = _finite(x).flatten(1)
    if values.numel() < len(e) - 1:
        raise DataError(
            "a histogram needs at least as many values as bins (most would be empty): take fewer bins or more fields, "
            f"got {values.numel()} values for {len(e) - 1} bins"
        )
    place = torch.bucketize(values, e, right=True)  # 0: below all edges
    place = torch.where(values == e[-1], len(e) - 1, place)
    counts = torch.zeros(len(values), len(e) + 1, dtype=torch.float64)
    counts = counts.scatter_add(1, place, torch.ones_like(values))[:, 1:-1]
    density = jackknife(counts / values.shape[1] / e.diff(), blocks=blocks, log_weights=log_weights)
    return Histogram(e, density.value, torch.where(density.value > 0, density.error, torch.nan))


def bin_shares(values: Float[Tensor, "*values"], low: float, high: float, bins: int) -> Float64[Tensor, " bins"]:
    """Shares of values in bins of one width; what lies outside, or is no number, is in the first or last.

    Example:
        >>> bin_shares(torch.tensor([-3.0, 0.1, 0.9, 7.0]), 0.0, 1.0, 2)
        tensor([0.5000, 0.5000], dtype=torch.float64)
    """
    inside = values.double().flatten().nan_to_num(nan=high, posinf=high, neginf=low).clamp(low, high)
    return torch.histc(inside, bins, low, high) / inside.numel()


def total_variation(p: Float[Tensor, " bins"], q: Float[Tensor, " bins"]) -> float:
    r"""How far apart two laws of the same bins are, $\tfrac12\sum_b|p_b - q_b|$: 0 if alike, 1 if they share nothing.

    Args:
        p, q: Probabilities; each adds to 1.

    Example:
        >>> total_variation(torch.tensor([0.5, 0.5, 0.0]), torch.tensor([0.5, 0.25, 0.25]))
        0.25
    """
    return float((p - q).abs().sum()) / 2


def kolmogorov_smirnov(
    x: Float[Tensor, "batch channel *sites"],
    reference: Float[Tensor, "..."] | Callable[[np.ndarray], np.ndarray],
    *,
    log_weights: Float[Tensor, " batch"] | None = None,
    per_independent: float = 1.0,
) -> KolmogorovSmirnov:
    r"""Largest distance between the distribution of a site's value and a reference, with its p-value.

    $$ D = \sup_\phi |F(\phi) - F_{\text{ref}}(\phi)|, \qquad p = \Pr(D_n \ge D), \quad
       n = \frac{n_x n_{\text{ref}}}{n_x + n_{\text{ref}}}\ (\text{sample}), \quad n = n_x\ (\text{cdf}) $$

    with $n_x = \mathrm{ESS} \cdot \text{values} / c$. Sites of a field depend on each other; a p-value that counts
    them all as independent is far too small, and $c$ says how many make one independent value.

    Args:
        reference: Values of the reference law in any shape (a sample), or its distribution function.
        per_independent: Values that count as one independent value, $c$, in both samples; about the sum of the
            normalised two-point function over displacements. Sites as a whole: one value for each field.

    Raises:
        DataError: If a sample is empty or not finite, or ``per_independent`` leaves less than one value.

    Example:
        >>> x = torch.tensor([0.1, 0.4, 0.6, 0.7]).reshape(1, 1, 4)
        >>> round(kolmogorov_smirnov(x, lambda v: np.clip(v, 0, 1)).statistic, 4)  # at 0.7: 1 - 0.7
        0.3
    """
    if not per_independent > 0:
        raise DataError(f"per_independent must be > 0 (it divides the number of values), got {per_independent}")
    fields = _finite(x)
    values = fields.flatten().numpy()
    weights = _site_weights(fields, log_weights)
    order = values.argsort()
    values, cumulative = values[order], weights[order].cumsum()
    share = 1.0 if log_weights is None else ess(log_weights)
    number = len(values) * share / per_independent
    if callable(reference):
        cdf = np.asarray(reference(values))
        distance = max((cumulative - cdf).max(), (cdf - np.append(0.0, cumulative[:-1])).max())
    else:
        other = np.sort(_finite(reference).flatten().numpy())
        points = np.concatenate([values, other])
        here = np.append(0.0, cumulative)[values.searchsorted(points, side="right")]
        there = other.searchsorted(points, side="right") / len(other)
        distance = np.abs(here - there).max()
        number = number * (len(other) / per_independent) / (number + len(other) / per_independent)
    if round(number) < 1:
        raise DataError(f"a test needs at least 1 independent value, got {number:.3g} (see per_independent)")
    return KolmogorovSmirnov(float(distance), float(np.clip(scipy.stats.kstwo.sf(distance, round(number)), 0, 1)))


def peak_counts(
    x: Float[Tensor, "batch channel *sites"],
    thresholds: Float[Tensor, " thresholds"],
    *,
    log_weights: Float[Tensor, " batch"] | None = None,
    blocks: int | None = None,
) -> Estimate:
    """Mean number of peaks of a periodic field that reach each threshold.

    A peak is a site above all its neighbours, diagonal ones too: 2, 8 or 26 in one, two or three dimensions. A
    plateau has none. Channels are averaged over.

    Args:
        thresholds: Heights in field units.

    Raises:
        DataError: If an axis has fewer than three sites (its neighbours are not two), fields are too few for the
            blocks, or not finite.

    Example:
        >>> x = torch.tensor([0.0, 2.0, 1.0, 3.0, 0.0]).expand(2, 1, 5)
        >>> peak_counts(x, torch.tensor([1.0, 2.5, 4.0])).value
        tensor([2., 1., 0.], dtype=torch.float64)
    """
    fields = _finite(x)
    if fields.dim() < 3 or min(fields.shape[2:]) < 3:
        raise DataError(f"peaks need (batch, channel, *sites) with at least 3 sites an axis, got {tuple(x.shape)}")
    axes = tuple(range(2, fields.dim()))
    peak = torch.ones_like(fields, dtype=torch.bool)
    for shift in itertools.product((-1, 0, 1), repeat=len(axes)):
        if any(shift):
            peak &= fields > fields.roll(shift, axes)
    levels = thresholds.detach().cpu().double()
    counts = [((fields >= level) & peak).flatten(2).sum(2).double().mean(1) for level in levels]
    return jackknife(torch.stack(counts, -1), blocks=blocks, log_weights=log_weights)


def _finite(x: Tensor) -> Tensor:
    values = x.detach().cpu().double()
    if values.numel() == 0 or not values.isfinite().all():
        raise DataError(f"values must be there and be finite, got shape {tuple(x.shape)}, perhaps nan or inf")
    return values


def _site_weights(fields: Tensor, log_weights: Tensor | None) -> np.ndarray:
    """Normalised weight of every value, the same for all values of a field."""
    each = fields[0].numel()
    if log_weights is None:
        return np.full(fields.numel(), 1 / fields.numel())
    return (check_log_weights(log_weights, len(fields)).softmax(0) / each).repeat_interleave(each).numpy()
