r"""Critical Ising spins by a cascade of checkerboards, and how far it goes: effective samples against size.

At $\beta_c = \ln(1 + \sqrt2)/2$, from 4 x 4 sites to 128 x 128. The finest checkerboard is a heat bath, exact; the rest
is learned from chains that the model's own proposals and sweeps of single spins keep moving: no transfer matrix, no
cluster moves. Each size begins from the one before. Kaufman's formula judges the partition function. Simulated
fields join the judgement, not the learning: what the model misses, they see. Beside it at 16 x 16, the one-scale peer:
an autoregressive network of masked convolutions, for as many seconds and with a better teacher, cluster samples.
"""

import math
import time

import torch

from renorm.bench.raster_spins import RasterSpins
from renorm.bench.result import Result
from renorm.cascade.cascade import Cascade
from renorm.cascade.checkerboards import checkerboard_cascade, doubled
from renorm.cascade.conditionals.heads import SpinHead
from renorm.cascade.conditionals.site_laws import IsingSite
from renorm.cascade.evidence import Evidence, evidence, two_fold
from renorm.cascade.learning.chain import fit_to_chain
from renorm.cascade.learning.training import fit_to_fields
from renorm.lattice import Lattice
from renorm.laws.ising import Ising
from renorm.laws.simulate import simulate

BETA = math.log(1 + math.sqrt(2)) / 2
PLAN = {
    4: (500, 256, 1024, 1e-2),
    8: (600, 256, 1024, 6e-3),
    16: (850, 256, 2048, 4e-3),
    32: (400, 128, 1024, 3e-3),
    64: (220, 48, 384, 2e-3),
    128: (120, 12, 96, 1.5e-3),
}
"""For each edge: steps of Adam, fields a step, chains, rate."""

DRAWS = {4: 20_000, 8: 20_000, 16: 20_000, 32: 10_000, 64: 4000, 128: 1000}
TARGETS = {4: 4000, 8: 4000, 16: 4000, 32: 1500, 64: 400, 128: 100}
"""Fields that each model draws, and simulated ones to judge it by."""

PEER, TAUGHT, PEER_DRAWS = 16, 20_000, 4000


def run(seed: int) -> Result:
    """All sizes; times are those of training, from the beginning, in seconds of one processor."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    site = IsingSite(BETA)
    figures: dict[str, float] = {}
    table, model, seconds = [], None, 0.0
    for edge, (steps, batch, chains, rate) in PLAN.items():
        begun = time.process_time()
        law = Ising((edge, edge), BETA)
        model = checkerboard_cascade(4, site, SpinHead()) if model is None else doubled(model)
        fit_to_chain(
            model, law, site, steps=steps, batch=batch, chains=chains, rate=rate, every=20, generator=generator
        )
        seconds += time.process_time() - begun
        target = simulate(law, TARGETS[edge], generator=generator, thin=20)
        found = evidence(model, law, DRAWS[edge], generator=generator, target=target)
        table.append(_row("cascade", law, found, seconds))
        figures[f"ess_{edge}"] = found.ess
        if edge == PEER:
            alone = found.one_sided
            figures |= {"log_z_16": float(alone.value), "log_z_16_error": float(alone.error)}
            figures["log_z_16_exact"], figures["seconds_16"] = law.log_z, seconds
            peer, spent = _peer(seconds, generator)
            found = evidence(peer, law, PEER_DRAWS, generator=generator, target=target)
            figures[f"ess_one_scale_{edge}"] = found.ess
            table.append(_row("one scale", law, found, spent))
    return Result(figures, table, (seed,))


def _peer(seconds: float, generator: torch.Generator) -> tuple[Cascade, float]:
    """The autoregressive network, taught by cluster samples for about as many seconds."""
    law = Ising((PEER, PEER), BETA)
    model = Cascade(Lattice(law.shape, boundary="periodic"), [], [], RasterSpins(PEER))
    fields = simulate(law, TAUGHT, generator=generator)

    def teach(steps: int, rate: float) -> float:
        """Seconds that it took."""
        begun = time.process_time()
        fit_to_fields(model, fields, steps=steps, rate=rate, generator=generator)
        return time.process_time() - begun

    spent = teach(20, 1e-3)  # says what a step costs
    return model, spent + teach(max(50, int((seconds - spent) / (spent / 20))), 5e-3)


def _row(name: str, law: Ising, found: Evidence, seconds: float) -> dict[str, float | str]:
    """One line of the table."""
    return {
        "model": name,
        "edge": law.shape[0],
        "seconds": seconds,
        "ess": found.ess,
        "acceptance": float(found.acceptance.value),
        "log_z": float(found.log_z.value),
        "log_z_error": float(found.log_z.error),
        "exact_log_z": law.log_z,
        "lost_nats": law.log_z - float(found.lower.value),
        "missed_nats": float(found.upper.value) - law.log_z if found.upper else math.nan,
        "share_up": two_fold(found.drawn),
    }
