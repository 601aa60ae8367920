r"""The majority of a block of spins as an invertible step: a coarse spin, and three spins that say the rest."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from renorm.coarse.base import Split, check_field, check_parts, shrunk
from renorm.coarse.blocks import from_blocks, to_blocks
from renorm.errors import DataError, RecipeError
from renorm.lattice import Lattice

__all__ = ["MajorityBlock"]


@dataclass(frozen=True)
class MajorityBlock:
    r"""Four spins of a 2 x 2 block to the sign of their majority and three detail spins, one to one.

    $$ c = \operatorname{sign}\sum_i s_i \ \text{(a tie: } s_1\text{)}, \qquad
       y = \begin{cases} (s_2, s_3, s_4) & \text{if } s_1 = c \\ (-c, -c, -c) & \text{if } s_1 = -c \end{cases} $$

    If the first spin is outvoted the three others agree, and if it is not they cannot all be against it; so the free
    pattern says just that. All turn over with the field. Nothing is stretched: $\ln|\det| = 0$, for probabilities of
    spins are no densities.

    Source:
        The rule is that of Niemeijer & van Leeuwen 1974, Physica 71, 17.

    Example:
        >>> spins = torch.tensor([[[[-1.0, 1.0], [1.0, 1.0]]]])
        >>> coarse, detail, _ = MajorityBlock().split(spins)
        >>> coarse.item(), detail.flatten().tolist()
        (1.0, [-1.0, -1.0, -1.0])
        >>> torch.equal(MajorityBlock().merge(coarse, detail), spins)
        True
    """

    def coarse_lattice(self, lattice: Lattice) -> Lattice:
        """Half the sites on both axes.

        Raises:
            RecipeError: If the lattice is not 2-D, of one channel and even.
        """
        if lattice.dim != 2 or lattice.channels != 1:
            raise RecipeError(f"blocks of four spins need two axes and one channel, got {lattice.event_shape}")
        return shrunk(lattice, 2)

    def detail_shape(self, lattice: Lattice) -> tuple[int, ...]:
        """(3, coarse sites)."""
        return (3, *self.coarse_lattice(lattice).shape)

    def split(self, x: Float[Tensor, "batch 1 rows columns"]) -> Split:
        """Coarse spins and detail spins.

        Raises:
            DataError: If blocks do not fill the lattice, or a value is not +1 or -1.
        """
        check_field(x, 2, 2)
        if not bool((x.abs() == 1).all()):
            raise DataError(f"a majority is taken of spins, +1 and -1, got {x[x.abs() != 1][0].item()}")
        spins = to_blocks(x, 2)[:, 0]  # (batch, rows, columns, 4)
        total, first = spins.sum(-1), spins[..., 0]
        coarse = torch.where(total == 0, first, total.sign())
        outvoted = (first != coarse)[..., None]
        detail = torch.where(outvoted, -coarse[..., None], spins[..., 1:])
        return Split(coarse[:, None], detail.movedim(-1, 1).contiguous(), x.new_zeros(len(x)))

    def merge(
        self, coarse: Float[Tensor, "batch 1 rows columns"], detail: Float[Tensor, "batch 3 rows columns"]
    ) -> Float[Tensor, "batch 1 fine_rows fine_columns"]:
        """The spins.

        Raises:
            DataError: If coarse and detail spins do not belong together.
        """
        check_parts(coarse, detail, 2, (3, *coarse.shape[2:]))
        c = coarse[:, 0, ..., None]
        others = detail.movedim(1, -1)
        outvoted = (others == -c).all(-1, keepdim=True)
        spins = torch.where(outvoted, torch.cat([-c, c, c, c], -1), torch.cat([c, others], -1))
        return from_blocks(spins[:, None], 2)
