r"""The torsion surface of alanine dipeptide, learned from half of a biased run and held against the other half.

The multithermal run is cut into halves in time; a periodic density (``renorm.cascade.periodic_density``) learns the
reweighted frames of one, and ``SAMPLES`` of its samples make a surface on bins of 10 degrees. The error is the RMSE to
the reweighted surface of the other half over the bins where that has at least 20 effective frames (Kish), the best
constant removed, each bin counting the same. Bins (``BINS``), frames that are left away (``SETTLED``), cells, prior and
samples were fixed before any error was known; the smoothness is chosen by blocks inside the half that is learned from.

Few frames weigh much, so few bins have 20 effective frames, and they need not be those where the molecule mostly is:
``share_chosen`` tells how much of the held-out probability they hold. ``OTHERS`` are wider bins, and fewer frames,
which cover more. The exposure of the model came after a first look at the errors: without it that of the figure was
0.69 kJ/mol, and those of 5 effective frames were two to five times as large.

Beside it, on the same bins: the raw histogram of the half that is learned from, and kernel density estimates of it,
with a wrapped Gaussian of ``BANDWIDTH``, of Scott's rule, and of the width that foretells held-out blocks best (as our
smoothness is chosen). ``floor`` is the error of the held-out surface itself by block bootstrap: no method can be
expected to do better by more than chance. Halves are also changed, and cut into ``PIECES`` pieces of which every other
one is held out. The basins ``A`` and ``B`` compare the whole reweighted run with the unbiased runs.
"""

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor

from renorm.bench.drawing import AGAINST, INK, svg
from renorm.bench.result import Result
from renorm.cascade.periodic_density import PeriodicDensity, PeriodicDensitySpec
from renorm.data.torsions import TorsionRun, alanine_dipeptide
from renorm.laws.thermal import thermal_energy
from renorm.measure.statistics import ess
from renorm.measure.torsions import Surface, free_energy, surface, surface_error, surface_rmse

__all__ = ["kernel_density", "picture", "run"]

SAMPLES = 200_000


class Bins(NamedTuple):
    """Bins on each axis, and the effective frames that one needs to count."""

    number: int
    effective: float


BINS, OTHERS = Bins(36, 20.0), (Bins(24, 20.0), Bins(18, 20.0), Bins(36, 5.0), Bins(18, 5.0))
SETTLED = 500.0  # ps: the bias is 0 for 100 ps, and its authors' free energies move by kJ/mol until then
PIECES = 10  # of 450 ps
SPEC = PeriodicDensitySpec(angles=2, cells=64, power=2.0, blocks=5)
BANDWIDTH = 0.15  # rad
BANDWIDTHS = tuple(0.02 * 2 ** (i / 2) for i in range(10))  # rad, to choose from
FINE = 10  # points in a bin, on each axis, at which a kernel density is summed
BLOCKS, REPLICAS = 20, 200  # of the bootstrap; a block of a half has 112 ps
PANELS = (1, 3, 5)  # levels that are drawn
CEILING = 50.0  # kJ/mol, of the colours


class Split(NamedTuple):
    """What is learned from, and what is held out."""

    name: str
    train: TorsionRun
    test: TorsionRun


def run(seed: int) -> Result:
    """Every split on every choice of bins, and earlier beginnings.

    Raises:
        DataError: If the file of the runs is not here.
    """
    frames = alanine_dipeptide("multi")
    settled = frames.frames(frames.time >= SETTLED)
    rows: list[dict[str, Any]] = []
    figures: dict[str, float] = {}
    for split in splits(settled):
        found, model, seconds = judged(split, (BINS, *OTHERS), seed)
        rows += found
        if not figures:
            _draw(model, split)
            figures = _figures(found) | {"fit_seconds": seconds, "length_rad": model.length or math.nan}
            figures["held_out_nats"] = float(split.test.log_weights.softmax(0) @ model.log_prob(split.test.angles))
        else:
            figures[f"fes_rmse_kj_mol_{split.name.replace('-', '_')}"] = found[0]["ours"]
            figures[f"floor_kj_mol_{split.name.replace('-', '_')}"] = found[0]["floor"]
    for start in (0.0, 200.0):
        rows += judged(halves(frames.frames(frames.time >= start), f"first-half, from {start:g} ps"), (BINS,), seed)[0]
    for name in ("A", "B"):
        rows.append(row := agrees(settled, name, seed))
        figures[f"basin_{name.lower()}_rmse_kj_mol"] = row["reweighted"]
        figures[f"basin_{name.lower()}_floor_kj_mol"] = row["floor"]
    return Result(figures, rows, (seed,), notes=_NOTES)


