"""Cells of a comparison: one run, one walk, one number of evaluations, measured once and kept as a file.

    OUT/cells/HASH.json

The hash is of all that the figures depend on: weights, walk, steps, samples, seed, extractor, test fields. The code
that measured stands in the file, as its commit.
"""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from renorm.data import load as load_data
from renorm.data.fields import Fields
from renorm.data.spec import DataSpec
from renorm.diffusion.denoiser import Denoiser
from renorm.diffusion.mode_diffusion import ModeDiffusion
from renorm.errors import CheckpointError
from renorm.measure.features import extractor
from renorm.recipes import diffusion_run
from renorm.recipes.baselines import WalkName
from renorm.recipes.compare_runs import Subject
from renorm.recipes.distances import SEED
from renorm.recipes.folder import DIRTY, machine, write_json
from renorm.recipes.judge import REFERENCE, check_enough, judge
from renorm.recipes.run import Model, sample_run
from renorm.recipes.spec import MeasureSpec

__all__ = ["Cached", "Cell", "Plan", "Yardstick", "as_cell", "measure_cell", "measure_floor", "read_cell"]

WARM = 64  # fields that walk one step, or are drawn in one pass, before the clock starts

Cached = Literal["refuse", "again", "accept"]
"""What to do with a cell that other code has measured."""


@dataclass(frozen=True, eq=False)
class Yardstick:
    """What all cells are measured by.

    Attributes:
        data: The data set.
        measure: The extractor, and how many samples.
        test: The test split.
        facts: What identifies both: hashes of the test fields and of the extractor.
        code: Commit, versions and machine, as they were when the comparison began.
    """

    data: DataSpec
    measure: MeasureSpec
    test: Fields
    facts: dict[str, Any]
    code: dict[str, Any]

    @classmethod
    def of(cls, data: DataSpec, measure: MeasureSpec, test: Fields) -> "Yardstick":
        """Look at the test fields and the extractor once.

        Raises:
            DataError: If there are too few samples or test fields for a covariance of the features.
        """
        check_enough(measure, measure.samples, test)
        plain = replace(test, values=test.values[:REFERENCE], labels=None, num_classes=None)
        facts: dict[str, Any] = {
            "reference_sha256": plain.sha256(),
            "reference_fields": len(plain),
            "boundary": test.lattice.boundary,
            "value_range": list(test.value_range),
            "extractor": None,
        }
        if measure.extractor:
            known = extractor(measure.extractor)
            facts |= {"extractor": known.name, "extractor_sha256": known.sha256}
        return cls(data, measure, test, facts, machine())

    def figures(self, x: Tensor) -> tuple[dict[str, Any], dict[str, Any]]:
        """Figures and notes of some fields; the training fields are not looked at."""
        reference = self.test.batch(torch.arange(min(len(self.test), REFERENCE)))
        judged = judge(x, reference, self.test, self.measure, self.data, training=False)
        return judged.figures, judged.notes


@dataclass(frozen=True)
class Plan:
    """A cell that is to be measured.

    Attributes:
        subject: The run.
        walk: Sampler and spacing; ``None`` for a model that draws in one pass.
        steps: Of the walk.
        evaluations: That these steps make.
    """

    subject: Subject
    walk: WalkName | None
    steps: int | None
    evaluations: int

    def path(self, folder: Path, yardstick: Yardstick, seed: int) -> Path:
        """Where the cell is kept, by the hash of all that it depends on."""
        depends = {
            **self.subject.identity,
            "walk": None if self.walk is None else [*self.walk],
            "steps": self.steps,
            "samples": yardstick.measure.samples,
            "seed": seed,
            **yardstick.facts,
        }
        return folder / f"{_hash(depends)}.json"


@dataclass(frozen=True)
class Cell:
    """What was measured.

    Attributes:
        run: The run folder.
        walk: ``SAMPLER@SPACING``, or ``one pass``.
        steps: Of the walk.
        evaluations: Of the network for each sample, as counted.
        samples: How many.
        seed: Of the sampling.
        seconds_per_sample: Of the sampling alone, on the machine of ``provenance``.
        figures: As in ``measures.json``.
        notes: What they stand on.
        provenance: SHA-256 of weights, extractor and test fields; commit, versions, machine, date.
    """

    run: str
    walk: str
    steps: int | None
    evaluations: int
    samples: int
    seed: int
    seconds_per_sample: float
    figures: dict[str, Any]
    notes: dict[str, Any]
    provenance: dict[str, Any]


