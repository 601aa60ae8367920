r"""Langevin moves that are tested tile by tile: a local energy needs no global verdict.

MALA takes or refuses the whole field at once. The error of its energy adds up over N details, so the step must fall as
$N^{-1/6}$ and the memory grows as $N^{1/3}$, however well conditioned the law is. Where the energy is a sum of local
densities, tiles that do not see each other may be tested each by itself, the field between them held: then neither step
nor memory knows how large the lattice is.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from renorm.mcmc.kernel import Info, tuned
from renorm.spec import require

__all__ = ["LocalAction", "TiledLangevin", "TiledState"]


@runtime_checkable
class LocalAction(Protocol):
    """An action that is a sum over sites."""

    def density(self, x: Tensor) -> Tensor:
        r"""Nats at every site, (batch, \*sites)."""
        ...

    def grad(self, x: Tensor) -> Tensor:
        r"""$\nabla S$."""
        ...


class TiledState(NamedTuple):
    """Where the chains stand, with density and gradient there, the step size and the sweeps done so far."""

    x: Tensor
    density: Tensor
    gradient: Tensor
    step_size: float
    steps_done: int


@dataclass(frozen=True)
class TiledLangevin:
    r"""One sweep: tiles of ``tile`` sites a side, held apart by gaps as wide, colour by colour; a Langevin proposal and
    Metropolis' test in each of them.

    $$ \phi'_T = \phi_T - \tfrac{\epsilon^2}2 \nabla_T S + \epsilon\,\xi_T, \qquad
       p_T = \min\Big(1, \exp\big[\textstyle\sum_{x \in Z_T} (s_x - s'_x)
       + \tfrac12\sum_{x \in T} (p_x^2 - p_x'^2)\big]\Big) $$

    $Z_T$, the tile and half the gap around it, holds all that the tile can change, and the gradients that this changes;
    $p = \xi$ and $p' = \xi - \tfrac\epsilon2(\nabla S + \nabla' S)$ as in `Langevin`. The tiles begin at a random
    site, anew in every sweep. An axis that is no multiple of $2\,$``tile`` is not cut; if none is, this is `Langevin`.

    Args:
        action: S, a sum of local densities.
        tile: Sites of a side, at least twice as many as the distance over which density or gradient see a site.
        step_size: $\epsilon$ of the first sweep, in field units.
        burn_in: Sweeps in which $\epsilon$ is tuned to ``target``; drop their fields.
        target: Mean acceptance of a tile to aim at.

    Raises:
        ValueError: If ``tile`` or ``step_size`` is not positive.

    Example:
        >>> class White:
        ...     def density(self, x): return x.square().sum(1) / 2
        ...     def grad(self, x): return x
        >>> kernel = TiledLangevin(White(), tile=2, step_size=0.5)
        >>> state, info = kernel.step(kernel.start(torch.zeros(3, 1, 8)), generator=torch.Generator().manual_seed(0))
        >>> state.x.shape, info.acceptance.shape, bool((state.x != 0).any())
        (torch.Size([3, 1, 8]), torch.Size([3]), True)
    """

    action: LocalAction
    tile: int = 4
    step_size: float = 0.5
    burn_in: int = 0
    target: float = 0.574

    def __post_init__(self) -> None:
        require(self.tile >= 1, "tile must be >= 1", self.tile)
        require(self.step_size > 0, "step_size must be > 0 (else nothing moves)", self.step_size)

    def start(self, x: Float[Tensor, "batch channel *sites"]) -> TiledState:
        """The state of chains that begin at these fields."""
        return TiledState(x, self.action.density(x), self.action.grad(x), self.step_size, 0)

    def move(self, state: TiledState, x: Float[Tensor, "batch channel *sites"]) -> TiledState:
        """The same state, put at other fields."""
        return state._replace(x=x, density=self.action.density(x), gradient=self.action.grad(x))

    def step(self, state: TiledState, *, generator: torch.Generator) -> tuple[TiledState, Info]:
        """One sweep of every chain."""
        sites = tuple(state.x.shape[2:])
        cut = [n % (2 * self.tile) == 0 for n in sites]
        first = [int(torch.randint(n, (), generator=generator)) if c else 0 for n, c in zip(sites, cut, strict=True)]
        chances = []
        for colour in itertools.product(*[(0, self.tile) if c else (0,) for c in cut]):
            shift = [a + b for a, b in zip(first, colour, strict=True)]
            state, chance = self._colour(state, shift, cut, generator)
            chances.append(chance)
        acceptance = torch.stack(chances).mean(0)
        mean = float(acceptance.mean())
        step_size = tuned(state.step_size, mean, target=self.target, steps_done=state.steps_done, burn_in=self.burn_in)
        return state._replace(step_size=step_size, steps_done=state.steps_done + 1), Info(acceptance)

    def _colour(
        self, state: TiledState, shift: Sequence[int], cut: Sequence[bool], generator: torch.Generator
    ) -> tuple[TiledState, Any]:
        """The tiles of one colour; with the mean chance of each chain."""
        x, epsilon = state.x, state.step_size
        sites = tuple(x.shape[2:])
        zones = [n // (2 * self.tile) if c else 1 for n, c in zip(sites, cut, strict=True)]
        active = self._active(sites, cut, x)
        axes = tuple(range(-len(sites), 0))
        active = active.roll(list(shift), axes)
        momentum = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device) * active
        half = momentum - epsilon / 2 * active * state.gradient
        new = x + epsilon * half
        density, gradient = self.action.density(new), self.action.grad(new)
        end = half - epsilon / 2 * active * gradient
        gain = state.density - density + (momentum.square() - end.square()).sum(1) / 2
        gain = _zone_sums(gain.roll([-n for n in shift], axes), zones)
        chance = gain.nan_to_num(nan=-torch.inf, posinf=-torch.inf).exp().clamp_max(1.0)
        taken = torch.rand(chance.shape, generator=generator, dtype=x.dtype, device=x.device) < chance
        for axis, (n, parts) in enumerate(zip(sites, zones, strict=True)):
            taken = taken.repeat_interleave(n // parts, 1 + axis)
        taken = taken.roll(list(shift), axes)
        every = taken[:, None]
        moved = state._replace(
            x=torch.where(every, new, x),
            density=torch.where(taken, density, state.density),
            gradient=torch.where(every, gradient, state.gradient),
        )
        return moved, chance.flatten(1).mean(1)

    def _active(self, sites: tuple[int, ...], cut: Sequence[bool], x: Tensor) -> Tensor:
        """1 at the sites of tiles: the middle of every zone."""
        mask = torch.ones(sites, dtype=x.dtype, device=x.device)
        for axis, (n, c) in enumerate(zip(sites, cut, strict=True)):
            if c:
                place = (torch.arange(n, device=x.device) - self.tile // 2) % (2 * self.tile)
                view = [-1 if i == axis else 1 for i in range(len(sites))]
                mask = mask * (place < self.tile).to(x.dtype).reshape(view)
        return mask


def _zone_sums(x: Float[Tensor, "batch *sites"], zones: Sequence[int]) -> Tensor:
    for axis, count in enumerate(zones):
        x = x.unflatten(1 + axis, (count, -1)).sum(2 + axis)
    return x