_NOTES = {
    "ours": "RMSE in kJ/mol of the surface of 200000 samples, over the chosen bins of the held-out part",
    "ours_exact": "the same of the cells' own probabilities, without sampling",
    "histogram": "of the frames that are learned from",
    "misses": "chosen bins that a surface does not reach: its RMSE is over the others",
    "floor": "error of the held-out surface by chance, by block bootstrap",
    "share_chosen": "held-out probability of the chosen bins; 'left_chosen' of them have phi < 0, the deeper basins",
    "gap": "free energy of phi >= 0 above phi < 0, of the held-out part, of what is learned from, of the model",
}


def judged(split: Split, choices: Sequence[Bins], seed: int) -> tuple[list[dict[str, Any]], PeriodicDensity, float]:
    """A row for each choice of bins, the model, and the seconds of its fit."""
    begun = time.perf_counter()
    model = PeriodicDensity(SPEC).fit(split.train.angles, log_weights=split.train.log_weights)
    seconds = time.perf_counter() - begun
    samples = model.sample(SAMPLES, generator=torch.Generator().manual_seed(seed))
    widths = {"kde": BANDWIDTH, "kde_scott": scott(split.train), "kde_chosen": chosen_bandwidth(split.train)}
    return [errors(split, model, samples, widths, bins, seed) for bins in choices], model, seconds


def splits(frames: TorsionRun) -> list[Split]:
    """Halves in time, either way, and every other piece, either way."""
    first = halves(frames, "first-half")
    piece = torch.arange(len(frames)) * PIECES // len(frames) % 2 == 0
    even, odd = frames.frames(piece), frames.frames(~piece)
    return [
        first,
        Split("second-half", first.test, first.train),
        Split("even-pieces", even, odd),
        Split("odd-pieces", odd, even),
    ]


def halves(frames: TorsionRun, name: str) -> Split:
    """The first half to learn from, the second held out."""
    middle = len(frames) // 2
    return Split(name, frames.frames(slice(0, middle)), frames.frames(slice(middle, None)))


