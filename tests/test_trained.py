"""The benchmarks of trained networks: equal budgets, run in pieces, and figures that are those of the kept cells."""

import json
import math
import shutil
import statistics
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from renorm.bench import BENCHMARKS, cifar16, gaussian16, mnist16, trained, trained_tables
from renorm.bench.result import Result
from renorm.cli import main
from renorm.data import load as load_data
from renorm.errors import CheckpointError, RecipeError
from renorm.fit import gradient
from renorm.fit.checkpoint import read_tensors
from renorm.measure.features import extractor
from renorm.recipes import compare as comparing
from renorm.recipes import compare_cells
from renorm.recipes.baselines import baseline_of
from renorm.recipes.build import identity
from renorm.recipes.compare import Comparison
from renorm.recipes.compare_cells import Cell, measure_cell
from renorm.recipes.compare_methods import Entry, Mean, Row, gains_of, rows_of
from renorm.recipes.folder import machine
from renorm.recipes.run import fit_run
from renorm.recipes.spec import load_recipe

TINY = {
    "fit.batch": 8,
    "fit.warmup": 0,
    "fit.checkpoint_every": 4,
    "fit.log_every": 2,
    "measure.extractor": "mnist-cnn",
}
TINY |= {"model.network.width": 8, "model.network.groups": 4, "model.network.patch": 2, "model.network.attention": []}
TINY |= {"model.network.multipliers": [1], "model.sampler": "angle", "model.spacing": "cosine"}
NAMES = ["ours-0", "white-twin-0", "edm-0", "ddpm-0", "rgdm-paper-0", "ours-1", "white-twin-1", "edm-1", "ddpm-1"]
HERE = Path("runs", "bench", "small")
OTHERS = {"white-twin": 5, "edm": 3, "ddpm": 3, "rgdm-paper": 5}  # walks of each; two are finalists


def shrink(patch, folder, **changes):
    """The benchmark on digits, with a tiny network, ten steps, two seeds and few samples, in this folder."""
    patch.chdir(folder)
    patch.delenv(trained.PART, raising=False)
    keys = {key.replace("_", ".", 1): value for key, value in changes.items()}
    patch.setattr(trained, "load_recipe", lambda name, asked: load_recipe("demo", TINY | asked | keys))
    patch.setattr(trained, "STEPS", 10)
    patch.setattr(trained, "METHODS", {"ours": 2, "white-twin": 2, "edm": 2, "ddpm": 2, "rgdm-paper": 1})
    patch.setattr(trained, "HEADLINE", (2,))
    patch.setattr(trained, "HEADLINE_ANCESTRAL", (7,))
    patch.setattr(trained, "HEADLINE_SAMPLES", 70)
    patch.setattr(trained, "CURVE", (2, 3))
    patch.setattr(trained, "CURVE_ANCESTRAL", (12,))
    patch.setattr(trained, "CURVE_SAMPLES", 66)
    patch.setattr(trained, "on_all_cores", one_after_the_other)


