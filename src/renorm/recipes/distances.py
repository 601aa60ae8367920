"""Two sets of fields beside each other: every distance between them, each number that several need computed once."""

import hashlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from renorm.data.fields import Fields
from renorm.errors import DataError
from renorm.measure.features import FeatureExtractor
from renorm.measure.manifold import manifold
from renorm.measure.spectrum import Spectrum, compare_spectra, power_spectrum
from renorm.measure.two_sample import FeatureStatistics, frechet_distance, kernel_distance, sliced_wasserstein

__all__ = ["SEED", "Side", "distances_of", "side_of", "stands_on", "to_unit"]

MOST = 5000  # fields a side of the measures whose cost grows with the square of their number
DIRECTIONS = 256  # of the sliced Wasserstein distance
K = 5  # nearest neighbours that make a ball
PARTS = 20  # of the kernel distance's error
SEED = 0  # of directions, parts and choices: one for all runs, so that all are compared alike

_KEPT: dict[str, Tensor] = {}  # features of data by their hashes: a table of many cells has one reference


@dataclass(frozen=True)
class Side:
    """One side of a comparison.

    Attributes:
        spectrum: Of the fields.
        flat: Fields as vectors; pictures in [0, 1], as saved ones would be.
        features: Of the pictures, where there is an extractor.
        statistics: Mean and covariance of these.
    """

    spectrum: Spectrum
    flat: Tensor
    features: Tensor | None = None
    statistics: FeatureStatistics | None = None


def side_of(x: Tensor, fields: Fields, extractor: FeatureExtractor | None, *, keep: bool = False) -> Side:
    """What is compared of some fields.

    Args:
        x: The fields.
        fields: The data set whose lattice and value range they share.
        extractor: Of features, or none.
        keep: Whether the features will be asked for again, as those of data are.
    """
    spectrum = power_spectrum(x, fields.lattice)
    if fields.values.dtype != torch.uint8:
        return Side(spectrum, x.flatten(1))
    pictures = to_unit(x, fields)
    if extractor is None:
        return Side(spectrum, pictures.flatten(1))
    features = _kept(pictures, extractor) if keep else _features(pictures, extractor)
    return Side(spectrum, pictures.flatten(1), features, FeatureStatistics(features.shape[1]).update(features))


def distances_of(ours: Side, theirs: Side, name: str | None) -> dict[str, Any]:
    """Every distance of one side from another, as flat figures; a key that ends in ``_error`` is a standard error.

    Args:
        name: Of the extractor; without it, or where a side has no features, the fields alone are compared.
    """
    gap = compare_spectra(ours.spectrum, theirs.spectrum)
    figures: dict[str, Any] = {"spectrum_max_log_ratio": gap.max_log_ratio, "spectrum_max_z": gap.max_z}
    if ours.flat.isfinite().all():  # a walk that ran away has no distance
        a, b = _some(ours.flat, MOST), _some(theirs.flat, MOST)
        figures["sliced_wasserstein"] = float(
            sliced_wasserstein(a, b, directions=DIRECTIONS, generator=_seeded()).value
        )
    if name is None or ours.features is None or theirs.features is None:
        return figures
    assert ours.statistics is not None
    assert theirs.statistics is not None
    figures[f"FD[{name}]"] = frechet_distance(ours.statistics, theirs.statistics)
    a, b = _some(ours.features, MOST), _some(theirs.features, MOST)
    parts = min(PARTS, len(a) // 2, len(b) // 2)
    kernel = kernel_distance(a, b, parts=parts, generator=_seeded())
    figures |= {f"KID[{name}]": float(kernel.value), f"KID[{name}]_error": float(kernel.error)}
    num = min(len(a), len(b))  # balls of a larger set are smaller: equal numbers
    if num > K:
        shares = manifold(_some(a, num), _some(b, num), k=K)
        figures |= {f"{key}[{name}]": value for key, value in shares._asdict().items()}
    return figures


def stands_on(ours: Side, theirs: Side) -> dict[str, str]:
    """How many fields and which constants the figures of `distances_of` stand on, as notes."""
    n, m = (min(len(side.flat), MOST) for side in (ours, theirs))
    notes = {"sliced_wasserstein": f"{n} samples and {m} test fields along {DIRECTIONS} directions"}
    if ours.features is not None:
        notes["kernel_distance"] = f"{n} samples and {m} test fields; jackknife over {min(PARTS, n // 2, m // 2)} parts"
        notes["precision_and_recall"] = f"{min(n, m)} fields a side, {K} nearest neighbours"
    return notes


def to_unit(x: Tensor, fields: Fields) -> Tensor:
    """Fields as pictures in [0, 1], clipped and rounded to bytes as a saved picture would be.

    Raises:
        DataError: If the data set holds no pictures.
    """
    if fields.values.dtype != torch.uint8:
        raise DataError("a Frechet distance needs pictures, got float fields; drop measure.extractor")
    return fields.to_uint8(x).float() / 255


def _kept(pictures: Tensor, extractor: FeatureExtractor) -> Tensor:
    """Features of data, remembered for as long as the process lives; the last few sets."""
    digest = hashlib.sha256(pictures.contiguous().numpy().data).hexdigest()
    key = f"{extractor.name} {extractor.sha256} {tuple(pictures.shape)} {digest}"
    if key not in _KEPT:
        while len(_KEPT) >= 4:
            _KEPT.pop(next(iter(_KEPT)))
        _KEPT[key] = _features(pictures, extractor)
    return _KEPT[key]


def _features(pictures: Tensor, extractor: FeatureExtractor) -> Tensor:
    """Features on the CPU, reckoned on the GPU if there is one, in full float32 so that they are the same."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with torch.backends.cudnn.flags(allow_tf32=False):
        return torch.cat([extractor(part.to(device)).cpu() for part in torch.split(pictures, 1000)])


def _some(x: Tensor, most: int) -> Tensor:
    """So many rows, chosen at random: the first ones of a data set may be easier than the last."""
    return x if len(x) <= most else x[torch.randperm(len(x), generator=_seeded())[:most]]


def _seeded() -> torch.Generator:
    return torch.Generator().manual_seed(SEED)
