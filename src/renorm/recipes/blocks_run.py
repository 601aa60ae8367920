"""A block-spin rule learned from a recipe's fields, beside the rules that people choose: what each keeps.

rule.toml  rule.safetensors     the learned rule
blocks.json                     what was asked, and the figures
coarse.npz                      test fields, and their coarse fields by every rule
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from renorm.coarse.block_spin import BlockSum, Decimation
from renorm.coarse.encoder import BlockEncoder, fit_encoder
from renorm.coarse.surroundings import surroundings
from renorm.data import load as load_data
from renorm.data.fields import Fields
from renorm.data.spec import DataSpec
from renorm.errors import CheckpointError, RecipeError
from renorm.fit.checkpoint import atomic, load_weights, read_tensors, write_tensors
from renorm.measure.information import Told, bound_of_means, held_out_information
from renorm.measure.statistics import Estimate, jackknife
from renorm.recipes.folder import machine, require_own, write_arrays, write_json
from renorm.spec import load_toml, require, require_literals, to_toml

__all__ = [
    "BlocksSpec",
    "LearnedRule",
    "Rule",
    "assigned",
    "information_kept",
    "learn_rule",
    "load_rule",
    "ratio",
    "signs",
]

SHOWN = 4  # test fields
EPOCHS = 4
"""Of a classifier on blocks of two sites; of larger ones there are fewer, which are shown as much oftener."""

Rule = Callable[[Tensor], Tensor]
"""Fields to probabilities of each block's values, (fields, blocks, values)."""


@dataclass(frozen=True)
class BlocksSpec:
    """A rule of two states, linear in the sites of a block, and how it is learned.

    Args:
        size: Sites of a block along each axis.
        buffer: Sites left out around a block.
        reach: How far beyond them its surroundings go.
        steps: Of Adam.
        seed: Of weights and batches.
        dim: Axes of the fields, which have one channel.

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
        fields: Test fields, (batch, 1, *sites); but for spins of mean 0 and variance 1.
        coarse: The same by every rule, the learned one first.
    """

    rule: BlockEncoder
    figures: dict[str, Any]
    fields: Tensor
    coarse: dict[str, Tensor]


def learn_rule(data: DataSpec, spec: BlocksSpec, folder: Path) -> LearnedRule:
    """Learn a rule from the training fields, judge it and two others on the test fields, and write all of it.

    The others are the majority (the sign of a block's sum, of a tie that of its first site) and decimation (the sign of
    its first site). ``information_kept`` judges all of them alike.

    Args:
        data: Fields of one channel on a torus.
        spec: The rule; ``dim`` is taken from the fields.
        folder: Written into.

    Raises:
        CheckpointError: If the folder holds something else.
        RecipeError: If the lattice is open, fields have several channels, or blocks do not fill the lattice.
        DataError: If blocks and their surroundings do not fit into the lattice.
    """
    require_own(folder, "rule.toml")
    train, test = load_data(data, "train"), load_data(data, "test")
    _require_torus(train)
    spec = replace(spec, dim=train.lattice.dim)
    generator = torch.Generator().manual_seed(spec.seed)
    rule = BlockEncoder(spec.size, dim=spec.dim, generator=generator)
    rule.coarse_lattice(train.lattice)  # says if blocks do not fill it
    learn, held = (part.batch(torch.arange(len(part))) for part in (train, test))
    if not bool((learn.abs() == 1).all()):
        centre, scale = learn.mean(), learn.std().clamp(min=1e-12)
        learn, held = (learn - centre) / scale, (held - centre) / scale
    fit_encoder(rule, learn, buffer=spec.buffer, reach=spec.reach, steps=spec.steps, generator=generator)
    if float(rule.filter.sum()) < 0:  # it is odd: as good the other way up, which the eye expects
        with torch.no_grad():
            for weight in rule.parameters():
                weight.neg_()
    coarsen: dict[str, Callable[[Tensor], Tensor]] = {
        "learned": rule.coarsen,
        "majority": lambda x: _majority(x, spec.size),
        "decimation": lambda x: Decimation(spec.size).coarsen(x).sign(),
    }
    around = {"buffer": spec.buffer, "reach": spec.reach, "seed": spec.seed}
    told = {
        name: information_kept(lambda x, to=to: signs(to(x)), spec.size, learn, held, **around)  # type: ignore[misc]
        for name, to in coarsen.items()
    }
    gain = ratio(told["learned"], told["majority"])
    figures: dict[str, Any] = {}
    for name, found in told.items():
        figures[f"information_{name}"] = float(found.information.value)
        figures[f"information_{name}_error"] = float(found.information.error)
    figures |= {"ratio_to_majority": float(gain.value), "ratio_to_majority_error": float(gain.error)}
    figures["filter"] = [round(weight, 4) for weight in rule.filter.flatten().tolist()]
    coarse = {name: to(held[:SHOWN]) for name, to in coarsen.items()}
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
    rule = BlockEncoder(spec.size, dim=spec.dim)
    load_weights(rule, read_tensors(folder / "rule.safetensors")[0], source=str(folder))
    return rule


