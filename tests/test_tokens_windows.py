"""Windows and values as tokens: numbers by hand, brute force, geometry, what comes back, bad input."""

import numpy as np
import pytest
import torch

from renorm.data import DataSpec, load, store
from renorm.errors import DataError, RecipeError
from renorm.tokens.codebooks.clustering import cluster, nearest
from renorm.tokens.codebooks.codebook import Codebook
from renorm.tokens.codebooks.straighten import straighten
from renorm.tokens.codebooks.values import ValueCodebook
from renorm.tokens.codebooks.windows import WindowCodebook


def noise(number=30, shape=(1, 8, 8), seed=0):
    return np.random.default_rng(seed).random((number, *shape)).astype(np.float32)


def small(x, **values):
    standard = {"window": 4, "stride": 2, "tokens": 16, "components": 6, "sample": 0}
    return WindowCodebook(shape=x.shape[1:], **{**standard, **values}).fit(x, seed=0)


# centroids


def test_nearest_agrees_with_all_distances():
    rng = np.random.default_rng(0)
    points, centroids = rng.normal(size=(700, 5)), rng.normal(size=(19, 5))
    order = ((points[:, None] - centroids) ** 2).sum(-1).argsort(axis=1)
    assert np.array_equal(nearest(points.astype(np.float32), centroids.astype(np.float32), 3), order[:, :3])


@pytest.mark.parametrize("method", ["full", "mini-batch", "lloyd"])
def test_well_separated_points_are_found(method):
    truth = np.array([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]])
    points = (truth.repeat(50, axis=0) + np.random.default_rng(0).normal(size=(150, 2)) / 10).astype(np.float32)
    runs = [cluster(points, 3, method=method, iterations=25, seed=seed) for seed in range(5)]
    error = [np.abs(((run[:, None] - truth) ** 2).sum(-1).min(0)).max() for run in runs]
    assert min(error) < 0.01


def test_lloyd_by_hand_keeps_an_empty_centroid():
    """From (0, 1, 1 again) as first centroids the tie leaves the later one empty, and it stays at 1."""
    points = np.array([[0.0], [1.0], [1.0], [2.0]], np.float32)
    seed = next(s for s in range(50) if sorted(np.random.default_rng(s).choice(4, 3, replace=False)) == [0, 1, 2])
    found = cluster(points, 3, method="lloyd", iterations=1, seed=seed)
    assert sorted(found[:, 0].tolist()) == pytest.approx([0.0, 1.0, 4 / 3])


def test_more_tokens_than_different_points_are_refused():
    with pytest.raises(DataError, match=r"at least as many different windows as tokens.*: 4 tokens, 2 different"):
        cluster(np.array([[0.0], [1.0]] * 99, np.float32), 4, method="full", iterations=1, seed=0)


# windows


def test_a_window_by_hand():
    """One 2 x 2 window (0, 0, 1, 1): mean 1/2, variance 1/4; two tokens, the background and the window itself."""
    x = np.array([[[[0, 0], [1, 1]]]], np.float32)
    book = WindowCodebook(shape=(1, 2, 2), window=2, stride=1, tokens=2, floor=0.11, margin=0.4, components=0).fit(
        x, seed=0
    )
    assert np.allclose(book.centroids_, [[0, 0, 0, 0], [-0.5, -0.5, 0.5, 0.5]], atol=1e-6)  # / (sqrt(0.36) + 0.4)
    tokens, moments = book.encode_moments(x)
    assert tokens.tolist() == [[1]]
    assert np.allclose(moments, [[[0.5, 1.0]]])
    assert np.allclose(book.decode(tokens), x, atol=1e-6)


def test_geometry():
    book = WindowCodebook(shape=(3, 9, 12), window=4, stride=3, tokens=8)
    assert (book.grid, book.features) == ((3, 4), 48)  # 3 does not divide 5 and 8: one window more at each edge
    assert book.sizes.tolist() == [8] * 12
    assert np.unique(book.locations[:, 0]).tolist() == [1.5, 4.5, 6.5]
    assert np.unique(book.locations[:, 1]).tolist() == [1.5, 4.5, 7.5, 9.5]
    even = WindowCodebook(shape=(3, 10, 10), window=4, stride=3, tokens=8)
    assert (even.grid, even.locations[-1].tolist()) == ((3, 3), [7.5, 7.5])


