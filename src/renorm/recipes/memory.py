"""Samples beside the training images nearest to them: does the model invent, or remember?"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from renorm.data.fields import Fields
from renorm.measure.neighbours import Memorisation, Neighbours, memorisation, nearest

__all__ = ["Candidates", "Memory", "compare_with_training"]

PROBED = 1000  # samples, and as many test images, whose nearest training images are sought
SHOWN = 8  # samples in the picture: half of them the likeliest copies
BESIDE = 4  # nearest training images beside each
ALARM = 1e-3  # chance below which it is said aloud


@dataclass(frozen=True)
class Candidates:
    """Where neighbours in features are sought: features of samples, and of some training images.

    Attributes:
        samples: Features of the samples.
        training: Features of some training images.
        index: Which training images these are.
    """

    samples: Tensor
    training: Tensor
    index: Tensor


@dataclass(frozen=True)
class Memory:
    """What was found: flat figures, notes, and arrays for the picture."""

    figures: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, Tensor] = field(default_factory=dict)


def compare_with_training(
    x: Tensor, test: Fields, train: Fields, *, flip: bool = False, candidates: Candidates | None = None
) -> Memory:
    """How near samples come to training images, beside how near test images come; nothing where data are no pictures.

    Args:
        x: Samples.
        test: Fresh images of the same law.
        train: All that the model learned from.
        flip: Whether it learned from mirrored images too; a mirrored copy is a copy.
        candidates: For neighbours in features, beside those in pixels.
    """
    if any(fields.values.dtype != torch.uint8 for fields in (test, train)) or len(train) < 2:
        return Memory()
    k = min(BESIDE, len(train))
    chosen = torch.randperm(len(test), generator=torch.Generator().manual_seed(0))[:PROBED]
    pictures = test.to_uint8(x[:PROBED])
    ours = _nearest(pictures, train.values, k, flip)
    theirs = _nearest(test.values[chosen], train.values, 2, flip)
    found = memorisation(ours.distance[:, :2], theirs.distance)
    figures = {
        "nearest_training_ratio": found.ratio,
        "near_training": found.near,
        "near_training_floor": found.expected,
        "copied": found.copies,
        "copied_floor": found.test_copies,
    }
    loud = found.p_value < ALARM
    notes = {"memorised" if loud else "memorisation": _sentence(found, len(pictures), len(chosen), train, loud)}
    suspects = (ours.distance[:, 0] / ours.distance[:, 1].clamp_min(1e-9)).argsort()[: SHOWN // 2]
    others = torch.arange(len(pictures))
    rows = torch.cat([suspects, others[~torch.isin(others, suspects)][: SHOWN - len(suspects)]])
    unit = 255 * train.values[0].numel() ** 0.5  # root mean square of a value in [0, 1]
    arrays = {
        "x": pictures[rows],
        "nearest": _images(ours.indices[rows], train.values),
        "distance": ours.distance[rows] / unit,
        "test_distance": theirs.distance[:, 0].median() / unit,
    }
    if candidates is not None and len(candidates.index) >= BESIDE:
        near = nearest(candidates.samples[rows], candidates.training, k=BESIDE)
        arrays["nearest_features"] = _images(candidates.index[near.indices], train.values)
        arrays["among"] = torch.tensor(len(candidates.index))
    return Memory(figures, notes, arrays)


def _sentence(found: Memorisation, num: int, fresh: int, train: Fields, loud: bool) -> str:
    """What the two signs say, the louder one first."""
    copies, of_test = round(found.copies * num), round(found.test_copies * fresh)
    copied = (
        f"{copies or 'none'} of {num} samples {'is a copy' if copies == 1 else 'are copies'}, three times nearer to "
        f"one training image than to any other (of {fresh} test images {of_test or 'none'})"
    )
    share = (
        f"{100 * found.near:.3g} % of the samples lie nearer to one of the {len(train)} training images than the "
        f"nearest {100 * found.expected:.2g} % of test images do"
    )
    if 2 * found.p_copies < ALARM:
        return f"{copied}; {share}"
    if copies > of_test and not loud:
        return f"{copied}, which may be chance: look at the first pairs; {share}"
    if loud:
        return f"{share}, more than by chance, and {copied}; smooth or empty samples may lie near to many images"
    return f"no sign of memory: {copied}, and {share}, as many as chance allows"


def _nearest(x: Tensor, training: Tensor, k: int, flip: bool) -> Neighbours:
    """Nearest training images; with ``flip`` those at N and beyond are mirrored, and no image counts twice."""
    found = nearest(x, training, k=k)
    if not flip:
        return found
    mirrored = nearest(x.flip(-1), training, k=k)
    both = torch.cat([found.distance, mirrored.distance], 1)
    index = torch.cat([found.indices, mirrored.indices + len(training)], 1)
    distance, order = both.sort(dim=1, stable=True)
    index = index.gather(1, order)
    image = index % len(training)
    again = (image[:, :, None] == image[:, None, :]).tril(-1).any(2)  # the same image, mirrored, further away
    distance, order = distance.masked_fill(again, torch.inf).sort(dim=1, stable=True)
    return Neighbours(index.gather(1, order)[:, :k], distance[:, :k])


def _images(index: Tensor, training: Tensor) -> Tensor:
    """The images of some places, mirrored from the number of images on."""
    found = training[index % len(training)]
    mirrored = (index >= len(training)).reshape(*index.shape, *[1] * (training.dim() - 1))
    return torch.where(mirrored, found.flip(-1), found)
