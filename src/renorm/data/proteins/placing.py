"""Where the residues of a file stand in their chain: numbering gaps, and the full sequence where it is known."""

from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float, Int

from renorm.errors import DataError

__all__ = ["BROKEN", "LONGEST_GAP", "broken_links", "complete_numbers", "place_by_numbers", "place_in_sequence"]

BROKEN = 4.5
"""Neighbouring C-alphas further apart than this, in angstrom, are not bonded: they are 3.8 apart, 2.9 if cis."""
LONGEST_GAP = 100
"""Longer jumps of the numbering join two proteins, or two ways to count, more often than they hide residues."""

TOLERATED = 0.05  # share of residues whose letter may differ from the full sequence
PRICE = 0.02  # of a gap one residue longer or shorter than the numbering says, in wrong letters
DEAREST = 20  # residues beyond which a gap that differs costs no more


def broken_links(coordinates: Float[np.ndarray, "residues 3"]) -> Bool[np.ndarray, " links"]:
    r"""Whether neighbour and neighbour are further apart than a bond allows, $|x_{i+1} - x_i| > 4.5$ Å.

    Args:
        coordinates: C-alphas, in angstrom; NaN where one is missing, whose two links count as whole.

    Returns:
        One truth value for each of the n - 1 links.

    Example:
        >>> broken_links(np.array([[0.0, 0, 0], [3.8, 0, 0], [9.0, 0, 0]]))
        array([False,  True])
    """
    return np.linalg.norm(np.diff(coordinates.astype(np.float64), axis=0), axis=1) > BROKEN


def place_by_numbers(
    numbers: Int[np.ndarray, " residues"], coordinates: Float[np.ndarray, "residues 3"]
) -> Int[np.ndarray, " residues"]:
    r"""Places of known residues, counted from 0, when only their numbers tell of the missing ones.

    $$ p_{i+1} - p_i = n_{i+1} - n_i \quad\text{where } |x_{i+1} - x_i| > 4.5\,\text{Å and } n_{i+1} - n_i > 1,
       \quad\text{else } 1 $$

    A jump of the numbers alone hides nothing: antibodies and proteases are counted along a reference, with numbers
    left out and numbers used twice. Nor is a jump of more than 100 filled.

    Args:
        numbers: Residue numbers of the file.
        coordinates: C-alphas, in angstrom; next to a missing one (NaN) the numbers are believed.

    Example:
        >>> x = np.array([[0.0, 0, 0], [3.8, 0, 0], [14.0, 0, 0], [17.8, 0, 0]])
        >>> place_by_numbers(np.array([7, 8, 12, 14]), x)
        array([0, 1, 5, 6])
    """
    return np.concatenate([[0], np.cumsum(_expected_gaps(numbers, coordinates) + 1)])


def place_in_sequence(
    letters: str,
    numbers: Int[np.ndarray, " residues"],
    coordinates: Float[np.ndarray, "residues 3"],
    full: str,
) -> Int[np.ndarray, " residues"]:
    """Places of known residues in the full sequence of their chain (SEQRES), counted from 0.

    The residues are cut into pieces wherever the chain is broken or the numbering jumps. Pieces keep their order and
    are laid along the sequence so that the fewest letters differ; among equals, so that the gaps between them are
    as long as the numbers say. An X, in either, fits any letter. The search is exact (dynamic programming over the
    place of each piece).

    Args:
        letters: Of the known residues.
        numbers: Of the known residues, in the file.
        coordinates: C-alphas of the known residues, in angstrom.
        full: The whole sequence.

    Raises:
        DataError: If more than one letter in twenty differs: the sequence is that of another chain.

    Example:
        >>> x = np.array([[0.0, 0, 0], [3.8, 0, 0], [14.0, 0, 0]])
        >>> place_in_sequence("AGA", np.array([5, 6, 9]), x, "AAGAKAG")
        array([1, 2, 5])
    """
    if len(letters) > len(full):
        raise DataError(f"a chain must not exceed its full sequence of {len(full)}, got {len(letters)} residues")
    jumps = broken_links(coordinates) | (np.diff(numbers) != 1)
    cuts = [0, *(np.flatnonzero(jumps) + 1).tolist(), len(letters)]
    gaps = _expected_gaps(numbers, coordinates)[np.array(cuts[1:-1], int) - 1]
    known, sequence = _as_bytes(letters), _as_bytes(full)
    places = _lay([known[start:stop] for start, stop in pairwise(cuts)], gaps, sequence)
    differ = int(_differs(known, sequence[places]).sum())
    if differ > max(1, TOLERATED * len(letters)):
        raise DataError(
            f"residues must agree with the full sequence of their chain (SEQRES, entity_poly), {differ} of "
            f"{len(letters)} differ"
        )
    return places


def complete_numbers(
    numbers: Int[np.ndarray, " known"], places: Int[np.ndarray, " known"], length: int
) -> Int[np.ndarray, " residues"]:
    """Numbers of all residues: missing ones count on from the known one before them, or back from the first.

    Example:
        >>> complete_numbers(np.array([7, 12]), np.array([1, 3]), 5)
        array([ 6,  7,  8, 12, 13])
    """
    every = np.arange(length)
    last = np.maximum(np.searchsorted(places, every, side="right") - 1, 0)
    return numbers[last].astype(np.int64) + every - places[last]


def _expected_gaps(numbers: np.ndarray, coordinates: np.ndarray) -> np.ndarray:
    """How many residues are missing in each link, by the numbers."""
    jump = np.diff(numbers.astype(np.int64)) - 1
    unknown = np.isnan(coordinates).any(axis=1)
    apart = broken_links(coordinates) | unknown[1:] | unknown[:-1]
    return np.where(apart & (jump > 0) & (jump <= LONGEST_GAP), jump, 0)


def _lay(pieces: list[np.ndarray], gaps: np.ndarray, sequence: np.ndarray) -> np.ndarray:
    """Places of all letters of ``pieces``, which come one after the other; ``gaps`` are expected between them."""
    size = len(sequence)
    place = np.arange(size + 1)
    ahead = place[None, :] - place[:, None]  # from the place that is free to the place where a piece begins
    arrive, origins = np.zeros(size + 1), [place]
    cost = arrive
    for index, piece in enumerate(pieces):
        if index:
            price = PRICE * np.minimum(np.abs(ahead - gaps[index - 1]), DEAREST)
            total = np.where(ahead >= 0, cost[:, None] + price, np.inf)
            origins.append(total.argmin(axis=0))
            arrive = total.min(axis=0)
        windows = np.lib.stride_tricks.sliding_window_view(sequence, len(piece))
        cost = np.full(size + 1, np.inf)
        cost[len(piece) :] = arrive[: len(windows)] + _differs(windows, piece).sum(axis=1)
    end = int(cost.argmin())
    laid = []
    for piece, origin in zip(reversed(pieces), reversed(origins), strict=True):
        laid.append(np.arange(end - len(piece), end))
        end = int(origin[end - len(piece)])
    return np.concatenate(laid[::-1])


def _differs(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    unknown = ord("X")
    return (one != other) & (one != unknown) & (other != unknown)


def _as_bytes(letters: str) -> np.ndarray:
    return np.frombuffer(letters.encode("ascii"), np.uint8)
