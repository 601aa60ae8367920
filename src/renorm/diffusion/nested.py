r"""Each scale on its own lattice: while all live modes fit in a low corner, the network sees a smaller field.

A field whose fine modes are all zero says nothing between the sites of a smaller lattice. There the flow is the same,
of the modes that are left: one schedule, one prediction, one denoiser a lattice, and one network for all of them.
"""

import math
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from renorm.bases import basis_for
from renorm.bases.corner import Corner
from renorm.diffusion.denoiser import Network, NetworkDenoiser, Prediction
from renorm.diffusion.schedule import CLEAN, Schedule

__all__ = ["Nest", "NestedDenoiser", "prediction_on", "schedule_on"]

EDGE = 1e-9  # in t: at the threshold itself a mode is alive


def schedule_on(schedule: Schedule, corner: Corner) -> Schedule:
    r"""The same flow on the smaller lattice of a corner: every mode that it carries fades as before.

    The noise is that of the amplitudes there, $\tilde G_k = (v/V)\,G_k$ for v of V sites. A mode that the smaller
    lattice has and the corner does not carry takes no part.

    Example:
        >>> from renorm.diffusion.presets import rgdm_images
        >>> from renorm.lattice import Lattice
        >>> whole = rgdm_images(Lattice((8, 8)))
        >>> small = schedule_on(whole, Corner(whole.lattice, (4, 4)))
        >>> bool((small.alpha(0.5) == whole.alpha(0.5)[:4, :4]).all())
        True
    """
    if corner.whole:
        return schedule
    carried = corner.cut(torch.ones(schedule.lattice.shape, dtype=torch.bool))
    frozen, undying = (None if mask is None else corner.cut(mask) for mask in (schedule.frozen_modes, schedule.undying))
    dead = schedule.dead_beyond
    prior = corner.cut(schedule.prior_spectrum) * (corner.small.sites / schedule.lattice.sites)
    if not bool(carried.all()):
        frozen = ~carried if frozen is None else frozen | ~carried
    return replace(
        schedule,
        lattice=corner.small,
        wavenumber_sq=torch.where(carried, corner.cut(schedule.wavenumber_sq), schedule.wavenumber_sq.max()),
        dead_beyond=torch.where(carried, corner.cut(dead), 1.0) if isinstance(dead, Tensor) else dead,
        prior_spectrum=torch.where(carried, prior, prior[carried].min()),
        undying=undying,
        frozen_modes=frozen,
    )


def prediction_on(prediction: Prediction, corner: Corner) -> Prediction:
    """The same prediction on the smaller lattice: what it knows of the data, their mean and spectrum, is cut."""
    if corner.whole:
        return prediction
    small = copy(prediction)
    spectrum, mean = getattr(prediction, "spectrum", None), prediction.mean
    if spectrum is not None:
        cut = corner.cut(spectrum) * (corner.small.sites / corner.lattice.sites)
        small.spectrum = torch.where(cut > 0, cut, cut[cut > 0].min())  # type: ignore[attr-defined]
    if mean is not None:
        small.mean = corner.down(mean)
    return small


class Nest(NamedTuple):
    """One of nested lattices.

    Attributes:
        corner: The modes that are shown.
        denoiser: Of fields of these modes.
        opens: Scale at which it is left for the next finer one.
        sites: On which the network works: those of the corner, or, of a folded field, as many blocks.
    """

    corner: Corner
    denoiser: NetworkDenoiser
    opens: float
    sites: int


