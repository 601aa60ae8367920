"""Photographs of clothes at 64 x 64 from a quarter of an hour of training each, see ``renorm.bench.by_seconds``.

3068 pictures to learn from, and a test set of 372: small for a Frechet distance, whose value is therefore high for all.
"""

from renorm.bench import by_seconds
from renorm.bench.by_seconds import Plan
from renorm.bench.result import Result

__all__ = ["PLAN", "run"]

PLAN = Plan(
    "clothing64",
    seconds=900.0,
    fit={"fit.warmup": 100, "fit.ema": 0.995},
    curve=(10, 20),
    ancestral=(200,),
    samples=372,
    screen=200,
)


def run(seed: int) -> Result:
    """The comparison."""
    return by_seconds.run(PLAN, seed)
