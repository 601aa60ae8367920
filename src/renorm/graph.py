"""Where a molecule lives: atoms and the bonds between them, and how they are bound into beads."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from renorm.spec import require

__all__ = ["Graph"]

Parts = tuple[tuple[int, ...], ...]
"""Atoms of each bead."""


@dataclass(frozen=True)
class Graph:
    """A connected graph of atoms and bonds.

    Args:
        atoms: How many, numbered from 0.
        bonds: Pairs of atoms; their order means nothing.
        masses: Of each atom, in any unit; all 1 if not given.

    Raises:
        ValueError: If a bond is none (an atom that is not there, or with itself), the graph falls into pieces, or a
            mass is not positive.

    Example: a chain of five, bound in pairs; the one that is left joins its neighbour's bead.
        >>> chain = Graph.linear(5)
        >>> chain.pairs()
        ((0, 1), (2, 3, 4))
        >>> chain.contracted(chain.pairs()).bonds
        ((0, 1),)
    """

    atoms: int
    bonds: tuple[tuple[int, int], ...]
    masses: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        require(self.atoms >= 1, "a graph has an atom or more", self.atoms)
        for bond in self.bonds:
            there = len(bond) == 2 and all(0 <= atom < self.atoms for atom in bond) and bond[0] != bond[1]
            require(there, f"a bond joins two different atoms of 0 ... {self.atoms - 1}", bond)
        if self.masses is not None:
            require(len(self.masses) == self.atoms, f"each of {self.atoms} atoms has a mass", len(self.masses))
            require(all(mass > 0 for mass in self.masses), "masses must be > 0", self.masses)
        apart = sorted(set(range(self.atoms)) - self._reached())
        rule = "a molecule hangs together (a disconnected graph has no single bead), so no atom may be out of reach"
        require(not apart, f"{rule} of atom 0", apart)

    @classmethod
    def linear(cls, atoms: int) -> "Graph":
        """A chain with two ends."""
        return cls(atoms, tuple(pairwise(range(atoms))))

    @classmethod
    def ring(cls, atoms: int) -> "Graph":
        """A chain that closes on itself; of two atoms, one bond."""
        require(atoms >= 2, "a ring has two atoms or more", atoms)
        return cls(atoms, tuple(pairwise(range(atoms))) + (((atoms - 1, 0),) if atoms > 2 else ()))

    @cached_property
    def neighbours(self) -> tuple[frozenset[int], ...]:
        """Atoms bound to each atom."""
        found: list[set[int]] = [set() for _ in range(self.atoms)]
        for a, b in self.bonds:
            found[a].add(b)
            found[b].add(a)
        return tuple(map(frozenset, found))

    def pairs(self) -> Parts:
        """A partition into beads of two bonded atoms, as far as they go; who is left joins a neighbour's bead.

        The atom with the fewest free neighbours chooses first (Karp & Sipser 1981), and takes the one with the fewest.
        """
        if self.atoms == 1:
            return ((0,),)
        free, beads = set(range(self.atoms)), []
        while free:
            choice = min(free, key=lambda atom: (self._degree(atom, free) or self.atoms, atom))
            near = self.neighbours[choice] & free
            free.discard(choice)
            if near:
                other = min(near, key=lambda atom: (self._degree(atom, free), atom))
                free.discard(other)
                beads.append([choice, other])
            else:  # every neighbour is bound: the smallest bead that is near takes it in
                min((bead for bead in beads if self.neighbours[choice] & set(bead)), key=len).append(choice)
        return tuple(sorted(tuple(sorted(bead)) for bead in beads))

    def contracted(self, parts: Sequence[Sequence[int]]) -> "Graph":
        """The graph of these beads: bound where some of their atoms are, and as heavy as all of them.

        Raises:
            ValueError: If the beads do not share out the atoms, each to one bead, or one has none.
        """
        named = sorted(atom for part in parts for atom in part)
        whole = named == list(range(self.atoms)) and all(parts)
        require(whole, f"beads share out the atoms 0 ... {self.atoms - 1}, each to one bead with an atom", tuple(parts))
        bead = {atom: index for index, part in enumerate(parts) for atom in part}
        bonds = {tuple(sorted((bead[a], bead[b]))) for a, b in self.bonds if bead[a] != bead[b]}
        weights = self.masses or (1.0,) * self.atoms
        return Graph(len(parts), tuple(sorted(bonds)), tuple(sum(weights[a] for a in part) for part in parts))  # type: ignore[arg-type]

    def hierarchy(self) -> tuple[Parts, ...]:
        """Partitions from the atoms to a single bead, finest first."""
        at, found = self, []
        while at.atoms > 1:
            found.append(at.pairs())
            at = at.contracted(found[-1])
        return tuple(found)

    def _degree(self, atom: int, among: set[int]) -> int:
        return len(self.neighbours[atom] & among)

    def _reached(self) -> set[int]:
        """Atoms that bonds lead to from atom 0."""
        reached, edge = {0}, [0]
        while edge:
            new = self.neighbours[edge.pop()] - reached
            reached |= new
            edge.extend(new)
        return reached
