r"""Decimation of a ring as an invertible step: every other site stays, and those between are the detail."""

from dataclasses import dataclass

import torch
from jaxtyping import Shaped
from torch import Tensor

from renorm.coarse.base import Split, check_field, check_parts, shrunk
from renorm.errors import RecipeError
from renorm.lattice import Lattice

__all__ = ["Alternate", "ring_neighbours"]


@dataclass(frozen=True)
class Alternate:
    r"""Keep the even sites of a ring; the odd ones are the detail.

    $$ c_i = \phi_{2i}, \qquad y_i = \phi_{2i+1}, \qquad \ln|\det| = 0 $$

    For an action of nearest neighbours the detail's sites are independent given the coarse field, and the coarse field
    has an action of nearest neighbours again: $T' = T^2$ for the transfer matrix.

    Example:
        >>> coarse, detail, _ = Alternate().split(torch.tensor([[[1.0, 2.0, 3.0, 4.0]]]))
        >>> coarse.tolist(), detail.tolist()
        ([[[1.0, 3.0]]], [[[2.0, 4.0]]])
    """

    def coarse_lattice(self, lattice: Lattice) -> Lattice:
        """Half the sites, twice as far apart.

        Raises:
            RecipeError: If the lattice is not one periodic axis of an even number of sites.
        """
        if lattice.dim != 1 or lattice.boundary != "periodic":
            raise RecipeError(f"every other site is kept of a ring, one periodic axis, got {lattice}")
        return shrunk(lattice, 2)

    def detail_shape(self, lattice: Lattice) -> tuple[int, ...]:
        """That of the coarse field."""
        return self.coarse_lattice(lattice).event_shape

    def split(self, x: Shaped[Tensor, "batch channel sites"]) -> Split:
        """Even sites and odd sites; DataError if ``x`` is not (batch, channel, even)."""
        check_field(x, 1, 2)
        return Split(x[..., ::2].contiguous(), x[..., 1::2].contiguous(), x.new_zeros(len(x)))

    def merge(
        self, coarse: Shaped[Tensor, "batch channel sites"], detail: Shaped[Tensor, "batch channel sites"]
    ) -> Shaped[Tensor, "batch channel fine"]:
        """The field of these even and odd sites; DataError if they do not belong together."""
        check_parts(coarse, detail, 1, tuple(coarse.shape[1:]))
        return torch.stack([coarse, detail], -1).flatten(-2)


def ring_neighbours(even: Shaped[Tensor, "batch channel sites"]) -> Shaped[Tensor, "batch channel 2 sites"]:
    """Both neighbours of every odd site of a ring, left and right, as ``Alternate`` places them.

    Example:
        >>> ring_neighbours(torch.tensor([[[1.0, 3.0]]])).tolist()
        [[[[1.0, 3.0], [3.0, 1.0]]]]
    """
    return torch.stack([even, even.roll(-1, -1)], 2)
