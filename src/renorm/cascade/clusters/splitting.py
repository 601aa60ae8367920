"""The way up: beads of a cluster split, one after the other, until all are particles; it turns with the cluster."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from renorm.cascade.clusters.directions import draw_vectors, vector_log_prob
from renorm.cascade.clusters.merging import Beads, Merges, merge_log_prob
from renorm.errors import DataError
from renorm.mcmc.hmc import Action
from renorm.nn.dense import dense
from renorm.spec import require

__all__ = ["DrawnCluster", "SplittingLaw"]

BUMPS = 10  # Gaussians by which a distance is told
REACH = 5.0  # unit lengths that they cover


class DrawnCluster(NamedTuple):
    r"""Clusters that were drawn, with what they weigh.

    Attributes:
        x: Positions (batch, dim, particles).
        log_prob: Of the centre and all splits, in nats, (batch,).
        log_merges: Of the merges that undo them, given the particles, (batch,).
    """

    x: Tensor
    log_prob: Tensor
    log_merges: Tensor


class _States(NamedTuple):
    """Beads of many states side by side, those that are not there masked; the bead that splits, and how."""

    at: Tensor
    mass: Tensor
    there: Tensor


class SplittingLaw(nn.Module):
    r"""A law of clusters of equal particles: from one bead at the centre, one split after the other.

    $$ q(x, \text{splits}) = q(\bar x) \prod_{k=1}^{n-1} \pi(b_k \mid S_k)\, \mu(m_k \mid b_k, S_k)\,
       f(v_k \mid m_k, b_k, S_k) $$

    with $S_k$ the k beads so far, $b_k$ the one that splits, $m_k$ the mass of the first part, and v the vector from
    the first to the second. Splits undo random merges r of known probability (``merge_all``), so that

    $$ w = \frac{n!\; e^{-U(x)}\; r(\text{merges} \mid x)}{q(x, \text{splits})}, \qquad \langle w \rangle_q = Z $$

    exactly, and $\langle w\,O\rangle_q / \langle w \rangle_q$ is the mean of O in the law $e^{-U}/Z$. All beads are
    told by distances, and the axes of f are sums of unit vectors between beads: q does not change where a cluster is
    turned, mirrored, or its particles are permuted. One network serves every scale.

    Args:
        particles: n.
        dim: 2 or 3.
        sharpness: Of the merges, in inverse units of length squared.
        unit: About the distance of neighbours.
        spread: $s$; the centre has the variance $s^2/n$ in each component, as that of the laws of clusters.
        width: Of the networks.
        parts: Of the mixture f.

    Raises:
        ValueError: If a value is out of range.

    Example:
        >>> law = SplittingLaw(4, 2)
        >>> drawn = law.draw(5, generator=torch.Generator().manual_seed(0))
        >>> drawn.x.shape, drawn.log_prob.shape
        (torch.Size([5, 2, 4]), torch.Size([5]))
    """

    def __init__(
        self,
        particles: int,
        dim: int,
        *,
        sharpness: float = 1.0,
        unit: float = 1.0,
        spread: float = 1.0,
        width: int = 48,
        parts: int = 12,
    ) -> None:
        super().__init__()
        require(particles >= 2, "particles must be >= 2 (a single one never splits)", particles)
        require(dim in (2, 3), "dim must be 2 or 3 (directions have a law in a plane and in space)", dim)
        require(sharpness > 0, "sharpness must be > 0 (else near beads are like any)", sharpness)
        require(unit > 0, "unit must be > 0, it is a length", unit)
        require(spread > 0, "spread must be > 0 (the centre has a law)", spread)
        require(width >= 1 and parts >= 1, "width and parts must be >= 1", (width, parts))
        self.particles, self.dim, self.parts = particles, dim, parts
        self.sharpness, self.unit, self.spread = sharpness, unit, spread
        seen = BUMPS + 3
        self.near = dense(seen, width, width=width)
        self.bead = dense(width + 2, width, width=width)
        self.choice = nn.Linear(width, 1)
        self.share = nn.Linear(width, particles - 1)
        self.toward = dense(seen + 2 * width + 1, width + parts, width=width)
        self.length = dense(2 * width + 3, 3 * parts, width=width)
        self.register_buffer("long", torch.zeros(particles + 1))  # mean log length by mass of the bead
        self.register_buffer("broad", torch.ones(particles + 1))

    long: Tensor
    broad: Tensor

    @torch.no_grad()
    def standardise(self, merges: Merges) -> "SplittingLaw":
        """Take centre and spread of the log lengths of splits of each mass from samples."""
        mass = torch.stack([beads.mass[:, -1] for beads in merges.beads], 1).flatten()
        log_r = torch.stack(merges.vector, 1).norm(dim=-1).clamp(min=1e-6).log().flatten()
        for m in range(2, self.particles + 1):
            of = log_r[mass == m]
            if len(of) > 1:
                self.long[m], self.broad[m] = of.mean(), of.std().clamp(min=1e-2)
        return self

    def log_prob(self, merges: Merges, x: Float[Tensor, "batch dim particles"]) -> Float[Tensor, " batch"]:
        """Nats of clusters together with the splits that undo these merges, all splits at once."""
        self._require(x)
        states = self._side_by_side(merges)
        first = torch.stack(merges.first, 1).flatten()
        vector = torch.stack(merges.vector, 1).flatten(0, 1)
        last = states.there.sum(1) - 1  # the merged bead stands last
        each = self._split_log_prob(states, last, first, vector)
        return self._centre(x.mean(2)) + each.reshape(len(x), -1).sum(1)

    @torch.no_grad()
    def draw(self, num: int, *, generator: torch.Generator) -> DrawnCluster:
        """Clusters, particle by particle in no order that means anything, with the merges that undo their splits."""
        like = self.choice.weight
        scale = self.spread / math.sqrt(self.particles)
        at = scale * torch.randn(num, 1, self.dim, generator=generator, dtype=like.dtype, device=like.device)
        log_prob, log_merges = self._centre(at[:, 0]), at.new_zeros(num)
        beads = Beads(at, torch.full((num, 1), self.particles, device=like.device))
        while beads.at.shape[1] < self.particles:
            states = _States(beads.at, beads.mass, torch.ones_like(beads.mass, dtype=torch.bool))
            h, seen, unit = self._read(states)
            chosen = torch.multinomial(self._choices(h, states).exp(), 1, generator=generator)[:, 0]
            shares = self._shares(h, states, chosen)
            first = torch.multinomial(shares.exp(), 1, generator=generator)[:, 0] + 1
            mixture = self._mixture(h, seen, unit, states, chosen, first)
            vector = draw_vectors(*mixture, generator=generator)
            log_prob = log_prob + self._split_log_prob(states, chosen, first, vector)
            beads = _split(beads, chosen, first, vector)
            log_merges = log_merges + merge_log_prob(beads, sharpness=self.sharpness)
        return DrawnCluster(beads.at.transpose(1, 2), log_prob, log_merges)

    def log_weight(self, energy: Action, drawn: DrawnCluster) -> Float64[Tensor, " batch"]:
        r"""$\ln w$ of each cluster; one of infinite energy weighs nothing.

        Args:
            energy: U in nats, with a law of the centre like this one's.
            drawn: What ``draw`` gave.
        """
        permutations = math.lgamma(self.particles + 1)
        log_weight = permutations - energy(drawn.x).double() + drawn.log_merges.double() - drawn.log_prob.double()
        return log_weight.nan_to_num(nan=-torch.inf, posinf=-torch.inf)

    # -- one split ---------------------------------------------------------------------------------------------------

    def _split_log_prob(self, states: _States, chosen: Tensor, first: Tensor, vector: Tensor) -> Tensor:
        h, seen, unit = self._read(states)
        choice = self._choices(h, states).gather(1, chosen[:, None])[:, 0]
        share = self._shares(h, states, chosen).gather(1, first[:, None] - 1)[:, 0]
        mixture = self._mixture(h, seen, unit, states, chosen, first)
        return choice + share + vector_log_prob(vector, *mixture)

    def _read(self, states: _States) -> tuple[Tensor, Tensor, Tensor]:
        """What each bead is told of the others, what pairs look like, and the unit vectors between them."""
        apart = states.at[:, None] - states.at[:, :, None]  # from bead i to bead j
        distance = (apart.square().sum(-1) + 1e-12).sqrt()
        scaled = distance / self.unit
        centres = torch.linspace(0, REACH, BUMPS, dtype=scaled.dtype, device=scaled.device)
        bumps = (-(((scaled[..., None] - centres) * (BUMPS / REACH)) ** 2) / 2).exp()
        mass = states.mass.to(scaled) / self.particles
        rows, columns = (mass[:, :, None].expand_as(scaled), mass[:, None].expand_as(scaled))
        seen = torch.cat([bumps, torch.stack([scaled.log1p(), rows, columns], -1)], -1)
        n = states.at.shape[1]
        other = states.there[:, None] & ~torch.eye(n, dtype=torch.bool, device=scaled.device)
        told = (self.near(seen) * other[..., None]).sum(2)
        number = states.there.sum(1, keepdim=True).to(scaled).expand_as(mass) / self.particles
        h = self.bead(torch.cat([told, torch.stack([mass, number], -1)], -1))
        unit = apart / distance[..., None] * other[..., None]
        return h, seen, unit

    def _choices(self, h: Tensor, states: _States) -> Tensor:
        can = states.there & (states.mass > 1)
        return self.choice(h)[..., 0].masked_fill(~can, -torch.inf).log_softmax(1)

    def _shares(self, h: Tensor, states: _States, chosen: Tensor) -> Tensor:
        logits = self.share(_at(h, chosen))
        masses = torch.arange(1, self.particles, device=h.device)
        can = masses < states.mass.gather(1, chosen[:, None])
        return logits.masked_fill(~can, -torch.inf).log_softmax(1)

    def _mixture(
        self, h: Tensor, seen: Tensor, unit: Tensor, states: _States, chosen: Tensor, first: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Log shares, axes, centres and log widths of the parts of f."""
        mass = states.mass.gather(1, chosen[:, None])[:, 0]
        part = (first / mass).to(h)[:, None]
        own, n = _at(h, chosen), h.shape[1]
        row = chosen[:, None, None, None]
        seen = seen.gather(1, row.expand(-1, 1, n, seen.shape[-1]))[:, 0]
        unit = unit.gather(1, row.expand(-1, 1, n, self.dim))[:, 0]
        mine = torch.cat([own, part], -1)[:, None].expand(-1, n, -1)
        told = self.toward(torch.cat([seen, h, mine], -1))
        other = states.there & (torch.arange(n, device=h.device) != chosen[:, None])
        pooled = (told[..., : -self.parts] * other[..., None]).sum(1)
        eta = torch.einsum("bnk,bnd->bkd", told[..., -self.parts :], unit)
        whole = torch.stack([mass.to(h) / self.particles, states.there.sum(1).to(h) / self.particles], -1)
        logits, centre, log_width = self.length(torch.cat([own, pooled, part, whole], -1)).chunk(3, -1)
        start = torch.linspace(-1, 1, self.parts, dtype=h.dtype, device=h.device)  # parts begin apart
        broad = self.broad[mass][:, None]
        return (
            logits.log_softmax(-1),
            eta,
            self.long[mass][:, None] + broad * (start + centre),
            broad.log() + 3 * torch.tanh(log_width / 3),
        )

    def _side_by_side(self, merges: Merges) -> _States:
        """All states of all clusters: (batch times merges, particles - 1, ...)."""
        most = self.particles - 1
        at, mass = [], []
        for beads in merges.beads:
            missing = most - beads.at.shape[1]
            at.append(nn.functional.pad(beads.at, (0, 0, 0, missing)))
            mass.append(nn.functional.pad(beads.mass, (0, missing)))
        masses = torch.stack(mass, 1).flatten(0, 1)
        return _States(torch.stack(at, 1).flatten(0, 1), masses, masses > 0)

    def _centre(self, centre: Tensor) -> Tensor:
        variance = self.spread**2 / self.particles
        return -0.5 * (centre.square() / variance + math.log(2 * math.pi * variance)).sum(1)

    def _require(self, x: Tensor) -> None:
        if tuple(x.shape[1:]) != (self.dim, self.particles):
            raise DataError(f"positions must be (batch, {self.dim}, {self.particles}), got {tuple(x.shape)}")


def _split(beads: Beads, chosen: Tensor, first: Tensor, vector: Tensor) -> Beads:
    """The chosen bead gives way to two, which stand last: the first, then the second."""
    n = beads.at.shape[1]
    at, mass = _at(beads.at, chosen), beads.mass.gather(1, chosen[:, None])[:, 0]
    share = (first / mass).to(at)[:, None]
    a, b = at - (1 - share) * vector, at + share * vector
    other = torch.arange(n, device=chosen.device) != chosen[:, None]
    order = torch.arange(n, device=chosen.device).expand(len(chosen), n)[other].reshape(len(chosen), n - 1)
    left = beads.at.gather(1, order[..., None].expand(-1, -1, at.shape[1]))
    masses = torch.cat([beads.mass.gather(1, order), first[:, None], (mass - first)[:, None]], 1)
    return Beads(torch.cat([left, a[:, None], b[:, None]], 1), masses)


def _at(values: Tensor, index: Tensor) -> Tensor:
    return values.gather(1, index[:, None, None].expand(-1, 1, values.shape[2]))[:, 0]
