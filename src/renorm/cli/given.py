"""Commands that start from a field: refine it from few sites, fill what is hidden, say how likely it is."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from renorm.cli.options import one_field, out_file, with_walk
from renorm.cli.output import Progress, save_grid, say, table
from renorm.errors import RecipeError

if TYPE_CHECKING:
    from torch import Tensor

    from renorm.diffusion.mode_diffusion import ModeDiffusion

__all__ = ["inpaint", "likelihood", "refine_from"]

HALVES = ("left", "right", "top", "bottom")


def _diffusion(options: argparse.Namespace, what: str) -> "ModeDiffusion":
    from renorm.diffusion.mode_diffusion import ModeDiffusion
    from renorm.recipes.run import load_run

    model = load_run(Path(options.run))
    if not isinstance(model, ModeDiffusion):
        raise RecipeError(f"{what} is for diffusions, {options.run} is a run of another wing")
    changed: ModeDiffusion = with_walk(model, options)
    return changed


def refine_from(options: argparse.Namespace) -> None:
    """Super-resolution: the low modes of one field, on few sites, and fields that have them."""
    import torch

    from renorm.bases.corner import Corner

    if options.level is not None:
        raise RecipeError(
            "--edge starts from clean fields on fewer sites, --level from noisy ones on the way; take one"
        )
    _check(options, "refine")
    model, run = _diffusion(options, "--edge"), Path(options.run)
    x = one_field(options, run)
    if any(options.edge < 1 or options.edge >= n for n in model.lattice.shape):
        raise RecipeError(f"--edge must be at least 1 and below the sites {model.lattice.shape}, got {options.edge}")
    corner = Corner(model.lattice, (options.edge,) * model.lattice.dim)
    coarse = corner.basis.inverse(corner.down(model.basis.forward(x)))
    with Progress(options, "refine") as callback:
        fine = model.refine(
            coarse.expand(options.num, *coarse.shape[1:]),
            generator=torch.Generator().manual_seed(options.seed),
            steps=options.steps,
            particles=options.particles,
            callback=callback,
        )
    shown = model.basis.inverse(corner.up(corner.basis.forward(coarse)))
    _write(options, run / "samples" / "refine.png", x, shown, fine, coarse)
    message = f"the field, its modes on {options.edge} sites an axis, {options.num} fields that have them"
    say(options, {"file": str(_out(options, run / "samples" / "refine.png")), "edge": options.edge}, message)


def inpaint(options: argparse.Namespace) -> None:
    """Hide half of one field, and draw it again, several times."""
    import torch

    _check(options, "inpaint")
    model, run = _diffusion(options, "inpaint"), Path(options.run)
    x = one_field(options, run)
    axis = -1 if options.hide in ("left", "right") else -2
    if model.lattice.dim < -axis:
        raise RecipeError(f"a field of one axis has no {options.hide}; hide its left or right")
    half = x.shape[axis] // 2
    hidden = slice(0, half) if options.hide in ("left", "top") else slice(x.shape[axis] - half, None)
    known = torch.ones(model.lattice.shape, dtype=torch.bool)
    known.narrow(axis, hidden.start, half).fill_(False)
    with Progress(options, "inpaint") as callback:
        drawn = model.inpaint(
            x.expand(options.num, *x.shape[1:]),
            known,
            generator=torch.Generator().manual_seed(options.seed),
            steps=options.steps,
            callback=callback,
        )
    default = run / "samples" / "inpaint.png"
    _write(options, default, x, torch.where(known, x, x.min()), drawn, torch.where(known, x, 0.0))
    message = f"the field, what was left of it, {options.num} ways to fill its {options.hide}"
    say(options, {"file": str(_out(options, default)), "hidden": options.hide}, message)


def likelihood(options: argparse.Namespace) -> None:
    """Nats and bits of test fields, and what each level adds."""
    from renorm.recipes.likelihood import likelihood_of

    run = Path(options.run)
    model = _diffusion(options, "likelihood")
    found = likelihood_of(
        run, model, num=options.num, method=options.method, evaluations=options.evaluations, seed=options.seed
    )
    say(options, found, table(found))


def _check(options: argparse.Namespace, name: str) -> None:
    """What can be said before a walk that takes minutes."""
    if options.num < 1:
        raise RecipeError(f"--num must be >= 1, got {options.num}")
    _out(options, Path(options.run) / "samples" / f"{name}.png")


def _out(options: argparse.Namespace, default: Path) -> Path:
    return out_file(options, default, ".png", ".npz")


def _write(
    options: argparse.Namespace, default: Path, x: "Tensor", shown: "Tensor", drawn: "Tensor", given: "Tensor"
) -> None:
    """A picture of all, or their arrays."""
    import torch

    from renorm.recipes.folder import write_arrays

    out = _out(options, default)
    if out.suffix == ".npz":
        write_arrays(out, x=drawn, given=given, original=x)
    else:
        save_grid(out, torch.cat([x, shown, drawn]), Path(options.run), columns=options.num + 2)
