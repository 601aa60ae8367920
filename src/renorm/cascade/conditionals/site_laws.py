"""Laws of one site in the sum of its neighbours, for actions of nearest neighbours: exact integrals and exact draws."""

import math
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional

from renorm.cascade.conditional import Draw
from renorm.spec import require

__all__ = ["IsingSite", "Phi4Site", "SiteLaw"]

KNOTS = 4096  # of the table of ln I
NODES = 2048  # of the quadrature behind it; the integrand is smooth and falls fast, so its sum is exact to rounding
CELLS = 96  # of the envelope from which a site is drawn
ROWS = 16384  # sites drawn together


@runtime_checkable
class SiteLaw(Protocol):
    r"""$p(\phi \mid h) \propto e^{J h \phi - V(\phi)}$, h the sum over the neighbours."""

    def potential(self, phi: Tensor) -> Tensor:
        """V."""
        ...

    def log_normaliser(self, h: Tensor) -> Tensor:
        r"""$\ln I(h)$, differentiable."""
        ...

    def log_prob(self, phi: Tensor, h: Tensor) -> Tensor:
        """Nats of each site."""
        ...

    def draw(self, h: Tensor, *, generator: torch.Generator) -> Draw:
        """An exact draw of each site, and its log density."""
        ...


class IsingSite:
    r"""A spin: $p(s \mid h) = \sigma(2 \beta h s)$, $\ln I = \ln 2\cosh \beta h$.

    Args:
        beta: Inverse temperature, times the coupling.

    Example:
        >>> IsingSite(0.0).log_normaliser(torch.tensor([4.0])).exp().item()
        2.0
    """

    def __init__(self, beta: float) -> None:
        require(math.isfinite(beta), "beta must be finite", beta)
        self.beta = beta

    def potential(self, phi: Tensor) -> Tensor:
        """None."""
        return torch.zeros_like(phi)

    def log_normaliser(self, h: Tensor) -> Tensor:
        r"""$\ln 2\cosh\beta h$."""
        x = (self.beta * h).abs()
        return x + functional.softplus(-2 * x)

    def log_prob(self, phi: Tensor, h: Tensor) -> Tensor:
        """Nats of each spin."""
        return functional.logsigmoid(2 * self.beta * h * phi)

    def draw(self, h: Tensor, *, generator: torch.Generator) -> Draw:
        """Spins, and their log probability."""
        uniform = torch.rand(h.shape, generator=generator, dtype=h.dtype, device=h.device)
        spin = torch.where(uniform < (2 * self.beta * h).sigmoid(), 1.0, -1.0).to(h.dtype)
        return Draw(spin, self.log_prob(spin, h))


