"""The hidden tree as a family of laws: a class above it, its tables as integers, more images added by recounting."""

import math
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int64

from renorm.errors import DataError, RecipeError
from renorm.tokens.codebooks.codebook import Codebook
from renorm.tokens.codebooks.values import ValueCodebook
from renorm.tokens.codec.integers import BITS, IntegerTables, integer_tables, packed, unpacked
from renorm.tokens.families.hidden_tree import HiddenPrior, fit_hidden_tree
from renorm.tokens.families.pixel_tree import block_tree, chow_liu, latent_tree, states_by_entropy
from renorm.tokens.trees.shape import Tree
from renorm.tokens.trees.tree import TreeLaw
from renorm.tokens.trees.tree_counts import TreeCounts

__all__ = ["HiddenTree"]

SHELLS = 4  # levels between the tokens and the root
ROWS = 2048
LEAN = 1.0  # counts by which a class leans on the mean of all


class HiddenTree:
    r"""A hidden token behind each site, in a tree that follows the mutual information of the sites.

    $$ p(c, h, x) = p(c)\, p(h_0 \mid c) \prod_i p(h_i \mid h_{\mathrm{parent}(i)}) \prod_i p(x_i \mid h_i) $$

    Learned by recounting, batch after batch (``fit_hidden_tree``); then every table is rounded to integers of sum
    $2^{16}$, so that the law is the same number on every machine, in a file as in memory.

    Args:
        states: Most states of a hidden token; sites that hardly vary get fewer.
        structure: Maximum spanning tree of the mutual information (Chow and Liu), or blocks of 2 x 2.
        epochs: Passes over the images.
        batch: Images between two updates.
        grey, step, fade, floor, shades: See ``HiddenPrior``.

    Attributes:
        tree: Class, hidden tokens by their distance from the root, grey values.
        images: Number of images that the tables stand for.

    Source: Chow and Liu (1968); Liu and Van den Broeck, NeurIPS (2021).

    Example: two sites that always agree.
        >>> from renorm.tokens.codebooks.values import ValueCodebook
        >>> z = np.repeat(np.random.default_rng(0).integers(0, 2, (400, 1)), 4, axis=1)
        >>> model = HiddenTree(states=2, batch=100, grey=1.0)
        >>> law = model.fit(ValueCodebook((1, 2, 2), 2), z, z[:, 0], 2, None, seed=0).law()
        >>> bool(law.log_prob(law.observe(torch.ones(1, 4, dtype=torch.int64))).exp() > 0.4)
        True
    """

    kind = "hidden-tree"
    lossless = False

    def __init__(
        self,
        *,
        states: int = 32,
        structure: Literal["chow-liu", "blocks"] = "chow-liu",
        epochs: float = 1.0,
        batch: int = 500,
        grey: float = 1000.0,
        shades: int = 24,
        step: float = 2.0,
        fade: float = 0.7,
        floor: float = 0.05,
        progress: Callable[[int, int, float], None] | None = None,
    ) -> None:
        if states < 2 or batch < 1 or epochs <= 0:
            raise RecipeError(f"states must be >= 2, batch >= 1 and epochs > 0, got {states}, {batch} and {epochs}")
        self.states_of_each, self.structure, self.epochs, self.batch = states, structure, epochs, batch
        self.prior = HiddenPrior(grey=grey, shades=shades, step=step, fade=fade, floor=floor)
        self.progress = progress
        self.tree = Tree(np.array([-1]), np.array([1]), np.array([], np.int64))
        self.integers = IntegerTables(np.array([2**BITS]), [])
        self.images = 0.0

    def fit(
        self,
        codebook: Codebook,
        tokens: Int64[np.ndarray, "number positions"],
        labels: Int64[np.ndarray, " number"],
        num_classes: int,
        weight: Float[np.ndarray, " number"] | None,
        *,
        seed: int,
    ) -> "HiddenTree":
        """Find the tree, then count again and again.

        Args:
            codebook: Gives the number of grey values and the lattice.
            tokens: Grey values.
            labels: Class of each image, -1 where unknown; they touch the highest table only.
            num_classes: States of the root.
            weight: Must be 1 everywhere, if given: batches count each image once.
            seed: Of the start and of the order of the images.

        Raises:
            DataError: If weights are given, or the sites have different numbers of values.
        """
        if weight is not None and (weight != 1).any():
            raise DataError("a hidden tree counts each image once; repeat images instead of giving sample_weight")
        greys = int(codebook.sizes.max())
        if not isinstance(codebook, ValueCodebook):
            raise DataError(
                f"a hidden tree stands on the values of sites, got {codebook!r}; take the codebook 'values'"
            )
        if len(tokens) < self.states_of_each:
            raise DataError(
                f"{self.states_of_each} hidden states begin as clusters of as many images, got {len(tokens)}; "
                "take fewer states or more images"
            )
        channels, *shape = codebook.shape
        if self.structure == "blocks":
            parent, carriers = block_tree((shape[0], shape[1]), channels=channels)
            inner = latent_tree(parent, self.states_of_each, carriers=carriers, greys=greys)
        else:
            each = states_by_entropy(tokens, self.states_of_each)
            inner = latent_tree(chow_liu(tokens), each, greys=greys)
        law = fit_hidden_tree(
            tokens,
            inner,
            shape=codebook.shape,
            epochs=self.epochs,
            batch=min(self.batch, len(tokens)),
            prior=self.prior,
            seed=seed,
            progress=self.progress,
        )
        self.progress = None  # told of this fit alone: a bar on a terminal cannot be copied to another process
        self.tree = _with_class(inner, num_classes)
        self.images = float(len(tokens))
        root, first = _class_tables(law, tokens, labels, num_classes)
        self.integers = integer_tables(TreeLaw(self.tree, root, [first[None], *law.tables]))
        return self

    def add(
        self,
        tokens: Int64[np.ndarray, "number positions"],
        labels: Int64[np.ndarray, " number"],
        weight: Float[np.ndarray, " number"] | None = None,
    ) -> "HiddenTree":
        """One more recount: what the present law expects of new images is added to what the tables stand for."""
        law = self.law()
        observed = law.observe(torch.from_numpy(tokens))
        observed[:, 0] = torch.from_numpy(labels)
        share = None if weight is None else torch.from_numpy(weight).float()
        new = law.expected_counts(observed, share)
        old = _row_masses(law, self.images)
        tables = []
        for table, mass, counts in zip(law.tables, old, new.tables, strict=True):
            grown = table * mass[..., None] + counts
            tables.append(grown / grown.sum(-1, keepdim=True).clamp_min(1e-30))
        root = law.root * self.images + new.root
        self.images += len(tokens) if weight is None else float(weight.sum())
        self.integers = integer_tables(TreeLaw(self.tree, root / root.sum(), tables))
        return self

    def merge(self, other: "HiddenTree") -> "HiddenTree":
        """Refused: expectations of two laws are not counts of one."""
        raise DataError("hidden states of two fits do not mean the same; use partial_fit, or fit on all images")

    def states(
        self, tokens: Int64[np.ndarray, "number positions"], labels: Int64[np.ndarray, " number"]
    ) -> Int64[np.ndarray, "number nodes"]:
        """Class and grey values; hidden tokens are -1."""
        found = np.full((len(tokens), len(self.tree)), -1, np.int64)
        found[:, 0] = labels
        found[:, self.tree.leaves] = tokens
        return found

    def law(self) -> TreeLaw:
        """The integers as probabilities: exact in float32."""
        scale = np.float32(2.0**-BITS)
        stacks = [torch.from_numpy(stack.astype(np.float32) * scale) for stack in self.integers.stacks]
        return TreeLaw(self.tree, torch.from_numpy(self.integers.root.astype(np.float32) * scale), stacks)

    @property
    def coarse_nodes(self) -> list[tuple[Int64[np.ndarray, " nodes"], tuple[int, int]]]:
        """Hidden tokens within some distance of the root: all, then those within 1/2, 1/4, ... of it."""
        inner = len(self.tree) - len(self.tree.leaves)
        depth = self.tree.depth[1:inner]
        if not len(depth):
            return []
        found: list[tuple[np.ndarray, tuple[int, int]]] = []
        for shell in range(SHELLS):
            nodes = 1 + np.flatnonzero(depth <= max(1, math.ceil(depth.max() / 2**shell)))
            if not found or len(nodes) < len(found[-1][0]):
                found.append((nodes, (1, len(nodes))))
        return found

    @property
    def counts(self) -> TreeCounts:
        """Nothing: the tables are expectations, see ``images``."""
        return TreeCounts.empty(self.tree)

    @counts.setter
    def counts(self, value: TreeCounts) -> None:
        raise DataError("the counts of a hidden tree are expectations under its law; use partial_fit")

    def state(self) -> dict[str, np.ndarray]:
        """Arrays to store; ``restore`` reads them."""
        tree = {"parent": self.tree.parent, "states": self.tree.states, "leaves": self.tree.leaves}
        return tree | {"images": np.array([self.images])} | packed(self.integers)

    def restore(self, codebook: Codebook, num_classes: int, state: Mapping[str, np.ndarray]) -> "HiddenTree":
        """Read what ``state`` gave."""
        self.tree = Tree(state["parent"], state["states"], state["leaves"])
        self.images = float(state["images"][0])
        named = {key: array for key, array in state.items() if key == "root" or key.startswith("layer")}
        self.integers = unpacked(named)
        return self


