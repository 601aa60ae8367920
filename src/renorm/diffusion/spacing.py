"""Where the steps lie, and where training draws its scales: distributions over the scale t in [0, 1].

A new spacing is one new class with ``quantile`` and one line in ``SPACINGS``; if it looks at the
spectrum of the data, its name is in ``renorm.diffusion.spec.BY_SPECTRUM`` too.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from renorm.diffusion.presets import SNR_COARSE, SNR_FINE, ddpm_linear
from renorm.diffusion.schedule import CLEAN, Schedule
from renorm.diffusion.spectrum_spacing import EqualError, ModeShare, NoiseShare, Window
from renorm.spec import require

__all__ = [
    "SPACINGS",
    "Cosine",
    "EqualError",
    "InfraredAngle",
    "Karras",
    "LinearBeta",
    "LogNormal",
    "LogUniform",
    "NoiseShare",
    "PlacedBy",
    "Spacing",
    "Window",
    "cdf",
    "grid",
]


@runtime_checkable
class Spacing(Protocol):
    """A distribution over scales, given by its quantile function."""

    def quantile(self, u: Float[Tensor, " n"], schedule: Schedule) -> Float[Tensor, " n"]:
        """Scale t in [0, 1] below which a share u of the steps lies; rises from 0 at u = 0 to 1 at u = 1."""
        ...


def grid(spacing: Spacing, schedule: Schedule, steps: int, *, start: float = 1.0, stop: float = CLEAN) -> list[float]:
    r"""The ``steps + 1`` scales that a walk of ``steps`` steps visits, from ``start`` down to ``stop``.

    A walk to clean data evaluates the denoiser last at t = 0 and then jumps to ``CLEAN``; any other walk ends at
    ``stop`` itself. A spacing that has an ``exact_grid`` lays out the whole walk from noise to data as it likes, and
    may begin below t = 1 and look last above t = 0.

    Raises:
        ValueError: If ``steps`` < 1, or ``start`` is not coarser than ``stop``.

    Example:
        >>> from renorm.diffusion.presets import rgdm_images
        >>> from renorm.lattice import Lattice
        >>> grid(LogUniform(), rgdm_images(Lattice((8,))), 3)
        [1.0, 0.5, 0.0, -inf]
    """
    require(steps >= 1, "a walk needs at least one step", steps)
    require(
        start > stop,
        "a walk up from coarse to fine must start at a coarser scale than it ends",
        (start, stop),
    )
    exact = getattr(spacing, "exact_grid", None)
    if exact is not None and start == 1.0 and stop == CLEAN:
        return [*exact(steps, schedule), CLEAN]
    high, low = (cdf(spacing, schedule, t) for t in (start, max(stop, 0.0)))
    points = steps + (stop != CLEAN)
    u = torch.linspace(high, low, points, dtype=torch.float64)
    times: list[float] = spacing.quantile(u, schedule).tolist()
    times[0] = start
    return [*times, CLEAN] if stop == CLEAN else [*times[:-1], stop]


def cdf(spacing: Spacing, schedule: Schedule, t: float) -> float:
    """The share of steps below t, by bisection of the quantile function."""
    if t in (0.0, 1.0):
        return t
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        below = spacing.quantile(torch.tensor([middle], dtype=torch.float64), schedule).item() < t
        low, high = (middle, high) if below else (low, middle)
    return (low + high) / 2


@dataclass(frozen=True)
class LogUniform:
    """Uniform in the logarithm of the cutoff: every step integrates out the same log-shell (the paper)."""

    def quantile(self, u: Float[Tensor, " n"], schedule: Schedule) -> Float[Tensor, " n"]:
        """t = u."""
        return u


@dataclass(frozen=True)
class LinearBeta:
    r"""DDPM's linear schedule: $\beta$ rises evenly over the steps.

    For n steps the last beta is chosen so that the end has the signal-to-noise ratio of the 1000-step schedule.

    Source:
        Ho, Jain & Abbeel 2020, arXiv:2006.11239; Masuki & Ashida 2025 for the matching of the ends.
    """

    def quantile(self, u: Float[Tensor, " n"], schedule: Schedule) -> Float[Tensor, " n"]:
        """The 1000-step schedule, linear in log signal-to-noise between its steps."""
        table = _scale_of_share(ddpm_linear()).to(u.device)
        position = u.double() * (len(table) - 1)
        below = position.floor().long().clamp(max=len(table) - 2)
        return torch.lerp(table[below], table[below + 1], position - below).to(u.dtype)

    def exact_grid(self, steps: int, schedule: Schedule) -> list[float]:
        """Scales of the n-step schedule, coarsest first."""
        if steps == 1:
            return [1.0]
        low, high = 1e-4, 1 - 1e-9
        target = (ddpm_linear()[-1]).item()
        for _ in range(100):
            middle = (low + high) / 2
            too_bright = ddpm_linear(steps, beta_last=middle)[-1].item() > target
            low, high = (middle, high) if too_bright else (low, middle)
        times: list[float] = _scale_of_share(ddpm_linear(steps, beta_last=low)).flip(0).tolist()
        return [1.0, *times[1:-1], 0.0]


def _scale_of_share(signal_share: Tensor) -> Tensor:
    """t at which a schedule that runs between DDPM's end points has this signal share."""
    log_snr = torch.log(signal_share) - torch.log1p(-signal_share)
    return (math.log(SNR_FINE) - log_snr) / math.log(SNR_FINE / SNR_COARSE)


