r"""A cascade averaged over the symmetries of its target: what its blocks break, the mixture keeps."""

import math
from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from renorm.cascade.cascade import Cascade
from renorm.cascade.conditional import Draw
from renorm.cascade.weighing import Weighed
from renorm.errors import RecipeError
from renorm.model import Grade

__all__ = ["Symmetrised", "Symmetry", "translations", "turned_over"]


class Symmetry(NamedTuple):
    r"""A map of fields that changes no volume: $(g\phi)_i = \text{sign}\cdot\phi_{i - \text{shift}}$.

    Attributes:
        shift: In sites, for each axis of a periodic lattice.
        sign: 1, or -1.
    """

    shift: tuple[int, ...]
    sign: int = 1

    def __call__(self, x: Tensor) -> Tensor:
        """The fields that these become, (batch, channel, \\*sites)."""
        moved = x.roll(self.shift, tuple(range(2, 2 + len(self.shift)))) if any(self.shift) else x
        return -moved if self.sign < 0 else moved


def translations(shape: tuple[int, ...], stride: int = 1) -> tuple[Symmetry, ...]:
    """All shifts of a periodic lattice by multiples of ``stride``, that by nothing first.

    Raises:
        RecipeError: If the stride does not divide every side.

    Example:
        >>> [g.shift for g in translations((4, 2), stride=2)]
        [(0, 0), (2, 0)]
    """
    if stride < 1 or any(side % stride for side in shape):
        raise RecipeError(f"stride must be >= 1 and divide every side of {shape} (shifts are to be a group): {stride}")
    return tuple(Symmetry(shift) for shift in product(*(range(0, side, stride) for side in shape)))


def turned_over(group: Sequence[Symmetry]) -> tuple[Symmetry, ...]:
    r"""These maps, and each with $\phi \to -\phi$ after it.

    Example:
        >>> turned_over(translations((2,), stride=2))
        (Symmetry(shift=(0,), sign=1), Symmetry(shift=(0,), sign=-1))
    """
    return (*group, *(Symmetry(g.shift, -g.sign) for g in group))


class Symmetrised(Weighed):
    r"""The even mixture of a cascade's law over a group of symmetries G.

    $$ \bar q(\phi) = \frac{1}{|G|}\sum_{g\in G} q(g\phi), \qquad
       \mathrm{KL}(\bar q\,|\,p) = \mathrm{KL}(q\,|\,p) - \Big\langle \ln\frac{q}{\bar q} \Big\rangle_q
       \le \mathrm{KL}(q\,|\,p) $$

    where p is symmetric. A cascade of blocks has few of the translations of its lattice; the mixture has them all, and
    its bound on $\ln Z$ is never worse. A draw is one of the cascade's, moved at random: sampling costs nothing more.
    A density is that of all |G| moved fields, and costs so much.

    Args:
        model: q.
        group: Each once, with the inverse of each and the map that changes nothing.

    Raises:
        RecipeError: If the maps are no group on the fields of this lattice, or its lattice is open and they shift.
        NoLikelihoodError: When it is drawn or weighed, if the cascade's densities are not exact.

    Source:
        The reference code of Li & Wang 2018, Phys. Rev. Lett. 121, 260601, averages so over $\phi \to -\phi$.

    Example: what is symmetric already does not change.
        >>> from renorm.cascade.neural_rg import neural_rg
        >>> model = neural_rg(4)
        >>> x = torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
        >>> torch.allclose(Symmetrised(model, translations((4, 4))).log_prob(x), model.log_prob(x), atol=1e-4)
        True
    """

    def __init__(self, model: Cascade, group: Sequence[Symmetry]) -> None:
        self.model, self.lattice = model, model.lattice
        if any(any(g.shift) for g in group) and self.lattice.boundary != "periodic":
            raise RecipeError("only a periodic lattice can be shifted, and this one is open")
        sides = self.lattice.shape
        for g in group:
            if len(g.shift) != len(sides) or g.sign not in (1, -1):
                raise RecipeError(f"a symmetry shifts {len(sides)} axes and has the sign 1 or -1, got {g}")
        short = [Symmetry(tuple(by % side for by, side in zip(g.shift, sides, strict=True)), g.sign) for g in group]
        _require_group(short, sides)
        # What changes nothing comes first: it is the least.
        self.group = tuple(sorted(short, key=lambda g: (g.sign < 0, g.shift)))

    @property
    def grade(self) -> Grade:
        """That of the cascade."""
        return self.model.grade

    def log_prob(self, x: Tensor) -> Tensor:
        """Nats of each field."""
        return self._mean([self.model.log_prob(g(x)) for g in self.group])

    def draw(self, num: int, *, generator: torch.Generator) -> Draw:
        """Fields, and the log density of the mixture there; gradients pass where they pass through the cascade."""
        self.require_density()
        y, log_prob = self.model.draw(num, generator=generator)
        # The mixture has one density on all of a field's orbit.
        mean = self._mean([log_prob, *(self.model.log_prob(g(y)) for g in self.group[1:])])
        return Draw(self._moved(y, generator), mean)

    @torch.no_grad()
    def sample(self, num: int, *, generator: torch.Generator) -> Tensor:
        """Fields (num, channel, \\*sites), without their densities."""
        return self._moved(self.model.sample(num, generator=generator), generator)

    def _moved(self, y: Tensor, generator: torch.Generator) -> Tensor:
        which = torch.randint(len(self.group), (len(y),), generator=generator, device=generator.device)
        x = torch.empty_like(y)
        for index in which.unique().tolist():
            rows = (which == index).nonzero()[:, 0]
            x = x.index_copy(0, rows, self.group[index](y.index_select(0, rows)))
        return x

    def _mean(self, each: Sequence[Tensor]) -> Tensor:
        return torch.stack(list(each)).logsumexp(0) - math.log(len(self.group))


def _require_group(group: Sequence[Symmetry], sides: tuple[int, ...]) -> None:
    """Each map once, and any two after each other one of them; finite, so inverses are there too."""
    strides = [math.prod(sides[axis + 1 :]) for axis in range(len(sides))]
    number = torch.tensor([[*g.shift, int(g.sign < 0)] for g in group], dtype=torch.long).reshape(
        len(group), len(sides) + 1
    )
    modulus, base = torch.tensor([*sides, 2]), torch.tensor([*strides, math.prod(sides)])
    known = (number * base).sum(1)
    closed = all(bool(torch.isin(((number + one) % modulus * base).sum(1), known).all()) for one in number)
    if not group or len(known.unique()) < len(group) or not closed:
        raise RecipeError(f"the maps must be a group, each once, and these {len(group)} are not; see translations")
