# ruff: noqa: B905
"""Lossless coding under a tree: the law's own code length, the same integers everywhere, no damaged file believed."""

import itertools
import math
import struct
import sys
import zlib

import numpy as np
import pytest
import torch

from renorm.bench import image_codecs
from renorm.data import DataSpec, load
from renorm.errors import DataError, RecipeError
from renorm.tokens.codec import range_coder
from renorm.tokens.codec.container import HEADER, MAGIC, Container, read_container, write_container
from renorm.tokens.codec.range_coder import TOTAL, RangeDecoder, RangeEncoder
from renorm.tokens.codec.tree_codec import TreeCodec, quantise
from renorm.tokens.trees.shape import Tree
from renorm.tokens.trees.tree import TreeLaw


def random_law(seed, nodes=7, most=4, inner=False, tie=False):
    """A random tree with random tables; coded nodes are childless, or any with ``inner``."""
    draw = np.random.default_rng(seed)
    parent = np.array([-1, *(draw.integers(0, node) for node in range(1, nodes))])
    states = draw.integers(1, most + 1, nodes)
    states[0] = 3
    childless = np.setdiff1d(np.arange(nodes), parent)
    chosen = draw.permutation(nodes)[:4] if inner else draw.permutation(childless)
    tied = None
    if tie:
        parent, states = np.array([-1, 0, 0, 1, 1, 2, 2]), np.array([3, 4, 4, 2, 2, 2, 2])
        chosen, tied = np.array([6, 3, 4, 5]), np.array([0, 1, 1, 2, 3, 2, 3])
    tree = Tree(parent, states, chosen, tied)
    tables = [draw.dirichlet(np.ones(layer.shape[1]), (layer.tables, layer.shape[0])) for layer in tree.layers]
    return tree, draw.dirichlet(np.ones(states[0])), tables


def brute_force(tree, root, tables, values):
    """p(values) by enumeration of every state of every node, times 1 per row."""
    table = {
        int(n): tables[i][t]
        for i, layer in enumerate(tree.layers)
        for n, t in zip(layer.nodes, layer.table, strict=True)
    }
    total = np.zeros(len(values))
    for states in itertools.product(*(range(size) for size in tree.states)):
        p = root[states[0]] * np.prod([table[i][states[tree.parent[i]], states[i]] for i in range(1, len(states))])
        total += p * (values == np.array(states)[tree.leaves]).all(axis=1)
    return total


def every_value(tree):
    return np.array(list(itertools.product(*(range(tree.states[leaf]) for leaf in tree.leaves))), np.int64)


KINDS = [
    *({"seed": seed} for seed in range(6)),
    *({"seed": seed, "inner": True} for seed in range(6)),
    {"seed": 0, "tie": True},
    {"seed": 1, "nodes": 1, "inner": True},
    {"seed": 2, "nodes": 2},
]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_the_code_length_is_the_laws_own(kind):
    """Every row of values: -log2 p by enumeration; 20-bit tables leave less than a thousandth of a bit."""
    tree, root, tables = random_law(**kind)
    root = 0.97 * root + 0.03 / len(root)
    tables = [0.97 * table + 0.03 / table.shape[-1] for table in tables]
    values = every_value(tree)
    exact = brute_force(tree, root, tables, values)
    assert exact.sum() == pytest.approx(1)
    codec = TreeCodec(tree, root, tables, shape=(1, len(tree.leaves)), table_bits=20)
    assert codec.bits(values) == pytest.approx(-np.log2(exact), abs=1e-3)
    assert (2.0 ** -codec.bits(values)).sum() == pytest.approx(1, abs=1e-9)  # a law of its own, whatever was rounded


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("block", [3, 1024])
def test_every_row_comes_back(kind, block):
    tree, root, tables = random_law(**kind)
    codec = TreeCodec(tree, root, tables, shape=(1, len(tree.leaves)))
    values = every_value(tree)[: 20 * block]
    data = codec.compress(values, block=block)
    assert np.array_equal(codec.decompress(data), values)
    payload = read_container(data).payload
    assert 8 * len(payload) <= codec.bits(values).sum() + 64


