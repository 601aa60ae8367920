"""A ring of particles in double wells: a molecule small enough that its transfer matrix answers everything."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Float64
from scipy.interpolate import RectBivariateSpline
from scipy.special import logsumexp
from torch import Tensor

from renorm.errors import DataError, RecipeError
from renorm.spec import require

__all__ = ["DoubleWellChain", "TransferChain"]


@dataclass(frozen=True, eq=False)
class TransferChain:
    r"""A ring of $n$ sites by its transfer operator on quadrature nodes: $Z = e^{ns}\operatorname{tr}T^n$.

    Args:
        sites: $n$.
        nodes: Where the operator is known, in field units.
        log_matrix: $\ln T$, symmetric, its weights included.
        log_scale: $s$, taken out of every site.
    """

    sites: int
    nodes: Float64[np.ndarray, " nodes"]
    log_matrix: Float64[np.ndarray, "nodes nodes"]
    log_scale: float

    @cached_property
    def matrix(self) -> Float64[np.ndarray, "nodes nodes"]:
        """$T$."""
        return np.exp(self.log_matrix)

    @cached_property
    def eigenvalues(self) -> Float64[np.ndarray, " nodes"]:
        """Of the operator, largest first."""
        return np.linalg.eigvalsh(self.matrix)[::-1]

    @property
    def log_z(self) -> float:
        """Log of the partition function, in nats."""
        ratio = self.eigenvalues / self.eigenvalues[0]
        return self.sites * (self.log_scale + math.log(self.eigenvalues[0])) + math.log(np.sum(ratio**self.sites))

    @property
    def correlation_length(self) -> float:
        r"""$\xi = 1/\ln(\lambda_0/\lambda_1)$, in sites."""
        return 1 / math.log(self.eigenvalues[0] / self.eigenvalues[1])

    def decimate(self) -> "TransferChain":
        r"""Every other site integrated out, exactly: $T' = T^2$ on half the sites, with the same $Z$.

        Raises:
            RecipeError: If the number of sites is odd: two of them would stay neighbours.
        """
        if self.sites % 2:
            raise RecipeError(f"sites must be even (every other one is integrated out), got {self.sites}")
        log = self.log_matrix
        square = np.stack([logsumexp(log + row[:, None], axis=0) for row in log])  # far corners keep their digits
        top = float(square.max())
        return TransferChain(self.sites // 2, self.nodes, square - top, 2 * self.log_scale + top)

    def log_prob(self, x: Float[Tensor, "batch 1 sites"]) -> Float64[Tensor, " batch"]:
        r"""Log-density of fields on the ring, in nats: $\ln p = \sum_i[s + \ln T(x_i, x_{i+1})/dx] - \ln Z$.

        $\ln T$ is read between the nodes by splines of order 5; no gradient passes.

        Raises:
            DataError: If fields are not (batch, 1, sites), or reach beyond the nodes.
        """
        if tuple(x.shape[1:]) != (1, self.sites):
            raise DataError(f"fields must be (batch, 1, {self.sites}) to live here, got {tuple(x.shape)}")
        here = x[:, 0].detach().cpu().double().numpy()
        low, high = float(self.nodes[0]), float(self.nodes[-1])
        if here.size and not (low <= here.min() and here.max() <= high):
            raise DataError(f"the law is known from {low:.3g} to {high:.3g}, got {here.min():.3g} to {here.max():.3g}")
        bonds = self._log_bond.ev(here, np.roll(here, -1, 1)).sum(1)
        return torch.as_tensor(bonds + self.sites * self.log_scale - self.log_z)

    @cached_property
    def _log_bond(self) -> RectBivariateSpline:
        step = self.nodes[1] - self.nodes[0]
        return RectBivariateSpline(self.nodes, self.nodes, self.log_matrix - math.log(step), kx=5, ky=5)

    def density(self) -> Float64[np.ndarray, " nodes"]:
        """Probability of each node at a site; it adds to 1."""
        weight = np.diag(np.linalg.matrix_power(self.matrix / self.eigenvalues[0], self.sites))
        return weight / weight.sum()

    def mean(self, observable: Callable[[np.ndarray], np.ndarray]) -> float:
        """Exact mean of a function of the field at a site."""
        return float(self.density() @ observable(self.nodes))


@dataclass(frozen=True)
class DoubleWellChain:
    r"""A ring of sites, each in a double well, tied to its neighbours by springs.

    $$ U(x) = \sum_i h\,(x_i^2 - 1)^2 + \tfrac k2\,(x_{i+1} - x_i)^2 $$

    It is one-dimensional lattice $\phi^4$: with $\kappa = k/2$, $\lambda = h$, $c_2 = k - 2h$, and $h$ more a site.

    Args:
        sites: $n \ge 1$; a single site is tied to itself, and the spring does nothing.
        stiffness: $k > 0$, in nats per field unit squared.
        barrier: $h > 0$, in nats.

    Raises:
        ValueError: If one of them is out of range.

    Example:
        >>> law = DoubleWellChain(32, stiffness=1.0)
        >>> round(law.log_z, 8), round(law.correlation_length, 3)
        (-19.28578385, 2.524)
    """

    sites: int
    stiffness: float
    barrier: float = 4.0

    def __post_init__(self) -> None:
        require(self.sites >= 1, "sites must be >= 1 (a ring has a site)", self.sites)
        require(self.stiffness > 0, "stiffness must be > 0 (else sites know nothing of each other)", self.stiffness)
        require(self.barrier > 0, "barrier must be > 0 (else nothing holds the ring)", self.barrier)

    def __call__(self, x: Float[Tensor, "batch 1 sites"]) -> Float[Tensor, " batch"]:
        """Energy of every configuration, in nats.

        Raises:
            DataError: If fields are not (batch, 1, sites).
        """
        if tuple(x.shape[1:]) != (1, self.sites):
            raise DataError(f"fields must be (batch, 1, {self.sites}) to live here, got {tuple(x.shape)}")
        wells = self.barrier * (x.square() - 1).square()
        springs = self.stiffness / 2 * (x.roll(-1, 2) - x).square()
        return (wells + springs).flatten(1).sum(1)

    def grad(self, x: Float[Tensor, "batch 1 sites"]) -> Float[Tensor, "batch 1 sites"]:
        r"""$\nabla U = 4h\,x(x^2 - 1) + k\,(2x_i - x_{i-1} - x_{i+1})$."""
        return 4 * self.barrier * x * (x.square() - 1) + self.stiffness * (2 * x - x.roll(1, 2) - x.roll(-1, 2))

    def log_prob(self, x: Float[Tensor, "batch 1 sites"]) -> Float[Tensor, " batch"]:
        """Exact log-density, in nats."""
        return -self(x) - self.log_z

    @cached_property
    def transfer(self) -> TransferChain:
        r"""$T(x, y) = e^{-V(x)/2 - k(x-y)^2/2 - V(y)/2}\,dx$, by the trapezoidal rule.

        The integrand is smooth and vanishes at the ends, so the rule converges faster than any power of the spacing.
        """
        reach = math.sqrt(1 + math.sqrt(40 / self.barrier))  # V is 40 nats there: 1e-17 of the top
        width = 1 / math.sqrt(self.stiffness + 8 * self.barrier)  # of the narrowest Gaussian in the integrand
        nodes = np.linspace(-reach, reach, 2 * math.ceil(4 * reach / width) + 1)
        well = self.barrier * (nodes**2 - 1) ** 2
        exponent = -well[:, None] / 2 - well[None, :] / 2 - self.stiffness / 2 * (nodes[:, None] - nodes[None, :]) ** 2
        return TransferChain(self.sites, nodes, exponent + math.log(nodes[1] - nodes[0]), 0.0)

    @property
    def log_z(self) -> float:
        """Log of the partition function, in nats."""
        return self.transfer.log_z

    @property
    def correlation_length(self) -> float:
        """In sites."""
        return self.transfer.correlation_length
