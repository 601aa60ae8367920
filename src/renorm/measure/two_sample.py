r"""Do two samples come from one law? Distances between samples, of feature vectors or of fields laid out as such.

Fréchet distance between Gaussians fitted to both, kernel distance (KID), sliced Wasserstein distance. Which part of a
law is missed, and whether samples are copies, is asked in `renorm.measure.manifold` and `renorm.measure.neighbours`.
"""

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from renorm.errors import DataError
from renorm.measure.statistics import Estimate, jackknife

__all__ = ["FeatureStatistics", "frechet_distance", "kernel_distance", "sliced_wasserstein"]

CHUNK = 2**22
"""Projections that are held at once."""


class FeatureStatistics:
    r"""Count, mean and covariance of feature vectors, streamed in float64 and mergeable.

    Two parts with counts $n_a, n_b$, means $\mu_a, \mu_b$, scatter $S = \sum_i (f_i - \mu)(f_i - \mu)^T$ make

    $$ n = n_a + n_b, \quad \mu = \mu_a + \tfrac{n_b}{n} \delta, \quad
       S = S_a + S_b + \tfrac{n_a n_b}{n} \delta \delta^T, \qquad \delta = \mu_b - \mu_a . $$

    Source:
        Chan, Golub & LeVeque 1983, "Algorithms for computing the sample variance".

    Example:
        >>> statistics = FeatureStatistics(1).update(torch.tensor([[1.0]]))
        >>> statistics = statistics.update(torch.tensor([[2.0], [3.0]]))
        >>> statistics.num, statistics.mean, statistics.covariance
        (3, tensor([2.], dtype=torch.float64), tensor([[1.]], dtype=torch.float64))
    """

    def __init__(self, features: int) -> None:
        self.num = 0
        self.mean: Float64[Tensor, " features"] = torch.zeros(features, dtype=torch.float64)
        self._scatter = torch.zeros(features, features, dtype=torch.float64)

    @property
    def covariance(self) -> Float64[Tensor, "features features"]:
        """Unbiased covariance $S / (n - 1)$; nan for fewer than two samples."""
        return self._scatter / (self.num - 1) if self.num > 1 else torch.full_like(self._scatter, torch.nan)

    def update(self, features: Float[Tensor, "batch features"]) -> "FeatureStatistics":
        """Count a batch of feature vectors in, and return ``self``.

        Raises:
            DataError: If the number of features differs, or one is not finite.
        """
        if not features.isfinite().all():
            raise DataError("features must be finite (one nan would spoil every statistic), got nan or inf")
        part = FeatureStatistics(features.shape[1])
        if len(features):
            f = features.detach().cpu().double()
            part.num, part.mean = len(f), f.mean(0)
            part._scatter = (f - part.mean).T @ (f - part.mean)
        return self.merge(part)

    def merge(self, other: "FeatureStatistics") -> "FeatureStatistics":
        """Count another part in, and return ``self``; the order of merging does not matter.

        Raises:
            DataError: If the number of features differs.
        """
        if other.mean.shape != self.mean.shape:
            raise DataError(f"merging needs {len(self.mean)} features in both parts, got {len(other.mean)}")
        num = self.num + other.num
        if other.num:
            delta = other.mean - self.mean
            self._scatter = self._scatter + other._scatter + self.num * other.num / num * torch.outer(delta, delta)
            self.mean = self.mean + other.num / num * delta
            self.num = num
        return self


def frechet_distance(a: FeatureStatistics, b: FeatureStatistics) -> float:
    r"""Squared Fréchet (2-Wasserstein) distance of the two Gaussians with these means and covariances,

    $$ d^2 = |\mu_a - \mu_b|^2 + \operatorname{tr}\big(\Sigma_a + \Sigma_b - 2 (\Sigma_a \Sigma_b)^{1/2}\big),
       \qquad \operatorname{tr} (\Sigma_a \Sigma_b)^{1/2} = \big\| \Sigma_a^{1/2} \Sigma_b^{1/2} \big\|_* , $$

    in feature units squared. The nuclear norm (sum of singular values) needs only symmetric roots, which
    singular covariances have too. Estimated from $n$ samples it is biased upwards by a term that falls as
    $1/n$: compare equal $n$.

    Raises:
        DataError: If a side has fewer than ``features + 1`` samples (too few for a covariance of full rank).

    Source:
        Dowson & Landau 1982; Heusel et al. 2017, arXiv:1706.08500, for its use on features.

    Example:
        >>> a = FeatureStatistics(1).update(torch.tensor([[-1.0], [0.0], [1.0]]))  # mean 0, variance 1
        >>> b = FeatureStatistics(1).update(torch.tensor([[1.0], [3.0], [5.0]]))  # mean 3, variance 4
        >>> round(frechet_distance(a, b), 6)  # 3^2 + (2 - 1)^2
        10.0
    """
    features = len(a.mean)
    if len(b.mean) != features:
        raise DataError(f"a Fréchet distance needs the same features, got {features} and {len(b.mean)}")
    if min(a.num, b.num) < features + 1:
        raise DataError(
            f"a Fréchet distance of {features} features needs at least {features + 1} samples on each side "
            f"(fewer leave the covariance singular), got {a.num} and {b.num}"
        )
    overlap = torch.linalg.svdvals(_root(a.covariance) @ _root(b.covariance)).sum()
    spread = a.covariance.trace() + b.covariance.trace() - 2 * overlap
    return max(0.0, float(((a.mean - b.mean) ** 2).sum() + spread))


