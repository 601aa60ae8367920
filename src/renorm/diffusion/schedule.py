r"""The forward flow: t -> cutoff -> signal, noise and alive modes, for any prior, regulator and lattice.

    phi_k(t) = alpha_k(t) phi_k(0) + sigma_k(t) z_k,     z_k ~ N(0, 1)

One class serves every diffusion of the library: what differs between the paper's images, its chains, white noise and
EDM are values (see ``renorm.diffusion.presets``). Nothing is tabulated: every coefficient is computed in float64 from
the cutoff when it is asked for, so that the number of steps is chosen at sampling time.
"""

import math
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from renorm.diffusion.regulator import Rational, Regulator
from renorm.lattice import Lattice
from renorm.spec import require

__all__ = ["CLEAN", "Schedule", "Transition"]

CLEAN = -math.inf
"""The scale of clean data: the cutoff is infinite there, so every mode has alpha = 1 and sigma = 0."""

_ROUNDING = 1e-9  # a mode that sits on a threshold belongs to the side that exact arithmetic puts it on


class Transition(NamedTuple):
    """Law of one step from scale s to a coarser scale t: ``phi_t = alpha phi_s + sqrt(variance) z``."""

    alpha: Tensor
    variance: Tensor


@dataclass(frozen=True, eq=False)
class Schedule:
    r"""How each mode fades as the cutoff falls, continuous in the scale t.

    With $x_k = q_k^2 / \Lambda^2$, the regulator's $r(x)$ and the prior spectrum $G_k$,

    $$ \alpha_k^2 = \frac{r(x_k)}{1 + r(x_k)}, \qquad \sigma_k^2 = (1 - \alpha_k^2)\,G_k, \qquad
       \Lambda(t) = \Lambda_0\,(\Lambda_1/\Lambda_0)^{t}. $$

    t = 0 is the finest noisy scale (cutoff $\Lambda_0$), t = 1 the coarsest ($\Lambda_1$), ``CLEAN`` the data.

    Args:
        lattice: Where the field lives; its modes carry the arrays below.
        wavenumber_sq: $q_k^2$ of every mode, in (rad/site)^2 (float64, shape ``lattice.shape``).
        prior_spectrum: $G_k$, variance of every mode at the fixed point (float64, same shape).
        cutoff_fine, cutoff_coarse: $\Lambda_0 > \Lambda_1 > 0$, in rad/site.
        regulator: Shape function r(x).
        dead_beyond: Modes with $x_k$ beyond this (one number, or one for each) are integrated out: they carry no
            signal, and the projection sets them to zero. Infinite: no mode is ever projected out.
        clean_below: Modes with $x_k$ below this are finished: alpha = 1 and sigma = 0.
        undying: Modes that are never integrated out, however little signal they carry; none if not given.
        frozen_modes: Modes that do not take part at all (the centre of mass of a chain); always zero.
        rescaled: True keeps the variance of the prior (variance preserving); False leaves the signal at amplitude 1
            and lets the noise grow (variance exploding): the same law seen in the frame $\phi/\alpha$.
        weighting: How the loss weight is normalised, by noise ``"variance"`` (images) or by mode ``"count"`` (chains).
        entry: What a mode is drawn from when it comes alive in generation, if the data's spectrum is not known: the
            ``"noise"`` at that scale (the paper, which neglects the signal there), or the whole ``"prior"``, right
            where the data have its spectrum.
        steps: The number of steps that the schedule was designed for; any other may be chosen.

    Invariant:
        A field of spectrum G is a fixed point, ``alpha**2 * G + sigma**2 == G`` at every scale (if rescaled).

    Source:
        Masuki & Ashida 2025, arXiv:2501.09064; Polchinski's equation for a Gaussian fixed point of spectrum G.

    Example:
        >>> from renorm.diffusion.presets import rgdm_images
        >>> schedule = rgdm_images(Lattice((32, 32)))
        >>> round(schedule.cutoff(0.0).item(), 5), int(schedule.alive(1.0).sum())
        (47.12153, 4)
    """

    lattice: Lattice
    wavenumber_sq: Tensor
    prior_spectrum: Tensor
    cutoff_fine: float
    cutoff_coarse: float
    regulator: Regulator = field(default_factory=Rational)
    dead_beyond: float | Tensor = math.inf
    clean_below: float = 0.0
    undying: Tensor | None = None
    frozen_modes: Tensor | None = None
    rescaled: bool = True
    weighting: Literal["variance", "count"] = "variance"
    entry: Literal["noise", "prior"] = "noise"
    steps: int = 1000

    def __post_init__(self) -> None:
        require(
            self.cutoff_fine > self.cutoff_coarse > 0,
            "the cutoff must fall from fine to coarse and stay > 0",
            (self.cutoff_fine, self.cutoff_coarse),
        )
        for name in ("wavenumber_sq", "prior_spectrum"):
            value = getattr(self, name)
            require(tuple(value.shape) == self.lattice.shape, f"{name} must have the lattice's shape", value.shape)
            require(value.dtype == torch.float64, f"{name} must be float64", value.dtype)
        smallest = self.prior_spectrum.min().item()
        require(
            smallest > 0,
            "the prior spectrum must be > 0 for every mode (noise of variance 0 cannot be undone)",
            smallest,
        )

    # -- the flow ------------------------------------------------------------------------------------------------

    def cutoff(self, t: float) -> Float[Tensor, ""]:
        r"""Cutoff $\Lambda(t)$ in rad/site; infinite at ``CLEAN``."""
        return torch.tensor(self.cutoff_fine * self._ratio**t if t != CLEAN else math.inf, dtype=torch.float64)

    def time(self, cutoff: float) -> float:
        r"""The scale t at which the cutoff is $\Lambda$, the inverse of ``cutoff``."""
        require(cutoff > 0, "cutoff must be > 0", cutoff)
        return math.log(cutoff / self.cutoff_fine) / math.log(self._ratio)

    def alpha(self, t: float | Tensor) -> Float[Tensor, "*modes"]:
        """Amplitude of the signal in every mode (dimensionless); ``t`` may be a batch, which then leads."""
        x = self._x(t)
        signal, _ = self._shares(x)
        alpha = signal.sqrt() if self.rescaled else torch.ones_like(signal)
        return self._only_live(alpha)

    def sigma(self, t: float | Tensor) -> Float[Tensor, "*modes"]:
        """Amplitude of the noise in every mode (field units); ``t`` may be a batch, which then leads."""
        x = self._x(t)
        signal, noise = self._shares(x)
        share = noise if self.rescaled else noise / signal
        return self._only_live((share * self.prior_spectrum.to(x.device)).sqrt())

    def alive(self, t: float | Tensor) -> Bool[Tensor, "*modes"]:
        """True for the modes that still carry signal: the paper's projection keeps these and zeroes the others."""
        x = self._x(t)
        alive = x <= self._dead_beyond(x.device) * (1 + _ROUNDING)
        return self._only_live(alive if self.undying is None else alive | self.undying.to(alive.device))

    def leaves_at(self) -> Float[Tensor, "*modes"]:
        """Scale t beyond which each mode is integrated out; infinite if it never is, or takes no part."""
        log_cutoff = 0.5 * torch.log(self.wavenumber_sq / torch.as_tensor(self.dead_beyond, dtype=torch.float64))
        scale = (log_cutoff - math.log(self.cutoff_fine)) / math.log(self._ratio)
        for never in (self.undying, self.frozen_modes):
            scale = scale if never is None else torch.where(never, math.inf, scale)
        return scale

    def active(self, t: float | Tensor) -> Bool[Tensor, "*modes"]:
        """True for the modes that are alive and not yet finished: the shell in which a step of the flow works."""
        return self.alive(t) & (self._x(t) >= self.clean_below * (1 - _ROUNDING))

    def shell(self, t: float, s: float) -> Bool[Tensor, "*modes"]:
        """Modes between two cutoffs: integrated out at t, alive at the finer scale s < t."""
        return self.alive(s) & ~self.alive(t)

    def entry_std(self, t: float) -> Float[Tensor, "*modes"]:
        """Standard deviation of the law from which modes that come alive at t are drawn, see ``entry``."""
        sigma = self.sigma(t)
        if self.entry == "noise":
            return sigma
        return (sigma**2 + self.alpha(t) ** 2 * self.prior_spectrum).sqrt()

    def transition(self, s: float, t: float) -> Transition:
        r"""Law of the step from s to the coarser scale t > s.

        $$ \alpha_{t|s} = \alpha_t / \alpha_s, \qquad \sigma^2_{t|s} = \sigma_t^2 - \alpha_{t|s}^2\,\sigma_s^2
           = G\,(n_t - n_s)/\alpha_s^2 \quad (n = 1 - \alpha^2) $$
        """
        signal_s, noise_s = self._shares(self._x(s))
        signal_t, noise_t = self._shares(self._x(t))
        kept = torch.where(signal_s > 0, signal_t / signal_s, 0.0)  # no signal left at s: what follows is fresh noise
        # 1 - kept, from whichever of signal and noise is small and so keeps its digits
        gained = torch.where(noise_s < 0.5, (noise_t - noise_s) / signal_s, 1 - kept).clamp(min=0)
        alpha = kept.sqrt()
        if not self.rescaled:
            alpha, gained = torch.ones_like(alpha), gained / signal_t
        return Transition(self._only_live(alpha), self._only_live(gained * self.prior_spectrum))

    # -- training ------------------------------------------------------------------------------------------------

    def weight(self, t: float | Tensor) -> Float[Tensor, "*batch"]:
        r"""Weight $w_t$ that keeps the mean square of the coloured noise the same at every scale.

        $$ w_t^2 = \sum_k G_k \Big/ \sum_{k\,\mathrm{alive}} \sigma_k^2 \quad\text{(variance)}, \qquad
           w_t^2 = (N + 3) / (N_\mathrm{shell} + 3) \quad\text{(count)} $$
        """
        axes = tuple(range(-self.lattice.dim, 0))
        if self.weighting == "count":
            # The centre of mass counts with the slowest mode, as in the paper's chains.
            x = self._x(t)
            inside = (x >= self.clean_below * (1 - _ROUNDING)) & (x <= self._dead_beyond(x.device) * (1 + _ROUNDING))
            count = inside.sum(axes, dtype=torch.float64)
            return ((self.lattice.sites + 3) / (count + 3)).sqrt()
        noise = torch.where(self.alive(t), self.sigma(t) ** 2, 0.0).sum(axes)
        return (self.prior_spectrum.to(noise.device).sum() / noise).sqrt()

    def log_snr(self, t: float | Tensor) -> Float[Tensor, "*modes"]:
        r"""Half the log signal-to-noise ratio, $\lambda_k = \ln(\alpha_k/\sigma_k)$."""
        return (self.alpha(t) / self.sigma(t)).log()

    def angle(self, t: float | Tensor) -> Float[Tensor, "*modes"]:
        r"""$\theta_k = \arctan(\sigma_k / \sqrt{G_k}\,\alpha_k)$, from 0 (clean) to $\pi/2$ (all noise)."""
        sigma = self.sigma(t)
        return torch.atan2(sigma, self.alpha(t) * self.prior_spectrum.to(sigma.device).sqrt())

    # -- inside ----------------------------------------------------------------------------------------------------

    @property
    def _ratio(self) -> float:
        return self.cutoff_coarse / self.cutoff_fine

    def _dead_beyond(self, device: torch.device) -> float | Tensor:
        return self.dead_beyond.to(device) if isinstance(self.dead_beyond, Tensor) else self.dead_beyond

    def _x(self, t: float | Tensor) -> Tensor:
        """x_k = q_k^2 / Lambda(t)^2 in float64; a batch of scales leads."""
        if isinstance(t, Tensor):
            cutoff = self.cutoff_fine * torch.exp(t.double() * math.log(self._ratio))
            cutoff = cutoff.reshape(*t.shape, *(1,) * self.lattice.dim)
            return self.wavenumber_sq.to(t.device) / cutoff**2
        return self.wavenumber_sq / self.cutoff(t) ** 2

    def _shares(self, x: Tensor) -> tuple[Tensor, Tensor]:
        finished = x < self.clean_below * (1 - _ROUNDING)
        signal = torch.where(finished, 1.0, self.regulator.signal_share(x))
        return signal, torch.where(finished, 0.0, self.regulator.noise_share(x))

    def _only_live(self, value: Tensor) -> Tensor:
        if self.frozen_modes is None:
            return value
        return value.masked_fill(self.frozen_modes.to(value.device), 0)
