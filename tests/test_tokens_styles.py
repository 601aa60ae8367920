"""Styles: tables by hand, the law against plain Bayes, additivity, images without labels, bad input."""

import numpy as np
import pytest
import torch

from renorm.data import DataSpec, load, store
from renorm.errors import DataError, RecipeError
from renorm.tokens.codebooks.values import ValueCodebook
from renorm.tokens.codebooks.windows import WindowCodebook
from renorm.tokens.families.styles import Styles, share_counts


def drawn(number=400, classes=3, styles=2, positions=6, tokens=4, seed=0, flip=0.1):
    """Images from a law of styles: each style has its own word, each token of it is replaced with probability flip."""
    rng = np.random.default_rng(seed)
    words = np.random.default_rng(99).integers(tokens, size=(classes, styles, positions))
    labels, style = rng.integers(classes, size=number), rng.integers(styles, size=number)
    z = words[labels, style]
    noise = rng.integers(tokens, size=z.shape)
    return np.where(rng.random(z.shape) < flip, noise, z), labels, style


BOOK = ValueCodebook((1, 2, 3), bins=4)


def fitted(tokens, labels, classes=3, weight=None, seed=0, book=BOOK, **values):
    return Styles(**{"styles": 2, **values}).fit(book, tokens, labels, classes, weight, seed=seed)


def joint(model, tokens):
    law = model.law()
    return law.root_log_prob(law.observe(torch.from_numpy(tokens))).double().numpy()


# numbers by hand


def test_shared_counts_by_hand():
    n = np.zeros((9, 1))
    n[4] = 4.0
    assert share_counts(n, (3, 3), 0.5)[:, 0].tolist() == [1, 2, 1, 2, 4, 2, 1, 2, 1]
    assert share_counts(n, (1, 9), 0.25)[:, 0].tolist() == [0, 0, 0, 1, 4, 1, 0, 0, 0]
    assert share_counts(n, None, 0.5) is n


def test_shared_counts_agree_with_a_loop():
    n = np.random.default_rng(0).random((12, 2, 3))
    at = np.indices((3, 4)).reshape(2, -1).T
    gap = np.abs(at[:, None] - at)
    w = np.where(gap.max(-1) > 1, 0.0, 0.3 ** gap.sum(-1))
    assert np.allclose(share_counts(n, (3, 4), 0.3), np.einsum("pq,qsk->psk", w, n))


def test_tables_by_hand():
    """One position, one style: classes saw (0, 0, 1) and (1,); mean (2.5, 2.5)/5."""
    tokens, labels = np.array([[0], [0], [1], [1]]), np.array([0, 0, 0, 1])
    model = fitted(tokens, labels, 2, book=ValueCodebook((1, 1, 1), bins=2), styles=1, backoff=2.0, strength=5.0)
    law = model.law()
    t = np.array([[(2 + 1) / 5, (1 + 1) / 5], [1 / 3, 2 / 3]])
    theta = np.array([[2 + 5 * t[0, 0], 1 + 5 * t[0, 1]], [5 * t[1, 0], 1 + 5 * t[1, 1]]]) / np.array([[8], [6]])
    assert np.allclose(law.tables[1][0], theta, atol=1e-6)
    assert np.allclose(law.tables[0][0], np.eye(2))
    assert np.allclose(law.root, [3.5 / 5, 1.5 / 5])


def test_the_law_is_bayes_by_a_loop():
    tokens, labels, _ = drawn(60)
    model = fitted(tokens, labels)
    style, leaf = (table.double().numpy() for table in model.law().tables)
    for row, got in zip(tokens[:20], joint(model, tokens[:20]), strict=True):
        each = style[0] * np.prod([leaf[p, :, k] for p, k in enumerate(row)], axis=0)
        assert np.allclose(got, np.log(each.sum(axis=1) * model.law().root.double().numpy()), atol=1e-4)


def test_the_law_sums_to_one():
    tokens, labels, _ = drawn(60, positions=6)
    model = fitted(tokens, labels)
    every = np.stack(np.unravel_index(np.arange(4**6), (4,) * 6), axis=1)
    assert np.exp(joint(model, every)).sum() == pytest.approx(1, abs=1e-4)


