"""Pictures in [0, 1] as networks want them: of one size, in colour."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from renorm.errors import DataError

__all__ = ["to_32", "to_colour"]


def to_32(x: Float[Tensor, "batch channel h w"], channels: int) -> Float[Tensor, "batch channel 32 32"]:
    """Pictures in [0, 1] as the 32 x 32 that the networks were trained on.

    28 x 28 gets a border of two sites of value 0; 16 x 16 shows each site as 2 x 2 equal ones (nearest);
    every other size is resized by antialiased bilinear interpolation.

    Raises:
        DataError: If the channels are others, or a value lies outside [0, 1] (clip samples first).

    Example:
        >>> import torch
        >>> to_32(torch.ones(1, 1, 28, 28), 1).sum() == 28 * 28, to_32(torch.ones(1, 1, 16, 16), 1).shape
        (tensor(True), torch.Size([1, 1, 32, 32]))
    """
    if x.shape[1] != channels:
        raise DataError(f"this extractor reads {channels} channel(s), got fields of shape {tuple(x.shape)}")
    _check_unit(x)
    size = tuple(x.shape[2:])
    if size == (32, 32):
        return x
    if size == (28, 28):
        return F.pad(x, (2, 2, 2, 2))
    if size == (16, 16):
        return F.interpolate(x, scale_factor=2, mode="nearest")
    return F.interpolate(x, size=(32, 32), mode="bilinear", antialias=True)


def to_colour(x: Float[Tensor, "batch channel h w"]) -> Float[Tensor, "batch 3 h w"]:
    """Pictures in [0, 1] as colours: a grey picture has its one channel three times.

    Raises:
        DataError: If there are neither 1 nor 3 channels, or a value lies outside [0, 1] (clip samples first).

    Example:
        >>> import torch
        >>> to_colour(torch.full((2, 1, 8, 8), 0.5)).shape
        torch.Size([2, 3, 8, 8])
    """
    if x.shape[1] not in (1, 3):
        raise DataError(f"this extractor reads 1 or 3 channels, got fields of shape {tuple(x.shape)}")
    _check_unit(x)
    return x.expand(-1, 3, -1, -1)


def _check_unit(x: Tensor) -> None:
    if not ((x >= 0) & (x <= 1)).all():
        raise DataError(f"pictures must lie in [0, 1] (clip samples first), got {x.min():.3g} to {x.max():.3g}")
