"""Chains as tubes in SVG, which needs no script: near parts over far ones, coloured from the N to the C end.

The curve through the C-alphas is a Catmull-Rom spline. Seen from far away each of its pieces is a Bezier curve,

    B_1 = P_1,   B_2 = P_1 + (P_2 - P_0) / 6,   B_3 = P_2 - (P_3 - P_1) / 6,   B_4 = P_2,

so that a residue costs one path. Colours and distances are classes, whose looks ``chains.css`` has for light and dark.
"""

from collections.abc import Sequence
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from renorm.errors import DataError

__all__ = ["Strand", "standalone", "tube_picture", "tube_strip", "view_of"]

COLOURS, DEPTHS = 17, 8
BOX = 1000  # edge of a picture, in its own units
THIN, THICK = 0.45, 0.75  # radii, in angstrom
Chains = Float[np.ndarray, "residues 3"]


class Strand(NamedTuple):
    """A chain in a picture.

    Attributes:
        x: C-alphas, in angstrom; NaN where one is missing, which breaks the curve.
        known: Drawn thin and grey: what the others stand beside.
    """

    x: Chains
    known: bool = False


def view_of(x: Chains) -> tuple[Float[np.ndarray, "3 3"], Float[np.ndarray, "3"]]:
    """Whence a chain shows most of itself: a proper rotation, its rows right, up and towards the eye; and its centre.

    Its longest axis lies across, its shortest along the line of sight.

    Raises:
        DataError: If no residue is known.

    Example:
        >>> turn, centre = view_of(np.array([[0.0, 0, 0], [0, 0, 8], [0, 2, 4], [1, 0, 4]]))
        >>> np.abs(turn).round(1).argmax(1).tolist(), round(float(np.linalg.det(turn)), 6)
        ([2, 1, 0], 1.0)
    """
    there = x[np.isfinite(x).all(axis=1)].astype(np.float64)
    if not len(there):
        raise DataError("a picture of a chain needs a residue whose place is known, got none")
    centre = there.mean(axis=0)
    _, _, axes = np.linalg.svd(there - centre, full_matrices=True)
    axes[:2] *= np.where(axes[:2].sum(axis=1, keepdims=True) < 0, -1, 1)  # the same for the same chain
    axes[2] = np.cross(axes[0], axes[1])
    return axes, centre


def tube_picture(strands: Sequence[Strand], alt: str, *, view: Sequence[Strand] | None = None) -> str:
    """Chains in one view, as an ``<svg>``.

    Args:
        strands: The chains.
        alt: What it shows, in words.
        view: Chains that say whence and how large it is seen; the first of them is looked at. By default these.

    Raises:
        DataError: If no residue is known.

    Example:
        >>> x = np.array([[0.0, 0, 0], [3.8, 0, 0], [3.8, 3.8, 0]])
        >>> tube_picture([Strand(x)], "three residues").count("<path")  # two bonds, each with its rim
        4
    """
    camera = _Camera.of(view or strands)
    head = f'<svg class="tube" viewBox="0 0 {BOX} {camera.height}" role="img" aria-label="{escape(alt)}">'
    return f"{head}{_paths(strands, camera)}</svg>"


def tube_strip(rows: Sequence[Sequence[Strand]], labels: Sequence[Sequence[str]], alt: str) -> str:
    """Rows of chains, all in the view of the last of the first row, a label under each, as an ``<svg>``.

    Raises:
        DataError: If there is not one label for each chain, or no residue is known.
    """
    if not rows or [len(row) for row in rows] != [len(row) for row in labels]:
        raise DataError(f"a strip needs one label for each chain, got {len(labels)} rows of labels for {len(rows)}")
    camera = _Camera.of([rows[0][-1], *(strand for row in rows for strand in row)])
    down, across = camera.height + 170, BOX + 60
    cells = []
    for i, (row, told) in enumerate(zip(rows, labels, strict=True)):
        for j, (strand, label) in enumerate(zip(row, told, strict=True)):
            text = f'<text x="{BOX // 2}" y="{camera.height + 90}">{escape(label)}</text>'
            cells.append(f'<g transform="translate({j * across} {i * down})">{_paths([strand], camera, 1.5)}{text}</g>')
    size = f"0 0 {across * max(map(len, rows)) - 60} {down * len(rows) - 50}"
    return f'<svg class="tube" viewBox="{size}" role="img" aria-label="{escape(alt)}">{"".join(cells)}</svg>'


