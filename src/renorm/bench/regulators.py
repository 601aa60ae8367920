r"""How far apart scales should fade: quality against the work of the network, with exact denoisers.

The data, the judge and the sampler are those of ours in ``mixture-work``. Schedules differ in the prior (the paper's,
which knows nothing of the data; the data's own spectrum, scales parted by the regulator; the same, all modes fading
together), the regulator, its sharpness and the floor of signal-to-noise below which modes are erased. The network sees
each field on the smallest lattice that carries its live modes, so sharp regulators and high floors make cheap walks;
what they lose shows in the distance.

The work at which a schedule passes is the smallest of those tried at which both distances are at most ``THRESHOLD``.
The least of many is lucky: it is a way to choose, no result. Below the current directory
``runs/bench/regulators/regulators.svg`` shows all.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from renorm.bench.cores import on_all_cores, telling
from renorm.bench.drawing import ACCENT, INK, svg
from renorm.bench.gaussian_nfe import LATTICE, spectra
from renorm.bench.mixture_nfe import AMPLITUDES, SEEDS, THRESHOLD, Method, judged
from renorm.bench.mixture_work import erased, work_of
from renorm.bench.result import Result
from renorm.diffusion import presets
from renorm.diffusion.regulator import REGULATORS, Sharpened
from renorm.diffusion.running import RunningSpectrum
from renorm.diffusion.schedule import Schedule
from renorm.diffusion.spacing import InfraredAngle

__all__ = ["Choice", "choices", "picture", "run"]

SHARPNESS, FLOORS, EVALUATIONS, SAMPLES = (0.5, 1.0, 2.0), (1e-4, 1e-2), (5, 7, 10), 1000
MARKERS = {"rational": "o", "log-squared": "s", "exponential": "^", "litim": "D"}
PICTURE = Path("runs", "bench", "regulators", "regulators.svg")


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
        return erased(made(LATTICE, regulator=regulator), regulator.inverse(self.floor))


def choices() -> Iterator[Choice]:
    """All that are compared."""
    for prior in ("paper", "separated"):
        for regulator in MARKERS:
            for sharpness in SHARPNESS:
                for floor in FLOORS:
                    yield Choice(prior, regulator, sharpness, floor)
    yield Choice("calibrated", "rational", 1.0, 0.0)


def run(seed: int) -> Result:
    """Every schedule at every number of evaluations."""
    places = [(data, choice) for data in spectra() for choice in choices()]
    jobs: list[Callable[[], Any]] = [partial(examined, data, choice, seed) for data, choice in places]
    table = [row for rows in on_all_cores(jobs, telling("regulators", "schedules")) for row in rows]
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    PICTURE.write_text(picture(table), encoding="utf-8")
    return Result(least_work(table), table, tuple(seed + i for i in range(SEEDS)))


def least_work(table: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The least work of every prior, and of every regulator with the data's own; none passes: no figure."""
    found: dict[str, float] = {}
    for row in table:
        if row["w1"] <= THRESHOLD and row["power"] <= THRESHOLD:
            keys = [f"work_{row['prior']}_{row['data']}"]
            if row["prior"] == "separated":
                keys.append(f"work_{row['regulator'].replace('-', '_')}_{row['data']}")
            found |= {key: min(row["work"], found.get(key, row["work"])) for key in keys}
    return found


def picture(table: Sequence[Mapping[str, Any]]) -> str:
    """SVG: the larger of both distances against the work, for each spectrum; below the line a schedule passes."""
    from matplotlib.figure import Figure

    names = list(spectra())
    figure = Figure(figsize=(4.2 * len(names), 3.6), layout="constrained")
    for data, axes in zip(names, figure.subplots(1, len(names), sharey=True, squeeze=False)[0], strict=True):
        rows = [row for row in table if row["data"] == data]
        for prior, face in (("separated", ACCENT), ("paper", "none"), ("calibrated", INK)):
            for regulator, marker in MARKERS.items():
                of = [row for row in rows if row["prior"] == prior and row["regulator"] == regulator]
                worst = [max(row["w1"], row["power"]) for row in of]
                label = f"{prior}, {regulator}" if of and data == names[0] else None
                edge = INK if prior == "calibrated" else ACCENT
                axes.scatter(
                    [row["work"] for row in of], worst, s=22, label=label, marker=marker, facecolors=face,
                    edgecolors=edge, linewidths=0.8,
                )  # fmt: skip
        axes.axhline(THRESHOLD, color=INK, linewidth=0.6)
        axes.set_yscale("log")
        axes.set_title(data, fontsize=9)
        axes.set_xlabel("work, in passes over the whole lattice", fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
    figure.supylabel("distance from the law", fontsize=9)
    figure.legend(loc="outside right upper", fontsize=7, frameon=False)
    return svg(figure, "regulators")


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
