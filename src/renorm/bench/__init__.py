"""The benchmarks behind ``renorm bench``: one file each, with its baselines.

A new benchmark is one new file with ``run(seed) -> Result`` and one line in ``BENCHMARKS``.
"""

BENCHMARKS = {
    "gaussian-nfe": "gaussian_nfe",
    "mixture-nfe": "mixture_nfe",
    "mixture-work": "mixture_work",
    "regulators": "regulators",
    "mnist16": "mnist16",
    "mnist32": "mnist32",
    "mnist32-lattices": "mnist32_lattices",
    "clothing64": "clothing64",
    "cifar16": "cifar16",
    "gaussian16": "gaussian16",
    "cifar10": "cifar10",
    "protein": "protein",
    "likelihood": "likelihood",
    "memory": "memory",
    "mnist16-speed": "mnist16_speed",
    "profile": "profile",
    "resume": "resume",
    "demo": "demo",
    "tokens-mnist": "tokens_mnist",
    "tokens-codec": "tokens_codec",
    "tokens-speed": "tokens_speed",
    "tokens-levels": "tokens_levels",
    "gff": "gff",
    "phi4": "phi4",
    "ising": "ising",
    "wcrg": "wcrg",
    "scaling": "scaling",
    "lognormal": "lognormal",
    "lognormal-large": "lognormal_large",
    "longrange": "longrange",
    "cascade-images": "cascade_images",
    "pong": "pong",
    "breakout": "breakout",
    "structure-cost": "structure_cost",
    "movie": "movie",
    "chain": "chain",
}
"""Name -> module in this folder; imported only when run."""
