"""A polymer of beads on springs that cannot overlap: Kremer and Grest's chain, and the pieces that others need."""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from renorm.errors import DataError
from renorm.lattice import Lattice
from renorm.spec import require

__all__ = ["FenePolymer"]

WCA_REACH = 2 ** (1 / 6)
"""In units of sigma: where the repulsion ends."""

TRIES = 64  # directions of a step of a walk that avoids itself


@dataclass(frozen=True)
class FenePolymer:
    r"""A linear chain of atoms: finitely extensible springs along it, repulsion between all pairs.

    $$ \frac{U}{T} = \frac1T\Big\{\sum_{i} -\tfrac12 k R_0^2 \ln\Big[1 - \frac{r_{i,i+1}^2}{R_0^2}\Big]
       + \sum_{i<j,\ r_{ij} < 2^{1/6}\sigma} 4\epsilon\Big[\Big(\frac{\sigma}{r_{ij}}\Big)^{12}
       - \Big(\frac{\sigma}{r_{ij}}\Big)^{6} + \tfrac14\Big]\Big\} + \frac{3}{2 s^2}|\bar x|^2 $$

    in reduced units, $\sigma = \epsilon = 1$. The energy is infinite where a bond is longer than $R_0$.

    Args:
        atoms: $N \ge 2$.
        temperature: $T > 0$, in units of $\epsilon$.
        stiffness: $k$, in $\epsilon/\sigma^2$.
        reach: $R_0$, in $\sigma$.
        spread: $s$ of the centre, in $\sigma$; a free chain has no norm.

    Raises:
        ValueError: If one of them is out of range.

    Source:
        Kremer & Grest 1990, J. Chem. Phys. 92, 5057.

    Example: two atoms, no repulsion left at this distance.
        >>> import math
        >>> law = FenePolymer(2, stiffness=2.0, reach=2.0)
        >>> x = torch.tensor([[[-0.75, 0.75], [0.0, 0.0], [0.0, 0.0]]])
        >>> round(law(x).item(), 5), round(-4 * math.log(1 - 1.5**2 / 4), 5)
        (3.30671, 3.30671)
    """

    atoms: int
    temperature: float = 1.0
    stiffness: float = 30.0
    reach: float = 1.5
    spread: float = 1.0

    def __post_init__(self) -> None:
        require(self.atoms >= 2, "atoms must be >= 2 (a chain has a bond)", self.atoms)
        require(self.temperature > 0, "temperature must be > 0, in units of epsilon", self.temperature)
        require(self.stiffness > 0, "stiffness must be > 0, in epsilon / sigma^2", self.stiffness)
        require(self.reach > 1, "reach must be > 1 sigma (bonded atoms repel each other too)", self.reach)
        require(self.spread > 0, "spread must be > 0 (a free chain has no norm)", self.spread)

    @cached_property
    def lattice(self) -> Lattice:
        """Where it lives: atoms along one axis, a channel for each component."""
        return Lattice((self.atoms,), channels=3)

    def __call__(self, x: Float[Tensor, "batch 3 atoms"]) -> Float[Tensor, " batch"]:
        """Energy over temperature, in nats; infinite where a bond is broken.

        Raises:
            DataError: If positions are not (batch, 3, atoms).
        """
        self._require_here(x)
        bond_sq = (x[..., 1:] - x[..., :-1]).square().sum(1) / self.reach**2
        springs = -0.5 * self.stiffness * self.reach**2 * torch.log1p(-bond_sq.clamp(max=1.0)).sum(1)
        first, second = self._pairs.to(x.device)
        apart = (x[..., first] - x[..., second]).square().sum(1)
        inverse = apart.clamp(max=WCA_REACH**2) ** -3  # beyond its reach the repulsion is 4 (1/4 - 1/2 + 1/4) = 0
        repulsion = 4 * (inverse * (inverse - 1) + 0.25).sum(1)
        centre = 1.5 / self.spread**2 * x.mean(2).square().sum(1)
        return (springs + repulsion) / self.temperature + centre

    def grad(self, x: Float[Tensor, "batch 3 atoms"]) -> Float[Tensor, "batch 3 atoms"]:
        """Gradient of the energy over temperature."""
        self._require_here(x)
        bond = x[..., 1:] - x[..., :-1]
        bond_sq = bond.square().sum(1, keepdim=True)
        pull = self.stiffness * bond / (1 - bond_sq / self.reach**2)
        total = torch.zeros_like(x)
        total[..., 1:] += pull
        total[..., :-1] -= pull
        sites = x.transpose(1, 2)
        square = torch.cdist(sites, sites, compute_mode="donot_use_mm_for_euclid_dist").square()
        square = torch.where((square > 0) & (square < WCA_REACH**2), square, torch.inf)
        inverse = square**-3
        push = 24 * (2 * inverse - 1) * inverse / square.clamp(max=1e30)  # of j on i, over their distance
        total -= x * push.sum(2)[:, None] - x @ push
        return total / self.temperature + 3 / self.spread**2 * x.mean(2, keepdim=True) / self.atoms

    def start(self, num: int, *, generator: torch.Generator) -> Float[Tensor, "num 3 atoms"]:
        """Random walks that avoid themselves, of finite energy: where Markov chains may begin."""
        x = torch.zeros(num, 3, 1, device=generator.device)
        for _ in range(self.atoms - 1):
            step = torch.randn(num, 3, TRIES, generator=generator, device=generator.device)
            tried = x[..., -1:] + 0.97 * step / step.norm(dim=1, keepdim=True)
            near = torch.cdist(tried.transpose(1, 2), x.transpose(1, 2)).amin(2)
            free = near > 0.95
            best = torch.where(free.any(1), free.double().argmax(1), near.argmax(1))  # boxed in: as far as it goes
            x = torch.cat([x, tried.gather(2, best[:, None, None].expand(-1, 3, 1))], 2)
        return x - x.mean(2, keepdim=True)

    @cached_property
    def _pairs(self) -> Tensor:
        return torch.triu_indices(self.atoms, self.atoms, offset=1)

    def _require_here(self, x: Tensor) -> None:
        if tuple(x.shape[1:]) != (3, self.atoms):
            raise DataError(f"positions must be (batch, 3, {self.atoms}), got {tuple(x.shape)}")
