"""Players of one world that learned from the same random play: by counting and planning, and by a table of values.

Ours plans with objects (``renorm.planning.search``); ``tower`` on windows of whole pictures, as the paper does
(``renorm.planning.inductive``), from all that was watched; ``attracting`` from ways to rewards alone, those of up to
``ROUNDS`` own plays of 200 frames included (``renorm.planning.attracting``): it has practised, the others have not.
"""

import itertools
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from renorm.bench.cores import on_all_cores, telling
from renorm.planning.attracting import Attracted, attract
from renorm.planning.inductive import InductivePlanner, InductivePlayer
from renorm.planning.players import PlanningPlayer, foresight_of
from renorm.planning.search import Planner
from renorm.worlds.q_learner import QLearner
from renorm.worlds.world import Play, Player, World, play, random_player

__all__ = ["SEEDS", "Game", "means", "rows_of", "told", "tuned"]

SEEDS = 5
ROUNDS = 50
TUNING = (9001, 9002)
"""Seeds on which the Q-learner's rates are chosen: no result is of these."""
Rates: TypeAlias = tuple[float, float, int, float]
"""Rate, discount, sweeps and tremble."""
RATES: tuple[Rates, ...] = tuple(itertools.product((0.1, 0.3, 0.6), (0.95, 0.98, 0.99), (10, 50), (0.0, 0.1)))


@dataclass(frozen=True)
class Game:
    """A world, and how it is played.

    Attributes:
        name: For tables.
        world: Makes it.
        slip: Probability that an action is replaced by a random one, in learning and in play.
        frames: Played for a result.
    """

    name: str
    world: Callable[[], World]
    slip: float = 0.0
    frames: int = 4096

    def at_random(self, frames: int, seed: int) -> Play:
        """What all learn from."""
        world, generator = self.world(), np.random.default_rng((seed, 0))
        player = random_player(len(world.space.actions), generator)
        return play(world, player, frames, generator, slip=self.slip)

    def score(self, player: Player, seed: int) -> tuple[float, float]:
        """Rewards and losses in 512 frames."""
        return play(self.world(), player, self.frames, np.random.default_rng((seed, 1)), slip=self.slip).per_frames()


def rows_of(game: Game, frames: Iterable[int], rates: Rates, seed: int) -> list[dict[str, Any]]:
    """What ours and the Q-learner reach, after each number of random frames, and what random play does."""
    jobs: list[Callable[[], Any]] = [
        partial(_raced, game, number, rates, seed + i) for number, i in itertools.product(frames, range(SEEDS))
    ]
    return [row for rows in on_all_cores(jobs, telling(game.name, "plays")) for row in rows]


def tuned(game: Game, frames: int) -> Rates:
    """Rates at which the Q-learner wins most and loses least, on seeds of its own."""
    jobs: list[Callable[[], Any]] = [partial(_learned, game, frames, rates, own) for rates in RATES for own in TUNING]
    worth = on_all_cores(jobs, telling(f"{game.name}, rates", "learners"))
    mean = [statistics.fmean(worth[i : i + len(TUNING)]) for i in range(0, len(worth), len(TUNING))]
    return RATES[int(np.argmax(mean))]


def _learned(game: Game, frames: int, rates: Rates, seed: int) -> float:
    """What a Q-learner of these rates wins, less what it loses."""
    won, lost = game.score(_q_player(game, game.at_random(frames, seed), rates, seed), seed)
    return won - lost


def _q_player(game: Game, played: Play, rates: Rates, seed: int) -> Player:
    learner = QLearner(len(game.world().space.actions), *rates).learn(played, np.random.default_rng((seed, 3)))
    return learner.player(np.random.default_rng((seed, 4)))


def _towers(game: Game, played: Play, seed: int) -> tuple[InductivePlanner, Attracted]:
    """The planning of the paper: by all that was watched, and by attracting paths."""
    planner = InductivePlanner.fit([played], actions=len(game.world().space.actions))
    found = attract(game.world(), [played], np.random.default_rng((seed, 6)), rounds=ROUNDS, slip=game.slip)
    return planner, found


def _raced(game: Game, frames: int, rates: Rates, seed: int) -> list[dict[str, Any]]:
    """One seed, a row for each player."""
    played = game.at_random(frames, seed)
    foresight = foresight_of(played, actions=len(game.world().space.actions))
    tower, attracted = _towers(game, played, seed)
    players: dict[str, Player] = {
        "ours": PlanningPlayer(Planner(foresight), np.random.default_rng((seed, 2))),
        "tower": InductivePlayer(tower, np.random.default_rng((seed, 5))),
        "attracting": InductivePlayer(attracted.planner, np.random.default_rng((seed, 7))),
        "q-learner": _q_player(game, played, rates, seed),
    }
    found = {method: game.score(player, seed) for method, player in players.items()}
    found["random"] = played.per_frames()
    about = {"game": game.name, "frames": frames, "seed": seed}
    more: dict[str, dict[str, int]] = {
        "tower": {"windows": len(tower.names), "merged": len(tower.merged().goals)},
        "attracting": {
            "windows": len(attracted.planner.names),
            "merged": len(attracted.planner.merged().goals),
            "practised": sum(len(own) for own in attracted.practised),
            "goals_on_orbit": attracted.goals[-1],
        },
    }
    return [
        about | {"method": method, "rewards": rewards, "costs": costs} | more.get(method, {})
        for method, (rewards, costs) in found.items()
    ]


def told(rates: Rates) -> str:
    """For people.

    Example:
        >>> told((0.3, 0.95, 50, 0.1))
        'rate 0.3, discount 0.95, 50 sweeps, tremble 0.1'
    """
    return "rate {}, discount {}, {} sweeps, tremble {}".format(*rates)


def means(rows: Sequence[Mapping[str, Any]], what: str) -> dict[tuple[str, int], float]:
    """Mean over seeds of a column, by method and number of frames; of the rows that have it.

    Example:
        >>> row = {"method": "ours", "frames": 5, "rewards": 1.0}
        >>> means([row, row | {"rewards": 2.0}], "rewards")
        {('ours', 5): 1.5}
    """
    found: dict[tuple[str, int], list[float]] = {}
    for row in rows:
        if what in row:
            found.setdefault((row["method"], row["frames"]), []).append(row[what])
    return {key: statistics.fmean(values) for key, values in found.items()}
