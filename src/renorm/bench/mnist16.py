"""Trained networks on MNIST at 16 x 16: renormalization beside its white twin, EDM, DDPM and the paper's diffusion.

How it is done, and how it is run in pieces, stands in `renorm.bench.trained`.
"""

from renorm.bench import trained
from renorm.bench.result import Result

__all__ = ["run"]


def run(seed: int) -> Result:
    """Train what is missing of thirteen runs of ``mnist16``, then compare them."""
    return trained.run("mnist16", seed)
