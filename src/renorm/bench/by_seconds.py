r"""Pictures from equal seconds of training: Frechet distance against the seconds that an image takes.

Ours (the recipe of the plan), its white twin, DDPM and EDM have the same network, batch and seconds of training: as
many steps as ``Plan.seconds`` hold at the time of a step on idle cores, measured once, before any training. Ours takes
the walk of the recipe, fixed beforehand; every other method the best of its walks at each number of evaluations, its
own and those of ``MORE``. ``Plan.screen`` samples choose two of them, by which the best one may be lost; then the very
cells that are shown choose one of these, which favours it. The seconds of an image are those of a batch of ``TIMED``,
medians of ``ROUNDS``, all methods in turn, with all that a call of ``sample`` sets up.

``run_lattices`` asks what coarse lattices are worth in training, ``Plan.short`` seconds each, ``Plan.pairs`` seeds.
Ours enters the network in blocks of 2 x 2 sites at every scale. Beside it are ``sites``, the same network one level
deeper, so that it sees every site (``on_sites``); ``sites-folded``, the latter in blocks of 2 x 2 while fine modes are
mostly noise (``FOLDED``); and ``folded``, ours in blocks of 4 x 4 as long.

It takes hours and goes in pieces below ``runs/bench/NAME``, as ``renorm.bench.trained`` does: what is there is not made
again, and ``RENORM_BENCH_PART`` names the runs that this process shall train. All train in float32.
"""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import torch

from renorm.bench.cores import on_all_cores, telling
from renorm.bench.drawing import ACCENT, AGAINST, INK, QUIET, svg
from renorm.bench.result import Result
from renorm.bench.step_seconds import step_seconds
from renorm.bench.timing import interleaved
from renorm.bench.trained import ancestral, compared, contest, finalists, part_asked, train_all, walks_of
from renorm.bench.trained_tables import table
from renorm.diffusion.mode_diffusion import ModeDiffusion
from renorm.nn.spec import UNetSpec
from renorm.recipes.baselines import baseline
from renorm.recipes.compare import compare
from renorm.recipes.run import load_run
from renorm.recipes.spec import Recipe, load_recipe
from renorm.spec import override

__all__ = [
    "LATTICES",
    "METHODS",
    "Plan",
    "curve_figures",
    "long_runs",
    "on_sites",
    "pair_figures",
    "run",
    "run_lattices",
    "short_runs",
    "step_figures",
    "trainings",
]

METHODS = ("ours", "white-twin", "ddpm", "edm")
LATTICES = ("ours", "sites", "sites-folded", "folded")
FOLDED = {"model.lattices": "folded", "model.fold": 3.0, "model.network.entries": 2}
TIMED, ROUNDS = 64, 5
LOOKS = {"ours": (ACCENT, "o"), "white-twin": (INK, "s"), "ddpm": (AGAINST, "^"), "edm": (QUIET, "D")}
MORE = {
    "white-twin": ["running@window", "running-churn@karras"],
    "edm": ["ancestral@karras", "running-churn@karras"],
    "ddpm": ["dpm2m@auto"],
}
"""Walks beside those of ``renorm.recipes.baselines``: of higher order, or with fresh noise."""


@dataclass(frozen=True)
class Plan:
    """How much of everything.

    Attributes:
        name: Of the shipped recipe, and so of the benchmark.
        seconds: Of training, for each method.
        short, pairs: Of training, and seeds, for ours on each of ``LATTICES``; no pair: none is trained.
        fit: Settings of the training, for all methods.
        curve: Numbers of evaluations.
        ancestral: The same of DDPM's ancestral walk alone; ours shall reach sooner what the last of them reaches.
        pair: Numbers of evaluations of the pairs.
        samples: In each cell.
        screen: Samples by which two walks of each method are chosen.
    """

    name: str
    seconds: float
    short: float = 0.0
    pairs: int = 0
    fit: Mapping[str, Any] = field(default_factory=dict)
    curve: tuple[int, ...] = (6, 10, 14, 20, 50)
    ancestral: tuple[int, ...] = (100, 200)
    pair: tuple[int, ...] = (10, 20)
    samples: int = 2000
    screen: int = 500

    @property
    def root(self) -> Path:
        """Where runs and cells are."""
        return Path("runs", "bench", self.name)


class Run(NamedTuple):
    """One training: its folder, method, seed and seconds."""

    name: str
    method: str
    seed: int
    seconds: float


