r"""Learned coarse-graining of critical Ising spins in their continuous dual, 16 x 16, half an hour of one processor.

Ours: fields are disentangled by affine couplings before each doubling of the checkerboard, and each detail is drawn
sublattice by sublattice by a learned law. It begins at the best linear law and learns by likelihood from cluster
samples of the spins, with fields drawn anew for each step; coarse levels look at more of them than fine ones. Beside
it, for the same seconds: the same without disentanglers, and the neural renormalization group of Li & Wang with the
values that they published (RealNVP blocks of 10 layers, networks of 3 x 10, batches of 512, fields turned over at
random), from the action.

Blocks break the translations of the lattice, and so does what is learned of them. Each method is judged by the mixture
of its law over all translations (``Symmetrised``), a law of exact density too, and as it is. The bound on $\ln Z$ is
$\langle\ln w\rangle_q$; Kaufman's formula says what it is short of. What a coarse spin tells of its surroundings, a
learned rule against the majority, is the benchmark ``information``; its figures are repeated here, first of all that of
blocks of 4 x 4, for on 2 x 2 the majority is as good as any rule.

Seconds are those of one processor, the simulation of the spins among them. Each method leaves its weights and figures
in ``runs/bench/learned-rg``; what is there is not made again.
"""

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
from renorm.bench.kept import kept
from renorm.bench.result import Result
from renorm.cascade.cascade import Cascade
from renorm.cascade.checkerboards import checkerboard_cascade
from renorm.cascade.conditionals.heads import SplineHead
from renorm.cascade.conditionals.local import LocalConditional
from renorm.cascade.evidence import evidence
from renorm.cascade.learning.training import shared_log_prob
from renorm.cascade.learning.warm_start import start_linear
from renorm.cascade.neural_rg import neural_rg
from renorm.cascade.symmetrised import Symmetrised, translations, turned_over
from renorm.cascade.weighing import Weighed
from renorm.fit.checkpoint import load_weights, read_tensors, write_tensors
from renorm.fit.progress import FitProgress
from renorm.laws.ising import ContinuousIsing, Ising
from renorm.laws.simulate import simulate
from renorm.measure.free_energy import lower_bound
from renorm.nn.block_flow import BlockFlow

EDGE, BETA = 16, math.log(1 + math.sqrt(2)) / 2
SECONDS = 1800.0
SPINS, STARTING = 20_000, 4000
LEAST, RATE = 48, 4e-3  # fields that the finest level looks at
MOST, MOST_BENT = 1024, 384  # fields of a step; disentanglers bend all of them
THEIR_BATCH, THEIR_RATE = 512, 1e-3
DRAWS, MIXED_DRAWS, TARGETS = 20_000, 2000, 500
METHODS = ("disentangled", "neural-rg", "plain")
ROOT = Path("runs", "bench", "learned-rg")


def run(seed: int) -> Result:
    """All methods, one on each core, then the information that rules keep."""
    jobs: list[Callable[[], dict[str, float | str]]] = [partial(piece, method, seed) for method in METHODS]
    jobs.append(partial(rules, seed))
    *rows, information_kept = on_all_cores(jobs, telling("learned-rg", "pieces"))
    of = {str(row["model"]): row for row in rows}
    figures = {
        "bound_gap_nats": float(of["disentangled"]["bound_gap"]),
        "bound_gap_nats_error": float(of["disentangled"]["bound_gap_error"]),
        "bound_gap_nats_unmixed": float(of["disentangled"]["bound_gap_unmixed"]),
        "bound_gap_nats_plain": float(of["plain"]["bound_gap"]),
        "bound_gap_nats_plain_unmixed": float(of["plain"]["bound_gap_unmixed"]),
        "neural_rg_gap_nats": float(of["neural-rg"]["bound_gap_unmixed"]),
        "neural_rg_gap_nats_mixed": float(of["neural-rg"]["bound_gap"]),
        "mutual_information_ratio": float(information_kept["mutual_information_ratio_block4"]),
        "mutual_information_ratio_error": float(information_kept["mutual_information_ratio_block4_error"]),
        "mutual_information_ratio_block2": float(information_kept["mutual_information_ratio"]),
    }
    return Result(figures, rows, (seed,))


def rules(seed: int) -> dict[str, float | str]:
    """What block-spin rules keep: the figures of the benchmark ``information``, from the same folder."""
    found, _ = kept(ROOT / f"information-{seed}.json", None, lambda: dict(information.run(seed).figures))
    return found  # type: ignore[return-value]


def piece(method: str, seed: int) -> dict[str, float | str]:
    """What a method came to, from ``runs/bench/learned-rg`` as far as it was run before with these settings."""

    def found() -> dict[str, float | str]:
        model, row = trained(method, seed)
        return row | judged(method, model, torch.Generator().manual_seed(seed + 1))

    row, _ = kept(ROOT / f"{method}-{seed}.json", [*_training(), DRAWS, MIXED_DRAWS, TARGETS], found)
    return row


