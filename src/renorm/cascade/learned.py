"""Cascades that learn how to coarse-grain: disentanglers before the steps, or flows from latents of every scale."""

from typing import Literal

from renorm.cascade.cascade import Cascade
from renorm.cascade.conditional import CascadeConditional
from renorm.cascade.conditionals.heads import Head
from renorm.cascade.conditionals.local import LocalConditional, SiteTop
from renorm.cascade.conditionals.white import WhiteNoise
from renorm.coarse.base import CoarseGraining
from renorm.coarse.checkerboard import Checkerboard, RotatedCheckerboard
from renorm.coarse.mera import Disentangled, MeraStep
from renorm.errors import RecipeError
from renorm.lattice import Lattice

__all__ = ["disentangled_cascade", "neural_rg"]


def disentangled_cascade(
    edge: int,
    head: Head,
    *,
    disentanglers: int = 2,
    kind: Literal["spline", "affine"] = "affine",
    period: int = 2,
    radius: int = 2,
    width: int = 32,
    layers: int = 2,
) -> Cascade:
    r"""A cascade of checkerboards whose fields are disentangled before each doubling; every detail has a learned law.

    Symmetric under $\phi \to -\phi$ by construction. Disentanglers are the identity at first.

    Args:
        edge: A power of 2, at least 4.
        head: Law of one site.
        disentanglers: Coupling layers of each; 0: plain checkerboards.
        kind: Of their layers.
        period, radius, width, layers: See ``LocalConditional``.

    Raises:
        RecipeError: If the edge is no power of two >= 4.

    Example:
        >>> from renorm.cascade.conditionals.heads import SplineHead
        >>> [level.modes for level in disentangled_cascade(4, SplineHead()).levels]
        [16, 8, 4, 2, 1]
    """
    _require_power(edge)
    steps: list[CoarseGraining] = []
    conditionals: list[CascadeConditional] = []
    at = edge
    while at > 1:
        learned = disentanglers > 0 and at > 2  # four sites are one block, whichever way it is shifted
        board = Checkerboard()
        steps += [
            Disentangled(board, layers=disentanglers, kind=kind, width=8) if learned else board,
            RotatedCheckerboard(),
        ]
        conditionals += [
            LocalConditional(2, n, n, head, period=period, radius=radius, width=width, layers=layers) for n in (2, 1)
        ]
        at //= 2
    lattice = Lattice((edge, edge), boundary="periodic")
    return Cascade(lattice, steps, conditionals, SiteTop((1, 1, 1), head))


def neural_rg(
    edge: int, *, layers: int = 10, width: int = 10, hidden: int = 3, kind: Literal["spline", "affine"] = "affine"
) -> Cascade:
    r"""A neural renormalization group: white noise of every scale, bent by disentanglers and decimators.

    All that is learned is the coarse-graining; details are latents, $y_l \sim N(0, 1)$. The values by default are those
    of a run of its authors' code for spins: RealNVP blocks of 10 layers, networks of 3 hidden layers of 10 neurons. (A
    version of their page has one hidden layer.)

    Args:
        edge: A power of 2, at least 4.
        layers, width, hidden, kind: Of the blocks, see ``MeraStep``.

    Raises:
        RecipeError: If the edge is no power of two >= 4.

    Source:
        Li & Wang 2018, Phys. Rev. Lett. 121, 260601.

    Example:
        >>> import torch
        >>> model = neural_rg(4)
        >>> [tuple(y.shape) for y in model.encode(torch.zeros(1, 1, 4, 4)).details]
        [(1, 3, 1, 1), (1, 3, 2, 2)]
    """
    _require_power(edge)
    steps = [
        MeraStep("corner", layers=layers, width=width, hidden=hidden, kind=kind, odd=False)
        for _ in range(edge.bit_length() - 1)
    ]
    lattice = Lattice((edge, edge), boundary="periodic")
    return Cascade(lattice, steps, [WhiteNoise(3) for _ in steps], WhiteNoise(1, sites=(1, 1)))


def _require_power(edge: int) -> None:
    if edge < 4 or edge & (edge - 1):
        raise RecipeError(f"edge must be a power of two, at least 4 (disentanglers need two blocks), got {edge}")
