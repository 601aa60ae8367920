"""Runs of a mode diffusion: fit, sample, measure.

model.toml  moments.safetensors  model.safetensors  checkpoints/  metrics.jsonl      beside what every run has
"""

import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from renorm.data import load as load_data
from renorm.diffusion.mode_diffusion import ModeDiffusion
from renorm.diffusion.reverse import Callback, Passed
from renorm.fit.gradient import check_resumable
from renorm.recipes.build import build_model, identity, parameters
from renorm.recipes.folder import check_same_run, machine, recorded, write_arrays, write_json
from renorm.recipes.judge import REFERENCE, check_enough, check_measurable, judge
from renorm.recipes.recorded import check_recorded
from renorm.recipes.spec import Recipe

__all__ = ["equal_classes", "fit", "measure", "sample"]

BATCH = 256  # fields that walk together
SITES = 2**20  # on a GPU as many fields as have these sites: it waits for launches, not for arithmetic


def fit(recipe: Recipe, folder: Path, *, resume: bool, progress: bool, command: str) -> ModeDiffusion:
    """Train; killed at any moment, it resumes to the same weights."""
    fields = load_data(recipe.data, "train")
    if fields.labels is not None:
        fields.require_classes()
    model = build_model(recipe, fields.lattice, fields.num_classes or 0)
    known = identity(recipe, fields)
    check_same_run(folder, known)
    check_resumable(folder, recipe.fit, known)
    check_measurable(recipe.measure, fields)
    if model.spec.needs_moments:
        model.measure(fields)
    facts = {
        **machine(),
        "identity": known,
        "command": command,
        "seed": recipe.fit.seed,
        "parameters": parameters(model),
        "data": {"name": recipe.data.name, "sha256": known["data"], "number": len(fields)},
    }
    with recorded(recipe, folder, facts, model.save_frame):
        model.fit(
            fields,
            spec=recipe.fit,
            folder=folder,
            flip=recipe.data.flip,
            resume=resume,
            progress=progress,
            identity=known,
        )
    return model


def measure(
    recipe: Recipe,
    folder: Path,
    model: ModeDiffusion,
    *,
    samples: int | None,
    steps: int | None,
    seed: int | None,
    callback: Callback | None,
) -> dict[str, Any]:
    """Sample, compare with the test fields, write ``measures.json`` and the pictures' arrays."""
    num = recipe.measure.samples if samples is None else samples
    if steps is None:
        steps = recipe.model.steps if recipe.measure.steps is None else recipe.measure.steps
    seed = recipe.measure.seed if seed is None else seed
    test = load_data(recipe.data, "test")
    check_enough(recipe.measure, num, test)
    check_recorded(folder, recipe.measure)
    reference = test.batch(torch.arange(min(len(test), REFERENCE)))
    begun = time.perf_counter()
    x = sample(model, num, seed=seed, steps=steps, condition=equal_classes(model, num), callback=callback)
    seconds = time.perf_counter() - begun
    judged = judge(x, reference, test, recipe.measure, recipe.data)
    figures = {
        "samples": num,
        "evaluations": steps * model.sampler.evaluations - model.sampler.evaluations + 1,
        "seconds_per_sample": seconds / num,
        **judged.figures,
    }
    measured = {"figures": figures, "notes": judged.notes, "spectrum": judged.spectrum}
    write_json(folder / "measures.json", measured)
    write_arrays(
        folder / "samples" / "samples.npz", x=x[:256], data=reference[:256], value_range=torch.tensor(test.value_range)
    )
    judged.write(folder)
    _write_strips(folder, model, reference[0], seed, steps)
    return measured


def sample(
    model: ModeDiffusion,
    num: int,
    *,
    seed: int,
    steps: int | None = None,
    level: int = 0,
    condition: Tensor | None = None,
    guidance: float = 1.0,
    callback: Callback | None = None,
) -> Tensor:
    """Fields by seed; drawn on the GPU if there is one, returned on the CPU."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator(device).manual_seed(seed)
    batch = BATCH if device == "cpu" else max(BATCH, SITES // model.lattice.sites)
    x = model.sample(
        num,
        generator=generator,
        steps=steps,
        level=level,
        condition=condition,
        guidance=guidance,
        batch=batch,
        callback=callback,
    )
    return x.cpu()


def equal_classes(model: ModeDiffusion, num: int) -> Tensor | None:
    """Classes in equal shares where the model has them."""
    return torch.arange(num) % model.num_classes if model.num_classes else None


def _write_strips(folder: Path, model: ModeDiffusion, x: Tensor, seed: int, steps: int) -> None:
    """Fields on their way up, each in one walk, and one real field on its way down."""
    generated, scales = _way_up(model, 8, seed, steps)
    flow = [model.coarsen_to(x[None], t, generator=torch.Generator().manual_seed(seed))[0] for t in scales]
    write_arrays(
        folder / "samples" / "strip.npz",
        generated=generated,
        flow=torch.stack(flow),
        scales=torch.tensor(scales),
        cutoffs=torch.stack([model.schedule.cutoff(scale) for scale in scales]),
    )


def _way_up(model: ModeDiffusion, rows: int, seed: int, steps: int) -> tuple[Tensor, list[float]]:
    """The states of one walk as it passes each level, coarsest first, and their scales, finest first."""
    look = Passed([level.scale for level in reversed(model.levels)])
    model.sample(rows, generator=torch.Generator().manual_seed(seed), steps=steps, callback=look)
    return torch.stack([model.basis.inverse(modes) for modes in look.modes]), look.scales[::-1]
