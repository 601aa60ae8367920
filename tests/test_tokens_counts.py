"""Counts are additive integers, and what is inferred from them is exact."""

import itertools
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from renorm.errors import DataError, RecipeError
from renorm.tokens.trees import counts
from renorm.tokens.trees.counts import (
    Counts,
    forget,
    gate,
    log_evidence,
    mutual_information,
    reduce,
    smooth,
    sparse_prior,
)
from renorm.tokens.trees.tree import Tree
from renorm.tokens.trees.tree_counts import TreeCounts

SHAPE = (2, 3, 4)
events = st.lists(st.tuples(st.integers(0, 1), st.integers(-1, 2), st.integers(-1, 3)), max_size=30)


def counted(pairs, **more):
    t, s, k = np.array(pairs, np.int64).reshape(-1, 3).T
    return Counts.of(SHAPE, table=t, parent=s, child=k, **more)


@given(events, events, events)
@settings(max_examples=50, deadline=None)
def test_counts_are_additive_and_know_no_order(a, b, c):
    together = counted(a + b + c)
    assert counted(a) + counted(b) + counted(c) == together
    assert counted(c) + (counted(b) + counted(a)) == together
    assert together == counted((a + b + c)[::-1])
    assert together.total == sum(s >= 0 and k >= 0 for _, s, k in a + b + c)


def test_a_hand_count():
    n = counted([(0, 1, 3), (0, 1, 3), (1, 2, 0), (0, -1, 2), (1, 1, -1)])
    expected = np.zeros(SHAPE)
    expected[0, 1, 3], expected[1, 2, 0] = 2, 1
    assert np.array_equal(n.dense(), expected)
    assert Counts.from_state(n.state()) == n
    assert Counts.from_dense(expected) == n
    assert n.grown((2, 4, 5)).dense()[0, 1, 3] == 2


def test_real_weights_add_exactly():
    parts = [Counts.of((1, 1, 1), parent=[0], child=[0], weight=[w]) for w in (0.1, 0.2, 0.7, 3.0)]
    sums = {sum(order[1:], order[0]).total for order in itertools.permutations(parts)}
    assert len(sums) == 1
    assert sums.pop() == pytest.approx(4.0, abs=1e-5)


def test_evidence_is_the_product_of_predictive_probabilities():
    rng = np.random.default_rng(0)
    alpha, seen, total = np.array([0.5, 1.0, 2.5]), np.zeros(3), 0.0
    for k in rng.integers(0, 3, 40):
        total += np.log(smooth(seen, alpha / alpha.sum(), alpha.sum())[k])
        seen[k] += 1
    assert log_evidence(seen, alpha) == pytest.approx(total, abs=1e-12)


def test_evidence_is_an_integral_over_tables():
    value, _ = quad(lambda p: p**3 * (1 - p) ** 2, 0, 1)  # uniform prior on a coin
    assert float(np.exp(log_evidence(np.array([3.0, 2.0]), 1.0))) == pytest.approx(value, rel=1e-12)


def test_back_off_in_numbers():
    n = np.array([[8.0, 0.0], [0.0, 0.0]])
    assert smooth(n, np.array([0.25, 0.75]), 2.0) == pytest.approx(np.array([[8.5 / 10, 1.5 / 10], [0.25, 0.75]]))
    assert smooth(n, None, 0.0) == pytest.approx(np.array([[1.0, 0.0], [0.5, 0.5]]))


def test_mutual_information_in_numbers():
    assert mutual_information(np.array([[1.0, 1.0], [1.0, 1.0]])) == 0
    p = np.array([[3.0, 1.0], [1.0, 3.0]])  # a symmetric channel that errs one time in four
    channel = np.log(2) + 0.75 * np.log(0.75) + 0.25 * np.log(0.25)
    assert mutual_information(p) == pytest.approx(channel, abs=1e-15)
    assert mutual_information(np.zeros((2, 2))) == 0


def test_the_gate_follows_the_information():
    sharp, blurred = np.array([[4.0, 0.0], [0.0, 4.0]]), np.array([[4.0, 1.0], [0.0, 4.0]])
    gain = mutual_information(blurred) - mutual_information(sharp)
    assert gate(sharp, blurred, 2.0) == pytest.approx(1 / (1 + np.exp(-2 * gain)))
    assert gate(sharp, blurred, 0.0) == 1


