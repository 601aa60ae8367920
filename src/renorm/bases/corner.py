"""Fields whose fine modes are all zero, on a lattice of fewer sites."""

from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from renorm.bases import basis_for
from renorm.lattice import Lattice
from renorm.spec import require

__all__ = ["Corner", "corners"]


class Corner:
    r"""The low corner of the modes of a lattice, and the smaller lattice that carries it.

    The same wave keeps its values: with $V$ and $v$ sites on the two lattices, orthonormal modes are related by

    $$ \tilde\phi^{(v)}_k = \sqrt{v/V}\;\tilde\phi^{(V)}_k . $$

    Sites of the smaller lattice stand in the middle of their blocks (open), or at the first site of each (periodic).
    A periodic lattice of an even number of sites cannot tell the sine of its last wavenumber from nothing: that
    wavenumber is left out.

    Args:
        lattice: The whole one.
        shape: Sites of the smaller one along each axis, at most those of the whole one.

    Attributes:
        small: The smaller lattice.
        basis: Its modes.
        whole: Whether it is the whole lattice itself.

    Raises:
        ValueError: If ``shape`` has other axes than the lattice, or more sites along one.

    Example: a wave of 8 sites, seen on 4.
        >>> whole = Lattice((8,))
        >>> corner = Corner(whole, (4,))
        >>> modes = torch.zeros(1, 1, 8)
        >>> modes[..., 0] = 8**0.5  # the field that is 1 everywhere
        >>> corner.basis.inverse(corner.down(modes)).squeeze().round(decimals=6)
        tensor([1., 1., 1., 1.])
        >>> bool((corner.up(corner.down(modes)) == modes).all())
        True
    """

    def __init__(self, lattice: Lattice, shape: tuple[int, ...]) -> None:
        fits = len(shape) == lattice.dim and all(1 <= n <= whole for n, whole in zip(shape, lattice.shape, strict=True))
        require(fits, f"a corner of {lattice.shape} has the same axes and at most as many sites", shape)
        self.lattice, self.small = lattice, replace(lattice, shape=shape)
        self.basis = basis_for(self.small)
        self.whole = shape == lattice.shape
        self._scale = (self.small.sites / lattice.sites) ** 0.5
        # The last mode of an even periodic axis is the staggered one: half a wave of the whole lattice's pair.
        staggered = lattice.boundary == "periodic"
        self._kept = tuple(
            n - 1 if staggered and n < whole and n % 2 == 0 else n
            for n, whole in zip(shape, lattice.shape, strict=True)
        )

    @property
    def carried(self) -> Bool[Tensor, "*modes"]:
        """True for those modes of the whole lattice that the smaller one carries."""
        return self._resized(torch.ones(self._kept, dtype=torch.uint8), self.lattice.shape).bool()

    def down(self, modes: Float[Tensor, "*modes"]) -> Float[Tensor, "*small"]:
        """Modes on the smaller lattice, leading axes kept; those that it does not carry are left out."""
        return modes if self.whole else self._scale * self.cut(modes)

    def up(self, modes: Float[Tensor, "*small"]) -> Float[Tensor, "*modes"]:
        """Modes on the whole lattice, leading axes kept, zero beyond the corner."""
        return modes if self.whole else self._resized(self._low(modes), self.lattice.shape) / self._scale

    def cut(self, values: Shaped[Tensor, "*modes"]) -> Shaped[Tensor, "*small"]:
        """Numbers of every mode (a spectrum, a mask), as they are; zero where a mode is not carried."""
        return values if self.whole else self._resized(self._low(values), self.small.shape)

    def _low(self, modes: Tensor) -> Tensor:
        low: tuple[Any, ...] = (..., *(slice(0, n) for n in self._kept))
        return modes[low]

    def _resized(self, low: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Zeros after the low modes, up to a shape."""
        return F.pad(
            low, [size for n, whole in zip(self._kept[::-1], shape[::-1], strict=True) for size in (0, whole - n)]
        )


@lru_cache(maxsize=64)
def corners(lattice: Lattice, multiple: int = 1) -> tuple[Corner, ...]:
    """All that come of halving every axis again and again, smallest first, the whole lattice last.

    Args:
        lattice: The whole one.
        multiple: What every axis must stay divisible by: a network's stride.

    Example:
        >>> [corner.small.shape for corner in corners(Lattice((16, 24)), multiple=4)]
        [(8, 12), (16, 24)]
    """
    shapes = [lattice.shape]
    while all(n % 2 == 0 and (n // 2) % multiple == 0 and n // 2 >= 2 for n in shapes[-1]):
        shapes.append(tuple(n // 2 for n in shapes[-1]))
    return tuple(Corner(lattice, shape) for shape in reversed(shapes))
