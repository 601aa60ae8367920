"""Structure in time: tables of distinct rows, factors and towers, and what comes back of what was learned."""

import numpy as np
import pytest

from renorm.errors import DataError, RecipeError
from renorm.tokens.paths.factor import Factor
from renorm.tokens.paths.register import Register
from renorm.tokens.paths.tally import Tally
from renorm.tokens.paths.tower import Tower, room_in
from renorm.tokens.trees import rows as table
from renorm.tokens.trees.rows import FACTOR, distinct_rows


def rng(seed=0):
    return np.random.default_rng(seed)


def slow_distinct(rows):
    """The same by a dictionary."""
    seen: dict[tuple[int, ...], int] = {}
    which = [seen.setdefault(tuple(row), len(seen)) for row in rows.tolist()]
    first = [which.index(i) for i in range(len(seen))]
    return first, which


@pytest.mark.parametrize("width", [1, 3, 9])
@pytest.mark.parametrize("values", [2, 50])
def test_distinct_rows_are_those_of_a_dictionary(width, values):
    rows = rng(width).integers(-1, values, (500, width))
    first, which = distinct_rows(rows)
    assert (first.tolist(), which.tolist()) == slow_distinct(rows)
    assert distinct_rows(rows[:0])[0].shape == (0,)


def test_rows_of_one_fingerprint_are_told_apart(monkeypatch):
    rows = rng().integers(0, 4, (200, 3))
    expected = slow_distinct(rows)
    monkeypatch.setattr(table, "FACTOR", np.uint64(0))  # every row has the fingerprint of its last number
    first, which = distinct_rows(rows)
    assert (first.tolist(), which.tolist()) == expected
    assert int(FACTOR) % 2 == 1


def test_a_register_learned_in_parts_is_that_of_the_whole(monkeypatch):
    from renorm.tokens.paths import register

    rows = rng().integers(0, 6, (300, 3))
    whole, parts = Register(3), Register(3)
    numbers = whole.learn(rows)
    assert np.concatenate([parts.learn(part) for part in np.split(rows, [10, 11, 200])]).tolist() == numbers.tolist()
    assert (parts.rows == whole.rows).all()
    assert (whole.rows[numbers] == rows).all()
    for few in (1, 10_000):
        monkeypatch.setattr(register, "FEW", few)
        assert whole.find(np.vstack([rows, [[9, 9, 9]]])).tolist() == [*numbers.tolist(), -1]
    assert (Register.of(whole.rows).rows == whole.rows).all()
    with pytest.raises(DataError, match="holds one twice"):
        Register.of(np.array([[1, 2, 3], [1, 2, 3]]))
    with pytest.raises(DataError, match=r"rows of 3 numbers, got an array of shape \(2, 2\)"):
        whole.find(rows[:2, :2])


def test_tallies_add():
    rows = rng(1).integers(0, 3, (400, 2))
    whole, parts = Tally(2), Tally(2)
    whole.learn(rows)
    for part in np.array_split(rows, 7):
        other = Tally(2)
        other.learn(part)
        parts.learn(other.rows, other.counts)
    assert parts.counts.tolist() == whole.counts.tolist()
    assert whole.counts.sum() == 400
    again = Tally.of(whole.rows, whole.counts)
    again.learn(rows[:1])
    assert again.counts.sum() == 401
    with pytest.raises(DataError, match="every row needs a count >= 0"):
        Tally.of(whole.rows, whole.counts[1:])


def test_paths_are_branches_in_the_order_of_discovery():
    factor = Factor(np.array([0]))
    tokens = np.array([0, 1, 0, 2, 0, 1, 1, 0])[:, None]
    seen = factor.learn(tokens, room_in([8]), 1)
    assert seen.states.tolist() == [0, 1, 0, 2, 0, 1, 1, 0]
    begins, follows = factor.events.rows.T
    told = [(int(a), int(u), int(b)) for a, u, b in zip(begins, factor.paths, follows, strict=True)]
    assert told == [(0, 0, 1), (1, 0, 0), (0, 1, 2), (2, 0, 0), (1, 1, 1)]
    assert factor.events.counts.tolist() == [2, 2, 1, 1, 1]


