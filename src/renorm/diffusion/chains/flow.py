"""The forward flow of chains: a schedule for each length, made once, and its coefficients for a batch of lengths."""

from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from renorm.diffusion.chains.coarse_chain import enough
from renorm.diffusion.chains.spec import ChainSpec
from renorm.diffusion.denoiser import Preconditioned
from renorm.diffusion.presets import ddpm_chain, rgdm_chain
from renorm.diffusion.schedule import Schedule

__all__ = ["Coefficients", "coefficients", "schedule_of", "stacked"]


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
        alpha, sigma: Amplitudes of signal and noise.
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

    def rows(self, index: Tensor) -> "Coefficients":
        """Some of the chains."""
        return Coefficients(*(value[index] for value in self))

    def to(self, like: Tensor) -> "Coefficients":
        """On the device, and in the precision, of a tensor."""
        moved = (value.to(like) if value.is_floating_point() else value.to(like.device) for value in self)
        return Coefficients(*moved)


def coefficients(schedule: Schedule, t: float, spectrum: Float[Tensor, " modes"] | None = None) -> Coefficients:
    """Those of one chain, in float64; ``spectrum`` is P, the prior's if not given."""
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    alive = schedule.alive(t)
    skip, out, _ = Preconditioned(schedule.prior_spectrum if spectrum is None else spectrum).coefficients(schedule, t)
    moves = alive & (sigma > 0)
    sites = len(alpha)
    last = int(alive.nonzero().max()) + 1 if bool(alive.any()) else 1
    skip, out = torch.where(alive, skip, 0.0), torch.where(moves, out, 0.0)
    number, length = (torch.tensor([value]) for value in (enough(last, sites), sites))
    return Coefficients(alpha[None], sigma[None], skip[None], out[None], alive[None], number, length)


def stacked(parts: list[Coefficients]) -> Coefficients:
    """Those of chains of different lengths, padded with modes that are dead."""
    longest = max(part.alpha.shape[1] for part in parts)

    def padded(value: Tensor) -> Tensor:
        return torch.nn.functional.pad(value, (0, longest - value.shape[1])) if value.ndim == 2 else value

    return Coefficients(*(torch.cat([padded(part[i]) for part in parts]) for i in range(len(parts[0]))))
