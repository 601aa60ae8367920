"""What comes in as X and y: ranges, bytes, labels that may be meant in two ways; tokens that stand for nothing."""

import warnings

import numpy as np
import pytest

from renorm.errors import DataError
from renorm.tokens.codebooks.codebook import Codebook, require_tokens
from renorm.tokens.codebooks.retina import RetinaCodebook
from renorm.tokens.codebooks.values import ValueCodebook
from renorm.tokens.labels import Labels
from renorm.tokens.pictures import Pictures
from renorm.tokens.spec import PyramidSpec, RetinaSpec, WindowSpec
from renorm.tokens.token_hierarchy import TokenHierarchy

NAIVE = PyramidSpec(levels=0)
WINDOWS = WindowSpec(window=4, stride=2, tokens=8, components=0)
RETINA = RetinaSpec(tile=2.0, resize=0, blur=0.0, equalise=False)


@pytest.fixture
def images():
    return np.random.default_rng(0).random((60, 8, 8))


@pytest.mark.parametrize("codebook", [WINDOWS, RETINA])
def test_values_far_outside_the_range_are_refused(codebook, images):
    with pytest.raises(DataError, match=r"between black and white .* 0 and 1 here, .*254.*value_range=\(0, 255\)"):
        TokenHierarchy(codebook, NAIVE).fit(np.round(images * 254))
    model = TokenHierarchy(codebook, NAIVE).fit(images)
    for method in (model.transform, model.predict, model.score_samples):
        with pytest.raises(DataError, match="or give bytes"):
            method(images * 254)


def test_values_may_overshoot_by_the_width_of_the_range():
    pictures = Pictures((1, 1, 2), (-1.0, 3.0))
    for good in ([-5.0, 7.0], [3.0, -1.0]):
        assert np.isfinite(pictures.images(np.array([good]))).all()
    for bad in ([-5.1, 0.0], [0.0, 7.1]):
        with pytest.raises(DataError, match="-1 and 3 here"):
            pictures.images(np.array([bad]))
    assert pictures.images(np.array([[0, 255]], np.uint8)).tolist() == [[[[0.0, 1.0]]]]
    assert len(pictures.images(np.zeros((0, 2)))) == 0


def test_only_whole_255ths_are_bytes():
    pictures = Pictures((1, 1, 256), (-2.0, 2.0))
    every = np.arange(256)[None]
    for good in (every.astype(np.uint8), every / 255 * 4 - 2, (every / 255 * 4 - 2).astype(np.float32)):
        pictures.require_bytes(pictures.images(good))
    with pytest.raises(DataError, match=r"value_range -2 \.\.\. 2, got -1.99608; give bytes"):
        pictures.require_bytes(pictures.images(every / 255 * 4 - 2 + 1 / 255 * (every == 0)))


@pytest.mark.parametrize("y", [[-1, 1, 1], [-1.0, 1.0, 1.0], np.array([-1, 1, None], object)])
def test_minus_one_that_leaves_one_class_is_warned_of(y):
    with pytest.warns(UserWarning, match=r"-1 was read as 'class unknown'.* one class 1.*np.where\(y == -1, 0, y\)"):
        labels = Labels.of(y, 3)
    assert labels.classes.tolist() == [1]


@pytest.mark.parametrize(
    ("y", "classes"),
    [
        ([-1, 0, 1], None),
        ([1, 1, 1], None),
        ([-1, 1, 1], [0, 1]),
        ([np.nan, 1.0, 1.0], None),
        (["a", None, "a"], None),
        (["-1", "1", "1"], None),
    ],
)
def test_no_warning_where_minus_one_is_no_class(y, classes):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Labels.of(y, 3, classes)


def test_fit_warns_of_minus_one(images):
    with pytest.warns(UserWarning, match="-1 was read"):
        model = TokenHierarchy(WINDOWS, NAIVE).fit(images, np.resize([-1, 1], 60))
    assert model.classes_.tolist() == [1]


def test_tokens_that_stand_for_nothing_are_refused(images):
    sizes = np.array([2, 3])
    require_tokens(np.array([[1, 2], [-1, -1]]), sizes)
    require_tokens(np.empty((0, 2), np.int64), sizes)
    for tokens, message in (
        ([[0, 0], [2, 0]], r"0 \.\.\. 1, .* got 2 at position 0 of image 1"),
        ([[0, -2]], r"0 \.\.\. 2, .* got -2 at position 1 of image 0"),
        ([[0, 0, 0]], "each of the 2 positions .* got 3"),
    ):
        with pytest.raises(DataError, match=message):
            require_tokens(np.array(tokens), sizes)
    x = images[:, None].astype(np.float32)
    retina = RetinaCodebook(shape=(1, 8, 8), resize=0, blur=0.0, equalise=False).fit(x, seed=0)
    for book in (ValueCodebook((1, 8, 8), bins=7), retina):
        assert isinstance(book, Codebook)
        for bad in (7, -2):
            tokens = book.encode(x)
            tokens[3, 1] = bad
            with pytest.raises(DataError, match=rf"0 \.\.\. 6, .* got {bad} at position 1 of image 3"):
                book.decode(tokens)
