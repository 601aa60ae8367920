"""How parents are made from children on a token grid: which children, in which states, and what of them is kept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise, product
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int, Int64, Shaped
from scipy.sparse import csr_array

from renorm.errors import DataError, RecipeError
from renorm.tokens.codebooks.clustering import cluster

__all__ = ["Blocks", "ClusterParents", "EnumerateParents", "entropy", "halvings", "information_kept", "tree_parents"]

EPSILON = 1e-6  # added to a standard deviation before it divides
ROWS = 4096  # rows compared with all centroids at once
CELLS = 2**24  # comparisons of tuples held at once


@dataclass(frozen=True)
class Blocks:
    r"""Rectangular blocks of children on a grid: the space part of a renormalisation step.

    Along each axis of n children, blocks of ``size`` begin at every multiple of ``stride``,

    $$ \max(0, \lceil (n - \text{size}) / \text{stride} \rceil) + 1 $$

    of them, so that every child is in at least one; the last may hang over the edge and then has fewer children.

    Args:
        grid: Rows and columns of children; a chain is ``(1, n)``.
        size: Rows and columns of a block.
        stride: Steps from a block to the next; smaller than the size where blocks overlap. Default: the size.

    Raises:
        RecipeError: If a size or stride is below 1, or a stride above its size (children between blocks get lost).

    Example: overlapping pairs on a chain; a child between two belongs to the one that owns fewer.
        >>> blocks = Blocks((1, 4), (1, 2), (1, 1))
        >>> blocks.children.tolist(), blocks.owner.tolist()
        ([[0, 1], [1, 2], [2, 3]], [0, 1, 2, 2])
    """

    grid: tuple[int, int]
    size: tuple[int, int] = (2, 2)
    stride: tuple[int, int] = field(default=(0, 0))

    def __post_init__(self) -> None:
        if self.stride == (0, 0):
            object.__setattr__(self, "stride", self.size)
        grid, size, stride = self.grid, self.size, self.stride
        if min(*grid, *size, *stride) < 1:
            raise RecipeError(f"grid, size and stride of blocks must be >= 1, got {grid}, {size}, {stride}")
        if stride[0] > size[0] or stride[1] > size[1]:
            raise RecipeError(f"a stride above the size loses the children between blocks, got {stride} > {size}")

    @cached_property
    def parent_grid(self) -> tuple[int, int]:
        """Rows and columns of parents."""
        rows, columns = (
            max(0, -(-(n - size) // step)) + 1 for n, size, step in zip(self.grid, self.size, self.stride, strict=True)
        )
        return rows, columns

    @cached_property
    def children(self) -> Int64[np.ndarray, "parents places"]:
        """Children of each parent, row by row; -1 where a block hangs over the edge."""
        found = np.full((self.parent_grid[0] * self.parent_grid[1], self.size[0] * self.size[1]), -1, np.int64)
        for parent, (top, left) in enumerate(product(*map(range, self.parent_grid))):
            for place, (i, j) in enumerate(product(*map(range, self.size))):
                row, column = top * self.stride[0] + i, left * self.stride[1] + j
                if row < self.grid[0] and column < self.grid[1]:
                    found[parent, place] = row * self.grid[1] + column
        return found

    @cached_property
    def owner(self) -> Int64[np.ndarray, " children"]:
        """The one parent of each child in a tree: nearest centre, then fewest children so far, then first."""
        shift = (np.array(self.size) - 1) / 2
        centres = np.array(list(product(*map(range, self.parent_grid)))) * np.array(self.stride) + shift
        owned = np.zeros(len(centres), np.int64)
        owner = np.empty(self.grid[0] * self.grid[1], np.int64)
        for child, place in enumerate(product(*map(range, self.grid))):
            candidates = np.flatnonzero((self.children == child).any(axis=1))
            distance = ((centres[candidates] - np.array(place)) ** 2).sum(axis=1)
            owner[child] = min(zip(distance.tolist(), owned[candidates].tolist(), candidates.tolist(), strict=True))[2]
            owned[owner[child]] += 1
        return owner

    def locations(self, children: Float[np.ndarray, "children 2"]) -> Float[np.ndarray, "parents 2"]:
        """The mean location of the children of each parent, in the children's unit."""
        return np.stack([children[block[block >= 0]].mean(axis=0) for block in self.children])

    def tuples(self, tokens: Int[np.ndarray, "number children"]) -> Int64[np.ndarray, "number parents places"]:
        """The tokens in each block; -1 where a child is absent or hidden."""
        if tokens.shape[1] != self.grid[0] * self.grid[1]:
            raise DataError(f"a grid of {self.grid} children needs one token each, got {tokens.shape[1]}")
        return np.where(self.children >= 0, tokens[:, self.children], -1).astype(np.int64)

    def hidden(self, tokens: Int[np.ndarray, "number children"]) -> Bool[np.ndarray, "number parents"]:
        """Parents with a child that is there but not seen (-1)."""
        return np.asarray(((self.tuples(tokens) < 0) & (self.children >= 0)).any(axis=-1))


