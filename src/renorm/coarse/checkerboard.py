r"""Checkerboards of a square lattice: every second site, first on a lattice turned by 45 degrees, then straight again.

For an action of nearest neighbours the odd sites are independent of each other once the even ones are given. Two steps
halve the lattice on both axes. Both are permutations of sites, so $\ln|\det| = 0$.

The even sites make a square lattice too, turned and with spacing $\sqrt2$. It is kept as two channels on half the
sites of each axis; ``odd_neighbours`` and ``centre_neighbours`` know who is next to whom.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Shaped
from torch import Tensor

from renorm.coarse.base import Split, check_field, check_parts, shrunk
from renorm.errors import DataError, RecipeError
from renorm.lattice import Lattice

__all__ = ["Checkerboard", "RotatedCheckerboard", "centre_neighbours", "odd_neighbours"]


@dataclass(frozen=True)
class Checkerboard:
    r"""Keep the even sites of a periodic field of one channel; the odd ones are the detail.

    $$ c_{0,ij} = \phi_{2i, 2j}, \quad c_{1,ij} = \phi_{2i+1, 2j+1}, \qquad
       y_{0,ij} = \phi_{2i, 2j+1}, \quad y_{1,ij} = \phi_{2i+1, 2j} $$

    The coarse lattice has two channels; its spacing is that of its array, twice the fine one. Neighbouring even
    sites are $\sqrt2$ fine spacings apart.

    Example:
        >>> x = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
        >>> coarse, detail, _ = Checkerboard().split(x)
        >>> coarse.flatten().tolist(), detail.flatten().tolist()
        ([1.0, 4.0], [2.0, 3.0])
    """

    def coarse_lattice(self, lattice: Lattice) -> Lattice:
        """Half the sites on both axes, with two channels.

        Raises:
            RecipeError: If the lattice is not 2-D, periodic, even and of one channel.
        """
        _check_lattice(lattice, channels=1)
        return shrunk(lattice, 2, channels=2)

    def detail_shape(self, lattice: Lattice) -> tuple[int, ...]:
        """(2, coarse sites): the odd sites."""
        return (2, *self.coarse_lattice(lattice).shape)

    def split(self, x: Shaped[Tensor, "batch channel *sites"]) -> Split:
        """Even sites and odd sites.

        Raises:
            DataError: If ``x`` is not (batch, 1, even, even).
        """
        check_field(x, 2, 2)
        _check_channels(x, 1)
        even = torch.cat([x[..., ::2, ::2], x[..., 1::2, 1::2]], dim=1)
        odd = torch.cat([x[..., ::2, 1::2], x[..., 1::2, ::2]], dim=1)
        return Split(even, odd, x.new_zeros(len(x)))

    def merge(
        self, coarse: Shaped[Tensor, "batch channel *sites"], detail: Shaped[Tensor, "batch details *sites"]
    ) -> Shaped[Tensor, "batch 1 *fine"]:
        """The field of these even and odd sites.

        Raises:
            DataError: If they are not both (batch, 2, sites, sites).
        """
        check_parts(coarse, detail, 2, (2, *coarse.shape[2:]))
        _check_channels(coarse, 2)
        upper = torch.stack([coarse[:, 0], detail[:, 0]], dim=-1)  # rows 2i: even sites, then odd
        lower = torch.stack([detail[:, 1], coarse[:, 1]], dim=-1)
        return torch.stack([upper.flatten(-2), lower.flatten(-2)], dim=-2).flatten(-3, -2).unsqueeze(1)


@dataclass(frozen=True)
class RotatedCheckerboard:
    r"""The next step: of the even sites keep $c_{0,ij} = \phi_{2i,2j}$; the centres $y_{ij} = \phi_{2i+1,2j+1}$ go.

    What is left is a square lattice of one channel, straight again, on half the sites of each axis.

    Example:
        >>> even, _, _ = Checkerboard().split(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]))
        >>> coarse, detail, _ = RotatedCheckerboard().split(even)
        >>> coarse.item(), detail.item()
        (1.0, 4.0)
    """

    def coarse_lattice(self, lattice: Lattice) -> Lattice:
        """The same array with one channel; its spacing is that of the array, and so unchanged.

        Raises:
            RecipeError: If the lattice is not 2-D, periodic and of two channels.
        """
        _check_lattice(lattice, channels=2)
        return shrunk(lattice, 1, channels=1)

    def detail_shape(self, lattice: Lattice) -> tuple[int, ...]:
        """(1, sites): the centres."""
        return (1, *self.coarse_lattice(lattice).shape)

    def split(self, x: Shaped[Tensor, "batch channel *sites"]) -> Split:
        """Corners and centres.

        Raises:
            DataError: If ``x`` is not (batch, 2, sites, sites).
        """
        check_field(x, 2, 1)
        _check_channels(x, 2)
        return Split(x[:, :1].clone(), x[:, 1:].clone(), x.new_zeros(len(x)))

    def merge(
        self, coarse: Shaped[Tensor, "batch channel *sites"], detail: Shaped[Tensor, "batch details *sites"]
    ) -> Shaped[Tensor, "batch 2 *sites"]:
        """The even sites of these corners and centres.

        Raises:
            DataError: If they are not both (batch, 1, sites, sites).
        """
        check_parts(coarse, detail, 2, (1, *coarse.shape[2:]))
        _check_channels(coarse, 1)
        return torch.cat([coarse, detail], dim=1)


def odd_neighbours(even: Shaped[Tensor, "batch 2 rows columns"]) -> Shaped[Tensor, "batch 2 4 rows columns"]:
    """The four nearest neighbours of every odd site: above, below, left, right, as ``Checkerboard`` places them.

    Args:
        even: The coarse field of ``Checkerboard``. Where an axis has one entry (two fine sites), the neighbour on one
            side is also that on the other, and is given twice.

    Example:
        >>> x = torch.arange(16.0).reshape(1, 1, 4, 4)
        >>> odd_neighbours(Checkerboard().split(x).coarse)[0, :, :, 0, 0]  # of sites (0, 1) and (1, 0)
        tensor([[13.,  5.,  0.,  2.],
                [ 0.,  8.,  7.,  5.]])
    """
    straight, shifted = even[:, 0], even[:, 1]  # sites (2i, 2j) and (2i + 1, 2j + 1)
    of_upper = [shifted.roll(1, -2), shifted, straight, straight.roll(-1, -1)]
    of_lower = [straight, straight.roll(-1, -2), shifted.roll(1, -1), shifted]
    return torch.stack([torch.stack(of_upper, dim=1), torch.stack(of_lower, dim=1)], dim=1)


def centre_neighbours(corner: Shaped[Tensor, "batch 1 rows columns"]) -> Shaped[Tensor, "batch 4 rows columns"]:
    """The four corners of every centre: upper left, upper right, lower left, lower right.

    Args:
        corner: The coarse field of ``RotatedCheckerboard``.

    Example:
        >>> centre_neighbours(torch.arange(4.0).reshape(1, 1, 2, 2))[0, :, 0, 1]  # of the centre right of site 1
        tensor([1., 0., 3., 2.])
    """
    below = corner.roll(-1, -2)
    return torch.cat([corner, corner.roll(-1, -1), below, below.roll(-1, -1)], dim=1)


def _check_lattice(lattice: Lattice, channels: int) -> None:
    if lattice.dim != 2 or lattice.boundary != "periodic":
        raise RecipeError(
            "a checkerboard is a periodic lattice of two axes (every site has four neighbours), "
            f"got {lattice.shape}, {lattice.boundary}"
        )
    if lattice.channels != channels:
        raise RecipeError(f"this step takes fields of {channels} channel(s), got {lattice.channels}")


def _check_channels(x: Tensor, channels: int) -> None:
    if x.shape[1] != channels:
        raise DataError(f"this step takes fields of {channels} channel(s) here, got shape {tuple(x.shape)}")