def test_a_chain_deeper_than_pythons_recursion():
    nodes = 1500
    tree = Tree(np.arange(-1, nodes - 1), np.full(nodes, 2), np.array([nodes - 1]))
    tables = [np.array([[[0.9, 0.1], [0.1, 0.9]]])] * (nodes - 1)
    codec = TreeCodec(tree, np.array([1.0, 0.0]), tables, shape=(1, 1))
    assert codec.bits(np.array([[0], [1]])) == pytest.approx([1, 1], abs=1e-6)  # 0.8^1499: nothing is left of the root


def test_a_state_thought_impossible_comes_back():
    """30 zeros make state 1 less likely by 99^30 = 2^199, far below one in K = 2^35; then 60 ones bring it back."""
    tree = Tree(np.array([-1] + [0] * 90), np.array([2] * 91), np.arange(1, 91))
    table = np.array([[0.99, 0.01], [0.01, 0.99]])
    codec = TreeCodec(tree, np.array([0.5, 0.5]), [np.stack([table] * 90)], shape=(1, 90))
    found = codec.bits(np.array([[0] * 30 + [1] * 60]))
    exact = -np.log2(0.5 * (0.99**30 * 0.01**60 + 0.01**30 * 0.99**60))
    assert 35 < found[0] < exact < 210 < -60 * np.log2(0.01)


def test_the_law_of_a_tree_agrees():
    tree, root, tables = random_law(4, nodes=40, most=9)
    law = TreeLaw(tree, torch.from_numpy(root), [torch.from_numpy(table) for table in tables])
    sample = law.sample(torch.full((200, 40), -1), generator=torch.Generator().manual_seed(0))
    values = sample[:, torch.from_numpy(tree.leaves)].numpy()
    exact = -law.log_prob(law.observe(torch.from_numpy(values))).numpy() / np.log(2)
    codec = TreeCodec(tree, law.root, law.tables, shape=(1, len(tree.leaves)), table_bits=20)
    assert codec.bits(values) == pytest.approx(exact, rel=1e-4)


def test_a_number_worked_out_by_hand():
    """Two states, one leaf of two values: p(0) = 1/2 * 3/4 + 1/2 * 1/4 = 1/2, then p(0 | 0) = (9 + 1) / 16."""
    tree = Tree(np.array([-1, 0, 0]), np.array([2, 2, 2]), np.array([1, 2]))
    table = np.array([[3, 1], [1, 3]]) / 4
    codec = TreeCodec(tree, np.array([0.5, 0.5]), [np.stack([table, table])], shape=(1, 2))
    found = codec.bits(np.array([[0, 0], [0, 1]]))
    assert found == pytest.approx([1 - np.log2(10 / 16), 1 - np.log2(6 / 16)], abs=1e-6)


def test_a_chain_with_wide_leaves():
    """Sixty hidden nodes deep, 256 values a leaf, beliefs that settle: still the law's own length to 1e-3 of it."""
    draw = np.random.default_rng(0)
    hidden = 60
    parent = np.array([-1, *range(hidden - 1), *range(hidden)])
    states = np.array([32] * hidden + [256] * hidden)
    tree = Tree(parent, states, np.arange(hidden, 2 * hidden))
    tables = [
        0.99 * draw.dirichlet(np.full(layer.shape[1], 0.05), (layer.tables, layer.shape[0])) + 0.01 / layer.shape[1]
        for layer in tree.layers
    ]
    law = TreeLaw(tree, torch.full((32,), 1 / 32, dtype=torch.float64), [torch.from_numpy(table) for table in tables])
    sample = law.sample(torch.full((30, 2 * hidden), -1), generator=torch.Generator().manual_seed(0))
    values = sample[:, hidden:].numpy()
    exact = -law.log_prob(law.observe(torch.from_numpy(values))).numpy() / np.log(2)
    codec = TreeCodec(tree, law.root, law.tables, shape=(1, hidden))
    assert codec.bits(values).sum() == pytest.approx(exact.sum(), rel=2e-3)
    assert np.array_equal(codec.decompress(codec.compress(values)), values)
    one = codec.compress(values[:1])
    assert np.array_equal(codec.decompress(one), values[:1])


