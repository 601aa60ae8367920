"""``ClusterModel``: a law of clusters in the hallway; its levels are the cluster with fewer and fewer particles."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from renorm.cascade.clusters.adding import AddingLaw, DrawnCluster, shuffled
from renorm.cascade.clusters.spec import ClusterFit, ClusterSpec
from renorm.cascade.clusters.thinning import Thinning
from renorm.cascade.learning.descent import Keeper, Tell, descend
from renorm.errors import CheckpointError, DataError, NoLikelihoodError, RecipeError
from renorm.fit.checkpoint import atomic, load_weights, read_tensors, write_tensors
from renorm.fit.randomness import seed_of
from renorm.lattice import Lattice
from renorm.model import Grade, Level, Pyramid
from renorm.spec import load_toml, to_toml

__all__ = ["ClusterModel"]

TOGETHER = 250  # clusters that are drawn at once
MEASURED = 4000  # by which the law is given its units
SURE = 1e6  # sharpness of the way down where no randomness is given


@dataclass(frozen=True)
class _Card:
    """What ``model.toml`` says."""

    spec: ClusterSpec
    particles: int
    dim: int
    kind: Literal["clusters"] = "clusters"


class ClusterModel(nn.Module):
    r"""A renormalizing model of equal particles: level l is the cluster without the l that leave first.

    The way down is random (``Thinning``), the way up adds particles to those that are there (``AddingLaw``). Draws have
    exact weights in the law of an energy, $\langle w \rangle = Z$; a cluster by itself has no density that can be
    summed, over the n! orders in which it may have come.

    Args:
        spec: The law.
        particles: n.
        dim: 2 or 3.
        seed: Of the first weights.

    Raises:
        ValueError: If there are fewer than two particles, or ``dim`` is neither 2 nor 3.

    Invariant:
        ``refine`` leaves the particles that are there where they are.

    Example:
        >>> model = ClusterModel(ClusterSpec(width=8, parts=2), 4, 2)
        >>> coarse = model.sample(3, generator=torch.Generator().manual_seed(0), level=2)
        >>> fine = model.refine(coarse, level=2, generator=torch.Generator().manual_seed(1))
        >>> coarse.shape, fine.shape, torch.equal(fine[..., :2], coarse)
        (torch.Size([3, 2, 2]), torch.Size([3, 2, 4]), True)
    """

    def __init__(self, spec: ClusterSpec, particles: int, dim: int, *, seed: int = 0) -> None:
        super().__init__()
        self.spec, self.particles, self.dim = spec, particles, dim
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.law = AddingLaw(
                particles,
                dim,
                thinning=Thinning(spec.rule, spec.sharpness),
                unit=spec.unit,
                spread=spec.spread,
                width=spec.width,
                parts=spec.parts,
                vectors=spec.vectors,
                candidates=spec.candidates,
            )

    # -- the hallway -------------------------------------------------------------------------------------------------

    @property
    def domain(self) -> Lattice:
        """Particles along one axis, a channel for each component."""
        return Lattice((self.particles,), channels=self.dim)

    @property
    def levels(self) -> Sequence[Level]:
        """Finest first: n particles, n - 1, ..., 1; cutoffs are those of as many sites in space."""
        found = []
        for index in range(self.particles):
            left = self.particles - index
            cutoff = math.pi * (left / self.particles) ** (1 / self.dim)
            found.append(Level(index, cutoff, float(index), left * self.dim, (self.dim, left)))
        return found

    @property
    def grade(self) -> Grade:
        """None: draws have weights, clusters no density."""
        return Grade.NONE

    def fit(
        self,
        x: Tensor,
        *,
        condition: Tensor | None = None,
        spec: ClusterFit | None = None,
        tell: Tell | None = None,
        keeper: Keeper | None = None,
    ) -> "ClusterModel":
        """Learn from samples; see ``AddingLaw.loss``.

        Args:
            x: Clusters (batch, dim, particles); where they are and how they are turned does not matter.
            condition: There is none.
            spec: Steps, batch, rate, candidates and seed.
            tell: Told of each step: how many are done, and the loss in nats.
            keeper: Where a training that may be stopped is kept.

        Raises:
            DataError: If there are fewer than two clusters, of another shape, or a position is not finite.
            NonFiniteLossError: If the loss is no number.
        """
        _no_condition(condition)
        spec = spec or ClusterFit()
        generator = torch.Generator().manual_seed(seed_of(spec.seed, "noise", 0))
        self.law.standardise(x[:MEASURED], generator=generator)

        def loss() -> tuple[Tensor, float]:
            index = torch.randint(len(x), (min(spec.batch, len(x)),), generator=generator)
            nats = self.law.loss(x[index], candidates=spec.candidates, generator=generator)
            return nats.mean(), float(nats.detach().std()) if len(nats) > 1 else math.nan

        size = {"steps": spec.steps, "rate": spec.rate, "tell": tell, "keeper": keeper, "generator": generator}
        descend(self.law.parameters(), loss, **size)  # type: ignore[arg-type]
        return self

    @torch.no_grad()
    def sample(
        self, num: int, *, condition: Tensor | None = None, generator: torch.Generator, level: int = 0
    ) -> Float[Tensor, "num dim particles"]:
        """Clusters of a level, their particles in no order."""
        _no_condition(condition)
        self._require_level(level)
        if num < 1:
            raise DataError(f"num must be >= 1, got {num}")
        if level == 0:
            return self.draw(num, generator=generator).x
        # The particles that came first in whole clusters: the model's own law of the level.
        whole = (self.law.ordered(min(TOGETHER, num - k), generator=generator)[0] for k in range(0, num, TOGETHER))
        return torch.cat([shuffled(at[:, : self.particles - level], generator) for at in whole])

    def coarsen(
        self, x: Float[Tensor, "batch dim particles"], level: int, *, generator: torch.Generator | None = None
    ) -> Float[Tensor, "batch dim left"]:
        """The particles that stay; without a generator those leave that are likeliest to, one by one."""
        self._require_level(level)
        self._require(x, 0)
        if level == 0:
            return x
        law = self.law.thinning
        if generator is None:
            law, generator = Thinning(law.rule, SURE), torch.Generator().manual_seed(0)
        return law.order(x, generator=generator).at[:, : self.particles - level].transpose(1, 2)

    @torch.no_grad()
    def refine(
        self,
        coarse: Float[Tensor, "batch dim there"],
        *,
        level: int,
        to: int = 0,
        condition: Tensor | None = None,
        generator: torch.Generator,
    ) -> Float[Tensor, "batch dim particles"]:
        """Clusters with more particles around those that are there, which stay."""
        _no_condition(condition)
        self._require_level(level)
        if not 0 <= to < level:
            raise DataError(f"refine goes from a coarser level to a finer one, got level = {level} and to = {to}")
        self._require(coarse, level)
        parts = [
            self.law.arrive(at, particles=self.particles - to, generator=generator)[0]
            for at in coarse.transpose(1, 2).split(TOGETHER)
        ]
        return torch.cat(parts).transpose(1, 2)

    def encode(self, x: Float[Tensor, "batch dim particles"]) -> Pyramid:
        """The first particle, then each next one seen from the centre of those before it."""
        self._require(x, 0)
        steps = [x[..., k : k + 1] - x[..., :k].mean(2, keepdim=True) for k in range(1, self.particles)]
        return Pyramid(x[..., :1], tuple(steps))

    def decode(self, pyramid: Pyramid) -> Float[Tensor, "batch dim particles"]:
        """The inverse of ``encode``."""
        x = pyramid.coarse
        for step in pyramid.details:
            x = torch.cat([x, x.mean(2, keepdim=True) + step], 2)
        return x

    def log_prob(self, x: Tensor, *, condition: Tensor | None = None, per_level: bool = False) -> Tensor:
        """NoLikelihoodError: a density would be a sum over all orders."""
        raise NoLikelihoodError(
            "a cluster has no density here (it is a sum over all orders in which its particles may have come); draws "
            "have exact weights, see draw and AddingLaw.log_weight"
        )

    def save(self, path: Path) -> None:
        """Write the model to a folder: ``model.toml`` and ``model.safetensors``."""
        path = Path(path)
        path.mkdir(parents=True, exist_ok=True)
        write_tensors(path / "model.safetensors", self.state_dict(), {"kind": "clusters"})
        with atomic(path / "model.toml") as temporary:  # last: it says that the rest is there
            temporary.write_text(to_toml(_Card(self.spec, self.particles, self.dim)), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "ClusterModel":
        """Read what ``save`` wrote.

        Raises:
            CheckpointError: If the folder holds no law of clusters, or a damaged one.
        """
        path = Path(path)
        if not (path / "model.toml").is_file():
            raise CheckpointError(f"{path} holds no law of clusters (there is no model.toml)")
        try:
            card = load_toml(_Card, path / "model.toml")
            model = cls(card.spec, card.particles, card.dim)
        except (RecipeError, ValueError) as error:
            raise CheckpointError(f"{path} holds no law of clusters: {error}") from None
        tensors, _ = read_tensors(path / "model.safetensors")
        load_weights(model, tensors, source=str(path))
        return model

    # -- what only clusters can do -----------------------------------------------------------------------------------

    def draw(self, num: int, *, generator: torch.Generator) -> DrawnCluster:
        """Clusters with what they weigh, some at a time; ``law.log_weight(energy, drawn)`` gives ln w."""
        drawn = [self.law.draw(min(TOGETHER, num - k), generator=generator) for k in range(0, max(num, 1), TOGETHER)]
        return DrawnCluster(*(torch.cat(part) for part in zip(*drawn, strict=True)))

    def shown(self, y: Float[Tensor, "batch dim there"]) -> Float[Tensor, "batch dim particles"]:
        """Coarse clusters as whole ones for the eye: particles that are not there have no place (nan)."""
        return torch.cat([y, y.new_full((*y.shape[:2], self.particles - y.shape[2]), torch.nan)], 2)

    def _require_level(self, level: int) -> None:
        if not 0 <= level < self.particles:
            raise DataError(f"level must be 0 ... {self.particles - 1}, got {level}")

    def _require(self, x: Tensor, level: int) -> None:
        shape = (self.dim, self.particles - level)
        if tuple(x.shape[1:]) != shape:
            raise DataError(f"clusters of level {level} must be (batch, {shape[0]}, {shape[1]}), got {tuple(x.shape)}")


def _no_condition(condition: Tensor | None) -> None:
    if condition is not None:
        raise DataError(f"clusters have no condition, got {tuple(condition.shape)}")
