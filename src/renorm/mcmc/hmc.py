"""Hamiltonian Monte Carlo: momenta carry the field far along its action, and a final test keeps the law exact."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from renorm.errors import DataError
from renorm.mcmc.kernel import Info, tuned
from renorm.spec import require

__all__ = ["HMC", "Action", "GradientState", "leapfrog", "value_and_grad"]

Action = Callable[[Tensor], Tensor]
"""Fields (batch, channel, *sites) to actions (batch,), in nats; one with a method ``grad`` is not differentiated."""


def value_and_grad(action: Action, x: Tensor) -> tuple[Tensor, Tensor]:
    """Action of every field, and its gradient: by ``action.grad`` if there is one, else by autograd.

    Example:
        >>> value_and_grad(lambda x: (x**2).flatten(1).sum(1), torch.tensor([[[1.0, 2.0]]]))
        (tensor([5.]), tensor([[[2., 4.]]]))
    """
    analytic = getattr(action, "grad", None)
    if analytic is not None:
        with torch.no_grad():
            return action(x), analytic(x)
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        value = action(leaf)
        (gradient,) = torch.autograd.grad(value.sum(), leaf)
    return value.detach(), gradient


def leapfrog(
    action: Action, x: Tensor, momentum: Tensor, gradient: Tensor, *, step_size: float, steps: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    r"""Hamilton's equations for $H = \tfrac12 p^2 + S(\phi)$, by ``steps`` steps of the leapfrog of order 2.

    $$ p \leftarrow p - \tfrac\epsilon2\nabla S, \qquad \phi \leftarrow \phi + \epsilon p, \qquad
       p \leftarrow p - \tfrac\epsilon2\nabla S $$

    Args:
        gradient: $\nabla S$ at ``x``.
        step_size: $\epsilon$; its unit is that of time.

    Returns:
        Fields, momenta, actions and gradients at the end.

    Invariant:
        Reversible and volume-preserving: from the end with $-p$ it comes back to the beginning.

    Example:
        >>> x, p = torch.zeros(1, 1, 1).double(), torch.ones(1, 1, 1).double()
        >>> end, *_ = leapfrog(lambda x: x.flatten(1).square().sum(1) / 2, x, p, x, step_size=0.01, steps=157)
        >>> round(end.item(), 4)  # a quarter of a period
        1.0
    """
    for _ in range(steps):
        momentum = momentum - step_size / 2 * gradient
        x = x + step_size * momentum
        value, gradient = value_and_grad(action, x)
        momentum = momentum - step_size / 2 * gradient
    return x, momentum, value, gradient


class GradientState(NamedTuple):
    """Where the chains stand, with action and gradient there, the step size and the steps done so far."""

    x: Tensor
    action: Tensor
    gradient: Tensor
    step_size: float
    steps_done: int


@dataclass(frozen=True)
class HMC:
    r"""Hamiltonian Monte Carlo with unit masses, for any action that has a gradient.

    $$ p \sim N(0, 1), \qquad (\phi', p') = \text{leapfrog}(\phi, p), \qquad
       p_\text{accept} = \min(1, e^{H(\phi, p) - H(\phi', p')}) $$

    A proposal whose energy is not finite is rejected.

    Args:
        action: $S$ in nats, the density is $e^{-S}$ up to a constant.
        steps: Leapfrog steps of a trajectory.
        step_size: $\epsilon$ of the first step.
        burn_in: Steps in which $\epsilon$ is tuned to ``target``; drop their fields.
        target: Mean acceptance to aim at.
        jitter: Each trajectory takes a step size within this share of $\epsilon$, so that no mode's period
            can match the trajectory's length for ever.

    Raises:
        ValueError: If ``steps``, ``step_size`` or ``jitter`` is out of range.

    Example:
        >>> kernel = HMC(lambda x: x.flatten(1).square().sum(1) / 2)
        >>> state, info = kernel.step(kernel.start(torch.zeros(2, 1, 4)), generator=torch.Generator().manual_seed(0))
        >>> state.x.shape, bool((info.acceptance > 0.9).all())
        (torch.Size([2, 1, 4]), True)
    """

    action: Action
    steps: int = 10
    step_size: float = 0.1
    burn_in: int = 0
    target: float = 0.8
    jitter: float = 0.1

    def __post_init__(self) -> None:
        require(self.steps >= 1, "steps must be >= 1 (a trajectory of none goes nowhere)", self.steps)
        require(self.step_size > 0, "step_size must be > 0 (else nothing moves)", self.step_size)
        require(0 <= self.jitter < 1, "jitter must be in [0, 1) (the step size must stay positive)", self.jitter)

    def start(self, x: Float[Tensor, "batch channel *sites"]) -> GradientState:
        """The state of chains that begin at these fields.

        Raises:
            DataError: If the action of a field is not finite: no proposal could be compared with it.
        """
        value, gradient = value_and_grad(self.action, x)
        if not bool(value.isfinite().all()):
            raise DataError("chains must begin where the action is finite (else nothing compares), got inf or nan")
        return GradientState(x, value, gradient, self.step_size, 0)

    def move(self, state: GradientState, x: Float[Tensor, "batch channel *sites"]) -> GradientState:
        """The same state, put at other fields."""
        value, gradient = value_and_grad(self.action, x)
        return GradientState(x, value, gradient, state.step_size, state.steps_done)

    def step(self, state: GradientState, *, generator: torch.Generator) -> tuple[GradientState, Info]:
        """One trajectory of every chain."""
        x = state.x
        u = float(torch.rand((), generator=generator, device=x.device))
        step_size = state.step_size * (1 + self.jitter * (2 * u - 1))
        momentum = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
        new, end, value, gradient = leapfrog(
            self.action, x, momentum, state.gradient, step_size=step_size, steps=self.steps
        )
        gain = state.action - value + (momentum.square() - end.square()).flatten(1).sum(1) / 2
        chance = gain.nan_to_num(nan=-torch.inf, posinf=-torch.inf).exp().clamp_max(1.0)
        accept = torch.rand(chance.shape, generator=generator, dtype=x.dtype, device=x.device) < chance
        here = accept.reshape(-1, *[1] * (x.dim() - 1))
        return GradientState(
            torch.where(here, new, x),
            torch.where(accept, value, state.action),
            torch.where(here, gradient, state.gradient),
            tuned(
                state.step_size,
                float(chance.mean()),
                target=self.target,
                steps_done=state.steps_done,
                burn_in=self.burn_in,
            ),
            state.steps_done + 1,
        ), Info(chance)