def _with_class(tree: Tree, num_classes: int) -> Tree:
    """The tree with the class above its root."""
    parent = np.concatenate([[-1], tree.parent + 1])
    return Tree(parent, np.concatenate([[num_classes], tree.states]), tree.leaves + 1)


def _class_tables(
    law: TreeLaw, tokens: np.ndarray, labels: np.ndarray, num_classes: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """How often each class comes, and p(highest hidden token | class) from its posterior in each image."""
    known = np.flatnonzero(labels >= 0)
    joint = torch.zeros(num_classes, len(law.root))
    for start in range(0, len(known), ROWS):
        rows = known[start : start + ROWS]
        posterior = law.root_log_prob(law.observe(torch.from_numpy(tokens[rows]))).softmax(-1)
        joint.index_add_(0, torch.from_numpy(labels[rows]), posterior)
    number = joint.sum(-1, keepdim=True)
    root = (number[:, 0] + 1) / (number.sum() + num_classes)
    return root, (joint + LEAN * law.root) / (number + LEAN)


def _row_masses(law: TreeLaw, images: float) -> list[torch.Tensor]:
    """How many images each row of each table stands for: the probability of its parent state, times all images."""
    mass = [law.root * images]
    place = {0: 0}
    found = []
    for layer, tables in zip(law.tree.layers, law.tables, strict=True):
        rows = torch.stack([mass[place[int(node)]] for node in layer.parents])
        found.append(torch.zeros(tables.shape[:2]).index_add_(0, torch.from_numpy(layer.table), rows))
        if not layer.leaf:
            children = torch.einsum("ns,nsk->nk", rows, tables[torch.from_numpy(layer.table)])
            for node, child in zip(layer.nodes, children, strict=True):
                place[int(node)] = len(mass)
                mass.append(child)
    return found
