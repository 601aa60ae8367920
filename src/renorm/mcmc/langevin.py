"""Langevin moves with a Metropolis test (MALA): a step down the gradient, and noise to match."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from renorm.mcmc.hmc import HMC, Action, GradientState
from renorm.mcmc.kernel import Info

__all__ = ["Langevin"]


@dataclass(frozen=True)
class Langevin:
    r"""The Metropolis-adjusted Langevin algorithm, for any action that has a gradient.

    $$ \phi' = \phi - \tfrac{\epsilon^2}{2}\nabla S(\phi) + \epsilon\,\xi, \quad \xi\sim N(0, 1), \qquad
       p_\text{accept} = \min\!\Big(1, \frac{e^{-S(\phi')}\,q(\phi|\phi')}{e^{-S(\phi)}\,q(\phi'|\phi)}\Big) $$

    It is a trajectory of a single leapfrog step: with $p = \xi$ and $p'$ the momentum at its end, the ratio is
    $e^{H - H'}$. So the step is that of `HMC`, and the interface too.

    Args:
        action: $S$ in nats, the density is $e^{-S}$ up to a constant.
        step_size: $\epsilon$ of the first step, in field units.
        burn_in: Steps in which $\epsilon$ is tuned to ``target``; drop their fields.
        target: Mean acceptance to aim at; 0.574 is best in many dimensions.

    Raises:
        ValueError: If ``step_size`` is not positive.

    Source:
        Roberts & Rosenthal 1998, "Optimal scaling of discrete approximations to Langevin diffusions".

    Example:
        >>> kernel = Langevin(lambda x: x.flatten(1).square().sum(1) / 2, step_size=0.5)
        >>> state, info = kernel.step(kernel.start(torch.zeros(2, 1, 4)), generator=torch.Generator().manual_seed(0))
        >>> state.x.shape, bool((info.acceptance > 0.8).all())
        (torch.Size([2, 1, 4]), True)
    """

    action: Action
    step_size: float = 0.1
    burn_in: int = 0
    target: float = 0.574

    def __post_init__(self) -> None:
        self._trajectory()

    def _trajectory(self) -> HMC:
        return HMC(self.action, 1, self.step_size, self.burn_in, self.target, jitter=0.0)

    def start(self, x: Float[Tensor, "batch channel *sites"]) -> GradientState:
        """The state of chains that begin at these fields.

        Raises:
            DataError: If the action of a field is not finite: no proposal could be compared with it.
        """
        return self._trajectory().start(x)

    def move(self, state: GradientState, x: Float[Tensor, "batch channel *sites"]) -> GradientState:
        """The same state, put at other fields."""
        return self._trajectory().move(state, x)

    def step(self, state: GradientState, *, generator: torch.Generator) -> tuple[GradientState, Info]:
        """One proposal for every chain, taken or not."""
        return self._trajectory().step(state, generator=generator)
