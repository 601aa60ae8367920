"""What a folder of structures amounts to: counts for people, before anything is learned from it."""

import statistics
from collections import Counter
from dataclasses import dataclass, replace

from renorm.data.proteins.reading import Dropped, FilesRead
from renorm.data.proteins.sequence import UNKNOWN
from renorm.data.proteins.spec import ProteinSpec, chosen

__all__ = ["Survey", "survey"]


@dataclass(frozen=True)
class Survey:
    """Counts of a folder.

    Attributes:
        files: Structure files, the bad ones too.
        chains: That could be read.
        residues: Of all chains, the missing ones too.
        missing: Residues without a C-alpha.
        modified: Residues that have the letter of their parent.
        unknown: Residues of no known letter (X), the missing ones too.
        broken: Chains that miss a residue between their ends, or have a broken link.
        lengths: Shortest, median and longest chain, in residues; none where there is no chain.
        train, test: Chains of the lengths that a fit takes, by ``hold_out = "sequence"``.
        dropped: Files that were left out, and why.
    """

    files: int
    chains: int
    residues: int
    missing: int
    modified: int
    unknown: int
    broken: int
    lengths: tuple[int, int, int] | None
    train: int
    test: int
    dropped: tuple[Dropped, ...]

    @property
    def kinds(self) -> dict[str, int]:
        """How many files were left out for each reason, the most frequent first."""
        return dict(Counter(entry.kind for entry in self.dropped).most_common())


def survey(found: FilesRead, spec: ProteinSpec) -> Survey:
    """Count what was read.

    Args:
        found: Of `renorm.data.proteins.reading.read_files`.
        spec: Says which lengths a fit takes, counted from the first to the last known residue.

    Example:
        >>> import torch
        >>> from renorm.data.proteins import Chain, Chains
        >>> x = torch.arange(4).float()[:, None] * torch.tensor([3.8, 0, 0])
        >>> x[1] = torch.nan
        >>> found = FilesRead(Chains([Chain("a", "MKVL", x, modified=1)]), (), 1, 1, True)
        >>> counted = survey(found, ProteinSpec(shortest=3))
        >>> counted.residues, counted.missing, counted.modified, counted.broken, counted.lengths
        (4, 1, 1, 1, (4, 4, 4))
    """
    chains = found.chains
    lengths = chains.lengths.tolist()
    trimmed = chains.trimmed()
    by_sequence = replace(spec, hold_out="sequence", day=None)
    train, test = (len(chosen(chains, by_sequence, split)) for split in ("train", "test"))
    return Survey(
        files=found.files,
        chains=len(chains),
        residues=sum(lengths),
        missing=sum(chain.missing for chain in chains),
        modified=sum(chain.modified for chain in chains),
        unknown=sum(chain.sequence.count(UNKNOWN) for chain in chains),
        broken=sum(not chain.unbroken for chain in trimmed),
        lengths=(min(lengths), round(statistics.median(lengths)), max(lengths)) if lengths else None,
        train=train,
        test=test,
        dropped=found.dropped,
    )
