r"""Free-energy surfaces of torsion angles: periodic histograms with weights, their errors, how far two are apart.

Angles are fields (num, 1, angles) in rad. A torus is cut into bins of one width on every axis, the first from -pi on.
Surfaces are in kJ/mol; those of one temperature alone may be compared.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from renorm.errors import DataError
from renorm.laws.thermal import thermal_energy
from renorm.measure.statistics import bootstrap, check_log_weights
from renorm.spec import require

__all__ = ["Surface", "free_energy", "surface", "surface_error", "surface_rmse"]


@dataclass(frozen=True, eq=False)
class Surface:
    """A free-energy surface on the bins of a torus.

    Args:
        value: In kJ/mol, 0 in the likeliest bin and infinite in an empty one.
        probability: Of each bin; they add to 1.
        effective: Effective number of frames in each bin.
    """

    value: Float64[Tensor, "*bins"]
    probability: Float64[Tensor, "*bins"]
    effective: Float64[Tensor, "*bins"]


def free_energy(probability: Float[Tensor, "*bins"], *, temperature: float) -> Float64[Tensor, "*bins"]:
    r"""$F_b = -RT\ln(p_b/\max_b p_b)$ in kJ/mol, of bins of one size.

    Raises:
        DataError: If a probability is negative or not finite, or all are 0.
        ValueError: If the temperature is not positive.

    Example:
        >>> free_energy(torch.tensor([1.0, math.exp(-1), 0.0]), temperature=300.0).round(decimals=4)
        tensor([0.0000, 2.4943, inf], dtype=torch.float64)
    """
    p = probability.detach().cpu().double()
    if not (p.isfinite() & (p >= 0)).all() or not (p > 0).any():
        raise DataError("probabilities must be finite and >= 0, and one above 0 (the lowest free energy is its)")
    return -thermal_energy(temperature) * (p / p.max()).log() + 0.0


def surface(
    angles: Float[Tensor, "num 1 angles"],
    bins: int,
    *,
    temperature: float,
    log_weights: Float[Tensor, " weights"] | None = None,
) -> Surface:
    r"""Free-energy surface of frames with weights, and the effective number of frames (Kish) in each bin.

    $$ p_b = \frac{\sum_{i \in b} w_i}{\sum_i w_i}, \qquad F_b = -RT\ln\frac{p_b}{\max p}, \qquad
       n_b = \frac{(\sum_{i \in b} w_i)^2}{\sum_{i \in b} w_i^2} $$

    Args:
        angles: In rad; whole turns do not matter.
        bins: On each axis.
        temperature: In K.
        log_weights: In nats, up to a constant; not given: all the same.

    Raises:
        DataError: If there is no frame, an angle is not finite, or log weights cannot be normalised.
        ValueError: If there is no bin, or the temperature is not positive.

    Source:
        Kish 1965, "Survey Sampling" (the effective number).

    Example:
        >>> x = torch.tensor([[[-2.0]], [[1.0]], [[1.0 + 2 * math.pi]]])
        >>> found = surface(x, 2, temperature=300.0, log_weights=torch.tensor([1.0, 1.0, 3.0]).log())
        >>> found.probability, found.effective
        (tensor([0.2000, 0.8000], dtype=torch.float64), tensor([1.0000, 1.6000], dtype=torch.float64))
    """
    place = _bins(angles, bins)
    num, dim = len(angles), angles.shape[2]
    weights = torch.zeros(num).double() if log_weights is None else check_log_weights(log_weights, num)
    w = (weights - weights.max()).exp()
    zero = torch.zeros(bins**dim, dtype=torch.float64)
    total, square = zero.index_add(0, place, w), zero.index_add(0, place, w**2)
    effective = torch.where(square > 0, total**2 / square.clamp_min(torch.finfo(torch.float64).tiny), 0.0)
    shape = (bins,) * dim
    probability = (total / total.sum()).reshape(shape)
    return Surface(free_energy(probability, temperature=temperature), probability, effective.reshape(shape))


def surface_rmse(a: Float[Tensor, "*bins"], b: Float[Tensor, "*bins"], chosen: Bool[Tensor, "*bins"]) -> float:
    r"""Root mean square difference of two surfaces over the chosen bins, after the best constant is removed.

    $$ \mathrm{RMSE}^2 = \frac1{|C|}\sum_{b \in C}(F_b - G_b - c)^2, \qquad
       c = \frac1{|C|}\sum_{b \in C}(F_b - G_b) $$

    Every chosen bin counts the same, and so the best constant is the plain mean. In the unit of the surfaces.

    Raises:
        DataError: If fewer than two bins are chosen, or a surface is not finite in one of them.

    Example:
        >>> a, b = torch.tensor([0.0, 2.0, 9.0]), torch.tensor([5.0, 5.0, torch.inf])
        >>> surface_rmse(a, b, torch.tensor([True, True, False]))  # differences -5 and -3, their mean -4
        1.0
    """
    if int(chosen.sum()) < 2:
        raise DataError(f"a difference up to a constant needs at least 2 bins, got {int(chosen.sum())} chosen")
    gap = (a.double() - b.double())[chosen]
    if bad := int((~gap.isfinite()).sum()):
        raise DataError(
            f"surfaces must be finite in the chosen bins, got {bad} of {len(gap)} that are empty in one of them: leave "
            "these out, and tell how many they are"
        )
    return float((gap - gap.mean()).square().mean().sqrt())


def surface_error(
    angles: Float[Tensor, "num 1 angles"],
    bins: int,
    chosen: Bool[Tensor, "*bins"],
    *,
    temperature: float,
    blocks: int,
    generator: torch.Generator,
    log_weights: Float[Tensor, " weights"] | None = None,
    replicas: int = 200,
) -> float:
    r"""How far a surface is from itself by chance: its RMSE to the law that blocks of frames stand for, in kJ/mol.

    $$ \mathrm{error}^2 = \frac1{|C|}\sum_{b \in C}\operatorname{var}\Bigl[F_b - \frac1{|C|}\sum_{c \in C}F_c\Bigr] $$

    over bootstrap draws of blocks of neighbouring frames. A bin that a draw leaves empty counts as holding the lightest
    frame.

    Args:
        angles: In rad, in order of time.
        bins: On each axis.
        chosen: Bins that count.
        temperature: In K.
        blocks: Runs of frames that are drawn again; longer than the memory of the run.
        generator: Source of randomness.
        log_weights: In nats.
        replicas: Draws.

    Raises:
        DataError: If fewer than two bins are chosen, one of them has no frame, or there are too few blocks or draws.

    Source:
        Künsch 1989, Ann. Stat. 17, 1217 (blocks); `renorm.measure.statistics.bootstrap`.

    Example:
        >>> g = torch.Generator().manual_seed(0)
        >>> x = 2 * math.pi * torch.rand(4000, 1, 1, generator=g) - math.pi
        >>> error = surface_error(x, 4, torch.ones(4, dtype=bool), temperature=300.0, blocks=400, generator=g)
        >>> bool(abs(error / (2.494339 * 0.75**0.5 / 1000**0.5) - 1) < 0.1)  # 1000 frames a bin
        True
    """
    place, num = _bins(angles, bins), len(angles)
    weights = torch.zeros(num).double() if log_weights is None else check_log_weights(log_weights, num)
    column = torch.full((bins ** angles.shape[2],), -1)
    inside = chosen.flatten().nonzero()[:, 0]
    if len(inside) < 2 or not torch.isin(inside, place).all():
        raise DataError(f"at least 2 bins must be chosen, each with a frame in it, got {len(inside)} chosen")
    column[inside] = torch.arange(len(inside))
    member = column[place]
    samples = torch.zeros(num, len(inside), dtype=torch.float64)
    samples[member >= 0, member[member >= 0]] = 1.0
    least = float(weights.log_softmax(0)[weights > -torch.inf].min().exp())

    def centred(p: Tensor) -> Tensor:
        value = -thermal_energy(temperature) * p.clamp_min(least).log()
        return value - value.mean(-1, keepdim=True)

    drawn = bootstrap(samples, centred, generator=generator, replicas=replicas, blocks=blocks, log_weights=weights)
    return float(drawn.error.square().mean().sqrt())


def _bins(angles: Tensor, bins: int) -> Int64[Tensor, " num"]:
    """Bin of each frame, the last angle running fastest."""
    require(bins >= 1, "a histogram needs at least 1 bin on each axis", bins)
    if not len(angles):
        raise DataError("a surface needs at least 1 frame, got none")
    x = angles.detach().cpu().double()[:, 0]
    if not x.isfinite().all():
        raise DataError("angles must be finite, got nan or inf")
    place = ((x + math.pi) / (2 * math.pi) * bins).floor().long() % bins
    stride = bins ** torch.arange(x.shape[1] - 1, -1, -1)
    return (place * stride).sum(1)
