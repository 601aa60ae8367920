"""The Gaussian chain of Rouse: beads on springs, of which everything is known."""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from renorm.bases import Basis, basis_for
from renorm.errors import DataError
from renorm.lattice import Lattice
from renorm.spec import require

__all__ = ["GaussianChain"]


@dataclass(frozen=True)
class GaussianChain:
    r"""Atoms joined by springs of mean squared length $b^2$, and held where they are by a spring of their centre.

    $$ U(x) = \frac{d}{2b^2}\sum_i |x_{i+1} - x_i|^2 + \frac{d}{2s^2}|\bar x|^2, \qquad
       \langle\tilde x_p^2\rangle = \frac{b^2}{4d\sin^2(k_p/2)} $$

    for each component of the modes $p \ge 1$ of the cosine transform (of the Fourier transform of a ring), with the
    wavenumbers $k_p$ of the lattice; the mode $p = 0$ is $\sqrt N\bar x$. So

    $$ \langle R_g^2\rangle = b^2\,\frac{N^2 - 1}{6N} \text{ (linear)}, \qquad b^2\,\frac{N^2 - 1}{12N}
       \text{ (ring)}. $$

    Args:
        atoms: $N \ge 2$.
        bond: $b > 0$, any unit of length: the root of the mean squared length of a free spring.
        ring: Whether the last atom is joined to the first.
        dim: $d$, components of a position.
        spread: $s > 0$ of the centre, in units of length; the law of a free chain has no norm.

    Raises:
        ValueError: If one of them is out of range.

    Source:
        Rouse 1953, J. Chem. Phys. 21, 1272; Doi & Edwards 1986, "The Theory of Polymer Dynamics", 4.1.

    Example:
        >>> GaussianChain(32).rg_sq, GaussianChain(32, ring=True).rg_sq
        (5.328125, 2.6640625)
    """

    atoms: int
    bond: float = 1.0
    ring: bool = False
    dim: int = 3
    spread: float = 1.0

    def __post_init__(self) -> None:
        require(self.atoms >= 2, "atoms must be >= 2 (a chain has a spring)", self.atoms)
        require(self.bond > 0, "bond must be > 0, in units of length", self.bond)
        require(self.dim >= 1, "dim must be >= 1", self.dim)
        require(self.spread > 0, "spread must be > 0 (a free chain has no norm)", self.spread)

    @cached_property
    def lattice(self) -> Lattice:
        """Where it lives: atoms along one axis, a channel for each component."""
        return Lattice((self.atoms,), "periodic" if self.ring else "open", channels=self.dim)

    @cached_property
    def spectrum(self) -> Float64[Tensor, " atoms"]:
        """Variance of each component of every mode, in units of length squared."""
        stiff = 4 * (self.lattice.wavenumbers(0) / 2).sin().square()
        stiff[0] = self.bond**2 / self.atoms / self.spread**2
        return self.bond**2 / self.dim / stiff

    @cached_property
    def covariance(self) -> Float64[Tensor, "atoms atoms"]:
        """Of one component of the positions."""
        modes = self._basis.forward(torch.eye(self.atoms, dtype=torch.float64)[:, None])[:, 0]
        return (modes * self.spectrum) @ modes.T

    @property
    def rg_sq(self) -> float:
        r"""Exact $\langle R_g^2\rangle$, $R_g^2 = \frac1N\sum_i|x_i - \bar x|^2$, in units of length squared."""
        return self.bond**2 * (self.atoms**2 - 1) / ((12 if self.ring else 6) * self.atoms)

    @property
    def log_z(self) -> float:
        r"""$\ln\int e^{-U}$, in nats and units of length."""
        return self.dim * float((2 * math.pi * self.spectrum).log().sum()) / 2

    def __call__(self, x: Float[Tensor, "batch dim atoms"]) -> Float[Tensor, " batch"]:
        """Energy of every configuration, in nats.

        Raises:
            DataError: If positions are not (batch, dim, atoms).
        """
        return (self._modes(x).square() / self.spectrum.to(x)).flatten(1).sum(1) / 2

    def grad(self, x: Float[Tensor, "batch dim atoms"]) -> Float[Tensor, "batch dim atoms"]:
        r"""$\nabla U$."""
        return self._basis.inverse(self._modes(x) / self.spectrum.to(x))

    def log_prob(self, x: Float[Tensor, "batch dim atoms"]) -> Float[Tensor, " batch"]:
        """Exact log-density, in nats."""
        return -self(x) - self.log_z

    def sample(
        self, num: int, *, generator: torch.Generator, dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "num dim atoms"]:
        """Independent chains, exact: white noise on the modes, scaled."""
        noise = torch.randn((num, *self.lattice.event_shape), generator=generator, dtype=dtype, device=generator.device)
        return self._basis.inverse(noise * self.spectrum.sqrt().to(noise))

    @cached_property
    def _basis(self) -> Basis:
        return basis_for(self.lattice)

    def _modes(self, x: Tensor) -> Tensor:
        if tuple(x.shape[1:]) != self.lattice.event_shape:
            raise DataError(f"positions must be (batch, {self.dim}, {self.atoms}), got {tuple(x.shape)}")
        return self._basis.forward(x)
