"""Kernels keep their laws: transition matrices, enumeration, exact moments, and what leapfrog promises."""

import itertools
import math

import numpy as np
import pytest
import torch

from conftest import TOLERANCE
from renorm.bases import basis_for
from renorm.errors import DataError, RecipeError
from renorm.laws.chain import DoubleWellChain
from renorm.laws.gaussian_field import GaussianField
from renorm.laws.ising import Ising
from renorm.laws.kaufman import CRITICAL_BETA
from renorm.laws.phi4 import Phi4
from renorm.laws.simulate import simulate
from renorm.mcmc.cluster import Cluster
from renorm.mcmc.hmc import HMC, leapfrog, value_and_grad
from renorm.mcmc.kernel import Cycle, Kernel, run, tuned
from renorm.mcmc.langevin import Langevin
from renorm.mcmc.metropolis import SiteMetropolis, SpinMetropolis
from renorm.mcmc.torus import checkerboard, forward_sum, neighbour_sum


def _near(values, exact):
    """Is the mean of (steps, chains) within four standard errors of exact? Chains are independent, steps are not."""
    chains = values.double().mean(0)
    return abs(float(chains.mean()) - exact) < 4 * float(chains.std()) / math.sqrt(len(chains))


@pytest.mark.parametrize("shape", [(1,), (2,), (5,), (2, 3), (3, 2, 4)], ids=str)
def test_neighbours(shape, generator):
    x = torch.randn(2, 1, *shape, generator=generator)
    for site in itertools.product(*(range(side) for side in shape)):
        ahead, around = 0.0, 0.0
        for axis in range(len(shape)):
            steps = [tuple((n + s * (a == axis)) % shape[a] for a, n in enumerate(site)) for s in (1, -1)]
            ahead = ahead + x[(..., *steps[0])]
            around = around + x[(..., *steps[0])] + x[(..., *steps[1])]
        torch.testing.assert_close(forward_sum(x)[(..., *site)], ahead)
        torch.testing.assert_close(neighbour_sum(x)[(..., *site)], around)


def test_checkerboard():
    board = checkerboard((4, 6)).double()
    assert float((board[None, None] * neighbour_sum(board[None, None])).sum()) == 0
    assert float(board.sum()) == 12
    with pytest.raises(RecipeError, match=r"a checkerboard needs even sides .* got \(4, 3\)"):
        checkerboard((4, 3))


def _half_sweep(kernel, states, colour):
    """P(s -> s') when the sites of one colour may flip, each by itself."""
    probability = kernel.flip_probability(states).flatten(1)
    differ = states.flatten(1)[:, None] != states.flatten(1)[None, :]
    own = torch.where(differ, probability[:, None], 1 - probability[:, None])
    return torch.where(colour.flatten(), own, torch.where(differ, 0.0, 1.0)).prod(2)


@pytest.mark.parametrize("beta", [0.2, CRITICAL_BETA])
def test_metropolis_of_spins_keeps_detailed_balance(beta, generator):
    """Each half sweep exactly; and a whole sweep of many chains follows the product of the two matrices."""
    law, kernel = Ising((2, 2), beta), SpinMetropolis(beta)
    exact = law.enumerate()
    states, weight = exact.states.double(), exact.log_prob.exp()
    even = checkerboard((2, 2))
    halves = [_half_sweep(kernel, states, colour) for colour in (even, ~even)]
    for half in halves:
        torch.testing.assert_close(half.sum(1), torch.ones(16).double(), rtol=0, atol=1e-14)
        flux = weight[:, None] * half
        torch.testing.assert_close(flux, flux.T, rtol=0, atol=1e-16)
    sweep = halves[0] @ halves[1]
    torch.testing.assert_close(weight @ sweep, weight, rtol=1e-13, atol=0)
    num = 20000
    for begin in (0, 5, 7):
        start = kernel.start(states[begin].expand(num, 1, 2, 2))
        state, info = kernel.step(start, generator=generator)
        codes = ((state.x.flatten(1) > 0).long() * 2 ** torch.arange(4)).sum(1)
        count = torch.bincount(codes, minlength=16)
        deviation = (count - num * sweep[begin]).abs()
        assert bool((deviation <= 4.5 * (num * sweep[begin] * (1 - sweep[begin])).sqrt() + 1e-9).all())
        assert info.acceptance.shape == (num,)


