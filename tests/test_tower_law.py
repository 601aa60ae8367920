"""Inference on towers against enumeration of everything that may be."""

import itertools

import numpy as np
import pytest

from renorm.errors import DataError, RecipeError
from renorm.tokens.paths.groups import block_groups, with_streams
from renorm.tokens.paths.growth import grow_tower, place_groups
from renorm.tokens.paths.tower import Tower
from renorm.tokens.paths.tower_law import TowerLaw
from renorm.worlds.pong import Pong
from renorm.worlds.world import play, random_player

A, B, VOCABULARY = 0.3, 0.7, 3


def some_tower(draw):
    """A small tower that has learned a few random episodes, and an episode with hidden tokens."""
    shape = int(draw.integers(3))
    groups, span, alphabet = [
        ([np.array([0, 1]), np.array([0, 0])], 2, 2),  # two tokens, each for itself, then together
        ([np.array([0]), np.array([0]), np.array([0])], 4, 2),  # one token, three levels
        ([np.array([0, 0, 1]), np.array([0, 1])], 2, 2),  # two roots
    ][shape]
    tower = Tower(groups)
    frames = 2 * span + int(draw.integers(2))
    tower.learn([draw.integers(alphabet, size=(frames, len(groups[0]))) for _ in range(2 if shape != 1 else 1)])
    episode = draw.integers(-1, VOCABULARY, size=(2 * span - int(draw.integers(2)), len(groups[0])))
    return tower, episode


