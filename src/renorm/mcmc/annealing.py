"""Annealed importance sampling: from a law that can be sampled to one that cannot, and what the way weighs."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from renorm.errors import DataError
from renorm.mcmc.hmc import HMC, Action, value_and_grad
from renorm.spec import require

__all__ = ["Annealed", "Bridge", "anneal"]


class Bridge:
    r"""An action on the way between two: $S_t = (1 - t)\,S_0 + t\,S_1$.

    Args:
        start: $S_0$.
        end: $S_1$.
        t: From 0 to 1.

    Example:
        >>> Bridge(lambda x: x.flatten(1).sum(1), lambda x: 3 * x.flatten(1).sum(1), 0.5)(torch.ones(1, 1, 1))
        tensor([2.])
    """

    def __init__(self, start: Action, end: Action, t: float) -> None:
        self.start, self.end, self.t = start, end, t

    def __call__(self, x: Tensor) -> Tensor:
        """Nats of every field."""
        return self.t * self.end(x) if self.t == 1 else (1 - self.t) * self.start(x) + self.t * self.end(x)

    def grad(self, x: Tensor) -> Tensor:
        """Its gradient."""
        end = self.t * value_and_grad(self.end, x)[1]
        return end if self.t == 1 else (1 - self.t) * value_and_grad(self.start, x)[1] + end


class Annealed(NamedTuple):
    r"""What annealing leaves.

    Attributes:
        x: Fields, of the end's law once weighted.
        log_weight: Float64 (batch,); the mean of its exponential is $Z_1/Z_0$.
        acceptance: Mean of the trajectories.
    """

    x: Tensor
    log_weight: Float64[Tensor, " batch"]
    acceptance: float


def anneal(
    x: Float[Tensor, "batch channel *sites"],
    start: Action,
    end: Action,
    *,
    times: Sequence[float],
    generator: torch.Generator,
    steps: int = 5,
    step_size: float = 0.1,
    moves: int = 1,
) -> Annealed:
    r"""Carry samples of $e^{-S_0}/Z_0$ to $e^{-S_1}/Z_1$ by HMC at actions in between.

    $$ \ln w = \sum_k (t_{k+1} - t_k)\,[S_0(\phi_k) - S_1(\phi_k)], \qquad \langle w \rangle = Z_1/Z_0, \qquad
       \langle w\,O(\phi) \rangle = \frac{Z_1}{Z_0}\langle O \rangle_1 $$

    exactly, however fast it goes; the slower, the less weights spread.

    Args:
        x: Samples of the start.
        start: $S_0$, in nats.
        end: $S_1$.
        times: From 0 to 1, rising; after each change the fields move, also at the end.
        generator: All randomness.
        steps, step_size, moves: Leapfrog steps of a trajectory, their size, and trajectories at each time.

    Raises:
        ValueError: If times do not rise from 0 to 1.
        DataError: If there is no field, or an action is not finite on one, at first or on the way.

    Source:
        Jarzynski 1997, Phys. Rev. Lett. 78, 2690; Neal 2001, Stat. Comput. 11, 125.

    Example: the weight of a narrower Gaussian is the ratio of the widths.
        >>> x = torch.randn(4000, 1, 1, generator=torch.Generator().manual_seed(0))
        >>> narrow = lambda x: 2 * x.flatten(1).square().sum(1)
        >>> found = anneal(x, lambda x: narrow(x) / 4, narrow, times=[0.0, 0.25, 0.5, 0.75, 1.0],
        ...     generator=torch.Generator().manual_seed(1), step_size=0.3)
        >>> round(found.log_weight.exp().mean().item(), 1)
        0.5
    """
    times = [float(t) for t in times]
    rising = len(times) >= 2 and all(a < b for a, b in pairwise(times))
    require(rising and times[0] == 0 and times[-1] == 1, "times must rise from 0 to 1", times)
    require(moves >= 1, "moves must be >= 1 (fields must follow the action)", moves)
    if not len(x):
        raise DataError("one field or more can be annealed, got 0")
    log_weight = x.new_zeros(len(x), dtype=torch.float64)
    taken = []
    for before, t in pairwise(times):
        change = (t - before) * (start(x).double() - end(x).double())
        if not bool(change.isfinite().all()):
            raise DataError("both actions must be finite on every field that is annealed, got inf or nan")
        log_weight = log_weight + change
        kernel = HMC(Bridge(start, end, t), steps, step_size)
        state = kernel.start(x)
        for _ in range(moves):
            state, info = kernel.step(state, generator=generator)
            taken.append(float(info.acceptance.mean()))
        x = state.x
    return Annealed(x, log_weight, sum(taken) / len(taken))
