"""Training for a given time: two models that are compared have the same seconds, not the same steps."""

import math
import time
from collections.abc import Callable

import torch
from torch import Tensor

from renorm.cascade.conditional import CascadeConditional
from renorm.errors import NonFiniteLossError

__all__ = ["mean_log_prob", "parameters", "train_for"]

Batch = Callable[[], tuple[Tensor, Tensor]]
"""Details and their coarse fields, anew at each call."""

WARM_STEPS = 50  # Adam's first steps, while its averages are poor, are small ones


def train_for(law: CascadeConditional, batch: Batch, *, seconds: float, rate: float) -> int:
    r"""Maximise the likelihood for so many seconds of the processor.

    Adam, whose rate falls to 0 along a cosine of the time that has passed.

    Returns:
        The steps that were made.
    """
    adam = torch.optim.Adam(law.parameters(), lr=rate)
    begun, steps = time.process_time(), 0
    while (share := (time.process_time() - begun) / seconds) < 1:
        adam.param_groups[0]["lr"] = rate * min(1.0, (steps + 1) / WARM_STEPS) * 0.5 * (1 + math.cos(math.pi * share))
        detail, coarse = batch()
        loss = -law.log_prob(detail, coarse).mean() / detail[0].numel()
        if not torch.isfinite(loss):
            raise NonFiniteLossError(
                f"the loss must stay finite, got {loss.item()} at step {steps}; take a smaller rate"
            )
        adam.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(law.parameters(), 1.0)
        adam.step()
        steps += 1
    return steps


@torch.no_grad()
def mean_log_prob(law: CascadeConditional, detail: Tensor, coarse: Tensor, *, rows: int = 250) -> Tensor:
    """Nats of each detail, so many at a time."""
    parts = zip(detail.split(rows), coarse.split(rows), strict=True)
    return torch.cat([law.log_prob(y, c) for y, c in parts])


def parameters(law: torch.nn.Module) -> int:
    """Numbers that are trained."""
    return sum(p.numel() for p in law.parameters())
