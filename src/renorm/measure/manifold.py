r"""How faithful and how varied samples are: precision, recall, density and coverage.

The support of a law is drawn as balls around its samples, each as large as the distance to the k-th nearest other
one, $B_k(x_i) = \{y : |y - x_i| \le \mathrm{NND}_k(x_i)\}$.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from renorm.errors import DataError
from renorm.measure.neighbours import square_distances

__all__ = ["Manifold", "manifold"]

ROUNDING = 1e-12  # of the largest squared norm: what lies on a ball's surface is inside


class Manifold(NamedTuple):
    """How faithful samples are (precision, density), and how much of the law they reach (recall, coverage)."""

    precision: float
    recall: float
    density: float
    coverage: float


def manifold(
    samples: Float[Tensor, "num features"], reference: Float[Tensor, "other features"], *, k: int = 5
) -> Manifold:
    r"""Precision, recall, density and coverage by $k$ nearest neighbours; $y$ are $n$ samples, $x$ the $m$ of the data.

    $$ \mathrm{precision} = \frac1n \sum_j 1\big[y_j \in \textstyle\bigcup_i B_k(x_i)\big], \qquad
       \mathrm{recall} = \frac1m \sum_i 1\big[x_i \in \textstyle\bigcup_j B_k(y_j)\big], $$

    $$ \mathrm{density} = \frac{1}{k n} \sum_j \sum_i 1[y_j \in B_k(x_i)], \qquad
       \mathrm{coverage} = \frac1m \sum_i 1\big[\exists j : y_j \in B_k(x_i)\big] $$

    All are shares but density, which is 1 on average for two samples of one law and may exceed it. A single outlier of
    the data has a large ball and can lift precision; density counts balls and is hardly moved. Recall rises with every
    outlier among the samples, coverage does not. None is unbiased, and all depend on numbers: compare equal ones.

    Raises:
        DataError: If features differ in number, one is not finite, or a side has ``k`` samples or fewer.

    Source:
        Kynkäänniemi et al. 2019, arXiv:1904.06991 (precision, recall); Naeem et al. 2020, arXiv:2002.09797.

    Example:
        >>> data = torch.tensor([[0.0], [1.0], [10.0], [11.0]])  # two modes; with k = 1 each ball has the radius 1
        >>> manifold(torch.tensor([[0.2], [0.3], [0.5]]), data, k=1)
        Manifold(precision=1.0, recall=0.0, density=2.0, coverage=0.5)
    """
    if samples.dim() != 2 or reference.dim() != 2 or samples.shape[1] != reference.shape[1]:
        raise DataError(
            f"precision and recall need the same features, (num, features), got {tuple(samples.shape)} and "
            f"{tuple(reference.shape)}"
        )
    if k < 1 or min(len(samples), len(reference)) <= k:
        raise DataError(
            f"precision and recall by k = {k} neighbours need k >= 1 and more than k samples on each side, got "
            f"{len(samples)} and {len(reference)}"
        )
    y, x = (f.detach().cpu().double() for f in (samples, reference))
    if not (y.isfinite().all() and x.isfinite().all()):
        raise DataError("features must be finite (one nan would spoil every statistic), got nan or inf")
    centre = x.mean(0)
    y, x = y - centre, x - centre
    slack = ROUNDING * float(max(y.square().sum(1).max(), x.square().sum(1).max()))
    data_ball, ball = _ball(x, k) + slack, _ball(y, k) + slack
    covered = torch.zeros(len(x), dtype=torch.bool)
    reached = torch.zeros(len(x), dtype=torch.bool)
    faithful = balls = start = 0
    for distances in square_distances(y, x):
        inside = distances <= data_ball
        covered |= inside.any(0)
        faithful += int(inside.any(1).sum())
        balls += int(inside.sum())
        reached |= (distances <= ball[start : start + len(distances), None]).any(0)
        start += len(distances)
    return Manifold(
        faithful / len(y), float(reached.double().mean()), balls / (k * len(y)), float(covered.double().mean())
    )


def _ball(x: Float64[Tensor, "num features"], k: int) -> Float64[Tensor, " num"]:
    """Squared distance of each sample to its k-th nearest other one: the nearest of all is itself."""
    found, start = torch.empty(len(x), dtype=x.dtype), 0  # one piece: small ones kept in between would scatter the heap
    for rows in square_distances(x, x):
        found[start : start + len(rows)] = rows.topk(k + 1, largest=False).values.amax(1)
        start += len(rows)
    return found
