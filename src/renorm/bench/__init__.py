"""The benchmarks behind ``renorm bench``: one file each, with its baselines.

A new benchmark is one new file with ``run(seed) -> Result`` and one line in ``BENCHMARKS``.
"""

BENCHMARKS = {
    "gaussian-nfe": "gaussian_nfe",
    "mnist16-speed": "mnist16_speed",
    "resume": "resume",
    "demo": "demo",
}
"""Name -> module in this folder; imported only when run."""
