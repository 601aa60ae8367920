"""Gaussian laws of the modes of a lattice, one covariance for each wave vector: what Fourier shells need."""

import math

import torch
from jaxtyping import Float, Float64, Inexact, Int64
from torch import Tensor

from renorm.bases import basis_for
from renorm.cascade.conditional import CascadeConditional, Draw
from renorm.cascade.conditionals.spectral_gaussian import require_alive
from renorm.coarse.base import shrunk
from renorm.coarse.fourier import mode_order
from renorm.errors import RecipeError
from renorm.lattice import Lattice

__all__ = ["ModeGaussian", "shell_waves", "waves"]

ROUNDING = 1e-9  # of the largest power: numbers closer than that are the same


class ModeGaussian(CascadeConditional):
    r"""Independent Gaussian modes of mean zero, whatever the coarse field.

    $$ \ln p(y) = -\tfrac12 \sum_n \Big[ y_n^\top C_{q(n)}^{-1} y_n + \ln\det 2\pi C_{q(n)} \Big] $$

    $y_n$ has one entry for each channel, and all modes of one wave vector $q$, cosines and sines, share a covariance
    over channels. Modes of a stationary field that is also its own mirror image on every axis are independent so; for
    an open lattice it is the law with independent cosines. The shell then does not look at the coarse field.

    Args:
        covariance: $C_q$ of each wave vector, in field units squared.
        wave: $q(n)$, the place in ``covariance`` of each mode.
        lattice: Where values are fields (the top of a cascade); none: values are the modes themselves, channel after
            channel, as a ``FourierShell`` gives them.

    Raises:
        DataError: If some covariance is not positive definite.

    Example:
        >>> law = ModeGaussian(torch.tensor([[[1.0]], [[4.0]]]), torch.tensor([0, 1, 1]))
        >>> round(law.log_prob(torch.zeros(1, 3), torch.empty(1, 0)).item(), 4)  # -3/2 ln 2 pi - ln 4
        -4.1431
    """

    closed_form = True
    covariance: Tensor
    wave: Tensor

    def __init__(
        self,
        covariance: Float[Tensor, "waves channel channel"],
        wave: Int64[Tensor, " modes"],
        lattice: Lattice | None = None,
    ) -> None:
        super().__init__()
        self.lattice = lattice
        self.register_buffer("covariance", covariance.double())
        self.register_buffer("wave", wave, persistent=False)
        _root(self.covariance)  # refuses modes that never move

    @classmethod
    def unfitted(cls, channels: int, wave: Int64[Tensor, " modes"], lattice: Lattice | None = None) -> "ModeGaussian":
        """White noise: what ``solve`` and a file start from."""
        return cls(torch.eye(channels).expand(int(wave.max()) + 1, channels, channels), wave, lattice)

    @classmethod
    def of_power(
        cls,
        power: Inexact[Tensor, "modes channel channel"],
        wave: Int64[Tensor, " modes"],
        lattice: Lattice | None = None,
    ) -> "ModeGaussian":
        """The law of these exact covariances of each mode.

        Raises:
            RecipeError: If they are no covariances, or two modes of one wave vector have different ones.
        """
        if power.is_complex():
            raise RecipeError(f"power must be real (covariances of real modes), got {power.dtype}; take its real part")
        turned = float((power - power.mT).abs().max())
        if not turned <= ROUNDING * float(power.abs().max()):
            raise RecipeError(
                "power must be a covariance over channels, the same when two are exchanged, and finite, got "
                f"{turned:.3g} between a matrix and its transpose"
            )
        mean = _mean_of_waves(power.double(), wave)
        apart = float((mean[wave] - power).abs().max())
        if apart > ROUNDING * float(power.abs().max()):
            raise RecipeError(
                f"a cosine and its sine must have the same power (else the field is not stationary), got {apart:.3g} "
                "between them and their mean"
            )
        return cls(mean, wave, lattice)

    @property
    def entropy(self) -> Float64[Tensor, ""]:
        r"""$\tfrac12 \sum_n \ln\det 2\pi e\, C_{q(n)}$ in nats."""
        return (
            self._log_det(_root(self.covariance)) / 2
            + len(self.wave) * self.covariance.shape[-1] * (1 + math.log(2 * math.pi)) / 2
        )

    def solve(self, detail: Tensor, coarse: Tensor) -> None:
        r"""Take the second moments of samples, $C_q = \langle y_n y_n^\top \rangle$ over fields and modes of $q$.

        Raises:
            DataError: If a mode, or the coarse field, never moves, or there are too few samples for the channels.
        """
        modes = self._modes(detail)
        each = torch.einsum("nam,nbm->mab", modes, modes) / len(modes)
        covariance = _mean_of_waves(each, self.wave)
        beside = covariance[:0]
        if coarse.ndim > 2:  # the mean covariance of its modes: a dead shell, or a dead field above it, is seen so
            beside = torch.einsum("nax,nbx->ab", *[coarse.double().flatten(2)] * 2)[None] / coarse[:, 0].numel()
        require_alive(torch.linalg.eigvalsh(torch.cat([covariance, beside])), detail.dtype)
        self.covariance = covariance

    def draw(self, coarse: Tensor, *, generator: torch.Generator) -> Draw:
        """One detail for each coarse field, and its log density."""
        root = _root(self.covariance)
        shape = (len(coarse), self.covariance.shape[-1], len(self.wave))
        white = torch.randn(shape, generator=generator, dtype=torch.float64, device=generator.device)
        value = self._value(torch.einsum("mab,nbm->nam", root[self.wave], white))
        log_prob = self._nats(white.square().flatten(1).sum(1), root)
        # The top is told nothing, so its precision is its own.
        return Draw(value if self.lattice is not None else value.to(coarse.dtype), log_prob)

    def log_prob(self, detail: Tensor, coarse: Tensor) -> Tensor:
        """Log density of each detail, in nats."""
        root = _root(self.covariance)
        modes = self._modes(detail).permute(2, 1, 0)
        white = torch.linalg.solve_triangular(root[self.wave], modes, upper=False)
        return self._nats(white.square().sum((0, 1)), root)

    def _nats(self, square: Tensor, root: Tensor) -> Tensor:
        numbers = len(self.wave) * self.covariance.shape[-1]
        return -0.5 * (square + self._log_det(root) + numbers * math.log(2 * math.pi))

    def _log_det(self, root: Tensor) -> Tensor:
        return 2 * root.diagonal(dim1=-2, dim2=-1).log().sum(-1)[self.wave].sum()

    def _modes(self, value: Tensor) -> Tensor:
        """(batch, channel, modes), float64."""
        if self.lattice is None:
            return value.double().unflatten(1, (self.covariance.shape[-1], -1))
        return basis_for(self.lattice).forward(value.double()).flatten(2)

    def _value(self, modes: Tensor) -> Tensor:
        if self.lattice is None:
            return modes.flatten(1)
        return basis_for(self.lattice).inverse(modes.unflatten(-1, self.lattice.shape))


