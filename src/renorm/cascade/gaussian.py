"""Exact cascades of Gaussian fields: solved from a covariance or a power spectrum, nothing is learned."""

from collections.abc import Sequence

from jaxtyping import Float
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

    Args:
        lattice: Periodic.
        covariance: C(k), complex128 (\*sites, channel, channel), in the order of ``torch.fft``.
        steps: Linear steps with details on the coarse lattice (wavelets, checkerboards).
    """
    conditionals, at = [], lattice
    for step in steps:
        joint = joint_covariance(step, at, covariance)
        at = step.coarse_lattice(at)
        conditionals.append(LinearGaussian(joint, at.channels))
        covariance = joint[..., : at.channels, : at.channels]
    return Cascade(lattice, steps, conditionals, GaussianTop(covariance))


def shell_cascade(lattice: Lattice, power: Float[Tensor, "*sites channel channel"], levels: int) -> Cascade:
    r"""The exact cascade of a Gaussian field with independent modes: nothing is learned.

    $$ C_n^{(l)} = 2^{-d\,l}\, C_n \quad (n_a < 2^{-l} L_a), \qquad
       p(y_l \mid \phi_{l+1}) = \prod_{n \in \text{shell } l} \mathcal{N}\big(y_n;\ 0,\ C_n^{(l)}\big) $$

    Args:
        lattice: Open or periodic.
        power: $C_n$, covariance over channels of every mode in the lattice's order, in field units squared.
        levels: Steps.

    Raises:
        RecipeError: If the lattice cannot be halved so often, the shape differs, or a cosine and its sine differ.

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
