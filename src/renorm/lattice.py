"""Where a field lives: a regular lattice in one, two or three dimensions, and its wavenumbers."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from renorm.spec import require

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Boundary", "Lattice"]

Boundary = Literal["open", "periodic"]


@dataclass(frozen=True)
class Lattice:
    r"""A regular lattice of sites that carries a field of one or more channels.

    The modes of an axis of $L$ sites have angular wavenumbers, in rad/site,

    $$ k_n = \pi n / L \quad\text{(open)}, \qquad k_n = 2\pi \lceil n/2 \rceil / L \quad\text{(periodic)},
       \qquad n = 0, \dots, L-1, $$

    so that fine modes always stand in the high corner of the array of modes. Open means free (Neumann) ends.

    Args:
        shape: Sites along each axis, one to three axes.
        boundary: ``"open"`` or ``"periodic"``, the same on every axis.
        channels: Components of the field at each site (3 for colour images and for coordinates).
        spacing: Physical distance between sites; wavenumbers in rad/site times ``1 / spacing`` are physical.

    Raises:
        ValueError: If the shape has no axis or more than three, or a size is not positive.

    Example:
        >>> Lattice((4,)).wavenumbers(0)
        tensor([0.0000, 0.7854, 1.5708, 2.3562], dtype=torch.float64)
        >>> Lattice((4,), boundary="periodic").wavenumbers(0)
        tensor([0.0000, 1.5708, 1.5708, 3.1416], dtype=torch.float64)
    """

    shape: tuple[int, ...]
    boundary: Boundary = "open"
    channels: int = 1
    spacing: float = 1.0

    def __post_init__(self) -> None:
        require(1 <= len(self.shape) <= 3, "a lattice has one to three axes", self.shape)
        require(all(n >= 1 for n in self.shape), "every axis needs at least one site", self.shape)
        require(self.boundary in ("open", "periodic"), "boundary must be 'open' or 'periodic'", self.boundary)
        require(self.channels >= 1, "channels must be >= 1", self.channels)
        require(self.spacing > 0, "spacing must be > 0", self.spacing)

    @property
    def dim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def sites(self) -> int:
        """Number of sites, which is also the number of modes."""
        return math.prod(self.shape)

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one field, ``(channels, *shape)``."""
        return (self.channels, *self.shape)

    def wavenumbers(self, axis: int) -> "Tensor":
        """Angular wavenumbers of the modes along one axis, in rad/site (float64)."""
        import torch

        n = torch.arange(self.shape[axis], dtype=torch.float64)
        if self.boundary == "open":
            return math.pi * n / self.shape[axis]
        return 2 * math.pi * torch.ceil(n / 2) / self.shape[axis]

    def k_sq(self) -> "Tensor":
        """Squared wavenumber of every mode, the sum over axes, in (rad/site)^2 (float64, shape ``shape``)."""
        import torch

        total = torch.zeros(self.shape, dtype=torch.float64)
        for axis in range(self.dim):
            view = [1] * self.dim
            view[axis] = -1
            total = total + self.wavenumbers(axis).reshape(view) ** 2
        return total
