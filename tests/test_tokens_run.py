"""A run of token hierarchies by the command line: fit, resume, measure, draw, files; every mistake is one line."""

import json
import math
import pickle
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import renorm
from renorm.cli import main
from renorm.data import load
from renorm.data.raw import hold_out
from renorm.data.spec import DataSpec
from renorm.errors import CheckpointError, DataError, RecipeError
from renorm.recipes.coding import compress_run
from renorm.recipes.run import fit_run, measure_run
from renorm.recipes.spec import MeasureSpec, TokensRecipe, load_recipe
from renorm.tokens.product import TokenProduct
from renorm.tokens.spec import HiddenTreeSpec, HierarchySpec, PyramidSpec, StyleSpec, TokensSpec, ValueSpec, WindowSpec
from renorm.tokens.token_hierarchy import TokenHierarchy

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


# -- data of one's own ------------------------------------------------------------------------------------------------

STYLES = HierarchySpec(ValueSpec(bins=4), StyleSpec(styles=1, share=0.0))
TREE = HierarchySpec(ValueSpec(), HiddenTreeSpec(states=2, batch=50), temper=0.0)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def array_recipe(folder, x, y=None, *members, **data):
    """A recipe of arrays in a file."""
    arrays = {"x": x} if y is None else {"x": x, "y": y}
    np.savez(folder / "fields.npz", **arrays)
    spec = DataSpec("array", path=str(folder / "fields.npz"), labels=y is not None, value_range=(0.0, 1.0), **data)
    return TokensRecipe(data=spec, model=TokensSpec(members or (STYLES,)), measure=MeasureSpec(samples=4))


def noisy(rng, number, *event):
    """Images whose class is how bright they are, and the classes."""
    y = np.arange(number) % 2
    x = rng.integers(0, 128, (number, *event)) + 127 * y.reshape(-1, *[1] * len(event))
    return x.astype(np.uint8), y


