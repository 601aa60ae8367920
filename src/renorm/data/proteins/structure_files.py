"""PDB and mmCIF files become chains of C-alphas; gemmi parses them."""

import gzip
import math
import zlib
from importlib import import_module
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from renorm.data.proteins.chains import Chain, Chains
from renorm.data.proteins.sequence import LETTERS, PARENTS, UNKNOWN
from renorm.data.proteins.structure_text import CLASHING, Parsed, parse_mmcif, parse_pdb
from renorm.errors import DataError, StructureError

__all__ = ["ABSENT", "MMCIF", "PDB", "read_chain", "read_structure", "without_suffix"]

PDB = (".pdb", ".ent")
MMCIF = (".cif", ".mmcif")

_DAMAGED = (OSError, EOFError, ValueError, RuntimeError, IndexError, zlib.error)
_BROKEN = "truncated, damaged or of another format"
ABSENT = "files that cannot be opened"
_EMPTY = "no C-alpha atom of a protein"
_FOREIGN = "residues that are not of the full sequence"


class _Residue(NamedTuple):
    letter: str
    number: int
    point: tuple[float, float, float]
    place: int | None  # in the full sequence, from 1, where the file says it
    modified: bool = False


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
        StructureError: If the file is absent, truncated or of another format, has no C-alpha, two chains under one
            name, or residues that are not of its sequence.
        DataError: If gemmi is not installed, or the file has no such model or chain.

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
        parsed = parse_pdb(gemmi, text) if suffix in PDB else parse_mmcif(gemmi, text)
    except StructureError as error:
        raise StructureError(f"{path}: {error}", error.kind) from None
    except _DAMAGED as error:
        raise _damaged(path, error) from None
    models = list(parsed.structure)
    if models and not 1 <= model <= len(models):
        raise DataError(f"model must be in 1 ... {len(models)}, got {model} for {path}")
    found = _protein_chains(gemmi, models[model - 1], path) if models else {}
    if chain is not None and found and chain not in found:
        raise DataError(f"{path} has no protein chain '{chain}', only {', '.join(found)}")
    if not found:
        raise StructureError(f"{path} has {_EMPTY}", _EMPTY)
    try:
        return Chains(
            _chain(gemmi, f"{name or stem}.{key}", found[key], parsed) for key in (found if chain is None else [chain])
        )
    except DataError as error:
        raise StructureError(f"{path}: {error}", getattr(error, "kind", _FOREIGN)) from None


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
        raise StructureError(f"there is no file {path}", ABSENT) from None
    except _DAMAGED as error:
        if isinstance(error, OSError) and error.errno is not None:  # gzip's own errors have no number
            raise StructureError(f"cannot open {path}: {error.strerror}", ABSENT) from None
        raise _damaged(path, error) from None


def _protein_chains(gemmi: Any, model: Any, path: Path) -> dict[str, list[Any]]:
    """Name and polymer residues of each chain that has a C-alpha."""
    found: dict[str, list[Any]] = {}
    for chain in model:
        residues = [residue for residue in chain if residue.entity_type == gemmi.EntityType.Polymer]
        residues = [residue for residue in residues if _c_alphas(gemmi, residue) or _is_residue(gemmi, residue.name)]
        if any(_c_alphas(gemmi, residue) for residue in residues):
            # In a PDB file a chain may go on after another one.
            found.setdefault(chain.name.strip() or "_", []).extend(residues)
    for name, residues in found.items():
        if len({residue.subchain for residue in residues}) > 1:
            raise StructureError(f"{path} has {CLASHING}, '{name}'; give each its own", CLASHING)
    return found


def _chain(gemmi: Any, name: str, polymer: list[Any], parsed: Parsed) -> Chain:
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
        modified=sum(residue.modified for residue in residues),
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
        message = f"x, y, z of a C-alpha must be three numbers, got {point} in residue {residue.seqid}"
        raise StructureError(message, _BROKEN)
    modified = _code(gemmi, residue.name) not in LETTERS and _letter(gemmi, residue.name) != UNKNOWN
    return _Residue(_letter(gemmi, residue.name), residue.seqid.num, point, residue.label_seq, modified)


def _c_alphas(gemmi: Any, residue: Any) -> list[Any]:
    carbon = gemmi.Element("C")  # CA is calcium's name too
    return [atom for atom in residue if atom.name == "CA" and atom.element == carbon]


def _is_residue(gemmi: Any, monomer: str) -> bool:
    """Whether a monomer is an amino acid, or one that gemmi's table does not know."""
    entry = gemmi.find_tabulated_residue(monomer.split(",")[0])
    return entry.is_amino_acid() or entry.kind == gemmi.ResidueKind.UNKNOWN


def _letter(gemmi: Any, monomer: str) -> str:
    """One letter of a residue, of its parent if it is modified."""
    code = _code(gemmi, monomer).upper()
    code = PARENTS.get(code, code)
    return code if code and code in LETTERS else UNKNOWN


def _code(gemmi: Any, monomer: str) -> str:
    """As gemmi's table has it: the parents of modified residues as small letters."""
    return str(gemmi.find_tabulated_residue(monomer.split(",")[0]).one_letter_code)


def library(path: Path) -> Any:
    """gemmi, or ``DataError`` with the way to install it."""
    try:
        return import_module("gemmi")
    except ImportError:
        raise DataError(f"reading {path} needs gemmi: pip install 'renorm[protein]'") from None


def _damaged(path: Path, error: BaseException) -> StructureError:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return StructureError(f"cannot read {path}, which is {_BROKEN}: {reason}", _BROKEN)