# what counting finds


def test_two_ways_to_write_a_class_are_found():
    """From two exemplars of the same style recounting may not part the two; of a few seeds one does."""
    tokens, labels, style = drawn(flip=0.05)
    best = np.zeros(3)
    for seed in range(6):
        model = fitted(tokens, labels, share=0.0, strength=1.0, seed=seed)
        states = model.law().most_probable(torch.from_numpy(model.states(tokens, labels))).numpy()
        same = (states[:, 1] % 2) == style
        agree = np.array([same[labels == c].mean() for c in range(3)])
        best = np.maximum(best, np.maximum(agree, 1 - agree))
    assert (best > 0.95).all()


def test_styles_tell_what_no_style_can():
    """Exclusive or: each token alone says nothing about the class."""
    rng = np.random.default_rng(0)
    a, b = rng.integers(2, size=(2, 500))
    tokens, labels = np.stack([a, a, b, b], axis=1), a ^ b
    book = ValueCodebook((1, 1, 4), bins=2)
    for styles, least, most in ((1, 0.0, 0.7), (2, 0.99, 1.0)):
        right = max(
            (
                joint(fitted(tokens, labels, 2, book=book, styles=styles, share=0.0, seed=s), tokens).argmax(1)
                == labels
            ).mean()
            for s in range(4)
        )
        assert least <= right <= most


def test_counts_are_whole_and_complete():
    tokens, labels, _ = drawn()
    counts = fitted(tokens, labels).counts
    assert all(n.unit == 1 for n in (counts.root, *counts.layers))
    assert np.array_equal(counts.root.dense()[0, 0], np.bincount(labels))
    per_style = counts.layers[0].dense()[0]
    assert np.array_equal(per_style.sum(axis=1), np.bincount(labels))
    assert np.array_equal(per_style * ~np.kron(np.eye(3, dtype=bool), np.ones((1, 2), bool)), np.zeros((3, 6)))
    leaf = counts.layers[1].dense()
    for p in range(6):
        whole = np.array([np.bincount(tokens[labels == c, p], minlength=4) for c in range(3)])
        assert np.array_equal(leaf[p].reshape(3, 2, 4).sum(axis=1), whole)


def test_a_weight_counts_as_often():
    tokens, labels, _ = drawn(80)
    weight = np.where(np.arange(80) % 2 == 0, 3.0, 0.0)
    model = fitted(tokens, labels, weight=weight)
    assert np.array_equal(model.counts.root.dense()[0, 0], 3.0 * np.bincount(labels[::2], minlength=3))
    assert np.allclose(joint(fitted(tokens, labels, weight=np.ones(80)), tokens), joint(fitted(tokens, labels), tokens))


def test_counting_more_adds():
    tokens, labels, _ = drawn(300)
    model = fitted(tokens[:200], labels[:200])
    before = model.counts
    model.add(tokens[200:], labels[200:])
    assert model.counts.root.total == 300
    step = model.law().most_probable(torch.from_numpy(model.states(tokens, labels)))
    assert (step[:, 0].numpy() == labels).all()
    assert model.counts.layers[1].total == before.layers[1].total + 600


def test_one_seed_one_answer():
    tokens, labels, _ = drawn()
    one, same, other = (fitted(tokens, labels, seed=s, styles=4).counts.layers[1] for s in (0, 0, 1))
    assert one == same
    assert one != other


def test_state_restores_the_law():
    tokens, labels, _ = drawn()
    model = fitted(tokens, labels)
    again = Styles(styles=2).restore(BOOK, 3, model.state())
    assert np.array_equal(joint(again, tokens), joint(model, tokens))


# soft


def same(a, b):
    return a.root == b.root and all(one == other for one, other in zip(a.layers, b.layers, strict=True))


