"""Who acts: a planner that sees frame after frame."""

import numpy as np

from renorm.planning.search import Planner
from renorm.tokens.paths.foresight import Foresight
from renorm.worlds.world import Frame, Play, Player

__all__ = ["foresight_of", "planning_player"]


def foresight_of(played: Play, actions: int) -> Foresight:
    """What a play teaches."""
    return Foresight.fit(played.pictures, played.actions, played.rewards, played.costs, number=actions)


def planning_player(planner: Planner, generator: np.random.Generator) -> Player:
    """It plans from the last two frames; where nothing depends on what it does, it acts at random.

    It remembers the last frame: make one for each play. Plans are remembered by the planner, which many may share.
    """
    seen: dict[bytes, np.ndarray] = {}
    last: np.ndarray | None = None

    def player(frame: Frame) -> int:
        nonlocal last
        key = frame.picture.tobytes()
        if key not in seen:
            seen[key] = planner.foresight.look(frame.picture[None])[0]
        now = seen[key]
        action = planner.action(now if last is None else last, now)
        last = now
        return int(generator.integers(planner.foresight.actions)) if action is None else action

    return player
