r"""A factor of a hierarchy in time: its states are tuples of what its children do, its events are runs of states.

One group of children at one level. A *state* is a distinct tuple of the children's tokens (at level 1), or of their
events (above). An *event* is a run of T states, one after the other: with T = 2 a state and the path out of it. States
and events are numbered in the order in which they were first seen, and a *path* is the place of an event among those
that begin with the same state:

$$ s_{t + \mathrm{stride}} = B(s_t, u_t), \qquad u = 0, 1, \dots \text{ in the order of discovery} . $$
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Int, Int64, Integer

from renorm.tokens.paths.tally import Tally

__all__ = ["Factor", "Seen"]

Numbering: TypeAlias = Callable[[Tally, Int64[np.ndarray, "number width"]], Int64[np.ndarray, " number"]]


class Seen(NamedTuple):
    """What a factor saw in each frame; -1 where a window ends beyond its episode.

    Attributes:
        states: Of the window that begins there.
        events: Of the run of windows that begins there.
    """

    states: Int64[np.ndarray, " frames"]
    events: Int64[np.ndarray, " frames"]


@dataclass
class Factor:
    """States and events of one group, and how often each was seen.

    Attributes:
        children: Places of its children in the level below (at level 1: of its tokens).
        length: T, states in an event.
        states: Tuples of the children.
        events: Runs of states.
    """

    children: Int64[np.ndarray, " children"]
    length: int = 2
    states: Tally = field(init=False)
    events: Tally = field(init=False)

    def __post_init__(self) -> None:
        self.states, self.events = Tally(len(self.children)), Tally(self.length)

    def learn(
        self, rows: Integer[np.ndarray, "frames children"], room: Int[np.ndarray, " frames"], stride: int
    ) -> Seen:
        """Count the tuples of all frames whose window lies within the episode, and their runs.

        Args:
            rows: Of the children, in each frame; those without room are not looked at.
            room: Frames from each one to the end of its episode, itself included.
            stride: Frames that a state covers.
        """
        return self._seen(rows, room, stride, Tally.learn)

    def find(self, rows: Integer[np.ndarray, "frames children"], room: Int[np.ndarray, " frames"], stride: int) -> Seen:
        """The same of frames that are not learned; -1 also for what was never seen."""
        return self._seen(rows, room, stride, Tally.find)

    def _seen(self, rows: np.ndarray, room: np.ndarray, stride: int, number: Numbering) -> Seen:
        states, events = np.full(len(rows), -1, np.int64), np.full(len(rows), -1, np.int64)
        begins = np.flatnonzero((room >= stride) & (rows >= 0).all(axis=1))
        states[begins] = number(self.states, rows[begins])
        runs = np.flatnonzero(room >= stride * self.length)
        if len(runs):
            run = states[runs[:, None] + stride * np.arange(self.length)]
            known = (run >= 0).all(axis=1)
            events[runs[known]] = number(self.events, run[known])
        return Seen(states, events)

    @property
    def paths(self) -> Int64[np.ndarray, " events"]:
        """The path of each event: its place among those that begin with the same state.

        Example:
            >>> factor = Factor(np.array([0]))
            >>> tokens = np.array([[0], [1], [0], [0]])
            >>> factor.learn(tokens, np.array([4, 3, 2, 1]), 1).events.tolist()
            [0, 1, 2, -1]
            >>> factor.events.rows.tolist(), factor.paths.tolist()
            ([[0, 1], [1, 0], [0, 0]], [0, 0, 1])
        """
        first = self.events.rows[:, 0]
        order = np.argsort(first, kind="stable")
        begins = np.flatnonzero(np.diff(first[order], prepend=-1))
        place = np.empty(len(first), np.int64)
        place[order] = np.arange(len(first)) - np.repeat(begins, np.diff(np.append(begins, len(first))))
        return place

    def absorb(self, other: "Factor", children: list[Int64[np.ndarray, "_"]]) -> Int64[np.ndarray, " events"]:
        """Add another factor's counts, whose children have other numbers; the number here of each of its events.

        Args:
            other: Of the same children.
            children: For each child, the number here of each of its events (at level 1: of each token).
        """
        rows = other.states.rows
        here = np.stack([names[rows[:, i]] for i, names in enumerate(children)], axis=1)
        states = self.states.learn(here, other.states.counts)
        return self.events.learn(states[other.events.rows], other.events.counts)
