r"""What comes next in a world of objects, and what it is worth: learned from frames, actions and rewards by counting.

Objects are groups of tokens (``renorm.tokens.paths.objects``), their states distinct tuples of them. The next state of
each has a law of its own, whose context may hold the last two states of all objects and the action: where it holds the
action, the object's path is *controllable*. What a frame is worth is a law of what led to it,

$$ p(s_f(t+1) \mid \mathrm{context}_f(t)) , \qquad p(r(t+1) \mid s(t+1), s(t), a(t)) , $$

where again the data decide how much of it bears on the outcome. What bears on nothing is not looked at.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int, Int64, UInt8

from renorm.errors import DataError
from renorm.tokens.paths.context_law import ContextLaw
from renorm.tokens.paths.object_states import ObjectStates
from renorm.tokens.paths.objects import objects_of
from renorm.tokens.paths.planes import Planes
from renorm.tokens.paths.tower import room_in

__all__ = ["Ahead", "Foresight"]

ENOUGH, AROUND = 5000, 32
"""Frames from which objects are told apart, and those around the first sight of a token that is not among them."""
LEAST, LIKELY = 1 / 32, 0.5


class Ahead(NamedTuple):
    """What may follow from some frames and actions, one after the other.

    Attributes:
        source: Which of them.
        states: Of every object in the next frame; -1 where nothing like it was seen, 0 where it bears on nothing.
        share: Its probability.
        won, lost: Probability that something is won there, or lost.
    """

    source: Int64[np.ndarray, " number"]
    states: Int64[np.ndarray, "number objects"]
    share: Float64[np.ndarray, " number"]
    won: Float64[np.ndarray, " number"]
    lost: Float64[np.ndarray, " number"]


@dataclass(frozen=True)
class Foresight:
    """Objects, their laws, and what frames are worth.

    Attributes:
        planes: Tokens of a picture.
        groups: Object of each token.
        states: Of each object.
        laws: Of each object's next state, given all states, all states before, and the action.
        reward, cost: Of a frame, given its states, all states before, and the action that led to it.
        actions: How many there are.
    """

    planes: Planes
    groups: Int64[np.ndarray, " tokens"]
    states: tuple[ObjectStates, ...]
    laws: tuple[ContextLaw, ...]
    reward: ContextLaw
    cost: ContextLaw
    actions: int

    @classmethod
    def fit(
        cls,
        pictures: UInt8[np.ndarray, "frames rows columns"],
        actions: Int[np.ndarray, " actions"],
        rewards: Int[np.ndarray, " rewards"],
        costs: Int[np.ndarray, " costs"],
        *,
        number: int,
        lengths: Sequence[int] | None = None,
    ) -> "Foresight":
        """Learn from episodes, one after the other.

        Args:
            pictures: All frames.
            actions: What was done in each.
            rewards, costs: What each was worth, 0 or 1.
            number: Of different actions.
            lengths: Frames of each episode; all are one, if not told.

        Raises:
            DataError: If nothing changes, numbers of frames do not add up, no episode has three frames, or there is an
                action beyond ``number``.
        """
        if not len(pictures) == len(actions) == len(rewards) == len(costs):
            raise DataError(
                "every frame needs an action, a reward and a cost, got "
                f"{len(pictures)} frames, {len(actions)} actions, {len(rewards)} rewards, {len(costs)} costs"
            )
        lengths = [len(pictures)] if lengths is None else list(lengths)
        if sum(lengths) != len(pictures) or min(lengths, default=0) < 1:
            raise DataError(f"episodes of {sum(lengths)} frames in all, but there are {len(pictures)}")
        if not 0 <= actions.min() <= actions.max() < number:
            raise DataError(f"actions here are 0 to {number - 1}, got {actions.min()} to {actions.max()}")
        room = room_in(lengths)
        now = np.flatnonzero(room[:-2] > 2) + 1  # frames with one before and one after
        if not len(now):
            raise DataError("what follows needs an episode of three frames or more, got none")
        planes = Planes.of(pictures)
        tokens = planes.tokens(pictures)
        some = _some(tokens)
        groups = objects_of(tokens[some], (room[some] > 1) & (np.diff(some, append=-1) == 1))
        states = tuple(ObjectStates(planes, groups, g) for g in range(groups.max() + 1))
        seen = np.column_stack([own.learn(tokens) for own in states])
        known = np.column_stack([seen[now], seen[now - 1], actions[now]])
        laws = tuple(ContextLaw.fit(known, seen[now + 1, g]) for g in range(len(states)))
        led = np.flatnonzero(room[:-1] > 1)
        told = np.column_stack([seen[led + 1], seen[led], actions[led]])
        reward, cost = (ContextLaw.fit(told, worth[led + 1]) for worth in (rewards, costs))
        return cls(planes, groups, states, laws, reward, cost, number)

    def look(self, pictures: UInt8[np.ndarray, "frames rows columns"]) -> Int64[np.ndarray, "frames objects"]:
        """States of all objects; -1 for one that was never seen so."""
        tokens, strange = self.planes.tokens(pictures), self.planes.strange(pictures)
        return np.column_stack([own.find(tokens, strange) for own in self.states])

    def ahead(
        self,
        before: Int[np.ndarray, "number objects"],
        now: Int[np.ndarray, "number objects"],
        actions: Int[np.ndarray, " number"],
    ) -> Ahead:
        """What may follow from two frames in a row and an action: objects go their ways independently.

        Of each object the likeliest way is told, and others that leave a probability of 1/32 or more; where all that
        can be told is less likely than not, it is unknown.
        """
        known = np.column_stack([now, before, actions])
        source, share = np.arange(len(now)), np.ones(len(now))
        states = np.zeros((len(now), len(self.laws)), np.int64)
        for g, law in enumerate(self.laws):
            if not self.bears[g]:
                continue
            outcomes, shares = law.options(known)
            vague = shares.sum(axis=1) < LIKELY  # also where nothing is known
            outcomes[vague, 0], shares[vague] = -1, np.eye(1, shares.shape[1])
            kept = share[:, None] * shares[source] >= LEAST
            kept[:, 0] = True
            rows, place = np.nonzero(kept)
            own = outcomes[source[rows], place]
            share, states, source = share[rows] * shares[source[rows], place], states[rows], source[rows]
            states[:, g] = own
        share /= np.bincount(source, share)[source]
        told = np.column_stack([states, now[source], actions[source]])
        return Ahead(source, states, share, self.reward.probability(told, 1), self.cost.probability(told, 1))

    @property
    def nbytes(self) -> int:
        """Memory of all tables, in bytes."""
        return sum(own.nbytes for own in self.states) + sum(law.nbytes for law in (*self.laws, self.reward, self.cost))

    @property
    def controllable(self) -> list[bool]:
        """Whether what an object does next is told by the action."""
        return [2 * len(self.states) in law.variables for law in self.laws]

    @cached_property
    def bears(self) -> Bool[np.ndarray, " objects"]:
        """Whether an object bears on what frames are worth, by itself or by what it does to others that do."""
        objects = len(self.states)
        found: set[int] = set()
        waiting = {v % objects for law in (self.reward, self.cost) for v in law.variables if v < 2 * objects}
        while waiting:
            found |= waiting
            waiting = {v % objects for g in waiting for v in self.laws[g].variables if v < 2 * objects} - found
        return np.isin(np.arange(objects), list(found))

    @cached_property
    def remembers(self) -> Bool[np.ndarray, " objects"]:
        """Whether the state before the last one of an object bears on anything."""
        objects = len(self.states)
        read = {v for g in np.flatnonzero(self.bears) for v in self.laws[g].variables}
        return np.isin(np.arange(objects) + objects, list(read))


def _some(tokens: Bool[np.ndarray, "frames tokens"]) -> Int64[np.ndarray, " some"]:
    """The first frames, and those around the first sight of each token that is not in them."""
    chosen = np.arange(len(tokens)) < ENOUGH
    late = np.flatnonzero(~tokens[:ENOUGH].any(axis=0))
    for first in tokens[:, late].argmax(axis=0).tolist():
        chosen[max(0, first - AROUND) : first + AROUND] = True
    return np.flatnonzero(chosen)
