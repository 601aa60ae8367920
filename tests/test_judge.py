"""What a run's samples are worth: the figures, their floors, and whether samples are training images."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from renorm.data import DataSpec, load
from renorm.errors import DataError
from renorm.laws.spec import FreeFieldSpec
from renorm.measure.features import extractor, frechet
from renorm.measure.manifold import manifold
from renorm.measure.neighbours import nearest
from renorm.measure.spectrum import compare_spectra, power_spectrum
from renorm.recipes import distances
from renorm.recipes.judge import check_enough, judge
from renorm.recipes.memory import compare_with_training
from renorm.recipes.spec import MeasureSpec
from renorm.report.page import write_report

DIGITS = DataSpec("digits")
MEASURE = MeasureSpec(extractor="mnist-cnn")
FEATURES = ["FD", "KID", "precision", "recall", "density", "coverage"]


@pytest.fixture(scope="module")
def digits():
    return load(DIGITS, "train"), load(DIGITS, "test")


def everything(fields):
    return fields.batch(torch.arange(len(fields)))


@pytest.fixture(scope="module")
def judged(digits):
    """Blurred training digits; the first twenty are copies."""
    train, test = digits
    x = 0.5 * train.batch(torch.arange(300)) + 0.5 * train.batch(torch.arange(300, 600))
    x[:20] = train.batch(torch.arange(100, 120))
    return x, judge(x, everything(test), test, MEASURE, DIGITS)


def test_every_figure_stands_beside_its_floor(digits, judged):
    (_, test), (x, found) = digits, judged
    figures = found.figures
    for key in [*(f"{name}[mnist-cnn]" for name in FEATURES), "sliced_wasserstein", "spectrum_max_log_ratio"]:
        assert math.isfinite(figures[key]), key
        assert math.isfinite(figures[f"{key}_floor"]), key
    known = extractor("mnist-cnn")
    ours, theirs = (test.to_uint8(f).float() / 255 for f in (x, everything(test)))
    assert figures["FD[mnist-cnn]"] == pytest.approx(frechet(ours, theirs, known)["value"])
    assert figures["FD[mnist-cnn]"] > figures["FD[mnist-cnn]_floor"]
    gap = compare_spectra(*(power_spectrum(f, test.lattice) for f in (x, everything(test))))
    assert figures["spectrum_max_log_ratio"] == gap.max_log_ratio > figures["spectrum_max_log_ratio_floor"]
    assert figures["KID[mnist-cnn]"] > 4 * figures["KID[mnist-cnn]_error"] > 0
    assert abs(figures["KID[mnist-cnn]_floor"]) < figures["KID[mnist-cnn]"] / 5
    assert "KID[mnist-cnn]_error_floor" not in figures
    assert figures["sliced_wasserstein"] > figures["sliced_wasserstein_floor"] > 0
    assert found.notes["floor"].startswith("300 training fields")
    assert found.notes["extractor_sha256"] == known.sha256
    json.dumps({"figures": figures, "notes": found.notes})


def test_precision_and_recall_are_of_equal_numbers(digits, judged):
    (_, test), (x, found) = digits, judged
    known = extractor("mnist-cnn")
    a, b = (known(test.to_uint8(f).float() / 255) for f in (x, everything(test)))
    some = torch.randperm(len(a), generator=torch.Generator().manual_seed(0))[: len(b)]
    exact = manifold(a[some], b)
    assert found.figures["precision[mnist-cnn]"] == pytest.approx(exact.precision, abs=1e-9)
    assert found.figures["recall[mnist-cnn]"] == pytest.approx(exact.recall, abs=1e-9)
    assert found.notes["precision_and_recall"] == "179 fields a side, 5 nearest neighbours"


def test_features_of_data_are_computed_once(digits, monkeypatch):
    train, test = digits
    monkeypatch.setattr(distances, "_KEPT", {})
    asked = []
    real = extractor("mnist-cnn")

    class Counting:
        name, sha256, channels, reads = real.name, real.sha256, real.channels, (1,)

        def __call__(self, x):
            asked.append(len(x))
            return real(x)

    monkeypatch.setattr("renorm.recipes.judge.extractor", lambda name: Counting())
    for start in (0, 100):
        judge(train.batch(torch.arange(start, start + 100)), everything(test), test, MEASURE, DIGITS)
    assert sorted(asked) == [1, 1, 100, 100, 100, 179]  # two sets of samples, one floor, one reference


def test_copies_are_said_aloud_and_stand_first(judged):
    _, found = judged
    assert found.figures["copied"] == pytest.approx(20 / 300)
    assert found.figures["copied_floor"] == 0
    assert found.notes["memorised"].startswith("20 of 300 samples are copies, three times nearer to one training image")
    assert "memorisation" not in found.notes
    arrays = found.neighbours
    assert arrays["x"].shape == (8, 1, 8, 8)
    assert torch.equal(arrays["nearest"][:4, 0], arrays["x"][:4])
    assert torch.equal(arrays["distance"][:4, 0], torch.zeros(4).double())
    assert arrays["nearest"].shape == arrays["nearest_features"].shape == (8, 4, 1, 8, 8)
    last = arrays["x"][-1].double() - arrays["nearest"][-1, 1].double()
    assert float(arrays["distance"][-1, 1]) == pytest.approx(float(last.square().mean().sqrt() / 255))


def test_fresh_digits_are_no_copies(digits):
    train, test = digits
    fresh = test.batch(torch.arange(90))
    rest = replace(test, values=test.values[90:])
    found = compare_with_training(fresh, rest, train)
    assert "memorised" not in found.notes
    assert found.notes["memorisation"].startswith("no sign of memory: none of 90 samples are copies")
    assert 0.8 < found.figures["nearest_training_ratio"] < 1.25
    assert "nearest_features" not in found.arrays


def test_few_copies_are_told_and_near_samples_are_not_called_copies(digits):
    train, test = digits
    x = test.batch(torch.arange(90))
    rest = replace(test, values=test.values[90:])
    x[3] = train.batch(torch.tensor([5]))[0]
    found = compare_with_training(x, rest, train)
    assert found.notes["memorisation"].startswith("1 of 90 samples is a copy")
    assert "which may be chance" in found.notes["memorisation"]
    fresh = everything(test)
    halfway = 0.5 * fresh + 0.5 * train.batch(nearest(test.values, train.values).indices[:, 0])
    near = compare_with_training(halfway, test, train)
    assert near.figures["near_training"] > 0.2
    assert near.figures["nearest_training_ratio"] == pytest.approx(0.5, abs=0.02)
    assert "test images do, more than by chance, and " in near.notes["memorised"]


def test_a_mirrored_copy_counts_where_training_mirrors(digits):
    train, test = digits
    x = train.batch(torch.arange(40)).flip(-1)
    alone, mirrored = (compare_with_training(x, test, train, flip=flip) for flip in (False, True))
    assert alone.figures["copied"] == 0
    assert mirrored.figures["copied"] == 1
    assert torch.equal(mirrored.arrays["nearest"][:, 0], mirrored.arrays["x"])
    symmetric = torch.maximum(train.values, train.values.flip(-1))
    train = replace(train, values=torch.cat([symmetric[:3], train.values[3:]]))
    same = compare_with_training(train.batch(torch.arange(3)), test, train, flip=True)
    assert (same.arrays["distance"][:, 0] == 0).all()
    assert (same.arrays["distance"][:, 1] > 0.05).all()  # no image is its own second neighbour


def test_too_few_for_a_covariance_is_one_line_that_says_what_to_do(digits):
    train, test = digits
    with pytest.raises(DataError, match=r"64 features and needs at least 65 samples .* got 64; set measure\.samples"):
        check_enough(MEASURE, 64, test)
    few = replace(test, values=test.values[:60])
    with pytest.raises(DataError, match=r"at least 65 test fields .* got 60; take a larger"):
        check_enough(MEASURE, 65, few)
    with pytest.raises(DataError, match="at least 65 samples"):
        judge(train.batch(torch.arange(64)), everything(test), test, MEASURE, DIGITS)
    check_enough(MEASURE, 65, test)
    check_enough(MeasureSpec(), 2, test)


def test_a_floor_of_fewer_training_fields_is_of_the_fields_alone(digits):
    """Fewer fields score worse by chance alone, so theirs would be no floor."""
    test = load(DIGITS, "test")
    x = load(DIGITS, "train").batch(torch.arange(100))
    for limit, there in ((100, True), (70, False), (9, False)):
        found = judge(x, everything(test), test, MEASURE, replace(DIGITS, limit=limit))
        assert ("FD[mnist-cnn]_floor" in found.figures) is there
        assert "sliced_wasserstein_floor" in found.figures


def test_simulated_fields_have_distances_and_no_images():
    spec = DataSpec("gaussian", shape=(4, 4), number=300)
    test = load(spec, "test")
    x = everything(load(replace(spec, seed=7), "train"))[:200]
    found = judge(x, everything(test), test, MeasureSpec(), spec)
    assert found.figures["sliced_wasserstein"] < 3 * found.figures["sliced_wasserstein_floor"]
    assert "copied" not in found.figures
    assert found.neighbours == {}
    law = DataSpec("law", shape=(4, 4), boundary="periodic", number=100, law=FreeFieldSpec(mass_sq=0.5))
    of_law = load(law, "test")
    found = judge(everything(of_law), everything(of_law), of_law, MeasureSpec(), law)
    assert found.figures["sliced_wasserstein"] == 0
    assert not [key for key in found.figures if key.endswith("_floor")]
    x[3, 0, 0, 0] = torch.nan
    found = judge(x, everything(test), test, MeasureSpec(), spec)
    assert found.notes["not_finite"].startswith("1 of 200 samples")
    assert "sliced_wasserstein" not in found.figures


def test_the_report_shows_samples_beside_training_images(judged, tmp_path):
    _, found = judged
    (tmp_path / "recipe.toml").write_text('description = "Digits"', encoding="utf-8")
    manifest = {"seed": 3, "identity": {"model": {"coarse": "haar"}}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    (tmp_path / "measures.json").write_text(
        json.dumps({"figures": found.figures, "notes": found.notes, "spectrum": found.spectrum}), encoding="utf-8"
    )
    (tmp_path / "samples").mkdir()
    found.write(tmp_path)
    page = write_report(tmp_path).read_text(encoding="utf-8")
    section = page[page.index('<h2 id="nearest-training-images"') :]
    section = section[: section.index("</section>")]
    assert section.count("<img") == 2
    assert "20 of 300 samples are copies" in section
    assert "nearest in features among 300 drawn at random" in section
    assert '<p class="alarm"><strong>Near to training images</strong>: 20 of 300 samples' in page
    assert '<th scope="col">Floor</th>' in page
    assert "KID[mnist-cnn] error" not in page
    assert "FD[mnist-cnn] floor" not in page
    assert "identity" not in page
    for damage in (b"no archive", None):
        if damage is None:
            np.savez(tmp_path / "samples" / "neighbours.npz", x=np.zeros((2, 1, 4, 4)), nearest=np.zeros((2, 1, 4, 4)),
                     distance=np.zeros((2, 1)), test_distance=1.0)  # fmt: skip
        else:
            (tmp_path / "samples" / "neighbours.npz").write_bytes(damage)
        page = write_report(tmp_path).read_text(encoding="utf-8")
        assert "Nearest training images left out" in page
    (tmp_path / "samples" / "neighbours.npz").unlink()
    assert "Nearest training images" not in write_report(tmp_path).read_text(encoding="utf-8")
