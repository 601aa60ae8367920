r"""``PeriodicDensity``: a density of one or two angles, learned as a periodic field and drawn coarse to fine.

The torus is cut into cells, and every block of $2^d$ cells is a cell of the next level. A level of the hierarchy is the
cell that holds the point. Its probability is the sum over the finest cells in it, so every step from coarse to fine is
an exact draw among $2^d$ cells:

$$ \ln p(x) = \ln P(c_L) + \sum_{l=1}^{L-1}\ln P(c_l \mid c_{l+1}) - d\ln\Delta, \qquad \Delta = 2\pi/n . $$
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from renorm.cascade.field_posterior import Smoothness, choose_length, lengths, posterior_mode
from renorm.errors import CheckpointError, DataError, RecipeError
from renorm.fit.checkpoint import atomic, read_tensors, write_tensors
from renorm.lattice import Lattice
from renorm.measure.statistics import check_log_weights, ess
from renorm.model import Grade, Level, Pyramid
from renorm.spec import load_toml, require, to_toml

__all__ = ["PeriodicDensity", "PeriodicDensitySpec"]

COARSEST = 4  # cells on an axis at the coarsest level
EXPOSURE = 0.1  # rad, about a cell of 64: what spreads farther is ruled by the few heaviest frames
FARTHEST = 1e-100  # of the kernel on an axis, so that cells far from every frame see all of them
ROUNDING = 1e-6  # that an angle may be beyond pi: float32 has no nearer number


@dataclass(frozen=True)
class PeriodicDensitySpec:
    r"""A periodic density as a value.

    Attributes:
        angles: 1 or 2.
        cells: On each axis, a power of two from 8 on.
        power: $\alpha$ of the prior $(\ell k)^{-2\alpha}$; more than half the number of angles, else frames stand out
            as spikes, the more the finer the cells.
        length: $\ell$ in rad; not given: chosen by held-out blocks of the frames of the fit.
        blocks: Runs of neighbouring frames that are held out in turn, where the length is chosen.

    Raises:
        ValueError: If one of them is out of range.
    """

    angles: int = 2
    cells: int = 64
    power: float = 2.0
    length: float | None = None
    blocks: int = 5
    kind: Literal["periodic-density"] = "periodic-density"

    def __post_init__(self) -> None:
        require(self.angles in (1, 2), "angles must be 1 or 2 (cells are as many as cells ** angles)", self.angles)
        fine = self.cells >= 2 * COARSEST and self.cells & (self.cells - 1) == 0
        require(fine, "cells must be a power of two from 8 on (every level halves them, down to 4)", self.cells)
        require(self.power > self.angles / 2, "power must be > angles / 2 (else frames become spikes)", self.power)
        require(self.length is None or self.length > 0, "length must be > 0 rad", self.length)
        require(self.blocks >= 2, "blocks must be >= 2 (one is held out)", self.blocks)


class PeriodicDensity:
    r"""A density on the torus of one or two angles, piecewise constant on its cells, normalised exactly.

    The field $\phi = -\ln p$ is the likeliest one under a free-field prior (`renorm.cascade.field_posterior`). Data are
    (batch, 1, angles) in rad, $-\pi \le x < \pi$. Level 0 is the point itself; level $l \ge 1$ is the centre of its
    cell, one of $n/2^{l-1}$ on an axis; the coarsest level has 4.

    Args:
        spec: Cells, prior, and how its scale is chosen.

    Invariant:
        ``log_prob(x, per_level=True)`` sums to ``log_prob(x)``; ``coarsen(refine(c, level=l), l)`` is c.

    Example: four cells of eight that are equally likely.
        >>> x = torch.tensor([-0.5, 0.5, 1.5, 2.5]).mul(math.pi / 4).repeat(50).reshape(-1, 1, 1)
        >>> model = PeriodicDensity(PeriodicDensitySpec(angles=1, cells=8, power=1.0, length=0.01)).fit(x)
        >>> model.log_prob(x[:2], per_level=True).exp().round(decimals=2)  # a quarter, half of it, 1 / (pi / 4)
        tensor([[0.2500, 1.0000, 1.2700],
                [0.5000, 0.5000, 1.2700]], dtype=torch.float64)
    """

    def __init__(self, spec: PeriodicDensitySpec | None = None) -> None:
        self.spec = spec or PeriodicDensitySpec()
        self.length: float | None = None
        """Of the fit, in rad."""
        self.foretold: tuple[Smoothness, ...] = ()
        """What each scale foretold, the best first; empty if it was given."""
        self._set_field(torch.zeros((self.spec.cells,) * self.spec.angles, dtype=torch.float64))

    # -- the hallway -------------------------------------------------------------------------------------------------

    def fit(
        self,
        x: Float[Tensor, "batch channel angles"],
        *,
        condition: Tensor | None = None,
        log_weights: Float[Tensor, " weights"] | None = None,
    ) -> "PeriodicDensity":
        r"""Learn the field from frames in order of time.

        Weights that differ a lot from place to place, as those of umbrellas do, would leave the density at high free
        energies to frames that hardly count. So their local size goes into an exposure,

        $$ e(x) = \frac{\sum_i K(x - x_i)\,w_i}{\sum_i K(x - x_i)\,w_i^2}, \qquad
           n_c \propto \sum_{i \in c} w_i\,e_c, \qquad
           N = \frac{(\sum_i w_i e_i)^2}{\sum_i (w_i e_i)^2} , $$

        $K$ a Gaussian of ``EXPOSURE``: $n_c$ is about the effective number of frames (Kish) in the cell. Whatever the
        exposure is, the mean of $n_c$ is in proportion to $e_c\,p_c$.

        Frames that remember each other are worth less than $N$, which the length makes up for: it is chosen by what it
        foretells.

        Args:
            x: In rad.
            condition: There is none.
            log_weights: In nats; not given: all the same.

        Raises:
            DataError: If there are fewer frames than blocks, one is no angle, or log weights cannot be normalised.
        """
        _no_condition(condition)
        cell, num = self._cell(x, self.spec.cells), len(x)
        if num < self.spec.blocks:
            raise DataError(f"a fit needs at least {self.spec.blocks} frames, one for each block, got {num}")
        logs = torch.zeros(num).double() if log_weights is None else check_log_weights(log_weights, num)
        exposure = self._exposure(cell, (logs - logs.max()).exp())
        logs = logs + self._look(exposure, cell)
        parts = torch.arange(num) * self.spec.blocks // num
        weight = (logs - logs.max()).exp()
        counts = torch.stack([self._counts(cell[parts == b], weight[parts == b]) for b in range(self.spec.blocks)])
        number, power = num * ess(logs), self.spec.power
        tried, length = list[Smoothness](), self.spec.length
        if length is None:
            rest = [logs[parts != b] for b in range(self.spec.blocks)]
            if min(float(each.max()) for each in rest) == -math.inf:
                raise DataError("a scale is chosen by blocks that are held out: at least 2 must have weight, got 1")
            numbers = [len(each) * ess(each) for each in rest]
            tried = choose_length(counts, numbers, lengths(number, power), power=power, log_exposure=exposure)
            length = tried[0].length
        total = counts.sum(0)
        total = total * (number / total.sum())
        self._set_field(posterior_mode(total, length=length, power=power, log_exposure=exposure))
        self.length, self.foretold = length, tuple(tried)
        return self

    @property
    def domain(self) -> Lattice:
        """A site an angle."""
        return Lattice((self.spec.angles,))

    @property
    def levels(self) -> Sequence[Level]:
        """Finest first; the cutoff of cells of $w$ of the finest is $\\pi/w$."""
        modes = [len(table.flatten()) for table in self.tables]
        cells = [Level(l, math.pi / 2 ** (l - 1), float(l), m) for l, m in enumerate(modes, 1)]
        return [Level(0, math.inf, 0.0, modes[0]), *cells]

    @property
    def grade(self) -> Grade:
        """Exact."""
        return Grade.EXACT

    def sample(
        self, num: int, *, condition: Tensor | None = None, generator: torch.Generator, level: int = 0
    ) -> Float64[Tensor, "num 1 angles"]:
        """Points, or centres of cells, drawn coarse to fine.

        Raises:
            DataError: If fewer than one is asked for, or there is no such level.
        """
        _no_condition(condition)
        self._require_level(level)
        if num < 1:
            raise DataError(f"num must be >= 1, got {num}")
        top = len(self.tables)
        share = torch.rand(num, generator=generator, dtype=torch.float64, device=generator.device).cpu()
        place = _pick(self.tables[-1].flatten().exp().expand(num, -1), share)
        coarse = self._centre(_unravel(place, COARSEST, self.spec.angles), COARSEST)
        return coarse if level == top else self._grow(coarse, top, level, generator)

    def coarsen(
        self, x: Float[Tensor, "batch channel angles"], level: int, *, generator: torch.Generator | None = None
    ) -> Float[Tensor, "batch 1 angles"]:
        """The point itself at level 0, else the centre of its cell."""
        self._require_level(level)
        cell = self._cell(x, self._edge(max(level, 1)))
        return x if level == 0 else self._centre(cell, self._edge(level)).to(x.dtype)

    def refine(
        self,
        coarse: Float[Tensor, "batch channel angles"],
        *,
        level: int,
        to: int = 0,
        condition: Tensor | None = None,
        generator: torch.Generator,
    ) -> Float[Tensor, "batch 1 angles"]:
        """A draw of the finer cell, or of the point, in the cell that holds ``coarse``."""
        _no_condition(condition)
        self._require_level(level)
        if not 0 <= to < level:
            raise DataError(f"refine goes to a finer level, 0 ... {level - 1}, got to = {to}")
        return self._grow(coarse, level, to, generator).to(coarse.dtype)

    def encode(self, x: Float[Tensor, "batch channel angles"]) -> Pyramid:
        """The centre of the coarsest cell, then the way to each finer centre and at last to the point."""
        centres = [self.coarsen(x, level) for level in range(len(self.tables), -1, -1)]
        return Pyramid(centres[0], tuple(b - a for a, b in pairwise(centres)))

    def decode(self, pyramid: Pyramid) -> Float[Tensor, "batch 1 angles"]:
        """The inverse of ``encode``: a sum."""
        return sum(pyramid.details, pyramid.coarse)

    def log_prob(
        self, x: Float[Tensor, "batch channel angles"], *, condition: Tensor | None = None, per_level: bool = False
    ) -> Float64[Tensor, "batch *levels"]:
        r"""Nats, of a density per rad$^d$.

        Args:
            x: In rad.
            condition: There is none.
            per_level: Give each level's part, the coarsest first: the coarsest cell, each finer cell in the one before,
                the point in the finest.
        """
        _no_condition(condition)
        at = [self._look(table, self._cell(x, table.shape[0])) for table in reversed(self.tables)]
        steps = [fine - coarse for coarse, fine in pairwise(at)]
        inside = torch.full_like(at[0], -self.spec.angles * math.log(2 * math.pi / self.spec.cells))
        return torch.stack([at[0], *steps, inside], 1) if per_level else at[-1] + inside

    def save(self, path: Path) -> None:
        """Write the model to a folder: ``model.toml`` and ``model.safetensors``."""
        path = Path(path)
        path.mkdir(parents=True, exist_ok=True)
        about = {"kind": self.spec.kind, "length": self.length, "foretold": [list(each) for each in self.foretold]}
        write_tensors(path / "model.safetensors", {"field": self.field}, about)
        with atomic(path / "model.toml") as temporary:  # last: it says that the rest is there
            temporary.write_text(to_toml(self.spec), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "PeriodicDensity":
        """Read what ``save`` wrote.

        Raises:
            CheckpointError: If the folder holds no periodic density, or a damaged one.
        """
        path = Path(path)
        if not (path / "model.toml").is_file():
            raise CheckpointError(f"{path} holds no periodic density (there is no model.toml)")
        try:
            model = cls(load_toml(PeriodicDensitySpec, path / "model.toml"))
        except RecipeError as error:
            raise CheckpointError(f"{path} holds no periodic density: {error}") from None
        tensors, about = read_tensors(path / "model.safetensors")
        field = tensors.get("field")
        if field is None or field.shape != model.field.shape or field.dtype != torch.float64:
            raise CheckpointError(f"{path} holds no field of {tuple(model.field.shape)} cells in float64")
        model._set_field(field)
        model.length = about["length"]
        model.foretold = tuple(Smoothness(*each) for each in about["foretold"])
        return model

    # -- inside ------------------------------------------------------------------------------------------------------

    def _set_field(self, field: Tensor) -> None:
        """The field, and the log-probability of each cell at every level, finest first."""
        self.field: Float64[Tensor, "*cells"] = field
        self.tables = [(-field).flatten().log_softmax(0).reshape(field.shape)]
        while self.tables[-1].shape[0] > COARSEST:
            self.tables.append(_children(self.tables[-1]).logsumexp(-1))

    def _edge(self, level: int) -> int:
        return self.tables[level - 1].shape[0]

    def _cell(self, x: Tensor, edge: int) -> Int64[Tensor, "batch angles"]:
        if x.dim() != 3 or tuple(x.shape[1:]) != (1, self.spec.angles):
            raise DataError(f"angles have the shape (batch, 1, {self.spec.angles}), got {tuple(x.shape)}")
        angle = x[:, 0].double()
        if not (angle.abs() <= math.pi + ROUNDING).all():  # also where one is nan
            raise DataError(
                f"angles must be in rad, -pi <= x < pi, got {angle.abs().max():g} (degrees, or not wrapped?)"
            )
        return ((angle + math.pi) / (2 * math.pi) * edge).floor().long() % edge

    def _centre(self, cell: Tensor, edge: int) -> Float64[Tensor, "batch 1 angles"]:
        return ((cell.double() + 0.5) * (2 * math.pi / edge) - math.pi)[:, None]

    def _counts(self, cell: Tensor, weight: Tensor) -> Float64[Tensor, "*cells"]:
        zero = torch.zeros_like(self.tables[0])
        return zero.index_put(tuple(cell.unbind(1)), weight, accumulate=True)

    def _exposure(self, cell: Tensor, weight: Tensor) -> Float64[Tensor, "*cells"]:
        """Log of the exposure of every cell, from weights of at most 1; 0 where all weights are 1."""
        sums = [self._counts(cell, each) for each in (weight, weight**2)]
        at = 2 * math.pi * torch.arange(self.spec.cells, dtype=torch.float64) / self.spec.cells
        away = torch.minimum(at, 2 * math.pi - at)
        near = torch.exp(-((away / EXPOSURE) ** 2) / 2).clamp_min(FARTHEST)
        kernel = torch.stack([near.roll(i) for i in range(self.spec.cells)])
        for _ in range(self.spec.angles):
            sums = [torch.tensordot(each, kernel, ([0], [0])) for each in sums]  # the axes go round once
        return (sums[0] / sums[1]).log()

    def _look(self, table: Tensor, cell: Tensor) -> Float64[Tensor, "batch *children"]:
        return table[tuple(cell.unbind(1))]

    def _grow(
        self, coarse: Tensor, level: int, to: int, generator: torch.Generator
    ) -> Float64[Tensor, "batch 1 angles"]:
        cell = self._cell(coarse, self._edge(level))
        for finer in range(level - 1, max(to, 1) - 1, -1):
            among = self._look(_children(self.tables[finer - 1]), cell).softmax(-1)
            share = torch.rand(len(cell), generator=generator, dtype=torch.float64, device=generator.device).cpu()
            cell = 2 * cell + _unravel(_pick(among, share), 2, self.spec.angles)
        centre = self._centre(cell, self._edge(max(to, 1)))
        if to > 0:
            return centre
        share = torch.rand(centre.shape, generator=generator, dtype=torch.float64, device=generator.device).cpu()
        x = (centre + (share - 0.5) * (2 * math.pi / self.spec.cells)).to(coarse.dtype)
        held = (self._cell(x, self.spec.cells) == cell)[:, None]  # rounding may lead over the edge
        return torch.where(held, x.double(), centre)

    def _require_level(self, level: int) -> None:
        if not 0 <= level <= len(self.tables):
            raise DataError(f"level must be 0 ... {len(self.tables)}, got {level}")


def _children(table: Tensor) -> Tensor:
    """Cells as blocks of two on each axis: (*half, 2 ** axes), the last axis of a block running fastest."""
    half, dim = table.shape[0] // 2, table.dim()
    split = table.reshape([n for _ in range(dim) for n in (half, 2)])
    return split.permute([*range(0, 2 * dim, 2), *range(1, 2 * dim, 2)]).flatten(dim)


def _pick(probability: Tensor, share: Tensor) -> Int64[Tensor, " batch"]:
    """The place at which the sum of probabilities passes each share."""
    rising = probability.cumsum(-1)
    return (rising / rising[:, -1:] <= share[:, None]).sum(-1).clamp_max(probability.shape[-1] - 1)


def _unravel(place: Tensor, edge: int, dim: int) -> Int64[Tensor, "batch angles"]:
    return torch.stack([place // edge ** (dim - 1 - axis) % edge for axis in range(dim)], 1)


def _no_condition(condition: Tensor | None) -> None:
    if condition is not None:
        raise DataError("a periodic density has no classes; leave condition away")
