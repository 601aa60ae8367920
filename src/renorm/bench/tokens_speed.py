"""How much faster counting is than a direct transcription of the same model in NumPy loops, at the same accuracy."""

import time

import numpy as np

from renorm.bench import lite_loops
from renorm.bench.result import Result
from renorm.data import load
from renorm.data.spec import DataSpec
from renorm.tokens.presets import lite
from renorm.tokens.token_hierarchy import TokenHierarchy

__all__ = ["mnist16", "run"]


def run(seed: int) -> Result:
    """Fit "Renormalization, Lite" to 60 000 digits and classify 10 000, both ways, one after the other."""
    x, y = mnist16("train")
    x_test, y_test = mnist16("test")
    begun = time.perf_counter()
    fast = TokenHierarchy.of(lite(seed=42 + seed)).fit(x, y)
    p_fast = fast.predict(x_test)
    middle = time.perf_counter()
    slow = lite_loops.fit(x, y, seed=42 + seed)
    p_slow = slow.predict_log_joint(x_test).argmax(-1)
    end = time.perf_counter()
    seconds, loops = middle - begun, end - middle
    figures = {
        "speedup_over_loops": loops / seconds,
        "seconds": seconds,
        "seconds_loops": loops,
        "accuracy": float((p_fast == y_test).mean()),
        "accuracy_loops": float((p_slow == y_test).mean()),
    }
    table = [
        {"way": "renorm", "seconds": seconds, "accuracy": figures["accuracy"]},
        {"way": "NumPy loops", "seconds": loops, "accuracy": figures["accuracy_loops"]},
    ]
    return Result(figures, table=table, seeds=(42 + seed,))


def mnist16(split: str) -> tuple[np.ndarray, np.ndarray]:
    """MNIST at 16 x 16 as the author of "Renormalization, Lite" shrinks it, values in [0, 1]."""
    fields = load(DataSpec("mnist", labels=True), split)  # type: ignore[arg-type]
    assert fields.labels is not None
    return lite_loops.resize_bilinear(fields.values.numpy()), fields.labels.numpy()
