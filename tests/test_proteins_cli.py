"""`renorm data proteins FOLDER`: what is read, what is left out, and what a second call finds."""

import json
import os
import warnings
from pathlib import Path

import pytest

from renorm.cli import main
from renorm.data.proteins import reading
from renorm.data.proteins.spec import ProteinSpec, known_chains
from test_proteins import atom, pdb

KINDS = ["MSE", "GLY", "ALA", "LYS", "UNK"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Nine good files in two sub-folders, one with a gap, and three bad ones of two kinds."""
    pytest.importorskip("gemmi")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    place = tmp_path / "my structures"
    for n in range(9):
        lines = [atom(KINDS[(i * (n + 2)) % 5], i, 3.8 * i) for i in range(1, 42 + n) if (n, i) != (4, 20)]
        path = place / f"{n % 2}" / f"p{n}.pdb"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(pdb(*lines))
    (place / "empty.pdb").write_text("")
    (place / "nothing.cif").write_text("garbage")
    (place / "water.pdb").write_text(pdb(atom("HOH", 1, 0.0, name="O", element="O", kind="HETATM")))
    return place


def run(capsys, *arguments):
    code = main([str(each) for each in arguments])
    told = capsys.readouterr()
    return code, told.out, told.err


def test_a_folder_is_prepared(folder, capsys):
    code, out, err = run(capsys, "data", "proteins", folder)
    assert code == 0
    lines = out.splitlines()
    assert lines[0].split(maxsplit=1) == ["files", "12, 3 left out"]
    assert "9, 1 with a gap or a broken link" in lines[1]
    assert lines[5:9] == [
        "left out, no C-alpha atom of a protein: 2",
        "  empty.pdb",
        "  water.pdb",
        "left out, truncated, damaged or of another format: 1",
    ]
    assert lines[9].startswith("  nothing.cif: cannot read it, which is truncated")
    assert "read 12 of 12 files" in lines[10]
    assert f"'data.path={folder}'" in lines[11]
    assert err.startswith("proteins 12/12")
    code, out, err = run(capsys, "data", "proteins", folder)
    assert (code, err) == (0, "")
    assert out.splitlines()[:10] == lines[:10]
    assert "all 12 files were read before" in out


def test_what_json_says_is_counted_by_hand(folder, capsys):
    code, out, _ = run(capsys, "data", "proteins", folder, "--json", "--quiet")
    told = json.loads(out)
    assert code == 0
    letters = [[KINDS[(i * (n + 2)) % 5] for i in range(1, 42 + n) if (n, i) != (4, 20)] for n in range(9)]
    assert told["residues"] == sum(map(len, letters)) + 1
    assert (told["files"], told["chains"], told["missing"], told["broken"], told["read_anew"]) == (12, 9, 1, 1, 12)
    assert told["modified"] == sum(each.count("MSE") for each in letters)
    assert told["unknown"] == sum(each.count("UNK") for each in letters) + 1  # the missing one
    assert told["lengths"] == [41, 45, 49]
    assert told["kinds"] == {"no C-alpha atom of a protein": 2, "truncated, damaged or of another format": 1}
    assert [entry["file"] for entry in told["dropped"]] == ["empty.pdb", "nothing.cif", "water.pdb"]
    assert Path(told["cache"]).is_file()
    spec = ProteinSpec("folder", str(folder), hold_out="sequence")
    with pytest.warns(UserWarning, match="3 files of .* were left out, `renorm data proteins"):
        assert len(known_chains(spec, "all")) == 9 == told["train"] + told["test"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sizes = [len(known_chains(spec, split)) for split in ("train", "test") if told[split]]
    assert sizes == [told[split] for split in ("train", "test") if told[split]]


def test_an_interrupted_call_goes_on(folder, capsys, monkeypatch):
    read = reading.read_structure

    def stopped(path, **named):
        if path.name == "p3.pdb":
            raise KeyboardInterrupt
        return read(path, **named)

    monkeypatch.setattr(reading, "read_structure", stopped)
    code, out, err = run(capsys, "data", "proteins", folder)
    assert (code, out) == (130, "")
    assert err == "renorm: interrupted; files that were read stay read, the same command goes on\n"
    monkeypatch.setattr(reading, "read_structure", read)
    _, out, _ = run(capsys, "data", "proteins", folder, "--json")
    assert 0 < json.loads(out)["read_anew"] < 12


def test_only_what_changed_is_read_again(folder, capsys):
    run(capsys, "data", "proteins", folder)
    (folder / "new.pdb").write_text((folder / "0" / "p0.pdb").read_text())
    (folder / "empty.pdb").unlink()
    os.utime(folder / "0" / "p2.pdb", (1, 1))
    _, out, _ = run(capsys, "data", "proteins", folder, "--json")
    told = json.loads(out)
    assert (told["read_anew"], told["chains"], len(told["dropped"])) == (2, 10, 2)


def test_a_cache_that_cannot_be_written_is_said(folder, capsys, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    code, out, _ = run(capsys, "data", "proteins", folder)
    assert code == 0
    assert "cannot write" in out
    assert "each fit reads the folder again" in out


def test_what_is_no_folder_of_structures(folder, capsys, tmp_path):
    bad = tmp_path / "bad"
    bad.mkdir()
    cases = [((), "which folder?"), ((tmp_path / "none",), "there is no folder"), ((bad,), "has no structure files")]
    cases += [((folder / "empty.pdb",), "is no folder")]
    for arguments, message in cases:
        code, _, err = run(capsys, "data", "proteins", *arguments)
        assert (code, err.count("\n")) == (2, 1)
        assert message in err
    (bad / "a.pdb").write_text("")
    code, _, err = run(capsys, "data", "proteins", bad, "--quiet")
    assert code == 2
    assert "none of 1 files of" in err
    assert "no C-alpha atom of a protein" in err
    code, _, err = run(capsys, "data", "mnist", folder)
    assert (code, err.count("\n")) == (2, 1)
    assert "a folder goes with `renorm data proteins` alone" in err


def test_the_list_of_sources_stays(capsys):
    code, out, _ = run(capsys, "data")
    assert code == 0
    assert "mnist" in out
    assert "renorm data proteins FOLDER" in out
