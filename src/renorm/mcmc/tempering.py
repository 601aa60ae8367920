"""Parallel tempering: chains at several temperatures trade places, so that cold ones cross what they could not."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from renorm.mcmc.hmc import HMC, Action, GradientState, value_and_grad
from renorm.mcmc.kernel import Info
from renorm.spec import require

__all__ = ["Tempered", "TemperedState", "Tempering", "ladder"]


@dataclass(frozen=True)
class Tempered:
    r"""An action times an inverse temperature, $\beta S$.

    Example:
        >>> Tempered(lambda x: x.flatten(1).square().sum(1), 0.5)(torch.ones(1, 1, 4))
        tensor([2.])
    """

    action: Action
    beta: float

    def __call__(self, x: Tensor) -> Tensor:
        r"""$\beta S$ of every field, in nats."""
        return self.beta * self.action(x)

    def grad(self, x: Tensor) -> Tensor:
        r"""$\beta\nabla S$."""
        return self.beta * value_and_grad(self.action, x)[1]


class TemperedState(NamedTuple):
    """Where the chains stand.

    Attributes:
        x: The cold chains, those of the law itself.
        rungs: The state of all chains at each inverse temperature, coldest first.
        swapped: Share of the trades that were made at the last step.
        steps_done: So far.
    """

    x: Tensor
    rungs: tuple[GradientState, ...]
    swapped: float
    steps_done: int


@dataclass(frozen=True)
class Tempering:
    r"""HMC at every inverse temperature, then trades between neighbours, in pairs that alternate.

    $$ p_\text{swap} = \min\big(1, e^{(\beta_k - \beta_{k+1})\,(S(\phi_k) - S(\phi_{k+1}))}\big), \qquad
       1 = \beta_0 > \beta_1 > \dots > 0 $$

    Each step size is tuned on its own while ``burn_in`` lasts.

    Args:
        action: S in nats, the density is $e^{-S}$ up to a constant.
        betas: Inverse temperatures, the first 1, falling; see ``ladder``.
        steps, step_size, burn_in, target: Of HMC at each of them; hot rungs begin with $\epsilon/\sqrt\beta$.

    Raises:
        ValueError: If there are fewer than two, they do not begin at 1, or do not fall.

    Source:
        Swendsen & Wang 1986, Phys. Rev. Lett. 57, 2607; Geyer 1991.

    Example:
        >>> kernel = Tempering(lambda x: x.flatten(1).square().sum(1) / 2, ladder(0.25, 3))
        >>> state, info = kernel.step(kernel.start(torch.zeros(2, 1, 4)), generator=torch.Generator().manual_seed(0))
        >>> state.x.shape, len(state.rungs)
        (torch.Size([2, 1, 4]), 3)
    """

    action: Action
    betas: Sequence[float]
    steps: int = 10
    step_size: float = 0.1
    burn_in: int = 0
    target: float = 0.8

    def __post_init__(self) -> None:
        betas = list(self.betas)
        require(len(betas) >= 2, "betas must be two or more (chains trade between temperatures)", betas)
        require(betas[0] == 1, "betas must begin at 1 (the cold chains have the law itself)", betas[0])
        falling = all(hot < cold for cold, hot in pairwise(betas)) and betas[-1] > 0
        require(falling, "betas must fall, and stay > 0", betas)
        self._kernels()

    def start(self, x: Float[Tensor, "batch channel *sites"]) -> TemperedState:
        """All chains, at every temperature, begin at these fields; DataError where the action is not finite."""
        return TemperedState(x, tuple(kernel.start(x) for kernel in self._kernels()), 0.0, 0)

    def move(self, state: TemperedState, x: Float[Tensor, "batch channel *sites"]) -> TemperedState:
        """The same state with the cold chains put at other fields."""
        rungs = (self._kernels()[0].move(state.rungs[0], x), *state.rungs[1:])
        return state._replace(x=x, rungs=rungs)

    def step(self, state: TemperedState, *, generator: torch.Generator) -> tuple[TemperedState, Info]:
        """One trajectory at every temperature, and trades; the acceptance is that of the cold trajectories."""
        moved = [k.step(rung, generator=generator) for k, rung in zip(self._kernels(), state.rungs, strict=True)]
        rungs = [rung for rung, _ in moved]
        shares = []
        for cold in range(state.steps_done % 2, len(rungs) - 1, 2):
            rungs[cold], rungs[cold + 1], share = self._trade(rungs[cold], rungs[cold + 1], cold, generator)
            shares.append(share)
        swapped = sum(shares) / len(shares) if shares else state.swapped
        return TemperedState(rungs[0].x, tuple(rungs), swapped, state.steps_done + 1), moved[0][1]

    def _trade(
        self, cold: GradientState, hot: GradientState, place: int, generator: torch.Generator
    ) -> tuple[GradientState, GradientState, float]:
        b, c = self.betas[place], self.betas[place + 1]
        gain = (b - c) * (cold.action / b - hot.action / c)
        uniform = torch.rand(gain.shape, generator=generator, dtype=gain.dtype, device=gain.device)
        swap = uniform < gain.exp()
        here = swap.reshape(-1, *[1] * (cold.x.dim() - 1))

        def mixed(own: GradientState, other: GradientState, scale: float) -> GradientState:
            return own._replace(
                x=torch.where(here, other.x, own.x),
                action=torch.where(swap, scale * other.action, own.action),
                gradient=torch.where(here, scale * other.gradient, own.gradient),
            )

        return mixed(cold, hot, b / c), mixed(hot, cold, c / b), float(swap.double().mean())

    def _kernels(self) -> list[HMC]:
        return [
            HMC(Tempered(self.action, beta), self.steps, self.step_size / beta**0.5, self.burn_in, self.target)
            for beta in self.betas
        ]


def ladder(hottest: float, rungs: int) -> tuple[float, ...]:
    r"""Inverse temperatures from 1 down to ``hottest``, in equal ratios.

    Raises:
        ValueError: If there are fewer than two rungs, or the hottest is not between 0 and 1.

    Example:
        >>> ladder(0.25, 3)
        (1.0, 0.5, 0.25)
    """
    right = rungs >= 2 and 0 < hottest < 1
    require(right, "a ladder has two rungs or more, and its hottest beta lies in (0, 1)", (rungs, hottest))
    return tuple(hottest ** (k / (rungs - 1)) for k in range(rungs))