def errors(
    split: Split, model: PeriodicDensity, samples: Tensor, widths: Mapping[str, float], bins: Bins, seed: int
) -> dict[str, Any]:
    """RMSE of every method over the bins that the held-out frames fill, in kJ/mol."""
    train, test, kelvin = split.train, split.test, split.test.temperature
    held, own = surface_of(test, bins.number), surface_of(train, bins.number)
    chosen = held.effective >= bins.effective
    surfaces = {
        "ours": surface(samples, bins.number, temperature=kelvin).value,
        "ours_exact": free_energy(rebinned(model, bins.number), temperature=kelvin),
        "histogram": own.value,
        **{key: free_energy(kernel_density(train, w, bins.number), temperature=kelvin) for key, w in widths.items()},
    }
    found: dict[str, Any] = {}
    for key, value in surfaces.items():
        reached = chosen & value.isfinite()
        found[key] = surface_rmse(value, held.value, reached)
        if missed := int(chosen.sum() - reached.sum()):
            found[f"{key}_misses"] = missed
    return {
        "learned_from": split.name,
        "bins": f"{bins.number} x {bins.number}",
        "effective_frames": bins.effective,
        "bins_chosen": int(chosen.sum()),
        "left_chosen": int(chosen[: bins.number // 2].sum()),
        "share_chosen": float(held.probability[chosen].sum()),
        "highest_chosen": float(held.value[chosen].max()),
        "effective_train": len(train) * ess(train.log_weights),
        "effective_test": len(test) * ess(test.log_weights),
        "length": model.length,
        "gap_test": gap(test),
        "gap_train": gap(train),
        "gap_model": gap_of(float(model.tables[0][: model.spec.cells // 2].exp().sum()), kelvin),
        **found,
        "kde_scott_rad": widths["kde_scott"],
        "kde_chosen_rad": widths["kde_chosen"],
        "floor": floor(test, bins.number, chosen, torch.Generator().manual_seed(seed)),
    }


def surface_of(frames: TorsionRun, bins: int) -> Surface:
    """The reweighted surface of a run."""
    return surface(frames.angles, bins, temperature=frames.temperature, log_weights=frames.log_weights)


def gap(frames: TorsionRun) -> float:
    """Free energy of phi >= 0 above phi < 0, in kJ/mol."""
    return gap_of(float(frames.log_weights.softmax(0)[frames.phi < 0].sum()), frames.temperature)


def gap_of(left: float, temperature: float) -> float:
    r"""$RT\ln(P/(1 - P))$ of the probability P of the lower side, in kJ/mol.

    Example:
        >>> round(gap_of(0.9, 300.0), 3)  # 2.494 ln 9
        5.481
    """
    return thermal_energy(temperature) * math.log(left / (1 - left))


def floor(frames: TorsionRun, bins: int, chosen: Tensor, generator: torch.Generator) -> float:
    """Error of the surface of a run, by chance."""
    return surface_error(
        frames.angles,
        bins,
        chosen,
        temperature=frames.temperature,
        blocks=BLOCKS,
        generator=generator,
        log_weights=frames.log_weights,
        replicas=REPLICAS,
    )


def agrees(frames: TorsionRun, name: str, seed: int) -> dict[str, Any]:
    """The reweighted run against an unbiased one of a basin, over bins with enough effective frames of both."""
    basin = alanine_dipeptide(name)
    whole, alone = surface_of(frames, BINS.number), surface_of(basin, BINS.number)
    plain = surface(frames.angles, BINS.number, temperature=frames.temperature)
    chosen = (whole.effective >= BINS.effective) & (alone.effective >= BINS.effective)
    generator = torch.Generator().manual_seed(seed)
    parts = [floor(each, BINS.number, chosen, generator) for each in (frames, basin)]
    return {
        "basin": name,
        "bins": f"{BINS.number} x {BINS.number}",
        "bins_chosen": int(chosen.sum()),
        "share_chosen": float(alone.probability[chosen].sum()),
        "reweighted": surface_rmse(whole.value, alone.value, chosen),
        "unweighted": surface_rmse(plain.value, alone.value, chosen),
        "floor": math.hypot(*parts),
    }


def rebinned(model: PeriodicDensity, bins: int) -> Float64[Tensor, "bins bins"]:
    """Probability of each bin by the cells that it overlaps, exactly."""
    share = overlap(model.spec.cells, bins)
    return share @ model.tables[0].exp() @ share.T


def overlap(cells: int, bins: int) -> Float64[Tensor, "bins cells"]:
    """Which share of a cell lies in each bin, on one axis.

    Example:
        >>> overlap(3, 2)
        tensor([[1.0000, 0.5000, 0.0000],
                [0.0000, 0.5000, 1.0000]], dtype=torch.float64)
    """
    cell, bin = (torch.arange(n + 1, dtype=torch.float64) / n for n in (cells, bins))
    low = torch.maximum(cell[None, :-1], bin[:-1, None])
    return (torch.minimum(cell[None, 1:], bin[1:, None]) - low).clamp_min(0) * cells


def kernel_density(frames: TorsionRun, width: float, bins: int) -> Float64[Tensor, "bins bins"]:
    r"""Probability of each bin under a Gaussian on every frame, wrapped around the torus; ``FINE`` points a bin."""
    sides = bins * FINE
    at = (torch.arange(sides, dtype=torch.float64) + 0.5) * (2 * math.pi / sides) - math.pi
    phi, psi = (_wrapped(angle[:, None] - at, width) for angle in (frames.phi, frames.psi))
    weight = frames.log_weights.softmax(0)
    fine = (phi * weight[:, None]).T @ psi
    summed = fine.reshape(bins, FINE, bins, FINE).sum((1, 3))
    return summed / summed.sum()


def scott(frames: TorsionRun) -> float:
    r"""$\sigma N^{-1/6}$ in rad, of the mean circular variance of both angles and the effective number of frames.

    Source:
        Scott 1992, "Multivariate Density Estimation"; of a circle $\sigma^2 = -2\ln|\langle e^{ix}\rangle|$.
    """
    weight = frames.log_weights.softmax(0)
    mean = [math.hypot(float(weight @ x.cos()), float(weight @ x.sin())) for x in (frames.phi, frames.psi)]
    sigma = math.sqrt(sum(-2 * math.log(r) for r in mean) / 2)
    return float(sigma * (len(frames) * ess(frames.log_weights)) ** (-1 / 6))


def chosen_bandwidth(frames: TorsionRun) -> float:
    """The width of ``BANDWIDTHS`` that foretells held-out blocks best, in rad; blocks are those of ours."""
    block = torch.arange(len(frames)) * SPEC.blocks // len(frames)
    weight = frames.log_weights.softmax(0)
    gaps = [angle[:, None] - angle for angle in (frames.phi, frames.psi)]
    best = {}
    for width in BANDWIDTHS:
        kernel = _wrapped(gaps[0], width) * _wrapped(gaps[1], width)
        kernel = torch.where(block[:, None] == block, 0.0, kernel)
        rest = 1 - torch.zeros(SPEC.blocks).double().index_add(0, block, weight)[block]
        best[width] = float(weight @ ((kernel @ weight) / rest).clamp_min(1e-300).log())
    return max(best, key=best.__getitem__)


def _wrapped(gap: Tensor, width: float) -> Tensor:
    """A normal density of the shorter way around the circle, as good as wrapped for widths far below a turn."""
    turned = torch.remainder(gap + math.pi, 2 * math.pi) - math.pi
    return torch.exp(-((turned / width) ** 2) / 2) / (width * math.sqrt(2 * math.pi))


def _figures(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The flat figures of the first split."""
    methods = ("histogram", "kde", "kde_scott", "kde_chosen")
    figures = {"fes_rmse_kj_mol": rows[0]["ours"], "fes_rmse_exact_kj_mol": rows[0]["ours_exact"]}
    figures |= {f"{key}_rmse_kj_mol": rows[0][key] for key in methods}
    figures |= {"floor_kj_mol": rows[0]["floor"], "bins": rows[0]["bins_chosen"], "share": rows[0]["share_chosen"]}
    figures |= {"gap_kj_mol": rows[0]["gap_model"], "gap_held_out_kj_mol": rows[0]["gap_test"]}
    for bins, row in zip(OTHERS, rows[1:], strict=True):
        figures[f"fes_rmse_{bins.number}_bins_{bins.effective:g}_frames_kj_mol"] = row["ours"]
        figures[f"floor_{bins.number}_bins_{bins.effective:g}_frames_kj_mol"] = row["floor"]
    return figures | {"samples": SAMPLES}


def _draw(model: PeriodicDensity, split: Split) -> None:
    path = Path("runs", "bench", "ala2", "ala2.svg")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(picture(model, surface_of(split.test, BINS.number), split.test.temperature), encoding="utf-8")


def picture(model: PeriodicDensity, held: Surface, temperature: float) -> str:
    """SVG: the held-out surface, dots on the bins that count, and the model at three levels, coarse to fine."""
    from matplotlib.figure import Figure

    seen = torch.where(held.value.isfinite(), held.value, torch.nan)
    panels = [(f"held out, {len(seen)} x {len(seen)} bins", seen)]
    dots = ((held.effective >= BINS.effective).nonzero() + 0.5) * (360 / len(seen)) - 180
    for level in reversed(PANELS):
        cells = model.tables[level - 1]
        name = f"learned, level {level}: {len(cells)} x {len(cells)}"
        panels.append((name, free_energy(cells.exp(), temperature=temperature).clamp_max(CEILING)))
    figure = Figure(figsize=(9.6, 2.9), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True)
    for place, (title, values) in zip(axes, panels, strict=True):
        shown = place.imshow(
            values.T, origin="lower", extent=(-180, 180, -180, 180), vmin=0, vmax=CEILING, cmap="viridis_r"
        )
        place.set_title(title, fontsize=9, color=INK)
        place.set_xlabel("φ [degrees]", fontsize=8)
        place.set(xticks=(-180, -90, 0, 90, 180), yticks=(-180, -90, 0, 90, 180))
        place.tick_params(labelsize=7)
    axes[0].plot(*dots.T, linestyle="", marker=".", markersize=2.5, color=AGAINST)
    axes[0].set_ylabel("ψ [degrees]", fontsize=8)
    bar = figure.colorbar(shown, ax=list(axes), shrink=0.8)
    bar.set_label("free energy [kJ/mol]", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return svg(figure, "ala2")
