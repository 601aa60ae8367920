"""Quadratic terms: products of two fields at a fixed displacement, summed over the lattice."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from renorm.cascade.energy.terms import Merged, Term, cell_sum, offsets
from renorm.spec import require

__all__ = ["DetailStencil", "FieldStencil"]

_CONV = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}


class FieldStencil(Term):
    r"""Products on the merged field, $U_m = \sum_x \sum_{r \in m} \phi_x \phi_{x + r}$.

    Args:
        groups: Name -> displacements r that share one coefficient, in fine sites.

    Example: the two terms of a free field.
        >>> term = FieldStencil({"phi^2": [(0, 0)], "neighbours": [(0, 1), (1, 0)]})
        >>> x = torch.ones(1, 1, 2, 2)
        >>> term.density(torch.tensor([1.0, 0.5]), Merged(x[..., :1, :1], x, x)).item()
        8.0
    """

    on_field = True

    def __init__(self, groups: Mapping[str, Sequence[tuple[int, ...]]]) -> None:
        super().__init__()
        self.names = tuple(groups)
        self.groups = tuple(tuple(group) for group in groups.values())

    def density(self, theta: Tensor, parts: Merged) -> Tensor:
        """Products, each at its first site."""
        phi = parts.field
        ahead = torch.zeros_like(phi)
        for weight, group in zip(theta, self.groups, strict=True):
            ahead = ahead + weight * _shifted(phi, group)
        return cell_sum(phi * ahead, parts.coarse.shape[2:])

    def gradient(self, theta: Tensor, parts: Merged) -> Tensor:
        r"""$\phi_{x + r} + \phi_{x - r}$."""
        total = torch.zeros_like(parts.field)
        for weight, group in zip(theta, self.groups, strict=True):
            total = total + weight * (_shifted(parts.field, group) + _shifted(parts.field, group, -1))
        return total

    def curvature(self, theta: Tensor, parts: Merged, direction: Merged) -> Tensor:
        """That of a quadratic form: its gradient at the direction."""
        return self.gradient(theta, direction)

    def jacobian(self, parts: Merged) -> Tensor:
        r"""$\phi_{x + r} + \phi_{x - r}$ of each."""
        phi = parts.field
        return torch.stack([_shifted(phi, group) + _shifted(phi, group, -1) for group in self.groups], 1)

    def trace(self, units: Merged) -> Tensor:
        """Twice the value of each, summed over unit details."""
        w = units.field
        return torch.stack([2 * (w * _shifted(w, group)).sum() for group in self.groups])

    def laplacian(self, parts: Merged, trace: Tensor) -> Float[Tensor, "batch terms"]:
        """The trace, the same for every field."""
        return trace.expand(len(parts.field), -1)


class DetailStencil(Term):
    r"""Products of details with details, and of details with the coarse field, at every displacement up to a radius.

    $$ U = \sum_x y_a(x)\, y_b(x + r), \qquad U = \sum_x y_a(x)\, c(x + r), \qquad |r_i| \le R $$

    so $\tfrac12 y^\top A y + y^\top B c$ with any A and B of that range.

    Args:
        dim: Axes of the lattice.
        channels: Of the coarse field.
        details: Channels of the detail.
        radius: R, in coarse sites.

    Example:
        >>> len(DetailStencil(2, 1, 3, radius=1).names)  # 3 * 5 + 3 * 9 with details, 3 * 9 with the coarse field
        69
    """

    on_field = False
    _place: Tensor
    _which: Tensor

    def __init__(self, dim: int, channels: int, details: int, radius: int = 1) -> None:
        super().__init__()
        require(dim in _CONV, "a lattice has one to three axes", dim)
        require(radius >= 0, "radius must be >= 0", radius)
        self.dim, self.radius, self.inputs, self.details = dim, radius, details + channels, details
        around = offsets(dim, radius)
        self.products = [  # (first, second, displacement); inputs are details, then coarse channels
            (a, b, r)
            for a in range(details)
            for b in range(a, self.inputs)
            for r in around
            if a != b or r >= (0,) * dim
        ]
        self.names = tuple(
            f"y{a}.{f'y{b}' if b < details else f'c{b - details}'}{list(r)}" for a, b, r in self.products
        )
        size, entries = len(around), []
        for m, (a, b, r) in enumerate(self.products):
            entries.append(((a * self.inputs + b) * size + around.index(r), m))
            if b < details:  # the other factor is a detail too, and sees the first the other way round
                back = around.index(tuple(-n for n in r))
                entries.append(((b * self.inputs + a) * size + back, m))
        place, which = torch.tensor(entries).T
        self.register_buffer("_place", place, persistent=False)
        self.register_buffer("_which", which, persistent=False)

    def _kernels(self, theta: Tensor) -> Tensor:
        """A, then B, as one convolution kernel (details, details + channels, *displacements)."""
        shape = (self.details, self.inputs, *[2 * self.radius + 1] * self.dim)
        flat = theta.new_zeros(self.details * self.inputs * (2 * self.radius + 1) ** self.dim)
        return flat.index_add(0, self._place, theta[self._which]).reshape(shape)

    def _filtered(self, theta: Tensor, parts: Merged, *, half: bool = False) -> Tensor:
        kernel = self._kernels(theta).to(parts.detail.dtype)
        if half:
            kernel = torch.cat([kernel[:, : self.details] / 2, kernel[:, self.details :]], 1)
        x = torch.cat([parts.detail, parts.coarse], 1)
        for axis in range(2, x.ndim):  # wraps more than once around a small lattice, which functional.pad refuses
            index = torch.arange(-self.radius, x.shape[axis] + self.radius, device=x.device) % x.shape[axis]
            x = x.index_select(axis, index)
        return _CONV[self.dim](x, kernel)

    def density(self, theta: Tensor, parts: Merged) -> Tensor:
        r"""$\tfrac12 y (A y) + y (B c)$ at each site."""
        return (parts.detail * self._filtered(theta, parts, half=True)).sum(1)

    def gradient(self, theta: Tensor, parts: Merged) -> Tensor:
        r"""$A y + B c$."""
        return self._filtered(theta, parts)

    def curvature(self, theta: Tensor, parts: Merged, direction: Merged) -> Tensor:
        r"""$A v$."""
        return self._filtered(theta, direction)

    def jacobian(self, parts: Merged) -> Tensor:
        """Each product's other factor."""
        x = torch.cat([parts.detail, parts.coarse], 1)
        axes = tuple(range(1, self.dim + 1))
        out = x.new_zeros(len(x), len(self.products), self.details, *x.shape[2:])
        for m, (a, b, r) in enumerate(self.products):
            out[:, m, a] += x[:, b].roll([-n for n in r], axes)
            if b < self.details:
                out[:, m, b] += x[:, a].roll(r, axes)
        return out

    def trace(self, units: Merged) -> Tensor:
        """Twice the square of a unit detail, where the displacement leads back to itself."""
        square = 2 * units.detail.square().flatten(2).sum((0, 2))
        shape = units.detail.shape[2:]
        home = [a == b and all(n % side == 0 for n, side in zip(r, shape, strict=True)) for a, b, r in self.products]
        return torch.stack([square[a] * float(at) for at, (a, _, _) in zip(home, self.products, strict=True)])

    def laplacian(self, parts: Merged, trace: Tensor) -> Float[Tensor, "batch terms"]:
        """The trace, the same for every field."""
        return trace.expand(len(parts.detail), -1)


def _shifted(phi: Tensor, group: Sequence[tuple[int, ...]], sign: int = 1) -> Tensor:
    r"""$\sum_r \phi_{x \pm r}$."""
    axes = tuple(range(2, phi.ndim))
    total = torch.zeros_like(phi)
    for r in group:
        total = total + phi.roll([-sign * n for n in r], axes)
    return total