def one_after_the_other(jobs, told):
    for i, job in enumerate(jobs):
        job()
        told(i + 1, len(jobs))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """All runs of the small benchmark, asked for as a part."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch, folder)
        patch.setenv(trained.PART, ",".join(NAMES))
        with pytest.raises(RecipeError, match=r"all 9 runs in .*small are trained; .* compares them"):
            trained.run("small", 0)
        assert sorted(path.name for path in HERE.iterdir()) == sorted(NAMES)  # nothing was compared
    return folder


@pytest.fixture
def small(monkeypatch, tmp_path):
    shrink(monkeypatch, tmp_path)


@pytest.fixture
def ready(runs, tmp_path, small):
    """The small benchmark where its runs are trained."""
    shutil.copytree(runs, tmp_path, dirs_exist_ok=True)


@pytest.fixture
def counted(monkeypatch):
    """What is trained and what is measured, by name."""
    seen = []

    def training(recipe, folder, **how):
        seen.append(folder.name)
        return fit_run(recipe, folder, **how)

    def measuring(plan, model, yardstick, seed, path):
        seen.append(path.name)
        return measure_cell(plan, model, yardstick, seed, path)

    monkeypatch.setattr(trained, "fit_run", training)
    monkeypatch.setattr(comparing, "measure_cell", measuring)
    return seen


# -- recipes ---------------------------------------------------------------------------------------------------------


def test_one_set_of_values_serves_all_data_sets():
    digits, photos = load_recipe("mnist16"), load_recipe("cifar16")
    assert photos.model == digits.model
    assert photos.fit == digits.fit
    assert photos.data == replace(digits.data, name="cifar10", flip=True)
    fields = load_recipe("gaussian16")
    assert fields.model == digits.model
    assert fields.fit == digits.fit
    assert (photos.data.size, photos.measure.extractor) == (16, "cifar10-resnet56")


def test_the_extractor_of_cifar_reads_fields_of_16_x_16(shared_data):
    if not (shared_data / "cifar10" / "test.npz").is_file():
        pytest.skip("needs CIFAR-10 in the folder of real data")
    recipe = load_recipe("cifar16", {"data.limit": 8})
    x = load_data(recipe.data, "test")
    assert (x.lattice.shape, x.lattice.channels) == ((16, 16), 3)
    known = extractor(recipe.measure.extractor)
    seen = known((x.batch(torch.arange(8)) + 1) / 2)
    assert seen.shape == (8, 64)
    assert seen.isfinite().all()


@pytest.mark.parametrize("name", ["mnist16", "cifar16"])
def test_all_methods_have_an_equal_budget(name):
    found = trained.trainings(name, 4)
    assert sorted(found) == sorted(
        [f"{method}-{seed}" for method in ("ours", "white-twin", "edm", "ddpm") for seed in (4, 5, 6)]
        + ["rgdm-paper-4"]
    )
    shipped = load_recipe(name)
    for run, recipe in found.items():
        method, _, seed = run.rpartition("-")
        assert baseline_of(recipe) == (None if method == "ours" else method)
        assert (recipe.data, recipe.measure) == (shipped.data, shipped.measure)
        assert recipe.model.network == shipped.model.network
        assert recipe.fit == replace(shipped.fit, steps=trained.STEPS, seed=int(seed), precision="float32")
    assert found["ours-4"].model == shipped.model


def test_gaussian_fields_have_three_runs(monkeypatch):
    def judged(name, seed, methods):
        assert (name, methods) == ("gaussian16", {"ours": 1, "white-twin": 1, "edm": 1})
        assert list(trained.trainings(name, seed, methods)) == [f"{method}-{seed}" for method in methods]
        return Result({"seed": float(seed)})

    monkeypatch.setattr(trained, "run", judged)
    assert gaussian16.run(2).figures == {"seed": 2.0}


@pytest.mark.parametrize(("bench", "name"), [(mnist16, "mnist16"), (cifar16, "cifar16")])
def test_a_benchmark_is_its_recipe(bench, name, monkeypatch):
    monkeypatch.setattr(trained, "run", lambda recipe, seed: Result({"seed": float(seed)}, [{"recipe": recipe}]))
    assert bench.run(3) == Result({"seed": 3.0}, [{"recipe": name}])


# -- in pieces -------------------------------------------------------------------------------------------------------


def test_a_part_is_trained_alone_goes_on_after_a_kill_and_says_what_is_missing(runs, small, counted, monkeypatch):
    real, told = gradient.FitProgress, []

    class Killed(real):
        def update(self, step, loss):
            super().update(step, loss)
            if step == 7:
                raise KeyboardInterrupt

    monkeypatch.setenv(trained.PART, "ours-0, edm-1")
    monkeypatch.setattr(gradient, "FitProgress", Killed)
    with pytest.raises(KeyboardInterrupt):
        trained.run("small", 0)
    assert [path.name for path in HERE.iterdir()] == ["ours-0"]

    class Told(real):
        def __init__(self, start, *rest, **how):
            told.append(start)
            super().__init__(start, *rest, **how)

    monkeypatch.setattr(gradient, "FitProgress", Told)
    others = ", ".join(name for name in NAMES if name not in ("ours-0", "edm-1"))
    line = rf"^{others} are not trained yet \(7 of 9 runs in .*\); `renorm bench small` without RENORM_BENCH_PART "
    with pytest.raises(RecipeError, match=line):
        trained.run("small", 0)
    assert told == [4, 0]  # from the checkpoint, and from the start
    assert sorted(path.name for path in HERE.iterdir()) == ["edm-1", "ours-0"]
    with pytest.raises(RecipeError, match="not trained yet"):
        trained.run("small", 0)
    assert counted == ["ours-0", "ours-0", "edm-1"]  # what is finished is left alone
    whole, broken = (read_tensors(at / "ours-0" / "model.safetensors")[0] for at in (runs / HERE, HERE))
    assert whole.keys() == broken.keys()
    assert all(torch.equal(whole[key], broken[key]) for key in whole)


def test_a_part_that_is_none_is_named(small, monkeypatch):
    monkeypatch.setenv(trained.PART, "ours-0,vdm-1")
    with pytest.raises(RecipeError, match=r"must name runs of this benchmark \(ours-0, .*\), got 'vdm-1'"):
        trained.run("small", 0)
    assert not HERE.exists()


def test_a_run_of_another_recipe_is_refused(ready, tmp_path, counted, monkeypatch):
    monkeypatch.setattr(trained, "STEPS", 11)
    with pytest.raises(CheckpointError, match=r"ours-0 belongs to another run: fit\.steps was 10, is 11; move it away"):
        trained.run("small", 0)
    for changes, word in (
        ({"model_infrared": 4.0}, r"model\.infrared was .*, is 4\.0"),
        ({"data_limit": 300}, "data was "),
        ({"fit_lr": 3e-4}, r"fit\.lr was 0\.002, is 0\.0003"),
    ):
        shrink(monkeypatch, tmp_path, **changes)
        with pytest.raises(CheckpointError, match=f"ours-0 belongs to another run: .*{word}"):
            trained.run("small", 0)
    assert counted == []
    (HERE / "ours-0" / "model.safetensors").unlink()  # not finished
    with pytest.raises(CheckpointError, match=r"belongs to another run: .*fit\.lr"):
        trained.run("small", 0)
    shrink(monkeypatch, tmp_path)
    monkeypatch.setenv(trained.PART, "ours-0")
    with pytest.raises(RecipeError, match="all 9 runs"):
        trained.run("small", 0)
    assert counted == ["ours-0"]


def test_a_run_from_before_a_key_came_goes_on():
    """At its default a later key is no part of what makes a run itself; at another value it is."""
    recipe = load_recipe("demo")
    fields = load_data(recipe.data, "train")
    known = identity(recipe, fields)["model"]
    assert "sharpness" not in known
    assert identity(load_recipe("demo", {"model.sharpness": 0.5}), fields)["model"] == known | {"sharpness": 0.5}


# -- figures ---------------------------------------------------------------------------------------------------------


def cells_of(title):
    """Frechet distances by method, walk and evaluations, in the order of seeds, from the files themselves."""
    found = {}
    for path in (HERE / f"compare-{title}" / "cells").glob("*.json"):
        if not path.name.startswith("floor"):
            cell = json.loads(path.read_text())
            method, _, seed = Path(cell["run"]).name.rpartition("-")
            where = (method, cell["walk"], cell["evaluations"])
            found.setdefault(where, {})[int(seed)] = (cell["figures"]["FD[mnist-cnn]"], cell["samples"])
    return found


def mean(cells):
    values = [value for value, _ in cells.values()]
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
    return statistics.fmean(values), error


def best(cells, method, evaluations):
    """Mean and error of the walk with the smallest mean; of Heun, the largest odd number that is not more."""
    made = {
        walk: mean(values)
        for (name, walk, n), values in cells.items()
        if name == method and n == evaluations - (walk.startswith("heun") and evaluations % 2 == 0)
    }
    assert len(made) == (1 if method == "ours" else trained.FINALISTS)
    return min(made.values())


def test_the_figures_have_the_keys_that_others_read():
    """By hand: one walk of ours, two of others, of which the better one counts."""
    methods = [(name, 3 if name != "rgdm-paper" else 1) for name in trained.METHODS]
    entries = [
        Entry(name, walk, n, n, 100.0 * i + n + seed + 10 * extra, 0.1)
        for i, (name, seeds) in enumerate(methods)
        for extra, walk in enumerate(["a", "b"] if name not in trained.FIXED else ["a"])
        for n in (10, 20)
        for seed in range(seeds)
    ]
    entries += [Entry("ddpm", "ancestral", 200, 200, 7.0 + seed, 0.1) for seed in range(3)]
    rows = rows_of(entries)
    gains = gains_of(rows, {"ours": "white-twin"})
    floor = {"figures": {"FD[x]": 0.5}}
    found = Comparison("FD[x]", {}, tuple(rows), tuple(gains), (), (), floor, {})
    figures = trained_tables.figures(found, (10, 20), ("ours", "white-twin"))
    error = pytest.approx(3**-0.5)  # deviations -1, 0, 1: variance 1, three seeds
    shown = {"ours": 1, "white_twin": 101, "edm_best": 201, "ddpm_best": 301}  # the twin's key has no "best" in it
    values = {f"fd_{name}_{n}": value + n for name, value in shown.items() for n in (10, 20)} | {
        "fd_ddpm_ancestral_200": 8.0
    }
    assert figures == {
        **values,
        **{f"{key}_error": error for key in values},
        "fd_rgdm_paper_best_10": 410.0,
        "fd_rgdm_paper_best_20": 420.0,
        **{f"gain_ours_{n}": 100.0 for n in (10, 20)},
        **{f"gain_ours_{n}_error": pytest.approx((2 / 3) ** 0.5) for n in (10, 20)},
        "fd_floor": 0.5,
    }


def cell(run, walk, n, by=None, **figures):
    provenance = {"commit": "aaaaaaa", "torch": "2.0", "machine": "a CPU", "date": "2026-01-01"} | (by or {})
    return Cell(f"runs/{run}", walk, n, n, 70, 1, 0.5, figures, {}, provenance)


def test_other_figures_are_those_of_the_walk_that_is_best_by_quality():
    """EDM's first walk has the better distance, its second the better recall, which does not count."""
    cells = [
        *(
            cell(
                f"edm-{seed}", walk, 10, **{"FD[x]": fd + seed, "recall[x]": recall, "KID[x]": 4.0, "KID[x]_error": 9.0}
            )
            for walk, fd, recalls in (("a", 1.0, (0.2, 0.6)), ("b", 2.0, (0.9, 0.9)))
            for seed, recall in enumerate(recalls)
        ),
        cell("rgdm-paper-0", "a", 10, **{"FD[x]": 5.0, "spectrum_max_log_ratio": 0.25, "sliced_wasserstein": 0.5}),
        cell("ddpm-0", "ancestral", 200, **{"FD[x]": 5.0, "sliced_wasserstein": 0.5}),
    ]
    entries = [
        Entry(trained_tables.method_of(Path(c.run).name), c.walk, c.evaluations, c.evaluations, c.figures["FD[x]"], 0.5)
        for c in cells
    ]
    found = Comparison("FD[x]", {}, tuple(rows_of(entries)), (), (), tuple(cells), {}, {"figure": "small is good"})
    figures = trained_tables.figures(found, (10,), ())
    beside = {key: value for key, value in figures.items() if not key.startswith("fd_")}
    assert beside == {
        "recall_edm_10": pytest.approx(0.4),
        "recall_edm_10_error": pytest.approx(0.2),  # deviations of 0.2: variance 0.08, two seeds
        "kid_edm_10": 4.0,
        "kid_edm_10_error": 0.0,
        "spectrum_rgdm_paper_10": 0.25,  # of one seed no error
        "sw_rgdm_paper_10": 0.5,
    }
    other = replace(found, notes={"figure": "small is good", "machines": "two"})
    told = trained_tables.notes({"headline": found, "curve": other}, (10,))
    assert told.keys() == {"figure", "curve_machines", "beside"}
    assert told["figure"] == "small is good"
    assert told["beside"].endswith("not by themselves: edm at 10 a, rgdm-paper at 10 a")
    plain = replace(found, quality="sliced_wasserstein")
    assert "sw_rgdm_paper_10" not in trained_tables.figures(plain, (10,), ())  # it has the keys of the quality


