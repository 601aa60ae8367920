"""The command line: the whole pipeline on exact parts, and one clear line for whatever a user gets wrong."""

import json
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

import renorm
from renorm.bases import basis_for
from renorm.cli import main
from renorm.errors import DataError
from renorm.fit.checkpoint import read_tensors
from renorm.lattice import Lattice

TINY = ["--set", "fit.steps=4", "--set", "fit.checkpoint_every=2", "--set", "fit.log_every=1"]
TINY += ["--set", "fit.batch=8", "--set", "model.network.width=8", "--set", "measure.samples=40"]
TINY += ["--set", "model.prediction=coloured-noise", "--set", "model.subtract_mean=false"]
TINY += ["--set", "model.steps=3", "--set", "fit.warmup=0", "--quiet"]


def run(capsys, *arguments):
    """(exit code, stdout, stderr) of a command."""
    code = main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture(scope="module")
def exact(tmp_path_factory):
    """A run of the recipe `gaussian`: no network, nothing learned but a spectrum."""
    folder = tmp_path_factory.mktemp("exact") / "run"
    sizes = ["--set", "data.shape=[8, 8]", "--set", "data.number=4000", "--set", "measure.samples=500"]
    assert main(["fit", "gaussian", "--out", str(folder), "--quiet", *sizes]) == 0
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of the recipe `demo` that has seen next to nothing."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert main(["fit", "demo", "--out", str(folder), *TINY]) == 0
    return folder


SHAPES = [("[24]", "open"), ("[24]", "periodic"), ("[6, 5]", "open"), ("[6, 6]", "periodic")]
SHAPES += [("[4, 3, 4]", "open"), ("[4, 4, 3]", "periodic")]


@pytest.mark.parametrize(("shape", "boundary"), SHAPES)
def test_exact_pipeline_returns_the_spectrum(tmp_path, capsys, shape, boundary):
    """fit, sample and read back: every mode has the power of the training data, within 5 standard errors."""
    sizes = [
        f"data.shape={shape}",
        f"data.boundary={boundary}",
        "data.number=4000",
        "data.exponent=1.0",
        "data.mass=0.5",
    ]
    changes = [part for change in sizes for part in ("--set", change)]
    folder, num = tmp_path / "run", 8000
    assert run(capsys, "fit", "gaussian", "--out", folder, "--quiet", *changes)[0] == 0
    out = tmp_path / "x.npz"
    assert run(capsys, "sample", folder, "-n", num, "--steps", 40, "--out", out, "--quiet")[0] == 0
    x = torch.from_numpy(np.load(out)["x"]).double()
    lattice = Lattice(tuple(json.loads(shape)), boundary)
    power = (basis_for(lattice).forward(x) ** 2).mean((0, 1))
    spectrum = read_tensors(folder / "moments.safetensors")[0]["spectrum"]
    assert ((power / spectrum - 1).abs() < 5 * (2 / num) ** 0.5 + 0.005).all()  # 40 steps err by less than 0.5 %


def test_sample_is_fixed_by_its_seed(exact, tmp_path, capsys):
    files = [tmp_path / f"{name}.npz" for name in "abc"]
    for file, seed in zip(files, (1, 1, 2), strict=True):
        assert run(capsys, "sample", exact, "-n", 5, "--seed", seed, "--out", file, "--quiet")[0] == 0
    a, b, c = (np.load(file)["x"] for file in files)
    assert (a == b).all()
    assert (a != c).any()


def test_measure_writes_the_report(exact, capsys):
    code, out, _ = run(capsys, "measure", exact, "--json", "--quiet")
    figures = json.loads(out)
    assert code == 0
    assert figures["samples"] == 500
    assert figures["spectrum_max_z"] < 5
    page = (exact / "report.html").read_text()
    assert "<html" in page
    assert "gaussian" in page


def test_refine_flow_and_levels(exact, tmp_path, capsys):
    code, out, _ = run(capsys, "flow", exact, "--json", "--out", tmp_path / "flow.png")
    levels = json.loads(out)["levels"]
    assert code == 0
    assert levels[0]["modes"] == 64
    assert [level["modes"] for level in levels] == sorted((level["modes"] for level in levels), reverse=True)
    with Image.open(tmp_path / "flow.png") as picture:
        assert picture.size[0] > 8 * len(levels)
    code, _, _ = run(capsys, "refine", exact, "--level", 1, "-n", 3, "--out", tmp_path / "fine.npz", "--quiet")
    assert code == 0
    arrays = np.load(tmp_path / "fine.npz")
    assert arrays["x"].shape == (3, 1, 8, 8)
    assert arrays["coarse"].shape == arrays["original"].shape == (1, 1, 8, 8)
    code, _, _ = run(
        capsys, "sample", exact, "-n", 4, "--level", len(levels) - 1, "--out", tmp_path / "c.png", "--quiet"
    )
    assert code == 0


