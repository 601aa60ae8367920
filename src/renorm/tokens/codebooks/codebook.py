"""What every codebook does: images to level-1 tokens and back."""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

from renorm.errors import DataError
from renorm.tokens.codebooks.glimpse import Glimpse

__all__ = ["Codebook", "require_tokens"]


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

    @property
    def guesses(self) -> bool:
        """Whether ``match`` looks at what is guessed of hidden sites."""
        ...

    def match(self, x: np.ndarray, seen: np.ndarray) -> Glimpse:
        """Tokens of images, and what is known of them where a mask (number, height, width) hides a part."""
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


def require_tokens(tokens: Int[np.ndarray, "number places"], sizes: Int[np.ndarray, " positions"]) -> None:
    """Check that each position holds one of its tokens, or -1 (hidden).

    Args:
        tokens: What is to be decoded.
        sizes: Number of different tokens at each position.

    Raises:
        DataError: If there are more or fewer positions, or a token stands for nothing.

    Example:
        >>> require_tokens(np.array([[0, -1, 2]]), np.array([1, 2, 3]))
    """
    if tokens.shape[1] != len(sizes):
        raise DataError(
            f"there is one token for each of the {len(sizes)} positions (-1: hidden), got {tokens.shape[1]}"
        )
    if not tokens.size or (tokens.min() >= -1 and tokens.max() < sizes.min()):
        return
    wrong = (tokens < -1) | (tokens >= sizes)
    if wrong.any():
        image, place = (int(k) for k in np.argwhere(wrong)[0])
        raise DataError(
            f"a token must be in 0 ... {sizes[place] - 1}, or -1 where hidden (no other stands for anything), got "
            f"{tokens[image, place]} at position {place} of image {image}; take tokens from transform"
        )
