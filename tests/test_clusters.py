"""Clusters: orders have their probability, weights are exact, and nothing depends on how a cluster is turned."""

import itertools
import math

import pytest
import torch

from renorm.cascade.clusters.adding import AddingLaw
from renorm.cascade.clusters.directions import direction_log_prob, draw_directions, draw_vectors, vector_log_prob
from renorm.cascade.clusters.thinning import Thinning
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
        """Samples and density are of one law: a density ratio to a broad Gaussian has the mean 1."""
        num = 100_000
        eta = torch.tensor([2.0, 0.0, 0.5], dtype=torch.float64).expand(num, 3)
        centre, width = (torch.full((num,), value, dtype=torch.float64) for value in (0.3, -0.8))
        noise = 2 * torch.randn(num, 3, generator=generator, dtype=torch.float64)
        proposed = -(noise.square() / 8).sum(1) - 3 * math.log(2 * math.sqrt(2 * math.pi))
        weight = (vector_log_prob(noise, eta, centre, width) - proposed).exp()
        assert abs(weight.mean() - 1) < 5 * weight.std() / math.sqrt(num)
        v = draw_vectors(eta, centre, width, generator=generator)
        assert bool(((v.mean(0) - (weight[:, None] * noise).mean(0)).abs() < 0.06).all())

    @pytest.mark.parametrize("eta", [math.nan, math.inf, 1e8])
    def test_too_sharp(self, eta, generator):
        with pytest.raises(DataError, match="concentrations"):
            draw_directions(torch.full((1, 2), eta), generator=generator)

    def test_other_dimensions(self):
        with pytest.raises(RecipeError, match="plane or of space"):
            direction_log_prob(torch.ones(1, 4), torch.ones(1, 4))


RULES = [Thinning("crowded", 0.7), Thinning("outer", 0.7), Thinning("any")]


class TestThinning:
    @pytest.mark.parametrize("thinning", RULES, ids=lambda t: t.rule)
    def test_orders_add_to_one(self, thinning, generator):
        x = torch.randn(3, 4, 2, generator=generator, dtype=torch.float64)
        orders = list(itertools.permutations(range(4)))
        each = torch.stack([thinning.log_prob(x[:, list(order)]) for order in orders], 1)
        torch.testing.assert_close(each.exp().sum(1), torch.ones(3).double(), rtol=0, atol=1e-12)

    @pytest.mark.parametrize("thinning", RULES, ids=lambda t: t.rule)
    def test_order(self, thinning, generator):
        """An order is one of the same particles, of the probability that is told, and as often."""
        one = torch.randn(1, 2, 3, generator=generator, dtype=torch.float64)
        x = one.expand(20_000, -1, -1)
        ordered = thinning.order(x, generator=generator)
        torch.testing.assert_close(ordered.log_prob, thinning.log_prob(ordered.at), rtol=0, atol=1e-12)
        torch.testing.assert_close(ordered.at.sum(1), x.sum(2), rtol=0, atol=1e-12)
        for order in itertools.permutations(range(3)):
            at = one.transpose(1, 2)[:, list(order)]
            share = float((ordered.at == at).all(-1).all(-1).double().mean())
            p = float(thinning.log_prob(at).exp())
            assert abs(share - p) < 5 * math.sqrt(p * (1 - p) / 20_000) + 1e-9

    def test_what_leaves(self, generator):
        line = torch.tensor([[[0.0, 1.0, 3.0, 7.0]]])
        crowded, outer = (
            Thinning(rule, 50.0).order(line, generator=generator).at[0, :, 0] for rule in ("crowded", "outer")
        )
        assert crowded[-1] in (0.0, 1.0)
        assert outer[-1] == 7.0
        assert outer[-2] == 3.0

    def test_bad_input(self, generator):
        with pytest.raises(DataError, match="two particles"):
            Thinning().order(torch.zeros(1, 3, 1), generator=generator)
        with pytest.raises(DataError, match="finite"):
            Thinning().order(torch.full((1, 3, 2), math.nan), generator=generator)
        with pytest.raises(DataError, match="below"):
            Thinning().order(torch.full((1, 3, 2), 1e20), generator=generator)
        with pytest.raises(DataError, match="two particles"):
            Thinning().log_prob(torch.zeros(1, 1, 3))
        sure = Thinning("outer", 1e30).order(torch.randn(3, 2, 4, generator=generator), generator=generator)
        assert bool(sure.log_prob.isfinite().all())
        with pytest.raises(ValueError, match="sharpness"):
            Thinning(sharpness=-1.0)


