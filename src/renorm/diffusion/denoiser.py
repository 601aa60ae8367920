"""Denoisers: the mean of the clean field given a noisy one, all in the space of modes.

What a network is asked to predict (coloured noise, the clean field, a velocity, a preconditioned residual) is a value,
a ``Prediction``: four numbers per mode. Everything else follows from one formula.
"""

from collections.abc import Callable
from copy import copy
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from renorm.bases import basis_for
from renorm.diffusion.schedule import Schedule
from renorm.spec import require

__all__ = [
    "CleanField",
    "Coefficients",
    "ColouredNoise",
    "Denoiser",
    "GaussianDenoiser",
    "Guided",
    "NetworkDenoiser",
    "Preconditioned",
    "Prediction",
    "Velocity",
    "denoiser_gain",
]

Network = Callable[..., Tensor]
T = TypeVar("T")


@runtime_checkable
class Denoiser(Protocol):
    """Anything that gives E[phi_0 | phi_t], mode by mode."""

    def __call__(
        self, modes: Float[Tensor, "batch channel *modes"], t: float | Tensor, condition: Tensor | None = None
    ) -> Float[Tensor, "batch channel *modes"]:
        """Modes of the clean field that is expected, given the modes at scale ``t``."""
        ...


def denoiser_gain(alpha: Tensor, sigma: Tensor, spectrum: Tensor) -> Tensor:
    r"""Gain of the exact denoiser of Gaussian data, $\alpha P / (\alpha^2 P + \sigma^2)$, per mode.

    Example:
        >>> denoiser_gain(torch.tensor(0.5), torch.tensor(0.5), torch.tensor(1.0))
        tensor(1.)
    """
    return alpha * spectrum / (alpha**2 * spectrum + sigma**2)


class GaussianDenoiser:
    r"""The exact denoiser of Gaussian data of any spectrum.

    $$ E[\phi_0|\phi_t] = m + \frac{\alpha P}{\alpha^2 P + \sigma^2}\,(\phi_t - \alpha m) $$

    Args:
        schedule: The forward flow.
        spectrum: P, variance of every mode of the data (shape ``lattice.shape``, or with a leading channel axis).
        mean: m, mean of every mode; zero if not given.
    """

    def __init__(self, schedule: Schedule, spectrum: Tensor, mean: Tensor | None = None) -> None:
        _require_spectrum(spectrum)
        self.schedule = schedule
        self.spectrum = spectrum.double()
        self.mean = torch.zeros_like(self.spectrum) if mean is None else mean.double()

    def __call__(
        self, modes: Float[Tensor, "batch channel *modes"], t: float | Tensor, condition: Tensor | None = None
    ) -> Float[Tensor, "batch channel *modes"]:
        """Exact conditional mean; ``condition`` is ignored."""
        alpha, sigma = _per_field(self.schedule.alpha(t), t), _per_field(self.schedule.sigma(t), t)
        spectrum, mean = self.spectrum.to(alpha.device), self.mean.to(alpha.device)
        gain = denoiser_gain(alpha, sigma, spectrum).nan_to_num(0.0)  # 0/0 where data and noise both vanish
        offset = (1 - gain * alpha) * mean
        return gain.to(modes) * modes + offset.to(modes)


class Guided:
    r"""A denoiser that sets a class off from any: $x_0 = x_0(\text{any}) + w\,[x_0(c) - x_0(\text{any})]$.

    Args:
        denoiser: Learned with classes, and without for a share of its fields.
        weight: w; 0: any class, 1: the class, more: what distinguishes it is exaggerated, and fields differ less.
        any_class: The number that stands for any.

    Source:
        Ho & Salimans 2022, arXiv:2207.12598 (their weight is w - 1).

    Example:
        >>> def label(modes, t, condition):
        ...     return condition[:, None, None] + 0 * modes
        >>> Guided(label, 2.0, any_class=10)(torch.zeros(1, 1, 1), 0.5, torch.tensor([3])).item()
        -4.0
    """

    def __init__(self, denoiser: Denoiser, weight: float, any_class: int) -> None:
        self.denoiser, self.weight, self.any_class = denoiser, weight, any_class

    def __call__(
        self, modes: Float[Tensor, "batch channel *modes"], t: float | Tensor, condition: Tensor | None = None
    ) -> Float[Tensor, "batch channel *modes"]:
        """Both answers, of one evaluation of twice as many fields."""
        assert condition is not None
        both = torch.cat([condition, torch.full_like(condition, self.any_class)])
        times = t.repeat(2) if isinstance(t, Tensor) and t.ndim else t
        named, free = self.denoiser(torch.cat([modes, modes]), times, both).chunk(2)
        return free + self.weight * (named - free)


