"""A run folder: fit a recipe into it, load it, sample from it, measure it.

recipe.toml  manifest.json                     what was asked, and where and with what it ran
model.toml  moments.safetensors  model.safetensors  checkpoints/  metrics.jsonl
samples/  measures.json  report.html           what came out
"""

import json
import os
import platform
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from renorm.data import load as load_data
from renorm.data.fields import Fields
from renorm.diffusion.mode_diffusion import ModeDiffusion
from renorm.diffusion.reverse import Callback
from renorm.errors import CheckpointError, DataError, RecipeError
from renorm.fit.checkpoint import atomic, differences
from renorm.fit.gradient import check_resumable
from renorm.fit.record import read_metrics
from renorm.measure.features import extractor, frechet
from renorm.measure.spectrum import compare_spectra, power_spectrum
from renorm.recipes.build import build_model, identity, parameters
from renorm.recipes.spec import Recipe
from renorm.spec import load_toml, to_toml
from renorm.version import __version__

__all__ = [
    "fit_run",
    "load_run",
    "machine",
    "measure_run",
    "read_recipe",
    "sample_run",
    "to_unit",
    "write_arrays",
    "write_json",
]

REFERENCE = 10_000  # fields of the test split against which samples are measured


def fit_run(
    recipe: Recipe, folder: Path, *, resume: bool = False, progress: bool = True, command: str = ""
) -> ModeDiffusion:
    """Fit a recipe and leave everything in ``folder``; killed at any moment, it resumes to the same weights.

    Raises:
        CheckpointError: If the folder holds another run, or one that was not asked to be resumed.
        DataError, RecipeError, NonFiniteLossError: See the parts.
    """
    writes = os.environ.get("RANK", "0") == "0"  # under torchrun the first process alone looks and writes
    if writes and (folder / "manifest.json").exists() and not resume:
        raise CheckpointError(f"{folder} already holds a run; add --resume to go on, or choose another --out")
    fields = load_data(recipe.data, "train")
    model = build_model(recipe, fields.lattice, fields.num_classes or 0)
    known = identity(recipe, fields)
    _check_same_run(folder, known)
    check_resumable(folder, recipe.fit, known)
    _check_measurable(recipe, fields)
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
    if writes:
        with atomic(folder / "recipe.toml") as temporary:
            temporary.write_text(to_toml(recipe), encoding="utf-8")
        model.save_frame(folder)
        write_json(folder / "manifest.json", {**facts, "seconds": None})
    model.fit(
        fields,
        spec=recipe.fit,
        folder=folder,
        flip=recipe.data.flip,
        resume=resume,
        progress=progress,
        identity=known,
    )
    if writes:
        metrics = read_metrics(folder / "metrics.jsonl")  # none where nothing was trained
        write_json(folder / "manifest.json", {**facts, "seconds": metrics[-1]["seconds"] if metrics else 0.0})
    return model


def _check_same_run(folder: Path, known: dict[str, Any]) -> None:
    """Refuse to write over another run, also one that has no checkpoint yet."""
    path = folder / "manifest.json"
    if not path.exists():
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8")).get("identity", {})
    except (ValueError, AttributeError):
        raise CheckpointError(f"{path} is damaged; choose another --out, or remove the folder") from None
    changed = differences(before, known)
    if changed:
        raise CheckpointError(f"{folder} belongs to another run: {'; '.join(changed)}; choose another --out")


def _check_measurable(recipe: Recipe, fields: Fields) -> None:
    """Say before the training, not after it, that the samples could not be measured."""
    if recipe.measure.extractor is None:
        return
    known = extractor(recipe.measure.extractor)
    to_unit(fields.batch(torch.arange(1)), fields)
    if known.channels != fields.lattice.channels or fields.lattice.dim != 2:
        raise RecipeError(
            f"extractor '{known.name}' reads pictures of {known.channels} channel(s), the data are "
            f"{fields.lattice.event_shape}; drop measure.extractor or choose another"
        )


def read_recipe(folder: Path) -> Recipe:
    """The resolved recipe of a run.

    Raises:
        CheckpointError: If the folder holds no run.
    """
    if not (folder / "recipe.toml").is_file():
        raise CheckpointError(f"{folder} is no run folder (there is no recipe.toml); `renorm fit RECIPE` makes one")
    return load_toml(Recipe, folder / "recipe.toml")


def load_run(folder: Path | str) -> ModeDiffusion:
    """The model of a run folder, at its final weights, or at its last checkpoint if the fit is not finished."""
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(f"there is no run folder {folder}; `renorm fit RECIPE --out {folder}` makes one")
    return ModeDiffusion.load(folder)


