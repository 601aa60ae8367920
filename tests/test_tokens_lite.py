"""The lite model: loops against hand-counted tables, against the enumerated law, and against the fast parts."""

import itertools

import numpy as np
import pytest
from scipy import ndimage

from renorm.bench import lite_loops
from renorm.bench.lite_loops import LiteLoops, resize_bilinear
from renorm.data import DataSpec, load, store
from renorm.errors import DataError, RecipeError
from renorm.tokens.codebooks.windows import WindowCodebook
from renorm.tokens.families.structure import Blocks, ClusterParents
from renorm.tokens.trees.counts import Counts, smooth


def ramp(shape=(1, 8, 8), number=1):
    return np.random.default_rng(0).random((number, *shape))


def small(positions, subpositions):
    """A model of one 8x8 image in two tokens, two supertokens and two classes, with tables written down by hand."""
    codebook = np.stack([np.linspace(-1, 1, 16), np.linspace(1, -1, 16)])
    theta, psi = np.array([[0.75, 0.25], [0.4, 0.6]]), np.array([[0.9, 0.1], [0.2, 0.8]])
    return LiteLoops(
        codebook,
        np.stack([np.ones(64), -np.ones(64)]),
        np.array([0.7, 0.3]),
        theta[None] if positions else theta,
        np.stack([psi, psi, psi[::-1], psi]) if subpositions else psi,
        side=2,
    )


# the loops themselves


def test_the_joint_by_hand():
    model = small(False, False)
    mixed = np.log([0.7 * (0.75 * 0.9**3 * 0.1 + 0.25 * 0.2**3 * 0.8), 0.3 * (0.4 * 0.9**3 * 0.1 + 0.6 * 0.2**3 * 0.8)])
    assert np.allclose(model.log_joint(np.array([0, 0, 1, 0])), mixed, atol=1e-9)


@pytest.mark.parametrize("positions", [False, True])
@pytest.mark.parametrize("subpositions", [False, True])
def test_the_joint_sums_to_one_over_all_tokens(positions, subpositions):
    model = small(positions, subpositions)
    total = sum(np.exp(model.log_joint(np.array(z))).sum() for z in itertools.product((0, 1), repeat=4))
    assert total == pytest.approx(1, abs=1e-9)


def test_only_sub_positions_tell_places_apart():
    one, other = np.array([0, 0, 1, 0]), np.array([0, 1, 0, 0])
    assert np.allclose(small(False, False).log_joint(one), small(False, False).log_joint(other))
    assert not np.allclose(small(False, True).log_joint(one), small(False, True).log_joint(other))


def test_counts_by_hand():
    """Two images: each patch of the first rises, each patch of the second falls; all counts are whole."""
    rise = np.tile(np.linspace(0.2, 1, 16).reshape(4, 4), (2, 2))
    model = lite_loops.fit(
        np.stack([rise, 1.2 - rise, rise])[:, None],
        np.array([0, 1, 0]),
        tokens=2,
        supertokens=2,
        classes=2,
        seed=1,
        positions=True,
        subpositions=True,
    )
    assert model.tokens(rise).tolist() == [model.tokens(rise)[0]] * 4
    up, down = model.tokens(rise)[0], model.tokens(1.2 - rise)[0]
    over, under = model.supertokens(np.full(4, up))[0], model.supertokens(np.full(4, down))[0]
    assert up != down
    assert over != under
    assert np.allclose(model.pi, [3 / 5, 2 / 5])
    assert model.theta.shape == (1, 2, 2)
    assert np.allclose(model.theta[0, 0, [over, under]], [3 / 4, 1 / 4])
    assert np.allclose(model.theta[0, 1, [over, under]], [1 / 3, 2 / 3])
    assert np.allclose(model.psi[:, over, up], 3 / 4)
    assert np.allclose(model.psi[:, under, down], 2 / 3)


def test_tables_without_positions_count_each_token_once():
    images, labels = ramp((1, 16, 16), 6), np.arange(6) % 2
    shared = lite_loops.fit(images, labels, tokens=3, supertokens=2, classes=2, iterations=2)
    own = lite_loops.fit(
        images, labels, tokens=3, supertokens=2, classes=2, iterations=2, positions=True, subpositions=True
    )
    # 3 images of each class with 4 blocks: 12 counts on 2 supertokens, and 3 + 2 for each block by itself
    assert np.allclose(shared.theta * 14 - 1, (own.theta * 5 - 1).sum(axis=0))
    assert np.allclose(shared.psi.sum(axis=-1), 1)
    assert np.allclose(own.psi.sum(axis=-1), 1)


def test_reconstruction_keeps_each_patch_s_mean_and_scale():
    images = ramp((1, 16, 16), 4)
    model = lite_loops.fit(images, np.zeros(4, int), tokens=5, supertokens=2, classes=1, iterations=3)
    again = model.reconstruct(images)
    assert np.allclose(again[:, 0, :4, :4].mean(axis=(1, 2)), images[:, 0, :4, :4].mean(axis=(1, 2)))
    spread = model.codebook[model.tokens(images[2, 0])[7]] * images[2, 0, 4:8, 12:].std()
    assert np.allclose(again[2, 0, 4:8, 12:].ravel() - images[2, 0, 4:8, 12:].mean(), spread)


