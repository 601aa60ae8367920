"""Every command and its options, in one place."""

import argparse
from collections.abc import Callable
from typing import NoReturn, TypeAlias

from renorm.cli import blocks, chains, commands, compare, files, given, molecules, movie, plan, sound
from renorm.cli.options import seed
from renorm.errors import RecipeError
from renorm.version import __version__

__all__ = ["build_parser"]


Command: TypeAlias = Callable[[str, Callable[[argparse.Namespace], None], str], argparse.ArgumentParser]
"""Name, function and help of a command."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line and exit code 2."""
        raise RecipeError(f"{message} (see `{self.prog} --help`)")


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = _Parser(prog="renorm", description="Generative models that coarse-grain data and run the flow backwards.")
    parser.add_argument("--version", action="version", version=f"renorm {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=_Parser)

    def command(name: str, call: Callable[[argparse.Namespace], None], text: str) -> argparse.ArgumentParser:
        sub: argparse.ArgumentParser = subparsers.add_parser(name, help=text, description=text)
        sub.add_argument("--json", action="store_true", help="print one JSON object")
        sub.add_argument("--quiet", action="store_true", help="show no progress")
        sub.set_defaults(call=call)
        return sub

    fit = command("fit", commands.fit, "train a recipe into a run folder")
    fit.add_argument("recipe", help="name of a shipped recipe (demo, mnist16, tokens-mnist, ...) or a TOML file")
    _recipe_options(fit)
    fit.add_argument("--baseline", help="fit a baseline of it: ddpm, edm, rgdm-paper or white-twin (runs/RECIPE-NAME)")

    sample = command("sample", commands.sample, "draw new fields from a run, coarse to fine")
    sample.add_argument("run", help="run folder")
    sample.add_argument("-n", "--num", type=int, default=64, help="how many (64)")
    sample.add_argument("--level", type=int, default=0, help="stop at this level (0: the data)")
    sample.add_argument("--label", type=int, help="class, where the model has classes")
    sample.add_argument("--guidance", type=float, default=1.0, help="how much of the class, with --label (1)")
    sample.add_argument("--npz", action="store_true", help="write an array instead of a picture")
    _walk_arguments(sample)
    _file_arguments(sample)

    refine = command("refine", commands.refine, "coarse-grain one field and draw finer ones from it")
    refine.add_argument("run", help="run folder")
    refine.add_argument("-n", "--num", type=int, default=8, help="how many draws (8)")
    refine.add_argument("--level", type=int, help="level of the coarse field (half way)")
    refine.add_argument("--coarse", metavar="FILE", help="of a cascade: .npy or .npz of coarse fields, all of them")
    refine.add_argument("--moves", type=int, default=0, help="of a cascade: HMC moves at fixed coarse fields (0)")
    refine.add_argument("--edge", type=int, help="of a diffusion: keep the modes that so many sites an axis carry")
    refine.add_argument("--particles", type=int, default=1, help="of each draw, with --edge (1)")
    _field_arguments(refine)
    _walk_arguments(refine)
    _file_arguments(refine)

    inpaint = command("inpaint", given.inpaint, "hide half of one field and draw it again (diffusions)")
    inpaint.add_argument("run", help="run folder")
    inpaint.add_argument("-n", "--num", type=int, default=8, help="how many draws (8)")
    inpaint.add_argument("--hide", choices=given.HALVES, default="right", help="which half (right)")
    _field_arguments(inpaint)
    _walk_arguments(inpaint)
    _file_arguments(inpaint)

    likelihood = command("likelihood", given.likelihood, "bits of the test fields by a diffusion, scale by scale")
    likelihood.add_argument("run", help="run folder")
    likelihood.add_argument("-n", "--num", type=int, default=100, help="how many fields (100)")
    likelihood.add_argument(
        "--method", choices=("bound", "flow"), default="bound", help="bound, or density by the flow"
    )
    likelihood.add_argument("--evaluations", type=int, default=100, help="of the network, for each field (100)")
    likelihood.add_argument("--seed", type=seed, default=0, help="of the noise (0)")
    likelihood.set_defaults(sampler=None, spacing=None)

    fold = command("fold", chains.fold, "draw protein chains of a sequence, coarse to fine, into PDB files")
    fold.add_argument("sequence", help="letters of the residues, a FASTA file, a structure (1abc.cif:A), or a number")
    fold.add_argument("--run", default="runs/protein", help="run folder (runs/protein)")
    fold.add_argument("-n", "--num", type=int, default=5, help="how many chains of each (5)")
    fold.add_argument("--seed", type=seed, default=0, help="of the draws (0)")
    fold.add_argument("--features", metavar="DIR", help="where the language model, or features, of the run are now")
    fold.add_argument("--out", help="folder of the PDB files (RUN/folds)")
    _walk_arguments(fold)

    measure = command("measure", commands.measure, "compare samples of a run with its test data, write the report")
    measure.add_argument("run", help="run folder")
    measure.add_argument("-n", "--num", type=int, help="how many samples (the recipe's)")
    measure.add_argument("--seed", type=seed, help="of the sampling (the recipe's)")
    _walk_arguments(measure)

    _compare_arguments(
        command("compare", compare.compare, "set runs beside each other: quality against evaluations and seconds")
    )

    flow = command("flow", commands.flow, "show one field being coarse-grained, scale by scale")
    flow.add_argument("run", help="run folder")
    _field_arguments(flow)
    flow.add_argument("--seed", type=seed, default=0, help="of the noise (0)")
    flow.add_argument("--out", help="PNG to write")

    compress = command("compress", files.compress, "write images as one small file, by the law of a token hierarchy")
    compress.add_argument("run", help="run folder")
    compress.add_argument("--input", help="folder of pictures, or .npy or .npz file (the run's test images)")
    compress.add_argument("--lossy", action="store_true", help="keep the window tokens alone")
    compress.add_argument("--out", help="file to write (images.rnm)")

    decompress = command("decompress", files.decompress, "read a file that the same run compressed")
    decompress.add_argument("run", help="run folder")
    decompress.add_argument("file", help="the file")
    decompress.add_argument("--out", help=".npz file, or a folder for PNG files (FILE.npz)")

    _paths_commands(command)
    _rules_and_surfaces(command)

    report = command("report", commands.report, "write the page of a run again")
    report.add_argument("run", help="run folder")

    bench = command("bench", commands.bench, "run a benchmark (without a name: list them)")
    bench.add_argument("name", nargs="?", help="benchmark")
    bench.add_argument("--seed", type=seed, default=0)
    bench.add_argument("--keep", metavar="FOLDER", help="also write FOLDER/NAME.json")

    data = command("data", commands.data, "download a data set, or read your structures (without a name: list them)")
    data.add_argument("name", nargs="?", help="data set, or proteins")
    data.add_argument("folder", nargs="?", help="of your own .pdb and .cif files, for proteins")

    command("doctor", commands.doctor, "say what is installed, and what of it works")

    reproduce = command("reproduce", commands.reproduce, "make a shipped artefact again")
    reproduce.add_argument("artefact", choices=["mnist-cnn"])
    reproduce.add_argument("--seed", type=seed, default=0)
    reproduce.add_argument("--out", help="file to write")

    demo = command("demo", commands.demo, "train, sample, measure and report on embedded data")
    _recipe_options(demo)
    return parser


def _paths_commands(command: Command) -> None:
    """Worlds, movies and sounds, which are learned by counting."""
    plan_ = command("plan", plan.plan, "watch a world at random, learn by counting, and play it by planning")
    plan_.add_argument("world", help="pong, breakout, or gym:ID of an environment of gymnasium")
    plan_.add_argument("--planner", default="objects", help="objects, or tower: windows of whole pictures (objects)")
    plan_.add_argument("--frames", type=int, default=5000, help="of random play to learn from (5000)")
    plan_.add_argument("--rounds", type=int, default=0, help="own plays of 400 frames to learn from as well (0)")
    plan_.add_argument("--play", type=int, default=512, help="frames to play (512)")
    plan_.add_argument("--slip", type=float, default=0.0, help="probability that an action is a random one (0)")
    plan_.add_argument("--set", action="append", metavar="KEY=VALUE", help="a setting of the world (serve=random)")
    plan_.add_argument("--show", action="store_true", help="draw the play in the terminal")
    plan_.add_argument("--seed", type=seed, default=0, help="of the world and both plays (0)")
    plan_.add_argument("--out", help="folder of the result and its animation (runs/plan-WORLD)")

    movie_ = command(
        "movie", movie.movie, "learn a movie by counting: tell it again, generate, complete, pack; or unpack"
    )
    movie_.add_argument(
        "movie", help="GIF, folder of pictures, .npy or .npz; 'shapes' for a built-in one; .rnv to unpack"
    )
    movie_.add_argument("--frames", type=int, default=64, help="to generate (64)")
    movie_.add_argument("--edges", default="8,4", help="sites of a block, level by level (8,4; the last goes on)")
    movie_.add_argument("--seed", type=seed, default=0, help="of what is generated (0)")
    movie_.add_argument("--out", help="folder of what is written (runs/movie-NAME), or the .npz or .gif to unpack into")

    sound_ = command("sound", sound.sound, "learn a sound by counting: tell it again, generate, complete")
    sound_.add_argument("sound", help="WAV file, or 'melody' for a built-in one")
    sound_.add_argument("--seconds", type=float, default=8.0, help="to generate (8)")
    sound_.add_argument("--size", type=int, default=256, help="samples from block to block (256)")
    sound_.add_argument("--bands", type=int, default=8, help="of the spectrum, a power of 2 (8)")
    sound_.add_argument("--tokens", type=int, help="in each band, by k-means (all that differ: nothing is lost)")
    sound_.add_argument("--seed", type=seed, default=0, help="of what is generated, and of k-means (0)")
    sound_.add_argument("--out", help="folder of what is written (runs/sound-NAME)")


def _rules_and_surfaces(command: Command) -> None:
    """What is learned from fields or frames without a run: block-spin rules, free-energy surfaces."""
    blocks_ = command("blocks", blocks.blocks, "learn a block-spin rule from a recipe's fields, beside fixed rules")
    blocks_.add_argument("recipe", help="name of a shipped recipe (ising16, phi4-16, ...) or a TOML file")
    blocks_.add_argument("--size", type=int, default=2, help="sites of a block on each axis (2)")
    blocks_.add_argument("--buffer", type=int, default=1, help="sites left out around it (1)")
    blocks_.add_argument("--reach", type=int, default=2, help="sites beyond these that it tells of (2)")
    blocks_.add_argument("--steps", type=int, default=1500, help="of Adam (1500)")
    blocks_.add_argument("--set", action="append", metavar="KEY=VALUE", help="change a value of the data (repeatable)")
    blocks_.add_argument("--seed", type=seed, default=0, help="of weights and batches (0)")
    blocks_.add_argument("--out", help="folder of what is written (runs/blocks-RECIPE)")

    torsions = command("torsions", molecules.torsions, "learn the free-energy surface of torsion angles of a run")
    torsions.add_argument("file", help="COLVAR file of PLUMED, or .npz with the same columns")
    torsions.add_argument("--temperature", type=float, required=True, help="in kelvin")
    torsions.add_argument("--bias-unit", help="of the column of the bias: kJ/mol, kcal/mol or kT")
    torsions.add_argument("--run", help="which run of an .npz that holds several")
    torsions.add_argument("--cells", type=int, default=64, help="of the surface, on each axis (64)")
    torsions.add_argument("--from", dest="start", type=float, default=0.0, help="drop frames before this time (0)")
    torsions.add_argument("-n", "--num", type=int, default=0, help="points to draw from the surface (0)")
    torsions.add_argument("--seed", type=seed, default=0, help="of these points (0)")
    torsions.add_argument("--out", help="folder of what is written (runs/torsions-NAME)")


def _recipe_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", help="run folder (runs/RECIPE)")
    parser.add_argument("--resume", action="store_true", help="go on where a run stopped")
    parser.add_argument("--set", action="append", metavar="KEY=VALUE", help="change a value of the recipe (repeatable)")
    parser.add_argument(
        "--schedule", help="of a diffusion: rgdm, white, edm, calibrated or separated; the baseline is this one value"
    )
    parser.add_argument("--steps", type=int, help="training steps (diffusions)")
    parser.add_argument("--seed", type=seed, help="of weights, noise and order")


def _compare_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", nargs="+", help="run folders of one data set; those that differ by their seed are one")
    parser.add_argument("--evaluations", default="5,10,20,50", help="of the network for a sample (5,10,20,50)")
    parser.add_argument("--walks", help="SAMPLER or SAMPLER@SPACING, by commas (those of the baseline, or six)")
    parser.add_argument("-n", "--num", type=int, default=2000, help="samples in each cell (2000)")
    parser.add_argument("--seed", type=seed, default=1, help="of the sampling (1)")
    parser.add_argument("--out", default="compare", help="folder of the cells, the table and the page (compare)")
    other = parser.add_mutually_exclusive_group()
    other.add_argument("--again", action="store_true", help="measure cells of another commit anew")
    other.add_argument("--accept-cached", action="store_true", help="take cells of another commit as they are")


def _field_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--input", help="folder of pictures, or .npy or .npz file (the run's test data)")
    parser.add_argument("--index", type=int, default=0, help="which field (0)")


def _walk_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--steps", type=int, help="steps from noise to data (diffusions; the recipe's)")
    parser.add_argument("--sampler", help="of a diffusion: ancestral, ddim, angle, angle-pc, dpm2m, heun, ...")
    parser.add_argument("--spacing", help="of a diffusion's steps: log-uniform, linear-beta, karras, equal-error, ...")


def _file_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=seed, default=0, help="of the sampling (0)")
    parser.add_argument("--out", help="file to write: .png or .npz")
