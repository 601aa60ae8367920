r"""Lattice $\phi^4$: one action under the four names that it has in the literature, exact on narrow tori."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor

from renorm.errors import DataError, RecipeError
from renorm.lattice import Lattice
from renorm.laws.transfer import RowTransfer, TorusMoments, gauss_rule
from renorm.mcmc.torus import forward_sum, neighbour_sum

__all__ = ["Phi4"]

NODES = {1: 48, 2: 24, 3: 16, 4: 12}
"""Quadrature nodes at a site, by the narrower side: one second for a torus of side 4, less for the others."""


@dataclass(frozen=True)
class Phi4:
    r"""A scalar field with a quartic self-interaction on a torus of one to three axes.

    $$ S(\phi) = \sum_x\Big[-2\kappa\sum_\mu\phi_x\phi_{x+\hat\mu} + c_2\phi_x^2 + \lambda\phi_x^4\Big], \qquad
       Z = \int\prod_x d\phi_x\,e^{-S} $$

    A side of 2 has two bonds between its sites.

    Args:
        shape: Sites along each axis.
        kappa: $\kappa$, the hopping parameter.
        lam: $\lambda \ge 0$.
        c2: $c_2$; by default $1 - 2\lambda$, which makes $\lambda(\phi^2 - 1)^2 + \phi^2$ of it, less $\lambda$.

    Raises:
        RecipeError: If $\lambda < 0$, or $\lambda = 0$ and a mode is not held by the quadratic part: $e^{-S}$
            cannot be normalised.

    Example:
        >>> import torch
        >>> law = Phi4((2, 2), kappa=0.34, lam=1.0)
        >>> round(law.log_z(), 10), law(torch.ones(1, 1, 2, 2))
        (5.5731270853, tensor([-5.4400]))
    """

    shape: tuple[int, ...]
    kappa: float
    lam: float
    c2: float | None = None

    def __post_init__(self) -> None:
        Lattice(self.shape, "periodic")
        if not (self.lam >= 0 and math.isfinite(self.lam)):
            raise RecipeError(f"lam must be >= 0 (the action has no lower bound otherwise), got {self.lam}")
        if self.lam == 0 and self._softest() <= 0:
            raise RecipeError(
                "at lam = 0 every mode needs a positive quadratic part, c2 > 2 kappa sum cos k (else nothing holds "
                f"it), got {self._softest():.6g} at the softest mode; raise c2 or lam"
            )

    @classmethod
    def kaupuzs(cls, shape: tuple[int, ...], beta: float, lam: float = 1.0) -> "Phi4":
        r"""$S = -\beta\sum_{\langle xy\rangle}\phi_x\phi_y + \sum_x[\phi^2 + \lambda(\phi^2 - 1)^2]$.

        $\kappa = \beta/2$. Our action is theirs less $\lambda$ a site, so our $\ln Z$ is theirs plus $\lambda N$.
        At $\lambda = 1$ also that of WC-RG.

        Example:
            >>> Phi4.kaupuzs((4, 4), 0.68) == Phi4((4, 4), 0.34, 1.0)
            True
        """
        return cls(shape, beta / 2, lam)

    @classmethod
    def albergo(cls, shape: tuple[int, ...], mass_sq: float, lam: float) -> "Phi4":
        r"""$S = \sum_x[\phi\,\Box\,\phi + m^2\phi^2 + \lambda\phi^4]$, $\Box = -\Delta$.

        $\kappa = 1$, $c_2 = 2d + m^2$.

        Example:
            >>> Phi4.albergo((4, 4), -4.0, 6.975).coefficient
            0.0
        """
        return cls(shape, 1.0, lam, 2 * len(shape) + mass_sq)

    @classmethod
    def normflow(cls, shape: tuple[int, ...], k: float, mass_sq: float, lam: float) -> "Phi4":
        r"""$S = \sum_x[\tfrac k2(\partial\phi)^2 + \tfrac{m^2}2\phi^2 + \lambda\phi^4]$.

        $\kappa = k/2$, $c_2 = kd + m^2/2$.

        Example:
            >>> Phi4.normflow((4, 4), 0.5, 1.0, 0.2)
            Phi4(shape=(4, 4), kappa=0.25, lam=0.2, c2=1.5)
        """
        return cls(shape, k / 2, lam, k * len(shape) + mass_sq / 2)

    @classmethod
    def continuum(cls, shape: tuple[int, ...], mass_sq: float, g: float) -> "Phi4":
        r"""$S = \sum_x[\tfrac12(\partial\phi)^2 + \tfrac12\mu_0^2\phi^2 + \tfrac g4\phi^4]$.

        $\kappa = \tfrac12$, $c_2 = d + \mu_0^2/2$, $\lambda = g/4$.

        Example:
            >>> Phi4.continuum((4, 4), -1.0, 0.4)
            Phi4(shape=(4, 4), kappa=0.5, lam=0.1, c2=1.5)
        """
        return cls(shape, 0.5, g / 4, len(shape) + mass_sq / 2)

    @property
    def coefficient(self) -> float:
        r"""$c_2$, given or $1 - 2\lambda$."""
        return 1 - 2 * self.lam if self.c2 is None else self.c2

    @property
    def sites(self) -> int:
        """Number of sites."""
        return math.prod(self.shape)

    @property
    def bond(self) -> float:
        r"""$J = 2\kappa$, the coupling of a bond: what `Cluster` and `SiteMetropolis` ask for."""
        return 2 * self.kappa

    def potential(self, phi: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
        r"""$V(\phi) = c_2\phi^2 + \lambda\phi^4$ of every element."""
        square = phi.square()
        return (self.coefficient + self.lam * square) * square

    def __call__(self, phi: Float[Tensor, "batch 1 *sites"]) -> Float[Tensor, " batch"]:
        """Action of every field, in nats.

        Raises:
            DataError: If the fields do not live on this lattice.
        """
        if tuple(phi.shape[2:]) != self.shape:
            raise DataError(f"fields must be (batch, 1, *{self.shape}) to live here, got {tuple(phi.shape)}")
        return (self.potential(phi) - self.bond * phi * forward_sum(phi)).flatten(1).sum(1)

    def grad(self, phi: Float[Tensor, "batch 1 *sites"]) -> Float[Tensor, "batch 1 *sites"]:
        r"""$\partial S/\partial\phi_x = 2c_2\phi_x + 4\lambda\phi_x^3 - h_x$."""
        return 2 * phi * (self.coefficient + 2 * self.lam * phi.square()) - self.local_field(phi)

    def local_field(self, phi: Float[Tensor, "batch 1 *sites"]) -> Float[Tensor, "batch 1 *sites"]:
        r"""$h_x = 2\kappa\sum_{y\sim x}\phi_y$; given its neighbours, $p(\phi_x) \propto e^{h_x\phi_x - V(\phi_x)}$."""
        return self.bond * neighbour_sum(phi)

    def log_z(self, nodes: int | None = None) -> float:
        """Log of the partition function by transfer matrix, in nats; see `moments`.

        Raises:
            RecipeError: If the lattice has three axes of more than a site, or is wider than 4.
        """
        transfer, length = self._transfer(nodes)
        return transfer.log_z(length)

    def moments(self, nodes: int | None = None) -> TorusMoments:
        r"""Partition function and moments by transfer matrix; seconds on $4\times4$, less below.

        The error is that of the quadrature. Gauss rules converge exponentially: ask again with more nodes to see it.

        Args:
            nodes: At a site; by default 12 on a torus of width 4, more on narrower ones.

        Raises:
            RecipeError: If the lattice has three axes of more than a site, or is wider than 4.

        Example:
            >>> exact = Phi4((2, 2), 0.34, 1.0).moments()
            >>> round(exact.phi_sq, 6), round(exact.chi, 6)
            (0.898434, 3.003191)
        """
        transfer, length = self._transfer(nodes)
        return transfer.moments(length)

    def log_z_strip(self, nodes: int | None = None) -> float:
        r"""$\ln Z$ per site, in nats, of an endless strip whose width is the narrower side.

        Raises:
            RecipeError: If the lattice has three axes of more than a site, or is wider than 4.

        Example:
            >>> round(Phi4((2, 2), 0.34, 1.0).log_z_strip(), 8)
            1.29215318
        """
        transfer, _ = self._transfer(nodes)
        return transfer.log_top / transfer.width

    def _softest(self) -> float:
        """Least coefficient of a mode in the quadratic part of the action."""
        axes = [np.cos(2 * np.pi * np.arange(side) / side) for side in self.shape]
        extremes = [max(self.kappa * c.max(), self.kappa * c.min()) for c in axes]
        return self.coefficient - 2 * float(sum(extremes))

    def _transfer(self, nodes: int | None) -> tuple[RowTransfer, int]:
        ring = len(self.shape) > 1
        width, length = sorted(self.shape) if len(self.shape) == 2 else (1, self.shape[0])
        if len(self.shape) > 2 or width > max(NODES):
            raise RecipeError(
                f"exact answers need one axis, or two of which one has at most {max(NODES)} sites (the transfer "
                f"matrix has nodes^width rows), got {self.shape}"
            )
        # Between the law of a site on its own and that of a site whose neighbours all stand where it stands.
        soft = self.coefficient - sum(abs(self.kappa) if side > 1 else 2 * self.kappa for side in self.shape)

        def log_density(phi: np.ndarray) -> np.ndarray:
            return -soft * phi**2 - self.lam * phi**4

        reach = _reach(soft, self.lam)
        rule = gauss_rule(log_density, NODES[width] if nodes is None else nodes, reach)
        potential = self.coefficient * rule.nodes**2 + self.lam * rule.nodes**4
        return RowTransfer(rule, potential, self.bond, width, closed=ring), length


def _reach(quadratic: float, quartic: float) -> float:
    """Where quadratic phi^2 + quartic phi^4 stands 60 nats above its least value."""
    if quartic == 0:
        return math.sqrt(60 / quadratic)
    well = max(0.0, -quadratic / (2 * quartic))
    rise = 60 + (quartic * well**2 if well > 0 else 0.0)
    return math.sqrt((-quadratic + math.sqrt(quadratic**2 + 4 * quartic * rise)) / (2 * quartic))
