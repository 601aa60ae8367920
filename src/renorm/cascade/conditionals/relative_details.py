"""Details of a density, which is positive: how each block's content is shared out between its halves."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from renorm.cascade.conditional import CascadeConditional, Draw
from renorm.errors import DataError
from renorm.spec import require

__all__ = ["RelativeDetails"]

FLOOR = 1e-3
"""Density below which a coarse site counts as this dense: the topmost draw may stray below zero."""


class RelativeDetails(CascadeConditional):
    r"""A law of Haar details of a contrast $\delta$ whose density $1 + \delta$ is positive, and stays so in every draw.

    A block of $2^d$ densities is halved along its first axis, each half along the second, and so on. Of a part
    with content $p$ and difference $q$ between its halves,

    $$ u = \frac qp \in (-1, 1), \qquad v = \frac{u}{\sqrt{1 - u^2}}, \qquad
       \ln p(y \mid c) = \ln p'\Big(v \,\Big|\, \tfrac{\rho - 1}{\rho + 1}, \tfrac{\rho - 1}{2\sqrt\rho}\Big)
       - \sum \ln p + \tfrac32 \sum \ln(1 + v^2) + \text{const} $$

    where $\rho$ is the block's mean density. All maps are algebraic, so the law inside needs no bounds and is told no
    outliers: a dense block differs from a thin one by its unit alone. Of halves a and b, $v = (a - b)/2\sqrt{ab} =
    \sinh\frac12\ln(a/b)$: no logarithm is taken, but where halves differ little v is close to that of their ratio.

    Args:
        law: $p'$, of as many details and of two coarse channels.
        scale: What the coarse field is where $\delta$ is 1: $2^{d/2}$ for each Haar step down to it.
        dim: Axes of the lattice.

    Example: whatever the law inside is, densities are positive.
        >>> from renorm.cascade.conditionals.heads import SplineHead
        >>> from renorm.cascade.conditionals.local import LocalConditional
        >>> from renorm.coarse.wavelet import Wavelet
        >>> law = RelativeDetails(LocalConditional(1, 2, 1, SplineHead(), symmetric=False), 2**0.5, 1)
        >>> coarse = torch.zeros(1000, 1, 2)
        >>> y, log_prob = law.draw(coarse, generator=torch.Generator().manual_seed(0))
        >>> bool((Wavelet(dim=1).merge(coarse, y) > -1).all())
        True
        >>> torch.allclose(law.log_prob(y, coarse), log_prob, atol=1e-3)
        True
    """

    def __init__(self, law: CascadeConditional, scale: float, dim: int) -> None:
        super().__init__()
        require(scale > 0 and math.isfinite(scale), "scale must be > 0 (it divides the coarse field)", scale)
        self.law, self.scale, self.dim = law, scale, dim
        self.reparametrised, self.grade = law.reparametrised, law.grade

    def standardise(
        self, detail: Float[Tensor, "batch details *sites"], coarse: Float[Tensor, "batch 1 *sites"]
    ) -> "RelativeDetails":
        """Let the law measure its own units, on shares."""
        inner = getattr(self.law, "standardise", None)
        if inner is not None:
            inner(*self.relative(detail, coarse))
        return self

    def relative(
        self, detail: Float[Tensor, "batch details *sites"], coarse: Float[Tensor, "batch 1 *sites"]
    ) -> tuple[Float[Tensor, "batch details *sites"], Float[Tensor, "batch 2 *sites"]]:
        """What the law inside is given: v of every part, and the density twice."""
        return self._shares(detail, coarse)[0], self._seen(coarse)

    def draw(self, coarse: Tensor, *, generator: torch.Generator) -> Draw:
        """One detail for each coarse field, and its log density."""
        v, log_prob = self.law.draw(self._seen(coarse), generator=generator)
        u = v * (1 + v * v).rsqrt()
        parts, volume, used = [self._content(coarse)], self._constant(coarse), 0
        for _ in range(self.dim):
            share = u[:, used : used + len(parts)].unbind(1)
            used += len(parts)
            volume = volume + sum(part.log().flatten(1).sum(1) for part in parts)
            parts = [part * (1 + s * sign) for part, s in zip(parts, share, strict=True) for sign in (1, -1)]
        block = torch.stack(parts, 1)
        detail = (_hadamard(self.dim, block)[1:] @ block.flatten(2) / 2**self.dim).unflatten(2, coarse.shape[2:])
        return Draw(detail, log_prob - volume + 1.5 * (v * v).log1p().flatten(1).sum(1))

    def log_prob(self, detail: Tensor, coarse: Tensor) -> Tensor:
        """Log density of each detail given its coarse field, in nats.

        Raises:
            DataError: If a density is not positive.
        """
        v, volume = self._shares(detail, coarse)
        return self.law.log_prob(v, self._seen(coarse)) - volume + 1.5 * (v * v).log1p().flatten(1).sum(1)

    def _shares(self, detail: Tensor, coarse: Tensor) -> tuple[Tensor, Tensor]:
        """v of every part, and the log of the volume that shares take in details."""
        bands = torch.cat([self._content(coarse)[:, None], detail], 1)
        shares, volume = [], self._constant(coarse)
        for axis in range(self.dim):
            # Bands of the axes still to be halved; those before are places.
            low, high = bands.unflatten(1, (2**axis, 2, -1)).unbind(2)
            part, difference = low[:, :, 0], high[:, :, 0]
            shares.append(difference / part)
            volume = volume + part.clamp_min(1e-30).log().flatten(1).sum(1)
            bands = torch.stack([low + high, low - high], 2).flatten(1, 3)
        u = torch.cat(shares, 1)
        if bool((u.abs() > 1 + 1e-4).any()):
            raise DataError(f"contrasts must be > -1 (a density is positive), got {float(bands.min()) - 1:.3g} or so")
        most = 1 - 4 * torch.finfo(u.dtype).eps  # an empty half, to rounding
        u = u.clamp(-most, most)
        return u * (1 - u * u).rsqrt(), volume

    def _content(self, coarse: Tensor) -> Tensor:
        return (coarse[:, 0] + self.scale).clamp_min(FLOOR * self.scale)

    def _seen(self, coarse: Tensor) -> Tensor:
        density = self._content(coarse)[:, None] / self.scale
        return torch.cat([(density - 1) / (density + 1), (density - 1) / (2 * density.sqrt())], 1)

    def _constant(self, coarse: Tensor) -> Tensor:
        """Differences of parts are sums of details: less the log determinant of these sums."""
        each = sum(2**axis * axis for axis in range(self.dim)) / 2 * math.log(2)
        return coarse.new_full((len(coarse),), -each * coarse[0, 0].numel())


def _hadamard(dim: int, like: Tensor) -> Tensor:
    pair = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=like.dtype, device=like.device)
    matrix = pair
    for _ in range(dim - 1):
        matrix = torch.kron(matrix, pair)
    return matrix
