"""Trees of exemplars: grouping, structure from exemplars, sweeps, learning in order, evidence."""

from itertools import product

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.metrics import mutual_info_score

from renorm.errors import DataError, RecipeError
from renorm.tokens.codebooks.retina import RetinaCodebook
from renorm.tokens.codebooks.values import ValueCodebook
from renorm.tokens.families import exemplars
from renorm.tokens.families.exemplars import PAPER, Exemplars, accuracy_by_evidence
from renorm.tokens.families.gated import learn_in_order
from renorm.tokens.families.grouping import groups_by_information, groups_by_place, halving_edges, pair_information
from renorm.tokens.families.structure import Blocks
from renorm.tokens.trees.counts import forget, gate
from renorm.tokens.trees.rows import distinct_rows
from renorm.tokens.trees.tree import Tree, TreeLaw

PLAIN = {"neighbour": 0.0, "token_backoff": 0.0, "part_backoff": 0.0, "class_backoff": 0.0}


def grid(edge):
    return np.stack(np.divmod(np.arange(float(edge * edge)), edge), axis=1)


@pytest.fixture
def book():
    return ValueCodebook((1, 2, 4), bins=3)


@pytest.fixture
def data():
    generator = np.random.default_rng(0)
    labels = np.repeat([0, 1], 30)
    tokens = generator.integers(0, 2, (60, 8)) + labels[:, None] * (generator.random((60, 8)) < 0.6)
    return tokens, labels


# Grouping


def test_groups_by_place_are_the_blocks_of_a_grid():
    np.testing.assert_array_equal(groups_by_place(grid(8), 4), Blocks((8, 8), (2, 2)).owner)
    np.testing.assert_array_equal(groups_by_place(np.repeat(grid(4), 3, axis=0), 4), np.repeat(np.arange(16), 3))


def test_lattice_points_without_tokens_get_no_number():
    assert groups_by_place(np.array([[0.0], [0.1], [9.0]]), 3).tolist() == [0, 0, 1]


@pytest.mark.parametrize(("edge", "edges"), [(8, (4, 2, 1)), (7, (4, 2, 1)), (2, (1,)), (1, (1,))])
def test_halving_ends_in_one_group(edge, edges):
    assert halving_edges(grid(edge)) == edges


def test_a_chain_halves_too():
    assert halving_edges(np.arange(8.0)[:, None]) == (4, 2, 1)


def test_halving_ends_for_scattered_places():
    assert halving_edges(np.random.default_rng(0).random((50, 2)))[-1] == 1


def test_pair_information_agrees_with_scikit_learn():
    tokens = np.random.default_rng(0).integers(0, 4, (200, 5))
    tokens[:, 1] = tokens[:, 0] // 2
    tokens[:, 4] = 2
    got = pair_information(tokens)
    for i, j in product(range(5), range(5)):
        np.testing.assert_allclose(got[i, j], mutual_info_score(tokens[:, i], tokens[:, j]), atol=1e-6)


def test_tokens_that_say_much_of_each_other_make_a_group():
    generator = np.random.default_rng(1)
    hidden = generator.integers(0, 4, (2000, 3))
    kind = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2])
    tokens = np.where(generator.random((2000, 9)) < 0.9, hidden[:, kind], generator.integers(0, 4, (2000, 9)))
    group = groups_by_information(pair_information(tokens), 3)
    assert len({(k, g) for k, g in zip(kind.tolist(), group.tolist(), strict=True)}) == 3
    assert groups_by_information(pair_information(tokens), 99).max() >= 0


# Structure


