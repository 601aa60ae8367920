"""The counts of a whole tree: what a hierarchy has seen on each edge, and the law that follows from it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64

from renorm.errors import DataError
from renorm.tokens.trees.counts import Counts, Events, log_evidence, pieces, smooth, unit_of
from renorm.tokens.trees.tree import Layer, Tree, TreeLaw

__all__ = ["TreeCounts"]


@dataclass(frozen=True)
class TreeCounts:
    r"""Dirichlet counts of the root and of each layer's tables; they add like their parts.

    Args:
        root: Of shape (1, 1, states of the root).
        layers: For each of ``tree.layers`` (tables, states of the parent, states).

    Example:
        >>> tree = Tree(np.array([-1, 0]), np.array([2, 3]), leaves=np.array([1]))
        >>> n = TreeCounts.of(tree, np.array([[0, 2], [1, 1], [-1, 1]]))
        >>> (n + n).layers[0].dense()[0].tolist()
        [[0.0, 0.0, 2.0], [0.0, 2.0, 0.0]]
    """

    root: Counts
    layers: tuple[Counts, ...]

    @classmethod
    def empty(cls, tree: Tree) -> "TreeCounts":
        """Nothing seen yet."""
        shapes = [(layer.tables, *layer.shape) for layer in tree.layers]
        return cls(Counts((1, 1, int(tree.states[0]))), tuple(Counts(shape) for shape in shapes))

    @classmethod
    def of(
        cls,
        tree: Tree,
        states: Int64[np.ndarray, "number nodes"],
        weight: Float[np.ndarray, " number"] | None = None,
    ) -> "TreeCounts":
        """Count what is seen on each edge; an edge with a hidden end (-1) counts nothing.

        Args:
            tree: Which node hangs under which.
            states: State of each node in each image.
            weight: How often each image counts; once if not given.

        Raises:
            DataError: If a state is unknown to its node.
        """
        if states.shape[1] != len(tree):
            raise DataError(f"states need one column for each of the {len(tree)} nodes, got {states.shape[1]}")
        root = Counts.of((1, 1, int(tree.states[0])), parent=0, child=states[:, 0], weight=weight)
        unit = 1.0 if weight is None else unit_of(weight)
        layers = [
            Counts.of_pieces((layer.tables, *layer.shape), _edges(layer, states, weight), unit) for layer in tree.layers
        ]
        return cls(root, tuple(layers))

    @classmethod
    def expected(cls, root: torch.Tensor, tables: Sequence[torch.Tensor]) -> "TreeCounts":
        """Counts of an E-step, rounded to multiples of 2^-20."""
        return cls(
            Counts.from_dense(root.double().numpy()[None, None]),
            tuple(Counts.from_dense(n.double().numpy()) for n in tables),
        )

    def __add__(self, other: "TreeCounts") -> "TreeCounts":
        if len(self.layers) != len(other.layers):
            raise DataError("counts add up only where their trees agree")
        return TreeCounts(self.root + other.root, tuple(a + b for a, b in zip(self.layers, other.layers, strict=True)))

    def __sub__(self, other: "TreeCounts") -> "TreeCounts":
        if len(self.layers) != len(other.layers):
            raise DataError("counts are taken off only where their trees agree")
        return TreeCounts(self.root - other.root, tuple(a - b for a, b in zip(self.layers, other.layers, strict=True)))

    def log_evidence(self, concentration: float) -> float:
        r"""Log probability of all that was counted, every table integrated out, in nats.

        Args:
            concentration: $\alpha > 0$ of every child state, the same in each table.
        """
        parts = [log_evidence(n.dense(), concentration).sum() for n in (self.root, *self.layers)]
        return float(sum(parts))

    def law(self, tree: Tree, *, concentration: float, backoff: float, dtype: torch.dtype = torch.float32) -> TreeLaw:
        r"""The law of the predictive probabilities.

        $$ \theta_{sk} = \frac{n_{sk} + \kappa m_k}{n_s + \kappa}, \qquad
           m_k = \frac{n_{\cdot k} + \alpha}{n + \alpha K} $$

        with back-off; without, $\theta_{sk} = (n_{sk} + \alpha) / (n_s + \alpha K)$.

        Args:
            tree: The tree that was counted.
            concentration: $\alpha \ge 0$, of each of the K states.
            backoff: $\kappa \ge 0$, in counts: how strongly a table's rows lean on the mean of them all.
            dtype: Of the tables.
        """
        tables = []
        for n in (self.root, *self.layers):
            dense = n.dense()
            children = dense.shape[-1]
            if backoff > 0:
                mean = smooth(dense.sum(-2, keepdims=True), None, concentration * children)
                table = smooth(dense, mean, backoff)
            else:
                table = smooth(dense, None, concentration * children)
            tables.append(torch.from_numpy(table).to(dtype))
        return TreeLaw(tree, tables[0][0, 0].contiguous(), tables[1:])

    def state(self) -> dict[str, np.ndarray]:
        """Arrays to store; ``from_state`` reads them."""
        parts = {"root": self.root, **{f"layer{i}": n for i, n in enumerate(self.layers)}}
        return {f"{name}.{key}": array for name, n in parts.items() for key, array in n.state().items()}

    @classmethod
    def from_state(cls, state: Mapping[str, np.ndarray]) -> "TreeCounts":
        """Counts from what ``state`` gave."""
        parts: dict[str, dict[str, np.ndarray]] = {}
        for name, array in state.items():
            part, key = name.split(".")
            parts.setdefault(part, {})[key] = array
        layers = [Counts.from_state(parts[f"layer{i}"]) for i in range(len(parts) - 1)]
        return cls(Counts.from_state(parts["root"]), tuple(layers))


def _edges(layer: Layer, states: np.ndarray, weight: np.ndarray | None) -> Iterator[Events]:
    """What each edge of a layer sees, some images after the other."""
    for part in pieces(len(states), len(layer.nodes)):
        seen = states[part]
        share = None if weight is None else weight[part, None]
        yield layer.table, seen[:, layer.parents], seen[:, layer.nodes], share
