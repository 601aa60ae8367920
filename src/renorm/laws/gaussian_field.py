"""The Gaussian free field: every question has a closed answer, at any mass and size."""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from renorm.errors import RecipeError
from renorm.lattice import Lattice
from renorm.laws.stationary import StationaryGaussian, lattice_k_sq

__all__ = ["GaussianField"]


@dataclass(frozen=True)
class GaussianField:
    r"""A free scalar field on a torus of one to three axes.

    $$ S(\phi) = \tfrac12\,\phi\,(-\Delta + m^2)\,\phi, \qquad
       \langle\tilde\phi_k^2\rangle = \frac1{m^2 + \hat k^2}, \qquad \hat k^2 = \sum_a 4\sin^2\tfrac{k_a}2 $$

    Args:
        shape: Sites along each axis.
        mass_sq: $m^2 > 0$, in inverse sites squared; $1/m$ is the correlation length where it is long.

    Raises:
        RecipeError: If the mass is not positive: the mean of the field would have no law.

    Example:
        >>> law = GaussianField((8, 8), mass_sq=0.01)
        >>> round(law.log_z, 10), round(law.variance, 10)
        (22.1260189384, 1.9389041136)
    """

    shape: tuple[int, ...]
    mass_sq: float

    def __post_init__(self) -> None:
        if not self.mass_sq > 0:
            raise RecipeError(f"mass_sq must be > 0 (the zero mode's variance is 1 / mass_sq), got {self.mass_sq}")

    @cached_property
    def lattice(self) -> Lattice:
        """Where the field lives."""
        return Lattice(self.shape, "periodic")

    @cached_property
    def _law(self) -> StationaryGaussian:
        return StationaryGaussian(self.lattice, self.covariance)

    @property
    def covariance(self) -> Float64[Tensor, "*sites"]:
        r"""Variance $1/(m^2 + \hat k^2)$ of every real Fourier mode, in the order of the lattice's modes."""
        return 1 / (self.mass_sq + lattice_k_sq(self.lattice))

    @property
    def correlation(self) -> Float64[Tensor, "*sites"]:
        r"""$\langle\phi_x\phi_{x+r}\rangle$ at every separation $r$."""
        return self._law.correlation

    @property
    def variance(self) -> float:
        r"""$\langle\phi^2\rangle$ at a site."""
        return float(self.covariance.mean())

    @property
    def log_z(self) -> float:
        r"""$\ln Z = \tfrac12(N\ln 2\pi - \ln\det(-\Delta + m^2))$ in nats."""
        return self._law.log_z

    def __call__(self, x: Float[Tensor, "batch 1 *sites"]) -> Float[Tensor, " batch"]:
        """Action of every field, in nats."""
        return self._law(x)

    def grad(self, x: Float[Tensor, "batch 1 *sites"]) -> Float[Tensor, "batch 1 *sites"]:
        r"""$(-\Delta + m^2)\phi$."""
        return self._law.grad(x)

    def log_prob(self, x: Float[Tensor, "batch 1 *sites"]) -> Float[Tensor, " batch"]:
        """Exact log-density, in nats."""
        return self._law.log_prob(x)

    def sample(
        self, num: int, *, generator: torch.Generator, dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "num 1 *sites"]:
        """Independent fields, exact."""
        return self._law.sample(num, generator=generator, dtype=dtype)
