"""Orthonormal changes of basis: the modes of a lattice.

A new basis is one new file with an ``AxisTransform`` and one line in ``TRANSFORMS``.
"""

from functools import lru_cache

from renorm.bases.cosine import CosineTransform
from renorm.bases.fourier import FourierTransform
from renorm.bases.separable import AxisTransform, Basis
from renorm.lattice import Lattice

__all__ = ["TRANSFORMS", "Basis", "basis_for"]

TRANSFORMS: dict[str, type[AxisTransform]] = {
    "open": CosineTransform,
    "periodic": FourierTransform,
}


@lru_cache(maxsize=64)
def basis_for(lattice: Lattice) -> Basis:
    """The basis of modes that belongs to a lattice's boundary: cosines if open, real Fourier if periodic."""
    return Basis(lattice, TRANSFORMS[lattice.boundary]())
