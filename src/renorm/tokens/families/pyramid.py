"""Blocks upon blocks: tokens of tokens up to the class, learned in one pass of counting.

``lite`` ("Renormalization, Lite"), its variants with positions, plain p(token | class) without any blocks, and trees of
enumerated blocks, which lose nothing, are values of this one family.
"""

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int64

from renorm.errors import RecipeError
from renorm.tokens.codebooks.codebook import Codebook
from renorm.tokens.families.structure import Blocks, ClusterParents, EnumerateParents
from renorm.tokens.trees.tree import Tree, TreeLaw
from renorm.tokens.trees.tree_counts import TreeCounts

__all__ = ["Pyramid", "Share"]

Share = Literal["all", "places", "none"]
"""Which nodes of a level share a table: all; those at the same place of their block (the top ones each their own);
none."""


class Pyramid:
    r"""A tree of tokens: class, coarsest blocks, ..., level-1 tokens.

    $$ p(c, s, z) = p(c) \prod_b p(s_b \mid c) \prod_{i \in b} p(z_i \mid s_b) \cdots $$

    Parents are functions of their children (clusters, or a number for each distinct tuple). They are observed while
    learning, so that one pass of counting is all; at a test they are summed out.

    Args:
        levels: Number of levels of blocks above the tokens.
        block: Children along each axis of a block.
        overlap: Whether the blocks of the first level overlap (stride 1).
        parents: Number of clusters of each level, coarse levels last; empty: each distinct tuple is a state.
        share: Which nodes of a level share a table.
        start, standardise: Of the clusters, see ``ClusterParents``.
        components: Principal components of a cluster's looks that the next level sees; 0: all.
        concentration, backoff: See ``TreeCounts.law``.
    """

    kind = "pyramid"

    def __init__(
        self,
        *,
        levels: int,
        block: int = 2,
        overlap: bool = False,
        parents: tuple[int, ...] = (),
        share: Share = "none",
        start: Literal["samples", "distinct"] = "distinct",
        standardise: bool = False,
        components: int = 64,
        concentration: float = 1.0,
        backoff: float = 0.0,
    ) -> None:
        if parents and len(parents) not in (1, levels):
            raise RecipeError(
                f"parents needs one number of clusters, or one for each of {levels} levels, got {parents}"
            )
        self.levels, self.block, self.overlap, self.share = levels, block, overlap, share
        self.parents, self.start = parents, start
        self.standardise, self.components = standardise, components
        self.concentration, self.backoff = concentration, backoff
        self.rules: list[ClusterParents | EnumerateParents] = []
        self.tree = Tree(np.array([-1]), np.array([1]), np.array([], np.int64))
        self.counts = TreeCounts.empty(self.tree)

    def fit(
        self,
        codebook: Codebook,
        tokens: Int64[np.ndarray, "number positions"],
        labels: Int64[np.ndarray, " number"],
        num_classes: int,
        weight: Float[np.ndarray, " number"] | None,
        *,
        seed: int,
    ) -> "Pyramid":
        """Make the parents' states, then count.

        Args:
            codebook: Gives the grid, and what each token looks like.
            tokens: Level-1 tokens.
            labels: Class of each image, -1 where unknown; all 0 where there are no classes.
            num_classes: States of the root.
            weight: How often each image counts.
            seed: Of the clustering.
        """
        self._learn_rules(codebook, tokens, seed)
        self.tree = self._grow(codebook, num_classes)
        self.counts = TreeCounts.empty(self.tree)
        return self.add(tokens, labels, weight)

    def add(
        self,
        tokens: Int64[np.ndarray, "number positions"],
        labels: Int64[np.ndarray, " number"],
        weight: Float[np.ndarray, " number"] | None = None,
    ) -> "Pyramid":
        """Count more images."""
        self.counts = self.counts + TreeCounts.of(self.tree, self.states(tokens, labels), weight)
        return self

    def states(
        self, tokens: Int64[np.ndarray, "number positions"], labels: Int64[np.ndarray, " number"]
    ) -> Int64[np.ndarray, "number nodes"]:
        """State of every node: the class, the parents as functions of their children, the tokens."""
        pyramid = [tokens]
        for rule in self.rules:
            pyramid.append(rule.encode(pyramid[-1]))
        return np.concatenate([labels[:, None], *pyramid[::-1]], axis=1)

    def law(self) -> TreeLaw:
        """The law of the predictive probabilities, in float64 where nothing is smoothed."""
        dtype = torch.float64 if self.lossless else torch.float32
        return self.counts.law(self.tree, concentration=self.concentration, backoff=self.backoff, dtype=dtype)

    @property
    def lossless(self) -> bool:
        """Whether tokens fix every node above them: each tuple is a state, and no other could have made it."""
        return bool(self.rules) and not self.parents and self.concentration == 0 and self.backoff == 0

    @property
    def coarse_nodes(self) -> list[tuple[Int64[np.ndarray, " nodes"], tuple[int, int]]]:
        """Nodes and grid of each level above the tokens, finest first."""
        found, end = [], len(self.tree) - len(self.tree.leaves)
        for rule in self.rules:
            number = len(rule.blocks.children)
            found.append((np.arange(end - number, end), rule.blocks.parent_grid))
            end -= number
        return found

    def _learn_rules(self, codebook: Codebook, tokens: np.ndarray, seed: int) -> None:
        self.rules = []
        if self.levels and codebook.grid is None:
            raise RecipeError("blocks need tokens on a grid, this codebook has none; choose levels = 0")
        grid = codebook.grid or (1, tokens.shape[1])
        vectors = codebook.vectors() if self.parents else np.empty((0, 0))
        for level in range(self.levels):
            size = (min(self.block, grid[0]), min(self.block, grid[1]))
            blocks = Blocks(grid, size, (1, 1) if self.overlap and level == 0 else size)
            rule: ClusterParents | EnumerateParents
            if self.parents:
                number = self.parents[level] if len(self.parents) > 1 else self.parents[0]
                rule = ClusterParents(number, blocks, start=self.start, standardise=self.standardise)
                vectors = _principal(rule.fit(tokens, vectors, seed=seed).vectors, self.components)
            else:
                rule = EnumerateParents(blocks, shared=self.share == "all").fit(tokens)
            tokens, grid = rule.encode(tokens), blocks.parent_grid
            self.rules.append(rule)

    def _grow(self, codebook: Codebook, num_classes: int) -> Tree:
        """The tree: class, coarsest level first, tokens last."""
        sizes = [codebook.sizes, *(rule.sizes for rule in self.rules)][::-1]
        offsets = 1 + np.concatenate([[0], np.cumsum([len(size) for size in sizes])])
        parent = [np.array([-1]), np.zeros(len(sizes[0]), np.int64)]
        places = [np.array([0]), np.arange(len(sizes[0]))]
        for level, rule in enumerate(self.rules[::-1]):
            parent.append(offsets[level] + rule.blocks.owner)
            children, owner = rule.blocks.children, rule.blocks.owner
            places.append(np.array([np.flatnonzero(children[o] == i)[0] for i, o in enumerate(owner)]))
        return Tree(
            np.concatenate(parent),
            np.concatenate([[num_classes], *sizes]).astype(np.int64),
            leaves=np.arange(offsets[-2], offsets[-1]),
            tie=self._tie(places),
        )

    def _tie(self, places: list[np.ndarray]) -> np.ndarray | None:
        if self.share == "none" or (self.share == "places" and not self.parents):
            return None  # numbers of tuples differ from place to place
        names = [np.zeros_like(place) if self.share == "all" else place for place in places]
        starts = np.cumsum([0, *(int(name.max()) + 1 for name in names)])
        return np.concatenate([name + start for name, start in zip(names, starts[:-1], strict=True)])

    def state(self) -> dict[str, np.ndarray]:
        """Arrays to store; ``restore`` reads them."""
        found = {f"counts.{key}": array for key, array in self.counts.state().items()}
        for level, rule in enumerate(self.rules):
            found |= {f"rule{level}.{key}": array for key, array in rule.state().items()}
        return found

    def restore(self, codebook: Codebook, num_classes: int, state: Mapping[str, np.ndarray]) -> "Pyramid":
        """Read what ``state`` gave."""
        parts: dict[str, dict[str, np.ndarray]] = {}
        for name, array in state.items():
            part, key = name.split(".", 1)
            parts.setdefault(part, {})[key] = array
        kind = ClusterParents if self.parents else EnumerateParents
        self.rules = [kind.from_state(parts[f"rule{level}"]) for level in range(self.levels)]
        self.tree = self._grow(codebook, num_classes)
        self.counts = TreeCounts.from_state(parts["counts"])
        return self


def _principal(vectors: np.ndarray, components: int) -> np.ndarray:
    """Vectors in their own principal components, which keeps what matters of their distances."""
    if not 0 < components < vectors.shape[1]:
        return vectors
    centred = (vectors - vectors.mean(axis=0)).astype(np.float64)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    return np.asarray(centred @ axes[:components].T, vectors.dtype)
