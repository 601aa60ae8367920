r"""A network on chains of points in space that turns with them: points, scale and sequence in, one vector a point out.

A point sees every other one in its own frame, which three neighbours along the chain make right-handed; what it answers
is told in that frame. So rotations and translations of the chain commute with the network, exactly, and reflections do
not: a chain and its mirror image are different inputs.

The points may be fewer than the residues: a coarse chain whose points stand for stretches of it.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from renorm.errors import RecipeError
from renorm.nn.embedding import sinusoids
from renorm.nn.initial import xavier
from renorm.nn.spec import ChainNetSpec

__all__ = ["LETTERS", "ChainNet", "Points", "frames", "pooling"]

LETTERS = 21
"""Kinds of residues: twenty amino acids and the unknown one. The next number stands for a chain without a sequence."""

BOND = 3.8  # angstrom, of neighbouring residues: the unit of length
SOFT = 0.1  # frames fade where vectors are shorter than this, in typical lengths of a step of the chain
DISTANCES, OFFSETS = 12, 8  # bumps that tell distances in space, and along the chain
QUIET = 1e-3  # gain of the last layer of every branch: a new network starts close to zero
REACH = 4  # points on either side along the chain that one knows exactly where they stand
PAIRS = 2**20  # more of them at once are looked at in rows, and anew in each layer: memory stays linear in the points


class Points(NamedTuple):
    """Chains of points, padded to the longest of the batch.

    Attributes:
        x: Where they are, in angstrom; anything beyond ``number``.
        number: How many points each chain has.
        residues: How many residues these stand for.
    """

    x: Float[Tensor, "batch 3 points"]
    number: Int64[Tensor, " batch"]
    residues: Int64[Tensor, " batch"]

    @property
    def mask(self) -> Bool[Tensor, "batch points"]:
        """Which are there."""
        return torch.arange(self.x.shape[2], device=self.x.device) < self.number[:, None]


def frames(
    x: Float[Tensor, "batch points 3"], count: Int64[Tensor, " batch"], soft: Float[Tensor, " batch"]
) -> Float[Tensor, "batch points 3 3"]:
    r"""Right-handed frames of the points, from each one's neighbours along the chain: rows $e_1, e_2, e_3$.

    $$ e_1 = \frac{d}{\sqrt{d^2 + s^2}},\quad e_2 = \frac{v}{\sqrt{v^2 + s^2}},\quad e_3 = e_1\times e_2, \qquad
       d_j = x_{j+1} - x_{j-1},\quad v_j = (1 - e_1 e_1^\top)(x_{j+1} - 2x_j + x_{j-1}) $$

    Where neighbours stand in a line, or on one spot, a frame fades away: no direction there is told from another.

    Args:
        x: Points, in angstrom.
        count: Of each chain; a chain needs three.
        soft: s, in angstrom.

    Example:
        >>> corner = torch.tensor([[[0.0, 0, 0], [4, 0, 0], [4, 4, 0]]])
        >>> frames(corner, torch.tensor([3]), torch.tensor([1e-6]))[0, 1].round(decimals=2)
        tensor([[ 0.7100,  0.7100,  0.0000],
                [-0.7100,  0.7100,  0.0000],
                [ 0.0000, -0.0000,  1.0000]])
    """
    place = torch.arange(x.shape[1], device=x.device)
    middle = torch.minimum(place.clamp(min=1), (count[:, None] - 2).clamp(min=1))
    before, here, after = (_take(x, middle + step) for step in (-1, 0, 1))
    s_sq = soft[:, None, None] ** 2
    d, bend = after - before, after - 2 * here + before
    e1 = d * torch.rsqrt(d.square().sum(-1, keepdim=True) + s_sq)
    # By its length, which the softened vector falls short of: else what is parallel would remain.
    v = bend - d * (bend * d).sum(-1, keepdim=True) / d.square().sum(-1, keepdim=True).clamp(min=1e-12)
    e2 = v * torch.rsqrt(v.square().sum(-1, keepdim=True) + s_sq)
    return torch.stack([e1, e2, torch.linalg.cross(e1, e2)], dim=2)


def _neighbours(x: Tensor, number: Tensor) -> Float[Tensor, "batch points neighbours 3"]:
    """From each point to those near it along the chain, on either side; nothing beyond the ends."""
    place = torch.arange(x.shape[1], device=x.device)
    offsets = [step for step in range(-REACH, REACH + 1) if step != 0]
    last = (number[:, None] - 1).clamp(min=0)
    return torch.stack([_take(x, torch.minimum((place + step).clamp(min=0), last)) - x for step in offsets], dim=2)


def _take(x: Tensor, index: Tensor) -> Tensor:
    return x.gather(1, index.clamp(max=x.shape[1] - 1)[..., None].expand(-1, -1, x.shape[2]))


def pooling(
    count: Int64[Tensor, " batch"], residues: Int64[Tensor, " batch"], points: int, length: int
) -> Float[Tensor, "batch points length"]:
    r"""Shares of the residues in each point: point j of m stands for the stretch from $jN/m$ to $(j + 1)N/m$.

    Example:
        >>> pooling(torch.tensor([2]), torch.tensor([3]), 2, 4)
        tensor([[[0.6667, 0.3333, 0.0000, 0.0000],
                 [0.0000, 0.3333, 0.6667, 0.0000]]])
    """
    stretch = (residues / count)[:, None, None]
    begin = torch.arange(points, device=count.device)[None, :, None] * stretch
    i = torch.arange(length, device=count.device)[None, None, :]
    inside = torch.minimum(begin + stretch, i + 1.0) - torch.maximum(begin, i + 0.0)
    there = torch.arange(points, device=count.device)[None, :, None] < count[:, None, None]
    return (inside.clamp(min=0) / stretch) * there * (i < residues[:, None, None])


class ChainNet(nn.Module):
    r"""Points of a chain, its scale and its residues to one vector a point: $(x, t, s) \mapsto f$.

    $$ f(Rx + a, t, s) = R f(x, t, s) \quad (\det R = 1) $$

    Points attend to each other by what they are, by how far apart they stand in space and along the chain, and by
    where one stands, and which way it goes, in the other's frame.

    Args:
        spec: Width, depth, and what is told of the residues.
        generator: Draws the initial weights; torch's own if not given.

    Raises:
        RecipeError: If features are given that the network does not have, or not given though it has them.

    Invariant: Rotations and translations commute with it; a reflection gives another answer. No chain of a batch
    sees another, nor what pads it.

    Source: Attention by pairs and frames after Jumper et al., Nature 596, 583 (2021), much smaller.

    Example:
        >>> net = ChainNet(ChainNetSpec(width=16, layers=1))
        >>> points = Points(torch.randn(2, 3, 10), torch.tensor([10, 7]), torch.tensor([40, 7]))
        >>> net(points, torch.rand(2)).shape
        torch.Size([2, 3, 10])
    """

    def __init__(self, spec: ChainNetSpec, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.spec = spec
        width = spec.width
        self.letters = nn.Embedding(LETTERS + 1, width)
        self.near = nn.Conv1d(width, width, 2 * spec.context + 1, padding=spec.context)
        self.features = nn.Linear(spec.features, width) if spec.features else None
        self.scale = nn.Sequential(nn.Linear(width + 2, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))
        self.place = nn.Linear(4 + 6 * REACH, width)
        seen = 9 + DISTANCES + 1 + 2 * OFFSETS
        self.pair = nn.Sequential(nn.Linear(seen, spec.pair), nn.SiLU(), nn.Linear(spec.pair, spec.pair))
        self.layers = nn.ModuleList([Round(spec) for _ in range(spec.layers)])
        self.norm = nn.LayerNorm(width)
        self.local, self.steps = nn.Linear(width, 3), nn.Linear(width, 2 * REACH)
        self.pulls = nn.Linear(width, 2 * PULL)
        self.pull = nn.Linear(spec.pair, 1)
        _initialise(self, generator)

    def forward(
        self,
        points: Points,
        t: Float[Tensor, " batch"],
        letters: Int64[Tensor, "batch length"] | None = None,
        features: Float[Tensor, "batch length feature"] | None = None,
    ) -> Float[Tensor, "batch 3 points"]:
        """Vectors; 0 where there is no point.

        Args:
            points: The chains.
            t: Scale, 0 (finest) to 1 (coarsest).
            letters: Kind of each residue, ``LETTERS`` where it is not told; not told of any if not given.
            features: Further features of the residues.
        """
        if (features is None) != (self.features is None):
            what = "has no features of residues" if self.features is None else "needs the features of the residues"
            raise RecipeError(f"this network {what} (it was built with features={self.spec.features})")
        stretch = points.residues / points.number
        cond = self.scale(torch.cat([sinusoids(t, self.spec.width), _numbers(points, stretch)], dim=1))
        view = _View(self.pair, points, stretch)
        near = torch.einsum("bjac,bjnc->bjna", view.frames, view.near).flatten(2)
        h = self.place(torch.cat([_ends(points, stretch), near], dim=-1)) + self._told(points, letters, features)
        for layer in self.layers:
            h = layer(h, cond, view)
        h = self.norm(h)
        y = torch.einsum("bja,bjac->bjc", self.local(h), view.frames) + self._pulled(h, view)
        y = y + torch.einsum("bjn,bjnc->bjc", self.steps(h), view.near)
        return torch.where(view.mask[..., None], y, 0.0).mT

    def _told(self, points: Points, letters: Tensor | None, features: Tensor | None) -> Tensor:
        """What the residues of each point are: the mean over its stretch."""
        if letters is None:
            shape = (len(points.number), int(points.residues.max()))
            letters = torch.full(shape, LETTERS, device=points.x.device)
        elif not self.spec.sequence:
            letters = torch.full_like(letters, LETTERS)
        residue = self.letters(letters)
        if self.features is not None and features is not None:
            residue = residue + self.features(features)
        there = torch.arange(letters.shape[1], device=letters.device) < points.residues[:, None]
        residue = residue * there[..., None]
        residue = residue + F.silu(self.near(residue.mT)).mT * there[..., None]
        share = pooling(points.number, points.residues, points.x.shape[2], letters.shape[1])
        return share @ residue

    def _pulled(self, h: Tensor, view: "_View") -> Tensor:
        """Every point drawn towards, or away from, every other one, by a weight of the pair."""
        own, other = self.pulls(h).chunk(2, dim=-1)
        own = own / PULL
        parts = []
        for rows in view.rows():
            pair = view.look(rows)
            weight = own[:, rows] @ other.mT + self.pull(pair.seen).squeeze(-1)
            parts.append((weight[:, :, None] @ pair.direction).squeeze(2))
        return torch.cat(parts, dim=1) / view.points.number[:, None, None]


PULL = 16  # channels by which two points agree on how they pull
NOWHERE = -1e9  # logit of a point that is not there


class _Pairs(NamedTuple):
    """What some points see of all: each with as many channels as the last axis has."""

    seen: Tensor  # what the network of pairs makes of a pair
    told: Tensor  # the same, and the direction in the frame of the first
    direction: Tensor  # unit vectors in space, shorter where they are near; 0 to where there is no point


class _View:
    """What every point sees of every other one: made once, or row by row where that would fill the memory."""

    def __init__(self, pair: nn.Sequential, points: Points, stretch: Tensor) -> None:
        self.pair, self.points, self.mask = pair, points, points.mask
        # Coordinates lose digits far from the origin, and only differences count.
        x = points.x.mT
        centre = torch.where(self.mask[..., None], x, 0.0).sum(1, keepdim=True) / points.number[:, None, None]
        self.x = torch.where(self.mask[..., None], x - centre, 0.0)
        unit = BOND * stretch.sqrt()  # a typical step of the chain
        self.frames = frames(self.x, points.number, SOFT * unit)
        self.near = _neighbours(self.x, points.number) / unit[:, None, None, None]
        batch, number, _ = self.x.shape
        first = pair[0]
        assert isinstance(first, nn.Linear)
        self.by_place, by_ways, by_distance, by_offset = first.weight.split([3, 6, DISTANCES + 1, 2 * OFFSETS], dim=1)
        self.by_place = torch.cat([self.by_place, by_distance], dim=1)
        # How two points are turned, without a channel for each pair of axes.
        ways = torch.einsum("pda,bjac->bjdcp", by_ways.unflatten(1, (2, 3)), self.frames)
        self.ways = ways.flatten(2, 3)
        self.axes = self.frames[:, :, :2].flatten(2)
        offset = torch.arange(1 - number, number, device=x.device) * stretch[:, None]
        self.apart = offset.abs().log1p()
        steps = _bumps(self.apart[..., None], OFFSETS, math.log1p(500.0))
        steps = torch.cat([steps, steps * offset.sign()[..., None]], dim=-1)
        self.offsets = steps @ by_offset.mT + first.bias  # one for each distance along the chain
        self.step = number if torch.is_grad_enabled() else max(1, PAIRS // (batch * number))
        self.kept = self._look(slice(0, number)) if self.step >= number else None

    def rows(self) -> list[slice]:
        """The points, a few at a time."""
        number = self.x.shape[1]
        return [slice(first, min(first + self.step, number)) for first in range(0, number, self.step)]

    def look(self, rows: slice) -> _Pairs:
        """Pairs of these points with all."""
        return self._look(rows) if self.kept is None else self.kept

    def _look(self, rows: slice) -> _Pairs:
        number = self.x.shape[1]
        difference = self.x[:, None] - self.x[:, rows, None]
        distance = torch.sqrt(difference.square().sum(-1, keepdim=True) + 1e-6)
        direction = difference / (distance + BOND)
        local = direction @ self.frames[:, rows].mT
        far = (distance / BOND).log1p()
        place = torch.arange(number, device=self.x.device)
        apart = place - place[rows, None] + number - 1
        ratio = far - 0.5 * self.apart[:, apart, None]  # 0 for a random walk
        near = torch.cat([local, _bumps(far, DISTANCES, math.log1p(100.0)), ratio], dim=-1)
        first = near @ self.by_place.mT + self.axes[:, None] @ self.ways[:, rows] + self.offsets[:, apart]
        seen = self.pair[1:](first)
        return _Pairs(seen, torch.cat([seen, local], dim=-1), direction * self.mask[:, None, :, None])


class Round(nn.Module):
    """Attention of points to each other, then a small network at each; scale and size of the chain steer both."""

    def __init__(self, spec: ChainNetSpec) -> None:
        super().__init__()
        width = spec.width
        self.heads = spec.heads
        self.norm1, self.norm2 = (nn.LayerNorm(width, elementwise_affine=False) for _ in range(2))
        self.steer = nn.Linear(width, 4 * width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.bias = nn.Linear(spec.pair, spec.heads, bias=False)
        self.out = nn.Linear(width + spec.heads * (spec.pair + 3), width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))

    def forward(self, h: Tensor, cond: Tensor, view: _View) -> Tensor:
        gain1, shift1, gain2, shift2 = self.steer(F.silu(cond))[:, None].chunk(4, dim=-1)
        h = h + self.out(self._attend(self.norm1(h) * (1 + gain1) + shift1, view))
        y: Tensor = h + self.mlp(self.norm2(h) * (1 + gain2) + shift2)
        return y

    def _attend(self, h: Tensor, view: _View) -> Tensor:
        """What each point gathers: values of the others, of the pairs, and directions in its own frame."""
        query, key, value = self.query_key_value(h).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query = query / math.sqrt(query.shape[-1])
        # One more channel tells where there is no point: no share falls there.
        there = torch.where(view.mask, 0.0, NOWHERE).to(key)[:, None, :, None].expand(-1, self.heads, -1, 1)
        key, query = torch.cat([key, there], dim=-1), F.pad(query, (0, 1), value=1.0)
        parts = []
        for rows in view.rows():
            pair = view.look(rows)
            bias = (self.bias.weight @ pair.seen.flatten(1, 2).mT).unflatten(2, pair.seen.shape[1:3])
            share = (query[:, :, rows] @ key.mT + bias).softmax(dim=-1)
            gathered = (share @ value).transpose(1, 2).flatten(2)
            by_pair = share.transpose(1, 2) @ pair.told
            parts.append(torch.cat([gathered, by_pair.flatten(2)], dim=-1))
        return torch.cat(parts, dim=1)


def _bumps(x: Float[Tensor, "*batch 1"], number: int, last: float) -> Float[Tensor, "*batch bumps"]:
    """Gaussian bumps at even places from 0 to ``last``."""
    sharp = number / last * math.sqrt(0.5)
    d = sharp * x - torch.linspace(0, sharp * last, number, device=x.device, dtype=x.dtype)
    return torch.exp(-d * d)


def _numbers(points: Points, stretch: Tensor) -> Float[Tensor, "batch 2"]:
    """How long a chain is, and how coarse."""
    return torch.stack([points.residues.log() / 5 - 1, stretch.log()], dim=1).to(points.x)


def _ends(points: Points, stretch: Tensor) -> Float[Tensor, "batch points 4"]:
    """How far each point is from either end, in residues and in shares of the chain."""
    along = (torch.arange(points.x.shape[2], device=points.x.device) + 0.5) * stretch[:, None]
    length = points.residues[:, None]
    both = [along, (length - along).clamp(min=0)]
    return torch.stack([*(d / length for d in both), *(torch.exp(-d / 4) for d in both)], dim=-1).to(points.x)


def _initialise(net: ChainNet, generator: torch.Generator | None) -> None:
    """Xavier-uniform weights and zero biases; the last layer of every branch, and of the network, near zero."""
    xavier(net, generator)
    with torch.no_grad():
        quiet = [net.local, net.steps, net.pull, net.pulls]
        for layer in net.layers:
            assert isinstance(layer, Round)
            quiet += [layer.out, layer.mlp[2], layer.steer]  # type: ignore[list-item]
        for layer in quiet:
            layer.weight.mul_(QUIET**0.5 if layer is net.pulls else QUIET)
