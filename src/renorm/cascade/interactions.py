r"""Interactions of neighbours on a square torus: sums over all translations and turns of a product of a few sites.

$$ O_a(\phi) = \sum_x \prod_{r \in a} \phi_{x + r}, \qquad -S(\phi) = \text{const} + \sum_a K_a\, O_a(\phi) $$
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from renorm.errors import DataError, RecipeError

__all__ = ["EVEN", "FIELD", "ODD", "Interaction", "measure"]


@dataclass(frozen=True)
class Interaction:
    """A product of sites, once for each of its turns and mirror images that translations do not make alike.

    Args:
        name: What people call it.
        sites: Places (row, column) of the factors; a place that stands twice is squared.

    Raises:
        RecipeError: If there is no site.

    Example:
        >>> EVEN[0].name, len(EVEN[0].images), len(EVEN[2].images)  # a bond lies along two axes, a square one way
        ('nearest', 2, 1)
    """

    name: str
    sites: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        if not self.sites:
            raise RecipeError(f"an interaction needs a site, '{self.name}' has none")

    @property
    def images(self) -> list[tuple[tuple[int, int], ...]]:
        """The different shapes that the dihedral group makes of it, each moved to its first site."""
        found = set()
        for mirror in (1, -1):
            shape = [(row, mirror * column) for row, column in self.sites]
            for _ in range(4):
                shape = [(column, -row) for row, column in shape]
                first = min(shape)
                found.add(tuple(sorted((row - first[0], column - first[1]) for row, column in shape)))
        return sorted(found)

    def __call__(self, x: Float[Tensor, "batch 1 rows columns"]) -> Float[Tensor, " batch"]:
        """The sum over all places of the torus."""
        total = x.new_zeros(len(x))
        for image in self.images:
            product = torch.ones_like(x)
            for row, column in image:
                product = product * x.roll((-row, -column), (-2, -1))
            total = total + product.flatten(1).sum(1)
        return total


NEAREST, DIAGONAL = Interaction("nearest", ((0, 0), (0, 1))), Interaction("diagonal", ((0, 0), (1, 1)))
SQUARE, SECOND = Interaction("square", ((0, 0), (0, 1), (1, 0), (1, 1))), Interaction("second", ((0, 0), (0, 2)))
KNIGHT = Interaction("knight", ((0, 0), (1, 2)))

EVEN = (NEAREST, DIAGONAL, SQUARE, SECOND, KNIGHT)
"""Of spins, unchanged when all turn over; the strongest first."""

ODD = (
    Interaction("field", ((0, 0),)),
    Interaction("corner", ((0, 0), (0, 1), (1, 0))),
    Interaction("row", ((0, 0), (0, 1), (0, 2))),
)
"""Of spins, turned over with them."""

FIELD = (
    Interaction("square of the field", ((0, 0),) * 2),
    Interaction("fourth power", ((0, 0),) * 4),
    NEAREST,
    DIAGONAL,
)
"""Of fields, even."""


def measure(
    x: Float[Tensor, "batch channel *sites"], interactions: tuple[Interaction, ...]
) -> Float[Tensor, "batch interactions"]:
    """All sums of each field, in float64.

    Raises:
        DataError: If fields are not of one channel on two axes.

    Example:
        >>> measure(torch.ones(1, 1, 4, 4), EVEN).tolist()
        [[32.0, 32.0, 16.0, 32.0, 64.0]]
    """
    if x.ndim != 4 or x.shape[1] != 1:
        raise DataError(f"interactions are those of one channel on two axes, got shape {tuple(x.shape)}")
    wide = x.double()
    return torch.stack([interaction(wide) for interaction in interactions], 1)
