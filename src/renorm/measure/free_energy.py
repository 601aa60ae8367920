r"""Free energies from importance weights: estimates of $\log Z$ from either end, bounds, and both ends together.

A model $q$ that can be sampled and has a density meets a target $p = e^{-S}/Z$ whose $Z$ is wanted. All that
counts is the log weight of a field, in nats,

$$ \log w(x) = -S(x) - \log q(x), \qquad p/q = w/Z, \qquad \langle w \rangle_q = Z, $$

at samples of the model, of the target, or of both.
"""

import math

import scipy.optimize
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64
from torch import Tensor

from renorm.errors import DataError
from renorm.measure.statistics import Estimate, check_log_weights, ess, jackknife

__all__ = ["acceptance", "bar", "log_z", "log_z_from_target", "lower_bound", "upper_bound"]


def log_z(log_weights: Float[Tensor, " num"]) -> Estimate:
    r"""Log of the mean weight over samples of the model, in nats.

    $$ \log\hat Z = \log \frac1N \sum_i w_i, \qquad
       \mathrm{error}^2 = \frac{1}{N - 1} \Bigl(\frac{1}{\mathrm{ESS}} - 1\Bigr) $$

    On average it lies below $\log Z$, by half its variance. Where the model misses a part of the target, estimate
    and error both miss it; `log_z_from_target` then disagrees.

    Raises:
        DataError: If there are fewer than two samples, or log weights cannot be normalised.

    Example:
        >>> estimate = log_z(torch.tensor([1.0, 3.0]).double().log() + 1000)
        >>> round(float(estimate.value), 4), round(float(estimate.error), 4)  # ln 2 + 1000, 1 / 2
        (1000.6931, 0.5)
    """
    weights = _at_least_two(log_weights)
    return Estimate(weights.logsumexp(0) - math.log(len(weights)), _relative_error(weights))


def log_z_from_target(log_weights: Float[Tensor, " num"]) -> Estimate:
    r"""Minus the log of the mean inverse weight over samples of the target, in nats.

    $$ \log\hat Z = -\log \frac1N \sum_i \frac{1}{w_i}, \qquad x_i \sim p, \qquad
       \langle 1/w \rangle_p = 1/Z $$

    On average it lies above $\log Z$, by half its variance.

    Raises:
        DataError: If there are fewer than two samples, or one has a weight of zero or infinity.

    Example:
        >>> round(float(log_z_from_target(torch.tensor([1.0, 3.0]).log()).value), 4)  # ln 1.5
        0.4055
    """
    weights = _of_target(log_weights)
    return Estimate(math.log(len(weights)) - (-weights).logsumexp(0), _relative_error(-weights))


def lower_bound(log_weights: Float[Tensor, " num"]) -> Estimate:
    r"""Mean log weight over samples of the model, in nats: the evidence lower bound.

    $$ \langle \log w \rangle_q = \log Z - \mathrm{KL}(q \,\|\, p) \le \log Z $$

    Raises:
        DataError: If there are fewer than two samples, or one has a weight of zero (the bound is minus infinity).

    Example:
        >>> float(lower_bound(torch.tensor([1.0, 3.0])).value)
        2.0
    """
    return jackknife(_at_least_two(log_weights))


def upper_bound(log_weights: Float[Tensor, " num"]) -> Estimate:
    r"""Mean log weight over samples of the target, in nats.

    $$ \langle \log w \rangle_p = \log Z + \mathrm{KL}(p \,\|\, q) \ge \log Z $$

    Raises:
        DataError: If there are fewer than two samples, or one has a weight of zero or infinity.

    Example:
        >>> float(upper_bound(torch.tensor([1.0, 3.0])).value)
        2.0
    """
    return jackknife(_of_target(log_weights))


