"""Curves of a cascade's run: observables beside what they should be, log weights, nats and couplings of each level."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from renorm.errors import DataError
from renorm.report.figures import PALETTE, numeral, style, svg

__all__ = ["couplings_figure", "encoded_figure", "levels_figure", "observables_figure", "weights_figure"]

BINS = 60  # of the histogram of log weights
FAR = 6.0  # standard errors at which an arrow stands for all that lies further out
CURVES = 12  # most couplings that are drawn

_INK, _QUIET, _ACCENT = (PALETTE[role] for role in ("ink", "quiet", "accent"))


def observables_figure(rows: Sequence[Mapping[str, Any]]) -> str:
    r"""How far each observable lies from what it should be, as SVG; empty where nothing can be compared.

    $$ z = \frac{a - a_0}{\sqrt{\sigma^2 + \sigma_0^2}}, \qquad \sigma_0 = 0 \text{ for an exact answer} $$

    Args:
        rows: With ``name``, ``value``, ``error``, and ``exact`` or ``reference`` and ``reference_error``.
    """
    found = []
    for row in rows:
        exact = "exact" in row
        known, error = row.get("exact" if exact else "reference"), 0.0 if exact else row.get("reference_error", 0.0)
        spread = math.hypot(row.get("error", 0.0), error or 0.0)
        if known is not None and spread > 0 and "value" in row:
            found.append((str(row["name"]).replace("_", " "), (row["value"] - known) / spread, exact))
    if not found:
        return ""
    drawing = Figure(figsize=(5.0, 0.9 + 0.36 * len(found)), layout="constrained")
    axes = drawing.add_subplot()
    for band, strength in ((2, 0.10), (1, 0.16)):
        axes.axvspan(-band, band, color=_QUIET, alpha=strength, linewidth=0)
    axes.axvline(0, color=_INK, linewidth=0.8)
    for place, (_, z, exact) in enumerate(found):
        shown, marker = (z, "o") if abs(z) <= FAR else (math.copysign(FAR, z), ">" if z > 0 else "<")
        axes.plot(shown, place, marker, color=_ACCENT, markersize=7, markerfacecolor=_ACCENT if exact else "none")
    style(axes, "standard errors", "")
    axes.set(xlim=(-FAR - 0.5, FAR + 0.5), ylim=(len(found) - 0.4, -0.6), xticks=[-4, -2, 0, 2, 4])
    axes.grid(visible=False)
    axes.set_yticks(range(len(found)), [name for name, _, _ in found])
    return svg(drawing, "observables")


def weights_figure(arrays: Mapping[str, np.ndarray], figures: Mapping[str, Any]) -> tuple[str, str]:
    r"""Histogram of $\ln w = -S - \ln q$ over draws of the model and over fields of the law, as SVG, and a caption.

    Args:
        arrays: ``model`` and, if known, ``target``: log weights.
        figures: ``log_z``, ``log_z_exact`` and ``ess``, where known.

    Raises:
        DataError: If no log weight is finite.
    """
    finite = {
        key: a[np.isfinite(a)]
        for key, a in ((k, arrays[k].astype(float).ravel()) for k in ("model", "target") if k in arrays)
    }
    if not finite.get("model", np.empty(0)).size:
        raise DataError("a histogram of log weights needs a finite one, got none")
    everything = np.concatenate(list(finite.values()))
    low, high = np.quantile(everything, [0.01, 0.998])
    low, high = (low - 0.5, high + 0.5) if high - low < 1e-9 else (low, high)
    drawing = Figure(figsize=(5.0, 3.7), layout="constrained")
    axes = drawing.add_subplot()
    edges = np.linspace(low, high, BINS + 1)
    for key, color, label in (("target", _QUIET, "fields of the law"), ("model", _ACCENT, "draws of the model")):
        if key in finite:
            density, _ = np.histogram(np.clip(finite[key], low, high), edges, density=True)
            axes.stairs(
                density, edges, color=color, label=label, fill=key == "model", alpha=0.35 if key == "model" else 1
            )
            if key == "model":
                axes.stairs(density, edges, color=color, linewidth=1.2)
    known = "log_z_exact" if "log_z_exact" in figures else "log_z_bar" if "log_z_bar" in figures else "log_z"
    if isinstance(figures.get(known), int | float):
        axes.axvline(figures[known], color=_INK, linewidth=1, label="ln Z")
    axes.legend(frameon=False, fontsize=10, labelcolor=_INK)
    style(axes, "ln w  [nats]", "density")
    axes.set_ylim(bottom=0)
    share = figures.get("ess")
    ess = f" Effective sample size {numeral(share)}." if isinstance(share, int | float) else ""
    lost = int((arrays["model"].astype(float) == -np.inf).sum())
    means = "Their mean is a lower bound of ln Z over draws of the model, an upper bound over fields of the law."
    if lost:
        means = f"{numeral(lost)} of {numeral(arrays['model'].size)} draws weigh nothing, and are left out."
    return svg(drawing, "weights"), f"Log weights; a perfect model has one value, ln Z. {means}{ess}"


def levels_figure(arrays: Mapping[str, np.ndarray]) -> tuple[str, str]:
    """Nats per number that each level adds, on test fields, as SVG, and a caption.

    Args:
        arrays: ``nats`` per number and ``error``, finest first, and ``numbers``: how many numbers each level has.

    Raises:
        DataError: If the lists differ in length.
    """
    nats, numbers = arrays["nats"].astype(float).ravel(), arrays["numbers"].ravel()
    error = arrays.get("error", np.zeros_like(nats)).astype(float).ravel()
    if not len(nats) == len(numbers) == len(error) or not len(nats):
        raise DataError(f"levels need lists of one length, got {len(nats)} nats for {len(numbers)} levels")
    drawing = Figure(figsize=(5.0, 3.7), layout="constrained")
    axes = drawing.add_subplot()
    place = np.arange(len(nats))
    axes.errorbar(place, nats, np.nan_to_num(error), fmt="o-", color=_ACCENT, markersize=4, elinewidth=1, linewidth=1)
    style(axes, "level (numbers it adds)", "nats per number")
    top = len(nats) - 1
    each = max(1, math.ceil(len(nats) / 8))
    ticks = [index for index in place.tolist() if index % each == 0 or index == top]
    axes.set_xticks(ticks, [f"{'top' if index == top else index}\n{numeral(int(numbers[index]))}" for index in ticks])
    caption = (
        "Mean of −ln p of test fields, each level by itself, per number that it adds; the finest level is 0, and the "
        "top is the law of the coarsest field. Bars are standard errors."
    )
    return svg(drawing, "levels"), caption


def couplings_figure(arrays: Mapping[str, np.ndarray]) -> tuple[str, str]:
    """Couplings at each level, finest first, as SVG, and a caption.

    Args:
        arrays: A curve for each name: one value a level; ``NAME_error`` are its errors, ``levels`` the levels' numbers.

    Raises:
        DataError: If there is no curve, or they differ in length.
    """
    named = {key: a for key, a in arrays.items() if not key.endswith("_error") and key != "levels"}
    curves = {key: a.astype(float).ravel() for key, a in named.items()}
    lengths = {len(curve) for curve in curves.values()}
    if not curves or len(lengths) != 1 or lengths == {0}:
        raise DataError(f"a flow of couplings needs one value for each level, got curves of {sorted(lengths)} levels")
    drawing = Figure(figsize=(5.0, 3.7), layout="constrained")
    axes = drawing.add_subplot()
    loudest = sorted(curves, key=lambda key: -float(np.nanmax(np.abs(curves[key]), initial=0.0)))[:CURVES]
    for number, key in enumerate(loudest):
        error = arrays.get(f"{key}_error")
        bars = None if error is None or error.size != curves[key].size else np.nan_to_num(error.astype(float).ravel())
        place = np.arange(len(curves[key]))
        look: dict[str, Any] = {
            "fmt": "o-",
            "markersize": 4,
            "elinewidth": 1,
            "linewidth": 1,
            "label": key.replace("_", " "),
        }
        axes.errorbar(place, curves[key], bars, color=_ACCENT, alpha=1 - 0.75 * number / len(loudest), **look)
    axes.axhline(0, color=_INK, linewidth=0.8)
    axes.legend(frameon=False, fontsize=9, labelcolor=_INK)
    style(axes, "level", "coupling")
    number = lengths.pop()
    levels = arrays.get("levels", np.arange(number)).ravel().tolist()
    axes.set_xticks(range(number), [str(level) for level in (levels if len(levels) == number else range(number))])
    left = f" {len(curves) - CURVES} smaller ones are left out." if len(curves) > CURVES else ""
    return svg(drawing, "couplings"), f"Couplings of the effective action at each level, level 0 the finest.{left}"


def encoded_figure(arrays: Mapping[str, np.ndarray]) -> tuple[str, str]:
    """What each level sees, moves and encodes, finest first, as SVG, and a caption.

    Args:
        arrays: ``sees`` and ``moves`` (levels, rows, columns), ``field`` and ``other`` (rows, columns), and ``swapped``
            (levels + 1, rows, columns): the field with each level's detail of the other, the coarsest field last.

    Raises:
        DataError: If the shapes do not go together.
    """
    sees, moves, changed = (arrays[key].astype(float) for key in ("sees", "moves", "swapped"))
    field, other = (arrays[key].astype(float) for key in ("field", "other"))
    levels = len(sees)
    right = sees.ndim == 3 and moves.shape == sees.shape and changed.shape == (levels + 1, *sees.shape[1:])
    if not right or not levels or field.shape != sees.shape[1:] or other.shape != field.shape:
        shapes = ", ".join(f"{key} {arrays[key].shape}" for key in ("sees", "moves", "field", "other", "swapped"))
        raise DataError(f"what levels encode needs maps of one shape, one a level, got {shapes}")
    columns = levels + 2
    drawing = Figure(figsize=(0.95 * columns + 0.4, 3.4), layout="constrained")
    panels = drawing.subplots(3, columns, squeeze=False)
    for axes in panels.flat:
        axes.set_axis_off()
    low, high = (float(edge(np.concatenate([field, other]))) for edge in (np.min, np.max))
    for row, (title, maps) in enumerate((("sees", sees), ("moves", moves))):
        for level, each in enumerate(maps):
            # Square roots: what is weak is still seen.
            panels[row, level + 1].imshow(np.sqrt(each / max(each.max(), 1e-12)), cmap="Greys", vmin=0, vmax=1)
            panels[row, level + 1].set_axis_on()
            panels[row, level + 1].set(xticks=[], yticks=[])
            panels[row, level + 1].spines[:].set(color=_QUIET, linewidth=0.5)
            if row == 0:
                panels[row, level + 1].set_title(f"level {level + 1}", fontsize=9, color=_QUIET)
        panels[row, 0].text(1, 0.5, title, ha="right", va="center", fontsize=9, color=_INK)
    look: dict[str, Any] = {"cmap": "Greys", "vmin": low, "vmax": high}
    for place, (title, each) in enumerate([("field", field), *(("", one) for one in changed)]):
        panels[2, place].imshow(each, **look)
        panels[2, place].set_title("coarsest" if place == columns - 1 else title, fontsize=9, color=_QUIET)
    panels[1, columns - 1].imshow(other, **look)
    panels[1, columns - 1].set_title("other", fontsize=9, color=_QUIET)
    caption = (
        "Top: how much a number in the middle of each coarse field hears of every site; level 0 is the finest. Middle: "
        "how much a detail of the step to that level moves every site, all else held. Bottom: a field, and the same "
        "with that step's detail of another field; the last has the other's coarsest field."
    )
    return svg(drawing, "encoded"), caption