def test_what_starts_from_a_field(exact, tmp_path, capsys):
    """Few sites, half a field, and how likely the test fields are."""
    picture, arrays = tmp_path / "fine.png", tmp_path / "filled.npz"
    code, out, _ = run(capsys, "refine", exact, "--edge", 4, "-n", 2, "--steps", 4, "--out", picture, "--json")
    assert code == 0
    assert json.loads(out)["edge"] == 4
    with Image.open(picture) as image:
        assert image.width > image.height
    code, _, _ = run(capsys, "inpaint", exact, "--hide", "top", "-n", 3, "--steps", 4, "--out", arrays)
    assert code == 0
    with np.load(arrays) as found:
        kept, original = found["x"][..., 4:, :], found["original"][..., 4:, :]
        np.testing.assert_allclose(kept, np.broadcast_to(original, kept.shape), atol=1e-4)


@pytest.mark.parametrize("kind", ["exact", "trained"])
def test_the_bits_of_all_levels_are_the_bits_of_a_field(kind, request, capsys):
    """Of real numbers, and of bytes, whose bins count too."""
    folder = request.getfixturevalue(kind)
    code, out, _ = run(capsys, "likelihood", folder, "-n", 20, "--evaluations", 20, "--json")
    assert code == 0
    found = json.loads(out.splitlines()[-1])  # the fixture may have said what it fitted
    assert found["fields"] == 20
    levels = sum(value for key, value in found.items() if key.startswith("bits_level"))
    assert levels == pytest.approx(found["bits_per_dimension"], abs=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["refine", "--edge", "8"], "--edge must be at least 1 and below the sites (8, 8), got 8"),
        (["refine", "--edge", "4", "--level", "2"], "take one"),
        (["refine", "--edge", "4", "-n", "-2"], "--num must be >= 1, got -2"),
        (["inpaint", "-n", "0"], "--num must be >= 1, got 0"),
        (["inpaint", "--out", "x.gif"], "--out must end in .png or .npz"),
        (["refine", "--particles", "4"], "--particles go with --edge, got 4"),
        (["sample", "--guidance", "2"], "guidance sets a class off from any"),
        (["likelihood", "-n", "1"], "a mean with its error needs 2 fields or more, got 1"),
        (["likelihood", "-n", "4", "--evaluations", "1"], "at least 2 evaluations"),
    ],
)
def test_what_starts_from_a_field_refuses(exact, capsys, arguments, message):
    name, *rest = arguments
    code, _, err = run(capsys, name, exact, *rest)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1


def test_network_run_end_to_end(trained, tmp_path, capsys):
    for command in (["sample", "-n", "4"], ["measure"], ["refine", "-n", "2"], ["flow"], ["report"]):
        quiet = [] if command[0] in ("flow", "report") else ["--quiet"]
        assert run(capsys, command[0], trained, *command[1:], *quiet)[0] == 0, command
    assert {p.name for p in (trained / "samples").iterdir()} >= {"sample.png", "refine.png", "flow.png", "samples.npz"}
    manifest = json.loads((trained / "manifest.json").read_text())
    assert manifest["parameters"] > 0
    assert len(manifest["data"]["sha256"]) == 64
    assert manifest["seconds"] > 0


def test_python_and_command_line_agree(trained, tmp_path, capsys):
    assert run(capsys, "sample", trained, "-n", 3, "--seed", 4, "--out", tmp_path / "x.npz", "--quiet")[0] == 0
    x = renorm.load(trained).sample(3, generator=torch.Generator().manual_seed(4))
    assert (x.numpy() == np.load(tmp_path / "x.npz")["x"]).all()


def test_baseline_is_one_value(tmp_path, capsys):
    """DDPM is the same recipe with --schedule white."""
    assert run(capsys, "fit", "demo", "--out", tmp_path / "w", "--schedule", "white", *TINY)[0] == 0
    assert renorm.load(tmp_path / "w").schedule.alive(1.0).all()


