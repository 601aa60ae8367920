r"""States from which the same may be won and lost from now on: merging that keeps every way to a goal.

Two states are one if the same is won and lost in them, and each action may lead from both to the same states, which
are merged by the same rule: the coarsest partition that its own refinement leaves as it is (Moore 1956), a bisimulation
of the moves that were seen. Ways to goals are as long in the merged states as in their members. It is lossless where
an action has one outcome; where it has several, their odds are not looked at, and those of merged states are pooled.

Source:
    Of a game's renormalised states those are merged in Friston et al. 2024, arXiv:2407.20292, that predict the same
    outcomes now and next; here what is predicted for ever, unless ``steps`` says less.
"""

import numpy as np
from jaxtyping import Int, Int64

from renorm.errors import RecipeError
from renorm.planning.attractors import steps_to
from renorm.tokens.trees.rows import distinct_rows

__all__ = ["equivalent"]


def equivalent(
    moves: Int[np.ndarray, "moves 3"], labels: Int[np.ndarray, " states"], *, steps: int | None = None
) -> Int64[np.ndarray, " states"]:
    """The class of each state, numbered by their first states.

    Args:
        moves: State, action, state that may follow.
        labels: What is seen of each state.
        steps: So far ahead they are told apart; without end, if not given.

    Raises:
        RecipeError: If ``steps`` is negative.

    Example: 0 and 1 both lead to a 2 or 3, which both end; 4 leads there by another action.
        >>> moves = np.array([[0, 0, 2], [1, 0, 3], [4, 1, 2]])
        >>> equivalent(moves, np.array([0, 0, 9, 9, 0])).tolist()
        [0, 0, 1, 1, 2]
        >>> equivalent(moves, np.array([0, 0, 9, 9, 0]), steps=0).tolist()
        [0, 0, 1, 1, 0]
    """
    if steps is not None and steps < 0:
        raise RecipeError(f"states are told apart steps >= 0 ahead, got {steps}")
    if not len(labels):
        return np.empty(0, np.int64)
    classes = distinct_rows(labels[:, None])[1]
    if steps is None:  # what is equal for ever is as far from everything: this saves a sweep for each step of a way
        ends = np.ones(len(labels), bool)
        ends[moves[:, 0]] = False
        anywhere, pairs = np.zeros(len(labels), bool), moves[:, [0, 2]]
        far = [steps_to(pairs, own, anywhere) for own in (ends, *(labels == label for label in np.unique(labels)))]
        classes = distinct_rows(np.column_stack([labels, *far]))[1]
    while steps is None or steps > 0:
        known = np.column_stack([moves[:, :2], classes[moves[:, 2]]])
        known = known[np.lexsort(known.T[::-1])]
        known = known[np.diff(known, axis=0, prepend=-1).any(axis=1)]  # what may follow, each once, state by state
        futures = np.split(known[:, 1:], np.searchsorted(known[:, 0], np.arange(1, len(labels))))
        names: dict[tuple[int, bytes], int] = {}
        keys = zip(classes.tolist(), (future.tobytes() for future in futures), strict=True)
        finer = np.array([names.setdefault(key, len(names)) for key in keys], np.int64)
        if len(names) == classes.max() + 1:
            break
        classes, steps = finer, None if steps is None else steps - 1
    return classes
