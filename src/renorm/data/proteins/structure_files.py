"""PDB and mmCIF files become chains of C-alphas; gemmi parses them."""

import gzip
import math
import zlib
from collections.abc import Iterator
from datetime import date
from importlib import import_module
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from renorm.data.proteins.chains import Chain, Chains
from renorm.data.proteins.sequence import LETTERS, PARENTS, UNKNOWN, parse_sequence
from renorm.errors import DataError

__all__ = ["MMCIF", "PDB", "read_chain", "read_structure", "without_suffix"]

PDB = (".pdb", ".ent")
MMCIF = (".cif", ".mmcif")

_DAMAGED = (OSError, EOFError, ValueError, RuntimeError, IndexError, zlib.error)
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")


class _Residue(NamedTuple):
    letter: str
    number: int
    point: tuple[float, float, float]
    place: int | None  # in the full sequence, from 1, where the file says it


class _Parsed(NamedTuple):
    """A file as gemmi gives it, and what is read beside it."""

    structure: Any
    sequences: dict[str, list[str]]  # names of the residues of each entity, as listed
    released: date | None


def read_structure(path: Path, *, chain: str | None = None, model: int = 1, name: str | None = None) -> Chains:
    """Every protein chain of a structure file.

    Of residues with alternative locations, the one of highest occupancy is taken, the first among equals. Modified
    residues get the letter of their parent (MSE: M). Waters, ligands, nucleic acids and caps of chains are left out.
    Missing residues are NaN: those that the full sequence (SEQRES, entity_poly) has and the atoms have not, and where
    the file has no sequence, those that numbers skip while the chain is broken (see `renorm.data.proteins.placing`).

    Args:
        path: Ends in ``.pdb``, ``.ent``, ``.cif`` or ``.mmcif``, or one of these and ``.gz``.
        chain: Name of the one that is wanted (the author's, as in a PDB file; ``"_"`` if it is blank); ``None``: all.
        model: Which of several models, counted from 1.
        name: Of the structure; a chain is called ``NAME.CHAIN``. ``None`` takes the file's.

    Raises:
        DataError: If gemmi is not installed, the file is absent, truncated or of another format, has no such model or
            chain, or no C-alpha, or its atoms are not of its sequence.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> line = "ATOM      1  CA  MSE A   1       1.000   2.000   3.000  1.00 20.00           C"
        >>> with TemporaryDirectory() as folder:
        ...     file = Path(folder) / "mine.pdb"
        ...     _ = file.write_text(line)
        ...     chain = read_structure(file)[0]
        >>> chain.name, chain.sequence, chain.coordinates
        ('mine.A', 'M', tensor([[1., 2., 3.]]))
    """
    gemmi = library(path)
    stem, suffix = without_suffix(path)
    text = _read_text(path)
    try:
        parsed = _parse_pdb(gemmi, text) if suffix in PDB else _parse_mmcif(gemmi, text)
    except _DAMAGED as error:
        raise _damaged(path, error) from None
    models = list(parsed.structure)
    if models and not 1 <= model <= len(models):
        raise DataError(f"model must be in 1 ... {len(models)}, got {model} for {path}")
    found = dict(_protein_chains(gemmi, models[model - 1])) if models else {}
    if chain is not None and found and chain not in found:
        raise DataError(f"{path} has no protein chain '{chain}', only {', '.join(found)}")
    if not found:
        raise DataError(f"{path} has no C-alpha atom of a protein")
    try:
        return Chains(
            _chain(gemmi, f"{name or stem}.{key}", found[key], parsed) for key in (found if chain is None else [chain])
        )
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def read_chain(path: Path, *, chain: str | None = None, model: int = 1, name: str | None = None) -> Chain:
    """The one protein chain of a structure file, or the one that is named.

    Args:
        path: As for `read_structure`.
        chain: Its name; needed if there are several.
        model: Which of several models, counted from 1.
        name: Of the structure.

    Raises:
        DataError: As for `read_structure`, or if several chains are there and none is named.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> line = "ATOM      1  CA  GLY {}   1       1.000   2.000   3.000  1.00 20.00           C"
        >>> with TemporaryDirectory() as folder:
        ...     file = Path(folder) / "mine.pdb"
        ...     _ = file.write_text("\\n".join(line.format(chain) for chain in "AB"))
        ...     read_chain(file, chain="B").name
        'mine.B'
    """
    chains = read_structure(path, chain=chain, model=model, name=name)
    if len(chains) > 1:
        names = ", ".join(each.name.rsplit(".", 1)[1] for each in chains)
        raise DataError(f"one chain was expected in {path}, got {names}; name the one to read")
    return chains[0]


