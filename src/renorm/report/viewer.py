"""The viewer of chains: places as JSON, a picture for when no script runs; ``viewer.js`` does the rest."""

import json
from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from renorm.errors import DataError
from renorm.report.tubes import Strand, tube_picture, view_of

__all__ = ["UNIT", "Target", "viewer"]

UNIT = 0.01  # angstrom: places are kept as whole numbers of it


class Target(NamedTuple):
    """What is shown of one sequence.

    Attributes:
        name: For people.
        drawn: Chains of the model, in angstrom, all laid on each other, or on the known one.
        known: The known structure, NaN where a residue is missing.
        spread: Of each residue over the chains, in angstrom.
    """

    name: str
    drawn: Float[np.ndarray, "models residues 3"]
    known: Float[np.ndarray, "residues 3"] | None = None
    spread: Float[np.ndarray, " residues"] | None = None


def viewer(targets: Sequence[Target], caption: str) -> str:
    """A figure in which chains are turned by hand; a picture of the first stands in it where no script runs.

    Args:
        targets: What can be chosen.
        caption: Under it.

    Raises:
        DataError: If there is no chain, or chains that belong together differ in length.

    Example:
        >>> x = np.array([[[0.0, 0, 0], [3.8, 0, 0], [3.8, 3.8, 0]]])
        >>> '"drawn":[[0,0,0,380,0,0,380,380,0]]' in viewer([Target("three", x)], "A chain.")
        True
    """
    if not targets:
        raise DataError("a viewer of chains needs a chain, got none")
    value = {"unit": UNIT, "targets": [_value(target) for target in targets]}
    code = json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    first = targets[0]
    beside = [] if first.known is None else [Strand(first.known, known=True)]
    alt = f"{first.name}: {'the known chain and one drawn' if beside else 'a chain drawn'}, as tubes"
    picture = tube_picture([*beside, Strand(first.drawn[0])], alt)
    return (
        f'<figure class="viewer" id="viewer">\n<script type="application/json">{code}</script>\n'
        f"<noscript>{picture}</noscript>\n<figcaption>{escape(caption)}</figcaption>\n</figure>"
    )


def _value(target: Target) -> dict[str, Any]:
    """Whole numbers of UNIT, three a residue, none where one is missing."""
    x = target.drawn
    if x.ndim != 3 or x.shape[2] != 3 or x.shape[0] < 1 or x.shape[1] < 2 or not np.isfinite(x).all():
        raise DataError(f"chains to show must be finite and (models, residues, 3), got shape {x.shape}")
    for what, beside in (("known", target.known), ("spread", target.spread)):
        if beside is not None and beside.shape[0] != x.shape[1]:
            raise DataError(f"{what} must be of the {x.shape[1]} residues of the chain, got {beside.shape[0]}")
    turn, _ = view_of(x[0] if target.known is None else target.known)
    return {
        "name": target.name,
        "view": turn.round(6).ravel().tolist(),
        "drawn": [_whole(chain) for chain in x],
        "known": None if target.known is None else _whole(target.known),
        "spread": None if target.spread is None else _whole(target.spread),
    }


def _whole(x: np.ndarray) -> list[int | None]:
    return [int(n) if np.isfinite(n) else None for n in np.rint(x.astype(np.float64).ravel() / UNIT).tolist()]