def halvings(grid: tuple[int, int], size: int = 2) -> tuple[Blocks, ...]:
    """Blocks upon blocks, without overlap, until one parent is left; finest first.

    Example:
        >>> [blocks.parent_grid for blocks in halvings((8, 5))]
        [(4, 3), (2, 2), (1, 1)]
    """
    if size < 2:
        raise RecipeError(f"blocks of a pyramid must be >= 2 children wide (else it never ends), got {size}")
    levels: list[Blocks] = []
    while grid != (1, 1):
        levels.append(Blocks(grid, (min(size, grid[0]), min(size, grid[1]))))
        grid = levels[-1].parent_grid
    return tuple(levels)


def tree_parents(levels: Sequence[Blocks]) -> Int64[np.ndarray, " nodes"]:
    """The parent of each node of a tree: a root, the coarsest parents, ... , last the finest children; -1 at the root.

    Args:
        levels: Finest first; each grid is the parent grid of the level before.

    Example:
        >>> tree_parents([Blocks((2, 2))]).tolist()
        [-1, 0, 1, 1, 1, 1]
    """
    for fine, coarse in pairwise(levels):
        if fine.parent_grid != coarse.grid:
            raise RecipeError(f"a level stands on the parents below it: grid {fine.parent_grid}, got {coarse.grid}")
    top = levels[-1].parent_grid[0] * levels[-1].parent_grid[1]
    parts, first = [np.array([-1]), np.zeros(top, np.int64)], 1
    for blocks in reversed(levels):
        parts.append(first + blocks.owner)
        first += len(blocks.children)
    return np.concatenate(parts).astype(np.int64)


