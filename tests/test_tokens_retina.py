"""The retina: hand-computed tokens, reconstruction, witnesses for resizing and blur, hidden tiles."""

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter1d

from renorm.errors import DataError, RecipeError
from renorm.tokens.codebooks import retina
from renorm.tokens.codebooks.retina import RetinaCodebook, equalise
from renorm.tokens.codebooks.straighten import straighten

PLAIN = {"resize": 0, "blur": 0.0, "equalise": False}


@pytest.fixture
def images():
    return np.random.default_rng(0).random((60, 1, 8, 8), dtype=np.float32)


def test_multiples_of_one_pattern_take_evenly_spaced_bins():
    pattern = np.random.default_rng(1).random((1, 1, 8, 8), dtype=np.float32) + 0.1
    x = np.array([1 / 3, 2 / 3, 1.0], np.float32)[:, None, None, None] * pattern / pattern.max()
    book = RetinaCodebook(shape=(1, 8, 8), bins=7, **PLAIN).fit(x, seed=0)
    assert book.tile_.tolist() == [0, 1, 2, 3]  # rank 1: one mode a tile
    up = np.sign(book.encode(x)[2] - 3)  # the sign of a vector is free: bins 4, 5, 6 or 2, 1, 0
    np.testing.assert_array_equal((book.encode(x) - 3) * up, np.outer([1, 2, 3], np.ones(4)))
    np.testing.assert_allclose(book.decode(book.encode(x)), x, atol=1e-5)


def test_all_modes_and_many_bins_give_the_image_back(images):
    book = RetinaCodebook(shape=(1, 8, 8), bins=4001, modes=99, threshold=1e9, **PLAIN).fit(images, seed=0)
    np.testing.assert_allclose(book.decode(book.encode(images)), images, atol=0.02)


def test_two_channels_share_tiles():
    x = np.random.default_rng(2).random((40, 2, 8, 8), dtype=np.float32)
    book = RetinaCodebook(shape=(2, 8, 8), bins=4001, modes=999, threshold=1e9, **PLAIN).fit(x, seed=0)
    assert len(book.tile_places) == 4
    np.testing.assert_allclose(book.decode(book.encode(x)), x, atol=0.03)


def test_the_tiles_of_a_site_add_up_to_one():
    book = RetinaCodebook(shape=(1, 28, 28))
    assert book.tile_weights.shape == (64, 32 * 32)
    np.testing.assert_allclose(book.tile_weights.sum(axis=0), 1.0, rtol=1e-6)


def test_a_tile_fades_like_a_gaussian_up_to_its_reach():
    book = RetinaCodebook(shape=(1, 3, 1), tile=1.0, reach=1.5, width=0.5, **PLAIN)
    side = np.exp(-2.0)  # one site away: exp(-1 / (2 * 0.5^2)); two sites away lie beyond the reach
    edge, middle = 1 + side, 1 + 2 * side
    want = [[1 / edge, side / middle, 0], [side / edge, 1 / middle, side / edge], [0, side / middle, 1 / edge]]
    np.testing.assert_allclose(book.tile_weights, want, rtol=1e-6)


def test_tiles_are_centred_in_the_units_of_the_image():
    book = RetinaCodebook(shape=(1, 28, 28))
    assert book.tile_places[0].tolist() == [1.5, 1.5]
    book.tile_ = np.array([0, 63])
    np.testing.assert_allclose(book.locations, [[1.25, 1.25], [25.75, 25.75]])
    assert book.sizes.tolist() == [7, 7]


def test_stronger_modes_come_first(images):
    book = RetinaCodebook(shape=(1, 8, 8), **PLAIN).fit(images, seed=0)
    variance = (book.prepare(images) @ (book.vectors_ * book.tile_weights[book.tile_]).T).astype(np.float64)
    variance = (variance**2).mean(axis=0)
    for tile in range(4):
        assert (np.diff(variance[book.tile_ == tile]) <= 1e-9).all()


