"""A run folder as one HTML page that needs nothing else: style, curves and pictures stand inside it. No script runs but
the viewer of chains, where there are some.

Each section is made from one file of the run. Where that file is missing or damaged the section is left out, and a
quiet line at the head of the page says so.
"""

import math
import re
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from renorm.errors import CheckpointError, DataError
from renorm.fit.checkpoint import atomic
from renorm.report.cascade_figures import (
    couplings_figure,
    encoded_figure,
    levels_figure,
    observables_figure,
    weights_figure,
)
from renorm.report.chain_figures import folds, scales
from renorm.report.document import document
from renorm.report.figures import (
    CELL,
    field_grid,
    field_strip,
    loss_figure,
    numeral,
    shown_range,
    spectrum_figure,
)
from renorm.report.key_figures import alarms, key_figures, observables_of
from renorm.report.markup import curve, duration, figure, image, measured, sites_of, table, words_of
from renorm.report.molecule_figures import molecule_grid, molecule_strip, shapes_figure
from renorm.report.neighbours import nearest_training_images
from renorm.report.reading import (
    arrays_of,
    bonds_of,
    labels_of,
    mapping,
    metrics_of,
    present,
    recipe_of,
    shown_of,
    value_range_of,
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
MOLECULES = 16  # most molecules on a sheet
ROWS = 4  # most generated fields shown through the levels


def write_report(run: Path, out: Path | None = None) -> Path:
    """Write the page of a run: summary, key figures, samples beside data, levels, spectrum, loss, recipe, versions.

    Args:
        run: Folder of the run; it must hold ``recipe.toml``. Read are also ``manifest.json``, ``metrics.jsonl``,
            ``measures.json`` and the arrays in ``samples/``, each if it is there.
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
    body: list[str] = []
    quiet: list[str] = []
    wing = str(recipe_of(run).get("wing"))
    kinds = {"tokens": _TOKENS, "cascade": _CASCADE, "chains": _CHAINS, "clusters": _CLUSTERS}
    for title, kind, make in kinds.get(wing, _SECTIONS):
        try:
            content = make(run)
        except DataError as error:
            if title in _FILES and not (run / "samples" / _FILES[title]).exists():
                continue
            quiet.append(f'<p class="quiet">{escape(title)} left out: {escape(str(error))}.</p>')
            continue
        key = re.sub(r"\W+", "-", title.lower())
        body.append(
            f'<section class="{kind}" aria-labelledby="{key}">\n<h2 id="{key}">{escape(title)}</h2>\n'
            f"{content}\n</section>"
        )
    head = [_summary(run), *alarms(run), *quiet]
    return document(run.resolve().name, "renorm run", head, body, chains=wing == "chains")


def _summary(run: Path) -> str:
    """What the run is, in one paragraph made of what is known."""
    recipe, manifest = recipe_of(run), mapping(run, "manifest.json", quiet=True)
    data, model = table(manifest.get("data")) or table(recipe.get("data")), table(recipe.get("model"))
    kinds = {
        "tokens": _hierarchy,
        "cascade": _cascade,
        "chains": lambda _: "A chain diffusion",
        "clusters": lambda _: "A law of clusters, particle by particle,",
    }
    named = kinds.get(str(recipe.get("wing")))
    words = [named(model) if named else "A renormalizing model"]
    if "schedule" in model:
        words.append(f"with the {model['schedule']} schedule")
    if "name" in data:
        number = f"{numeral(data['number'])} fields of " if data.get("number") else ""
        law = table(table(recipe.get("data")).get("law")).get("kind")
        words.append(f"fitted to {number}{f'the law {law}' if law else data['name']}")
    steps = [line["step"] for line in metrics_of(run) if isinstance(line.get("step"), int)]
    if steps:
        words.append(f"for {numeral(max(steps))} steps")
    if isinstance(manifest.get("seconds"), int | float):
        words.append(f"in {duration(manifest['seconds'])}")
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
    members = [table(member) for member in listed] if isinstance(listed, list) else []
    kinds = [f"{table(m.get('law')).get('kind')} on {table(m.get('codebook')).get('kind')}" for m in members]
    if len(kinds) < 2:
        return f"A token hierarchy ({kinds[0]})" if kinds else "A token hierarchy"
    named = [f"{n} × {kind}" if (n := kinds.count(kind)) > 1 else kind for kind in dict.fromkeys(kinds)]
    return f"A product of {len(kinds)} token hierarchies ({', '.join(named)})"


def _cascade(model: Mapping[str, Any]) -> str:
    """Example: 'A cascade of checkerboards (local conditionals, exact heat bath at the finest level)'."""
    steps = {"checkerboard": "checkerboards", "learned": "learned blocks", "fourier": "Fourier shells"}
    steps |= {"beads": "beads", "mera": "learned bijections of blocks", "disentangled": "disentangled checkerboards"}
    coarse = str(model.get("coarse"))
    bath = ", exact heat bath at the finest level" if model.get("heat_bath") is True else ""
    kind = table(model.get("conditional")).get("kind")
    return f"A cascade of {steps.get(coarse, f'{coarse} wavelets')} ({kind} conditionals{bath})"


def _samples(run: Path) -> str:
    arrays = arrays_of(run, "samples/samples.npz", "x")
    shown = shown_of(arrays)
    foreign = "" if shown == value_range_of(arrays) else f", drawn from {numeral(shown[0])} to {numeral(shown[1])}"
    most = PICTURES if math.prod(arrays["x"].shape[2:]) < LARGE else PICTURES // 4
    most = min([most, *(len(arrays[name]) for name in ("x", "data") if name in arrays)])
    figures = []
    bonds = bonds_of(arrays)
    for name, title in (("x", "Samples of the model"), ("data", "Real fields")):
        if name in arrays and bonds is not None:
            molecules = arrays[name][: min(most, MOLECULES)]
            title = title.replace("fields", "configurations")
            alt = f"{title}: {len(molecules)} of {molecules.shape[2]} atoms"
            colours = ", teal to amber from the first atom to the last" if bonds else ""
            figures.append(figure(image(molecule_grid(molecules, bonds), alt), f"{title}{colours}."))
        elif name in arrays:
            fields = arrays[name][:most]
            # Clipped, as a saved picture would be: on a range of their own, samples that overshoot would turn grey.
            fields = np.where(np.isfinite(fields), np.clip(fields, *shown), fields)
            alt = f"{title}: {most} fields of {sites_of(fields)} sites"
            figures.append(figure(image(field_grid(fields, value_range=shown), alt), f"{title}{foreign}."))
    return "\n".join(['<div class="pair">', *figures, "</div>"])


def _strips(run: Path) -> str:
    return "\n".join(['<div class="pair">', *_through_levels(run), "</div>"])


def _through_levels(run: Path) -> list[str]:
    """Fields on their way up, and one on its way down.

    Levels are stored finest first, and so is the flow; the generated fields are coarsest first.
    """
    arrays = arrays_of(run, "samples/strip.npz", "generated", "flow")
    try:
        whole = arrays_of(run, "samples/samples.npz", "x")
        shown, bonds = shown_of(whole), bonds_of(whole)
    except DataError:
        shown, bonds = (-1.0, 1.0), None
    generated, flow = arrays["generated"], arrays["flow"]
    if generated.ndim < 4:
        raise DataError(f"generated must be (levels, rows, channel, *sites), got shape {generated.shape}")
    labels, unit = labels_of(len(flow), arrays)
    up, _ = labels_of(len(generated), arrays)
    rows = np.moveaxis(generated[:, :ROWS], 0, 1)
    scale = 3 * math.ceil(CELL / max(generated.shape[3:]))
    figures = [
        (rows, up[::-1], f"Refined: each row is one field on its way up, coarse to fine{unit}."),
        (flow[None], labels, f"Coarse-grained: one real field on its way down, fine to coarse{unit}."),
    ]
    if bonds is not None:
        drawn = [(molecule_strip(fields, names, bonds), caption) for fields, names, caption in figures]
        return [figure(image(strip, caption), caption.replace("field", "molecule")) for strip, caption in drawn]
    return [
        figure(image(field_strip(fields, names, value_range=shown, scale=scale, gap=8), caption, dense=True), caption)
        for fields, names, caption in figures
    ]


def _spectrum(run: Path) -> str:
    spectrum = table(mapping(run, "measures.json").get("spectrum"))
    if not spectrum:
        raise DataError("measures.json holds no spectrum")
    alt = "Power of samples and of data against wavenumber, and their ratio"
    caption = "Mean power of the modes at each wavenumber, and the ratio of samples to data; bars are standard errors."
    return figure(curve(spectrum_figure(spectrum), "spectrum", alt), caption)


def _loss(run: Path) -> str:
    present(run, "metrics.jsonl")
    metrics = metrics_of(run)
    losses = [line["loss"] for line in metrics if isinstance(line.get("loss"), int | float)]
    picture = loss_figure(metrics)
    caption = f"Training loss; {numeral(losses[-1])} at the end."
    return figure(curve(picture, "loss", f"Training loss against step, {caption}"), caption)


def _classes(run: Path) -> str:
    figures = classes_told(arrays_of(run, "samples/reliability.npz"))
    drawn = [figure(curve(svg, name, alt), caption) for svg, name, alt, caption in figures]
    return "\n".join(['<div class="pair">', *drawn, "</div>"])


def _tokens(run: Path) -> str:
    arrays = arrays_of(run, "samples/tokens.npz")
    sheets = [figure(image(picture, caption), caption) for picture, caption in sheets_of_tokens(arrays)]
    parts = ['<div class="pair">', *sheets, "</div>"]
    if "speaking" in arrays:
        picture, caption = rows_of_classes(arrays)
        parts.append(figure(image(picture, caption, dense=True), caption))
    return "\n".join(parts)


def _path(run: Path) -> str:
    picture, caption = path_of_image(arrays_of(run, "samples/path.npz"))
    try:
        down = _through_levels(run)[1:]
    except DataError:
        down = []
    return "\n".join(['<div class="pair">', *down, figure(image(picture, caption), caption), "</div>"])


def _completed(run: Path) -> str:
    arrays = arrays_of(run, "samples/completed.npz", "true")
    shown = shown_range(arrays["true"], value_range_of(arrays_of(run, "samples/samples.npz", "x")))
    picture, caption = rows_completed(arrays, shown)
    return figure(image(picture, caption, dense=True), caption)


def _refined(run: Path) -> str:
    return _through_levels(run)[0]


def _recipe_text(run: Path) -> str:
    text = (run / "recipe.toml").read_text(encoding="utf-8", errors="replace")
    return f"<details>\n<summary>Resolved recipe</summary>\n<pre>{escape(text)}</pre>\n</details>"


def _provenance(run: Path) -> str:
    facts: dict[str, Any] = {}
    for key, value in mapping(run, "manifest.json").items():
        if key == "identity":  # the resolved recipe, which stands above
            continue
        nested = {f"{key} {inner}": v for inner, v in value.items()} if isinstance(value, Mapping) else {key: value}
        facts.update(nested)
    if isinstance(facts.get("seconds"), int | float):
        facts["time"] = duration(facts.pop("seconds"))
    rows = "\n".join(
        f'<tr><th scope="row">{words_of(key)}</th><td>{escape(numeral(value))}</td></tr>'
        for key, value in facts.items()
        if value not in (None, "")
    )
    return f'<table class="facts">\n<tbody>\n{rows}\n</tbody>\n</table>'


def _observables(run: Path) -> str:
    rows = observables_of(mapping(run, "measures.json"))
    if not rows:
        raise DataError("measures.json holds no observables")
    body = []
    for row in rows:
        known, kind = measured(row.get("exact"), row.get("error"), shown=False), "exact"
        if "exact" not in row:
            known, kind = measured(row.get("reference"), row.get("reference_error")), "other fields"
        if row.get("exact", row.get("reference")) is None:
            known = kind = ""
        body.append(
            f'<tr><th scope="row">{words_of(row["name"])}</th><td>{measured(row.get("value"), row.get("error"))}</td>'
            f"<td>{known}</td><td>{kind}</td></tr>"
        )
    svg = observables_figure(rows)
    alt = "Distance of each observable from what it should be, in standard errors"
    caption = (
        "Distance from the exact answer (dots), else from other fields of the same law (rings), in standard errors."
    )
    head = "".join(f'<th scope="col">{text}</th>' for text in ("Observable", "Model", "Should be", "From"))
    parts = [
        f'<table class="numbers">\n<thead><tr>{head}</tr></thead>\n<tbody>\n' + "\n".join(body) + "\n</tbody></table>"
    ]
    if svg:
        parts.append(figure(curve(svg, "observables", alt), caption))
    return "\n".join(['<div class="pair">', *(f"<div>{part}</div>" for part in parts), "</div>"])


def _weights(run: Path) -> str:
    arrays = arrays_of(run, "samples/weights.npz", "model")
    figures = table(mapping(run, "measures.json", quiet=True).get("figures"))
    svg, caption = weights_figure(arrays, figures)
    return figure(curve(svg, "weights", "Histogram of log weights"), caption)


def _levels(run: Path) -> str:
    arrays = arrays_of(run, "samples/levels.npz", "nats", "numbers")
    svg, caption = levels_figure(arrays)
    return figure(curve(svg, "levels", "Nats per number at each level"), caption)


def _couplings(run: Path) -> str:
    svg, caption = couplings_figure(arrays_of(run, "samples/couplings.npz"))
    return figure(curve(svg, "couplings", "Couplings at each level"), caption)


def _shapes(run: Path) -> str:
    svg, caption = shapes_figure(arrays_of(run, "samples/shapes.npz"))
    return figure(curve(svg, "shapes", "Histograms of bonds, angles, distances and energies"), caption)


def _encoded(run: Path) -> str:
    svg, caption = encoded_figure(arrays_of(run, "samples/encoded.npz", "sees", "moves", "field", "other", "swapped"))
    return figure(curve(svg, "encoded", "What each level sees, moves and encodes"), caption)


_SECTIONS: list[tuple[str, str, Callable[[Path], str]]] = [
    ("Key figures", "wide", key_figures),
    ("Samples and data", "wide", _samples),
    ("Nearest training images", "wide", nearest_training_images),
    ("From coarse to fine", "wide", _strips),
    ("Power spectrum", "half", _spectrum),
    ("Loss", "half", _loss),
    ("Recipe", "wide", _recipe_text),
    ("Versions and seed", "wide", _provenance),
]

_TOKENS: list[tuple[str, str, Callable[[Path], str]]] = [
    ("Key figures", "wide", key_figures),
    ("Samples and data", "wide", _samples),
    ("Nearest training images", "wide", nearest_training_images),
    ("Classes", "wide", _classes),
    ("Tokens", "wide", _tokens),
    ("Path of an image", "wide", _path),
    ("Completed", "wide", _completed),
    ("From coarse to fine", "half", _refined),
    ("Power spectrum", "half", _spectrum),
    ("Recipe", "wide", _recipe_text),
    ("Versions and seed", "wide", _provenance),
]


_CASCADE: list[tuple[str, str, Callable[[Path], str]]] = [
    ("Key figures", "wide", key_figures),
    ("Observables", "wide", _observables),
    ("Samples and data", "wide", _samples),
    ("Nearest training images", "wide", nearest_training_images),
    ("Shapes", "wide", _shapes),
    ("From coarse to fine", "wide", _strips),
    ("What each level encodes", "wide", _encoded),
    ("Log weights", "half", _weights),
    ("Nats of each level", "half", _levels),
    ("Flow of couplings", "half", _couplings),
    ("Power spectrum", "half", _spectrum),
    ("Loss", "half", _loss),
    ("Recipe", "wide", _recipe_text),
    ("Versions and seed", "wide", _provenance),
]

_CLUSTERS: list[tuple[str, str, Callable[[Path], str]]] = [
    ("Key figures", "wide", key_figures),
    ("Observables", "wide", _observables),
    ("Samples and data", "wide", _samples),
    ("Shapes", "wide", _shapes),
    ("From coarse to fine", "wide", _strips),
    ("Log weights", "half", _weights),
    ("Loss", "half", _loss),
    ("Recipe", "wide", _recipe_text),
    ("Versions and seed", "wide", _provenance),
]

_CHAINS: list[tuple[str, str, Callable[[Path], str]]] = [
    ("Key figures", "wide", key_figures),
    ("Folds", "wide", folds),
    ("Coarse to fine", "wide", scales),
    ("Loss", "half", _loss),
    ("Recipe", "wide", _recipe_text),
    ("Versions and seed", "wide", _provenance),
]

_FILES = {
    "Coarse to fine": "scales.npz",
    "Flow of couplings": "couplings.npz",
    "Folds": "folds.npz",
    "Log weights": "weights.npz",
    "Nats of each level": "levels.npz",
    "Nearest training images": "neighbours.npz",
    "Shapes": "shapes.npz",
    "What each level encodes": "encoded.npz",
}
"""Sections that not every run has: nothing is said where their file is missing."""
