"""The conditional of wavelet-conditional renormalisation: a local Gibbs energy of details given the coarse field."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from renorm.cascade.conditional import CascadeConditional, Draw
from renorm.cascade.energy.score_matching import merged, projected, score_moments, solve_energy, unit_details
from renorm.cascade.energy.stencils import DetailStencil
from renorm.cascade.energy.terms import Bumps, Merged, Monomials, Term, offsets
from renorm.cascade.energy.tiles import TiledLangevin
from renorm.coarse.base import CoarseGraining
from renorm.errors import DataError, RecipeError
from renorm.lattice import Lattice
from renorm.model import Grade
from renorm.spec import require

__all__ = ["ConditionalAction", "GibbsConditional", "local_terms"]

TOGETHER = 2**15
"""Coarse sites that move together: more do not fit the cache."""


def local_terms(step: CoarseGraining, lattice: Lattice, *, radius: int = 1, bumps: int = 8) -> list[Term]:
    r"""The terms of WC-RG: stencils of details and coarse field, and a scalar potential of bumps with a $\phi^4$ tail.

    Args:
        step, lattice: As in `GibbsConditional`.
        radius: Of the stencils, in coarse sites.
        bumps: How many; 0 for none, and no $\phi^4$ either: a Gaussian law.
    """
    coarse = step.coarse_lattice(lattice)
    stencil = DetailStencil(lattice.dim, coarse.channels, step.detail_shape(lattice)[0], radius)
    return [stencil, Bumps(bumps), Monomials((4,))] if bumps else [stencil]


class GibbsConditional(CascadeConditional):
    r"""Details with a local energy, known up to the free energy of the coarse field.

    $$ p(y \mid c) = e^{-E_\theta(y \mid c) + F(c)}, \qquad E_\theta = \sum_m \theta_m U_m(c, y) $$

    Learned by score matching in closed form; drawn by Langevin moves on the renormalised details $y_a / \sigma_a$, with
    Metropolis' test, which the wavelet keeps well conditioned at any correlation length. ``log_prob`` is $-E$, so the
    grade is ``ENERGY``. A draw is ``sweeps`` moves away from a linear guess with noise, and approximate to that extent.

    Args:
        step: What is undone: linear and orthonormal, its details on the coarse lattice, blocks of fine sites
            to each coarse site (a wavelet).
        lattice: Of the fine field; larger ones are served too.
        terms: Of the energy; by default `local_terms`.
        sweeps: Langevin moves of a draw; the step is tuned in the first half.
        tile: Coarse sites on the side of a tile that is tested by itself; it is made larger where the energy reaches
            further. 0: the whole field is tested at once.
        ridge: See `solve_energy`.

    Raises:
        RecipeError: If the step does not leave such details.

    Source:
        Marchand, Ozawa, Biroli, Mallat 2022, arXiv:2207.04941; Guth, Lempereur, Bruna, Mallat 2023, arXiv:2306.00181.

    Example:
        >>> from renorm.coarse.wavelet import Wavelet
        >>> lattice = Lattice((8,), boundary="periodic")
        >>> law = GibbsConditional(Wavelet(dim=1), lattice, local_terms(Wavelet(dim=1), lattice, bumps=0))
        >>> x = torch.randn(5000, 1, 8, generator=torch.Generator().manual_seed(0))
        >>> coarse, detail, _ = Wavelet(dim=1).split(x)
        >>> law.solve(detail, coarse)
        >>> round(law.named()["y0.y0[0]"], 1)  # white noise: y^2 / 2
        0.5
    """

    reparametrised = False
    grade = Grade.ENERGY
    closed_form = True
    theta: Tensor
    scale: Tensor
    gain: Tensor

    def __init__(
        self,
        step: CoarseGraining,
        lattice: Lattice,
        terms: Sequence[Term] | None = None,
        *,
        sweeps: int = 100,
        tile: int = 4,
        ridge: float = 1e-6,
    ) -> None:
        super().__init__()
        coarse = step.coarse_lattice(lattice)
        details, *sites = step.detail_shape(lattice)
        if tuple(sites) != coarse.shape or any(n % m for n, m in zip(lattice.shape, coarse.shape, strict=True)):
            raise RecipeError(
                "local energies need details on the coarse lattice, a block of fine sites to each coarse site (take a "
                f"wavelet), got details on {tuple(sites)}, coarse {coarse.shape}, fine {lattice.shape}"
            )
        require(sweeps >= 2, "sweeps must be >= 2 (the step is tuned in the first half)", sweeps)
        require(tile >= 0, "tile must be >= 0", tile)
        self.step, self.sweeps, self.tile, self.ridge = step, sweeps, tile, ridge
        self.terms = nn.ModuleList(local_terms(step, lattice) if terms is None else terms)
        size, dim = sum(len(term.names) for term in self._terms), lattice.dim
        self.register_buffer("theta", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("scale", torch.ones(details, dtype=torch.float64))
        self.register_buffer("gain", torch.zeros(coarse.channels * 3**dim, details, dtype=torch.float64))

    @property
    def _terms(self) -> list[Term]:
        return [term for term in self.terms if isinstance(term, Term)]

    def named(self) -> dict[str, float]:
        """Name of each term -> its coefficient, in nats."""
        names = [name for term in self._terms for name in term.names]
        return dict(zip(names, self.theta.tolist(), strict=True))

    # -- learning ----------------------------------------------------------------------------------------------------

    def solve(self, detail: Tensor, coarse: Tensor) -> None:
        """Score matching in closed form, and the linear guess that draws begin at.

        Raises:
            DataError: If a value is not finite, a detail channel never moves, or a term does not; or if there are fewer
                numbers than terms.
        """
        if detail.numel() < self.theta.numel():
            raise DataError(
                f"an energy of {self.theta.numel()} terms needs at least as many detail values, got {detail.numel()}; "
                "give more or larger fields, or take fewer terms"
            )
        parts = merged(self.step, coarse, detail)
        if not bool(parts.field.isfinite().all()):
            raise DataError("samples must be finite (one nan would spoil every mean), got nan or inf")
        for term in self._terms:
            term.prepare(parts)
        around = _around(coarse.double()).movedim(1, -1).flatten(0, -2)
        rows = detail.double().movedim(1, -1).flatten(0, -2)
        gram = around.T @ around
        gram = gram + 1e-9 * gram.diagonal().mean().clamp_min(1e-300) * torch.eye(len(gram), dtype=gram.dtype)
        gain = torch.linalg.solve(gram, around.T @ rows)
        scale = (rows - around @ gain).square().mean(0).sqrt()
        if not bool((scale > 0).all()):
            raise DataError("every detail channel must vary given the coarse field (else it has no density)")
        self.gain.copy_(gain)
        self.scale.copy_(scale)
        moments = score_moments(self.step, self._terms, coarse, detail, scale=scale)
        self.theta.copy_(solve_energy(moments.gram[0], moments.laplacian[0], ridge=self.ridge))

    # -- the law -----------------------------------------------------------------------------------------------------

    def log_prob(self, detail: Tensor, coarse: Tensor) -> Tensor:
        r"""$-E(y \mid c)$ in nats: the log density, up to the free energy $F(c)$."""
        return -self.energy(detail, coarse)

    def energy(self, detail: Tensor, coarse: Tensor) -> Float[Tensor, " batch"]:
        """E of each detail, in nats."""
        return self.energy_density(merged(self.step, coarse, detail)).flatten(1).sum(1)

    def energy_density(self, parts: Merged) -> Float[Tensor, "batch *sites"]:
        """E as a sum over coarse sites."""
        parts_of = zip(self._terms, self._weights(parts.detail), strict=True)
        return torch.stack([term.density(theta, parts) for term, theta in parts_of]).sum(0)

    def gradient(self, parts: Merged) -> Float[Tensor, "batch details *sites"]:
        r"""$\nabla_y E$."""
        found = [
            (term, term.gradient(theta, parts))
            for term, theta in zip(self._terms, self._weights(parts.detail), strict=True)
        ]
        return self._gathered(found, parts)

    def hessian(self, detail: Tensor, coarse: Tensor) -> Float[Tensor, "entries entries"]:
        r"""$\nabla_z \nabla_z E$ at one detail, in renormalised details $z_a = y_a / \sigma_a$.

        Args:
            detail, coarse: A batch of one.
        """
        size = detail[0].numel()
        at = merged(self.step, coarse, detail)
        units = unit_details(self.step, coarse, self.scale, detail.shape[2:], 0, size)
        weights = self._weights(detail)
        found = [(term, term.curvature(w, at, units)) for term, w in zip(self._terms, weights, strict=True)]
        return (self._gathered(found, units) * self._scale_of(detail)).flatten(1)

    def curvatures(self, detail: Tensor, coarse: Tensor) -> Float[Tensor, "batch 2"]:
        """Least and largest eigenvalue of the Hessian at each detail: log-concave there if the least is > 0.

        Their ratio is the condition number that Langevin moves see; dense, so for lattices of up to $64^2$ sites.
        """
        pairs = []
        for y, c in zip(detail.double().split(1), coarse.double().split(1), strict=True):
            values = torch.linalg.eigvalsh(self.hessian(y, c))
            pairs.append(torch.stack([values[0], values[-1]]))
        return torch.stack(pairs)

    # -- drawing -----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def draw(self, coarse: Tensor, *, generator: torch.Generator) -> Draw:
        r"""One detail for each coarse field, and $-E$ of it.

        Raises:
            DataError: If nothing has been learned yet.
        """
        if not bool(self.theta.any()):
            raise DataError("an energy must be learned before it is drawn from: call solve(detail, coarse) first")
        rows = max(1, TOGETHER // max(1, coarse[0].numel()))
        detail = torch.cat([self._walked(part, generator) for part in coarse.split(rows)])
        return Draw(detail, -self.energy(detail, coarse))

    def _walked(self, coarse: Tensor, generator: torch.Generator) -> Tensor:
        action = ConditionalAction(self, coarse)
        kernel = self.kernel(action, burn_in=self.sweeps // 2)
        state = kernel.start(self.guess(coarse, generator=generator) / self._scale_of(coarse))
        for _ in range(self.sweeps):
            state, _ = kernel.step(state, generator=generator)
        return state.x * self._scale_of(coarse)

    def kernel(self, action: "ConditionalAction", *, burn_in: int) -> TiledLangevin:
        """Langevin moves of renormalised details, in tiles as large as the energy reaches; see `TiledLangevin`."""
        sites = action.coarse.shape[2:]
        tile = max(sites) if self.tile == 0 else max(self.tile, 2 * action.reach())
        return TiledLangevin(action, tile=tile, step_size=0.7, burn_in=burn_in)

    def guess(self, coarse: Tensor, *, generator: torch.Generator) -> Tensor:
        """The best linear detail of the coarse sites around, and noise as strong as what it misses."""
        mean = torch.einsum("nk...,ka->na...", _around(coarse), self.gain.to(coarse.dtype))
        noise = torch.randn(mean.shape, generator=generator, dtype=coarse.dtype, device=coarse.device)
        return mean + self._scale_of(coarse) * noise

    # -- inside ------------------------------------------------------------------------------------------------------

    def _weights(self, like: Tensor) -> tuple[Tensor, ...]:
        return self.theta.to(like).split([len(term.names) for term in self._terms])

    def _scale_of(self, like: Tensor) -> Tensor:
        return self.scale.to(like).reshape(-1, *[1] * (like.ndim - 2))

    def _gathered(self, found: list[tuple[Term, Tensor]], parts: Merged) -> Tensor:
        """Gradients in the field are added up, and projected once."""
        total = torch.zeros_like(parts.detail)
        on_field = [gradient for term, gradient in found if term.on_field]
        if on_field:
            total = total + projected(self.step, torch.stack(on_field).sum(0))
        for term, gradient in found:
            if not term.on_field:
                total = total + gradient
        return total


class ConditionalAction:
    r"""$E(\sigma z \mid c)$ of renormalised details at fixed coarse fields, as Langevin moves ask for it.

    Args:
        law: The conditional.
        coarse: One for each chain.
    """

    def __init__(self, law: GibbsConditional, coarse: Tensor) -> None:
        self.law, self.coarse = law, coarse
        self._last: tuple[Tensor, Merged] | None = None

    def _parts(self, z: Tensor) -> Merged:
        if self._last is None or self._last[0] is not z:  # energy and gradient are asked for at the same place
            self._last = z, merged(self.law.step, self.coarse, z * self.law._scale_of(z))
        return self._last[1]

    def __call__(self, z: Tensor) -> Float[Tensor, " batch"]:
        """E of each chain, in nats."""
        return self.density(z).flatten(1).sum(1)

    def density(self, z: Tensor) -> Float[Tensor, "batch *sites"]:
        """E at each coarse site."""
        return self.law.energy_density(self._parts(z))

    def grad(self, z: Tensor) -> Tensor:
        r"""$\nabla_z E$."""
        return self.law.gradient(self._parts(z)) * self.law._scale_of(z)

    def reach(self) -> int:
        """How many coarse sites away a detail is felt, by the density or by the gradient; found by moving one."""
        sites = self.coarse.shape[2:]
        action = ConditionalAction(self.law, self.coarse[:1].double())
        z = action.coarse.new_ones(1, len(self.law.scale), *sites)
        moved = z.clone()
        moved.flatten(2)[:, :, 0] += 1.0
        shift = (action.density(moved) - action.density(z)).abs() + (action.grad(moved) - action.grad(z)).abs().sum(1)
        felt = (shift[0] > 1e-12 * shift.max()).nonzero()
        sides = torch.tensor(sites)
        return int(torch.minimum(felt, sides - felt).max()) if len(felt) else 0


def _around(coarse: Tensor) -> Tensor:
    """The coarse field at each site and its neighbours, also diagonal ones: (batch, channels * 3^dim, *sites)."""
    dim = coarse.ndim - 2
    return torch.cat([coarse.roll(r, tuple(range(2, 2 + dim))) for r in offsets(dim, 1)], 1)
