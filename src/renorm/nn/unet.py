"""A U-Net on a lattice of one to three dimensions that knows the lattice's boundary."""

from functools import partial
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from renorm.errors import RecipeError
from renorm.lattice import Boundary, Lattice
from renorm.nn.embedding import ScaleEmbedding
from renorm.nn.initial import xavier
from renorm.nn.spec import UNetSpec
from renorm.spec import require

__all__ = ["UNet", "Upsample", "unet_on"]

CONVOLUTION: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED: dict[int, Any] = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
Convolution: TypeAlias = nn.Conv1d | nn.Conv2d | nn.Conv3d
CHANNELS_LAST = {1: torch.contiguous_format, 2: torch.channels_last, 3: torch.channels_last_3d}
QUIET = 1e-5  # gain of the last layer of every branch: a new network starts close to the identity


class UNet(nn.Module):
    r"""A field, its scale and its class to a field on the same lattice: $(x, t, c) \mapsto y$.

    Residual blocks and self-attention on lattices of 1, 1/2, 1/4, ... of the sites along each axis, with
    skips from the way down to the way up. Scale and class enter every residual block as one vector.

    Args:
        spec: Width, levels, attention.
        dim: Axes of the lattice, 1 to 3.
        channels: Channels of the field.
        boundary: ``"open"`` pads every convolution with zeros, ``"periodic"`` around the lattice.
        num_classes: Labels that ``condition`` may hold; the label ``num_classes`` means "no class".
        out_channels: Channels of the output; ``channels`` if not given.
        generator: Draws the initial weights; torch's own if not given.

    Raises:
        ValueError: If ``dim`` or ``boundary`` is out of range.
        RecipeError: In ``forward``, if an axis is not divisible by ``spec.stride``, or if a condition is
            given to a network without classes.

    Invariant: With a periodic boundary, translations by ``spec.stride`` sites commute with the network (in
    ``eval`` mode: dropout knows no symmetry).

    Source: Ho, Jain, Abbeel, "Denoising diffusion probabilistic models", NeurIPS 2020, appendix B.

    Example:
        >>> spec = UNetSpec(width=8, multipliers=(1, 2), groups=4)
        >>> net = UNet(spec, dim=1, channels=2, boundary="periodic")
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
        conv = partial(_convolution, dim, boundary)
        block = partial(ResidualBlock, features=features, spec=spec, conv=conv)

        self.embed = ScaleEmbedding(spec.width, features, num_classes)
        self.head = conv(channels, spec.width, kernel_size=spec.patch + 2, stride=spec.patch)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        at, skips = spec.width, [spec.width]
        for level, width in enumerate(spec.channels):
            if level > 0:
                self.down.append(conv(at, at, stride=2))
                skips.append(at)
            for _ in range(spec.blocks):
                self.down.append(block(at, width, attend=level in spec.attention))
                at = width
                skips.append(at)
        self.middle = nn.ModuleList([block(at, at, attend=spec.middle_attention), block(at, at)])
        for level, width in reversed(list(enumerate(spec.channels))):
            for _ in range(spec.blocks + 1):
                self.up.append(block(at + skips.pop(), width, attend=level in spec.attention))
                at = width
            if level > 0:
                self.up.append(Upsample(at, dim, boundary))
        self.norm = nn.GroupNorm(spec.groups, at)
        out = out_channels or channels
        self.tail = conv(at, out * spec.patch**dim)
        self.entries = nn.ModuleList(
            _Entry(spec, level, channels, out, dim=dim, conv=conv) for level in range(1, spec.entries)
        )
        _initialise(self, generator)

    def forward(
        self,
        x: Float[Tensor, "batch channel *sites"],
        t: Float[Tensor, "batch"],
        condition: Int[Tensor, "batch"] | None = None,
        entry: int = 0,
    ) -> Float[Tensor, "batch out *sites"]:
        """The field on the same lattice; it enters and leaves at level ``entry``."""
        shape, stride = tuple(x.shape[2:]), self.spec.stride
        if len(shape) != self.dim or any(n % stride for n in shape):
            raise RecipeError(
                f"this U-Net needs {self.dim} axes, each divisible by its stride {stride} "
                f"(patch {self.spec.patch}, {len(self.spec.multipliers)} levels), got sites {shape}"
            )
        e = F.silu(self.embed(t, condition))
        door: Any = self.entries[entry - 1] if entry else self
        # A site's channels side by side in memory: the convolutions run up to four times faster on a CPU.
        h = door.head(x.contiguous(memory_format=CHANNELS_LAST[self.dim]))
        skips = [h]
        together = self.spec.blocks + 1  # the blocks of a level, and what leads to it
        within = len(self.spec.channels) - entry
        for layer in self.down[entry * together :]:
            h = layer(h, e) if isinstance(layer, ResidualBlock) else layer(h)
            skips.append(h)
        for layer in self.middle:
            h = layer(h, e)
        for layer in self.up[: within * (together + 1) - 1]:
            h = layer(torch.cat([h, skips.pop()], dim=1), e) if isinstance(layer, ResidualBlock) else layer(h)
        return _unpatch(door.tail(F.silu(door.norm(h))), self.spec.patch * 2**entry)


class _Entry(nn.Module):
    """Where a field enters and leaves at a coarser level, in blocks of sites."""

    def __init__(self, spec: UNetSpec, level: int, channels: int, out: int, *, dim: int, conv: Any) -> None:
        super().__init__()
        patch, width = spec.patch * 2**level, spec.channels[level]
        self.head = conv(channels, spec.channels[level - 1], kernel_size=patch + 2, stride=patch)
        self.norm = nn.GroupNorm(spec.groups, width)
        self.tail = conv(width, out * patch**dim)


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut, the embedding added between them; then self-attention, if asked."""

    def __init__(
        self, inputs: int, outputs: int, *, features: int, spec: UNetSpec, conv: Any, attend: bool = False
    ) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(spec.groups, inputs)
        self.conv1 = conv(inputs, outputs)
        self.bias = nn.Linear(features, outputs)
        self.norm2 = nn.GroupNorm(spec.groups, outputs)
        self.dropout = nn.Dropout(spec.dropout)
        self.conv2 = conv(outputs, outputs)
        self.shortcut = conv(inputs, outputs, kernel_size=1) if inputs != outputs else nn.Identity()
        self.attention = Attention(outputs, spec.heads, spec.groups) if attend else nn.Identity()

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        bias = self.bias(e).reshape(len(e), -1, *[1] * (x.ndim - 2))
        h = self.conv1(F.silu(self.norm1(x))) + bias
        h = self.conv2(self.dropout(F.silu(self.norm2(h))))
        y: Tensor = self.attention(self.shortcut(x) + h)
        return y


