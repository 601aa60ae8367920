"""Training for a given time: two models that are compared have the same seconds, not the same steps."""

import math
import time
from collections.abc import Callable

import torch
from torch import Tensor

from renorm.cascade.conditional import CascadeConditional
from renorm.errors import NonFiniteLossError

__all__ = ["descend_for", "mean_log_prob", "parameters", "train_for"]

Batch = Callable[[], tuple[Tensor, Tensor]]
"""Details and their coarse fields, anew at each call."""

WARM_STEPS = 50  # Adam's first steps, while its averages are poor, are small ones


def train_for(law: CascadeConditional, batch: Batch, *, seconds: float, rate: float) -> int:
    """Maximise the likelihood for so many seconds of the processor, by ``descend_for`` with Adam.

    Returns:
        The steps that were made.
    """

    def loss(step: int) -> Tensor:
        detail, coarse = batch()
        return -law.log_prob(detail, coarse).mean() / detail[0].numel()

    return descend_for(torch.optim.Adam(law.parameters()), loss, seconds=seconds, rate=rate)


def descend_for(
    optimiser: torch.optim.Optimizer,
    loss: Callable[[int], Tensor],
    *,
    seconds: float,
    rate: float,
    after: Callable[[int], None] = lambda steps: None,
) -> int:
    r"""Minimise a loss for so many seconds of the processor.

    The rate rises for ``WARM_STEPS``, then falls to 0 along a cosine of the time that has passed; gradients longer than
    1 are scaled down.

    Args:
        optimiser: Of one group of weights.
        loss: Of the step of this number, from 0.
        seconds, rate: How long, and the highest rate.
        after: Called with the number of steps that are made.

    Returns:
        The steps that were made.

    Raises:
        NonFiniteLossError: If the loss is no finite number.
    """
    (group,) = optimiser.param_groups
    begun, steps = time.process_time(), 0
    while (share := (time.process_time() - begun) / seconds) < 1:
        group["lr"] = rate * min(1.0, (steps + 1) / WARM_STEPS) * 0.5 * (1 + math.cos(math.pi * share))
        value = loss(steps)
        if not torch.isfinite(value):
            raise NonFiniteLossError(
                f"the loss must stay finite, got {value.item()} at step {steps}; take a smaller rate"
            )
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        torch.nn.utils.clip_grad_norm_(group["params"], 1.0)
        optimiser.step()
        steps += 1
        after(steps)
    return steps


@torch.no_grad()
def mean_log_prob(law: CascadeConditional, detail: Tensor, coarse: Tensor, *, rows: int = 250) -> Tensor:
    """Nats of each detail, so many at a time."""
    parts = zip(detail.split(rows), coarse.split(rows), strict=True)
    return torch.cat([law.log_prob(y, c) for y, c in parts])


def parameters(law: torch.nn.Module) -> int:
    """Numbers that are trained."""
    return sum(p.numel() for p in law.parameters())
