"""A small classifier of handwritten digits whose last hidden layer is an eye for Fréchet distances."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["DigitCNN"]


class DigitCNN(nn.Module):
    """Four convolutions and a mean over sites: 64 features of a 32 x 32 digit, 61,050 parameters.

    Group norm, not batch norm: features of one field never depend on the others, in training or after.

    Args:
        num_classes: Classes that the logits tell apart.

    Example:
        >>> net = DigitCNN()
        >>> net.features(torch.rand(2, 1, 32, 32)).shape, net(torch.rand(2, 1, 32, 32)).shape
        (torch.Size([2, 64]), torch.Size([2, 10]))
    """

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.body = nn.Sequential(_layer(1, 16), _layer(16, 32), _layer(32, 64), _layer(64, 64, stride=1))
        self.linear = nn.Linear(64, num_classes)

    def features(self, x: Float[Tensor, "batch 1 32 32"]) -> Float[Tensor, "batch 64"]:
        """Means over sites of the last layer, for grey levels ``x`` in [0, 1]."""
        y: Tensor = self.body(x.contiguous(memory_format=torch.channels_last)).mean(dim=(2, 3))
        return y

    def forward(self, x: Float[Tensor, "batch 1 32 32"]) -> Float[Tensor, "batch classes"]:
        """Logits of the classes."""
        y: Tensor = self.linear(self.features(x))
        return y


def _layer(inputs: int, outputs: int, stride: int = 2) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(conv, nn.GroupNorm(8, outputs), nn.SiLU())
