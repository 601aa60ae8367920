"""Protein chains: structure files written here, packed sets, folders, sequences, and residues that are missing."""

import gzip
import math
import os
import sys
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import torch

from renorm.data import store
from renorm.data.npz import read_npz
from renorm.data.proteins import (
    Chain,
    Chains,
    by_cluster,
    by_date,
    fill,
    fill_all,
    load,
    of_lengths,
    parse_sequence,
    read_chain,
    read_fasta,
    read_folder,
    read_structure,
    reading,
    unbroken,
)
from renorm.data.proteins.filling import FILLING_MASS, STIFFNESS, chain_precision, missing_law
from renorm.data.proteins.folder import default_cache
from renorm.data.proteins.packed import read_packed
from renorm.data.proteins.placing import broken_links, place_by_numbers, place_in_sequence
from renorm.data.proteins.sequence import LETTERS, decode, encode, parse_fasta
from renorm.data.proteins.storage import from_arrays, read_chains, to_arrays, write_chains
from renorm.data.proteins.structure_files import ABSENT
from renorm.errors import DataError, StructureError


def line_points(length: int, bond: float = 3.8) -> np.ndarray:
    """C-alphas on a straight line."""
    return np.stack([bond * np.arange(length), np.zeros(length), np.zeros(length)], axis=1)


def make_chain(name: str = "a", length: int = 4, gaps: tuple[int, ...] = (), **more) -> Chain:
    x = torch.from_numpy(line_points(length)).float()
    x[list(gaps)] = torch.nan
    return Chain(name, more.pop("sequence", "G" * length), x, **more)


def atom(residue, number, x, *, chain="A", name="CA", element="C", alt=" ", occ=1.0, kind="ATOM", insert=" "):
    """One line of a PDB file."""
    return (
        f"{kind:<6}{1:>5} {name:^4}{alt}{residue:>3} {chain}{number:>4}{insert}   "
        f"{x:8.3f}{0.0:8.3f}{0.0:8.3f}{occ:6.2f}{20.0:6.2f}          {element:>2}"
    )


def pdb(*lines: str) -> str:
    return "\n".join([*lines, "END", ""])


@pytest.fixture
def write(tmp_path):
    """A function that writes a file and says where."""
    pytest.importorskip("gemmi")

    def _write(text: str, name: str = "mine.pdb") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
        return path

    return _write


# Chains


def test_a_chain_counts_its_gaps_and_breaks():
    x = torch.from_numpy(line_points(6)).float()
    x[3:] += 1.0  # 4.8 in x, 5.0 with y and z: broken
    x[5] = torch.nan
    chain = Chain("a", "ACDEFG", x)
    assert (len(chain), chain.missing, chain.breaks, chain.unbroken) == (6, 1, 1, False)
    assert chain.residue_numbers.tolist() == [1, 2, 3, 4, 5, 6]
    assert chain.trimmed().sequence == "ACDEF"
    assert make_chain().unbroken


def test_the_threshold_of_a_break_is_4_5():
    assert broken_links(np.array([[0.0, 0, 0], [4.5, 0, 0], [9.01, 0, 0]])).tolist() == [False, True]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sequence": "", "coordinates": torch.zeros(0, 3)}, "at least one residue, a is empty"),
        ({"sequence": "MJ"}, "got 'J' at position 2 of a"),
        ({"sequence": "MKV"}, r"3 residues need coordinates \(3, 3\), got \(2, 3\) in a"),
        ({"coordinates": torch.zeros(2, 3).double()}, r"float32, got torch\.float64 in a"),
        ({"coordinates": torch.tensor([[0.0, 0, 0], [1, torch.nan, 1]])}, "three NaN .* at position 2 of a"),
        ({"coordinates": torch.tensor([[0.0, 0, 0], [1, torch.inf, 1]])}, "finite numbers.* at position 2 of a"),
        ({"numbers": torch.arange(3)}, "2 residues need as many numbers, got 3 in a"),
        ({"cluster": -1}, "cluster must be >= 0, got -1 in a"),
    ],
)
def test_a_chain_that_is_none(arguments, message):
    with pytest.raises(DataError, match=message):
        Chain(**{"name": "a", "sequence": "MK", "coordinates": torch.zeros(2, 3), **arguments})


def test_chains_are_selected_by_masks_and_indices():
    chains = Chains(make_chain(f"c{n}", n) for n in (2, 3, 4))
    assert chains.lengths.tolist() == [2, 3, 4]
    assert chains.select(torch.tensor([True, False, True])).names == ["c2", "c4"]
    assert chains.select(torch.tensor([2, 0])).names == ["c4", "c2"]
    assert chains[1:].names == ["c3", "c4"]
    with pytest.raises(DataError, match="a mask of 3 chains must have as many entries, got 2"):
        chains.select(torch.tensor([True, False]))
    with pytest.raises(DataError, match=r"index of 3 chains is 0 \.\.\. 2, got 3"):
        chains.select(torch.tensor([3]))
    assert len(Chains()) == 0
    assert Chains().select(torch.zeros(0, dtype=torch.bool)).lengths.tolist() == []


