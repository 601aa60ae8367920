"""U-Nets of Hugging Face's ``diffusers`` as networks of a mode diffusion."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

__all__ = ["from_diffusers"]

RESOLUTION = 1000.0  # their networks count steps from 0 to 1000


class _FromDiffusers(nn.Module):
    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet = unet

    def forward(
        self,
        x: Float[Tensor, "batch channel *sites"],
        t: Float[Tensor, " batch"],
        condition: Int[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, "batch channel *sites"]:
        classes = getattr(getattr(self.unet, "config", None), "num_class_embeds", None)
        if condition is None and classes:
            condition = torch.full((len(x),), classes - 1, device=x.device)
        y: Tensor = self.unet(x, RESOLUTION * t, class_labels=condition).sample
        return y


def from_diffusers(unet: Any) -> nn.Module:
    """A ``UNet2DModel`` as a network ``(x, t, condition) -> x``; ``diffusers`` itself is not imported here.

    The scale t in [0, 1] is given as a step in [0, 1000], the condition as ``class_labels``.

    Args:
        unet: A ``diffusers.UNet2DModel``, or anything called in the same way, of as many channels out as in. For a
            model with n classes it needs ``num_class_embeds = n + 1``: the last one means any class.

    Example:
        >>> from types import SimpleNamespace
        >>> class Sum(nn.Module):
        ...     def forward(self, x, step, class_labels=None):
        ...         return SimpleNamespace(sample=x + step[:, None, None])
        >>> from_diffusers(Sum())(torch.zeros(1, 1, 2), torch.tensor([0.5]))
        tensor([[[500., 500.]]])
    """
    return _FromDiffusers(unet)
