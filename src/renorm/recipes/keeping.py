"""What a fit keeps while it goes on: lines of its losses, and where a stage stands, so that a kill loses a minute."""

import json
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from renorm.errors import CheckpointError
from renorm.fit.checkpoint import Checkpoint, atomic, latest
from renorm.fit.checkpoint import save as save_checkpoint
from renorm.fit.progress import FitProgress
from renorm.fit.record import read_metrics

__all__ = ["Metrics", "StageKeeper", "leave_the_place", "teller"]

LINES = 200  # of metrics.jsonl for a stage
KEEP = 60.0  # seconds between the moments of a stage that are kept


def teller(
    stage: int, steps: int, numbers: int, before: int, bar: FitProgress, metrics: "Metrics", keeper: "StageKeeper"
) -> Callable[[int, float], None]:
    """Tells the bar and the metrics of each step; of those that an earlier run took, the metrics alone.

    Args:
        stage: Its number.
        steps: Of it.
        numbers: Components whose nats the loss counts; what is told is the loss over them.
        before: Steps of the stages before it.
        bar: Shown.
        metrics: Written.
        keeper: Knows where the stage goes on from.
    """

    def tell(step: int, loss: float) -> None:
        metrics.add(before + step, loss / numbers, stage, last=step == steps, every=steps)
        if step > keeper.step:
            bar.update(before + step, loss / numbers)
        elif step == keeper.step:
            bar.begin(before + step)

    return tell


class StageKeeper:
    """Keeps a stage every ``KEEP`` seconds, beside the checkpoint of the stages before it."""

    def __init__(self, folder: Path, known: Mapping[str, Any], stage: int) -> None:
        self._folder, self._about = folder, {"identity": json.loads(json.dumps(known)), "stage": stage}
        self.step = 0  # that the stage goes on from
        self._spent, self._begun = 0.0, time.perf_counter()
        self._kept = self._begun

    def load(self) -> Mapping[str, Tensor] | None:
        """What was kept of this very stage, if anything."""
        try:
            saved = latest(self._folder)
        except CheckpointError:  # damaged: the stage begins again, and ends the same
            return None
        if saved is None or any(saved.about.get(key) != value for key, value in self._about.items()):
            return None
        self.step, self._spent = saved.step, float(saved.about["seconds"])
        return saved.tensors

    def save(self, step: int, standing: Callable[[], dict[str, Tensor]]) -> None:
        """Keep the stage, if it is time."""
        if time.perf_counter() - self._kept >= KEEP:
            about = {**self._about, "seconds": self.seconds()}
            save_checkpoint(self._folder, Checkpoint(step, standing(), about), keep=1)
            self._kept = time.perf_counter()

    def seconds(self) -> float:
        """How long this stage has taken, over all attempts that were kept."""
        return self._spent + time.perf_counter() - self._begun

    def forget(self) -> None:
        """Remove what was kept: the stage is finished."""
        shutil.rmtree(self._folder, ignore_errors=True)


class Metrics:
    """``metrics.jsonl``: the mean loss of every few steps, in nats per component of the fields; later lines dropped."""

    def __init__(self, path: Path, steps: int) -> None:
        lines = [line for line in read_metrics(path) if line["step"] <= steps]
        with atomic(path) as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        self._file = path.open("a", encoding="utf-8")
        self._losses: list[float] = []

    def add(self, step: int, loss: float, stage: int, *, last: bool, every: int) -> None:
        """Count one step; write a line where enough have come together, or the stage ends."""
        self._losses.append(loss)
        if last or len(self._losses) >= max(1, every // LINES):
            line = {"step": step, "loss": sum(self._losses) / len(self._losses), "stage": stage}
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
            self._losses = []

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def leave_the_place(folder: Path) -> None:
    """Remove what a fit wrote that failed before anything was learned: the folder is free for a mended recipe."""
    for name in ("recipe.toml", "manifest.json", "metrics.jsonl"):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
