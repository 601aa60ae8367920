"""Two movies of 64 frames, 64 x 64: learned exactly, completed from one quadrant, and written in few bytes.

``shapes`` are a disc and a square that fly; ``photograph`` is a window that moves over scikit-learn's picture of a
temple, grey, one site a frame. Completion sees the upper left quadrant of 16 frames of the movie that was learned, and
nothing else. Bytes are whole files: a packed movie with its colours and header; gzip and xz of one byte a pixel, the
colours not counted; and a PNG for each frame. A packed movie is read back and compared.
"""

import gzip
import io
import lzma
from typing import Any

import numpy as np
from PIL import Image

from renorm.bench.result import Result
from renorm.tokens.movies.frames import Palette
from renorm.tokens.movies.movie_file import pack_movie, unpack_movie
from renorm.tokens.movies.movie_model import MovieModel
from renorm.tokens.movies.shapes import two_shapes

__all__ = ["panned", "run"]

FRAMES, EDGE = 64, 64
ROW, COLUMN = 100, 100  # of the photograph, where the window begins
SEEN = slice(20, 36)


def run(seed: int) -> Result:
    """Both movies."""
    movies = {"shapes": two_shapes(FRAMES, EDGE), "photograph": panned()}
    rows = [_row(name, movie) for name, movie in movies.items()]
    figures: dict[str, float] = {"exact": float(all(row["regenerated"] and row["read_back"] for row in rows))}
    for row in rows:
        called = "" if row["movie"] == "shapes" else f"_{row['movie']}"
        figures[f"bits_ratio_to_gzip{called}"] = row["bytes"] / row["bytes_gzip"]
        figures[f"bits_ratio_to_frames{called}"] = row["bytes"] / row["bytes_png_frames"]
        figures[f"completed{called}"] = row["completed"]
    return Result(figures, rows, (seed,))


def panned() -> np.ndarray:
    """A window that moves over a photograph."""
    from sklearn.datasets import load_sample_image

    picture = load_sample_image("china.jpg").mean(axis=2).astype(np.uint8)
    return np.stack([picture[ROW : ROW + EDGE, COLUMN + t : COLUMN + t + EDGE, None] for t in range(FRAMES)])


def _row(name: str, movie: np.ndarray) -> dict[str, Any]:
    model = MovieModel.fit(movie)
    known = np.zeros(movie.shape[:3], bool)
    known[:, : EDGE // 2, : EDGE // 2] = True
    hidden = ~known[SEEN]
    completed = model.completed(movie[SEEN], known[SEEN])
    data = pack_movie(movie)
    tokens = Palette.of(movie).tokens(movie).astype(np.uint8)
    return {
        "movie": name,
        "colours": len(model.palette),
        "states": model.states,
        "regenerated": bool((model.regenerated() == movie).all()),
        "completed": float((completed == movie[SEEN]).all(axis=-1)[hidden].mean()),
        "bytes": len(data),
        "read_back": bool((unpack_movie(data) == movie).all()),
        "bytes_gzip": len(gzip.compress(tokens.tobytes(), 9)),
        "bytes_xz": len(lzma.compress(tokens.tobytes(), preset=9)),
        "bytes_png_frames": sum(_png(frame) for frame in movie),
        "bytes_raw": movie.size,
    }


def _png(frame: np.ndarray) -> int:
    """Bytes of a frame by itself."""
    file = io.BytesIO()
    Image.fromarray(frame[..., 0] if frame.shape[-1] == 1 else frame).save(file, format="PNG", optimize=True)
    return file.tell()
