"""Molecules as balls and sticks, and the histograms of their bonds, angles, distances and energies."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Shaped, UInt8
from matplotlib.figure import Figure
from PIL import Image, ImageDraw
from torch import Tensor

from renorm.errors import DataError
from renorm.report.figures import PALETTE, contact_sheet, labelled, style, svg
from renorm.report.tubes import view_of

__all__ = ["molecule_grid", "molecule_strip", "shapes_figure"]

CELL, FINE = 128, 3  # pixels of a molecule, and how much larger it is drawn, for smooth edges
FIRST, LAST, STICK, EDGE = (14, 124, 123), (233, 168, 76), (123, 131, 141), (32, 38, 46)
PAPER = (243, 245, 247)
_INK, _QUIET, _RULE, _ACCENT = PALETTE.values()
NAMES = {
    "bond": "bond [unit of length]",
    "angle": "angle [rad]",
    "distance": "distance of any pair",
    "energy": "energy [nats]",
}
LOOKS = {
    "data": (_QUIET, "-", "test"),
    "samples": (_ACCENT, "-", "samples"),
    "refined": (_INK, ":", "refined"),
}
Bonds = Sequence[tuple[int, int]]
Molecules = Shaped[Tensor | np.ndarray, "batch dim atoms"]


def molecule_grid(x: Molecules, bonds: Bonds, *, columns: int | None = None, gap: int = 6) -> Image.Image:
    """A sheet of molecules, row by row, each turned so that it shows most of itself; all at one scale.

    Balls go from teal (the first atom) to amber (the last), near ones over far ones; without bonds, far ones are pale.

    Args:
        x: Positions; two components or more, the first three are seen. An atom that is not finite is left out.
        bonds: Pairs of atoms that sticks join.
        columns: Molecules in a row; by default the sheet is about square.
        gap: Transparent pixels between them.

    Raises:
        DataError: If there is no molecule, or its positions are not (batch, dim, atoms).

    Example:
        >>> molecule_grid(np.random.default_rng(0).normal(size=(4, 3, 5)), [(0, 1), (1, 2)]).size
        (262, 262)
    """
    molecules = _positions(x)
    reach, unit = _reach(molecules), _unit(molecules, bonds)
    cells = np.stack([_drawn(each, bonds, reach, unit) for each in molecules])
    return Image.fromarray(contact_sheet(cells, columns or math.ceil(math.sqrt(len(cells))), gap))


def molecule_strip(
    rows: Shaped[Tensor | np.ndarray, "rows levels dim atoms"], labels: Sequence[str], bonds: Bonds, *, gap: int = 6
) -> Image.Image:
    """Molecules through the levels: a row for each, a column for each level, its label above.

    Each is seen from the same side at every level; atoms of one bead stand in one place.

    Raises:
        DataError: If there is not one label for each level; else as ``molecule_grid``.
    """
    array = rows.detach().cpu().numpy() if isinstance(rows, Tensor) else rows
    if array.ndim != 4 or array.shape[1] != len(labels) or not labels:
        raise DataError(f"a strip needs one label for each level, got {len(labels)} for shape {array.shape}")
    flat = _positions(array.reshape(-1, *array.shape[2:]))
    reach, unit = _reach(flat), max(_unit(_positions(array[:, level]), bonds) for level in range(len(labels)))
    # The level with the most atoms, the farthest apart, says whence a row is seen.
    finest = [max(row, key=_extent) for row in array]
    cells = [
        np.stack([_drawn(_padded(x), bonds, reach, unit, _padded(seen)) for x in row])
        for row, seen in zip(array, finest, strict=True)
    ]
    return labelled(np.stack(cells), labels, gap)


def shapes_figure(arrays: Mapping[str, np.ndarray]) -> tuple[str, str]:
    """Histograms of samples and of test configurations, as SVG, and a caption.

    Args:
        arrays: ``NAME_edges``, ``NAME_samples`` and ``NAME_data`` for each of bond, angle, distance and energy that
            is there.

    Raises:
        DataError: If there is none of them, or their lengths do not go together.
    """
    there = [name for name in NAMES if f"{name}_edges" in arrays]
    if not there:
        raise DataError("histograms of molecules need bonds, angles, distances or energies, got none")
    drawing = Figure(figsize=(2.6 * len(there) + 0.4, 2.7), layout="constrained")
    for axes, name in zip(drawing.subplots(1, len(there), squeeze=False)[0], there, strict=True):
        edges = arrays[f"{name}_edges"].astype(float).ravel()
        width = np.maximum(np.diff(edges), 1e-12)
        for key, (color, stroke, label) in LOOKS.items():
            if key == "refined" and f"{name}_refined" not in arrays:
                continue
            share = arrays.get(f"{name}_{key}", np.empty(0)).astype(float).ravel()
            if len(share) != len(width):
                raise DataError(f"{name}_{key} needs a share for each of {len(width)} bins, got {len(share)}")
            look = {"fill": True, "alpha": 0.35} if key == "data" else {"linestyle": stroke, "linewidth": 1.3}
            axes.stairs(share / width, edges, color=color, label=label, **look)
        style(axes, NAMES[name], "")
        axes.set_yticks([])
        axes.grid(visible=False)
    drawing.axes[0].legend(frameon=False, fontsize=9, labelcolor=_INK, loc="upper right")
    dotted = " dotted: draws given the coarsest beads of these;" if any(f"{n}_refined" in arrays for n in there) else ""
    caption = f"Samples (line) and test configurations (filled);{dotted} the end bins have all beyond."
    return svg(drawing, "shapes"), caption


def _positions(x: Tensor | np.ndarray) -> np.ndarray:
    """As (batch, atoms, 3)."""
    array = x.detach().cpu().numpy() if isinstance(x, Tensor) else x
    if array.ndim != 3 or not array.size:
        raise DataError(f"molecules are drawn from positions (batch, dim, atoms), got shape {array.shape}")
    return np.stack([_padded(each) for each in array])


def _padded(x: np.ndarray) -> np.ndarray:
    """One molecule as (atoms, 3), its missing components 0."""
    places = x[:3].T.astype(np.float64)
    return np.pad(places, ((0, 0), (0, 3 - places.shape[1])))


def _extent(x: np.ndarray) -> tuple[int, float]:
    """How many numbers are there, and how far they reach."""
    there = x[np.isfinite(x)]
    return there.size, float(np.square(there).sum())


def _reach(x: np.ndarray) -> float:
    """Half an edge of a picture, in units of length: nearly all atoms lie within."""
    x = x[np.isfinite(x).all(axis=2).any(axis=1)]
    if not len(x):
        return 1.0
    apart = np.linalg.norm(x - np.nanmean(x, axis=1, keepdims=True), axis=2)
    apart = apart[np.isfinite(apart)]
    return 1.15 * float(np.quantile(apart, 0.99)) or 1.0 if apart.size else 1.0


def _unit(x: np.ndarray, bonds: Bonds) -> float:
    """A length between neighbours: the median of bonds, else of the distances to the nearest."""
    if bonds:
        first, second = (list(each) for each in zip(*bonds, strict=True))
        lengths = np.linalg.norm(x[:, first] - x[:, second], axis=2)
    else:
        apart = np.linalg.norm(x[:, :, None] - x[:, None], axis=3) + np.where(np.eye(x.shape[1]), np.inf, 0.0)
        lengths = np.where(np.isnan(apart), np.inf, apart).min(axis=2)
    lengths = lengths[np.isfinite(lengths)]
    return float(np.median(lengths)) if lengths.size else 0.0


def _drawn(
    x: np.ndarray, bonds: Bonds, reach: float, unit: float, seen: np.ndarray | None = None
) -> UInt8[np.ndarray, "height width 4"]:
    """One molecule; ``seen`` says from which side."""
    edge = FINE * CELL
    picture = Image.new("RGBA", (edge, edge), PAPER)
    there = np.isfinite(x).all(axis=1)
    if not there.any():
        return np.zeros((CELL, CELL, 4), dtype=np.uint8)
    turn, centre = view_of(x if seen is None or not np.isfinite(seen).any() else seen)
    reach = reach + 0.35 * unit  # balls at the edge are whole
    places = (x - (x[there].mean(axis=0) if seen is None else centre)) @ turn.T / reach
    across, depth = (places[:, :2] * [1, -1] + 1) / 2 * edge, places[:, 2]
    radius = max(4.0, 0.32 * unit / reach * edge / 2)
    draw = ImageDraw.Draw(picture)
    things: list[tuple[float, int, int]] = [(float(depth[i]), i, i) for i in range(len(x)) if there[i]]
    things += [(float(min(depth[i], depth[j])) - 1e-9, i, j) for i, j in bonds if there[i] and there[j]]
    for _, i, j in sorted(things):
        if i != j:
            draw.line([tuple(across[i]), tuple(across[j])], fill=STICK, width=max(FINE, round(radius * 0.55)))
            continue
        # Chains are coloured from end to end; of clusters, what is far is pale.
        share = i / max(1, len(x) - 1) if bonds else float(np.clip(0.35 - 0.5 * depth[i], 0, 0.75))
        ends = zip(FIRST, LAST if bonds else PAPER, strict=True)
        colour = tuple(round((1 - share) * a + share * b) for a, b in ends)
        (left, top), outline = across[i], max(1, FINE // 2)
        box = [left - radius, top - radius, left + radius, top + radius]
        draw.ellipse(box, fill=colour, outline=EDGE, width=outline)
    return np.asarray(picture.resize((CELL, CELL), Image.Resampling.LANCZOS))
