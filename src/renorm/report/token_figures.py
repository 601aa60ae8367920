"""Pictures of a token hierarchy and their captions: classes, tokens, evidence on the sites of an image, completions.

``classes_told``, ``sheets_of_tokens``, ... read the arrays that ``renorm measure`` left in a run folder.
"""

import math
import re
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int, Real, Shaped
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator
from PIL import Image, ImageColor, ImageDraw

from renorm.errors import DataError
from renorm.report.figures import CELL, PALETTE, ValueRange, field_grid, numeral, style, svg
from renorm.report.figures import _font as font

__all__ = [
    "AGAINST",
    "classes_told",
    "confusion_figure",
    "evidence_picture",
    "field_rows",
    "path_of_image",
    "reliability_figure",
    "rows_completed",
    "rows_of_classes",
    "sheets_of_tokens",
]

AGAINST = "#b5562c"
"""What speaks against; what speaks for has the accent."""

CLASSES = 32  # most classes whose confusions are drawn
PAPER, SHADE = 0.95, 0.45  # ground of the evidence; how much the image darkens it
TOKEN = 48  # edge of a token's picture, in pixels, about

Arrays = Mapping[str, np.ndarray]
_INK, _QUIET, _ACCENT = (PALETTE[role] for role in ("ink", "quiet", "accent"))
_LABEL = "#7b838d"  # reads on white and on black


def reliability_figure(
    count: Real[np.ndarray, " bins"], confidence: Float[np.ndarray, " bins"], accuracy: Float[np.ndarray, " bins"]
) -> str:
    r"""How often the class was right where the model was so sure of it, and how often it was, as SVG.

    $$ \mathrm{error} = \sqrt{a (1 - a) / n} $$

    is the standard error of the accuracy a of a bin of n images. A model that knows how sure it may be lies on the
    diagonal.

    Args:
        count: Images in each bin of confidence.
        confidence: Mean probability of the class that was chosen.
        accuracy: Share of the images whose class was right.

    Raises:
        DataError: If the lists differ in length, or no bin holds an image.
    """
    if not len(count) == len(confidence) == len(accuracy) or not (count > 0).any():
        raise DataError(
            f"a reliability diagram needs lists of one length and an image, got {len(count)} counts, "
            f"{len(confidence)} confidences and {len(accuracy)} accuracies"
        )
    figure = Figure(figsize=(5.0, 4.4), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    full = count > 0
    n, sure, right = count[full], confidence[full], accuracy[full]
    above.plot([0, 1], [0, 1], color=_INK, linewidth=0.8)
    error = np.sqrt(np.clip(right * (1 - right), 0, None) / n)
    above.errorbar(sure, right, error, fmt="o", color=_ACCENT, markersize=4, elinewidth=1)
    edges = np.linspace(0, 1, len(count) + 1)
    width = 0.8 / len(count)
    below.bar((edges[1:] + edges[:-1])[full] / 2, n, width=width, color=_QUIET, alpha=0.6)
    below.set_yscale("log")
    style(above, "", "accuracy")
    style(below, "probability of the chosen class", "images")
    above.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.05), yticks=[0, 0.5, 1])
    below.set(xticks=[0, 0.25, 0.5, 0.75, 1], ylim=(0.7, 2 * n.max()))
    below.yaxis.set_major_locator(LogLocator(numticks=4))
    for axis in (below.yaxis, above.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: numeral(float(value))))
    return svg(figure, "reliability")


