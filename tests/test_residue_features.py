"""Features of residues: kept on disk, read from files, told to the network, and refused where they are wrong."""

import json
import os
import shutil
from functools import partial

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import renorm
from conftest import SMALL_CHAINS as SMALL
from renorm.cli import main
from renorm.data.proteins.features import kept, language_model
from renorm.data.proteins.features.files import FeatureFiles
from renorm.data.proteins.features.kept import batches, features_of
from renorm.data.proteins.sequence import Record, encode
from renorm.data.proteins.spec import read
from renorm.diffusion.chains.model import spacing_of
from renorm.diffusion.chains.objective import ChainLoss, TrainingChain
from renorm.diffusion.chains.spec import ChainSpec
from renorm.errors import CheckpointError, DataError, RecipeError
from renorm.fit.progress import Counted, FitProgress
from renorm.nn.chain import LETTERS
from renorm.nn.spec import ChainNetSpec
from renorm.recipes.chain_features import features_of_run, records_of
from renorm.recipes.chains_run import fold


class Stub:
    """Three numbers a residue: what it is, where it stands, one over its place; counts its batches."""

    key = "stub 1"

    def __init__(self, fail_at=None):
        self.batches, self.fail_at = [], fail_at

    def __call__(self, sequences):
        if len(self.batches) == self.fail_at:
            raise KeyboardInterrupt
        self.batches.append(list(sequences))
        place = [torch.arange(1.0, len(text) + 1) for text in sequences]
        return [torch.stack([encode(s).float(), p, 1 / p], dim=1) for s, p in zip(sequences, place, strict=True)]


TEXTS = ["MKVLA", "GGG", "MKVLA", "AC", "WYWYWYWY"]


def test_features_are_computed_once_and_read_back_the_same(tmp_path):
    model, told = Stub(), []
    first = features_of(model, TEXTS, cache=tmp_path, batch=8, progress=lambda *n: told.append(n))
    assert model.batches == [["WYWYWYWY"], ["MKVLA"], ["GGG", "AC"]]
    assert told == [(0, 18), (8, 18), (13, 18), (18, 18)]
    again = features_of(model, TEXTS[::-1], cache=tmp_path, progress=lambda *n: told.append(n))[::-1]
    assert len(model.batches) == 3
    assert len(told) == 4
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(first, features_of(model, TEXTS, batch=1), strict=True))
    torch.testing.assert_close(first[1], torch.tensor([[5, 1, 1], [5, 2, 0.5], [5, 3, 1 / 3]]).half(), rtol=0, atol=0)
    other = Stub()
    other.key = "stub 2"
    features_of(other, ["GGG"], cache=tmp_path)
    features_of(other, ["GGG"], cache=tmp_path, dtype=torch.float32)
    assert len(other.batches) == 2, "other weights, or another dtype, are other features"


def test_a_kill_loses_one_batch_and_damage_costs_time_alone(tmp_path):
    model = Stub(fail_at=2)
    with pytest.raises(KeyboardInterrupt):
        features_of(model, TEXTS, cache=tmp_path, batch=8)
    model.fail_at = None
    features_of(model, TEXTS, cache=tmp_path, batch=8)
    assert [part for part in model.batches if model.batches.count(part) > 1] == []
    assert not list(tmp_path.rglob("*.part"))
    files = sorted(tmp_path.rglob("*.safetensors"))
    assert len(files) == len(model.batches) == 3
    files[0].write_bytes(files[0].read_bytes()[:-1])
    save_file({name: x[:1] for name, x in load_file(files[1]).items()}, files[1])
    whole = features_of(model, TEXTS, cache=tmp_path, batch=8)
    assert len(model.batches) == 5
    assert all(torch.equal(a, b) for a, b in zip(whole, features_of(Stub(), TEXTS), strict=True))
    (tmp_path / "file").write_text("")
    assert len(features_of(Stub(), TEXTS, cache=tmp_path / "file" / "no")) == 5, "what cannot be written is not kept"


