"""Laws of one site, given numbers that a network says: splines over a Gaussian, spins."""

import math
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from renorm.cascade.conditional import Draw
from renorm.nn.spline import Bend
from renorm.spec import require

__all__ = ["Head", "SpinHead", "SplineHead"]

_LOG_2PI = math.log(2 * math.pi)


@runtime_checkable
class Head(Protocol):
    """A law of one number; theta has ``size`` numbers in its last axis."""

    size: int
    reparametrised: bool

    def mirrored(self, theta: Tensor, of_minus: Tensor) -> Tensor:
        """Theta such that the law turns over when its input does, from those of an input and of minus it."""
        ...

    def draw(self, theta: Tensor, *, generator: torch.Generator) -> Draw:
        """A value and its log density for each theta."""
        ...

    def log_prob(self, value: Tensor, theta: Tensor) -> Tensor:
        """Log density of each value."""
        ...


class SplineHead:
    r"""A Gaussian number bent by a monotone rational-quadratic spline, moved and stretched.

    $$ x = \mu + e^{s} f_\theta(z), \qquad z \sim \mathcal{N}(0, 1) $$

    f has ``bins`` pieces on $[-b, b]$ and is the identity outside; s is kept within $\pm 4$; theta = 0 is
    $\mathcal{N}(0, 1)$ itself.

    Args:
        bins: Pieces of the spline.
        bound: b.

    Source:
        Durkan et al. 2019, arXiv:1906.04032; zuko's ``MonotonicRQSTransform`` is the spline.

    Example:
        >>> head = SplineHead(bins=4)
        >>> round(head.log_prob(torch.zeros(1), torch.zeros(1, head.size)).exp().item(), 4)  # 1 / sqrt(2 pi)
        0.3989
    """

    reparametrised = True

    def __init__(self, bins: int = 8, bound: float = 4.0) -> None:
        require(bins >= 2, "a spline needs two bins or more", bins)
        self.bend = Bend(bins, bound)
        self.bins, self.bound, self.size = bins, bound, self.bend.size

    def mirrored(self, theta: Tensor, of_minus: Tensor) -> Tensor:
        r"""$\mu$ odd, s even, the spline's knots reflected: $f_{\theta(-u)}(-z) = -f_{\theta(u)}(z)$."""
        return self.bend.mirrored(theta, of_minus)

    def draw(self, theta: Float[Tensor, "*sites theta"], *, generator: torch.Generator) -> Draw:
        """A value and its log density for each theta; gradients pass."""
        shift, scale, knots = self.bend.parts(theta)
        z = torch.randn(shift.shape, generator=generator, dtype=theta.dtype, device=theta.device)
        bent, log_slope = self.bend.spline(z, knots)
        return Draw(shift + scale.exp() * bent, -0.5 * (z**2 + _LOG_2PI) - log_slope - scale)

    def log_prob(self, value: Float[Tensor, "*sites"], theta: Float[Tensor, "*sites theta"]) -> Tensor:
        """Log density of each value."""
        shift, scale, knots = self.bend.parts(theta)
        z, log_slope = self.bend.spline((value - shift) * (-scale).exp(), knots, inverse=True)
        return -0.5 * (z**2 + _LOG_2PI) - log_slope - scale


class SpinHead:
    r"""A spin $\pm 1$ in a field: $p(s) = \sigma(s\,\theta)$.

    Example:
        >>> SpinHead().log_prob(torch.ones(1), torch.zeros(1, 1)).exp().item()
        0.5
    """

    reparametrised = False
    size = 1

    def mirrored(self, theta: Tensor, of_minus: Tensor) -> Tensor:
        """The field turns over."""
        return (theta - of_minus) / 2

    def draw(self, theta: Float[Tensor, "*sites 1"], *, generator: torch.Generator) -> Draw:
        """A spin and its log probability for each theta."""
        field = theta[..., 0]
        uniform = torch.rand(field.shape, generator=generator, dtype=theta.dtype, device=theta.device)
        spin = torch.where(uniform < field.sigmoid(), 1.0, -1.0).to(theta.dtype).detach()
        return Draw(spin, functional.logsigmoid(spin * field))

    def log_prob(self, value: Float[Tensor, "*sites"], theta: Float[Tensor, "*sites 1"]) -> Tensor:
        """Log probability of each spin."""
        return functional.logsigmoid(value * theta[..., 0])
