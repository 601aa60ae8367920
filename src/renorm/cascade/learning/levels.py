"""One level of a cascade learned from samples: the levels know nothing of each other once the fields are given."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from renorm.cascade.conditional import CascadeConditional
from renorm.cascade.conditionals.relative_details import RelativeDetails
from renorm.cascade.learning.descent import Keeper, Tell, Trained, descend
from renorm.cascade.learning.warm_start import start_positive
from renorm.cascade.spec import require_transfer
from renorm.errors import DataError

__all__ = ["begin_from_coarser", "fit_level", "require_learnable", "require_transferable", "standardise"]


def fit_level(
    law: CascadeConditional,
    detail: Tensor,
    coarse: Tensor,
    *,
    steps: int,
    batch: int,
    rate: float,
    generator: torch.Generator,
    tell: Tell | None = None,
    keeper: Keeper | None = None,
) -> Trained:
    r"""The most likely law of details given their coarse fields: in closed form where there is one, else by gradient.

    $$ \min_\theta\; -\langle \ln p_\theta(y \mid c) \rangle_{\text{samples}} $$

    Parts that take units of samples (``standardise``) are given them first. A fresh law of a density's shares begins
    where ``start_positive`` puts it, and only what shapes its splines, the same at every site, is trained.

    Args:
        law: Changed in place.
        detail: Samples (batch, details, \*sites).
        coarse: Their coarse fields; of the top (batch, 0).
        steps, batch, rate: Of Adam, the rate falling to 0 along a cosine.
        generator: Draws the batches.
        tell: Told of each step.
        keeper: Where a training that may be stopped is kept.

    Returns:
        The losses; one of them where the law is solved, none where it has nothing to learn (a heat bath).

    Raises:
        DataError: If there are too few samples.

    Example:
        >>> from renorm.cascade.conditionals.linear_gaussian import GaussianTop
        >>> x = torch.randn(2000, 1, 4, generator=torch.Generator().manual_seed(0))
        >>> top = GaussianTop.unfitted(1, (4,))
        >>> trained = fit_level(top, 3 * x, x[:, 0, :0], steps=1, batch=2, rate=1.0, generator=torch.Generator())
        >>> bool((top.covariance.abs().sqrt() - 3).abs().max() < 0.2)
        True
    """
    require_learnable(len(detail))
    if law.closed_form:
        law.solve(detail, coarse)
        return Trained([float(-law.log_prob(detail[:batch], coarse[:batch]).mean())], 0.0)
    standardise(law, detail, coarse)
    parameters = list(law.parameters())
    if isinstance(law, RelativeDetails) and start_positive(law, detail, coarse):
        # Adam's steps along inputs that say nearly the same would undo what was solved: only shapes are left to it.
        parameters = [value for name, value in law.named_parameters() if name.endswith("linear.bias")]
    if not parameters:
        return Trained([], 0.0)

    def loss() -> tuple[Tensor, float]:
        index = torch.randint(len(detail), (min(batch, len(detail)),), generator=generator)
        nats = law.loss(detail[index], coarse[index], generator=generator)
        return nats.mean(), float(nats.detach().std())

    return descend(parameters, loss, steps=steps, rate=rate, tell=tell, keeper=keeper, generator=generator)


@torch.no_grad()
def begin_from_coarser(law: nn.Module, coarser: Sequence[nn.Module]) -> bool:
    r"""Give a level the weights of the nearest coarser one whose weights have the same names and shapes.

    $$ \theta_l \leftarrow \theta_{l'}, \qquad l' = \min\{\,k > l : \theta_k \text{ is made like } \theta_l\,\} $$

    On checkerboards, straight and turned ones alternate, so that is two steps up. Units of samples are no weights:
    each level keeps, or measures, its own.

    Args:
        law: Changed in place.
        coarser: The levels above it, finest first.

    Returns:
        Whether there was one.

    Example:
        >>> fine, other, coarse = nn.Linear(2, 1), nn.Linear(3, 1), nn.Linear(2, 1)
        >>> begin_from_coarser(fine, [other, coarse]), torch.equal(fine.weight, coarse.weight)
        (True, True)
    """
    twin = _twin(law, coarser)
    if twin is None:
        return False
    theirs = dict(twin.named_parameters())
    for name, parameter in law.named_parameters():
        parameter.copy_(theirs[name])
    return True


def require_transferable(parts: Sequence[nn.Module], *, at_once: bool) -> None:
    """Raise ``RecipeError`` unless levels are trained one by one, from weights that can be handed on."""
    require_transfer(
        at_once=at_once,
        closed=any(getattr(part, "closed_form", False) for part in parts),
        positive=any(isinstance(part, RelativeDetails) for part in parts),
        alone=all(_twin(part, parts[place + 1 :]) is None for place, part in enumerate(parts)),
    )


def _twin(law: nn.Module, coarser: Sequence[nn.Module]) -> nn.Module | None:
    """The first whose weights have the same names and shapes."""
    own = _shapes(law)
    return next((each for each in coarser if own and _shapes(each) == own), None)


def _shapes(law: nn.Module) -> dict[str, torch.Size]:
    return {name: parameter.shape for name, parameter in law.named_parameters()}


def standardise(law: nn.Module, detail: Tensor, coarse: Tensor) -> None:
    """Give a part the units of samples, where it takes any."""
    measure = getattr(law, "standardise", None)
    if measure is not None:
        measure(detail, coarse)


def require_learnable(num: int) -> None:
    """Raise ``DataError`` unless there are two fields to learn from."""
    if num < 2:
        raise DataError(f"a fit needs two fields or more, got {num}")
