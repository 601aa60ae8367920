"""One walk of a chain, kept at a few moments from coarse to fine, beside the known chain at the same scales.

samples/scales.npz      drawn, known (scales, residues, 3) in angstrom, coarsest first; scales, cutoffs, modes of each
"""

import math

import torch
from torch import Tensor

from renorm.bases import basis_for
from renorm.data.proteins.chains import Chain
from renorm.data.proteins.filling import fill
from renorm.diffusion.chains.model import OneLength
from renorm.diffusion.reverse import Callback, Passed
from renorm.diffusion.schedule import CLEAN, Schedule
from renorm.measure.chains.superposition import Superposition

__all__ = ["Moments", "known_at_scales", "moments_of"]

MOMENTS = 5
COARSEST = 0.85  # t of the first: a handful of modes are left


def moments_of(schedule: Schedule, number: int = MOMENTS) -> list[float]:
    r"""Scales t, falling: even steps of $\ln\Lambda$ from a handful of modes on to the last, and the finished chain.

    Example:
        >>> from renorm.diffusion.presets import rgdm_chain
        >>> [int(rgdm_chain(128).alive(t).sum()) for t in moments_of(rgdm_chain(128))]
        [3, 12, 45, 127, 127]
    """
    last = schedule.time(math.sqrt(schedule.wavenumber_sq.max().item()))
    even = torch.linspace(COARSEST, min(max(last, 0.0), COARSEST), number, dtype=torch.float64)
    return [*even[:-1].tolist(), CLEAN]


class Moments(Passed):
    """A callback of a walk that keeps its first chain as each of the scales is passed.

    A walk of few steps may pass several at once; it is kept once then.

    Args:
        model: Of the length that walks.
        then: Another callback, called too.

    Attributes:
        scales: Those at which the walk was kept, coarsest first.
    """

    def __init__(self, model: OneLength, then: Callback | None = None) -> None:
        super().__init__(moments_of(model.schedule), rows=1)
        self.model, self.then = model, then

    def __call__(self, step: int, steps: int, scale: float, modes: Tensor) -> None:
        """Look at the walk after a step."""
        super().__call__(step, steps, scale, modes)
        if self.then is not None:
            self.then(step, steps, scale, modes)

    def arrays(self, laid: Superposition, target: Chain) -> dict[str, Tensor]:
        """What ``samples/scales.npz`` holds.

        Args:
            laid: Turns the drawn chain onto the known one; all moments are turned by it.
            target: The known chain.
        """
        states = basis_for(self.model.lattice).inverse(torch.cat(self.modes)).mT
        schedule = self.model.schedule
        return {
            "drawn": (states.double() @ laid.rotation.reshape(3, 3).mT).float(),
            "known": known_at_scales(self.model, target, self.scales),
            "scales": torch.tensor(self.scales, dtype=torch.float64),
            "cutoffs": torch.stack([schedule.cutoff(t) for t in self.scales]),
            "modes": torch.tensor([int(schedule.alive(t).sum()) for t in self.scales]),
        }


def known_at_scales(model: OneLength, target: Chain, scales: list[float], *, seed: int = 0) -> Tensor:
    """A known chain (scales, residues, 3) as the forward flow has it, with one draw of its noise for all scales.

    Residues that are missing are drawn from the Gaussian chain.
    """
    whole = fill(target, generator=torch.Generator().manual_seed(seed))
    x = whole.coordinates.T[None].float()
    states = [model.coarsen_to(x, t, generator=torch.Generator().manual_seed(seed)) for t in scales]
    return torch.cat(states).mT
