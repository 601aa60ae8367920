"""White noise: the law of details that a learned step has already bent into nothing."""

import math

import torch
from torch import Tensor

from renorm.cascade.conditional import CascadeConditional, Draw

__all__ = ["WhiteNoise"]


class WhiteNoise(CascadeConditional):
    r"""Independent normal numbers, whatever the coarse field: $\ln p(y \mid c) = -\tfrac12\sum_i(y_i^2 + \ln 2\pi)$.

    Under learned steps it makes a cascade a normalizing flow, with latents scale by scale.

    Args:
        channels: Of the detail.
        sites: Of the detail where there is no coarse field to say it, at the top.

    Example:
        >>> law = WhiteNoise(1, sites=(2, 2))
        >>> round(law.log_prob(torch.zeros(1, 1, 2, 2), torch.empty(1, 0)).item(), 4)  # -2 ln 2 pi
        -3.6758
    """

    def __init__(self, channels: int, sites: tuple[int, ...] | None = None) -> None:
        super().__init__()
        self.channels, self.sites = channels, sites

    def draw(self, coarse: Tensor, *, generator: torch.Generator) -> Draw:
        """One detail for each coarse field, and its log density."""
        sites = tuple(coarse.shape[2:]) if self.sites is None else self.sites
        shape = (len(coarse), self.channels, *sites)
        value = torch.randn(shape, generator=generator, dtype=coarse.dtype, device=coarse.device)
        return Draw(value, self.log_prob(value, coarse))

    def log_prob(self, detail: Tensor, coarse: Tensor) -> Tensor:
        """Log density of each detail, in nats."""
        return -0.5 * (detail.square() + math.log(2 * math.pi)).flatten(1).sum(1)