def test_figures_are_those_of_the_kept_cells_and_nothing_is_measured_twice(ready, counted, monkeypatch, capsys):
    here = compare_cells.machine() | {"commit": "aaaaaaa"}
    monkeypatch.setattr(compare_cells, "machine", lambda: here)

    def killing(out, pieces):
        def kill(done, parts):
            if Path(out).name == "compare-headline" and done == 3:
                raise KeyboardInterrupt

        return kill

    with monkeypatch.context() as patch:
        patch.setattr(trained, "telling", killing)
        with pytest.raises(KeyboardInterrupt):
            trained.run("small", 0)
    curve = 2 * (1 + sum(OTHERS.values())) + 1  # two numbers of every walk, and DDPM at another number
    assert len(counted) == curve + 2 + 2  # the longest first: DDPM's two runs at another number, a run of two walks
    result = trained.run("small", 0)
    headline = 2 + 3 * 2 * 2 + 2 + 2  # of ours 2 runs, of three others 2 x 2 walks, of the paper's 2; DDPM at another
    assert len(counted) == len(set(counted)) == headline + curve
    progress = capsys.readouterr().err
    assert "compare-curve: 6 of 6 parts" in progress
    assert "compare-headline: 11 of 11 parts" in progress
    assert "compare-headline 6/6: 0/0 cells" in progress
    again = trained.run("small", 0)
    assert len(counted) == headline + curve
    assert again == result
    assert result.seeds == (0, 1)

    cells, figures = cells_of("headline"), dict(result.figures)
    assert {samples for each in cells.values() for _, samples in each.values()} == {70}
    shown = [("ours", "ours"), ("white-twin", "white_twin"), ("edm", "edm_best"), ("ddpm", "ddpm_best")]
    for n in trained.HEADLINE:
        for method, key in [*shown, ("rgdm-paper", "rgdm_paper_best")]:
            value, error = best(cells, method, n)
            assert figures.pop(f"fd_{key}_{n}") == pytest.approx(value), (method, n)
            if error is None:
                assert f"fd_{key}_{n}_error" not in figures
            else:
                assert figures.pop(f"fd_{key}_{n}_error") == pytest.approx(error)
        (ours, e), (twin, e_twin) = best(cells, "ours", n), best(cells, "white-twin", n)
        assert figures.pop(f"gain_ours_{n}") == pytest.approx(twin - ours)
        assert figures.pop(f"gain_ours_{n}_error") == pytest.approx(math.hypot(e, e_twin))
    value, error = mean(cells["ddpm", "ancestral@linear-beta", 7])
    assert figures.pop("fd_ddpm_ancestral_7") == pytest.approx(value)
    assert figures.pop("fd_ddpm_ancestral_7_error") == pytest.approx(error)
    floor = next((HERE / "compare-headline" / "cells").glob("floor-*.json"))
    assert figures.pop("fd_floor") == json.loads(floor.read_text())["figures"]["FD[mnist-cnn]"]
    assert figures.pop("training_steps") == 10
    beside = {f"{key}_{m.replace('-', '_')}_2" for key in trained_tables.BESIDE for m in trained.METHODS}
    errors = {f"{key}_error" for key in beside if "rgdm" not in key}
    assert figures.keys() == beside | errors

    check_table(result.table)
    assert "edm at 2 " in result.notes["beside"]
    assert "side by side on busy cores" in result.notes["seconds"]
    check_finalists(result.table)
    taken_from_another_commit(result, counted, monkeypatch)
    told_on_a_page(result, counted, monkeypatch, capsys)


