"""Folds beside the structures that are known: two curves laid on each other, and their contact maps."""

from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from renorm.errors import DataError
from renorm.measure.chains.contacts import contact_map
from renorm.report.figures import PALETTE, svg
from renorm.report.markup import curve, figure
from renorm.report.reading import arrays_of

__all__ = ["folds"]

_QUIET, _ACCENT = PALETTE["quiet"], PALETTE["accent"]


def folds(run: Path) -> str:
    """Some targets of a run of chains, from ``samples/folds.npz``.

    Raises:
        DataError: If the file is missing or damaged.
    """
    arrays = arrays_of(run, "samples/folds.npz", "fold0")
    shown = []
    for name in sorted(arrays):
        known = arrays.get(name.replace("fold", "known"))
        if not name.startswith("fold") or known is None:
            continue
        if known.shape != arrays[name].shape or known.ndim != 2 or known.shape[1] != 3:
            raise DataError(f"samples/folds.npz must hold chains (residues, 3), got {name} of {arrays[name].shape}")
        caption = f"A target of {len(known)} residues: known (grey) and drawn. Right: contacts within 8 Å, known below."
        shown.append(figure(curve(_drawing(arrays[name], known, name), name, caption), caption))
    return "\n".join(['<div class="pair">', *shown, "</div>"])


def _drawing(x: np.ndarray, known: np.ndarray, name: str) -> str:
    there = np.isfinite(known).all(axis=1)
    centre = known[there].mean(axis=0)
    _, _, axes_of = np.linalg.svd(known[there] - centre, full_matrices=False)
    drawing = Figure(figsize=(5.0, 2.5), layout="constrained")
    trace, contacts = drawing.subplots(1, 2)
    for chain, colour, width in ((known, _QUIET, 2.2), (x, _ACCENT, 1.1)):
        flat = (chain - centre) @ axes_of[:2].T
        trace.plot(flat[:, 0], flat[:, 1], color=colour, linewidth=width, solid_joinstyle="round")
    trace.set_aspect("equal")
    trace.axis("off")
    drawn, real = (contact_map(torch.from_numpy(c), mask=torch.from_numpy(np.isfinite(c).all(1))) for c in (x, known))
    both = (drawn.triu() | real.tril()).numpy()
    contacts.imshow(both, cmap="Greys", interpolation="nearest")
    contacts.set(xticks=[], yticks=[])
    return svg(drawing, name)
