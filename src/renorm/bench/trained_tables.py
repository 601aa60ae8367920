"""What a benchmark of trained networks keeps of a comparison: flat figures, rows, and notes on how to read them."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from renorm.fit.record import read_metrics
from renorm.recipes.compare import Comparison
from renorm.recipes.compare_cells import Cell
from renorm.recipes.compare_methods import Row, figures_of, mean_over_seeds
from renorm.recipes.compare_notes import place, trained_by

__all__ = ["figures", "method_of", "notes", "table"]

BESIDE = {
    "sw": "sliced_wasserstein",
    "kid": "KID[",
    "recall": "recall[",
    "coverage": "coverage[",
    "spectrum": "spectrum_max_log_ratio",
}
"""Key -> how the name of the figure begins in a cell, which ends with that of the extractor."""


def figures(found: Comparison, headline: Sequence[int], fixed: Sequence[str]) -> dict[str, float]:
    """The keys that others read: ``fd_ours_10``, ``fd_edm_best_10``, ``fd_ddpm_ancestral_200``, ``fd_floor``.

    Beside the quality, at the numbers of the headline, stand other figures of the same cells, those of the walk that is
    best by quality: ``sw_edm_10``, ``kid_edm_10``, ``recall_edm_10``, ``coverage_edm_10``, ``spectrum_edm_10``, each a
    mean over seeds with its ``_error``, where the cells have it. A method whose every walk ran away has no figure.

    Args:
        found: The comparison.
        headline: Numbers of evaluations at which every method competes.
        fixed: Methods that are called by their name alone, without ``best``.
    """

    def called(row: Row) -> str:
        if row.method in fixed:
            return row.method
        return f"{row.method} {'best' if row.asked in headline else 'ancestral'}"

    floor = found.floor.get("figures", {}).get(found.quality)
    named = [replace(row, method=called(row)) for row in found.rows]
    flat = figures_of(found.quality, named, found.gains, floor)
    numbers = {key: float(value) for key, value in flat.items() if not isinstance(value, str)}
    numbers = {key: value for key, value in numbers.items() if not key.endswith("_seconds")}
    for row in found.rows:
        if row.best and row.asked in headline:
            numbers |= _beside(row, _cells(row, found.cells), found.quality)
    return numbers


def table(title: str, found: Comparison) -> list[dict[str, Any]]:
    """A row for each method, walk and number of evaluations."""
    runs = {method.name: method.runs for method in found.methods}
    rows = []
    for row in found.rows:
        cells = _cells(row, found.cells)
        seconds = [read_metrics(run.folder / "metrics.jsonl")[-1]["seconds"] for run in runs[row.method]]
        rows.append(
            {
                "cells": title,
                "method": row.method,
                "walk": row.walk,
                "asked": row.asked,
                "evaluations": row.evaluations,
                found.quality: row.quality.value,
                "error": row.quality.error,
                "spectrum": mean_over_seeds([cell.figures.get(BESIDE["spectrum"]) for cell in cells]).value,
                "seeds": row.quality.seeds,
                "best": row.best,
                "training_seconds": statistics.fmean(seconds),
                "trained_by": _distinct(trained_by(run.manifest) for run in runs[row.method]),
                "commits": _distinct((str(cell.provenance["commit"]) for cell in cells), ", "),
                "measured_on": _distinct(place(cell.provenance) for cell in cells),
            }
        )
    return rows


def notes(found: Mapping[str, Comparison], headline: Sequence[int]) -> dict[str, str]:
    """How to read the figures and rows: a note of all titles under its key, others under ``TITLE_KEY``.

    Args:
        found: The comparisons by their titles.
        headline: Numbers of evaluations of the figures, which are from the first comparison.
    """
    first = next(iter(found.values()))
    told: dict[str, str] = {}
    for title, each in found.items():
        for key, text in each.notes.items():
            shared = all(other.notes.get(key) == text for other in found.values())
            told[key if shared else f"{title}_{key}"] = text
    walks = [f"{row.method} at {row.asked} {row.walk}" for row in first.rows if row.best and row.asked in headline]
    if walks:
        told["beside"] = (
            f"{', '.join(BESIDE)} are those of each method's best walk by {first.quality}, not by themselves: "
            f"{', '.join(walks)}"
        )
    return told


def method_of(run: str) -> str:
    """The method of a run.

    Example:
        >>> method_of("rgdm-paper-0")
        'rgdm-paper'
    """
    return run.rpartition("-")[0]


def _beside(row: Row, cells: Sequence[Cell], quality: str) -> dict[str, float]:
    """Further figures of the cells of a row; the quality itself has its own keys."""
    told: dict[str, float] = {}
    for short, start in BESIDE.items():
        names = dict.fromkeys(key for cell in cells for key in cell.figures if key.startswith(start))
        for name in (key for key in names if not key.endswith("_error") and key != quality):
            mean, key = mean_over_seeds([cell.figures.get(name) for cell in cells]), f"{short}_{_slug(row)}"
            if mean.value is not None:
                told[key] = mean.value
            if mean.error is not None:
                told[f"{key}_error"] = mean.error
    return told


def _slug(row: Row) -> str:
    return f"{row.method.replace('-', '_')}_{row.asked}"


def _cells(row: Row, cells: Iterable[Cell]) -> list[Cell]:
    """Those that a row is the mean of."""
    where = (row.method, row.walk, row.evaluations)
    return [cell for cell in cells if (method_of(Path(cell.run).name), cell.walk, cell.evaluations) == where]


def _distinct(texts: Iterable[str], between: str = "; ") -> str:
    return between.join(sorted(set(texts)))
