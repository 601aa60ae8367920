"""A run folder as one HTML page that needs nothing else: style, curves and pictures stand inside it, no script runs.

Each section is made from one file of the run. Where that file is missing or damaged the section is left out, and a
quiet line at the head of the page says so.
"""

import base64
import json
import math
import re
import tomllib
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from renorm.data.npz import read_npz
from renorm.errors import CheckpointError, DataError
from renorm.fit.checkpoint import atomic
from renorm.fit.record import read_metrics
from renorm.report.figures import (
    CELL,
    PALETTE,
    field_grid,
    field_strip,
    loss_figure,
    numeral,
    png_bytes,
    shown_range,
    spectrum_figure,
)
from renorm.report.token_figures import (
    classes_told,
    path_of_image,
    rows_completed,
    rows_of_classes,
    sheets_of_tokens,
)

__all__ = ["write_report"]

PICTURES = 64  # most fields on a contact sheet
LARGE = 64 * 64  # sites from which a quarter as many are shown
ROWS = 4  # most generated fields shown through the levels

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def write_report(run: Path, out: Path | None = None) -> Path:
    """Write the page of a run: summary, key figures, samples beside data, levels, spectrum, loss, recipe, versions.

    Args:
        run: Folder of the run; it must hold ``recipe.toml``. Read are also ``manifest.json``, ``metrics.jsonl``,
            ``measures.json``, ``samples/samples.npz`` and ``samples/strip.npz``, each if it is there.
        out: The file to write, all at once; ``report.html`` in the run folder by default.

    Returns:
        The file written.

    Raises:
        CheckpointError: If ``run`` is no run folder, or the page cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "recipe.toml").write_text('description = "Nothing yet"')
        ...     "Nothing yet" in write_report(Path(folder)).read_text(encoding="utf-8")
        True
    """
    if not run.is_dir():
        raise CheckpointError(f"there is no run folder {run}; `renorm fit RECIPE --out {run}` makes one")
    if not (run / "recipe.toml").is_file():
        raise CheckpointError(f"{run} is no run folder (there is no recipe.toml); give one that `renorm fit` made")
    page = _page(run)
    out = out or run / "report.html"
    with atomic(out) as temporary:
        temporary.write_bytes(page.encode("utf-8", errors="replace"))  # half a surrogate pair has no code
    return out


def _page(run: Path) -> str:
    name = escape(run.resolve().name)
    body: list[str] = []
    quiet: list[str] = []
    for title, kind, make in _TOKENS if _is_tokens(run) else _SECTIONS:
        try:
            content = make(run)
        except DataError as error:
            quiet.append(f'<p class="quiet">{escape(title)} left out: {escape(str(error))}.</p>')
            continue
        key = re.sub(r"\W+", "-", title.lower())
        body.append(
            f'<section class="{kind}" aria-labelledby="{key}">\n<h2 id="{key}">{escape(title)}</h2>\n'
            f"{content}\n</section>"
        )
    style = Path(__file__).with_name("style.css").read_text(encoding="utf-8")
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{name} · renorm</title>\n<style>\n{style}</style>\n</head>\n<body>",
            f'<header>\n<p class="over">renorm run</p>\n<h1>{name}</h1>',
            _summary(run),
            *quiet,
            "</header>\n<main>",
            *body,
            "</main>\n</body>\n</html>\n",
        ]
    )


def _summary(run: Path) -> str:
    """What the run is, in one paragraph made of what is known."""
    recipe, manifest = _recipe(run), _mapping(run, "manifest.json", quiet=True)
    data, model = _table(manifest.get("data")) or _table(recipe.get("data")), _table(recipe.get("model"))
    words = [_hierarchy(model) if _is_tokens(run) else "A renormalizing model"]
    if "schedule" in model:
        words.append(f"with the {model['schedule']} schedule")
    if "name" in data:
        number = f"{numeral(data['number'])} fields of " if "number" in data else ""
        words.append(f"fitted to {number}{data['name']}")
    steps = [line["step"] for line in _metrics(run) if isinstance(line.get("step"), int)]
    if steps:
        words.append(f"for {numeral(max(steps))} steps")
    if isinstance(manifest.get("seconds"), int | float):
        words.append(f"in {_duration(manifest['seconds'])}")
    if "machine" in manifest:
        words.append(f"on {manifest['machine']}")
    parameters = f" It has {numeral(manifest['parameters'])} parameters." if "parameters" in manifest else ""
    date = f" Run of {manifest['date']}." if "date" in manifest else ""
    description = str(recipe.get("description") or "").strip()
    if description and description[-1] not in ".!?":
        description += "."
    sentence = " ".join(words)
    return f'<p class="lead">{escape(f"{description} {sentence}.{parameters}{date}".strip())}</p>'


