r"""How good a model of an action is: the partition function from either side, effective samples, acceptance."""

from dataclasses import dataclass

import torch
from torch import Tensor

from renorm.cascade.weighing import Action, Weighed, Weighted
from renorm.measure.free_energy import acceptance, bar, log_z, lower_bound, upper_bound
from renorm.measure.statistics import Estimate, ess

__all__ = ["Evidence", "collapsed", "evidence", "evidence_of", "two_fold"]

COLLAPSED = 1e-3  # an effective sample size below which weights say nothing
FEWEST = 2  # draws that must count


def collapsed(share: float, num: int) -> bool:
    """Whether an effective share of so many draws says nothing: below a thousandth, or fewer than two draws.

    Example:
        >>> collapsed(0.01, 1000), collapsed(0.01, 100)
        (False, True)
    """
    return share < COLLAPSED or share * num < FEWEST


@dataclass(frozen=True)
class Evidence:
    r"""What weighted draws say of a model and its target, in nats.

    Attributes:
        log_z: $\ln Z$ by importance sampling; from both ends (Bennett) where samples of the target were given.
        one_sided: $\ln Z$ from the model's draws alone: what the model misses it does not see.
        lower: $\langle\ln w\rangle_q = \ln Z - \mathrm{KL}(q|p) \le \ln Z$; minus infinity where a draw weighs nothing.
        upper: $\langle\ln w\rangle_p = \ln Z + \mathrm{KL}(p|q) \ge \ln Z$; none without samples of the target.
        ess: Effective share of the draws.
        acceptance: Of independent proposals in equilibrium.
        drawn: The draws themselves, with their weights.
        target_log_weight: $\ln w$ of the samples of the target; none without them.
    """

    log_z: Estimate
    one_sided: Estimate
    lower: Estimate
    upper: Estimate | None
    ess: float
    acceptance: Estimate
    drawn: Weighted
    target_log_weight: Tensor | None

    @property
    def collapsed(self) -> bool:
        """Whether the weights say nothing: a few draws carry all of it."""
        return collapsed(self.ess, len(self.drawn.log_weight))


@torch.no_grad()
def evidence(
    model: Weighed, action: Action, num: int, *, generator: torch.Generator, target: Tensor | None = None
) -> Evidence:
    r"""Weigh draws of a model in the law $e^{-S}/Z$.

    Args:
        model: q.
        action: S.
        num: Draws.
        generator: Source of randomness.
        target: Independent samples of $e^{-S}/Z$, where there are some: they see what the model misses.

    Raises:
        DataError: If the action is not finite on a draw.

    Example: spins without coupling, and a model that knows it.
        >>> from renorm.cascade.checkerboards import checkerboard_cascade
        >>> from renorm.cascade.conditionals.heads import SpinHead
        >>> from renorm.cascade.conditionals.site_laws import IsingSite
        >>> from renorm.laws.ising import Ising
        >>> model = checkerboard_cascade(4, IsingSite(0.0), SpinHead())
        >>> found = evidence(model, Ising((4, 4), 0.0), 100, generator=torch.Generator().manual_seed(0))
        >>> round(float(found.log_z.value), 4), round(found.ess, 4)  # 16 ln 2
        (11.0904, 1.0)
    """
    return evidence_of(model, action, model.weigh(action, num, generator=generator), target)


def evidence_of(model: Weighed, action: Action, drawn: Weighted, target: Tensor | None = None) -> Evidence:
    """What draws that were weighed already say; see `evidence`.

    Args:
        model: q, which they were drawn from.
        action: S, which they were weighed in.
        drawn: The draws.
        target: Independent samples of $e^{-S}/Z$.

    Raises:
        DataError: If the action is not finite on a sample of the target.
    """
    ours = drawn.log_weight
    theirs = None if target is None else model.log_weight(action, target)
    alone = log_z(ours)
    return Evidence(
        log_z=alone if theirs is None else bar(ours, theirs),
        one_sided=alone,
        lower=lower_bound(ours) if bool(ours.isfinite().all()) else Estimate(*torch.tensor([-torch.inf, 0.0]).double()),
        upper=None if theirs is None else upper_bound(theirs),
        ess=ess(ours),
        acceptance=acceptance(ours, theirs),
        drawn=drawn,
        target_log_weight=theirs,
    )


def two_fold(drawn: Weighted) -> float:
    r"""Share of the weight that fields of positive mean have: 1/2 where a two-fold symmetry is kept, 0 or 1 if lost.

    Example:
        >>> fields = torch.tensor([1.0, -1.0]).reshape(2, 1, 1, 1)
        >>> two_fold(Weighted(fields, torch.zeros(2), torch.zeros(2)))
        0.5
    """
    up = drawn.fields.flatten(1).mean(1) > 0
    return float(drawn.log_weight.double().softmax(0)[up].sum())
