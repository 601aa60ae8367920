"""The way down: near beads merge, pair by pair, until one is left; a random tree whose probability is known."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from renorm.errors import DataError

__all__ = ["Beads", "Merges", "merge_all", "merge_log_prob"]


class Beads(NamedTuple):
    """Beads at one level of every cluster.

    Attributes:
        at: Positions (batch, beads, dim).
        mass: Particles in each (batch, beads), whole numbers.
    """

    at: Tensor
    mass: Tensor


class Merges(NamedTuple):
    r"""All merges of clusters, coarsest first: what a splitting law is taught, or what it drew.

    Attributes:
        beads: Beads after each merge, the merged one last: 1, 2, ... n - 1 of them.
        first: Mass of the first of both, for each merge, (batch,).
        vector: From the first to the second, (batch, dim).
        log_prob: Of the merges given the particles, in nats, (batch,).
    """

    beads: tuple[Beads, ...]
    first: tuple[Tensor, ...]
    vector: tuple[Tensor, ...]
    log_prob: Tensor


def merge_all(x: Float[Tensor, "batch dim particles"], *, sharpness: float, generator: torch.Generator) -> Merges:
    r"""Merge beads until one is left, near and light ones first, either of both being called the first.

    $$ p(i, j) = \tfrac12\,\frac{e^{-\beta c_{ij}}}{\sum_{k<l} e^{-\beta c_{kl}}}, \qquad
       c_{ij} = \frac{m_i m_j}{m_i + m_j}\,|x_i - x_j|^2 $$

    (Ward's cost: what merging adds to the moment of inertia.) Permuted particles have the same merges, turned ones
    turned merges.

    Args:
        x: Positions.
        sharpness: $\beta$, in inverse units of length squared; the larger, the surer the nearest merge.
        generator: All randomness.

    Raises:
        DataError: If there are fewer than two particles, or a position is not finite.

    Source:
        Ward 1963, J. Am. Stat. Assoc. 58, 236, for the cost.

    Example: three on a line.
        >>> x = torch.tensor([[[0.0, 1.0, 5.0]]])
        >>> merges = merge_all(x, sharpness=10.0, generator=torch.Generator().manual_seed(0))
        >>> merges.beads[1].at[0, :, 0].tolist(), merges.beads[1].mass[0].tolist()
        ([5.0, 0.5], [1, 2])
    """
    if x.shape[2] < 2:
        raise DataError(f"two particles or more can merge, got {x.shape[2]}")
    if not bool(x.isfinite().all()):
        raise DataError("positions must be finite, and some are not")
    now = Beads(x.transpose(1, 2), torch.ones(len(x), x.shape[2], dtype=torch.long, device=x.device))
    states, firsts, vectors = [], [], []
    total = x.new_zeros(len(x))
    while now.at.shape[1] > 1:
        shares = _shares(now, sharpness)
        pair = torch.multinomial(shares.exp(), 1, generator=generator)
        total = total + shares.gather(1, pair)[:, 0] - math.log(2)
        i, j = torch.triu_indices(now.at.shape[1], now.at.shape[1], offset=1, device=x.device)[:, pair[:, 0]]
        swap = torch.rand(len(x), generator=generator, device=x.device) < 0.5
        i, j = torch.where(swap, j, i), torch.where(swap, i, j)
        firsts.append(now.mass.gather(1, i[:, None])[:, 0])
        vectors.append(_take(now.at, j) - _take(now.at, i))
        now = _merged(now, i, j)
        states.append(now)
    return Merges(tuple(states[::-1]), tuple(firsts[::-1]), tuple(vectors[::-1]), total)


def merge_log_prob(beads: Beads, *, sharpness: float) -> Float[Tensor, " batch"]:
    """Log probability that the last two beads merge next, the last but one as the first; see ``merge_all``."""
    n = beads.at.shape[1]
    place = n * (n - 1) // 2 - 1  # the last of the pairs in their order
    return _shares(beads, sharpness)[:, place] - math.log(2)


def _shares(beads: Beads, sharpness: float) -> Tensor:
    """Log probability of each pair, in the order of ``triu_indices``."""
    i, j = torch.triu_indices(beads.at.shape[1], beads.at.shape[1], offset=1, device=beads.at.device)
    a, b = beads.mass[:, i].to(beads.at), beads.mass[:, j].to(beads.at)
    cost = a * b / (a + b) * (beads.at[:, i] - beads.at[:, j]).square().sum(-1)
    return (-sharpness * cost).log_softmax(1)


def _merged(beads: Beads, i: Tensor, j: Tensor) -> Beads:
    """Beads i and j give way to one at their centre of mass, which stands last."""
    n = beads.at.shape[1]
    both = torch.stack([i, j], 1)
    a, b = (_take(beads.at, k) for k in (i, j))
    p, q = (beads.mass.gather(1, k[:, None]) for k in (i, j))
    centre = (p * a + q * b) / (p + q)
    other = torch.ones(len(i), n, dtype=torch.bool, device=i.device).scatter(1, both, False)
    order = torch.arange(n, device=i.device).expand(len(i), n)[other].reshape(len(i), n - 2)
    left = beads.at.gather(1, order[..., None].expand(-1, -1, beads.at.shape[2]))
    return Beads(torch.cat([left, centre[:, None]], 1), torch.cat([beads.mass.gather(1, order), p + q], 1))


def _take(at: Tensor, index: Tensor) -> Tensor:
    return at.gather(1, index[:, None, None].expand(-1, 1, at.shape[2]))[:, 0]
