"""The file of a coded stack of images: what it holds, and every way in which it can be wrong."""

import struct
import zlib
from dataclasses import dataclass

from renorm.errors import DataError

__all__ = ["MAGIC", "VERSION", "Container", "read_container", "write_container"]

MAGIC = b"\x89RGT"
"""Not a text file (first byte), and not changed by a transfer that mends line ends."""

VERSION = 1
HEADER = struct.Struct("<4sBBH16sIQI")
MAX_AXES = 4
AGAIN = "take another copy of the file, or code the images again"


@dataclass(frozen=True)
class Container:
    """What a coded file holds.

    Attributes:
        model: First 16 bytes of the SHA-256 of the model that coded it.
        shape: Sites of one image along each axis; 1 to 4 axes.
        number: Number of images.
        block: Images coded together, value by value.
        values_crc: CRC-32 of the decoded values.
        payload: Words of the range coder.
    """

    model: bytes
    shape: tuple[int, ...]
    number: int
    block: int
    values_crc: int
    payload: bytes


def write_container(held: Container) -> bytes:
    """The bytes of a file; ``docs/format.md`` says what each means.

    Example:
        >>> data = write_container(Container(bytes(16), (28, 28), 1, 1024, 0, b"word"))
        >>> len(data), read_container(data).shape
        (56, (28, 28))

    Raises:
        DataError: If a number is too large for its place in the file.
    """
    try:
        head = HEADER.pack(
            MAGIC,
            VERSION,
            len(held.shape),
            held.block,
            held.model,
            held.number,
            len(held.payload),
            held.values_crc,
        ) + struct.pack(f"<{len(held.shape)}I", *held.shape)
    except struct.error as error:
        raise DataError(f"a file has room for 2^32 - 1 images and sites ({error}): split the images") from None
    body = head + held.payload
    return body + struct.pack("<I", zlib.crc32(body))


def read_container(data: bytes) -> Container:
    """What the bytes of a file hold, if all of them are as they were written.

    Raises:
        DataError: If the file is empty, foreign, of another version, cut short or longer than it says, or changed.
    """
    _check_kind(data)
    least = HEADER.size + 4
    if len(data) < least:
        raise DataError(f"a coded file has at least {least} bytes, this one has {len(data)}: it was cut short; {AGAIN}")
    _, _, axes, block, model, number, length, values_crc = HEADER.unpack_from(data)
    whole = HEADER.size + 4 * axes + length + 4
    if len(data) != whole:
        raise DataError(
            f"the file's own header says {whole} bytes, this one has {len(data)}: it was cut short or added to; {AGAIN}"
        )
    found, stated = zlib.crc32(data[:-4]), struct.unpack_from("<I", data, len(data) - 4)[0]
    if found != stated:
        raise DataError(
            f"the CRC-32 of the bytes must be the one at the file's end, {stated:08x}, got {found:08x}: a byte was"
            f" changed on the way; {AGAIN}"
        )
    shape = struct.unpack_from(f"<{axes}I", data, HEADER.size)
    if not 1 <= axes <= MAX_AXES or block == 0 or length % 4:
        raise DataError(
            f"a coded file has 1 to {MAX_AXES} axes, blocks of at least one image and whole 32-bit words, got {axes}"
            f" axes, blocks of {block} and {length} bytes: its writer was wrong; code the images again"
        )
    return Container(model, shape, number, block, values_crc, data[HEADER.size + 4 * axes : -4])


def _check_kind(data: bytes) -> None:
    if not data:
        raise DataError(f"a coded file holds a header, this one is empty: the writing stopped before it began; {AGAIN}")
    if data[:4] != MAGIC[: len(data)]:
        raise DataError(
            f"a coded file begins with {MAGIC!r}, this one with {bytes(data[:4])!r}: it is a file of another kind;"
            " give one that `renorm compress` wrote"
        )
    if len(data) > 4 and data[4] != VERSION:
        raise DataError(
            f"this program reads files of version {VERSION}, this one is of version {data[4]}: another version"
            " of renorm wrote it; read it with that one"
        )
