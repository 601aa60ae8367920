"""Fine fields of coarse ones in the law of an energy: draws that it allows, and Markov chains that keep the beads."""

import torch
from torch import Tensor

from renorm.cascade.cascade import Cascade
from renorm.cascade.fibre import Fibre
from renorm.errors import DataError
from renorm.mcmc.hmc import HMC, Action
from renorm.mcmc.kernel import run
from renorm.spec import require

__all__ = ["allowed_draws", "moved_at_fixed_beads"]

ROUNDS = 200  # in which a draw of infinite energy may be drawn again
TOGETHER = 2000  # chains that move at once


@torch.no_grad()
def allowed_draws(
    model: Cascade, action: Action, coarse: Tensor, level: int, *, generator: torch.Generator
) -> tuple[Tensor, float]:
    r"""A fine field of each coarse one, drawn again while its energy is infinite (a broken bond).

    $$ x \sim q(x \mid c)\;1[S(x) < \infty] / \text{const} $$

    Args:
        model: Whose ``refine`` draws.
        action: S in nats.
        coarse: Fields of the level, one for each draw.
        level: Which.
        generator: All randomness.

    Returns:
        The draws, and the share of all draws that were thrown away.

    Raises:
        DataError: If a coarse field has no draw of finite energy in 200 rounds.
    """
    parts = coarse.split(model.together)
    x = torch.cat([model.refine(part, level=level, generator=generator) for part in parts])
    again = 0
    for _ in range(ROUNDS):
        bad = (~torch.cat([action(part) for part in x.split(TOGETHER)]).isfinite()).nonzero()[:, 0]
        if not len(bad):
            return x, again / (again + len(x))
        again += len(bad)
        parts = coarse[bad].split(model.together)
        x[bad] = torch.cat([model.refine(part, level=level, generator=generator) for part in parts])
    raise DataError(
        f"{len(bad)} of {len(x)} coarse fields have no draw of finite energy after {ROUNDS} tries, the first at place "
        f"{int(bad[0])}: train longer, or look whether such beads can be"
    )


def moved_at_fixed_beads(
    model: Cascade,
    action: Action,
    x: Tensor,
    level: int,
    *,
    moves: int,
    generator: torch.Generator,
    leaps: int = 10,
    step_size: float = 0.008,
) -> tuple[Tensor, float]:
    r"""Fields after some trajectories of HMC in the exact conditional law $e^{-S(x)}$ at a fixed coarse field.

    Step sizes are tuned in the first half of the moves.

    Args:
        model: Whose steps, linear and on one axis, say what stays.
        action: S in nats.
        x: Fields of finite energy.
        level: Whose coarse field is kept.
        moves: Trajectories.
        generator: All randomness.
        leaps: Leapfrog steps of a trajectory.
        step_size: At first, in units of the field.

    Returns:
        The fields, and the mean acceptance of the last move.

    Raises:
        ValueError: If ``moves`` is below 1.
        RecipeError: If the steps are not linear, or on more than one axis.
        DataError: If a field has infinite energy.
    """
    require(moves >= 1, "moves must be >= 1", moves)
    fibre = Fibre(model.steps[:level], model.lattice)
    moved, taken = [], []
    for part in x.split(TOGETHER):
        coarse, y = fibre.apart(part)
        kernel = HMC(fibre.action(action, coarse), leaps, step_size, burn_in=moves // 2)
        result = run(kernel, kernel.start(y), moves, generator=generator, thin=moves)
        moved.append(fibre.field(coarse, result.state.x))
        taken.append(float(result.acceptance[-1]))
    return torch.cat(moved), sum(taken) / len(taken)
