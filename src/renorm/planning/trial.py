"""One world, watched at random, learned further by playing, and played by planning: what `renorm plan` does."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from renorm.errors import RecipeError
from renorm.planning.attracting import attract
from renorm.planning.inductive import InductivePlanner, InductivePlayer
from renorm.planning.players import PlanningPlayer, foresight_of
from renorm.planning.search import Planner
from renorm.worlds.world import Frame, Play, World, play, random_player

__all__ = ["PLANNERS", "Trial", "trial"]

PLANNERS = ("objects", "tower")
ROUND = 400  # frames of own play that are learned from
TREMBLE = 0.1  # slips in it at least: who never errs learns nothing of what he does not do


@dataclass(frozen=True)
class Trial:
    """What came of it.

    Attributes:
        watched: Random play.
        practised: Own plays that were learned from.
        planner: What was learned from both.
        played: Planned play, of which nothing was learned.
        indifferent: Share of the played frames in which no action was better than another.
        learn_seconds, play_seconds: On this machine.
    """

    watched: Play
    practised: list[Play]
    planner: Planner | InductivePlanner
    played: Play
    indifferent: float
    learn_seconds: float
    play_seconds: float

    @property
    def notes(self) -> list[str]:
        """What a reader must know of goals that were never seen or never came in sight."""
        known = [self.watched, *self.practised]
        seen, found = sum(len(own) for own in known), list[str]()
        won, lost = (any(getattr(own, what).any() for own in known) for what in ("rewards", "costs"))
        if not won and not lost:
            found.append(f"nothing was won or lost in {seen} frames, so it plays at random; watch more frames")
        elif not won:
            found.append(f"nothing was won in {seen} frames, so it only keeps away from losses; watch more frames")
        elif self.indifferent > 1 / 2:
            share = f"{self.indifferent:.0%}"
            found.append(f"in {share} of the frames no goal was in sight, so it played at random; watch more frames")
        return found

    def figures(self, frames: int = 512) -> dict[str, int | float]:
        """Rewards and costs in so many frames, planned and at random, and what was learned."""
        won, lost = self.played.per_frames(frames)
        random_won, random_lost = self.watched.per_frames(frames)
        return {
            "frames_watched": len(self.watched),
            "frames_practised": sum(len(own) for own in self.practised),
            "frames_played": len(self.played),
            **_size(self.planner),
            f"rewards_{frames}": won,
            f"costs_{frames}": lost,
            f"random_rewards_{frames}": random_won,
            f"random_costs_{frames}": random_lost,
            "learn_seconds": self.learn_seconds,
            "frames_per_second": len(self.played) / max(self.play_seconds, 1e-9),
        }


def trial(
    world: World,
    *,
    planner: str = "objects",
    frames: int = 5000,
    rounds: int = 0,
    played: int = 512,
    slip: float = 0.0,
    seed: int = 0,
    watch: Callable[[Frame], None] | None = None,
) -> Trial:
    """Press buttons at random, learn from what was seen, practise, and play.

    Args:
        world: It is reset for every play.
        planner: "objects" plans with the objects that it finds (``renorm.planning.search``), "tower" with windows of
            whole pictures (``renorm.planning.inductive``).
        frames: Of random play.
        rounds: Own plays of 400 frames, each of which is learned before the next. With objects one action in ten slips
            there; a tower learns the ways to rewards alone, until it can go round (``attract``).
        played: Frames of planned play.
        slip: Probability that an action is replaced by a random one, everywhere.
        seed: Of all randomness.
        watch: Shown each frame that is played.

    Raises:
        RecipeError: If a number is out of range, or there is no such planner.
        DataError: If nothing ever changes in the world, or a tower shall practise and nothing was ever won.

    Example: a small Pong.
        >>> from renorm.worlds.pong import Pong
        >>> found = trial(Pong(rows=6, columns=5), frames=1500, played=200)
        >>> figures = found.figures()
        >>> figures["rewards_512"] > 3 * figures["random_rewards_512"], found.notes
        (True, [])
    """
    if frames < 3 or played < 1 or rounds < 0:
        raise RecipeError(
            "a trial needs 3 frames of random play or more, rounds >= 0, and 1 frame of planned play or more, got "
            f"{frames}, {rounds} and {played}"
        )
    if planner not in PLANNERS:
        raise RecipeError(f"planner is one of {', '.join(PLANNERS)}, got {planner!r}")
    if planner == "tower" and frames < 4:
        raise RecipeError(f"a tower needs 4 frames of random play or more, got {frames}")
    if seed < 0:
        raise RecipeError(f"a seed is 0 or more, got {seed}")
    number = len(world.space.actions)
    chance = np.random.default_rng((seed, 0))
    watched = play(world, random_player(number, chance), frames, chance, slip=slip)
    begun = time.perf_counter()
    learned, practised = (_objects if planner == "objects" else _tower)(world, watched, rounds, slip, chance)
    practised_at = time.perf_counter()
    draw = np.random.default_rng((seed, 2))
    player = PlanningPlayer(learned, draw) if isinstance(learned, Planner) else InductivePlayer(learned, draw)

    def shown(frame: Frame) -> int:
        if watch is not None:
            watch(frame)
        return player(frame)

    found = play(world, shown, played, np.random.default_rng((seed, 1)), slip=slip)
    ended = time.perf_counter()
    return Trial(
        watched,
        practised,
        learned,
        found,
        player.indifferent / player.frames,
        practised_at - begun,
        ended - practised_at,
    )


def _objects(
    world: World, watched: Play, rounds: int, slip: float, chance: np.random.Generator
) -> tuple[Planner, list[Play]]:
    """Objects and their laws, from what was watched and then from own plays too."""
    number, practised = len(world.space.actions), list[Play]()
    planner = Planner(foresight_of(watched, actions=number))
    for _ in range(rounds):
        practised.append(play(world, PlanningPlayer(planner, chance), ROUND, chance, slip=max(slip, TREMBLE)))
        planner = Planner(foresight_of(watched, *practised, actions=number))
    return planner, practised


def _tower(
    world: World, watched: Play, rounds: int, slip: float, chance: np.random.Generator
) -> tuple[InductivePlanner, list[Play]]:
    """Windows of all that was watched; or, with rounds, of the ways to rewards alone."""
    if not rounds:
        return InductivePlanner.fit([watched], actions=len(world.space.actions)), []
    found = attract(world, [watched], chance, rounds=rounds, length=ROUND, slip=slip)
    return found.planner, found.practised


def _size(planner: Planner | InductivePlanner) -> dict[str, int]:
    """Of what was learned."""
    if isinstance(planner, Planner):
        return {"objects": len(planner.foresight.states), "controllable": sum(planner.foresight.controllable)}
    return {"windows": len(planner.names), "moves": len(planner.ways.moves), "goals": int(planner.goals.sum())}
