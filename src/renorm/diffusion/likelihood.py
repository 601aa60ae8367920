r"""How likely a field is to a diffusion: a bound that follows from its noise, or the density that its flow carries.

Both go from the data to noise and give what every mode adds, so that they can be told scale by scale. Both know that
a mode which is integrated out leaves with its Gaussian law, from which generation draws it. The frame is that of the
clean field, $y = \phi/\alpha$, with noise $n = \sigma/\alpha$.
"""

import itertools
import math
from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from renorm.diffusion.denoiser import Denoiser
from renorm.diffusion.schedule import Schedule
from renorm.spec import require

__all__ = ["bits_per_dimension", "flow_log_prob", "modes_log_prob", "variational_bound"]

RK4 = 4  # evaluations of a step of Runge and Kutta
NEAR = 1e-4  # in ln x, over which the slope of a regulator is measured


def bits_per_dimension(log_prob: Tensor, dimensions: int, *, bin_width: float = 1.0) -> Tensor:
    r"""Bits of each number of a field, $-\ln p / (D \ln 2) - \log_2 w$, for data that are known up to bins of width w.

    A field of bytes in [-1, 1], to which uniform noise of a bin was added, has w = 2/255; w = 1 leaves a density alone.

    Args:
        log_prob: Nats.
        dimensions: D.
        bin_width: w, in field units.

    Example: a byte that may be anything has eight bits.
        >>> bits_per_dimension(torch.tensor(-math.log(256.0)), 1)
        tensor(8.)
    """
    return -log_prob / (dimensions * math.log(2)) - math.log2(bin_width)


@torch.no_grad()
def variational_bound(
    schedule: Schedule,
    denoiser: Denoiser,
    clean: Float[Tensor, "batch channel *modes"],
    *,
    generator: torch.Generator,
    evaluations: int = 100,
    mean: Tensor | None = None,
    spectrum: Tensor | None = None,
    condition: Int[Tensor, " batch"] | None = None,
) -> Float[Tensor, "batch channel *modes"]:
    r"""A lower bound of $\ln p(x)$ in expectation, as what each mode adds to it, in nats.

    $$ \ln p(x) \ge \Big\langle -\int_0^{t_k} \tfrac12 \big(x_k - x_{0,k}(\phi_t)\big)^2\,
       \Big|\frac{d}{dt}\frac{1}{n_k^2}\Big|\,dt
       - \mathrm{KL}\big(q(\phi_k(t_k)|x)\,\|\,p(\phi_k)\big)
       + \ln N\big(x_k;\, x_{0,k}(\phi_0), v_k\big)\Big\rangle $$

    for each mode, up to the scale $t_k$ at which it is integrated out (1 if it never is), $v^{-1} = n_0^{-2} + R^{-1}$.
    The integral is a mean over even steps of t with an offset that is drawn for each field, so nothing is left out on
    average. What the denoiser of Gaussian fields of spectrum R would add is known, and only the difference from it,
    with the same noise, is averaged: where data are such fields, no chance is left.

    Args:
        schedule: The forward flow.
        denoiser: Gives E[phi_0 | phi_t], for a batch of scales too.
        clean: Modes of clean fields.
        generator: Draws the noise and the offsets.
        evaluations: Of the denoiser, for each field.
        mean: m, mean of the modes that enter, see ``reverse.start``.
        spectrum: R, their variance; where it is not given, the prior's, and modes enter as the schedule says.
        condition: Class of each field.

    Raises:
        ValueError: If there are fewer than 2 evaluations.

    Source:
        Kingma, Salimans, Poole & Ho 2021, arXiv:2107.00630, here mode by mode.
    """
    require(evaluations >= 2, "a bound needs at least 2 evaluations (one on the way, one at its end)", evaluations)
    flow = _Noise(schedule, clean.device, spectrum, mean)
    steps, beside = evaluations - 1, (1,) * (clean.ndim - 1)
    offset = torch.rand(len(clean), generator=generator, device=generator.device, dtype=torch.float64).to(clean.device)
    total = torch.zeros_like(clean, dtype=torch.float64)

    def excess(t: Tensor, noise: Tensor) -> Tensor:
        """Square error of the denoiser less that of Gaussian fields."""
        z = torch.randn(clean.shape, generator=generator, device=generator.device).to(clean)
        alpha, sigma = (a.unsqueeze(1).to(clean) for a in (schedule.alpha(t), schedule.sigma(t)))
        phi = torch.where(schedule.alive(t).unsqueeze(1), alpha * clean + sigma * z, 0.0)
        gain = flow.gain(noise)
        gaussian = (1 - gain) * flow.centred(clean) - gain * noise * z
        return (clean - denoiser(phi, t, condition)).double().square() - gaussian.square()

    for i in range(steps):
        t = (i + offset) / steps
        noise, speed = (value.unsqueeze(1) for value in flow.at(t))
        alive = flow.taking & (t.reshape(-1, *beside) <= flow.last)
        total -= torch.where(alive, speed / noise**2 * excess(t, noise), 0.0) / steps
    first = torch.zeros(len(clean), dtype=torch.float64, device=clean.device)
    fine, coarse = flow.noise(flow.x(0.0)), flow.noise(flow.x(flow.last))
    variance = 1 / (1 / fine**2 + 1 / flow.spectrum)
    total -= 0.5 * excess(first, fine) / variance
    known = flow.gaussian_bound(clean, fine, coarse) - flow.divergence(clean, coarse)
    total = torch.where(flow.alive(0.0), total + known, flow.log_clean(clean))
    return torch.where(flow.taking, total, 0.0).to(clean)


