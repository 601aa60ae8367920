r"""Exponents of the Ising universality class from fields that a cascade grew far beyond what it learned from.

Critical spins on 64 x 64 sites are made coarser by majorities of 2 x 2 blocks. One law p(spins of a block | majorities)
is taken for every level (the ansatz of a fixed point) and taught by the pairs 32 x 32 given 16 x 16 and 16 x 16 given
8 x 8. Then ``refine`` is applied five times, from 8 x 8 majorities to 256 x 256 spins. At a critical point

$$ \chi(L) = L^2 \langle m^2 \rangle \propto L^{\gamma/\nu}, \qquad
   T = \frac{\partial K'}{\partial K} \text{ has eigenvalues } 2^{y_t} \text{ (even)},\ 2^{y_h} \text{ (odd)}, $$

with $\gamma/\nu = 7/4$, $y_t = 1$, $y_h = 15/8$. The susceptibility is followed from 32 to 256 sites, beyond the
training; the stability matrix is that of the grown fields and their majorities, ties by coins. The table has the same
from simulated spins. The starting 8 x 8 fields are simulated ones that nothing learned from.
"""

import math

import torch
from torch import Tensor

from renorm.bench.result import Result
from renorm.cascade.cascade import Cascade
from renorm.cascade.conditionals.heads import SpinHead
from renorm.cascade.conditionals.local import LocalConditional, SiteTop
from renorm.cascade.couplings import exponents
from renorm.cascade.interactions import EVEN, ODD, measure
from renorm.coarse.block_spin import Majority
from renorm.coarse.majority import MajorityBlock
from renorm.lattice import Lattice
from renorm.laws.ising import Ising
from renorm.laws.simulate import simulate
from renorm.measure.statistics import Estimate, jackknife

BETA = math.log(1 + math.sqrt(2)) / 2
EDGE, TRAINED, GROWN = 64, 32, 256
FIELDS, STARTS = 2500, 1000
STEPS, BATCH, RATE = 1200, 32, 6e-3


def run(seed: int) -> Result:
    """Simulate, learn one law for all levels, grow, measure."""
    generator = torch.Generator().manual_seed(seed)
    fields = simulate(Ising((EDGE, EDGE), BETA), FIELDS + STARTS, generator=generator, thin=20)
    order = torch.randperm(len(fields), generator=generator)
    taught, held_out = fields[order[:FIELDS]], fields[order[FIELDS:]]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        law = LocalConditional(2, 1, 3, SpinHead())
    model = fixed_point(law, GROWN)
    losses = _teach(law, taught, generator)
    figures: dict[str, float] = {"nats_per_block": sum(losses[-100:]) / 100}
    start = model_coarse(held_out, 8)
    with torch.no_grad():
        grown = {8: start}
        for level in range(len(model.steps) - 3, 0, -1):  # edge 8 is level 5 of 256
            edge = GROWN >> (level - 1)
            parts = [
                model.refine(part, level=level, to=level - 1, generator=generator)
                for part in grown[edge // 2].split(100)
            ]
            grown[edge] = torch.cat(parts)
    slope = _slope(grown[TRAINED], grown[GROWN])
    figures |= {"gamma_over_nu": float(slope.value), "gamma_over_nu_error": float(slope.error)}
    table = [_row("grown", edge, x, generator) for edge, x in grown.items()]
    table += [_row("simulated", edge, model_coarse(held_out, edge), generator) for edge in (8, 16, 32, 64)]
    thermal = next(row for row in table if row["fields"] == "grown" and row["edge"] == EDGE)
    figures |= {key: float(thermal[key]) for key in ("y_t", "y_t_error", "y_h", "y_h_error")}
    return Result(figures, table, (seed,))


def fixed_point(law: LocalConditional, edge: int) -> Cascade:
    """A cascade of majorities in which every level has the same law, the same object."""
    steps = [MajorityBlock()] * int(math.log2(edge))
    lattice = Lattice((edge, edge), boundary="periodic")
    return Cascade(lattice, steps, [law] * len(steps), SiteTop((1, 1, 1), SpinHead()))


def model_coarse(x: Tensor, edge: int) -> Tensor:
    """Majorities of majorities, down to ``edge`` sites."""
    while x.shape[-1] > edge:
        x = MajorityBlock().split(x).coarse
    return x


def _teach(law: LocalConditional, fields: Tensor, generator: torch.Generator) -> list[float]:
    """Maximum likelihood on both pairs of levels, the fields turned and mirrored at random."""
    step = MajorityBlock()
    adam = torch.optim.Adam(law.parameters(), lr=RATE)
    losses = []
    for number in range(STEPS):
        index = torch.randint(len(fields), (4 * BATCH,), generator=generator)
        x = _turned(fields[index], generator)
        fine = step.split(x).coarse
        middle, detail, _ = step.split(fine[:BATCH])
        coarser, coarse_detail, _ = step.split(step.split(fine).coarse)
        blocks = BATCH * middle[0].numel() + len(fine) * coarser[0].numel()
        nats = -(law.log_prob(detail, middle).sum() + law.log_prob(coarse_detail, coarser).sum()) / blocks
        for group in adam.param_groups:
            group["lr"] = RATE * 0.5 * (1 + math.cos(math.pi * number / STEPS))
        adam.zero_grad(set_to_none=True)
        nats.backward()
        adam.step()
        losses.append(nats.item())
    return losses


def _turned(x: Tensor, generator: torch.Generator) -> Tensor:
    """Shifted, turned, mirrored and flipped in sign, all fields alike: the law does not care."""
    shift = torch.randint(x.shape[-1], (2,), generator=generator).tolist()
    turns, mirror, sign = torch.randint(4, (3,), generator=generator).tolist()
    x = torch.rot90(x.roll(shift, (-2, -1)), turns, (-2, -1))
    x = x.flip(-1) if mirror % 2 else x
    return -x if sign % 2 else x


def _slope(coarse: Tensor, fine: Tensor) -> Estimate:
    """Growth of the susceptibility from one edge to another, over the same fields."""
    m_sq = torch.stack([x.double().flatten(1).mean(1).square() for x in (coarse, fine)], 1)
    doublings = math.log2(fine.shape[-1] / coarse.shape[-1])

    def exponent(mean: Tensor) -> Tensor:
        return 2 + (mean[..., 1] / mean[..., 0]).log2() / doublings

    return jackknife(m_sq, exponent, blocks=100)


def _row(name: str, edge: int, x: Tensor, generator: torch.Generator) -> dict[str, float | str]:
    """Susceptibility, Binder cumulant and, where interactions are different sums, exponents."""
    m_sq = x.double().flatten(1).mean(1).square()
    binder = 1 - (m_sq.square().mean() / (3 * m_sq.mean() ** 2))
    row: dict[str, float | str] = {"fields": name, "edge": edge, "chi": edge**2 * float(m_sq.mean())}
    row["binder"] = float(binder)
    if edge >= 16:
        coarse = Majority().coarsen(x, generator=generator)
        for key, interactions in (("y_t", EVEN[:4]), ("y_h", ODD)):
            y = exponents(measure(x, interactions), measure(coarse, interactions)).leading
            row |= {key: float(y.value), f"{key}_error": float(y.error)}
    return row
