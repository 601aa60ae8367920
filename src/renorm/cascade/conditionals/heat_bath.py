r"""Heat baths: with nearest neighbours alone every second site can be drawn, and integrated out, exactly."""

from collections.abc import Callable

import torch
from torch import Tensor

from renorm.cascade.conditional import CascadeConditional, Draw
from renorm.cascade.conditionals.site_laws import SiteLaw
from renorm.coarse.checkerboard import odd_neighbours

__all__ = ["EvenAction", "HeatBath"]

Neighbours = Callable[[Tensor], Tensor]
"""Coarse fields (batch, channel, *sites) to the neighbours of each detail, (batch, details, neighbours, *sites)."""


class HeatBath(CascadeConditional):
    r"""The exact law of the odd sites of a checkerboard given the even ones.

    $$ p(\phi_o \mid \phi_e) = \prod_o \frac{e^{J h_o \phi_o - V(\phi_o)}}{I(h_o)}, \qquad
       h_o = \sum_{e \sim o} \phi_e $$

    Args:
        site: The law of one site.
        neighbours: Coarse sites next to every site of the detail: those of a checkerboard, or of a ring.

    Example: spins without coupling.
        >>> from renorm.cascade.conditionals.site_laws import IsingSite
        >>> HeatBath(IsingSite(0.0)).log_prob(torch.ones(1, 2, 2, 2), torch.ones(1, 2, 2, 2)).exp().item()
        0.00390625
    """

    reparametrised = False

    def __init__(self, site: SiteLaw, neighbours: Neighbours = odd_neighbours) -> None:
        super().__init__()
        self.site, self.neighbours = site, neighbours

    def draw(self, coarse: Tensor, *, generator: torch.Generator) -> Draw:
        """The odd sites, and their log density."""
        value, log_prob = self.site.draw(self.neighbours(coarse).sum(2), generator=generator)
        return Draw(value, log_prob.flatten(1).sum(1))

    def log_prob(self, detail: Tensor, coarse: Tensor) -> Tensor:
        """Nats of the odd sites given the even ones."""
        return self.site.log_prob(detail, self.neighbours(coarse).sum(2)).flatten(1).sum(1)


class EvenAction:
    r"""What is left of the action when the odd sites are integrated out: exact, half the sites.

    $$ S'(\phi_e) = \sum_e V(\phi_e) - \sum_o \ln I(h_o), \qquad \int d\phi_e\, e^{-S'} = Z $$

    Args:
        site: The law of one site.
        neighbours: As of ``HeatBath``.

    Example: two by two spins without coupling have Z = 2^4.
        >>> from renorm.cascade.conditionals.site_laws import IsingSite
        >>> even = EvenAction(IsingSite(0.0))
        >>> round(4 * (-even(torch.ones(1, 2, 1, 1))).exp().item(), 4)
        16.0
    """

    def __init__(self, site: SiteLaw, neighbours: Neighbours = odd_neighbours) -> None:
        self.site, self.neighbours = site, neighbours

    def __call__(self, even: Tensor) -> Tensor:
        """S' of even sites, (batch, 2, height / 2, width / 2) or (batch, 1, sites / 2), in nats."""
        h = self.neighbours(even).sum(2)
        return self.site.potential(even).flatten(1).sum(1) - self.site.log_normaliser(h).flatten(1).sum(1)
