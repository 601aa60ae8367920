"""The vision transformers of DINOv2: eyes that learned from pictures without labels."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from renorm.spec import require

__all__ = ["SIZES", "DinoV2"]

SIZES = {"small": (384, 12, 6), "base": (768, 12, 12), "large": (1024, 24, 16)}
"""Width, blocks and heads of ViT-S/14, ViT-B/14 and ViT-L/14."""

PATCH, SIDE, KNOWN = 14, 224, 37  # sites of a patch, of a picture; patches of the 518 x 518 of the training
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SHIFT = 0.1  # added to the number of patches where positions are stretched, as the published network does


class DinoV2(nn.Module):
    r"""A vision transformer of 14 x 14 patches; its features are the class token after the last norm.

    A picture in [0, 1] of any size is brought to 224 x 224 by antialiased bicubic interpolation, clipped to
    [0, 1] where that overshoots, and its colours are standardised; all of it happens inside. So there are 16 x 16
    patches, while positions were learned on 37 x 37. They are interpolated bicubically, without antialiasing, at
    points $(i + \tfrac12) \cdot 37 / 16.1 - \tfrac12$: the 0.1 is that of the published network, and moves
    the points by up to 0.22 of the learned spacing. A block is

    $$ x \leftarrow x + \gamma_1 \odot \mathrm{attention}(\mathrm{norm}_1 x), \qquad
       x \leftarrow x + \gamma_2 \odot \mathrm{mlp}(\mathrm{norm}_2 x) . $$

    Args:
        width: Numbers of a token.
        depth: Number of blocks.
        heads: Heads of the attention, a divisor of ``width``.

    Raises:
        ValueError: If ``heads`` does not divide ``width``.

    Source:
        Oquab et al. 2023, "DINOv2", arXiv:2304.07193; Dosovitskiy et al. 2021, arXiv:2010.11929. Parameters are
        named as in ``dinov2_vits14_pretrain.pth`` and its larger siblings, without registers.

    Example:
        >>> DinoV2(width=24, depth=1, heads=2).features(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 24])
    """

    def __init__(self, width: int, depth: int, heads: int) -> None:
        super().__init__()
        require(width % heads == 0, f"heads must divide the width {width}", heads)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + KNOWN**2, width))
        self.mask_token = nn.Parameter(torch.zeros(1, width))  # of the training; read, never used
        self.patch_embed = PatchEmbedding(width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def features(self, x: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch width"]:
        """The class token, for colours ``x`` in [0, 1]."""
        x = F.interpolate(x, size=(SIDE, SIDE), mode="bicubic", antialias=True).clamp(0, 1)
        mean, std = (x.new_tensor(values)[:, None, None] for values in (MEAN, STD))
        patches = self.patch_embed((x - mean) / std)
        h = torch.cat([self.cls_token.expand(len(x), -1, -1), patches], dim=1) + self.positions()
        for block in self.blocks:
            h = block(h)
        y: Tensor = self.norm(h)[:, 0]
        return y

    def positions(self) -> Float[Tensor, "1 tokens width"]:
        """What is added to the tokens: that of the class as it is, those of the patches on 16 x 16 points."""
        patches = self.pos_embed[:, 1:].unflatten(1, (KNOWN, KNOWN)).permute(0, 3, 1, 2)
        scale = (SIDE // PATCH + SHIFT) / KNOWN
        patches = F.interpolate(patches, scale_factor=scale, mode="bicubic").flatten(2).transpose(1, 2)
        return torch.cat([self.pos_embed[:, :1], patches], dim=1)

    def forward(self, x: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch width"]:
        """The features: there is no head."""
        return self.features(x)


class PatchEmbedding(nn.Module):
    """Each patch as one token, row by row."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, PATCH, stride=PATCH)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.proj(x).flatten(2).transpose(1, 2)
        return y


class Block(nn.Module):
    """Attention and a two-layer network, each added to the tokens at a learned scale."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads)
        self.ls1 = Scale(width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Perceptron(width)
        self.ls2 = Scale(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        y: Tensor = x + self.ls2(self.mlp(self.norm2(x)))
        return y


class Attention(nn.Module):
    """Every token looks at every other."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value)
        y: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return y


class Scale(nn.Module):
    """A learned factor for each number of a token."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Perceptron(nn.Module):
    """Two layers, four times as wide between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return y
