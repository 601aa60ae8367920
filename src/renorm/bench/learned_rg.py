r"""Learned coarse-graining of critical Ising spins in their continuous dual, 16 x 16, half an hour of one processor.

Ours: fields are disentangled by affine couplings before each doubling of the checkerboard, and each detail is drawn
sublattice by sublattice by a learned law. It begins at the best linear law and learns by likelihood from cluster
samples of the spins, with fields drawn anew for each step; coarse levels look at more of them than fine ones. Beside
it, for the same seconds: the same without disentanglers, and the neural renormalization group of Li & Wang with the
values that they published (RealNVP blocks of 10 layers, networks of 3 x 10, batches of 512, fields turned over at
random), from the action.

The bound on $\ln Z$ is $\langle\ln w\rangle_q$; Kaufman's formula says what it is short of. What a coarse spin tells of
its surroundings, a learned rule against the majority, is the benchmark ``information``; its figures are repeated here,
first of all that of blocks of 4 x 4, for on 2 x 2 the majority is as good as any rule.

Seconds are those of one processor, the simulation of the spins among them. Each method leaves its figures and weights
in ``runs/bench/learned-rg``; what is there is not made again.
"""

import json
import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from renorm.bench import information
from renorm.bench.cores import on_all_cores, telling
from renorm.bench.equal_time import descend_for
from renorm.bench.result import Result
from renorm.cascade.cascade import Cascade
from renorm.cascade.checkerboards import checkerboard_cascade
from renorm.cascade.conditionals.heads import SplineHead
from renorm.cascade.conditionals.local import LocalConditional
from renorm.cascade.evidence import evidence
from renorm.cascade.learning.training import shared_log_prob
from renorm.cascade.learning.warm_start import start_linear
from renorm.cascade.neural_rg import neural_rg
from renorm.fit.checkpoint import atomic, write_tensors
from renorm.fit.progress import FitProgress
from renorm.laws.ising import ContinuousIsing, Ising
from renorm.laws.simulate import simulate
from renorm.measure.statistics import jackknife
from renorm.nn.block_flow import BlockFlow

EDGE, BETA = 16, math.log(1 + math.sqrt(2)) / 2
SECONDS = 1800.0
SPINS, STARTING = 20_000, 4000
LEAST, RATE = 48, 4e-3  # fields that the finest level looks at
MOST = {2: 384, 0: 1024}  # fields of a step, by layers of the disentanglers: these bend all of them
THEIR_BATCH, THEIR_RATE = 512, 1e-3
DRAWS, TARGETS = 20_000, 4000
METHODS = ("disentangled", "neural-rg", "plain")
ROOT = Path("runs", "bench", "learned-rg")


def run(seed: int) -> Result:
    """All methods, one on each core, then the information that rules keep."""
    jobs: list[Callable[[], dict[str, float | str]]] = [partial(piece, method, seed) for method in METHODS]
    rows = on_all_cores(jobs, telling("learned-rg", "methods"))
    gaps = {str(row["model"]): float(row["bound_gap"]) for row in rows}
    kept = information.run(seed)
    figures = {
        "bound_gap_nats": gaps["disentangled"],
        "bound_gap_nats_plain": gaps["plain"],
        "neural_rg_gap_nats": gaps["neural-rg"],
        "mutual_information_ratio": kept.figures["mutual_information_ratio_block4"],
        "mutual_information_ratio_error": kept.figures["mutual_information_ratio_block4_error"],
        "mutual_information_ratio_block2": kept.figures["mutual_information_ratio"],
    }
    return Result(figures, rows, (seed,))