def _hierarchy(model: Mapping[str, Any]) -> str:
    """Example: 'A token hierarchy of 2 members (2 × styles on windows)'."""
    listed = model.get("members")
    members = [_table(member) for member in listed] if isinstance(listed, list) else []
    kinds = [f"{_table(m.get('law')).get('kind')} on {_table(m.get('codebook')).get('kind')}" for m in members]
    if len(kinds) < 2:
        return f"A token hierarchy ({kinds[0]})" if kinds else "A token hierarchy"
    named = [f"{n} × {kind}" if (n := kinds.count(kind)) > 1 else kind for kind in dict.fromkeys(kinds)]
    return f"A product of {len(kinds)} token hierarchies ({', '.join(named)})"


def _measures(run: Path) -> str:
    measures = _mapping(run, "measures.json")
    figures, notes = _table(measures.get("figures")), _table(measures.get("notes"))
    if not figures:
        raise DataError("measures.json holds no figures")
    rows = "\n".join(
        f'<tr><th scope="row">{_words(key)}</th><td>{escape(numeral(value))}</td></tr>'
        for key, value in figures.items()
    )
    remarks = " ".join(f"{_words(key).capitalize()}: {escape(numeral(value))}." for key, value in notes.items())
    return (
        '<table class="numbers">\n<thead><tr><th scope="col">Figure</th><th scope="col">Value</th></tr></thead>\n'
        f"<tbody>\n{rows}\n</tbody>\n</table>" + (f'\n<p class="quiet">{remarks}</p>' if remarks else "")
    )


def _samples(run: Path) -> str:
    arrays = _arrays(run, "samples/samples.npz", "x")
    shown = _shown(arrays)
    foreign = "" if shown == _value_range(arrays) else f", drawn from {numeral(shown[0])} to {numeral(shown[1])}"
    most = PICTURES if math.prod(arrays["x"].shape[2:]) < LARGE else PICTURES // 4
    most = min([most, *(len(arrays[name]) for name in ("x", "data") if name in arrays)])
    figures = []
    for name, title in (("x", "Samples of the model"), ("data", "Real fields")):
        if name in arrays:
            fields = arrays[name][:most]
            # Clipped, as a saved picture would be: on a range of their own, samples that overshoot would turn grey.
            fields = np.where(np.isfinite(fields), np.clip(fields, *shown), fields)
            alt = f"{title}: {most} fields of {_sites(fields)} sites"
            figures.append(_figure(_image(field_grid(fields, value_range=shown), alt), f"{title}{foreign}."))
    return "\n".join(['<div class="pair">', *figures, "</div>"])


def _strips(run: Path) -> str:
    return "\n".join(['<div class="pair">', *_through_levels(run), "</div>"])


def _through_levels(run: Path) -> list[str]:
    """Fields on their way up, and one on its way down.

    Levels are stored finest first, and so is the flow; the generated fields are coarsest first.
    """
    arrays = _arrays(run, "samples/strip.npz", "generated", "flow")
    try:
        shown = _shown(_arrays(run, "samples/samples.npz", "x"))
    except DataError:
        shown = (-1.0, 1.0)
    generated, flow = arrays["generated"], arrays["flow"]
    if generated.ndim < 4:
        raise DataError(f"generated must be (levels, rows, channel, *sites), got shape {generated.shape}")
    labels, unit = _labels(len(flow), arrays)
    up, _ = _labels(len(generated), arrays)
    rows = np.moveaxis(generated[:, :ROWS], 0, 1)
    scale = 3 * math.ceil(CELL / max(generated.shape[3:]))
    figures = [
        (rows, up[::-1], f"Refined: each row is one field on its way up, coarse to fine{unit}."),
        (flow[None], labels, f"Coarse-grained: one real field on its way down, fine to coarse{unit}."),
    ]
    return [
        _figure(_image(field_strip(fields, names, value_range=shown, scale=scale, gap=8), caption, dense=True), caption)
        for fields, names, caption in figures
    ]