def run(plan: Plan, seed: int) -> Result:
    """Time steps, train what is missing, compare, and time images.

    Raises:
        RecipeError: If ``RENORM_BENCH_PART`` names no run, or asks for a part: there are no figures yet.
    """
    seconds, recipes = _trained(plan, long_runs(plan, seed), seed, f"renorm bench {plan.name}")
    first = list(recipes)
    ours = recipes[first[0]]
    walks = {method: [*of, *MORE.get(method, [])] for method, of in walks_of(ours).items()}
    rest = [part for part in contest(first, plan.curve, walks) if len(part.walks) > 1]
    screen = compared(rest, plan.root, "screen", plan.screen)
    heats = [part for n in plan.curve for part in contest(first, (n,), finalists(screen, n, ours, walks))]
    curve = compared(heats + ancestral(first, plan.ancestral), plan.root, "curve", plan.samples)
    rows = table("curve", curve)
    time_images(plan, [row for row in rows if row["best"]], seed)
    drawing = plan.root / f"{plan.name}.svg"
    drawing.write_text(picture(rows, curve.quality, plan), encoding="utf-8")
    figures = curve_figures(rows, curve.quality, plan.ancestral[-1]) | step_figures(seconds)
    return Result(figures, [*rows, *table("screen", screen)], (seed,))


def run_lattices(plan: Plan, seed: int) -> Result:
    """Time steps, train ours on each of ``LATTICES``, and compare.

    Raises:
        RecipeError: If ``RENORM_BENCH_PART`` names no run, or asks for a part: there are no figures yet.
    """
    runs = short_runs(plan, seed)
    seconds, recipes = _trained(plan, runs, seed, f"renorm bench {plan.name}-lattices")
    rows = paired(plan, list(recipes), walks_of(recipes[f"ours-short-{seed}"])["ours"])
    (quality,) = {key for row in rows for key in row if key.startswith("FD[")}
    return Result(pair_figures(rows, quality) | step_figures(seconds), rows, tuple(range(seed, seed + plan.pairs)))


def step_figures(seconds: Mapping[str, float]) -> dict[str, float]:
    """What steps cost, and the ratios of lattices.

    Example:
        >>> step_figures({"ours": 0.5, "sites": 2.0})
        {'step_seconds_ours': 0.5, 'step_seconds_sites': 2.0, 'train_step_ratio': 0.25}
    """
    figures = {f"step_seconds_{name.replace('-', '_')}": value for name, value in seconds.items()}
    pairs = {"": ("ours", "sites"), "_sites_folded": ("sites-folded", "sites"), "_folded": ("folded", "ours")}
    return figures | {
        f"train_step_ratio{which}": seconds[a] / seconds[b]
        for which, (a, b) in pairs.items()
        if a in seconds and b in seconds
    }


def _trained(plan: Plan, runs: list[Run], seed: int, command: str) -> tuple[dict[str, float], dict[str, Recipe]]:
    """Seconds of a step of every recipe of the plan; and these runs, trained."""
    part_asked({run.name: run for run in runs})  # a wrong name is told before any clock runs
    seconds = step_seconds(recipes_of(plan, seed), plan.root / "step-seconds.json")
    recipes = trainings(plan, runs, seconds)
    train_all(recipes, plan.root, command)
    return seconds, recipes


def recipes_of(plan: Plan, seed: int) -> dict[str, Recipe]:
    """All that is trained, by name."""
    names = (*METHODS, *LATTICES[1:]) if plan.pairs else METHODS
    return {name: recipe_of(plan, name, seed) for name in names}


def recipe_of(plan: Plan, method: str, seed: int) -> Recipe:
    """Ours, on one of ``LATTICES``, or a baseline of it."""
    recipe = load_recipe(plan.name, {"fit.seed": seed, "fit.precision": "float32", **plan.fit})
    assert isinstance(recipe, Recipe)
    if method not in LATTICES:
        return baseline(recipe, method)
    changes = on_sites(recipe.model.network) if method.startswith("sites") else {}
    return override(recipe, changes | (FOLDED if method.endswith("folded") else {}))