def test_resume_through_the_command_line(tmp_path, capsys):
    """Two steps and a resume are four steps, bit for bit; a finished run resumes to itself."""
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    constant = ["--set", "fit.decay=constant"]
    assert run(capsys, "fit", "demo", "--out", whole, *TINY, *constant)[0] == 0
    assert run(capsys, "fit", "demo", "--out", halves, *TINY, *constant, "--steps", 2)[0] == 0
    (halves / "model.safetensors").unlink()
    for _ in range(2):
        assert run(capsys, "fit", "demo", "--out", halves, "--resume", *TINY, *constant)[0] == 0
    a, b = (read_tensors(folder / "model.safetensors")[0] for folder in (whole, halves))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_resume_that_trains_nothing_leaves_the_manifest_of_who_trained(tmp_path, capsys):
    """Commit, machine and date stay; with further steps they are those of the last that trained."""
    path = tmp_path / "manifest.json"
    fit = ["fit", "demo", "--out", tmp_path, *TINY, "--set", "fit.decay=constant"]
    assert run(capsys, *fit)[0] == 0
    trained_by = json.loads(path.read_text()) | {"machine": "elsewhere"}
    path.write_text(json.dumps(trained_by))
    assert run(capsys, *fit, "--resume")[0] == 0
    assert json.loads(path.read_text()) == trained_by
    assert run(capsys, *fit, "--resume", "--steps", 5, "--set", "fit.log_every=9")[0] == 0
    assert json.loads(path.read_text())["machine"] != "elsewhere"


# -- what a user gets wrong --------------------------------------------------------------------------------------------

WRONG = [
    ([], "COMMAND"),
    (["fly"], "invalid choice: 'fly'"),
    (["fit", "nope"], "unknown recipe 'nope'; known: cifar10"),
    (["fit", "nope.toml"], "cannot read nope.toml"),
    (["fit", "demo", "--set", "fit.stepz=3"], "unknown key 'fit.stepz'; did you mean 'steps'?"),
    (["fit", "demo", "--set", "fit=3"], "fit must be a table, got 3"),
    (["fit", "demo", "--set", "fit.steps"], "--set takes KEY=VALUE"),
    (["fit", "demo", "--set", "fit.steps=many"], "fit.steps must be of type int, got 'many'"),
    (["fit", "demo", "--steps", "0"], "steps must be >= 1"),
    (["fit", "demo", "--set", "fit.lr=-1.0"], "lr must be > 0"),
    (["fit", "demo", "--set", "model.regulator=blunt"], "unknown regulator 'blunt'; known: rational"),
    (["fit", "demo", "--set", "model.sampler=fast"], "unknown sampler 'fast'; known: ancestral"),
    (["fit", "demo", "--set", "model.spacing=even"], "unknown spacing 'even'; known: log-uniform"),
    (["fit", "demo", "--schedule", "pink"], "model.schedule must be one of 'rgdm', 'white'"),
    (["fit", "demo", "--set", "data.size=7"], "must be divisible by the network's stride 2, got 7"),
    (["fit", "demo", "--set", "data.name=folder"], "path must name the folder"),
    (["fit", "demo", "--set", "data.name=folder", "--set", "data.path=nowhere"], "nowhere"),
    (["sample", "nowhere"], "there is no run folder nowhere"),
    (["measure", "."], "holds no model"),
    (["bench", "warp"], "unknown benchmark 'warp'; known: gaussian-nfe"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG, ids=lambda v: " ".join(v) if isinstance(v, list) else "")
def test_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, *arguments)
    assert code == 2
    assert out == ""
    assert err.startswith("renorm: ")
    assert err.count("\n") == 1
    assert message in err
    assert list(tmp_path.iterdir()) == []  # nothing half-written


def test_wrong_walks_are_refused(exact, trained, capsys):
    for arguments, message in [
        (["sample", exact, "--steps", "0"], "steps must be >= 1"),
        (["sample", exact, "-n", "0"], "num must be >= 1"),
        (["sample", exact, "--level", "9"], "level must be 0 (finest) to"),
        (["sample", exact, "--label", "3"], "condition needs a model with classes"),
        (["refine", exact, "--level", "0"], "--level must be 1 ... "),
        (["flow", exact, "--index", "100000"], "--index must be 0 to"),
        (["sample", trained, "--spacing", "equal-error"], "needs the data's spectrum"),
    ]:
        code, _, err = run(capsys, *arguments)
        assert code == 2
        assert message in err


