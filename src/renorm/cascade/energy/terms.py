r"""Terms of a conditional energy: local, the same at every coarse site, and linear in what is learned.

$$ E_\theta(y \mid c) = \sum_m \theta_m U_m(c, y), \qquad U_m = \sum_{\text{sites}} u_m , \qquad \phi = W^\top (c, y) $$

A term is a family of such $U_m$. It gives their sum weighted by $\theta$ as a density over coarse sites and as a
gradient, for sampling, and each $U_m$ apart as a Jacobian and a Laplacian, for learning. A term lives either on the
details or on the merged field $\phi$; in that case its gradient is taken in $\phi$, and whoever asks projects it.
"""

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from renorm.errors import DataError
from renorm.spec import require

__all__ = ["Bumps", "Merged", "Monomials", "Potential", "Term", "cell_sum"]

CACHE = 2**12
"""Values whose bumps are computed together: short passes stay within the cache."""

FAR = 70.0
"""e^-70 stands for what is less: nothing to an energy, while float32 beyond e^-87 is slow by two orders."""


class Merged(NamedTuple):
    r"""Coarse field, detail, and the fine field that they make.

    Attributes:
        coarse: (batch, channel, \*sites).
        detail: (batch, details, \*sites).
        field: (batch, channel, \*fine sites).
    """

    coarse: Tensor
    detail: Tensor
    field: Tensor


class Term(nn.Module, ABC):
    r"""Some of the $U_m$ of an energy.

    Attributes:
        names: One for each $U_m$.
        on_field: Whether gradients are taken in $\phi$ (else in the detail).
    """

    names: tuple[str, ...]
    on_field: bool

    def prepare(self, parts: Merged) -> None:
        """Set what depends on data but is not learned (centres of bumps); nothing by default."""

    @abstractmethod
    def density(self, theta: Tensor, parts: Merged) -> Tensor:
        r"""$\sum_m \theta_m u_m$ at every coarse site, (batch, \*sites), in nats."""

    @abstractmethod
    def gradient(self, theta: Tensor, parts: Merged) -> Tensor:
        r"""$\sum_m \theta_m \nabla U_m$, of the shape of the field or of the detail."""

    @abstractmethod
    def curvature(self, theta: Tensor, parts: Merged, direction: Merged) -> Tensor:
        r"""$\sum_m \theta_m \nabla\nabla U_m \cdot v$ for a direction of zero coarse field."""

    @abstractmethod
    def jacobian(self, parts: Merged) -> Tensor:
        r"""$\nabla U_m$ of each, (batch, m, \*shape of the field or of the detail)."""

    @abstractmethod
    def trace(self, units: Merged) -> Tensor:
        """What ``laplacian`` needs of unit details $w_i$ (batch i, with zero coarse field); it adds up over them."""

    @abstractmethod
    def laplacian(self, parts: Merged, trace: Tensor) -> Float[Tensor, "batch terms"]:
        r"""$\sum_i w_i^\top (\nabla\nabla U_m) w_i$ of each."""


def cell_sum(x: Float[Tensor, "batch channel *fine"], sites: Sequence[int]) -> Float[Tensor, "batch *sites"]:
    """Sums over channels and over the block of fine sites of each coarse site.

    Example:
        >>> cell_sum(torch.tensor([[[1.0, 2.0, 3.0, 4.0]]]), (2,))
        tensor([[3., 7.]])
    """
    x = x.sum(1)
    for axis, n in enumerate(sites):
        x = x.unflatten(1 + axis, (n, -1)).sum(2 + axis)
    return x


class Potential(Term):
    r"""Scalar potentials, $U_m = \sum_x \rho_m(\phi_x)$ over the sites of the merged field."""

    on_field = True

    @abstractmethod
    def profile(self, m: int, phi: Tensor, order: int) -> Tensor:
        r"""$\rho_m$ (order 0), $\rho_m'$ (1) or $\rho_m''$ (2) of every element."""

    def total(self, theta: Tensor, phi: Tensor, order: int) -> Tensor:
        r"""$\sum_m \theta_m \rho_m$, or a derivative, of every element."""
        total = torch.zeros_like(phi)
        for m, weight in enumerate(theta):
            total = total + weight * self.profile(m, phi, order)
        return total

    def density(self, theta: Tensor, parts: Merged) -> Tensor:
        """The potential, block by block."""
        return cell_sum(self.total(theta, parts.field, 0), parts.coarse.shape[2:])

    def gradient(self, theta: Tensor, parts: Merged) -> Tensor:
        r"""$V'(\phi_x)$."""
        return self.total(theta, parts.field, 1)

    def curvature(self, theta: Tensor, parts: Merged, direction: Merged) -> Tensor:
        r"""$V''(\phi_x)\, v_x$."""
        return self.total(theta, parts.field, 2) * direction.field

    def jacobian(self, parts: Merged) -> Tensor:
        r"""$\rho_m'(\phi_x)$."""
        return torch.stack([self.profile(m, parts.field, 1) for m in range(len(self.names))], 1)

    def trace(self, units: Merged) -> Tensor:
        r"""$\sum_i w_{ix}^2$, how much of a site the details move."""
        return units.field.square().sum(0)

    def laplacian(self, parts: Merged, trace: Tensor) -> Float[Tensor, "batch terms"]:
        r"""$\sum_x \rho_m''(\phi_x) \sum_i w_{ix}^2$."""
        each = [(self.profile(m, parts.field, 2) * trace).flatten(1).sum(1) for m in range(len(self.names))]
        return torch.stack(each, 1)


