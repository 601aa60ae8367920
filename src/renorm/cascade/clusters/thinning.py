"""The way down: particles leave a cluster one by one, in a random order whose probability is known."""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from renorm.errors import DataError
from renorm.spec import require

__all__ = ["Ordered", "Rule", "Thinning"]

Rule = Literal["crowded", "outer", "any"]
FARTHEST = 1e9


class Ordered(NamedTuple):
    """Clusters with their particles in the order in which they come again: the one that left first stands last.

    Attributes:
        at: Positions (batch, particles, dim).
        log_prob: Of this order given the particles, in nats, (batch,).
    """

    at: Tensor
    log_prob: Tensor


@dataclass(frozen=True)
class Thinning:
    r"""Which particle of a cluster leaves next, until one is left.

    $$ p(i) = \frac{e^{-\beta c_i}}{\sum_j e^{-\beta c_j}}, \qquad
       c_i = \min_{j \ne i} |x_i - x_j|^2 \ (\text{crowded}), \quad -|x_i - \bar x|^2 \ (\text{outer}), \quad
       0 \ (\text{any}) $$

    Outer particles first takes shell after shell away, down to the core. Crowded ones first is decimation: what is left
    is spread over the whole cluster. Orders of permuted particles are alike, and so are those of clusters that
    are turned or moved.

    Args:
        rule: Which leave first.
        sharpness: $\beta$, in inverse units of length squared; the larger, the surer.

    Raises:
        ValueError: If the rule is unknown, or beta is negative or not finite.

    Example: the two that are near leave first, one or the other.
        >>> thinning = Thinning("crowded", sharpness=10.0)
        >>> ordered = thinning.order(torch.tensor([[[0.0, 1.0, 5.0]]]), generator=torch.Generator().manual_seed(0))
        >>> ordered.at[0, -1, 0].item() in (0.0, 1.0), round(ordered.log_prob.exp().item(), 3)
        (True, 0.25)
    """

    rule: Rule = "outer"
    sharpness: float = 1.0

    def __post_init__(self) -> None:
        require(self.rule in get_args(Rule), f"rule must be one of {get_args(Rule)}", self.rule)
        right = self.sharpness >= 0 and math.isfinite(self.sharpness)
        require(right, "sharpness must be >= 0 and finite (beta of the choice)", self.sharpness)

    def order(self, x: Float[Tensor, "batch dim particles"], *, generator: torch.Generator) -> Ordered:
        """Let particles leave at random.

        Raises:
            DataError: If there are fewer than two particles, or a position is not finite.
        """
        left = x.transpose(1, 2)
        _require(left)
        gone, total = [], x.new_zeros(len(x))
        while left.shape[1] > 1:
            shares = self._shares(left)
            which = torch.multinomial(shares.exp(), 1, generator=generator)
            total = total + shares.gather(1, which)[:, 0]
            others = torch.arange(left.shape[1], device=x.device) != which
            gone.append(left[~others])
            left = left[others].unflatten(0, (len(x), left.shape[1] - 1))
        return Ordered(torch.stack([left[:, 0], *gone[::-1]], 1), total)

    def log_prob(self, at: Float[Tensor, "batch particles dim"]) -> Float[Tensor, " batch"]:
        """Log probability that these leave from the last to the second; errors as of ``order``."""
        _require(at)
        each = [self._shares(at[:, :k])[:, -1] for k in range(2, at.shape[1] + 1)]
        return torch.stack(each, 1).sum(1)

    def _shares(self, at: Tensor) -> Tensor:
        """Log probability of each to leave next."""
        if self.rule == "any":
            return at.new_full(at.shape[:2], -math.log(at.shape[1]))
        if self.rule == "outer":
            cost = -(at - at.mean(1, keepdim=True)).square().sum(-1)
        else:
            apart = (at[:, :, None] - at[:, None]).square().sum(-1)
            itself = torch.eye(at.shape[1], dtype=torch.bool, device=at.device)
            cost = apart.masked_fill(itself, torch.inf).amin(-1)
        return (-self.sharpness * (cost - cost.amin(1, keepdim=True))).log_softmax(1)


def _require(at: Tensor) -> None:
    if at.shape[1] < 2:
        raise DataError(f"two particles or more can be thinned out, got {at.shape[1]}")
    if not bool((at.abs() < FARTHEST).all()):
        raise DataError(f"positions must be finite, and below {FARTHEST:g} (their squares are compared); some are not")
