"""A tree of exemplars: class, exemplar, groups of groups, groups, tokens; its states are taken from few images.

The renormalising generative model of Friston et al. is one set of values of this family (``PAPER``).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64

from renorm.errors import DataError, RecipeError
from renorm.tokens.codebooks.clustering import cluster, nearest
from renorm.tokens.codebooks.codebook import Codebook
from renorm.tokens.families.gated import learn_in_order
from renorm.tokens.families.grouping import groups_by_information, groups_by_place, halving_edges, pair_information
from renorm.tokens.trees.counts import Counts, smooth
from renorm.tokens.trees.rows import distinct_rows
from renorm.tokens.trees.tree import Tree, TreeLaw
from renorm.tokens.trees.tree_counts import TreeCounts

__all__ = ["PAPER", "Exemplars", "accuracy_by_evidence"]

PAPER: dict[str, Any] = {
    "choose": "first",
    "edges": (),
    "parts": 0,
    "learn": "in-order",
    "concentration": 1 / 16,
    "class_concentration": 1 / 128,
    "gate": 512.0,
    "horizon": 512.0,
    "neighbour": 0.0,
    "token_backoff": 0.0,
    "part_backoff": 0.0,
    "class_backoff": 0.0,
}
"""The values of arXiv:2407.20292, where they differ from the defaults."""

LEAST = 2.0**-20  # a count that was nearly forgotten keeps this much: no token ever becomes impossible
ITERATIONS = 15  # rounds of k-means


class Exemplars:
    r"""A tree whose highest states are exemplars, some of each class.

    $$ p(c, e, s, z) = p(c)\, p(e \mid c) \prod_g p(s_g \mid s_{\mathrm{parent}(g)}) \prod_{i \in g} p(z_i \mid s_g) $$

    Groups are found by place, again and again, until one group is left: its states are the exemplars e. The states of a
    group below are either the distinct tuples that its children show in the exemplars (``parts = 0``: fast structure
    learning), or clusters of what its tokens show in all images. Then the tables are learned with the class given: in
    sweeps over all images, by expected counts,

    $$ n_i(s, k) = \sum_{\mathrm{images}} p(s_{\mathrm{parent}(i)} = s, s_i = k \mid z, c), \qquad
       \theta_{sk} = \frac{n_{sk} + \kappa m_k}{n_s + \kappa} , $$

    with back-off to the table of the class and to that of all images; or image by image with gate and forgetting
    (``learn_in_order``). There first images count as exemplars, and are not learned again; means of clusters are no
    images, and count once each beforehand. The root counts the weight of each labelled image that was learned.

    Args:
        exemplars: Of each class.
        choose: Exemplars are the first images of each class, or the means of clusters (in token space).
        edges: Edges of the lattices to which groups belong, finest first; empty: halve until one group is left. One
            last group, the exemplar, is put on top where the last lattice leaves more.
        together: Most tokens of a group where groups are found by mutual information instead; 0: by place.
        parts: Most states of a group, found by clustering; 0: the distinct tuples of the exemplars.
        learn: ``"sweeps"`` over all images, ``"in-order"``, or ``"not"`` at all beyond the exemplars.
        sweeps: Times that all images are counted anew.
        neighbour: Share of each token's count that goes to the two tokens next to it (for bins of a size).
        token_backoff: $\kappa$ of tokens given their group, in counts.
        part_backoff: $\kappa$ of groups given what is above.
        class_backoff: $\kappa$ of the class's table, on which the exemplars' tables lean.
        concentration, class_concentration: Counts put beforehand into each cell, unless learning in sweeps.
        gate: $\beta$ per nat of mutual information, when learning in order.
        horizon: $\eta$, total count of a table in the long run, when learning in order.

    Attributes:
        tree, counts: After ``fit``.

    Raises:
        RecipeError: If a value is out of range.

    Source: Friston et al. 2024, "From pixels to planning: scale-free active inference", arXiv:2407.20292.

    Example: four tokens, two classes, one exemplar each.
        >>> from renorm.tokens.codebooks.values import ValueCodebook
        >>> tokens, labels = np.array([[0, 0, 1, 1], [1, 1, 0, 0]]), np.array([0, 1])
        >>> model = Exemplars(exemplars=1, edges=(2,), parts=0, sweeps=1, neighbour=0.0)
        >>> law = model.fit(ValueCodebook((1, 2, 2), bins=2), tokens, labels, 2, None, seed=0).law()
        >>> law.tree.states.tolist()
        [2, 2, 2, 2, 2, 2, 2, 2, 2, 2]
        >>> law.root_log_prob(law.observe(torch.from_numpy(tokens))).argmax(1).tolist()
        [0, 1]
    """

    kind = "exemplars"
    lossless = False

    def __init__(
        self,
        *,
        exemplars: int = 13,
        choose: Literal["first", "clusters"] = "clusters",
        edges: tuple[int, ...] = (8,),
        together: int = 0,
        parts: int = 130,
        learn: Literal["sweeps", "in-order", "not"] = "sweeps",
        sweeps: int = 3,
        neighbour: float = 0.1,
        token_backoff: float = 1.0,
        part_backoff: float = 20.0,
        class_backoff: float = 10.0,
        concentration: float = 1 / 16,
        class_concentration: float = 1 / 128,
        gate: float = 0.0,
        horizon: float = float("inf"),
    ) -> None:
        self.exemplars, self.choose, self.edges, self.parts = exemplars, choose, edges, parts
        self.together = together
        self.learn, self.sweeps, self.neighbour = learn, sweeps, neighbour
        self.token_backoff, self.part_backoff, self.class_backoff = token_backoff, part_backoff, class_backoff
        self.concentration, self.class_concentration = concentration, class_concentration
        self.gate, self.horizon = gate, horizon
        self._require()
        self.tree = Tree(np.array([-1]), np.array([1]), np.array([], np.int64))
        self.counts = TreeCounts.empty(self.tree)
        self._grids: list[tuple[int, int]] = []

    def fit(
        self,
        codebook: Codebook,
        tokens: Int64[np.ndarray, "number positions"],
        labels: Int64[np.ndarray, " number"],
        num_classes: int,
        weight: Float[np.ndarray, " number"] | None,
        *,
        seed: int,
    ) -> "Exemplars":
        """Choose the exemplars, make the states, learn the tables.

        Args:
            codebook: Says where tokens lie, and what they are worth if it has ``values``.
            tokens: Level-1 tokens, none hidden.
            labels: Class of each image, -1 where unknown (such images are learned from in sweeps only).
            num_classes: States of the root.
            weight: How often each image counts.
            seed: Of the clustering.

        Raises:
            DataError: If a token is hidden or no label is known.
        """
        tokens, labels, weight = _counting(tokens, labels, weight)
        if tokens.min(initial=0) < 0 or not (labels >= 0).any():
            raise DataError("exemplars are chosen among images with a class and without hidden tokens (-1), got none")
        groups = self._groups(codebook.locations, tokens)
        looks = _Looks(codebook, tokens)
        owner, members = self._choose(looks, labels, num_classes, seed)
        once = np.ones(len(labels)) if weight is None else weight
        share = self._shares(members, once)
        if self.parts:
            states = self._cluster(looks, groups, members, labels, seed)
        else:
            states = _enumerate(groups, _exemplar_tokens(tokens, members, once), owner)
            share = np.ones(len(owner)) if self.learn == "sweeps" else _sums(members, share)
        self._grow(groups, states, codebook.sizes, num_classes)
        start = TreeCounts.of(self.tree, states, share)
        self.counts = start if self.learn == "not" else TreeCounts(self._labelled(labels, weight), start.layers)
        if self.learn == "in-order" and self.choose == "first":  # exemplars have been counted
            tokens, labels, weight = _counting(tokens, labels, np.where(members < 0, once, 0.0))
        return self._learn(tokens, labels, weight)

    def add(
        self,
        tokens: Int64[np.ndarray, "number positions"],
        labels: Int64[np.ndarray, " number"],
        weight: Float[np.ndarray, " number"] | None = None,
    ) -> "Exemplars":
        """Count more images on the same tree: by what the present law expects, or in order with gate and forgetting."""
        tokens, labels, weight = _counting(tokens, labels, weight)
        if self.learn == "in-order":
            layers = self._in_order(tokens, labels, weight)
            self.counts = TreeCounts(self.counts.root + self._labelled(labels, weight), layers)
        elif len(tokens):
            self.counts = self.counts + self._expected(tokens, labels, weight)
        return self

    def states(
        self, tokens: Int64[np.ndarray, "number positions"], labels: Int64[np.ndarray, " number"]
    ) -> Int64[np.ndarray, "number nodes"]:
        """The class and the tokens; all between them is hidden (-1)."""
        found = np.full((len(tokens), len(self.tree)), -1, np.int64)
        found[:, 0] = labels
        found[:, self.tree.leaves] = tokens
        return found

    def law(self) -> TreeLaw:
        """The law of the predictive probabilities."""
        tables, owner = [], smooth(self.counts.layers[0].dense()[0].T, None, 0.0)  # p(class | exemplar), even prior
        for layer, counts in zip(self.tree.layers, self.counts.layers, strict=True):
            n = counts.dense()
            if layer.depth == 1:
                table = smooth(n, None, 0.0)
            elif layer.leaf:
                n = n @ _spread(n.shape[-1], self.neighbour)
                table = smooth(n, _mean(n, 0.5), self.token_backoff)
            else:
                base = _mean(n, LEAST)
                if layer.depth == 2 and self.class_backoff > 0:
                    by_class = np.einsum("tsk,sc->tck", n, owner)
                    base = np.einsum("sc,tck->tsk", owner, smooth(by_class, base, self.class_backoff))
                table = smooth(n, base, self.part_backoff)
            tables.append(torch.from_numpy(table).float())
        root = smooth(self.counts.root.dense()[0, 0], None, 1.0)
        return TreeLaw(self.tree, torch.from_numpy(root).float(), tables)

    @property
    def coarse_nodes(self) -> list[tuple[Int64[np.ndarray, " nodes"], tuple[int, int]]]:
        """Nodes and grid of each level above the tokens, finest first."""
        found, end = [], len(self.tree) - len(self.tree.leaves)
        for grid in self._grids:
            number = grid[0] * grid[1]
            found.append((np.arange(end - number, end), grid))
            end -= number
        return found

    def state(self) -> dict[str, np.ndarray]:
        """Arrays to store; ``restore`` reads them."""
        found = {f"counts.{key}": array for key, array in self.counts.state().items()}
        tree = {"parent": self.tree.parent, "states": self.tree.states, "leaves": self.tree.leaves}
        return found | tree | {"grids": np.array(self._grids, np.int64).reshape(-1, 2)}

    def restore(self, codebook: Codebook, num_classes: int, state: Mapping[str, np.ndarray]) -> "Exemplars":
        """Read what ``state`` gave."""
        self.tree = Tree(state["parent"], state["states"], state["leaves"])
        self._grids = [(int(rows), int(columns)) for rows, columns in state["grids"]]
        counts = {key.removeprefix("counts."): a for key, a in state.items() if key.startswith("counts.")}
        self.counts = TreeCounts.from_state(counts)
        return self

    def _require(self) -> None:
        least = min(self.concentration, self.class_concentration)
        rules = [
            (self.exemplars >= 1, "exemplars must be >= 1 of each class", self.exemplars),
            (self.together >= 0, "together must be >= 0 tokens (0: groups by place)", self.together),
            (self.parts >= 0, "parts must be >= 0 (0: the distinct tuples of the exemplars)", self.parts),
            (self.sweeps >= 1, "sweeps must be >= 1 (or learn = 'not')", self.sweeps),
            (0 <= self.neighbour < 1, "neighbour must be in [0, 1), a share of a count", self.neighbour),
            (all(edge >= 1 for edge in self.edges), "edges must be >= 1 group", self.edges),
            (self.learn == "sweeps" or least > 0, "concentrations must be > 0 unless learning in sweeps", least),
        ]
        for kept, rule, value in rules:
            if not kept:
                raise RecipeError(f"{rule}, got {value}")

    def _groups(self, locations: np.ndarray, tokens: np.ndarray) -> list[np.ndarray]:
        """Group of each child, level by level; the last level has one group. Sets the grids."""
        if self.together:
            group = groups_by_information(pair_information(tokens), self.together)
            number = int(group.max()) + 1
            self._grids = [(1, number), (1, 1)]
            return [group, np.zeros(number, np.int64)]
        found: list[np.ndarray] = []
        self._grids = []
        for edge in (*(self.edges or halving_edges(locations)), 1):
            if found and len(locations) == 1:
                break
            group = groups_by_place(locations, edge)
            number = int(group.max()) + 1
            locations = np.stack([locations[group == g].mean(axis=0) for g in range(number)])
            self._grids.append((edge, edge) if number == edge**2 else (1, number))
            found.append(group)
        return found

    def _choose(
        self, looks: "_Looks", labels: np.ndarray, num_classes: int, seed: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Class of each exemplar; exemplar of each image, -1 for those that belong to none."""
        owner: list[int] = []
        members = np.full(len(labels), -1, np.int64)
        for c in range(num_classes):
            images = np.flatnonzero(labels == c)
            if not len(images):
                continue
            if self.choose == "first":
                images = images[: self.exemplars]
                members[images] = len(owner) + np.arange(len(images))
            else:
                members[images] = len(owner) + looks.clusters(images, slice(None), self.exemplars, seed)
            owner += [c] * (int(members.max()) + 1 - len(owner))
        return np.array(owner, np.int64), members

    def _shares(self, members: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """How often each image counts in the tables from which learning starts."""
        if self.learn != "in-order":
            return weight
        each = 1.0 if self.choose == "first" else _sums(members, weight)[members]
        return np.where(members < 0, 0.0, weight / each)

    def _labelled(self, labels: np.ndarray, weight: np.ndarray | None) -> Counts:
        return Counts.of((1, 1, int(self.tree.states[0])), parent=0, child=labels, weight=weight)

    def _cluster(
        self, looks: "_Looks", groups: Sequence[np.ndarray], members: np.ndarray, labels: np.ndarray, seed: int
    ) -> np.ndarray:
        """State of each node in each image: the tokens of a group by clusters, the exemplar by membership."""
        every, columns, below = np.arange(len(labels)), [looks.tokens], np.arange(looks.tokens.shape[1])
        for group in groups[:-1]:
            below = group[below]
            places = [np.flatnonzero(below == g) for g in range(group.max() + 1)]
            columns.append(np.stack([looks.clusters(every, part, self.parts, seed) for part in places], axis=1))
        return np.concatenate([labels[:, None], members[:, None], *columns[:0:-1], columns[0]], axis=1)

    def _grow(self, groups: Sequence[np.ndarray], states: np.ndarray, sizes: np.ndarray, num_classes: int) -> None:
        """The tree: class, exemplar, coarsest groups first, tokens last."""
        widths = [int(group.max()) + 1 for group in groups[::-1]]
        first = 1 + np.concatenate([[0], np.cumsum(widths)])
        parent = [np.array([-1, 0]), *(at + group for at, group in zip(first[:-1], groups[::-1], strict=True))]
        number = states.max(axis=0) + 1
        number[0], number[first[-1] :] = num_classes, sizes
        leaves = np.arange(first[-1], len(number))
        self.tree = Tree(np.concatenate(parent).astype(np.int64), number.astype(np.int64), leaves)

    def _learn(self, tokens: np.ndarray, labels: np.ndarray, weight: np.ndarray | None) -> "Exemplars":
        if self.learn == "sweeps":
            for _ in range(self.sweeps):
                self.counts = self._expected(tokens, labels, weight)
            return self
        before = [
            torch.from_numpy(n.dense() + (self.class_concentration if layer.depth == 1 else self.concentration))
            for layer, n in zip(self.tree.layers, self.counts.layers, strict=True)
        ]
        self.counts = TreeCounts.expected(torch.from_numpy(self.counts.root.dense()[0, 0]), before)
        if self.learn == "in-order":
            self.counts = TreeCounts(self.counts.root, self._in_order(tokens, labels, weight))
        return self

    def _expected(self, tokens: np.ndarray, labels: np.ndarray, weight: np.ndarray | None) -> TreeCounts:
        share = None if weight is None else torch.from_numpy(weight).float()
        found = self.law().expected_counts(torch.from_numpy(self.states(tokens, labels)), share)
        return TreeCounts.expected(found.root, found.tables)

    def _in_order(self, tokens: np.ndarray, labels: np.ndarray, weight: np.ndarray | None) -> tuple[Counts, ...]:
        tables, states = [layer.dense() for layer in self.counts.layers], self.states(tokens, labels)
        tables = learn_in_order(self.tree, tables, states, weight, gate=self.gate, horizon=self.horizon)
        return tuple(Counts.from_dense(np.maximum(n, LEAST)) for n in tables)


class _Looks:
    """What tokens are worth: the codebook's ``values``, or a place of its own for each token."""

    def __init__(self, codebook: Codebook, tokens: np.ndarray) -> None:
        self.tokens = tokens
        values = getattr(codebook, "values", None)
        self._values = None if values is None else values(tokens)

    def clusters(self, images: np.ndarray, positions: Any, number: int, seed: int) -> np.ndarray:
        """Cluster of each image, of at most ``number``, by some of its tokens."""
        tokens = self.tokens[images][:, positions]
        if self._values is not None:
            points = np.ascontiguousarray(self._values[images][:, positions], np.float32)
        else:
            width = int(tokens.max(initial=0)) + 1
            points = (tokens[..., None] == np.arange(width)).reshape(len(tokens), -1).astype(np.float32)
        distinct, place = np.unique(tokens, axis=0, return_inverse=True)
        if len(distinct) <= number:
            return place.reshape(-1).astype(np.int64)
        centroids = cluster(points, number, method="full", iterations=ITERATIONS, seed=seed)
        _, place = np.unique(nearest(points, centroids)[:, 0], return_inverse=True)
        return place.reshape(-1).astype(np.int64)


def accuracy_by_evidence(
    correct: Bool[np.ndarray, " number"],
    log_evidence: Float[np.ndarray, " number"],
    fractions: Sequence[float],
) -> Float64[np.ndarray, " fractions"]:
    r"""Share of right answers among the images that the model finds most probable.

    $$ a(f) = \frac{1}{\lceil f n \rceil} \sum_{i \,:\, \mathrm{rank}(i) \le \lceil f n \rceil} [\text{right}_i], \qquad
       \text{rank 1: greatest } \ln p(z_i) $$

    Args:
        correct: Whether each answer was right.
        log_evidence: Log probability of each image, nats.
        fractions: Shares of the images to keep, in (0, 1].

    Raises:
        DataError: If there are no images, or a fraction lies outside (0, 1].

    Example:
        >>> accuracy_by_evidence(np.array([True, False, True, True]), np.array([-1.0, -9.0, -2.0, -3.0]), [0.5, 1.0])
        array([1.  , 0.75])
    """
    if not len(correct) or not all(0 < f <= 1 for f in fractions):
        raise DataError(f"accuracy by evidence needs images and fractions in (0, 1], got {len(correct)}, {fractions}")
    mean = np.cumsum(correct[np.argsort(-log_evidence, kind="stable")]) / np.arange(1, len(correct) + 1)
    kept = [int(np.ceil(f * len(correct) - 1e-9)) for f in fractions]
    return np.asarray(mean[np.array(kept) - 1], np.float64)


def _counting(tokens: np.ndarray, labels: np.ndarray, weight: np.ndarray | None) -> Any:
    """Images of weight 0 left out: in order, they would still make a table forget."""
    if weight is None or weight.all():
        return tokens, labels, weight
    return tokens[weight > 0], labels[weight > 0], weight[weight > 0]


def _sums(members: np.ndarray, share: np.ndarray) -> np.ndarray:
    return np.bincount(members[members >= 0], share[members >= 0])


def _exemplar_tokens(tokens: np.ndarray, members: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The mean token of each exemplar's images: exact where it has one, sensible for bins of a size."""
    total, chosen = _sums(members, weight), members >= 0
    sums = np.zeros((len(total), tokens.shape[1]))
    np.add.at(sums, members[chosen], tokens[chosen] * weight[chosen, None])
    return np.rint(sums / total[:, None]).astype(np.int64)


def _enumerate(groups: Sequence[np.ndarray], exemplars: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """State of each node in each exemplar: distinct tuples, level by level (fast structure learning)."""
    columns = [exemplars]
    for group in groups:
        columns.append(np.stack([distinct_rows(columns[-1][:, group == g])[1] for g in range(group.max() + 1)], axis=1))
    return np.concatenate([owner[:, None], *columns[::-1]], axis=1)


def _mean(n: np.ndarray, concentration: float) -> np.ndarray:
    return smooth(n.sum(-2, keepdims=True), None, concentration * n.shape[-1])


def _spread(tokens: int, share: float) -> np.ndarray:
    """p(counted as k | seen as j): a share goes to the neighbours, all to the one where there is only one."""
    places = np.arange(tokens)
    near = (np.abs(places[:, None] - places) == 1).astype(np.float64)
    return (1 - share) * np.eye(tokens) + share * near / np.maximum(near.sum(axis=1, keepdims=True), 1)