@pytest.mark.parametrize("single", [False, True], ids=["swendsen-wang", "wolff"])
@pytest.mark.parametrize("coupling", [CRITICAL_BETA, -0.3, 0.1])
def test_clusters_keep_the_law_of_spins(coupling, single, generator):
    """Exact spins, one cluster move: still exact spins, on a torus with double bonds and an odd side."""
    shape = (2, 3)
    states = Ising(shape, 0.0).enumerate().states
    weight = -(-coupling * (states * forward_sum(states)).flatten(1).sum(1)).double()
    weight = weight.softmax(0)
    num, kernel = 60000, Cluster(coupling, single)
    drawn = torch.multinomial(weight, num, replacement=True, generator=generator)
    state, info = kernel.step(kernel.start(states[drawn]), generator=generator)
    codes = ((state.x.flatten(1) > 0).long() * 2 ** torch.arange(6)).sum(1)
    chi_sq = float(((torch.bincount(codes, minlength=64) - num * weight) ** 2 / (num * weight)).sum())
    assert abs(chi_sq - 63) < 4 * math.sqrt(2 * 63)
    assert float((codes != drawn).double().mean()) > 0.5
    assert bool(((info.acceptance >= 0) & (info.acceptance <= 1)).all())


@pytest.mark.parametrize(
    "kernel",
    [Cluster(CRITICAL_BETA), Cluster(CRITICAL_BETA, single=True), SpinMetropolis(CRITICAL_BETA)],
    ids=["swendsen-wang", "wolff", "metropolis"],
)
def test_critical_spins_against_enumeration(kernel, generator):
    law = Ising((4, 4), CRITICAL_BETA)
    exact = law.enumerate()
    state = run(kernel, kernel.start(torch.ones(1000, 1, 4, 4)), 40, generator=generator).state
    result = run(kernel, state, 60, generator=generator)
    spins = result.values.flatten(0, 1)
    energy = law(spins).reshape(60, -1)
    second = spins.flatten(1).mean(1).square().reshape(60, -1)
    assert _near(energy, exact.mean(law))
    assert _near(second, 0.7613589085686718)
    assert _near(second.sqrt(), 0.8438604448134195)


@pytest.mark.parametrize(("beta", "chi"), [(CRITICAL_BETA, 16 * 0.7613589085686718), (0.2, None)])
def test_the_size_of_a_wolff_cluster_is_the_susceptibility(beta, chi, generator):
    """The improved estimator, beside enumeration; in disorder it is less noisy than the square of the mean."""
    law = Ising((4, 4), beta)
    chi = 16 * law.enumerate().mean(lambda x: x.flatten(1).mean(1).square()) if chi is None else chi
    kernel = Cluster(beta, single=True)
    state = run(kernel, kernel.start(torch.ones(1000, 1, 4, 4)), 60, generator=generator).state
    sizes, squares = [], []
    for _ in range(60):
        before = state.x
        squares.append(16 * before.flatten(1).mean(1).square())
        state, info = kernel.step(state, generator=generator)
        turned = (state.x != before).flatten(1).sum(1)
        assert torch.equal(turned, (16 * info.acceptance).long())
        assert bool((turned >= 1).all())
        sizes.append(turned)
    assert _near(torch.stack(sizes), float(chi))
    quieter = torch.stack(sizes).double().std() < torch.stack(squares).double().std()
    assert bool(quieter) == (beta < CRITICAL_BETA)


def test_embedded_wolff_clusters_with_metropolis(generator):
    """phi^4 beside the transfer matrix, and the susceptibility of its signs beside the sizes of clusters."""
    law = Phi4((4, 4), 0.34, 1.0)
    fields = simulate(law, 40_000, generator=generator, chains=1000, burn_in=60, thin=2, clusters="wolff")
    values = fields.double().reshape(40, 1000, -1)
    assert _near(values.square().mean(2), 0.86397793)
    assert _near(16 * values.mean(2).square(), 9.86297193)
    kernel = Cluster(law.bond, single=True)
    _, info = kernel.step(kernel.start(fields), generator=generator)
    signs = 16 * fields.sign().flatten(1).mean(1).square().double()
    assert _near((16 * info.acceptance).double().reshape(40, 1000) - signs.reshape(40, 1000), 0.0)


