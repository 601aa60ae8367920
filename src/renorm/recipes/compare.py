"""Runs beside each other: quality against evaluations and against seconds, over walks and seeds.

OUT/cells/*.json  compare.json          each cell as soon as it is measured; then the table
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from renorm.diffusion.build import make_sampler, make_spacing
from renorm.diffusion.spacing import SPACINGS
from renorm.diffusion.spec import BY_SPECTRUM, DiffusionSpec
from renorm.errors import RecipeError
from renorm.recipes.baselines import WalkName, default_walks
from renorm.recipes.compare_cells import (
    Cached,
    Cell,
    Plan,
    Yardstick,
    as_cell,
    measure_cell,
    measure_floor,
    read_cell,
)
from renorm.recipes.compare_methods import Entry, Gain, Row, figures_of, gains_of, rows_of
from renorm.recipes.compare_notes import notes_of
from renorm.recipes.compare_runs import Method, Subject, comparable, methods_of, subject
from renorm.recipes.folder import write_json
from renorm.recipes.run import Model, load_run
from renorm.recipes.spec import Recipe
from renorm.spec import require

__all__ = ["Comparison", "compare", "quality_of"]

EVALUATIONS = (5, 10, 20, 50)

Told = Callable[[int, int, str], None]
"""Called with (cells done, cells to measure, the next one) before each cell and at the end."""


@dataclass(frozen=True)
class Comparison:
    """What came out.

    Attributes:
        quality: The figure by which methods are compared; small is good.
        figures: Flat keys, see `renorm.recipes.compare_methods.figures_of`.
        rows: The table.
        gains: Over white twins, where both are there.
        methods: Runs that differ by their seed alone, under one name.
        cells: Every cell, with all its figures and where it is from.
        floor: The figures of as many training fields; empty where there are none.
        notes: How to read it.
        code: Commit, versions and machine of the comparison itself, as it began.
    """

    quality: str
    figures: dict[str, Any]
    rows: tuple[Row, ...]
    gains: tuple[Gain, ...]
    methods: tuple[Method, ...]
    cells: tuple[Cell, ...]
    floor: dict[str, Any]
    notes: dict[str, str]
    code: dict[str, Any] = field(default_factory=dict)

    def to_mapping(self) -> dict[str, Any]:
        """All of it for JSON."""
        return {
            "quality": self.quality,
            "figures": self.figures,
            "notes": self.notes,
            "table": [asdict(row) | _flat(row) for row in self.rows],
            "gains": [asdict(gain) for gain in self.gains],
            "runs": [_about(run, method) for method in self.methods for run in method.runs],
            "floor": self.floor,
            "cells": [asdict(cell) for cell in self.cells],
            "versions": self.code,
        }


def compare(
    runs: Sequence[Path | str],
    *,
    evaluations: Sequence[int] = EVALUATIONS,
    walks: Sequence[str] | None = None,
    samples: int = 2000,
    seed: int = 1,
    out: Path | str = "compare",
    cached: Cached = "refuse",
    progress: Told | None = None,
) -> Comparison:
    """Measure runs at several numbers of evaluations, each by several walks, and put them into one table.

    Each cell is written when it is measured, so a comparison that was killed goes on where it stopped. Runs that differ
    by their seed alone are one method, with a mean and a standard error. A model that draws in one pass has one
    cell, at one evaluation.

    Args:
        runs: Folders of runs of one data set, with one extractor.
        evaluations: Of the network, for each sample; a sampler that cannot make such a number makes the next smaller.
        walks: ``SAMPLER@SPACING``, or ``SAMPLER`` at the spacing of the run; by default those of its baseline, else
            its own and five samplers of one evaluation a step. A white twin takes those of the method that it is of.
        samples: In each cell.
        seed: Of the sampling.
        out: Folder of the cells and of ``compare.json``.
        cached: What to do with cells that another commit has measured: ``"refuse"``, measure ``"again"``, ``"accept"``.
        progress: Told before each cell.

    Raises:
        CheckpointError: If a run is not finished, or a cell is from other code and ``cached`` is ``"refuse"``.
        DataError: If runs are of different data, sizes or value ranges, or there are too few samples.
        RecipeError: If runs differ in their extractor, one stands there twice, or a walk is unknown.

    Example:
        >>> import tempfile
        >>> from renorm import fit_run, load_recipe
        >>> small = {"data.shape": [8, 8], "data.number": 200}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name, schedule in (("ours", "rgdm"), ("white", "white")):
        ...         recipe = load_recipe("gaussian", small | {"model.schedule": schedule})
        ...         _ = fit_run(recipe, Path(folder, name), progress=False)
        ...     both = [Path(folder, "ours"), Path(folder, "white")]
        ...     table = compare(both, evaluations=[4, 8], walks=["ddim"], samples=200, out=Path(folder, "compare"))
        >>> [(row.method, row.asked) for row in table.rows]
        [('ours', 4), ('ours', 8), ('white', 4), ('white', 8)]
        >>> table.figures["sliced_wasserstein_ours_8"] < table.figures["sliced_wasserstein_white_4"]
        True
    """
    require(len(runs) >= 1, "a comparison needs at least one run", len(runs))
    require(samples >= 2, "samples must be >= 2 (an error bar needs two)", samples)
    require(len(evaluations) >= 1, "evaluations must name a number", list(evaluations))
    require(all(n >= 1 for n in evaluations), "evaluations must be >= 1", list(evaluations))
    subjects = [subject(Path(run)) for run in runs]
    test = comparable(subjects)
    methods = methods_of(subjects)
    first = subjects[0].recipe
    yardstick = Yardstick.of(first.data, replace(first.measure, samples=samples), test)
    places = [
        (method, plan, asked)
        for method in methods
        for run in method.runs
        for plan, asked in _plans(run, sorted(set(evaluations)), _named(method, methods, run, walks))
    ]
    folder = Path(out) / "cells"
    floor = measure_floor(yardstick, folder, cached)
    cells = _measure([plan for _, plan, _ in places], yardstick, seed, folder, cached, progress)
    paths = [plan.path(folder, yardstick, seed) for _, plan, _ in places]
    quality = quality_of([cells[path].figures for path in paths])
    rows = rows_of(_entry(m, cells[path], asked, quality) for (m, _, asked), path in zip(places, paths, strict=True))
    gains = gains_of(rows, {method.name: method.twin for method in methods if method.twin})
    least = floor.get("figures", {}).get(quality)
    found = Comparison(
        quality=quality,
        figures=figures_of(quality, rows, gains, least),
        rows=tuple(rows),
        gains=tuple(gains),
        methods=tuple(methods),
        cells=tuple(cells[path] for path in dict.fromkeys(paths)),
        floor=floor,
        notes=notes_of(quality, samples, seed, yardstick, methods, gains, list(cells.values()), floor),
        code=yardstick.code,
    )
    write_json(Path(out) / "compare.json", found.to_mapping())
    return found


def quality_of(figures: Sequence[dict[str, Any]]) -> str:
    """The figure by which cells are compared: a Frechet distance, else the sliced Wasserstein distance."""
    return next((key for each in figures for key in each if key.startswith("FD[")), "sliced_wasserstein")


def _named(method: Method, methods: Sequence[Method], run: Subject, walks: Sequence[str] | None) -> list[WalkName]:
    """The walks of a run: those asked for, else those of its method, or of the method whose white twin it is."""
    if not isinstance(run.recipe, Recipe):
        return []
    if walks is not None:
        return [WalkName.parse(text, run.recipe.model.spacing) for text in walks]
    judged = [each for each in methods if each.twin == method.name] or [method]
    of_all = (one.recipe for each in judged for one in each.runs)
    return [walk for recipe in of_all if isinstance(recipe, Recipe) for walk in default_walks(recipe)]


def _plans(run: Subject, evaluations: Sequence[int], named: Sequence[WalkName]) -> list[tuple[Plan, int]]:
    """The cells of a run, each with the number of evaluations that it was asked for."""
    if not isinstance(run.recipe, Recipe):
        return [(Plan(run, None, None, 1), 1)]
    spec = run.recipe.model
    plans = []
    for walk in dict.fromkeys(_resolved(walk, spec, run) for walk in named):
        step = make_sampler(walk.sampler).evaluations
        for asked in evaluations:
            steps = (asked + step - 1) // step  # the last step to clean data is one evaluation
            plans.append((Plan(run, walk, steps, steps * step - step + 1), asked))
    return plans


def _resolved(walk: WalkName, spec: DiffusionSpec, run: Subject) -> WalkName:
    """The walk with the spacing's own name in place of ``auto``; refused where the run cannot take it."""
    if walk.spacing == "auto":
        spacing = make_spacing(replace(spec, spacing="auto"), None)
        own = next(name for name, kind in SPACINGS.items() if kind is type(spacing))
        return walk._replace(spacing=own)
    if walk.spacing not in SPACINGS:
        raise RecipeError(f"unknown spacing '{walk.spacing}'; known: {', '.join(SPACINGS)}")
    if walk.spacing in BY_SPECTRUM and "moments.safetensors" not in run.weights:
        raise RecipeError(f"walk '{walk}' needs the data's spectrum, which {run.folder} was fitted without")
    return walk


