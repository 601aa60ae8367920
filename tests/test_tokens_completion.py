"""Filling in with any mask: the exact posterior, parts of windows, scattered sites, chains, slanted digits."""

import itertools

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from renorm.errors import DataError, RecipeError
from renorm.tokens.completion import complete
from renorm.tokens.spec import ExemplarSpec, PyramidSpec, RetinaSpec, StyleSpec, ValueSpec, WindowSpec
from renorm.tokens.token_hierarchy import TokenHierarchy

X, Y = load_digits(return_X_y=True)
DIGITS = {"value_range": (0.0, 16.0)}
WINDOWS = WindowSpec(window=4, stride=1, tokens=64, components=0)
STYLES, NAIVE = StyleSpec(styles=4), PyramidSpec(levels=0, concentration=0.5, backoff=5.0)
SCATTERED = np.random.default_rng(0).random((8, 8)) < 0.5
HALF = np.arange(8)[:, None] < np.full(8, 4)


@pytest.fixture(scope="module")
def model():
    return TokenHierarchy(WINDOWS, STYLES, **DIGITS).fit(X[:1500], Y[:1500])


def error(filled, seen, truth):
    hidden = np.broadcast_to(~seen, truth.reshape(-1, 8, 8).shape)
    return float(((filled - truth).reshape(-1, 8, 8)[hidden] ** 2).mean())


@pytest.mark.parametrize("seen", [SCATTERED, HALF, HALF.T & SCATTERED])
def test_parts_of_windows_say_what_is_hidden(model, seen):
    truth = X[1500:]
    filled = model.in_paint(truth, seen)
    assert np.allclose(filled.reshape(-1, 8, 8)[:, seen], truth.reshape(-1, 8, 8)[:, seen], atol=1e-5)
    mean = np.broadcast_to(X[:1500].mean(axis=0), truth.shape)
    assert error(filled, seen, truth) < 0.9 * error(mean, seen, truth)


def test_what_hidden_sites_hold_does_not_matter(model):
    x = X[1500:1510].copy().reshape(-1, 8, 8)
    spoilt = x.copy()
    spoilt[:, ~SCATTERED] = np.nan
    assert np.array_equal(model.in_paint(spoilt, SCATTERED), model.in_paint(x, SCATTERED))
    tensor = torch.from_numpy(spoilt.astype(np.float32))[:, None]
    assert np.allclose(model.in_paint(tensor, SCATTERED), model.in_paint(x, SCATTERED), atol=1e-5)
    spoilt[0, SCATTERED] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        model.in_paint(spoilt, SCATTERED)


def test_each_image_may_have_a_mask(model):
    x = X[1500:1502].reshape(-1, 8, 8)
    masks = np.stack([SCATTERED, HALF])
    both = model.in_paint(x, masks)
    assert np.allclose(both[0], model.in_paint(x[:1], SCATTERED)[0])
    assert np.allclose(both[1], model.in_paint(x[1:], HALF)[0])
    assert np.array_equal(model.in_paint(x, np.ones((8, 8), bool)).reshape(x.shape), x)
    with pytest.raises(DataError, match=r"seen must have the shape \(8, 8\) of the images, .* got \(3, 8, 8\)"):
        model.in_paint(x, np.ones((3, 8, 8), bool))


def test_draws_follow_the_exact_posterior():
    """Two windows of two sites on a chain of three, of which the first and the last site are seen."""
    rng = np.random.default_rng(0)
    chains = (rng.random((400, 3)) < 0.5).astype(np.float32)
    chains[:, 1] = np.where(rng.random(400) < 0.8, chains[:, 0], chains[:, 1])
    chains += 0.2 * rng.random(chains.shape, dtype=np.float32)
    spec = WindowSpec(window=2, stride=1, tokens=4, components=0, background=0.0)
    model = TokenHierarchy(spec, NAIVE, shape=(1, 1, 3), value_range=(0.0, 2.0)).fit(chains)
    seen = np.array([[True, False, True]])
    glimpse = model.codebook_.match(model.pictures_.images(chains[:1]), seen[None])
    assert glimpse.places.tolist() == [0, 1]
    law = model.law_
    weight = {}
    for z in itertools.product(range(4), repeat=2):
        log = law.log_prob(law.observe(torch.tensor([z]))).item() + sum(glimpse.log[0, p, z[p]] for p in (0, 1))
        weight[z] = np.exp(log)
    number = 4000
    images = np.repeat(model.pictures_.images(chains[:1]), number, axis=0)
    shown = np.broadcast_to(seen, (number, 1, 3))
    drawn = complete(model.codebook_, law, images, shown, generator=torch.Generator().manual_seed(0))
    total = sum(weight.values())
    pictures = {z: model.codebook_.decode(np.array([z]))[0, 0, 0] for z in weight}
    for z, w in weight.items():
        same = sum(v for other, v in weight.items() if np.allclose(pictures[other], pictures[z], atol=1e-6)) / total
        share = np.isclose(drawn[:, 0, 0], pictures[z], atol=1e-6).all(axis=1).mean()
        assert abs(share - same) < 4 * np.sqrt(0.25 / number), (z, w)


def test_slanted_digits_are_completed_in_their_place():
    straight = TokenHierarchy(
        WindowSpec(window=4, stride=1, tokens=64, components=0, straighten=True), STYLES, **DIGITS
    )
    straight.fit(X[:1500], Y[:1500])
    truth = X[1500:]
    mean = np.broadcast_to(X[:1500].mean(axis=0), truth.shape)
    assert error(straight.in_paint(truth, SCATTERED), SCATTERED, truth) < 0.85 * error(mean, SCATTERED, truth)
    assert error(straight.in_paint(truth, HALF), HALF, truth) < 1.1 * error(mean, HALF, truth)  # the pose is a guess
    generator = torch.Generator().manual_seed(0)
    drawn = straight.in_paint(truth[:5], HALF, generator=generator)
    assert np.allclose(drawn.reshape(-1, 8, 8)[:, HALF], truth[:5].reshape(-1, 8, 8)[:, HALF], atol=1e-5)


def test_a_retina_completes_from_whole_tiles_and_says_when_it_sees_none():
    retina = RetinaSpec(tile=4.0, resize=0, blur=0.0, equalise=False)
    model = TokenHierarchy(retina, ExemplarSpec(exemplars=4), **DIGITS).fit(X[:600], Y[:600])
    with pytest.raises(DataError, match="no tile of the retina lies wholly"):
        model.in_paint(X[:3], SCATTERED)
    upright = RetinaSpec(tile=4.0, resize=0, blur=0.0, equalise=False, straighten=True)
    slanted = TokenHierarchy(upright, ExemplarSpec(exemplars=4), **DIGITS).fit(X[:600], Y[:600])
    with pytest.raises(RecipeError, match="straightened"):
        slanted.in_paint(X[:3], SCATTERED)


def test_grey_values_need_no_window():
    model = TokenHierarchy(ValueSpec(bins=17), NAIVE, **DIGITS).fit(X[:1500], Y[:1500])
    filled = model.in_paint(X[1500:1510], SCATTERED)
    assert np.allclose(filled.reshape(-1, 8, 8)[:, SCATTERED], X[1500:1510].reshape(-1, 8, 8)[:, SCATTERED])
