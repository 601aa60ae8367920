"""Breakout of the renormalising generative models: a ball, a bat, and a target of three layers."""

from dataclasses import dataclass

import numpy as np

from renorm.errors import RecipeError
from renorm.worlds.bat import ACTIONS, BAT, MOVES, draw_bat
from renorm.worlds.world import Frame, WorldSpace

__all__ = ["Breakout"]

GROUND, BALL, TARGET = (243, 245, 247), (14, 124, 123), (181, 86, 44)
BALL_COLOUR, TARGET_COLOUR = 4, 5
LAYERS, SERVED = 3, 5
SOLID = 1  # the last layer never falls within so many columns of the middle


@dataclass
class Breakout:
    """The ball moves one site along both axes in each frame; walls, target and bat reflect it.

    Below the target it takes a layer away (reward) and turns back. The last of three layers is solid in the three
    middle columns: a ball that comes up there turns back for nothing, one that comes up elsewhere breaks through
    (reward), and the target is whole again. In the lowest row the ball turns back where the middle of the bat is below
    it; else it is lost (cost), and served anew: from row 5, in the middle or next to it, down to a random side; the bat
    then is in the middle. The bat leaves the picture on one side and comes back on the other.

    Args:
        rows, columns: Of the picture.

    Raises:
        RecipeError: If there are less than 8 rows or 5 columns.

    Source:
        Friston et al. 2024, arXiv:2407.20292; their demonstrations leave details open, which are as told here.

    Example:
        >>> world = Breakout()
        >>> frame = world.reset(np.random.default_rng(0))
        >>> [world.step(1).cost for _ in range(7)]
        [0, 0, 0, 0, 0, 1, 0]
    """

    rows: int = 12
    columns: int = 9

    def __post_init__(self) -> None:
        if self.rows < SERVED + 3 or self.columns < 5:
            raise RecipeError(f"Breakout needs at least {SERVED + 3} x 5 sites, got {self.rows} x {self.columns}")
        self.space = WorldSpace((self.rows, self.columns), (GROUND, *BAT, BALL, TARGET), ACTIONS)
        self._row = self._column = self._down = self._right = self._bat = 0
        self._layers, self._lost = LAYERS, False
        self.reset(np.random.default_rng(0))

    def reset(self, generator: np.random.Generator) -> Frame:
        """A whole target, and a first serve."""
        self._generator = generator
        self._layers = LAYERS
        self._serve()
        return Frame(self._picture())

    def step(self, action: int) -> Frame:
        """The bat moves, then the ball; a ball that was lost is served instead."""
        if self._lost:
            self._serve()
            return Frame(self._picture())
        self._bat = (self._bat + MOVES[action]) % self.columns
        if not 0 <= self._column + self._right < self.columns:
            self._right = -self._right
        self._column += self._right
        self._row += self._down
        reward = self._strike() if self._row == self._layers and self._down < 0 else 0
        if self._row == self.rows - 1:
            self._down = -1
            self._lost = self._bat != self._column
        return Frame(self._picture(), reward, int(self._lost))

    def _strike(self) -> int:
        """What the ball wins below the target, on its way up; it turns back."""
        self._down = 1
        if self._layers > 1:
            self._layers -= 1
            return 1
        if abs(self._column - self.columns // 2) <= SOLID:
            return 0
        self._layers = LAYERS
        self._row = LAYERS  # below the new target
        return 1

    def _serve(self) -> None:
        draw = self._generator.integers
        self._row = SERVED
        self._column = self.columns // 2 + int(draw(3)) - 1
        self._down = 1
        self._right = 2 * int(draw(2)) - 1
        self._bat = self.columns // 2
        self._lost = False

    def _picture(self) -> np.ndarray:
        picture = np.zeros((self.rows, self.columns), np.uint8)
        picture[: self._layers] = TARGET_COLOUR
        draw_bat(picture, self._bat, first=1, wraps=True)
        picture[self._row, self._column] = BALL_COLOUR
        return picture