def check_finalists(table):
    """The headline takes over the two best walks of the curve, at the same number."""
    for method in OTHERS:
        at = [row for row in table if row["method"] == method and row["asked"] == 2]
        curve = sorted((row["FD[mnist-cnn]"], row["walk"]) for row in at if row["cells"] == "curve")
        assert len(curve) == OTHERS[method]
        assert {row["walk"] for row in at if row["cells"] == "headline"} == {walk for _, walk in curve[:2]}


def row_of(method, walk, value):
    return Row(method, walk, 10, 10, Mean(value, None, 1), Mean(1.0, None, 1))


def test_finalists_are_the_first_of_equals_and_all_where_none_has_a_figure():
    rows = [row_of("edm", walk, 2.0) for walk in ("heun@karras", "dpm2m@karras", "ddim@karras")]
    rows += [row_of("ddpm", "ancestral@linear-beta", None)]
    curve = Comparison("FD[x]", {}, tuple(rows), (), (), (), {}, {})
    found = trained.finalists(curve, 10, load_recipe("mnist16"))
    assert found["edm"] == ["heun@karras", "dpm2m@karras"]
    assert found["ddpm"] == ["ancestral@auto", "ancestral-small@auto", "ddim@auto"]
    assert found["ours"] == ["running@window"]
    assert set(trained.HEADLINE) <= set(trained.CURVE)


