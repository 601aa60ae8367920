"""The command line: parse, call, print.

Nothing heavy is imported before a command needs it, so ``renorm --help`` answers at once. An error that the user can
mend is one line on stderr and exit code 2; with ``RENORM_DEBUG=1`` its traceback is shown instead.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from renorm.errors import RecipeError, RenormError
from renorm.version import __version__

if TYPE_CHECKING:
    from torch import Tensor

    from renorm.recipes.spec import Recipe

__all__ = ["main"]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line and exit code 2."""
        raise RecipeError(f"{message} (see `{self.prog} --help`)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 done, 2 the user can mend it, 130 interrupted."""
    try:
        options = _parser().parse_args(arguments)
        options.call(options)
        sys.stdout.flush()
    except (RenormError, ValueError) as error:
        if os.environ.get("RENORM_DEBUG"):
            raise
        return _complain(str(error), 2)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "memory" not in str(error):
            raise
        return _complain(f"not enough memory; take fewer or smaller fields ({error or 'out of memory'})", 2)
    except OSError as error:
        place = f" {error.filename}" if error.filename else ""
        return _complain(f"cannot read or write{place}: {error.strerror or error}", 2)
    except KeyboardInterrupt as stop:
        return _complain(str(stop) or "interrupted; what was written stays, `--resume` goes on", 130)
    return 0


def _complain(message: str, code: int) -> int:
    print("renorm: " + " ".join(message.split()), file=sys.stderr)
    return code


# -- commands --------------------------------------------------------------------------------------------------------


def _fit(options: argparse.Namespace) -> None:
    from renorm.recipes.spec import load_recipe

    recipe = load_recipe(options.recipe, _changes(options))
    out = Path(options.out or f"runs/{Path(options.recipe).stem}")
    _fit_into(recipe, out, options)
    _say(options, {"run": str(out)}, f"fitted {out}; next: renorm measure {out}, renorm sample {out}")


def _fit_into(recipe: "Recipe", out: Path, options: argparse.Namespace) -> None:
    from renorm.recipes.run import fit_run

    command = "renorm " + " ".join(sys.argv[1:])
    fit_run(recipe, out, resume=options.resume, progress=not options.quiet, command=command)


def _sample(options: argparse.Namespace) -> None:
    import torch

    from renorm.recipes.run import load_run, sample_run, write_arrays

    run = Path(options.run)
    model = _walk_options(load_run(run), options)
    condition = None if options.label is None else torch.full((options.num,), options.label)
    with _progress(options, "sample") as callback:
        x = sample_run(
            run,
            options.num,
            seed=options.seed,
            steps=options.steps,
            level=options.level,
            condition=condition,
            model=model,
            callback=callback,
        )
    out = _out(options, run / "samples" / "sample.png", ".png", ".npz")
    if options.npz or out.suffix == ".npz":
        out = out.with_suffix(".npz")
        write_arrays(out, x=x)
    else:
        _save_grid(out, x, run)
    _say(options, {"samples": options.num, "file": str(out), "seed": options.seed}, f"wrote {out}")


def _refine(options: argparse.Namespace) -> None:
    import torch

    from renorm.recipes.run import load_run, write_arrays

    run = Path(options.run)
    model = _walk_options(load_run(run), options)
    x = _one_field(options, run)
    generator = torch.Generator().manual_seed(options.seed)
    level = len(model.levels) // 2 if options.level is None else options.level
    coarse = model.coarsen(x, level, generator=generator)
    with _progress(options, "refine") as callback:
        fine = model.refine(
            coarse.expand(options.num, *coarse.shape[1:]),
            level=level,
            generator=generator,
            steps=options.steps,
            callback=callback,
        )
    out = _out(options, run / "samples" / "refine.png", ".png", ".npz")
    if out.suffix == ".npz":
        write_arrays(out, x=fine, coarse=coarse, original=x)
    else:
        _save_grid(out, torch.cat([x, coarse, fine]), run, columns=options.num + 2)
    message = f"wrote {out}: the field, its coarse form at level {level}, {options.num} ways to refine it"
    _say(options, {"file": str(out), "level": level}, message)


def _flow(options: argparse.Namespace) -> None:
    import torch

    from renorm.recipes.run import load_run, read_recipe
    from renorm.report.figures import field_strip

    run = Path(options.run)
    model = load_run(run)
    x = _one_field(options, run)
    value_range = read_recipe(run).data.value_range
    levels = model.levels
    rows = [[model.coarsen(x, level.index)[0] for level in levels]]
    noise = [torch.Generator().manual_seed(options.seed) for _ in levels]
    rows.append([model.coarsen(x, level.index, generator=g)[0] for level, g in zip(levels, noise, strict=True)])
    labels = ["data", *(f"cutoff {level.cutoff:.2f}" for level in levels[1:])]
    out = _out(options, run / "samples" / "flow.png", ".png")
    _save_picture(out, field_strip(torch.stack([torch.stack(row) for row in rows]), labels, value_range=value_range))
    figures = [{"level": l.index, "cutoff": l.cutoff, "scale": l.scale, "modes": l.modes} for l in levels]
    _say(options, {"file": str(out), "levels": figures}, f"wrote {out}: one field from fine to coarse, mean and draw")


def _measure(options: argparse.Namespace) -> None:
    from renorm.recipes.run import load_run, measure_run
    from renorm.report.page import write_report

    run = Path(options.run)
    model = _walk_options(load_run(run), options)
    with _progress(options, "sample") as callback:
        measured = measure_run(
            run, samples=options.num, steps=options.steps, seed=options.seed, model=model, callback=callback
        )
    page = write_report(run)
    _say(options, {**measured["figures"], "report": str(page)}, _table(measured["figures"]) + f"\nreport: {page}")


def _report(options: argparse.Namespace) -> None:
    from renorm.report.page import write_report

    page = write_report(Path(options.run))
    _say(options, {"report": str(page)}, f"wrote {page}")


def _demo(options: argparse.Namespace) -> None:
    from renorm.recipes.spec import load_recipe

    out = Path(options.out or "runs/demo")
    recipe = load_recipe("demo", _changes(options))
    _fit_into(recipe, out, options)
    options.run, options.seed = str(out), None  # the seed was of the training
    options.num = options.steps = options.sampler = options.spacing = None
    _measure(options)


def _bench(options: argparse.Namespace) -> None:
    from renorm.bench import BENCHMARKS

    if options.name is None:
        _say(options, {"benchmarks": list(BENCHMARKS)}, "\n".join(BENCHMARKS))
        return
    from renorm.bench.result import run_benchmark

    report = run_benchmark(options.name, seed=options.seed, keep=Path(options.keep) if options.keep else None)
    _say(options, report, _table(report["figures"]))


def _data(options: argparse.Namespace) -> None:
    from renorm.data import SOURCES, fetch, where

    if options.name is None:
        places = {name: where(name) for name in SOURCES if name not in ("folder", "array")}
        lines = [
            f"{name:15} {place or f'not here; `renorm data {name}` downloads it'}" for name, place in places.items()
        ]
        _say(options, places, "\n".join(lines))
        return
    place = fetch(options.name)
    _say(options, {"name": options.name, "place": str(place)}, f"{options.name}: {place}")


def _doctor(options: argparse.Namespace) -> None:
    from renorm.recipes.doctor import examine

    facts = examine()
    _say(options, facts, _table(facts))


def _reproduce(options: argparse.Namespace) -> None:
    from renorm.recipes.extractor import train_mnist_cnn

    record = train_mnist_cnn(Path(options.out or "mnist-cnn.safetensors"), seed=options.seed)
    _say(options, record, _table(record))


# -- what commands share ---------------------------------------------------------------------------------------------


def _changes(options: argparse.Namespace) -> dict[str, Any]:
    """Dotted changes to a recipe, from --set and the short options."""
    changes: dict[str, Any] = {}
    for text in options.set or []:
        key, equals, value = text.partition("=")
        if not equals:
            raise RecipeError(f"--set takes KEY=VALUE, such as fit.steps=1000, got '{text}'")
        changes[key.strip()] = value.strip()
    short = {"schedule": "model.schedule", "steps": "fit.steps", "seed": "fit.seed"}
    for name, key in short.items():
        if getattr(options, name, None) is not None:
            changes[key] = getattr(options, name)
    return changes


def _walk_options(model: Any, options: argparse.Namespace) -> Any:
    """The model with another sampler or spacing, if asked for."""
    return model.with_walk(sampler=options.sampler, spacing=options.spacing)


def _one_field(options: argparse.Namespace, run: Path) -> "Tensor":
    """The field to work on: a file's first, or one of the run's test fields."""
    import dataclasses

    import torch

    from renorm.data import load
    from renorm.recipes.run import read_recipe

    spec = read_recipe(run).data
    if options.input is not None:
        kind = "array" if Path(options.input).suffix in (".npy", ".npz") else "folder"
        spec = dataclasses.replace(spec, name=kind, path=options.input, labels=False, limit=None)
    fields = load(spec, "test" if options.input is None else "all")
    if not 0 <= options.index < len(fields):
        raise RecipeError(f"--index must be 0 to {len(fields) - 1}, got {options.index}")
    return fields.batch(torch.tensor([options.index]))


def _save_grid(out: Path, x: "Tensor", run: Path, *, columns: int | None = None) -> None:
    from renorm.recipes.run import read_recipe
    from renorm.report.figures import field_grid

    _save_picture(out, field_grid(x, columns=columns, value_range=read_recipe(run).data.value_range))


def _save_picture(out: Path, image: Any) -> None:
    from renorm.fit.checkpoint import atomic

    with atomic(out) as temporary:
        image.save(temporary, format="PNG")


def _out(options: argparse.Namespace, default: Path, *suffixes: str) -> Path:
    """The file to write; its name must end in one of ``suffixes``."""
    out = Path(options.out or default)
    if out.suffix not in suffixes:
        raise RecipeError(f"--out must end in {' or '.join(suffixes)}, got {out}")
    return out


def _seed(text: str) -> int:
    """A seed as torch takes it."""
    if not (text.isdecimal() and int(text) < 2**63):
        raise argparse.ArgumentTypeError(f"must be a whole number in [0, 2^63), got '{text}'")
    return int(text)


class _progress:
    """A bar on stderr for the walk; nothing with --quiet or where stderr is no terminal."""

    def __init__(self, options: argparse.Namespace, what: str) -> None:
        self.shown, self.what = not options.quiet and sys.stderr.isatty(), what

    def __enter__(self) -> Callable[[int, int, float, Any], None] | None:
        if not self.shown:
            return None
        from rich.console import Console
        from rich.progress import Progress

        self.bar = Progress(console=Console(stderr=True), transient=True)
        self.bar.start()
        task = self.bar.add_task(self.what, total=None)

        def callback(step: int, steps: int, scale: float, modes: Any) -> None:
            self.bar.update(task, completed=step, total=steps)

        return callback

    def __exit__(self, *_: object) -> None:
        if self.shown:
            self.bar.stop()


def _table(figures: dict[str, Any]) -> str:
    width = max(map(len, figures), default=0)
    return "\n".join(f"{key:{width}}  {f'{v:.6g}' if isinstance(v, float) else v}" for key, v in figures.items())


def _say(options: argparse.Namespace, value: dict[str, Any], text: str) -> None:
    if os.environ.get("RANK", "0") == "0":  # under torchrun one process speaks for all
        print(json.dumps(value) if options.json else text)


# -- the parser ------------------------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="renorm", description="Generative models that coarse-grain data and run the flow backwards.")
    parser.add_argument("--version", action="version", version=f"renorm {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=_Parser)

    def command(name: str, call: Callable[[argparse.Namespace], None], text: str) -> argparse.ArgumentParser:
        sub: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
        sub.add_argument("--json", action="store_true", help="print one JSON object")
        sub.add_argument("--quiet", action="store_true", help="show no progress")
        sub.set_defaults(call=call)
        return sub

    fit = command("fit", _fit, "train a recipe into a run folder")
    fit.add_argument("recipe", help="name of a shipped recipe (demo, digits, mnist16, ...) or a TOML file")
    _recipe_options(fit)

    sample = command("sample", _sample, "draw new fields from a run, coarse to fine")
    sample.add_argument("run", help="run folder")
    sample.add_argument("-n", "--num", type=int, default=64, help="how many (64)")
    sample.add_argument("--level", type=int, default=0, help="stop at this level (0: the data)")
    sample.add_argument("--label", type=int, help="class, where the model has classes")
    sample.add_argument("--npz", action="store_true", help="write an array instead of a picture")
    _walk_arguments(sample)
    _file_arguments(sample)

    refine = command("refine", _refine, "coarse-grain one field and draw finer ones from it")
    refine.add_argument("run", help="run folder")
    refine.add_argument("-n", "--num", type=int, default=8, help="how many draws (8)")
    refine.add_argument("--level", type=int, help="level of the coarse field (half way)")
    _field_arguments(refine)
    _walk_arguments(refine)
    _file_arguments(refine)

    measure = command("measure", _measure, "compare samples of a run with its test data, write the report")
    measure.add_argument("run", help="run folder")
    measure.add_argument("-n", "--num", type=int, help="how many samples (the recipe's)")
    measure.add_argument("--seed", type=_seed, help="of the sampling (the recipe's)")
    _walk_arguments(measure)

    flow = command("flow", _flow, "show one field being coarse-grained, scale by scale")
    flow.add_argument("run", help="run folder")
    _field_arguments(flow)
    flow.add_argument("--seed", type=_seed, default=0, help="of the noise (0)")
    flow.add_argument("--out", help="PNG to write")

    report = command("report", _report, "write the page of a run again")
    report.add_argument("run", help="run folder")

    bench = command("bench", _bench, "run a benchmark (without a name: list them)")
    bench.add_argument("name", nargs="?", help="benchmark")
    bench.add_argument("--seed", type=_seed, default=0)
    bench.add_argument("--keep", metavar="FOLDER", help="also write FOLDER/NAME.json")

    data = command("data", _data, "download a data set (without a name: say where each one is)")
    data.add_argument("name", nargs="?", help="data set")

    command("doctor", _doctor, "say what is installed, and what of it works")

    reproduce = command("reproduce", _reproduce, "make a shipped artefact again")
    reproduce.add_argument("artefact", choices=["mnist-cnn"])
    reproduce.add_argument("--seed", type=_seed, default=0)
    reproduce.add_argument("--out", help="file to write")

    demo = command("demo", _demo, "train, sample, measure and report on embedded data")
    _recipe_options(demo)
    return parser


def _recipe_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", help="run folder (runs/RECIPE)")
    parser.add_argument("--resume", action="store_true", help="go on where a run stopped")
    parser.add_argument("--set", action="append", metavar="KEY=VALUE", help="change a value of the recipe (repeatable)")
    parser.add_argument("--schedule", help="rgdm, white, edm or calibrated: the baseline is this one value")
    parser.add_argument("--steps", type=int, help="training steps")
    parser.add_argument("--seed", type=_seed, help="of weights, noise and order")


def _field_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--input", help="folder of pictures, or .npy or .npz file (the run's test data)")
    parser.add_argument("--index", type=int, default=0, help="which field (0)")


def _walk_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--steps", type=int, help="steps from noise to data (the recipe's)")
    parser.add_argument("--sampler", help="another sampler: ancestral, ddim, angle, angle-pc, dpm2m, heun, ...")
    parser.add_argument("--spacing", help="where the steps lie: log-uniform, linear-beta, karras, equal-error, ...")


def _file_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=_seed, default=0, help="of the sampling (0)")
    parser.add_argument("--out", help="file to write: .png or .npz")


if __name__ == "__main__":
    raise SystemExit(main())
