"""``TokenHierarchy`` and ``TokenProduct`` as estimators: scikit-learn's own checks, learning by counting, exactness."""

import copy

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks

from renorm.errors import DataError, RecipeError
from renorm.testing import check_model
from renorm.tokens.product import TokenProduct
from renorm.tokens.spec import HiddenTreeSpec, HierarchySpec, PyramidSpec, StyleSpec, ValueSpec, WindowSpec
from renorm.tokens.token_hierarchy import TokenHierarchy
from renorm.tokens.trees.tree_counts import TreeCounts

X, Y = load_digits(return_X_y=True)
DIGITS = {"value_range": (0.0, 16.0)}
VALUES, WINDOWS = ValueSpec(bins=17), WindowSpec(window=4, stride=1, tokens=32, components=0)
NAIVE = PyramidSpec(levels=0, concentration=0.5, backoff=5.0)
BLOCKS = PyramidSpec(levels=2, parents=(24,), share="places")
STYLES = StyleSpec(styles=2)


def learned(codebook=VALUES, law=NAIVE, number=400, **more):
    return TokenHierarchy(codebook, law, **DIGITS, **more).fit(X[:number], Y[:number])


def same_counts(a, b):
    n, m = a.family_.counts, b.family_.counts
    return n.root == m.root and all(one == other for one, other in zip(n.layers, m.layers, strict=True))


# scikit-learn's checks, on rows of numbers

TABLE = {"value_range": (-128.0, 128.0)}
GREY = ValueSpec(bins=1024)
ALONE = StyleSpec(styles=2, share=0.0)
REASONS = {
    "check_classifiers_classes": "one case has the labels -1 and 1; -1 says here that a class is unknown",
    "check_do_not_raise_errors_in_init_or_set_params": "the types of arguments are checked, but only under these tests",
}
SPECS = {"check_parameters_default_constructible": "defaults are frozen specs, which cannot change as lists could"}
STARTS = {"check_sample_weight_equivalence_on_dense_data": "styles start from images drawn by their place in the data"}
ROUNDING = {
    "check_sample_weight_equivalence_on_dense_data": "states are numbered as they come, and sums run in float32",
    "check_methods_subset_invariance": "sums over hidden parents run in float32: 1e-7 from batch to batch",
    "check_methods_sample_order_invariance": "sums over hidden parents run in float32: 1e-7 from batch to batch",
}


def expected_failures(estimator):
    laws = {type(m.law) for m in (estimator.members if isinstance(estimator, TokenProduct) else [estimator])}
    alone = isinstance(estimator, TokenHierarchy)
    blocks = alone and getattr(estimator.law, "levels", 0) > 0
    return REASONS | (SPECS if alone else {}) | (STARTS if StyleSpec in laws else {}) | (ROUNDING if blocks else {})


