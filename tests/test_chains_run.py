"""Runs of chains: fitted from a packed set, resumed, folded into PDB files, by Python and by the command line."""

import json
import math
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

import renorm
from conftest import SMALL_CHAINS as SMALL
from renorm.bench import protein
from renorm.cli import main
from renorm.data.proteins import Chain, Chains, read_structure
from renorm.data.proteins.pdb_file import b_factors, pdb_text
from renorm.data.proteins.spec import ProteinSpec, read
from renorm.errors import CheckpointError, DataError, RecipeError
from renorm.recipes.chains_measure import gaussian_chain, nearest_by_length, scores
from renorm.recipes.chains_run import fold
from renorm.recipes.run import load_run


def test_splits_are_whole_and_apart(packed):
    spec = ProteinSpec(shortest=10)
    train, test = read(spec, "train"), read(spec, "test")
    assert (len(train), len(test)) == (6, 6)
    assert not set(train.names) & set(test.names)
    assert all(chain.missing == 0 for chain in [*train, *test])
    assert "c0" not in read(ProteinSpec(shortest=10, unbroken=True), "all").names
    assert read(spec, "test").sha256() == test.sha256()
    by_hash = ProteinSpec(shortest=10, hold_out="sequence")
    assert (
        len(read(by_hash, "train")) + sum(1 for c in read(by_hash, "all") if c.name not in read(by_hash, "train").names)
        == 12
    )
    with pytest.raises(DataError, match="no chain of train is left"):
        read(ProteinSpec(shortest=100), "train")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "folder"}, "path is the folder"),
        ({"path": "x"}, "path is the folder"),
        ({"hold_out": "date"}, "day goes with"),
        ({"hold_out": "date", "day": "yesterday"}, "day must be a date"),
    ],
)
def test_a_spec_says_what_is_wrong(values, message):
    with pytest.raises(RecipeError, match=message):
        ProteinSpec(**values)


