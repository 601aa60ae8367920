"""Pieces of a page: pictures and curves that stand inside it, captions, words."""

import base64
import math
import re
from html import escape
from typing import Any

import numpy as np
from PIL import Image

from renorm.report.figures import PALETTE, numeral, png_bytes

__all__ = ["curve", "duration", "figure", "image", "measured", "sites_of", "table", "words_of"]


def image(picture: Image.Image, alt: str, *, dense: bool = False) -> str:
    """A picture inside the page; a dense one has two of its pixels in one of the page's."""
    width, height = (n // 2 if dense else n for n in picture.size)
    code = base64.b64encode(png_bytes(picture)).decode("ascii")
    return f'<img src="data:image/png;base64,{code}" width="{width}" height="{height}" alt="{escape(alt)}">'


def curve(svg: str, name: str, alt: str) -> str:
    """An SVG inside the page: its names made its own, its colours those of the page, light or dark."""
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\1{name}-", svg)
    for role, color in PALETTE.items():
        svg = svg.replace(color, f"var(--{role})")
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(alt)}" ', 1)


def figure(content: str, caption: str) -> str:
    """A picture or a curve with its caption."""
    return f"<figure>\n{content}\n<figcaption>{escape(caption)}</figcaption>\n</figure>"


def table(value: Any) -> dict[str, Any]:
    """The table that a value is, or an empty one."""
    return value if isinstance(value, dict) else {}


def words_of(key: str) -> str:
    """A key as words.

    Example:
        >>> words_of("log_z <bar>")
        'log z &lt;bar&gt;'
    """
    return escape(str(key).replace("_", " "))


def measured(value: object, error: object = None, *, shown: bool = True) -> str:
    """A value to the digits of its error.

    Args:
        value: The value; what is no number stands as ``numeral`` has it.
        error: Its standard error, in the same units.
        shown: Whether the error stands beside it.

    Example:
        >>> measured(15.51999, 3.625e-4), measured(12.1834, 0.0518), measured(15.5198712, 3.6e-4, shown=False)
        ('15.51999 ± 0.00036', '12.183 ± 0.052', '15.51987')
    """
    numbers = isinstance(value, int | float) and isinstance(error, int | float) and not isinstance(value, bool)
    if not numbers or not math.isfinite(value) or not 1e-6 < error < 1e6:  # type: ignore[operator, arg-type]
        return numeral(value)
    digits = max(0, 1 - math.floor(math.log10(error)))  # type: ignore[arg-type]
    text = f"{value:,.{digits}f}".replace(",", " ").replace("-", "−")
    return text + (f" ± {error:.{digits}f}" if shown else "")


def sites_of(x: np.ndarray) -> str:
    """Sites along each axis of fields, such as 16 × 16."""
    return " × ".join(map(str, x.shape[2:]))


def duration(seconds: float) -> str:
    """Time for people.

    Example:
        >>> duration(4000.0)
        '1 h 7 min'
    """
    if not math.isfinite(seconds) or seconds < 60:
        return f"{numeral(seconds)} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
