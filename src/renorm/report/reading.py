"""What a run folder holds, read with care: a file that is missing or damaged is a ``DataError`` that says so."""

import json
import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from renorm.data.npz import read_npz
from renorm.errors import DataError
from renorm.fit.record import read_metrics
from renorm.report.figures import shown_range

__all__ = [
    "arrays_of",
    "bonds_of",
    "labels_of",
    "mapping",
    "metrics_of",
    "present",
    "recipe_of",
    "shown_of",
    "value_range_of",
]


def present(run: Path, name: str) -> Path:
    """A file of a run; DataError where it is not there."""
    if not (run / name).is_file():
        raise DataError(f"there is no {name} in the run folder")
    return run / name


def mapping(run: Path, name: str, *, quiet: bool = False) -> dict[str, Any]:
    """A JSON object of the run; ``quiet`` takes nothing for one that is missing or damaged."""
    try:
        value = json.loads(present(run, name).read_text(encoding="utf-8"))
        if not isinstance(value, dict):
            raise DataError(f"{name} must hold a JSON object, got {type(value).__name__}")
        return value
    except (DataError, ValueError, OSError, RecursionError) as error:
        if quiet:
            return {}
        if isinstance(error, DataError):
            raise
        raise DataError(f"{name} is damaged: {error}") from None


def recipe_of(run: Path) -> dict[str, Any]:
    """The resolved recipe, as nested tables; empty where it is damaged."""
    try:
        return tomllib.loads((run / "recipe.toml").read_text(encoding="utf-8"))
    except ValueError:
        return {}


def metrics_of(run: Path) -> list[dict[str, Any]]:
    """The lines of ``metrics.jsonl``."""
    try:
        return [line for line in read_metrics(run / "metrics.jsonl") if isinstance(line, dict)]
    except UnicodeDecodeError:
        return []


def arrays_of(run: Path, name: str, *needed: str) -> dict[str, np.ndarray]:
    """Arrays of numbers; the needed ones are there, and those of fields have sites."""
    arrays = read_npz(present(run, name))
    for key in needed:
        if key not in arrays:
            raise DataError(f"{name} holds no array '{key}'")
    for key, array in arrays.items():
        hollow = key in ("x", "data", "generated", "flow") and (array.ndim < 3 or array.size == 0)
        if hollow or array.dtype.kind not in "fiub":
            raise DataError(f"'{key}' of {name} must hold fields or numbers, got {array.dtype} of shape {array.shape}")
    return arrays


def value_range_of(arrays: Mapping[str, np.ndarray]) -> tuple[float, float]:
    """Values of black and white that a run noted, else -1 and 1."""
    ends = arrays.get("value_range", np.array([-1.0, 1.0])).astype(float).ravel()
    if ends.size == 2 and np.isfinite(ends).all() and ends[0] < ends[1]:
        return float(ends[0]), float(ends[1])
    return -1.0, 1.0


def shown_of(arrays: Mapping[str, np.ndarray]) -> tuple[float, float]:
    """The range of the data, where there are any, for the samples too: both are seen on one scale."""
    return shown_range(arrays.get("data", arrays["x"]), value_range_of(arrays))


def bonds_of(arrays: Mapping[str, np.ndarray]) -> list[tuple[int, int]] | None:
    """Pairs of bonded atoms of molecules ``x``; nothing where fields are no positions."""
    if "bonds" not in arrays:
        return None
    atoms = arrays["x"].shape[2]
    pairs = [(int(a), int(b)) for a, b in arrays["bonds"].reshape(-1, 2)]
    if any(not (0 <= a < atoms and 0 <= b < atoms) for a, b in pairs):
        raise DataError(f"bonds must join two of {atoms} atoms, got {pairs}")
    return pairs


def labels_of(levels: int, arrays: Mapping[str, np.ndarray]) -> tuple[list[str], str]:
    """A label for each level, finest first, and what the caption says about them."""
    for key, symbol, unit in (
        ("cutoffs", "Λ", ", labelled by the cutoff Λ in rad/site"),
        ("scales", "t", ", labelled by the scale t"),
        ("particles", "n =", ", labelled by the number of particles"),
    ):
        values = np.ravel(arrays.get(key, np.empty(0)))
        if len(values) == levels and len(set(values.tolist())) > 1:
            return [f"{symbol} {'∞' if math.isinf(v) else f'{v:.2g}'}" for v in values.tolist()], unit
    return [f"level {index}" for index in range(levels)], ", labelled by the level"
