"""A movie as one small file, and back to the last bit."""

import struct
import zlib
from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8

from renorm.errors import DataError
from renorm.tokens.movies.frames import Palette, check_movie
from renorm.tokens.movies.neighbours import Offset, choose_offsets
from renorm.tokens.movies.ranked_code import decode_tokens, encode_tokens

__all__ = ["MAGIC", "pack_movie", "unpack_movie"]

MAGIC = b"\x89RNV"
VERSION = 1
HEADER = struct.Struct("<4sBBBxIIIIIII")
CRC = 4
AGAIN = "take another copy of the file, or pack the movie again"


def pack_movie(
    movie: UInt8[np.ndarray, "frames rows columns channels"],
    told: Callable[[int, int], None] = lambda done, frames: None,
) -> bytes:
    """Write a movie: its colours, the neighbours that tell most of a token, and the words of a range coder.

    Args:
        movie: Bytes.
        told: Called with (frames done, frames) after each.

    Raises:
        DataError: If it is not frames of bytes, grey or of three channels.
        RecipeError: If constriction is not installed.

    Example:
        >>> movie = np.zeros((30, 8, 8, 1), np.uint8)
        >>> movie[np.arange(30), np.arange(30) % 8, 3] = 200
        >>> data = pack_movie(movie)
        >>> len(data) < 200, bool((unpack_movie(data) == movie).all())
        (True, True)
    """
    check_movie(movie, "a movie")
    frames, rows, columns, channels = movie.shape
    palette = Palette.of(movie)
    tokens = palette.tokens(movie)
    offsets = choose_offsets(tokens, np.random.default_rng(0))
    words, _ = encode_tokens(tokens, offsets, len(palette), told)
    colours = zlib.compress(np.diff(palette.colours, axis=0, prepend=0).astype(np.uint8).T.tobytes(), 9)
    near = np.array(offsets, np.int8).tobytes()
    content = zlib.crc32(movie.tobytes())
    head = HEADER.pack(
        MAGIC, VERSION, channels, len(offsets), frames, rows, columns, len(palette), len(colours), len(words), content
    )
    body = head + near + colours + words
    return body + struct.pack("<I", zlib.crc32(body))


def unpack_movie(
    data: bytes, told: Callable[[int, int], None] = lambda done, frames: None
) -> UInt8[np.ndarray, "frames rows columns channels"]:
    """The movie that ``pack_movie`` wrote; ``told`` is called with (frames done, frames) after each.

    Raises:
        DataError: If the file is foreign, of another version, cut short, or changed.
        RecipeError: If constriction is not installed.
    """
    if data[:4] != MAGIC:
        raise DataError(
            f"a packed movie begins with {MAGIC!r}, this one with {bytes(data[:4])!r}: another kind of file"
        )
    if len(data) < HEADER.size or data[4] != VERSION:
        raise DataError(f"this program reads movies of version {VERSION} whose header is whole; {AGAIN}")
    _, _, channels, near, frames, rows, columns, size, colours, words, content = HEADER.unpack_from(data)
    ends = np.cumsum([HEADER.size, 3 * near, colours, words])
    if len(data) != ends[-1] + CRC or not size or channels not in (1, 3) or not frames * rows * columns:
        raise DataError(f"the header says {ends[-1] + CRC} bytes of {frames} frames, not {len(data)}; {AGAIN}")
    if zlib.crc32(data[:-CRC]) != struct.unpack("<I", data[-CRC:])[0]:
        raise DataError(f"the CRC-32 at the end of this file is another one: a byte was changed on the way; {AGAIN}")
    offsets: list[Offset] = [
        (int(t), int(y), int(x)) for t, y, x in np.frombuffer(data[ends[0] : ends[1]], np.int8).reshape(-1, 3)
    ]
    try:
        steps = np.frombuffer(zlib.decompress(data[ends[1] : ends[2]]), np.uint8).reshape(channels, size)
    except (zlib.error, ValueError) as error:
        raise DataError(f"the colours of this file cannot be read ({error}); {AGAIN}") from None
    palette = Palette(np.cumsum(steps.T, axis=0, dtype=np.uint8))
    if any(not known_before(offset) for offset in offsets):
        raise DataError(f"this file looks at tokens that are not known yet; {AGAIN}")
    movie = palette.movie(decode_tokens(data[ends[2] : ends[3]], (frames, rows, columns), offsets, size, told))
    if zlib.crc32(movie.tobytes()) != content:
        raise DataError(f"this program reads the file, but not as what was packed; {AGAIN}")
    return movie


def known_before(offset: Offset) -> bool:
    """Whether the token there is read before.

    Example:
        >>> known_before((-1, 5, 5)), known_before((0, -1, 3)), known_before((0, 0, 1))
        (True, True, False)
    """
    return offset < (0, 0, 0)
