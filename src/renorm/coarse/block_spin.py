"""Block-spin rules: a block of b sites on every axis becomes one coarse site, and the detail is forgotten."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Num
from torch import Tensor

from renorm.coarse.base import check_sites, shrunk
from renorm.coarse.blocks import to_blocks
from renorm.errors import DataError, RecipeError
from renorm.lattice import Lattice

__all__ = ["BlockMean", "BlockSum", "Decimation", "Majority"]


@dataclass(frozen=True)
class _Blocks:
    """What the rules share: the size of a block.

    Args:
        size: Sites of a block along each axis.

    Raises:
        RecipeError: If the size is below 2.
    """

    size: int = 2

    def __post_init__(self) -> None:
        if self.size < 2:
            raise RecipeError(f"a block needs 2 sites or more on every axis, or nothing is lost, got {self.size}")

    def coarse_lattice(self, lattice: Lattice) -> Lattice:
        """One site for each block; RecipeError where blocks do not fill the lattice."""
        return shrunk(lattice, self.size)

    def _blocks(self, x: Tensor) -> Tensor:
        if not 3 <= x.ndim <= 5:
            raise DataError(f"fields are (batch, channel, *sites) with one to three axes, got shape {tuple(x.shape)}")
        check_sites(tuple(x.shape[2:]), self.size, DataError)
        return to_blocks(x, self.size)


@dataclass(frozen=True)
class Majority(_Blocks):
    r"""The sign of the majority of a block's spins, for spins of +1 and -1.

    $$ s'_B = \operatorname{sign} \sum_{x \in B} s_x $$

    A tie is decided by a fair coin where a generator is given, else by the block's first spin (its corner of lowest
    coordinates). Both rules turn around with the field: all spins flipped, the coarse spins flip (by a coin: in law).

    Source:
        Niemeijer & van Leeuwen 1974, Physica 71, 17; for square blocks with coins, Swendsen 1979, PRL 42, 859.

    Example:
        >>> spins = torch.tensor([[[1.0, 1.0, -1.0, 1.0]]])
        >>> Majority().coarsen(spins).tolist()
        [[[1.0, -1.0]]]
    """

    def coarsen(
        self, x: Num[Tensor, "batch channel *sites"], *, generator: torch.Generator | None = None
    ) -> Num[Tensor, "batch channel *coarse"]:
        """One spin for each block; as many coins are drawn as there are blocks, whatever the field.

        Raises:
            DataError: If blocks do not fill the lattice, or a value is not +1 or -1.
        """
        blocks = self._blocks(x)
        if not bool((x.abs() == 1).all()):
            wrong = x[x.abs() != 1][0].item()
            raise DataError(f"a majority is taken of spins, whose values are +1 and -1, got {wrong}")
        total = blocks.sum(-1)
        tie = blocks[..., 0]
        if generator is not None:
            coins = torch.randint(2, total.shape, generator=generator, device=generator.device)
            tie = (2 * coins - 1).to(x)
        return torch.where(total == 0, tie, total.sign().to(x.dtype))


@dataclass(frozen=True)
class BlockSum(_Blocks):
    r"""The sum of a block, $\phi'_B = \sum_{x \in B} \phi_x$; nothing is drawn.

    Example:
        >>> BlockSum().coarsen(torch.tensor([[[1.0, 2.0, 3.0, 4.0]]])).tolist()
        [[[3.0, 7.0]]]
    """

    def coarsen(
        self, x: Num[Tensor, "batch channel *sites"], *, generator: torch.Generator | None = None
    ) -> Num[Tensor, "batch channel *coarse"]:
        """One sum for each block; DataError if blocks do not fill the lattice."""
        return self._blocks(x).sum(-1)


@dataclass(frozen=True)
class BlockMean(_Blocks):
    r"""The mean of a block, $\phi'_B = b^{-d} \sum_{x \in B} \phi_x$; nothing is drawn.

    On blocks of 2 it is Haar's coarse field over $2^{d/2}$.

    Example:
        >>> BlockMean().coarsen(torch.tensor([[[1.0, 2.0, 3.0, 4.0]]])).tolist()
        [[[1.5, 3.5]]]
    """

    def coarsen(
        self, x: Float[Tensor, "batch channel *sites"], *, generator: torch.Generator | None = None
    ) -> Float[Tensor, "batch channel *coarse"]:
        """One mean for each block; DataError if blocks do not fill the lattice."""
        return self._blocks(x).mean(-1)


@dataclass(frozen=True)
class Decimation(_Blocks):
    r"""One site of each block, that of lowest coordinates, $\phi'_X = \phi_{bX}$; nothing is drawn.

    Example:
        >>> Decimation().coarsen(torch.tensor([[[1.0, 2.0, 3.0, 4.0]]])).tolist()
        [[[1.0, 3.0]]]
    """

    def coarsen(
        self, x: Num[Tensor, "batch channel *sites"], *, generator: torch.Generator | None = None
    ) -> Num[Tensor, "batch channel *coarse"]:
        """One value for each block; DataError if blocks do not fill the lattice."""
        return self._blocks(x)[..., 0].contiguous()
