"""A small network read at chosen sites of a periodic lattice: what a site's law may know of its neighbourhood."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from renorm.spec import require

__all__ = ["PatchNet", "neighbourhoods"]


def neighbourhoods(
    x: Float[Tensor, "batch channel *sites"], offset: tuple[int, ...], period: int, radius: int
) -> Float[Tensor, "batch *chosen"]:
    r"""One row for every ``period``-th site from ``offset`` on: all channels of the $(2r + 1)^d$ sites around it.

    The lattice is periodic, and a patch wider than it wraps around as often as it must.

    Returns:
        (batch, \*chosen sites, channels times patch), channel after channel.

    Example:
        >>> neighbourhoods(torch.arange(4.0).reshape(1, 1, 4), (1,), 2, 1)  # around sites 1 and 3
        tensor([[[0., 1., 2.],
                 [2., 3., 0.]]])
    """
    dim = len(offset)
    for axis, first in enumerate(offset):
        size = x.shape[axis + 2]
        last = first + (size - 1 - first) // period * period
        around = torch.arange(first - radius, last + radius + 1, device=x.device) % size
        x = x.index_select(axis + 2, around)
    for axis in range(2, 2 + dim):
        x = x.unfold(axis, 2 * radius + 1, period)
    return x.movedim(1, 1 + dim).flatten(1 + dim)


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
        seen = channels * (2 * radius + 1) ** dim
        self.dim, self.radius = dim, radius
        self.linear = nn.Linear(seen, outputs)
        self.first = nn.Linear(seen, width)
        self.hidden = nn.ModuleList([nn.Linear(width, width) for _ in range(layers - 1)])
        self.last = nn.Linear(width, outputs, bias=False)
        for parameter in (*self.linear.parameters(), *self.last.parameters()):
            nn.init.zeros_(parameter)

    def forward(
        self, x: Float[Tensor, "batch channel *sites"], offset: tuple[int, ...], period: int
    ) -> Float[Tensor, "batch output *chosen"]:
        """The output at sites ``offset``, ``offset + period``, ... of each axis."""
        # One row for each chosen site and one product: on small lattices much quicker than a convolution is backwards.
        rows = neighbourhoods(x, offset, period, self.radius)
        hidden = functional.silu(self.first(rows))
        for layer in self.hidden:
            hidden = functional.silu(layer(hidden))
        return (self.linear(rows) + self.last(hidden)).movedim(-1, 1)  # type: ignore[no-any-return]