def test_a_second_fit_does_not_overwrite(trained, capsys):
    code, _, err = run(capsys, "fit", "demo", "--out", trained, *TINY)
    assert code == 2
    assert "already holds a run; add --resume" in err


def test_another_recipe_does_not_resume(trained, capsys):
    before = (trained / "recipe.toml").read_text()
    code, _, err = run(capsys, "fit", "demo", "--out", trained, "--resume", *TINY, "--set", "model.network.width=16")
    assert code == 2
    assert "width" in err
    assert (trained / "recipe.toml").read_text() == before


def test_a_damaged_run_is_named(trained, tmp_path, capsys):
    import shutil

    damaged = tmp_path / "damaged"
    shutil.copytree(trained, damaged)
    weights = damaged / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    code, _, err = run(capsys, "sample", damaged, "--quiet")
    assert code == 2
    assert "model.safetensors is damaged" in err


@pytest.mark.parametrize("what", ["nan", "shape", "truncated"])
def test_bad_arrays(tmp_path, capsys, what):
    x = np.zeros((50, 8, 8), np.float32)
    if what == "nan":
        x[7, 1, 1] = np.nan
    if what == "shape":
        x = x[0, 0]
    path = tmp_path / "x.npy"
    np.save(path, x)
    if what == "truncated":
        path.write_bytes(path.read_bytes()[:-50])
    arguments = ["fit", "demo", "--out", tmp_path / "run", "--set", "data.name=array", "--set", f'data.path="{path}"']
    code, _, err = run(capsys, *arguments, *TINY)
    assert code == 2
    assert err.count("\n") == 1
    assert str(path) in err
    assert not (tmp_path / "run").exists()


def test_pictures_of_different_sizes(tmp_path, capsys):
    for i, size in enumerate([8, 8, 10]):
        Image.new("L", (size, size)).save(tmp_path / f"{i}.png")
    arguments = [
        "fit",
        "demo",
        "--out",
        tmp_path / "run",
        "--set",
        "data.name=folder",
        "--set",
        f'data.path="{tmp_path}"',
    ]
    code, _, err = run(capsys, *arguments, *TINY)
    assert code == 2
    assert "2.png" in err


def test_a_full_disk_keeps_what_was_there(trained, capsys, monkeypatch):
    import errno
    from pathlib import Path

    def full(self, target):
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    before = (trained / "recipe.toml").read_bytes()
    monkeypatch.setattr(Path, "replace", full)
    code, _, err = run(capsys, "sample", trained, "-n", "2", "--quiet")
    assert code == 2
    assert "No space left on device" in err
    assert (trained / "recipe.toml").read_bytes() == before


def test_help_is_quick_and_imports_nothing_heavy():
    build = "from renorm.cli.parser import build_parser; build_parser().format_help()"
    code = f"import sys; {build}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    begun = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "renorm", "--help"], capture_output=True, text=True, check=True)
    assert "coarse" in done.stdout
    assert time.perf_counter() - begun < 5  # a loose bound: 0.1 s on an idle machine


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert renorm.__version__ in capsys.readouterr().out


# -- what a reviewer once broke --------------------------------------------------------------------------------------


def test_resume_does_not_write_over_another_run_without_checkpoints(exact, capsys):
    before = (exact / "manifest.json").read_bytes()
    code, _, err = run(capsys, "fit", "gaussian", "--out", exact, "--resume", "--quiet", "--set", "data.number=300")
    assert code == 2
    assert "belongs to another run: data was" in err
    assert (exact / "manifest.json").read_bytes() == before


def test_a_damaged_manifest_is_named(trained, tmp_path, capsys):
    import shutil

    shutil.copytree(trained, tmp_path / "run")
    (tmp_path / "run" / "manifest.json").write_text("{")
    code, _, err = run(capsys, "fit", "demo", "--out", tmp_path / "run", "--resume", *TINY)
    assert code == 2
    assert "manifest.json is damaged" in err


def test_a_damaged_record_does_not_stop_a_resume(trained, tmp_path, capsys):
    import shutil

    shutil.copytree(trained, tmp_path / "run")
    (tmp_path / "run" / "metrics.jsonl").write_bytes(b"[1]\n\xff\n")
    assert run(capsys, "fit", "demo", "--out", tmp_path / "run", "--resume", *TINY)[0] == 0


