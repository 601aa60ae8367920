"""Runs of token hierarchies: fit, measure.

member0/  member1/  ...      model.toml and model.safetensors of each hierarchy, beside what every run has
"""

import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from renorm.data import load as load_data
from renorm.data.fields import Fields
from renorm.data.spec import DataSpec
from renorm.errors import DataError, RecipeError, RenormError
from renorm.fit.checkpoint import atomic
from renorm.fit.progress import FitProgress
from renorm.lattice import Lattice
from renorm.recipes.folder import check_same_run, is_first, machine, write_arrays, write_json
from renorm.recipes.judge import REFERENCE, check_enough, check_measurable, judge
from renorm.recipes.recorded import check_recorded
from renorm.recipes.spec import TokensRecipe
from renorm.spec import to_mapping, to_toml
from renorm.tokens.explain import evidence_map, speaks_for, token_pictures, tokens_in_place
from renorm.tokens.parts import make_codebook, make_family
from renorm.tokens.product import TokenProduct
from renorm.tokens.spec import HiddenTreeSpec, PyramidSpec, StyleSpec, TokensSpec, ValueSpec
from renorm.tokens.token_hierarchy import TokenHierarchy

__all__ = ["fit", "measure"]

ROWS = 8  # generated fields shown at every level
BINS = 10  # of the reliability curve
PICTURES = 64  # most tokens of a level that are shown
DRAWS = 3  # completions of each field


def fit(recipe: TokensRecipe, folder: Path, *, progress: bool, command: str) -> TokenProduct:
    """Count; killed at any moment, the same command with --resume comes to the same model."""
    fields = load_data(recipe.data, "train")
    known = _identity(recipe, fields)
    check_same_run(folder, known)
    shape = _shape(fields.lattice)
    _check_members(recipe.model, shape)
    _check_labels(fields)
    check_measurable(recipe.measure, fields)
    facts = {
        **machine(),
        "identity": known,
        "command": command,
        "seed": recipe.model.seed,
        "data": {"name": recipe.data.name, "sha256": known["data"], "number": len(fields)},
    }
    if (folder / "product.toml").is_file():  # finished before; its manifest says how long it took
        return TokenProduct.load(folder)
    with atomic(folder / "recipe.toml") as temporary:
        temporary.write_text(to_toml(recipe), encoding="utf-8")
    before, begun = _seconds_before(folder), time.perf_counter()
    write_json(folder / "manifest.json", {**facts, "seconds": before or None})
    model = TokenProduct.of(recipe.model, shape=shape, value_range=recipe.data.value_range)

    def timed(index: int) -> TokenHierarchy:
        member = _member(model, index, fields, folder, progress)
        facts["seconds"] = before + time.perf_counter() - begun
        write_json(folder / "manifest.json", facts)
        return member

    try:
        model.fit_members(timed)
    except RenormError:
        if not (folder / "member0" / "model.toml").is_file():  # nothing was learned: leave the place to a mended recipe
            for name in ("recipe.toml", "manifest.json"):
                (folder / name).unlink(missing_ok=True)
        raise
    facts["parameters"] = sum(table.numel() for member in model.members_ for table in member.law_.tables)
    write_json(folder / "manifest.json", facts)  # before product.toml, which says that the run is finished
    model.save(folder)
    return model


def _identity(recipe: TokensRecipe, fields: Fields) -> dict[str, Any]:
    """What must not change when a run is resumed: the model, the data and what their bytes stand for."""
    known: dict[str, Any] = {"model": to_mapping(recipe.model), "data": fields.sha256()}
    if recipe.data.value_range != DataSpec().value_range:  # the default is left out: runs made before have none
        known["value_range"] = recipe.data.value_range
    return known


def _seconds_before(folder: Path) -> float:
    """What earlier stretches of a run took, up to the last member that they finished."""
    path = folder / "manifest.json"
    seconds = json.loads(path.read_text(encoding="utf-8")).get("seconds") if path.is_file() else None
    return float(seconds) if isinstance(seconds, int | float) else 0.0


def _shape(lattice: Lattice) -> tuple[int, int, int]:
    """Channels, height and width of the images that fields are; a chain is one site high.

    Raises:
        DataError: If fields are no images.
    """
    if lattice.dim == 3 or (lattice.dim == 2 and lattice.shape[0] == 1):
        raise DataError(
            "token hierarchies read chains and images of at least two rows; give fields of one or two axes (one site "
            f"high: drop that axis), got fields of shape {lattice.event_shape}"
        )
    height, width = lattice.shape if lattice.dim == 2 else (1, *lattice.shape)
    return lattice.channels, height, width


