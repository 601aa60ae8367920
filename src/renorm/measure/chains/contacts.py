r"""Which residues of a chain touch, and how many of the contacts that somebody predicts are there."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from renorm.errors import DataError
from renorm.measure.chains.geometry import counted

__all__ = ["ContactPrecision", "contact_map", "contact_precision"]


class ContactPrecision(NamedTuple):
    """Share of contacts among the first $L/5$ and the first $L$ pairs of a prediction."""

    fifth: Float64[Tensor, "*batch"]
    full: Float64[Tensor, "*batch"]


def contact_map(
    x: Float[Tensor, "*batch n 3"], *, mask: Bool[Tensor, "*batch n"] | None = None, cutoff: float = 8.0
) -> Bool[Tensor, "*batch n n"]:
    r"""Pairs of residues nearer than 8 A: $C_{ij} = [\, |x_i - x_j| < 8 \text{ A} \,]$ for $i \ne j$.

    Neighbours along the chain are among them; a residue is no contact of itself, nor of one that does not count.

    Args:
        x: Places in angstrom, a chain or a batch of chains.
        mask: Residues that count; not given: all.
        cutoff: In angstrom.

    Returns:
        True where a pair is near, symmetric.

    Raises:
        DataError: If the chain has another shape, or a residue that counts is not finite.

    Example:
        >>> contact_map(torch.tensor([[0.0, 0.0, 0.0], [5.0, 0.0, 0.0], [10.0, 0.0, 0.0]])).int()
        tensor([[0, 1, 0],
                [1, 0, 1],
                [0, 1, 0]], dtype=torch.int32)
    """
    x, _ = counted(x, mask)
    near = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist") < cutoff
    return near & ~torch.eye(x.shape[-2], dtype=torch.bool)


def contact_precision(
    predicted: Float[Tensor, "*batch n n"],
    x: Float[Tensor, "*batch n 3"],
    *,
    mask: Bool[Tensor, "*batch n"] | None = None,
    separation: int = 24,
    cutoff: float = 8.0,
) -> ContactPrecision:
    r"""How many of the pairs that a distance map puts nearest are contacts of the chain: long-range precision.

    $$ P_k = \frac1k \sum_{(i, j) \in T_k} [\, |x_i - x_j| < 8 \text{ A} \,], \qquad
       k = \lceil L/5 \rceil \text{ and } L $$

    $T_k$ holds the $k$ pairs with $j - i \ge 24$ of least predicted distance, or all pairs where there are fewer, and
    $L$ is the number of residues that count. Pairs of equal distance stand in the order of $i$, then $j$.

    Args:
        predicted: A distance for each pair, or anything that is smaller where a contact is likelier; the part above
            the diagonal is read.
        x: Places of the chain in angstrom.
        mask: Residues that count; not given: all.
        separation: How far apart along the chain a pair has to be.
        cutoff: Of a contact, in angstrom.

    Returns:
        Two shares a chain, in [0, 1].

    Raises:
        DataError: If map and chain do not match, the map has a nan where it is read, or a chain has no pair of that
            separation.

    Source:
        Long range, L and L/5 as in the assessments of CASP, e.g. Schaarschmidt et al. 2018, "Assessment of contact
        predictions in CASP12".

    Example:
        >>> x = torch.zeros(30, 3)
        >>> x[:, 0] = 3.8 * torch.arange(30)
        >>> x[29] = torch.tensor([0.0, 5.0, 0.0])  # the ends alone are near
        >>> precision = contact_precision(torch.cdist(x, x), x)
        >>> round(float(precision.fifth), 4), round(float(precision.full), 4)  # pairs (0..1, 29): 2 of 6, of 21
        (0.3333, 0.0952)
    """
    n = x.shape[-2]
    if predicted.shape != (*x.shape[:-1], n):
        raise DataError(
            f"a distance map needs an entry for each pair of {n} residues, got {tuple(predicted.shape)} for a chain "
            f"{tuple(x.shape)}"
        )
    contact = contact_map(x, mask=mask, cutoff=cutoff)
    counts = torch.ones(x.shape[:-1], dtype=torch.bool) if mask is None else mask.cpu()
    far = (counts[..., :, None] & counts[..., None, :]).triu(separation)
    distance = predicted.detach().cpu().double()
    if distance[far].isnan().any():
        raise DataError("predicted distances must be numbers (they are put in order), got nan")
    fifth, full = [], []
    maps = (one.reshape(-1, n, n) for one in (distance, contact, far))
    for d, touches, pairs, count in zip(*maps, counts.reshape(-1, n), strict=True):
        length = int(count.sum())
        ordered = touches[pairs][d[pairs].argsort(stable=True)].double()
        if not len(ordered):
            raise DataError(
                f"long-range precision needs a pair of residues {separation} apart along the chain, got {length} "
                "residues that count"
            )
        fifth.append(ordered[: -(-length // 5)].mean())
        full.append(ordered[:length].mean())
    return ContactPrecision(*(torch.stack(one).reshape(x.shape[:-2]) for one in (fifth, full)))
