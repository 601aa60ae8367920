r"""Gaussian laws of many channels on a periodic lattice, wavenumber by wavenumber.

A translation-invariant Gaussian law is a Hermitian matrix $C(k)$ over channels at every wavenumber,

$$ \langle x_a(k)\, x_b(k')^* \rangle = N\, \delta_{kk'}\, C_{ab}(k), \qquad x(k) = \sum_r e^{-ikr} x(r), $$

so that one coarse-graining step of such a field, whatever its filters, makes a law of coarse field and detail of the
same kind on the coarse lattice, and conditioning is linear algebra at each wavenumber.
"""

import math

import torch
from jaxtyping import Complex128, Float
from torch import Tensor

from renorm.coarse.base import CoarseGraining
from renorm.errors import DataError, RecipeError
from renorm.lattice import Lattice

__all__ = ["SpectralGaussian", "joint_covariance", "require_alive", "spectral_covariance"]

ROWS = 512  # fields transformed together
DEAD = 1e-14  # variances below that, over the largest, are none: rounding errors of double precision
ROUNDED = 1e-10  # the same where fields are float32: a mean of up to three spreads, taken off, leaves 1e-14 to 2e-11


def spectral_covariance(x: Float[Tensor, "batch channel *sites"]) -> Complex128[Tensor, "*sites channel channel"]:
    r"""Covariance of each wavenumber over a set of fields, whose mean is taken to be zero.

    $$ \hat C_{ab}(k) = \frac1N \Big\langle x_a(k)\, x_b(k)^* \Big\rangle $$

    Example:
        >>> x = torch.tensor([[[1.0, -1.0]], [[-1.0, 1.0]]], dtype=torch.float64)
        >>> spectral_covariance(x).real.flatten().tolist()  # all in the finest mode
        [0.0, 2.0]
    """
    total = torch.zeros(*x.shape[2:], x.shape[1], x.shape[1], dtype=torch.complex128, device=x.device)
    for rows in x.split(ROWS):
        modes = torch.fft.fftn(rows.to(torch.complex128), dim=_axes(x.ndim - 2)).movedim(1, -1)
        total += torch.einsum("n...a,n...b->...ab", modes, modes.conj())
    return total / (len(x) * math.prod(x.shape[2:]))


def joint_covariance(
    step: CoarseGraining, lattice: Lattice, covariance: Complex128[Tensor, "*sites channel channel"]
) -> Complex128[Tensor, "*coarse channels channels"]:
    r"""Covariance of (coarse field, detail) after one linear step, at each wavenumber of the coarse lattice.

    $$ C' = W C W^\top , $$

    read off by sending a unit of each coarse and detail channel at the origin through ``merge``, the covariance and
    ``split``: no filter is looked at, so every linear step that commutes with shifts of the coarse lattice will do.

    Args:
        step: The step, whose log-determinant does not count here.
        lattice: Of the fine field, periodic.
        covariance: Of the fine field.

    Raises:
        RecipeError: If the lattice is open, or the step's details do not live on the coarse lattice.
    """
    if lattice.boundary != "periodic":
        raise RecipeError(f"spectral covariances need a periodic lattice (modes must not mix), got {lattice.boundary}")
    coarse_lattice = step.coarse_lattice(lattice)
    details, *sites = step.detail_shape(lattice)
    if tuple(sites) != coarse_lattice.shape:
        raise RecipeError(
            "a linear Gaussian needs details on the coarse lattice (one for each coarse site), got "
            f"{tuple(sites)} on {coarse_lattice.shape}; take wavelets or a checkerboard"
        )
    channels = coarse_lattice.channels
    unit = torch.zeros(channels + details, channels + details, *coarse_lattice.shape, dtype=torch.float64)
    unit.flatten(2)[:, :, 0] = torch.eye(channels + details, dtype=torch.float64)
    # The transpose of a step is its merge only where the step is orthonormal; autograd knows it always.
    fine = _transposed(step, lattice, unit, channels)
    modes = torch.fft.fftn(fine.to(torch.complex128), dim=_axes(lattice.dim))
    spread = torch.einsum("...ab,n...b->n...a", covariance, modes.movedim(1, -1)).movedim(-1, 1)
    fields = torch.fft.ifftn(spread, dim=_axes(lattice.dim)).real
    coarse, detail, _ = step.split(fields)
    columns = torch.fft.fftn(torch.cat([coarse, detail], 1).to(torch.complex128), dim=_axes(lattice.dim))
    joint = columns.movedim(0, -1).movedim(0, -2)
    return (joint + joint.mH) / 2


def _transposed(step: CoarseGraining, lattice: Lattice, unit: Tensor, channels: int) -> Tensor:
    """W^T applied to (coarse, detail): the gradient of their product with W x."""
    x = torch.zeros(len(unit), *lattice.event_shape, dtype=torch.float64, requires_grad=True)
    with torch.enable_grad():
        coarse, detail, _ = step.split(x)
        total = (coarse * unit[:, :channels]).sum() + (detail * unit[:, channels:]).sum()
        (gradient,) = torch.autograd.grad(total, x)
    return gradient