def confusion_figure(confusion: Int[np.ndarray, "classes classes"], classes: Sequence[str]) -> str:
    """Counts of images by true class (rows) and predicted class (columns), as SVG; errors are tinted by their share.

    Raises:
        DataError: If there are more than 32 classes, or their number is another one.
    """
    number = len(confusion)
    if len(classes) != number or not 1 <= number <= CLASSES:
        raise DataError(f"confusions are drawn for 1 ... {CLASSES} classes, got {number} and {len(classes)} labels")
    edge = max(3.2, 0.36 * number + 0.8)
    figure = Figure(figsize=(edge, edge), layout="constrained")
    axes = figure.add_subplot()
    share = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    wrong = share * (1 - np.eye(number))
    for true, predicted in np.argwhere(confusion > 0).tolist():
        right = true == predicted
        strength = 0.12 if right else 0.15 + 0.6 * wrong[true, predicted] / wrong.max()
        color = _QUIET if right else _ACCENT
        axes.add_patch(Rectangle((predicted - 0.48, true - 0.48), 0.96, 0.96, color=color, alpha=strength, linewidth=0))
        text = numeral(int(confusion[true, predicted]))
        axes.text(predicted, true, text, ha="center", va="center_baseline", color=_INK, fontsize=8.5)
    style(axes, "predicted class", "true class")
    axes.set(xlim=(-0.5, number - 0.5), ylim=(number - 0.5, -0.5), aspect="equal")
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())
        axis.set_minor_formatter(NullFormatter())
    axes.set_xticks(range(number), classes)
    axes.set_yticks(range(number), classes)
    axes.xaxis.set_label_position("top")
    axes.xaxis.tick_top()
    axes.tick_params(colors=_QUIET, length=0)
    return svg(figure, "confusion")


