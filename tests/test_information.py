"""Mutual information: closed forms, every state counted, and bounds that stay below what is exact."""

import itertools
import math

import pytest
import torch
from torch.nn import functional

from renorm.coarse.surroundings import block_values, surroundings
from renorm.errors import DataError, RecipeError
from renorm.laws.ising import Ising
from renorm.laws.simulate import simulate
from renorm.measure.information import (
    best_odd_rule,
    bound_of_means,
    enumerated_joint,
    held_out_information,
    info_nce,
    mutual_information,
    variational_information,
)
from renorm.measure.statistics import jackknife

BETA = math.log(1 + math.sqrt(2)) / 2


def binary_entropy(p):
    return -p * math.log(p) - (1 - p) * math.log(1 - p)


def corner_pattern(states):
    """The number of the 2 x 2 block at the corner."""
    return ((states[:, 0, :2, :2].flatten(1) > 0).long() << torch.arange(4)).sum(1)


def outside(states):
    """The twelve other spins of a 4 x 4 torus."""
    far = torch.ones(4, 4, dtype=torch.bool)
    far[:2, :2] = False
    return states[:, 0, far]


@pytest.fixture(scope="module")
def torus():
    return Ising((4, 4), BETA).enumerate()


@pytest.fixture(scope="module")
def joint(torus):
    return enumerated_joint(torus, corner_pattern, outside)


# -- exact -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [0.5, 0.1, 0.01])
def test_a_noisy_channel(error):
    """A binary symmetric channel keeps ln 2 - H(error)."""
    joint = torch.tensor([[1 - error, error], [error, 1 - error]], dtype=torch.float64) / 2
    assert mutual_information(joint) == pytest.approx(math.log(2) - binary_entropy(error), abs=1e-14)


def test_information_by_its_own_sum(generator):
    """Against the sum of P ln P / PP, and the same from either side."""
    p = torch.rand(3, 5, generator=generator, dtype=torch.float64)
    p /= p.sum()
    apart = p.sum(1, keepdim=True) * p.sum(0, keepdim=True)
    assert mutual_information(p) == pytest.approx(float((p * (p / apart).log()).sum()), abs=1e-14)
    assert mutual_information(p) == pytest.approx(mutual_information(p.T), abs=1e-14)


@pytest.mark.parametrize("rho", [0.3, 0.9])
def test_correlated_gaussians(rho):
    """A fine table of their density has -ln(1 - rho^2)/2, in which the cells' size drops out."""
    x = torch.linspace(-7, 7, 1401, dtype=torch.float64)
    density = torch.exp(-(x[:, None] ** 2 - 2 * rho * x[:, None] * x + x**2) / (2 * (1 - rho**2)))
    assert mutual_information(density / density.sum()) == pytest.approx(-math.log(1 - rho**2) / 2, abs=1e-9)


def test_two_neighbours_of_a_small_torus_by_hand():
    """2 x 2 sites, bonds doubled: 2 states of weight e^8b, 12 of 1, 2 of e^-8b; of the 12, six have s1 = s2."""
    law = Ising((2, 2), BETA).enumerate()
    joint = enumerated_joint(law, lambda s: (s[:, 0, 0, 0] > 0).long(), lambda s: s[:, 0, 0, 1])
    big, small = 2 * math.exp(8 * BETA), 2 * math.exp(-8 * BETA)
    equal = (big + 6) / (big + 12 + small)
    assert mutual_information(joint) == pytest.approx(math.log(2) - binary_entropy(equal), abs=1e-12)


def test_enumeration_agrees_with_entropies(torus):
    """I = H(f) + H(g) - H(f, g), by the enumeration's own entropies."""

    def coarse(s):
        return s[:, 0, :2, :2].sum((1, 2))

    def other(s):
        return s[:, 0, 2:, 2:].flatten(1)

    def both(s):
        return torch.cat([coarse(s)[:, None], other(s)], 1)

    joint = enumerated_joint(torus, lambda s: ((coarse(s) + 4) / 2).long(), other)
    want = torus.entropy(lambda s: coarse(s)[:, None]) + torus.entropy(other) - torus.entropy(both)
    assert mutual_information(joint) == pytest.approx(want, abs=1e-12)
    assert joint.shape == (5, 16)


