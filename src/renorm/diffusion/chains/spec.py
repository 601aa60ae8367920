"""A chain diffusion as a typed value, without torch."""

import math
from dataclasses import dataclass, field
from typing import Literal

from renorm.nn.spec import ChainNetSpec
from renorm.spec import require, require_literals

__all__ = ["ChainSpec"]


@dataclass(frozen=True)
class ChainSpec:
    """Which flow, how its network looks, and how to walk back up.

    Args:
        schedule: ``"rgdm"`` (the paper's chains) or ``"ddpm"`` (white noise, no mode is erased).
        time: Whose tau, and with it T(N): ``"code"`` (as released) or ``"paper"`` (its Fig. 3); of ``"rgdm"``.
        mass: Of the Gaussian chain that is the prior, in rad/site.
        spectrum: Of the chains that the network is preconditioned for, and that enter: ``"measured"`` on those of
            training, or the ``"prior"``'s.
        training: Distribution of the scales in training, a name in ``renorm.diffusion.spacing.SPACINGS``; ``"auto"``
            takes the one that belongs to the schedule.
        sampler: A name in ``renorm.diffusion.sampler.SAMPLERS``.
        spacing: Where the steps lie, named as ``training``.
        steps: Steps of a walk; T(N) of the schedule if not given.
        unnamed: Share of the training chains whose sequence is not told: they teach what no sequence means.
        network: The network.

    Raises:
        ValueError: If a value is out of its range.

    Example:
        >>> ChainSpec(schedule="ddpm").sampler
        'ancestral'
    """

    schedule: Literal["rgdm", "ddpm"] = "rgdm"
    time: Literal["code", "paper"] = "code"
    mass: float = 0.01 * math.pi
    spectrum: Literal["measured", "prior"] = "measured"
    training: str = "auto"
    sampler: str = "ancestral"
    spacing: str = "auto"
    steps: int | None = None
    unnamed: float = 0.1
    network: ChainNetSpec = field(default_factory=ChainNetSpec)

    def __post_init__(self) -> None:
        require_literals(self)
        require(1e-6 <= self.mass <= 10, "mass must be in [1e-6, 10] rad/site", self.mass)
        require(self.steps is None or self.steps >= 1, "steps must be >= 1 (a walk needs at least one)", self.steps)
        require(0 <= self.unnamed <= 1, "unnamed must be in [0, 1]", self.unnamed)
