"""Towers that find their groups by themselves: by where tokens lie, or by what they say of each other."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int64, Integer

from renorm.errors import DataError, RecipeError
from renorm.tokens.families.grouping import (
    groups_by_information,
    groups_by_place,
    halving_edges,
    pair_information,
)
from renorm.tokens.paths.tower import Tower

__all__ = ["grow_tower", "place_groups"]


def place_groups(locations: Float[np.ndarray, "tokens axes"]) -> list[Int64[np.ndarray, "_"]]:
    """Groups for the levels of a ``Tower``: halves of the places, by the nearest point of coarser and coarser lattices.

    Args:
        locations: Where the tokens are; on no grid in general.

    Raises:
        DataError: If there is no location.

    Example: four tokens on a line, two of them near each other.
        >>> [groups.tolist() for groups in place_groups(np.array([[0.0], [0.1], [2.0], [3.0]]))]
        [[0, 0, 1, 1], [0, 0]]
    """
    levels = []
    for edge in halving_edges(locations):
        group = groups_by_place(locations, edge) if edge > 1 else np.zeros(len(locations), np.int64)
        locations = np.stack([locations[group == g].mean(axis=0) for g in range(group.max() + 1)])
        levels.append(group)
    return levels


def grow_tower(
    episodes: Sequence[Integer[np.ndarray, "_ tokens"]], size: int, *, length: int = 2, levels: int = 8
) -> Tower:
    """A tower whose factors are what hangs together: mutual information of the tokens, then of the factors' events.

    Args:
        episodes: What it learns.
        size: Most children of a factor that hang together; tokens that say nothing of each other are all in one.
        length: T, states in an event.
        levels: At most so many; the highest one may then have several factors.

    Raises:
        RecipeError: If ``size`` is below 2, or ``levels`` below 1.
        DataError: If an episode is too short for a level that is needed.

    Example: tokens 0 and 2 are one coin, 1 and 3 another; the coins are thrown together.
        >>> coins = np.random.default_rng(0).integers(2, size=(200, 2))
        >>> tower = grow_tower([coins[:, [0, 1, 0, 1]]], size=2)
        >>> [sorted(factor.children.tolist()) for factor in tower.levels[0]], len(tower.levels)
        ([[0, 2], [1, 3]], 2)
    """
    if size < 2 or levels < 1:
        raise RecipeError(f"a tower grows by size >= 2 and levels >= 1, got {size} and {levels}")
    if not episodes:
        raise DataError("a tower learns from one episode or more, got none")
    rows = np.concatenate([np.asarray(episode) for episode in episodes])
    groups: list[np.ndarray] = []
    while True:
        known = rows[(rows >= 0).all(axis=1)].astype(np.int64)
        group = np.zeros(rows.shape[1], np.int64)
        if rows.shape[1] > size:
            found = groups_by_information(pair_information(known), size)
            group = found if found.max() + 1 < rows.shape[1] else group  # nothing says anything: all together
        groups.append(group)
        tower = Tower(groups, length)
        seen = tower.learn(episodes)
        if not group.any() or len(groups) == levels:
            return tower
        rows = np.stack([found.events for found in seen[-1]], axis=1)
