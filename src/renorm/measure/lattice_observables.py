r"""What lattice field theory asks of a sample of fields: order, fluctuations, range and shape of correlations.

Fields are periodic, $V$ is the number of sites, $m = \frac1V \sum_x \phi_x$ the magnetisation of a field. Channels
are averaged over, as in `renorm.measure.spectrum`: they count as copies of one law. Every function takes the log
weights of the fields, where they are drawn from another law than the one that is measured, and the number of blocks
that the jackknife makes of them, where they stand in the order of a Markov chain.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from renorm.errors import DataError
from renorm.measure.statistics import Estimate, jackknife

__all__ = [
    "Fluctuation",
    "Magnetisation",
    "RadialCorrelation",
    "binder",
    "correlation_length",
    "energy_density",
    "magnetisation",
    "neighbour_product",
    "site_moments",
    "susceptibility",
    "two_point",
    "two_point_axis",
    "two_point_radial",
]

Fluctuation = Literal["zero", "mean", "absolute"]


class Magnetisation(NamedTuple):
    r"""Moments of the magnetisation: $\langle m \rangle$, $\langle |m| \rangle$, $\langle m^2 \rangle$ and $m^4$'s."""

    mean: Estimate
    absolute: Estimate
    second: Estimate
    fourth: Estimate


@dataclass(frozen=True)
class RadialCorrelation:
    """Two-point function in bins of distance; every tensor has one entry for each bin that holds a site.

    Args:
        r: Mean distance of the bin's sites, in sites.
        value: Mean of the two-point function over the bin, in field units squared.
        error: One standard error of ``value`` over fields.
        count: Sites in the bin.
    """

    r: Float64[Tensor, " bins"]
    value: Float64[Tensor, " bins"]
    error: Float64[Tensor, " bins"]
    count: Int64[Tensor, " bins"]


def magnetisation(
    x: Float[Tensor, "batch channel *sites"],
    *,
    log_weights: Float[Tensor, " batch"] | None = None,
    blocks: int | None = None,
) -> Magnetisation:
    r"""Moments of the magnetisation $m$, the mean over sites.

    Raises:
        DataError: If fields are too few for the blocks, or not finite.

    Example:
        >>> up = torch.ones(1, 1, 4, 4)
        >>> moments = magnetisation(torch.cat([up, -up, 2 * up]))
        >>> [round(float(moment.value), 4) for moment in moments]
        [0.6667, 1.3333, 2.0, 6.0]
    """
    m = _site_mean(_fields(x))
    powers = torch.stack([m, m.abs(), m**2, m**4], -1).mean(1)
    value, error = jackknife(powers, blocks=blocks, log_weights=log_weights)
    return Magnetisation(*[Estimate(value[i], error[i]) for i in range(4)])


def susceptibility(
    x: Float[Tensor, "batch channel *sites"],
    *,
    about: Fluctuation = "zero",
    log_weights: Float[Tensor, " batch"] | None = None,
    blocks: int | None = None,
) -> Estimate:
    r"""Susceptibility, the variance of the magnetisation per site, in field units squared.

    $$ \chi = V \langle m^2 \rangle, \qquad
       \chi_{\text{mean}} = V (\langle m^2 \rangle - \langle m \rangle^2), \qquad
       \chi_{\text{absolute}} = V (\langle m^2 \rangle - \langle |m| \rangle^2) $$

    Args:
        about: ``"zero"``; ``"mean"``, connected; ``"absolute"``, connected where fields of a symmetric law are
            ordered. The last two lie low by 1/n of the variance over n fields, below their error.

    Raises:
        DataError: If fields are too few for the blocks, or not finite.

    Example:
        >>> up = torch.ones(1, 1, 4, 4)
        >>> float(susceptibility(torch.cat([up, -up])).value)
        16.0
        >>> float(susceptibility(torch.cat([up, -up]), about="absolute").value)
        0.0
    """
    m = _site_mean(_fields(x))
    sites = math.prod(x.shape[2:])
    powers = torch.stack([m**2, m, m.abs()], -1)
    return jackknife(
        powers, lambda means: sites * _about(means, about).mean(-1), blocks=blocks, log_weights=log_weights
    )


