"""Backmapping from the command line: every frame of a coarse trajectory refined, several times."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from renorm.cascade.backmapping import allowed_draws, moved_at_fixed_beads
from renorm.cascade.cascade import Cascade
from renorm.data.npz import read_npy, read_npz
from renorm.data.spec import DataSpec
from renorm.errors import DataError, RecipeError
from renorm.recipes.cascade_fit import action_of

__all__ = ["read_coarse", "refined"]


def read_coarse(path: Path, model: Cascade, level: int) -> Float[Tensor, "frames channel *sites"]:
    """Coarse fields of a level, from an ``.npy``, or from the array ``coarse``, ``x`` or the only one of an ``.npz``.

    Raises:
        DataError: If the file is not there or damaged, or holds no real, finite fields of that level.
    """
    if path.suffix == ".npy":
        values = read_npy(path)
    elif path.suffix == ".npz":
        arrays = read_npz(path)
        name = next((key for key in ("coarse", "x") if key in arrays), None)
        if name is None and len(arrays) != 1:
            raise DataError(f"{path} must hold its fields as 'coarse', as 'x' or as its only array, got {list(arrays)}")
        values = arrays[name] if name else next(iter(arrays.values()))
    else:
        raise DataError(f"--coarse must name an .npy or .npz file, got {path}")
    shape = model.levels[level].event_shape
    if values.shape[1:] != shape or not len(values) or values.dtype.kind not in "fiu":
        wanted = ", ".join(map(str, shape or ()))
        raise DataError(f"{path} must hold (frames, {wanted}) of level {level}, got {values.dtype} {values.shape}")
    x = torch.from_numpy(np.ascontiguousarray(values, np.float32))
    bad = (~x.flatten(1).isfinite().all(1)).nonzero()[:, 0]
    if len(bad):
        raise DataError(f"coarse fields must be finite, and frame {int(bad[0])} of {path} is not")
    return x


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
    several = coarse.repeat_interleave(num, 0)
    if not moves:
        parts = several.split(model.together)
        x = torch.cat([model.refine(part, level=level, generator=generator) for part in parts])
        return x.unflatten(0, (len(coarse), num)), {}
    action = action_of(data.law, model.lattice.shape)
    if action is None:
        raise RecipeError("--moves need data of a law with an action, such as 'fene' or 'phi4'; leave them out")
    x, again = allowed_draws(model, action, several, level, generator=generator)
    x, acceptance = moved_at_fixed_beads(model, action, x, level, moves=moves, generator=generator)
    return x.unflatten(0, (len(coarse), num)), {"share_drawn_again": again, "acceptance": acceptance}
