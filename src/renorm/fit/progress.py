"""What people see of a fit, or other long work, on stderr: a bar on a terminal, elsewhere a line every half minute."""

import sys
import time
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

__all__ = ["Counted", "FitProgress"]

_LINE_SECONDS = 30.0
_SURE = 10  # steps after which a time left is more than a guess (a stage may begin with a long closed form)


class FitProgress:
    """Step, rate, loss and time left of a fit.

    Args:
        start: Steps done before (by the run that is resumed).
        steps: Steps in all.
        shown: False writes nothing (other ranks than the first).
        figure: What falls as the fit goes on.
        what: Name of the work.
        unit: What it is counted in.
        sure: Steps after which the time left is shown.
    """

    def __init__(
        self,
        start: int,
        steps: int,
        *,
        shown: bool,
        figure: str = "loss",
        what: str = "fit",
        unit: str = "steps",
        sure: int = _SURE,
    ) -> None:
        self.start, self.steps, self.shown, self.figure, self.what, self.unit = start, steps, shown, figure, what, unit
        self.sure = sure
        self.loss: float | None = None
        self._began = self._last_line = time.monotonic()
        self._bar: Progress | None = None
        console = Console(stderr=True)
        if shown and console.is_terminal:
            columns = TextColumn(what), BarColumn(), TextColumn("{task.fields[line]}")
            self._bar = Progress(*columns, console=console)
            self._task = self._bar.add_task(what, total=steps, completed=start, line="")
            self._bar.start()

    def begin(self, step: int, *, since: float | None = None) -> None:
        """Count the rate from here, or from a moment of the monotonic clock: steps before are not of this run."""
        self.start, self._began = step, time.monotonic() if since is None else since

    def update(self, step: int, loss: float | None = None) -> None:
        """Show that ``step`` steps are done; the loss shown, if there is one, is smoothed over some fifty steps."""
        if loss is not None:
            self.loss = loss if self.loss is None else 0.98 * self.loss + 0.02 * loss
        if self._bar:
            self._bar.update(self._task, completed=step, line=self._line(step))
        elif self.shown and (time.monotonic() - self._last_line > _LINE_SECONDS or step == self.steps):
            self._last_line = time.monotonic()
            print(f"{self.what} {self._line(step)}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Give the terminal back."""
        if self._bar:
            self._bar.stop()

    def _line(self, step: int) -> str:
        done = step - self.start
        rate = done / max(time.monotonic() - self._began, 1e-9)
        line = f"{step}/{self.steps}  {rate:.3g} {self.unit}/s"
        if self.loss is not None:
            line += f"  {self.figure} {self.loss:.4g}"
        if not done or (done < self.sure and step < self.steps):
            return line
        return f"{line}  {timedelta(seconds=round((self.steps - step) / rate))} left"


class Counted:
    """Things done, their rate and the time left, for work whose size is known with the first of them.

    Nothing is shown before the first call.

    Args:
        what: Name of the work.
        unit: What it is counted in.
        shown: False writes nothing.
        start: How many were done in another run; all but one of the first call, if not given.
    """

    def __init__(self, what: str, unit: str, *, shown: bool, start: int | None = None) -> None:
        self.what, self.unit, self.shown, self.start = what, unit, shown, start
        self._began = time.monotonic()
        self._progress: FitProgress | None = None

    def __enter__(self) -> "Counted":
        return self

    def __call__(self, done: int, total: int) -> None:
        """Say that so many are done."""
        if not done:
            return
        if self._progress is None:
            start = done - 1 if self.start is None else self.start
            self._progress = FitProgress(start, total, shown=self.shown, what=self.what, unit=self.unit, sure=1)
            self._progress.begin(start, since=self._began)
        self._progress.update(done)

    def __exit__(self, *_: object) -> None:
        if self._progress:
            self._progress.close()
