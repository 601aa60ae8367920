r"""How many evaluations a diffusion needs, where everything is known: Gaussian data and the exact denoiser.

Data on 32 x 32 sites with mode variances $P = (k^2 + 0.05^2)^{-\gamma}$, $\gamma$ = 1 ("k2") and 3/2 ("k3"), scaled to
mean 0.25. For every schedule and sampler the Kullback-Leibler divergence (nats, summed over the 1024 modes) of the
law that is reached is computed by carrying variances; nothing is sampled. A method passes at N evaluations if the
divergence is at most 1 nat there and at every larger N of the list. Neither schedule, spacing nor sampler sees P,
except in the rows marked so.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

from torch import Tensor

from renorm.bench.result import Result
from renorm.diffusion import presets
from renorm.diffusion.sampler import SAMPLERS
from renorm.diffusion.schedule import Schedule
from renorm.diffusion.spacing import EqualError, Karras, LinearBeta, LogUniform, Spacing, grid
from renorm.diffusion.transport import gaussian_kl, transported_variance
from renorm.lattice import Lattice

EVALUATIONS = (5, 10, 20, 50, 100, 200, 500, 1000)
THRESHOLD = 1.0  # nats
EXACT = {"running", "running-churn"}  # on Gaussian fields of any spectrum: there is nothing to measure
LATTICE = Lattice((32, 32))


def spectra() -> dict[str, Tensor]:
    """Mode variances of the two data sets."""
    k_sq = LATTICE.k_sq()
    raw = {name: (k_sq + 0.05**2) ** -gamma for name, gamma in (("k2", 1.0), ("k3", 1.5))}
    return {name: 0.25 * power / power.mean() for name, power in raw.items()}


def methods(spectrum: Tensor) -> Iterator[tuple[str, Schedule, Spacing, bool]]:
    """(name, schedule, spacing, sees the data's spectrum)."""
    white, paper = presets.white(LATTICE), presets.rgdm_images(LATTICE)
    yield "ddpm", white, LinearBeta(), False
    yield "white, edm grid", white, Karras(), False
    yield "rgdm", paper, LogUniform(), False
    yield "rgdm, edm grid", paper, Karras(), False
    yield "rgdm, equal error", paper, EqualError(spectrum), True
    yield "calibrated", presets.calibrated(LATTICE, spectrum), LogUniform(), True


def run(seed: int) -> Result:
    """Every schedule with every sampler; ``seed`` has nothing to do here."""
    table, figures = [], {}
    for data, spectrum in spectra().items():
        best: dict[str, int] = {}
        for name, schedule, spacing, sees in methods(spectrum):
            for sampler in (key for key in SAMPLERS if key not in EXACT):
                divergence = [_divergence(schedule, spectrum, sampler, spacing, n) for n in EVALUATIONS]
                nfe = first_passing({n: [kl] for n, kl in zip(EVALUATIONS, divergence, strict=True)}, THRESHOLD)
                row = {"data": data, "method": name, "sampler": sampler, "sees_spectrum": sees, "nfe": nfe}
                table.append({**row, **{f"kl_{n}": kl for n, kl in zip(EVALUATIONS, divergence, strict=True)}})
                best[f"{name}/{sampler}"] = nfe
                if name == "calibrated":
                    figures[f"calibrated_{_key(sampler)}_kl_5_{data}"] = divergence[0]
        blind = [nfe for key, nfe in best.items() if key.startswith(("rgdm/", "rgdm, edm"))]
        aware = [nfe for key, nfe in best.items() if key.startswith("rgdm, equal")]
        white = [nfe for key, nfe in best.items() if key.startswith(("ddpm/", "white"))]
        figures |= {
            f"rg_best_nfe_{data}": least(blind),
            f"rg_angle_pc_nfe_{data}": best["rgdm/angle-pc"],
            f"rg_angle_pc_kl_10_{data}": _divergence_at(table, data, "rgdm", "angle-pc", 10),
            f"rg_equal_error_best_nfe_{data}": least(aware),
            f"ddpm_ancestral_nfe_{data}": best["ddpm/ancestral"],
            f"white_best_nfe_{data}": least(white),
        }
    return Result(figures, table)


def _divergence(schedule: Schedule, spectrum: Tensor, sampler: str, spacing: Spacing, evaluations: int) -> float:
    make: Callable = SAMPLERS[sampler]
    method = make()
    steps = (evaluations + method.evaluations - 1) // method.evaluations  # the step to clean data needs one
    variance = transported_variance(schedule, spectrum, method, grid(spacing, schedule, steps))
    return gaussian_kl(variance, spectrum)


def first_passing(found: Mapping[int, Sequence[float]], threshold: float) -> int:
    """Fewest evaluations from which every larger number that was tried passes; 0 if none does.

    Args:
        found: Evaluations -> figures, all of which must be at most the threshold.

    Example:
        >>> first_passing({4: [0.1], 5: [3.0], 6: [0.5], 10: [0.2]}, 1.0)
        6
    """
    passing = 0
    for n, figures in sorted(found.items(), reverse=True):
        if not all(figure <= threshold for figure in figures):  # also one that is not a number
            break
        passing = n
    return passing


def least(counts: list[int]) -> int:
    """The smallest count among methods that pass at all."""
    return min((n for n in counts if n), default=0)


def _divergence_at(table: list[dict], data: str, method: str, sampler: str, evaluations: int) -> float:
    row = next(r for r in table if (r["data"], r["method"], r["sampler"]) == (data, method, sampler))
    return float(row[f"kl_{evaluations}"])


def _key(sampler: str) -> str:
    return sampler.replace("-", "_")