def without_suffix(path: Path) -> tuple[str, str]:
    """Name and format of a structure file: ``1abc.cif.gz`` is ``("1abc", ".cif")``.

    Raises:
        DataError: If the name does not end as one.

    Example:
        >>> without_suffix(Path("pdb/1ABC.ent.gz"))
        ('1ABC', '.ent')
    """
    plain = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    if plain.suffix.lower() not in PDB + MMCIF:
        raise DataError(f"a structure file ends in {', '.join(PDB + MMCIF)} (or these and .gz), got {str(path)!r}")
    return plain.stem, plain.suffix.lower()


def _read_text(path: Path) -> str:
    try:
        data = path.read_bytes()
        # Latin-1 reads any byte: names of authors come in every encoding, atoms are ASCII.
        return (gzip.decompress(data) if path.suffix.lower() == ".gz" else data).decode("latin-1")
    except FileNotFoundError:
        raise DataError(f"there is no file {path}") from None
    except _DAMAGED as error:
        raise _damaged(path, error) from None


def _parse_pdb(gemmi: Any, text: str) -> _Parsed:
    days = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.startswith(("ATOM  ", "HETATM")):
            _require_numbers(line, number)
        elif line.startswith("REVDAT"):
            days.append(_pdb_date(line[13:22]))
    structure = gemmi.read_pdb_string(text)
    structure.setup_entities()
    sequences = {entity.name: list(entity.full_sequence) for entity in structure.entities if entity.full_sequence}
    for model in structure:
        for chain in model:
            entity = structure.get_entity_of(chain.get_polymer())
            for residue in chain:
                residue.entity_id = entity.name if entity else ""
    return _Parsed(structure, sequences, min((day for day in days if day), default=None))


def _require_numbers(line: str, number: int) -> None:
    # gemmi reads a coordinate that is no number as far as it goes, and 0 otherwise.
    fields = (line[30:38], line[38:46], line[46:54])
    try:
        good = all(math.isfinite(float(field)) for field in fields)
    except ValueError:
        good = False
    if not good:
        raise ValueError(f"x, y, z of line {number} must be three numbers, got {' '.join(fields).strip()!r}")


def _pdb_date(text: str) -> date | None:
    """``03-AUG-22`` as a date; the Protein Data Bank began in 1971."""
    try:
        day, month, year = text.strip().split("-")
        return date(int(year) + (1900 if int(year) >= 70 else 2000), _MONTHS.index(month.upper()) + 1, int(day))
    except ValueError:
        return None


def _parse_mmcif(gemmi: Any, text: str) -> _Parsed:
    document = gemmi.cif.read_string(text)
    blocks = [block for block in document if len(block.find_values("_atom_site.Cartn_x"))]
    if not blocks:
        raise ValueError("it has no atoms (_atom_site)")
    block = blocks[0]
    structure = gemmi.make_structure_from_block(block)
    structure.setup_entities()
    days = [
        _iso_date(gemmi.cif.as_string(text)) for text in block.find_values("_pdbx_audit_revision_history.revision_date")
    ]
    return _Parsed(structure, _mmcif_sequences(gemmi, block), min((day for day in days if day), default=None))