def bar(model: Float[Tensor, " num_model"], target: Float[Tensor, " num_target"]) -> Estimate:
    r"""Bennett's acceptance ratio: $\log Z$ of least variance from samples of both ends, in nats.

    With $u = \log w - \log\hat Z + \log(n_p/n_q)$ the estimate solves

    $$ \sum_{x \sim q} \sigma(u) = \sum_{x \sim p} \sigma(-u), \qquad
       \mathrm{error}^2 = \sum_{q,\,p} \frac{1}{n - 1} \Bigl(\frac{1}{\mathrm{ESS}[\sigma(\pm u)]} - 1\Bigr) , $$

    $\sigma$ the logistic function. It is the likelihood estimate of who drew a sample, model or target.

    Args:
        model: Log weights of samples of the model.
        target: Log weights of independent samples of the target.

    Raises:
        DataError: If an end has fewer than two samples, or a sample of the target a weight of zero.

    Source:
        Bennett 1976, J. Comput. Phys. 22:245; Shirts et al. 2003, Phys. Rev. Lett. 91:140601.

    Example:
        >>> estimate = bar(torch.tensor([2.0, 2.0]), torch.tensor([2.0, 2.0, 2.0]))
        >>> round(float(estimate.value), 9), round(float(estimate.error), 6)
        (2.0, 0.0)
    """
    forward, backward = _at_least_two(model), _of_target(target)
    offset = math.log(len(backward) / len(forward))

    def shares(value: float) -> tuple[Tensor, Tensor]:
        return F.logsigmoid(forward - value + offset), F.logsigmoid(value - offset - backward)

    def imbalance(value: float) -> float:
        left, right = shares(value)
        return float(left.logsumexp(0) - right.logsumexp(0))

    finite = torch.cat([forward[forward > -torch.inf], backward])
    reach = abs(offset) + math.log(len(forward) + len(backward)) + 1
    low, high = float(finite.min()) - reach, float(finite.max()) + reach
    root = scipy.optimize.brentq(imbalance, low, high, xtol=1e-13, rtol=1e-14)
    errors = [_relative_error(logs) for logs in shares(root)]
    return Estimate(torch.tensor(root, dtype=torch.float64), (errors[0] ** 2 + errors[1] ** 2).sqrt())


def acceptance(model: Float[Tensor, " num_model"], target: Float[Tensor, " num_target"] | None = None) -> Estimate:
    r"""Expected acceptance of independence Metropolis, which proposes samples $x'$ of the model to the target's $x$.

    $$ A = \Bigl\langle \min\Bigl(1, \frac{w(x')}{w(x)}\Bigr) \Bigr\rangle_{x \sim p,\; x' \sim q}
         = \frac{\langle \min(w, w') \rangle_{q, q}}{\langle w \rangle_q} $$

    as a mean over all pairs of different samples, by sorting, in O(N log N). The error is that of the mean's
    linear part.

    Args:
        model: Log weights of samples of the model.
        target: Log weights of samples of the target (a chain's); not given: the second form.

    Raises:
        DataError: If an end has fewer than two samples, or a sample of the target a weight of zero.

    Example:
        >>> round(float(acceptance(torch.tensor([1.0, 2.0]).log()).value), 4)  # 1 / 1.5
        0.6667
        >>> float(acceptance(torch.tensor([0.0, 0.0]), torch.tensor([0.0, 2.0])).value) < 1
        True
    """
    proposed = _at_least_two(model)
    num = len(proposed)
    if target is not None:
        current = _of_target(target)
        rows, columns = _mean_min_ratio(current, proposed), _mean_min_ratio(-proposed, -current)
        variance = rows.var() / len(rows) + columns.var() / num
        return Estimate(rows.mean(), variance.sqrt())
    weight = (proposed - proposed.max()).exp()
    pairs = weight * (num * _mean_min_ratio(proposed, proposed) - 1) / (num - 1)  # a sample with itself gives 1
    value = pairs.mean() / weight.mean()
    influence = (2 * (pairs - pairs.mean()) - value * (weight - weight.mean())) / weight.mean()
    return Estimate(value, influence.std() / math.sqrt(num))


def _mean_min_ratio(a: Float64[Tensor, " a"], b: Float64[Tensor, " b"]) -> Float64[Tensor, " a"]:
    r"""For every $a_i$ the mean over $j$ of $\min(1, e^{b_j - a_i})$; $a_i = -\infty$ gives 1."""
    order = b.sort().values
    below = torch.searchsorted(order, a)  # how many b lie below a_i
    sums = torch.cat([torch.full((1,), -torch.inf, dtype=torch.float64), order.logcumsumexp(0)])[below]
    part = torch.where(below > 0, (sums - a).exp(), 0.0)
    return (len(b) - below + part) / len(b)


def _relative_error(log_values: Tensor) -> Tensor:
    """Standard error of the log of a mean of positive numbers, from their logs."""
    excess = max(1 / ess(log_values) - 1, 0.0)
    return torch.tensor(math.sqrt(excess / (len(log_values) - 1)), dtype=torch.float64)


def _at_least_two(log_weights: Tensor) -> Float64[Tensor, " num"]:
    if len(log_weights) < 2:
        raise DataError(f"an error bar needs at least 2 log weights, got {len(log_weights)}")
    return check_log_weights(log_weights)


def _of_target(log_weights: Tensor) -> Float64[Tensor, " num"]:
    weights = _at_least_two(log_weights)
    if not (weights > -torch.inf).all():
        raise DataError("samples of the target must have log weights above -inf (it has density there), got -inf")
    return weights
