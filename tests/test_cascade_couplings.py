"""Couplings, stability matrices, majorities and weights against enumeration and closed forms."""

import itertools
import math

import pytest
import torch

from renorm.cascade.cascade import Cascade, Weighted
from renorm.cascade.checkerboards import checkerboard_cascade, doubled
from renorm.cascade.conditionals.heads import SpinHead
from renorm.cascade.conditionals.heat_bath import EvenAction
from renorm.cascade.conditionals.local import LocalConditional, SiteTop
from renorm.cascade.conditionals.site_laws import IsingSite
from renorm.cascade.couplings import couplings, exponents, rg_flow, stability_matrix
from renorm.cascade.evidence import evidence, evidence_of, two_fold
from renorm.cascade.gaussian import gaussian_cascade
from renorm.cascade.interactions import (
    DIAGONAL,
    EVEN,
    FIELD,
    KNIGHT,
    NEAREST,
    ODD,
    SECOND,
    SQUARE,
    Interaction,
    measure,
)
from renorm.cascade.learning.chain import heat_bath_sweep, metropolis
from renorm.coarse.block_spin import Majority
from renorm.coarse.checkerboard import Checkerboard
from renorm.coarse.majority import MajorityBlock
from renorm.coarse.wavelet import Wavelet
from renorm.errors import DataError, RecipeError
from renorm.lattice import Lattice
from renorm.laws.gaussian_field import GaussianField
from renorm.laws.ising import Ising
from renorm.laws.rg_maps import star

CRITICAL = math.log(1 + math.sqrt(2)) / 2


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def spins(num, edge, seed=0):
    return torch.randint(2, (num, 1, edge, edge), generator=generator(seed)) * 2.0 - 1


# Interactions


def test_interactions_are_sums_over_places_and_turns():
    x = torch.randn(2, 1, 5, 5, generator=generator())
    at = lambda r, c: x[:, 0].roll((-r, -c), (-2, -1))  # noqa: E731
    nearest = (at(0, 0) * (at(0, 1) + at(1, 0))).flatten(1).sum(1)
    diagonal = (at(0, 0) * (at(1, 1) + at(1, -1))).flatten(1).sum(1)
    square = (at(0, 0) * at(0, 1) * at(1, 0) * at(1, 1)).flatten(1).sum(1)
    knight = (at(0, 0) * (at(1, 2) + at(2, 1) + at(1, -2) + at(2, -1))).flatten(1).sum(1)
    second = (at(0, 0) * (at(0, 2) + at(2, 0))).flatten(1).sum(1)
    for interaction, exact in [
        (NEAREST, nearest),
        (DIAGONAL, diagonal),
        (SQUARE, square),
        (SECOND, second),
        (KNIGHT, knight),
        (FIELD[1], (x**4).flatten(1).sum(1)),
        (ODD[0], x.flatten(1).sum(1)),
    ]:
        assert torch.allclose(interaction(x), exact, atol=1e-4), interaction.name
        assert torch.allclose(interaction(x.transpose(-2, -1).flip(-1)), exact, atol=1e-4), interaction.name
    assert [len(each.images) for each in ODD] == [1, 4, 2]
    with pytest.raises(RecipeError, match="needs a site"):
        Interaction("nothing", ())
    with pytest.raises(DataError, match="one channel on two axes"):
        measure(torch.zeros(1, 2, 4, 4), EVEN)


# Couplings


def test_the_star_is_found_in_the_action_of_even_sites():
    """Odd spins integrated out: nearest neighbours on the turned lattice have twice the star's pair coupling."""
    law = EvenAction(IsingSite(CRITICAL))
    even = Checkerboard().split(spins(300, 8)).coarse
    x = even.double()
    a, b = x[:, 0], x[:, 1]
    below, right = lambda y: y.roll(-1, -2), lambda y: y.roll(-1, -1)
    near = sum((a * y).flatten(1).sum(1) for y in (b, b.roll(1, -2), b.roll(1, -1), b.roll((1, 1), (-2, -1))))
    far = sum((y * f(y)).flatten(1).sum(1) for y in (a, b) for f in (below, right))
    four = (a * below(a) * b * b.roll(1, -1)).flatten(1).sum(1) + (a * right(a) * b * b.roll(1, -2)).flatten(1).sum(1)
    found = couplings(-law(even).double(), torch.stack([near, far, four], 1))
    exact = star(CRITICAL)
    assert found.value.tolist() == pytest.approx(
        [2 * exact.pair, exact.pair, exact.quartic], abs=1e-5
    )  # float32 fields


