"""The real Fourier basis, the modes of a periodic lattice."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["FourierTransform"]


class FourierTransform:
    r"""Orthonormal real Fourier transform of the last axis: constant, then a cosine and a sine for each wavenumber.

    $$ \tilde\phi_0 = \frac{1}{\sqrt L}\sum_x \phi_x, \quad
       \tilde\phi_{2m-1} = \sqrt{\tfrac{2}{L}}\sum_x \phi_x \cos\tfrac{2\pi m x}{L}, \quad
       \tilde\phi_{2m} = -\sqrt{\tfrac{2}{L}}\sum_x \phi_x \sin\tfrac{2\pi m x}{L} $$

    For even $L$ the last mode is the staggered one, $L^{-1/2}\sum_x (-1)^x \phi_x$. The order is that of
    ``scipy.fftpack.rfft`` (signs too), so wavenumbers rise along the axis.
    """

    def forward(self, x: Float[Tensor, "*lead sites"]) -> Float[Tensor, "*lead modes"]:
        """Sites to modes along the last axis."""
        size = x.shape[-1]
        packed = torch.view_as_real(torch.fft.rfft(x, norm="ortho")).flatten(-2)
        modes = torch.cat([packed[..., :1], packed[..., 2:]], dim=-1)[..., :size]  # the constant has no sine
        return modes * _scale(size, x)

    def inverse(self, modes: Float[Tensor, "*lead modes"]) -> Float[Tensor, "*lead sites"]:
        """Modes to sites along the last axis."""
        size = modes.shape[-1]
        scaled = modes / _scale(size, modes)
        zero = torch.zeros_like(scaled[..., :1])
        tail = [zero] if size % 2 == 0 else []  # nor has the staggered mode
        packed = torch.cat([scaled[..., :1], zero, scaled[..., 1:], *tail], dim=-1)
        spectrum = torch.view_as_complex(packed.unflatten(-1, (-1, 2)).contiguous())
        return torch.fft.irfft(spectrum, n=size, norm="ortho")


def _scale(size: int, like: Tensor) -> Tensor:
    scale = torch.full((size,), math.sqrt(2.0), dtype=like.dtype, device=like.device)
    scale[0] = 1.0
    if size % 2 == 0:
        scale[-1] = 1.0
    return scale
