"""The table of key figures of a run, each beside its error and its floor, and what must not be overlooked."""

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from renorm.errors import DataError
from renorm.report.figures import numeral
from renorm.report.markup import measured, table, words_of
from renorm.report.reading import mapping

__all__ = ["alarms", "key_figures", "observables_of"]

ALARMS = {
    "collapsed": "Collapsed fit",
    "mode_lost": "Lost mode",
    "both_ends": "Missed part",
    "memorised": "Near to training images",
    "not_finite": "Samples without a value",
}
"""Notes that stand at the head of the page."""

SAID = ("memorisation", "memorised")
"""Notes that stand beside the pictures."""


def key_figures(run: Path) -> str:
    """The section: every figure of ``measures.json``, with what as many training fields have, the floor.

    Raises:
        DataError: If there are no figures.
    """
    measures = mapping(run, "measures.json")
    figures, notes = table(measures.get("figures")), table(measures.get("notes"))
    if not figures:
        raise DataError("measures.json holds no figures")
    listed = {str(row["name"]) for row in observables_of(measures)}  # these have a table of their own
    floors = any(key.endswith("_floor") for key in figures)
    rows = []
    for key, value in figures.items():
        of = key.removesuffix("_error").removesuffix("_floor")
        if of in listed or (of != key and of in figures):  # errors and floors stand beside their value
            continue
        # An exact answer is shown to as many digits as what is held against it.
        error = figures.get(f"{key.removesuffix('_exact')}_error")
        text = measured(value, error, shown=not key.endswith("_exact"))
        floor = measured(figures[f"{key}_floor"], error, shown=False) if f"{key}_floor" in figures else ""
        cells = f"<td>{escape(text)}</td>" + (f"<td>{escape(floor)}</td>" if floors else "")
        rows.append(f'<tr><th scope="row">{words_of(key)}</th>{cells}</tr>')
    remarks = " ".join(
        f"{words_of(key).capitalize()}: {escape(numeral(value))}." for key, value in notes.items() if key not in SAID
    )
    head = "".join(f'<th scope="col">{text}</th>' for text in ("Figure", "Value", "Floor")[: 3 if floors else 2])
    return (
        f'<table class="numbers">\n<thead><tr>{head}</tr></thead>\n<tbody>\n'
        + "\n".join(rows)
        + "\n</tbody>\n</table>"
        + (f'\n<p class="quiet">{remarks}</p>' if remarks else "")
    )


def alarms(run: Path) -> list[str]:
    """What must not be overlooked: a fit that has collapsed, samples that are training images."""
    notes = table(mapping(run, "measures.json", quiet=True).get("notes"))
    return [
        f'<p class="alarm"><strong>{title}</strong>: {escape(str(notes[key]))}.</p>'
        for key, title in ALARMS.items()
        if key in notes
    ]


def observables_of(measures: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Observables with a name."""
    found = measures.get("observables")
    return [row for row in found if isinstance(row, dict) and "name" in row] if isinstance(found, list) else []
