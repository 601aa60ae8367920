"""From a spec to its parts: the codebooks and the families of laws that there are.

A new family is one new file with a class that keeps to ``Family``, a spec, and one line in ``make_family``.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np

from renorm.tokens.codebooks.codebook import Codebook
from renorm.tokens.codebooks.values import ValueCodebook
from renorm.tokens.families.exemplars import Exemplars
from renorm.tokens.families.pyramid import Pyramid
from renorm.tokens.families.styles import Styles
from renorm.tokens.spec import (
    CodebookSpec,
    ExemplarSpec,
    LawSpec,
    ProductSpec,
    PyramidSpec,
    ResidualSpec,
    StyleSpec,
    ValueSpec,
    WindowSpec,
)
from renorm.tokens.trees.tree import Tree, TreeLaw
from renorm.tokens.trees.tree_counts import TreeCounts

__all__ = ["Family", "Progress", "make_codebook", "make_family"]

Progress = Callable[[int, int, float], None]


@runtime_checkable
class Family(Protocol):
    """A way to grow a tree above tokens and to count on it.

    Attributes:
        tree: The tree, after ``fit``.
        counts: What was seen on its edges; they add.
    """

    tree: Tree
    counts: TreeCounts

    def fit(
        self,
        codebook: Codebook,
        tokens: np.ndarray,
        labels: np.ndarray,
        num_classes: int,
        weight: np.ndarray | None,
        *,
        seed: int,
    ) -> "Family":
        """Grow the tree and count; ``labels`` are -1 where unknown."""
        ...

    def add(self, tokens: np.ndarray, labels: np.ndarray, weight: np.ndarray | None = None) -> "Family":
        """Count more images on the same tree."""
        ...

    def states(self, tokens: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """State of every node that is a function of the tokens or given by the label; -1 for the others."""
        ...

    def law(self) -> TreeLaw:
        """Predictive probabilities of the counts."""
        ...

    @property
    def lossless(self) -> bool:
        """Whether tokens fix the state of every node but the class."""
        ...

    @property
    def coarse_nodes(self) -> list[tuple[np.ndarray, tuple[int, int]]]:
        """Nodes and grid of each level above the tokens, finest first."""
        ...

    def state(self) -> dict[str, np.ndarray]:
        """Arrays to store."""
        ...

    def restore(self, codebook: Codebook, num_classes: int, state: Mapping[str, np.ndarray]) -> "Family":
        """Read what ``state`` gave."""
        ...


def make_codebook(spec: CodebookSpec, shape: tuple[int, int, int]) -> Codebook:
    """The codebook of a spec for images of a shape, not fitted yet."""
    values = _values(spec)
    if isinstance(spec, ValueSpec):
        return ValueCodebook(shape, **values)
    if isinstance(spec, WindowSpec):
        from renorm.tokens.codebooks.windows import WindowCodebook

        return WindowCodebook(shape=shape, **values)
    if isinstance(spec, ResidualSpec | ProductSpec):
        from renorm.tokens.codebooks.residual import ProductCodebook, ResidualCodebook

        return (ResidualCodebook if isinstance(spec, ResidualSpec) else ProductCodebook)(shape=shape, **values)
    from renorm.tokens.codebooks.retina import RetinaCodebook

    return RetinaCodebook(shape=shape, **values)


def make_family(spec: LawSpec, progress: Progress | None = None) -> Family:
    """The family of a spec, not fitted yet; ``progress`` is told of a long fit: done, in all, a falling figure."""
    values = _values(spec)
    if isinstance(spec, PyramidSpec):
        return Pyramid(**values)
    if isinstance(spec, StyleSpec):
        return Styles(**values)
    if isinstance(spec, ExemplarSpec):
        return Exemplars(**{**values, "horizon": values["horizon"] or float("inf")})
    from renorm.tokens.families.grey_tree import HiddenTree

    return HiddenTree(**values, progress=progress)


def _values(spec: Any) -> dict[str, Any]:
    return {f.name: getattr(spec, f.name) for f in dataclasses.fields(spec) if f.name != "kind"}
