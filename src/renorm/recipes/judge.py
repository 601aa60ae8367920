"""Samples beside test fields: the measures that every wing's runs share."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from renorm.data import load as load_data
from renorm.data.fields import Fields
from renorm.data.spec import DataSpec
from renorm.errors import DataError, RecipeError
from renorm.measure.features import FeatureExtractor, extractor
from renorm.recipes.distances import SEED, Side, distances_of, side_of, stands_on, to_unit
from renorm.recipes.folder import write_arrays
from renorm.recipes.memory import Candidates, compare_with_training
from renorm.recipes.spec import MeasureSpec

__all__ = [
    "REFERENCE",
    "Judgement",
    "check_enough",
    "check_error_bars",
    "check_measurable",
    "judge",
    "to_unit",
]

REFERENCE = 10_000  # fields of the test split against which samples are measured


@dataclass(frozen=True)
class Judgement:
    """What samples are worth.

    Attributes:
        figures: Flat key -> number. ``KEY_error`` is one standard error of ``KEY``; ``KEY_floor`` is the same figure of
            as many training fields, which perfect samples would have, but for chance.
        notes: What the figures stand on.
        spectrum: Power of samples and of data against wavenumber, for the report.
        neighbours: Samples and their nearest training images, for the report; empty where data are no pictures.
    """

    figures: dict[str, Any]
    notes: dict[str, Any]
    spectrum: dict[str, list[float]]
    neighbours: dict[str, Tensor] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write the arrays of the picture, if there are any, to ``samples/neighbours.npz``."""
        if self.neighbours:
            write_arrays(folder / "samples" / "neighbours.npz", **self.neighbours)


def judge(
    x: Tensor, reference: Tensor, test: Fields, measure: MeasureSpec, data: DataSpec, *, training: bool = True
) -> Judgement:
    """Measure samples against test fields, and as many training fields in their place, the floor.

    Spectrum and sliced Wasserstein distance of the fields themselves; where the recipe names an extractor, Frechet and
    kernel distance, precision, recall, density and coverage of its features; of pictures, how near samples come to
    training images.

    Args:
        x: The samples.
        reference: Test fields.
        test: The split that they are from.
        measure: How samples are judged.
        data: What the model learned from: its training fields are read again, but for those of a law, which would have
            to be simulated anew and have no floor here.
        training: Whether to look at training fields at all; a table of many cells needs one floor only.

    Raises:
        DataError: If there are too few samples or test fields for a covariance of the features.
    """
    known = extractor(measure.extractor) if measure.extractor else None
    if known:
        _require_covariance(known, test, len(x), len(reference))
    ours, theirs = side_of(x, test, known), side_of(reference, test, known, keep=True)
    figures = distances_of(ours, theirs, known.name if known else None)
    notes: dict[str, Any] = {"reference": f"{len(reference)} test fields of {data.name}", **stands_on(ours, theirs)}
    bad = int((~x.flatten(1).isfinite().all(1)).sum())
    if bad:
        notes["not_finite"] = f"{bad} of {len(x)} samples hold nan or infinity; take more steps or another sampler"
    if known:
        notes["extractor_sha256"] = known.sha256
    neighbours: dict[str, Tensor] = {}
    train = load_data(data, "train") if training and data.law is None else None
    if train is not None and len(train) >= 2:
        index = torch.randperm(len(train), generator=torch.Generator().manual_seed(SEED))[: len(x)]
        floor = side_of(train.batch(index), test, known, keep=True)
        figures |= _floor(floor, theirs, known if len(index) == len(x) else None)  # fewer would score worse
        notes["floor"] = f"{len(index)} training fields in place of the samples"
        candidates = None
        if ours.features is not None and floor.features is not None:
            candidates = Candidates(ours.features, floor.features, index)
        found = compare_with_training(x, test, train, flip=data.flip, candidates=candidates)
        figures, notes, neighbours = figures | found.figures, notes | found.notes, found.arrays
    spectrum = {
        "k": ours.spectrum.k.tolist(),
        "data": theirs.spectrum.power.tolist(),
        "data_error": theirs.spectrum.error.tolist(),
        "samples": ours.spectrum.power.tolist(),
        "samples_error": ours.spectrum.error.tolist(),
    }
    return Judgement(figures, notes, spectrum, neighbours)


def _floor(floor: Side, theirs: Side, known: FeatureExtractor | None) -> dict[str, Any]:
    """The figures of training fields, as floors; those of the fields alone without an extractor."""
    figures = distances_of(floor, theirs, known.name if known else None)
    return {f"{key}_floor": value for key, value in figures.items() if not key.endswith("_error")}


def check_error_bars(num: int, others: int) -> None:
    """Say before the sampling that an error bar needs two: samples, and fields of the test split.

    Raises:
        DataError: If there are fewer of either.
    """
    if num < 2:
        raise DataError(f"measure.samples (or -n) must be >= 2, an error bar needs two, got {num}")
    if others < 2:
        raise DataError(f"the test split must have two for an error bar, got {others}; set data.number to 20 or more")


def check_enough(measure: MeasureSpec, num: int, test: Fields) -> None:
    """Say before the sampling, not after it, that a covariance of the features needs more fields.

    Raises:
        DataError: If samples or test fields are fewer than ``features + 1``.
    """
    if measure.extractor is not None:
        _require_covariance(extractor(measure.extractor), test, num, min(len(test), REFERENCE))


def _require_covariance(known: FeatureExtractor, test: Fields, num: int, others: int) -> None:
    need = known(to_unit(test.batch(torch.arange(1)), test)).shape[1] + 1
    for number, what, cure in (
        (num, "samples", f"set measure.samples (or -n) to {need} or more"),
        (others, "test fields", "take a larger data set, or another extractor"),
    ):
        if number < need:
            raise DataError(
                f"FD[{known.name}] has {need - 1} features and needs at least {need} {what} (fewer leave their "
                f"covariance singular), got {number}; {cure}"
            )


def check_measurable(measure: MeasureSpec, fields: Fields) -> None:
    """Say before the training, not after it, that the samples could not be measured."""
    if measure.extractor is None:
        return
    known = extractor(measure.extractor)
    to_unit(fields.batch(torch.arange(1)), fields)
    if fields.lattice.channels not in known.reads or fields.lattice.dim != 2:
        raise RecipeError(
            f"extractor '{known.name}' reads pictures of {known.channels} channel(s), the data are "
            f"{fields.lattice.event_shape}; drop measure.extractor or choose another"
        )
