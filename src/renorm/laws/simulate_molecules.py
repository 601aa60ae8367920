"""Equilibrium configurations of molecules and clusters: exact where the law is Gaussian, else chains side by side."""

import itertools
import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from renorm.errors import DataError
from renorm.laws.build import Molecule
from renorm.laws.fene import FenePolymer
from renorm.laws.muller_brown import MullerBrown
from renorm.laws.particles import DoubleWellCluster, LennardJonesCluster
from renorm.laws.rouse import GaussianChain
from renorm.mcmc.hmc import HMC
from renorm.mcmc.kernel import Cycle, run
from renorm.mcmc.pivot import Pivot
from renorm.mcmc.tempering import Tempering, ladder
from renorm.spec import require

__all__ = ["simulate_molecules"]

TOGETHER, FEWEST = 2**14, 64
"""Numbers that move together, over all chains, and chains of a large molecule."""

LEAST = 0.1  # acceptance
WELLS = ((-0.558, 1.442), (0.623, 0.028), (-0.05, 0.467))  # of Müller and Brown's potential
PACES = {FenePolymer: (150, 6), LennardJonesCluster: (300, 20), DoubleWellCluster: (200, 20), MullerBrown: (200, 10)}
"""Moves before the first configuration is kept, and from one that is kept to the next."""


def simulate_molecules(
    law: Molecule | MullerBrown,
    num: int,
    *,
    generator: torch.Generator,
    chains: int | None = None,
    burn_in: int | None = None,
    thin: int | None = None,
) -> Float[Tensor, "num dim atoms"]:
    """Configurations of a molecule.

    Gaussian chains are drawn exactly. Polymers begin as walks that avoid themselves and move by pivots and HMC;
    clusters begin as a piece of a crystal, and move by parallel tempering, as does a point in Müller and Brown's
    plane. Centres are drawn from their law, exactly. Configurations that follow each other come from different
    chains.

    Args:
        law: Which.
        num: How many.
        generator: All randomness.
        chains: That run side by side; by default as many as have 2^14 numbers together, but at least 64, and no more
            than ``num``.
        burn_in: Moves before the first that is kept, in which step sizes are tuned; by default what the law needs.
        thin: Moves from one that is kept to the next; by default what the law needs.

    Raises:
        ValueError: If one of them is below 1.
        DataError: If the chains hardly move: the law is too stiff.

    Example:
        >>> polymer = FenePolymer(6)
        >>> x = simulate_molecules(polymer, 10, generator=torch.Generator().manual_seed(0), burn_in=20, thin=1)
        >>> x.shape, bool((x.diff(dim=2).norm(dim=1) < 1.5).all())
        (torch.Size([10, 3, 6]), True)
    """
    require(num >= 1, "num must be >= 1 (there is nothing to draw)", num)
    if isinstance(law, GaussianChain):
        return law.sample(num, generator=generator)
    wait, step = PACES[type(law)]
    numbers = 8 if isinstance(law, MullerBrown) else law.lattice.sites * law.lattice.channels
    chains = min(num, max(FEWEST, TOGETHER // numbers) if chains is None else chains)
    burn_in, thin = wait if burn_in is None else burn_in, step if thin is None else thin
    require(chains >= 1, "chains must be >= 1 (something must move)", chains)
    require(burn_in >= 1, "burn_in must be >= 1 (chains begin far from the law)", burn_in)
    require(thin >= 1, "thin must be >= 1 (each that is kept is so many moves after the last)", thin)
    start = _start(law, chains, generator)
    kernel = _kernel(law, burn_in)
    state = run(kernel, kernel.start(start), burn_in, generator=generator, thin=burn_in).state
    kept = -(-num // chains)
    result = run(kernel, state, kept * thin, generator=generator, thin=thin)
    accepted = float(result.acceptance.mean())
    if not accepted > LEAST:
        raise DataError(
            f"chains of {law} hardly move (acceptance {accepted:.2g}): the law is too stiff for these samplers; take a "
            "higher temperature, or simulate it elsewhere and read its configurations as an array"
        )
    x = result.values.flatten(0, 1)[:num]
    if isinstance(law, MullerBrown):
        return x
    # Chains shift slowly, and the centre knows nothing of the shape: it is drawn from its own law.
    spread = law.spread / math.sqrt(3 if isinstance(law, FenePolymer) else law.particles)
    noise = torch.randn(*x.shape[:2], 1, generator=generator, device=x.device)
    return x - x.mean(2, keepdim=True) + spread * noise


def _kernel(law: FenePolymer | DoubleWellCluster | LennardJonesCluster | MullerBrown, burn_in: int) -> Any:
    if isinstance(law, FenePolymer):
        local = HMC(law, steps=12, step_size=0.01, burn_in=min(60, burn_in))
        return Cycle((*[Pivot(law)] * 4, local)) if law.atoms > 2 else local
    if isinstance(law, LennardJonesCluster):
        return Tempering(law, ladder(0.6, 3), steps=20, step_size=0.015 * law.rm, burn_in=burn_in)
    if isinstance(law, DoubleWellCluster):
        return Tempering(law, ladder(0.2, 5), steps=10, step_size=0.1, burn_in=burn_in)
    return Tempering(law, ladder(0.2, 4), steps=10, step_size=0.02, burn_in=burn_in)


def _start(
    law: FenePolymer | DoubleWellCluster | LennardJonesCluster | MullerBrown, chains: int, generator: torch.Generator
) -> Tensor:
    if isinstance(law, FenePolymer):  # walks that avoid themselves begin with tight bonds
        hot = HMC(law, steps=10, step_size=0.004, burn_in=40)
        state = hot.start(law.start(chains, generator=generator))
        return run(hot, state, 40, generator=generator, thin=40).state.x
    if isinstance(law, MullerBrown):
        which = torch.randint(len(WELLS), (chains,), generator=generator)
        return torch.tensor(WELLS)[which][:, None]
    noise = torch.randn(chains, law.dim, law.particles, generator=generator)
    if isinstance(law, DoubleWellCluster):  # pairs between their wells
        return max(law.d0, 1.0) * (crystal(law.particles, law.dim) + 0.1 * noise)
    return law.rm * (crystal(law.particles, law.dim) + 0.02 * noise)


def crystal(particles: int, dim: int) -> Float[Tensor, "dim particles"]:
    """So many points around 0, the nearest at the distance 1: face-centred cubic in space.

    Example:
        >>> round(torch.pdist(crystal(13, 3).T).min().item(), 5)
        1.0
    """
    reach = 1 + math.ceil(2 * particles ** (1 / dim))
    grid = [each for each in itertools.product(range(-reach, reach + 1), repeat=dim) if sum(each) % 2 == 0]
    nearest = sorted(grid, key=lambda each: (sum(k * k for k in each), each))[:particles]
    points = torch.tensor(nearest, dtype=torch.float32).T / (2**0.5 if dim > 1 else 2)
    return points - points.mean(1, keepdim=True)