def test_batches_are_of_similar_lengths():
    texts = ["A" * n for n in (3, 50, 48, 7, 200, 6, 5)]
    found = batches(texts, 100)
    assert sorted((text for part in found for text in part), key=len) == sorted(texts, key=len)
    assert [list(map(len, part)) for part in found] == [[200], [50, 48], [7, 6, 5, 3]]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda x: x[1:], r"one row for each of the 5 residues of the sequence MKVLA, \(5, features\), got \(4, 3\)"),
        (lambda x: x[:, 0], r"got \(5,\)"),
        (lambda x: x[:, :0], r"got \(5, 0\)"),
        (lambda x: x * torch.nan, "finite numbers, got nan or inf"),
        (lambda x: x * 1e6, "must fit float16, got 1.+e.07 .* features.dtype = 'float32'"),
        (lambda x: x.bool(), "must be real numbers"),
    ],
)
def test_features_that_are_wrong_are_refused_and_not_kept(wrong, message, tmp_path):
    class Wrong(Stub):
        def __call__(self, sequences):
            return [wrong(x) for x in super().__call__(sequences)]

    with pytest.raises(DataError, match=message):
        features_of(Wrong(), ["MKVLA"], cache=tmp_path)
    assert not list(tmp_path.rglob("*.safetensors"))


def write_features(path, chains, features):
    """As one of the three kinds of files, by the ending of the path."""
    arrays = {chain.name: x.numpy() for chain, x in zip(chains, features, strict=True)}
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    elif path.suffix == ".safetensors":
        save_file({name: torch.from_numpy(x) for name, x in arrays.items()}, path)
    else:
        path.mkdir()
        for name, x in arrays.items():
            np.save(path / f"{name}.npy", x)
    return path


RECORDS = [Record("one", "MKV"), Record("two", "GG")]
VALUES = [torch.arange(6.0).reshape(3, 2), torch.ones(2, 2)]


class Named:
    def __init__(self, name):
        self.name = name


@pytest.mark.parametrize("kind", ["folder", "f.npz", "f.safetensors"])
def test_files_are_looked_up_by_sequence_then_by_name(kind, tmp_path):
    path = write_features(tmp_path / kind, [Named("one"), Named("GG")], VALUES)
    source = FeatureFiles(path)
    found = source(RECORDS, dtype=torch.float32)
    assert all(torch.equal(a, b) for a, b in zip(found, VALUES, strict=True))
    for record, message in (
        (Record("three", "AAA"), "has no features of three: neither its name nor its sequence of 3 residues"),
        (Record("one", "MK"), r"one row for each of the 2 residues of one"),
    ):
        with pytest.raises(DataError, match=message):
            source([record])