def test_the_flow_of_a_free_field_begins_at_its_action():
    law = GaussianField((8, 8), mass_sq=0.5)
    spectrum = torch.fft.fftn(law.correlation)[..., None, None]
    model = gaussian_cascade(law.lattice, spectrum, [Wavelet()])
    square, nearest = FIELD[0], NEAREST
    flow = rg_flow(model, 200, generator=generator(), interactions=(square, nearest), smallest=4)
    assert [each.level for each in flow] == [0, 1]
    assert flow[0].couplings.value.tolist() == pytest.approx([-(0.5 + 4) / 2, 1.0], abs=1e-9)
    assert flow[0].explained == pytest.approx(1.0, abs=1e-9)
    assert 0.9 < flow[1].explained < 1.0  # blocks of a free field have more than neighbours
    with pytest.raises(DataError, match="no level has one channel"):
        rg_flow(model, 50, generator=generator(), smallest=16)


def test_couplings_want_enough_fields_and_different_sums():
    with pytest.raises(DataError, match="2 couplings need at least 12 fields, got 5"):
        couplings(torch.zeros(5), torch.zeros(5, 2))
    x = spins(100, 2)
    with pytest.raises(DataError, match="must not depend on each other"):
        couplings(torch.randn(100, generator=generator()), measure(x, (NEAREST, SECOND, DIAGONAL)))


# Stability


def test_the_stability_matrix_of_a_chain_is_its_derivative():
    """Decimation of independent strips of a chain: K' = ln cosh(2 K) / 2, so dK'/dK = tanh 2 K, by enumeration."""
    coupling, edge = 0.7, 8
    states = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=edge)), dtype=torch.float64)
    energy = coupling * (states * states.roll(-1, 1)).sum(1)
    p = energy.softmax(0)
    index = torch.multinomial(p, 40_000, replacement=True, generator=generator())
    x = states[index]
    fine, coarse = (x * x.roll(-1, 1)).sum(1, keepdim=True), (x[:, ::2] * x[:, ::2].roll(-1, 1)).sum(1, keepdim=True)
    found = stability_matrix(fine, coarse)
    # On a ring the long way round counts too: the derivative of <O'> over the ring, by exact sums.
    mean = lambda a, b: (p * a * b).sum() - (p * a).sum() * (p * b).sum()  # noqa: E731
    o = (states * states.roll(-1, 1)).sum(1)
    oc = (states[:, ::2] * states[:, ::2].roll(-1, 1)).sum(1)
    exact = mean(oc, o) / mean(oc, oc)
    assert float(found.error) < 0.03
    assert abs(float(found.value) - float(exact)) < 4 * float(found.error)
    assert float(exact) == pytest.approx(math.tanh(2 * coupling), abs=0.15)
    y = exponents(fine, coarse).leading
    assert abs(float(y.value) - math.log2(float(exact))) < 4 * float(y.error)


def test_stability_matrices_want_pairs():
    with pytest.raises(DataError, match="come in pairs"):
        stability_matrix(torch.zeros(100, 2), torch.zeros(100, 1))
    with pytest.raises(DataError, match="at least 16 fields, got 10"):
        stability_matrix(torch.zeros(10, 2), torch.zeros(10, 2))


# Majorities


def test_majorities_are_one_to_one():
    states = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=4))).reshape(-1, 1, 2, 2)
    step = MajorityBlock()
    coarse, detail, log_det = step.split(states)
    assert torch.equal(step.merge(coarse, detail), states)
    assert len({tuple(row.tolist()) for row in torch.cat([coarse.flatten(1), detail.flatten(1)], 1)}) == 16
    assert torch.equal(coarse, Majority().coarsen(states))
    assert (log_det == 0).all()
    turned = step.split(-states)
    assert torch.equal(turned.coarse, -coarse)
    assert torch.equal(turned.detail, -detail)
    x = spins(5, 8)
    back = step.split(x)
    assert torch.equal(step.merge(back.coarse, back.detail), x)
    assert tuple(back.detail.shape[1:]) == step.detail_shape(Lattice((8, 8), boundary="periodic"))
    with pytest.raises(DataError, match=r"got 0\.5"):
        step.split(torch.full((1, 1, 2, 2), 0.5))
    with pytest.raises(RecipeError, match="one channel"):
        step.coarse_lattice(Lattice((4,), boundary="periodic"))


def test_a_cascade_of_majorities_sums_to_one_and_may_share_weights():
    """All 2^16 states of 4 x 4 spins; one set of weights on both levels."""
    torch.manual_seed(0)
    shared = LocalConditional(2, 1, 3, SpinHead(), width=4)
    for parameter in shared.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    lattice = Lattice((4, 4), boundary="periodic")
    model = Cascade(lattice, [MajorityBlock()] * 2, [shared] * 2, SiteTop((1, 1, 1), SpinHead()))
    assert len(list(model.parameters())) == len(list(shared.parameters())) + 1
    states = Ising((4, 4), 0.1).enumerate().states
    total = torch.cat([model.log_prob(part) for part in states.split(8192)]).double().logsumexp(0)
    assert float(total.detach()) == pytest.approx(0.0, abs=1e-4)
    x = model.sample(4, generator=generator())
    fine = model.refine(model.coarsen(x, 1), level=1, generator=generator(1))
    assert torch.equal(model.coarsen(fine, 1), model.coarsen(x, 1))


