"""The hallway's methods for token hierarchies: coarsen, refine, sample, log_prob as exact passes over one tree."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped
from sklearn.exceptions import NotFittedError
from torch import Tensor

from renorm.errors import DataError
from renorm.lattice import Lattice
from renorm.model import Grade, Level, Pyramid
from renorm.tokens.codebooks.codebook import Codebook
from renorm.tokens.parts import Family
from renorm.tokens.pictures import Pictures
from renorm.tokens.trees.tree import TreeLaw

__all__ = ["HallwayFace"]

RENDERED = 16  # draws whose mean shows what coarse tokens stand for
ROWS = 4096  # fields encoded together


class HallwayFace:
    """What ``renorm.model.RenormModel`` asks for.

    Level 0 is the field, level 1 the codebook's tokens, then the tokens above them, coarser and coarser. Tokens are
    int64 fields of one channel on their own grid.
    """

    def __getattr__(self, name: str) -> Any:
        """Say that ``fit`` comes first, where a fitted part is asked for too early."""
        if name in ("pictures_", "codebook_", "family_", "law_", "classes_"):
            raise NotFittedError(f"this {type(self).__name__} is not fitted yet; call fit first")
        raise AttributeError(f"'{type(self).__name__}' object has no attribute {name!r}")

    pictures_: Pictures
    codebook_: Codebook
    family_: Family
    law_: TreeLaw

    @property
    def domain(self) -> Lattice:
        """Where a field lives."""
        return self.pictures_.lattice

    @property
    def grade(self) -> Grade:
        """Exact, on the tokens."""
        return Grade.EXACT

    @property
    def levels(self) -> Sequence[Level]:
        """The field, its tokens, and those above, finest first."""
        sites = int(np.prod(self.pictures_.shape[1:]))
        found = [Level(0, np.pi, 0.0, sites)]
        for index, (nodes, grid) in enumerate(self._token_levels, start=1):
            places = len(np.unique(self.codebook_.locations, axis=0)) if index == 1 else len(nodes)
            modes = min(places, found[-1].modes)
            cutoff = float(np.pi * (modes / sites) ** (1 / self.domain.dim))
            found.append(Level(index, cutoff, float(index), modes, (1, *grid)))
        return found

    def sample(
        self, num: int, *, condition: Tensor | None = None, generator: torch.Generator, level: int = 0
    ) -> Tensor:
        """Draw from the root down.

        Args:
            num: How many.
            condition: Class of each (its place in ``classes_``); drawn too if not given.
            generator: Source of randomness.
            level: Where to stop.

        Returns:
            Fields (num, channel, *sites), or tokens of a level > 0.
        """
        self._require_level(level)
        states = self.law_.sample(self._clamped(num, condition), generator=generator)
        return self._at(states, level)

    def coarsen(
        self, x: Float[Tensor, "batch *event"], level: int, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Tokens of a level.

        Args:
            x: Fields.
            level: Which.
            generator: Draws what the tokens below do not fix (styles, hidden states); without it, the likeliest.
        """
        self._require_level(level)
        if level == 0:
            return x.clone()
        return self._at(self._states(x, generator, need=level), level)

    def refine(
        self,
        coarse: Int64[Tensor, "batch *event"],
        *,
        level: int,
        to: int = 0,
        condition: Tensor | None = None,
        generator: torch.Generator,
    ) -> Tensor:
        """A draw of the finer level given the coarse one.

        Raises:
            ValueError: If ``to`` is not finer than ``level``, or a token is unknown.
        """
        self._require_level(level)
        if not 0 <= to < level:
            raise DataError(f"refine goes to a finer level, 0 ... {level - 1}, got to = {to}")
        event = self._event(level)
        if tuple(coarse.shape[1:]) != event:
            raise DataError(f"tokens of level {level} have the shape (batch, *{event}), got {tuple(coarse.shape)}")
        observed = self._clamped(len(coarse), condition)
        observed[:, torch.from_numpy(self._token_levels[level - 1][0])] = coarse.reshape(len(coarse), -1)
        return self._at(self.law_.sample(observed, generator=generator), to)

    def render(self, y: Tensor, level: int) -> Tensor:
        """What tokens of a level look like: the mean field of those that they stand for.

        Level 1 is decoded; above, the mean of 16 draws of what lies below, from a fixed seed.
        """
        self._require_level(level)
        if level == 0:
            return y
        if level == 1:
            return self._decode(y.reshape(len(y), -1))
        generator = torch.Generator().manual_seed(0)
        draws = [self.refine(y, level=level, generator=generator) for _ in range(RENDERED)]
        return torch.stack(draws).mean(0)

    def encode(self, x: Float[Tensor, "batch *event"]) -> Pyramid:
        """Tokens of every level, the coarsest first, and what the tokens do not say of the field."""
        states = self._states(x, None, need=len(self._token_levels))
        levels = [self._at(states, level) for level in range(1, len(self._token_levels) + 1)]
        return Pyramid(levels[-1], (*levels[-2::-1], x - self._at(states, 0)))

    def decode(self, pyramid: Pyramid) -> Tensor:
        """The inverse of ``encode``."""
        tokens = pyramid.details[-2] if len(pyramid.details) > 1 else pyramid.coarse
        return self._decode(tokens.reshape(len(tokens), -1)) + pyramid.details[-1]

    def log_prob(
        self, x: Float[Tensor, "batch *event"], *, condition: Tensor | None = None, per_level: bool = False
    ) -> Tensor:
        r"""Log probability of the tokens of each field, in nats; given the class, if one is given.

        Args:
            x: Fields.
            condition: Class of each field.
            per_level: Give $\ln p$ of each level's tokens given those above, coarsest first: (batch, levels). They sum
                to the log probability of the tokens with all that lies above them, the class summed out nowhere.
        """
        if per_level:
            return self._per_level(self._complete(x, condition))
        joint = self._root_log_prob(self._encode(x))
        if condition is None:
            return joint.logsumexp(-1)
        label = self._labels(len(x), condition)
        return joint.gather(1, label[:, None])[:, 0] - self.law_.root.double().log()[label]

    # -- inside ------------------------------------------------------------------------------------------------------

    @property
    def _token_levels(self) -> list[tuple[np.ndarray, tuple[int, int]]]:
        """Nodes and grid of every level of tokens, finest first."""
        leaves = self.law_.tree.leaves
        grid = self.codebook_.grid or (1, len(leaves))
        if grid[0] * grid[1] != len(leaves):
            grid = (1, len(leaves))
        return [(leaves, grid), *self.family_.coarse_nodes]

    def _require_level(self, level: int) -> None:
        last = len(self._token_levels)
        if not 0 <= level <= last:
            raise DataError(f"level must be 0 ... {last}, got {level}")

    def _event(self, level: int) -> tuple[int, ...]:
        return (1, *self._token_levels[level - 1][1]) if level else self.domain.event_shape

    def _clamped(self, number: int, condition: Tensor | None) -> Tensor:
        """Nothing seen but, if given, the class."""
        observed = torch.full((number, len(self.law_.tree)), -1)
        if condition is not None:
            observed[:, 0] = self._labels(number, condition)
        return observed

    def _labels(self, number: int, condition: Tensor) -> Tensor:
        """Class of each field, checked."""
        classes = len(self.law_.root)
        condition = torch.as_tensor(condition)
        condition = condition.expand(number) if condition.ndim == 0 else condition
        if classes == 1:
            raise DataError("a condition needs classes, this model was fitted without labels; drop it")
        whole = not (condition.is_floating_point() or condition.is_complex())
        if not whole or condition.shape != (number,) or condition.min() < 0 or condition.max() >= classes:
            wrong = condition.unique().tolist()[:8]
            raise DataError(
                f"a condition (label) must be a whole number in 0 ... {classes - 1}, one for each of {number} fields, "
                f"got {wrong} of shape {tuple(condition.shape)}"
            )
        return condition.long()

    def _encode(self, x: Tensor) -> Tensor:
        if len(x) == 0:
            raise DataError(f"there must be at least one field, got none (shape {tuple(x.shape)})")
        arrays = x.detach().cpu().numpy()
        parts = [arrays[i : i + ROWS] for i in range(0, len(arrays), ROWS)]
        tokens = [self.codebook_.encode(self.pictures_.images(part)) for part in parts]
        return torch.from_numpy(np.concatenate(tokens))

    def _decode(self, tokens: Shaped[Tensor, "batch positions"]) -> Tensor:
        return torch.from_numpy(self.pictures_.fields(self.codebook_.decode(tokens.numpy())))

    def _states(self, x: Tensor, generator: torch.Generator | None, *, need: int) -> Tensor:
        """State of every node up to level ``need``: functions of the tokens where they are, else drawn or likeliest."""
        tokens = self._encode(x)
        unknown = np.full(len(tokens), -1, np.int64)
        states = torch.from_numpy(self.family_.states(tokens.numpy(), unknown))
        wanted = np.concatenate([nodes for nodes, _ in self._token_levels[:need]])
        if (states[:, torch.from_numpy(wanted)] >= 0).all():
            return states
        if generator is None:
            return self.law_.most_probable(states)
        return self.law_.sample(states, generator=generator)

    def _complete(self, x: Tensor, condition: Tensor | None) -> Tensor:
        """Every node's state, the likeliest where nothing fixes it."""
        tokens = self._encode(x)
        labels = np.full(len(x), -1, np.int64) if condition is None else self._labels(len(x), condition).numpy()
        return self.law_.most_probable(torch.from_numpy(self.family_.states(tokens.numpy(), labels)))

    def _at(self, states: Tensor, level: int) -> Tensor:
        if level == 0:
            return self._decode(states[:, torch.from_numpy(self.law_.tree.leaves)])
        nodes, grid = self._token_levels[level - 1]
        return states[:, torch.from_numpy(nodes)].reshape(len(states), 1, *grid)

    def _root_log_prob(self, tokens: Tensor) -> Tensor:
        """ln p(class, tokens) in float64."""
        if not self.family_.lossless:
            return self.law_.root_log_prob(self.law_.observe(tokens)).double()
        # Tokens fix everything above them: no other state has any probability, so there is nothing to sum.
        found = []
        for label in range(len(self.law_.root)):
            states = self.family_.states(tokens.numpy(), np.full(len(tokens), label))
            found.append(self._edges(torch.from_numpy(states)).sum(-1))
        return torch.stack(found, dim=-1)

    def _edges(self, states: Tensor) -> Tensor:
        """ln p of each node given its parent."""
        law = self.law_
        each = torch.zeros(states.shape, dtype=torch.float64)
        each[:, 0] = law.root.double().log()[states[:, 0]]
        for layer, tables in zip(law.tree.layers, law.tables, strict=True):
            parent, child = states[:, layer.parents], states[:, layer.nodes]
            each[:, layer.nodes] = tables[torch.from_numpy(layer.table), parent, child].double().log()
        return each

    def _per_level(self, states: Tensor) -> Tensor:
        """Edges added up over each level; what is on no level goes to the coarsest."""
        each = self._edges(states)
        levels, above = [], [nodes for nodes, _ in self._token_levels[1:]] + [np.empty(0, np.int64)]
        for (nodes, _), coarser in zip(self._token_levels, above, strict=True):
            levels.append(each[:, np.setdiff1d(nodes, coarser)].sum(-1))  # shells are nested: each edge counts once
        levels[-1] = levels[-1] + each.sum(-1) - torch.stack(levels).sum(0)
        return torch.stack(levels[::-1], dim=-1)
