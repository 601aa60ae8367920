"""A run of token hierarchies by the command line: fit, resume, measure, draw, files; every mistake is one line."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

import renorm
from renorm.cli import main
from renorm.data import load
from renorm.data.spec import DataSpec

RECIPE = """
wing = "tokens"

[data]
name = "digits"
labels = true
value_range = [0.0, 1.0]

[model]
draws = 0
weighs = 1

[[model.members]]
temper = 0.5
[model.members.codebook]
kind = "windows"
window = 4
stride = 2
tokens = 32
[model.members.law]
kind = "styles"
styles = 4

[[model.members]]
temper = 0.0
[model.members.codebook]
kind = "values"
[model.members.law]
kind = "hidden-tree"
states = 4
batch = 200
grey = 50.0

[measure]
samples = 50
"""


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokens")
    (folder / "digits.toml").write_text(RECIPE)
    assert main(["fit", str(folder / "digits.toml"), "--out", str(folder / "run"), "--quiet"]) == 0
    return folder


def out_of(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_a_run_classifies_weighs_and_draws(fitted, capsys):
    code, out, _ = out_of(capsys, "measure", fitted / "run", "--json", "--quiet")
    figures = json.loads(out)
    assert code == 0
    assert figures["accuracy"] > 0.9
    assert 2 < figures["bits_per_site"] < 5
    assert (fitted / "run" / "report.html").stat().st_size > 50_000
    for command in (["sample", "-n", "4"], ["sample", "-n", "4", "--label", "3"], ["refine", "-n", "3"], ["flow"]):
        code, _, err = out_of(capsys, command[0], fitted / "run", *command[1:])
        assert (code, err) == (0, "")


def test_files_come_back_bit_by_bit(fitted, tmp_path, capsys):
    file, back = tmp_path / "digits.rnm", tmp_path / "back.npz"
    assert out_of(capsys, "compress", fitted / "run", "--out", file)[0] == 0
    assert out_of(capsys, "decompress", fitted / "run", file, "--out", back)[0] == 0
    images = load(DataSpec("digits"), "test").values.numpy()
    assert np.array_equal(np.load(back)["x"].reshape(images.shape), images)
    assert out_of(capsys, "decompress", fitted / "run", file, "--out", tmp_path / "png")[0] == 0
    assert np.array_equal(np.array(Image.open(tmp_path / "png" / "00000.png")), images[0, 0])
    lossy = tmp_path / "lossy.rnm"
    code, out, _ = out_of(capsys, "compress", fitted / "run", "--lossy", "--out", lossy, "--json")
    assert code == 0
    assert json.loads(out)["psnr_db"] > 8
    assert lossy.stat().st_size < file.stat().st_size
    assert out_of(capsys, "decompress", fitted / "run", lossy, "--out", back)[0] == 0


def test_a_foreign_or_damaged_file_is_named(fitted, tmp_path, capsys):
    good = tmp_path / "digits.rnm"
    out_of(capsys, "compress", fitted / "run", "--out", good)
    data = good.read_bytes()
    changed = bytearray(data)
    changed[len(data) // 2] ^= 1
    bad = {"flipped": bytes(changed), "cut": data[:-7], "empty": b"", "foreign": b"not a file of ours" * 9}
    for name, content in bad.items():
        path = tmp_path / f"{name}.rnm"
        path.write_bytes(content)
        code, _, err = out_of(capsys, "decompress", fitted / "run", path)
        assert (code, err.count("\n")) == (2, 1)
        assert name in err
    other = fitted / "other"
    if not other.exists():
        out_of(capsys, "fit", fitted / "digits.toml", "--out", other, "--seed", 5, "--quiet")
    code, _, err = out_of(capsys, "decompress", other, good)
    assert code == 2
    assert "written by another model" in err


def test_a_run_that_was_killed_goes_on_to_the_same_model(fitted, capsys):
    again = fitted / "again"
    assert out_of(capsys, "fit", fitted / "digits.toml", "--out", again, "--quiet")[0] == 0
    for lost in ("product.toml", "member1/model.toml"):  # as if killed while the second member counted
        (again / lost).unlink()
    code, _, err = out_of(capsys, "sample", again)
    assert (code, "not finished" in err) == (2, True)
    assert out_of(capsys, "fit", fitted / "digits.toml", "--out", again, "--resume", "--quiet")[0] == 0
    x = load(DataSpec("digits", value_range=(0.0, 1.0)), "test").batch(torch.arange(20))
    ours, theirs = (renorm.load(fitted / name) for name in ("run", "again"))
    assert np.array_equal(ours.log_prob(x).numpy(), theirs.log_prob(x).numpy())
    assert np.array_equal(ours.predict_proba(x), theirs.predict_proba(x))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("model.members.0.codebook.window=9", "choose a window of 1 ... 8"),
        ("model.members.0.codebook.tokens=2000000", "windows differ|distinct|tokens"),
        ("model.members.0.law.styles=0", "styles must be >= 1"),
        ("model.members.2.law.styles=1", "0 ... 1, got '2'"),
        ("model.members.0.law.kind=warp", "law.kind must be one of"),
        ("model.draws=7", "draws must be 0 ... 1"),
        ("data.limit=3", "states|windows|tokens"),
        ("model.members=[]", "members must be >= 1"),
    ],
)
def test_a_wrong_value_is_one_line_and_leaves_no_run_behind(fitted, tmp_path, capsys, change, words):

    out = tmp_path / "run"
    code, _, err = out_of(capsys, "fit", fitted / "digits.toml", "--out", out, "--set", change, "--quiet")
    assert (code, err.count("\n")) == (2, 1), err
    assert re.search(words, err), err
    assert not (out / "manifest.json").exists()


def test_walks_are_for_diffusions(fitted, capsys):
    for arguments in (["sample", "--steps", "3"], ["sample", "--sampler", "ddim"], ["refine", "--steps", "3"]):
        code, _, err = out_of(capsys, arguments[0], fitted / "run", *arguments[1:])
        assert (code, "diffusion" in err) == (2, True), err
    code, _, err = out_of(capsys, "fit", fitted / "digits.toml", "--out", fitted / "x", "--steps", "5")
    assert (code, "--steps is for diffusions" in err) == (2, True), err
