"""A learned orthogonal change of basis within blocks of 2 x 2 sites."""

import torch
from jaxtyping import Float
from torch import Tensor

from renorm.coarse.base import Split, check_field, check_parts, shrunk
from renorm.coarse.blocks import from_blocks, to_blocks
from renorm.errors import RecipeError
from renorm.lattice import Lattice

__all__ = ["CayleyBlock"]

HAAR = ((1, 1, 1, 1), (1, -1, 1, -1), (1, 1, -1, -1), (1, -1, -1, 1))
"""Twice Haar's transform of a block (x00, x01, x10, x11): coarse, horizontal, vertical, diagonal."""


class CayleyBlock(torch.nn.Module):
    r"""A block transform that stays orthogonal while it learns; $\ln|\det| = 0$ whatever the parameters.

    $$ (c, y_1, y_2, y_3) = Q H\, (x_{00}, x_{01}, x_{10}, x_{11}), \qquad
       Q = (1 - A)(1 + A)^{-1}, \quad A^\top = -A $$

    $H$ is Haar's transform and $A$ has six free entries. They start at 0, where the step is Haar's. $Q$ has no
    eigenvalue -1: rotations by half a turn are reached only in the limit of large entries.

    The detail has its bands outermost, as that of ``renorm.coarse.wavelet.Wavelet``: band $s$ of channel $c$ is
    ``detail[:, (s - 1) * channels + c]``. All channels share the block transform.

    Source:
        Cayley 1846, J. reine angew. Math. 32, 119.

    Example:
        >>> x = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
        >>> coarse, detail, _ = CayleyBlock().split(x)
        >>> coarse.item(), detail.flatten().tolist()
        (5.0, [-1.0, -2.0, 0.0])
    """

    def __init__(self) -> None:
        super().__init__()
        self.rotation = torch.nn.Parameter(torch.zeros(6))

    def coarse_lattice(self, lattice: Lattice) -> Lattice:
        """Half the sites on both axes, twice as far apart; RecipeError unless both are even, and there are two."""
        if lattice.dim != 2:
            raise RecipeError(f"blocks of 2 x 2 sites need a lattice of two axes, got {lattice.shape}")
        return shrunk(lattice, 2)

    def detail_shape(self, lattice: Lattice) -> tuple[int, ...]:
        r"""(3 times channels, \*coarse sites)."""
        coarse = self.coarse_lattice(lattice)
        return (3 * coarse.channels, *coarse.shape)

    def matrix(self, dtype: torch.dtype = torch.float32) -> Float[Tensor, "4 4"]:
        """The block transform $QH$, orthogonal to the digits of ``dtype``; its first row makes the coarse field."""
        entries = self.rotation.to(dtype)
        rows, columns = torch.triu_indices(4, 4, offset=1, device=entries.device)
        upper = entries.new_zeros(4, 4).index_put((rows, columns), entries)
        antisymmetric = upper - upper.T
        one = torch.eye(4, dtype=dtype, device=entries.device)
        haar = torch.tensor(HAAR, dtype=dtype, device=entries.device) / 2
        return torch.linalg.solve(one + antisymmetric, one - antisymmetric) @ haar

    def split(self, x: Float[Tensor, "batch channel *sites"]) -> Split:
        """First row, and the other rows, of the transform of every block.

        Raises:
            DataError: If ``x`` is not (batch, channel, even, even).
        """
        check_field(x, 2, 2)
        bands = (to_blocks(x, 2) @ self._matrix_for(x).T).movedim(-1, 1)
        return Split(bands[:, 0], bands[:, 1:].flatten(1, 2), x.new_zeros(len(x)))

    def merge(
        self, coarse: Float[Tensor, "batch channel *sites"], detail: Float[Tensor, "batch details *sites"]
    ) -> Float[Tensor, "batch channel *fine"]:
        """The field of these blocks.

        Raises:
            DataError: If coarse field and detail do not belong together.
        """
        channels = coarse.shape[1]
        check_parts(coarse, detail, 2, (3 * channels, *coarse.shape[2:]))
        bands = torch.cat([coarse.unsqueeze(1), detail.unflatten(1, (3, channels))], dim=1)
        return from_blocks(bands.movedim(1, -1) @ self._matrix_for(coarse), 2)

    def _matrix_for(self, x: Tensor) -> Tensor:
        """In at least float32: there is no solver for half precision."""
        return self.matrix(torch.promote_types(x.dtype, torch.float32)).to(x)
