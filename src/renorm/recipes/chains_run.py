"""Runs of chain diffusions: fit, fold.

chain.toml  profile.safetensors  model.safetensors  checkpoints/  metrics.jsonl      beside what every run has
features.safetensors                                                                where residues have features
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from renorm.data.proteins.chains import Chains
from renorm.data.proteins.pdb_file import b_factors, pdb_text
from renorm.data.proteins.sequence import UNKNOWN, encode
from renorm.data.proteins.spec import read
from renorm.diffusion.chains.model import ChainDiffusion
from renorm.diffusion.chains.objective import TrainingChain
from renorm.diffusion.reverse import Callback
from renorm.errors import CheckpointError, RecipeError
from renorm.fit.checkpoint import atomic
from renorm.fit.gradient import check_resumable
from renorm.measure.chains.superposition import superpose
from renorm.nn.chain import LETTERS
from renorm.recipes.chain_features import ChainFeatures, digest, records_of
from renorm.recipes.folder import check_same_run, machine, read_recipe, recorded
from renorm.recipes.spec import ChainRecipe
from renorm.spec import to_mapping

__all__ = ["Fold", "fit", "fold", "load", "training_chains", "write_fold"]


def training_chains(chains: Chains, features: Sequence[Tensor] | None = None) -> list[TrainingChain]:
    """Chains as the model learns them, with the features of their residues if there are some."""
    told = [None] * len(chains) if features is None else features
    return [
        TrainingChain(chain.coordinates.T.contiguous(), encode(chain.sequence), x)
        for chain, x in zip(chains, told, strict=True)
    ]


def fit(recipe: ChainRecipe, folder: Path, *, resume: bool, progress: bool, command: str) -> ChainDiffusion:
    """Train; killed at any moment, it resumes to the same weights."""
    chains = read(recipe.data, "train")
    recipe, features, told, about = _with_features(recipe, chains, progress=progress)
    known = {"model": to_mapping(recipe.model), "data": chains.sha256(), **about}
    check_same_run(folder, known)
    check_resumable(folder, recipe.fit, known)
    shown = training_chains(chains, told)
    model = ChainDiffusion(recipe.model, seed=recipe.fit.seed).measure(shown)
    facts = {
        **machine(),
        "identity": known,
        "command": command,
        "seed": recipe.fit.seed,
        "parameters": sum(weight.numel() for weight in model.network.parameters()),
        "data": {"name": recipe.data.name, "sha256": known["data"], "number": len(chains)},
    }

    def save_frame(path: Path) -> None:
        model.save_frame(path)
        if features is not None:
            features.save(path)

    with recorded(recipe, folder, facts, save_frame):
        model.fit(shown, spec=recipe.fit, folder=folder, resume=resume, progress=progress, identity=known)
    return model


def _with_features(
    recipe: ChainRecipe, chains: Chains, *, progress: bool
) -> tuple[ChainRecipe, ChainFeatures | None, list[Tensor] | None, dict[str, Any]]:
    """The recipe with the features counted, what makes them, those of the chains, and what tells them from others."""
    if recipe.features.folder is None:
        return recipe, None, None, {}
    features = ChainFeatures(replace(recipe.features, folder=str(Path(recipe.features.folder).resolve())))
    raw = features.raw(records_of(chains), progress=progress)
    number, asked = raw[0].shape[1], recipe.model.network.features
    if asked not in (0, number):
        raise RecipeError(
            f"model.network.features must be {number}, as many as {features.spec.folder} has; leave it out, got {asked}"
        )
    network = replace(recipe.model.network, features=number)
    counted = replace(recipe, features=features.spec, model=replace(recipe.model, network=network))
    about = features.about()
    if "sha256" not in about:
        about["sha256"] = digest(raw)
    features = features.measured(raw)
    return counted, features, [features.standardised(x) for x in raw], {"features": about}


def load(folder: Path) -> ChainDiffusion:
    """The model of a finished run of chains.

    Where it was trained with features, its folds need some: see `renorm.recipes.chain_features.features_of_run`.

    Raises:
        CheckpointError: If the folder holds no such run, or its fit is not finished.
    """
    recipe = read_recipe(folder)
    if not isinstance(recipe, ChainRecipe):
        raise CheckpointError(
            f"{folder} is no run of chains (its wing is '{recipe.wing}'); `renorm fit protein` makes one"
        )
    return ChainDiffusion.load(folder)


class Fold(NamedTuple):
    """Chains drawn for one sequence.

    Attributes:
        x: C-alphas, in angstrom; all laid on the first.
        spread: Root mean square displacement of each residue about its mean, in angstrom; 0 of a single chain.
    """

    x: Float[Tensor, "num residues 3"]
    spread: Float[Tensor, " residues"]


def fold(
    model: ChainDiffusion,
    sequence: str,
    num: int,
    *,
    seed: int,
    features: Float[Tensor, "residues feature"] | None = None,
    steps: int | None = None,
    callback: Callback | None = None,
) -> Fold:
    """Chains of a sequence by seed, drawn on the GPU if there is one.

    Args:
        model: The model.
        sequence: One letter a residue; of X alone: of any sequence.
        num: How many.
        seed: Of the draws.
        features: Further features of the residues, as the model was trained with.
        steps: Of the walk; T(N) if not given.
        callback: See ``ModeDiffusion.sample``.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator(device).manual_seed(seed)
    letters = encode(sequence)
    if set(sequence) == {UNKNOWN}:
        letters = torch.full_like(letters, LETTERS)  # not told, as in training
    told = None if features is None else features.float()
    x = model.fold(letters, num, generator=generator, features=told, steps=steps, callback=callback).mT.cpu()
    laid = superpose(x, x[:1]).move(x).float()
    spread = (laid - laid.mean(0)).square().sum(-1).mean(0).sqrt()
    return Fold(laid, spread)


def write_fold(path: Path, found: Fold, sequence: str, *, title: str = "") -> None:
    """A PDB file of all chains, each a model, with the spread of each residue as its B-factor."""
    text = pdb_text(found.x, sequence, b=b_factors(found.spread), title=title)
    with atomic(path) as temporary:
        temporary.write_text(text + "\n", encoding="ascii", errors="replace")
