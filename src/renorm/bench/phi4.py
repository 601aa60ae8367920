r"""Lattice $\phi^4$ at its critical point by a cascade of checkerboards, learned from the action alone.

$\kappa$ = 0.34, $\lambda$ = 1 on 4 x 4, 8 x 8 and 16 x 16 sites. Every second site is a heat bath, exact; the rest is
learned by reverse Kullback-Leibler divergence, each size beginning from the one before. 4 x 4 is judged against the
transfer matrix; 16 x 16 by proposals to Markov chains, whose susceptibility needs no trust in the model (a sweep
of the heat bath after each: fields that the model draws too rarely would stand still for long). Simulated
fields join the judgement, not the learning: what the model misses, they see.
"""

import math
import time

import torch

from renorm.bench.result import Result
from renorm.cascade.cascade import Cascade
from renorm.cascade.checkerboards import checkerboard_cascade, doubled
from renorm.cascade.conditionals.heads import SplineHead
from renorm.cascade.conditionals.heat_bath import EvenAction
from renorm.cascade.conditionals.site_laws import Phi4Site
from renorm.cascade.evidence import evidence, two_fold
from renorm.cascade.learning.chain import heat_bath_sweep, metropolis
from renorm.cascade.learning.training import fit_to_action
from renorm.laws.phi4 import Phi4
from renorm.laws.simulate import simulate
from renorm.measure.autocorrelation import chain_mean, integrated_time
from renorm.measure.statistics import jackknife

KAPPA, LAM = 0.34, 1.0
PLAN = {4: (1500, 384, 8e-3), 8: (400, 256, 4e-3), 16: (450, 256, 3e-3)}
"""For each edge: steps of Adam, fields a step, rate."""

DRAWS, TARGETS = {4: 160_000, 8: 20_000, 16: 20_000}, 2000
CHAINS, MOVES, BURN = 200, 150, 200


def run(seed: int) -> Result:
    """All three sizes; times are those of training, from the beginning, in seconds of one processor."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    site = Phi4Site(KAPPA, LAM)
    figures: dict[str, float] = {}
    table, begun = [], time.process_time()
    model: Cascade | None = None
    for edge, (steps, batch, rate) in PLAN.items():
        model = checkerboard_cascade(4, site, SplineHead(bins=14)) if model is None else doubled(model)
        fit_to_action(model, EvenAction(site), steps=steps, batch=batch, rate=rate, level=1, generator=generator)
        seconds = time.process_time() - begun
        law = Phi4((edge, edge), KAPPA, LAM)
        target = simulate(law, TARGETS, generator=generator, thin=20)
        found = evidence(model, law, DRAWS[edge], generator=generator, target=target)
        weight = found.drawn.log_weight
        square = jackknife(found.drawn.fields.square().flatten(1).mean(1), log_weights=weight, blocks=100)
        volume = edge * edge
        m_sq = volume * found.drawn.fields.flatten(1).mean(1).square()
        chi = jackknife(m_sq, log_weights=weight, blocks=100)
        row: dict[str, float] = {"edge": edge, "seconds": seconds, "ess": found.ess}
        row |= {"acceptance": float(found.acceptance.value), "lower_bound": float(found.lower.value)}
        row |= {"log_z": float(found.one_sided.value), "log_z_error": float(found.one_sided.error)}
        row |= {"log_z_both_ends": float(found.log_z.value), "log_z_both_ends_error": float(found.log_z.error)}
        row["upper_bound"] = float(found.upper.value) if found.upper else math.nan
        row |= {"phi_sq": float(square.value), "phi_sq_error": float(square.error)}
        row |= {"chi": float(chi.value), "chi_error": float(chi.error), "share_up": two_fold(found.drawn)}
        table.append(row)
        figures[f"acceptance_{edge}"] = row["acceptance"]
        figures[f"ess_{edge}"] = found.ess
        figures[f"seconds_{edge}"] = seconds
        if edge == 4:
            exact = law.moments()
            figures |= {"log_z_4": row["log_z"], "log_z_4_error": row["log_z_error"]}
            figures |= {"phi_sq_4": row["phi_sq"], "phi_sq_4_error": row["phi_sq_error"]}
            row |= {"exact_log_z": law.log_z(), "exact_phi_sq": exact.phi_sq, "exact_chi": exact.chi}
    assert model is not None
    figures |= _by_chains(model, law, generator)
    return Result(figures, table, (seed,))


def _by_chains(model: Cascade, law: Phi4, generator: torch.Generator) -> dict[str, float]:
    """Susceptibility at 16 x 16 from chains moved by proposals of the model and sweeps of the heat bath in turn."""
    x = model.sample(CHAINS, generator=generator)
    series, taken = [], []
    for _ in range(BURN + MOVES):
        x, acceptance = metropolis(model, law, x, generator=generator)
        x = heat_bath_sweep(Phi4Site(KAPPA, LAM), x, generator=generator)
        series.append(law.sites * x.flatten(1).mean(1).square())
        taken.append(acceptance)
    chains = torch.stack(series[BURN:], 1)
    chi, tau = chain_mean(chains), integrated_time(chains)
    return {
        "chi_16": float(chi.value),
        "chi_16_error": float(chi.error),
        "tau_chi_16": float(tau.value),
        "chain_acceptance_16": sum(taken[BURN:]) / MOVES,
    }
