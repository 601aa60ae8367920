"""Pivot moves: one arm of a chain turned about an atom, all at once; the fastest way to another shape."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from renorm.errors import DataError
from renorm.mcmc.hmc import Action
from renorm.mcmc.kernel import Info

__all__ = ["Pivot", "PivotState", "rotations"]


class PivotState(NamedTuple):
    """Where the chains stand, with the action there, and the steps done so far."""

    x: Tensor
    action: Tensor
    steps_done: int


@dataclass(frozen=True)
class Pivot:
    r"""Turn all atoms beyond one, chosen at random, by a random rotation about it; keep the centre where it is.

    $$ x_i' = x_j + R\,(x_i - x_j), \quad i > j, \qquad p_\text{accept} = \min(1, e^{S(x) - S(x')}) $$

    No bond changes its length. Alone it does not reach every shape: follow it with another kernel (``Cycle``).

    Args:
        action: S in nats, of positions (batch, 3, atoms) along a chain.

    Source:
        Madras & Sokal 1988, J. Stat. Phys. 50, 109.

    Example:
        >>> kernel = Pivot(lambda x: 0 * x.flatten(1).sum(1))
        >>> x = torch.eye(3)[None].cumsum(2)
        >>> state, _ = kernel.step(kernel.start(x), generator=torch.Generator().manual_seed(0))
        >>> [round(b, 4) for b in state.x.diff(dim=2).norm(dim=1)[0].tolist()]
        [1.0, 1.0]
    """

    action: Action

    def start(self, x: Float[Tensor, "batch 3 atoms"]) -> PivotState:
        """The state of chains that begin here; DataError where the action is not finite, or there is no inner atom."""
        if x.shape[1] != 3 or x.shape[2] < 3:
            raise DataError(f"arms turn in space about an inner atom, (batch, 3, 3 or more), got {tuple(x.shape)}")
        value = self.action(x)
        if not bool(value.isfinite().all()):
            raise DataError("chains must begin where the action is finite (else nothing compares), got inf or nan")
        return PivotState(x, value, 0)

    def move(self, state: PivotState, x: Float[Tensor, "batch 3 atoms"]) -> PivotState:
        """The same state, put at other positions."""
        return PivotState(x, self.action(x), state.steps_done)

    def step(self, state: PivotState, *, generator: torch.Generator) -> tuple[PivotState, Info]:
        """One turn of every chain, taken or not."""
        x = state.x
        num, _, atoms = x.shape
        joint = torch.randint(1, atoms - 1, (num, 1, 1), generator=generator, device=x.device)
        at = x.gather(2, joint.expand(-1, 3, 1))
        turned = at + rotations(num, generator=generator, dtype=x.dtype) @ (x - at)
        new = torch.where(torch.arange(atoms, device=x.device) > joint, turned, x)
        new = new + (x - new).mean(2, keepdim=True)
        value = self.action(new)
        chance = (state.action - value).nan_to_num(nan=-torch.inf, posinf=torch.inf).exp().clamp_max(1.0)
        taken = torch.rand(chance.shape, generator=generator, dtype=x.dtype, device=x.device) < chance
        moved = torch.where(taken[:, None, None], new, x)
        return PivotState(moved, torch.where(taken, value, state.action), state.steps_done + 1), Info(chance)


def rotations(num: int, *, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Float[Tensor, "num 3 3"]:
    r"""Rotations of space, all alike likely: those of unit quaternions, four normal numbers over their norm.

    Source:
        Shoemake 1992, "Uniform random rotations", Graphics Gems III.

    Example:
        >>> turn = rotations(5, generator=torch.Generator().manual_seed(0))
        >>> torch.allclose(turn @ turn.mT, torch.eye(3), atol=1e-6), torch.allclose(turn.det(), torch.ones(5))
        (True, True)
    """
    q = torch.randn(num, 4, generator=generator, dtype=dtype, device=generator.device)
    w, x, y, z = (q / q.norm(dim=1, keepdim=True)).unbind(1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, -1) for row in rows], 1)
