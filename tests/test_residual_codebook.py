"""Residual and product quantisation: exact on sums and products, no stage that does harm, whole in the token wing."""

import numpy as np
import pytest
import torch

from renorm.errors import DataError, RecipeError
from renorm.recipes.run import fit_run
from renorm.recipes.spec import load_recipe
from renorm.tokens.codebooks.clustering import cluster, nearest
from renorm.tokens.codebooks.codebook import Codebook
from renorm.tokens.codebooks.residual import ProductCodebook, ResidualCodebook
from renorm.tokens.parts import make_codebook
from renorm.tokens.spec import (
    ExemplarSpec,
    HierarchySpec,
    ProductSpec,
    PyramidSpec,
    ResidualSpec,
    StyleSpec,
    TokensSpec,
)
from renorm.tokens.token_hierarchy import TokenHierarchy

BOOKS = [
    ResidualCodebook(shape=(1, 8, 8), tokens=8, stages=3),
    ResidualCodebook(shape=(2, 4, 6), window=2, tokens=8, stages=2, method="lloyd"),
    ResidualCodebook(shape=(1, 1, 12), tokens=4, stages=1),
    ProductCodebook(shape=(1, 8, 8), tokens=8, parts=4),
    ProductCodebook(shape=(2, 4, 6), window=2, tokens=8, parts=2),
    ProductCodebook(shape=(2, 1, 12), tokens=4, parts=8),
]
every_book = pytest.mark.parametrize("book", BOOKS, ids=lambda book: f"{type(book).__name__}-{book.shape}")


def noise(shape, number=200, seed=0):
    return np.random.default_rng(seed).random((number, *shape)).astype(np.float32)


def error(book, x):
    return float(((book.decode(book.encode(x)) - x) ** 2).mean())


# -- what codebooks promise --------------------------------------------------------------------------------------------


@every_book
def test_it_is_a_codebook(book):
    x = noise(book.shape)
    tokens = book.fit(x, seed=0).encode(x)
    assert isinstance(book, Codebook)
    assert tokens.shape == (200, len(book.sizes)) == (200, len(book.locations))
    assert tokens.dtype == np.int64
    assert 0 <= tokens.min() <= tokens.max() < book.tokens
    assert book.decode(tokens).shape == x.shape
    assert (book.grid is None) == (book.depth > 1)


@every_book
def test_what_was_stored_reads_the_same_tokens(book):
    x = noise(book.shape)
    state = book.fit(x, seed=0).state()
    twin = type(book)(**{name: getattr(book, name) for name in ("shape", "window", "tokens", *depth_of(book))})
    twin.restore(state)
    assert np.array_equal(twin.encode(x), book.encode(x))
    assert np.array_equal(twin.decode(book.encode(x)), book.decode(book.encode(x)))


def depth_of(book):
    return ("stages",) if isinstance(book, ResidualCodebook) else ("parts",)


@every_book
def test_a_seed_gives_the_same_centroids(book):
    x = noise(book.shape)
    first = book.fit(x, seed=5).centroids_
    assert np.array_equal(book.fit(x, seed=5).centroids_, first)
    assert not np.array_equal(book.fit(x, seed=6).centroids_, first)


@every_book
def test_hidden_tokens_leave_the_mean_and_touch_nothing_else(book):
    x = noise(book.shape)
    tokens = book.fit(x, seed=0).encode(x[:3])
    mask = np.ones(book.shape[1:], bool)
    mask[0, : book.window] = False
    shown = book.visible(mask)
    assert (~shown).sum() == book.depth
    hidden = book.decode(np.where(shown, tokens, -1))
    rows, columns = book.edges
    corner = (slice(None), slice(None), slice(rows), slice(columns))
    assert np.array_equal(hidden[corner], np.broadcast_to(book.mean_[None], hidden.shape)[corner])
    whole = book.decode(tokens)
    hidden[corner] = whole[corner]
    assert np.array_equal(hidden, whole)
    glimpse = book.match(x[:3], np.broadcast_to(mask, (3, *mask.shape)))
    assert np.array_equal(glimpse.tokens, np.where(shown, tokens, -1))


def test_places_of_patches_by_hand():
    book = ResidualCodebook(shape=(1, 4, 8), stages=2)
    assert book.locations.tolist() == [[1.5, 1.5], [1.5, 1.5], [1.5, 5.5], [1.5, 5.5]]
    assert ProductCodebook(shape=(1, 1, 8), parts=1).locations.tolist() == [[0, 1.5], [0, 5.5]]
    assert ResidualCodebook(shape=(1, 4, 8), stages=1).grid == (1, 2)


# -- residual ----------------------------------------------------------------------------------------------------------


