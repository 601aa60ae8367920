"""A bijection of a few numbers by coupling layers: what disentanglers and decimators are made of."""

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from renorm.nn.dense import dense
from renorm.nn.spline import Bend
from renorm.spec import require

__all__ = ["BlockFlow"]


class BlockFlow(nn.Module):
    r"""A bijection $x \mapsto y$ of n numbers by layers that each move half of them, as the other half says.

    $$ y_i = f_\theta\big((x_i - \mu)\,e^{-s}\big), \quad (\mu, s, \theta)_i = \text{net}_j(x_{\text{kept}}), \qquad
       \ln\left|\det\frac{\partial y}{\partial x}\right| = \sum_j \sum_{i \in j} [\ln f_\theta' - s_i] $$

    $f_\theta$ is a monotone rational-quadratic spline on $[-b, b]$ and the identity outside, or nothing but the
    identity (affine couplings); s stays within $\pm 4$. At first the bijection is the identity. With ``odd`` it turns
    over with its input, $y(-x) = -y(x)$: $\mu$ is odd, s even, and the spline's knots are reflected.

    Args:
        size: n >= 2.
        layers: How many; they move the numbers whose index has a bit set, then those that have not, bit after bit.
        kind: ``"spline"`` or ``"affine"``.
        width, hidden: Neurons and hidden layers of each network.
        bins, bound: Of the splines.
        odd: Whether the bijection is odd by construction.

    Source:
        Dinh et al. 2017, arXiv:1605.08803; Durkan et al. 2019, arXiv:1906.04032.

    Example:
        >>> flow = BlockFlow(4, layers=2)
        >>> x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
        >>> y, log_det = flow(x)
        >>> torch.allclose(y, x), torch.allclose(flow.inverse(y)[0], x, atol=1e-6)
        (True, True)
    """

    def __init__(
        self,
        size: int,
        *,
        layers: int = 4,
        kind: Literal["spline", "affine"] = "spline",
        width: int = 16,
        hidden: int = 1,
        bins: int = 8,
        bound: float = 5.0,
        odd: bool = True,
    ) -> None:
        super().__init__()
        require(size >= 2, "size must be >= 2 (one number moves, another says how)", size)
        require(layers >= 0, "layers must be >= 0", layers)
        require(kind in ("spline", "affine"), "kind must be 'spline' or 'affine'", kind)
        require(width >= 1 and hidden >= 1, "width and hidden must be >= 1", (width, hidden))
        require(kind == "affine" or bins >= 2, "bins must be >= 2 (one piece bends nothing)", bins)
        self.size, self.odd = size, odd
        self.bend = Bend(bins if kind == "spline" else 0, bound)
        halves = [_half(size, j) for j in range(layers)]
        self.nets = nn.ModuleList(
            [
                dense(size - len(moved), self.bend.size * len(moved), width=width, layers=hidden, still=True)
                for moved in halves
            ]
        )
        for j, moved in enumerate(halves):
            kept = [i for i in range(size) if i not in moved]
            self.register_buffer(f"moved_{j}", torch.tensor(moved), persistent=False)
            self.register_buffer(f"kept_{j}", torch.tensor(kept), persistent=False)

    def forward(self, x: Float[Tensor, "*batch size"]) -> tuple[Float[Tensor, "*batch size"], Float[Tensor, "*batch"]]:
        """The image of each input, and the log of the volume that it changes."""
        total = x.new_zeros(x.shape[:-1])
        for j in range(len(self.nets)):
            x, log_slope = self._layer(j, x, inverse=False)
            total = total + log_slope
        return x, total

    def inverse(self, y: Float[Tensor, "*batch size"]) -> tuple[Float[Tensor, "*batch size"], Float[Tensor, "*batch"]]:
        r"""The input of each image, and $\ln|\det \partial y/\partial x|$ there."""
        total = y.new_zeros(y.shape[:-1])
        for j in reversed(range(len(self.nets))):
            y, log_slope = self._layer(j, y, inverse=True)
            total = total + log_slope
        return y, total

    def _layer(self, j: int, value: Tensor, *, inverse: bool) -> tuple[Tensor, Tensor]:
        moved, kept = self.get_buffer(f"moved_{j}"), self.get_buffer(f"kept_{j}")
        theta = self._theta(self.nets[j], value.index_select(-1, kept), len(moved))
        bend = self.bend.inverse if inverse else self.bend.forward
        new, log_slope = bend(value.index_select(-1, moved), theta)
        return value.index_copy(-1, moved, new), log_slope.sum(-1)

    def _theta(self, net: nn.Module, kept: Tensor, moved: int) -> Tensor:
        theta = _said(net, kept)
        if self.odd:
            each = [t.unflatten(-1, (moved, -1)) for t in (theta, _said(net, -kept))]
            return self.bend.mirrored(*each)
        return theta.unflatten(-1, (moved, -1))


def _half(size: int, layer: int) -> list[int]:
    """Which numbers the layer moves: those whose index has a bit set, bit after bit, and then those that have not.

    Example:
        >>> [_half(4, j) for j in range(4)]
        [[1, 3], [0, 2], [2, 3], [0, 1]]
    """
    bits = max(1, math.ceil(math.log2(size)))
    bit, other = layer // 2 % bits, layer % 2
    return [i for i in range(size) if (i >> bit & 1) != other]


def _said(net: nn.Module, x: Tensor) -> Tensor:
    """What the network says, in the digits of its input."""
    for layer in net.children():
        x = functional.linear(x, layer.weight.to(x), layer.bias.to(x)) if isinstance(layer, nn.Linear) else layer(x)
    return x
