r"""Do two samples come from one law? Fréchet distance between Gaussians fitted to their features."""

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from renorm.errors import DataError

__all__ = ["FeatureStatistics", "frechet_distance"]


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


def _root(covariance: Float64[Tensor, "n n"]) -> Float64[Tensor, "n n"]:
    """Symmetric square root; eigenvalues that rounding left below zero count as zero."""
    eigenvalues, vectors = torch.linalg.eigh(covariance)
    return (vectors * eigenvalues.clamp_min(0).sqrt()) @ vectors.T
