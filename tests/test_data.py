"""Data sets: the spec, standardised fields, sizes, splits, and the sets that need no file."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from renorm.bases import basis_for
from renorm.data import SOURCES, DataSpec, Fields, load, store, where
from renorm.data.fields import require_finite
from renorm.data.raw import hold_out
from renorm.data.resize import block_mean, centre_crop, pad, resize
from renorm.errors import DataError, RecipeError
from renorm.lattice import Lattice
from renorm.spec import from_mapping, from_toml, to_toml


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is the only place with data."""
    monkeypatch.setattr(store, "roots", lambda: [tmp_path])
    return tmp_path


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


# The spec


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "folder"}, "path must name the folder"),
        ({"path": "x"}, "path is for the names 'folder' and 'array' only, got 'x'"),
        ({"size": 0}, "size must be >= 1"),
        ({"value_range": (1.0, 1.0)}, "value_range must ascend"),
        ({"limit": 0}, "limit must be >= 1"),
        ({"channels": 0}, "channels must be >= 1"),
        ({"shape": (4, 4, 4, 4)}, "one to three axes"),
        ({"shape": (0,)}, "at least one site"),
        ({"exponent": -1.0}, "exponent must be in"),
        ({"mass": 0.0}, "mass must be > 0"),
        ({"number": 0}, "number must be >= 1"),
        ({"seed": -1}, "seed must be in"),
    ],
)
def test_a_spec_refuses_what_is_out_of_range(values, message):
    with pytest.raises(ValueError, match=message):
        DataSpec(**values)
    with pytest.raises(RecipeError):
        from_mapping(DataSpec, values)


@pytest.mark.parametrize("values", [{"resize": "nearest"}, {"boundary": "mirror"}, {"size": 8.5}])
def test_a_recipe_refuses_another_word_or_type(values):
    with pytest.raises(RecipeError, match=f"^{next(iter(values))} must be"):
        from_mapping(DataSpec, values)


def test_an_unknown_data_set_is_named():
    with pytest.raises(RecipeError, match="unknown data set 'minst'; known: mnist, fashion-mnist"):
        load(DataSpec("minst"))


def test_a_spec_survives_toml():
    spec = DataSpec("gaussian", shape=(8, 4, 2), boundary="periodic", mass=0.1, value_range=(0.0, 1.0))
    assert from_toml(DataSpec, to_toml(spec)) == spec


def test_a_spec_needs_no_torch():
    code = "import sys; from renorm.data import DataSpec; DataSpec('mnist'); print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"


# Fields


def test_bytes_become_the_value_range_and_come_back_exactly():
    every = torch.arange(256, dtype=torch.uint8).reshape(-1, 1, 1, 1)
    for value_range in ((-1.0, 1.0), (0.0, 1.0), (-3.0, 0.5)):
        fields = Fields(every, Lattice((1, 1)), value_range=value_range)
        x = fields.batch(torch.arange(256))
        assert x.dtype == torch.float32
        assert (float(x.min()), float(x.max())) == pytest.approx(value_range)
        assert torch.equal(fields.to_uint8(x), every)
    # By hand: 51 is a fifth of 255, so -1 + 2/5.
    assert Fields(every, Lattice((1, 1))).batch(torch.tensor([51])).item() == pytest.approx(-0.6)


def test_to_uint8_rounds_and_clips():
    fields = Fields(torch.zeros(1, 1, 1, dtype=torch.uint8), Lattice((1,)))
    x = torch.tensor([-7.0, -1.0, -1 + 0.9 / 127.5, 0.0, 1.0, 7.0])
    assert fields.to_uint8(x).tolist() == [0, 0, 1, 128, 255, 255]


def test_float_fields_are_not_rescaled():
    values = torch.tensor([[[5.0, -70.0]], [[0.0, 1.0]]])
    assert torch.equal(Fields(values, Lattice((2,))).batch(torch.tensor([1, 0])), values.flip(0))


def test_flips_mirror_the_last_axis_of_about_half_the_fields():
    values = torch.arange(6, dtype=torch.uint8).reshape(1, 1, 2, 3).expand(4000, 1, 2, 3).contiguous()
    fields = Fields(values, Lattice((2, 3)))
    index = torch.arange(4000)
    x = fields.to_uint8(fields.batch(index, flip_generator=torch.Generator().manual_seed(0)))
    mirrored = (x == values.flip(-1)).flatten(1).all(1)
    assert ((x == values).flatten(1).all(1) ^ mirrored).all()
    assert float(mirrored.float().mean()) == pytest.approx(0.5, abs=4 * 0.5 / 4000**0.5)
    again = fields.batch(index, flip_generator=torch.Generator().manual_seed(0))
    assert torch.equal(fields.to_uint8(again), x)


