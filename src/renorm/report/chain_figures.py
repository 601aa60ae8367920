"""Folds beside known structures: to be turned by hand, laid on each other, as contacts, and coarse to fine."""

from html import escape
from pathlib import Path

import numpy as np
import torch

from renorm.errors import DataError
from renorm.measure.chains.contacts import contact_map
from renorm.report.markup import figure, table
from renorm.report.reading import arrays_of, mapping
from renorm.report.tubes import Strand, tube_picture, tube_strip
from renorm.report.viewer import Target, viewer

__all__ = ["contacts_picture", "folds", "scales", "scales_picture"]


def folds(run: Path) -> str:
    """Some targets of a run of chains, from ``samples/folds.npz``; their names and scores from ``measures.json``.

    Raises:
        DataError: If the file is missing or damaged.
    """
    arrays = arrays_of(run, "samples/folds.npz", "fold0", "known0")
    lines = mapping(run, "measures.json", quiet=True).get("targets")
    targets: list[Target] = []
    pictures: list[str] = []
    while (name := f"fold{len(targets)}") in arrays and f"known{len(targets)}" in arrays:
        x, known = arrays[name], arrays[f"known{len(targets)}"]
        if known.shape != x.shape or known.ndim != 2 or known.shape[1] != 3 or len(x) < 2:
            raise DataError(f"samples/folds.npz must hold chains (residues, 3), got {name} of {x.shape}")
        if not (np.isfinite(x).all() and np.isfinite(known).all(axis=1).any()):
            raise DataError(f"samples/folds.npz must hold places that are known, got none or not a number in {name}")
        i = len(targets)
        line = table(lines[i]) if isinstance(lines, list) and i < len(lines) else {}
        target = str(line.get("target", f"target {i + 1}"))
        told = f"{target}, {len(x)} residues"
        targets.append(Target(target, x[None], known))
        both = tube_picture([Strand(known, known=True), Strand(x)], f"{told}: the known chain in grey, one drawn on it")
        score = f", TM-score {line['tm']:.2f}" if isinstance(line.get("tm"), float) else ""
        beside = f'<div class="beside">{both}{contacts_picture(x, known, told)}</div>'
        pictures.append(figure(beside, f"{told}{score}."))
    caption = "A chain of the model and the known structure, which is grey where both are seen; dark at the N end."
    below = (
        '<p class="quiet">Below: the drawn chain on the known one; pairs of residues within 8 Å, drawn above the '
        "diagonal, known below. A score is the mean over the chains drawn for that target.</p>"
    )
    return "\n".join([viewer(targets, caption), below, '<div class="targets">', *pictures, "</div>"])


def contacts_picture(x: np.ndarray, known: np.ndarray, told: str) -> str:
    """Pairs of residues within 8 angstrom as an ``<svg>``: of the drawn chain above the diagonal, known ones below.

    Args:
        x, known: Chains (residues, 3), in angstrom; NaN where a residue is missing.
        told: Whose they are.

    Example: three residues in a row, of which neighbours touch.
        >>> x = np.array([[0.0, 0, 0], [5.0, 0, 0], [10.0, 0, 0]])
        >>> contacts_picture(x, x, "three").count("M")  # a run of residues in each row
        4
    """
    maps = (contact_map(torch.from_numpy(c), mask=torch.from_numpy(np.isfinite(c).all(1))).numpy() for c in (x, known))
    size = len(x)
    paths = [
        f'<path class="{name}" d="{"".join(_runs(part(pairs)))}"/>'
        for name, part, pairs in zip(("drawn", "known"), (np.triu, np.tril), maps, strict=True)
    ]
    alt = escape(f"{told}: contacts of the drawn chain above the diagonal, of the known one below")
    frame = f'<rect width="{size}" height="{size}" stroke-width="{size / 300:.2f}"/>'
    return (
        f'<svg class="contacts" viewBox="0 0 {size} {size}" role="img" aria-label="{alt}">{frame}{"".join(paths)}</svg>'
    )


def _runs(pairs: np.ndarray) -> list[str]:
    """A path for each run of True in each row."""
    found = []
    for i, row in enumerate(np.pad(pairs, ((0, 0), (1, 1))).astype(int)):
        edges = np.diff(row).nonzero()[0]
        found += [f"M{a} {i}h{b - a}v1h{a - b}z" for a, b in edges.reshape(-1, 2).tolist()]
    return found


def scales(run: Path) -> str:
    """One walk from coarse to fine, and the known chain at the same scales, from ``samples/scales.npz``.

    Raises:
        DataError: If the file is missing or damaged.
    """
    arrays = arrays_of(run, "samples/scales.npz", "drawn", "known", "cutoffs", "modes")
    return (
        f'<figure>\n<div class="across">{scales_picture(arrays)}</div>\n<figcaption>{_SCALES}</figcaption>\n</figure>'
    )


_SCALES = (
    "Above: one walk of the model, from coarse to fine. Below: the known chain, coarse-grained to the same scales with "
    "noise of its own. All are seen from one place; under each the cutoff Λ in rad/residue and how many modes are left."
)


def scales_picture(arrays: dict[str, np.ndarray]) -> str:
    """The chains of ``samples/scales.npz`` in two rows, or in one where ``drawn`` is not there.

    Args:
        arrays: ``drawn`` and ``known`` (scales, residues, 3) in angstrom, coarsest first; ``cutoffs`` in rad/residue
            and ``modes``, how many are left, of each scale.

    Raises:
        DataError: If they do not belong together.
    """
    rows = [arrays[name] for name in ("drawn", "known") if name in arrays]
    cutoffs, modes = arrays["cutoffs"].ravel(), arrays["modes"].ravel()
    for x in rows:
        if x.ndim != 3 or x.shape[1] < 2 or x.shape[2] != 3 or x.shape != rows[0].shape or not np.isfinite(x).all():
            raise DataError(f"scales.npz must hold chains (scales, residues, 3) of finite places, got shape {x.shape}")
    if not len(rows[0]) == len(cutoffs) == len(modes) > 0:
        raise DataError(f"scales.npz must hold one cutoff for each scale, got {len(cutoffs)} for {len(rows[0])}")
    told = [f"Λ {'∞' if np.isinf(c) else f'{c:.2g}'}, {m:.0f} modes" for c, m in zip(cutoffs, modes, strict=True)]
    alt = f"A chain at {len(told)} scales, coarse to fine, {'drawn above, known below' if len(rows) > 1 else 'known'}"
    return tube_strip([[Strand(chain) for chain in x] for x in rows], [told] * len(rows), alt)