def small():
    tree, root, tables = random_law(3, nodes=9)
    return TreeCodec(tree, root, tables, shape=(1, len(tree.leaves))), np.resize(
        every_value(tree), (20, len(tree.leaves))
    )


def by_the_page(data, tree, root, tables, bits):
    """docs/format.md read anew: one image at a time, Python's integers and floats, no array, no library."""
    axes, block, number = data[5], *struct.unpack_from("<H", data, 6), *struct.unpack_from("<I", data, 24)
    words = list(struct.unpack(f"<{(len(data) - 44 - 4 * axes) // 4}I", data[40 + 4 * axes : -4]))
    lower, span, point = 0, 2**64 - 1, 0

    def word():
        return words.pop(0) if words else 0

    def symbol(weights):
        nonlocal lower, span, point
        unit, left = span >> 24, 0
        place = (point - lower) // unit
        chosen = next(k for k in range(len(weights)) if place < sum(weights[: k + 1]))
        left = sum(weights[:chosen])
        lower, span = lower + unit * left, unit * weights[chosen]
        if span < 2**32:
            lower, span, point = lower << 32, span << 32, point << 32 | word()
        return chosen

    def scaled(row, limit):
        factor = limit / max(row)
        return [max(1.0, float(math.floor(x * factor))) for x in row]

    table = {int(n): tables[i][t] for i, layer in enumerate(tree.layers) for n, t in zip(layer.nodes, layer.table)}
    table = {n: [[int(x) for x in row] for row in rows] for n, rows in table.items()} | {0: [[int(x) for x in root]]}
    limit = [2.0 ** (52 - bits - math.ceil(math.log2(size))) for size in tree.states]
    leaves = tree.leaves.tolist()

    def walk(node, above, seen):
        """Decode below ``node`` in a whole block; what it says of the state above, an image each."""
        rows = table[node]
        if node in leaves:
            for image, belief in enumerate(above):
                edge = [sum(int(b) * sum(row[:k]) for b, row in zip(belief, rows)) for k in range(len(rows[0]) + 1)]
                factor = (2**24 - len(rows[0])) / edge[-1]
                mark = [math.floor(f * factor) for f in edge[:-1]] + [2**24 - len(rows[0])]
                seen[image][leaves.index(node)] = symbol([b - a + 1 for a, b in itertools.pairwise(mark)])
            return [[float(row[values[leaves.index(node)]]) for row in rows] for values in seen]
        belief = [
            scaled(
                [float(sum(int(b) * row[k] for b, row in zip(each, rows))) for k in range(len(rows[0]))], limit[node]
            )
            for each in above
        ]
        evidence = [[1.0] * len(rows[0]) for _ in above]
        for child in [c for c in range(len(tree.parent)) if tree.parent[c] == node]:
            message = walk(child, belief, seen)
            belief = [scaled([x * y for x, y in zip(*both)], limit[node]) for both in zip(belief, message)]
            evidence = [scaled([x * y for x, y in zip(*both)], limit[node]) for both in zip(evidence, message)]
        return [[float(sum(int(e) * t for e, t in zip(each, row))) for row in rows] for each in evidence]

    point = word() << 32 | word()
    images = []
    for start in range(0, number, block):
        seen = [[0] * len(leaves) for _ in range(min(block, number - start))]
        walk(0, [[1.0]] * len(seen), seen)
        images += seen
    return np.array(images)


def test_a_file_of_version_one_stays_readable():
    """The whole file for fixed tables, byte by byte, and the page's own reading of it: a change of any rule shows."""
    tree = Tree(np.array([-1, 0, 1, 1, 0]), np.array([2, 3, 4, 4, 2]), np.array([2, 3, 4]))
    counts = {
        (2, 3): [[5, 2, 1], [1, 1, 6]],
        (3, 4): [[5, 1, 1, 1], [1, 4, 2, 1], [1, 1, 3, 3]],
        (2, 2): [[7, 1], [2, 6]],
    }
    tables = [np.array([counts[layer.shape]] * len(layer.nodes)) / 8 for layer in tree.layers]
    root = np.array([0.25, 0.75])
    codec = TreeCodec(tree, root, tables, shape=(1, 3), codebook_id=b"known")
    values = np.array([[0, 0, 0], [1, 2, 1], [3, 2, 1], [3, 3, 0], [0, 1, 0], [2, 2, 1], [1, 1, 1]])
    data = codec.compress(values, block=3)
    assert np.array_equal(codec.decompress(data), values)
    whole = [(table * 2**16).astype(int) for table in tables]
    assert np.array_equal(by_the_page(data, tree, root * 2**16, whole, 16), values)
    assert data.hex() == KNOWN_FILE


