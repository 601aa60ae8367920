"""The one shape of every benchmark's result, and where it is kept."""

from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from renorm.bench import BENCHMARKS
from renorm.errors import RecipeError
from renorm.recipes.folder import machine, write_json

__all__ = ["Result", "run_benchmark"]


@dataclass(frozen=True)
class Result:
    """Flat figures, and a table for people to read.

    Attributes:
        figures: Flat key -> number: what later runs are compared by.
        table: Rows, each a flat dict.
        seeds: Seeds that it used; empty if nothing is random.
        comparisons: Folders with a ``compare.json``, of which the command makes pages.
        notes: How to read the rest.
    """

    figures: dict[str, float]
    table: list[dict[str, Any]] = field(default_factory=list)
    seeds: tuple[int, ...] = ()
    comparisons: tuple[Path, ...] = ()
    notes: dict[str, str] = field(default_factory=dict)


def run_benchmark(name: str, *, seed: int = 0, keep: Path | None = None) -> dict[str, Any]:
    """Run a benchmark; its result with command, commit, date and machine, kept in ``keep/NAME.json`` if given.

    Raises:
        RecipeError: If there is no such benchmark.
    """
    if name not in BENCHMARKS:
        raise RecipeError(f"unknown benchmark '{name}'; known: {', '.join(BENCHMARKS)}")
    result: Result = import_module(f"renorm.bench.{BENCHMARKS[name]}").run(seed)
    where = machine()
    report = {
        "bench": name,
        "command": f"renorm bench {name} --json" + (f" --seed {seed}" if seed else ""),
        "commit": where["commit"],
        "date": where["date"],
        "machine": where["machine"],
        "versions": {key: where[key] for key in ("renorm", "python", "torch")},
        "seeds": list(result.seeds),
        "figures": result.figures,
        "table": result.table,
    }
    if result.notes:
        report["notes"] = result.notes
    if result.comparisons:
        report["comparisons"] = [str(folder) for folder in result.comparisons]
    if keep is not None:
        write_json(keep / f"{name}.json", report)
    return report
