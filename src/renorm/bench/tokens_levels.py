"""What each level of a pyramid of tokens keeps: 32 x 32 sites, 8 x 8, 4 x 4, 2 x 2 tokens, one token, the class."""

from typing import Any

import numpy as np

from renorm.bench.result import Result
from renorm.data import load
from renorm.data.spec import DataSpec
from renorm.tokens.families.structure import entropy, information_kept
from renorm.tokens.presets import pyramid
from renorm.tokens.token_hierarchy import TokenHierarchy
from renorm.tokens.trees.counts import smooth

__all__ = ["run"]

BACKOFF = 10.0  # counts by which a class leans on the mean of all


def run(seed: int) -> Result:
    """Fit MNIST at 32 x 32; at each level p(class | tokens) with tokens independent, and the whole tree."""
    train, test = (load(DataSpec("mnist", size=32, labels=True), split) for split in ("train", "test"))
    assert train.labels is not None
    assert test.labels is not None
    labels, labels_test = train.labels.numpy(), test.labels.numpy()
    spec = pyramid()
    model = TokenHierarchy(spec.codebook, spec.law, seed=seed).fit(train.values.numpy(), labels)
    states, states_test = (_states(model, fields.values.numpy()) for fields in (train, test))
    figures: dict[str, float] = {}
    table = []
    for level, (nodes, grid) in enumerate(model._token_levels, start=1):
        z, z_test = states[:, nodes], states_test[:, nodes]
        joint = _independent(z, labels, z_test, int(model.law_.tree.states[nodes].max()))
        row: dict[str, Any] = {
            "level": level,
            "grid": f"{grid[0]} x {grid[1]}",
            **_judged(joint, labels_test),
            "class_information": float(np.mean([information_kept(column, labels) for column in z.T])),
            "entropy": float(np.mean([entropy(column) for column in z.T])),
        }
        table.append(row)
        figures |= {f"{key}_level{level}": row[key] for key in ("accuracy", "class_nats", "class_information")}
    x_test = test.values.numpy()
    tree = _judged(model.predict_log_joint(x_test), labels_test)
    nats = -float(model.score_samples(x_test).mean())
    table.append({"level": "tree", "grid": "", **tree, "nats_per_image": nats})
    figures |= {"accuracy_tree": tree["accuracy"], "class_nats_tree": tree["class_nats"], "nats_per_image": nats}
    return Result(figures, table=table, seeds=(seed,))


def _states(model: TokenHierarchy, images: np.ndarray) -> np.ndarray:
    tokens = model.codebook_.encode(model.pictures_.images(images))
    return np.asarray(model.family_.states(tokens, np.full(len(tokens), -1)))


def _independent(z: np.ndarray, labels: np.ndarray, z_test: np.ndarray, tokens: int) -> np.ndarray:
    """ln p(class, tokens) if the tokens of a level were independent given the class."""
    joint = np.tile(np.log(np.bincount(labels) / len(labels)), (len(z_test), 1))
    for column, column_test in zip(z.T, z_test.T, strict=True):
        n = np.bincount(labels * tokens + column, minlength=(labels.max() + 1) * tokens).reshape(-1, tokens)
        theta = smooth(n.astype(float), smooth(n.sum(0).astype(float), None, tokens / 2), BACKOFF)
        joint += np.log(theta[:, column_test].T)
    return joint


def _judged(joint: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Accuracy, and mean nats of the right class."""
    log_p = joint - np.logaddexp.reduce(joint, axis=1, keepdims=True)
    right = float((joint.argmax(-1) == labels).mean())
    return {"accuracy": right, "class_nats": float(-log_p[np.arange(len(labels)), labels].mean())}
