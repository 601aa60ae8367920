"""Cascades of rings and of chains of atoms: exact where the law is Gaussian, learned site by site where it is not."""

import copy
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from renorm.cascade.cascade import Cascade
from renorm.cascade.conditionals.dense_gaussian import DenseGaussian
from renorm.cascade.conditionals.heads import Head
from renorm.cascade.conditionals.heat_bath import HeatBath
from renorm.cascade.conditionals.local import LocalConditional, SiteTop
from renorm.cascade.conditionals.site_laws import SiteLaw
from renorm.coarse.alternate import Alternate, ring_neighbours
from renorm.coarse.base import CoarseGraining
from renorm.errors import RecipeError
from renorm.lattice import Lattice

__all__ = ["gaussian_beads", "longer", "ring_cascade"]


def gaussian_beads(
    lattice: Lattice, covariance: Float[Tensor, "atoms atoms"], steps: Sequence[CoarseGraining]
) -> Cascade:
    r"""The exact cascade of a Gaussian molecule: every conditional is solved from the covariance of its atoms.

    Args:
        lattice: One axis of atoms, with a channel for each component of a position.
        covariance: Of one component; components are independent and alike.
        steps: Linear steps, the same for every component (``Beads``).

    Raises:
        RecipeError: If a step cannot coarse-grain what the one before leaves.
        DataError: If the covariance is not positive definite.

    Example: a chain of Rouse has this likelihood.
        >>> from renorm.coarse.beads import bead_steps
        >>> from renorm.graph import Graph
        >>> from renorm.laws.rouse import GaussianChain
        >>> law = GaussianChain(8)
        >>> model = gaussian_beads(law.lattice, law.covariance, bead_steps(Graph.linear(8)))
        >>> x = law.sample(3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        >>> bool(torch.allclose(model.log_prob(x), law.log_prob(x), rtol=1e-12))
        True
    """
    conditionals = []
    for step in steps:
        unit = torch.eye(len(covariance), dtype=torch.float64)[:, None]
        coarse, detail, _ = step.split(unit)
        rows = torch.cat([coarse, detail], 2)[:, 0]
        joint = rows.T @ covariance.double() @ rows
        sites = coarse.shape[2]
        conditionals.append(DenseGaussian(joint, sites, lattice.channels))
        covariance = joint[:sites, :sites]
    return Cascade(lattice, steps, conditionals, DenseGaussian(covariance, 0, lattice.channels))


def ring_cascade(
    sites: int, site: SiteLaw, head: Head, *, radius: int = 1, width: int = 32, layers: int = 2
) -> Cascade:
    r"""A cascade of a ring by decimation; the finest level is a heat bath, exact, and all others are learned.

    Decimated neighbours stay neighbours, so each learned site needs to see those two alone, whatever the level.

    Args:
        sites: A power of 2.
        site: Law of one site of the action, which is symmetric under $\phi \to -\phi$.
        head: Law of one learned site.
        radius, width, layers: See ``LocalConditional``.

    Raises:
        RecipeError: If the number of sites is no power of two >= 2.

    Example:
        >>> from renorm.cascade.conditionals.heads import SplineHead
        >>> from renorm.cascade.conditionals.site_laws import Phi4Site
        >>> [level.modes for level in ring_cascade(8, Phi4Site(0.5, 4.0, -7.0), SplineHead()).levels]
        [8, 4, 2, 1]
    """
    if sites < 2 or sites & (sites - 1):
        raise RecipeError(f"sites must be a power of two, at least 2 (every other one goes), got {sites}")
    levels = sites.bit_length() - 1
    learned = [
        LocalConditional(1, 1, 1, head, period=1, radius=radius, width=width, layers=layers) for _ in range(levels - 1)
    ]
    lattice = Lattice((sites,), boundary="periodic")
    parts: list[nn.Module] = [HeatBath(site, ring_neighbours), *learned]
    return Cascade(lattice, [Alternate() for _ in range(levels)], parts, SiteTop((1, 1), head))  # type: ignore[arg-type]


def longer(model: Cascade) -> Cascade:
    """The cascade of a ring twice as long: a level is the same law whatever the ring, so one is added at the top.

    It begins as a copy of the coarsest, and learns from there.

    Args:
        model: Of ``ring_cascade``, of four sites or more.

    Raises:
        RecipeError: If nothing is learned yet that could be copied: a ring of two.
    """
    parts = list(copy.deepcopy(model.conditionals))
    if len(parts) < 2:
        raise RecipeError(
            f"sites must be at least 4 to be doubled (a level must be learned), got {model.lattice.sites}"
        )
    parts.append(copy.deepcopy(parts[-1]))
    lattice = Lattice((2 * model.lattice.sites,), boundary="periodic")
    return Cascade(lattice, [*model.steps, Alternate()], parts, copy.deepcopy(model.top))  # type: ignore[arg-type]
