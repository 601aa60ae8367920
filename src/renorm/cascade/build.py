"""From a cascade's spec to its parts: the one place where names become classes."""

from collections.abc import Callable, Mapping
from functools import partial
from itertools import takewhile
from typing import NamedTuple

import torch

from renorm.cascade.conditional import CascadeConditional
from renorm.cascade.conditionals.backmap import ChainBackmap
from renorm.cascade.conditionals.coupling import CouplingFlow
from renorm.cascade.conditionals.dense_gaussian import DenseGaussian
from renorm.cascade.conditionals.heads import Head, SpinHead, SplineHead
from renorm.cascade.conditionals.heat_bath import HeatBath
from renorm.cascade.conditionals.linear_gaussian import GaussianTop, LinearGaussian
from renorm.cascade.conditionals.local import LocalConditional, SiteTop
from renorm.cascade.conditionals.mixture import MixtureHead
from renorm.cascade.conditionals.mode_gaussian import ModeGaussian, shell_waves, waves
from renorm.cascade.conditionals.relative_details import RelativeDetails
from renorm.cascade.conditionals.site_laws import IsingSite, Phi4Site, SiteLaw
from renorm.cascade.conditionals.standardised import Standardised
from renorm.cascade.energy.gibbs import GibbsConditional, local_terms
from renorm.cascade.spec import (
    BackmapSpec,
    CascadeSpec,
    DiffusionPartSpec,
    EnergySpec,
    FlowSpec,
    GaussianSpec,
    LocalSpec,
)
from renorm.coarse.base import CoarseGraining
from renorm.coarse.beads import Beads, bead_steps
from renorm.coarse.checkerboard import Checkerboard, RotatedCheckerboard
from renorm.coarse.fourier import FourierShell
from renorm.coarse.learned import CayleyBlock
from renorm.coarse.mera import Disentangled, MeraStep
from renorm.coarse.wavelet import Wavelet
from renorm.errors import RecipeError
from renorm.graph import Graph
from renorm.lattice import Lattice
from renorm.laws.spec import FreeFieldSpec, IsingSpec, LawSpec, Phi4Spec
from renorm.nn.block_flow import BlockFlow

__all__ = ["Maker", "Parts", "make_parts", "make_steps", "site_law"]

ORDERS = {"haar": 1, "db2": 2, "db4": 4}


Maker = Callable[[CascadeSpec, CoarseGraining, Lattice], CascadeConditional]
"""Makes the conditional of a step on a lattice: for a kind whose class lives in another room."""


class Parts(NamedTuple):
    """What a cascade is made of: steps and conditionals finest first, and the law of the coarsest field."""

    steps: list[CoarseGraining]
    conditionals: list[CascadeConditional]
    top: CascadeConditional


def make_parts(
    spec: CascadeSpec,
    lattice: Lattice,
    law: LawSpec | None = None,
    *,
    seed: int = 0,
    makers: Mapping[str, Maker] | None = None,
) -> Parts:
    """The parts that a spec names, for fields on a lattice.

    Args:
        spec: The cascade.
        lattice: Of the finest fields.
        law: Of the data, where a heat bath needs it.
        seed: Of the networks' first weights.
        makers: Of conditionals that this room does not know, by their kind (``renorm.recipes`` knows ``"diffusion"``).

    Raises:
        RecipeError: If the lattice cannot be coarse-grained so, the law has no heat bath, or a maker is missing.

    Example:
        >>> parts = make_parts(CascadeSpec(coarse="haar"), Lattice((8, 8), boundary="periodic"))
        >>> len(parts.steps), len(parts.conditionals)
        (3, 3)
    """
    if isinstance(law, IsingSpec) and not spec.spins:
        raise RecipeError(
            "spins have no density, so their conditional must be of kind 'local' with head = 'spin', got "
            f"'{spec.conditional.kind}'"
        )
    if spec.spins and law is not None and not isinstance(law, IsingSpec):
        raise RecipeError(f"head = 'spin' is for spins, +1 and -1, got the law '{law.kind}'; take 'spline'")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        steps = make_steps(spec, lattice)
        conditionals: list[CascadeConditional] = []
        shared: dict[tuple[int, int], CascadeConditional] = {}
        at = lattice
        for index, step in enumerate(steps):
            fine, details = at, step.detail_shape(at)
            at = step.coarse_lattice(at)
            if index == 0 and spec.heat_bath:
                conditionals.append(HeatBath(site_law(law)))
                continue
            kind = (at.channels, details[0])
            inner = shared.get(kind) if spec.tied else None
            if inner is None:
                inner = shared[kind] = _conditional(spec, step, fine, details, makers or {})
            conditionals.append(_wrapped(spec, inner, at, details[0], index + 1))
        return Parts(steps, conditionals, _top(spec, at))


