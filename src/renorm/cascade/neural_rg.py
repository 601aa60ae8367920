"""The neural renormalization group as a cascade: latents of every scale, and nothing learned but the steps."""

from collections.abc import Callable
from functools import partial

from renorm.cascade.cascade import Cascade
from renorm.cascade.conditionals.white import WhiteNoise
from renorm.coarse.mera import MeraStep
from renorm.errors import RecipeError
from renorm.lattice import Lattice
from renorm.nn.block_flow import BlockFlow

__all__ = ["PUBLISHED", "neural_rg"]

PUBLISHED = partial(BlockFlow, 4, layers=10, width=10, hidden=3, kind="affine", odd=False)
"""Blocks of a run of the authors' code for spins: RealNVP of 10 layers, networks of 3 hidden layers of 10 neurons.

(A version of their page has one hidden layer.)
"""


def neural_rg(edge: int, blocks: Callable[[], BlockFlow] = PUBLISHED) -> Cascade:
    r"""White noise of every scale, bent by disentanglers and decimators: details are latents, $y_l \sim N(0, 1)$.

    Args:
        edge: A power of 2, at least 4.
        blocks: Makes the bijections of each step, see ``MeraStep``.

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
    if edge < 4 or edge & (edge - 1):
        raise RecipeError(f"edge must be a power of two, at least 4 (disentanglers need two blocks), got {edge}")
    steps = [MeraStep("corner", blocks) for _ in range(edge.bit_length() - 1)]
    lattice = Lattice((edge, edge), boundary="periodic")
    return Cascade(lattice, steps, [WhiteNoise(3) for _ in steps], WhiteNoise(1, sites=(1, 1)))