def test_one_stage_is_plain_k_means():
    x = noise((1, 8, 8))
    book = ResidualCodebook(shape=(1, 8, 8), tokens=16, stages=1).fit(x, seed=3)
    patches = x.reshape(200, 2, 4, 2, 4).transpose(0, 1, 3, 2, 4).reshape(-1, 16)
    centroids = cluster(patches, 16, method="full", iterations=25, seed=3)
    assert np.array_equal(book.centroids_[0], centroids)
    assert np.array_equal(book.encode(x).reshape(-1), nearest(patches, centroids)[:, 0])
    assert np.array_equal(book.vectors(), centroids)


@pytest.mark.parametrize("method", ["full", "lloyd"])
def test_a_stage_never_raises_the_training_error(method):
    """Stage by stage, and the first stages of many are those of few."""
    x = noise((1, 8, 8))
    book = ResidualCodebook(shape=(1, 8, 8), tokens=4, stages=5, method=method).fit(x, seed=0)
    tokens = book.encode(x)
    errors = [float(((book.decode_stages(tokens, stage) - x) ** 2).mean()) for stage in range(1, 6)]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] < float(((x - x.mean(axis=0)) ** 2).mean())
    few = ResidualCodebook(shape=(1, 8, 8), tokens=4, stages=2, method=method).fit(x, seed=0)
    assert np.array_equal(few.centroids_, book.centroids_[:2])
    assert np.array_equal(book.decode_stages(tokens, 5), book.decode(tokens))


