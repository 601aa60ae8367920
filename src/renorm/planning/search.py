r"""Planning: the action that is worth most, by all that is foreseen of two frames in a row.

$$ Q(s, a) = \sum_{s'} p(s' \mid s, a) \big[ w(s') + \gamma V(s') \, [w(s') = 0] \big] , \qquad
   V(s) = (1 - \epsilon) \max_a Q(s, a) + \epsilon \, \overline{Q(s, \cdot)} , $$

where w is 1 at a reward and -1 at a loss. A way ends at the first of either, or after a number of steps. With
$\gamma < 1$ near rewards are worth more: the plan is the shortest way to a reward around losses. The hand that acts may
tremble, and takes any action with probability $\epsilon$; so of ways of equal length the one is taken that leaves most
time to mend. Objects that move by themselves are one state a step: what is thought through is as wide as what can be
controlled, not as the world.
"""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float64, Int

from renorm.tokens.paths.foresight import Foresight

__all__ = ["Planner"]

INDIFFERENT = 1e-9


@dataclass
class Planner:
    """It remembers what it thought through, to the end or far enough.

    Args:
        foresight: What may follow from what.
        horizon: Steps that are thought ahead.
        discount: $\\gamma$, of a step.
        tremble: $\\epsilon$.
        most: States at which thinking stops, however few steps ahead they are.
    """

    foresight: Foresight
    horizon: int = 64
    discount: float = 0.98
    tremble: float = 0.1
    most: int = 1000
    _known: dict[bytes, Float64[np.ndarray, " actions"]] = field(default_factory=dict, repr=False)

    def action(self, before: Int[np.ndarray, " objects"], now: Int[np.ndarray, " objects"]) -> int | None:
        """The best action; none where it makes no difference as far as is foreseen."""
        worth = self.worth(before, now)
        return int(worth.argmax()) if np.ptp(worth) > INDIFFERENT else None

    def worth(
        self, before: Int[np.ndarray, " objects"], now: Int[np.ndarray, " objects"]
    ) -> Float64[np.ndarray, " actions"]:
        """What each action is worth, Q."""
        key = np.concatenate([before, now]).tobytes()
        if key not in self._known:
            self._think(before, now)
        return self._known[key]

    def _think(self, before: np.ndarray, now: np.ndarray) -> None:
        number, objects = self.foresight.actions, len(now)
        pairs = np.concatenate([before, now])[None]
        places = {pairs[0].tobytes(): 0}
        links: list[tuple[np.ndarray, ...]] = []
        layer, begin, begins = pairs, 0, list[int]()
        for _ in range(self.horizon):
            from_ = np.repeat(np.arange(len(layer)), number)
            actions = np.tile(np.arange(number), len(layer))
            ahead = self.foresight.ahead(layer[from_, :objects], layer[from_, objects:], actions)
            came = from_[ahead.source]
            follow = np.column_stack([layer[came, objects:], ahead.states])
            goes_on = (ahead.worth == 0) & (ahead.states >= 0).all(axis=1)
            target = np.full(len(came), -1, np.int64)
            fresh = []
            for i in np.flatnonzero(goes_on).tolist():
                key = follow[i].tobytes()
                if key not in places:
                    places[key] = len(places)
                    fresh.append(i)
                target[i] = places[key]
            links.append(((begin + came) * number + actions[ahead.source], target, ahead.share, ahead.worth))
            begin += len(layer)
            begins.append(begin)
            layer = follow[fresh]
            if not fresh or len(places) > self.most:
                break
        choice, target, share, worth = (np.concatenate(parts) for parts in zip(*links, strict=True))
        values = self._values(choice, target, share, worth, len(places))
        thought = self._thought(choice // number, target, begin, len(places))
        thought[: begins[len(begins) // 2]] = True  # or at least half as far as this thought went
        for i, key in enumerate(places):
            if thought[i]:
                self._known[key] = values[i]

    def _values(
        self, choice: np.ndarray, target: np.ndarray, share: np.ndarray, worth: np.ndarray, states: int
    ) -> np.ndarray:
        """What each action is worth in each state, from the end backwards."""
        number = self.foresight.actions
        goes_on, value = target >= 0, np.zeros(states)
        for _ in range(self.horizon):
            gain = share * np.where(goes_on, self.discount * value[target], worth)
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
