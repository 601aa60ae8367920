r"""Inductive planning on the states of a tower: the way back from goals, around losses, and actions that realise it.

A state of the tower's highest level is a window of frames, the picture as a whole. What followed each window after
each action is counted. From the windows in which something is won one goes back, never through one in which something
is lost:

$$ d(s) = 0 \text{ at goals}, \qquad d(s) = 1 + \min_{a,\, s' \text{ that followed}} d(s') . $$

The action is the one of the least expected free energy: what it leads to is preferred the nearer it is to a goal, and
what it teaches is worth $\lambda$,

$$ -G(s, a) = \sum_{s'} p(s' \mid s, a)\,\big[\gamma^{d(s')} - c(s')\big] +
   \lambda\, \mathrm{E}\,\mathrm{KL}\big[\text{counts after} \,\|\, \text{counts before}\big] . $$

This is the planning of the paper: windows that were never seen
are not known, so it needs to have seen nearly all of them. ``renorm.planning.search`` plans with objects instead.

Source:
    Friston et al. 2024, arXiv:2407.20292; inductive inference: Friston et al. 2023, arXiv:2312.07547. What is taught is
    whether what follows is known: counts of what was seen and of anything else, see ``renorm.tokens.paths.novelty``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from renorm.errors import DataError, RecipeError
from renorm.planning.attractors import UNREACHED, basin, steps_to
from renorm.tokens.paths.groups import block_groups
from renorm.tokens.paths.novelty import novelty
from renorm.tokens.paths.tally import Tally
from renorm.tokens.paths.tower import Tower
from renorm.worlds.world import Frame, Play

__all__ = ["InductivePlanner", "InductivePlayer"]

INDIFFERENT = 1e-9


@dataclass(frozen=True, eq=False)
class InductivePlanner:
    """What followed what, and how far it is to a goal.

    Attributes:
        tower: Windows.
        moves: Window, action, window that followed; how often.
        goals, losses: Whether something was won, or lost, in the last frame of a window.
        distance: d; -1 where no goal was ever reached from.
        actions: How many there are.
        discount: $\\gamma$, of a step.
        curiosity: $\\lambda$; 0: what an action teaches is worth nothing.

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
    moves: Tally
    goals: Bool[np.ndarray, " windows"]
    losses: Bool[np.ndarray, " windows"]
    actions: int
    discount: float = 0.98
    curiosity: float = 0.0
    distance: Int64[np.ndarray, " windows"] = field(init=False)
    _begins: Int64[np.ndarray, " more"] = field(init=False, repr=False)
    _order: Int64[np.ndarray, " moves"] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        choice = self.moves.rows[:, 0] * self.actions + self.moves.rows[:, 1]
        order = np.argsort(choice, kind="stable")
        begins = np.searchsorted(choice[order], np.arange(len(self.goals) * self.actions + 1))
        distance = steps_to(self.moves.rows[:, [0, 2]], self.goals, self.losses)
        object.__setattr__(self, "distance", distance)
        object.__setattr__(self, "_order", order)
        object.__setattr__(self, "_begins", begins)

    @classmethod
    def fit(
        cls,
        plays: Sequence[Play],
        *,
        actions: int,
        edges: int | Sequence[int] = (6, 2),
        levels: int = 2,
        curiosity: float = 0.0,
    ) -> "InductivePlanner":
        """Learn from plays.

        Args:
            plays: An episode each.
            actions: How many there are.
            edges: Sites of a block along an axis, level by level.
            curiosity: What a nat about what follows is worth, in goals.
            levels: Of the tower: a window has $2^{levels - 1}$ frames.

        Raises:
            RecipeError: If the levels do not end in one factor, the whole picture.
            DataError: If a play is shorter than two windows, there is none, or it has an action beyond ``actions``.
        """
        if not plays:
            raise DataError("there is nothing to plan by: one play or more is needed, got none")
        if levels < 2:
            raise RecipeError(
                f"a window has two frames or more, so that it shows what moves: levels >= 2, got {levels}"
            )
        highest = max(int(own.actions.max()) for own in plays)
        if highest >= actions:
            raise DataError(f"actions here are 0 to {actions - 1}, got {highest}")
        groups = block_groups(plays[0].pictures.shape[1:], edges)
        if len(groups) > levels:
            raise RecipeError(
                f"blocks of {edges} need {len(groups)} levels until one is left, got {levels}; take larger blocks"
            )
        groups += [np.zeros(1, np.int64)] * (levels - len(groups))
        tower = Tower(groups)
        windows = tower.learn([own.pictures.reshape(len(own), -1) for own in plays])[-1][0].states
        span = tower.spans[-1]
        number = len(tower.levels[-1][0].states)
        rewards, costs, taken = (
            np.concatenate([getattr(own, name) for own in plays]) for name in ("rewards", "costs", "actions")
        )
        inside = np.flatnonzero(windows >= 0)
        last = inside + span - 1
        goals, losses = np.zeros(number, bool), np.zeros(number, bool)
        goals[windows[inside[rewards[last] > 0]]] = True
        losses[windows[inside[costs[last] > 0]]] = True
        goals &= ~losses
        going = inside[inside + 1 < len(windows)]
        going = going[windows[going + 1] >= 0]
        moves = Tally(3)
        moves.learn(np.column_stack([windows[going], taken[going + span - 1], windows[going + 1]]))
        return cls(tower, moves, goals, losses, actions, curiosity=curiosity)

    def in_basin(self, steps: int = 32) -> "InductivePlanner":
        """The planner without what lies on no way of so many steps to a goal, or from one.

        Windows keep their numbers. What follows those that are left out is forgotten; that one may come there, and be
        lost, is not.
        """
        kept = basin(self.moves.rows[:, [0, 2]], self.goals, self.losses, steps=steps)
        inside = kept[self.moves.rows[:, 0]]
        moves = Tally.of(self.moves.rows[inside], self.moves.counts[inside])
        return InductivePlanner(
            self.tower, moves, self.goals & kept, self.losses, self.actions, self.discount, self.curiosity
        )

    def window(self, pictures: UInt8[np.ndarray, "frames rows columns"]) -> int:
        """The state of the last frames; -1 if it was never seen."""
        span = self.tower.spans[-1]
        if len(pictures) < span:
            return UNREACHED
        return int(self.tower.find([pictures[-span:].reshape(span, -1)])[-1][0].states[0])

    def action(self, window: int) -> int | None:
        """The best action; none where the window is not known, or no action is better than another."""
        if window < 0:
            return None
        worth = np.zeros(self.actions)
        for action in range(self.actions):
            choice = window * self.actions + action
            own = self._order[self._begins[choice] : self._begins[choice + 1]]
            if len(own):
                then, share = self.moves.rows[own, 2], self.moves.counts[own] / self.moves.counts[own].sum()
                near = np.where(self.distance[then] >= 0, self.discount ** self.distance[then].clip(min=0), 0.0)
                worth[action] = share @ (near - self.losses[then])
            if self.curiosity:
                known = float(self.moves.counts[own].sum())
                worth[action] += self.curiosity * float(novelty(np.array([known + 1, 1.0])))
        return int(worth.argmax()) if np.ptp(worth) > INDIFFERENT else None


class InductivePlayer:
    """It acts by the last frames, and at random where they say nothing. Make one for each play.

    Args:
        planner: It may be shared.
        generator: Of actions that make no difference.
    """

    def __init__(self, planner: InductivePlanner, generator: np.random.Generator) -> None:
        self.planner, self.generator = planner, generator
        self._frames: list[np.ndarray] = []
        self._known: dict[bytes, int | None] = {}

    def __call__(self, frame: Frame) -> int:
        """The action."""
        self._frames = [*self._frames, frame.picture][-self.planner.tower.spans[-1] :]
        key = b"".join(picture.tobytes() for picture in self._frames)
        if key not in self._known:
            self._known[key] = self.planner.action(self.planner.window(np.stack(self._frames)))
        action = self._known[key]
        return int(self.generator.integers(self.planner.actions)) if action is None else action
