"""Chains of C-alpha atoms in memory: a protein as a curve, with gaps where residues were not seen."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import overload

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from renorm.data.proteins.placing import broken_links, complete_numbers, place_by_numbers, place_in_sequence
from renorm.data.proteins.sequence import UNKNOWN, require_letters
from renorm.errors import DataError

__all__ = ["Chain", "Chains"]


@dataclass(frozen=True, eq=False)
class Chain:
    r"""One protein chain: a letter and a point in space for each residue.

    Args:
        name: Where it comes from, such as ``"1abc.A"``.
        sequence: One letter a residue, of the 20 amino acids and X.
        coordinates: C-alphas as float32, in angstrom; three NaN where the atom is missing.
        numbers: Of the residues, as their file counts; ``None`` counts from 1.
        released: Date on which the structure was published.
        cluster: Which chains it is similar to: chains of one cluster belong to one split.
        modified: How many residues were seen as modified ones, and have the letter of their parent.

    Raises:
        DataError: If there is no residue, letters, points and numbers differ in count, a letter is no residue, a point
            is partly missing or infinite, or the cluster is negative.

    Example:
        >>> x = torch.tensor([[0.0, 0, 0], [3.8, 0, 0], [torch.nan] * 3, [11.4, 0, 0], [17, 0, 0]])
        >>> chain = Chain("mine", "MKVLA", x)
        >>> len(chain), chain.missing, chain.breaks, chain.unbroken
        (5, 1, 1, False)
    """

    name: str
    sequence: str
    coordinates: Float[Tensor, "residues 3"]
    numbers: Int64[Tensor, " numbers"] | None = None
    released: date | None = None
    cluster: int | None = None
    modified: int = 0

    def __post_init__(self) -> None:
        length, x = len(self.sequence), self.coordinates
        if not length:
            raise DataError(f"a chain needs at least one residue, {self.name} is empty")
        require_letters(self.sequence, self.name)
        if x.dtype != torch.float32:
            raise DataError(f"coordinates must be float32, got {x.dtype} in {self.name}")
        if tuple(x.shape) != (length, 3):
            raise DataError(f"{length} residues need coordinates ({length}, 3), got {tuple(x.shape)} in {self.name}")
        if self.numbers is not None and len(self.numbers) != length:
            raise DataError(f"{length} residues need as many numbers, got {len(self.numbers)} in {self.name}")
        known = torch.isfinite(x).all(dim=1)
        wrong = ~known & ~torch.isnan(x).all(dim=1)
        if wrong.any():
            place = int(wrong.nonzero()[0])
            raise DataError(
                f"a C-alpha must be three finite numbers, or three NaN where it is missing, got {x[place].tolist()} at "
                f"position {place + 1} of {self.name}"
            )
        if self.cluster is not None and self.cluster < 0:
            raise DataError(f"cluster must be >= 0, got {self.cluster} in {self.name}")

    @classmethod
    def from_residues(
        cls,
        name: str,
        letters: str,
        coordinates: np.ndarray,
        numbers: np.ndarray,
        *,
        full: str | None = None,
        places: np.ndarray | None = None,
        released: date | None = None,
        cluster: int | None = None,
        modified: int = 0,
    ) -> "Chain":
        """A chain from the residues that a file lists; those it leaves out become missing ones (X, NaN).

        Args:
            name: Of the chain.
            letters: Of the residues listed.
            coordinates: Their C-alphas (n, 3), in angstrom; NaN where the atom is not there.
            numbers: Their numbers in the file.
            full: The whole sequence (SEQRES), where it is known.
            places: Where the residues stand in ``full``, from 0, where that is known; else they are aligned.
            released: Date of publication.
            cluster: Of similar chains.
            modified: How many residues are modified.

        Raises:
            DataError: If the residues do not agree with ``full``.

        Example:
            >>> x = np.array([[0.0, 0, 0], [3.8, 0, 0], [14.0, 0, 0]])
            >>> chain = Chain.from_residues("mine", "AGA", x, np.array([5, 6, 9]), full="AAGAKAG")
            >>> chain.sequence, chain.known.int(), chain.residue_numbers
            ('AAGAKAG', tensor([0, 1, 1, 0, 0, 1, 0], dtype=torch.int32), tensor([ 4,  5,  6,  7,  8,  9, 10]))
        """
        try:
            if full is None:
                places = place_by_numbers(numbers, coordinates)
                full = UNKNOWN * int(places[-1] + 1)
            elif places is None:
                places = place_in_sequence(letters, numbers, coordinates, full)
        except DataError as error:
            raise DataError(f"{error} in {name}") from None
        sequence = list(full)
        for place, letter in zip(places.tolist(), letters, strict=True):
            if letter != UNKNOWN:
                sequence[place] = letter
        x = np.full((len(full), 3), np.nan, np.float32)
        x[places] = coordinates
        every = torch.from_numpy(complete_numbers(numbers, places, len(full)))
        return cls(name, "".join(sequence), torch.from_numpy(x), every, released, cluster, modified)

    def __len__(self) -> int:
        return len(self.sequence)

    @property
    def known(self) -> Bool[Tensor, " residues"]:
        """Which residues have a C-alpha."""
        return ~torch.isnan(self.coordinates[:, 0])

    @property
    def missing(self) -> int:
        """How many residues have no C-alpha."""
        return len(self) - int(self.known.sum())

    @property
    def breaks(self) -> int:
        """How many neighbours, both known, are more than 4.5 angstrom apart."""
        return int(broken_links(self.coordinates.numpy()).sum())

    @property
    def unbroken(self) -> bool:
        """Whether no residue is missing and no link broken."""
        return self.missing == 0 and self.breaks == 0

    @property
    def residue_numbers(self) -> Int64[Tensor, " residues"]:
        """Of the file, or counted from 1."""
        return torch.arange(1, len(self) + 1) if self.numbers is None else self.numbers

    def trimmed(self) -> "Chain":
        """The chain from its first to its last known residue: ends that nobody saw are no fold.

        Raises:
            DataError: If every residue is missing.

        Example:
            >>> x = torch.full((4, 3), torch.nan)
            >>> x[1:3] = torch.tensor([[0.0, 0, 0], [3.8, 0, 0]])
            >>> short = Chain("mine", "MKVL", x).trimmed()
            >>> short.sequence, short.residue_numbers
            ('KV', tensor([2, 3]))
        """
        place = self.known.nonzero()[:, 0]
        if not len(place):
            raise DataError(f"{self.name} has no C-alpha: nothing would be left")
        inside = slice(int(place[0]), int(place[-1]) + 1)
        return replace(
            self,
            sequence=self.sequence[inside],
            coordinates=self.coordinates[inside],
            numbers=self.residue_numbers[inside],
        )


class Chains(Sequence[Chain]):
    """Chains of any lengths, in order, which never change.

    Args:
        chains: Any iterable of them; it may be empty.

    Example:
        >>> chains = Chains([Chain("a", "MK", torch.zeros(2, 3)), Chain("b", "VLA", torch.zeros(3, 3))])
        >>> len(chains), chains.lengths, chains[1].name
        (2, tensor([2, 3]), 'b')
        >>> chains.select(chains.lengths > 2).names
        ['b']
    """

    def __init__(self, chains: Iterable[Chain] = ()) -> None:
        self._chains = tuple(chains)

    def __repr__(self) -> str:
        return f"Chains({len(self)} of {int(self.lengths.sum())} residues)"

    def __len__(self) -> int:
        return len(self._chains)

    @overload
    def __getitem__(self, index: int) -> Chain: ...

    @overload
    def __getitem__(self, index: slice) -> "Chains": ...

    def __getitem__(self, index: int | slice) -> "Chain | Chains":
        return Chains(self._chains[index]) if isinstance(index, slice) else self._chains[index]

    def __iter__(self) -> Iterator[Chain]:
        return iter(self._chains)

    @property
    def lengths(self) -> Int64[Tensor, " number"]:
        """Residues of each chain, the missing ones too."""
        return torch.tensor([len(chain) for chain in self], dtype=torch.int64)

    @property
    def names(self) -> list[str]:
        """Of each chain."""
        return [chain.name for chain in self]

    def select(self, which: Bool[Tensor, " number"] | Int64[Tensor, " chosen"]) -> "Chains":
        """Some of the chains: those that a mask of all says, or those of the indices, in their order.

        Raises:
            DataError: If the mask is of another length, or an index out of range.
        """
        if which.dtype == torch.bool:
            if len(which) != len(self):
                raise DataError(f"a mask of {len(self)} chains must have as many entries, got {len(which)}")
            which = which.nonzero()[:, 0]
        indices = which.tolist()
        for index in indices:
            if not 0 <= index < len(self):
                raise DataError(f"an index of {len(self)} chains is 0 ... {len(self) - 1}, got {index}")
        return Chains(self._chains[index] for index in indices)

    def trimmed(self) -> "Chains":
        """Each chain from its first to its last known residue.

        Raises:
            DataError: If a chain has no known residue.
        """
        return Chains(chain.trimmed() for chain in self)

    def sha256(self) -> str:
        """Fingerprint of the contents: names, letters, coordinates, numbers, dates and clusters."""
        digest = hashlib.sha256()
        for chain in self:
            digest.update(repr((chain.name, chain.sequence, str(chain.released), chain.cluster)).encode())
            digest.update(chain.known.numpy().tobytes())  # a NaN has many bit patterns, so it is not hashed itself
            digest.update(torch.nan_to_num(chain.coordinates).contiguous().numpy().tobytes())
            digest.update(chain.residue_numbers.contiguous().numpy().tobytes())
        return digest.hexdigest()
