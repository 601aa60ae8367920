"""Commands that turn images into small files and back."""

import argparse
from pathlib import Path

from renorm.cli.options import out_file
from renorm.cli.output import say, table
from renorm.errors import RecipeError

__all__ = ["compress", "decompress"]


def compress(options: argparse.Namespace) -> None:
    """Images to one file."""
    from renorm.recipes.coding import compress_run

    out = out_file(options, Path("lossy.rnm" if options.lossy else "images.rnm"), ".rnm")
    figures = compress_run(Path(options.run), out, source=options.input, lossy=options.lossy)
    say(
        options,
        {"file": str(out), **figures},
        f"wrote {out}; next: renorm decompress {options.run} {out}\n" + table(figures),
    )


def decompress(options: argparse.Namespace) -> None:
    """A file to images."""
    from renorm.recipes.coding import decompress_run

    out = Path(options.out or Path(options.file).with_suffix(".npz"))
    if out.suffix not in (".npz", ""):
        raise RecipeError(f"--out must be an .npz file or a folder for PNG files, got {out}")
    number = decompress_run(Path(options.run), Path(options.file), out)
    say(options, {"file": str(out), "images": number}, f"wrote {number} images to {out}")
