"""Coupling flows: details bent from white noise, layer by layer, given the coarse field and what a layer leaves."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from renorm.cascade.conditional import CascadeConditional, Draw
from renorm.errors import DataError, RecipeError
from renorm.lattice import Boundary
from renorm.nn.local import LocalNet
from renorm.nn.spline import Bend
from renorm.spec import require

__all__ = ["CouplingFlow"]

_LOG_2PI = math.log(2 * math.pi)


class _Part(NamedTuple):
    """What a layer moves: these channels at the sites of one colour of a checkerboard, or (None) at all sites."""

    channels: tuple[int, ...]
    colour: int | None


class CouplingFlow(CascadeConditional):
    r"""A flow of coupling layers from white noise to details; its density is exact both ways.

    Layer j moves a part of the numbers and leaves the rest, which with the coarse field c says how:

    $$ z_i = f_{\theta}\big((y_i - \mu)\, e^{-s}\big), \quad i \in j, \qquad
       (\mu, s, \theta) = \text{net}_j(c, y_{\notin j})_i, \qquad
       \ln p(y \mid c) = \ln \mathcal{N}(z) + \sum_j \sum_{i \in j} \ln \frac{\partial z_i}{\partial y_i} $$

    f is a monotone rational-quadratic spline on $[-b, b]$ and the identity outside. A round has one layer for each
    channel of the detail, if there are several, and one for each colour of a checkerboard of the sites. With
    ``symmetric`` the flow turns over with the field, $p(-y \mid -c) = p(y \mid c)$, by construction: $\mu$ is odd,
    s even, and the knots of the spline are reflected.

    With no coarse field (``channels`` 0, and ``sites``) it is a flow of one scale, or the top of a cascade. The splines
    bend numbers of order one: wrap it in ``Standardised``, which takes the units of samples.

    Args:
        dim: Axes of the lattice.
        channels: Of the coarse field; 0 for none.
        details: Channels of the detail.
        rounds: How often each number is moved twice (once, where the detail has one channel).
        bins, bound: Of the splines.
        width, layers: Of the networks.
        dilations: Sites between the taps of a network, for one round after the other, over and over.
        symmetric: Whether the law is symmetric under $\phi \to -\phi$.
        boundary: Of the networks: ``"periodic"``, or ``"open"`` with zeros beyond the lattice.
        places: Tell the networks where they are, -1 to 1 along each axis: the law then is not the same at all sites.
        sites: Sites of the detail along each axis, where there is no coarse field to say it.

    Source:
        Dinh et al. 2017, arXiv:1605.08803; Durkan et al. 2019, arXiv:1906.04032; zuko's ``MonotonicRQSTransform``.

    Example:
        >>> flow = CouplingFlow(2, 1, 3, rounds=1)  # the three details of a wavelet; untrained, white noise
        >>> draw = flow.draw(torch.ones(5, 1, 4, 4), generator=torch.Generator().manual_seed(0))
        >>> torch.allclose(flow.log_prob(draw.value, torch.ones(5, 1, 4, 4)), draw.log_prob)
        True
    """

    def __init__(
        self,
        dim: int,
        channels: int,
        details: int,
        *,
        rounds: int = 2,
        bins: int = 8,
        bound: float = 4.0,
        width: int = 24,
        layers: int = 2,
        dilations: tuple[int, ...] = (1,),
        symmetric: bool = True,
        boundary: Boundary = "periodic",
        places: bool = False,
        sites: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__()
        require(rounds >= 1, "rounds must be >= 1 (a flow must move each number)", rounds)
        require(channels >= 0 and details >= 1, "channels must be >= 0 and details >= 1", (channels, details))
        require(len(dilations) >= 1, "dilations must name one or more", dilations)
        if sites is None and channels == 0:
            raise RecipeError("a flow without a coarse field must be told its sites (set sites), got None")
        self.dim, self.details, self.symmetric, self.places = dim, details, symmetric, places
        self.sites = None if sites is None else tuple(sites)
        require(bins >= 2, "bins must be >= 2 (one piece bends nothing)", bins)
        self.bend = Bend(bins, bound)
        every = tuple(range(details))
        alone = [_Part((c,), None) for c in every] if details > 1 else []
        self.parts = [*alone, _Part(every, 0), _Part(every, 1)] * rounds
        seen = channels + details + (dim if places else 0)
        turn = len(self.parts) // rounds
        nets = []
        for index, part in enumerate(self.parts):
            dilation = dilations[index // turn % len(dilations)]
            outputs = len(part.channels) * self.bend.size
            nets.append(LocalNet(dim, seen, outputs, width=width, layers=layers, boundary=boundary, dilation=dilation))
        self.nets = nn.ModuleList(nets)

    def draw(self, coarse: Tensor, *, generator: torch.Generator) -> Draw:
        """One detail for each coarse field, and its log density; gradients pass."""
        seen = self._seen(coarse, None)
        shape = (len(coarse), self.details, *seen.shape[2:])
        z = torch.randn(shape, generator=generator, dtype=coarse.dtype, device=coarse.device)
        log_prob = _of_noise(z)
        for index in reversed(range(len(self.parts))):
            z, log_slope = self._layer(index, z, seen, inverse=True)
            log_prob = log_prob + log_slope
        return Draw(z, log_prob)

    def log_prob(self, detail: Tensor, coarse: Tensor) -> Tensor:
        """Log density of each detail given its coarse field, in nats."""
        z, total = self.whiten(detail, coarse)
        return _of_noise(z) + total

    def whiten(self, detail: Tensor, coarse: Tensor) -> tuple[Tensor, Tensor]:
        r"""The noise z that a detail was bent from, and $\ln|\det \partial z/\partial y|$."""
        seen, z = self._seen(coarse, detail), detail
        total = z.new_zeros(len(z))
        for index in range(len(self.parts)):
            z, log_slope = self._layer(index, z, seen, inverse=False)
            total = total + log_slope
        return z, total

    def _seen(self, coarse: Tensor, detail: Tensor | None) -> Tensor:
        """What the networks see of the coarse field and the lattice."""
        if coarse.ndim == 2:  # the top of a cascade is told nothing
            sites = self.sites if detail is None else tuple(detail.shape[2:])
            assert sites is not None
            coarse = coarse.new_zeros(len(coarse), 0, *sites)
        if detail is not None and detail.shape[1] != self.details:
            raise DataError(f"details have {self.details} channel(s) here, got shape {tuple(detail.shape)}")
        return coarse

    def _layer(self, index: int, value: Tensor, seen: Tensor, *, inverse: bool) -> tuple[Tensor, Tensor]:
        """Move the part of one layer: the new values, and ln dz/dy summed over the part."""
        part, shape = self.parts[index], tuple(value.shape)
        at = _sites(shape[2:], part.colour, value.device)
        if len(at) == 0:
            return value, value.new_zeros(len(value))
        channels = torch.tensor(part.channels, device=value.device)
        moved = (channels[:, None] * value[0, 0].numel() + at).flatten()
        flat = value.flatten(1)
        frozen = flat.index_fill(1, moved, 0.0).reshape(shape)
        theta = self._theta(self.nets[index], torch.cat([seen, frozen], 1), at, len(channels))
        bend = self.bend.inverse if inverse else self.bend.forward
        new, log_slope = bend(flat[:, moved], theta)
        return flat.index_copy(1, moved, new).reshape(shape), log_slope.sum(1)

    def _theta(self, net: nn.Module, known: Tensor, at: Tensor, channels: int) -> Tensor:
        """Parameters of the moved numbers: (batch, moved, size), channel after channel."""
        both = torch.cat([known, -known]) if self.symmetric else known
        if self.places:
            axes = [torch.linspace(-1, 1, n, dtype=known.dtype, device=known.device) for n in known.shape[2:]]
            here = torch.stack(torch.meshgrid(*axes, indexing="ij"))
            both = torch.cat([both, here.expand(len(both), *here.shape)], 1)
        theta = net(both, at=at).unflatten(1, (channels, self.bend.size)).movedim(2, -1).flatten(1, 2)
        return self.bend.mirrored(*theta.chunk(2)) if self.symmetric else theta


def _of_noise(z: Tensor) -> Tensor:
    """ln N(z)."""
    return -0.5 * (z**2 + _LOG_2PI).flatten(1).sum(1)


def _sites(shape: tuple[int, ...], colour: int | None, device: torch.device) -> Tensor:
    """Numbers of the sites of a colour, row by row."""
    if colour is None:
        return torch.arange(math.prod(shape), device=device)
    axes = torch.meshgrid(*[torch.arange(n, device=device) for n in shape], indexing="ij")
    return (torch.stack(axes).sum(0).flatten() % 2 == colour).nonzero()[:, 0]