def piece(method: str, seed: int) -> dict[str, float | str]:
    """What a method came to, from ``runs/bench/learned-rg`` if it was run before."""
    path = ROOT / f"{method}-{seed}.json"
    if not path.is_file():
        row, model = learn(method, seed, SECONDS)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_tensors(path.with_suffix(".safetensors"), model.state_dict(), {"method": method})
        with atomic(path) as temporary:
            temporary.write_text(json.dumps(row), encoding="utf-8")
    return json.loads(path.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def learn(method: str, seed: int, seconds: float) -> tuple[dict[str, float | str], Cascade]:
    """Train one method for so many seconds of one processor, and judge it."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    law = ContinuousIsing(Ising((EDGE, EDGE), BETA))
    begun = time.process_time()
    if method == "neural-rg":
        model, steps = _theirs(law, begun + seconds, generator)
    else:
        model, steps = _ours(law, begun + seconds, generator, disentanglers=2 if method == "disentangled" else 0)
    spent = time.process_time() - begun
    row: dict[str, float | str] = {"model": method, "seconds": spent, "steps": steps}
    spins = simulate(law.ising, TARGETS, generator=generator, thin=20)
    return row | _judged(method, model, law, law.field(spins, generator=generator), generator), model


def _judged(
    method: str, model: Cascade, law: ContinuousIsing, target: Tensor, generator: torch.Generator
) -> dict[str, float | str]:
    if method == "neural-rg":  # its law is that of fields turned over at random
        with torch.no_grad():
            weights = [_their_weight(model, law, DRAWS // 20, generator) for _ in range(20)]
        bound = jackknife(torch.cat(weights).double())
        return {"bound_gap": law.log_z - float(bound.value), "bound_gap_error": float(bound.error)}
    found = evidence(model, law, DRAWS, generator=generator, target=target)
    assert found.upper is not None
    return {
        "bound_gap": law.log_z - float(found.lower.value),
        "bound_gap_error": float(found.lower.error),
        "missed_nats": float(found.upper.value) - law.log_z,
        "log_z_error": float(found.log_z.value) - law.log_z,
        "log_z_standard_error": float(found.log_z.error),
        "ess": found.ess,
        "acceptance": float(found.acceptance.value),
    }


def _ours(law: ContinuousIsing, until: float, generator: torch.Generator, *, disentanglers: int) -> tuple[Cascade, int]:
    spins = simulate(law.ising, SPINS, generator=generator, thin=10)

    def drawn(num: int) -> Tensor:
        some = spins[torch.randint(len(spins), (num,), generator=generator)]
        shift = [int(torch.randint(EDGE, (), generator=generator)) for _ in range(2)]
        some = some.roll(shift, (2, 3))
        turned = some.transpose(2, 3) if bool(torch.rand((), generator=generator) < 0.5) else some
        return law.field(turned, generator=generator)

    blocks = partial(BlockFlow, 4, layers=disentanglers, kind="affine", width=8) if disentanglers else None
    model = checkerboard_cascade(EDGE, None, SplineHead(), blocks=blocks)
    _start(model, drawn(STARTING))

    def loss(_: int) -> Tensor:
        return -shared_log_prob(model, drawn(MOST[disentanglers]), 0, LEAST) / EDGE**2

    return model, _descend(model, loss, until, RATE)


@torch.no_grad()
def _start(model: Cascade, x: Tensor) -> None:
    """The best linear law of every level, of the fields as they are before anything is disentangled."""
    for step, law in zip(model.steps, model.conditionals, strict=True):
        assert isinstance(law, LocalConditional)
        coarse, detail, _ = step.split(x)
        start_linear(law, detail, coarse)
        x = coarse
    model.top.theta[1] = x.std().log()  # type: ignore[index,operator]


def _theirs(law: ContinuousIsing, until: float, generator: torch.Generator) -> tuple[Cascade, int]:
    model = neural_rg(EDGE)

    def loss(_: int) -> Tensor:
        return -_their_weight(model, law, THEIR_BATCH, generator).mean() / EDGE**2

    return model, _descend(model, loss, until, THEIR_RATE)


def _descend(model: Cascade, loss: Callable[[int], Tensor], until: float, rate: float) -> int:
    """Adam until the processor's clock shows that time; the steps that were made."""
    begun = time.process_time()
    shown = FitProgress(0, int(until - begun), shown=True, what="learned-rg", unit="seconds of the processor")
    steps = descend_for(
        torch.optim.Adam(model.parameters()),
        loss,
        seconds=until - begun,
        rate=rate,
        after=lambda _: shown.update(int(time.process_time() - begun)),
    )
    shown.close()
    return steps


def _their_weight(model: Cascade, law: ContinuousIsing, num: int, generator: torch.Generator) -> Tensor:
    r"""Log weight of draws of the law $\tfrac12[q(x) + q(-x)]$."""
    x, log_prob = model.draw(num, generator=generator)
    both = torch.logaddexp(log_prob, model.log_prob(-x)) - math.log(2)
    return -law(x) - both  # the action and the law are even: turning x over changes neither
