"""Ways: gated, forgotten, merged; and those that end in reward alone."""

import json
from pathlib import Path

import networkx
import numpy as np
import pytest

from renorm.cli import main
from renorm.errors import DataError, RecipeError
from renorm.planning.attracting import accepted, attract
from renorm.planning.attractors import orbit, steady_state, steps_to
from renorm.planning.equivalence import equivalent
from renorm.planning.inductive import InductivePlanner, InductivePlayer
from renorm.planning.trial import trial
from renorm.planning.ways import FAINT, Ways, information
from renorm.report.ways import portrait, spectral_places
from renorm.tokens.trees import counts
from renorm.worlds.pong import Pong
from renorm.worlds.world import Frame, Play, WorldSpace, play, random_player


class Ring:
    """Six sites in a ring; at one of them something is won, and it can be moved."""

    space = WorldSpace((1, 6), ((255, 255, 255), (0, 0, 0)), ("on", "back"))
    prize = 3

    def reset(self, generator):
        self.place = 0
        return self.shown()

    def step(self, action):
        self.place = (self.place + 1 - 2 * action) % 6
        return self.shown()

    def shown(self):
        picture = np.zeros((1, 6), np.uint8)
        picture[0, self.place] = 1
        return Frame(picture, int(self.place == self.prize), 0)


def walk(states, draw=None):
    zeros = np.zeros(len(states), int)
    return Ways.seen(np.asarray(states), zeros if draw is None else draw.integers(2, size=len(states)), zeros, zeros)


def dense(ways, number=5, actions=2):
    table = np.zeros((number * actions, number))
    np.add.at(table, (ways.moves[:, 0] * actions + ways.moves[:, 1], ways.moves[:, 2]), ways.weights)
    return table


@pytest.mark.parametrize("seed", range(10))
def test_gate_and_horizon_are_those_of_dense_tables(seed):
    draw = np.random.default_rng(seed)
    old, new = (walk(draw.integers(5, size=60), draw) for _ in range(2))
    before, after = dense(old), dense(old) + dense(new)
    assert information(old.moves, old.weights) == pytest.approx(float(counts.mutual_information(before)), abs=1e-12)
    weight = float(counts.gate(before, after, 8.0))
    fresh = weight * dense(new).sum()
    expected = (before + weight * dense(new)) * 40 / (40 + fresh)
    expected[expected < FAINT] = 0
    np.testing.assert_allclose(dense(old.with_more(new, gate=8.0, horizon=40.0)), expected, atol=1e-12)


def test_the_total_tends_to_the_horizon():
    ways, draw = Ways.none(), np.random.default_rng(0)
    for _ in range(200):
        ways = ways.with_more(walk(draw.integers(5, size=11)), horizon=100.0)
    assert ways.weights.sum() == pytest.approx(100, abs=1)


def test_what_is_seen_is_counted_once():
    """Parts of a walk, learned one after the other, are the whole; -1 is a gap."""
    draw = np.random.default_rng(3)
    states, rewards = draw.integers(4, size=100), draw.integers(2, size=100)
    states[[30, 60]] = -1
    zeros = np.zeros(100, int)
    whole = Ways.seen(states, zeros, rewards, zeros)
    parts = Ways.none()
    for own in (slice(0, 30), slice(31, 60), slice(61, 100)):
        parts = parts.with_more(Ways.seen(states[own], zeros[own], rewards[own], zeros[own]))
    np.testing.assert_array_equal(dense(parts), dense(whole))
    np.testing.assert_array_equal(parts.won, whole.won)
    assert whole.weights.sum() == 99 - 4


def test_bad_gates():
    with pytest.raises(RecipeError, match="gate must be >= 0 and finite, and horizon > 0"):
        walk([0, 1]).with_more(walk([0, 1]), horizon=0.0)
    with pytest.raises(RecipeError, match="got inf and"):
        walk([0, 1]).with_more(walk([0, 1]), gate=np.inf)
    with pytest.raises(DataError, match="states here are 0 to 1, got 5"):
        Ways.seen(np.array([0, 5, 0]), *np.zeros((3, 3), int), number=2)
    with pytest.raises(RecipeError, match="got -1"):
        walk([0, 1]).with_more(walk([0, 1]), gate=-1.0)


