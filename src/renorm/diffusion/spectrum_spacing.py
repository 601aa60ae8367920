r"""Spacings that look at the data: where the steps lie follows from the power spectrum P, and from nothing else.

What they all look at is how much of each mode is left at a scale: its signal-to-noise ratio $\alpha^2 P/\sigma^2$.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from renorm.diffusion.denoiser import denoiser_gain
from renorm.diffusion.schedule import Schedule

__all__ = ["EqualError", "ModeShare", "NoiseShare", "Window"]

EVERYWHERE = 1e-3  # share of the steps that is spread evenly over all scales: a quantile function must rise


@dataclass(frozen=True, eq=False)
class EqualError:
    r"""Steps that each make the same error on Gaussian data of a given spectrum.

    An Euler step of the rotation over a short interval h of t errs by $\tfrac12 h^2 c_k(t)$ in the log-variance of mode
    k. The sum over steps of $h^2 c$, with $c^2 = \sum_k c_k^2$, is smallest where steps are laid with density
    $\propto\sqrt{c(t)}$ (equidistribution).

    Args:
        spectrum: P, variance of every mode of the data.
        resolution: Number of points at which the error is looked up.
    """

    spectrum: Tensor
    resolution: int = 512

    def quantile(self, u: Float[Tensor, " n"], schedule: Schedule) -> Float[Tensor, " n"]:
        """Inverse of the running integral of the density of steps."""
        return _look_up(_running_error(self, schedule), u)

    def error(self, schedule: Schedule, t: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """$c(t)$, the error of an Euler step at each scale over the square of its length."""
        h = 1e-3
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        rotation = schedule.angle(t) - schedule.angle(t - h)
        clean = denoiser_gain(alpha, sigma, self.spectrum.double())
        length = torch.hypot(alpha, sigma / schedule.prior_spectrum.sqrt())
        cos, sin = torch.cos(schedule.angle(t)), torch.sin(schedule.angle(t))
        euler = 1 - rotation * (cos - clean * length) / sin  # one step of the rotation, from phi = 1
        exact = self._variance(schedule, t - h) / self._variance(schedule, t)
        error = torch.where(schedule.alive(t), torch.log(euler**2) - torch.log(exact), 0.0)
        return error.flatten(1).nan_to_num(0.0).norm(dim=1)

    def _variance(self, schedule: Schedule, t: Tensor) -> Tensor:
        """Variance of each mode of the data at scale t, in the frame of preserved variance."""
        share = schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2 / schedule.prior_spectrum
        return (schedule.alpha(t) ** 2 * self.spectrum.double() + schedule.sigma(t) ** 2) / share


@lru_cache(maxsize=8)  # a fit asks at every step
def _running_error(spacing: EqualError, schedule: Schedule) -> Tensor:
    """Share of the steps below each of the points at which the error was looked up."""
    t = torch.linspace(0, 1, spacing.resolution + 1, dtype=torch.float64)
    density = spacing.error(schedule, (t[:-1] + t[1:]) / 2).sqrt()
    density = density + (EVERYWHERE * density.mean()).clamp(min=1e-12)
    cumulative = torch.cat([torch.zeros(1, dtype=torch.float64), density.cumsum(0)])
    return cumulative / cumulative[-1]


@dataclass(frozen=True, eq=False)
class NoiseShare:
    r"""Even in the share of noise that the octaves of the data have on average: scales where something is decided.

    $$ u(t) = \Big\langle\frac{\sigma_k^2}{\alpha_k^2 P_k + \sigma_k^2}\Big\rangle $$

    the mean over octaves of |k| of the means over their modes, so that all scales of the field count alike, however few
    modes the large ones have. Meant for training: hardly a field is spent where every mode is clean, or all are gone.

    Args:
        spectrum: P, variance of every mode of the data.
        resolution: Number of points at which u is looked up.

    Example: half of the fields of a single octave are drawn where the signal is larger than the noise.
        >>> from renorm.diffusion.presets import white
        >>> from renorm.lattice import Lattice
        >>> schedule = white(Lattice((4,)))
        >>> t = NoiseShare(torch.ones(4)).quantile(torch.tensor([0.5], dtype=torch.float64), schedule)
        >>> bool(schedule.log_snr(float(t))[0].abs() < 0.01)
        True
    """

    spectrum: Tensor
    resolution: int = 2048

    def quantile(self, u: Float[Tensor, " n"], schedule: Schedule) -> Float[Tensor, " n"]:
        """Inverse of u(t), stretched to [0, 1]."""
        return _look_up(_noise_share(self, schedule), u)


@dataclass(frozen=True, eq=False)
class ModeShare:
    r"""Even in the share of noise that the modes of the data have on average, and a part of it even over all scales.

    $$ u(t) = (1 - e)\Big\langle\frac{\sigma_k^2}{\alpha_k^2 P_k + \sigma_k^2}\Big\rangle_k + e\,t $$

    Unlike ``NoiseShare`` it counts modes, not octaves: most of the training goes to small structure, of which there is
    most. Meant for chains, whose bonds and angles are rigid: there is much to learn where the noise is as large as what
    they leave open. The part e keeps the coarse scales alive.

    Args:
        spectrum: P, variance of every mode of the data.
        everywhere: e, in (0, 1].
        resolution: Number of points at which u is looked up.

    Example:
        >>> from renorm.diffusion.presets import white
        >>> from renorm.lattice import Lattice
        >>> schedule = white(Lattice((4,)))
        >>> t = ModeShare(torch.ones(4), everywhere=1.0).quantile(torch.tensor([0.5], dtype=torch.float64), schedule)
        >>> round(float(t), 6)
        0.5
    """

    spectrum: Tensor
    everywhere: float = 0.25
    resolution: int = 512

    def quantile(self, u: Float[Tensor, " n"], schedule: Schedule) -> Float[Tensor, " n"]:
        """Inverse of u(t), stretched to [0, 1]."""
        return _look_up(_mode_share(self, schedule), u)


@lru_cache(maxsize=8)
def _noise_share(spacing: NoiseShare, schedule: Schedule) -> Tensor:
    """u at even points of t, from 0 to 1."""
    t = torch.linspace(0, 1, spacing.resolution + 1, dtype=torch.float64)
    parts = t.split(64)  # each holds all modes
    mean = torch.cat([_by_octave(_of_noise(spacing.spectrum, schedule, part), schedule).mean(1) for part in parts])
    return _stretched(mean, t, EVERYWHERE)


@lru_cache(maxsize=1024)  # chains of every length have their own
def _mode_share(spacing: ModeShare, schedule: Schedule) -> Tensor:
    """u at even points of t, from 0 to 1."""
    t = torch.linspace(0, 1, spacing.resolution + 1, dtype=torch.float64)
    taking = torch.cat(_octaves(schedule))
    parts = [_of_noise(spacing.spectrum, schedule, part).flatten(1)[:, taking].mean(1) for part in t.split(64)]
    return _stretched(torch.cat(parts), t, spacing.everywhere)


def _of_noise(spectrum: Tensor, schedule: Schedule, t: Float64[Tensor, " n"]) -> Tensor:
    """Share of the noise in every mode of the data; 1 where nothing is left of either."""
    signal, noise = schedule.alpha(t) ** 2 * spectrum.double(), schedule.sigma(t) ** 2
    both = signal + noise
    return torch.where(both > 0, noise / torch.where(both > 0, both, 1.0), 1.0)


def _stretched(mean: Float64[Tensor, " points"], t: Float64[Tensor, " points"], everywhere: float) -> Tensor:
    """From 0 to 1, and rising, with a part that is even in t."""
    mean = (mean - mean[0]).cummax(0).values
    return (1 - everywhere) * mean / mean[-1] + everywhere * t if mean[-1] > 0 else t


@dataclass(frozen=True, eq=False)
class Window:
    r"""Even in the logarithm of the cutoff, within the window of scales in which the data fade.

    $$ \max_o\Big\langle\frac{\alpha_k^2 P_k}{\sigma_k^2}\Big\rangle_o = \frac1R \quad\text{(coarse end)}, \qquad
       \min_o\Big\langle\frac{\alpha_k^2 P_k}{\sigma_k^2}\Big\rangle_o = R \quad\text{(fine end)}, $$

    o the octaves of |k| that hold anything. Beyond the coarse end nothing is left of any octave and the field is noise;
    beyond the fine end all of them are clear and one look suffices. Between them every step integrates out the same
    log-shell, as in the paper. A walk from noise to data starts at the one end and has its last look at the other; one
    of n steps has R = n / 3, at least 2: few steps are kept together, many go to the ends. A part of a walk is laid out
    by the window of 50 steps.

    Args:
        spectrum: P, variance of every mode of the data.
        per_step: R over the number of steps.

    Example:
        >>> from renorm.diffusion.presets import white
        >>> from renorm.lattice import Lattice
        >>> schedule = white(Lattice((4,)))
        >>> window = Window(torch.ones(4))
        >>> ends = [window.exact_grid(steps, schedule)[0] for steps in (12, 60)]
        >>> [round(float(torch.exp(-2 * schedule.log_snr(t)[0])), 2) for t in ends]
        [4.0, 20.0]
    """

    spectrum: Tensor
    per_step: float = 1 / 3

    def quantile(self, u: Float[Tensor, " n"], schedule: Schedule) -> Float[Tensor, " n"]:
        """Straight lines: from the finest scale to the window (of 50 steps), through it, and on to the coarsest."""
        fine, coarse = _window(self, 50, schedule)
        edges = torch.tensor([0.0, EVERYWHERE, 1 - EVERYWHERE, 1.0], dtype=torch.float64)
        scales = torch.tensor([0.0, fine, coarse, 1.0], dtype=torch.float64)
        place = torch.searchsorted(edges, u.double().cpu().contiguous()).clamp(1, 3)
        low, high = edges[place - 1], edges[place]
        share = (u.double().cpu() - low) / (high - low)
        return torch.lerp(scales[place - 1], scales[place], share).to(u)

    def exact_grid(self, steps: int, schedule: Schedule) -> list[float]:
        """From the coarse end of the window to its fine end."""
        fine, coarse = _window(self, steps, schedule)
        scales: list[float] = torch.linspace(coarse, fine, steps, dtype=torch.float64).tolist()
        return scales


@lru_cache(maxsize=32)  # walks of several lengths, taken in turn
def _window(spacing: Window, steps: int, schedule: Schedule) -> tuple[float, float]:
    """Scales of the fine and the coarse end; those of the schedule where the data reach beyond it."""
    ratio = max(2.0, spacing.per_step * steps)
    filled = _by_octave(spacing.spectrum.double(), schedule) > 0
    if not filled.any():  # data of no variance
        return 0.0, 1.0

    def ratios(t: float) -> Tensor:
        signal, noise = schedule.alpha(t) ** 2 * spacing.spectrum.double(), schedule.sigma(t) ** 2
        return _by_octave((signal / noise).nan_to_num(0.0), schedule)[filled]

    fine = _last(lambda t: bool(ratios(t).min() >= ratio))
    coarse = _last(lambda t: bool(ratios(t).max() > 1 / ratio))
    return (fine, coarse) if fine < coarse else (0.0, 1.0)


def _last(holds: Callable[[float], bool]) -> float:
    """The last t in [0, 1] at which something holds that holds at first, by bisection."""
    if not holds(0.0):
        return 0.0
    if holds(1.0):
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def _look_up(cumulative: Float64[Tensor, " points"], u: Tensor) -> Tensor:
    """t at which a function that is known at even points from 0 to 1 has the values u."""
    cumulative, last = cumulative.to(u.device), len(cumulative) - 1
    inside = torch.searchsorted(cumulative, u.double().contiguous()).clamp(1, last)
    low, high = cumulative[inside - 1], cumulative[inside]
    return ((inside - 1 + (u.double() - low) / (high - low)) / last).to(u.dtype)


def _by_octave(values: Float64[Tensor, "*batch_modes"], schedule: Schedule) -> Tensor:
    """Means over the modes of each octave of |k| (last axis: octaves); modes that take no part are left out."""
    flat = values.flatten(values.ndim - schedule.lattice.dim)
    return torch.stack([flat[..., modes].mean(-1) for modes in _octaves(schedule)], -1)


@lru_cache(maxsize=8)
def _octaves(schedule: Schedule) -> list[Tensor]:
    """Numbers of the modes of each octave, the lowest first; the mean mode is in it."""
    k = schedule.lattice.k_sq().sqrt().flatten()
    octave = (k / k[k > 0].min()).clamp(min=1).log2().floor().long() if len(k) > 1 else torch.zeros(1).long()
    frozen = schedule.frozen_modes
    taking = torch.ones_like(octave, dtype=torch.bool) if frozen is None else ~frozen.flatten()
    return [(taking & (octave == o)).nonzero()[:, 0] for o in octave[taking].unique()]
