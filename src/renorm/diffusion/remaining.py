r"""What a trained denoiser leaves open, beside what Gaussian data of the same spectrum would: measured, not assumed."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from renorm.spec import require

__all__ = ["Look", "RemainingError"]

LOWEST, HIGHEST = -6.0, 8.0  # ln of the signal-to-noise ratio: below and above, the outermost bins are taken
ENOUGH = 20  # modes in a bin, for its mean to count


class Look(NamedTuple):
    r"""Modes of one field at one scale.

    Attributes:
        t: The scale, 0 to 1.
        log_ratio: $\ln(\alpha^2 P/\sigma^2)$ of each mode.
        share: Square of the denoiser's error over the variance of the Gaussian posterior.
    """

    t: float
    log_ratio: Float[Tensor, " modes"]
    share: Float[Tensor, " modes"]


@dataclass(frozen=True, eq=False)
class RemainingError:
    r"""The mean square error of a denoiser in units of the Gaussian one, by scale and by signal-to-noise ratio.

    $$ \rho(t, x) = \Big\langle\frac{|\phi_{0k} - D_k(\phi_t, t)|^2}{P_k\sigma_k^2/(\alpha_k^2P_k + \sigma_k^2)}
       \Big\rangle_{\ln(\alpha_k^2 P_k/\sigma_k^2) = x} $$

    It is 1 for Gaussian data and their exact denoiser, and less where other modes tell what a mode is: bonds are rigid.

    Args:
        share: $\rho$ at even scales from 0 to 1, in even bins of x from -6 to 8.

    Source:
        Bao, Li, Sun, Zhu & Zhang 2022, arXiv:2206.07309, for each component by a network of its own; here a table of
        scales and kinds of modes.

    Example:
        >>> half = RemainingError(torch.full((3, 4), 0.5, dtype=torch.float64))
        >>> half.at(0.3, torch.tensor([-9.0, 0.0, 9.0])).tolist()
        [0.5, 0.5, 0.5]
    """

    share: Float64[Tensor, "scales ratios"]

    def __post_init__(self) -> None:
        sound = self.share.isfinite() & (self.share >= 0)
        require(bool(sound.all()), "shares must be >= 0 and finite", self.share[~sound][:1].tolist())
        shape = tuple(self.share.shape)
        require(len(shape) == 2 and shape[0] >= 2, "shares are needed at 2 scales at least, a row each", shape)

    def at(self, t: float, log_ratio: Float[Tensor, " modes"]) -> Float[Tensor, " modes"]:
        r"""$\rho$ of modes at a scale, linear between the scales that were measured."""
        table = self.share.to(log_ratio.device)
        place = min(max(t, 0.0), 1.0) * (len(table) - 1)
        below = min(int(place), len(table) - 2)
        bins = _bins(log_ratio, table.shape[1])
        return torch.lerp(table[below][bins], table[below + 1][bins], place - below).to(log_ratio)

    @classmethod
    def measured(cls, looks: Iterable[Look], *, scales: int, ratios: int = 12) -> "RemainingError":
        """Means over looks at the even scales; a bin of few modes takes the nearest one that has enough.

        Where a scale has none, it takes that of the next finer scale, and 1 if there is none.
        """
        total = torch.zeros(scales, ratios, dtype=torch.float64)
        count = torch.zeros_like(total)
        for look in looks:
            row, bins = round(look.t * (scales - 1)), _bins(look.log_ratio, ratios).cpu()
            total[row].index_add_(0, bins, look.share.double().cpu())
            count[row].index_add_(0, bins, torch.ones(len(bins), dtype=torch.float64))
        share = torch.ones_like(total)
        for row in range(scales):
            known = (count[row] >= ENOUGH).nonzero()[:, 0]
            if len(known):
                nearest = known[(torch.arange(ratios)[:, None] - known).abs().argmin(1)]
                share[row] = total[row, nearest] / count[row, nearest]
            elif row:
                share[row] = share[row - 1]
        return cls(share)


def _bins(log_ratio: Tensor, number: int) -> Tensor:
    place = (log_ratio.double() - LOWEST) / (HIGHEST - LOWEST) * number
    return place.nan_to_num(0.0).clamp(0, number - 1).long()
