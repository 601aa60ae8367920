"""Breakout, 12 x 9: rewards in 512 frames after so many frames of random play, means of five seeds.

The Q-learner sees the last two pictures and learns from the same frames; its rate, discount, number of sweeps and
tremble are the best of 36, chosen on other seeds at 20 000 frames.
"""

from renorm.bench.games import SEEDS, Game, means, rows_of, told, tuned
from renorm.bench.result import Result
from renorm.worlds.breakout import Breakout

__all__ = ["run"]

GAME = Game("breakout", Breakout)
FRAMES = (5000, 20_000)


def run(seed: int) -> Result:
    """The scores at the most frames, and below."""
    rates = tuned(GAME, FRAMES[-1])
    rows = rows_of(GAME, FRAMES, rates, seed)
    found, lost = means(rows, "rewards"), means(rows, "costs")
    figures = {}
    for method in ("ours", "tower", "attracting", "random", "q-learner"):
        for name, of in (("score", found), ("lost", lost)):
            called = name if method == "ours" else f"{name}_{method.replace('-', '_')}"
            figures[called] = of[method, FRAMES[-1]]
            figures |= {f"{called}_{n // 1000}k": of[method, n] for n in FRAMES[:-1]}
    notes = {"q-learner": told(rates)}
    return Result(figures, rows, tuple(range(seed, seed + SEEDS)), notes=notes)
