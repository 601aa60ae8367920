r"""Densities on a torus by field theory: the likeliest field $\phi = -\ln p$ under a free-field prior.

The cells $c$ of a periodic lattice, $V$ in number, have probabilities $p_c \propto e^{-\phi_c}$. They are looked at
with exposures $e_c$: a frame lies in one with the probability $q_c = e_c e^{-\phi_c}/\sum_{c'} e_{c'} e^{-\phi_{c'}}$.
With a Gaussian prior of the spectrum $(\ell k)^{-2\alpha}$ and $n_c$ frames in a cell, $N = \sum_c n_c$, the likeliest
field makes

$$ S[\phi] = \frac12\sum_k (\ell k)^{2\alpha}\,|\phi_k|^2 + \sum_c n_c\,\phi_c + N\ln\sum_c e_c\,e^{-\phi_c}, \qquad
   \phi_k = \frac1V\sum_c \phi_c\,e^{-ik\cdot x_c} $$

smallest. Angles are in rad, so $k$ are integers. $S$ is strictly convex but for a constant, chosen so that the mean
of $\phi$ is 0. At equal exposures only $\ell^{2\alpha}/N$ decides the field, and a wave of a nearly flat density is
kept by the share $1/(1 + (\ell k)^{2\alpha}/N)$ of its amplitude.

Source:
    Bialek, Callan & Strong 1996, Phys. Rev. Lett. 77, 4693; Kinney 2015, Phys. Rev. E 92, 032107. Exposures
    are added here.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor

from renorm.errors import DataError
from renorm.spec import require

__all__ = ["Smoothness", "action", "choose_length", "lengths", "posterior_mode", "stiffness"]

STEPS, HALVINGS, SOLVES = 200, 40, 1000  # of Newton's method, of its line search, of conjugate gradients
NATS = 1e-10  # of the action, that the last step may still have won
FINEST, COARSEST, PER_OCTAVE = 16.0, 0.25, 2  # wavenumbers that a scale may keep half of, and scales between them


class Smoothness(NamedTuple):
    """A scale, and what it foretells.

    Attributes:
        length: In rad.
        nats: Mean log-probability of the cells of held-out frames, by weight, in nats.
    """

    length: float
    nats: float


def stiffness(shape: Sequence[int], length: float, power: float) -> Float64[Tensor, "*modes"]:
    r"""$(\ell k)^{2\alpha}$ of every mode, in the order of ``torch.fft.rfftn``.

    Args:
        shape: Cells along each axis.
        length: $\ell$ in rad.
        power: $\alpha$.

    Example:
        >>> stiffness((4,), 2.0, 1.0)  # k = 0, 1, 2
        tensor([ 0.,  4., 16.], dtype=torch.float64)
    """
    k_sq = torch.zeros([], dtype=torch.float64)
    for axis, n in enumerate(shape):
        k = torch.fft.fftfreq(n, 1 / n, dtype=torch.float64)
        k = k[: n // 2 + 1] if axis == len(shape) - 1 else k
        k_sq = k_sq + (k**2).reshape([-1 if a == axis else 1 for a in range(len(shape))])
    return (length**2 * k_sq) ** power


def action(
    field: Float64[Tensor, "*cells"],
    counts: Float64[Tensor, "*cells"],
    *,
    length: float,
    power: float,
    log_exposure: Float64[Tensor, "*cells"] | None = None,
) -> Float64[Tensor, ""]:
    r"""$S[\phi]$ in nats; exposures are 1 if not given.

    Example:
        >>> round(float(action(torch.zeros(4).double(), torch.ones(4).double(), length=1.0, power=1.0)), 6)  # 4 ln 4
        5.545177
    """
    exposure = torch.zeros_like(field) if log_exposure is None else log_exposure
    return _value(field, counts, stiffness(field.shape, length, power) / field.numel(), exposure)


def posterior_mode(
    counts: Float64[Tensor, "*cells"],
    *,
    length: float,
    power: float,
    log_exposure: Float64[Tensor, "*cells"] | None = None,
    start: Float64[Tensor, "*cells"] | None = None,
) -> Float64[Tensor, "*cells"]:
    r"""The field of the smallest action, by Newton's method with conjugate gradients in Fourier modes.

    Args:
        counts: $n_c$, adding up to the number of independent frames that they are worth.
        length: $\ell > 0$ in rad.
        power: $\alpha > 0$.
        log_exposure: $\ln e_c$, up to a constant; not given: all the same.
        start: A field near the answer, if one is known.

    Returns:
        $\phi$ with mean 0.

    Raises:
        DataError: If a count is negative or not finite, all are 0, or the field would run away ($\ell$ so small that
            empty cells feel nothing).
        ValueError: If length or power are not positive.

    Example:
        >>> x = 2 * math.pi * torch.arange(16, dtype=torch.float64) / 16
        >>> counts = 100 * (1 + 1e-4 * torch.cos(2 * x)) / 16
        >>> field = posterior_mode(counts, length=1.5, power=1.0)
        >>> round(float(-field[0] / 1e-4), 3)  # 1 / (1 + 3^2 / 100)
        0.917
    """
    require(length > 0 and power > 0, "length and power must be > 0 (else no field is smooth)", (length, power))
    if not (counts.isfinite() & (counts >= 0)).all() or not (counts > 0).any():
        raise DataError("counts must be finite and >= 0, and one above 0: there is no frame to learn from")
    number = counts.sum()
    stiff = stiffness(counts.shape, length, power) / counts.numel()
    exposure = torch.zeros_like(counts) if log_exposure is None else log_exposure
    field = torch.zeros_like(counts) if start is None else start - start.mean()
    value = _value(field, counts, stiff, exposure)
    for _ in range(STEPS):
        q = (exposure - field).flatten().softmax(0).reshape(field.shape)
        slope = _stiffen(field, stiff) + counts - number * q
        step = _solve(slope, q * number, stiff, number)
        won = (slope * step).sum() / 2
        if won < NATS:
            return field - step
        share = 1.0
        for _ in range(HALVINGS):
            trial = field - share * step
            there = _value(trial, counts, stiff, exposure)
            if there <= value - 1e-4 * share * won:
                break
            share /= 2
        else:
            return field  # rounding is all that is left
        field, value = trial, there
    raise DataError(
        f"the field must settle in {STEPS} steps: take a larger length or power, got {length:g} rad and {power:g}"
    )


def lengths(number: float, power: float) -> list[float]:
    r"""Scales to choose from, in rad, the smoothest first: $\ell = N^{1/2\alpha}/k_{1/2}$.

    Of a nearly flat density each keeps half of the waves at $k_{1/2}$, which goes from 1/4 to 16, two to an octave.

    Example:
        >>> found = lengths(16.0, 2.0)
        >>> len(found), found[0], round(found[-1], 6)
        (13, 8.0, 0.125)
    """
    count = round(PER_OCTAVE * math.log2(FINEST / COARSEST)) + 1
    return [number ** (1 / (2 * power)) / (COARSEST * 2 ** (i / PER_OCTAVE)) for i in range(count)]


def choose_length(
    counts: Float64[Tensor, "blocks *cells"],
    numbers: Sequence[float],
    candidates: Sequence[float],
    *,
    power: float,
    log_exposure: Float64[Tensor, "*cells"] | None = None,
) -> list[Smoothness]:
    r"""What each scale foretells of blocks of frames that its field has not seen, the best first.

    $$ \mathrm{nats}(\ell) = \frac{\sum_b \sum_c w^{(b)}_c \ln q^{(-b)}_c(\ell)}{\sum_b \sum_c w^{(b)}_c} $$

    Scales are tried from the smoothest on, until two in a row foretell less than the best.

    Args:
        counts: Weights $w$ of the cells, of each block, up to a common factor.
        numbers: Frames that all blocks but this one are worth.
        candidates: Scales in rad.
        power: $\alpha$.
        log_exposure: $\ln e_c$; not given: all the same.

    Returns:
        Those that were tried.

    Raises:
        DataError: If there are fewer than two blocks with weight.

    Example:
        >>> flat = torch.full((2, 8), 5.0).double()
        >>> best = choose_length(flat, [40.0, 40.0], [0.1, 10.0], power=1.0)[0]
        >>> round(best.nats, 6)  # -ln 8
        -2.079442
    """
    if int((counts.flatten(1).sum(1) > 0).sum()) < 2:
        raise DataError("a scale is chosen by blocks that are held out: at least 2 must have weight; give more frames")
    rests = [(counts.sum(0) - block) for block in counts]
    rests = [rest * (number / rest.sum()) for rest, number in zip(rests, numbers, strict=True)]
    fields: list[Tensor | None] = [None] * len(counts)
    found: list[Smoothness] = []
    exposure = torch.zeros_like(counts[0]) if log_exposure is None else log_exposure
    for length in sorted(candidates, reverse=True):
        solved = [
            posterior_mode(rest, length=length, power=power, log_exposure=exposure, start=near)
            for rest, near in zip(rests, fields, strict=True)  # the field of the scale before is near
        ]
        log_p = torch.stack([(exposure - field).flatten().log_softmax(0) for field in solved])
        found.append(Smoothness(length, float((counts.flatten(1) * log_p).sum() / counts.sum())))
        fields = [*solved]
        if max(each.nats for each in found) > max(each.nats for each in found[-2:]):
            break
    return sorted(found, key=lambda each: -each.nats)


def _stiffen(field: Tensor, stiff: Tensor) -> Tensor:
    """A diagonal operator of the Fourier modes."""
    axes = tuple(range(field.dim()))
    return torch.fft.irfftn(torch.fft.rfftn(field, dim=axes) * stiff, s=field.shape, dim=axes)


def _value(field: Tensor, counts: Tensor, stiff: Tensor, log_exposure: Tensor) -> Float64[Tensor, ""]:
    prior = (field * _stiffen(field, stiff)).sum() / 2
    return prior + (counts * field).sum() + counts.sum() * (log_exposure - field).flatten().logsumexp(0)


def _solve(slope: Tensor, weight: Tensor, stiff: Tensor, number: Tensor) -> Tensor:
    r"""$H^{-1}g$ among fields of mean 0, $H = K + \operatorname{diag}(w) - ww^T/N$, by conjugate gradients.

    They are preconditioned by what $H$ would be, were the density flat.
    """
    flat = 1 / (stiff + number / slope.numel())
    x, r = torch.zeros_like(slope), slope - slope.mean()
    z = _stiffen(r, flat)
    d, rz = z, (r * z).sum()
    goal = rz * min(1e-2, float(rz)) ** 2 + 1e-32  # ever more exact, so that Newton's method is quadratic
    for _ in range(SOLVES):
        if rz <= goal:
            break
        hd = _stiffen(d, stiff) + weight * d - weight * ((weight * d).sum() / number)
        share = rz / (d * hd).sum()
        x, r = x + share * d, r - share * hd
        r = r - r.mean()
        z = _stiffen(r, flat)
        before, rz = rz, (r * z).sum()
        d = z + (rz / before) * d
    return x
