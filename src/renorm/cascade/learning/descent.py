"""Adam along a cosine: the one loop by which parts of a cascade are trained."""

import math
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from functools import partial
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from renorm.errors import CheckpointError, NonFiniteLossError
from renorm.spec import require

__all__ = ["Keeper", "Tell", "Trained", "descend"]

Tell = Callable[[int, float], None]
"""Told of each step: how many are done, and the loss."""


@runtime_checkable
class Keeper(Protocol):
    """Keeps where a descent stands, so that one that was stopped goes on from there to the same end."""

    def load(self) -> Mapping[str, Tensor] | None:
        """What was kept last; none where the descent begins."""
        ...

    def save(self, step: int, standing: Callable[[], dict[str, Tensor]]) -> None:
        """Told after each step; keeps what ``standing`` gives, whenever it is time.

        These are the tensors that are being trained themselves: write them out at once, or clone them.
        """
        ...


class Trained(NamedTuple):
    """What a fit came to.

    Attributes:
        losses: Of each step, in nats: for fields -ln p, for an action the variational free energy, >= -ln Z.
        spread: Standard deviation of ln w over the last batch: 0 for a perfect fit to an action.
    """

    losses: list[float]
    spread: float


def descend(
    parameters: Iterable[nn.Parameter],
    loss: Callable[[], tuple[Tensor, float]],
    *,
    steps: int,
    rate: float,
    tell: Tell | None = None,
    keeper: Keeper | None = None,
    generator: torch.Generator | None = None,
    memory: MutableMapping[str, Tensor] | None = None,
) -> Trained:
    r"""Adam, its rate falling to 0 along a cosine: $\eta_k = \tfrac\eta2 (1 + \cos \pi k / n)$.

    What comes next is a function of the parameters, Adam's moments, the step, and what the loss draws from and
    remembers; all that is handed to the keeper, and taken up again bit for bit.

    Args:
        parameters: What is changed; one that is shared by several parts counts once.
        loss: Gives its value, and the spread behind it.
        steps: n.
        rate: $\eta$.
        tell: Told of each step; of those before a standing that was taken up, too.
        keeper: Where the descent is kept, and taken up.
        generator: That ``loss`` draws from.
        memory: What else ``loss`` remembers from one step to the next.

    Raises:
        CheckpointError: If what was kept belongs to other parameters.
        NonFiniteLossError: If the loss is no number.

    Example:
        >>> x = nn.Parameter(torch.tensor(1.0))
        >>> trained = descend([x, x], lambda: (x**2, 0.0), steps=200, rate=0.05)
        >>> abs(x.item()) < 0.05, len(trained.losses)
        (True, 200)
    """
    require(steps >= 1, "steps must be >= 1 (there is nothing to fit)", steps)
    own = list(dict.fromkeys(p for p in parameters if p.requires_grad))
    require(bool(own), "a fit needs parameters to train (every part here is exact as it is)", len(own))
    adam = torch.optim.Adam(own, lr=rate)
    losses: list[float] = []
    spread = math.nan
    kept = None if keeper is None else keeper.load()
    if kept is not None:
        losses, spread = _take_up(kept, own, adam, generator, memory)
    if tell is not None:
        for done, before in enumerate(losses, start=1):
            tell(done, before)
    for step in range(len(losses), steps):
        adam.param_groups[0]["lr"] = rate * (0.5 * (1 + math.cos(math.pi * step / steps)))
        value, spread = loss()
        if not torch.isfinite(value):
            raise NonFiniteLossError(
                f"the loss must stay finite, got {value.item()} at step {step}: is the action bounded below? If it is, "
                "take a smaller rate"
            )
        adam.zero_grad(set_to_none=True)
        value.backward()
        torch.nn.utils.clip_grad_norm_(own, 10.0)
        adam.step()
        losses.append(value.item())
        if keeper is not None:
            keeper.save(step + 1, partial(_standing, own, adam, generator, memory, losses, spread))
        if tell is not None:
            tell(step + 1, losses[-1])
    return Trained(losses, spread)


def _standing(
    own: list[nn.Parameter],
    adam: torch.optim.Adam,
    generator: torch.Generator | None,
    memory: Mapping[str, Tensor] | None,
    losses: list[float],
    spread: float,
) -> dict[str, Tensor]:
    """All that the next step depends on, flat and named."""
    kept = {"losses": torch.tensor(losses, dtype=torch.float64), "spread": torch.tensor(spread, dtype=torch.float64)}
    for place, parameter in enumerate(own):
        kept[f"parameter.{place}"] = parameter.detach()
        kept |= {f"adam.{place}.{name}": value for name, value in adam.state.get(parameter, {}).items()}
    if generator is not None:
        kept["generator"] = generator.get_state()
    return kept | {f"memory.{name}": value for name, value in (memory or {}).items()}


@torch.no_grad()
def _take_up(
    kept: Mapping[str, Tensor],
    own: list[nn.Parameter],
    adam: torch.optim.Adam,
    generator: torch.Generator | None,
    memory: MutableMapping[str, Tensor] | None,
) -> tuple[list[float], float]:
    """Put all of it back in its place; gives the losses so far, and the last spread."""
    shapes = {name: value.shape for name, value in kept.items() if name.startswith("parameter.")}
    if shapes != {f"parameter.{place}": parameter.shape for place, parameter in enumerate(own)}:
        raise CheckpointError("what was kept of this fit belongs to other parameters; start again in another folder")
    moments: dict[int, dict[str, Tensor]] = {}
    for place, parameter in enumerate(own):
        parameter.copy_(kept[f"parameter.{place}"])
        head = f"adam.{place}."
        found = {name.removeprefix(head): value for name, value in kept.items() if name.startswith(head)}
        if found:  # a parameter that the loss never reached has none
            moments[place] = found
    # It puts each tensor on the right device.
    adam.load_state_dict({"state": moments, "param_groups": adam.state_dict()["param_groups"]})
    if generator is not None:
        generator.set_state(kept["generator"])
    if memory is not None:
        for name, value in memory.items():
            memory[name] = kept[f"memory.{name}"].to(value.device)
    return kept["losses"].tolist(), float(kept["spread"])