def waves(lattice: Lattice) -> Int64[Tensor, " modes"]:
    r"""Number of the wave vector $(|k_1|, \dots, |k_d|)$ of each mode, in the flat order of the modes.

    Example:
        >>> waves(Lattice((4,), boundary="periodic")).tolist()  # constant, cosine and sine, staggered
        [0, 1, 1, 2]
    """
    axes = [lattice.wavenumbers(axis) for axis in range(lattice.dim)]
    return _numbered(torch.cartesian_prod(*axes).reshape(lattice.sites, lattice.dim))


def shell_waves(lattice: Lattice) -> Int64[Tensor, " modes"]:
    """The same for the modes of the shell that a ``FourierShell`` takes off this lattice, in their order.

    Example:
        >>> shell_waves(Lattice((4,), boundary="periodic")).tolist()  # a sine and the staggered mode
        [0, 1]
    """
    place = mode_order(Lattice(lattice.shape, lattice.boundary))[shrunk(lattice, 2).sites :]
    return _numbered(waves(lattice)[place][:, None])


def _numbered(vectors: Tensor) -> Tensor:
    return vectors.unique(dim=0, return_inverse=True)[1]


def _mean_of_waves(each: Tensor, wave: Tensor) -> Tensor:
    total = each.new_zeros(int(wave.max()) + 1, *each.shape[1:]).index_add(0, wave, each)
    return total / torch.bincount(wave)[:, None, None]


def _root(covariance: Tensor) -> Tensor:
    """Cholesky's factor of every covariance."""
    require_alive(torch.linalg.eigvalsh(covariance.double()))
    return torch.linalg.cholesky(covariance.double())
