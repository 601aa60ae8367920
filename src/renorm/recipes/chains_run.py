"""Runs of chain diffusions: fit, fold.

chain.toml  profile.safetensors  model.safetensors  checkpoints/  metrics.jsonl      beside what every run has
"""

from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from renorm.data.proteins.chains import Chains
from renorm.data.proteins.pdb_file import b_factors, pdb_text
from renorm.data.proteins.sequence import encode
from renorm.data.proteins.spec import read
from renorm.diffusion.chains.model import ChainDiffusion
from renorm.diffusion.chains.objective import TrainingChain
from renorm.diffusion.reverse import Callback
from renorm.errors import CheckpointError
from renorm.fit.checkpoint import atomic
from renorm.fit.gradient import check_resumable
from renorm.measure.chains.superposition import superpose
from renorm.recipes.folder import check_same_run, machine, read_recipe, recorded
from renorm.recipes.spec import ChainRecipe
from renorm.spec import to_mapping

__all__ = ["Fold", "fit", "fold", "load", "training_chains", "write_fold"]


def training_chains(chains: Chains) -> list[TrainingChain]:
    """Chains as the model learns them."""
    return [TrainingChain(chain.coordinates.T.contiguous(), encode(chain.sequence)) for chain in chains]


def fit(recipe: ChainRecipe, folder: Path, *, resume: bool, progress: bool, command: str) -> ChainDiffusion:
    """Train; killed at any moment, it resumes to the same weights."""
    chains = read(recipe.data, "train")
    known = {"model": to_mapping(recipe.model), "data": chains.sha256()}
    check_same_run(folder, known)
    check_resumable(folder, recipe.fit, known)
    shown = training_chains(chains)
    model = ChainDiffusion(recipe.model, seed=recipe.fit.seed).measure(shown)
    facts = {
        **machine(),
        "identity": known,
        "command": command,
        "seed": recipe.fit.seed,
        "parameters": sum(weight.numel() for weight in model.network.parameters()),
        "data": {"name": recipe.data.name, "sha256": known["data"], "number": len(chains)},
    }
    with recorded(recipe, folder, facts, model.save_frame):
        model.fit(shown, spec=recipe.fit, folder=folder, resume=resume, progress=progress, identity=known)
    return model


def load(folder: Path) -> ChainDiffusion:
    """The model of a finished run of chains.

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
    steps: int | None = None,
    callback: Callback | None = None,
) -> Fold:
    """Chains of a sequence by seed, drawn on the GPU if there is one.

    Args:
        sequence: One letter a residue; of X alone: of any sequence.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator(device).manual_seed(seed)
    x = model.fold(encode(sequence), num, generator=generator, steps=steps, callback=callback).mT.cpu()
    laid = superpose(x, x[:1]).move(x).float()
    spread = (laid - laid.mean(0)).square().sum(-1).mean(0).sqrt()
    return Fold(laid, spread)


def write_fold(path: Path, found: Fold, sequence: str, *, title: str = "") -> None:
    """A PDB file of all chains, each a model, with the spread of each residue as its B-factor."""
    text = pdb_text(found.x, sequence, b=b_factors(found.spread), title=title)
    with atomic(path) as temporary:
        temporary.write_text(text + "\n", encoding="ascii", errors="replace")
