r"""Protein chains: the paper's diffusion beside DDPM, the same network, steps and seed, on real structures.

Both are the recipe ``protein`` but for their schedules, and trained for longer than it, ``STEPS``: minutes on a GPU,
hours on a CPU.

* shapes: one chain for each held-out sequence at 10 to 500 evaluations, beside real chains: bonds, pseudo-angles,
  pseudo-dihedrals, radius of gyration, clashes. The same figures of the held-out chains themselves are the floor. Both
  methods walk as published (``own``: ancestral, at the places of their schedules), and as the recipe does (steps
  ``placed`` where modes are in doubt, analytic).

* folds: median TM-score over held-out targets and over the CAMEO targets, at T(N) evaluations, one chain a target (none
  chosen by its score), beside what needs no model: the training chain nearest in length, and the Gaussian chain.

* histograms: 100 chains of each of five CAMEO targets.

* seconds: 64 chains of 128 residues, and how the time of a chain grows with its length up to 512.

It takes hours and goes in pieces. Below the current directory stand ``runs/bench/protein/rgdm`` and ``ddpm``, a run
each, trained once, and ``cells``, measured once for given weights, a process a core; with them one walk at five
scales. ``RENORM_BENCH_PART=rgdm`` trains this one and stops.
"""

import json
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import torch

from renorm.bench.cores import on_all_cores, telling
from renorm.bench.result import Result
from renorm.bench.trained import part_asked
from renorm.data.proteins.chains import Chains
from renorm.data.proteins.spec import known_chains
from renorm.diffusion.chains.model import ChainDiffusion
from renorm.errors import DataError, RecipeError
from renorm.measure.chains.similarity import tm_score
from renorm.measure.chains.summary import chain_figures
from renorm.measure.chains.superposition import superpose
from renorm.nn.weights import sha256_of
from renorm.recipes.chains_measure import STRIDE, gaussian_chain, mean_tm, nearest_by_length, scores, targets_of
from renorm.recipes.chains_run import fold, load
from renorm.recipes.chains_scales import Moments
from renorm.recipes.folder import machine, write_arrays, write_json
from renorm.recipes.run import fit_run
from renorm.recipes.spec import ChainRecipe, load_recipe

__all__ = ["run"]

ROOT = Path("runs", "bench", "protein")
STEPS = 16000
TRAINED = {"fit.steps": STEPS, "model.sampler": "ancestral", "model.spacing": "auto"}  # walks are chosen below
METHODS: dict[str, dict[str, Any]] = {"rgdm": TRAINED, "ddpm": TRAINED | {"model.schedule": "ddpm"}}
WALKS = {"placed": ("analytic", "mode-share"), "own": ("ancestral", "auto")}  # the first of folds, draws and seconds
EVALUATIONS = (10, 20, 50, 100, 200, 500)
HEADLINE = (50, 500)
PICTURED = "7n99.A"
LENGTHS, TOGETHER = (64, 128, 256, 512), 4  # how the time of a chain grows, of as many chains at once
TIMED, CHAINS_TIMED, TIMES = 128, 64, 5
HISTOGRAMS, DRAWS = 5, 100
SHAPES = ("bond_rmse", "angle_js", "dihedral_js", "rg_error", "rg_distance", "clashes")

Cell = dict[str, Any]


def run(seed: int) -> Result:
    """Train what is missing of both, then measure.

    Raises:
        DataError: If the CAMEO targets lack the one whose walk is kept.
        RecipeError: If ``RENORM_BENCH_PART`` names no run, or asks for a part: there are no figures yet.
    """
    recipes = {name: _recipe(changes, seed) for name, changes in METHODS.items()}
    part = part_asked(recipes)
    if part is None and PICTURED not in [chain.name for chain in _chains("cameo")]:
        raise DataError(f"the CAMEO targets lack {PICTURED}, whose walk is kept; give the whole set of 183")
    for name in part or list(recipes):
        fit_run(recipes[name], ROOT / name, resume=True, command="renorm bench protein")
    if part is not None:
        raise RecipeError(f"trained {', '.join(part)}; `renorm bench protein` without RENORM_BENCH_PART compares them")
    jobs: dict[str, Callable[[], Cell]] = {}
    for n in reversed(EVALUATIONS):  # the longest first
        jobs |= {f"shapes-{m}-{walk}-{n}": partial(_shapes, m, walk, n, seed) for m in recipes for walk in WALKS}
    for which in ("cameo", "held"):
        jobs |= {f"{which}-{name}": partial(_folds, name, which, seed) for name in recipes}
        jobs[f"trivial-{which}"] = partial(_trivial, which, seed)
    for i in range(HISTOGRAMS):
        jobs |= {f"draws-{name}-{i}": partial(_draws, name, i, seed) for name in recipes}
    names = list(jobs)
    wanted = [partial(_kept, key, jobs[key]) for key in names]
    cells = dict(zip(names, on_all_cores(wanted, telling(str(ROOT), "cells")), strict=True))
    timed = {f"seconds-{name}": _kept(f"seconds-{name}", partial(_seconds, name, seed)) for name in recipes}
    _walk(seed)
    notes = _notes([*cells.values(), *timed.values()])
    return Result(_figures(cells, timed), _table(cells, timed), (seed,), notes=notes)


