"""Tempering, annealing and pivots keep the laws that they say."""

import math

import pytest
import torch

from renorm.errors import DataError
from renorm.laws.fene import FenePolymer
from renorm.laws.muller_brown import MullerBrown
from renorm.mcmc.annealing import anneal
from renorm.mcmc.kernel import Cycle, run
from renorm.mcmc.pivot import Pivot, rotations
from renorm.mcmc.tempering import Tempered, Tempering, ladder


def wells(x):
    """Two wells at +-2, 16 nats apart."""
    return (x.square() - 4).square().flatten(1).sum(1)


def chain(x):
    """Ideal bonds: nothing but the lengths counts."""
    return 50 * (x.diff(dim=2).norm(dim=1) - 1).square().sum(1)


class TestTempering:
    def test_crosses_what_hmc_does_not(self, generator):
        kernel = Tempering(wells, ladder(0.05, 5), step_size=0.1, burn_in=50)
        state = kernel.start(torch.full((200, 1, 1), 2.0))
        state = run(kernel, state, 50, generator=generator, thin=50).state
        result = run(kernel, state, 400, generator=generator, thin=4)
        share = (result.values > 0).double().mean()
        assert abs(share - 0.5) < 0.05
        grid = torch.linspace(-4, 4, 4001, dtype=torch.float64)
        exact = float((-((grid**2 - 4) ** 2)).softmax(0) @ grid**2)
        squares = result.values.double().square().mean((0, 2, 3))
        assert abs(squares.mean() - exact) < 5 * squares.std() / math.sqrt(200)
        assert 0.05 < result.state.swapped <= 1

    def test_energies_stay_with_their_fields(self, generator):
        kernel = Tempering(wells, (1.0, 0.5, 0.25), step_size=0.05)
        state = run(kernel, kernel.start(torch.full((20, 1, 2), 2.0)), 20, generator=generator).state
        assert torch.equal(state.x, state.rungs[0].x)
        for beta, rung in zip(kernel.betas, state.rungs, strict=True):
            tempered = Tempered(wells, beta)
            torch.testing.assert_close(rung.action, tempered(rung.x), rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(rung.gradient, tempered.grad(rung.x), rtol=1e-4, atol=1e-4)

    def test_goes_on_where_it_stopped(self):
        kernel = Tempering(wells, ladder(0.2, 3), burn_in=5)
        generator = torch.Generator().manual_seed(1)
        whole = run(kernel, kernel.start(torch.ones(3, 1, 1)), 8, generator=generator).state
        generator = torch.Generator().manual_seed(1)
        part = run(kernel, kernel.start(torch.ones(3, 1, 1)), 3, generator=generator).state
        assert torch.equal(run(kernel, part, 5, generator=generator).state.x, whole.x)

    def test_muller_brown(self, generator):
        law = MullerBrown(15.0)
        kernel = Tempering(law, ladder(0.2, 3), steps=5, step_size=0.03, burn_in=40)
        start = torch.tensor([[-0.5, 1.5]]).expand(200, 1, 2)
        state = run(kernel, kernel.start(start), 60, generator=generator, thin=60).state
        x = run(kernel, state, 100, generator=generator, thin=4).values[:, :, 0, 0].mean(0)
        assert abs(float(x.mean()) + 0.4835634) < 5 * float(x.std()) / math.sqrt(200)

    @pytest.mark.parametrize("betas", [(1.0,), (0.9, 0.5), (1.0, 1.0), (1.0, 0.0)])
    def test_bad_betas(self, betas):
        with pytest.raises(ValueError, match="betas must"):
            Tempering(wells, betas)

    @pytest.mark.parametrize(("hottest", "rungs"), [(0.5, 1), (1.0, 3), (0.0, 3)])
    def test_bad_ladders(self, hottest, rungs):
        with pytest.raises(ValueError, match="ladder"):
            ladder(hottest, rungs)


class TestAnneal:
    def test_free_energy_of_gaussians(self, generator):
        """Z1 / Z0 = (s1 / s0)^n."""

        def action(width):
            return lambda x: (x / width).square().flatten(1).sum(1) / 2

        x = torch.randn(4000, 1, 5, generator=generator, dtype=torch.float64)
        times = torch.linspace(0, 1, 21).tolist()
        found = anneal(x, action(1.0), action(0.5), times=times, generator=generator, step_size=0.3)
        weight = found.log_weight.exp()
        assert abs(weight.mean() - 0.5**5) < 5 * weight.std() / math.sqrt(4000)
        shares = found.log_weight.softmax(0)
        assert abs((shares[:, None, None] * found.x.square()).sum(0).mean() - 0.25) < 0.01

    def test_is_exact_however_fast(self, generator):
        """One jump is importance sampling."""
        x = torch.randn(10, 1, 2, generator=generator)
        found = anneal(x, lambda x: x.flatten(1).sum(1), lambda x: 2 * x.flatten(1).sum(1), times=(0.0, 1.0),
                       generator=generator)  # fmt: skip
        torch.testing.assert_close(found.log_weight, -x.flatten(1).sum(1).double(), rtol=1e-5, atol=1e-5)

    def test_bad_ways(self, generator):
        x = torch.zeros(1, 1, 1)
        for times in ([0.0], [0.0, 0.5], [0.5, 1.0], [0.0, 0.6, 0.6, 1.0]):
            with pytest.raises(ValueError, match="rise from 0 to 1"):
                anneal(x, wells, wells, times=times, generator=generator)
        with pytest.raises(DataError, match="finite"):
            anneal(x, wells, lambda x: x.flatten(1).sum(1) / 0, times=[0.0, 1.0], generator=generator)


class TestPivot:
    def test_rotations_are_even(self, generator):
        turn = rotations(20_000, generator=generator)
        spread = 5 / math.sqrt(3 * 20_000)
        assert bool((turn.mean(0).abs() < spread).all())
        torch.testing.assert_close(turn @ turn.mT, torch.eye(3).expand_as(turn), rtol=0, atol=1e-5)

    def test_free_chain(self, generator):
        """Bonds of length one turn freely, so the ends are n apart in the mean square."""
        x = torch.zeros(2000, 3, 9)
        x[:, 0] = torch.arange(9.0)
        kernel = Pivot(chain)
        state = run(kernel, kernel.start(x), 60, generator=generator, thin=60).state
        ends = (state.x[..., -1] - state.x[..., 0]).square().sum(1)
        assert abs(ends.mean() - 8) < 5 * ends.std() / math.sqrt(2000)
        torch.testing.assert_close(state.x.mean(2), x.mean(2), rtol=0, atol=1e-4)
        torch.testing.assert_close(state.action, chain(state.x), rtol=0, atol=1e-2)

    def test_bonds_keep_their_digits(self, generator):
        x = torch.randn(5, 3, 6, generator=generator, dtype=torch.float64)
        kernel = Pivot(lambda x: 0 * x.flatten(1).sum(1))
        moved = run(kernel, kernel.start(x), 500, generator=generator, thin=500).state.x
        torch.testing.assert_close(moved.diff(dim=2).norm(dim=1), x.diff(dim=2).norm(dim=1), rtol=0, atol=1e-11)

    def test_polymer_forgets_that_it_was_straight(self, generator):
        law = FenePolymer(8)
        x = torch.zeros(50, 3, 8)
        x[:, 0] = 0.97 * (torch.arange(8) - 3.5)
        kernel = Cycle((Pivot(law), Pivot(law)))
        state = run(kernel, kernel.start(x), 40, generator=generator, thin=40).state
        assert (state.x[..., -1] - state.x[..., 0]).norm(dim=1).mean() < 5

    def test_bad_chains(self):
        with pytest.raises(DataError, match="inner atom"):
            Pivot(chain).start(torch.eye(3)[None, :, :2])
        with pytest.raises(DataError, match="finite"):
            Pivot(lambda x: x.flatten(1).sum(1) * math.inf).start(torch.ones(1, 3, 4))
