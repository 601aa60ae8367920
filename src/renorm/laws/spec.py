"""Exact laws as typed values, so that a recipe can ask for fields of one; no torch."""

import math
from dataclasses import dataclass
from typing import Literal

from renorm.spec import require, require_literals

__all__ = [
    "DoubleWellClusterSpec",
    "DoubleWellSpec",
    "FeneSpec",
    "FreeFieldSpec",
    "GaussianChainSpec",
    "IsingSpec",
    "LawSpec",
    "LennardJonesSpec",
    "LognormalSpec",
    "MullerBrownSpec",
    "Phi4Spec",
    "boundary_of",
]


@dataclass(frozen=True)
class IsingSpec:
    r"""Spins on a torus of two axes, $S = -\beta\sum_{\langle xy\rangle} s_x s_y$.

    Args:
        beta: Inverse temperature, >= 0; by default the critical one, $\tfrac12\ln(1 + \sqrt2)$.

    Raises:
        ValueError: If beta is negative or not finite.

    Example:
        >>> round(math.sinh(2 * IsingSpec().beta), 12)
        1.0
    """

    kind: Literal["ising"] = "ising"
    beta: float = math.log(1 + math.sqrt(2)) / 2

    def __post_init__(self) -> None:
        require_literals(self)
        require(0 <= self.beta < math.inf, "beta must be >= 0 and finite (it is an inverse temperature)", self.beta)


@dataclass(frozen=True)
class Phi4Spec:
    r"""A scalar field, $S = \sum_x[-2\kappa\sum_\mu\phi_x\phi_{x+\hat\mu} + c_2\phi_x^2 + \lambda\phi_x^4]$.

    Args:
        kappa: $\kappa$, the hopping parameter; by default close to the critical one at $\lambda = 1$.
        lam: $\lambda \ge 0$.
        c2: $c_2$; not given: $1 - 2\lambda$.

    Raises:
        ValueError: If a coupling is not finite, or $\lambda < 0$: the action has no lower bound then.
    """

    kind: Literal["phi4"] = "phi4"
    kappa: float = 0.34
    lam: float = 1.0
    c2: float | None = None

    def __post_init__(self) -> None:
        require_literals(self)
        require(math.isfinite(self.kappa), "kappa must be finite", self.kappa)
        require(0 <= self.lam < math.inf, "lam must be >= 0 (the action has no lower bound otherwise)", self.lam)
        require(self.c2 is None or math.isfinite(self.c2), "c2 must be finite", self.c2)


@dataclass(frozen=True)
class FreeFieldSpec:
    r"""A free scalar field, $S = \tfrac12\phi(-\Delta + m^2)\phi$.

    Args:
        mass_sq: $m^2 > 0$, in inverse sites squared.

    Raises:
        ValueError: If the mass is not positive: the mean of the field would have no law.
    """

    kind: Literal["free-field"] = "free-field"
    mass_sq: float = 0.1

    def __post_init__(self) -> None:
        require_literals(self)
        require(
            0 < self.mass_sq < math.inf, "mass_sq must be > 0 (the zero mode's variance is its inverse)", self.mass_sq
        )


@dataclass(frozen=True)
class LognormalSpec:
    r"""The contrast $\delta$ of a density whose logarithm is Gaussian, of power $A k^{-n}/(1 + (k/k_0)^2)$.

    Args:
        amplitude: $A > 0$, in nats squared.
        index: $n$.
        knee: $k_0 > 0$ in rad/site.
        zero_power: Power of the mode $k = 0$; not given: a hundredth of that of the longest wave.

    Raises:
        ValueError: If one of them is out of range.
    """

    kind: Literal["lognormal"] = "lognormal"
    amplitude: float = 0.5
    index: float = 1.5
    knee: float = 1.0
    zero_power: float | None = None

    def __post_init__(self) -> None:
        require_literals(self)
        require(0 < self.amplitude < math.inf, "amplitude must be > 0 (else there is no field)", self.amplitude)
        require(math.isfinite(self.index), "index must be finite", self.index)
        require(0 < self.knee < math.inf, "knee must be > 0 (it is a wavenumber)", self.knee)
        zero = self.zero_power
        require(zero is None or 0 <= zero < math.inf, "zero_power must be >= 0 (it is a variance)", zero)


