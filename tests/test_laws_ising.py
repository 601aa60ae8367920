"""The Ising model: Kaufman and Onsager against tables and enumeration, the dual field, closed maps of couplings."""

import itertools
import math

import pytest
import torch

from renorm.errors import DataError, RecipeError
from renorm.laws.ising import ContinuousIsing, Ising
from renorm.laws.kaufman import (
    CRITICAL_BETA,
    kaufman_energy,
    kaufman_heat_capacity,
    kaufman_log_z,
    onsager_energy,
    onsager_log_z,
    spontaneous_magnetisation,
)
from renorm.laws.rg_maps import (
    decimate_chain,
    migdal_kadanoff,
    migdal_kadanoff_exponent,
    migdal_kadanoff_fixed_point,
    star,
)
from renorm.mcmc.torus import checkerboard

LOG_Z = {  # at the critical point; agrees with the table of NeuralRG's repository digit by digit
    2: 4.382026634673881,
    4: 15.521915458755283,
    8: 60.14178078906916,
    16: 238.64225663513287,
    32: 952.6480795485428,
    64: 3808.672283419809,
    128: 15232.769323338784,
}
CATALAN = 0.915965594177219015


@pytest.mark.parametrize("side", LOG_Z)
def test_log_z_of_critical_tori(side):
    assert kaufman_log_z((side, side), CRITICAL_BETA) == pytest.approx(LOG_Z[side], rel=1e-13)
    assert Ising((side, side), CRITICAL_BETA).log_z == pytest.approx(LOG_Z[side], rel=1e-13)


def test_log_z_of_the_plane():
    assert onsager_log_z(CRITICAL_BETA) == pytest.approx(math.log(2) / 2 + 2 * CATALAN / math.pi, abs=1e-14)
    assert onsager_log_z(1 / 2.0) == pytest.approx(1.025792812694918, abs=1e-13)
    assert onsager_log_z(1 / 2.5) == pytest.approx(0.8793638207749138, abs=1e-13)
    for beta in (0.2, 0.35, 0.6, 1.5):  # far from criticality a torus is the plane
        assert kaufman_log_z((128, 128), beta) / 128**2 == pytest.approx(onsager_log_z(beta), abs=5e-5)
    assert kaufman_log_z((96, 96), 0.3) / 96**2 == pytest.approx(onsager_log_z(0.3), abs=1e-13)


@pytest.mark.parametrize(
    ("side", "beta", "energy", "capacity"),
    [
        # differences of Kaufman's formula as it is usually printed, with 60 digits
        (8, CRITICAL_BETA, -1.49158910744, 1.145559239894),
        (16, CRITICAL_BETA, -1.453064852813, 1.4987049594),
        (32, CRITICAL_BETA, -1.433658466146, 1.84676759004),
        (64, CRITICAL_BETA, -1.423938389833, 2.192211393141),
        (16, 1 / 2.0, -1.745530668991, 0.7255087677366),
        (16, 1 / 2.5, -1.131317984411, 1.064976882853),
    ],
)
def test_energy_and_heat_capacity(side, beta, energy, capacity):
    assert kaufman_energy((side, side), beta) == pytest.approx(energy, abs=1e-12)
    assert kaufman_heat_capacity((side, side), beta) == pytest.approx(capacity, abs=2e-12)


@pytest.mark.parametrize("shape", [(2, 2), (2, 3), (3, 2), (3, 3), (3, 4), (5, 3), (4, 4)], ids=str)
@pytest.mark.parametrize("beta", [0.05, 0.3, CRITICAL_BETA, 1.2])
def test_kaufman_agrees_with_enumeration(shape, beta):
    states = Ising(shape, beta).enumerate()
    sites = math.prod(shape)
    law = Ising(shape, 1.0)
    energy = states.mean(law)
    fluctuation = states.mean(lambda s: (law(s).double() - energy) ** 2)
    assert kaufman_log_z(shape, beta) == pytest.approx(states.log_z, rel=1e-13)
    assert kaufman_energy(shape, beta) == pytest.approx(energy / sites, rel=1e-12)
    assert kaufman_heat_capacity(shape, beta) == pytest.approx(beta**2 * fluctuation / sites, rel=1e-9)


