"""Far correlations of critical phi^4 on 64 x 64 sites: equal seconds, equal maps.

A cascade stands beside a flow of one scale. Both learn by maximum likelihood from the same simulated maps and know
nothing of the action. Three flows of one scale have as many seconds each as the cascade, of a third of its parameters,
a fifth and a tenth (the more, the fewer steps); the best of them by the likelihood of validation maps is the peer. The
figure is the error of the two-point function of their samples at a quarter to half of the lattice.

Three diffusions, ours, DDPM and EDM, learn the same maps: see ``renorm.bench.longrange_diffusion``.
"""

import math
import time
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor

from renorm.bench.cores import on_all_cores, telling
from renorm.bench.equal_time import parameters, train_for
from renorm.bench.longrange_diffusion import METHODS, NETWORK
from renorm.bench.longrange_diffusion import drawn as drawn_by
from renorm.bench.result import Result
from renorm.cascade.cascade import Cascade
from renorm.cascade.conditionals.coupling import CouplingFlow
from renorm.cascade.conditionals.standardised import Standardised
from renorm.coarse.wavelet import Wavelet
from renorm.lattice import Lattice
from renorm.laws.phi4 import Phi4
from renorm.laws.simulate import simulate
from renorm.measure.lattice_observables import two_point_axis
from renorm.measure.statistics import Estimate
from renorm.nn.spec import UNetSpec

__all__ = ["Plan", "far", "relative_error", "run"]

EDGE, KAPPA, LAM = 64, 0.340301, 1.0


@dataclass(frozen=True)
class Plan:
    """How much of everything.

    Attributes:
        edge: Sites along each axis.
        train, validation, reference: Maps that are simulated.
        samples: Maps that each model draws.
        seconds: Of training, for each flow.
        diffusion_seconds, diffusion_samples: The same, for each diffusion.
        network: Of the diffusions.
    """

    edge: int = EDGE
    train: int = 4096
    validation: int = 256
    reference: int = 8192
    samples: int = 2048
    seconds: float = 150.0
    diffusion_seconds: float = 400.0
    diffusion_samples: int = 1024
    network: UNetSpec = NETWORK


