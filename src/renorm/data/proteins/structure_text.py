"""The text of PDB and mmCIF files through gemmi, and what gemmi passes over: numbers that are none, files cut short."""

import math
from collections.abc import Iterable
from datetime import date
from typing import Any, NamedTuple

from renorm.data.proteins.sequence import parse_sequence
from renorm.errors import DataError, StructureError

__all__ = ["CLASHING", "Parsed", "parse_mmcif", "parse_pdb"]

CLASHING = "two chains under one name"
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_ATOM = ("ATOM  ", "HETATM")


class Parsed(NamedTuple):
    """A file as gemmi gives it, and what is read beside it."""

    structure: Any
    sequences: dict[str, list[str]]  # names of the residues of each entity, as listed
    released: date | None


def parse_pdb(gemmi: Any, text: str) -> Parsed:
    """The text of a PDB file.

    Raises:
        ValueError: If a coordinate is no number, or the text breaks off.
        StructureError: If a residue of a chain comes twice: gemmi would make one chain of two.
    """
    lines = text.splitlines()
    days = []
    atoms: set[str] = set()
    for number, line in enumerate(lines, start=1):
        if line.startswith(_ATOM):
            _require_numbers(line, number)
            _require_new(line, number, atoms)
        elif line.startswith("REVDAT"):
            days.append(_pdb_date(line[13:22]))
        elif line.startswith(("MODEL ", "ENDMDL")):
            atoms.clear()
        elif line.rstrip() == "END":  # gemmi reads no further
            break
    _require_end(lines, whole_line=text.endswith("\n"))
    structure = gemmi.read_pdb_string(text)
    structure.setup_entities()
    sequences = {entity.name: list(entity.full_sequence) for entity in structure.entities if entity.full_sequence}
    for model in structure:
        for chain in model:
            entity = structure.get_entity_of(chain.get_polymer())
            for residue in chain:
                residue.entity_id = entity.name if entity else ""
    return Parsed(structure, sequences, _first(days))


def _require_numbers(line: str, number: int) -> None:
    # gemmi reads a coordinate that is no number as far as it goes, and 0 otherwise.
    fields = (line[30:38], line[38:46], line[46:54])
    try:
        good = all(math.isfinite(float(field)) for field in fields)
    except ValueError:
        good = False
    if not good:
        raise ValueError(f"x, y, z of line {number} must be three numbers, got {' '.join(fields).strip()!r}")


def _require_new(line: str, number: int, atoms: set[str]) -> None:
    """Each C-alpha once: by its alternative location (column 17), chain and number (21 to 27)."""
    if line[12:16] != " CA ":
        return
    atom = line[16] + line[20:27]
    if atom in atoms:
        chain, residue = line[20:22].strip() or "_", line[22:27].strip()
        raise StructureError(
            f"a residue comes once in a chain, {residue} of chain '{chain}' comes again in line {number} "
            f"({CLASHING}? give each its own)",
            CLASHING,
        )
    atoms.add(atom)


def _require_end(lines: list[str], *, whole_line: bool) -> None:
    """Raise ``ValueError`` where the text breaks off: in a line, in a model, or before the end that the format demands.

    Programs that write atoms alone often leave out END; those that also write the sequence do not.
    """
    if any(line.rstrip() == "END" for line in lines):
        return
    last = lines[-1] if lines else ""
    atoms = [line for line in lines[-10:] if line.startswith(_ATOM)]
    if last and not whole_line and (len(last) < len("TER") or _is_cut(last, atoms)):
        raise ValueError(f"its last line breaks off, {last[:30]!r}")
    opened = sum(line.startswith("MODEL ") for line in lines)
    if opened > sum(line.startswith("ENDMDL") for line in lines):
        raise ValueError("it ends within a model: ENDMDL and END are missing")
    if any(line.startswith("SEQRES") for line in lines):
        raise ValueError("it ends without END")


def _is_cut(last: str, atoms: list[str]) -> bool:
    if last in atoms:
        return len(atoms) > 1 and len(last) < len(atoms[-2].rstrip())
    return any(name.startswith(last) and name != last for name in ("ATOM", "HETATM", "ANISOU"))


def _pdb_date(text: str) -> date | None:
    """``03-AUG-22`` as a date; the Protein Data Bank began in 1971."""
    try:
        day, month, year = text.strip().split("-")
        return date(int(year) + (1900 if int(year) >= 70 else 2000), _MONTHS.index(month.upper()) + 1, int(day))
    except ValueError:
        return None


def parse_mmcif(gemmi: Any, text: str) -> Parsed:
    """The text of an mmCIF file.

    Raises:
        ValueError: If there are no atoms, a loop has no full row, or the text breaks off. (gemmi's own errors too.)
    """
    document = gemmi.cif.read_string(text)
    blocks = [block for block in document if len(block.find_values("_atom_site.Cartn_x"))]
    if not blocks:
        raise ValueError("it has no atoms (_atom_site)")
    block = blocks[0]
    sequences = _mmcif_sequences(gemmi, block)
    if sequences and "\n#" in text and not text.rstrip().endswith("\n#"):
        # Archives and modelling programs close every category with this line, the last one too.
        raise ValueError("its last category is not closed (#)")
    structure = gemmi.make_structure_from_block(block)
    structure.setup_entities()
    days = [
        _iso_date(gemmi.cif.as_string(text)) for text in block.find_values("_pdbx_audit_revision_history.revision_date")
    ]
    return Parsed(structure, sequences, _first(days))


def _first(days: Iterable[date | None]) -> date | None:
    return min((day for day in days if day), default=None)


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
