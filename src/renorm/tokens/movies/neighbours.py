"""Which tokens nearby, now and before, tell a token: chosen by evidence."""

from typing import TypeAlias

import numpy as np
from jaxtyping import Integer

from renorm.tokens.paths.context_law import both, evidence_gain, undecided

__all__ = ["Offset", "choose_offsets"]

Offset: TypeAlias = tuple[int, int, int]
"""Frames, rows and columns from a token to another that is known before it."""

REACH, SHORT = 8, 2  # sites around it in the last frame, and in the one before
FIRST, SAMPLE, MOST, KEPT = 8192, 65_536, 8, 24
NOW = ((0, 0, -1), (0, -1, 0), (0, -1, -1), (0, -1, 1), (0, 0, -2), (0, -2, 0))


def choose_offsets(tokens: Integer[np.ndarray, "frames rows columns"], generator: np.random.Generator) -> list[Offset]:
    r"""The neighbours that tell most of a token, one after the other, as long as the evidence rises.

    The same greedy choice as that of ``ContextLaw``, among all sites at most eight away in the last frame, two away in
    the frame before, and those already known of this frame. A sample of 8192 tokens chooses 24 of them, one of 65 536
    tokens the rest.

    Example: a pattern that moves one site to the left in each frame.
        >>> row = np.random.default_rng(0).integers(4, size=40)
        >>> movie = np.stack([row[t : t + 20] for t in range(20)])[:, None]
        >>> choose_offsets(movie, np.random.default_rng(0))[0]
        (-1, 0, 1)
    """
    before = [(-1, y, x) for y in range(-REACH, REACH + 1) for x in range(-REACH, REACH + 1)]
    before += [(-2, y, x) for y in range(-SHORT, SHORT + 1) for x in range(-SHORT, SHORT + 1)]
    pool: list[Offset] = [*NOW, *sorted(before, key=lambda o: (o[0] != -1, o[1] ** 2 + o[2] ** 2))]
    pool = [o for o in pool if all(abs(d) < n for d, n in zip(o, tokens.shape, strict=True))]
    outside = int(tokens.max()) + 1
    some = generator.permutation(tokens.size)[:SAMPLE]
    few = np.unravel_index(np.sort(some[:FIRST]), tokens.shape)
    alone, nothing = np.asarray(tokens[few], np.int64), np.zeros(len(few[0]), np.int64)
    gains = [evidence_gain(nothing, _at(tokens, few, o, outside), alone) for o in pool]
    pool = [pool[i] for i in np.argsort(gains, kind="stable")[::-1][:KEPT].tolist()]
    place = np.unravel_index(np.sort(some), tokens.shape)
    outcomes = np.asarray(tokens[place], np.int64)
    known = {o: _at(tokens, place, o, outside) for o in pool}
    rows, context = np.arange(len(some)), np.zeros(len(some), np.int64)
    chosen: list[Offset] = []
    while len(chosen) < MOST and pool:
        open_ = undecided(context, outcomes[rows])
        rows, context = rows[open_], context[open_]
        gains = [evidence_gain(context, known[o][rows], outcomes[rows]) for o in pool]
        best = int(np.argmax(gains))
        if gains[best] <= 0:
            break
        chosen.append(pool[best])
        context = both(context, known[pool[best]][rows])
        del pool[best]
    return chosen


def _at(tokens: np.ndarray, place: tuple[np.ndarray, ...], offset: Offset, outside: int) -> np.ndarray:
    """The tokens at an offset from some places."""
    at = [own + d for own, d in zip(place, offset, strict=True)]
    inside = np.all([(own >= 0) & (own < n) for own, n in zip(at, tokens.shape, strict=True)], axis=0)
    clipped = tuple(own.clip(0, n - 1) for own, n in zip(at, tokens.shape, strict=True))
    return np.where(inside, tokens[clipped], outside).astype(np.int64)
