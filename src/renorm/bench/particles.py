r"""DW4 and LJ13: clusters built particle by particle from their thinned-out picture, against flows of one scale.

Ours (``AddingLaw``): particles leave a cluster, outer ones first, and come again by mixtures around those that are
there and a learned energy. Beside it, of equal size and for the same seconds of one processor: neural spline flows of
all coordinates at once (zuko), autoregressive and by couplings, with samples turned, mirrored and permuted at random,
since they know no symmetry. Short trainings judged by validation samples chose that outer particles leave first (not
crowded ones, or any) and the flows' rates (of 0.002, 0.006 and 0.015). Flows that know permutations are not compared.

DW4 has 100 000 samples to learn from. LJ13 has none: parallel tempering makes some, from the icosahedron on, and its
seconds are told apart. Test samples are those given; nothing was chosen by them.

Of each method, from draws as they are: the effective share of the exact weights (``ess``), the Wasserstein distance of
energies to the test samples in nats, those beyond ``CLIP`` nats above the highest test energy put there (``w1``; each
cluster's centre at 0), and the total variation of the histogram of all distances. ``floor`` is that of the validation
samples. Weighted draws are told beside them. The energy of a draw near the core of a particle is boundless, hence the
clip; ``beyond`` is the share that it concerns.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import scipy.stats
import torch
import zuko
from torch import Tensor, nn

from renorm.bench.cores import on_all_cores, telling
from renorm.bench.drawing import ACCENT, AGAINST, INK, QUIET, svg
from renorm.bench.equal_time import descend_for, parameters
from renorm.bench.kept import kept
from renorm.bench.result import Result
from renorm.cascade.clusters.adding import AddingLaw
from renorm.cascade.clusters.thinning import Thinning
from renorm.data.particles import Cluster, clusters
from renorm.fit.checkpoint import read_tensors, write_tensors
from renorm.fit.progress import FitProgress
from renorm.laws.particles import DoubleWellCluster, LennardJonesCluster
from renorm.mcmc.kernel import run as run_kernel
from renorm.mcmc.tempering import Tempering, ladder
from renorm.measure.one_point import total_variation
from renorm.measure.statistics import ess, jackknife

__all__ = ["picture", "run"]


@dataclass(frozen=True)
class System:
    """What is learned, and how."""

    name: Cluster
    law: DoubleWellCluster | LennardJonesCluster
    seconds: float
    sharpness: float  # of ours, when outer particles leave
    unit: float
    parts: int
    batch: int
    candidates: int  # of a draw
    hidden: dict[str, tuple[int, int]]  # transforms of a flow, width of its networks: no fewer numbers than ours
    flow_rate: float
    draws: int
    far: float  # the longest distance of the histogram


SYSTEMS = {
    "dw4": System(
        "dw4",
        DoubleWellCluster(),
        seconds=200.0,
        sharpness=0.1,
        unit=2.0,
        parts=12,
        batch=256,
        candidates=64,
        hidden={"autoregressive": (3, 64), "coupling": (3, 64)},
        flow_rate=1.5e-2,
        draws=10_000,
        far=8.0,
    ),
    "lj13": System(
        "lj13",
        LennardJonesCluster(),
        seconds=400.0,
        sharpness=1.0,
        unit=1.0,
        parts=8,
        batch=64,
        candidates=128,
        hidden={"autoregressive": (1, 48), "coupling": (2, 40)},
        flow_rate=6e-3,
        draws=4000,
        far=6.0,
    ),
}
METHODS = ("ours", "autoregressive", "coupling")
RATE = 3e-3  # of ours
FLOW_BATCH = 512
TRAIN_CANDIDATES = 16
CLIP = 20.0
BINS = 60
CHAINS, RUNGS, HOTTEST = 400, 3, 0.6  # of parallel tempering
LEAPS, STEP, BURN, ROUNDS, APART = 20, 0.015, 400, 1000, 20
ROOT = Path("runs", "bench", "particles")
KEPT = 4000  # energies of each method that are drawn in the picture


def run(seed: int) -> Result:
    """All methods on both clusters, a process on each core.

    Raises:
        DataError: If the file of the samples is not here.
    """
    virial = jackknife(virials(SYSTEMS["dw4"], clusters("dw4", "train")))
    (simulation,) = on_all_cores([partial(samples, seed)], lambda *_: None)
    jobs: list[Callable[[], dict[str, Any]]] = [
        partial(piece, system, method, seed)
        for system in reversed(SYSTEMS)  # the long ones first
        for method in METHODS
    ]
    rows = on_all_cores(jobs, telling("particles", "methods"))
    figures: dict[str, float] = {}
    for system in SYSTEMS:
        of = {row["method"]: row for row in rows if row["cluster"] == system}
        # The better of both flows, for each figure.
        rivals = [of["autoregressive"], of["coupling"]]
        figures |= {
            f"{system}_ess": of["ours"]["ess"],
            f"{system}_ess_one_scale": max(row["ess"] for row in rivals),
            f"{system}_energy_w1": of["ours"]["energy_w1"],
            f"{system}_energy_w1_one_scale": min(row["energy_w1"] for row in rivals),
            f"{system}_distance_tv": of["ours"]["distance_tv"],
            f"{system}_distance_tv_one_scale": min(row["distance_tv"] for row in rivals),
            f"{system}_energy_w1_weighted": of["ours"]["energy_w1_weighted"],
            f"{system}_distance_tv_weighted": of["ours"]["distance_tv_weighted"],
            f"{system}_energy_w1_floor": of["ours"]["energy_w1_floor"],
            f"{system}_distance_tv_floor": of["ours"]["distance_tv_floor"],
        }
    figures["lj13_seconds_simulated"] = simulation["seconds"]
    figures |= {"dw4_virial_of_train": float(virial.value), "dw4_virial_of_train_error": float(virial.error)}
    _draw(rows)
    return Result(figures, [simulation, *({k: v for k, v in row.items() if k != "histogram"} for row in rows)], (seed,))


def piece(system: str, method: str, seed: int) -> dict[str, Any]:
    """What a method came to, from ``runs/bench/particles`` if it was run before with these settings."""
    asked = repr((SYSTEMS[system], RATE, FLOW_BATCH, TRAIN_CANDIDATES, CLIP, BINS))
    row, _ = kept(ROOT / f"{system}-{method}-{seed}.json", asked, lambda: learned(system, method, seed))
    return row


def samples(seed: int) -> dict[str, Any]:
    """How samples of LJ13 were made; they lie beside it."""
    asked = [CHAINS, RUNGS, HOTTEST, LEAPS, STEP, BURN, ROUNDS, APART]
    row, _ = kept(ROOT / f"lj13-samples-{seed}.json", asked, lambda: simulated(seed))
    return row


# -- samples of LJ13 ---------------------------------------------------------------------------------------------------


def simulated(seed: int) -> dict[str, Any]:
    """Parallel tempering of LJ13 from the icosahedron; the samples are left in ``runs/bench/particles``."""
    generator = torch.Generator().manual_seed(seed)
    law = LennardJonesCluster()
    begun = time.process_time()
    start = icosahedron() + 0.02 * torch.randn(CHAINS, 3, 13, generator=generator)
    kernel = Tempering(law, ladder(HOTTEST, RUNGS), steps=LEAPS, step_size=STEP, burn_in=BURN)
    state = run_kernel(kernel, kernel.start(start), BURN, generator=generator, thin=BURN).state
    result = run_kernel(kernel, state, ROUNDS, generator=generator, thin=APART)
    x = result.values.flatten(0, 1)
    x = x - x.mean(2, keepdim=True)
    energy, given = law(x), law(clusters("lj13", "val"))
    write_tensors(ROOT / f"lj13-samples-{seed}.safetensors", {"x": x.contiguous()}, {})
    return {
        "cluster": "lj13",
        "method": "parallel tempering",
        "seconds": time.process_time() - begun,
        "samples": len(x),
        "acceptance": float(result.acceptance[-1]),
        "energy": float(energy.mean()),
        "energy_of_val": float(given.mean()),
        "energy_w1_to_val": distance(energy, given),
    }


def icosahedron() -> Tensor:
    """A particle, and twelve at the distance 1 of it: (3, 13)."""
    golden = (1 + math.sqrt(5)) / 2
    corners = [torch.tensor([0.0, a, b * golden]).roll(turn) for a in (-1, 1) for b in (-1, 1) for turn in range(3)]
    return torch.stack([torch.zeros(3), *(corner / corner.norm() for corner in corners)], 1)


# -- training ----------------------------------------------------------------------------------------------------------


def learned(name: str, method: str, seed: int) -> dict[str, Any]:
    """Train one method for its seconds, and judge it."""
    system = SYSTEMS[name]
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    if system.name == "dw4":
        known = clusters("dw4", "train")
    else:
        known = read_tensors(ROOT / f"lj13-samples-{seed}.safetensors")[0]["x"]
    begun = time.process_time()
    model = Ours(system, known, generator) if method == "ours" else Flow(system, method, known)
    shown = FitProgress(0, int(system.seconds), shown=True, what=f"{name}, {method}", unit="seconds of the processor")
    numbers = system.law.lattice.sites * system.law.lattice.channels

    def loss(_: int) -> Tensor:
        some = known[torch.randint(len(known), (model.batch,), generator=generator)]
        return model.loss(some, generator).mean() / numbers

    steps = descend_for(
        torch.optim.Adam(model.network.parameters()),
        loss,
        seconds=system.seconds,
        rate=model.rate,
        after=lambda _: shown.update(int(time.process_time() - begun)),
    )
    shown.close()
    spent = time.process_time() - begun
    write_tensors(ROOT / f"{name}-{method}-{seed}.safetensors", model.network.state_dict(), {})
    row = {"cluster": name, "method": method, "parameters": parameters(model.network), "seconds": spent, "steps": steps}
    return row | judged(system, model, generator)


class Ours:
    """The law that adds particles."""

    def __init__(self, system: System, known: Tensor, generator: torch.Generator) -> None:
        law = system.law
        self.batch, self.rate, self.energy = system.batch, RATE, law
        size = {"unit": system.unit, "parts": system.parts, "candidates": system.candidates}
        thinning = Thinning("outer", system.sharpness)
        self.network = AddingLaw(law.particles, law.dim, thinning=thinning, **size)  # type: ignore[arg-type]
        self.network.standardise(known[:4000], generator=generator)

    def loss(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Nats of each cluster."""
        return self.network.loss(x, candidates=TRAIN_CANDIDATES, generator=generator)

    def weighed(self, num: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draws, and their log weights."""
        drawn = self.network.draw(num, generator=generator)
        return drawn.x, self.network.log_weight(self.energy, drawn)


class Flow:
    """A neural spline flow of all coordinates, in units of their spread."""

    def __init__(self, system: System, method: str, known: Tensor) -> None:
        law = system.law
        transforms, width = system.hidden[method]
        self.batch, self.rate, self.energy = FLOW_BATCH, system.flow_rate, law
        self.shape = (law.dim, law.particles)
        self.scale = float(known.std())
        size = {"transforms": transforms, "hidden_features": [width] * 2, "bins": 8}
        passes = 2 if method == "coupling" else None
        self.network: nn.Module = zuko.flows.NSF(math.prod(self.shape), passes=passes, **size)

    def loss(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Nats of each cluster, turned, mirrored and permuted at random, its centre drawn from its law."""
        return -self.network().log_prob(moved(x, generator).flatten(1) / self.scale)  # type: ignore[no-any-return]

    @torch.no_grad()
    def weighed(self, num: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draws, and their log weights."""
        torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))  # zuko draws from torch's own
        z, log_prob = self.network().rsample_and_log_prob((num,))
        x = (z * self.scale).unflatten(1, self.shape)
        log_prob = log_prob.double() - math.prod(self.shape) * math.log(self.scale)
        log_weight = -self.energy(x).double() - log_prob
        return x, torch.where(log_weight.isnan(), -torch.inf, log_weight)  # infinite energies at points without density


def moved(x: Tensor, generator: torch.Generator) -> Tensor:
    """Clusters turned, mirrored and permuted at random, about centres of their law (variance 1/n)."""
    num, dim, particles = x.shape
    turn, corner = torch.linalg.qr(torch.randn(num, dim, dim, generator=generator))
    turn = turn * corner.diagonal(dim1=1, dim2=2).sign()[:, None]  # evenly over the orthogonal group
    order = torch.rand(num, particles, generator=generator).argsort(1)
    x = (turn @ (x - x.mean(2, keepdim=True))).gather(2, order[:, None].expand(-1, dim, -1))
    return x + torch.randn(num, dim, 1, generator=generator) / math.sqrt(particles)


# -- figures -----------------------------------------------------------------------------------------------------------


def judged(system: System, model: Ours | Flow, generator: torch.Generator) -> dict[str, Any]:
    """Weights, energies and distances of draws against the test samples."""
    begun = time.process_time()
    parts = [model.weighed(250, generator) for _ in range(system.draws // 250)]
    spent = time.process_time() - begun
    x, log_weight = (torch.cat(each) for each in zip(*parts, strict=True))
    test, val = clusters(system.name, "test"), clusters(system.name, "val")
    energy, theirs, others = (energies(system, each) for each in (x, test, val))
    highest = float(theirs.max()) + CLIP
    clipped = energy.nan_to_num(nan=highest, posinf=highest).clamp(max=highest)
    share = log_weight.softmax(0)
    apart = partial(distances, far=system.far)
    return {
        "ess": ess(log_weight) if bool(log_weight.isfinite().any()) else 0.0,
        "log_z": float(log_weight.logsumexp(0)) - math.log(len(x)),
        "energy_w1": distance(clipped, theirs),
        "energy_w1_weighted": distance(clipped, theirs, share),
        "energy_w1_floor": distance(others, theirs),
        "beyond": float((clipped >= highest).double().mean()),
        "clip": highest,
        "median_energy": float(clipped.median()),
        "median_energy_of_test": float(theirs.median()),
        "distance_tv": total_variation(apart(x), apart(test)),
        "distance_tv_weighted": total_variation(apart(x, share), apart(test)),
        "distance_tv_floor": total_variation(apart(val), apart(test)),
        "seconds_for_1000_draws": spent * 1000 / len(x),
        "histogram": {
            "energy": clipped[:KEPT].tolist(),
            "test_energy": theirs[:KEPT].tolist(),
            "distance": apart(x).tolist(),
            "test_distance": apart(test).tolist(),
        },
    }


def energies(system: System, x: Tensor) -> Tensor:
    """Nats of clusters with their centres at 0."""
    return system.law(x - x.mean(2, keepdim=True)).double()


def virials(system: System, x: Tensor) -> Tensor:
    r"""$x\cdot\nabla U$ of clusters with their centres at 0, whose mean in equilibrium is $(n - 1)\,d$."""
    return (x * system.law.grad(x)).flatten(1).sum(1).double()


def distance(a: Tensor, b: Tensor, share: Tensor | None = None) -> float:
    """Wasserstein distance of numbers, the first with weights."""
    return float(scipy.stats.wasserstein_distance(a.double(), b.double(), share))


def distances(x: Tensor, share: Tensor | None = None, *, far: float) -> Tensor:
    """Probability of the distances of all pairs in ``BINS`` bins from 0 to ``far``, the last of them for all beyond."""
    i, j = torch.triu_indices(x.shape[2], x.shape[2], offset=1)
    apart = (x[..., i] - x[..., j]).norm(dim=1)
    bins = (apart / far * BINS).nan_to_num(nan=BINS, posinf=BINS).clamp(max=BINS - 1).long().flatten()
    weight = torch.full((len(x),), 1 / len(x), dtype=torch.float64) if share is None else share
    weight = weight.repeat_interleave(len(i)) / len(i)
    return torch.zeros(BINS, dtype=torch.float64).index_add(0, bins, weight)


def _draw(rows: list[dict[str, Any]]) -> None:
    path = ROOT / "particles.svg"
    path.write_text(picture(rows), encoding="utf-8")


def picture(rows: list[dict[str, Any]]) -> str:
    """SVG: energies and distances of both clusters, of test samples, ours and both flows."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 5.0), layout="constrained")
    for line, system in zip(figure.subplots(2, 2), SYSTEMS, strict=True):
        places = ((torch.arange(BINS) + 0.5) * SYSTEMS[system].far / BINS).tolist()
        for row in (row for row in rows if row["cluster"] == system):
            label, ink, stroke = _LOOKS[row["method"]]
            seen = row["histogram"]
            style = {"color": ink, "linestyle": stroke, "linewidth": 1.3, "label": label}
            low, high = min(seen["test_energy"]) - 2, row["clip"]
            edges = torch.linspace(low, high, 61).tolist()
            width = {"bins": edges, "density": True}
            if row["method"] == "ours":
                height, *_ = line[0].hist(seen["test_energy"], color=QUIET, alpha=0.35, label="test samples", **width)
                line[0].set_ylim(0, 1.6 * max(height))  # the bar of what lies beyond may leave the picture
                line[1].fill_between(places, seen["test_distance"], step="mid", color=QUIET, alpha=0.35, linewidth=0)
            line[0].hist(seen["energy"], histtype="step", **style, **width)
            line[1].step(places, seen["distance"], where="mid", **style)
        line[0].set_title(f"{system.upper()}: energy of draws as they are", fontsize=9, color=INK)
        line[0].set_xlabel("energy [nats]; the last bin has all beyond", fontsize=8)
        line[1].set_title(f"{system.upper()}: distances of all pairs", fontsize=9, color=INK)
        line[1].set_xlabel("distance", fontsize=8)
        for place in line:
            place.set_yticks([])
            place.tick_params(labelsize=7)
            place.spines[["top", "right", "left"]].set_visible(False)
    figure.axes[0].legend(fontsize=7, frameon=False)
    return svg(figure, "particles")


_LOOKS = {
    "ours": ("ours", ACCENT, "-"),
    "autoregressive": ("spline flow, autoregressive", AGAINST, "-"),
    "coupling": ("spline flow, couplings", AGAINST, ":"),
}
