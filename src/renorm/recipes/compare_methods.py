"""Numbers of a comparison: means over seeds, the best walk of each method, gains. No torch, no files."""

import math
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple

__all__ = ["GAIN", "Entry", "Gain", "Mean", "Row", "figures_of", "gains_of", "mean_over_seeds", "rows_of"]

GAIN = (
    "figure of the white twin less that of the method, each by its best walk, so more than 0 is better; this "
    "difference alone is one of renormalization"
)
"""What a gain is, for people."""


class Mean(NamedTuple):
    """Mean over seeds, its standard error (``None`` of one seed), and how many; no value where a walk ran away."""

    value: float | None
    error: float | None
    seeds: int


class Entry(NamedTuple):
    """One measured cell in its place: of which method and walk, for which number of evaluations."""

    method: str
    walk: str
    asked: int
    evaluations: int
    quality: float | None
    seconds: float


@dataclass(frozen=True)
class Row:
    """One walk of one method at one number of evaluations, over all seeds.

    Attributes:
        asked: Evaluations at most.
        evaluations: Those truly made.
        quality: The figure by which methods are compared; small is good.
        seconds: For a sample, sampling alone.
        best: Whether no walk of the method has a smaller mean at this number.
    """

    method: str
    walk: str
    asked: int
    evaluations: int
    quality: Mean
    seconds: Mean
    best: bool = False


@dataclass(frozen=True)
class Gain:
    """What a method gains over its white twin at equal evaluations, each by its best walk: twin less method."""

    method: str
    twin: str
    asked: int
    value: float
    error: float | None


def mean_over_seeds(values: Sequence[float | None]) -> Mean:
    r"""Mean and standard error, $s/\sqrt n$ with $s^2 = \sum_i (x_i - \bar x)^2/(n - 1)$.

    Where a value is missing or not finite there is no mean: a walk that runs away for one seed is no walk to take.

    Example:
        >>> mean_over_seeds([1.0, 2.0, 6.0])
        Mean(value=3.0, error=1.5275252316519468, seeds=3)
        >>> mean_over_seeds([4.0]), mean_over_seeds([4.0, None])
        (Mean(value=4.0, error=None, seeds=1), Mean(value=None, error=None, seeds=2))
    """
    finite = [v for v in values if v is not None and math.isfinite(v)]
    num = len(values)
    if not values or len(finite) < num:
        return Mean(None, None, num)
    return Mean(statistics.fmean(finite), statistics.stdev(finite) / math.sqrt(num) if num > 1 else None, num)


def rows_of(entries: Iterable[Entry]) -> list[Row]:
    """Cells of one method, walk and number of evaluations become a row; the best of each method is marked.

    Best is the walk with the smallest mean over the method's seeds, the earlier one of two that are equal.
    """
    groups: dict[tuple[str, str, int], list[Entry]] = {}
    for entry in entries:
        groups.setdefault((entry.method, entry.walk, entry.asked), []).append(entry)
    rows = [
        Row(
            method=method,
            walk=walk,
            asked=asked,
            evaluations=group[0].evaluations,
            quality=mean_over_seeds([entry.quality for entry in group]),
            seconds=mean_over_seeds([entry.seconds for entry in group]),
        )
        for (method, walk, asked), group in groups.items()
    ]
    best: dict[tuple[str, int], Row] = {}
    for row in rows:
        if row.quality.value is None:
            continue
        before = best.get((row.method, row.asked))
        if before is None or row.quality.value < before.quality.value:  # type: ignore[operator]
            best[row.method, row.asked] = row
    return [_marked(row, row is best.get((row.method, row.asked))) for row in rows]


def _marked(row: Row, best: bool) -> Row:
    return Row(row.method, row.walk, row.asked, row.evaluations, row.quality, row.seconds, best)


def gains_of(rows: Iterable[Row], twins: Mapping[str, str]) -> list[Gain]:
    r"""Gain of renormalization, $\bar x_\mathrm{twin} - \bar x$, at every number of evaluations that both have.

    $$ \mathrm{error} = \sqrt{e^2 + e_\mathrm{twin}^2}, \qquad \text{none where either has one seed} $$

    Args:
        rows: The table.
        twins: Method -> its white twin.

    Example:
        >>> table = [Row("ours", "ddim", 5, 5, Mean(2.0, 0.3, 3), Mean(1.0, 0.1, 3), True)]
        >>> table.append(Row("twin", "ddim", 5, 5, Mean(3.0, 0.4, 3), Mean(1.0, 0.1, 3), True))
        >>> gains_of(table, {"ours": "twin"})
        [Gain(method='ours', twin='twin', asked=5, value=1.0, error=0.5)]
    """
    best = {(row.method, row.asked): row.quality for row in rows if row.best}
    gains = []
    for (method, asked), ours in best.items():
        theirs = best.get((twins.get(method, ""), asked))
        if theirs is None or ours.value is None or theirs.value is None:
            continue
        known = ours.error is not None and theirs.error is not None
        error = math.hypot(ours.error or 0.0, theirs.error or 0.0) if known else None
        gains.append(Gain(method, twins[method], asked, theirs.value - ours.value, error))
    return gains


def figures_of(
    quality: str, rows: Iterable[Row], gains: Iterable[Gain], floor: float | None
) -> dict[str, float | int | str]:
    """Flat keys: ``fd_METHOD_EVALUATIONS``, its ``_error``, ``_walk`` and ``_seconds``; ``gain_...``; ``fd_floor``.

    In a key the name of a method is in small letters, and signs are underscores; of two methods whose names then are
    the same, the second is ``NAME_2``.

    Args:
        quality: The figure of the table; a Frechet distance gives the keys ``fd``, another its own name.
        rows: The table, of which the best walks are told.
        gains: Over white twins.
        floor: The figure of training fields.
    """
    short = "fd" if quality.startswith("FD[") else _slug(quality)
    rows, gains = list(rows), list(gains)
    slugs = _slugs([row.method for row in rows] + [gain.method for gain in gains])
    figures: dict[str, float | int | str] = {}
    for row in rows:
        if not row.best or row.quality.value is None:
            continue
        key = f"{short}_{slugs[row.method]}_{row.asked}"
        figures[key] = row.quality.value
        if row.quality.error is not None:
            figures[f"{key}_error"] = row.quality.error
        figures[f"{key}_walk"] = row.walk
        if row.seconds.value is not None:
            figures[f"{key}_seconds"] = row.seconds.value
    for gain in gains:
        key = f"gain_{slugs[gain.method]}_{gain.asked}"
        figures[key] = gain.value
        if gain.error is not None:
            figures[f"{key}_error"] = gain.error
    if floor is not None:
        figures[f"{short}_floor"] = floor
    return figures


def _slugs(names: Iterable[str]) -> dict[str, str]:
    """The name of each method in keys, no two alike."""
    slugs: dict[str, str] = {}
    for name in dict.fromkeys(names):
        plain = _slug(name)
        numbered = (plain if i == 1 else f"{plain}_{i}" for i in count(1))
        slugs[name] = next(slug for slug in numbered if slug not in slugs.values())
    return slugs


def _slug(name: str) -> str:
    return re.sub(r"\W+", "_", name).strip("_").lower()
