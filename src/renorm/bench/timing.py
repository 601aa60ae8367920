"""Seconds of several actions, taken in turn in one process, so that the machine's moods hit all alike."""

import time
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["interleaved"]


def interleaved(actions: Mapping[str, Callable[[], Any]], rounds: int, *, warm: int = 2) -> dict[str, list[float]]:
    """Seconds of every action in each round; the first ``warm`` rounds are not counted.

    Example:
        >>> found = interleaved({"nothing": lambda: None, "a sum": lambda: sum(range(10))}, 3)
        >>> [(name, len(times)) for name, times in found.items()]
        [('nothing', 3), ('a sum', 3)]
    """
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for i in range(rounds + warm):
        for name, action in actions.items():
            begun = time.perf_counter()
            action()
            if i >= warm:
                seconds[name].append(time.perf_counter() - begun)
    return seconds
