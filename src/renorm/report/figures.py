"""Pictures of fields and of numbers: contact sheets by Pillow, curves by matplotlib as SVG.

One style for all: ink, a quiet grey, hairlines and one accent, on a transparent ground, so that the same picture
sits well on white and on black.
"""

import io
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Float64, Shaped, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from renorm.errors import DataError

__all__ = [
    "PALETTE",
    "contact_sheet",
    "field_grid",
    "field_strip",
    "labelled",
    "loss_figure",
    "numeral",
    "png_bytes",
    "spectrum_figure",
    "style",
    "svg",
]

PALETTE = {"ink": "#20262e", "quiet": "#6b7480", "rule": "#dfe3e7", "accent": "#0e7c7b"}
"""The colours of the curves; the page lays its own light or dark ones in their place."""

CELL = 64  # a field is enlarged until its longest edge has this many pixels
MARGIN = 0.1  # how far a field may overshoot its range, as part of the range, and still be drawn on it
OUTSIDE = 0.05  # share of sites that may lie further out

_INK, _QUIET, _RULE, _ACCENT = PALETTE.values()
_PAPER, _LABEL = "#f3f5f7", "#7b838d"  # ground of lines; a grey that reads on white and on black
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

ValueRange = tuple[float, float]


def field_grid(
    x: Shaped[Tensor | np.ndarray, "batch channel *sites"],
    *,
    columns: int | None = None,
    value_range: ValueRange = (-1.0, 1.0),
    scale: int | None = None,
    gap: int = 2,
) -> Image.Image:
    """A contact sheet of fields, row by row.

    One axis of sites is drawn as lines, two as pictures (three channels are red, green and blue; of any other
    number the first is drawn in grey), three as their middle slice along the first axis. Values are clipped to
    ``value_range``; bytes always range over [0, 255]. Where more than 5 % of the sites lie outside the range by more
    than a tenth of its width, the range is not theirs: the sheet then runs from the 1st to the 99th percentile.
    Sites that are not finite are left transparent.

    Args:
        columns: Fields in a row; by default the sheet is about square.
        value_range: Values of black and white.
        scale: Pixels per site, a whole number; by default the smallest that makes a field 64 pixels long.
        gap: Transparent pixels between fields.

    Raises:
        DataError: If there is no field, or one has no axis of sites or more than three.

    Example:
        >>> field_grid(np.zeros((6, 1, 16, 16)), columns=3).size
        (196, 130)
    """
    fields = _fields(x)
    cells = _cells(fields, shown_range(fields, value_range), scale)
    return Image.fromarray(contact_sheet(cells, columns or math.ceil(math.sqrt(len(cells))), gap))


def field_strip(
    rows: Shaped[Tensor | np.ndarray, "rows levels channel *sites"],
    labels: Sequence[str],
    *,
    value_range: ValueRange = (-1.0, 1.0),
    scale: int | None = None,
    gap: int = 4,
) -> Image.Image:
    """Fields through the levels: a row for each field, a column for each level, its label above.

    Each column follows the rule of `field_grid` on its own, since a coarse level may have another range.

    Raises:
        DataError: If there is not one label for each level; else as `field_grid`.

    Example:
        >>> field_strip(np.zeros((2, 3, 1, 32, 32)), ["Λ 0.4", "Λ 1.6", "Λ ∞"]).size
        (200, 150)
    """
    array = _array(rows)
    if array.ndim < 3 or array.shape[1] != len(labels) or not labels:
        raise DataError(f"a strip needs one label for each level, got {len(labels)} for shape {array.shape}")
    columns = []
    for level in range(len(labels)):
        fields = _fields(array[:, level])
        columns.append(_cells(fields, shown_range(fields, value_range), scale))
    return labelled(np.stack(columns, axis=1), labels, gap)