class ClusterParents:
    r"""Parents whose states are clusters of what their children look like.

    The vectors of the children are joined, $v = (v_{z_1}, \dots, v_{z_m})$, standardised if asked for,
    $v \leftarrow (v - \bar v) / (\sigma_v + 10^{-6})$, and named by the nearest of the centroids $c_k$:

    $$ s = \arg\min_k |v - c_k|^2 $$

    All parents of a level share the centroids, and the centroids are the vectors of the next level's children.

    Args:
        tokens: Number of parent states.
        blocks: Which children each parent has; an absent child counts as a zero vector.
        standardise: Whether joined vectors are standardised.
        method: Lloyd's algorithm, where an empty cluster keeps its centroid, or scikit-learn's mini-batches.
        iterations: Rounds over the data, at most.
        start: Whether Lloyd starts from random samples, or from random tuples that all differ (frequent ones, blank
            background above all, then take one centroid and not many).

    Attributes:
        vectors: (tokens, places * width) the centroids, after ``fit``.

    Example:
        >>> children = np.array([[0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]])
        >>> looks = np.array([[0.0], [1.0]])
        >>> parents = ClusterParents(2, Blocks((2, 2)), standardise=False).fit(children, looks, seed=0)
        >>> len(set(parents.encode(children)[:, 0].tolist())), parents.vectors.shape
        (2, (2, 4))
    """

    def __init__(
        self,
        tokens: int,
        blocks: Blocks,
        *,
        standardise: bool = True,
        method: Literal["lloyd", "mini-batch"] = "lloyd",
        iterations: int = 25,
        start: Literal["samples", "distinct"] = "distinct",
    ) -> None:
        if tokens < 1 or iterations < 1:
            raise RecipeError(f"parents need at least one state and one iteration, got {tokens} and {iterations}")
        if method not in ("lloyd", "mini-batch") or start not in ("samples", "distinct"):
            raise RecipeError(f"method is lloyd or mini-batch, start samples or distinct, got {method!r}, {start!r}")
        self.tokens, self.blocks, self.standardise = tokens, blocks, standardise
        self.method, self.iterations, self.start = method, iterations, start
        self.vectors: np.ndarray = np.empty((0, 0))
        self._children: np.ndarray = np.empty((0, 0))

    @property
    def sizes(self) -> Int64[np.ndarray, " parents"]:
        """Number of states of each parent."""
        return np.full(len(self.blocks.children), len(self.vectors), np.int64)

    def fit(
        self, tokens: Int[np.ndarray, "number children"], vectors: Float[np.ndarray, "states width"], *, seed: int
    ) -> "ClusterParents":
        """Find the centroids; tuples with a hidden child are left out.

        Args:
            tokens: States of the children.
            vectors: What each state of a child looks like; its precision is kept.
            seed: Of the samples to start from.
        """
        if tokens.max(initial=-1) >= len(vectors):
            raise DataError(f"each child state needs a vector: {len(vectors)} given, got token {tokens.max()}")
        self._children = vectors
        rows = self.blocks.tuples(tokens)[~self.blocks.hidden(tokens)]
        first, inverse, count = _distinct(rows)
        room = len(rows) if self.start == "samples" else len(first)
        if self.tokens > room:
            raise RecipeError(f"{self.tokens} parent states need as many tuples of children to start from, got {room}")
        points = self._join(rows[first])
        if self.method == "mini-batch":
            samples = points[inverse]
            self.vectors = cluster(samples, self.tokens, method="mini-batch", iterations=self.iterations, seed=seed)
            return self
        chosen = np.random.default_rng(seed).choice(room, self.tokens, replace=False)
        origin = points[inverse[chosen] if self.start == "samples" else chosen]
        self.vectors = _lloyd(points, count.astype(points.dtype), origin, self.iterations)
        return self

    def encode(self, tokens: Int[np.ndarray, "number children"]) -> Int64[np.ndarray, "number parents"]:
        """The nearest centroid of each parent; -1 where a child is hidden."""
        if not len(self.vectors) or tokens.max(initial=-1) >= len(self._children):
            raise DataError(f"call fit first, with a vector for each child state; got token {tokens.max(initial=-1)}")
        hidden = self.blocks.hidden(tokens)
        found = np.full(hidden.shape, -1, np.int64)
        rows = self.blocks.tuples(tokens)[~hidden]
        if len(rows):
            first, inverse, _ = _distinct(rows)
            found[~hidden] = _nearest(self._join(rows[first]), self.vectors)[inverse]
        return found

    def state(self) -> dict[str, np.ndarray]:
        """Arrays to store; ``from_state`` reads them."""
        arrays = {"blocks": _blocks_state(self.blocks), "standardise": np.array([self.standardise])}
        return {**arrays, "children": self._children, "vectors": self.vectors}

    @classmethod
    def from_state(cls, state: Mapping[str, np.ndarray]) -> "ClusterParents":
        """Parents that encode as those did whose ``state`` this is."""
        parents = cls(
            max(1, len(state["vectors"])), _blocks_of(state["blocks"]), standardise=bool(state["standardise"][0])
        )
        parents.vectors, parents._children = state["vectors"], state["children"]
        return parents

    def _join(self, rows: np.ndarray) -> np.ndarray:
        seen = np.concatenate([self._children, np.zeros((1, self._children.shape[1]), self._children.dtype)])
        points = seen[rows].reshape(len(rows), -1)  # an absent child, -1, reads the last row: zeros
        if self.standardise:
            mean, deviation = points.mean(axis=1, keepdims=True), points.std(axis=1, keepdims=True)
            points = (points - mean) / (deviation + points.dtype.type(EPSILON))
        return points


