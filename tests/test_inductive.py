"""Planning on the states of a tower."""

import networkx
import numpy as np
import pytest

from renorm.errors import DataError, RecipeError
from renorm.planning.inductive import InductivePlanner, InductivePlayer, steps_to
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
    assert whole.moves.counts.sum() - both.moves.counts.sum() == 2
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


def test_wrong_input(watched):
    with pytest.raises(DataError, match="one play or more"):
        InductivePlanner.fit([], actions=3)
    with pytest.raises(RecipeError, match="take larger blocks"):
        InductivePlanner.fit([watched], actions=3, edges=2)
    with pytest.raises(DataError, match="need episodes of 4 frames or more, got 3"):
        InductivePlanner.fit([Play(*(array[:3] for array in vars(watched).values()))], actions=3, edges=(3, 2))
