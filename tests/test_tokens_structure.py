"""Parents from children: hand-drawn blocks, brute-force nearest tuples and centroids, entropies worked out by hand."""

import itertools

import numpy as np
import pytest

from renorm.errors import DataError, RecipeError
from renorm.tokens.families.structure import (
    Blocks,
    ClusterParents,
    EnumerateParents,
    entropy,
    halvings,
    information_kept,
    tree_parents,
)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


# Blocks


def test_blocks_without_overlap_by_hand():
    blocks = Blocks((4, 4))
    assert blocks.parent_grid == (2, 2)
    assert blocks.children.tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    assert blocks.owner.tolist() == [0, 0, 1, 1, 0, 0, 1, 1, 2, 2, 3, 3, 2, 2, 3, 3]


def test_a_block_over_the_edge_has_fewer_children():
    blocks = Blocks((3, 3))
    assert blocks.children.tolist() == [[0, 1, 3, 4], [2, -1, 5, -1], [6, 7, -1, -1], [8, -1, -1, -1]]
    assert blocks.owner.tolist() == [0, 0, 1, 0, 0, 1, 2, 2, 3]


def test_overlapping_blocks_by_hand():
    blocks = Blocks((3, 3), stride=(1, 1))
    assert blocks.children.tolist() == [[0, 1, 3, 4], [1, 2, 4, 5], [3, 4, 6, 7], [4, 5, 7, 8]]
    assert blocks.owner.tolist() == [0, 1, 1, 2, 3, 3, 2, 2, 3]


def test_the_nearest_centre_owns():
    blocks = Blocks((1, 5), (1, 3), (1, 2))  # centres 1 and 3; the child at 2 is between them
    assert blocks.owner.tolist() == [0, 0, 1, 1, 1] or blocks.owner.tolist() == [0, 0, 0, 1, 1]
    assert blocks.owner[[0, 1, 3, 4]].tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("grid", [(1, 1), (1, 7), (5, 3), (8, 8)])
@pytest.mark.parametrize(("size", "stride"), [((2, 2), (2, 2)), ((2, 2), (1, 1)), ((3, 2), (2, 1)), ((9, 9), (9, 9))])
def test_every_child_has_parents_and_its_owner_is_one(grid, size, stride):
    blocks = Blocks(grid, size, stride)
    number = grid[0] * grid[1]
    assert len(blocks.children) == blocks.parent_grid[0] * blocks.parent_grid[1]
    assert set(blocks.children.ravel().tolist()) - {-1} == set(range(number))
    assert all(child in blocks.children[blocks.owner[child]] for child in range(number))
    assert (blocks.children >= 0).any(axis=1).all()  # no empty block


def test_overlapping_parents_all_own_a_child():
    assert set(Blocks((8, 8), stride=(1, 1)).owner.tolist()) == set(range(49))


def test_locations_are_means_of_children():
    where = np.array(list(itertools.product([1.5, 5.5, 9.5], [1.5, 5.5, 9.5])))
    assert Blocks((3, 3)).locations(where).tolist() == [[3.5, 3.5], [3.5, 9.5], [9.5, 3.5], [9.5, 9.5]]


def test_tuples_and_hidden_parents():
    tokens = np.array([[4, 5, -1], [1, 2, 3]])
    blocks = Blocks((1, 3), (1, 2))
    assert blocks.tuples(tokens).tolist() == [[[4, 5], [-1, -1]], [[1, 2], [3, -1]]]
    assert blocks.hidden(tokens).tolist() == [[False, True], [False, False]]


@pytest.mark.parametrize("grid", [(1, 1), (1, 6), (8, 8), (13, 7)])
def test_halvings_end_in_one_parent(grid):
    levels = halvings(grid)
    ends = [grid, *(blocks.parent_grid for blocks in levels)]
    assert ends[-1] == (1, 1)
    assert [blocks.grid for blocks in levels] == ends[:-1]


def test_tree_parents_by_hand():
    levels = [Blocks((1, 4), (1, 2)), Blocks((1, 2), (1, 2))]
    assert tree_parents(levels).tolist() == [-1, 0, 1, 1, 2, 2, 3, 3]