def test_states_are_the_distinct_tuples_of_the_exemplars(book):
    tokens = np.array([[0, 0, 1, 1, 0, 0, 1, 1], [0, 0, 2, 1, 0, 0, 1, 1], [2, 2, 2, 2, 2, 2, 2, 2]])
    model = Exemplars(**{**PAPER, "edges": (2,), "learn": "not"})
    model.fit(book, tokens, np.array([0, 0, 1]), 2, None, seed=0)
    # Two groups in each row of tokens, of two columns each; the second shows all three exemplars apart.
    assert model.tree.states.tolist() == [2, 3, 2, 3, 2, 2] + [3] * 8
    assert model.tree.parent.tolist() == [-1, 0, 1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


def test_halving_down_to_the_exemplars(book):
    tokens = np.random.default_rng(0).integers(0, 3, (20, 8))
    model = Exemplars(**{**PAPER, "learn": "not"}, exemplars=5)
    model.fit(book, tokens, np.arange(20) % 2, 2, None, seed=0)
    assert [grid for _, grid in model.coarse_nodes] == [(2, 2), (1, 1)]
    assert model.tree.states[1] == 10


def test_unlearned_exemplars_have_the_probability_of_their_smoothed_tokens():
    tokens, alpha = np.array([[0, 1], [1, 1]]), 0.25
    book = ValueCodebook((1, 1, 2), bins=2)
    model = Exemplars(**{**PAPER, "learn": "not", "edges": (1,), "concentration": alpha, "class_concentration": 1e-9})
    law = model.fit(book, tokens, np.array([0, 1]), 2, None, seed=0).law()
    right, wrong = (1 + alpha) / (1 + 2 * alpha), alpha / (1 + 2 * alpha)
    found = law.root_log_prob(law.observe(torch.from_numpy(tokens))).exp().numpy()
    np.testing.assert_allclose(found, 0.5 * right * np.array([[right, wrong], [wrong, right]]), rtol=1e-4)


def test_first_exemplars_are_the_first_of_each_class(book):
    tokens = np.random.default_rng(0).integers(0, 3, (40, 8))
    labels = np.arange(40) % 2
    first = Exemplars(**{**PAPER, "learn": "not"}, exemplars=3).fit(book, tokens, labels, 2, None, seed=0)
    few = Exemplars(**{**PAPER, "learn": "not"}, exemplars=3).fit(book, tokens[:6], labels[:6], 2, None, seed=0)
    assert first.counts.layers == few.counts.layers


def test_clusters_become_mean_exemplars(book):
    tokens = np.array([[0] * 8, [0] * 8, [2] * 8, [2] * 8, [1] * 8])
    model = Exemplars(**{**PAPER, "choose": "clusters", "learn": "not"}, exemplars=2)
    model.fit(book, tokens, np.array([0, 0, 0, 0, 1]), 2, None, seed=0)
    assert model.tree.states[:2].tolist() == [2, 3]


# Sweeps


def test_a_sweep_counts_what_enumeration_expects(book, data):
    tokens, labels = data
    values = {"exemplars": 2, "edges": (2,), "parts": 2, "sweeps": 1, "neighbour": 0.0}
    start = Exemplars(**values).fit(book, tokens, labels, 2, None, seed=0)
    law, tree = start.law(), start.tree
    counts = {layer.depth: np.zeros((len(layer.nodes), *layer.shape)) for layer in tree.layers}
    hidden = list(product(range(4), *[range(2)] * 4))
    for z, c in zip(tokens, labels, strict=True):
        full = np.array([[c, *state, *z] for state in hidden])
        joint = law.log_prob(torch.from_numpy(full)).double().exp().numpy()
        for row, p in zip(full, joint / joint.sum(), strict=True):
            for layer in tree.layers:
                for slot, (node, parent) in enumerate(zip(layer.nodes, layer.parents, strict=True)):
                    counts[layer.depth][slot, row[parent], row[node]] += p
    start.counts = start._expected(tokens, labels, None)
    for layer, found in zip(tree.layers, start.counts.layers, strict=True):
        np.testing.assert_allclose(found.dense(), counts[layer.depth], atol=2e-4)


def test_sweeps_without_back_off_never_lower_the_likelihood(book, data):
    tokens, labels = data
    found = []
    for sweeps in (1, 2, 4, 8):
        model = Exemplars(exemplars=2, edges=(2,), parts=3, sweeps=sweeps, **PLAIN)
        law = model.fit(book, tokens, labels, 2, None, seed=0).law()
        found.append(float(law.log_prob(torch.from_numpy(model.states(tokens, labels))).sum()))
    assert (np.diff(found) > -1e-2).all()
    assert found[-1] > found[0]


def test_whole_weights_are_repetitions(book, data):
    tokens, labels = data
    weight = np.where(np.arange(60) < 20, 2.0, 1.0)
    kinds = {"exemplars": 2, "edges": (2,), "choose": "first", "parts": 0}
    model = Exemplars(**kinds, sweeps=1).fit(book, tokens, labels, 2, weight, seed=0)
    twice = np.concatenate([np.arange(60), np.arange(20)])
    other = Exemplars(**kinds, sweeps=1).fit(book, tokens[twice], labels[twice], 2, None, seed=0)
    for a, b in zip(model.counts.layers, other.counts.layers, strict=True):
        np.testing.assert_allclose(a.dense(), b.dense(), atol=1e-3)


def test_neighbours_share_counts_and_nothing_is_lost(book, data):
    tokens, labels = data
    for share in (0.0, 0.4):
        model = Exemplars(exemplars=1, edges=(1,), parts=3, neighbour=share, token_backoff=0.0)
        law = model.fit(book, tokens, labels, 2, None, seed=0).law()
        table = law.tables[-1].double().numpy()
        n = model.counts.layers[-1].dense()
        spread = np.array([[1 - share, share, 0], [share / 2, 1 - share, share / 2], [0, share, 1 - share]])
        np.testing.assert_allclose(table, n @ spread / n.sum(-1, keepdims=True), atol=1e-6)


def test_tables_lean_on_the_class_before_they_lean_on_all(book, data):
    tokens, labels = data
    model = Exemplars(exemplars=2, edges=(2,), parts=3, part_backoff=1e9, class_backoff=0.5)
    law = model.fit(book, tokens, labels, 2, None, seed=0).law()
    n = model.counts.layers[1].dense()
    owner = model.counts.layers[0].dense()[0].argmax(axis=0)
    all_ = n.sum(1) / n.sum((1, 2))[:, None]
    for e in range(n.shape[1]):
        of_class = n[:, owner == owner[e]].sum(1)
        want = (of_class + 0.5 * all_) / (of_class.sum(1, keepdims=True) + 0.5)
        np.testing.assert_allclose(law.tables[1][:, e].numpy(), want, atol=1e-5)


# In order


def slow_twin(tree, tables, states, sharpness, horizon):
    tables = [np.array(n) for n in tables]
    for seen in states:
        law = TreeLaw(
            tree,
            torch.full((int(tree.states[0]),), 1 / int(tree.states[0]), dtype=torch.float64),
            [torch.from_numpy(n / n.sum(-1, keepdims=True)) for n in tables],
        )
        after = [
            n + q.numpy() for n, q in zip(tables, law.expected_counts(torch.from_numpy(seen[None])).tables, strict=True)
        ]
        tables = [forget(n, m, gate(n, m, sharpness), horizon) for n, m in zip(tables, after, strict=True)]
    return tables


@pytest.mark.parametrize(("sharpness", "horizon"), [(0.0, np.inf), (0.0, 5.0), (20.0, np.inf), (512.0, 30.0)])
def test_learning_in_order_agrees_with_its_slow_twin(sharpness, horizon):
    tree = Tree(np.array([-1, 0, 1, 1, 2, 2, 3, 3]), np.array([2, 4, 3, 2, 3, 3, 3, 3]), leaves=np.arange(4, 8))
    generator = np.random.default_rng(0)
    tables = [generator.random((layer.tables, *layer.shape)) + 0.05 for layer in tree.layers]
    states = np.full((40, 8), -1)
    states[:, 4:] = generator.integers(0, 3, (40, 4))
    states[:30, 0] = generator.integers(0, 2, 30)
    found = learn_in_order(tree, tables, states, None, gate=sharpness, horizon=horizon)
    for a, b in zip(found, slow_twin(tree, tables, states, sharpness, horizon), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_forgotten_tables_tend_to_the_horizon():
    tree = Tree(np.array([-1, 0]), np.array([1, 2]), leaves=np.array([1]))
    states = np.tile([[0, 0], [0, 1]], (700, 1))
    found = learn_in_order(tree, [np.ones((1, 1, 2))], states, None, gate=0.0, horizon=20.0)
    np.testing.assert_allclose(found[0].sum(), 20.0, rtol=1e-6)


def test_adding_goes_on_where_learning_in_order_stopped(book, data):
    tokens, labels = data
    order = np.random.default_rng(0).permutation(60)
    tokens, labels = tokens[order], labels[order]
    values = {**PAPER, "edges": (2,)}
    whole = Exemplars(exemplars=2, **values).fit(book, tokens, labels, 2, None, seed=0)
    part = Exemplars(exemplars=2, **values).fit(book, tokens[:30], labels[:30], 2, None, seed=0)
    part.add(tokens[30:], labels[30:])
    for a, b in zip(whole.counts.layers, part.counts.layers, strict=True):
        np.testing.assert_allclose(a.dense(), b.dense(), atol=1e-4)


# As a whole


@pytest.mark.parametrize("values", [{"edges": (2,), "parts": 20, "exemplars": 5}, {**PAPER, "exemplars": 13}])
def test_it_reads_digits(values):
    x, y = load_digits(return_X_y=True)
    x = (x.reshape(-1, 1, 8, 8) / 16).astype(np.float32)
    book = RetinaCodebook(shape=(1, 8, 8), tile=2.0, resize=0, blur=0.0, equalise=False).fit(x[:900], seed=0)
    model = Exemplars(**values).fit(book, book.encode(x[:900]), y[:900], 10, None, seed=0)
    law = model.law()
    scores = law.root_log_prob(law.observe(torch.from_numpy(book.encode(x[900:]))))
    assert (scores.argmax(1).numpy() == y[900:]).mean() > 0.8
    assert model.tree.states[1] <= 130


def test_a_tree_of_exemplars_is_its_state(book, data):
    tokens, labels = data
    model = Exemplars(exemplars=2, edges=(2,), parts=3).fit(book, tokens, labels, 2, None, seed=0)
    again = Exemplars(exemplars=2, edges=(2,), parts=3).restore(book, 2, model.state())
    for a, b in zip(model.law().tables, again.law().tables, strict=True):
        assert torch.equal(a, b)
    assert [grid for _, grid in again.coarse_nodes] == [(2, 2), (1, 1)]
    np.testing.assert_array_equal(model.states(tokens, labels)[:, [0, *range(6, 14)]], np.c_[labels, tokens])


def test_accuracy_rises_as_unlikely_images_are_left_out():
    generator = np.random.default_rng(0)
    evidence = generator.normal(size=1000)
    right = generator.random(1000) < 1 / (1 + np.exp(-3 * evidence))
    curve = accuracy_by_evidence(right, evidence, [0.1, 0.5, 1.0])
    assert curve[0] > curve[1] > curve[2] == right.mean()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"exemplars": 0}, "exemplars must be >= 1"),
        ({"parts": -1}, "parts must be >= 0"),
        ({"sweeps": 0}, "sweeps must be >= 1"),
        ({"neighbour": 1.0}, r"neighbour must be in \[0, 1\)"),
        ({"edges": (0,)}, "edges must be >= 1"),
        ({"learn": "in-order", "concentration": 0.0}, "concentrations must be > 0"),
    ],
)
def test_bad_values_are_named(values, message):
    with pytest.raises(RecipeError, match=message):
        Exemplars(**values)


