"""One function a command: read the options, call the library, say what came out."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from renorm.cli.chains import read_structures
from renorm.cli.given import refine_from
from renorm.cli.molecules import refine_coarse
from renorm.cli.options import changed, one_field, out_file, with_walk
from renorm.cli.output import Progress, save_grid, save_picture, say, table
from renorm.errors import RecipeError

if TYPE_CHECKING:
    from renorm.recipes.spec import AnyRecipe


def fit(options: argparse.Namespace) -> None:
    from renorm.recipes.spec import load_recipe

    recipe = changed(load_recipe(options.recipe), options)
    named = "" if options.baseline is None else f"-{options.baseline}"
    out = Path(options.out or f"runs/{Path(options.recipe).stem}{named}")
    _fit_into(recipe, out, options)
    say(options, {"run": str(out)}, f"fitted {out}; next: renorm measure {out}, renorm sample {out}")


def _fit_into(recipe: "AnyRecipe", out: Path, options: argparse.Namespace) -> None:
    from renorm.recipes.run import fit_run

    command = "renorm " + " ".join(sys.argv[1:])
    fit_run(recipe, out, resume=options.resume, progress=not options.quiet, command=command)


def sample(options: argparse.Namespace) -> None:
    import torch

    from renorm.recipes.folder import write_arrays
    from renorm.recipes.run import as_field, load_run, sample_run

    run = Path(options.run)
    model = with_walk(load_run(run), options)
    if options.num < 1:
        raise RecipeError(f"--num must be >= 1, got {options.num}")
    condition = None if options.label is None else torch.full((options.num,), options.label)
    with Progress(options, "sample") as callback:
        x = sample_run(
            run,
            options.num,
            seed=options.seed,
            steps=options.steps,
            level=options.level,
            condition=condition,
            guidance=options.guidance,
            model=model,
            callback=callback,
        )
    suffixes = (".npz",) if options.npz else (".png", ".npz")
    out = out_file(options, run / "samples" / f"sample{suffixes[0]}", *suffixes)
    if out.suffix == ".npz":
        write_arrays(out, x=x)
    else:
        save_grid(out, as_field(model, x, options.level), run)
    say(options, {"samples": options.num, "file": str(out), "seed": options.seed}, f"wrote {out}")


def refine(options: argparse.Namespace) -> None:
    if options.edge is not None:
        return refine_from(options)
    if options.particles != 1:
        raise RecipeError(f"--particles go with --edge, got {options.particles} without")
    if options.coarse is not None or options.moves:
        return refine_coarse(options)
    import torch

    from renorm.recipes.folder import write_arrays
    from renorm.recipes.run import as_field, load_run, refine_run

    run = Path(options.run)
    model = with_walk(load_run(run), options)
    x = one_field(options, run)
    generator = torch.Generator().manual_seed(options.seed)
    level = max(len(model.levels) // 2, min(2, len(model.levels) - 1)) if options.level is None else options.level
    if not 1 <= level < len(model.levels):
        raise RecipeError(f"--level must be 1 ... {len(model.levels) - 1}, got {level}")
    coarse = model.coarsen(x, level, generator=generator)
    with Progress(options, "refine") as callback:
        several = coarse.expand(options.num, *coarse.shape[1:])
        fine = refine_run(model, several, level=level, generator=generator, steps=options.steps, callback=callback)
    out = out_file(options, run / "samples" / "refine.png", ".png", ".npz")
    if out.suffix == ".npz":
        write_arrays(out, x=fine, coarse=coarse, original=x)
    else:
        save_grid(out, torch.cat([x, as_field(model, coarse, level), fine]), run, columns=options.num + 2)
    message = f"wrote {out}: the field, its coarse form at level {level}, {options.num} ways to refine it"
    say(options, {"file": str(out), "level": level}, message)


def flow(options: argparse.Namespace) -> None:
    import torch

    from renorm.recipes.folder import read_field_recipe
    from renorm.recipes.molecule_measure import bonds_of
    from renorm.recipes.run import as_field, load_run
    from renorm.report.figures import field_strip
    from renorm.report.molecule_figures import molecule_strip

    run = Path(options.run)
    model = load_run(run)
    x = one_field(options, run)
    recipe = read_field_recipe(run)
    levels = model.levels
    rows = [[as_field(model, model.coarsen(x, level.index), level.index)[0] for level in levels]]
    noise = [torch.Generator().manual_seed(options.seed) for _ in levels]
    drawn = [model.coarsen(x, level.index, generator=g) for level, g in zip(levels, noise, strict=True)]
    rows.append([as_field(model, y, level.index)[0] for level, y in zip(levels, drawn, strict=True)])
    labels = ["data", *(f"cutoff {l.cutoff:.2f}" if l.event_shape is None else f"level {l.index}" for l in levels[1:])]
    out = out_file(options, run / "samples" / "flow.png", ".png")
    strip, bonds = torch.stack([torch.stack(row) for row in rows]), bonds_of(recipe, model.domain)
    if bonds is None:
        save_picture(out, field_strip(strip, labels, value_range=recipe.data.value_range))
    else:
        save_picture(out, molecule_strip(strip, labels, bonds))
    figures = [{"level": l.index, "cutoff": l.cutoff, "scale": l.scale, "modes": l.modes} for l in levels]
    say(options, {"file": str(out), "levels": figures}, f"wrote {out}: one field from fine to coarse, mean and draw")


def measure(options: argparse.Namespace) -> None:
    from renorm.recipes.run import load, measure_run
    from renorm.report.page import write_report

    run = Path(options.run)
    model = with_walk(load(run), options)
    with Progress(options, "sample") as callback:
        measured = measure_run(
            run, samples=options.num, steps=options.steps, seed=options.seed, model=model, callback=callback
        )
    page = write_report(run)
    say(options, {**measured["figures"], "report": str(page)}, table(measured["figures"]) + f"\nreport: {page}")


def report(options: argparse.Namespace) -> None:
    from renorm.report.page import write_report

    page = write_report(Path(options.run))
    say(options, {"report": str(page)}, f"wrote {page}")


def demo(options: argparse.Namespace) -> None:
    from renorm.recipes.spec import load_recipe

    out = Path(options.out or "runs/demo")
    recipe = changed(load_recipe("demo"), options)
    _fit_into(recipe, out, options)
    options.run, options.seed = str(out), None  # the seed was of the training
    options.num = options.steps = options.sampler = options.spacing = None
    measure(options)


def bench(options: argparse.Namespace) -> None:
    from renorm.bench import BENCHMARKS

    if options.name is None:
        say(options, {"benchmarks": list(BENCHMARKS)}, "\n".join(BENCHMARKS))
        return
    from renorm.bench.result import run_benchmark

    report = run_benchmark(options.name, seed=options.seed, keep=Path(options.keep) if options.keep else None)
    pages = []
    if "comparisons" in report:
        from renorm.report.comparison import write_comparison

        pages = [write_comparison(Path(folder)) for folder in report["comparisons"]]
    say(options, report, "\n".join([table(report["figures"]), *(f"report: {page}" for page in pages)]))


def data(options: argparse.Namespace) -> None:
    from renorm.data import SOURCES, fetch, where
    from renorm.data.download import how_to_get

    if options.name == "proteins":
        read_structures(options)
        return
    if options.folder is not None:
        raise RecipeError(f"a folder goes with `renorm data proteins` alone, got {options.folder} for {options.name}")
    if options.name is None:
        places = {name: where(name) for name in SOURCES if name not in ("folder", "array")}
        lines = [f"{name:15} {place or how_to_get(name)}" for name, place in places.items()]
        lines.append(f"{'proteins':15} your own structures; `renorm data proteins FOLDER` reads them")
        say(options, places, "\n".join(lines))
        return
    place = fetch(options.name)
    say(options, {"name": options.name, "place": str(place)}, f"{options.name}: {place}")


def doctor(options: argparse.Namespace) -> None:
    from renorm.recipes.doctor import examine

    facts = examine()
    say(options, facts, table(facts))


def reproduce(options: argparse.Namespace) -> None:
    from renorm.recipes.extractor import train_mnist_cnn

    record = train_mnist_cnn(Path(options.out or "mnist-cnn.safetensors"), seed=options.seed)
    say(options, record, table(record))
