r"""Five ways to learn the same pictures, of equal budget, judged at equal evaluations of the network.

The recipe as it is shipped ("ours"), its white twin, EDM and DDPM are trained from three seeds, the diffusion of the
paper from one: the same data, network and steps, ``STEPS`` for all. Then their samples are compared:

* curve: 2000 samples of the first seed at 5 to 50 evaluations, DDPM's ancestral sampler (large variance) at 100 and 200
  too;

* headline: 5000 samples of every seed at 10 and 20 evaluations, the ancestral sampler at 200 too.

Ours takes one walk, fixed beforehand: the recipe's own sampler and spacing. Every other method, the white twin too, is
judged by the best of its walks at each number, chosen by the very cells that are shown: this favours it. The headline
takes over the two that stand best in the curve at its number, with the first seed. A gain of renormalization is the
white twin's distance less ours.

It takes hours and goes in pieces. Below the current directory stand::

    runs/bench/NAME/METHOD-SEED/                        a run each, trained once
    runs/bench/NAME/compare-headline/  compare-curve/   cells, measured once, compare.json of all, and its page

A run that is finished is not trained again, one that was killed goes on, and one of another recipe is refused; cells
stay. The same command goes on where it stopped. Cells are taken also if another commit has measured them, which the
table then says: remove the folder ``cells`` to measure them anew. The environment variable ``RENORM_BENCH_PART`` names
the runs that this process shall train, ``RENORM_BENCH_PART=ours-0,edm-1``; it trains these, says what is still
missing, and stops. So two processes can train different runs at once. All train in float32, on a GPU too. The cells are
measured by a process a core, or on a GPU that all processes share, so their seconds are not told.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from renorm.bench import trained_tables
from renorm.bench.cores import on_all_cores, telling
from renorm.bench.result import Result
from renorm.bench.trained_tables import method_of
from renorm.data import load as load_data
from renorm.errors import CheckpointError, RecipeError
from renorm.fit.checkpoint import differences, read_tensors
from renorm.recipes.baselines import WalkName, baseline, default_walks
from renorm.recipes.build import identity
from renorm.recipes.compare import Comparison, compare
from renorm.recipes.compare_methods import GAIN, Mean, figures_of, gains_of
from renorm.recipes.compare_notes import ORIGINS, origin_notes
from renorm.recipes.folder import check_same_run, write_json
from renorm.recipes.run import fit_run
from renorm.recipes.spec import Recipe, load_recipe

__all__ = [
    "Part",
    "ancestral",
    "compared",
    "contest",
    "finalists",
    "part_asked",
    "run",
    "train_all",
    "trainings",
    "walks_of",
]

STEPS = 5000
METHODS = {"ours": 3, "white-twin": 3, "edm": 3, "ddpm": 3, "rgdm-paper": 1}  # how many seeds of each
FIXED = ("ours",)  # judged by the recipe's own walk alone
FINALISTS = 2  # walks of each other method that the headline takes over from the curve
TWIN_WALKS = ("running@karras", "dpm2m@karras", "angle-pc@log-uniform")  # also those of ours, and 2M at its places

HEADLINE, HEADLINE_SAMPLES, HEADLINE_ANCESTRAL = (10, 20), 5000, (200,)
CURVE, CURVE_SAMPLES, CURVE_ANCESTRAL = (5, 10, 15, 20, 30, 50), 2000, (100, 200)

PART = "RENORM_BENCH_PART"
ROOT = Path("runs", "bench")


def run(name: str, seed: int, methods: Mapping[str, int] | None = None) -> Result:
    """Train what is missing, then compare.

    Args:
        name: Of the shipped recipe, and so of the benchmark.
        seed: Of the first training; the others have the next ones. All cells have one sampling seed.
        methods: How many seeds of each; ``METHODS`` if not given.

    Raises:
        CheckpointError: If a folder holds a run of another recipe.
        RecipeError: If ``RENORM_BENCH_PART`` names no run, or asks for a part: there are no figures yet.
    """
    recipes, folder = trainings(name, seed, methods), ROOT / name
    train_all(recipes, folder, f"renorm bench {name}")
    ours = recipes[f"ours-{seed}"]
    first = [run for run in recipes if run.endswith(f"-{seed}")]
    heats = contest(first, CURVE, walks_of(ours)) + ancestral(first, CURVE_ANCESTRAL)
    curve = compared(heats, folder, "curve", CURVE_SAMPLES)
    finals = [part for n in HEADLINE for part in contest([*recipes], (n,), finalists(curve, n, ours))]
    head = compared(finals + ancestral([*recipes], HEADLINE_ANCESTRAL), folder, "headline", HEADLINE_SAMPLES)
    seeds = tuple(seed + i for i in range(max((methods or METHODS).values())))
    tables = [*trained_tables.table("headline", head), *trained_tables.table("curve", curve)]
    told = trained_tables.notes({"headline": head, "curve": curve}, HEADLINE)
    shown = trained_tables.figures(head, HEADLINE, (*FIXED, "white-twin"))
    pages = tuple(folder / f"compare-{title}" for title in ("headline", "curve"))
    return Result({"training_steps": float(STEPS)} | shown, tables, seeds, pages, told)


def trainings(name: str, seed: int, methods: Mapping[str, int] | None = None) -> dict[str, Recipe]:
    """Every run of the benchmark, ``METHOD-SEED``, and its recipe; the first seed of all methods comes first.

    Example:
        >>> found = trainings("mnist16", 0)
        >>> list(found)[:6], len(found)
        (['ours-0', 'white-twin-0', 'edm-0', 'ddpm-0', 'rgdm-paper-0', 'ours-1'], 13)
        >>> len({(recipe.fit.steps, recipe.model.network) for recipe in found.values()})
        1
    """
    found: dict[str, Recipe] = {}
    methods = methods or METHODS
    for i in range(max(methods.values())):
        ours = load_recipe(name, {"fit.steps": STEPS, "fit.seed": seed + i, "fit.precision": "float32"})
        assert isinstance(ours, Recipe)
        of = {method: ours if method == "ours" else baseline(ours, method) for method, n in methods.items() if i < n}
        found |= {f"{method}-{seed + i}": recipe for method, recipe in of.items()}
    return found


def part_asked(recipes: Mapping[str, Any]) -> list[str] | None:
    """The runs that the environment asks for; ``None``: all of them, and their comparison."""
    asked = [name for name in (text.strip() for text in os.environ.get(PART, "").split(",")) if name]
    unknown = [name for name in asked if name not in recipes]
    if unknown:
        raise RecipeError(f"{PART} must name runs of this benchmark ({', '.join(recipes)}), got '{unknown[0]}'")
    return asked or None


def train_all(recipes: Mapping[str, Recipe], folder: Path, command: str) -> None:
    """Train what is missing, one run after the other.

    Raises:
        CheckpointError: If a folder holds a run of another recipe.
        RecipeError: If ``RENORM_BENCH_PART`` names no run, or asks for a part: there is nothing to compare yet.
    """
    part = part_asked(recipes)
    missing = _missing(recipes, folder)  # refuses a folder of another recipe before hours are spent
    asked = [name for name in (recipes if part is None else part) if name in missing]
    for i, name in enumerate(asked):
        _say(f"{folder / name}: training {i + 1} of {len(asked)}")
        fit_run(recipes[name], folder / name, resume=True, command=command)
    missing = _missing(recipes, folder) if asked else missing
    if missing:
        raise RecipeError(
            f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not trained yet ({len(missing)} of "
            f"{len(recipes)} runs in {folder}); `{command}` without {PART} trains the rest and compares"
        )
    if part is not None:
        raise RecipeError(f"all {len(recipes)} runs in {folder} are trained; `{command}` without {PART} compares them")


def _missing(recipes: Mapping[str, Recipe], folder: Path) -> list[str]:
    """Those that are not trained to their last step; a folder of another recipe is refused."""
    fields = load_data(next(iter(recipes.values())).data, "train")  # of all: a baseline has the recipe's data
    return [name for name, recipe in recipes.items() if not _finished(folder / name, recipe, identity(recipe, fields))]


def _finished(folder: Path, recipe: Recipe, known: dict[str, Any]) -> bool:
    """Whether the run is there, trained to its last step by this recipe on these data."""
    check_same_run(folder, known)
    if not (folder / "model.safetensors").is_file():
        return False
    about = read_tensors(folder / "model.safetensors")[1]
    changed = differences({"fit": about.get("fit", {})}, {"fit": recipe.fit.lasting()})
    if changed:
        raise CheckpointError(
            f"{folder} belongs to another run: {'; '.join(changed)}; move it away to train this one, or go on with the "
            "recipe of that run"
        )
    return bool(about["step"] >= recipe.fit.steps)


class Part(NamedTuple):
    """What one call of ``compare`` measures: runs of one method, by these walks at these numbers of evaluations."""

    runs: list[str]
    evaluations: Sequence[int]
    walks: list[str]


def walks_of(ours: Recipe) -> dict[str, list[str]]:
    """All walks of each method; of those that are fixed, the recipe's own alone."""
    own = WalkName(ours.model.sampler, ours.model.spacing)
    others = {method: baseline(ours, method) for method in METHODS if method != "ours"}
    of = {method: [str(walk) for walk in default_walks(recipe)] for method, recipe in others.items()}
    of["white-twin"] = [*dict.fromkeys([str(own), str(own._replace(sampler="dpm2m")), *TWIN_WALKS])]
    return of | {"ours": [str(own)]}


