"""One factor of a tower as the arrays of pymdp, and back: A, B, C, D, and the counts pA and pB that they come from.

pymdp itself is not needed here: arrays are NumPy's, and its ``Agent`` takes them as ``jax.numpy`` arrays, each with a
batch axis in front.

Source:
    pymdp, Heins et al. 2022, Journal of Open Source Software 7, 4098; names of its ``Agent``, version 1.0.
"""

from typing import Any

import numpy as np
from jaxtyping import Int64

from renorm.errors import DataError, RecipeError
from renorm.tokens.paths.factor import Factor
from renorm.tokens.paths.tally import Tally
from renorm.tokens.paths.tower_law import TowerLaw

__all__ = ["from_pymdp", "to_pymdp"]

MOST_BYTES = 2**30


def to_pymdp(law: TowerLaw, level: int, place: int = 0) -> dict[str, list[Any]]:
    """A factor's law.

    Path u of a state leads to the successor that was seen u-th. A path that a state does not have leads where its first
    one leads; a state without a successor stays.

    Args:
        law: Of the tower.
        level: From 1.
        place: Of the factor in its level.

    Returns:
        A: For each child p(outcome | state), (outcomes, states). B: One array (next state, state, path). C:
        Preferences, all 0. D: How often each state was seen, as a share. pA, pB: Counts. A_dependencies,
        B_dependencies: All of the one factor.

    Raises:
        RecipeError: If there is no such factor, its events are longer than two states, or the arrays, which are dense,
            would take more than a gibibyte.
        DataError: If the tower has learned since its law was made.

    Example:
        >>> from renorm.tokens.paths.tower import Tower
        >>> tower = Tower([np.array([0, 0])])
        >>> _ = tower.learn([np.array([[0, 1], [1, 0], [0, 1], [0, 1]])])
        >>> arrays = to_pymdp(TowerLaw(tower), level=1)
        >>> [array.shape for array in arrays["A"]], arrays["B"][0].shape
        ([(2, 2), (2, 2)], (2, 2, 2))
        >>> arrays["B"][0][:, 0].T.tolist()  # state 0 went to state 1, then to itself
        [[0.0, 1.0], [1.0, 0.0]]
    """
    levels = law.tower.levels
    if not (1 <= level <= len(levels) and 0 <= place < len(levels[level - 1])):
        raise RecipeError(f"this tower has levels 1 to {len(levels)}, got level {level}, factor {place}")
    factor = levels[level - 1][place]
    if factor.length != 2:
        raise RecipeError(f"pymdp's transitions join two states, this tower's events have {factor.length}")
    size, paths = len(factor.states), factor.paths
    number = int(paths.max()) + 1
    needed = 16 * size * (size * number + sum(law.outcome_sizes(level, place)))
    if needed > MOST_BYTES:
        raise RecipeError(
            f"dense arrays of {size} states and {number} paths take {needed / 2**30:.1f} GiB, more than "
            f"{MOST_BYTES / 2**30:.0f}; take a lower level, or smaller groups"
        )
    tables = law.outcome_laws(level, place)
    if not law.is_current:
        raise DataError("this tower has learned since its law was made; make a new law of it")
    first, then = factor.events.rows.T
    counts = np.zeros((size, size, number))
    counts[then, first, paths] = factor.events.counts
    sends = counts > 0
    fallback = np.where(sends[:, :, 0].any(axis=0), sends[:, :, 0].argmax(axis=0), np.arange(size))
    missing = np.nonzero(~sends.any(axis=0))
    sends[fallback[missing[0]], missing[0], missing[1]] = True
    seen = []
    for i, table in enumerate(tables):
        own = np.zeros_like(table)
        own[factor.states.rows[:, i], np.arange(size)] = factor.states.counts
        seen.append(own)
    return {
        "A": tables,
        "B": [sends.astype(np.float64)],
        "C": [np.zeros(len(table)) for table in tables],
        "D": [factor.states.counts / factor.states.counts.sum()],
        "pA": seen,
        "pB": [counts],
        "A_dependencies": [[0] for _ in tables],
        "B_dependencies": [[0]],
    }


def from_pymdp(arrays: dict[str, list[Any]], children: Int64[np.ndarray, " children"] | None = None) -> Factor:
    """A factor from counts pA and pB: states in their order, and paths; events are numbered state by state.

    pymdp's arrays do not say in which order events were first seen. So the numbers of events are others than in the
    tower that they came from, and the factor cannot be put back below its parents there.

    Args:
        arrays: As ``to_pymdp`` gives them; only pA and pB are read.
        children: Places of its children in the level below; in order, if not given.

    Raises:
        DataError: If arrays are missing or do not fit each other, counts are no whole numbers, or a state has not one
            outcome of each child, or not one successor on each path.
    """
    if any(len(arrays.get(key, ())) == 0 for key in ("pA", "pB")):
        raise DataError(f"a factor is read from its counts pA and pB, got {', '.join(arrays) or 'nothing'}")
    outcomes, moves = [np.asarray(own) for own in arrays["pA"]], np.asarray(arrays["pB"][0])
    if len(arrays["pB"]) != 1 or moves.ndim != 3 or not outcomes:
        raise DataError(f"one factor has one pB (states, states, paths) and one pA or more, got {moves.shape}")
    size = moves.shape[1]
    if moves.shape[0] != size or any(own.ndim != 2 or own.shape[1] != size for own in outcomes):
        raise DataError(
            f"pA are (outcomes, {size} states) and pB ({size}, {size}, paths), got "
            f"{[own.shape for own in outcomes]} and {moves.shape}"
        )
    if any((own < 0).any() or (own != np.round(own)).any() for own in (*outcomes, moves)):
        raise DataError("pA and pB must be counts, whole numbers >= 0: a law without its counts cannot be read back")
    if any(((own > 0).sum(axis=0) != 1).any() for own in outcomes) or ((moves > 0).sum(axis=0) > 1).any():
        raise DataError("a state of a tower has one outcome of each child, and one successor on each path")
    counts = outcomes[0].sum(axis=0)
    if any((own.sum(axis=0) != counts).any() for own in outcomes):
        raise DataError("all pA must count each state equally often")
    if children is not None and len(children) != len(outcomes):
        raise DataError(f"each child has one pA, got {len(children)} children and {len(outcomes)} pA")
    factor = Factor(np.arange(len(outcomes)) if children is None else children)
    rows = np.stack([own.argmax(axis=0) for own in outcomes], axis=1)
    factor.states = Tally.of(rows, counts.astype(np.int64))
    first, path = np.nonzero((moves > 0).any(axis=0))
    then = moves[:, first, path].argmax(axis=0)
    factor.events = Tally.of(np.column_stack([first, then]), moves[then, first, path].astype(np.int64))
    return factor
