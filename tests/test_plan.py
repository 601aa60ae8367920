"""`renorm plan`, worlds by name, and worlds of Gymnasium."""

import json
import sys
import types

import numpy as np
import pytest

from renorm.cli import main
from renorm.errors import DataError, RecipeError
from renorm.planning.players import PlanningPlayer, foresight_of
from renorm.planning.search import Planner
from renorm.planning.trial import trial
from renorm.worlds.named import named_world
from renorm.worlds.pong import Pong
from renorm.worlds.world import Frame, WorldSpace, play, random_player

gymnasium = pytest.importorskip("gymnasium", reason="gymnasium is not installed: pip install 'renorm[plan]'")

from renorm.interop.gymnasium import GymnasiumWorld, as_environment, make_gymnasium  # noqa: E402


def made(observation, actions=2):
    """An environment of that observation space, which does nothing."""

    class Still(gymnasium.Env):
        observation_space = observation
        action_space = gymnasium.spaces.Discrete(actions, start=3)
        shown, told = observation.sample(), []

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return self.shown, {}

        def step(self, action):
            self.told.append(action)
            return self.shown, -1.0, False, len(self.told) % 2 == 0, {}

    return Still()


def test_a_slippery_lake_is_crossed():
    """Each step goes astray two times in three; walking at random falls in some fifty times for each gift."""
    figures = trial(make_gymnasium("FrozenLake-v1"), frames=20_000, played=3000).figures()
    assert figures["rewards_512"] > 6
    assert figures["costs_512"] < 5
    assert figures["random_rewards_512"] < 2
    assert figures["random_costs_512"] > 40


def test_a_firm_lake_is_crossed_on_the_shortest_way():
    found = trial(make_gymnasium("FrozenLake-v1", {"is_slippery": False}), frames=5000, played=700)
    assert found.played.rewards.sum() == 100
    assert not found.played.costs.any()
    assert found.notes == []


@pytest.mark.parametrize(
    ("space", "shape", "colours"),
    [
        (gymnasium.spaces.Discrete(5, start=2), (1, 5), 2),
        (gymnasium.spaces.MultiDiscrete([3, 4]), (2, 4), 2),
        (gymnasium.spaces.MultiBinary(6), (1, 6), 2),
        (gymnasium.spaces.Box(0, 3, (2, 3), np.uint8), (2, 3), 4),
        (gymnasium.spaces.Box(0, 1, (2, 3, 4), np.bool_), (2, 3), 5),
    ],
)
def test_what_can_be_seen(space, shape, colours):
    environment = made(space)
    world = GymnasiumWorld(environment)
    assert (world.space.shape, len(world.space.palette)) == (shape, colours)
    picture = world.reset(np.random.default_rng(0)).picture
    shown = np.asarray(environment.shown)
    if isinstance(space, gymnasium.spaces.Discrete):
        assert picture.nonzero()[1].tolist() == [shown - 2]
    elif isinstance(space, gymnasium.spaces.MultiDiscrete):
        assert picture.argmax(axis=1).tolist() == shown.tolist()
    elif shown.ndim < 3:
        assert picture.reshape(shown.shape).tolist() == shown.tolist()
    else:
        assert ((picture > 0) == shown.any(axis=2)).all()
    assert world.step(1)[1:] == (0, 1)
    assert environment.told == [4]
    assert world.step(0)[1:] == (0, 1)  # cut short here
    assert world.step(0)[1:] == (0, 0)
    assert len(environment.told) == 2


def test_an_observation_that_changes_its_shape_is_told():
    environment = made(gymnasium.spaces.Box(0, 3, (2, 3), np.uint8))
    world = GymnasiumWorld(environment)
    environment.shown = np.zeros((3, 3), np.uint8)
    with pytest.raises(DataError, match=r"changed its shape from \(2, 3\) to \(3, 3\)"):
        world.reset(np.random.default_rng(0))


def test_a_world_that_changes_its_shape_is_told():
    class Growing:
        space = WorldSpace((1, 2), ((0, 0, 0),), ("wait",))

        def reset(self, generator):
            return Frame(np.zeros((1, 2), np.uint8))

        def step(self, action):
            return Frame(np.zeros((1, 3), np.uint8))

    with pytest.raises(DataError, match=r"frame 1 has shape \(1, 3\), the world says \(1, 2\)"):
        play(Growing(), lambda frame: 0, 3, np.random.default_rng(0))


def test_practice_is_learned():
    """From 100 frames of random play a small Pong is half known; two own plays tell the rest."""
    few, more = (trial(Pong(rows=6, columns=5), frames=100, rounds=n, played=400) for n in (0, 2))
    assert [len(own) for own in more.practised] == [400, 400]
    assert more.figures()["frames_practised"] == 800
    assert few.played.costs.sum() > 10
    assert more.played.costs.sum() == 0


def test_our_worlds_are_environments():
    environment = as_environment(Pong(serve="random"), frames=50)
    first, _ = environment.reset(seed=3)
    again, _ = as_environment(Pong(serve="random")).reset(seed=3)
    assert (first == again).all()
    steps = [environment.step(1) for _ in range(50)]
    assert [cut for *_, cut, _ in steps] == [False] * 49 + [True]
    assert {reward for _, reward, *_ in steps} <= {-1.0, 0.0, 1.0}


