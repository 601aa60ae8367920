"""Molecules of which everything is known: Rouse's chain, beads of it, and rings of double wells."""

import copy
import math

import pytest
import torch

from renorm.cascade.conditionals.dense_gaussian import DenseGaussian
from renorm.cascade.conditionals.heads import SplineHead
from renorm.cascade.conditionals.heat_bath import EvenAction, HeatBath
from renorm.cascade.conditionals.site_laws import Phi4Site
from renorm.cascade.evidence import evidence
from renorm.cascade.learning.training import fit_to_action
from renorm.cascade.rings import gaussian_beads, longer, ring_cascade
from renorm.coarse.alternate import Alternate, ring_neighbours
from renorm.coarse.beads import Beads, bead_steps
from renorm.errors import DataError, RecipeError
from renorm.graph import Graph
from renorm.lattice import Lattice
from renorm.laws.chain import DoubleWellChain
from renorm.laws.rouse import GaussianChain
from renorm.measure.chains.geometry import radius_of_gyration
from renorm.testing import check_coarse_graining

CHAINS = [GaussianChain(32), GaussianChain(32, ring=True), GaussianChain(5, bond=2.0, dim=2, spread=0.3)]


def steps_of(law):
    return bead_steps(Graph.ring(law.atoms) if law.ring else Graph.linear(law.atoms))


class TestRouse:
    @pytest.mark.parametrize("law", CHAINS, ids=["linear", "ring", "small"])
    def test_energy_is_that_of_its_springs(self, law, generator):
        x = torch.randn(3, law.dim, law.atoms, generator=generator, dtype=torch.float64)
        bonds = (x.roll(-1, 2) - x)[..., : law.atoms if law.ring else -1]
        energy = law.dim / 2 / law.bond**2 * bonds.square().sum((1, 2))
        energy += law.dim / 2 / law.spread**2 * x.mean(2).square().sum(1)
        torch.testing.assert_close(law(x), energy, rtol=1e-12, atol=0)

    @pytest.mark.parametrize("law", CHAINS, ids=["linear", "ring", "small"])
    def test_gradient_and_norm(self, law, generator):
        x = torch.randn(2, law.dim, law.atoms, generator=generator, dtype=torch.float64, requires_grad=True)
        (by_autograd,) = torch.autograd.grad(law(x).sum(), x)
        torch.testing.assert_close(law.grad(x.detach()), by_autograd, rtol=1e-10, atol=1e-10)
        dense = torch.distributions.MultivariateNormal(torch.zeros(law.atoms).double(), law.covariance)
        torch.testing.assert_close(law.log_prob(x), dense.log_prob(x).sum(1), rtol=1e-9, atol=0)

    @pytest.mark.parametrize(("ring", "exact"), [(False, 5.328125), (True, 2.6640625)])
    def test_radius_of_gyration(self, ring, exact, generator):
        law = GaussianChain(32, ring=ring)
        assert law.rg_sq == exact
        assert float(3 * law.spectrum[1:].sum() / 32) == pytest.approx(exact, rel=1e-12)  # the sum over modes
        rg_sq = radius_of_gyration(law.sample(20_000, generator=generator).transpose(1, 2)).square()
        assert abs(rg_sq.mean() - exact) < 4 * rg_sq.std() / math.sqrt(20_000)

    @pytest.mark.parametrize("wrong", [{"atoms": 1}, {"bond": 0.0}, {"dim": 0}, {"spread": 0.0}])
    def test_bad_values(self, wrong):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            GaussianChain(**{"atoms": 4, **wrong})

    def test_other_positions(self):
        with pytest.raises(DataError, match="positions must be"):
            GaussianChain(4)(torch.zeros(1, 3, 5))


