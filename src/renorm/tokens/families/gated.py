r"""Learning image by image: counts pass a gate of mutual information, and old ones are forgotten.

The tables of ``counts.gate`` and ``counts.forget``, kept in a form in which an image touches only the cells that it
changes: the information of a table does not depend on its scale, so what is forgotten is one factor a table, and its
three sums of $x \ln x$ follow from the changed cells.
"""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int64

from renorm.errors import DataError, RecipeError
from renorm.tokens.trees.shape import Layer, Tree

__all__ = ["learn_in_order"]

FAINT = np.exp(-16.0)  # joint probabilities below this count nothing
REFRESH = 1000  # images after which the factors are multiplied out


def learn_in_order(
    tree: Tree,
    counts: Sequence[np.ndarray],
    states: Int64[np.ndarray, "number nodes"],
    weight: Float[np.ndarray, " number"] | None,
    *,
    gate: float,
    horizon: float,
) -> list[np.ndarray]:
    r"""Counts after images, one after the other, each weighed by the tables that the ones before it left.

    For each image the posterior of every edge $q$ is exact given what is seen (class and tokens), and each table does

    $$ w = \frac{1}{1 + e^{\beta [I(a) - I(a + q)]}}, \qquad a \leftarrow (a + w q) \frac{\eta}{\eta + w}. $$

    Args:
        tree: Tree of the tables, none tied.
        counts: For each of ``tree.layers`` (tables, parents, children) counts, concentration included, all > 0.
        states: State of each node; leaves all seen, nodes between hidden (-1), the root seen or hidden.
        weight: Factor of each image's q; 1 if not given.
        gate: $\beta \ge 0$ per nat; 0 lets everything pass (w = 1).
        horizon: $\eta > 0$; infinite: nothing is forgotten.

    Raises:
        RecipeError: If gate or horizon are out of range, or tables are tied.
        DataError: If a leaf is hidden.

    Example: one leaf under the root; the image is counted, nothing forgotten.
        >>> tree = Tree(np.array([-1, 0]), np.array([2, 2]), leaves=np.array([1]))
        >>> learn_in_order(tree, [np.ones((1, 2, 2))], np.array([[0, 1]]), None, gate=0.0, horizon=np.inf)[0].tolist()
        [[[1.0, 2.0], [1.0, 1.0]]]
    """
    if not (gate >= 0 and horizon > 0):
        raise RecipeError(f"gate must be >= 0 and horizon > 0 (a table must hold something), got {gate}, {horizon}")
    if any(layer.tied for layer in tree.layers):
        raise RecipeError("learning in order needs a table of its own for each node, got a tree with ties")
    if len(states) and states[:, tree.leaves].min() < 0:
        raise DataError("learning in order needs all tokens, got a hidden one (-1): leave such images out")
    tables = [_Tables(layer, np.array(n, np.float64)) for layer, n in zip(tree.layers, counts, strict=True)]
    for image, seen in enumerate(states):
        share = 1.0 if weight is None else float(weight[image])
        for table, (cells, q) in zip(tables, _posteriors(tree, tables, seen), strict=True):
            table.learn(cells, q * share, gate, horizon)
        if image % REFRESH == REFRESH - 1:
            tables = [_Tables(table.layer, table.counts) for table in tables]
    return [table.counts for table in tables]


Cells = tuple[np.ndarray, np.ndarray, np.ndarray]


