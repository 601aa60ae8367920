"""Details and coarse fields in units of their own spread, so that every level looks alike to what learns it."""

import torch
from jaxtyping import Float
from torch import Tensor

from renorm.cascade.conditional import CascadeConditional, Draw

__all__ = ["Standardised", "columns", "units_of"]


class Standardised(CascadeConditional):
    r"""A law of standardised details given standardised coarse fields, channel by channel.

    $$ \ln p(y \mid c) = \ln p'\Big(\frac{y - \mu}{\sigma} \,\Big|\, \frac{c - \mu_c}{\sigma_c}\Big)
       - \sum_i \ln \sigma_i $$

    Centres are 0 and spreads 1 until ``standardise`` measures them.

    Args:
        law: $p'$.
        channels: Of the coarse field.
        details: Channels of the detail.
        symmetric: Whether the centres stay at 0, so that a symmetric law stays one.

    Example:
        >>> from renorm.cascade.conditionals.heads import SplineHead
        >>> from renorm.cascade.conditionals.local import SiteTop
        >>> x = torch.tensor([[[3.0]], [[-3.0]]])
        >>> law = Standardised(SiteTop((1, 1), SplineHead()), 0, 1).standardise(x, torch.empty(2, 0))
        >>> law.spread.item(), round(law.log_prob(torch.zeros(1, 1, 1), torch.empty(1, 0)).exp().item(), 4)
        (3.0, 0.133)
    """

    coarse_centre: Tensor
    coarse_spread: Tensor
    centre: Tensor
    spread: Tensor

    def __init__(self, law: CascadeConditional, channels: int, details: int, *, symmetric: bool = True) -> None:
        super().__init__()
        self.law, self.symmetric = law, symmetric
        self.reparametrised, self.grade = law.reparametrised, law.grade
        for name, number in (("coarse_", channels), ("", details)):
            self.register_buffer(f"{name}centre", torch.zeros(number))
            self.register_buffer(f"{name}spread", torch.ones(number))

    @torch.no_grad()
    def standardise(
        self, detail: Float[Tensor, "batch details *sites"], coarse: Float[Tensor, "batch *rest"]
    ) -> "Standardised":
        """Measure centres and spreads on samples; a channel that never moves keeps its spread of 1."""
        for name, x in (("coarse_", coarse), ("", detail)):
            if x.ndim < 3:
                continue
            centre, spread = units_of(x, symmetric=self.symmetric)
            getattr(self, f"{name}centre").copy_(centre)
            getattr(self, f"{name}spread").copy_(spread)
        return self

    def draw(self, coarse: Tensor, *, generator: torch.Generator) -> Draw:
        """One detail for each coarse field, and its log density."""
        value, log_prob = self.law.draw(self._seen(coarse), generator=generator)
        return Draw(value * columns(self.spread, value) + columns(self.centre, value), log_prob - self._volume(value))

    def log_prob(self, detail: Tensor, coarse: Tensor) -> Tensor:
        """Log density of each detail given its coarse field, in nats."""
        inner = (detail - columns(self.centre, detail)) / columns(self.spread, detail)
        return self.law.log_prob(inner, self._seen(coarse)) - self._volume(detail)

    def _seen(self, coarse: Tensor) -> Tensor:
        if coarse.ndim < 3:  # the top of a cascade is told nothing
            return coarse
        return (coarse - columns(self.coarse_centre, coarse)) / columns(self.coarse_spread, coarse)

    def _volume(self, detail: Tensor) -> Tensor:
        return self.spread.log().sum() * detail[0, 0].numel()


def units_of(
    x: Float[Tensor, "batch channel *sites"], *, symmetric: bool
) -> tuple[Float[Tensor, " channel"], Float[Tensor, " channel"]]:
    r"""Centre $\mu$ and spread $\sigma = \sqrt{\langle (x - \mu)^2 \rangle}$ of each channel, over batch and sites.

    Args:
        x: Samples.
        symmetric: Whether the centres are 0 by symmetry; else they are means.

    Returns:
        Centres, and spreads: 1 for a channel that never moves.

    Example:
        >>> centre, spread = units_of(torch.tensor([[[1.0, 5.0], [2.0, 2.0]]]), symmetric=False)
        >>> centre.tolist(), spread.tolist()
        ([3.0, 2.0], [2.0, 1.0])
    """
    rows = x.transpose(0, 1).flatten(1)
    centre = torch.zeros_like(rows[:, 0]) if symmetric else rows.mean(1)
    spread = (rows - centre[:, None]).square().mean(1).sqrt()
    return centre, torch.where(spread > 0, spread, 1.0)


def columns(of_channels: Float[Tensor, " channel"], like: Float[Tensor, "batch channel *sites"]) -> Tensor:
    """One number for each channel, shaped so that it meets all the sites of fields.

    Example:
        >>> columns(torch.ones(3), torch.zeros(5, 3, 4, 4)).shape
        torch.Size([3, 1, 1])
    """
    return of_channels.to(like).reshape(-1, *[1] * (like.ndim - 2))
