"""How a network is told the scale, and the class: sinusoids of $t$, a table of labels, one small MLP."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from renorm.errors import RecipeError

__all__ = ["ScaleEmbedding", "sinusoids"]

RESOLUTION = 1000.0  # scales told apart by the fastest sinusoid: t in [0, 1] is read like a step of 1000


def sinusoids(t: Float[Tensor, "batch"], width: int) -> Float[Tensor, "batch width"]:
    r"""Sines, then cosines, of the scale at geometrically spaced rates.

    $$ \sin(1000\, t\, \omega_i),\ \cos(1000\, t\, \omega_i), \qquad
       \omega_i = 10^{-4 i / n}, \qquad i = 0, \dots, n - 1, \qquad n = \text{width} / 2. $$

    Args:
        t: Scale, 0 (finest) to 1 (coarsest).
        width: Number of features, even.

    Example:
        >>> sinusoids(torch.tensor([0.0, 0.001]), 2)
        tensor([[0.0000, 1.0000],
                [0.8415, 0.5403]])
    """
    half = width // 2
    rate = torch.exp(torch.arange(half, device=t.device, dtype=t.dtype) * (-math.log(1e4) / half))
    phase = RESOLUTION * t[:, None] * rate
    return torch.cat([phase.sin(), phase.cos()], dim=1)


class ScaleEmbedding(nn.Module):
    """Scale and class as one vector: ``MLP(sinusoids(t)) + table[condition]``.

    Args:
        width: Number of sinusoids.
        features: Channels of the vector.
        num_classes: Labels ``0 .. num_classes - 1``; the label ``num_classes`` means "no class" and is what
            ``condition=None`` reads, so that one network can be trained with and without labels.

    Raises:
        RecipeError: On a condition where ``num_classes`` is 0.

    Example:
        >>> ScaleEmbedding(8, 32, num_classes=10)(torch.rand(5)).shape
        torch.Size([5, 32])
    """

    def __init__(self, width: int, features: int, num_classes: int = 0) -> None:
        super().__init__()
        self.width = width
        self.num_classes = num_classes
        self.mlp = nn.Sequential(nn.Linear(width, features), nn.SiLU(), nn.Linear(features, features))
        self.table = nn.Embedding(num_classes + 1, features) if num_classes else None

    def forward(
        self, t: Float[Tensor, "batch"], condition: Int[Tensor, "batch"] | None = None
    ) -> Float[Tensor, "batch features"]:
        h: Tensor = self.mlp(sinusoids(t, self.width))
        if self.table is None:
            if condition is not None:
                raise RecipeError("this network has no classes (it was built with num_classes=0), got a condition")
            return h
        return h + (self.table.weight[-1] if condition is None else self.table(condition))