def test_the_tree_of_overlapping_blocks_is_a_tree():
    levels = [Blocks((8, 8), stride=(1, 1)), Blocks((7, 7), (3, 3), (2, 2)), Blocks((3, 3), (3, 3))]
    parent = tree_parents(levels)
    assert len(parent) == 1 + 1 + 9 + 49 + 64
    assert parent[0] == -1
    assert (parent[1:] < np.arange(1, len(parent))).all()
    assert set(parent[-64:].tolist()) == set(range(11, 60))  # the leaves hang below the 49 parents


# clusters


def test_clusters_by_hand():
    """Two looks, 0 and 10: blocks of mostly the one and of mostly the other (this seed starts in both)."""
    tokens = np.array([[0, 0, 0, 0], [0, 0, 0, 1], [1, 1, 1, 1], [1, 1, 1, 0]])
    vectors = np.array([[0.0], [10.0]])
    parents = ClusterParents(2, Blocks((2, 2)), standardise=False).fit(tokens, vectors, seed=1)
    found = parents.encode(tokens)[:, 0]
    assert found[0] == found[1] != found[2] == found[3]
    assert parents.vectors[found[0]].tolist() == [0, 0, 0, 5]
    assert parents.vectors[found[2]].tolist() == [10, 10, 10, 5]
    assert parents.sizes.tolist() == [2]


@pytest.mark.parametrize("standardise", [True, False])
@pytest.mark.parametrize("start", ["samples", "distinct"])
def test_each_block_takes_the_nearest_centroid(rng, standardise, start):
    tokens, vectors = rng.integers(0, 6, (40, 15)), rng.standard_normal((6, 3))
    blocks = Blocks((3, 5), stride=(1, 2))
    parents = ClusterParents(7, blocks, standardise=standardise, start=start).fit(tokens, vectors, seed=1)
    found = parents.encode(tokens)
    for image, block in itertools.product(range(40), range(len(blocks.children))):
        children = blocks.children[block]
        v = np.concatenate([vectors[tokens[image, c]] if c >= 0 else np.zeros(3) for c in children])
        if standardise:
            v = (v - v.mean()) / (v.std() + 1e-6)
        distance = ((parents.vectors - v) ** 2).sum(axis=1)
        assert distance[found[image, block]] <= distance.min() + 1e-12


def test_distinct_starts_leave_no_centroid_to_a_repeated_tuple():
    tokens = np.array([[0, 0]] * 1000 + [[0, 1], [1, 0], [1, 1]])
    parents = ClusterParents(4, Blocks((1, 2), (1, 2)), standardise=False)
    assert len(set(parents.fit(tokens, np.array([[0.0], [1.0]]), seed=0).encode(tokens)[:, 0].tolist())) == 4


def test_a_centroid_is_the_mean_of_all_blocks_not_of_distinct_ones():
    tokens = np.array([[0, 0], [0, 0], [0, 0], [0, 1]])
    parents = ClusterParents(1, Blocks((1, 2), (1, 2)), standardise=False).fit(tokens, np.array([[2.0], [6.0]]), seed=0)
    assert parents.vectors.tolist() == [[2, 3]]


def test_an_empty_cluster_keeps_its_centroid():
    tokens = np.zeros((5, 2), int)
    parents = ClusterParents(2, Blocks((1, 2), (1, 2)), standardise=False, start="samples")
    assert parents.fit(tokens, np.array([[3.0]]), seed=0).vectors.tolist() == [[3, 3], [3, 3]]


def test_centroids_are_the_next_level_s_children(rng):
    tokens = rng.integers(0, 4, (50, 16))
    vectors = rng.standard_normal((4, 2)).astype(np.float32)
    states, widths = tokens, []
    for blocks in halvings((4, 4)):
        parents = ClusterParents(5, blocks).fit(states, vectors, seed=0)
        states, vectors = parents.encode(states), parents.vectors
        widths.append(vectors.shape)
    assert widths == [(5, 8), (5, 32)]
    assert states.shape == (50, 1)
    assert vectors.dtype == np.float32


def test_mini_batches_lower_the_distance(rng):
    tokens, vectors = rng.integers(0, 8, (300, 4)), rng.standard_normal((8, 2))
    blocks = Blocks((2, 2))
    parents = ClusterParents(6, blocks, standardise=False, method="mini-batch").fit(tokens, vectors, seed=0)
    points = vectors[tokens].reshape(300, 8)
    spread = ((points - points.mean(axis=0)) ** 2).sum()
    assert ((points - parents.vectors[parents.encode(tokens)[:, 0]]) ** 2).sum() < 0.8 * spread


