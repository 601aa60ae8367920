"""Fields of a law, as many as are asked for: exact draws where there are any, else Markov chains side by side."""

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from renorm.laws.build import Law, Molecule
from renorm.laws.chain import DoubleWellChain
from renorm.laws.gaussian_field import GaussianField
from renorm.laws.ising import Ising
from renorm.laws.lognormal import Lognormal
from renorm.laws.muller_brown import MullerBrown
from renorm.laws.phi4 import Phi4
from renorm.laws.simulate_molecules import simulate_molecules
from renorm.mcmc.cluster import Cluster
from renorm.mcmc.hmc import HMC
from renorm.mcmc.kernel import Cycle, run
from renorm.mcmc.metropolis import SiteMetropolis
from renorm.spec import require

__all__ = ["simulate"]

TOGETHER = 2**19
"""Sites that move together, over all chains: more do not run faster."""

FEWEST = 16
"""Chains on a large lattice."""


def simulate(
    law: Law,
    num: int,
    *,
    generator: torch.Generator,
    chains: int | None = None,
    burn_in: int | None = None,
    thin: int | None = None,
    clusters: Literal["swendsen-wang", "wolff"] = "swendsen-wang",
) -> Float[Tensor, "num channel *sites"]:
    r"""Fields of a law.

    Free and lognormal fields are drawn exactly and independently. Spins move by Swendsen-Wang clusters; $\phi^4$
    and double wells by clusters for the signs and a Metropolis sweep for the rest (Hamiltonian Monte Carlo where a
    side is odd), one after the other; molecules and clusters as `simulate_molecules` says. All chains begin ordered
    (a lattice melts in a few cluster moves, also at the critical point, and orders slowly), move ``burn_in`` times
    unseen, and then each ``thin``-th field is kept. Fields that follow each other come from different chains; those
    of one chain stand ``chains`` places apart. At the critical point of $64^2$ sites, two neighbours on a chain
    still have energies with a correlation of about 0.35 (spins) and 0.45 ($\phi^4$); for error bars, take a larger
    ``thin`` or blocks.

    Args:
        law: Which.
        num: How many fields.
        generator: All randomness.
        chains: That run side by side; by default as many as have 2^19 sites together, but at least 16, and no more
            than ``num``, so that small fields are all independent.
        burn_in: Moves before the first field is kept, in which proposals are tuned; by default 50 for spins, else 100.
        thin: Moves from one kept field to the next; by default 5 for spins, else 8.
        clusters: Which turn in a move: each with probability one half (``"swendsen-wang"``), or that of one random site
            (``"wolff"``; embedded, for fields). A Wolff move turns few sites away from order, so ``burn_in`` and
            ``thin`` must be said with it.

    Raises:
        ValueError: If ``num``, ``chains``, ``burn_in``, ``thin`` or ``clusters`` is out of range, or Wolff has no pace.

    Source:
        Swendsen & Wang 1987 (Phys. Rev. Lett. 58, 86); Wolff 1989 (Phys. Rev. Lett. 62, 361); Brower & Tamayo 1989
        (Phys. Rev. Lett. 62, 1087).

    Example:
        >>> spins = simulate(Ising((8, 8), 0.3), 100, generator=torch.Generator().manual_seed(0))
        >>> spins.shape, sorted(set(spins.flatten().tolist()))
        (torch.Size([100, 1, 8, 8]), [-1.0, 1.0])
    """
    require(num >= 1, "num must be >= 1 (there is nothing to draw)", num)
    single = clusters == "wolff"
    require(single or clusters == "swendsen-wang", "clusters must be 'swendsen-wang' or 'wolff'", clusters)
    paced = burn_in is not None and thin is not None
    rule = "clusters = 'wolff' needs burn_in and thin (a move turns one cluster, and how many are needed depends on it)"
    require(not single or paced, rule, (burn_in, thin))
    if isinstance(law, GaussianField | Lognormal):
        return law.sample(num, generator=generator)
    if isinstance(law, Molecule | MullerBrown):
        return simulate_molecules(law, num, generator=generator, chains=chains, burn_in=burn_in, thin=thin)
    require(chains is None or chains >= 1, "chains must be >= 1 (something must move)", chains)
    burn_in, thin = _pace(law, burn_in, thin)
    require(burn_in >= 1, "burn_in must be >= 1 (chains begin far from the law)", burn_in)
    require(thin >= 1, "thin must be >= 1 (each kept field is so many moves after the last)", thin)
    shape = (law.sites,) if isinstance(law, DoubleWellChain) else law.shape
    chains = min(num, max(FEWEST, TOGETHER // math.prod(shape)) if chains is None else chains)
    kernel = _kernel(law, shape, burn_in, single=single)
    state = kernel.start(torch.ones(chains, 1, *shape, device=generator.device))
    for _ in range(burn_in):
        state, _ = kernel.step(state, generator=generator)
    kept = -(-num // chains)
    return run(kernel, state, kept * thin, generator=generator, thin=thin).values.flatten(0, 1)[:num]


def _pace(law: Law, burn_in: int | None, thin: int | None) -> tuple[int, int]:
    """What was asked for, or what the law needs: moduli forget themselves more slowly than signs."""
    wait, step = (50, 5) if isinstance(law, Ising) else (100, 8)
    return wait if burn_in is None else burn_in, step if thin is None else thin


def _kernel(law: Ising | Phi4 | DoubleWellChain, shape: tuple[int, ...], burn_in: int, *, single: bool) -> Any:
    """Clusters, and for fields a local kernel after each."""
    if isinstance(law, Ising):
        return Cluster(law.beta, single)
    bond = law.stiffness if isinstance(law, DoubleWellChain) else law.bond
    local: Any = HMC(law, step_size=0.1, burn_in=burn_in)
    if not any(side % 2 for side in shape):  # sweeps need two colours, and are cheaper by far on a large lattice
        local = SiteMetropolis(_potential(law), bond, burn_in=burn_in)
    return Cycle((Cluster(bond, single), local))


def _potential(law: Phi4 | DoubleWellChain) -> Callable[[Tensor], Tensor]:
    r"""$V$ of $S = \sum V(\phi_x) - J\sum\phi_x\phi_y$; the springs' squares belong to it."""
    if isinstance(law, Phi4):
        return law.potential
    return lambda x: law.barrier * (x.square() - 1).square() + law.stiffness * x.square()