class Attention(nn.Module):
    """Self-attention between all sites, added to the field."""

    def __init__(self, channels: int, heads: int, groups: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(groups, channels)
        self.query_key_value = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        h = self.query_key_value(self.norm(x).flatten(2).mT).unflatten(2, (3, self.heads, -1))
        h = F.scaled_dot_product_attention(*h.permute(2, 0, 3, 1, 4)).transpose(1, 2).flatten(2)
        return x + self.out(h).mT.unflatten(2, x.shape[2:])


class Upsample(nn.Module):
    """Every site becomes two equal sites along each axis, then a 3-wide convolution acts: both in one step.

    Along one axis, doubling the sites and convolving with the kernel (a, b, c) is one transposed convolution
    of stride 2 with the kernel (c, b + c, a + b, a): four products for two sites instead of six.

    Example:
        >>> Upsample(4, dim=2, boundary="open")(torch.zeros(1, 4, 3, 5)).shape
        torch.Size([1, 4, 6, 10])
    """

    def __init__(self, channels: int, dim: int, boundary: Boundary) -> None:
        super().__init__()
        self.conv = CONVOLUTION[dim](channels, channels, 3)
        self.dim = dim
        self.periodic = boundary == "periodic"

    def forward(self, x: Float[Tensor, "batch channel *coarse"]) -> Float[Tensor, "batch channel *sites"]:
        kernel = self.conv.weight
        for axis in range(self.dim):
            skip = (0, 0) * axis
            kernel = F.pad(kernel, (*skip, 0, 1)) + F.pad(kernel, (*skip, 1, 0))
        kernel = kernel.flip(tuple(range(2, x.ndim))).transpose(0, 1)
        x = _wrap(x) if self.periodic else x
        padding = 3 if self.periodic else 1
        y: Tensor = TRANSPOSED[self.dim](x, kernel, self.conv.bias, stride=2, padding=padding)
        return y


def _convolution(
    dim: int, boundary: Boundary, inputs: int, outputs: int, kernel_size: int = 3, stride: int = 1
) -> Convolution:
    """A convolution that sees one site beyond the lattice on every side: zeros, or the sites around it."""
    if boundary == "open" or kernel_size == 1:
        padding = 0 if kernel_size == 1 else 1
        conv: Convolution = CONVOLUTION[dim](inputs, outputs, kernel_size, stride=stride, padding=padding)
    else:
        conv = CONVOLUTION[dim](inputs, outputs, kernel_size, stride=stride)
        conv.register_forward_pre_hook(_wrap_input)
    return conv


def _wrap_input(_: nn.Module, args: tuple[Tensor, ...]) -> Tensor:
    return _wrap(args[0])


def _wrap(x: Tensor) -> Tensor:
    """One site of the periodic lattice more on every side (``F.pad`` would lose the memory format)."""
    for axis in range(2, x.ndim):
        x = torch.cat([x.narrow(axis, x.shape[axis] - 1, 1), x, x.narrow(axis, 0, 1)], dim=axis)
    return x


def _unpatch(y: Tensor, patch: int) -> Tensor:
    """Channels back to sites, ``(batch, c * patch^dim, *n)`` to ``(batch, c, *(n * patch))``."""
    if patch == 1:
        return y
    dim, sites = y.ndim - 2, y.shape[2:]
    y = y.reshape(len(y), -1, *[patch] * dim, *sites)
    order = [axis for i in range(dim) for axis in (2 + dim + i, 2 + i)]
    return y.permute(0, 1, *order).reshape(*y.shape[:2], *[n * patch for n in sites])


def _initialise(net: UNet, generator: torch.Generator | None) -> None:
    """Xavier-uniform weights and zero biases, the last layer of every branch and of the network near zero."""
    xavier(net, generator)
    with torch.no_grad():
        for layer in net.modules():
            if isinstance(layer, ResidualBlock):
                layer.conv2.weight.mul_(QUIET)
            elif isinstance(layer, Attention):
                layer.out.weight.mul_(QUIET)
        doors: list[Any] = [net, *net.entries]
        for door in doors:
            door.tail.weight.mul_(QUIET)


def unet_on(
    lattice: Lattice, spec: UNetSpec, *, num_classes: int = 0, generator: torch.Generator | None = None
) -> UNet:
    """The U-Net for fields on a lattice: its dimension, channels and boundary.

    Example:
        >>> network = unet_on(Lattice((8,)), UNetSpec(width=8, multipliers=(1, 2), attention=(), groups=4))
        >>> network(torch.zeros(2, 1, 8), torch.zeros(2)).shape
        torch.Size([2, 1, 8])
    """
    return UNet(
        spec,
        dim=lattice.dim,
        channels=lattice.channels,
        boundary=lattice.boundary,
        num_classes=num_classes,
        generator=generator,
    )