def check_table(table):
    """Which walks were judged, which is the best, how many seeds."""
    headline = [row for row in table if row["cells"] == "headline"]
    curve = [row for row in table if row["cells"] == "curve"]
    assert (len(headline), len(curve)) == (1 + 4 * 2 + 1, 2 * (1 + sum(OTHERS.values())) + 1)
    assert {row["walk"] for row in table if row["method"] == "ours"} == {"angle@cosine"}
    assert {row["walk"] for row in table if row["method"] == "white-twin"} == {
        "angle@cosine",
        "dpm2m@cosine",
        *trained.TWIN_WALKS,
    }
    assert {(row["method"], row["seeds"]) for row in headline} == {
        ("ours", 2),
        ("white-twin", 2),
        ("edm", 2),
        ("ddpm", 2),
        ("rgdm-paper", 1),
    }
    assert {row["seeds"] for row in curve} == {1}
    for part, asked in ((headline, 2), (curve, 2), (curve, 3)):
        assert sorted(row["method"] for row in part if row["best"] and row["asked"] == asked) == sorted(trained.METHODS)
    beyond = [(row["cells"], row["method"], row["walk"], row["asked"]) for row in table if row["asked"] in (7, 12)]
    ancestral = ("ddpm", "ancestral@linear-beta")
    assert beyond == [("headline", *ancestral, 7), ("curve", *ancestral, 12)]
    assert all(row["training_seconds"] > 0 for row in table)
    assert not [key for row in table for key in row if key == "seconds_per_sample"]
    where = machine()
    assert {row["trained_by"] for row in table} == {f"{where['commit']} on {where['machine']}"}
    assert {row["measured_on"] for row in table} == {f"{where['machine']} with torch {where['torch']}"}
    assert all(0 < row["spectrum"] < math.inf for row in table)
    curves = cells_of("curve")
    assert {samples for each in curves.values() for _, samples in each.values()} == {66}
    assert {seed for each in curves.values() for seed in each} == {0}


