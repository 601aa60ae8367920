"""Runs beside each other: what a cell is, that none is measured twice, and what may be called a gain."""

import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from renorm.cascade.cascade import Cascade
from renorm.cascade.spec import CascadeSpec, GaussianSpec
from renorm.cli import main
from renorm.data import load as load_data
from renorm.diffusion.mode_diffusion import ModeDiffusion
from renorm.errors import CheckpointError, DataError, RecipeError
from renorm.recipes import compare as comparing
from renorm.recipes import compare_cells, diffusion_run
from renorm.recipes import folder as run_folder
from renorm.recipes.baselines import BASELINES, WalkName, baseline, baseline_of, default_walks
from renorm.recipes.compare import compare
from renorm.recipes.compare_cells import Plan, Yardstick, measure_cell
from renorm.recipes.compare_methods import Entry, figures_of, gains_of, mean_over_seeds, rows_of
from renorm.recipes.compare_runs import Subject, comparable, methods_of, subject
from renorm.recipes.folder import read_recipe
from renorm.recipes.judge import judge
from renorm.recipes.run import fit_run, load_run
from renorm.recipes.spec import CascadeRecipe, load_recipe
from renorm.report.comparison import write_comparison
from renorm.spec import to_toml

TINY = {"fit.steps": 20, "fit.batch": 16, "fit.warmup": 0, "model.network.width": 8}
SMALL = {"data.shape": [8, 8], "data.number": 200}  # fields of an exact denoiser: fitted in no time


def tiny(name="demo", **changes):
    keys = {key.replace("_", ".", 1): value for key, value in changes.items()}
    return load_recipe(name, TINY | {"measure.extractor": "mnist-cnn"} | keys)


