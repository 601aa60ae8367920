"""Digits at 32 x 32 from half an hour of training each on two cores, see ``renorm.bench.by_seconds``."""

from renorm.bench import by_seconds
from renorm.bench.by_seconds import Plan
from renorm.bench.result import Result

__all__ = ["PLAN", "run"]

PLAN = Plan(
    "mnist32", seconds=1800.0, short=600.0, pairs=3, fit={"fit.warmup": 200, "fit.ema": 0.999}, ancestral=(200,)
)


def run(seed: int) -> Result:
    """The comparison."""
    return by_seconds.run(PLAN, seed)
