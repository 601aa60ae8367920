"""The one-scale peer of a cascade of spins: an autoregressive network that draws site after site, row by row."""

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional

from renorm.cascade.conditional import CascadeConditional, Draw
from renorm.spec import require

__all__ = ["RasterSpins"]


class RasterSpins(CascadeConditional):
    r"""Spins in the order of reading, each given all before it, by a stack of masked convolutions.

    $$ p(s) = \prod_i \sigma\big(s_i\, \theta_i(s_{<i})\big) $$

    The network sees ``layers * radius`` rows back; it is odd under $s \to -s$, as the law is
    symmetric: tanh without biases.

    Args:
        edge: Sites along each axis.
        width, layers: Of the network.
        radius: Of a convolution.

    Source:
        Wu, Wang, Zhang 2019, Phys. Rev. Lett. 122, 080602 (variational autoregressive networks).

    Example:
        >>> law = RasterSpins(4, width=4, layers=2)
        >>> draw = law.draw(torch.empty(3, 0), generator=torch.Generator().manual_seed(0))
        >>> torch.allclose(law.log_prob(draw.value, torch.empty(3, 0)), draw.log_prob, atol=1e-5)
        True
    """

    reparametrised = False

    def __init__(self, edge: int, *, width: int = 32, layers: int = 4, radius: int = 3) -> None:
        super().__init__()
        require(layers >= 2, "layers must be >= 2", layers)
        self.edge, self.radius = edge, radius
        sizes = [1, *[width] * (layers - 1), 1]
        self.convs = nn.ModuleList([nn.Conv2d(a, b, 2 * radius + 1, bias=False) for a, b in itertools.pairwise(sizes)])
        nn.init.zeros_(self.convs[-1].weight)  # type: ignore[arg-type]
        seen = torch.ones(2 * radius + 1, 2 * radius + 1)
        seen[radius, radius:] = 0
        seen[radius + 1 :] = 0
        self.register_buffer("strict", seen.clone())
        seen[radius, radius] = 1
        self.register_buffer("loose", seen)

    def draw(self, coarse: Tensor, *, generator: torch.Generator) -> Draw:
        """Spins site after site: one pass of the network for each of them."""
        n, edge = len(coarse), self.edge
        x = torch.zeros(n, 1, edge, edge, dtype=self.convs[0].weight.dtype)  # type: ignore[arg-type]
        uniform = torch.rand(n, edge, edge, generator=generator, dtype=x.dtype)
        total = x.new_zeros(n)
        for row in range(edge):
            for column in range(edge):
                field = self._fields(x, row)[:, column]
                spin = torch.where(uniform[:, row, column] < field.sigmoid(), 1.0, -1.0)
                x[:, 0, row, column] = spin
                total = total + functional.logsigmoid(spin * field)
        return Draw(x, total)

    def log_prob(self, detail: Tensor, coarse: Tensor) -> Tensor:
        """Log probability of each field."""
        return functional.logsigmoid(detail[:, 0] * self._all(detail)).flatten(1).sum(1)

    def _fields(self, x: Tensor, row: int) -> Tensor:
        """Theta of one row: only the rows that it can see go through the network."""
        reach = len(self.convs) * self.radius
        first = max(0, row - reach)
        return self._all(x[:, :, first : row + 1])[:, -1]

    def _all(self, x: Tensor) -> Tensor:
        # No wrapping: what lies beyond the edge was not drawn yet, or is far back in the order of reading.
        r = self.radius
        for index, conv in enumerate(self.convs):
            mask = self.strict if index == 0 else self.loose
            x = functional.pad(x, (r, r, r, r))
            x = functional.conv2d(x, conv.weight * mask)  # type: ignore[operator, arg-type]
            x = torch.tanh(x) if index < len(self.convs) - 1 else x
        return x[:, 0]
