"""Cascades of checkerboards: the strongest samplers we know of lattice fields with nearest-neighbour actions."""

import copy
from collections.abc import Callable

from torch import nn

from renorm.cascade.cascade import Cascade
from renorm.cascade.conditionals.heads import Head
from renorm.cascade.conditionals.heat_bath import HeatBath
from renorm.cascade.conditionals.local import LocalConditional, SiteTop
from renorm.cascade.conditionals.site_laws import SiteLaw
from renorm.coarse.base import CoarseGraining
from renorm.coarse.checkerboard import Checkerboard, RotatedCheckerboard
from renorm.coarse.mera import Disentangled
from renorm.errors import RecipeError
from renorm.lattice import Lattice
from renorm.nn.block_flow import BlockFlow

__all__ = ["checkerboard_cascade", "doubled"]


def checkerboard_cascade(
    edge: int,
    site: SiteLaw | None,
    head: Head,
    *,
    period: int = 2,
    radius: int = 2,
    width: int = 32,
    layers: int = 2,
    blocks: Callable[[], BlockFlow] | None = None,
) -> Cascade:
    r"""A cascade from one site to ``edge`` by ``edge`` sites, two checkerboards for each doubling.

    The finest checkerboard is a heat bath, exact, where the law of a site is given; all others are learned part by
    part, symmetric under $\phi \to -\phi$. With ``blocks`` fields are disentangled before each doubling.

    Args:
        edge: A power of 2.
        site: Law of one site of the action; none: no level is exact.
        head: Law of one learned site.
        period, radius, width, layers: See ``LocalConditional``.
        blocks: Makes the bijections of ``Disentangled``; needs an edge of 4 or more, and no heat bath.

    Raises:
        RecipeError: If the edge is no power of two >= 2, or blocks are given and the edge is 2, or a heat bath.

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
    if blocks is not None and (edge < 4 or site is not None):
        raise RecipeError(
            f"blocks bend fields of 4 x 4 sites or more, and leave no heat bath exact, got edge {edge}, site {site}"
        )
    steps: list[CoarseGraining] = []
    conditionals: list[nn.Module] = []
    doublings = edge.bit_length() - 1
    for doubling in range(doublings):
        last = doubling + 1 == doublings  # four sites are one block, whichever way it is shifted
        board = Checkerboard() if blocks is None or last else Disentangled(Checkerboard(), blocks)
        steps += [board, RotatedCheckerboard()]
        straight, turned = (
            LocalConditional(2, n, n, head, period=period, radius=radius, width=width, layers=layers) for n in (2, 1)
        )
        conditionals += [HeatBath(site) if site is not None and doubling == 0 else straight, turned]
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
