"""The record of a fit: a line of means every few steps in ``metrics.jsonl``, TensorBoard if asked for."""

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from renorm.errors import CheckpointError, RecipeError
from renorm.fit.checkpoint import atomic

__all__ = ["Record", "read_metrics"]


class Record:
    """Running means of a fit and the file they go to.

    Each line holds ``step``, ``loss`` and ``grad_norm`` (means since the last line; before clipping), ``lr``,
    ``seconds`` (of fitting, over all resumed runs) and ``steps_per_second``. What was summed since
    the last line goes into the checkpoint: the file of a resumed run equals that of an unbroken one.

    Args:
        folder: Of the run; the file is ``folder/metrics.jsonl``.
        every: Steps between lines.
        step: Steps already done; later lines in the file are dropped.
        state: As ``state()`` gave it at that step; empty at the start.
        tensorboard: Also write events to ``folder/tensorboard``.

    Raises:
        RecipeError: If TensorBoard is asked for and not installed.
        CheckpointError: If the file cannot be written.
    """

    def __init__(
        self, folder: Path, *, every: int, step: int, state: Mapping[str, float], tensorboard: bool = False
    ) -> None:
        self.every = every
        self._loss, self._norm = state.get("loss", 0.0), state.get("grad_norm", 0.0)
        self._count, self._before = int(state.get("count", 0)), state.get("seconds", 0.0)
        self._writer = _tensorboard(folder, step) if tensorboard else None
        path = folder / "metrics.jsonl"
        lines = [line for line in read_metrics(path) if line["step"] <= step]
        with atomic(path) as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        self._file = path.open("a", encoding="utf-8")
        self._began = self._last = time.monotonic()
        self._fresh = 0

    def add(self, step: int, *, loss: float, grad_norm: float, lr: float) -> None:
        """Count one update; write a line if ``step`` is a multiple of ``every``."""
        self._loss, self._norm = self._loss + loss, self._norm + grad_norm
        self._count, self._fresh = self._count + 1, self._fresh + 1
        if step % self.every:
            return
        now = time.monotonic()
        means = {"loss": self._loss / self._count, "lr": lr, "grad_norm": self._norm / self._count}
        times = {"seconds": self._seconds(now), "steps_per_second": self._fresh / max(now - self._last, 1e-9)}
        self._write({"step": step, **means, **times})
        self._loss, self._norm, self._count, self._fresh, self._last = 0.0, 0.0, 0, 0, now

    def state(self) -> dict[str, float]:
        """What the next line is made of, for the checkpoint; the lines so far are forced to the disk."""
        os.fsync(self._file.fileno())
        seconds = self._seconds(time.monotonic())
        return {"loss": self._loss, "grad_norm": self._norm, "count": self._count, "seconds": seconds}

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        if self._writer:
            self._writer.close()

    def _seconds(self, now: float) -> float:
        return round(self._before + now - self._began, 3)

    def _write(self, line: dict[str, Any]) -> None:
        try:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
        except OSError as error:
            raise CheckpointError(f"cannot write {self._file.name}: {error.strerror}; make room, then resume") from None
        if self._writer:
            for key in line.keys() - {"step"}:
                self._writer.add_scalar(key, line[key], line["step"])


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a ``metrics.jsonl`` up to a damaged one (a crash cut it short); of a missing file, none."""
    lines: list[dict[str, Any]] = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []:
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            break
        if not isinstance(line, dict) or not isinstance(line.get("step"), int):
            break
        lines.append(line)
    return lines


def _tensorboard(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise RecipeError(
            "tensorboard = true, but TensorBoard is not installed; "
            "pip install 'renorm[track]' or set tensorboard = false"
        ) from None
    return SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)