@parametrize_with_checks(
    [
        TokenHierarchy(GREY, NAIVE, **TABLE),
        TokenHierarchy(GREY, ALONE, **TABLE),
        TokenHierarchy(GREY, PyramidSpec(levels=1, backoff=5.0), **TABLE),
        TokenProduct((HierarchySpec(GREY, NAIVE), HierarchySpec(ValueSpec(bins=256), NAIVE)), **TABLE),
        TokenProduct((HierarchySpec(GREY, NAIVE), HierarchySpec(GREY, ALONE)), **TABLE),
    ],
    expected_failed_checks=expected_failures,
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def test_grid_search_over_whole_laws_in_a_pipeline():
    pipe = make_pipeline(FunctionTransformer(), TokenHierarchy(WINDOWS, NAIVE, **DIGITS))
    grid = {
        "tokenhierarchy__law": [NAIVE, StyleSpec(styles=3), StyleSpec(styles=1, share=0.0)],
        "tokenhierarchy__temper": [1.0, 0.1],
    }
    search = GridSearchCV(pipe, grid, cv=2, scoring="neg_log_loss").fit(X[:400], Y[:400])
    assert search.best_params_["tokenhierarchy__temper"] == 0.1  # tokens of windows that overlap repeat each other
    assert search.best_estimator_.score(X[400:800], Y[400:800]) > 0.75
    assert len(set(np.round(search.cv_results_["mean_test_score"], 6))) == 6


def test_tokens_feed_another_estimator():
    from sklearn.naive_bayes import CategoricalNB

    tokens = TokenHierarchy(WINDOWS, NAIVE, **DIGITS)
    pipe = make_pipeline(tokens, CategoricalNB(min_categories=32)).fit(X[:600], Y[:600])
    assert pipe.score(X[600:900], Y[600:900]) > 0.8
    names = pipe[0].get_feature_names_out()
    assert (len(names), names[3]) == (25, "tokenhierarchy3")


def test_clone_and_parameters():
    model = TokenHierarchy(WINDOWS, STYLES, temper=0.3, shape=(8, 8), seed=4)
    twin = clone(model)
    assert twin.get_params() == model.get_params()
    assert twin.spec == HierarchySpec(WINDOWS, STYLES, 0.3, 4)


@pytest.mark.parametrize("estimator", [TokenHierarchy(), TokenProduct()])
@pytest.mark.parametrize("method", ["predict", "predict_proba", "score_samples", "transform", "inverse_transform"])
def test_not_fitted(estimator, method):
    with pytest.raises(NotFittedError):
        getattr(estimator, method)(X)


def test_what_fails_halfway_is_not_fitted():
    model = learned(WINDOWS)
    with pytest.raises(DataError):
        model.fit(X[:9] * 0.0, Y[:9])
    with pytest.raises(NotFittedError):
        model.predict(X)


# labels and weights


@pytest.mark.parametrize("labels", [np.array(["zero", "one", "two"]), np.array([7, 1, 5], np.uint8), [0.0, 1.0, 7.0]])
def test_labels_of_any_kind_come_back(labels, tmp_path):
    kept = Y < 3
    y = np.asarray(labels)[Y[kept]]
    model = TokenHierarchy(VALUES, NAIVE, **DIGITS).fit(X[kept], y)
    assert model.classes_.tolist() == sorted(set(y.tolist()))
    assert model.score(X[kept], y) > 0.9
    model.save(tmp_path)
    again = TokenHierarchy.load(tmp_path)
    assert again.classes_.dtype == model.classes_.dtype
    assert (again.predict(X[kept]) == model.predict(X[kept])).all()


@pytest.mark.parametrize("soft", [False, True])
def test_unknown_labels_in_any_writing(soft):
    hidden = np.arange(400) % 4 == 0
    missing = [np.where(hidden, -1, Y[:400]), np.where(hidden, np.nan, Y[:400].astype(float)), Y[:400].astype(object)]
    missing[2][hidden] = None
    law = StyleSpec(styles=2, soft=soft)
    first, *others = (TokenHierarchy(WINDOWS, law, **DIGITS).fit(X[:400], y) for y in missing)
    assert first.classes_.tolist() == list(range(10))
    assert first.family_.counts.root.total == 400
    assert all(same_counts(first, other) for other in others)
    assert first.score(X[:400][hidden], Y[:400][hidden]) > 0.85


def test_without_labels_there_is_one_class():
    model = TokenHierarchy(VALUES, NAIVE, **DIGITS).fit(X[:100])
    assert model.classes_.tolist() == [0]
    assert (model.predict(X[:9]) == 0).all()
    assert np.allclose(model.predict_proba(X[:9]), 1)


def test_labels_must_be_finite():
    with pytest.raises(DataError, match="labels must be finite"):
        TokenHierarchy(VALUES, NAIVE, **DIGITS).fit(X[:2], [0.0, np.inf])


def test_no_label_known_is_refused():
    with pytest.raises(DataError, match=r"at least one label must be known.*leave y away"):
        TokenHierarchy(VALUES, NAIVE, **DIGITS).fit(X[:9], np.full(9, -1))


@pytest.mark.parametrize("law", [NAIVE, PyramidSpec(levels=1)])
def test_weight_two_is_twice_the_image(law):
    twice = np.concatenate([np.arange(60), np.arange(30)])
    weighted = TokenHierarchy(VALUES, law, **DIGITS).fit(X[:60], Y[:60], 1.0 + (np.arange(60) < 30))
    assert same_counts(weighted, TokenHierarchy(VALUES, law, **DIGITS).fit(X[twice], Y[twice]))


@pytest.mark.parametrize("law", [NAIVE, BLOCKS, STYLES])
def test_weight_zero_is_no_image(law):
    kept = np.arange(400) % 3 > 0
    weighted = TokenHierarchy(WINDOWS, law, **DIGITS).fit(X[:400], Y[:400], kept.astype(float))
    without = TokenHierarchy(WINDOWS, law, **DIGITS).fit(X[:400][kept], Y[:400][kept])
    assert same_counts(weighted, without)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (np.zeros(9), "at least one sample_weight must not be zero .*got 9 zeros"),
        (-np.ones(9), "sample_weight must be finite and >= 0 .*got -1.0"),
        (np.ones(8), r"one number for each of 9 images, got shape \(8,\)"),
    ],
)
def test_bad_weights(weight, message):
    with pytest.raises(DataError, match=message):
        TokenHierarchy(VALUES, NAIVE, **DIGITS).fit(X[:9], Y[:9], weight)


