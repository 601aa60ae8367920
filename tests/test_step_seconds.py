"""Seconds of a training step: each lattice by itself, once, and what joins later at the speed of the first time."""

import json

import pytest

from renorm.bench import step_seconds as module
from renorm.bench.step_seconds import step_seconds
from renorm.errors import RecipeError
from renorm.recipes.baselines import baseline
from renorm.recipes.spec import load_recipe

TINY = {
    "fit.batch": 8,
    "model.network.width": 8,
    "model.network.groups": 4,
    "model.network.attention": [],
    "model.network.multipliers": [1, 1],
}
FOLDED = {"model.lattices": "folded", "model.fold": 3.0, "model.network.entries": 2}


@pytest.fixture
def recipes():
    ours = load_recipe("demo", TINY | {"model.schedule": "separated"})
    return {"ours": ours, "ddpm": baseline(ours, "ddpm")}


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "TIMED", 2)
    return tmp_path / "here" / "steps.json"


def test_a_step_is_timed_on_each_lattice_and_only_once(recipes, path):
    folded = load_recipe("demo", TINY | FOLDED | {"model.schedule": "separated"})
    seconds = step_seconds({**recipes, "folded": folded}, path)
    kept = json.loads(path.read_text())
    assert set(kept["lattices"]) == {"ours 64", "ddpm 64", "folded 16", "folded 64"}
    low, high = sorted(kept["lattices"][f"folded {n}"] for n in (16, 64))
    assert low <= seconds["folded"] <= high
    assert step_seconds({**recipes, "folded": folded}, path) == seconds == kept["seconds"]


def test_what_joins_is_told_at_the_speed_of_the_first_time(recipes, path, monkeypatch):
    speed, timed = {"now": 1.0}, []

    def interleaved(actions, rounds, *, warm):
        timed.append(list(actions))
        return {name: [speed["now"] * (3.0 if "ddpm" in name else 2.0)] * rounds for name in actions}

    monkeypatch.setattr(module, "interleaved", interleaved)
    step_seconds({"ours": recipes["ours"]}, path)
    speed["now"] = 10.0  # a slower day
    assert step_seconds(recipes, path) == {"ours": 2.0, "ddpm": 3.0}
    assert timed == [["ours 64"], ["ours 64", "ddpm 64"]]
    assert json.loads(path.read_text())["lattices"] == {"ours 64": 2.0, "ddpm 64": 3.0}


def test_steps_are_timed_by_one_process_and_for_these_models(recipes, path):
    lock = path.with_suffix(".lock")
    lock.parent.mkdir()
    lock.touch()
    with pytest.raises(RecipeError, match="another process times the steps"):
        step_seconds(recipes, path)
    lock.unlink()
    step_seconds(recipes, path)
    assert not lock.exists()
    for others in ({"ours": recipes["ours"]}, {**recipes, "ours": baseline(recipes["ours"], "edm")}):
        with pytest.raises(RecipeError, match="tells the steps of other models"):
            step_seconds(others, path)