class EnumerateParents:
    """Parents whose states are the tuples of children that were seen: lossless without a limit.

    States are numbered in the order in which they were first seen. A tuple never seen takes the known one that differs
    in the fewest children (the first of them).

    Args:
        blocks: Which children each parent has.
        limit: Most states of a table; the most frequent tuples stay. None: all.
        shared: Whether all parents share one table of states, or each has its own.

    Example:
        >>> children = np.array([[0, 1, 2, 3], [0, 0, 0, 0], [0, 1, 2, 3]])
        >>> parents = EnumerateParents(Blocks((2, 2))).fit(children)
        >>> parents.encode(np.array([[0, 1, 2, 3], [0, 0, 0, 7]])).tolist()
        [[0], [1]]
        >>> parents.decode(np.array([[0]])).tolist()
        [[0, 1, 2, 3]]
    """

    def __init__(self, blocks: Blocks, *, limit: int | None = None, shared: bool = True) -> None:
        if limit is not None and limit < 1:
            raise RecipeError(f"the limit of states must be >= 1, or None for no limit, got {limit}")
        self.blocks, self.limit, self.shared = blocks, limit, shared
        self._tables: list[np.ndarray] = []

    @property
    def sizes(self) -> Int64[np.ndarray, " parents"]:
        """Number of states of each parent."""
        return np.array([len(self._table(parent)) for parent in range(len(self.blocks.children))], np.int64)

    def fit(self, tokens: Int[np.ndarray, "number children"]) -> "EnumerateParents":
        """List the tuples; those with a hidden child are left out."""
        rows, seen = self.blocks.tuples(tokens), ~self.blocks.hidden(tokens)
        groups = [rows[seen]] if self.shared else [rows[seen[:, p], p] for p in range(rows.shape[1])]
        if min(len(group) for group in groups) == 0:
            raise DataError("each parent needs at least one tuple of children without a hidden one, got none")
        self._tables = [self._list(group) for group in groups]
        return self

    def encode(self, tokens: Int[np.ndarray, "number children"]) -> Int64[np.ndarray, "number parents"]:
        """The state of each parent, the nearest known where it is new; -1 where a child is hidden."""
        return self._look_up(tokens, nearest=True)

    def known(self, tokens: Int[np.ndarray, "number children"]) -> Bool[np.ndarray, "number parents"]:
        """Parents whose children form a state that was seen, so that ``decode`` gives back just them."""
        return self._look_up(tokens, nearest=False) >= 0

    def decode(self, parents: Int[np.ndarray, "number parents"]) -> Int64[np.ndarray, "number children"]:
        """The children, each read from its owner; -1 below a hidden parent."""
        if parents.shape[1] != len(self.blocks.children):
            raise DataError(f"there are {len(self.blocks.children)} parents, got states of {parents.shape[1]}")
        found = np.empty((len(parents), len(self.blocks.owner)), np.int64)
        for child, owner in enumerate(self.blocks.owner):
            place = int(np.flatnonzero(self.blocks.children[owner] == child)[0])
            state = parents[:, owner]
            found[:, child] = np.where(state >= 0, self._table(int(owner))[state, place], -1)
        return found

    def state(self) -> dict[str, np.ndarray]:
        """Arrays to store; ``from_state`` reads them."""
        lengths = np.array([len(table) for table in self._tables], np.int64)
        arrays = {"blocks": _blocks_state(self.blocks), "shared": np.array([self.shared])}
        return {**arrays, "lengths": lengths, "tuples": np.concatenate(self._tables)}

    @classmethod
    def from_state(cls, state: Mapping[str, np.ndarray]) -> "EnumerateParents":
        """Parents that encode as those did whose ``state`` this is."""
        parents = cls(_blocks_of(state["blocks"]), shared=bool(state["shared"][0]))
        parents._tables = np.split(state["tuples"], np.cumsum(state["lengths"])[:-1])
        return parents

    def _table(self, parent: int) -> np.ndarray:
        if not self._tables:
            raise DataError("the states of parents are not known before fit; call it first")
        return self._tables[0 if self.shared else parent]

    def _list(self, rows: np.ndarray) -> np.ndarray:
        first, _, count = _distinct(rows)
        if self.limit is not None and self.limit < len(first):
            first = first[np.lexsort((first, -count))[: self.limit]]
        return rows[np.sort(first)]

    def _look_up(self, tokens: np.ndarray, *, nearest: bool) -> np.ndarray:
        hidden, rows = self.blocks.hidden(tokens), self.blocks.tuples(tokens)
        found = np.full(hidden.shape, -1, np.int64)
        for parents in [slice(None)] if self.shared else [slice(p, p + 1) for p in range(rows.shape[1])]:
            seen = ~hidden[:, parents]
            states = _match(self._table(parents.start or 0), rows[:, parents][seen], nearest=nearest)
            found[:, parents][seen] = states
        return found


