"""Lattice phi^4: four conventions, exact partition functions and moments by quadrature, free fields."""

import itertools
import math

import numpy as np
import pytest
import torch

from renorm.errors import DataError, RecipeError
from renorm.laws.chain import DoubleWellChain
from renorm.laws.gaussian_field import GaussianField
from renorm.laws.phi4 import Phi4
from renorm.laws.transfer import RowTransfer, gauss_rule

# kappa, lam, c2: ln Z of 2x2, 3x3, 4x4 and of an endless strip of width 4, per site. The first three agree with an
# independent transfer matrix (other nodes, another language) to all of its digits, and that with Monte Carlo.
LOG_Z = {
    (0.25, 1.0, None): (4.758102122486, 10.089921949272, 17.680354067, 1.1011666702),
    (0.34, 1.0, None): (5.573127085267, 11.605393810, 20.089925184, 1.2317391436),
    (0.20, 0.022, None): (2.766345549320, 5.7329178, 10.050654525, 0.626915456),
    (0.275, 0.022, None): (3.973639556586, 7.529913579, 12.60885897, 0.75279463),
    (0.30, 0.022, None): (5.213835547544, 10.26266812, 17.5223087, 1.05026087),
    (1.0, 6.975, 0.0): (1.173184710778, 1.969824275, 3.218328923, 0.196632563),
}


@pytest.mark.parametrize("couplings", LOG_Z, ids=str)
def test_log_z_of_small_tori(couplings):
    two, three, four, strip = LOG_Z[couplings]
    kappa, lam, c2 = couplings
    assert Phi4((2, 2), kappa, lam, c2).log_z() == pytest.approx(two, abs=2e-11)
    assert Phi4((3, 3), kappa, lam, c2).log_z() == pytest.approx(three, abs=3e-8)
    assert Phi4((4, 4), kappa, lam, c2).log_z(10) == pytest.approx(four, abs=3e-9 if kappa < 0.27 or lam > 1 else 3e-6)
    assert Phi4((4, 4), kappa, lam, c2).log_z_strip() == pytest.approx(strip, abs=1e-9 if kappa < 0.27 else 1e-7)


def test_more_nodes_change_nothing():
    for kappa, lam in ((0.34, 1.0), (0.3, 0.022)):
        law = Phi4((3, 3), kappa, lam)
        assert law.log_z() == pytest.approx(law.log_z(20), abs=1e-9)
    assert Phi4((4, 4), 0.34, 1.0).log_z() == pytest.approx(20.08992518374604, abs=1e-10)
    assert Phi4((4, 8), 0.34, 1.0).log_z(8) == pytest.approx(39.601456165, abs=3e-7)
    assert Phi4((8, 4), 0.34, 1.0).log_z(8) == Phi4((4, 8), 0.34, 1.0).log_z(8)


def test_moments_at_the_critical_point():
    exact = Phi4((4, 4), 0.34, 1.0).moments(10)
    assert exact.phi_sq == pytest.approx(0.86397793, abs=2e-9)
    assert exact.phi_4 == pytest.approx(1.11559156, abs=1e-8)
    assert exact.neighbour == pytest.approx(1.27530175, abs=1e-8)
    assert exact.chi == pytest.approx(9.86297193, abs=1e-8)
    hot = Phi4((4, 4), 0.25, 1.0).moments(10)
    assert (hot.phi_sq, hot.phi_4) == (pytest.approx(0.62729128, abs=1e-8), pytest.approx(0.68690860, abs=1e-8))
    assert (hot.neighbour, hot.chi) == (pytest.approx(0.49305187, abs=1e-8), pytest.approx(3.28910178, abs=1e-8))


@pytest.mark.parametrize("shape", [(2, 2), (3, 3), (2, 5), (3, 4)], ids=str)
def test_moments_are_derivatives(shape):
    kappa, lam, c2, step = 0.31, 0.7, -0.2, 1e-4
    sites = math.prod(shape)
    exact = Phi4(shape, kappa, lam, c2).moments(14)

    def slope(**by):
        ends = [
            Phi4(shape, kappa + s * by.get("kappa", 0), lam + s * by.get("lam", 0), c2 + s * by.get("c2", 0)).log_z(14)
            for s in (-1, 1)
        ]
        return (ends[1] - ends[0]) / (2 * step * sites)

    assert exact.log_z == pytest.approx(Phi4(shape, kappa, lam, c2).log_z(14), abs=1e-12)
    assert exact.phi_sq == pytest.approx(-slope(c2=step), abs=1e-6)
    assert exact.phi_4 == pytest.approx(-slope(lam=step), abs=1e-6)
    assert exact.neighbour == pytest.approx(slope(kappa=step) / 2, abs=1e-6)