def test_metropolis_of_fields_against_exact_moments(generator):
    law = Phi4((2, 4), 0.3, 0.5)
    exact = law.moments()
    kernel = SiteMetropolis(law.potential, law.bond, step_size=3.0, burn_in=40)
    state = run(kernel, kernel.start(torch.ones(1000, 1, 2, 4).double()), 60, generator=generator).state
    result = run(kernel, state, 100, generator=generator, thin=2)
    fields = result.values
    assert _near(fields.square().flatten(2).mean(2), exact.phi_sq)
    assert _near((fields**4).flatten(2).mean(2), exact.phi_4)
    assert _near(fields.flatten(2).mean(2).square() * 8, exact.chi)
    assert abs(float(result.acceptance.mean()) - 0.5) < 0.02
    assert result.state.step_size == state.step_size  # nothing is tuned after burn-in


def test_critical_fields_with_clusters_and_hmc(generator):
    """The numbers are those of the transfer matrix, which the tests of phi^4 check."""
    law = Phi4((4, 4), 0.34, 1.0)
    kernel = Cycle((Cluster(law.bond), HMC(law, steps=5, step_size=0.3, burn_in=50)))
    x = torch.randn(500, 1, 4, 4, generator=generator, dtype=torch.float64)
    state = run(kernel, kernel.start(x), 60, generator=generator).state
    fields = run(kernel, state, 80, generator=generator).values
    assert _near(fields.square().flatten(2).mean(2), 0.86397793)
    assert _near(fields.flatten(2).mean(2).square() * 16, 9.86297193)
    assert _near(law(fields.flatten(0, 1)).reshape(80, -1), 0.86397793 * -16 + 16 * 1.11559156 - 16 * 0.68 * 1.27530175)


@pytest.mark.parametrize("sampler", [HMC, Langevin], ids=["hmc", "langevin"])
def test_variances_of_a_free_field(sampler, dtype, generator):
    """Every mode within four standard errors, started in the law: the kernel must keep it."""
    law, num = GaussianField((4, 4), 0.3), 4000
    kernel = sampler(law, step_size=0.45)
    x = law.sample(num, generator=generator, dtype=dtype)
    result = run(kernel, kernel.start(x), 12, generator=generator)
    assert result.state.x.dtype == dtype
    modes = basis_for(law.lattice).forward(result.values[-1])[:, 0].double()
    assert float(((modes**2).mean(0) / law.covariance - 1).abs().max()) < 4 * math.sqrt(2 / num)
    assert 0.3 < float(result.acceptance.mean()) < 0.99  # enough rejections for the test to test them
    before = basis_for(law.lattice).forward(x)[:, 0].double()
    assert float((modes * before).mean(0)[-1, -1]) < 0.3 * float(law.covariance[-1, -1])  # and it did move


def test_free_field_from_a_far_start(generator):
    law = GaussianField((4, 4), 0.5)
    kernel = HMC(law, steps=8, step_size=0.05, burn_in=100)
    state = run(kernel, kernel.start(torch.full((1000, 1, 4, 4), 5.0)), 120, generator=generator).state
    modes = basis_for(law.lattice).forward(state.x)[:, 0].double()
    assert float(((modes**2).mean(0) / law.covariance - 1).abs().max()) < 4 * math.sqrt(2 / 1000)


def test_double_wells_against_the_transfer_matrix(generator):
    law = DoubleWellChain(6, 1.0, 1.0)
    kernel = Cycle((Cluster(law.stiffness), HMC(law, steps=6, step_size=0.2, burn_in=50)))
    state = run(kernel, kernel.start(torch.ones(1000, 1, 6).double()), 70, generator=generator).state
    values = run(kernel, state, 40, generator=generator, observe=lambda x: x.square().flatten(1).mean(1)).values
    assert values.shape == (40, 1000)
    assert _near(values, law.transfer.mean(np.square))


LAW = Phi4((3, 4), 0.3, 0.6)


