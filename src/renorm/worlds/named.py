"""Worlds by their names."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from renorm.errors import RecipeError
from renorm.worlds.breakout import Breakout
from renorm.worlds.pong import Pong
from renorm.worlds.world import World

__all__ = ["WORLDS", "named_world"]

WORLDS: dict[str, type] = {"pong": Pong, "breakout": Breakout}


def named_world(name: str, changes: Mapping[str, str | int] | None = None) -> World:
    """A world of ours.

    Args:
        name: One of ``WORLDS``.
        changes: Values of its settings; numbers may come as text.

    Raises:
        RecipeError: If there is no such world or setting, or a value is out of range.

    Example:
        >>> named_world("pong", {"serve": "random", "rows": "8"}).space.shape
        (8, 9)
    """
    if name not in WORLDS:
        raise RecipeError(f"unknown world '{name}'; known: {', '.join(WORLDS)}, and gym:ID for one of gymnasium's")
    kinds = {field.name: field.type for field in fields(WORLDS[name])}
    found: dict[str, Any] = {}
    for key, value in (changes or {}).items():
        if key not in kinds:
            raise RecipeError(f"{name} has no setting '{key}'; it has {', '.join(kinds)}")
        found[key] = value
        if kinds[key] in (int, "int"):
            try:
                found[key] = int(value)
            except ValueError:
                raise RecipeError(f"{key} of {name} is a whole number, got {value!r}") from None
    world: World = WORLDS[name](**found)
    return world