def _iso_date(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def _mmcif_sequences(gemmi: Any, block: Any) -> dict[str, list[str]]:
    """Of each entity: by residue names where they are listed, else by letters."""
    sequences: dict[str, list[str]] = {}
    for row in block.find("_entity_poly.", ["entity_id", "pdbx_seq_one_letter_code_can"]):
        try:
            letters = parse_sequence(row.str(1))
        except DataError:
            continue  # of a nucleic acid, or not given
        sequences[row.str(0)] = [gemmi.expand_one_letter(letter, gemmi.ResidueKind.AA) or "UNK" for letter in letters]
    listed: dict[str, dict[int, str]] = {}
    for row in block.find("_entity_poly_seq.", ["entity_id", "num", "mon_id"]):
        listed.setdefault(row.str(0), {}).setdefault(int(row.str(1)), row.str(2))
    for entity, residues in listed.items():
        sequences[entity] = [residues.get(number, "UNK") for number in range(1, max(residues) + 1)]
    return sequences


def _protein_chains(gemmi: Any, model: Any) -> Iterator[tuple[str, list[Any]]]:
    """Name and polymer residues of each chain that has a C-alpha."""
    for chain in model:
        residues = [residue for residue in chain if residue.entity_type == gemmi.EntityType.Polymer]
        residues = [residue for residue in residues if _c_alphas(gemmi, residue) or _is_residue(gemmi, residue.name)]
        if any(_c_alphas(gemmi, residue) for residue in residues):
            yield chain.name.strip() or "_", residues


def _chain(gemmi: Any, name: str, polymer: list[Any], parsed: _Parsed) -> Chain:
    residues = [
        _most_occupied(gemmi, list(group))
        for _, group in groupby(polymer, key=lambda residue: (residue.seqid.num, residue.seqid.icode))
    ]
    listed = parsed.sequences.get(polymer[0].entity_id)
    full, places = None, None
    if listed is not None:
        # Caps, such as ACE, are listed and are no residues.
        kept = [place for place, monomer in enumerate(listed, start=1) if _is_residue(gemmi, monomer)]
        full = "".join(_letter(gemmi, listed[place - 1]) for place in kept)
        where = {place: index for index, place in enumerate(kept)}
        given = [where.get(residue.place or 0, -1) for residue in residues]
        if given[0] >= 0 and (np.diff(given) > 0).all():
            places = np.array(given)
    return Chain.from_residues(
        name,
        "".join(residue.letter for residue in residues),
        np.array([residue.point for residue in residues]),
        np.array([residue.number for residue in residues]),
        full=full,
        places=places,
        released=parsed.released,
    )


def _most_occupied(gemmi: Any, versions: list[Any]) -> _Residue:
    """Of the residues and locations that share a number, the one that is there most often."""
    atoms = [(atom, residue) for residue in versions for atom in _c_alphas(gemmi, residue)]
    if not atoms:
        missing = (math.nan, math.nan, math.nan)
        return _Residue(_letter(gemmi, versions[0].name), versions[0].seqid.num, missing, versions[0].label_seq)
    atom, residue = max(atoms, key=lambda pair: pair[0].occ)
    point = (atom.pos.x, atom.pos.y, atom.pos.z)
    if not all(map(math.isfinite, point)):
        raise DataError(f"x, y, z of a C-alpha must be three numbers, got {point} in residue {residue.seqid}")
    return _Residue(_letter(gemmi, residue.name), residue.seqid.num, point, residue.label_seq)


def _c_alphas(gemmi: Any, residue: Any) -> list[Any]:
    carbon = gemmi.Element("C")  # CA is calcium's name too
    return [atom for atom in residue if atom.name == "CA" and atom.element == carbon]


def _is_residue(gemmi: Any, monomer: str) -> bool:
    """Whether a monomer is an amino acid, or one that gemmi's table does not know."""
    entry = gemmi.find_tabulated_residue(monomer.split(",")[0])
    return entry.is_amino_acid() or entry.kind == gemmi.ResidueKind.UNKNOWN


def _letter(gemmi: Any, monomer: str) -> str:
    """One letter of a residue; gemmi's table has the parents of modified ones as small letters."""
    code = gemmi.find_tabulated_residue(monomer.split(",")[0]).one_letter_code.upper()
    code = PARENTS.get(code, code)
    return code if code and code in LETTERS else UNKNOWN


def library(path: Path) -> Any:
    """gemmi, or ``DataError`` with the way to install it."""
    try:
        return import_module("gemmi")
    except ImportError:
        raise DataError(f"reading {path} needs gemmi: pip install 'renorm[protein]'") from None


def _damaged(path: Path, error: BaseException) -> DataError:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return DataError(f"cannot read {path}, which is truncated, damaged or of another format: {reason}")
