"""Objects, what follows, and plans: found from random play, judged by play."""

import itertools
import math

import numpy as np
import pytest
from scipy.special import gammaln

from renorm.errors import DataError, RecipeError
from renorm.planning.players import PlanningPlayer, foresight_of
from renorm.planning.search import Planner
from renorm.tokens.paths.context_law import ContextLaw, both, evidence_gain
from renorm.tokens.paths.foresight import Foresight
from renorm.tokens.paths.object_states import ObjectStates
from renorm.tokens.paths.objects import lagged_links, objects_of
from renorm.tokens.paths.planes import Planes
from renorm.worlds.pong import Pong
from renorm.worlds.q_learner import QLearner
from renorm.worlds.world import play, random_player


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def pong():
    """5000 frames of random play, and what they teach."""
    g = rng()
    played = play(Pong(serve="random"), random_player(3, g), 5000, g)
    return played, foresight_of(played, actions=3)


def test_links_are_information_by_hand():
    tokens = rng().random((60, 3)) < 0.4
    tokens[1:, 1] = tokens[:-1, 0]
    links = lagged_links(tokens)
    now, then = tokens[:-1], tokens[1:]

    def information(x, y):
        total = 0.0
        for a, b in itertools.product((0, 1), repeat=2):
            p = ((x == a) & (y == b)).mean()
            total += p * math.log(p / ((x == a).mean() * (y == b).mean())) if p else 0.0
        return total

    def entropy(x):
        return -sum(p * math.log(p) for p in (x.mean(), 1 - x.mean()))

    for i, j in itertools.product(range(3), repeat=2):
        told = information(now[:, i], then[:, j]) + information(now[:, j], then[:, i])
        assert links[i, j] == pytest.approx(told / math.sqrt(entropy(tokens[:, i]) * entropy(tokens[:, j])), abs=1e-12)
    cut = np.ones(60, bool)
    cut[29] = False  # the second half is another episode
    halves = lagged_links(np.concatenate([tokens[:30], tokens[30:]]), cut)
    assert not np.allclose(halves, links)
    assert lagged_links(np.zeros((5, 2), bool)).tolist() == [[0, 0], [0, 0]]
    with pytest.raises(DataError, match="two frames in a row, got 1"):
        lagged_links(tokens[:1])


def test_the_gain_of_a_variable_is_a_ratio_of_dirichlet_evidences():
    context, variable, outcomes = rng(3).integers(0, 3, (3, 40))
    strength = 1.7
    expected = 0.0
    for c in range(3):
        here = context == c
        share = np.bincount(outcomes[here], minlength=3) / here.sum()
        expected -= np.log(share[outcomes[here]]).sum()
        for v in range(3):
            counts = np.bincount(outcomes[here & (variable == v)], minlength=3)
            alpha = strength * share
            seen = alpha > 0
            expected += gammaln(strength) - gammaln(strength + counts.sum())
            expected += (gammaln(alpha[seen] + counts[seen]) - gammaln(alpha[seen])).sum()
    assert evidence_gain(context, variable, outcomes, strength=strength) == pytest.approx(expected, abs=1e-9)


def test_two_variables_are_one():
    a, b = rng(4).integers(-1, 5, (2, 200))
    one = both(a, b)
    assert set(one.tolist()) == set(range(len(set(zip(a.tolist(), b.tolist(), strict=True)))))
    for x, y in itertools.combinations(range(50), 2):
        assert (one[x] == one[y]) == (a[x] == a[y] and b[x] == b[y])


def test_a_law_takes_what_bears_on_the_outcome_and_says_how_likely():
    g = rng(5)
    variables = g.integers(0, 4, (4000, 4))
    outcomes = np.where(g.random(4000) < 0.75, variables[:, 2], (variables[:, 2] + variables[:, 0]) % 4)
    law = ContextLaw.fit(variables, outcomes)
    assert set(law.variables) == {0, 2}
    asked = np.array([[1, 0, 2, 3]])
    told, shares = law.options(asked)
    assert told[0, :2].tolist() == [2, 3]
    assert law.probability(asked, 3)[0] == pytest.approx(shares[0, 1])
    assert law.probability(asked, 9)[0] == 0
    here = (variables[:, 0] == 1) & (variables[:, 2] == 2)
    assert shares[0, 0] == pytest.approx((outcomes[here] == 2).mean())
    assert shares.sum() == pytest.approx(1)
    assert law.predict(asked).tolist() == [2]
    # the first variable was never seen so: the second is left out of the context; neither was: unknown
    half = asked.copy()
    half[0, law.variables[1]] = 9
    assert law.predict(half)[0] >= 0
    half[0, law.variables[0]] = 9
    assert law.predict(half).tolist() == [-1]
    nothing = ContextLaw.fit(variables[:, :1], np.full(4000, 7))
    assert (nothing.variables, nothing.predict(variables[:2, :1]).tolist()) == ((), [7, 7])
    with pytest.raises(DataError, match="one outcome or more, got none"):
        ContextLaw.fit(variables[:0], outcomes[:0])


def test_pong_falls_into_a_ball_and_a_bat(pong):
    _, foresight = pong
    colours = foresight.planes.colours
    kinds = [set((colours[foresight.groups == g] == 4).tolist()) for g in range(foresight.groups.max() + 1)]
    assert all(len(kind) == 1 for kind in kinds)  # no object is of both
    (bat,) = (g for g, kind in enumerate(kinds) if kind == {False})
    assert (foresight.groups == bat).sum() == 25
    assert len(foresight.states[bat]) == 9  # where the ball hides a part of it, it is still seen
    assert foresight.controllable == [g == bat for g in range(len(kinds))]


