"""What is said: pictures, tables, progress."""

import argparse
import os
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from renorm.spec import to_json

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Counted", "Progress", "save_grid", "save_picture", "say", "table"]


def save_grid(out: Path, x: "Tensor", run: Path, *, columns: int | None = None) -> None:
    """Fields as a contact sheet, in the value range of the run."""
    from renorm.recipes.folder import read_field_recipe
    from renorm.report.figures import field_grid

    save_picture(out, field_grid(x, columns=columns, value_range=read_field_recipe(run).data.value_range))


def save_picture(out: Path, image: Any) -> None:
    """A PNG, all at once."""
    from renorm.fit.checkpoint import atomic

    with atomic(out) as temporary:
        image.save(temporary, format="PNG")


_LINE_SECONDS = 30.0


class Counted:
    """Things done, their rate and the time left: a bar, or a line every half minute where stderr is no terminal."""

    def __init__(self, options: argparse.Namespace, what: str, unit: str) -> None:
        self.what, self.unit = what, unit
        self.shown, self.lines = not options.quiet and sys.stderr.isatty(), not options.quiet
        self.bar: Any = None

    def __enter__(self) -> "Counted":
        self._began = self._last = time.monotonic()
        self._first: int | None = None
        if self.shown:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn

            columns = TextColumn(self.what), BarColumn(), TextColumn("{task.fields[line]}")
            self.bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self.bar.start()
            self._task = self.bar.add_task(self.what, total=None, line="")
        return self

    def __call__(self, done: int, total: int) -> None:
        """Say that so many are done; those before the first call were done in another run."""
        now = time.monotonic()
        if self._first is None:
            self._first = max(done - 1, 0)
        if self.bar is not None:
            self.bar.update(self._task, completed=done, total=total, line=self._line(done, total, now))
        elif self.lines and done and (now - self._last > _LINE_SECONDS or done == total):
            self._last = now
            print(f"{self.what} {self._line(done, total, now)}", file=sys.stderr, flush=True)

    def _line(self, done: int, total: int, now: float) -> str:
        rate = (done - (self._first or 0)) / max(now - self._began, 1e-9)
        left = f"  {timedelta(seconds=round((total - done) / rate))} left" if rate and done < total else ""
        return f"{done}/{total} {self.unit}  {rate:.3g} {self.unit}/s{left}"

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()


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
