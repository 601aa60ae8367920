"""Who acts: a planner that sees frame after frame."""

import numpy as np

from renorm.planning.search import Planner
from renorm.tokens.paths.foresight import Foresight
from renorm.worlds.world import Frame, Play

__all__ = ["PlanningPlayer", "foresight_of"]


def foresight_of(*plays: Play, actions: int) -> Foresight:
    """What plays teach, all together."""
    pictures, rewards, costs, taken = (
        np.concatenate([getattr(own, name) for own in plays]) for name in ("pictures", "rewards", "costs", "actions")
    )
    lengths = [len(own) for own in plays]
    return Foresight.fit(pictures, taken, rewards, costs, number=actions, lengths=lengths)


class PlanningPlayer:
    """It plans from the last two frames; where nothing depends on what it does, it acts at random.

    It remembers the last frame: make one for each play. Plans are remembered by the planner, which many may share.

    Args:
        planner: What actions are worth.
        generator: Of actions that make no difference.

    Attributes:
        frames: How many it was shown.
        indifferent: In how many of them no action was better than another, as far as is foreseen.
    """

    def __init__(self, planner: Planner, generator: np.random.Generator) -> None:
        self.planner, self.generator = planner, generator
        self.frames = self.indifferent = 0
        self._seen: dict[bytes, np.ndarray] = {}
        self._last: np.ndarray | None = None

    def __call__(self, frame: Frame) -> int:
        """The action."""
        key = frame.picture.tobytes()
        if key not in self._seen:
            self._seen[key] = self.planner.foresight.look(frame.picture[None])[0]
        now = self._seen[key]
        action = self.planner.action(now if self._last is None else self._last, now)
        self._last = now
        self.frames += 1
        self.indifferent += action is None
        return int(self.generator.integers(self.planner.foresight.actions)) if action is None else action