def test_what_follows_is_what_the_world_does(pong):
    _, foresight = pong
    g = rng(7)
    new = play(Pong(serve="random"), random_player(3, g), 800, g)
    seen = foresight.look(new.pictures)
    served = np.append(False, new.costs[:-1] > 0)
    t = np.array([t for t in range(1, 799) if not (served[t] or served[t + 1])])
    right = []
    for i in t:
        ahead = foresight.ahead(seen[i - 1][None], seen[i][None], new.actions[i][None])
        best = ahead.share.argmax()
        told = ahead.won[best] > 0.5, ahead.lost[best] > 0.5
        states = np.where(foresight.bears, seen[i + 1], 0).tolist()
        right.append(ahead.states[best].tolist() == states and told == (new.rewards[i + 1] > 0, new.costs[i + 1] > 0))
    assert np.mean(right) > 0.9


def test_a_plan_from_random_play_plays_pong_almost_perfectly(pong):
    _, foresight = pong
    found = play(Pong(serve="random"), PlanningPlayer(Planner(foresight), rng()), 1024, rng(8))
    hits, misses = found.per_frames(512)
    assert hits > 20
    assert misses < 3


def test_planning_is_the_best_of_all_plans_in_a_world_that_is_known():
    """A corridor of six sites, a loss at one end and a reward at the other: values by enumeration."""
    g = rng(2)
    place, pictures, actions, rewards, costs = 3, [], [], [], []
    for _ in range(3000):
        picture = np.zeros((1, 6), np.uint8)
        picture[0, place] = 1
        pictures.append(picture)
        rewards.append(int(place == 5))
        costs.append(int(place == 0))
        action = int(g.integers(2))
        actions.append(action)
        place = min(max(place + 2 * action - 1, 0), 5) if place not in (0, 5) else 3
    arrays = [np.array(a) for a in (actions, rewards, costs)]
    foresight = Foresight.fit(np.stack(pictures), *arrays, number=2)
    planner = Planner(foresight, tremble=0.0)
    for place in range(1, 5):
        now = foresight.look(np.eye(6, dtype=np.uint8)[place].reshape(1, 1, 6))[0]
        assert planner.action(now, now) == 1
        best = planner.worth(now, now)
        assert best[1] == pytest.approx(0.98 ** (4 - place), abs=1e-9)
        assert best[0] == pytest.approx(-1.0 if place == 1 else 0.98 ** (6 - place), abs=1e-9)


def test_hidden_tokens_are_neither_there_nor_absent():
    pictures = np.zeros((40, 1, 4), np.uint8)
    pictures[::2, 0, :2] = 1  # a pair
    pictures[5::8, 0, 1] = 2  # something passes over its second site, and over the ground
    pictures[4::8, 0, 1] = 2
    pictures[7::8, 0, 3] = 2
    planes = Planes.of(pictures)
    tokens = planes.tokens(pictures)
    states = ObjectStates(planes, (planes.colours == 2).astype(np.int64), 0)
    assert states.learn(tokens).tolist() == [0, 1] * 20
    assert len(states) == 2
    assert states.find(tokens, planes.strange(pictures)).tolist() == [0, 1] * 20
    new = np.array([[[0, 1, 0, 0]], [[3, 1, 0, 0]]], np.uint8)  # half a pair, and half under a colour never seen
    assert planes.strange(new).any(axis=1).tolist() == [False, True]
    assert states.find(planes.tokens(new), planes.strange(new)).tolist() == [-1, 0]


def test_bad_worlds_are_told(pong):
    played, foresight = pong
    with pytest.raises(DataError, match="nothing ever changes in these 9 pictures"):
        Planes.of(np.zeros((9, 2, 2), np.uint8))
    with pytest.raises(DataError, match=r"pictures here are 12 x 9, got \(3, 3\)"):
        foresight.look(np.zeros((1, 3, 3), np.uint8))
    with pytest.raises(DataError, match="three frames in a row or more, got 2 frames"):
        objects_of(np.ones((2, 1), bool))
    for lengths, match in (([10], "episodes of 10 frames in all, but there are 40"), ([2] * 20, "three frames")):
        with pytest.raises(DataError, match=match):
            Foresight.fit(
                played.pictures[:40],
                played.actions[:40],
                played.rewards[:40],
                played.costs[:40],
                number=3,
                lengths=lengths,
            )
    with pytest.raises(DataError, match="got 5000 frames, 4999 actions, 5000 rewards, 5000 costs"):
        Foresight.fit(played.pictures, played.actions[1:], played.rewards, played.costs, number=3)
    for make, match in (
        (lambda: QLearner(3, rate=0.0), "a Q-learner needs actions >= 1, 0 < rate <= 1"),
        (lambda: Planner(foresight, horizon=0), "a planner needs horizon >= 1"),
    ):
        with pytest.raises(RecipeError, match=match):
            make()


def test_a_q_learner_learns_pong():
    g = rng(1)
    played = play(Pong(), random_player(3, g), 5000, g)
    learner = QLearner(3, sweeps=30).learn(played, g)
    hits, misses = play(Pong(), learner.player(rng()), 512, rng()).per_frames(512)
    assert hits > 12  # at random 2.5
    assert misses < 8