class Phi4Site:
    r"""A site of $\phi^4$ theory: $p(\phi \mid h) = e^{2\kappa h \phi - c_2 \phi^2 - \lambda \phi^4} / I(h)$.

    Args:
        kappa: Hopping.
        lam: Quartic coupling, >= 0.
        c2: Quadratic coefficient; $1 - 2\lambda$ if not given.

    Raises:
        ValueError: If the action is not bounded below.

    Example: a Gaussian site.
        >>> site = Phi4Site(0.5, 0.0, c2=0.5)
        >>> round(site.log_normaliser(torch.tensor([1.0], dtype=torch.float64)).item(), 9)  # ln sqrt(2 pi) + 1/2
        1.418938533
    """

    def __init__(self, kappa: float, lam: float, c2: float | None = None) -> None:
        c2 = 1 - 2 * lam if c2 is None else c2
        require(all(map(math.isfinite, (kappa, lam, c2))), "couplings must be finite", (kappa, lam, c2))
        bounded = lam > 0 or (lam == 0 and c2 > 0)
        require(bounded, "lam must be > 0, or 0 with c2 > 0 (else the action is not bounded below)", (lam, c2))
        self.kappa, self.lam, self.c2 = kappa, lam, c2
        self._limit, self._table = 0.0, torch.empty(0)

    def potential(self, phi: Tensor) -> Tensor:
        r"""$c_2 \phi^2 + \lambda \phi^4$."""
        square = phi**2
        return self.c2 * square + self.lam * square**2

    def log_normaliser(self, h: Tensor) -> Tensor:
        r"""$\ln I(h)$ by cubic interpolation of an exact table: values and slopes, error below 1e-9."""
        x = h.abs()
        self._reach(float(x.detach().max()) if x.numel() else 0.0)
        step = self._limit / KNOTS
        place = (x / step).to(x.dtype)
        knot = place.detach().floor().clamp(0, KNOTS - 1).long()
        t = place - knot
        table = self._table.to(device=x.device, dtype=x.dtype)
        f0, f1 = table[0][knot], table[0][knot + 1]
        d0, d1 = table[1][knot] * step, table[1][knot + 1] * step
        return f0 + t * (d0 + t * (3 * (f1 - f0) - 2 * d0 - d1 + t * (2 * (f0 - f1) + d0 + d1)))

    def log_prob(self, phi: Tensor, h: Tensor) -> Tensor:
        """Nats of each site."""
        return 2 * self.kappa * h * phi - self.potential(phi) - self.log_normaliser(h)

    def draw(self, h: Tensor, *, generator: torch.Generator) -> Draw:
        """Exact draws, by rejection from a law of straight pieces that all but touches the true one."""
        flat = h.detach().reshape(-1).double()
        value = torch.cat([self._rejected(part, generator) for part in flat.split(ROWS)]).to(h.dtype).reshape(h.shape)
        return Draw(value, self.log_prob(value, h))

    def _rejected(self, h: Tensor, generator: torch.Generator, cells: int = CELLS) -> Tensor:
        edge = self._edge(float(h.abs().max()))
        grid = torch.linspace(-edge, edge, 2 * cells + 1, dtype=h.dtype, device=h.device)  # cells and their middles
        log = 2 * self.kappa * h[:, None] * grid - self.potential(grid)
        p = (log - log.amax(1, keepdim=True)).exp()
        ends, middle = p[:, ::2], p[:, 1::2]
        chord = (ends[:, :-1] + ends[:, 1:]) / 2
        # A chord runs below an arch: what it misses, and some more, is what the envelope is raised by.
        ratio = torch.where(chord > 1e-12, middle / chord.clamp(min=1e-300), 0.0).amax(1)
        bound = 1 + 2 * (ratio - 1).clamp(min=1e-6)
        total = chord.cumsum(1)
        width = 2 * edge / cells
        out, open_ = torch.empty_like(h), torch.arange(len(h), device=h.device)
        while len(open_):
            u = torch.rand(3, len(open_), generator=generator, dtype=h.dtype, device=h.device)
            cell = torch.searchsorted(total[open_], u[0, :, None] * total[open_, -1:], right=True)[:, 0]
            cell = cell.clamp(max=cells - 1)
            a, b = ends[open_, cell], ends[open_, cell + 1]
            t = 2 * u[1] * (a + b) / 2 / (a + (a**2 + u[1] * (b**2 - a**2)).clamp(min=0).sqrt()).clamp(min=1e-300)
            phi = -edge + width * (cell + t)
            true = (2 * self.kappa * h[open_] * phi - self.potential(phi) - log[open_].amax(1)).exp()
            envelope = bound[open_] * (a + t * (b - a))
            if bool((true > envelope).any()):  # far out in h the law is narrower than a cell: take smaller ones
                return self._rejected(h, generator, 4 * cells)
            kept = u[2] * envelope < true
            out[open_[kept]] = phi[kept]
            open_ = open_[~kept]
        return out

    def _edge(self, h: float) -> float:
        """Where the density has fallen by e^-45 from its top, on the far side of the wells."""
        phi = torch.linspace(0, 200, 200_001, dtype=torch.float64)
        log = 2 * abs(self.kappa) * h * phi - self.potential(phi)
        far = int((log > log.max() - 45).nonzero()[-1, 0])
        return float(phi[min(far + 1, len(phi) - 1)])

    def _reach(self, h: float) -> None:
        """Make, or widen, the table of ln I and its slope $2\\kappa\\langle\\phi\\rangle$."""
        if self._limit and h <= self._limit:
            return
        self._limit = max(16.0, 1.25 * h)
        edge = self._edge(self._limit)
        phi = torch.linspace(-edge, edge, NODES + 1, dtype=torch.float64)
        knots = torch.linspace(0, self._limit, KNOTS + 1, dtype=torch.float64)
        values, slopes = [], []
        for part in knots.split(256):
            log = 2 * self.kappa * part[:, None] * phi - self.potential(phi)
            values.append(log.logsumexp(1) + math.log(2 * edge / NODES))
            slopes.append(2 * self.kappa * (log.softmax(1) * phi).sum(1))
        self._table = torch.stack([torch.cat(values), torch.cat(slopes)])