def test_every_site_is_in_some_window():
    x = noise(30, (1, 7, 9))
    book = WindowCodebook(shape=(1, 7, 9), window=3, stride=2, tokens=4, components=0).fit(x, seed=0)
    x[0, 0, -1, -1] += 5
    assert book.encode_moments(x[:1]).moments[0, -1, 1] > 1  # the last window sees the last site
    seen = np.zeros((7, 9), bool)
    seen[-1, -1] = True
    assert len(book.match(x[:1], seen[None]).places) == 1


def test_windows_of_a_chain_are_one_site_high():
    x = np.random.default_rng(0).random((50, 3, 1, 20)).astype(np.float32)
    book = WindowCodebook(shape=(3, 1, 20), window=5, stride=3, tokens=6, components=0).fit(x, seed=0)
    assert (book.grid, book.features) == ((1, 6), 15)
    assert book.decode(book.encode(x)).shape == x.shape
    with pytest.raises(DataError, match=r"1 \.\.\. 20 sites for images of 1 x 20, got 21"):
        WindowCodebook(shape=(3, 1, 20), window=21, stride=3, tokens=6)


def test_parts_of_windows_fit_tokens_by_their_visible_sites():
    x = noise(60, (2, 8, 8))
    book = small(x)
    seen = np.random.default_rng(1).random((60, 8, 8)) < 0.6
    seen[:, :4, :4], seen[0] = True, True
    spoilt = np.where(seen[:, None], x, 99.0).astype(np.float32)
    glimpse = book.match(spoilt, seen)
    whole = glimpse.tokens >= 0
    assert (glimpse.tokens[whole] == book.encode(x)[whole]).all()
    assert whole[0].all()
    assert whole[:, 0].all()
    assert not (glimpse.log[0] != 0).any()
    column = list(glimpse.places).index(5)
    r, c = (int(k) for k in book.locations[5] - 1.5)
    believed = np.tile(seen[7, r : r + 4, c : c + 4].reshape(-1), 2)
    v = x[7, :, r : r + 4, c : c + 4].reshape(-1)
    by_hand = -0.5 * (
        (believed * (v - book.pictures_) ** 2).sum(1) / book.spread_ + believed.sum() * np.log(book.spread_)
    )
    assert np.allclose(glimpse.log[7, column], by_hand, rtol=1e-4, atol=1e-3)


def test_spread_is_the_variance_about_the_picture():
    x = noise(40, (1, 4, 4))
    book = WindowCodebook(shape=(1, 4, 4), window=4, stride=4, tokens=5, components=0, sample=0).fit(x, seed=0)
    tokens = book.encode(x)[:, 0]
    for token in np.unique(tokens):
        rows = x[tokens == token].reshape(-1, 16)
        assert book.spread_[token] == pytest.approx(max(rows.var(axis=0).mean(), 1e-4), rel=1e-4)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 7)])
@pytest.mark.parametrize("background", [0.0, 1e-3])
def test_tokens_agree_with_a_loop(shape, background):
    x = noise(70, shape)
    x[:9, :, :5] = 0.3
    book = small(x, background=background)
    tokens = book.encode(x)
    for image, row in zip(x, tokens, strict=True):
        for (r, c), token in zip(book.locations - 1.5, row, strict=True):
            v = image[:, int(r) : int(r) + 4, int(c) : int(c) + 4].reshape(-1).astype(np.float64)
            y = ((v - v.mean()) / np.sqrt(v.var() + 0.02)) @ book.projection_
            distance = ((book.centroids_ - y) ** 2).sum(1)
            assert distance[token] <= distance.min() + 1e-5
            assert background == 0 or (v.var() >= background or token == 0)


def test_blank_windows_are_background():
    x = noise()
    assert (small(x).encode(np.full_like(x, 0.7)) == 0).all()


def test_the_nearest_come_in_order():
    x = noise()
    book = small(x)
    three = book.encode_nearest(x, 3)
    assert np.array_equal(three[:, :, 0], book.encode(x))
    assert all(len(set(row)) == 3 for row in three.reshape(-1, 3).tolist())