def test_who_forgets_follows_a_world_that_changes():
    rng, world = np.random.default_rng(0), Ring()
    world.prize = 1
    first = play(world, random_player(2, rng), 400, rng)
    world.prize = 3
    then = play(world, random_player(2, rng), 800, rng)
    won = {}
    for horizon in (np.inf, 60.0):
        planner = InductivePlanner.fit([first], actions=2)
        for part in range(16):
            own = slice(50 * part, 50 * (part + 1))
            planner = planner.learn([Play(*(array[own] for array in vars(then).values()))], horizon=horizon)
        won[horizon] = play(world, InductivePlayer(planner, rng), 200, rng).rewards.sum()
    assert won[60.0] > 90  # every other step
    assert won[np.inf] < 0.8 * won[60.0]  # it still goes where once something was won


def naive_classes(moves, labels):
    """States are told apart as long as a pair of them can be."""
    number = len(labels)
    apart = labels[:, None] != labels[None, :]
    after = {}
    for s, a, t in moves.tolist():
        after.setdefault((s, a), set()).add(t)
    actions = set(moves[:, 1].tolist())
    while True:
        finer = apart.copy()
        for s in range(number):
            for t in range(number):
                for a in actions:
                    ones, others = after.get((s, a), set()), after.get((t, a), set())
                    met = all(any(not apart[i, j] for j in others) for i in ones)
                    back = all(any(not apart[i, j] for i in ones) for j in others)
                    finer[s, t] |= not (met and back)
        if (finer == apart).all():
            return apart
        apart = finer


@pytest.mark.parametrize("seed", range(10))
def test_states_are_one_if_no_pair_of_ways_tells_them_apart(seed):
    draw = np.random.default_rng(seed)
    number = 25
    moves = np.unique(
        np.column_stack([draw.integers(number, size=40), draw.integers(2, size=40), draw.integers(number, size=40)]),
        axis=0,
    )
    labels = draw.integers(2, size=number)
    classes = equivalent(moves, labels)
    np.testing.assert_array_equal(classes[:, None] != classes[None, :], naive_classes(moves, labels))


def test_what_never_matters_is_merged():
    """A clock of four hours, and a coin that is thrown beside it: the coin goes."""
    hour, coin, then = np.meshgrid(range(4), range(2), range(2), indexing="ij")
    moves = np.stack([2 * hour + coin, 0 * hour, 2 * ((hour + 1) % 4) + then], axis=-1).reshape(-1, 3)
    assert equivalent(moves, (np.arange(8) < 2).astype(int)).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert equivalent(moves, (np.arange(8) < 2).astype(int), steps=1).tolist() == [0, 0, 1, 1, 1, 1, 2, 2]


def test_nothing_to_merge():
    assert len(equivalent(np.empty((0, 3), int), np.empty(0, int))) == 0
    with pytest.raises(RecipeError, match="steps >= 0 ahead, got -1"):
        equivalent(np.empty((0, 3), int), np.zeros(2, int), steps=-1)


def test_a_merged_planner_is_as_far_from_goals_and_plays_alike():
    rng = np.random.default_rng(0)
    watched = play(Pong(rows=6, columns=5), random_player(3, rng), 3000, rng)
    whole = InductivePlanner.fit([watched], actions=3)
    merged = whole.merged()
    assert len(merged.goals) < len(whole.goals)
    np.testing.assert_array_equal(merged.distance[merged.names], whole.distance)
    assert merged.ways.weights.sum() == whole.ways.weights.sum()
    scores = [
        play(Pong(rows=6, columns=5), InductivePlayer(own, np.random.default_rng(1)), 1000, np.random.default_rng(1))
        for own in (whole, merged)
    ]
    assert scores[0].per_frames() == scores[1].per_frames()
    with pytest.raises(RecipeError, match="merged states cannot be told apart again"):
        merged.learn([watched])


def test_what_a_sister_learns_is_not_known():
    rng, world = np.random.default_rng(0), Pong(rows=6, columns=5)
    first, mine, hers = (play(world, random_player(3, rng), 300, rng) for _ in range(3))
    mother = InductivePlanner.fit([first], actions=3)
    sister = mother.learn([hers])
    own = mother.learn([mine])
    alone = InductivePlanner.fit([first, mine], actions=3)
    assert len(own.goals) == len(alone.goals)
    for frames in (mine.pictures[i : i + 2] for i in range(298)):
        assert own.distance[own.state(frames)] == alone.distance[alone.state(frames)]
    assert (own.names < 0).any()
    assert (own.merged().names < 0).sum() == (own.names < 0).sum()
    for frames in (hers.pictures[i : i + 2] for i in range(298)):
        assert sister.state(frames) >= 0
        assert (own.state(frames) >= 0) == (alone.state(frames) >= 0)


