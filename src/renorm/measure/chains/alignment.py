r"""TM-align: the TM-score of chains whose residues nobody matched."""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from renorm.errors import DataError
from renorm.measure.chains.superposition import Superposition

__all__ = ["Aligned", "tm_aligned"]


class Aligned(NamedTuple):
    """Two chains whose residues TM-align matched.

    Attributes:
        score: TM-score with the length of the reference.
        score_by_x: With the length of the other chain.
        rmsd: Over the residues that are matched, in angstrom.
        superposition: Lays the chain onto the reference.
        pairs: Matched residues, (place in the chain, place in the reference).
    """

    score: float
    score_by_x: float
    rmsd: float
    superposition: Superposition
    pairs: list[tuple[int, int]]


def tm_aligned(
    x: Float[Tensor, "n 3"],
    y: Float[Tensor, "m 3"],
    *,
    sequences: tuple[str, str] | None = None,
    matching: Literal["free", "identity"] = "free",
) -> Aligned:
    r"""TM-score of two chains by TM-align, which also looks for the residues that belong together.

    $$ \mathrm{TM} = \max_{\text{alignment}, R, t} \frac1L \sum_{(i, j)} \frac{1}{1 + |R x_i + t - y_j|^2 / d_0^2} $$

    over alignments that keep the order along both chains. For chains of other proteins, or where numbering says
    nothing. It needs the package tmtools; its search over alignments is a heuristic, so it may find less than
    `tm_score` does for matched residues.

    Args:
        x: Places in angstrom.
        y: The reference.
        sequences: One-letter codes of both, for the alignment that begins the search; not given: alanines.
        matching: ``"free"``, or ``"identity"``: residue i belongs to residue i, and only superpositions are searched.

    Raises:
        DataError: If tmtools is not installed, a chain has fewer than 3 residues or one that is not finite, a sequence
            has not one letter a residue, or matched residues are asked of chains of other lengths.

    Source:
        Zhang & Skolnick 2005, "TM-align: a protein structure alignment algorithm based on the TM-score".

    Example:
        >>> x = 3 * torch.randn(30, 3, generator=torch.Generator().manual_seed(0)).cumsum(0)
        >>> found = tm_aligned(x[10:], x)  # a part of a chain
        >>> round(found.score_by_x, 4), found.pairs[0]
        (1.0, (0, 10))
    """
    try:
        from tmtools import tm_align
    except ImportError:
        raise DataError("TM-align needs tmtools: pip install 'renorm[protein]'") from None
    for one in (x, y):
        if one.dim() != 2 or one.shape[-1] != 3 or len(one) < 3 or not one.isfinite().all():
            raise DataError(f"TM-align needs chains (n, 3) of at least 3 residues, all finite, got {tuple(one.shape)}")
    letters = sequences or ("A" * len(x), "A" * len(y))
    if (len(letters[0]), len(letters[1])) != (len(x), len(y)):
        raise DataError(
            f"a sequence needs one letter a residue: {len(x)} and {len(y)} residues, got {len(letters[0])} and "
            f"{len(letters[1])} letters"
        )
    if matching == "identity" and len(x) != len(y):
        raise DataError(f"residues matched by their place need chains of one length, got {len(x)} and {len(y)}")
    a, b = (one.detach().cpu().double().numpy() for one in (x, y))
    found = tm_align(a, b, *letters, letters if matching == "identity" else None)
    rotation, translation = torch.from_numpy(found.u).double(), torch.from_numpy(found.t).double()
    return Aligned(
        score=float(found.tm_norm_chain2),
        score_by_x=float(found.tm_norm_chain1),
        rmsd=float(found.rmsd),
        superposition=Superposition(rotation, translation),
        pairs=_pairs(found.seqxA, found.seqyA),
    )


def _pairs(x: str, y: str) -> list[tuple[int, int]]:
    """Places of both chains that stand in one column of an alignment."""
    i = j = 0
    pairs = []
    for a, b in zip(x, y, strict=True):
        if a != "-" and b != "-":
            pairs.append((i, j))
        i, j = i + (a != "-"), j + (b != "-")
    return pairs
