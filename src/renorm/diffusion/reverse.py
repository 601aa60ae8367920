"""The walk up, from coarse to fine: projections, shells and randomness around the samplers' steps."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from renorm.diffusion.denoiser import Denoiser
from renorm.diffusion.schedule import Schedule

__all__ = ["Callback", "Passed", "Sampler", "Walk", "start", "walk_up"]

Draw = Callable[[], Tensor]
Callback = Callable[[int, int, float, Tensor], None]


class Passed:
    """A callback that keeps a walk as it passes some scales; a long step may pass several, and is kept once.

    Args:
        waiting: The scales, coarsest first.
        rows: How many fields of the walk are kept; all if not given.

    Attributes:
        scales: Those at which the walk was kept, coarsest first.
        modes: What it was there.

    Example:
        >>> look = Passed([0.8, 0.5, 0.2])
        >>> for step, scale in enumerate((0.9, 0.4, 0.1)):
        ...     look(step + 1, 3, scale, torch.zeros(2, 1, 4))
        >>> look.scales, look.modes[0].shape
        ([0.4, 0.1], torch.Size([2, 1, 4]))
    """

    def __init__(self, waiting: Sequence[float], *, rows: int | None = None) -> None:
        self.rows, self._waiting = rows, list(waiting)
        self.scales: list[float] = []
        self.modes: list[Tensor] = []

    def __call__(self, step: int, steps: int, scale: float, modes: Tensor) -> None:
        """Look at the walk after a step."""
        if self._waiting and scale <= self._waiting[0]:
            self.scales.append(scale)
            self.modes.append(modes[: self.rows].cpu())
            self._waiting = [t for t in self._waiting if t < scale]


class Walk:
    """What a sampler's step may look at: coefficients, the denoiser behind its projection, and fresh noise.

    Attributes:
        schedule: The forward flow.
        draw: Gives fresh white noise of the field's shape.
        mean: Mean of the modes of the data. The walk is that of the field less alpha times its mean: samplers see
            centred fields alone, so none of them has to know.
        spectrum: Variance of the modes of the data about their mean, where it is known: of the law of modes that enter.
        entering: Whether modes come alive in this step.
        expected: Variance of the modes of the data as the sampler reads it off the field so far, if it does; modes that
            enter are drawn with it.
        seasoned: True for the modes that were alive one step earlier too: a multistep method may look back at them.
        evaluations: How often the denoiser was asked so far.
    """

    def __init__(
        self,
        schedule: Schedule,
        denoiser: Denoiser,
        draw: Draw,
        condition: Tensor | None,
        like: Tensor,
        mean: Tensor | None = None,
        spectrum: Tensor | None = None,
    ) -> None:
        self.schedule, self.draw, self.spectrum = schedule, draw, spectrum
        self.mean = None if mean is None else mean.to(like)
        self.seasoned = torch.zeros(schedule.lattice.shape, dtype=torch.bool, device=like.device)
        self.expected: Tensor | None = None
        self.entering = False
        self.evaluations = 0
        self._denoiser, self._condition, self._like = denoiser, condition, like
        self._shell: tuple[Tensor, Tensor, float, Tensor] | None = None

    def denoise(self, phi: Tensor, t: float) -> Tensor:
        """Modes of the clean field expected at scale t."""
        self.evaluations += 1
        if self.mean is None:
            return self._denoiser(phi, t, self._condition)
        return self._denoiser(self.whole(phi, t), t, self._condition) - self.mean

    def whole(self, phi: Tensor, t: float) -> Tensor:
        """A centred field at scale t with its mean."""
        return phi if self.mean is None else phi + self._shift(t)

    def centred(self, phi: Tensor, t: float) -> Tensor:
        """A field at scale t without its mean."""
        return phi if self.mean is None else phi - self._shift(t)

    def _shift(self, t: float) -> Tensor:
        assert self.mean is not None
        shift = self.schedule.alpha(t).to(self._like) * self.mean
        return torch.where(self.schedule.alive(t).to(self._like.device), shift, 0.0)

    def amplitudes(self, t: float, s: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(alpha, sigma, alpha_s, sigma_s) in the field's precision."""
        both = [(self.schedule.alpha(u).to(self._like), self.schedule.sigma(u).to(self._like)) for u in (t, s)]
        return *both[0], *both[1]

    def angle(self, t: float) -> tuple[Tensor, Tensor]:
        """(theta, length) of the vector of signal and noise of every mode, in the field's precision."""
        noise = self.schedule.sigma(t) / self.schedule.prior_spectrum.sqrt()
        length = torch.hypot(self.schedule.alpha(t), noise)
        return self.schedule.angle(t).to(self._like), torch.where(length > 0, length, 1.0).to(self._like)

    def log_snr(self, t: float) -> Tensor:
        """ln(alpha / sigma) of every mode, in the field's precision."""
        return self.schedule.log_snr(t).to(self._like)

    def enter(self, t: float, s: float) -> None:
        """Begin the step from t to s: draw the noise of the modes of the shell between the two cutoffs."""
        alive = self.schedule.alive(t).to(self._like.device)
        fresh = self.schedule.shell(t, s).to(self._like.device)
        self.entering = bool(fresh.any())
        noise = self.draw() if self.entering else torch.zeros_like(self._like)
        self._shell = alive, fresh, s, noise

    def admit(self, phi: Tensor) -> Tensor:
        """Field at the end of a step: modes still beyond the cutoff are zero, those of the shell are drawn."""
        assert self._shell is not None
        alive, fresh, s, noise = self._shell
        known = self.spectrum if self.expected is None else self.expected
        return torch.where(fresh, start(self.schedule, s, noise, spectrum=known), torch.where(alive, phi, 0.0))

    def leave(self) -> None:
        """End the step: what was alive at its start may be looked back at."""
        assert self._shell is not None
        self.seasoned = self._shell[0]


