"""Small convolutional networks on a lattice: local functions of a field, in one to three dimensions."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from renorm.lattice import Boundary
from renorm.spec import require

__all__ = ["LocalNet"]


class LocalNet(nn.Module):
    """Convolutions on a lattice of any number of sites; at first the output is zero everywhere.

    Args:
        dim: Axes of the lattice.
        channels: Of the input.
        outputs: Of the output.
        width: Of the hidden layers.
        layers: Convolutions of 3 sites on each axis; an output sees ``layers`` times ``dilation`` sites far.
        boundary: ``"periodic"`` wraps around the lattice, ``"open"`` sees zeros beyond it.
        dilation: Sites between the taps of a convolution.

    Example:
        >>> import torch
        >>> LocalNet(2, 1, 3)(torch.ones(5, 1, 4, 4)).abs().sum().item()
        0.0
    """

    def __init__(
        self,
        dim: int,
        channels: int,
        outputs: int,
        *,
        width: int = 24,
        layers: int = 2,
        boundary: Boundary = "periodic",
        dilation: int = 1,
    ) -> None:
        super().__init__()
        require(1 <= dim <= 3, "a lattice has one to three axes", dim)
        require(layers >= 1, "layers must be >= 1 (an output must see its neighbours)", layers)
        require(dilation >= 1, "dilation must be >= 1 (1 for neighbours)", dilation)
        conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dim - 1]
        self.dim, self.boundary, self.dilation = dim, boundary, dilation
        inputs = [channels, *[width] * (layers - 1)]
        self.hidden = nn.ModuleList([conv(n, width, 3, dilation=dilation) for n in inputs])
        self.last = conv(width, outputs, 1)
        nn.init.zeros_(self.last.weight)
        assert self.last.bias is not None
        nn.init.zeros_(self.last.bias)

    def forward(
        self, x: Float[Tensor, "batch channel *sites"], *, at: Int64[Tensor, " some"] | None = None
    ) -> Float[Tensor, "batch output *some"]:
        """The output at every site, or only at some.

        Args:
            x: Input.
            at: Numbers of the sites that are asked for, counted row by row; the output is then (batch, output, some).
        """
        for layer in self.hidden:
            x = functional.silu(layer(self._padded(x)))
        if at is None:
            return self.last(x)  # type: ignore[no-any-return]
        last = self.last.weight.flatten(1) @ x.flatten(2).index_select(2, at)
        return last + self.last.bias[:, None]  # type: ignore[index, no-any-return]

    def _padded(self, x: Tensor) -> Tensor:
        reach = self.dilation
        if self.boundary == "open":
            return functional.pad(x, (reach, reach) * self.dim)
        if min(x.shape[2:]) >= reach:
            return functional.pad(x, (reach, reach) * self.dim, mode="circular")
        # torch does not wrap around more than once.
        for axis in range(2, x.ndim):
            size = x.shape[axis]
            x = x.index_select(axis, torch.arange(-reach, size + reach, device=x.device) % size)
        return x