KNOWN_FILE = (
    "89524754010203004cac64f2747a3163e1a42ca6e6c8b5670700000008000000"
    "00000000ae9234d201000000030000005db16f190ba7fb3be1ad5d6a"
)


@pytest.mark.parametrize("seed", range(3))
def test_the_page_alone_reads_a_file(seed):
    """An independent decoder, on random trees with tables and depths of every kind."""
    tree, root, tables = random_law(seed + 20, nodes=12, most=6)
    root, tables = quantise(root, 16), [quantise(table, 16) for table in tables]
    codec = TreeCodec(tree, root, tables, shape=(1, 1))
    values = np.random.default_rng(seed).integers(0, tree.states[tree.leaves], (40, len(tree.leaves)))
    data = codec.compress(values, block=16)
    assert np.array_equal(by_the_page(data, tree, root, tables, 16), values)


@pytest.mark.parametrize("library", [1, 2])
def test_threads_change_no_byte(library):
    """Products of 64 states, large enough that the linear algebra splits them."""
    threadpoolctl = pytest.importorskip("threadpoolctl")
    draw = np.random.default_rng(0)
    tree = Tree(np.array([-1, 0, 1, 1, 1, 0, 5]), np.array([64, 64, 256, 256, 256, 64, 256]), np.array([2, 3, 4, 6]))
    tables = [draw.dirichlet(np.ones(layer.shape[1]), (layer.tables, layer.shape[0])) for layer in tree.layers]
    codec = TreeCodec(tree, draw.dirichlet(np.ones(64)), tables, shape=(2, 2))
    values = draw.integers(0, 256, (1500, 4))
    with threadpoolctl.threadpool_limits(limits=library):
        data = codec.compress(values)
        assert np.array_equal(codec.decompress(data), values)
    assert zlib.crc32(data) == zlib.crc32(codec.compress(values))


def test_beliefs_are_integers_and_sums_stay_below_two_to_53():
    """The bound of the docstring, on the largest numbers that can be: every sum is the sum of Python's integers."""
    draw = np.random.default_rng(0)
    for states, bits in [(32, 16), (33, 16), (256, 16), (4096, 20), (1, 20)]:
        tree = Tree(np.array([-1, 0]), np.array([states, 2]), np.array([1]))
        codec = TreeCodec(
            tree, np.full(states, 1 / states), [np.full((1, states, 2), 0.5)], shape=(1,), table_bits=bits
        )
        limit = codec._limit[0]
        assert limit.is_integer()
        belief = np.full((2, states), float(limit))
        belief[1] = np.floor(draw.random(states) * limit)
        table = quantise(draw.dirichlet(np.ones(3), states), bits)
        exact = [
            [sum(int(b) * int(t) for b, t in zip(row, column, strict=True)) for column in table.T] for row in belief
        ]
        assert max(map(max, exact)) <= 2**52
        assert (belief @ table.astype(np.float64)).astype(object).tolist() == exact


# -- integers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [8, 16, 20])
def test_quantised_rows_have_their_sum_and_no_zero(bits):
    draw = np.random.default_rng(bits)
    rows = np.concatenate([draw.dirichlet(np.full(64, a), 50) for a in (0.001, 0.1, 1, 100)] + [np.eye(64)])
    whole = quantise(rows, bits)
    assert (whole.sum(-1) == 2**bits).all()
    assert whole.min() == 1
    assert np.abs(whole - rows * 2**bits).max() <= 65


def test_quantised_by_hand():
    assert quantise(np.array([0.4, 0.35, 0.25]), 4).tolist() == [6, 6, 4]  # 6.4, 5.6, 4.0: the spare one to 5.6
    assert quantise(np.array([1.0, 0, 0, 0]), 4).tolist() == [13, 1, 1, 1]
    assert quantise(np.array([1 / 3, 1 / 3, 1 / 3]), 4).tolist() == [6, 5, 5]


