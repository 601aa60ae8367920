"""Cascades of checkerboards: the strongest samplers we know of lattice fields with nearest-neighbour actions."""

import copy

from torch import nn

from renorm.cascade.cascade import Cascade
from renorm.cascade.conditionals.heads import Head
from renorm.cascade.conditionals.heat_bath import HeatBath
from renorm.cascade.conditionals.local import LocalConditional, SiteTop
from renorm.cascade.conditionals.site_laws import SiteLaw
from renorm.coarse.base import CoarseGraining
from renorm.coarse.checkerboard import Checkerboard, RotatedCheckerboard
from renorm.errors import RecipeError
from renorm.lattice import Lattice

__all__ = ["checkerboard_cascade", "doubled"]


def checkerboard_cascade(
    edge: int, site: SiteLaw, head: Head, *, period: int = 2, radius: int = 2, width: int = 32, layers: int = 2
) -> Cascade:
    r"""A cascade from one site to ``edge`` by ``edge`` sites, two checkerboards for each doubling.

    The finest checkerboard is a heat bath, exact; all others are learned part by part, symmetric under
    $\phi \to -\phi$.

    Args:
        edge: A power of 2.
        site: Law of one site of the action.
        head: Law of one learned site.
        period, radius, width, layers: See ``LocalConditional``.

    Raises:
        RecipeError: If the edge is no power of two >= 2.

    Example:
        >>> from renorm.cascade.conditionals.heads import SpinHead
        >>> from renorm.cascade.conditionals.site_laws import IsingSite
        >>> model = checkerboard_cascade(4, IsingSite(0.44), SpinHead())
        >>> [level.modes for level in model.levels]
        [16, 8, 4, 2, 1]
    """
    if edge < 2 or edge & (edge - 1):
        raise RecipeError(
            f"edge must be a power of two, at least 2 (each doubling takes two checkerboards), got {edge}"
        )
    steps: list[CoarseGraining] = []
    conditionals: list[nn.Module] = []
    for doubling in range(edge.bit_length() - 1):
        steps += [Checkerboard(), RotatedCheckerboard()]
        straight, turned = (
            LocalConditional(2, n, n, head, period=period, radius=radius, width=width, layers=layers) for n in (2, 1)
        )
        conditionals += [HeatBath(site) if doubling == 0 else straight, turned]
    lattice = Lattice((edge, edge), boundary="periodic")
    return Cascade(lattice, steps, conditionals, SiteTop((1, 1, 1), head))  # type: ignore[arg-type]


def doubled(model: Cascade) -> Cascade:
    """The cascade of twice the edge: fine levels are the fine ones of the smaller, coarse levels its coarse ones.

    The two levels between them are copies of their neighbours. At a critical point all but the finest laws are nearly
    alike, so training goes on from near its end.

    Args:
        model: A cascade of checkerboards, of four sites or more on an edge.

    Raises:
        RecipeError: If the edge is 2: such a cascade has no learned checkerboard of the straight kind yet.
    """
    edge = model.lattice.shape[0]
    if edge < 4:
        raise RecipeError(f"the edge must be at least 4 to be doubled (both kinds of level must be known), got {edge}")
    parts = list(copy.deepcopy(model.conditionals))
    middle = len(parts) // 4 * 2
    parts[middle:middle] = copy.deepcopy(parts[middle : middle + 2])
    lattice = Lattice((2 * edge, 2 * edge), boundary="periodic")
    steps = [*model.steps[:2], *model.steps]
    return Cascade(lattice, steps, parts, copy.deepcopy(model.top))  # type: ignore[arg-type]
