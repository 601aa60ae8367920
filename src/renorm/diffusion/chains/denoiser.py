"""The denoiser of chains: a network between two projections, on the coarse chain of the modes that are alive."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from renorm.diffusion.chains.coarse_chain import cosines, to_modes, to_points
from renorm.diffusion.chains.flow import coefficients
from renorm.diffusion.remaining import Look
from renorm.diffusion.schedule import Schedule
from renorm.nn.chain import Points

__all__ = ["ChainDenoiser", "Coarse", "Told", "answer"]

Network = Callable[..., Tensor]
Told = tuple[Tensor | None, Tensor | None]
"""Letters and features of the residues, as ``renorm.nn.chain.ChainNet`` takes them."""


class Coarse(NamedTuple):
    """Which modes of chains are there, and the coarse chains that carry them.

    Attributes:
        alive: Modes that carry signal.
        number: Points of the coarse chain.
        sites: Of the whole one.
    """

    alive: Bool[Tensor, "batch modes"]
    number: Int64[Tensor, " batch"]
    sites: Int64[Tensor, " batch"]


def answer(
    network: Network,
    modes: Float[Tensor, "batch 3 modes"],
    t: Float[Tensor, " batch"],
    coarse: Coarse,
    told: Told,
    *,
    points: int,
) -> Float[Tensor, "batch 3 modes"]:
    r"""Modes of the network's answer on the coarse chain, $C_t\,u\,f(u^\top C_t\,\phi,\,t)$.

    Args:
        network: See ``ChainNet``.
        modes: Of chains at scale t, padded.
        t: Scale of each.
        coarse: Their coarse chains, on the same device.
        told: What is known of the residues.
        points: To pad the coarse chains to: the most of any, or more.
    """
    alive, number, sites = coarse
    u = cosines(number, points).to(modes)
    x = to_points(alive[:, None] * modes, u, (number / sites).to(modes))
    letters, features = told
    y = network(Points(x, number, sites), t.to(modes), letters, features)
    return alive[:, None] * to_modes(y.to(modes.dtype), u, modes.shape[2])


class ChainDenoiser:
    r"""E[phi_0 | phi_t] of chains of one length, all of one sequence.

    $$ \phi_0 = c_\mathrm{skip}\,\phi + c_\mathrm{out}\,C_t\,u\,f(u^\top C_t\,\phi,\,t) $$

    Args:
        network: See ``ChainNet``.
        schedule: The flow of chains of this length.
        letters: Kinds of the residues; ``None``: not told.
        features: Their further features, where the network has some.
        spectrum: Variance of every mode of the data; the prior's if not given.
    """

    def __init__(
        self,
        network: Network,
        schedule: Schedule,
        letters: Int64[Tensor, " length"] | None = None,
        features: Float[Tensor, "length feature"] | None = None,
        spectrum: Float[Tensor, " modes"] | None = None,
    ) -> None:
        self.network, self.schedule, self.spectrum = network, schedule, spectrum
        self.letters, self.features = letters, features

    def __call__(
        self, modes: Float[Tensor, "batch 3 modes"], t: float | Tensor, condition: Tensor | None = None
    ) -> Float[Tensor, "batch 3 modes"]:
        """Modes of the clean chain; ``condition`` is ignored, the sequence stands here."""
        batch = len(modes)
        scale = float(t)
        one = coefficients([self.schedule], [scale], None if self.spectrum is None else [self.spectrum])
        points, one = int(one.number), one.to(modes)
        here = one._replace(number=one.number.expand(batch), sites=one.sites.expand(batch))
        told = tuple(
            None if x is None else x.to(modes.device).expand(batch, *x.shape) for x in (self.letters, self.features)
        )
        coarse = Coarse(here.alive, here.number, here.sites)
        f = answer(self.network, modes, torch.full((batch,), scale), coarse, (told[0], told[1]), points=points)
        return here.skip[:, None] * modes + here.out[:, None] * f

    def look(self, x: Float[Tensor, "1 3 modes"], t: float, noise: Float[Tensor, "1 3 modes"]) -> Look:
        """How far the denoiser is off on one chain, beside the exact one of Gaussian chains of its spectrum."""
        here = coefficients([self.schedule], [t], None if self.spectrum is None else [self.spectrum]).to(x)
        phi = here.alive[:, None] * (here.alpha[:, None] * x + here.sigma[:, None] * noise)
        error = (self(phi, t) - x).square().mean(1)
        moves = here.out > 0
        spectrum = (self.schedule.prior_spectrum if self.spectrum is None else self.spectrum).to(x)
        ratio = (here.alpha**2 * spectrum)[moves] / here.sigma[moves] ** 2
        return Look(t, ratio.clamp(min=1e-30).log(), error[moves] / here.out[moves] ** 2)
