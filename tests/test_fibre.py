"""Moves that keep a coarse field, cascades that learn their steps, and gradients by path."""

import math
from functools import partial

import pytest
import torch

from renorm.cascade.cascade import Cascade
from renorm.cascade.checkerboards import checkerboard_cascade
from renorm.cascade.conditional import CascadeConditional, Draw
from renorm.cascade.conditionals.heads import SpinHead, SplineHead
from renorm.cascade.conditionals.site_laws import IsingSite
from renorm.cascade.conditionals.white import WhiteNoise
from renorm.cascade.fibre import Fibre
from renorm.cascade.learning.training import fit_to_action, fit_to_draws, shared_log_prob
from renorm.cascade.neural_rg import neural_rg
from renorm.coarse.alternate import Alternate
from renorm.coarse.beads import bead_steps
from renorm.coarse.mera import MeraStep
from renorm.errors import DataError, RecipeError
from renorm.graph import Graph
from renorm.lattice import Lattice
from renorm.laws.gaussian_field import GaussianField
from renorm.laws.rouse import GaussianChain
from renorm.mcmc.hmc import HMC
from renorm.mcmc.kernel import run
from renorm.nn.block_flow import BlockFlow

BLOCKS = partial(BlockFlow, 4, layers=2, kind="affine", width=8)


class TestFibre:
    def test_coordinates(self, generator):
        steps = bead_steps(Graph(7, Graph.linear(7).bonds, tuple(float(i) for i in range(1, 8))))[:2]
        fibre = Fibre(steps, Lattice((7,), channels=3))
        x = torch.randn(4, 3, 7, generator=generator, dtype=torch.float64)
        coarse, y = fibre.apart(x)
        torch.testing.assert_close(fibre.field(coarse, y), x, rtol=0, atol=1e-12)
        torch.testing.assert_close(steps[1].split(steps[0].split(x).coarse).coarse, coarse, rtol=0, atol=1e-12)
        other = fibre.field(coarse, torch.randn_like(y))
        torch.testing.assert_close(fibre.apart(other)[0], coarse, rtol=0, atol=1e-12)
        one = torch.eye(y.shape[2], dtype=torch.float64)
        torch.testing.assert_close(fibre.basis.T @ fibre.basis, one, rtol=0, atol=1e-12)

    def test_conditional_law_of_a_gaussian_chain(self, generator):
        """HMC at fixed beads against the closed form, C_yy - C_yc C_cc^-1 C_cy."""
        law = GaussianChain(6, dim=1)
        steps = bead_steps(Graph.linear(6))[:1]
        fibre = Fibre(steps, law.lattice)
        coarse, y = fibre.apart(law.sample(1, generator=generator, dtype=torch.float64).expand(3000, -1, -1))
        kernel = HMC(fibre.action(law, coarse), steps=5, step_size=0.23)
        state = run(kernel, kernel.start(y), 120, generator=generator, thin=120).state
        rows = torch.cat([fibre.rows, fibre.basis.T])
        joint = rows @ law.covariance @ rows.T
        n = len(fibre.rows)
        gain = torch.linalg.solve(joint[:n, :n], joint[:n, n:]).T
        mean, spread = gain @ coarse[0, 0], (joint[n:, n:] - gain @ joint[:n, n:]).diagonal().sqrt()
        z = (state.x[:, 0] - mean) / spread
        assert bool((z.mean(0).abs() < 5 / math.sqrt(3000)).all())
        assert bool((z.square().mean(0) - 1).abs().max() < 5 * math.sqrt(2 / 3000))

    def test_gradient(self, generator):
        law = GaussianChain(6)
        fibre = Fibre(bead_steps(Graph.linear(6))[:1], law.lattice)
        coarse, y = fibre.apart(law.sample(2, generator=generator, dtype=torch.float64))
        action = fibre.action(law, coarse)
        y = y.requires_grad_()
        (exact,) = torch.autograd.grad(action(y).sum(), y)
        torch.testing.assert_close(action.grad(y.detach()), exact, rtol=1e-10, atol=1e-10)

    def test_rings(self, generator):
        fibre = Fibre([Alternate()], Lattice((8,), boundary="periodic"))
        assert fibre.basis.shape == (8, 4)

    def test_refused(self):
        with pytest.raises(RecipeError, match="one step or more"):
            Fibre([], Lattice((4,)))
        with pytest.raises(RecipeError, match="one axis"):
            Fibre([MeraStep()], Lattice((4, 4), boundary="periodic"))
        with pytest.raises(DataError, match="6 sites"):
            Fibre(bead_steps(Graph.linear(6))[:1], Lattice((6,))).apart(torch.zeros(1, 3, 5))