# Weights and chains


def test_evidence_has_the_partition_function_between_its_bounds():
    law = Ising((4, 4), beta=0.3)
    torch.manual_seed(0)
    model = checkerboard_cascade(4, IsingSite(0.3), SpinHead(), width=4)
    states = law.enumerate()
    index = torch.multinomial(states.log_prob.exp(), 3000, replacement=True, generator=generator())
    found = evidence(model, law, 3000, generator=generator(1), target=states.states[index])
    assert found.upper is not None
    assert found.lower.value < law.log_z < found.upper.value
    assert abs(float(found.log_z.value) - law.log_z) < 4 * float(found.log_z.error)
    assert 0.01 < found.ess < 1
    assert not found.collapsed
    assert abs(float(found.one_sided.value) - law.log_z) < 4 * float(found.one_sided.error)
    assert found.log_z.error < found.one_sided.error
    assert found.target_log_weight is not None
    assert found.upper.value == pytest.approx(float(found.target_log_weight.mean()), abs=1e-12)
    alone = evidence_of(model, law, found.drawn)
    assert (alone.log_z, alone.upper, alone.target_log_weight) == (found.one_sided, None, None)
    assert two_fold(found.drawn) == pytest.approx(0.5, abs=0.1)
    assert two_fold(Weighted(torch.ones(3, 1, 2, 2), torch.zeros(3), torch.zeros(3))) == 1.0


def test_weights_are_those_of_the_definition_however_many_fields_are_weighed_together(monkeypatch):
    law, model = Ising((4, 4), beta=0.3), checkerboard_cascade(4, IsingSite(0.3), SpinHead(), width=4)
    drawn = model.weigh(law, 7, generator=generator())
    with torch.no_grad():
        exact = -law(drawn.fields).double() - model.log_prob(drawn.fields).double()
    torch.testing.assert_close(drawn.log_weight, exact, rtol=0, atol=1e-5)
    torch.testing.assert_close(model.log_weight(law, drawn.fields), exact, rtol=0, atol=1e-12)
    assert model.together == 1024
    monkeypatch.setattr("renorm.cascade.weighing.COMPONENTS", 2 * 16)
    assert model.together == 2
    sizes, draw = [], model.draw
    monkeypatch.setattr(model, "draw", lambda num, **words: sizes.append(num) or draw(num, **words))
    value, log_prob = model.draw_many(7, generator=generator())
    assert sizes == [2, 2, 2, 1]
    torch.testing.assert_close(log_prob, model.log_prob(value), rtol=0, atol=1e-5)
    assert not log_prob.requires_grad
    assert len(model.weigh(law, 3, generator=generator()).fields) == 3
    assert sizes[4:] == [2, 1]
    torch.testing.assert_close(model.log_weight(law, drawn.fields), exact, rtol=0, atol=1e-5)
    assert torch.equal(model.log_weight(law, drawn.fields, drawn.log_prob), drawn.log_weight)


@pytest.mark.parametrize("level", [None, 1, 2, 4])
def test_chains_keep_the_law_of_any_model(level):
    """A poor model proposes; from exact samples the energy stays that of enumeration."""
    law = Ising((4, 4), beta=0.3)
    torch.manual_seed(0)
    model = checkerboard_cascade(4, IsingSite(0.35), SpinHead(), width=4)
    states = law.enumerate()
    index = torch.multinomial(states.log_prob.exp(), 6000, replacement=True, generator=generator())
    x, noise = states.states[index], generator(2)
    taken = []
    for _ in range(4):
        before = x
        x, acceptance = metropolis(model, law, x, level=level, generator=noise)
        if level is not None:
            assert torch.equal(model.coarsen(x, level), model.coarsen(before, level))
        taken.append(acceptance)
    energy = law(x).double()
    exact = states.mean(law)
    assert abs(float(energy.mean()) - exact) < 4 * float(energy.std()) / 6000**0.5
    assert 0.05 < min(taken) <= max(taken) < 1
    with pytest.raises(DataError, match="action must be finite"):
        model.log_weight(lambda f: f.sum((1, 2, 3)) / 0.0, x)


def test_sweeps_of_the_heat_bath_keep_the_law():
    law = Ising((4, 4), beta=0.4)
    states = law.enumerate()
    index = torch.multinomial(states.log_prob.exp(), 8000, replacement=True, generator=generator())
    x, noise = states.states[index], generator(1)
    for _ in range(3):
        x = heat_bath_sweep(IsingSite(0.4), x, generator=noise)
    energy = law(x).double()
    assert abs(float(energy.mean()) - states.mean(law)) < 4 * float(energy.std()) / 8000**0.5


def test_growth_begins_at_four():
    with pytest.raises(RecipeError, match="at least 4 to be doubled"):
        doubled(checkerboard_cascade(2, IsingSite(0.3), SpinHead()))
