"""From a law's spec to the law itself, on a lattice: the one place where kinds become classes."""

from renorm.errors import RecipeError
from renorm.laws.chain import DoubleWellChain
from renorm.laws.gaussian_field import GaussianField
from renorm.laws.ising import Ising
from renorm.laws.lognormal import Lognormal
from renorm.laws.phi4 import Phi4
from renorm.laws.spec import DoubleWellSpec, FreeFieldSpec, IsingSpec, LawSpec, Phi4Spec

__all__ = ["Law", "make_law"]

Law = Ising | Phi4 | GaussianField | Lognormal | DoubleWellChain
"""What `make_law` makes."""


def make_law(spec: LawSpec, shape: tuple[int, ...]) -> Law:
    """The law that a spec names, on a torus of this shape.

    Args:
        spec: Which law, with its couplings.
        shape: Sites along each axis: two axes for spins, one for double wells, one to three for the others.

    Raises:
        RecipeError: If the law does not live on so many axes or so few sites, or cannot be normalised there.

    Example:
        >>> make_law(Phi4Spec(kappa=0.25), (4, 4))
        Phi4(shape=(4, 4), kappa=0.25, lam=1.0, c2=None)
    """
    if isinstance(spec, IsingSpec):
        if len(shape) != 2:
            raise RecipeError(f"shape must be two sides for spins (the solved case), got {shape}")
        return Ising((shape[0], shape[1]), spec.beta)
    if isinstance(spec, Phi4Spec):
        return Phi4(shape, spec.kappa, spec.lam, spec.c2)
    if isinstance(spec, FreeFieldSpec):
        return GaussianField(shape, spec.mass_sq)
    if isinstance(spec, DoubleWellSpec):
        if len(shape) != 1:
            raise RecipeError(f"shape must be one axis for double wells (they form a ring), got {shape}")
        return DoubleWellChain(shape[0], spec.stiffness, spec.barrier)
    return Lognormal(shape, spec.amplitude, spec.index, spec.knee, spec.zero_power)
