r"""Digits at 32 x 32 from half an hour of training each: Frechet distance against the seconds that an image takes.

Ours (the recipe ``mnist32``), its white twin, DDPM and EDM have the same network, batch and seconds of training: as
many steps as ``SECONDS`` hold at the time of a step on two idle cores, measured once, before any training. Ours takes
the walk of the recipe, fixed beforehand; every other method the best of its walks at each number of evaluations, chosen
by the very cells that are shown, which favours it: DDPM its own, EDM its own and two with fresh noise, the twin those
of ours and more. The seconds of an image are those of a batch of ``TIMED``, medians of ``ROUNDS``, all methods in turn.

A second comparison asks what coarse lattices are worth in training: ``folded`` (``FOLDED``: while fine modes are mostly
noise the field enters the network in blocks, at half the cost) beside ours on the whole lattice, ``SHORT`` seconds
each, ``SEEDS`` seeds.

It takes hours and goes in pieces below ``runs/bench/mnist32``, as ``renorm bench mnist16`` does: what is there is not
made again, and ``RENORM_BENCH_PART`` names the runs that this process shall train. All train in float32.
"""

import json
import math
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from renorm.bench.cores import on_all_cores
from renorm.bench.result import Result
from renorm.bench.timing import interleaved
from renorm.bench.trained import PART, ancestral, compared, contest, missing_runs, part_asked, walks_of
from renorm.bench.trained_tables import table
from renorm.data import load as load_data
from renorm.diffusion.mode_diffusion import ModeDiffusion
from renorm.diffusion.objective import DenoisingLoss, strata
from renorm.errors import RecipeError
from renorm.fit.gradient import step_of
from renorm.recipes.baselines import baseline
from renorm.recipes.build import build_model
from renorm.recipes.compare import compare
from renorm.recipes.folder import machine, write_json
from renorm.recipes.run import fit_run, load_run
from renorm.recipes.spec import Recipe, load_recipe
from renorm.spec import override

__all__ = ["SECONDS", "run", "trainings"]

SECONDS, SHORT, SEEDS = 1800.0, 600.0, 3
METHODS = ("ours", "white-twin", "ddpm", "edm")
FOLDED = {"model.lattices": "folded", "model.fold": 3.0, "model.network.entries": 2}
STEPS_TIMED = 9
TIMED, ROUNDS = 64, 5
CURVE, ANCESTRAL, SAMPLES = (6, 10, 14, 20, 50), (100, 200), 2000
GOAL = 200  # evaluations of DDPM's ancestral walk, whose distance ours shall reach sooner
PAIR = (10, 20)
FRESH = {"white-twin": ["running-churn@karras"], "edm": ["ancestral@karras", "ancestral-small@karras"]}
ROOT = Path("runs", "bench", "mnist32")


def run(seed: int) -> Result:
    """Time steps, train what is missing, compare, and time images.

    Raises:
        RecipeError: If ``RENORM_BENCH_PART`` names no run, or asks for a part: there are no figures yet.
    """
    seconds = step_seconds(seed)
    recipes = trainings(seconds, seed)
    part = part_asked(recipes)
    missing = missing_runs(recipes, ROOT)
    for i, name in enumerate(asked := [name for name in (recipes if part is None else part) if name in missing]):
        print(f"{ROOT / name}: training {i + 1} of {len(asked)}", file=sys.stderr, flush=True)
        fit_run(recipes[name], ROOT / name, resume=True, command="renorm bench mnist32")
    left = [name for name in missing if name not in asked]
    if part is not None or left:
        told = f"not trained yet: {', '.join(left)}" if left else "all runs are trained"
        raise RecipeError(f"{told}; `renorm bench mnist32` without {PART} trains the rest and compares")
    first = [f"{method}-{seed}" for method in METHODS]
    walks = walks_of(recipes[first[0]])
    walks = {method: [*walks[method], *FRESH.get(method, [])] for method in METHODS}
    curve = compared(contest(first, CURVE, walks) + ancestral(first, ANCESTRAL), ROOT, "curve", SAMPLES)
    rows = table("curve", curve)
    time_images([row for row in rows if row["best"]], seed)
    short = paired([name for name in recipes if "-short-" in name], walks["ours"])
    figures = curve_figures(rows, curve.quality) | pair_figures(short, curve.quality)
    figures |= {"train_step_ratio": seconds["folded"] / seconds["ours"]}
    figures |= {f"step_seconds_{name.replace('-', '_')}": value for name, value in seconds.items()}
    return Result(figures, [*rows, *short], tuple(seed + i for i in range(SEEDS)))


