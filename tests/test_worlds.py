"""Worlds: orbits worked out by hand, what wins and what loses, random serves."""

import numpy as np
import pytest
from PIL import Image

from renorm.errors import RecipeError
from renorm.worlds.breakout import Breakout
from renorm.worlds.pictures import animation, painted
from renorm.worlds.pong import Pong
from renorm.worlds.world import Frame, play, random_player


def rng(seed=0):
    return np.random.default_rng(seed)


def site_of(picture, colour=4):
    ((row, column),) = np.argwhere(picture == colour)
    return int(row), int(column)


def test_the_ball_of_pong_has_an_orbit_of_176_frames():
    found = play(Pong(), lambda frame: 1, 177, rng())
    twice = np.stack([found.pictures[:-1], found.pictures[1:]], axis=1)  # one picture does not say where the ball goes
    assert [t for t in range(1, 177) if (found.pictures[0] == found.pictures[t]).all()][-1] == 176
    assert len({pair.tobytes() for pair in twice}) == 176
    assert site_of(found.pictures[0]) == (2, 2)
    down = np.flatnonzero(found.rewards + found.costs)
    assert down.tolist() == list(range(9, 177, 22))


def test_a_bat_below_the_ball_hits_and_a_bat_stops_at_the_wall():
    last = [1]

    def meet(frame: Frame) -> int:
        """Go where the ball is going, unless it hides the bat."""
        column = site_of(frame.picture)[1]
        ahead, last[0] = 2 * column - last[0], column
        ahead = 2 * column - ahead if not 0 <= ahead < 9 else ahead
        bat = np.argwhere(frame.picture == 2)
        return 1 + int(np.sign(ahead - bat[0, 1])) if len(bat) else 1

    found = play(Pong(), meet, 512, rng())
    hits, misses = found.per_frames(512)
    assert hits + misses == 23
    assert hits >= 20
    left = play(Pong(), lambda frame: 0, 8, rng()).pictures[:, -1]
    assert left[4].tolist() == [2, 3, 0, 0, 0, 0, 0, 0, 0]
    assert (left[4:] == left[4]).all()


def test_a_missed_ball_is_served_anew_in_the_upper_half():
    found = play(Pong(serve="random"), lambda frame: 0, 4000, rng(1))
    missed = np.flatnonzero(found.costs[:-1])
    served = [site_of(found.pictures[t + 1]) for t in missed]
    assert {row for row, _ in served} == set(range(6))
    assert {column for _, column in served} == set(range(9))
    steps = {
        tuple(np.subtract(site_of(found.pictures[t + 2]), site_of(found.pictures[t + 1])).tolist()) for t in missed[:-1]
    }
    assert {(1, 1), (1, -1), (-1, 1), (-1, -1)} <= steps


def test_breakout_takes_layers_and_breaks_through():
    world, g = Breakout(), rng(2)
    world.reset(g)
    layers = [3]
    rewards = costs = 0
    for _ in range(20000):
        frame = world.step(int(g.integers(3)))
        count = int((frame.picture[:3] == 5).all(axis=1).sum())
        if frame.reward:
            assert count == (layers[-1] - 1 or 3)
        else:
            assert count == layers[-1]
        layers.append(count)
        rewards += frame.reward
        costs += frame.cost
        assert (frame.picture == 4).sum() == 1
    assert set(layers) == {1, 2, 3}
    assert rewards > 20
    assert costs > 20 * rewards


def test_a_bat_of_breakout_wraps_around():
    world = Breakout()
    world.reset(rng())
    assert world.step(0).picture[-1].tolist() == [0, 0, 1, 2, 3, 0, 0, 0, 0]
    world.step(0)
    world.step(0)
    assert world.step(0).picture[-1].tolist() == [2, 3, 0, 0, 0, 0, 0, 0, 1]


def test_a_random_player_keeps_its_action_as_often_as_told():
    player = random_player(3, rng(), persistence=4.0)
    actions = np.array([player(Frame(np.zeros((1, 1), np.uint8))) for _ in range(20000)])
    changed = (actions[1:] != actions[:-1]).mean()
    assert changed == pytest.approx(2 / 3 / 4, abs=4 * (1 / 6 * 5 / 6 / 20000) ** 0.5)
    with pytest.raises(RecipeError, match="persistence is a number of frames >= 1, got 0"):
        random_player(3, rng(), persistence=0.0)


def test_slips_are_recorded_and_bad_play_is_told():
    found = play(Pong(), lambda frame: 1, 6000, rng(), slip=0.3)
    assert (found.actions != 1).mean() == pytest.approx(0.2, abs=4 * (0.16 / 6000) ** 0.5)
    with pytest.raises(RecipeError, match=r"actions here are 0 to 2 \(left, stay, right\), the player said 3"):
        play(Pong(), lambda frame: 3, 2, rng())
    for asked, match in (({"frames": 0}, "frames >= 1, got 0"), ({"frames": 1, "slip": 2.0}, "probability, got 2")):
        with pytest.raises(RecipeError, match=match):
            play(Pong(), lambda frame: 1, generator=rng(), **asked)
    for make, match in (
        (lambda: Pong(rows=2), "at least 3 x 3 sites, got 2 x 9"),
        (lambda: Pong(serve="often"), "serve is 'fixed' or 'random', got 'often'"),
        (lambda: Breakout(columns=4), "at least 8 x 5 sites, got 12 x 4"),
    ):
        with pytest.raises(RecipeError, match=match):
            make()


def test_frames_become_pictures(tmp_path):
    world = Pong()
    found = play(world, lambda frame: 2, 5, rng())
    frames = painted(found.pictures, world.space, 3)
    assert frames.shape == (5, 36, 27, 3)
    row, column = site_of(found.pictures[3])
    assert tuple(frames[3, 3 * row + 1, 3 * column + 1]) == world.space.palette[4]
    animation(tmp_path / "pong.gif", found.pictures, world.space, scale=2)
    with Image.open(tmp_path / "pong.gif") as gif:
        assert (gif.n_frames, gif.size) == (5, (18, 24))
    for make, match in (
        (lambda: painted(found.pictures + 9, world.space), r"colours 0 to 4, got 13"),
        (lambda: painted(found.pictures, world.space, 0), "scale >= 1, got 0"),
        (lambda: animation(tmp_path / "x.gif", found.pictures[:0], world.space), "one frame or more"),
    ):
        with pytest.raises(RecipeError, match=match):
            make()
