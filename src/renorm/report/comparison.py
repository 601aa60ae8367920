"""A comparison of runs as one HTML page that needs nothing else: the table, two curves, gains, where it is all from."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator

from renorm.errors import CheckpointError, DataError
from renorm.fit.checkpoint import atomic
from renorm.report.document import document
from renorm.report.figures import PALETTE, numeral, style, svg
from renorm.report.markup import curve, duration, figure, measured, table, words_of
from renorm.report.reading import mapping
from renorm.report.token_figures import AGAINST

__all__ = ["cells_of", "comparison_figure", "gains_told", "write_comparison"]

_COLOURS = (PALETTE["accent"], PALETTE["ink"], AGAINST, PALETTE["quiet"])
_MARKERS = "os^Dv<>ph"
_DASHES = ("-", "-.", ":")  # dashes are the floor's

Rows = Sequence[Mapping[str, Any]]


def write_comparison(folder: Path) -> Path:
    """Write ``compare.html`` beside the ``compare.json`` of a comparison.

    Raises:
        CheckpointError: If there is no comparison in the folder, or the page cannot be written.
    """
    try:
        found = mapping(folder, "compare.json")
    except DataError as error:
        raise CheckpointError(f"{folder} holds no comparison ({error}); `renorm compare` makes one") from None
    out = folder / "compare.html"
    page = _page(folder.resolve().name, found)
    with atomic(out) as temporary:
        temporary.write_bytes(page.encode("utf-8", errors="replace"))
    return out


def comparison_figure(
    rows: Rows, against: str, quality: str, *, floor: float | None = None, names: Sequence[str] = ()
) -> str:
    """The best walk of each method: quality against evaluations or seconds, both logarithmic, as SVG.

    Bars are standard errors over seeds; the dashed line is what as many training fields have, where that is known.
    No two of twelve methods have one colour and line.

    Args:
        rows: The table of ``compare.json``.
        against: ``"evaluations"`` or ``"seconds"``, per sample.
        quality: Name of the figure.
        floor: Its value for training fields.
        names: Methods in the order of their colours.

    Raises:
        DataError: If no row has a positive value.
    """
    drawing = Figure(figsize=(5.0, 3.9), layout="constrained")
    axes = drawing.add_subplot()
    ticks: set[int] = set()
    for place, name in enumerate(names):
        points = []
        for row in rows:
            value = row["quality"]["value"]
            x = row["evaluations"] if against == "evaluations" else row["seconds"]["value"]
            if row["method"] == name and row["best"] and value is not None and value > 0 and x:
                points.append((x, value, row["quality"]["error"] or 0.0))
                ticks.update([row["asked"]] if against == "evaluations" else [])
        if not points:
            continue
        x, y, error = zip(*sorted(points), strict=True)
        colour, dash = _COLOURS[place % len(_COLOURS)], _DASHES[place // len(_COLOURS) % len(_DASHES)]
        look: dict[str, Any] = {
            "color": colour,
            "linestyle": dash,
            "marker": _MARKERS[place % len(_MARKERS)],
            "markersize": 5,
        }
        axes.errorbar(x, y, error, label=_label(name), linewidth=1.4, elinewidth=1, **look)
    if not axes.has_data():
        raise DataError("a comparison needs one cell with a positive figure to be drawn, got none")
    if floor is not None and _has_line(floor):
        axes.axhline(floor, color=PALETTE["quiet"], linewidth=1, linestyle=(0, (5, 3)), label="training fields")
    axes.set(xscale="log", yscale="log")
    style(axes, "evaluations" if against == "evaluations" else "seconds per sample", quality)
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=9))
    axes.xaxis.set_major_locator(FixedLocator(sorted(ticks)) if ticks else LogLocator(subs=(1.0, 2.0, 5.0), numticks=7))
    axes.legend(frameon=False, fontsize=9, labelcolor=PALETTE["ink"])
    return svg(drawing, f"{against}-of-methods")


def cells_of(rows: Rows) -> tuple[list[int], list[tuple[str, str, dict[int, str]]]]:
    """The table as text: numbers of evaluations, and for each walk of each method what stands under each.

    A star marks the best walk of its method; evaluations in brackets are those truly made, where they are fewer.

    Example:
        >>> row = {"method": "ours", "walk": "heun@karras", "asked": 10, "evaluations": 9, "best": True}
        >>> cells_of([row | {"quality": {"value": 12.34, "error": 0.52, "seeds": 3}}])
        ([10], [('ours (3 seeds)', 'heun@karras', {10: '12.34 ± 0.52 (9) *'})])
    """
    lines: dict[tuple[str, str], dict[int, str]] = {}
    seeds: dict[tuple[str, str], int] = {}
    for row in rows:
        quality, key = row["quality"], (row["method"], row["walk"])
        text = "ran away" if quality["value"] is None else measured(quality["value"], quality["error"])
        fewer = f" ({row['evaluations']})" if row["evaluations"] != row["asked"] else ""
        lines.setdefault(key, {})[row["asked"]] = text + fewer + (" *" if row["best"] else "")
        seeds[key] = quality["seeds"]
    listed = [
        (f"{method} ({seeds[method, walk]} seeds)" if seeds[method, walk] > 1 else method, walk, cells)
        for (method, walk), cells in lines.items()
    ]
    return sorted({row["asked"] for row in rows}), listed


def gains_told(gains: Rows) -> list[str]:
    """Each gain over a white twin in a sentence.

    Example:
        >>> gains_told([{"method": "ours", "twin": "twin", "asked": 10, "value": 3.21, "error": 0.52}])
        ['gain of renormalization of ours over twin at 10 evaluations: 3.21 ± 0.52']
    """
    return [
        f"gain of renormalization of {gain['method']} over {gain['twin']} at {gain['asked']} evaluations: "
        + measured(gain["value"], gain["error"])
        + ("" if gain["error"] is not None else " (one seed: no standard error)")
        for gain in gains
    ]


def _page(name: str, found: Mapping[str, Any]) -> str:
    notes = table(found.get("notes"))
    lead = f"{len(found['runs'])} runs compared by {notes.get('figure', found['quality'])}."
    sections = [
        ("Table", "wide", _table(found)),
        ("Against evaluations", "half", _curve(found, "evaluations")),
    ]
    if any(row["seconds"]["value"] is not None for row in found["table"]):
        sections.append(("Against seconds", "half", _curve(found, "seconds")))
    if found["gains"]:
        told = "\n".join(f"<p>{escape(text[0].upper() + text[1:])}.</p>" for text in gains_told(found["gains"]))
        note = f'<p class="quiet">Gain: {escape(str(notes.get("gain", "")))}.</p>'
        sections.insert(1, ("Gain of renormalization", "wide", f"{told}\n{note}"))
    sections += [("Runs", "wide", _runs(found["runs"])), ("Versions", "wide", _facts(found))]
    body = [
        f'<section class="{kind}">\n<h2>{escape(title)}</h2>\n{content}\n</section>'
        for title, kind, content in sections
        if content
    ]
    alarms = [
        f'<p class="alarm"><strong>{title}</strong>: {escape(str(notes[key]))}.</p>'
        for key, title in (
            ("other_code", "Other code"),
            ("not_committed", "Not committed"),
            ("machines", "Several machines"),
            ("trainings", "Trainings"),
            ("not_finite", "Ran away"),
        )
        if key in notes
    ]
    head = [f'<p class="lead">{escape(lead)}</p>', *alarms]
    return document(name, "renorm comparison", head, body)


def _table(found: Mapping[str, Any]) -> str:
    numbers, lines = cells_of(found["table"])
    head = '<th scope="col">Method</th><th scope="col" style="text-align: left; padding-left: 0">Walk</th>'
    head += "".join(f'<th scope="col">{number}</th>' for number in numbers)
    body = []
    for method, walk, cells in lines:
        texts = [cells.get(n, "") for n in numbers]
        marked = "".join(
            f"<td>{escape(t)}</td>" if t.endswith("*") else f'<td style="font-weight: 400">{escape(t)}</td>'
            for t in texts
        )
        body.append(f'<tr><th scope="row">{escape(method)}</th><th>{escape(walk)}</th>{marked}</tr>')
    floor = found["floor"].get("figures", {}).get(found["quality"])
    if floor is not None:
        across = f'<td colspan="{len(numbers)}">{escape(numeral(float(floor)))}</td>'
        body.append(f'<tr><th scope="row">training fields</th><th>floor</th>{across}</tr>')
    remarks = " ".join(
        f"{words_of(key).capitalize()}: {escape(str(value))}."
        for key, value in table(found.get("notes")).items()
        if key in ("best", "seconds", "seeds", "floor")
    )
    return (
        '<div style="overflow-x: auto">\n<table class="numbers" style="max-width: none">\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n" + "\n".join(body) + "\n</tbody>\n</table>\n</div>\n"
        '<p class="quiet">Columns: evaluations of the network for a sample, at most; in brackets those truly made, '
        f"where fewer. A star: best walk of its method. {remarks}</p>"
    )


def _has_line(floor: float | None) -> bool:
    """Whether a floor can be drawn on a logarithmic axis."""
    return floor is not None and floor > 0


def _label(name: str) -> str:
    """A name as matplotlib shows it: no formula, and not hidden for its first letter."""
    return ("\u200b" if name.startswith("_") else "") + name.replace("$", r"\$")


def _curve(found: Mapping[str, Any], against: str) -> str:
    names = list(dict.fromkeys(str(run["method"]) for run in found["runs"]))
    floor = found["floor"].get("figures", {}).get(found["quality"])
    try:
        drawn = comparison_figure(found["table"], against, found["quality"], floor=floor, names=names)
    except DataError as error:
        return f'<p class="quiet">Left out: {escape(str(error))}.</p>'
    unit = "evaluations of the network" if against == "evaluations" else "seconds"
    caption = (
        f"The best walk of each method: {found['quality']} against {unit} for a sample; bars are standard errors over "
        f"seeds{', the dashed line is that of as many training fields' if _has_line(floor) else ''}."
    )
    return figure(curve(drawn, against, caption), caption)


def _runs(runs: Rows) -> str:
    heads = ("Run", "Method", "Seed", "Parameters", "Fitted in", "Commit", "Machine", "SHA-256 of weights")
    body = []
    for run in runs:
        known = run["method"] if run["baseline"] is None else f"{run['method']} ({run['baseline']})"
        hashes = " ".join(f"{name}: {digest[:16]}" for name, digest in run["weights_sha256"].items())
        seconds = run.get("seconds")
        took = duration(seconds) if isinstance(seconds, int | float) and math.isfinite(seconds) else ""
        number = numeral(run["parameters"]) if "parameters" in run else ""
        cells = (known, str(run["seed"]), number, took, str(run.get("commit", "")), str(run.get("machine", "")), hashes)
        row = "".join(f'<td style="padding-right: 1rem">{escape(cell)}</td>' for cell in cells)
        body.append(f'<tr><th scope="row">{escape(str(run["run"]))}</th>{row}</tr>')
    head = "".join(f'<th scope="col">{text}</th>' for text in heads)
    return (
        '<div style="overflow-x: auto">\n<table style="max-width: none">\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n" + "\n".join(body) + "\n</tbody>\n</table>\n</div>"
    )


def _facts(found: Mapping[str, Any]) -> str:
    facts = dict(table(found.get("versions")))
    cells = found["cells"]
    if cells:
        by = cells[0]["provenance"]
        facts |= {key: by[key] for key in ("extractor", "extractor_sha256", "reference_sha256") if by.get(key)}
    facts["commits_of_cells"] = ", ".join(sorted({str(cell["provenance"]["commit"]) for cell in cells}))
    facts["machines_of_cells"] = "; ".join(sorted({str(cell["provenance"].get("machine", "")) for cell in cells}))
    facts["dates_of_cells"] = ", ".join(sorted({str(cell["provenance"]["date"]) for cell in cells}))
    rows = "\n".join(
        f'<tr><th scope="row">{words_of(key)}</th><td>{escape(numeral(value))}</td></tr>'
        for key, value in facts.items()
    )
    return f'<table class="facts">\n<tbody>\n{rows}\n</tbody>\n</table>'