def test_an_action_that_was_never_seen_is_no_way():
    """Who only ever saw `left` and `stay` does not know what `right` does, and plays on."""
    generator = np.random.default_rng(0)
    watched = play(Pong(), random_player(2, generator), 3000, generator)
    player = PlanningPlayer(Planner(foresight_of(watched, actions=3)), generator)
    assert len(play(Pong(), player, 200, generator)) == 200


@pytest.mark.parametrize(
    ("name", "settings", "why"),
    [
        ("chess", {}, "unknown world 'chess'; known: pong, breakout"),
        ("pong", {"speed": 2}, "no setting 'speed'; it has rows, columns, serve"),
        ("pong", {"rows": "many"}, "rows of pong is a whole number, got 'many'"),
        ("pong", {"serve": "up"}, "serve is 'fixed' or 'random', got 'up'"),
    ],
)
def test_wrong_worlds(name, settings, why):
    with pytest.raises(RecipeError, match=why):
        named_world(name, settings)


def test_environments_of_another_package(monkeypatch):
    """A package may register its own when asked to; an environment may show a row of bytes."""

    class Counter(gymnasium.Env):
        action_space = gymnasium.spaces.Discrete(2)
        observation_space = gymnasium.spaces.Box(0, 9, (3,), np.uint8)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return np.array([4, 0, 9], np.uint8), {}

    package = types.ModuleType("games_of_others")
    package.register_envs = lambda: gymnasium.register("Others/Counter-v0", Counter)
    monkeypatch.setitem(sys.modules, "games_of_others", package)
    try:
        world = make_gymnasium("games_of_others:Others/Counter-v0")
    finally:
        gymnasium.registry.pop("Others/Counter-v0", None)
    assert world.space.shape == (1, 3)
    assert len(world.space.palette) == 10
    assert world.reset(np.random.default_rng(0)).picture.tolist() == [[4, 0, 9]]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("Nope-v0", "cannot make 'Nope-v0'"),
        ("nowhere:Nope-v0", "cannot make 'nowhere:Nope-v0': ModuleNotFoundError"),
        ("CartPole-v1", "observations must be"),
        ("Pendulum-v1", "must be discrete"),
    ],
)
def test_wrong_environments(name, why):
    with pytest.raises(RecipeError, match=why):
        make_gymnasium(name)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"map_name": "9x9"}, "KeyError"),
        ({"render_mode": "human"}, "render_mode cannot be set"),
        ({"step_cost": "much"}, "step_cost is a number"),
        ({"step_cost": 1}, "step_cost is 0 or less"),
        ({"step_cost": float("nan")}, "step_cost is 0 or less, and finite, got nan"),
        ({"step_cost": True}, "step_cost is a number, got True"),
    ],
)
def test_wrong_settings(settings, why):
    with pytest.raises(RecipeError, match=why):
        make_gymnasium("FrozenLake-v1", settings)


def test_one_thing_of_many_states():
    """A taxi has 500 states, of which one is seen at a time: one object, and rides of some fourteen steps."""
    name = next(name for name in ("Taxi-v4", "Taxi-v3") if name in gymnasium.registry)
    found = trial(make_gymnasium(name, {"step_cost": -1}), frames=100_000, played=1000)
    assert found.figures()["objects"] == 1
    assert found.figures()["costs_512"] == 0
    assert found.figures()["rewards_512"] > 30


def test_a_step_that_costs_is_no_loss():
    """The cliff takes 1 for each step, 100 for a fall, and ends at the goal.

    Thirteen steps and one back are the shortest way, along the edge; a hand that trembles goes a row or two above it.
    """
    world = make_gymnasium("CliffWalking-v1", {"step_cost": -1})
    found = trial(world, frames=20_000, rounds=2, played=700)
    assert found.played.costs.sum() == 0
    assert found.played.rewards.sum() >= 40


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert (
        main(["plan", "pong", "--set", "rows=6", "--set", "columns=5", "--frames", "1500", "--play", "200", "--json"])
        == 0
    )
    told = json.loads(capsys.readouterr().out)
    assert told["rewards_512"] > 3 * told["random_rewards_512"]
    assert told["notes"] == []
    folder = tmp_path / "runs" / "plan-pong"
    assert sorted(path.name for path in folder.iterdir()) == ["played.gif", "played.npz", "result.json", "strip.png"]
    kept = json.loads((folder / "result.json").read_text())
    assert kept["settings"] == {"rows": "6", "columns": "5"}
    assert kept["figures"]["frames_played"] == 200
    with np.load(folder / "played.npz") as arrays:
        assert arrays["pictures"].shape == (200, 6, 5)
        assert arrays["rewards"].sum() * 512 / 200 == told["rewards_512"]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["chess"], "unknown world"),
        (["pong", "--frames", "2"], "3 frames of random play or more"),
        (["pong", "--set", "rows"], "KEY=VALUE"),
        (["pong", "--slip", "2"], "slip is a probability"),
        (["pong", "--show"], "terminal"),
        (["gym:CartPole-v1"], "observations must be"),
    ],
)
def test_wrong_options(options, why, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["plan", *options]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("renorm: ")
    assert why in last
    assert not (tmp_path / "runs").exists()


def test_a_goal_that_was_never_seen_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["plan", "pong", "--frames", "12", "--play", "20", "--quiet"]) == 0
    assert "nothing was won" in capsys.readouterr().out
