"""A learned block-spin rule: it finds what is best on laws where the best is known."""

import math

import pytest
import torch
from torch.nn import functional

from renorm.coarse.base import BlockRule
from renorm.coarse.block_spin import BlockMean, Decimation, Majority
from renorm.coarse.encoder import BlockEncoder, fit_encoder
from renorm.coarse.surroundings import block_values, surroundings
from renorm.errors import DataError, RecipeError
from renorm.lattice import Lattice
from renorm.laws.ising import Ising
from renorm.laws.simulate import simulate
from renorm.measure.information import best_odd_rule, enumerated_joint, mutual_information
from renorm.nn.dense import dense

BETA = math.log(1 + math.sqrt(2)) / 2


def spins(num=50, shape=(4, 6), seed=0, channels=1):
    g = torch.Generator().manual_seed(seed)
    return 2.0 * torch.randint(2, (num, channels, *shape), generator=g) - 1


def linear(weights, size=2, dim=2):
    rule = BlockEncoder(size, dim=dim)
    (name,) = rule.state_dict()
    rule.load_state_dict({name: torch.tensor([weights])})
    return rule


# -- surroundings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("buffer", "reach"), [(0, 1), (0, 2), (1, 1), (1, 2), (2, 1)])
@pytest.mark.parametrize("shape", [(8,), (8, 10), (8, 8, 8)])
def test_surroundings_by_distance(shape, buffer, reach):
    """Against distances around the torus, site by site."""
    number = torch.arange(math.prod(shape)).reshape(1, 1, *shape)
    found = surroundings(number, 2, buffer=buffer, reach=reach)[0]
    inner = block_values(number, 2)[0]
    place = torch.stack(torch.meshgrid(*map(torch.arange, shape), indexing="ij"), -1).reshape(-1, len(shape))
    sides = torch.tensor(shape)
    for block in range(0, len(inner), max(1, len(inner) // 7)):
        apart = (place[:, None] - place[inner[block]]).abs()
        distance = torch.minimum(apart, sides - apart).amax(-1).amin(-1)
        want = torch.nonzero((distance > buffer) & (distance <= buffer + reach))[:, 0]
        assert found[block].sort().values.tolist() == want.tolist()


def test_blocks_shifted_have_the_same_surroundings():
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    here, there = surroundings(x, 2), surroundings(x.roll((2, -4), (2, 3)), 2)
    moved = here.unflatten(1, (4, 4)).roll((1, -2), (1, 2)).flatten(1, 2)
    torch.testing.assert_close(there, moved, atol=0, rtol=0)
    assert here.shape == (2, 16, 3 * (64 - 16))


def test_rings_that_meet_themselves_are_refused():
    with pytest.raises(DataError, match="axes of 8 sites or more"):
        surroundings(spins(2, (6, 8)), 2)
    with pytest.raises(DataError, match="multiple of 2"):
        surroundings(spins(2, (9, 8)), 2, buffer=0)
    with pytest.raises(RecipeError, match="reach >= 1"):
        surroundings(spins(2, (8, 8)), 2, reach=0)
    with pytest.raises(DataError, match="one to three axes"):
        block_values(torch.ones(2, 2), 2)


# -- the rule ----------------------------------------------------------------------------------------------------------


def test_it_is_a_block_rule():
    assert isinstance(BlockEncoder(), BlockRule)
    assert BlockEncoder(3, channels=2).coarse_lattice(Lattice((6, 9), channels=2)).event_shape == (1, 2, 3)


def test_fixed_rules_are_values_of_it():
    x = spins()
    assert torch.equal(linear([1.0, 0.0, 0.0, 0.0]).coarsen(x), Decimation().coarsen(x))
    assert torch.equal(linear([1.5, 1.0, 1.0, 1.0]).coarsen(x), Majority().coarsen(x))
    continuous = torch.randn(50, 1, 4, 6, generator=torch.Generator().manual_seed(0))
    mean = BlockMean().coarsen(continuous)
    assert torch.equal(linear([1.0] * 4).coarsen(continuous), mean.sign())


@pytest.mark.parametrize("layers", [0, 2])
def test_two_states_turn_over_with_the_field(layers):
    rule = BlockEncoder(layers=layers, generator=torch.Generator().manual_seed(0))
    x = torch.randn(50, 1, 4, 6, generator=torch.Generator().manual_seed(1))
    assert torch.equal(rule.coarsen(-x), -rule.coarsen(x))
    torch.testing.assert_close(rule.log_prob(block_values(-x, 2)), rule.log_prob(block_values(x, 2)).flip(-1))


@pytest.mark.parametrize("states", [2, 5])
def test_draws_have_the_law_that_it_says(states):
    """Shares of 40,000 draws of one block, to four standard errors."""
    rule = BlockEncoder(dim=1, states=states, thresholds=True, generator=torch.Generator().manual_seed(3))
    block = torch.tensor([0.3, -0.8])
    x = block.repeat(20_000).expand(2, 1, -1)
    drawn = rule.assign(x, generator=torch.Generator().manual_seed(0))
    p = rule.log_prob(block).exp().detach()
    share = drawn.flatten().bincount(minlength=states) / drawn.numel()
    assert bool(((share - p).abs() < 4 * (p * (1 - p) / drawn.numel()).sqrt()).all())
    assert bool((rule.assign(x) == p.argmax()).all())
    assert set(rule.coarsen(x, generator=torch.Generator().manual_seed(0)).unique().tolist()) <= set(
        rule.values.tolist()
    )


def test_a_tie_is_a_coin_where_there_is_a_generator():
    tie = torch.tensor([1.0, -1.0]).repeat(5000).expand(1, 1, -1)
    rule = linear([1.0, 1.0], dim=1)
    assert bool((rule.coarsen(tie) == 1).all())
    drawn = rule.coarsen(tie, generator=torch.Generator().manual_seed(0))
    assert abs(float(drawn.mean())) < 4 / math.sqrt(5000)


def test_wrong_values_are_refused():
    for wrong, message in (({"size": 1}, "2 sites"), ({"dim": 4}, "three axes"), ({"states": 1}, "2 states")):
        with pytest.raises(RecipeError, match=message):
            BlockEncoder(**wrong)
    with pytest.raises(RecipeError, match="no single filter"):
        _ = BlockEncoder(layers=1).filter
    with pytest.raises(DataError, match="of 2 axes"):
        BlockEncoder().coarsen(spins(2, (4,)))
    with pytest.raises(DataError, match="of 2 axes"):
        BlockEncoder().coarsen(spins(2, channels=2))
    g = torch.Generator().manual_seed(0)
    with pytest.raises(RecipeError, match="steps and batch"):
        fit_encoder(BlockEncoder(), spins(2, (8, 8)), steps=0, generator=g)
    with pytest.raises(DataError, match="finite"):
        fit_encoder(BlockEncoder(), torch.full((2, 1, 8, 8), torch.nan), generator=g)
    with pytest.raises(ValueError, match="layers must be >= 0"):
        dense(1, 1, layers=-1)


# -- learning ----------------------------------------------------------------------------------------------------------


def test_on_a_critical_torus_it_comes_near_the_best_rule():
    """4 x 4, all twelve other spins as E: learned from samples, judged exactly against every odd rule."""
    law, g = Ising((4, 4), BETA), torch.Generator().manual_seed(0)
    rule = BlockEncoder(generator=g)
    fit_encoder(rule, simulate(law, 4000, generator=g), buffer=0, reach=1, steps=400, rate=0.03, generator=g)
    far = torch.ones(4, 4, dtype=torch.bool)
    far[:2, :2] = False
    joint = enumerated_joint(
        law.enumerate(),
        lambda s: ((s[:, 0, :2, :2].flatten(1) > 0).long() << torch.arange(4)).sum(1),
        lambda s: s[:, 0, far],
    )
    blocks = (2.0 * (torch.arange(16)[:, None] >> torch.arange(4) & 1) - 1).reshape(16, 1, 2, 2)

    def kept(rule):
        up = (rule.coarsen(blocks).flatten() > 0).long()
        return mutual_information(functional.one_hot(up, 2).double().T @ joint)

    best = best_odd_rule(joint).information
    assert kept(Decimation()) < 0.9 * best < kept(Majority()) < best
    assert 0.999 * best < kept(rule) < best + 1e-12


def test_it_looks_past_noise_in_continuous_fields():
    """One of two channels is noise; of the other, the block's two sites are of unlike worth."""
    g = torch.Generator().manual_seed(0)
    common = torch.randn(2000, 1, 1, generator=g).expand(-1, -1, 8)
    noise = torch.randn(2000, 2, 8, generator=g)
    x = torch.cat([common + noise[:, :1] * torch.tensor([0.2, 2.0]).repeat(4), noise[:, 1:]], 1)
    rule = BlockEncoder(dim=1, channels=2, generator=g)
    trace = fit_encoder(rule, x, buffer=0, reach=1, steps=400, rate=0.03, generator=g)
    (near, far), rest = rule.filter[0].abs().tolist()[0], rule.filter[0, 1].abs().max()
    assert near > 5 * far
    assert near > 5 * rest
    assert trace[-50:].mean() > trace[:50].mean() + 0.2


def test_four_states_keep_more_than_two_and_learning_repeats_itself():
    """Two fair bits that the surroundings repeat: four states keep 2 ln 2, and a seed gives the same weights."""
    g = torch.Generator().manual_seed(0)
    x = spins(1000, (1, 2)).repeat(1, 1, 1, 4)[:, :, 0]  # a b a b a b a b
    rules = []
    for _ in range(2):
        g = torch.Generator().manual_seed(2)
        rule = BlockEncoder(dim=1, states=4, thresholds=True, generator=g)
        trace = fit_encoder(rule, x, buffer=0, reach=1, steps=300, rate=0.05, batch=500, generator=g)
        rules.append(rule)
    assert trace[-20:].mean() > 1.8 * math.log(2)
    for a, b in zip(*(rule.parameters() for rule in rules), strict=True):
        assert torch.equal(a, b)
