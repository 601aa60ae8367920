"""Inception-v3 with the pools of the graph of December 2015: the network behind the usual FID."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["Inception"]

SIDE = 299
Kernel = int | tuple[int, int]
Layer = tuple[str, int, Kernel]  # name, planes, kernel
Path = tuple[list[Layer], list[Layer]]  # layers in a row, then layers side by side
Pool = Literal["mean", "max"]


class Inception(nn.Module):
    r"""Inception-v3: 94 convolutions, 2048 features of a colour picture, logits of 1008 classes.

    A picture in [0, 1] of any size is brought to 299 x 299 by bilinear interpolation without antialiasing and
    to [-1, 1]; both happen inside. Every convolution is followed by batch norm ($\epsilon = 10^{-3}$) and ReLU.
    Three things differ from the network of the paper, as they do in the graph whose weights are used for FID:
    mean pools inside the blocks leave the border out of the mean, the last block pools by maximum, and there are
    1008 classes. There is no auxiliary head.

    Source:
        Szegedy et al. 2016, "Rethinking the Inception architecture", arXiv:1512.00567; Heusel et al. 2017,
        arXiv:1706.08500. Parameters are named as in ``pt_inception-2015-12-05-6726825d.pth``, the published port of
        the graph ``inception-2015-12-05``.

    Example:
        >>> with torch.device("meta"):  # shapes alone, no numbers
        ...     net = Inception().eval()
        ...     net.features(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 2048])
    """

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Convolution(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = Convolution(32, 32, 3, padded=False)
        self.Conv2d_2b_3x3 = Convolution(32, 64, 3)
        self.Conv2d_3b_1x1 = Convolution(64, 80, 1)
        self.Conv2d_4a_3x3 = Convolution(80, 192, 3, padded=False)
        self.Mixed_5b = _square(192, pooled=32)
        self.Mixed_5c = _square(256, pooled=64)
        self.Mixed_5d = _square(288, pooled=64)
        self.Mixed_6a = _halve_35(288)
        self.Mixed_6b = _seven(768, 128)
        self.Mixed_6c = _seven(768, 160)
        self.Mixed_6d = _seven(768, 160)
        self.Mixed_6e = _seven(768, 192)
        self.Mixed_7a = _halve_17(768)
        self.Mixed_7b = _fork(1280, pool="mean")
        self.Mixed_7c = _fork(2048, pool="max")
        self.fc = nn.Linear(2048, 1008)

    def maps(self, x: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch 2048 y x"]:
        """Planes of the last block for colours in [-1, 1], at the size at which they come (75 x 75 or more)."""
        h = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        h = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(h, 3, stride=2)))
        h = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(F.max_pool2d(h, 3, stride=2))))
        h = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(h)))))
        y: Tensor = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(h)))
        return y

    def features(self, x: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch 2048"]:
        """Means over sites of the last block's planes, for colours ``x`` in [0, 1]."""
        x = F.interpolate(x, size=(SIDE, SIDE), mode="bilinear")
        return self.maps(2 * x - 1).mean(dim=(2, 3))

    def forward(self, x: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch 1008"]:
        """Logits of the classes."""
        y: Tensor = self.fc(self.features(x))
        return y


class Convolution(nn.Module):
    """Convolution without bias, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: Kernel, *, stride: int = 1, padded: bool = True) -> None:
        super().__init__()
        rows, columns = (kernel, kernel) if isinstance(kernel, int) else kernel
        border = (rows // 2, columns // 2) if padded and stride == 1 else (0, 0)
        self.conv = nn.Conv2d(inputs, outputs, (rows, columns), stride=stride, padding=border, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class Mixed(nn.Module):
    """Paths of convolutions side by side and one of a 3 x 3 pool; their planes are stacked in this order.

    Args:
        pooled: Planes of the 1 x 1 convolution after the pool; 0: none.
        stride: 2 halves the sites, at the last layer of each path and at the pool.
    """

    def __init__(self, inputs: int, paths: Sequence[Path], *, pool: Pool, pooled: int = 0, stride: int = 1) -> None:
        super().__init__()
        self.pool, self.pooled, self.stride = pool, pooled, stride
        self.paths = [([name for name, *_ in row], [name for name, *_ in ends]) for row, ends in paths]
        for row, ends in paths:
            planes = inputs
            for name, outputs, kernel in row:
                self.add_module(name, Convolution(planes, outputs, kernel))
                planes = outputs
            for name, outputs, kernel in ends:
                self.add_module(name, Convolution(planes, outputs, kernel, stride=stride))
        if pooled:
            self.branch_pool = Convolution(inputs, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        stacked: list[Tensor] = []
        for row, ends in self.paths:
            h = x
            for name in row:
                h = self.get_submodule(name)(h)
            stacked += [self.get_submodule(name)(h) for name in ends]
        border = 1 if self.stride == 1 else 0
        if self.pool == "mean":
            h = F.avg_pool2d(x, 3, stride=self.stride, padding=border, count_include_pad=False)
        else:
            h = F.max_pool2d(x, 3, stride=self.stride, padding=border)
        return torch.cat([*stacked, self.branch_pool(h) if self.pooled else h], dim=1)


ROW, COLUMN = (1, 7), (7, 1)


def _square(inputs: int, *, pooled: int) -> Mixed:
    """Figure 5 of the paper, at 35 x 35, with one 5 x 5 kept."""
    paths: list[Path] = [
        ([], [("branch1x1", 64, 1)]),
        ([("branch5x5_1", 48, 1)], [("branch5x5_2", 64, 5)]),
        ([("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3)], [("branch3x3dbl_3", 96, 3)]),
    ]
    return Mixed(inputs, paths, pool="mean", pooled=pooled)


def _halve_35(inputs: int) -> Mixed:
    """Figure 10: 35 x 35 to 17 x 17."""
    paths: list[Path] = [
        ([], [("branch3x3", 384, 3)]),
        ([("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3)], [("branch3x3dbl_3", 96, 3)]),
    ]
    return Mixed(inputs, paths, pool="max", stride=2)


def _seven(inputs: int, planes: int) -> Mixed:
    """Figure 6, at 17 x 17: 7 x 7 as 1 x 7 and 7 x 1."""
    once: list[Layer] = [("branch7x7_1", planes, 1), ("branch7x7_2", planes, ROW)]
    twice: list[Layer] = [("branch7x7dbl_1", planes, 1)]
    twice += [(f"branch7x7dbl_{i}", planes, kernel) for i, kernel in ((2, COLUMN), (3, ROW), (4, COLUMN))]
    paths: list[Path] = [
        ([], [("branch1x1", 192, 1)]),
        (once, [("branch7x7_3", 192, COLUMN)]),
        (twice, [("branch7x7dbl_5", 192, ROW)]),
    ]
    return Mixed(inputs, paths, pool="mean", pooled=192)


def _halve_17(inputs: int) -> Mixed:
    """17 x 17 to 8 x 8."""
    around: list[Layer] = [("branch7x7x3_1", 192, 1), ("branch7x7x3_2", 192, ROW), ("branch7x7x3_3", 192, COLUMN)]
    paths: list[Path] = [
        ([("branch3x3_1", 192, 1)], [("branch3x3_2", 320, 3)]),
        (around, [("branch7x7x3_4", 192, 3)]),
    ]
    return Mixed(inputs, paths, pool="max", stride=2)


def _fork(inputs: int, *, pool: Pool) -> Mixed:
    """Figure 7, at 8 x 8: paths that end in 1 x 3 beside 3 x 1."""
    twice: list[Layer] = [("branch3x3dbl_1", 448, 1), ("branch3x3dbl_2", 384, 3)]
    paths: list[Path] = [
        ([], [("branch1x1", 320, 1)]),
        ([("branch3x3_1", 384, 1)], [("branch3x3_2a", 384, (1, 3)), ("branch3x3_2b", 384, (3, 1))]),
        (twice, [("branch3x3dbl_3a", 384, (1, 3)), ("branch3x3dbl_3b", 384, (3, 1))]),
    ]
    return Mixed(inputs, paths, pool=pool, pooled=192)