def test_the_fingerprint_sees_everything_but_the_bits_of_a_nan():
    chain = make_chain(gaps=(1,))
    digest = Chains([chain]).sha256()
    other = chain.coordinates.clone()
    other[1] = torch.tensor(-1.0).sqrt()  # another NaN
    assert Chains([make_chain(gaps=(1,))]).sha256() == Chains([Chain("a", "GGGG", other)]).sha256() == digest
    changed = [
        make_chain("b", gaps=(1,)),
        make_chain(gaps=(2,)),
        make_chain(gaps=(1,), sequence="GGGA"),
        make_chain(gaps=(1,), numbers=torch.arange(4)),
        make_chain(gaps=(1,), cluster=0),
        make_chain(gaps=(1,), released=date(2020, 1, 1)),
    ]
    assert digest not in {Chains([each]).sha256() for each in changed}


def test_splits_are_disjoint_and_complete():
    days = [date(2020, 4, 30), date(2020, 5, 1), date(2021, 1, 1)]
    chains = Chains(make_chain(f"c{n}", cluster=n, released=days[n % 3]) for n in range(21))
    train, test = by_cluster(chains, "train"), by_cluster(chains, "test")
    assert test.names == ["c0", "c10", "c20"]
    assert sorted(train.names + test.names) == sorted(chains.names)
    assert {chain.released for chain in by_date(chains, "train", day=days[1])} == {days[0]}
    assert {chain.released for chain in by_date(chains, "test", day=days[1])} == {days[1], days[2]}
    assert by_cluster(chains, "all") is chains
    with pytest.raises(DataError, match=r"needs a cluster to be split by it, 1 have none: lost"):
        by_cluster(Chains([make_chain("lost")]), "train")
    with pytest.raises(DataError, match=r"needs a date to be split by it, 1 have none: lost"):
        by_date(Chains([make_chain("lost")]), "test", day=days[0])


def test_choosing_by_length_and_by_gaps():
    chains = Chains([make_chain("whole", 5), make_chain("gap", 5, (2,)), make_chain("short", 2)])
    assert unbroken(chains).names == ["whole", "short"]
    assert of_lengths(chains, shortest=3, longest=5).names == ["whole", "gap"]
    with pytest.raises(DataError, match=r"longest length must be >= the shortest \(9 residues\), got 5"):
        of_lengths(chains, shortest=9, longest=5)
    with pytest.raises(DataError, match="no C-alpha: nothing would be left"):
        make_chain(gaps=(0, 1, 2, 3)).trimmed()


def test_chains_survive_a_file(tmp_path):
    chains = Chains([make_chain("a", 3, (1,), cluster=0, released=date(2022, 8, 3)), make_chain("b", 2)])
    write_chains(tmp_path / "x.npz", chains)
    again = read_chains(tmp_path / "x.npz")
    assert again.sha256() == chains.sha256()
    assert (again[0].released, again[1].released, again[1].cluster) == (date(2022, 8, 3), None, None)
    assert [path.name for path in tmp_path.iterdir()] == ["x.npz"]
    assert len(from_arrays(to_arrays(Chains()))) == 0
    arrays = {**to_arrays(chains), "offsets": np.array([0, 3, 3])}
    with pytest.raises(DataError, match="offsets must be 3 ascending whole numbers from 0 to 5"):
        from_arrays(arrays)
    with pytest.raises(DataError, match="arrays of chains must belong together"):
        from_arrays({**to_arrays(chains), "release_date": np.array(["2022-08-03"])})
    with pytest.raises(DataError, match="cannot write"):
        write_chains(tmp_path / "x.npz" / "y.npz", chains)


# Places of residues


def test_numbers_hide_residues_only_where_the_chain_is_broken():
    x = line_points(5)
    assert place_by_numbers(np.array([1, 2, 5, 6, 7]), x).tolist() == [0, 1, 2, 3, 4]
    x[2:] += 10
    assert place_by_numbers(np.array([1, 2, 5, 6, 7]), x).tolist() == [0, 1, 4, 5, 6]
    assert place_by_numbers(np.array([9, 9, 2, 2, 3]), x).tolist() == [0, 1, 2, 3, 4]
    assert place_by_numbers(np.array([1, 2, 103, 104, 105]), x).tolist() == [0, 1, 102, 103, 104]
    assert place_by_numbers(np.array([1, 2, 104, 105, 106]), x).tolist() == [0, 1, 2, 3, 4]
    x[3] = np.nan
    assert place_by_numbers(np.array([1, 2, 3, 5, 6]), x).tolist() == [0, 1, 2, 4, 5]


def test_places_in_a_sequence_that_repeats_follow_the_numbers():
    x = line_points(4)
    x[2:] += 20
    for number in (7, 8, 9):
        numbers = np.array([3, 4, number, number + 1])
        places = place_in_sequence("AAAA", numbers, x, "AAAAAAAAA")
        assert (places[1:] - places[:-1]).tolist() == [1, number - 4, 1]


def test_places_are_the_best_of_all(generator):
    """Every way to lay two pieces along a sequence, tried one by one."""
    for _ in range(20):
        letters, full = (decode(torch.randint(0, 3, (n,), generator=generator)) for n in (5, 12))
        x = line_points(5)
        x[2:] += 9
        full = full[:3] + letters[:2] + full[5:8] + letters[2:] + full[11:]
        numbers = np.array([1, 2, 6, 7, 8])
        best = min(
            sum(a != b for a, b in zip(letters, full[i : i + 2] + full[j : j + 3], strict=True))
            + 0.02 * min(abs(j - i - 2 - 3), 20)
            for i in range(11)
            for j in range(i + 2, 10)
        )
        places = place_in_sequence(letters, numbers, x, full)
        wrong = sum(full[place] != letter for place, letter in zip(places, letters, strict=True))
        assert wrong + 0.02 * abs(places[2] - places[1] - 1 - 3) == pytest.approx(best)


