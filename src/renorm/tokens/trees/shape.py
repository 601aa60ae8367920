"""The shape of a token hierarchy: which variable hangs under which, and which of them share one table."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Int64

from renorm.errors import RecipeError

__all__ = ["Bag", "Layer", "Pool", "Tree"]


@dataclass(frozen=True, eq=False)
class Bag:
    """The leaves of those parents that have equally many leaves in one layer.

    Args:
        slots: Place of each parent in the layer's parent pool.
        columns: Places, in the layer, of each parent's leaves.
    """

    slots: Int64[np.ndarray, "parents"]
    columns: Int64[np.ndarray, "parents leaves"]


@dataclass(frozen=True, eq=False)
class Pool:
    """The nodes with children of one depth and one number of states: their messages are one array."""

    depth: int
    states: int
    nodes: Int64[np.ndarray, "nodes"]


@dataclass(frozen=True, eq=False)
class Layer:
    """Nodes of one depth, one table shape and one kind; their tables are one stack.

    Args:
        nodes: The nodes, each with the parent in the same place of ``parents``.
        parents: The node above each node.
        table: Place of each node's table in the layer's stack.
        shape: States of the parent, states of the node.
        leaf: Whether the nodes have no children.
        depth: Steps from the root.
        above: Pool of the parents.
        slots: Place of each parent in that pool.
        home: Pool of the nodes themselves; -1 for leaves.
        start: Where in that pool the nodes begin.
    """

    nodes: Int64[np.ndarray, "nodes"]
    parents: Int64[np.ndarray, "nodes"]
    table: Int64[np.ndarray, "nodes"]
    shape: tuple[int, int]
    leaf: bool
    depth: int
    above: int
    slots: Int64[np.ndarray, "nodes"]
    home: int
    start: int

    @cached_property
    def tables(self) -> int:
        """Number of different tables."""
        return int(self.table.max()) + 1

    @cached_property
    def tied(self) -> bool:
        """Whether the stack must be indexed by ``table`` to have one table for each node."""
        return not np.array_equal(self.table, np.arange(len(self.nodes)))

    @cached_property
    def bags(self) -> tuple[Bag, ...]:
        """The nodes by parent, parents with equally many nodes together."""
        slots, first, number = np.unique(self.slots, return_index=True, return_counts=True)
        bags = []
        for size in np.unique(number):
            chosen = number == size
            bags.append(Bag(slots[chosen], first[chosen, None] + np.arange(size)))
        return tuple(bags)


@dataclass(frozen=True, eq=False)
class Tree:
    r"""A rooted tree of categorical variables, parents before children.

    $$p(s) = p(s_0) \prod_{i > 0} p(s_i \mid s_{\mathrm{parent}(i)})$$

    Args:
        parent: The node above each node; -1 for the root, which is node 0.
        states: Number of states of each node.
        leaves: The node that carries each token of the codebook, in the codebook's order.
        tie: Nodes with the same value share one table; default: each node has its own.

    Raises:
        RecipeError: If the parents make no tree in order, a node has no state, or nodes tied together differ in
            depth, shape or kind.

    Example:
        >>> import numpy as np
        >>> tree = Tree(np.array([-1, 0, 1, 1]), np.array([10, 4, 7, 7]), leaves=np.array([2, 3]))
        >>> [(layer.shape, layer.nodes.tolist(), layer.leaf) for layer in tree.layers]
        [((10, 4), [1], False), ((4, 7), [2, 3], True)]
    """

    parent: Int64[np.ndarray, "nodes"]
    states: Int64[np.ndarray, "nodes"]
    leaves: Int64[np.ndarray, "positions"]
    tie: Int64[np.ndarray, "ties"] | None = None

    def __post_init__(self) -> None:
        """Check what the passes rely on."""
        number = len(self.parent)
        if number == 0 or self.parent[0] != -1:
            raise RecipeError("the first node of a tree must be its root, with parent -1: put it first")
        wrong = np.flatnonzero((self.parent[1:] < 0) | (self.parent[1:] >= np.arange(1, number))) + 1
        if len(wrong):
            raise RecipeError(
                f"each node but the first needs a parent before it (messages pass in that order): sort the nodes by "
                f"depth, got parent {self.parent[wrong[0]]} for node {wrong[0]}"
            )
        if len(self.states) != number or (self.states < 1).any():
            raise RecipeError(f"each of the {number} nodes needs at least one state, got {self.states.tolist()[:8]}")
        out = (self.leaves < 0) | (self.leaves >= number)
        if out.any() or len(np.unique(self.leaves)) != len(self.leaves):
            raise RecipeError(f"leaves must be different nodes in 0..{number - 1}: each token has a node of its own")
        if self.tie is not None and len(self.tie) != number:
            raise RecipeError(f"tie must name a table for each of {number} nodes, got {len(self.tie)} values")
        self._require_equal_ties()

    def __len__(self) -> int:
        """Number of nodes."""
        return len(self.parent)

    @cached_property
    def depth(self) -> Int64[np.ndarray, "nodes"]:
        """Steps of each node from the root."""
        depth = np.zeros(len(self), np.int64)
        for node in range(1, len(self)):
            depth[node] = depth[self.parent[node]] + 1
        return depth

    @cached_property
    def pools(self) -> tuple[Pool, ...]:
        """The nodes with children and the root, by depth and number of states; the root is the first."""
        inner = self._inner.copy()
        inner[0] = True
        groups: dict[tuple[int, int], list[np.ndarray]] = {}
        for key, nodes in self._groups:
            if inner[nodes[0]]:
                groups.setdefault((key[0], key[3]), []).append(nodes)
        groups = {(0, int(self.states[0])): [np.zeros(1, np.int64)], **groups}
        return tuple(Pool(*key, np.concatenate(nodes)) for key, nodes in groups.items())

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """All nodes but the root by depth, kind and table shape; parents stand in earlier layers."""
        home, slot = np.full(len(self), -1), np.full(len(self), -1)
        for index, pool in enumerate(self.pools):
            home[pool.nodes], slot[pool.nodes] = index, np.arange(len(pool.nodes))
        layers = []
        for (depth, leaf, above, states), nodes in self._groups:
            if leaf:
                nodes = nodes[np.argsort(slot[self.parent[nodes]], kind="stable")]
            parents = self.parent[nodes]
            table = self._table(nodes)
            place = int(home[parents[0]]), slot[parents], int(home[nodes[0]]), int(slot[nodes[0]])
            layers.append(Layer(nodes, parents, table, (above, states), bool(leaf), depth, *place))
        return tuple(layers)

    @cached_property
    def _inner(self) -> np.ndarray:
        """Whether each node has children."""
        inner = np.zeros(len(self), bool)
        inner[self.parent[1:]] = True
        return inner

    @cached_property
    def _groups(self) -> list[tuple[tuple[int, int, int, int], np.ndarray]]:
        """(depth, no children, states of the parent, states) and the nodes alike in these, in this order."""
        leaf = ~self._inner
        keys = np.stack([self.depth, leaf, self.states[self.parent], self.states], 1)[1:]
        if len(keys) == 0:
            return []
        kinds, which = np.unique(keys, axis=0, return_inverse=True)
        which = which.reshape(-1)
        return [(tuple(kind), np.flatnonzero(which == index) + 1) for index, kind in enumerate(kinds.tolist())]

    def _table(self, nodes: np.ndarray) -> np.ndarray:
        """Place of each node's table in its layer's stack, in order of the first node that uses it."""
        if self.tie is None:
            return np.arange(len(nodes))
        _, first, which = np.unique(self.tie[nodes], return_index=True, return_inverse=True)
        rank = np.empty(len(first), np.int64)
        rank[np.argsort(first)] = np.arange(len(first))
        return rank[which.reshape(-1)]

    def _require_equal_ties(self) -> None:
        """Nodes tied together must be of one layer."""
        if self.tie is None:
            return
        seen: dict[int, int] = {}
        for index, (_, nodes) in enumerate(self._groups):
            for name in np.unique(self.tie[nodes]).tolist():
                if seen.setdefault(name, index) != index:
                    raise RecipeError(
                        f"nodes that share a table must agree in depth, in both numbers of states and in having "
                        f"children: give them different values of tie, got {name} for nodes of two layers"
                    )
