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
        """Spins site after site; of each layer only the site itself is worked out, what lies before it is kept."""
        n, edge, r = len(coarse), self.edge, self.radius
        kernels = [conv.weight * self._mask(index) for index, conv in enumerate(self.convs)]  # type: ignore[operator]
        kept = [torch.zeros(n, kernel.shape[1], edge + 2 * r, edge + 2 * r, dtype=kernel.dtype) for kernel in kernels]
        uniform = torch.rand(n, edge, edge, generator=generator, dtype=kernels[0].dtype)
        total = torch.zeros(n, dtype=kernels[0].dtype)
        for row in range(edge):
            for column in range(edge):
                for index, kernel in enumerate(kernels):
                    patch = kept[index][:, :, row : row + 2 * r + 1, column : column + 2 * r + 1]
                    out = patch.flatten(1) @ kernel.flatten(1).T
                    if index + 1 < len(kernels):
                        kept[index + 1][:, :, row + r, column + r] = torch.tanh(out)
                field = out[:, 0]
                spin = torch.where(uniform[:, row, column] < field.sigmoid(), 1.0, -1.0).to(field.dtype)
                kept[0][:, 0, row + r, column + r] = spin
                total = total + functional.logsigmoid(spin * field)
        return Draw(kept[0][:, :, r : r + edge, r : r + edge].clone(), total)

    def log_prob(self, detail: Tensor, coarse: Tensor) -> Tensor:
        """Log probability of each field."""
        return functional.logsigmoid(detail[:, 0] * self._all(detail)).flatten(1).sum(1)

    def _all(self, x: Tensor) -> Tensor:
        """Theta of every site, in one pass."""
        # No wrapping: what lies beyond the edge was not drawn yet, or is far back in the order of reading.
        r = self.radius
        for index, conv in enumerate(self.convs):
            x = functional.conv2d(functional.pad(x, (r, r, r, r)), conv.weight * self._mask(index))  # type: ignore[operator]
            x = torch.tanh(x) if index < len(self.convs) - 1 else x
        return x[:, 0]

    def _mask(self, layer: int) -> Tensor:
        return self.strict if layer == 0 else self.loose  # type: ignore[return-value]
