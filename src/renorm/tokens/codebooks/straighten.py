"""Slant removal: each image is sheared and shifted so that its mass stands upright in the middle; no learning."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64

__all__ = ["Pose", "straighten"]

_CHUNK = 2048


@dataclass(frozen=True, eq=False)
class Pose:
    r"""How far each image lies from upright and centred.

    Attributes:
        down: $\bar r - r_m$, sites by which the mass lies too low.
        right: $\bar c - c_m$, sites by which it lies too far to the right.
        slant: s, columns to the right for each row down.

    Example:
        >>> slanted = np.zeros((1, 1, 5, 5), np.float32)
        >>> slanted[0, 0, range(5), [0, 1, 2, 3, 4]] = 1
        >>> pose = Pose.of(slanted)
        >>> pose.slant.round(6).tolist(), bool(np.allclose(pose.undo(pose.apply(slanted)), slanted))
        ([1.0], True)
    """

    down: Float64[np.ndarray, " number"]
    right: Float64[np.ndarray, " number"]
    slant: Float64[np.ndarray, " number"]

    @classmethod
    def of(cls, x: Float[np.ndarray, "number channel height width"]) -> "Pose":
        """The pose of each image, from the moments of its mass; a blank image is upright."""
        number, _, height, width = x.shape
        mass = x.mean(axis=1, dtype=np.float64)
        total = mass.sum(axis=(1, 2))
        blank = total <= 0
        total = np.where(blank, 1.0, total)
        r, c = np.arange(height, dtype=np.float64), np.arange(width, dtype=np.float64)
        row_mass = mass.sum(axis=2)
        r_bar = row_mass @ r / total
        c_bar = mass.sum(axis=1) @ c / total
        dr, dc = r - r_bar[:, None], c - c_bar[:, None]
        cross = np.einsum("nrc,nr,nc->n", mass, dr, dc, optimize=True)
        square = (row_mass * dr**2).sum(axis=1)
        slant = np.divide(cross, square, out=np.zeros(number), where=square > 1e-12)
        down, right = np.where(blank, 0.0, r_bar - (height - 1) / 2), np.where(blank, 0.0, c_bar - (width - 1) / 2)
        return cls(down, right, slant)

    def apply(
        self, x: Float[np.ndarray, "number channel height width"]
    ) -> Float[np.ndarray, "number channel height width"]:
        """Images made upright and centred; zero beyond the edge."""
        return _read(_read(x, self._rows(x), axis=2), self._columns(x), axis=3)

    def undo(
        self, x: Float[np.ndarray, "number channel height width"]
    ) -> Float[np.ndarray, "number channel height width"]:
        """Upright images brought back to their places: the inverse of ``apply`` but for interpolation."""
        return _read(_read(x, -self._columns(x), axis=3), -self._rows(x), axis=2)

    def _rows(self, x: np.ndarray) -> np.ndarray:
        return np.broadcast_to(self.down[:, None], (len(x), x.shape[3]))

    def _columns(self, x: np.ndarray) -> np.ndarray:
        height = x.shape[2]
        return self.right[:, None] + self.slant[:, None] * (np.arange(height, dtype=np.float64) - (height - 1) / 2)


def straighten(x: Float[np.ndarray, "number channel height width"]) -> Float[np.ndarray, "number channel height width"]:
    r"""Shear the rows so that the mass of each image has no slant, and move its centre of mass to the middle.

    $$ \tilde x(r, c) = x\big(r + \bar r - r_m,\; c + \bar c - c_m + s\,(r - r_m)\big), \qquad
       s = \frac{\langle (r - \bar r)(c - \bar c) \rangle}{\langle (r - \bar r)^2 \rangle} $$

    with averages over the mass (the mean over channels of x), its centre $(\bar r, \bar c)$ and the middle
    $(r_m, c_m)$ of the image; linear interpolation between sites, zero beyond the edge. A blank image stays.

    Args:
        x: Images in [0, 1], zero where there is nothing.

    Returns:
        Upright images of the same shape.

    Source:
        LeCun et al. 1998, Proc. IEEE 86, 2278, section III-A (deslanting by second moments).

    Example:
        >>> slanted = np.zeros((1, 1, 5, 5), np.float32)
        >>> slanted[0, 0, range(5), [0, 1, 2, 3, 4]] = 1
        >>> straighten(slanted)[0, 0].sum(axis=0)
        array([0., 0., 5., 0., 0.], dtype=float32)
    """
    out = np.empty(x.shape, np.float32)
    for start in range(0, len(x), _CHUNK):
        part = x[start : start + _CHUNK]
        out[start : start + _CHUNK] = Pose.of(part).apply(part)
    return out


def _read(x: np.ndarray, shift: np.ndarray, *, axis: int) -> np.ndarray:
    """x read at site + shift along ``axis`` (2 rows, 3 columns), one shift a line; zero beyond the edge."""
    lines = x.swapaxes(2, 3) if axis == 2 else x
    width = lines.shape[3]
    place = np.arange(width) + shift[:, :, None]
    left = np.floor(place).astype(np.int64)
    weight = (place - left).astype(np.float32)
    padded = np.pad(lines, ((0, 0), (0, 0), (0, 0), (1, 1)))
    index = np.broadcast_to(np.clip(left + 1, 0, width + 1)[:, None], lines.shape)
    beyond = np.broadcast_to(np.clip(left + 2, 0, width + 1)[:, None], lines.shape)
    first = np.take_along_axis(padded, index, axis=3)
    second = np.take_along_axis(padded, beyond, axis=3)
    out = first + weight[:, None] * (second - first)
    return out.swapaxes(2, 3) if axis == 2 else out