def test_hidden_children_hide_their_parent(rng):
    tokens = rng.integers(0, 3, (20, 4))
    blocks = Blocks((1, 4), (1, 2))
    seen = tokens.copy()
    seen[:5, 0] = -1
    for parents in (
        ClusterParents(3, blocks).fit(tokens, rng.standard_normal((3, 2)), seed=0),
        EnumerateParents(blocks).fit(tokens),
    ):
        found = parents.encode(seen)
        assert (found[:5, 0] == -1).all()
        assert np.array_equal(found[5:], parents.encode(tokens)[5:])
        assert np.array_equal(found[:, 1], parents.encode(tokens)[:, 1])


# enumeration


def test_states_are_numbered_as_they_are_seen():
    tokens = np.array([[5, 5, 0, 1], [0, 1, 5, 5], [2, 2, 5, 5]])
    shared = EnumerateParents(Blocks((1, 4), (1, 2))).fit(tokens)
    assert shared.encode(tokens).tolist() == [[0, 1], [1, 0], [2, 0]]
    assert shared.sizes.tolist() == [3, 3]
    own = EnumerateParents(Blocks((1, 4), (1, 2)), shared=False).fit(tokens)
    assert own.encode(tokens).tolist() == [[0, 0], [1, 1], [2, 1]]
    assert own.sizes.tolist() == [3, 2]


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("blocks", [Blocks((4, 6)), Blocks((3, 5), stride=(1, 1)), Blocks((3, 5), (4, 2), (3, 2))])
def test_without_a_limit_nothing_is_lost(rng, blocks, shared):
    tokens = rng.integers(0, 1000, (30, blocks.grid[0] * blocks.grid[1]))
    parents = EnumerateParents(blocks, shared=shared).fit(tokens)
    assert np.array_equal(parents.decode(parents.encode(tokens)), tokens)
    assert parents.known(tokens).all()


def test_a_pyramid_of_enumerated_parents_is_lossless(rng):
    tokens = rng.integers(0, 3, (25, 64))
    states, levels = tokens, []
    for blocks in halvings((8, 8)):
        levels.append(EnumerateParents(blocks).fit(states))
        states = levels[-1].encode(states)
    for parents in reversed(levels):
        states = parents.decode(states)
    assert np.array_equal(states, tokens)


def test_new_tuples_take_the_nearest_known(rng):
    train, test = rng.integers(0, 4, (40, 6)), rng.integers(0, 5, (200, 6))
    parents = EnumerateParents(Blocks((1, 6), (1, 6))).fit(train)
    order = list(dict.fromkeys(map(tuple, train.tolist())))
    for row, state, known in zip(test.tolist(), parents.encode(test)[:, 0], parents.known(test)[:, 0], strict=True):
        distances = [sum(a != b for a, b in zip(row, other, strict=True)) for other in order]
        assert state == distances.index(min(distances))
        assert known == (min(distances) == 0)


def test_a_limit_keeps_the_frequent_in_their_order():
    tokens = np.array([[0, 1], [0, 0], [1, 1], [1, 1], [0, 1], [1, 0]])
    parents = EnumerateParents(Blocks((1, 2), (1, 2)), limit=2).fit(tokens)
    assert parents.decode(np.array([[0], [1]])).tolist() == [[0, 1], [1, 1]]


def test_keys_of_large_tokens_do_not_overflow():
    """With tokens below 2^61 a key of three would lose its first one to the sign bit and beyond."""
    tokens = np.array([[0, 5, 2**61 - 2], [1, 5, 2**61 - 2], [8, 5, 2**61 - 2], [8, 4, 2**61 - 2]])
    parents = EnumerateParents(Blocks((1, 3), (1, 3))).fit(tokens)
    assert parents.encode(tokens)[:, 0].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("kind", ["cluster", "enumerate", "enumerate each"])
def test_state_and_back(rng, kind):
    tokens, blocks = rng.integers(0, 5, (60, 12)), Blocks((3, 4), stride=(2, 1))
    if kind == "cluster":
        parents = ClusterParents(9, blocks).fit(tokens, rng.standard_normal((5, 2)), seed=0)
    else:
        parents = EnumerateParents(blocks, shared=kind == "enumerate").fit(tokens)
    state = parents.state()
    assert all(isinstance(array, np.ndarray) for array in state.values())
    again = type(parents).from_state(state)
    new = rng.integers(0, 5, (30, 12))
    assert np.array_equal(again.encode(new), parents.encode(new))
    assert np.array_equal(again.sizes, parents.sizes)