def test_files_that_are_wrong_are_named(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.npz").write_bytes(b"no")
    (tmp_path / "bad.safetensors").write_bytes(b"no")
    (tmp_path / "a.txt").write_text("no")
    np.savez(tmp_path / "text.npz", one=np.array(["x", "y", "z"]))
    np.savez(tmp_path / "widths.npz", one=np.ones((3, 2)), two=np.ones((2, 3)))
    for name, message in (
        ("no", "there is no folder or file"),
        ("empty", "has neither a language model"),
        ("bad.npz", "cannot read"),
        ("bad.safetensors", "cannot read"),
        ("a.txt", "are read from a folder, or an .npz or .safetensors"),
        ("text.npz", "must be real numbers, got <U1 for one"),
        ("widths.npz", "must have as many features, got 2 for one and 3 for two"),
    ):
        with pytest.raises(DataError, match=message):
            FeatureFiles(tmp_path / name)(RECORDS)


def test_a_chain_that_keeps_its_sequence_to_itself_tells_no_features():
    generator = torch.Generator().manual_seed(0)
    chain = TrainingChain(torch.randn(3, 12, generator=generator), torch.ones(12).long(), torch.ones(12, 3).half())
    for unnamed in (0.0, 1.0):
        spec = ChainSpec(unnamed=unnamed, network=ChainNetSpec(width=16, layers=1, features=3))
        heard = []

        class Net(torch.nn.Module):
            def forward(self, points, t, letters, features, heard=heard):
                heard.append((letters, features))
                return torch.zeros_like(points.x)

        loss = ChainLoss([chain], spec, partial(spacing_of, spec, training=True))
        loss(Net(), *loss.draw(torch.tensor([0]), generator))
        letters, features = heard[0]
        assert features.dtype == torch.float32
        assert bool((features == 1 - unnamed).all())
        assert bool((letters == (LETTERS if unnamed else 1)).all())


@pytest.fixture
def files(packed, tmp_path):
    """Features of every chain of the packed set, in a folder; one of them is constant."""
    chains = read(renorm.load_recipe("protein", SMALL).data, "all")
    model = Stub()
    values = [torch.cat([x, torch.full((len(x), 1), 7.0)], dim=1) for x in model([c.sequence for c in chains])]
    return write_features(tmp_path / "features", chains, values)


def test_a_run_with_features_of_files_counts_them_folds_and_is_measured(packed, files, capsys):
    run = packed / "run"
    recipe = renorm.load_recipe("protein", SMALL | {"features.folder": str(files)})
    model = renorm.fit_run(recipe, run, progress=False)
    assert model.network.features.in_features == 4
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["identity"]["features"]["kind"] == "files"
    told = features_of_run(run)
    chains = read(recipe.data, "train")
    values = torch.cat(told(records_of(chains))).double()
    torch.testing.assert_close(values.mean(0), torch.zeros(4).double(), rtol=0, atol=2e-3)
    torch.testing.assert_close(values.std(0, correction=0), torch.tensor([1.0, 1, 1, 0]).double(), rtol=0, atol=2e-3)
    assert torch.equal(told([Record("any", "XXXX")])[0], torch.zeros(4, 4).half())
    assert main(["measure", str(run), "-n", "1", "--steps", "2", "--json"]) == 0
    again = renorm.fit_run(recipe, run, resume=True, progress=False)
    assert all(torch.equal(a, b) for a, b in zip(model.network.parameters(), again.network.parameters(), strict=True))
    assert renorm.recipes.folder.read_recipe(run).model.network.features == 4
    sequence, common = chains[0].sequence, ["--run", str(run), "-n", "1", "--steps", "2", "--seed", "3"]
    np.savez(packed / "new.npz", fold=np.load(files / f"{chains[0].name}.npy"))
    assert main(["fold", sequence, *common, "--features", str(packed / "new.npz")]) == 0
    assert main(["fold", "12", *common]) == 0
    capsys.readouterr()
    np.savez(packed / "narrow.npz", fold=np.ones((len(sequence), 3)))
    for words, message in (
        (["MKVLA"], "has no features of fold"),
        ([sequence, "--features", "nowhere"], "there is no nowhere"),
        ([sequence, "--features", str(packed / "narrow.npz")], "trained with 4 features a residue, got 3"),
    ):
        assert main(["fold", words[0], *common, *words[1:]]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    with pytest.raises(RecipeError, match="needs the features"):
        fold(model, sequence, 1, seed=0, steps=2)
    x = fold(model, sequence, 1, seed=0, features=told(records_of(chains[:1]))[0], steps=2)
    assert x.x.shape == (1, len(sequence), 3)
    name = f"{chains[0].name}.npy"
    np.save(files / name, np.load(files / name) + 1)
    with pytest.raises(CheckpointError, match=r"belongs to another run: features\.sha256 was"):
        renorm.fit_run(recipe, run, resume=True, progress=False)
    shutil.rmtree(files)
    assert main(["fold", sequence, *common]) == 2
    assert "give --features DIR" in capsys.readouterr().err


def test_recipes_that_are_wrong_say_so(packed, files, capsys):
    with pytest.raises(RecipeError, match=r"name their folder as features\.folder"):
        renorm.load_recipe("protein", {"model.network.features": 3})
    with pytest.raises(RecipeError, match="batch must be >= 1"):
        renorm.load_recipe("protein", {"features.batch": 0})
    small = [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]
    fit = ["fit", "protein", "--quiet", "--out", str(packed / "wrong"), *small]
    for folder, more, message in (
        (files, ["--set", "model.network.features=3"], "model.network.features must be 4"),
        (packed / "nowhere", [], "there is no folder or file"),
    ):
        assert main([*fit, "--set", f"features.folder={folder}", *more]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert not (packed / "wrong").exists()
    run = packed / "plain"
    renorm.fit_run(renorm.load_recipe("protein", SMALL), run, progress=False)
    assert main(["fold", "MKVLA", "--run", str(run), "--features", str(files)]) == 2
    assert "trained with letters alone" in capsys.readouterr().err


def test_no_sequence_is_told_as_in_training(packed):
    model = renorm.fit_run(renorm.load_recipe("protein", SMALL), packed / "run", progress=False)
    x = fold(model, "X" * 12, 1, seed=1, steps=3).x
    letters = torch.full((12,), LETTERS)
    same = model.fold(letters, 1, generator=torch.Generator().manual_seed(1), steps=3).mT
    torch.testing.assert_close(x, same, rtol=0, atol=1e-6)


# -- folders of language models, as far as transformers is not needed ------------------------------------------------


def fake(folder, *, weights=True):
    """A folder that looks like a language model."""
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "esm"}')
    if weights:
        save_file({"w": torch.ones(1)}, folder / "model.safetensors")
    return folder


def test_a_folder_without_weights_is_named(tmp_path):
    folder = fake(tmp_path / "lm", weights=False)
    with pytest.raises(DataError, match=r"lacks the weights model.safetensors of its language model$"):
        language_model.LanguageModel(folder)
    (folder / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(DataError, match="pickled ones are not read"):
        language_model.LanguageModel(folder)
    index = {"weight_map": {"w": "part-1.safetensors", "v": "part-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    save_file({"w": torch.ones(1)}, folder / "part-1.safetensors")
    with pytest.raises(DataError, match="lacks the weights part-2"):
        language_model.LanguageModel(folder)
    (folder / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(DataError, match="names no weights"):
        language_model.LanguageModel(folder)


def test_the_checksum_is_that_of_the_files(tmp_path):
    one = language_model.LanguageModel(fake(tmp_path / "one"))
    moved = language_model.LanguageModel(shutil.copytree(tmp_path / "one", tmp_path / "two"))
    assert moved.key == one.key
    assert language_model.LanguageModel(tmp_path / "one", layer=1).key != one.key
    save_file({"w": torch.zeros(1)}, tmp_path / "two" / "model.safetensors")
    assert language_model.LanguageModel(tmp_path / "two").sha256 != one.sha256


@pytest.fixture
def stubbed(monkeypatch, tmp_path):
    """A folder that is read as the stub, and the calls of it; the cache is a fresh one."""
    calls, stub = [], Stub()

    def call(self, sequences):
        calls.append(list(sequences))
        return stub(sequences)

    monkeypatch.setattr(language_model.LanguageModel, "__call__", call)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return fake(tmp_path / "lm"), calls


def test_a_run_keeps_its_language_model_and_refuses_others(packed, stubbed, capsys):
    folder, calls = stubbed
    run = packed / "run"
    recipe = renorm.load_recipe("protein", SMALL | {"features.folder": os.path.relpath(folder)})
    model = renorm.fit_run(recipe, run, progress=False)
    assert kept.default_cache().is_dir()
    about = json.loads((run / "manifest.json").read_text())["identity"]["features"]
    checksum = language_model.LanguageModel(folder).sha256
    assert about == {"kind": "language-model", "sha256": checksum, "layer": -1, "dtype": "float16"}
    number = len(calls)
    again = renorm.fit_run(recipe, packed / "again", progress=False)
    assert len(calls) == number, "features are kept from run to run"
    assert all(torch.equal(a, b) for a, b in zip(model.network.parameters(), again.network.parameters(), strict=True))
    common = ["fold", "MKVLAAG", "--run", str(run), "-n", "1", "--steps", "2", "--seed", "3", "--json"]
    assert main(common) == 0
    first = (run / "folds" / "fold.pdb").read_text()
    folder.rename(packed / "moved")
    capsys.readouterr()
    assert main(common) == 2
    assert "if it has moved, give --features DIR" in capsys.readouterr().err
    assert main([*common, "--features", str(packed / "moved")]) == 0
    assert (run / "folds" / "fold.pdb").read_text() == first
    save_file({"w": torch.zeros(1)}, packed / "moved" / "model.safetensors")
    np.savez(packed / "files.npz", fold=np.ones((7, 3)))
    capsys.readouterr()
    for place, message in (("moved", "holds another language model"), ("files.npz", "holds none")):
        assert main([*common, "--features", str(packed / place)]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


def test_transformers_is_asked_for_where_it_is_needed(packed, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(language_model, "import_module", lambda name: (_ for _ in ()).throw(ImportError(name)))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = fake(tmp_path / "lm")
    words = ["fit", "protein", "--quiet", "--set", "data.shortest=10", "--set", f"features.folder={folder}"]
    assert main([*words, "--out", str(packed / "r")]) == 2
    error = capsys.readouterr().err
    assert "needs transformers: pip install 'renorm[lm]'" in error
    assert error.count("\n") == 1


def test_progress_names_rate_and_time_left(capsys, monkeypatch):
    clock = iter(float(t) for t in range(0, 400, 40))
    monkeypatch.setattr("renorm.fit.progress.time.monotonic", lambda: next(clock))
    bar = FitProgress(0, 100, shown=True, what="features", unit="residues")
    bar.update(50)
    bar.close()
    line = capsys.readouterr().err
    assert line.startswith("features 50/100  ")
    assert "residues/s" in line
    assert line.endswith(" left\n")


def test_the_bar_is_shown_once_there_is_work(capsys):
    with Counted("features", "residues", shown=True, start=0):
        pass
    assert capsys.readouterr().err == ""
    with Counted("features", "residues", shown=True, start=0) as bar:
        bar(0, 5)
        bar(5, 5)
    assert capsys.readouterr().err.startswith("features 5/5")
