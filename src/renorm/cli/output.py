"""What is said: pictures, tables, progress."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from renorm.spec import to_json

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Progress", "save_grid", "save_picture", "say", "table"]


def save_grid(out: Path, x: "Tensor", run: Path, *, columns: int | None = None) -> None:
    """Fields as a contact sheet, in the value range of the run; molecules as balls and sticks."""
    from renorm.lattice import Lattice
    from renorm.recipes.folder import read_field_recipe
    from renorm.recipes.molecule_measure import bonds_of
    from renorm.report.figures import field_grid
    from renorm.report.molecule_figures import molecule_grid

    recipe = read_field_recipe(run)
    bonds = bonds_of(recipe, Lattice(tuple(x.shape[2:]), recipe.data.boundary, x.shape[1]))
    if bonds is not None:
        return save_picture(out, molecule_grid(x, bonds, columns=columns))
    save_picture(out, field_grid(x, columns=columns, value_range=recipe.data.value_range))


def save_picture(out: Path, image: Any) -> None:
    """A PNG, all at once."""
    from renorm.fit.checkpoint import atomic

    with atomic(out) as temporary:
        image.save(temporary, format="PNG")


class Progress:
    """A bar on stderr for the walk; nothing with --quiet or where stderr is no terminal."""

    def __init__(self, options: argparse.Namespace, what: str) -> None:
        self.shown, self.what = not options.quiet and sys.stderr.isatty(), what

    def __enter__(self) -> Callable[[int, int, float, Any], None] | None:
        if not self.shown:
            return None
        from rich.console import Console
        from rich.progress import MofNCompleteColumn, Progress

        columns = *Progress.get_default_columns(), MofNCompleteColumn()
        self.bar = Progress(*columns, console=Console(stderr=True), transient=True)
        self.bar.start()
        task = self.bar.add_task(self.what, total=None)

        def callback(step: int, steps: int, scale: float, modes: Any) -> None:
            self.bar.update(task, completed=step, total=steps)

        return callback

    def __exit__(self, *_: object) -> None:
        if self.shown:
            self.bar.stop()


def table(figures: dict[str, Any]) -> str:
    """Figures in two columns."""
    width = max(map(len, figures), default=0)
    return "\n".join(f"{key:{width}}  {f'{v:.6g}' if isinstance(v, float) else v}" for key, v in figures.items())


def say(options: argparse.Namespace, value: dict[str, Any], text: str) -> None:
    """One JSON object, or text for people."""
    if os.environ.get("RANK", "0") == "0":  # under torchrun one process speaks for all
        print(to_json(value) if options.json else text)
