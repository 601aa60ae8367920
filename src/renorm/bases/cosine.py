"""The cosine basis (DCT-II), the modes of a lattice with open (Neumann) ends."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["CosineTransform"]


class CosineTransform:
    r"""Orthonormal DCT-II of the last axis by one complex FFT of the same length.

    $$ \tilde\phi_n = s_n \sum_{x=0}^{L-1} \phi_x \cos\frac{\pi n (x + 1/2)}{L}, \qquad
       s_0 = \sqrt{1/L}, \quad s_{n>0} = \sqrt{2/L} $$

    Source:
        Makhoul 1980, IEEE Trans. ASSP 28, 27: even samples forward, odd samples backward, then a twiddle.
    """

    def forward(self, x: Float[Tensor, "*lead sites"]) -> Float[Tensor, "*lead modes"]:
        """Sites to modes along the last axis."""
        size = x.shape[-1]
        reordered = torch.cat([x[..., ::2], x[..., 1::2].flip(-1)], dim=-1)
        twiddle = _twiddle(size, x)
        return (torch.fft.fft(reordered) * twiddle).real * _scale(size, x)

    def inverse(self, modes: Float[Tensor, "*lead modes"]) -> Float[Tensor, "*lead sites"]:
        """Modes to sites along the last axis."""
        size = modes.shape[-1]
        scaled = modes / _scale(size, modes)
        mirrored = torch.nn.functional.pad(scaled.flip(-1)[..., :-1], (1, 0))  # mode L - n, and 0 for n = 0
        spectrum = torch.complex(scaled, -mirrored) * _twiddle(size, modes).conj()
        reordered = torch.fft.ifft(spectrum).real
        x = torch.empty_like(modes)
        even = (size + 1) // 2
        x[..., ::2] = reordered[..., :even]
        x[..., 1::2] = reordered[..., even:].flip(-1)
        return x


def _twiddle(size: int, like: Tensor) -> Tensor:
    angle = -math.pi * torch.arange(size, dtype=torch.float64, device=like.device) / (2 * size)
    return torch.polar(torch.ones_like(angle), angle).to(torch.promote_types(like.dtype, torch.complex64))


def _scale(size: int, like: Tensor) -> Tensor:
    scale = torch.full((size,), math.sqrt(2 / size), dtype=like.dtype, device=like.device)
    scale[0] = math.sqrt(1 / size)
    return scale
