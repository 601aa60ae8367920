"""How a cascade learns: from samples (likelihood), from an action (reverse KL), or first one, then the other."""

import math
from collections.abc import Callable, Iterable, MutableMapping

import torch
from torch import Tensor, nn

from renorm.cascade.cascade import Action, Cascade
from renorm.cascade.learning.descent import Keeper, Tell, Trained, descend
from renorm.errors import DataError
from renorm.spec import require

__all__ = ["Keeper", "Tell", "Trained", "descent", "fit_to_action", "fit_to_draws", "fit_to_fields", "shared_log_prob"]


def fit_to_fields(
    model: Cascade,
    fields: Tensor,
    *,
    steps: int,
    batch: int = 256,
    rate: float = 2e-3,
    level: int = 0,
    generator: torch.Generator,
    tell: Tell | None = None,
    keeper: Keeper | None = None,
) -> Trained:
    r"""Maximise the likelihood of samples.

    $$ \min_\theta\; -\langle \ln p_\theta(\phi) \rangle_{\text{samples}} $$

    Args:
        model: Changed in place.
        fields: Samples of ``level``.
        steps, batch, rate: Of Adam, the rate falling to 0 along a cosine.
        level: Which level's law is fitted; finer conditionals stay as they are.
        generator: Draws the batches.
        tell: Told of each step: how many are done, and the loss.
        keeper: Where a training that may be stopped is kept.

    Raises:
        NonFiniteLossError: If the loss is no number.
    """
    if len(fields) < 2:
        raise DataError(f"a fit needs two fields or more, got {len(fields)}")

    def drawn() -> Tensor:
        return fields[torch.randint(len(fields), (min(batch, len(fields)),), generator=generator)]

    kept = {"level": level, "generator": generator, "tell": tell, "keeper": keeper}
    return fit_to_draws(model, drawn, steps=steps, rate=rate, **kept)  # type: ignore[arg-type]


def fit_to_draws(
    model: Cascade,
    drawn: Callable[[], Tensor],
    *,
    steps: int,
    rate: float = 2e-3,
    least: int | None = None,
    level: int = 0,
    generator: torch.Generator,
    tell: Tell | None = None,
    keeper: Keeper | None = None,
) -> Trained:
    r"""Maximise the likelihood of fields that are drawn anew for each step: nothing can be learned by heart.

    A coarse field has few sites to learn from, and costs as little. With ``least`` the finest level looks at so many
    fields of a batch, and one with k times fewer sites at k times as many, as far as the batch goes:

    $$ \min_\theta\; -\sum_l \langle \ln p_l(y_l \mid \phi_{l+1}) + \ln|\det T_l| \rangle_{n_l\text{ fields}}, \qquad
       n_l = \min\Big(n, n_0\frac{N_0}{N_l}\Big) $$

    Args:
        model: Changed in place.
        drawn: Gives a batch of fields of ``level``; all its randomness comes from ``generator``.
        steps, rate: Of Adam, the rate falling to 0 along a cosine.
        least: $n_0$; none: all levels look at all fields.
        level: Which level's law is fitted; finer conditionals stay as they are.
        generator: Of the draws.
        tell, keeper: As of ``fit_to_fields``.

    Returns:
        The losses; with ``least`` their spread is not known.

    Raises:
        ValueError: If ``least`` is below 1.
        NonFiniteLossError: If the loss is no number.
    """
    require(least is None or least >= 1, "least must be >= 1 field", least)

    def loss() -> tuple[Tensor, float]:
        if least is not None:
            return -shared_log_prob(model, drawn(), level, least), math.nan
        nats = -model.log_prob_level(drawn(), level)
        return nats.mean(), float(nats.detach().std())

    return descent(model, level, loss, steps=steps, rate=rate, tell=tell, keeper=keeper, generator=generator)


