"""What every run folder has: what was asked, where it ran, and files that appear all at once."""

import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from renorm.errors import CheckpointError
from renorm.fit.checkpoint import atomic, checkpoints, differences
from renorm.fit.record import read_metrics
from renorm.recipes.spec import AnyRecipe, ChainRecipe, FieldRecipe, Recipe, read_toml
from renorm.spec import to_json, to_toml
from renorm.version import __version__

__all__ = [
    "DIRTY",
    "check_same_run",
    "is_first",
    "machine",
    "read_field_recipe",
    "read_recipe",
    "recorded",
    "require_own",
    "write_arrays",
    "write_json",
]

DIRTY = "-dirty"
"""Ends the commit of code that has changes which are not committed: such a commit does not identify it."""


def is_first() -> bool:
    """Whether this process writes: under torchrun the first one alone looks and writes."""
    return os.environ.get("RANK", "0") == "0"


def check_same_run(folder: Path, known: dict[str, Any]) -> None:
    """Refuse to write over another run, also one that has no checkpoint yet."""
    path = folder / "manifest.json"
    if not path.exists():
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8")).get("identity", {})
    except (ValueError, AttributeError):
        raise CheckpointError(f"{path} is damaged; choose another --out, or remove the folder") from None
    changed = differences(before, known)
    if changed:
        raise CheckpointError(f"{folder} belongs to another run: {'; '.join(changed)}; choose another --out")


def require_own(folder: Path, mark: str) -> None:
    """Raise ``CheckpointError`` if a folder holds something, and not the file by which its kind is known."""
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / mark).is_file())):
        raise CheckpointError(f"{folder} holds something else; choose another --out")


def read_recipe(folder: Path) -> AnyRecipe:
    """The resolved recipe of a run.

    Raises:
        CheckpointError: If the folder holds no run.
    """
    if not (folder / "recipe.toml").is_file():
        raise CheckpointError(f"{folder} is no run folder (there is no recipe.toml); `renorm fit RECIPE` makes one")
    return read_toml(folder / "recipe.toml")


def read_field_recipe(folder: Path) -> FieldRecipe:
    """The resolved recipe of a run of fields.

    Raises:
        CheckpointError: If the folder holds no run, or one of chains.
    """
    recipe = read_recipe(folder)
    if isinstance(recipe, ChainRecipe):
        raise CheckpointError(f"{folder} is a run of chains; `renorm fold SEQUENCE --run {folder}` draws some")
    return recipe


@contextmanager
def recorded(
    recipe: ChainRecipe | Recipe, folder: Path, facts: dict[str, Any], frame: Callable[[Path], None]
) -> Iterator[None]:
    """Around a fit by gradient: recipe, model's frame and manifest are written before it, its seconds after it.

    The manifest stays that of the machine that trained: a finished fit that is resumed does not change it. Several
    processes may come here; the first one alone writes.

    Args:
        recipe: As resolved.
        folder: Of the run.
        facts: For the manifest.
        frame: Writes all of the model but its weights.
    """
    manifest = folder / "manifest.json"
    if is_first():
        finished = _finished(folder, recipe.fit.steps)
        with atomic(folder / "recipe.toml") as temporary:
            temporary.write_text(to_toml(recipe), encoding="utf-8")
        frame(folder)
        if not finished:
            write_json(manifest, {**facts, "seconds": None})
    yield
    if is_first() and not finished:
        metrics = read_metrics(folder / "metrics.jsonl")  # none where nothing was trained
        write_json(manifest, {**facts, "seconds": metrics[-1]["seconds"] if metrics else 0.0})


def _finished(folder: Path, steps: int) -> bool:
    """Whether a run has come to so many steps and told how long they took."""
    manifest = folder / "manifest.json"
    known = json.loads(manifest.read_text(encoding="utf-8")) if manifest.exists() else {}
    saved = checkpoints(folder / "checkpoints")
    return known.get("seconds") is not None and bool(saved) and saved[-1][0] >= steps


def write_arrays(path: Path, **arrays: Tensor) -> None:
    """Named arrays as a compressed npz, atomically."""
    with atomic(path) as temporary, temporary.open("wb") as file:
        plain: dict[str, Any] = {name: array.cpu().numpy() for name, array in arrays.items()}
        np.savez_compressed(file, **plain)


def write_json(path: Path, value: Any) -> None:
    """A JSON file, atomically; a number that is not finite becomes ``null``."""
    with atomic(path) as temporary:
        temporary.write_text(to_json(value, indent=1) + "\n", encoding="utf-8")


def machine() -> dict[str, Any]:
    """Where and with what something ran."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "renorm": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "commit": _commit(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": gpu or f"{platform.machine()} {sys.platform}, {torch.get_num_threads()} threads",
        "threads": torch.get_num_threads(),
    }


def _commit() -> str:
    """Of the package's own files, with ``DIRTY`` if they have changed; their digest if no repository keeps them."""

    def git(*words: str) -> str:
        command = ["git", "--no-optional-locks", *words]
        done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "recipes/folder.py")  # installed within somebody else's repository
        return git("rev-parse", "--short", "HEAD") + (DIRTY if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return _digest(Path(__file__).parents[1])


@cache
def _digest(package: Path) -> str:
    """Of all files that make up an installed package: equal only for equal code."""
    whole = hashlib.sha256()
    for path in sorted(package.rglob("*")):
        if path.suffix in (".py", ".toml"):
            whole.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return f"files-{whole.hexdigest()[:12]}"
