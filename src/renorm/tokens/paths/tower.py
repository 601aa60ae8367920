r"""Fast structure learning: distinct tuples become states, their runs events, and events the tokens of the next level.

Level 1 looks at single frames. A state of level n covers $T^{n-1}$ frames, and is looked for in every frame: all
temporal phases are learned at once, so nothing depends on where an episode begins. What was seen comes back exactly: a
state says its children's events, an event its states, down to the tokens of every frame.

Source:
    Friston et al. 2024, arXiv:2407.20292.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, Int64, Integer

from renorm.errors import DataError, RecipeError
from renorm.tokens.paths.factor import Factor, Seen

__all__ = ["Tower", "room_in"]

Groups = Sequence[Int64[np.ndarray, "_"]]


class Tower:
    """Factors upon factors, from tokens in single frames to one factor of long windows.

    Args:
        groups: For each level, the group of each token (level 1) or of each factor below.
        length: T, states in an event.

    Raises:
        RecipeError: If a level groups another number of things than there are, or T is below 2.

    Example: two tokens that count to two, each for itself, then both together.
        >>> tokens = np.array([[0, 0], [0, 1], [1, 0], [1, 1]] * 3)
        >>> tower = Tower([np.array([0, 1]), np.array([0, 0])])
        >>> seen = tower.learn([tokens])
        >>> [len(factor.states) for level in tower.levels for factor in level]
        [2, 2, 4]
        >>> tower.frames(2, 0, seen[1][0].states[:2])[0].tolist()
        [[0, 0], [0, 1]]
    """

    def __init__(self, groups: Groups, length: int = 2) -> None:
        if length < 2:
            raise RecipeError(f"an event needs length >= 2 states, got {length}")
        self.length = length
        self.levels: list[list[Factor]] = []
        below = None
        for level, group in enumerate(groups, start=1):
            if below is not None and len(group) != below:
                raise RecipeError(f"level {level} has {below} factors below it, got groups of {len(group)}")
            below = int(group.max()) + 1
            children = [np.flatnonzero(group == g) for g in range(below)]
            if group.min() < 0 or not all(len(own) for own in children):
                raise RecipeError(f"groups of level {level} are numbered 0 to {below - 1}, and one of them is empty")
            self.levels.append([Factor(own, length) for own in children])
        if not self.levels:
            raise RecipeError("a tower needs one level or more, got no groups")
        self.tokens = len(groups[0])

    @property
    def spans(self) -> list[int]:
        """Frames that a state of each level covers."""
        return [self.length**n for n in range(len(self.levels))]

    @property
    def sizes(self) -> list[int]:
        """Distinct states of all factors of each level."""
        return [sum(len(factor.states) for factor in level) for level in self.levels]

    @property
    def nbytes(self) -> int:
        """Memory of all tables, in bytes."""
        return sum(factor.states.nbytes + factor.events.nbytes for level in self.levels for factor in level)

    def learn(self, episodes: Sequence[Integer[np.ndarray, "_ tokens"]]) -> list[list[Seen]]:
        """Count what is in the episodes; what each factor saw, level by level, one episode after the other.

        Raises:
            DataError: If an episode has other tokens, hidden ones, or fewer frames than an event of the top level.
        """
        return self._pass(episodes, learn=True)

    def find(self, episodes: Sequence[Integer[np.ndarray, "_ tokens"]]) -> list[list[Seen]]:
        """What each factor sees in episodes that are not learned; -1 for what it never saw."""
        return self._pass(episodes, learn=False)

    def absorb(self, other: "Tower") -> None:
        """Add the counts of a tower that learned other episodes: what one tower learns from all, to the last integer.

        Raises:
            DataError: If it has other groups.
        """
        same = [len(level) for level in self.levels] == [len(level) for level in other.levels] and all(
            np.array_equal(mine.children, theirs.children) and mine.length == theirs.length
            for own, others in zip(self.levels, other.levels, strict=True)
            for mine, theirs in zip(own, others, strict=True)
        )
        if not same:
            raise DataError("only towers of the same groups and length can be added")
        tokens = 1 + max((int(f.states.rows.max(initial=0)) for f in other.levels[0]), default=0)
        names = [np.arange(tokens)] * self.tokens
        for own, others in zip(self.levels, other.levels, strict=True):
            names = [
                mine.absorb(theirs, [names[i] for i in mine.children]) for mine, theirs in zip(own, others, strict=True)
            ]

    def frames(
        self, level: int, place: int, states: Int[np.ndarray, " number"]
    ) -> Int64[np.ndarray, "number frames tokens"]:
        """The tokens of states of one factor, in all the frames that they cover; those of other factors are 0.

        Args:
            level: 1 or more.
            place: Of the factor in its level.
            states: Numbers of its states.

        Raises:
            DataError: If there is no such state (-1: it was never seen, or does not fit into its episode).
        """
        known = len(self.levels[level - 1][place].states) if 1 <= level <= len(self.levels) else 0
        if len(states) and not 0 <= states.min() <= states.max() < known:
            raise DataError(f"level {level} has states 0 to {known - 1} there, got {states.min()} to {states.max()}")
        which, inverse = np.unique(states, return_inverse=True)
        factor, span = self.levels[level - 1][place], self.spans[level - 1]
        out = np.zeros((len(which), span, self.tokens), np.int64)
        rows = factor.states.rows[which]
        for i, child in enumerate(factor.children):
            if level == 1:
                out[:, 0, child] = rows[:, i]
            else:
                below = self.levels[level - 2][child].events.rows[rows[:, i]]
                parts = [self.frames(level - 1, int(child), below[:, k]) for k in range(self.length)]
                out += np.concatenate(parts, axis=1)
        return out[inverse.reshape(-1)]

    def replayed(self, seen: Sequence[Sequence[Seen]]) -> Int64[np.ndarray, "frames tokens"]:
        """An episode that was learned alone, told by the states of the highest level, which has one factor.

        Args:
            seen: What ``learn`` gave back.

        Example:
            >>> tower = Tower([np.array([0, 1]), np.array([0, 0])])
            >>> tokens = np.arange(10).reshape(5, 2)
            >>> bool((tower.replayed(tower.learn([tokens])) == tokens).all())
            True
        """
        span, top = self.spans[-1], seen[-1][0].states
        begins = np.minimum(np.arange(0, len(top), span), len(top) - span)  # the last window may overlap
        tokens = np.empty((len(top), self.tokens), np.int64)
        for begin, window in zip(begins, self.frames(len(self.levels), 0, top[begins]), strict=True):
            tokens[begin : begin + span] = window
        return tokens

    def _pass(self, episodes: Sequence[np.ndarray], *, learn: bool) -> list[list[Seen]]:
        if not episodes:
            raise DataError("a tower learns from one episode or more, got none")
        least = self.spans[-1] * self.length
        for number, episode in enumerate(episodes):
            if episode.ndim != 2 or episode.shape[1] != self.tokens:
                raise DataError(
                    f"an episode here is (frames, {self.tokens} tokens), got {episode.shape} in episode {number}"
                )
            if learn and len(episode) < least:
                raise DataError(
                    f"{len(self.levels)} levels of T = {self.length} need episodes of {least} frames or more, got "
                    f"{len(episode)} in episode {number}; take fewer levels or longer episodes"
                )
            if len(episode) and episode.min() < 0:
                raise DataError(f"hidden tokens (-1) cannot be learned or looked up, got one in episode {number}")
        rows = np.concatenate([np.asarray(episode) for episode in episodes])
        room, seen = room_in([len(episode) for episode in episodes]), []
        for factors, stride in zip(self.levels, self.spans, strict=True):
            numbered = [
                (factor.learn if learn else factor.find)(rows[:, factor.children], room, stride) for factor in factors
            ]
            rows = np.stack([found.events for found in numbered], axis=1)
            seen.append(numbered)
        return seen


def room_in(lengths: Sequence[int]) -> Int64[np.ndarray, " frames"]:
    """Frames from each frame to the end of its episode, itself included.

    Example:
        >>> room_in([2, 3]).tolist()
        [2, 1, 3, 2, 1]
    """
    return np.concatenate([np.empty(0, np.int64), *(np.arange(n, 0, -1) for n in lengths)])
