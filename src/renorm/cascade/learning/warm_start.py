"""Where the training of a local law begins: at the best linear one, which is found in closed form."""

import torch
from jaxtyping import Float
from torch import Tensor

from renorm.cascade.conditionals.heads import SplineHead
from renorm.cascade.conditionals.local import LocalConditional, sublattices
from renorm.errors import DataError
from renorm.nn.patch import PatchNet, patches

__all__ = ["start_linear"]


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
    if not isinstance(law.head, SplineHead):
        raise DataError(f"a linear start needs a head with a mean and a scale, got {type(law.head).__name__}")
    shape = tuple(coarse.shape[2:])
    known = torch.cat([coarse, torch.zeros_like(detail)], 1)
    for place in sublattices(shape, law.period):
        for channel in range(law.details):
            net = law.nets["_".join(map(str, (*place, channel)))]
            assert isinstance(net, PatchNet)
            part: tuple[slice | int, ...] = (slice(None), channel, *(slice(first, None, law.period) for first in place))
            _solve(net, _seen(known, place, law.period, net.radius), detail[part].flatten(), ridge)
            known[:, coarse.shape[1] + channel][(slice(None), *part[2:])] = detail[part]
    return law


def _seen(known: Tensor, place: tuple[int, ...], period: int, radius: int) -> Tensor:
    """One row for each chosen site: what a convolution there multiplies its kernel with."""
    x = patches(known, place, period, radius)
    dim = known.ndim - 2
    for axis in range(dim):
        x = x.unfold(axis + 2, 2 * radius + 1, period)
    sites = range(2, 2 + dim)
    return x.permute(0, *sites, 1, *range(2 + dim, 2 + 2 * dim)).reshape(-1, known.shape[1] * (2 * radius + 1) ** dim)


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
    net.linear.weight[0] = weight.reshape(net.linear.weight[0].shape).to(net.linear.weight)
    bias[0] = centre - mean @ weight
    bias[1] = 4 * torch.atanh((rest.log() / 2 / 4).clamp(-0.999, 0.999))  # the head keeps scales within +-4