def _measure(
    plans: Sequence[Plan], yardstick: Yardstick, seed: int, folder: Path, cached: Cached, progress: Told | None
) -> dict[Path, Cell]:
    """Every cell by its file: those that are there are read, the others measured, run by run."""
    wanted = {plan.path(folder, yardstick, seed): plan for plan in plans}
    kept = {path: read_cell(path, cached, yardstick.code) for path in wanted}  # refuses before anything is measured
    cells = {path: as_cell(cell, wanted[path].subject.folder, path) for path, cell in kept.items() if cell is not None}
    missing = [(path, plan) for path, plan in wanted.items() if path not in cells]
    run: Path | None = None
    model: Model | None = None
    for done, (path, plan) in enumerate(missing):
        if progress is not None:
            progress(done, len(missing), f"{plan.subject.folder} {plan.walk or ''} {plan.evaluations}")
        if model is None or run != plan.subject.folder:
            run, model = plan.subject.folder, load_run(plan.subject.folder)
        cells[path] = measure_cell(plan, model, yardstick, seed, path)
    if progress is not None:
        progress(len(missing), len(missing), "")
    return cells


def _entry(method: Method, cell: Cell, asked: int, quality: str) -> Entry:
    ran_away = "not_finite" in cell.notes
    value = None if ran_away else cell.figures.get(quality)
    return Entry(method.name, cell.walk, asked, cell.evaluations, value, cell.seconds_per_sample)


def _flat(row: Row) -> dict[str, Any]:
    """Means as tables, which JSON would make lists of."""
    return {"quality": row.quality._asdict(), "seconds": row.seconds._asdict()}


def _about(run: Subject, method: Method) -> dict[str, Any]:
    """A run's provenance, for people."""
    manifest = run.manifest
    return {
        "run": str(run.folder),
        "method": method.name,
        "baseline": method.baseline,
        "white_twin": method.twin,
        "seed": run.seed,
        "weights_sha256": run.weights,
        **{
            key: manifest[key]
            for key in ("parameters", "seconds", "commit", "machine", "torch", "renorm", "date")
            if key in manifest
        },
    }
