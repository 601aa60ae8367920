"""What counting can do on MNIST: lite, styles, products, few labels, a tree of exemplars; digits and CIFAR-10 beside.

Settings were chosen on the last 10 000 training images; here all are fitted anew and meet the test images once.
"""

import resource
import statistics
import time
from typing import Any

import numpy as np
import torch

from renorm.bench.result import Result
from renorm.bench.sklearn_tokens import run_peers
from renorm.bench.tokens_speed import mnist16
from renorm.data import load
from renorm.data.spec import DataSpec
from renorm.measure.features import extractor, frechet
from renorm.tokens.codebooks.windows import WindowCodebook
from renorm.tokens.families.exemplars import accuracy_by_evidence
from renorm.tokens.families.structure import entropy
from renorm.tokens.presets import best_product, few_labels, lite, rgm, rgm_paper, small, straight_styles, styles
from renorm.tokens.product import TokenProduct
from renorm.tokens.spec import HierarchySpec
from renorm.tokens.token_hierarchy import TokenHierarchy

__all__ = ["run"]

REPEATS, DRAWS, FOLDS, SAMPLES = 5, 3, 5, 2000
EXEMPLAR_IMAGES = 10_000

Data = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def run(seed: int) -> Result:
    """Every part in turn."""
    data = _mnist()
    figures: dict[str, float] = {}
    table: list[dict[str, Any]] = []
    for part in (_lite, _fast, _best, _few_labels, _exemplars, _generated, _elsewhere):
        begun = time.perf_counter()
        rows, found = part(data, seed)
        figures |= found
        table += rows
        figures[f"seconds_part{part.__name__}"] = time.perf_counter() - begun
    figures["peak_memory_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return Result(figures, table=table, seeds=(seed, 42 + seed))


def _mnist() -> Data:
    train, test = (load(DataSpec("mnist", labels=True), split) for split in ("train", "test"))
    assert train.labels is not None
    assert test.labels is not None
    return train.values.numpy(), train.labels.numpy(), test.values.numpy(), test.labels.numpy()


def _lite(data: Data, seed: int) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """The model "Renormalization, Lite" as its author has it, and with positions."""
    x, y = mnist16("train")
    x_test, y_test = mnist16("test")
    found: dict[str, float] = {}
    for name, number, spec in (
        ("lite_20k", 20_000, lite(seed=42 + seed)),
        ("lite_60k", 60_000, lite(seed=42 + seed)),
        ("lite_position", 60_000, lite(share="places", seed=42 + seed)),
    ):
        model = TokenHierarchy.of(spec).fit(x[:number], y[:number])
        found[f"accuracy_{name}"] = model.score(x_test, y_test)
        if name == "lite_60k":
            sites = x_test[0].size
            z = model.transform(x_test)
            found["lite_bits_per_pixel_naive"] = float(np.log2(256) / 16 + np.log2(64) / 64)
            found["lite_bits_per_pixel"] = -float(model.score_samples(x_test).mean()) / np.log(2) / sites
            found["lite_token_entropy_bits_per_pixel"] = entropy(z.reshape(-1)) / np.log(2) * z.shape[1] / sites
            book = model.codebook_
            assert isinstance(book, WindowCodebook)
            images = x_test.astype(np.float32)
            read = book.encode_moments(images)
            error = ((book.decode(read.tokens, read.moments) - images) ** 2).mean(axis=(1, 2, 3))
            found["lite_psnr_db"] = float(np.mean(-10 * np.log10(error)))
    rows = [{"model": key.removeprefix("accuracy_"), "accuracy": value} for key, value in found.items() if "acc" in key]
    return rows, found


def _fast(data: Data, seed: int) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """One view and its styles, five times, beside k-means and naive Bayes of scikit-learn on the same windows."""
    x, y, x_test, y_test = data
    accuracies, seconds, peers = [], [], []
    for repeat in range(REPEATS):  # in turn, so that a drift of the machine meets both
        begun = time.perf_counter()
        model = TokenHierarchy.of(straight_styles()).fit(x, y)
        right = model.predict(x_test) == y_test
        seconds.append(time.perf_counter() - begun)
        accuracies.append(float(right.mean()))
        peers.append(run_peers(x, y, x_test, y_test, seed=seed + repeat))
    middle = statistics.median(seconds)
    found = {"accuracy_fast": accuracies[0], "seconds_fast": middle}
    rows: list[dict[str, Any]] = [{"model": "windows 8 x 8, 24 styles", "accuracy": accuracies[0], "seconds": middle}]
    for name, runs in zip(("gaussian", "categorical"), zip(*peers, strict=True), strict=True):
        accuracy = statistics.fmean(run.accuracy for run in runs)
        peer_seconds = statistics.median(run.seconds for run in runs)
        found |= {
            f"accuracy_sklearn_{name}": accuracy,
            f"seconds_sklearn_{name}": peer_seconds,
            f"seconds_ratio_to_sklearn_{name}": middle / peer_seconds,
        }
        rows.append({"model": f"MiniBatchKMeans + {name} naive Bayes", "accuracy": accuracy, "seconds": peer_seconds})
    return rows, found


def _best(data: Data, seed: int) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """The product of three views."""
    x, y, x_test, y_test = data
    begun = time.perf_counter()
    model = TokenProduct.of(best_product()).fit(x, y)
    p = model.predict_proba(x_test)
    seconds = time.perf_counter() - begun
    accuracy = float((p.argmax(-1) == y_test).mean())
    nats = float(-np.log(np.maximum(p[np.arange(len(p)), y_test], 1e-300)).mean())
    row: dict[str, Any] = {"model": "product of three views", "accuracy": accuracy, "seconds": seconds}
    return [row], {"accuracy_best": accuracy, "seconds_best": seconds, "class_nats_best": nats}


def _few_labels(data: Data, seed: int) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """100 labels of each class, drawn three times; all other images come without."""
    x, y, x_test, y_test = data
    accuracies = []
    for draw in range(DRAWS):
        rng = np.random.default_rng(seed + draw)
        known = np.concatenate([rng.choice(np.flatnonzero(y == c), 100, replace=False) for c in range(10)])
        labels = np.full_like(y, -1)
        labels[known] = y[known]
        accuracies.append(TokenHierarchy.of(few_labels()).fit(x, labels).score(x_test, y_test))
    mean = float(np.mean(accuracies))
    found = {"accuracy_1000_labels": mean, "accuracy_1000_labels_least": float(min(accuracies))}
    return [{"model": "1000 labels, 59 000 images without", "accuracy": mean}], found


def _exemplars(data: Data, seed: int) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Trees of 130 exemplars from the first 10 000 images: the paper's recipe, ours, ours on digits made upright."""
    x, y, x_test, y_test = data
    x, y = x[:EXEMPLAR_IMAGES], y[:EXEMPLAR_IMAGES]
    found: dict[str, float] = {}
    rows: list[dict[str, Any]] = []
    fractions = [k / 10 for k in range(1, 11)]
    for name, spec in (("rgm_paper", rgm_paper()), ("rgm", rgm()), ("rgm_straight", rgm(straighten=True))):
        begun = time.perf_counter()
        model = TokenHierarchy.of(spec).fit(x, y)
        joint = model.predict_log_joint(x_test)
        found[f"seconds_{name}"] = time.perf_counter() - begun
        right = joint.argmax(-1) == y_test
        curve = accuracy_by_evidence(right, np.logaddexp.reduce(joint, axis=1), fractions)
        found[f"accuracy_{name}"] = float(right.mean())
        found[f"accuracy_{name}_upper_half"] = float(curve[4])
        shown = {f"upper {f:.0%}": float(a) for f, a in zip(fractions, curve, strict=True)}
        rows.append({"model": name, "accuracy": found[f"accuracy_{name}"], **shown})
    return rows, found


def _generated(data: Data, seed: int) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Digits drawn from windows and styles, against the test images."""
    x, y, x_test, _ = data
    model = TokenHierarchy.of(styles()).fit(x, y)
    drawn = model.sample(SAMPLES, generator=torch.Generator().manual_seed(seed)).clamp(0, 1)
    real = torch.from_numpy(x_test).float() / 255
    value = float(frechet((drawn * 255).round() / 255, real, extractor("mnist-cnn"))["value"])
    return [{"model": "drawn digits", "fd": value}], {"fd_generated": value}


def _elsewhere(data: Data, seed: int) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """The same recipe with values changed: scikit-learn's digits, five folds; CIFAR-10 in grey."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import StratifiedKFold, cross_val_score

    digits, labels = load_digits(return_X_y=True)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    model = TokenHierarchy.of(small(), value_range=(0.0, 16.0))
    scores = cross_val_score(model, digits, labels, cv=folds)
    found = {"accuracy_digits": float(scores.mean()), "accuracy_digits_error": float(scores.std() / np.sqrt(FOLDS))}
    train, test = (load(DataSpec("cifar10", labels=True, channels=1), split) for split in ("train", "test"))
    assert train.labels is not None
    assert test.labels is not None
    grey = TokenHierarchy.of(_plain(straight_styles())).fit(train.values.numpy(), train.labels.numpy())
    found["accuracy_cifar10_grey"] = grey.score(test.values.numpy(), test.labels.numpy())
    rows = [
        {"model": "digits, 5 folds", "accuracy": found["accuracy_digits"]},
        {"model": "CIFAR-10 in grey", "accuracy": found["accuracy_cifar10_grey"]},
    ]
    return rows, found


def _plain(spec: HierarchySpec) -> HierarchySpec:
    """Without shearing: photographs have no slant."""
    from renorm.spec import override

    return override(spec, {"codebook.straighten": False})
