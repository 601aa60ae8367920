"""Token hierarchies as typed values: a codebook, a law on its tokens, products of these; no torch."""

from dataclasses import MISSING, dataclass, field, fields
from typing import Literal

from renorm.spec import require, require_literals

__all__ = [
    "CodebookSpec",
    "ExemplarSpec",
    "HiddenTreeSpec",
    "HierarchySpec",
    "LawSpec",
    "ProductSpec",
    "PyramidSpec",
    "ResidualSpec",
    "RetinaSpec",
    "StyleSpec",
    "TokensSpec",
    "ValueSpec",
    "WindowSpec",
]


class Values:
    """Shown by what differs from the defaults."""

    def __repr__(self) -> str:
        changed = []
        for place in fields(self):  # type: ignore[arg-type]
            value = getattr(self, place.name)
            default = place.default_factory() if place.default_factory is not MISSING else place.default
            if value != default:
                changed.append(f"{place.name}={value!r}")
        return f"{type(self).__name__}({', '.join(changed)})"


@dataclass(frozen=True, repr=False)
class WindowSpec(Values):
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
        components: Most principal components in which centroids are compared; 0: all sites.
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


@dataclass(frozen=True, repr=False)
class ValueSpec(Values):
    """The grey values themselves: one token for each site and channel.

    Args:
        bins: Number of values; 256 keeps bytes exactly.
    """

    kind: Literal["values"] = "values"
    bins: int = 256

    def __post_init__(self) -> None:
        require_literals(self)
        require(2 <= self.bins <= 65536, "bins must be in 2 ... 65536", self.bins)


@dataclass(frozen=True, repr=False)
class RetinaSpec(Values):
    """Overlapping tiles, each described by its principal weights, in bins; see ``RetinaCodebook`` for the equations.

    Args:
        tile: Sites between the centres of tiles, on the resized image.
        bins: Levels of a weight; odd.
        modes: Most weights of a tile.
        threshold: A weight is kept if its variance exceeds 1 / threshold of a site's mean variance.
        resize: Height to which images are brought first; 0: as they are. A chain keeps its sites.
        blur: Standard deviation of a Gaussian blur, in sites of the resized image.
        equalise: Whether the histogram of each image is equalised.
        reach: Radius of a tile, in tiles.
        width: Standard deviation of its weight, in tiles.
        straighten: Whether images are sheared upright first.
    """

    kind: Literal["retina"] = "retina"
    tile: float = 4.0
    bins: int = 7
    modes: int = 16
    threshold: float = 24.0
    resize: int = 32
    blur: float = 0.849
    equalise: bool = True
    reach: float = 2.0
    width: float = 0.5
    straighten: bool = False

    def __post_init__(self) -> None:
        require_literals(self)
        require(self.tile > 0, "tile must be > 0 sites", self.tile)
        require(self.bins >= 3 and self.bins % 2 == 1, "bins must be odd and >= 3 (one of them is 0)", self.bins)
        require(self.modes >= 1, "modes must be >= 1", self.modes)
        require(self.threshold > 0, "threshold must be > 0", self.threshold)
        require(self.resize >= 0, "resize must be >= 0 sites (0: as they are)", self.resize)
        require(self.blur >= 0, "blur must be >= 0 sites", self.blur)
        require(self.reach > 0 and self.width > 0, "reach and width must be > 0 tiles", (self.reach, self.width))


@dataclass(frozen=True, repr=False)
class ResidualSpec(Values):
    """Patches as sums, one token a stage, coarse to fine; see ``ResidualCodebook`` for the equations.

    Args:
        window: Edge of a patch in sites; patches do not overlap, and fill the image.
        tokens: Number of tokens of each stage.
        stages: Each names what those before left over; more than one needs a law without a grid.
        method: ``"full"`` and ``"mini-batch"``: k-means of scikit-learn; ``"lloyd"``: plain, from random samples.
        iterations: Most rounds of k-means.
        sample: Most patches that are clustered; 0: all.
    """

    kind: Literal["residual"] = "residual"
    window: int = 4
    tokens: int = 64
    stages: int = 2
    method: Literal["mini-batch", "full", "lloyd"] = "full"
    iterations: int = 25
    sample: int = 200_000

    def __post_init__(self) -> None:
        _require_patches(self)
        require(self.stages >= 1, "stages must be >= 1 (a patch needs a token)", self.stages)


@dataclass(frozen=True, repr=False)
class ProductSpec(Values):
    """Patches in parts, one token a part; see ``ProductCodebook`` for the equations.

    Args:
        window, tokens, method, iterations, sample: As of ``ResidualSpec``, for each part.
        parts: Equal runs of a patch's values, channel by channel; more than one needs a law without a grid.
    """

    kind: Literal["product"] = "product"
    window: int = 4
    tokens: int = 64
    parts: int = 2
    method: Literal["mini-batch", "full", "lloyd"] = "full"
    iterations: int = 25
    sample: int = 200_000

    def __post_init__(self) -> None:
        _require_patches(self)
        require(self.parts >= 1, "parts must be >= 1 (a patch needs a token)", self.parts)