def test_a_sequence_of_another_chain_is_refused():
    with pytest.raises(DataError, match="4 of 4 differ"):
        place_in_sequence("AAAA", np.arange(4), line_points(4), "GGGGGG")
    with pytest.raises(DataError, match="exceed its full sequence of 2, got 4 residues"):
        place_in_sequence("AAAA", np.arange(4), line_points(4), "AA")


# Structure files


def test_a_plain_file(write):
    lines = [atom("GLY", 1, 0.0), atom("ALA", 2, 3.8), atom("ALA", 2, 5.0, name="CB"), atom("TRP", 3, 7.6)]
    for name in ("mine.pdb", "mine.ent.gz"):
        chain = read_chain(write(pdb(*lines), name))
        assert (chain.name, chain.sequence) == ("mine.A", "GAW")
        assert torch.equal(chain.coordinates, torch.from_numpy(line_points(3)).float())
        assert chain.unbroken
        assert chain.released is None


def test_alternative_locations_by_occupancy(write):
    lines = [
        atom("GLY", 1, 0.0),
        atom("ALA", 2, 3.0, alt="A", occ=0.3),
        atom("ALA", 2, 3.8, alt="B", occ=0.7),
        atom("SER", 3, 7.6, alt="A", occ=0.5),
        atom("THR", 3, 7.7, alt="B", occ=0.5),
        atom("LEU", 4, 11.0, alt="A", occ=0.4),
        atom("VAL", 4, 11.4, alt="B", occ=0.6),
    ]
    chain = read_chain(write(pdb(*lines)))
    assert chain.sequence == "GASV"
    assert chain.coordinates[:, 0].tolist() == pytest.approx([0.0, 3.8, 7.6, 11.4])


def test_modified_residues_get_the_letter_of_their_parent(write):
    names = ["MSE", "SEP", "TPO", "HYP", "CSO", "SEC", "PYL", "UNK", "ZZZ"]
    lines = [atom("GLY", 1, 0.0), *(atom(name, 2 + i, 3.8 * (1 + i)) for i, name in enumerate(names))]
    chain = read_chain(write(pdb(*lines)))
    assert (chain.sequence, chain.modified) == ("GMSTPCCKXX", 7)
    assert chain.trimmed().modified == from_arrays(to_arrays(Chains([chain])))[0].modified == 7


def test_waters_ligands_and_ions_are_no_residues(write):
    lines = [
        atom("GLY", 1, 0.0),
        atom("MSE", 2, 3.8, kind="HETATM"),
        atom("ALA", 3, 7.6),
        "TER",
        atom("GLY", 101, 50.0, kind="HETATM"),
        atom(" CA", 102, 60.0, kind="HETATM", element="CA"),
        atom("HOH", 103, 70.0, name="O", element="O", kind="HETATM"),
        atom("HOH", 1, 80.0, name="O", element="O", kind="HETATM", chain="W"),
        atom("DA", 1, 90.0, name="P", element="P", chain="D"),
    ]
    assert read_chain(write(pdb(*lines))).sequence == "GMA"


def test_models(write):
    lines = [f"{head:<10}{n:>4}" if head == "MODEL" else head for n in (1, 2) for head in ("MODEL", "-", "ENDMDL")]
    lines[1], lines[4] = atom("GLY", 1, 1.0), atom("GLY", 1, 2.0)
    path = write(pdb(*lines))
    assert read_chain(path).coordinates[0, 0] == 1.0
    assert read_chain(path, model=2).coordinates[0, 0] == 2.0
    for model in (0, 3):
        with pytest.raises(DataError, match=rf"model must be in 1 \.\.\. 2, got {model} for "):
            read_chain(path, model=model)


def test_several_chains(write):
    path = write(pdb(atom("GLY", 1, 0.0), "TER", atom("ALA", 1, 9.0, chain="B"), "TER", atom("SER", 5, 9.0, chain=" ")))
    assert read_structure(path).names == ["mine.A", "mine.B", "mine._"]
    assert read_chain(path, chain="B").sequence == "A"
    assert read_chain(path, chain="_").sequence == "S"
    with pytest.raises(DataError, match=r"one chain was expected in .*mine\.pdb, got A, B, _; name the one to read"):
        read_chain(path)
    with pytest.raises(DataError, match=r"mine\.pdb has no protein chain 'C', only A, B, _"):
        read_structure(path, chain="C")


def test_the_full_sequence_shows_what_is_missing(write):
    seqres = "SEQRES   1 A    8  MET GLY ALA SER MSE LYS GLY ALA"
    lines = [atom("GLY", 11, 0.0), atom("ALA", 12, 3.8), atom("GLY", 16, 15.0), atom("ALA", 17, 18.8)]
    chain = read_chain(
        write(pdb("REVDAT   2   13-JAN-99 1ABC    1", "REVDAT   1   05-MAR-98 1ABC    0", seqres, *lines))
    )
    assert chain.sequence == "MGASMKGA"
    assert chain.known.tolist() == [False, True, True, False, False, False, True, True]
    assert chain.residue_numbers.tolist() == [10, 11, 12, 13, 14, 15, 16, 17]
    assert chain.released == date(1998, 3, 5)
    assert (chain.missing, chain.breaks) == (4, 0)
    wrong = write(pdb("SEQRES   1 A    4  TRP TRP TRP TRP", *lines), "wrong.pdb")
    with pytest.raises(DataError, match=r"wrong\.pdb: residues must agree .* 4 of 4 differ in wrong\.A"):
        read_chain(wrong)


