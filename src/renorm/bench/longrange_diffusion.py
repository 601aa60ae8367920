"""Far correlations of critical phi^4 by diffusions: ours, DDPM and EDM, equal seconds, equal maps, one network.

All learn the same simulated maps with the U-Net ``NETWORK`` and draw by ``EVALUATIONS`` of it. Ours has the settings of
the recipe ``mnist32`` and its walk, fixed beforehand; DDPM and EDM take the best of their own walks, by the very figure
that is shown, which favours them. Nothing was tuned on these maps.
"""

import time
from typing import NamedTuple

import torch
from torch import Tensor

from renorm.bench.equal_time import descend_for
from renorm.data.fields import Fields
from renorm.diffusion.mode_diffusion import ModeDiffusion
from renorm.diffusion.objective import DenoisingLoss
from renorm.fit.ema import averaged, follow
from renorm.fit.randomness import seed_of
from renorm.lattice import Lattice
from renorm.nn.spec import UNetSpec
from renorm.nn.unet import unet_on
from renorm.recipes.baselines import BASELINES, WalkName, baseline
from renorm.recipes.spec import Recipe, load_recipe

__all__ = ["METHODS", "Drawn", "drawn"]

METHODS = ("ours", "ddpm", "edm")
NETWORK = UNetSpec(width=24, multipliers=(1, 2, 2, 2), blocks=1, attention=(3,), groups=8, patch=2)
EVALUATIONS = 20
RATE, BATCH, DECAY = 1e-3, 16, 0.998


class Drawn(NamedTuple):
    """What one method drew by one walk.

    Attributes:
        method, walk: Which.
        maps: Samples.
        steps: Of training.
        seconds: Of the processor, for these samples.
    """

    method: str
    walk: str
    maps: Tensor
    steps: int
    seconds: float


def drawn(
    method: str, maps: Tensor, *, seconds: float, samples: int, seed: int, spec: UNetSpec = NETWORK
) -> list[Drawn]:
    """Train a method on maps for so many seconds of the processor, then sample by each of its walks."""
    recipe = load_recipe("mnist32", {"fit.seed": seed})
    assert isinstance(recipe, Recipe)
    recipe = recipe if method == "ours" else baseline(recipe, method)
    lattice = Lattice((maps.shape[-1],) * 2, boundary="periodic")
    network = unet_on(lattice, spec, generator=torch.Generator().manual_seed(seed))
    model = ModeDiffusion(recipe.model, lattice, network=network)
    model = model.measure(Fields(maps, lattice)) if recipe.model.needs_moments else model
    model, steps = trained(model, maps, seconds=seconds, seed=seed)
    own = (WalkName(recipe.model.sampler, recipe.model.spacing),)
    found = []
    for walk in own if method == "ours" else BASELINES[method].walks:
        walked = model.with_walk(sampler=walk.sampler, spacing=walk.spacing)
        begun, generator = time.process_time(), torch.Generator().manual_seed(seed)
        x = walked.sample(samples, generator=generator, steps=-(-EVALUATIONS // walked.sampler.evaluations), batch=64)
        found.append(Drawn(method, str(walk), x, steps, time.process_time() - begun))
    return found


def trained(model: ModeDiffusion, maps: Tensor, *, seconds: float, seed: int) -> tuple[ModeDiffusion, int]:
    """The model with the average of its weights after so many seconds, and the steps that were made."""
    network = model.network
    assert network is not None
    loss = DenoisingLoss(model.denoiser, Fields(maps, model.lattice), model.training)  # type: ignore[arg-type]
    adam, ema = torch.optim.AdamW(network.parameters(), fused=True), averaged(network)
    order, draws = torch.Generator().manual_seed(seed), torch.Generator()

    def value(step: int) -> Tensor:
        index = torch.randint(len(maps), (BATCH,), generator=order)
        return loss(network, *loss.draw(index, draws.manual_seed(seed_of(seed, "noise", step))))

    def after(steps: int) -> None:
        follow(ema, network, min(DECAY, (1 + steps) / (10 + steps)))

    steps = descend_for(adam, value, seconds=seconds, rate=RATE, after=after)
    return ModeDiffusion(model.spec, model.lattice, network=ema, moments=model.moments), steps