class TestAddingLaw:
    @pytest.mark.parametrize(("particles", "dim", "candidates"), [(2, 3, 1), (3, 2, 4), (4, 3, 3), (4, 2, 1)])
    def test_weights_give_the_partition_function(self, particles, dim, candidates, generator):
        """Of a trap, Z = (2 pi)^(n d / 2), whatever the networks are and however few candidates there were."""
        law = bent(AddingLaw(particles, dim, width=8, parts=4, vectors=3, candidates=candidates), size=0.1)
        law.broad.fill_(0.7)
        log_weight = law.log_weight(trap, law.draw(40_000, generator=generator))
        # The trap's inner coordinates have Z = (2 pi)^((n - 1) d / 2) n^(d / 2), its centre (2 pi / n)^(d / 2).
        weight = (log_weight - particles * dim / 2 * math.log(2 * math.pi)).exp()
        assert abs(weight.mean() - 1) < 5 * weight.std() / math.sqrt(40_000) < 0.5

    def test_weights_give_means(self, generator):
        """Of each particle alone, in a trap: its mean square distance from the centre of all, d (n - 1) / n."""
        law = bent(AddingLaw(3, 2, width=8, parts=4, vectors=3, candidates=4), size=0.1)
        drawn = law.draw(40_000, generator=generator)
        share = law.log_weight(trap, drawn).softmax(0)
        square = (drawn.x - drawn.x.mean(2, keepdim=True)).square().sum(1)
        error = (share[:, None].square() * (square - 4 / 3).square()).sum(0).sqrt()
        assert bool(((share @ square - 4 / 3).abs() < 5 * error).all())
        assert float(error.max()) < 0.1

    def test_all_states_at_once(self, generator):
        """What all sizes of a cluster say side by side is what each says alone."""
        law = bent(AddingLaw(5, 3, width=8, parts=3, vectors=4))
        at = torch.randn(20, 5, 3, generator=generator, dtype=torch.float64)
        alone = law._centre(at.mean(1))
        for k in range(1, 5):
            mixture = law._mixture(at[:, :k], last=True)
            alone = alone + law._log_mixture(at[:, :k], mixture, at[:, k : k + 1])[:, 0]
        torch.testing.assert_close(law.mixture_log_prob(at), alone, rtol=0, atol=1e-9)
        new = torch.randn(20, 4, 6, 3, generator=generator, dtype=torch.float64)
        together = law._energy(at[:, :-1], new, last=False)
        for k in range(1, 5):
            single = law._energy(at[:, :k], new[:, k - 1 : k], last=True)[:, 0]
            torch.testing.assert_close(together[:, k - 1], single, rtol=0, atol=1e-9)

    @torch.no_grad()
    def test_density_of_draws(self, generator):
        """Without an energy a draw's density is that of the mixtures, in the order in which particles came."""
        law = AddingLaw(4, 3, width=8, parts=3, vectors=4, candidates=7).double()
        drawn = law.draw(50, generator=generator)
        orders = [drawn.x.transpose(1, 2)[:, list(order)] for order in itertools.permutations(range(4))]
        off = torch.stack([(law.mixture_log_prob(at) - drawn.log_prob).abs() for at in orders], 1)
        assert float(off.amin(1).max()) < 1e-9
        back = torch.stack([law.thinning.log_prob(at) for at in orders], 1).gather(1, off.argmin(1, keepdim=True))
        torch.testing.assert_close(drawn.log_order, back[:, 0], rtol=0, atol=1e-9)

    def test_symmetries(self, generator):
        law = bent(AddingLaw(5, 3, width=8, parts=3, vectors=4))
        at = torch.randn(10, 5, 3, generator=generator, dtype=torch.float64)
        at = at - at.mean(1, keepdim=True)
        mirror, _ = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))
        torch.testing.assert_close(law.mixture_log_prob(at @ mirror.T), law.mixture_log_prob(at), rtol=0, atol=1e-5)
        torch.testing.assert_close(
            law._energy(at @ mirror.T, at[:, :, None] @ mirror.T + 1, last=False),
            law._energy(at, at[:, :, None] + torch.linalg.solve(mirror, torch.ones(3).double()), last=False),
            rtol=0,
            atol=1e-5,
        )

    def test_infinite_energies_weigh_nothing(self, generator):
        law = AddingLaw(3, 2, width=8)
        drawn = law.draw(20, generator=generator)
        wall = torch.full((20,), torch.inf)
        assert bool((law.log_weight(lambda x: wall, drawn) == -torch.inf).all())
        for broken in (wall * math.nan, -wall, torch.zeros(20, 1)):
            with pytest.raises(DataError, match=r"energ|number a cluster"):
                law.log_weight(lambda x, broken=broken: broken, drawn)
        with pytest.raises(DataError, match="densities"):
            law.log_weight(lambda x: torch.zeros(20), drawn._replace(log_prob=wall))

    def test_learns(self, generator):
        """Particles with hard cores: the energy learns what mixtures miss."""
        torch.manual_seed(0)
        x = torch.randn(30_000, 2, 3, generator=generator)
        apart = torch.stack([(x[..., i] - x[..., j]).norm(dim=1) for i, j in ((0, 1), (0, 2), (1, 2))])
        x = x[apart.amin(0) > 0.8][:6000]
        law = AddingLaw(3, 2, width=16, parts=4, vectors=4, candidates=32).standardise(x, generator=generator)
        adam = torch.optim.Adam(law.parameters(), lr=1e-2)
        losses = []
        for step in range(60):
            loss = law.loss(x[step % 20 * 300 :][:300], candidates=8, generator=generator).mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
            losses.append(loss.item())
        assert losses[-1] < losses[0] - 0.2

        def cores(y):
            near = torch.stack([(y[..., i] - y[..., j]).norm(dim=1) for i, j in ((0, 1), (0, 2), (1, 2))]).amin(0)
            return trap(y) + torch.where(near > 0.8, 0.0, torch.inf)

        def share(candidates):
            drawn = law.draw(2000, generator=generator, candidates=candidates)
            log_weight = law.log_weight(cores, drawn)
            return float((2 * log_weight.logsumexp(0) - (2 * log_weight).logsumexp(0)).exp()) / 2000

        assert share(32) > max(0.3, share(1))

    def test_other_positions(self, generator):
        law = AddingLaw(5, 3)
        with pytest.raises(DataError, match="positions must be"):
            law.loss(torch.zeros(2, 3, 4), generator=generator)
        with pytest.raises(DataError, match="two clusters"):
            law.standardise(torch.zeros(1, 3, 5), generator=generator)
        with pytest.raises(DataError, match="positions must be"):
            law.mixture_log_prob(torch.zeros(2, 4, 3))
        with pytest.raises(DataError, match="positions must be"):
            law.loss(torch.zeros(0, 3, 5), generator=generator)
        with pytest.raises(ValueError, match="num"):
            law.draw(0, generator=generator)
        with pytest.raises(ValueError, match="candidates"):
            law.loss(torch.randn(2, 3, 5), candidates=0, generator=generator)
        x = torch.randn(4, 3, 5, generator=generator, dtype=torch.float64)
        assert law.standardise(x, generator=generator).loss(x, generator=generator).dtype == torch.float32

    @pytest.mark.parametrize("wrong", [{"particles": 1}, {"dim": 4}, {"unit": 0.0}, {"spread": 0.0}, {"width": 0}])
    def test_bad_values(self, wrong):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            AddingLaw(**{"particles": 4, "dim": 3, **wrong})
