"""Clusters: merges and splits undo each other, weights are exact, and nothing depends on how a cluster is turned."""

import math

import pytest
import torch

from renorm.cascade.clusters.directions import direction_log_prob, draw_directions, draw_vectors, vector_log_prob
from renorm.cascade.clusters.merging import Beads, merge_all, merge_log_prob
from renorm.cascade.clusters.splitting import SplittingLaw, _States
from renorm.errors import DataError, RecipeError


def bent(law, seed=0, size=0.3):
    """A law with other weights than its first, in float64."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in law.parameters():
            parameter += size * torch.randn(parameter.shape, generator=generator)
    return law.double()


def trap(x):
    """Particles without forces in a harmonic trap, about a centre of variance 1 / n."""
    inner = x - x.mean(2, keepdim=True)
    return 0.5 * inner.square().sum((1, 2)) + 0.5 * x.shape[2] * x.mean(2).square().sum(1)


class TestDirections:
    @pytest.mark.parametrize("dim", [2, 3])
    @pytest.mark.parametrize("kappa", [0.0, 0.3, 0.7, 20.0])
    def test_law(self, dim, kappa, generator):
        eta = torch.zeros(40_000, dim, dtype=torch.float64)
        eta[:, -1] = kappa
        u = draw_directions(eta, generator=generator)
        torch.testing.assert_close(u.norm(dim=1), torch.ones(40_000).double(), rtol=0, atol=1e-9)
        if dim == 3:
            exact = 1 / math.tanh(kappa) - 1 / kappa if kappa else 0.0
        else:
            k = torch.tensor(kappa, dtype=torch.float64)
            exact = float(torch.special.i1e(k) / torch.special.i0e(k))
        along = u[:, -1]
        assert abs(along.mean() - exact) < 5 * along.std() / 200
        assert abs(u[:, 0].mean()) < 5 * u[:, 0].std() / 200

    @pytest.mark.parametrize("dim", [2, 3])
    def test_density_is_one(self, dim, generator):
        noise = torch.randn(100_000, dim, generator=generator, dtype=torch.float64)
        even = torch.nn.functional.normalize(noise, dim=1)
        eta = torch.tensor([1.5, -0.5, 1.0], dtype=torch.float64)[:dim]
        sphere = {2: 2 * math.pi, 3: 4 * math.pi}[dim]
        p = sphere * direction_log_prob(even, eta.expand_as(even)).exp()
        assert abs(p.mean() - 1) < 5 * p.std() / math.sqrt(100_000)

    def test_vectors(self, generator):
        share = torch.tensor([[0.3, 0.7]], dtype=torch.float64).log()
        eta = torch.tensor([[[2.0, 0.0, 0.0], [0.0, -1.0, 0.5]]], dtype=torch.float64)
        centre, width = torch.tensor([[0.0, 0.5]]).double(), torch.tensor([[-1.0, -0.5]]).double()
        num = 100_000
        noise = 2 * torch.randn(num, 3, generator=generator, dtype=torch.float64)
        proposed = -(noise.square() / 8).sum(1) - 3 * math.log(2 * math.sqrt(2 * math.pi))
        parts = [part.expand(num, *part.shape[1:]) for part in (share, eta, centre, width)]
        weight = (vector_log_prob(noise, *parts) - proposed).exp()
        assert abs(weight.mean() - 1) < 5 * weight.std() / math.sqrt(num)
        v = draw_vectors(*parts, generator=generator)
        assert bool(((v.mean(0) - (weight[:, None] * noise).mean(0)).abs() < 0.06).all())

    def test_other_dimensions(self):
        with pytest.raises(RecipeError, match="plane or of space"):
            direction_log_prob(torch.ones(1, 4), torch.ones(1, 4))


class TestMerges:
    def test_probabilities_add_to_one(self, generator):
        """Of three particles there are three first merges, and either order of each."""
        x = torch.randn(1, 2, 3, generator=generator, dtype=torch.float64)
        total = 0.0
        for order in ((2, 0, 1), (1, 0, 2), (0, 1, 2)):
            beads = Beads(x[0, :, list(order)].T[None], torch.ones(1, 3, dtype=torch.long))
            total += 2 * float(merge_log_prob(beads, sharpness=0.7).exp())
        assert total == pytest.approx(1.0, rel=1e-9)

    def test_centre_stays_and_masses_add(self, generator):
        x = torch.randn(20, 3, 7, generator=generator, dtype=torch.float64)
        merges = merge_all(x, sharpness=0.5, generator=generator)
        assert [beads.at.shape[1] for beads in merges.beads] == list(range(1, 7))
        for beads in merges.beads:
            assert bool((beads.mass.sum(1) == 7).all())
            centre = (beads.at * beads.mass[..., None]).sum(1) / 7
            torch.testing.assert_close(centre, x.mean(2), rtol=0, atol=1e-12)

    def test_turned_clusters_merge_alike(self, generator):
        x = torch.randn(20, 3, 5, generator=generator, dtype=torch.float64)
        turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))
        one, other = (
            merge_all(y, sharpness=0.5, generator=torch.Generator().manual_seed(3)) for y in (x, turn @ x + 1)
        )
        torch.testing.assert_close(other.log_prob, one.log_prob, rtol=0, atol=1e-9)
        torch.testing.assert_close(other.vector[2], one.vector[2] @ turn.T, rtol=0, atol=1e-9)

    def test_bad_clusters(self, generator):
        with pytest.raises(DataError, match="two particles"):
            merge_all(torch.zeros(1, 3, 1), sharpness=1.0, generator=generator)
        with pytest.raises(DataError, match="finite"):
            merge_all(torch.full((1, 3, 2), math.nan), sharpness=1.0, generator=generator)


class TestSplittingLaw:
    @pytest.mark.parametrize(("particles", "dim"), [(2, 3), (3, 2), (4, 3)])
    def test_weights_give_the_partition_function(self, particles, dim, generator):
        """Of a trap, Z = (2 pi)^(n d / 2), whatever the weights of the networks."""
        law = bent(SplittingLaw(particles, dim, sharpness=0.5, width=8, parts=4), size=0.05)
        law.broad.fill_(0.6)
        drawn = law.draw(20_000, generator=generator)
        log_weight = law.log_weight(trap, drawn)
        # The trap's inner coordinates have Z = (2 pi)^((n - 1) d / 2) n^(d / 2), its centre (2 pi / n)^(d / 2).
        exact = particles * dim / 2 * math.log(2 * math.pi)
        weight = (log_weight - exact).exp()
        assert abs(weight.mean() - 1) < 5 * weight.std() / math.sqrt(20_000) < 0.5

    def test_density_of_draws(self, generator):
        """All splits at once say what one after the other said."""
        law = bent(SplittingLaw(3, 2, sharpness=0.5, width=8, parts=3), size=0.2)
        x = torch.randn(50, 2, 3, generator=generator, dtype=torch.float64)
        merges = merge_all(x, sharpness=0.5, generator=generator)
        whole = law.log_prob(merges, x)
        parts = law._centre(x.mean(2))
        for beads, first, vector in zip(merges.beads, merges.first, merges.vector, strict=True):
            there = torch.ones_like(beads.mass, dtype=torch.bool)
            last = torch.full((50,), beads.at.shape[1] - 1)
            parts = parts + law._split_log_prob(_States(beads.at, beads.mass, there), last, first, vector)
        torch.testing.assert_close(whole, parts, rtol=0, atol=1e-9)

    def test_symmetries(self, generator):
        law = bent(SplittingLaw(5, 3, sharpness=0.5, width=8, parts=3))
        x = torch.randn(10, 3, 5, generator=generator, dtype=torch.float64)
        x = x - x.mean(2, keepdim=True)
        mirror, _ = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))
        merges = merge_all(x, sharpness=0.5, generator=torch.Generator().manual_seed(1))
        turned = merge_all(mirror @ x, sharpness=0.5, generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(law.log_prob(turned, mirror @ x), law.log_prob(merges, x), rtol=0, atol=1e-5)

    def test_learns(self, generator):
        torch.manual_seed(0)
        law = SplittingLaw(3, 2, sharpness=0.5, width=16, parts=4)
        x = torch.randn(2000, 2, 3, generator=generator)
        merges = merge_all(x, sharpness=0.5, generator=generator)
        law.standardise(merges)
        adam = torch.optim.Adam(law.parameters(), lr=1e-2)
        losses = []
        for _ in range(80):
            loss = -law.log_prob(merges, x).mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
            losses.append(loss.item())
        assert losses[-1] < losses[0] - 0.1
        weight = law.log_weight(trap, law.draw(4000, generator=generator)).softmax(0)
        assert 1 / float(weight.square().sum()) / 4000 > 0.4

    def test_other_positions(self, generator):
        x = torch.randn(2, 3, 4, generator=generator)
        merges = merge_all(x, sharpness=0.5, generator=generator)
        with pytest.raises(DataError, match="positions must be"):
            SplittingLaw(5, 3).log_prob(merges, x)

    @pytest.mark.parametrize("wrong", [{"particles": 1}, {"dim": 4}, {"sharpness": 0.0}, {"unit": 0.0}, {"width": 0}])
    def test_bad_values(self, wrong):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            SplittingLaw(**{"particles": 4, "dim": 3, **wrong})
