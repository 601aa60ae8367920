r"""CIFAR-10 at 32 x 32: ours, ours on nested lattices, DDPM, EDM and the diffusion of the paper, judged by FD.

All have the network of the recipe ``cifar10-small`` (4.6 M parameters), half of the training set (25 000 pictures) and
as many steps of the same batch, in bfloat16 on a GPU. A step on nested lattices costs less where it has a small one; it
is given no more of them for that. 2000 samples of each, by walks fixed beforehand: ours by the recipe's own, DDPM by
DDIM at 20 evaluations and as it was first sampled at 200 and 1000, EDM by Heun, the paper's as it was published.

Below the current directory ``runs/bench/cifar10`` (of other seeds ``cifar10-SEED``) holds a run for each and
``samples/METHOD-WALK-STEPS.npz``. What is there is not made again; the figures are measured from the samples. The
environment variable ``RENORM_BENCH_PART`` names the methods that this process shall train and sample.
"""

import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch

from renorm.bench.result import Result
from renorm.bench.trained import PART, part_asked
from renorm.data import load as load_data
from renorm.diffusion.mode_diffusion import ModeDiffusion
from renorm.errors import RecipeError
from renorm.measure.features import extractor
from renorm.recipes.baselines import baseline
from renorm.recipes.diffusion_run import sample
from renorm.recipes.distances import distances_of, side_of
from renorm.recipes.folder import machine, write_arrays, write_json
from renorm.recipes.run import fit_run, load_run
from renorm.recipes.spec import Recipe, load_recipe
from renorm.spec import override

__all__ = ["METHODS", "STEPS", "recipe_of", "run"]

STEPS = 3541  # what two and a half minutes of five processes on one GPU held
SAMPLES = 2000
ROOT = Path("runs", "bench", "cifar10")


class Walk(NamedTuple):
    """A sampler and its number of steps, at the spacing of the method."""

    sampler: str
    steps: int


METHODS: dict[str, tuple[Walk, ...]] = {
    "ours": (Walk("running", 20),),
    "nested": (Walk("running", 20), Walk("running", 200)),
    "ddpm": (Walk("ddim", 20), Walk("ancestral", 200), Walk("ancestral", 1000)),
    "edm": (Walk("heun", 10),),
    "rgdm-paper": (Walk("ancestral", 200),),
}
KEYS = {
    "ours-running-20": "fd_ours_20",
    "nested-running-20": "fd_nested_20",
    "nested-running-200": "fd_nested_200",
    "ddpm-ddim-20": "fd_ddpm_20",
    "ddpm-ancestral-200": "fd_ddpm_200",
    "ddpm-ancestral-1000": "fd_ddpm_1000",
    "edm-heun-10": "fd_edm_20",
    "rgdm-paper-ancestral-200": "fd_rgdm_paper_200",
}


def recipe_of(method: str, seed: int, steps: int = STEPS) -> Recipe:
    """The recipe of a method: the same data, network and training."""
    training = {"fit.steps": steps, "fit.seed": seed, "fit.lr": 1e-3, "fit.warmup": 300, "fit.ema": 0.999}
    recipe = load_recipe("cifar10-small", {"data.limit": 25_000, **training})
    assert isinstance(recipe, Recipe)
    if method == "nested":
        return override(recipe, {"model.lattices": "nested", "model.floor": 1e-4, "model.sharpness": 1.0})
    return recipe if method == "ours" else baseline(recipe, method)


def run(seed: int) -> Result:
    """Train and sample what is missing, then measure.

    Raises:
        RecipeError: If ``RENORM_BENCH_PART`` names no method, or asks for a part: there are no figures yet.
    """
    part = part_asked(METHODS)
    for method in METHODS if part is None else part:
        made(method, seed)
    if part is not None:
        raise RecipeError(f"{', '.join(part)} is sampled; `renorm bench cifar10` without {PART} measures all")
    test = load_data(recipe_of("ours", seed).data, "test")
    known = extractor("cifar10-resnet56")
    theirs = side_of(test.batch(torch.arange(len(test))), test, known, keep=True)
    figures: dict[str, float] = {"training_steps": STEPS}
    table: list[dict[str, Any]] = []
    for method, walks in METHODS.items():
        facts = json.loads((folder_of(seed) / "samples" / f"{method}.json").read_text())
        for walk in walks:
            name = f"{method}-{walk.sampler}-{walk.steps}"
            found = distances_of(side_of(samples_of(name, seed), test, known), theirs, known.name)
            figures[KEYS[name]] = found[f"FD[{known.name}]"]
            table.append({"method": method, "walk": walk.sampler, "steps": walk.steps, **found, **facts})
    figures["gpu_seconds"] = sum(row["training_seconds"] for row in {r["method"]: r for r in table}.values())
    return Result(figures, table, (seed,))


def made(method: str, seed: int, steps: int = STEPS) -> None:
    """Train and sample a method, unless its samples are there."""
    missing = [walk for walk in METHODS[method] if not _file(method, walk, seed).is_file()]
    told = folder_of(seed) / "samples" / f"{method}.json"
    if not missing and told.is_file():
        return
    recipe, folder = recipe_of(method, seed, steps), folder_of(seed) / method
    begun = time.perf_counter()
    fit_run(recipe, folder, resume=True, command="renorm bench cifar10")
    facts: dict[str, Any] = {"training_seconds": time.perf_counter() - begun, "training_steps": steps}
    facts["trained_by"] = f"{machine()['commit']} on {machine()['machine']}"
    if told.is_file():
        facts |= json.loads(told.read_text())  # of the fit itself, not of this one, which went on or had nothing to do
    write_json(told, facts)
    model = load_run(folder)
    assert isinstance(model, ModeDiffusion)
    for walk in missing:
        begun = time.perf_counter()
        x = sample(model.with_walk(sampler=walk.sampler), SAMPLES, seed=seed, steps=walk.steps)
        facts[f"seconds_{walk.sampler}_{walk.steps}"] = time.perf_counter() - begun
        write_arrays(_file(method, walk, seed), x=((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8))
        write_json(told, facts)


def samples_of(name: str, seed: int) -> torch.Tensor:
    """Samples that were kept, in [-1, 1]."""
    import numpy as np

    with np.load(folder_of(seed) / "samples" / f"{name}.npz") as arrays:
        return torch.from_numpy(arrays["x"]).float() / 127.5 - 1


def folder_of(seed: int) -> Path:
    """Where the runs and samples of a seed are.

    Example:
        >>> str(folder_of(0)), str(folder_of(2))
        ('runs/bench/cifar10', 'runs/bench/cifar10-2')
    """
    return ROOT.with_name(f"{ROOT.name}-{seed}") if seed else ROOT


def _file(method: str, walk: Walk, seed: int) -> Path:
    return folder_of(seed) / "samples" / f"{method}-{walk.sampler}-{walk.steps}.npz"
