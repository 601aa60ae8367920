"""Pong of the renormalising generative models: a ball, four walls, and a bat at the lower one."""

from dataclasses import dataclass

import numpy as np

from renorm.errors import RecipeError
from renorm.worlds.bat import ACTIONS, BAT, MOVES, draw_bat
from renorm.worlds.world import Frame, WorldSpace

__all__ = ["Pong"]

GROUND, BALL = (243, 245, 247), (14, 124, 123)
BALL_COLOUR = 4


@dataclass
class Pong:
    """The ball moves one site along both axes in each frame, and every wall reflects it.

    In the lowest row it is hit (reward) where the middle of the bat is below it, and missed (cost) elsewhere. The bat
    moves by one site, and stops at the walls. Left alone, the ball has an orbit of
    lcm(2 (rows - 1), 2 (columns - 1)) frames, 176 by default, and comes down every 22nd.

    Args:
        rows, columns: Of the picture.
        serve: ``"fixed"``: the ball begins in row 2, column 2, on its way down and right, and a missed one is
            reflected too; ``"random"``: it begins at a random site of the upper half in a random direction, and again
            so after each miss.

    Raises:
        RecipeError: If there are less than three rows or columns, or the serve is unknown.

    Source:
        Friston et al. 2024, arXiv:2407.20292; grid and colours as in their demonstrations.

    Example: nobody moves, and the ball comes to the lowest row in its ninth frame after the first.
        >>> world = Pong()
        >>> frames = [world.reset(np.random.default_rng(0)), *(world.step(1) for _ in range(9))]
        >>> [frame.cost for frame in frames]
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 1]
    """

    rows: int = 12
    columns: int = 9
    serve: str = "fixed"

    def __post_init__(self) -> None:
        if self.rows < 3 or self.columns < 3:
            raise RecipeError(f"Pong needs at least 3 x 3 sites, got {self.rows} x {self.columns}")
        if self.serve not in ("fixed", "random"):
            raise RecipeError(f"serve is 'fixed' or 'random', got {self.serve!r}")
        self.space = WorldSpace((self.rows, self.columns), (GROUND, *BAT, BALL), ACTIONS)
        self.reset(np.random.default_rng(0))

    def reset(self, generator: np.random.Generator) -> Frame:
        """A bat in the middle, and a first serve."""
        self._generator = generator
        self._bat = self.columns // 2
        self._missed = False
        self._serve()
        return Frame(self._picture())

    def step(self, action: int) -> Frame:
        """Both move; then, in the lowest row, hit or miss."""
        if self._missed and self.serve == "random":
            self._serve()
        else:
            self._fly()
        self._bat = min(max(self._bat + MOVES[action], 0), self.columns - 1)
        low = self._row == self.rows - 1
        hit = low and self._bat == self._column
        self._missed = low and not hit
        return Frame(self._picture(), int(hit), int(self._missed))

    def _serve(self) -> None:
        self._row, self._column, self._down, self._right = 2, 2, 1, 1
        if self.serve == "random":
            draw = self._generator.integers
            self._row, self._column = int(draw(self.rows // 2)), int(draw(self.columns))
            self._down, self._right = 2 * int(draw(2)) - 1, 2 * int(draw(2)) - 1

    def _fly(self) -> None:
        if not 0 <= self._row + self._down < self.rows:
            self._down = -self._down
        if not 0 <= self._column + self._right < self.columns:
            self._right = -self._right
        self._row += self._down
        self._column += self._right

    def _picture(self) -> np.ndarray:
        picture = np.zeros((self.rows, self.columns), np.uint8)
        draw_bat(picture, self._bat, first=1)
        picture[self._row, self._column] = BALL_COLOUR
        return picture
