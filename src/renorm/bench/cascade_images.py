"""Exact bits per dimension of 8-bit MNIST: a cascade of flows beside a flow of one scale of equal size and time.

Grey values are dequantised, v -> v + u with u uniform, and each is moved by one fixed function of itself to a normal
number; the volume of both counts. The density is exact, of one u a test image. Settings were chosen on
1 000 of the last 5 000 training images; the test images are met once.
"""

import math
import time
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

from renorm.bench.equal_time import mean_log_prob, parameters, train_for
from renorm.bench.result import Result
from renorm.cascade.conditional import CascadeConditional
from renorm.cascade.conditionals.coupling import CouplingFlow
from renorm.cascade.conditionals.standardised import Standardised
from renorm.coarse.base import CoarseGraining
from renorm.coarse.checkerboard import Checkerboard, RotatedCheckerboard
from renorm.coarse.wavelet import Wavelet
from renorm.data import load
from renorm.data.spec import DataSpec

__all__ = ["Equalised", "Plan", "run"]

EDGE = 28  # 28 -> 14 -> 7
DIMENSIONS = EDGE * EDGE


@dataclass(frozen=True)
class Plan:
    """How much of everything.

    Attributes:
        train: Images; None for all.
        test: Images that are weighed; None for all.
        seconds: Of training, for each model.
    """

    train: int | None = None
    test: int | None = None
    seconds: float = 150.0


class Equalised:
    r"""Grey values to normal numbers: $x = \Phi^{-1}(F(v + u))$, u uniform in [0, 1), F rising evenly within a value.

    $$ F = (1 - m) F_{\text{train}} + m F_{\text{uniform}}, \qquad
       \ln\left|\frac{dx}{d(v + u)}\right| = \ln F' - \ln \mathcal{N}(x) $$

    Args:
        values: Grey values of training images, uint8.
        mix: m > 0, so that every value has some room.

    Example:
        >>> grey = torch.arange(256, dtype=torch.uint8)
        >>> x, log_det = Equalised(grey, 0.5)(torch.tensor([[128]], dtype=torch.uint8), torch.zeros(1, 1))
        >>> x.item(), round(log_det.item(), 4)  # the middle: sqrt(2 pi) / 256
        (0.0, -4.6262)
    """

    def __init__(self, values: UInt8[Tensor, "*some"], mix: float) -> None:
        share = torch.bincount(values.flatten().long(), minlength=256).double()
        self.slope = (1 - mix) * share / share.sum() + mix / 256
        self.below = torch.cat([torch.zeros(1, dtype=torch.float64), self.slope.cumsum(0)[:-1]])

    def __call__(
        self, values: UInt8[Tensor, "batch *sites"], u: Float[Tensor, "batch *sites"]
    ) -> tuple[Float[Tensor, "batch *sites"], Float[Tensor, " batch"]]:
        """Normal numbers, and the log of the volume that each image gained."""
        v = values.long()
        # Half a float's step keeps both ends finite.
        share = (self.below[v] + self.slope[v] * u.double()).clamp(1e-12, 1 - 1e-12)
        x = torch.special.ndtri(share)
        log_det = self.slope[v].log() + 0.5 * (x**2 + math.log(2 * math.pi))
        return x.float(), log_det.flatten(1).sum(1).float()


MIX = {"": 0.3, "_one_scale": 0.1}  # what was best for each
COARSE = "checkerboard"


def run(seed: int, plan: Plan = Plan()) -> Result:
    """Train both, weigh the test images."""
    train = load(DataSpec("mnist"), "train").values[: plan.train]
    test = load(DataSpec("mnist"), "test").values[: plan.test]
    generator = torch.Generator().manual_seed(seed)
    figures: dict[str, float] = {}
    table: list[dict[str, Any]] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        models = {"": cascade(COARSE), "_one_scale": one_scale()}
    u = torch.rand(test.shape, generator=generator)
    for name, (steps, laws) in models.items():
        flatten = Equalised(train, MIX[name])
        x, log_det = flatten(test, u)
        begun = time.process_time()
        made = fit(steps, laws, flatten, train, seconds=plan.seconds, generator=generator)
        seconds = time.process_time() - begun
        parts = level_log_probs(steps, laws, x)
        bits = -(sum(parts) + log_det) / (math.log(2) * DIMENSIONS)
        figures |= {
            f"bits_per_dim{name}": float(bits.mean()),
            f"bits_per_dim{name}_error": float(bits.std() / len(bits) ** 0.5),
            f"parameters{name}": sum(parameters(law) for law in laws),
            f"seconds{name}": seconds,
        }
        table += [
            {"model": "one scale" if name else "cascade", "level": level, "steps": count, "nats": float(-part.mean())}
            for level, (count, part) in enumerate(zip(made, parts, strict=True))
        ]
    return Result(figures, table, seeds=(seed,))


