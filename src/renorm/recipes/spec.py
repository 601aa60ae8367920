"""A recipe: data, model, training and measures as one typed value; no torch."""

from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar, Literal

from renorm.cascade.clusters.spec import ClusterFit, ClusterSpec
from renorm.cascade.spec import LEARNED, BeadsSpec, CascadeFit, CascadeSpec, require_transfer
from renorm.data.proteins.spec import FeaturesSpec, ProteinSpec
from renorm.data.spec import DataSpec
from renorm.diffusion.chains.spec import ChainSpec
from renorm.diffusion.spec import DiffusionSpec
from renorm.errors import RecipeError
from renorm.fit.spec import FitSpec
from renorm.laws.spec import CHAINS, CLUSTERS
from renorm.spec import from_mapping, override, parse_toml, read_text, require
from renorm.tokens.spec import TokensSpec

__all__ = [
    "AnyRecipe",
    "CascadeRecipe",
    "ChainMeasureSpec",
    "ChainRecipe",
    "ClustersRecipe",
    "FieldRecipe",
    "MeasureSpec",
    "Recipe",
    "TokensRecipe",
    "load_recipe",
    "read_toml",
    "shipped",
]


@dataclass(frozen=True)
class MeasureSpec:
    """How samples are judged.

    Args:
        samples: How many fields are sampled for the measures.
        steps: Steps of their walk; the model's if not given.
        extractor: Feature extractor of the Frechet distance, see ``renorm.measure.features``; none: no such distance.
        seed: Of the sampling.
    """

    samples: int = 2000
    steps: int | None = None
    extractor: str | None = None
    seed: int = 1

    def __post_init__(self) -> None:
        require(self.samples >= 2, "samples must be >= 2 (an error bar needs two)", self.samples)
        require(self.steps is None or self.steps >= 1, "steps must be >= 1", self.steps)
        require(0 <= self.seed < 2**63, "seed must be in [0, 2^63)", self.seed)


@dataclass(frozen=True)
class Recipe:
    """Everything that a run of a mode diffusion depends on.

    Args:
        description: One line for people.
        wing: Family of the model.
        data: What is learned.
        model: The mode diffusion.
        fit: The training loop.
        measure: How samples are judged.

    Example:
        >>> load_recipe("mnist16").data.size
        16
    """

    SEED: ClassVar[str] = "fit"
    description: str = ""
    wing: Literal["diffusion"] = "diffusion"
    data: DataSpec = field(default_factory=DataSpec)
    model: DiffusionSpec = field(default_factory=DiffusionSpec)
    fit: FitSpec = field(default_factory=FitSpec)
    measure: MeasureSpec = field(default_factory=MeasureSpec)


@dataclass(frozen=True)
class TokensRecipe:
    """Everything that a run of a token hierarchy depends on.

    Args:
        description: One line for people.
        wing: Family of the model.
        data: What is learned; ``flip`` must be false, each field counts as it is.
        model: The hierarchies.
        measure: How samples are judged; ``steps`` must not be set, a draw has none.

    Raises:
        RecipeError: If a value is one for diffusions alone.

    Example:
        >>> load_recipe("tokens-mnist").wing
        'tokens'
    """

    SEED: ClassVar[str] = "model"
    description: str = ""
    wing: Literal["tokens"] = "tokens"
    data: DataSpec = field(default_factory=lambda: DataSpec(labels=True))
    model: TokensSpec = field(default_factory=TokensSpec)
    measure: MeasureSpec = field(default_factory=MeasureSpec)

    def __post_init__(self) -> None:
        if self.data.flip:
            raise RecipeError(
                "data.flip must be false in a recipe of tokens (each field is counted once, as it is); leave it out, "
                f"or put mirrored fields into the data, got {self.data.flip}"
            )
        if self.measure.steps is not None:
            raise RecipeError(
                "measure.steps must not be set in a recipe of tokens (they are steps of a diffusion's walk, a tree "
                f"draws in one pass); leave it out, got {self.measure.steps}"
            )


