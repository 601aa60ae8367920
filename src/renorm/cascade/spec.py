"""Cascades as typed values: how a field is coarse-grained, which law undoes it, how it learns; no torch."""

import math
from dataclasses import dataclass, field
from typing import Literal

from renorm.errors import RecipeError
from renorm.spec import require, require_literals

__all__ = [
    "LEARNED",
    "BackmapSpec",
    "BeadsSpec",
    "BendSpec",
    "CascadeFit",
    "CascadeSpec",
    "ConditionalSpec",
    "DiffusionPartSpec",
    "EnergySpec",
    "FlowSpec",
    "GaussianSpec",
    "LocalSpec",
    "require_transfer",
]

Coarse = Literal["haar", "db2", "db4", "fourier", "checkerboard", "learned", "mera", "disentangled", "beads"]
LEARNED = ("learned", "mera", "disentangled")
"""Steps with parameters of their own, so that all levels learn at once."""

Head = Literal["spline", "spin", "mixture"]


@dataclass(frozen=True)
class GaussianSpec:
    """Linear filters of the coarse field and coloured noise, solved from covariances: exact for Gaussian fields.

    On Fourier shells, modes of different wave vectors are independent, and there is no filter. Of beads, every atom has
    its own, alike for all components.
    """

    kind: Literal["gaussian"] = "gaussian"

    def __post_init__(self) -> None:
        require_literals(self)


@dataclass(frozen=True)
class LocalSpec:
    """Details drawn sublattice by sublattice, each site by a law that a small network of its surroundings says.

    Args:
        head: Law of one site: ``"spline"`` (a Gaussian bent by a spline), ``"spin"`` (+1 or -1), ``"mixture"`` (of
            Gaussians).
        period: Spacing of a sublattice; a larger one has more parts, and is more exact.
        radius: How far a site sees on each axis, in sites of the coarse lattice.
        width, layers: Of the networks.
        bins: Pieces of the spline, or Gaussians of the mixture.
        bound: The spline is the identity beyond +-bound.

    Raises:
        ValueError: If a value is out of range.
    """

    kind: Literal["local"] = "local"
    head: Head = "spline"
    period: int = 2
    radius: int = 2
    width: int = 32
    layers: int = 2
    bins: int = 8
    bound: float = 4.0

    def __post_init__(self) -> None:
        require_literals(self)
        require(self.period >= 1, "period must be >= 1", self.period)
        require(self.radius >= 1, "radius must be >= 1 (a site must see its neighbours)", self.radius)
        require(self.width >= 1, "width must be >= 1", self.width)
        require(self.layers >= 1, "layers must be >= 1", self.layers)
        require(self.bins >= 2, "bins must be >= 2 (one piece bends nothing)", self.bins)
        require(0 < self.bound < math.inf, "bound must be > 0 and finite", self.bound)


@dataclass(frozen=True)
class FlowSpec:
    """A coupling flow: all details at once, each round bending some of them by what it reads from the others.

    Args:
        rounds: How often every detail is bent.
        width, layers: Of the networks.
        dilations: Sites between what a network sees, for one round after the other, over and over.
        bins: Pieces of the splines.
        bound: The splines are the identity beyond +-bound.
        places: Whether the networks are told where they are: for data that are not the same everywhere.

    Raises:
        ValueError: If a value is out of range.
    """

    kind: Literal["flow"] = "flow"
    rounds: int = 2
    width: int = 24
    layers: int = 2
    dilations: tuple[int, ...] = (1,)
    bins: int = 8
    bound: float = 4.0
    places: bool = False

    def __post_init__(self) -> None:
        require_literals(self)
        require(self.rounds >= 1, "rounds must be >= 1 (each number must be moved)", self.rounds)
        near = len(self.dilations) >= 1 and all(step >= 1 for step in self.dilations)
        require(near, "dilations must name one or more, each >= 1 site", self.dilations)
        require(self.width >= 1, "width must be >= 1", self.width)
        require(self.layers >= 1, "layers must be >= 1", self.layers)
        require(self.bins >= 2, "bins must be >= 2 (one piece bends nothing)", self.bins)
        require(0 < self.bound < math.inf, "bound must be > 0 and finite", self.bound)