class TestGraph:
    def test_pairs_of_a_chain_and_a_ring(self):
        assert Graph.linear(6).pairs() == Graph.ring(6).pairs() == ((0, 1), (2, 3), (4, 5))
        assert Graph.ring(2).bonds == ((0, 1),)

    def test_star(self):
        star = Graph(5, tuple((0, i) for i in range(1, 5)), masses=(4.0, 1.0, 1.0, 1.0, 1.0))
        assert star.pairs() == ((0, 1, 2, 3, 4),)  # no leaf has another neighbour
        assert star.contracted(star.pairs()) == Graph(1, (), (8.0,))

    @pytest.mark.parametrize("atoms", [2, 3, 7, 13, 32])
    def test_hierarchy_ends_in_one_bead(self, atoms):
        for graph in (Graph.linear(atoms), Graph.ring(atoms)):
            sizes = [len(parts) for parts in graph.hierarchy()]
            assert sizes[-1] == 1
            assert sizes == sorted(sizes, reverse=True)
            for parts in graph.hierarchy()[:1]:
                assert sorted(atom for part in parts for atom in part) == list(range(atoms))

    def test_random_trees(self):
        numbers = torch.Generator().manual_seed(0)
        for atoms in range(2, 30):
            bonds = tuple((int(torch.randint(i, (), generator=numbers)), i) for i in range(1, atoms))
            graph = Graph(atoms, bonds)
            for parts in graph.hierarchy():
                for part in parts:  # a bead hangs together
                    inside = {atom: i for i, atom in enumerate(part)}
                    Graph(len(part), tuple((inside[a], inside[b]) for a, b in graph.bonds if {a, b} <= inside.keys()))
                graph = graph.contracted(parts)
            assert graph.atoms == 1

    @pytest.mark.parametrize(
        ("wrong", "match"),
        [
            (lambda: Graph(4, ((0, 1), (2, 3))), "disconnected.*got \\[2, 3\\]"),
            (lambda: Graph(2, ((0, 2),)), "two different atoms"),
            (lambda: Graph(2, ((0, 1), (1, 1))), "two different atoms"),
            (lambda: Graph(2, ((0, 1),), (1.0, 0.0)), "masses must be > 0"),
            (lambda: Graph(2, ((0, 1),), (1.0,)), "has a mass"),
            (lambda: Graph(0, ()), "an atom or more"),
            (lambda: Graph.ring(1), "two atoms"),
        ],
    )
    def test_bad_graphs(self, wrong, match):
        with pytest.raises(ValueError, match=match):
            wrong()


class TestBeads:
    @pytest.mark.parametrize("masses", [None, (1.0, 12.0, 1.0, 16.0, 1.0)])
    def test_conformance(self, masses):
        step = Beads(((0, 3), (1, 2, 4)), masses)
        check_coarse_graining(step, Lattice((5,), channels=3))

    def test_centres_and_vectors(self):
        x = torch.tensor([[[0.0, 1.0, 5.0]]])
        coarse, detail, _ = Beads(((2, 0, 1),), (1.0, 1.0, 2.0)).split(x)
        assert coarse.item() == pytest.approx((0 + 1 + 10) / 4)
        assert detail.flatten().tolist() == pytest.approx([0 - 5, 1 - (2 * 5 + 0) / 3])

    def test_turns_and_shifts(self, generator):
        x = torch.randn(4, 3, 6, generator=generator, dtype=torch.float64)
        turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))
        for step in bead_steps(Graph.linear(6))[:1]:
            coarse, detail, _ = step.split(x)
            there = step.split(turn @ x + 7)
            torch.testing.assert_close(there.coarse, turn @ coarse + 7, rtol=0, atol=1e-12)
            torch.testing.assert_close(there.detail, turn @ detail, rtol=0, atol=1e-12)

    def test_centre_of_all_is_the_last_bead(self, generator):
        masses = tuple(float(i) for i in range(1, 8))
        x = at = torch.randn(2, 3, 7, generator=generator, dtype=torch.float64)
        for step in bead_steps(Graph(7, Graph.linear(7).bonds, masses)):
            at = step.split(at).coarse
        weights = torch.tensor(masses, dtype=torch.float64)
        torch.testing.assert_close(at[..., 0], (x * weights).sum(2) / weights.sum(), rtol=0, atol=1e-12)

    @pytest.mark.parametrize(
        ("parts", "masses", "match"),
        [
            (((0,), ()), None, "none in bead 1"),
            (((0, 1), (1, 2)), None, "each to one bead"),
            (((0,), (2,)), None, "each to one bead"),
            ((), None, "each to one bead"),
            (((0, 1),), (1.0,), "has a mass"),
            (((0, 1),), (1.0, -1.0), "must be > 0"),
        ],
    )
    def test_bad_beads(self, parts, masses, match):
        with pytest.raises(RecipeError, match=match):
            Beads(parts, masses)

    def test_partitions_that_are_none(self):
        for parts in ([((0, 1),)], [((0, 1), (1, 2, 3))], [((0, 1), (2, 3), ())]):
            with pytest.raises(ValueError, match=r"share out|has an atom"):
                bead_steps(Graph.linear(4), parts)

    def test_other_molecules(self):
        step = Beads(((0, 1),))
        with pytest.raises(RecipeError, match="2 atoms on one axis"):
            step.coarse_lattice(Lattice((3,)))
        with pytest.raises(DataError, match="positions"):
            step.split(torch.zeros(1, 3, 3))


