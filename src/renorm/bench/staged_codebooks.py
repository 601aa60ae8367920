r"""Tokens in stages beside one token a patch, at equal bits: what is lost of images, and what is kept of their class.

Digits of scikit-learn (8 x 8) and, where it is there, MNIST (28 x 28), patches of 4 x 4. Bits are those of a patch,
tokens times log2 of their number. Distortion: mean squared error a site, of images held out, over the variance of a
site. Class: $I(\text{tokens}; \text{class}) \ge H(\text{class}) + \langle\ln p(\text{class} \mid \text{tokens})\rangle$
on images held out, by the wing's own classifier, tokens independent given the class, tempered by a tenth of the
training images, which are not learned from.
"""

import math
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from renorm.bench.result import Result
from renorm.data import load
from renorm.data.spec import DataSpec
from renorm.data.store import find
from renorm.measure.information import Told, variational_information
from renorm.tokens.spec import CodebookSpec, ProductSpec, PyramidSpec, ResidualSpec
from renorm.tokens.token_hierarchy import TokenHierarchy

__all__ = ["run"]

BITS = (4, 8, 12, 16)
MOST = 12
"""Bits of one stage: more tokens than there are patches to learn them from, or than is worth waiting for."""

TEMPERS = (0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 1.0)
LIMIT = {"digits": None, "mnist": 10_000}
"""Training images."""

SAMPLE = 50_000
"""Patches that are clustered, at most."""


def run(seed: int) -> Result:
    """Every codebook of every size, on each data set that is there."""
    figures: dict[str, float] = {}
    table: list[dict[str, Any]] = []
    for name in ("digits", "mnist"):
        if name == "mnist" and find(name) is None:
            continue
        train = load(DataSpec(name, labels=True, value_range=(0.0, 1.0), limit=LIMIT[name]))
        test = load(DataSpec(name, labels=True, value_range=(0.0, 1.0)), "test")
        sets = [(f.batch(torch.arange(len(f))).numpy(), np.asarray(f.labels)) for f in (train, test)]
        for bits in BITS:
            for kind, spec in _codebooks(bits).items():
                row = {"data": name, "bits": bits, "codebook": kind, **_judged(spec, *sets, seed=seed)}
                table.append(row)
                for key in ("distortion", "class_nats"):
                    figures[f"{key}_{kind}_{bits}_{name}"] = row[key]
    return Result(figures, table, (seed,))


def _codebooks(bits: int) -> dict[str, CodebookSpec]:
    """One stage where it can be had; two and four stages or parts of as many bits together."""
    found: dict[str, CodebookSpec] = {}
    if bits <= MOST:
        found["one_stage"] = ResidualSpec(tokens=2**bits, stages=1, sample=SAMPLE)
    for depth in (2, 4):
        found[f"residual_{depth}"] = ResidualSpec(tokens=2 ** (bits // depth), stages=depth, sample=SAMPLE)
        found[f"product_{depth}"] = ProductSpec(tokens=2 ** (bits // depth), parts=depth, sample=SAMPLE)
    return found


def _judged(
    spec: CodebookSpec, train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray], *, seed: int
) -> dict[str, Any]:
    """Distortion and class information on the test images."""
    (x, y), (x_test, y_test) = train, test
    cut = len(x) - len(x) // 10
    law = PyramidSpec(levels=0, concentration=0.5, backoff=5.0)
    model = TokenHierarchy(spec, law, seed=seed).fit(x[:cut], y[:cut])
    temper = max(TEMPERS, key=lambda t: float(_told(model.set_params(temper=t), x[cut:], y[cut:]).information.value))
    model.set_params(temper=temper)
    told = _told(model, x_test, y_test)
    lost, learned = (
        float(((model.codebook_.decode(model.codebook_.encode(part)) - part) ** 2).mean()) for part in (x_test, x[:cut])
    )
    spread = float(x.var(axis=0).mean())
    return {
        "distortion": lost / spread,
        "distortion_train": learned / spread,
        "class_nats": float(told.information.value),
        "class_nats_error": float(told.information.error),
        "class_entropy": math.log(len(np.unique(y))),
        "accuracy": float((model.predict(x_test) == y_test).mean()),
        "temper": temper,
    }


def _told(model: TokenHierarchy, x: np.ndarray, y: np.ndarray) -> Told:
    log_q = torch.from_numpy(model.predict_log_joint(x)).log_softmax(-1)
    return variational_information(
        functional.one_hot(torch.from_numpy(y), log_q.shape[1]).double()[:, None], log_q[:, None]
    )
