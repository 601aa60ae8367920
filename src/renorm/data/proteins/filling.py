r"""Missing residues drawn from the Gaussian chain, given the residues that are known.

The chain of $N$ residues is a field on a line with open ends. Its modes $\tilde x_n$ (orthonormal DCT-II, each of the
three axes for itself) are independent and Gaussian:

$$ \operatorname{Var} \tilde x_n = G_n = \frac{c}{k_n^2 + \mu^2}, \qquad k_n = \frac{\pi n}{N}, \qquad
   n = 1 \dots N-1, $$

and nothing is said of $\tilde x_0$: the centre of mass is free. So the law has the precision matrix

$$ J = \sum_{n \ge 1} v_n v_n^{\mathsf T} / G_n, \qquad
   v_n(i) = \sqrt{2/N} \cos\frac{\pi n (i + 1/2)}{N}, $$

and with $m$ the missing and $k$ the known residues, the missing ones are Gaussian with mean
$-J_{mm}^{-1} J_{mk} x_k$ and covariance $J_{mm}^{-1}$. $J$ has the constants alone in its kernel, so $J_{mm}$ is
invertible as soon as one residue is known.
"""

import math
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from renorm.data.proteins.chains import Chain, Chains
from renorm.errors import DataError

__all__ = ["FILLING_MASS", "STIFFNESS", "MissingLaw", "chain_precision", "fill", "fill_all", "missing_law"]

STIFFNESS = 3.8**2 / 2.3211
"""$c$, in square angstrom: bonds of a long massless chain are 3.8 angstrom, as a root mean square in space."""
FILLING_MASS = 0.025 * math.pi
r"""$\mu$, in rad/site: residues further apart than $1/\mu \approx 13$ hardly know of each other."""


class MissingLaw(NamedTuple):
    """The Gaussian law of the missing residues: their mean, and the Cholesky factor of their precision."""

    mean: Float64[Tensor, "missing 3"]
    cholesky: Float64[Tensor, "missing missing"]


def chain_precision(length: int, *, mass: float = FILLING_MASS) -> Float64[Tensor, "{length} {length}"]:
    r"""Precision matrix of one axis of the Gaussian chain, its centre of mass free.

    $$ J = \sum_{n=1}^{N-1} v_n v_n^{\mathsf T}\, (k_n^2 + \mu^2) / c $$

    Args:
        length: $N$, in residues.
        mass: $\mu > 0$, in rad/site.

    Returns:
        In inverse square angstrom.

    Raises:
        DataError: If there is no residue, or the mass is negative.

    Invariant:
        Rows add to 0: moving all residues costs nothing.

    Example:
        >>> chain_precision(2, mass=0.0) * STIFFNESS / (math.pi / 2) ** 2
        tensor([[ 0.5000, -0.5000],
                [-0.5000,  0.5000]], dtype=torch.float64)
    """
    if length < 1:
        raise DataError(f"a chain needs at least one residue, got {length}")
    if not mass >= 0:
        raise DataError(f"mass must be >= 0, got {mass}")
    site = torch.arange(length, dtype=torch.float64)
    wavenumber = math.pi * site[1:] / length
    modes = math.sqrt(2 / length) * torch.cos(wavenumber[:, None] * (site + 0.5))
    return modes.T @ (modes * ((wavenumber**2 + mass**2) / STIFFNESS)[:, None])


def missing_law(coordinates: Float[Tensor, "residues 3"], *, mass: float = FILLING_MASS) -> MissingLaw:
    r"""The law of the residues that are NaN, given the others, under the Gaussian chain.

    $$ x_m \sim \mathcal N\!\left(-J_{mm}^{-1} J_{mk}\, x_k,\; J_{mm}^{-1}\right), \qquad J_{mm} = L L^{\mathsf T} $$

    Args:
        coordinates: C-alphas, in angstrom; three NaN where one is missing.
        mass: $\mu$ of the chain, in rad/site.

    Returns:
        Mean of the missing residues, in their order, and $L$; in float64.

    Raises:
        DataError: If no residue is known: the law would have no place.

    Example:
        >>> x = torch.tensor([[0.0, 0, 0], [torch.nan] * 3, [6.0, 0, 0]])
        >>> missing_law(x).mean
        tensor([[3.0000, 0.0000, 0.0000]], dtype=torch.float64)
    """
    missing = torch.isnan(coordinates).any(dim=1)
    if missing.all():
        raise DataError(f"a chain needs a known residue to fill the others, got none of {len(missing)}")
    return _law(coordinates, missing, mass)


def fill(chain: Chain, *, generator: torch.Generator, mass: float = FILLING_MASS) -> Chain:
    r"""The chain with its missing residues drawn: $x_m = \text{mean} + L^{-\mathsf T} z$, $z \sim \mathcal N(0, 1)$.

    Known residues stay as they are, to the last bit; letters and numbers too. A chain without a gap is returned as it
    is, and draws nothing.

    Args:
        chain: To be filled.
        generator: State of the draws, on the CPU.
        mass: $\mu$ of the Gaussian chain, in rad/site.

    Raises:
        DataError: If every residue is missing.

    Source:
        The code of Masuki & Ashida 2025, arXiv:2501.09064, fills chains from this law, with this c and this mass, and
        gives the zero mode the variance of the first. Here it is free, so that a chain far from the origin is filled
        as one at the origin.

    Example:
        >>> x = torch.tensor([[0.0, 0, 0], [torch.nan] * 3, [6.0, 0, 0]])
        >>> whole = fill(Chain("mine", "MKV", x), generator=torch.Generator().manual_seed(0))
        >>> whole.missing, whole.coordinates[2]
        (0, tensor([6., 0., 0.]))
    """
    missing = ~chain.known
    if not missing.any():
        return chain
    if missing.all():
        raise DataError(f"a chain needs a known residue to fill the others, {chain.name} has none of {len(chain)}")
    law = _law(chain.coordinates, missing, mass)
    noise = torch.randn(law.mean.shape, dtype=torch.float64, generator=generator)
    drawn = law.mean + torch.linalg.solve_triangular(law.cholesky.T, noise, upper=True)
    coordinates = chain.coordinates.clone()
    coordinates[missing] = drawn.float()
    return replace(chain, coordinates=coordinates)


def fill_all(chains: Chains, *, generator: torch.Generator, mass: float = FILLING_MASS) -> Chains:
    """Every chain with its missing residues drawn, one after the other.

    Args:
        chains: To be filled.
        generator: State of the draws, on the CPU.
        mass: $\\mu$ of the Gaussian chain, in rad/site.

    Raises:
        DataError: If every residue of a chain is missing.

    Example:
        >>> x = torch.tensor([[0.0, 0, 0], [torch.nan] * 3])
        >>> fill_all(Chains([Chain("a", "MK", x)]), generator=torch.Generator().manual_seed(0))[0].missing
        0
    """
    return Chains(fill(chain, generator=generator, mass=mass) for chain in chains)


def _law(coordinates: Tensor, missing: Bool[Tensor, " residues"], mass: float) -> MissingLaw:
    precision = chain_precision(len(coordinates), mass=mass)
    known = coordinates[~missing].double()
    centre = known.mean(dim=0)  # far from the origin, digits would be lost; rows of J add to 0, so it may be moved
    cholesky = torch.linalg.cholesky(precision[missing][:, missing])
    pull = precision[missing][:, ~missing] @ (known - centre)
    return MissingLaw(centre - torch.cholesky_solve(pull, cholesky), cholesky)