def test_two_by_two_by_brute_force():
    """The integral over four sites, point by point on a plain grid."""
    law = Phi4((2, 2), 0.34, 1.0)
    grid = torch.linspace(-2.9, 2.9, 33, dtype=torch.float64)
    fields = torch.cartesian_prod(grid, grid, grid, grid)
    weight = torch.exp(-law(fields.reshape(-1, 1, 2, 2)))
    z = weight.sum() * (grid[1] - grid[0]) ** 4
    exact = law.moments()
    assert exact.log_z == pytest.approx(math.log(z), abs=1e-9)
    assert exact.chi == pytest.approx(float((weight * fields.mean(1) ** 2).sum() / weight.sum()) * 4, abs=1e-8)
    assert exact.phi_4 == pytest.approx(float((weight * fields[:, 0] ** 4).sum() / weight.sum()), abs=1e-8)


@pytest.mark.parametrize("shape", [(7,), (2, 2), (2, 6), (3, 5), (4, 4)], ids=str)
def test_a_free_field_is_gaussian(shape):
    """At lam = 0 with c2 = d + m^2/2 the field is free, and everything is known."""
    mass_sq = 3.0
    law, free = Phi4.continuum(shape, mass_sq, 0.0), GaussianField(shape, mass_sq)
    exact = law.moments()
    assert exact.log_z == pytest.approx(free.log_z, abs=1e-6)
    assert exact.phi_sq == pytest.approx(free.variance, abs=1e-6)
    assert exact.phi_4 == pytest.approx(3 * free.variance**2, abs=1e-5)
    assert exact.chi == pytest.approx(1 / mass_sq, abs=1e-5)
    ahead = [free.correlation[tuple(int(a == b) for a in range(len(shape)))] for b in range(len(shape))]
    assert exact.neighbour == pytest.approx(float(sum(ahead)), abs=1e-5)


def test_a_chain_of_double_wells_is_phi4():
    for sites, stiffness, barrier in ((1, 1.0, 4.0), (2, 1.0, 4.0), (9, 2.0, 1.0), (40, 4.0, 4.0)):
        chain = DoubleWellChain(sites, stiffness, barrier)
        law = Phi4((sites,), stiffness / 2, barrier, stiffness - 2 * barrier)
        assert law.log_z() - barrier * sites == pytest.approx(chain.log_z, abs=1e-9 * sites)
        assert law.moments().phi_sq == pytest.approx(chain.transfer.mean(np.square), abs=1e-9)
        x = torch.linspace(-1, 1, sites, dtype=torch.float64).reshape(1, 1, -1)
        assert law(x).item() + barrier * sites == pytest.approx(chain(x).item(), abs=1e-12)


def test_negative_coupling_on_an_even_torus():
    """Turning the sign of one colour turns that of kappa."""
    assert Phi4((4, 2), -0.3, 0.5).log_z() == pytest.approx(Phi4((4, 2), 0.3, 0.5).log_z(), abs=1e-11)
    staggered = Phi4((2, 2), -0.3, 0.5).moments()
    assert staggered.neighbour == pytest.approx(-Phi4((2, 2), 0.3, 0.5).moments().neighbour, abs=1e-11)
    assert Phi4((1, 1), -0.3, 0.0, -0.5).log_z() == pytest.approx(math.log(math.pi / 0.7) / 2, abs=1e-9)


SHAPES = [(5,), (2, 2), (3, 4), (2, 3, 2)]