def test_resize_is_blur_and_linear_interpolation():
    images = np.random.default_rng(1).integers(0, 256, (3, 1, 28, 28), dtype=np.uint8)
    for image, small_image in zip(images[:, 0], resize_bilinear(images)[:, 0], strict=True):
        blurred = ndimage.gaussian_filter(image / 255, 0.375, mode="mirror")
        expected = ndimage.zoom(blurred, 16 / 28, order=1, mode="mirror", grid_mode=True)
        assert np.allclose(small_image, expected, atol=1e-12)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: lite_loops.fit(ramp((1, 12, 12)), np.zeros(1, int)), DataError, "multiple of 8, got 12"),
        (lambda: lite_loops.fit(ramp(number=3), np.array([0, 1, 10])), DataError, "one label from 0 to 9"),
        (lambda: lite_loops.fit(ramp(), np.zeros(1, int)), RecipeError, "256 centroids need as many samples"),
        (lambda: resize_bilinear(np.zeros((1, 1, 16, 16), np.uint8)), DataError, "makes images smaller"),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


# the fast parts against the loops


def blog_codebook(side, tokens, iterations):
    """Patches of 4x4 standardised as (p - mean) / (std + 1e-6); those with a mean above 0.1 shape the centroids."""
    return WindowCodebook(
        shape=(1, side, side),
        window=4,
        stride=4,
        tokens=tokens,
        floor=0.0,
        margin=1e-6,
        background=0.0,
        ink=0.10,
        method="lloyd",
        iterations=iterations,
        sample=0,
        components=0,
    )


def fast_lite(images, labels, new, *, tokens, supertokens, iterations, positions=False, subpositions=False):
    """Codebook, parents' vectors, tokens, parents and log joint of new images, from the vectorised parts."""
    codebook = blog_codebook(images.shape[-1], tokens, iterations).fit(images.astype(np.float32), seed=42)
    z = codebook.encode(images.astype(np.float32))
    blocks = Blocks(codebook.grid)
    parents = ClusterParents(supertokens, blocks, start="samples", iterations=iterations)
    parents.fit(z, codebook.centroids_, seed=42)
    s, number = parents.encode(z), len(blocks.children)
    table = np.arange(number) if positions else 0
    place = np.arange(4) if subpositions else 0
    n_theta = Counts.of((number if positions else 1, 10, supertokens), table=table, parent=labels[:, None], child=s)
    n_psi = Counts.of(
        (4 if subpositions else 1, supertokens, tokens), table=place, parent=s[:, :, None], child=blocks.tuples(z)
    )
    pi = smooth(np.bincount(labels, minlength=10).astype(float), None, 10.0)
    theta = np.broadcast_to(smooth(n_theta.dense(), None, float(supertokens)), (number, 10, supertokens))
    psi = np.broadcast_to(smooth(n_psi.dense(), None, float(tokens)), (4, supertokens, tokens))
    z_new = codebook.encode(new.astype(np.float32))
    children = blocks.tuples(z_new)
    below = sum(np.log(psi[i].T[children[:, :, i]]) for i in range(4))  # (number, blocks, supertokens)
    log_joint = np.log(pi) + np.log(np.einsum("nbs,bcs->nbc", np.exp(below), theta)).sum(axis=1)
    return codebook.centroids_, parents.vectors, z_new, parents.encode(z_new), log_joint


def compare(images, labels, new, **setting):
    slow = lite_loops.fit(images, labels, **setting)
    centroids, vectors, z, s, log_joint = fast_lite(images, labels, new, **setting)
    tokens = np.array([slow.tokens(image[0]) for image in new])
    assert np.allclose(centroids, slow.codebook, atol=1e-5)
    assert np.allclose(vectors, slow.supercodebook, atol=1e-5)
    assert np.array_equal(z, tokens)
    assert np.array_equal(s, [slow.supertokens(row) for row in tokens])
    assert np.allclose(log_joint, slow.predict_log_joint(new), atol=1e-5)


@pytest.mark.parametrize(("positions", "subpositions"), [(False, False), (True, False), (False, True), (True, True)])
def test_fast_parts_are_the_loops_on_small_digits(positions, subpositions):
    fields = load(DataSpec("digits", labels=True), "train")
    assert fields.labels is not None
    images, labels = fields.values[:200].numpy() / 255, fields.labels[:200].numpy()
    setting = {"tokens": 12, "supertokens": 6, "iterations": 25, "positions": positions, "subpositions": subpositions}
    compare(images[:150], labels[:150], images[150:], **setting)


@pytest.mark.skipif(store.find("mnist") is None, reason="needs MNIST")
def test_fast_parts_are_the_loops_on_mnist():
    fields = load(DataSpec("mnist", labels=True), "train")
    assert fields.labels is not None
    images, labels = resize_bilinear(fields.values[:600].numpy()), fields.labels[:600].numpy()
    compare(images[:500], labels[:500], images[500:], tokens=256, supertokens=64, iterations=10)