@dataclass(frozen=True)
class EnergySpec:
    """Local Gibbs energies, learned by score matching in closed form and drawn by Langevin moves; for wavelets.

    Their density is known up to the free energy of the coarse field, so ``log_prob`` is an energy.

    Args:
        radius: Of the quadratic couplings, in coarse sites.
        bumps: Of the potential of a site; 0: a Gaussian law.
        sweeps: Moves behind each draw; the step is tuned in the first half.

    Raises:
        ValueError: If a value is out of range.
    """

    kind: Literal["energy"] = "energy"
    radius: int = 1
    bumps: int = 8
    sweeps: int = 100

    def __post_init__(self) -> None:
        require_literals(self)
        require(self.radius >= 1, "radius must be >= 1 (neighbours must be coupled)", self.radius)
        require(self.bumps >= 0, "bumps must be >= 0", self.bumps)
        require(self.sweeps >= 2, "sweeps must be >= 2 (the step is tuned in the first half)", self.sweeps)


@dataclass(frozen=True)
class DiffusionPartSpec:
    """A reverse diffusion that is shown the coarse field; for wavelets. It draws, and has no density at all.

    Args:
        width: Channels of its U-Net at multiplier 1, an even number.
        multipliers: Channels of each level of the U-Net over ``width``, finest first; levels that a small lattice
            cannot be halved for are left out there.
        blocks: Residual blocks of a level.
        steps: Of the walk from noise to details.

    Raises:
        ValueError: If a value is out of range.
    """

    kind: Literal["diffusion"] = "diffusion"
    width: int = 32
    multipliers: tuple[int, ...] = (1, 2)
    blocks: int = 1
    steps: int = 20

    def __post_init__(self) -> None:
        require_literals(self)
        require(self.width >= 2 and self.width % 2 == 0, "width must be even (sines and cosines)", self.width)
        named = len(self.multipliers) >= 1 and all(each >= 1 for each in self.multipliers)
        require(named, "multipliers must name one or more, each >= 1", self.multipliers)
        require(self.blocks >= 1, "blocks must be >= 1", self.blocks)
        require(self.steps >= 1, "steps must be >= 1 (a walk needs at least one step)", self.steps)


@dataclass(frozen=True)
class BackmapSpec:
    """Both atoms of every pair along a chain, in a frame that the chain gives: it turns with the beads.

    Args:
        width, layers: Of the networks.
        bins: Pieces of the splines of an angle and a bond.
        components: Of the mixture of half lengths.

    Raises:
        ValueError: If a value is out of range.
    """

    kind: Literal["backmap"] = "backmap"
    width: int = 96
    layers: int = 2
    bins: int = 16
    components: int = 4

    def __post_init__(self) -> None:
        require_literals(self)
        require(self.width >= 1, "width must be >= 1", self.width)
        require(self.layers >= 1, "layers must be >= 1", self.layers)
        require(2 <= self.bins <= 500, "bins must be 2 to 500 (one piece bends nothing)", self.bins)
        require(self.components >= 1, "components must be >= 1", self.components)


ConditionalSpec = LocalSpec | GaussianSpec | FlowSpec | EnergySpec | DiffusionPartSpec | BackmapSpec
"""The law of a detail given its coarse field, by its ``kind``."""


@dataclass(frozen=True)
class BendSpec:
    """How steps that learn bend blocks of 2 x 2 sites: ``"mera"`` and ``"disentangled"``.

    Args:
        layers: Coupling layers of each disentangler and decimator.
        kind: ``"spline"`` or ``"affine"``.
        width, hidden: Neurons and hidden layers of their networks.

    Raises:
        ValueError: If a value is out of range.
    """

    layers: int = 2
    kind: Literal["spline", "affine"] = "affine"
    width: int = 8
    hidden: int = 1

    def __post_init__(self) -> None:
        require_literals(self)
        require(self.layers >= 1, "layers must be >= 1 (else nothing is bent)", self.layers)
        require(self.width >= 1, "width must be >= 1", self.width)
        require(self.hidden >= 1, "hidden must be >= 1", self.hidden)


@dataclass(frozen=True)
class BeadsSpec:
    """The molecule that ``"beads"`` bind, pair by pair, down to one bead.

    Args:
        bonds: Pairs of atoms, numbered from 0; not given: a chain, or a ring where the lattice is periodic.
        masses: Of each atom, in any unit; all 1 if not given.
        spread: Of the centre of mass of positions from a file, which say nothing of it: it is drawn anew, with this
            root mean square, in units of length. Laws have their own.

    Raises:
        ValueError: If a bond or a mass is none.
    """

    bonds: tuple[tuple[int, int], ...] | None = None
    masses: tuple[float, ...] | None = None
    spread: float = 1.0

    def __post_init__(self) -> None:
        for bond in self.bonds or ():
            require(min(bond) >= 0 and bond[0] != bond[1], "a bond joins two atoms, numbered from 0", list(bond))
        for mass in self.masses or ():
            require(0 < mass < math.inf, "masses must be > 0 and finite", mass)
        require(
            0 < self.spread < math.inf, "spread must be > 0 (where it is free, a molecule has no norm)", self.spread
        )