def contest(names: Sequence[str], evaluations: Sequence[int], walks: Mapping[str, list[str]]) -> list[Part]:
    """Every method by its walks."""
    of = {method: [name for name in names if method_of(name) == method] for method in METHODS}
    return [Part(runs, evaluations, walks[method]) for method, runs in of.items() if runs]


def ancestral(names: Sequence[str], evaluations: Sequence[int]) -> list[Part]:
    """DDPM as it was first sampled, at many evaluations."""
    return [Part(runs, evaluations, ["ancestral"])] if (runs := [n for n in names if method_of(n) == "ddpm"]) else []


def finalists(
    curve: Comparison, evaluations: int, ours: Recipe, walks: Mapping[str, list[str]] | None = None
) -> dict[str, list[str]]:
    """The walks of each method that stand best, ``FINALISTS`` of them; all, or ``walks``, where none has a figure."""
    found: dict[str, list[tuple[float, str]]] = {}
    for row in curve.rows:
        if row.asked == evaluations and row.quality.value is not None:
            found.setdefault(row.method, []).append((row.quality.value, row.walk))
    best = {m: [walk for _, walk in sorted(of, key=lambda each: each[0])[:FINALISTS]] for m, of in found.items()}
    return dict(walks or walks_of(ours)) | best


def compared(asked: Sequence[Part], folder: Path, title: str, samples: int) -> Comparison:
    """All parts, as one table; each core measures the cells of one run at a time."""
    out = folder / f"compare-{title}"
    longest = sorted(asked, key=lambda part: -len(part.walks) * sum(part.evaluations))
    cells = [partial(_measure, folder / run, part, out, samples) for part in longest for run in part.runs]
    on_all_cores(cells, telling(str(out), "parts"))
    parts = []
    for i, part in enumerate(asked):
        found = compare(
            [folder / run for run in part.runs],
            evaluations=part.evaluations,
            walks=part.walks,
            samples=samples,
            out=out,
            cached="accept",  # the pieces of days: commits come between them
            progress=partial(_tell, f"{out} {i + 1}/{len(asked)}"),
        )
        parts.append(_renamed(found))
    joined = _joined(parts)
    write_json(out / "compare.json", joined.to_mapping())
    return joined


