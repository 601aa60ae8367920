"""From a recipe to its parts: the only place that knows data, networks and wings at once."""

from typing import Any

import torch

from renorm.data.fields import Fields
from renorm.diffusion.mode_diffusion import ModeDiffusion
from renorm.errors import RecipeError
from renorm.lattice import Lattice
from renorm.nn.unet import unet_on
from renorm.recipes.spec import Recipe

__all__ = ["build_model", "identity", "parameters"]

_ADDED = {"sharpness": 1.0}  # keys of later versions, at the value that earlier ones meant: runs of those go on


def build_model(recipe: Recipe, lattice: Lattice, num_classes: int = 0) -> ModeDiffusion:
    """The recipe's model for fields on this lattice, its network drawn from the recipe's seed.

    Raises:
        RecipeError: If a name is unknown, or the network's strides do not divide the lattice.
    """
    network = None
    if recipe.model.denoiser == "network":
        spec = recipe.model.network
        uneven = [n for n in lattice.shape if n % spec.stride]
        if uneven:
            raise RecipeError(
                f"every axis of {lattice.shape} must be divisible by the network's stride {spec.stride}, "
                f"got {uneven[0]}; change data.size, or take fewer model.network.multipliers"
            )
        seeded = torch.Generator().manual_seed(recipe.fit.seed)
        network = unet_on(lattice, spec, num_classes=num_classes, generator=seeded)
    return ModeDiffusion(recipe.model, lattice, network=network, num_classes=num_classes)


def parameters(model: ModeDiffusion) -> int:
    """Number of trained parameters."""
    return 0 if model.network is None else sum(p.numel() for p in model.network.parameters())


def identity(recipe: Recipe, fields: Fields) -> dict[str, Any]:
    """What must not change when a run is resumed: the model and the contents of the data."""
    from renorm.spec import to_mapping

    model = to_mapping(recipe.model)
    for walk in ("sampler", "spacing", "steps"):  # how to sample is free to change
        model.pop(walk, None)
    kept = {key: value for key, value in model.items() if key not in _ADDED or value != _ADDED[key]}
    return {"model": kept, "data": fields.sha256(), "flip": recipe.data.flip}
