r"""What block-spin rules keep of their surroundings: majority, decimation, block sum and a learned encoder.

Critical Ising spins. H is the coarse value of a block, E the sites around it at a distance. Exact values: tori of 16
and 20 spins, every state counted, and for 2 x 2 blocks every odd rule tried. On 16 x 16: a bound from below by a
classifier of H given E, the same network with the same first weights, the same fields to learn from and the same fields
held out for every rule. A field stands there with its three mirror images, so that the corner by which a tie is decided
tips no balance. Errors are jackknives over fields held out; those of ratios are of both rules on the same fields.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from renorm.bench.result import Result
from renorm.coarse.block_spin import Decimation, Majority
from renorm.coarse.encoder import BlockEncoder, fit_encoder
from renorm.coarse.surroundings import block_values
from renorm.laws.ising import Ising
from renorm.laws.simulate import simulate
from renorm.measure.information import (
    Told,
    best_odd_rule,
    enumerated_joint,
    info_nce,
    mutual_information,
)
from renorm.measure.statistics import Estimate
from renorm.recipes.blocks_run import Rule, assigned, information_kept, ratio, signs

__all__ = ["run"]

BETA = math.log(1 + math.sqrt(2)) / 2
EDGE = 16
AROUND = {"buffer": 1, "reach": 2}
LEARN, HELD = 6144, 4096
"""Fields."""

SMALL = (((4, 4), 0), ((4, 5), 1))
"""Tori whose states are counted, and the ring left out around the block at their corner; all other sites are E."""

STEPS = 1500
"""Of learning a rule."""

PAIRS, PLACES = 256, 32
"""Of InfoNCE: fields of a batch, and places of the lattice that it is averaged over."""


def run(seed: int) -> Result:
    """Blocks of 2 x 2 and of 4 x 4 sites, by every rule."""
    generator = torch.Generator().manual_seed(seed)
    learn = simulate(Ising((EDGE, EDGE), BETA), LEARN, generator=generator)
    held = simulate(Ising((EDGE, EDGE), BETA), HELD, generator=generator, chains=HELD)  # independent
    figures: dict[str, float] = {}
    table: list[dict[str, Any]] = []
    for size in (2, 4):
        rules, filters = _rules(size, learn, generator)
        told = {name: information_kept(rule, size, learn, held, **AROUND, seed=seed) for name, rule in rules.items()}
        end = "" if size == 2 else f"_block{size}"
        gain = ratio(told["learned"], told["majority"])
        figures |= {
            f"mutual_information_ratio{end}": float(gain.value),
            f"mutual_information_ratio{end}_error": float(gain.error),
        }
        for name, found in told.items():
            figures |= _named(f"information_{name}{end}", found.information)
            table.append(_row(f"{EDGE} x {EDGE}", size, name, found, told["majority"]))
        if size == 2:
            nce = {
                name: _contrastive(rules[name], size, held, told[name], generator) for name in ("majority", "learned")
            }
            for name, bound in nce.items():
                figures |= _named(f"info_nce_{name}", bound)
            exact, rows = _exact(rules)
            figures |= exact
            table += rows
        for name, weights in filters.items():
            table.append({"lattice": "filter", "block": size, "rule": name, "weights": weights})
    return Result(figures, table, (seed,))


def _rules(size: int, learn: Tensor, generator: torch.Generator) -> tuple[dict[str, Rule], dict[str, list[float]]]:
    """Fixed rules, learned ones, and the filters of these."""
    encoder = BlockEncoder(size, generator=generator)
    fit_encoder(encoder, learn, **AROUND, steps=STEPS, generator=generator)
    bent = BlockEncoder(size, width=16, layers=1, generator=generator)
    fit_encoder(bent, learn, **AROUND, steps=STEPS, generator=generator)
    rules: dict[str, Rule] = {
        "majority": lambda x: signs(Majority(size).coarsen(x)),
        "majority_coin": lambda x: _coin(block_values(x, size).sum(-1)),
        "decimation": lambda x: signs(Decimation(size).coarsen(x)),
        "learned": lambda x: assigned(encoder, x),
        "learned_network": lambda x: assigned(bent, x),
        "block_sum": lambda x: functional.one_hot(((block_values(x, size).sum(-1) + size**2) / 2).long()).float(),
    }
    if size == 2:
        four = BlockEncoder(size, states=4, width=16, layers=1, thresholds=True, generator=generator)
        fit_encoder(four, learn, **AROUND, steps=STEPS, generator=generator)
        rules["learned_four_states"] = lambda x: assigned(four, x)
        rules["whole_block"] = lambda x: functional.one_hot(_pattern(block_values(x, size)), 16).float()
    return rules, {"learned": [round(w, 4) for w in encoder.filter.flatten().tolist()]}


def _exact(rules: dict[str, Rule]) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Every rule on 2 x 2 blocks of small tori, and the best of all odd ones."""
    figures: dict[str, float] = {}
    table: list[dict[str, Any]] = []
    for shape, buffer in SMALL:
        law, where = Ising(shape, BETA).enumerate(), f"{shape[0]} x {shape[1]}"
        far = _far(shape, buffer)
        joint = enumerated_joint(law, lambda s: _pattern(s[:, 0, :2, :2].flatten(1)), lambda s: s[:, 0, far])  # noqa: B023
        patterns = 2.0 * (torch.arange(16)[:, None] >> torch.arange(4) & 1) - 1
        blocks = patterns.reshape(16, 1, 2, 2)
        kept = {name: mutual_information(rule(blocks)[:, 0].double().T @ joint) for name, rule in rules.items()}
        best = best_odd_rule(joint)
        kept["best_odd"] = best.information
        end = where.replace(" ", "")
        figures |= {f"exact_{name}_{end}": value for name, value in kept.items()}
        figures[f"exact_ratio_{end}"] = kept["learned"] / kept["majority"]
        table += [
            {
                "lattice": where,
                "block": 2,
                "rule": name,
                "information": value,
                "error": 0.0,
                "over_majority": value / kept["majority"],
                "of_best": value / best.information,
            }
            for name, value in kept.items()
        ]
    return figures, table