def test_numbering_gaps_without_a_sequence(write):
    lines = [atom("GLY", 1, 0.0), atom("ALA", 2, 3.8), atom("SER", 5, 15.0), atom("THR", 5, 18.8, insert="A")]
    chain = read_chain(write(pdb(*lines)))
    assert chain.sequence == "GAXXST"
    assert chain.known.tolist() == [True, True, False, False, True, True]
    broken = read_chain(write(pdb(atom("GLY", 1, 0.0), atom("ALA", 2, 8.0)), "broken.pdb"))
    assert (broken.missing, broken.breaks) == (0, 1)


def test_a_residue_without_a_c_alpha_is_missing(write):
    lines = [atom("GLY", 1, 0.0), atom("TRP", 2, 3.8, name="N", element="N"), atom("ALA", 3, 7.6)]
    chain = read_chain(write(pdb(*lines)))
    assert (chain.sequence, chain.known.tolist()) == ("GWA", [True, False, True])


CIF = """data_1ABC
_pdbx_audit_revision_history.ordinal 1
_pdbx_audit_revision_history.revision_date 2022-08-03
loop_
_entity_poly_seq.entity_id
_entity_poly_seq.num
_entity_poly_seq.mon_id
1 1 ACE
1 2 GLY
1 3 ALA
1 4 MSE
1 5 LYS
loop_
_atom_site.group_PDB
_atom_site.id
_atom_site.type_symbol
_atom_site.label_atom_id
_atom_site.label_alt_id
_atom_site.label_comp_id
_atom_site.label_asym_id
_atom_site.label_entity_id
_atom_site.label_seq_id
_atom_site.Cartn_x
_atom_site.Cartn_y
_atom_site.Cartn_z
_atom_site.auth_seq_id
_atom_site.auth_asym_id
HETATM 1 C C . ACE A 1 1 0.0 2.0 3.0 10 H
ATOM 2 C CA . GLY A 1 2 1.0 2.0 3.0 11 H
HETATM 3 C CA . MSE A 1 4 8.6 2.0 3.0 13 H
ATOM 4 C CA . LYS A 1 5 12.4 2.0 3.0 14 H
HETATM 5 O O . HOH B 2 . 9.9 9.9 9.9 201 H
"""


def test_mmcif(write):
    for name in ("1abc.cif", "1abc.mmcif.gz"):
        chain = read_chain(write(CIF, name))
        assert (chain.name, chain.sequence) == ("1abc.H", "GAMK")
        assert chain.known.tolist() == [True, False, True, True]
        assert chain.residue_numbers.tolist() == [11, 12, 13, 14]
        assert chain.released == date(2022, 8, 3)
    listed = CIF[CIF.index("loop_\n_entity_poly_seq") : CIF.index("loop_\n_atom_site")]
    letters = "_entity_poly.entity_id 1\n_entity_poly.pdbx_seq_one_letter_code_can XGAMK\n"
    chain = read_chain(write(CIF.replace(listed, letters), "letters.cif"))
    assert chain.sequence == "XGAMK"
    assert chain.known.tolist() == [False, True, False, True, True]
    chain = read_chain(write(CIF.replace(listed, ""), "bare.cif"))
    assert chain.sequence == "GXMK"


def test_both_formats_say_the_same(write):
    gemmi = pytest.importorskip("gemmi")
    seqres = [f"SEQRES   1 {chain}    6  MET GLY ALA SER MSE LYS" for chain in "AB"]
    lines = [atom("GLY", 11, 0.0), atom("ALA", 12, 3.8), atom("MSE", 14, 12.0, kind="HETATM"), "TER"]
    lines += [atom("SER", 13, 0.0, chain="B"), atom("MSE", 14, 3.8, chain="B", kind="HETATM"), "TER"]
    one = write(pdb(*seqres, *lines))
    structure = gemmi.read_pdb(str(one))
    structure.setup_entities()
    structure.assign_label_seq_id()
    two = write(structure.make_mmcif_document().as_string(), "mine.cif")
    assert [chain.sequence for chain in read_structure(one)] == ["MGASMK", "MGASMK"]
    assert read_structure(one).sha256() == read_structure(two).sha256()


def test_files_that_are_none(write, tmp_path, monkeypatch):
    lines = [atom("GLY", 1, 0.0), atom("ALA", 2, 3.8)]
    whole = write(pdb(*lines), "whole.pdb.gz")
    cut = tmp_path / "cut.pdb.gz"
    cut.write_bytes(whole.read_bytes()[:-9])
    cases = {
        "no C-alpha atom of a protein": write(pdb(atom("DA", 1, 0.0, name="P", element="P")), "dna.pdb"),
        "has no C-alpha": write("nothing\nof the kind\n", "garbage.pdb"),
        "has no C-alpha atom": write("", "empty.pdb"),
        "cannot read .*cut.*, which is truncated, damaged or of another format": cut,
        "cannot read .*short.*truncated": write("\n".join(lines)[:-30], "short.pdb"),
        r"x, y, z of line 2 must be three numbers, got '.*x\.800": write(
            pdb(*lines).replace("3.800", "x.800"), "x.pdb"
        ),
        "x, y, z of line 2": write(pdb(*lines).replace("3.800", "  nan"), "nan.pdb"),
        r"cannot read .*half.*Wrong number of values": write(CIF[:-20], "half.cif"),
        "cannot read .*: expected block header": write("garbage", "garbage.cif"),
        r"it has no atoms \(_atom_site\)": write("data_x\n_cell.length_a 1\n", "cell.cif"),
        r"x, y, z of a C-alpha must be three numbers, .* in residue 11": write(
            CIF.replace("1.0 2.0", "abc 2.0"), "y.cif"
        ),
        r"a structure file ends in \.pdb, \.ent, \.cif, \.mmcif": write("", "mine.txt"),
        "there is no file": tmp_path / "absent.pdb",
    }
    for message, path in cases.items():
        with pytest.raises(DataError, match=message) as caught:
            read_structure(path)
        assert "\n" not in str(caught.value)
    monkeypatch.setitem(sys.modules, "gemmi", None)
    with pytest.raises(DataError, match=r"needs gemmi: pip install 'renorm\[protein\]'"):
        read_structure(whole)
    with pytest.raises(DataError, match="needs gemmi"):
        read_folder(tmp_path)


