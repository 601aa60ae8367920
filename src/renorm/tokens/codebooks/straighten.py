"""Slant removal: each image is sheared and shifted so that its mass stands upright in the middle; no learning."""

import numpy as np
from jaxtyping import Float

__all__ = ["straighten"]

_CHUNK = 2048


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
        out[start : start + _CHUNK] = _upright(x[start : start + _CHUNK])
    return out


def _upright(x: np.ndarray) -> np.ndarray:
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
    middle_r, middle_c = (height - 1) / 2, (width - 1) / 2
    shift_r = np.where(blank, 0.0, r_bar - middle_r)
    shift_c = np.where(blank, 0.0, c_bar - middle_c)[:, None] + slant[:, None] * (r - middle_r)
    sheared = _read(x, np.broadcast_to(shift_r[:, None], (number, width)), axis=2)
    return _read(sheared, shift_c, axis=3)


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