def recipe_of(method: str, seed: int) -> Recipe:
    """Ours, on the whole lattice or folded, or a baseline of it; its averages suit a few thousand steps."""
    settings = {"fit.seed": seed, "fit.precision": "float32", "fit.warmup": 200, "fit.ema": 0.999}
    recipe = load_recipe("mnist32", settings)
    assert isinstance(recipe, Recipe)
    if method == "folded":
        return override(recipe, FOLDED)
    return recipe if method == "ours" else baseline(recipe, method)


def trainings(seconds: Mapping[str, float], seed: int) -> dict[str, Recipe]:
    """Every run and its recipe: as many steps as its seconds hold.

    Example: a step of half the time, twice the steps.
        >>> found = trainings({"ours": 0.4, "folded": 0.2, "white-twin": 0.4, "ddpm": 0.5, "edm": 0.4}, 0)
        >>> list(found)[:4]
        ['ours-0', 'white-twin-0', 'ddpm-0', 'edm-0']
        >>> [found[name].fit.steps for name in ("ours-0", "ddpm-0", "ours-short-2", "folded-short-2")]
        [4500, 3600, 1500, 3000]
    """
    asked = [(f"{method}-{seed}", method, seed, SECONDS) for method in METHODS]
    asked += [(f"{m}-short-{seed + i}", m, seed + i, SHORT) for i in range(SEEDS) for m in ("ours", "folded")]
    return {
        name: override(recipe_of(method, own), {"fit.steps": int(length / seconds[method])})
        for name, method, own, length in asked
    }


def step_seconds(seed: int) -> dict[str, float]:
    """Seconds of a training step of every method, for each lattice by itself; measured once, then kept."""
    path = ROOT / "step-seconds.json"
    if path.is_file():
        known: dict[str, float] = json.loads(path.read_text(encoding="utf-8"))["seconds"]
        return known
    data = load_data(recipe_of("ours", seed).data, "train")
    actions: dict[str, Callable[[], None]] = {}
    shares: dict[str, tuple[str, float]] = {}
    for method in (*METHODS, "folded"):
        recipe = recipe_of(method, seed)
        model = build_model(recipe, data.lattice)
        model = model.measure(data) if model.spec.needs_moments else model
        assert model.network is not None
        for stratum in strata(model.denoiser, model.training):  # type: ignore[arg-type]
            loss = DenoisingLoss(model.denoiser, data, model.training)  # type: ignore[arg-type]
            loss.strata = [stratum._replace(probability=1.0)]
            name = f"{method} {stratum.sites}"
            shares[name] = method, stratum.probability
            actions[name] = step_of(model.network, loss, len(data), recipe.fit)
    times = {name: statistics.median(of) for name, of in interleaved(actions, STEPS_TIMED).items()}
    seconds = dict.fromkeys((*METHODS, "folded"), 0.0)
    for name, (method, share) in shares.items():
        seconds[method] += share * times[name]
    write_json(path, {"seconds": seconds, "lattices": times, "machine": machine()})
    return seconds


