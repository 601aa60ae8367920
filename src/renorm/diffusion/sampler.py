r"""Samplers: one step of the reverse flow, from scale t to a finer scale s < t, in the space of modes.

All act mode by mode on ``phi``, with ``x0 = E[phi_0 | phi_t]`` from the denoiser and

    alpha, sigma          amplitudes of signal and noise at t (at s: alpha_s, sigma_s)
    z_hat = (phi - alpha x0) / sigma        the noise that the denoiser sees

Each declares its ``order`` (of the error in the law that it reaches, as the number of steps grows); a test measures it.
A new sampler is one new class with ``step`` and one line in ``SAMPLERS``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from renorm.diffusion.remaining import RemainingError
from renorm.diffusion.reverse import Sampler, Walk
from renorm.diffusion.running import RunningSpectrum
from renorm.diffusion.schedule import CLEAN

__all__ = [
    "DDIM",
    "DPM2M",
    "SAMPLERS",
    "Analytic",
    "Ancestral",
    "Angle",
    "AnglePC",
    "Heun",
    "RunningSpectrum",
    "Sampler",
]


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """numerator / denominator, and 0 where the denominator vanishes (modes that are finished have no noise)."""
    return torch.where(denominator != 0, numerator / torch.where(denominator != 0, denominator, 1.0), 0.0)


def step_back(
    phi: Tensor, x0: Tensor, at: tuple[Tensor, Tensor], t: float, s: float, walk: Walk
) -> tuple[Tensor, Tensor]:
    """Mean of the field at s, given that at t, its (alpha, sigma) and the clean one; variance of the forward step."""
    alpha, sigma = at
    alpha_step, variance = (c.to(phi) for c in walk.schedule.transition(s, t))
    z_hat = _ratio(phi - alpha * x0, sigma)
    return x0 if s == CLEAN else _ratio(phi - _ratio(variance, sigma) * z_hat, alpha_step), variance


@dataclass(frozen=True, eq=False)
class Ancestral:
    r"""Steps back through the Markov chain, with fresh noise.

    $$ \phi_s = \alpha_{t|s}^{-1}\Big(\phi_t - \frac{\sigma^2_{t|s}}{\sigma_t}\,\hat z\Big) + \sqrt{v}\,z, \qquad
       v = \sigma^2_{t|s}\,\frac{\alpha_s^2 P + \sigma_s^2}{\alpha_t^2 P + \sigma_t^2} $$

    Args:
        variance: P, the spectrum of the data, for which each step is then exact if they are Gaussian; or one of its
            limits, ``"small"``: P = 0, so $v = \sigma^2_{t|s}\sigma_s^2/\sigma_t^2$, and ``"large"``: P that of the
            prior, so $v = \sigma^2_{t|s}$ (in the rescaled frame). In the limits, modes that are finished at s get
            no noise, and the step to clean data is $x_0$.

    Source:
        Ho, Jain & Abbeel 2020, arXiv:2006.11239, for the limits; large is the variance of Masuki & Ashida 2025.
        Bao, Li, Zhu & Zhang 2022, arXiv:2201.06503, for the variance that the data ask for.
    """

    variance: Literal["large", "small"] | Tensor = "large"
    order = 1
    evaluations = 1

    def step(self, phi: Tensor, t: float, s: float, walk: Walk, memory: Any) -> tuple[Tensor, Any]:
        """One ancestral step."""
        alpha, sigma, alpha_s, sigma_s = walk.amplitudes(t, s)
        x0 = walk.denoise(phi, t)
        if s == CLEAN and isinstance(self.variance, str):
            return x0, None
        mean, variance = step_back(phi, x0, (alpha, sigma), t, s, walk)
        if isinstance(self.variance, Tensor):
            spectrum = self.variance.to(phi)
            v = variance * _ratio(alpha_s**2 * spectrum + sigma_s**2, alpha**2 * spectrum + sigma**2)
        else:
            v = variance if self.variance == "large" else variance * _ratio(sigma_s, sigma) ** 2
            v = torch.where(sigma_s > 0, v, 0.0)
        return mean + v.sqrt() * walk.draw(), None


@dataclass(frozen=True, eq=False)
class Analytic:
    r"""Ancestral steps whose noise is what the denoiser was measured to leave open.

    $$ v = \sigma^2_{t|s}\frac{\sigma_s^2}{\sigma_t^2}
         + \Big(\frac{\alpha_s\,\sigma^2_{t|s}}{\sigma_t^2}\Big)^2 \rho\,\frac{P\sigma_t^2}{\alpha_t^2P + \sigma_t^2} $$

    with P the spectrum of the data (the prior's if it is not known). Modes become clean without noise, as $x_0$: all in
    the step to clean data, and each that is finished at s. But for these, $\rho = 1$ is ``Ancestral(P)``, and 0 its
    limit ``"small"``. What is lost is the last bit of their variance: in few steps some of it, in 50 next to nothing.

    Args:
        remaining: $\rho$, see ``RemainingError``; 1 if not measured, as it is of other models than those of chains.

    Source:
        Bao, Li, Zhu & Zhang 2022, arXiv:2201.06503, for an exact score; Bao, Li, Sun, Zhu & Zhang 2022,
        arXiv:2206.07309, for the error of one that was learned.
    """

    remaining: RemainingError | None = None
    order = 1
    evaluations = 1

    def step(self, phi: Tensor, t: float, s: float, walk: Walk, memory: Any) -> tuple[Tensor, Any]:
        """One ancestral step."""
        alpha, sigma, alpha_s, sigma_s = walk.amplitudes(t, s)
        x0 = walk.denoise(phi, t)
        if s == CLEAN:
            return x0, None
        mean, variance = step_back(phi, x0, (alpha, sigma), t, s, walk)
        spectrum = (walk.schedule.prior_spectrum if walk.spectrum is None else walk.spectrum).to(phi)
        signal = alpha**2 * spectrum
        left = _ratio(spectrum * sigma**2, signal + sigma**2)
        if self.remaining is not None:
            ratio = _ratio(signal, sigma**2).clamp(min=1e-30).log()
            left = left * self.remaining.at(t, ratio.flatten()).reshape(left.shape)
        v = variance * _ratio(sigma_s, sigma) ** 2 + _ratio(alpha_s * variance, sigma**2) ** 2 * left
        return mean + torch.where(sigma_s > 0, v, 0.0).sqrt() * walk.draw(), None


@dataclass(frozen=True)
class DDIM:
    r"""Keep the noise that the denoiser sees: $\phi_s = \alpha_s x_0 + \sigma_s \hat z$.

    Source:
        Song, Meng & Ermon 2020, arXiv:2010.02502.
    """

    order = 1
    evaluations = 1

    def step(self, phi: Tensor, t: float, s: float, walk: Walk, memory: Any) -> tuple[Tensor, Any]:
        """One deterministic step."""
        alpha, sigma, alpha_s, sigma_s = walk.amplitudes(t, s)
        x0 = walk.denoise(phi, t)
        return alpha_s * x0 + sigma_s * _ratio(phi - alpha * x0, sigma), None


class _Rotation(NamedTuple):
    """The probability flow as a rotation by theta, in the frame in which the prior's variance is preserved."""

    phi: Tensor
    velocity: Tensor
    theta: Tensor


def _rotation(phi: Tensor, t: float, walk: Walk) -> _Rotation:
    r"""The field over its length, and $v = d\phi/d\theta = (\cos\theta\,\phi - x_0)/\sin\theta$."""
    x0 = walk.denoise(phi, t)
    theta, length = walk.angle(t)
    phi = phi / length
    return _Rotation(phi, _ratio(torch.cos(theta) * phi - x0, torch.sin(theta)), theta)


@dataclass(frozen=True)
class Angle:
    r"""Euler steps in the angle $\theta = \arctan(\sigma/\sqrt{G}\alpha)$ of every mode.

    $$ \phi_s = \phi_t + (\theta_s - \theta_t)\,v $$

    Exact where the data have the prior's spectrum, since there v = 0.
    """

    order = 1
    evaluations = 1

    def step(self, phi: Tensor, t: float, s: float, walk: Walk, memory: Any) -> tuple[Tensor, Any]:
        """One Euler step of the rotation."""
        now = _rotation(phi, t, walk)
        theta_s, length_s = walk.angle(s)
        return length_s * (now.phi + (theta_s - now.theta) * now.velocity), None


@dataclass(frozen=True)
class AnglePC:
    r"""Predict by Euler, correct by the trapezoid rule, both in the angle, at one evaluation a step.

    The velocity v at the predicted point is also used to correct the step that led there, before the next one is
    predicted; the last step, which nothing will correct, is predicted to second order (Adams-Bashforth).

    $$ \phi_t \leftarrow \phi_r + \tfrac12(\theta_t - \theta_r)(v_r + v_t), \qquad
       \phi_s = \phi_t + (\theta_s - \theta_t)\,v_t $$

    An Euler predictor is damped where the multistep one rings, which is what counts at ten steps.

    Source:
        A predictor-corrector in the manner of UniPC (Zhao et al. 2023, arXiv:2302.04867), in the angle of each mode.
    """

    order = 2
    evaluations = 1

    def step(self, phi: Tensor, t: float, s: float, walk: Walk, memory: Any) -> tuple[Tensor, Any]:
        """Correct the last step, then predict the next."""
        now = _rotation(phi, t, walk)
        theta_s, length_s = walk.angle(s)
        x, slope = now.phi, now.velocity
        if memory is not None:
            before: _Rotation = memory
            turn = now.theta - before.theta
            known = walk.seasoned & (turn != 0)
            x = torch.where(known, before.phi + turn * (before.velocity + slope) / 2, x)
            if s == CLEAN:
                growth = _ratio(theta_s - now.theta, 2 * turn) * (slope - before.velocity)
                slope = torch.where(known, slope + growth, slope)
        phi_s = length_s * (x + (theta_s - now.theta) * slope)
        return phi_s, now._replace(phi=x)


class _Estimate(NamedTuple):
    x0: Tensor
    log_snr: Tensor


@dataclass(frozen=True)
class DPM2M:
    r"""DPM-Solver++(2M): second-order multistep in the log signal-to-noise ratio $\lambda = \ln(\alpha/\sigma)$.

    $$ \phi_s = \frac{\sigma_s}{\sigma_t}\phi_t
       + \alpha_s(1 - e^{-h})\Big[x_0 + \frac{h}{2 h'}(x_0 - x_0')\Big], \qquad h = \lambda_s - \lambda_t, $$

    where the primes mark the step before.

    The step to clean data is $x_0$.

    Source:
        Lu et al. 2022, arXiv:2211.01095.
    """

    order = 2
    evaluations = 1

    def step(self, phi: Tensor, t: float, s: float, walk: Walk, memory: Any) -> tuple[Tensor, Any]:
        """One multistep step."""
        _, sigma, alpha_s, sigma_s = walk.amplitudes(t, s)
        x0 = walk.denoise(phi, t)
        now = _Estimate(x0, walk.log_snr(t))
        if s == CLEAN:
            return x0, now
        h = walk.log_snr(s) - now.log_snr
        slope = torch.zeros_like(x0)
        if memory is not None:
            before: _Estimate = memory
            slope = torch.where(walk.seasoned, _ratio(h, 2 * (now.log_snr - before.log_snr)) * (x0 - before.x0), slope)
        stays = (sigma == 0) | (sigma_s == 0)  # finished, or finishing in this step
        moved = _ratio(sigma_s, sigma) * phi - alpha_s * torch.expm1(-h) * (x0 + slope)
        return torch.where(stays, alpha_s * x0, moved), now


@dataclass(frozen=True)
class Heun:
    r"""EDM's Heun: the trapezoid rule in the frame $y = \phi/\alpha$, at two evaluations a step.

    $$ \frac{dy}{d\sigma} = \frac{y - x_0}{\sigma} $$

    The step to clean data is Euler's, $x_0$.

    Source:
        Karras, Aittala, Aila & Laine 2022, arXiv:2206.00364.
    """

    order = 2
    evaluations = 2

    def step(self, phi: Tensor, t: float, s: float, walk: Walk, memory: Any) -> tuple[Tensor, Any]:
        """Euler to s, a second look there, and the mean of both slopes."""
        alpha, sigma, alpha_s, sigma_s = walk.amplitudes(t, s)
        x0 = walk.denoise(phi, t)
        euler = alpha_s * x0 + sigma_s * _ratio(phi - alpha * x0, sigma)
        if s == CLEAN:
            return euler, None
        x0_s = walk.denoise(walk.admit(euler), s)
        level, level_s = _ratio(sigma, alpha), _ratio(sigma_s, alpha_s)
        y = _ratio(phi, alpha)
        slope = (_ratio(y - x0, level) + _ratio(_ratio(euler, alpha_s) - x0_s, level_s)) / 2
        corrected = alpha_s * (y + (level_s - level) * slope)
        return torch.where((sigma == 0) | (sigma_s == 0), euler, corrected), None


SAMPLERS: dict[str, Callable[[], Sampler]] = {
    "ancestral": Ancestral,
    "ancestral-small": lambda: Ancestral(variance="small"),
    "analytic": Analytic,
    "ddim": DDIM,
    "angle": Angle,
    "angle-pc": AnglePC,
    "dpm2m": DPM2M,
    "heun": Heun,
    "running": RunningSpectrum,
    "running-churn": lambda: RunningSpectrum(churn=1.0),
}
