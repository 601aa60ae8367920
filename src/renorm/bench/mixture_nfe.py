r"""How many evaluations a diffusion needs where the data are not Gaussian, but everything is still known.

$$ \phi = a\,g, \qquad a \in \{\tfrac12, 2\} \text{ equally likely}, \qquad g \sim N(0, P), \qquad
   E[\phi_0 | \phi_t] = \sum_a w_a(\phi_t)\, \frac{\alpha a^2 P}{\alpha^2 a^2 P + \sigma^2}\,\phi_t $$

with the two spectra of ``gaussian-nfe`` on 32 x 32 sites and $w_a$ a softmax of two Gaussian evidences: which of the
two amplitudes a field will have is decided on the way, at the scale where its large waves are. Neither schedule,
spacing nor sampler sees P or a. Judged over samples of every number of evaluations:

* Wasserstein-1 distance of the log-amplitude $\tfrac12\ln\langle x_k^2/P_k\rangle_k$ to its exact law;
* log ratio of the power in six shells, even in ln k, to the exact one.

A method passes at N evaluations if both are at most 0.10 there and at every larger N that was tried (mean of five
seeds of 4000 samples; of 20 000 where it first passes and just before).
The white twin of ours is the same with a flat prior: same sampler, same places of the steps, same noise at each of
them. Only what differs from it is a gain of renormalization. The best white method is the best that others use.

It takes hours. What each method reached is kept below the current directory, a file each, and the same command goes on
where it stopped::

    runs/bench/mixture-nfe/DATA-METHOD-SEED.json

Files that another commit has written are taken, too; the table names the commit. Remove them to judge anew.
"""

import math
import re
import statistics
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from scipy.stats import chi2
from torch import Tensor

from renorm.bench.cores import on_all_cores, telling
from renorm.bench.gaussian_nfe import LATTICE, first_passing, least, spectra
from renorm.bench.kept import kept as bench_kept
from renorm.bench.result import Result
from renorm.diffusion import presets
from renorm.diffusion.reverse import Sampler, start, walk_up
from renorm.diffusion.running import RunningSpectrum
from renorm.diffusion.sampler import DDIM, DPM2M, Ancestral, Angle, AnglePC, Heun
from renorm.diffusion.schedule import Schedule
from renorm.diffusion.spacing import InfraredAngle, Karras, LinearBeta, LogUniform, PlacedBy, Spacing, grid

AMPLITUDES = torch.tensor([0.5, 2.0], dtype=torch.float64)
EVALUATIONS, MORE = range(2, 31), (50, 100, 200)  # more where the last of the first does not pass
SEEDS, SAMPLES, MANY, BATCH = 5, 4000, 20_000, 500  # samples a seed, and many where it is decided
THRESHOLD = 0.10
OURS = "rgdm, running"
SHELLS = 6
ROOT = Path("runs", "bench", "mixture-nfe")


class Method(NamedTuple):
    """A way from noise to data.

    Attributes:
        name: For the table.
        family: ``"rg"`` (a coloured prior, modes erased scale by scale), ``"white"``, or ``"white twin"``.
        schedule: The forward flow.
        sampler: One step.
        spacing: Where the steps lie.
    """

    name: str
    family: str
    schedule: Schedule
    sampler: Sampler
    spacing: Spacing


def methods() -> Iterator[Method]:
    """What is compared."""
    paper, white, edm = presets.rgdm_images(LATTICE), presets.white(LATTICE), presets.variance_exploding(LATTICE)
    yield Method(OURS, "rg", paper, RunningSpectrum(), InfraredAngle())
    yield Method("rgdm, angle-pc", "rg", paper, AnglePC(), LogUniform())
    yield Method("rgdm, angle", "rg", paper, Angle(), LogUniform())
    yield Method("ddpm, ancestral", "white", white, Ancestral(), LinearBeta())
    yield Method("white, edm grid, ddim", "white", white, DDIM(), Karras())
    yield Method("white, edm grid, dpm2m", "white", white, DPM2M(), Karras())
    yield Method("white, log-uniform, dpm2m", "white", white, DPM2M(), LogUniform())
    yield Method("edm, heun", "white", edm, Heun(), Karras())
    yield Method("edm, dpm2m", "white", edm, DPM2M(), Karras())
    yield Method("edm, log-uniform, dpm2m", "white", edm, DPM2M(), LogUniform())
    yield Method("white, angle-pc", "white", white, AnglePC(), LogUniform())
    twin, places = presets.flattened(paper), PlacedBy(InfraredAngle(), paper)
    yield Method("white twin", "white twin", twin, RunningSpectrum(), places)
    yield Method("white twin, one spectrum for all modes", "white", twin, RunningSpectrum(flat=True), places)


