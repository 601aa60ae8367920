"""The runs of a comparison: what identifies each, whether they can be compared, which are seeds of one method."""

import hashlib
import json
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

from renorm.data import load as load_data
from renorm.data.fields import Fields
from renorm.data.spec import DataSpec
from renorm.errors import CheckpointError, DataError, RecipeError
from renorm.fit.checkpoint import differences
from renorm.recipes.baselines import WALK, baseline, baseline_of, is_white
from renorm.recipes.folder import read_field_recipe
from renorm.recipes.recorded import check_recorded
from renorm.recipes.spec import FieldRecipe, Recipe, TokensRecipe
from renorm.spec import to_mapping

__all__ = ["Method", "Subject", "comparable", "methods_of", "subject"]

_IDLE = ("checkpoint_every", "checkpoint_seconds", "log_every", "keep", "tensorboard")
"""Settings of a fit that do not change what is learned."""


@dataclass(frozen=True)
class Subject:
    """A run that takes part.

    Attributes:
        folder: The run folder.
        recipe: Its resolved recipe.
        weights: SHA-256 of each file of weights and moments.
        identity: All that its samples depend on, but for the walk.
        manifest: Where and with what it was fitted.
    """

    folder: Path
    recipe: FieldRecipe
    weights: dict[str, str]
    identity: dict[str, Any]
    manifest: dict[str, Any] = field(default_factory=dict)

    @property
    def seed(self) -> int:
        """Seed of the fit."""
        return int(getattr(self.recipe, self.recipe.SEED).seed)


@dataclass(frozen=True)
class Method:
    """Runs that differ by their seed alone.

    Attributes:
        name: What their folders have in common.
        runs: One for each seed.
        baseline: The baseline that they are, if any.
        twin: Name of the method's white twin, if it is there.
    """

    name: str
    runs: tuple[Subject, ...]
    baseline: str | None = None
    twin: str | None = None


def subject(folder: Path) -> Subject:
    """Read what identifies a run; its fit must be finished.

    Raises:
        CheckpointError: If the folder holds no run, or one whose fit is not finished.
    """
    recipe = read_field_recipe(folder)
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        manifest = {}
    card = folder / ("product.toml" if isinstance(recipe, TokensRecipe) else "model.toml")
    trained = (
        not isinstance(recipe, Recipe)
        or recipe.model.denoiser == "gaussian"
        or (folder / "model.safetensors").is_file()
    )
    # A run that was finished and is being taken further has weights of the shorter fit, and no seconds yet.
    if not card.is_file() or not trained or manifest.get("seconds", 0) is None:
        raise CheckpointError(
            f"the fit of {folder} is not finished; `renorm fit RECIPE --out {folder} --resume` goes on"
        )
    kept = [path.relative_to(folder) for path in sorted(folder.rglob("*.safetensors"))]
    weights = {str(name): _sha256(folder / name) for name in kept if "checkpoints" not in name.parts}
    model: dict[str, Any] = {}
    for path in sorted([*folder.glob("*.toml"), *folder.glob("*/*.toml")]):
        if path.name in ("model.toml", "product.toml"):
            table = tomllib.loads(path.read_text(encoding="utf-8"))
            for key in WALK:
                table.get("spec", {}).pop(key, None)
            model[str(path.relative_to(folder))] = table
    return Subject(folder, recipe, weights, {"weights": weights, "model": model}, manifest)


def comparable(subjects: Sequence[Subject]) -> Fields:
    """The test fields that all runs share.

    Raises:
        DataError: If runs are of different data (test fields, or training fields where their manifests tell), sizes or
            value ranges, or an extractor is not the recorded one.
        RecipeError: If runs differ in their extractor, or one stands there twice.
    """
    first = subjects[0]
    loaded: dict[DataSpec, Fields] = {}
    digests: dict[DataSpec, str] = {}
    facts: list[dict[str, Any]] = []
    for each in subjects:
        data = each.recipe.data
        if data not in loaded:
            loaded[data] = load_data(data, "test")
            digests[data] = replace(loaded[data], labels=None, num_classes=None).sha256()
        facts.append(_facts(each, loaded[data], digests[data]))
        different = differences(facts[0], facts[-1])
        if different:
            raise DataError(
                f"{first.folder} ({first.recipe.data.name}) and {each.folder} ({each.recipe.data.name}) cannot be "
                f"compared, their data differ: {'; '.join(different)}; compare runs of one data set, size and range"
            )
        names = [one.recipe.measure.extractor for one in (first, each)]
        if names[0] != names[1]:
            raise RecipeError(
                f"{first.folder} and {each.folder} must name one extractor (figures of two networks cannot be "
                f"compared), got {names[0]} and {names[1]}; change measure.extractor in a recipe.toml"
            )
        check_recorded(each.folder, each.recipe.measure)
    _check_training(subjects)
    return loaded[first.recipe.data]


