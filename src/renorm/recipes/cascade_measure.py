"""What a cascade is worth: free energy and observables beside a law's, likelihood and statistics beside test fields.

measures.json: figures, notes, spectrum, and a list of observables, each with its error and what it should be.
"""

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from renorm.cascade.cascade import Action, Cascade, Weighted
from renorm.cascade.couplings import rg_flow
from renorm.cascade.evidence import evidence_of
from renorm.cascade.interactions import EVEN, FIELD
from renorm.cascade.latents import encoded
from renorm.cascade.pictures import rendered
from renorm.data import load as load_data
from renorm.data.fields import Fields
from renorm.errors import DataError
from renorm.laws.build import Law, Molecule, make_law
from renorm.laws.lognormal import Lognormal
from renorm.laws.muller_brown import MullerBrown
from renorm.model import Grade
from renorm.recipes.cascade_fit import action_of
from renorm.recipes.cascade_run import prepared
from renorm.recipes.folder import write_arrays, write_json
from renorm.recipes.judge import REFERENCE, check_enough, check_error_bars, judge
from renorm.recipes.molecule_measure import NOTE, UNWEIGHTED, bonds_of, molecule_observables, shapes, usable
from renorm.recipes.observables import Observable, exact_answers, field_statistics, observables
from renorm.recipes.recorded import check_recorded
from renorm.recipes.spec import CascadeRecipe

__all__ = ["measure"]

FIELDS = 2000  # drawn at each level for its couplings
ROWS = 8  # generated fields shown at every level
AVERAGED = 64  # fields over which it is averaged what a level sees and moves
ONE_SIDED = 0.05  # share of draws on the rarer side of a two-fold symmetry
SIGMAS = 5.0  # by how much free energies from both ends may differ


def measure(
    recipe: CascadeRecipe, folder: Path, model: Cascade, *, samples: int | None, seed: int | None
) -> dict[str, Any]:
    """Weigh and judge draws; write ``measures.json`` and the pictures' arrays."""
    num = recipe.measure.samples if samples is None else samples
    generator = torch.Generator().manual_seed(recipe.measure.seed if seed is None else seed)
    test = load_data(recipe.data, "test")
    check_enough(recipe.measure, num, test)
    check_recorded(folder, recipe.measure)
    reference = prepared(recipe, test, recipe.measure.seed)[:REFERENCE]
    exact = model.grade is Grade.EXACT  # an energy is no density: nothing can be weighed by it
    action = action_of(recipe.data.law, model.lattice.shape) if exact else None
    if action is not None:
        check_error_bars(num, len(reference))
    begun = time.perf_counter()
    x, log_prob = model.draw_many(num, generator=generator)
    figures: dict[str, Any] = {"samples": num, "seconds_per_sample": (time.perf_counter() - begun) / num}
    notes: dict[str, Any] = {}
    listed: list[Observable] = []
    if action is not None and all(bool(action(part).isinf().all()) for part in x.split(model.together)):
        action = None
        notes["collapsed"] = (
            "every draw has infinite energy (broken bonds), so none weighs anything and there is no log Z; train longer"
        )
    if action is not None:
        found, notes, listed = _weighed(recipe, folder, model, action, (x, log_prob), reference)
        figures |= found
    if exact:
        figures |= _likelihood(recipe, folder, model, reference, test, figures.get("log_z_exact"))
    else:
        why = "a diffusion, without a density" if model.grade is Grade.NONE else "energies, known up to a constant"
        notes["likelihood"] = f"the conditionals are {why}: no nats are given"
    bonds, located = bonds_of(recipe, model.lattice), _located(recipe, model)
    # Training positions of a file stand anywhere, so they are no floor.
    judged = judge(x, reference, test, recipe.measure, recipe.data, training=bonds is None)
    if bonds is not None:
        seen = shapes(x, reference, located, bonds, _refined(model, reference, generator))
        figures, notes = figures | seen.figures, notes | {"shapes": NOTE}
        write_arrays(folder / "samples" / "shapes.npz", **seen.arrays)
        listed = listed or molecule_observables(x, reference, located, bonds)
    elif action is None:
        listed = field_statistics(x, reference, test.lattice, recipe.data.law)
    for one in listed:
        figures |= {one.name: one.value, f"{one.name}_error": one.error}
    notes |= _one_sided(recipe, x)
    measured = {
        "figures": {**figures, **judged.figures},
        "notes": {**notes, **judged.notes},
        "spectrum": judged.spectrum,
        "observables": [one.mapping() for one in listed],
    }
    write_json(folder / "measures.json", measured)
    shown = {"x": x[:256].float(), "data": reference[:256], "value_range": torch.tensor(test.value_range)}
    if bonds is not None:
        shown["bonds"] = torch.tensor(bonds, dtype=torch.int64).reshape(-1, 2)
    write_arrays(folder / "samples" / "samples.npz", **shown)
    judged.write(folder)
    _write_strips(folder, model, reference[:1], generator)
    _write_encoded(folder, model, reference)
    if action is not None:
        _write_couplings(folder, model, generator)
    return measured