class TestLearned:
    @pytest.mark.parametrize(
        "make",
        [
            lambda: checkerboard_cascade(8, None, SplineHead(), blocks=BLOCKS),
            lambda: neural_rg(8, partial(BlockFlow, 4, layers=2)),
        ],
    )
    def test_density_of_draws(self, make, generator):
        torch.manual_seed(0)
        model = make()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.03 * torch.randn(parameter.shape, generator=generator)
        value, log_prob = model.draw(3, generator=generator)
        torch.testing.assert_close(model.log_prob(value), log_prob, rtol=0, atol=5e-3)
        torch.testing.assert_close(model.decode(model.encode(value)), value, rtol=0, atol=1e-3)

    def test_symmetric(self, generator):
        torch.manual_seed(0)
        model = checkerboard_cascade(4, None, SplineHead(), blocks=BLOCKS)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
        x = torch.randn(3, 1, 4, 4, generator=generator)
        torch.testing.assert_close(model.log_prob(-x), model.log_prob(x), rtol=0, atol=1e-3)

    @pytest.mark.parametrize("edge", [2, 6])
    def test_bad_edges(self, edge):
        for make in (neural_rg, lambda edge: checkerboard_cascade(edge, None, SplineHead(), blocks=BLOCKS)):
            with pytest.raises(RecipeError, match=r"power of two|4 x 4"):
                make(edge)
        with pytest.raises(RecipeError, match="heat bath"):
            checkerboard_cascade(4, IsingSite(0.4), SplineHead(), blocks=BLOCKS)

    def test_levels_share_out_the_fields(self, generator):
        """Equal fields at every level: the sum is that of plain likelihood."""
        torch.manual_seed(0)
        model = checkerboard_cascade(4, None, SplineHead(), blocks=BLOCKS)
        x = torch.randn(8, 1, 4, 4, generator=generator)
        shared = shared_log_prob(model, x, 0, 8)
        torch.testing.assert_close(shared, model.log_prob(x).mean(), rtol=1e-5, atol=1e-5)
        parts = model.log_prob(x, per_level=True)  # coarsest first
        few = shared_log_prob(model, x, 0, 2)  # 2 fields of 16 sites, 4 of 8, 8 of 4 and fewer
        expected = parts[:, :3].mean(0).sum() + parts[:4, 3].mean() + parts[:2, 4].mean()
        torch.testing.assert_close(few, expected, rtol=1e-5, atol=1e-5)
        with pytest.raises(ValueError, match="least"):
            fit_to_draws(model, lambda: x, steps=1, least=0, generator=generator)

    def test_fresh_draws_teach(self, generator):
        torch.manual_seed(0)
        law = GaussianField((4, 4), mass_sq=0.5)
        model = checkerboard_cascade(4, None, SplineHead(), blocks=BLOCKS)
        trained = fit_to_draws(
            model, lambda: law.sample(64, generator=generator), steps=40, rate=2e-2, generator=generator
        )
        assert sum(trained.losses[-10:]) < sum(trained.losses[:10])
        x = law.sample(500, generator=generator)
        with torch.no_grad():
            lost = (law.log_prob(x) - model.log_prob(x)).mean()
        assert -0.2 < lost < 2.0


class TestByPath:
    def test_no_noise_where_the_fit_is_perfect(self):
        """The gradient by path is nothing there for every draw; the full one only on average."""
        for by_path, largest in ((True, 1e-6), (False, 10.0)):
            top = Moved()
            model = Cascade(Lattice((2,)), [], [], top)
            fit_to_action(
                model,
                lambda x: x.square().flatten(1).sum(1) / 2,
                steps=1,
                batch=64,
                rate=1e-12,
                by_path=by_path,
                generator=torch.Generator().manual_seed(0),
            )
            assert top.shift.requires_grad
            assert (abs(top.shift.grad.item()) < 1e-6) == by_path
            assert abs(top.shift.grad.item()) < largest

    def test_learns(self, generator):
        torch.manual_seed(0)
        law = GaussianField((4, 4), mass_sq=0.5)
        model = checkerboard_cascade(4, None, SplineHead())
        trained = fit_to_action(model, law, steps=50, batch=32, rate=1e-2, by_path=True, generator=generator)
        assert sum(trained.losses[-10:]) < sum(trained.losses[:10])

    def test_needs_draws_that_gradients_pass(self, generator):
        model = checkerboard_cascade(4, None, SpinHead())
        with pytest.raises(ValueError, match="by_path"):
            fit_to_action(model, lambda x: 0 * x.flatten(1).sum(1), steps=1, by_path=True, generator=generator)


class Moved(CascadeConditional):
    """White noise about one learned number."""

    def __init__(self):
        super().__init__()
        self.shift, self.noise = torch.nn.Parameter(torch.zeros(1)), WhiteNoise(1, sites=(2,))

    def draw(self, coarse, *, generator):
        value, log_prob = self.noise.draw(coarse, generator=generator)
        return Draw(value + self.shift, log_prob)

    def log_prob(self, detail, coarse):
        return self.noise.log_prob(detail - self.shift, coarse)