class SpectralGaussian:
    r"""A centred Gaussian law of fields with several channels, translation-invariant on a periodic lattice.

    $$ \ln p(x) = -\tfrac12 \sum_k \Big[\tfrac1N x(k)^\dagger C(k)^{-1} x(k) + \ln\det 2\pi C(k)\Big] $$

    Args:
        covariance: C(k), Hermitian and positive definite, with $C(-k) = C(k)^*$.

    Raises:
        DataError: If some C(k) is not positive definite: a mode that never moves has no density.

    Example:
        >>> law = SpectralGaussian(torch.ones(4, 1, 1, dtype=torch.complex128))  # white noise on 4 sites
        >>> round(law.entropy.item() / 4, 6), round(0.5 * math.log(2 * math.pi * math.e), 6)
        (1.418939, 1.418939)
    """

    def __init__(self, covariance: Complex128[Tensor, "*sites channel channel"]) -> None:
        self.covariance = covariance
        values, vectors = torch.linalg.eigh(covariance)
        require_alive(values.detach())
        self.eigenvalues = values
        self._root = (vectors * values.sqrt()[..., None, :]) @ vectors.mH
        self._inverse = (vectors / values[..., None, :]) @ vectors.mH
        self.log_det = values.log().sum()

    @property
    def dim(self) -> int:
        """Axes of the lattice."""
        return self.covariance.ndim - 2

    @property
    def channels(self) -> int:
        """Components of a field at a site."""
        return int(self.covariance.shape[-1])

    @property
    def sites(self) -> int:
        """Sites of the lattice."""
        return math.prod(self.covariance.shape[:-2])

    @property
    def entropy(self) -> Tensor:
        r"""$\tfrac12 \sum_k \ln\det(2\pi e\, C(k))$, in nats."""
        return 0.5 * (self.log_det + self.sites * self.channels * math.log(2 * math.pi * math.e))

    @property
    def condition_number(self) -> float:
        """Largest over smallest variance of a mode: the steps that a local sampler would need."""
        return float(self.eigenvalues.max() / self.eigenvalues.min())

    def sample(self, num: int, *, generator: torch.Generator) -> Tensor:
        r"""Fields (num, channel, \*sites), float64."""
        shape = (num, self.channels, *self.covariance.shape[:-2])
        white = torch.randn(shape, generator=generator, dtype=torch.float64, device=generator.device)
        return filtered(self._root, white)

    def log_prob(self, x: Float[Tensor, "batch channel *sites"]) -> Float[Tensor, " batch"]:
        """Nats of each field."""
        modes = torch.fft.fftn(x.to(torch.complex128), dim=_axes(self.dim)).movedim(1, -1)
        square = torch.einsum("n...a,...ab,n...b->n...", modes.conj(), self._inverse, modes).real / self.sites
        constant = self.log_det + self.sites * self.channels * math.log(2 * math.pi)
        return -0.5 * (square.flatten(1).sum(1) + constant)


def require_alive(variances: Float[Tensor, "*modes"], measured: torch.dtype = torch.float64) -> None:
    """Raise ``DataError`` if one of these variances is no more than what rounding leaves of none.

    Args:
        variances: Of modes, all of one field.
        measured: Precision of the fields that they were measured on.

    Example:
        >>> require_alive(torch.tensor([1.0, 1e-14]))
        Traceback (most recent call last):
        renorm.errors.DataError: every mode needs a variance > 0 to have a density (give more fields, or leave dead \
modes out), got variances from 1e-14 to 1
    """
    least, most = float(variances.min()), float(variances.max())
    floor = DEAD if measured == torch.float64 else ROUNDED
    if not (math.isfinite(most) and least > floor * most):
        raise DataError(
            "every mode needs a variance > 0 to have a density (give more fields, or leave dead modes out), got "
            f"variances from {least:.3g} to {most:.3g}"
        )


def filtered(kernel: Complex128[Tensor, "*sites out channel"], x: Float[Tensor, "batch channel *sites"]) -> Tensor:
    r"""$x(k) \to F(k)\, x(k)$, in float64.

    Example:
        >>> filtered(torch.full((3, 1, 1), 2.0, dtype=torch.complex128), torch.ones(1, 1, 3)).tolist()
        [[[2.0, 2.0, 2.0]]]
    """
    axes = _axes(x.ndim - 2)
    modes = torch.fft.fftn(x.to(torch.complex128), dim=axes).movedim(1, -1)
    return torch.fft.ifftn(torch.einsum("...ab,n...b->n...a", kernel, modes).movedim(-1, 1), dim=axes).real


def _axes(dim: int) -> tuple[int, ...]:
    return tuple(range(-dim, 0))
