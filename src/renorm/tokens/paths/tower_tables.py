"""A factor as a law: what it says of its children, and what they tell it; see ``renorm.tokens.paths.tower_law``."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float64, Int64
from scipy import sparse

from renorm.tokens.paths.state_chain import choose

__all__ = ["Child", "Message", "Table", "draw_events", "events_given", "message_of", "one_hot", "unrolled"]

Array = Float64[np.ndarray, "..."]


@dataclass(frozen=True, eq=False)
class Child:
    """p(outcome | state) of one child: a row's own outcome, or any as often as it is seen.

    Attributes:
        own: Of each state.
        base: q, the share of each outcome.
    """

    own: Int64[np.ndarray, " states"]
    base: Array

    @cached_property
    def onto(self) -> sparse.csr_array:
        """1 for each row's own outcome, a table of states and outcomes."""
        return one_hot(self.own, len(self.base))


@dataclass(frozen=True, eq=False)
class Table:
    """A factor as a law.

    Attributes:
        sure, loose: Of each state, how much of an outcome's law is the row's own, $n_s / (n_s + a)$, and the rest.
        children: One after the other.
        steps: For each place in an event (events, states): 1 for the state there.
        runs: States of each event.
    """

    sure: Array
    loose: Array
    children: list[Child]
    steps: list[sparse.csr_array]
    runs: Int64[np.ndarray, "events length"]


@dataclass(frozen=True, eq=False)
class Message:
    """What a child tells in each window.

    Attributes:
        outcomes: Likelihood of each of its events, scaled to 1 at most: $m(e)$.
        states: What they make of each state of its parent: $\\sum_e p(e \\mid s)\\, m(e)$.
    """

    outcomes: Array
    states: Array


def message_of(events: Array, table: Table, child: Child) -> tuple[Message, Array]:
    """What a child tells, from log likelihoods of its events; and the logarithm of what was taken off."""
    scale = events.max(axis=1, keepdims=True)
    outcomes = np.exp(events - scale)
    states = table.sure * outcomes[:, child.own] + table.loose * (outcomes @ child.base)[:, None]
    return Message(outcomes, states), scale


def events_given(belief: Array, table: Table, child: Child, message: Message) -> Array:
    r"""p(event | episode) from that of the parent's states.

    $$ Q(e) = \sum_s Q(s)\, \frac{p(e \mid s)\, m(e)}{\sum_{e'} p(e' \mid s)\, m(e')} . $$
    """
    share = belief / message.states
    return ((share * table.sure) @ child.onto + (share @ table.loose)[:, None] * child.base) * message.outcomes


def unrolled(events: Array, steps: list[sparse.csr_array]) -> Array:
    """p(state | episode) in each window, from that of events of several windows."""
    return np.stack([events @ step for step in steps], axis=1).reshape(-1, steps[0].shape[1])


def draw_events(
    states: np.ndarray, sure: Array, child: Child, message: Message, generator: np.random.Generator
) -> np.ndarray:
    """An event for each drawn state in each window."""
    windows = np.arange(states.shape[1])
    own = child.own[states]
    keep = sure[states] * message.outcomes[windows, own] / message.states[windows, states]
    other = np.stack(
        [choose(np.repeat((child.base * row)[None], len(states), axis=0), generator) for row in message.outcomes], 1
    )
    return np.where(generator.random(states.shape) < keep, own, other)


def one_hot(columns: Int64[np.ndarray, " rows"], width: int) -> sparse.csr_array:
    """Rows with a 1 each.

    Example:
        >>> one_hot(np.array([2, 0]), 3).toarray().tolist()
        [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    """
    return sparse.csr_array((np.ones(len(columns)), columns, np.arange(len(columns) + 1)), shape=(len(columns), width))
