"""What every codebook does: images to level-1 tokens and back."""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import numpy as np

__all__ = ["Codebook"]


@runtime_checkable
@runtime_checkable
class Codebook(Protocol):
    """Images (number, channel, height, width) in [0, 1] to tokens (number, positions), and back.

    Attributes:
        sizes: int64 (positions,), number of different tokens at each position.
        locations: float64 (positions, 2), centre of each token (row, column), in sites.
        grid: Rows and columns of the positions, row by row; ``None`` where they are no grid.
    """

    @property
    def sizes(self) -> np.ndarray: ...

    @property
    def locations(self) -> np.ndarray: ...

    @property
    def grid(self) -> tuple[int, int] | None: ...

    def fit(self, x: np.ndarray, *, seed: int) -> "Codebook":
        """Learn the tokens from images."""
        ...

    def encode(self, x: np.ndarray) -> np.ndarray:
        """Tokens of images, int64."""
        ...

    def decode(self, tokens: np.ndarray) -> np.ndarray:
        """Images of tokens, the mean where several overlap; hidden tokens (-1) are left out."""
        ...

    def visible(self, mask: np.ndarray) -> np.ndarray:
        """Whether all sites of each token are seen, bool (positions,), for a mask (height, width), True where seen."""
        ...

    def vectors(self) -> np.ndarray:
        """What each token looks like, (tokens, width), for those who cluster blocks of tokens."""
        ...

    def state(self) -> dict[str, np.ndarray]:
        """Arrays to store."""
        ...

    def restore(self, state: Mapping[str, np.ndarray]) -> "Codebook":
        """Read what ``state`` gave."""
        ...
