"""How long, how fast and how carefully to fit: the typed settings of the training loop (no torch here)."""

import math
from dataclasses import dataclass
from typing import Any, Literal

from renorm.spec import require, require_literals, to_mapping

__all__ = ["FitSpec"]

# These steer what is written and when, never the weights, so a resumed run may change them.
_FREE = ("checkpoint_every", "checkpoint_seconds", "keep", "log_every", "tensorboard")


@dataclass(frozen=True)
class FitSpec:
    """Settings of ``renorm.fit.gradient.fit``: AdamW with warm-up, decay, clipping and averaged weights.

    Attributes:
        steps: Optimiser steps in all.
        batch: Fields per step over all processes together.
        lr: Learning rate after the warm-up.
        warmup: Steps over which the learning rate rises linearly from ``lr / warmup``.
        decay: ``"constant"``, or ``"cosine"`` from the end of the warm-up down to zero at ``steps``.
        weight_decay: AdamW's decoupled decay, on weights of two or more axes (not on biases and gains).
        betas: AdamW's decay rates of the first and second moment.
        clip: Largest Euclidean norm of the whole gradient; a longer one is scaled down to it.
        ema: Largest decay of the exponential moving average of the weights.
        precision: ``"bf16"`` calls the loss under bfloat16 autocast; ``"auto"`` does so on CUDA alone.
        seed: Of the order of the fields, the noise and the dropout.
        checkpoint_every: Steps between checkpoints.
        checkpoint_seconds: Also write one when this long has passed since the last [s]; ``None``: never.
        log_every: Steps between lines of ``metrics.jsonl``.
        keep: Checkpoints kept; older ones are removed.
        tensorboard: Also write TensorBoard events (needs the extra ``track``).

    Raises:
        ValueError: If a value is out of its range; the message says which and why.

    Example:
        >>> spec = FitSpec(steps=1000, lr=1e-3, warmup=10)
        >>> spec.learning_rate(4), spec.learning_rate(500)
        (0.0005, 0.001)
    """

    steps: int = 100_000
    batch: int = 128
    lr: float = 2e-4
    warmup: int = 1000
    decay: Literal["constant", "cosine"] = "constant"
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float = 1.0
    ema: float = 0.9999
    precision: Literal["auto", "float32", "bf16"] = "auto"
    seed: int = 0
    checkpoint_every: int = 5000
    checkpoint_seconds: float | None = 600.0
    log_every: int = 50
    keep: int = 2
    tensorboard: bool = False

    def __post_init__(self) -> None:
        require_literals(self)
        require(self.steps >= 1, "steps must be >= 1 (there is nothing to fit)", self.steps)
        require(self.batch >= 1, "batch must be >= 1 (a step needs a field)", self.batch)
        require(0 < self.lr < math.inf, "lr must be > 0 and finite (nothing is learnt at 0)", self.lr)
        require(self.warmup >= 0, "warmup must be >= 0 steps (0 = none)", self.warmup)
        require(0 <= self.weight_decay < math.inf, "weight_decay must be >= 0 and finite", self.weight_decay)
        within = all(0 <= beta < 1 for beta in self.betas)
        require(within, "betas must lie in [0, 1) (at 1 the moments never move)", self.betas)
        require(self.clip > 0, "clip must be > 0 (at 0 the gradient vanishes; inf = never clip)", self.clip)
        require(0 <= self.ema < 1, "ema must lie in [0, 1) (at 1 the average never moves)", self.ema)
        require(0 <= self.seed < 2**63, "seed must lie in [0, 2^63)", self.seed)
        require(self.checkpoint_every >= 1, "checkpoint_every must be >= 1 step", self.checkpoint_every)
        seconds = self.checkpoint_seconds
        require(seconds is None or seconds > 0, "checkpoint_seconds must be > 0 s (or left out)", seconds)
        require(self.log_every >= 1, "log_every must be >= 1 step", self.log_every)
        require(self.keep >= 1, "keep must be >= 1 (the newest checkpoint is the one to resume from)", self.keep)

    def learning_rate(self, step: int) -> float:
        """Learning rate of the update that leads from ``step`` to ``step + 1``.

        With w = ``warmup`` and n = ``step``::

            lr(n) = lr * min(1, (n + 1) / w) * c(n)
            c(n)  = (1 + cos(pi * (n - w) / (steps - w))) / 2    if decay is cosine and n > w, else 1
        """
        rise = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        if self.decay == "constant" or step <= self.warmup:
            return self.lr * rise
        fraction = (step - self.warmup) / (self.steps - self.warmup)
        return self.lr * rise * 0.5 * (1.0 + math.cos(math.pi * min(fraction, 1.0)))

    def ema_decay(self, step: int) -> float:
        """Decay of the average at the update from ``step``: min(ema, (1 + step) / (10 + step)).

        The ramp lets the average forget the random start; it reaches 0.9999 after 90 000 steps.
        """
        return min(self.ema, (1 + step) / (10 + step))

    def lasting(self) -> dict[str, Any]:
        """The settings that shape the weights already learnt, which a resumed run must therefore share.

        ``steps`` is among them only if the learning rate depends on it: if ``decay`` is not constant.
        """
        free = {*_FREE, "steps"} if self.decay == "constant" else {*_FREE}
        return {key: value for key, value in to_mapping(self).items() if key not in free}