def _training() -> list[float | int]:
    """All that weights depend on but the code."""
    return [EDGE, BETA, SECONDS, SPINS, STARTING, LEAST, RATE, MOST, MOST_BENT, THEIR_BATCH, THEIR_RATE]


def trained(method: str, seed: int) -> tuple[Cascade, dict[str, float | str]]:
    """The model of a method, and how long it learned; its weights are kept too."""
    weights = ROOT / f"{method}-{seed}.safetensors"
    if weights.is_file():
        tensors, known = read_tensors(weights)
        if known.get("settings") == _training():
            model = made(method)
            load_weights(model, tensors, source=str(weights))
            return model, {name: known[name] for name in ("model", "seconds", "steps")}
    row, model = learn(method, seed, SECONDS)
    weights.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(weights, model.state_dict(), row | {"settings": _training()})
    return model, row


def made(method: str) -> Cascade:
    """A method's model before it has learned."""
    if method == "neural-rg":
        return neural_rg(EDGE)
    blocks = partial(BlockFlow, 4, layers=2, kind="affine", width=8) if method == "disentangled" else None
    return checkerboard_cascade(EDGE, None, SplineHead(), blocks=blocks)


def learn(method: str, seed: int, seconds: float) -> tuple[dict[str, float | str], Cascade]:
    """Train one method for so many seconds of one processor."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    law = ContinuousIsing(Ising((EDGE, EDGE), BETA))
    begun = time.process_time()
    model = made(method)
    learning = _theirs if method == "neural-rg" else _ours
    steps = learning(model, law, begun + seconds, generator)
    return {"model": method, "seconds": time.process_time() - begun, "steps": steps}, model


def judged(method: str, model: Cascade, generator: torch.Generator) -> dict[str, float | str]:
    r"""The bound of the model's law, and of its mixture over all translations.

    The neural RG's law is that of fields turned over at random, with and without translations.
    """
    law = ContinuousIsing(Ising((EDGE, EDGE), BETA))
    shape, signed = (EDGE, EDGE), turned_over if method == "neural-rg" else tuple
    alone = lower_bound(_own(model, method).weigh(law, DRAWS, generator=generator).log_weight)
    spins = simulate(law.ising, TARGETS, generator=generator, thin=20)
    target = law.field(spins, generator=generator)
    mixture = Symmetrised(model, signed(translations(shape)))
    found = evidence(mixture, law, MIXED_DRAWS, generator=generator, target=target)
    assert found.upper is not None
    return {
        "bound_gap": law.log_z - float(found.lower.value),
        "bound_gap_error": float(found.lower.error),
        "bound_gap_unmixed": law.log_z - float(alone.value),
        "bound_gap_unmixed_error": float(alone.error),
        "missed_nats": float(found.upper.value) - law.log_z,
        "missed_nats_error": float(found.upper.error),
        "log_z_error": float(found.log_z.value) - law.log_z,
        "log_z_standard_error": float(found.log_z.error),
        "ess": found.ess,
        "acceptance": float(found.acceptance.value),
    }


def _own(model: Cascade, method: str) -> Weighed:
    """The law that a method learns."""
    if method != "neural-rg":
        return model
    return Symmetrised(model, turned_over(translations((EDGE, EDGE), stride=EDGE)))


def _ours(model: Cascade, law: ContinuousIsing, until: float, generator: torch.Generator) -> int:
    spins = simulate(law.ising, SPINS, generator=generator, thin=10)

    def drawn(num: int) -> Tensor:
        some = spins[torch.randint(len(spins), (num,), generator=generator)]
        shift = [int(torch.randint(EDGE, (), generator=generator)) for _ in range(2)]
        some = some.roll(shift, (2, 3))
        turned = some.transpose(2, 3) if bool(torch.rand((), generator=generator) < 0.5) else some
        return law.field(turned, generator=generator)

    _start(model, drawn(STARTING))
    most = MOST_BENT if len(model.learned_steps) else MOST

    def loss(_: int) -> Tensor:
        return -shared_log_prob(model, drawn(most), 0, LEAST) / EDGE**2

    return _descend(model, loss, until, RATE)


@torch.no_grad()
def _start(model: Cascade, x: Tensor) -> None:
    """The best linear law of every level, of the fields as they are before anything is disentangled."""
    for step, law in zip(model.steps, model.conditionals, strict=True):
        assert isinstance(law, LocalConditional)
        coarse, detail, _ = step.split(x)
        start_linear(law, detail, coarse)
        x = coarse
    model.top.theta[1] = x.std().log()  # type: ignore[index,operator]


def _theirs(model: Cascade, law: ContinuousIsing, until: float, generator: torch.Generator) -> int:
    mixture = _own(model, "neural-rg")

    def loss(_: int) -> Tensor:
        x, log_prob = mixture.draw(THEIR_BATCH, generator=generator)
        return (law(x) + log_prob).mean() / EDGE**2

    return _descend(model, loss, until, THEIR_RATE)


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
