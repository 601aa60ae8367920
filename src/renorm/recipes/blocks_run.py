"""A block-spin rule learned from a recipe's fields, beside the rules that people choose: what each keeps.

rule.toml  rule.safetensors     the learned rule
blocks.json                     what was asked, and the figures
coarse.npz                      test fields, and their coarse fields by every rule
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from renorm.coarse.encoder import BlockEncoder, fit_encoder
from renorm.coarse.surroundings import surroundings
from renorm.data import load as load_data
from renorm.data.spec import DataSpec
from renorm.errors import CheckpointError, RecipeError
from renorm.fit.checkpoint import atomic, load_weights, read_tensors, write_tensors
from renorm.measure.information import Told, bound_of_means, held_out_information
from renorm.measure.statistics import jackknife
from renorm.recipes.folder import machine, write_arrays, write_json
from renorm.spec import load_toml, require, require_literals, to_toml

__all__ = ["BlocksSpec", "LearnedRule", "learn_rule", "load_rule"]

SHOWN = 4  # test fields


@dataclass(frozen=True)
class BlocksSpec:
    """A rule of two states, linear in the sites of a block, and how it is learned.

    Args:
        size: Sites of a block along each axis.
        buffer: Sites left out around a block.
        reach: How far beyond them its surroundings go.
        steps: Of Adam.
        seed: Of weights and batches.
        dim, channels: Of the fields.

    Raises:
        ValueError: If a value is out of range.
    """

    kind: Literal["blocks"] = "blocks"
    size: int = 2
    buffer: int = 1
    reach: int = 2
    steps: int = 1500
    seed: int = 0
    dim: int = 2
    channels: int = 1

    def __post_init__(self) -> None:
        require_literals(self)
        require(self.size >= 2, "size must be >= 2 sites (else nothing is lost)", self.size)
        require(self.buffer >= 0, "buffer must be >= 0 sites", self.buffer)
        require(self.reach >= 1, "reach must be >= 1 site (else there is nothing to tell of)", self.reach)
        require(self.steps >= 1, "steps must be >= 1 (nothing is learned)", self.steps)
        require(0 <= self.seed < 2**63, "seed must be in [0, 2^63)", self.seed)


@dataclass(frozen=True)
class LearnedRule:
    """What came of it.

    Attributes:
        rule: The learned one.
        figures: ``information_RULE`` in nats with their errors, ``ratio_to_majority`` and its error.
        fields: Test fields, (batch, channel, *sites), of mean 0 and variance 1.
        coarse: The same by every rule, the learned one first.
    """

    rule: BlockEncoder
    figures: dict[str, Any]
    fields: Tensor
    coarse: dict[str, Tensor]


def learn_rule(data: DataSpec, spec: BlocksSpec, folder: Path) -> LearnedRule:
    """Learn a rule from the training fields, judge it and two others on the test fields, and write all of it.

    The others are the majority (the sign of a block's sum) and decimation (that of its first site). All are judged by
    the same network with the same first weights.

    Args:
        data: Fields on a torus.
        spec: The rule; its ``dim`` and ``channels`` are those of the fields.
        folder: Written into.

    Raises:
        CheckpointError: If the folder holds something else.
        RecipeError: If the lattice is open, or blocks do not fill it.
        DataError: If blocks and their surroundings do not fit into the lattice.
    """
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / "rule.toml").is_file())):
        raise CheckpointError(f"{folder} holds something else; choose another --out")
    train, test = (load_data(data, split) for split in ("train", "test"))  # type: ignore[arg-type]
    lattice = train.lattice
    if lattice.boundary != "periodic":
        raise RecipeError(
            "blocks are judged by what is around them, on a torus; set data.boundary = 'periodic' if the fields are, "
            f"got {lattice.boundary!r}"
        )
    learn, held = (part.batch(torch.arange(len(part))) for part in (train, test))
    centre, scale = learn.mean(), learn.std().clamp(min=1e-12)
    learn, held = (learn - centre) / scale, (held - centre) / scale
    generator = torch.Generator().manual_seed(spec.seed)
    rule = BlockEncoder(spec.size, dim=lattice.dim, channels=lattice.channels, generator=generator)
    rule.coarse_lattice(lattice)
    around = {"buffer": spec.buffer, "reach": spec.reach}
    fit_encoder(rule, learn, steps=spec.steps, generator=generator, **around)  # type: ignore[arg-type]
    if float(rule.filter.sum()) < 0:  # it is odd: as good the other way up, which the eye expects
        with torch.no_grad():
            for weight in rule.parameters():
                weight.neg_()
    rules = {"learned": rule, "majority": _fixed(rule, every=True), "decimation": _fixed(rule, every=False)}
    told = {name: _told(each, learn, held, spec) for name, each in rules.items()}
    figures: dict[str, Any] = {}
    for name, found in told.items():
        figures[f"information_{name}"] = float(found.information.value)
        figures[f"information_{name}_error"] = float(found.information.error)
    both = torch.cat([told["learned"].samples, told["majority"].samples], 1)
    half = both.shape[1] // 2
    gain = jackknife(both, lambda m: bound_of_means(m[:, :half]) / bound_of_means(m[:, half:]))
    figures |= {"ratio_to_majority": float(gain.value), "ratio_to_majority_error": float(gain.error)}
    figures["filter"] = [round(weight, 4) for weight in rule.filter.flatten().tolist()]
    coarse = {name: each.coarsen(held[:SHOWN]) for name, each in rules.items()}
    write_arrays(folder / "coarse.npz", fields=held[:SHOWN], **coarse)
    write_tensors(folder / "rule.safetensors", rule.state_dict(), {"kind": spec.kind})
    write_json(folder / "blocks.json", {"figures": figures, "machine": machine(), "data": data.name})
    with atomic(folder / "rule.toml") as temporary:  # last: it says that the rest is there
        temporary.write_text(to_toml(spec), encoding="utf-8")
    return LearnedRule(rule, figures, held[:SHOWN], coarse)


def load_rule(folder: Path) -> BlockEncoder:
    """The rule that ``learn_rule`` wrote; CheckpointError where there is none, or a damaged one."""
    if not (folder / "rule.toml").is_file():
        raise CheckpointError(f"{folder} holds no rule (there is no rule.toml); `renorm blocks RECIPE` makes one")
    try:
        spec = load_toml(BlocksSpec, folder / "rule.toml")
    except RecipeError as error:
        raise CheckpointError(f"{folder} holds no rule: {error}") from None
    rule = BlockEncoder(spec.size, dim=spec.dim, channels=spec.channels)
    load_weights(rule, read_tensors(folder / "rule.safetensors")[0], source=str(folder))
    return rule


def _fixed(like: BlockEncoder, *, every: bool) -> BlockEncoder:
    """The sign of a block's sum, or of its first site."""
    rule = BlockEncoder(like.size, dim=like.dim, channels=like.channels)
    with torch.no_grad():
        for weight in rule.parameters():
            weight.zero_()
            weight[0, slice(None) if every else 0] = 1.0
    return rule


def _told(rule: BlockEncoder, learn: Float[Tensor, "number channel *sites"], held: Tensor, spec: BlocksSpec) -> Told:
    parts = []
    for x in (learn, held):
        states = functional.one_hot(rule.assign(x).flatten(1), rule.states).float()
        parts.append((states, surroundings(x, spec.size, buffer=spec.buffer, reach=spec.reach)))
    return held_out_information(parts[0], parts[1], generator=torch.Generator().manual_seed(spec.seed))
