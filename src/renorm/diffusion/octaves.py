"""The levels of a mode diffusion: octaves of the cutoff, and the modes that each adds."""

import math
from collections.abc import Sequence
from itertools import pairwise

from jaxtyping import Bool
from torch import Tensor

from renorm.diffusion.schedule import CLEAN, Schedule
from renorm.model import Level

__all__ = ["octaves", "shells"]


def octaves(schedule: Schedule) -> list[Level]:
    """Octaves of the cutoff, finest first; the last is the coarsest scale of the schedule.

    Example:
        >>> from renorm.diffusion.presets import rgdm_images
        >>> from renorm.lattice import Lattice
        >>> [level.modes for level in octaves(rgdm_images(Lattice((16,))))]
        [16, 8, 4, 2, 1, 0]
    """
    number = max(1, round(math.log2(max(schedule.lattice.shape))))
    scales = {CLEAN, *(_octave(schedule, l, number) for l in range(1, number + 1)), 1.0}
    return [
        Level(index, schedule.cutoff(scale).item(), scale, int(_within(schedule, scale).sum()))
        for index, scale in enumerate(sorted(scales))
    ]


def shells(schedule: Schedule, levels: Sequence[Level]) -> list[Bool[Tensor, "*modes"]]:
    """The modes of the coarsest level, then those that each finer one adds."""
    kept = [_within(schedule, level.scale) for level in levels]
    return [kept[-1], *(fine & ~coarse for fine, coarse in reversed(list(pairwise(kept))))]


def _within(schedule: Schedule, scale: float) -> Tensor:
    """True for the modes within the cutoff, which define a level."""
    return schedule.wavenumber_sq <= schedule.cutoff(scale) ** 2 * (1 + 1e-9)


def _octave(schedule: Schedule, level: int, number: int) -> float:
    """Scale at which the cutoff falls below 2^-level of the axes' last wavenumber (white noise: even in t)."""
    q_sq, lattice = schedule.wavenumber_sq, schedule.lattice
    if bool((q_sq == q_sq.flatten()[0]).all()):
        return level / (number + 1)
    last = max(lattice.wavenumbers(axis)[-1].item() for axis in range(lattice.dim))
    kept = lattice.k_sq().sqrt() <= last / 2**level
    return min(max(schedule.time(q_sq[kept].max().sqrt().item()), 0.0), 1.0)