def entropy(states: Shaped[np.ndarray, "number *places"]) -> float:
    r"""Entropy of what the rows are drawn from, with the first correction for having few of them (Miller, Madow).

    $$ H = -\sum_s \frac{n_s}{n} \ln\frac{n_s}{n} + \frac{\#\{s : n_s > 0\} - 1}{2n} $$

    Returns:
        Nats; each distinct row is a state.

    Example: ln 2, and 1/(2 * 4) for four draws.
        >>> round(entropy(np.array([0, 1, 0, 1])), 4)
        0.8181
    """
    _, _, count = _distinct(states.reshape(len(states), -1))
    p = count / count.sum()
    return float(-(p * np.log(p)).sum() + (len(p) - 1) / (2 * count.sum()))


def information_kept(parents: Int[np.ndarray, "rows *places"], others: Int[np.ndarray, "labels *others"]) -> float:
    r"""What parents still say about labels, or about tuples of children: the mutual information.

    $$ I = H(s) + H(y) - H(s, y) $$

    Each entropy is corrected as in ``entropy``, so that independent variables may give slightly less than 0.
    Rows with a hidden state (-1) are left out.

    Returns:
        Nats; each distinct row is a state, on both sides.

    Example: a parent that keeps its child whole keeps the child's entropy.
        >>> child = np.array([0, 1, 2, 2])
        >>> information_kept(child, child) == entropy(child)
        True
    """
    if len(parents) != len(others):
        raise DataError(f"each parent state needs its label or tuple, got {len(parents)} and {len(others)}")
    s, y = parents.reshape(len(parents), -1), others.reshape(len(others), -1)
    seen = (s >= 0).all(axis=1) & (y >= 0).all(axis=1)
    if not seen.any():
        raise DataError(f"information needs at least one row without a hidden state, got none in {len(parents)}")
    s, y = s[seen], y[seen]
    return entropy(s) + entropy(y) - entropy(np.concatenate([s, y], axis=1))


def _distinct(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First place of each distinct row (values >= -1), the distinct row of each row, and how many there are of each."""
    key, bound = np.zeros(len(rows), np.int64), 1
    for column in rows.T.astype(np.int64) + 1:
        base = int(column.max(initial=0)) + 1
        if bound > 2**62 // base:  # the key would overflow: number what there is afresh
            _, key = np.unique(key, return_inverse=True)
            bound = len(rows)
        key, bound = key * base + column, bound * base
    _, first, inverse, count = np.unique(key, return_index=True, return_inverse=True, return_counts=True)
    return first, inverse, count


def _match(known: np.ndarray, rows: np.ndarray, *, nearest: bool) -> np.ndarray:
    """The place of each row among the known ones; of the nearest, or -1, where it is new."""
    first, inverse, _ = _distinct(np.concatenate([known, rows]))
    place = first[inverse[len(known) :]]
    new = np.flatnonzero(place >= len(known))
    if not nearest:
        return np.where(place < len(known), place, -1)
    fresh = np.unique(place[new])
    closest = np.empty(len(fresh), np.int64)
    step = max(1, CELLS // known.size)
    for start in range(0, len(fresh), step):
        queries = rows[fresh[start : start + step] - len(known)]
        closest[start : start + step] = (queries[:, None] != known).sum(axis=-1).argmin(axis=1)
    place[new] = closest[np.searchsorted(fresh, place[new])]
    return place


def _nearest(points: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    half = (centroids**2).sum(axis=1) / 2
    starts = range(0, len(points), ROWS)
    return np.concatenate([(points[i : i + ROWS] @ centroids.T - half).argmax(axis=1) for i in starts])


def _lloyd(points: np.ndarray, weight: np.ndarray, origin: np.ndarray, iterations: int) -> np.ndarray:
    centroids = origin.copy()
    for _ in range(iterations):
        nearest = _nearest(points, centroids)
        members = csr_array((weight, (nearest, np.arange(len(points)))), shape=(len(centroids), len(points)))
        count = members.sum(axis=1)
        centroids = np.where(count[:, None] > 0, members @ points / np.maximum(count, 1)[:, None], centroids)
    return centroids


def _blocks_state(blocks: Blocks) -> np.ndarray:
    return np.array([blocks.grid, blocks.size, blocks.stride], np.int64)


def _blocks_of(state: np.ndarray) -> Blocks:
    grid, size, stride = ((int(a), int(b)) for a, b in state)
    return Blocks(grid, size, stride)