def binder(
    x: Float[Tensor, "batch channel *sites"],
    *,
    log_weights: Float[Tensor, " batch"] | None = None,
    blocks: int | None = None,
) -> Estimate:
    r"""Binder's fourth cumulant of the magnetisation.

    $$ U_4 = 1 - \frac{\langle m^4 \rangle}{3 \langle m^2 \rangle^2} $$

    2/3 where $m = \pm m_0$ (order), 0 where $m$ is Gaussian (disorder), and in between, on every large lattice, at
    the critical point: 0.61069 for the Ising universality class on a square torus.

    Raises:
        DataError: If fields are too few for the blocks, or not finite.

    Source:
        Binder 1981, Z. Phys. B 43:119.

    Example:
        >>> up = torch.ones(1, 1, 4, 4)
        >>> round(float(binder(torch.cat([up, -up, -up])).value), 6)
        0.666667
    """
    m = _site_mean(_fields(x))
    powers = torch.stack([m**2, m**4], -1).mean(1)
    return jackknife(
        powers, lambda means: 1 - means[:, 1] / (3 * means[:, 0] ** 2), blocks=blocks, log_weights=log_weights
    )


def correlation_length(
    x: Float[Tensor, "batch channel *sites"],
    *,
    about: Fluctuation = "zero",
    log_weights: Float[Tensor, " batch"] | None = None,
    blocks: int | None = None,
) -> Estimate:
    r"""Second-moment correlation length along the longest axis, of $L$ sites, in sites.

    $$ \xi = \frac{1}{2 \sin(\pi/L)} \sqrt{\frac{G(0)}{G(k_1)} - 1}, \qquad
       G(k) = \frac1V \Bigl\langle \Bigl|\sum_x \phi_x e^{-ikx}\Bigr|^2 \Bigr\rangle, \quad k_1 = \frac{2\pi}{L} $$

    $G(k_1)$ is averaged over the longest axes, $G(0)$ is the `susceptibility`. For the free field of mass $m$ with
    the nearest-neighbour Laplacian, $\xi = 1/m$ exactly, on every lattice. Where $G(0) < G(k_1)$ there is no length
    and the answer is nan.

    Args:
        about: Where the zero mode's fluctuations are measured from, see `susceptibility`.

    Raises:
        DataError: If no axis has two sites, fields are too few for the blocks, or not finite.

    Source:
        Cooper, Freedman & Preston 1982, Nucl. Phys. B 210:210.

    Example:
        >>> site = torch.arange(4.0)
        >>> fields = torch.stack([torch.ones(4), (math.pi / 2 * site).cos(), (math.pi / 2 * site).sin()])[:, None]
        >>> weights = torch.tensor([9.0, 8.0, 8.0]).log()  # G(0) = 9 * 4, G(k_1) = 2 * 8
        >>> round(float(correlation_length(fields, log_weights=weights).value) ** 2, 6)  # (9 / 4 - 1) / 2
        0.625
    """
    fields = _fields(x)
    longest = max(x.shape[2:])
    if longest < 2:
        raise DataError(f"a correlation length needs an axis of at least 2 sites, got {tuple(x.shape[2:])}")
    m, waves = _site_mean(fields), []
    for axis in [axis for axis in range(2, x.dim()) if x.shape[axis] == longest]:
        line = fields.movedim(axis, -1)
        line = line.flatten(2, -2).mean(2) if line.dim() > 3 else line
        waves.append((torch.fft.rfft(line)[..., 1].abs() / longest) ** 2)
    powers = torch.stack([m**2, m, m.abs(), torch.stack(waves).mean(0)], -1)

    def length(means: Tensor) -> Tensor:
        ratio = _about(means[..., :3], about).mean(-1) / means[..., 3].mean(-1)
        return (ratio - 1).sqrt() / (2 * math.sin(math.pi / longest))

    return jackknife(powers, length, blocks=blocks, log_weights=log_weights)