def test_threads_do_not_change_tokens():
    x = noise(300)
    book = small(x)
    before, threads = book.encode(x), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert np.array_equal(before, book.encode(x))
    finally:
        torch.set_num_threads(threads)


def test_a_seed_decides_everything():
    x = noise()
    one, same, other = (
        WindowCodebook(shape=(1, 8, 8), window=4, tokens=16, components=6, sample=150).fit(x, seed=s).centroids_
        for s in (0, 0, 1)
    )
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_as_many_tokens_as_windows_lose_nothing():
    """Patches that do not overlap, each its own token: the images come back, with moments and without."""
    x = noise(4)
    book = small(x, stride=4, tokens=16, components=0, background=0.0, method="lloyd", iterations=2)
    tokens, moments = book.encode_moments(x)
    assert len(np.unique(tokens)) == 16
    assert np.allclose(book.decode(tokens), x, atol=1e-6)
    assert np.allclose(book.decode(tokens, moments), x, atol=1e-5)


def test_overlap_is_averaged_and_hidden_tokens_are_left_out():
    x = noise(20, (1, 2, 3))
    book = small(x, window=2, stride=1, tokens=4, components=0)
    tokens = book.encode(x)[:1]
    left, right = book.pictures_[tokens[0]].reshape(2, 2, 2)
    out = book.decode(tokens)[0, 0]
    assert np.allclose(out[:, 0], left[:, 0])
    assert np.allclose(out[:, 1], (left[:, 1] + right[:, 0]) / 2, atol=1e-6)
    tokens[0, 1] = -1
    out = book.decode(tokens)[0, 0]
    assert np.allclose(out[:, :2], left)
    assert np.allclose(out[:, 2], x.mean(axis=0)[0, :, 2], atol=1e-6)


def test_only_windows_that_are_wholly_seen_are_visible():
    book = WindowCodebook(shape=(1, 6, 6), window=4, stride=2, tokens=4)
    mask = np.ones((6, 6), bool)
    assert book.visible(mask).all()
    mask[0, 5] = False
    assert book.visible(mask).tolist() == [True, False, True, True]
    tilted = WindowCodebook(shape=(1, 6, 6), window=4, tokens=4, straighten=True)
    assert not tilted.visible(mask).any()
    assert tilted.visible(np.ones((6, 6), bool)).all()


@pytest.mark.parametrize("upright", [False, True])
def test_state_restores_a_codebook(upright):
    x = noise()
    book = small(x, straighten=upright)
    again = WindowCodebook(
        shape=(1, 8, 8), window=4, stride=2, tokens=16, components=6, sample=0, straighten=upright
    ).restore(book.state())
    tokens = book.encode(x)
    assert np.array_equal(again.encode(x), tokens)
    assert np.array_equal(again.decode(tokens), book.decode(tokens))
    assert again.vectors().shape == (16, 16)


def test_ink_decides_what_is_clustered():
    x = noise(40)
    x[:20] = x[:20] / 10 + 0.0
    bright = small(x, ink=0.2, tokens=8)
    assert np.allclose(bright.centroids_, small(x[20:], ink=0.2, tokens=8).centroids_, atol=1e-4)


@pytest.mark.parametrize(
    ("error", "values", "message"),
    [
        (DataError, {"window": 9}, "at least as large as a window.*1 ... 8 sites for images of 8 x 8, got 9"),
        (DataError, {"window": 0}, "got 0"),
        (RecipeError, {"stride": 5}, "stride must be in 1 ... window = 4.*got 5"),
        (RecipeError, {"tokens": 1}, "tokens must be >= 2 .the background is one of them., got 1"),
        (RecipeError, {"floor": 0.0}, "one of them > 0.*got 0.0 and 0.0"),
        (RecipeError, {"margin": -1.0}, "floor and margin must be >= 0"),
        (DataError, {"tokens": 271}, "270 tokens, 261 different windows"),
    ],
)
def test_bad_values(error, values, message):
    with pytest.raises(error, match=message):
        small(noise(29), **values)