def test_forgetting_tends_to_its_horizon():
    a = np.zeros((1, 2))
    for _ in range(5000):
        a = forget(a, a + np.array([[0.5, 0.5]]), np.array(1.0), 100.0)
    assert a.sum() == pytest.approx(100.0, rel=1e-6)


def test_model_reduction_equals_the_difference_of_evidences():
    p, r, n = np.array([1.0, 1.0, 2.0]), np.array([1.0, 0.03, 0.5]), np.array([7.0, 0.0, 3.0])
    result = reduce(p, p + n, r)
    assert result.gain == pytest.approx(log_evidence(n, r) - log_evidence(n, p), abs=1e-12)
    assert result.posterior == pytest.approx(r + n)


def test_a_sparse_prior_wins_where_a_row_is_sparse_and_is_the_prior_where_it_is_not():
    p, n = np.full((2, 4), 1 / 4), np.array([[60.0, 0.0, 0.0, 0.0], [20.0, 20.0, 20.0, 1.0]])
    r = sparse_prior(p, p + n)
    assert r.sum(-1) == pytest.approx([1.0, 1.0])
    gain = reduce(p, p + n, r).gain
    assert gain[0] > 1
    assert gain[1] == pytest.approx(0, abs=1e-12)
    assert r[1] == pytest.approx(p[1])


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: Counts((2, 0, 1)), RecipeError, "each >= 1"),
        (lambda: Counts.of((1, 2, 2), parent=[2], child=[0]), DataError, r"0 \.\.\. 1, got 2"),
        (lambda: Counts.of((1, 2, 2), parent=[-2], child=[0]), DataError, "got -2"),
        (lambda: Counts.of((1, 2, 2), parent=[1], child=[0], weight=[-1.0]), DataError, ">= 0, got -1"),
        (lambda: Counts((1, 2, 2)) + Counts((1, 2, 3)), DataError, "shapes agree"),
        (lambda: Counts((1, 2, 2)).grown((1, 1, 2)), DataError, "only grow"),
        (lambda: smooth(np.ones(2), None, -1.0), RecipeError, "got -1"),
        (lambda: log_evidence(np.ones(2), 0.0), RecipeError, "must be > 0"),
        (lambda: forget(np.ones((1, 2)), np.ones((1, 2)), np.array(1.0), 0.0), RecipeError, "horizon"),
        (lambda: sparse_prior(np.ones(2), np.ones(2), 1.0), RecipeError, "odds"),
        (lambda: reduce(np.ones(2), np.ones(2), np.zeros(2)), RecipeError, "every concentration"),
    ],
)
def test_bad_input_is_refused_by_name(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_pieces_of_events_count_as_one(monkeypatch):
    rng = np.random.default_rng(0)
    table, parent, child = np.arange(5), rng.integers(-1, 3, (200, 5)), rng.integers(-1, 4, (200, 5))
    for weight in (None, rng.random((200, 1)), rng.integers(0, 3, (200, 1)).astype(float)):
        more = {"table": table % 2, "parent": parent, "child": child, "weight": weight}
        whole = Counts.of(SHAPE, **more)
        dense = np.zeros(SHAPE)
        share = np.broadcast_to(1.0 if weight is None else weight, parent.shape)
        seen = (parent >= 0) & (child >= 0)
        np.add.at(dense, (np.broadcast_to(table % 2, parent.shape)[seen], parent[seen], child[seen]), share[seen])
        assert whole.dense() == pytest.approx(dense, abs=1e-4)
        with monkeypatch.context() as patch:
            patch.setattr(counts, "EVENTS", 16)
            assert Counts.of(SHAPE, **more) == whole
            assert Counts.of(SHAPE, **more).unit == whole.unit


@pytest.mark.parametrize("weighed", [False, True])
def test_counting_takes_little_more_room_than_its_input(weighed):
    rng = np.random.default_rng(0)
    states = np.c_[rng.integers(0, 10, 8000), rng.integers(0, 256, (8000, 400))]
    tree = Tree(np.append(-1, np.zeros(400, np.int64)), np.append(10, np.full(400, 256)), np.arange(1, 401))
    weight = rng.random(8000) if weighed else None
    tracemalloc.start()
    n = TreeCounts.of(tree, states, weight)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 * states.nbytes  # a piece of 2^20 events takes 3 of it, however many images there are
    parts = (np.arange(8000) % 3 == k for k in range(3))
    assert (
        sum(
            (TreeCounts.of(tree, states[k], None if weight is None else weight[k]) for k in parts),
            TreeCounts.empty(tree),
        ).layers
        == n.layers
    )