def _spectrum(run: Path) -> str:
    spectrum = _table(_mapping(run, "measures.json").get("spectrum"))
    if not spectrum:
        raise DataError("measures.json holds no spectrum")
    alt = "Power of samples and of data against wavenumber, and their ratio"
    caption = "Mean power of the modes at each wavenumber, and the ratio of samples to data; bars are standard errors."
    return _figure(_curve(spectrum_figure(spectrum), "spectrum", alt), caption)


def _loss(run: Path) -> str:
    _present(run, "metrics.jsonl")
    metrics = _metrics(run)
    losses = [line["loss"] for line in metrics if isinstance(line.get("loss"), int | float)]
    picture = loss_figure(metrics)
    caption = f"Training loss; {numeral(losses[-1])} at the end."
    return _figure(_curve(picture, "loss", f"Training loss against step, {caption}"), caption)


def _classes(run: Path) -> str:
    figures = classes_told(_arrays(run, "samples/reliability.npz"))
    drawn = [_figure(_curve(svg, name, alt), caption) for svg, name, alt, caption in figures]
    return "\n".join(['<div class="pair">', *drawn, "</div>"])


def _tokens(run: Path) -> str:
    arrays = _arrays(run, "samples/tokens.npz")
    sheets = [_figure(_image(picture, caption), caption) for picture, caption in sheets_of_tokens(arrays)]
    parts = ['<div class="pair">', *sheets, "</div>"]
    if "speaking" in arrays:
        picture, caption = rows_of_classes(arrays)
        parts.append(_figure(_image(picture, caption, dense=True), caption))
    return "\n".join(parts)


def _path(run: Path) -> str:
    picture, caption = path_of_image(_arrays(run, "samples/path.npz"))
    try:
        down = _through_levels(run)[1:]
    except DataError:
        down = []
    return "\n".join(['<div class="pair">', *down, _figure(_image(picture, caption), caption), "</div>"])


def _completed(run: Path) -> str:
    arrays = _arrays(run, "samples/completed.npz", "true")
    shown = shown_range(arrays["true"], _value_range(_arrays(run, "samples/samples.npz", "x")))
    picture, caption = rows_completed(arrays, shown)
    return _figure(_image(picture, caption, dense=True), caption)


def _refined(run: Path) -> str:
    return _through_levels(run)[0]


def _recipe_text(run: Path) -> str:
    text = (run / "recipe.toml").read_text(encoding="utf-8", errors="replace")
    return f"<details>\n<summary>Resolved recipe</summary>\n<pre>{escape(text)}</pre>\n</details>"


def _provenance(run: Path) -> str:
    facts: dict[str, Any] = {}
    for key, value in _mapping(run, "manifest.json").items():
        nested = {f"{key} {inner}": v for inner, v in value.items()} if isinstance(value, Mapping) else {key: value}
        facts.update(nested)
    if isinstance(facts.get("seconds"), int | float):
        facts["time"] = _duration(facts.pop("seconds"))
    rows = "\n".join(
        f'<tr><th scope="row">{_words(key)}</th><td>{escape(numeral(value))}</td></tr>'
        for key, value in facts.items()
        if value not in (None, "")
    )
    return f'<table class="facts">\n<tbody>\n{rows}\n</tbody>\n</table>'


_SECTIONS: list[tuple[str, str, Callable[[Path], str]]] = [
    ("Key figures", "wide", _measures),
    ("Samples and data", "wide", _samples),
    ("From coarse to fine", "wide", _strips),
    ("Power spectrum", "half", _spectrum),
    ("Loss", "half", _loss),
    ("Recipe", "wide", _recipe_text),
    ("Versions and seed", "wide", _provenance),
]

_TOKENS: list[tuple[str, str, Callable[[Path], str]]] = [
    ("Key figures", "wide", _measures),
    ("Samples and data", "wide", _samples),
    ("Classes", "wide", _classes),
    ("Tokens", "wide", _tokens),
    ("Path of an image", "wide", _path),
    ("Completed", "wide", _completed),
    ("From coarse to fine", "half", _refined),
    ("Power spectrum", "half", _spectrum),
    ("Recipe", "wide", _recipe_text),
    ("Versions and seed", "wide", _provenance),
]


def _is_tokens(run: Path) -> bool:
    return _recipe(run).get("wing") == "tokens"


