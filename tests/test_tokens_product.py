"""Products of token hierarchies: posteriors by hand, counting on, merging, all members or none."""

import copy

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from renorm.errors import DataError
from renorm.tokens.product import TokenProduct
from renorm.tokens.spec import HiddenTreeSpec, HierarchySpec, PyramidSpec, StyleSpec, ValueSpec, WindowSpec
from renorm.tokens.token_hierarchy import TokenHierarchy

X, Y = load_digits(return_X_y=True)
DIGITS = {"value_range": (0.0, 16.0)}
VALUES, WINDOWS = ValueSpec(bins=17), WindowSpec(window=4, stride=1, tokens=32, components=0)
NAIVE, STYLES = PyramidSpec(levels=0, concentration=0.5, backoff=5.0), StyleSpec(styles=2)


def same_counts(a, b):
    n, m = a.family_.counts, b.family_.counts
    return n.root == m.root and all(one == other for one, other in zip(n.layers, m.layers, strict=True))


def product(**more):
    members = (HierarchySpec(WINDOWS, STYLES, temper=0.2), HierarchySpec(VALUES, NAIVE, temper=0.5, seed=3))
    return TokenProduct(members, **DIGITS, **more).fit(X[:400], Y[:400])


def test_a_product_adds_what_its_members_say():
    model = product()
    x = torch.from_numpy(X[400:440].reshape(40, 1, 8, 8).astype(np.float32))
    by_hand = np.log(np.bincount(Y[:400]) + 0.5) - np.log(405)
    for temper, member in zip((0.2, 0.5), model.members_, strict=True):
        given = [member.log_prob(x, condition=torch.full((40,), c)) for c in range(10)]
        by_hand = by_hand + temper * torch.stack(given, dim=1).numpy()
    posterior = np.exp(by_hand - by_hand.max(1, keepdims=True))
    posterior /= posterior.sum(1, keepdims=True)
    assert np.allclose(model.predict_log_joint(X[400:440]), by_hand, atol=1e-4)
    assert np.allclose(model.predict_proba(X[400:440]), posterior, atol=1e-5)
    assert (model.predict(X[400:440]) == by_hand.argmax(1)).all()


def test_a_product_of_one_is_its_member():
    spec = HierarchySpec(WINDOWS, STYLES, temper=0.2)
    alone = TokenHierarchy.of(spec, **DIGITS).fit(X[:300], Y[:300])
    model = TokenProduct((spec,), **DIGITS).fit(X[:300], Y[:300])
    assert np.allclose(model.predict_log_joint(X), alone.predict_log_joint(X), atol=1e-9)
    assert np.array_equal(model.score_samples(X), alone.score_samples(X))


def test_a_product_counts_on_and_merges():
    members = (HierarchySpec(VALUES, NAIVE), HierarchySpec(ValueSpec(bins=5), NAIVE))
    whole = TokenProduct(members, **DIGITS).fit(X[:300], Y[:300])
    halves = [TokenProduct(members, **DIGITS).fit(X[part], Y[part]) for part in (slice(150), slice(150, 300))]
    on = TokenProduct(members, **DIGITS).partial_fit(X[:150], Y[:150]).partial_fit(X[150:300], Y[150:300])
    merged = halves[0].merge(halves[1])
    for model in (on, merged):
        assert all(same_counts(a, b) for a, b in zip(model.members_, whole.members_, strict=True))


def test_all_members_count_a_batch_or_none_does():
    model = product()
    said = model.predict_log_joint(X[:50])
    with pytest.raises(DataError, match="values must lie between"):  # windows could have counted them
        model.partial_fit(X[400:500] * 3, Y[400:500])
    assert [member.family_.counts.root.total for member in model.members_] == [400, 400]
    assert np.array_equal(model.predict_log_joint(X[:50]), said)


def test_products_that_differ_do_not_merge():
    one, other = product(), product(seed=1)
    before = one.members_[1].family_.counts.root.total
    with pytest.raises(DataError, match="only counts over the same"):
        one.merge(other)
    assert one.members_[1].family_.counts.root.total == before
    with pytest.raises(DataError, match="only equal products add up, got 2 and 1 members"):
        one.merge(TokenProduct((HierarchySpec(VALUES, NAIVE),), **DIGITS).fit(X[:100], Y[:100]))


def test_a_product_needs_members():
    with pytest.raises(ValueError, match="members must be >= 1"):
        TokenProduct(()).fit(X, Y)


def test_a_failing_partial_fit_leaves_hidden_trees_too():
    tree = HierarchySpec(ValueSpec(), HiddenTreeSpec(states=4, epochs=1.0))
    rows = np.rint(X * 255 / 16).astype(np.uint8)
    model = TokenProduct((tree, HierarchySpec(WindowSpec(window=4, stride=1, tokens=16, components=0), STYLES)))
    model.fit(rows[:300], Y[:300])
    before = model.predict_log_joint(rows[:20]), model.score_samples(rows[:20])
    with pytest.raises(DataError, match="sample_weight"):
        model.partial_fit(rows[:50], Y[:50], sample_weight=np.full(50, -1.0))
    second = model.members_[1]
    second.partial_fit = lambda *_: (_ for _ in ()).throw(RuntimeError("halfway"))
    with pytest.raises(RuntimeError):
        model.partial_fit(rows[:50], Y[:50])
    del second.__dict__["partial_fit"]
    assert np.array_equal(model.predict_log_joint(rows[:20]), before[0])
    assert np.array_equal(model.score_samples(rows[:20]), before[1])


def test_products_with_a_hidden_tree_do_not_merge():
    tree = HierarchySpec(ValueSpec(), HiddenTreeSpec(states=4, epochs=1.0))
    rows = np.rint(X * 255 / 16).astype(np.uint8)
    model = TokenProduct((HierarchySpec(VALUES, NAIVE), tree)).fit(rows[:200], Y[:200])
    before = model.predict_log_joint(rows[:20])
    with pytest.raises(DataError, match="hidden tree cannot merge"):
        model.merge(copy.deepcopy(model))
    assert np.array_equal(model.predict_log_joint(rows[:20]), before)


def test_a_failing_member_leaves_the_counts_of_the_others():
    model = TokenProduct((HierarchySpec(WINDOWS, STYLES), HierarchySpec(ValueSpec(bins=256), NAIVE)), **DIGITS)
    model.fit(X[:300], Y[:300])
    bad = X[300:305].copy()
    bad[0, 0] = 20.0  # windows take it, grey values do not
    before = model.members_[0].family_.counts
    with pytest.raises(DataError, match="value_range"):
        model.partial_fit(bad, Y[300:305])
    assert model.members_[0].family_.counts is before
    model.partial_fit(X[300:305], Y[300:305])
    assert model.members_[0].family_.counts.root.dense().sum() == 305