LATE = [
    (["fit", "gaussian", "--set", "model.regulator=sharp"], "lets no mode fade"),
    (["fit", "gaussian", "--set", "measure.extractor=mnist-cnn"], "needs pictures"),
    (["fit", "demo", "--set", "measure.extractor=inception"], "unknown feature extractor 'inception'"),
    (["fit", "photos", "--set", "measure.extractor=mnist-cnn"], "reads pictures of 1 channel(s)"),
    (["fit", "demo", "--set", "model.prior_scale=1e-200"], "prior_scale must be in [1e-6, 1e6]"),
    (["fit", "demo", "--set", "data.value_range=[0.0, inf]"], "value_range must ascend and be finite"),
    (["fit", "demo", "--seed", str(2**70)], "must be a whole number in [0, 2^63)"),
    (["fit", "demo", "--set", "data.name=mnits"], "unknown data set 'mnits'"),
]


@pytest.mark.parametrize(("arguments", "message"), LATE, ids=lambda v: " ".join(v) if isinstance(v, list) else "")
def test_refused_before_the_training(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, *arguments, "--quiet")
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_a_diffusion_refuses_classes_that_are_unknown(tmp_path, capsys):
    x, y = np.zeros((20, 1, 4, 4), np.uint8), np.arange(20) % 3 - 1
    np.savez(tmp_path / "x.npz", x=x, y=y)
    data = [
        f"--set=data.{text}"
        for text in ("name=array", f"path={tmp_path / 'x.npz'}", "labels=true", "channels=1", "size=4")
    ]
    code, _, err = run(capsys, "fit", "demo", *data, "--out", tmp_path / "run", *TINY)
    assert (code, err.count("\n")) == (2, 1)
    assert "have none (-1); leave these fields out, or learn without classes" in err
    assert not (tmp_path / "run").exists()
    network = torch.nn.Conv2d(1, 1, 1)
    model = renorm.ModeDiffusion(renorm.DiffusionSpec(), Lattice((4, 4)), network=network, num_classes=2)
    with pytest.raises(DataError, match="7 of 20 have none"):
        model.fit(torch.from_numpy(x).float(), condition=torch.from_numpy(y))


def test_wrong_files_and_numbers(exact, tmp_path, capsys):
    Image.new("RGB", (8, 8)).save(tmp_path / "colour.png")
    for arguments, message in [
        (["sample", exact, "--out", tmp_path / "x.jpg"], "--out must end in .png or .npz"),
        (["sample", exact, "--seed", "-1"], "must be a whole number"),
        (["sample", exact, "--label", "1"], "condition needs a model with classes (drop it), got 1"),
        (["refine", exact, "-n", "0"], "num must be >= 1 field, got 0"),
        (["flow", exact, "--input", tmp_path / "colour.png"], "fields must be (batch, *(1, 8, 8))"),
    ]:
        code, _, err = run(capsys, *arguments)
        assert code == 2
        assert message in err


def test_one_picture_is_enough_to_flow(trained, tmp_path, capsys):
    Image.new("L", (8, 8), 200).save(tmp_path / "grey.png")
    out = tmp_path / "flow.png"
    assert run(capsys, "flow", trained, "--input", tmp_path / "grey.png", "--out", out)[0] == 0
    assert out.exists()


def test_the_demo_can_be_run_again(tmp_path, capsys):
    for _ in range(2):
        assert run(capsys, "demo", "--resume", "--out", tmp_path / "run", *TINY)[0] == 0
    assert (tmp_path / "run" / "report.html").exists()


def test_every_data_set_has_a_place(capsys):
    """The list of data sets, and the doctor, know each name that a recipe may give."""
    code, out, _ = run(capsys, "data", "--json")
    assert code == 0
    assert {"law", "gaussian", "digits", "mnist"} <= set(json.loads(out))
    code, out, _ = run(capsys, "doctor", "--json")
    assert code == 0
    assert "PROBLEM" not in out


def test_the_doctor_reports_a_wrong_data_folder(monkeypatch, capsys):
    monkeypatch.setenv("RENORM_DATA", "/nowhere")
    code, out, _ = run(capsys, "doctor", "--json")
    assert code == 0
    assert "PROBLEM" in json.loads(out)["data mnist"]
