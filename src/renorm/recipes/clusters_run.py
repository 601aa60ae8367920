"""Runs of laws of clusters: fit, and measure by exact weights in the law of the data.

model.toml  model.safetensors  metrics.jsonl    beside what every run has
"""

import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from renorm.cascade.clusters.cluster_model import ClusterModel
from renorm.cascade.evidence import collapsed
from renorm.data import load as load_data
from renorm.data.fields import Fields
from renorm.errors import CheckpointError, DataError, RecipeError, RenormError
from renorm.fit.checkpoint import atomic
from renorm.fit.progress import FitProgress
from renorm.laws.build import make_law
from renorm.laws.particles import DoubleWellCluster, LennardJonesCluster
from renorm.measure.free_energy import log_z
from renorm.measure.statistics import ess
from renorm.recipes.folder import check_same_run, is_first, machine, write_arrays, write_json
from renorm.recipes.judge import REFERENCE, check_error_bars
from renorm.recipes.keeping import Metrics, StageKeeper, leave_the_place, teller
from renorm.recipes.molecule_measure import NOTE, UNWEIGHTED, molecule_observables, shapes, usable
from renorm.recipes.spec import ClustersRecipe
from renorm.spec import to_mapping, to_toml

__all__ = ["fit", "measure"]

ROWS, COLUMNS = 4, 6  # clusters that are shown on their way up, and levels at most


def fit(recipe: ClustersRecipe, folder: Path, *, progress: bool, command: str) -> ClusterModel:
    """Learn; killed at any moment, it goes on from where it was last kept, to the same model.

    Raises:
        CheckpointError: If the folder holds another run.
        DataError: If the data are no clusters of two or three components.
    """
    fields = load_data(recipe.data, "train")
    _require_clusters(fields)
    law = {"law": to_mapping(recipe.data.law)} if recipe.data.law is not None else {}
    known = {"model": to_mapping(recipe.model), "fit": to_mapping(recipe.fit), "data": fields.sha256(), **law}
    check_same_run(folder, known)
    if (folder / "model.toml").is_file():
        return ClusterModel.load(folder)
    lattice = fields.lattice
    model = ClusterModel(recipe.model, lattice.sites, lattice.channels, seed=recipe.fit.seed)
    with atomic(folder / "recipe.toml") as temporary:
        temporary.write_text(to_toml(recipe), encoding="utf-8")
    data = {"name": recipe.data.name, "sha256": known["data"], "number": len(fields)}
    facts = {**machine(), "identity": known, "command": command, "seed": recipe.fit.seed, "data": data}
    facts["parameters"] = sum(p.numel() for p in model.parameters())
    write_json(folder / "manifest.json", {**facts, "seconds": None})
    keeper = StageKeeper(folder / "checkpoints" / "stage", known, 0)
    bar = FitProgress(0, recipe.fit.steps, shown=progress and is_first(), figure="nats per number")
    metrics = Metrics(folder / "metrics.jsonl", 0)
    try:
        tell = teller(0, recipe.fit.steps, lattice.sites * lattice.channels, 0, bar, metrics, keeper)
        model.fit(positions(fields), spec=recipe.fit, tell=tell, keeper=keeper)
    except RenormError as error:
        if not isinstance(error, CheckpointError):  # of the disk: what is kept is good, and goes on
            leave_the_place(folder)
        raise
    finally:
        bar.close()
        metrics.close()
    write_json(folder / "manifest.json", {**facts, "seconds": keeper.seconds()})
    model.save(folder)  # model.toml says that the run is finished
    keeper.forget()
    return model


def measure(
    recipe: ClustersRecipe, folder: Path, model: ClusterModel, *, samples: int | None, seed: int | None
) -> dict[str, Any]:
    """Draw, weigh where a law is known, compare with the test split; write ``measures.json`` and pictures' arrays."""
    num = recipe.measure.samples if samples is None else samples
    generator = torch.Generator().manual_seed(recipe.measure.seed if seed is None else seed)
    reference = positions(load_data(recipe.data, "test"))[:REFERENCE]
    check_error_bars(num, len(reference))
    law = None if recipe.data.law is None else make_law(recipe.data.law, model.domain.shape)
    assert law is None or isinstance(law, DoubleWellCluster | LennardJonesCluster)
    begun = time.perf_counter()
    drawn = model.draw(num, generator=generator)
    figures: dict[str, Any] = {"samples": num, "seconds_per_sample": (time.perf_counter() - begun) / num}
    notes: dict[str, Any] = {"reference": f"{len(reference)} test clusters of {recipe.data.name}"}
    weights = None
    if law is not None:
        log_weight = model.law.log_weight(law, drawn)
        found, share = log_z(log_weight), ess(log_weight)
        figures |= {"log_z": float(found.value), "log_z_error": float(found.error), "ess": share}
        write_arrays(folder / "samples" / "weights.npz", model=log_weight)
        if collapsed(share, num):
            notes["collapsed"] = (
                f"the effective sample size is {share:.2g}, or {share * num:.2g} of {num} draws: neither log Z nor "
                "reweighted observables can be trusted; train longer, or take more model.candidates"
            )
        if usable(log_weight):
            weights = log_weight
        else:
            notes["observables"] = UNWEIGHTED
    seen = shapes(drawn.x, reference, law, [])
    listed = molecule_observables(drawn.x, reference, law, [], weights)
    for one in listed:
        figures |= {one.name: one.value, f"{one.name}_error": one.error}
    measured = {
        "figures": {**figures, **seen.figures},
        "notes": {**notes, "shapes": NOTE},
        "observables": [one.mapping() for one in listed],
    }
    write_json(folder / "measures.json", measured)
    bonds = torch.zeros(0, 2, dtype=torch.int64)
    write_arrays(folder / "samples" / "samples.npz", x=drawn.x[:256], data=reference[:256], bonds=bonds)
    write_arrays(folder / "samples" / "shapes.npz", **seen.arrays)
    _write_strips(folder, model, reference[:1], generator)
    return measured


def positions(fields: Fields) -> Tensor:
    """Clusters with their centres at 0: where they are means nothing."""
    x = fields.batch(torch.arange(len(fields)))
    return x - x.mean(2, keepdim=True)


def _require_clusters(fields: Fields) -> None:
    lattice = fields.lattice
    if lattice.dim != 1 or lattice.channels not in (2, 3) or lattice.sites < 2:
        raise RecipeError(
            "clusters are positions (n, dim, particles) of two components or three, and two particles or more (of an "
            f"array, set data.channels = dim), got fields {lattice.event_shape}"
        )
    if len(fields) < 2:
        raise DataError(f"a law of clusters learns from two or more, got {len(fields)}; set data.number, or data.limit")


def _write_strips(folder: Path, model: ClusterModel, x: Tensor, generator: torch.Generator) -> None:
    """Clusters on their way up, particle by particle, and a real one on its way down; at some levels."""
    last = model.particles - 1
    at = sorted({round(k * last / (COLUMNS - 1)) for k in range(COLUMNS)})
    y = model.sample(ROWS, generator=generator, level=last)
    generated = [model.shown(y)]
    for level, finer in zip(at[::-1], at[-2::-1], strict=False):
        y = model.refine(y, level=level, to=finer, generator=generator)
        generated.append(model.shown(y))
    flow = [model.shown(model.coarsen(x, level, generator=torch.Generator().manual_seed(0)))[0] for level in at]
    left = torch.tensor([model.particles - level for level in at])
    write_arrays(
        folder / "samples" / "strip.npz", generated=torch.stack(generated), flow=torch.stack(flow), particles=left
    )
