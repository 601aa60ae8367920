r"""How far apart scales should fade: quality against the work of the network, with exact denoisers.

The data, the judge and the sampler are those of ours in ``mixture-work``. Schedules differ in the prior (the paper's,
which knows nothing of the data; the data's own spectrum, scales parted by the regulator; the same, all modes fading
together), the regulator, its sharpness and the floor of signal-to-noise below which modes are erased. The network sees
each field on the smallest lattice that carries its live modes, so sharp regulators and high floors make cheap walks;
what they lose shows in the distance.

The work at which a schedule passes is the smallest of those tried at which both distances are at most ``THRESHOLD``.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import Tensor

from renorm.bases.corner import corners
from renorm.bench.cores import on_all_cores
from renorm.bench.gaussian_nfe import LATTICE, spectra
from renorm.bench.mixture_nfe import AMPLITUDES, SEEDS, THRESHOLD, Method, judged
from renorm.bench.mixture_work import SMALLEST, work_of
from renorm.bench.result import Result
from renorm.diffusion import presets
from renorm.diffusion.regulator import REGULATORS, Sharpened
from renorm.diffusion.running import RunningSpectrum
from renorm.diffusion.schedule import Schedule
from renorm.diffusion.spacing import InfraredAngle

__all__ = ["Choice", "choices", "run"]

SHARPNESS, FLOORS, EVALUATIONS, SAMPLES = (0.5, 1.0, 2.0), (1e-4, 1e-2), (5, 7, 10), 1000
LEAST = 1e-6  # alpha of a mode that is never erased
SMOOTH = ("rational", "log-squared", "exponential", "litim")


@dataclass(frozen=True)
class Choice:
    """A schedule by its settings.

    Attributes:
        prior: ``"paper"``, ``"separated"`` (the data's spectrum) or ``"calibrated"`` (the same, nothing parted).
        regulator, sharpness: How scales fade.
        floor: Signal-to-noise ratio below which modes are erased.
    """

    prior: str
    regulator: str
    sharpness: float
    floor: float

    def schedule(self, spectrum: Tensor) -> Schedule:
        """The flow, for data of this spectrum; the modes of the smallest lattice are never erased."""
        regulator = Sharpened(REGULATORS[self.regulator](), self.sharpness)
        if self.prior == "calibrated":
            return presets.calibrated(LATTICE, spectrum)
        made = presets.rgdm_images if self.prior == "paper" else partial(presets.separated, spectrum=spectrum)
        schedule = made(LATTICE, regulator=regulator)
        smallest = next(corner for corner in corners(LATTICE) if min(corner.small.shape) == SMALLEST)
        seen = schedule.alpha(1.0) > LEAST  # some regulators leave nothing at all beyond the cutoff
        return replace(schedule, dead_beyond=regulator.inverse(self.floor), undying=smallest.carried & seen)


def choices() -> Iterator[Choice]:
    """All that are compared."""
    for prior in ("paper", "separated"):
        for regulator in SMOOTH:
            for sharpness in SHARPNESS:
                for floor in FLOORS:
                    yield Choice(prior, regulator, sharpness, floor)
    yield Choice("calibrated", "rational", 1.0, 0.0)


def run(seed: int) -> Result:
    """Every schedule at every number of evaluations."""
    places = [(data, choice) for data in spectra() for choice in choices()]
    jobs: list[Callable[[], Any]] = [partial(examined, data, choice, seed) for data, choice in places]
    table = [row for rows in on_all_cores(jobs, _tell) for row in rows]
    figures: dict[str, float] = {}
    for data in spectra():
        passed = [row for row in table if row["data"] == data and max(row["w1"], row["power"]) <= THRESHOLD]
        for prior in ("paper", "separated", "calibrated"):
            of = [row["work"] for row in passed if row["prior"] == prior]
            figures[f"work_{prior}_{data}"] = min(of, default=0.0)
        for regulator in SMOOTH:
            of = [row["work"] for row in passed if row["regulator"] == regulator and row["prior"] == "separated"]
            figures[f"work_{regulator.replace('-', '_')}_{data}"] = min(of, default=0.0)
    return Result(figures, table, tuple(seed + i for i in range(SEEDS)))


def examined(data: str, choice: Choice, seed: int) -> list[dict[str, Any]]:
    """A row for each number of evaluations."""
    spectrum = spectra()[data]
    told = spectrum * float(AMPLITUDES.square().mean())
    method = Method("", "rg", choice.schedule(told), RunningSpectrum(carried=True), InfraredAngle())
    rows = []
    for n in EVALUATIONS:
        found = judged(method, spectrum, n, seed, SAMPLES)
        about = {"data": data, "prior": choice.prior, "regulator": choice.regulator, "sharpness": choice.sharpness}
        about |= {"floor": choice.floor, "evaluations": n, "work": work_of(method, n)}
        rows.append(about | {"w1": found.w1, "power": found.power})
    return rows


def _tell(done: int, jobs: int) -> None:
    print(f"regulators: {done} of {jobs} schedules", file=sys.stderr, flush=True)