def test_the_fingerprint_follows_the_contents():
    values, lattice = torch.zeros(2, 1, 4, dtype=torch.uint8), Lattice((4,))
    same = Fields(values.clone(), lattice).sha256()
    assert Fields(values, lattice).sha256() == same
    changed = values.clone()
    changed[1, 0, 3] = 1
    labels = torch.tensor([0, 1])
    others = [
        Fields(changed, lattice),
        Fields(values.float(), lattice),
        Fields(values.reshape(2, 1, 2, 2), Lattice((2, 2))),
        Fields(values, lattice, labels=labels, num_classes=2),
        Fields(values, lattice, labels=1 - labels, num_classes=2),
    ]
    assert len({same, *(fields.sha256() for fields in others)}) == 6


def test_fields_that_disagree_are_refused():
    values, lattice = torch.zeros(2, 1, 4, dtype=torch.uint8), Lattice((4,))
    with pytest.raises(DataError, match=r"uint8 or float32, got torch\.int16"):
        Fields(values.to(torch.int16), lattice)
    with pytest.raises(DataError, match=r"shape \(1, 5\) of their lattice, got \(1, 4\)"):
        Fields(values, Lattice((5,)))
    for labels, got in (([0, 2], r"0 \.\.\. 2"), ([-2, 1], r"-2 \.\.\. 1")):
        with pytest.raises(DataError, match=rf"labels must be in 0 \.\.\. 1 \(-1: unknown\), got {got}"):
            Fields(values, lattice, labels=torch.tensor(labels), num_classes=2)
    with pytest.raises(DataError, match="come together"):
        Fields(values, lattice, labels=torch.tensor([0, 1]))


def test_a_class_may_be_unknown():
    values, lattice = torch.zeros(2, 1, 4, dtype=torch.uint8), Lattice((4,))
    fields = Fields(values, lattice, labels=torch.tensor([1, -1]), num_classes=2)
    with pytest.raises(DataError, match=r"1 of 2 have none \(-1\); leave these fields out, or .*data\.labels = false"):
        fields.require_classes()
    with pytest.raises(DataError, match="2 of 2 have none"):
        Fields(values, lattice).require_classes()
    Fields(values, lattice, labels=torch.tensor([1, 0]), num_classes=2).require_classes()


def test_the_first_field_that_is_not_finite_is_named():
    values = torch.zeros(9, 1, 4)
    values[6, 0, 1], values[4, 0, 3] = torch.nan, -torch.inf
    with pytest.raises(DataError, match=r"field 4 of it has a NaN or an infinity \(2 of 9"):
        require_finite(values, "it")
    require_finite(torch.full((1, 1, 4), 3e38), "large but finite")


# Resizing


def test_block_mean_by_hand():
    x = np.array([[[[0, 2, 10, 10], [4, 5, 11, 11]]]], np.uint8)
    assert block_mean(x, 2).tolist() == [[[[3, 10]]]]  # 2.75, and 10.5 that goes to the even neighbour
    assert block_mean(x.astype(np.float32), 2).tolist() == [[[[2.75, 10.5]]]]
    assert block_mean(np.full((1, 1, 8, 8), 255, np.uint8), 8).item() == 255


@pytest.mark.parametrize("shape", [(3, 1, 8), (3, 2, 8, 8), (3, 1, 4, 4, 4)])
def test_block_mean_keeps_the_mean_and_composes(shape, rng):
    x = rng.standard_normal(shape).astype(np.float32)
    assert np.allclose(block_mean(x, 2).mean(), x.mean(), atol=1e-6)
    assert np.allclose(block_mean(block_mean(x, 2), 2), block_mean(x, 4), atol=1e-6)


def test_28_is_padded_by_two_and_then_halved(rng):
    x = rng.integers(0, 256, (5, 1, 28, 28)).astype(np.uint8)
    wide = resize(x, 32)
    assert np.array_equal(wide[..., 2:30, 2:30], x)
    assert wide.sum() == x.sum()
    assert np.array_equal(resize(x, 16), block_mean(wide, 2))
    assert np.array_equal(resize(x, 14), block_mean(x, 2))
    assert np.array_equal(resize(x, 28), x)


def test_colour_of_edge_28_is_not_padded():
    assert resize(np.full((1, 3, 28, 28), 200, np.uint8), 16).min() == 200


def test_bicubic_keeps_constants_and_matches_pillow(rng):
    assert (resize(np.full((2, 3, 12, 12), 77, np.uint8), 7) == 77).all()
    x = np.kron(rng.integers(0, 256, (6, 6)), np.ones((4, 4))).astype(np.uint8)
    ours = resize(x[None, None], 15, "bicubic")[0, 0].astype(float)
    # Of floats: of bytes Pillow rounds and clips between the two axes.
    theirs = Image.fromarray(x.astype(np.float32)).resize((15, 15), Image.Resampling.BICUBIC)
    assert abs(ours - np.asarray(theirs).clip(0, 255)).max() <= 0.501


def test_fields_that_are_not_square_lose_their_margins():
    x = np.arange(12).reshape(1, 1, 2, 6)
    assert centre_crop(x).tolist() == [[[[2, 3], [8, 9]]]]


