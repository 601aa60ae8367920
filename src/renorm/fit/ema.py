"""The exponential moving average of the weights: it is sampled from, while the weights still wander."""

import copy

import torch
from torch import nn

__all__ = ["averaged", "follow"]


def averaged(network: nn.Module) -> nn.Module:
    """A copy of ``network`` for its average to live in: in eval mode (no dropout), without gradients."""
    return copy.deepcopy(network).eval().requires_grad_(False)


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the average towards the weights, in place; buffers are copied as they are.

    ::

        average <- decay * average + (1 - decay) * weights

    Args:
        average: From ``averaged(network)``.
        network: The network after an optimiser step.
        decay: In [0, 1]; ``FitSpec.ema_decay`` gives the usual ramp.

    Example:
        >>> network = nn.Linear(1, 1, bias=False)
        >>> average = averaged(network)
        >>> _ = network.weight.data.add_(1.0)
        >>> follow(average, network, decay=0.75)
        >>> round((network.weight - average.weight).item(), 6)
        0.75
    """
    torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1.0 - decay)
    for kept, fresh in zip(average.buffers(), network.buffers(), strict=True):
        kept.copy_(fresh)