def _require_patches(spec: ResidualSpec | ProductSpec) -> None:
    require_literals(spec)
    require(spec.window >= 1, "window must be >= 1 site", spec.window)
    require(spec.tokens >= 2, "tokens must be >= 2 (one says nothing)", spec.tokens)
    require(spec.iterations >= 1, "iterations must be >= 1", spec.iterations)
    require(spec.sample >= 0, "sample must be >= 0 patches (0: all)", spec.sample)


CODEBOOKS = (WindowSpec, ValueSpec, RetinaSpec, ResidualSpec, ProductSpec)
CodebookSpec = WindowSpec | ValueSpec | RetinaSpec | ResidualSpec | ProductSpec


@dataclass(frozen=True, repr=False)
class StyleSpec(Values):
    r"""p(tokens | class, style): latent ways to write each class; see ``Styles`` for the equations.

    Args:
        styles: Of each class.
        share: Weight that a position gives to the counts of the next one.
        strength: $\lambda > 0$, counts by which a style leans on its class.
        backoff: $\kappa > 0$, counts by which a class leans on the mean of all.
        recounts: Most rounds of counting.
        soft: Whether each image then counts in every style of its class, by the posterior, in as many more rounds.
    """

    kind: Literal["styles"] = "styles"
    styles: int = 48
    share: float = 0.5
    strength: float = 20.0
    backoff: float = 10.0
    recounts: int = 8
    soft: bool = False

    def __post_init__(self) -> None:
        require_literals(self)
        require(self.styles >= 1, "styles must be >= 1", self.styles)
        require(0 <= self.share < float("inf"), "share must be >= 0 and finite (it weighs counts)", self.share)
        require(self.strength > 0, "strength must be > 0", self.strength)
        require(self.backoff > 0, "backoff must be > 0", self.backoff)
        require(self.recounts >= 1, "recounts must be >= 1", self.recounts)