def information_kept(
    rule: Rule,
    size: int,
    learn: Float[Tensor, "number 1 *sites"],
    held: Float[Tensor, "others 1 *sites"],
    *,
    buffer: int,
    reach: int,
    seed: int,
) -> Told:
    """The bound for one rule, in nats; every rule is judged by a network that begins with the same weights.

    A field held out stands there with all its mirror images, so that the corner by which a tie is decided tips no
    balance.

    Args:
        rule: Which.
        size: Sites of a block along each axis.
        learn: Fields that the network learns from.
        held: Fields held out.
        buffer, reach: Which sites are the surroundings.
        seed: Of the network.
    """
    axes = range(-1, -held.ndim + 1, -1)
    flips = [each for number in range(len(axes) + 1) for each in itertools.combinations(axes, number)]
    mirrored = torch.cat([held.flip(each) for each in flips], 1).flatten(0, 1)[:, None]  # images stand together
    taught, shown = ((rule(x), surroundings(x, size, buffer=buffer, reach=reach)) for x in (learn, mirrored))
    states, around = (part.unflatten(0, (len(held), len(flips))).flatten(1, 2) for part in shown)
    epochs = EPOCHS * max(1, size // 2) ** len(axes)
    generator = torch.Generator().manual_seed(seed)
    return held_out_information(taught, (states, around), epochs=epochs, generator=generator)


def ratio(a: Told, b: Told) -> Estimate:
    """What a keeps over what b keeps, on the same fields."""
    columns = a.samples.shape[1]
    both = torch.cat([a.samples, b.samples], 1)
    return jackknife(both, lambda m: bound_of_means(m[:, :columns]) / bound_of_means(m[:, columns:]))


def signs(coarse: Tensor) -> Tensor:
    """Probabilities of -1 and +1 of coarse spins that are what they are.

    Example:
        >>> signs(torch.tensor([[[-1.0, 1.0]]])).tolist()
        [[[1.0, 0.0], [0.0, 1.0]]]
    """
    return functional.one_hot((coarse.flatten(1) > 0).long(), 2).float()


def assigned(encoder: BlockEncoder, x: Tensor) -> Tensor:
    """The same of an encoder's states."""
    return functional.one_hot(encoder.assign(x).flatten(1), encoder.states).float()


def _majority(x: Tensor, size: int) -> Tensor:
    """As ``Majority``, of any real fields."""
    total = BlockSum(size).coarsen(x)
    return torch.where(total == 0, Decimation(size).coarsen(x), total).sign()


def _require_torus(fields: Fields) -> None:
    lattice = fields.lattice
    if lattice.boundary != "periodic":
        raise RecipeError(
            "blocks are judged by what is around them, on a torus; set data.boundary = 'periodic' if the fields are, "
            f"got {lattice.boundary!r}"
        )
    if lattice.channels > 1:
        raise RecipeError(
            f"a block gives one spin, so fields have one channel (data.channels = 1), got {lattice.channels}"
        )
