"""From a law's spec to the law itself, on a lattice: the one place where kinds become classes."""

from renorm.errors import RecipeError
from renorm.lattice import Lattice
from renorm.laws.chain import DoubleWellChain
from renorm.laws.fene import FenePolymer
from renorm.laws.gaussian_field import GaussianField
from renorm.laws.ising import Ising
from renorm.laws.lognormal import Lognormal
from renorm.laws.muller_brown import MullerBrown
from renorm.laws.particles import DoubleWellCluster, LennardJonesCluster
from renorm.laws.phi4 import Phi4
from renorm.laws.rouse import GaussianChain
from renorm.laws.spec import (
    DoubleWellClusterSpec,
    DoubleWellSpec,
    FeneSpec,
    FreeFieldSpec,
    GaussianChainSpec,
    IsingSpec,
    LawSpec,
    LennardJonesSpec,
    MullerBrownSpec,
    Phi4Spec,
    boundary_of,
)

__all__ = ["Law", "Molecule", "lattice_of", "make_law"]

Molecule = GaussianChain | FenePolymer | DoubleWellCluster | LennardJonesCluster
"""Laws whose fields are places of atoms or particles along one axis, with a channel for each component."""

Law = Ising | Phi4 | GaussianField | Lognormal | DoubleWellChain | MullerBrown | Molecule
"""What `make_law` makes."""


def make_law(spec: LawSpec, shape: tuple[int, ...]) -> Law:
    """The law that a spec names, on a lattice of this shape.

    Args:
        spec: Which law, with its couplings.
        shape: Sites along each axis: two axes for spins, one for double wells, atoms and particles, two sites for the
            plane of Müller and Brown, one to three axes for the others.

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
        return DoubleWellChain(_one_axis(shape, "double wells (they form a ring)", 1), spec.stiffness, spec.barrier)
    if isinstance(spec, GaussianChainSpec):
        atoms = _one_axis(shape, "a chain of atoms", 2)
        return GaussianChain(atoms, spec.bond, spec.ring, spec.dim, spec.spread)
    if isinstance(spec, FeneSpec):
        atoms = _one_axis(shape, "a chain of atoms", 2)
        return FenePolymer(atoms, spec.temperature, spec.stiffness, spec.reach, spec.spread)
    if isinstance(spec, DoubleWellClusterSpec):
        number = _one_axis(shape, "a cluster of particles", 2)
        return DoubleWellCluster(number, spec.dim, spec.a, spec.b, spec.c, spec.d0, spec.tau, spec.spread)
    if isinstance(spec, LennardJonesSpec):
        number = _one_axis(shape, "a cluster of particles", 2)
        return LennardJonesCluster(number, spec.dim, spec.epsilon, spec.rm, spec.tau, spec.spread)
    if isinstance(spec, MullerBrownSpec):
        if shape != (2,):
            raise RecipeError(f"shape must be [2] for the law 'muller-brown' (two coordinates), got {shape}")
        return MullerBrown(spec.temperature)
    return Lognormal(shape, spec.amplitude, spec.index, spec.knee, spec.zero_power)


def lattice_of(spec: LawSpec, shape: tuple[int, ...]) -> Lattice:
    """Where the fields of a law live; errors as of `make_law`.

    Example:
        >>> lattice_of(FeneSpec(), (32,))
        Lattice(shape=(32,), boundary='open', channels=3, spacing=1.0)
    """
    law = make_law(spec, shape)
    return law.lattice if isinstance(law, Molecule) else Lattice(shape, boundary_of(spec))


def _one_axis(shape: tuple[int, ...], what: str, least: int) -> int:
    if len(shape) != 1 or shape[0] < least:
        raise RecipeError(f"shape must be one axis of {least} or more for {what}, got {shape}")
    return shape[0]