@dataclass(frozen=True)
class CascadeSpec:
    r"""A cascade, $\ln p(\phi_0) = \ln p_L(\phi_L) + \sum_l [\ln p_l(y_l \mid \phi_{l+1}) + \ln|\det T_l|]$.

    Args:
        coarse: The step $T$: wavelets ``"haar"``, ``"db2"``, ``"db4"``; ``"checkerboard"``, straight and turned in
            turn, which halves the sites each time; ``"fourier"``, shells of the modes above half the wavenumbers;
            ``"learned"``, an orthogonal block of 2 x 2 trained along; ``"mera"``, a Haar block between learned
            bijections; ``"disentangled"``, a checkerboard after learned bijections; ``"beads"``, pairs of bonded atoms
            that give way to their centres of mass, of fields that are positions (batch, dim, atoms).
        levels: How many steps; not given: as many as the lattice allows.
        conditional: The law $p_l$ of every level.
        heat_bath: Whether the finest level is the exact heat bath of the data's law: spins or $\phi^4$ on a
            checkerboard.
        symmetric: Whether the law is symmetric under $\phi \to -\phi$, by construction.
        tied: Whether all levels of one kind share one set of weights (a fixed point of the flow), and all bent steps
            theirs; of conditionals ``"local"`` and ``"flow"``. Each level has its own units, measured where fields are
            read; else all are 1, and the levels share their scale too.
        positive: Whether fields are contrasts of a positive density, and stay above -1 in every draw; ``"haar"`` alone.
        bend: Of steps that bend blocks.
        beads: Of the molecule.

    Raises:
        ValueError: If a value is out of range, or two do not go together.

    Example:
        >>> CascadeSpec(coarse="haar", heat_bath=True)
        Traceback (most recent call last):
        ValueError: heat_bath needs coarse = 'checkerboard' (only there are the details independent), got 'haar'
    """

    coarse: Coarse = "checkerboard"
    levels: int | None = None
    conditional: ConditionalSpec = field(default_factory=LocalSpec)
    heat_bath: bool = False
    symmetric: bool = True
    tied: bool = False
    positive: bool = False
    bend: BendSpec = field(default_factory=BendSpec)
    beads: BeadsSpec = field(default_factory=BeadsSpec)

    def __post_init__(self) -> None:
        require_literals(self)
        require(self.levels is None or self.levels >= 1, "levels must be >= 1 step", self.levels)
        board = self.coarse == "checkerboard"
        rule = "heat_bath needs coarse = 'checkerboard' (only there are the details independent)"
        require(not self.heat_bath or board, rule, self.coarse)
        kind = self.conditional.kind
        rule = "heat_bath needs a conditional that is trained, 'local' or 'flow', at the other levels"
        require(not self.heat_bath or kind in ("local", "flow"), rule, kind)
        rule = "tied needs a conditional that serves lattices of every size, 'local' or 'flow'"
        require(not self.tied or kind in ("local", "flow"), rule, kind)
        rule = "a learned step is trained along with its conditionals, which must be 'local' or 'flow'"
        require(self.coarse not in LEARNED or kind in ("local", "flow"), rule, kind)
        rule = "local energies need a wavelet, 'haar', 'db2' or 'db4' (details on blocks of fine sites)"
        require(kind != "energy" or self.coarse in ("haar", "db2", "db4"), rule, self.coarse)
        rule = "a diffusion needs a wavelet, 'haar', 'db2' or 'db4' (details on the coarse lattice)"
        require(kind != "diffusion" or self.coarse in ("haar", "db2", "db4"), rule, self.coarse)
        rule = "Fourier shells have modes for details, and only a conditional of kind 'gaussian' is a law of modes"
        require(self.coarse != "fourier" or kind == "gaussian", rule, kind)
        rule = "beads need a conditional of positions, 'gaussian' or 'backmap'"
        require(self.coarse != "beads" or kind in ("gaussian", "backmap"), rule, kind)
        rule = "backmap draws atoms from beads, so it needs coarse = 'beads'"
        require(kind != "backmap" or self.coarse == "beads", rule, self.coarse)
        rule = "beads are those of a molecule, with coarse = 'beads'"
        require(self.beads == BeadsSpec() or self.coarse == "beads", rule, self.coarse)
        rule = "backmap reads a chain of equal atoms in order, without bonds or masses of its own"
        plain = self.beads.bonds is None and self.beads.masses is None
        require(kind != "backmap" or plain, rule, "bonds or masses")
        rule = "positive shares out the content of blocks, so it needs coarse = 'haar'"
        require(not self.positive or self.coarse == "haar", rule, self.coarse)
        rule = "positive needs symmetric = false (a density has no two-fold symmetry)"
        require(not (self.positive and self.symmetric), rule, self.symmetric)
        rule = "positive needs a conditional of kind 'local'"
        require(not self.positive or kind == "local", rule, kind)
        rule = "spins need coarse = 'checkerboard' (sums and differences of spins are no spins)"
        require(board or not self.spins, rule, self.coarse)

    @property
    def spins(self) -> bool:
        """Whether fields are +1 and -1."""
        return isinstance(self.conditional, LocalSpec) and self.conditional.head == "spin"


