"""What a run of chains is worth: folds beside known structures, and their shapes beside those of real chains.

measures.json      figures, notes, and a line for each target
samples/           folds.npz: some folds, for the report    scales.npz: one of their walks, coarse to fine
"""

import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from renorm.bases import basis_for
from renorm.data.proteins.chains import Chain, Chains
from renorm.data.proteins.choosing import of_lengths
from renorm.data.proteins.packed import load as load_packed
from renorm.data.proteins.spec import known_chains
from renorm.diffusion.chains.model import ChainDiffusion
from renorm.diffusion.chains.profile import spectrum_of
from renorm.diffusion.reverse import Callback
from renorm.errors import DataError
from renorm.lattice import Lattice
from renorm.measure.chains.similarity import gdt_ha, gdt_ts, lddt, tm_score
from renorm.measure.chains.summary import chain_figures
from renorm.measure.chains.superposition import rmsd, superpose
from renorm.recipes.chain_features import features_of_run, records_of
from renorm.recipes.chains_run import fold
from renorm.recipes.chains_scales import Moments
from renorm.recipes.folder import write_arrays, write_json
from renorm.recipes.spec import ChainRecipe

__all__ = ["gaussian_chain", "mean_tm", "measure", "nearest_by_length", "scores", "targets_of"]

STRIDE = 4  # residues between the seeds of superpositions: much faster, and as good on all chains that were tried
SHOWN = 4  # targets whose folds are kept for the report
LONGEST = 10_000


def measure(
    recipe: ChainRecipe,
    folder: Path,
    model: ChainDiffusion,
    *,
    samples: int | None,
    steps: int | None,
    seed: int | None,
    callback: Callback | None,
) -> dict[str, Any]:
    """Fold every target, compare, write ``measures.json`` and the arrays of the pictures.

    Each target counts by the mean over its chains, none is chosen by its score; over targets the median is given.

    Raises:
        DataError: If there is no target, or features that the model needs are absent.
        CheckpointError: If they are of another language model.
    """
    spec = recipe.measure
    samples = spec.samples if samples is None else samples
    steps = spec.steps if steps is None else steps
    seed = spec.seed if seed is None else seed
    targets, real = targets_of(recipe), known_chains(replace(recipe.data, unbroken=True), "train")
    features = features_of_run(folder)
    told = [None] * len(targets) if features is None else features(records_of(targets), progress=callback is not None)
    lines: list[dict[str, Any]] = []
    drawn: list[Tensor] = []
    shown: dict[str, Tensor] = {}
    walked = next((i for i, target in enumerate(targets[:SHOWN]) if not target.missing), 0)  # known at all its scales
    seconds, residues = 0.0, 0
    for i, target in enumerate(targets):
        moments = Moments(model.of(len(target)), callback) if i == walked else None
        begun = time.perf_counter()
        told_back = moments or callback
        x = fold(model, target.sequence, samples, seed=seed + i, features=told[i], steps=steps, callback=told_back).x
        seconds, residues = seconds + time.perf_counter() - begun, residues + samples * len(target)
        drawn += list(x)
        trivial = {
            "tm_nearest": mean_tm(nearest_by_length(real, len(target))[None], target),
            "tm_gaussian": mean_tm(gaussian_chain(len(target), seed + i)[None], target),
        }
        about = {"target": target.name, "residues": len(target), "known": int(target.known.sum())}
        lines.append(about | scores(x, target) | trivial)
        if i < SHOWN:
            laid = superpose(x[:1], target.coordinates[None], weights=target.known[None].double())
            shown |= {f"fold{i}": laid.move(x[:1])[0].float(), f"known{i}": target.coordinates}
            if moments is not None:
                write_arrays(folder / "samples" / "scales.npz", **moments.arrays(laid, target))
    figures: dict[str, Any] = {"targets": len(targets), "samples_per_target": samples}
    figures |= {f"median_{key}": statistics.median(line[key] for line in lines) for key in _KEYS}
    figures |= chain_figures(drawn, [chain.coordinates for chain in real])
    figures |= {"seconds_per_chain": seconds / (samples * len(targets)), "seconds_per_residue": seconds / residues}
    notes = {
        "targets": f"{spec.targets}, each by the mean over its {samples} chains: none is chosen by its score",
        "nearest": "the training chain that is nearest in length, cut to it: what no model is needed for",
        "shapes": f"beside {len(real)} unbroken training chains",
    }
    measured = {"figures": figures, "notes": notes, "targets": lines}
    write_json(folder / "measures.json", measured)
    write_arrays(folder / "samples" / "folds.npz", **shown)
    return measured


_KEYS = ("tm", "rmsd", "gdt_ts", "gdt_ha", "lddt", "tm_nearest", "tm_gaussian")


def scores(x: Tensor, target: Chain) -> dict[str, float]:
    """Means over chains of one target of TM-score, RMSD, GDT and lDDT, over its known residues.

    Args:
        x: The chains (num, residues, 3), in angstrom.
        target: The known structure.
    """
    y, mask = target.coordinates.nan_to_num(0.0), target.known
    return {
        "tm": mean_tm(x, target),
        "rmsd": float(rmsd(x, y, mask=mask).mean()),
        "gdt_ts": float(gdt_ts(x, y, mask=mask, stride=STRIDE).mean()),
        "gdt_ha": float(gdt_ha(x, y, mask=mask, stride=STRIDE).mean()),
        "lddt": float(lddt(x, y, mask=mask).mean()),
    }


def mean_tm(x: Tensor, target: Chain) -> float:
    """Mean TM-score of chains (num, residues, 3) of one target, over its known residues."""
    return float(tm_score(x, target.coordinates.nan_to_num(0.0), mask=target.known, stride=STRIDE).mean())


def nearest_by_length(chains: Chains, length: int) -> Tensor:
    """The shortest chain of at least this length, cut to it; where all are shorter, the longest, run on straight.

    Raises:
        DataError: If there is no chain.
    """
    if not len(chains):
        raise DataError("the nearest chain needs a chain, got none")
    longer = [chain for chain in chains if len(chain) >= length]
    if longer:
        return min(longer, key=len).coordinates[:length]
    x = max(chains, key=len).coordinates
    step = x[-1] - x[-2]
    more = torch.arange(1, length - len(x) + 1)[:, None] * step
    return torch.cat([x, x[-1] + more])


def gaussian_chain(length: int, seed: int) -> Tensor:
    """A draw of the Gaussian chain, the prior: (residues, 3), in angstrom."""
    z = torch.randn(3, length, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    modes = spectrum_of(None, length).sqrt() * z
    modes[:, 0] = 0
    return basis_for(Lattice((length,), channels=3)).inverse(modes).T.float()


def targets_of(recipe: ChainRecipe) -> Chains:
    """Known structures, missing residues left open."""
    spec = recipe.measure
    if spec.targets == "held-out":
        found = known_chains(recipe.data, "test")
    else:
        found = of_lengths(load_packed(spec.targets).trimmed(), shortest=3, longest=LONGEST)
    if not len(found):
        raise DataError(f"there is no chain among the targets '{spec.targets}'")
    return found[: spec.limit]