@pytest.fixture(autouse=True)
def committed(monkeypatch):
    """Cells of code that its commit identifies, also while somebody works on it."""
    code = compare_cells.machine() | {"commit": "0000000"}
    monkeypatch.setattr(compare_cells, "machine", lambda: code)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two seeds of one method, and one of its white twin, on digits."""
    folder = tmp_path_factory.mktemp("runs")
    for name, recipe in (
        ("ours-0", tiny(fit_seed=0)),
        ("ours-1", tiny(fit_seed=1)),
        ("twin", baseline(tiny(), "white-twin")),
    ):
        fit_run(recipe, folder / name, progress=False)
    return [folder / name for name in ("ours-0", "ours-1", "twin")]


@pytest.fixture
def exact(tmp_path):
    """Makes a run of the exact denoiser of a Gaussian field."""

    def fitted(name, **changes):
        keys = {key.replace("_", ".", 1): value for key, value in changes.items()}
        fit_run(load_recipe("gaussian", SMALL | keys), tmp_path / name, progress=False)
        return tmp_path / name

    return fitted


@pytest.fixture
def counted(monkeypatch):
    """The cells that are measured, by their files."""
    measured = []

    def counting(plan, model, yardstick, seed, path):
        measured.append(path.name)
        return measure_cell(plan, model, yardstick, seed, path)

    monkeypatch.setattr(comparing, "measure_cell", counting)
    return measured


def without_seconds(table):
    """The figures, but for what depends on the clock."""
    return {key: value for key, value in table.figures.items() if not key.endswith("_seconds")}


# -- numbers by hand -------------------------------------------------------------------------------------------------

# Two methods of three seeds, one of one seed, one that ran away once.
HAND = [
    *(Entry("ours", "ddim@karras", 10, 10, q, s) for q, s in ((4.0, 1.0), (5.0, 2.0), (9.0, 3.0))),  # mean 6
    *(Entry("ours", "heun@karras", 10, 9, q, 1.0) for q in (1.0, 2.0, None)),
    *(Entry("ours", "angle@karras", 10, 10, q, 1.0) for q in (7.0, 7.0, 5.0)),
    *(Entry("twin", "ddim@karras", 10, 10, q, 1.0) for q in (10.0, 12.0, 14.0)),  # mean 12
    Entry("ddpm", "ddim@karras", 10, 10, 8.0, 1.0),
    Entry("ddpm", "ddim@karras", 20, 20, 3.0, 1.0),
]


def test_seeds_are_averaged_and_the_best_walk_is_that_of_the_smallest_mean():
    rows = rows_of(HAND)
    table = {(row.method, row.walk, row.asked): row for row in rows}
    assert len(table) == len(rows) == 6
    ours = table["ours", "ddim@karras", 10]
    # deviations -2, -1, 3: sum of squares 14, variance 7, error sqrt(7/3)
    assert ours.quality == (6.0, pytest.approx((7 / 3) ** 0.5), 3)
    assert ours.seconds == (2.0, pytest.approx((1 / 3) ** 0.5), 3)
    assert table["ours", "heun@karras", 10].quality == (None, None, 3)  # it has the least value, but ran away once
    assert table["ours", "heun@karras", 10].evaluations == 9
    assert {key for key, row in table.items() if row.best} == {
        ("ours", "ddim@karras", 10),
        ("twin", "ddim@karras", 10),
        ("ddpm", "ddim@karras", 10),
        ("ddpm", "ddim@karras", 20),
    }
    assert table["ddpm", "ddim@karras", 10].quality == (8.0, None, 1)
    assert mean_over_seeds([1.0, float("nan")]) == mean_over_seeds([1.0, None]) == (None, None, 2)


def test_only_the_difference_from_the_white_twin_is_a_gain():
    rows = rows_of(HAND)
    (gain,) = gains_of(rows, {"ours": "twin"})
    # twin: deviations -2, 0, 2, variance 4, error sqrt(4/3); errors add in squares: 7/3 + 4/3
    assert (gain.method, gain.twin, gain.asked, gain.value) == ("ours", "twin", 10, 6.0)
    assert gain.error == pytest.approx((11 / 3) ** 0.5)
    assert gains_of(rows, {}) == []
    assert gains_of(rows, {"ours": "ddpm"})[0].error is None  # of one seed nothing is known
    figures = figures_of("FD[x]", rows, [gain], 0.5)
    assert figures["fd_ours_10"] == 6.0
    assert figures["fd_ours_10_error"] == pytest.approx((7 / 3) ** 0.5)
    assert figures["fd_ours_10_walk"] == "ddim@karras"
    assert figures["fd_ddpm_20"] == 3.0
    assert "fd_ddpm_20_error" not in figures
    assert figures["gain_ours_10"] == 6.0
    assert figures["gain_ours_10_error"] == pytest.approx((11 / 3) ** 0.5)
    assert figures["fd_floor"] == 0.5
    assert figures_of("sliced_wasserstein", rows, [], None)["sliced_wasserstein_twin_10"] == 12.0


def test_methods_whose_names_differ_by_signs_alone_keep_their_figures():
    names = ["a-b", "a_b", "A b", "a-b-2"]
    rows = rows_of(
        Entry(name, "ddim", n, n, 10.0 * i + n, 1.0) for i, name in enumerate([*names, "twin"]) for n in (1, 2)
    )
    figures = figures_of("FD[x]", rows, gains_of(rows, dict.fromkeys(names, "twin")), None)
    keys = ["a_b", "a_b_2", "a_b_3", "a_b_2_2"]
    assert [figures[f"fd_{key}_{n}"] for key in keys for n in (1, 2)] == [
        10.0 * i + n for i in range(4) for n in (1, 2)
    ]
    assert [figures[f"gain_{key}_2"] for key in keys] == [40, 30, 20, 10]
    assert len(figures) == 2 * 3 * 5 + 2 * 4  # a value, a walk, seconds; gains


# -- baselines -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_has_an_equal_budget(name):
    ours = load_recipe("mnist16")
    other = baseline(ours, name)
    assert (other.data, other.fit, other.measure) == (ours.data, ours.fit, ours.measure)
    assert (other.model.network, other.model.steps) == (ours.model.network, ours.model.steps)
    assert baseline_of(other) == name
    assert baseline_of(replace(other, model=replace(other.model, sampler="ddim"))) == name  # whatever the walk
    assert baseline_of(ours) is None


@pytest.mark.parametrize("schedule", ["white", "edm"])
def test_what_was_white_already_is_no_twin(schedule):
    assert baseline_of(load_recipe("mnist16", {"model.schedule": schedule, "model.prior": "flat"})) is None
    assert baseline_of(load_recipe("mnist16", {"model.schedule": "calibrated", "model.prior": "flat"})) == "white-twin"


def test_baselines_are_what_they_are_called():
    ours = load_recipe("mnist16")
    models = {name: baseline(ours, name).model for name in BASELINES}
    assert replace(models["white-twin"], prior="coloured") == ours.model
    assert (models["ddpm"].schedule, models["ddpm"].prediction) == ("white", "coloured-noise")
    assert (models["edm"].schedule, models["edm"].prediction) == ("edm", "edm")
    assert (models["rgdm-paper"].schedule, models["rgdm-paper"].regulator) == ("rgdm", "rational")
    assert models["rgdm-paper"].prediction == "coloured-noise"
    walks = {name: [str(walk) for walk in default_walks(baseline(ours, name))] for name in BASELINES}
    assert walks["ddpm"] == ["ancestral@auto", "ancestral-small@auto", "ddim@auto"]
    assert walks["edm"] == ["heun@karras", "dpm2m@karras", "ddim@karras"]
    assert walks["rgdm-paper"] == [
        f"{name}@log-uniform" for name in ("ancestral", "ancestral-small", "ddim", "angle", "angle-pc")
    ]
    assert walks["white-twin"] == [str(walk) for walk in default_walks(ours)]
    own = default_walks(replace(ours, model=replace(ours.model, sampler="heun", spacing="karras")))
    assert own[0] == WalkName("heun", "karras")
    assert len(own) == 6


@pytest.mark.parametrize(
    ("recipe", "name", "message"),
    [
        ("demo", "vdm", "unknown baseline 'vdm'; known: ddpm, edm, rgdm-paper, white-twin"),
        ("tokens-mnist", "ddpm", "a baseline is a diffusion"),
        ("white", "white-twin", "a white twin is of a recipe with a coloured prior"),
    ],
)
def test_a_baseline_that_is_none_is_refused(recipe, name, message):
    given = load_recipe("demo", {"model.schedule": "white"}) if recipe == "white" else load_recipe(recipe)
    with pytest.raises(RecipeError, match=message):
        baseline(given, name)


# -- cells -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("walk", "asked", "steps", "made"),
    [("heun", 4, 2, 3), ("heun", 5, 3, 5), ("heun", 1, 1, 1), ("dpm2m", 4, 4, 4), ("ancestral", 1, 1, 1)],
)
def test_evaluations_are_those_of_the_network_and_never_more_than_asked(runs, tmp_path, walk, asked, steps, made):
    """Counted once more where they are made, by a hook on the network."""
    found = compare(runs[:1], evaluations=[asked], walks=[walk], samples=70, out=tmp_path)
    (cell,), (row,) = found.cells, found.rows
    assert (cell.steps, cell.evaluations, row.asked, row.evaluations) == (steps, made, asked, made)
    assert made <= asked
    model, calls = load_run(runs[0]), []
    model.network.register_forward_hook(lambda *_: calls.append(1))
    model = model.with_walk(sampler=walk, spacing="log-uniform")
    model.sample(70, generator=torch.Generator().manual_seed(0), steps=steps)
    assert len(calls) == made


def test_a_cell_holds_the_figures_of_measure_and_says_where_it_is_from(runs, tmp_path):
    found = compare(runs[:1], evaluations=[4], walks=["ddim"], samples=70, seed=3, out=tmp_path)
    (cell,), recipe = found.cells, tiny()
    model = load_run(runs[0]).with_walk(sampler="ddim", spacing="log-uniform")
    x = model.sample(70, generator=torch.Generator().manual_seed(3), steps=4)
    test = load_data(recipe.data, "test")
    reference = test.batch(torch.arange(len(test)))
    judged = judge(x, reference, test, replace(recipe.measure, samples=70), recipe.data)
    for key in ("FD[mnist-cnn]", "KID[mnist-cnn]", "sliced_wasserstein", "spectrum_max_z", "recall[mnist-cnn]"):
        assert cell.figures[key] == pytest.approx(judged.figures[key]), key
        if key in judged.figures and f"{key}_floor" in judged.figures:
            assert found.floor["figures"][key] == pytest.approx(judged.figures[f"{key}_floor"]), key
    assert found.figures["fd_floor"] == found.floor["figures"]["FD[mnist-cnn]"]
    by = cell.provenance
    assert set(by["weights_sha256"]) == {"model.safetensors", "moments.safetensors"}
    assert by["extractor_sha256"] == judged.notes["extractor_sha256"]
    assert {"reference_sha256", "commit", "renorm", "torch", "date", "machine"} <= by.keys()
    assert cell.seconds_per_sample > 0
    assert (cell.samples, cell.seed, cell.walk) == (70, 3, "ddim@log-uniform")


def test_a_killed_comparison_goes_on_and_measures_no_cell_twice(runs, tmp_path, counted):
    asked = {"evaluations": [2, 4], "walks": ["ddim", "angle", "ddim@log-uniform"], "samples": 70}
    whole = compare(runs, **asked, out=tmp_path / "whole")
    assert len(counted) == len(set(counted)) == 12  # three runs, two walks (one is named twice), two numbers
    counted.clear()

    def kill(done, cells, what):
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare(runs, **asked, out=tmp_path / "killed", progress=kill)
    assert len(counted) == 5
    told = []
    again = compare(runs, **asked, out=tmp_path / "killed", progress=lambda *where: told.append(where[:2]))
    assert len(counted) == len(set(counted)) == 12
    assert told == [(done, 7) for done in range(8)]
    assert without_seconds(again) == without_seconds(whole)
    assert [row.quality for row in again.rows] == [row.quality for row in whole.rows]
    assert compare(runs, **asked, out=tmp_path / "killed").figures == again.figures
    assert len(counted) == 12
    (tmp_path / "killed" / "cells" / counted[0]).write_text('{"figures"')  # damaged: measured anew
    assert without_seconds(compare(runs, **asked, out=tmp_path / "killed")) == without_seconds(whole)
    assert counted[12:] == counted[:1]
    written = json.loads((tmp_path / "killed" / "compare.json").read_text())
    assert written["figures"].keys() == again.figures.keys()
    assert len(written["table"]) == 8
    assert len(written["cells"]) == 12


@pytest.mark.parametrize("damage", [{"figures": {}}, {"figures": None}, {"provenance": {"commit": "1111111"}}])
def test_a_cell_without_what_it_must_hold_is_measured_anew(exact, tmp_path, counted, damage):
    asked = {"evaluations": [2], "walks": ["ddim"], "samples": 50, "out": tmp_path / "compare"}
    run = exact("run")
    whole = compare([run], **asked)
    path = tmp_path / "compare" / "cells" / counted[0]
    path.write_text(json.dumps(json.loads(path.read_text()) | damage))
    assert without_seconds(compare([run], **asked)) == without_seconds(whole)
    assert counted == [path.name] * 2
    assert json.loads(path.read_text())["figures"] == whole.cells[0].figures


def test_a_floor_without_its_number_is_measured_anew(runs, tmp_path):
    asked = {"evaluations": [1], "walks": ["ddim"], "samples": 70, "out": tmp_path}
    whole = compare(runs[:1], **asked)
    (path,) = (tmp_path / "cells").glob("floor-*.json")
    kept = json.loads(path.read_text())
    assert kept.pop("training_fields") == 70
    path.write_text(json.dumps(kept))
    again = compare(runs[:1], **asked)
    assert again.floor == whole.floor
    assert again.notes["floor"].startswith("70 training fields")


def test_a_cell_of_other_weights_samples_seed_or_walk_is_another(runs, tmp_path):
    """Every part of what a cell depends on moves its file."""
    recipe = tiny()
    test = load_data(recipe.data, "test")
    yard = Yardstick.of(recipe.data, replace(recipe.measure, samples=70), test)
    plan = Plan(subject(runs[0]), WalkName("ddim", "karras"), 4, 4)

    def name(plan=plan, yard=yard, seed=1):
        return plan.path(Path(), yard, seed).name

    others = [
        name(replace(plan, subject=subject(runs[1]))),
        name(replace(plan, subject=subject(runs[2]))),
        name(replace(plan, walk=WalkName("ddim", "cosine"))),
        name(replace(plan, walk=WalkName("angle", "karras"))),
        name(replace(plan, steps=5)),
        name(seed=2),
        name(yard=replace(yard, measure=replace(recipe.measure, samples=71))),
        name(yard=replace(yard, facts=yard.facts | {"extractor_sha256": "0"})),
        name(yard=replace(yard, facts=yard.facts | {"reference_sha256": "0"})),
    ]
    assert len({name(), *others}) == 1 + len(others)
    moved = shutil.copytree(runs[0], tmp_path / "moved")
    assert name(replace(plan, subject=subject(moved))) == name()  # the same run elsewhere


def test_a_cell_of_another_commit_is_refused_measured_again_or_accepted(exact, tmp_path, counted, monkeypatch):
    run, out = exact("run"), tmp_path / "compare"
    asked = {"evaluations": [2], "walks": ["ddim"], "samples": 50, "out": out}
    compare([run], **asked)
    real = compare_cells.machine()
    monkeypatch.setattr(compare_cells, "machine", lambda: real | {"commit": "fffffff"})
    counted.clear()
    with pytest.raises(CheckpointError) as refused:
        compare([run], **asked)
    line = str(refused.value)
    assert f"at commit {real['commit']}, this is" in line
    assert "fffffff; add --again to measure such cells anew, or --accept-cached to take them" in line
    assert "\n" not in line
    taken = compare([run], **asked, cached="accept")
    assert counted == []
    text = f"1 of 1 cells were measured at another commit ({real['commit']}) and taken as they are"
    assert taken.notes["other_code"] == text
    assert "Other code" in write_comparison(out).read_text()
    anew = compare([run], **asked, cached="again")
    assert len(counted) == 1
    assert "other_code" not in anew.notes
    assert anew.cells[0].provenance["commit"] == "fffffff"
    compare([run], **asked)
    compare([run], **asked, cached="again")
    assert len(counted) == 1  # what this code has measured stays


def test_a_cell_of_changes_that_are_not_committed_counts_as_one_of_other_code(exact, tmp_path, counted, monkeypatch):
    """Also for code of the same commit with changes: they may be others."""
    run, out = exact("run"), tmp_path / "compare"
    asked = {"evaluations": [2], "walks": ["ddim"], "samples": 50, "out": out}
    clean = compare_cells.machine()
    changed = clean | {"commit": "0000000-dirty"}
    monkeypatch.setattr(compare_cells, "machine", lambda: changed)
    found = compare([run], **asked)
    told = "1 of 1 cells were measured by code with changes that no commit holds (0000000-dirty)"
    assert found.notes["not_committed"] == told
    assert "<strong>Not committed</strong>" in write_comparison(out).read_text()
    with pytest.raises(
        CheckpointError, match=r"at commit 0000000-dirty \(with changes that no commit holds\), this is"
    ):
        compare([run], **asked)
    assert len(counted) == 1
    assert compare([run], **asked, cached="accept").notes["not_committed"] == told
    assert len(counted) == 1
    compare([run], **asked, cached="again")
    assert len(counted) == 2
    monkeypatch.setattr(compare_cells, "machine", lambda: clean)
    with pytest.raises(CheckpointError, match="add --again"):
        compare([run], **asked)
    assert "not_committed" not in compare([run], **asked, cached="again").notes
    compare([run], **asked)
    assert len(counted) == 3


def test_cells_of_several_machines_are_told_apart(exact, tmp_path, monkeypatch):
    run, out = exact("run"), tmp_path / "compare"
    here = compare_cells.machine() | {"machine": "a CPU", "torch": "2.0"}
    monkeypatch.setattr(compare_cells, "machine", lambda: here)
    assert "machines" not in compare([run], evaluations=[2, 3], walks=["ddim"], samples=50, out=out).notes
    there = here | {"machine": "NVIDIA <X>", "torch": "2.1"}
    monkeypatch.setattr(compare_cells, "machine", lambda: there)
    found = compare([run], evaluations=[2, 3, 4], walks=["ddim"], samples=50, out=out)
    told = "2 cells were measured on a CPU with torch 2.0; 1 on NVIDIA <X> with torch 2.1; a GPU draws other noise"
    assert found.notes["machines"].startswith(told)
    assert json.loads((out / "compare.json").read_text())["notes"]["machines"].startswith(told)
    page = write_comparison(out).read_text()
    assert "<strong>Several machines</strong>" in page
    assert "NVIDIA &lt;X&gt; with torch 2.1" in page


def trained_as(run, **facts):
    """The manifest of a run, with other facts."""
    path = run / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | facts))


def test_trainings_of_several_commits_or_of_changed_code_are_told(exact, tmp_path):
    runs = [exact("ours-0"), exact("ours-1", fit_seed=1), exact("longer", fit_steps=7)]
    asked = {"evaluations": [2], "walks": ["ddim"], "samples": 50, "out": tmp_path / "compare"}
    for run in runs:
        trained_as(run, commit="aaaaaaa")
    assert "trainings" not in compare(runs, **asked).notes
    trained_as(runs[1], commit="bbbbbbb")
    trained_as(runs[2], commit="ccccccc-dirty", machine="NVIDIA X")
    assert compare(runs, **asked).notes["trainings"] == (
        "ours was trained by several commits (aaaaaaa, bbbbbbb); "
        "longer was trained by code with changes that no commit holds (ccccccc-dirty)"
    )
    page = write_comparison(tmp_path / "compare").read_text()
    assert "<strong>Trainings</strong>" in page
    assert "NVIDIA X" in page


def test_a_commit_says_whether_the_package_has_changed_since(tmp_path, monkeypatch):
    """In a repository of its own, with a package like this one and a file beside it."""
    if shutil.which("git") is None:
        pytest.skip("needs git")
    for key in [key for key in os.environ if key.startswith("GIT_")]:
        monkeypatch.delenv(key)
    package = tmp_path / "renorm"
    (package / "recipes").mkdir(parents=True)
    here = package / "recipes" / "folder.py"
    monkeypatch.setattr(run_folder, "__file__", str(here))

    def git(*words):
        named = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        return subprocess.run(["git", *named, *words], cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    def commit():
        return run_folder.machine()["commit"]

    git("init")
    for path in (here, tmp_path / "README.md"):
        path.write_text("1")
    git("add", "README.md")
    git("commit", "-m", "without the package")
    digest = commit()  # installed in a folder of another project
    assert re.fullmatch("files-[0-9a-f]{12}", digest)
    assert commit() == digest
    (package / "recipes" / "new.toml").write_text("a = 1")
    run_folder._digest.cache_clear()
    assert commit() != digest
    (package / "recipes" / "new.toml").unlink()
    git("add", ".")
    git("commit", "-m", "all")
    known = git("rev-parse", "--short", "HEAD").strip()
    assert commit() == known
    (tmp_path / "README.md").write_text("2")  # no code
    assert commit() == known
    here.write_text("2")
    assert commit() == f"{known}-dirty"
    git("checkout", "renorm")
    assert commit() == known
    (package / "new.py").write_text("")
    assert commit() == f"{known}-dirty"


def test_a_walk_that_runs_away_is_never_the_best(runs, tmp_path, monkeypatch):
    real = compare_cells.sample_run

    def sampled(folder, num, *, model, **how):
        x = real(folder, num, model=model, **how)
        return x.index_fill(0, torch.tensor([3]), float("nan")) if model.spec.sampler == "angle" else x

    monkeypatch.setattr(compare_cells, "sample_run", sampled)
    found = compare(runs[:1], evaluations=[2], walks=["angle", "ddim"], samples=70, out=tmp_path / "away")
    assert [(row.walk, row.quality.value is None, row.best) for row in found.rows] == [
        ("angle@log-uniform", True, False),
        ("ddim@log-uniform", False, True),
    ]
    assert "angle@log-uniform at 2" in found.notes["not_finite"]
    page = write_comparison(tmp_path / "away").read_text()
    assert "ran away" in page
    assert "<strong>Ran away</strong>" in page


# -- runs ------------------------------------------------------------------------------------------------------------


def test_runs_of_other_data_cannot_be_compared(exact):
    first = exact("first")
    for name, changes, word in (
        ("size", {"data_shape": [4, 4]}, "sites"),
        ("mass", {"data_mass": 1.0}, "test_fields"),
        ("boundary", {"data_boundary": "periodic"}, "boundary"),
        ("range", {"data_value_range": [0.0, 1.0]}, "value_range"),
    ):
        with pytest.raises(DataError, match=rf"cannot be compared, their data differ: .*{word}") as error:
            compare([first, exact(name, **changes)], samples=50)
        assert "first" in str(error.value)
        assert name in str(error.value)


def test_runs_that_learned_from_fewer_fields_cannot_be_compared(runs, tmp_path):
    other = shutil.copytree(runs[1], tmp_path / "fewer")
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["data"]["number"] = 100
    (other / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="training_fields was 1618, is 100"):
        compare([runs[0], other], samples=70, out=tmp_path)


def test_runs_that_learned_from_other_fields_cannot_be_compared(runs, tmp_path):
    """As many, of one test set; where a manifest does not tell, nothing is known."""
    other, silent = (shutil.copytree(runs[1], tmp_path / name) for name in ("other", "silent"))
    data = json.loads((other / "manifest.json").read_text())["data"]
    trained_as(other, data=data | {"sha256": "f" * 64})
    message = rf"learned from different training fields: SHA-256 {data['sha256'][:16]} and f{{16}}; compare runs of one"
    with pytest.raises(DataError, match=message) as error:
        comparable([subject(runs[0]), subject(other)])
    assert str(runs[0]) in str(error.value)
    assert str(other) in str(error.value)
    trained_as(silent, data={"number": data["number"]})
    comparable([subject(runs[0]), subject(silent)])
    with pytest.raises(DataError, match="different training fields"):
        comparable([subject(silent), subject(runs[0]), subject(other)])
    comparable([subject(runs[0]), unlike(subject(other))])  # with its labels it has another digest


def unlike(run):
    """The run with classes."""
    return replace(run, recipe=replace(run.recipe, data=replace(run.recipe.data, labels=True)))


def test_runs_of_two_extractors_cannot_be_compared(runs, tmp_path):
    other = shutil.copytree(runs[1], tmp_path / "other")
    (other / "recipe.toml").write_text(
        to_toml(replace(tiny(fit_seed=1), measure=replace(tiny().measure, extractor=None)))
    )
    with pytest.raises(RecipeError, match=r"must name one extractor .*, got mnist-cnn and None"):
        compare([runs[0], other], samples=70, out=tmp_path)


def test_what_else_is_refused(runs, tmp_path):
    with pytest.raises(RecipeError, match="differ in nothing, not even in their seed 0"):
        compare([runs[0], runs[0]], samples=70, out=tmp_path)
    with pytest.raises(DataError, match="needs at least 65 samples"):
        compare(runs[:1], samples=64, out=tmp_path)
    with pytest.raises(RecipeError, match="unknown sampler 'ddpm'"):
        compare(runs[:1], walks=["ddpm"], samples=70, out=tmp_path)
    with pytest.raises(RecipeError, match="unknown spacing 'cubic'"):
        compare(runs[:1], walks=["ddim@cubic"], samples=70, out=tmp_path)
    with pytest.raises(RecipeError, match=r"a walk is SAMPLER or SAMPLER@SPACING, such as ddim@karras, got 'ddim@'"):
        compare(runs[:1], walks=["ddim@"], samples=70, out=tmp_path)
    with pytest.raises(ValueError, match="evaluations must be >= 1"):
        compare(runs[:1], evaluations=[0], samples=70, out=tmp_path)
    unfinished = shutil.copytree(runs[0], tmp_path / "unfinished")
    (unfinished / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"the fit of .*unfinished is not finished"):
        compare([unfinished], samples=70, out=tmp_path)
    assert not (tmp_path / "cells").exists()


def test_runs_that_differ_by_their_seed_are_one_method_and_find_their_twin(runs):
    methods = methods_of([subject(run) for run in runs])
    assert [(m.name, len(m.runs), m.baseline, m.twin) for m in methods] == [
        ("ours", 2, None, "twin"),
        ("twin", 1, "white-twin", None),
    ]


@pytest.mark.parametrize(
    ("groups", "names"),
    [
        ([["run10", "run11"]], ["run"]),
        ([["ours-10", "ours-11", "ours-1"]], ["ours"]),
        ([["ours_seed0", "ours_seed1"], ["ours-s3", "ours-s4"]], ["ours", "ours-s3"]),
        ([["unet-16-a", "unet-16-b"], ["mnist16-0", "mnist16-1"]], ["unet-16", "mnist16"]),
        ([["alpha", "alps"]], ["alpha"]),
        ([["x/ours"], ["ours"], ["y/ours"]], ["ours", "HERE/ours", "y/ours"]),
        ([["one-0", "one-1"], ["one"], ["two/one"]], ["one", "HERE/one", "two/one"]),
    ],
)
def test_names_of_methods_are_whole_and_no_two_alike(groups, names, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    subjects = [
        Subject(Path(folder), load_recipe("demo", {"fit.steps": 1 + i, "fit.seed": seed}), {}, {})
        for i, group in enumerate(groups)
        for seed, folder in enumerate(group)
    ]
    assert [method.name.replace(str(tmp_path.resolve()), "HERE") for method in methods_of(subjects)] == names


def test_a_white_twin_is_judged_by_the_walks_of_its_method(exact, tmp_path):
    ours = exact("ours", model_sampler="heun", model_spacing="karras")
    twin = exact("twin", model_prior="flat", model_sampler="ancestral", model_spacing="cosine")
    found = compare([twin, ours], evaluations=[2], samples=50, out=tmp_path / "compare")
    walks = {name: [row.walk for row in found.rows if row.method == name] for name in ("ours", "twin")}
    assert walks["ours"] == [str(walk) for walk in default_walks(read_recipe(ours))]
    assert walks["twin"] == walks["ours"]
    alone = compare([twin], evaluations=[2], samples=50, out=tmp_path / "compare")
    assert [row.walk for row in alone.rows] == [str(walk) for walk in default_walks(read_recipe(twin))]


def test_a_twin_of_another_budget_is_none(exact):
    ours = exact("ours")
    twin = exact("twin", model_prior="flat")
    longer = exact("longer", model_prior="flat", fit_steps=7)
    assert methods_of([subject(ours), subject(twin)])[0].twin == "twin"
    assert methods_of([subject(ours), subject(longer)])[0].twin is None


@pytest.fixture
def one_pass(exact, tmp_path):
    """A diffusion, and a cascade of the same data."""
    ours, recipe = exact("ours", data_boundary="periodic"), tmp_path / "cascade.toml"
    recipe.write_text(
        to_toml(CascadeRecipe(data=read_recipe(ours).data, model=CascadeSpec(conditional=GaussianSpec())))
    )
    fit_run(load_recipe(str(recipe)), tmp_path / "cascade", progress=False)
    return [ours, tmp_path / "cascade"]


def test_a_model_that_draws_in_one_pass_has_one_cell(one_pass, tmp_path):
    ours, cascade = one_pass
    found = compare([ours, cascade], evaluations=[2, 4], walks=["ddim"], samples=50, out=tmp_path / "compare")
    rows = [(row.method, row.walk, row.asked, row.evaluations) for row in found.rows]
    assert rows == [
        ("ours", "ddim@log-uniform", 2, 2),
        ("ours", "ddim@log-uniform", 4, 4),
        ("cascade", "one pass", 1, 1),
    ]


def test_every_model_is_warm_before_the_clock_starts(one_pass, tmp_path, monkeypatch):
    events = []

    def told(kind):
        drawn = kind.sample

        def sample(self, num, **how):
            events.append(num)
            return drawn(self, num, **how)

        monkeypatch.setattr(kind, "sample", sample)

    told(ModeDiffusion)
    told(Cascade)
    monkeypatch.setattr(compare_cells, "time", SimpleNamespace(perf_counter=lambda: events.append("clock") or 0.0))
    found = compare(one_pass, evaluations=[2], walks=["ddim"], samples=70, out=tmp_path / "compare")
    assert events == [64, "clock", 70, "clock"] * 2
    x = load_run(one_pass[1]).sample(70, generator=torch.Generator().manual_seed(1))
    data = read_recipe(one_pass[1]).data
    cold = Yardstick.of(data, replace(read_recipe(one_pass[1]).measure, samples=70), load_data(data, "test")).figures(x)
    assert found.cells[1].figures == cold[0]


# -- the command -----------------------------------------------------------------------------------------------------


def test_compare_from_fit_to_page(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sizes = [part for key, value in SMALL.items() for part in ("--set", f"{key}={value}")]
    assert main(["fit", "gaussian", *sizes, "--quiet"]) == 0
    assert main(["fit", "gaussian", *sizes, "--quiet", "--baseline", "white-twin"]) == 0
    capsys.readouterr()
    names = ["runs/gaussian", "runs/gaussian-white-twin"]
    asked = ["--evaluations", "3,6", "--walks", "ddim,heun@karras", "-n", "100", "--seed", "2"]
    assert main(["compare", *names, *asked, "--json", "--quiet"]) == 0
    figures = json.loads(capsys.readouterr().out)
    key = "sliced_wasserstein_gaussian"
    assert {f"{key}_3", f"{key}_6", f"{key}_white_twin_3", "gain_gaussian_3", "gain_gaussian_6"} <= figures.keys()
    difference = figures[f"{key}_white_twin_6"] - figures[f"{key}_6"]
    assert figures["gain_gaussian_6"] == pytest.approx(difference)
    assert main(["compare", *names, *asked]) == 0
    out, err = capsys.readouterr()
    assert err == ""  # nothing was left to measure
    assert "gaussian-white-twin  heun@karras" in out
    assert "gain of renormalization of gaussian over gaussian-white-twin at 3 evaluations" in out
    assert "one seed: no standard error" in out
    page = Path("compare/compare.html").read_text(encoding="utf-8")
    assert not [url for url in re.findall(r"https?://[^\"'\s<]+", page) if "www.w3.org" not in url]
    assert "<script" not in page
    assert all(name in page for name in names)
    assert page.count("<svg") == 2
    assert "Gain of renormalization" in page


def refused(capsys, *words):
    """The one line of a command that ends with exit code 2."""
    assert main([str(word) for word in words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("renorm: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    return err


def test_an_extractor_of_other_weights_than_the_recorded_ones_is_one_line(runs, tmp_path, capsys):
    run = shutil.copytree(runs[0], tmp_path / "run")
    record = {"figures": {"FD[mnist-cnn]": 1.0}, "notes": {"extractor_sha256": "0" * 64}}
    (run / "measures.json").write_text(json.dumps(record))
    for command in (["measure", run, "-n", 70], ["compare", run, "-n", 70, "--out", tmp_path / "out"]):
        line = refused(capsys, *command, "--quiet")
        assert "was made by other weights: SHA-256 0000000000000000 is recorded, the file has " in line
    assert not (tmp_path / "out").exists()


def test_too_few_samples_for_a_covariance_are_one_line(runs, tmp_path, capsys):
    for command in (["measure", runs[0]], ["compare", runs[0], "--out", tmp_path / "out"]):
        line = refused(capsys, *command, "-n", 64, "--quiet")
        assert "needs at least 65 samples" in line
        assert "set measure.samples (or -n) to 65 or more" in line
    assert not (tmp_path / "out").exists()


def test_runs_of_different_data_are_one_line(exact, tmp_path, capsys):
    one, other = exact("one"), exact("other", data_mass=1.0)
    line = refused(capsys, "compare", one, other, "--out", tmp_path / "out", "-n", 50, "--quiet")
    assert "cannot be compared, their data differ: test_fields was" in line
    trained_as(one, data={"number": 200, "sha256": "f" * 64})
    again = exact("again", fit_seed=1)
    line = refused(capsys, "compare", one, again, "--out", tmp_path / "out", "-n", 50, "--quiet")
    assert "they learned from different training fields" in line
    assert not (tmp_path / "out").exists()


def test_cells_of_other_code_are_one_line_or_a_note(exact, tmp_path, capsys, monkeypatch):
    """Refused unless asked for; taken then, which the table and the page say."""
    words = ["compare", exact("run"), "--out", tmp_path / "out", "-n", 50, "--evaluations", 2, "--walks", "ddim"]
    assert main([*map(str, words), "--quiet"]) == 0
    capsys.readouterr()
    code = compare_cells.machine() | {"commit": "fffffff"}
    monkeypatch.setattr(compare_cells, "machine", lambda: code)
    assert "add --again to measure such cells anew, or --accept-cached" in refused(capsys, *words, "--quiet")
    assert main([*map(str, words), "--accept-cached", "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    note = "1 of 1 cells were measured at another commit (0000000) and taken as they are"
    assert f"other code: {note}" in out
    assert note in (tmp_path / "out" / "compare.html").read_text()


def test_figures_that_are_no_numbers_are_valid_json(exact, tmp_path, capsys, monkeypatch):
    """Samples that ran away: null in every file and on the screen, and the pages stand."""
    run, out = exact("run"), tmp_path / "out"
    real = diffusion_run.sample

    def away(*args, **how):
        return torch.full_like(real(*args, **how), float("nan"))

    def strict(text):
        return json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))

    monkeypatch.setattr(diffusion_run, "sample", away)
    words = ["--json", "--quiet", "-n", "50"]
    assert main(["measure", str(run), *words]) == 0
    said, kept = strict(capsys.readouterr().out), strict((run / "measures.json").read_text())
    assert said["spectrum_max_log_ratio"] is kept["figures"]["spectrum_max_log_ratio"] is None
    assert set(kept["spectrum"]["samples"]) == {None}
    assert "Samples without a value" in (run / "report.html").read_text()
    for _ in range(2):  # as measured, and as read again
        assert main(["compare", str(run), *words, "--out", str(out), "--evaluations", "2", "--walks", "ddim"]) == 0
        assert "sliced_wasserstein_run_2" not in strict(capsys.readouterr().out)
        assert strict((out / "compare.json").read_text())["table"][0]["quality"]["value"] is None
        assert "ran away" in (out / "compare.html").read_text()
    (cell,) = [path for path in (out / "cells").iterdir() if not path.name.startswith("floor")]
    assert strict(cell.read_text())["figures"]["spectrum_max_log_ratio"] is None


def test_the_command_says_what_is_wrong(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words, message in (
        (["fit", "demo", "--baseline", "ddpm", "--schedule", "edm"], "--baseline has a schedule of its own"),
        (["compare", "nowhere"], "nowhere is no run folder"),
        (["compare", "nowhere", "--evaluations", "5,x"], "--evaluations takes whole numbers >= 1"),
        (["compare", "nowhere", "--again", "--accept-cached"], "not allowed with argument"),
    ):
        assert main(words) == 2
        assert message in capsys.readouterr().err


def test_an_interrupted_command_says_how_to_go_on(exact, tmp_path, capsys, monkeypatch):
    run = exact("run")

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(comparing, "measure_cell", stop)
    assert main(["compare", str(run), "--out", str(tmp_path / "out"), "-n", "50", "--quiet"]) == 130
    assert "cells that were measured stay, the same command goes on" in capsys.readouterr().err
