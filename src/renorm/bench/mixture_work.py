r"""What a field of two amplitudes costs, in passes of a network over the whole lattice, with exact denoisers.

The data, the judge and the other methods are those of ``mixture-nfe``. A network that sees the field on the lattice
that its live modes need does v/V of the work there, v of V sites, so a walk of N evaluations costs

$$ W = \sum_{i=1}^N v(t_i)/V . $$

Ours parts the scales (a rational regulator, sharpened), erases what has lost nearly all of its signal, and draws modes
that enter with the power that the field itself has so far; the modes of the smallest lattice are never erased. Nothing
is told of the data's spectrum. Regulator, ``SHARPNESS``, ``FLOOR``, ``SMALLEST`` and spacing were chosen on the first
seed of both spectra with 500 samples; judged is on other seeds. White methods have the whole lattice at every
evaluation: nothing of theirs is ever erased.

A method passes as in ``mixture-nfe``; one that does not by 200 evaluations is tried at 500, 1000 and 2000.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from renorm.bases.corner import corners
from renorm.bench import mixture_nfe
from renorm.bench.cores import on_all_cores, telling
from renorm.bench.gaussian_nfe import LATTICE, spectra
from renorm.bench.mixture_nfe import SAMPLES, Figures, Method, confirmed, judged, kept_at, passing, survey
from renorm.bench.result import Result
from renorm.diffusion import presets
from renorm.diffusion.regulator import Rational, Sharpened
from renorm.diffusion.running import RunningSpectrum
from renorm.diffusion.schedule import Schedule
from renorm.diffusion.spacing import InfraredAngle, grid

SHARPNESS, FLOOR, SMALLEST = 1.5, 0.01, 4
OURS = "rgdm, nested lattices"
OTHERS = ("white, log-uniform, dpm2m", "edm, log-uniform, dpm2m", "white, angle-pc")
TWIN = "white twin"
ROOT = Path("runs", "bench", "mixture-work")
LEAST = 1e-6  # alpha of a mode that is never erased
SEED = 100  # added to the seed of ours: those below it were chosen on
LARGE = (500, 1000, 2000)
BASELINE = "ddpm, ancestral"
WHITE = ("white, edm grid, ddim", "white, edm grid, dpm2m", "edm, heun", "edm, dpm2m")


def ours() -> Method:
    """The paper's prior; scales apart, and erased early."""
    regulator = Sharpened(Rational(), SHARPNESS)
    schedule = erased(presets.rgdm_images(LATTICE, regulator=regulator), regulator.inverse(FLOOR))
    return Method(OURS, "rg", schedule, RunningSpectrum(carried=True), InfraredAngle())


def erased(schedule: Schedule, beyond: float) -> Schedule:
    """The flow whose modes are dead beyond this x, but for those of the smallest lattice: they save nothing."""
    smallest = next(corner for corner in corners(LATTICE) if min(corner.small.shape) == SMALLEST)
    seen = schedule.alpha(1.0) > LEAST  # some regulators leave nothing at all beyond the cutoff
    return replace(schedule, dead_beyond=beyond, undying=smallest.carried & seen)


def methods() -> Iterator[Method]:
    """Ours, and those of ``mixture-nfe``."""
    yield ours()
    yield from mixture_nfe.methods()


def named(name: str) -> Method:
    """One of them."""
    return next(method for method in methods() if method.name == name)


def work_of(method: Method, evaluations: int) -> float:
    r"""W of a walk, in passes over the whole lattice.

    Example: DDPM erases nothing.
        >>> work_of(named("ddpm, ancestral"), 100)
        100.0
    """
    steps = (evaluations + method.sampler.evaluations - 1) // method.sampler.evaluations
    shares = []
    for t in grid(method.spacing, method.schedule, steps)[:-1]:
        alive = method.schedule.alive(t)
        lattice = next(corner.small for corner in corners(LATTICE) if not bool((alive & ~corner.carried).any()))
        shares.append(lattice.sites / LATTICE.sites)
    return sum(shares) * evaluations / steps


def examined(data: str, name: str, seed: int) -> tuple[dict[int, Figures], str]:
    """What a method reaches at each number of evaluations, large ones too where it needs them; and by which commits.

    Cells are kept below ``runs/bench/mixture-work`` and, those that it shares, ``runs/bench/mixture-nfe``.
    """
    method, spectrum = named(name), spectra()[data]
    path, known = ROOT / f"{data}-{mixture_nfe.slug(name)}-{seed}.json", mixture_nfe.settings()
    if name == OURS:
        own = {"sharpness": SHARPNESS, "floor": FLOOR, "smallest": SMALLEST}
        again = partial(judged, method, spectrum, seed=seed + SEED, samples=mixture_nfe.MANY)
        return kept_at(path, known | own, lambda: confirmed(survey(method, spectrum, seed + SEED), again))
    found, commit = mixture_nfe.kept(data, name, seed)
    if passing(found):
        return found, commit

    def more() -> dict[int, Figures]:
        tried: dict[int, Figures] = {}
        for n in LARGE:
            tried[n] = judged(method, spectrum, n, seed, SAMPLES)
            if passing(found | tried):
                break
        return tried

    large, later = kept_at(path, known | {"large": [*LARGE]}, more)
    return found | large, f"{commit}, {later}"


def run(seed: int) -> Result:
    """All methods, each at the number of evaluations from which it passes."""
    places = [(data, name) for data in spectra() for name in (OURS, mixture_nfe.OURS, BASELINE, *WHITE, *OTHERS, TWIN)]
    jobs: list[Callable[[], Any]] = [partial(examined, *place, seed) for place in places]
    reached = on_all_cores(jobs, telling("mixture-work", "pieces"))
    table: list[dict[str, Any]] = []
    cost: dict[tuple[str, str], float] = {}
    for (data, name), (found, commits) in zip(places, reached, strict=True):
        nfe = passing(found)
        row: dict[str, Any] = {"data": data, "method": name, "nfe": nfe, "commits": commits}
        if nfe:
            row["fails_at"] = max((n for n in found if n < nfe), default=0)
            cost[data, name] = row["work"] = work_of(named(name), nfe)
            row |= {"w1": found[nfe].w1, "power": found[nfe].power}
        table.append(row)
    figures: dict[str, float] = {}
    for data in spectra():
        figures |= _ratios(data, cost, {row["method"]: row for row in table if row["data"] == data})
    own = range(seed + SEED, seed + SEED + mixture_nfe.SEEDS)
    return Result(figures, table, (*range(seed, seed + mixture_nfe.SEEDS), *own))


def _ratios(data: str, cost: dict[tuple[str, str], float], rows: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Work of the others over that of ours; a group of which none passes, or where ours does not, has no ratio."""
    own = cost.get((data, OURS))
    if own is None:
        return {}
    groups = {"": (BASELINE,), "white_": WHITE, "any_white_": (*WHITE, *OTHERS), "twin_": (TWIN,)}
    figures = {f"work_ours_{data}": own}
    for called, names in groups.items():
        least = min((cost[data, name] for name in names if (data, name) in cost), default=None)
        if least is not None:
            figures[f"work_ratio_{called}{data}"] = least / own
    if (data, BASELINE) in cost:  # as if it passed right after the last number where it fails
        figures[f"work_ratio_at_least_{data}"] = (rows[BASELINE]["fails_at"] + 1) / own
    return figures
