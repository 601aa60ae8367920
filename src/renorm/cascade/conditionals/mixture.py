"""A law of one site as a sum of Gaussians: several hills, whose places and heights a network says."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from renorm.cascade.conditional import Draw
from renorm.spec import require

__all__ = ["MixtureHead"]

_LOG_2PI = math.log(2 * math.pi)


class MixtureHead:
    r"""A mixture of K Gaussians.

    $$ p(x) = \sum_k w_k\, \mathcal{N}(x; m_k, \sigma_k^2), \qquad w = \text{softmax}(\theta^w), \quad
       m_k = q_k + \theta^m_k, \quad \sigma_k = \sigma e^{\theta^s_k} $$

    At theta = 0 the places $q_k$ are the normal quantiles of $(k + \frac12)/K$, and $\sigma$ makes the variance 1;
    $\theta^s$ is kept within $\pm 4$. Gradients pass through a draw by way of the distribution function F:

    $$ \frac{\partial x}{\partial \theta} = -\frac{\partial F(x; \theta)/\partial \theta}{p(x)} . $$

    Args:
        components: K.

    Source:
        Figurnov, Mohamed & Mnih 2018, arXiv:1805.08498, for the gradient.

    Example:
        >>> head = MixtureHead(2)
        >>> x = torch.linspace(-9, 9, 2001)
        >>> round(head.log_prob(x, torch.zeros(2001, head.size)).exp().sum().item() * 18 / 2000, 4)
        1.0
    """

    reparametrised = True

    def __init__(self, components: int = 4) -> None:
        require(components >= 1, "a mixture needs one component or more", components)
        self.components = components
        self.size = 3 * components
        share = (torch.arange(components, dtype=torch.float64) + 0.5) / components
        self._places = torch.special.ndtri(share)
        self._log_width = 0.5 * math.log(1 - float(self._places.square().mean()))

    def mirrored(self, theta: Tensor, of_minus: Tensor) -> Tensor:
        """Component k of the law of an input is K - 1 - k of that of minus it, with its place turned over."""
        (w, m, s), (w_, m_, s_) = (t.chunk(3, dim=-1) for t in (theta, of_minus))
        return torch.cat([(w + w_.flip(-1)) / 2, (m - m_.flip(-1)) / 2, (s + s_.flip(-1)) / 2], -1)

    def draw(self, theta: Float[Tensor, "*sites theta"], *, generator: torch.Generator) -> Draw:
        """A value and its log density for each theta; gradients pass."""
        log_w, m, log_s = self._parts(theta)
        with torch.no_grad():
            shape = theta.shape[:-1]
            u = torch.rand(shape, generator=generator, dtype=theta.dtype, device=theta.device)
            below = log_w.exp().cumsum(-1)[..., :-1] < u[..., None]
            chosen = below.sum(-1, keepdim=True)
            z = torch.randn(shape, generator=generator, dtype=theta.dtype, device=theta.device)
            x = m.gather(-1, chosen)[..., 0] + log_s.gather(-1, chosen)[..., 0].exp() * z
        if theta.requires_grad:
            share = (log_w.exp() * torch.special.ndtr((x[..., None] - m) / log_s.exp())).sum(-1)
            # The value stays x; only its gradient is that of the quantile function.
            x = x - (share - share.detach()) * (-self.log_prob(x, theta.detach())).exp()
        return Draw(x, self.log_prob(x, theta))

    def log_prob(self, value: Float[Tensor, "*sites"], theta: Float[Tensor, "*sites theta"]) -> Tensor:
        """Log density of each value."""
        log_w, m, log_s = self._parts(theta)
        z = (value[..., None] - m) * (-log_s).exp()
        return torch.logsumexp(log_w - log_s - 0.5 * (z**2 + _LOG_2PI), dim=-1)

    def _parts(self, theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log weights, places and log widths of the components."""
        w, m, s = theta.chunk(3, dim=-1)
        return w.log_softmax(-1), m + self._places.to(theta), self._log_width + 4 * torch.tanh(s / 4)