def test_what_faded_is_no_goal_and_no_loss_of_the_merged():
    """States 1 and 2 were lost in long ago: both together are no loss either."""
    moves, lost = np.array([[0, 0, 1], [0, 0, 2], [1, 0, 3], [2, 0, 3]]), np.array([0, 0.04, 0.04, 0])
    old = Ways(moves, np.ones(4), np.array([0, 0, 0, 1.0]), lost)
    ways = old.with_more(Ways.seen(np.array([0, 1, 3]), *np.zeros((2, 3), int), np.zeros(3, int)), horizon=2.0)
    names = equivalent(ways.moves, ways.goals + 2 * ways.losses)
    merged = ways.renamed(names)
    assert not ways.losses.any()
    np.testing.assert_array_equal(merged.losses[names], ways.losses)
    far = steps_to(merged.pairs, merged.goals, merged.losses)[names]
    np.testing.assert_array_equal(far, steps_to(ways.pairs, ways.goals, ways.losses))


def test_odds_are_pooled_and_ways_are_kept():
    """The same may follow, at other odds: one state, as told."""
    moves = np.array([[0, 0, 2], [0, 0, 3], [1, 0, 2], [1, 0, 3]])
    ways = Ways(moves, np.array([99.0, 1, 1, 99]), np.array([0, 0, 1.0, 0]), np.array([0, 0, 0, 1.0]))
    names = equivalent(ways.moves, ways.goals + 2 * ways.losses)
    assert names.tolist() == [0, 0, 1, 2]
    assert ways.renamed(names).weights.tolist() == [100.0, 100.0]


def test_a_long_chain_is_told_apart_at_once():
    chain = np.column_stack([np.arange(20_000), np.zeros(20_000, int), np.arange(1, 20_001)])
    labels = (np.arange(20_001) == 20_000).astype(int)
    assert (equivalent(chain, labels) == np.arange(20_001)).all()


def test_steady_state_of_a_planner():
    rng = np.random.default_rng(0)
    found = attract(Ring(), [play(Ring(), random_player(2, rng), 200, rng)], rng)
    ways = found.planner.ways
    round_ = orbit(ways.pairs, ways.goals, ways.losses)
    visits = steady_state(ways.pairs, ways.weights, round_)
    assert visits.sum() == pytest.approx(1)
    assert (visits[~round_] == 0).all()


@pytest.mark.parametrize("seed", range(10))
def test_an_orbit_is_a_strong_component(seed):
    draw = np.random.default_rng(seed)
    moves = draw.integers(30, size=(45, 2))
    goals, losses = draw.random(30) < 0.3, draw.random(30) < 0.1
    found = orbit(moves, goals, losses)
    graph = networkx.DiGraph([(a, b) for a, b in moves.tolist() if not losses[a] and not losses[b]])
    rounds = [
        part for part in networkx.strongly_connected_components(graph) if graph.subgraph(part).number_of_edges() > 0
    ]
    most = max((sum(goals[i] for i in part) for part in rounds), default=0)
    assert (found & goals).sum() == most
    if most:
        assert set(np.flatnonzero(found).tolist()) in rounds
        assert (steps_to(moves, found & goals, losses)[found] >= 0).all()


def test_no_orbit_of_no_goals():
    assert not orbit(np.array([[0, 1], [1, 0]]), np.zeros(2, bool), np.zeros(2, bool)).any()
    assert not orbit(np.empty((0, 2), int), np.ones(2, bool), np.zeros(2, bool)).any()


def test_what_is_accepted_has_no_loss_and_ends_in_reward():
    rng = np.random.default_rng(0)
    watched = play(Pong(), random_player(3, rng), 3000, rng)
    parts = accepted(watched, 4)
    assert sum(part.rewards.sum() for part in parts) == watched.rewards.sum()
    assert not any(part.costs.any() for part in parts)
    assert all(part.rewards[-1] for part in parts)
    assert accepted(Play(*(array[:5] for array in vars(watched).values()))) == []


def test_attracting_paths_are_few_and_enough():
    """From ways to rewards alone it comes to play without a loss, with far fewer windows than were watched."""
    rng = np.random.default_rng(0)
    watched = play(Pong(), random_player(3, rng), 5000, rng)
    found = attract(Pong(), [watched], rng, rounds=40)
    whole = InductivePlanner.fit([watched], actions=3)
    assert len(found.planner.names) < len(whole.names) / 3
    played = [
        play(Pong(), InductivePlayer(own, np.random.default_rng(1)), 2048, np.random.default_rng(1)).per_frames()
        for own in (whole, found.planner)
    ]
    assert found.goals[-1] >= 2
    assert played[1][0] > 23
    assert played[1][1] == 0 < played[0][1]


