"""Data files: the formats of MNIST and CIFAR-10, folders of images, arrays, and what is refused."""

import gzip
import io
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from renorm.data import DataSpec, load, store
from renorm.data.cifar10 import BATCHES
from renorm.data.mnist import read_idx
from renorm.data.raw import hold_out
from renorm.data.residual import decode_residual
from renorm.errors import DataError
from renorm.lattice import Lattice

REAL = pytest.mark.skipif(
    store.find("mnist") is None or store.find("cifar10") is None,
    reason="MNIST and CIFAR-10 are neither in RENORM_DATA nor in the cache",
)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is the only place with data."""
    monkeypatch.setattr(store, "roots", lambda: [tmp_path])
    return tmp_path


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


# MNIST and CIFAR-10, small files made here


def write_idx(path: Path, x: np.ndarray) -> None:
    header = bytes((0, 0, 8, x.ndim)) + np.array(x.shape, ">i4").tobytes()
    path.write_bytes(gzip.compress(header + x.tobytes()))


def test_idx_files(root, rng):
    (root / "mnist").mkdir()
    images = {"train": rng.integers(0, 256, (7, 28, 28)), "t10k": rng.integers(0, 256, (3, 28, 28))}
    for part, x in images.items():
        write_idx(root / "mnist" / f"{part}-images-idx3-ubyte.gz", x.astype(np.uint8))
        write_idx(root / "mnist" / f"{part}-labels-idx1-ubyte.gz", np.arange(len(x), dtype=np.uint8))
    test = load(DataSpec("mnist", labels=True), "test")
    assert np.array_equal(test.values[:, 0].numpy(), images["t10k"])
    assert test.labels.tolist() == [0, 1, 2]
    assert test.num_classes == 10
    assert load(DataSpec("mnist", size=16, limit=4)).values.shape == (4, 1, 16, 16)


def test_damaged_idx_files_are_refused(tmp_path):
    path = tmp_path / "x.gz"
    write_idx(path, np.zeros((2, 3), np.uint8))
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    with pytest.raises(DataError, match=r"cannot read .* delete it"):
        read_idx(path)
    path.write_bytes(b"<html>")
    with pytest.raises(DataError, match="cannot read"):
        read_idx(path)
    path.write_bytes(gzip.compress(b"\0\0\x0d\1"))
    with pytest.raises(DataError, match=r"IDX file of bytes .* got 00 00 0d 01"):
        read_idx(path)
    path.write_bytes(gzip.compress(gzip.decompress(whole)[:-1]))
    with pytest.raises(DataError, match=r"must hold \(2, 3\) = 6 bytes, got 5"):
        read_idx(path)


def write_cifar(path: Path, records: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in records.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def test_the_binary_version_of_cifar10(root, rng):
    (root / "cifar10").mkdir()
    path = root / "cifar10" / "cifar-10-binary.tar.gz"
    images = rng.integers(0, 256, (12, 3, 32, 32)).astype(np.uint8)
    records = [bytes([i % 10]) + x.tobytes() for i, x in enumerate(images)]
    names = [*BATCHES["train"], *BATCHES["test"]]
    write_cifar(path, {name: b"".join(records[2 * i : 2 * i + 2]) for i, name in enumerate(names)})
    train, test = (load(DataSpec("cifar10", labels=True), split) for split in ("train", "test"))
    assert np.array_equal(train.values.numpy(), images[:10])
    assert np.array_equal(test.values.numpy(), images[10:])
    assert test.labels.tolist() == [0, 1]
    write_cifar(path, {"test_batch.bin": records[0][:-1]})
    with pytest.raises(DataError, match=r"records of 3073 bytes in test_batch\.bin, got 3072"):
        load(DataSpec("cifar10"), "test")
    with pytest.raises(DataError, match="cannot read"):
        load(DataSpec("cifar10"), "train")


def encode_residual(image: np.ndarray) -> np.ndarray:
    """The coding, site by site and slowly: the median of a, b and a + b - c, taken literally."""
    number, _, height, width = image.shape
    red, green, blue = image.astype(int).transpose(1, 0, 2, 3)
    residual = np.empty((3, number, height, width), np.uint8)
    for k, plane in enumerate((green, red - green, blue - green)):
        for n, i, j in np.ndindex(number, height, width):
            a = plane[n, i, j - 1] if j else 0
            b = plane[n, i - 1, j] if i else 0
            c = plane[n, i - 1, j - 1] if i and j else 0
            guess = sorted((a, b, a + b - c))[1]
            residual[k, n, i, j] = (plane[n, i, j] - guess) % 256
    return residual


def test_residuals_are_decoded_without_loss(rng):
    noise = rng.integers(0, 256, (3, 3, 5, 6)).astype(np.uint8)  # all differences, which wrap around
    smooth = (np.add.outer(np.arange(5), np.arange(6)) * 20 + np.zeros((1, 3, 1, 1))).astype(np.uint8)
    image = np.concatenate([noise, smooth])
    assert np.array_equal(decode_residual(encode_residual(image)), image)


def test_residual_stacks_are_read_as_far_as_the_limit_asks(root, rng):
    (root / "cifar10").mkdir()
    image = rng.integers(0, 256, (6, 3, 4, 4)).astype(np.uint8)
    residual = encode_residual(image)
    for i, name in enumerate(("train_a", "train_b", "test")):
        part = slice(2 * i, 2 * i + 2)
        label = np.array([3, 9], np.uint8)
        np.savez(root / "cifar10" / f"{name}.npz", residual=residual[:, part], label=label)
    train = load(DataSpec("cifar10", labels=True))
    assert np.array_equal(train.values.numpy(), image[:4])
    assert train.labels.tolist() == [3, 9, 3, 9]
    assert np.array_equal(load(DataSpec("cifar10", limit=3)).values.numpy(), image[:3])
    assert len(load(DataSpec("cifar10", limit=1))) == 1
    assert np.array_equal(load(DataSpec("cifar10"), "test").values.numpy(), image[4:])


def test_photographs_of_clothes_have_two_stacks_and_no_address(root, rng):
    with pytest.raises(DataError, match=r"clothing64 is not served for download: put train\.npz and test\.npz"):
        load(DataSpec("clothing64"))
    (root / "clothing64").mkdir()
    image = rng.integers(0, 256, (5, 3, 4, 4)).astype(np.uint8)
    for name, part in (("train", slice(3)), ("test", slice(3, 5))):
        coded = encode_residual(image[part])
        np.savez(root / "clothing64" / f"{name}.npz", residual=coded, label=np.full(coded.shape[1], 7, np.uint8))
    train = load(DataSpec("clothing64", labels=True, limit=2))
    assert np.array_equal(train.values.numpy(), image[:2])
    assert train.labels.tolist() == [7, 7]
    assert np.array_equal(load(DataSpec("clothing64"), "test").values.numpy(), image[3:])


@REAL
def test_real_mnist():
    test = load(DataSpec("mnist", size=32, labels=True), "test")
    assert len(test) == 10_000
    assert test.labels[:5].tolist() == [7, 2, 1, 0, 4]  # the first of the authors' test set
    assert int(test.values.sum()) / (10_000 * 28 * 28 * 255) == pytest.approx(0.1325, abs=1e-4)


@REAL
def test_real_cifar10():
    test = load(DataSpec("cifar10", labels=True), "test")
    assert torch.bincount(test.labels).tolist() == [1000] * 10
    # The channel means of the test set, as published with many classifiers.
    mean = test.values.double().mean(dim=(0, 2, 3)) / 255
    assert mean.tolist() == pytest.approx([0.4942, 0.4851, 0.4504], abs=1e-4)


# Folders


def save_images(root: Path, shapes: dict[str, tuple[int, ...]], rng: np.random.Generator) -> None:
    for name, shape in shapes.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, shape).astype(np.uint8)).save(root / name)


def test_a_folder_of_images(tmp_path, rng):
    save_images(tmp_path, {f"{i:02}.png": (6, 4, 3) for i in range(20)}, rng)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "._00.png").write_text("no image either")
    spec = DataSpec("folder", path=str(tmp_path))
    train, test = load(spec), load(spec, "test")
    assert (len(train), len(test)) == (18, 2)
    assert train.lattice == Lattice((6, 4), channels=3)
    first = np.asarray(Image.open(tmp_path / f"{hold_out(20, 'test', 0, '')[0]:02}.png"))
    assert np.array_equal(test.values[0].permute(1, 2, 0).numpy(), first)
    assert load(DataSpec("folder", path=str(tmp_path), channels=1)).lattice.channels == 1
    assert load(DataSpec("folder", path=str(tmp_path), size=2, limit=5)).values.shape == (5, 3, 2, 2)


def test_sub_folders_are_classes(tmp_path, rng):
    save_images(tmp_path, {f"{kind}/{i}.png": (4, 4) for kind in ("cat", "dog", "ant") for i in range(7)}, rng)
    fields = load(DataSpec("folder", path=str(tmp_path), labels=True))
    assert fields.num_classes == 3
    assert fields.lattice.channels == 1
    ant = np.asarray(Image.open(tmp_path / "ant" / "0.png"))
    same = (fields.values[:, 0].numpy() == ant).all(axis=(1, 2))
    assert fields.labels[same].tolist() in ([0], [])
    assert len(load(DataSpec("folder", path=str(tmp_path)))) == 19
    save_images(tmp_path, {"loose.png": (4, 4)}, rng)
    with pytest.raises(DataError, match=r"sub-folder of its class, got .*loose\.png"):
        load(DataSpec("folder", path=str(tmp_path), labels=True))


def test_a_sub_folder_of_unknown_class(tmp_path, rng):
    save_images(tmp_path, {f"{kind}/{i}.png": (4, 4) for kind in ("cat", "-1", "dog") for i in range(3)}, rng)
    fields = load(DataSpec("folder", path=str(tmp_path), labels=True), "all")
    assert (fields.num_classes, fields.labels.tolist()) == (2, [-1] * 3 + [0] * 3 + [1] * 3)
    save_images(tmp_path / "none", {f"-1/{i}.png": (4, 4) for i in range(3)}, rng)
    with pytest.raises(DataError, match=r"images of at least one class, .*none has only those of '-1'"):
        load(DataSpec("folder", path=str(tmp_path / "none"), labels=True))


def test_images_of_several_sizes_need_a_size(tmp_path, rng):
    save_images(tmp_path, {"a.png": (8, 8), "b.png": (8, 12), "c.png": (8, 8)}, rng)
    with pytest.raises(DataError, match=r"got 8 x 8 in .*a\.png and 12 x 8 in .*b\.png; set size"):
        load(DataSpec("folder", path=str(tmp_path)), "train")
    for split in ("train", "test"):
        assert load(DataSpec("folder", path=str(tmp_path), size=4), split).lattice == Lattice((4, 4))


def test_grey_and_colour_do_not_mix_unless_channels_says_so(tmp_path, rng):
    save_images(tmp_path, {"a.png": (4, 4), "b.png": (4, 4, 3), "c.png": (4, 4, 3)}, rng)
    with pytest.raises(DataError, match=r"all grey or all in colour, got .*a\.png and .*; set channels"):
        load(DataSpec("folder", path=str(tmp_path)), "train")
    assert load(DataSpec("folder", path=str(tmp_path), channels=3)).lattice.channels == 3


def test_folders_that_cannot_be_read_are_refused(tmp_path, rng):
    with pytest.raises(DataError, match="there is no folder"):
        load(DataSpec("folder", path=str(tmp_path / "absent")))
    with pytest.raises(DataError, match="has no images"):
        load(DataSpec("folder", path=str(tmp_path)))
    save_images(tmp_path, {"a.png": (32, 32), "b.png": (32, 32)}, rng)
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:300])
    with pytest.raises(DataError, match=r"cannot read the image .*a\.png"):
        load(DataSpec("folder", path=str(tmp_path)))
    Image.fromarray(np.zeros((32, 32), np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png must have 8 bits a channel, got mode I;16"):
        load(DataSpec("folder", path=str(tmp_path)))


# Arrays


def array_spec(path: Path, x: np.ndarray, **values: object) -> DataSpec:
    np.save(path, x)
    return DataSpec("array", path=str(path), **values)


@pytest.mark.parametrize(
    ("shape", "channels", "event"),
    [
        ((10, 7), None, (1, 7)),
        ((10, 6, 7), None, (1, 6, 7)),
        ((10, 2, 7), 2, (2, 7)),
        ((10, 1, 6, 7), None, (1, 6, 7)),
        ((10, 3, 6, 7), None, (3, 6, 7)),
        ((10, 6, 7, 3), None, (3, 6, 7)),
        ((10, 3, 6, 3), None, (3, 6, 3)),
        ((10, 5, 6, 7), 5, (5, 6, 7)),
        ((10, 1, 4, 5, 6), None, (1, 4, 5, 6)),
        ((10, 2, 4, 5, 6), 2, (2, 4, 5, 6)),
    ],
)
def test_what_the_axes_of_an_array_mean(tmp_path, rng, shape, channels, event):
    x = rng.standard_normal(shape)
    spec = array_spec(tmp_path / "x.npy", x, channels=channels, boundary="periodic")
    train, test = load(spec), load(spec, "test")
    assert (len(train), len(test)) == (9, 1)
    assert train.lattice == Lattice(event[1:], boundary="periodic", channels=event[0])
    assert train.values.dtype == torch.float32
    held = x[hold_out(10, "test", 0, "")[0]]
    held = np.moveaxis(held, -1, 0) if shape[1:] == (6, 7, 3) else held
    assert np.allclose(test.values[0].numpy(), held.reshape(event))


@pytest.mark.parametrize("shape", [(10,), (10, 5, 6, 7), (10, 2, 2, 2, 2, 2)])
def test_arrays_of_another_shape_are_refused_with_the_rule(tmp_path, shape):
    with pytest.raises(DataError, match=r"an array must be \(n, length\)") as raised:
        load(array_spec(tmp_path / "x.npy", np.zeros(shape, np.uint8)))
    assert f"got {shape}" in str(raised.value)


def test_an_array_with_classes(tmp_path, rng):
    x, y = rng.integers(0, 256, (20, 4, 4)).astype(np.uint8), np.arange(20) % 3
    np.savez(tmp_path / "x.npz", x=x, y=y, note=np.zeros(1))
    fields = load(DataSpec("array", path=str(tmp_path / "x.npz"), labels=True, limit=5))
    assert fields.num_classes == 3
    index = hold_out(20, "train", 0, "")[:5]
    assert fields.labels.tolist() == y[index].tolist()
    assert np.array_equal(fields.values[:, 0].numpy(), x[index])
    np.savez(tmp_path / "only.npz", phi=x)
    assert len(load(DataSpec("array", path=str(tmp_path / "only.npz")))) == 18
    np.savez(tmp_path / "two.npz", phi=x, psi=x)
    with pytest.raises(DataError, match="'x' or as its only array, got phi, psi"):
        load(DataSpec("array", path=str(tmp_path / "two.npz")))
    for bad in (y[:-1], y - 2, y.astype(float)):
        np.savez(tmp_path / "x.npz", x=x, y=bad)
        with pytest.raises(DataError, match="must be 20 whole numbers from 0 on"):
            load(DataSpec("array", path=str(tmp_path / "x.npz")))


def test_an_array_with_classes_that_are_unknown(tmp_path, rng):
    x, y = rng.integers(0, 256, (20, 4, 4)).astype(np.uint8), np.arange(20) % 3 - 1
    np.savez(tmp_path / "x.npz", x=x, y=y)
    spec = DataSpec("array", path=str(tmp_path / "x.npz"), labels=True)
    fields = load(spec, "all")
    assert fields.num_classes == 2
    assert fields.labels.tolist() == y.tolist()
    np.savez(tmp_path / "x.npz", x=x, y=np.full(20, -1))
    with pytest.raises(DataError, match=r"is -1 \(unknown\) everywhere; set labels = false"):
        load(spec)
    assert len(load(replace(spec, labels=False), "all")) == 20


def test_values_that_are_not_finite_are_named_in_the_order_of_the_file(tmp_path):
    x = np.zeros((10, 4))
    x[7, 2] = np.nan
    with pytest.raises(DataError, match=r"field 7 of .*x\.npy has a NaN"):
        load(array_spec(tmp_path / "x.npy", x))
    x[7, 2] = 1e300  # finite, but not as float32
    with pytest.raises(DataError, match="field 7"):
        load(array_spec(tmp_path / "x.npy", x))


def test_files_that_cannot_be_read_are_refused_in_one_line(tmp_path, rng):
    x = rng.standard_normal((50, 8, 8))
    np.save(tmp_path / "cut.npy", x)
    np.savez_compressed(tmp_path / "cut.npz", x=x)
    np.savez_compressed(tmp_path / "flipped.npz", x=x)
    for name in ("cut.npy", "cut.npz"):
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:5000])
    flipped = bytearray((tmp_path / "flipped.npz").read_bytes())
    flipped[4000:4050] = bytes(50)
    (tmp_path / "flipped.npz").write_bytes(flipped)
    np.save(tmp_path / "object.npy", np.array([{}], object), allow_pickle=True)
    (tmp_path / "empty.npz").touch()
    (tmp_path / "text.npz").write_text("no archive")
    (tmp_path / "single.npz").write_bytes((tmp_path / "cut.npy").read_bytes())
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(DataError, match="cannot read") as raised:
            load(DataSpec("array", path=str(path)))
        assert "\n" not in str(raised.value)
    with pytest.raises(DataError, match="there is no file"):
        load(DataSpec("array", path=str(tmp_path / "absent.npy")))
    with pytest.raises(DataError, match=r"an \.npy, \.npz, \.h5, \.hdf5 or \.fits file, got .*data\.csv"):
        load(DataSpec("array", path="data.csv"))
    with pytest.raises(DataError, match="uint8 or floating-point fields, got int64"):
        load(array_spec(tmp_path / "whole.npy", np.zeros((5, 4), np.int64)))
    with pytest.raises(DataError, match="is empty"):
        load(array_spec(tmp_path / "none.npy", np.zeros((0, 4))))


# Maps


def write_fits(path: Path, *images: np.ndarray, names: tuple[str, ...] = ()) -> None:
    fits = pytest.importorskip("astropy.io.fits")
    units = [fits.PrimaryHDU()]
    units += [fits.ImageHDU(x, name=name) for x, name in zip(images, names or [""] * len(images), strict=True)]
    fits.HDUList(units).writeto(path)


def test_maps_in_hdf5(tmp_path, rng):
    h5py = pytest.importorskip("h5py")
    x, path = rng.standard_normal((10, 6, 7)), tmp_path / "maps.h5"
    with h5py.File(path, "w") as file:
        file["z1/kappa"] = x.astype(">f8")
    held = hold_out(10, "test", 0, "")[0]
    for name in (str(path), f"{path}:z1/kappa", f"{path}:/z1/kappa"):
        test = load(DataSpec("array", path=name, boundary="periodic"), "test")
        assert np.array_equal(test.values[0, 0].numpy(), x[held].astype(np.float32))
    with h5py.File(path, "a") as file:
        file["counts"] = np.arange(70000, 70060, dtype=">i4").reshape(10, 6)[:, None]
        file["far"] = np.full((4, 1, 3), 2**24 + 1)
        file["bytes"] = np.zeros((4, 5, 5), np.uint8)
        file["words"] = np.array([b"a", b"b"])
        file["box"] = x.reshape(10, 1, 6, 7, 1)
    assert load(DataSpec("array", path=f"{path}:bytes"), "all").values.dtype == torch.uint8
    counts = load(DataSpec("array", path=f"{path}:counts", channels=1), "all")
    assert counts.lattice.event_shape == (1, 6)
    assert torch.equal(counts.values.flatten(), torch.arange(70000.0, 70060.0))
    assert load(DataSpec("array", path=f"{path}:box"), "all").lattice.shape == (6, 7, 1)
    for name, message in (
        (path, r"must have one data set, or path name it \('maps.h5:NAME'\), got .*counts"),
        (f"{path}:kappa", "has no data set 'kappa', only .*z1/kappa"),
        (f"{path}:far", r"whole numbers must be within .* got 16777217"),
        (f"{path}:words", "must hold maps of real numbers"),
    ):
        with pytest.raises(DataError, match=message):
            load(DataSpec("array", path=str(name)))


def test_maps_in_fits(tmp_path, rng):
    """FITS stores big-endian numbers, and whole numbers with a scale."""
    x = rng.standard_normal((3, 6, 7)).astype(np.float32)
    path = tmp_path / "maps.fits"
    write_fits(path, *x, names=("A", "B", ""))
    every = load(DataSpec("array", path=f"{path}:all"), "all")
    assert every.lattice == Lattice((6, 7))
    assert np.array_equal(every.values[:, 0].numpy(), x)
    for inside, index in (("", 0), (":1", 0), (":2", 1), (":B", 1), (":3", 2)):
        one = load(DataSpec("array", path=f"{path}{inside}"), "all")
        assert np.array_equal(one.values[0, 0].numpy(), x[index])
    with pytest.raises(DataError, match="has one field, of which no test can be held out; cut it into patches"):
        load(DataSpec("array", path=str(path)))
    with pytest.raises(DataError, match=r"has no image 'C', only 1 \(A\), 2 \(B\), 3"):
        load(DataSpec("array", path=f"{path}:C"), "all")
    write_fits(tmp_path / "stack.fits", np.arange(60, dtype=np.int16).reshape(10, 2, 3))
    stack = load(DataSpec("array", path=str(tmp_path / "stack.fits")), "all")
    assert torch.equal(stack.values.flatten(), torch.arange(60.0))
    (tmp_path / "packed.fits.gz").write_bytes(gzip.compress((tmp_path / "stack.fits").read_bytes()))
    assert torch.equal(load(DataSpec("array", path=str(tmp_path / "packed.fits.gz")), "all").values, stack.values)
    write_fits(tmp_path / "mixed.fits", x[0], x[0, :3])
    with pytest.raises(DataError, match=r"must have one shape to be stacked, got \(3, 7\), \(6, 7\)"):
        load(DataSpec("array", path=f"{tmp_path / 'mixed.fits'}:all"), "all")
    hole = x.copy()
    hole[1, 2, 3] = np.nan
    write_fits(tmp_path / "hole.fits", hole)
    with pytest.raises(DataError, match=r"field 1 of .*hole\.fits has a NaN"):
        load(DataSpec("array", path=str(tmp_path / "hole.fits")))
    write_fits(tmp_path / "empty.fits")
    with pytest.raises(DataError, match="has no image"):
        load(DataSpec("array", path=str(tmp_path / "empty.fits")))


def test_maps_that_cannot_be_read_are_refused_in_one_line(tmp_path, rng, monkeypatch):
    h5py = pytest.importorskip("h5py")
    x = rng.standard_normal((50, 8, 8))
    with h5py.File(tmp_path / "cut.h5", "w") as file:
        file["x"] = x
    write_fits(tmp_path / "cut.fits", x)
    for name in ("cut.h5", "cut.fits"):
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:12000])
    (tmp_path / "text.hdf5").write_text("no archive")
    (tmp_path / "text.fits").write_text("no image")
    (tmp_path / "empty.h5").touch()
    (tmp_path / "empty.fits").touch()
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(DataError, match="cannot read") as raised:
            load(DataSpec("array", path=str(path)))
        assert "\n" not in str(raised.value)
    for name in ("absent.h5", "absent.fits:1"):
        with pytest.raises(DataError, match=r"there is no file .*absent\.(h5|fits)$"):
            load(DataSpec("array", path=str(tmp_path / name)))
    for library, name in (("h5py", "cut.h5"), ("astropy.io.fits", "cut.fits")):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, library, None)
            with pytest.raises(DataError, match=r"needs (h5py|astropy): pip install 'renorm\[physics\]'"):
                load(DataSpec("array", path=str(tmp_path / name)))