def test_files_cut_short(write, tmp_path):
    """Wherever the text breaks off, but for between the atoms of a file that lists no sequence."""
    lines = [atom("GLY", 1, 0.0), atom("ALA", 2, 3.8), atom("SER", 3, 7.6)]
    bare, whole = "\n".join(lines), pdb("SEQRES   1 A    3  GLY ALA SER", *lines, "TER")
    cuts = [bare[:-n] for n in (1, 20, 30, 60, len(lines[-1]) - 2)]
    cuts += ["".join(line + "\n" for line in whole.splitlines()[:n]) for n in (2, 3, 4, 5)]
    cuts += ["\n".join(["MODEL        1", *lines, "ENDMDL", "MODEL        2", *lines[:n], ""]) for n in (1, 3)]
    for text in cuts:
        with pytest.raises(StructureError, match=r"cannot read .*cut\.pdb, which is truncated") as caught:
            read_structure(write(text, "cut.pdb"))
        assert caught.value.kind == "truncated, damaged or of another format"
    for text in (bare, bare + "\n", whole, pdb("MODEL        1", *lines), "\n".join(["MODEL 1", *lines, "ENDMDL"])):
        assert read_chain(write(text, "whole.pdb")).sequence == "GAS"
    rows = CIF.replace("loop_", "#\nloop_")
    assert read_chain(write(rows + "#\n", "whole.cif")).sequence == "GAMK"
    for end in ("HETATM 5", "ATOM 4", "14 H\nHETATM", " H\nHETATM"):
        with pytest.raises(StructureError, match="is truncated"):
            read_structure(write(rows[: rows.index(end)], "cut.cif"))
    for name, text in {"a.pdb.gz": whole, "a.cif.gz": CIF}.items():
        data = write(text * 50, name).read_bytes()
        for size in (0, 5, len(data) // 2, len(data) - 1):
            (tmp_path / name).write_bytes(data[:size])
            with pytest.raises(StructureError):
                read_structure(tmp_path / name)


def test_frames_are_models_also_where_nothing_begins_them(write):
    """As gemmi reads: END ends the file, ENDMDL alone a model."""
    frame = [atom("GLY", 1, 0.0), atom("ALA", 2, 3.8), atom("SER", 3, 7.6)]
    for end in ("END", "ENDMDL"):
        assert read_chain(write(pdb(*frame, end, *frame))).sequence == "GAS"


def test_two_chains_under_one_name(write):
    """gemmi takes them for one; where a chain goes on after another, it is one."""
    one = [atom("GLY", 1, 0.0), atom("ALA", 2, 3.8), "TER"]
    other = [atom("SER", 1, 50.0, chain="B"), "TER"]
    for again in ([atom("SER", 1, 90.0), atom("THR", 2, 93.8)], [*other, atom("GLY", 2, 90.0)]):
        with pytest.raises(StructureError, match=r"mine\.pdb: a residue comes once .* of chain 'A' comes again"):
            read_structure(write(pdb(*one, *again)))
    goes_on = read_structure(write(pdb(*one, *other, atom("LYS", 3, 7.6), "TER")))
    assert {chain.name: chain.sequence for chain in goes_on} == {"mine.A": "GAK", "mine.B": "S"}
    twice = CIF.replace("loop_", "_entity.id 1\n_entity.type polymer\nloop_", 1)
    twice += "ATOM 6 C CA . GLY C 1 2 1.0 2.0 3.0 31 H\n"
    with pytest.raises(StructureError, match=r"mine\.cif has two chains under one name, 'H'"):
        read_structure(write(twice, "mine.cif"))


# Packed sets


@pytest.fixture
def packed(tmp_path):
    """Arrays of a set of two chains, the second with a gap of one residue."""
    x = np.zeros((5, 3, 3), np.int32)
    x[:, 1, 0] = 0, 3800, 0, 3800, 10000
    arrays = {
        "name": np.array(["a", "b"]),
        "sequence": np.array("MKGAL"),
        "offsets": np.array([0, 2, 5]),
        "backbone_mA": x,
        "residue_number": np.array([1, 2, 7, 8, 10]),
        "cluster": np.array([3, 10]),
    }

    def _write(**changes):
        np.savez(
            tmp_path / "set.npz", **{key: value for key, value in {**arrays, **changes}.items() if value is not None}
        )
        return tmp_path / "set.npz"

    return _write


def test_packed_chains(packed):
    first, second = read_packed(packed())
    assert (first.sequence, first.cluster, first.unbroken) == ("MK", 3, True)
    assert second.sequence == "GAXL"
    assert second.residue_numbers.tolist() == [7, 8, 9, 10]
    torch.testing.assert_close(second.coordinates[:, 0], torch.tensor([0, 3.8, torch.nan, 10]), equal_nan=True)
    _, second = read_packed(packed(seqres=np.array(["MK", "CGAWLC"]), release_date=np.array(["2022-08-03", ""])))
    assert (second.sequence, second.known.int().tolist()) == ("CGAWLC", [0, 1, 1, 0, 1, 0])
    assert second.released is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"residue_number": None}, "must hold an array 'residue_number'"),
        ({"offsets": np.array([0, 5])}, "offsets must be 3 ascending whole numbers from 0 to 5"),
        ({"offsets": np.array([0, 5, 5])}, "offsets must be 3 ascending"),
        ({"backbone_mA": np.zeros((5, 3, 3))}, "backbone_mA must be whole numbers"),
        ({"residue_number": np.zeros(4, int)}, "residue_number must be 5 whole numbers, got"),
        ({"cluster": np.zeros(3, int)}, "cluster must have an entry for each of 2 chains"),
        ({"sequence": np.array("MKG1L")}, "got '1' at position 2 of b"),
        ({"seqres": np.array(["MK", "WWWWWW"])}, "3 of 3 differ"),
    ],
)
def test_packed_files_that_are_none(packed, changes, message):
    with pytest.raises(DataError, match=message):
        read_packed(packed(**changes))