@pytest.mark.parametrize("seed", range(6))
def test_sums_of_two_and_two_points_come_back(seed):
    """v = a + b: whichever of the two the first stage splits, the second splits the other, and nothing is lost."""
    large, small = np.array([[0, 0], [8, 8]], np.float32), np.array([[-0.5, 0.5], [0.5, -0.5]], np.float32)
    pairs = np.random.default_rng(0).permutation(np.tile(np.arange(4), 25))
    x = (large[pairs // 2] + small[pairs % 2]).reshape(-1, 1, 1, 2)
    book = ResidualCodebook(shape=(1, 1, 2), window=2, tokens=2, stages=2).fit(x, seed=seed)
    assert error(book, x) < 1e-10
    assert len(np.unique(book.encode(x), axis=0)) == 4


def test_tokens_of_decoded_images_stand_still_where_stages_are_far_apart():
    """With corrections smaller than half the distance of centroids, encode undoes decode."""
    book = ResidualCodebook(shape=(1, 1, 4), window=2, tokens=4, stages=2)
    corners = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
    book.restore({"mean": np.zeros((1, 1, 4), np.float32), "centroids": np.stack([corners, 0.25 * corners])})
    tokens = np.stack(np.meshgrid(*[np.arange(4)] * 4, indexing="ij"), -1).reshape(-1, 4)
    assert np.array_equal(book.encode(book.decode(tokens)), tokens)
    assert book.decode(np.array([[3, 1, 0, 2]])).reshape(-1).tolist() == [1.0, 1.25, 0.25, 0.0]
    assert book.decode(np.array([[3, -1, -1, 2]])).reshape(-1).tolist() == [1.0, 1.0, 0.25, 0.0]


# -- product -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_a_product_grid_is_lossless(parts):
    """All 2^4 corners of a cube: parts of 2^(4 / parts) tokens name each."""
    corners = (np.arange(16)[:, None] >> np.arange(4) & 1).astype(np.float32)
    x = np.tile(corners, (20, 1)).reshape(-1, 1, 2, 2)
    book = ProductCodebook(shape=(1, 2, 2), window=2, tokens=2 ** (4 // parts), parts=parts, iterations=100)
    found = [book.fit(x, seed=seed) and error(book, x) for seed in range(20)]  # k-means may end beside the best
    assert min(found) < 1e-12
    tokens = book.fit(x, seed=int(np.argmin(found))).encode(x)
    assert len(np.unique(tokens, axis=0)) == 16
    assert np.array_equal(book.encode(book.decode(tokens)), tokens)


def test_parts_are_cut_channel_by_channel():
    x = noise((2, 4, 4))
    both = ProductCodebook(shape=(2, 4, 4), tokens=8, parts=2).fit(x, seed=0)
    for channel in range(2):
        alone = ResidualCodebook(shape=(1, 4, 4), tokens=8, stages=1).fit(x[:, channel : channel + 1], seed=channel)
        assert np.array_equal(both.centroids_[channel], alone.centroids_[0])
        assert np.array_equal(both.encode(x)[:, channel], alone.encode(x[:, channel : channel + 1])[:, 0])


@every_book
def test_decoded_images_of_a_product_are_decoded_as_they_are(book):
    """Projections: a product's decoded image has its own tokens, and so has one stage."""
    x = noise(book.shape)
    tokens = book.fit(x, seed=0).encode(x)
    again = book.decode(book.encode(book.decode(tokens)))
    if isinstance(book, ProductCodebook) or book.stages == 1:
        assert np.array_equal(again, book.decode(tokens))


# -- in the wing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codebook", [ResidualSpec(tokens=8, stages=2), ProductSpec(tokens=8, parts=2)])
@pytest.mark.parametrize("law", [PyramidSpec(levels=0), StyleSpec(styles=2, share=0.0), ExemplarSpec(exemplars=4)])
def test_laws_without_a_grid_stand_on_it(codebook, law, tmp_path):
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    model = TokenHierarchy(codebook, law, value_range=(0.0, 16.0)).fit(x[:800], y[:800])
    assert model.score(x[800:1000], y[800:1000]) > 0.8
    model.save(tmp_path)
    twin = TokenHierarchy.load(tmp_path)
    assert np.array_equal(twin.predict_log_joint(x[:20]), model.predict_log_joint(x[:20]))
    drawn = model.sample(3, generator=torch.Generator().manual_seed(0))
    assert drawn.shape == (3, 1, 8, 8)
    tokens = model.transform(x[:5])
    assert tokens.shape == (5, 8)
    assert np.array_equal(model.codec_.decompress(model.compress(x[:5])), tokens)


def test_one_stage_carries_blocks():
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    law = PyramidSpec(levels=1, parents=(16,))
    model = TokenHierarchy(ResidualSpec(window=2, tokens=16, stages=1), law, value_range=(0.0, 16.0))
    assert model.fit(x[:800], y[:800]).score(x[800:1000], y[800:1000]) > 0.7


@pytest.mark.parametrize("kind", ["residual", "product"])
def test_a_recipe_with_it_fits(kind, tmp_path):
    members = f'[{{codebook={{kind="{kind}", tokens=8}}, law={{kind="styles", styles=2, share=0.0}}}}]'
    changes = {"data.name": "digits", "model.members": members, "model.weighs": 0, "measure.samples": 4}
    model = fit_run(load_recipe("tokens-mnist", changes), tmp_path / kind, progress=False)
    assert model.members_[0].codebook.kind == kind
    assert model.sample(2, generator=torch.Generator().manual_seed(0)).shape == (2, 1, 8, 8)


def test_recipes_that_join_neighbours_of_stages_are_refused(tmp_path):
    members = '[{codebook={kind="residual"}, law={kind="styles"}}]'
    changes = {"data.name": "digits", "model.members": members, "model.weighs": 0, "measure.samples": 4}
    with pytest.raises(RecipeError, match=r"must lie on a grid; set law.share = 0"):
        fit_run(load_recipe("tokens-mnist", changes), tmp_path / "run", progress=False)
    with pytest.raises(RecipeError, match="no common looks"):
        ResidualCodebook(shape=(1, 4, 4)).vectors()


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_wrong_values_are_refused():
    with pytest.raises(DataError, match="divides height and width"):
        ResidualCodebook(shape=(1, 6, 8))
    with pytest.raises(RecipeError, match="tokens must be >= 2"):
        ResidualCodebook(shape=(1, 8, 8), tokens=1)
    with pytest.raises(RecipeError, match="stages must be >= 1"):
        ResidualCodebook(shape=(1, 8, 8), stages=0)
    with pytest.raises(RecipeError, match="parts must divide the 16 values"):
        ProductCodebook(shape=(1, 8, 8), parts=3)
    for spec, name, value in ((ResidualSpec, "stages", 0), (ProductSpec, "parts", 0), (ResidualSpec, "tokens", 1)):
        with pytest.raises(ValueError, match=f"{name} must be >="):
            spec(**{name: value})
    x = noise((1, 8, 8))
    book = make_codebook(ResidualSpec(tokens=4), (1, 8, 8)).fit(x, seed=0)
    with pytest.raises(DataError, match="must have the shape"):
        book.encode(x[:, :, :4])
    with pytest.raises(DataError, match=r"a token must be in 0 \.\.\. 3"):
        book.decode(np.full((1, 8), 4))
    with pytest.raises(RecipeError, match=r"stages 1 \.\.\. 2"):
        book.decode_stages(book.encode(x), 3)
    with pytest.raises(DataError, match="different windows"):
        ResidualCodebook(shape=(1, 8, 8), tokens=8).fit(np.zeros((5, 1, 8, 8), np.float32), seed=0)
    assert TokensSpec((HierarchySpec(ResidualSpec(), StyleSpec(share=0.0)),)).members[0].codebook.stages == 2