def _present(run: Path, name: str) -> Path:
    if not (run / name).is_file():
        raise DataError(f"there is no {name} in the run folder")
    return run / name


def _mapping(run: Path, name: str, *, quiet: bool = False) -> dict[str, Any]:
    """A JSON object of the run; ``quiet`` takes nothing for one that is missing or damaged."""
    try:
        value = json.loads(_present(run, name).read_text(encoding="utf-8"))
        if not isinstance(value, dict):
            raise DataError(f"{name} must hold a JSON object, got {type(value).__name__}")
        return value
    except (DataError, ValueError, OSError, RecursionError) as error:
        if quiet:
            return {}
        if isinstance(error, DataError):
            raise
        raise DataError(f"{name} is damaged: {error}") from None


def _recipe(run: Path) -> dict[str, Any]:
    try:
        return tomllib.loads((run / "recipe.toml").read_text(encoding="utf-8"))
    except ValueError:
        return {}


def _metrics(run: Path) -> list[dict[str, Any]]:
    try:
        return [line for line in read_metrics(run / "metrics.jsonl") if isinstance(line, dict)]
    except UnicodeDecodeError:
        return []


def _arrays(run: Path, name: str, *needed: str) -> dict[str, np.ndarray]:
    """Arrays of numbers; the needed ones are there, and those of fields have sites."""
    arrays = read_npz(_present(run, name))
    for key in needed:
        if key not in arrays:
            raise DataError(f"{name} holds no array '{key}'")
    for key, array in arrays.items():
        hollow = key in ("x", "data", "generated", "flow") and (array.ndim < 3 or array.size == 0)
        if hollow or array.dtype.kind not in "fiub":
            raise DataError(f"'{key}' of {name} must hold fields or numbers, got {array.dtype} of shape {array.shape}")
    return arrays


def _value_range(arrays: Mapping[str, np.ndarray]) -> tuple[float, float]:
    ends = arrays.get("value_range", np.array([-1.0, 1.0])).astype(float).ravel()
    if ends.size == 2 and np.isfinite(ends).all() and ends[0] < ends[1]:
        return float(ends[0]), float(ends[1])
    return -1.0, 1.0


def _shown(arrays: Mapping[str, np.ndarray]) -> tuple[float, float]:
    """The range of the data, where there are any, for the samples too: both are seen on one scale."""
    return shown_range(arrays.get("data", arrays["x"]), _value_range(arrays))


def _labels(levels: int, arrays: Mapping[str, np.ndarray]) -> tuple[list[str], str]:
    """A label for each level, finest first, and what the caption says about them."""
    for key, symbol, unit in (
        ("cutoffs", "Λ", ", labelled by the cutoff Λ in rad/site"),
        ("scales", "t", ", labelled by the scale t"),
    ):
        values = np.ravel(arrays.get(key, np.empty(0)))
        if len(values) == levels and len(set(values.tolist())) > 1:
            return [f"{symbol} {'∞' if math.isinf(v) else f'{v:.2g}'}" for v in values.tolist()], unit
    return [f"level {index}" for index in range(levels)], ", labelled by the level"


def _image(picture: Image.Image, alt: str, *, dense: bool = False) -> str:
    """A picture inside the page; a dense one has two of its pixels in one of the page's."""
    width, height = (n // 2 if dense else n for n in picture.size)
    code = base64.b64encode(png_bytes(picture)).decode("ascii")
    return f'<img src="data:image/png;base64,{code}" width="{width}" height="{height}" alt="{escape(alt)}">'


def _curve(svg: str, name: str, alt: str) -> str:
    """An SVG inside the page: its names made its own, its colours those of the page, light or dark."""
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\1{name}-", svg)
    for role, color in PALETTE.items():
        svg = svg.replace(color, f"var(--{role})")
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(alt)}" ', 1)


def _figure(content: str, caption: str) -> str:
    return f"<figure>\n{content}\n<figcaption>{escape(caption)}</figcaption>\n</figure>"


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _words(key: str) -> str:
    return escape(str(key).replace("_", " "))


def _sites(x: np.ndarray) -> str:
    return " × ".join(map(str, x.shape[2:]))


def _duration(seconds: float) -> str:
    """Example: 4000 -> '1 h 7 min'."""
    if not math.isfinite(seconds) or seconds < 60:
        return f"{numeral(seconds)} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