def _recipe(changes: dict[str, Any], seed: int) -> ChainRecipe:
    recipe = load_recipe("protein", changes | {"fit.seed": seed})
    assert isinstance(recipe, ChainRecipe)
    return recipe


def _place(name: str) -> Path:
    """Where what was measured with the weights of both runs lies."""
    weights = "-".join(sha256_of(ROOT / method / "model.safetensors")[:8] for method in METHODS)
    path = ROOT / "cells" / name
    return path.with_stem(f"{path.stem}-{weights}")


def _kept(key: str, measure: Callable[[], Cell]) -> Cell:
    """A cell that is there for the weights of both runs and the walks of today, or a new one, with who measured it."""
    path = _place(f"{key}.json")
    walks = {name: list(walk) for name, walk in WALKS.items()}
    if path.is_file():
        found: Cell = json.loads(path.read_text(encoding="utf-8"))
        if found.get("walks") == walks:  # none: of a version that did not tell
            return found
    about = machine()
    cell = {**measure(), "walks": walks, "commit": about["commit"], "machine": about["machine"]}
    write_json(path, cell)
    return cell


@cache
def _chains(which: str) -> Chains:
    """Real chains: to learn from (unbroken), held out, and the CAMEO targets."""
    recipe = _recipe(METHODS["rgdm"], 0)
    if which == "train":
        return known_chains(replace(recipe.data, unbroken=True), "train")
    named = "held-out" if which == "held" else "cameo2022"
    return targets_of(replace(recipe, measure=replace(recipe.measure, targets=named)))


def _model(name: str, walk: str = next(iter(WALKS))) -> ChainDiffusion:
    sampler, spacing = WALKS[walk]
    return load(ROOT / name).with_walk(sampler=sampler, spacing=spacing)


def _shapes(name: str, walk: str, evaluations: int, seed: int) -> Cell:
    """Figures of one chain for each held-out sequence."""
    model = _model(name, walk)
    drawn = [
        fold(model, target.sequence, 1, seed=seed + i, steps=evaluations).x[0]
        for i, target in enumerate(_chains("held"))
    ]
    return chain_figures(drawn, [chain.coordinates for chain in _chains("train")])


def _folds(name: str, which: str, seed: int) -> Cell:
    """Scores of one chain for each target."""
    model = _model(name)
    found = [
        scores(fold(model, target.sequence, 1, seed=seed + i).x, target) for i, target in enumerate(_chains(which))
    ]
    return {"scores": {key: [line[key] for line in found] for key in found[0]}}


def _trivial(which: str, seed: int) -> Cell:
    """TM-scores of what needs no model, and the shapes of the held-out chains themselves."""
    train = _chains("train")
    found: dict[str, list[float]] = {"nearest": [], "gaussian": []}
    for i, target in enumerate(_chains(which)):
        found["nearest"].append(mean_tm(nearest_by_length(train, len(target))[None], target))
        found["gaussian"].append(mean_tm(gaussian_chain(len(target), seed + i)[None], target))
    whole = [chain.coordinates for chain in _chains("held") if chain.unbroken]
    return {**found, "floor": chain_figures(whole, [chain.coordinates for chain in train])}


