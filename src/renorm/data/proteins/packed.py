"""Packed sets of chains: many proteins in one ``.npz`` file, N, C-alpha and C as whole 1/1000 of an angstrom."""

from pathlib import Path

import numpy as np

from renorm.data.npz import read_npz
from renorm.data.proteins.chains import Chain, Chains
from renorm.data.proteins.storage import check_offsets, to_date
from renorm.data.store import roots
from renorm.errors import DataError

__all__ = ["find", "load", "read_packed"]

NEEDED = ("name", "sequence", "offsets", "backbone_mA", "residue_number")
C_ALPHA = 1  # place among the atoms N, C-alpha, C
MILLI = 1000  # units of backbone_mA in an angstrom


def find(name: str) -> Path | None:
    """Where the packed set ``proteins/NAME.npz`` lies: in ``RENORM_DATA``, beside the project, or in the cache.

    Args:
        name: ``"train"`` (864 chains in clusters of similar ones), ``"cameo2022"`` (183 targets of a contest), or the
            name of another file of the same layout.

    Raises:
        DataError: If ``RENORM_DATA`` is set and names no folder.

    Example:
        >>> find("no-such-set") is None
        True
    """
    paths = (root / "proteins" / f"{name}.npz" for root in roots())
    return next((path for path in paths if path.is_file()), None)


def load(name: str) -> Chains:
    """The chains of a packed set, found by name.

    Args:
        name: As for `find`.

    Raises:
        DataError: If there is no such file, or `read_packed` refuses it.

    Example:
        >>> load("no-such-set")
        Traceback (most recent call last):
        renorm.errors.DataError: there is no proteins/no-such-set.npz; set RENORM_DATA to the folder that has it
    """
    path = find(name)
    if path is None:
        raise DataError(f"there is no proteins/{name}.npz; set RENORM_DATA to the folder that has it")
    return read_packed(path)


def read_packed(path: Path) -> Chains:
    """The C-alphas of a packed file, with missing residues put in as NaN.

    ================  ==================================================================================
    array             what it holds
    ================  ==================================================================================
    name              of each chain
    sequence          one text of all chains, end to end, cut by ``offsets`` as the next two are
    backbone_mA       (residues, 3, 3): atoms N, C-alpha, C as whole 1/1000 of an angstrom
    residue_number    as the source counts
    offsets           where chains begin, and the end of the last
    cluster           of similar chains, if known
    seqres            the full sequence of each chain, if known
    release_date      of each chain as 2022-08-03, if known
    ================  ==================================================================================

    Where ``seqres`` is known, residues are placed in it. Elsewhere a jump of the residue numbers is missing residues,
    letter X, if the chain is broken there too (see `renorm.data.proteins.placing`).

    Raises:
        DataError: If the file is absent or damaged, lacks an array, or its arrays do not belong together.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> atoms = np.zeros((3, 3, 3), np.int32)
        >>> atoms[:, 1, 0] = 0, 3800, 9800
        >>> arrays = {"name": ["a"], "sequence": "MKL", "offsets": [0, 3], "backbone_mA": atoms}
        >>> with TemporaryDirectory() as folder:
        ...     np.savez(Path(folder) / "set.npz", residue_number=[1, 2, 4], **arrays)
        ...     chain = read_packed(Path(folder) / "set.npz")[0]
        >>> chain.sequence, chain.coordinates[:, 0]
        ('MKXL', tensor([0.0000, 3.8000,    nan, 9.8000]))
    """
    arrays = read_npz(path)
    missing = [key for key in NEEDED if key not in arrays]
    if missing:
        raise DataError(f"{path} must hold an array '{missing[0]}', got {', '.join(arrays) or 'no array'}")
    sequence, atoms, numbers = str(arrays["sequence"]), arrays["backbone_mA"], arrays["residue_number"]
    number = len(np.atleast_1d(arrays["name"]))
    try:
        check_offsets(arrays["offsets"], number, len(sequence))
    except DataError as error:
        raise DataError(f"{error} in {path}") from None
    if atoms.shape != (len(sequence), 3, 3) or atoms.dtype.kind not in "iu":
        raise DataError(f"backbone_mA must be whole numbers ({len(sequence)}, 3, 3), got {atoms.shape} in {path}")
    if numbers.shape != (len(sequence),) or numbers.dtype.kind not in "iu":
        raise DataError(f"residue_number must be {len(sequence)} whole numbers, got {numbers.shape} in {path}")
    for key in ("cluster", "seqres", "release_date"):
        if key in arrays and arrays[key].shape != (number,):
            raise DataError(f"{key} must have an entry for each of {number} chains, got {arrays[key].shape} in {path}")
    x = atoms[:, C_ALPHA] / MILLI
    cuts = zip(arrays["offsets"][:-1].tolist(), arrays["offsets"][1:].tolist(), strict=True)
    return Chains(
        Chain.from_residues(
            str(arrays["name"][index]),
            sequence[start:stop],
            x[start:stop],
            numbers[start:stop],
            full=str(arrays["seqres"][index]) if "seqres" in arrays else None,
            released=to_date(str(arrays["release_date"][index])) if "release_date" in arrays else None,
            cluster=int(arrays["cluster"][index]) if "cluster" in arrays else None,
        )
        for index, (start, stop) in enumerate(cuts)
    )
