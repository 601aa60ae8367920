"""What a level sees and moves: known for wavelets, bounded for disentanglers, and swapped back."""

from functools import partial

import pytest
import torch

from renorm.cascade.cascade import Cascade
from renorm.cascade.checkerboards import checkerboard_cascade
from renorm.cascade.conditionals.heads import SpinHead
from renorm.cascade.latents import causal_cone, encoded, receptive_field, swapped
from renorm.cascade.neural_rg import neural_rg
from renorm.cascade.spec import CascadeSpec
from renorm.coarse.base import Split
from renorm.coarse.checkerboard import Checkerboard
from renorm.errors import DataError
from renorm.lattice import Lattice
from renorm.nn.block_flow import BlockFlow


@pytest.fixture
def haar():
    return Cascade.of(CascadeSpec(coarse="haar"), Lattice((8, 8), boundary="periodic"))


@pytest.fixture
def learned():
    torch.manual_seed(0)
    model = neural_rg(8, partial(BlockFlow, 4))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


def test_blocks_of_haar(haar, generator):
    x = torch.randn(2, 1, 8, 8, generator=generator)
    seen = receptive_field(haar, x, 2, (0, 1, 0))
    expected = torch.zeros(8, 8)
    expected[4:, :4] = 1 / 16
    torch.testing.assert_close(seen, expected, rtol=0, atol=1e-6)
    moved = causal_cone(haar, x, 1, (2, 0, 1))
    expected = torch.zeros(8, 8)
    expected[:4, 4:] = 1 / 16
    torch.testing.assert_close(moved, expected, rtol=0, atol=1e-6)


def test_disentanglers_widen_it(learned, generator):
    """A coarse site sees its block, and what the shifted blocks that touch it hold: one site further on every side."""
    x = torch.randn(3, 1, 8, 8, generator=generator)
    seen = receptive_field(learned, x, 1, (0, 1, 1)) > 1e-12
    assert bool(seen[1:5, 1:5].all())
    assert int(seen.sum()) == 16
    moved = causal_cone(learned, x, 0, (1, 1, 1)) > 1e-12
    assert bool(moved[2:4, 2:4].all())
    assert int(moved.sum()) <= 16


def test_swapped(haar, learned, generator):
    x, other = torch.randn(2, 3, 1, 8, 8, generator=generator)
    for model in (haar, learned):
        for level in range(4):
            there = swapped(model, x, other, level)
            assert not torch.allclose(there, x, atol=1e-2)
            torch.testing.assert_close(swapped(model, there, x, level), x, rtol=0, atol=1e-3)
    everything = x
    for level in range(4):
        everything = swapped(haar, everything, other, level)
    torch.testing.assert_close(everything, other, rtol=0, atol=1e-5)


def test_refused(haar):
    x = torch.zeros(1, 1, 8, 8)
    for call in (
        lambda: receptive_field(haar, x, 0, (0, 0, 0)),
        lambda: receptive_field(haar, x, 1, (0, 4, 0)),
        lambda: causal_cone(haar, x, 3, (0, 0, 0)),
        lambda: causal_cone(haar, x, 0, (0, 0)),
        lambda: swapped(haar, x, x, 4),
    ):
        with pytest.raises(DataError):
            call()


def test_all_at_once(haar, generator):
    x = torch.randn(5, 1, 8, 8, generator=generator)
    found = encoded(haar, x)
    torch.testing.assert_close(found["sees"][1], receptive_field(haar, x, 2, (0, 1, 1)))
    torch.testing.assert_close(found["moves"][0], causal_cone(haar, x, 0, (0, 2, 2)))
    torch.testing.assert_close(found["swapped"][3], swapped(haar, x[:1], x[1:2], 3)[0, 0])
    with pytest.raises(DataError, match="two fields"):
        encoded(haar, x[:1])


def test_nothing_is_told_of_rules_without_gradients(generator):
    class Signs(Checkerboard):
        def split(self, x):
            coarse, detail, log_det = super().split(x)
            return Split(coarse.detach(), detail, log_det)

    model = checkerboard_cascade(2, None, SpinHead())
    model.steps = (Signs(), *model.steps[1:])
    assert encoded(model, torch.randn(2, 1, 2, 2, generator=generator).sign()) is None