def test_a_packed_set_is_found_by_name(packed, tmp_path, monkeypatch):
    monkeypatch.setattr("renorm.data.proteins.packed.roots", lambda: [tmp_path])
    with pytest.raises(DataError, match=r"there is no proteins/set\.npz; set RENORM_DATA"):
        load("set")
    (tmp_path / "proteins").mkdir()
    packed().rename(tmp_path / "proteins" / "set.npz")
    assert load("set").names == ["a", "b"]


def test_the_real_sets(shared_data):
    chains = read_packed(shared_data / "proteins" / "train.npz")
    assert len(chains) == 864
    test = by_cluster(chains, "test")
    assert len(test) == 76
    assert not {chain.cluster for chain in test} & {chain.cluster for chain in by_cluster(chains, "train")}
    # The file counts 685 chains without a break, by the bonds of the backbone.
    assert abs(len(unbroken(chains)) - 685) <= 5
    bonds = torch.cat([chain.coordinates.diff(dim=0).norm(dim=1) for chain in unbroken(chains)])
    assert abs(bonds.mean() - 3.8) < 0.01
    cameo = read_packed(shared_data / "proteins" / "cameo2022.npz")
    with np.load(shared_data / "proteins" / "cameo2022.npz") as file:
        assert [chain.sequence for chain in cameo] == file["seqres"].tolist()
        sizes = np.diff(file["offsets"])
    assert [int(chain.known.sum()) for chain in cameo] == sizes.tolist()
    assert min(chain.released for chain in cameo) == date(2022, 8, 3)


# Folders


def test_a_folder_of_a_thousand(write, tmp_path):
    good = pdb(atom("GLY", 1, 0.0), atom("ALA", 2, 3.8))
    for n in range(1000):
        write("garbage" if n % 100 == 7 else good, f"set/{n // 100}/p{n:03}.pdb")
    steps = []
    chains, dropped = read_folder(tmp_path / "set", progress=lambda done, total: steps.append((done, total)))
    assert len(chains) == 990
    assert [entry.file for entry in dropped] == [f"{n // 100}/p{n:03}.pdb" for n in range(7, 1000, 100)]
    assert all("no C-alpha" in entry.reason for entry in dropped)
    assert chains.names[:2] == ["0/p000.A", "0/p001.A"]
    assert steps == [(n, 1000) for n in range(1, 1001)]


def test_a_folder_is_chosen_from(write, tmp_path):
    for name, length in {"a.pdb": 2, "b.ent": 3, "c.pdb.gz": 3, "d.PDB": 5}.items():
        write(pdb(*(atom("GLY", i, 3.8 * i) for i in range(1, length + 1))), name)
    write("ignored", "notes.txt")
    write("ignored", ".hidden.pdb")
    chains, dropped = read_folder(tmp_path, shortest=3, longest=4, unique=True)
    assert chains.names == ["b.A"]
    assert dropped == (
        ("a.A", "a chain must have at least 3 residues, got 2", "chains too short"),
        ("c.A", "has the same sequence as b.A", "chains that come twice"),
        ("d.A", "a chain must have at most 4 residues, got 5", "chains too long"),
    )
    with pytest.raises(
        DataError, match=r"no chain of .* is left of 4 files; first, a\.A: .* at least 9 residues, got 2"
    ):
        read_folder(tmp_path, shortest=9)
    with pytest.raises(DataError, match="shortest length must be >= 1 residue, got 0"):
        read_folder(tmp_path, shortest=0)
    with pytest.raises(DataError, match="there is no folder"):
        read_folder(tmp_path / "absent")
    (tmp_path / "bare").mkdir()
    with pytest.raises(DataError, match="has no structure files"):
        read_folder(tmp_path / "bare")


