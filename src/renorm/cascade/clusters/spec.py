"""Laws of clusters as typed values; no torch."""

import math
from dataclasses import dataclass
from typing import Literal

from renorm.spec import require, require_literals

__all__ = ["ClusterFit", "ClusterSpec"]


@dataclass(frozen=True)
class ClusterSpec:
    """A law of clusters that leave out particles one by one, and add them again; see ``AddingLaw``.

    Args:
        rule: Which particles leave first: ``"outer"`` or ``"crowded"`` ones, or ``"any"``.
        sharpness: How sure the choice is, in inverse units of length squared.
        unit: A length, about the distance of neighbours: distances are told apart by eighths of it, up to four of it.
        spread: Of the centre of clusters from a file, which say nothing of it. Laws have their own.
        width: Of the networks.
        parts: Of the mixture, around each particle.
        vectors: Sums of unit vectors that axes are made of.
        candidates: Of a draw, among which the learned energy chooses.

    Raises:
        ValueError: If a value is out of range.
    """

    kind: Literal["adding"] = "adding"
    rule: Literal["outer", "crowded", "any"] = "outer"
    sharpness: float = 1.0
    unit: float = 1.0
    spread: float = 1.0
    width: int = 48
    parts: int = 8
    vectors: int = 16
    candidates: int = 64

    def __post_init__(self) -> None:
        require_literals(self)
        require(0 <= self.sharpness < math.inf, "sharpness must be >= 0 and finite", self.sharpness)
        require(0 < self.unit < math.inf, "unit must be > 0 and finite, it is a length", self.unit)
        require(0 < self.spread < math.inf, "spread must be > 0 and finite (the centre has a law)", self.spread)
        for name in ("width", "parts", "vectors", "candidates"):
            require(getattr(self, name) >= 1, f"{name} must be >= 1", getattr(self, name))


@dataclass(frozen=True)
class ClusterFit:
    """How a law of clusters learns from samples.

    Args:
        steps: Of Adam.
        batch: Clusters a step.
        rate: Learning rate at first; it falls to 0 along a cosine.
        candidates: That the particle which came is told from.
        seed: Of first weights, orders, candidates and batches.

    Raises:
        ValueError: If a value is out of range.
    """

    steps: int = 2000
    batch: int = 256
    rate: float = 3e-3
    candidates: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        require(self.steps >= 1, "steps must be >= 1 (there is nothing to fit)", self.steps)
        require(self.batch >= 1, "batch must be >= 1", self.batch)
        require(0 < self.rate < math.inf, "rate must be > 0 and finite (nothing is learned at 0)", self.rate)
        require(self.candidates >= 1, "candidates must be >= 1 (what came is told from them)", self.candidates)
        require(0 <= self.seed < 2**63, "seed must be in [0, 2^63)", self.seed)
