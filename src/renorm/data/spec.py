"""What data to read, as a typed value; no torch."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from renorm.errors import RecipeError
from renorm.laws.spec import LawSpec, boundary_of
from renorm.spec import require

__all__ = ["DataSpec", "Resize", "Split"]

Resize = Literal["auto", "mean", "pad", "bicubic"]
Split = Literal["train", "test", "all"]
"""``"all"`` is for folders and arrays: the whole set in its own order, nothing held out."""


@dataclass(frozen=True)
class DataSpec:
    r"""Which fields to read and how to bring them to one shape and range.

    Args:
        name: ``"mnist"``, ``"fashion-mnist"``, ``"cifar10"``, ``"clothing64"``, ``"digits"``
            (scikit-learn, 8 x 8), ``"photos"`` (patches of scikit-learn's two photographs), ``"gaussian"`` and
            ``"law"`` (simulated), ``"folder"`` of images or ``"array"`` (an ``.npy``, ``.npz``, ``.h5``, ``.hdf5`` or
            ``.fits`` file).
        path: The folder or the file, for ``"folder"`` and ``"array"`` only. After a colon, the data set of an HDF5
            file or the image of a FITS file: ``"maps.h5:kappa"``.
        size: Target edge in sites of every axis; ``None`` keeps the native shape. Fields that are not square
            lose their margins first. Edge of the patches of ``"photos"``.
        resize: How to reach ``size``. ``"mean"``: block mean by a whole factor. ``"pad"``: zeros around.
            ``"bicubic"``: antialiased, two axes only. ``"auto"``: grey 28 x 28 images (MNIST) are padded to
            32 when ``size`` divides 32, so that every scale halves the one before; then ``"mean"`` where the
            factor is whole, else ``"bicubic"``.
        flip: Whether training mirrors fields at random along their last axis.
        value_range: Values that the bytes 0 and 255 stand for; float data are not rescaled.
        limit: Use only the first so many fields of the split.
        boundary: Of the lattice: ``"open"`` or ``"periodic"``.
        labels: Whether the class labels come along, as the condition of a model; -1 is a class that is unknown.
        channels: Components of the field; ``None`` takes what the data have. ``1`` turns colour images grey.
        shape: Sites along each axis of ``"gaussian"`` and ``"law"``.
        exponent: $\gamma \ge 0$ of the spectrum $P(k) \propto (k^2 + m^2)^{-\gamma}$ of ``"gaussian"``.
        mass: $m > 0$ of the same spectrum, in rad/site.
        number: How many training fields ``"gaussian"`` and ``"law"`` simulate; a tenth as many again are the test
            fields.
        seed: Of the simulation, and of the held-out tenth of sets that come without a test split.
        law: The exact law that ``"law"`` simulates: fields on a torus, ``boundary = "periodic"``, or molecules and
            clusters, ``boundary = "open"`` (a ring: periodic) and ``shape`` the number of atoms.

    Raises:
        ValueError: If a value is out of its range.
        RecipeError: If ``law`` is missing where it is needed, or given where not, or its lattice is called open.

    Example:
        >>> DataSpec("mnist", size=16).resize
        'auto'
        >>> DataSpec("gaussian", mass=0.0)
        Traceback (most recent call last):
        ValueError: mass must be > 0 (the zero mode diverges at 0), got 0.0
    """

    name: str = "mnist"
    path: str | None = None
    size: int | None = None
    resize: Resize = "auto"
    flip: bool = False
    value_range: tuple[float, float] = (-1.0, 1.0)
    limit: int | None = None
    boundary: Literal["open", "periodic"] = "open"
    labels: bool = False
    channels: int | None = None
    shape: tuple[int, ...] = (32, 32)
    exponent: float = 1.0
    mass: float = 0.5
    number: int = 10_000
    seed: int = 0
    law: LawSpec | None = None

    def __post_init__(self) -> None:
        if self.name in ("folder", "array"):
            require(bool(self.path), f"path must name the {self.name} to read", self.path)
        else:
            require(self.path is None, "path is for the names 'folder' and 'array' only", self.path)
        require(self.size is None or self.size >= 1, "size must be >= 1 site", self.size)
        require(self.resize in get_args(Resize), f"resize must be one of {get_args(Resize)}", self.resize)
        low, high = self.value_range
        require(-math.inf < low < high < math.inf, "value_range must ascend and be finite", self.value_range)
        require(self.limit is None or self.limit >= 1, "limit must be >= 1 (no field is left)", self.limit)
        require(self.boundary in ("open", "periodic"), "boundary must be 'open' or 'periodic'", self.boundary)
        require(self.channels is None or self.channels >= 1, "channels must be >= 1", self.channels)
        require(1 <= len(self.shape) <= 3, "shape must have one to three axes", self.shape)
        require(all(n >= 1 for n in self.shape), "every axis of shape needs at least one site", self.shape)
        require(0 <= self.exponent <= 20, "exponent must be in [0, 20] (coarse modes vary most)", self.exponent)
        require(self.mass > 0, "mass must be > 0 (the zero mode diverges at 0)", self.mass)
        require(1e-6 <= self.mass <= 1e6, "mass must be in [1e-6, 1e6] rad/site (the spectrum overflows)", self.mass)
        require(self.number >= 1, "number must be >= 1 (there is nothing to fit)", self.number)
        require(0 <= self.seed < 2**62, "seed must be in [0, 2^62)", self.seed)
        self._check_law()

    def _check_law(self) -> None:
        if (self.name == "law") != (self.law is not None):
            given = "no law" if self.law is None else f"a law with name = {self.name!r}"
            raise RecipeError(f"data.law and name = 'law' come together (a law says what is simulated), got {given}")
        if self.law is not None and self.boundary != boundary_of(self.law):
            wanted = boundary_of(self.law)
            where = "lives on a torus, or a ring" if wanted == "periodic" else "has open ends"
            raise RecipeError(
                f"data.boundary must be '{wanted}' for the law '{self.law.kind}', which {where}, got {self.boundary!r}"
            )