Model = tuple[list[CoarseGraining], list[CascadeConditional]]
"""Steps finest first, and their conditionals; the last law is that of the coarsest field."""


def cascade(coarse: str, *, width: int = 24, rounds: int = 1, layers: int = 2) -> Model:
    """28 x 28 to 7 x 7; the networks know where they are, and see black beyond the edge."""
    steps: list[CoarseGraining] = (
        [Checkerboard(), RotatedCheckerboard()] * 2 if coarse == "checkerboard" else [Wavelet()] * 2
    )
    laws: list[CascadeConditional] = []
    for step in steps:
        channels, details = {Checkerboard: (2, 2), RotatedCheckerboard: (1, 1), Wavelet: (1, 3)}[type(step)]
        laws.append(_flow(channels, details, width, rounds, layers))
    top = CouplingFlow(
        2, 0, 1, rounds=2, width=width, layers=2, bins=12, symmetric=False, boundary="open", places=True, sites=(7, 7)
    )
    return steps, [*laws, Standardised(top, 0, 1, symmetric=False)]


def one_scale(*, width: int = 26, rounds: int = 2, layers: int = 2) -> Model:
    """Coupling layers on the whole image, in blocks of 2 x 2 as channels, whose networks look ever further."""
    flow = CouplingFlow(
        2,
        0,
        4,
        rounds=rounds,
        width=width,
        layers=layers,
        bins=12,
        dilations=(1, 2, 4),
        symmetric=False,
        boundary="open",
        places=True,
        sites=(EDGE // 2, EDGE // 2),
    )
    return [], [Standardised(flow, 0, 4, symmetric=False)]


def _flow(channels: int, details: int, width: int, rounds: int, layers: int) -> Standardised:
    flow = CouplingFlow(
        2,
        channels,
        details,
        rounds=rounds,
        width=width,
        layers=layers,
        bins=12,
        symmetric=False,
        boundary="open",
        places=True,
    )
    return Standardised(flow, channels, details, symmetric=False)


def fit(
    steps: list[CoarseGraining],
    laws: list[CascadeConditional],
    flatten: Equalised,
    images: Tensor,
    *,
    seconds: float,
    generator: torch.Generator,
    rate: float = 4e-3,
    rows: int = 32,
) -> list[int]:
    """Each level on its own, in a share of the time; new noise u for each batch. Gives the steps of each."""
    weights = [max(0.4, 1 - level / 4) for level in range(len(laws))]
    made = []
    for level, law in enumerate(laws):

        def batch(
            level: int = level, law: CascadeConditional = law, size: int = rows * min(level + 1, 3)
        ) -> tuple[Tensor, Tensor]:
            chosen = images[torch.randint(len(images), (size,), generator=generator)]
            x, _ = flatten(chosen, torch.rand(chosen.shape, generator=generator))
            for step in steps[:level]:
                x = step.split(x).coarse
            if level == len(steps):
                return _whole(x, law), x.new_empty(len(x), 0)
            coarse, detail, _ = steps[level].split(x)
            return detail, coarse

        assert isinstance(law, Standardised)
        law.standardise(*batch())
        made.append(train_for(law, batch, seconds=seconds * weights[level] / sum(weights), rate=rate))
    return made


def level_log_probs(steps: list[CoarseGraining], laws: list[CascadeConditional], x: Tensor) -> list[Tensor]:
    """Nats of each level's detail given its coarse field, and of the coarsest field; the steps keep the volume."""
    parts = []
    for step, law in zip(steps, laws, strict=False):
        x, detail, _ = step.split(x)
        parts.append(mean_log_prob(law, detail, x))
    return [*parts, mean_log_prob(laws[-1], _whole(x, laws[-1]), x.new_empty(len(x), 0))]


def _whole(x: Tensor, law: CascadeConditional) -> Tensor:
    """A field as the law above all others takes it: its sites may be channels."""
    return functional.pixel_unshuffle(x, 2) if isinstance(law, Standardised) and len(law.spread) == 4 else x
