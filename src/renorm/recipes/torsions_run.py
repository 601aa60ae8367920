"""The free-energy surface of two torsion angles, learned from a run and written into a folder.

model.toml  model.safetensors   the periodic density
surface.npz                     free energies in kJ/mol, of the learned cells and of the frames' own bins
samples.npz                     points drawn from it, if asked for
"""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor

from renorm.cascade.periodic_density import PeriodicDensity, PeriodicDensitySpec
from renorm.data.torsions import TorsionRun
from renorm.errors import DataError
from renorm.measure.statistics import ess
from renorm.measure.torsions import free_energy, surface
from renorm.recipes.folder import require_own, write_arrays

__all__ = ["LearnedSurface", "learn_surface", "minima"]

BINS = 36
HIGHEST = 20.0  # kJ/mol above the deepest: minima that are named


class LearnedSurface(NamedTuple):
    """A surface, and what is known of it.

    Attributes:
        learned: Free energy of each cell in kJ/mol.
        frames: Of the frames' own bins, infinite where there is none.
        figures: Frames, effective frames, the smoothing length, and the minima in degrees and kJ/mol.
    """

    learned: Float64[Tensor, "cells cells"]
    frames: Float64[Tensor, "bins bins"]
    figures: dict[str, Any]


def learn_surface(
    run: TorsionRun, folder: Path, *, cells: int = 64, start: float = 0.0, num: int = 0, seed: int = 0
) -> LearnedSurface:
    """Learn the surface of a run, and write it.

    Args:
        run: Frames in order of time.
        folder: Written into.
        cells: On each axis, a power of two from 8 on.
        start: Frames before this time are dropped, in the unit of the run's time.
        num: Points to draw.
        seed: Of these points.

    Raises:
        CheckpointError: If the folder holds something else.
        DataError: If no frame is left, or too few.
        ValueError: If ``cells`` is no power of two from 8 on, or ``num`` is negative.
    """
    require_own(folder, "surface.npz")
    spec = PeriodicDensitySpec(angles=2, cells=cells)
    kept = run.time >= start
    if not bool(kept.any()):
        raise DataError(f"no frame is left from {start:g} on; the run ends at {float(run.time.max()):g}")
    run = run.frames(kept)
    model = PeriodicDensity(spec).fit(run.angles, log_weights=run.log_weights)
    learned = free_energy(model.tables[0].exp(), temperature=run.temperature)
    own = surface(run.angles, BINS, temperature=run.temperature, log_weights=run.log_weights).value
    figures: dict[str, Any] = {
        "frames": len(run),
        "effective_frames": len(run) * ess(run.log_weights),
        "temperature_kelvin": run.temperature,
        "length_rad": model.length,
        "minima": minima(learned),
    }
    write_arrays(folder / "surface.npz", free_energy=learned, frames=own)
    model.save(folder)
    (folder / "samples.npz").unlink(missing_ok=True)  # of an earlier surface
    if num:
        write_arrays(folder / "samples.npz", x=model.sample(num, generator=torch.Generator().manual_seed(seed)))
    return LearnedSurface(learned, own, figures)


def minima(surface: Float64[Tensor, "cells cells"]) -> list[dict[str, float]]:
    """Cells below all others within 30 degrees, the deepest first: angles in degrees, kJ/mol above it.

    Example:
        >>> f = torch.full((8, 8), 30.0, dtype=torch.float64)
        >>> f[2, 4], f[6, 0] = 0.0, 5.0
        >>> minima(f)[1]
        {'phi': 112.5, 'psi': -157.5, 'kj_mol': 5.0}
    """
    near = range(-max(1, len(surface) // 12), max(1, len(surface) // 12) + 1)
    around = [(i, j) for i in near for j in near if (i, j) != (0, 0)]
    lowest = torch.stack([surface.roll(shift, (0, 1)) for shift in around]).amin(0)
    deep = (surface < lowest) & (surface <= float(surface.min()) + HIGHEST)
    width = 360 / len(surface)
    found = [
        {"phi": (i + 0.5) * width - 180, "psi": (j + 0.5) * width - 180, "kj_mol": float(surface[i, j])}
        for i, j in deep.nonzero().tolist()
    ]
    return sorted(found, key=lambda each: each["kj_mol"])