@dataclass(frozen=True)
class CascadeRecipe:
    """Everything that a run of a cascade depends on.

    Args:
        description: One line for people.
        wing: Family of the model.
        data: What is learned: fields, or, for the teachers ``action`` and ``chain``, the law itself.
        model: The cascade.
        fit: How it learns.
        measure: How samples are judged; ``steps`` must not be set, a draw has none.

    Raises:
        RecipeError: If two values do not go together, or one is for another wing.

    Example:
        >>> load_recipe("ising16").model.heat_bath
        True
    """

    SEED: ClassVar[str] = "fit"
    description: str = ""
    wing: Literal["cascade"] = "cascade"
    data: DataSpec = field(default_factory=DataSpec)
    model: CascadeSpec = field(default_factory=CascadeSpec)
    fit: CascadeFit = field(default_factory=CascadeFit)
    measure: MeasureSpec = field(default_factory=MeasureSpec)

    def __post_init__(self) -> None:
        for key, wrong in (("data.flip", self.data.flip), ("data.labels", self.data.labels)):
            if wrong:
                raise RecipeError(
                    f"{key} must be false in a recipe of cascades (a likelihood is that of the fields as they are, and "
                    f"has no classes); leave it out, got {wrong}"
                )
        if self.measure.steps is not None:
            raise RecipeError(
                "measure.steps must not be set in a recipe of cascades (they are steps of a diffusion's walk, a "
                f"cascade draws in one pass); leave it out, got {self.measure.steps}"
            )
        law = None if self.data.law is None else self.data.law.kind
        if self.fit.teacher != "fields" and law in (None, "lognormal"):
            given = "data without a law" if law is None else "the law 'lognormal', whose samples come easily"
            raise RecipeError(
                f"fit.teacher = '{self.fit.teacher}' needs data of a law with an action (data.name = 'law', data.law = "
                f"{{kind = 'ising'}} or 'phi4'); take fit.teacher = 'fields', got {given}"
            )
        atoms = law is None or isinstance(self.data.law, (*CHAINS, *CLUSTERS))
        if self.model.coarse == "beads" and not atoms:
            raise RecipeError(
                f"model.coarse = 'beads' binds atoms, and the law '{law}' has none; take one of molecules, or an array"
            )
        if self.model.coarse == "beads" and law is not None and self.model.beads.spread != BeadsSpec().spread:
            raise RecipeError(
                "model.beads.spread is of positions from a file; a law has its own, data.law.spread: leave it out, got "
                f"{self.model.beads.spread}"
            )
        kind = self.model.conditional.kind
        if self.fit.teacher != "fields" and kind not in ("local", "flow"):
            raise RecipeError(
                f"fit.teacher = '{self.fit.teacher}' trains by gradient, so model.conditional.kind must be 'local' or "
                f"'flow'; a closed form takes 'fields', got '{kind}'"
            )
        if self.fit.teacher == "chain" and not self.model.heat_bath:
            raise RecipeError(
                "fit.teacher = 'chain' needs model.heat_bath = true (its sweeps move the chains), got "
                f"{self.model.heat_bath}"
            )
        if self.model.heat_bath and law not in ("ising", "phi4", "free-field"):
            raise RecipeError(
                "model.heat_bath is that of a law of nearest neighbours, data.law of kind 'ising', 'phi4' or "
                f"'free-field'; set it to false, got {'data without a law' if law is None else repr(law)}"
            )
        if self.fit.transfer:
            require_transfer(
                at_once=self.model.tied or self.model.coarse in LEARNED,
                closed=kind in ("gaussian", "energy"),
                positive=self.model.positive,
                alone=self.model.levels == 1,  # what else has no twin is seen once the lattice is known
            )
        if self.fit.grow and self.model.levels is not None:
            raise RecipeError(
                "fit.grow goes down to one site, so model.levels must not be set; leave it out, got "
                f"{self.model.levels}"
            )
        if self.fit.grow and self.model.coarse != "checkerboard":
            raise RecipeError(
                f"fit.grow doubles checkerboards; set model.coarse = 'checkerboard', got '{self.model.coarse}'"
            )


@dataclass(frozen=True)
class ChainMeasureSpec:
    """How folded chains are judged.

    Args:
        targets: A packed set of known structures, or ``"held-out"``: the test chains of the recipe's data.
        limit: Judge the first so many of them only.
        samples: Chains drawn for each.
        steps: Of the walk; T(N) if not given.
        seed: Of the sampling.
    """

    targets: str = "held-out"
    limit: int | None = None
    samples: int = 1
    steps: int | None = None
    seed: int = 1

    def __post_init__(self) -> None:
        require(self.limit is None or self.limit >= 1, "limit must be >= 1 target", self.limit)
        require(self.samples >= 1, "samples must be >= 1 chain a target", self.samples)
        require(self.steps is None or self.steps >= 1, "steps must be >= 1", self.steps)
        require(0 <= self.seed < 2**63, "seed must be in [0, 2^63)", self.seed)


@dataclass(frozen=True)
class ChainRecipe:
    """Everything that a run of a chain diffusion depends on.

    Args:
        description: One line for people.
        wing: Family of the model.
        data: Which chains are learned.
        features: What is told of residues beside their letters.
        model: The chain diffusion; ``model.network.features`` is counted by the fit.
        fit: The training loop.
        measure: How folded chains are judged.

    Raises:
        RecipeError: If the network has features, and there are none.

    Example:
        >>> load_recipe("protein").wing
        'chains'
    """

    SEED: ClassVar[str] = "fit"
    description: str = ""
    wing: Literal["chains"] = "chains"
    data: ProteinSpec = field(default_factory=ProteinSpec)
    features: FeaturesSpec = field(default_factory=FeaturesSpec)
    model: ChainSpec = field(default_factory=ChainSpec)
    fit: FitSpec = field(default_factory=FitSpec)
    measure: ChainMeasureSpec = field(default_factory=ChainMeasureSpec)

    def __post_init__(self) -> None:
        if self.model.network.features and self.features.folder is None:
            raise RecipeError(
                "model.network.features is counted from the features themselves; name their folder as features.folder, "
                f"or leave it out, got {self.model.network.features}"
            )


