"""What is installed, and what of it works: the first page of every bug report."""

import os
import platform
from importlib import metadata
from typing import Any

import torch

from renorm.data import SOURCES, where
from renorm.data.download import how_to_get
from renorm.errors import DataError
from renorm.lattice import Lattice
from renorm.version import __version__

__all__ = ["examine"]

EXTRAS = (
    "diffusers",
    "tensorboard",
    "accelerate",
    "safetensors",
    "scikit-learn",
    "constriction",
    "h5py",
    "astropy",
    "transformers",
)


def examine() -> dict[str, Any]:
    """Versions, devices, threads, data sets, and one small product that must come out right."""
    facts: dict[str, Any] = {
        "renorm": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
    }
    for name in EXTRAS:
        try:
            facts[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            facts[name] = "not installed"
    for name in SOURCES:
        if name not in ("folder", "array"):
            facts[f"data {name}"] = _place(name)
    facts["basis"] = "works" if _basis_works() else "BROKEN: the cosine basis is not orthonormal here"
    return facts


def _place(name: str) -> str:
    try:
        return where(name) or how_to_get(name)
    except DataError as error:
        return f"PROBLEM: {error}"


def _basis_works() -> bool:
    from renorm.bases import basis_for

    basis = basis_for(Lattice((8, 8)))
    x = torch.eye(8)
    return bool((basis.inverse(basis.forward(x)) - x).abs().max() < 1e-5)
