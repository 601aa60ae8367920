"""Attracting paths: only ways that end in a reward are learned, until goals lie on one orbit.

Play is cut where something is lost; of what lies between, all up to the last reward is accepted. What is learned so has
few states and leads from reward to reward. It plays, what is accepted of its own play is learned too, and so on, until
as many goals as asked lie on one orbit and nothing was lost in a round: where the world does as it did, it can now go
round for ever, and never needs what it does not know.

Source:
    Friston et al. 2024, arXiv:2407.20292, where states are merged from episodes that end in reward; the common orbit:
    Friston et al. 2025, Entropy 27, 992. Theirs are cut at each reward, ours at losses only.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from renorm.errors import DataError, RecipeError
from renorm.planning.attractors import orbit
from renorm.planning.inductive import InductivePlanner, InductivePlayer
from renorm.worlds.world import Play, World, play

__all__ = ["Attracted", "accepted", "attract"]


def accepted(played: Play, least: int = 1) -> list[Play]:
    """The parts of a play that end in a reward, each as long as nothing is lost.

    Args:
        played: Where nothing is won, nothing is accepted; nor is what is won in a frame in which something is lost.
        least: Frames; shorter parts are left out.

    Example: the reward in frame 2 is reached from the beginning, that in frame 7 from what comes after the loss.
        >>> rewards, costs = np.zeros((2, 9), np.int64)
        >>> rewards[[2, 7]], costs[4] = 1, 1
        >>> frames = np.arange(9)
        >>> parts = accepted(Play(frames.astype(np.uint8)[:, None, None], rewards, costs, frames))
        >>> [part.actions.tolist() for part in parts]
        [[0, 1, 2], [5, 6, 7]]
    """
    parts = []
    edges = [-1, *np.flatnonzero(played.costs > 0).tolist(), len(played)]
    for before, after in itertools.pairwise(edges):
        won = np.flatnonzero(played.rewards[before + 1 : after] > 0)
        if len(won) and won[-1] + 1 >= least:
            own = slice(before + 1, before + 2 + int(won[-1]))
            parts.append(Play(*(array[own] for array in vars(played).values())))
    return parts


@dataclass(frozen=True, eq=False)
class Attracted:
    """What came of it.

    Attributes:
        planner: It knows what was accepted.
        practised: Own plays.
        goals: How many goals lie on the largest orbit, before practice and after each play.
    """

    planner: InductivePlanner
    practised: list[Play]
    goals: list[int]


def attract(
    world: World,
    watched: Sequence[Play],
    generator: np.random.Generator,
    *,
    goals: int = 2,
    rounds: int = 25,
    length: int = 200,
    slip: float = 0.0,
    edges: int | Sequence[int] | None = None,
    levels: int = 2,
) -> Attracted:
    """Learn the accepted parts of what was watched, and of own play, until it can go round.

    Args:
        world: It is reset for every round.
        watched: Somebody's plays.
        generator: Of the world, and of actions that make no difference.
        goals: It ends when so many lie on one orbit and nothing was lost in the last round.
        rounds: It ends after so many, in any case.
        length: Frames of a round.
        slip: Probability that an action is replaced by a random one.
        edges, levels: See ``InductivePlanner.fit``.

    Raises:
        RecipeError: If a number is out of range.
        DataError: If no reward was ever reached; watch more.

    Example: a small Pong.
        >>> from renorm.worlds.pong import Pong
        >>> from renorm.worlds.world import random_player
        >>> rng, world = np.random.default_rng(0), Pong(rows=6, columns=5)
        >>> watched = play(world, random_player(3, rng), 1000, rng)
        >>> found = attract(world, [watched], rng)
        >>> played = play(world, InductivePlayer(found.planner, rng), 400, rng)
        >>> found.goals[-1] >= 2, played.rewards.sum() > 30, played.costs.sum() <= 2
        (True, np.True_, np.True_)
    """
    if goals < 1 or rounds < 0 or levels < 2:
        raise RecipeError(
            f"attracting paths need goals >= 1, rounds >= 0 and levels >= 2, got {goals}, {rounds} and {levels}"
        )
    least = 2**levels  # frames of two windows, one after the other
    if length < least:
        raise RecipeError(f"nothing can be learned from rounds of fewer than {least} frames, got length {length}")
    parts = [part for own in watched for part in accepted(own, least)]
    if not parts:
        raise DataError(
            f"no reward was reached in {sum(len(own) for own in watched)} frames by a way of {least} frames or more "
            "without a loss; watch more"
        )
    planner = InductivePlanner.fit(parts, actions=len(world.space.actions), edges=edges, levels=levels)
    practised, reached = list[Play](), [_on_orbit(planner)]
    while len(practised) < rounds and (reached[-1] < goals or not practised or practised[-1].costs.any()):
        practised.append(play(world, InductivePlayer(planner, generator), length, generator, slip=slip))
        more = accepted(practised[-1], least)
        planner = planner.learn(more) if more else planner
        reached.append(_on_orbit(planner))
    return Attracted(planner, practised, reached)


def _on_orbit(planner: InductivePlanner) -> int:
    """Goals on the largest orbit."""
    return int((orbit(planner.ways.pairs, planner.goals, planner.losses) & planner.goals).sum())
