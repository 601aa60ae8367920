"""Token hierarchies as typed values: a codebook, a law on its tokens, products of these; no torch."""

from dataclasses import dataclass, field
from typing import Literal

from renorm.spec import require, require_literals

__all__ = [
    "CodebookSpec",
    "ExemplarSpec",
    "HiddenTreeSpec",
    "HierarchySpec",
    "LawSpec",
    "PyramidSpec",
    "RetinaSpec",
    "StyleSpec",
    "TokensSpec",
    "ValueSpec",
    "WindowSpec",
]


@dataclass(frozen=True)
class WindowSpec:
    r"""Windows of sites, each named by its nearest centroid.

    A window is standardised to $(v - \bar v) / (\sqrt{\mathrm{var} + \epsilon} + \delta)$ before it is compared.

    Args:
        window: Edge in sites.
        stride: Sites from a window to the next; equal to ``window``: patches that do not overlap.
        tokens: Number of tokens, the background's included.
        floor: $\epsilon \ge 0$, variance below which contrast counts as noise.
        margin: $\delta \ge 0$, added to the standard deviation.
        background: Windows of a variance below this are token 0, the background; 0: there is no such token.
        ink: Only windows of a mean above this are clustered.
        method: ``"full"`` and ``"mini-batch"``: k-means of scikit-learn; ``"lloyd"``: plain, from random samples.
        iterations: Most rounds of k-means.
        sample: Most windows that are clustered; 0: all.
        components: Principal components in which centroids are compared; 0: all sites.
        straighten: Whether images are sheared upright first, by their moments.
    """

    kind: Literal["windows"] = "windows"
    window: int = 10
    stride: int = 3
    tokens: int = 1024
    floor: float = 0.02
    margin: float = 0.0
    background: float = 1e-3
    ink: float = 0.0
    method: Literal["mini-batch", "full", "lloyd"] = "full"
    iterations: int = 10
    sample: int = 200_000
    components: int = 32
    straighten: bool = False

    def __post_init__(self) -> None:
        require_literals(self)
        require(self.window >= 1, "window must be >= 1 site", self.window)
        require(1 <= self.stride <= self.window, "stride must be in 1 ... window (else sites are lost)", self.stride)
        require(self.tokens >= 2, "tokens must be >= 2 (one says nothing)", self.tokens)
        require(self.floor >= 0, "floor must be >= 0 (it is a variance)", self.floor)
        require(self.margin >= 0, "margin must be >= 0", self.margin)
        require(self.floor + self.margin > 0, "floor or margin must be > 0 (a flat window has no contrast)", self.floor)
        require(self.iterations >= 1, "iterations must be >= 1", self.iterations)
        require(self.background >= 0, "background must be >= 0 (it is a variance)", self.background)
        require(self.sample >= 0, "sample must be >= 0 windows (0: all)", self.sample)
        require(self.components >= 0, "components must be >= 0 (0: all)", self.components)


@dataclass(frozen=True)
class ValueSpec:
    """The grey values themselves: one token for each site and channel.

    Args:
        bins: Number of values; 256 keeps bytes exactly.
    """

    kind: Literal["values"] = "values"
    bins: int = 256

    def __post_init__(self) -> None:
        require_literals(self)
        require(2 <= self.bins <= 65536, "bins must be in 2 ... 65536", self.bins)


@dataclass(frozen=True)
class RetinaSpec:
    """Overlapping tiles, each described by its principal weights, in bins."""

    kind: Literal["retina"] = "retina"
    tile: int = 4
    bins: int = 7
    modes: int = 16


CodebookSpec = WindowSpec | ValueSpec | RetinaSpec


