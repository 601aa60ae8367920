"""The residual network of He et al. for 32 x 32 colour images: a fixed eye that measures look through."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from renorm.spec import require

__all__ = ["CifarResNet"]

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class CifarResNet(nn.Module):
    """CIFAR ResNet-``depth``: three stages of 16, 32 and 64 planes, ``(depth - 2) / 6`` blocks each.

    Colours are standardised inside, so a field goes in as it is stored, in [0, 1].

    Args:
        depth: Number of layers with weights, 6 n + 2: 20, 32, 44, 56, ...

    Raises:
        ValueError: If ``depth`` is not of that form.

    Source: He, Zhang, Ren, Sun, "Deep residual learning for image recognition", CVPR 2016, section 4.2, with
    shortcuts of option A; parameters are named as in ``akamaster/pytorch_resnet_cifar10``.

    Example:
        >>> net = CifarResNet(20).eval()
        >>> net.features(torch.rand(2, 3, 32, 32)).shape, net(torch.rand(2, 3, 32, 32)).shape
        (torch.Size([2, 64]), torch.Size([2, 10]))
    """

    mean: Tensor
    std: Tensor

    def __init__(self, depth: int) -> None:
        super().__init__()
        require(depth >= 8 and depth % 6 == 2, "depth must be 6 n + 2 (20, 56, ...)", depth)
        n = (depth - 2) // 6
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(STD)[:, None, None], persistent=False)
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, n)
        self.layer2 = _stage(16, 32, n)
        self.layer3 = _stage(32, 64, n)
        self.linear = nn.Linear(64, 10)

    def features(self, x: Float[Tensor, "batch 3 32 32"]) -> Float[Tensor, "batch 64"]:
        """Means over sites of the last stage's planes, for colours ``x`` in [0, 1]."""
        h = ((x - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        h = F.relu(self.bn1(self.conv1(h)))
        y: Tensor = self.layer3(self.layer2(self.layer1(h))).mean(dim=(2, 3))
        return y

    def forward(self, x: Float[Tensor, "batch 3 32 32"]) -> Float[Tensor, "batch 10"]:
        """Logits of the ten classes."""
        y: Tensor = self.linear(self.features(x))
        return y


class BasicBlock(nn.Module):
    """Two convolutions beside the identity; where sites are halved, its missing planes are zero."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride = stride
        self.missing = (outputs - inputs) // 2

    def forward(self, x: Tensor) -> Tensor:
        h = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        shortcut = x[:, :, :: self.stride, :: self.stride]
        return F.relu(h + F.pad(shortcut, (0, 0, 0, 0, self.missing, self.missing)))


def _stage(inputs: int, outputs: int, blocks: int) -> nn.Sequential:
    first = BasicBlock(inputs, outputs, stride=outputs // inputs)
    return nn.Sequential(first, *(BasicBlock(outputs, outputs, stride=1) for _ in range(blocks - 1)))
