"""`renorm movie`: learn a movie, tell it again, generate, complete, and pack it; or unpack one."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from renorm.cli.options import out_file
from renorm.cli.output import say, table
from renorm.errors import RecipeError

if TYPE_CHECKING:
    import numpy as np

__all__ = ["movie"]

LARGE = 256  # pixels that a picture is made large enough for
COMPLETED = 128  # frames, at most
VEIL = 0.25  # how much is seen of what is hidden


def movie(options: argparse.Namespace) -> None:
    if Path(options.movie).suffix == ".rnv":
        return _unpack(options)
    import numpy as np

    from renorm.fit.checkpoint import atomic
    from renorm.fit.progress import Counted
    from renorm.recipes.folder import machine, write_json
    from renorm.tokens.codec.range_coder import RangeEncoder
    from renorm.tokens.movies.frames import read_movie, write_gif
    from renorm.tokens.movies.movie_file import pack_movie
    from renorm.tokens.movies.movie_model import MovieModel
    from renorm.tokens.movies.shapes import two_shapes

    if options.frames < 1:
        raise RecipeError(f"--frames must be >= 1, got {options.frames}")
    RangeEncoder()  # refuses here, not after all the work
    edges = _edges(options.edges)
    source = Path(options.movie)
    shown = two_shapes() if options.movie == "shapes" else read_movie(source)
    model = MovieModel.fit(shown, edges=edges)
    generator = np.random.default_rng(options.seed)
    known = np.zeros(shown.shape[:3], bool)
    known[:, : -(-shown.shape[1] // 2), : -(-shown.shape[2] // 2)] = True
    part = slice(0, COMPLETED)
    completed, hidden = model.completed(shown[part], known[part]), ~known[part]
    told = {
        "frames": len(shown),
        "colours": len(model.palette),
        "states": model.states,
        "completed_frames": len(completed),
        "exact": bool((model.regenerated() == shown).all()),
        "completed": float((completed == shown[part]).all(axis=-1)[hidden].mean()) if hidden.any() else 1.0,
        "bytes_raw": shown.size,
    }
    with Counted("pack", "frames", shown=not options.quiet) as counted:
        data = pack_movie(shown, counted)
    told["bytes"] = len(data)
    out = Path(options.out or f"runs/movie-{source.stem}")
    out.mkdir(parents=True, exist_ok=True)
    with atomic(out / "movie.rnv") as temporary:
        temporary.write_bytes(data)
    scale = max(1, LARGE // max(shown.shape[1:3]))
    pale = (255 - VEIL * (255 - shown[part].astype(float))).astype(np.uint8)
    veiled = np.where(known[part][..., None], shown[part], pale)
    pictures = {
        "regenerated": model.regenerated(),
        "completed": _beside(shown[part], veiled, completed),
        "generated": model.generated(options.frames, generator),
    }
    for name, frames in pictures.items():
        with atomic(out / f"{name}.gif") as temporary:
            write_gif(temporary, frames, scale=scale)
    write_json(out / "result.json", {"movie": options.movie, "seed": options.seed, **told, "machine": machine()})
    say(options, {"folder": str(out), **told}, f"{table(told)}\nwrote {out}: {', '.join(pictures)}.gif, movie.rnv")


def _unpack(options: argparse.Namespace) -> None:
    import numpy as np

    from renorm.fit.checkpoint import atomic
    from renorm.fit.progress import Counted
    from renorm.tokens.movies.frames import write_gif
    from renorm.tokens.movies.movie_file import unpack_movie

    source = Path(options.movie)
    out = out_file(options, source.with_suffix(".npz"), ".npz", ".gif")
    with Counted("unpack", "frames", shown=not options.quiet) as counted:
        found = unpack_movie(source.read_bytes(), counted)
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic(out) as temporary:
        if out.suffix == ".gif":
            write_gif(temporary, found)
        else:
            with temporary.open("wb") as file:
                np.savez_compressed(file, movie=found)
    say(options, {"frames": len(found), "file": str(out)}, f"wrote {out}: {len(found)} frames")


def _edges(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise RecipeError(f"--edges are whole numbers by commas, such as 8,4, got '{text}'")
    return [int(part) for part in parts]


def _beside(*movies: "np.ndarray") -> "np.ndarray":
    """Side by side, a white line between."""
    import numpy as np

    gap = np.full((*movies[0].shape[:2], 2, movies[0].shape[3]), 255, np.uint8)
    return np.concatenate([part for own in movies for part in (gap, own)][1:], axis=2)