# more and more images


def test_halves_count_as_the_whole():
    whole = learned(number=400)
    halves = TokenHierarchy(VALUES, NAIVE, **DIGITS).partial_fit(X[:200], Y[:200]).partial_fit(X[200:400], Y[200:400])
    backwards = TokenHierarchy(VALUES, NAIVE, **DIGITS).fit(X[399::-1], Y[399::-1])
    assert same_counts(whole, halves)
    assert same_counts(whole, backwards)
    assert np.array_equal(whole.predict_log_joint(X), halves.predict_log_joint(X))


@pytest.mark.parametrize("law", [NAIVE, BLOCKS])
def test_batches_count_in_any_order(law):
    first = learned(WINDOWS, law, number=300)
    batches = [slice(300, 400), slice(400, 550), slice(550, 600)]
    ways = [batches, batches[::-1], [slice(300, 600)]]
    models = [copy.deepcopy(first) for _ in ways]
    for model, way in zip(models, ways, strict=True):
        for batch in way:
            model.partial_fit(X[batch], Y[batch])
    assert same_counts(models[0], models[1])
    assert same_counts(models[0], models[2])


def test_merged_workers_count_as_one():
    one, other = (
        TokenHierarchy(VALUES, NAIVE, **DIGITS).fit(X[part], Y[part]) for part in (slice(300), slice(300, 600))
    )
    assert same_counts(one.merge(other), learned(number=600))


def test_only_equal_hierarchies_merge():
    parts = slice(100), slice(100, 300)
    for codebook, law in ((WINDOWS, NAIVE), (VALUES, PyramidSpec(levels=1))):
        one, other = (TokenHierarchy(codebook, law, **DIGITS).fit(X[part], Y[part]) for part in parts)
        with pytest.raises(DataError, match="only counts over the same codebook, tree and classes add up"):
            one.merge(other)
    with pytest.raises(DataError, match="only counts over the same"):
        learned(ValueSpec(bins=17)).merge(learned(ValueSpec(bins=9)))


def test_a_new_class_must_have_been_named():
    three = Y < 3
    model = TokenHierarchy(VALUES, NAIVE, **DIGITS).partial_fit(X[three], Y[three], classes=range(9))
    model.partial_fit(X[Y == 5], Y[Y == 5])
    assert (model.predict(X[Y == 5]) == 5).mean() > 0.9
    with pytest.raises(DataError, match=r"label .*9.* is none of the classes \[0, 1, .*8\]; name all"):
        model.partial_fit(X[Y == 9], Y[Y == 9])


# shapes