class Coefficients(NamedTuple):
    r"""How a network's output becomes a clean field: $x_0 = c_\mathrm{skip}\phi + c_\mathrm{out} f(c_\mathrm{in}\phi)$.

    With a mean m, $\phi$ stands for $\phi - \alpha m$ and $x_0$ for $x_0 - m$. Float64, per mode.
    """

    skip: Tensor
    out: Tensor
    scale_in: Tensor


@runtime_checkable
class Prediction(Protocol):
    """What the network is asked for: three coefficients per mode and scale."""

    mean: Tensor | None

    def coefficients(self, schedule: Schedule, t: float | Tensor) -> Coefficients:
        """Coefficients at scale ``t``; a batch of scales leads."""
        ...


def _frame(schedule: Schedule, t: float | Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(cos, sin, length) of the vector of signal and noise; the length is 1 where the variance is preserved."""
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    noise = sigma / schedule.prior_spectrum.to(sigma.device).sqrt()
    length = torch.hypot(alpha, noise)
    length = torch.where(length > 0, length, 1.0)
    return alpha / length, noise / length, length


class ColouredNoise:
    r"""The paper's target $\eta = w_t\,\sigma_k z_k$: $x_0 = (\phi - \eta/w_t)/\alpha$.

    With a white prior it is DDPM's epsilon.

    Source:
        Masuki & Ashida 2025, arXiv:2501.09064.
    """

    mean: Tensor | None = None

    def coefficients(self, schedule: Schedule, t: float | Tensor) -> Coefficients:
        """Skip 1/alpha, out -1/(w alpha)."""
        alpha = schedule.alpha(t)
        weight = schedule.weight(t)
        weight = weight.reshape(*weight.shape, *(1,) * schedule.lattice.dim)
        inverse = torch.where(alpha > 0, 1 / alpha, 0.0)
        return Coefficients(inverse, -inverse / weight, 1 / _frame(schedule, t)[2])


class CleanField:
    r"""The clean field itself: $x_0 = f$."""

    mean: Tensor | None = None

    def coefficients(self, schedule: Schedule, t: float | Tensor) -> Coefficients:
        """Skip 0, out 1."""
        cos, _, length = _frame(schedule, t)
        return Coefficients(torch.zeros_like(cos), torch.ones_like(cos), 1 / length)


class Velocity:
    r"""The velocity of the rotation from signal to noise, $v = \cos\theta\sqrt{G} z - \sin\theta\,x_0$.

    Source:
        Salimans & Ho 2022, arXiv:2202.00512, for a prior of any spectrum.
    """

    mean: Tensor | None = None

    def coefficients(self, schedule: Schedule, t: float | Tensor) -> Coefficients:
        """Skip cos(theta), out -sin(theta)."""
        cos, sin, length = _frame(schedule, t)
        return Coefficients(cos / length, -sin, 1 / length)


class Preconditioned:
    r"""EDM's preconditioning mode by mode, for data of spectrum P about a mean m.

    $$ c_\mathrm{skip} = \frac{\alpha P}{\alpha^2 P + \sigma^2}, \qquad
       c_\mathrm{out}^2 = \frac{P\sigma^2}{\alpha^2 P + \sigma^2}, \qquad
       c_\mathrm{in}^{-2} = \alpha^2 P + \sigma^2 $$

    A network that outputs zero is the exact Gaussian denoiser, and every mode's target has unit variance.

    Args:
        spectrum: P, variance of every mode of the data about ``mean``.
        mean: m, mean of every mode; zero if not given.

    Source:
        Karras, Aittala, Aila & Laine 2022, arXiv:2206.00364, for one variance; here one for each mode.
    """

    def __init__(self, spectrum: Tensor, mean: Tensor | None = None) -> None:
        spectrum = spectrum.double()
        _require_spectrum(spectrum)
        self.spectrum = spectrum.clamp(min=1e-8 * spectrum.mean().item())
        self.mean = None if mean is None else mean.double()

    def coefficients(self, schedule: Schedule, t: float | Tensor) -> Coefficients:
        """The three coefficients above."""
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        spectrum = self.spectrum.to(alpha.device)
        total = alpha**2 * spectrum + sigma**2
        total = torch.where(total > 0, total, 1.0)
        return Coefficients(alpha * spectrum / total, spectrum.sqrt() * sigma / total.sqrt(), total.rsqrt())


class Frame(NamedTuple):
    """What stands around a network at one scale (or a batch of them), in the precision of the field."""

    alive: Tensor
    skip: Tensor
    out: Tensor
    scale_in: Tensor
    mean: Tensor  # of the clean field
    shift: Tensor  # of the field at this scale, alpha times the mean


class NetworkDenoiser:
    r"""A network between two RG projections: modes -> alive modes -> sites -> network -> alive modes -> clean field.

    $$ x_0 = c_\mathrm{skip}\,\phi + c_\mathrm{out}\, C_t\, U f(U^\top c_\mathrm{in} C_t \phi,\; t) $$

    Any module ``(x, t) -> x`` can be plugged in (``(x, t, condition)`` where fields are conditioned); t is the scale,
    from 0 (finest) to 1 (coarsest).

    Args:
        network: Acts on fields of shape (batch, channel, *sites).
        schedule: The forward flow, with its projection C_t.
        prediction: What the network's output means.
        entry: Level of the network at which fields enter and leave; 0, the finest, for any network.
    """

    def __init__(self, network: Network, schedule: Schedule, prediction: Prediction, *, entry: int = 0) -> None:
        self.network = network
        self.schedule = schedule
        self.prediction, self.entry = prediction, entry
        self.basis = basis_for(schedule.lattice)

    def __call__(
        self,
        modes: Float[Tensor, "batch channel *modes"],
        t: float | Float[Tensor, " batch"],
        condition: Int[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, "batch channel *modes"]:
        """Modes of the expected clean field; modes that are dead at ``t`` come back as the mean (zero)."""
        here = self.at(t, modes)
        clean = here.skip * (modes - here.shift) + here.out * self.raw(modes, t, condition, here) + here.mean
        return torch.where(here.alive, clean, here.mean)

    def with_network(self, network: Network) -> "NetworkDenoiser":
        """Another network between the same projections."""
        return NetworkDenoiser(network, self.schedule, self.prediction, entry=self.entry)

    def to(self, device: torch.device) -> "NetworkDenoiser":
        """The same with all spectra on a device, so that none is copied when it is asked; the network stays."""
        if self.schedule.prior_spectrum.device == device:
            return self
        schedule, prediction = _on(device, self.schedule), _on(device, self.prediction)
        return NetworkDenoiser(self.network, schedule, prediction, entry=self.entry)

    def at(self, t: float | Tensor, like: Tensor) -> Frame:
        """What stands around the network at scale ``t``, on the device and in the precision of ``like``."""
        alive = _per_field(self.schedule.alive(t), t)
        coefficients = (_per_field(c, t) for c in self.prediction.coefficients(self.schedule, t))
        # Zero where dead before the precision falls: 1 / alpha may overflow there, and 0 * inf is no number.
        skip, out, scale_in = (torch.where(alive, c, 0.0).to(like) for c in coefficients)
        mean = shift = torch.zeros((), dtype=like.dtype, device=like.device)
        if self.prediction.mean is not None:
            mean = self.prediction.mean.to(like)
            shift = _per_field(self.schedule.alpha(t), t).to(like) * mean
        return Frame(alive.to(like.device), skip, out, scale_in, mean, shift)

    def raw(
        self, modes: Tensor, t: float | Tensor, condition: Tensor | None = None, here: Frame | None = None
    ) -> Tensor:
        """Modes of the network's output, projected on the modes alive at ``t``."""
        here = here or self.at(t, modes)
        x = self.basis.inverse(here.alive * here.scale_in * (modes - here.shift))
        times = torch.as_tensor(t, device=x.device).to(x.dtype).expand(x.shape[0])
        shown = (x, times) if condition is None else (x, times, condition)
        output = self.network(*shown, entry=self.entry) if self.entry else self.network(*shown)
        return here.alive * self.basis.forward(output.to(modes.dtype))


def _on(device: torch.device, value: T) -> T:
    """A copy whose tensors lie on a device."""
    moved = copy(value)
    for name, part in vars(value).items():
        if isinstance(part, Tensor):
            object.__setattr__(moved, name, part.to(device))  # a schedule is frozen
    return moved


def _require_spectrum(spectrum: Tensor) -> None:
    sound = (spectrum >= 0) & spectrum.isfinite()
    require(bool(sound.all()), "a spectrum must be >= 0 and finite", spectrum[~sound][:1].tolist())


def _per_field(coefficient: Tensor, t: float | Tensor) -> Tensor:
    """Insert the channel axis after the batch of scales, if there is one."""
    return coefficient.unsqueeze(1) if isinstance(t, Tensor) and t.ndim else coefficient
