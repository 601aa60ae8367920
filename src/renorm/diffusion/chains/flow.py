"""The forward flow of chains: a schedule for each length, made once, and its coefficients for a batch of lengths."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from renorm.diffusion.chains.coarse_chain import enough
from renorm.diffusion.chains.spec import ChainSpec
from renorm.diffusion.denoiser import Preconditioned
from renorm.diffusion.presets import ddpm_chain, rgdm_chain
from renorm.diffusion.schedule import Schedule
from renorm.lattice import Lattice

__all__ = ["Coefficients", "coefficients", "schedule_of"]


def schedule_of(spec: ChainSpec, sites: int) -> Schedule:
    """The flow of chains of one length.

    Raises:
        ValueError: If the chain has fewer than three sites.
    """
    return _schedule(spec.schedule, spec.time, spec.mass, sites)


@lru_cache(maxsize=1024)
def _schedule(name: str, time: str, mass: float, sites: int) -> Schedule:
    if name == "ddpm":
        return ddpm_chain(sites, mass=mass)
    return rgdm_chain(sites, convention="paper" if time == "paper" else "code", mass=mass)


class Coefficients(NamedTuple):
    r"""What happens to the modes of chains at one scale each, and what their network is asked for.

    $$ \phi = \alpha\phi_0 + \sigma z, \qquad \phi_0 = c_\mathrm{skip}\,\phi + c_\mathrm{out}\,f(\phi, t) $$

    Attributes:
        alpha, sigma: Amplitudes of signal and noise; 0 where dead.
        skip, out: Of EDM's preconditioning for data of a spectrum; 0 where dead, and ``out`` where finished.
        alive: Modes that carry signal.
        number: Points of the coarse chain that carries these.
        sites: Of the chain.
    """

    alpha: Float[Tensor, "batch modes"]
    sigma: Float[Tensor, "batch modes"]
    skip: Float[Tensor, "batch modes"]
    out: Float[Tensor, "batch modes"]
    alive: Bool[Tensor, "batch modes"]
    number: Int64[Tensor, " batch"]
    sites: Int64[Tensor, " batch"]

    def to(self, like: Tensor) -> "Coefficients":
        """On the device, and in the precision, of a tensor."""
        moved = (value.to(like) if value.is_floating_point() else value.to(like.device) for value in self)
        return Coefficients(*moved)


def coefficients(
    schedules: Sequence[Schedule],
    t: Sequence[float],
    spectra: Sequence[Tensor] | None = None,
    *,
    length: int | None = None,
) -> Coefficients:
    """Those of chains of one family, each at its own scale, in float64; padded with modes that are dead.

    Args:
        schedules: Of each chain.
        t: Scale of each.
        spectra: P of each; the prior's if not given.
        length: To pad to; that of the longest chain if not given.
    """
    length = length or max(schedule.lattice.sites for schedule in schedules)
    alive = _padded([schedule.alive(at) for schedule, at in zip(schedules, t, strict=True)], 0.0, length)
    # All at once: as the modes of one lattice, whose wavenumbers are those of the chains over their cutoffs.
    x = [schedule.wavenumber_sq / schedule.cutoff(at) ** 2 for schedule, at in zip(schedules, t, strict=True)]
    together = replace(
        schedules[0],
        lattice=Lattice(tuple(alive.shape)),
        wavenumber_sq=_padded(x, 1.0, length),
        prior_spectrum=_padded([schedule.prior_spectrum for schedule in schedules], 1.0, length),
        cutoff_fine=1.0,
        cutoff_coarse=0.5,
        dead_beyond=math.inf,
        frozen_modes=~alive,
    )
    spectrum = together.prior_spectrum if spectra is None else _padded([p.double() for p in spectra], 1.0, length)
    alpha, sigma = together.alpha(0.0), together.sigma(0.0)
    skip, out, _ = Preconditioned(spectrum).coefficients(together, 0.0)
    sites = torch.tensor([len(schedule.wavenumber_sq) for schedule in schedules])
    last = torch.where(alive, torch.arange(1, alive.shape[1] + 1), 1).amax(1)
    number = torch.tensor([enough(*pair) for pair in zip(last.tolist(), sites.tolist(), strict=True)])
    return Coefficients(alpha, sigma, skip, out, alive, number, sites)


def _padded(rows: Sequence[Tensor], value: float, length: int) -> Tensor:
    return torch.stack([F.pad(row, (0, length - len(row)), value=value) for row in rows])