def _bonds(phi):
    """Every bond once, site by site: pairs (phi_x, phi_{x + mu})."""
    sites = phi.shape
    for x in itertools.product(*(range(side) for side in sites)):
        for axis in range(len(sites)):
            y = list(x)
            y[axis] = (y[axis] + 1) % sites[axis]
            yield phi[x], phi[tuple(y)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_conventions(shape, generator):
    """Each literature's action, written as it writes it."""
    phi = torch.randn(shape, generator=generator, dtype=torch.float64)
    field = phi[None, None]
    beta, lam, mass_sq, k, g = 0.7, 0.4, -0.9, 0.6, 0.3
    square, fourth = float((phi**2).sum()), float((phi**4).sum())
    product = float(sum(a * b for a, b in _bonds(phi)))
    gradient = float(sum((b - a) ** 2 for a, b in _bonds(phi)))
    kaupuzs = -beta * product + square + lam * float(((phi**2 - 1) ** 2).sum())
    laplace = 2 * len(shape) * square - 2 * product
    cases = [
        (Phi4(shape, 0.3, lam), -0.6 * product + (1 - 2 * lam) * square + lam * fourth),
        (Phi4(shape, 0.3, lam, 0.1), -0.6 * product + 0.1 * square + lam * fourth),
        (Phi4.kaupuzs(shape, beta, lam), kaupuzs - lam * phi.numel()),
        (Phi4.albergo(shape, mass_sq, lam), laplace + mass_sq * square + lam * fourth),
        (Phi4.normflow(shape, k, mass_sq, lam), k / 2 * gradient + mass_sq / 2 * square + lam * fourth),
        (Phi4.continuum(shape, mass_sq, g), gradient / 2 + mass_sq / 2 * square + g / 4 * fourth),
    ]
    for law, expected in cases:
        assert law(field).item() == pytest.approx(expected, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gradient_and_local_field(shape, dtype, generator):
    law = Phi4(shape, 0.34, 0.8)
    phi = torch.randn(3, 1, *shape, generator=generator, dtype=dtype, requires_grad=True)
    (autograd,) = torch.autograd.grad(law(phi).sum(), phi)
    phi = phi.detach()
    torch.testing.assert_close(law.grad(phi), autograd, rtol=1e-5, atol=1e-5 if dtype == torch.float32 else 1e-12)
    assert law(phi).dtype == law.grad(phi).dtype == dtype
    # moving one site changes the action by V(new) - V(old) - h (new - old), h the local field of the others
    moved = phi.clone()
    site = (..., *([0] * len(shape)))
    moved[site] += 0.5
    rise = law.potential(moved) - law.potential(phi) - law.local_field(phi) * (moved - phi)
    torch.testing.assert_close(law(moved) - law(phi), rise[site].flatten(), rtol=1e-4, atol=1e-4)


def test_gauss_rule():
    """Exact for polynomials under its weight; Gauss-Hermite is one of them."""
    nodes, weights = np.polynomial.hermite.hermgauss(10)
    rule = gauss_rule(lambda phi: -(phi**2), 10, 9.0)
    np.testing.assert_allclose(rule.nodes, nodes, atol=1e-12)
    np.testing.assert_allclose(np.exp(rule.log_weight - rule.nodes**2), weights, rtol=1e-9)
    quartic = gauss_rule(lambda phi: -(phi**4), 12, 3.5)
    for power in range(0, 24, 2):
        moment = float(np.sum(quartic.nodes**power * np.exp(quartic.log_weight - quartic.nodes**4)))
        assert moment == pytest.approx(math.gamma((power + 1) / 4) / 2, rel=1e-11)


def test_row_transfer_is_its_dense_matrix():
    """Applied axis by axis and over orbits, against the matrix written out."""
    rule = gauss_rule(lambda phi: -(phi**2), 5, 8.0)
    transfer = RowTransfer(rule, rule.nodes**2 + 0.3 * rule.nodes**4, 0.4, 3)
    rows = transfer.fields
    own = (transfer.rule.log_weight - transfer.potential)[transfer.rows].sum(1)
    own = own + 0.4 * (rows * np.roll(rows, 1, axis=1)).sum(1)
    dense = np.exp((own[:, None] + own[None, :]) / 2 + 0.4 * rows @ rows.T)
    values = np.linalg.eigvalsh(dense)
    assert transfer.log_top == pytest.approx(math.log(values[-1]), abs=1e-12)
    for length in (1, 2, 3, 6):
        assert transfer.log_z(length) == pytest.approx(math.log(np.sum(values**length)), abs=1e-12)
    assert transfer.orbits[1].sum() == 5**3
    assert len(transfer.orbits[0]) < 5**3 / 6


def test_errors():
    with pytest.raises(RecipeError, match=r"lam must be >= 0 .* got -0.1"):
        Phi4((4, 4), 0.3, -0.1)
    with pytest.raises(RecipeError, match=r"every mode needs a positive quadratic part.* got -0.2"):
        Phi4((4, 4), 0.3, 0.0)
    assert Phi4((4, 4), 0.24, 0.0).coefficient == 1
    assert Phi4((3, 3), -0.3, 0.0).coefficient == 1  # frustrated: no mode is as soft as on an even torus
    with pytest.raises(RecipeError, match="every mode needs"):
        Phi4((4, 4), -0.3, 0.0)
    for shape in ((5, 5), (2, 2, 2)):
        with pytest.raises(RecipeError, match="exact answers need one axis, or two of which one has at most 4"):
            Phi4(shape, 0.3, 1.0).log_z()
    with pytest.raises(DataError, match=r"must be \(batch, 1, \*\(4, 4\)\) .* got \(2, 1, 3, 4\)"):
        Phi4((4, 4), 0.3, 1.0)(torch.zeros(2, 1, 3, 4))
    with pytest.raises(ValueError, match="one to three axes"):
        Phi4((), 0.3, 1.0)
