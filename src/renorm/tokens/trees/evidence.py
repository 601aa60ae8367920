"""What is known of a node that nobody saw: a likelihood for each of its states."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from renorm.tokens.trees.shape import Layer

__all__ = ["VirtualEvidence", "place"]


@dataclass(frozen=True, eq=False)
class VirtualEvidence:
    r"""How likely what is seen is for each state of some nodes that are not seen themselves.

    $$p(s, \mathrm{seen}) = p(s) \prod_{i \in \mathrm{nodes}} e^{\ell_i(s_i)}$$

    Args:
        nodes: The nodes; all have equally many states.
        log: $\ell$, (batch, nodes, states), in nats; what is clamped in ``observed`` is not touched by it.

    Source:
        Pearl 1988, Probabilistic Reasoning in Intelligent Systems, section 2.2.2.
    """

    nodes: np.ndarray
    log: Tensor

    def __getitem__(self, part: slice) -> "VirtualEvidence":
        """That of some images."""
        return VirtualEvidence(self.nodes, self.log[part])

    def of_root(self, observed: Tensor) -> Tensor:
        """That of the root, which is in no layer, (batch, states); 0 where it is clamped."""
        log = self.log[:, int(np.flatnonzero(self.nodes == 0)[0])]
        return torch.where(observed[:, :1] < 0, log, 0.0)

    def of(self, layer: Layer, observed: Tensor) -> tuple[np.ndarray, Tensor]:
        """Places in the layer of its nodes that have some, and theirs, (nodes, batch, states); 0 where clamped."""
        slots = np.flatnonzero(np.isin(layer.nodes, self.nodes))
        if len(slots) == 0:
            return slots, self.log[:, :0]
        order = np.argsort(self.nodes)
        column = order[np.searchsorted(self.nodes, layer.nodes[slots], sorter=order)]
        log = self.log[:, place(column, self.log)].transpose(0, 1)
        clamped = observed[:, place(layer.nodes[slots], observed)].T >= 0
        return slots, torch.where(clamped[:, :, None], 0.0, log)


def place(index: np.ndarray, like: Tensor) -> Tensor:
    """An index array where a tensor lives."""
    return torch.from_numpy(index).to(like.device)
