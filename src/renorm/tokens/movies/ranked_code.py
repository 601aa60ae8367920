r"""Tokens as decisions, each of which is coded with the share that such decisions had so far.

A token is asked for in its largest context first: is it the commonest one that followed there? the second? Then in the
next smaller context, and so on; at last bit by bit, as what it differs from its neighbours in this frame. Counts begin
empty and grow on both sides alike, so nothing but the decisions is sent, and what was seen once is cheap from then on.
With $n_1$ yes in $n$ decisions of a kind, the next yes costs

$$ -\log_2 \frac{n_1 + 1/2}{n + 1} \text{ bits.} $$

Source:
    Adaptive contexts with escapes: Cleary & Witten 1984, IEEE Transactions on Communications 32, 396. The estimator:
    Krichevsky & Trofimov 1981.
"""

from array import array
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Int64, Integer

from renorm.tokens.codec.range_coder import TOTAL, RangeDecoder, RangeEncoder
from renorm.tokens.movies.neighbours import Offset

__all__ = ["decode_tokens", "encode_tokens"]

TRIES = 2  # tokens asked for in one context
FORGET = 65536  # decisions of a kind after which their counts are halved


def encode_tokens(
    tokens: Integer[np.ndarray, "frames rows columns"],
    offsets: Sequence[Offset],
    size: int,
    told: Callable[[int, int], None] = lambda done, frames: None,
) -> tuple[bytes, float]:
    """The words of a range coder, and the bits that the decisions take by their own shares.

    Args:
        tokens: 0 to ``size - 1``.
        offsets: Neighbours, of which more and more are the context.
        size: How many tokens there are.
        told: Called with (frames done, frames) after each.
    """
    writer = _Writer()
    _Walk(tokens.shape, offsets, size).run(writer, tokens.astype(np.int64), told)
    return writer.finish()


def decode_tokens(
    words: bytes,
    shape: tuple[int, int, int],
    offsets: Sequence[Offset],
    size: int,
    told: Callable[[int, int], None] = lambda done, frames: None,
) -> Int64[np.ndarray, "frames rows columns"]:
    """What ``encode_tokens`` wrote.

    Raises:
        DataError: If no encoder can have written these words.
    """
    tokens = np.zeros(shape, np.int64)
    _Walk(shape, offsets, size).run(_Reader(words), tokens, told)
    return tokens


class _Writer:
    """Decisions that are known, with the weight of `no` out of ``TOTAL``."""

    reading = False

    def __init__(self) -> None:
        self.bits, self.weights = array("b"), array("l")

    def decide(self, no: int, bit: int) -> int:
        self.bits.append(bit)
        self.weights.append(no)
        return bit

    def finish(self) -> tuple[bytes, float]:
        bits, no = np.array(self.bits, np.int64), np.array(self.weights, np.int64)
        weight = np.where(bits == 0, no, TOTAL - no)
        encoder = RangeEncoder()
        encoder.encode(bits, np.where(bits == 0, 0, no), weight, size=2)
        return encoder.finish(), float(-np.log2(weight / TOTAL).sum())


class _Reader:
    """Decisions that are read."""

    reading = True

    def __init__(self, words: bytes) -> None:
        self._decoder = RangeDecoder(words)
        self._edges = np.array([[0.0, 0.0, TOTAL - 2]])

    def decide(self, no: int, bit: int) -> int:
        self._edges[0, 1] = no - 1
        return int(self._decoder.decode(self._edges)[0])


