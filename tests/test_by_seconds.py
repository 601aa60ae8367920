"""Benchmarks of equal seconds: equal seconds become steps, and figures are those of the cells."""

import pytest

from renorm.bench import by_seconds, clothing64, mnist32, trained
from renorm.bench.by_seconds import Plan
from renorm.bench.result import Result
from renorm.errors import RecipeError
from renorm.fit.record import read_metrics
from renorm.recipes.spec import load_recipe

TINY = {
    "fit.batch": 8,
    "fit.checkpoint_every": 4,
    "fit.log_every": 2,
    "measure.extractor": "mnist-cnn",
    "model.schedule": "separated",
    "model.prediction": "preconditioned",
    "model.subtract_mean": True,
    "model.network.width": 8,
    "model.network.groups": 4,
    "model.network.patch": 2,
    "model.network.attention": [],
    "model.network.multipliers": [1, 1],
    "model.sampler": "running-churn",
    "model.spacing": "window",
}
STEP = {"ours": 0.1, "white-twin": 0.1, "ddpm": 0.125, "edm": 0.1, "sites": 0.2, "sites-folded": 0.1, "folded": 0.05}
PLAN = Plan("small", 1.0, short=0.4, pairs=2, curve=(2, 3), ancestral=(7,), pair=(2,), samples=66, screen=66)


@pytest.fixture
def small(monkeypatch, tmp_path):
    """On 8 x 8 digits, ten steps and few samples, in this folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(trained.PART, raising=False)
    monkeypatch.setattr(by_seconds, "load_recipe", lambda name, asked: load_recipe("demo", TINY | asked))
    for name, value in {"TIMED": 4, "ROUNDS": 2}.items():
        monkeypatch.setattr(by_seconds, name, value)
    for module in (trained, by_seconds):
        monkeypatch.setattr(module, "on_all_cores", lambda jobs, told: [job() for job in jobs])


def steps_of(plan):
    """Steps that each run has made."""
    return {path.name: read_metrics(path / "metrics.jsonl")[-1]["step"] for path in plan.root.glob("*-[01]")}


def test_all_runs_are_trained_for_equal_seconds_and_compared(small, monkeypatch):
    monkeypatch.setattr(by_seconds, "step_seconds", lambda recipes, path: STEP)
    monkeypatch.setenv(trained.PART, "ours-9")
    with pytest.raises(RecipeError, match=r"must name runs of this benchmark .*, got 'ours-9'"):
        by_seconds.run(PLAN, 0)
    monkeypatch.setenv(trained.PART, "ours-0")
    with pytest.raises(RecipeError, match=r"white-twin-0, ddpm-0, edm-0 are not trained yet \(3 of 4 runs"):
        by_seconds.run(PLAN, 0)
    monkeypatch.delenv(trained.PART)
    result = by_seconds.run(PLAN, 0)
    steps = steps_of(PLAN)
    assert steps["ours-0"] == 10
    assert steps["ddpm-0"] == 8
    figures = result.figures
    ratios = [figures[f"train_step_ratio{which}"] for which in ("", "_sites_folded", "_folded")]
    assert ratios == [0.5, 0.5, 0.5]
    drawn = (PLAN.root / "small.svg").read_text()
    assert all(text in drawn for text in (*by_seconds.METHODS, "seconds of an image, 4 at once", "FD["))
    curve = [row for row in result.table if row["cells"] == "curve"]
    (quality,) = (key for key in curve[0] if key.startswith("FD["))
    for method in by_seconds.METHODS:
        best = min(row[quality] for row in curve if row["method"] == method)
        assert figures[f"fd_{method.replace('-', '_')}_best"] == best
    assert {row["walk"] for row in curve if row["method"] == "ours"} == {"running-churn@window"}
    assert all(row["seconds_per_image"] > 0 for row in curve if row["best"])
    screen = [row for row in result.table if row["cells"] == "screen"]
    assert {row["method"] for row in screen} == set(by_seconds.METHODS[1:])
    for method in by_seconds.METHODS[1:]:
        for asked in PLAN.curve:
            shown = {row["walk"] for row in curve if (row["method"], row["asked"]) == (method, asked)}
            tried = sorted(
                (row[quality], row["walk"]) for row in screen if (row["method"], row["asked"]) == (method, asked)
            )
            assert shown == {walk for _, walk in tried[:2]}
    assert figures["time_ratio_ddpm_at_ddpm7_fd"] >= 1


def test_lattices_are_compared_at_equal_seconds(small, monkeypatch):
    monkeypatch.setattr(by_seconds, "step_seconds", lambda recipes, path: STEP)
    monkeypatch.setenv(trained.PART, "ours-0")
    with pytest.raises(RecipeError, match=r"must name runs of this benchmark .*, got 'ours-0'"):
        by_seconds.run_lattices(PLAN, 0)
    monkeypatch.delenv(trained.PART)
    result = by_seconds.run_lattices(PLAN, 0)
    figures, steps = result.figures, steps_of(PLAN)
    assert [steps[f"{lattice}-short-1"] for lattice in by_seconds.LATTICES] == [4, 2, 4, 8]
    assert result.seeds == (0, 1)
    pair = [row for row in result.table if row["cells"] == "pair"]
    assert {(row["method"], row["seed"]) for row in pair} == {(m, s) for m in by_seconds.LATTICES for s in (0, 1)}
    (quality,) = {key for row in pair for key in row if key.startswith("FD[")}
    sites = [row[quality] for row in pair if row["method"] == "sites"]
    assert figures["fd_sites_short_2"] == pytest.approx(sum(sites) / 2)
    assert figures["fd_sites_short_2_error"] == pytest.approx(abs(sites[0] - sites[1]) / 2)


def test_a_walk_that_ran_away_has_no_figure():
    def row(method, asked, fd):
        return {"method": method, "walk": "", "asked": asked, "best": True, "FD": fd, "seconds_per_image": 1.0}

    found = by_seconds.curve_figures([row("ours", 10, 0.1), row("ddpm", 200, None)], "FD", 200)
    assert found == {"fd_ours_10": 0.1, "fd_ours_best": 0.1}
    short = [{"method": m, "seed": s, "evaluations": 10, "FD": fd} for m, s, fd in
             (("ours", 0, 1.0), ("folded", 0, None), ("ours", 1, 2.0), ("folded", 1, 4.0))]  # fmt: skip
    found = by_seconds.pair_figures(short, "FD")
    assert found.pop("fd_ours_short_10_error") == 0.5
    assert found == {"fd_ours_short_10": 1.5, "fd_folded_short_10": 4.0, "fd_folded_less_ours_10": 2.0}


def test_without_pairs_there_is_one_lattice():
    plan = Plan("mnist32", 10.0)
    assert tuple(by_seconds.recipes_of(plan, 0)) == by_seconds.METHODS
    assert by_seconds.short_runs(plan, 3) == []
    assert [run.name for run in by_seconds.long_runs(plan, 3)] == [f"{method}-3" for method in by_seconds.METHODS]


@pytest.mark.parametrize("bench", [mnist32, clothing64])
def test_a_benchmark_is_its_plan(bench, monkeypatch):
    monkeypatch.setattr(by_seconds, "run", lambda plan, seed: Result({"seed": float(seed)}, [{"recipe": plan.name}]))
    assert bench.run(2) == Result({"seed": 2.0}, [{"recipe": bench.__name__.rpartition(".")[2]}])