def test_kaufman_at_the_ends():
    """Free spins at high temperature, two ground states at low; a rectangle is the same from both sides."""
    assert kaufman_log_z((6, 7), 1e-6) == pytest.approx(42 * math.log(2), rel=1e-11)
    assert kaufman_log_z((128, 128), 8.0) == pytest.approx(2 * 128**2 * 8.0 + math.log(2), rel=1e-14)
    assert kaufman_log_z((5, 12), 0.4) == pytest.approx(kaufman_log_z((12, 5), 0.4), rel=1e-14)
    assert Ising((3, 5), 0.0).log_z == pytest.approx(15 * math.log(2), rel=1e-15)
    near = [kaufman_log_z((16, 16), CRITICAL_BETA + step) for step in (-1e-9, 0.0, 1e-9)]
    assert near[2] - 2 * near[1] + near[0] == pytest.approx(0.0, abs=1e-12)  # no seam where g_0 changes sign


def test_energy_and_order_of_the_plane():
    assert onsager_energy(CRITICAL_BETA) == pytest.approx(-math.sqrt(2), rel=1e-14)
    for beta in (0.2, 0.44, 0.441, 0.7):
        slope = (onsager_log_z(beta + 1e-5) - onsager_log_z(beta - 1e-5)) / 2e-5
        assert onsager_energy(beta) == pytest.approx(-slope, abs=1e-6)
    assert spontaneous_magnetisation(CRITICAL_BETA - 1e-9) == 0
    assert spontaneous_magnetisation(0.5) == pytest.approx((1 - math.sinh(1.0) ** -4) ** 0.125, rel=1e-15)
    ordered = Ising((4, 4), 1.5).enumerate().mean(lambda s: s.flatten(1).mean(1).abs())
    assert spontaneous_magnetisation(1.5) == pytest.approx(ordered, abs=2e-8)


@pytest.fixture(scope="module")
def critical():
    return Ising((4, 4), CRITICAL_BETA).enumerate()


def _magnetisation(states):
    return states.double().flatten(1).mean(1)


def test_moments_by_enumeration(critical):
    second = critical.mean(lambda s: _magnetisation(s) ** 2)
    fourth = critical.mean(lambda s: _magnetisation(s) ** 4)
    assert second == pytest.approx(0.7613589085686718, abs=1e-12)
    assert critical.mean(lambda s: _magnetisation(s).abs()) == pytest.approx(0.8438604448134195, abs=1e-12)
    assert 1 - fourth / (3 * second**2) == pytest.approx(0.6171993184124585, abs=1e-12)
    assert critical.log_z == pytest.approx(LOG_Z[4], rel=1e-14)
    assert float(critical.log_prob.exp().sum()) == pytest.approx(1, abs=1e-13)


def test_entropies_by_enumeration(critical):
    even = checkerboard((4, 4))
    block = torch.nn.functional.avg_pool2d
    assert critical.entropy() == pytest.approx(4.482719829684017, abs=1e-12)
    assert critical.entropy(lambda s: s[..., ::2, ::2]) == pytest.approx(1.7132587679070528, abs=1e-12)
    assert critical.entropy(lambda s: s[..., even]) == pytest.approx(2.783599215441522, abs=1e-12)
    assert critical.entropy(lambda s: block(s, 2)) == pytest.approx(3.3780648357648984, abs=1e-12)
    assert Ising((4, 4), 0.4).enumerate().entropy() == pytest.approx(5.734747537384216, abs=1e-12)
    assert Ising((4, 4), 0.5).enumerate().entropy() == pytest.approx(3.0623248085121038, abs=1e-12)