def flow_log_prob(
    schedule: Schedule,
    denoiser: Denoiser,
    clean: Float[Tensor, "batch channel *modes"],
    *,
    generator: torch.Generator,
    evaluations: int = 100,
    mean: Tensor | None = None,
    spectrum: Tensor | None = None,
    condition: Int[Tensor, " batch"] | None = None,
) -> Float[Tensor, "batch channel *modes"]:
    r"""$\ln p(x)$ by the change of density along the probability flow, as what each mode adds to it, in nats.

    $$ \frac{dy_k}{d\ln n_k} = y_k - x_{0,k}(\phi), \qquad
       \ln p(x) = \sum_k \ln p\big(y_k(t_k)\big)
       + \int \sum_k \Big(1 - \frac{\partial x_{0,k}}{\partial y_k}\Big)\, d\ln n_k $$

    What Gaussian fields of spectrum R would add is known, so that the method of Runge and Kutta (fourth order, even
    steps of t) has only the rest to do, with $g = R/(R + n^2)$:

    $$ z = \frac{y}{\sqrt{R + n^2}}, \qquad \frac{dz}{d\ln n} = -\frac{x_0 - g\,y}{\sqrt{R + n^2}}, \qquad
       \int \Big(1 - \frac{\partial x_0}{\partial y}\Big) d\ln n = \tfrac12\ln\frac{R + n_t^2}{R + n_s^2}
       + \int \Big(g - \frac{\partial x_0}{\partial y}\Big) d\ln n $$

    The trace is Hutchinson's, with one vector of signs for each field: exact where modes do not mix, right on average
    elsewhere. From clean data to the finest scale, which the denoiser knows nothing of, fields go as Gaussian ones do.

    Args:
        schedule: The forward flow.
        denoiser: Gives E[phi_0 | phi_t], and can be differentiated.
        clean: Modes of clean fields.
        generator: Draws the signs.
        evaluations: Of the denoiser; a step takes four.
        mean, spectrum, condition: As for ``variational_bound``.

    Raises:
        ValueError: If there are fewer than 4 evaluations.

    Source:
        Song et al. 2021, arXiv:2011.13456, appendix D.2; Grathwohl et al. 2019, arXiv:1810.01367.
    """
    require(evaluations >= RK4, f"a flow needs at least {RK4} evaluations (one step of fourth order)", evaluations)
    flow = _Noise(schedule, clean.device, spectrum, mean)
    signs = torch.randint(0, 2, clean.shape, generator=generator, device=generator.device).to(clean) * 2 - 1
    alive = flow.taking & flow.alive(0.0)
    never = flow.taking & ~alive  # integrated out at every scale: drawn at once, when the data are
    still = torch.zeros_like(flow.prior)
    z = flow.centred(clean) / flow.length(still)
    total = torch.log(flow.length(flow.at(0.0).noise) / flow.length(still)) + torch.zeros_like(z)
    scales = torch.linspace(0, 1, evaluations // RK4 + 1, dtype=torch.float64).tolist()
    for s, t in pairwise(scales):
        stays = alive & flow.alive(t)
        total += torch.where(alive & ~stays, flow.log_entry(z, s), 0.0)
        alive, slope, moved = stays, torch.zeros_like(z), torch.zeros_like(z)
        for u, share, weight in ((s, 0.0, 1), ((s + t) / 2, 0.5, 2), ((s + t) / 2, 0.5, 2), (t, 1.0, 1)):
            (noise, speed), alpha = flow.at(u), schedule.alpha(u).to(clean)
            length, gain, advance = flow.length(noise), flow.gain(noise), torch.where(alive, speed * (t - s), 0.0)
            with torch.enable_grad():
                y = torch.where(alive, flow.mean + length * (z + share * slope), 0.0).to(clean).requires_grad_()
                x0 = denoiser(alpha * y, u, condition)
                (back,) = torch.autograd.grad((signs * x0).sum(), y)
            slope = advance / length * (gain * flow.centred(y) - flow.centred(x0)).detach()
            moved = moved + weight / 6 * slope
            total += weight / 6 * advance * (gain - back * signs)
        growth = torch.log(flow.length(flow.at(t).noise) / flow.length(flow.at(s).noise))
        z, total = z + moved, total + torch.where(alive, growth, 0.0)
    total = torch.where(never, flow.log_clean(clean), total + torch.where(alive, flow.log_entry(z, 1.0), 0.0))
    return torch.where(flow.taking, total, 0.0).to(clean)


def modes_log_prob(
    schedule: Schedule,
    denoiser: Denoiser,
    clean: Iterable[Float[Tensor, "batch channel *modes"]],
    *,
    method: str,
    condition: Iterable[Tensor] | None,
    generator: torch.Generator,
    evaluations: int,
    mean: Tensor | None,
    spectrum: Tensor | None,
) -> Float[Tensor, "all channel *modes"]:
    """Batch by batch, ``variational_bound`` (``"bound"``) or ``flow_log_prob`` (``"flow"``), in float64."""
    way = variational_bound if method == "bound" else flow_log_prob
    classes = itertools.repeat(None) if condition is None else condition
    parts = [
        way(
            schedule,
            denoiser,
            modes,
            generator=generator,
            evaluations=evaluations,
            mean=mean,
            spectrum=spectrum,
            condition=named,
        )
        for modes, named in zip(clean, classes, strict=False)
    ]
    return torch.cat(parts).double()


class _At(NamedTuple):
    noise: Tensor
    speed: Tensor  # d ln n / dt


class _Noise:
    """Noise $n = \\sqrt{G / r(x)}$ of every mode in the frame of the clean field, and the law by which a mode enters.

    Attributes:
        spectrum: R, variance of the modes of the data, or the prior's.
        mean: m, about which they vary; zero if none is taken out.
        taking: True for the modes that take part.
        last: Scale at which each mode is integrated out; 1 if it never is.
    """

    def __init__(self, schedule: Schedule, device: torch.device, spectrum: Tensor | None, mean: Tensor | None) -> None:
        self.schedule, self.device = schedule, device
        self.prior, self._q_sq = schedule.prior_spectrum.to(device), schedule.wavenumber_sq.to(device)
        self.spectrum = self.prior if spectrum is None else spectrum.to(device).double().clamp(min=1e-300)
        enters_with_signal = spectrum is not None or schedule.entry == "prior"
        self._entering = self.spectrum if enters_with_signal else torch.zeros_like(self.spectrum)
        self.mean = torch.zeros((), dtype=torch.float64, device=device) if mean is None else mean.to(device).double()
        self.taking = schedule.sigma(1.0).to(device) > 0
        log_ratio = math.log(schedule.cutoff_coarse / schedule.cutoff_fine)
        self._growth = -2 * log_ratio  # of ln x, over all scales
        self.last = schedule.leaves_at().to(device).clamp(0, 1)

    def x(self, t: float | Tensor) -> Tensor:
        """$q^2/\\Lambda^2$ at one scale, or at one for each mode."""
        return self._q_sq / self.schedule.cutoff_fine**2 * math.e ** (self._growth * t)

    def noise(self, x: Tensor) -> Tensor:
        """n."""
        return (self.prior / self.schedule.regulator.r(x)).sqrt()

    def at(self, t: float | Tensor) -> _At:
        """n and its speed at one scale, or at a batch of them, which then leads."""
        if isinstance(t, Tensor):
            t = t.reshape(-1, *(1,) * self.prior.ndim)
        x, near = self.x(t), math.exp(NEAR)
        speed = torch.log(self.noise(x * near) / self.noise(x / near)) / (2 * NEAR) * self._growth
        return _At(self.noise(x), speed)

    def alive(self, t: float) -> Tensor:
        """True for the modes that are not integrated out."""
        return self.schedule.alive(t).to(self.device)

    def gain(self, noise: Tensor) -> Tensor:
        """g = R / (R + n^2)."""
        return self.spectrum / (self.spectrum + noise**2)

    def length(self, noise: Tensor) -> Tensor:
        """Standard deviation of a mode of the data with its noise."""
        return (self.spectrum + noise**2).sqrt()

    def centred(self, modes: Tensor) -> Tensor:
        """Clean modes, or those in their frame, about the mean."""
        return modes.double() - self.mean

    def log_entry(self, z: Tensor, t: float) -> Tensor:
        """Log density of modes at the scale at which generation draws them."""
        noise = self.at(t).noise
        variance = self._entering + noise**2
        return -0.5 * ((self.length(noise) * z) ** 2 / variance + torch.log(2 * math.pi * variance))

    def log_clean(self, clean: Tensor) -> Tensor:
        """Log density of clean modes as Gaussian ones of spectrum R: of those that no scale knows."""
        return -0.5 * (self.centred(clean) ** 2 / self.spectrum + torch.log(2 * math.pi * self.spectrum))

    def divergence(self, clean: Tensor, noise: Tensor) -> Tensor:
        """Of the law of noisy modes of these fields from the one by which modes enter."""
        variance = self._entering + noise**2
        share = noise**2 / variance
        return 0.5 * (share - 1 - torch.log(share) + self.centred(clean) ** 2 / variance)

    def gaussian_bound(self, clean: Tensor, fine: Tensor, coarse: Tensor) -> Tensor:
        r"""Integral and end of the bound for $x_0 = g y$ (all about m), in closed form; $c = 1 - g$ at both ends.

        $$ -\frac{x^2}{2R}\,(c_1 - c_0) - \tfrac12\Big(\ln\frac{c_1}{c_0} + c_0 - c_1\Big)
           - \frac{c_0^2 x^2 + (1 - c_0)^2 n_0^2}{2v} - \tfrac12\ln 2\pi v $$
        """
        square, left_fine, left_coarse = self.centred(clean) ** 2, 1 - self.gain(fine), 1 - self.gain(coarse)
        variance = self.spectrum * left_fine
        way = square / self.spectrum * (left_coarse - left_fine) + torch.log(left_coarse / left_fine)
        end = (left_fine**2 * square + (1 - left_fine) ** 2 * fine**2) / variance + torch.log(2 * math.pi * variance)
        return -0.5 * (way + left_fine - left_coarse + end)