def test_classes_that_no_training_field_had(tmp_path, rng):
    x, y = noisy(rng, 300, 4, 4)
    y = 2 * y  # classes 0 and 2
    test = hold_out(300, "test", 0, "")
    y[test[:4]] = [1, 5, 5, 9]  # between the known ones and beyond them
    y[test[4:7]] = -1
    run = tmp_path / "run"
    model = fit_run(array_recipe(tmp_path, x, y), run, progress=False)
    assert model.classes_.tolist() == [0, 2]
    measured = measure_run(run, model=model)
    p = model.predict_proba(x[test][7:])
    right = model.predict(x[test][7:]) == y[test][7:]
    figures = measured["figures"]
    assert figures["accuracy"] == pytest.approx(right.sum() / 27)  # 30, of which three have no class
    assert figures["class_nats"] == pytest.approx(-np.log(p[np.arange(23), y[test][7:] // 2]).mean())
    assert measured["notes"]["unknown_class"].startswith("4 of 30 test fields")
    assert measured["notes"]["without_class"].startswith("3 of 30 test fields")
    arrays = np.load(run / "samples" / "reliability.npz")
    assert (arrays["confusion"].sum(), arrays["count"].sum()) == (23, 27)
    assert math.isclose((arrays["accuracy"] * arrays["count"]).sum(), right.sum())


def test_a_test_split_without_any_known_class(tmp_path, rng):
    x, y = noisy(rng, 60, 4, 4)
    run, test = tmp_path / "run", hold_out(60, "test", 0, "")
    for label, figures in ((7, {"accuracy", "calibration_error"}), (-1, set())):
        y[test] = label
        fit_run(array_recipe(tmp_path, x, y), run / str(label), progress=False)
        found = measure_run(run / str(label))["figures"]
        assert {"accuracy", "calibration_error", "class_nats"} & found.keys() == figures
        assert found.get("accuracy", 0.0) == 0.0


def test_most_labels_may_be_unknown(tmp_path, rng):
    x, y = noisy(rng, 300, 4, 4)
    train = hold_out(300, "train", 0, "")
    hidden = y.copy()
    hidden[train[20:]] = -1
    model = fit_run(array_recipe(tmp_path, x, hidden), tmp_path / "run", progress=False)
    index = torch.from_numpy(train)
    direct = TokenProduct((STYLES,), shape=(1, 4, 4)).fit(x[index], hidden[index])
    assert np.array_equal(model.predict_proba(x), direct.predict_proba(x))
    assert model.score(x[train], y[train]) > 0.9
    hidden[train] = -1
    for labels, words in ((hidden, "those of all 270 are unknown"), (np.full(300, -1), "is -1 .unknown. everywhere")):
        with pytest.raises(DataError, match=words):
            fit_run(array_recipe(tmp_path, x, labels), tmp_path / "none", progress=False)
    assert not (tmp_path / "none").exists()
    recipe = array_recipe(tmp_path, x, np.full(300, -1))
    alone = fit_run(replace(recipe, data=replace(recipe.data, labels=False)), tmp_path / "alone", progress=False)
    assert len(alone.classes_) == 1  # as the message advises


def test_what_bytes_stand_for_belongs_to_the_run(tmp_path, rng):
    x, y = noisy(rng, 60, 4, 4)
    recipe = array_recipe(tmp_path, x, y)
    fit_run(recipe, tmp_path / "run", progress=False)
    other = replace(recipe, data=replace(recipe.data, value_range=(-3.0, 3.0)))
    with pytest.raises(CheckpointError, match=r"value_range was \[0\.0, 1\.0\], is \[-3\.0, 3\.0\]"):
        fit_run(other, tmp_path / "run", resume=True, progress=False)
    default = replace(recipe, data=replace(recipe.data, value_range=DataSpec().value_range))
    with pytest.raises(CheckpointError, match="value_range"):
        fit_run(default, tmp_path / "run", resume=True, progress=False)
    fit_run(default, tmp_path / "default", progress=False)
    identity = json.loads((tmp_path / "default" / "manifest.json").read_text())["identity"]
    assert identity.keys() == {"model", "data"}  # as in runs made before it was noted
    fit_run(default, tmp_path / "default", resume=True, progress=False)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data.flip": True}, "data.flip must be false .*; leave it out, .*got True"),
        ({"measure.steps": 10}, "measure.steps must not be set .*; leave it out, got 10"),
        (
            {"model.members.0.law": {"kind": "pyramid", "share": 2}},
            "share must be one of 'all', 'places', 'none', got 2",
        ),
        ({"model.members.0.law": {"kind": [1]}}, r"law.kind must be one of 'styles', .* got \[1\]"),
    ],
)
def test_what_a_recipe_of_tokens_cannot_mean(changes, words):
    with pytest.raises(RecipeError, match=words):
        load_recipe("tokens-mnist", changes)
    assert load_recipe("tokens-mnist", {"model.members.0.law.share": 2}).model.members[0].law.share == 2.0


def test_a_wing_that_is_no_word(tmp_path):
    (tmp_path / "odd.toml").write_text("wing = [1]\n")
    with pytest.raises(
        RecipeError, match=r"wing must be one of 'diffusion', 'tokens', 'cascade', 'chains', 'clusters', got \[1\]"
    ):
        load_recipe(str(tmp_path / "odd.toml"))


def test_seconds_add_up_and_a_finished_run_has_them(tmp_path, rng, monkeypatch):
    x, y = noisy(rng, 60, 4, 4)
    recipe, run = array_recipe(tmp_path, x, y, STYLES, TREE), tmp_path / "run"
    manifest = run / "manifest.json"
    kill = {"save": TokenHierarchy.save, "product": TokenProduct.save}

    def killed(self, path):
        if path.name == "member1":
            raise KeyboardInterrupt
        kill["save"](self, path)

    monkeypatch.setattr(TokenHierarchy, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        fit_run(recipe, run, progress=False)
    monkeypatch.undo()
    facts = json.loads(manifest.read_text())
    assert facts["seconds"] > 0
    assert "parameters" not in facts
    manifest.write_text(json.dumps({**facts, "seconds": 1000.0}))

    def killed_late(self, path):
        kill["product"](self, path)
        raise KeyboardInterrupt

    monkeypatch.setattr(TokenProduct, "save", killed_late)  # product.toml was the last thing written
    with pytest.raises(KeyboardInterrupt):
        fit_run(recipe, run, resume=True, progress=False)
    monkeypatch.undo()
    assert (run / "product.toml").is_file()
    facts = json.loads(manifest.read_text())
    assert 1000 < facts["seconds"] < 1100
    assert facts["parameters"] > 0
    model = fit_run(recipe, run, resume=True, progress=False)
    assert json.loads(manifest.read_text()) == facts
    assert facts["parameters"] == sum(t.numel() for member in model.members_ for t in member.law_.tables)


def test_a_pixel_has_all_its_channels(tmp_path, rng):
    x, y = noisy(rng, 100, 3, 4, 5)
    run = tmp_path / "run"
    model = fit_run(array_recipe(tmp_path, x, y, TREE), run, progress=False)
    figures = measure_run(run)["figures"]
    assert figures["bits_per_site"] == pytest.approx(figures["nats_per_field"] / math.log(2) / 20)
    said = compress_run(run, tmp_path / "x.rnm")
    assert said["bits_per_pixel"] == 8 * (tmp_path / "x.rnm").stat().st_size / (10 * 20)
    back = model.density_.decompress((tmp_path / "x.rnm").read_bytes())
    assert np.array_equal(back, x[hold_out(100, "test", 0, "")])


@pytest.mark.parametrize(
    ("event", "member", "words"),
    [
        ((1, 4, 4, 4), STYLES, "token hierarchies read chains and images .* got fields of shape .1, 4, 4, 4"),
        ((1, 1, 8), STYLES, "at least two rows"),
        ((4, 4), HierarchySpec(WindowSpec(window=5, stride=1)), r"members\.1: .* choose a window of 1 ... 4"),
        ((3, 4, 4), HierarchySpec(ValueSpec(), StyleSpec()), r"members\.1: .* must lie on a grid; set law.share = 0"),
        ((3, 4, 4), HierarchySpec(ValueSpec(), PyramidSpec()), r"members\.1: .*; set law.levels = 0"),
        ((4, 4), HierarchySpec(WindowSpec(window=2, stride=1), HiddenTreeSpec()), "hidden tree stands on the values"),
    ],
)
def test_fields_that_no_hierarchy_reads_leave_no_folder(tmp_path, rng, event, member, words):
    x, y = noisy(rng, 60, *event)
    recipe = array_recipe(tmp_path, x, y, STYLES, member)
    with pytest.raises((DataError, RecipeError), match=words):
        fit_run(recipe, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_a_fitted_model_can_be_sent_to_another_process(tmp_path, rng):
    x, y = noisy(rng, 120, 4, 4)
    model = fit_run(array_recipe(tmp_path, x, y, STYLES, TREE), tmp_path / "run", progress=False)
    copy = pickle.loads(pickle.dumps(model))
    assert np.array_equal(copy.predict_proba(x), model.predict_proba(x))
    assert np.array_equal(copy.score_samples(x), model.score_samples(x))


def test_a_chain_of_three_channels_is_a_chain(tmp_path, rng):
    x, y = noisy(rng, 100, 3, 16)
    run = tmp_path / "run"
    pixels = HierarchySpec(WindowSpec(window=1, stride=1, tokens=4, components=0), StyleSpec(styles=1))
    model = fit_run(array_recipe(tmp_path, x, y, pixels, TREE, channels=3), run, progress=False)
    assert model.members_[0].pictures_.shape == (3, 1, 16)
    assert model.members_[0].codebook_.grid == (1, 16)
    assert model.domain.event_shape == model.sample(2, generator=torch.Generator()).shape[1:] == (3, 16)
    train, test = (hold_out(100, split, 0, "") for split in ("train", "test"))
    direct = TokenProduct((pixels, TREE), shape=(3, 1, 16)).fit(x[train], y[train])
    assert np.array_equal(model.predict_proba(x[test]), direct.predict_proba(x[test]))
    assert measure_run(run)["figures"].keys() >= {"accuracy", "nats_per_field"}
    compress_run(run, tmp_path / "x.rnm")
    assert np.array_equal(model.members_[1].decompress((tmp_path / "x.rnm").read_bytes()), x[test])