def run(seed: int) -> Result:
    """Every method at every number of evaluations, five seeds each, one method a core at a time.

    With five times as many samples again where it first passes and just before, until that stands; of ours at 5 to 7.
    """
    names = [method.name for method in methods()]
    places = [(data, name) for data in spectra() for name in names]
    near = [(data, n) for data in spectra() for n in (5, 6, 7)]
    surveys: list[Callable[[], Any]] = [partial(kept, *place, seed) for place in places]
    cells: list[Callable[[], Any]] = [partial(_judged_by_name, data, OURS, n, seed) for data, n in near]
    reached = on_all_cores([*surveys, *cells], telling("mixture-nfe", "pieces"))
    table: list[dict] = []
    for (data, name), (found, commit) in zip(places, reached[: len(places)], strict=True):
        row: dict[str, Any] = {"data": data, "method": name, "family": _named(name).family}
        row |= {"nfe": passing(found), "commit": commit}
        table.append(row | dict(chain.from_iterable(_columns(n, v) for n, v in sorted(found.items()))))
    figures: dict[str, float] = {"floor": floor(seed)}
    for data in spectra():
        of = [row for row in table if row["data"] == data]
        best = {family: [r["nfe"] for r in of if r["family"] == family] for family in ("rg", "white")}
        nfe = {row["method"]: row["nfe"] for row in of}
        figures |= {f"rg_best_nfe_{data}": least(best["rg"]), f"white_best_nfe_{data}": least(best["white"])}
        figures |= {f"ddpm_ancestral_nfe_{data}": nfe["ddpm, ancestral"]}
        figures |= {f"white_twin_nfe_{data}": nfe["white twin"]}
    for (data, n), cell in zip(near, reached[len(places) :], strict=True):
        figures |= {f"rg_w1_{n}_{data}": cell.w1, f"rg_power_{n}_{data}": cell.power}
        figures |= {f"rg_w1_error_{n}_{data}": cell.error} if cell.error is not None else {}
    return Result(figures, table, tuple(seed + i for i in range(SEEDS)))


def _named(name: str) -> Method:
    return next(method for method in methods() if method.name == name)


def _judged_by_name(data: str, name: str, evaluations: int, seed: int) -> "Figures":
    return judged(_named(name), spectra()[data], evaluations, seed, MANY)


def kept(data: str, name: str, seed: int) -> tuple[dict[int, "Figures"], str]:
    """What a method reaches, read if it was examined before, else examined and written; and the commit that did."""
    return kept_at(ROOT / f"{data}-{slug(name)}-{seed}.json", settings(), lambda: examined(data, name, seed))


def slug(name: str) -> str:
    """A method's name for a file."""
    return re.sub(r"[^a-z0-9]+", "-", name)


def kept_at(
    path: Path, asked: dict[str, Any], make: Callable[[], dict[int, "Figures"]]
) -> tuple[dict[int, "Figures"], str]:
    """Cells from a file of these settings, else made and written; and the commit that made them; see ``bench.kept``."""
    return bench_kept(path, asked, make, read=lambda cells: {int(n): _figures(*known) for n, known in cells.items()})


def settings() -> dict[str, Any]:
    """What the figures of a method depend on, but for the code."""
    numbers = {"seeds": SEEDS, "samples": SAMPLES, "many": MANY, "batch": BATCH, "threshold": THRESHOLD}
    return {**numbers, "evaluations": [*EVALUATIONS], "more": [*MORE]}


def _figures(w1: float | None, power: float | None, error: float | None = None) -> "Figures":
    """From a file: JSON has no word for what is not a number."""
    known = [math.nan if value is None else value for value in (w1, power)]
    return Figures(known[0], known[1], error)


def examined(data: str, name: str, seed: int) -> dict[int, "Figures"]:
    """What a method reaches at each number of evaluations, with more samples around the first that passes."""
    found = survey(_named(name), spectra()[data], seed)
    return confirmed(found, partial(_judged_by_name, data, name, seed=seed))


def confirmed(found: dict[int, "Figures"], again: Callable[[int], "Figures"]) -> dict[int, "Figures"]:
    """Judged again where a method first passes and at the number before, until neither is new."""
    found, checked = dict(found), set[int]()
    while first := passing(found):
        before = max((n for n in found if n < first), default=first)
        new = {first, before} - checked
        if not new:
            break
        found |= {n: again(n) for n in new}
        checked |= new
    return found


class Figures(NamedTuple):
    """What one method reached at one number of evaluations: means over seeds.

    Attributes:
        w1: Distance of the log-amplitude.
        power: The largest |log ratio| of the six shells.
        error: One standard error of ``w1`` over the seeds, where it was kept.
    """

    w1: float
    power: float
    error: float | None = None


def survey(method: Method, spectrum: Tensor, seed: int) -> dict[int, Figures]:
    """What a method reaches at each number of evaluations that it can make."""
    made = [n for n in EVALUATIONS if (n + 1) % method.sampler.evaluations == 0]
    found = {n: judged(method, spectrum, n, seed, SAMPLES) for n in made}
    if passing(found) == 0:
        steps = method.sampler.evaluations
        found |= {n - (steps - 1): judged(method, spectrum, n - (steps - 1), seed, SAMPLES) for n in MORE}
    return found