def _check_members(spec: TokensSpec, shape: tuple[int, int, int]) -> None:
    """Say before the first member counts, not after it, that another one cannot read images of this shape.

    Raises:
        DataError, RecipeError: By the codebook, or if the law needs what the codebook has not.
    """
    for index, member in enumerate(spec.members):
        where, law = f"model.members.{index}", member.law
        try:
            codebook = make_codebook(member.codebook, shape)
            make_family(law)
        except (DataError, RecipeError) as error:
            raise type(error)(f"{where}: {error}") from None
        if isinstance(law, HiddenTreeSpec) and not isinstance(member.codebook, ValueSpec):
            raise RecipeError(
                f"{where}: a hidden tree stands on the values of sites; take the codebook 'values', got "
                f"'{member.codebook.kind}'"
            )
        near = (isinstance(law, StyleSpec) and law.share > 0) or (isinstance(law, PyramidSpec) and law.levels > 0)
        if near and codebook.grid is None:
            cure = "law.share = 0" if isinstance(law, StyleSpec) else "law.levels = 0"
            cure += ", or data.channels = 1" if isinstance(member.codebook, ValueSpec) else ", or take windows"
            raise RecipeError(
                f"{where}: the law joins neighbours, so tokens must lie on a grid; set {cure}, got the codebook "
                f"'{member.codebook.kind}' on images of shape {shape}"
            )


def _check_labels(fields: Fields) -> None:
    """Say that classes were asked for where none is known.

    Raises:
        DataError: If so.
    """
    if fields.labels is not None and not (fields.labels >= 0).any():
        raise DataError(
            f"at least one training field must have a class, those of all {len(fields)} are unknown (-1); set "
            "data.labels = false to learn without classes"
        )


def _member(model: TokenProduct, index: int, fields: Fields, folder: Path, progress: bool) -> TokenHierarchy:
    """A member of the product: read if an earlier run came so far, else fitted and written at once."""
    place = folder / f"member{index}"
    if (place / "model.toml").is_file():
        return TokenHierarchy.load(place)
    member = model.member(index)
    bar: FitProgress | None = None

    def tell(step: int, steps: int, figure: float) -> None:
        nonlocal bar
        bar = bar or FitProgress(0, steps, shown=progress and is_first(), figure="bits")
        bar.update(step, figure)

    member.progress = tell
    try:
        member.fit(fields.values.numpy(), None if fields.labels is None else fields.labels.numpy())
    finally:
        member.progress = None
        if bar is not None:
            bar.close()
    member.save(place)
    return member


def measure(
    recipe: TokensRecipe, folder: Path, model: TokenProduct, *, samples: int | None, seed: int | None
) -> dict[str, Any]:
    """Judge class, likelihood and samples on the test fields; write ``measures.json`` and the pictures' arrays."""
    test = load_data(recipe.data, "test")
    num = recipe.measure.samples if samples is None else samples
    check_enough(recipe.measure, num, test)
    check_recorded(folder, recipe.measure)
    generator = torch.Generator().manual_seed(recipe.measure.seed if seed is None else seed)
    reference = test.batch(torch.arange(min(len(test), REFERENCE)))
    begun = time.perf_counter()
    x = model.sample(num, generator=generator)
    figures: dict[str, Any] = {"samples": num, "seconds_per_sample": (time.perf_counter() - begun) / num}
    nats = -model.log_prob(reference).mean()
    figures["nats_per_field"] = float(nats)
    if model.lossless:  # a site has all its channels
        figures["bits_per_site"] = float(nats) / np.log(2) / test.lattice.sites
    notes: dict[str, Any] = {}
    if test.labels is not None:
        found, notes = _classified(model, test, folder)
        figures |= found
    judged = judge(x, reference, test, recipe.measure, recipe.data)
    measured = {
        "figures": {**figures, **judged.figures},
        "notes": {**notes, **judged.notes},
        "spectrum": judged.spectrum,
    }
    write_json(folder / "measures.json", measured)
    write_arrays(
        folder / "samples" / "samples.npz", x=x[:256], data=reference[:256], value_range=torch.tensor(test.value_range)
    )
    judged.write(folder)
    _write_strips(folder, model, reference[:1], generator)
    _write_tokens(folder, model)
    _write_path(folder, model, reference[0], None if test.labels is None else int(test.labels[0]))
    _write_completed(folder, model, reference[:ROWS], generator)
    return measured