def test_ways_are_drawn():
    ring = np.array([[i, (i + 1) % 12] for i in range(12)])
    places = spectral_places(np.vstack([ring, [[13, 14]]]), 15)
    np.testing.assert_allclose(np.linalg.norm(places[:12], axis=1), np.sqrt(2 / 12), rtol=1e-6)  # a regular polygon
    assert np.isnan(places[12:]).all()
    states = np.arange(40) % 12
    ways = Ways.seen(states, 0 * states, (states == 3).astype(int), 0 * states)
    text = portrait(ways, "ring")
    assert text.startswith("<svg")
    assert "ring: 12 of 12 states, 12 on an orbit" in text
    chain = np.append(np.arange(12, 40), -1)  # a longer part without a goal is not what is drawn
    states = np.concatenate([states, [-1], chain])
    both = Ways.seen(states, 0 * states, (states == 3).astype(int), 0 * states)
    assert "both: 12 of 40 states, 12 on an orbit" in portrait(both, "both")
    with pytest.raises(DataError, match="four states or more that hang together, got 2"):
        portrait(walk([0, 1, 0]))


def test_nothing_to_be_attracted_by():
    rng, world = np.random.default_rng(0), Ring()
    world.prize = -1
    with pytest.raises(DataError, match="no reward was reached in 100 frames"):
        attract(world, [play(world, random_player(2, rng), 100, rng)], rng)
    with pytest.raises(RecipeError, match="goals >= 1, rounds >= 0 and levels >= 2, got 0, 25 and 2"):
        attract(world, [], rng, goals=0)
    with pytest.raises(RecipeError, match="fewer than 4 frames, got length 3"):
        attract(world, [], rng, length=3)


def test_one_goal_may_be_an_orbit():
    rng = np.random.default_rng(0)
    found = attract(Ring(), [play(Ring(), random_player(2, rng), 200, rng)], rng, goals=1)
    assert len(found.practised) == 1
    assert len(found.goals) == 2
    assert len(attract(Ring(), [play(Ring(), random_player(2, rng), 200, rng)], rng, rounds=0).goals) == 1


def test_what_a_planner_cannot_learn():
    rng = np.random.default_rng(0)
    seen = play(Pong(rows=6, columns=5), random_player(3, rng), 50, rng)

    def changed(**arrays):
        return Play(**(vars(seen) | arrays))

    planner = InductivePlanner.fit([seen], actions=3)
    known = planner.tower.sizes
    for wrong, why in (
        (changed(actions=seen.actions - 1), "actions here are 0 to 2, got -1"),
        (changed(pictures=seen.pictures.transpose(0, 2, 1)), r"pictures here are \(6, 5\), got \(5, 6\)"),
        (Play(*(array[:0] for array in vars(seen).values())), "episodes of 4 frames or more, got 0"),
    ):
        with pytest.raises(DataError, match=why):
            planner.learn([wrong])
    with pytest.raises(RecipeError, match="gate must be >= 0"):
        planner.learn([seen], gate=-1.0)
    assert planner.tower.sizes == known  # nothing was learned by halves
    with pytest.raises(RecipeError, match="a basin needs steps >= 0, got -1"):
        planner.in_basin(-1)
    with pytest.raises(RecipeError, match="actions >= 1 and curiosity >= 0, got 3 and nan"):
        InductivePlanner.fit([seen], actions=3, curiosity=float("nan"))


def test_a_trial_of_a_tower():
    found = trial(Pong(rows=6, columns=5), planner="tower", frames=1000, rounds=20, played=400)
    figures = found.figures()
    assert figures["rewards_512"] > 40
    assert figures["windows"] == len(found.planner.names)
    assert figures["frames_practised"] == 400 * len(found.practised)
    with pytest.raises(RecipeError, match="planner is one of objects, tower, got 'hope'"):
        trial(Pong(), planner="hope")
    with pytest.raises(RecipeError, match="a tower needs 4 frames of random play or more, got 3"):
        trial(Pong(), planner="tower", frames=3)


def test_the_command_draws_what_a_tower_knows(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    asked = ["plan", "pong", "--set", "rows=6", "--set", "columns=5", "--frames", "800", "--play", "50", "--out", "o"]
    assert main([*asked, "--planner", "tower", "--quiet"]) == 0
    assert "wrote o/played.gif and ways.svg" in capsys.readouterr().out
    assert json.loads(Path("o/result.json").read_text(encoding="utf-8"))["planner"] == "tower"
    assert Path("o/ways.svg").is_file()
    assert main([*asked, "--quiet"]) == 0
    assert not Path("o/ways.svg").exists()  # it would be that of another run
    assert main([*asked, "--planner", "hope"]) == 2
    assert "planner is one of objects, tower, got 'hope'" in capsys.readouterr().err