def test_a_folder_is_read_once(write, tmp_path, monkeypatch):
    path = write(pdb(atom("GLY", 1, 0.0)), "set/a.pdb")
    write("garbage", "set/b.pdb")
    cache = tmp_path / "cache" / "set.npz"
    calls = []
    arguments = {"cache": cache, "progress": lambda *done: calls.append(done)}
    first = read_folder(tmp_path / "set", **arguments)
    again = read_folder(tmp_path / "set", **arguments)
    assert len(calls) == 2
    assert again.chains.sha256() == first.chains.sha256()
    assert again.dropped == first.dropped
    assert [each.name for each in cache.parent.iterdir()] == ["set.npz"]
    os.utime(path, (1, 1))
    read_folder(tmp_path / "set", **arguments)
    assert calls[2:] == [(2, 2)]  # only the file that changed
    cache.write_bytes(cache.read_bytes()[:50])
    assert read_folder(tmp_path / "set", **arguments).chains.names == ["a.A"]
    assert len(calls) == 5
    assert read_folder(tmp_path / "set", cache=tmp_path / "set" / "b.pdb" / "x.npz").chains.names == ["a.A"]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache(tmp_path / "set").parent == store.cache() / "proteins"


def test_reading_that_stops_goes_on(write, tmp_path, monkeypatch):
    """Stopped at the third file of five, the two before are not read again; a file that could not be opened is."""
    for n in range(5):
        write("garbage" if n == 1 else pdb(atom("GLY", 1, float(n))), f"set/p{n}.pdb")
    cache = tmp_path / "cache.npz"
    seen = []

    def counting(path, **named):
        seen.append(path.name)
        if path.name == "p2.pdb" and len(seen) == 3:
            raise KeyboardInterrupt
        if path.name == "p4.pdb" and len(seen) < 7:
            raise StructureError("cannot open it", ABSENT)
        return read_structure(path, **named)

    monkeypatch.setattr(reading, "read_structure", counting)
    with pytest.raises(KeyboardInterrupt):
        read_folder(tmp_path / "set", cache=cache)
    chains, dropped = read_folder(tmp_path / "set", cache=cache)
    assert seen == ["p0.pdb", "p1.pdb", "p2.pdb", "p2.pdb", "p3.pdb", "p4.pdb"]
    assert [entry.file for entry in dropped] == ["p1.pdb", "p4.pdb"]
    assert [entry.kind for entry in dropped] == ["no C-alpha atom of a protein", ABSENT]
    chains, dropped = read_folder(tmp_path / "set", cache=cache)
    assert seen[6:] == ["p4.pdb"]
    assert [chain.coordinates[0, 0].item() for chain in chains] == [0, 2, 3, 4]
    (tmp_path / "set" / "p0.pdb").unlink()
    assert read_folder(tmp_path / "set", cache=cache).chains.names == ["p2.A", "p3.A", "p4.A"]
    assert len(seen) == 7


