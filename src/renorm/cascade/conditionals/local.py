"""A learned conditional: details one sublattice after the other, each site by a law that a local network says."""

import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from renorm.cascade.conditional import CascadeConditional, Draw
from renorm.cascade.conditionals.heads import Head
from renorm.nn.patch import PatchNet
from renorm.spec import require

__all__ = ["LocalConditional", "SiteTop", "sublattices"]

Place = tuple[slice | int, ...]
"""Where in a detail a part stands: an index of the whole tensor."""


def sublattices(shape: tuple[int, ...], period: int) -> list[tuple[int, ...]]:
    r"""First sites of the sublattices of spacing ``period``, those far from each other first.

    With period 2 in two dimensions these are four lattices: (0, 0), (1, 1), (0, 1), (1, 0). Axes shorter than the
    period have fewer.

    Example:
        >>> sublattices((4, 4), 2)
        [(0, 0), (1, 1), (0, 1), (1, 0)]
        >>> sublattices((1, 4), 2)
        [(0, 0), (0, 1)]
    """
    return sorted(itertools.product(*(range(min(n, period)) for n in shape)), key=lambda c: (sum(c) % 2, c))


class LocalConditional(CascadeConditional):
    r"""Details drawn part by part; a part is one channel on one sublattice, its sites independent given the rest.

    $$ p(y \mid c) = \prod_{j} \prod_{i \in j} p\big(y_i \mid \theta_{ji}(c, y_{<j})\big) $$

    $\theta_j$ is a small network of the sites around i, so the law is local and serves lattices of any size. With
    ``symmetric`` the law turns over with the field, $p(-y \mid -c) = p(y \mid c)$, by construction.

    Args:
        dim: Axes of the lattice.
        channels: Of the coarse field.
        details: Channels of the detail.
        head: Law of one site.
        period: Spacing of a sublattice; a larger one has more parts, and is more exact.
        radius: How far a site sees on each axis, in sites of the coarse lattice.
        width, layers: Of the networks.
        symmetric: Whether the law is symmetric under $\phi \to -\phi$.

    Example:
        >>> from renorm.cascade.conditionals.heads import SplineHead
        >>> law = LocalConditional(1, 1, 1, SplineHead(bins=4))
        >>> draw = law.draw(torch.ones(3, 1, 4), generator=torch.Generator().manual_seed(0))
        >>> torch.allclose(law.log_prob(draw.value, torch.ones(3, 1, 4)), draw.log_prob, atol=1e-5)
        True
    """

    def __init__(
        self,
        dim: int,
        channels: int,
        details: int,
        head: Head,
        *,
        period: int = 2,
        radius: int = 2,
        width: int = 32,
        layers: int = 2,
        symmetric: bool = True,
    ) -> None:
        super().__init__()
        require(period >= 1, "period must be >= 1", period)
        self.dim, self.details, self.head, self.period, self.symmetric = dim, details, head, period, symmetric
        self.reparametrised = head.reparametrised
        places = sublattices((period,) * dim, period)
        # Keyed by place, not by number: lattices shorter than the period use some of them.
        self.nets = nn.ModuleDict(
            {
                _name(place, channel): PatchNet(
                    dim, channels + details, head.size, radius=radius, width=width, layers=layers
                )
                for place in places
                for channel in range(details)
            }
        )

    def draw(self, coarse: Tensor, *, generator: torch.Generator) -> Draw:
        """One detail for each coarse field, and its log density."""
        return self._each_part(coarse, lambda theta, _: self.head.draw(theta, generator=generator))

    def log_prob(self, detail: Tensor, coarse: Tensor) -> Tensor:
        """Log density of each detail given its coarse field, in nats."""

        def weigh(theta: Tensor, part: Place) -> Draw:
            value = detail[part]
            return Draw(value, self.head.log_prob(value, theta))

        return self._each_part(coarse, weigh).log_prob

    def _each_part(self, coarse: Tensor, law: Callable[[Tensor, Place], Draw]) -> Draw:
        shape = tuple(coarse.shape[2:])
        detail = coarse.new_zeros(len(coarse), self.details, *shape)
        total = coarse.new_zeros(len(coarse))
        for place in sublattices(shape, self.period):
            for channel in range(self.details):
                theta = self._theta(self.nets[_name(place, channel)], torch.cat([coarse, detail], 1), place)
                part: Place = (slice(None), channel, *(slice(first, None, self.period) for first in place))
                value, log_prob = law(theta, part)
                detail = detail.clone()  # what earlier parts were told must stay as it was for the gradient
                detail[part] = value
                total = total + log_prob.flatten(1).sum(1)
        return Draw(detail, total)

    def _theta(self, net: nn.Module, known: Tensor, place: tuple[int, ...]) -> Tensor:
        if not self.symmetric:
            return net(known, place, self.period).movedim(1, -1)  # type: ignore[no-any-return]
        both = net(torch.cat([known, -known]), place, self.period).movedim(1, -1)
        return self.head.mirrored(*both.chunk(2))


def _name(place: tuple[int, ...], channel: int) -> str:
    return "_".join(map(str, (*place, channel)))


class SiteTop(CascadeConditional):
    """The coarsest field, its sites and channels independent, all by one learned law.

    Args:
        event_shape: (channel, *sites) of the coarsest field.
        head: Law of one site.
        symmetric: Whether the law is symmetric.
    """

    def __init__(self, event_shape: tuple[int, ...], head: Head, *, symmetric: bool = True) -> None:
        super().__init__()
        self.event_shape, self.head, self.symmetric = tuple(event_shape), head, symmetric
        self.reparametrised = head.reparametrised
        self.theta = nn.Parameter(torch.zeros(head.size))

    def draw(self, coarse: Tensor, *, generator: torch.Generator) -> Draw:
        """As many fields as ``coarse`` has rows, and their log density."""
        value, log_prob = self.head.draw(self._theta(len(coarse)), generator=generator)
        return Draw(value, log_prob.flatten(1).sum(1))

    def log_prob(self, detail: Tensor, coarse: Tensor) -> Tensor:
        """Nats of each field."""
        return self.head.log_prob(detail, self._theta(len(detail))).flatten(1).sum(1)

    def _theta(self, num: int) -> Tensor:
        theta = self.head.mirrored(self.theta, self.theta) if self.symmetric else self.theta
        return theta.expand(num, *self.event_shape, self.head.size)
