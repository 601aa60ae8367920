"""How a cascade learns from its recipe, stage by stage: levels one after the other, or lattices of growing size."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor

from renorm.cascade.build import site_law
from renorm.cascade.cascade import Action, Cascade
from renorm.cascade.checkerboards import doubled
from renorm.cascade.conditionals.heat_bath import EvenAction
from renorm.cascade.learning.chain import fit_to_chain
from renorm.cascade.learning.descent import Keeper, Tell
from renorm.cascade.learning.training import fit_to_action
from renorm.errors import DataError, RecipeError
from renorm.fit.checkpoint import load_weights
from renorm.fit.randomness import seed_of
from renorm.lattice import Lattice
from renorm.laws.build import make_law
from renorm.laws.spec import LawSpec
from renorm.recipes.diffusion_conditional import MAKERS
from renorm.recipes.spec import CascadeRecipe

__all__ = ["Stage", "action_of", "begin", "grown", "plan", "run_stage"]

SMALLEST = 4  # edge of the lattice from which a cascade grows: there both kinds of checkerboard are learned


@dataclass(frozen=True)
class Stage:
    """One stretch of learning; what it does is a function of the recipe and of its place alone.

    Attributes:
        teacher: What is learned from.
        shape: Of the lattice.
        level: Which level, of the teacher ``fields``.
        steps: Of Adam.
        numbers: Components of the fields whose nats the loss counts.
    """

    teacher: Literal["fields", "action", "chain"]
    shape: tuple[int, ...]
    level: int
    steps: int
    numbers: int


def plan(recipe: CascadeRecipe, model: Cascade) -> list[Stage]:
    """The stages of a fit, first to last.

    Raises:
        RecipeError: If the lattice cannot be grown into.
    """
    spec, lattice = recipe.fit, model.lattice
    stages: list[Stage] = []
    if spec.reads_fields:
        sizes = [level.modes for level in model.levels]
        for index in model.order(spec):
            numbers = sizes[index] - (sizes[index + 1] if index + 1 < len(sizes) else 0)
            stages.append(Stage("fields", lattice.shape, index, spec.steps, sizes[0] if model.stages == 1 else numbers))
    if spec.teacher != "fields":
        teacher: Literal["action", "chain"] = "chain" if spec.teacher == "chain" else "action"
        for shape in _shapes(lattice.shape) if spec.grow else [lattice.shape]:
            sites = lattice.channels * torch.Size(shape).numel()
            steps = spec.steps if shape == lattice.shape else spec.small_steps
            stages.append(Stage(teacher, shape, 0, steps, sites // (2 if teacher == "chain" else 1)))
    return stages


def begin(recipe: CascadeRecipe, lattice: Lattice) -> Cascade:
    """The cascade of a recipe on a lattice, before it learns."""
    return Cascade.of(recipe.model, lattice, law=recipe.data.law, seed=recipe.fit.seed, makers=MAKERS)


def grown(model: Cascade, recipe: CascadeRecipe, shape: tuple[int, ...]) -> Cascade:
    """The cascade on a lattice of twice the edge, its levels copied from the smaller one's; itself where it fits."""
    if model.lattice.shape == shape:
        return model
    larger = begin(recipe, Lattice(shape, model.lattice.boundary, model.lattice.channels))
    load_weights(larger, doubled(model).state_dict(), source="the smaller lattice")
    return larger


def run_stage(
    recipe: CascadeRecipe,
    model: Cascade,
    stage: Stage,
    number: int,
    fields: Tensor | None,
    tell: Tell,
    keeper: Keeper | None = None,
) -> list[float]:
    """Learn one stage; gives its losses, in nats.

    Args:
        recipe: Of the run.
        model: Changed in place; on the lattice of the stage.
        stage: Which.
        number: Its place in the plan, on which its randomness depends.
        fields: The training fields, where they are read.
        tell: Told of each step.
        keeper: Where a stage that may be stopped is kept, to go on from there to the same end.
    """
    spec = recipe.fit
    if stage.teacher == "fields":
        if fields is None:
            raise DataError("the teacher 'fields' needs fields, got none")
        return model.fit_stage(fields, stage.level, spec, tell=tell, keeper=keeper)
    generator = torch.Generator().manual_seed(seed_of(spec.seed, "noise", number))
    law = recipe.data.law
    action = action_of(law, stage.shape)
    if action is None:
        raise RecipeError(f"fit.teacher = '{spec.teacher}' needs a law with an action, got {law!r}")
    size: dict[str, Any] = {"steps": stage.steps, "batch": spec.batch, "rate": spec.rate}
    size |= {"generator": generator, "tell": tell, "keeper": keeper}
    if stage.teacher == "chain":
        walk: dict[str, Any] = {"chains": spec.chains, "every": spec.every, "sweeps": spec.sweeps}
        return fit_to_chain(model, action, site_law(law), **size, **walk).losses
    if not recipe.model.heat_bath:
        return fit_to_action(model, action, **size).losses
    even = EvenAction(site_law(law))  # the odd sites are drawn exactly, and are not weighed
    return fit_to_action(model, even, **size, level=1).losses


def action_of(law: LawSpec | None, shape: tuple[int, ...]) -> Action | None:
    """S of a law's fields, where it has one that every field can be put into."""
    made = None if law is None or law.kind == "lognormal" else make_law(law, shape)
    return cast(Callable[[Tensor], Tensor], made) if callable(made) else None


def _shapes(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Squares from the smallest on, each twice the one before."""
    edge = shape[0]
    if len(set(shape)) > 1 or edge < SMALLEST or edge & (edge - 1):
        raise RecipeError(
            f"fit.grow needs a square lattice whose edge is a power of two, at least {SMALLEST} (it doubles), "
            f"got {shape}"
        )
    edges = [SMALLEST << k for k in range((edge // SMALLEST).bit_length())]
    return [(n, n) for n in edges]
