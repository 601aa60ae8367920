r"""Wavelet conditional energies at the critical point of lattice $\phi^4$: couplings from samples, memory of sampling.

Couplings: from $10^4$ maps of $32^2$ at $\beta = 0.68$, $\lambda = 1$ (clusters and Hamiltonian Monte Carlo), the
couplings of the conditional energy of the finest Haar details, in closed form, with jackknife errors over chains;
"wide" lets couplings to next neighbours and $\phi^6$ run free as well.

Memory: for sides 8 to 64 an energy is learned at every level, and Langevin moves of the details at fixed coarse field
are run from equilibrium, tuned to an acceptance of 0.574. $\tau$, in sweeps, is the largest integrated autocorrelation
time over levels and observables: plane waves of the details in windows of 4 x 4 coarse sites, and the energy there.
Moves are tested tile by tile (4 x 4 coarse sites), as draws of the conditional are; "global" is textbook MALA at the
finest level, one test for the whole field. The same moves on the action itself, in tiles of as many sites, are "one
scale": there $\tau$ is the decay time of the magnetisation, and too short rather than too long on large lattices, where
the run is shorter than it.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from renorm.bench.result import Result
from renorm.cascade.energy.gibbs import ConditionalAction, GibbsConditional
from renorm.cascade.energy.phi4_couplings import phi4_couplings
from renorm.cascade.energy.tiles import TiledLangevin
from renorm.coarse.wavelet import Wavelet
from renorm.lattice import Lattice
from renorm.laws.phi4 import Phi4
from renorm.laws.simulate import simulate
from renorm.mcmc.kernel import run as run_chain
from renorm.mcmc.langevin import Langevin
from renorm.measure.autocorrelation import AutocorrelationTime, autocorrelation, integrated_time
from renorm.measure.statistics import Estimate, jackknife

BETA = 0.68
MAPS, CHAINS = 10_000, 500
SIDES = (8, 16, 32, 64)
LEARNED = {8: 4000, 16: 2000, 32: 1000, 64: 256}
"""Maps that the energies of each side are learned from: as many sites, or nearly."""

COARSEST = 2
TILE = 4
TUNING, SWEEPS = 150, 700
ONE_SCALE_SWEEPS = 3000
DENSE = 16  # sides up to here have their Hessian's extremes in the table
SITES = 2**12
"""Coarse sites of all chains together."""


def run(seed: int) -> Result:
    """Couplings of the finest level, then the memory of every level at every side."""
    generator = torch.Generator().manual_seed(seed)
    figures, table = _couplings(generator)
    for side in SIDES:
        maps = simulate(Phi4.kaupuzs((side, side), BETA), LEARNED[side], generator=generator)
        rows = _levels(maps, generator)
        table += rows
        slowest = max(rows, key=lambda row: row["tau"])
        one = one_scale_time(maps, ONE_SCALE_SWEEPS, generator)
        figures |= {
            f"tau_{side}": slowest["tau"],
            f"tau_{side}_error": slowest["tau_error"],
            f"tau_finest_{side}": rows[0]["tau"],
            f"tau_finest_{side}_error": rows[0]["tau_error"],
            f"global_tau_{side}": rows[0]["global_tau"],
            f"global_tau_{side}_error": rows[0]["global_tau_error"],
            f"one_scale_tau_{side}": float(one.value),
            f"one_scale_tau_{side}_error": float(one.error),
        }
    return Result(figures, table, (seed,))


def _couplings(generator: torch.Generator) -> tuple[dict[str, float], list[dict]]:
    maps = simulate(Phi4.kaupuzs((32, 32), BETA), MAPS, generator=generator, chains=CHAINS)
    maps = maps.unflatten(0, (-1, CHAINS)).transpose(0, 1).flatten(0, 1)  # fields of one chain stand together
    figures, table = {}, []
    for kind, reach in (("", 1), ("_wide", 2)):
        found = phi4_couplings(Wavelet(), maps, reach=reach)
        for name in ("beta", "lambda"):
            figures[name + kind], figures[f"{name}{kind}_error"] = float(found[name].value), float(found[name].error)
        table += [
            {"basis": kind[1:] or "phi4", "coupling": k, "value": float(v.value), "error": float(v.error)}
            for k, v in found.items()
        ]
    return figures, table


def _levels(maps: Tensor, generator: torch.Generator) -> list[dict]:
    """Finest first; textbook MALA at the finest level alone."""
    step, rows, x = Wavelet(), [], maps
    side = maps.shape[-1]
    while x.shape[-1] > COARSEST:
        lattice = Lattice(tuple(x.shape[2:]), boundary="periodic")
        coarse, detail, _ = step.split(x)
        law = GibbsConditional(step, lattice, tile=TILE)
        law.solve(detail, coarse)
        tiled = level_time(law, detail, coarse, generator)
        row = {
            "side": side,
            "level_side": x.shape[-1],
            "tau": tiled.tau.value,
            "tau_error": tiled.tau.error,
            "acceptance": tiled.acceptance,
        }
        if x.shape[-1] == side:
            whole = level_time(law, detail, coarse, generator, whole=True)
            row |= {"global_tau": whole.tau.value, "global_tau_error": whole.tau.error}
        if x.shape[-1] <= DENSE:
            least, most = law.curvatures(detail[:1], coarse[:1])[0].tolist()
            row |= {"least_curvature": least, "largest_curvature": most}
        rows.append(row)
        x = coarse
    return rows


class LevelTime(NamedTuple):
    """Memory of the slowest observable in sweeps, and the mean acceptance."""

    tau: AutocorrelationTime
    acceptance: float


def level_time(
    law: GibbsConditional, detail: Tensor, coarse: Tensor, generator: torch.Generator, *, whole: bool = False
) -> LevelTime:
    """Langevin moves of details at fixed coarse fields, from fields of the data on."""
    chains = min(len(coarse), 128, max(4, SITES // coarse[0, 0].numel()))
    coarse = coarse[-chains:]
    action = ConditionalAction(law, coarse)
    kernel = Langevin(action, 0.5, burn_in=TUNING) if whole else law.kernel(action, burn_in=TUNING)
    start = kernel.start(detail[-chains:] / law.scale.to(detail)[:, None, None])
    tuned = run_chain(kernel, start, TUNING, generator=generator, thin=TUNING)

    def observe(z: Tensor) -> Tensor:
        return torch.cat([plane_waves(z), windows(action.density(z)[:, None]).sum((-1, -2))], 1)

    result = run_chain(kernel, tuned.state, SWEEPS, generator=generator, observe=observe)
    series = result.values.double()
    series = series - series.mean(0)  # each coarse field has a mean of its own
    times = [_time(series[:, :, i].flatten(1).T) for i in range(series.shape[2])]
    return LevelTime(max(times, key=lambda time: time.value), float(result.acceptance.mean()))


def _time(series: Tensor) -> AutocorrelationTime:
    """Integrated time where the mean of every single series was taken off."""
    steps = series.shape[-1]
    time = integrated_time(series, mean=0.0)
    mend = (1 + (2 * time.window + 1) / steps) / (1 + 2 * time.value / steps)
    return AutocorrelationTime(time.value * mend, time.error * mend, time.window)


def windows(z: Tensor, size: int = TILE) -> Tensor:
    """Windows of 4 x 4 sites, so that lattices of every side are asked the same: (batch, channel, windows, 4, 4)."""
    height, width = (min(size, n) for n in z.shape[-2:])
    cut = z.unflatten(-1, (-1, width)).unflatten(-3, (-1, height))
    return cut.transpose(-3, -2).flatten(2, 3)


def plane_waves(z: Tensor) -> Tensor:
    """Sums over windows, signs constant or alternating on one axis or both: (batch, 4 channels, windows)."""
    cut = windows(z)
    rows = torch.arange(cut.shape[-2], device=z.device)[:, None] % 2
    columns = torch.arange(cut.shape[-1], device=z.device)[None, :] % 2
    signs = torch.stack([1 - 2 * ((a * rows + b * columns) % 2) for a in (0, 1) for b in (0, 1)]).to(z)
    return torch.einsum("ncwij,sij->ncsw", cut, signs).flatten(1, 2)


class LocalPhi4:
    r"""$\phi^4$'s action as a sum over sites, for moves in tiles.

    Args:
        law: Where $S = \sum_x s_x$ comes from.
    """

    def __init__(self, law: Phi4) -> None:
        self.law = law

    def density(self, x: Tensor) -> Tensor:
        """Half of each bond at either end."""
        return (self.law.potential(x) - x * self.law.local_field(x) / 2).sum(1)

    def grad(self, x: Tensor) -> Tensor:
        r"""$\nabla S$."""
        return self.law.grad(x)


def one_scale_time(maps: Tensor, sweeps: int, generator: torch.Generator) -> Estimate:
    r"""Decay time of the magnetisation in the same moves on the action itself, from equilibrium: $-t / \ln \rho(t)$.

    t is the lag at which $\rho$ has fallen to 0.6, or half the run if it does not fall so far. Faster modes make the
    time too short, if anything.
    """
    side = maps.shape[-1]
    chains = min(max(16, 4 * SITES // side**2), 128)
    kernel = TiledLangevin(LocalPhi4(Phi4.kaupuzs((side, side), BETA)), tile=2 * TILE, step_size=0.5, burn_in=TUNING)
    tuned = run_chain(kernel, kernel.start(maps[-chains:]), TUNING, generator=generator, thin=TUNING)
    result = run_chain(kernel, tuned.state, sweeps, generator=generator, observe=lambda x: x.flatten(1).mean(1))
    m = result.values.double()
    below = (autocorrelation(m.T, mean=0.0)[: sweeps // 2] < 0.6).nonzero()
    lag = int(below[0]) if len(below) else sweeps // 2
    square = (m[:-lag].square().mean(0) + m[lag:].square().mean(0)) / 2
    moments = torch.stack([(m[:-lag] * m[lag:]).mean(0), square], 1)
    return jackknife(moments, lambda mean: -lag / (mean[:, 0] / mean[:, 1]).log())
