r"""How long a Markov chain remembers: the autocorrelation function, and its sum with a window that ends itself.

The integrated autocorrelation time is counted from the middle of the first step,

$$ \tau = \frac12 + \sum_{t=1}^{\infty} \rho(t), \qquad \rho(t) = \Gamma(t)/\Gamma(0), $$

so that independent samples have $\tau = 1/2$, a slow exponential $\rho = e^{-t/T}$ has $\tau \approx T$, and the
error of a mean over $N$ samples is $\sigma \sqrt{2\tau/N}$. Some programs give $2\tau$ by the same name.
"""

import math
from typing import Literal, NamedTuple

import scipy.fft
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from renorm.errors import DataError
from renorm.measure.statistics import Estimate

__all__ = ["AutocorrelationTime", "WindowRule", "autocorrelation", "chain_mean", "integrated_time", "windowed_time"]

WindowRule = Literal["sokal", "wolff"]

FACTOR: dict[WindowRule, float] = {"sokal": 5.0, "wolff": 1.5}
"""Sokal's c and Wolff's S, as their papers advise."""


class AutocorrelationTime(NamedTuple):
    """Integrated autocorrelation time in steps of the chain, one standard error, and the last lag that was summed."""

    value: float
    error: float
    window: int


def autocorrelation(series: Float[Tensor, "*chains time"], *, mean: float | None = None) -> Float64[Tensor, " time"]:
    r"""Normalised autocorrelation function $\rho(t) = \Gamma(t)/\Gamma(0)$ over all chains, by FFT.

    $$ \Gamma(t) = \frac{1}{C (n - t)} \sum_{c=1}^{C} \sum_{i=1}^{n-t} (a_{ci} - \bar a)(a_{c,i+t} - \bar a) $$

    Args:
        series: An observable along one or more chains of the same length; all axes but the last count chains.
        mean: The exact mean $\bar a$ where it is known; not given: that over all chains, so that chains which sit
            in different places show as long memory.

    Raises:
        DataError: If there are fewer than two steps, a value is not finite, or all are the same.

    Example:
        >>> autocorrelation(torch.tensor([1.0, -1.0, 1.0, -1.0])).round(decimals=6)
        tensor([ 1., -1.,  1., -1.], dtype=torch.float64)
    """
    steps = series.shape[-1] if series.dim() else 0
    if steps < 2:
        raise DataError(f"an autocorrelation needs at least 2 steps of a chain, got {steps}")
    a = series.detach().cpu().double().reshape(-1, steps)
    if not a.isfinite().all():
        raise DataError("a chain must be finite (one nan would spoil every lag), got nan or inf")
    a = a - (a.mean() if mean is None else mean)
    size = scipy.fft.next_fast_len(2 * steps, real=True)  # twice as long: the end must not meet the beginning
    gamma = torch.fft.irfft(torch.fft.rfft(a, n=size).abs() ** 2, n=size)[:, :steps].mean(0)
    gamma = gamma / torch.arange(steps, 0, -1)
    if not gamma[0] > 0:
        raise DataError("an autocorrelation needs values that vary (it is divided by their variance), got a constant")
    return gamma / gamma[0]


