"""Why a hierarchy says what it says: numbers by hand, sums that must come out, evidence painted where it is."""

import itertools
import math

import numpy as np
import pytest
import torch

from renorm.errors import DataError
from renorm.tokens.codebooks.values import ValueCodebook
from renorm.tokens.codebooks.windows import WindowCodebook
from renorm.tokens.explain import evidence_map, given_class, speaks_for, token_pictures, token_windows, tokens_in_place
from renorm.tokens.spec import PyramidSpec, StyleSpec, ValueSpec, WindowSpec
from renorm.tokens.token_hierarchy import TokenHierarchy
from renorm.tokens.trees.tree import Tree, TreeLaw

X = np.array([[[0, 1]], [[0, 0]], [[1, 1]], [[1, 0]]], np.float32)
Y = np.array([0, 0, 1, 1])


def independent(x=X, y=Y, temper=1.0):
    """Tokens independent given the class: (2 + 1) / (2 + 2) dark at the first site of class 0, by one count of each."""
    return TokenHierarchy(ValueSpec(bins=2), PyramidSpec(levels=0), temper=temper).fit(x, y)


def with_styles(seed=0, styles=3, shape=(2, 3)):
    rng = np.random.default_rng(seed)
    x = rng.integers(3, size=(60, *shape)).astype(np.float32) / 2
    law = StyleSpec(styles=styles, share=0.0, strength=2.0)
    return TokenHierarchy(ValueSpec(bins=3), law).fit(x, rng.integers(3, size=60)), x


def with_blocks(share="none"):
    x = np.random.default_rng(5).integers(2, size=(50, 2, 4)).astype(np.float32)
    law = PyramidSpec(levels=2, parents=(3,), share=share)
    return TokenHierarchy(ValueSpec(bins=2), law).fit(x, x[:, 0, 0].astype(int)), x


def odds_against_the_mean(log_joint, label):
    return log_joint[label] - np.delete(log_joint, label).mean()


# ------------------------------------------------------------------------------------------------------------- classes