@runtime_checkable
class Sampler(Protocol):
    """One step of the reverse flow; ``memory`` is what a multistep method keeps from the step before."""

    order: int
    evaluations: int  # of the denoiser, in a step

    def step(self, phi: Tensor, t: float, s: float, walk: Walk, memory: Any) -> tuple[Tensor, Any]:
        """(phi at s, memory for the next step)."""
        ...


def start(
    schedule: Schedule,
    t: float,
    noise: Float[Tensor, "*batch"],
    mean: Tensor | None = None,
    spectrum: Tensor | None = None,
) -> Float[Tensor, "*batch"]:
    r"""Modes that come alive at scale t, drawn from a Gaussian law; 0 where dead.

    $$ \phi_k \sim N(\alpha_k m_k,\; \alpha_k^2 P_k + \sigma_k^2) $$

    Where the data's spectrum P is not known, the law is as the schedule says, see ``Schedule.entry``. Mean and variance
    are right as far as m and P are those of every channel; left out is all else that the data would say here:
    correlations, with the modes alive so far too, and what is not Gaussian.

    Args:
        schedule: The forward flow.
        t: The scale.
        noise: White noise.
        mean: m; zero if not given.
        spectrum: P, variance of every mode of the data about m; may be one for each field.
    """
    std = schedule.entry_std(t)
    if spectrum is not None:
        std = (schedule.alpha(t) ** 2 * spectrum.to(std) + schedule.sigma(t) ** 2).sqrt()
    modes = std.to(noise) * noise
    if mean is not None:
        modes = modes + schedule.alpha(t).to(noise) * mean.to(noise)
    return torch.where(schedule.alive(t).to(noise.device), modes, 0.0)


def walk_up(
    schedule: Schedule,
    denoiser: Denoiser,
    sampler: Sampler,
    times: Sequence[float],
    phi: Float[Tensor, "batch channel *modes"],
    draw: Draw,
    *,
    condition: Tensor | None = None,
    mean: Tensor | None = None,
    spectrum: Tensor | None = None,
    callback: Callback | None = None,
) -> Float[Tensor, "batch channel *modes"]:
    r"""Undo the flow step by step along ``times``, from coarse to fine.

    Before each step the modes beyond the cutoff are projected out; in it, the modes of the shell between t and s are
    drawn from their Gaussian law (see ``start``), and the sampler moves those that were alive. Samplers work on
    $\phi - \alpha m$.

    Args:
        schedule: The forward flow.
        denoiser: Gives E[phi_0 | phi_t].
        sampler: One step.
        times: Falling scales, the last one ``CLEAN`` or a scale at which to stop (``spacing.grid`` makes them).
        phi: Modes at ``times[0]``.
        draw: Gives fresh white noise of the shape of ``phi``; the only source of randomness.
        condition: Classes, one a field.
        mean: m, mean of the modes of the data; zero if not given.
        spectrum: P, their variance about it, if it is known.
        callback: Called after each step with (step, steps, scale, modes).

    Returns:
        Modes at ``times[-1]``; at a scale > ``CLEAN`` those beyond the cutoff are zero.
    """
    walk = Walk(schedule, denoiser, draw, condition, phi, mean, spectrum)
    memory: Any = None
    phi = walk.centred(torch.where(schedule.alive(times[0]).to(phi.device), phi, 0.0), times[0])
    for i, (t, s) in enumerate(pairwise(times)):
        walk.enter(t, s)
        phi, memory = sampler.step(phi, t, s, walk, memory)
        phi = walk.admit(phi)
        walk.leave()
        if callback is not None:
            callback(i + 1, len(times) - 1, s, walk.whole(phi, s))
    return walk.whole(phi, times[-1])
