r"""Where ways lead in the end: what lies between goals, and how often each state is visited.

A state is in the *basin* of some goals if it lies on a way from a goal, or to one, that is no longer than so many steps
and goes through no loss. What is outside can be forgotten: a planner that stays in the basin never needs it.
"""

import numpy as np
from jaxtyping import Bool, Float64, Int, Int64
from scipy import sparse
from scipy.sparse import csgraph

from renorm.errors import DataError, RecipeError

__all__ = ["UNREACHED", "basin", "endless", "orbit", "steady_state", "steps_to"]

UNREACHED = -1
SWEEPS, STILL = 10_000, 1e-12


def basin(
    moves: Int[np.ndarray, "moves 2"],
    goals: Bool[np.ndarray, " states"],
    losses: Bool[np.ndarray, " states"],
    *,
    steps: int = 32,
) -> Bool[np.ndarray, " states"]:
    """States on a way of so many steps to a goal, or from one, that goes through no loss; goals too.

    Raises:
        RecipeError: If ``steps`` is negative.

    Example: 0 leads to the goal 1, that to 2; 3 is a loss, and 4 comes after it.
        >>> moves = np.array([[0, 1], [1, 2], [1, 3], [3, 4]])
        >>> basin(moves, np.arange(5) == 1, np.arange(5) == 3).tolist()
        [True, True, True, False, False]
    """
    if steps < 0:
        raise RecipeError(f"a basin needs steps >= 0, got {steps}")
    back = steps_to(moves, goals, losses, most=steps)
    forth = steps_to(moves[:, ::-1], goals, losses, most=steps)
    return (back >= 0) | (forth >= 0)


def steps_to(
    moves: Int[np.ndarray, "moves 2"],
    goals: Bool[np.ndarray, " states"],
    losses: Bool[np.ndarray, " states"],
    *,
    most: int | None = None,
) -> Int64[np.ndarray, " states"]:
    """Steps from each state to the nearest goal on a way without losses; -1 where there is none.

    Args:
        moves: From, to.
        goals: 0 steps from there.
        losses: Never walked through; a loss has no way.
        most: Longer ways count as none.

    Example: from 0 one may go to 1, a loss, and on to the goal 3, or over 2; none comes from 4.
        >>> moves = np.array([[0, 1], [1, 3], [0, 2], [2, 3], [3, 4]])
        >>> steps_to(moves, np.arange(5) == 3, np.arange(5) == 1).tolist()
        [2, -1, 1, 0, -1]
    """
    number = len(goals)
    back = sparse.csr_array((np.ones(len(moves), bool), (moves[:, 1], moves[:, 0])), shape=(number, number))
    distance = np.full(number, UNREACHED, np.int64)
    front, steps = np.flatnonzero(goals & ~losses), 0
    while len(front) and (most is None or steps <= most):
        distance[front] = steps
        came = np.unique(back[front].indices)
        front = came[(distance[came] < 0) & ~losses[came]]
        steps += 1
    return distance


def orbit(
    moves: Int[np.ndarray, "moves 2"], goals: Bool[np.ndarray, " states"], losses: Bool[np.ndarray, " states"]
) -> Bool[np.ndarray, " states"]:
    """The states on ways without losses from goals to each other and back: of all such sets the one of most goals.

    None, if no goal can be reached again from itself.

    Example: from the goal 1 to the goal 2 and back; the goal 4 is reached, but leads nowhere.
        >>> moves = np.array([[0, 1], [1, 2], [2, 3], [3, 1], [2, 4]])
        >>> orbit(moves, np.isin(np.arange(5), [1, 2, 4]), np.zeros(5, bool)).tolist()
        [False, True, True, True, False]
    """
    number = len(goals)
    safe = moves[~losses[moves].any(axis=1)]
    graph = sparse.csr_array((np.ones(len(safe)), (safe[:, 0], safe[:, 1])), shape=(number, number))
    _, part = csgraph.connected_components(graph, connection="strong")
    rounds = np.unique(part[safe[part[safe[:, 0]] == part[safe[:, 1]], 0]])  # one state alone is no round
    often = np.bincount(part[goals & ~losses & np.isin(part, rounds)], minlength=1)
    return np.asarray((part == often.argmax()) & bool(often.any()))


def endless(moves: Int[np.ndarray, "moves 2"], states: Bool[np.ndarray, " states"]) -> Bool[np.ndarray, " states"]:
    """Of some states those from which one can go on for ever among them: childless ones are left out, again and again.

    Example: a ring of two, and a way out of it that ends.
        >>> endless(np.array([[0, 1], [1, 0], [1, 2]]), np.ones(3, bool)).tolist()
        [True, True, False]
    """
    kept = states.copy()
    while True:
        inside = moves[kept[moves[:, 0]] & kept[moves[:, 1]]]
        going = np.zeros(len(kept), bool)
        going[inside[:, 0]] = True
        if (going == kept).all():
            return kept
        kept &= going


def steady_state(
    moves: Int[np.ndarray, "moves 2"],
    weights: Int64[np.ndarray, " moves"] | Float64[np.ndarray, " moves"],
    states: Bool[np.ndarray, " states"],
) -> Float64[np.ndarray, " states"]:
    r"""How often each state is visited in the long run by who goes on as was gone, among states that go on for ever.

    $$ p(s') = \sum_s p(s' \mid s)\, p(s), \qquad p(s' \mid s) \propto n_{ss'} . $$

    Args:
        moves: From, to.
        weights: Of each move, as how often it was seen.
        states: Those that are looked at; see ``endless``.

    Raises:
        DataError: If there is no state, or one that has no successor among them.

    Example: of a ring of three one place is passed by half the time.
        >>> moves = np.array([[0, 1], [1, 2], [1, 0], [2, 0]])
        >>> steady_state(moves, np.array([1, 1, 1, 1]), np.ones(3, bool)).round(3).tolist()
        [0.4, 0.4, 0.2]
    """
    number = len(states)
    inside = states[moves[:, 0]] & states[moves[:, 1]]
    table = sparse.csr_array(
        (weights[inside].astype(np.float64), (moves[inside, 0], moves[inside, 1])), shape=(number, number)
    )
    leaving = table.sum(axis=1)
    if not states.any() or (leaving[states] == 0).any():
        raise DataError("a steady state needs states that all go on among themselves; leave out those that do not")
    share = table.multiply(np.divide(1.0, leaving, out=np.zeros(number), where=leaving > 0)[:, None]).tocsr()
    visits = states / states.sum()
    for _ in range(SWEEPS):
        after = (visits + visits @ share) / 2  # half stay: a ring has no beat
        if abs(after - visits).max() < STILL:
            break
        visits = after
    return np.asarray(visits)