def make_steps(spec: CascadeSpec, lattice: Lattice) -> list[CoarseGraining]:
    """As many steps as the spec asks for, or as the lattice allows.

    Raises:
        RecipeError: If there is not one, or not so many.
    """
    if spec.coarse == "beads":
        return list(_beads(spec, lattice))
    steps: list[CoarseGraining] = []
    at = lattice
    while spec.levels is None or len(steps) < spec.levels:
        alike = [each for each in steps if isinstance(each, Disentangled | MeraStep)] if spec.tied else []
        bends = alike and not (spec.coarse == "disentangled" and len(steps) % 2)
        step = alike[0] if bends else _step(spec, len(steps), lattice)
        try:
            at = step.coarse_lattice(at)
        except RecipeError as error:
            if spec.levels is None and steps:
                break
            asked = f"levels = {spec.levels} is too many for {lattice.shape}: " if steps else ""
            raise RecipeError(f"{asked}{error}") from None
        steps.append(step)
    return steps


def site_law(law: LawSpec | None) -> SiteLaw:
    """The law of one site given its neighbours.

    Raises:
        RecipeError: If the law has none: only spins, phi^4 and free fields couple nearest neighbours alone.
    """
    if isinstance(law, IsingSpec):
        return IsingSite(law.beta)
    if isinstance(law, Phi4Spec):
        return Phi4Site(law.kappa, law.lam, law.c2)
    if isinstance(law, FreeFieldSpec):  # on two axes, as all checkerboards are
        return Phi4Site(0.5, 0.0, 2 + law.mass_sq / 2)
    raise RecipeError(
        "a heat bath is that of a law of nearest neighbours, data of the law 'ising', 'phi4' or 'free-field', got "
        f"{'data without a law' if law is None else repr(law.kind)}; set model.heat_bath = false"
    )


def _step(spec: CascadeSpec, index: int, lattice: Lattice) -> CoarseGraining:
    if spec.coarse in ("checkerboard", "disentangled") and index % 2:
        return RotatedCheckerboard()
    if spec.coarse == "checkerboard":
        return Checkerboard()
    if spec.coarse in ("disentangled", "mera"):
        bend = spec.bend
        size = {"layers": bend.layers, "kind": bend.kind, "width": bend.width, "hidden": bend.hidden}
        blocks = partial(BlockFlow, 4, **size, odd=spec.symmetric)  # type: ignore[arg-type]
        return MeraStep("haar", blocks) if spec.coarse == "mera" else Disentangled(Checkerboard(), blocks)
    if spec.coarse == "learned":
        return CayleyBlock()
    if spec.coarse == "fourier":
        return FourierShell(lattice.dim, lattice.boundary)
    return Wavelet(order=ORDERS[spec.coarse], dim=lattice.dim)


def _beads(spec: CascadeSpec, lattice: Lattice) -> list[Beads]:
    """Pairs of bonded atoms, pairs of these, and so on; of a chain that is drawn in order, while all are pairs."""
    if lattice.dim != 1:
        raise RecipeError(f"beads are made of atoms along one axis, (batch, dim, atoms), got sites {lattice.shape}")
    atoms, known = lattice.sites, spec.beads
    plain = Graph.ring if lattice.boundary == "periodic" and atoms > 1 else Graph.linear
    try:
        graph = plain(atoms) if known.bonds is None else Graph(atoms, known.bonds)
        graph = Graph(atoms, graph.bonds, known.masses)
    except ValueError as error:
        raise RecipeError(f"model.beads: {error}") from None
    steps = bead_steps(graph)
    if isinstance(spec.conditional, BackmapSpec):
        if lattice.boundary == "periodic" or lattice.channels != 3:
            raise RecipeError(
                "conditionals of kind 'backmap' are of open chains in space, positions of 3 components (set "
                f"data.channels = 3), got {lattice.channels} on a lattice that is {lattice.boundary}"
            )
        steps = list(takewhile(lambda step: len(step.parts) >= 3 and {*map(len, step.parts)} == {2}, steps))
    most = spec.levels or len(steps)
    if not steps and isinstance(spec.conditional, BackmapSpec):
        raise RecipeError(f"conditionals of kind 'backmap' need 6 atoms or more, an even number (pairs), got {atoms}")
    if not steps or most > len(steps):
        asked = "one level" if spec.levels is None else f"levels = {spec.levels}"
        raise RecipeError(f"{asked} is more than {atoms} atoms have: at most {len(steps)}")
    return steps[:most]


def _head(spec: LocalSpec) -> Head:
    if spec.head == "spin":
        return SpinHead()
    if spec.head == "mixture":
        return MixtureHead(spec.bins)
    return SplineHead(spec.bins, spec.bound)