def _classified(model: TokenProduct, test: Fields, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """How often the class is right, and whether the posterior knows how sure it may be; and notes on both.

    Test fields without a class (-1) are left out. A class that no training field had cannot be predicted: its fields
    count as wrong, and have no place in the confusions and no probability.
    """
    assert test.labels is not None
    labels = test.labels.numpy()[:REFERENCE]
    judged = labels >= 0
    taught = np.isin(labels, model.classes_)
    strange = int((judged & ~taught).sum())
    notes: dict[str, Any] = {}
    if not judged.all():
        notes["without_class"] = f"{(~judged).sum()} of {len(labels)} test fields, which were not classified"
    if strange:
        notes["unknown_class"] = f"{strange} of {len(labels)} test fields, of classes not in training; counted as wrong"
    if not judged.any():
        return {}, notes
    values, labels, taught = test.values.numpy()[: len(labels)][judged], labels[judged], taught[judged]
    p = model.predict_proba(values)
    right = model.classes_[p.argmax(-1)] == labels
    place = np.searchsorted(model.classes_, labels[taught])
    sure = p.max(-1)
    bins = np.minimum((sure * BINS).astype(int), BINS - 1)
    count = np.bincount(bins, minlength=BINS)
    mean_sure = np.bincount(bins, sure, BINS) / np.maximum(count, 1)
    mean_right = np.bincount(bins, right, BINS) / np.maximum(count, 1)
    confusion = np.zeros((len(model.classes_), len(model.classes_)), np.int64)
    np.add.at(confusion, (place, p[taught].argmax(-1)), 1)
    arrays = {"count": count, "confidence": mean_sure, "accuracy": mean_right}
    arrays |= {"confusion": confusion, "classes": np.asarray(model.classes_)}
    write_arrays(folder / "samples" / "reliability.npz", **{k: torch.from_numpy(v) for k, v in arrays.items()})
    figures = {"accuracy": float(right.mean())}
    if taught.any():
        truth = p[np.flatnonzero(taught), place]
        figures["class_nats"] = float(-np.log(np.maximum(truth, 1e-300)).mean())
    figures["calibration_error"] = float((count * np.abs(mean_sure - mean_right)).sum() / count.sum())
    return figures, notes


def _write_strips(folder: Path, model: TokenProduct, x: torch.Tensor, generator: torch.Generator) -> None:
    """Fields on their way up, each from one draw of the coarsest tokens, and one real field on its way down."""
    last = len(model.levels) - 1
    flow = [model.render(model.coarsen(x, level), level)[0] for level in range(last + 1)]
    y = model.sample(ROWS, generator=generator, level=last)
    generated = [model.render(y, last)]
    for level in range(last, 0, -1):
        y = model.refine(y, level=level, to=level - 1, generator=generator)
        generated.append(model.render(y, level - 1))
    write_arrays(
        folder / "samples" / "strip.npz",
        generated=torch.stack(generated),
        flow=torch.stack(flow),
    )


def _write_tokens(folder: Path, model: TokenProduct) -> None:
    """What the tokens of the member that draws look like, and those that speak most for each class.

    Nothing is written of tokens that are single sites.
    """
    sampler = model.sampler_
    arrays: dict[str, np.ndarray] = {}
    for level in range(1, len(model.levels)):
        with suppress(DataError):  # tokens that show nothing alone have no pictures
            found = token_pictures(sampler, level, PICTURES)
            if found.pictures[0, 0].size > 1:
                arrays |= {f"level{level}": found.pictures, f"uses{level}": found.uses}
    if "level1" in arrays and len(model.classes_) > 1:
        said = speaks_for(sampler, ROWS)
        placed = tokens_in_place(sampler, said.positions.ravel(), said.tokens.ravel())
        arrays |= {"speaking": placed.reshape(*said.tokens.shape, *placed.shape[1:])}
        arrays |= {"nats": said.nats, "classes": np.asarray(model.classes_)}
    if arrays:
        arrays["members"] = np.array(len(model.members_))
        write_arrays(folder / "samples" / "tokens.npz", **{k: torch.from_numpy(v) for k, v in arrays.items()})


def _write_path(folder: Path, model: TokenProduct, x: torch.Tensor, label: int | None) -> None:
    """What each member that votes reads from one test field for the class that they predict together."""
    p = model.predict_proba(x[None].numpy())[0]
    voters = [member for member in model.members_ if member.temper > 0]
    try:
        found = [evidence_map(member, x.numpy(), int(p.argmax())) for member in voters]
    except DataError:
        return  # one class, or log-odds that are infinite
    if not found:
        return
    arrays = {
        "images": np.stack([evidence.image for evidence in found]),
        "sites": np.stack([evidence.sites for evidence in found]),
        "nats": np.array([[evidence.positions.sum(), evidence.rest, evidence.prior] for evidence in found]),
        "posterior": p,
        "classes": np.asarray(model.classes_),
    }
    if label is not None and label >= 0:
        arrays["label"] = np.array(label)
    write_arrays(folder / "samples" / "path.npz", **{k: torch.from_numpy(v) for k, v in arrays.items()})


def _write_completed(folder: Path, model: TokenProduct, x: torch.Tensor, generator: torch.Generator) -> None:
    """Test fields whose lower half (of a chain: right half) is drawn anew, given the other half."""
    _, height, width = model.sampler_.pictures_.shape
    seen = np.zeros((height, width), bool)
    seen[: height // 2 if height > 1 else 1, : width if height > 1 else width // 2] = True
    try:
        draws = [model.in_paint(x.numpy(), seen, generator=generator) for _ in range(DRAWS)]
    except (DataError, RecipeError):
        return  # a codebook that cannot say what halves tell, or a law that rules them out
    hidden = torch.from_numpy(np.broadcast_to(~seen, model.sampler_.pictures_.shape).reshape(x.shape[1:]).copy())
    write_arrays(
        folder / "samples" / "completed.npz",
        seen=torch.where(hidden, torch.nan, x),
        draws=torch.from_numpy(np.stack(draws)),
        true=x,
    )