def test_the_other_colour_is_a_heat_bath(critical):
    """H = H(even) + E[H(odd | even)], and given the even sites each odd one is up with probability sigma(2h)."""
    even = checkerboard((4, 4))
    up = (2 * Ising((4, 4), CRITICAL_BETA).local_field(critical.states.double())).sigmoid()[..., ~even]
    bath = -(torch.xlogy(up, up) + torch.xlogy(1 - up, 1 - up)).flatten(1).sum(1)
    rest = critical.entropy(lambda s: s[..., even])
    assert rest + critical.mean(lambda _: bath) == pytest.approx(critical.entropy(), abs=3e-13)


def test_log_prob_is_that_of_the_enumeration(critical, dtype):
    law = Ising((4, 4), CRITICAL_BETA)
    some = slice(12345, 12360)
    assert law(critical.states[some].to(dtype)).dtype == dtype
    torch.testing.assert_close(
        law.log_prob(critical.states[some].to(dtype)).double(), critical.log_prob[some], rtol=1e-5, atol=1e-6
    )


def _dense(law):
    """K_a as a matrix, from the bonds one by one."""
    rows, columns = law.ising.shape
    bonds = torch.zeros(rows * columns, rows * columns, dtype=torch.float64)
    for x, y in itertools.product(range(rows), range(columns)):
        for there in ((x + 1) % rows * columns + y, x * columns + (y + 1) % columns):
            bonds[x * columns + y, there] += law.ising.beta
            bonds[there, x * columns + y] += law.ising.beta
    least = torch.linalg.eigvalsh(bonds)[0]
    return bonds + (law.offset - least) * torch.eye(len(bonds), dtype=torch.float64)


@pytest.mark.parametrize(("shape", "offset"), [((2, 2), 0.1), ((3, 3), 0.1), ((3, 4), 0.7)], ids=str)
def test_the_dual_field_sums_over_spins(shape, offset, generator):
    """exp(-U) is the sum over all spins of the joint weight, and its integral is a determinant for each of them."""
    law = ContinuousIsing(Ising(shape, 0.37), offset)
    sites, matrix = math.prod(shape), _dense(law)
    x = torch.randn(5, 1, *shape, generator=generator, dtype=torch.float64)
    flat = x.flatten(1)
    states = law.ising.enumerate().states.double().flatten(1)
    quadratic = (flat @ torch.linalg.inv(matrix) * flat).sum(1) / 2
    joint = (flat @ states.T).logsumexp(1) - quadratic - sites * math.log(2)
    torch.testing.assert_close(-law(x), joint, rtol=1e-12, atol=1e-12)
    gaussian = (states @ matrix * states).sum(1) / 2  # ln of the integral of exp(-x K^-1 x / 2 + s x), less constant
    constant = sites / 2 * math.log(2 * math.pi) + torch.logdet(matrix) / 2 - sites * math.log(2)
    assert law.log_z == pytest.approx(float(gaussian.logsumexp(0) + constant), rel=1e-12)
    assert law.log_prob(x)[0].item() == pytest.approx(float(-law(x)[0] - law.log_z), rel=1e-14)


def test_shift_of_the_dual_field():
    for side, shift in ((16, 354.23348322244965), (32, 1416.9390115767155)):
        law = ContinuousIsing(Ising((side, side), CRITICAL_BETA))
        assert law.shift == pytest.approx(shift, rel=1e-13)
        assert law.log_z == pytest.approx(shift + LOG_Z[side], rel=1e-13)