class NestedDenoiser:
    r"""A network that sees each field on the smallest lattice that carries its live modes.

    $$ E[\phi_0|\phi_t] = R^{-1} D_v(R\,\phi_t,\; t), \qquad (R\,\phi)_k = \sqrt{v/V}\;\phi_k $$

    R takes the modes of the corner to those of v sites, and $D_v$ is the ``NetworkDenoiser`` of the same flow there.
    All have the same network.

    Attributes:
        nests: Each lattice with its denoiser, smallest first.
    """

    def __init__(self, network: Network, schedule: Schedule, nests: Sequence[Nest]) -> None:
        self.network, self.schedule, self.nests = network, schedule, tuple(nests)
        self.basis = basis_for(schedule.lattice)

    @classmethod
    def nested(
        cls, network: Network, schedule: Schedule, prediction: Prediction, corners: Sequence[Corner]
    ) -> "NestedDenoiser":
        """The network sees live modes alone, on the smallest lattice that carries them.

        Args:
            network: Acts on fields of shape (batch, channel, *sites) on each of the lattices.
            schedule: The forward flow on the whole lattice.
            prediction: What the network's output means.
            corners: The lattices, smallest first, the whole one last.
        """
        nests = [
            Nest(
                corner,
                NetworkDenoiser(network, schedule_on(schedule, corner), prediction_on(prediction, corner)),
                opening(schedule, corner),
                corner.small.sites,
            )
            for corner in corners
        ]
        return cls(network, schedule, nests)

    @classmethod
    def folded(
        cls,
        network: Network,
        schedule: Schedule,
        prediction: Prediction,
        corners: Sequence[Corner],
        spectrum: Tensor,
        *,
        below: float,
    ) -> "NestedDenoiser":
        r"""The network sees all modes, but works on few blocks of sites while the fine modes are mostly noise.

        While $\alpha^2 P/\sigma^2$ is at most ``below`` for every mode beyond a corner, the field enters a coarser
        level of the network, folded: a block of sites is one site of many channels. No mode is left out.

        Args:
            network: Takes ``entry``, the level at which a field enters and leaves.
            schedule, prediction: As elsewhere.
            corners: The lattices of blocks, smallest first, the whole one last; one for each level of entry.
            spectrum: P, variance of every mode of the data.
            below: Signal-to-noise ratio.
        """
        whole = corners[-1]
        nests = []
        for entry, corner in enumerate(reversed(corners)):
            denoiser = NetworkDenoiser(network, schedule, prediction, entry=entry)
            nests.append(Nest(whole, denoiser, fading(schedule, corner, spectrum, below), corner.small.sites))
        return cls(network, schedule, nests[::-1])

    def __call__(
        self,
        modes: Float[Tensor, "batch channel *modes"],
        t: float | Float[Tensor, " batch"],
        condition: Int[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, "batch channel *modes"]:
        """Modes of the expected clean field; those that are dead at ``t`` come back as the mean (zero)."""
        if not isinstance(t, Tensor) or t.ndim == 0:
            return self._on(self.nest_at(float(t)), modes, t, condition)
        clean = torch.empty_like(modes)
        opens = torch.tensor([nest.opens for nest in self.nests], dtype=torch.float64)
        smallest = (t.double().cpu()[:, None] >= opens).long().argmax(1).to(modes.device)
        for i, nest in enumerate(self.nests):
            rows = (smallest == i).nonzero()[:, 0]
            if len(rows):
                named = None if condition is None else condition[rows]
                clean[rows] = self._on(nest, modes[rows], t[rows], named)
        return clean

    def nest_at(self, t: float) -> Nest:
        """The smallest lattice that carries all modes alive at scale ``t``."""
        return next(nest for nest in self.nests if t >= nest.opens)

    def with_network(self, network: Network) -> "NestedDenoiser":
        """Another network between the same projections."""
        other = copy(self)
        other.network = network
        other.nests = tuple(nest._replace(denoiser=nest.denoiser.with_network(network)) for nest in self.nests)
        return other

    def to(self, device: torch.device) -> "NestedDenoiser":
        """The same with all spectra on a device; the network stays."""
        other = copy(self)
        other.nests = tuple(nest._replace(denoiser=nest.denoiser.to(device)) for nest in self.nests)
        return other

    def _on(self, nest: Nest, modes: Tensor, t: float | Tensor, condition: Tensor | None) -> Tensor:
        """The answer of one lattice; modes beyond it are dead, and expected at their mean."""
        if nest.corner.whole:
            return nest.denoiser(modes, t, condition)
        clean = nest.corner.up(nest.denoiser(nest.corner.down(modes), t, condition))
        mean = self.nests[-1].denoiser.prediction.mean
        return clean if mean is None else torch.where(self._carried(nest, modes), clean, mean.to(modes))

    def _carried(self, nest: Nest, like: Tensor) -> Tensor:
        return nest.corner.carried.to(like.device)


def opening(schedule: Schedule, corner: Corner) -> float:
    """The finest scale at which a corner carries all live modes; infinite where it never does."""
    beyond = ~corner.carried
    if schedule.frozen_modes is not None:
        beyond = beyond & ~schedule.frozen_modes
    if not bool(beyond.any()):
        return CLEAN
    return schedule.leaves_at().cpu()[beyond].max().item() + EDGE


def fading(schedule: Schedule, corner: Corner, spectrum: Tensor, below: float) -> float:
    r"""The finest scale from which on $\alpha^2 P/\sigma^2$ is at most ``below`` for every mode beyond a corner."""
    beyond = ~corner.carried
    if not bool(beyond.any()):
        return CLEAN

    def faded(t: float) -> bool:
        signal, noise = schedule.alpha(t) ** 2 * spectrum.double(), schedule.sigma(t) ** 2
        return bool((signal <= below * noise)[beyond].all())

    if not faded(1.0):
        return math.inf
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if faded(middle) else (middle, high)
    return high
