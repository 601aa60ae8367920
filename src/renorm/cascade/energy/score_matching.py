r"""Score matching in closed form: energies that are linear in their parameters need no sampling to be learned.

The parameters that bring the score of the model nearest to that of the law, in Fisher's divergence

$$ \min_\theta \tfrac12 \big\langle |\nabla_y E_\theta + \nabla_y \ln p(y \mid c)|^2 \big\rangle_p , \qquad
   M \theta = b, \qquad M = \langle \nabla_y U\, \nabla_y U^\top \rangle_p, \qquad b = \langle \Delta_y U \rangle_p, $$

which takes one integration by parts (Hyvärinen 2005). Gradients are those of renormalised details $y_a / \sigma_a$.
Functions of the coarse field alone have no gradient here: the energy is known up to one, $F(c)$, the free energy of the
step.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from renorm.cascade.energy.terms import Merged, Term
from renorm.coarse.base import CoarseGraining
from renorm.errors import DataError, RecipeError

__all__ = ["ScoreMoments", "merged", "projected", "score_moments", "solve_energy"]

CHUNK = 2**23
"""Entries of a Jacobian that is held at once."""


class ScoreMoments(NamedTuple):
    """M and b, averaged over the fields of each block.

    Attributes:
        gram: M, (blocks, terms, terms).
        laplacian: b, (blocks, terms).
    """

    gram: Float64[Tensor, "blocks terms terms"]
    laplacian: Float64[Tensor, "blocks terms"]


def merged(step: CoarseGraining, coarse: Tensor, detail: Tensor) -> Merged:
    """Coarse field and detail with the field that they make."""
    return Merged(coarse, detail, step.merge(coarse, detail))


def projected(step: CoarseGraining, gradient: Tensor) -> Tensor:
    r"""The gradient in the detail, $\nabla_y = W_y \nabla_\phi$: the step is orthonormal."""
    return step.split(gradient).detail


def unit_details(
    step: CoarseGraining, coarse: Tensor, scale: Float[Tensor, " details"], sites: Sequence[int], start: int, stop: int
) -> Merged:
    r"""$\sigma_a e_{ai}$ for the entries start ... stop - 1 of a detail, the coarse field zero.

    Raises:
        RecipeError: If the step is not linear and orthonormal.
    """
    size = math.prod(sites)
    index = torch.arange(start, stop)
    detail = coarse.new_zeros(stop - start, len(scale) * size)
    detail[torch.arange(stop - start), index] = scale.to(detail)[index // size]
    detail = detail.reshape(stop - start, len(scale), *sites)
    units = merged(step, coarse.new_zeros(stop - start, *coarse.shape[1:]), detail)
    norms, wanted = (x.flatten(1).square().sum(1) for x in (units.field, units.detail))
    if not torch.allclose(norms, wanted, rtol=1e-4):
        raise RecipeError(
            "local energies need a linear, orthonormal step (gradients are projected by it), got one that changes the "
            f"square of a unit detail by {float((norms / wanted - 1).abs().max()):.3g}; take a wavelet"
        )
    return units


def score_moments(
    step: CoarseGraining,
    terms: Sequence[Term],
    coarse: Float[Tensor, "batch channel *sites"],
    detail: Float[Tensor, "batch details *sites"],
    *,
    scale: Float[Tensor, " details"] | None = None,
    blocks: int = 1,
) -> ScoreMoments:
    r"""M and b over samples, in float64.

    Args:
        step: What split the fields; orthonormal.
        terms: Of the energy.
        coarse, detail: Samples, those of one Markov chain next to each other where blocks are to be independent.
        scale: $\sigma_a$ of each detail channel; by default its standard deviation.
        blocks: Runs of samples that are averaged apart, for a jackknife.

    Raises:
        DataError: If there are fewer samples than blocks, or a value is not finite.
        RecipeError: If the step is not orthonormal.

    Example: a chain of independent sites of variance 4, whose energy is $y^2/8$.
        >>> from renorm.cascade.energy.terms import Monomials
        >>> from renorm.coarse.wavelet import Wavelet
        >>> x = 2 * torch.randn(20000, 1, 2, generator=torch.Generator().manual_seed(0))
        >>> coarse, detail, _ = Wavelet(dim=1).split(x)
        >>> moments = score_moments(Wavelet(dim=1), [Monomials((2,))], coarse, detail)
        >>> abs(solve_energy(moments.gram[0], moments.laplacian[0]).item() - 1 / 8) < 0.003
        True
    """
    if not 1 <= blocks <= len(detail):
        raise DataError(f"every block needs at least 1 sample: ask for 1 to {len(detail)} blocks, got {blocks}")
    if not (bool(coarse.isfinite().all()) and bool(detail.isfinite().all())):
        raise DataError("samples must be finite (one nan would spoil every mean), got nan or inf")
    sites = tuple(detail.shape[2:])
    if scale is None:
        scale = detail.double().square().mean((0, *range(2, detail.ndim))).sqrt()
    traces = _traces(step, terms, coarse[:1].double(), scale, sites)
    count = sum(len(term.names) for term in terms)
    rows = max(1, CHUNK // (count * detail[0].numel()))
    gram, laplacian = [], []
    for c_block, y_block in zip(coarse.tensor_split(blocks), detail.tensor_split(blocks), strict=True):
        m, b = torch.zeros(count, count, dtype=torch.float64), torch.zeros(count, dtype=torch.float64)
        for c, y in zip(c_block.split(rows), y_block.split(rows), strict=True):
            parts = merged(step, c.double(), y.double())
            jacobian = torch.cat([_detail_jacobian(step, term, parts, scale) for term in terms], 1)
            m += torch.einsum("nik,njk->ij", jacobian, jacobian)
            b += torch.cat([term.laplacian(parts, t) for term, t in zip(terms, traces, strict=True)], 1).sum(0)
        gram.append(m / len(y_block))
        laplacian.append(b / len(y_block))
    return ScoreMoments(torch.stack(gram), torch.stack(laplacian))


def solve_energy(
    gram: Float64[Tensor, "*blocks terms terms"], laplacian: Float64[Tensor, "*blocks terms"], *, ridge: float = 1e-10
) -> Float64[Tensor, "*blocks terms"]:
    r"""$\theta = M^{-1} b$, after every term is brought to $M_{mm} = 1$.

    Args:
        gram: M.
        laplacian: b.
        ridge: Added to the diagonal then: 1e-6 for terms that nearly say the same, 1e-10 for a few that do not.

    Raises:
        DataError: If a term never moves with the details ($M_{mm} = 0$).

    Example:
        >>> solve_energy(torch.tensor([[4.0]]).double(), torch.tensor([2.0]).double())
        tensor([0.5000], dtype=torch.float64)
    """
    diagonal = gram.diagonal(dim1=-2, dim2=-1)
    if not bool((diagonal > 0).all()):
        raise DataError("every term must move with the details (M_mm > 0) to be learned, got one that does not")
    norm = diagonal.rsqrt()
    matrix = norm[..., :, None] * gram * norm[..., None, :]
    eye = torch.eye(matrix.shape[-1], dtype=matrix.dtype)
    return norm * torch.linalg.solve(matrix + ridge * eye, norm * laplacian)


def _detail_jacobian(step: CoarseGraining, term: Term, parts: Merged, scale: Tensor) -> Tensor:
    """(batch, terms, entries of a renormalised detail)."""
    each = term.jacobian(parts)
    if term.on_field:
        each = projected(step, each.flatten(0, 1)).unflatten(0, each.shape[:2])
    return (each * scale.double().reshape(-1, *[1] * (each.ndim - 3))).flatten(2)


def _traces(
    step: CoarseGraining, terms: Sequence[Term], coarse: Tensor, scale: Tensor, sites: tuple[int, ...]
) -> list[Tensor]:
    size = len(scale) * math.prod(sites)
    rows = max(1, CHUNK // (size * 4))
    totals: list[Tensor] = []
    for start in range(0, size, rows):
        units = unit_details(step, coarse, scale, sites, start, min(size, start + rows))
        found = [term.trace(units) for term in terms]
        totals = found if not totals else [a + b for a, b in zip(totals, found, strict=True)]
    return totals
