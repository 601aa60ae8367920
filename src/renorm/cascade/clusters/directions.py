"""Vectors whose direction and length have a law: von Mises-Fisher around an axis, lognormal along it."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from renorm.errors import DataError, RecipeError

__all__ = ["direction_log_prob", "draw_directions", "draw_vectors", "vector_log_prob"]

_LOG_2PI = math.log(2 * math.pi)
SHARPEST = 2e4  # beyond, float32 rounds what a direction differs from its axis
EVEN = 0.5  # concentration below which even angles make the better envelope


def direction_log_prob(u: Float[Tensor, "*batch dim"], eta: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch"]:
    r"""Log density of unit vectors under the von Mises-Fisher law, on the circle or the sphere.

    $$ p(u) = C(|\eta|)\, e^{\eta\cdot u}, \qquad C(\kappa) = \frac{1}{2\pi I_0(\kappa)}\ (d = 2), \quad
       \frac{\kappa}{4\pi\sinh\kappa}\ (d = 3) $$

    Raises:
        RecipeError: If there are not two or three components.

    Example:
        >>> u = torch.tensor([0.0, 0.0, 1.0])
        >>> round(direction_log_prob(u, torch.zeros(3)).exp().item() * 4 * math.pi, 5)
        1.0
    """
    dim = eta.shape[-1]
    kappa = (eta.square().sum(-1) + 1e-12).sqrt()
    along = (eta * u).sum(-1)
    if dim == 2:
        return along - kappa - torch.special.i0e(kappa).log() - _LOG_2PI
    if dim == 3:
        return along - kappa - _LOG_2PI + kappa.log() - torch.log(-torch.expm1(-2 * kappa))
    raise RecipeError(f"directions are those of a plane or of space, got {dim} components")


def draw_directions(eta: Float[Tensor, "batch dim"], *, generator: torch.Generator) -> Float[Tensor, "batch dim"]:
    r"""Unit vectors from von Mises-Fisher laws; exact.

    In space by inversion of the law of $w = \eta\cdot u/\kappa$, whose density is $\propto e^{\kappa w}$ on [-1, 1]; in
    a plane by rejection.

    Raises:
        DataError: If an axis is not finite, or its concentration is above ``SHARPEST``.

    Source:
        Best & Fisher 1979, Appl. Stat. 28, 152, in a plane.

    Example:
        >>> u = draw_directions(torch.tensor([[50.0, 0.0]]), generator=torch.Generator().manual_seed(0))
        >>> bool(u[0, 0] > 0.9), round(u.norm().item(), 5)
        (True, 1.0)
    """
    kappa = eta.norm(dim=-1)
    if not bool((kappa <= SHARPEST).all()):
        raise DataError(f"concentrations must be finite and <= {SHARPEST:g} (rounding), got {float(kappa.max()):g}")
    if eta.shape[-1] == 2:
        angle = _von_mises(kappa, generator)
        base = torch.atan2(eta[:, 1], eta[:, 0])
        return torch.stack([(base + angle).cos(), (base + angle).sin()], -1)
    uniform, turn = torch.rand(2, len(eta), generator=generator, dtype=eta.dtype, device=eta.device)
    safe = kappa.clamp(min=1e-4)
    w = 1 + torch.log(uniform + (1 - uniform) * (-2 * safe).exp()) / safe
    w = torch.where(kappa > 1e-4, w, 2 * uniform - 1).clamp(-1, 1)
    axis = torch.where(kappa[:, None] > 1e-12, eta / kappa[:, None].clamp(min=1e-12), eta.new_tensor([0.0, 0.0, 1.0]))
    spare = torch.nn.functional.one_hot(axis.abs().argmin(-1), 3).to(axis)
    second = torch.nn.functional.normalize(spare - (axis * spare).sum(-1, keepdim=True) * axis, dim=-1)
    third = torch.linalg.cross(axis, second)
    angle, radius = 2 * math.pi * turn, (1 - w.square()).clamp(min=0).sqrt()
    return w[:, None] * axis + radius[:, None] * (angle.cos()[:, None] * second + angle.sin()[:, None] * third)


def vector_log_prob(
    v: Float[Tensor, "*batch dim"],
    eta: Float[Tensor, "*batch dim"],
    centre: Float[Tensor, "*batch"],
    log_width: Float[Tensor, "*batch"],
) -> Float[Tensor, "*batch"]:
    r"""Log density of vectors of a direction and a length that are independent.

    $$ p(v) = r^{-d}\, p(u; \eta)\, \mathcal{N}(\ln r;\ \mu, \sigma^2), \qquad v = r u $$

    Args:
        v: Not zero.
        eta: Axis times concentration.
        centre: $\mu$.
        log_width: $\ln\sigma$.
    """
    r = (v.square().sum(-1) + 1e-12).sqrt()
    z = (r.log() - centre) * (-log_width).exp()
    long = -0.5 * (z.square() + _LOG_2PI) - log_width
    return direction_log_prob(v / r[..., None], eta) + long - v.shape[-1] * r.log()


def draw_vectors(
    eta: Float[Tensor, "batch dim"],
    centre: Float[Tensor, " batch"],
    log_width: Float[Tensor, " batch"],
    *,
    generator: torch.Generator,
) -> Float[Tensor, "batch dim"]:
    """One vector from each law of ``vector_log_prob``."""
    noise = torch.randn(centre.shape, generator=generator, dtype=eta.dtype, device=eta.device)
    length = (centre + log_width.exp() * noise).exp()
    return draw_directions(eta, generator=generator) * length[:, None]


def _von_mises(kappa: Tensor, generator: torch.Generator) -> Tensor:
    """Angles about 0, by rejection: from a wrapped Cauchy law, or from even angles where the law is nearly even."""
    tau = 1 + (1 + 4 * kappa.square()).sqrt()
    rho = (tau - (2 * tau).sqrt()) / (2 * kappa.clamp(min=EVEN))
    rim = (1 + rho.square()) / (2 * rho.clamp(min=1e-6))
    out, open_ = torch.zeros_like(kappa), torch.arange(len(kappa), device=kappa.device)
    while len(open_):
        a, b, side = torch.rand(3, len(open_), generator=generator, dtype=kappa.dtype, device=kappa.device)
        k, edge = kappa[open_], rim[open_]
        z = (math.pi * a).cos()
        f = ((1 + edge * z) / (edge + z)).clamp(-1, 1)
        c = k * (edge - f)
        sharp = (c / b).log() + 1 - c >= 0
        nearly_even = b < (k * (z - 1)).exp()
        angle = torch.where(k < EVEN, math.pi * a, f.arccos())
        kept = torch.where(k < EVEN, nearly_even, sharp)
        out[open_[kept]] = ((side - 0.5).sign() * angle)[kept]
        open_ = open_[~kept]
    return out