def test_a_rule_that_draws_is_a_mixture(torus, joint):
    """Probabilities and patterns give one table; a coin alone says nothing."""
    p = torch.rand(16, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    p /= p.sum(1, keepdim=True)
    drawn = enumerated_joint(torus, lambda s: p[corner_pattern(s)], outside)
    torch.testing.assert_close(drawn, p.T @ joint, atol=1e-15, rtol=0)
    assert mutual_information(drawn) < mutual_information(joint)
    coin = enumerated_joint(torus, lambda s: torch.full((len(s), 2), 0.5), outside)
    assert mutual_information(coin) == pytest.approx(0, abs=1e-12)


def test_the_best_rule_is_the_best_of_all_tried_one_by_one(joint):
    """Again by a plain loop; on the 4 x 4 torus it is the majority of three of the four spins."""
    found = best_odd_rule(joint)
    values = []
    for lower in itertools.product([-1, 1], repeat=8):
        rule = torch.tensor([*lower, *[-v for v in lower[::-1]]])
        values.append(mutual_information(functional.one_hot((rule + 1) // 2, 2).double().T @ joint))
    assert found.information == pytest.approx(max(values), abs=1e-12)
    assert found.tried == 128
    assert torch.equal(found.rule, -found.rule.flip(0))
    spins = 2 * (torch.arange(16)[:, None] >> torch.arange(4) & 1) - 1
    threes = [spins[:, [i for i in range(4) if i != left]].sum(1).sign() for left in range(4)]
    assert any(torch.equal(found.rule, three) for three in threes)


# -- bounds ------------------------------------------------------------------------------------------------------------


def test_the_bound_of_the_true_posterior_is_exact(joint):
    """With q = p(h | e) on as many samples as states, weighted by their number: H(H) - H(H | E)."""
    p = torch.tensor([[0.5, 0.1], [0.1, 0.3]], dtype=torch.float64)
    h, e = (
        part.repeat_interleave(torch.tensor([5, 1, 1, 3]))
        for part in (torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1]))
    )
    log_q = (p / p.sum(0)).T.log()[e]
    told = variational_information(functional.one_hot(h, 2).double()[:, None], log_q[:, None])
    assert float(told.information.value) == pytest.approx(mutual_information(p), abs=1e-12)
    worse = variational_information(functional.one_hot(h, 2).double()[:, None], (log_q / 2).log_softmax(-1)[:, None])
    assert float(worse.information.value) < mutual_information(p)


def test_the_error_is_that_of_the_mean():
    """With shares that never change the bound is a mean over fields, and its error the standard error."""
    coarse = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).expand(50, 2, 2)
    q = torch.rand(50, 1, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 0.8 + 0.1
    log_q = torch.cat([q, 1 - q], -1).log().expand(50, 2, 2)
    told = variational_information(coarse, log_q)
    said = log_q.mean((1, 2))
    assert float(told.information.error) == pytest.approx(float(said.std() / math.sqrt(50)), rel=1e-10)
    assert float(told.information.value) == pytest.approx(math.log(2) + float(said.mean()), abs=1e-12)
    assert float(bound_of_means(told.samples.mean(0))) == pytest.approx(float(told.information.value), abs=1e-14)


def test_a_learned_bound_comes_near_the_exact_value_from_below(joint):
    """Majority of a block, the rest of the critical 4 x 4 torus as E; four equal blocks a field."""
    law = Ising((4, 4), BETA)
    states = [simulate(law, n, generator=torch.Generator().manual_seed(n)) for n in (4000, 2000)]
    parts = []
    for x in states:
        total = block_values(x, 2).sum(-1)
        up = torch.where(total == 0, 0.5, (total.sign() + 1) / 2)
        parts.append((torch.stack([1 - up, up], -1), surroundings(x, 2, buffer=0, reach=1)))
    told = held_out_information(*parts, epochs=8, batch=512, generator=torch.Generator().manual_seed(0))
    total = 2 * (torch.arange(16)[:, None] >> torch.arange(4) & 1).sum(1) - 4
    up = torch.where(total == 0, 0.5, (total.sign() + 1) / 2).double()
    exact = mutual_information(torch.stack([1 - up, up]) @ joint)
    assert exact == pytest.approx(0.53507, abs=1e-5)
    value, error = (float(part) for part in told.information)
    assert exact - 0.02 - 3 * error < value < exact + 3 * error
    assert error < 0.01


@pytest.mark.parametrize("rho", [0.5, 0.9])
def test_contrast_of_gaussians(rho):
    """The true critic of 64 pairs stays below the exact value and ln 64, and comes near; a blind critic gets 0."""
    g = torch.Generator().manual_seed(0)
    a, noise = torch.randn(2, 400, 64, generator=g, dtype=torch.float64)
    b = rho * a + math.sqrt(1 - rho**2) * noise
    scores = -((a[:, :, None] - rho * b[:, None, :]) ** 2) / (2 * (1 - rho**2))
    exact, found = -math.log(1 - rho**2) / 2, info_nce(scores)
    assert exact - 0.05 < float(found.value) < exact + 3 * float(found.error)
    assert float(info_nce(torch.zeros(3, 8, 8)).value) == pytest.approx(0, abs=1e-12)
    assert float(info_nce(50 * scores).value) < float(found.value)


def test_twins_are_judged_alike():
    """One seed, one network, one order: a rule against itself has the ratio 1 without error."""
    g = torch.Generator().manual_seed(0)
    h = functional.one_hot(torch.randint(2, (200, 3), generator=g), 2).float()
    e = h[..., :1] + 0.5 * torch.randn(200, 3, 1, generator=g)
    a, b = (
        held_out_information((h, e), (h, e), epochs=1, batch=100, generator=torch.Generator().manual_seed(3))
        for _ in range(2)
    )
    found = jackknife(
        torch.cat([a.samples, b.samples], 1), lambda m: bound_of_means(m[:, :3]) / bound_of_means(m[:, 3:])
    )
    assert float(found.value) == 1.0
    assert float(found.error) == 0.0


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_what_is_no_table_of_probabilities_is_refused(torus):
    for wrong in (
        torch.ones(2, 2),
        torch.tensor([[1.5, -0.5]]),
        torch.full((1, 1), torch.nan),
    ):
        with pytest.raises(DataError, match="sum 1"):
            mutual_information(wrong)
    with pytest.raises(RecipeError, match="one to four spins"):
        best_odd_rule(torch.full((32, 1), 1 / 32))
    with pytest.raises(DataError, match="add to 1"):
        enumerated_joint(torus, lambda s: torch.ones(len(s), 2), outside)
    with pytest.raises(DataError, match="whole number"):
        enumerated_joint(torus, lambda s: s[:, 0, 0, 0].long(), outside)


def test_samples_that_do_not_fit_are_refused(generator):
    h = torch.full((4, 2, 2), 0.5)
    with pytest.raises(DataError, match="fields, blocks, states"):
        variational_information(h, h[:, :1])
    with pytest.raises(DataError, match="their sum 1"):
        variational_information(2 * h, h.log())
    with pytest.raises(DataError, match="batches, K, K"):
        info_nce(torch.ones(2, 3, 4))
    with pytest.raises(DataError, match="at least 2 blocks"):
        info_nce(torch.ones(1, 3, 3))
    good = (h, torch.ones(4, 2, 3))
    with pytest.raises(DataError, match="a state and surroundings"):
        held_out_information(good, (h, torch.ones(4, 1, 3)), generator=generator)
    with pytest.raises(DataError, match="finite"):
        held_out_information(good, (h, torch.full((4, 2, 3), torch.inf)), generator=generator)
    with pytest.raises(DataError, match="same surroundings"):
        held_out_information(good, (h, torch.ones(4, 2, 5)), generator=generator)
    with pytest.raises(RecipeError, match="epochs"):
        held_out_information(good, good, epochs=0, generator=generator)


def test_what_is_no_probability_bounds_nothing():
    h = torch.eye(2).repeat(10, 1)[:, None]
    with pytest.raises(DataError, match="must be normalised"):
        variational_information(h, torch.full_like(h, 3.0))