class TestGaussianBeads:
    @pytest.mark.parametrize("law", CHAINS, ids=["linear", "ring", "small"])
    def test_likelihood_is_exact_at_every_level(self, law, generator):
        model = gaussian_beads(law.lattice, law.covariance, steps_of(law))
        x = law.sample(5, generator=generator, dtype=torch.float64)
        torch.testing.assert_close(model.log_prob(x), law.log_prob(x), rtol=0, atol=1e-9)
        at, covariance = x, law.covariance
        for level, step in enumerate(model.steps, 1):
            at = step.split(at).coarse
            rows = step.matrix[: at.shape[2]]
            covariance = rows @ covariance @ rows.T
            dense = torch.distributions.MultivariateNormal(torch.zeros(len(covariance)).double(), covariance)
            torch.testing.assert_close(model.log_prob_level(at, level), dense.log_prob(at).sum(1), rtol=0, atol=1e-9)

    def test_draws_have_the_law(self, generator):
        law = GaussianChain(32)
        model = gaussian_beads(law.lattice, law.covariance, steps_of(law))
        x, log_prob = model.draw(20_000, generator=generator)
        rg_sq = radius_of_gyration(x.transpose(1, 2)).square()
        assert abs(rg_sq.mean() - law.rg_sq) < 4 * rg_sq.std() / math.sqrt(20_000)
        torch.testing.assert_close(log_prob.double(), law.log_prob(x).double(), rtol=0, atol=1e-2)

    def test_learned_from_samples(self, generator):
        law = GaussianChain(8)
        model = gaussian_beads(law.lattice, torch.eye(8, dtype=torch.float64), steps_of(law))
        model.fit(law.sample(4000, generator=generator))
        x = law.sample(2000, generator=generator, dtype=torch.float64)
        lost = (law.log_prob(x) - model.log_prob(x)).mean()
        assert -0.01 < lost < 0.02  # 36 numbers of 12 000 rows cost 36 / 2 / 12 000 nats for each component

    @pytest.mark.parametrize("sites", [0, 1])
    def test_no_density(self, sites):
        for covariance in (torch.ones(2, 2).double(), torch.tensor([[-1.0, 0.0], [0.0, 1.0]])):
            with pytest.raises(DataError, match="positive definite"):
                DenseGaussian(covariance, sites, 1)
        with pytest.raises(DataError, match="symmetric"):
            DenseGaussian(torch.tensor([[1.0, 0.5], [0.0, 1.0]]), sites, 1)

    def test_kept(self):
        law = DenseGaussian(torch.tensor([[2.0, 0.5], [0.5, 1.0]]), 1, 3)  # in float32, as a file may have it
        other = DenseGaussian(torch.eye(2), 1, 3)
        other.load_state_dict(law.state_dict())
        y, c = torch.ones(1, 3, 1), torch.full((1, 3, 1), 0.3)
        assert torch.equal(other.log_prob(y, c), law.log_prob(y, c))
        assert torch.equal(copy.deepcopy(law).log_prob(y, c), law.log_prob(y, c))


