"""The pixel model: trees over pixels against brute force, recounting against its own law, smoothing by hand."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from renorm.data import DataSpec, load, store
from renorm.errors import DataError, RecipeError
from renorm.tokens.codebooks.values import ValueCodebook
from renorm.tokens.families.grey_tree import HiddenTree
from renorm.tokens.families.hidden_tree import (
    HiddenPrior,
    _centres,
    _expect,
    _nearest,
    _Shades,
    _surroundings,
    fit_hidden_tree,
)
from renorm.tokens.families.pixel_tree import block_tree, chow_liu, latent_tree, mutual_information, states_by_entropy


def noisy_copies(number=3000, *, seed=0):
    """2 x 3 pixels of 8 grey values: one hidden bit for each row; flips give a chain of copies."""
    rng = np.random.default_rng(seed)
    bit = rng.integers(0, 2, (number, 2))
    bright = np.repeat(bit, 3, axis=1) ^ (rng.random((number, 6)) < 0.05)
    return np.where(bright, rng.integers(4, 8, (number, 6)), rng.integers(0, 2, (number, 6)))


def bits(law, values):
    found = law.log_prob(law.observe(torch.from_numpy(values)))
    return -float(found.double().mean()) / math.log(2) / values.shape[1]


# Trees


def test_mutual_information_is_the_sum_by_its_definition():
    values = np.random.default_rng(0).integers(0, 3, (40, 4)) * np.array([1, 1, 1, 0])
    got = mutual_information(values, bins=3)
    for i, j in itertools.product(range(4), repeat=2):
        joint = np.zeros((3, 3))
        np.add.at(joint, (values[:, i], values[:, j]), 1 / 40)
        flat = np.outer(joint.sum(1), joint.sum(0))
        exact = (joint[joint > 0] * np.log(joint[joint > 0] / flat[joint > 0])).sum()
        assert got[i, j] == pytest.approx(exact, abs=1e-6)


def test_chow_liu_keeps_the_most_information_of_all_trees():
    values = np.random.default_rng(1).integers(0, 2, (200, 5))
    values[:, 1:] |= values[:, :-1]
    weight = mutual_information(values, bins=2)

    def joined(edges):
        group = list(range(5))
        for a, b in edges:
            group = [group[a] if g == group[b] else g for g in group]
        return len(set(group)) == 1

    edges = list(itertools.combinations(range(5), 2))
    best = max(sum(weight[e] for e in chosen) for chosen in itertools.combinations(edges, 4) if joined(chosen))
    parent = chow_liu(values, bins=2)
    assert sum(weight[i, p] for i, p in enumerate(parent) if p >= 0) == pytest.approx(best)


def test_the_root_stands_in_the_middle_of_a_chain():
    rng = np.random.default_rng(0)
    steps = [rng.integers(0, 2, 4000)]
    for _ in range(8):
        steps.append(steps[-1] ^ (rng.random(4000) < 0.1))
    parent = chow_liu(np.stack(steps, 1), bins=2)
    assert parent.tolist() == [1, 2, 3, 4, -1, 4, 5, 6, 7]


def test_blocks_of_an_odd_lattice_reach_one_root():
    parent, carriers = block_tree((28, 28))
    assert (len(parent), len(carriers)) == (14 * 14 + 7 * 7 + 4 * 4 + 2 * 2 + 1, 784)
    assert (parent[1:] < np.arange(1, len(parent))).all()
    assert np.bincount(carriers)[-196:].tolist() == [4] * 196
    assert len(latent_tree(parent, 4, carriers=carriers).layers) == 5


def test_uncertain_pixels_get_more_states():
    rng = np.random.default_rng(0)
    values = (rng.random((4000, 3)) < np.array([0.5, 0.02, 0.0])) * 9
    # Entropies 0.69, 0.098 and 0 nats.
    assert states_by_entropy(values, 40).tolist() == [40, 10, 2]
    assert states_by_entropy(values, 3).tolist() == [3, 3, 2]
    with pytest.raises(RecipeError, match="must be >= 2"):
        states_by_entropy(values, 1)


def test_a_latent_tree_refuses_a_circle():
    with pytest.raises(RecipeError, match="circle"):
        latent_tree(np.array([-1, 2, 1]), 2)


# Fitting


def test_a_batch_counts_what_the_law_expects():
    values = noisy_copies(50)
    tree = latent_tree(np.array([1, -1, 1, 1, 3, 4]), np.array([2, 3, 2, 3, 3, 2]), greys=8)
    law = fit_hidden_tree(values, tree, shape=(2, 3), epochs=2, batch=10)
    seen, got = _expect(law, values)
    exact = law.expected_counts(law.observe(torch.from_numpy(values)))
    for index, (layer, counts) in enumerate(zip(tree.layers, exact.tables, strict=True)):
        mine = seen.sums(index)
        torch.testing.assert_close(mine.transpose(1, 2) if layer.leaf else mine, counts)
    assert got == pytest.approx(bits(law, values))


def test_shades_never_lower_the_likelihood_of_their_counts():
    values = noisy_copies(500)
    tree = latent_tree(np.array([1, -1, 1, 1, 3, 4]), 4, greys=8)
    law = fit_hidden_tree(values, tree, shape=(2, 3), epochs=1, batch=100)
    seen, _ = _expect(law, values)
    shades = _Shades(tree, values, 4)
    leaf = shades.layers

    def score():
        return sum(float((seen.sums(i) * shades.base(i).log()).sum()) for i in leaf)

    scores = []
    for _ in range(12):
        shades.step(replace(seen, images=1.0))
        scores.append(score())
    # The pseudo-counts of the mixtures cost a little of the likelihood where it is flat.
    assert all(b > a - 0.02 * abs(a) for a, b in itertools.pairwise(scores))
    assert scores[-1] > scores[0]


def test_the_fit_finds_the_hidden_bits():
    values, held = noisy_copies(4000), noisy_copies(1000, seed=1)
    tree = latent_tree(chow_liu(values), 4, greys=8)
    told = []
    prior = HiddenPrior(grey=5.0, shades=4)
    law = fit_hidden_tree(
        values, tree, shape=(2, 3), epochs=3, batch=250, prior=prior, progress=lambda *k: told.append(k)
    )
    # Entropy of 6 pixels: by enumeration of flips, 2 bits of grey in each bright one and 1 bit in each dark one.
    p = [0.5 * sum(0.05**f * 0.95 ** (3 - f) for f in (k.bit_count(), 3 - k.bit_count())) for k in range(8)]
    exact = (2 * -sum(q * math.log2(q) for q in p) + 6 * 0.5 * (2 + 1)) / 6
    assert exact < bits(law, held) < exact + 0.02
    assert [k[:2] for k in told] == [(k + 1, 48) for k in range(48)]
    independent = latent_tree(chow_liu(values), 1, greys=8)
    assert bits(fit_hidden_tree(values, independent, shape=(2, 3), prior=prior), held) > exact + 0.2


def test_a_fit_can_be_repeated():
    values = noisy_copies(300)
    tree = latent_tree(chow_liu(values), 3, greys=8)
    one, two, other = (fit_hidden_tree(values, tree, shape=(2, 3), batch=100, seed=seed) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(one.tables, two.tables, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(one.tables, other.tables, strict=True))


def test_blocks_can_be_fitted():
    values = np.kron(np.random.default_rng(0).integers(0, 2, (400, 2, 2)), np.ones((2, 2), np.int64)).reshape(400, 16)
    parent, carriers = block_tree((4, 4))
    tree = latent_tree(parent, 2, carriers=carriers, greys=2)
    # Six passes: from every start, which differs between machines, it has come there.
    law = fit_hidden_tree(values, tree, shape=(4, 4), prior=HiddenPrior(grey=1.0), batch=100, epochs=6)
    assert bits(law, values) == pytest.approx(4 / 16, abs=0.02)


def test_clusters_of_two_clear_groups():
    windows = torch.cat([torch.zeros(1, 20, 9), torch.ones(1, 30, 9)], 1)
    label = _nearest(windows, 2, torch.Generator().manual_seed(0))[0]
    assert (label[:20] == 0).all()
    assert (label[20:] == 1).all()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"grey": 0.0}, "grey and step must be > 0"),
        ({"shades": 2}, "shades must be >= 3"),
        ({"fade": 0.5}, "fade must be in"),
        ({"floor": 0.0}, "floor in"),
    ],
)
def test_a_prior_refuses_what_makes_no_law(values, message):
    with pytest.raises(RecipeError, match=message):
        HiddenPrior(**values)


def test_a_fit_refuses_images_of_another_shape():
    tree = latent_tree(np.array([-1, 0]), 2, greys=4)
    with pytest.raises(DataError, match=r"2 \* 2 pixels, one for each of the 2 leaves, got \(5, 4\)"):
        fit_hidden_tree(np.zeros((5, 4), np.int64), tree, shape=(2, 2))
    with pytest.raises(DataError, match=r"grey values must be in 0\.\.3, got 4"):
        fit_hidden_tree(np.full((5, 2), 4), tree, shape=(1, 2))
    with pytest.raises(DataError, match="at least one image"):
        mutual_information(np.zeros((0, 4), np.int64))


def test_digits_cost_fewer_bits_with_hidden_tokens():
    if not store.find("mnist"):
        pytest.skip("needs real data: set RENORM_DATA")
    values = load(DataSpec("mnist", limit=1200)).values.reshape(1200, 784).numpy()
    tree = latent_tree(chow_liu(values), states_by_entropy(values, 8))
    law = fit_hidden_tree(values[:1000], tree, shape=(28, 28), batch=250, prior=HiddenPrior(grey=1000.0))
    assert bits(law, values[1000:].astype(np.int64)) < 1.5


# Channels


def test_channels_of_a_site_hang_under_one_block():
    parent, carriers = block_tree((3, 4), channels=2)
    alone = block_tree((3, 4))
    assert parent.tolist() == alone[0].tolist()
    assert carriers.reshape(2, -1).tolist() == [alone[1].tolist()] * 2


def test_a_latent_sees_neighbours_in_its_channel_and_the_other_channels_of_its_site():
    tree = latent_tree(chow_liu(np.random.default_rng(0).integers(0, 2, (50, 24)), bins=2), 2, greys=2)
    place, own = _centres(tree, (2, 3, 4))
    latent = tree.parent[tree.leaves]  # of each pixel, channel by channel
    assert place[latent].tolist() == [[r, c] for _ in range(2) for r in range(3) for c in range(4)]
    assert own[latent].tolist() == [[True, False]] * 12 + [[False, True]] * 12
    parent, carriers = block_tree((3, 4), channels=2)
    assert _centres(latent_tree(parent, 2, carriers=carriers, greys=2), (2, 3, 4))[1].all()


def test_states_begin_as_clusters_of_what_a_latent_sees():
    """What another channel shows at other sites changes nothing; what it shows at the site does."""
    tree = latent_tree(np.array([-1, *range(17)]), 2, greys=2)
    generator = np.random.default_rng(0)
    x = np.zeros((200, 2, 3, 3), np.int64)
    x[:, 1] = generator.integers(0, 2, (200, 1, 1))
    x[:, 1, 1, 1] = bit = generator.integers(0, 2, 200)
    states = _surroundings(x.reshape(200, 18), tree, (2, 3, 3), torch.Generator().manual_seed(0))
    middle = states[:, tree.parent[tree.leaves[4]]]  # of channel 0, which is black: it sees but the bit
    assert len(set(zip(middle.tolist(), bit.tolist(), strict=True))) == 2


@pytest.mark.parametrize(("structure", "most"), [("chow-liu", 12), ("blocks", 5)])
def test_channels_that_agree_cost_little_more_than_one(structure, most):
    """Four bits an image; three channels in a column would cost 20 bits and 13."""
    generator = np.random.default_rng(0)
    x = np.kron(generator.integers(0, 2, (600, 1, 2, 2)), np.ones((2, 2), np.int64))
    book = ValueCodebook((3, 4, 4), bins=2)
    model = HiddenTree(states=2, structure=structure, grey=1.0, batch=100, epochs=3.0)
    law = model.fit(book, np.tile(x, (1, 3, 1, 1)).reshape(600, 48), np.zeros(600, np.int64), 1, None, seed=0).law()
    assert 4 < bits(law, np.tile(x, (1, 3, 1, 1)).reshape(600, 48)) * 48 < most


def test_one_channel_is_as_without():
    values = noisy_copies(200)
    tree = latent_tree(chow_liu(values), 3, greys=8)
    one, other = (fit_hidden_tree(values, tree, shape=shape, batch=100) for shape in ((2, 3), (1, 2, 3)))
    assert all(torch.equal(a, b) for a, b in zip(one.tables, other.tables, strict=True))
