"""What scikit-learn calls X, and what the hallway calls a field, as images in [0, 1], and back."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from renorm.errors import DataError, RecipeError
from renorm.lattice import Lattice

__all__ = ["Pictures"]

WHOLE = 1e-4  # a real value this near to a 255th is a byte
_ROWS = 4096  # images checked together


@dataclass(frozen=True)
class Pictures:
    r"""The shape and the range of values of the images that a model was fitted to.

    $$ \text{image} = (x - a) / (b - a) \text{ for real x}, \qquad x / 255 \text{ for bytes.} $$

    Args:
        shape: Channels, height, width.
        value_range: $(a, b)$ of real values.

    Raises:
        RecipeError: If the range is empty.

    Example:
        >>> Pictures.of(np.zeros((5, 64))).shape
        (1, 8, 8)
    """

    shape: tuple[int, int, int]
    value_range: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        """Check the range."""
        low, high = self.value_range
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise RecipeError(f"value_range must be (black, white), two finite numbers, rising, got {low} and {high}")

    @classmethod
    def of(
        cls,
        x: Any,
        shape: tuple[int, ...] | None = None,
        value_range: tuple[float, float] = (0.0, 1.0),
    ) -> "Pictures":
        """Read the shape from data.

        Args:
            x: (number, height, width), (number, channels, height, width), or rows of sites (number, sites), which are
                taken as squares where they can be, else as chains.
            shape: Channels (if more than one), height and width of rows of sites.
            value_range: Of real values.

        Raises:
            DataError: If there is nothing, or the shapes disagree.
        """
        event = tuple(int(n) for n in x.shape[1:])
        if shape is not None:
            wanted = tuple(shape)
            if math.prod(event) != math.prod(wanted):
                raise DataError(f"shape {wanted} needs {math.prod(wanted)} values an image, got {event}")
            event = wanted
        if len(event) == 1:
            edge = math.isqrt(event[0])
            event = (edge, edge) if edge * edge == event[0] else (1, event[0])
        if len(event) == 2:
            event = (1, *event)
        if len(event) != 3 or min(event) < 1:
            raise DataError(f"images have the shape (channels, height, width), got {event}")
        return cls(event, value_range)  # type: ignore[arg-type]

    @property
    def lattice(self) -> Lattice:
        """Where the fields live; an image one site high is a chain."""
        channels, height, width = self.shape
        return Lattice((width,) if height == 1 else (height, width), channels=channels)

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of a field on the lattice."""
        return self.lattice.event_shape

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes in which an image may come: with channels, as on the lattice, of one channel without it."""
        return (self.shape, self.event_shape, *([self.shape[1:]] if self.shape[0] == 1 else []))

    def images(self, x: Shaped[np.ndarray, "number *event"]) -> Float[np.ndarray, "number channel height width"]:
        """Images in [0, 1]; real values may overshoot a little, as samples and noise do.

        Raises:
            DataError: If the number of values is another one, or real values lie farther outside the value range than
                it is wide.
        """
        if x.ndim < 2 or math.prod(x.shape[1:]) != math.prod(self.shape):
            raise DataError(f"the model was fitted to images of shape {self.shape}, got {x.shape[1:]}")
        flat = x.reshape(len(x), *self.shape)
        if flat.dtype == np.uint8:
            return flat.astype(np.float32) / np.float32(255)
        low, high = self.value_range
        self._require_range(flat)
        return ((flat - low) / (high - low)).astype(np.float32)

    def require_bytes(self, images: Float[np.ndarray, "number channel height width"]) -> None:
        """Check that images in [0, 1], as ``images`` gives them, are whole 255ths: a lossless file rounds nothing.

        Raises:
            DataError: If a value is farther than 1e-4 from each 255th.

        Example:
            >>> Pictures((1, 1, 2)).require_bytes(np.array([[[[0.2, 1.0]]]]))
        """
        for start in range(0, len(images), _ROWS):
            part = images[start : start + _ROWS]
            off = np.abs(part - np.rint(part * 255) / 255)
            if off.max() > WHOLE:
                low, high = self.value_range
                value = float(part.reshape(-1)[off.argmax()]) * (high - low) + low
                raise DataError(
                    f"a lossless file keeps bytes, so real values must be whole 255ths of value_range {low:g} ... "
                    f"{high:g}, got {value:.6g}; give bytes (uint8), or round the values before"
                )

    def _require_range(self, values: np.ndarray) -> None:
        low, high = self.value_range
        if not values.size or not (values.min() < 2 * low - high or values.max() > 2 * high - low):
            return
        raise DataError(
            f"values must lie between black and white (value_range), {low:g} and {high:g} here, got some from "
            f"{values.min():.4g} to {values.max():.4g}: say what black and white are in the data, as in "
            "value_range=(0, 255), or give bytes (uint8)"
        )

    def fields(self, images: Float[np.ndarray, "number channel height width"]) -> Float[np.ndarray, "number *event"]:
        """Fields in the value range, float32."""
        low, high = self.value_range
        return (images * (high - low) + low).astype(np.float32).reshape(len(images), *self.event_shape)
