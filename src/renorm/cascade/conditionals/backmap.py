"""Backmapping: pairs of atoms drawn along a chain, given where the pairs' centres are; it turns with them."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from renorm.cascade.conditional import CascadeConditional, Draw
from renorm.cascade.conditionals.mixture import MixtureHead
from renorm.errors import DataError
from renorm.nn.dense import dense
from renorm.nn.spline import NARROW, Knots, unit_knots
from renorm.spec import require

__all__ = ["ChainBackmap", "frames"]

AHEAD, BEHIND, NEAR = 3, 3, 4  # beads further on, atoms before, and whatever else is near, that a pair looks at
FAR = 10.0  # bond lengths: what is farther is told as if it were here
LEAST = 1e-6


class _Placed(NamedTuple):
    """Pairs in the frame that what came before gives them; rows of numbers.

    Attributes:
        seen: What the networks may know, turned into the frame, (rows, inputs).
        frame: Its three axes, (rows, 3, 3), axis by component.
        reach: From the atom before to the bead, (rows,).
    """

    seen: Tensor
    frame: Tensor
    reach: Tensor


class ChainBackmap(CascadeConditional):
    r"""Both atoms of every bead of a chain, pair after pair, each given all beads and the atoms before it.

    The first atom a of the pair at c, in the frame whose first axis leads from the atom before, p, to c, is told by an
    angle around that axis and two lengths, which bonds keep narrow:

    $$ p(y) = \tfrac18\,p(\varphi)\,p(s \mid \varphi)\,p(r \mid s, \varphi)\Big/\frac{r\,s}{d}, \quad
       s = |a - c| = \tfrac12|y|,\ r = |a - p|,\ d = |c - p|, \qquad y = x_{2i+1} - x_{2i} $$

    Beads are pairs of equal masses along the chain, as ``Beads`` makes them of neighbours (``Graph.linear`` of an even
    number of atoms).

    $\varphi$ has a monotone spline on the circle, $\ln s$ a mixture of Gaussians, and r a spline on all lengths that
    close the triangle, $|d - s| \le r \le d + s$. The networks see distances and components in the frame alone, so the
    law of turned and shifted beads is the turned law: $p(Ry \mid Rc + t) = p(y \mid c)$ for rotations R.

    Args:
        beads: How many there are, at least 3 (two would leave an angle open).
        bond: About the distance of neighbouring atoms: the unit in which the networks see lengths; not given: the mean
            length of the details that ``standardise`` sees.
        width, layers: Of the networks.
        bins: Of the splines.
        components: Of the mixture.

    Raises:
        ValueError: If a value is out of range.

    Example:
        >>> law = ChainBackmap(4)
        >>> c = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(0))
        >>> draw = law.draw(c, generator=torch.Generator().manual_seed(1))
        >>> draw.value.shape, torch.allclose(law.log_prob(draw.value, c), draw.log_prob, atol=1e-3)
        (torch.Size([5, 3, 4]), True)
    """

    reparametrised = False

    def __init__(
        self,
        beads: int,
        *,
        bond: float | None = None,
        width: int = 64,
        layers: int = 2,
        bins: int = 16,
        components: int = 4,
    ) -> None:
        super().__init__()
        require(beads >= 3, "beads must be >= 3 (fewer leave an angle open)", beads)
        require(bond is None or bond > 0, "bond must be > 0, in units of length", bond)
        require(2 <= bins < 1 / NARROW, "bins must be >= 2 (one piece bends nothing), and not a thousand", bins)
        require(width >= 1 and layers >= 1, "width and layers must be >= 1", (width, layers))
        self.beads, self.bins, self.measured = beads, bins, bond is None
        self.length = MixtureHead(components)
        seen = 3 + 4 * (AHEAD + BEHIND + NEAR)
        self.around = dense(seen, 3 * bins, width=width, layers=layers, still=True)
        self.along = dense(seen + 2, self.length.size, width=width, layers=layers, still=True)
        self.across = dense(seen + 5, 3 * bins + 1, width=width, layers=layers, still=True)
        unit = 1.0 if bond is None else float(bond)
        self.register_buffer("bond", torch.tensor(unit))
        self.register_buffer("centre", torch.tensor(math.log(unit / 2)))
        self.register_buffer("spread", torch.tensor(0.1))

    bond: Tensor
    centre: Tensor
    spread: Tensor

    @torch.no_grad()
    def standardise(self, detail: Float[Tensor, "batch 3 beads"], coarse: Float[Tensor, "batch 3 beads"]) -> None:
        r"""Take mean and spread of $\ln s$ from samples, and the unit of length where none was given."""
        if self.measured:
            self.bond.copy_(detail.norm(dim=1).mean())
        log_s = (detail.norm(dim=1) / 2).clamp(min=LEAST).log()
        self.centre.copy_(log_s.mean())
        self.spread.copy_(log_s.std().clamp(min=LEAST))

    def log_prob(self, detail: Float[Tensor, "batch 3 beads"], coarse: Float[Tensor, "batch 3 beads"]) -> Tensor:
        """Log density of each detail given its beads, in nats and units of length; all pairs at once."""
        self._require_chain(coarse)
        self._require_chain(detail)
        atoms = torch.stack([coarse - detail / 2, coarse + detail / 2], -1).flatten(2)
        placed = [self._place(i, coarse, atoms[..., : 2 * i]) for i in range(self.beads)]
        at = _Placed(*(torch.stack(part, 1) for part in zip(*placed, strict=True)))
        local = -(at.frame @ detail.transpose(1, 2)[..., None])[..., 0] / 2  # a - c in the frame
        return self._density(at, local).sum(1)

    def draw(self, coarse: Float[Tensor, "batch 3 beads"], *, generator: torch.Generator) -> Draw:
        """One detail for each chain of beads, pair after pair, and its log density."""
        self._require_chain(coarse)
        atoms, details = coarse[..., :0], []
        total = coarse.new_zeros(len(coarse))
        for i in range(self.beads):
            at = self._place(i, coarse, atoms)
            local = self._draw_local(at, generator)
            total = total + self._density(at, local)
            a = (at.frame * local[..., None]).sum(1)
            details.append(-2 * a)
            atoms = torch.cat([atoms, torch.stack([coarse[..., i] + a, coarse[..., i] - a], -1)], -1)
        return Draw(torch.stack(details, -1), total)

    # -- where a pair stands -----------------------------------------------------------------------------------------

    def _place(self, i: int, beads: Tensor, before: Tensor) -> _Placed:
        """The frame of pair i, and what is seen from there."""
        c = beads[..., i]
        ahead = beads[..., i + 1 :]
        # The first pair has no atom before it: the second bead, mirrored, stands for one.
        p = before[..., -1] if i else 2 * c - beads[..., 1]
        side = ahead[..., int(i == 0)] if i + 1 < self.beads else before[..., -2]
        frame = frames(c - p, side - c)
        reach = (c - p).norm(dim=1)
        others = torch.cat([before[..., : max(0, 2 * i - BEHIND)], ahead[..., AHEAD:]], -1) - c[..., None]
        order = others.norm(dim=1).argsort(-1)[:, :NEAR]
        near = others.gather(2, order[:, None].expand(-1, 3, -1))
        known = before[..., max(0, 2 * i - BEHIND) :].flip(-1) - c[..., None]
        parts = [
            self._told(ahead[..., :AHEAD] - c[..., None], AHEAD),
            self._told(known, BEHIND),
            self._told(near, NEAR),
        ]
        around = (frame @ torch.cat([part[:, :3] for part in parts], -1)).transpose(1, 2).flatten(1)
        there = torch.cat([part[:, 3] for part in parts], -1)
        begins = torch.full_like(reach, float(i == 0))
        ends = torch.full_like(reach, float(i + 1 == self.beads))
        seen = torch.cat([torch.stack([reach / self.bond, begins, ends], -1), around, there], -1)
        return _Placed(seen, frame, reach)

    def _told(self, places: Tensor, number: int) -> Tensor:
        """So many places, far ones pulled in, in bond lengths, and the share by which each counts; none: zeros."""
        there = places / self.bond
        far = there.norm(dim=1, keepdim=True).clamp(min=LEAST)
        there = there * (far.clamp(max=FAR) / far)
        told = torch.cat([there, 1 / (1 + far)], 1)
        return functional.pad(told, (0, number - told.shape[-1]))

    def _require_chain(self, coarse: Tensor) -> None:
        if tuple(coarse.shape[1:]) != (3, self.beads):
            raise DataError(
                f"this law is of chains of {self.beads} pairs, (batch, 3, {self.beads}), got {tuple(coarse.shape)}"
            )

    # -- the law of a pair -------------------------------------------------------------------------------------------

    def _density(self, at: _Placed, local: Tensor) -> Tensor:
        """Log density of y, from a - c in the frame."""
        s = local.norm(dim=-1).clamp(min=LEAST)
        r = torch.stack([local[..., 0] + at.reach, local[..., 1], local[..., 2]], -1).norm(dim=-1).clamp(min=LEAST)
        angle = torch.atan2(local[..., 2], local[..., 1])
        turned = self._turned(at, angle)
        around = self._circle(at.seen, angle)
        u = (s.log() - self.centre) / self.spread
        along = self.length.log_prob(u, self.along(turned)) - s.log() - self.spread.log()
        low, high = (at.reach - s).abs(), at.reach + s
        share = ((r - low) / (high - low).clamp(min=LEAST)).clamp(LEAST, 1 - LEAST)
        across = self._crossed(turned, s, low, high).log_slope(share) - (high - low).clamp(min=LEAST).log()
        volume = r.log() + s.log() - at.reach.clamp(min=LEAST).log()
        return around + along + across - volume - math.log(8)

    def _draw_local(self, at: _Placed, generator: torch.Generator) -> Tensor:
        def uniform() -> Tensor:
            return torch.rand(at.reach.shape, generator=generator, dtype=at.reach.dtype, device=at.reach.device)

        angle = math.pi * self._on_circle(at.seen).where(uniform()) * 2 - math.pi
        turned = self._turned(at, angle)
        u = self.length.draw(self.along(turned), generator=generator).value
        s = (self.centre + self.spread * u).exp()
        low, high = (at.reach - s).abs(), at.reach + s
        r = low + (high - low) * self._crossed(turned, s, low, high).where(uniform())
        d = at.reach.clamp(min=LEAST)
        first = (r.square() - d.square() - s.square()) / (2 * d)
        radius = (s.square() - first.square()).clamp(min=0).sqrt()
        return torch.stack([first, radius * angle.cos(), radius * angle.sin()], -1)

    def _turned(self, at: _Placed, angle: Tensor) -> Tensor:
        return torch.cat([at.seen, angle.cos()[..., None], angle.sin()[..., None]], -1)

    def _crossed(self, turned: Tensor, s: Tensor, low: Tensor, high: Tensor) -> Knots:
        inputs = torch.stack([s, low, high], -1) / self.bond
        return unit_knots(self.across(torch.cat([turned, inputs], -1)))

    def _on_circle(self, seen: Tensor) -> Knots:
        """Knots of a spline whose slopes at both ends are the same: the density has no seam."""
        widths, heights, slopes = self.around(seen).split(self.bins, -1)
        return unit_knots(torch.cat([widths, heights, slopes, slopes[..., :1]], -1))

    def _circle(self, seen: Tensor, angle: Tensor) -> Tensor:
        share = ((angle + math.pi) / (2 * math.pi)).clamp(LEAST, 1 - LEAST)
        return self._on_circle(seen).log_slope(share) - math.log(2 * math.pi)


def frames(along: Float[Tensor, "*batch 3"], side: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    r"""Right-handed frames: the first axis along one vector, the second in the plane of both.

    $$ e_1 = \frac{v}{|v|}, \qquad e_2 \propto w - (e_1 \cdot w)\,e_1, \qquad e_3 = e_1 \times e_2 $$

    They turn with the vectors. Where the two lie on one line the second axis is any.

    Returns:
        Axis by component.

    Example:
        >>> frames(torch.tensor([0.0, 2.0, 0.0]), torch.tensor([3.0, 1.0, 0.0])).tolist()
        [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]]
    """
    first = functional.normalize(along, dim=-1, eps=LEAST)
    rest = side - (first * side).sum(-1, keepdim=True) * first
    # On a line: the axis of the component that is least along it.
    spare = functional.one_hot(first.abs().argmin(-1), 3).to(first)
    spare = spare - (first * spare).sum(-1, keepdim=True) * first
    second = functional.normalize(torch.where(rest.norm(dim=-1, keepdim=True) > LEAST, rest, spare), dim=-1)
    return torch.stack([first, second, torch.linalg.cross(first, second)], -2)
