"""Commands of protein chains."""

import argparse
import re
from pathlib import Path

from renorm.cli.output import Progress, say
from renorm.errors import RecipeError

__all__ = ["fold"]


def fold(options: argparse.Namespace) -> None:
    """Sequences to PDB files."""
    from renorm.data.proteins.sequence import Record
    from renorm.recipes.chain_features import features_of_run
    from renorm.recipes.chains_run import fold as draw
    from renorm.recipes.chains_run import load, write_fold

    if options.num < 1:
        raise RecipeError(f"--num must be >= 1, got {options.num}")
    records = _records(options.sequence)
    run = Path(options.run)
    model = load(run).with_walk(sampler=options.sampler, spacing=options.spacing)
    features = features_of_run(run, options.features)
    named = [Record(*record) for record in records]
    told_of = [None] * len(records) if features is None else features(named, progress=not options.quiet)
    folder = Path(options.out or run / "folds")
    files = []
    for (name, sequence), x in zip(records, told_of, strict=True):
        with Progress(options, name) as callback:
            found = draw(
                model, sequence, options.num, seed=options.seed, features=x, steps=options.steps, callback=callback
            )
        path = folder / f"{name}.pdb"
        write_fold(path, found, sequence, title=f"{name} by renorm, {options.num} models")
        files.append({"name": name, "residues": len(sequence), "file": str(path), "spread": found.spread.mean().item()})
    told = "\n".join(f"wrote {each['file']}: {options.num} chains of {each['residues']} residues" for each in files)
    say(options, {"folds": files, "seed": options.seed}, told)


def _records(asked: str) -> list[tuple[str, str]]:
    """(name, sequence) of what was asked for: a FASTA file, a number of residues of any kind, or a sequence."""
    from renorm.data.proteins.sequence import LONGEST, parse_sequence, read_fasta

    if asked.isdecimal():
        length = int(asked)
        if not 3 <= length <= LONGEST:
            raise RecipeError(f"a chain has 3 to {LONGEST} residues, got {length}")
        return [(f"any-{length}", "X" * length)]
    is_name = len(asked) < 256  # a sequence may be longer than a file name can be
    if is_name and Path(asked).is_file():
        names: dict[str, int] = {}
        found = []
        for record in read_fasta(Path(asked)):
            name = re.sub(r"[^A-Za-z0-9._-]+", "_", record.name)[:80]
            names[name] = names.get(name, 0) + 1
            found.append((name if names[name] == 1 else f"{name}-{names[name]}", record.sequence))
        return found
    if is_name and Path(asked).suffix:
        raise RecipeError(f"there is no file {asked}; give a sequence, a FASTA file, or a number of residues")
    return [("fold", parse_sequence(asked))]
