r"""The search for superpositions that bring many residues near, from seeds of short and long fragments.

Scores such as the TM-score are largest over all superpositions, and have many local maxima. Each seed lays one
fragment of a chain onto its partner; then residues that came near are laid onto their partners, and those that come
near now, until nothing moves. What is visited on the way is given to whoever scores.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float64
from torch import Tensor

from renorm.measure.chains.superposition import proper_rotation

__all__ = ["fragments", "square_distances", "visits"]

CHUNK = 2**19
"""Residues times superpositions that are held at once."""

SHORTEST = 4  # residues of the shortest fragment
ROUNDS = 20  # of refinement after each seed


def fragments(n: int, stride: int = 1) -> Float64[Tensor, "seeds n"]:
    """Seeds as weights 0 and 1: every run of n, n/2, n/4, ... residues, the shortest of 4 (or of all, if fewer).

    Args:
        stride: How many residues lie between the starts of two runs; the last run of each length is always there.

    Example:
        >>> fragments(9, stride=3).int()  # of 9 residues, of 4
        tensor([[1, 1, 1, 1, 1, 1, 1, 1, 1],
                [1, 1, 1, 1, 0, 0, 0, 0, 0],
                [0, 0, 0, 1, 1, 1, 1, 0, 0],
                [0, 0, 0, 0, 0, 1, 1, 1, 1]], dtype=torch.int32)
    """
    lengths = [n]
    while lengths[-1] > SHORTEST:
        lengths.append(max(SHORTEST, lengths[-1] // 2))
    site, rows = torch.arange(n), []
    for length in lengths:
        start = torch.tensor([*range(0, n - length, stride), n - length])[:, None]
        rows.append((site >= start) & (site < start + length))
    return torch.cat(rows).double()


def square_distances(
    x: Float64[Tensor, "n 3"], y: Float64[Tensor, "n 3"], weights: Float64[Tensor, "seeds n"]
) -> Float64[Tensor, "seeds n"]:
    r"""Squared distances $|R x_i + t - y_i|^2$ under the best superposition for each row of weights.

    Args:
        x: Places in angstrom of the chain that moves.
        y: Places of the one that stays.
        weights: What each residue counts for each superposition.

    Returns:
        A row for each superposition, in square angstrom.

    Example:
        >>> x = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 5.0]]).double()
        >>> y = x + torch.tensor([0.0, 0.0, 2.0]).double() * torch.tensor([[0.0], [0.0], [0.0], [1.0]])
        >>> square_distances(x, y, torch.tensor([[1.0, 1.0, 1.0, 0.0]]).double()).round(decimals=9) + 0
        tensor([[0., 0., 0., 4.]], dtype=torch.float64)
    """
    x, y = x - x.mean(0), y - y.mean(0)
    share = weights / weights.sum(1, keepdim=True)
    # One product gives the moments of all seeds: means of x and of y, and of their outer product.
    outer = (x[:, :, None] * y[:, None, :]).flatten(1)
    centre_x, centre_y, moment = (share @ torch.cat([x, y, outer], 1)).split([3, 3, 9], dim=1)
    rotation = proper_rotation(moment.reshape(-1, 3, 3) - centre_x[:, :, None] * centre_y[:, None, :])
    shift = centre_y - (rotation @ centre_x[:, :, None])[:, :, 0]
    return (x @ rotation.mT + shift[:, None, :] - y).square_().sum(-1)


def visits(
    x: Float64[Tensor, "n 3"], y: Float64[Tensor, "n 3"], *, first: float, then: float, stride: int = 1
) -> Iterator[Float64[Tensor, "seeds n"]]:
    """Squared distances under every superposition of the search, some rows at a time.

    A superposition is laid through the residues that the one before brought within ``first``, then ``then`` angstrom,
    or the nearest three where there are fewer. No set of residues is visited twice.

    Args:
        x: Places in angstrom of the chain that moves.
        y: Places of the one that stays.
        first: Which residues count after a seed, in angstrom.
        then: Which count from then on, in angstrom.
        stride: Residues between the starts of seed fragments.

    Example:
        >>> x = torch.eye(5, 3).double()
        >>> [squares.shape for squares in visits(x, x, first=1.0, then=1.0)]
        [torch.Size([3, 5]), torch.Size([1, 5])]
    """
    n = len(x)
    # Sets of residues are told apart by a sum of random 62-bit numbers, one a residue.
    name = torch.randint(2**62, (n,), generator=torch.Generator().manual_seed(0))
    seen = torch.empty(0, dtype=torch.int64)
    for weights in fragments(n, stride).split(max(1, CHUNK // n)):
        for step in range(ROUNDS + 1):
            squares = square_distances(x, y, weights)
            yield squares
            cutoff = first if step == 0 else then
            third = squares.topk(min(3, n), dim=1, largest=False).values[:, -1:]
            near = squares <= third.clamp_min(cutoff**2)
            names, row = (near * name).sum(1).sort()
            new = torch.cat([torch.ones(1, dtype=torch.bool), names.diff() != 0]) & ~torch.isin(names, seen)
            if not new.any():
                break
            seen = torch.cat([seen, names[new]])
            weights = near[row[new]].double()
