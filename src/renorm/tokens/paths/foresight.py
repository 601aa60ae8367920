r"""What comes next in a world of objects, and what it is worth: learned from frames, actions and rewards by counting.

Objects are groups of tokens (``renorm.tokens.paths.objects``), their states distinct tuples of them. The next state of
each has a law of its own, whose context may hold its last two states, those of other objects, and the action: where
it bears the action, its path is *controllable*. What a frame is worth is a law of the objects' states,

$$ p(s_f(t+1) \mid \mathrm{context}_f(t)) , \qquad p(r(t) \mid s(t)) . $$
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int, Int64, UInt8

from renorm.errors import DataError
from renorm.tokens.paths.context_law import ContextLaw
from renorm.tokens.paths.object_states import ObjectStates
from renorm.tokens.paths.objects import objects_of
from renorm.tokens.paths.planes import Planes
from renorm.tokens.paths.tower import room_in

__all__ = ["Ahead", "Foresight"]

ENOUGH = 5000
"""Frames from which objects are told apart; their states and laws are learned from all."""


LEAST, LIKELY = 1 / 32, 0.5


class Ahead(NamedTuple):
    """What may follow from some frames and actions, one after the other.

    Attributes:
        source: Which of them.
        states: Of every object in the next frame; -1 where nothing like it was seen.
        share: Its probability.
        worth: 1 where something is won, -1 where something is lost, else 0.
    """

    source: Int64[np.ndarray, " number"]
    states: Int64[np.ndarray, "number objects"]
    share: Float64[np.ndarray, " number"]
    worth: Int64[np.ndarray, " number"]


@dataclass(frozen=True)
class Foresight:
    """Objects, their laws, and what frames are worth.

    Attributes:
        planes: Tokens of a picture.
        groups: Object of each token.
        states: Of each object.
        laws: Of each object's next state.
        reward, cost: Of a frame, given the states of all objects.
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
        actions: Int[np.ndarray, " frames"],
        rewards: Int[np.ndarray, " frames"],
        costs: Int[np.ndarray, " frames"],
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
            DataError: If nothing changes, an episode's lengths do not add up, or none has three frames.
        """
        lengths = [len(pictures)] if lengths is None else list(lengths)
        if sum(lengths) != len(pictures):
            raise DataError(f"episodes of {sum(lengths)} frames in all, but there are {len(pictures)}")
        room = room_in(lengths)
        planes = Planes.of(pictures)
        tokens = planes.tokens(pictures)
        some = slice(0, ENOUGH)
        groups = objects_of(tokens[some], room[some] > 1)
        states = tuple(ObjectStates(planes, groups, g) for g in range(groups.max() + 1))
        seen = np.column_stack([own.learn(tokens) for own in states])
        now = np.flatnonzero(room[:-2] > 2) + 1  # frames with one before and one after
        if not len(now):
            raise DataError("what follows needs an episode of three frames or more, got none")
        laws = tuple(
            ContextLaw.fit(variables_of(seen[now - 1], seen[now], actions[now], g), seen[now + 1, g])
            for g in range(len(states))
        )
        reward, cost = (ContextLaw.fit(seen, worth) for worth in (rewards, costs))
        return cls(planes, groups, states, laws, reward, cost, number)

    def look(self, pictures: UInt8[np.ndarray, "frames rows columns"]) -> Int64[np.ndarray, "frames objects"]:
        """States of all objects; -1 for one that was never seen so."""
        tokens = self.planes.tokens(pictures)
        return np.column_stack([own.find(tokens) for own in self.states])

    def ahead(
        self,
        before: Int[np.ndarray, "number objects"],
        now: Int[np.ndarray, "number objects"],
        actions: Int[np.ndarray, " number"],
    ) -> Ahead:
        """What may follow from two frames in a row and an action: objects go their ways independently.

        Ways of a probability below 1/32 are not told; where no state of an object is likelier than not, it is unknown.
        """
        source, share = np.arange(len(now)), np.ones(len(now))
        states = np.empty((len(now), 0), np.int64)
        for g, law in enumerate(self.laws):
            outcomes, shares = law.options(variables_of(before, now, actions, g))
            vague = shares[:, 0] < LIKELY  # also where nothing is known
            outcomes[vague, 0], shares[vague] = -1, np.eye(1, shares.shape[1])
            rows, place = np.nonzero(share[:, None] * shares[source] >= LEAST)
            own = outcomes[source[rows], place]
            share = share[rows] * shares[source[rows], place]
            states = np.column_stack([states[rows], own])
            source = source[rows]
        worth = (self.reward.predict(states) > 0).astype(np.int64) - (self.cost.predict(states) > 0)
        return Ahead(source, states, share, worth)

    @property
    def controllable(self) -> list[bool]:
        """Whether what an object does next is told by the action."""
        last = 2 * len(self.states)
        return [last in law.variables for law in self.laws]


def variables_of(
    before: Int[np.ndarray, "number objects"],
    now: Int[np.ndarray, "number objects"],
    actions: Int[np.ndarray, " number"],
    own: int,
) -> Int64[np.ndarray, "number variables"]:
    """What an object's next state may depend on: all states, its own first; then those before; last, the action.

    Example:
        >>> variables_of(np.array([[1, 2]]), np.array([[3, 4]]), np.array([9]), own=1).tolist()
        [[4, 3, 2, 1, 9]]
    """
    order = [own, *(g for g in range(now.shape[1]) if g != own)]
    return np.column_stack([now[:, order], before[:, order], actions]).astype(np.int64)
