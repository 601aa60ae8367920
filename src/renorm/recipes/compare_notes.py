"""How to read a comparison, in words: what stands in it, and which code and machines it is from."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from renorm.recipes.compare_cells import Cell, Yardstick
from renorm.recipes.compare_methods import GAIN, Gain
from renorm.recipes.compare_runs import Method
from renorm.recipes.folder import DIRTY

__all__ = ["ORIGINS", "notes_of", "origin_notes", "place", "trained_by"]


ORIGINS = ("other_code", "not_committed", "machines", "trainings")
"""Notes that `origin_notes` may make."""


def notes_of(
    quality: str,
    samples: int,
    seed: int,
    yardstick: Yardstick,
    methods: Sequence[Method],
    gains: Sequence[Gain],
    cells: Sequence[Cell],
    floor: Mapping[str, Any],
) -> dict[str, str]:
    """How to read the table."""
    facts, code = yardstick.facts, yardstick.code
    notes = {
        "figure": f"{quality} of {samples} samples (seed {seed}) from {facts['reference_fields']} test fields of "
        f"{yardstick.data.name}; small is good",
        "best": "of each method at each number of evaluations the walk of the smallest mean over its seeds is marked; "
        "it is chosen by the very cells that are shown, so a method with more walks has more luck",
        "seconds": "for a sample, sampling alone; cells of one machine can be compared",
    }
    numbers = sorted({len(method.runs) for method in methods})
    several = "seeds: mean and one standard error over trainings" if numbers[-1] > 1 else "seed: no standard error"
    notes["seeds"] = f"{' or '.join(map(str, numbers))} {several}"
    if gains:
        notes["gain"] = GAIN
    if floor:
        by = floor["provenance"]
        other = [f"at another commit ({by['commit']})"] if by["commit"] != code["commit"] else []
        other += [f"on {place(by)}"] if place(by) != place(code) else []
        of = f", measured {' and '.join(other)}" if other else ""
        notes["floor"] = f"{floor['training_fields']} training fields in place of the samples{of}"
    elif yardstick.data.law is not None:
        notes["floor"] = "none: training fields of a law would have to be simulated anew"
    notes |= origin_notes(cells, methods, code)
    away = sorted({f"{cell.run} {cell.walk} at {cell.evaluations}" for cell in cells if "not_finite" in cell.notes})
    if away:
        notes["not_finite"] = f"samples without a value: {', '.join(away)}"
    return notes


def origin_notes(cells: Sequence[Cell], methods: Sequence[Method], code: Mapping[str, Any]) -> dict[str, str]:
    """Cells of other code than this, of code that no commit identifies, of several machines; trainings likewise.

    Args:
        cells: Of the table.
        methods: Whose runs tell in their manifests who trained them.
        code: This one's commit.
    """
    commits = [str(cell.provenance["commit"]) for cell in cells]

    def told(some: Sequence[str], by: str) -> str:
        return f"{len(some)} of {len(commits)} cells were measured {by} ({', '.join(sorted(set(some)))})"

    notes = {}
    others = [commit for commit in commits if commit != code["commit"]]
    if others:
        notes["other_code"] = f"{told(others, 'at another commit')} and taken as they are"
    changed = [commit for commit in commits if commit.endswith(DIRTY)]
    if changed:
        notes["not_committed"] = told(changed, "by code with changes that no commit holds")
    places = Counter(place(cell.provenance) for cell in cells).most_common()
    if len(places) > 1:
        (first, num), *rest = places
        also = "; ".join(f"{n} on {where}" for where, n in rest)
        notes["machines"] = (
            f"{num} cells were measured on {first}; {also}; a GPU draws other noise from a seed than a CPU, and "
            "seconds of two machines cannot be compared"
        )
    trainings = [text for method in methods if (text := _trainings(method))]
    if trainings:
        notes["trainings"] = "; ".join(trainings)
    return notes


def place(facts: Mapping[str, Any]) -> str:
    """Machine and version of torch, which together decide the noise of a seed.

    Example:
        >>> place({"machine": "NVIDIA H200", "torch": "2.11.0"})
        'NVIDIA H200 with torch 2.11.0'
    """
    return f"{facts.get('machine', 'an unknown machine')} with torch {facts.get('torch', 'of no known version')}"


def trained_by(manifest: Mapping[str, Any]) -> str:
    """Which code trained a run, and where.

    Example:
        >>> trained_by({"commit": "1a2b3c4-dirty", "machine": "NVIDIA H200"})
        '1a2b3c4-dirty on NVIDIA H200'
    """
    return f"{manifest.get('commit', 'unknown code')} on {manifest.get('machine', 'an unknown machine')}"


def _trainings(method: Method) -> str:
    """What is wrong with the code of a method's trainings, if anything is."""
    commits = sorted({str(run.manifest["commit"]) for run in method.runs if "commit" in run.manifest})
    changed = [commit for commit in commits if commit.endswith(DIRTY)]
    told = []
    if len(commits) > 1:
        told.append(f"by several commits ({', '.join(commits)})")
    if changed:
        told.append(f"by code with changes that no commit holds ({', '.join(changed)})")
    return f"{method.name} was trained {' and '.join(told)}" if told else ""
