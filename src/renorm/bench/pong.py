"""Pong, 12 x 9: hits and misses in 512 frames after so many frames of random play, means of five seeds.

``fixed``: the ball has one orbit, as in arXiv:2407.20292. ``random``: each rally is served anew, and one action in ten
is replaced by a random one, in learning as in play. The Q-learner sees the last two pictures and learns from the same
frames; its rate, discount, number of sweeps and tremble are the best of 36 for each game, chosen on other seeds.
``tower`` and ``attracting`` plan on windows of whole pictures as the paper does, see ``renorm.bench.games``.
Seconds are those of one thread: of learning 10 000 frames, and of 4096 frames played by a planner that starts knowing
no plan.
"""

import time
from functools import partial

import numpy as np

from renorm.bench.games import SEEDS, Game, means, rows_of, told, tuned
from renorm.bench.result import Result
from renorm.planning.players import PlanningPlayer, foresight_of
from renorm.planning.search import Planner
from renorm.worlds.pong import Pong

__all__ = ["run"]

FIXED = Game("fixed", Pong)
RANDOM = Game("random", partial(Pong, serve="random"), slip=0.1)
FRAMES = {"fixed": (1000, 5000, 10_000), "random": (5000, 20_000, 100_000)}
TUNED_AT = {"fixed": 5000, "random": 20_000}
ROUNDS = 5


def run(seed: int) -> Result:
    """Both games, then the clock."""
    rates = {game.name: tuned(game, TUNED_AT[game.name]) for game in (FIXED, RANDOM)}
    rows = [row for game in (FIXED, RANDOM) for row in rows_of(game, FRAMES[game.name], rates[game.name], seed)]
    fixed = [row for row in rows if row["game"] == "fixed"]
    random = [row for row in rows if row["game"] == "random"]
    figures = {"hits": means(fixed, "rewards")["ours", 5000], "misses": means(fixed, "costs")["ours", 5000]}
    for method in ("tower", "attracting"):
        for name, what in {"hits": "rewards", "misses": "costs", "windows": "windows"}.items():
            figures[f"{method}_{name}"] = means(fixed, what)[method, 5000]
    figures["attracting_practised"] = means(fixed, "practised")["attracting", 5000]
    for what, name in (("rewards", "hits"), ("costs", "misses")):
        for (method, frames), value in means(random, what).items():
            asked = f"{frames // 1000}k"
            key = f"random_serve_{name}_{asked}" if method == "ours" else f"{method.replace('-', '_')}_{name}_{asked}"
            figures[key] = value
    figures |= _seconds(seed)
    notes = {f"q-learner, {name}": told(of) for name, of in rates.items()}
    return Result(figures, rows, tuple(range(seed, seed + SEEDS)), notes=notes)


def _seconds(seed: int) -> dict[str, float]:
    """Medians of a few rounds."""
    learning, playing = [], []
    for i in range(ROUNDS):
        played = FIXED.at_random(10_000, seed + i)
        begun = time.process_time()
        foresight = foresight_of(played, actions=3)
        learning.append(time.process_time() - begun)
        player = PlanningPlayer(Planner(foresight), np.random.default_rng(seed))
        begun = time.process_time()
        FIXED.score(player, seed + i)
        playing.append(FIXED.frames / (time.process_time() - begun))
    return {
        "learn_seconds_10k": float(np.median(learning)),
        "frames_per_second": float(np.median(playing)),
    }
