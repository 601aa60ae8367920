"""Runs of a cascade: fit.

model.toml  model.safetensors  metrics.jsonl    beside what every run has
checkpoints/                                    the model after the last stage, and in stage/ where the next one stands
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from renorm.cascade.cascade import Cascade
from renorm.cascade.spec import BeadsSpec
from renorm.coarse.beads import centre_of_mass
from renorm.data import load as load_data
from renorm.data.fields import Fields
from renorm.errors import CheckpointError, DataError, RenormError
from renorm.fit.checkpoint import Checkpoint, atomic, latest, load_weights
from renorm.fit.checkpoint import save as save_checkpoint
from renorm.fit.progress import FitProgress
from renorm.lattice import Lattice
from renorm.laws.build import lattice_of
from renorm.recipes.cascade_fit import Stage, begin, grown, plan, run_stage
from renorm.recipes.diffusion_conditional import MAKERS
from renorm.recipes.folder import check_same_run, is_first, machine, write_json
from renorm.recipes.judge import check_measurable
from renorm.recipes.keeping import Metrics, StageKeeper, leave_the_place, teller
from renorm.recipes.spec import CascadeRecipe
from renorm.spec import to_mapping, to_toml

__all__ = ["centred", "fit", "prepared"]


def fit(recipe: CascadeRecipe, folder: Path, *, progress: bool, command: str) -> Cascade:
    """Learn stage by stage; killed at any moment, it resumes to the same model, from where the stage was last kept."""
    fields = _fields(recipe) if recipe.fit.reads_fields else None
    lattice = _lattice(recipe) if fields is None else fields.lattice
    known = _identity(recipe, fields)
    check_same_run(folder, known)
    x = None if fields is None else prepared(recipe, fields, recipe.fit.seed)
    if x is not None and recipe.model.spins:
        require_spins(x)
    if fields is not None:
        check_measurable(recipe.measure, fields)
    model = begin(recipe, lattice)
    stages = plan(recipe, model)
    if (folder / "model.toml").is_file():  # finished before; its manifest says how long it took
        return Cascade.load(folder, makers=MAKERS)
    data = {"name": recipe.data.name, "sha256": known["data"], "number": 0 if fields is None else len(fields)}
    facts = {**machine(), "identity": known, "command": command, "seed": recipe.fit.seed, "data": data}
    facts["parameters"] = sum(p.numel() for p in model.parameters())
    begun = _Begun(folder, known, model, recipe, stages)
    with atomic(folder / "recipe.toml") as temporary:
        temporary.write_text(to_toml(recipe), encoding="utf-8")
    write_json(folder / "manifest.json", {**facts, "seconds": begun.seconds or None})
    try:
        model = _learn(recipe, folder, begun, stages, x, progress=progress, known=known)
    except RenormError as error:
        full = isinstance(error, CheckpointError)  # of the disk: what is there is good, and goes on
        if begun.done == 0 and latest(folder / "checkpoints") is None and not full:
            leave_the_place(folder)
        raise
    write_json(folder / "manifest.json", {**facts, "seconds": begun.seconds})
    model.save(folder)  # model.toml says that the run is finished
    return model


class _Begun:
    """Where a fit stands: the model, how many stages and steps are done, and how long they took."""

    def __init__(
        self, folder: Path, known: Mapping[str, Any], model: Cascade, recipe: CascadeRecipe, stages: list[Stage]
    ) -> None:
        self.model, self.done, self.steps, self.seconds = model, 0, 0, 0.0
        saved = latest(folder / "checkpoints")
        if saved is None:
            shape = stages[0].shape
            if shape != model.lattice.shape:
                self.model = begin(recipe, Lattice(shape, model.lattice.boundary, model.lattice.channels))
            return
        if not 1 <= saved.step <= len(stages) or saved.about.get("identity") != json.loads(json.dumps(known)):
            raise CheckpointError(f"{folder / 'checkpoints'} belongs to another run; choose another --out")
        shape = stages[saved.step - 1].shape
        if shape != model.lattice.shape:
            self.model = begin(recipe, Lattice(shape, model.lattice.boundary, model.lattice.channels))
        load_weights(self.model, saved.tensors, source=str(folder / "checkpoints"))
        self.done, self.steps = saved.step, int(saved.about["steps"])
        self.seconds = float(saved.about["seconds"])


def _learn(
    recipe: CascadeRecipe,
    folder: Path,
    at: _Begun,
    stages: list[Stage],
    x: Tensor | None,
    *,
    progress: bool,
    known: Mapping[str, Any],
) -> Cascade:
    total = at.steps + sum(stage.steps for stage in stages[at.done :])
    bar = FitProgress(at.steps, total, shown=progress and is_first(), figure="nats per number")
    metrics = Metrics(folder / "metrics.jsonl", at.steps)
    try:
        for number, stage in enumerate(stages[at.done :], start=at.done):
            at.model = grown(at.model, recipe, stage.shape)
            keeper = StageKeeper(folder / "checkpoints" / "stage", known, number)
            tell = teller(number, stage.steps, stage.numbers, at.steps, bar, metrics, keeper)
            losses = run_stage(recipe, at.model, stage, number, x, tell, keeper)
            if len(losses) == 1 and stage.steps > 1:  # solved, not trained
                metrics.add(at.steps + 1, losses[0] / stage.numbers, number, last=True, every=1)
            at.steps += len(losses)
            at.done, at.seconds = number + 1, at.seconds + keeper.seconds()
            about = {"identity": dict(known), "seconds": at.seconds, "steps": at.steps}
            save_checkpoint(folder / "checkpoints", Checkpoint(at.done, dict(at.model.state_dict()), about), keep=1)
            keeper.forget()
    finally:
        bar.close()
        metrics.close()
    return at.model


def _fields(recipe: CascadeRecipe) -> Fields:
    return load_data(recipe.data, "train")


def _lattice(recipe: CascadeRecipe) -> Lattice:
    """Where the law lives, when no field of it is asked for."""
    law = recipe.data.law
    assert law is not None
    return lattice_of(law, recipe.data.shape)  # says if it does not live there


def _identity(recipe: CascadeRecipe, fields: Fields | None) -> dict[str, Any]:
    """What must not change when a run is resumed: model, training, and the data or their law."""
    law = {"law": to_mapping(recipe.data.law), "shape": list(recipe.data.shape)} if recipe.data.law is not None else {}
    model = to_mapping(recipe.model)
    if recipe.model.beads == BeadsSpec():  # a key of a later version: runs of earlier ones go on
        del model["beads"]
    known: dict[str, Any] = {"model": model, "fit": to_mapping(recipe.fit), **law}
    known["data"] = None if fields is None else fields.sha256()
    if fields is not None and fields.values.dtype == torch.uint8:
        known["value_range"] = list(recipe.data.value_range)
    return known


def prepared(recipe: CascadeRecipe, fields: Fields, seed: int) -> Tensor:
    r"""The fields as the cascade takes them: as numbers that have a density, and, of molecules, with a centre.

    Positions from a file say where a molecule is, which means nothing. Its centre is drawn anew from a law,
    $\bar x \sim N(0, s^2/d)$ in each of d components, $\bar x$ the centre of mass and s ``model.beads.spread``.
    """
    x = continuous(fields, seed)
    if recipe.model.coarse != "beads" or recipe.data.law is not None:
        return x
    noise = torch.randn(*x.shape[:2], 1, generator=torch.Generator().manual_seed(seed))
    return centred(recipe, x) + recipe.model.beads.spread / x.shape[1] ** 0.5 * noise


def centred(recipe: CascadeRecipe, x: Tensor) -> Tensor:
    """Molecules with their centres of mass at 0; other fields as they are."""
    masses = recipe.model.beads.masses
    if recipe.model.coarse != "beads" or x.ndim != 3 or (masses is not None and len(masses) != x.shape[2]):
        return x  # masses that do not fit: the cascade itself says so
    return x - centre_of_mass(x, masses)


def continuous(fields: Fields, seed: int) -> Tensor:
    r"""The fields as float32; bytes are spread over their bins, since only then they have a density.

    $$ x = a + (b - a)\frac{v + u - \frac12}{255}, \qquad u \sim U(0, 1) $$

    Example:
        >>> from renorm.lattice import Lattice
        >>> pixels = Fields(torch.zeros(2, 1, 4, dtype=torch.uint8), Lattice((4,)))
        >>> bool(((continuous(pixels, 0) + 1).abs() <= 1 / 255).all())
        True
    """
    x = fields.batch(torch.arange(len(fields)))
    if fields.values.dtype != torch.uint8:
        return x
    low, high = fields.value_range
    noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)) - 0.5
    return x + noise * ((high - low) / 255)


def require_spins(x: Tensor) -> None:
    """Raise ``DataError`` unless every value is +1 or -1."""
    strange = x[(x.abs() != 1)]
    if strange.numel():
        raise DataError(
            f"head = 'spin' is for fields of +1 and -1, got {float(strange[0]):.6g}; take head = 'spline' for others"
        )
