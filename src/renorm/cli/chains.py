"""Commands of protein chains."""

import argparse
import re
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from renorm.cli.output import Progress, say, table
from renorm.errors import DataError, RecipeError

if TYPE_CHECKING:
    from renorm.data.proteins.sequence import Record
    from renorm.data.proteins.spec import ProteinSpec
    from renorm.data.proteins.survey import Survey

__all__ = ["fold", "read_structures"]

SHORTEST = 3  # residues of a chain that can be drawn
MOST_NAMED = 50  # bad files of one kind


def fold(options: argparse.Namespace) -> None:
    """Sequences to PDB files, and a page that shows them."""
    from renorm.recipes.chain_features import features_of_run
    from renorm.recipes.chains_run import fold as draw
    from renorm.recipes.chains_run import load, write_fold
    from renorm.report.fold_page import Folded, write_fold_page

    if options.num < 1:
        raise RecipeError(f"--num must be >= 1, got {options.num}")
    records = _records(options.sequence)
    run = Path(options.run)
    model = load(run).with_walk(sampler=options.sampler, spacing=options.spacing)
    features = features_of_run(run, options.features)
    told_of = [None] * len(records) if features is None else features(records, progress=not options.quiet)
    folder = Path(options.out or run / "folds")
    files: list[dict[str, Any]] = []
    folded = []
    paths = _files(folder, [name for name, _ in records])
    for path, (name, sequence), x in zip(paths, records, told_of, strict=True):
        with Progress(options, name) as callback:
            found = draw(
                model, sequence, options.num, seed=options.seed, features=x, steps=options.steps, callback=callback
            )
        write_fold(path, found, sequence, title=f"{name} by renorm, {options.num} models")
        folded.append(Folded(name, path.name, found))
        files.append({"name": name, "residues": len(sequence), "file": str(path), "spread": found.spread.mean().item()})
    told = "\n".join(f"wrote {each['file']}: {options.num} chains of {each['residues']} residues" for each in files)
    page = folder / "folds.html"
    capped = write_fold_page(page, folded, run=run.resolve().name)
    told += f"\nwrote {page}" + (f"; {capped[0].lower()}{capped[1:]}" if capped else "")
    say(options, {"folds": files, "seed": options.seed, "page": str(page)}, told)


def _files(folder: Path, names: list[str]) -> list[Path]:
    """A file for each name, no two alike, also where capital and small letters are one."""
    found: list[str] = []
    taken: set[str] = set()
    plain = [re.sub(r"[^A-Za-z0-9._-]+", "_", name)[:80].lstrip(".") or "_" for name in names]
    wanted = {name.lower() for name in plain}
    for name in plain:
        free, number = name, 1
        while free.lower() in taken or (number > 1 and free.lower() in wanted):
            number += 1
            free = f"{name}-{number}"
        taken.add(free.lower())
        found.append(free)
    return [folder / f"{name}.pdb" for name in found]


def _records(asked: str) -> "list[Record]":
    """Names and sequences of what was asked for: a FASTA file, a structure, a number of residues, or a sequence."""
    from renorm.data.proteins.sequence import LONGEST, UNKNOWN, Record, parse_sequence, read_fasta

    if asked.isdecimal():
        length = int(asked)
        if not SHORTEST <= length <= LONGEST:
            raise RecipeError(f"a chain has {SHORTEST} to {LONGEST} residues, got {length}")
        return [Record(f"any-{length}", UNKNOWN * length)]
    is_name = len(asked) < 256  # a sequence may be longer than a file name can be
    place, chain = _structure(asked) if is_name else (None, None)
    if place is not None:
        from renorm.data.proteins.structure_files import read_chain

        one = read_chain(place, chain=chain)
        records = [Record(one.name, parse_sequence(one.sequence, what=one.name))]
    elif is_name and Path(asked).is_file():
        records = read_fasta(Path(asked))
    elif is_name and Path(asked).suffix:
        raise RecipeError(f"there is no file {asked}; give a sequence, a FASTA file, or a number of residues")
    else:
        records = [Record("fold", parse_sequence(asked))]
    for name, sequence in records:  # before the first is drawn
        if len(sequence) < SHORTEST:
            raise RecipeError(f"a chain has at least {SHORTEST} residues, '{name}' has {len(sequence)}")
    return records