class Monomials(Potential):
    r"""$\rho_p(\phi) = \phi^p$.

    Args:
        powers: The p, each >= 1.

    Example:
        >>> Monomials((2, 4)).profile(1, torch.tensor([2.0]), 2)  # 12 phi^2
        tensor([48.])
    """

    def __init__(self, powers: Sequence[int] = (4,)) -> None:
        super().__init__()
        for power in powers:
            require(power >= 1, "powers must be >= 1 (a constant moves nothing)", power)
        self.powers = tuple(powers)
        self.names = tuple(f"phi^{p}" for p in powers)

    def profile(self, m: int, phi: Tensor, order: int) -> Tensor:
        r"""$p (p - 1) \cdots \phi^{p - \text{order}}$."""
        power = self.powers[m]
        return math.perm(power, order) * phi ** max(power - order, 0)


class Bumps(Potential):
    r"""Gaussian bumps at quantiles of the data, so that every part of the histogram has its own.

    $$ \rho_m(\phi) = e^{-u_-^2/2} + e^{-u_+^2/2}, \qquad u_\mp = (\phi \mp c_m) / s_m $$

    with $c_m$ at quantiles of $|\phi|$ and $s_m$ the larger distance to a neighbouring centre; not ``symmetric``:
    only the first of the two, at quantiles of $\phi$.

    Args:
        num: How many, >= 2.
        symmetric: Whether the potential is even.

    Source:
        Marchand, Ozawa, Biroli, Mallat 2022, arXiv:2207.04941.

    Example:
        >>> bumps = Bumps(3)
        >>> x = torch.linspace(-1, 1, 101).reshape(1, 1, 101)
        >>> bumps.prepare(Merged(x, x, x))
        >>> [round(c, 2) for c in bumps.centres.tolist()]
        [0.0, 0.5, 1.0]
    """

    centres: Tensor
    widths: Tensor

    def __init__(self, num: int = 8, *, symmetric: bool = True) -> None:
        super().__init__()
        require(num >= 2, "num must be >= 2 (a bump is as wide as the distance to the next)", num)
        self.symmetric = symmetric
        self.names = tuple(f"bump{m}" for m in range(num))
        self.register_buffer("centres", torch.arange(num, dtype=torch.float64))
        self.register_buffer("widths", torch.ones(num, dtype=torch.float64))

    def prepare(self, parts: Merged) -> None:
        """Put the centres at quantiles.

        Raises:
            DataError: If so many values are equal that two centres fall together.
        """
        values = parts.field.double().flatten()
        values = (values.abs() if self.symmetric else values).sort().values
        num = len(self.names)
        place = (torch.linspace(0, 1, num, dtype=torch.float64) * (len(values) - 1)).round().long()
        centres = values[place.to(values.device)]
        gaps = centres.diff()
        if not bool((gaps > 0).all()):
            raise DataError(f"bumps stand at different values, got {num} quantiles of which some are equal; take fewer")
        self.centres.copy_(centres)
        self.widths.copy_(torch.maximum(torch.cat([gaps[:1], gaps]), torch.cat([gaps, gaps[-1:]])))

    def profile(self, m: int, phi: Tensor, order: int) -> Tensor:
        """The bump, its slope or its curvature."""
        only = torch.zeros(len(self.names), dtype=phi.dtype, device=phi.device)
        only[m] = 1.0
        return self.total(only, phi, order)

    def total(self, theta: Tensor, phi: Tensor, order: int) -> Tensor:
        r"""All bumps at once: $\sum_m \theta_m \rho_m$, or a derivative, of every element."""
        centres, inverse = self.centres.to(phi), 1 / self.widths.to(phi)
        if self.symmetric:
            centres, inverse, theta = torch.cat([centres, -centres]), inverse.repeat(2), theta.repeat(2)
        weight = theta * (-inverse) ** order
        parts = []
        for part in phi.flatten().split(CACHE):
            u = (part[:, None] - centres) * inverse
            bump = (u.square() * -0.5).clamp_min(-FAR).exp()
            if order:
                bump = bump * (u if order == 1 else u.square() - 1)
            parts.append(bump @ weight)
        return torch.cat(parts).reshape(phi.shape)


def offsets(dim: int, radius: int) -> list[tuple[int, ...]]:
    """All displacements of at most ``radius`` on each axis, in the order of a kernel's entries."""
    return list(itertools.product(range(-radius, radius + 1), repeat=dim))
