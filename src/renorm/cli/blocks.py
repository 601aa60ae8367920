"""`renorm blocks`: learn a block-spin rule, and say what it keeps beside the rules that people choose."""

import argparse
from pathlib import Path

from renorm.cli.options import settings_of
from renorm.cli.output import save_picture, say, table
from renorm.errors import RecipeError

__all__ = ["blocks"]


def blocks(options: argparse.Namespace) -> None:
    import torch

    from renorm.recipes.blocks_run import BlocksSpec, learn_rule
    from renorm.recipes.spec import ChainRecipe, load_recipe
    from renorm.report.figures import field_strip
    from renorm.spec import override

    recipe = load_recipe(options.recipe)
    changes = settings_of(options, "data.number=5000")
    if wrong := [key for key in changes if not key.startswith("data.")]:
        raise RecipeError(f"--set changes data here (data.number=5000), got {wrong[0]}")
    if isinstance(recipe, ChainRecipe):
        raise RecipeError(f"a recipe of chains has no fields to cut into blocks, got {options.recipe}")
    data = override(recipe, changes).data if changes else recipe.data
    size = {"size": options.size, "buffer": options.buffer, "reach": options.reach}
    try:
        spec = BlocksSpec(**size, steps=options.steps, seed=options.seed)
    except ValueError as error:
        raise RecipeError(f"--{error}") from None
    out = Path(options.out or f"runs/blocks-{Path(options.recipe).stem}")
    found = learn_rule(data, spec, out)
    told = {key: value for key, value in found.figures.items() if key != "filter"}
    if found.fields.ndim == 4:
        seen = [found.fields]
        seen += [y.repeat_interleave(spec.size, 2).repeat_interleave(spec.size, 3) for y in found.coarse.values()]
        labels = ["field", *found.coarse]
        save_picture(out / "blocks.png", field_strip(torch.stack(seen, 1), labels, value_range=(-1.0, 1.0), gap=8))
    say(options, {**found.figures, "folder": str(out)}, f"{table(told)}\nwrote {out}: rule, coarse.npz, blocks.json")
