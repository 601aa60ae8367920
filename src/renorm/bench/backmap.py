r"""Backmapping a polymer: from 8 beads to 32 atoms, 100 draws for each of 200 frames that were never learned from.

Kremer and Grest's chain of 32 atoms, T = 1. Two levels of pairs, 32 to 16 to 8 centres of mass, each undone by an
equivariant law (``ChainBackmap``) that learned from equilibrium chains (pivot moves and HMC). Its draws keep the beads
to rounding. They are then moved at fixed beads by HMC, in the exact conditional law, since a flow's draws have some
atoms too near: figures before and after. Bonds and angles are compared with equilibrium chains of other seeds by the
total variation of histograms, $\tfrac12\sum|p - q|$; ``floor`` is that of two halves of these.
"""

import math
import time

import torch
from torch import Tensor

from renorm.bench.result import Result
from renorm.cascade.backmapping import allowed_draws, moved_at_fixed_beads
from renorm.cascade.cascade import Cascade
from renorm.cascade.conditionals.backmap import ChainBackmap
from renorm.cascade.conditionals.dense_gaussian import DenseGaussian
from renorm.cascade.learning.levels import fit_level
from renorm.coarse.beads import bead_steps
from renorm.fit.progress import FitProgress
from renorm.graph import Graph
from renorm.lattice import Lattice
from renorm.laws.fene import FenePolymer
from renorm.laws.simulate_molecules import simulate_molecules
from renorm.measure.chains.geometry import bond_lengths, pseudo_angles
from renorm.measure.one_point import bin_shares, total_variation

ATOMS, CHAINS = 32, 256
BURN, KEPT, APART = 150, 80, 6  # cycles dropped, snapshots kept of each chain, cycles between them
PLAN = ((16, 1.0, 3000), (8, 1.6, 2000))
"""For each level: beads, about the length of a bond of what is drawn there, and steps of Adam."""

WIDTH, BATCH, RATE = 96, 256, 2e-3
FRAMES, DRAWS = 200, 100
POLISH, LEAPS, STEP = 40, 10, 0.008  # trajectories at fixed beads, leapfrog steps of each, their size at first
BONDS, ANGLES = (0.7, 1.4, 35), (0.0, math.pi, 36)  # from, to, bins


def run(seed: int) -> Result:
    """Simulate, learn, draw, move, compare: some ten minutes of one processor."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    law = FenePolymer(ATOMS)
    begun = time.process_time()
    known = equilibrium(law, generator)
    fresh = equilibrium(law, torch.Generator().manual_seed(seed + 1000))
    simulated = time.process_time() - begun
    model = learn(known.flatten(0, 1), generator)
    learned = time.process_time() - begun - simulated
    others = fresh.flatten(0, 1)
    frames = fresh[-1][:FRAMES]
    coarse = model.coarsen(frames, 2).repeat_interleave(DRAWS, 0)
    begun = time.process_time()
    drawn, again = allowed_draws(model, law, coarse, len(PLAN), generator=generator)
    drawing = time.process_time() - begun
    size = {"moves": POLISH, "leaps": LEAPS, "step_size": STEP, "generator": generator}
    moved, acceptance = moved_at_fixed_beads(model, law, drawn, len(PLAN), **size)  # type: ignore[arg-type]
    moving = time.process_time() - begun - drawing
    half = torch.arange(len(others)) % 2 == 0
    rows: list[dict[str, float | str]] = [
        {"draws": "the law alone", **_compared(drawn, others)},
        {"draws": "and HMC at fixed beads", **_compared(moved, others)},
        {"draws": "floor", **_compared(others[half], others[~half])},
    ]
    kept = float((model.coarsen(moved, 2) - coarse).abs().max())
    figures = {
        "bond_tv": float(rows[1]["bond_tv"]),
        "angle_tv": float(rows[1]["angle_tv"]),
        "bond_tv_law_alone": float(rows[0]["bond_tv"]),
        "angle_tv_law_alone": float(rows[0]["angle_tv"]),
        "bond_tv_floor": float(rows[2]["bond_tv"]),
        "angle_tv_floor": float(rows[2]["angle_tv"]),
        "beads_moved": kept,
        "share_drawn_again": again,
        "acceptance": acceptance,
        "seconds_simulated": simulated,
        "seconds_learned": learned,
        "seconds_a_draw": drawing / len(coarse),
        "seconds_a_draw_moved": moving / len(coarse),
    }
    return Result(figures, rows, (seed,))


def equilibrium(law: FenePolymer, generator: torch.Generator) -> Tensor:
    """Snapshots of many chains: (snapshots, chains, 3, atoms)."""
    size = {"chains": CHAINS, "burn_in": BURN, "thin": APART}
    return simulate_molecules(law, CHAINS * KEPT, generator=generator, **size).unflatten(0, (KEPT, CHAINS))


def learn(x: Tensor, generator: torch.Generator) -> Cascade:
    """A law of the atoms of each level given its beads; a chain may be read from either end."""
    x = torch.cat([x, x.flip(2)])
    steps = bead_steps(Graph.linear(ATOMS))[: len(PLAN)]
    laws = [ChainBackmap(beads, bond=bond, width=WIDTH) for beads, bond, _ in PLAN]
    top = DenseGaussian(torch.eye(PLAN[-1][0], dtype=torch.float64), 0, 3)
    for (beads, _, adams), step, law in zip(PLAN, steps, laws, strict=True):
        coarse, detail, _ = step.split(x)
        shown = FitProgress(0, adams, shown=True, figure="nats", what=f"backmap, {beads} beads")
        size = {"steps": adams, "batch": BATCH, "rate": RATE, "generator": generator}
        fit_level(law, detail, coarse, tell=shown.update, **size)  # type: ignore[arg-type]
        shown.close()
        x = coarse
    top.solve(x, x.new_empty(len(x), 0))
    return Cascade(Lattice((ATOMS,), channels=3), steps, laws, top)


def _compared(x: Tensor, other: Tensor) -> dict[str, float]:
    ours, theirs = x.transpose(1, 2), other.transpose(1, 2)
    return {
        "bond_tv": total_variation(*(bin_shares(bond_lengths(y), *BONDS) for y in (ours, theirs))),
        "angle_tv": total_variation(*(bin_shares(pseudo_angles(y), *ANGLES) for y in (ours, theirs))),
    }
