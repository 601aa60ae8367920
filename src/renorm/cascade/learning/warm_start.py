"""Where the training of a local law begins: at the best linear or quadratic one, found in closed form."""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from renorm.cascade.conditionals.heads import SplineHead
from renorm.cascade.conditionals.local import LocalConditional, sublattices
from renorm.cascade.conditionals.relative_details import RelativeDetails
from renorm.cascade.conditionals.standardised import Standardised
from renorm.errors import DataError
from renorm.nn.patch import PatchNet, neighbourhoods

__all__ = ["start_linear", "start_positive", "start_quadratic"]

ROUNDS = 4  # of Fisher scoring, for log variances
ROWS = 2**18  # sites of samples that a network is solved from, at most
NOISE = 0.02  # spread below which a direction, of standard deviation one at most, is left out
BEND = 0.5  # spread of the directions: the smaller, the more like squares q is, also of rare values


@torch.no_grad()
def start_linear(
    law: LocalConditional,
    detail: Float[Tensor, "batch details *sites"],
    coarse: Float[Tensor, "batch channel *sites"],
    *,
    ridge: float = 1e-4,
) -> LocalConditional:
    r"""Give every part the Gaussian whose mean is the best linear function of what it sees.

    $$ \mu_i = b + A u_i, \qquad (A, b) = \arg\min \langle (y_i - b - A u_i)^2 \rangle + \epsilon |A|^2, \qquad
       e^{2s} = \langle (y_i - \mu_i)^2 \rangle $$

    with $u_i$ the coarse field and the details drawn before, within the law's radius. What the networks add to it is
    left as it is: nothing, as they are made.

    Args:
        law: Changed in place; its head must be a ``SplineHead``.
        detail: Samples.
        coarse: Their coarse fields.
        ridge: $\epsilon$, in units of the variance of $u$; it decides between inputs that are the same site, as on a
            lattice shorter than the patch.

    Raises:
        DataError: If the law's sites are no splines over a Gaussian.

    Example: a chain whose details are three times the coarse field.
        >>> law = LocalConditional(1, 1, 1, SplineHead(), symmetric=False)
        >>> coarse = torch.randn(500, 1, 8, generator=torch.Generator().manual_seed(0))
        >>> noise = torch.randn(500, 1, 8, generator=torch.Generator().manual_seed(1))
        >>> law = start_linear(law, 3 * coarse + 0.1 * noise, coarse)
        >>> round(law.sample(torch.ones(1, 1, 8), generator=torch.Generator().manual_seed(2)).mean().item(), 1)
        3.0
    """
    for part in _parts(law, detail, coarse):
        _solve(part, ridge)
    return law


@torch.no_grad()
def start_quadratic(
    law: LocalConditional,
    detail: Float[Tensor, "batch details *sites"],
    coarse: Float[Tensor, "batch channel *sites"],
    *,
    ridge: float = 1e-5,
) -> LocalConditional:
    r"""Give every part the Gaussian whose mean and log variance are the best of the form linear plus bent squares.

    $$ \mu_i = b + A u_i + \sum_j \beta_j q(w_j u_i), \qquad 2 s_i = b' + A' u_i + \sum_j \beta'_j q(w_j u_i), \qquad
       q(a) = a \tanh(a/2) $$

    Directions $w_j u$, as many as half of the width, are, for each site at most one away, near ones first: every detail
    $m$ there, or its best linear guess where it is not drawn yet; the surprise $g$ of the coarse field there, what it
    is more than all else that is seen lets expect; and the sums $g + m$; at the site itself the sums of all pairs of
    $m$, $g$, and the surprises of the details drawn there; and the $m$ of sites two away. To the first order beyond a
    Gaussian little more is needed for a field that is a bent Gaussian one: the mean of a block is bent by half the
    variance within, which $m^2$ mends, and to hold it fixed tilts the law of the details by a term $g\,m^2$, which
    moves their mean by $\propto g\,m$. The mean is solved by least squares, the log variance by Fisher scoring of the
    Gamma likelihood of the squared residuals. $q$ is a pair of hidden units, $\mathrm{silu}(a) + \mathrm{silu}(-a)$,
    so that training goes on from there. For three details in two dimensions all of these are 250 units; a narrower
    network begins with the nearest.

    Args:
        law: Changed in place; its head must be a ``SplineHead``, its networks of one hidden layer.
        detail: Samples.
        coarse: Their coarse fields.
        ridge: As for ``start_linear``.

    Raises:
        DataError: If the law's sites are no splines over a Gaussian, or its networks have more layers.

    Example: details as wide as the coarse field is far from its mean.
        >>> law = LocalConditional(1, 1, 1, SplineHead(), width=8, layers=1, symmetric=False)
        >>> g = torch.Generator().manual_seed(0)
        >>> coarse = torch.randn(2000, 1, 8, generator=g)
        >>> law = start_quadratic(law, coarse.abs() * torch.randn(2000, 1, 8, generator=g), coarse)
        >>> far, near = (law.sample(c * torch.ones(200, 1, 8), generator=g).std() for c in (2.0, 0.1))
        >>> bool(far > 3 * near)
        True
    """
    for part in _parts(law, detail, coarse):
        if len(part.net.hidden) > 0:
            raise DataError(f"a quadratic start needs networks of one hidden layer, got {len(part.net.hidden) + 1}")
        _solve_quadratic(part, ridge)
    return law


