"""The most memory that ten thousand samples and a fit take, each in a process of its own.

A model of the recipe ``mnist32`` (its network untrained: what it holds does not matter), by the library as a user calls
it. What a process holds that has only loaded the model is told beside it. The bound of sampling: what the model takes,
the samples (here 40 MiB) and the walk of one batch, whatever the number; that of a fit: the data as bytes, the
weights four times (with their average and Adam's two), and one batch.
"""

import resource
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from renorm.bench.result import Result
from renorm.errors import RecipeError

NUMBERS = (1000, 10_000)
STEPS = {"sample": 2, "fit": 30}


def run(seed: int) -> Result:
    """Peaks in MiB."""
    with TemporaryDirectory() as folder:
        peaks = {job: _peak(job, Path(folder), seed) for job in ("make", "load", *map(str, NUMBERS), "fit")}
    figures = {"load_mib": peaks["load"], "fit_mib": peaks["fit"]}
    figures |= {f"sample_{n}_mib": peaks[str(n)] for n in NUMBERS}
    return Result(figures, [{"job": job, "peak_mib": peak} for job, peak in peaks.items()], (seed,))


def _peak(job: str, folder: Path, seed: int) -> float:
    """Of a process that does one job."""
    code = f"from pathlib import Path\nfrom renorm.bench.memory import job\njob({job!r}, Path({str(folder)!r}), {seed})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise RecipeError(f"the process that measures '{job}' failed: {reason}")
    return float(done.stdout.split()[-1])


def job(name: str, folder: Path, seed: int) -> None:
    """What one process does; it prints its peak in MiB."""
    import torch

    from renorm.recipes.run import fit_run, load_run, sample_run
    from renorm.recipes.spec import load_recipe

    if name in ("make", "fit"):
        short = {"fit.steps": 1 if name == "make" else STEPS["fit"], "fit.warmup": 1, "fit.seed": seed}
        fit_run(load_recipe("mnist32", short), folder / name, progress=False)
    elif name == "load":
        load_run(folder / "make")
    else:
        x = sample_run(folder / "make", int(name), seed=seed, steps=STEPS["sample"])
        assert bool(torch.isfinite(x).any())
    scale = 2**20 if sys.platform == "darwin" else 2**10
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale)
