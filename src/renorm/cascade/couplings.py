r"""Couplings of the effective theory at each level, and how they answer to each other.

A cascade knows the law of its coarse fields, $\ln q_l(\phi_l)$, so their action is known; couplings are its projection
on a few interactions. The stability matrix needs no action, only fields and their coarse fields.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from renorm.cascade.cascade import Cascade
from renorm.cascade.interactions import EVEN, Interaction, measure
from renorm.cascade.weighing import ROWS
from renorm.errors import DataError
from renorm.measure.statistics import Estimate, jackknife

__all__ = ["Exponents", "LevelCouplings", "couplings", "exponents", "rg_flow", "stability_matrix"]

BLOCKS = 50  # of the jackknife


def couplings(
    log_density: Float[Tensor, " num"],
    sums: Float[Tensor, "num interactions"],
    log_weights: Float[Tensor, " num"] | None = None,
) -> Estimate:
    r"""Couplings that come nearest to a law, in the mean square over its own fields.

    $$ \min_{K, c}\; \Big\langle \Big(\ln p(\phi) - c - \sum_a K_a O_a(\phi)\Big)^2 \Big\rangle \quad\Rightarrow\quad
       K = \langle O O^\top \rangle_c^{-1} \langle O \ln p \rangle_c $$

    Args:
        log_density: Of each field, in nats, up to a constant.
        sums: The interactions of each field, see ``interactions.measure``.
        log_weights: Of the fields, where they were drawn from another law.

    Returns:
        One coupling for each interaction, with its jackknife error.

    Raises:
        DataError: If there are too few fields for so many interactions, or the interactions depend on each other.

    Example: spins of an Ising model give back their coupling.
        >>> from renorm.cascade.interactions import EVEN
        >>> from renorm.laws.ising import Ising
        >>> law = Ising((4, 4), beta=0.3)
        >>> states = law.enumerate()
        >>> found = couplings(-law(states.states).double(), measure(states.states, EVEN[:3]), states.log_prob)
        >>> [round(k, 6) + 0.0 for k in found.value.tolist()]
        [0.3, 0.0, 0.0]
    """
    num, count = sums.shape
    if num < 4 * (count + 1):
        raise DataError(f"{count} couplings need at least {4 * (count + 1)} fields, got {num}")
    y = torch.cat([sums.double(), log_density.double()[:, None]], 1)
    y = y - y.mean(0)  # products of large sums would lose their digits
    products = torch.cat([y, (y[:, :, None] * y[:, None, :]).flatten(1)], 1)

    def solve(mean: Tensor) -> Tensor:
        first, second = mean[..., : count + 1], mean[..., count + 1 :].unflatten(-1, (count + 1, count + 1))
        covariance = second - first[..., :, None] * first[..., None, :]
        return _solve(covariance[..., :count, :count], covariance[..., :count, count:])[..., 0]

    return jackknife(products, solve, blocks=min(BLOCKS, num), log_weights=log_weights)


@dataclass(frozen=True)
class LevelCouplings:
    """The effective theory of one level.

    Attributes:
        level: Which.
        names: Of the interactions.
        couplings: One each, with errors.
        explained: Share of the variance of the action that they account for; 1: these interactions are all there are.
    """

    level: int
    names: tuple[str, ...]
    couplings: Estimate
    explained: float


@torch.no_grad()
def rg_flow(
    model: Cascade,
    num: int,
    *,
    generator: torch.Generator,
    interactions: tuple[Interaction, ...] = EVEN[:4],
    smallest: int = 4,
) -> list[LevelCouplings]:
    r"""Couplings at every level whose fields live on a straight square lattice: the flow of the renormalization group.

    Args:
        model: A cascade of fields of one channel in two dimensions, with a density.
        num: Fields drawn at each level.
        generator: Source of randomness.
        interactions: Between which sites.
        smallest: Levels on fewer sites on an axis are left out: on them interactions are the same sums.

    Raises:
        DataError: If no level is left.
        NoLikelihoodError: If the cascade's densities are not exact.

    Example:
        >>> from renorm.cascade.checkerboards import checkerboard_cascade
        >>> from renorm.cascade.conditionals.heads import SpinHead
        >>> from renorm.cascade.conditionals.site_laws import IsingSite
        >>> model = checkerboard_cascade(8, IsingSite(0.0), SpinHead())  # independent spins
        >>> flow = rg_flow(model, 100, generator=torch.Generator().manual_seed(0))
        >>> [(each.level, float(each.couplings.value.abs().max()) < 1e-6) for each in flow]
        [(0, True), (2, True)]
    """
    model.require_density()
    found = []
    for index, lattice in enumerate(model.lattices):
        if lattice.dim != 2 or lattice.channels != 1 or min(lattice.shape) < smallest:
            continue
        drawn = []
        for start in range(0, num, ROWS):
            x = model.sample(min(ROWS, num - start), generator=generator, level=index)
            drawn.append((model.log_prob_level(x, index), measure(x, interactions)))
        log_density, sums = (torch.cat(part) for part in zip(*drawn, strict=True))
        estimate = couplings(log_density, sums)
        rest = log_density.double() - sums @ estimate.value
        spread = float(log_density.double().var())
        explained = 1 - float(rest.var()) / spread if spread > 0 else 1.0
        found.append(LevelCouplings(index, tuple(each.name for each in interactions), estimate, explained))
    if not found:
        raise DataError(f"no level has one channel on a square lattice of at least {smallest} sites an axis")
    return found


def stability_matrix(
    fine: Float[Tensor, "num interactions"],
    coarse: Float[Tensor, "num_coarse coarse_interactions"],
    function: Callable[[Tensor], Tensor] | None = None,
) -> Estimate:
    r"""How couplings of the coarse theory answer to those of the fine one, from fields alone (Swendsen's method).

    $$ T_{ab} = \frac{\partial K'_a}{\partial K_b}, \qquad
       \langle O'_c\, O_b \rangle_c = \sum_a \langle O'_c\, O'_a \rangle_c\, T_{ab} $$

    Args:
        fine: Interactions of each fine field.
        coarse: The same interactions of its coarse field.
        function: Of matrices (..., a, b), several at once; the matrix itself if not given. Errors are of what it
            gives.

    Raises:
        DataError: If there are too few fields, or the coarse interactions depend on each other.

    Source:
        Swendsen 1979, Phys. Rev. Lett. 42, 859.

    Example: decimation of independent spins leaves nothing of their couplings, but all of a field.
        >>> from renorm.cascade.interactions import ODD
        >>> x = torch.randint(2, (4000, 1, 4, 4), generator=torch.Generator().manual_seed(0)) * 2.0 - 1
        >>> T = stability_matrix(measure(x, ODD[:1]), measure(x[..., ::2, ::2], ODD[:1]))
        >>> bool((T.value - 1).abs() < 4 * T.error)
        True
    """
    num, count = fine.shape
    if coarse.shape != fine.shape:
        raise DataError(f"fine and coarse sums come in pairs, got {tuple(fine.shape)} and {tuple(coarse.shape)}")
    if num < 8 * count:
        raise DataError(f"a stability matrix of {count} interactions needs at least {8 * count} fields, got {num}")
    both = torch.cat([coarse.double(), fine.double()], 1)
    both = both - both.mean(0)
    products = torch.cat([both, (both[:, :count, None] * both[:, None, :]).flatten(1)], 1)

    def solve(mean: Tensor) -> Tensor:
        first, second = mean[..., : 2 * count], mean[..., 2 * count :].unflatten(-1, (count, 2 * count))
        covariance = second - first[..., :count, None] * first[..., None, :]
        matrix = _solve(covariance[..., :count], covariance[..., count:])
        return matrix if function is None else function(matrix)

    return jackknife(products, solve, blocks=min(BLOCKS, num))


@dataclass(frozen=True)
class Exponents:
    r"""Leading eigenvalues $\lambda = b^y$ of the stability matrix, as exponents.

    Attributes:
        leading: y of the largest eigenvalue.
        next: y of the second, where there are two interactions.
    """

    leading: Estimate
    next: Estimate | None


def exponents(
    fine: Float[Tensor, "num interactions"], coarse: Float[Tensor, "num interactions"], *, factor: float = 2.0
) -> Exponents:
    r"""Exponents of a fixed point, $y = \ln\lambda / \ln b$: of even interactions $y_t = 1/\nu$, of odd ones $y_h$.

    Args:
        fine, coarse: As for ``stability_matrix``.
        factor: b, by which the step makes the lattice coarser.

    Example: a field on independent spins, halved on both axes: it grows by 4 sites, and shrinks by decimation.
        >>> from renorm.cascade.interactions import ODD
        >>> x = torch.randint(2, (4000, 1, 4, 4), generator=torch.Generator().manual_seed(0)) * 2.0 - 1
        >>> y = exponents(measure(x, ODD[:1]), measure(x[..., ::2, ::2], ODD[:1])).leading
        >>> bool(y.value.abs() < 4 * y.error)
        True
    """

    def magnitudes(matrix: Tensor) -> Tensor:
        found = torch.linalg.eigvals(matrix).abs().sort(dim=-1, descending=True).values[..., :2]
        return found.clamp(min=1e-300).log() / math.log(factor)

    estimate = stability_matrix(fine, coarse, magnitudes)
    each = [Estimate(value, error) for value, error in zip(estimate.value, estimate.error, strict=True)]
    return Exponents(each[0], each[1] if len(each) > 1 else None)


def _solve(matrix: Tensor, right: Tensor) -> Tensor:
    scale = matrix.diagonal(dim1=-2, dim2=-1).clamp(min=0).sqrt()[..., None]
    correlation = matrix / scale / scale.mT
    if not bool(torch.isfinite(correlation).all()) or float(torch.linalg.eigvalsh(correlation).min()) < 1e-10:
        raise DataError(
            "the interactions must not depend on each other (on a small lattice several are the same sum); take fewer, "
            "or larger fields"
        )
    return torch.linalg.solve(correlation, right / scale) / scale