def kernel_distance(
    a: Float[Tensor, "num features"],
    b: Float[Tensor, "other features"],
    *,
    generator: torch.Generator,
    parts: int = 20,
) -> Estimate:
    r"""Kernel distance (KID): the unbiased squared maximum mean discrepancy with a cubic kernel, and its error.

    $$ \widehat{\mathrm{MMD}}^2 = \frac{\sum_{i \ne j} k(a_i, a_j)}{n (n - 1)}
       + \frac{\sum_{i \ne j} k(b_i, b_j)}{m (m - 1)} - \frac{2 \sum_{i, j} k(a_i, b_j)}{n m}, \qquad
       k(x, y) = \Big(\frac{x \cdot y}{d} + 1\Big)^3 $$

    over all pairs, so nothing is thrown away in subsets. Both sides are divided at random into ``parts`` disjoint
    parts, and the error is that of a jackknife which leaves out one part of each: one standard error over fresh
    samples on both sides. (The spread over subsets that overlap, which is often given, is no such error: it shrinks
    or grows with the size of the subsets.) It is right where the laws differ; where they are the same, it is too
    large by up to a factor of $\sqrt 2$, never too small on average. The value may be below zero: it has no bias.

    Args:
        generator: Divides the sides into parts; the value does not depend on it.
        parts: Disjoint parts of each side.

    Raises:
        DataError: If the features differ in number, one is not finite, or a part would have fewer than two samples.

    Source:
        Bińkowski et al. 2018, arXiv:1801.01401; Arvesen 1969, "Jackknifing U-statistics".

    Example:
        >>> a, b = torch.tensor([[0.0], [0.0], [1.0], [1.0]]), torch.tensor([[0.0], [0.0], [2.0], [2.0]])
        >>> distance = kernel_distance(a, b, parts=2, generator=torch.Generator().manual_seed(0))
        >>> round(float(distance.value), 4)  # 26 / 12 + 260 / 12 - 2 * 120 / 16
        8.8333
    """
    _check_pair(a, b)
    num, other = len(a), len(b)
    if parts < 2 or min(num, other) < 2 * parts:
        raise DataError(
            f"a kernel distance of {parts} parts needs parts >= 2 and at least {2 * parts} samples on each side (the "
            f"error leaves parts out), got {num} and {other}"
        )
    sizes = [torch.tensor([len(p) for p in torch.arange(n).tensor_split(parts)]) for n in (num, other)]
    f, g = (x.detach().cpu().double()[_shuffled(len(x), generator)] for x in (a, b))
    within_a, within_b, across = _pair_sums(f, f, parts), _pair_sums(g, g, parts), _pair_sums(f, g, parts)
    for sums, x in ((within_a, f), (within_b, g)):  # a sample is no pair with itself
        own = ((x.square().sum(1) / x.shape[1] + 1) ** 3).tensor_split(parts)
        sums.diagonal().sub_(torch.stack([part.sum() for part in own]))

    def discrepancy(left_out: Tensor | None) -> Tensor:
        """The estimate without one part of each side; a row for each part."""
        keep = torch.ones(1, parts).double() if left_out is None else 1 - left_out
        n, m = (keep @ size.double() for size in sizes)
        aa, bb, ab = (((keep @ sums) * keep).sum(1) for sums in (within_a, within_b, across))
        return aa / (n * (n - 1)) + bb / (m * (m - 1)) - 2 * ab / (n * m)

    left = discrepancy(torch.eye(parts).double())
    error = ((parts - 1) / parts * ((left - left.mean()) ** 2).sum()).sqrt()
    return Estimate(discrepancy(None)[0], error)


