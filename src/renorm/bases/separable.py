"""Orthonormal changes of basis that act on one axis after another."""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from renorm.lattice import Lattice

__all__ = ["MATRIX_LIMIT", "AxisTransform", "Basis"]

MATRIX_LIMIT = 128
"""Axes up to this many sites are transformed by one matrix product; longer ones by FFT."""


@runtime_checkable
class AxisTransform(Protocol):
    """A real orthonormal transform of the last axis, its modes ordered by rising wavenumber."""

    def forward(self, x: Tensor) -> Tensor:
        """Sites to modes along the last axis."""
        ...

    def inverse(self, modes: Tensor) -> Tensor:
        """Modes to sites along the last axis."""
        ...


class Basis:
    r"""Sites to modes and back, orthonormal on every axis.

    $$ \tilde\phi = (U_1 \otimes \dots \otimes U_d)\,\phi, \qquad U_a U_a^\top = 1 $$

    White noise on the sites is white noise on the modes, and $\sum_k \tilde\phi_k^2 = \sum_x \phi_x^2$ (Parseval).
    The transforms keep the dtype of what they are given (float32 or float64; half precision is computed in float32).

    Args:
        lattice: Its last ``dim`` axes are transformed; leading axes (batch, channels) are kept.
        axis_transform: The transform of one axis.
        matrix_limit: Longest axis that is transformed by a matrix product.

    Example:
        >>> from renorm.bases import basis_for
        >>> basis = basis_for(Lattice((2,)))
        >>> basis.forward(torch.tensor([1.0, 1.0]))
        tensor([1.4142, 0.0000])
    """

    def __init__(self, lattice: Lattice, axis_transform: AxisTransform, matrix_limit: int = MATRIX_LIMIT) -> None:
        self.lattice = lattice
        self.axis_transform = axis_transform
        self._matrices: dict[tuple[int, torch.dtype, torch.device], Tensor] = {}
        self._matrix_limit = matrix_limit

    def forward(self, x: Float[Tensor, "*sites"]) -> Float[Tensor, "*modes"]:
        """Modes of a field; leading axes are kept."""
        return self._apply(x, inverse=False)

    def inverse(self, modes: Float[Tensor, "*modes"]) -> Float[Tensor, "*sites"]:
        """The field of these modes; ``inverse(forward(x)) == x``."""
        return self._apply(modes, inverse=True)

    def _apply(self, x: Tensor, *, inverse: bool) -> Tensor:
        dim = self.lattice.dim
        if tuple(x.shape[-dim:]) != self.lattice.shape:
            raise ValueError(f"expected a field on {self.lattice.shape} sites, got shape {tuple(x.shape)}")
        if x.dtype not in (torch.float32, torch.float64):
            return self._apply(x.float(), inverse=inverse).to(x.dtype)
        for axis in range(-dim, 0):
            x = self._along(x, axis, inverse=inverse)
        return x

    def _along(self, x: Tensor, axis: int, *, inverse: bool) -> Tensor:
        size = x.shape[axis]
        if size > self._matrix_limit:
            step = self.axis_transform.inverse if inverse else self.axis_transform.forward
            return step(x.movedim(axis, -1)).movedim(-1, axis)
        matrix = self._matrix(size, x)
        with torch.autocast(x.device.type, enabled=False):
            if axis == -1:
                return x @ (matrix if inverse else matrix.T)
            if axis == -2:
                return (matrix.T if inverse else matrix) @ x
            return torch.movedim(x.movedim(axis, -1) @ (matrix if inverse else matrix.T), -1, axis)

    def _matrix(self, size: int, like: Tensor) -> Tensor:
        """``matrix[n, x]``: mode n at site x, computed in float64 and kept in the dtype of ``like``."""
        key = (size, like.dtype, like.device)
        if key not in self._matrices:
            columns = self.axis_transform.forward(torch.eye(size, dtype=torch.float64))
            self._matrices[key] = columns.T.to(like)
        return self._matrices[key]