def _weighed(
    recipe: CascadeRecipe,
    folder: Path,
    model: Cascade,
    action: Action,
    drawn: tuple[Tensor, Tensor],
    target: Tensor,
) -> tuple[dict[str, Any], dict[str, Any], list[Observable]]:
    """Free energy from both ends, effective sample size, acceptance, and observables of the law by reweighting."""
    x, log_prob = drawn
    found = evidence_of(model, action, Weighted(x, log_prob, model.log_weight(action, x, log_prob)), target)
    ours, theirs = found.drawn.log_weight, found.target_log_weight
    alone, upper = found.one_sided, found.upper
    assert theirs is not None
    assert upper is not None
    figures: dict[str, Any] = {"log_z": float(alone.value), "log_z_error": float(alone.error)}
    law = _law(recipe, model)
    answers = exact_answers(law) if law is not None else {}
    if "log_z" in answers:
        figures["log_z_exact"] = answers["log_z"]
    both = {"log_z_bar": found.log_z, "log_z_lower": found.lower, "log_z_upper": upper, "acceptance": found.acceptance}
    for name, estimate in both.items():
        if math.isfinite(float(estimate.value)):  # a lower bound is not, where a draw weighs nothing
            figures |= {name: float(estimate.value), f"{name}_error": float(estimate.error)}
    figures["ess"] = found.ess
    if bool((lost := ours == -torch.inf).any()):
        figures["share_of_no_weight"] = float(lost.double().mean())
    notes: dict[str, Any] = {"target": f"{len(target)} simulated fields of the law, for the upper bound and beside it"}
    if found.collapsed:
        notes["collapsed"] = (
            f"the effective sample size is {found.ess:.2g}, or {found.ess * len(ours):.2g} of {len(ours)} draws: the "
            "model misses the law; neither log Z nor reweighted observables can be trusted; train longer, or take a "
            "smaller lattice"
        )
    gap = abs(float(alone.value - found.log_z.value))
    if gap > SIGMAS * math.hypot(float(alone.error), float(found.log_z.error)) + 1e-3:
        notes["both_ends"] = (
            f"log Z from the model's draws alone lies {gap:.3g} nats from that of both ends: part of the law is missed"
        )
    bonds, located = bonds_of(recipe, model.lattice), _located(recipe, model)
    if bonds is not None or located is not None:
        weights = ours if usable(ours) else None
        if weights is None:
            notes["observables"] = UNWEIGHTED
        listed = molecule_observables(x, target, located, bonds or [], weights)
    else:
        listed = observables(x, target, recipe.data.law, answers, ours)
    write_arrays(folder / "samples" / "weights.npz", model=ours, target=theirs)
    return figures, notes, listed