def on_sites(network: UNetSpec) -> dict[str, Any]:
    """The same network with every site for itself, and one level more to come to the same coarsest lattice.

    Example:
        >>> asked = on_sites(UNetSpec(width=32, multipliers=(1, 2, 2), attention=(2,), patch=2))
        >>> asked["model.network.multipliers"], asked["model.network.attention"], asked["model.network.patch"]
        ([1, 1, 2, 2], [3], 1)
    """
    levels = {
        "multipliers": [network.multipliers[0], *network.multipliers],
        "attention": [l + 1 for l in network.attention],
    }
    return {f"model.network.{key}": value for key, value in {"patch": 1, **levels}.items()}


def long_runs(plan: Plan, seed: int) -> list[Run]:
    """Ours and the baselines."""
    return [Run(f"{method}-{seed}", method, seed, plan.seconds) for method in METHODS]


def short_runs(plan: Plan, seed: int) -> list[Run]:
    """Ours on every lattice, from several seeds."""
    seeds = range(seed, seed + plan.pairs)
    return [Run(f"{method}-short-{own}", method, own, plan.short) for own in seeds for method in LATTICES]


def trainings(plan: Plan, runs: Iterable[Run], seconds: Mapping[str, float]) -> dict[str, Recipe]:
    """The recipe of each run: as many steps as its seconds hold.

    Example: a step of half the time, twice the steps.
        >>> plan = Plan("mnist32", 1800.0, short=600.0, pairs=3)
        >>> seconds = {"ours": 0.4, "white-twin": 0.4, "ddpm": 0.5, "edm": 0.4}
        >>> found = trainings(plan, long_runs(plan, 0), seconds)
        >>> list(found), found["ours-0"].fit.steps, found["ddpm-0"].fit.steps
        (['ours-0', 'white-twin-0', 'ddpm-0', 'edm-0'], 4500, 3600)
        >>> found = trainings(plan, short_runs(plan, 0), seconds | {"sites": 1.0, "sites-folded": 0.5, "folded": 0.2})
        >>> found["ours-short-2"].fit.steps, found["folded-short-2"].fit.steps
        (1500, 3000)
    """
    return {
        name: override(recipe_of(plan, method, own), {"fit.steps": int(length / seconds[method])})
        for name, method, own, length in runs
    }


