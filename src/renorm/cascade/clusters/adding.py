"""The way up: particles come one by one, each by a mixture around those that are there and a learned energy."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from renorm.cascade.clusters.directions import SHARPEST, draw_vectors, vector_log_prob
from renorm.cascade.clusters.thinning import Thinning
from renorm.errors import DataError, NonFiniteLossError
from renorm.mcmc.hmc import Action
from renorm.nn.dense import dense
from renorm.spec import require

__all__ = ["AddingLaw", "DrawnCluster", "shuffled"]

REACH = 4.0  # units of length in which distances are told apart
BUMPS, FINE = 20, 33  # Gaussians by which the mixture is told of them, and knots of the energy


class DrawnCluster(NamedTuple):
    r"""Clusters that were drawn, with what they weigh.

    Attributes:
        x: Positions (batch, dim, particles).
        log_prob: $\ln\hat q$ of the centre and all that came, in nats, (batch,).
        log_order: Of the order in which they leave again, given the particles, (batch,).
    """

    x: Tensor
    log_prob: Tensor
    log_order: Tensor


class _Mixture(NamedTuple):
    """What may come next: vectors from each particle that is there, in some parts each."""

    log_share: Tensor  # (batch, states, particles, parts), normalised over the last two
    eta: Tensor  # (batch, states, particles, parts, dim)
    centre: Tensor
    log_width: Tensor


class AddingLaw(nn.Module):
    r"""A law of clusters of equal particles: from one particle on, each finer cluster has one more.

    $$ q(x, \text{order}) = q(\bar x) \prod_{k=1}^{n-1} \frac{g(x_{k+1} \mid S_k)\, e^{-u(x_{k+1} \mid S_k)}}{Z_k},
       \qquad g = \sum_{i \le k} \sum_c w_{ic}\, p(x_{k+1} - x_i;\ \eta_{ic}, \mu_{ic}, \sigma_{ic}) $$

    with $S_k$ the k particles that are there. g is a mixture of vectors from each of them (``vector_log_prob``), whose
    axes are sums of unit vectors between particles; u is a learned energy of how many are at which distance. A draw
    takes M candidates from g and one of them by $e^{-u}$; $Z_k$ is known from the candidates alone,
    $\hat Z_k = \frac1M\sum_m e^{-u_m}$. With the order's probability r when the cluster is thinned out again,

    $$ w = \frac{n!\; e^{-U(x)}\; r(\text{order} \mid x)}{\hat q(x, \text{order})}, \qquad
       \langle w \rangle = Z, \qquad \frac{\langle w\,O\rangle}{\langle w\rangle} = \langle O \rangle_{e^{-U}/Z} $$

    exactly, whatever the networks and M: candidates that were not taken belong to a larger law, whose marginal is the
    one that is wanted. q does not change where a cluster is turned, mirrored, or its particles are permuted.

    Args:
        particles: n.
        dim: 2 or 3.
        thinning: Which particles leave first on the way down.
        unit: A length: distances are told apart by eighths of it, up to four of it.
        spread: $s$; the centre has the variance $s^2/n$ in each component, as that of the laws of clusters.
        width: Of the networks.
        parts: Of the mixture, around each particle.
        vectors: Sums of unit vectors that axes are made of.
        candidates: M of a draw.

    Raises:
        ValueError: If a value is out of range.

    Source:
        Naesseth, Linderman, Ranganath & Blei 2018, arXiv:1705.11140, for weights with candidates that were not taken.

    Example:
        >>> law = AddingLaw(4, 2)
        >>> drawn = law.draw(5, generator=torch.Generator().manual_seed(0))
        >>> drawn.x.shape, drawn.log_prob.shape
        (torch.Size([5, 2, 4]), torch.Size([5]))
    """

    def __init__(
        self,
        particles: int,
        dim: int,
        *,
        thinning: Thinning | None = None,
        unit: float = 1.0,
        spread: float = 1.0,
        width: int = 48,
        parts: int = 8,
        vectors: int = 16,
        candidates: int = 64,
    ) -> None:
        super().__init__()
        require(particles >= 2, "particles must be >= 2 (a single one has nothing to come)", particles)
        require(dim in (2, 3), "dim must be 2 or 3 (directions have a law in a plane and in space)", dim)
        require(0 < unit < math.inf, "unit must be > 0 and finite, it is a length", unit)
        require(0 < spread < math.inf, "spread must be > 0 and finite (the centre has a law)", spread)
        least = min(width, parts, vectors, candidates)
        require(least >= 1, "width, parts, vectors and candidates must be >= 1", (width, parts, vectors, candidates))
        self.particles, self.dim, self.unit, self.spread = particles, dim, unit, spread
        self.thinning = Thinning() if thinning is None else thinning
        self.parts, self.vectors, self.candidates = parts, vectors, candidates
        seen = BUMPS + 1
        self.near = dense(seen, width, width=width)
        self.particle = dense(width + 1, width, width=width)
        self.pair = dense(seen + 2 * width, width + vectors, width=width)
        self.next = dense(2 * width + vectors + 1, parts * (3 + vectors), width=width)
        self.energy = dense(FINE + 2, 1, width=width, still=True)
        self.register_buffer("long", torch.tensor(math.log(unit)))  # log distance of the nearest when one comes
        self.register_buffer("broad", torch.tensor(1.0))

    long: Tensor
    broad: Tensor

    @torch.no_grad()
    def standardise(self, x: Float[Tensor, "batch dim particles"], *, generator: torch.Generator) -> "AddingLaw":
        """Take centre and spread of the log distances to the nearest from samples, of the particles that leave first.

        Raises:
            DataError: If the positions are of another shape, not finite, or fewer than two clusters.
        """
        self._require(x)
        if len(x) < 2:
            raise DataError(f"a spread needs two clusters or more, got {len(x)}")
        at = self.thinning.order(x.to(self.long), generator=generator).at
        nearest = (at[:, -1:] - at[:, :-1]).norm(dim=-1).amin(1).clamp(min=1e-6).log()
        self.long.fill_(nearest.mean())
        self.broad.fill_(2 * float(nearest.std().clamp(min=0.05)))
        return self

    def loss(
        self, x: Float[Tensor, "batch dim particles"], *, candidates: int = 16, generator: torch.Generator
    ) -> Float[Tensor, " batch"]:
        r"""What is minimised, in nats: g by likelihood, u by telling the particle that came from candidates of g.

        $$ -\sum_k \Big[\ln g(x_{k+1} \mid S_k) + \ln\frac{e^{-u(x_{k+1})}}
           {e^{-u(x_{k+1})} + \sum_m e^{-u(x^{(m)})}} \Big], \qquad x^{(m)} \sim g $$

        Where it is least, g e^{-u} is the law of what comes up to a constant, for any g.

        Args:
            x: Samples.
            candidates: m of each state.
            generator: Of orders and candidates.

        Raises:
            DataError: If positions are of another shape or not finite.
            ValueError: If candidates is below 1.
        """
        self._require(x)
        require(candidates >= 1, "candidates must be >= 1 (what came is told from them)", candidates)
        at = self.thinning.order(x.to(self.long), generator=generator).at
        mixture = self._mixture(at[:, :-1])
        near = self._log_mixture(at[:, :-1], mixture, at[:, 1:])
        with torch.no_grad():
            others = self._candidates(at[:, :-1], mixture, candidates, generator)
        u = self._energy(at[:, :-1], torch.cat([at[:, 1:, None], others], 2), last=False)
        return -(near + (-u).log_softmax(2)[..., 0]).sum(1)

    def mixture_log_prob(self, at: Float[Tensor, "batch particles dim"]) -> Float[Tensor, " batch"]:
        """Nats of clusters that come in this order by the mixtures alone, u = 0; exact. Errors as of ``loss``."""
        self._require(at.transpose(1, 2))
        mixture = self._mixture(at[:, :-1])
        return self._centre(at.mean(1)) + self._log_mixture(at[:, :-1], mixture, at[:, 1:]).sum(1)

    @torch.no_grad()
    def draw(self, num: int, *, generator: torch.Generator, candidates: int | None = None) -> DrawnCluster:
        """Clusters, their particles in no order: all that is weighed of them has its mean in the exact law.

        Args:
            num: How many.
            generator: All randomness.
            candidates: M; none: that of the law. The more, the nearer is a draw to the law itself.

        Raises:
            ValueError: If num or candidates is below 1.
        """
        at, total = self.ordered(num, generator=generator, candidates=candidates)
        back = self.thinning.log_prob(at)
        return DrawnCluster(shuffled(at, generator), total, back)

    @torch.no_grad()
    def ordered(
        self, num: int, *, generator: torch.Generator, candidates: int | None = None
    ) -> tuple[Float[Tensor, "num particles dim"], Float[Tensor, " num"]]:
        r"""Whole clusters in the order in which their particles came, about centres of their law, and $\ln\hat q$.

        What it takes and refuses is as of ``draw``.
        """
        require(num >= 1, "num must be >= 1", num)
        at, total = self.arrive(self.long.new_zeros(num, 1, self.dim), generator=generator, candidates=candidates)
        noise = torch.randn(num, 1, self.dim, generator=generator, dtype=at.dtype, device=at.device)
        centre = self.spread / math.sqrt(self.particles) * noise
        return at - at.mean(1, keepdim=True) + centre, total + self._centre(centre[:, 0])

    @torch.no_grad()
    def arrive(
        self,
        at: Float[Tensor, "batch there dim"],
        *,
        particles: int | None = None,
        candidates: int | None = None,
        generator: torch.Generator,
    ) -> tuple[Float[Tensor, "batch particles dim"], Float[Tensor, " batch"]]:
        r"""Add particles to those that are there, which stay where they are: the way from coarse to fine.

        Args:
            at: Particles that are there, one or more, in the order in which they came.
            particles: How many there shall be; none: all of the law.
            candidates: As of ``draw``.
            generator: All randomness.

        Returns:
            All in the order in which they came, and $\ln\hat q$ of those that came now.

        Raises:
            ValueError: If candidates is below 1, or there would be fewer or more particles than the law has.
        """
        most = self.candidates if candidates is None else candidates
        wanted = self.particles if particles is None else particles
        require(most >= 1, "candidates must be >= 1", most)
        fits = 1 <= at.shape[1] <= wanted <= self.particles
        require(fits, f"particles must be {at.shape[1]} ... {self.particles}", wanted)
        total = at.new_zeros(len(at))
        while at.shape[1] < wanted:
            mixture = self._mixture(at, last=True)
            offered = self._candidates(at, mixture, most, generator)
            u = self._energy(at, offered, last=True)[:, 0]
            if not bool(u.isfinite().all()):
                raise NonFiniteLossError(
                    "energies of candidates are not finite: the training diverged; take a smaller rate"
                )
            taken = torch.multinomial((-u).softmax(1), 1, generator=generator)
            new = offered[:, 0].gather(1, taken[..., None].expand(-1, 1, self.dim))
            share = -u.gather(1, taken)[:, 0] - (-u).logsumexp(1) + math.log(most)
            total = total + self._log_mixture(at, mixture, new)[:, 0] + share
            at = torch.cat([at, new], 1)
        return at, total

    def log_weight(self, energy: Action, drawn: DrawnCluster) -> Float64[Tensor, " batch"]:
        r"""$\ln w$ of each cluster; one of infinite energy weighs nothing.

        Args:
            energy: U in nats, with a law of the centre like this one's.
            drawn: What ``draw`` gave.

        Raises:
            DataError: If an energy is no number or minus infinity, is not one for each cluster, or a density is not
                finite: then the law itself is broken, as after a training that diverged.
        """
        found = energy(drawn.x).double()
        if found.shape != drawn.log_prob.shape:
            raise DataError(f"the energy must be one number a cluster, {len(drawn.x)}, got {tuple(found.shape)}")
        bad = int((found.isnan() | (found == -torch.inf)).sum())
        if bad:
            raise DataError(f"energies must be numbers, or infinite where particles overlap, and {bad} are not")
        known = drawn.log_order.double() - drawn.log_prob.double()
        if not bool(known.isfinite().all()):
            raise DataError("densities of draws must be finite, and some are not: is the law trained well?")
        return math.lgamma(self.particles + 1) + known - found

    # -- one particle more -------------------------------------------------------------------------------------------

    def _mixture(self, at: Tensor, *, last: bool = False) -> _Mixture:
        """What may come to the first k of these, for every k (or for all of them only).

        A particle is told of those that were there before it, once for all k; what it hears of later ones are sums
        up to k. So all states of a cluster cost little more than one.
        """
        n = at.shape[1]
        apart = at[:, None] - at[:, :, None]  # from particle i to particle j
        distance = (apart.square().sum(-1) + 1e-12).sqrt()
        seen = self._seen(distance)
        place = torch.arange(n, device=at.device)
        before, other = place < place[:, None], place != place[:, None]
        told = (self.near(seen) * before[..., None]).sum(2)
        rank = (place.to(at) / self.particles)[:, None].expand(len(at), n, 1)
        own = self.particle(torch.cat([told, rank], -1))
        both = [own[:, :, None].expand(-1, -1, n, -1), own[:, None].expand(-1, n, -1, -1)]
        said = self.pair(torch.cat([seen, *both], -1)) * other[..., None]
        pull = said[..., -self.vectors :, None] * (apart / distance[..., None])[..., None, :]
        if last:
            heard, axes = said[..., : -self.vectors].sum(2)[:, None], pull.sum(2)[:, None]
            number = place[-1:]
        else:
            heard, axes = said[..., : -self.vectors].cumsum(2).transpose(1, 2), pull.cumsum(2).transpose(1, 2)
            number = place
        states = len(number)
        count = ((number + 1).to(at) / self.particles)[:, None, None].expand(len(at), states, n, 1)
        length = (axes.square().sum(-1) + 1e-9).sqrt()
        out = self.next(torch.cat([own[:, None].expand(-1, states, -1, -1), heard, length, count], -1))
        logits, centre, log_width, turn = out.split([self.parts] * 3 + [self.parts * self.vectors], -1)
        eta = 3 * torch.einsum("bkicm,bkimd->bkicd", turn.unflatten(-1, (self.parts, self.vectors)), axes)
        eta = eta / (1 + eta.square().sum(-1, keepdim=True) / SHARPEST**2).sqrt()
        there = (place <= number[:, None])[..., None]
        log_share = logits.masked_fill(~there, -torch.inf).flatten(2).log_softmax(2).reshape(logits.shape)
        start = torch.linspace(-1, 1, self.parts, dtype=at.dtype, device=at.device)  # parts begin apart
        width = self.broad.log() + 3 * torch.tanh(log_width / 3)
        return _Mixture(log_share, eta, self.long + self.broad * (start + centre), width)

    def _log_mixture(self, at: Tensor, mixture: _Mixture, new: Tensor) -> Tensor:
        """Nats of one new particle for each state, (batch, states)."""
        vector = (new[:, :, None] - at[:, None])[..., None, :].expand_as(mixture.eta)
        each = vector_log_prob(vector, mixture.eta, mixture.centre, mixture.log_width)
        return (mixture.log_share + each).flatten(2).logsumexp(2)

    def _candidates(self, at: Tensor, mixture: _Mixture, num: int, generator: torch.Generator) -> Tensor:
        """Particles that might come to each state, (batch, states, num, dim)."""
        batch, states = mixture.eta.shape[:2]
        shares = mixture.log_share.flatten(2).flatten(0, 1).exp()
        if not bool(shares.isfinite().all()):
            raise NonFiniteLossError(
                "what may come next has no finite shares: the training diverged; take a smaller rate"
            )
        part = torch.multinomial(shares, num, replacement=True, generator=generator)

        def chosen(values: Tensor) -> Tensor:
            flat = values.reshape(batch * states, -1, *values.shape[4:])
            index = part.reshape(*part.shape, *[1] * (flat.dim() - 2)).expand(-1, -1, *flat.shape[2:])
            return flat.gather(1, index).flatten(0, 1)

        laws = [chosen(values) for values in (mixture.eta, mixture.centre, mixture.log_width)]
        vector = draw_vectors(*laws, generator=generator)
        parent = (part // self.parts).reshape(batch, -1, 1).expand(-1, -1, self.dim)
        return (at.gather(1, parent).flatten(0, 1) + vector).reshape(batch, states, num, self.dim)

    def _energy(self, at: Tensor, new: Tensor, *, last: bool) -> Tensor:
        """u of each candidate of each state, (batch, states, candidates); no gradient to positions."""
        place = torch.arange(at.shape[1], device=at.device)
        number = place[-1:] if last else place
        with torch.no_grad():
            distance = (new[:, :, :, None] - at[:, None, None]).square().sum(-1).sqrt() / self.unit
            knots = torch.linspace(0, REACH, FINE, dtype=at.dtype, device=at.device)
            # How many are near each knot, those between two shared out: a table's linear interpolation, summed.
            near = (distance[..., None] - knots).abs_().mul_(-(FINE - 1) / REACH).add_(1).clamp_(min=0)
            told = torch.cat([near, distance.log1p()[..., None]], -1)
            heard = (told * (place <= number[:, None])[:, None, :, None]).sum(-2)
            count = ((number + 1).to(at) / self.particles)[:, None, None].expand(*heard.shape[:-1], 1)
        return self.energy(torch.cat([heard, count], -1))[..., 0]  # type: ignore[no-any-return]

    def _seen(self, distance: Tensor) -> Tensor:
        scaled = distance / self.unit
        centres = torch.linspace(0, REACH, BUMPS, dtype=distance.dtype, device=distance.device)
        bumps = (-(((scaled[..., None] - centres) * (BUMPS / REACH)) ** 2) / 2).exp()
        return torch.cat([bumps, scaled.log1p()[..., None]], -1)

    def _centre(self, centre: Tensor) -> Tensor:
        variance = self.spread**2 / self.particles
        return -0.5 * (centre.square() / variance + math.log(2 * math.pi * variance)).sum(1)

    def _require(self, x: Tensor) -> None:
        if tuple(x.shape[1:]) != (self.dim, self.particles) or not len(x):
            raise DataError(f"positions must be (batch, {self.dim}, {self.particles}), got {tuple(x.shape)}")


def shuffled(
    at: Float[Tensor, "batch particles dim"], generator: torch.Generator
) -> Float[Tensor, "batch dim particles"]:
    """Particles in no order: the mean of each is the same."""
    order = torch.rand(at.shape[:2], generator=generator, device=at.device).argsort(1)
    return at.gather(1, order[..., None].expand_as(at)).transpose(1, 2)