def sliced_wasserstein(
    a: Float[Tensor, "num features"],
    b: Float[Tensor, "other features"],
    *,
    generator: torch.Generator,
    directions: int = 256,
) -> Estimate:
    r"""Sliced 2-Wasserstein distance: transport along straight lines, averaged over random directions.

    $$ \mathrm{SW}_2^2 = \Big\langle \int_0^1 \big(F_{u \cdot a}^{-1}(q) - F_{u \cdot b}^{-1}(q)\big)^2 dq
       \Big\rangle_u, \qquad u \text{ uniform on the sphere} $$

    with the exact quantile functions of both samples, also where their numbers differ. In units of the features.
    A shift by $v$ of $d$ features has $\mathrm{SW}_2 = |v| / \sqrt d$. Finite samples of one law are not at 0:
    hold the value against that of as many fresh samples.

    Args:
        generator: Draws the directions: one seed, the same directions.
        directions: How many.

    Returns:
        The distance, and one standard error over directions alone: the two samples are compared as they are.

    Raises:
        DataError: If the features differ in number, one is not finite, or a side is empty.

    Source:
        Rabin et al. 2011, "Wasserstein barycenter and its application to texture mixing".

    Example:
        >>> a = torch.tensor([[0.0], [1.0], [2.0]])
        >>> distance = sliced_wasserstein(a, a + 3, generator=torch.Generator().manual_seed(0))
        >>> round(float(distance.value), 6)
        3.0
    """
    _check_pair(a, b)
    if directions < 2:
        raise DataError(f"a sliced distance needs at least 2 directions (its error bar is over them), got {directions}")
    u = torch.randn(a.shape[1], directions, generator=generator, device=generator.device).cpu().double()
    u = u / u.norm(dim=0)
    squares = []
    for part in u.split(max(1, CHUNK // max(len(a), len(b))), dim=1):
        p, q = (x.detach().cpu().to(torch.promote_types(x.dtype, torch.float32)) for x in (a, b))
        squares.append(_transport((p @ part.to(p.dtype)).double(), (q @ part.to(q.dtype)).double()))
    return jackknife(torch.cat(squares), torch.sqrt)


def _transport(a: Float64[Tensor, "num lines"], b: Float64[Tensor, "other lines"]) -> Float64[Tensor, " lines"]:
    """Squared 2-Wasserstein distance of two samples on each line: their quantiles, paired piece by piece."""
    n, m = len(a), len(b)
    a, b = a.sort(0).values, b.sort(0).values
    if n == m:
        return ((a - b) ** 2).mean(0)
    # Quantile functions jump at i / n and at j / m; between jumps both are constant. In units of 1 / (n m).
    jumps = torch.cat([torch.arange(n) * m, torch.arange(m) * n]).unique()
    width = torch.diff(jumps, append=torch.tensor([n * m])).double() / (n * m)
    return width @ (a[jumps // m] - b[jumps // n]) ** 2


def _pair_sums(a: Tensor, b: Tensor, parts: int) -> Float64[Tensor, "parts parts"]:
    """Sums of the cubic kernel over all pairs of two parts."""
    rows = []
    for part in a.tensor_split(parts):
        base = (part @ b.T).div_(a.shape[1]).add_(1)
        cube = base.square().mul_(base)
        rows.append(torch.stack([columns.sum() for columns in cube.tensor_split(parts, dim=1)]))
    return torch.stack(rows)


def _shuffled(num: int, generator: torch.Generator) -> Tensor:
    return torch.randperm(num, generator=generator, device=generator.device).cpu()


def _check_pair(a: Tensor, b: Tensor) -> None:
    """Raise ``DataError`` unless both are samples of the same finite features."""
    if a.dim() != 2 or b.dim() != 2 or a.shape[1] != b.shape[1] or not min(a.numel(), b.numel()):
        raise DataError(
            f"two samples to compare need the same features, (num, features), got {tuple(a.shape)} and {tuple(b.shape)}"
        )
    if not (a.isfinite().all() and b.isfinite().all()):
        raise DataError("features must be finite (one nan would spoil every statistic), got nan or inf")


def _root(covariance: Float64[Tensor, "n n"]) -> Float64[Tensor, "n n"]:
    """Symmetric square root; eigenvalues that rounding left below zero count as zero."""
    eigenvalues, vectors = torch.linalg.eigh(covariance)
    return (vectors * eigenvalues.clamp_min(0).sqrt()) @ vectors.T
