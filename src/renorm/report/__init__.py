"""A run folder becomes one self-contained page: ``write_report(Path("runs/mnist16"))``."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from renorm.report.figures import field_grid, field_strip, loss_figure, png_bytes, spectrum_figure
    from renorm.report.page import write_report

__all__ = ["field_grid", "field_strip", "loss_figure", "png_bytes", "spectrum_figure", "write_report"]


def __getattr__(name: str) -> Any:
    # Lazy, so that the command line can name this room without importing matplotlib.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module("renorm.report." + ("page" if name == "write_report" else "figures")), name)