def test_bad_data_are_named(book):
    with pytest.raises(DataError, match="without hidden tokens"):
        Exemplars().fit(book, np.full((2, 8), -1), np.array([0, 1]), 2, None, seed=0)
    with pytest.raises(DataError, match="without hidden tokens"):
        Exemplars().fit(book, np.zeros((2, 8), np.int64), np.array([-1, -1]), 2, None, seed=0)
    with pytest.raises(DataError, match="fractions in"):
        accuracy_by_evidence(np.array([True]), np.array([0.0]), [0.0])
    with pytest.raises(DataError, match="at least one token"):
        halving_edges(np.empty((0, 2)))
    with pytest.raises(DataError, match="hidden one"):
        pair_information(np.array([[-1, 0]]))
    with pytest.raises(RecipeError, match="edge >= 1"):
        groups_by_place(grid(2), 0)
    with pytest.raises(RecipeError, match="room for at least one"):
        groups_by_information(np.eye(2), 0)
    tree = Tree(np.array([-1, 0, 0]), np.array([1, 2, 2]), leaves=np.array([1, 2]))
    with pytest.raises(RecipeError, match="gate must be >= 0"):
        learn_in_order(tree, [np.ones((2, 1, 2))], np.zeros((1, 3), np.int64), None, gate=-1.0, horizon=1.0)
    with pytest.raises(DataError, match="needs all tokens"):
        learn_in_order(tree, [np.ones((2, 1, 2))], np.array([[0, -1, 0]]), None, gate=0.0, horizon=1.0)
    tied = Tree(np.array([-1, 0, 0]), np.array([1, 2, 2]), leaves=np.array([1, 2]), tie=np.array([0, 1, 1]))
    with pytest.raises(RecipeError, match="a tree with ties"):
        learn_in_order(tied, [np.ones((1, 1, 2))], np.zeros((1, 3), np.int64), None, gate=0.0, horizon=1.0)


