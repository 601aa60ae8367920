"""Commands for molecules: atoms from beads, and free-energy surfaces of torsion angles."""

import argparse
from pathlib import Path

from renorm.cli.options import one_field, out_file
from renorm.cli.output import say, table
from renorm.errors import RecipeError

__all__ = ["refine_coarse", "torsions"]


def refine_coarse(options: argparse.Namespace) -> None:
    """Draw fine fields from coarse ones of a file, or from one test field, and move them at fixed coarse fields."""
    import torch

    from renorm.cascade.cascade import Cascade
    from renorm.recipes.backmap import read_coarse, refined
    from renorm.recipes.folder import read_field_recipe, write_arrays
    from renorm.recipes.run import load_run

    run = Path(options.run)
    model = load_run(run)
    if not isinstance(model, Cascade):
        raise RecipeError(f"--coarse and --moves are for cascades, {run} is a run of another wing")
    for name, value in (("--steps", options.steps), ("--sampler", options.sampler), ("--spacing", options.spacing)):
        if value is not None:
            raise RecipeError(f"{name} is for diffusions; a cascade draws in one pass")
    if options.num < 1 or options.moves < 0:
        raise RecipeError(f"--num must be >= 1 and --moves >= 0, got {options.num} and {options.moves}")
    if options.coarse is not None and options.input is not None:
        raise RecipeError("--coarse gives coarse fields, --input fine ones to be coarse-grained; take one")
    if options.coarse is not None and options.index:
        raise RecipeError("--index chooses a fine field; --coarse takes all that its file holds")
    if options.level is not None and not 1 <= options.level < len(model.levels):
        raise RecipeError(f"--level must be 1 ... {len(model.levels) - 1}, got {options.level}")
    if options.coarse is not None:
        coarse, level = read_coarse(Path(options.coarse), model, options.level)
    else:
        level = len(model.levels) - 1 if options.level is None else options.level
        coarse = model.coarsen(one_field(options, run), level)
    out = out_file(options, run / "samples" / "refine.npz", ".npz")
    generator = torch.Generator().manual_seed(options.seed)
    recipe = read_field_recipe(run)
    fine, figures = refined(model, coarse, options.num, level, recipe.data, moves=options.moves, generator=generator)
    write_arrays(out, x=fine, coarse=coarse)
    figures = {"file": str(out), "level": level, "frames": len(coarse), "draws": options.num, **figures}
    say(options, figures, table(figures))


def torsions(options: argparse.Namespace) -> None:
    """Learn a free-energy surface, and draw it."""
    from renorm.data.torsions import read_torsions
    from renorm.fit.checkpoint import atomic
    from renorm.recipes.torsions_run import learn_surface
    from renorm.report.torsion_figures import surface_figure

    path = Path(options.file)
    if options.run is not None and path.suffix != ".npz":
        raise RecipeError(f"--run chooses one of several runs of an .npz; a COLVAR file has one, got {path}")
    if options.cells > 512:
        raise RecipeError(f"--cells must be 512 at most (a surface of more takes hours), got {options.cells}")
    frames = read_torsions(path, temperature=options.temperature, run=options.run, bias_unit=options.bias_unit)
    out = Path(options.out or f"runs/torsions-{options.run or path.stem}")
    if options.num < 0:
        raise RecipeError(f"--num must be >= 0, got {options.num}")
    found = learn_surface(frames, out, cells=options.cells, start=options.start, num=options.num, seed=options.seed)
    lowest = found.figures["minima"]
    with atomic(out / "surface.svg") as temporary:
        places = [(each["phi"], each["psi"]) for each in lowest]
        temporary.write_text(surface_figure(found.learned, found.frames, places), encoding="utf-8")
    told = {key: value for key, value in found.figures.items() if key != "minima"}
    for number, each in enumerate(lowest, 1):
        told[f"minimum {number}"] = f"φ {each['phi']:.0f}, ψ {each['psi']:.0f} degrees, {each['kj_mol']:.2f} kJ/mol"
    say(options, {**found.figures, "folder": str(out)}, f"{table(told)}\nwrote {out}: surface.svg, surface.npz, model")
