r"""Nearest neighbours of samples in a training set, and whether the samples are copies of it."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float64, Int64, Shaped
from scipy.stats import betabinom, hypergeom
from torch import Tensor

from renorm.errors import DataError

__all__ = ["Memorisation", "Neighbours", "memorisation", "nearest", "square_distances"]

CHUNK = 2**20
"""Distances that are held at once."""

SPARE = 8  # more candidates than neighbours, so that rounding of the search cannot lose one
COPY = 1 / 3  # a copy lies at most this share of the second-nearest distance away


class Neighbours(NamedTuple):
    """The nearest training fields of each sample, nearest first: which they are, and their Euclidean distances."""

    indices: Int64[Tensor, "num k"]
    distance: Float64[Tensor, "num k"]


class Memorisation(NamedTuple):
    """Whether samples lie nearer to training fields than fresh fields do.

    Attributes:
        ratio: Median distance of samples to their nearest training field, over that of test fields.
        near: Share of samples that lie nearer than the nearest ``expected`` of test fields do.
        expected: The share that fresh fields of the law would have, about 0.01.
        copies: Share of samples three times nearer to one training field than to any other.
        test_copies: The same share of test fields.
        p_near: Chance that as many samples of a model which has memorised nothing lie so near.
        p_copies: Chance that as many of its samples are copies.
    """

    ratio: float
    near: float
    expected: float
    copies: float
    test_copies: float
    p_near: float
    p_copies: float

    @property
    def p_value(self) -> float:
        """Chance that one sign or the other is as strong: at most twice the smaller."""
        return min(1.0, 2 * min(self.p_near, self.p_copies))


def square_distances(
    x: Float64[Tensor, "num features"], y: Float64[Tensor, "other features"]
) -> Iterator[Float64[Tensor, "rows other"]]:
    r"""Squared distances $|x_i - y_j|^2 = |x_i|^2 + |y_j|^2 - 2 x_i \cdot y_j$, some rows at a time.

    Centre both first: what is far from the origin loses digits.

    Example:
        >>> x = torch.tensor([[0.0, 0.0], [3.0, 4.0]]).double()
        >>> torch.cat(list(square_distances(x, x)))
        tensor([[ 0., 25.],
                [25.,  0.]], dtype=torch.float64)
    """
    norms = y.square().sum(1)
    for part in x.split(max(1, CHUNK // len(y))):
        yield torch.addmm(norms + part.square().sum(1, keepdim=True), part, y.T, alpha=-2).clamp_min_(0)


def nearest(x: Shaped[Tensor, "num *event"], training: Shaped[Tensor, "other *event"], *, k: int = 1) -> Neighbours:
    r"""The ``k`` training fields nearest to each field, and the distances $|x - y|$ over all their values.

    Neighbours are searched in float32, a few more than are asked for; the distances of those found are then exact.
    Bytes and floats may be given, both sides in the same unit.

    Raises:
        DataError: If fields have other shapes, a value is not finite, or there are fewer than ``k`` training fields.

    Example:
        >>> training = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
        >>> nearest(torch.tensor([[3.0, 5.0]]), training, k=2)
        Neighbours(indices=tensor([[1, 0]]), distance=tensor([[1.0000, 5.8310]], dtype=torch.float64))
    """
    if x.shape[1:] != training.shape[1:]:
        raise DataError(
            f"neighbours need fields of one shape, got {tuple(x.shape[1:])} and {tuple(training.shape[1:])}"
        )
    if not 1 <= k <= len(training):
        raise DataError(f"k nearest neighbours need 1 <= k <= {len(training)} training fields, got k = {k}")
    for values in (x, training):
        if values.is_floating_point() and not values.isfinite().all():
            raise DataError("neighbours need finite values (nan is near to nothing), got nan or inf")
    f, y = x.cpu().flatten(1), training.cpu().flatten(1)
    centre = y.float().mean(0) if y.is_floating_point() else torch.full((y.shape[1],), 127.0)
    found = [_search(part, y, centre, k) for part in f.split(1024)]
    return Neighbours(torch.cat([one.indices for one in found]), torch.cat([one.distance for one in found]))


def _search(x: Tensor, y: Tensor, centre: Tensor, k: int) -> Neighbours:
    """Candidates by rounded distances, training fields a chunk at a time; then the order of the exact ones."""
    f, kept = x.float() - centre, min(k + SPARE, len(y))
    best = torch.empty(len(x), 0)
    index = torch.empty(len(x), 0, dtype=torch.int64)
    size = max(1, CHUNK // len(x))
    for start in range(0, len(y), size):
        part = y[start : start + size].float() - centre
        distance = torch.addmm(part.square().sum(1), f, part.T, alpha=-2)  # |x|^2 is the same for all
        near = distance.topk(min(kept, len(part)), largest=False)
        best, index = torch.cat([best, near.values], 1), torch.cat([index, near.indices + start], 1)
        order = best.topk(min(kept, best.shape[1]), largest=False).indices
        best, index = best.gather(1, order), index.gather(1, order)
    exact = torch.stack([(x.double() - y[column].double()).square().sum(1).sqrt() for column in index.T], 1)
    order = exact.sort(dim=1, stable=True).indices[:, :k]
    return Neighbours(index.gather(1, order), exact.gather(1, order))


def memorisation(
    samples: Float64[Tensor, "num 2"], test: Float64[Tensor, "other 2"], *, level: float = 0.01
) -> Memorisation:
    r"""Compare the distances to the two nearest training fields, $d_1 \le d_2$, of samples with those of test fields.

    Two signs. **Near**: $d_1$ below the $r$-th smallest of the $m$ test fields, $r = \max(1, \lfloor m \cdot
    \mathrm{level} \rfloor)$; of $n$ fresh fields a share $r / (m + 1)$ is, and the number is beta-binomial,
    whatever the law. Smooth or empty samples may be near to much, so this sign alone is no proof.
    **Copies**: $d_1 \le d_2 / 3$, near to one training field and to no other; compared with the test fields by Fisher's
    exact test.

    Args:
        samples: Two smallest distances of each sample, as `nearest` gives them.
        test: Those of test fields, to the same training fields.
        level: Which part of the test fields counts as near.

    Raises:
        DataError: If a side is empty or does not hold two distances of each field.

    Source:
        The rule of a third: Yoon et al. 2023, "Diffusion probabilistic models generalize when they fail to memorize".

    Example:
        >>> test = torch.tensor([[5.0, 6.0], [7.0, 8.0], [6.0, 6.5]]).double()
        >>> copies = torch.tensor([[0.0, 6.0], [0.1, 6.0], [0.2, 5.0], [6.0, 7.0]]).double()
        >>> found = memorisation(copies, test)
        >>> found.near, found.expected, found.copies, found.test_copies
        (0.75, 0.25, 0.75, 0.0)
    """
    for side in (samples, test):
        if side.dim() != 2 or side.shape[1] != 2 or not len(side):
            raise DataError(
                f"memorisation needs the two smallest distances of each field, got {tuple(samples.shape)} of samples "
                f"and {tuple(test.shape)} of test fields"
            )
    n, m = len(samples), len(test)
    rank = max(1, int(level * m))
    near = int((samples[:, 0] < test[:, 0].sort().values[rank - 1]).sum())
    copied, of_test = (int((side[:, 0] <= COPY * side[:, 1]).sum()) for side in (samples, test))
    p_near = float(betabinom.sf(near - 1, n, rank, m + 1 - rank))
    p_copies = float(hypergeom.sf(copied - 1, n + m, copied + of_test, n))
    ratio = float(samples[:, 0].median() / test[:, 0].median())
    return Memorisation(ratio, near / n, rank / (m + 1), copied / n, of_test / m, p_near, p_copies)