class _Walk:
    """Both directions, token by token: what is known of a token is what both sides know."""

    def __init__(self, shape: tuple[int, ...], offsets: Sequence[Offset], size: int) -> None:
        self.shape, self.offsets, self.size = shape, list(offsets), size
        self.depth = max(1, (size - 1).bit_length())
        self.seen: list[dict[bytes, dict[int, int]]] = [{} for _ in range(len(self.offsets) + 1)]
        self.kinds: dict[tuple[int, ...], list[int]] = {}

    def run(self, coder: "_Writer | _Reader", tokens: np.ndarray, told: Callable[[int, int], None]) -> None:
        """Code all tokens; a reader writes them into the array as it goes."""
        frames, rows, columns = self.shape
        past = max([2, *(-t for t, _, _ in self.offsets)])
        side = max([2, *(max(abs(y), abs(x)) for _, y, x in self.offsets)])
        wide = np.full((frames + past, rows + 2 * side, columns + 2 * side), self.size, np.int64)
        inner = wide[past:, side : side + rows, side : side + columns]
        if not coder.reading:
            inner[:] = tokens
        flat = wide.reshape(-1)
        steps = [int(np.ravel_multi_index((past + t, side + y, side + x), wide.shape)) for t, y, x in self.offsets]
        origin = int(np.ravel_multi_index((past, side, side), wide.shape))
        away = np.array([step - origin for step in steps], np.int64)
        up, line = wide.shape[2], wide.shape[1] * wide.shape[2]
        for t in range(frames):
            for y in range(rows):
                begin = origin + t * line + y * up
                for here in range(begin, begin + columns):
                    token = self._token(coder, flat[here + away], flat, here, up)
                    if coder.reading:
                        flat[here] = token
            told(t + 1, frames)
        if coder.reading:
            tokens[:] = inner

    def _token(self, coder: "_Writer | _Reader", context: np.ndarray, flat: np.ndarray, here: int, up: int) -> int:
        token = -1 if coder.reading else int(flat[here])
        name = context.tobytes()
        books = [self.seen[k].setdefault(name[: 8 * k], {}) for k in range(len(self.offsets) + 1)]
        refused: set[int] = set()
        found = -1
        for order in range(len(books) - 1, -1, -1):
            book = books[order]
            if not book:
                continue
            several = len(book) > 1
            for attempt in range(TRIES):
                best = _commonest(book, refused)
                if best < 0:
                    break
                kind = (order, attempt, book[best].bit_length(), several)
                if self._decide(coder, kind, token == best):
                    found = best
                    break
                refused.add(best)
            if found >= 0:
                break
        if found < 0:
            found = self._new(coder, token, flat, here, up)
        for book in books:
            book[found] = book.get(found, 0) + 1
        return found

    def _new(self, coder: "_Writer | _Reader", token: int, flat: np.ndarray, here: int, up: int) -> int:
        """A token bit by bit: its difference from what its neighbours in this frame make likely."""
        left, above, corner = int(flat[here - 1]), int(flat[here - up]), int(flat[here - up - 1])
        outside = self.size
        if left == outside:
            left = above if above != outside else 0
        if above == outside:
            above = left
        if corner == outside:
            corner = above
        guess = sorted((left, above, left + above - corner))[1]
        rough = min(5, (abs(left - corner) + abs(above - corner)).bit_length())
        rest = (token - guess) % self.size
        node = 1
        for place in range(self.depth - 1, -1, -1):
            node = 2 * node + self._decide(coder, (-1, rough, node), rest >> place & 1)
        return (node - (1 << self.depth) + guess) % self.size

    def _decide(self, coder: "_Writer | _Reader", kind: tuple[int, ...], bit: int) -> int:
        counts = self.kinds.get(kind)
        if counts is None:
            counts = self.kinds[kind] = [0, 0]
        no = (2 * counts[0] + 1) * TOTAL // (2 * (counts[0] + counts[1]) + 2)
        bit = coder.decide(min(max(no, 1), TOTAL - 1), int(bit))
        counts[bit] += 1
        if counts[0] + counts[1] >= FORGET:
            counts[0], counts[1] = counts[0] // 2, counts[1] // 2
        return bit


def _commonest(book: dict[int, int], refused: set[int]) -> int:
    """The token seen most often of those that are not refused; of equals the one seen first; -1: none is left."""
    best, most = -1, 0
    for token, count in book.items():
        if count > most and token not in refused:
            best, most = token, count
    return best
