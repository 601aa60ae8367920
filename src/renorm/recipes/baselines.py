"""Baselines as values: what makes a recipe DDPM, EDM, the paper's RGDM or a white twin, and the walks that judge it.

A baseline changes what is learned and how one walks. Data, network, training steps and seed stay the recipe's: an equal
budget. A new baseline is one line in ``BASELINES``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from renorm.diffusion.spec import DiffusionSpec
from renorm.errors import RecipeError
from renorm.recipes.spec import AnyRecipe, Recipe
from renorm.spec import override, to_mapping

__all__ = ["BASELINES", "WALK", "Baseline", "WalkName", "baseline", "baseline_of", "default_walks"]

_WHITE = ("white", "edm")  # schedules whose modes all have one prior variance

WALK = ("sampler", "spacing", "steps")
"""Settings of a mode diffusion that are free to change: how it is sampled makes no other model."""


class WalkName(NamedTuple):
    """How to get from noise to data: a sampler, and where its steps lie.

    Example:
        >>> WalkName.parse("angle-pc@log-uniform", "auto"), WalkName.parse("ddim", "karras")
        (WalkName(sampler='angle-pc', spacing='log-uniform'), WalkName(sampler='ddim', spacing='karras'))
        >>> str(WalkName("ddim", "karras"))
        'ddim@karras'
    """

    sampler: str
    spacing: str

    @classmethod
    def parse(cls, text: str, spacing: str) -> "WalkName":
        """``SAMPLER@SPACING``, or ``SAMPLER`` alone, at the spacing that is given."""
        sampler, at, name = text.strip().partition("@")
        if not sampler or (at and not name):
            raise RecipeError(f"a walk is SAMPLER or SAMPLER@SPACING, such as ddim@karras, got '{text}'")
        return cls(sampler, name or spacing)

    def __str__(self) -> str:
        return f"{self.sampler}@{self.spacing}"


@dataclass(frozen=True)
class Baseline:
    """What makes a recipe this baseline.

    Attributes:
        about: One line for people.
        changes: Dotted keys of the recipe; the sampler and the spacing among them are the first walk.
        walks: By which it is judged; none: those of any other recipe.
    """

    about: str
    changes: Mapping[str, Any]
    walks: tuple[WalkName, ...] = ()


def _walks(spacing: str, *samplers: str) -> tuple[WalkName, ...]:
    return tuple(WalkName(sampler, spacing) for sampler in samplers)


_PLAIN = {
    "model.prior": "coloured",
    "model.denoiser": "network",
    "model.subtract_mean": False,
    "model.isotropic": False,
    "model.training": "auto",
    "model.spacing": "auto",
    "model.sharpness": DiffusionSpec.sharpness,  # nothing of the recipe's own
    "model.floor": DiffusionSpec.floor,
    "model.lattices": "whole",  # as they were published
}
_PAPER = {key: getattr(DiffusionSpec(), key) for key in ("regulator", "prior_scale", "infrared")}

BASELINES: dict[str, Baseline] = {
    "ddpm": Baseline(
        "white noise, the network predicts it (Ho, Jain & Abbeel 2020; DDIM: Song, Meng & Ermon 2020)",
        {
            **_PLAIN,
            "model.schedule": "white",
            "model.prediction": "coloured-noise",  # of white noise: epsilon
            "model.sampler": "ancestral",
        },
        _walks("auto", "ancestral", "ancestral-small", "ddim"),
    ),
    "edm": Baseline(
        "EDM's noise, preconditioning, training scales and grid (Karras et al. 2022; 2M: Lu et al. 2022)",
        {**_PLAIN, "model.schedule": "edm", "model.prediction": "edm", "model.sampler": "heun"},
        _walks("karras", "heun", "dpm2m", "ddim"),
    ),
    "rgdm-paper": Baseline(
        "the renormalization group diffusion of Masuki & Ashida 2025, its constants and prediction",
        {
            **_PLAIN,
            **{f"model.{key}": value for key, value in _PAPER.items()},
            "model.schedule": "rgdm",
            "model.prediction": "coloured-noise",
            "model.sampler": "ancestral",
        },
        _walks("log-uniform", "ancestral", "ancestral-small", "ddim", "angle", "angle-pc"),
    ),
    "white-twin": Baseline("the recipe itself with a flat prior: what is left without scales", {"model.prior": "flat"}),
}

_DETERMINISTIC = ("ddim", "angle", "angle-pc", "dpm2m", "running")  # one evaluation a step, no fresh noise


def baseline(recipe: AnyRecipe, name: str) -> Recipe:
    """The recipe turned into a baseline; data, network, training steps and seed unchanged.

    Raises:
        RecipeError: If there is no such baseline, the recipe is of another wing, or it is its own white twin.

    Example:
        >>> from renorm.recipes.spec import load_recipe
        >>> ours = load_recipe("demo")
        >>> ddpm = baseline(ours, "ddpm")
        >>> ddpm.model.schedule, ddpm.model.prediction, ddpm.fit == ours.fit
        ('white', 'coloured-noise', True)
    """
    if name not in BASELINES:
        raise RecipeError(f"unknown baseline '{name}'; known: {', '.join(BASELINES)}")
    if not isinstance(recipe, Recipe):
        raise RecipeError(f"a baseline is a diffusion, and so must be its recipe; got one of wing '{recipe.wing}'")
    if name == "white-twin" and is_white(recipe):
        raise RecipeError(
            "a white twin is of a recipe with a coloured prior (model.schedule 'rgdm', 'calibrated' or 'separated', "
            f"model.prior 'coloured'), got schedule '{recipe.model.schedule}', prior '{recipe.model.prior}'"
        )
    return override(recipe, BASELINES[name].changes)


def is_white(recipe: Recipe) -> bool:
    """Whether all modes have one prior variance."""
    return recipe.model.prior == "flat" or recipe.model.schedule in _WHITE


def baseline_of(recipe: AnyRecipe) -> str | None:
    """The baseline that a recipe is, whatever its walk; ``None`` where it is none.

    Example:
        >>> from renorm.recipes.spec import load_recipe
        >>> baseline_of(load_recipe("demo")), baseline_of(baseline(load_recipe("demo"), "edm"))
        (None, 'edm')
    """
    if not isinstance(recipe, Recipe):
        return None
    model = to_mapping(recipe.model)
    for name, known in BASELINES.items():
        if name == "white-twin" and recipe.model.schedule in _WHITE:
            continue  # it was white without its flat prior
        changes = {key.removeprefix("model."): value for key, value in known.changes.items()}
        if all(model[key] == value for key, value in changes.items() if key not in WALK):
            return name
    return None


def default_walks(recipe: Recipe) -> tuple[WalkName, ...]:
    """The walks that judge a recipe: its baseline's, else its own and five samplers of one evaluation a step.

    Example:
        >>> from renorm.recipes.spec import load_recipe
        >>> [str(walk) for walk in default_walks(load_recipe("mnist16"))][:2]
        ['running@window', 'ddim@window']
    """
    name = baseline_of(recipe)
    if name is not None and BASELINES[name].walks:
        return BASELINES[name].walks
    own = WalkName(recipe.model.sampler, recipe.model.spacing)
    return tuple(dict.fromkeys([own, *_walks(recipe.model.spacing, *_DETERMINISTIC)]))
