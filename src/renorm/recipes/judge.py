"""Samples beside test fields: the measures that every wing's runs share."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from renorm.data.fields import Fields
from renorm.errors import DataError, RecipeError
from renorm.measure.features import extractor, frechet
from renorm.measure.spectrum import compare_spectra, power_spectrum
from renorm.recipes.spec import MeasureSpec

__all__ = ["REFERENCE", "Judgement", "check_measurable", "judge", "to_unit"]

REFERENCE = 10_000  # fields of the test split against which samples are measured


@dataclass(frozen=True)
class Judgement:
    """What samples are worth.

    Attributes:
        figures: Flat key -> number.
        notes: What the figures stand on.
        spectrum: Power of samples and of data against wavenumber, for the report.
    """

    figures: dict[str, Any]
    notes: dict[str, Any]
    spectrum: dict[str, list[float]]


def judge(x: Tensor, reference: Tensor, test: Fields, measure: MeasureSpec, name: str) -> Judgement:
    """Spectrum and, where the recipe names an extractor, Frechet distance of samples against test fields."""
    ours, theirs = power_spectrum(x, test.lattice), power_spectrum(reference, test.lattice)
    gap = compare_spectra(ours, theirs)
    figures: dict[str, Any] = {"spectrum_max_log_ratio": gap.max_log_ratio, "spectrum_max_z": gap.max_z}
    notes: dict[str, Any] = {"reference": f"{len(reference)} test fields of {name}"}
    if measure.extractor:
        distance = frechet(to_unit(x, test), to_unit(reference, test), extractor(measure.extractor))
        figures[f"{distance['figure']}"] = distance["value"]
        notes["extractor_sha256"] = distance["sha256"]
    spectrum = {
        "k": ours.k.tolist(),
        "data": theirs.power.tolist(),
        "data_error": theirs.error.tolist(),
        "samples": ours.power.tolist(),
        "samples_error": ours.error.tolist(),
    }
    return Judgement(figures, notes, spectrum)


def check_measurable(measure: MeasureSpec, fields: Fields) -> None:
    """Say before the training, not after it, that the samples could not be measured."""
    if measure.extractor is None:
        return
    known = extractor(measure.extractor)
    to_unit(fields.batch(torch.arange(1)), fields)
    if known.channels != fields.lattice.channels or fields.lattice.dim != 2:
        raise RecipeError(
            f"extractor '{known.name}' reads pictures of {known.channels} channel(s), the data are "
            f"{fields.lattice.event_shape}; drop measure.extractor or choose another"
        )


def to_unit(x: Tensor, fields: Fields) -> Tensor:
    """Fields as pictures in [0, 1], clipped and rounded to bytes as a saved picture would be.

    Raises:
        DataError: If the data set holds no pictures.
    """
    if fields.values.dtype != torch.uint8:
        raise DataError("a Frechet distance needs pictures, got float fields; drop measure.extractor")
    return fields.to_uint8(x).float() / 255
