"""Features of residues in runs of chains: of a language model, or of files, standardised over the training chains.

features.safetensors      mean and standard deviation of each feature, and which language model they are of
"""

import hashlib
import os
from collections.abc import Sequence
from contextlib import closing
from copy import copy
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from renorm.data.proteins.chains import Chains
from renorm.data.proteins.features.files import FeatureFiles
from renorm.data.proteins.features.kept import default_cache, features_of
from renorm.data.proteins.features.language_model import LanguageModel, is_language_model
from renorm.data.proteins.sequence import UNKNOWN, Record
from renorm.data.proteins.spec import FeaturesSpec
from renorm.errors import CheckpointError, DataError, RecipeError
from renorm.fit.checkpoint import read_tensors, write_tensors
from renorm.fit.progress import Counted
from renorm.recipes.folder import is_first, read_recipe
from renorm.recipes.spec import ChainRecipe

__all__ = ["FILE", "ChainFeatures", "digest", "features_of_run", "records_of"]

FILE = "features.safetensors"
LEAST = 1e-3  # standard deviation that a feature is taken to have at least, in those of the one that varies most
FARTHEST = 1e4  # deviations from the mean: half precision ends beyond, and no network listens there


class ChainFeatures:
    r"""What a run tells its network of residues: $(f - \mu) / \sigma$, with mean and deviation of the training chains.

    A chain of no sequence (X alone) has features 0, as those have in training that do not tell their sequence.

    Args:
        spec: Which features.
        statistics: mu and sigma, each (features,), in float32; see ``measured``.

    Raises:
        RecipeError: If the spec names no folder.
        DataError: If there is none, or nothing of that kind is in it.
    """

    def __init__(self, spec: FeaturesSpec, statistics: tuple[Tensor, Tensor] | None = None) -> None:
        if spec.folder is None:
            raise RecipeError("features need a folder: features.folder, of a language model or of files")
        self.spec, self.statistics = spec, statistics
        folder = Path(spec.folder)
        self.source: LanguageModel | FeatureFiles
        if is_language_model(folder):
            self.source = LanguageModel(folder, layer=spec.layer, device=_device())
        else:
            self.source = FeatureFiles(folder)

    def about(self) -> dict[str, Any]:
        """What tells these features from others, as far as it is known without chains."""
        if isinstance(self.source, LanguageModel):
            known = {"layer": self.spec.layer, "dtype": self.spec.dtype}
            return {"kind": "language-model", "sha256": self.source.sha256, **known}
        return {"kind": "files"}

    def raw(self, records: Sequence[Record], *, progress: bool = False) -> list[Tensor]:
        """Features as they come, in the dtype of the spec; those of a language model are kept in the user's cache.

        Raises:
            DataError: If they cannot be had, or are wrong; see `renorm.data.proteins.features`.
        """
        dtype = getattr(torch, self.spec.dtype)
        with closing(self.source), Counted("features", "residues", shown=progress and is_first(), start=0) as bar:
            if isinstance(self.source, FeatureFiles):
                return self.source(records, dtype=dtype)
            return features_of(
                self.source,
                [record.sequence for record in records],
                cache=default_cache(),
                dtype=dtype,
                batch=self.spec.batch,
                progress=bar,
            )

    def __call__(self, records: Sequence[Record], *, progress: bool = False) -> list[Float[Tensor, "_ feature"]]:
        """Standardised features, as the network takes them.

        Raises:
            DataError: As ``raw``, or if they are not as many as in training.
        """
        named = [record for record in records if set(record.sequence) != {UNKNOWN}]
        found = iter(self.raw(named, progress=progress))
        mean, _ = self._known()
        return [
            torch.zeros(len(record.sequence), len(mean), dtype=getattr(torch, self.spec.dtype))
            if set(record.sequence) == {UNKNOWN}
            else self.standardised(next(found))
            for record in records
        ]

    def measured(self, raw: Sequence[Float[Tensor, "_ feature"]]) -> "ChainFeatures":
        """The same features with mean and deviation of these chains."""
        number = sum(map(len, raw))
        mean = torch.stack([x.double().sum(0) for x in raw]).sum(0) / number
        std = (torch.stack([(x.double() - mean).square().sum(0) for x in raw]).sum(0) / number).sqrt()
        largest = std.max()
        std = std.clamp(min=float(LEAST * largest)) if largest > 0 else torch.ones_like(std)
        found = copy(self)  # its source has been hashed
        found.statistics = mean.float(), std.float()
        return found

    def standardised(self, x: Float[Tensor, "residues feature"]) -> Float[Tensor, "residues feature"]:
        """One chain's features, with the mean and deviation of training."""
        mean, std = self._known()
        if x.shape[1] != len(mean):
            raise DataError(f"the network was trained with {len(mean)} features a residue, got {x.shape[1]}")
        return ((x.float() - mean) / std).clamp(-FARTHEST, FARTHEST).to(x.dtype)

    def _known(self) -> tuple[Tensor, Tensor]:
        assert self.statistics is not None, "features are measured first"
        return self.statistics

    def save(self, folder: Path) -> None:
        """Write `FILE` to a run."""
        mean, std = self._known()
        write_tensors(folder / FILE, {"mean": mean, "std": std}, self.about())


def records_of(chains: Chains) -> list[Record]:
    """Names and sequences of chains, by which features are looked up."""
    return [Record(chain.name, chain.sequence) for chain in chains]


def digest(raw: Sequence[Tensor]) -> str:
    """SHA-256 of features: what a fit with features of files depends on."""
    whole = hashlib.sha256()
    for x in raw:
        whole.update(f"{tuple(x.shape)} {x.dtype}\n".encode() + x.contiguous().numpy().tobytes())
    return whole.hexdigest()


def features_of_run(folder: Path, moved: str | None = None) -> ChainFeatures | None:
    """The features that a run was trained with; none if it was trained with letters alone.

    Args:
        folder: Of the run.
        moved: Where they are now, if not where they were; of a run with files, those of other sequences.

    Raises:
        CheckpointError: If the language model is another than that of the training, or the run lacks a file.
        DataError: If they are absent.
        RecipeError: If ``moved`` is given for a run of letters alone.
    """
    recipe = read_recipe(folder)
    spec = recipe.features if isinstance(recipe, ChainRecipe) else FeaturesSpec()
    if spec.folder is None:
        if moved is not None:
            raise RecipeError(f"{folder} was trained with letters alone; drop --features, got {moved}")
        return None
    tensors, about = read_tensors(folder / FILE)
    place = moved or spec.folder
    if not Path(place).exists():
        more = (
            "" if moved else f"; if it has moved, give --features DIR, or set features.folder in {folder}/recipe.toml"
        )
        raise DataError(f"there is no {place}, of which the features of {folder} are{more}")
    if about.get("kind") == "language-model" and not is_language_model(Path(place)):
        raise CheckpointError(
            f"{folder} was trained with a language model, {place} holds none (there is no config.json); give its folder"
        )
    found = ChainFeatures(FeaturesSpec(place, spec.layer, spec.dtype, spec.batch), (tensors["mean"], tensors["std"]))
    here = found.about()
    if here["kind"] != about.get("kind"):
        raise CheckpointError(
            f"{folder} was trained with features of files, {place} holds a language model; give files"
        )
    if here.get("sha256") != about.get("sha256"):
        raise CheckpointError(
            f"{place} holds another language model than {folder} was trained with (SHA-256 {here['sha256'][:12]}, "
            f"it was {str(about.get('sha256'))[:12]}); give the folder of that one by --features"
        )
    return found


def _device() -> torch.device:
    """Where the fit of this process runs."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
