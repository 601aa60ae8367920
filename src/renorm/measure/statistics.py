r"""Error bars of any function of means: jackknife and bootstrap over blocks, plain or with importance weights.

What is measured on a field is one number, or a tensor of numbers, a *sample*. Most estimates are functions of
means of samples, $\hat\theta = f(\bar a)$ (a susceptibility, a cumulant, a correlation length), and two ways to
their errors are general: leave blocks out, or draw them again. Samples of a Markov chain stand in order of time,
and blocks are runs of neighbours; where they are longer than the autocorrelation time, they are independent.

Weights are given by their logs, $\log w$, and may be known up to a common factor only.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from renorm.errors import DataError

__all__ = ["Estimate", "bootstrap", "check_log_weights", "ess", "jackknife", "weighted_mean"]

CHUNK = 2**22
"""Entries of the table of redrawn blocks that is held at once."""


class Estimate(NamedTuple):
    """A number, or a tensor of numbers, and one standard error of each (float64, a scalar has no axis)."""

    value: Tensor
    error: Tensor


class _Blocks(NamedTuple):
    share: Float64[Tensor, " blocks"]  # of the samples, by number
    log_weight: Float64[Tensor, " blocks"]
    mean: Float64[Tensor, "blocks *observables"]


def check_log_weights(log_weights: Float[Tensor, " num"], num: int | None = None) -> Float64[Tensor, " num"]:
    """The log weights in float64 on the CPU; minus infinity is a weight of zero.

    Args:
        num: How many samples they are for, where that is to be checked.

    Raises:
        DataError: If there are not ``num``, one is nan or plus infinity, or none is above minus infinity (they
            could not be normalised).

    Example:
        >>> check_log_weights(torch.tensor([0.0, -torch.inf]), 2)
        tensor([0., -inf], dtype=torch.float64)
    """
    if num is not None and len(log_weights) != num:
        raise DataError(f"every sample needs its log weight: {num} samples, got {len(log_weights)} log weights")
    weights = log_weights.detach().cpu().double()
    bad = int((~(weights < torch.inf)).sum())
    if bad or not (weights > -torch.inf).any():
        what = f"{bad} nan or +inf" if bad else f"{len(weights)} of -inf alone"
        raise DataError(f"log weights must be below +inf and not all -inf (they are normalised), got {what}")
    return weights


def ess(log_weights: Float[Tensor, " num"]) -> float:
    r"""Effective sample size as a share of the samples: 1 for equal weights, $1/N$ where one carries all.

    $$ \mathrm{ESS} = \frac{(\sum_i w_i)^2}{N \sum_i w_i^2}
       = \exp\bigl(2 \log\textstyle\sum_i w_i - \log\sum_i w_i^2 - \log N\bigr) $$

    Raises:
        DataError: If the log weights cannot be normalised.

    Source:
        Kong 1992, "A note on importance sampling using standardized weights".

    Example:
        >>> round(ess(torch.tensor([1000.0, 1000.0, -torch.inf, -torch.inf])), 6)
        0.5
    """
    weights = check_log_weights(log_weights)
    return float((2 * weights.logsumexp(0) - (2 * weights).logsumexp(0)).exp() / len(weights))


def weighted_mean(
    samples: Float[Tensor, "num *observables"], log_weights: Float[Tensor, " weights"] | None = None
) -> Float64[Tensor, "*observables"]:
    r"""Mean of samples of one law under another, $\sum_i w_i a_i / \sum_i w_i$; without weights the plain mean.

    Raises:
        DataError: If there is no sample, one is not finite, or the log weights cannot be normalised.

    Example:
        >>> weighted_mean(torch.tensor([1.0, 5.0]), torch.tensor([3.0, 1.0]).log())
        tensor(2.0000, dtype=torch.float64)
    """
    return _average(_blocked(samples, 1, log_weights))


def jackknife(
    samples: Float[Tensor, "num *observables"],
    function: Callable[[Tensor], Tensor] | None = None,
    *,
    blocks: int | None = None,
    log_weights: Float[Tensor, " weights"] | None = None,
) -> Estimate:
    r"""A function of means, with the error that leaving out one block at a time shows.

    With $\hat\theta_j$ the function of the means without block $j$, which holds $1/h_j$ of the samples,

    $$ \hat\theta = f(\bar a), \qquad
       d_j = (h_j - 1)(\hat\theta - \hat\theta_j), \qquad
       \mathrm{error}^2 = \frac1B \sum_j \frac{(d_j - \bar d)^2}{h_j - 1}, \qquad \bar d = \sum_j d_j / h_j , $$

    for equal blocks $\mathrm{error}^2 = \frac{B - 1}{B} \sum_j (\hat\theta_j - \bar\theta)^2$. The error of a plain
    mean over blocks of one sample is the standard error, exactly.

    Args:
        function: From means of shape (replicas, *observables) to values (replicas, *values), row by row; not
            given: the means themselves.
        blocks: Runs of neighbouring samples, equal but for one sample; not given: every sample stands alone, as
            independent samples may.
        log_weights: Importance weights of the samples.

    Raises:
        DataError: If there are fewer than two blocks, fewer samples than blocks, a sample that is not finite, or
            no weight outside one block.

    Source:
        Busing, Meijer & van der Leeden 1999, "Delete-m jackknife for unequal m".

    Example:
        >>> estimate = jackknife(torch.tensor([1.0, 2.0, 3.0, 4.0]))
        >>> round(float(estimate.value), 4), round(float(estimate.error), 4)  # sqrt((5 / 3) / 4)
        (2.5, 0.6455)
        >>> float(jackknife(torch.tensor([1.0, 3.0]), torch.square).value)
        4.0
    """
    parts = _blocked(samples, blocks, log_weights)
    count = len(parts.share)
    if count < 2:
        raise DataError(f"a jackknife needs at least 2 blocks (it leaves one out), got {count}")
    if (parts.log_weight > -torch.inf).sum() < 2:
        raise DataError("a jackknife needs weight in at least 2 blocks (it leaves one out), got 1")
    means = torch.cat([_average(parts)[None], _leave_one_out(parts)])
    values = means if function is None else function(means)
    value, left = values[0], values[1:]
    rest = (1 / parts.share - 1).reshape(-1, *[1] * value.dim())  # samples left for each that is left out
    shift = rest * (value - left)
    spread = shift - torch.tensordot(parts.share, shift, 1)
    return Estimate(value, (spread**2 / rest).mean(0).sqrt())


def bootstrap(
    samples: Float[Tensor, "num *observables"],
    function: Callable[[Tensor], Tensor] | None = None,
    *,
    generator: torch.Generator,
    replicas: int = 1000,
    blocks: int | None = None,
    log_weights: Float[Tensor, " weights"] | None = None,
) -> Estimate:
    r"""A function of means, with the spread that it has when blocks are drawn again, with replacement.

    $$ \mathrm{error}^2 = \frac{1}{R - 1} \sum_{r=1}^{R} (f(\bar a^{(r)}) - \bar f)^2 $$

    The error of a mean is the standard error times $\sqrt{(B - 1)/B}$, up to the noise of the draw,
    $1/\sqrt{2R}$ of it.

    Args:
        function: As in `jackknife`.
        replicas: How often blocks are drawn, R.
        blocks: Runs of neighbouring samples; not given: every sample stands alone.
        log_weights: Importance weights of the samples.

    Raises:
        DataError: If there are fewer than two blocks or replicas, fewer samples than blocks, or a sample that is
            not finite.

    Source:
        Efron 1979, "Bootstrap methods: another look at the jackknife".

    Example:
        >>> g = torch.Generator().manual_seed(0)
        >>> estimate = bootstrap(torch.tensor([1.0, 2.0, 3.0, 4.0]), generator=g)
        >>> float(estimate.value), bool((estimate.error - 1.25**0.5 / 2).abs() < 0.05)
        (2.5, True)
    """
    parts = _blocked(samples, blocks, log_weights)
    count = len(parts.share)
    if count < 2 or replicas < 2:
        raise DataError(f"a bootstrap needs at least 2 blocks and 2 replicas, got {count} and {replicas}")
    means, rows = [], max(1, CHUNK // count)
    for start in range(0, replicas, rows):
        drawn = _draw_counts(min(rows, replicas - start), count, generator)
        weights = (drawn.double().log() + parts.log_weight).softmax(1)
        means.append(torch.tensordot(weights, parts.mean, 1))
    everything = torch.cat([_average(parts)[None], *means])
    values = everything if function is None else function(everything)
    return Estimate(values[0], values[1:].std(0))


def _blocked(samples: Tensor, blocks: int | None, log_weights: Tensor | None) -> _Blocks:
    """Share, log weight and weighted mean of every block; each block is summed relative to its largest weight."""
    num = len(samples)
    count = num if blocks is None else blocks
    if not 1 <= count <= num:
        raise DataError(f"every block needs at least 1 sample: ask for 1 to {num} blocks, got {count}")
    a = samples.detach().cpu().double()
    if not a.isfinite().all():
        raise DataError("samples must be finite (one nan would spoil every mean), got nan or inf")
    if log_weights is None:
        weights = torch.zeros(num, dtype=torch.float64)
    else:
        weights = check_log_weights(log_weights, num)
    block = torch.arange(num) * count // num
    top = torch.full((count,), -torch.inf, dtype=torch.float64).scatter_reduce(0, block, weights, "amax")
    w = (weights - top.clamp_min(torch.finfo(torch.float64).min)[block]).exp()
    zero = torch.zeros(count, dtype=torch.float64)
    total = zero.index_add(0, block, w)
    column = [-1, *[1] * (a.dim() - 1)]
    mean = torch.zeros(count, *a.shape[1:], dtype=torch.float64).index_add(0, block, w.reshape(column) * a)
    return _Blocks(
        block.bincount(minlength=count).double() / num, top + total.log(), mean / total.clamp_min(1).reshape(column)
    )


def _average(parts: _Blocks) -> Tensor:
    return torch.tensordot(parts.log_weight.softmax(0), parts.mean, 1)


def _leave_one_out(parts: _Blocks) -> Float64[Tensor, "blocks *observables"]:
    """Weighted means without each block, from sums before and after it: a difference of sums would cancel."""
    flat = parts.mean.flatten(1) if parts.mean.dim() > 1 else parts.mean[:, None]
    heaviest = int(parts.log_weight.argmax())
    w = (parts.log_weight - parts.log_weight[heaviest]).exp()[:, None]
    sums = torch.cat([w, w * flat], 1)
    zero = torch.zeros_like(sums[:1])
    before = torch.cat([zero, sums[:-1]]).cumsum(0)
    after = torch.cat([sums[1:], zero]).flip(0).cumsum(0).flip(0)
    left = before + after
    means = left[:, 1:] / left[:, :1].clamp_min(torch.finfo(torch.float64).tiny)
    # Beside the heaviest block all others may vanish in float64, so without it they are weighed anew.
    others = parts.log_weight.clone()
    others[heaviest] = -torch.inf
    means[heaviest] = others.softmax(0) @ flat
    return means.reshape(parts.mean.shape)


def _draw_counts(replicas: int, blocks: int, generator: torch.Generator) -> Int64[Tensor, "replicas blocks"]:
    drawn = torch.randint(blocks, (replicas, blocks), generator=generator, device=generator.device).cpu()
    return torch.zeros(replicas, blocks, dtype=torch.int64).scatter_add(1, drawn, torch.ones_like(drawn))
