r"""Chains of which everything is known: Rouse's, by the exact cascade of beads, and rings of double wells, learned.

Rouse's chain of 32 atoms, linear and closed, is bound into beads down to one; all conditionals are solved from its
covariance. Rings of double wells are decimated: the finest level is a heat bath, the others learn from the action
alone, and a ring twice as long begins from the one before. Transfer matrices judge: $\ln Z$ exactly, and the law of
every level, $T' = T^2$.
"""

import math
import time

import torch

from renorm.bench.result import Result
from renorm.cascade.cascade import Cascade
from renorm.cascade.conditionals.heads import SplineHead
from renorm.cascade.conditionals.heat_bath import EvenAction
from renorm.cascade.conditionals.site_laws import Phi4Site
from renorm.cascade.evidence import evidence
from renorm.cascade.learning.training import fit_to_action
from renorm.cascade.rings import gaussian_beads, longer, ring_cascade
from renorm.coarse.alternate import ring_neighbours
from renorm.coarse.beads import bead_steps
from renorm.graph import Graph
from renorm.laws.chain import DoubleWellChain, TransferChain
from renorm.laws.rouse import GaussianChain
from renorm.measure.chains.geometry import radius_of_gyration

ATOMS, CHAINS = 32, 100_000
STIFFNESS, BARRIER = 1.0, 4.0
PLAN = {8: (600, 1e-2), 16: (400, 4e-3), 32: (400, 4e-3), 64: (400, 4e-3)}
"""For each ring: steps of Adam, and their rate."""

BATCH, DRAWS = 512, 20_000


def run(seed: int) -> Result:
    """Both, on one processor in a minute or two; times are those of training from the beginning."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    figures: dict[str, float] = {}
    table: list[dict[str, float | str]] = []
    for name, ring in (("linear", False), ("ring", True)):
        row = _rouse(GaussianChain(ATOMS, ring=ring), generator)
        figures |= {f"rg2_{name}": row["rg2"], f"rg2_{name}_error": row["error"]}
        figures[f"log_prob_error_{name}"] = row["log_prob_error"]
        table.append({"law": f"Rouse, {name}", **row})
    model, seconds, errors = None, 0.0, []
    site = Phi4Site(STIFFNESS / 2, BARRIER, STIFFNESS - 2 * BARRIER)
    for sites, (steps, rate) in PLAN.items():
        begun = time.process_time()
        model = ring_cascade(sites, site, SplineHead()) if model is None else longer(model)
        action = EvenAction(site, ring_neighbours)
        fit_to_action(model, action, steps=steps, batch=BATCH, rate=rate, level=1, generator=generator)
        seconds += time.process_time() - begun
        law = DoubleWellChain(sites, STIFFNESS, BARRIER)
        found = evidence(model, law, DRAWS, generator=generator)
        errors.append(abs(float(found.log_z.value) - law.log_z))
        figures |= {f"log_z_{sites}": float(found.log_z.value), f"ess_{sites}": found.ess}
        about: dict[str, float | str] = {"law": "double wells", "sites": sites, "seconds": seconds, "ess": found.ess}
        about |= {"log_z": float(found.log_z.value), "log_z_error": float(found.log_z.error)}
        table.append({**about, "exact_log_z": law.log_z, "lost_nats": law.log_z - float(found.lower.value)})
    assert model is not None
    table.extend(_levels(model, DoubleWellChain(max(PLAN), STIFFNESS, BARRIER).transfer, generator))
    return Result(figures | {"log_z_error_max": max(errors), "seconds": seconds}, table, (seed,))


def _rouse(law: GaussianChain, generator: torch.Generator) -> dict[str, float]:
    """What chains from the exact cascade say, and its likelihood against the closed form."""
    graph = Graph.ring(law.atoms) if law.ring else Graph.linear(law.atoms)
    model = gaussian_beads(law.lattice, law.covariance, bead_steps(graph))
    rg_sq = radius_of_gyration(model.draw(CHAINS, generator=generator).value.transpose(1, 2)).double().square()
    x = law.sample(1000, generator=generator, dtype=torch.float64)
    error = float((model.log_prob(x) - law.log_prob(x)).abs().max())
    spread = float(rg_sq.std()) / math.sqrt(CHAINS)
    return {"rg2": float(rg_sq.mean()), "error": spread, "exact_rg2": law.rg_sq, "log_prob_error": error}


@torch.no_grad()
def _levels(model: Cascade, exact: TransferChain, generator: torch.Generator) -> list[dict[str, float | str]]:
    r"""$\langle\ln q_l - \ln p_l\rangle$ of every level, against the decimated transfer matrix."""
    rows: list[dict[str, float | str]] = []
    for level in range(1, len(model.steps) + 1):
        exact = exact.decimate()
        x, log_prob = model.draw(DRAWS // 4, generator=generator, level=level)
        lost = log_prob.double() - exact.log_prob(x)
        about: dict[str, float | str] = {
            "law": "double wells, a level",
            "level": float(level),
            "sites": float(exact.sites),
        }
        rows.append(
            {**about, "lost_nats": float(lost.mean()), "lost_nats_error": float(lost.std()) / math.sqrt(len(x))}
        )
    return rows
