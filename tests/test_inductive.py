"""Planning on the states of a tower."""

import networkx
import numpy as np
import pytest
from scipy.stats import dirichlet

from renorm.errors import DataError, RecipeError
from renorm.planning.attractors import basin, endless, steady_state, steps_to
from renorm.planning.inductive import InductivePlanner, InductivePlayer
from renorm.tokens.paths.novelty import novelty
from renorm.worlds.pong import Pong
from renorm.worlds.world import Frame, Play, WorldSpace, play, random_player


@pytest.fixture(scope="module")
def watched():
    rng = np.random.default_rng(0)
    return play(Pong(rows=6, columns=5), random_player(3, rng), 3000, rng)


@pytest.mark.parametrize("seed", range(10))
def test_steps_are_those_of_a_search(seed):
    draw = np.random.default_rng(seed)
    moves = draw.integers(30, size=(60, 2))
    goals, losses = draw.random(30) < 0.1, draw.random(30) < 0.2
    graph = networkx.DiGraph()
    graph.add_nodes_from(np.flatnonzero(~losses).tolist())
    graph.add_edges_from((a, b) for a, b in moves.tolist() if not losses[a] and not losses[b])
    found = steps_to(moves, goals, losses)
    ends = set(np.flatnonzero(goals & ~losses).tolist())
    for state in range(30):
        ways = networkx.single_source_shortest_path_length(graph, state) if state in graph else {}
        assert found[state] == min((ways[end] for end in ends if end in ways), default=-1)


def test_it_plays(watched):
    planner = InductivePlanner.fit([watched], actions=3)
    assert planner.tower.spans[-1] == 2
    assert planner.goals.any()
    rng = np.random.default_rng(1)
    found = play(Pong(rows=6, columns=5), InductivePlayer(planner, rng), 1000, rng)
    assert found.rewards.sum() > 90  # a ball comes down every tenth frame
    assert found.costs.sum() <= 3


def test_two_plays_are_one(watched):
    """What is known does not depend on how the plays are cut, but for what spans the cut."""
    halves = [Play(*(array[part] for array in vars(watched).values())) for part in (slice(1500), slice(1500, None))]
    both, whole = (InductivePlanner.fit(plays, actions=3) for plays in (halves, [watched]))
    assert whole.ways.weights.sum() - both.ways.weights.sum() == 2
    assert len(both.goals) in (len(whole.goals), len(whole.goals) - 1)


def test_without_a_goal_it_keeps_away_from_losses():
    """A walk on three sites: at the left end something is lost."""

    class Ledge:
        space = WorldSpace((1, 3), ((255, 255, 255), (0, 0, 0)), ("left", "right"))

        def reset(self, generator):
            self.place = 1
            return self.shown()

        def step(self, action):
            self.place = min(max(self.place + 2 * action - 1, 0), 2)
            return self.shown()

        def shown(self):
            picture = np.zeros((1, 3), np.uint8)
            picture[0, self.place] = 1
            return Frame(picture, 0, int(self.place == 0))

    rng = np.random.default_rng(0)
    seen = play(Ledge(), random_player(2, rng), 500, rng)
    planner = InductivePlanner.fit([seen], actions=2, edges=3)
    assert (planner.distance == -1).all()
    assert play(Ledge(), InductivePlayer(planner, rng), 300, rng).costs.sum() == 0


def test_the_basin_is_enough(watched):
    """What is on no way to or from a goal is forgotten, and it plays as well."""
    whole = InductivePlanner.fit([watched], actions=3)
    part = whole.in_basin(steps=16)
    assert 0 < len(part.ways.moves) < len(whole.ways.moves)
    assert not part.losses[part.ways.moves[:, 0]].any()
    found = play(
        Pong(rows=6, columns=5), InductivePlayer(part, np.random.default_rng(1)), 1000, np.random.default_rng(1)
    )
    assert found.rewards.sum() > 90
    assert found.costs.sum() <= 3


def test_the_basin_keeps_what_may_be_lost():
    """One button wins once in ten presses and loses else, the other does nothing: it is better not to press."""

    class Bet:
        space = WorldSpace((1, 4), ((255, 255, 255), (0, 0, 0)), ("bet", "wait"))

        def reset(self, generator):
            self.draw = generator
            return self.shown(0)

        def step(self, action):
            if action or self.place:
                return self.shown(3 if self.place == 0 else 0)
            return self.shown(1 if self.draw.random() < 0.1 else 2)

        def shown(self, place):
            self.place = place
            picture = np.zeros((1, 4), np.uint8)
            picture[0, place] = 1
            return Frame(picture, int(place == 1), int(place == 2))

    rng = np.random.default_rng(0)
    seen = play(Bet(), random_player(2, rng), 2000, rng)
    planner = InductivePlanner.fit([seen], actions=2, edges=4)
    for own in (planner, planner.in_basin()):
        assert play(Bet(), InductivePlayer(own, rng), 300, rng).costs.sum() <= 1  # the first frame is no window yet


