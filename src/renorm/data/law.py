"""Simulated fields of an exact law: spins, phi^4, free and lognormal fields, molecules and clusters."""

import numpy as np

from renorm.data.raw import Raw
from renorm.data.spec import DataSpec, Split
from renorm.errors import RecipeError

__all__ = ["read"]

TEST_THIN = 40  # moves from one test field to the next on a chain


def read(spec: DataSpec, split: Split) -> Raw:
    """Fields of ``spec.law`` on ``spec.shape`` sites, simulated each time that they are asked for.

    Train and test are drawn from two different streams of random numbers; the test has a tenth as many fields, and
    where a Markov chain makes them they lie further apart on it, since error bars take them as independent.

    Raises:
        RecipeError: If no law is named, or it does not live on a lattice of this shape.
    """
    import torch

    from renorm.laws.build import make_law
    from renorm.laws.simulate import simulate

    if spec.law is None:
        raise RecipeError("data.law must say what is simulated, got nothing")
    number = spec.number if split == "train" else max(1, spec.number // 10)
    number = min(number, spec.limit or number)
    generator = torch.Generator().manual_seed(2 * spec.seed + (split == "test"))
    thin = None if split == "train" else TEST_THIN
    x = simulate(make_law(spec.law, spec.shape), number, generator=generator, thin=thin)
    return Raw(np.ascontiguousarray(x.numpy(), np.float32))
