r"""A tabular Q-learner: what planning by counting is compared with.

$$ Q(s, a) \leftarrow Q(s, a) + \lambda \Big[ r + \gamma \big( (1 - \epsilon) \max_{a'} Q(s', a') +
   \epsilon \, \overline{Q(s', \cdot)} \big) - Q(s, a) \Big] $$

Its states are the last two pictures, so that velocities are seen; r is reward less cost. It learns from frames that
anyone played, as often as it is told to, in random order.

Source:
    Watkins & Dayan 1992, Machine Learning 8, 279.
"""

from dataclasses import dataclass, field

import numpy as np

from renorm.errors import RecipeError
from renorm.worlds.world import Frame, Play, Player

__all__ = ["QLearner"]


@dataclass
class QLearner:
    r"""A table of values of two pictures in a row and an action.

    Args:
        actions: How many there are.
        rate: $\lambda$.
        discount: $\gamma$, of a frame.
        sweeps: Times that it goes through the frames.
        tremble: $\epsilon$, probability that any action is taken instead.

    Attributes:
        values: By the bytes of two pictures.

    Raises:
        RecipeError: If a value is out of range.

    Example: of two buttons one pays.
        >>> pictures = np.zeros((400, 1, 1), np.uint8)
        >>> actions = np.arange(400) // 2 % 2
        >>> rewards = np.append(0, actions[:-1])
        >>> played = Play(pictures, rewards, np.zeros(400, np.int64), actions)
        >>> learner = QLearner(2).learn(played, np.random.default_rng(0))
        >>> learner.player(np.random.default_rng(0))(Frame(pictures[0]))
        1
    """

    actions: int
    rate: float = 0.5
    discount: float = 0.95
    sweeps: int = 10
    tremble: float = 0.0
    values: dict[bytes, np.ndarray] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        right = self.actions >= 1 and 0 < self.rate <= 1 and 0 <= self.discount < 1 and self.sweeps >= 1
        if not (right and 0 <= self.tremble <= 1):
            raise RecipeError(
                "a Q-learner needs actions >= 1, 0 < rate <= 1, 0 <= discount < 1, sweeps >= 1, 0 <= tremble <= 1, got "
                f"{self.actions}, {self.rate}, {self.discount}, {self.sweeps}, {self.tremble}"
            )

    def learn(self, played: Play, generator: np.random.Generator) -> "QLearner":
        """Go through the frames; the learner itself."""
        marks = [picture.tobytes() for picture in played.pictures]
        states = [a + b for a, b in zip([marks[0], *marks], marks, strict=False)]
        worth = (played.rewards - played.costs).tolist()
        table = [self.values.setdefault(state, np.zeros(self.actions)) for state in states]
        actions = played.actions.tolist()
        for _ in range(self.sweeps):
            for t in generator.permutation(len(states) - 1).tolist():
                row, a = table[t], actions[t]
                then = table[t + 1]
                value = (1 - self.tremble) * then.max() + self.tremble * then.mean() if self.tremble else then.max()
                row[a] += self.rate * (worth[t + 1] + self.discount * value - row[a])
        return self

    def player(self, generator: np.random.Generator) -> Player:
        """It takes the best action, and draws one where it never was. Make one for each play."""
        last: bytes | None = None

        def player(frame: Frame) -> int:
            nonlocal last
            mark = frame.picture.tobytes()
            values = self.values.get((last or mark) + mark)
            last = mark
            if values is None or not values.any():
                return int(generator.integers(self.actions))
            return int(values.argmax())

        return player