@dataclass(frozen=True)
class DoubleWellSpec:
    r"""A ring of particles in double wells, $U = \sum_i h(x_i^2 - 1)^2 + \tfrac k2(x_{i+1} - x_i)^2$; one axis.

    Args:
        stiffness: $k > 0$ of the springs, in nats per field unit squared.
        barrier: $h > 0$, in nats.

    Raises:
        ValueError: If one of them is not positive.
    """

    kind: Literal["double-well"] = "double-well"
    stiffness: float = 1.0
    barrier: float = 4.0

    def __post_init__(self) -> None:
        require_literals(self)
        require(
            0 < self.stiffness < math.inf,
            "stiffness must be > 0 (else sites know nothing of each other)",
            self.stiffness,
        )
        require(0 < self.barrier < math.inf, "barrier must be > 0 (else nothing holds the ring)", self.barrier)


@dataclass(frozen=True)
class GaussianChainSpec:
    r"""Rouse's chain of atoms on springs, $U = \frac{d}{2b^2}\sum_i|x_{i+1} - x_i|^2 + \frac{d}{2s^2}|\bar x|^2$.

    Args:
        bond: $b > 0$, the root of the mean squared length of a free spring; any unit of length.
        ring: Whether the last atom is joined to the first; ``boundary`` is ``"periodic"`` then.
        dim: $d$, components of a position.
        spread: $s > 0$ of the centre, in units of length.

    Raises:
        ValueError: If one of them is out of range.
    """

    kind: Literal["gaussian-chain"] = "gaussian-chain"
    bond: float = 1.0
    ring: bool = False
    dim: int = 3
    spread: float = 1.0

    def __post_init__(self) -> None:
        require_literals(self)
        require(0 < self.bond < math.inf, "bond must be > 0, in units of length", self.bond)
        require(self.dim >= 1, "dim must be >= 1", self.dim)
        _require_spread(self.spread)


@dataclass(frozen=True)
class FeneSpec:
    r"""Kremer and Grest's polymer: springs that end at $R_0$, atoms that do not overlap; see ``FenePolymer``.

    Args:
        temperature: $T > 0$, in units of $\epsilon$.
        stiffness: $k > 0$, in $\epsilon/\sigma^2$.
        reach: $R_0 > 1$, in $\sigma$.
        spread: $s > 0$ of the centre, in $\sigma$.

    Raises:
        ValueError: If one of them is out of range.
    """

    kind: Literal["fene"] = "fene"
    temperature: float = 1.0
    stiffness: float = 30.0
    reach: float = 1.5
    spread: float = 1.0

    def __post_init__(self) -> None:
        require_literals(self)
        require(0 < self.temperature < math.inf, "temperature must be > 0, in units of epsilon", self.temperature)
        require(0 < self.stiffness < math.inf, "stiffness must be > 0, in epsilon / sigma^2", self.stiffness)
        require(1 < self.reach < math.inf, "reach must be > 1 sigma (bonded atoms repel each other too)", self.reach)
        _require_spread(self.spread)


