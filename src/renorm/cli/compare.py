"""The command that sets runs beside each other."""

import argparse
from pathlib import Path
from typing import Any

from renorm.cli.output import say
from renorm.errors import RecipeError

__all__ = ["compare"]


def compare(options: argparse.Namespace) -> None:
    """Measure what is not yet measured, write the table and the page."""
    from renorm.fit.progress import Counted
    from renorm.recipes.compare import compare as compare_runs
    from renorm.report.comparison import write_comparison

    out = Path(options.out)
    with Counted("compare", "cells", shown=not options.quiet) as told:
        try:
            found = compare_runs(
                options.run,
                evaluations=_numbers(options.evaluations),
                walks=None if options.walks is None else options.walks.split(","),
                samples=options.num,
                seed=options.seed,
                out=out,
                cached="again" if options.again else "accept" if options.accept_cached else "refuse",
                progress=lambda done, cells, what: told(done, cells),
            )
        except KeyboardInterrupt:
            raise KeyboardInterrupt("interrupted; cells that were measured stay, the same command goes on") from None
    page = write_comparison(out)
    figures = {**found.figures, "table": str(out / "compare.json"), "report": str(page)}
    say(options, figures, f"{_text(found.to_mapping())}\nreport: {page}")


def _numbers(text: str) -> list[int]:
    """Example: 5,10,20."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) >= 1 for part in parts):
        raise RecipeError(f"--evaluations takes whole numbers >= 1, such as 5,10,20, got '{text}'")
    return [int(part) for part in parts]


def _text(found: dict[str, Any]) -> str:
    """The table for a terminal."""
    from renorm.report.comparison import cells_of, gains_told

    numbers, lines = cells_of(found["table"])
    rows = [["method", "walk", *map(str, numbers)]]
    rows += [[method, walk, *(cells.get(n, "") for n in numbers)] for method, walk, cells in lines]
    floor = found["floor"].get("figures", {}).get(found["quality"])
    if floor is not None:
        rows.append(["training fields", "floor", f"{floor:.4g}"])
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(len(rows[0]))]
    table = ["  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=False)).rstrip() for row in rows]
    notes = [f"{key.replace('_', ' ')}: {value}" for key, value in found["notes"].items()]
    return "\n".join([*table, "", *gains_told(found["gains"]), *notes])
