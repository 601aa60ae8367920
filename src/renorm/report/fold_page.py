"""What ``renorm fold`` drew, as one HTML page that needs nothing else."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from renorm.errors import DataError
from renorm.fit.checkpoint import atomic
from renorm.recipes.chains_run import Fold
from renorm.report.document import document
from renorm.report.viewer import Target, viewer

__all__ = ["MODELS", "PLACES", "Folded", "write_fold_page"]

MODELS = 20  # most chains of one sequence in the page
PLACES = 100_000  # most residues of all chains in the page: about two megabytes


class Folded(NamedTuple):
    """Chains of one sequence, and the file that holds them all."""

    name: str
    file: str
    fold: Fold


def write_fold_page(path: Path, folded: Sequence[Folded], *, run: str) -> str:
    """Write the page of all sequences: a viewer, and a table with their PDB files.

    Args:
        path: The file to write, all at once; the PDB files lie beside it.
        folded: The sequences, in the order of the page.
        run: Name of the run that they are from.

    Returns:
        What had to be left out of the viewer, in words; empty if nothing had to.

    Raises:
        DataError: If there is no chain.
    """
    if not folded:
        raise DataError("a page of folds needs a chain, got none")
    targets: list[Target] = []
    room = PLACES
    for name, _, fold in folded:
        models, residues = fold.x.shape[:2]
        kept = min(models, MODELS, room // residues)
        if kept < 1 and targets:
            break
        x = fold.x[: max(1, kept)].numpy()
        room -= x.shape[0] * residues
        targets.append(Target(name, x, spread=fold.spread.numpy() if models > 1 else None))
    models = max(one.fold.x.shape[0] for one in folded)
    seen = min(len(target.drawn) for target in targets)
    left = []
    if len(targets) < len(folded):
        left.append(f"the first {len(targets)} of {len(folded)} sequences")
    if any(len(target.drawn) < one.fold.x.shape[0] for target, one in zip(targets, folded, strict=False)):
        left.append(f"the first {seen} of {models} chains of a sequence" if seen < models else "some of the chains")
    capped = f"To stay small the page shows {' and '.join(left)}; the PDB files hold all" if left else ""
    caption = f"Chains of C-alphas, dark at the N end. {capped + '. ' if capped else ''}"
    if any(target.spread is not None for target in targets):
        caption += "The spread of a residue is how far it lies from its mean over the chains, root mean square. "
    number = f"{models} chains" if models > 1 else "One chain"
    of = f"each of {len(folded)} sequences" if len(folded) > 1 else folded[0].name
    lead = f'<p class="lead">{escape(f"{number} of {of}, drawn by {run}, coarse to fine.")}</p>'
    body = [
        f'<section class="wide">\n{viewer(targets, caption.strip())}\n</section>',
        f'<section class="wide">\n<h2>Files</h2>\n{_table(folded)}\n</section>',
    ]
    page = document("Folds", "renorm fold", [lead], body, chains=True)
    with atomic(path) as temporary:
        temporary.write_bytes(page.encode("utf-8", errors="replace"))
    return capped


def _table(folded: Sequence[Folded]) -> str:
    head = "".join(f'<th scope="col">{text}</th>' for text in ("File", "Chains", "Residues", "Mean spread [Å]"))
    rows = []
    for _, file, fold in folded:
        models, residues = fold.x.shape[:2]
        spread = f"{fold.spread.mean().item():.2f}" if models > 1 else "–"
        cells = "".join(f"<td>{cell}</td>" for cell in (models, residues, spread))
        rows.append(f'<tr><th scope="row"><a href="{quote(file)}">{escape(file)}</a></th>{cells}</tr>')
    return (
        f'<table class="numbers">\n<thead><tr>{head}</tr></thead>\n<tbody>\n' + "\n".join(rows) + "\n</tbody></table>"
    )
