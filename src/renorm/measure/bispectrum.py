r"""The bispectrum of periodic fields: how the phases of three waves that close a triangle hang together.

With orthonormal Fourier modes $\tilde\phi_k = N^{-1/2} \sum_x \phi_x e^{-ikx}$ on $N$ sites, where the power is
$P(k) = \langle |\tilde\phi_k|^2 \rangle$,

$$ \langle \tilde\phi_{k_1} \tilde\phi_{k_2} \tilde\phi_{k_3} \rangle
   = N^{-1/2}\, B(k_1, k_2, k_3)\, \delta_{k_1 + k_2 + k_3}, \qquad
   B = \sum_{r,s} \langle \phi_x \phi_{x+r} \phi_{x+s} \rangle_c\, e^{-i(k_2 r + k_3 s)} , $$

so that $P$ and $B$ are Fourier sums of the two- and three-point functions and do not grow with the lattice; white
noise of third cumulant $\kappa_3$ has $B = \kappa_3$. A Gaussian field has none.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from renorm.errors import DataError
from renorm.lattice import Lattice
from renorm.measure.statistics import jackknife

__all__ = ["Bispectrum", "Triangles", "bispectrum", "reduced_bispectrum"]

Triangles = Literal["all", "equilateral"]

CHUNK = 2**24
"""Sites of shell fields that are held at once."""


@dataclass(frozen=True)
class Bispectrum:
    """A binned bispectrum; every tensor has one entry for each triangle of shells.

    Args:
        shells: The three shells of a triangle, as places in the edges.
        k: Mean wavenumbers of their modes, in rad/site.
        value: Mean over the triangle's triples of modes: the bispectrum in field units cubed, or reduced.
        error: One standard error of ``value`` over fields.
        count: Triples of modes, in order, that close.
    """

    shells: Int64[Tensor, "triangles 3"]
    k: Float64[Tensor, "triangles 3"]
    value: Float64[Tensor, " triangles"]
    error: Float64[Tensor, " triangles"]
    count: Int64[Tensor, " triangles"]


class _Shells(NamedTuple):
    mask: Float64[Tensor, "shells *half"]  # on the half of the modes that a real transform keeps
    modes: Float64[Tensor, " shells"]
    k: Float64[Tensor, " shells"]
    edges: list[float]


def bispectrum(
    x: Float[Tensor, "batch channel *sites"],
    lattice: Lattice,
    *,
    edges: Float[Tensor, " edges"] | None = None,
    triangles: Triangles | Int64[Tensor, "triangles 3"] = "all",
    log_weights: Float[Tensor, " batch"] | None = None,
    blocks: int | None = None,
) -> Bispectrum:
    r"""Mean bispectrum of the triangles of shells of $|k|$, by FFT, with error bars over fields.

    With $D_b(x)$ the field that keeps only the modes of shell $b$, and $d_b(x)$ the same for a field whose modes
    are all 1,

    $$ \hat B_{abc} = \sqrt N\, \frac{\sum_x D_a D_b D_c}{\sum_x d_a d_b d_c}
       = \frac{\sqrt N}{T_{abc}} \sum_{k_1 \in a} \sum_{k_2 \in b} \sum_{k_3 \in c}
         \tilde\phi_{k_1} \tilde\phi_{k_2} \tilde\phi_{k_3}\, \delta_{k_1 + k_2 + k_3}, \qquad
       T_{abc} = \sqrt N \sum_x d_a d_b d_c $$

    averaged over channels. Wavenumbers add up modulo $2\pi$, as they do on a lattice: shells that reach beyond
    $2\pi/3$ also have triangles that close only so. The field is taken as it is; its mean counts in the zero mode.

    Args:
        edges: Rising edges in rad/site, shells closed on the left. By default shells are one fundamental
            $2\pi/L$ wide, centred on its multiples from the first, up to $2\pi/3$; $L$ is the longest axis.
        triangles: ``"all"`` that close, sides rising; ``"equilateral"``; or triples of shells, counted from 0.
        log_weights: Importance weights of the fields.
        blocks: Runs of neighbouring fields, for a Markov chain; not given: fields are independent.

    Raises:
        DataError: If the lattice is not periodic, fields do not live on it or are too few for the blocks, a shell
            is empty, a triangle does not close, or none does.

    Source:
        Scoccimarro 2015, arXiv:1506.02729 (the estimator by FFT); Sefusatti 2005 (counting triangles with it).

    Example:
        >>> lattice = Lattice((8, 8), boundary="periodic")
        >>> site = 2 * math.pi * torch.arange(8.0) / 8
        >>> x = site.cos()[:, None] + site.cos() + (site[:, None] + site).cos()
        >>> result = bispectrum(x.expand(2, 1, 8, 8), lattice, edges=torch.tensor([0.7, 0.9, 1.2]))
        >>> result.shells.tolist(), result.count.tolist(), result.value.round(decimals=4).tolist()
        ([[0, 0, 1]], [8], [256.0])
    """
    fields, shells = _checked(x, lattice), _shells(lattice, edges)
    chosen, count = _closing(shells, lattice, triangles)
    each = _triple_products(fields, shells, chosen)
    value, error = jackknife(_normalised(each, count, lattice), blocks=blocks, log_weights=log_weights)
    return Bispectrum(chosen, shells.k[chosen], value, error, count)


def reduced_bispectrum(
    x: Float[Tensor, "batch channel *sites"],
    lattice: Lattice,
    *,
    edges: Float[Tensor, " edges"] | None = None,
    triangles: Triangles | Int64[Tensor, "triangles 3"] = "all",
    log_weights: Float[Tensor, " batch"] | None = None,
    blocks: int | None = None,
) -> Bispectrum:
    r"""Bispectrum over products of powers, which hardly changes with scale in gravity's or a lognormal field.

    $$ Q_{abc} = \frac{B_{abc}}{P_a P_b + P_b P_c + P_c P_a} $$

    with $P$ the mean power of a shell, averaged over channels. Arguments are those of `bispectrum`.

    Raises:
        DataError: As `bispectrum`.

    Source:
        Fry 1984, Astrophys. J. 279:499.

    Example:
        >>> lattice = Lattice((8, 8), boundary="periodic")
        >>> site = 2 * math.pi * torch.arange(8.0) / 8
        >>> x = site.cos()[:, None] + site.cos() + (site[:, None] + site).cos()
        >>> result = reduced_bispectrum(x.expand(2, 1, 8, 8), lattice, edges=torch.tensor([0.7, 0.9, 1.2]))
        >>> round(float(result.value), 4)  # four modes of power 16 in one shell, two of four in the other: 256 / 512
        0.5
    """
    fields, shells = _checked(x, lattice), _shells(lattice, edges)
    chosen, count = _closing(shells, lattice, triangles)
    each = _normalised(_triple_products(fields, shells, chosen), count, lattice)
    power = _shell_power(fields, shells)

    def reduce(means: Tensor) -> Tensor:
        a, b, c = means[:, len(chosen) :][:, chosen].unbind(-1)
        return means[:, : len(chosen)] / (a * b + b * c + c * a)

    value, error = jackknife(torch.cat([each, power], 1), reduce, blocks=blocks, log_weights=log_weights)
    return Bispectrum(chosen, shells.k[chosen], value, error, count)


def _checked(x: Tensor, lattice: Lattice) -> Float64[Tensor, "batch channel *sites"]:
    if lattice.boundary != "periodic":
        raise DataError(f"a bispectrum needs a periodic lattice (its waves have phases), got {lattice.boundary!r}")
    if tuple(x.shape[2:]) != lattice.shape:
        raise DataError(f"fields must be (batch, channel, *{lattice.shape}) to live here, got {tuple(x.shape)}")
    return x.detach().cpu().double()


def _wavenumber(lattice: Lattice, *, half: bool) -> Tensor:
    """|k| of every complex mode in the order of the FFT, in rad/site."""
    total = torch.zeros((), dtype=torch.float64)
    for axis, size in enumerate(lattice.shape):
        fold = half and axis == lattice.dim - 1
        k = 2 * math.pi * (torch.fft.rfftfreq if fold else torch.fft.fftfreq)(size, dtype=torch.float64)
        total = total + k.reshape([-1 if a == axis else 1 for a in range(lattice.dim)]) ** 2
    return total.sqrt()


def _shells(lattice: Lattice, edges: Tensor | None) -> _Shells:
    if edges is None:
        fundamental = 2 * math.pi / max(lattice.shape)
        # A hair below one half, as in the spectrum: modes midway between two shells go to the upper one.
        last = int(max(lattice.shape) / 3 + 1e-9 + 0.5)
        edges = (torch.arange(1, last + 1, dtype=torch.float64) - 0.5 - 1e-9) * fundamental
    rising = edges.detach().cpu().double()
    if len(rising) < 2 or not (rising.diff() > 0).all():
        raise DataError(f"shells need at least 2 edges that rise (default ones 5 sites), got {rising.tolist()}")
    column = [-1, *[1] * lattice.dim]
    low, high = rising[:-1].reshape(column), rising[1:].reshape(column)
    k, half = _wavenumber(lattice, half=False), _wavenumber(lattice, half=True)
    member = ((k >= low) & (k < high)).double().flatten(1)
    modes = member.sum(1)
    if not (modes > 0).all():
        empty = (modes == 0).nonzero()[:, 0].tolist()
        raise DataError(f"every shell needs a mode: merge it with the next, got no mode in shells {empty}")
    return _Shells(((half >= low) & (half < high)).double(), modes, member @ k.flatten() / modes, rising.tolist())


def _closing(
    shells: _Shells, lattice: Lattice, triangles: Triangles | Tensor
) -> tuple[Int64[Tensor, "triangles 3"], Int64[Tensor, " triangles"]]:
    """The triangles of shells that close, and how many triples of modes close each of them."""
    number = len(shells.k)
    if isinstance(triangles, Tensor):
        chosen = triangles.cpu()
        if not ((chosen >= 0) & (chosen < number)).all():
            raise DataError(f"triangles are triples of shells from 0 to {number - 1}, got {chosen.tolist()}")
    else:
        every = torch.arange(number)
        chosen = {
            "all": torch.combinations(every, 3, with_replacement=True),
            "equilateral": every[:, None].expand(number, 3),
        }[triangles]
    ones = torch.zeros((1, 1, *lattice.shape), dtype=torch.float64)
    ones[(0, 0, *[0] * lattice.dim)] = math.sqrt(lattice.sites)  # all its modes are 1
    count = (_triple_products(ones, shells, chosen)[0] * math.sqrt(lattice.sites)).round().long()
    if isinstance(triangles, Tensor) and not (count > 0).all():
        raise DataError(f"no modes of these shells add up to zero, got triangles {chosen[count == 0].tolist()}")
    if not (count > 0).any():
        raise DataError(
            f"some triangle of the shells must close: take wider shells or longer waves, got edges {shells.edges}"
        )
    return chosen[count > 0], count[count > 0]


def _normalised(each: Tensor, count: Tensor, lattice: Lattice) -> Tensor:
    return each * lattice.sites / count


def _triple_products(
    fields: Float64[Tensor, "batch channel *sites"], shells: _Shells, triangles: Int64[Tensor, "triangles 3"]
) -> Float64[Tensor, "batch triangles"]:
    """Sum over sites of the product of three shell fields, averaged over channels."""
    axes = tuple(range(-(fields.dim() - 2), 0))
    sites = fields.shape[2:]
    out = torch.zeros(len(fields), len(triangles), dtype=torch.float64)
    pairs, belongs = triangles[:, :2].unique(dim=0, return_inverse=True)
    step = max(1, CHUNK // (len(shells.k) * fields[0].numel()))
    for start in range(0, len(fields), step):
        modes = torch.fft.rfftn(fields[start : start + step], dim=axes, norm="ortho")
        kept = modes * shells.mask.reshape(len(shells.k), 1, 1, *shells.mask.shape[1:])
        filtered = torch.fft.irfftn(kept, s=sites, dim=axes, norm="ortho").flatten(3)  # (shells, fields, channel, x)
        for pair, (a, b) in enumerate(pairs.tolist()):
            here = (belongs == pair).nonzero()[:, 0]
            third = triangles[here, 2]
            low, high = int(third.min()), int(third.max())  # a run of shells needs no copy
            sums = torch.einsum("fcx,sfcx->fs", filtered[a] * filtered[b], filtered[low : high + 1])
            out[start : start + step, here] = sums[:, third - low] / fields.shape[1]
    return out


def _shell_power(fields: Tensor, shells: _Shells) -> Float64[Tensor, "batch shells"]:
    """Mean of |mode|^2 over every shell, averaged over channels."""
    size = fields.shape[-1]
    axes = tuple(range(-(fields.dim() - 2), 0))
    power = (torch.fft.rfftn(fields, dim=axes, norm="ortho").abs() ** 2).mean(1)
    twice = torch.full((size // 2 + 1,), 2.0, dtype=torch.float64)  # modes whose mirror image was left out
    twice[0] = 1.0
    if size % 2 == 0:
        twice[-1] = 1.0
    return (power * twice).flatten(1) @ shells.mask.flatten(1).T / shells.modes
