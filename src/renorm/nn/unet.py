"""A U-Net on a lattice of one to three dimensions that knows the lattice's boundary."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from renorm.errors import RecipeError
from renorm.lattice import Boundary
from renorm.nn.embedding import ScaleEmbedding
from renorm.nn.spec import UNetSpec
from renorm.spec import require

__all__ = ["UNet"]

CONVOLUTION = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
LAST = {1: torch.contiguous_format, 2: torch.channels_last, 3: torch.channels_last_3d}
QUIET = 1e-5  # gain of the last layer of each branch: a new network starts close to the identity

Convolution = Callable[..., nn.Module]


class UNet(nn.Module):
    r"""A field and its scale to a field of the same lattice: $x, t, \text{condition} \mapsto y$.

    Residual blocks and self-attention on lattices of 1, 1/2, 1/4, ... of the sites per axis, with skips between
    the way down and the way up. The scale and the class enter every residual block as one vector.

    Args:
        spec: Width, levels and attention.
        dim: Axes of the lattice, 1 to 3.
        channels: Channels of the field.
        boundary: ``"open"`` pads every convolution with zeros, ``"periodic"`` around the lattice.
        num_classes: Labels that ``condition`` may hold; ``num_classes`` itself means "no class".
        out_channels: Channels of the output; ``channels`` if not given.
        generator: Where the initial weights are drawn from; torch's own if not given.

    Raises:
        ValueError: If ``dim`` or ``boundary`` is out of range.
        RecipeError: In ``forward``, if an axis is not divisible by ``spec.stride``.

    Invariant: With a periodic boundary, translations by ``spec.stride`` sites commute with the network (in ``eval``
    mode, where no dropout acts).

    Source: Ho, Jain, Abbeel, "Denoising diffusion probabilistic models", NeurIPS 2020, appendix B.

    Example:
        >>> net = UNet(UNetSpec(width=8, multipliers=(1, 2), groups=4), dim=1, channels=2, boundary="periodic")
        >>> net(torch.zeros(3, 2, 10), torch.rand(3)).shape
        torch.Size([3, 2, 10])
    """

    def __init__(
        self,
        spec: UNetSpec,
        *,
        dim: int,
        channels: int,
        boundary: Boundary = "open",
        num_classes: int = 0,
        out_channels: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        require(dim in CONVOLUTION, "a U-Net lives in one to three dimensions", dim)
        require(boundary in ("open", "periodic"), "boundary must be 'open' or 'periodic'", boundary)
        self.spec = spec
        self.dim = dim
        features = spec.embedding or 4 * spec.width
        mode = "circular" if boundary == "periodic" else "zeros"
        conv = partial(CONVOLUTION[dim], padding_mode=mode)
        block = partial(ResidualBlock, conv=conv, features=features, spec=spec)

        self.embed = ScaleEmbedding(spec.width, features, num_classes)
        cell = spec.patch**dim
        self.head = conv(channels, spec.width, spec.patch + 2, stride=spec.patch, padding=1)
        self.down = nn.ModuleList()
        self.up = nn.ModuleList()
        at, skips = spec.width, [spec.width]
        coarsest = len(spec.multipliers) - 1
        for level, width in enumerate(spec.channels):
            for _ in range(spec.blocks):
                self.down.append(block(at, width, attend=level in spec.attention))
                at = width
                skips.append(at)
            if level < coarsest:
                self.down.append(conv(at, at, 3, stride=2, padding=1))
                skips.append(at)
        self.middle = nn.ModuleList(
            [block(at, at, attend=spec.middle_attention), block(at, at, attend=False)]
        )
        for level, width in reversed(list(enumerate(spec.channels))):
            for _ in range(spec.blocks + 1):
                self.up.append(block(at + skips.pop(), width, attend=level in spec.attention))
                at = width
            if level > 0:
                self.up.append(nn.Sequential(nn.Upsample(scale_factor=2), conv(at, at, 3, padding=1)))
        self.norm = nn.GroupNorm(spec.groups, at)
        self.tail = conv(at, (out_channels or channels) * cell, 3, padding=1)
        initialise(self, generator)
        self.to(memory_format=LAST[dim])

    def forward(
        self,
        x: Float[Tensor, "batch channel *sites"],
        t: Float[Tensor, "batch"],
        condition: Int[Tensor, "batch"] | None = None,
    ) -> Float[Tensor, "batch out *sites"]:
        stride = self.spec.stride
        if any(n % stride for n in x.shape[2:]):
            raise RecipeError(f"every axis must be divisible by the stride {stride}, got {tuple(x.shape[2:])}")
        e = F.silu(self.embed(t, condition))
        h = self.head(x.contiguous(memory_format=LAST[self.dim]))
        skips = [h]
        for layer in self.down:
            h = layer(h, e) if isinstance(layer, ResidualBlock) else layer(h)
            skips.append(h)
        for layer in self.middle:
            h = layer(h, e)
        for layer in self.up:
            h = layer(torch.cat([h, skips.pop()], dim=1), e) if isinstance(layer, ResidualBlock) else layer(h)
        y: Tensor = self.tail(F.silu(self.norm(h)))
        return y if self.spec.patch == 1 else unpatch(y, self.spec.patch)


class ResidualBlock(nn.Module):
    def __init__(self, inputs, outputs, *, attend, conv, features, spec):
        super().__init__()
        self.norm1 = nn.GroupNorm(spec.groups, inputs)
        self.conv1 = conv(inputs, outputs, 3, padding=1)
        self.bias = nn.Linear(features, outputs)
        self.norm2 = nn.GroupNorm(spec.groups, outputs)
        self.dropout = nn.Dropout(spec.dropout) if spec.dropout else nn.Identity()
        self.conv2 = conv(outputs, outputs, 3, padding=1)
        self.shortcut = conv(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.attention = Attention(outputs, spec.heads, spec.groups) if attend else nn.Identity()

    def forward(self, x, e):
        h = self.conv1(F.silu(self.norm1(x)))
        b = self.bias(e)
        h = h + b.reshape(b.shape + (1,) * (x.ndim - 2))
        h = self.conv2(self.dropout(F.silu(self.norm2(h))))
        return self.attention(self.shortcut(x) + h)


class Attention(nn.Module):
    def __init__(self, channels, heads, groups):
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(groups, channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, x):
        sites = x.shape[2:]
        h = self.norm(x).flatten(2).transpose(1, 2)
        qkv = self.qkv(h).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        h = F.scaled_dot_product_attention(*qkv).transpose(1, 2).flatten(2)
        h = self.out(h).transpose(1, 2).unflatten(2, sites)
        return x + h


def initialise(net, generator):
    for m in net.modules():
        if isinstance(m, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            nn.init.xavier_uniform_(m.weight, generator=generator); nn.init.zeros_(m.bias)


def unpatch(y, p):
    dim = y.ndim - 2
    sites = y.shape[2:]
    y = y.unflatten(1, (-1, *(p,) * dim))
    order = [0, 1] + [a for i in range(dim) for a in (2 + dim + i, 2 + i)]
    return y.permute(order).reshape(y.shape[0], y.shape[1], *(n * p for n in sites))
