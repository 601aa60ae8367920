r"""What undoes one coarse-graining step: a law of the detail given the coarse field, which says its density.

$$ y \sim p(y \mid c), \qquad \ln p(y \mid c) \text{ in nats} $$
"""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from renorm.model import Grade

__all__ = ["CascadeConditional", "Draw"]


class Draw(NamedTuple):
    r"""Values, and the log of the density that they were drawn from, in nats.

    Attributes:
        value: Details (batch, details, \*sites), or fields (batch, channel, \*sites).
        log_prob: (batch,).
    """

    value: Tensor
    log_prob: Tensor


class CascadeConditional(nn.Module, ABC):
    """A law of details given coarse fields; of the coarsest fields themselves where it stands at the top.

    A cascade keeps ``renorm.model.Conditional``, and asks besides for the density along with each draw, which costs
    nothing then.

    Attributes:
        reparametrised: Whether gradients pass through a draw.
        grade: What ``log_prob`` means: exact, up to a constant (``ENERGY``), or nothing (``NONE``).
        closed_form: Whether ``solve`` finds the parameters from samples; else they are trained by gradient.
    """

    reparametrised: bool = True
    grade: Grade = Grade.EXACT
    closed_form: bool = False

    @abstractmethod
    def draw(self, coarse: Tensor, *, generator: torch.Generator) -> Draw:
        """One detail for each coarse field, and its log density."""

    @abstractmethod
    def log_prob(self, detail: Tensor, coarse: Tensor) -> Tensor:
        """Log density of each detail given its coarse field, in nats."""

    def sample(self, coarse: Tensor, *, generator: torch.Generator) -> Tensor:
        """One detail for each coarse field."""
        return self.draw(coarse, generator=generator).value

    def loss(self, detail: Tensor, coarse: Tensor, *, generator: torch.Generator) -> Tensor:
        """What training by gradient makes small, for each detail: -ln p, in nats, unless a law says otherwise."""
        return -self.log_prob(detail, coarse)

    def solve(self, detail: Tensor, coarse: Tensor) -> None:
        """Set the parameters from samples of details and their coarse fields, where a closed form is known."""
        raise TypeError(f"{type(self).__name__} has no closed form, it is trained by gradient")