def test_tuples_are_numbered_as_they_come():
    rows = np.array([[2, 2], [1, 1], [2, 2], [0, 0], [1, 1]])
    assert distinct_rows(rows)[1].tolist() == [0, 1, 0, 2, 1]


def test_groups_by_information_find_tokens_that_say_the_same():
    rng = np.random.default_rng(0)
    first, second, labels = (rng.integers(0, 2, 400) for _ in range(3))
    tokens = np.stack([first, second, first, second], axis=1)  # what belongs together stands apart
    law = Exemplars(exemplars=4, together=2, parts=2, sweeps=1, neighbour=0.0)
    law.fit(ValueCodebook((1, 2, 2), bins=2), tokens, labels, 2, None, seed=0)
    owner = law.tree.parent[law.tree.leaves]
    assert owner[0] == owner[2] != owner[1] == owner[3]


# What counts how often


@pytest.mark.parametrize("choose", ["first", "clusters"])
@pytest.mark.parametrize("learn", ["sweeps", "in-order"])
@pytest.mark.parametrize("parts", [0, 3])
def test_the_root_counts_each_image_by_its_weight(book, data, choose, learn, parts):
    tokens, labels = data
    values = {"choose": choose, "learn": learn, "parts": parts, "edges": (2,), "exemplars": 3}
    for weight in (None, 0.25 + np.arange(60) % 3):
        model = Exemplars(**values).fit(book, tokens, labels, 2, weight, seed=0)
        want = np.bincount(labels, weight, 2)
        np.testing.assert_allclose(model.counts.root.dense()[0, 0], want, atol=1e-4)
        model.add(tokens[:7], labels[:7], None if weight is None else weight[:7])
        want += np.bincount(labels[:7], None if weight is None else weight[:7], 2)
        np.testing.assert_allclose(model.counts.root.dense()[0, 0], want, atol=1e-4)


