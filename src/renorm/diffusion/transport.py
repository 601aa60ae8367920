"""The law that a sampler reaches on Gaussian data, exactly and without sampling.

With the exact denoiser of Gaussian data every step is linear in every mode, so the variance can be carried along: the
sampler itself is run on amplitudes instead of fields.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from renorm.diffusion.denoiser import GaussianDenoiser
from renorm.diffusion.reverse import Walk, start
from renorm.diffusion.sampler import Sampler
from renorm.diffusion.schedule import Schedule

__all__ = ["gaussian_kl", "transported_variance"]


def transported_variance(
    schedule: Schedule,
    spectrum: Float[Tensor, "*modes"],
    sampler: Sampler,
    times: Sequence[float],
    *,
    initial: Float[Tensor, "*modes"] | None = None,
) -> Float[Tensor, "*modes"]:
    r"""Variance of every mode at ``times[-1]``, when the data are Gaussian of spectrum P and the denoiser is exact.

    A row of amplitudes $c$ stands for the random field $c\,z$, $z\sim N(0, 1)$ for each mode. A second row takes the
    noise that a stochastic sampler adds in a step; after it $c \leftarrow (c^2 + c_\mathrm{new}^2)^{1/2}$.

    Args:
        schedule: The forward flow.
        spectrum: P, variance of every mode of the data.
        sampler: One step.
        times: Falling scales.
        initial: Variance of every mode at ``times[0]``; that of a walk which does not know P if not given.

    Raises:
        ValueError: For a sampler that adds noise and remembers earlier steps: its law is not carried by one amplitude.

    Example:
        >>> from renorm.diffusion.presets import calibrated
        >>> from renorm.diffusion.sampler import Angle
        >>> from renorm.diffusion.spacing import LogUniform, grid
        >>> from renorm.lattice import Lattice
        >>> P = torch.tensor([4.0, 1.0], dtype=torch.float64)
        >>> schedule = calibrated(Lattice((2,)), P)
        >>> transported_variance(schedule, P, Angle(), grid(LogUniform(), schedule, 5)).round(decimals=3)
        tensor([4., 1.], dtype=torch.float64)
    """
    shape = (1, *schedule.lattice.shape)
    carried = torch.stack([torch.ones(shape), torch.zeros(shape)]).double()
    added = carried.flip(0)
    rows, drawn = carried, False

    def draw() -> Tensor:
        nonlocal drawn
        drawn = rows is added
        return rows

    phi = start(schedule, times[0], carried) if initial is None else initial.sqrt() * carried
    walk = Walk(schedule, GaussianDenoiser(schedule, spectrum), draw, None, phi)
    memory: Any = None
    for t, s in pairwise(times):
        rows = carried  # each mode enters the walk once, so all shells may share the first row
        walk.enter(t, s)
        rows, drawn = added, False
        phi, memory = sampler.step(phi, t, s, walk, memory)
        phi = walk.admit(phi)
        walk.leave()
        if drawn:
            if memory is not None:
                raise ValueError("a sampler that draws noise must have no memory for its variance to be carried")
            phi = torch.stack([torch.hypot(phi[0], phi[1]), torch.zeros_like(phi[0])])
    return phi[0, 0] ** 2


def gaussian_kl(variance: Float[Tensor, "*modes"], truth: Float[Tensor, "*modes"]) -> float:
    r"""Kullback-Leibler divergence of two centred Gaussian laws, in nats, summed over independent modes.

    $$ \mathrm{KL}(N(0, v) \,\|\, N(0, P)) = \tfrac12 \sum_k \big( v_k/P_k - 1 - \ln(v_k/P_k) \big) $$

    Example:
        >>> gaussian_kl(torch.tensor([2.0]), torch.tensor([1.0]))  # (2 - 1 - ln 2) / 2
        0.1534264...
    """
    ratio = variance / truth
    return 0.5 * (ratio - 1 - ratio.log()).sum().item()