@pytest.mark.parametrize(
    ("row", "match"),
    [([0.5, 0.6], "sum to 1"), ([-0.5, 1.5], "finite and >= 0"), ([np.nan, 1], "finite"), ([1 / 16] * 16, "no choice")],
)
def test_rows_that_are_no_probabilities(row, match):
    with pytest.raises(RecipeError, match=match):
        quantise(np.array(row), 4)


def test_integer_tables_are_taken_as_they_are():
    tree, root, tables = random_law(5)
    float_codec = TreeCodec(tree, root, tables, shape=(1, 1))
    whole = TreeCodec(tree, quantise(root, 16), [quantise(table, 16) for table in tables], shape=(1, 1))
    assert whole.model_hash == float_codec.model_hash
    with pytest.raises(RecipeError, match=r"rows of sum 2\^16"):
        TreeCodec(tree, quantise(root, 15), tables, shape=(1, 1))


def test_the_hash_names_all_that_decides_a_file():
    tree, root, tables = random_law(5, nodes=8)
    first = TreeCodec(tree, root, tables, shape=(1, 2))
    other = [table.copy() for table in tables]
    other[-1][0, 0] = np.roll(other[-1][0, 0], 1)
    changed = [
        TreeCodec(tree, root, other, shape=(1, 2)),
        TreeCodec(tree, root[::-1].copy(), tables, shape=(1, 2)),
        TreeCodec(tree, root, tables, shape=(2, 1)),
        TreeCodec(tree, root, tables, shape=(1, 2), codebook_id=b"x"),
        TreeCodec(tree, root, tables, shape=(1, 2), table_bits=18),
        TreeCodec(Tree(tree.parent, tree.states, tree.leaves[::-1].copy()), root, tables, shape=(1, 2)),
    ]
    assert len({codec.model_hash for codec in [first, *changed]}) == 7
    assert TreeCodec(tree, root, tables, shape=(1, 2)).model_hash == first.model_hash
    assert first.model_bytes < sum(table.size for table in tables) * 2 + 8 * 4 * 8 + 100


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"shape": ()}, "1 to 4 axes"),
        ({"shape": (0, 2)}, "1 to 4 axes"),
        ({"table_bits": 21}, r"\[4, 20\]"),
        ({"tables": []}, "one stack of tables"),
        ({"root": np.ones(2) / 2}, "has shape"),
    ],
    ids=str,
)
def test_models_that_cannot_be(change, match):
    tree, root, tables = random_law(5)
    with pytest.raises(RecipeError, match=match):
        TreeCodec(**{"tree": tree, "root": root, "tables": tables, "shape": (1, 2), **change})


def test_too_many_states_for_the_digits():
    tree = Tree(np.array([-1, 0]), np.array([8192, 2]), np.array([1]))
    table = np.full((1, 8192, 2), 0.5)
    with pytest.raises(RecipeError, match="too few digits"):
        TreeCodec(tree, np.full(8192, 1 / 8192), [table], shape=(1, 1), table_bits=20)


# -- the range coder --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2, 3, 4, 256, 1000])
def test_integer_weights_are_coded_exactly(size):
    """Naming a value's own edges writes the words of the full row, and the full row reads them back."""
    constriction = pytest.importorskip("constriction")
    draw = np.random.default_rng(size)
    cuts = np.floor(np.sort(draw.random((600, size - 1)) ** 9, axis=1) * (TOTAL - size))
    edges = np.concatenate([np.zeros((600, 1)), cuts, np.full((600, 1), TOTAL - size)], axis=1)
    weights = np.diff(edges, axis=1)
    symbol = draw.integers(0, size, 600)
    symbol[:2] = 0, size - 1
    row = np.arange(600)
    encoder = RangeEncoder()
    left, weight = (edges[row, symbol] + symbol).astype(np.int64), (weights[row, symbol] + 1).astype(np.int64)
    encoder.encode(symbol, left, weight, size)
    words = np.frombuffer(encoder.finish(), "<u4")
    for dtype in (np.float32, np.float64):
        assert words.tolist() == list(
            range_coder.known_answer(constriction, weights.astype(dtype), symbol.astype(np.int32))
        )
    assert np.array_equal(RangeDecoder(encoder.finish()).decode(edges), symbol)
    assert 32 * len(words) <= np.log2(TOTAL / weight).sum() + 64


