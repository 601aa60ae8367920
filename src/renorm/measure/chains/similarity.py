r"""How like a chain is to its reference: TM-score, GDT, lDDT; all in [0, 1], and 1 for the reference itself.

TM-score and GDT are the best over all superpositions, found by a search (`renorm.measure.chains.search`): what is
given is a lower bound, as with every program. lDDT needs no superposition. Residues are matched by their place; where
it says nothing, `renorm.measure.chains.alignment` matches them.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from renorm.errors import DataError
from renorm.measure.chains.search import square_distances, visits
from renorm.measure.chains.superposition import matched

__all__ = ["gdt", "gdt_ha", "gdt_ts", "lddt", "tm_distance", "tm_score"]

KEPT = 8  # superpositions that are polished
GAIN = 1e-9  # polishing ends where a round gains less,
POLISH = 500  # or after as many rounds


def tm_distance(length: int) -> float:
    r"""The distance at which a residue counts half in a TM-score, $d_0 = 1.24\,(L - 15)^{1/3} - 1.8$ A, at least 0.5.

    Args:
        length: Residues of the reference, $L$.

    Returns:
        The distance in angstrom.

    Example:
        >>> round(tm_distance(142), 4), tm_distance(15)
        (4.4329, 0.5)
    """
    return max(0.5, 1.24 * max(length - 15, 0) ** (1 / 3) - 1.8)


def tm_score(
    x: Float[Tensor, "*#batch n 3"],
    y: Float[Tensor, "*#batch n 3"],
    *,
    mask: Bool[Tensor, "*#batch n"] | None = None,
    length: int | None = None,
    stride: int = 1,
) -> Float64[Tensor, "*batch"]:
    r"""TM-score of matched residues: the largest mean of a bell of the distances, over superpositions.

    $$ \mathrm{TM} = \max_{R, t} \frac1L \sum_i \frac{1}{1 + d_i^2 / d_0^2}, \qquad d_i = |R x_i + t - y_i| $$

    with $d_0(L)$ of `tm_distance`. Two chains that have nothing to do with each other are near 0.17, two of one fold
    above 0.5. After the search of Zhang and Skolnick the best superpositions climb to their maximum: with weights
    $w_i = (1 + d_i^2 / d_0^2)^{-2}$ the best weighted superposition never scores less, since the bell is convex in
    $d_i^2$.

    Args:
        x: Places in angstrom, a chain or a batch of chains.
        y: The references, as many, or one.
        mask: Residues that count; not given: all.
        length: $L$, residues of the reference; not given: those that count.
        stride: Residues between the starts of seed fragments. More is faster, and may miss the best.

    Returns:
        One score a chain, in (0, 1]; more than 1 only where ``length`` is less than the residues that count.

    Raises:
        DataError: If the chains do not match, fewer than 3 residues count, or ``length`` or ``stride`` is not
            positive.

    Invariant:
        Rotations and shifts of either chain change nothing; with ``length`` not given, exchanging the two neither.

    Source:
        Zhang & Skolnick 2004, "Scoring function for automated assessment of protein structure template quality".

    Example:
        >>> x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)).cumsum(0) * 2
        >>> round(float(tm_score(x.roll(1, 1), x)), 6), bool(tm_score(-x, x) < 0.6)  # turned, mirrored
        (1.0, True)
    """
    if length is not None and length < 1:
        raise DataError(f"the length of the reference must be >= 1 (scores are divided by it), got {length}")

    def score(a: Tensor, b: Tensor) -> Tensor:
        return _best_mean(a, b, len(a) if length is None else length, stride)

    return _for_each(x, y, mask, stride, score)


def gdt(
    x: Float[Tensor, "*#batch n 3"],
    y: Float[Tensor, "*#batch n 3"],
    *,
    cutoffs: Sequence[float] = (1.0, 2.0, 4.0, 8.0),
    mask: Bool[Tensor, "*#batch n"] | None = None,
    length: int | None = None,
    stride: int = 1,
) -> Float64[Tensor, "*batch cutoffs"]:
    r"""Global distance test: the largest share of residues that one superposition brings within each cut-off.

    $$ G_c = \max_{R, t} \frac1L \sum_i [\, |R x_i + t - y_i| \le c \,] $$

    Every cut-off has its own best superposition. For each, the seeds are refined on the residues within that cut-off,
    and all cut-offs look at all superpositions.

    Args:
        cutoffs: In angstrom.
        mask: Residues that count; not given: all.
        length: $L$, residues of the reference; not given: those that count.
        stride: Residues between the starts of seed fragments.

    Returns:
        A share for each cut-off.

    Raises:
        DataError: As `tm_score`, or if there is no cut-off, or one is not positive.

    Source:
        Zemla 2003, "LGA: a method for finding 3D similarities in protein structures".

    Example:
        >>> x = torch.randn(20, 3, generator=torch.Generator().manual_seed(0)).cumsum(0) * 3
        >>> y = x.clone()
        >>> y[15:] += 50.0  # the last quarter is elsewhere
        >>> gdt(x, y, cutoffs=(1.0, 8.0))
        tensor([0.7500, 0.7500], dtype=torch.float64)
    """
    if not cutoffs or min(cutoffs) <= 0:
        raise DataError(f"a distance test needs cut-offs > 0 in angstrom, got {list(cutoffs)}")
    if length is not None and length < 1:
        raise DataError(f"the length of the reference must be >= 1 (scores are divided by it), got {length}")

    def shares(a: Tensor, b: Tensor) -> Tensor:
        most = torch.zeros(len(cutoffs), dtype=torch.int64)
        for radius in cutoffs:
            for squares in visits(a, b, first=radius, then=radius, stride=stride):
                counts = torch.stack([(squares <= cutoff**2).sum(1).max() for cutoff in cutoffs])
                most = torch.maximum(most, counts)
        return most.double() / (len(a) if length is None else length)

    return _for_each(x, y, mask, stride, shares)


def gdt_ts(
    x: Float[Tensor, "*#batch n 3"],
    y: Float[Tensor, "*#batch n 3"],
    *,
    mask: Bool[Tensor, "*#batch n"] | None = None,
    length: int | None = None,
    stride: int = 1,
) -> Float64[Tensor, "*batch"]:
    r"""GDT total score, $\tfrac14 (G_1 + G_2 + G_4 + G_8)$ with cut-offs in angstrom; arguments and errors of `gdt`.

    Example:
        >>> x = torch.eye(3)
        >>> gdt_ts(x, x)
        tensor(1., dtype=torch.float64)
    """
    return gdt(x, y, cutoffs=(1.0, 2.0, 4.0, 8.0), mask=mask, length=length, stride=stride).mean(-1)


def gdt_ha(
    x: Float[Tensor, "*#batch n 3"],
    y: Float[Tensor, "*#batch n 3"],
    *,
    mask: Bool[Tensor, "*#batch n"] | None = None,
    length: int | None = None,
    stride: int = 1,
) -> Float64[Tensor, "*batch"]:
    r"""GDT high accuracy, $\tfrac14 (G_{0.5} + G_1 + G_2 + G_4)$ in angstrom; arguments and errors of `gdt`.

    Example:
        >>> x = torch.eye(3)
        >>> gdt_ha(x, x)
        tensor(1., dtype=torch.float64)
    """
    return gdt(x, y, cutoffs=(0.5, 1.0, 2.0, 4.0), mask=mask, length=length, stride=stride).mean(-1)


def lddt(
    x: Float[Tensor, "*#batch n 3"],
    y: Float[Tensor, "*#batch n 3"],
    *,
    mask: Bool[Tensor, "*#batch n"] | None = None,
    radius: float = 15.0,
    thresholds: Sequence[float] = (0.5, 1.0, 2.0, 4.0),
) -> Float64[Tensor, "*batch"]:
    r"""Local distance difference test of C-alpha atoms: the share of short distances that the chain keeps.

    $$ \mathrm{lDDT} = \Big\langle \; [\, |d_{ij}(x) - d_{ij}(y)| < \tau \,] \; \Big\rangle_{\tau,\;
       i \ne j,\; d_{ij}(y) < 15 \text{ A}} $$

    Pairs are those of the reference ``y``, each counts once, whatever its residues' other pairs. Distances alone are
    compared, so a mirror image has 1, and domains that moved against each other lose little.

    Args:
        x: Places in angstrom, a chain or a batch of chains.
        y: The references, as many, or one.
        mask: Residues that count; not given: all.
        radius: Distances of the reference that are looked at, in angstrom.
        thresholds: How far a distance may be off, in angstrom; the mean over them is given.

    Returns:
        One score a chain.

    Raises:
        DataError: If the chains do not match, no pair of a reference lies within ``radius``, or there is no threshold.

    Source:
        Mariani, Biasini, Barbato & Schwede 2013, "lDDT: a local superposition-free score for comparing protein
        structures and models using distance difference tests".

    Example:
        >>> y = torch.tensor([[0.0, 0.0, 0.0], [4.0, 0.0, 0.0], [30.0, 0.0, 0.0]])
        >>> x = torch.tensor([[0.0, 0.0, 0.0], [5.5, 0.0, 0.0], [0.0, 9.0, 0.0]])
        >>> lddt(x, y)  # one pair, off by 1.5: kept at 2 and at 4
        tensor(0.5000, dtype=torch.float64)
    """
    if not thresholds:
        raise DataError("a distance difference test needs at least 1 threshold (its mean is given), got none")
    x, y, counts = matched(x, y, mask)
    of_x, of_y = (torch.cdist(one, one, compute_mode="donot_use_mm_for_euclid_dist") for one in (x, y))
    pair = counts[..., :, None] & counts[..., None, :] & ~torch.eye(x.shape[-2], dtype=torch.bool) & (of_y < radius)
    number = pair.sum((-2, -1))
    if not number.all():
        raise DataError(f"an lDDT needs a pair of residues nearer than {radius} A in every reference, got none")
    off = (of_x - of_y).abs()
    kept = torch.stack([((off < threshold) & pair).sum((-2, -1)) for threshold in thresholds])
    return kept.double().mean(0) / number


def _best_mean(x: Tensor, y: Tensor, length: int, stride: int) -> Float64[Tensor, ""]:
    """The TM-score of one chain: the best visits of the search, polished."""
    scale = tm_distance(length) ** 2
    reach = min(max(tm_distance(length), 4.5), 8.0)  # as the authors' program has it
    best, scores = torch.empty(0, len(x), dtype=torch.float64), torch.empty(0, dtype=torch.float64)
    for squares in visits(x, y, first=reach - 1, then=reach + 1, stride=stride):
        best = torch.cat([best, squares])
        scores = torch.cat([scores, (1 / (1 + squares / scale)).sum(1)])
        scores, order = scores.topk(min(KEPT, len(scores)))
        best = best[order]
    for _ in range(POLISH):
        before, best = scores, square_distances(x, y, (1 + best / scale) ** -2)
        scores = (1 / (1 + best / scale)).sum(1)
        if (scores - before).max() < GAIN * length:
            break
    return scores.max() / length


def _for_each(
    x: Tensor, y: Tensor, mask: Tensor | None, stride: int, score: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """The score of every pair of a batch, over the residues that count."""
    x, y, counts = matched(x, y, mask)
    fewest = int(counts.sum(-1).min())
    if fewest < 3:
        raise DataError(f"scores over superpositions need at least 3 residues that count, got {fewest}")
    if stride < 1:
        raise DataError(f"seeds need a stride >= 1, got {stride}")
    shape, flat = counts.shape[:-1], counts.reshape(-1, counts.shape[-1])
    chains = zip(x.reshape(*flat.shape, 3), y.reshape(*flat.shape, 3), flat, strict=True)
    found = torch.stack([score(a[c], b[c]) for a, b, c in chains])
    return found.reshape((*shape, *found.shape[1:]))
