"""Numbers bent one to one by rational-quadratic splines whose knots a network says; all that bends shares them."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from renorm.spec import require

__all__ = ["Bend", "Knots", "unit_knots"]

NARROW = 1e-3  # least width, height and slope of a piece of a spline on [0, 1]


class Bend:
    r"""A number moved, stretched and bent: $z = f_\theta\big((y - \mu)\,e^{-s}\big)$.

    f is a monotone rational-quadratic spline of ``bins`` pieces on $[-b, b]$ and the identity outside; without bins it
    is the identity (an affine bend). s stays within $\pm 4$, so that an untrained network cannot run away along a chain
    of draws. At theta = 0 the bend is the identity.

    Args:
        bins: Pieces of the spline, 2 or more; 0: none.
        bound: b.

    Attributes:
        size: Of theta, its last axis.

    Raises:
        ValueError: If a value is out of range.

    Source:
        Durkan et al. 2019, arXiv:1906.04032; zuko's ``MonotonicRQSTransform`` is the spline.

    Example:
        >>> bend, theta = Bend(bins=4), torch.full((1, 13), 0.3)
        >>> z, log_slope = bend.forward(torch.tensor([2.0]), theta)
        >>> y, same = bend.inverse(z, theta)
        >>> round(y.item(), 5), round(log_slope.item() - same.item(), 5)
        (2.0, 0.0)
    """

    def __init__(self, bins: int = 8, bound: float = 4.0) -> None:
        require(bins == 0 or bins >= 2, "bins must be >= 2 (one piece bends nothing), or 0 for none", bins)
        require(bound > 0, "bound must be > 0 (a spline bends between -bound and bound)", bound)
        self.bins, self.bound = bins, bound
        self.size = 2 + (3 * bins - 1 if bins else 0)

    def parts(self, theta: Float[Tensor, "*sites theta"]) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Shift, log scale within 4, and the spline's knots."""
        scale = 4 * torch.tanh(theta[..., 1] / 4)
        k = self.bins
        return theta[..., 0], scale, list(theta[..., 2:].split([k, k, k - 1], dim=-1)) if k else []

    def mirrored(self, theta: Tensor, of_minus: Tensor) -> Tensor:
        r"""Theta such that the bend turns over when its input does, from those of an input and of minus it.

        $\mu$ is odd, s even, the spline's knots reflected: $f_{\theta(-u)}(-z) = -f_{\theta(u)}(z)$.
        """
        k = self.bins
        moved = [(theta[..., :1] - of_minus[..., :1]) / 2, (theta[..., 1:2] + of_minus[..., 1:2]) / 2]
        if not k:
            return torch.cat(moved, -1)
        pairs = zip(*(t[..., 2:].split([k, k, k - 1], dim=-1) for t in (theta, of_minus)), strict=True)
        return torch.cat([*moved, *((a + b.flip(-1)) / 2 for a, b in pairs)], -1)

    def forward(self, y: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        """z, and ln dz/dy."""
        shift, scale, knots = self.parts(theta)
        z, log_slope = self.spline((y - shift) * (-scale).exp(), knots)
        return z, log_slope - scale

    def inverse(self, z: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        """y, and ln dz/dy there."""
        shift, scale, knots = self.parts(theta)
        u, log_slope = self.spline(z, knots, inverse=True)
        return shift + scale.exp() * u, log_slope - scale

    def spline(self, value: Tensor, knots: list[Tensor], *, inverse: bool = False) -> tuple[Tensor, Tensor]:
        """f of a value, or the place where f has it; in both cases with the log of f's slope there."""
        if not self.bins:
            return value, torch.zeros_like(value)
        from zuko.transforms import MonotonicRQSTransform  # costs a second

        transform = MonotonicRQSTransform(*knots, bound=self.bound)
        if not inverse:
            return transform.call_and_ladj(value)  # type: ignore[no-any-return]
        place = transform._inverse(value)
        return place, transform.call_and_ladj(place)[1]


class Knots(NamedTuple):
    """Of a spline from [0, 1] to itself, free at its ends, which those of zuko are not.

    Attributes:
        x: Ends of its pieces (..., bins + 1).
        y: Their images.
        slope: At each end.
    """

    x: Tensor
    y: Tensor
    slope: Tensor

    def log_slope(self, value: Float[Tensor, "*rows"]) -> Float[Tensor, "*rows"]:
        """Of the monotone rational-quadratic spline (Gregory & Delbourgo 1982), at a place."""
        x0, width, _, height, d0, d1 = self._piece(self.x, value)
        steep, t = height / width, ((value - x0) / width).clamp(0, 1)
        bend = t * (1 - t)
        slope = d1 * t.square() + 2 * steep * bend + d0 * (1 - t).square()
        return 2 * steep.log() + slope.log() - 2 * (steep + (d1 + d0 - 2 * steep) * bend).log()

    def where(self, value: Float[Tensor, "*rows"]) -> Float[Tensor, "*rows"]:
        """Where the spline has this value."""
        x0, width, y0, height, d0, d1 = self._piece(self.y, value)
        steep, rise = height / width, value - y0
        both = d1 + d0 - 2 * steep
        a, b, c = height * (steep - d0) + rise * both, height * d0 - rise * both, -steep * rise
        root = (b.square() - 4 * a * c).clamp(min=0).sqrt()
        return x0 + width * (2 * c / (-b - root)).clamp(0, 1)

    def _piece(self, ends: Tensor, value: Tensor) -> tuple[Tensor, ...]:
        """The piece in which a value lies: first end, width, first image, height, slopes at its ends."""
        k = torch.searchsorted(ends.contiguous(), value[..., None].contiguous()) - 1
        k = k.clamp(0, ends.shape[-1] - 2)
        x0, x1, y0, y1, d0, d1 = (part.gather(-1, k + j)[..., 0] for part in self for j in (0, 1))
        return x0, x1 - x0, y0, y1 - y0, d0, d1


def unit_knots(theta: Float[Tensor, "*rows theta"]) -> Knots:
    """Knots from 3 bins + 1 numbers: shares of width, shares of height, slopes; at 0 the spline is the identity.

    Example: a seventh number, of two pieces, is the slope at 1.
        >>> knots = unit_knots(torch.zeros(7))
        >>> round(knots.where(torch.tensor(0.3)).item(), 3), abs(knots.log_slope(torch.tensor(0.3)).item()) < 0.01
        (0.3, True)
    """
    bins = (theta.shape[-1] - 1) // 3
    require(theta.shape[-1] == 3 * bins + 1 and 2 <= bins < 1 / NARROW, "theta has 3 bins + 1 numbers", theta.shape[-1])
    widths, heights, slopes = theta.split([bins, bins, bins + 1], -1)

    def ends(raw: Tensor) -> Tensor:
        shares = NARROW + (1 - NARROW * bins) * raw.softmax(-1)
        inner = shares.cumsum(-1)[..., :-1]
        return torch.cat([torch.zeros_like(raw[..., :1]), inner, torch.ones_like(raw[..., :1])], -1)

    return Knots(ends(widths), ends(heights), NARROW + functional.softplus(slopes + math.log(math.e - 1)))
