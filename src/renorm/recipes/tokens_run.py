"""Runs of token hierarchies: fit, measure.

member0/  member1/  ...      model.toml and model.safetensors of each hierarchy, beside what every run has
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from renorm.data import load as load_data
from renorm.data.fields import Fields
from renorm.fit.checkpoint import atomic
from renorm.recipes.folder import check_same_run, machine, write_arrays, write_json
from renorm.recipes.judge import REFERENCE, check_measurable, judge
from renorm.recipes.spec import TokensRecipe
from renorm.spec import to_mapping, to_toml
from renorm.tokens.product import TokenProduct

__all__ = ["fit", "measure"]

ROWS = 8  # generated fields shown at every level
BINS = 10  # of the reliability curve


def fit(recipe: TokensRecipe, folder: Path, *, progress: bool, command: str) -> TokenProduct:
    """Count; killed at any moment, the same command with --resume comes to the same model."""
    fields = load_data(recipe.data, "train")
    known = {"model": to_mapping(recipe.model), "data": fields.sha256()}
    check_same_run(folder, known)
    check_measurable(recipe.measure, fields)
    facts = {
        **machine(),
        "identity": known,
        "command": command,
        "seed": recipe.model.seed,
        "data": {"name": recipe.data.name, "sha256": known["data"], "number": len(fields)},
    }
    with atomic(folder / "recipe.toml") as temporary:
        temporary.write_text(to_toml(recipe), encoding="utf-8")
    write_json(folder / "manifest.json", {**facts, "seconds": None})
    begun = time.perf_counter()
    low, high = recipe.data.value_range
    model = TokenProduct.of(recipe.model, shape=fields.lattice.event_shape, value_range=(low, high))
    model.fit(fields.values.numpy(), None if fields.labels is None else fields.labels.numpy())
    model.save(folder)
    parameters = sum(len(counts.values) for member in model.members_ for counts in _all_counts(member))
    write_json(folder / "manifest.json", {**facts, "parameters": parameters, "seconds": time.perf_counter() - begun})
    return model


def measure(
    recipe: TokensRecipe, folder: Path, model: TokenProduct, *, samples: int | None, seed: int | None
) -> dict[str, Any]:
    """Judge class, likelihood and samples on the test fields; write ``measures.json`` and the pictures' arrays."""
    test = load_data(recipe.data, "test")
    num = recipe.measure.samples if samples is None else samples
    generator = torch.Generator().manual_seed(recipe.measure.seed if seed is None else seed)
    reference = test.batch(torch.arange(min(len(test), REFERENCE)))
    begun = time.perf_counter()
    x = model.sample(num, generator=generator)
    figures: dict[str, Any] = {"samples": num, "seconds_per_sample": (time.perf_counter() - begun) / num}
    nats = -model.log_prob(reference).mean()
    figures["nats_per_field"] = float(nats)
    if model.lossless:
        figures["bits_per_site"] = float(nats) / np.log(2) / test.lattice.sites / test.lattice.channels
    notes: dict[str, Any] = {}
    if test.labels is not None:
        figures |= _classified(model, test, folder)
    judged = judge(x, reference, test, recipe.measure, recipe.data.name)
    measured = {
        "figures": {**figures, **judged.figures},
        "notes": {**notes, **judged.notes},
        "spectrum": judged.spectrum,
    }
    write_json(folder / "measures.json", measured)
    write_arrays(
        folder / "samples" / "samples.npz", x=x[:256], data=reference[:256], value_range=torch.tensor(test.value_range)
    )
    _write_strips(folder, model, reference[:1], generator)
    return measured


def _classified(model: TokenProduct, test: Fields, folder: Path) -> dict[str, Any]:
    """How often the class is right, and whether the posterior knows how sure it may be."""
    assert test.labels is not None
    labels = test.labels.numpy()[:REFERENCE]
    p = model.predict_proba(test.values.numpy()[:REFERENCE])
    right = model.classes_[p.argmax(-1)] == labels
    place = np.searchsorted(model.classes_, labels)
    sure = p.max(-1)
    bins = np.minimum((sure * BINS).astype(int), BINS - 1)
    count = np.bincount(bins, minlength=BINS)
    mean_sure = np.bincount(bins, sure, BINS) / np.maximum(count, 1)
    mean_right = np.bincount(bins, right, BINS) / np.maximum(count, 1)
    arrays = {"count": count, "confidence": mean_sure, "accuracy": mean_right}
    write_arrays(folder / "samples" / "reliability.npz", **{k: torch.from_numpy(v) for k, v in arrays.items()})
    return {
        "accuracy": float(right.mean()),
        "class_nats": float(-np.log(np.maximum(p[np.arange(len(p)), place], 1e-300)).mean()),
        "calibration_error": float((count * np.abs(mean_sure - mean_right)).sum() / count.sum()),
    }


def _write_strips(folder: Path, model: TokenProduct, x: torch.Tensor, generator: torch.Generator) -> None:
    """Fields on their way up, each from one draw of the coarsest tokens, and one real field on its way down."""
    last = len(model.levels) - 1
    flow = [model.render(model.coarsen(x, level), level)[0] for level in range(last + 1)]
    y = model.sample(ROWS, generator=generator, level=last)
    generated = [model.render(y, last)]
    for level in range(last, 0, -1):
        y = model.refine(y, level=level, to=level - 1, generator=generator)
        generated.append(model.render(y, level - 1))
    write_arrays(
        folder / "samples" / "strip.npz",
        generated=torch.stack(generated),
        flow=torch.stack(flow),
        scales=torch.tensor([level.scale for level in model.levels]),
        cutoffs=torch.tensor([level.cutoff for level in model.levels]),
    )


def _all_counts(member: Any) -> list[Any]:
    return [member.family_.counts.root, *member.family_.counts.layers]
