r"""Inductive planning: the fewest steps to a reward, around costs, among what is predicted.

From two frames in a row all actions are tried in thought, each state once, until a reward is predicted,

$$ n = \min \{ k : \hat r(t + k) = 1, \ \hat c(t + 1), \dots, \hat c(t + k) = 0 \} , $$

and the first action of a way there is taken. Objects that move by themselves are one state a step, so the search is as
wide as what can be controlled, not as the world.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Int64

from renorm.tokens.paths.foresight import Foresight

__all__ = ["Plan", "Planner"]


@dataclass(frozen=True)
class Plan:
    """A way to a reward.

    Attributes:
        action: The first.
        steps: To the reward; 0: none is within the horizon, and the action only avoids costs.
    """

    action: int
    steps: int


@dataclass
class Planner:
    """It remembers every plan: what was thought through once is looked up.

    Args:
        foresight: What follows from what.
        horizon: Steps that are thought ahead.
    """

    foresight: Foresight
    horizon: int = 64
    _known: dict[tuple[bytes, bytes], Plan | None] = field(default_factory=dict, repr=False)

    def plan(self, before: Int[np.ndarray, " objects"], now: Int[np.ndarray, " objects"]) -> Plan | None:
        """The shortest way; none where nothing is foreseen that is not a loss."""
        key = before.tobytes(), now.tobytes()
        if key not in self._known:
            self._think(before, now)
        return self._known[key]

    def _think(self, before: np.ndarray, now: np.ndarray) -> None:
        """Search, step by step, and remember the plan of every two frames on the way that is found."""
        number = self.foresight.actions
        layers: list[_Layer] = []
        befores, nows = before[None], now[None]
        visited = {before.tobytes() + now.tobytes()}
        for _ in range(self.horizon):
            came = np.repeat(np.arange(len(nows)), number)
            actions = np.tile(np.arange(number), len(nows))
            ahead = self.foresight.ahead(befores[came], nows[came], actions)
            good = (ahead.states >= 0).all(axis=1) & (ahead.costs == 0)
            won = np.flatnonzero(good & (ahead.rewards > 0))
            if len(won):
                layers.append(_Layer(befores, nows, came[won[:1]], actions[won[:1]]))
                self._remember(layers)
                return
            fresh = []
            for i in np.flatnonzero(good):
                mark = nows[came[i]].tobytes() + ahead.states[i].tobytes()
                if mark not in visited:
                    visited.add(mark)
                    fresh.append(i)
            if not fresh:
                break
            layers.append(_Layer(befores, nows, came[fresh], actions[fresh]))
            befores, nows = nows[came[fresh]], ahead.states[fresh]
        key = before.tobytes(), now.tobytes()
        self._known[key] = None
        if layers:  # nothing to win, so as long as possible without a loss
            last = 0
            for layer in reversed(layers):
                action, last = int(layer.actions[last]), int(layer.came[last])
            self._known[key] = Plan(action, 0)

    def _remember(self, layers: "list[_Layer]") -> None:
        end = 0
        for back, layer in enumerate(reversed(layers), start=1):
            action, end = int(layer.actions[end]), int(layer.came[end])
            self._known[layer.befores[end].tobytes(), layer.nows[end].tobytes()] = Plan(action, back)


class _Layer(NamedTuple):
    """One step of a search.

    Attributes:
        befores, nows: Frames from which it goes on.
        came, actions: Of each that it leads to: from which of these, and by what.
    """

    befores: Int64[np.ndarray, "open objects"]
    nows: Int64[np.ndarray, "open objects"]
    came: Int64[np.ndarray, " next"]
    actions: Int64[np.ndarray, " next"]
