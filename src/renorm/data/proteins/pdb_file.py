"""Chains as PDB files, which every viewer opens: C-alphas, an ensemble as models, its spread as B-factors."""

import math

from jaxtyping import Float
from torch import Tensor

from renorm.data.proteins.sequence import require_letters
from renorm.errors import DataError

__all__ = ["b_factors", "pdb_text"]

NAMES = {
    "A": "ALA", "C": "CYS", "D": "ASP", "E": "GLU", "F": "PHE", "G": "GLY", "H": "HIS", "I": "ILE", "K": "LYS",
    "L": "LEU", "M": "MET", "N": "ASN", "P": "PRO", "Q": "GLN", "R": "ARG", "S": "SER", "T": "THR", "V": "VAL",
    "W": "TRP", "Y": "TYR", "X": "UNK",
}  # fmt: skip
MOST = 9999  # residues, models: the format has four columns
LARGEST = 999.99  # B-factor that its six columns hold


def b_factors(spread: Float[Tensor, " residues"]) -> Float[Tensor, " residues"]:
    r"""$B = 8\pi^2 u^2 / 3$ of residues that are spread by $u$, their root mean square displacement in space.

    Args:
        spread: u, in angstrom.

    Returns:
        In square angstrom, cut off at the largest number that the format holds.

    Source: Willis & Pryor, Thermal Vibrations in Crystallography (1975).

    Example:
        >>> import torch
        >>> b_factors(torch.tensor([1.0])).round(decimals=2)
        tensor([26.3200])
    """
    return (8 * math.pi**2 / 3 * spread.square()).clamp(max=LARGEST)


def pdb_text(
    x: Float[Tensor, "models residues 3"],
    sequence: str,
    *,
    b: Float[Tensor, " residues"] | None = None,
    title: str = "",
) -> str:
    """Chains of one sequence as the text of a PDB file, a model each.

    Args:
        x: C-alphas, in angstrom.
        sequence: One letter a residue.
        b: B-factors, in square angstrom; 0 if not given.
        title: One line for people.

    Raises:
        DataError: If the format cannot hold it: too many residues or models, or coordinates of five digits.

    Example:
        >>> import torch
        >>> print(pdb_text(torch.zeros(1, 1, 3), "M"))
        MODEL        1
        ATOM      1  CA  MET A   1       0.000   0.000   0.000  1.00  0.00           C
        TER       2      MET A   1
        ENDMDL
        END
    """
    require_letters(sequence, "the sequence")
    models, residues = x.shape[:2]
    if len(sequence) != residues:
        raise DataError(f"{residues} residues need as many letters, got {len(sequence)}")
    if max(models, residues) > MOST:
        raise DataError(f"a PDB file holds {MOST} models of {MOST} residues at most, got {models} of {residues}")
    if not bool((x.abs() < 9999).all()):
        raise DataError("coordinates in a PDB file must be finite and of four digits; centre the chain")
    factors = [0.0] * residues if b is None else b.tolist()
    lines = [f"TITLE     {title[:70]}"] if title else []
    for m, model in enumerate(x.tolist()):
        lines.append(f"MODEL     {m + 1:4d}")
        for i, ((px, py, pz), letter) in enumerate(zip(model, sequence, strict=True)):
            place = f"{NAMES[letter]} A{i + 1:4d}    {px:8.3f}{py:8.3f}{pz:8.3f}"
            lines.append(f"ATOM  {i + 1:5d}  CA  {place}  1.00{min(factors[i], LARGEST):6.2f}           C")
        lines += [f"TER   {residues + 1:5d}      {NAMES[sequence[-1]]} A{residues:4d}", "ENDMDL"]
    return "\n".join([*lines, "END"])