def test_a_kill_costs_seconds(write, tmp_path, monkeypatch):
    """The cache is written while files are read: what it holds at any moment is what a killed process leaves."""
    for n in range(4):
        write(pdb(atom("GLY", 1, float(n))), f"set/p{n}.pdb")
    monkeypatch.setattr(reading, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(reading, "SAVE_SHARE", 0)
    cache, left = tmp_path / "cache.npz", []
    read_folder(tmp_path / "set", cache=cache, progress=lambda *_: left.append(len(read_npz(cache)["path"])))
    assert left == [1, 2, 3, 4]


# Sequences


def test_letters_and_numbers():
    assert encode(LETTERS).tolist() == list(range(21))
    assert decode(encode("MKXV")) == "MKXV"
    with pytest.raises(DataError, match="got 'B' at position 2 of the sequence"):
        encode("ABA")
    with pytest.raises(DataError, match=r"0 \.\.\. 20, got 21 at position 2"):
        decode(torch.tensor([0, 21]))


def test_a_sequence_that_was_typed(tmp_path):
    assert parse_sequence(" mk v\nla * ") == "MKVLA"
    assert parse_sequence("UOBZJ") == "CKXXX"
    assert parse_sequence(">name of it\nMK\nVL\n") == "MKVL"
    cases = {
        "got '-' at position 3 of the sequence": "MK-V",
        "got '*' at position 2": "M*K",
        "the sequence is empty": " \n",
        "at most 5 residues, got 6 in the sequence": "MKVLAA",
        "got 2 records": ">a\nM\n>b\nK",
        "'a' of the sequence is empty": ">a\n",
    }
    for message, text in cases.items():
        with pytest.raises(DataError, match=message.replace("*", r"\*")):
            parse_sequence(text, longest=5)
    records = parse_fasta("; remark\n>a first\nMKV\nL\n\n>\nGG\n")
    assert records == [("a", "MKVL"), ("sequence2", "GG")]
    with pytest.raises(DataError, match="begins with '>' and a name, got 'MKV' first in"):
        parse_fasta("MKV")
    with pytest.raises(DataError, match="there is no record"):
        parse_fasta("\n")
    (tmp_path / "x.fasta.gz").write_bytes(gzip.compress(b">a\nMK\n"))
    assert read_fasta(tmp_path / "x.fasta.gz") == [("a", "MK")]
    (tmp_path / "cut.fasta.gz").write_bytes(gzip.compress(b">a\nMK\n")[:-9])
    (tmp_path / "bytes.fasta").write_bytes(b"\xff\xfe")
    for name, message in {"cut.fasta.gz": "truncated", "bytes.fasta": "no text", "none": "there is no file"}.items():
        with pytest.raises(DataError, match=message):
            read_fasta(tmp_path / name)


# Missing residues


def test_the_stiffness_makes_bonds_of_3_8():
    """3 c (1/pi) int_0^pi 2 (1 - cos k) / k^2 dk = 3.8^2, the mean square bond of a long massless chain."""
    k = (torch.arange(200_000, dtype=torch.float64) + 0.5) * math.pi / 200_000
    mean_square = 3 * STIFFNESS * (2 * (1 - torch.cos(k)) / k**2).mean()
    assert mean_square.sqrt() == pytest.approx(3.8, rel=1e-4)


def test_the_precision_by_hand():
    """Three residues: k = pi/3, 2 pi/3, with modes (1, 0, -1)/sqrt 2 and (1, -2, 1)/sqrt 6."""
    first, second = (((n * math.pi / 3) ** 2 + FILLING_MASS**2) / STIFFNESS for n in (1, 2))
    one, two = torch.tensor([1.0, 0, -1]).double(), torch.tensor([1.0, -2, 1]).double()
    expected = first * torch.outer(one, one) / 2 + second * torch.outer(two, two) / 6
    torch.testing.assert_close(chain_precision(3), expected, rtol=1e-13, atol=1e-13)
    assert chain_precision(40).sum(dim=1).abs().max() < 1e-13
    with pytest.raises(DataError, match="at least one residue, got 0"):
        chain_precision(0)
    with pytest.raises(DataError, match="mass must be >= 0, got nan"):
        chain_precision(3, mass=math.nan)


def test_the_law_of_the_missing_by_brute_force(generator):
    """By covariances: regression on the known residues, with the centre estimated by generalised least squares.

    The variance of the zero mode is any number: the estimate of the centre takes it out again.
    """
    x = torch.randn(12, 3, generator=generator).cumsum(0) * 3.8 + 100
    missing, known = torch.tensor([0, 1, 5, 6, 7, 11]), torch.tensor([2, 3, 4, 8, 9, 10])
    x[missing] = torch.nan
    place = torch.arange(12, dtype=torch.float64)
    modes = torch.cos(math.pi * place[:, None] * (place + 0.5) / 12)
    modes /= modes.norm(dim=1, keepdim=True)
    wavenumber = math.pi * place.clamp(min=1) / 12
    c = modes.T @ torch.diag(STIFFNESS / (wavenumber**2 + FILLING_MASS**2)) @ modes
    inverse, y = torch.linalg.inv(c[known][:, known]), x[known].double()
    weight = inverse.sum()
    centre = (inverse.sum(dim=0) @ y) / weight
    gain = c[missing][:, known] @ inverse
    law = missing_law(x)
    torch.testing.assert_close(law.mean, centre + gain @ (y - centre), rtol=1e-11, atol=1e-9)
    unsure = 1 - gain.sum(dim=1)
    spread = c[missing][:, missing] - gain @ c[known][:, missing] + torch.outer(unsure, unsure) / weight
    torch.testing.assert_close(torch.cholesky_inverse(law.cholesky), spread, rtol=1e-11, atol=1e-9)


def test_the_mean_moves_and_turns_with_the_chain(generator):
    x = torch.randn(9, 3, generator=generator)
    x[3:6] = torch.nan
    turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))
    moved = (x.double() @ turn + 50).float()
    torch.testing.assert_close(missing_law(moved).mean, missing_law(x).mean @ turn + 50, rtol=1e-5, atol=1e-4)


def test_draws_have_the_mean_and_the_variance_of_the_law(generator):
    chain = make_chain(length=7, gaps=(2, 3, 6))
    law = missing_law(chain.coordinates)
    draws = torch.stack([fill(chain, generator=generator).coordinates[[2, 3, 6]] for _ in range(500)]).double()
    spread = torch.cholesky_inverse(law.cholesky)
    error = (draws.mean(dim=0) - law.mean) / (spread.diagonal()[:, None] / 500).sqrt()
    assert error.abs().max() < 4
    deviation = (draws - law.mean).permute(0, 2, 1).reshape(-1, 3)  # the axes are independent
    seen = deviation.T @ deviation / len(deviation)
    bound = ((spread**2 + torch.outer(spread.diagonal(), spread.diagonal())) / len(deviation)).sqrt()
    assert ((seen - spread) / bound).abs().max() < 4


def test_filling_keeps_what_is_known():
    chain = make_chain(length=9, gaps=(0, 4, 5), cluster=3, numbers=torch.arange(5, 14), sequence="GGGGXXGGG")
    seeds = [torch.Generator().manual_seed(seed) for seed in (0, 0, 1)]
    one, same, other = (fill(chain, generator=each) for each in seeds)
    assert torch.equal(one.coordinates, same.coordinates)
    assert not torch.equal(one.coordinates, other.coordinates)
    assert torch.equal(one.coordinates[chain.known], chain.coordinates[chain.known])
    assert (one.missing, one.sequence, one.cluster, one.numbers[0]) == (0, "GGGGXXGGG", 3, 5)
    whole = make_chain()
    assert fill(whole, generator=seeds[0]) is whole
    both = fill_all(Chains([chain, whole]), generator=torch.Generator().manual_seed(0))
    assert torch.equal(both[0].coordinates, one.coordinates)


def test_nothing_known_cannot_be_filled(generator):
    chain = make_chain(gaps=(0, 1, 2, 3))
    with pytest.raises(DataError, match="needs a known residue to fill the others, a has none of 4"):
        fill(chain, generator=generator)
    with pytest.raises(DataError, match="got none of 4"):
        missing_law(chain.coordinates)
