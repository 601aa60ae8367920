"""Beads: groups of atoms give way to their centre of mass; what is left are vectors inside each group."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from renorm.coarse.base import Split, check_parts
from renorm.errors import DataError, RecipeError
from renorm.graph import Graph
from renorm.lattice import Lattice

__all__ = ["Beads", "bead_steps", "centre_of_mass"]


@dataclass(frozen=True)
class Beads:
    r"""Each bead stands at the centre of mass of its atoms; the detail are their Jacobi vectors, which keep volume.

    $$ c_B = \frac{1}{M_B}\sum_{i \in B} m_i x_i, \qquad
       y_k = x_{k+1} - \frac{\sum_{i \le k} m_i x_i}{\sum_{i \le k} m_i}, \qquad
       \ln\left|\det\frac{\partial(c, y)}{\partial x}\right| = 0 $$

    with the atoms of a bead in the order in which they are named. Shifted atoms shift the beads and leave the vectors;
    turned atoms turn both.

    Args:
        parts: Atoms of each bead; together each atom once.
        masses: Of the atoms, in any unit; all 1 if not given.

    Raises:
        RecipeError: If a bead has no atom, an atom is in no bead or in two, or a mass is not positive.

    Example: the centre of two atoms, one of them three times as heavy.
        >>> step = Beads(((0, 1),), masses=(1.0, 3.0))
        >>> coarse, detail, log_det = step.split(torch.tensor([[[0.0, 4.0]]]))
        >>> coarse.item(), detail.item(), log_det.item()
        (3.0, 4.0, 0.0)
    """

    parts: tuple[tuple[int, ...], ...]
    masses: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        empty = [index for index, part in enumerate(self.parts) if not part]
        if empty:
            raise RecipeError(f"each bead has an atom (an empty one has no centre), got none in bead {empty[0]}")
        named = sorted(atom for part in self.parts for atom in part)
        if not named or named != list(range(len(named))):
            raise RecipeError(f"beads share out the atoms 0 ... n - 1, each to one bead, got {self.parts}")
        if self.masses is not None:
            if len(self.masses) != len(named):
                raise RecipeError(f"each of {len(named)} atoms has a mass, got {len(self.masses)} of them")
            if not all(mass > 0 for mass in self.masses):
                raise RecipeError(f"masses must be > 0, got {min(self.masses)}")

    @property
    def atoms(self) -> int:
        """How many there are."""
        return sum(map(len, self.parts))

    @property
    def bead_masses(self) -> tuple[float, ...]:
        """Of each bead, that of its atoms."""
        weights = self.masses or (1.0,) * self.atoms
        return tuple(sum(weights[atom] for atom in part) for part in self.parts)

    def coarse_lattice(self, lattice: Lattice) -> Lattice:
        """One site for each bead, as many channels as before.

        Raises:
            RecipeError: If the lattice is not one axis of these atoms.
        """
        if lattice.shape != (self.atoms,):
            raise RecipeError(f"these beads are made of {self.atoms} atoms on one axis, got {lattice.shape}")
        return Lattice((len(self.parts),), lattice.boundary, lattice.channels, lattice.spacing)

    def detail_shape(self, lattice: Lattice) -> tuple[int, ...]:
        """(channels, atoms - beads): the vectors of the first bead, then those of the next."""
        return (lattice.channels, self.atoms - self.coarse_lattice(lattice).sites)

    @cached_property
    def matrix(self) -> Float64[Tensor, "atoms atoms"]:
        """Rows of the beads, then of the vectors."""
        weights = torch.tensor(self.masses or (1.0,) * self.atoms, dtype=torch.float64)
        centres, vectors = [], []
        for part in self.parts:
            for known in range(1, len(part) + 1):
                centre = torch.zeros(self.atoms, dtype=torch.float64)
                inside = torch.tensor(part[:known])
                centre[inside] = weights[inside] / weights[inside].sum()
                if known < len(part):
                    vector = -centre
                    vector[part[known]] = 1.0
                    vectors.append(vector)
            centres.append(centre)
        return torch.stack(centres + vectors)

    @cached_property
    def inverse(self) -> Float64[Tensor, "atoms atoms"]:
        """Of the matrix."""
        return torch.linalg.inv(self.matrix)

    def split(self, x: Float[Tensor, "batch channel atoms"]) -> Split:
        """Centres of mass, and the vectors inside the beads.

        Raises:
            DataError: If ``x`` is not (batch, channel, atoms).
        """
        if x.ndim != 3 or x.shape[2] != self.atoms or not x.is_floating_point():
            raise DataError(
                f"positions must be (batch, dim, {self.atoms}) real numbers, got {x.dtype} {tuple(x.shape)}"
            )
        both = x @ self.matrix.T.to(x)
        beads = len(self.parts)
        return Split(both[..., :beads].contiguous(), both[..., beads:].contiguous(), x.new_zeros(len(x)))

    def merge(
        self, coarse: Float[Tensor, "batch channel beads"], detail: Float[Tensor, "batch channel vectors"]
    ) -> Float[Tensor, "batch channel atoms"]:
        """The atoms of these beads and vectors.

        Raises:
            DataError: If beads and vectors do not belong together.
        """
        check_parts(coarse, detail, 1, (coarse.shape[1], self.atoms - len(self.parts)))
        return torch.cat([coarse, detail], 2) @ self.inverse.T.to(coarse)


def bead_steps(graph: Graph, partitions: Sequence[Sequence[Sequence[int]]] | None = None) -> list[Beads]:
    """Steps from the atoms of a graph to a single bead, with the masses that the beads take over.

    Args:
        graph: The molecule.
        partitions: Of the atoms, then of the beads, and so on; not given: in pairs of neighbours (``Graph.pairs``).

    Example:
        >>> [len(step.parts) for step in bead_steps(Graph.ring(12))]
        [6, 3, 1]
    """
    steps, at = [], graph
    for parts in graph.hierarchy() if partitions is None else partitions:
        steps.append(Beads(tuple(tuple(part) for part in parts), at.masses))
        at = at.contracted(parts)
    return steps


def centre_of_mass(
    x: Float[Tensor, "batch dim atoms"], masses: Sequence[float] | None = None
) -> Float[Tensor, "batch dim 1"]:
    r"""$\sum_i m_i x_i / \sum_i m_i$ of each molecule, masses all 1 if not given.

    Example:
        >>> centre_of_mass(torch.tensor([[[0.0, 4.0]]]), (1.0, 3.0)).item()
        3.0
    """
    share = torch.tensor(masses or (1.0,) * x.shape[2], dtype=torch.float64)
    return (x.double() @ (share / share.sum()))[..., None].to(x)