def fit_to_action(
    model: Cascade,
    action: Action,
    *,
    steps: int,
    batch: int = 256,
    rate: float = 2e-3,
    level: int = 0,
    by_path: bool = False,
    generator: torch.Generator,
    tell: Tell | None = None,
    keeper: Keeper | None = None,
) -> Trained:
    r"""Minimise the reverse Kullback-Leibler divergence to $e^{-S}/Z$; no sample is needed.

    $$ \min_\theta\; \langle \ln q_\theta(\phi) + S(\phi) \rangle_{q_\theta} = \mathrm{KL}(q_\theta | p) - \ln Z $$

    Where every conditional of the level is a smooth function of its noise, the gradient passes through the draw; else
    (spins) it is that of the score, with the mean of the other draws taken off:
    $\langle (\ell_i - \bar\ell_{\neq i})\, \nabla \ln q(\phi_i) \rangle$, $\ell = \ln q + S$.

    With ``by_path`` the density is held fixed as a function of the draw, and the gradient passes through the draw
    alone: its mean is the same, for $\langle\nabla_\theta\ln q\rangle_q = 0$, and its noise falls to nothing where q
    meets p. A step costs about twice as much; it pays near the end.

    Args:
        model: Changed in place.
        action: S of fields of ``level``.
        steps, batch, rate: Of Adam, the rate falling to 0 along a cosine.
        level: Which level's law is fitted; 1 where level 0 is a heat bath, which has nothing to learn.
        by_path: Whether the density's own gradient is left out.
        generator: Draws the fields.
        tell: Told of each step: how many are done, and the loss.
        keeper: Where a training that may be stopped is kept.

    Raises:
        NonFiniteLossError: If the loss is no number, as where the action is not bounded below.
        ValueError: If ``by_path`` is asked of draws that no gradient passes through (spins, heat baths).

    Source:
        Roeder, Wu & Duvenaud 2017, arXiv:1703.09194, for the gradient by path.
    """
    smooth = all(part.reparametrised for part in [*model.conditionals[level:], model.top])

    def loss() -> tuple[Tensor, float]:
        if smooth:
            value, log_prob = model.draw(batch, generator=generator, level=level)
            if by_path:
                log_prob = _held(model, value, level)
            each = log_prob + action(value)
            return each.mean(), float(each.detach().std())
        with torch.no_grad():
            value, log_prob = model.draw(batch, generator=generator, level=level)
            each = log_prob + action(value)
            advantage = (each - each.mean()) * (batch / (batch - 1))
        scored = (advantage * model.log_prob_level(value, level)).mean()
        return scored + (each.mean() - scored).detach(), float(each.std())

    require(batch >= 2, "batch must be >= 2 (draws are compared with each other)", batch)
    require(smooth or not by_path, "by_path needs draws that gradients pass through (no spins, no heat bath)", by_path)
    return descent(model, level, loss, steps=steps, rate=rate, tell=tell, keeper=keeper, generator=generator)


def shared_log_prob(model: Cascade, x: Tensor, level: int, least: int) -> Tensor:
    r"""Mean log-likelihood of fields of a level in nats, coarse levels by more of them; see ``fit_to_draws``.

    Args:
        model: Its levels.
        x: Fields of ``level``.
        level: Which.
        least: $n_0$, what the finest of them looks at.
    """
    modes = [each.modes for each in model.levels]
    total = x.new_zeros(())
    for place in range(level, len(model.steps)):
        num = min(len(x), least * modes[level] // modes[place])
        coarse, detail, log_det = model.steps[place].split(x)
        law = model.conditionals[place]
        total = total + (law.log_prob(detail[:num], coarse[:num]) + log_det[:num]).mean()  # type: ignore[operator]
        x = coarse
    return total + model.top.log_prob(x, x.new_empty(len(x), 0)).mean()


def _held(model: Cascade, value: Tensor, level: int) -> Tensor:
    """Log density of fields as a function of them alone, the parameters held fixed."""
    free = [p for p in model.parameters() if p.requires_grad]
    try:
        for parameter in free:
            parameter.requires_grad_(False)
        return model.log_prob_level(value, level)
    finally:
        for parameter in free:
            parameter.requires_grad_(True)


def _learnable(model: Cascade, level: int) -> list[nn.Parameter]:
    parts: Iterable[nn.Module] = [*model.conditionals[level:], model.top, model.learned_steps]
    return [p for part in parts for p in part.parameters() if p.requires_grad]


def descent(
    model: Cascade,
    level: int,
    loss: Callable[[], tuple[Tensor, float]],
    *,
    steps: int,
    rate: float,
    tell: Tell | None,
    keeper: Keeper | None,
    generator: torch.Generator,
    memory: MutableMapping[str, Tensor] | None = None,
) -> Trained:
    """Adam on the parts above a level; ``loss`` gives its value and the spread behind it. See ``descend``."""
    kept = {"keeper": keeper, "generator": generator, "memory": memory}
    return descend(_learnable(model, level), loss, steps=steps, rate=rate, tell=tell, **kept)  # type: ignore[arg-type]