def test_the_threshold_compares_a_mode_with_the_mean_site(images):
    book = RetinaCodebook(shape=(1, 8, 8), threshold=2.0, modes=99, **PLAIN).fit(images, seed=0)
    y = (book.prepare(images) * book.tile_weights[0])[:, book.tile_weights[0] > 0]
    spectrum = np.linalg.svd(y, compute_uv=False) ** 2
    assert (book.tile_ == 0).sum() == (spectrum > spectrum.sum() / y.shape[1] / 2).sum()


def test_resizing_agrees_with_pillow():
    x = np.random.default_rng(3).random((28, 28), dtype=np.float32)
    for size in (32, 20):
        by_pillow = np.asarray(Image.fromarray(x).resize((size, size), Image.Resampling.BICUBIC))
        matrix = retina._cubic(28, size)
        np.testing.assert_allclose(matrix @ x @ matrix.T, by_pillow, atol=1e-5)


def test_blur_agrees_with_scipy():
    x = np.random.default_rng(4).random(32)
    np.testing.assert_allclose(retina._blur(32, 0.849) @ x, gaussian_filter1d(x, 0.849, mode="constant"), atol=1e-12)


def test_equalising_keeps_order_and_fixes_the_histogram():
    x = np.random.default_rng(5).random((3, 50), dtype=np.float32) + 0.01
    y = equalise(x)
    np.testing.assert_array_equal(np.argsort(x, axis=1), np.argsort(y, axis=1))
    np.testing.assert_allclose(np.sort(y, axis=1)[:, -2], np.exp(-1 / (24 * 50)), rtol=1e-6)
    np.testing.assert_array_equal(equalise(np.zeros((1, 9), np.float32)), np.zeros((1, 9)))


def test_hidden_tiles_leave_the_average_and_nothing_seen_gives_the_mean(images):
    flat = np.ones((3, 1, 8, 8), np.float32)
    book = RetinaCodebook(shape=(1, 8, 8), **PLAIN).fit(flat, seed=0)
    tokens = book.encode(flat)
    tokens[:, 1] = -1
    np.testing.assert_allclose(book.decode(tokens), flat, atol=1e-5)
    book = RetinaCodebook(shape=(1, 8, 8), **PLAIN).fit(images, seed=0)
    nothing = np.full((1, len(book.sizes)), -1)
    np.testing.assert_allclose(book.decode(nothing)[0], images.mean(axis=0), atol=1e-6)


def test_visible_tiles_see_no_hidden_site(images):
    book = RetinaCodebook(shape=(1, 16, 16), reach=1.0, **PLAIN).fit(np.tile(images, (1, 1, 2, 2)), seed=0)
    mask = np.ones((16, 16), bool)
    mask[:, :5] = False
    seen = np.array([(book.tile_weights[t].reshape(16, 16)[~mask] == 0).all() for t in book.tile_])
    np.testing.assert_array_equal(book.visible(mask), seen)
    assert 0 < seen.sum() < len(seen)
    assert book.visible(np.ones((16, 16), bool)).all()
    resized = RetinaCodebook(shape=(1, 16, 16), resize=20).fit(np.tile(images, (1, 1, 2, 2)), seed=0)
    assert resized.visible(np.ones((16, 16), bool)).all()
    assert not resized.visible(np.zeros((16, 16), bool)).any()


def test_values_are_what_the_bins_stand_for(images):
    book = RetinaCodebook(shape=(1, 8, 8), **PLAIN).fit(images, seed=0)
    tokens = np.tile(np.arange(-1, 7)[:, None], (1, len(book.sizes)))
    np.testing.assert_allclose(book.values(tokens)[:, 0] / book.top_[0], [0, -1, -2 / 3, -1 / 3, 0, 1 / 3, 2 / 3, 1])