def energy_density(
    x: Float[Tensor, "batch channel *sites"],
    energy: Callable[[Tensor], Tensor],
    *,
    log_weights: Float[Tensor, " batch"] | None = None,
    blocks: int | None = None,
) -> Estimate:
    r"""Mean energy (or action) per site, $\langle E(\phi) \rangle / V$, in the units of ``energy``.

    Args:
        energy: From fields (batch, channel, *sites) to energies (batch,).

    Raises:
        DataError: If ``energy`` does not give one number a field, or fields are too few for the blocks.

    Example:
        >>> x = torch.full((2, 1, 4, 4), 3.0)
        >>> float(energy_density(x, lambda phi: (phi**2 / 2).flatten(1).sum(1)).value)
        4.5
    """
    energies = energy(x)
    if tuple(energies.shape) != (len(x),):
        raise DataError(f"an energy is one number for each of {len(x)} fields, got shape {tuple(energies.shape)}")
    return jackknife(energies.detach().double() / math.prod(x.shape[2:]), blocks=blocks, log_weights=log_weights)


def site_moments(
    x: Float[Tensor, "batch channel *sites"],
    powers: tuple[int, ...] = (2, 4),
    *,
    log_weights: Float[Tensor, " batch"] | None = None,
    blocks: int | None = None,
) -> Estimate:
    r"""Moments of one site, $\langle \phi_x^p \rangle$, averaged over sites: one for each of ``powers``.

    Raises:
        DataError: If fields are too few for the blocks, or not finite.

    Example:
        >>> site_moments(torch.full((2, 1, 4), 2.0)).value
        tensor([ 4., 16.], dtype=torch.float64)
    """
    fields = _fields(x).flatten(1)
    moments = torch.stack([(fields**power).mean(1) for power in powers], -1)
    return jackknife(moments, blocks=blocks, log_weights=log_weights)


def neighbour_product(
    x: Float[Tensor, "batch channel *sites"],
    *,
    log_weights: Float[Tensor, " batch"] | None = None,
    blocks: int | None = None,
) -> Estimate:
    r"""Product with the forward neighbours, $\sum_\mu \langle \phi_x \phi_{x+\mu} \rangle$, averaged over sites.

    Minus this is the energy per site of the Ising model with unit coupling.

    Raises:
        DataError: If fields are too few for the blocks, or not finite.

    Example:
        >>> float(neighbour_product(torch.ones(2, 1, 4, 4)).value)
        2.0
    """
    fields = _fields(x)
    products = sum((fields * fields.roll(-1, axis)).flatten(1).mean(1) for axis in range(2, x.dim()))
    assert isinstance(products, Tensor)
    return jackknife(products, blocks=blocks, log_weights=log_weights)


def two_point(
    x: Float[Tensor, "batch channel *sites"],
    *,
    about: Literal["zero", "mean"] = "zero",
    log_weights: Float[Tensor, " batch"] | None = None,
    blocks: int | None = None,
) -> Estimate:
    r"""Two-point function at every displacement, averaged over sites, by FFT; shape *sites, $r = 0$ first.

    $$ G(r) = \frac1V \sum_x \langle \phi_x \phi_{x+r} \rangle - \langle \phi \rangle^2 \;(\text{about the mean})
            = \frac1V \sum_k P_k e^{ikr} $$

    Raises:
        DataError: If fields are too few for the blocks, or not finite.

    Example:
        >>> two_point(torch.tensor([[[1.0, 0.0, 0.0, 1.0]], [[0.0, 2.0, 2.0, 0.0]]])).value.round(decimals=4) + 0
        tensor([1.2500, 0.6250, 0.0000, 0.6250], dtype=torch.float64)
    """
    shape = tuple(x.shape[2:])
    value, error = _correlate(x, lambda g: g, about, log_weights, blocks)
    return Estimate(value.reshape(shape), error.reshape(shape))