def standalone(svg: str) -> str:
    """A picture as a file of its own, with its colours and a ground to stand on."""
    style = Path(__file__).with_name("chains.css").read_text(encoding="utf-8")
    ground = ":root{--paper:#fdfdfc;--quiet:#616a76}svg{background:var(--paper);font-family:sans-serif}"
    dark = "@media (prefers-color-scheme:dark){:root{--paper:#15181c;--quiet:#98a1ab}}"
    used = style[: style.index(".contacts")]
    return svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1).replace(
        ">", f"><style>{ground}{dark}{used}</style>", 1
    )


class _Camera(NamedTuple):
    turn: np.ndarray
    centre: np.ndarray
    scale: float  # units of the picture to an angstrom
    height: int
    depth: float  # half the extent along the line of sight, in angstrom

    @classmethod
    def of(cls, strands: Sequence[Strand]) -> "_Camera":
        turn, centre = view_of(strands[0].x)
        every = np.concatenate([strand.x for strand in strands])
        seen = (every[np.isfinite(every).all(axis=1)] - centre) @ turn.T
        low, high = seen.min(axis=0), seen.max(axis=0)
        centre = centre + (low + high) / 2 @ turn
        half = np.maximum((high - low) / 2 + 2 * THICK, 1.0)
        scale = BOX / 2 / max(half[0], half[1])
        return cls(turn, centre, scale, max(BOX // 3, round(2 * scale * half[1])), float(half[2]))

    def project(self, x: np.ndarray) -> np.ndarray:
        """Right, down and towards the eye; in units of the picture, and between -1 and 1."""
        right, up, near = ((x - self.centre) @ self.turn.T).T
        return np.stack([BOX / 2 + self.scale * right, self.height / 2 - self.scale * up, near / self.depth], axis=1)


def _paths(strands: Sequence[Strand], camera: _Camera, grown: float = 1.0) -> str:
    """Pieces of all chains, the farthest first: a rim in the colour of the paper, then the tube."""
    pieces: list[tuple[float, str]] = []
    for strand in strands:
        p = camera.project(strand.x.astype(np.float64))
        width = max(2, round(2 * camera.scale * grown * (THIN if strand.known else THICK)))
        for i, (a, b) in enumerate(pairwise(p)):
            if not np.isfinite([a, b]).all():
                continue
            before, after = (p[j] if 0 <= j < len(p) and np.isfinite(p[j]).all() else None for j in (i - 1, i + 2))
            first = a + (b - (2 * a - b if before is None else before)) / 6
            second = b - ((2 * b - a if after is None else after) - a) / 6
            numbers = [f"{n:.0f}" for q in (a, first, second, b) for n in q[:2]]
            curve = "M{} {}C{} {} {} {} {} {}".format(*numbers)
            colour = "k" if strand.known else str(min(COLOURS - 1, COLOURS * i // max(1, len(p) - 1)))
            near = min(DEPTHS - 1, max(0, int(DEPTHS * ((a[2] + b[2]) / 2 + 1) / 2)))
            drawn = f'<path class="h" stroke-width="{width + 12}" d="{curve}"/>'
            drawn += f'<path class="c{colour} d{near}" stroke-width="{width}" d="{curve}"/>'
            pieces.append(((a[2] + b[2]) / 2, drawn))
    return "".join(drawn for _, drawn in sorted(pieces, key=lambda piece: piece[0]))