class TestRings:
    def test_conformance(self):
        check_coarse_graining(Alternate(), Lattice((8,), boundary="periodic"))
        check_coarse_graining(Alternate(), Lattice((2,), boundary="periodic", channels=3))

    @pytest.mark.parametrize("lattice", [Lattice((4,)), Lattice((4, 4), "periodic"), Lattice((5,), "periodic")])
    def test_other_lattices(self, lattice):
        with pytest.raises(RecipeError):
            Alternate().coarse_lattice(lattice)

    @pytest.mark.parametrize("sites", [2, 8])
    def test_heat_bath_and_what_is_left(self, sites, generator):
        """S = S'(even) - ln p(odd | even), whatever the field."""
        law, site = DoubleWellChain(sites, 1.5, barrier=2.0), Phi4Site(0.75, 2.0, 1.5 - 4.0)
        x = torch.randn(6, 1, sites, generator=generator, dtype=torch.float64)
        even, odd, _ = Alternate().split(x)
        left = EvenAction(site, ring_neighbours)(even) - HeatBath(site, ring_neighbours).log_prob(odd, even)
        torch.testing.assert_close(left, law(x) - 2.0 * sites, rtol=0, atol=1e-7)  # h more a site

    def test_log_z(self, generator):
        torch.manual_seed(0)
        law, site = DoubleWellChain(4, 1.0), Phi4Site(0.5, 4.0, -7.0)
        model = ring_cascade(4, site, SplineHead())
        fit_to_action(model, EvenAction(site, ring_neighbours), steps=150, rate=2e-2, level=1, generator=generator)
        found = evidence(model, law, 4000, generator=generator)
        assert abs(float(found.log_z.value) - law.log_z) < 4 * float(found.log_z.error) < 0.2
        double = longer(model)
        assert [level.modes for level in double.levels] == [8, 4, 2, 1]
        assert float(evidence(double, DoubleWellChain(8, 1.0), 4000, generator=generator).ess) > 0.3

    def test_decimated_law(self, generator):
        """p(x) = p'(even) p(odd | even), with p' of the squared transfer matrix."""
        law, site = DoubleWellChain(8, 1.0), Phi4Site(0.5, 4.0, -7.0)
        x = 0.5 * torch.randn(20, 1, 8, generator=generator, dtype=torch.float64)
        torch.testing.assert_close(law.transfer.log_prob(x), law.log_prob(x), rtol=0, atol=1e-6)
        even, odd, _ = Alternate().split(x)
        both = law.transfer.decimate().log_prob(even) + HeatBath(site, ring_neighbours).log_prob(odd, even)
        torch.testing.assert_close(both, law.log_prob(x), rtol=0, atol=1e-6)
        with pytest.raises(DataError, match="must be"):
            law.transfer.log_prob(even)
        with pytest.raises(DataError, match="known from"):
            law.transfer.log_prob(3 + x)

    def test_transfer_of_stiff_springs(self):
        """Far corners of the matrix are less than any float; their logs are not lost."""
        law = DoubleWellChain(4, 100.0)
        x = torch.tensor([[[1.0, 0.9, 1.1, 1.0]], [[-1.6, 1.6, -1.6, 1.6]]], dtype=torch.float64)
        torch.testing.assert_close(law.transfer.log_prob(x), law.log_prob(x), rtol=1e-6, atol=1e-5)

    def test_bad_sizes(self):
        site = Phi4Site(0.5, 4.0, -7.0)
        with pytest.raises(RecipeError, match="power of two"):
            ring_cascade(6, site, SplineHead())
        with pytest.raises(RecipeError, match="at least 4"):
            longer(ring_cascade(2, site, SplineHead()))
