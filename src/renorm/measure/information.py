r"""Mutual information, in nats: exact where states can be counted, else bounds from below, from samples.

$$ I(H; E) = \sum_{he} P(h, e)\ln\frac{P(h, e)}{P(h)\,P(e)} = H(H) - H(H \mid E) $$

A coarse variable H has a few states; what it is to tell of, E, may have any number. A bound costs a classifier
$q(h \mid e)$, and holds whatever the classifier is, as long as it is judged on samples that it has not seen.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64, Int64, Num
from torch import Tensor

from renorm.errors import DataError, RecipeError
from renorm.laws.ising import Enumeration
from renorm.measure.statistics import Estimate, jackknife
from renorm.nn.dense import dense

__all__ = [
    "BestRule",
    "Told",
    "best_odd_rule",
    "bound_of_means",
    "enumerated_joint",
    "held_out_information",
    "info_nce",
    "mutual_information",
    "variational_information",
]

_SUM = 1e-9  # probabilities may miss 1 by so much
_CHUNK = 2**24  # entries of joint tables held at once


def mutual_information(joint: Float[Tensor, "states others"]) -> float:
    r"""Mutual information of the rows and the columns of a table of joint probabilities, in nats.

    Raises:
        DataError: If an entry is negative or not finite, or they do not add to 1.

    Example: a fair coin and its copy; two coins that know nothing of each other.
        >>> round(mutual_information(torch.eye(2) / 2), 6), mutual_information(torch.full((2, 2), 0.25))
        (0.693147, 0.0)
    """
    p = _checked(joint)
    return float(_entropy(p.sum(1)) + _entropy(p.sum(0)) - _entropy(p.flatten()))


def enumerated_joint(
    law: Enumeration, coarse: Callable[[Tensor], Tensor], others: Callable[[Tensor], Tensor]
) -> Float64[Tensor, "states others"]:
    r"""Exact joint probabilities of two functions of the states of a law.

    $$ P(h, e) = \sum_s p(s)\, p(h \mid s)\,[g(s) = e] $$

    Args:
        law: All states, with their probabilities.
        coarse: All states (states, 1, \\*sites) to whole numbers (states,), the values of h; or to probabilities of the
            values of h, (states, k), where a rule draws.
        others: All states to g, (states, ...): each distinct row is a value of e.

    Raises:
        DataError: If ``coarse`` gives no whole numbers >= 0, and no probabilities.

    Example: what a spin of a critical torus of four says of the one beside it.
        >>> from renorm.laws.ising import Ising
        >>> law = Ising((2, 2), 0.44068679350977147).enumerate()
        >>> joint = enumerated_joint(law, lambda s: (s[:, 0, 0, 0] > 0).long(), lambda s: s[:, 0, 0, 1])
        >>> round(mutual_information(joint), 4)
        0.4249
    """
    h = coarse(law.states)
    if h.is_floating_point():
        off = h.sum(-1) - 1 if h.ndim == 2 else torch.ones(1)
        if len(h) != len(law.states) or bool((h < 0).any()) or not float(off.abs().max()) < 1e-5:
            raise DataError(f"a rule that draws gives (states, k) probabilities that add to 1, got {tuple(h.shape)}")
        share = h.double()
    else:
        if h.shape != (len(law.states),) or int(h.min()) < 0:
            raise DataError(f"a rule gives a whole number >= 0 for each state, got shape {tuple(h.shape)}")
        share = torch.nn.functional.one_hot(h).double()
    cell = _numbered(others(law.states).reshape(len(law.states), -1))
    table = torch.zeros(int(cell.max()) + 1, share.shape[1], dtype=torch.float64)
    return table.index_add(0, cell, law.log_prob.exp()[:, None] * share).T


class BestRule(NamedTuple):
    """A deterministic rule of two values, and what it keeps.

    Attributes:
        information: In nats.
        rule: Value, -1 or +1, of each pattern of a block.
        tried: How many rules there are.
    """

    information: float
    rule: Int64[Tensor, " patterns"]
    tried: int


def best_odd_rule(joint: Float[Tensor, "patterns others"]) -> BestRule:
    r"""The rule of two values that keeps most, of all that turn over with the block: each one is tried.

    Args:
        joint: Exact joint probabilities of a block's pattern and its surroundings. A block of n spins has $2^n$
            patterns, numbered so that pattern p turned over is $2^n - 1 - p$ (bits are).

    Returns:
        The best of $2^{2^{n-1} - 1}$ rules, up to the sign of all; of equals, the first.

    Raises:
        RecipeError: If blocks have more than four spins: too many rules.
        DataError: If the table is none of probabilities.

    Example: two spins of which the second is what is told.
        >>> joint = torch.tensor([[1, 0], [1, 0], [0, 1], [0, 1]]) / 4  # patterns 00, 01, 10, 11
        >>> best_odd_rule(joint).rule.tolist()
        [-1, -1, 1, 1]
    """
    p = _checked(joint)
    patterns = len(p)
    if patterns not in (2, 4, 8, 16):
        raise RecipeError(f"all rules can be tried for blocks of one to four spins, 2 to 16 patterns, got {patterns}")
    half = patterns // 2
    bits = torch.arange(2 ** (half - 1))[:, None] >> torch.arange(half - 1) & 1
    lower = torch.cat([torch.zeros(len(bits), 1, dtype=torch.int64), bits], 1)  # all down is down
    rules = torch.cat([lower, 1 - lower.flip(1)], 1)
    total, found = p.sum(0), []
    outside = _entropy(total)
    for part in rules.split(max(1, _CHUNK // p.shape[1])):
        up = part.double() @ p
        both = torch.stack([up, total - up], 1).clamp(min=0)
        found.append(_entropy(both.sum(-1)) + outside - _entropy(both.flatten(1)))
    information = torch.cat(found)
    best = int(torch.nonzero(information >= information.max() - 1e-12)[0, 0])
    return BestRule(float(information[best]), 2 * rules[best] - 1, len(rules))


def info_nce(scores: Float[Tensor, "batches num others"]) -> Estimate:
    r"""A lower bound from how well a critic tells true pairs from mixed ones.

    $$ I(A; B) \ge \Big\langle\frac1K\sum_{i=1}^K\Big[s_{ii} - \ln\frac1K\sum_{j=1}^K e^{s_{ij}}\Big]\Big\rangle
       \le \ln K $$

    It is tightest for $s_{ij} = \ln p(a_i \mid b_j)$ up to a function of either; a classifier's
    $\ln q(h_i \mid e_j)$ will do.

    Args:
        scores: $s_{ij}$ of K pairs with each other, pair i on the diagonal, for each of several batches.

    Returns:
        The bound in nats, with one standard error over batches; valid in the mean over batches.

    Raises:
        DataError: If there are fewer than two batches, or a batch is no square of finite numbers.

    Source:
        van den Oord, Li & Vinyals 2018, arXiv:1807.03748; Poole et al. 2019, arXiv:1905.06922.

    Example: a critic that knows the pairs reaches ln K, and no critic can say more.
        >>> round(float(info_nce(1000 * torch.eye(4).expand(2, 4, 4)).value), 4)  # ln 4
        1.3863
    """
    if scores.ndim != 3 or scores.shape[1] != scores.shape[2] or not scores.shape[1]:
        raise DataError(f"scores of pairs with each other are (batches, K, K), got shape {tuple(scores.shape)}")
    s = scores.detach().cpu().double()
    return jackknife((s.diagonal(dim1=1, dim2=2) - s.logsumexp(2)).mean(1) + math.log(s.shape[1]))


class Told(NamedTuple):
    r"""What is told of a coarse variable, on samples held out.

    Attributes:
        information: The bound in nats, and one standard error over fields.
        samples: What it is made of, one row a field: share of each state, then $\langle\sum_h p\ln q\rangle$. Rows of
            two rules on the same fields are compared by a jackknife of ``bound_of_means``.
        log_q: The classifier's $\ln q(h \mid e)$ on the samples held out.
    """

    information: Estimate
    samples: Float64[Tensor, "fields columns"]
    log_q: Float[Tensor, "fields blocks states"]


def variational_information(coarse: Float[Tensor, "fields blocks states"], log_q: Float[Tensor, "*same"]) -> Told:
    r"""The bound of Barber and Agakov, for a classifier that has not seen these samples.

    $$ I(H; E) = H(H) - H(H \mid E) \ge H(\bar p) + \Big\langle\sum_h p(h \mid V)\ln q(h \mid E)\Big\rangle,
       \qquad \bar p = \langle p(h \mid V)\rangle $$

    The gap is the mean Kullback-Leibler divergence of q from the true posterior. A rule that draws enters with its
    probabilities: drawing would add noise and nothing else. H of few states is taken from their shares; from n
    samples it is too small by (k - 1) / 2n, and stays a bound.

    Args:
        coarse: $p(h \mid V)$ of each block of each field; 1 and 0 where the rule draws nothing.
        log_q: Of the classifier, in nats.

    Raises:
        DataError: If shapes differ, a row of ``coarse`` or of ``log_q`` is no probability, or there are fewer than two
            fields.

    Source:
        Barber & Agakov 2003, "The IM algorithm"; McAllester & Stratos 2020, arXiv:1811.04251, on its limits.

    Example: a classifier that says what is so, and one that knows nothing.
        >>> h = torch.eye(2).repeat(10, 1)[:, None]
        >>> sure, blind = (h * 0.98 + 0.01).log(), torch.full_like(h, 0.5).log()
        >>> [round(abs(float(variational_information(h, q).information.value)), 3) for q in (sure, blind)]
        [0.683, 0.0]
    """
    if coarse.shape != log_q.shape or coarse.ndim != 3:
        raise DataError(f"both must be (fields, blocks, states), got {tuple(coarse.shape)} and {tuple(log_q.shape)}")
    _check_shares(coarse)
    p, log = coarse.detach().cpu().double(), log_q.detach().cpu().double()
    if not bool((log.logsumexp(-1).abs() < 1e-4).all()):
        raise DataError(
            "log_q must be normalised (take log_softmax), else it bounds nothing; a row adds to another sum"
        )
    said = torch.where(p > 0, p * log, 0.0).sum(-1)
    samples = torch.cat([p.mean(1), said.mean(1, keepdim=True)], 1)
    return Told(jackknife(samples, bound_of_means), samples, log_q.detach())


def bound_of_means(means: Float64[Tensor, "*rows columns"]) -> Float64[Tensor, "*rows"]:
    r"""$H(\bar p)$ of all columns but the last, plus the last: the bound from means of ``Told.samples``, in nats.

    Example:
        >>> bound_of_means(torch.tensor([0.5, 0.5, -0.25], dtype=torch.float64)).round(decimals=4)  # ln 2 - 1/4
        tensor(0.4431, dtype=torch.float64)
    """
    return _entropy(means[..., :-1]) + means[..., -1]


def held_out_information(
    learn: tuple[Float[Tensor, "fields blocks states"], Num[Tensor, "*others"]],
    judge: tuple[Float[Tensor, "held images states"], Num[Tensor, "*outer"]],
    *,
    width: int = 64,
    layers: int = 2,
    epochs: int = 6,
    batch: int = 2048,
    rate: float = 5e-3,
    generator: torch.Generator,
) -> Told:
    r"""The bound of ``variational_information`` with a dense network that is taught here, on other samples.

    Args:
        learn: $p(h \mid V)$ and E, (fields, blocks, sites), of each block of each field to learn from.
        judge: The same of fields held out, independent of those; of as many blocks as there are.
        width, layers: Of the network.
        epochs: Passes over all blocks, in random order, with Adam; its rate falls to 0.
        batch: Blocks of a step.
        rate: Largest step of Adam.
        generator: Draws the network's weights and the order: from one seed, rules are judged by twins.

    Raises:
        RecipeError: If a value is out of range.
        DataError: If shapes do not agree, or a value is not finite.

    Example: a spin that is seen through noise, right nine times of ten; exactly ln 2 - H(0.1) = 0.368.
        >>> g = torch.Generator().manual_seed(0)
        >>> up = torch.randint(2, (8000, 1), generator=g)
        >>> seen = torch.where(torch.rand(8000, 1, generator=g) < 0.9, up, 1 - up)[..., None].float()
        >>> h = torch.nn.functional.one_hot(up, 2).float()
        >>> told = held_out_information((h[:4000], seen[:4000]), (h[4000:], seen[4000:]), batch=200, generator=g)
        >>> bool((told.information.value - 0.368).abs() < 3 * told.information.error + 0.002)
        True
    """
    if min(epochs, batch) < 1 or not rate > 0:
        raise RecipeError(f"epochs and batch must be >= 1 and rate > 0 (nothing is learned), got {epochs, batch, rate}")
    for h, e in (learn, judge):
        if h.ndim != 3 or e.ndim != 3 or h.shape[:2] != e.shape[:2]:
            raise DataError(f"each block has a state and surroundings, got {tuple(h.shape)} and {tuple(e.shape)}")
        _check_shares(h)
        if not bool(e.isfinite().all()):
            raise DataError("surroundings must be finite (one nan would spoil every weight), got nan or inf")
    if learn[0].shape[2] != judge[0].shape[2] or learn[1].shape[2] != judge[1].shape[2]:
        raise DataError("fields to learn from and fields held out must have the same states and the same surroundings")
    target, seen = (part.detach().flatten(0, 1).float() for part in learn)
    scale = seen.std().clamp(min=1e-12)
    network = dense(seen.shape[1], target.shape[1], width=width, layers=layers, generator=generator).to(seen.device)
    optimiser = torch.optim.Adam(network.parameters(), lr=rate)
    steps, done = epochs * -(-len(seen) // batch), 0
    for _ in range(epochs):
        order = torch.randperm(len(seen), generator=generator, device=generator.device).to(seen.device)
        for rows in order.split(batch):
            optimiser.param_groups[0]["lr"] = rate * (1 + math.cos(math.pi * done / steps)) / 2
            loss = -(target[rows] * network(seen[rows] / scale).log_softmax(-1)).sum(1).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            done += 1
    with torch.no_grad():
        log_q = torch.cat([network(part.float() / scale).log_softmax(-1) for part in judge[1].split(256)])
    return variational_information(judge[0], log_q)


def _entropy(p: Float64[Tensor, "*rows states"]) -> Float64[Tensor, "*rows"]:
    return -torch.xlogy(p, p).sum(-1)


def _numbered(rows: Num[Tensor, "states places"]) -> Int64[Tensor, " states"]:
    """A number for each distinct row: place by place, for sorting numbers is far cheaper than sorting rows."""
    key = torch.zeros(len(rows), dtype=torch.int64)
    for column in rows.T:
        values, place = torch.unique(column, return_inverse=True)
        key = torch.unique(key * len(values) + place, return_inverse=True)[1]
    return key


def _check_shares(p: Tensor) -> None:
    if not (bool((p >= 0).all()) and bool(((p.sum(-1) - 1).abs() < 1e-4).all())):
        raise DataError("each row of coarse values must be probabilities of the states: >= 0, and their sum 1")


def _checked(joint: Tensor) -> Float64[Tensor, "states others"]:
    p = joint.detach().cpu().double()
    total = float(p.sum())
    tolerance = _SUM if joint.dtype == torch.float64 else 1e-5
    if p.ndim != 2 or not bool((p >= 0).all()) or not abs(total - 1) < tolerance:
        raise DataError(
            f"a table of joint probabilities has two axes, entries >= 0 and the sum 1, got shape {tuple(p.shape)} and "
            f"the sum {total:.6g}"
        )
    return p