def joint_of(tower, episode):
    """Every configuration of all states: (probability with what is seen, [states by level, factor, window])."""
    span = tower.spans[-1]
    windows = -(-len(episode) // span)
    levels = tower.levels
    bases = {}
    for factor in levels[0]:
        for i, token in enumerate(factor.children):
            counts = np.bincount(factor.states.rows[:, i], factor.states.counts, VOCABULARY)
            bases[token] = (counts + 1 / VOCABULARY) / (counts.sum() + 1)

    def below(level, place, window, state):
        """All that may be under one state: (probability, {(level, place, window): state})."""
        factor = levels[level][place]
        count = factor.states.counts[state]
        if level == 0:
            share = 1.0
            for i, token in enumerate(factor.children):
                seen = episode[window, token] if window < len(episode) else -1
                if seen >= 0:
                    own = count * (factor.states.rows[state, i] == seen)
                    share *= (own + A * bases[token][seen]) / (count + A)
            return [(share, {(0, place, window): state})]
        ways = [(1.0, {(level, place, window): state})]
        for i, child in enumerate(factor.children):
            lower = levels[level - 1][child]
            total = lower.events.counts.sum()
            options = []
            for event, run in enumerate(lower.events.rows):
                own = count * (factor.states.rows[state, i] == event)
                share = (own + A * lower.events.counts[event] / total) / (count + A)
                parts = [below(level - 1, child, window * tower.length + k, s) for k, s in enumerate(run)]
                options += [
                    (share * np.prod([p for p, _ in part]), {k: v for _, d in part for k, v in d.items()})
                    for part in itertools.product(*parts)
                ]
            ways = [(p * q, {**d, **e}) for (p, d), (q, e) in itertools.product(ways, options)]
        return ways

    found = []
    for place, root in enumerate(levels[-1]):
        number, top = len(root.states), len(levels) - 1
        pairs = np.zeros((number, number))
        np.add.at(pairs, tuple(root.events.rows.T), root.events.counts)
        first = root.states.counts / root.states.counts.sum()
        then = (pairs + B * first) / (pairs.sum(1, keepdims=True) + B)
        memory = {(w, s): below(top, place, w, s) for w in range(windows) for s in range(number)}
        ways = []
        for path in itertools.product(range(number), repeat=windows):
            share = first[path[0]] * np.prod([then[a, b] for a, b in itertools.pairwise(path)])
            for part in itertools.product(*(memory[w, s] for w, s in enumerate(path))):
                ways.append((share * np.prod([p for p, _ in part]), {k: v for _, d in part for k, v in d.items()}))
        found.append(ways)
    return found, bases


@pytest.mark.parametrize("seed", range(20))
def test_inference_is_enumeration(seed):
    tower, episode = some_tower(np.random.default_rng(seed))
    law = TowerLaw(tower, VOCABULARY, concentration=A, looseness=B)
    beliefs = law.explain(episode)
    roots, bases = joint_of(tower, episode)
    evidence = [sum(share for share, _ in ways) for ways in roots]
    assert beliefs.log_evidence == pytest.approx(np.log(evidence).sum(), abs=1e-10)
    assert law.log_evidence(episode) == pytest.approx(beliefs.log_evidence, abs=1e-12)
    assert beliefs.free_energy == pytest.approx(-beliefs.log_evidence, abs=1e-10)
    assert (beliefs.complexity >= -1e-12).all()
    exact = [[np.zeros_like(q) for q in level] for level in beliefs.states]
    for ways, total in zip(roots, evidence, strict=True):
        for share, states in ways:
            for (level, place, window), state in states.items():
                exact[level][place][window, state] += share / total
    for level, found in zip(exact, beliefs.states, strict=True):
        for expected, q in zip(level, found, strict=True):
            np.testing.assert_allclose(q, expected, atol=1e-10)
    for factor, q in zip(tower.levels[0], exact[0], strict=True):
        count = factor.states.counts
        for i, token in enumerate(factor.children):
            own = np.eye(VOCABULARY)[factor.states.rows[:, i]]
            table = (count[:, None] * own + A * bases[token]) / (count + A)[:, None]
            hidden = episode[:, token] < 0
            np.testing.assert_allclose(
                beliefs.token(int(token))[hidden], (q[: len(episode)] @ table)[hidden], atol=1e-10
            )
            assert (beliefs.token(int(token))[~hidden].argmax(1) == episode[~hidden, token]).all()


@pytest.mark.parametrize("seed", range(3))
def test_filtered_beliefs_know_the_past_alone(seed):
    draw = np.random.default_rng(100 + seed)
    tower, episode = some_tower(draw)
    law = TowerLaw(tower, VOCABULARY)
    span = tower.spans[-1]
    past = np.where(np.arange(len(episode))[:, None] < span, episode, -1)
    for whole, known in zip(law.explain(episode).filtered, law.explain(past).states[-1], strict=True):
        np.testing.assert_allclose(whole[0], known[0], atol=1e-12)


def test_draws_have_the_law():
    draw = np.random.default_rng(5)
    tower, episode = some_tower(np.random.default_rng(0))
    episode[1:3] = -1
    law = TowerLaw(tower, VOCABULARY, concentration=A, looseness=B)
    number = 40_000
    drawn = law.sample(episode, number, draw)
    seen = episode >= 0
    assert (drawn[:, seen] == episode[seen]).all()
    beliefs = law.explain(episode)
    for token in range(tower.tokens):
        shares = beliefs.token(token)
        found = np.stack([np.bincount(drawn[:, t, token], minlength=VOCABULARY) for t in range(len(episode))]) / number
        assert (np.abs(found - shares) < 4.5 * np.sqrt(shares * (1 - shares) / number) + 1e-12).all()
    # a pair of tokens far apart, by the evidence of both: not the product of its sides
    first, last = (1, 0), (2, tower.tokens - 1)
    joint = np.zeros((VOCABULARY, VOCABULARY))
    for a, b in itertools.product(range(VOCABULARY), repeat=2):
        both = episode.copy()
        both[first], both[last] = a, b
        joint[a, b] = np.exp(law.log_evidence(both) - beliefs.log_evidence)
    assert joint.sum() == pytest.approx(1, abs=1e-10)
    found = np.zeros_like(joint)
    np.add.at(found, (drawn[(slice(None), *first)], drawn[(slice(None), *last)]), 1 / number)
    assert (np.abs(found - joint) < 4.5 * np.sqrt(joint * (1 - joint) / number)).all()


def test_what_was_learned_is_likely_and_what_was_not_is_possible():
    counting = np.array([[t % 4] for t in range(64)])
    tower = Tower([np.array([0])] * 3)
    tower.learn([counting])
    law = TowerLaw(tower, 5)
    assert law.log_evidence(counting) > law.log_evidence(counting[::-1]) > -np.inf
    new = counting.copy()
    new[10] = 4
    assert np.isfinite(law.log_evidence(new))
    assert (
        law.explain(np.concatenate([counting[:5], np.full((11, 1), -1)])).likeliest[:, 0].tolist() == [0, 1, 2, 3] * 4
    )


def test_what_is_almost_certain_stays_finite():
    tower = Tower([np.array([0, 0])])
    tower.learn([np.array([[0, 1], [1, 0]] * 8)])
    law = TowerLaw(tower, 3, concentration=1e-17, looseness=1e-17)
    beliefs = law.explain(np.array([[0, -1], [2, 2], [1, -1]]))
    assert np.isfinite(beliefs.log_evidence)
    assert beliefs.likeliest[[0, 2]].tolist() == [[0, 1], [1, 0]]


def test_long_episodes_of_many_tokens_keep_their_digits():
    draw = np.random.default_rng(0)
    tower = Tower([np.arange(400) // 4, np.zeros(100, np.int64)])
    movie = draw.integers(4, size=(40, 400))
    tower.learn([movie])
    law = TowerLaw(tower)
    beliefs = law.explain(draw.integers(4, size=(41, 400)))
    assert np.isfinite(beliefs.log_evidence)
    assert beliefs.free_energy == pytest.approx(-beliefs.log_evidence, rel=1e-12)
    np.testing.assert_allclose(beliefs.states[0][0].sum(1), 1, atol=1e-9)


def test_more_than_memory_is_told(monkeypatch):
    monkeypatch.setattr("renorm.tokens.paths.tower_law.MOST_BYTES", 1000)
    tower = Tower([np.array([0])])
    tower.learn([np.arange(40)[:, None] % 20])
    with pytest.raises(DataError, match="ask for fewer frames"):
        TowerLaw(tower).explain(np.zeros((40, 1), np.int64))


def test_bad_input():
    tower = Tower([np.array([0, 1]), np.array([0, 0])])
    with pytest.raises(DataError, match="learned nothing"):
        TowerLaw(tower)
    tower.learn([np.array([[0, 1], [1, 0]] * 4)])
    with pytest.raises(RecipeError, match="counts > 0"):
        TowerLaw(tower, concentration=0.0)
    with pytest.raises(DataError, match="vocabulary"):
        TowerLaw(tower, 1)
    with pytest.raises(DataError, match="2 tokens"):
        TowerLaw(tower).explain(np.zeros((4, 3), np.int64))
    with pytest.raises(DataError, match="2 tokens"):
        TowerLaw(tower).explain(np.zeros((0, 2), np.int64))
    with pytest.raises(DataError, match="whole numbers, -1 if hidden"):
        TowerLaw(tower).explain(np.full((4, 2), -2))
    with pytest.raises(DataError, match="token 0 is 0 to 1"):
        TowerLaw(tower).explain(np.full((4, 2), 2))


def test_a_tower_that_grows_explains_better_than_one_of_strangers():
    """Four bits, each thrice, shuffled: factors of copies have few states, and new throws are likelier."""
    draw = np.random.default_rng(0)
    order = draw.permutation(12)
    bits = draw.integers(2, size=(400, 4)).repeat(3, axis=1)[:, order]
    grown = grow_tower([bits[:300]], size=3, levels=1)
    found = {tuple(sorted((order[factor.children] // 3).tolist())) for factor in grown.levels[0]}
    assert found == {(i, i, i) for i in range(4)}
    mixed = Tower([np.arange(12) % 4])
    if any(len(set((order[factor.children] // 3).tolist())) == 1 for factor in mixed.levels[0]):
        pytest.fail("this shuffle is no shuffle")
    mixed.learn([bits[:300]])
    new = bits[300:]
    assert TowerLaw(grown).log_evidence(new) > TowerLaw(mixed).log_evidence(new) + 50


def test_places_are_halved():
    rows, columns = np.divmod(np.arange(64.0), 8)
    groups = place_groups(np.stack([rows, columns], axis=1))
    assert [len(np.unique(group)) for group in groups] == [16, 4, 1]
    assert groups[0].reshape(8, 8)[:2, :2].tolist() == [[0, 0], [0, 0]]
    tower = Tower(groups)
    tower.learn([np.random.default_rng(0).integers(2, size=(9, 64))])
    assert len(tower.levels[-1]) == 1


def test_wrong_growth():
    with pytest.raises(RecipeError, match="size >= 2"):
        grow_tower([np.zeros((4, 3), np.int64)], 1)
    with pytest.raises(DataError, match="one episode or more"):
        grow_tower([], 2)
    with pytest.raises(DataError, match="need episodes of"):
        grow_tower([np.eye(3, 16, dtype=np.int64)], 2)


def test_streams_renormalise_side_by_side():
    """Pictures tell rewards and losses that are hidden, and those tell pictures."""
    draw = np.random.default_rng(0)
    watched = play(Pong(rows=6, columns=5), random_player(3, draw), 4000, draw)
    rows = np.column_stack([watched.pictures.reshape(4000, -1), watched.rewards, watched.costs])
    tower = Tower(with_streams(block_groups((6, 5), (3, 2)), 2))
    tower.learn([rows])
    law = TowerLaw(tower, concentration=1e-4)
    new = play(Pong(rows=6, columns=5), random_player(3, draw), 400, draw)
    asked = np.column_stack([new.pictures.reshape(400, -1), np.full((400, 2), -1)])
    found = law.explain(asked).likeliest[:, -2:]
    assert (found == np.column_stack([new.rewards, new.costs])).mean() > 0.99
    wanted = np.full((2, 32), -1)
    wanted[1, -2:] = 1, 0  # a reward in the second frame
    for drawn in law.sample(wanted, 20, draw):
        assert drawn[1, 25:30].tolist().count(4) == 1  # the ball is in the lowest row
    with pytest.raises(RecipeError, match="one group of pixels"):
        with_streams([np.array([0, 1])], 1)


def test_one_level_has_nothing_to_count_twice():
    draw = np.random.default_rng(0)
    tower = Tower([np.array([0, 0])])
    tower.learn([draw.integers(2, size=(30, 2))])
    law, episode = TowerLaw(tower), draw.integers(-1, 2, size=(9, 2))
    np.testing.assert_allclose(law.filtered_twice(episode)[0], law.explain(episode).filtered[0], atol=1e-12)


def test_a_posterior_that_is_passed_counts_expectations_twice():
    """Two levels, one window: the prior of events times their likelihood stands for the likelihood."""
    draw = np.random.default_rng(3)
    tower = Tower([np.array([0]), np.array([0])])
    tower.learn([draw.integers(2, size=(12, 1))])
    law = TowerLaw(tower, concentration=A, looseness=B)
    episode = np.array([[1], [-1]])
    root, below = tower.levels[1][0], tower.levels[0][0]
    prior = root.states.counts / root.states.counts.sum()
    (table,) = law.outcome_laws(2, 0)
    (tokens,) = law.outcome_laws(1, 0)
    likelihood = tokens[1][below.events.rows[:, 0]]  # of each event, by its first state
    twice = table.T @ ((table @ prior) * likelihood)
    found = law.filtered_twice(episode)[0][0]
    np.testing.assert_allclose(found, prior * twice / (prior @ twice), atol=1e-12)
    once = table.T @ likelihood
    np.testing.assert_allclose(law.explain(episode).filtered[0][0], prior * once / (prior @ once), atol=1e-12)
    assert not np.allclose(found, prior * once / (prior @ once), atol=1e-3)