def _structure(asked: str) -> tuple[Path | None, str | None]:
    """File and chain of a structure: ``1abc.cif:A``, or the file alone; none if it does not end as one."""
    from renorm.data.proteins.structure_files import MMCIF, PDB

    for text, chain in ((asked, ""), asked.rsplit(":", 1) if ":" in asked else ("", "")):
        if text.lower().removesuffix(".gz").endswith(PDB + MMCIF):
            return Path(text), chain or None
    return None, None


def read_structures(options: argparse.Namespace) -> None:
    """A folder of structures into the cache that a fit reads, and what is in it."""
    from dataclasses import asdict

    from renorm.data.proteins.folder import default_cache, structure_paths
    from renorm.data.proteins.reading import read_files
    from renorm.data.proteins.spec import ProteinSpec
    from renorm.data.proteins.survey import survey
    from renorm.fit.progress import Counted

    if options.folder is None:
        raise RecipeError("which folder? `renorm data proteins FOLDER` reads the .pdb and .cif files below it")
    folder = Path(options.folder)
    cache, began = default_cache(folder), time.monotonic()
    with Counted("proteins", "files", shown=not options.quiet) as progress:
        try:
            found = read_files(folder, structure_paths(folder), cache=cache, progress=progress)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("interrupted; files that were read stay read, the same command goes on") from None
    seconds = time.monotonic() - began
    spec = ProteinSpec(name="folder", path=str(folder))
    counted = survey(found, spec)
    if not counted.chains:
        first = counted.dropped[0]
        raise DataError(f"none of {counted.files} files of {folder} could be read; first, {first.file}: {first.reason}")
    value = {
        "folder": str(folder),
        **asdict(counted),
        "kinds": counted.kinds,
        "dropped": [entry._asdict() for entry in counted.dropped],
        "read_anew": found.anew,
        "seconds": seconds,
        "cache": str(cache) if found.cached else None,
    }
    lines = [*_counts(counted, spec), *_left_out(counted, folder)]
    how = f"read {found.anew} of {found.files} files" if found.anew else f"all {found.files} files were read before"
    kept = f"; kept in {cache}" if found.cached else f"; cannot write {cache}, each fit reads the folder again"
    lines.append(f"{how} ({seconds:.1f} s){kept}")
    if counted.train:
        given = f"--set data.name=folder --set {shlex.quote(f'data.path={folder}')} --set data.hold_out=sequence"
        lines.append(f"next: renorm fit protein {given}")
    else:
        lines.append("next: choose data.shortest and data.longest of the recipe so that it has chains to learn from")
    say(options, value, "\n".join(lines))


def _counts(counted: "Survey", spec: "ProteinSpec") -> list[str]:
    shortest, median, longest = counted.lengths or (0, 0, 0)
    bad = len(counted.dropped)
    figures = {
        "files": f"{counted.files}, {bad} left out" if bad else f"{counted.files}, none left out",
        "chains": f"{counted.chains}, {counted.broken} with a gap or a broken link",
        "residues": f"{counted.residues}: {counted.missing} missing, {counted.modified} modified, "
        f"{counted.unknown} of unknown kind",
        "lengths": f"{shortest} to {longest}, median {median}",
        "for a fit": f"{counted.train} to learn from, {counted.test} held out ({spec.shortest} to {spec.longest} "
        "residues, by sequence)",
    }
    return [table(figures)]


def _left_out(counted: "Survey", folder: Path) -> list[str]:
    """Files by reason; their own reasons, where these differ."""
    lines = []
    for kind, number in counted.kinds.items():
        lines.append(f"left out, {kind}: {number}")
        bad = [entry for entry in counted.dropped if entry.kind == kind]
        reasons = [entry.reason.replace(str(folder / entry.file), "it").removeprefix("it: ") for entry in bad]
        alike = len(set(reasons)) == 1
        for entry, reason in list(zip(bad, reasons, strict=True))[:MOST_NAMED]:
            lines.append(f"  {entry.file}" if alike and number > 1 else f"  {entry.file}: {reason}")
        if number > MOST_NAMED:
            lines.append(f"  and {number - MOST_NAMED} more; --json names them all")
    return lines