@pytest.mark.parametrize("parts", [0, 3])
def test_in_order_first_images_count_once(book, data, parts):
    """Two exemplars of each class by weight, the others one after the other: no table counts an image twice."""
    tokens, labels = data
    values = {**PAPER, "parts": parts, "edges": (2,), "exemplars": 2, "gate": 0.0, "horizon": np.inf}
    for weight in (None, 0.5 + np.arange(60) % 2):
        model = Exemplars(**values).fit(book, tokens, labels, 2, weight, seed=0)
        total = 60 if weight is None else weight.sum()
        for layer, n in zip(model.tree.layers, model.counts.layers, strict=True):
            alpha = model.class_concentration if layer.depth == 1 else model.concentration
            np.testing.assert_allclose(n.dense().sum((1, 2)) - alpha * np.prod(layer.shape), total, rtol=1e-3)


def test_in_order_means_of_clusters_count_once_beforehand(book, data):
    tokens, labels = data
    values = {**PAPER, "choose": "clusters", "edges": (2,), "exemplars": 2, "gate": 0.0, "horizon": np.inf}
    for parts in (0, 3):
        model = Exemplars(**{**values, "parts": parts}).fit(book, tokens, labels, 2, None, seed=0)
        for layer, n in zip(model.tree.layers, model.counts.layers, strict=True):
            alpha = model.class_concentration if layer.depth == 1 else model.concentration
            np.testing.assert_allclose(n.dense().sum((1, 2)) - alpha * np.prod(layer.shape), 60 + 4, rtol=1e-3)