def _conditional(
    spec: CascadeSpec, step: CoarseGraining, fine: Lattice, detail: tuple[int, ...], makers: Mapping[str, Maker]
) -> CascadeConditional:
    """The law of a detail of this shape given the coarse field that a step leaves of a fine one."""
    law, coarse = spec.conditional, step.coarse_lattice(fine)
    channels = coarse.channels
    if isinstance(law, LocalSpec):
        channels = 2 if spec.positive else channels
        size = {"period": law.period, "radius": law.radius, "width": law.width, "layers": law.layers}
        return LocalConditional(coarse.dim, channels, detail[0], _head(law), symmetric=spec.symmetric, **size)
    if isinstance(law, FlowSpec):
        return _flow(spec, law, coarse, channels, detail[0])
    if isinstance(law, BackmapSpec):
        size = {"width": law.width, "layers": law.layers, "bins": law.bins, "components": law.components}
        return ChainBackmap(coarse.sites, **size)
    if isinstance(law, GaussianSpec):
        if spec.coarse == "beads":
            return DenseGaussian.unfitted(coarse.sites, detail[1], channels)
        if spec.coarse == "fourier":
            return ModeGaussian.unfitted(channels, shell_waves(fine))
        _require_periodic(coarse)
        return LinearGaussian.unfitted(channels, detail[0], coarse.shape)
    if isinstance(law, DiffusionPartSpec):
        if law.kind not in makers:
            raise RecipeError(
                f"a conditional of kind '{law.kind}' is made elsewhere, so a cascade with one needs its maker; give "
                f"makers = renorm.recipes.diffusion_conditional.MAKERS, got {sorted(makers)}"
            )
        return makers[law.kind](spec, step, fine)
    return _energy(law, step, fine)


def _top(spec: CascadeSpec, coarse: Lattice) -> CascadeConditional:
    law = spec.conditional
    if spec.coarse == "beads":
        return DenseGaussian.unfitted(0, coarse.sites, coarse.channels)
    if isinstance(law, GaussianSpec):
        if spec.coarse == "fourier":
            return ModeGaussian.unfitted(coarse.channels, waves(coarse), coarse)
        _require_periodic(coarse)
        return GaussianTop.unfitted(coarse.channels, coarse.shape)
    if isinstance(law, LocalSpec):
        head = _head(law)
    else:
        head = SplineHead(law.bins, law.bound) if isinstance(law, FlowSpec) else SplineHead()
    if coarse.sites * coarse.channels > 1 and isinstance(law, FlowSpec):
        top = _flow(spec, law, coarse, 0, coarse.channels, sites=coarse.shape)
    else:
        top = SiteTop(coarse.event_shape, head, symmetric=spec.symmetric)
    return top if spec.spins else Standardised(top, 0, coarse.channels, symmetric=spec.symmetric)


def _flow(
    spec: CascadeSpec, law: FlowSpec, at: Lattice, channels: int, details: int, sites: tuple[int, ...] | None = None
) -> CascadeConditional:
    return CouplingFlow(
        at.dim,
        channels,
        details,
        rounds=law.rounds,
        bins=law.bins,
        bound=law.bound,
        width=law.width,
        layers=law.layers,
        dilations=law.dilations,
        symmetric=spec.symmetric,
        boundary=at.boundary,
        places=law.places,
        sites=sites,
    )


def _wrapped(
    spec: CascadeSpec, law: CascadeConditional, coarse: Lattice, details: int, level: int
) -> CascadeConditional:
    """Networks see numbers of order one; what is solved in closed form, and spins, need no units."""
    if spec.spins or not isinstance(law, LocalConditional | CouplingFlow):
        return law
    channels = 2 if spec.positive else coarse.channels
    if spec.positive:
        if coarse.channels > 1:
            raise RecipeError(f"model.positive is for one density, fields of one channel, got {coarse.channels}")
        inner = Standardised(law, channels, details, symmetric=False)
        return RelativeDetails(inner, 2 ** (coarse.dim * level / 2), coarse.dim)
    return Standardised(law, channels, details, symmetric=spec.symmetric)


def _energy(law: EnergySpec, step: CoarseGraining, fine: Lattice) -> CascadeConditional:
    _require_periodic(fine)
    return GibbsConditional(step, fine, local_terms(step, fine, radius=law.radius, bumps=law.bumps), sweeps=law.sweeps)


def _require_periodic(lattice: Lattice) -> None:
    if lattice.boundary != "periodic":
        raise RecipeError(
            "linear Gaussians and local energies need a periodic lattice (their couplings wrap around); set "
            f"data.boundary = 'periodic' if the fields are, else take another conditional, got {lattice.boundary!r}"
        )
