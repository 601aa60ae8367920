"""The exact conditional of Gaussian fields without translation invariance: a dense linear map, and dense noise."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from renorm.cascade.conditional import CascadeConditional, Draw
from renorm.errors import DataError

__all__ = ["DenseGaussian"]


class DenseGaussian(CascadeConditional):
    r"""Details that are a linear function of the coarse field plus Gaussian noise, alike and apart for each channel.

    $$ p(y \mid c) = \prod_a \mathcal{N}(y_a;\ G c_a,\ S), \qquad
       G = C_{yc} C_{cc}^{-1}, \quad S = C_{yy} - C_{yc} C_{cc}^{-1} C_{cy} $$

    The channels $a$ are the components of positions: the law turns with them.

    Args:
        covariance: Of coarse sites and detail sites of one channel, the coarse ones first, in field units squared.
        sites: How many are coarse; 0: the top of a cascade.
        channels: Components of a position.

    The mean is 0: what is learned are second moments.

    Raises:
        DataError: If the covariance is not symmetric and positive definite.

    Example: the middle of two ends, each of variance 1, all independent.
        >>> law = DenseGaussian(torch.eye(3, dtype=torch.float64), sites=2, channels=1)
        >>> round(law.log_prob(torch.zeros(1, 1, 1), torch.ones(1, 1, 2)).exp().item(), 4)  # 1 / sqrt(2 pi)
        0.3989
    """

    closed_form = True
    covariance: Tensor
    gain: Tensor
    factor: Tensor

    def __init__(self, covariance: Float[Tensor, "all all"], sites: int, channels: int) -> None:
        super().__init__()
        self.sites, self.channels = sites, channels
        self.register_buffer("covariance", covariance.double())
        for name in ("gain", "factor"):
            self.register_buffer(name, torch.empty(0, dtype=torch.float64), persistent=False)
        self.register_load_state_dict_post_hook(_conditioned)
        self._condition()

    @classmethod
    def unfitted(cls, sites: int, details: int, channels: int) -> "DenseGaussian":
        """White noise, to be solved from samples or loaded."""
        return cls(torch.eye(sites + details, dtype=torch.float64), sites, channels)

    def solve(self, detail: Tensor, coarse: Tensor) -> None:
        """Take the covariance of samples; DataError if there are too few for it to have full rank."""
        rows = detail if coarse.ndim < 3 else torch.cat([coarse, detail], 2)
        rows = rows.double().flatten(0, 1)
        self.covariance = rows.T @ rows / len(rows)
        self._condition()

    def draw(self, coarse: Tensor, *, generator: torch.Generator) -> Draw:
        """One detail for each coarse field, and its log density."""
        shape = (len(coarse), self.channels, len(self.factor))
        noise = torch.randn(shape, generator=generator, dtype=torch.float64, device=coarse.device)
        value = self._mean(coarse) + noise @ self.factor.T
        return Draw(value.to(coarse.dtype), self._of_noise(noise))

    def log_prob(self, detail: Tensor, coarse: Tensor) -> Tensor:
        """Log density of each detail given its coarse field, in nats."""
        rest = detail.double() - self._mean(coarse)
        return self._of_noise(torch.linalg.solve_triangular(self.factor.T, rest, upper=True, left=False))

    def _mean(self, coarse: Tensor) -> Tensor:
        if self.sites == 0:
            return coarse.new_zeros(len(coarse), self.channels, len(self.factor), dtype=torch.float64)
        return coarse.double() @ self.gain.T

    def _of_noise(self, noise: Tensor) -> Tensor:
        volume = self.channels * (self.factor.diagonal().log().sum() + len(self.factor) * math.log(2 * math.pi) / 2)
        return -noise.square().flatten(1).sum(1) / 2 - volume

    def _condition(self) -> None:
        n, joint = self.sites, self.covariance
        if not torch.allclose(joint, joint.T, rtol=1e-8, atol=1e-12 * float(joint.abs().max())):
            raise DataError("a covariance is symmetric, and this one is not")
        whole, failed = torch.linalg.cholesky_ex(joint)
        if int(failed):
            raise DataError(
                "the covariance must be positive definite (else there is no density); are there too few samples? Its "
                f"leading minor {int(failed)} of {len(joint)} is not"
            )
        # Of [[L, 0], [K, F]] with L L^T = C_cc: G = K L^-1, and F F^T = S.
        self.gain = torch.linalg.solve_triangular(whole[:n, :n], whole[n:, :n], upper=False, left=False)
        self.factor = whole[n:, n:]


def _conditioned(law: DenseGaussian, _: object) -> None:
    law._condition()