def labelled(cells: UInt8[np.ndarray, "rows levels height width 4"], labels: Sequence[str], gap: int) -> Image.Image:
    """Rows of small pictures, a label above each column."""
    sheet = contact_sheet(cells.reshape(-1, *cells.shape[2:]), len(labels), gap)
    width = cells.shape[3]
    size = max(11, width // 6)
    picture = Image.new("RGBA", (sheet.shape[1], sheet.shape[0] + 9 * size // 5 - 1))
    picture.paste(Image.fromarray(sheet), (0, picture.height - sheet.shape[0]))
    draw, font = ImageDraw.Draw(picture), _font(size)
    for level, label in enumerate(labels):
        draw.text((level * (width + gap) + width / 2, 0.2 * size), label, fill=_LABEL, font=font, anchor="ma")
    return picture


def shown_range(x: Shaped[np.ndarray, "..."], value_range: ValueRange) -> ValueRange:
    """Values of black and white for ``x``, by the rule of `field_grid`.

    Example:
        >>> shown_range(np.array([-1.05, 0.0, 1.1]), (-1.0, 1.0))
        (-1.0, 1.0)
        >>> low, high = shown_range(np.linspace(0, 100, 101), (-1.0, 1.0))
        >>> round(low, 6), round(high, 6)
        (1.0, 99.0)
    """
    if x.dtype == np.uint8:
        return 0.0, 255.0
    low, high = float(value_range[0]), float(value_range[1])
    finite = x[np.isfinite(x)]
    margin = MARGIN * (high - low)
    if finite.size == 0 or np.mean((finite < low - margin) | (finite > high + margin)) <= OUTSIDE:
        return low, high
    first, last = np.quantile(finite, [0.01, 0.99])
    return (float(first), float(last)) if last > first else (float(first) - 1.0, float(first) + 1.0)


def png_bytes(image: Image.Image) -> bytes:
    r"""A picture as the bytes of a PNG file.

    Example:
        >>> png_bytes(Image.new("L", (2, 2)))[:4]
        b'\x89PNG'
    """
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def loss_figure(metrics: Sequence[Mapping[str, Any]]) -> str:
    """The loss over the steps of a fit, as SVG: the recorded means, and their running mean where there are many.

    The loss axis is logarithmic if all losses are positive and their range is above a factor of five.

    Args:
        metrics: As `renorm.fit.record.read_metrics` gives them; lines without a loss are passed over.

    Raises:
        DataError: If no line holds a finite loss.
    """
    lines = [line for line in metrics if _is_number(line.get("step")) and _is_number(line.get("loss"))]
    step, loss = _numbers([line["step"] for line in lines]), _numbers([line["loss"] for line in lines])
    finite = loss[np.isfinite(loss)]
    if finite.size == 0:
        raise DataError(f"a loss curve needs at least one finite loss, got {len(loss)} lines and none of them finite")
    figure = Figure(figsize=(5.0, 3.7), layout="constrained")
    axes = figure.add_subplot()
    window = len(loss) // 40
    many = window > 1
    axes.plot(step, loss, color=_QUIET if many else _ACCENT, linewidth=0.7 if many else 1.6, alpha=0.5 if many else 1)
    if many:
        mean = np.convolve(loss, np.ones(window) / window, mode="valid")
        axes.plot(step[window - 1 :], mean, color=_ACCENT, linewidth=1.8)
    elif len(loss) == 1:
        axes.plot(step, loss, "o", color=_ACCENT, markersize=4)
    if finite.min() > 0 and finite.max() > 5 * finite.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=9))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    style(axes, "step", "loss")
    return svg(figure, "loss")


def spectrum_figure(spectrum: Mapping[str, Any]) -> str:
    r"""Power against wavenumber of data and samples, and their ratio below, as SVG.

    $$ r = P_s / P_d, \qquad \mathrm{error}_r = r \sqrt{(e_s / P_s)^2 + (e_d / P_d)^2} $$

    Both axes are logarithmic; the zero mode, which has no logarithm, stands half an octave left of a gap, over "0".

    Args:
        spectrum: Lists of one length: ``k`` [rad/site], ``data`` and ``samples`` (powers), and their standard errors
            ``data_error`` and ``samples_error``, which may be absent.

    Raises:
        DataError: If a list is missing or has another length, or no bin holds a positive power.
    """
    k, power, error = _bins(spectrum)
    figure = Figure(figsize=(5.0, 3.7), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    octave = np.floor(np.log2(k[k > 0].min() / math.pi) + 1e-9) if (k > 0).any() else 0.0
    at_zero = k == 0
    place = np.where(at_zero, math.pi * 2 ** (octave - 1), k)
    dot = {"fmt": "o", "markersize": 3, "elinewidth": 1, "zorder": 3}
    ring = {
        **dot,
        "markersize": 6,
        "markerfacecolor": "none",
    }  # so that data and samples are both seen where they agree
    for name, color, marker in (("data", _INK, ring), ("samples", _ACCENT, dot)):
        above.errorbar(place, power[name], error[name], label=name, color=color, **marker)
        above.plot(place[~at_zero], power[name][~at_zero], color=color, linewidth=1, alpha=0.6)
    both = np.concatenate([power["data"], power["samples"]])
    above.set(yscale="log", ylim=(np.nanmin(both) / 2, np.nanmax(both) * 2), xscale="log")
    above.yaxis.set_major_locator(LogLocator(numticks=7))
    above.legend(loc="upper right", frameon=False, fontsize=10, labelcolor=_INK)

    ratio = power["samples"] / power["data"]
    spread = ratio * np.hypot(error["samples"] / power["samples"], error["data"] / power["data"])
    below.axhline(1, color=_INK, linewidth=0.8)
    below.errorbar(place, ratio, spread, color=_ACCENT, **dot)
    below.set_yscale("log")
    style(above, "", "power")
    style(below, "wavenumber [rad/site]", "ratio")
    furthest = np.exp(np.nanmax(np.abs(np.log(ratio)), initial=0.0))
    bound = next((b for b in (1.25, 2.0, 4.0) if b >= furthest), 10.0)
    below.set(ylim=(bound**-1.3, bound**1.3), yticks=(1 / bound, 1, bound))
    _octaves(below, place, octave, zero=bool(at_zero.any()))
    return svg(figure, "spectrum")


def numeral(value: object) -> str:
    """A number for people: four digits, narrow spaces between thousands, powers of ten spelt out.

    Example:
        >>> numeral(0.123456), numeral(-2.5e-7), numeral(1e-5), numeral(60000) == "60\\u202f000"
        ('0.1235', '−2.5 × 10⁻⁷', '10⁻⁵', True)
        >>> numeral(math.nan), numeral(-math.inf), numeral(True), numeral("as it is")
        ('not a number', '−∞', 'yes', 'as it is')
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or not isinstance(value, int | float):
        return "none" if value is None else str(value)
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else "∞" if value > 0 else "−∞"
    if isinstance(value, int) or (abs(value) < 1e6 and (value.is_integer() or abs(value) >= 1e4)):
        text = f"{round(value):,}".replace(",", "\u202f")
    elif 1e-3 <= abs(value) < 1e4:
        text = f"{value:.4g}"
    else:
        digits, exponent = f"{value:.3e}".split("e")
        digits = digits.rstrip("0").rstrip(".")
        ten = f"10{int(exponent)}"[:2] + str(int(exponent)).translate(_SUPERSCRIPT)
        text = {"1": ten, "-1": f"-{ten}"}.get(digits, f"{digits} × {ten}")
    return text.replace("-", "−")


def _array(x: Tensor | np.ndarray) -> np.ndarray:
    array = x.detach().cpu().numpy() if isinstance(x, Tensor) else x
    if array.size == 0:
        raise DataError(f"a picture needs at least one field, got shape {array.shape}")
    return array if array.dtype == np.uint8 else array.astype(np.float64)


def _fields(x: Tensor | np.ndarray) -> np.ndarray:
    """Fields of one or two axes of sites: (batch, channel, *sites)."""
    array = _array(x)
    if not 3 <= array.ndim <= 5:
        raise DataError(f"fields are drawn as (batch, channel, *sites) of one to three axes, got shape {array.shape}")
    return array[:, :, array.shape[2] // 2] if array.ndim == 5 else array


def _cells(x: np.ndarray, shown: ValueRange, scale: int | None) -> UInt8[np.ndarray, "batch height width 4"]:
    """Each field as red, green, blue and opacity."""
    if x.ndim == 3:
        return np.stack([_lines(field, shown, scale) for field in x])
    low, high = shown
    level = np.clip((np.nan_to_num(x, nan=low, posinf=high, neginf=low) - low) / (high - low), 0, 1)
    color = level if x.shape[1] == 3 else level[:, :1].repeat(3, axis=1)
    opacity = np.isfinite(x).all(axis=1, keepdims=True)
    cells = np.concatenate([np.round(255 * color), 255 * opacity], axis=1).astype(np.uint8).transpose(0, 2, 3, 1)
    scale = scale or math.ceil(CELL / max(x.shape[2:]))
    return cells.repeat(scale, axis=1).repeat(scale, axis=2)


def _lines(field: np.ndarray, shown: ValueRange, scale: int | None) -> UInt8[np.ndarray, "height width 4"]:
    """One field on one axis of sites, channel over channel; drawn large and shrunk, for smooth edges."""
    low, high = shown
    sites, fine = field.shape[-1], 3
    width = max(2, sites * (scale or math.ceil(2 * CELL / sites)))
    height = width // 2
    picture = Image.new("RGB", (fine * width, fine * height), _PAPER)
    draw = ImageDraw.Draw(picture)
    across = (np.arange(sites) + 0.5) / sites * fine * width
    for channel, values in reversed(list(enumerate(field))):
        level = np.clip((values - low) / (high - low), 0, 1)
        down = (0.94 - 0.88 * level) * fine * height
        color = _QUIET if channel else _ACCENT
        points = list(zip(across.tolist(), down.tolist(), strict=True))
        for start, end in itertools.pairwise(points):
            if math.isfinite(start[1]) and math.isfinite(end[1]):
                draw.line([start, end], fill=color, width=max(2, 5 * height // CELL))
    return np.asarray(picture.resize((width, height), Image.Resampling.LANCZOS).convert("RGBA"))


def contact_sheet(
    cells: UInt8[np.ndarray, "batch height width 4"], columns: int, gap: int
) -> UInt8[np.ndarray, "all across 4"]:
    """Cells row by row, transparent between them."""
    num, height, width, _ = cells.shape
    columns = min(columns, num)
    rows = math.ceil(num / columns)
    sheet = np.zeros((rows, height + gap, columns, width + gap, 4), dtype=np.uint8)
    for index, cell in enumerate(cells):
        row, column = divmod(index, columns)
        sheet[row, :height, column, :width] = cell
    sheet = sheet.reshape(rows * (height + gap), columns * (width + gap), 4)
    return sheet[: sheet.shape[0] - gap, : sheet.shape[1] - gap]


def _font(size: int) -> ImageFont.FreeTypeFont:
    """The font that comes with matplotlib: it has Greek letters, and is there on every machine."""
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), size)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _numbers(values: Sequence[Any]) -> Float64[np.ndarray, " n"]:
    return np.array([float(v) if _is_number(v) else math.nan for v in values], dtype=np.float64)


def _bins(spectrum: Mapping[str, Any]) -> tuple[np.ndarray, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Wavenumbers, powers and errors; what a logarithm cannot show is not a number."""
    k = _numbers(spectrum.get("k") or [])
    power: dict[str, np.ndarray] = {}
    error: dict[str, np.ndarray] = {}
    for name in ("data", "samples"):
        power[name] = _numbers(spectrum.get(name) or [])
        error[name] = _numbers(spectrum.get(f"{name}_error") or [0.0] * len(power[name]))
        if not len(k) == len(power[name]) == len(error[name]):
            raise DataError(
                f"a spectrum needs lists of one length, got {len(k)} wavenumbers, "
                f"{len(power[name])} powers of {name} and {len(error[name])} errors"
            )
        power[name] = np.where((power[name] > 0) & np.isfinite(power[name]) & (k >= 0), power[name], math.nan)
        error[name] = np.nan_to_num(np.abs(error[name]), nan=0.0, posinf=0.0)
    if np.isnan([*power["data"], *power["samples"]]).all():
        raise DataError(f"a spectrum needs a bin of positive power, got {len(k)} bins and none of them positive")
    return k, power, error


def _octaves(axes: Axes, place: np.ndarray, first: float, *, zero: bool) -> None:
    """Ticks at pi / 2^j, where the levels are; the zero mode stands over a 0."""
    last = math.floor(math.log2(place.max() / math.pi) + 1e-9)
    exponents = list(range(int(first), last + 1))
    exponents = exponents[:: -(len(exponents) // 9 + 1)]
    ticks = [math.pi * 2.0**j for j in exponents]
    labels = ["π" if j == 0 else f"{2**j}π" if j > 0 else f"π/{2**-j}" for j in exponents]
    if zero:
        ticks, labels = [*ticks, float(place.min())], [*labels, "0"]
    axes.set_xticks(ticks, labels)


def style(axes: Axes, x: str, y: str) -> None:
    """Hairlines across, no frame, quiet ticks."""
    axes.set_xlabel(x, color=_QUIET, fontsize=10)
    axes.set_ylabel(y, color=_QUIET, fontsize=10)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(_QUIET)
    axes.grid(axis="y", color=_RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_QUIET, labelsize=9.5, length=0, pad=5)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())
        axis.set_minor_formatter(NullFormatter())
        axis.set_major_formatter(FuncFormatter(lambda value, _: numeral(float(value))))


def svg(figure: Figure, name: str) -> str:
    """The figure as an ``<svg>`` element whose text stays text; the same figure gives the same bytes."""
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    return text[text.index("<svg") :]