def judged(method: Method, spectrum: Tensor, evaluations: int, seed: int, samples: int) -> Figures:
    """Wasserstein distance of the log-amplitude, and the worst shell, of one method."""
    steps = (evaluations + method.sampler.evaluations - 1) // method.sampler.evaluations
    times = grid(method.spacing, method.schedule, steps)
    denoise = MixtureDenoiser(method.schedule, spectrum)
    distances, power = [], torch.zeros(SHELLS, dtype=torch.float64)
    for i in range(SEEDS):
        generator = torch.Generator().manual_seed(seed + i)
        amplitudes = []
        for _ in range(0, samples, BATCH):

            def draw(generator: torch.Generator = generator) -> Tensor:
                return torch.randn(BATCH, 1, *LATTICE.shape, generator=generator)

            phi = start(method.schedule, times[0], draw())
            x = walk_up(method.schedule, denoise, method.sampler, times, phi, draw)
            relative = (x.double().square() / spectrum)[:, 0]
            amplitudes.append(relative.mean((1, 2)).log() / 2)
            power += torch.stack([relative[:, shell].mean() for shell in _shells()]) * BATCH / samples / SEEDS
        distances.append(wasserstein(torch.cat(amplitudes)))
    exact = float(AMPLITUDES.square().mean())
    sound = SEEDS > 1 and all(map(math.isfinite, distances))
    error = statistics.stdev(distances) / math.sqrt(SEEDS) if sound else None
    return Figures(statistics.fmean(distances), float((power / exact).log().abs().max()), error)


class MixtureDenoiser:
    """The exact denoiser of the two amplitudes: a softmax of two linear ones."""

    def __init__(self, schedule: Schedule, spectrum: Tensor) -> None:
        self.schedule, self.variance = schedule, AMPLITUDES[:, None, None] ** 2 * spectrum

    def __call__(
        self, modes: Float[Tensor, "batch channel *modes"], t: float | Tensor, condition: Tensor | None = None
    ) -> Float[Tensor, "batch channel *modes"]:
        """Exact conditional mean, dead modes left out of the evidence."""
        alpha, sigma, alive = self.schedule.alpha(t), self.schedule.sigma(t), self.schedule.alive(t)
        total = torch.where(alive, alpha**2 * self.variance + sigma**2, 1.0)
        gain = torch.where(alive, alpha * self.variance / total, 0.0).flatten(1).to(modes)
        square = modes.flatten(1).square()
        # The difference of two sums of a thousand terms decides: float64, or the softmax loses its digits.
        precision = torch.where(alive, 1 / total, 0.0).flatten(1)
        evidence = -0.5 * (square.double() @ precision.T + total.log().flatten(1).sum(1))
        weight = evidence.softmax(1).to(modes)
        return (weight @ gain).reshape(modes.shape) * modes


def wasserstein(log_amplitude: Float[Tensor, " n"]) -> float:
    r"""Wasserstein-1 distance to the exact law, $\ln a + \tfrac12\ln(\chi^2_K/K)$, by its quantiles at mid-ranks."""
    n, modes = len(log_amplitude), LATTICE.sites
    grid_points = torch.linspace(-2, 2, 40_001, dtype=torch.float64)
    share = torch.zeros_like(grid_points)
    for a in AMPLITUDES.tolist():
        share += torch.from_numpy(chi2.cdf(modes * torch.exp(2 * (grid_points - math.log(a))).numpy(), modes)) / 2
    ranks = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    place = torch.searchsorted(share, ranks).clamp(1, len(share) - 1)
    low, high = share[place - 1], share[place]
    inside = torch.where(high > low, (ranks - low) / (high - low), 0.5)
    exact = torch.lerp(grid_points[place - 1], grid_points[place], inside)
    return float((log_amplitude.sort().values - exact).abs().mean())


def floor(seed: int) -> float:
    """The distance of as many exact samples as a survey has, a mean of the seeds."""
    total = 0.0
    for i in range(SEEDS):
        generator = torch.Generator().manual_seed(seed + i)
        a = AMPLITUDES[torch.randint(2, (SAMPLES,), generator=generator)]
        white = torch.randn(SAMPLES, LATTICE.sites, generator=generator)
        total += wasserstein(a.log() + white.square().mean(1).double().log() / 2) / SEEDS
    return total


def passing(found: dict[int, Figures]) -> int:
    """Fewest evaluations from which every larger number that was tried passes; 0 if none does."""
    return first_passing({n: (figures.w1, figures.power) for n, figures in found.items()}, THRESHOLD)


def _shells() -> list[Tensor]:
    """Modes of six shells, even in ln k from the fundamental to the last; the constant mode is in the first."""
    k = LATTICE.k_sq().sqrt()
    fundamental = math.pi / max(LATTICE.shape)
    number = (SHELLS * (k / fundamental).clamp(min=1.0).log() / math.log(k.max().item() / fundamental)).long()
    return [number.clamp(max=SHELLS - 1) == i for i in range(SHELLS)]


def _columns(evaluations: int, figures: Figures) -> list[tuple[str, float]]:
    error = [] if figures.error is None else [(f"w1_error_{evaluations}", figures.error)]
    return [(f"w1_{evaluations}", figures.w1), *error, (f"power_{evaluations}", figures.power)]
