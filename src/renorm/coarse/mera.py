"""A learned invertible step: disentanglers across the borders of blocks, then a decimator in each block."""

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from renorm.coarse.base import CoarseGraining, Split, check_field, check_parts, merged, shrunk
from renorm.coarse.blocks import from_blocks, to_blocks
from renorm.coarse.learned import HAAR
from renorm.errors import DataError, RecipeError
from renorm.lattice import Lattice
from renorm.nn.block_flow import BlockFlow
from renorm.spec import require

__all__ = ["Disentangled", "MeraStep"]

Blocks = Callable[[], BlockFlow]
BLOCKS: Blocks = partial(BlockFlow, 4)

START = {"haar": torch.tensor(HAAR, dtype=torch.float64) / 2, "corner": torch.eye(4, dtype=torch.float64)}


class MeraStep(nn.Module):
    r"""One level of a multi-scale entanglement renormalization: blocks of 2 x 2 sites, all by the same two bijections.

    $$ \phi \xrightarrow{\ D \text{ on blocks shifted by } (1, 1)\ } \phi' \xrightarrow{\ B\,H \text{ on blocks}\ }
       (c, y_1, y_2, y_3), \qquad \ln|\det| = \sum_\text{blocks} [\ln|\det D'| + \ln|\det B'|] $$

    The disentangler D bends what neighbouring blocks share, the decimator B what is within; both are ``BlockFlow``. At
    first they are the identity: the coarse field is then Haar's, or that of plain decimation, where H is 1.

    The detail has its bands outermost, as that of ``renorm.coarse.wavelet.Wavelet``.

    Args:
        start: ``"haar"`` or ``"corner"``, the coarse field before anything is learned.
        blocks: Makes a bijection of four numbers: ``partial(BlockFlow, 4, ...)`` says how large.

    Source:
        Vidal 2008, Phys. Rev. Lett. 101, 110501; Li & Wang 2018, Phys. Rev. Lett. 121, 260601, for flows as blocks.

    Example:
        >>> x = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
        >>> coarse, detail, log_det = MeraStep("corner").split(x)
        >>> round(coarse.item(), 5), [round(y, 5) for y in detail.flatten().tolist()], log_det.item()
        (1.0, [2.0, 3.0, 4.0], 0.0)
    """

    def __init__(self, start: Literal["haar", "corner"] = "haar", blocks: Blocks = BLOCKS) -> None:
        super().__init__()
        require(start in START, f"start must be one of {tuple(START)}", start)
        self.start = start
        self.disentangler, self.decimator = blocks(), blocks()

    def coarse_lattice(self, lattice: Lattice) -> Lattice:
        """Half the sites on both axes.

        Raises:
            RecipeError: If the lattice is not 2-D, periodic, of one channel, and even.
        """
        _require_periodic(lattice)
        return shrunk(lattice, 2)

    def detail_shape(self, lattice: Lattice) -> tuple[int, ...]:
        """(3, coarse sites)."""
        return (3, *self.coarse_lattice(lattice).shape)

    def split(self, x: Float[Tensor, "batch 1 rows columns"]) -> Split:
        """Coarse field, details and the volume; DataError if ``x`` is not (batch, 1, even, even)."""
        _require_one(x)
        x, first = _on_blocks(self.disentangler, x, shift=1)
        bands, second = self.decimator(to_blocks(x, 2) @ START[self.start].T.to(x))
        bands = bands[:, 0].movedim(-1, 1)
        return Split(bands[:, :1], bands[:, 1:], first + second.flatten(1).sum(1))

    def merge(
        self, coarse: Float[Tensor, "batch 1 rows columns"], detail: Float[Tensor, "batch 3 rows columns"]
    ) -> Float[Tensor, "batch 1 fine_rows fine_columns"]:
        """The field of these; DataError if they do not belong together."""
        return self.merge_log_det(coarse, detail)[0]

    def merge_log_det(
        self, coarse: Float[Tensor, "batch 1 rows columns"], detail: Float[Tensor, "batch 3 rows columns"]
    ) -> tuple[Float[Tensor, "batch 1 fine_rows fine_columns"], Float[Tensor, " batch"]]:
        """The field, and the ``log_det`` that ``split`` has there, in one pass."""
        check_parts(coarse, detail, 2, (3, *coarse.shape[2:]))
        if coarse.shape[1] != 1:
            raise DataError(f"coarse fields of this step have one channel, got shape {tuple(coarse.shape)}")
        bands = torch.cat([coarse, detail], 1).movedim(1, -1)[:, None]
        bands, second = self.decimator.inverse(bands)
        x = from_blocks(bands @ START[self.start].to(bands), 2)  # the inverse of an orthogonal matrix, transposed
        x, first = _on_blocks(self.disentangler.inverse, x, shift=1)
        return x, first + second.flatten(1).sum(1)


