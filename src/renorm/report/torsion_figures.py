"""Free-energy surfaces of two torsion angles as pictures."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from renorm.report.figures import PALETTE, svg

__all__ = ["surface_figure"]

CEILING = 50.0  # kJ/mol, of the colours


def surface_figure(
    learned: Float[Tensor, "cells cells"], frames: Float[Tensor, "bins bins"], places: Sequence[tuple[float, float]]
) -> str:
    """The surface of the frames, and the learned one with its minima, as SVG.

    Args:
        learned: In kJ/mol.
        frames: In kJ/mol; bins without a frame, infinite, stay empty.
        places: Of the minima, in degrees.
    """
    drawing = Figure(figsize=(7.4, 3.4), layout="constrained")
    panels = drawing.subplots(1, 2, sharey=True)
    titles = (f"frames, {len(frames)} x {len(frames)} bins", f"learned, {len(learned)} x {len(learned)} cells")
    for axes, title, values in zip(panels, titles, (frames, learned), strict=True):
        seen = values.double().numpy()
        seen = np.where(np.isfinite(seen), np.minimum(seen, CEILING), np.nan)
        look = {"origin": "lower", "extent": (-180, 180, -180, 180), "vmin": 0, "vmax": CEILING, "cmap": "viridis_r"}
        shown = axes.imshow(seen.T, **look)
        axes.set_title(title, fontsize=9, color=PALETTE["ink"])
        axes.set_xlabel("φ [degrees]", fontsize=9, color=PALETTE["quiet"])
        axes.set(xticks=(-180, -90, 0, 90, 180), yticks=(-180, -90, 0, 90, 180))
        axes.tick_params(labelsize=8, colors=PALETTE["quiet"])
    panels[0].set_ylabel("ψ [degrees]", fontsize=9, color=PALETTE["quiet"])
    for number, (phi, psi) in enumerate(places, 1):
        panels[1].annotate(str(number), (phi, psi), color=PALETTE["ink"], fontsize=9, ha="center", va="center")
    bar = drawing.colorbar(shown, ax=list(panels), shrink=0.8)
    bar.set_label("free energy [kJ/mol]", fontsize=9, color=PALETTE["quiet"])
    bar.ax.tick_params(labelsize=8, colors=PALETTE["quiet"])
    return svg(drawing, "surface")