def taken_from_another_commit(result, counted, monkeypatch):
    """A commit between two pieces costs no cell, and is told."""
    other = compare_cells.machine() | {"commit": "fffffff"}
    monkeypatch.setattr(compare_cells, "machine", lambda: other)
    counted.clear()
    after = trained.run("small", 0)
    assert counted == []
    assert replace(after, notes=result.notes) == result
    assert "at another commit (aaaaaaa)" in after.notes["curve_other_code"]
    assert {row["commits"] for row in after.table} == {"aaaaaaa"}
    written = json.loads((HERE / "compare-headline" / "compare.json").read_text())
    assert "measured at another commit (aaaaaaa)" in written["notes"]["other_code"]
    assert "which favours it" in written["notes"]["best"]
    assert [(gain["method"], gain["twin"]) for gain in written["gains"]] == [("ours", "white-twin")]
    assert len(written["cells"]) == 18
    assert written["notes"]["other_code"].startswith("18 of 18 cells")
    assert {row["seconds"]["value"] for row in written["table"]} == {None}
    assert {run["method"] for run in written["runs"]} == set(trained.METHODS)
    assert len(written["runs"]) == 9


def told_on_a_page(result, counted, monkeypatch, capsys):
    """The command writes the page of both tables."""
    monkeypatch.setitem(BENCHMARKS, "small", "mnist16")
    monkeypatch.setattr(mnist16, "run", lambda seed: trained.run("small", seed))
    capsys.readouterr()
    assert main(["bench", "small", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["figures"] == result.figures
    assert report["comparisons"] == [str(HERE / "compare-headline"), str(HERE / "compare-curve")]
    assert main(["bench", "small"]) == 0
    out = capsys.readouterr().out
    for title, number in (("headline", 70), ("curve", 66)):
        page = HERE / f"compare-{title}" / "compare.html"
        assert f"report: {page}" in out
        text = page.read_text(encoding="utf-8")
        assert f"of {number} samples" in text
        assert "Gain of renormalization of ours over white-twin" in text
        assert all(method in text for method in trained.METHODS)
        assert "Against evaluations" in text
        assert "Against seconds" not in text
        assert "side by side on busy cores" in text
    assert "measured at another commit" in report["notes"]["headline_other_code"]
    assert counted == []
