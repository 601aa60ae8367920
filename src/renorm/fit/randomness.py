"""Every random draw of a fit as a pure function of (seed, step, rank): no generator's state is saved."""

from typing import Literal

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

__all__ = ["Order", "seed_of"]

_STREAMS = {"order": 0, "noise": 1, "dropout": 2, "flip": 3, "lattice": 4}


def seed_of(seed: int, stream: Literal["order", "noise", "dropout", "flip", "lattice"], *key: int) -> int:
    """A seed for one use at one place; neighbouring keys give unrelated seeds.

    Source: NumPy's ``SeedSequence`` (O'Neill's seed_seq hash), with the key as its ``spawn_key``.

    Example:
        >>> seed_of(0, "noise", 7, 0) == seed_of(0, "noise", 7, 0)
        True
        >>> seed_of(0, "noise", 7, 0) == seed_of(0, "noise", 7, 1)
        False
    """
    sequence = np.random.SeedSequence(seed, spawn_key=(_STREAMS[stream], *key))
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))


class Order:
    """The order in which fields are shown: an endless line of epochs, each a fresh permutation.

    A batch may straddle two epochs, so none is short and every field is shown equally often.

    Args:
        count: Number of fields.
        batch: Fields per step, over all ranks.
        seed: Epoch e is permuted by ``seed_of(seed, "order", e)``.

    Example:
        >>> order = Order(count=4, batch=3, seed=0)
        >>> line = torch.cat([order.indices(step) for step in range(4)])
        >>> sorted(line[:4].tolist()), sorted(line[4:8].tolist())
        ([0, 1, 2, 3], [0, 1, 2, 3])
    """

    def __init__(self, count: int, batch: int, seed: int) -> None:
        if count < 1:
            raise ValueError(f"count must be >= 1 (there is no field to learn from), got {count}")
        self.count, self.batch, self.seed = count, batch, seed
        self._epochs: dict[int, Tensor] = {}

    def indices(self, step: int, *, rank: int = 0, world: int = 1) -> Int64[Tensor, "local"]:
        """Indices of the fields that ``rank`` is shown at ``step``; ``world`` must divide ``batch``."""
        share = self.batch // world
        start = step * self.batch + rank * share
        end, parts = start + share, []
        for epoch in range(start // self.count, (end - 1) // self.count + 1):
            begin = epoch * self.count
            parts.append(self._epoch(epoch)[max(start - begin, 0) : end - begin])
        return torch.cat(parts)

    def _epoch(self, epoch: int) -> Int64[Tensor, "count"]:
        if epoch not in self._epochs:
            # Epochs pass by in order; the last few are kept, since a batch may straddle them.
            self._epochs = {e: line for e, line in self._epochs.items() if e >= epoch - 1}
            generator = torch.Generator().manual_seed(seed_of(self.seed, "order", epoch))
            self._epochs[epoch] = torch.randperm(self.count, generator=generator)
        return self._epochs[epoch]