@dataclass(frozen=True)
class DoubleWellClusterSpec:
    r"""Equal particles whose distances have two wells each; DW4 by default, see ``DoubleWellCluster``.

    Args:
        dim: Components of a position.
        a, b, c: Of the wells, in nats times powers of the unit of length; $c > 0$.
        d0: Where they are centred.
        tau: Temperature.
        spread: $s > 0$; the centre has the variance $s^2/n$ in each component.

    Raises:
        ValueError: If one of them is out of range.
    """

    kind: Literal["double-well-cluster"] = "double-well-cluster"
    dim: int = 2
    a: float = 0.0
    b: float = -4.0
    c: float = 0.9
    d0: float = 4.0
    tau: float = 1.0
    spread: float = 1.0

    def __post_init__(self) -> None:
        require_literals(self)
        require(1 <= self.dim <= 3, "dim must be 1, 2 or 3", self.dim)
        finite = all(map(math.isfinite, (self.a, self.b, self.d0)))
        require(finite, "a, b and d0 must be finite", (self.a, self.b, self.d0))
        require(0 < self.c < math.inf, "c must be > 0 (else the energy is not bounded below)", self.c)
        require(0 < self.tau < math.inf, "tau must be > 0, it is a temperature", self.tau)
        _require_spread(self.spread)


@dataclass(frozen=True)
class LennardJonesSpec:
    r"""Equal particles that attract each other and cannot overlap, in a trap; LJ13 by default for 13 of them.

    Args:
        dim: Components of a position.
        epsilon: Depth of a pair, in nats at $\tau = 1$.
        rm: Where a pair is deepest, in units of length.
        tau: Temperature.
        spread: $s > 0$; the centre has the variance $s^2/n$ in each component.

    Raises:
        ValueError: If one of them is out of range.
    """

    kind: Literal["lennard-jones"] = "lennard-jones"
    dim: int = 3
    epsilon: float = 1.0
    rm: float = 1.0
    tau: float = 1.0
    spread: float = 1.0

    def __post_init__(self) -> None:
        require_literals(self)
        require(1 <= self.dim <= 3, "dim must be 1, 2 or 3", self.dim)
        require(0 < self.epsilon < math.inf, "epsilon must be > 0 (else nothing attracts)", self.epsilon)
        require(0 < self.rm < math.inf, "rm must be > 0, in units of length", self.rm)
        require(0 < self.tau < math.inf, "tau must be > 0, it is a temperature", self.tau)
        _require_spread(self.spread)


@dataclass(frozen=True)
class MullerBrownSpec:
    """Three wells in a plane, the smallest reaction; a field of two sites, its coordinates.

    Args:
        temperature: T > 0, in units of the potential.

    Raises:
        ValueError: If it is not positive.
    """

    kind: Literal["muller-brown"] = "muller-brown"
    temperature: float = 15.0

    def __post_init__(self) -> None:
        require_literals(self)
        require(0 < self.temperature < math.inf, "temperature must be > 0 (at 0 nothing moves)", self.temperature)


LawSpec = (
    IsingSpec
    | Phi4Spec
    | FreeFieldSpec
    | LognormalSpec
    | DoubleWellSpec
    | GaussianChainSpec
    | FeneSpec
    | DoubleWellClusterSpec
    | LennardJonesSpec
    | MullerBrownSpec
)
"""Any law that a recipe can name by its ``kind``."""

CHAINS = (GaussianChainSpec, FeneSpec)
"""Laws of bonded atoms."""

CLUSTERS = (DoubleWellClusterSpec, LennardJonesSpec)
"""Laws of equal particles without bonds."""

MOLECULES = (*CHAINS, *CLUSTERS, MullerBrownSpec)
"""Laws that are no fields on a torus."""


def boundary_of(law: LawSpec) -> Literal["open", "periodic"]:
    """Of the lattice where a law lives: fields live on a torus, molecules on a line, unless it closes to a ring.

    Example:
        >>> boundary_of(IsingSpec()), boundary_of(FeneSpec()), boundary_of(GaussianChainSpec(ring=True))
        ('periodic', 'open', 'periodic')
    """
    ring = isinstance(law, GaussianChainSpec) and law.ring
    return "open" if isinstance(law, MOLECULES) and not ring else "periodic"


def _require_spread(spread: float) -> None:
    require(0 < spread < math.inf, "spread must be > 0 (where it is free, a molecule has no norm)", spread)