def two_point_axis(
    x: Float[Tensor, "batch channel *sites"],
    axis: int = 0,
    *,
    about: Literal["zero", "mean"] = "zero",
    log_weights: Float[Tensor, " batch"] | None = None,
    blocks: int | None = None,
) -> Estimate:
    r"""Two-point function along one axis of sites at $r = 0, \dots, \lfloor L/2 \rfloor$, both directions averaged.

    Raises:
        DataError: If there is no such axis, fields are too few for the blocks, or not finite.

    Example:
        >>> x = torch.tensor([[[1.0, 0.0, 0.0, 1.0]], [[0.0, 2.0, 2.0, 0.0]]])
        >>> two_point_axis(x).value.round(decimals=4) + 0
        tensor([1.2500, 0.6250, 0.0000], dtype=torch.float64)
    """
    shape = tuple(x.shape[2:])
    if not 0 <= axis < len(shape):
        raise DataError(f"axis must be one of the {len(shape)} axes of sites, counted from 0, got {axis}")

    def fold(g: Tensor) -> Tensor:
        line = g.reshape(len(g), *shape).movedim(axis + 1, -1).reshape(len(g), -1, shape[axis])[:, 0]
        return ((line + line.flip(-1).roll(1, -1)) / 2)[:, : shape[axis] // 2 + 1]

    return _correlate(x, fold, about, log_weights, blocks)


def two_point_radial(
    x: Float[Tensor, "batch channel *sites"],
    *,
    bins: Float[Tensor, " edges"] | None = None,
    about: Literal["zero", "mean"] = "zero",
    log_weights: Float[Tensor, " batch"] | None = None,
    blocks: int | None = None,
) -> RadialCorrelation:
    r"""Two-point function in bins of the distance $|r|$ to the nearest image.

    Args:
        bins: Rising edges in sites, bins closed on the left; not given: one site wide, centred on whole numbers,
            so that $r = 0$ stands alone.

    Raises:
        DataError: If no site lies in a bin, fields are too few for the blocks, or not finite.

    Example:
        >>> correlation = two_point_radial(torch.ones(2, 1, 4, 4), about="mean")
        >>> correlation.count, correlation.value.round(decimals=6) + 0
        (tensor([1, 8, 6, 1]), tensor([0., 0., 0., 0.], dtype=torch.float64))
    """
    r = _distances(tuple(x.shape[2:]))
    edges = torch.arange(int(r.max()) + 3).double() - 0.5 - 1e-9 if bins is None else bins.detach().cpu().double()
    place = torch.bucketize(r, edges, right=True) - 1
    inside = (place >= 0) & (place < len(edges) - 1)
    if not inside.any():
        raise DataError(f"some distance must lie in a bin, got edges {edges.tolist()}")
    _, place = place[inside].unique(return_inverse=True)
    count = place.bincount()

    def average(g: Tensor) -> Tensor:
        return g.new_zeros(len(g), len(count)).index_add(1, place, g[:, inside]) / count

    value, error = _correlate(x, average, about, log_weights, blocks)
    return RadialCorrelation(average(r[None])[0], value, error, count)


def _fields(x: Tensor) -> Float64[Tensor, "batch channel *sites"]:
    if x.dim() < 3:
        raise DataError(f"fields must be (batch, channel, *sites), got shape {tuple(x.shape)}")
    return x.detach().cpu().double()


def _site_mean(fields: Tensor) -> Float64[Tensor, "batch channel"]:
    return fields.flatten(2).mean(2)


def _about(means: Tensor, about: Fluctuation) -> Tensor:
    """Variance of the magnetisation from the means of its square, itself and its absolute value (last axis)."""
    if about == "zero":
        return means[..., 0]
    return means[..., 0] - means[..., {"mean": 1, "absolute": 2}[about]] ** 2


def _correlate(
    x: Tensor,
    reduce: Callable[[Tensor], Tensor],
    about: Literal["zero", "mean"],
    log_weights: Tensor | None,
    blocks: int | None,
) -> Estimate:
    """Two-point function of every field (batch, sites), reduced to fewer numbers, and then averaged over fields."""
    fields = _fields(x)
    axes = tuple(range(2, x.dim()))
    power = torch.fft.rfftn(fields, dim=axes).abs() ** 2
    g = torch.fft.irfftn(power, s=x.shape[2:], dim=axes).mean(1).flatten(1) / math.prod(x.shape[2:])
    reduced, channels = reduce(g), x.shape[1]
    if about == "zero":
        return jackknife(reduced, blocks=blocks, log_weights=log_weights)
    both = torch.cat([_site_mean(fields), reduced], 1)

    def connected(means: Tensor) -> Tensor:
        return means[:, channels:] - (means[:, :channels] ** 2).mean(1, keepdim=True)

    return jackknife(both, connected, blocks=blocks, log_weights=log_weights)


def _distances(shape: tuple[int, ...]) -> Float64[Tensor, " sites"]:
    total = torch.zeros(shape, dtype=torch.float64)
    for axis, size in enumerate(shape):
        site = torch.arange(size, dtype=torch.float64)
        total = (
            total + torch.minimum(site, size - site).reshape([-1 if a == axis else 1 for a in range(len(shape))]) ** 2
        )
    return total.sqrt().flatten()
