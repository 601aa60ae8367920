"""A range coder whose probabilities are integers: no float decides what a file means."""

from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Int

from renorm.errors import DataError, RecipeError

__all__ = ["TOTAL", "RangeDecoder", "RangeEncoder"]

TOTAL = 1 << 24
"""Sum of the weights of all values of one symbol: the precision of constriction's coder."""

KNOWN_WEIGHTS = (
    (0, TOTAL - 8, 3, 0, 0),
    (5_000_000, 1, 0, 11_777_000, 210),
    (0, 0, 0, 0, TOTAL - 5),
    (1, 2, TOTAL - 14, 2, 4),
    (TOTAL - 6, 0, 0, 0, 1),
)
KNOWN_SYMBOLS = (2, 3, 1, 4, 0)
KNOWN_WORDS = (4294966065, 734614109, 4059429376)


class RangeEncoder:
    r"""Writes symbols as 32-bit words, each at $\log_2(2^{24}/w)$ bits, $w$ its integer weight out of $2^{24}$.

    constriction's ``Categorical(perfect=False)`` turns a row of floats $f_0 \ldots f_{n-1}$ into the integer edges
    $c_k = \lfloor \sum_{j<k} f_j \cdot (2^{24} - n)/\sum_j f_j \rfloor + k$. Where all $f_j$ are integers with sum
    $2^{24} - n$, the scale is exactly 1, every partial sum is an integer below $2^{24}$, so exact even in float32 and
    in any order, and $c_k = \sum_{j<k} (f_j + 1)$: value $j$ has the weight $f_j + 1$ and nothing is rounded.

    The words depend on a symbol's own edges alone, so the encoder names only those: it codes one of three values
    ("below", "this", "above").

    Raises:
        RecipeError: If constriction is not installed, or answers a known question otherwise than it did.

    Example:
        >>> import numpy as np
        >>> from renorm.tokens.codec.range_coder import TOTAL, RangeDecoder, RangeEncoder
        >>> encoder = RangeEncoder()
        >>> encoder.encode(np.array([1, 0]), np.array([0, 0]), np.array([7, TOTAL - 9]), size=4)
        >>> edges = np.array([[0.0, 6, 7, 8, TOTAL - 4], [0, TOTAL - 10, TOTAL - 9, TOTAL - 8, TOTAL - 4]])
        >>> RangeDecoder(encoder.finish()).decode(edges)
        array([0, 0])
    """

    def __init__(self) -> None:
        library = _constriction()
        self._encoder = library.stream.queue.RangeEncoder()
        self._family = library.stream.model.Categorical(perfect=False)

    def encode(
        self,
        symbol: Int[np.ndarray, "batch"],
        left: Int[np.ndarray, "batch"],
        weight: Int[np.ndarray, "batch"],
        size: int,
    ) -> None:
        """Append one symbol a row.

        Args:
            symbol: Values in ``[0, size)``, ``size >= 2``.
            left: Sum of the weights of all smaller values, at least ``symbol``.
            weight: Weight of the value itself, at least 1.
            size: Number of values.
        """
        right = TOTAL - left - weight
        if size == 2:
            place = symbol.astype(np.int32)
            parts = np.where((symbol == 0)[:, None], np.stack([weight, right], 1), np.stack([left, weight], 1))
        else:  # the first value has nothing below it and the last nothing above: split the other side in two
            place = np.where(symbol == 0, 0, np.where(symbol == size - 1, 2, 1)).astype(np.int32)
            first = np.where(place == 0, weight, np.where(place == 1, left, left - 1))
            middle = np.where(place == 1, weight, 1)
            parts = np.stack([first, middle, TOTAL - first - middle], 1)
        self._encoder.encode(place, self._family, np.ascontiguousarray(parts - 1, dtype=np.float32))

    def finish(self) -> bytes:
        """All that was written, as little-endian 32-bit words."""
        return self._encoder.get_compressed().astype("<u4").tobytes()


class RangeDecoder:
    """Reads what `RangeEncoder` wrote, in the same order.

    Raises:
        RecipeError: If constriction is not installed, or answers a known question otherwise than it did.
    """

    def __init__(self, words: bytes) -> None:
        library = _constriction()
        self._decoder = library.stream.queue.RangeDecoder(np.frombuffer(words, dtype="<u4").astype(np.uint32))
        self._family = library.stream.model.Categorical(perfect=False)

    def decode(self, edges: Float64[np.ndarray, "batch size_and_one"]) -> Int[np.ndarray, "batch"]:
        """One symbol a row.

        Args:
            edges: Integers, rising from 0 to ``TOTAL - size`` along a row; value k weighs
                ``edges[k + 1] - edges[k] + 1``.

        Raises:
            DataError: If no encoder can have written these words.
        """
        weights = np.empty((edges.shape[0], edges.shape[1] - 1), dtype=np.float32)
        np.subtract(edges[:, 1:], edges[:, :-1], out=weights, casting="same_kind")
        return self._decode(weights)

    def _decode(self, weights: Float32[np.ndarray, "batch size"]) -> Int[np.ndarray, "batch"]:
        try:
            symbols: np.ndarray = self._decoder.decode(self._family, weights)
        except (AssertionError, ValueError) as error:
            raise DataError(
                f"the coded words must come from this coder, and no encoder writes these ({error}): the file is damaged"
                " or was not made here; take another copy"
            ) from None
        return symbols.astype(np.int64)


@cache
def _constriction() -> ModuleType:
    """The library, once it has answered a known question as it always did."""
    try:
        import constriction
    except ImportError:
        raise RecipeError("coding needs constriction, which is not installed: pip install 'renorm[codec]'") from None
    weights = np.array(KNOWN_WEIGHTS, dtype=np.float32)
    symbols = np.array(KNOWN_SYMBOLS, dtype=np.int32)
    words = known_answer(constriction, weights, symbols)
    back = constriction.stream.queue.RangeDecoder(np.array(KNOWN_WORDS, dtype=np.uint32)).decode(
        constriction.stream.model.Categorical(perfect=False), weights
    )
    if words != KNOWN_WORDS or not np.array_equal(back, symbols):
        raise RecipeError(
            "constriction must code a known row of symbols to known words, or files would not be read back elsewhere;"
            f" this version gives {words} for {KNOWN_WORDS}: pip install 'constriction==0.5.0'"
        )
    return constriction


def known_answer(library: Any, weights: np.ndarray, symbols: np.ndarray) -> tuple[int, ...]:
    """The words that a library writes for rows of weights and a symbol each."""
    encoder = library.stream.queue.RangeEncoder()
    encoder.encode(symbols, library.stream.model.Categorical(perfect=False), weights)
    return tuple(int(word) for word in encoder.get_compressed())