def _measure(run: Path, part: Part, out: Path, samples: int) -> None:
    """The cells of one run, left in the folder."""
    compare([run], evaluations=part.evaluations, walks=part.walks, samples=samples, out=out, cached="accept")


def _renamed(found: Comparison) -> Comparison:
    """A comparison whose methods are called as here, also those of a single run, whose folder would name them."""
    names = {method.name: method_of(method.runs[0].folder.name) for method in found.methods}
    return replace(
        found,
        rows=tuple(replace(row, method=names[row.method]) for row in found.rows),
        gains=tuple(replace(gain, method=names[gain.method], twin=names[gain.twin]) for gain in found.gains),
        methods=tuple(replace(m, name=names[m.name], twin=m.twin and names[m.twin]) for m in found.methods),
    )


def _joined(parts: Sequence[Comparison]) -> Comparison:
    """Comparisons of one data set, extractor and number of samples, as one."""
    first = parts[0]
    rows = tuple(replace(row, seconds=Mean(None, None, row.seconds.seeds)) for part in parts for row in part.rows)
    gains = tuple(gains_of(rows, {"ours": "white-twin"}))
    methods = {method.name: method for part in reversed(parts) for method in part.methods}
    notes = {key: None for part in parts for key in part.notes}
    told = {key: " / ".join(dict.fromkeys(p.notes[key] for p in parts if key in p.notes)) for key in notes}
    cells = tuple(cell for part in parts for cell in part.cells)
    whole = tuple(methods[name] for name in METHODS if name in methods)
    told = {key: text for key, text in told.items() if key not in ORIGINS} | origin_notes(cells, whole, first.code)
    told["best"] = (
        "ours takes one walk, fixed beforehand; every other method, its white twin too, the walk of the smallest mean "
        "over its seeds, chosen by the very cells that are shown, which favours it; where walks were screened, by "
        "fewer samples or the first seed alone, the two that stood best went on"
    )
    told["seconds"] = (
        "left out: cells were measured side by side on busy cores, so that their seconds tell of the crowd, not of a "
        "method; `renorm compare` measures one after the other"
    )
    if gains:
        told["gain"] = GAIN
    return replace(
        first,
        figures=figures_of(first.quality, rows, gains, first.floor.get("figures", {}).get(first.quality)),
        rows=rows,
        gains=gains,
        methods=whole,
        cells=cells,
        notes=told,
    )


def _tell(head: str, done: int, cells: int, what: str) -> None:
    _say(f"{head}: {done}/{cells} cells  {what}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
