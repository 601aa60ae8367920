r"""Dirichlet counts: what a token hierarchy has seen, as sparse integers that add.

A table of conditional probabilities $\theta_{sk} = p(k \mid s)$ has a Dirichlet prior of concentration $\alpha$ on each
row. All that data say about it are the counts $n_{sk}$, so counts are the state of every model here: they add over
images, over workers and over time, and their order never matters.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int64
from scipy.special import digamma, gammaln

from renorm.errors import DataError, RecipeError

__all__ = [
    "Counts",
    "Reduction",
    "forget",
    "gate",
    "log_evidence",
    "mutual_information",
    "reduce",
    "smooth",
    "sparse_prior",
]

SOFT = 2.0**-20  # unit of counts that are not whole numbers: expected counts, real weights
EVENTS = 2**20  # events that are sorted together

Events = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]
"""Table, state of the parent, state of the child, weight of some events; they broadcast."""


class Counts:
    r"""Sparse counts $n[t, s, k]$: how often table t met the parent state s with the child state k.

    Counts are whole multiples of ``unit``: 1 where images were counted, $2^{-20}$ where counts are expectations. So
    sums are exact, and $(a + b) + c = a + (b + c)$ to the last bit.

    Args:
        shape: Tables, parent states, child states.
        keys: Flat places of the cells that are not zero, rising.
        values: Their counts, in units.
        unit: A power of two.

    Example:
        >>> n = Counts.of((1, 2, 3), parent=[0, 0, 1], child=[2, 2, 1])
        >>> n.dense()[0]
        array([[0., 0., 2.],
               [0., 1., 0.]])
        >>> (n + n).total
        6.0
    """

    def __init__(
        self,
        shape: Sequence[int],
        keys: Int64[np.ndarray, " cells"] | None = None,
        values: Int64[np.ndarray, " cells"] | None = None,
        unit: float = 1.0,
    ) -> None:
        self.shape = tuple(int(n) for n in shape)
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise RecipeError(f"counts have the shape (tables, parents, children), each >= 1, got {self.shape}")
        self.keys = np.empty(0, np.int64) if keys is None else keys
        self.values = np.empty(0, np.int64) if values is None else values
        self.unit = unit

    @classmethod
    def of(
        cls, shape: Sequence[int], *, parent: Any, child: Any, table: Any = 0, weight: Any | None = None
    ) -> "Counts":
        """Count events; a parent or child of -1 (not seen) counts nothing.

        Args:
            shape: Tables, parent states, child states.
            parent, child: State of each event.
            table: Table of each event, or of all.
            weight: How often each event counts; once if not given. Real weights are rounded to multiples of 2^-20.

        Raises:
            DataError: If a state lies outside the shape or a weight is negative.
        """
        t, s, k = np.broadcast_arrays(*(np.atleast_1d(np.asarray(part, np.int64)) for part in (table, parent, child)))
        if weight is None:
            return cls.of_pieces(shape, ((t[i], s[i], k[i], None) for i in pieces(*s.shape)))
        w = np.broadcast_to(np.asarray(weight, np.float64), s.shape)
        unit = unit_of(np.asarray(weight, np.float64))
        return cls.of_pieces(shape, ((t[i], s[i], k[i], w[i]) for i in pieces(*s.shape)), unit)

    @classmethod
    def of_pieces(cls, shape: Sequence[int], events: Iterable[Events], unit: float = 1.0) -> "Counts":
        """Count events that come piece by piece, so that no more than a piece is held in keys; see ``of``.

        Args:
            shape: Tables, parent states, child states.
            events: Pieces, of which ``pieces`` are a good size.
            unit: 1 if all weights are whole, see ``unit_of``.
        """
        found, size = [_NOTHING], 0
        for piece in events:
            found.append(_cells(shape, piece, unit))
            size += len(found[-1][0])
            if size > max(EVENTS, len(found[0][0])):  # so that each cell is sorted but a few times
                found, size = [_gather(found)], 0
        return cls(shape, *_gather(found), unit)

    @classmethod
    def from_dense(cls, n: Float[np.ndarray, "tables parents children"]) -> "Counts":
        """Counts from an array of them; real ones are rounded to multiples of 2^-20."""
        unit = unit_of(n)
        values = np.rint(n.reshape(-1) / unit).astype(np.int64)
        keys = np.flatnonzero(values)
        return cls(n.shape, keys.astype(np.int64), values[keys], unit)

    def __add__(self, other: "Counts") -> "Counts":
        if self.shape != other.shape:
            raise DataError(f"counts add up only where their shapes agree, got {self.shape} and {other.shape}")
        unit = min(self.unit, other.unit)
        scaled = [(part.keys, part.values * round(part.unit / unit)) for part in (self, other)]
        return Counts(self.shape, *_gather(scaled), unit)

    def __sub__(self, other: "Counts") -> "Counts":
        difference = self + Counts(other.shape, other.keys, -other.values, other.unit)
        if len(difference.values) and difference.values.min() < 0:
            raise DataError("only counts that are contained in others can be taken off them, got more than there are")
        return difference

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Counts)
            and self.shape == other.shape
            and np.array_equal(self.keys, other.keys)
            and np.array_equal(self.values * self.unit, other.values * other.unit)
        )

    __hash__ = None  # type: ignore[assignment]

    @property
    def total(self) -> float:
        """Sum of all counts."""
        return float(self.values.sum() * self.unit)

    def grown(self, shape: Sequence[int]) -> "Counts":
        """The same counts in tables that have room for more states."""
        if any(new < old for new, old in zip(shape, self.shape, strict=True)):
            raise DataError(f"counts can only grow, got {tuple(shape)} for {self.shape}")
        t, s, k = np.unravel_index(self.keys, self.shape)
        keys = np.ravel_multi_index((t, s, k), tuple(shape)).astype(np.int64)
        return Counts(shape, keys, self.values, self.unit)

    def dense(self) -> Float[np.ndarray, "tables parents children"]:
        """The counts as an array."""
        flat = np.zeros(int(np.prod(self.shape)))
        flat[self.keys] = self.values * self.unit
        return flat.reshape(self.shape)

    def state(self) -> dict[str, np.ndarray]:
        """Arrays to store; ``from_state`` reads them."""
        return {
            "shape": np.array(self.shape, np.int64),
            "keys": self.keys,
            "values": self.values,
            "unit": np.array([self.unit]),
        }

    @classmethod
    def from_state(cls, state: dict[str, np.ndarray]) -> "Counts":
        """Counts from what ``state`` gave."""
        return cls([int(n) for n in state["shape"]], state["keys"], state["values"], float(state["unit"][0]))


def smooth(
    n: Float[np.ndarray, "*tables children"], base: Float[np.ndarray, "*coarser children"] | None, strength: float
) -> Float[np.ndarray, "*tables children"]:
    r"""Predictive probabilities, backed off to a coarser table.

    $$ \theta_k = \frac{n_k + \kappa\, m_k}{n + \kappa}, \qquad n = \sum_k n_k $$

    the posterior mean under a Dirichlet prior of concentration $\kappa m$.

    Args:
        n: Counts.
        base: $m$, a table that broadcasts against ``n``, its rows summing to 1; uniform if not given.
        strength: $\kappa \ge 0$, in counts. With 0 a row without counts takes the base itself.

    Example:
        >>> smooth(np.array([[3.0, 1.0]]), None, 2.0)
        array([[0.66666667, 0.33333333]])
    """
    if strength < 0:
        raise RecipeError(f"the strength of a back-off must be >= 0 (it counts as data), got {strength}")
    m = np.full(n.shape[-1], 1.0 / n.shape[-1]) if base is None else base
    total = n.sum(-1, keepdims=True)
    empty = (total + strength) == 0
    return np.where(empty, m, (n + strength * m) / np.where(empty, 1.0, total + strength))


def log_evidence(
    n: Float[np.ndarray, "*tables children"], concentration: Float[np.ndarray, "*some children"] | float
) -> Float[np.ndarray, "*tables"]:
    r"""Log probability of a sequence with these counts, the table integrated out.

    $$ \ln p = \ln\frac{\Gamma(\alpha_0)}{\Gamma(\alpha_0 + n_0)} + \sum_k
       \ln\frac{\Gamma(\alpha_k + n_k)}{\Gamma(\alpha_k)}, \qquad \alpha_0 = \sum_k \alpha_k,\ n_0 = \sum_k n_k $$

    It equals the product of the predictive probabilities $(n_k + \alpha_k)/(n_0 + \alpha_0)$ as the counts come in,
    in whatever order.

    Args:
        n: Counts.
        concentration: $\alpha > 0$, of every child or of all.

    Returns:
        Nats, one for each row.

    Example: the rule of succession, 1/2 * 2/3.
        >>> round(float(np.exp(log_evidence(np.array([2.0, 0.0]), 1.0))), 6)
        0.333333
    """
    alpha = np.broadcast_to(np.asarray(concentration, np.float64), n.shape)
    if not (alpha > 0).all():
        raise RecipeError(f"a concentration must be > 0 (the evidence of a new token would be 0), got {alpha.min()}")
    per_child = gammaln(alpha + n) - gammaln(alpha)
    return np.asarray(per_child.sum(-1) + gammaln(alpha.sum(-1)) - gammaln(alpha.sum(-1) + n.sum(-1)))


def mutual_information(n: Float[np.ndarray, "*tables parents children"]) -> Float[np.ndarray, "*tables"]:
    r"""What a child says about its parent, for the joint law $P = n / \sum n$.

    $$ I = \sum_{sk} P_{sk} \ln\frac{P_{sk}}{P_{s\cdot} P_{\cdot k}} $$

    Returns:
        Nats >= 0, one for each table; 0 for an empty one.

    Example:
        >>> round(float(mutual_information(np.eye(2))), 6)  # ln 2
        0.693147
    """
    total = n.sum((-2, -1), keepdims=True)
    p = n / np.where(total > 0, total, 1.0)

    def entropy(q: np.ndarray) -> np.ndarray:
        return -(q * np.log(np.where(q > 0, q, 1.0)))

    rows, columns = entropy(p.sum(-1)).sum(-1), entropy(p.sum(-2)).sum(-1)
    return np.asarray(np.maximum(rows + columns - entropy(p).sum((-2, -1)), 0.0))


def gate(
    before: Float[np.ndarray, "*tables parents children"],
    after: Float[np.ndarray, "*tables parents children"],
    sharpness: float,
) -> Float[np.ndarray, "*tables"]:
    r"""How far to accept new counts: by the mutual information that they bring.

    $$ w = \frac{e^{\beta I(a')}}{e^{\beta I(a)} + e^{\beta I(a')}} $$

    Args:
        before: Counts $a$ without the new data.
        after: Counts $a'$ with them.
        sharpness: $\beta \ge 0$, per nat. With 0 everything is accepted: $w = 1$.

    Returns:
        $w$, the weight of ``after`` against ``before``, for each table.

    Source: Friston et al. (2024), arXiv:2407.20292.

    Example:
        >>> float(gate(np.eye(2), np.ones((2, 2)), 0.0))
        1.0
        >>> float(gate(np.eye(2), np.ones((2, 2)), 512.0)) < 1e-9  # it would blur the table
        True
    """
    if sharpness == 0:
        return np.ones(np.shape(before)[:-2])
    gain = sharpness * (mutual_information(after) - mutual_information(before))
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(gain, -700, 700))))


def forget(
    before: Float[np.ndarray, "*tables parents children"],
    after: Float[np.ndarray, "*tables parents children"],
    weight: Float[np.ndarray, "*tables"],
    horizon: float,
) -> Float[np.ndarray, "*tables parents children"]:
    r"""Counts after a gated step, shrunk so that their total tends to ``horizon``.

    $$ a \leftarrow \bigl[(1 - w)\, a + w\, a'\bigr] \frac{\eta}{\eta + w} $$

    Args:
        before: Counts $a$.
        after: Counts $a'$, one event more.
        weight: $w$, from ``gate``.
        horizon: $\eta > 0$, the total count of a table in the long run; infinite: nothing is forgotten.

    Example:
        >>> forget(np.zeros((1, 2)), np.array([[1.0, 0.0]]), np.array(1.0), float("inf"))
        array([[1., 0.]])
    """
    if not horizon > 0:
        raise RecipeError(f"the horizon of forgetting must be > 0 (a table must hold something), got {horizon}")
    w = np.asarray(weight)[..., None, None]
    shrink = 1.0 if np.isinf(horizon) else horizon / (horizon + w)
    return ((1 - w) * before + w * after) * shrink


class Reduction(NamedTuple):
    """A simpler prior put in place of a table's prior after the fact."""

    gain: np.ndarray
    posterior: np.ndarray


def reduce(
    prior: Float[np.ndarray, "*tables children"],
    posterior: Float[np.ndarray, "*tables children"],
    reduced: Float[np.ndarray, "*tables children"],
) -> Reduction:
    r"""Bayesian model reduction: the evidence of a simpler prior, without looking at the data again.

    With $\ln B(x) = \sum_k \ln\Gamma(x_k) - \ln\Gamma(\sum_k x_k)$, prior p, posterior q = p + n, reduced prior r:

    $$ \ln\frac{p(\mathrm{data} \mid r)}{p(\mathrm{data} \mid p)} = \ln B(p) + \ln B(q + r - p) - \ln B(q) - \ln B(r) $$

    Args:
        prior, posterior: Concentrations before and after the data.
        reduced: Concentrations of the simpler prior.

    Returns:
        ``gain`` in nats for each row (> 0: the simpler model is the better one), and its posterior $q + r - p$.

    Raises:
        RecipeError: If a concentration is not positive.

    Example: a row that only ever gave its first child gains by a prior that expects just that.
        >>> p, n = np.array([1.0, 1.0]), np.array([20.0, 0.0])
        >>> float(reduce(p, p + n, np.array([1.0, 1 / 32])).gain) > 0
        True
    """
    after = posterior + reduced - prior
    for name, part in (("prior", prior), ("posterior", posterior), ("reduced", reduced), ("its posterior", after)):
        if not (part > 0).all():
            raise RecipeError(f"every concentration must be > 0, got {part.min()} in the {name}; add a small floor")

    def log_beta(x: np.ndarray) -> np.ndarray:
        return np.asarray(gammaln(x).sum(-1) - gammaln(x.sum(-1)))

    return Reduction(log_beta(prior) + log_beta(after) - log_beta(posterior) - log_beta(reduced), after)


def sparse_prior(
    prior: Float[np.ndarray, "*tables children"], posterior: Float[np.ndarray, "*tables children"], odds: float = 32.0
) -> Float[np.ndarray, "*tables children"]:
    r"""A prior for ``reduce`` that expects only the children that a row has shown.

    $$ r_k \propto p_k \text{ where } \psi(q_k) > \max_j \psi(q_j) - \ln \text{odds}, \qquad
       r_k = p_k / \text{odds} \text{ elsewhere,} \qquad \sum_k r_k = \sum_k p_k $$

    Args:
        prior, posterior: Concentrations before and after the data.
        odds: How much rarer than the commonest child one must be to be let go.

    Returns:
        Concentrations of the same sum; take them where ``reduce`` says that they gain.

    Example: one child shown, three never.
        >>> p = np.ones(4)
        >>> r = sparse_prior(p, p + np.array([40.0, 0.0, 0.0, 0.0]))
        >>> r.round(3).tolist(), bool(reduce(p, p + np.array([40.0, 0.0, 0.0, 0.0]), r).gain > 0)
        ([3.906, 0.031, 0.031, 0.031], True)
    """
    if not odds > 1:
        raise RecipeError(f"odds must be > 1 (the commonest child stays), got {odds}")
    level = digamma(posterior)
    kept = level > level.max(-1, keepdims=True) - np.log(odds)
    rest = np.where(kept, 0.0, prior / odds)
    scale = (prior.sum(-1, keepdims=True) - rest.sum(-1, keepdims=True)) / np.where(kept, prior, 0.0).sum(
        -1, keepdims=True
    )
    return np.where(kept, prior * scale, rest)


def unit_of(weight: Float[np.ndarray, "*some"]) -> float:
    """Unit of counts with such weights: 1 for whole ones, else 2^-20.

    Raises:
        DataError: If a weight is negative or no number.
    """
    if weight.size and not (np.isfinite(weight).all() and weight.min() >= 0):
        raise DataError(f"weights of counts must be finite and >= 0, got {weight.min()}")
    return 1.0 if np.array_equal(weight, np.rint(weight)) else SOFT


def pieces(number: int, *each: int) -> Iterator[slice]:
    """Slices of a number of rows of events, each of about ``EVENTS`` events.

    Example:
        >>> [(part.start, part.stop) for part in pieces(3, 2**19)]
        [(0, 2), (2, 4)]
    """
    step = max(1, EVENTS // max(1, math.prod(each)))
    return (slice(start, start + step) for start in range(0, number, step))


_NOTHING = np.empty(0, np.int64), np.empty(0, np.int64)


def _cells(shape: Sequence[int], events: Events, unit: float) -> tuple[np.ndarray, np.ndarray]:
    """Keys and values of the cells that some events touch."""
    *states, weight = events
    wide = np.broadcast_arrays(*states)
    t, s, k = (part.reshape(-1) for part in wide)
    seen = (s >= 0) & (k >= 0)
    for name, part, size in zip(("table", "parent", "child"), (t, s, k), shape, strict=True):
        if len(part) and (part[seen].max(initial=0) >= size or part.min() < -1):
            raise DataError(f"{name} states must be in 0 ... {size - 1}, got {part.min()} ... {part.max()}")
    keys = ((t * shape[1] + s) * shape[2] + k)[seen]
    if weight is None:
        found, number = np.unique(keys, return_counts=True)
        return found, number.astype(np.int64)
    share = np.broadcast_to(weight, wide[0].shape).reshape(-1)[seen]
    return _gather([(keys, np.rint(share / unit).astype(np.int64))])


def _gather(parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Sum the values of equal keys, in integers; zeros are dropped. The list is emptied: no array is held twice."""
    keys, values = np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])
    parts.clear()
    if not len(keys):
        return _NOTHING
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    values = values[order]
    del order
    first = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))
    values = np.add.reduceat(values, first)
    keys = keys[first]
    kept = values != 0
    return (keys, values) if kept.all() else (keys[kept], values[kept])
