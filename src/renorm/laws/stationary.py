"""Gaussian fields whose law does not change under translations: independent modes, a variance each."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from renorm.bases import basis_for
from renorm.errors import DataError, RecipeError
from renorm.lattice import Lattice

__all__ = ["StationaryGaussian", "lattice_k_sq"]


def lattice_k_sq(lattice: Lattice) -> Float64[Tensor, "*sites"]:
    r"""Eigenvalues of minus the lattice Laplacian, $\hat k^2 = \sum_a 4\sin^2(k_a/2)$, in the order of the modes.

    Example:
        >>> lattice_k_sq(Lattice((4,), "periodic")).round(decimals=6)
        tensor([0., 2., 2., 4.], dtype=torch.float64)
    """
    total = torch.zeros(lattice.shape, dtype=torch.float64)
    for axis in range(lattice.dim):
        view = [1] * lattice.dim
        view[axis] = -1
        total = total + 4 * (lattice.wavenumbers(axis) / 2).sin().square().reshape(view)
    return total


@dataclass(frozen=True, eq=False)
class StationaryGaussian:
    r"""A field of mean zero on a torus with independent modes of variance $P_k$.

    $$ \ln p(\phi) = -\tfrac12\sum_k\Big[\frac{\tilde\phi_k^2}{P_k} + \ln 2\pi P_k\Big], \qquad
       \xi(r) = \langle\phi_x\phi_{x+r}\rangle = \frac1N\sum_k P_k\cos k\cdot r $$

    Args:
        lattice: Periodic, with one channel.
        power: $P_k \ge 0$ in field units squared, in the order of the real Fourier modes of the lattice; a cosine
            and its sine have the same.

    Raises:
        RecipeError: If the lattice is open or has more channels, or a power is negative, or the shapes differ.

    Example:
        >>> law = StationaryGaussian(Lattice((4,), "periodic"), torch.ones(4).double())  # white noise
        >>> law.log_prob(torch.zeros(1, 1, 4)), law.correlation.round(decimals=6).abs()
        (tensor([-3.6758]), tensor([1., 0., 0., 0.], dtype=torch.float64))
    """

    lattice: Lattice
    power: Float64[Tensor, "*sites"]

    def __post_init__(self) -> None:
        if self.lattice.boundary != "periodic" or self.lattice.channels != 1:
            raise RecipeError(f"lattice must be periodic with one channel (modes are waves), got {self.lattice}")
        if tuple(self.power.shape) != self.lattice.shape:
            raise RecipeError(f"power must have one entry a mode, {self.lattice.shape}, got {tuple(self.power.shape)}")
        if not bool((self.power >= 0).all()):
            raise RecipeError(f"power must be >= 0 (it is a variance), got {float(self.power.min())}")

    @property
    def correlation(self) -> Float64[Tensor, "*sites"]:
        r"""$\xi(r)$ at every separation $r$ of the torus, by FFT; $\xi(0)$ is the variance of a site."""
        basis = basis_for(self.lattice)
        # The covariance applied to a unit at site 0 is its column there.
        delta = torch.zeros(self.lattice.shape, dtype=torch.float64)
        delta[(0,) * self.lattice.dim] = 1.0
        return basis.inverse(basis.forward(delta) * self.power)

    @property
    def log_z(self) -> float:
        r"""$\ln\int e^{-S}d\phi = \tfrac12\sum_k\ln 2\pi P_k$ in nats; $-\infty$ if a power is 0."""
        return float((2 * math.pi * self.power).log().sum()) / 2

    def __call__(self, x: Float[Tensor, "batch 1 *sites"]) -> Float[Tensor, " batch"]:
        r"""Action $\tfrac12\sum_k\tilde\phi_k^2/P_k$ of every field, in nats."""
        modes = basis_for(self.lattice).forward(self._here(x))
        return (modes**2 * self._precision(x)).flatten(1).sum(1) / 2

    def grad(self, x: Float[Tensor, "batch 1 *sites"]) -> Float[Tensor, "batch 1 *sites"]:
        """Gradient of the action: the inverse covariance times the field."""
        basis = basis_for(self.lattice)
        return basis.inverse(basis.forward(self._here(x)) * self._precision(x))

    def log_prob(self, x: Float[Tensor, "batch 1 *sites"]) -> Float[Tensor, " batch"]:
        """Exact log-density, in nats.

        Raises:
            RecipeError: If a mode has no variance: the law has no density then.
        """
        return -self(x) - self.log_z

    def sample(
        self, num: int, *, generator: torch.Generator, dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "num 1 *sites"]:
        """Independent fields, exact: white noise on the modes, scaled."""
        noise = torch.randn((num, 1, *self.lattice.shape), generator=generator, dtype=dtype, device=generator.device)
        return basis_for(self.lattice).inverse(noise * self.power.sqrt().to(noise))

    def _here(self, x: Tensor) -> Tensor:
        if tuple(x.shape[2:]) != self.lattice.shape:
            raise DataError(f"fields must be (batch, 1, *{self.lattice.shape}) to live here, got {tuple(x.shape)}")
        return x

    def _precision(self, like: Tensor) -> Tensor:
        if not bool((self.power > 0).all()):
            raise RecipeError("power must be > 0 for a density to exist (a mode without variance never moves), got 0")
        return (1 / self.power).to(like)