def test_a_run_is_fitted_and_folds(packed, capsys):
    run = packed / "run"
    recipe = renorm.load_recipe("protein", SMALL)
    model = renorm.fit_run(recipe, run, progress=False)
    again = renorm.load(run)
    one, other = (fold(m, "MKVLAAGIK", 2, seed=3, steps=3) for m in (model, again))
    assert torch.equal(one.x, other.x)
    assert one.spread.shape == (9,)
    with pytest.raises(CheckpointError, match="is a run of chains"):
        load_run(run)
    with pytest.raises(CheckpointError, match="already holds a run"):
        renorm.fit_run(recipe, run, progress=False)
    assert main(["fold", "MKVLAAGIK", "--run", str(run), "-n", "2", "--steps", "3", "--seed", "3", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["folds"][0]
    read_back = read_structure(run / "folds" / "fold.pdb", model=2)[0]
    assert (told["residues"], read_back.sequence) == (9, "MKVLAAGIK")
    assert 'href="fold.pdb"' in (run / "folds" / "folds.html").read_text(encoding="utf-8")
    torch.testing.assert_close(read_back.coordinates, one.x[1], rtol=0, atol=6e-4)


def test_a_fasta_file_or_a_length_folds_too(packed, capsys):
    run = packed / "run"
    renorm.fit_run(renorm.load_recipe("protein", SMALL), run, progress=False)
    (packed / "two.fasta").write_text(">one/first of two\nMKVLA\n>two\nGGGAV\n")
    common = ["--run", str(run), "-n", "1", "--steps", "2", "--sampler", "ddim"]
    assert main(["fold", str(packed / "two.fasta"), *common, "--out", str(packed / "pdb")]) == 0
    assert sorted(path.name for path in (packed / "pdb").iterdir()) == ["folds.html", "one_first.pdb", "two.pdb"]
    assert f"wrote {packed / 'pdb' / 'folds.html'}" in capsys.readouterr().out
    assert main(["fold", "12", *common]) == 0
    capsys.readouterr()
    (packed / "short.fasta").write_text(">long\nMKVLA\n>short\nMK\n")
    (packed / "wrong.fasta").write_text(">long\nMKVLA\n>odd\nMK1\n")
    (packed / "void.fasta").write_text(">long\nMKVLA\n>void\n")
    for wrong, message in (
        ("MK1", "must be letters"),
        ("", "the sequence is empty"),
        ("MK", "at least 3 residues, 'fold' has 2"),
        ("2", "3 to 5000 residues"),
        ("no.fasta", "there is no file"),
        ("no.pdb:A", "there is no file no.pdb" if find_spec("gemmi") else "needs gemmi"),
        ("M" * 10_000, "at most 5000 residues, got 10000"),
        (str(packed / "short.fasta"), "at least 3 residues, 'short' has 2"),
        (str(packed / "wrong.fasta"), "got '1' at position 3 of 'odd' of"),
        (str(packed / "void.fasta"), "'void' of"),
    ):
        assert main(["fold", wrong, *common]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert sorted(path.name for path in (run / "folds").glob("*.pdb")) == ["any-12.pdb"]  # nothing was drawn in vain
    assert main(["sample", str(run)]) == 2
    assert "renorm fold" in capsys.readouterr().err


def test_odd_and_double_names_lose_nothing(packed, capsys):
    """Every record has a file of its own, with its own sequence, also where capital and small letters are one."""
    run = packed / "run"
    renorm.fit_run(renorm.load_recipe("protein", SMALL), run, progress=False)
    names = ["a", "a", "a-2", "A", "../../up", "..", "sp|P1|X/Y", "sp|P1|X?Y", "é", "x" * 99, "x" * 98 + "y", "a"]
    sequences = ["MKV" + "A" * n for n in range(len(names))]
    text = "".join(f">{name} more\r\n{s}\r\n" for name, s in zip(names, sequences, strict=True))
    (packed / "odd.fasta").write_text("\ufeff" + text, encoding="utf-8")  # as an editor on Windows keeps it
    folder = packed / "out"
    told = ["fold", str(packed / "odd.fasta"), "--run", str(run), "-n", "1", "--steps", "1", "--out", str(folder)]
    assert main([*told, "--json"]) == 0
    folds = json.loads(capsys.readouterr().out)["folds"]
    assert [each["name"] for each in folds] == names
    files = [each["file"] for each in folds]
    assert len({file.lower() for file in files}) == len(names)
    assert sorted(files) == sorted(map(str, folder.glob("*.pdb")))
    assert files[:4] == [str(folder / f"{name}.pdb") for name in ("a", "a-3", "a-2", "A-4")]
    pytest.importorskip("gemmi")
    assert [read_structure(Path(file))[0].sequence for file in files] == sequences


def test_the_sequence_of_a_structure_folds(packed, capsys):
    pytest.importorskip("gemmi")
    run, file = packed / "run", packed / "two.pdb"
    renorm.fit_run(renorm.load_recipe("protein", SMALL), run, progress=False)
    one = pdb_text(torch.arange(5.0)[None, :, None].expand(1, 5, 3) * 3, "MKVLA").splitlines()
    atoms = [line for line in one if line.startswith("ATOM")]
    file.write_text("\n".join([*atoms, "TER", *(line[:21] + "B" + line[22:] for line in atoms[:4]), "TER", "END", ""]))
    common = ["--run", str(run), "-n", "1", "--steps", "1", "--json"]
    assert main(["fold", f"{file}:B", *common]) == 0
    fold_b = json.loads(capsys.readouterr().out)["folds"][0]
    assert (fold_b["name"], fold_b["residues"]) == ("two.B", 4)
    for asked, message in ((str(file), "got A, B; name the one to read"), (f"{file}:C", "no protein chain 'C'")):
        assert main(["fold", asked, *common]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


def test_a_run_is_measured_and_has_a_page(packed, capsys):
    run = packed / "run"
    renorm.fit_run(renorm.load_recipe("protein", SMALL), run, progress=False)
    assert main(["measure", str(run), "-n", "2", "--steps", "2", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    written = json.loads((run / "measures.json").read_text())
    assert {k: v for k, v in told.items() if k != "report"} == written["figures"]
    assert told["targets"] == 6
    assert len(written["targets"]) == 6
    assert 0 < told["median_tm"] < 1
    assert {"bond_rmse", "angle_js", "dihedral_js", "rg_error", "clashes", "median_lddt"} <= told.keys()
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "Folds" in page
    assert "Coarse to fine" in page
    assert page.count("<svg") == 1 + 4 * 2 + 1  # without a script; four targets and their contacts; one walk
    with np.load(run / "samples" / "scales.npz") as kept, np.load(run / "samples" / "folds.npz") as folds:
        assert kept["drawn"].shape == kept["known"].shape == (2, *folds["fold1"].shape)  # two steps
        centred = folds["fold1"] - folds["fold1"].mean(0)
        np.testing.assert_allclose(kept["drawn"][-1], centred, atol=1e-3)


def test_scores_of_the_structure_itself_are_perfect():
    generator = torch.Generator().manual_seed(0)
    x = torch.nn.functional.normalize(torch.randn(40, 3, generator=generator)).cumsum(0) * 3.8
    x[5] = float("nan")
    target = Chain("t", "M" * 40, x)
    turned = x.nan_to_num(3.0)[:, [1, 2, 0]] + 7
    found = scores(turned[None], target)
    assert found["rmsd"] == pytest.approx(0, abs=1e-4)
    assert [found[key] for key in ("tm", "gdt_ts", "gdt_ha", "lddt")] == pytest.approx([1] * 4, abs=1e-4)
    chains = Chains([Chain(str(n), "M" * n, torch.randn(n, 3, generator=generator)) for n in (10, 20)])
    assert torch.equal(nearest_by_length(chains, 15), chains[1].coordinates[:15])
    assert nearest_by_length(chains, 30).shape == (30, 3)
    bonds = torch.cat([gaussian_chain(200, seed).diff(dim=0).square().sum(1) for seed in range(20)])
    assert bonds.mean().sqrt().item() == pytest.approx(3.8, rel=0.03)


def test_the_benchmark_goes_in_pieces_and_keeps_its_cells(packed, monkeypatch):
    shutil.copy(packed / "data" / "proteins" / "train.npz", packed / "data" / "proteins" / "cameo2022.npz")
    monkeypatch.chdir(packed)
    protein._chains.cache_clear()
    methods = {name: changes | SMALL for name, changes in protein.METHODS.items()}
    small = {
        "METHODS": methods,
        "PICTURED": protein._chains("cameo")[0].name,
        "EVALUATIONS": (2, 3),
        "HEADLINE": (2,),
        "LENGTHS": (10, 12),
    }
    for name, value in (small | {"TIMED": 12, "CHAINS_TIMED": 2, "HISTOGRAMS": 1, "DRAWS": 4}).items():
        monkeypatch.setattr(protein, name, value)
    monkeypatch.setattr(protein, "on_all_cores", lambda jobs, told: [job() for job in jobs])
    monkeypatch.setenv("RENORM_BENCH_PART", "rgdm")
    with pytest.raises(RecipeError, match="trained rgdm; `renorm bench protein`"):
        protein.run(0)
    monkeypatch.delenv("RENORM_BENCH_PART")
    protein._chains.cache_clear()
    result = protein.run(0)
    keys = ("bond_rmse", "angle_js", "dihedral_js", "rg_error", "clashes")
    assert {f"{m}_{key}_2" for m in ("rgdm", "ddpm") for key in keys} <= result.figures.keys()
    medians = {f"median_tm_{w}_{m}" for w in ("heldout", "cameo") for m in ("rgdm", "ddpm", "nearest", "gaussian")}
    assert medians | {"seconds_per_structure_128", "growth_exponent"} <= result.figures.keys()
    assert all(math.isfinite(value) for value in result.figures.values())
    assert [path.suffix for path in Path("runs/bench/protein/cells").glob("scales-*")] == [".npz"]
    assert result.notes["rgdm"].startswith(f"{protein.STEPS} steps in ")
    monkeypatch.setattr(protein, "fold", None)  # all is kept
    assert protein.run(0) == result
    protein._chains.cache_clear()


def test_pdb_files_by_hand():
    x = torch.tensor([[[1.0, -2.5, 100.25], [4.8, 0, 0]]])
    lines = pdb_text(x, "GX", b=torch.tensor([12.345, 5000.0]), title="two").splitlines()
    assert lines[0] == "TITLE     two"
    assert lines[2] == "ATOM      1  CA  GLY A   1       1.000  -2.500 100.250  1.00 12.35           C"
    assert lines[3] == "ATOM      2  CA  UNK A   2       4.800   0.000   0.000  1.00999.99           C"
    assert b_factors(torch.tensor([0.0, 2.0])).tolist() == pytest.approx([0, 105.2758], abs=1e-3)
    for wrong, message in ((x * 1e4, "four digits"), (x * float("nan"), "four digits")):
        with pytest.raises(DataError, match=message):
            pdb_text(wrong, "GX")
    with pytest.raises(DataError, match="as many letters"):
        pdb_text(x, "G")