def time_images(rows: Sequence[dict[str, Any]], seed: int) -> None:
    """Write into every row the seconds of an image by its walk."""
    models = {method: load_run(ROOT / f"{method}-{seed}") for method in METHODS}

    def walk(row: Mapping[str, Any]) -> None:
        model = models[row["method"]]
        assert isinstance(model, ModeDiffusion)
        sampler, _, spacing = row["walk"].partition("@")
        walked = model.with_walk(sampler=sampler, spacing=spacing)
        steps = -(-row["evaluations"] // walked.sampler.evaluations)
        walked.sample(TIMED, generator=torch.Generator().manual_seed(seed), steps=steps)

    times = interleaved({str(i): partial(walk, row) for i, row in enumerate(rows)}, ROUNDS, warm=1)
    for row, of in zip(rows, times.values(), strict=True):
        row["seconds_per_image"] = statistics.median(of) / TIMED


def paired(names: Sequence[str], walks: list[str]) -> list[dict[str, Any]]:
    """What the short runs reach, a row for each number of evaluations."""
    jobs: list[Callable[[], Any]] = [partial(_cells, name, walks) for name in names]
    return list(chain.from_iterable(on_all_cores(jobs, _tell)))


def _cells(name: str, walks: list[str]) -> list[dict[str, Any]]:
    found = compare(
        [ROOT / name], evaluations=PAIR, walks=walks, samples=SAMPLES, out=ROOT / "compare-pair", cached="accept"
    )
    about = {"cells": "pair", "method": name.partition("-short-")[0], "seed": int(name.rpartition("-")[2])}
    return [
        {**about, "walk": cell.walk, "evaluations": cell.evaluations, found.quality: cell.figures[found.quality]}
        for cell in found.cells
    ]


def curve_figures(rows: Iterable[Mapping[str, Any]], quality: str) -> dict[str, float]:
    """The best of every method, and how much faster ours is where it is as good as DDPM's 200 ancestral steps.

    Example:
        >>> def row(method, asked, fd, seconds):
        ...     about = {"method": method, "walk": "ancestral@linear-beta", "asked": asked, "best": True}
        ...     return about | {"FD": fd, "seconds_per_image": seconds}
        >>> rows = [row("ours", 10, 0.3, 0.1), row("ours", 20, 0.1, 0.2), row("ddpm", 200, 0.2, 3.0)]
        >>> found = curve_figures(rows, "FD")
        >>> round(found["time_ratio_at_ddpm200_fd"], 6), found["fd_ours_best"], found["fd_ours_10"]
        (15.0, 0.1, 0.3)
    """
    best = [row for row in rows if row["best"]]
    figures: dict[str, float] = {}
    for row in best:
        method = row["method"].replace("-", "_")
        figures[f"fd_{method}_{row['asked']}"] = row[quality]
        figures[f"fd_{method}_best"] = min(row[quality], figures.get(f"fd_{method}_best", math.inf))
    goal = next(row for row in best if row["method"] == "ddpm" and row["asked"] == GOAL)
    fast = [row["seconds_per_image"] for row in best if row["method"] == "ours" and row[quality] <= goal[quality]]
    figures["time_ratio_at_ddpm200_fd"] = goal["seconds_per_image"] / min(fast) if fast else 0.0
    return figures


def pair_figures(rows: Sequence[Mapping[str, Any]], quality: str) -> dict[str, float]:
    """Means over seeds, and their standard errors, on the whole lattice and folded."""
    figures: dict[str, float] = {}
    for method, called in (("ours", "whole"), ("folded", "folded")):
        for n in PAIR:
            of = [row[quality] for row in rows if row["method"] == method and row["evaluations"] == n]
            figures[f"fd_{called}_short_{n}"] = statistics.fmean(of)
            figures[f"fd_{called}_short_{n}_error"] = statistics.stdev(of) / math.sqrt(len(of)) if of[1:] else 0.0
    return figures


def _tell(done: int, jobs: int) -> None:
    print(f"{ROOT / 'compare-pair'}: measured {done} of {jobs} runs", file=sys.stderr, flush=True)
