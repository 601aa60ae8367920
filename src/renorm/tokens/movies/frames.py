"""Movies as files and as tokens: each distinct colour is one."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64, Integer, Shaped, UInt8
from PIL import Image, ImageSequence

from renorm.data.npz import read_npy, read_npz
from renorm.errors import DataError, RecipeError

__all__ = ["Palette", "check_movie", "read_movie", "write_gif"]

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}
DEEP = ("I", "F")
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
        """The colours of a movie.

        Raises:
            DataError: If it is not frames of bytes, grey or of three channels.
        """
        check_movie(movie, "a movie")
        colours = np.unique(movie.reshape(-1, movie.shape[-1]), axis=0)
        return cls(colours[np.argsort(_luma(colours), kind="stable")])

    def __len__(self) -> int:
        return len(self.colours)

    def tokens(
        self, movie: UInt8[np.ndarray, "frames rows columns channels"]
    ) -> Int64[np.ndarray, "frames rows columns"]:
        """The place of each pixel's colour; grey pixels have three equal channels where colours have three.

        Raises:
            DataError: If the movie has a colour that is not here.
        """
        channels = self.colours.shape[1]
        if movie.shape[-1] == 1 and channels == 3:
            movie = movie.repeat(3, axis=-1)
        if movie.shape[-1] != channels:
            raise DataError(f"this palette has {channels} channels, the movie {movie.shape[-1]}")
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

    What is transparent is white. A frame of a GIF that lasts several times as long as the shortest one is as many
    frames: equal frames in a row are kept so.

    Args:
        path: A GIF or another file of several frames, a folder of pictures in the order of their names, or an ``.npy``
            or ``.npz`` array of bytes, (frames, rows, columns) or (frames, rows, columns, 3).

    Raises:
        DataError: If there is no such file, no frame in it, frames of several sizes, or values that are no bytes.
    """
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
        frames = [_opened(file)[0] for file in files]
    elif path.suffix in (".npy", ".npz"):
        return _grey(_from_array(path))
    else:
        frames = _opened(path)
    if not frames:
        raise DataError(f"{path} holds no picture ({', '.join(sorted(SUFFIXES))}); name a folder that does")
    if len({frame.shape for frame in frames}) > 1:
        raise DataError(f"all frames of {path} need one size, got {sorted({f.shape[:2] for f in frames})}")
    return _grey(np.stack(frames))


def check_movie(movie: Shaped[np.ndarray, "..."], what: str) -> None:
    """Refuse what is no movie.

    Raises:
        DataError: If it is not (frames, rows, columns, 1 or 3) bytes, or there are none.
    """
    if movie.ndim != 4 or movie.shape[-1] not in (1, 3) or movie.dtype != np.uint8 or not movie.size:
        raise DataError(
            f"{what} must hold bytes, (frames, rows, columns, 1 or 3), got {movie.dtype} of shape {movie.shape}"
        )


def write_gif(
    path: Path, movie: UInt8[np.ndarray, "frames rows columns channels"], *, scale: int = 1, seconds: float = 0.08
) -> None:
    """Frames as a GIF that begins again and again.

    A GIF is for the eye: of more than 256 colours in a frame it draws the nearest, and equal frames in a row are one
    that lasts longer.

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
    if not path.is_file():
        raise DataError(f"there is no movie {path}")
    frames, lasts = list[np.ndarray](), list[float]()
    try:
        with Image.open(path) as image:
            for frame in ImageSequence.Iterator(image):
                if frame.mode in DEEP or frame.mode.startswith("I;"):
                    raise DataError(f"{path} has more than 8 bits a channel (mode {frame.mode}); give bytes")
                frames.append(_opaque(frame))
                lasts.append(float(frame.info.get("duration", 0) or 0))
    except (DataError, MemoryError):
        raise
    except Exception as error:  # a damaged picture may raise anything
        raise DataError(f"{path} is no picture or movie that can be read ({error}); give a GIF or frames") from None
    shortest = min(lasts, default=0)
    times = [round(own / shortest) if shortest > 0 else 1 for own in lasts]
    return [frame for frame, often in zip(frames, times, strict=True) for _ in range(often)]


def _opaque(frame: Image.Image) -> np.ndarray:
    """Red, green and blue on white."""
    if not frame.has_transparency_data:
        return np.asarray(frame.convert("RGB"))
    clear = frame.convert("RGBA")
    return np.asarray(Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear).convert("RGB"))


def _grey(movie: np.ndarray) -> np.ndarray:
    """One channel where all are equal."""
    return movie[..., :1] if (movie == movie[..., :1]).all() else movie


def _from_array(path: Path) -> np.ndarray:
    if not path.is_file():
        raise DataError(f"there is no movie {path}")
    if path.suffix == ".npy":
        array = read_npy(path)
    else:
        arrays = read_npz(path)
        if len(arrays) != 1:
            raise DataError(f"{path} must hold a movie as its only array, got {', '.join(arrays) or 'none'}")
        (array,) = arrays.values()
    array = array[..., None] if array.ndim == 3 else array
    check_movie(array, str(path))
    return array


def _luma(colours: np.ndarray) -> np.ndarray:
    return colours.astype(np.int64) @ np.array(LUMA if colours.shape[1] == 3 else (1000,))


def _codes(colours: np.ndarray) -> np.ndarray:
    """Each colour as one number."""
    return colours.astype(np.int64) @ (256 ** np.arange(colours.shape[-1]))