@dataclass(frozen=True)
class Cosine:
    r"""Even in the angle $\arctan(\sigma/\alpha)$, as in the cosine schedule, between DDPM's end points.

    Source:
        Nichol & Dhariwal 2021, arXiv:2102.09672.
    """

    def quantile(self, u: Float[Tensor, " n"], schedule: Schedule) -> Float[Tensor, " n"]:
        """Angles between the two ends, as scales."""
        first, last = (math.atan(1 / math.sqrt(snr)) for snr in (SNR_FINE, SNR_COARSE))
        return _scale_of_share(torch.cos(first + u.double() * (last - first)) ** 2).to(u.dtype)


@dataclass(frozen=True)
class Karras:
    r"""EDM's grid: $\sigma^{1/\rho}$ is even, with $\sigma\propto 1/\Lambda$.

    Source:
        Karras, Aittala, Aila & Laine 2022, arXiv:2206.00364.
    """

    rho: float = 7.0

    def quantile(self, u: Float[Tensor, " n"], schedule: Schedule) -> Float[Tensor, " n"]:
        """t = rho ln(1 + u (R^(1/rho) - 1)) / ln R, R the ratio of the end cutoffs."""
        log_ratio = math.log(schedule.cutoff_fine / schedule.cutoff_coarse)
        return self.rho * torch.log1p(u * math.expm1(log_ratio / self.rho)) / log_ratio


@dataclass(frozen=True)
class InfraredAngle:
    r"""Even in the angle of a mode that is slower than the slowest: steps crowd where the large structure is decided.

    $$ \theta = \arccos\alpha(x), \qquad x = \frac{q_\mathrm{min}^2}{4^{o}\,\Lambda^2} $$

    Each step turns the mode o octaves below the lowest of the lattice by the same angle. Small structure gets one long
    step at the end: for samplers that move it exactly, as ``running`` does.

    Args:
        octaves: o.
    """

    octaves: float = 1.0

    def quantile(self, u: Float[Tensor, " n"], schedule: Schedule) -> Float[Tensor, " n"]:
        """Angles between the two ends, as scales."""
        slowest = schedule.wavenumber_sq.min().item() / 4**self.octaves
        x = torch.tensor([slowest / schedule.cutoff(t).item() ** 2 for t in (0.0, 1.0)], dtype=torch.float64)
        fine, coarse = torch.atan2(schedule.regulator.noise_share(x).sqrt(), schedule.regulator.signal_share(x).sqrt())
        least = max(1e-150, min(1e-12, fine.item()))  # a sharp regulator begins below any threshold
        angles = (fine + u.double() * (coarse - fine)).clamp(min=least, max=math.pi / 2 - 1e-12)
        shares = (1 / torch.tan(angles) ** 2).tolist()
        scales = [schedule.time(math.sqrt(slowest / schedule.regulator.inverse(r))) for r in shares]
        return torch.tensor(scales, dtype=torch.float64).clamp(0, 1).to(u)


@dataclass(frozen=True)
class LogNormal:
    r"""EDM's training scales: $\ln(\sigma/\alpha)$ is normal, cut off at the ends of the schedule.

    Args:
        mean: Mean of the log of noise-to-signal over the data's standard deviation (EDM: -1.2 + ln 2).
        std: Standard deviation of the log.
        data_std: Standard deviation of the data at a site.

    Source:
        Karras, Aittala, Aila & Laine 2022, arXiv:2206.00364.
    """

    mean: float = -1.2 + math.log(2)
    std: float = 1.2
    data_std: float = 0.5

    def quantile(self, u: Float[Tensor, " n"], schedule: Schedule) -> Float[Tensor, " n"]:
        """Quantiles of the truncated normal, as scales."""
        log_snr = [schedule.log_snr(t) for t in (0.0, 1.0)]
        fine, coarse = (-value[value.isfinite()].mean().item() for value in log_snr)
        centre = self.mean + math.log(self.data_std)
        normal = torch.distributions.Normal(0.0, 1.0)
        ends = torch.tensor([(fine - centre) / self.std, (coarse - centre) / self.std], dtype=torch.float64)
        low, high = normal.cdf(ends)
        log_noise = centre + self.std * normal.icdf(low + u.double() * (high - low))
        return ((log_noise - fine) / (coarse - fine)).clamp(0, 1).to(u.dtype)


@dataclass(frozen=True, eq=False)
class PlacedBy:
    """The places that a spacing takes on one schedule, for use on another that has the same cutoffs.

    Args:
        spacing: Whose places.
        schedule: On which.
    """

    spacing: Spacing
    schedule: Schedule

    def quantile(self, u: Float[Tensor, " n"], schedule: Schedule) -> Float[Tensor, " n"]:
        """Those of the schedule that was given first."""
        return self.spacing.quantile(u, self.schedule)

    def exact_grid(self, steps: int, schedule: Schedule) -> list[float]:
        """The scales of a walk from noise to data, without its last point, ``CLEAN``."""
        return grid(self.spacing, self.schedule, steps)[:-1]


SPACINGS: dict[str, Callable[..., Any]] = {
    "log-uniform": LogUniform,
    "linear-beta": LinearBeta,
    "cosine": Cosine,
    "karras": Karras,
    "infrared-angle": InfraredAngle,
    "log-normal": LogNormal,
    "equal-error": EqualError,
    "noise-share": NoiseShare,
    "mode-share": ModeShare,
    "window": Window,
}
