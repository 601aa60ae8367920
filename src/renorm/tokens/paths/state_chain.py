r"""A chain of states, of which a few follow each: exact beliefs and draws, at the cost of successors that were seen.

$$ p(s' \mid s) = \frac{n_{ss'} + b\,q(s')}{n_s + b}, \qquad q(s) \propto \text{times that } s \text{ was seen} . $$
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64
from scipy import sparse
from scipy.special import xlogy

from renorm.tokens.paths.factor import Factor

__all__ = ["ChainBeliefs", "StateChain", "choose", "shares_of"]

Array = Float64[np.ndarray, "..."]


@dataclass(frozen=True, eq=False)
class ChainBeliefs:
    """What a chain makes of its windows.

    Attributes:
        states: p(state | all windows), (windows, states).
        filtered: p(state | this window and those before).
        log_evidence: ln p(what is seen in all windows), in nats.
        complexity: KL of the beliefs from the chain's own law, in nats.
    """

    states: Array
    filtered: Array
    log_evidence: float
    complexity: float


@dataclass(frozen=True, eq=False)
class StateChain:
    """Seen successors, or any state as often as it was seen.

    Attributes:
        first: q, also the law of the first state.
        seen: Shares of successors that were seen, (states, states), sparse.
        loose: $b / (n_s + b)$ of each state.

    Example: 0 and 1 take turns; the second window says nothing.
        >>> root = Factor(np.array([0]))
        >>> _ = root.learn(np.array([[0], [1]] * 50), np.arange(100, 0, -1), 1)
        >>> chain = StateChain.of(root, looseness=0.01)
        >>> chain.walk(np.log(np.array([[0.9, 0.1], [1.0, 1.0]]))).states.round(3).tolist()
        [[0.9, 0.1], [0.1, 0.9]]
    """

    first: Array
    seen: sparse.csr_array
    loose: Array

    @classmethod
    def of(cls, root: Factor, looseness: float) -> "StateChain":
        """The chain of a factor's events; ``looseness`` is b, counts > 0 of successors that were never seen."""
        size, pairs, counts = len(root.states), root.events.rows[:, :2], root.events.counts
        total = np.bincount(pairs[:, 0], counts, size)
        share = counts / (total + looseness)[pairs[:, 0]]
        seen = sparse.csr_array((share, (pairs[:, 0], pairs[:, 1])), shape=(size, size))
        return cls(shares_of(root.states.counts), seen, looseness / (total + looseness))

    def next(self, belief: Array) -> Array:
        """p(state) one window later."""
        return belief @ self.seen + (belief * self.loose).sum(-1, keepdims=True) * self.first

    def before(self, likelihood: Array) -> Array:
        """Likelihood, for each state, of what follows."""
        return self.seen @ likelihood + self.loose * (self.first @ likelihood)

    def forward(self, logs: Array) -> tuple[Array, float, Array]:
        """Beliefs window by window, the log evidence, and the likelihoods, each window's divided by its evidence."""
        top = logs.max(axis=1, keepdims=True)
        likelihoods, beliefs, evidence = np.exp(logs - top), np.empty_like(logs), float(top.sum())
        for t, likelihood in enumerate(likelihoods):
            joint = (self.next(beliefs[t - 1]) if t else self.first) * likelihood
            total = joint.sum()
            beliefs[t] = joint / total
            likelihoods[t] /= total
            evidence += float(np.log(total))
        return beliefs, evidence, likelihoods

    def walk(self, logs: Array) -> ChainBeliefs:
        """Forward and backward."""
        filtered, evidence, likelihoods = self.forward(logs)
        states, after, complexity = np.empty_like(logs), np.ones(logs.shape[1]), 0.0
        for t in range(len(logs) - 1, -1, -1):
            states[t] = filtered[t] * after
            onward = likelihoods[t] * after
            complexity += float(xlogy(states[t], onward).sum())
            if t:
                after = self.before(onward)
                complexity -= float(xlogy(filtered[t - 1] * after, after).sum())
        return ChainBeliefs(states, filtered, evidence, complexity)

    def draw(self, logs: Array, number: int, generator: np.random.Generator) -> Int64[np.ndarray, "number windows"]:
        """States of all windows, from the last to the first."""
        beliefs, _, _ = self.forward(logs)
        out = np.empty((number, len(logs)), np.int64)
        into = self.seen.tocsc()
        out[:, -1] = choose(np.repeat(beliefs[-1:], number, axis=0), generator)
        for t in range(len(logs) - 2, -1, -1):
            then = out[:, t + 1]
            way = into[:, then].T.toarray() + self.loose * self.first[then, None]
            out[:, t] = choose(beliefs[t] * way, generator)
        return out


def choose(weights: Array, generator: np.random.Generator) -> np.ndarray:
    """A column for each row, drawn by weight."""
    ends = weights.cumsum(axis=1)
    return (generator.random(len(weights))[:, None] * ends[:, -1:] >= ends).sum(axis=1).clip(max=weights.shape[1] - 1)


def shares_of(counts: Int64[np.ndarray, " number"]) -> Array:
    """Counts as parts of their sum."""
    return counts / counts.sum()