@torch.no_grad()
def start_positive(
    law: RelativeDetails,
    detail: Float[Tensor, "batch details *sites"],
    coarse: Float[Tensor, "batch 1 *sites"],
) -> bool:
    r"""Begin a fresh law of shares, in units of samples, in closed form: quadratic, or linear for deeper networks.

    Args:
        law: Changed in place, if what it is made of has such a start and has learned nothing yet.
        detail: Samples.
        coarse: Their coarse fields.

    Returns:
        Whether it was changed.
    """
    scaled = law.law
    local = scaled.law if isinstance(scaled, Standardised) else None
    if not isinstance(scaled, Standardised) or not isinstance(local, LocalConditional):
        return False
    nets = [net for net in local.nets.values() if isinstance(net, PatchNet)]
    fresh = not any(bool(part.weight.any()) for net in nets for part in (net.linear, net.last))
    if local.symmetric or not isinstance(local.head, SplineHead) or not fresh:
        return False
    law.standardise(detail, coarse)
    each = coarse[0, 0].numel() // math.prod(min(n, local.period) for n in coarse.shape[2:])
    number = max(2, ROWS // max(1, each))
    y, c = law.relative(detail[:number], coarse[:number])
    column = (-1, *[1] * local.dim)
    y = (y - scaled.centre.reshape(column)) / scaled.spread.reshape(column)
    c = (c - scaled.coarse_centre.reshape(column)) / scaled.coarse_spread.reshape(column)
    (start_linear if any(len(net.hidden) for net in nets) else start_quadratic)(local, y, c)
    return True


class _Part(NamedTuple):
    """One network, and what it is solved from.

    Attributes:
        net: Says the law of one channel of the details on one sublattice.
        channel: Which.
        seen: What it sees of each sample: (rows, inputs).
        value: The detail there: (rows,).
        around: Gives all details so many sites away and less, also those not drawn yet: (rows, details times patch).
    """

    net: PatchNet
    channel: int
    seen: Tensor
    value: Tensor
    around: Callable[[int], Tensor]


def _parts(law: LocalConditional, detail: Tensor, coarse: Tensor) -> Iterator[_Part]:
    """Every network in the order of the draw, with what it sees at each site of the samples."""
    if not isinstance(law.head, SplineHead):
        raise DataError(f"a start in closed form needs a head with a mean and a scale, got {type(law.head).__name__}")
    shape = tuple(coarse.shape[2:])
    known = torch.cat([coarse, torch.zeros_like(detail)], 1)
    for place in sublattices(shape, law.period):
        for channel in range(law.details):
            net = law.nets["_".join(map(str, (*place, channel)))]
            assert isinstance(net, PatchNet)
            part: tuple[slice | int, ...] = (slice(None), channel, *(slice(first, None, law.period) for first in place))
            seen = neighbourhoods(known, place, law.period, net.radius).flatten(0, -2)

            def around(reach: int, place: tuple[int, ...] = place) -> Tensor:
                return neighbourhoods(detail, place, law.period, reach).flatten(0, -2)

            yield _Part(net, channel, seen, detail[part].flatten(), around)
            known[:, coarse.shape[1] + channel][(slice(None), *part[2:])] = detail[part]


def _solve(part: _Part, ridge: float) -> None:
    net, seen, value = part.net, part.seen.double(), part.value.double()
    mean, centre = seen.mean(0), value.mean()
    covariance = (seen.T @ seen) / len(seen) - mean[:, None] * mean
    cross = (seen.T @ value) / len(seen) - mean * centre
    # A little more for every input: those not drawn yet are all zero, and would make the matrix singular.
    floor = ridge * covariance.diagonal().mean() + 1e-12
    weight = torch.linalg.solve(covariance + floor * torch.eye(len(mean), dtype=torch.float64), cross)
    rest = (value - centre - (seen - mean) @ weight).square().mean().clamp_min(1e-12)
    bias = net.linear.bias
    assert bias is not None
    net.linear.weight[0] = weight.to(net.linear.weight)
    bias[0] = centre - mean @ weight
    bias[1] = 4 * torch.atanh((rest.log() / 2 / 4).clamp(-0.999, 0.999))  # the head keeps scales within +-4


def _solve_quadratic(part: _Part, ridge: float) -> None:
    net, value = part.net, part.value.double()
    mean = part.seen.mean(0)
    x = part.seen - mean
    ways = _ways(x, part)
    along = x @ ways
    squares = along * torch.tanh(along / 2)
    spread = squares.std(0, correction=0).clamp_min(1e-12)
    squares = squares / spread
    middle = squares.mean(0)
    x = torch.cat([x, squares - middle], 1)
    solve = _least_squares(x, ridge)
    centre, slopes = value.mean(), solve(value)
    square = (value - centre - (x @ slopes.to(x)).double()).square()
    level, tilt = square.mean().log(), torch.zeros_like(slopes)
    for _ in range(ROUNDS):
        surprise = square * (-level - (x @ tilt.to(x)).double()).clamp(-6, 30).exp() - 1
        level, tilt = level + surprise.mean(), tilt + solve(surprise)
    # The head bends scales, 4 tanh(s / 4): undone at the middle of what it says.
    scale = (level / 2).clamp(-3.9, 3.9)
    stretch = 0.5 / (1 - (scale / 4) ** 2)
    net.linear.weight[2:], net.last.weight[:] = 0, 0
    inputs = len(mean)
    assert net.linear.bias is not None
    assert net.first.bias is not None
    number = ways.shape[1]
    for half, sign in ((slice(0, number), 1), (slice(number, 2 * number), -1)):
        net.first.weight[half] = sign * ways.T
        net.first.bias[half] = -sign * (mean @ ways)
    for row, (offset, a) in enumerate(((centre, slopes), (4 * torch.atanh(scale / 4), tilt * stretch))):
        net.linear.weight[row] = a[:inputs].to(x)
        net.linear.bias[row] = offset - a[:inputs] @ mean.double() - a[inputs:] @ middle.double()
        for half in (slice(0, number), slice(number, 2 * number)):
            net.last.weight[row, half] = (a[inputs:] / spread).to(x)


def _least_squares(x: Tensor, ridge: float) -> Callable[[Tensor], Tensor]:
    """Solves for the slopes of values along centred inputs."""
    value, axes = torch.linalg.eigh((x.T @ x).double() / len(x))
    floor = ridge * value.mean() + 1e-12
    inverse = (axes / (value.clamp_min(0.0) + floor)) @ axes.T  # inputs seen twice leave roundings below zero

    def solve(value: Tensor) -> Tensor:
        return inverse @ ((x.T @ value.to(x)).double() / len(x))

    return solve


def _ways(x: Tensor, part: _Part) -> Tensor:
    """Directions of centred inputs along which mean and variance bend: (inputs, number); see ``start_quadratic``."""
    net, inputs = part.net, x.shape[1]
    reach = min(2, net.radius)
    around = part.around(reach)
    sites = list(itertools.product(range(-reach, reach + 1), repeat=net.dim))
    patch, details = (2 * net.radius + 1) ** net.dim, around.shape[1] // len(sites)
    channels = inputs // patch - details
    # Channels of the coarse field may say nearly the same: their mean stands for them.
    mean = torch.eye(patch, dtype=torch.float64).repeat(channels, 1) / channels
    fold = torch.block_diag(mean, torch.eye(details * patch, dtype=torch.float64))
    covariance = (x.T @ x).double() / len(x)
    folded = fold.T @ covariance @ fold
    surprise = _inverse(folded)
    surprise = surprise / (surprise * (folded @ surprise)).sum(0).clamp_min(1e-12).sqrt()
    surprises = (fold @ surprise).unflatten(1, (1 + details, patch))
    around = around - around.mean(0)
    guess = (_inverse(covariance) @ ((x.T @ around).double() / len(x))).unflatten(1, (details, -1))
    found = []
    for site in sorted(sites, key=lambda site: (max(map(abs, site)), sum(map(abs, site)))):
        m, here = guess[:, :, _place(site, reach)], surprises[:, :, _place(site, net.radius)]
        if not any(site):
            forms = torch.cat([m, here[:, : 1 + part.channel]], 1)
            first, second = torch.triu_indices(forms.shape[1], forms.shape[1], 1)
            found += [forms, forms[:, first] + forms[:, second]]
        elif max(map(abs, site)) == 1:
            found += [m, here[:, :1], here[:, :1] + m]
        else:
            found.append(m)
    number = net.first.out_features // 2
    ways = torch.cat(found, 1)[:, :number].to(x)
    # What is hardly there is noise (a guess of nothing, inputs not drawn yet), and must not be blown up.
    spread = (x @ ways).square().mean(0).sqrt()
    ways = torch.where(spread > NOISE, ways * (BEND / spread), 0.0)
    return torch.cat([ways, ways.new_zeros(inputs, number - ways.shape[1])], 1)


def _place(site: tuple[int, ...], radius: int) -> int:
    """Where a site stands in the patch around its middle."""
    place = 0
    for offset in site:
        place = place * (2 * radius + 1) + offset + radius
    return place


def _inverse(covariance: Tensor) -> Tensor:
    """The pseudo-inverse: inputs not drawn yet, or seen twice around a small lattice, have no variance of their own."""
    value, axes = torch.linalg.eigh(covariance)
    kept = value > 1e-6 * value.mean()
    return (axes[:, kept] / value[kept]) @ axes[:, kept].T
