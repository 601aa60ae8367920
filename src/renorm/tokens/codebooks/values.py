"""The finest codebook: the grey values themselves are the tokens."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Int64

from renorm.errors import DataError
from renorm.tokens.codebooks.codebook import require_tokens
from renorm.tokens.codebooks.glimpse import Glimpse

__all__ = ["ValueCodebook"]


@dataclass(frozen=True)
class ValueCodebook:
    r"""One token for each site and channel: its grey value in bins.

    $$ z = \mathrm{round}\bigl((\text{bins} - 1)\, x\bigr), \qquad x = z / (\text{bins} - 1) $$

    With 256 bins bytes come back exactly.

    Args:
        shape: Channels, height, width; positions run channel by channel, row by row.
        bins: Number of values.

    Example:
        >>> book = ValueCodebook((1, 1, 3), bins=256)
        >>> book.encode(np.array([[[[0.0, 128 / 255, 1.0]]]], dtype=np.float32)).tolist()
        [[0, 128, 255]]
    """

    shape: tuple[int, int, int]
    bins: int = 256

    @property
    def guesses(self) -> bool:
        """Nothing depends on hidden sites."""
        return False

    @property
    def sizes(self) -> Int64[np.ndarray, " positions"]:
        """Number of bins at each position."""
        return np.full(int(np.prod(self.shape)), self.bins, np.int64)

    @property
    def locations(self) -> Float[np.ndarray, "positions 2"]:
        """The sites."""
        channels, height, width = self.shape
        rows, columns = np.divmod(np.arange(height * width), width)
        return np.tile(np.stack([rows, columns], axis=1).astype(np.float64), (channels, 1))

    @property
    def grid(self) -> tuple[int, int] | None:
        """The lattice, where there is one channel."""
        channels, height, width = self.shape
        return (height, width) if channels == 1 else None

    def fit(self, x: Float[np.ndarray, "number channel height width"], *, seed: int) -> "ValueCodebook":
        """Nothing is learned; values must lie in [0, 1].

        Raises:
            DataError: If they do not.
        """
        self.encode(x)
        return self

    def encode(self, x: Float[np.ndarray, "number channel height width"]) -> Int64[np.ndarray, "number positions"]:
        """The bin of each value.

        Raises:
            DataError: If a value lies outside [0, 1].
        """
        if len(x) and not (x.min() > -1e-6 and x.max() < 1 + 1e-6):
            raise DataError(
                "values must lie between black and white (value_range), got some from "
                f"{x.min():.4g} to {x.max():.4g} where these are 0 and 1; set value_range"
            )
        return np.rint(x.reshape(len(x), -1) * (self.bins - 1)).astype(np.int64).clip(0, self.bins - 1)

    def decode(self, tokens: Int[np.ndarray, "number positions"]) -> Float[np.ndarray, "number channel height width"]:
        """The values; 0 where hidden.

        Raises:
            DataError: If a token is unknown.
        """
        require_tokens(tokens, self.sizes)
        values = np.maximum(tokens, 0).astype(np.float32) / np.float32(self.bins - 1)
        return values.reshape(len(tokens), *self.shape)

    def visible(self, mask: Bool[np.ndarray, "height width"]) -> Bool[np.ndarray, " positions"]:
        """The sites that are seen, in every channel."""
        return np.tile(mask.reshape(-1), self.shape[0])

    def match(
        self, x: Float[np.ndarray, "number channel height width"], seen: Bool[np.ndarray, "number height width"]
    ) -> Glimpse:
        """The bins of the sites that are seen."""
        shown = np.tile(seen.reshape(len(x), -1), (1, self.shape[0]))
        return Glimpse.whole(np.where(shown, self.encode(x), -1))

    def vectors(self) -> Float[np.ndarray, "bins 1"]:
        """The value of each bin."""
        return np.linspace(0.0, 1.0, self.bins)[:, None]

    def state(self) -> dict[str, np.ndarray]:
        """Nothing was learned."""
        return {}

    def restore(self, state: Mapping[str, np.ndarray]) -> "ValueCodebook":
        """Nothing to read."""
        return self