def _phase_point(generator, num=3):
    x, p = torch.randn(2, num, 1, 3, 4, generator=generator, dtype=torch.float64)
    return x, p, LAW.grad(x)


def test_leapfrog_is_reversible(generator):
    x, p, gradient = _phase_point(generator)
    there, momentum, value, slope = leapfrog(LAW, x, p, gradient, step_size=0.07, steps=20)
    torch.testing.assert_close(value, LAW(there))
    torch.testing.assert_close(slope, LAW.grad(there))
    back, momentum, _, _ = leapfrog(LAW, there, -momentum, slope, step_size=0.07, steps=20)
    torch.testing.assert_close(back, x, rtol=0, atol=1e-12)
    torch.testing.assert_close(momentum, -p, rtol=0, atol=1e-12)


def test_leapfrog_is_of_order_two(generator):
    x, p, gradient = _phase_point(generator)

    def end(steps):
        return leapfrog(LAW, x, p, gradient, step_size=0.5 / steps, steps=steps)[0]

    truth = end(1024)
    errors = [float((end(steps) - truth).abs().max()) for steps in (16, 32, 64)]
    for coarse, fine in itertools.pairwise(errors):
        assert math.log2(coarse / fine) == pytest.approx(2, abs=0.06)


def test_leapfrog_preserves_volume(generator):
    x, p, _ = _phase_point(generator, num=1)

    def flow(z):
        x, p = z[:12].reshape(1, 1, 3, 4), z[12:].reshape(1, 1, 3, 4)
        for_x, for_p, *_ = leapfrog(_Plain(), x, p, _Plain().grad(x), step_size=0.1, steps=4)
        return torch.cat([for_x.flatten(), for_p.flatten()])

    jacobian = torch.autograd.functional.jacobian(flow, torch.cat([x.flatten(), p.flatten()]))
    assert float(torch.linalg.slogdet(jacobian).logabsdet) == pytest.approx(0, abs=1e-11)


class _Plain:
    """LAW with a gradient that autograd may differentiate again."""

    def __call__(self, x):
        return LAW(x)

    def grad(self, x):
        return 2 * x * (LAW.coefficient + 2 * LAW.lam * x**2) - LAW.bond * neighbour_sum(x)


def test_langevin_is_its_formula(generator):
    """The acceptance ratio with both proposal densities written out, from the same noise."""
    x = torch.randn(50, 1, 3, 4, generator=generator, dtype=torch.float64)
    epsilon = 0.4
    kernel = Langevin(LAW, step_size=epsilon)
    state, info = kernel.step(kernel.start(x), generator=torch.Generator().manual_seed(3))
    replay = torch.Generator().manual_seed(3)
    torch.rand((), generator=replay)  # the jitter of HMC, which is zero here
    noise = torch.randn(x.shape, generator=replay, dtype=x.dtype)
    new = x - epsilon**2 / 2 * LAW.grad(x) + epsilon * noise

    def log_q(to, since):
        return -((to - since + epsilon**2 / 2 * LAW.grad(since)) ** 2).flatten(1).sum(1) / (2 * epsilon**2)

    chance = (LAW(x) - LAW(new) + log_q(x, new) - log_q(new, x)).exp().clamp_max(1)
    torch.testing.assert_close(info.acceptance, chance, rtol=1e-10, atol=1e-12)
    moved = (state.x != x).flatten(1).any(1)
    torch.testing.assert_close(state.x[moved], new[moved], rtol=1e-12, atol=1e-12)
    assert 0 < int(moved.sum()) < 50
    torch.testing.assert_close(state.action, LAW(state.x))
    torch.testing.assert_close(state.gradient, LAW.grad(state.x))


def test_gradient_by_autograd_where_there_is_none(dtype, generator):
    x = torch.randn(3, 1, 3, 4, generator=generator, dtype=dtype)
    value, gradient = value_and_grad(lambda phi: LAW(phi), x)
    torch.testing.assert_close(value, LAW(x))
    torch.testing.assert_close(gradient, LAW.grad(x), rtol=1e-5, atol=10 * TOLERANCE[dtype])
    assert not value.requires_grad
    assert not gradient.requires_grad


