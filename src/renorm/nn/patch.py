"""A small network read at chosen sites of a periodic lattice: what a site's law may know of its neighbourhood."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from renorm.spec import require

__all__ = ["PatchNet", "patches"]


def patches(x: Tensor, offset: tuple[int, ...], period: int, radius: int) -> Tensor:
    r"""The field around every ``period``-th site from ``offset`` on: cut so that a convolution with that stride and
    kernels of $2r + 1$ sites has one output for each of them. It wraps around as often as it must.

    Example:
        >>> patches(torch.arange(4.0).reshape(1, 1, 4), (1,), 2, 1)  # around sites 1 and 3
        tensor([[[0., 1., 2., 3., 0.]]])
    """
    for axis, first in enumerate(offset):
        size = x.shape[axis + 2]
        last = first + (size - 1 - first) // period * period
        around = torch.arange(first - radius, last + radius + 1, device=x.device) % size
        if len(around) != size or int(around[0]) != 0:
            x = x.index_select(axis + 2, around)
    return x


class PatchNet(nn.Module):
    r"""The same network at every ``period``-th site, each seeing the sites at most ``radius`` away on each axis.

    $$ \theta_i = A\,u_i + B\,\mathrm{MLP}(u_i), \qquad u_i = (x_j)_{|j - i|_\infty \le r} $$

    The output is zero at first: A and B begin at nothing.

    Args:
        dim: Axes of the lattice.
        channels: Of the input.
        outputs: Of the output.
        radius: r, in sites.
        width: Of the hidden layers.
        layers: Hidden layers.

    Example:
        >>> net = PatchNet(2, 1, 3)
        >>> net(torch.ones(5, 1, 4, 4), (0, 1), 2).shape  # sites (0, 1), (0, 3), (2, 1), (2, 3)
        torch.Size([5, 3, 2, 2])
    """

    def __init__(
        self, dim: int, channels: int, outputs: int, *, radius: int = 2, width: int = 32, layers: int = 2
    ) -> None:
        super().__init__()
        require(1 <= dim <= 3, "a lattice has one to three axes", dim)
        require(radius >= 1, "radius must be >= 1 (a site must see its neighbours)", radius)
        require(layers >= 1, "layers must be >= 1", layers)
        conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dim - 1]
        self.dim, self.radius = dim, radius
        self.linear = conv(channels, outputs, 2 * radius + 1)
        self.first = conv(channels, width, 2 * radius + 1)
        self.hidden = nn.ModuleList([conv(width, width, 1) for _ in range(layers - 1)])
        self.last = conv(width, outputs, 1, bias=False)
        for parameter in (*self.linear.parameters(), *self.last.parameters()):
            nn.init.zeros_(parameter)

    def forward(
        self, x: Float[Tensor, "batch channel *sites"], offset: tuple[int, ...], period: int
    ) -> Float[Tensor, "batch output *chosen"]:
        """The output at sites ``offset``, ``offset + period``, ... of each axis."""
        seen = patches(x, offset, period, self.radius)
        convolve = (functional.conv1d, functional.conv2d, functional.conv3d)[self.dim - 1]
        weight = torch.cat([self.linear.weight, self.first.weight])
        bias = torch.cat([self.linear.bias, self.first.bias])  # type: ignore[list-item]
        out = convolve(seen, weight, bias, stride=period)
        direct, hidden = out.split([self.linear.out_channels, self.first.out_channels], 1)
        hidden = functional.silu(hidden)
        for layer in self.hidden:
            hidden = functional.silu(layer(hidden))
        return direct + self.last(hidden)  # type: ignore[no-any-return]
