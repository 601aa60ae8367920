"""Free fields, lognormal maps, a chain of double wells: against dense matrices, quadrature, tables and samples."""

import itertools
import math

import numpy as np
import pytest
import torch

from conftest import TOLERANCE
from renorm.bases import basis_for
from renorm.errors import DataError, RecipeError
from renorm.lattice import Lattice
from renorm.laws.chain import DoubleWellChain
from renorm.laws.gaussian_field import GaussianField
from renorm.laws.lognormal import Lognormal
from renorm.laws.stationary import StationaryGaussian, lattice_k_sq

SHAPES = [(1,), (5,), (8,), (4, 6), (2, 3), (2, 3, 4)]


@pytest.mark.parametrize(
    ("mass_sq", "side", "log_z"),
    [
        (0.1, 8, 19.9251664386),
        (0.1, 16, 79.1216882366),
        (0.1, 32, 316.4327430146),
        (0.01, 8, 22.1260189384),
        (0.01, 16, 85.4068133876),
        (0.01, 32, 340.2586734047),
        (1e-4, 8, 24.5483002045),
        (1e-4, 16, 88.3237305233),
        (1e-4, 32, 345.5126243291),
    ],
)
def test_log_z_of_the_free_field(mass_sq, side, log_z):
    assert GaussianField((side, side), mass_sq).log_z == pytest.approx(log_z, abs=1e-9)


def test_variance_of_the_free_field():
    for side, variance in ((8, 1.9389041136), (16, 0.8705502710), (32, 0.6641516096)):
        law = GaussianField((side, side), 0.01)
        assert law.variance == pytest.approx(variance, abs=1e-10)
        assert float(law.correlation[0, 0]) == pytest.approx(law.variance, rel=1e-12)


