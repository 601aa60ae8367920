"""Equilibrium samples of clusters: four particles in double wells (DW4), and 13 of Lennard-Jones (LJ13)."""

from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from renorm.data import store
from renorm.data.npz import read_npz
from renorm.errors import DataError
from renorm.spec import require

__all__ = ["Cluster", "Part", "clusters"]

SAMPLES = Path("particles", "lj13_dw4.npz")
Cluster = Literal["dw4", "lj13"]
Part = Literal["train", "val", "test"]
SHAPES = {"dw4": (4, 2), "lj13": (13, 3)}  # particles, components


def clusters(of: Cluster, part: Part = "test") -> Float32[Tensor, "samples dim particles"]:
    """Samples of a cluster, their centres at 0, from ``particles/lj13_dw4.npz``.

    DW4 has 100 000 to train on and 10 000 each to validate and to test; LJ13 has 10 000 each of the latter, and nothing
    to train on. They belong to the energies of ``renorm.laws.particles`` with their default values.

    Raises:
        DataError: If the file is not here (it then says where it is looked for) or damaged, or has no such part.
        ValueError: If there is no such cluster.

    Source:
        Akhound-Sadegh et al. 2024, arXiv:2402.06121, github.com/jarridrb/DEM (MIT).
    """
    require(of in get_args(Cluster), f"of must be one of {get_args(Cluster)}", of)
    require(part in get_args(Part), f"part must be one of {get_args(Part)}", part)
    if of == "lj13" and part == "train":
        raise DataError("lj13 has no samples to train on, only 'val' and 'test'; make some, as bench/particles.py does")
    path = store.single(SAMPLES, otherwise="simulate renorm.laws.particles with renorm.mcmc")
    return read_clusters(path, f"{part}_split_{of.upper()}", *SHAPES[of])


def read_clusters(path: Path, name: str, particles: int, dim: int) -> Float32[Tensor, "samples dim particles"]:
    """Clusters of an array (samples, particles x dim) of an ``.npz``, particle by particle, their centres moved to 0.

    Raises:
        DataError: If the file or the array is not there, is of another shape, or holds a value that is not finite.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.savez(Path(folder, "two.npz"), pairs=np.array([[0.0, 0.0, 2.0, 4.0]]))
        ...     read_clusters(Path(folder, "two.npz"), "pairs", 2, 2)
        tensor([[[-1.,  1.],
                 [-2.,  2.]]])
    """
    values = read_npz(path, name)[name]
    real = np.issubdtype(values.dtype, np.floating) or np.issubdtype(values.dtype, np.integer)
    if values.ndim != 2 or values.shape[1] != particles * dim or not len(values) or not real:
        raise DataError(f"'{name}' of {path} must be (samples, {particles * dim}), got {values.dtype} {values.shape}")
    x = torch.from_numpy(values.astype(np.float32)).reshape(-1, particles, dim).transpose(1, 2)
    if not bool(x.isfinite().all()):
        bad = int((~x.isfinite()).flatten(1).any(1).nonzero()[0])
        raise DataError(f"positions must be finite, and those of sample {bad} of '{name}' in {path} are not")
    return x - x.mean(2, keepdim=True)