def test_a_seed_fixes_the_centroids(rng):
    tokens, vectors = rng.integers(0, 6, (50, 4)), rng.standard_normal((6, 2))
    first, second, other = (ClusterParents(5, Blocks((2, 2))).fit(tokens, vectors, seed=s).vectors for s in (3, 3, 4))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


# information


def test_entropy_by_hand():
    assert entropy(np.array([7, 7, 7])) == 0
    assert entropy(np.array([0, 1, 1, 1])) == pytest.approx(-0.25 * np.log(0.25) - 0.75 * np.log(0.75) + 1 / 8)
    assert entropy(np.array([[0, 1], [0, 1], [1, 0], [1, 0]])) == pytest.approx(np.log(2) + 1 / 8)


def test_information_by_hand():
    s, y = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    assert information_kept(s, y) == pytest.approx((1 + 1 - 3) / 8)  # 0, and the correction of 2, 2 and 4 states
    assert information_kept(s, s) == pytest.approx(np.log(2) + 1 / 8)
    hidden = np.array([0, 0, 1, 1, -1])
    assert information_kept(hidden, np.array([0, 0, 1, 1, 1])) == pytest.approx(np.log(2) + 1 / 8)


def test_the_correction_takes_most_of_the_bias(rng):
    """Two independent variables of 16 states, 2000 draws: the plug-in gives 225 / 4000 nats too much."""
    s, y = rng.integers(0, 16, 2000), rng.integers(0, 16, 2000)
    assert abs(information_kept(s, y)) < 0.02


def test_enumerated_parents_keep_all_and_clusters_less(rng):
    tokens = rng.integers(0, 2, (500, 4))
    labels = tokens[:, 0] ^ tokens[:, 3]
    blocks, vectors = Blocks((2, 2)), np.array([[0.0], [1.0]])
    whole = EnumerateParents(blocks).fit(tokens).encode(tokens)
    coarse = ClusterParents(2, blocks, standardise=False).fit(tokens, vectors, seed=0).encode(tokens)
    assert information_kept(whole, tokens) == pytest.approx(entropy(tokens))
    assert information_kept(whole, labels) == pytest.approx(entropy(labels))
    assert information_kept(coarse, labels) < 0.5 * information_kept(whole, labels)


# bad input


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Blocks((4, 4), (2, 2), (3, 1)), RecipeError, "loses the children between blocks"),
        (lambda: Blocks((4, 4), (0, 2), (0, 2)), RecipeError, "must be >= 1"),
        (lambda: halvings((4, 4), 1), RecipeError, "must be >= 2 children wide"),
        (lambda: tree_parents([Blocks((4, 4)), Blocks((4, 4))]), RecipeError, "stands on the parents below"),
        (lambda: Blocks((2, 2)).tuples(np.zeros((3, 5), int)), DataError, "needs one token each, got 5"),
        (lambda: ClusterParents(0, Blocks((2, 2))), RecipeError, "at least one state and one iteration"),
        (lambda: ClusterParents(2, Blocks((2, 2)), method="k"), Exception, "lloyd or mini-batch|method"),
        (lambda: _clusters().encode(np.zeros((1, 4), int)), DataError, "call fit first"),
        (lambda: _clusters().fit(np.full((3, 4), 2), np.ones((2, 1)), seed=0), DataError, "2 given, got token 2"),
        (lambda: _clusters().fit(np.zeros((3, 4), int), np.ones((2, 1)), seed=0), RecipeError, "got 1"),
        (lambda: EnumerateParents(Blocks((2, 2)), limit=0), RecipeError, "limit of states must be >= 1"),
        (lambda: EnumerateParents(Blocks((2, 2))).encode(np.zeros((1, 4), int)), DataError, "before fit"),
        (lambda: EnumerateParents(Blocks((2, 2))).fit(np.full((2, 4), -1)), DataError, "without a hidden one"),
        (lambda: EnumerateParents(Blocks((2, 2))).decode(np.zeros((1, 4), int)), DataError, "there are 1 parents"),
        (lambda: information_kept(np.zeros(2, int), np.zeros(3, int)), DataError, "got 2 and 3"),
        (lambda: information_kept(np.full(2, -1), np.zeros(2, int)), DataError, "without a hidden state"),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def _clusters():
    return ClusterParents(2, Blocks((2, 2)))
