"""A recipe: data, model, training and measures as one typed value; no torch."""

from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from renorm.data.spec import DataSpec
from renorm.diffusion.spec import DiffusionSpec
from renorm.errors import RecipeError
from renorm.fit.spec import FitSpec
from renorm.spec import from_toml, load_toml, override, require

__all__ = ["MeasureSpec", "Recipe", "load_recipe", "shipped"]


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
    """Everything that a run depends on.

    Args:
        description: One line for people.
        data: What is learned.
        model: The mode diffusion.
        fit: The training loop.
        measure: How samples are judged.

    Example:
        >>> load_recipe("mnist16").data.size
        16
    """

    description: str = ""
    data: DataSpec = field(default_factory=DataSpec)
    model: DiffusionSpec = field(default_factory=DiffusionSpec)
    fit: FitSpec = field(default_factory=FitSpec)
    measure: MeasureSpec = field(default_factory=MeasureSpec)


def shipped() -> dict[str, str]:
    """Recipes that come with the package: name -> TOML text."""
    folder = files("renorm.recipes")
    found = {entry.name: entry for entry in folder.iterdir() if entry.name.endswith(".toml")}
    return {name.removesuffix(".toml"): found[name].read_text(encoding="utf-8") for name in sorted(found)}


def load_recipe(name: str, changes: dict[str, Any] | None = None) -> Recipe:
    """A shipped recipe by name, or one from a TOML file, with dotted values changed.

    Raises:
        RecipeError: If there is no such recipe, or a key, type or value in it is wrong.

    Example:
        >>> load_recipe("mnist16", {"fit.steps": "10", "model.schedule": "white"}).fit.steps
        10
    """
    texts = shipped()
    if name in texts:
        recipe = from_toml(Recipe, texts[name], source=f"recipe {name}")
    elif name.endswith(".toml") or Path(name).is_file():
        recipe = load_toml(Recipe, Path(name))
    else:
        raise RecipeError(f"unknown recipe '{name}'; known: {', '.join(texts)}, or the path of a TOML file")
    return override(recipe, changes) if changes else recipe