def test_the_law_of_a_leaf_is_the_product_of_the_tables_above_it():
    tree = Tree(np.array([-1, 0, 1, 0]), np.array([2, 3, 2, 2]), leaves=np.array([2, 3]))
    above = torch.tensor([[[0.5, 0.5, 0.0], [0.0, 0.25, 0.75]]])
    below = torch.tensor([[[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]])
    beside = torch.tensor([[[0.2, 0.8], [0.6, 0.4]]])
    stacks = {(2, 3): above, (3, 2): below, (2, 2): beside}
    law = TreeLaw(tree, torch.tensor([0.5, 0.5]), [stacks[layer.shape] for layer in tree.layers])
    given = given_class(law)
    assert given[0].tolist() == [[1, 0], [0, 1]]
    assert given[2].tolist() == [[0.75, 0.25], [0.125, 0.875]]
    assert given[3].numpy() == pytest.approx(np.array([[0.2, 0.8], [0.6, 0.4]]))


@pytest.mark.parametrize("share", ["none", "all"])
def test_the_class_tables_are_the_marginals_of_nothing_seen(share):
    law = with_blocks(share)[0].law_
    clamped = torch.full((2, len(law.tree)), -1)
    clamped[:, 0] = torch.arange(2)
    for given, marginal in zip(given_class(law), law.marginals(clamped), strict=True):
        assert given.numpy() == pytest.approx(marginal.numpy(), abs=1e-6)


def test_log_odds_by_hand():
    """First site: 3/4 against 1/2. The second site says nothing: 1/2 against 1/2."""
    found = speaks_for(independent(), most=3)
    assert found.log_odds[0] == pytest.approx(np.log([[1.5, 0.5], [0.5, 1.5]]))
    assert found.log_odds[1] == pytest.approx(np.zeros((2, 2)), abs=1e-7)
    assert (found.positions[:, 0].tolist(), found.tokens[:, 0].tolist()) == ([0, 0], [0, 1])
    assert found.nats[:, 0] == pytest.approx(2 * [0.5 * 0.75 * math.log(1.5)])
    assert found.nats[:, 1:] == pytest.approx(np.zeros((2, 2)), abs=1e-7)


def test_what_tokens_say_adds_up_to_mutual_information():
    model, _ = with_styles()
    found = speaks_for(model, most=10**6)
    prior = model.law_.root.double().numpy()
    for position, node in enumerate(model.law_.tree.leaves):
        joint = prior[:, None] * given_class(model.law_)[node].numpy()
        entropies = [-(p * np.log(p)).sum() for p in (joint.sum(0), joint.sum(1), joint)]
        said = found.nats[found.positions == position].sum()
        assert said == pytest.approx(entropies[0] + entropies[1] - entropies[2], abs=1e-6)
    assert found.nats.shape == (3, 6 * 3)
    assert (np.diff(found.nats, axis=1) <= 0).all()


def test_a_token_that_cannot_be_says_nothing():
    model = TokenHierarchy(ValueSpec(bins=4), PyramidSpec(levels=0, concentration=0.0)).fit(X[:, :, :1], Y)
    (odds,) = speaks_for(model).log_odds
    assert odds[:, 1:3].tolist() == [[0, 0], [0, 0]]
    assert odds[0, 3] == -math.inf
    assert np.isfinite(speaks_for(model).nats).all()


# ------------------------------------------------------------------------------------------------------------ evidence


def test_independent_tokens_are_all_the_evidence():
    """Dark first site: ln 3 for class 0 against class 1. The second site says nothing; nor does the prior."""
    found = evidence_map(independent(), X[0])
    assert found.label == 0
    assert found.positions == pytest.approx([math.log(3), 0], abs=1e-6)
    assert (found.prior, found.rest) == pytest.approx((0, 0), abs=1e-6)
    assert found.sites == pytest.approx(np.array([[math.log(3), 0]]), abs=1e-6)
    assert found.image.tolist() == X[:1].tolist()
    assert evidence_map(independent(), X[0], 1).positions == pytest.approx([-math.log(3), 0], abs=1e-6)


def test_the_temper_weighs_the_tokens_and_not_the_prior():
    x, y = np.concatenate([X, X[:2]]), np.concatenate([Y, Y[:2]])
    cold, plain = evidence_map(independent(x, y, temper=0.5), X[0]), evidence_map(independent(x, y), X[0])
    assert cold.positions == pytest.approx(plain.positions / 2)
    assert cold.prior == plain.prior != 0


@pytest.mark.parametrize("label", [0, 1, 2, None])
def test_evidence_adds_up_to_the_log_odds(label):
    model, x = with_styles()
    joint = model.predict_log_joint(x[:5])
    for image, log_joint in zip(x[:5], joint, strict=True):
        found = evidence_map(model, image, label)
        chosen = log_joint.argmax() if label is None else label
        total = odds_against_the_mean(log_joint, chosen)
        assert found.prior + found.positions.sum() + found.rest == pytest.approx(total, abs=1e-5)
        assert found.sites.sum() == pytest.approx(found.positions.sum() + found.rest, abs=1e-5)


def test_the_rest_is_what_the_styles_cost():
    """KL(q || p(s | c)), by enumerating the styles."""
    model, x = with_styles()
    style, leaves = (table.double() for table in model.law_.tables)
    tokens = torch.from_numpy(model.transform(x[:1]))[0]
    cost, foretold = np.zeros(3), np.zeros((3, 6))
    for c in range(3):
        p = style[0, c]
        each = torch.stack([leaves[i, :, token].log() for i, token in enumerate(tokens)])
        q = (p * each.sum(0).exp()) / (p * each.sum(0).exp()).sum()
        cost[c] = torch.special.xlogy(q, q / torch.where(q > 0, p, 1)).sum()
        foretold[c] = (each * q).sum(1)
    found = evidence_map(model, x[0], 1)
    weight = np.array([-0.5, 1.0, -0.5])
    assert found.positions == pytest.approx(weight @ foretold, abs=1e-5)
    assert found.rest == pytest.approx(-weight @ cost, abs=1e-5)


def test_evidence_of_a_deep_tree_by_enumeration():
    model, x = with_blocks()
    law, tree = model.law_, model.law_.tree
    inner = [node for node in range(1, len(tree)) if node not in tree.leaves]
    tokens = torch.from_numpy(model.transform(x[:1]))
    states = torch.tensor(list(itertools.product([0, 1], *[range(tree.states[node]) for node in inner])))
    full = law.observe(tokens.repeat(len(states), 1))
    full[:, [0, *inner]] = states
    p = law.log_prob(full).double().exp()
    expected = np.zeros((2, len(tree.leaves)))
    for layer, stack in zip(tree.layers, law.tables, strict=True):
        for node, parent, table in zip(layer.nodes, layer.parents, layer.table, strict=True):
            if node in tree.leaves:
                each = stack[table][full[:, parent], full[:, node]].double().log()
                for c in (0, 1):
                    q = p * (full[:, 0] == c)
                    expected[c, list(tree.leaves).index(node)] = (q * each).sum() / q.sum()
    found = evidence_map(model, x[0], 1)
    assert found.positions == pytest.approx(expected[1] - expected[0], abs=1e-5)
    assert abs(found.rest) > 0.1
    assert found.sites.sum() == pytest.approx(found.positions.sum() + found.rest, abs=1e-5)


def test_the_cost_of_a_hidden_token_lies_on_the_sites_under_it():
    """A hidden token stands above each half, so each half says what it would say alone."""
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=40)
    x = rng.integers(2, size=(40, 1, 4)).astype(np.float32)
    x[:, 0, :2] = y[:, None]
    model = TokenHierarchy(ValueSpec(bins=2), PyramidSpec(levels=1, parents=(3,))).fit(x, y)
    sites = evidence_map(model, x[0], 1).sites[0]
    tokens, law = torch.from_numpy(model.transform(x[:1])), model.law_
    for seen in (slice(0, 2), slice(2, 4)):
        alone = torch.full_like(tokens, -1)
        alone[:, seen] = tokens[:, seen]
        joint = (law.root_log_prob(law.observe(alone))[0] - law.root.log()).double()
        assert sites[seen].sum() == pytest.approx(float(joint[1] - joint[0]), abs=1e-5)


