"""Where the training of a local law begins: at the best linear or quadratic one, found in closed form."""

import math
from collections.abc import Callable, Iterator

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
    for net, seen, value in _nets(law, detail, coarse):
        _solve(net, seen, value, ridge)
    return law


@torch.no_grad()
def start_quadratic(
    law: LocalConditional,
    detail: Float[Tensor, "batch details *sites"],
    coarse: Float[Tensor, "batch channel *sites"],
    *,
    ridge: float = 1e-4,
) -> LocalConditional:
    r"""Give every part the Gaussian whose mean and log variance are the best of the form linear plus bent squares.

    $$ \mu_i = b + A u_i + \sum_j \beta_j q(w_j u_i), \qquad 2 s_i = b' + A' u_i + \sum_j \beta'_j q(w_j u_i), \qquad
       q(a) = a \tanh(a/2) $$

    The directions $w_j$, as many as half of the width, are the principal Hessian directions of the residual $r$ of the
    linear mean and of its square: eigenvectors of $\langle r\,u u^T\rangle$ and $\langle r^2 u u^T\rangle$ for whitened
    inputs at most one site away, which for Gaussian inputs are the mean Hessians of $\mu$ and of the variance (Stein).
    The mean is solved by least squares, the log variance by Fisher scoring of the Gamma likelihood of $r^2$. $q$ is
    a pair of hidden units, $\mathrm{silu}(a) + \mathrm{silu}(-a)$, so that training goes on from there.

    Args:
        law: Changed in place; its head must be a ``SplineHead``, its networks of one hidden layer.
        detail: Samples.
        coarse: Their coarse fields.
        ridge: As for ``start_linear``.

    Raises:
        DataError: If the law's sites are no splines over a Gaussian, or its networks have more layers.

    Source:
        Li 1992, J. Am. Stat. Assoc. 87:1025 (principal Hessian directions).

    Example: details as wide as the coarse field is far from its mean.
        >>> law = LocalConditional(1, 1, 1, SplineHead(), width=8, layers=1, symmetric=False)
        >>> g = torch.Generator().manual_seed(0)
        >>> coarse = torch.randn(2000, 1, 8, generator=g)
        >>> law = start_quadratic(law, coarse.abs() * torch.randn(2000, 1, 8, generator=g), coarse)
        >>> far, near = (law.sample(c * torch.ones(200, 1, 8), generator=g).std() for c in (2.0, 0.1))
        >>> bool(far > 3 * near)
        True
    """
    for net, seen, value in _nets(law, detail, coarse):
        if len(net.hidden) > 0:
            raise DataError(f"a quadratic start needs networks of one hidden layer, got {len(net.hidden) + 1}")
        _solve_quadratic(net, seen, value, ridge)
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


def _nets(law: LocalConditional, detail: Tensor, coarse: Tensor) -> Iterator[tuple[PatchNet, Tensor, Tensor]]:
    """Every part's network, what it sees at each site of the samples, and the values there."""
    if not isinstance(law.head, SplineHead):
        raise DataError(f"a start in closed form needs a head with a mean and a scale, got {type(law.head).__name__}")
    shape = tuple(coarse.shape[2:])
    known = torch.cat([coarse, torch.zeros_like(detail)], 1)
    for place in sublattices(shape, law.period):
        for channel in range(law.details):
            net = law.nets["_".join(map(str, (*place, channel)))]
            assert isinstance(net, PatchNet)
            part: tuple[slice | int, ...] = (slice(None), channel, *(slice(first, None, law.period) for first in place))
            yield net, neighbourhoods(known, place, law.period, net.radius).flatten(0, -2), detail[part].flatten()
            known[:, coarse.shape[1] + channel][(slice(None), *part[2:])] = detail[part]


def _solve(net: PatchNet, seen: Tensor, value: Tensor, ridge: float) -> None:
    seen, value = seen.double(), value.double()
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


def _solve_quadratic(net: PatchNet, seen: Tensor, value: Tensor, ridge: float) -> None:
    mean = seen.double().mean(0).to(seen)
    x, value = seen - mean, value.double()
    first = _least_squares(x, ridge)
    rest = value - value.mean() - (x @ first(value).to(x)).double()
    ways = _hessian_directions(x, rest, net)
    along = x @ ways
    squares = along * torch.tanh(along / 2)
    middle = squares.double().mean(0)
    x = torch.cat([x, squares - middle.to(x)], 1)
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
        net.linear.weight[row] = a[:inputs].to(seen)
        net.linear.bias[row] = offset - a[:inputs] @ mean.double() - a[inputs:] @ middle
        for half in (slice(0, number), slice(number, 2 * number)):
            net.last.weight[row, half] = a[inputs:].to(seen)


def _least_squares(x: Tensor, ridge: float) -> Callable[[Tensor], Tensor]:
    """Solves for the slopes of values along centred inputs."""
    covariance = (x.T @ x).double() / len(x)
    floor = ridge * covariance.diagonal().mean() + 1e-12
    factor = torch.linalg.cholesky(covariance + floor * torch.eye(len(covariance), dtype=torch.float64))

    def solve(value: Tensor) -> Tensor:
        return torch.cholesky_solve((x.T @ value.to(x)).double()[:, None] / len(x), factor)[:, 0]

    return solve


def _hessian_directions(x: Tensor, rest: Tensor, net: PatchNet) -> Tensor:
    """Directions of inputs of unit variance along which the mean and the variance of a residual bend most."""
    edge = 2 * net.radius + 1
    near = torch.zeros(net.linear.in_features // edge**net.dim, *[edge] * net.dim, dtype=torch.bool)
    near[(slice(None), *[slice(net.radius - 1, net.radius + 2)] * net.dim)] = True
    chosen = near.flatten().nonzero()[:, 0]
    u = x[:, chosen]
    variance, axes = torch.linalg.eigh((u.T @ u).double() / len(u))
    kept = variance > 1e-3 * variance.mean()
    white = axes[:, kept] / variance[kept].sqrt()
    u = u @ white.to(u)
    unit = rest / rest.square().mean().sqrt()
    ways = []
    for bend in (unit, unit.square() - 1):
        bend = bend - bend.mean()
        value, vector = torch.linalg.eigh((u.T @ (u * bend.to(u)[:, None])).double() / len(u))
        ways.append(vector[:, value.abs().argsort(descending=True)[: net.first.out_features // 4]])
    found = torch.zeros(x.shape[1], sum(way.shape[1] for way in ways), dtype=torch.float64)
    found[chosen] = white @ torch.cat(ways, 1)
    return found.to(x)