def _operator(shape, mass_sq):
    """-Laplacian + m^2 as a matrix, bond by bond."""
    sites = list(itertools.product(*(range(side) for side in shape)))
    matrix = mass_sq * torch.eye(len(sites), dtype=torch.float64)
    for i, x in enumerate(sites):
        for axis, side in enumerate(shape):
            ahead = list(x)
            ahead[axis] = (ahead[axis] + 1) % side
            j = sites.index(tuple(ahead))
            for a, b, sign in ((i, i, 1), (j, j, 1), (i, j, -1), (j, i, -1)):
                matrix[a, b] += sign
    return matrix


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_free_field_is_its_dense_matrix(shape, generator):
    law, operator = GaussianField(shape, 0.3), _operator(shape, 0.3)
    x = torch.randn(4, 1, *shape, generator=generator, dtype=torch.float64)
    dense = torch.distributions.MultivariateNormal(torch.zeros(len(operator)).double(), precision_matrix=operator)
    torch.testing.assert_close(law.log_prob(x), dense.log_prob(x.flatten(1)), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(law(x), (x.flatten(1) @ operator * x.flatten(1)).sum(1) / 2, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(law.grad(x).flatten(1), x.flatten(1) @ operator, rtol=1e-12, atol=1e-12)
    covariance = torch.linalg.inv(operator)
    torch.testing.assert_close(law.correlation.flatten(), covariance[0], rtol=1e-11, atol=1e-12)
    assert law.log_z == pytest.approx(float(torch.logdet(2 * math.pi * covariance)) / 2, rel=1e-12)


def test_free_field_samples(dtype, generator):
    law, num = GaussianField((4, 4), 0.2), 20000
    x = law.sample(num, generator=generator, dtype=dtype)
    assert x.dtype == law.log_prob(x).dtype == dtype
    modes = basis_for(law.lattice).forward(x)[:, 0]
    power = (modes.double() ** 2).mean(0) / law.covariance
    assert float((power - 1).abs().max()) < 4 * math.sqrt(2 / num)
    assert abs(float(law(x).mean()) - 8) < 4 * math.sqrt(8 / num)  # half a nat for each mode
    again = law.sample(num, generator=torch.Generator().manual_seed(0), dtype=dtype)
    torch.testing.assert_close(x, again, rtol=0, atol=0)


def test_eigenvalues_of_the_laplacian():
    lattice = Lattice((5, 4), "periodic")
    expected = torch.linalg.eigvalsh(_operator((5, 4), 0.0))
    torch.testing.assert_close(lattice_k_sq(lattice).flatten().sort().values, expected, rtol=0, atol=1e-13)


MAPS = [Lognormal((6, 8), 0.4), Lognormal((5, 3), 1.0, 1.0, 2.0, 0.3), Lognormal((4, 3, 2), 0.5, 2.0)]


@pytest.mark.parametrize("law", MAPS, ids=str)
def test_spectrum_of_the_log_density(law):
    lattice = Lattice(law.shape, "periodic")
    k = lattice.k_sq().sqrt()
    expected = law.amplitude * k**-law.index / (1 + (k / law.knee) ** 2)
    rest = k > 0
    torch.testing.assert_close(law.gaussian.power[rest], expected[rest], rtol=1e-13, atol=0)
    longest = 2 * math.pi / max(law.shape)
    zero = 0.01 * law.amplitude * longest**-law.index / (1 + (longest / law.knee) ** 2)
    assert float(law.gaussian.power[~rest]) == pytest.approx(law.zero_power or zero, rel=1e-13)
    assert law.log_variance == pytest.approx(float(law.gaussian.correlation.flatten()[0]), rel=1e-12)


def _waves(law, vector):
    """exp(-i k x) on every site, for integer wavenumbers."""
    grids = torch.meshgrid(*(torch.arange(side).double() for side in law.shape), indexing="ij")
    phase = sum(2 * math.pi * n / side * x for n, side, x in zip(vector, law.shape, grids, strict=True))
    return torch.exp(-1j * phase)


@pytest.mark.parametrize("law", MAPS, ids=str)
def test_power_of_the_contrast(law, generator):
    """The covariance matrix exp(xi_G) - 1, site by site, is diagonal in the modes, with the power on the diagonal."""
    sites = list(itertools.product(*(range(side) for side in law.shape)))
    xi = law.correlation
    matrix = torch.tensor(
        [[xi[tuple((a - b) % n for a, b, n in zip(x, y, law.shape, strict=True))] for y in sites] for x in sites]
    )
    basis = basis_for(law.gaussian.lattice)
    half = basis.forward(matrix.reshape(len(sites), *law.shape)).reshape(len(sites), len(sites))
    modes = basis.forward(half.T.reshape(len(sites), *law.shape)).reshape(len(sites), len(sites))
    torch.testing.assert_close(modes, torch.diag(law.power.flatten()), rtol=0, atol=1e-11)
    assert float(law.power.mean()) == pytest.approx(law.variance, rel=1e-12)


@pytest.mark.parametrize("law", MAPS[:2], ids=str)
def test_bispectrum_is_the_transform_of_the_three_point_function(law):
    sites = list(itertools.product(*(range(side) for side in law.shape)))
    zeta = torch.tensor([[law.three_point(a, b) for b in sites] for a in sites], dtype=torch.complex128)
    for first, second in (((1, 0), (0, 1)), ((1, 1), (-2, 0)), ((2, 1), (1, 1)), ((0, 0), (1, 0))):
        left, right = _waves(law, first).flatten(), _waves(law, second).flatten()
        transform = left @ zeta @ right
        assert law.bispectrum(first, second) == pytest.approx(transform.real.item(), rel=1e-10)
        assert abs(transform.imag.item()) < 1e-10


def test_lognormal_correlations_by_quadrature():
    """<delta_1 delta_2 delta_3> as a Gaussian integral over the three logarithms, by Gauss-Hermite."""
    law = Lognormal((6, 6), 0.3)
    nodes, weights = np.polynomial.hermite_e.hermegauss(24)
    places = [(0, 0), (1, 0), (2, 3)]
    xi = law.gaussian.correlation.numpy()
    covariance = np.array([[xi[a[0] - b[0], a[1] - b[1]] for b in places] for a in places])
    root = np.linalg.cholesky(covariance)
    z = np.array(list(itertools.product(nodes, repeat=3)))
    w = np.prod(np.array(list(itertools.product(weights / weights.sum(), repeat=3))), axis=1)
    delta = np.expm1(z @ root.T - law.log_variance / 2)
    assert float(w @ delta[:, 0]) == pytest.approx(0, abs=1e-12)
    assert float(w @ delta[:, 0] ** 2) == pytest.approx(law.variance, rel=1e-10)
    assert float(w @ delta[:, 0] ** 3) == pytest.approx(law.skewness * law.variance**1.5, rel=1e-9)
    assert float(w @ (delta[:, 0] * delta[:, 1])) == pytest.approx(float(law.correlation[1, 0]), rel=1e-10)
    assert float(w @ delta.prod(1)) == pytest.approx(law.three_point(places[1], places[2]), rel=1e-9)
    sigma_sq = law.log_variance
    assert law.variance == pytest.approx(math.exp(sigma_sq) - 1, rel=1e-12)
    assert law.skewness == pytest.approx((math.exp(sigma_sq) + 2) * math.sqrt(math.exp(sigma_sq) - 1), rel=1e-12)


@pytest.mark.parametrize("law", MAPS, ids=str)
def test_lognormal_density(law, generator):
    """torch.distributions' multivariate normal pushed through exp: another path to the same density."""
    delta = law.sample(5, generator=generator, dtype=torch.float64)
    power, lattice = law.gaussian.power, law.gaussian.lattice
    matrix = basis_for(lattice).inverse(torch.eye(lattice.sites, dtype=torch.float64).reshape(-1, *lattice.shape))
    matrix = matrix.reshape(lattice.sites, lattice.sites)
    normal = torch.distributions.MultivariateNormal(
        torch.full((lattice.sites,), -law.log_variance / 2, dtype=torch.float64),
        matrix.T @ (power.flatten()[:, None] * matrix),
    )
    pushed = torch.distributions.TransformedDistribution(normal, [torch.distributions.ExpTransform()])
    torch.testing.assert_close(law.log_prob(delta), pushed.log_prob(1 + delta.flatten(1)), rtol=1e-11, atol=1e-11)


def test_lognormal_density_has_mass_one():
    law, grid = Lognormal((2,), 0.8, zero_power=0.5), torch.linspace(-12, 12, 601, dtype=torch.float64)
    log = torch.cartesian_prod(grid, grid)
    density = law.log_prob(log.expm1()[:, None]) + log.sum(1)  # the measure d delta is e^log d log
    assert float(density.exp().sum()) * float(grid[1] - grid[0]) ** 2 == pytest.approx(1, abs=1e-10)


def test_lognormal_samples(dtype, generator):
    """Mean, variance, power and bispectrum of samples within four standard errors of the exact ones."""
    law, num = Lognormal((8, 8), 0.3), 20000
    delta = law.sample(num, generator=generator, dtype=dtype)
    assert delta.dtype == law.log_prob(delta).dtype == dtype

    def near(values, exact):
        return abs(float(values.mean()) - exact) < 4 * float(values.std()) / math.sqrt(num)

    x = delta.double()[:, 0]
    assert near(x.mean((1, 2)), 0.0)
    assert near(x.square().mean((1, 2)), law.variance)
    assert near((x[:, 0, 0] * x[:, 1, 0]), float(law.correlation[1, 0]))
    waves = torch.fft.fft2(x) / 8
    assert near(waves[:, 1, 0].abs() ** 2, float(law.power[1, 0]))
    assert near(waves[:, 2, 1].abs() ** 2, float(law.power[3, 1]))
    triangle = (waves[:, 1, 0] * waves[:, 0, 1] * waves[:, -1, -1]).real * 8
    assert near(triangle, law.bispectrum((1, 0), (0, 1)))
    assert near(law.gaussian(delta.log1p() + law.log_variance / 2).double(), 32.0)


def test_chain_against_table():
    """log Z for four lengths and two springs, and the correlation lengths."""
    soft = {8: -4.78027547, 16: -9.64112847, 32: -19.28578385, 64: -38.57157393}
    stiff = {8: -6.39766646, 16: -13.48674483, 32: -27.65973693, 64: -55.98567190}
    for stiffness, table in ((1.0, soft), (4.0, stiff)):
        for sites, log_z in table.items():
            assert DoubleWellChain(sites, stiffness).log_z == pytest.approx(log_z, abs=1e-8)
    assert DoubleWellChain(8, 1.0).correlation_length == pytest.approx(2.524, abs=5e-4)
    assert DoubleWellChain(8, 4.0).correlation_length == pytest.approx(95.92, abs=5e-3)


def test_decimation_of_the_chain():
    chain = DoubleWellChain(32, 4.0).transfer
    half = chain.decimate()
    quarter = half.decimate()
    assert (half.sites, quarter.sites) == (16, 8)
    assert half.log_z == pytest.approx(chain.log_z, abs=1e-10)
    assert quarter.log_z == pytest.approx(chain.log_z, abs=1e-10)
    assert quarter.correlation_length == pytest.approx(chain.correlation_length / 4, rel=1e-9)
    np.testing.assert_allclose(quarter.density(), chain.density(), atol=1e-12)  # the sites that stay keep their law


def test_short_chains_by_quadrature():
    grid = torch.linspace(-2.2, 2.2, 221, dtype=torch.float64)
    step = float(grid[1] - grid[0])
    one = DoubleWellChain(1, 1.0)
    assert one.log_z == pytest.approx(math.log(step * float((-one(grid.reshape(-1, 1, 1))).exp().sum())), abs=1e-10)
    two = DoubleWellChain(2, 3.0, 2.0)
    fields = torch.cartesian_prod(grid, grid)
    weight = (-two(fields[:, None])).exp()
    assert two.log_z == pytest.approx(math.log(step**2 * float(weight.sum())), abs=1e-10)
    assert float(two.log_prob(fields[:, None]).exp().sum()) * step**2 == pytest.approx(1, abs=1e-9)
    square = float((weight * fields[:, 0] ** 2).sum() / weight.sum())
    assert two.transfer.mean(np.square) == pytest.approx(square, abs=1e-9)
    # one pass of the ring by hand: spring, then wells
    x = torch.tensor([[[0.5, -1.0, 2.0]]], dtype=torch.float64)
    by_hand = 4 * (0.5625 + 0 + 9) + 0.5 * (2.25 + 9 + 2.25)
    assert DoubleWellChain(3, 1.0)(x).item() == pytest.approx(by_hand, rel=1e-14)


@pytest.mark.parametrize("law", [DoubleWellChain(7, 2.0), GaussianField((7,), 0.5)], ids=str)
def test_gradients(law, dtype, generator):
    x = torch.randn(3, 1, 7, generator=generator, dtype=dtype, requires_grad=True)
    (autograd,) = torch.autograd.grad(law(x).sum(), x)
    assert law.grad(x.detach()).dtype == dtype
    torch.testing.assert_close(law.grad(x.detach()), autograd, rtol=10 * TOLERANCE[dtype], atol=100 * TOLERANCE[dtype])


def test_errors():
    with pytest.raises(RecipeError, match=r"mass_sq must be > 0 \(the zero mode's variance is 1 / mass_sq\), got 0"):
        GaussianField((4, 4), 0.0)
    with pytest.raises(DataError, match=r"must be \(batch, 1, \*\(4, 4\)\) .* got \(1, 1, 4, 5\)"):
        GaussianField((4, 4), 1.0)(torch.zeros(1, 1, 4, 5))
    ring = Lattice((4,), "periodic")
    with pytest.raises(RecipeError, match="lattice must be periodic with one channel"):
        StationaryGaussian(Lattice((4,)), torch.ones(4).double())
    with pytest.raises(RecipeError, match=r"one entry a mode, \(4,\), got \(3,\)"):
        StationaryGaussian(ring, torch.ones(3).double())
    with pytest.raises(RecipeError, match=r"power must be >= 0 .* got -1"):
        StationaryGaussian(ring, -torch.ones(4).double())
    with pytest.raises(RecipeError, match="power must be > 0 for a density to exist"):
        Lognormal((4,), 0.3, zero_power=0.0).log_prob(torch.zeros(1, 1, 4))
    flat = Lognormal((4,), 0.3, zero_power=0.0).gaussian.sample(3, generator=torch.Generator().manual_seed(0))
    assert float(flat.mean(2).abs().max()) < 1e-6  # but it can be drawn
    with pytest.raises(DataError, match=r"contrasts must be > -1 .* got -1"):
        Lognormal((4,), 0.3).log_prob(-torch.ones(1, 1, 4))
    with pytest.raises(RecipeError, match="amplitude must be > 0"):
        Lognormal((4,), 0.0)
    with pytest.raises(RecipeError, match="knee must be > 0"):
        Lognormal((4,), 1.0, knee=0.0)
    with pytest.raises(RecipeError, match="zero_power must be >= 0"):
        Lognormal((4,), 1.0, zero_power=-1.0)
    with pytest.raises(RecipeError, match=r"one whole number for each of 2 axes is needed, got \(1,\)"):
        Lognormal((4, 4), 1.0).bispectrum((1,), (1, 0))
    with pytest.raises(ValueError, match="sites must be >= 1"):
        DoubleWellChain(0, 1.0)
    with pytest.raises(ValueError, match="stiffness must be > 0"):
        DoubleWellChain(4, 0.0)
    with pytest.raises(ValueError, match="barrier must be > 0"):
        DoubleWellChain(4, 1.0, 0.0)
    with pytest.raises(RecipeError, match=r"sites must be even .* got 5"):
        DoubleWellChain(5, 1.0).transfer.decimate()
    with pytest.raises(DataError, match=r"must be \(batch, 1, 5\) .* got \(1, 1, 4\)"):
        DoubleWellChain(5, 1.0)(torch.zeros(1, 1, 4))
