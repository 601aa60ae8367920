r"""Few modes, few points: a smooth chain is a shorter one, whose points stand evenly along it.

    x_j = sqrt(m / N) sum_{n < m} u_n(j) phi_n,     j = 0 ... m - 1

With u the orthonormal cosine basis of m points this is the chain at the middles of m equal stretches of its N residues,
exactly, if its modes from m on are zero. Batches hold chains of different lengths, padded.
"""

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor

__all__ = ["cosines", "enough", "to_modes", "to_points"]

LEAST = 12  # points: fewer tell a frame badly
SPARE = 1.25  # points to a mode


def enough(alive: int, sites: int) -> int:
    """How many points carry so many modes of a chain: a quarter more, a multiple of four, never more than there are.

    Example:
        >>> enough(3, 128), enough(50, 128), enough(128, 128), enough(4, 7)
        (12, 64, 128, 7)
    """
    return min(sites, max(LEAST, 4 * math.ceil(SPARE * alive / 4)))


def cosines(count: Int64[Tensor, " batch"], size: int) -> Float[Tensor, "batch size size"]:
    r"""The orthonormal cosine basis of each number of points, site after mode; 0 beyond.

    $$ u_n(j) = \sqrt{\frac{2 - \delta_{n0}}{m}}\,\cos\frac{\pi n (j + 1/2)}{m} $$

    Example:
        >>> u = cosines(torch.tensor([3]), 4)[0]
        >>> (u @ u.T).round(decimals=4).diagonal()
        tensor([1., 1., 1., 0.])
    """
    place = torch.arange(size, device=count.device)
    m = count[:, None, None]
    angle = torch.pi * place[None, None, :] * (place[None, :, None] + 0.5) / m
    gain = torch.where(place > 0, 2.0, 1.0)[None, None, :] / m
    inside = (place[None, :, None] < m) & (place[None, None, :] < m)
    return torch.where(inside, gain.sqrt() * angle.cos(), 0.0)


def to_points(
    modes: Float[Tensor, "batch 3 modes"], u: Float[Tensor, "batch points points"], shrink: Float[Tensor, " batch"]
) -> Float[Tensor, "batch 3 points"]:
    """The coarse chain of the first modes.

    Args:
        modes: Of the chain, or at least as many as there are points.
        u: Their cosines.
        shrink: Points to a residue, m / N.
    """
    return shrink.sqrt()[:, None, None] * (modes[..., : u.shape[1]] @ u.mT)


def to_modes(
    y: Float[Tensor, "batch 3 points"], u: Float[Tensor, "batch points points"], size: int
) -> Float[Tensor, "batch 3 size"]:
    """Modes of a field on the points, as they are, and zeros for those beyond; white stays white."""
    modes = (y @ u)[..., :size]
    return torch.nn.functional.pad(modes, (0, size - modes.shape[-1]))