def _likelihood(
    recipe: CascadeRecipe, folder: Path, model: Cascade, reference: Tensor, test: Fields, log_z_exact: float | None
) -> dict[str, Any]:
    """Nats of test fields, level by level."""
    with torch.no_grad():
        each = torch.cat([model.log_prob(part, per_level=True) for part in reference.split(model.together)]).double()
    numbers = model.lattice.sites * model.lattice.channels
    nats = -each.sum(1)
    figures: dict[str, Any] = {"nats_per_site": float(nats.mean()) / numbers}
    if len(nats) > 1:
        figures["nats_per_site_error"] = float(nats.std()) / len(nats) ** 0.5 / numbers
    if test.values.dtype == torch.uint8:  # a density in units of the bins of bytes
        low, high = test.value_range
        figures["bits_per_dim"] = (float(nats.mean()) / numbers - math.log((high - low) / 255)) / math.log(2)
    law = _law(recipe, model)
    if isinstance(law, Lognormal):
        figures["nats_per_site_exact"] = -float(law.log_prob(reference).double().mean()) / numbers
    elif law is not None and log_z_exact is not None:
        figures["nats_per_site_exact"] = (float(law(reference).double().mean()) + log_z_exact) / numbers
    sizes = [level.modes for level in model.levels]
    details = [a - b for a, b in zip(sizes, [*sizes[1:], 0], strict=True)]
    per_number = -each.flip(1) / torch.tensor(details)  # finest first
    spread = per_number.std(0) if len(each) > 1 else torch.zeros(len(details))
    write_arrays(
        folder / "samples" / "levels.npz",
        nats=per_number.mean(0),
        error=spread / len(each) ** 0.5,
        numbers=torch.tensor(details),
    )
    return figures


def _law(recipe: CascadeRecipe, model: Cascade) -> Law | None:
    """Of the data, where they have one."""
    return None if recipe.data.law is None else make_law(recipe.data.law, model.lattice.shape)


def _refined(model: Cascade, x: Tensor, generator: torch.Generator) -> Tensor:
    """A draw given the coarsest field of each field: what the conditionals alone are worth."""
    last = len(model.levels) - 1
    parts = x.split(model.together)
    return torch.cat([model.refine(model.coarsen(y, last), level=last, generator=generator) for y in parts])


def _located(recipe: CascadeRecipe, model: Cascade) -> Molecule | MullerBrown | None:
    """The law, where it is one of positions."""
    law = _law(recipe, model)
    return law if isinstance(law, Molecule | MullerBrown) else None


def _one_sided(recipe: CascadeRecipe, x: Tensor) -> Mapping[str, Any]:
    """Say it if a law that is symmetric under a change of sign is drawn on one side alone."""
    law = recipe.data.law
    if law is None or law.kind not in ("ising", "phi4", "free-field", "double-well"):
        return {}
    m = x.flatten(1).mean(1)
    up, down = float((m > 0).double().mean()), float((m < 0).double().mean())
    if min(up, down) >= ONE_SIDED * (up + down) or up + down == 0:
        return {}
    return {
        "mode_lost": (
            f"{100 * up:.3g} % of the draws have a positive mean and {100 * down:.3g} % a negative one, though the law "
            "is symmetric: one of its two modes is lost; set model.symmetric = true"
        )
    }


def _write_couplings(folder: Path, model: Cascade, generator: torch.Generator) -> None:
    """The effective couplings of each level that is a square lattice; nothing where there is none."""
    try:
        spins = bool((model.sample(2, generator=generator).abs() == 1).all())
        flow = rg_flow(model, FIELDS, generator=generator, interactions=EVEN[:4] if spins else FIELD)
    except DataError:
        return
    arrays: dict[str, Tensor] = {"levels": torch.tensor([each.level for each in flow])}
    for place, name in enumerate(flow[0].names):
        arrays[name] = torch.stack([each.couplings.value[place] for each in flow])
        arrays[f"{name}_error"] = torch.stack([each.couplings.error[place] for each in flow])
    write_arrays(folder / "samples" / "couplings.npz", **arrays)


def _write_strips(folder: Path, model: Cascade, x: Tensor, generator: torch.Generator) -> None:
    """Fields on their way up, each from one draw of the coarsest field, and one real field on its way down."""
    last = len(model.levels) - 1
    flow = [rendered(model, model.coarsen(x, level), level)[0] for level in range(last + 1)]
    y = model.sample(ROWS, generator=generator, level=last)
    generated = [rendered(model, y, last)]
    for level in range(last, 0, -1):
        y = model.refine(y, level=level, to=level - 1, generator=generator)
        generated.append(rendered(model, y, level - 1))
    write_arrays(
        folder / "samples" / "strip.npz", generated=torch.stack(generated).float(), flow=torch.stack(flow).float()
    )


def _write_encoded(folder: Path, model: Cascade, x: Tensor) -> None:
    """What each level sees, moves and encodes, where a lattice has two axes and gradients pass."""
    if model.lattice.dim == 2 and len(x) > 1 and (found := encoded(model, x[:AVERAGED].float())) is not None:
        write_arrays(folder / "samples" / "encoded.npz", **found)
