"""What the renormalization costs: a training step and a sampled image beside the same network with white noise.

Both run in turn in one process, so that the machine's moods hit both alike; medians and their ratio are kept.
"""

import statistics
from collections.abc import Callable

import torch

from renorm.bench.result import Result
from renorm.bench.timing import interleaved
from renorm.data import load
from renorm.diffusion.denoiser import NetworkDenoiser
from renorm.diffusion.mode_diffusion import ModeDiffusion
from renorm.diffusion.objective import denoising_loss
from renorm.recipes.build import build_model, parameters
from renorm.recipes.spec import Recipe, load_recipe
from renorm.spec import override

STEPS, SAMPLES, EVALUATIONS, ROUNDS = 40, 64, 20, 5


def run(seed: int) -> Result:
    """Time ``STEPS`` training steps and ``ROUNDS`` batches of samples of each, interleaved."""
    recipe = load_recipe("mnist16", {"fit.seed": seed})
    assert isinstance(recipe, Recipe)
    fields = load(recipe.data, "train")
    models = {}
    for schedule in ("rgdm", "white"):
        models[schedule] = build_model(override(recipe, {"model.schedule": schedule}), fields.lattice).measure(fields)
    batch = recipe.fit.batch
    x = fields.batch(torch.arange(batch))
    steps = {name: _training_step(model, x, seed) for name, model in models.items()}
    walks = {name: _walk(model, seed) for name, model in models.items()}
    step_seconds = interleaved(steps, STEPS)
    walk_seconds = interleaved(walks, ROUNDS)
    step = {name: statistics.median(times) for name, times in step_seconds.items()}
    walk = {name: statistics.median(times) / SAMPLES for name, times in walk_seconds.items()}
    table = [{"schedule": name, "seconds_per_step": step[name], "seconds_per_sample": walk[name]} for name in models]
    figures = {
        "step_ratio_to_white": _ratio(step_seconds),
        "sample_ratio_to_white": _ratio(walk_seconds),
        "seconds_per_step": step["rgdm"],
        "seconds_per_sample": walk["rgdm"],
        "evaluations": EVALUATIONS,
        "parameters": parameters(models["rgdm"]),
        "batch": batch,
    }
    return Result(figures, table, (seed,))


def _training_step(model: ModeDiffusion, x: torch.Tensor, seed: int) -> Callable[[], None]:
    network, denoiser = model.network, model.denoiser
    assert network is not None
    assert isinstance(denoiser, NetworkDenoiser)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3, fused=True)
    generator = torch.Generator().manual_seed(seed)

    def step() -> None:
        network.train()
        u = torch.rand(len(x), generator=generator, dtype=torch.float64)
        noise = torch.randn(x.shape, generator=generator)
        loss = denoising_loss(denoiser, x, model.training.quantile(u, model.schedule), noise)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()

    return step


def _walk(model: ModeDiffusion, seed: int) -> Callable[[], None]:
    def walk() -> None:
        model.sample(SAMPLES, generator=torch.Generator().manual_seed(seed), steps=EVALUATIONS)

    return walk


def _ratio(seconds: dict[str, list[float]]) -> float:
    """Median of the ratios, round by round."""
    return statistics.median(a / b for a, b in zip(seconds["rgdm"], seconds["white"], strict=True))
