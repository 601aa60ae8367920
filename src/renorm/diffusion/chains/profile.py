r"""The power spectrum of real chains, as a multiple of the Gaussian chain's that depends on the wavenumber alone.

    P_k = rho(k) G_k,     k = pi n / N

Chains of all lengths share rho: it is 1 where a chain is a random walk, more where helices and strands are straight,
less where a globule is crowded.
"""

import math
from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from renorm.diffusion.presets import CHAIN_MASS, CHAIN_PRIOR
from renorm.errors import DataError

__all__ = ["WAVENUMBERS", "measure_profile", "spectrum_of"]

WAVENUMBERS = torch.logspace(math.log10(0.01), math.log10(math.pi), 33, dtype=torch.float64)
"""Edges of the bins, in rad/site."""


def _wavenumbers(sites: int) -> Tensor:
    return math.pi * torch.arange(sites, dtype=torch.float64) / sites


def gaussian_chain(k: Float[Tensor, "*modes"], mass: float = CHAIN_MASS) -> Float[Tensor, "*modes"]:
    r"""$G_k = c / (k^2 + \mu^2)$, in angstrom squared."""
    return CHAIN_PRIOR / (k**2 + mass**2)


def measure_profile(chains: Iterable[Float[Tensor, "3 sites"]], mass: float = CHAIN_MASS) -> Float[Tensor, " bins"]:
    r"""$\rho$ in bins of the wavenumber: means of $|\phi_k|^2 / 3 G_k$ over modes and chains.

    A bin that no mode falls into has the value of the nearest one that some do.

    Args:
        chains: Modes of chains, mode 0 included (it is left out).
        mass: Of the Gaussian chain, in rad/site.

    Raises:
        DataError: If there is no chain.

    Example:
        >>> k = math.pi * torch.arange(50) / 50
        >>> modes = gaussian_chain(k).sqrt() * torch.randn(4000, 3, 50, generator=torch.Generator().manual_seed(0))
        >>> bool((measure_profile(modes) - 1).abs().max() < 0.1)
        True
    """
    total, number = torch.zeros(2, len(WAVENUMBERS) - 1, dtype=torch.float64)
    for modes in chains:
        k = _wavenumbers(modes.shape[1])[1:]
        ratio = modes[:, 1:].double().square().mean(0) / gaussian_chain(k, mass)
        place = torch.searchsorted(WAVENUMBERS, k).clamp(1, len(total)) - 1
        total.index_add_(0, place, ratio)
        number.index_add_(0, place, torch.ones_like(ratio))
    known = number.nonzero().flatten()
    if not len(known):
        raise DataError("a spectrum needs a chain, got none")
    rho = total / number.clamp(min=1)
    nearest = known[(torch.arange(len(total))[:, None] - known).abs().argmin(1)]
    return rho[nearest].clamp(min=1e-3)


def spectrum_of(
    profile: Float[Tensor, " bins"] | None, sites: int, mass: float = CHAIN_MASS
) -> Float[Tensor, " modes"]:
    r"""$P_k$ of chains of one length; the Gaussian chain's without a profile. Mode 0 has that of mode 1.

    Between the middles of the bins $\rho$ is linear in $\ln k$.
    """
    k = _wavenumbers(sites)
    k[0] = k[1]
    prior = gaussian_chain(k, mass)
    if profile is None:
        return prior
    middles = (WAVENUMBERS[:-1] * WAVENUMBERS[1:]).sqrt().log()
    x = k.log()
    right = torch.searchsorted(middles, x).clamp(1, len(middles) - 1)
    share = ((x - middles[right - 1]) / (middles[right] - middles[right - 1])).clamp(0, 1)
    return prior * torch.lerp(profile[right - 1], profile[right], share)