def methods_of(subjects: Sequence[Subject]) -> list[Method]:
    """Runs grouped by all but their seed, in the order given, each with its white twin.

    Raises:
        RecipeError: If two runs of one method have one seed, and so are no two draws of it.
    """
    groups: dict[str, list[Subject]] = {}
    for each in subjects:
        group = groups.setdefault(_but_seed(each.recipe), [])
        for other in group:
            if other.seed == each.seed:
                raise RecipeError(
                    f"{other.folder} and {each.folder} differ in nothing, not even in their seed {each.seed}; give "
                    "one of them"
                )
        group.append(each)
    names: dict[str, str] = {}
    for key, group in groups.items():
        folder = group[0].folder
        known = (_common([run.folder for run in group]), str(folder), str(folder.resolve()))
        names[key] = next(name for name in known if name not in names.values())  # no two groups share a folder
    methods = []
    for key, group in groups.items():
        recipe = group[0].recipe
        twin = None
        if isinstance(recipe, Recipe) and not is_white(recipe):
            twin = names.get(_but_seed(baseline(recipe, "white-twin")))
        methods.append(Method(names[key], tuple(group), baseline_of(recipe), twin))
    return methods


def _facts(run: Subject, test: Fields, digest: str) -> dict[str, Any]:
    """What must agree: where fields live, what values mean, the test fields, how many were learned from."""
    facts = {
        "sites": list(test.lattice.event_shape),
        "boundary": test.lattice.boundary,
        "value_range": list(test.value_range),
        "test_fields": f"{len(test)} of SHA-256 {digest[:16]}",
    }
    number = run.manifest.get("data", {}).get("number")
    return {**facts, "training_fields": number} if number else facts


def _check_training(subjects: Sequence[Subject]) -> None:
    """Refuse runs that learned from other fields, where their manifests tell; a digest holds the labels as well."""
    first: dict[bool, tuple[Subject, str]] = {}
    for each in subjects:
        digest = each.manifest.get("data", {}).get("sha256")
        if not digest:
            continue
        before, known = first.setdefault(each.recipe.data.labels, (each, digest))
        if digest != known:
            raise DataError(
                f"{before.folder} and {each.folder} cannot be compared, they learned from different training fields: "
                f"SHA-256 {known[:16]} and {digest[:16]}; compare runs of one data set, or fit one of them anew"
            )


def _but_seed(recipe: FieldRecipe) -> str:
    """The recipe as text, without its seed and what does not change what is learned: walk, measures, checkpoints."""
    table = to_mapping(recipe)
    table.pop("measure")
    table.pop("description")
    table[recipe.SEED].pop("seed", None)
    for key in _IDLE:
        table.get("fit", {}).pop(key, None)
    for key in WALK if isinstance(recipe, Recipe) else ():
        table["model"].pop(key, None)
    return json.dumps(table, sort_keys=True)


def _common(folders: Sequence[Path]) -> str:
    """What the names of folders have in common, in whole words and numbers: ours-10 and ours-11 become ours."""
    names = [folder.resolve().name for folder in folders]
    if len(names) == 1:
        return names[0]
    words = [re.findall(r"\d+|[^\W\d_]+|[\W_]", name) for name in names]
    shared = "".join(each[0] for each in takewhile(lambda each: len(set(each)) == 1, zip(*words, strict=False)))
    return re.sub(r"[-_. ]+(?:seed|s)?[-_. ]*$", "", shared) or names[0]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
