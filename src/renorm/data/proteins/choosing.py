"""Which chains are learned from and which are held out: by cluster, by date, by length, by gaps."""

from collections.abc import Callable
from datetime import date

import torch

from renorm.data.proteins.chains import Chain, Chains
from renorm.data.spec import Split
from renorm.errors import DataError

__all__ = ["by_cluster", "by_date", "of_lengths", "unbroken"]

EVERY = 10  # clusters of which one is held out


def by_cluster(chains: Chains, split: Split) -> Chains:
    r"""One split of chains that are clustered by similarity: held out are those of $\text{cluster} \bmod 10 = 0$.

    No chain of one split is similar to a chain of the other, which a random tenth would not say.

    Args:
        chains: All with a cluster.
        split: ``"train"`` or ``"test"``, disjoint and together complete; or ``"all"``.

    Raises:
        DataError: If a chain has no cluster.

    Example:
        >>> chains = Chains(Chain(f"c{n}", "M", torch.zeros(1, 3), cluster=n) for n in (3, 10, 11, 20))
        >>> by_cluster(chains, "test").names, by_cluster(chains, "train").names
        (['c10', 'c20'], ['c3', 'c11'])
    """
    if split == "all":
        return chains
    unknown = [chain.name for chain in chains if chain.cluster is None]
    if unknown:
        raise DataError(f"every chain needs a cluster to be split by it, {len(unknown)} have none: {unknown[0]} ...")
    return _where(chains, lambda chain: ((chain.cluster or 0) % EVERY == 0) == (split == "test"))


def by_date(chains: Chains, split: Split, *, day: date) -> Chains:
    """One split by date of publication: held out are those of ``day`` and later.

    Args:
        chains: All with a date.
        split: ``"train"`` or ``"test"``, disjoint and together complete; or ``"all"``.
        day: The first day of the test.

    Raises:
        DataError: If a chain has no date.

    Example:
        >>> days = {"old": date(2019, 1, 1), "new": date(2022, 8, 3)}
        >>> chains = Chains(Chain(name, "M", torch.zeros(1, 3), released=day) for name, day in days.items())
        >>> by_date(chains, "test", day=date(2020, 5, 1)).names
        ['new']
    """
    if split == "all":
        return chains
    unknown = [chain.name for chain in chains if chain.released is None]
    if unknown:
        raise DataError(f"every chain needs a date to be split by it, {len(unknown)} have none: {unknown[0]} ...")
    return _where(chains, lambda chain: ((chain.released or day) >= day) == (split == "test"))


def unbroken(chains: Chains) -> Chains:
    """Chains without a missing residue and without a break (neighbours more than 4.5 angstrom apart).

    Example:
        >>> whole = Chain("whole", "MK", torch.tensor([[0.0, 0, 0], [3.8, 0, 0]]))
        >>> broken = Chain("broken", "MK", torch.tensor([[0.0, 0, 0], [7.6, 0, 0]]))
        >>> unbroken(Chains([whole, broken])).names
        ['whole']
    """
    return _where(chains, lambda chain: chain.unbroken)


def of_lengths(chains: Chains, *, shortest: int = 1, longest: int | None = None) -> Chains:
    """Chains of ``shortest`` to ``longest`` residues, both included, the missing ones counted.

    Raises:
        DataError: If no length is in the range.

    Example:
        >>> chains = Chains(Chain(f"c{n}", "M" * n, torch.zeros(n, 3)) for n in (2, 3, 4))
        >>> of_lengths(chains, shortest=3).names
        ['c3', 'c4']
    """
    require_range(shortest, longest)
    return _where(chains, lambda chain: len(chain) >= shortest and (longest is None or len(chain) <= longest))


def require_range(shortest: int, longest: int | None) -> None:
    """Raise ``DataError`` unless some number of residues is in the range."""
    if shortest < 1:
        raise DataError(f"the shortest length must be >= 1 residue, got {shortest}")
    if longest is not None and longest < shortest:
        raise DataError(f"the longest length must be >= the shortest ({shortest} residues), got {longest}")


def _where(chains: Chains, wanted: Callable[[Chain], bool]) -> Chains:
    return chains.select(torch.tensor([wanted(chain) for chain in chains], dtype=torch.bool))