def test_who_is_curious_sees_more():
    """Both know little, and go on from there; one prefers what it does not know."""
    rng = np.random.default_rng(2)
    seen = play(Pong(rows=6, columns=5), random_player(3, rng), 60, rng)

    def learned(curiosity):
        plays, world = [seen], Pong(rows=6, columns=5)
        for round_ in range(12):
            planner = InductivePlanner.fit(plays, actions=3, curiosity=curiosity)
            draw = np.random.default_rng(round_)
            plays.append(play(world, InductivePlayer(planner, draw), 60, draw))
        return len({tuple(row) for row in InductivePlanner.fit(plays, actions=3).ways.moves[:, :2].tolist()})

    assert learned(10.0) > 1.1 * learned(0.0)


@pytest.mark.parametrize("seed", range(5))
def test_a_basin_is_that_of_a_search(seed):
    draw = np.random.default_rng(seed)
    moves = draw.integers(40, size=(60, 2))
    goals, losses = draw.random(40) < 0.1, draw.random(40) < 0.2
    graph = networkx.DiGraph()
    graph.add_nodes_from(np.flatnonzero(~losses).tolist())
    graph.add_edges_from((a, b) for a, b in moves.tolist() if not losses[a] and not losses[b])
    near = set()
    for goal in np.flatnonzero(goals & ~losses).tolist():
        for way in (graph, graph.reverse()):
            near |= set(networkx.single_source_shortest_path_length(way, goal, cutoff=3))
    assert set(np.flatnonzero(basin(moves, goals, losses, steps=3)).tolist()) == near


@pytest.mark.parametrize("seed", range(5))
def test_a_steady_state_is_an_eigenvector(seed):
    draw = np.random.default_rng(seed)
    moves = np.concatenate([np.stack([np.arange(12), np.roll(np.arange(12), 1)], 1), draw.integers(12, size=(20, 2))])
    moves = np.unique(moves, axis=0)
    counts = draw.integers(1, 9, size=len(moves))
    states = endless(moves, np.ones(12, bool))
    assert states.all()
    table = np.zeros((12, 12))
    table[tuple(moves.T)] = counts
    table /= table.sum(1, keepdims=True)
    values, vectors = np.linalg.eig(table.T)
    exact = np.real(vectors[:, np.argmax(values.real)])
    np.testing.assert_allclose(steady_state(moves, counts, states), exact / exact.sum(), atol=1e-8)


def test_novelty_is_what_a_look_teaches():
    """By drawing laws as they are after an outcome."""
    counts, draw, total = np.array([2.0, 1.0, 0.5]), np.random.default_rng(0), 0.0
    for outcome, share in enumerate(counts / counts.sum()):
        after = counts + np.eye(3)[outcome]
        x = draw.dirichlet(after, size=100_000).T
        x /= x.sum(axis=0)
        total += share * (dirichlet.logpdf(x, after) - dirichlet.logpdf(x, counts)).mean()
    assert float(novelty(counts)) == pytest.approx(total, abs=0.005)
    with pytest.raises(DataError, match="> 0"):
        novelty(np.array([1.0, 0.0]))


def test_without_a_way_on_there_is_no_steady_state():
    with pytest.raises(DataError, match="go on among themselves"):
        steady_state(np.array([[0, 1]]), np.array([1]), np.ones(2, bool))


def test_wrong_input(watched):
    with pytest.raises(DataError, match="one play or more"):
        InductivePlanner.fit([], actions=3)
    with pytest.raises(RecipeError, match="levels >= 2"):
        InductivePlanner.fit([watched], actions=3, levels=1)
    with pytest.raises(DataError, match="actions here are 0 to 1, got 2"):
        InductivePlanner.fit([watched], actions=2)
    with pytest.raises(RecipeError, match="take larger blocks"):
        InductivePlanner.fit([watched], actions=3, edges=2)
    with pytest.raises(DataError, match="need episodes of 4 frames or more, got 3"):
        InductivePlanner.fit([Play(*(array[:3] for array in vars(watched).values()))], actions=3, edges=(3, 2))