def _far(shape: tuple[int, int], buffer: int) -> Tensor:
    """Sites further than ``buffer`` from the block at the corner of a torus, bool (rows, columns)."""
    apart = []
    for sites in shape:
        place = torch.arange(sites)
        apart.append(torch.minimum((place - 1).clamp(min=0), (sites - place) % sites))
    return torch.maximum(apart[0][:, None], apart[1][None, :]) > buffer


def _contrastive(rule: Rule, size: int, held: Tensor, told: Told, generator: torch.Generator) -> Estimate:
    """InfoNCE with the classifier's log probability as the critic: pairs at one place, mixed over fields."""
    state = rule(held).argmax(-1)
    rows = torch.randperm(len(held), generator=generator).reshape(-1, PAIRS)
    log_q = told.log_q[:, : state.shape[1]]  # of the fields as they are
    found = []
    for place in range(0, state.shape[1], max(1, state.shape[1] // PLACES)):
        scores = [log_q[row, place][:, state[row, place]].T for row in rows]
        found.append(info_nce(torch.stack(scores)))
    value, error = (torch.stack(part).mean() for part in zip(*found, strict=True))
    return Estimate(value, error)  # as if all places of a field said the same: at most too large


def _coin(total: Tensor) -> Tensor:
    up = (total.sign() + 1) / 2
    return torch.stack([1 - up, up], -1)


def _pattern(spins: Tensor) -> Tensor:
    """A number for each pattern of a block's spins: site i is bit i."""
    return ((spins > 0).long() << torch.arange(spins.shape[-1])).sum(-1)


def _row(lattice: str, size: int, name: str, told: Told, majority: Told) -> dict[str, Any]:
    share = told.samples.mean(0)[:-1]
    entropy = -float(torch.xlogy(share, share).sum())
    over = ratio(told, majority)
    value = float(told.information.value)
    return {
        "lattice": lattice,
        "block": size,
        "rule": name,
        "information": value,
        "error": float(told.information.error),
        "entropy": entropy,
        "per_bit": value * math.log(2) / entropy,
        "over_majority": float(over.value),
        "over_majority_error": float(over.error),
    }


def _named(name: str, estimate: Estimate) -> dict[str, float]:
    return {name: float(estimate.value), f"{name}_error": float(estimate.error)}