def test_the_known_answer():
    constriction = pytest.importorskip("constriction")
    weights = np.array(range_coder.KNOWN_WEIGHTS, np.float32)
    assert (weights.sum(1) == TOTAL - 5).all()
    found = range_coder.known_answer(constriction, weights, np.array(range_coder.KNOWN_SYMBOLS, np.int32))
    assert found == range_coder.KNOWN_WORDS == (4294966065, 734614109, 4059429376)


def test_a_library_that_answers_differently(monkeypatch):
    monkeypatch.setattr(range_coder, "KNOWN_WORDS", (1, 2, 3))
    range_coder._constriction.cache_clear()
    codec, values = small()
    try:
        with pytest.raises(RecipeError, match="known words"):
            codec.compress(values)
    finally:
        range_coder._constriction.cache_clear()


def test_without_the_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "constriction", None)
    range_coder._constriction.cache_clear()
    codec, values = small()
    try:
        assert codec.bits(values).shape == (20,)
        with pytest.raises(RecipeError, match=r"pip install 'renorm\[codec\]'"):
            codec.compress(values)
    finally:
        range_coder._constriction.cache_clear()


# -- damage -----------------------------------------------------------------------------------------------------------


def test_no_flipped_byte_and_no_cut_is_believed():
    codec, values = small()
    data = codec.compress(values)
    for place, mask in itertools.product(range(len(data)), (0x01, 0x80, 0xFF)):
        damaged = bytearray(data)
        damaged[place] ^= mask
        with pytest.raises(DataError):
            codec.decompress(bytes(damaged))
    for length in range(len(data)):
        with pytest.raises(DataError):
            codec.decompress(data[:length])
    with pytest.raises(DataError, match="added to"):
        codec.decompress(data + b"\0")


def test_foreign_bytes_and_wrong_kinds():
    codec, values = small()
    data = codec.compress(values)
    draw = np.random.default_rng(0)
    cases = {
        "is empty": b"",
        "another kind": b"\x89PNG\r\n\x1a\n" + bytes(100),
        "at least": data[:30],
        "version 2": data[:4] + b"\2" + data[5:],
        "cut short": data[:-1],
        "byte was changed": data[:-9] + bytes([data[-9] ^ 4]) + data[-8:],
    }
    for match, case in cases.items():
        with pytest.raises(DataError, match=match):
            codec.decompress(case)
    for _ in range(200):
        with pytest.raises(DataError):
            codec.decompress(MAGIC + b"\1" + draw.bytes(draw.integers(0, 200)))


def test_forged_files_never_end_in_a_crash():
    """Right checksums over wrong words, numbers and shapes: what is decoded does not have the CRC-32 that it should."""
    codec, values = small()
    good = read_container(codec.compress(values))
    draw = np.random.default_rng(0)
    for _ in range(100):
        payload = draw.bytes(4 * draw.integers(0, 6))
        with pytest.raises(DataError):
            codec.decompress(write_container(Container(good.model, (1, 2), 20, 8, good.values_crc, payload)))
    for change in ({"number": 19}, {"number": 21}, {"block": 3}):
        with pytest.raises(DataError, match=r"CRC-32 of the decoded values|no encoder writes"):
            codec.decompress(write_container(Container(**{**vars(good), **change})))
    with pytest.raises(DataError, match="whole 32-bit words"):
        read_container(write_container(Container(good.model, (1, 2), 20, 8, 0, b"abc")))
    with pytest.raises(DataError, match="blocks of at least one"):
        read_container(write_container(Container(good.model, (1, 2), 20, 0, 0, b"")))
    with pytest.raises(DataError, match="room for"):
        write_container(Container(good.model, (1, 2), 2**32, 8, 0, b""))


def test_a_file_of_another_model_names_both():
    codec, values = small()
    tree, root, tables = random_law(3, nodes=9)
    other = TreeCodec(tree, root, tables, shape=(1, 2), codebook_id=b"other")
    with pytest.raises(DataError, match=f"{codec.model_hash[:8]}.*{other.model_hash[:8]}"):
        other.decompress(codec.compress(values))


