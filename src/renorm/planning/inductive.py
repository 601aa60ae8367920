r"""Inductive planning on the states of a tower: the way back from goals, around losses, and actions that realise it.

A state of the tower's highest level is a window of frames, the picture as a whole. What followed each window after
each action is counted. From the windows in which something is won one goes back, never through one in which something
is lost:

$$ d(s) = 0 \text{ at goals}, \qquad d(s) = 1 + \min_{a,\, s' \text{ that followed}} d(s') . $$

The action is the one of the least expected free energy: what it leads to is preferred the nearer it is to a goal, and
what it teaches is worth $\lambda$,

$$ -G(s, a) = \sum_{s'} p(s' \mid s, a)\,\big[\gamma^{d(s')} - c(s')\big] +
   \lambda\, \mathrm{E}\,\mathrm{KL}\big[\text{counts after} \,\|\, \text{counts before}\big] . $$

This is the planning of the paper: windows that were never seen are not known, so it needs to have seen nearly all of
them, or to stay among those that lead from goal to goal (``renorm.planning.attracting``). ``renorm.planning.search``
plans with objects instead.

Source:
    Friston et al. 2024, arXiv:2407.20292; inductive inference: Friston et al. 2023, arXiv:2312.07547. What is taught is
    whether what follows is known: counts of what was seen and of anything else, see ``renorm.tokens.paths.novelty``.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from renorm.errors import DataError, RecipeError
from renorm.planning.attractors import UNREACHED, basin, steps_to
from renorm.planning.equivalence import equivalent
from renorm.planning.ways import Ways, check_memory
from renorm.tokens.paths.groups import block_groups
from renorm.tokens.paths.novelty import novelty
from renorm.tokens.paths.tower import Tower
from renorm.worlds.world import Frame, Play

__all__ = ["InductivePlanner", "InductivePlayer"]

BLOCK = 6
INDIFFERENT = 1e-9


@dataclass(frozen=True, eq=False)
class InductivePlanner:
    """What followed what, and how far it is to a goal.

    Attributes:
        tower: Windows.
        shape: Rows and columns of a picture.
        names: State of each window of the tower; -1 for what only another planner of the same tower has seen.
        ways: State, action, state that followed; how often, and where something was won or lost in the last frame.
        actions: How many there are.
        distance: d; -1 where no way without losses to a goal is known.
        discount: $\\gamma$, of a step.
        curiosity: $\\lambda$; 0: what an action teaches is worth nothing.
        is_merged: Windows are one that are told apart no more: it plays, but does not learn.

    Example: a small Pong.
        >>> from renorm.worlds.pong import Pong
        >>> from renorm.worlds.world import play, random_player
        >>> rng = np.random.default_rng(0)
        >>> watched = play(Pong(rows=6, columns=5), random_player(3, rng), 3000, rng)
        >>> planner = InductivePlanner.fit([watched], actions=3)
        >>> found = play(Pong(rows=6, columns=5), InductivePlayer(planner, rng), 400, rng)
        >>> bool(found.rewards.sum() > 30 and found.costs.sum() <= 2)
        True
    """

    tower: Tower
    shape: tuple[int, int]
    names: Int64[np.ndarray, " windows"]
    ways: Ways
    actions: int
    discount: float = 0.98
    curiosity: float = 0.0
    is_merged: bool = False
    distance: Int64[np.ndarray, " states"] = field(init=False)
    _begins: Int64[np.ndarray, " more"] = field(init=False, repr=False)
    _order: Int64[np.ndarray, " moves"] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        choice = self.ways.moves[:, 0] * self.actions + self.ways.moves[:, 1]
        order = np.argsort(choice, kind="stable")
        begins = np.searchsorted(choice[order], np.arange(len(self.goals) * self.actions + 1))
        object.__setattr__(self, "distance", steps_to(self.ways.pairs, self.goals, self.losses))
        object.__setattr__(self, "_order", order)
        object.__setattr__(self, "_begins", begins)

    @property
    def goals(self) -> Bool[np.ndarray, " states"]:
        """States in which something is won, and nothing lost."""
        return self.ways.goals

    @property
    def losses(self) -> Bool[np.ndarray, " states"]:
        """States in which something is lost."""
        return self.ways.losses

    @classmethod
    def fit(
        cls,
        plays: Sequence[Play],
        *,
        actions: int,
        edges: int | Sequence[int] | None = None,
        levels: int = 2,
        curiosity: float = 0.0,
    ) -> "InductivePlanner":
        """Learn from plays.

        Args:
            plays: An episode each.
            actions: How many there are.
            edges: Sites of a block along an axis, then blocks of a block; six, then all of them, if not given.
            levels: Of the tower: a window has $2^{levels - 1}$ frames.
            curiosity: What a nat about what follows is worth, in goals.

        Raises:
            RecipeError: If the levels do not end in one factor, the whole picture, or a number is out of range.
            DataError: If a play is shorter than two windows, there is none, its pictures have another shape, or it has
                an action that there is not.
        """
        if not plays:
            raise DataError("there is nothing to plan by: one play or more is needed, got none")
        if actions < 1 or not 0 <= curiosity < np.inf:
            raise RecipeError(f"a planner needs actions >= 1 and curiosity >= 0, got {actions} and {curiosity}")
        if levels < 2:
            raise RecipeError(
                f"a window has two frames or more, so that it shows what moves: levels >= 2, got {levels}"
            )
        shape = plays[0].pictures.shape[1:]
        groups = block_groups(shape, (BLOCK, max(2, -(-max(shape) // BLOCK))) if edges is None else edges)
        if len(groups) > levels:
            raise RecipeError(
                f"blocks of {edges} need {len(groups)} levels until one is left, got {levels}; take larger blocks"
            )
        groups += [np.zeros(1, np.int64)] * (levels - len(groups))
        nothing = np.empty(0, np.int64)
        return cls(Tower(groups), shape, nothing, Ways.none(), actions, curiosity=curiosity).learn(plays)

    def learn(self, plays: Sequence[Play], *, gate: float = 0.0, horizon: float = np.inf) -> "InductivePlanner":
        r"""The planner that has seen more; they share the tower, whose windows keep their numbers.

        Args:
            plays: An episode each.
            gate: $\beta \ge 0$: what makes the future less certain does not pass, see ``renorm.planning.ways``.
            horizon: $\eta > 0$: so many moves are remembered; infinite: all.

        Raises:
            RecipeError: If gate or horizon is out of range, or its states are merged.
            DataError: If a play is shorter than two windows, there is none, its pictures have another shape, or it has
                an action that there is not.
        """
        if self.is_merged:
            raise RecipeError("merged states cannot be told apart again: learn with the planner that was merged")
        check_memory(gate, horizon)  # nothing is learned by halves
        for own in plays:
            if own.pictures.shape[1:] != self.shape:
                raise DataError(f"pictures here are {self.shape}, got {own.pictures.shape[1:]}")
            strange = own.actions[(own.actions < 0) | (own.actions >= self.actions)]
            if len(strange):
                raise DataError(f"actions here are 0 to {self.actions - 1}, got {strange[0]}")
        sites = math.prod(self.shape)
        windows = self.tower.learn([own.pictures.reshape(len(own), sites) for own in plays])[-1][0].states
        known = len(self.tower.levels[-1][0].states)
        names = np.concatenate([self.names, np.full(known - len(self.names), UNREACHED)])
        seen = np.unique(windows[windows >= 0])
        fresh = seen[names[seen] < 0]
        names[fresh] = len(self.ways.won) + np.arange(len(fresh))
        rewards, costs, taken = (
            np.roll(np.concatenate([getattr(own, name) for own in plays]), 1 - self.tower.spans[-1])
            for name in ("rewards", "costs", "actions")
        )  # of the last frame of the window that begins in a frame
        states = np.where(windows >= 0, names[windows], UNREACHED)
        more = Ways.seen(states, taken, rewards, costs, number=int(names.max()) + 1)
        return replace(self, names=names, ways=self.ways.with_more(more, gate=gate, horizon=horizon))

    def in_basin(self, steps: int = 32) -> "InductivePlanner":
        """The planner without what lies on no way of so many steps to a goal, or from one.

        States keep their numbers. What follows those that are left out is forgotten; that one may come there, and be
        lost, is not.
        """
        return replace(self, ways=self.ways.within(basin(self.ways.pairs, self.goals, self.losses, steps=steps)))

    def merged(self, steps: int | None = None) -> "InductivePlanner":
        """The planner in which windows from which the same may be won and lost later are one state; it learns no more.

        See ``renorm.planning.equivalence``.

        Args:
            steps: So far ahead they are told apart. Without end, if not given: ways to goals stay as long as they are.

        Raises:
            RecipeError: If ``steps`` is negative.
        """
        classes = equivalent(self.ways.moves, self.goals + 2 * self.losses, steps=steps)
        names = np.where(self.names >= 0, classes[self.names], UNREACHED)
        return replace(self, names=names, ways=self.ways.renamed(classes), is_merged=True)

    def state(self, pictures: UInt8[np.ndarray, "frames rows columns"]) -> int:
        """The state of the last frames; -1 if they were never seen."""
        span = self.tower.spans[-1]
        if len(pictures) < span:
            return UNREACHED
        window = int(self.tower.find([pictures[-span:].reshape(span, -1)])[-1][0].states[0])
        return int(self.names[window]) if 0 <= window < len(self.names) else UNREACHED

    def action(self, state: int) -> int | None:
        """The best action; none where the state is not known, or no action is better than another."""
        if state < 0:
            return None
        worth = np.zeros(self.actions)
        for action in range(self.actions):
            choice = state * self.actions + action
            own = self._order[self._begins[choice] : self._begins[choice + 1]]
            if len(own):
                then, share = self.ways.moves[own, 2], self.ways.weights[own] / self.ways.weights[own].sum()
                near = np.where(self.distance[then] >= 0, self.discount ** self.distance[then].clip(min=0), 0.0)
                worth[action] = share @ (near - self.losses[then])
            if self.curiosity:
                known = float(self.ways.weights[own].sum())
                worth[action] += self.curiosity * float(novelty(np.array([known + 1, 1.0])))
        return int(worth.argmax()) if np.ptp(worth) > INDIFFERENT else None


class InductivePlayer:
    """It acts by the last frames, and at random where they say nothing. Make one for each play.

    Args:
        planner: It may be shared.
        generator: Of actions that make no difference.

    Attributes:
        frames: How many it was shown.
        indifferent: In how many of them it knew nothing, or no action was better than another.
    """

    def __init__(self, planner: InductivePlanner, generator: np.random.Generator) -> None:
        self.planner, self.generator = planner, generator
        self.frames = self.indifferent = 0
        self._frames: list[np.ndarray] = []
        self._known: dict[bytes, int | None] = {}

    def __call__(self, frame: Frame) -> int:
        """The action."""
        self._frames = [*self._frames, frame.picture][-self.planner.tower.spans[-1] :]
        key = b"".join(picture.tobytes() for picture in self._frames)
        if key not in self._known:
            self._known[key] = self.planner.action(self.planner.state(np.stack(self._frames)))
        action = self._known[key]
        self.frames += 1
        self.indifferent += action is None
        return int(self.generator.integers(self.planner.actions)) if action is None else action