def test_a_wild_step_is_rejected(generator):
    kernel = HMC(LAW, steps=20, step_size=50.0)
    x = torch.randn(4, 1, 3, 4, generator=generator)
    state, info = kernel.step(kernel.start(x), generator=generator)
    assert torch.equal(state.x, x)
    assert float(info.acceptance.max()) == 0


KERNELS = [
    SpinMetropolis(0.4),
    Cluster(0.4),
    SiteMetropolis(Phi4((4, 4), 0.3, 1.0).potential, 0.6, burn_in=3),
    HMC(Phi4((4, 4), 0.3, 1.0), burn_in=3),
    Langevin(Phi4((4, 4), 0.3, 1.0), burn_in=3),
    Cycle((Cluster(0.6), Langevin(Phi4((4, 4), 0.3, 1.0), burn_in=3))),
]


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: type(k).__name__)
def test_runs_resume_to_the_same_bits(kernel, dtype):
    assert isinstance(kernel, Kernel)
    start = kernel.start(torch.ones(3, 1, 4, 4, dtype=dtype))
    whole = run(kernel, start, 8, generator=torch.Generator().manual_seed(1), thin=2)
    generator = torch.Generator().manual_seed(1)
    first = run(kernel, start, 4, generator=generator, thin=2)
    second = run(kernel, first.state, 4, generator=generator, thin=2)
    assert torch.equal(whole.values, torch.cat([first.values, second.values]))
    assert torch.equal(whole.acceptance, torch.cat([first.acceptance, second.acceptance]))
    assert whole.state.steps_done == second.state.steps_done == 8
    assert whole.values.dtype == dtype
    assert torch.equal(start.x, torch.ones(3, 1, 4, 4, dtype=dtype))  # the state that was given is left alone
    moved = kernel.move(second.state, -second.state.x)
    assert torch.equal(moved.x, -second.state.x)
    assert moved.steps_done == 8


def test_tuning_reaches_its_target(generator):
    law = GaussianField((8, 8), 0.5)
    for kernel in (HMC(law, step_size=0.01, burn_in=100), Langevin(law, step_size=3.0, burn_in=100)):
        x = law.sample(100, generator=generator)
        result = run(kernel, kernel.start(x), 140, generator=generator)
        assert float(result.acceptance[100:].mean()) == pytest.approx(kernel.target, abs=0.05)
    assert tuned(0.1, 0.3, target=0.8, steps_done=3, burn_in=10) == pytest.approx(0.1 * math.exp(-0.5), rel=1e-14)
    assert tuned(0.1, 0.3, target=0.8, steps_done=10, burn_in=10) == 0.1


def test_errors(generator):
    spins = SpinMetropolis(0.4)
    with pytest.raises(DataError, match=r"spins must be 1 or -1, got values up to 0.5"):
        spins.start(torch.full((1, 1, 4, 4), 0.5))
    with pytest.raises(RecipeError, match="a checkerboard needs even sides"):
        spins.start(torch.ones(1, 1, 3, 4))
    with pytest.raises(RecipeError, match="a checkerboard needs even sides"):
        SiteMetropolis(torch.square, 0.1).start(torch.ones(1, 1, 5))
    with pytest.raises(ValueError, match="step_size must be > 0"):
        SiteMetropolis(torch.square, 0.1, step_size=0.0)
    for sampler in (HMC, Langevin):
        with pytest.raises(ValueError, match="step_size must be > 0"):
            sampler(LAW, step_size=0.0)
    with pytest.raises(ValueError, match="steps must be >= 1"):
        HMC(LAW, steps=0)
    with pytest.raises(ValueError, match=r"jitter must be in \[0, 1\)"):
        HMC(LAW, jitter=1.0)
    with pytest.raises(DataError, match="chains must begin where the action is finite"):
        HMC(LAW).start(torch.full((1, 1, 3, 4), torch.inf))
    with pytest.raises(ValueError, match="a cycle needs at least one kernel"):
        Cycle(())
    with pytest.raises(ValueError, match="thin must be >= 1"):
        run(spins, spins.start(torch.ones(1, 1, 4, 4)), 3, generator=generator, thin=0)
    with pytest.raises(ValueError, match="steps must be >= thin = 5"):
        run(spins, spins.start(torch.ones(1, 1, 4, 4)), 3, generator=generator, thin=5)