def test_one_soft_step_by_hand():
    """Images of class 0 are 00, 01, 11; hard counts of the two styles give the posterior by which they count."""
    tokens, labels = np.array([[0, 0], [0, 1], [1, 1], [1, 0]]), np.array([0, 0, 0, 1])
    book = ValueCodebook((1, 1, 2), bins=2)
    hard, soft = (fitted(tokens, labels, 2, book=book, recounts=1, share=0.0, soft=soft) for soft in (False, True))
    style, leaf = (table.double().numpy() for table in hard.law().tables)
    n_style, n_leaf = np.zeros((2, 4)), np.zeros((2, 4, 2))
    for image, c in zip(tokens, labels, strict=True):
        joint = style[0, c] * leaf[0, :, image[0]] * leaf[1, :, image[1]]
        n_style[c] += joint / joint.sum()
        for p in range(2):
            n_leaf[p, :, image[p]] += joint / joint.sum()
    assert np.allclose(soft.counts.layers[0].dense()[0], n_style, atol=4e-6)
    assert np.allclose(soft.counts.layers[1].dense(), n_leaf, atol=4e-6)
    assert (n_style[0, :2] % 1 > 0.01).all()  # it is shared indeed


def test_soft_counts_are_whole_units_that_sum_to_the_images():
    tokens, labels, _ = drawn(200, flip=0.5)
    labels[150:] = -1
    model = fitted(tokens, labels, soft=True)
    assert model.counts.root.total == 200
    assert model.counts.layers[0].total == 200
    assert [n.unit for n in model.counts.layers] == [2.0**-20, 2.0**-20]
    known = np.bincount(labels[:150])
    assert (model.counts.root.dense()[0, 0] >= known).all()


def test_one_style_is_the_same_soft_or_hard():
    tokens, labels, _ = drawn(100)
    assert same(fitted(tokens, labels, styles=1, soft=True).counts, fitted(tokens, labels, styles=1).counts)


def test_soft_counts_add_in_any_order():
    """A batch counts as its images do one by one, weight 2 as twice the image."""
    tokens, labels, _ = drawn(120, flip=0.5)
    start = fitted(tokens[:60], labels[:60], soft=True).state()

    def more(*batches, weight=None):
        model = Styles(styles=2, soft=True).restore(BOOK, 3, start)
        fixed = model.law()
        for batch in batches:
            model._known = (model.counts, fixed)
            model.add(tokens[batch], labels[batch], None if weight is None else np.full(len(batch), weight))
        return model.counts

    whole = more(np.arange(60, 120))
    assert same(whole, more(*np.arange(60, 120)[::-1].reshape(20, 3)))
    assert same(more(np.tile(np.arange(60, 120), 2)), more(np.arange(60, 120), weight=2.0))


def test_soft_rounds_raise_the_probability():
    """With tables that hardly lean each round of soft EM must; hard counts are where it starts."""
    tokens, labels, _ = drawn(600, flip=0.5)
    values = {"share": 0.0, "strength": 1e-3, "backoff": 1e-3}
    rounds = [fitted(tokens, labels, recounts=1, **values)]
    for _ in range(8):
        rounds.append(Styles(styles=2, soft=True, recounts=1, **values).restore(BOOK, 3, rounds[-1].state()))
        rounds[-1]._soften(tokens, labels, None)
    each = np.array([joint(model, tokens)[np.arange(600), labels].sum() for model in rounds])
    assert (np.diff(each) > 0).all()


# what is not seen


def test_images_without_labels_help():
    book = ValueCodebook((1, 1, 24), bins=4)
    tokens, labels, _ = drawn(1500, styles=1, positions=24, flip=0.6)
    test, truth, _ = drawn(1500, styles=1, positions=24, flip=0.6, seed=1)
    few = np.where(np.arange(1500) < 15, labels, -1)
    model = fitted(tokens, few, book=book, styles=1, share=0.0)
    alone = fitted(tokens[:15], labels[:15], book=book, styles=1, share=0.0)
    assert model.counts.root.total == 1500
    helped = (joint(model, test).argmax(1) == truth).mean()
    assert helped > (joint(alone, test).argmax(1) == truth).mean() + 0.03


