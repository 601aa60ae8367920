"""Spectra against noise and single modes by hand; Fréchet distances against closed forms and torchmetrics."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from renorm.errors import DataError
from renorm.lattice import Lattice
from renorm.measure.features import (
    SHIPPED,
    NetworkExtractor,
    digit_report,
    extractor,
    feature_statistics,
    frechet,
    to_32,
)
from renorm.measure.spectrum import (
    Spectrum,
    compare_spectra,
    mode_moments,
    mode_power,
    power_spectrum,
)
from renorm.measure.two_sample import FeatureStatistics, frechet_distance
from renorm.nn.digit_cnn import DigitCNN

SHAPES = [(48,), (12, 12), (10, 16), (6, 6, 6)]
BOUNDARIES = ["open", "periodic"]
MNIST_CNN_SHA256 = "104f07f858fba3ed4a7d4a0413b841a6ee38eb9d9ab58fa445b24da8bcb75c5d"


def normal(*shape, generator, dtype=torch.float64):
    return torch.randn(*shape, generator=generator, dtype=dtype)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_white_noise_has_a_flat_spectrum_within_its_error_bars(shape, boundary, generator):
    lattice = Lattice(shape, boundary=boundary)
    num = 400
    spectrum = power_spectrum(normal(num, 2, *shape, generator=generator, dtype=torch.float32), lattice)
    assert ((spectrum.power - 1).abs() < 5 * spectrum.error).all()
    assert spectrum.count.sum() == lattice.sites
    # a field's bin mean is chi^2 / dof: variance 2 / dof, excess kurtosis 12 / dof
    dof = 2 * spectrum.count.double()
    predicted = (2 / dof / num).sqrt()
    assert ((spectrum.error / predicted - 1).abs() < 5 * ((12 / dof + 2) / num).sqrt() / 2).all()


@pytest.mark.parametrize("shape", [(16,), (8, 8), (8, 12), (6, 6, 6)])
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_one_cosine_fills_one_bin(shape, boundary):
    n, amplitude, L, last = 2, 3.0, max(shape), shape[-1]
    site = np.arange(last)
    wave = np.cos(math.pi * n * (site + 0.5) / last if boundary == "open" else 2 * math.pi * n * site / last)
    x = torch.from_numpy(np.broadcast_to(amplitude * wave, shape).copy()).expand(2, 1, *shape)
    spectrum = power_spectrum(x, Lattice(shape, boundary=boundary))

    # by hand: the mode has the field's norm, amplitude^2 * sites / 2, and stands in bin n of the longest axis
    assert last == L
    harmonics = [np.arange(s) if boundary == "open" else (np.arange(s) + 1) // 2 for s in shape]
    radius = np.sqrt(sum((h * L / s) ** 2 for h, s in zip(np.meshgrid(*harmonics, indexing="ij"), shape, strict=True)))
    count = int(((radius >= n - 0.5) & (radius < n + 0.5)).sum())
    expected = torch.zeros_like(spectrum.power)
    expected[n] = amplitude**2 * math.prod(shape) / 2 / count
    assert spectrum.count[n] == count
    assert torch.allclose(spectrum.power, expected, atol=1e-12)
    assert torch.allclose(spectrum.error, torch.zeros_like(expected), atol=1e-12)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_parseval_and_the_zero_mode_stands_alone(boundary, generator):
    x = normal(5, 3, 9, 14, generator=generator) + 2
    spectrum = power_spectrum(x, Lattice((9, 14), boundary=boundary))
    assert math.isclose((spectrum.count * spectrum.power).sum(), (x**2).sum((2, 3)).mean(), rel_tol=1e-12)
    assert spectrum.k[0] == 0
    assert spectrum.count[0] == 1
    assert math.isclose(spectrum.power[0], (x.sum((2, 3)) ** 2).mean() / (9 * 14), rel_tol=1e-12)


def test_about_the_mean_is_the_unbiased_variance_and_forgets_a_shift(generator):
    lattice, x = Lattice((8,)), normal(6, 1, 8, generator=generator)
    shift = torch.linspace(-3, 5, 8, dtype=torch.float64)
    assert torch.allclose(power_spectrum(x, lattice, about="mean").power, x_modes(x, lattice).var(0), atol=1e-12)
    shifted = power_spectrum(x + shift, lattice, about="mean")
    assert compare_spectra(shifted, power_spectrum(x, lattice, about="mean")).max_log_ratio < 1e-10
    assert compare_spectra(power_spectrum(x + shift, lattice), shifted).max_log_ratio > 0.1


def x_modes(x, lattice):
    """Modes of an open chain from the definition of the orthonormal DCT-II, term by term."""
    L = lattice.shape[0]
    n, site = np.meshgrid(np.arange(L), np.arange(L), indexing="ij")
    matrix = np.cos(np.pi * n * (site + 0.5) / L) * np.where(n == 0, np.sqrt(1 / L), np.sqrt(2 / L))
    return x[:, 0] @ torch.from_numpy(matrix.T)


def test_own_bins_leave_out_what_lies_outside(generator):
    lattice, x = Lattice((8,)), normal(6, 1, 8, generator=generator)
    edges = torch.tensor([1.5, 3.5, 5.5, 5.9]) * math.pi / 8
    spectrum = power_spectrum(x, lattice, bins=edges)
    assert spectrum.count.tolist() == [2, 2]
    modes = x_modes(x, lattice) ** 2
    assert torch.allclose(spectrum.power, torch.stack([modes[:, 2:4].mean(), modes[:, 4:6].mean()]))
    assert torch.allclose(spectrum.k, torch.tensor([2.5, 4.5], dtype=torch.float64) * math.pi / 8)


def test_the_error_bar_is_the_standard_error_over_fields():
    x = torch.tensor([1.0, 2.0, 3.0, 6.0])[:, None, None].expand(4, 1, 1)
    squares = np.array([1.0, 4.0, 9.0, 36.0])
    spectrum = power_spectrum(x, Lattice((1,)))
    assert math.isclose(spectrum.power[0], squares.mean())
    assert math.isclose(spectrum.error[0], squares.std(ddof=1) / 2)


@pytest.mark.parametrize("about", ["zero", "mean"])
def test_streamed_mode_power_is_the_power_at_once(about, generator):
    lattice, x = Lattice((6, 5), boundary="periodic"), normal(11, 2, 6, 5, generator=generator) + 1
    streamed = mode_power(x.split(4), lattice, about=about)
    assert torch.allclose(streamed, mode_power([x], lattice, about=about))
    spectrum = power_spectrum(x, lattice, about=about)
    radial = mode_power(x.split(4), lattice, about=about, radial=True)
    assert math.isclose(streamed.sum(), (spectrum.count * spectrum.power).sum(), rel_tol=1e-12)
    assert math.isclose(radial.sum(), streamed.sum(), rel_tol=1e-12)
    assert torch.isclose(radial.flatten()[:, None], spectrum.power, rtol=1e-12).any(1).all()
    assert math.isclose(radial[1, 0], spectrum.power[1], rel_tol=1e-12)


def test_mode_moments_by_hand():
    moments = mode_moments([torch.tensor([[[3.0, 1.0]]]), torch.tensor([[[1.0, 1.0]]])], Lattice((2,)))
    # modes (x0 + x1)/sqrt2 and (x0 - x1)/sqrt2: (4, 2)/sqrt2 and (2, 0)/sqrt2
    root = math.sqrt(2)
    assert torch.allclose(moments.mean, torch.tensor([[3 / root, 0.5 * root]], dtype=torch.float64))
    assert torch.allclose(moments.second, torch.tensor([[5.0, 1.0]], dtype=torch.float64))


def test_comparing_spectra_of_one_law_gives_unit_normal_z(generator):
    lattice = Lattice((64,))
    a, b = (power_spectrum(normal(500, 1, 64, generator=generator), lattice) for _ in range(2))
    comparison = compare_spectra(a, b)
    assert comparison.max_z < 5
    assert abs(comparison.z.pow(2).mean() - 1) < 5 * math.sqrt(2 / 64)
    assert comparison.max_log_ratio < 0.5


def test_spectra_in_other_bins_are_refused_and_empty_ones_agree():
    one, zero = torch.ones(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    a = Spectrum(one, zero, zero, one.long())
    assert compare_spectra(a, a).max_z == compare_spectra(a, a).max_log_ratio == 0
    with pytest.raises(DataError, match="same bins"):
        compare_spectra(a, Spectrum(2 * one, zero, zero, one.long()))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: power_spectrum(torch.zeros(1, 1, 4), Lattice((4,))), "at least 2 fields"),
        (lambda: power_spectrum(torch.zeros(2, 1, 5), Lattice((4,))), "to live here"),
        (lambda: power_spectrum(torch.zeros(2, 1, 4), Lattice((4,)), bins=torch.tensor([1.0, 1.0])), "edges that rise"),
        (lambda: power_spectrum(torch.zeros(2, 1, 4), Lattice((4,)), bins=torch.tensor([0.1, 0.2])), "bin with a mode"),
        (lambda: mode_power([], Lattice((4,))), "at least 1 field"),
        (lambda: mode_power([torch.zeros(1, 1, 4)], Lattice((4,)), about="mean"), "at least 2 fields"),
    ],
)
def test_spectrum_errors_teach(call, message):
    with pytest.raises(DataError, match=message):
        call()


def statistics_of(features):
    return FeatureStatistics(features.shape[1]).update(features)


def exact_statistics(mean, covariance):
    """Statistics whose mean and covariance are exactly these: 2 n points on the axes of the ellipsoid."""
    n = len(mean)
    values, vectors = torch.linalg.eigh(covariance)
    axes = (vectors * values.clamp_min(0).sqrt()).T * math.sqrt((2 * n - 1) / 2)
    return statistics_of(torch.cat([mean + axes, mean - axes]))


def test_statistics_are_those_of_numpy(generator):
    f = normal(50, 4, generator=generator) * 3 + 7
    s = statistics_of(f)
    assert s.num == 50
    assert np.allclose(s.mean, f.numpy().mean(0), rtol=1e-13)
    assert np.allclose(s.covariance, np.cov(f.numpy().T), rtol=1e-12)


@given(cuts=st.lists(st.integers(0, 30), max_size=4), seed=st.integers(0, 2**31))
def test_merging_parts_in_any_order_is_all_at_once(cuts, seed):
    f = normal(30, 3, generator=torch.Generator().manual_seed(seed)) + 1e4
    parts = [statistics_of(p) for p in f.tensor_split(sorted(cuts))]
    whole, merged = statistics_of(f), FeatureStatistics(3)
    for part in reversed(parts):
        merged.merge(part)
    assert merged.num == 30
    assert torch.allclose(merged.mean, whole.mean, rtol=1e-14)
    assert torch.allclose(merged.covariance, whole.covariance, atol=1e-9)


def test_frechet_distance_of_commuting_gaussians(generator):
    rotation = torch.linalg.qr(normal(3, 3, generator=generator)).Q
    a, b = torch.tensor([4.0, 1.0, 9.0]).double(), torch.tensor([1.0, 16.0, 4.0]).double()
    mean = torch.tensor([1.0, -2.0, 2.0]).double()
    s = exact_statistics(torch.zeros(3).double(), rotation * a @ rotation.T)
    t = exact_statistics(mean, rotation * b @ rotation.T)
    assert torch.allclose(s.covariance, rotation * a @ rotation.T)
    # by hand: |mean|^2 = 9, (2-1)^2 + (1-4)^2 + (3-2)^2 = 11
    assert math.isclose(frechet_distance(s, t), 20.0, rel_tol=1e-12)
    assert math.isclose(frechet_distance(t, s), 20.0, rel_tol=1e-12)


def test_frechet_distance_of_gaussians_that_do_not_commute():
    a = torch.tensor([[2.0, 0.0], [0.0, 1.0]]).double()
    b = torch.tensor([[1.0, 0.5], [0.5, 1.0]]).double()
    # two dimensions: tr sqrt(M) = sqrt(tr M + 2 sqrt(det M)); here tr(ab) = 3, det(ab) = 2 * 0.75
    expected = 3.0 + 2.0 - 2 * math.sqrt(3 + 2 * math.sqrt(1.5))
    zero = torch.zeros(2).double()
    assert math.isclose(frechet_distance(exact_statistics(zero, a), exact_statistics(zero, b)), expected, rel_tol=1e-12)


def test_frechet_distance_survives_singular_covariances(generator):
    f = torch.cat([normal(40, 2, generator=generator), torch.ones(40, 3).double()], dim=1)
    assert frechet_distance(statistics_of(f), statistics_of(f)) < 1e-12
    # orthogonal lines: no overlap, so the distance is the sum of the traces
    s = exact_statistics(torch.zeros(2).double(), torch.diag(torch.tensor([4.0, 0.0]).double()))
    t = exact_statistics(torch.zeros(2).double(), torch.diag(torch.tensor([0.0, 9.0]).double()))
    assert math.isclose(frechet_distance(s, t), 13.0, rel_tol=1e-12)


class Projection(torch.nn.Module):
    """Eight fixed features of a picture; the extractor that torchmetrics is lent."""

    def __init__(self, generator):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(64, 8, generator=generator), requires_grad=False)
        self.num_features = 8

    def forward(self, x):
        return torch.tanh(x.float().flatten(1) @ self.weight.float() / 4)


def test_frechet_distance_is_that_of_torchmetrics(generator):
    from torchmetrics.image.fid import FrechetInceptionDistance

    extractor = Projection(generator)
    oracle = FrechetInceptionDistance(feature=extractor, input_img_size=(1, 8, 8), normalize=True)
    oracle.set_dtype(torch.float64)
    real, fake = (torch.rand(200, 1, 8, 8, generator=generator) for _ in range(2))
    fake = fake**1.3
    oracle.update(real, real=True)
    oracle.update(fake, real=False)
    ours = frechet_distance(statistics_of(extractor(real)), statistics_of(extractor(fake)))
    assert math.isclose(ours, float(oracle.compute()), rel_tol=1e-5)


def test_two_sample_errors_teach():
    enough, few = statistics_of(torch.eye(5)[:, :3]), statistics_of(torch.eye(3))
    with pytest.raises(DataError, match="needs at least 4 samples"):
        frechet_distance(enough, few)
    with pytest.raises(DataError, match="same features"):
        frechet_distance(enough, FeatureStatistics(2))
    with pytest.raises(DataError, match="finite"):
        statistics_of(torch.full((2, 2), torch.nan))
    with pytest.raises(DataError, match="3 features"):
        enough.update(torch.zeros(4, 2))


def test_pictures_reach_32_by_border_by_showing_and_by_interpolation(generator):
    x = torch.rand(2, 1, 28, 28, generator=generator)
    assert torch.equal(to_32(x, 1)[..., 2:30, 2:30], x)
    assert to_32(x, 1).sum() == pytest.approx(float(x.sum()))
    coarse = torch.rand(2, 1, 16, 16, generator=generator)
    assert torch.equal(to_32(coarse, 1), torch.from_numpy(coarse.numpy().repeat(2, 2).repeat(2, 3)))
    assert torch.equal(to_32(coarse.repeat(1, 1, 2, 2), 1), coarse.repeat(1, 1, 2, 2))
    flat = to_32(torch.full((1, 3, 20, 40), 0.25), 3)
    assert torch.allclose(flat, torch.full((1, 3, 32, 32), 0.25))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: to_32(torch.zeros(1, 3, 32, 32), 1), "reads 1 channel"),
        (lambda: to_32(torch.full((1, 1, 32, 32), -0.5), 1), r"\[0, 1\]"),
        (lambda: to_32(torch.full((1, 1, 32, 32), torch.nan), 1), r"\[0, 1\]"),
        (lambda: extractor("inception"), "known: cifar10-resnet20"),
        (lambda: feature_statistics(torch.zeros(0, 1, 8, 8), extractor("mnist-cnn")), "at least 1"),
    ],
)
def test_feature_errors_teach(call, message):
    with pytest.raises(DataError, match=message):
        call()


def test_weights_that_do_not_fit_are_refused_in_one_line(tmp_path):
    with pytest.raises(DataError, match="there is no file"):
        NetworkExtractor("mnist-cnn", DigitCNN(), tmp_path / "absent.safetensors", channels=1)
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(SHIPPED.read_bytes()[:1000])
    with pytest.raises(DataError, match="does not hold the weights") as caught:
        NetworkExtractor("mnist-cnn", DigitCNN(), damaged, channels=1)
    assert "\n" not in str(caught.value)


def test_absent_data_weights_say_what_to_do(tmp_path, monkeypatch):
    from renorm.measure import features

    monkeypatch.setattr(features, "roots", lambda: [tmp_path])
    with pytest.raises(DataError, match="set RENORM_DATA"):
        extractor("cifar10-resnet20")


def test_shipped_weights_are_small_known_and_say_where_they_come_from():
    from safetensors import safe_open

    assert SHIPPED.stat().st_size < 500_000
    assert extractor("mnist-cnn").sha256 == MNIST_CNN_SHA256
    with safe_open(SHIPPED, "pt") as file:
        record = json.loads(file.metadata()["renorm"])
    assert record["command"] == "renorm reproduce mnist-cnn"
    assert min(record["accuracy_32"], record["accuracy_16"]) > 0.99


def test_features_feed_the_logits_and_do_not_depend_on_the_batch(generator):
    network = extractor("mnist-cnn")
    x = torch.rand(7, 1, 28, 28, generator=generator)
    assert network(x).shape == (7, 64)
    assert network.logits(x).shape == (7, 10)
    assert torch.allclose(torch.cat([network(part) for part in x.split(3)]), network(x), atol=1e-5)
    assert not network.network.training


def test_frechet_names_its_figure_and_its_reference_can_be_reused(generator):
    network = extractor("mnist-cnn")
    a, b = (torch.rand(80, 1, 16, 16, generator=generator) for _ in range(2))
    result = frechet(a, b**2, network)
    assert result["figure"] == "FD[mnist-cnn]"
    assert (result["samples"], result["reference"], result["sha256"]) == (80, 80, network.sha256)
    assert result == frechet(a, feature_statistics(b**2, network), network)
    assert frechet(a, a, network)["value"] < 1e-9 < 0.01 < result["value"]
    with pytest.raises(DataError, match="at least 65 samples"):
        frechet(a[:64], b, network)


@pytest.mark.parametrize("size", [32, 16])
def test_real_digits_are_read_with_confidence_and_come_evenly(size, shared_data):
    from renorm.data import DataSpec, load

    fields = load(DataSpec("mnist", size=size, labels=True, limit=500), "test")
    x = fields.values.float() / 255
    right = (extractor("mnist-cnn").logits(x).argmax(1) == fields.labels).double().mean()
    report = digit_report(x)
    assert right > 0.98
    assert report["confidence"] > 0.95
    assert 2.2 < report["entropy"] <= math.log(10)
    assert sum(report["histogram"]) == pytest.approx(1)


@pytest.mark.parametrize("depth", [20, 56])
def test_cifar_classifiers_reach_their_published_error(depth, shared_data):
    from renorm.data import DataSpec, load

    fields = load(DataSpec("cifar10", labels=True, limit=500), "test")
    network = extractor(f"cifar10-resnet{depth}")
    x = fields.values.float() / 255
    assert network(x[:2]).shape == (2, 64)
    wrong = float((network.logits(x).argmax(1) != fields.labels).double().mean())
    published = {20: 0.0827, 56: 0.0661}[depth]
    assert abs(wrong - published) < 5 * math.sqrt(published / 500)


def test_one_seed_trains_one_file(tmp_path, shared_data):
    from renorm.recipes.extractor import train_mnist_cnn

    before = torch.get_rng_state()
    for name in ("one", "two"):
        record = train_mnist_cnn(tmp_path / name, epochs=1, num_train=256, num_test=100)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert torch.equal(torch.get_rng_state(), before)
    assert record["train"] == 256
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one", "two"]
