"""What was asked: options as the library takes them."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from renorm.errors import RecipeError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["changed", "one_field", "out_file", "seed", "settings_of", "with_walk"]


def changed(recipe: Any, options: argparse.Namespace) -> Any:
    """The recipe, or a baseline of it, with the values of --set and of the short options."""
    from renorm.spec import override

    if getattr(options, "baseline", None) is not None:
        from renorm.recipes.baselines import baseline

        if options.schedule is not None:
            raise RecipeError("--baseline has a schedule of its own; drop --schedule, or --baseline")
        recipe = baseline(recipe, options.baseline)
    changes: dict[str, Any] = dict(settings_of(options, "fit.steps=1000"))
    short = {"schedule": "model.schedule", "steps": "fit.steps", "seed": f"{recipe.SEED}.seed"}
    for name, wings in (
        ("schedule", ("diffusion", "chains")),
        ("steps", ("diffusion", "cascade", "chains", "clusters")),
    ):
        if recipe.wing not in wings and getattr(options, name, None) is not None:
            what = "counts" if recipe.wing == "tokens" else f"is of the wing '{recipe.wing}'"
            raise RecipeError(f"--{name} is for diffusions; this recipe {what}, its values are changed by --set")
    for name, key in short.items():
        if getattr(options, name, None) is not None:
            changes[key] = getattr(options, name)
    return override(recipe, changes) if changes else recipe


def settings_of(options: argparse.Namespace, example: str) -> dict[str, str]:
    """What --set says, key by key."""
    found = {}
    for text in options.set or []:
        key, equals, value = text.partition("=")
        if not equals:
            raise RecipeError(f"--set takes KEY=VALUE, such as {example}, got '{text}'")
        found[key.strip()] = value.strip()
    return found


def with_walk(model: Any, options: argparse.Namespace) -> Any:
    """The model with another sampler or spacing, if asked for."""
    if options.sampler is None and options.spacing is None:
        return model
    if not hasattr(model, "with_walk"):
        raise RecipeError("--sampler and --spacing are for the walk of a diffusion; this model draws in one pass")
    return model.with_walk(sampler=options.sampler, spacing=options.spacing)


def one_field(options: argparse.Namespace, run: Path) -> "Tensor":
    """The field to work on: a file's first, or one of the run's test fields."""
    import dataclasses

    import torch

    from renorm.data import load
    from renorm.data.maps import split_path
    from renorm.laws.build import lattice_of
    from renorm.recipes.cascade_run import centred
    from renorm.recipes.folder import read_field_recipe
    from renorm.recipes.spec import CascadeRecipe

    recipe = read_field_recipe(run)
    spec = recipe.data
    if options.input is not None:
        is_array = Path(options.input).suffix in (".npy", ".npz") or split_path(options.input) is not None
        kind = "array" if is_array else "folder"
        if spec.law is not None and (channels := lattice_of(spec.law, spec.shape).channels) > 1:
            spec = dataclasses.replace(spec, channels=channels)
        spec = dataclasses.replace(spec, name=kind, path=options.input, labels=False, limit=None, law=None)
    fields = load(spec, "test" if options.input is None else "all")
    if not 0 <= options.index < len(fields):
        raise RecipeError(f"--index must be 0 to {len(fields) - 1}, got {options.index}")
    x = fields.batch(torch.tensor([options.index]))
    return centred(recipe, x) if isinstance(recipe, CascadeRecipe) and recipe.data.law is None else x


def out_file(options: argparse.Namespace, default: Path, *suffixes: str) -> Path:
    """The file to write; its name must end in one of ``suffixes``."""
    out = Path(options.out or default)
    if out.suffix not in suffixes:
        raise RecipeError(f"--out must end in {' or '.join(suffixes)}, got {out}")
    return out


def seed(text: str) -> int:
    """A seed as torch takes it."""
    if not (text.isdecimal() and int(text) < 2**63):
        raise argparse.ArgumentTypeError(f"must be a whole number in [0, 2^63), got '{text}'")
    return int(text)
