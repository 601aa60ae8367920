"""Amino-acid sequences: letters to whole numbers, and what a user typed or keeps in a FASTA file."""

import gzip
import zlib
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Int, Int64
from torch import Tensor

from renorm.errors import DataError

__all__ = [
    "AMINO_ACIDS",
    "LETTERS",
    "LONGEST",
    "UNKNOWN",
    "Record",
    "decode",
    "encode",
    "parse_fasta",
    "parse_sequence",
    "read_fasta",
]

AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"
UNKNOWN = "X"
LETTERS = AMINO_ACIDS + UNKNOWN
"""The place of a letter is its number: 20 amino acids in alphabetical order, then X for any."""
LONGEST = 5000
"""Residues of the longest sequence that is taken unless a caller says otherwise."""

PARENTS = {"U": "C", "O": "K", "B": "X", "Z": "X", "J": "X"}
"""The other letters of the IUPAC code: selenocysteine and pyrrolysine, by what they are made of, and the ambiguous."""

_NUMBER = {letter: number for number, letter in enumerate(LETTERS)}


class Record(NamedTuple):
    """One entry of a FASTA file: the first word after ``>``, and its sequence."""

    name: str
    sequence: str


def encode(sequence: str) -> Int64[Tensor, " residues"]:
    """Letters as whole numbers: A is 0, Y is 19, X is 20.

    Args:
        sequence: Capital letters of the 20 amino acids and X.

    Raises:
        DataError: If a letter is none of these, with its position.

    Example:
        >>> encode("ACX")
        tensor([ 0,  1, 20])
    """
    require_letters(sequence, "the sequence")
    return torch.tensor([_NUMBER[letter] for letter in sequence], dtype=torch.int64)


def decode(numbers: Int[Tensor, " residues"]) -> str:
    """The letters of whole numbers: the inverse of `encode`.

    Raises:
        DataError: If a number is not in 0 ... 20.

    Example:
        >>> decode(torch.tensor([0, 1, 20]))
        'ACX'
    """
    values = numbers.tolist()
    for position, value in enumerate(values, start=1):
        if not 0 <= value < len(LETTERS):
            raise DataError(f"a residue must be in 0 ... {len(LETTERS) - 1}, got {value} at position {position}")
    return "".join(LETTERS[value] for value in values)


def require_letters(sequence: str, what: str) -> None:
    """Raise ``DataError`` with the first letter of ``what`` that is neither an amino acid nor X."""
    for position, letter in enumerate(sequence, start=1):
        if letter not in _NUMBER:
            raise DataError(
                f"residues must be letters of the 20 amino acids or X ({LETTERS}), got {letter!r} at position "
                f"{position} of {what}"
            )


def parse_sequence(text: str, *, longest: int = LONGEST, what: str = "the sequence") -> str:
    """A sequence that somebody typed, or one FASTA record, as letters of the 20 amino acids and X.

    Blanks, line breaks, and a last ``*`` (stop) are dropped and small letters made capital. U (selenocysteine) becomes
    C and O (pyrrolysine) K; B, Z and J, which leave a choice, become X.

    Args:
        text: Letters, or a record that begins with ``>``.
        longest: Most residues that are taken.
        what: Names the sequence in messages.

    Raises:
        DataError: If a letter is no residue (with its position among the letters), none is left, there are too many,
            or the text has several records.

    Example:
        >>> parse_sequence("mkv lu*")
        'MKVLC'
        >>> parse_sequence("MK1V")
        Traceback (most recent call last):
        renorm.errors.DataError: residues must be letters of the 20 amino acids or X (ACDEFGHIKLMNPQRSTVWYX), got '1' \
at position 3 of the sequence
    """
    if text.lstrip().startswith(">"):
        records = parse_fasta(text, longest=longest, what=what)
        if len(records) > 1:
            raise DataError(f"one sequence was expected in {what}, got {len(records)} records")
        return records[0].sequence
    letters = "".join(text.split()).upper().removesuffix("*")
    if not letters:
        raise DataError(f"a sequence needs at least one residue, {what} is empty")
    letters = "".join(PARENTS.get(letter, letter) for letter in letters)
    require_letters(letters, what)
    if len(letters) > longest:
        raise DataError(f"a sequence must have at most {longest} residues, got {len(letters)} in {what}")
    return letters


def parse_fasta(text: str, *, longest: int = LONGEST, what: str = "the FASTA text") -> list[Record]:
    """All records of a FASTA text.

    Args:
        text: Records of a line ``>name ...`` and lines of letters; lines that begin with ``;`` are remarks.
        longest: Most residues of a record.
        what: Names the text in messages.

    Raises:
        DataError: If letters come before the first name, there is no record, or `parse_sequence` refuses one.

    Example:
        >>> parse_fasta(">one\\nMKV\\nLA\\n>two\\nGG")
        [Record(name='one', sequence='MKVLA'), Record(name='two', sequence='GG')]
    """
    parts: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        if line.startswith(">"):
            parts.append((next(iter(line[1:].split()), f"sequence{len(parts) + 1}"), []))
        elif line.strip() and not line.startswith(";"):
            if not parts:
                raise DataError(f"a record begins with '>' and a name, got {line.strip()[:20]!r} first in {what}")
            parts[-1][1].append(line)
    if not parts:
        raise DataError(f"there is no record ('>' and a name) in {what}")
    return [
        Record(name, parse_sequence("".join(lines), longest=longest, what=f"'{name}' of {what}"))
        for name, lines in parts
    ]


def read_fasta(path: Path, *, longest: int = LONGEST) -> list[Record]:
    """All records of a FASTA file, which may be compressed (``.gz``).

    Args:
        path: The file.
        longest: Most residues of a record.

    Raises:
        DataError: If the file is absent or no text, or `parse_fasta` refuses it.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     file = Path(folder) / "mine.fasta"
        ...     _ = file.write_text(">mine\\nMKVL\\n")
        ...     read_fasta(file)
        [Record(name='mine', sequence='MKVL')]
    """
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix.lower() == ".gz" else data).decode("utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"there is no file {path}") from None
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}, which is truncated, damaged or no text: {error}") from None
    return parse_fasta(text, longest=longest, what=str(path))