class Disentangled(nn.Module):
    r"""A step of fixed rule after learned bijections: $(c, y) = T(D_0(D_1(\phi)))$, $D_1$ on blocks across the borders.

    Both disentanglers are ``BlockFlow`` on blocks of 2 x 2 sites, $D_1$ on those shifted by (1, 1), and the identity
    at first: the step then is $T$ itself.

    Args:
        step: T, of fields of one channel on two axes (``Checkerboard``, ``Wavelet``).
        blocks: As of ``MeraStep``.

    Example:
        >>> from renorm.coarse.checkerboard import Checkerboard
        >>> x = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
        >>> [round(y, 5) for y in Disentangled(Checkerboard()).split(x).coarse.flatten().tolist()]
        [1.0, 4.0]
    """

    def __init__(self, step: CoarseGraining, blocks: Blocks = BLOCKS) -> None:
        super().__init__()
        self.step = step
        self.across, self.within = blocks(), blocks()

    def coarse_lattice(self, lattice: Lattice) -> Lattice:
        """That of T; RecipeError where the lattice is not even, periodic, of two axes and one channel."""
        _require_periodic(lattice)
        shrunk(lattice, 2)
        return self.step.coarse_lattice(lattice)

    def detail_shape(self, lattice: Lattice) -> tuple[int, ...]:
        """That of T."""
        return self.step.detail_shape(lattice)

    def split(self, x: Float[Tensor, "batch 1 rows columns"]) -> Split:
        """Coarse field, details and the volume; DataError if ``x`` is not (batch, 1, even, even)."""
        _require_one(x)
        x, first = _on_blocks(self.across, x, shift=1)
        x, second = _on_blocks(self.within, x, shift=0)
        coarse, detail, log_det = self.step.split(x)
        return Split(coarse, detail, log_det + first + second)

    def merge(self, coarse: Tensor, detail: Tensor) -> Tensor:
        """The field of these; DataError if they do not belong together."""
        return self.merge_log_det(coarse, detail)[0]

    def merge_log_det(self, coarse: Tensor, detail: Tensor) -> tuple[Tensor, Tensor]:
        """The field, and the ``log_det`` that ``split`` has there, in one pass."""
        x, log_det = merged(self.step, coarse, detail)
        x, second = _on_blocks(self.within.inverse, x, shift=0)
        x, first = _on_blocks(self.across.inverse, x, shift=1)
        return x, log_det + first + second


def _on_blocks(flow: Callable[[Tensor], tuple[Tensor, Tensor]], x: Tensor, *, shift: int) -> tuple[Tensor, Tensor]:
    """The field after a flow of its blocks, those that begin at site ``shift`` of both axes, and ln |det|."""
    blocks, log_det = flow(to_blocks(x.roll((-shift, -shift), (2, 3)), 2))
    return from_blocks(blocks, 2).roll((shift, shift), (2, 3)), log_det.flatten(1).sum(1)


def _require_one(x: Tensor) -> None:
    check_field(x, 2, 2)
    if x.shape[1] != 1:
        raise DataError(f"blocks of four numbers are bent, so fields have one channel, got shape {tuple(x.shape)}")


def _require_periodic(lattice: Lattice) -> None:
    if lattice.dim != 2 or lattice.channels != 1 or lattice.boundary != "periodic":
        raise RecipeError(
            "disentanglers reach around a periodic lattice of two axes and one channel, got "
            f"{lattice.event_shape}, {lattice.boundary}"
        )
