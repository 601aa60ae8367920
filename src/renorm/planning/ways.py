r"""What followed what: moves between states, how much each weighs, and where something was won or lost.

New moves may have to pass a gate, and old ones may fade. With counts $a$ before and $a'$ after, tables of a state and
an action against the state that followed, and I their mutual information,

$$ w = \frac{e^{\beta I(a')}}{e^{\beta I(a)} + e^{\beta I(a')}}, \qquad
   a \leftarrow \big(a + w\,(a' - a)\big) \cdot \frac{\eta}{\eta + w n}, $$

for n new moves: what makes the future less certain does not pass, and the total tends to $\eta$, so that a world may
change. What has faded below 1/32 is forgotten, so the total stays below $\eta$ where many moves are rare. New moves
fade together: to remember the latest best, learn parts that are shorter than $\eta$.

Source:
    Friston et al. 2024, arXiv:2407.20292, with one new move at a time there.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int, Int64
from scipy.special import expit

from renorm.errors import DataError, RecipeError
from renorm.tokens.trees.rows import distinct_rows

__all__ = ["Ways", "check_memory", "information"]

FAINT = 1 / 32


@dataclass(frozen=True, eq=False)
class Ways:
    """Moves between numbered states, all different.

    Attributes:
        moves: State, action, state that followed.
        weights: Of each move: how often it was seen, if nothing was gated or forgotten.
        won, lost: Of each state: how often something was won or lost there, weighted alike.

    Example: heads was followed by tails three times, tails by heads twice.
        >>> ways = Ways.seen(np.array([0, 1, 0, 1, 0, 1]), np.zeros(6, int), np.array([0, 1, 0, 0, 0, 0]),
        ...                  np.zeros(6, int))
        >>> ways.moves.tolist(), ways.weights.tolist(), ways.goals.tolist()
        ([[0, 0, 1], [1, 0, 0]], [3.0, 2.0], [False, True])
    """

    moves: Int64[np.ndarray, "moves 3"]
    weights: Float64[np.ndarray, " moves"]
    won: Float64[np.ndarray, " states"]
    lost: Float64[np.ndarray, " states"]

    @classmethod
    def none(cls) -> "Ways":
        """Nothing is known."""
        return cls(np.empty((0, 3), np.int64), np.empty(0), np.empty(0), np.empty(0))

    @classmethod
    def seen(
        cls,
        states: Int[np.ndarray, " frames"],
        actions: Int[np.ndarray, " frames"],
        rewards: Int[np.ndarray, " frames"],
        costs: Int[np.ndarray, " frames"],
        number: int | None = None,
    ) -> "Ways":
        """Count what is there frame by frame.

        Args:
            states: -1 where there is none: nothing leads there or comes from there.
            actions: Taken in that state.
            rewards, costs: Above 0 where something was won or lost in that state.
            number: Of states; as many as are seen, if not told.

        Raises:
            DataError: If a state is beyond ``number``.
        """
        going = np.flatnonzero((states[:-1] >= 0) & (states[1:] >= 0))
        seen = int(states.max(initial=-1)) + 1
        number = seen if number is None else number
        if seen > number:
            raise DataError(f"states here are 0 to {number - 1}, got {seen - 1}")
        inside = states >= 0

        def counted(what: np.ndarray) -> np.ndarray:
            return np.bincount(states[inside & (what > 0)], minlength=number).astype(np.float64)

        moves = np.column_stack([states[going], actions[going], states[going + 1]]).astype(np.int64)
        return cls(*_joined(moves, np.ones(len(moves))), counted(rewards), counted(costs))

    @property
    def goals(self) -> Bool[np.ndarray, " states"]:
        """States in which something is won, and nothing lost."""
        return (self.won >= FAINT) & ~self.losses

    @property
    def losses(self) -> Bool[np.ndarray, " states"]:
        """States in which something is lost."""
        return np.asarray(self.lost >= FAINT)

    @property
    def pairs(self) -> Int64[np.ndarray, "moves 2"]:
        """The moves without their actions."""
        return self.moves[:, [0, 2]]

    def with_more(self, more: "Ways", *, gate: float = 0.0, horizon: float = np.inf) -> "Ways":
        r"""These and others, which were seen later.

        Args:
            more: Of the same states, and maybe further ones.
            gate: $\beta \ge 0$, finite, per nat; 0: everything passes.
            horizon: $\eta > 0$, moves; infinite: nothing is forgotten.

        Raises:
            RecipeError: If gate or horizon is out of range.

        Example: what was seen in a world that is no more fades.
            >>> zeros, old = np.zeros(9, int), Ways.seen(np.arange(9) % 2, np.zeros(9, int), *np.zeros((2, 9), int))
            >>> new = Ways.seen(zeros, zeros, zeros, zeros)
            >>> old.with_more(new).weights.tolist()
            [4.0, 4.0, 8.0]
            >>> old.with_more(new, horizon=8.0).weights.tolist()
            [2.0, 2.0, 4.0]
            >>> old.with_more(new, gate=512.0).weights.round(3).tolist()  # of states that tell less of the next one
            [4.0, 4.0]
        """
        check_memory(gate, horizon)
        moves, share = np.concatenate([self.moves, more.moves]), 1.0
        if gate > 0:
            both, total = _joined(moves, np.concatenate([self.weights, more.weights]))
            share = float(expit(gate * (information(both, total) - information(self.moves, self.weights))))
        fresh = share * float(more.weights.sum())
        faded = 1.0 if np.isinf(horizon) else horizon / (horizon + fresh)
        joined, weights = _joined(moves, faded * np.concatenate([self.weights, share * more.weights]))
        number = max(len(self.won), len(more.won))
        won, lost = (
            _kept(faded * (_padded(mine, number) + share * _padded(theirs, number)))
            for mine, theirs in ((self.won, more.won), (self.lost, more.lost))
        )
        kept = weights >= FAINT
        return Ways(joined[kept], weights[kept], won, lost)

    def within(self, states: Bool[np.ndarray, " states"]) -> "Ways":
        """Without what comes after other states, and without their goals; what is lost there is still known."""
        inside = states[self.moves[:, 0]]
        return Ways(self.moves[inside], self.weights[inside], np.where(states, self.won, 0.0), self.lost)

    def renamed(self, names: Int64[np.ndarray, " states"]) -> "Ways":
        """With other numbers; states of the same number become one, their weights added.

        Args:
            names: 0, 1, ... for each state.
        """
        moves = np.column_stack([names[self.moves[:, 0]], self.moves[:, 1], names[self.moves[:, 2]]])
        won, lost = (np.bincount(names, weights=what) for what in (self.won, self.lost))
        return Ways(*_joined(moves, self.weights), won, lost)


def check_memory(gate: float, horizon: float) -> None:
    """Refuse what ``Ways.with_more`` cannot do.

    Raises:
        RecipeError: If gate or horizon is out of range.
    """
    if not (0 <= gate < np.inf and horizon > 0):
        raise RecipeError(
            f"gate must be >= 0 and finite, and horizon > 0 (something must be kept), got {gate} and {horizon}"
        )


def information(moves: Int64[np.ndarray, "moves 3"], weights: Float64[np.ndarray, " moves"]) -> float:
    r"""What state and action say of the state that follows, nats: I of the joint law $a / \sum a$; 0 of no moves.

    Example: a bit.
        >>> round(information(np.array([[0, 0, 1], [1, 0, 0]]), np.array([3.0, 3.0])), 6)
        0.693147
    """
    total = float(weights.sum())
    if total <= 0:
        return 0.0

    def entropy(of: np.ndarray) -> float:
        p = of[of > 0] / total
        return float(-(p * np.log(p)).sum())

    def summed(columns: list[int]) -> np.ndarray:
        return np.bincount(distinct_rows(moves[:, columns])[1], weights=weights)

    return entropy(summed([0, 1])) + entropy(summed([2])) - entropy(weights)


def _joined(moves: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct moves in the order of their numbers, and their weights added."""
    if not len(moves):
        return moves, weights
    first, inverse = distinct_rows(moves)
    return moves[first], np.bincount(inverse, weights=weights)


def _kept(values: np.ndarray) -> np.ndarray:
    """0 where all has faded."""
    return np.where(values >= FAINT, values, 0.0)


def _padded(values: np.ndarray, number: int) -> np.ndarray:
    return np.concatenate([values, np.zeros(number - len(values))])
