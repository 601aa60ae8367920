"""Learned invertible steps: volumes against autograd, symmetry, and what they learn."""

from functools import partial

import pytest
import torch

from renorm.cascade.cascade import Cascade
from renorm.cascade.conditionals.white import WhiteNoise
from renorm.cascade.learning.training import fit_to_action
from renorm.coarse.base import merged
from renorm.coarse.block_spin import Decimation
from renorm.coarse.checkerboard import Checkerboard
from renorm.coarse.mera import Disentangled, MeraStep
from renorm.coarse.wavelet import Wavelet
from renorm.errors import DataError, RecipeError
from renorm.lattice import Lattice
from renorm.laws.gaussian_field import GaussianField
from renorm.nn.block_flow import BlockFlow
from renorm.testing import check_coarse_graining

KINDS = ["spline", "affine"]


def bent(module, seed=0, size=0.15):
    """Weights away from the identity."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += size * torch.randn(parameter.shape, generator=generator)
    return module


class TestBlockFlow:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("size", [2, 3, 4])
    def test_volume_and_inverse(self, kind, size, generator):
        flow = bent(BlockFlow(size, layers=5, kind=kind)).double()
        x = 2 * torch.randn(6, size, generator=generator, dtype=torch.float64)
        y, log_det = flow(x)
        assert not torch.allclose(y, x, atol=0.05)
        for one, claimed in zip(x, log_det, strict=True):
            jacobian = torch.autograd.functional.jacobian(lambda v: flow(v)[0], one)
            assert torch.linalg.slogdet(jacobian).logabsdet.item() == pytest.approx(claimed.item(), abs=1e-9)
        back, there = flow.inverse(y)
        torch.testing.assert_close(back, x, rtol=0, atol=1e-9)
        torch.testing.assert_close(there, log_det, rtol=0, atol=1e-9)

    @pytest.mark.parametrize("kind", KINDS)
    def test_odd(self, kind, generator):
        x = torch.randn(6, 4, generator=generator, dtype=torch.float64)
        flow = bent(BlockFlow(4, kind=kind)).double()
        torch.testing.assert_close(flow(-x)[0], -flow(x)[0], rtol=0, atol=1e-12)
        free = bent(BlockFlow(4, kind=kind, odd=False)).double()
        assert not torch.allclose(free(-x)[0], -free(x)[0], atol=1e-2)

    def test_every_number_moves_and_hears_of_every_other(self):
        flow = bent(BlockFlow(4, layers=4)).double()
        jacobian = torch.autograd.functional.jacobian(lambda v: flow(v)[0], torch.full((4,), 0.3).double())
        assert bool((jacobian.abs() > 1e-6).all())

    @pytest.mark.parametrize("wrong", [{"size": 1}, {"layers": -1}, {"width": 0}, {"bins": 1}, {"bound": 0.0}])
    def test_bad_values(self, wrong):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            BlockFlow(**{"size": 4, **wrong})


class TestMera:
    @pytest.mark.parametrize("start", ["haar", "corner"])
    @pytest.mark.parametrize("kind", KINDS)
    def test_conformance(self, start, kind):
        lattice = Lattice((4, 6), boundary="periodic")
        check_coarse_graining(
            bent(MeraStep(start, partial(BlockFlow, 4, kind=kind, layers=2)), size=0.05), lattice
        )  # steep splines lose digits

    @pytest.mark.parametrize("step", [Checkerboard(), Wavelet()])
    def test_conformance_of_disentangled_steps(self, step, generator):
        lattice = Lattice((4, 6), boundary="periodic")
        learned = bent(Disentangled(step, partial(BlockFlow, 4, layers=2)), size=0.05)
        check_coarse_graining(learned, lattice)
        x = torch.randn(3, 1, 4, 6, generator=generator, dtype=torch.float64)
        coarse, detail, log_det = learned.split(x)
        back, there = merged(learned, coarse, detail)
        torch.testing.assert_close(back, x, rtol=0, atol=1e-9)
        torch.testing.assert_close(there, log_det, rtol=0, atol=1e-9)

    def test_begins_as_what_is_known(self, generator):
        x = torch.randn(2, 1, 4, 4, generator=generator)
        haar, wavelet = MeraStep("haar").split(x), Wavelet().split(x)
        for ours, theirs in zip(haar, wavelet, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
        torch.testing.assert_close(MeraStep("corner").split(x).coarse, Decimation().coarsen(x), rtol=0, atol=1e-5)

    def test_merge_knows_the_volume(self, generator):
        step = bent(MeraStep()).double()
        x = torch.randn(3, 1, 4, 4, generator=generator, dtype=torch.float64)
        coarse, detail, log_det = step.split(x)
        back, there = merged(step, coarse, detail)
        torch.testing.assert_close(back, x, rtol=0, atol=1e-9)
        torch.testing.assert_close(there, log_det, rtol=0, atol=1e-9)

    def test_shifts_by_blocks(self, generator):
        """A field shifted by a block is coarse-grained into the coarse field shifted by a site."""
        step = bent(MeraStep()).double()
        x = torch.randn(2, 1, 8, 8, generator=generator, dtype=torch.float64)
        there = step.split(x.roll((2, -4), (2, 3))).coarse
        torch.testing.assert_close(there, step.split(x).coarse.roll((1, -2), (2, 3)), rtol=0, atol=1e-12)

    def test_disentanglers_reach_over_the_border(self, generator):
        step = bent(MeraStep()).double()
        x = torch.randn(1, 1, 8, 8, generator=generator, dtype=torch.float64)
        near = torch.autograd.functional.jacobian(lambda v: step.split(v).coarse[0, 0, 1, 1], x)[0, 0].detach()
        seen = (near.abs() > 1e-12).nonzero()
        assert seen.min(0).values.tolist() == [1, 1]  # the block holds sites 2 and 3
        assert seen.max(0).values.tolist() == [4, 4]

    def test_learns_a_free_field_from_its_action(self, generator):
        """White noise bent by two levels; what is lost falls from what plain noise loses."""
        torch.manual_seed(0)
        law = GaussianField((4, 4), mass_sq=0.5)
        lattice = Lattice((4, 4), boundary="periodic")
        steps = [MeraStep(blocks=partial(BlockFlow, 4, kind="affine", layers=6)) for _ in range(2)]
        model = Cascade(lattice, steps, [WhiteNoise(3), WhiteNoise(3)], WhiteNoise(1, sites=(1, 1)))

        def lost():
            with torch.no_grad():
                value, log_prob = model.draw(2000, generator=generator)
                return (log_prob + law(value)).mean().item() + law.log_z

        before = lost()
        fit_to_action(model, law, steps=150, batch=128, rate=1e-2, generator=generator)
        assert -0.05 < lost() < 0.2 * before
        x = law.sample(3, generator=generator)
        drawn = model.draw(3, generator=generator)
        torch.testing.assert_close(model.log_prob(drawn.value), drawn.log_prob, rtol=0, atol=1e-3)
        assert model.encode(x).details[0].shape == (3, 3, 1, 1)
        assert bool(model.log_prob(x).isfinite().all())

    def test_bad_fields(self):
        with pytest.raises(RecipeError, match="periodic lattice of two axes"):
            MeraStep().coarse_lattice(Lattice((4, 4)))
        with pytest.raises(RecipeError, match="multiple of 2"):
            MeraStep().coarse_lattice(Lattice((3, 4), boundary="periodic"))
        with pytest.raises(DataError, match="multiple of 2"):
            MeraStep().split(torch.zeros(1, 1, 3, 4))
        with pytest.raises(RecipeError, match="one channel"):
            MeraStep().coarse_lattice(Lattice((4, 4), boundary="periodic", channels=2))
