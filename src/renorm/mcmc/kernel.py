"""What every sampler is: a kernel with a state that is all it needs to go on, and the loop that runs it."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from renorm.spec import require

__all__ = ["Cycle", "CycleState", "Info", "Kernel", "Run", "State", "run", "tuned"]


class Info(NamedTuple):
    """For people, not for the next step: the mean probability that a move was accepted, for each chain."""

    acceptance: Tensor


class State(NamedTuple):
    """Where the chains stand: fields (batch, channel, *sites), the width of a proposal, steps done so far."""

    x: Tensor
    step_size: float
    steps_done: int


S = TypeVar("S")


@runtime_checkable
class Kernel(Protocol[S]):
    """A Markov kernel that leaves one law as it is; ``state.x`` are the fields."""

    def start(self, x: Tensor) -> S:
        """The state of chains that begin at these fields."""
        ...

    def move(self, state: S, x: Tensor) -> S:
        """The same state, put at other fields (another kernel moved them)."""
        ...

    def step(self, state: S, *, generator: torch.Generator) -> tuple[S, Info]:
        """One move of every chain."""
        ...


class Run(NamedTuple):
    """What a run leaves: kept values (kept, ...), the state to go on with, mean acceptance of every step."""

    values: Tensor
    state: Any
    acceptance: Float[Tensor, " steps"]


def run(
    kernel: Kernel,
    state: Any,
    steps: int,
    *,
    generator: torch.Generator,
    thin: int = 1,
    observe: Callable[[Tensor], Tensor] | None = None,
) -> Run:
    r"""Move all chains ``steps`` times, and keep every ``thin``-th field, or what ``observe`` makes of it.

    A run of $a + b$ steps is a run of $a$ steps and, from its state and the same generator, a run of $b$.

    Args:
        kernel: What moves; its state came from ``kernel.start(x)`` or an earlier run.
        state: Where to begin.
        steps: Moves of each chain; `thin` should divide it, or the last moves are not kept.
        generator: All randomness, on the device of the fields.
        thin: Moves from one kept field to the next.
        observe: Function of the fields (batch, channel, \*sites); the fields themselves by default.

    Raises:
        ValueError: If ``thin`` < 1, or ``steps`` < ``thin``, so that nothing would be kept.

    Example:
        >>> from renorm.mcmc.cluster import Cluster
        >>> kernel, generator = Cluster(coupling=0.4), torch.Generator().manual_seed(0)
        >>> result = run(kernel, kernel.start(torch.ones(3, 1, 4, 4)), 10, generator=generator, thin=5)
        >>> result.values.shape, result.state.steps_done
        (torch.Size([2, 3, 1, 4, 4]), 10)
    """
    require(thin >= 1, "thin must be >= 1 (each kept field is so many moves after the last)", thin)
    require(steps >= thin, f"steps must be >= thin = {thin} (nothing would be kept)", steps)
    kept, acceptance = [], []
    for index in range(1, steps + 1):
        state, info = kernel.step(state, generator=generator)
        acceptance.append(info.acceptance.mean())
        if index % thin == 0:
            kept.append(state.x if observe is None else observe(state.x))
    return Run(torch.stack(kept), state, torch.stack(acceptance))


class CycleState(NamedTuple):
    """Fields, and the state of each kernel of the cycle."""

    x: Tensor
    parts: tuple[Any, ...]
    steps_done: int


@dataclass(frozen=True)
class Cycle:
    """One kernel after another as a single step: a cluster move for the signs, HMC for the rest.

    Args:
        kernels: In the order in which they move.

    Raises:
        ValueError: If there is no kernel.

    Example:
        >>> from renorm.mcmc.cluster import Cluster
        >>> from renorm.mcmc.metropolis import SpinMetropolis
        >>> cycle = Cycle((Cluster(0.4), SpinMetropolis(0.4)))
        >>> state, info = cycle.step(cycle.start(torch.ones(2, 1, 4, 4)), generator=torch.Generator().manual_seed(0))
        >>> state.steps_done, info.acceptance.shape
        (1, torch.Size([2]))
    """

    kernels: tuple[Kernel, ...]

    def __post_init__(self) -> None:
        require(len(self.kernels) > 0, "a cycle needs at least one kernel", self.kernels)

    def start(self, x: Float[Tensor, "batch channel *sites"]) -> CycleState:
        """The state of chains that begin at these fields."""
        return CycleState(x, tuple(kernel.start(x) for kernel in self.kernels), 0)

    def move(self, state: CycleState, x: Float[Tensor, "batch channel *sites"]) -> CycleState:
        """The same state, put at other fields."""
        return state._replace(x=x)

    def step(self, state: CycleState, *, generator: torch.Generator) -> tuple[CycleState, Info]:
        """One move by each kernel; the acceptance is that of the last."""
        x, parts = state.x, []
        for kernel, part in zip(self.kernels, state.parts, strict=True):
            part, info = kernel.step(kernel.move(part, x), generator=generator)
            x = part.x
            parts.append(part)
        return CycleState(x, tuple(parts), state.steps_done + 1), info


def tuned(step_size: float, acceptance: float, *, target: float, steps_done: int, burn_in: int) -> float:
    r"""The step size after one more step: while burn-in lasts it follows the acceptance (Robbins and Monro),

    $$ \ln\epsilon \leftarrow \ln\epsilon + 2\,(t + 1)^{-1/2}\,(a_t - a^\star), \qquad t < \text{burn-in}, $$

    and then stays, for a chain that goes on adapting keeps no law.

    Example:
        >>> [round(tuned(0.1, 1.0, target=0.8, steps_done=t, burn_in=5), 6) for t in (0, 3, 5)]
        [0.149182, 0.12214, 0.1]
    """
    if steps_done >= burn_in:
        return step_size
    return step_size * math.exp(2 * (acceptance - target) / (steps_done + 1) ** 0.5)
