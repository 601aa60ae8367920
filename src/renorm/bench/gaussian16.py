"""Trained networks on Gaussian fields of a steep spectrum, with the very model and training of ``mnist16``.

Nothing is tuned to the data, as for photographs in ``cifar16``. There is no extractor of features here: what is
compared is the sliced Wasserstein distance of the fields, and beside it the largest log ratio of their power spectra.
How it is done, and how it is run in pieces, stands in `renorm.bench.trained`.
"""

from renorm.bench import trained
from renorm.bench.result import Result

__all__ = ["METHODS", "run"]

METHODS = {"ours": 1, "white-twin": 1, "edm": 1}  # one seed each


def run(seed: int) -> Result:
    """Train what is missing of three runs of ``gaussian16``, then compare them."""
    return trained.run("gaussian16", seed, METHODS)
