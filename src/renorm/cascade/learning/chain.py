r"""Markov chains that a cascade proposes for: exact samples out of an approximate model, and a teacher for it.

A draw of the model, taken or refused by Metropolis' rule, moves all scales at once; sweeps of the exact heat bath mend
the small ones. The chains have the law $e^{-S}/Z$ whatever the model is; the better it is, the faster they forget.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from renorm.cascade.cascade import Action, Cascade
from renorm.cascade.conditionals.heat_bath import HeatBath
from renorm.cascade.conditionals.site_laws import SiteLaw
from renorm.cascade.learning.training import Keeper, Tell, Trained, descent
from renorm.coarse.checkerboard import Checkerboard
from renorm.spec import require

__all__ = ["ChainState", "fit_to_chain", "heat_bath_sweep", "metropolis"]


class ChainState(NamedTuple):
    r"""Chains, one field each, and how often the last proposals were taken.

    Attributes:
        fields: (chains, 1, height, width).
        acceptance: Share of the proposals that were taken.
    """

    fields: Tensor
    acceptance: float


def heat_bath_sweep(site: SiteLaw, x: Tensor, *, generator: torch.Generator) -> Tensor:
    """Draw every site anew given its neighbours: the odd ones, then, one site further, the even ones.

    Args:
        site: The law of one site.
        x: Fields (batch, 1, height, width) on a torus of even sides.

    Example:
        >>> from renorm.cascade.conditionals.site_laws import IsingSite
        >>> x = heat_bath_sweep(IsingSite(50.0), torch.ones(1, 1, 4, 4), generator=torch.Generator().manual_seed(0))
        >>> x.mean().item()
        1.0
    """
    bath, board = HeatBath(site), Checkerboard()
    for shift in (1, -1):
        even = board.split(x).coarse
        x = board.merge(even, bath.draw(even, generator=generator).value).roll(shift, -1)
    return x


@torch.no_grad()
def metropolis(
    model: Cascade, action: Action, x: Tensor, *, level: int | None = None, generator: torch.Generator
) -> ChainState:
    r"""One proposal for each chain: all of a field, or all that is finer than a level.

    $$ \phi' \sim q(\,\cdot \mid \phi_l), \qquad
       p_\text{accept} = \min\Big(1, \frac{w(\phi')}{w(\phi)}\Big), \qquad \ln w = -S - \ln q $$

    The coarse field $\phi_l$ stays, and its density drops out of the ratio; fewer sites change, so more proposals are
    taken. Moves of several levels in turn keep the law too.

    Args:
        model: q.
        action: S.
        x: The chains.
        level: l, from which details are drawn anew; none: the whole field, an independent proposal.
        generator: Source of randomness.

    Raises:
        DataError: If the action is not finite on a proposal.
    """
    if level is None:
        proposed, _, there = model.weigh(action, len(x), generator=generator)
    else:
        proposed = model.refine(model.coarsen(x, level), level=level, generator=generator)
        there = model.log_weight(action, proposed)
    uniform = torch.rand(len(x), generator=generator, dtype=proposed.dtype, device=x.device)
    taken = uniform.log() < there - model.log_weight(action, x)
    fields = torch.where(taken.reshape(-1, *[1] * (x.ndim - 1)), proposed.to(x.dtype), x)
    return ChainState(fields, float(taken.double().mean()))


def fit_to_chain(
    model: Cascade,
    action: Action,
    site: SiteLaw,
    *,
    steps: int,
    batch: int = 256,
    chains: int = 2048,
    rate: float = 2e-3,
    every: int = 10,
    sweeps: int = 2,
    level: int = 1,
    generator: torch.Generator,
    tell: Tell | None = None,
    keeper: Keeper | None = None,
) -> Trained:
    r"""Maximise the likelihood of chains that the model itself keeps moving: no samples are needed, and no gradient
    passes through a draw, so spins learn as fast as fields do.

    $$ \min_\theta\; -\langle \ln q_\theta(\phi) \rangle_{\text{chains}}, \qquad
       \text{chains} \to e^{-S}/Z \text{ by proposals of } q_\theta \text{ and sweeps of the heat bath} $$

    Args:
        model: Changed in place.
        action: S of the finest fields.
        site: Its law of one site.
        steps, batch, rate: Of Adam, the rate falling to 0 along a cosine.
        chains: How many; they start from draws of the model.
        every: Steps between moves of the chains.
        sweeps: Of the heat bath, in each move.
        level: Whose law is fitted: 1 where the finest conditional is a heat bath, which has nothing to learn.
        generator: Source of randomness.
        tell: Told of each step: how many are done, and the loss.
        keeper: Where a training that may be stopped is kept, chains and all.

    Source:
        Gabrie, Rotskoff, Vanden-Eijnden 2022, PNAS 119, e2109420119 (adaptive Monte Carlo with flows).
    """
    require(every >= 1, "every must be >= 1 (steps between moves of the chains)", every)
    memory = {"chains": model.draw(chains, generator=generator).value.detach(), "done": torch.tensor(0)}

    def loss() -> tuple[Tensor, float]:
        state = memory["chains"]
        if int(memory["done"]) % every == 0:
            state = metropolis(model, action, state, generator=generator).fields
            for _ in range(sweeps):
                state = heat_bath_sweep(site, state, generator=generator)
        memory["chains"], memory["done"] = state, memory["done"] + 1
        index = torch.randint(len(state), (batch,), generator=generator)
        nats = -model.log_prob_level(model.coarsen(_turned(state[index], generator), level), level)
        return nats.mean(), float(nats.detach().std())

    size = {"steps": steps, "rate": rate, "tell": tell, "keeper": keeper}
    return descent(model, level, loss, **size, generator=generator, memory=memory)  # type: ignore[arg-type]


def _turned(x: Tensor, generator: torch.Generator) -> Tensor:
    """The fields shifted, and mirrored on the diagonal, at random: an action of neighbours does not care."""
    shift = [int(torch.randint(n, (), generator=generator)) for n in x.shape[-2:]]
    x = x.roll(shift, (-2, -1))
    mirrored = bool(torch.rand((), generator=generator) < 0.5) and x.shape[-2] == x.shape[-1]
    return x.transpose(-2, -1) if mirrored else x