@dataclass(frozen=True)
class CascadeFit:
    """How a cascade learns.

    Args:
        teacher: ``"fields"``: likelihood of the data, level by level; ``"action"``: reverse Kullback-Leibler divergence
            to the data's law, no field is seen; ``"fields+action"``: one after the other; ``"chain"``: likelihood of
            Markov chains of the data's law that the cascade itself keeps moving.
        steps: Of Adam, for each level (fields), or for the whole (action, chain).
        small_steps: The same for each smaller lattice, where ``grow``.
        batch: Fields a step.
        rate: Learning rate at first; it falls to 0 along a cosine.
        grow: Whether a lattice of 4 x 4 is learned first, then its double, and so on.
        transfer: Whether levels are learned from the coarsest to the finest, each beginning with the weights of the
            coarser one of its kind (fields, fields+action); near a critical point levels are alike.
        chains: How many Markov chains (chain).
        every: Steps between moves of the chains (chain).
        sweeps: Heat-bath sweeps in each move (chain).
        seed: Of first weights and of all that is drawn while learning.

    Raises:
        ValueError: If a value is out of range, or two do not go together.
    """

    teacher: Literal["fields", "action", "chain", "fields+action"] = "fields"
    steps: int = 1000
    small_steps: int = 500
    batch: int = 256
    rate: float = 2e-3
    grow: bool = False
    transfer: bool = False
    chains: int = 2048
    every: int = 10
    sweeps: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        require_literals(self)
        require(self.steps >= 1, "steps must be >= 1 (there is nothing to fit)", self.steps)
        require(self.small_steps >= 1, "small_steps must be >= 1 (there is nothing to fit)", self.small_steps)
        require(self.batch >= 2, "batch must be >= 2 (draws are compared with each other)", self.batch)
        require(0 < self.rate < math.inf, "rate must be > 0 and finite (nothing is learned at 0)", self.rate)
        require(self.chains >= 2, "chains must be >= 2", self.chains)
        require(self.every >= 1, "every must be >= 1 step", self.every)
        require(self.sweeps >= 0, "sweeps must be >= 0", self.sweeps)
        require(0 <= self.seed < 2**63, "seed must be in [0, 2^63)", self.seed)
        rule = "transfer needs a teacher that reads fields, 'fields' or 'fields+action' (else all levels learn at once)"
        require(not self.transfer or self.reads_fields, rule, self.teacher)
        rule = "grow needs the teacher 'action' or 'chain' (the data have one size)"
        require(not self.grow or self.teacher in ("action", "chain"), rule, self.teacher)

    @property
    def reads_fields(self) -> bool:
        """Whether the data are looked at."""
        return self.teacher in ("fields", "fields+action")


def require_transfer(*, at_once: bool, closed: bool, positive: bool, alone: bool) -> None:
    """Raise ``RecipeError`` unless levels are trained one by one, from weights that can be handed on.

    Args:
        at_once: Whether all levels learn together.
        closed: Whether some are solved in closed form.
        positive: Whether they are of shares of a density.
        alone: Whether no level has weights like those of a coarser one.
    """
    for wrong, why in (
        (at_once, "here all levels learn at once (tied, or a learned block)"),
        (closed, "a closed form has none to begin with"),
        (positive, "levels of model.positive begin in closed form"),
        (alone, "no level here is made like a coarser one (take more levels)"),
    ):
        if wrong:
            raise RecipeError(f"fit.transfer hands the weights of a level to a finer one, and {why}; set it to false")