def test_hidden_tokens_count_nothing():
    tokens, labels, _ = drawn(200)
    tokens[:, 0] = -1
    model = fitted(tokens, labels, share=0.0)
    assert model.counts.layers[1].dense()[0].sum() == 0
    leaf = model.law().tables[1][0]
    assert np.allclose(leaf, 0.25)


def test_one_class_needs_no_labels():
    tokens, _, _ = drawn(200)
    model = fitted(tokens, np.full(200, -1), 1, styles=6)
    every = np.stack(np.unravel_index(np.arange(4**6), (4,) * 6), axis=1)
    assert np.exp(joint(model, every)).sum() == pytest.approx(1, abs=1e-4)
    flat = fitted(tokens, np.full(200, -1), 1, styles=1)
    assert joint(model, tokens).mean() > joint(flat, tokens).mean()


def test_a_class_may_have_fewer_images_than_styles():
    tokens, labels, _ = drawn(20)
    labels[labels == 2] = 1
    labels[0] = 2
    model = fitted(tokens, labels, 4, styles=8)
    assert np.isfinite(joint(model, tokens)).all()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"styles": 0}, "styles and recounts must be >= 1, got 0 and 8"),
        ({"recounts": 0}, "got 2 and 0"),
        ({"share": -0.5}, "share must be >= 0 .*got -0.5"),
        ({"strength": 0.0}, "strength and backoff must be > 0 .*got 0.0 and 10.0"),
        ({"book": ValueCodebook((2, 1, 3), bins=4)}, "share > 0 needs a codebook with a grid.*got 0.5"),
    ],
)
def test_bad_values(values, message):
    tokens, labels, _ = drawn(20)
    with pytest.raises(RecipeError, match=message):
        fitted(tokens, labels, **values)


def test_no_label_at_all_is_refused():
    tokens, _, _ = drawn(20)
    with pytest.raises(DataError, match=r"at least one image must have a label .*got 20 without"):
        fitted(tokens, np.full(20, -1))


def test_positions_of_different_sizes_are_refused():
    class Uneven(ValueCodebook):
        @property
        def sizes(self):
            return np.array([4, 4, 4, 4, 4, 5])

    tokens, labels, _ = drawn(20)
    with pytest.raises(RecipeError, match=r"as many tokens at each position.*got 4 \.\.\. 5"):
        fitted(tokens, labels, book=Uneven((1, 2, 3), bins=4))


@pytest.mark.skipif(store.find("mnist") is None, reason="needs MNIST")
def test_digits_are_told_apart():
    fields = load(DataSpec("mnist", labels=True, limit=3000))
    x, y = (fields.values.numpy() / np.float32(255)).astype(np.float32), fields.labels.numpy()
    book = WindowCodebook(shape=(1, 28, 28), window=8, stride=4, tokens=128, components=16, sample=10_000)
    tokens = book.fit(x[:2000], seed=0).encode(x)
    model = Styles(styles=2).fit(book, tokens[:2000], y[:2000], 10, None, seed=0)
    assert (joint(model, tokens[2000:]).argmax(1) == y[2000:]).mean() > 0.85


@pytest.mark.parametrize("soft", [False, True])
def test_styles_hold_their_tables_once(soft, monkeypatch):
    """A law keeps logarithms of its tables; those of a law that learning only looked through are gone after it."""
    tokens = np.random.default_rng(0).integers(0, 3, (80, 9))
    labels = np.where(np.arange(80) % 4 == 0, -1, np.arange(80) % 2)
    model = Styles(styles=2, soft=soft).fit(ValueCodebook((1, 3, 3), bins=3), tokens, labels, 2, None, seed=0)
    model.add(tokens[:9], labels[:9])
    held = []
    smoothed = Styles._smoothed
    monkeypatch.setattr(Styles, "_smoothed", lambda self: held.append(self._known) or smoothed(self))
    assert "_kept" not in vars(model.law())
    model._likeliest(tokens, labels)
    assert "_kept" not in vars(model.law())
    model.add(tokens[:9], labels[:9])
    model.law()
    assert held
    assert held == [None] * len(held)
