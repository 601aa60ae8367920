"""A run folder: fit a recipe into it, load it, sample from it, measure it.

recipe.toml  manifest.json                     what was asked, and where and with what it ran
model.toml  *.safetensors                      the model, as its wing writes it
samples/  measures.json  report.html           what came out

Each wing has its own file here, for what is true of its models alone.
"""

from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from renorm.cascade.cascade import Cascade
from renorm.cascade.clusters.cluster_model import ClusterModel
from renorm.cascade.pictures import rendered
from renorm.diffusion.chains.model import ChainDiffusion
from renorm.diffusion.mode_diffusion import ModeDiffusion
from renorm.diffusion.reverse import Callback
from renorm.errors import CheckpointError, RecipeError
from renorm.recipes import (
    cascade_measure,
    cascade_run,
    chains_measure,
    chains_run,
    clusters_run,
    diffusion_run,
    tokens_run,
)
from renorm.recipes.diffusion_conditional import MAKERS
from renorm.recipes.folder import is_first, read_recipe
from renorm.recipes.spec import AnyRecipe, CascadeRecipe, ChainRecipe, ClustersRecipe, Recipe, TokensRecipe
from renorm.tokens.product import TokenProduct

__all__ = ["Model", "as_field", "fit_run", "load", "load_run", "measure_run", "refine_run", "sample_run"]

Model = ModeDiffusion | TokenProduct | Cascade | ClusterModel


def fit_run(
    recipe: AnyRecipe, folder: Path, *, resume: bool = False, progress: bool = True, command: str = ""
) -> Model | ChainDiffusion:
    """Fit a recipe and leave everything in ``folder``; killed at any moment, it resumes to the same model.

    Raises:
        CheckpointError: If the folder holds another run, or one that was not asked to be resumed.
        DataError, RecipeError, NonFiniteLossError: See the parts.
    """
    if is_first() and (folder / "manifest.json").exists() and not resume:
        raise CheckpointError(f"{folder} already holds a run; add --resume to go on, or choose another --out")
    if isinstance(recipe, TokensRecipe):
        return tokens_run.fit(recipe, folder, progress=progress, command=command)
    if isinstance(recipe, CascadeRecipe):
        return cascade_run.fit(recipe, folder, progress=progress, command=command)
    if isinstance(recipe, ClustersRecipe):
        return clusters_run.fit(recipe, folder, progress=progress, command=command)
    if isinstance(recipe, ChainRecipe):
        return chains_run.fit(recipe, folder, resume=resume, progress=progress, command=command)
    return diffusion_run.fit(recipe, folder, resume=resume, progress=progress, command=command)


def load(folder: Path | str) -> Model | ChainDiffusion:
    """The model of a run folder, whatever it is of."""
    folder = Path(folder)
    if (folder / "recipe.toml").is_file() and isinstance(read_recipe(folder), ChainRecipe):
        return chains_run.load(folder)
    return load_run(folder)


def load_run(folder: Path | str) -> Model:
    """The model of fields of a run folder, at its final weights, or at its last checkpoint if the fit is not finished.

    Raises:
        CheckpointError: If the folder holds no run, one that is not finished, or one of chains (see ``load``).
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(f"there is no run folder {folder}; `renorm fit RECIPE --out {folder}` makes one")
    if (folder / "product.toml").is_file():
        return TokenProduct.load(folder)
    recipe = read_recipe(folder) if (folder / "recipe.toml").is_file() else None
    if isinstance(recipe, ChainRecipe):
        raise CheckpointError(
            f"{folder} is a run of chains, no fields; `renorm fold SEQUENCE --run {folder}` draws some"
        )
    whole = isinstance(recipe, CascadeRecipe | ClustersRecipe) and (folder / "model.toml").is_file()
    if isinstance(recipe, TokensRecipe | CascadeRecipe | ClustersRecipe) and not whole:
        raise CheckpointError(
            f"the fit of {folder} is not finished; `renorm fit RECIPE --out {folder} --resume` goes on"
        )
    if whole and isinstance(recipe, ClustersRecipe):
        return ClusterModel.load(folder)
    if whole:
        return Cascade.load(folder, makers=MAKERS)
    return ModeDiffusion.load(folder)


def sample_run(
    folder: Path,
    num: int,
    *,
    seed: int,
    steps: int | None = None,
    level: int = 0,
    condition: Tensor | None = None,
    guidance: float = 1.0,
    model: Model | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Fields from a run, by seed, on the CPU."""
    model = model or load_run(folder)
    if isinstance(model, ModeDiffusion):
        return diffusion_run.sample(
            model,
            num,
            seed=seed,
            steps=steps,
            level=level,
            condition=condition,
            guidance=guidance,
            callback=callback,
        )
    _refuse_steps(steps)
    if guidance != 1.0:
        raise RecipeError(f"guidance is for diffusions that know classes, got {guidance}")
    return model.sample(num, condition=condition, generator=torch.Generator().manual_seed(seed), level=level)


def refine_run(
    model: Model,
    coarse: Tensor,
    *,
    level: int,
    generator: torch.Generator,
    steps: int | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Finer fields from coarse ones."""
    if isinstance(model, TokenProduct | Cascade | ClusterModel):
        _refuse_steps(steps)
        return model.refine(coarse, level=level, generator=generator)
    walked = cast(ModeDiffusion, model)
    return walked.refine(coarse, level=level, generator=generator, steps=steps, callback=callback)


def as_field(model: Model, y: Tensor, level: int) -> Tensor:
    """Coarse fields as fields on the model's lattice, for the eye: tokens become the mean field that they stand for."""
    if isinstance(model, Cascade):
        return rendered(model, y, level)
    if isinstance(model, ClusterModel):
        return model.shown(y)
    return y if isinstance(model, ModeDiffusion) else model.render(y, level)


def _refuse_steps(steps: int | None) -> None:
    if steps is not None:
        raise RecipeError(f"steps are for the walk of a diffusion; this model draws in one pass, got {steps}")


def measure_run(
    folder: Path,
    *,
    samples: int | None = None,
    steps: int | None = None,
    seed: int | None = None,
    model: Model | ChainDiffusion | None = None,
    callback: Callback | None = None,
) -> dict[str, Any]:
    """Sample from a run, compare with the test fields, write ``measures.json`` and the pictures' arrays.

    Returns:
        ``figures`` (flat key: number) and ``notes``, as written, and what else the wing writes.
    """
    recipe = read_recipe(folder)
    model = model or load(folder)
    if isinstance(recipe, ChainRecipe) and isinstance(model, ChainDiffusion):
        return chains_measure.measure(recipe, folder, model, samples=samples, steps=steps, seed=seed, callback=callback)
    if isinstance(recipe, TokensRecipe) and isinstance(model, TokenProduct):
        _refuse_steps(steps)
        return tokens_run.measure(recipe, folder, model, samples=samples, seed=seed)
    if isinstance(recipe, CascadeRecipe) and isinstance(model, Cascade):
        _refuse_steps(steps)
        return cascade_measure.measure(recipe, folder, model, samples=samples, seed=seed)
    if isinstance(recipe, ClustersRecipe) and isinstance(model, ClusterModel):
        _refuse_steps(steps)
        return clusters_run.measure(recipe, folder, model, samples=samples, seed=seed)
    if not isinstance(recipe, Recipe) or not isinstance(model, ModeDiffusion):
        raise CheckpointError(f"{folder}: its recipe and its model belong to different wings")
    return diffusion_run.measure(recipe, folder, model, samples=samples, steps=steps, seed=seed, callback=callback)
