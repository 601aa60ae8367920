"""Pictures of benchmarks: their colours, and a figure as SVG."""

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["ACCENT", "AGAINST", "INK", "QUIET", "svg"]

INK, ACCENT, AGAINST, QUIET = "#20262e", "#0e7c7b", "#b5562c", "#6b7480"


def svg(figure: "Figure", name: str) -> str:
    """The figure as SVG whose text stays text; the same figure gives the same bytes."""
    import matplotlib  # costs a second

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return buffer.getvalue()
