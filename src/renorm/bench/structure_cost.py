"""What structure learning costs: seconds, states, events and bytes against frames, for Pong with a random serve.

Random play, one action in ten slips. Two towers learn it in one pass: ``frames`` has blocks of 6 x 6 sites and one
factor for the whole picture, whose states are two frames; ``windows`` has blocks of 4 x 4, of 2 x 2 of these, and one
factor whose states are four frames. The third is what plays: objects, and laws of what follows (``Foresight``). Seconds
are those of one thread, medians of ``ROUNDS``. An exponent is the slope in logarithms over the last tenfold of frames.
"""

import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from renorm.bench.result import Result
from renorm.planning.players import foresight_of
from renorm.tokens.paths.groups import block_groups
from renorm.tokens.paths.tower import Tower
from renorm.worlds.pong import Pong
from renorm.worlds.world import Play, play, random_player

__all__ = ["run"]

FRAMES = (1000, 10_000, 100_000, 1_000_000)
EDGES = {"frames": (6, 2), "windows": (4, 2)}
SLIP = 0.1
ROUNDS = 3


def run(seed: int) -> Result:
    """Play once, then learn from more and more of it."""
    world, generator = Pong(serve="random"), np.random.default_rng(seed)
    player = random_player(len(world.space.actions), generator)
    played = play(world, player, max(FRAMES), generator, slip=SLIP)
    rows = [_learned(name, played, frames) for name in (*EDGES, "objects") for frames in FRAMES]
    figures: dict[str, float] = {}
    for name in (*EDGES, "objects"):
        before, last = [row for row in rows if row["structure"] == name][-2:]
        called = "" if name == "windows" else f"_{name}"
        figures[f"seconds_1e6{called}"] = last["seconds"]
        figures[f"bytes_1e6{called}"] = last["bytes"]
        figures[f"growth_exponent{called}"] = _exponent(before, last, "bytes")
        figures[f"seconds_exponent{called}"] = _exponent(before, last, "seconds")
    return Result(figures, rows, (seed,))


def _learned(name: str, played: Play, frames: int) -> dict[str, Any]:
    """A row of the table."""
    learn: Callable[[], dict[str, int | float]] = (
        _objects(played, frames) if name == "objects" else _tower(name, played, frames)
    )
    seconds = []
    for _ in range(ROUNDS):
        begun = time.process_time()
        found = learn()
        seconds.append(time.process_time() - begun)
    return {"structure": name, "frames": frames, "seconds": statistics.median(seconds), **found}


def _tower(name: str, played: Play, frames: int) -> Callable[[], dict[str, int | float]]:
    tokens = played.pictures[:frames].reshape(frames, -1)
    groups = block_groups(played.pictures.shape[1:], EDGES[name])

    def learn() -> dict[str, int | float]:
        tower = Tower(groups)
        tower.learn([tokens])
        factors = [factor for level in tower.levels for factor in level]
        return {
            "states": sum(len(factor.states) for factor in factors),
            "events": sum(len(factor.events) for factor in factors),
            "top_states": len(tower.levels[-1][0].states),
            "bytes": tower.nbytes,
        }

    return learn


def _objects(played: Play, frames: int) -> Callable[[], dict[str, int | float]]:
    part = Play(*(array[:frames] for array in (played.pictures, played.rewards, played.costs, played.actions)))

    def learn() -> dict[str, int | float]:
        foresight = foresight_of(part, actions=len(Pong().space.actions))
        return {
            "states": sum(len(states) for states in foresight.states),
            "events": sum(law.size for law in (*foresight.laws, foresight.reward, foresight.cost)),
            "bytes": foresight.nbytes,
        }

    return learn


def _exponent(before: dict[str, Any], last: dict[str, Any], what: str) -> float:
    """Slope in logarithms.

    Example:
        >>> _exponent({"frames": 10, "bytes": 1}, {"frames": 1000, "bytes": 10}, "bytes")
        0.5
    """
    return math.log(last[what] / before[what]) / math.log(last["frames"] / before["frames"])