def test_dual_gradient(generator):
    law = ContinuousIsing(Ising((4, 6), 0.5))
    x = torch.randn(3, 1, 4, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    (autograd,) = torch.autograd.grad(law(x).sum(), x)
    torch.testing.assert_close(law.grad(x.detach()), autograd, rtol=1e-12, atol=1e-12)


def test_from_spins_to_field_and_back(critical, generator):
    """Exact spins give exact fields, whose signs are exact spins again."""
    law = ContinuousIsing(Ising((4, 4), CRITICAL_BETA))
    num = 20000
    spins = critical.states[torch.multinomial(critical.log_prob.exp(), num, replacement=True, generator=generator)]
    x = law.field(spins, generator=generator)
    again = law.spins(x, generator=generator)
    for observable, exact in (
        (law.ising(again), critical.mean(law.ising)),
        (_magnetisation(again) ** 2, critical.mean(lambda s: _magnetisation(s) ** 2)),
        # <x grad U> = N for any density
        ((x * law.grad(x)).flatten(1).sum(1), 16.0),
    ):
        assert abs(float(observable.mean()) - exact) < 4 * float(observable.std()) / math.sqrt(num)


def test_decimation_of_a_chain_is_exact():
    for k in (0.0, 1e-4, 0.3, 2.0, 400.0):
        assert math.tanh(decimate_chain(k)) == pytest.approx(math.tanh(k) ** 2, abs=1e-15)
    k = 0.8
    weight = {(a, b): sum(math.exp(k * s * (a + b)) for s in (-1, 1)) for a in (-1, 1) for b in (-1, 1)}
    assert decimate_chain(k) == pytest.approx(math.log(weight[1, 1] / weight[1, -1]) / 2, rel=1e-14)


@pytest.mark.parametrize("k", [1e-3, 0.3, CRITICAL_BETA, 2.0])
def test_star_identity(k):
    constant, pair, quartic = star(k)
    for spins in itertools.product((-1, 1), repeat=4):
        left = math.log(2 * math.cosh(k * sum(spins)))
        pairs = sum(a * b for a, b in itertools.combinations(spins, 2))
        assert constant + pair * pairs + quartic * math.prod(spins) == pytest.approx(left, abs=1e-14)
    if k == CRITICAL_BETA:
        assert 2 * pair == pytest.approx(0.2746530721670274, abs=1e-15)


def test_migdal_kadanoff():
    fixed = migdal_kadanoff_fixed_point()
    assert fixed == pytest.approx(0.3046889317180031, abs=1e-14)
    assert migdal_kadanoff(fixed) == pytest.approx(fixed, abs=1e-15)
    assert migdal_kadanoff_exponent() == pytest.approx(0.7472357189289077, abs=1e-13)
    assert 1 / migdal_kadanoff_exponent() == pytest.approx(1.3382657903899537, abs=1e-13)
    slope = (migdal_kadanoff(fixed + 1e-6) - migdal_kadanoff(fixed - 1e-6)) / 2e-6
    assert math.log2(slope) == pytest.approx(migdal_kadanoff_exponent(), abs=1e-8)
    assert migdal_kadanoff(0.7, dim=1) == decimate_chain(0.7)
    assert migdal_kadanoff(migdal_kadanoff_fixed_point(3), 3) == pytest.approx(
        migdal_kadanoff_fixed_point(3), abs=1e-15
    )


def test_errors():
    with pytest.raises(RecipeError, match=r"two sides >= 2 .* got \(1, 4\)"):
        Ising((1, 4), 0.4)
    with pytest.raises(RecipeError, match=r"beta must be >= 0 .* got -1"):
        Ising((4, 4), -1.0)
    with pytest.raises(RecipeError, match=r"at most 20 sites .* got 25"):
        Ising((5, 5), 0.4).enumerate()
    with pytest.raises(DataError, match=r"must be \(batch, 1, \*\(4, 4\)\) .* got \(1, 1, 3, 3\)"):
        Ising((4, 4), 0.4)(torch.ones(1, 1, 3, 3))
    with pytest.raises(RecipeError, match=r"beta must be > 0 .* got 0"):
        kaufman_log_z((4, 4), 0.0)
    with pytest.raises(RecipeError, match=r"sides must be >= 2 .* got \(4, 1\)"):
        kaufman_log_z((4, 1), 0.4)
    with pytest.raises(RecipeError, match=r"offset must be > 0 .* got 0"):
        ContinuousIsing(Ising((4, 4), 0.4), 0.0)
    with pytest.raises(RecipeError, match=r"dim must be >= 2 .* got 1"):
        migdal_kadanoff_fixed_point(1)
    with pytest.raises(RecipeError, match=r"dim must be >= 1 .* got 0"):
        migdal_kadanoff(0.4, 0)
