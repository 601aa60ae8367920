"""Movies as files and as tokens: each distinct colour is one."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64, Integer, UInt8
from PIL import Image, ImageSequence, UnidentifiedImageError

from renorm.errors import DataError, RecipeError

__all__ = ["Palette", "read_movie", "write_gif"]

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}
LUMA = (299, 587, 114)  # of red, green, blue, in thousandths


@dataclass(frozen=True)
class Palette:
    """All colours of a movie, dark to bright; a token is a place in it, so nothing is lost.

    Attributes:
        colours: (colours, 1) grey or (colours, 3) red, green, blue.

    Example:
        >>> movie = np.array([[[[9], [0]]], [[[0], [200]]]], np.uint8)
        >>> palette = Palette.of(movie)
        >>> palette.tokens(movie).tolist(), len(palette)
        ([[[1, 0]], [[0, 2]]], 3)
        >>> bool((palette.movie(palette.tokens(movie)) == movie).all())
        True
    """

    colours: UInt8[np.ndarray, "colours channels"]

    @classmethod
    def of(cls, movie: UInt8[np.ndarray, "frames rows columns channels"]) -> "Palette":
        """The colours of a movie."""
        colours = np.unique(movie.reshape(-1, movie.shape[-1]), axis=0)
        return cls(colours[np.argsort(_luma(colours), kind="stable")])

    def __len__(self) -> int:
        return len(self.colours)

    def tokens(
        self, movie: UInt8[np.ndarray, "frames rows columns channels"]
    ) -> Int64[np.ndarray, "frames rows columns"]:
        """The place of each pixel's colour.

        Raises:
            DataError: If the movie has a colour that is not here.
        """
        order = np.argsort(_codes(self.colours))
        known, asked = _codes(self.colours)[order], _codes(movie)
        place = np.searchsorted(known, asked).clip(max=len(known) - 1)
        if (known[place] != asked).any():
            raise DataError(f"the movie has colours that are not among the {len(self)} of this palette")
        return order[place]

    def movie(
        self, tokens: Integer[np.ndarray, "frames rows columns"]
    ) -> UInt8[np.ndarray, "frames rows columns channels"]:
        """The pixels of tokens."""
        return self.colours[tokens]


def read_movie(path: Path) -> UInt8[np.ndarray, "frames rows columns channels"]:
    """Frames of a movie, grey (one channel) where all of it is.

    Args:
        path: A GIF or another file of several frames, a folder of pictures in the order of their names, or an ``.npy``
            or ``.npz`` array of bytes, (frames, rows, columns) or (frames, rows, columns, 3).

    Raises:
        DataError: If there is no such file, no frame in it, or frames of several sizes.
    """
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
        frames = [_opened(file)[0] for file in files]
    elif path.suffix in (".npy", ".npz"):
        return _from_array(path)
    else:
        frames = _opened(path)
    if not frames:
        raise DataError(f"{path} holds no picture ({', '.join(sorted(SUFFIXES))}); name a folder that does")
    if len({frame.shape for frame in frames}) > 1:
        raise DataError(f"all frames of {path} need one size, got {sorted({f.shape[:2] for f in frames})}")
    movie = np.stack(frames)
    grey = (movie == movie[..., :1]).all()
    return movie[..., :1] if grey else movie


def write_gif(
    path: Path, movie: UInt8[np.ndarray, "frames rows columns channels"], *, scale: int = 1, seconds: float = 0.08
) -> None:
    """Frames as a GIF that begins again and again; colours beyond 256 are drawn with the nearest.

    Raises:
        RecipeError: If there is no frame, or the scale is below 1.
    """
    if not len(movie) or scale < 1:
        raise RecipeError(f"a GIF needs one frame or more and scale >= 1, got {len(movie)} and {scale}")
    large = movie.repeat(scale, axis=1).repeat(scale, axis=2)
    if large.shape[-1] == 1:
        pictures = [Image.fromarray(frame[..., 0]) for frame in large]
    else:
        pictures = [Image.fromarray(frame) for frame in large]
    pictures[0].save(
        path, format="GIF", save_all=True, append_images=pictures[1:], duration=int(1000 * seconds), loop=0
    )


def _opened(path: Path) -> list[np.ndarray]:
    try:
        with Image.open(path) as image:
            return [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(image)]
    except FileNotFoundError:
        raise DataError(f"there is no movie {path}") from None
    except (UnidentifiedImageError, OSError) as error:
        raise DataError(
            f"{path} is no picture or movie that can be read ({error}); give a GIF, or its frames"
        ) from None


def _from_array(path: Path) -> np.ndarray:
    try:
        found = np.load(path, allow_pickle=False)
        array = found if isinstance(found, np.ndarray) else found[found.files[0]]
    except FileNotFoundError:
        raise DataError(f"there is no movie {path}") from None
    except (OSError, ValueError, IndexError, KeyError) as error:
        raise DataError(f"{path} is no array that can be read ({error})") from None
    array = array[..., None] if array.ndim == 3 else array
    if array.ndim != 4 or array.shape[-1] not in (1, 3) or array.dtype != np.uint8 or not array.size:
        raise DataError(
            f"{path} must hold bytes, (frames, rows, columns) or (frames, rows, columns, 3), got "
            f"{array.dtype} {array.shape}"
        )
    return array


def _luma(colours: np.ndarray) -> np.ndarray:
    return colours.astype(np.int64) @ np.array(LUMA if colours.shape[1] == 3 else (1000,))


def _codes(colours: np.ndarray) -> np.ndarray:
    """Each colour as one number."""
    return colours.astype(np.int64) @ (256 ** np.arange(colours.shape[-1]))
