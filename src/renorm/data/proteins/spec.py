"""Which chains to read, as a typed value; no torch."""

import warnings
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Literal

from renorm.data.spec import Split
from renorm.errors import DataError, RecipeError
from renorm.spec import require, require_literals

if TYPE_CHECKING:
    from renorm.data.proteins.chains import Chain, Chains

__all__ = ["FeaturesSpec", "ProteinSpec", "chosen", "known_chains", "read"]


@dataclass(frozen=True)
class ProteinSpec:
    """Which protein chains to read, and which of them are held out.

    Args:
        name: A packed set (``"train"``, ``"cameo2022"``), or ``"folder"``: structures of the user.
        path: The folder, for ``"folder"`` alone.
        hold_out: By ``"cluster"`` (every tenth, of packed sets), by ``"date"`` (from ``day`` on), or by ``"sequence"``
            (every tenth sequence, by a hash: similar ones may part, so take it only where no clusters are known).
        day: First day that is held out, as 2020-05-01.
        shortest, longest: Residues of a chain, from its first to its last known one; others are left out.
        unbroken: Leave out chains of which residues are missing, or links broken.
        limit: Use only the first so many chains of a split.
        seed: Of the missing residues, which are drawn from a Gaussian chain.

    Raises:
        ValueError: If a value is out of its range.
        RecipeError: If a value is missing, or given where it means nothing.

    Example:
        >>> ProteinSpec(longest=128).hold_out
        'cluster'
    """

    name: str = "train"
    path: str | None = None
    hold_out: Literal["cluster", "date", "sequence"] = "cluster"
    day: str | None = None
    shortest: int = 40
    longest: int = 256
    unbroken: bool = False
    limit: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        require_literals(self)
        require(self.shortest >= 3, "shortest must be >= 3 residues (a chain bends at three)", self.shortest)
        require(self.longest >= self.shortest, f"longest must be >= shortest ({self.shortest})", self.longest)
        require(self.limit is None or self.limit >= 1, "limit must be >= 1 chain", self.limit)
        require(0 <= self.seed < 2**63, "seed must be in [0, 2^63)", self.seed)
        if (self.name == "folder") != (self.path is not None):
            raise RecipeError(f"path is the folder of name = 'folder', and of nothing else, got {self.path!r}")
        if (self.hold_out == "date") != (self.day is not None):
            raise RecipeError(f"day goes with hold_out = 'date', and with nothing else, got {self.day!r}")
        if self.day is not None:
            try:
                date.fromisoformat(self.day)
            except ValueError:
                raise RecipeError(f"day must be a date such as 2020-05-01, got {self.day!r}") from None


@dataclass(frozen=True)
class FeaturesSpec:
    """What more is told of each residue than its letter.

    Args:
        folder: A language model in the layout of Hugging Face, or features made elsewhere (a folder of ``.npy`` files,
            an ``.npz`` or a ``.safetensors`` file); none: letters alone.
        layer: Of the language model: 0 is its embedding, -1 its last hidden state.
        dtype: In which features are kept.
        batch: Residues that go through the language model at once; a longer chain goes alone.

    Raises:
        ValueError: If a value is out of its range.

    Example:
        >>> FeaturesSpec(folder="esm2").layer
        -1
    """

    folder: str | None = None
    layer: int = -1
    dtype: Literal["float16", "float32"] = "float16"
    batch: int = 4096

    def __post_init__(self) -> None:
        require_literals(self)
        require(self.folder != "", "folder must be a path (leave it out for letters alone)", self.folder)
        require(self.batch >= 1, "batch must be >= 1 residue", self.batch)


def known_chains(spec: ProteinSpec, split: Split) -> "Chains":
    """The chains of a split, from their first to their last known residue, those between left open where missing.

    Raises:
        DataError: If there are none, or a file is absent or damaged.
    """
    chains = chosen(_all(spec), spec, split)
    if not len(chains):
        raise DataError(
            f"no chain of {spec.path or spec.name} is left for the split '{split}': lengths {spec.shortest} to "
            f"{spec.longest}{', unbroken' if spec.unbroken else ''}; widen the recipe's data"
        )
    return chains


def chosen(chains: "Chains", spec: ProteinSpec, split: Split) -> "Chains":
    """Those of a split, trimmed; there may be none."""
    import torch

    from renorm.data.proteins.choosing import by_cluster, by_date, of_lengths, unbroken

    if spec.hold_out == "date":
        chains = by_date(chains, split, day=date.fromisoformat(spec.day or ""))
    elif spec.hold_out == "cluster":
        chains = by_cluster(chains, split)
    elif split != "all":
        chains = chains.select(torch.tensor([_held_out(chain) == (split == "test") for chain in chains]).bool())
    chains = of_lengths(chains.trimmed(), shortest=spec.shortest, longest=spec.longest)
    return (unbroken(chains) if spec.unbroken else chains)[: spec.limit]


def read(spec: ProteinSpec, split: Split) -> "Chains":
    """The same with missing residues drawn from the Gaussian chain, by the spec's seed."""
    import torch

    from renorm.data.proteins.filling import fill_all

    return fill_all(known_chains(spec, split), generator=torch.Generator().manual_seed(spec.seed))


def _all(spec: ProteinSpec) -> "Chains":
    from pathlib import Path

    from renorm.data.proteins import packed
    from renorm.data.proteins.folder import default_cache, read_folder

    if spec.path is None:
        return packed.load(spec.name)
    folder = Path(spec.path)
    chains, dropped = read_folder(folder, cache=default_cache(folder))
    if dropped:
        files = f"1 file of {folder} was" if len(dropped) == 1 else f"{len(dropped)} files of {folder} were"
        told = f"`renorm data proteins {folder}` says which and why"
        warnings.warn(f"{files} left out, {told}", UserWarning, stacklevel=2)
    return chains


def _held_out(chain: "Chain") -> bool:
    """Whether a chain is of the tenth of all sequences that are held out, the same on every machine."""
    from hashlib import sha256

    return sha256(chain.sequence.encode()).digest()[0] % 10 == 0
