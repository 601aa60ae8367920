"""Where the time of a training step goes, for the recipe ``mnist32``: parts of the step, and kinds of operations in it.

Parts are timed in turn on idle cores, medians of ``ROUNDS``. Kinds are what torch's profiler counts in forward and
backward. A compiled network is timed beside the one that is not, where this machine can compile.
"""

import statistics
import warnings
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
from torch.profiler import ProfilerActivity, profile

from renorm.bench.result import Result
from renorm.bench.timing import interleaved
from renorm.data import load as load_data
from renorm.diffusion.objective import DenoisingLoss
from renorm.fit.ema import averaged, follow
from renorm.recipes.build import build_model, parameters
from renorm.recipes.spec import Recipe, load_recipe

__all__ = ["KINDS", "kind_of", "run"]

ROUNDS = 9
KINDS = {
    "convolutions": ("convolution",),
    "normalisation": ("group_norm",),
    "attention": ("scaled_dot_product",),
    "matrices": ("mm",),
    "activations": ("silu",),
}
"""Kind of operation -> words in the names of its kernels; the rest is ``others``."""


def run(seed: int) -> Result:
    """Time the parts of a step, count its kinds of operations and its changes of basis."""
    recipe = load_recipe("mnist32", {"fit.seed": seed})
    assert isinstance(recipe, Recipe)
    data = load_data(recipe.data, "train")
    model = build_model(recipe, data.lattice).measure(data)
    network = model.network
    assert network is not None
    loss = DenoisingLoss(model.denoiser, data, model.training)  # type: ignore[arg-type]
    adam = torch.optim.AdamW(network.parameters(), lr=recipe.fit.lr, fused=True)
    average, index = averaged(network), torch.arange(recipe.fit.batch)
    shown = loss.draw(index, torch.Generator().manual_seed(seed))
    kept: dict[str, torch.Tensor] = {}

    def forward() -> None:
        kept["loss"] = loss(network, *shown)

    def backward() -> None:
        network.zero_grad()
        kept["loss"].backward()

    parts: dict[str, Callable[[], Any]] = {
        "draw": lambda: loss.draw(index, torch.Generator().manual_seed(seed)),
        "forward": forward,
        "backward": backward,
        "clip": lambda: torch.nn.utils.clip_grad_norm_(network.parameters(), recipe.fit.clip),
        "optimiser": adam.step,
        "average": lambda: follow(average, network, recipe.fit.ema),
    }
    seconds = {name: statistics.median(times) for name, times in interleaved(parts, ROUNDS).items()}
    step = sum(seconds.values())
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        forward()
        backward()
    kinds = dict.fromkeys((*KINDS, "others"), 0.0)
    for event in seen.key_averages():
        kinds[kind_of(event.key)] += event.self_cpu_time_total
    total = sum(kinds.values())
    figures = {"step_seconds": step, "basis_changes": float(basis_changes(loss, network, index, seed))}
    figures |= {f"part_{name}": value / step for name, value in seconds.items()}
    figures |= {f"kind_{name}": value / total for name, value in kinds.items()}
    figures |= {"parameters": float(parameters(model)), "threads": float(torch.get_num_threads())}
    if (ratio := compiled_ratio(network, recipe.fit.batch, data.lattice.shape)) is not None:
        figures["compiled_ratio"] = ratio
    table = [{"part": name, "seconds": value, "share": value / step} for name, value in seconds.items()]
    return Result(figures, table, (seed,))


def kind_of(kernel: str) -> str:
    """The kind of a kernel by its name.

    Example:
        >>> kind_of("aten::mkldnn_convolution"), kind_of("aten::addmm"), kind_of("aten::copy_")
        ('convolutions', 'matrices', 'others')
    """
    return next((kind for kind, words in KINDS.items() if any(word in kernel for word in words)), "others")


def basis_changes(loss: DenoisingLoss, network: torch.nn.Module, index: torch.Tensor, seed: int) -> int:
    """How often a training step goes from sites to modes or back; none may do so in float64.

    Raises:
        AssertionError: If one does.
    """
    basis, made = type(loss.basis), 0

    def counted(change: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def counting(self: Any, x: torch.Tensor) -> torch.Tensor:
            nonlocal made
            made += 1
            assert x.dtype == torch.float32, "a change of basis in float64"
            return change(self, x)

        return counting

    with (
        mock.patch.object(basis, "forward", counted(basis.forward)),
        mock.patch.object(basis, "inverse", counted(basis.inverse)),
    ):
        loss(network, *loss.draw(index, torch.Generator().manual_seed(seed)))
    return made


def compiled_ratio(network: torch.nn.Module, batch: int, sites: tuple[int, ...]) -> float | None:
    """Seconds of forward and backward, compiled over not compiled; none where nothing can be compiled here."""
    x, t = torch.randn(batch, 1, *sites), torch.rand(batch)

    def step(made: Callable[..., torch.Tensor]) -> Callable[[], None]:
        return lambda: made(x, t).square().mean().backward()

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compiled = torch.compile(network)
            step(compiled)()
    except Exception:  # whatever the compiler of this machine says, or that there is none
        return None
    times = interleaved({"plain": step(network), "compiled": step(compiled)}, ROUNDS)
    return statistics.median(a / b for a, b in zip(times["compiled"], times["plain"], strict=True))