@pytest.mark.parametrize("event", [(64,), (8, 8), (1, 8, 8)])
@pytest.mark.parametrize("law", [BLOCKS, STYLES])
def test_shapes_come_back(event, law, tmp_path):
    x = X[:200].reshape(200, *event)
    model = TokenHierarchy(WINDOWS, law, **DIGITS).fit(x, Y[:200])
    assert model.n_features_in_ == 64
    for level in range(1, len(model.levels)):
        tokens = model.transform(x, level)
        assert tokens.dtype == np.int64
        assert tokens.shape == (200, np.prod(model.levels[level].event_shape))
        assert model.inverse_transform(tokens, level).shape == x.shape
    seen = np.arange(8)[:, None] < np.full(8, 5)
    filled = model.in_paint(x, seen)
    assert filled.shape == x.shape
    assert np.allclose(filled.reshape(-1, 8, 8)[:, seen], x.reshape(-1, 8, 8)[:, seen], atol=1e-5)
    model.save(tmp_path)
    again = TokenHierarchy.load(tmp_path)
    for same in (x, X[:200], X[:200].reshape(-1, 1, 8, 8), torch.from_numpy(x), x.tolist()):
        assert np.array_equal(again.predict_log_joint(same), model.predict_log_joint(x))


def test_another_shape_is_refused():
    model = learned()
    with pytest.raises(ValueError, match="X has 32 features, but TokenHierarchy is expecting 64"):
        model.predict(X[:, :32])
    with pytest.raises(DataError, match=r"fitted to images of shape \(1, 8, 8\), got \(4, 16\)"):
        model.predict(X.reshape(-1, 4, 16))


def test_rows_may_be_chains_or_colours():
    assert TokenHierarchy(ValueSpec(bins=2), NAIVE).fit(np.eye(6)[:, :5]).domain.event_shape == (1, 5)
    x = np.random.default_rng(0).random((20, 3, 4, 5))
    model = TokenHierarchy(ValueSpec(bins=4), NAIVE, shape=(3, 4, 5)).fit(x.reshape(20, -1))
    assert model.domain.event_shape == (3, 4, 5)
    assert np.array_equal(model.score_samples(x), model.score_samples(x.reshape(20, -1)))


@pytest.mark.parametrize("codebook", [ValueSpec(), WINDOWS])
def test_bytes_are_255ths(codebook):
    rows = np.rint(X[:300] * 255 / 16).astype(np.uint8)
    models = [TokenHierarchy(codebook, NAIVE).fit(x, Y[:300]) for x in (rows, rows / 255, rows / np.float32(255))]
    assert same_counts(models[0], models[1])
    assert same_counts(models[0], models[2])
    assert np.array_equal(models[0].score_samples(rows), models[0].score_samples(rows / 255))


def test_bad_data():
    with pytest.raises(ValueError, match="0 sample"):
        TokenHierarchy(VALUES, NAIVE).fit(X[:0], Y[:0])
    with pytest.raises(DataError, match=r"choose a window of 1 \.\.\. 8 sites for images of 8 x 8, got 10"):
        TokenHierarchy(WindowSpec(), NAIVE, **DIGITS).fit(X, Y)
    with pytest.raises(DataError, match=r"fewer tokens or give more images: 999 tokens, \d+ different windows"):
        TokenHierarchy(WindowSpec(window=8, tokens=1000, components=0), NAIVE, **DIGITS).fit(X[:50], Y[:50])
    with pytest.raises(DataError, match=r"each of 9 images needs a label .*got 8"):
        TokenHierarchy(VALUES, NAIVE, **DIGITS).fit(X[:9], Y[:8])
    with pytest.raises(DataError, match="values must lie between"):
        TokenHierarchy(VALUES, NAIVE).fit(X, Y)
    with pytest.raises(DataError, match=r"shape \(3, 3\) needs 9 values an image"):
        TokenHierarchy(VALUES, NAIVE, shape=(3, 3)).fit(X, Y)
    with pytest.raises(RecipeError, match=r"value_range must be .*rising, got 1.0 and 1.0"):
        TokenHierarchy(VALUES, NAIVE, value_range=(1.0, 1.0)).fit(X, Y)


# the hallway