def _draws(name: str, index: int, seed: int) -> Cell:
    """TM-scores of many chains of one CAMEO target: the middle ones by length."""
    targets = sorted(_chains("cameo"), key=len)
    target = targets[(index + 1) * len(targets) // (HISTOGRAMS + 1)]
    x = fold(_model(name), target.sequence, DRAWS, seed=seed).x
    y, mask = target.coordinates.nan_to_num(0.0), target.known
    tm = tm_score(x, y, mask=mask, stride=STRIDE)
    return {"target": target.name, "residues": len(target), "tm": tm.tolist()}


def _seconds(name: str, seed: int) -> Cell:
    """Seconds of a chain at its T(N), on the GPU or with all cores: of many chains, and by length; medians of five."""
    model = _model(name)

    def of(length: int, number: int) -> float:
        begun = time.perf_counter()
        fold(model, "X" * length, number, seed=seed)
        return (time.perf_counter() - begun) / number

    of(min(LENGTHS), TOGETHER)  # what is made once is made now
    asked = {"many": (TIMED, CHAINS_TIMED)} | {str(length): (length, TOGETHER) for length in LENGTHS}
    return {key: statistics.median(of(*chains) for _ in range(TIMES)) for key, chains in asked.items()}


def _walk(seed: int) -> None:
    """Leave one walk from coarse to fine, beside the known chain at the same scales, for a picture."""
    path = _place("scales.npz")
    if path.is_file():
        return
    target = next(chain for chain in _chains("cameo") if chain.name == PICTURED)
    model = _model("rgdm")
    moments = Moments(model.of(len(target)))
    x = fold(model, target.sequence, 1, seed=seed, callback=moments).x
    laid = superpose(x, target.coordinates.nan_to_num(0.0)[None], weights=target.known[None].double())
    write_arrays(path, **moments.arrays(laid, target))


def _notes(cells: Sequence[Cell]) -> dict[str, str]:
    """Who trained and measured where, and how to read the figures."""
    found = {"measured": ", ".join(sorted({f"{cell['commit']} on {cell['machine']}" for cell in cells}))}
    for name in METHODS:
        about = json.loads((ROOT / name / "manifest.json").read_text(encoding="utf-8"))
        found[name] = (
            f"{STEPS} steps in {about['seconds']:.0f} s on {about['machine']}, torch {about['torch']}, "
            f"commit {about['commit']}, {about['date']}"
        )
    return found | {
        "shapes": "one chain for each held-out sequence, whatever it is worth; beside the unbroken training chains",
        "floor": "the same of the unbroken held-out chains themselves; clashes and rg_error of real chains are not 0",
        "folds": "medians over targets, each by one chain at T(N) evaluations; none is chosen by its score",
        "walks": (
            "own: ancestral, even steps for rgdm, linear-beta for ddpm; placed: mode-share, analytic, chosen for rgdm "
            "on training chains, and given to ddpm as well; figures without a walk in their name are of placed"
        ),
        "seconds": "of a chain at its T(N), medians of five; many: 64 of 128 residues, 16 at once; else 4 of N",
    }


def _figures(cells: dict[str, Cell], timed: dict[str, Cell]) -> dict[str, float]:
    """The keys that others read, and more."""
    found: dict[str, float] = {}
    for method in METHODS:
        for walk, n in product(WALKS, HEADLINE):
            cell, named = cells[f"shapes-{method}-{walk}-{n}"], method if walk == "placed" else f"{method}_{walk}"
            found |= {f"{named}_{key}_{n}": float(cell[key]) for key in SHAPES}
        found |= {
            f"median_tm_heldout_{method}": statistics.median(cells[f"held-{method}"]["scores"]["tm"]),
            f"median_tm_cameo_{method}": statistics.median(cells[f"cameo-{method}"]["scores"]["tm"]),
        }
    floor = cells["trivial-held"]["floor"]
    found |= {f"floor_{key}": float(floor[key]) for key in SHAPES}
    for which, short in (("heldout", "held"), ("cameo", "cameo")):
        for key in ("nearest", "gaussian"):
            found[f"median_tm_{which}_{key}"] = statistics.median(cells[f"trivial-{short}"][key])
    seconds = timed["seconds-rgdm"]
    found["seconds_per_structure_128"] = float(seconds["many"])
    found["growth_exponent"] = _slope(LENGTHS, [float(seconds[str(n)]) for n in LENGTHS])
    return found


def _slope(x: Sequence[int], y: Sequence[float]) -> float:
    r"""The exponent of a power law, by least squares of the logs.

    Example:
        >>> round(_slope([1, 2, 4], [3.0, 12.0, 48.0]), 6)
        2.0
    """
    a, b = torch.tensor([[math.log(v) for v in values] for values in (x, y)], dtype=torch.float64)
    a = a - a.mean()
    return float(a @ b / (a @ a))


def _table(cells: dict[str, Cell], timed: dict[str, Cell]) -> list[dict[str, Any]]:
    """A row for each method and number of evaluations; then folds, histograms and seconds."""
    rows: list[dict[str, Any]] = []
    for method in METHODS:
        for walk, n in product(WALKS, EVALUATIONS):
            figures = {key: cells[f"shapes-{method}-{walk}-{n}"][key] for key in SHAPES}
            rows.append({"method": method, "walk": walk, "evaluations": n} | figures)
    for method in METHODS:
        for which in ("held", "cameo"):
            lines = cells[f"{which}-{method}"]["scores"]
            medians = {key: statistics.median(values) for key, values in lines.items()}
            rows.append({"method": method, "targets": which} | medians)
        for i in range(HISTOGRAMS):
            cell = cells[f"draws-{method}-{i}"]
            spread = statistics.quantiles(cell["tm"], n=4)
            about = {"method": method, "target": cell["target"], "residues": cell["residues"], "tm_quartiles": spread}
            rows.append(about | {"tm": [round(value, 4) for value in cell["tm"]]})
        rows.append(
            {"method": method} | {f"seconds_{n}": timed[f"seconds-{method}"][str(n)] for n in ("many", *LENGTHS)}
        )
    return rows
