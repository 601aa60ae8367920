"""Exact laws as typed values, so that a recipe can ask for fields of one; no torch."""

import math
from dataclasses import dataclass
from typing import Literal

from renorm.spec import require, require_literals

__all__ = ["DoubleWellSpec", "FreeFieldSpec", "IsingSpec", "LawSpec", "LognormalSpec", "Phi4Spec"]


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


LawSpec = IsingSpec | Phi4Spec | FreeFieldSpec | LognormalSpec | DoubleWellSpec
"""Any law that a recipe can name by its ``kind``."""