def test_a_retina_is_its_state(images):
    book = RetinaCodebook(shape=(1, 8, 8), **PLAIN).fit(images, seed=0)
    again = RetinaCodebook(shape=(1, 8, 8), **PLAIN).restore(book.state())
    np.testing.assert_array_equal(book.encode(images), again.encode(images))
    np.testing.assert_array_equal(book.decode(book.encode(images)), again.decode(again.encode(images)))
    assert book.grid is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"bins": 8}, "bins must be odd"),
        ({"modes": 0}, "modes must be >= 1"),
        ({"threshold": 0.0}, "threshold must be > 0"),
        ({"resize": -1}, "resize must be >= 0"),
        ({"blur": -1.0}, "blur must be >= 0"),
        ({"tile": 40.0}, r"tile must be in \(0, 32\]"),
        ({"width": 0.0}, "width must be > 0"),
        ({"reach": 0.5}, "reach must be >= 1"),
    ],
)
def test_bad_values_are_named(values, message):
    with pytest.raises(RecipeError, match=message):
        RetinaCodebook(shape=(1, 28, 28), **values)


def test_bad_images_are_named(images):
    book = RetinaCodebook(shape=(1, 8, 8), **PLAIN)
    with pytest.raises(DataError, match="not blank"):
        book.fit(np.zeros((2, 1, 8, 8), np.float32), seed=0)
    with pytest.raises(DataError, match=r"shape \(1, 8, 8\), got \(1, 4, 4\)"):
        book.fit(np.ones((2, 1, 4, 4), np.float32), seed=0)
    with pytest.raises(RecipeError, match="no common looks"):
        book.vectors()


def test_straightened_images_are_upright_before_tiles_see_them(images):
    slanted = np.zeros((2, 1, 8, 8), np.float32)
    slanted[:, 0, range(8), range(8)] = 1
    upright = straighten(slanted)
    book = RetinaCodebook(shape=(1, 8, 8), straighten=True, **PLAIN).fit(images, seed=0)
    np.testing.assert_allclose(book.prepare(slanted), upright.reshape(2, -1), atol=1e-6)
    with pytest.raises(RecipeError, match="no fixed sites"):
        book.visible(np.ones((8, 8), bool))


def test_a_chain_stays_a_chain():
    x = np.random.default_rng(0).random((60, 1, 1, 64), dtype=np.float32)
    book = RetinaCodebook(shape=(1, 1, 64), bins=4001, modes=99, threshold=1e9, blur=0.0, equalise=False)
    assert book.frame == (1, 64)
    assert book.tile_weights.shape == (16, 64)
    book.fit(x, seed=0)
    np.testing.assert_allclose(book.decode(book.encode(x)), x, atol=0.02)
    whole = RetinaCodebook(shape=(1, 1, 64)).fit(x, seed=0)  # as it comes: blurred along the chain, not across
    flat = np.einsum("ij,nj->ni", retina._blur(64, 0.849).astype(np.float32), x[:, 0, 0])
    np.testing.assert_allclose(whole.prepare(x), equalise(flat), atol=1e-5)
    assert RetinaCodebook(shape=(1, 64, 1)).frame == (32, 1)
    with pytest.raises(RecipeError, match=r"tile must be in \(0, 64\]"):
        RetinaCodebook(shape=(1, 1, 64), tile=65.0)


def test_a_frame_beyond_memory_is_refused():
    with pytest.raises(RecipeError, match=r"tiles on 32 x 8192 sites; set resize = 0 or smaller"):
        RetinaCodebook(shape=(1, 2, 512))
    assert RetinaCodebook(shape=(1, 2, 512), resize=0, tile=2.0).frame == (2, 512)


def test_images_are_prepared_some_after_the_other(monkeypatch):
    x = np.random.default_rng(1).random((300, 1, 8, 8), dtype=np.float32)
    one = RetinaCodebook(shape=(1, 8, 8)).fit(x, seed=0)
    seen = []
    prepare = RetinaCodebook.prepare
    monkeypatch.setattr(retina, "_IMAGES", 64)
    monkeypatch.setattr(RetinaCodebook, "prepare", lambda self, part: seen.append(len(part)) or prepare(self, part))
    other = RetinaCodebook(shape=(1, 8, 8)).fit(x, seed=0)
    assert seen == [64, 64, 64, 64, 44]
    np.testing.assert_allclose(other.vectors_, one.vectors_, atol=1e-6)
    np.testing.assert_allclose(other.top_, one.top_, rtol=1e-6)