@dataclass(frozen=True)
class StyleSpec:
    r"""p(tokens | class, style): latent ways to write each class; see ``Styles`` for the equations.

    Args:
        styles: Of each class.
        share: Weight that a position gives to the counts of the next one.
        strength: $\lambda > 0$, counts by which a style leans on its class.
        backoff: $\kappa > 0$, counts by which a class leans on the mean of all.
        recounts: Most rounds of counting.
    """

    kind: Literal["styles"] = "styles"
    styles: int = 48
    share: float = 0.5
    strength: float = 20.0
    backoff: float = 10.0
    recounts: int = 8

    def __post_init__(self) -> None:
        require_literals(self)
        require(self.styles >= 1, "styles must be >= 1", self.styles)
        require(self.share >= 0, "share must be >= 0 (it weighs counts)", self.share)
        require(self.strength > 0, "strength must be > 0", self.strength)
        require(self.backoff > 0, "backoff must be > 0", self.backoff)
        require(self.recounts >= 1, "recounts must be >= 1", self.recounts)


@dataclass(frozen=True)
class PyramidSpec:
    r"""Blocks upon blocks of tokens, up to the class; learned in one pass.

    Args:
        levels: Levels of blocks above the tokens; 0: each token hangs from the class.
        block: Children along each axis of a block.
        overlap: Whether the blocks of the first level overlap (stride 1).
        parents: Clusters of each level, or of all; empty: each distinct tuple of children is a state.
        share: Which nodes of a level share a table: all; those at the same place of their block; none.
        start: Whether clusters begin at random samples or at random distinct tuples.
        concentration: $\alpha \ge 0$, counts given to each state beforehand.
        backoff: $\kappa \ge 0$, counts by which a row leans on the mean of all rows.
    """

    kind: Literal["pyramid"] = "pyramid"
    levels: int = 1
    block: int = 2
    overlap: bool = False
    parents: tuple[int, ...] = ()
    share: Literal["all", "places", "none"] = "none"
    start: Literal["samples", "distinct"] = "distinct"
    concentration: float = 1.0
    backoff: float = 0.0

    def __post_init__(self) -> None:
        require_literals(self)
        require(self.levels >= 0, "levels must be >= 0", self.levels)
        require(self.block >= 2, "block must be >= 2 children wide", self.block)
        require(all(n >= 1 for n in self.parents), "parents must be >= 1", self.parents)
        require(self.concentration >= 0, "concentration must be >= 0", self.concentration)
        require(self.backoff >= 0, "backoff must be >= 0", self.backoff)


@dataclass(frozen=True)
class ExemplarSpec:
    """The renormalising generative model: a tree of exemplars."""

    kind: Literal["exemplars"] = "exemplars"


@dataclass(frozen=True)
class HiddenTreeSpec:
    """A tree of hidden tokens, one above each site."""

    kind: Literal["hidden-tree"] = "hidden-tree"
    states: int = 32


LawSpec = StyleSpec | PyramidSpec | ExemplarSpec | HiddenTreeSpec


@dataclass(frozen=True)
class HierarchySpec:
    r"""One token hierarchy.

    Args:
        codebook: From images to level-1 tokens.
        law: The tree above them.
        temper: $\tau > 0$: classes are weighed by $p(c)\, p(z \mid c)^\tau$. Tokens of windows that overlap say the
            same thing many times; $\tau < 1$ makes up for it.
        seed: Of all that is drawn while learning.
    """

    codebook: CodebookSpec = field(default_factory=WindowSpec)
    law: LawSpec = field(default_factory=StyleSpec)
    temper: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        require(self.temper > 0, "temper must be > 0", self.temper)
        require(0 <= self.seed < 2**32, "seed must be in [0, 2^32)", self.seed)


@dataclass(frozen=True)
class TokensSpec:
    """One hierarchy, or several whose posteriors over classes are multiplied.

    Args:
        members: The hierarchies. Fields are drawn, coded and weighed by the last one.
        seed: Added to the seed of each.
    """

    members: tuple[HierarchySpec, ...] = (HierarchySpec(),)
    seed: int = 0

    def __post_init__(self) -> None:
        require(len(self.members) >= 1, "members must be >= 1 hierarchy", self.members)
        require(0 <= self.seed < 2**31, "seed must be in [0, 2^31)", self.seed)
