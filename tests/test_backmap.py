"""Backmapping turns with its beads, its density is one, and polymers know their forces."""

import math

import pytest
import torch

from renorm.cascade.cascade import Cascade
from renorm.cascade.conditionals.backmap import ChainBackmap, frames
from renorm.cascade.conditionals.dense_gaussian import DenseGaussian
from renorm.coarse.beads import bead_steps
from renorm.errors import DataError
from renorm.graph import Graph
from renorm.lattice import Lattice
from renorm.laws.fene import FenePolymer


def bent(law, seed=0, size=0.2):
    """A law with other weights than its first, in float64."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in law.parameters():
            parameter += size * torch.randn(parameter.shape, generator=generator)
    return law.double()


def turn(generator):
    """A rotation."""
    q, r = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))
    q = q * r.diagonal().sign()
    return q * torch.linalg.det(q)


@pytest.fixture
def beads(generator):
    """Chains of five beads."""
    steps = torch.randn(4, 3, 5, generator=generator, dtype=torch.float64)
    return steps.cumsum(2)


class TestChainBackmap:
    def test_density_of_draws(self, beads, generator):
        law = bent(ChainBackmap(5))
        draw = law.draw(beads, generator=generator)
        torch.testing.assert_close(law.log_prob(draw.value, beads), draw.log_prob, rtol=0, atol=1e-5)

    def test_equivariant(self, beads, generator):
        law = bent(ChainBackmap(5))
        rotation, shift = turn(generator), torch.randn(3, 1, generator=generator, dtype=torch.float64)
        there = rotation @ beads + shift
        first = law.draw(beads, generator=torch.Generator().manual_seed(3))
        second = law.draw(there, generator=torch.Generator().manual_seed(3))
        torch.testing.assert_close(second.value, rotation @ first.value, rtol=0, atol=1e-5)
        torch.testing.assert_close(second.log_prob, first.log_prob, rtol=0, atol=1e-5)
        detail = torch.randn(4, 3, 5, generator=generator, dtype=torch.float64)
        here, moved = law.log_prob(detail, beads), law.log_prob(rotation @ detail, there)
        torch.testing.assert_close(moved, here, rtol=0, atol=1e-5)

    def test_density_is_one(self, generator):
        """Of one pair after the other, each against a Gaussian that covers it."""
        law = bent(ChainBackmap(3, bond=2.0), size=0.05)
        law.spread.fill_(0.3)
        beads = torch.tensor([[[0.0, 1.5, 2.0], [0.0, 0.3, 1.8], [0.0, 0.1, -0.4]]], dtype=torch.float64)
        num, wide = 100_000, 2.2
        detail = law.draw(beads, generator=generator).value.expand(num, -1, -1).clone()
        many = beads.expand(num, -1, -1)
        for pair in (2, 1, 0):  # the law of a pair knows those before, so later ones go first
            tried = detail.clone()
            noise = wide * torch.randn(num, 3, generator=generator, dtype=torch.float64)
            tried[..., pair] = noise
            proposed = (-0.5 * (noise / wide).square() - math.log(wide * math.sqrt(2 * math.pi))).sum(1)
            kept = law._place(pair, many, _atoms(many, tried)[..., : 2 * pair])
            local = -(kept.frame @ noise[..., None])[..., 0] / 2
            weight = (law._density(kept, local) - proposed).exp()
            assert abs(weight.mean() - 1) < 5 * weight.std() / math.sqrt(num) < 0.6

    def test_refine_keeps_the_beads(self, generator):
        graph = Graph.linear(12)
        steps = bead_steps(graph)[:2]
        top = DenseGaussian(torch.eye(3, dtype=torch.float64), 0, 3)
        model = Cascade(Lattice((12,), channels=3), steps, [ChainBackmap(6), ChainBackmap(3)], top)
        coarse = torch.randn(7, 3, 3, generator=generator).cumsum(2)
        fine = model.refine(coarse, level=2, generator=generator)
        assert fine.shape == (7, 3, 12)
        torch.testing.assert_close(model.coarsen(fine, 2), coarse, rtol=0, atol=1e-5)
        torch.testing.assert_close(fine.unflatten(2, (3, 4)).mean(3), coarse, rtol=0, atol=1e-5)

    def test_collinear_beads(self, generator):
        beads = torch.tensor([[[0.0, 1.0, 2.0, 3.0], [0.0] * 4, [0.0] * 4]])
        draw = ChainBackmap(4).draw(beads, generator=generator)
        assert bool(draw.value.isfinite().all() and draw.log_prob.isfinite().all())

    @pytest.mark.parametrize("wrong", [{"beads": 2}, {"bond": 0.0}, {"bins": 1}])
    def test_bad_values(self, wrong):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            ChainBackmap(**{"beads": 4, **wrong})

    def test_other_chains(self, generator):
        with pytest.raises(DataError, match="chains of 4 pairs"):
            ChainBackmap(4).draw(torch.zeros(1, 3, 5), generator=generator)


def _atoms(beads, detail):
    return torch.stack([beads - detail / 2, beads + detail / 2], -1).flatten(2)


def test_frames_turn(generator):
    along, side = torch.randn(2, 6, 3, generator=generator, dtype=torch.float64)
    axes = frames(along, side)
    torch.testing.assert_close(axes @ axes.mT, torch.eye(3).double().expand(6, 3, 3), rtol=0, atol=1e-12)
    assert bool((torch.linalg.det(axes) > 0).all())
    rotation = turn(generator)
    torch.testing.assert_close(frames(along @ rotation.T, side @ rotation.T), axes @ rotation.T, rtol=0, atol=1e-12)


class TestFene:
    def test_two_atoms_by_hand(self):
        """At r = 1 the repulsion is 1 and the spring -15 * 2.25 ln(1 - 1 / 2.25)."""
        x = torch.tensor([[[-0.5, 0.5], [0.0, 0.0], [0.0, 0.0]]], dtype=torch.float64)
        assert FenePolymer(2)(x).item() == pytest.approx(1 - 33.75 * math.log(1 - 1 / 2.25), rel=1e-12)
        assert FenePolymer(2, temperature=2.0)(x).item() == pytest.approx(FenePolymer(2)(x).item() / 2, rel=1e-12)

    def test_gradient(self, generator):
        law = FenePolymer(12, temperature=0.7, spread=2.0)
        x = law.start(5, generator=generator).double().requires_grad_()
        (exact,) = torch.autograd.grad(law(x).sum(), x)
        torch.testing.assert_close(law.grad(x.detach()), exact, rtol=1e-9, atol=1e-9)

    def test_broken_bonds_and_overlaps_are_infinite(self):
        x = FenePolymer(3).start(1, generator=torch.Generator().manual_seed(0))
        assert math.isfinite(FenePolymer(3)(x).item())
        apart, together = x.clone(), x.clone()
        apart[..., 2] += 5.0
        together[..., 1] = together[..., 0]
        assert FenePolymer(3)(apart).item() == math.inf
        assert FenePolymer(3)(together).item() == math.inf

    def test_turns_and_shifts(self, generator):
        law = FenePolymer(6)
        x = law.start(3, generator=generator).double()
        centred = x - x.mean(2, keepdim=True)
        torch.testing.assert_close(law(turn(generator) @ centred), law(centred), rtol=1e-10, atol=0)

    @pytest.mark.parametrize("wrong", [{"atoms": 1}, {"temperature": 0.0}, {"stiffness": 0.0}, {"reach": 0.5}])
    def test_bad_values(self, wrong):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            FenePolymer(**{"atoms": 4, **wrong})

    def test_other_positions(self):
        with pytest.raises(DataError, match="positions must be"):
            FenePolymer(4)(torch.zeros(1, 3, 5))