def windowed_time(
    rho: Float[Tensor, " time"], num: int, *, rule: WindowRule = "sokal", factor: float | None = None
) -> AutocorrelationTime:
    r"""Integrated time of an autocorrelation function, summed to the lag $W$ that the rule chooses.

    $$ \tau(W) = \tfrac12 + \sum_{t=1}^{W} \rho(t) $$

    Sokal: the first $W \ge c\,\tau(W)$. Wolff: the first $W$ at which the tail that is cut off falls below the noise
    that goes on growing, $e^{-W/T} < T/\sqrt{W N}$ with $T = S / \ln\frac{2\tau(W) + 1}{2\tau(W) - 1}$. Errors:

    $$ \text{Madras \& Sokal: } \frac{2 (2W + 1)}{N}\,\tau^2, \qquad
       \text{Wolff: } \frac{4 (W + \frac12 - \tau)}{N}\,\tau^2 \qquad(\text{variances}). $$

    Where $\rho(1) < 0$ the signs of $\rho$ change, $\tau(W)$ says nothing of how long the memory is, and
    $\frac12 + \sum |\rho|$ stands in its place in the rule (not in the sum).

    Args:
        num: Samples that the function was measured on, $N$, of all chains.
        rule: ``"sokal"`` or ``"wolff"``.
        factor: $c$ or $S$; not given: 5 and 1.5.

    Raises:
        DataError: If no window ends in the first half: the chains are too short to tell how long they remember.

    Source:
        Madras & Sokal 1988, J. Stat. Phys. 50:109; Wolff 2004, hep-lat/0306017.

    Example:
        >>> rho = 0.5 ** torch.arange(100).double()
        >>> time = windowed_time(rho, 100_000)
        >>> round(time.value, 4), time.window  # the whole sum is 1.5
        (1.4961, 8)
    """
    scale = FACTOR[rule] if factor is None else factor
    tail = rho.detach().cpu().double()[1:]
    lag = torch.arange(1, len(rho), dtype=torch.float64)
    tau = 0.5 + tail.cumsum(0)
    memory = 0.5 + tail.abs().cumsum(0) if len(tail) and tail[0] < 0 else tau
    if rule == "sokal":
        stop = lag >= scale * memory
    else:
        slow = memory.clamp_min(0.5 + 1e-12)  # noise may take the sum to 1/2 and below: no tail, the window ends
        decay = scale / ((2 * slow + 1) / (2 * slow - 1)).log()
        stop = (-lag / decay).exp() < decay / (lag * num).sqrt()
    window = int(stop.double().argmax()) + 1 if stop.any() else len(rho)
    if 2 * window > len(rho):
        raise DataError(
            f"a chain must be many times longer than its autocorrelation time: run it longer, got {len(rho)} steps "
            f"and a window of rule {rule!r} that does not end in the first half"
        )
    value = float(tau[window - 1])
    spread = 2 * (2 * window + 1) if rule == "sokal" else 4 * max(window + 0.5 - value, 0.0)
    return AutocorrelationTime(value, abs(value) * math.sqrt(spread / num), window)


def integrated_time(
    series: Float[Tensor, "*chains time"],
    *,
    rule: WindowRule = "sokal",
    factor: float | None = None,
    mean: float | None = None,
) -> AutocorrelationTime:
    r"""Integrated autocorrelation time of an observable over one or more chains, $\tau = 1/2 + \sum \rho$.

    The measured mean stands nearer to the samples than the true one and takes $2\tau\Gamma(0)/N$ from every
    $\Gamma(t)$; that is put back, $\tau \to \tau\,(1 + \frac{2W + 1}{N}) / (1 + \frac{2\tau}{N})$, unless ``mean``
    is given.

    Args:
        rule: Where the sum ends, see `windowed_time`.
        factor: $c$ of Sokal (5) or $S$ of Wolff (1.5).
        mean: The exact mean of the observable, where it is known.

    Raises:
        DataError: If the chains are too short, not finite or constant.

    Example:
        >>> noise = torch.randn(4, 5000, generator=torch.Generator().manual_seed(0))
        >>> time = integrated_time(noise)
        >>> abs(time.value - 0.5) < 4 * time.error
        True
    """
    time = windowed_time(autocorrelation(series, mean=mean), series.numel(), rule=rule, factor=factor)
    if mean is not None:
        return time
    num = series.numel()
    mend = (1 + (2 * time.window + 1) / num) / (1 + 2 * time.value / num)
    return AutocorrelationTime(time.value * mend, time.error * mend, time.window)


def chain_mean(
    series: Float[Tensor, "*chains time"], *, rule: WindowRule = "sokal", factor: float | None = None
) -> Estimate:
    r"""Mean of an observable over chains with $\mathrm{error}^2 = 2\tau\,\Gamma(0)/N$.

    Raises:
        DataError: As `integrated_time`.

    Example:
        >>> noise = torch.randn(10000, generator=torch.Generator().manual_seed(0))
        >>> estimate = chain_mean(noise)
        >>> bool(estimate.value.abs() < 4 * estimate.error), round(float(estimate.error), 3)
        (True, 0.01)
    """
    time = integrated_time(series, rule=rule, factor=factor)
    a = series.detach().cpu().double()
    variance = a.var(correction=0) * max(2 * time.value, 0.0)
    return Estimate(a.mean(), (variance / a.numel()).sqrt())
