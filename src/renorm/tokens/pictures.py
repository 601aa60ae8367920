"""What scikit-learn calls X, and what the hallway calls a field, as images in [0, 1], and back."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from renorm.errors import DataError, RecipeError
from renorm.lattice import Lattice

__all__ = ["Pictures"]


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

    def images(self, x: Shaped[np.ndarray, "number *event"]) -> Float[np.ndarray, "number channel height width"]:
        """Images in [0, 1].

        Raises:
            DataError: If the number of values is another one.
        """
        if x.ndim < 2 or math.prod(x.shape[1:]) != math.prod(self.shape):
            raise DataError(f"the model was fitted to images of shape {self.shape}, got {x.shape[1:]}")
        flat = x.reshape(len(x), *self.shape)
        if flat.dtype == np.uint8:
            return flat.astype(np.float32) / np.float32(255)
        low, high = self.value_range
        return ((flat - low) / (high - low)).astype(np.float32)

    def fields(self, images: Float[np.ndarray, "number channel height width"]) -> Float[np.ndarray, "number *event"]:
        """Fields in the value range, float32."""
        low, high = self.value_range
        return (images * (high - low) + low).astype(np.float32).reshape(len(images), *self.event_shape)