def read_cell(
    path: Path, cached: Cached, code: Mapping[str, Any], *, needs: Sequence[str] = ()
) -> dict[str, Any] | None:
    """A cell that is there, or ``None`` where it must be measured; a damaged file counts as none.

    A commit with changes that were not committed does not identify code, so it counts as other code.

    Args:
        path: Its file.
        cached: What to do if other code has measured it.
        code: This one's commit and version.
        needs: What the file must hold beside figures and provenance.

    Raises:
        CheckpointError: If another commit or version measured it and ``cached`` is ``"refuse"``.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        by, figures = found["provenance"], found["figures"]
        commit, version = str(by["commit"]), by["renorm"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not isinstance(figures, dict) or not figures or any(key not in found for key in needs):
        return None
    dirty = commit.endswith(DIRTY)
    same = (commit, version) == (code["commit"], code["renorm"]) and not dirty
    if same or cached == "accept":
        return dict(found)
    if cached == "again":
        return None
    why = " (with changes that no commit holds)" if dirty else ""
    raise CheckpointError(
        f"{path} was measured by renorm {version} at commit {commit}{why}, this is {code['renorm']} at commit "
        f"{code['commit']}; add --again to measure such cells anew, or --accept-cached to take them as they are"
    )


def as_cell(found: Mapping[str, Any], run: Path, path: Path) -> Cell:
    """A cell from its file; the run may have moved since.

    Raises:
        CheckpointError: If the file lacks a value that this version writes.
    """
    known = {field.name for field in fields(Cell)}
    if known - found.keys():
        raise CheckpointError(f"{path} lacks {', '.join(sorted(known - found.keys()))}; remove it to measure it anew")
    return Cell(**{**{key: value for key, value in found.items() if key in known}, "run": str(run)})


def measure_cell(plan: Plan, model: Model, yardstick: Yardstick, seed: int, path: Path) -> Cell:
    """Sample, measure, write."""
    num = yardstick.measure.samples
    evaluations = plan.evaluations
    if isinstance(model, ModeDiffusion):
        assert plan.walk is not None
        walked = model.with_walk(sampler=plan.walk.sampler, spacing=plan.walk.spacing)
        classes = diffusion_run.equal_classes(model, num)
        _warm_up(walked, min(num, WARM))
        counted = _Counted(walked.denoiser)
        walked.denoiser = counted
        begun = time.perf_counter()
        x = sample_run(plan.subject.folder, num, seed=seed, steps=plan.steps, condition=classes, model=walked)
        seconds = time.perf_counter() - begun
        evaluations = counted.fields // num
    else:
        _warm_up(model, min(num, WARM))
        begun = time.perf_counter()
        x = sample_run(plan.subject.folder, num, seed=seed, model=model)
        seconds = time.perf_counter() - begun
    figures, notes = yardstick.figures(x)
    cell = Cell(
        run=str(plan.subject.folder),
        walk="one pass" if plan.walk is None else str(plan.walk),
        steps=plan.steps,
        evaluations=evaluations,
        samples=num,
        seed=seed,
        seconds_per_sample=seconds / num,
        figures=figures,
        notes=notes,
        provenance={"weights_sha256": plan.subject.weights, **yardstick.facts, **yardstick.code},
    )
    write_json(path, asdict(cell))
    return cell


def measure_floor(yardstick: Yardstick, folder: Path, cached: Cached) -> dict[str, Any]:
    """The figures of as many training fields in place of samples; empty for the fields of a law.

    Too few of them for a covariance of the features have the figures of the fields alone.
    """
    if yardstick.data.law is not None:
        return {}
    train = load_data(yardstick.data, "train")
    num, few = yardstick.measure.samples, len(train)
    if few < 2:
        return {}
    path = folder / f"floor-{_hash({**yardstick.facts, 'samples': num, 'training_sha256': train.sha256()})}.json"
    found = read_cell(path, cached, yardstick.code, needs=["training_fields"])
    if found is not None:
        return found
    index = torch.randperm(few, generator=torch.Generator().manual_seed(SEED))[:num]
    measured = yardstick
    if len(index) < num and yardstick.measure.extractor:
        measured = replace(yardstick, measure=replace(yardstick.measure, extractor=None))
    figures, notes = measured.figures(train.batch(index))
    written = {
        "training_fields": len(index),
        "figures": figures,
        "notes": notes,
        "provenance": {**yardstick.facts, **yardstick.code},
    }
    write_json(path, written)
    return written


def _warm_up(model: Model, num: int) -> None:
    """One step, or one pass: what is made once, memory and tables, is not the first cell's time."""
    if isinstance(model, ModeDiffusion):
        diffusion_run.sample(model, num, seed=0, steps=1)
    else:
        model.sample(num, generator=torch.Generator().manual_seed(0))


class _Counted:
    """A denoiser that counts the fields it is asked about."""

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser, self.fields = denoiser, 0

    def __call__(self, modes: Tensor, t: float | Tensor, condition: Tensor | None = None) -> Tensor:
        self.fields += len(modes)
        return self.denoiser(modes, t, condition)


def _hash(depends: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()[:24]
