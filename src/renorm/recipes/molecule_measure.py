"""What is measured on molecules and clusters: size, bonds, angles, distances and energies, beside the test split's."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import scipy.stats
import torch
from jaxtyping import Float
from torch import Tensor

from renorm.lattice import Lattice
from renorm.laws.build import Molecule
from renorm.laws.muller_brown import MullerBrown
from renorm.laws.rouse import GaussianChain
from renorm.laws.spec import CHAINS, CLUSTERS
from renorm.measure.one_point import bin_shares, total_variation
from renorm.measure.statistics import ess, jackknife
from renorm.recipes.observables import Observable
from renorm.recipes.spec import CascadeRecipe, ClustersRecipe, FieldRecipe

__all__ = ["NOTE", "UNWEIGHTED", "Shapes", "bonds_of", "exact_shapes", "molecule_observables", "shapes", "usable"]

BINS = 40
CLIP = 20.0  # nats above the highest energy of the test split, where all that lies beyond is put
MOST = 4000  # configurations whose pairs are counted
NOTE = f"total variation of histograms of {BINS} bins; energies are clipped {CLIP:g} nats above the test's highest"
ENOUGH = 50  # effective draws, below which weighted means are noise
UNWEIGHTED = f"of the draws as they are: of the weighted ones fewer than {ENOUGH} count"
Bonds = Sequence[tuple[int, int]]
Located = Molecule | MullerBrown


@dataclass(frozen=True)
class Shapes:
    """Histograms of samples and of test configurations, and how far apart they are.

    Attributes:
        figures: ``bond_tv``, ``angle_tv``, ``distance_tv`` (total variation, 0 to 1) and ``energy_w1`` (Wasserstein
            distance in nats), each with the figure of two halves of the test split, its floor.
        arrays: For the report: ``NAME_edges``, ``NAME_samples``, ``NAME_data`` and, where given, ``NAME_refined``.
    """

    figures: dict[str, float]
    arrays: dict[str, Tensor]


def bonds_of(recipe: FieldRecipe, lattice: Lattice) -> list[tuple[int, int]] | None:
    """Pairs of bonded atoms of what a recipe learns: none in a cluster; nothing at all where fields are no positions.

    Example:
        >>> from renorm.recipes.spec import load_recipe
        >>> bonds_of(load_recipe("rouse32"), Lattice((3,), channels=3))
        [(0, 1), (1, 2)]
    """
    law = recipe.data.law
    if isinstance(recipe, ClustersRecipe) or isinstance(law, CLUSTERS):
        return []
    beads = recipe.model.beads if isinstance(recipe, CascadeRecipe) and recipe.model.coarse == "beads" else None
    if beads is None and not isinstance(law, CHAINS):
        return None
    if beads is not None and beads.bonds is not None and law is None:
        return sorted({(min(bond), max(bond)) for bond in beads.bonds})
    atoms = lattice.shape[0]
    closed = [(atoms - 1, 0)] if lattice.boundary == "periodic" and atoms > 2 else []
    return [(i, i + 1) for i in range(atoms - 1)] + closed


def exact_shapes(law: Located) -> dict[str, float]:
    """What is known exactly, by the names of ``molecule_observables``.

    Example:
        >>> exact_shapes(GaussianChain(32))["rg_sq"]
        5.328125
    """
    if isinstance(law, MullerBrown):
        means = {name: law.mean(lambda x, k=k: x[:, 0, k]) for k, name in enumerate("xy")}  # type: ignore[misc]
        return {"energy": law.mean(law), **means}
    if not isinstance(law, GaussianChain):
        return {}
    known = {"rg_sq": law.rg_sq, "energy": law.dim * law.atoms / 2}
    if law.ring:
        return known | {"bond_sq": law.bond**2 * (1 - 1 / law.atoms)}
    return known | {"bond_sq": law.bond**2, "end_to_end_sq": law.bond**2 * (law.atoms - 1)}


def molecule_observables(
    x: Float[Tensor, "num dim atoms"],
    target: Float[Tensor, "others dim atoms"],
    law: Located | None,
    bonds: Bonds,
    log_weights: Float[Tensor, " num"] | None = None,
) -> list[Observable]:
    r"""Means over molecules, each with its error: squared radius of gyration, bond and end-to-end distance, energy.

    $$ R_g^2 = \frac1N\sum_i |x_i - \bar x|^2, \qquad b^2 = \frac1B\sum_{(i,j)} |x_i - x_j|^2, \qquad
       R_e^2 = |x_N - x_1|^2 $$

    in units of length squared, and U in nats where a law is given; of Müller and Brown's plane, the coordinates.

    Args:
        x: Samples.
        target: Test configurations.
        law: Whose exact answers are known, and whose energy.
        bonds: Pairs of atoms; an end-to-end distance has a chain alone, bonds (0, 1), (1, 2), ...
        log_weights: Of the samples; those of no weight may have any shape.
    """
    exact = {} if law is None else exact_shapes(law)
    kept = torch.ones(len(x), dtype=torch.bool) if log_weights is None else log_weights > -torch.inf
    weights = None if log_weights is None else log_weights[kept]
    found = []
    for name, ours in _numbers(x[kept], law, bonds).items():
        theirs = _numbers(target, law, bonds)[name]
        if not bool(ours.isfinite().all()):  # broken bonds of draws as they are
            continue
        mean, other = jackknife(ours, log_weights=weights), jackknife(theirs)
        pair = float(other.value), float(other.error)
        found.append(Observable(name, float(mean.value), float(mean.error), exact.get(name), *pair))
    return found


def usable(log_weights: Float[Tensor, " num"]) -> bool:
    """Whether enough draws count for weighted means."""
    return ess(log_weights) * len(log_weights) >= ENOUGH


def shapes(
    x: Float[Tensor, "num dim atoms"],
    reference: Float[Tensor, "others dim atoms"],
    law: Located | None,
    bonds: Bonds,
    refined: Float[Tensor, "others dim atoms"] | None = None,
) -> Shapes:
    """Bonds, angles, distances and energies of samples as they are, against test configurations.

    Args:
        x: Samples.
        reference: Test configurations.
        law: Whose energies are compared, if there is one.
        bonds: Pairs of atoms.
        refined: Draws given the coarsest beads of the test configurations; their figures begin with ``refined_``.
    """
    x, reference = x[:MOST], reference[:MOST]
    half = torch.arange(len(reference)) % 2 == 0
    figures: dict[str, float] = {}
    arrays: dict[str, Tensor] = {}
    for name in ("bond", "angle", "distance", "energy"):
        theirs = _values(name, reference, law, bonds)
        if theirs is None:
            continue
        low, high = float(theirs.min()), float(theirs.max())
        margin = max(0.0, 1e-3 * float(theirs.mean()) - (high - low) / 2)  # rigid bonds differ by rounding alone
        low, high = (low - 1, high + CLIP) if name == "energy" else (low - margin, high + margin)
        ends = (low, high, BINS)
        arrays[f"{name}_edges"] = torch.linspace(low, high, BINS + 1, dtype=torch.float64)
        arrays[f"{name}_data"] = bin_shares(theirs, *ends)
        for key, values in (("", x), ("refined", refined)):
            ours = None if values is None else _values(name, values[:MOST], law, bonds)
            if ours is not None:
                figures[f"{key}_{_figure(name)}".lstrip("_")] = _apart(name, ours, theirs, ends)
                arrays[f"{name}_{key or 'samples'}"] = bin_shares(ours, *ends)
        if len(reference) > 1:
            figures[f"{_figure(name)}_floor"] = _apart(name, theirs[half], theirs[~half], ends)
    return Shapes(figures, arrays)


def _figure(name: str) -> str:
    return "energy_w1" if name == "energy" else f"{name}_tv"


def _apart(name: str, ours: Tensor, theirs: Tensor, ends: tuple[float, float, int]) -> float:
    """Total variation of histograms; of energies the Wasserstein distance, clipped at the upper end."""
    if name != "energy":
        return total_variation(bin_shares(ours, *ends), bin_shares(theirs, *ends))
    clipped = (each.nan_to_num(nan=ends[1], posinf=ends[1]).clamp(max=ends[1]) for each in (ours, theirs))
    return float(scipy.stats.wasserstein_distance(*clipped))


def _numbers(x: Tensor, law: Located | None, bonds: Bonds) -> dict[str, Tensor]:
    """What is averaged, a number a molecule."""
    if isinstance(law, MullerBrown):
        return {"x": x[:, 0, 0].double(), "y": x[:, 0, 1].double(), "energy": law(x).double()}
    x = x.double()
    found = {"rg_sq": (x - x.mean(2, keepdim=True)).square().sum(1).mean(1)}
    if bonds:
        found["bond_sq"] = _along(x, bonds).square().mean(1)
    if list(bonds) == [(i, i + 1) for i in range(x.shape[2] - 1)]:
        found["end_to_end_sq"] = (x[..., -1] - x[..., 0]).square().sum(1)
    if isinstance(law, Molecule):
        found["energy"] = law(x).double()
    return found


def _values(name: str, x: Tensor, law: Located | None, bonds: Bonds) -> Tensor | None:
    """All bonds, angles or distances of each molecule, (batch, many), or its energy, the centre at 0."""
    if name == "energy":
        return None if law is None else law(x - x.mean(2, keepdim=True)).double()
    if name == "distance":
        i, j = torch.triu_indices(x.shape[2], x.shape[2], offset=1)
        return (x[..., i] - x[..., j]).double().norm(dim=1)
    if name == "bond":
        return _along(x.double(), bonds) if bonds else None
    around: dict[int, list[int]] = {}
    for a, b in bonds:
        around.setdefault(a, []).append(b)
        around.setdefault(b, []).append(a)
    corners = [(a, m, b) for m, near in around.items() for k, a in enumerate(near) for b in near[:k]]
    if not corners or x.shape[1] < 2:
        return None
    first, middle, last = (list(each) for each in zip(*corners, strict=True))
    u, v = (x[..., each].double() - x[..., middle].double() for each in (first, last))
    cosine = (u * v).sum(1) / (u.norm(dim=1) * v.norm(dim=1)).clamp(min=1e-12)
    return cosine.clamp(-1, 1).acos().nan_to_num(nan=math.pi)


def _along(x: Tensor, bonds: Bonds) -> Tensor:
    first, second = (list(each) for each in zip(*bonds, strict=True))
    return (x[..., first] - x[..., second]).norm(dim=1)