def run(seed: int, plan: Plan = Plan()) -> Result:
    """Simulate, train both, compare."""
    generator = torch.Generator().manual_seed(seed)
    begun = time.process_time()
    maps = simulate(
        Phi4((plan.edge, plan.edge), KAPPA, LAM), plan.train + plan.validation + plan.reference, generator=generator
    )
    train, validation, reference = maps.split([plan.train, plan.validation, plan.reference])
    figures: dict[str, float] = {"seconds_simulation": time.process_time() - begun}
    exact = far(reference)
    table: list[dict[str, Any]] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tried = {"cascade": Trial(cascade(plan.edge), 4e-3, 4)}
        tried |= {f"one_scale_{width}": Trial(one_scale(plan.edge, width), rate, size) for width, rate, size in PEERS}
    likely: dict[str, float] = {}
    for name, (model, rate, size) in tried.items():
        begun = time.process_time()
        steps = fit(model, train, seconds=plan.seconds, generator=generator, rate=rate, least=size)
        likely[name] = float(log_prob(model, validation).mean()) / plan.edge**2
        row = {"model": name, "steps": sum(steps), "parameters": parameters(model), "nats_per_site": likely[name]}
        table.append(row | {"seconds": time.process_time() - begun})
    peer = max((name for name in tried if name != "cascade"), key=likely.__getitem__)
    for name, chosen in (("cascade", "cascade"), ("one_scale", peer)):
        model = tried[chosen].model
        begun = time.process_time()
        found = far(drawn(model, plan.samples, generator))
        error, statistical = relative_error(found, exact)
        figures |= {
            f"{name}_error": error,
            f"{name}_error_statistical": statistical,
            f"{name}_seconds": plan.seconds,
            f"{name}_parameters": parameters(model),
            f"{name}_nats_per_site": likely[chosen],
        }
        row = {"model": f"{chosen}, samples", "seconds_sampling": time.process_time() - begun}
        table.append(row | {f"g_{r}": float(g) for r, g in enumerate(found.value, plan.edge // 4) if r % 4 == 0})
    table.append(
        {"model": "simulation"} | {f"g_{r}": float(g) for r, g in enumerate(exact.value, plan.edge // 4) if r % 4 == 0}
    )
    errors, rows = diffused(train, exact, plan, seed)
    return Result(figures | errors, table + rows, seeds=(seed,))


def diffused(maps: Tensor, exact: Estimate, plan: Plan, seed: int) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Figures and rows of the diffusions, one a core at a time."""
    seconds, samples = plan.diffusion_seconds, plan.diffusion_samples
    by = partial(drawn_by, maps=maps, seconds=seconds, samples=samples, seed=seed, spec=plan.network)
    walks = chain.from_iterable(
        on_all_cores([partial(by, method) for method in METHODS], telling("longrange", "diffusions"))
    )
    figures: dict[str, float] = {}
    table: list[dict[str, Any]] = []
    for of in walks:
        found = far(of.maps)
        error, statistical = relative_error(found, exact)
        row = {"model": of.method, "walk": of.walk, "steps": of.steps, "error": error, "statistical": statistical}
        row |= {f"g_{r}": float(g) for r, g in enumerate(found.value, plan.edge // 4) if r % 4 == 0}
        table.append(row | {"seconds": plan.diffusion_seconds, "seconds_sampling": of.seconds})
        if error < figures.get(f"g_error_{of.method}", math.inf):
            figures |= {f"g_error_{of.method}": error, f"g_error_{of.method}_statistical": statistical}
    return figures, table


def cascade(edge: int) -> Cascade:
    """Haar steps down to one site; a coupling flow of three details for each."""
    steps = [Wavelet()] * (edge.bit_length() - 1)
    flows = [Standardised(CouplingFlow(2, 1, 3, rounds=1, width=24, layers=1, bins=6), 1, 3) for _ in steps]
    top = Standardised(CouplingFlow(2, 0, 1, sites=(1, 1), rounds=2, width=8, layers=1, bins=12), 0, 1)
    return Cascade(Lattice((edge, edge), boundary="periodic"), steps, flows, top)


class Trial(NamedTuple):
    """A model, the rate of its training and the least fields of a step."""

    model: Cascade
    rate: float
    size: int


PEERS = ((16, 4e-3, 4), (32, 3e-3, 8), (48, 2e-3, 8))
"""Width, rate and fields a step of each flow of one scale."""


def one_scale(edge: int, width: int) -> Cascade:
    """Coupling layers on the whole lattice, whose networks look ever further, and near again."""
    flow = CouplingFlow(
        2, 0, 1, sites=(edge, edge), rounds=6, dilations=(1, 2, 4, 8, 16, 1), width=width, layers=1, bins=6
    )
    return Cascade(Lattice((edge, edge), boundary="periodic"), [], [], Standardised(flow, 0, 1))


def fit(
    model: Cascade, maps: Tensor, *, seconds: float, generator: torch.Generator, rate: float = 4e-3, least: int = 4
) -> list[int]:
    """Train each level on its own, as maximum likelihood allows; finer ones have more time. Gives their steps."""
    shares = [(level + 1) ** -0.5 for level in range(len(model.steps) + 1)]
    made, x = [], maps
    for level in range(len(model.steps) + 1):
        if level < len(model.steps):
            law = model.conditionals[level]
            x, detail, _ = model.steps[level].split(x)
            coarse = x
        else:
            law, detail, coarse = model.top, x, x.new_empty(len(x), 0)
        assert isinstance(law, Standardised)
        law.standardise(detail, coarse)
        size = max(least, min(256, 2**13 // detail[0, 0].numel()))

        def batch(detail: Tensor = detail, coarse: Tensor = coarse, size: int = size) -> tuple[Tensor, Tensor]:
            index = torch.randint(len(detail), (size,), generator=generator)
            return detail[index], coarse[index]

        made.append(train_for(law, batch, seconds=seconds * shares[level] / sum(shares), rate=rate))
    return made


@torch.no_grad()
def log_prob(model: Cascade, maps: Tensor) -> Tensor:
    """Nats of each map."""
    return torch.cat([model.log_prob(part) for part in maps.split(64)])


@torch.no_grad()
def drawn(model: Cascade, num: int, generator: torch.Generator) -> Tensor:
    """Samples, a few at a time."""
    return torch.cat([model.sample(min(64, num - k), generator=generator) for k in range(0, num, 64)])


def far(maps: Tensor) -> Estimate:
    """Two-point function at r = L/4 ... L/2, both axes averaged, from the same maps."""
    edge = maps.shape[-1]
    both = torch.cat([maps, maps.transpose(-1, -2)], 1)  # channels count as copies of one law
    value, error = two_point_axis(both, 0, blocks=32)
    return Estimate(value[edge // 4 :], error[edge // 4 :])


def relative_error(found: Estimate, exact: Estimate) -> tuple[float, float]:
    r"""$\sqrt{\langle (G/G_0 - 1)^2 \rangle_r}$, and the same of the statistical errors of both.

    All distances see the same few large waves, so the second does not shrink with their number.
    """
    off = found.value / exact.value - 1
    noise = (found.error**2 + exact.error**2).sqrt() / exact.value.abs()
    return float(off.square().mean().sqrt()), float(noise.square().mean().sqrt())
