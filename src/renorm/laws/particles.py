"""Clusters of equal particles: four in double wells of their distances, and Lennard-Jones clusters in a trap."""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from renorm.errors import DataError
from renorm.lattice import Lattice
from renorm.spec import require

__all__ = ["DoubleWellCluster", "LennardJonesCluster"]


@dataclass(frozen=True)
class DoubleWellCluster:
    r"""Particles in a plane whose distances have two wells each; DW4 by default.

    $$ U(x) = \frac1\tau\sum_{i<j} \big[a\,(d_{ij} - d_0) + b\,(d_{ij} - d_0)^2 + c\,(d_{ij} - d_0)^4\big]
       + \frac{n\,|\bar x|^2}{2 s^2} $$

    Shifts, turns, mirrors and permutations of the particles change nothing but the last term, which gives the law of a
    free cluster a norm.

    Args:
        particles: $n \ge 2$.
        dim: Components of a position.
        a, b, c: Of the wells, in nats times powers of the unit of length.
        d0: Where they are centred.
        tau: Temperature.
        spread: $s$; the centre has the variance $s^2/n$ in each component.

    Raises:
        ValueError: If a value is out of range, or the energy is not bounded below.

    Source:
        Köhler, Klein & Noé 2020, arXiv:2006.02425, with their constants.

    Example: a square whose four sides are in the inner well, $-b^2/4c = -40/9$ each, and its diagonals nearly.
        >>> law, side = DoubleWellCluster(), 4 - (4 / 1.8) ** 0.5
        >>> x = side * torch.tensor([[[-0.5, 0.5, 0.5, -0.5], [-0.5, -0.5, 0.5, 0.5]]])
        >>> u = 2**0.5 * side - 4
        >>> round(law(x).item(), 4), round(-4 * 40 / 9 + 2 * (0.9 * u**4 - 4 * u**2), 4)
        (-19.3327, -19.3327)
    """

    particles: int = 4
    dim: int = 2
    a: float = 0.0
    b: float = -4.0
    c: float = 0.9
    d0: float = 4.0
    tau: float = 1.0
    spread: float = 1.0

    def __post_init__(self) -> None:
        _require_cluster(self.particles, self.dim, self.tau, self.spread)
        require(self.c > 0, "c must be > 0 (else the energy is not bounded below)", self.c)

    @cached_property
    def lattice(self) -> Lattice:
        """Where it lives: particles along one axis, a channel for each component."""
        return Lattice((self.particles,), channels=self.dim)

    def __call__(self, x: Float[Tensor, "batch dim particles"]) -> Float[Tensor, " batch"]:
        """Energy of every configuration, in nats; DataError if positions are of another shape."""
        u = self._apart(x)[1]
        square = u.square()
        wells = (self.a * u + self.b * square + self.c * square.square()).sum((1, 2)) / 2
        return wells / self.tau + _centre(x, self.spread)

    def grad(self, x: Float[Tensor, "batch dim particles"]) -> Float[Tensor, "batch dim particles"]:
        """Its gradient."""
        distance, u = self._apart(x)
        slope = (self.a + u * (2 * self.b + 4 * self.c * u.square())) / self.tau
        return _forces(x, slope / distance.clamp(min=1e-12)) + x.mean(2, keepdim=True) / self.spread**2

    def _apart(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Distances of all particles, and by how much they miss d0 (of a particle to itself: 0)."""
        distance = _distances(x, self.lattice)
        return distance, distance.masked_fill(distance.isinf(), self.d0) - self.d0


@dataclass(frozen=True)
class LennardJonesCluster:
    r"""Particles that attract each other and cannot overlap, held together by a harmonic trap; LJ13 by default.

    $$ U(x) = \frac{1}{\tau}\Big\{2\epsilon\sum_{i<j}\Big[\Big(\frac{r_m}{d_{ij}}\Big)^{12}
       - 2\Big(\frac{r_m}{d_{ij}}\Big)^{6}\Big] + \frac12\sum_i |x_i - \bar x|^2\Big\} + \frac{n\,|\bar x|^2}{2 s^2} $$

    The literature sums over ordered pairs, which is the factor 2.

    Args:
        particles: $n \ge 2$.
        dim: Components of a position.
        epsilon: Depth of a pair, in nats at $\tau = 1$.
        rm: Where a pair is deepest, in units of length.
        tau: Temperature.
        spread: $s$; the centre has the variance $s^2/n$ in each component.

    Raises:
        ValueError: If a value is out of range.

    Source:
        Köhler, Klein & Noé 2020, arXiv:2006.02425, with their constants; the samples of Akhound-Sadegh et al. 2024,
        arXiv:2402.06121, keep the virial theorem of this energy, $\langle x\cdot\nabla U\rangle = 36$.

    Example: two particles in their well.
        >>> law = LennardJonesCluster(2)
        >>> law(torch.tensor([[[-0.5, 0.5], [0.0, 0.0], [0.0, 0.0]]])).item()  # -2 + 2 x (1/2)^2 / 2
        -1.75
    """

    particles: int = 13
    dim: int = 3
    epsilon: float = 1.0
    rm: float = 1.0
    tau: float = 1.0
    spread: float = 1.0

    def __post_init__(self) -> None:
        _require_cluster(self.particles, self.dim, self.tau, self.spread)
        require(self.epsilon > 0, "epsilon must be > 0 (else nothing attracts)", self.epsilon)
        require(self.rm > 0, "rm must be > 0, in units of length", self.rm)

    @cached_property
    def lattice(self) -> Lattice:
        """Where it lives: particles along one axis, a channel for each component."""
        return Lattice((self.particles,), channels=self.dim)

    def __call__(self, x: Float[Tensor, "batch dim particles"]) -> Float[Tensor, " batch"]:
        """Energy of every configuration, in nats, infinite where two overlap; DataError if positions do not fit."""
        sixth = _sixth(_distances(x, self.lattice), self.rm)
        pairs = self.epsilon * (sixth * (sixth - 2)).sum((1, 2))  # infinite, not unknown, where two overlap
        trap = 0.5 * (x - x.mean(2, keepdim=True)).square().flatten(1).sum(1)
        return (pairs + trap) / self.tau + _centre(x, self.spread)

    def grad(self, x: Float[Tensor, "batch dim particles"]) -> Float[Tensor, "batch dim particles"]:
        """Its gradient."""
        distance = _distances(x, self.lattice)
        sixth = _sixth(distance, self.rm)
        slope = 24 * self.epsilon * (sixth - sixth * sixth) / distance.square()
        centre = x.mean(2, keepdim=True)
        return (_forces(x, slope) + x - centre) / self.tau + centre / self.spread**2


def _require_cluster(particles: int, dim: int, tau: float, spread: float) -> None:
    require(particles >= 2, "particles must be >= 2 (energies are of pairs)", particles)
    require(dim >= 1, "dim must be >= 1", dim)
    require(tau > 0, "tau must be > 0, it is a temperature", tau)
    require(spread > 0, "spread must be > 0 (a free cluster has no norm)", spread)


def _distances(x: Tensor, lattice: Lattice) -> Tensor:
    """Of every particle to every other, and infinite to itself: (batch, particles, particles)."""
    _require_here(x, lattice)
    sites = x.transpose(1, 2)
    distance = torch.cdist(sites, sites, compute_mode="donot_use_mm_for_euclid_dist")
    return distance + torch.diag(distance.new_full((lattice.sites,), torch.inf))


def _require_here(x: Tensor, lattice: Lattice) -> None:
    if tuple(x.shape[1:]) != lattice.event_shape:
        raise DataError(f"positions must be (batch, {lattice.channels}, {lattice.sites}), got {tuple(x.shape)}")


def _sixth(distance: Tensor, rm: float) -> Tensor:
    """(rm / d)^6; powers by multiplication, which is many times faster."""
    square = (rm / distance).square()
    return square * square * square


def _forces(x: Tensor, pull: Tensor) -> Tensor:
    """The gradient of energies of pairs, from their slopes over their distances, (batch, particles, particles)."""
    return x * pull.sum(2)[:, None] - x @ pull


def _centre(x: Tensor, spread: float) -> Tensor:
    """Energy of the centre, of variance spread^2 / n in each component."""
    return x.shape[2] * x.mean(2).square().sum(1) / (2 * spread**2)