KINDS = {
    "windows-styles": (WINDOWS, STYLES),
    "windows-soft": (WINDOWS, StyleSpec(styles=2, soft=True)),
    "windows-pyramid": (WINDOWS, BLOCKS),
    "values-pyramid": (VALUES, PyramidSpec(levels=1, backoff=10.0)),
}


@pytest.mark.parametrize("kind", [*KINDS, "product"])
def test_hallway_promises(kind, tmp_path):
    if kind == "product":
        members = (HierarchySpec(WINDOWS, STYLES), HierarchySpec(VALUES, BLOCKS))
        model = TokenProduct(members, **DIGITS).fit(X[:300], Y[:300])
    else:
        model = learned(*KINDS[kind], number=300)
    x = torch.from_numpy(X[:3].reshape(3, 1, 8, 8).astype(np.float32))
    check_model(model, x, tmp_path=tmp_path)
    again = type(model).load(tmp_path)
    assert np.array_equal(again.predict_log_joint(X), model.predict_log_joint(X))
    assert np.array_equal(again.score_samples(X), model.score_samples(X))


@pytest.mark.parametrize("kind", KINDS)
def test_conditions_make_up_the_whole(kind):
    model = learned(*KINDS[kind], number=300)
    x = torch.from_numpy(X[300:320].reshape(20, 1, 8, 8).astype(np.float32))
    each = torch.stack([model.log_prob(x, condition=torch.full((20,), c)) for c in range(10)], dim=1)
    prior = model.law_.root.double().log()
    assert torch.allclose((each + prior).logsumexp(1), model.log_prob(x), atol=1e-4)
    assert np.allclose(model.score_samples(X[300:320]), model.log_prob(x), atol=1e-4)
    assert np.allclose(model.predict_proba(X[300:320]), (each + prior).softmax(1), atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_levels_sum_to_the_whole(kind):
    model = learned(*KINDS[kind], number=300)
    x = torch.from_numpy(X[300:320].reshape(20, 1, 8, 8).astype(np.float32))
    labels = torch.from_numpy(Y[300:320])
    levels = model.log_prob(x, condition=labels, per_level=True)
    tokens = model.transform(X[300:320])
    states = torch.from_numpy(model.family_.states(tokens, Y[300:320]))
    complete = model.law_.most_probable(states)
    assert levels.shape == (20, len(model.levels) - 1)
    assert torch.allclose(levels.sum(1).float(), model.law_.log_prob(complete), atol=1e-3)


def test_draws_of_a_class_look_like_it():
    model = learned(WINDOWS, StyleSpec(styles=4), number=1000)
    labels = torch.arange(10).repeat(10)
    draws = model.sample(100, condition=labels, generator=torch.Generator().manual_seed(0))
    assert (model.predict(draws) == labels.numpy()).mean() > 0.6


def test_bytes_are_kept_in_files():
    rows = np.rint(X * 255 / 16).astype(np.uint8)
    model = TokenHierarchy(ValueSpec(), PyramidSpec(levels=0, backoff=10.0)).fit(rows[:300])
    assert np.array_equal(model.decompress(model.compress(rows[300:340])), rows[300:340])


# exact


def test_a_lossless_hierarchy_is_the_ising_model():
    """All 2^16 states of the 4 x 4 lattice at the critical point, each counted by its weight: NLL = entropy."""
    states = ((np.arange(2**16)[:, None] >> np.arange(16)) & 1).astype(np.uint8).reshape(-1, 4, 4)
    spin = 2.0 * states - 1
    energy = -sum((spin * np.roll(spin, 1, axis)).sum((1, 2)) for axis in (1, 2))
    w = np.exp(-np.log(1 + np.sqrt(2)) / 2 * energy)
    p = w / w.sum()
    model = TokenHierarchy(ValueSpec(bins=2), PyramidSpec(levels=2, concentration=0.0))
    model.fit(states.astype(np.float32), sample_weight=np.rint(p * 2.0**52))
    found = model.score_samples(states.astype(np.float32))
    assert -(p * found).sum() == pytest.approx(4.482719829684017, abs=1e-12)
    assert np.exp(found).sum() == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize(
    "law",
    [
        PyramidSpec(levels=1, parents=(3,)),
        PyramidSpec(levels=2, parents=(3, 2), share="places"),
        PyramidSpec(levels=1, parents=(4,), overlap=True, backoff=2.0),
        PyramidSpec(levels=2, concentration=0.5),
        PyramidSpec(levels=0),
        StyleSpec(styles=3),
        StyleSpec(styles=3, soft=True),
    ],
    ids=lambda law: f"{law.kind}",
)
def test_all_images_have_probability_one(law):
    every = ((np.arange(256)[:, None] >> np.arange(8)) & 1).astype(np.float32).reshape(-1, 2, 4)
    chosen = np.random.default_rng(0).integers(256, size=40)
    model = TokenHierarchy(ValueSpec(bins=2), law).fit(every[chosen], chosen % 2)
    assert np.exp(model.score_samples(every)).sum() == pytest.approx(1.0, abs=1e-5)


def test_a_lossless_hierarchy_gives_the_unseen_nothing():
    every = ((np.arange(16)[:, None] >> np.arange(4)) & 1).astype(np.float32).reshape(-1, 2, 2)
    model = TokenHierarchy(ValueSpec(bins=2), PyramidSpec(levels=1, concentration=0.0)).fit(every[[3, 3, 5, 9]])
    expected = np.zeros(16)
    expected[[3, 5, 9]] = 0.5, 0.25, 0.25
    assert np.allclose(np.exp(model.score_samples(every)), expected, atol=1e-15)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_evidence_is_the_product_of_predictions(seed):
    """Images one by one, each predicted by the counts of those before it, in any order."""
    x, y = X[:40], Y[:40] % 3
    family = TokenHierarchy(ValueSpec(bins=5), PyramidSpec(levels=1, parents=(6,)), **DIGITS).fit(x, y).family_
    tokens = np.rint(x / 4).astype(np.int64)
    states = family.states(tokens, y)
    counts, total = TreeCounts.empty(family.tree), 0.0
    for image in np.random.default_rng(seed).permutation(40):
        law = counts.law(family.tree, concentration=0.7, backoff=0.0, dtype=torch.float64)
        total += float(law.log_prob(torch.from_numpy(states[image : image + 1])))
        counts = counts + TreeCounts.of(family.tree, states[image : image + 1])
    assert counts.root == family.counts.root
    assert all(a == b for a, b in zip(counts.layers, family.counts.layers, strict=True))
    assert family.counts.log_evidence(0.7) == pytest.approx(total, rel=1e-11)


def test_workers_that_begin_as_copies_count_what_they_began_with_once():
    x, y = load_digits(return_X_y=True)
    law = PyramidSpec(levels=0, backoff=10.0)
    whole = TokenHierarchy(ValueSpec(bins=17), law, value_range=(0.0, 16.0)).fit(x[:100], y[:100])
    base, one, two = (copy.deepcopy(whole) for _ in range(3))
    one.partial_fit(x[100:200], y[100:200])
    two.partial_fit(x[200:300], y[200:300])
    whole.partial_fit(x[100:300], y[100:300])
    assert one.merge(two, base).family_.counts.root == whole.family_.counts.root
    np.testing.assert_array_equal(one.score_samples(x[:50]), whole.score_samples(x[:50]))
    with pytest.raises(DataError, match="taken off"):
        base.merge(base, whole)


def test_labels_of_every_type_come_back_from_disk(tmp_path):
    x, y = load_digits(return_X_y=True)
    for labels in (y[:200] > 4, y[:200].astype(float), np.array([f"digit {k}" for k in y[:200]])):
        model = TokenHierarchy(ValueSpec(bins=17), PyramidSpec(levels=0), value_range=(0.0, 16.0)).fit(x[:200], labels)
        model.save(tmp_path / "model")
        again = TokenHierarchy.load(tmp_path / "model").predict(x[:50])
        assert again.dtype == model.predict(x[:50]).dtype
        assert again.tolist() == model.predict(x[:50]).tolist()


def test_a_class_that_never_came_has_no_probability():
    law = PyramidSpec(levels=0, concentration=0.0, backoff=0.0)
    coarse = ValueSpec(bins=2)
    three = Y < 3
    model = TokenHierarchy(coarse, law, **DIGITS).partial_fit(X[three], Y[three], classes=range(5))
    both = TokenProduct((HierarchySpec(coarse, law), HierarchySpec(coarse, law, temper=0.1)), **DIGITS)
    both.partial_fit(X[three], Y[three], classes=range(5))
    for each in (model, both):
        p = each.predict_proba(X[three])
        assert not np.isnan(p).any()
        assert (p[:, 3:] == 0).all()
        assert np.allclose(p.sum(1), 1)


@pytest.mark.parametrize("bad", [[3, 10], [-1, 0], [1], [0.5, 1.0], [[1, 2]]])
def test_bad_conditions_and_empty_batches_are_named(bad):
    model = learned()
    x = torch.from_numpy(X[:2].reshape(2, 1, 8, 8).astype(np.float32))
    with pytest.raises(DataError, match=r"whole number in 0 \.\.\. 9, one for each of 2 fields, got"):
        model.log_prob(x, condition=torch.tensor(bad))
    with pytest.raises(DataError, match=r"at least one field, got none"):
        model.log_prob(x[:0])
    with pytest.raises(DataError, match=r"at least one field, got none"):
        model.coarsen(x[:0], 1)


def test_a_failing_partial_fit_leaves_all_as_it_was():
    model = learned(WINDOWS, STYLES)
    before = model.predict_log_joint(X[:20])
    with pytest.raises(DataError, match="sample_weight"):
        model.partial_fit(X[:5], Y[:5], sample_weight=[-1] * 5)
    model.family_.add = lambda *_: (_ for _ in ()).throw(RuntimeError("halfway"))  # as an interrupt would
    with pytest.raises(RuntimeError):
        model.partial_fit(X[:5], Y[:5])
    assert np.array_equal(model.predict_log_joint(X[:20]), before)


def test_levels_never_gain_probability():
    """Shells of a hidden tree are nested: each edge counts on one level only."""
    rows = np.rint(X[:200] * 255 / 16).astype(np.uint8)
    model = TokenHierarchy(ValueSpec(), HiddenTreeSpec(states=4, epochs=1.0)).fit(rows)
    x = torch.from_numpy((rows[:30] / np.float32(255)).reshape(-1, 1, 8, 8))
    levels = model.log_prob(x, per_level=True)
    assert levels.shape[1] > 2
    assert (levels <= 1e-9).all()
    states = model._complete(x, None)
    assert torch.allclose(levels.sum(1), model._edges(states).sum(1))


def test_a_lossless_file_rounds_nothing():
    rows = np.rint(X[:200] * 255 / 16).astype(np.uint8)
    model = TokenHierarchy(ValueSpec(), NAIVE).fit(rows)
    assert np.array_equal(model.decompress(model.compress(rows[:5] / 255)), rows[:5])
    with pytest.raises(DataError, match="whole 255ths"):
        model.compress(rows[:5] / 255 + 1e-3)


def test_lossy_files_are_read_by_the_integers_that_wrote_them(tmp_path):
    model = learned(WINDOWS, STYLES)
    model.save(tmp_path / "before")
    assert not TokenHierarchy.load(tmp_path / "before")._integers
    file = model.compress(X[:9])
    model.save(tmp_path / "after")
    again = TokenHierarchy.load(tmp_path / "after")
    again.law_.tables[0].mul_(1.001)  # as if another machine had computed the tables
    assert np.array_equal(again.decompress(file), model.decompress(file))


@pytest.mark.parametrize("temper", [-1.0, float("inf"), float("nan")])
def test_temper_is_a_power(temper):
    with pytest.raises(ValueError, match="temper must be >= 0 and finite"):
        learned(temper=temper)


def test_no_class_is_called_minus_one():
    with pytest.raises(DataError, match="cannot be called -1"):
        TokenHierarchy(VALUES, NAIVE, **DIGITS).partial_fit(X[:9], [1, -1, 1] * 3, classes=[-1, 1])
