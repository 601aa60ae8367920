"""The Ising model on a torus: its action, every state where they can be counted, and its continuous dual."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from renorm.bases import basis_for
from renorm.errors import DataError, RecipeError
from renorm.lattice import Lattice
from renorm.laws.kaufman import kaufman_log_z
from renorm.mcmc.torus import forward_sum, neighbour_sum

__all__ = ["ContinuousIsing", "Enumeration", "Ising"]

MOST_SITES = 20


@dataclass(frozen=True)
class Ising:
    r"""Spins on a two-dimensional torus, with exchange 1 and no field.

    $$ S(s) = -\beta\sum_{\langle xy\rangle} s_x s_y, \qquad p(s) = e^{-S(s)}/Z $$

    A side of 2 has two bonds between its sites.

    Args:
        shape: Sides in sites, each at least 2.
        beta: Inverse temperature in units of the exchange, >= 0.

    Raises:
        RecipeError: If there are not two sides of at least 2, or beta is negative.

    Example:
        >>> law = Ising((2, 2), beta=0.5)
        >>> law(torch.ones(1, 1, 2, 2)), round(law.log_z, 6), round(law.enumerate().log_z, 6)
        (tensor([-4.]), 4.797714, 4.797714)
    """

    shape: tuple[int, int]
    beta: float

    def __post_init__(self) -> None:
        if len(self.shape) != 2 or min(self.shape) < 2:
            raise RecipeError(f"shape must be two sides >= 2 (a site has no bond with itself), got {self.shape}")
        if not (self.beta >= 0 and math.isfinite(self.beta)):
            raise RecipeError(f"beta must be >= 0 and finite (it is an inverse temperature), got {self.beta}")

    @property
    def sites(self) -> int:
        """Number of spins."""
        return math.prod(self.shape)

    @property
    def log_z(self) -> float:
        """Log of the partition function, by Kaufman's formula, in nats."""
        return kaufman_log_z(self.shape, self.beta) if self.beta > 0 else self.sites * math.log(2)

    def __call__(self, spins: Float[Tensor, "batch 1 *sites"]) -> Float[Tensor, " batch"]:
        """Action of every configuration, in nats.

        Raises:
            DataError: If the spins do not live on this lattice.
        """
        if tuple(spins.shape[2:]) != self.shape:
            raise DataError(f"spins must be (batch, 1, *{self.shape}) to live here, got {tuple(spins.shape)}")
        return -self.beta * (spins * forward_sum(spins)).flatten(1).sum(1)

    def local_field(self, spins: Float[Tensor, "batch 1 *sites"]) -> Float[Tensor, "batch 1 *sites"]:
        r"""$\beta\sum_{y\sim x}s_y$: given its neighbours, a spin is up with probability $\sigma(2h)$."""
        return self.beta * neighbour_sum(spins)

    def log_prob(self, spins: Float[Tensor, "batch 1 *sites"]) -> Float[Tensor, " batch"]:
        """Exact log-probability, in nats."""
        return -self(spins) - self.log_z

    def enumerate(self) -> "Enumeration":
        """All states with their probabilities.

        Raises:
            RecipeError: If there are more than 20 sites, too many states to hold.
        """
        if self.sites > MOST_SITES:
            raise RecipeError(f"at most {MOST_SITES} sites can be enumerated (2^N states), got {self.sites}")
        bits = torch.arange(2**self.sites)[:, None] >> torch.arange(self.sites) & 1
        states = (2 * bits - 1).float().reshape(-1, 1, *self.shape)  # bonds are whole numbers: float32 holds them
        weight = self.beta * (states * forward_sum(states)).flatten(1).sum(1).double()
        log_z = float(weight.logsumexp(0))
        return Enumeration(states, weight - log_z, log_z)


@dataclass(frozen=True)
class Enumeration:
    """Every state of a law, with its log-probability in nats.

    Args:
        states: All configurations.
        log_prob: Of each state; the probabilities add to 1.
        log_z: Log of the partition function.
    """

    states: Float[Tensor, "states 1 *sites"]
    log_prob: Float64[Tensor, " states"]
    log_z: float

    def mean(self, observable: Callable[[Tensor], Tensor]) -> float:
        """Exact mean of a function of the states, (states, 1, *sites) to (states,)."""
        return float((self.log_prob.exp() * observable(self.states).double()).sum())

    def entropy(self, coarsen: Callable[[Tensor], Tensor] | None = None) -> float:
        r"""Entropy of the states, or of any function of them, in nats.

        $$ H = -\sum_c P(c)\ln P(c), \qquad P(c) = \sum_{s:\,\mathrm{coarsen}(s) = c} p(s) $$

        It is the least mean negative log-likelihood that a model of the states (of the coarse states) can reach.

        Args:
            coarsen: States (states, 1, \\*sites) to coarse states (states, ...).

        Example:
            >>> states = Ising((2, 2), 0.0).enumerate()
            >>> round(states.entropy() / math.log(2), 6), round(states.entropy(lambda s: s[..., 0]) / math.log(2), 6)
            (4.0, 2.0)
        """
        probability = self.log_prob.exp()
        if coarsen is not None:
            coarse = coarsen(self.states).flatten(1)
            _, cell = torch.unique(coarse, dim=0, return_inverse=True)
            probability = torch.zeros(int(cell.max()) + 1, dtype=torch.float64).index_add(0, cell, probability)
        return -float(torch.xlogy(probability, probability).sum())


