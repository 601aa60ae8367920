"""One movie, learned by a tower: it comes back exactly, is generated anew, and completed from a part."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from renorm.errors import DataError
from renorm.tokens.movies.frames import Palette, check_movie
from renorm.tokens.paths.factor import Seen
from renorm.tokens.paths.groups import block_groups
from renorm.tokens.paths.tower import Tower
from renorm.tokens.paths.tower_law import TowerLaw

__all__ = ["MovieModel"]

EDGES = (8, 4)
CONCENTRATION, LOOSENESS = 1e-6, 1e-2  # an outcome never seen in a state is a slip; a cut is rare


@dataclass(frozen=True, eq=False)
class MovieModel:
    """A tower over the pixels of a movie, and its law.

    Attributes:
        palette: Colours.
        shape: Rows and columns.
        tower: Blocks of sites and times.
        seen: States and events in each frame, level by level.
        law: Of all movies that the tower can tell.

    Example: a light that goes round; one frame is lost.
        >>> movie = np.zeros((16, 2, 2, 1), np.uint8)
        >>> for t, place in enumerate([(0, 0), (0, 1), (1, 1), (1, 0)] * 4):
        ...     movie[(t, *place)] = 255
        >>> model = MovieModel.fit(movie, edges=2)
        >>> bool((model.regenerated() == movie).all())
        True
        >>> known = np.ones((4, 2, 2), bool)
        >>> known[2] = False
        >>> bool((model.completed(movie[:4], known) == movie[:4]).all())
        True
    """

    palette: Palette
    shape: tuple[int, int]
    tower: Tower
    seen: list[list[Seen]]
    law: TowerLaw

    @classmethod
    def fit(
        cls, movie: UInt8[np.ndarray, "frames rows columns channels"], *, edges: int | Sequence[int] = EDGES
    ) -> "MovieModel":
        """Learn a movie.

        Args:
            movie: Bytes; each distinct colour is a token.
            edges: Sites of a block along an axis, level by level; the last one goes on until one block is left.

        Raises:
            DataError: If it is not frames of bytes, or fewer than two states of the highest level span.
        """
        check_movie(movie, "a movie")
        frames, rows, columns, _ = movie.shape
        palette = Palette.of(movie)
        groups = block_groups((rows, columns), edges)
        if frames < 2 ** len(groups):
            raise DataError(
                f"blocks of {edges} on {rows} x {columns} pixels make {len(groups)} levels, which need "
                f"{2 ** len(groups)} frames or more, got {frames}; take larger blocks"
            )
        tower = Tower(groups)
        seen = tower.learn([palette.tokens(movie).reshape(frames, -1)])
        law = TowerLaw(tower, len(palette), concentration=CONCENTRATION, looseness=LOOSENESS)
        return cls(palette, (rows, columns), tower, seen, law)

    @property
    def states(self) -> list[int]:
        """Distinct states of all factors of each level."""
        return self.tower.sizes

    def regenerated(self) -> UInt8[np.ndarray, "frames rows columns channels"]:
        """The movie that was learned, from the states of the highest level alone."""
        return self._pixels(self.tower.replayed(self.seen))

    def generated(
        self, frames: int, generator: np.random.Generator
    ) -> UInt8[np.ndarray, "frames rows columns channels"]:
        """A movie drawn from the law: what followed, now and then a cut to something else that was seen."""
        hidden = np.full((frames, self.tower.tokens), -1)
        return self._pixels(self.law.sample(hidden, 1, generator)[0])

    def completed(
        self,
        movie: UInt8[np.ndarray, "frames rows columns channels"],
        known: Bool[np.ndarray, "frames rows columns"],
        generator: np.random.Generator | None = None,
    ) -> UInt8[np.ndarray, "frames rows columns channels"]:
        """A movie whose hidden pixels are filled in.

        Args:
            movie: Pixels; those that are not known are not looked at.
            known: Which are.
            generator: The hidden part is drawn by its joint law; if not given, each pixel is its likeliest colour.

        Raises:
            DataError: If the movie has another size, or colours that were never learned.
        """
        if movie.shape[1:3] != self.shape or known.shape != movie.shape[:3]:
            raise DataError(
                f"this model has frames of {self.shape}, got {movie.shape}, of which {known.shape} are known"
            )
        tokens = np.full(known.shape, -1, np.int64)
        tokens[known] = self.palette.tokens(movie[known][None, None])[0, 0]
        episode = tokens.reshape(len(movie), -1)
        if generator is None:
            return self._pixels(self.law.explain(episode).likeliest)
        return self._pixels(self.law.sample(episode, 1, generator)[0])

    def _pixels(self, tokens: Int64[np.ndarray, "frames tokens"]) -> np.ndarray:
        return self.palette.movie(tokens.reshape(len(tokens), *self.shape))