@dataclass(frozen=True)
class ClustersRecipe:
    """Everything that a run of a law of clusters depends on.

    Args:
        description: One line for people.
        wing: Family of the model.
        data: Clusters of equal particles: of a law, whose energy then weighs the draws, or of an array (n, dim,
            particles) with ``channels = dim``.
        model: The law.
        fit: How it learns.
        measure: How draws are judged; ``steps`` and ``extractor`` must not be set.

    Raises:
        RecipeError: If the data are no clusters, or a value is one for another wing.

    Example:
        >>> load_recipe("dw4").model.unit
        2.0
    """

    SEED: ClassVar[str] = "fit"
    description: str = ""
    wing: Literal["clusters"] = "clusters"
    data: DataSpec = field(default_factory=DataSpec)
    model: ClusterSpec = field(default_factory=ClusterSpec)
    fit: ClusterFit = field(default_factory=ClusterFit)
    measure: MeasureSpec = field(default_factory=MeasureSpec)

    def __post_init__(self) -> None:
        law = self.data.law
        if self.data.name not in ("law", "array") or not (law is None or isinstance(law, CLUSTERS)):
            known = " or ".join(repr(each.kind) for each in CLUSTERS)
            raise RecipeError(
                f"a recipe of clusters learns from data.name = 'array', or 'law' with a data.law of kind {known}, got "
                f"{self.data.name!r}{'' if law is None else f' and {law.kind!r}'}"
            )
        if law is not None and self.model.spread != law.spread:
            raise RecipeError(
                f"model.spread must be that of the law, {law.spread:g} (both are of the centre), got "
                f"{self.model.spread:g}"
            )
        if law is not None and law.dim not in (2, 3):
            raise RecipeError(
                f"data.law.dim must be 2 or 3 here (directions have a law in a plane and in space), got {law.dim}"
            )
        if self.data.boundary != "open":
            raise RecipeError(
                "data.boundary must be 'open' for clusters (distances across a periodic box would be wrong: unwrap the "
                f"positions first), got {self.data.boundary!r}"
            )
        for key, wrong in (
            ("data.flip", self.data.flip),
            ("data.labels", self.data.labels),
            ("measure.steps", self.measure.steps is not None),
            ("measure.extractor", self.measure.extractor is not None),
        ):
            if wrong:
                raise RecipeError(f"{key} means nothing in a recipe of clusters; leave it out")


FieldRecipe = Recipe | TokensRecipe | CascadeRecipe | ClustersRecipe
AnyRecipe = FieldRecipe | ChainRecipe

WINGS: dict[str, type[AnyRecipe]] = {
    "diffusion": Recipe,
    "tokens": TokensRecipe,
    "cascade": CascadeRecipe,
    "chains": ChainRecipe,
    "clusters": ClustersRecipe,
}
"""The recipe of each wing; a recipe that names none is one of a mode diffusion."""


def shipped() -> dict[str, str]:
    """Recipes that come with the package: name -> TOML text."""
    folder = files("renorm.recipes")
    found = {entry.name: entry for entry in folder.iterdir() if entry.name.endswith(".toml")}
    return {name.removesuffix(".toml"): found[name].read_text(encoding="utf-8") for name in sorted(found)}


def load_recipe(name: str, changes: dict[str, Any] | None = None) -> AnyRecipe:
    """A shipped recipe by name, or one from a TOML file, with dotted values changed.

    Raises:
        RecipeError: If there is no such recipe, or a key, type or value in it is wrong.

    Example:
        >>> load_recipe("mnist16", {"fit.steps": "10", "model.schedule": "white"}).fit.steps
        10
    """
    texts = shipped()
    if name in texts:
        recipe = _recipe(texts[name], source=f"recipe {name}")
    elif name.endswith(".toml") or Path(name).is_file():
        path = Path(name)
        if not path.exists() and path.parent.name == "recipes" and path.stem in texts:
            return load_recipe(path.stem, changes)  # recipes/NAME.toml, as the documentation calls a shipped one
        recipe = read_toml(path)
    else:
        raise RecipeError(f"unknown recipe '{name}'; known: {', '.join(texts)}, or the path of a TOML file")
    return override(recipe, changes) if changes else recipe


def read_toml(path: Path) -> AnyRecipe:
    """A recipe from a TOML file, of the wing that it names."""
    return _recipe(read_text(path), source=str(path))


def _recipe(text: str, *, source: str) -> AnyRecipe:
    table = parse_toml(text, source=source)
    wing = table.get("wing", "diffusion")
    if not isinstance(wing, str) or wing not in WINGS:
        raise RecipeError(f"{source}: wing must be one of {', '.join(map(repr, WINGS))}, got {wing!r}")
    try:
        return from_mapping(WINGS[wing], table)
    except RecipeError as error:
        raise RecipeError(f"{source}: {error}") from None
