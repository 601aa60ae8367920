"""Adam along a cosine: the one loop by which parts of a cascade are trained."""

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from renorm.errors import NonFiniteLossError
from renorm.spec import require

__all__ = ["Tell", "Trained", "descend"]

Tell = Callable[[int, float], None]
"""Told of each step: how many are done, and the loss."""


class Trained(NamedTuple):
    """What a fit came to.

    Attributes:
        losses: Of each step, in nats: for fields -ln p, for an action the variational free energy, >= -ln Z.
        spread: Standard deviation of ln w over the last batch: 0 for a perfect fit to an action.
    """

    losses: list[float]
    spread: float


def descend(
    parameters: Iterable[nn.Parameter],
    loss: Callable[[], tuple[Tensor, float]],
    *,
    steps: int,
    rate: float,
    tell: Tell | None = None,
) -> Trained:
    r"""Adam, its rate falling to 0 along a cosine: $\eta_k = \tfrac\eta2 (1 + \cos \pi k / n)$.

    Args:
        parameters: What is changed; one that is shared by several parts counts once.
        loss: Gives its value, and the spread behind it.
        steps: n.
        rate: $\eta$.
        tell: Told of each step.

    Raises:
        NonFiniteLossError: If the loss is no number.

    Example:
        >>> x = nn.Parameter(torch.tensor(1.0))
        >>> trained = descend([x, x], lambda: (x**2, 0.0), steps=200, rate=0.05)
        >>> abs(x.item()) < 0.05, len(trained.losses)
        (True, 200)
    """
    require(steps >= 1, "steps must be >= 1 (there is nothing to fit)", steps)
    own = list(dict.fromkeys(p for p in parameters if p.requires_grad))
    require(bool(own), "a fit needs parameters to train (every part here is exact as it is)", len(own))
    adam = torch.optim.Adam(own, lr=rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(adam, lambda k: 0.5 * (1 + math.cos(math.pi * min(k, steps) / steps)))
    losses, spread = [], math.nan
    for step in range(steps):
        value, spread = loss()
        if not torch.isfinite(value):
            raise NonFiniteLossError(
                f"the loss must stay finite, got {value.item()} at step {step}: is the action bounded below? If it is, "
                "take a smaller rate"
            )
        adam.zero_grad(set_to_none=True)
        value.backward()
        torch.nn.utils.clip_grad_norm_(own, 10.0)
        adam.step()
        schedule.step()
        losses.append(value.item())
        if tell is not None:
            tell(step + 1, losses[-1])
    return Trained(losses, spread)
