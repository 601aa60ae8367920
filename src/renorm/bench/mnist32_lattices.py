"""What coarse lattices are worth in training, digits at 32 x 32: ``run_lattices`` of ``renorm.bench.by_seconds``."""

from renorm.bench import by_seconds
from renorm.bench.mnist32 import PLAN
from renorm.bench.result import Result

__all__ = ["run"]


def run(seed: int) -> Result:
    """Four lattices, three seeds, ten minutes each."""
    return by_seconds.run_lattices(PLAN, seed)
