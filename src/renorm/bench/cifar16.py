"""Trained networks on CIFAR-10 at 16 x 16, with the very model and training of ``mnist16``: nothing tuned to the data.

How it is done, and how it is run in pieces, stands in `renorm.bench.trained`.
"""

from renorm.bench import trained
from renorm.bench.result import Result

__all__ = ["run"]


def run(seed: int) -> Result:
    """Train what is missing of thirteen runs of ``cifar16``, then compare them."""
    return trained.run("cifar16", seed)