@dataclass(frozen=True)
class ContinuousIsing:
    r"""A field with a density, whose signs carry the Ising model: a spin's continuous dual.

    $$ U(x) = \tfrac12 x^\top K_a^{-1}x - \sum_i\ln\cosh x_i, \qquad K_a = \beta A + a,\quad a = \epsilon - w_{\min} $$

    Here $A$ is the matrix of bonds, and $w_{\min}$ the least eigenvalue of $\beta A$. The joint law of spins and field,
    $\propto e^{-x^\top K_a^{-1}x/2 + s\cdot x}$, has both as its marginals, so

    $$ \ln Z_U = \ln Z + \tfrac{Na}2 + \tfrac N2\ln 2\pi + \tfrac12\ln\det K_a - N\ln 2. $$

    Args:
        ising: The law of the spins.
        offset: $\epsilon > 0$, the least eigenvalue of $K_a$.

    Raises:
        RecipeError: If the offset is not positive.

    Source:
        Li & Wang 2018, "Neural network renormalization group", Phys. Rev. Lett. 121, 260601.

    Example:
        >>> law = ContinuousIsing(Ising((16, 16), 0.44068679350977147))
        >>> round(law.shift, 9)
        354.233483222
    """

    ising: Ising
    offset: float = 0.1

    def __post_init__(self) -> None:
        if not self.offset > 0:
            raise RecipeError(
                f"offset must be > 0 (K_a must be positive definite to have a density), got {self.offset}"
            )

    @property
    def spectrum(self) -> Float64[Tensor, "*sites"]:
        """Eigenvalues of $K_a$, in the order of the real Fourier modes of the lattice."""
        return self._bonds() + self._diagonal()

    @property
    def shift(self) -> float:
        r"""$\ln Z_U - \ln Z$ in nats."""
        sites = self.ising.sites
        return sites * (self._diagonal() / 2 + math.log(math.pi / 2) / 2) + float(self.spectrum.log().sum()) / 2

    @property
    def log_z(self) -> float:
        r"""$\ln Z_U$ in nats."""
        return self.ising.log_z + self.shift

    def __call__(self, x: Float[Tensor, "batch 1 *sites"]) -> Float[Tensor, " batch"]:
        """Action $U$ of every field, in nats."""
        modes = basis_for(self._lattice()).forward(x)
        quadratic = (modes**2 / self.spectrum.to(x)).flatten(1).sum(1) / 2
        return quadratic - (torch.logaddexp(x, -x) - math.log(2)).flatten(1).sum(1)

    def grad(self, x: Float[Tensor, "batch 1 *sites"]) -> Float[Tensor, "batch 1 *sites"]:
        r"""$\nabla U = K_a^{-1}x - \tanh x$."""
        basis = basis_for(self._lattice())
        return basis.inverse(basis.forward(x) / self.spectrum.to(x)) - x.tanh()

    def log_prob(self, x: Float[Tensor, "batch 1 *sites"]) -> Float[Tensor, " batch"]:
        """Exact log-density, in nats."""
        return -self(x) - self.log_z

    def spins(
        self, x: Float[Tensor, "batch 1 *sites"], *, generator: torch.Generator
    ) -> Float[Tensor, "batch 1 *sites"]:
        r"""Spins given the field, independent of each other: up with probability $\sigma(2x)$."""
        u = torch.rand(x.shape, generator=generator, dtype=x.dtype, device=x.device)
        return torch.where(u < (2 * x).sigmoid(), 1.0, -1.0).to(x.dtype)

    def field(
        self, spins: Float[Tensor, "batch 1 *sites"], *, generator: torch.Generator
    ) -> Float[Tensor, "batch 1 *sites"]:
        r"""A field given the spins, $x \sim N(K_a s, K_a)$."""
        basis, spectrum = basis_for(self._lattice()), self.spectrum.to(spins)
        noise = torch.randn(spins.shape, generator=generator, dtype=spins.dtype, device=spins.device)
        return basis.inverse(basis.forward(spins) * spectrum + noise * spectrum.sqrt())

    def _lattice(self) -> Lattice:
        return Lattice(self.ising.shape, "periodic")

    def _bonds(self) -> Float64[Tensor, "*sites"]:
        lattice = self._lattice()
        return 2 * self.ising.beta * (lattice.wavenumbers(0).cos()[:, None] + lattice.wavenumbers(1).cos()[None, :])

    def _diagonal(self) -> float:
        return self.offset - float(self._bonds().min())
