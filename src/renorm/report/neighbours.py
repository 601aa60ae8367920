"""Samples beside the training images nearest to them: has the model learned the law, or the images?"""

import math
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from renorm.errors import DataError
from renorm.report.figures import CELL, field_strip, numeral
from renorm.report.markup import figure, image, table
from renorm.report.reading import arrays_of, mapping

__all__ = ["nearest_training_images"]

PLACES = ("1st", "2nd", "3rd", "4th", "5th", "6th", "7th", "8th")


def nearest_training_images(run: Path) -> str:
    """The section: what the distances say, and some samples, each in a row with its nearest training images.

    Raises:
        DataError: If ``samples/neighbours.npz`` is missing or damaged.
    """
    arrays = arrays_of(run, "samples/neighbours.npz", "x", "nearest", "distance", "test_distance")
    notes = table(mapping(run, "measures.json", quiet=True).get("notes"))
    said = str(notes.get("memorised", notes.get("memorisation", "")))
    parts = [f"<p>{escape(said[0].upper() + said[1:])}.</p>"] if said else []
    caption = (
        "Each row: a sample, then the training images nearest to it, value by value. In the upper half stand the "
        f"samples most like a copy, in the lower half others. {_distances(arrays)}"
    )
    figures = [figure(image(_rows(arrays["x"], arrays["nearest"]), caption, dense=True), caption)]
    if "nearest_features" in arrays:
        among = f" among {numeral(int(arrays['among']))} drawn at random" if "among" in arrays else ""
        caption = f"The same samples, and the training images nearest in features{among}."
        figures.append(figure(image(_rows(arrays["x"], arrays["nearest_features"]), caption, dense=True), caption))
    return "\n".join([*parts, '<div class="pair">', *figures, "</div>"])


def _rows(x: np.ndarray, nearest: np.ndarray) -> Image.Image:
    """A strip: the sample, then its neighbours."""
    if nearest.ndim != x.ndim + 1 or len(nearest) != len(x) or nearest.shape[2:] != x.shape[1:]:
        raise DataError(f"neighbours must be (samples, places, channel, *sites), got shape {nearest.shape}")
    places = PLACES[: nearest.shape[1]]
    rows = np.concatenate([x[:, None], nearest[:, : len(places)]], axis=1)
    scale = 2 * math.ceil(CELL / max(x.shape[2:]))
    return field_strip(rows, ["sample", *places], scale=scale, gap=8)


def _distances(arrays: dict[str, np.ndarray]) -> str:
    first = np.ravel(arrays["distance"].reshape(len(arrays["x"]), -1)[:, 0]).astype(float)
    low, high, fresh = (
        numeral(float(f"{first.min():.2g}")),
        numeral(float(f"{first.max():.2g}")),
        arrays["test_distance"],
    )
    return (
        f"The nearest lie {low} to {high} away, root mean square of a value in [0, 1]; from a test image it is "
        f"{numeral(float(f'{float(fresh):.2g}'))}, the median."
    )
