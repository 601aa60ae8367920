r"""Couplings of an action, read off its finest conditional: what the details say of it.

The conditional of the finest step is $p(y \mid c) \propto e^{-S(\phi)}$ at $\phi = W^\top(c, y)$, for whatever depends
on c alone cancels. So its energy is the action itself, in the gauge of the action: an operator is seen by how it moves
with the details, and no law of the coarse field is needed, where the long wavelengths are. What is given back,

$$ K = \arg\min_K \big\langle |\nabla_y (E(y \mid c) - \textstyle\sum_a K_a O_a(\phi))|^2 \big\rangle, $$

is the projection of the conditional energy on the operators asked for. It is the closed form of score matching in
these operators alone: score matching in a larger basis that holds them, projected on them, is score matching in them.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from renorm.cascade.energy.score_matching import score_moments, solve_energy
from renorm.cascade.energy.stencils import FieldStencil
from renorm.cascade.energy.terms import Monomials, Term
from renorm.coarse.base import CoarseGraining
from renorm.measure.statistics import Estimate, jackknife

__all__ = ["couplings", "phi4_couplings", "phi4_terms"]


def phi4_terms(dim: int = 2, *, reach: int = 1) -> list[Term]:
    r"""$\sum\phi^2$, products of sites up to a distance, $\sum\phi^4$.

    Args:
        dim: Axes of the lattice.
        reach: 1: nearest neighbours alone, ``neighbours``. 2: also ``diagonals`` and ``second`` (two sites along an
            axis), and $\phi^6$: couplings that $\phi^4$ does not have.

    Example:
        >>> [name for term in phi4_terms() for name in term.names]
        ['phi^2', 'neighbours', 'phi^4']
    """
    axes = [tuple(int(i == axis) for i in range(dim)) for axis in range(dim)]
    groups = {"phi^2": [(0,) * dim], "neighbours": axes}
    if reach > 1:
        pairs = [(a, b) for i, a in enumerate(axes) for b in axes[:i]]
        diagonal = [tuple(x + sign * y for x, y in zip(a, b, strict=True)) for a, b in pairs for sign in (1, -1)]
        groups |= {"diagonals": diagonal} if diagonal else {}
        groups["second"] = [tuple(2 * n for n in axis) for axis in axes]
    return [FieldStencil(groups), Monomials((4, 6) if reach > 1 else (4,))]


def couplings(
    step: CoarseGraining,
    terms: Sequence[Term],
    coarse: Float[Tensor, "batch channel *sites"],
    detail: Float[Tensor, "batch details *sites"],
    *,
    blocks: int = 50,
    ridge: float = 1e-10,
) -> dict[str, Estimate]:
    r"""Coefficients of operators in the conditional energy, with jackknife errors.

    Args:
        step: What split the fields.
        terms: The operators.
        coarse, detail: Samples, those of one Markov chain next to each other.
        blocks: Of the jackknife; longer than the memory of the chains.
        ridge: See `solve_energy`.

    Returns:
        Name of the operator -> coefficient, in nats.

    Raises:
        DataError: If there are fewer samples than blocks, or a value is not finite.

    Example: a free field of mass 1 on a chain, $\tfrac12 (m^2 + 2) \phi^2 - \phi_x \phi_{x+1}$.
        >>> from renorm.coarse.wavelet import Wavelet
        >>> from renorm.laws.gaussian_field import GaussianField
        >>> x = GaussianField((16,), 1.0).sample(2000, generator=torch.Generator().manual_seed(0))
        >>> coarse, detail, _ = Wavelet(dim=1).split(x)
        >>> found = couplings(Wavelet(dim=1), phi4_terms(1)[:1], coarse, detail)
        >>> [bool((found[k].value - v).abs() < 4 * found[k].error) for k, v in {"phi^2": 1.5, "neighbours": -1}.items()]
        [True, True]
    """
    moments = score_moments(step, terms, coarse, detail, blocks=blocks)
    count = moments.laplacian.shape[1]
    flat = torch.cat([moments.laplacian, moments.gram.flatten(1)], 1)

    def solved(means: Tensor) -> Tensor:
        return solve_energy(means[:, count:].reshape(-1, count, count), means[:, :count], ridge=ridge)

    found = jackknife(flat, solved)
    names = [name for term in terms for name in term.names]
    return {name: Estimate(found.value[m], found.error[m]) for m, name in enumerate(names)}


def phi4_couplings(
    step: CoarseGraining,
    x: Float[Tensor, "batch 1 *sites"],
    *,
    reach: int = 1,
    blocks: int = 50,
) -> dict[str, Estimate]:
    r"""$\beta$ and $\lambda$ of lattice $\phi^4$ from samples, in the convention of Kaupužs,

    $$ S = -\beta \sum_{\langle xy \rangle} \phi_x \phi_y + \sum_x \big[c_2 \phi_x^2 + \lambda \phi_x^4\big], \qquad
       c_2 = 1 - 2\lambda \text{, which is not used} . $$

    Args:
        step: An orthonormal step of the fine lattice, say ``Wavelet()``.
        x: Samples, those of one Markov chain next to each other.
        reach: See `phi4_terms`; with 2 the couplings that should be zero are given too.
        blocks: Of the jackknife.

    Returns:
        ``beta``, ``lambda``, ``c2``, and the other couplings by the names of their operators.

    Source:
        Marchand, Ozawa, Biroli, Mallat 2022, arXiv:2207.04941; Guth, Lempereur, Bruna, Mallat 2023, arXiv:2306.00181.

    Example:
        >>> from renorm.coarse.wavelet import Wavelet
        >>> from renorm.laws.phi4 import Phi4
        >>> from renorm.laws.simulate import simulate
        >>> x = simulate(Phi4.kaupuzs((8, 8), 0.5), 500, generator=torch.Generator().manual_seed(0))
        >>> found = phi4_couplings(Wavelet(), x)
        >>> bool((found["beta"].value - 0.5).abs() < 4 * found["beta"].error)
        True
    """
    coarse, detail, _ = step.split(x)
    found = couplings(step, phi4_terms(x.ndim - 2, reach=reach), coarse, detail, blocks=blocks)
    bond = found.pop("neighbours")
    first = {"beta": Estimate(-bond.value, bond.error), "lambda": found.pop("phi^4"), "c2": found.pop("phi^2")}
    return first | found