@pytest.mark.parametrize("values", [{}, PAPER, {**PAPER, "learn": "not"}, {"choose": "first", "parts": 0}])
def test_weight_zero_is_absent(book, data, values):
    tokens, labels = data
    kept = np.arange(60) % 5 > 0
    values = {**values, "edges": (2,), "exemplars": 2}
    weighed = Exemplars(**values).fit(book, tokens, labels, 2, kept.astype(float), seed=0)
    without = Exemplars(**values).fit(book, tokens[kept], labels[kept], 2, None, seed=0)
    assert weighed.counts.root == without.counts.root
    assert weighed.counts.layers == without.counts.layers
    weighed.add(tokens[:9], labels[:9], kept[:9].astype(float))
    without.add(tokens[:9][kept[:9]], labels[:9][kept[:9]])
    assert weighed.counts.layers == without.counts.layers
    before = weighed.counts
    weighed.add(tokens[:2], labels[:2], np.zeros(2))
    assert weighed.counts.layers == before.layers


def test_exemplars_alone_count_by_their_weights(book):
    tokens = np.array([[0] * 8, [2] * 8, [0] * 8, [2] * 8])
    labels, weight = np.array([0, 1, 0, 1]), np.array([2.0, 1.0, 3.0, 0.5])
    values = {**PAPER, "learn": "not", "exemplars": 1, "edges": (2,)}
    first = Exemplars(**values).fit(book, tokens, labels, 2, weight, seed=0)
    np.testing.assert_allclose(first.counts.root.dense()[0, 0], [2, 1])
    means = Exemplars(**{**values, "choose": "clusters"}).fit(book, tokens, labels, 2, weight, seed=0)
    np.testing.assert_allclose(means.counts.root.dense()[0, 0], [5, 1.5])
    n = means.counts.layers[0].dense()[0] - means.class_concentration
    np.testing.assert_allclose(n, [[5, 0], [0, 1.5]], atol=1e-5)


def test_means_of_exemplars_are_weighed(book):
    tokens = np.array([[0] * 8, [2] * 8, [2] * 8, [1] * 8])
    members, weight = np.array([0, 0, -1, 1]), np.array([3.0, 1.0, 9.0, 1.0])
    assert exemplars._exemplar_tokens(tokens, members, weight)[:, 0].tolist() == [0, 1]
    assert exemplars._exemplar_tokens(tokens, members, weight[[1, 0, 2, 3]])[:, 0].tolist() == [2, 1]
