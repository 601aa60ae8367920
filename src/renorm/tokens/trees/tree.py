"""The law of a token hierarchy: one table of probabilities for each edge of a tree, with exact answers."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from renorm.errors import DataError, RecipeError
from renorm.tokens.trees import inference
from renorm.tokens.trees.evidence import VirtualEvidence
from renorm.tokens.trees.shape import Layer, Tree

__all__ = ["ExpectedCounts", "Layer", "Tree", "TreeLaw", "VirtualEvidence"]


class ExpectedCounts(NamedTuple):
    """Expected counts of an E-step and the log probability, in nats, of all that was seen (times its weight)."""

    root: Float[Tensor, "states"]
    tables: list[Tensor]
    log_prob: float


@dataclass(frozen=True, eq=False)
class TreeLaw:
    r"""A law of categorical variables on a tree, with exact sums over whatever is hidden.

    $$p(s) = p(s_0) \prod_{i > 0} T_i(s_{\mathrm{parent}(i)}, s_i)$$

    Args:
        tree: Which node hangs under which.
        root: Probability of each state of the root.
        tables: For each of ``tree.layers`` the stack of its tables, (tables, states of the parent, states);
            rows sum to 1. Zeros are exact. The law reads the tensors, so do not change them in place.

    Raises:
        RecipeError: If a shape or dtype does not fit the tree, or a row is no distribution.

    Invariant:
        The gradient of ``log_prob`` by the logarithms of the tables is ``expected_counts``.

    Example:
        >>> import numpy as np, torch
        >>> tree = Tree(np.array([-1, 0]), np.array([2, 2]), leaves=np.array([1]))
        >>> law = TreeLaw(tree, torch.tensor([0.5, 0.5]), [torch.tensor([[[0.75, 0.25], [0.25, 0.75]]])])
        >>> law.root_log_prob(law.observe(torch.tensor([[0]]))).exp()
        tensor([[0.3750, 0.1250]])
    """

    tree: Tree
    root: Float[Tensor, "states"]
    tables: list[Tensor]

    def __post_init__(self) -> None:
        """Check shapes, dtype and rows once, so that no pass has to."""
        shapes = [(layer.tables, *layer.shape) for layer in self.tree.layers]
        got = [tuple(table.shape) for table in self.tables]
        if got != shapes or self.root.shape != (int(self.tree.states[0]),):
            raise RecipeError(f"a law needs one stack of tables for each layer, of shapes {shapes}, got {got}")
        if self.root.dtype not in inference.FAINT or any(table.dtype != self.root.dtype for table in self.tables):
            raise RecipeError(f"root and tables must all be float32 or all float64, got root of {self.root.dtype}")
        for table in (self.root, *self.tables):
            total = table.detach().sum(-1)
            if not (table.detach().min() >= 0 and ((total - 1).abs() < 1e-3).all()):
                raise RecipeError("each row of a table must be a distribution (>= 0, sum 1): normalise the counts")

    def log_prob(self, observed: Int64[Tensor, "batch nodes"]) -> Float[Tensor, "batch"]:
        """Log probability of what is seen, the hidden nodes summed out.

        Args:
            observed: State of each node, -1 where hidden.

        Returns:
            Nats; -inf where the law gives probability 0.
        """
        return self._each(lambda law, seen, _: inference.log_prob(inference.upward(law, seen)), observed)

    def root_log_prob(
        self, observed: Int64[Tensor, "batch nodes"], virtual: VirtualEvidence | None = None
    ) -> Float[Tensor, "batch states"]:
        """Log of p(root, seen): log p(class, image) where the root is the class.

        Args:
            observed: State of each node, -1 where hidden.
            virtual: What is known of hidden nodes.
        """

        def weigh(law: inference.Tables, seen: Tensor, known: VirtualEvidence | None) -> Tensor:
            return inference.root_log_prob(inference.upward(law, seen, virtual=known))

        return self._each(weigh, observed, virtual)

    def marginals(self, observed: Int64[Tensor, "batch nodes"]) -> list[Tensor]:
        """Probability of each state of each node given what is seen.

        Args:
            observed: State of each node, -1 where hidden.

        Returns:
            For each node (batch, states); zeros for images of probability 0.
        """
        extra = 3 * int(self.tree.states.sum())
        parts = [inference.marginals(self._prepared, observed[part]) for part in self._chunks(observed, extra)]
        return [torch.cat(node) for node in zip(*parts, strict=True)]

    def most_probable(
        self, observed: Int64[Tensor, "batch nodes"], virtual: VirtualEvidence | None = None
    ) -> Int64[Tensor, "batch nodes"]:
        """The likeliest joint state of the hidden nodes, beside what is seen.

        Args:
            observed: State of each node, -1 where hidden.
            virtual: What is known of hidden nodes.

        Raises:
            DataError: If an image has probability 0.
        """

        def explain(law: inference.Tables, seen: Tensor, known: VirtualEvidence | None) -> Tensor:
            messages = inference.upward(law, seen, maximum=True, virtual=known)
            return inference.descend(law, messages, seen, inference.largest, known)

        return self._each(explain, observed, virtual)

    def sample(
        self,
        observed: Int64[Tensor, "batch nodes"],
        virtual: VirtualEvidence | None = None,
        *,
        generator: torch.Generator,
    ) -> Int64[Tensor, "batch nodes"]:
        """An exact draw of the hidden nodes given what is seen.

        Args:
            observed: State of each node, -1 where hidden.
            virtual: What is known of hidden nodes.
            generator: Source of randomness.

        Raises:
            DataError: If an image has probability 0.
        """

        choose = partial(inference.draw, generator=generator)

        def complete(law: inference.Tables, seen: Tensor, known: VirtualEvidence | None) -> Tensor:
            return inference.descend(law, inference.upward(law, seen, virtual=known), seen, choose, known)

        return self._each(complete, observed, virtual)

    @torch.no_grad()
    def expected_counts(
        self, observed: Int64[Tensor, "batch nodes"], weight: Float[Tensor, "batch"] | None = None
    ) -> ExpectedCounts:
        r"""How often each pair of states of parent and child is expected, given what is seen: the E-step.

        $$n_i(s_p, s_i) = \sum_{\mathrm{images}} w\, p(s_p, s_i \mid \mathrm{seen})$$

        Args:
            observed: State of each node, -1 where hidden.
            weight: Weight of each image, >= 0; default 1.

        Returns:
            Counts of the root, of each stack of tables (nodes that share a table add up), and the log probability.
        """
        prepared, layers = self._prepared, self.tree.layers
        root = torch.zeros_like(self.root)
        rows = [
            torch.zeros_like(seen if seen is not None else stack)
            for seen, stack in zip(prepared.rows, self.tables, strict=True)
        ]
        total = 0.0
        for part in self._chunks(observed):
            share = None if weight is None else weight[part]
            log_prob = inference.count(prepared, observed[part], share, rows, root)
            total += float((log_prob if share is None else share * log_prob).sum(dtype=torch.float64))
        found = []
        for layer, stack, counts in zip(layers, self.tables, rows, strict=True):
            if layer.leaf:
                size = layer.tables * layer.shape[1]
                seen = counts[:size].view(layer.tables, layer.shape[1], layer.shape[0]).transpose(1, 2).contiguous()
                hidden = counts[size:]
                counts = seen.addcmul_(hidden[:, :, None], stack) if hidden.any() else seen
            found.append(counts)
        return ExpectedCounts(root, found, total)

    def observe(self, tokens: Int64[Tensor, "batch positions"]) -> Int64[Tensor, "batch nodes"]:
        """The evidence of codebook tokens: leaves seen (or hidden where -1), all else hidden.

        Args:
            tokens: Token of each position, -1 where hidden.

        Raises:
            DataError: If the number of positions is not that of the leaves.
        """
        if tokens.shape[1] != len(self.tree.leaves):
            raise DataError(
                f"tokens must have one column for each of the {len(self.tree.leaves)} leaves, got {tokens.shape[1]}"
            )
        observed = tokens.new_full((len(tokens), len(self.tree)), -1)
        observed[:, torch.from_numpy(self.tree.leaves)] = tokens
        return observed

    @property
    def _prepared(self) -> inference.Tables:
        """Not kept where a gradient is wanted: its graph would not outlive one backward pass."""
        if torch.is_grad_enabled() and any(table.requires_grad for table in (self.root, *self.tables)):
            return inference.Tables(self.tree, self.root, self.tables)
        return self._kept

    @cached_property
    def _kept(self) -> inference.Tables:
        return inference.Tables(self.tree, self.root.detach(), [table.detach() for table in self.tables])

    def _chunks(self, observed: Tensor, extra: int = 0) -> list[slice]:
        """Check the evidence and cut the batch."""
        if observed.shape[1] != len(self.tree):
            raise DataError(
                f"observed must have one column for each of the {len(self.tree)} nodes, got {observed.shape[1]}: "
                "`observe` makes it of tokens"
            )
        if len(observed) == 0:
            raise DataError("observed must hold at least one image, got 0: there is nothing to infer")
        states = torch.from_numpy(self.tree.states).to(observed.device)
        wrong = (observed < -1) | (observed >= states)
        if wrong.any():
            image, node = (int(k) for k in wrong.nonzero()[0])
            raise DataError(
                f"a state must be -1 (hidden) or less than the node's number of states {states[node]}, "
                f"got {observed[image, node]} at node {node} of image {image}"
            )
        return list(inference.chunks(self.tree, len(observed), self.root.element_size(), extra=extra))

    def _each(
        self,
        answer: Callable[[inference.Tables, Tensor, VirtualEvidence | None], Tensor],
        observed: Tensor,
        virtual: VirtualEvidence | None = None,
    ) -> Tensor:
        """The answer for each chunk of the batch, joined."""
        law, extra = self._prepared, 0
        if virtual is not None:
            self._require_fits(virtual, observed)
            virtual = VirtualEvidence(virtual.nodes, virtual.log.to(self.root.dtype))
            extra = 4 * virtual.log[0].numel()
        parts = self._chunks(observed, extra)
        return torch.cat([answer(law, observed[part], None if virtual is None else virtual[part]) for part in parts])

    def _require_fits(self, virtual: VirtualEvidence, observed: Tensor) -> None:
        """Check the shape of virtual evidence."""
        states = np.unique(self.tree.states[virtual.nodes])
        shape = (len(observed), len(virtual.nodes), int(states[0]) if len(states) else virtual.log.shape[2])
        if len(np.unique(virtual.nodes)) != len(virtual.nodes):
            raise DataError(f"virtual evidence speaks once of each node (add up what you know), got {virtual.nodes}")
        if len(states) > 1 or tuple(virtual.log.shape) != shape:
            raise DataError(
                f"virtual evidence gives each state of each of its nodes a number: the shape {shape}, and nodes of "
                f"equally many states, got {tuple(virtual.log.shape)} and nodes of {states.tolist()} states"
            )