def sample_run(
    folder: Path,
    num: int,
    *,
    seed: int,
    steps: int | None = None,
    level: int = 0,
    condition: Tensor | None = None,
    model: ModeDiffusion | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Fields from a run, by seed; drawn on the GPU if there is one, returned on the CPU."""
    model = model or load_run(folder)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator(device).manual_seed(seed)
    x = model.sample(num, generator=generator, steps=steps, level=level, condition=condition, callback=callback)
    return x.cpu()


def measure_run(
    folder: Path,
    *,
    samples: int | None = None,
    steps: int | None = None,
    seed: int | None = None,
    model: ModeDiffusion | None = None,
    callback: Callback | None = None,
) -> dict[str, Any]:
    """Sample from a run, compare with the test fields, write ``measures.json`` and the pictures' arrays.

    Returns:
        ``figures`` (flat key: number), ``notes`` and ``spectrum``, as written.
    """
    recipe = read_recipe(folder)
    model = model or load_run(folder)
    num = recipe.measure.samples if samples is None else samples
    if steps is None:
        steps = recipe.model.steps if recipe.measure.steps is None else recipe.measure.steps
    seed = recipe.measure.seed if seed is None else seed
    test = load_data(recipe.data, "test")
    reference = test.batch(torch.arange(min(len(test), REFERENCE)))
    begun = time.perf_counter()
    classes = _classes(model, num)
    x = sample_run(folder, num, seed=seed, steps=steps, condition=classes, model=model, callback=callback)
    seconds = time.perf_counter() - begun
    figures: dict[str, Any] = {
        "samples": num,
        "evaluations": steps * model.sampler.evaluations - model.sampler.evaluations + 1,
    }
    figures["seconds_per_sample"] = seconds / num
    ours, theirs = power_spectrum(x, model.lattice), power_spectrum(reference, model.lattice)
    gap = compare_spectra(ours, theirs)
    figures["spectrum_max_log_ratio"] = gap.max_log_ratio
    figures["spectrum_max_z"] = gap.max_z
    notes: dict[str, Any] = {"reference": f"{len(reference)} test fields of {recipe.data.name}"}
    if recipe.measure.extractor:
        distance = frechet(to_unit(x, test), to_unit(reference, test), extractor(recipe.measure.extractor))
        figures[f"{distance['figure']}"] = distance["value"]
        notes["extractor_sha256"] = distance["sha256"]
    measured = {
        "figures": figures,
        "notes": notes,
        "spectrum": {
            "k": ours.k.tolist(),
            "data": theirs.power.tolist(),
            "data_error": theirs.error.tolist(),
            "samples": ours.power.tolist(),
            "samples_error": ours.error.tolist(),
        },
    }
    write_json(folder / "measures.json", measured)
    write_arrays(
        folder / "samples" / "samples.npz", x=x[:256], data=reference[:256], value_range=torch.tensor(test.value_range)
    )
    _write_strips(folder, model, reference[0], seed, steps)
    return measured


def to_unit(x: Tensor, fields: Fields) -> Tensor:
    """Fields as pictures in [0, 1], clipped and rounded to bytes as a saved picture would be.

    Raises:
        DataError: If the data set holds no pictures.
    """
    if fields.values.dtype != torch.uint8:
        raise DataError("a Frechet distance needs pictures, got float fields; drop measure.extractor")
    return fields.to_uint8(x).float() / 255


def write_arrays(path: Path, **arrays: Tensor) -> None:
    """Named arrays as a compressed npz, atomically."""
    with atomic(path) as temporary, temporary.open("wb") as file:
        plain: dict[str, Any] = {name: array.cpu().numpy() for name, array in arrays.items()}
        np.savez_compressed(file, **plain)


def write_json(path: Path, value: Any) -> None:
    """A JSON file, atomically."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def machine() -> dict[str, Any]:
    """Where and with what something ran."""
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = "unknown"
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "renorm": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "commit": commit,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": gpu or f"{platform.machine()} {sys.platform}, {torch.get_num_threads()} threads",
        "threads": torch.get_num_threads(),
    }


def _classes(model: ModeDiffusion, num: int) -> Tensor | None:
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
    waiting = [level.scale for level in reversed(model.levels)]
    passed: list[Tensor] = []
    scales: list[float] = []

    def look(step: int, total: int, scale: float, modes: Tensor) -> None:
        if scale <= waiting[0]:
            passed.append(model.basis.inverse(modes))
            scales.append(scale)
            while waiting and waiting[0] >= scale:  # a long step may pass several levels
                waiting.pop(0)

    model.sample(rows, generator=torch.Generator().manual_seed(seed), steps=steps, callback=look)
    return torch.stack(passed), scales[::-1]