def test_images_of_another_shape_are_refused():
    with pytest.raises(DataError, match=r"must have the shape \(1, 8, 8\).*got \(2, 1, 8, 9\)"):
        small(noise()).encode(noise(2, (1, 8, 9)))


# straightening


def test_a_sheared_bar_stands_up():
    x = np.zeros((2, 1, 9, 9), np.float32)
    x[0, 0, range(1, 8), range(1, 8)] = 1
    x[1, 0, 1:8, 6] = 0.5
    out = straighten(x)
    want = np.zeros((9, 9), np.float32)
    want[1:8, 4] = 1
    assert np.allclose(out[0, 0], want, atol=1e-5)
    assert np.allclose(out[1, 0], want / 2, atol=1e-5)


def test_straight_images_stay_straight():
    x = np.zeros((1, 1, 15, 15), np.float32)
    yy, xx = np.mgrid[:15, :15] - 7.0
    x[0, 0] = np.exp(-(yy**2) / 8 - (xx - 0.5 * yy) ** 2 / 4)
    once = straighten(x)
    assert np.abs(straighten(once) - once).max() < 0.02
    mass = once[0, 0] / once.sum()
    assert abs((mass * yy * xx).sum() / (mass * yy**2).sum()) < 0.01
    assert abs((mass * xx).sum()) < 0.01
    assert abs((mass * yy).sum()) < 0.01


def test_blank_images_stay():
    assert (straighten(np.zeros((2, 3, 4, 5), np.float32)) == 0).all()


def test_channels_move_together():
    x = noise(3, (1, 7, 7))
    twice = straighten(np.concatenate([x, x], axis=1))
    assert np.allclose(twice[:, :1], straighten(x), atol=1e-6)
    assert np.array_equal(twice[:, 0], twice[:, 1])


# values


def test_bytes_come_back_exactly():
    x = (np.arange(256).reshape(1, 1, 16, 16) / np.float32(255)).astype(np.float32)
    book = ValueCodebook((1, 16, 16)).fit(x, seed=0)
    tokens = book.encode(x)
    assert tokens.tolist() == [list(range(256))]
    assert np.array_equal(np.rint(255 * book.decode(tokens)), np.rint(255 * x))
    assert np.array_equal(book.decode(tokens), x)


def test_few_bins_by_hand():
    book = ValueCodebook((2, 1, 2), bins=3)
    x = np.array([[[[0.0, 0.2]], [[0.3, 0.9]]]], np.float32)
    assert book.encode(x).tolist() == [[0, 0, 1, 2]]
    assert book.decode(book.encode(x)).reshape(-1).tolist() == [0.0, 0.0, 0.5, 1.0]
    assert (book.grid, ValueCodebook((1, 2, 3)).grid) == (None, (2, 3))
    assert book.locations.tolist() == [[0, 0], [0, 1], [0, 0], [0, 1]]
    assert book.visible(np.array([[True, False]])).tolist() == [True, False, True, False]


def test_values_out_of_range_are_refused():
    with pytest.raises(DataError, match="values must lie between"):
        ValueCodebook((1, 1, 1)).fit(np.full((1, 1, 1, 1), 1.5, np.float32), seed=0)


def test_both_are_codebooks():
    assert isinstance(small(noise()), Codebook)
    assert isinstance(ValueCodebook((1, 2, 2)), Codebook)


@pytest.mark.skipif(store.find("mnist") is None, reason="needs MNIST")
def test_digits_come_back():
    fields = load(DataSpec("mnist", limit=600))
    x = (fields.values.numpy() / np.float32(255)).astype(np.float32)
    book = WindowCodebook(shape=(1, 28, 28), window=4, stride=2, tokens=128, components=8).fit(x, seed=0)
    assert np.mean((book.decode(book.encode(x)) - x) ** 2) < 0.1 * x.var()


def test_a_straightened_image_that_is_wholly_seen_has_its_own_tokens():
    x = noise(40, (1, 8, 8))
    x[:, :, :, 5:] = 0
    book = small(x, straighten=True)
    glimpse = book.match(x, np.ones((40, 8, 8), bool))
    assert len(glimpse.places) == 0
    assert (glimpse.tokens == book.encode(x)).mean() > 0.99
