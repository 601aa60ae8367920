r"""Walks of which a part is known beforehand: some modes (a coarse field), or some sites.

At every step the denoiser's answer is put right where it is known, $x_0 \leftarrow K x + (1 - K) x_0$, and an ancestral
step is taken. Known modes so walk along a path of the forward flow that ends at their values. What they say of the
others comes through the denoiser, which sees them with their noise; several particles and their weights make up for it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from renorm.bases import Basis
from renorm.bases.corner import Corner
from renorm.diffusion.denoiser import Denoiser
from renorm.diffusion.reverse import Callback, Walk, start
from renorm.diffusion.sampler import Ancestral, step_back
from renorm.diffusion.schedule import CLEAN, Schedule
from renorm.lattice import Lattice
from renorm.spec import require

__all__ = ["Known", "known_modes", "walk_given"]

ALIKE = 0.5  # share of effective particles below which they are drawn anew


@dataclass(frozen=True, eq=False)
class Known:
    """What is known of clean fields.

    Args:
        values: Of every mode, or of every site; only those of the mask are looked at.
        mask: True where the value is known.
        basis: Of the sites; none: the values are those of modes.

    Example:
        >>> known = Known(torch.full((1, 1, 4), 5.0), torch.tensor([True, True, False, False]))
        >>> known.put(torch.zeros(1, 1, 4))
        tensor([[[5., 5., 0., 0.]]])
    """

    values: Float[Tensor, "batch channel *space"]
    mask: Bool[Tensor, "*space"]
    basis: Basis | None = None

    def put(self, modes: Float[Tensor, "batch channel *modes"]) -> Float[Tensor, "batch channel *modes"]:
        """The modes of fields, made to agree with what is known."""
        if self.basis is None:
            return torch.where(self.mask, self.values, modes)
        return self.basis.forward(torch.where(self.mask, self.values, self.basis.inverse(modes)))

    @property
    def modes(self) -> Bool[Tensor, "*space"]:
        """True for the modes that are known; none where sites are."""
        return self.mask if self.basis is None else torch.zeros_like(self.mask)

    def of(self, rows: slice, device: torch.device) -> "Known":
        """Of some fields, on a device."""
        return Known(self.values[rows].to(device), self.mask.to(device), self.basis)

    def repeated(self, times: int) -> "Known":
        """Every field so many times, one after the other."""
        return Known(self.values.repeat_interleave(times, 0), self.mask, self.basis)


def known_modes(coarse: Float[Tensor, "batch channel *coarse"], lattice: Lattice) -> Known:
    """The low modes of fields, from fields on fewer sites of the same domain.

    Raises:
        ValueError: If the fields have other axes or channels, or not fewer sites along some axis.

    Example:
        >>> known = known_modes(torch.ones(1, 1, 2), Lattice((8,)))
        >>> known.mask.tolist()[:3], round(known.values[0, 0, 0].item(), 4) == round(8**0.5, 4)
        ([True, True, False], True)
    """
    channels, shape = coarse.shape[1], tuple(coarse.shape[2:])
    smaller = len(shape) == lattice.dim and shape != lattice.shape
    smaller = smaller and all(1 <= n <= whole for n, whole in zip(shape, lattice.shape, strict=True))
    require(
        smaller and channels == lattice.channels,
        f"coarse fields without a level have {lattice.channels} channel(s) and fewer sites than {lattice.shape} (name "
        "the level of those that stand on the lattice itself)",
        tuple(coarse.shape[1:]),
    )
    corner = Corner(lattice, shape)
    return Known(corner.up(corner.basis.forward(coarse)), corner.carried)


class _Agreeing:
    """A denoiser whose answer is made to agree with what is known; it keeps its own opinion."""

    def __init__(self, denoiser: Denoiser, known: Known) -> None:
        self.denoiser, self.known = denoiser, known
        self.own: Tensor | None = None

    def __call__(self, modes: Tensor, t: float | Tensor, condition: Tensor | None = None) -> Tensor:
        self.own = self.denoiser(modes, t, condition)
        return self.known.put(self.own)


def walk_given(
    schedule: Schedule,
    denoiser: Denoiser,
    times: Sequence[float],
    known: Known,
    *,
    generator: torch.Generator,
    condition: Int[Tensor, " batch"] | None = None,
    mean: Tensor | None = None,
    spectrum: Tensor | None = None,
    particles: int = 1,
    callback: Callback | None = None,
) -> Float[Tensor, "batch channel *modes"]:
    r"""Draw fields that agree with what is known, from coarse to fine: one for each that is given.

    With K particles for each field, all with one path of the known modes, a step from t to s weighs each by how well it
    foresaw them,

    $$ w \leftarrow w\; N\big(\phi_s^{\rm known};\; \mu_s(x_0),\; v\big), $$

    with mean and variance of the ancestral step of the denoiser's own answer; particles are drawn anew by their weights
    when fewer than half of them count. For small steps and many particles the draws follow the conditional law exactly.
    One particle is the plain method. Where sites are known, no weights are at hand: one particle alone.

    Args:
        schedule: The forward flow.
        denoiser: Gives E[phi_0 | phi_t].
        times: Falling scales, the last one ``CLEAN``.
        known: Of each field.
        generator: Source of all randomness, on the device of the walk.
        condition: Class of each field.
        mean, spectrum: Of the modes of the data, as in ``reverse.walk_up``.
        particles: K.
        callback: Called after each step with (step, steps, scale, modes).

    Returns:
        Modes; those that are known are kept to the last bit.

    Source:
        Wang, Yu & Zhang 2023, arXiv:2212.00490, for the answer that agrees; Trippe et al. 2023, arXiv:2206.04119, for
        the particles.
    """
    fields = len(known.values)
    known = known.repeated(particles)
    given = known.modes.to(known.values.device)
    agreeing = _Agreeing(denoiser, known)
    if condition is not None:
        condition = condition.repeat_interleave(particles)

    def draw() -> Tensor:
        noise = torch.randn(known.values.shape, generator=generator, device=generator.device)
        first = noise[::particles].repeat_interleave(particles, 0)
        return torch.where(given, first, noise)  # the particles of a field share the path of what is known

    free = (schedule.prior_spectrum if spectrum is None else spectrum).to(known.values.device)
    own_step, step = Ancestral(free), Ancestral(torch.where(given, 0.0, free))
    phi = start(schedule, times[0], draw(), mean, spectrum)
    walk = Walk(schedule, agreeing, draw, condition, phi, mean, spectrum)
    target = known.values if walk.mean is None else known.values - walk.mean

    def on_path(t: float, phi: Tensor, modes: Tensor) -> Tensor:
        alpha, sigma = (a.to(phi) for a in (schedule.alpha(t), schedule.sigma(t)))
        return torch.where(modes & given, alpha * target + sigma * draw(), phi)

    phi = on_path(times[0], walk.centred(phi, times[0]), schedule.alive(times[0]).to(phi.device))
    log_weight = torch.zeros(fields, particles, dtype=torch.float64, device=phi.device)
    for i, (t, s) in enumerate(pairwise(times)):
        walk.enter(t, s)
        before = phi
        phi, _ = step.step(before, t, s, walk, None)
        phi = walk.admit(phi)
        if walk.entering and s != CLEAN:
            phi = on_path(s, phi, schedule.shell(t, s).to(phi.device))
        walk.leave()
        if particles > 1:
            assert agreeing.own is not None
            own = agreeing.own if walk.mean is None else agreeing.own - walk.mean
            seen = given & (schedule.alive(t) & (schedule.sigma(t) > 0)).to(phi.device)
            log_weight += _foreseen(own_step, before, phi, own, t, s, walk, seen).reshape(fields, particles)
            log_weight, chosen = _drawn_anew(log_weight, generator, last=s == CLEAN)
            phi = phi[chosen]
        if callback is not None:
            callback(i + 1, len(times) - 1, s, walk.whole(phi, s))
    return known.put(walk.whole(phi, times[-1]))[::particles]


def _foreseen(
    step: Ancestral, phi: Tensor, phi_s: Tensor, x0: Tensor, t: float, s: float, walk: Walk, seen: Tensor
) -> Tensor:
    """Log density of the known modes at s, one number a row, by the ancestral step of the denoiser's own answer."""
    alpha, sigma, alpha_s, sigma_s = walk.amplitudes(t, s)
    mean, variance = step_back(phi, x0, (alpha, sigma), t, s, walk)
    assert isinstance(step.variance, Tensor)
    spectrum = step.variance.to(phi)
    v = torch.where(seen, variance * (alpha_s**2 * spectrum + sigma_s**2) / (alpha**2 * spectrum + sigma**2), 1.0)
    off = torch.where(seen, phi_s - mean, 0.0).double()
    return -0.5 * (off**2 / v + torch.where(seen, torch.log(2 * math.pi * v), 0.0)).flatten(1).sum(1)


def _drawn_anew(log_weight: Tensor, generator: torch.Generator, *, last: bool) -> tuple[Tensor, Tensor]:
    """Weights, and which row each row becomes; at the end the first of each field is a draw by weight."""
    fields, particles = log_weight.shape
    weight = torch.softmax(log_weight, 1)
    poor = weight.square().sum(1).reciprocal() < ALIKE * particles
    same = torch.arange(particles, device=weight.device).expand(fields, -1)
    u = torch.rand(fields, 1, generator=generator, device=generator.device, dtype=torch.float64).to(weight.device)
    if last:
        places, poor = u.expand(-1, particles), torch.ones_like(poor)
    else:
        places = (same + u) / particles
    found = torch.searchsorted(weight.cumsum(1), places.contiguous()).clamp(max=particles - 1)
    within = torch.where(poor[:, None], found, same)
    rows = (within + particles * torch.arange(fields, device=weight.device)[:, None]).flatten()
    return torch.where(poor[:, None], 0.0, log_weight), rows
