"""Simulated Gaussian fields, whose spectrum is known exactly."""

import numpy as np

from renorm.data.raw import Raw
from renorm.data.spec import DataSpec, Split
from renorm.lattice import Lattice

__all__ = ["MEAN_VARIANCE", "read"]

MEAN_VARIANCE = 0.25  # two standard deviations fill the range (-1, 1)


def read(spec: DataSpec, split: Split) -> Raw:
    r"""Fields whose modes are independent normal variables of variance

    $$ P(k) = A\,(k^2 + m^2)^{-\gamma}, \qquad \frac1N \sum_k P(k) = \frac14, $$

    so that the variance of a site, averaged over the lattice, is 1/4. Train and test are drawn from two
    different streams of random numbers; the test has a tenth as many fields.
    """
    import torch

    from renorm.bases import basis_for

    lattice = Lattice(spec.shape, boundary=spec.boundary, channels=spec.channels or 1)
    number = spec.number if split == "train" else max(1, spec.number // 10)
    number = min(number, spec.limit or number)
    variance = (lattice.k_sq() + spec.mass**2) ** -spec.exponent
    variance = variance * (MEAN_VARIANCE / variance.mean())
    generator = torch.Generator().manual_seed(2 * spec.seed + (split == "test"))
    modes = torch.randn((number, *lattice.event_shape), generator=generator)
    x = basis_for(lattice).inverse(modes * variance.sqrt().to(modes.dtype))
    return Raw(np.ascontiguousarray(x.numpy(), np.float32))