class _Tables:
    """The tables of a layer: ``scale`` times ``n``, and what their information needs."""

    def __init__(self, layer: Layer, counts: np.ndarray) -> None:
        self.layer, self.n = layer, counts
        self.rows, self.columns, self.total = counts.sum(2), counts.sum(1), counts.sum((1, 2))
        self.scale = np.ones(len(counts))
        self.inside = _x_log_x(counts).sum((1, 2))
        self.outside = _x_log_x(self.rows).sum(1) + _x_log_x(self.columns).sum(1)

    @property
    def counts(self) -> np.ndarray:
        return self.n * self.scale[:, None, None]

    @cached_property
    def gather(self) -> np.ndarray:
        """Sums over the nodes of each parent, (slots, nodes)."""
        return (np.arange(self.layer.slots.max() + 1)[:, None] == self.layer.slots).astype(np.float64)

    def learn(self, cells: Cells, q: np.ndarray, gate: float, horizon: float) -> None:
        """Count q in some cells (table, parent state, child state), each named once."""
        q = q / self.scale[cells[0]]
        if gate > 0:
            inside, outside, total = self._sums(cells, q)
            before = (self.inside - self.outside) / self.total + np.log(self.total)
            after = (inside - outside) / total + np.log(total)
            w = 1.0 / (1.0 + np.exp(np.clip(gate * (before - after), -700, 700)))
            passed = w > 1e-12  # what does not pass need not be counted
            w = np.where(passed, w, 0.0)
            kept = passed[cells[0]]
            cells, q = (cells[0][kept], cells[1][kept], cells[2][kept]), (q * w[cells[0]])[kept]
        else:
            w = np.ones(len(self.n))
        self.inside, self.outside, self.total = self._sums(cells, q)
        self.n[cells] += q
        np.add.at(self.rows, cells[:2], q)
        np.add.at(self.columns, (cells[0], cells[2]), q)
        if np.isfinite(horizon):
            self.scale *= horizon / (horizon + w)

    def _sums(self, cells: Cells, q: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Sum of x ln x in the cells, the same in both margins, and the total, once q is counted."""
        table, parent, child = cells
        inside = self.inside + self._gain(self.n[cells], q, table)
        outside = self.outside
        for margin, other in ((self.rows, parent), (self.columns, child)):
            key, place = np.unique(table * margin.shape[1] + other, return_inverse=True)
            added = np.bincount(place.reshape(-1), q, len(key))
            outside = outside + self._gain(margin.reshape(-1)[key], added, key // margin.shape[1])
        return inside, outside, self.total + np.bincount(table, q, len(self.n))

    def _gain(self, x: np.ndarray, added: np.ndarray, table: np.ndarray) -> np.ndarray:
        return np.bincount(table, _x_log_x(x + added) - _x_log_x(x), len(self.n))


def _x_log_x(x: np.ndarray) -> np.ndarray:
    return np.asarray(x * np.log(np.maximum(x, 1e-300)))


def _posteriors(tree: Tree, tables: list[_Tables], seen: np.ndarray) -> list[tuple[Cells, np.ndarray]]:
    """Probability of each pair of states of each edge given what is seen, faint ones left out."""
    pools = [np.zeros((len(pool.nodes), pool.states)) for pool in tree.pools]
    messages: list[tuple[np.ndarray, np.ndarray]] = [(np.empty(0), np.empty(0))] * len(tables)
    for index in reversed(range(len(tables))):
        table, layer = tables[index], tables[index].layer
        if layer.leaf:
            nodes = np.arange(len(layer.nodes))
            message = np.log(table.n[nodes, :, seen[layer.nodes]] / table.rows)
        else:
            own = pools[layer.home][layer.start : layer.start + len(layer.nodes)]
            top = own.max(axis=1, keepdims=True)
            likely = np.exp(own - top)
            up = np.matmul(table.n, likely[:, :, None])[:, :, 0]
            messages[index] = likely, up
            message = np.log(np.maximum(up, 1e-300) / table.rows) + top
        pools[layer.above][: layer.slots.max() + 1] += table.gather @ message
    root = pools[0][0]
    weight = np.exp(root - root.max()) if seen[0] < 0 else (np.arange(len(root)) == seen[0]).astype(np.float64)
    posterior = [np.zeros_like(pool) for pool in pools]
    posterior[0][0] = weight / weight.sum()
    found = []
    for table, (likely, up) in zip(tables, messages, strict=True):
        layer = table.layer
        above = posterior[layer.above][layer.slots]
        if layer.leaf:
            node, state = np.nonzero(above > FAINT)
            found.append(((node, state, seen[layer.nodes[node]]), above[node, state]))
            continue
        ratio = above / np.maximum(up, 1e-300)
        joint = ratio[:, :, None] * table.n * likely[:, None, :]
        posterior[layer.home][layer.start : layer.start + len(layer.nodes)] = joint.sum(axis=1)
        node, state, child = np.nonzero(joint > FAINT)
        found.append(((node, state, child), joint[node, state, child]))
    return found