def field_rows(
    rows: Shaped[np.ndarray, "rows columns channel *sites"],
    labels: Sequence[str],
    *,
    value_range: ValueRange = (0.0, 1.0),
    scale: int | None = None,
    gap: int = 4,
) -> Image.Image:
    """Rows of fields, each row with its label on the left; sites that are not finite show a grey ground.

    Raises:
        DataError: If there is not one label for each row; else as `field_grid`.

    Example:
        >>> field_rows(np.zeros((2, 3, 1, 32, 32)), ["seen", "true"]).size
        (258, 132)
    """
    if rows.ndim < 4 or len(rows) != len(labels) or not len(labels):
        raise DataError(f"rows of fields need one label for each row, got {len(labels)} for shape {rows.shape}")
    flat = rows.reshape(-1, *rows.shape[2:])
    sheet = field_grid(flat, columns=rows.shape[1], value_range=value_range, scale=scale, gap=gap)
    height = (sheet.height + gap) // len(rows)
    width = (sheet.width + gap) // rows.shape[1]
    ground = Image.new("RGBA", sheet.size)
    tint = (*ImageColor.getrgb(_QUIET), 56)
    draw = ImageDraw.Draw(ground)
    for row in range(len(rows)):
        for column in range(rows.shape[1]):
            corner = (column * width, row * height)
            draw.rectangle([corner, (corner[0] + width - gap - 1, corner[1] + height - gap - 1)], fill=tint)
    ground.alpha_composite(sheet)
    size = max(12, min(24, height // 4))
    letters = font(size)
    margin = math.ceil(max(letters.getlength(label) for label in labels)) + size
    picture = Image.new("RGBA", (margin + sheet.width, sheet.height))
    picture.paste(ground, (margin, 0))
    pen = ImageDraw.Draw(picture)
    for row, label in enumerate(labels):
        at = (margin - size / 2, row * height + (height - gap) / 2)
        pen.text(at, label, fill=_LABEL, font=letters, anchor="rm")
    return picture


def evidence_picture(
    images: Float[np.ndarray, "members channel height width"],
    sites: Float[np.ndarray, "members rows columns"],
    *,
    scale: int | None = None,
    gap: int = 8,
) -> Image.Image:
    """Each image, and beside it what its sites say: accent for a class, rust against it, by the strength of it.

    Full colour is the strongest site of all images.

    Raises:
        DataError: If images and sites do not fit.
    """
    if images.shape[0] != sites.shape[0] or images.shape[2:] != sites.shape[1:] or not images.size:
        raise DataError(f"evidence needs sites for each image, got {sites.shape} for images of {images.shape}")
    grey = np.clip(np.nan_to_num(images.mean(axis=1)), 0, 1)[..., None]
    share = np.abs(sites)[..., None] / max(float(np.abs(sites).max()), 1e-12)
    accent, rust = (np.array(ImageColor.getrgb(color)) / 255 for color in (PALETTE["accent"], AGAINST))
    hue = np.where(sites[..., None] >= 0, accent, rust)
    tinted = (1 - SHADE * grey) * (PAPER * (1 - share) + share * hue)  # the image shades its evidence
    pairs = np.stack([grey.repeat(3, axis=-1), tinted], axis=1).reshape(-1, *tinted.shape[1:])
    scale = scale or max(1, round(2 * CELL / max(grey.shape[1:3])))
    fields = np.clip(pairs, 0, 1).transpose(0, 3, 1, 2)
    if fields.shape[2] == 1:  # a chain: as a band that can be seen
        fields = fields.repeat(math.ceil(fields.shape[3] / 8), axis=2)
    return field_grid(fields, columns=2, value_range=(0.0, 1.0), scale=scale, gap=gap)


def classes_told(arrays: Arrays) -> list[tuple[str, str, str, str]]:
    """How well classes are told apart: SVG, name, description and caption of each figure.

    Args:
        arrays: ``count``, ``confidence``, ``accuracy`` of each bin, ``confusion`` and ``classes``.

    Raises:
        DataError: If an array is missing or of another shape.
    """
    _require_shapes(arrays, count="b", confidence="b", accuracy="b", confusion="c c", classes="c")
    count, sure, right = (arrays[key].astype(np.float64) for key in ("count", "confidence", "accuracy"))
    svg = reliability_figure(count, sure, right)
    accuracy, error = (float((count * part).sum() / count.sum()) for part in (right, np.abs(right - sure)))
    caption = (
        f"Accuracy against the probability of the chosen class, on {numeral(int(count.sum()))} test images: accuracy "
        f"{numeral(accuracy)}, calibration error {numeral(error)}. Bars are standard errors; below, how many images."
    )
    found = [(svg, "reliability", "Reliability diagram", caption)]
    names = [str(name) for name in arrays["classes"].tolist()]
    if len(names) <= CLASSES:
        caption = "Test images by true and predicted class; errors are tinted by their share of the true class."
        svg = confusion_figure(arrays["confusion"].astype(np.int64), names)
        found.append((svg, "confusion", "Confusion matrix", caption))
    return found


def sheets_of_tokens(arrays: Arrays) -> list[tuple[Image.Image, str]]:
    """A contact sheet of the tokens of each level, and its caption.

    Args:
        arrays: ``level1``, ``uses1``, ``level2``, ...

    Raises:
        DataError: If an array is missing or of another shape.
    """
    found = []
    for level in sorted(int(key[5:]) for key in arrays if re.fullmatch(r"level\d+", key)):
        _require_shapes(arrays, **{f"level{level}": "n c h w", f"uses{level}": "n"})
        x, uses = arrays[f"level{level}"], arrays[f"uses{level}"].astype(np.float64)
        number = f"the {len(x)} most used tokens" if len(x) > 1 else "the only token"
        caption = (
            f"Level {level}: {number}{_whose(arrays)}, row by row; the first is expected {numeral(float(uses[0]))} "
            f"times in an image, the last {numeral(float(uses[-1]))} times."
        )
        scale = max(1, round(TOKEN / max(x.shape[2:])))
        found.append((field_grid(x, value_range=(0.0, 1.0), scale=scale, gap=4), caption))
    if not found:
        raise DataError("the file of tokens holds no pictures of any level")
    return found


def rows_of_classes(arrays: Arrays) -> tuple[Image.Image, str]:
    """The tokens that speak most for each class, a row for each, and a caption.

    Args:
        arrays: ``speaking``, ``nats`` and ``classes``.

    Raises:
        DataError: If an array is missing or of another shape.
    """
    _require_shapes(arrays, speaking="k n c h w", nats="k n", classes="k")
    x, nats = arrays["speaking"], arrays["nats"]
    caption = (
        f"Tokens{_whose(arrays)} that speak most for each class, the loudest first, where they stand: the largest "
        f"p(z, class) · (ln p(z | class) − ln p(z)), from {numeral(float(nats.max()))} to "
        f"{numeral(float(nats.min()))} nats."
    )
    names = [str(name) for name in arrays["classes"].tolist()]
    return field_rows(x, names, scale=_dense(x), gap=8), caption


def path_of_image(arrays: Arrays) -> tuple[Image.Image, str]:
    """The evidence of one image's sites, and a caption with its sums.

    Args:
        arrays: ``images``, ``sites``, ``nats`` (tokens, rest, prior) of each member, ``posterior``, ``classes``, and
            ``label`` if known.

    Raises:
        DataError: If an array is missing or of another shape.
    """
    _require_shapes(arrays, images="m c h w", sites="m h w", nats="m part", posterior="k", classes="k")
    sites, p = arrays["sites"].astype(np.float64), arrays["posterior"]
    best = int(p.argmax())
    sure = "above 0.9999" if p[best] > 0.9999 else numeral(round(float(p[best]), 4))
    truth = f", true class {arrays['label'].item()}" if "label" in arrays and arrays["label"].size == 1 else ""
    said, cost = (
        " + ".join(numeral(round(float(value), 2)) for value in values).replace("+ −", "− ")
        for values in arrays["nats"].T[:2]
    )
    caption = (
        f"What the sites say for class {arrays['classes'].tolist()[best]} (probability {sure}{truth}) against the mean "
        f"of the other classes: teal for it, rust against it; full colour is {numeral(float(np.abs(sites).max()))} "
        f"nats a site. All tokens say {said} nats; fitting the hidden tokens above adds {cost}."
    )
    return evidence_picture(arrays["images"].astype(np.float32), sites), caption


def rows_completed(arrays: Arrays, value_range: ValueRange) -> tuple[Image.Image, str]:
    """Images as seen, as completed by draws, and as they are, and a caption.

    Args:
        arrays: ``seen`` (NaN where hidden), ``draws`` and ``true``.
        value_range: Values of black and white.

    Raises:
        DataError: If an array is missing or of another shape.
    """
    sites = " ".join(f"s{axis}" for axis in range(arrays["true"].ndim - 2)) if "true" in arrays else "s"
    _require_shapes(arrays, seen=f"n c {sites}", draws=f"k n c {sites}", true=f"n c {sites}")
    rows = np.concatenate([arrays["seen"][None], arrays["draws"], arrays["true"][None]])
    labels = ["seen", *["drawn"] * len(arrays["draws"]), "true"]
    caption = "Test images of which a half is hidden, completed by draws from the law given the other half."
    return field_rows(rows, labels, value_range=value_range, scale=_dense(rows), gap=8), caption


def _require_shapes(arrays: Arrays, **shapes: str) -> None:
    """Each array is there, none is empty, and axes of one name are of one length."""
    known: dict[str, int] = {}
    for key, names in shapes.items():
        shape = arrays[key].shape if key in arrays else None
        axes = names.split()
        fits = shape is not None and len(shape) == len(axes) and 0 not in shape
        if not fits or any(known.setdefault(a, n) != n for a, n in zip(axes, shape or (), strict=True)):
            raise DataError(f"'{key}' must be an array of shape ({', '.join(axes)}), got {shape or 'none'}")


def _whose(arrays: Arrays) -> str:
    return " of the member that draws" if arrays.get("members", np.ones(1)).max() > 1 else ""


def _dense(rows: np.ndarray) -> int:
    """Pixels per site of a picture that is shown at half its size."""
    return 2 * max(1, round(CELL / max(rows.shape[3:])))