def time_images(plan: Plan, rows: Sequence[dict[str, Any]], seed: int) -> None:
    """Write into the rows the seconds of an image by their walks."""
    models = {method: load_run(plan.root / f"{method}-{seed}") for method in METHODS}

    def action(row: Mapping[str, Any]) -> Callable[[], Any]:
        model = models[row["method"]]
        assert isinstance(model, ModeDiffusion)
        sampler, _, spacing = row["walk"].partition("@")
        walked = model.with_walk(sampler=sampler, spacing=spacing)
        steps = -(-row["evaluations"] // walked.sampler.evaluations)
        return lambda: walked.sample(TIMED, generator=torch.Generator().manual_seed(seed), steps=steps)

    times = interleaved({str(i): action(row) for i, row in enumerate(rows)}, ROUNDS, warm=1)
    for row, of in zip(rows, times.values(), strict=True):
        row["seconds_per_image"] = statistics.median(of) / TIMED


def picture(rows: Iterable[Mapping[str, Any]], quality: str, plan: Plan) -> str:
    """SVG: Frechet distance against the seconds of an image, the best walk of every method; dots tell evaluations."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.add_subplot()
    best = [row for row in rows if row["best"] and row[quality] is not None]
    for method, (colour, marker) in LOOKS.items():
        points = sorted(
            (row["seconds_per_image"], row[quality], row["asked"]) for row in best if row["method"] == method
        )
        if points:
            x, y, asked = zip(*points, strict=True)
            axes.plot(x, y, color=colour, marker=marker, markersize=5, linewidth=1.4, label=method)
            for place, n in zip(zip(x, y, strict=True), asked, strict=True):
                axes.annotate(str(n), place, xytext=(3, 5), textcoords="offset points", fontsize=7, color=colour)
    axes.set(xscale="log", yscale="log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(f"seconds of an image, {TIMED} at once", fontsize=9)
    axes.set_ylabel(quality, fontsize=9)
    axes.set_title(f"{plan.name}, {plan.seconds / 60:.0f} minutes of training each", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    return svg(figure, plan.name)


def paired(plan: Plan, names: Sequence[str], walks: list[str]) -> list[dict[str, Any]]:
    """What the short runs reach, a row for each number of evaluations."""
    jobs: list[Callable[[], Any]] = [partial(_cells, plan, name, walks) for name in names]
    return list(chain.from_iterable(on_all_cores(jobs, telling(str(plan.root / "compare-pair"), "runs"))))


def _cells(plan: Plan, name: str, walks: list[str]) -> list[dict[str, Any]]:
    found = compare(
        [plan.root / name],
        evaluations=plan.pair,
        walks=walks,
        samples=plan.samples,
        out=plan.root / "compare-pair",
        cached="accept",
    )
    about = {"cells": "pair", "method": name.partition("-short-")[0], "seed": int(name.rpartition("-")[2])}
    return [
        {**about, "walk": row.walk, "evaluations": row.evaluations, found.quality: row.quality.value}
        for row in found.rows
    ]


def curve_figures(rows: Iterable[Mapping[str, Any]], quality: str, goal: int) -> dict[str, float]:
    """The best of every method, and how much faster it is where it is as good as DDPM's many ancestral steps.

    A method that never is has no such ratio, and one whose every walk ran away has no figure.

    Example:
        >>> def row(method, asked, fd, seconds):
        ...     about = {"method": method, "walk": "ancestral@linear-beta", "asked": asked, "best": True}
        ...     return about | {"FD": fd, "seconds_per_image": seconds}
        >>> rows = [row("ours", 10, 0.3, 0.1), row("ours", 20, 0.1, 0.2), row("edm", 20, 0.4, 0.2)]
        >>> found = curve_figures([*rows, row("ddpm", 200, 0.2, 3.0)], "FD", 200)
        >>> round(found["time_ratio_at_ddpm200_fd"], 6), found["fd_ours_best"], found["fd_ours_10"]
        (15.0, 0.1, 0.3)
        >>> "time_ratio_edm_at_ddpm200_fd" in found
        False
    """
    best = [row for row in rows if row["best"] and row[quality] is not None]
    figures: dict[str, float] = {}
    for row in best:
        method = row["method"].replace("-", "_")
        figures[f"fd_{method}_{row['asked']}"] = row[quality]
        figures[f"fd_{method}_best"] = min(row[quality], figures.get(f"fd_{method}_best", math.inf))
    last = next((row for row in best if row["method"] == "ddpm" and row["asked"] == goal), None)
    for method in METHODS if last else ():
        assert last is not None
        fast = [row["seconds_per_image"] for row in best if row["method"] == method and row[quality] <= last[quality]]
        called = "" if method == "ours" else f"_{method.replace('-', '_')}"
        if fast:
            figures[f"time_ratio{called}_at_ddpm{goal}_fd"] = last["seconds_per_image"] / min(fast)
    return figures


def pair_figures(rows: Sequence[Mapping[str, Any]], quality: str) -> dict[str, float]:
    """Means over seeds on each of ``LATTICES``, and what the others have more than ours, with standard errors.

    Example:
        >>> def row(method, seed, fd):
        ...     return {"method": method, "seed": seed, "evaluations": 10, "FD": fd}
        >>> rows = [row("ours", 0, 1.0), row("ours", 1, 2.0), row("folded", 0, 1.5), row("folded", 1, 2.5)]
        >>> found = pair_figures(rows, "FD")
        >>> found["fd_ours_short_10"], found["fd_folded_short_10"], found["fd_folded_less_ours_10_error"]
        (1.5, 2.0, 0.0)
    """
    figures: dict[str, float] = {}
    for n in sorted({row["evaluations"] for row in rows}):
        found = {(row["method"], row["seed"]): row[quality] for row in rows if row["evaluations"] == n}
        of = {
            lattice: {seed: fd for (m, seed), fd in found.items() if m == lattice and fd is not None}
            for lattice in LATTICES
        }
        for lattice in LATTICES:
            name = f"fd_{lattice.replace('-', '_')}"
            figures |= _mean(f"{name}_short_{n}", list(of[lattice].values()))
            both = of[lattice].keys() & of["ours"].keys() if lattice != "ours" else ()
            figures |= _mean(f"{name}_less_ours_{n}", [of[lattice][seed] - of["ours"][seed] for seed in both])
    return figures


def _mean(name: str, values: Sequence[float]) -> dict[str, float]:
    """Mean and standard error, as far as there are values."""
    found = {name: statistics.fmean(values)} if values else {}
    if len(values) > 1:
        found[f"{name}_error"] = statistics.stdev(values) / math.sqrt(len(values))
    return found