def test_no_image_and_impossible_values():
    codec, values = small()
    assert codec.decompress(codec.compress(values[:0])).shape == (0, values.shape[1])
    for bad, match in [(-1, "-1, has no code"), (99, "got 99 in row 0")]:
        wrong = values.copy()
        wrong[0, 0] = bad
        with pytest.raises(DataError, match=match):
            codec.compress(wrong)
    with pytest.raises(DataError, match="one value for each coded node"):
        codec.bits(values[:, 1:])
    with pytest.raises(RecipeError, match="block must be"):
        codec.compress(values, block=0)


def test_the_header_is_what_the_page_says():
    """Offsets of docs/format.md, read without the package's own reader."""
    codec, values = small()
    data = codec.compress(values, block=5)
    assert HEADER.size == 40
    assert (data[:4], data[4], data[5]) == (b"\x89RGT", 1, 2)
    assert struct.unpack_from("<H", data, 6) == (5,)
    assert data[8:24].hex() == codec.model_hash[:32]
    assert struct.unpack_from("<I", data, 24) == (20,)
    assert struct.unpack_from("<Q", data, 28) == (len(data) - 52,)
    assert struct.unpack_from("<I", data, 36) == (zlib.crc32(values.astype("<i4").tobytes()),)
    assert struct.unpack_from("<2I", data, 40) == (1, values.shape[1])
    assert struct.unpack("<I", data[-4:]) == (zlib.crc32(data[:-4]),)


# -- images -----------------------------------------------------------------------------------------------------------


def test_digits_by_independent_pixels(shared_data):
    """Real images, one table a pixel: the file is the sum of the pixels' own code lengths and nothing more."""
    fields = load(DataSpec("mnist", size=28, limit=300))
    values = fields.values.numpy().reshape(300, -1).astype(np.int64)
    counts = np.stack([np.bincount(column, minlength=256) for column in values[:200].T]) + 0.05
    p = (counts / counts.sum(1, keepdims=True))[:, None, :]
    tree = Tree(np.array([-1] + [0] * 784), np.array([1] + [256] * 784), np.arange(1, 785))
    codec = TreeCodec(tree, np.ones(1), [p], shape=(28, 28))
    exact = -np.log2(p[np.arange(784), 0, values[200:]]).sum(1)
    assert codec.bits(values[200:]) == pytest.approx(exact, rel=0.01)
    data = codec.compress(values[200:])
    assert np.array_equal(codec.decompress(data), values[200:])
    assert 8 * len(data) <= codec.bits(values[200:]).sum() + 8 * 52 + 64


def test_peers_by_bits_per_pixel():
    draw = np.random.default_rng(0)
    images = draw.integers(0, 2, (5, 16, 12), dtype=np.uint8) * 255
    rows = {row["codec"]: row for row in image_codecs.peers(images)}
    assert {"png", "webp", "zlib", "bzip2", "xz"} <= rows.keys()
    assert rows["zlib"]["one file"] == 8 * len(zlib.compress(images.tobytes(), 9)) / images.size
    assert rows["png"]["bits per pixel"] == sum(8 * len(image_codecs.png(image)) for image in images) / images.size
    assert all(1 <= row["one file"] <= row["bits per pixel"] for row in rows.values())  # coin flips have one bit each


def test_peers_are_lossless():
    from io import BytesIO

    from PIL import Image

    image = np.random.default_rng(0).integers(0, 256, (9, 7), dtype=np.uint8)
    for codec in (image_codecs.png, image_codecs.webp):
        assert np.array_equal(np.asarray(Image.open(BytesIO(codec(image))).convert("L")), image)


def test_peers_that_cannot_be():
    images = np.zeros((2, 4, 4), np.uint8)
    with pytest.raises(RecipeError, match="unknown codec 'jpeg'"):
        image_codecs.bits_per_pixel(images, "jpeg")
    with pytest.raises(DataError, match="at least one pixel"):
        image_codecs.bits_per_pixel(images[:0], "png")
    with pytest.raises(DataError, match="16383"):
        image_codecs.webp(np.zeros((1, 16384), np.uint8))
