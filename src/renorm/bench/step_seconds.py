"""What a training step of each of several recipes costs, measured once and kept: so that seconds become steps."""

import json
import statistics
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

from renorm.bench.timing import interleaved
from renorm.data import load as load_data
from renorm.diffusion.objective import DenoisingLoss, strata
from renorm.errors import RecipeError
from renorm.fit.gradient import WARM, step_of
from renorm.recipes.build import build_model
from renorm.recipes.folder import machine, write_json
from renorm.recipes.spec import Recipe
from renorm.spec import to_mapping

__all__ = ["step_seconds"]

TIMED = 21


def step_seconds(recipes: Mapping[str, Recipe], path: Path) -> dict[str, float]:
    r"""Seconds of a training step of every recipe, the mean over its lattices; measured once, then kept in ``path``.

    All take turns, so that cores that are slower for a while are so for all. A recipe that joins those of the file is
    timed beside the first of them, $a$, and told at the speed of that time, however fast the machine is by now:

    $$ s_\mathrm{new} = t_\mathrm{new} \frac{s_a}{t_a} $$

    Args:
        recipes: By name.
        path: A JSON file, made if absent.

    Raises:
        RecipeError: If they were measured for other models, or another process is at it.
    """
    models = {name: to_mapping(recipe.model) for name, recipe in recipes.items()}
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"seconds": {}, "models": {}}
    if any(models.get(name) != model for name, model in known["models"].items()):
        raise RecipeError(
            f"{path} tells the steps of other models; move {path.parent} away to begin anew, or go on with those"
        )
    missing = [name for name in recipes if name not in known["seconds"]]
    if not missing:
        return dict(known["seconds"])
    first = next(iter(known["seconds"]), None)
    with _alone(path.with_suffix(".lock")):
        times, seconds = _timed({name: recipes[name] for name in ([first] if first else []) + missing})
    speed = known["seconds"][first] / seconds[first] if first else 1.0
    seconds = {name: value * speed for name, value in seconds.items()} | known["seconds"]
    times = {name: value * speed for name, value in times.items()} | known.get("lattices", {})
    facts = {"seconds": seconds, "lattices": times, "threads": torch.get_num_threads(), "machine": machine()}
    write_json(path, {**facts, "models": models})
    return {name: seconds[name] for name in recipes}


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Refuse to time steps while another process does: each would time cores that the other keeps busy."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        lock.touch(exist_ok=False)
    except FileExistsError:
        raise RecipeError(
            f"another process times the steps, says {lock}: wait until it trains (if there is none, remove that file)"
        ) from None
    try:
        yield
    finally:
        lock.unlink()


def _timed(recipes: Mapping[str, Recipe]) -> tuple[dict[str, float], dict[str, float]]:
    """Median seconds of a step on each lattice of each recipe, and the mean of each recipe over its lattices."""
    actions: dict[str, Callable[[], None]] = {}
    shares: dict[str, tuple[str, float]] = {}
    fields = {repr(recipe.data): recipe.data for recipe in recipes.values()}
    loaded = {name: load_data(spec, "train") for name, spec in fields.items()}  # once, where all learn from the same
    for name, recipe in recipes.items():
        data = loaded[repr(recipe.data)]
        model = build_model(recipe, data.lattice)
        model = model.measure(data) if model.spec.needs_moments else model
        assert model.network is not None
        for stratum in strata(model.denoiser, model.training):  # type: ignore[arg-type]
            loss = DenoisingLoss(model.denoiser, data, model.training)  # type: ignore[arg-type]
            loss.strata = [stratum._replace(probability=1.0)]
            lattice = f"{name} {stratum.sites}"
            shares[lattice] = name, stratum.probability
            actions[lattice] = step_of(model.network, loss, len(data), recipe.fit)
    times = {name: statistics.median(of) for name, of in interleaved(actions, TIMED, warm=WARM + 1).items()}
    seconds = dict.fromkeys(recipes, 0.0)
    for lattice, (name, share) in shares.items():
        seconds[name] += share * times[lattice]
    return times, seconds
