"""Weights that a network begins with."""

import torch
from torch import nn

__all__ = ["xavier"]


def xavier(network: nn.Module, generator: torch.Generator | None) -> None:
    """Xavier-uniform weights and zero biases of all linear layers and convolutions, normal embeddings.

    Args:
        network: Changed in place; layers in the order in which they were registered.
        generator: Source of the weights; torch's own if not given.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> xavier(layer, torch.Generator().manual_seed(0))
        >>> bool(layer.bias.any()), bool((layer.weight.abs() <= 1.5**0.5).all())
        (False, True)
    """
    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            nn.init.xavier_uniform_(layer.weight, generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.Embedding):
            nn.init.normal_(layer.weight, generator=generator)