@dataclass(frozen=True, repr=False)
class PyramidSpec(Values):
    r"""Blocks upon blocks of tokens, up to the class; learned in one pass.

    Args:
        levels: Levels of blocks above the tokens; 0: each token hangs from the class.
        block: Children along each axis of a block.
        overlap: Whether the blocks of the first level overlap (stride 1).
        parents: Clusters of each level, or of all; empty: each distinct tuple of children is a state.
        share: Which nodes of a level share a table: all; those at the same place of their block; none.
        start: Whether clusters begin at random samples or at random distinct tuples.
        standardise: Whether what children look like is standardised before it is clustered.
        components: Principal components of it that the next level sees; 0: all.
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
    standardise: bool = False
    components: int = 64
    concentration: float = 1.0
    backoff: float = 0.0

    def __post_init__(self) -> None:
        require_literals(self)
        require(self.levels >= 0, "levels must be >= 0", self.levels)
        require(self.block >= 2, "block must be >= 2 children wide", self.block)
        require(all(n >= 1 for n in self.parents), "parents must be >= 1", self.parents)
        require(self.components >= 0, "components must be >= 0 (0: all)", self.components)
        require(self.concentration >= 0, "concentration must be >= 0", self.concentration)
        require(self.backoff >= 0, "backoff must be >= 0", self.backoff)


@dataclass(frozen=True, repr=False)
class ExemplarSpec(Values):
    r"""The renormalising generative model: a tree of exemplars; see ``Exemplars`` for the equations.

    Args:
        exemplars: Of each class.
        choose: The first images of each class, or means of clusters of them.
        edges: Edges of the lattices to which groups belong, finest first; empty: halve until one is left.
        together: Most tokens of a group where groups are found by mutual information instead; 0: by place.
        parts: Most states of a group; 0: the distinct tuples that the exemplars show.
        learn: In sweeps over all images by expected counts, image by image in their order, or not at all.
        sweeps: How many.
        neighbour: Share of each token's count that goes to the bins beside it.
        token_backoff, part_backoff, class_backoff: Counts by which tables lean on coarser ones.
        concentration, class_concentration: Counts put beforehand into each cell, unless learning in sweeps.
        gate: $\beta$ per nat of mutual information, when learning in order; 0: everything is learned.
        horizon: $\eta$, total count of a table in the long run, when learning in order; 0: nothing is forgotten.
    """

    kind: Literal["exemplars"] = "exemplars"
    exemplars: int = 13
    choose: Literal["first", "clusters"] = "clusters"
    edges: tuple[int, ...] = (8,)
    together: int = 0
    parts: int = 130
    learn: Literal["sweeps", "in-order", "not"] = "sweeps"
    sweeps: int = 3
    neighbour: float = 0.1
    token_backoff: float = 1.0
    part_backoff: float = 20.0
    class_backoff: float = 10.0
    concentration: float = 1 / 16
    class_concentration: float = 1 / 128
    gate: float = 0.0
    horizon: float = 0.0

    def __post_init__(self) -> None:
        require_literals(self)
        require(self.exemplars >= 1, "exemplars must be >= 1 of each class", self.exemplars)
        require(all(edge >= 1 for edge in self.edges), "edges must be >= 1", self.edges)
        require(self.together >= 0, "together must be >= 0 tokens (0: groups by place)", self.together)
        require(self.parts >= 0, "parts must be >= 0", self.parts)
        require(self.sweeps >= 1, "sweeps must be >= 1", self.sweeps)
        require(self.gate >= 0, "gate must be >= 0", self.gate)
        require(self.horizon >= 0, "horizon must be >= 0 (0: nothing is forgotten)", self.horizon)


@dataclass(frozen=True, repr=False)
class HiddenTreeSpec(Values):
    """A tree of hidden tokens, one above each site; see ``HiddenTree`` for the equations.

    Args:
        states: Most states of a hidden token; sites that hardly vary get fewer.
        structure: The tree of largest mutual information (Chow and Liu), or blocks of 2 x 2.
        epochs: Passes over the images.
        batch: Images between two updates of the tables.
        grey: Counts by which a row of grey values leans on a mixture of shades.
        shades: Laws of grey values that all sites share.
        step: Counts by which a row of hidden states leans on their mean.
        fade: Batch t enters with the weight max(floor, (t + 2)^-fade).
        floor: Least weight of a batch.
    """

    kind: Literal["hidden-tree"] = "hidden-tree"
    states: int = 32
    structure: Literal["chow-liu", "blocks"] = "chow-liu"
    epochs: float = 1.0
    batch: int = 500
    grey: float = 1000.0
    shades: int = 24
    step: float = 2.0
    fade: float = 0.7
    floor: float = 0.05

    def __post_init__(self) -> None:
        require_literals(self)
        require(self.states >= 2, "states must be >= 2", self.states)
        require(self.epochs > 0, "epochs must be > 0", self.epochs)
        require(self.batch >= 1, "batch must be >= 1 image", self.batch)
        require(self.grey > 0 and self.step > 0, "grey and step must be > 0", (self.grey, self.step))
        require(self.shades >= 3, "shades must be >= 3 (black, and two to mix)", self.shades)
        require(0.5 < self.fade <= 1, "fade must be in (0.5, 1]", self.fade)
        require(0 < self.floor <= 1, "floor must be in (0, 1]", self.floor)


LAWS = (StyleSpec, PyramidSpec, ExemplarSpec, HiddenTreeSpec)
LawSpec = StyleSpec | PyramidSpec | ExemplarSpec | HiddenTreeSpec


@dataclass(frozen=True, repr=False)
class HierarchySpec(Values):
    r"""One token hierarchy.

    Args:
        codebook: From images to level-1 tokens.
        law: The tree above them.
        temper: $\tau \ge 0$: classes are weighed by $p(c)\, p(z \mid c)^\tau$. Tokens of windows that overlap say the
            same thing many times; $\tau < 1$ makes up for it, 0 leaves the vote to others.
        seed: Of all that is drawn while learning.
    """

    codebook: CodebookSpec = field(default_factory=WindowSpec)
    law: LawSpec = field(default_factory=StyleSpec)
    temper: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, kinds in (("codebook", CODEBOOKS), ("law", LAWS)):
            known = " or ".join(kind.__name__ for kind in kinds)
            require(isinstance(getattr(self, name), kinds), f"{name} must be a {known}", getattr(self, name))
        require(0 <= self.temper < float("inf"), "temper must be >= 0 and finite", self.temper)
        require(0 <= self.seed < 2**32, "seed must be in [0, 2^32)", self.seed)


@dataclass(frozen=True, repr=False)
class TokensSpec(Values):
    """One hierarchy, or several whose posteriors over classes are multiplied.

    Args:
        members: The hierarchies.
        draws: The member that draws, completes, coarse-grains and refines.
        weighs: The member that says how probable a field is, and codes it.
        seed: Added to the seed of each.
    """

    members: tuple[HierarchySpec, ...] = (HierarchySpec(),)
    draws: int = 0
    weighs: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        require(len(self.members) >= 1, "members must be >= 1 hierarchy", self.members)
        wrong = [member for member in self.members if not isinstance(member, HierarchySpec)]
        require(not wrong, "each member must be a HierarchySpec", wrong)
        for name in ("draws", "weighs"):
            index = getattr(self, name)
            require(0 <= index < len(self.members), f"{name} must be 0 ... {len(self.members) - 1}", index)
        require(0 <= self.seed < 2**31, "seed must be in [0, 2^31)", self.seed)
