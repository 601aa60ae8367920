r"""Planning: the action that is worth most, by all that is foreseen of two frames in a row.

$$ Q(s, a) = \sum_{s'} p(s' \mid s, a) \big[ r(s') - c(s') + \gamma \, (1 - r(s') - c(s')) \, V(s') \big] , \qquad
   V(s) = (1 - \epsilon) \max_a Q(s, a) + \epsilon \, \overline{Q(s, \cdot)} , $$

where r and c are the probabilities that something is won or lost there, with which a way ends. With $\gamma < 1$ near
rewards are worth more: the plan is the shortest way to a reward around losses. The hand that acts may tremble, and
takes any action with probability $\epsilon$; so of ways of equal length the one is taken that leaves most time to mend.
Objects that move by themselves are one state a step: what is thought through is as wide as what can be controlled, not
as the world.
"""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float64, Int

from renorm.errors import RecipeError
from renorm.tokens.paths.foresight import Foresight

__all__ = ["Planner"]

INDIFFERENT = ENDED = 1e-9


@dataclass(frozen=True)
class Planner:
    """It remembers what it thought through, to the end or far enough.

    Args:
        foresight: What may follow from what.
        horizon: Steps that are thought ahead.
        discount: $\\gamma$, of a step.
        tremble: $\\epsilon$.
        most: States at which thinking stops, however few steps ahead they are.

    Raises:
        RecipeError: If a value is out of range.
    """

    foresight: Foresight
    horizon: int = 64
    discount: float = 0.98
    tremble: float = 0.1
    most: int = 1000
    _known: dict[bytes, Float64[np.ndarray, " actions"]] = field(
        init=False, repr=False, compare=False, default_factory=dict
    )

    def __post_init__(self) -> None:
        if not (self.horizon >= 1 and 0 < self.discount < 1 and 0 <= self.tremble <= 1 and self.most >= 1):
            raise RecipeError(
                "a planner needs horizon >= 1, 0 < discount < 1, 0 <= tremble <= 1, most >= 1, got "
                f"{self.horizon}, {self.discount}, {self.tremble}, {self.most}"
            )

    def action(self, before: Int[np.ndarray, " objects"], now: Int[np.ndarray, " objects"]) -> int | None:
        """The best action; none where it makes no difference as far as is foreseen."""
        worth = self.worth(before, now)
        return int(worth.argmax()) if np.ptp(worth) > INDIFFERENT else None

    def worth(
        self, before: Int[np.ndarray, " objects"], now: Int[np.ndarray, " objects"]
    ) -> Float64[np.ndarray, " actions"]:
        """What each action is worth, Q."""
        pair = self._pairs(before[None], now[None])
        key = pair[0].tobytes()
        if key not in self._known:
            self._think(pair)
        return self._known[key]

    def _pairs(self, before: np.ndarray, now: np.ndarray) -> np.ndarray:
        """Two frames as one row, without what bears on nothing."""
        told = self.foresight.bears
        return np.column_stack([np.where(told & self.foresight.remembers, before, 0), np.where(told, now, 0)])

    def _think(self, pair: np.ndarray) -> None:
        number, objects = self.foresight.actions, pair.shape[1] // 2
        places = {pair[0].tobytes(): 0}
        links: list[tuple[np.ndarray, ...]] = []
        layer, begin, begins = pair, 0, list[int]()
        for _ in range(self.horizon):
            from_ = np.repeat(np.arange(len(layer)), number)
            actions = np.tile(np.arange(number), len(layer))
            ahead = self.foresight.ahead(layer[from_, :objects], layer[from_, objects:], actions)
            came = from_[ahead.source]
            follow = self._pairs(layer[came, objects:], ahead.states)
            on = 1 - ahead.won - ahead.lost
            target = np.full(len(came), -1, np.int64)
            fresh = []
            for i in np.flatnonzero((on > ENDED) & (ahead.states >= 0).all(axis=1)).tolist():
                key = follow[i].tobytes()
                if key not in places:
                    places[key] = len(places)
                    fresh.append(i)
                target[i] = places[key]
            choice = (begin + came) * number + actions[ahead.source]
            links.append((choice, target, ahead.share, ahead.won - ahead.lost, on))
            begin += len(layer)
            begins.append(begin)
            layer = follow[fresh]
            if not fresh or len(places) > self.most:
                break
        choice, target, share, worth, on = (np.concatenate(parts) for parts in zip(*links, strict=True))
        values = self._values(choice, target, share, worth, on, len(places))
        values.flags.writeable = False
        ended = self._thought(choice // number, target, begin, len(places))
        for i, key in enumerate(places):
            if ended[i]:
                self._known[key] = values[i]
            elif i < begins[len(begins) // 2]:  # at least half as far as this thought went
                self._known.setdefault(key, values[i])

    def _values(
        self,
        choice: np.ndarray,
        target: np.ndarray,
        share: np.ndarray,
        worth: np.ndarray,
        on: np.ndarray,
        states: int,
    ) -> np.ndarray:
        """What each action is worth in each state, from the end backwards."""
        number = self.foresight.actions
        on, value = self.discount * np.where(target >= 0, on, 0.0), np.zeros(states)
        for _ in range(self.horizon):
            gain = share * (worth + on * value[target])
            actions = np.bincount(choice, gain, states * number).reshape(states, number)
            new = (1 - self.tremble) * actions.max(axis=1) + self.tremble * actions.mean(axis=1)
            if np.array_equal(new, value):
                break
            value = new
        return actions

    @staticmethod
    def _thought(source: np.ndarray, target: np.ndarray, expanded: int, states: int) -> np.ndarray:
        """Whether all ways out of each state were thought through to their ends."""
        open_ = np.arange(states) >= expanded
        while True:
            more = open_.copy()
            more[source[(target >= 0) & open_[target]]] = True
            if np.array_equal(more, open_):
                return ~open_
            open_ = more
