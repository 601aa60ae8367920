"""Laws averaged over symmetries: what is exact for the cascade stays so, bounds rise, groups are groups."""

import math
from functools import partial

import pytest
import torch

from renorm.cascade.checkerboards import checkerboard_cascade
from renorm.cascade.conditionals.heads import SpinHead, SplineHead
from renorm.cascade.evidence import evidence
from renorm.cascade.symmetrised import Symmetrised, Symmetry, translations, turned_over
from renorm.cascade.weighing import Weighed
from renorm.errors import RecipeError
from renorm.laws.ising import ContinuousIsing, Ising
from renorm.measure.free_energy import lower_bound
from renorm.nn.block_flow import BlockFlow


def bent(model, size=0.3):
    """A cascade with other weights than its first."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += size * torch.randn(parameter.shape, generator=generator)
    return model


def cascade(size=0.1):
    blocks = partial(BlockFlow, 4, layers=2, kind="affine", width=4)
    return bent(checkerboard_cascade(4, None, SplineHead(4), blocks=blocks, width=6), size)


def test_density_of_spins_adds_to_one():
    """Over all states of a 4 x 4 lattice."""
    model = bent(checkerboard_cascade(4, None, SpinHead(), width=4))
    states = Ising((4, 4), 0.3).enumerate().states
    mixture = Symmetrised(model, translations((4, 4), stride=2))
    with torch.no_grad():
        total = torch.cat([mixture.log_prob(part) for part in states.split(8192)]).double().logsumexp(0)
    assert abs(float(total)) < 1e-4


def test_it_is_symmetric_and_the_mean(generator):
    model = cascade()
    x = torch.randn(6, 1, 4, 4, generator=generator)
    group = translations((4, 4))
    mixture = Symmetrised(model, group)
    with torch.no_grad():
        one = mixture.log_prob(x)
        by_hand = torch.stack([model.log_prob(x.roll(g.shift, (2, 3))) for g in group]).logsumexp(0) - math.log(16)
        torch.testing.assert_close(one, by_hand)
        torch.testing.assert_close(mixture.log_prob(x.roll((1, 3), (2, 3))), one, rtol=0, atol=1e-4)
        assert float((model.log_prob(x.roll((1, 3), (2, 3))) - model.log_prob(x)).abs().max()) > 0.01
    signed = Symmetrised(model, turned_over(group))
    assert len(signed.group) == 32
    torch.testing.assert_close(signed.log_prob(x), one, rtol=0, atol=1e-4)  # the cascade is odd already


def test_draws_have_the_density_that_is_told(generator):
    mixture = Symmetrised(cascade(), translations((4, 4)))
    drawn = mixture.draw(40, generator=generator)
    torch.testing.assert_close(drawn.log_prob, mixture.log_prob(drawn.value), rtol=1e-3, atol=1e-3)


def test_draws_are_of_the_mixture(generator):
    """Every site has the same mean size, which the cascade's own draws have not."""
    model = cascade(0.2)
    one = model.sample(10_000, generator=generator).abs().clamp(max=2).mean(0)
    all_ = Symmetrised(model, translations((4, 4))).sample(10_000, generator=generator).abs().clamp(max=2)
    error = all_.std(0) / 100
    assert float(((all_.mean(0) - one.mean()) / error).abs().max()) < 6
    assert float((one - one.mean()).abs().max()) > 10 * float(error.max())


def test_the_bound_rises(generator):
    """KL of the mixture is below that of the cascade, on the same draws."""
    law = ContinuousIsing(Ising((4, 4), 0.3))
    model = cascade()
    mixture = Symmetrised(model, translations((4, 4)))
    x, own = model.draw_many(1000, generator=generator)
    with torch.no_grad():
        gain = own - mixture.log_prob(x)
    assert float(gain.mean()) > 5 * float(gain.std()) / math.sqrt(1000)
    found = evidence(mixture, law, 1000, generator=generator)
    assert float(found.lower.value) < law.log_z
    alone = lower_bound(model.log_weight(law, x, own))
    assert float(found.lower.value) > float(alone.value)
    assert isinstance(model, Weighed)
    assert mixture.grade is model.grade


def test_gradients_pass():
    model = cascade()
    drawn = Symmetrised(model, translations((4, 4), stride=2)).draw(5, generator=torch.Generator().manual_seed(0))
    drawn.log_prob.sum().backward()
    assert all(p.grad is not None for p in model.conditionals[0].parameters())


@pytest.mark.parametrize(
    ("group", "why"),
    [
        ([], "must be a group"),
        ([Symmetry((1, 0)), Symmetry((0, 0))], "must be a group"),
        ([Symmetry((0, 0)), Symmetry((4, 0))], "must be a group"),
        ([Symmetry((0, 0), -1)], "must be a group"),
        ([Symmetry((0,))], "shifts 2 axes"),
        ([Symmetry((0, 0), 2)], "sign 1 or -1"),
    ],
)
def test_what_is_no_group(group, why):
    with pytest.raises(RecipeError, match=why):
        Symmetrised(cascade(), group)


@pytest.mark.parametrize("shifts", [(1, 2, 3, 4), (0, -1, -2, -3), (5, 6, 7, 8)])
def test_full_turns_are_nothing(shifts, generator):
    mixture = Symmetrised(cascade(), [Symmetry((k, 0)) for k in shifts])
    drawn = mixture.draw(10, generator=generator)
    torch.testing.assert_close(drawn.log_prob, mixture.log_prob(drawn.value), rtol=1e-3, atol=1e-3)
    assert mixture.group[0] == Symmetry((0, 0))


def test_strides():
    assert len(translations((4, 8), stride=4)) == 2
    with pytest.raises(RecipeError, match="stride"):
        translations((4, 6), stride=4)


def test_spins_of_the_other_sign_are_drawn(generator):
    """A group of signs alone: draws are turned over, and the density is the mean of both."""
    model = bent(checkerboard_cascade(2, None, SpinHead(), width=4))
    mixture = Symmetrised(model, turned_over(translations((2, 2), stride=2)))
    x = mixture.sample(1000, generator=generator)
    assert set(x.unique().tolist()) == {-1.0, 1.0}
    torch.testing.assert_close(mixture.log_prob(x), mixture.log_prob(-x))