GROUPS = [np.array([0, 0, 1, 1]), np.array([0, 0]), np.array([0])]


def movie(frames, seed):
    """Two pairs of tokens, each with its own clock, and some noise."""
    t = np.arange(frames)
    x = np.stack([t % 3, t % 2, t % 5, rng(seed).integers(0, 2, frames)], axis=1)
    return x.astype(np.int64)


@pytest.mark.parametrize("length", [2, 3])
def test_what_was_seen_comes_back_exactly(length):
    episodes = [movie(40, 0), movie(31, 1)]
    tower = Tower(GROUPS, length)
    seen = tower.learn(episodes)
    frames = np.concatenate(episodes)
    room = room_in([40, 31])
    for level, span in enumerate(tower.spans, start=1):
        for place, factor in enumerate(tower.levels[level - 1]):
            states = seen[level - 1][place].states
            whole = np.flatnonzero(states >= 0)
            assert whole.tolist() == np.flatnonzero(room >= span).tolist()
            mine = tower.frames(level, place, states[whole])
            tokens = np.flatnonzero(mine.any(axis=(0, 1)))
            for i, t in enumerate(whole):
                assert (mine[i][:, tokens] == frames[t : t + span][:, tokens]).all()
            assert factor.states.counts.sum() == len(whole)
    again = tower.find(episodes)
    for own, others in zip(seen, again, strict=True):
        for one, other in zip(own, others, strict=True):
            assert (one.states == other.states).all()
            assert (one.events == other.events).all()


def test_counts_of_four_parts_are_those_of_one_pass():
    episodes = [movie(12 + i, i) for i in range(8)]
    whole = Tower(GROUPS)
    whole.learn(episodes)
    total = Tower(GROUPS)
    for part in range(4):
        one = Tower(GROUPS)
        one.learn(episodes[2 * part : 2 * part + 2])
        total.absorb(one)
    for own, others in zip(whole.levels, total.levels, strict=True):
        for one, other in zip(own, others, strict=True):
            for mine, theirs in ((one.states, other.states), (one.events, other.events)):
                assert mine.rows.tolist() == theirs.rows.tolist()
                assert mine.counts.tolist() == theirs.counts.tolist()
    with pytest.raises(DataError, match="only towers of the same groups"):
        whole.absorb(Tower([np.array([0, 1, 1, 1]), *GROUPS[1:]]))


def test_what_was_never_seen_has_no_number():
    tower = Tower(GROUPS)
    tower.learn([movie(20, 0)])
    new = movie(20, 0)
    new[7, 0] = 9
    seen = tower.find([new])
    assert np.flatnonzero(seen[0][0].states < 0).tolist() == [7]
    assert np.flatnonzero(seen[1][0].states[:19] < 0).tolist() == [6, 7]
    assert (seen[0][1].states >= 0).all()


def test_bad_towers_and_episodes_are_told():
    for groups, match in (
        ([], "one level or more"),
        ([np.array([0, 2])], "one of them is empty"),
        ([np.array([0, 1]), np.array([0, 0, 0])], "level 2 has 2 factors below it, got groups of 3"),
    ):
        with pytest.raises(RecipeError, match=match):
            Tower(groups)
    with pytest.raises(RecipeError, match="length >= 2 states, got 1"):
        Tower(GROUPS, 1)
    tower = Tower(GROUPS)
    for episode, match in (
        (movie(7, 0), "need episodes of 8 frames or more, got 7 in episode 0"),
        (movie(9, 0)[:, :3], r"\(frames, 4 tokens\), got \(9, 3\)"),
        (movie(9, 0) - 1, "hidden tokens"),
    ):
        with pytest.raises(DataError, match=match):
            tower.learn([episode])
    with pytest.raises(DataError, match="one episode or more, got none"):
        tower.learn([])
    seen = tower.learn([movie(9, 0)])
    with pytest.raises(DataError, match="level 2 has states 0 to 7 there, got -1 to 7"):
        tower.frames(2, 0, seen[1][0].states)