def test_evidence_of_a_window_is_spread_over_its_sites():
    rng = np.random.default_rng(0)
    x = rng.random((40, 5, 5)).astype(np.float32)
    book = WindowSpec(window=3, stride=2, tokens=4, components=0)
    model = TokenHierarchy(book, StyleSpec(styles=1)).fit(x, rng.integers(2, size=40))
    found = evidence_map(model, x[0])
    assert found.rest == pytest.approx(0, abs=1e-5)
    tent = np.array([1, 2, 1]) / 4
    first, second, third, last = found.positions
    assert found.sites[:2, :2] == pytest.approx(first * np.outer(tent, tent)[:2, :2])
    assert found.sites[3:, 3:] == pytest.approx(last * np.outer(tent, tent)[1:, 1:])
    assert found.sites[2, 2] == pytest.approx(found.positions.sum() / 16)
    assert found.sites[1, 2] == pytest.approx((first + second) / 8)
    assert found.sites[2, 1] == pytest.approx((first + third) / 8)


@pytest.mark.parametrize(("labels", "asked"), [(None, None), (Y, 2), (Y, -1)])
def test_evidence_needs_a_class_and_another(labels, asked):
    model = TokenHierarchy(ValueSpec(bins=2), PyramidSpec(levels=0)).fit(X, labels)
    with pytest.raises(DataError, match="evidence needs a class 0"):
        evidence_map(model, X[0], asked)


def test_infinite_log_odds_are_refused():
    model = TokenHierarchy(ValueSpec(bins=2), PyramidSpec(levels=0, concentration=0.0)).fit(X, Y)
    with pytest.raises(DataError, match="probability > 0"):
        evidence_map(model, X[0])


# ------------------------------------------------------------------------------------------------------------ pictures


def test_windows_are_where_the_codebook_cuts():
    book = WindowCodebook(shape=(1, 7, 5), window=3, stride=2, tokens=4)
    assert token_windows(book, book.shape).tolist() == [
        [top, top + 3, left, left + 3] for top in (0, 2, 4) for left in (0, 2)
    ]
    colours = ValueCodebook((2, 1, 2), bins=4)
    assert token_windows(colours, colours.shape).tolist() == [[0, 1, 0, 1], [0, 1, 1, 2]] * 2


def test_a_codebook_that_moves_sites_shows_its_windows_by_decoding():
    x = np.random.default_rng(0).random((40, 1, 6, 6)).astype(np.float32)
    book = WindowCodebook(shape=(1, 6, 6), window=4, stride=2, tokens=6, components=0, straighten=True).fit(x, seed=0)
    assert token_windows(book, book.shape).tolist() == [[t, t + 4, s, s + 4] for t in (0, 2) for s in (0, 2)]


def test_pictures_of_tokens_are_their_mean_windows_the_most_used_first():
    rng = np.random.default_rng(1)
    x = rng.random((60, 5, 5)).astype(np.float32)
    book = WindowSpec(window=3, stride=2, tokens=5, components=0)
    model = TokenHierarchy(book, StyleSpec(styles=1, share=0.0, strength=0.01, backoff=0.01)).fit(x, np.zeros(60, int))
    found = token_pictures(model, 1, most=3)
    seen = np.bincount(model.transform(x).ravel(), minlength=5) / 60
    assert found.uses == pytest.approx(np.sort(seen)[:-4:-1], abs=0.02)
    assert found.tokens.tolist() == np.argsort(-seen)[:3].tolist()
    looks = model.codebook_.pictures_[found.tokens].reshape(3, 1, 3, 3)
    assert found.pictures == pytest.approx(looks, abs=1e-6)
    placed = tokens_in_place(model, found.positions, found.tokens)
    assert np.isfinite(placed).sum(axis=(1, 2, 3)).tolist() == [9, 9, 9]
    (first, *_), (top, _, left, _) = placed, token_windows(model.codebook_, (1, 5, 5))[found.positions[0]]
    assert first[:, top : top + 3, left : left + 3] == pytest.approx(looks[0], abs=1e-6)


def test_pictures_above_are_the_mean_of_what_lies_below():
    x = np.repeat(np.array([[[0, 0, 1, 1]], [[1, 1, 0, 0]]], np.float32), 50, axis=0)
    model = TokenHierarchy(ValueSpec(bins=2), PyramidSpec(levels=1, concentration=0.0)).fit(x, None)
    found = token_pictures(model, 2)
    assert found.pictures.shape[1:] == (1, 1, 2)
    assert set(map(tuple, found.pictures.reshape(-1, 2).tolist())) == {(0.0, 0.0), (1.0, 1.0)}
    assert found.uses.sum() == pytest.approx(2)


def test_there_are_no_pictures_of_other_levels():
    for level in (0, 2):
        with pytest.raises(DataError, match=rf"levels 1 \.\.\. 1, got level {level}"):
            token_pictures(independent(), level)
