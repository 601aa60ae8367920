"""Backmapping from the command line: every frame of a coarse trajectory refined, several times."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from renorm.cascade.backmapping import allowed_draws, moved_at_fixed_beads
from renorm.cascade.cascade import Cascade
from renorm.coarse.beads import Beads, centre_of_mass
from renorm.data.npz import read_npy, read_npz
from renorm.data.spec import DataSpec
from renorm.errors import DataError, RecipeError
from renorm.recipes.cascade_fit import action_of

__all__ = ["read_coarse", "refined"]


def read_coarse(path: Path, model: Cascade, level: int | None = None) -> tuple[Float64[Tensor, "frames ..."], int]:
    """Coarse fields, from an ``.npy``, or from the array ``coarse``, ``x`` or the only one of an ``.npz``.

    Args:
        path: The file.
        model: Of whose level they are.
        level: Which; none: the one whose fields have this shape.

    Returns:
        The fields, (frames, channel, *sites), and their level.

    Raises:
        DataError: If the file is not there or damaged, or holds no real, finite fields of a coarse level.
    """
    values = _values(path)
    shapes = {each.index: each.event_shape or () for each in model.levels[1:] if level in (None, each.index)}
    fits = [index for index, shape in shapes.items() if values.shape[1:] == shape]
    if not fits or not len(values) or values.dtype.kind not in "fiu":
        wanted = ", or ".join(f"(frames, {', '.join(map(str, shape))}) of level {k}" for k, shape in shapes.items())
        raise DataError(f"{path} must hold {wanted}, got {values.dtype} {values.shape}")
    x = torch.from_numpy(np.ascontiguousarray(values, np.float64))
    bad = (~x.flatten(1).isfinite().all(1)).nonzero()[:, 0]
    if len(bad):
        raise DataError(f"coarse fields must be finite, and frame {int(bad[0])} of {path} is not")
    return x, fits[0]


@torch.no_grad()
def refined(
    model: Cascade,
    coarse: Tensor,
    num: int,
    level: int,
    data: DataSpec,
    *,
    moves: int,
    generator: torch.Generator,
) -> tuple[Float[Tensor, "frames num channel *sites"], dict[str, Any]]:
    """So many draws of each coarse field; with moves, of finite energy, and then moved in the exact law at fixed beads.

    Args:
        model: What draws.
        coarse: Fields of the level.
        num: Draws of each.
        level: Which.
        data: Of the run; its law is what moves need.
        moves: Of HMC.
        generator: All randomness.

    Returns:
        The draws, and ``share_drawn_again`` and ``acceptance`` where they were moved.

    Raises:
        RecipeError: If there are moves and the data have no law with an action, or steps that are not linear.
        DataError: If a coarse field is of another level.
    """
    centre = _centre(model, coarse, level)
    several = (coarse - centre).float().repeat_interleave(num, 0)
    back = centre.float().repeat_interleave(num, 0)
    if not moves:
        parts = several.split(model.together)
        x = torch.cat([model.refine(part, level=level, generator=generator) for part in parts])
        return (x + back).unflatten(0, (len(coarse), num)), {}
    action = action_of(data.law, model.lattice.shape)
    if action is None:
        raise RecipeError(
            "--moves need data of a law with an action, such as 'fene' (an array has no energy); leave them out"
        )
    x, again = allowed_draws(model, action, several, level, generator=generator)
    x, acceptance = moved_at_fixed_beads(model, action, x, level, moves=moves, generator=generator)
    return (x + back).unflatten(0, (len(coarse), num)), {"share_drawn_again": again, "acceptance": acceptance}


def _centre(model: Cascade, coarse: Tensor, level: int) -> Tensor:
    """Where molecules are, (frames, dim, 1); 0 of other fields.

    What is inside beads does not depend on it, but conditionals have learned their places about 0.
    """
    step = model.steps[level - 1]
    return centre_of_mass(coarse, step.bead_masses) if isinstance(step, Beads) else coarse.new_zeros(())


def _values(path: Path) -> np.ndarray:
    """The array that a file means."""
    if path.suffix == ".npy":
        return read_npy(path)
    if path.suffix == ".npz":
        arrays = read_npz(path)
        name = next((key for key in ("coarse", "x") if key in arrays), None)
        if name is None and len(arrays) != 1:
            raise DataError(f"{path} must hold its fields as 'coarse', as 'x' or as its only array, got {list(arrays)}")
        return arrays[name] if name else next(iter(arrays.values()))
    raise DataError(f"--coarse must name an .npy or .npz file, got {path}")