def test_impossible_sizes_are_refused():
    x = np.zeros((1, 1, 6, 6), np.uint8)
    with pytest.raises(DataError, match="divides the edge 6, got 4"):
        resize(x, 4, "mean")
    with pytest.raises(DataError, match="at least the edge 6, got 4"):
        pad(x, 4)
    with pytest.raises(DataError, match="1-D field of edge 6"):
        resize(x[..., 0], 4)


# Sources without a download


def test_hold_out_is_a_partition_that_a_seed_decides():
    train, test = (hold_out(95, split, 3, "it") for split in ("train", "test"))
    assert len(test) == 9
    assert sorted([*train, *test]) == list(range(95))
    assert np.array_equal(test, hold_out(95, "test", 3, "it"))
    assert not np.array_equal(test, hold_out(95, "test", 4, "it"))
    with pytest.raises(DataError, match="at least 2 fields"):
        hold_out(1, "train", 0, "it")


def test_digits_have_labels_and_disjoint_splits():
    train, test = (load(DataSpec("digits", labels=True), split) for split in ("train", "test"))
    assert (len(train), len(test)) == (1618, 179)
    assert train.lattice == Lattice((8, 8))
    assert train.num_classes == test.num_classes == 10
    assert train.values.max() == 255
    assert load(DataSpec("digits", limit=7)).values.equal(train.values[:7])
    assert load(DataSpec("digits")).labels is None


def test_photos_share_no_pixel_between_splits():
    train, test = (load(DataSpec("photos", size=16), split) for split in ("train", "test"))
    assert train.lattice == Lattice((16, 16), channels=3)
    assert len(train) > 4 * len(test) > 4000
    rows = [{row.tobytes() for row in f.values[:, :, 0].numpy()} for f in (train, test)]
    assert not rows[0] & rows[1]
    grey = load(DataSpec("photos", size=16, channels=1, limit=3))
    colour = train.values[:3].double()
    luma = 0.299 * colour[:, 0] + 0.587 * colour[:, 1] + 0.114 * colour[:, 2]
    assert (grey.values[:, 0].double() - luma).abs().max() <= 0.5001
    with pytest.raises(DataError, match="no patches of size 300"):
        load(DataSpec("photos", size=300))


@pytest.mark.parametrize("boundary", ["open", "periodic"])
@pytest.mark.parametrize("shape", [(16,), (8, 6), (4, 4, 4)])
def test_gaussian_fields_have_their_spectrum(shape, boundary):
    spec = DataSpec("gaussian", shape=shape, boundary=boundary, mass=0.7, exponent=1.5, number=6000, channels=2)
    fields = load(spec)
    assert fields.lattice == Lattice(shape, boundary=boundary, channels=2)
    expected = (fields.lattice.k_sq() + 0.7**2) ** -1.5
    expected *= 0.25 / expected.mean()
    modes = basis_for(fields.lattice).forward(fields.values).double()
    measured = modes.square().mean(dim=(0, 1))
    # Each variance is estimated from 12 000 draws: a relative standard error of sqrt(2 / 12 000).
    assert ((measured / expected - 1).abs() < 5 * (2 / 12_000) ** 0.5).all()
    if boundary == "periodic":  # every site is alike
        assert float(fields.values.var()) == pytest.approx(0.25, rel=0.05)


def test_gaussian_splits_are_independent_and_repeatable():
    spec = DataSpec("gaussian", shape=(8, 8), number=50)
    train, test = load(spec), load(spec, "test")
    assert (len(train), len(test)) == (50, 5)
    assert load(spec).sha256() == train.sha256()
    assert not torch.equal(train.values[:5], test.values)
    assert load(DataSpec("gaussian", shape=(8, 8), seed=1), "test").sha256() != test.sha256()


def test_labels_that_do_not_exist_are_refused():
    with pytest.raises(DataError, match="labels = true needs a data set with classes; photos has none"):
        load(DataSpec("photos", labels=True))


def test_where_says_without_reading(root):
    assert where("mnist") is None
    assert where("digits") == "scikit-learn's own files"
    with pytest.raises(DataError, match="got 'minst'"):
        where("minst")
    for name in set(SOURCES) - {"folder", "array"}:  # these have no place of their own
        where(name)


def test_renorm_data_comes_first_and_must_exist(tmp_path, monkeypatch):
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "mnist.npz").touch()
    monkeypatch.setenv("RENORM_DATA", str(tmp_path))
    assert where("mnist") == str(tmp_path / "mnist")
    first, *shared, last = store.roots()
    assert (first, last) == (tmp_path, store.cache())
    assert all(folder.parts[-2:] == ("shared", "data") for folder in shared)
    monkeypatch.setenv("RENORM_DATA", str(tmp_path / "absent"))
    with pytest.raises(DataError, match="RENORM_DATA must name a folder"):
        where("mnist")
