"""Metropolis moves of single sites, one colour of the checkerboard after the other."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from renorm.errors import DataError
from renorm.mcmc.kernel import Info, State, tuned
from renorm.mcmc.torus import checkerboard, neighbour_sum
from renorm.spec import require

__all__ = ["SiteMetropolis", "SpinMetropolis"]


@dataclass(frozen=True)
class SpinMetropolis:
    r"""Spin flips for $S(s) = -K\sum_{\langle xy\rangle} s_x s_y$ on a torus with even sides.

    $$ p(s_x \to -s_x) = \min(1, e^{-2K s_x h_x}), \qquad h_x = \sum_{y \sim x} s_y $$

    A step is a sweep: all even sites at once, then all odd sites. Each half keeps detailed balance. Flips that cost
    nothing are always made, so at K = 0 spins go back and forth and forget nothing; the heat bath does not.

    Args:
        coupling: $K$, the inverse temperature times the exchange; may be negative.

    Example:
        >>> kernel = SpinMetropolis(0.3)
        >>> state, info = kernel.step(kernel.start(torch.ones(2, 1, 4, 4)), generator=torch.Generator().manual_seed(0))
        >>> sorted(set(state.x.flatten().tolist()))
        [-1.0, 1.0]
    """

    coupling: float

    def start(self, x: Float[Tensor, "batch channel *sites"]) -> State:
        """The state of chains that begin at these spins.

        Raises:
            DataError: If a spin is neither 1 nor -1.
            RecipeError: If a side is odd.
        """
        if not bool((x.abs() == 1).all()):
            raise DataError(f"spins must be 1 or -1, got values up to {float(x.abs().max())}")
        checkerboard(tuple(x.shape[2:]))
        return State(x, 0.0, 0)

    def move(self, state: State, x: Float[Tensor, "batch channel *sites"]) -> State:
        """The same state, put at other spins."""
        return state._replace(x=x)

    def flip_probability(self, x: Float[Tensor, "batch channel *sites"]) -> Float[Tensor, "batch channel *sites"]:
        """With what probability each spin would flip, were it its turn."""
        return (x * neighbour_sum(x) * (-2 * self.coupling)).exp().clamp_max(1.0)

    def step(self, state: State, *, generator: torch.Generator) -> tuple[State, Info]:
        """One sweep of every chain."""
        x, accepted = state.x, torch.zeros_like(state.x)
        even = checkerboard(tuple(x.shape[2:]), x.device)
        u = torch.rand(x.shape, generator=generator, dtype=x.dtype, device=x.device)
        for colour in (even, ~even):
            probability = self.flip_probability(x)
            accepted = torch.where(colour, probability, accepted)
            x = torch.where(colour & (u < probability), -x, x)
        return State(x, state.step_size, state.steps_done + 1), Info(accepted.flatten(1).mean(1))


@dataclass(frozen=True)
class SiteMetropolis:
    r"""Shifts of single sites for $S(\phi) = \sum_x V(\phi_x) - J\sum_{\langle xy\rangle}\phi_x\phi_y$, even sides.

    $$ \phi_x' = \phi_x + \epsilon\,(2u - 1), \qquad
       \Delta S = V(\phi_x') - V(\phi_x) - J\,h_x\,(\phi_x' - \phi_x), \qquad h_x = \sum_{y\sim x}\phi_y $$

    A step is a sweep: all even sites at once, then all odd sites.

    Args:
        potential: $V$ of every element of a tensor, in nats.
        coupling: $J$ of a bond, in nats per field unit squared.
        step_size: $\epsilon$ of the first sweep, in field units.
        burn_in: Sweeps in which $\epsilon$ is tuned to ``target``.
        target: Mean acceptance to aim at.

    Raises:
        ValueError: If ``step_size`` is not positive.

    Example:
        >>> kernel = SiteMetropolis(lambda phi: phi**2 / 2, coupling=0.2)
        >>> state, info = kernel.step(kernel.start(torch.zeros(2, 1, 4)), generator=torch.Generator().manual_seed(0))
        >>> state.x.shape, bool((info.acceptance > 0.5).all())
        (torch.Size([2, 1, 4]), True)
    """

    potential: Callable[[Tensor], Tensor]
    coupling: float
    step_size: float = 1.0
    burn_in: int = 0
    target: float = 0.5

    def __post_init__(self) -> None:
        require(self.step_size > 0, "step_size must be > 0 (else nothing moves)", self.step_size)

    def start(self, x: Float[Tensor, "batch channel *sites"]) -> State:
        """The state of chains that begin at these fields.

        Raises:
            RecipeError: If a side is odd.
        """
        checkerboard(tuple(x.shape[2:]))
        return State(x, self.step_size, 0)

    def move(self, state: State, x: Float[Tensor, "batch channel *sites"]) -> State:
        """The same state, put at other fields."""
        return state._replace(x=x)

    def step(self, state: State, *, generator: torch.Generator) -> tuple[State, Info]:
        """One sweep of every chain."""
        x, accepted = state.x, torch.zeros_like(state.x)
        even = checkerboard(tuple(x.shape[2:]), x.device)
        u, shift = torch.rand((2, *x.shape), generator=generator, dtype=x.dtype, device=x.device)
        shift = state.step_size * (2 * shift - 1)
        fall = self.potential(x) - self.potential(x + shift)  # a site stays as it is until its turn
        pull = self.coupling * shift
        for colour in (even, ~even):
            probability = (fall + pull * neighbour_sum(x)).exp().clamp_max(1.0)
            accepted = torch.where(colour, probability, accepted)
            x = torch.where(colour & (u < probability), x + shift, x)
        acceptance = accepted.flatten(1).mean(1)
        step_size = tuned(
            state.step_size,
            float(acceptance.mean()),
            target=self.target,
            steps_done=state.steps_done,
            burn_in=self.burn_in,
        )
        return State(x, step_size, state.steps_done + 1), Info(acceptance)
