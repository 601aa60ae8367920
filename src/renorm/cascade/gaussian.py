"""Exact cascades of Gaussian fields: solved from a covariance or a power spectrum, nothing is learned."""

from collections.abc import Sequence

from jaxtyping import Inexact
from torch import Tensor

from renorm.cascade.cascade import Cascade
from renorm.cascade.conditionals.linear_gaussian import GaussianTop, LinearGaussian
from renorm.cascade.conditionals.mode_gaussian import ModeGaussian, shell_waves, waves
from renorm.cascade.conditionals.spectral_gaussian import joint_covariance
from renorm.coarse.base import CoarseGraining
from renorm.coarse.fourier import FourierShell, mode_order
from renorm.errors import RecipeError
from renorm.lattice import Lattice

__all__ = ["gaussian_cascade", "shell_cascade"]


def gaussian_cascade(lattice: Lattice, covariance: Tensor, steps: Sequence[CoarseGraining]) -> Cascade:
    r"""The exact cascade of a translation-invariant Gaussian field: nothing is learned.

    $$ C^{(l+1)} = C^{(l)}_{cc}, \qquad p(y_l \mid \phi_{l+1}) = \prod_k \mathcal{N}\big(y_l(k);\
       C_{yc} C_{cc}^{-1} \phi_{l+1}(k),\ C_{yy} - C_{yc} C_{cc}^{-1} C_{cy}\big) $$

    with the blocks of $W C^{(l)} W^\top$, $W$ the step, of coarse field $c$ and detail $y$.

    Args:
        lattice: Periodic.
        covariance: C(k), complex128 (\*sites, channel, channel), in the order of ``torch.fft``, in field units squared.
        steps: Linear steps with details on the coarse lattice (wavelets, checkerboards).

    Raises:
        RecipeError: If the lattice is open, cannot be coarse-grained so, or a step has its details elsewhere.
        DataError: If some C(k) is not positive definite.

    Example: white noise stays white.
        >>> import torch
        >>> from renorm.coarse.wavelet import Wavelet
        >>> ring = Lattice((8,), boundary="periodic")
        >>> model = gaussian_cascade(ring, torch.ones(8, 1, 1, dtype=torch.complex128), [Wavelet(dim=1)] * 2)
        >>> round(model.log_prob(torch.zeros(1, 1, 8)).item(), 4)  # -4 ln 2 pi
        -7.3515
    """
    conditionals, at = [], lattice
    for step in steps:
        joint = joint_covariance(step, at, covariance)
        at = step.coarse_lattice(at)
        conditionals.append(LinearGaussian(joint, at.channels))
        covariance = joint[..., : at.channels, : at.channels]
    return Cascade(lattice, steps, conditionals, GaussianTop(covariance))


def shell_cascade(lattice: Lattice, power: Inexact[Tensor, "*sites channel channel"], levels: int) -> Cascade:
    r"""The exact cascade of a Gaussian field with independent modes: nothing is learned.

    $$ C_n^{(l)} = 2^{-d\,l}\, C_n \quad (n_a < 2^{-l} L_a), \qquad
       p(y_l \mid \phi_{l+1}) = \prod_{n \in \text{shell } l} \mathcal{N}\big(y_n;\ 0,\ C_n^{(l)}\big) $$

    Args:
        lattice: Open or periodic.
        power: $C_n$, real covariance over channels of every mode in the lattice's order, in field units squared.
        levels: Steps; 0: one law of all modes.

    Raises:
        RecipeError: If the lattice cannot be halved so often, ``power`` has another shape or is no covariance over
            channels, or a cosine and its sine differ.
        DataError: If a mode has no variance.

    Example: a free field in one dimension.
        >>> import torch
        >>> from renorm.laws.gaussian_field import GaussianField
        >>> law = GaussianField((8,), mass_sq=0.1)
        >>> model = shell_cascade(law.lattice, law.covariance[..., None, None], 2)
        >>> x = law.sample(3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        >>> bool(torch.allclose(model.log_prob(x), law.log_prob(x)))
        True
    """
    wanted = (*lattice.shape, lattice.channels, lattice.channels)
    if tuple(power.shape) != wanted:
        raise RecipeError(f"power must have a covariance over channels for every mode, {wanted}, got {power.shape}")
    if levels < 0:
        raise RecipeError(f"levels must be >= 0 steps, got {levels}")
    steps, conditionals, at = [], [], lattice
    for _ in range(levels):
        step = FourierShell(lattice.dim, lattice.boundary)
        fine, at = at, step.coarse_lattice(at)
        place = mode_order(Lattice(fine.shape, fine.boundary))
        ordered = power.flatten(0, fine.dim - 1)[place]
        conditionals.append(ModeGaussian.of_power(ordered[at.sites :], shell_waves(fine)))
        power = (ordered[: at.sites] / 2**fine.dim).unflatten(0, at.shape)
        steps.append(step)
    top = ModeGaussian.of_power(power.flatten(0, lattice.dim - 1), waves(at), at)
    return Cascade(lattice, steps, conditionals, top)
