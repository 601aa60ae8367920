"""The Müller-Brown potential: three wells in a plane, the smallest molecule that has a reaction."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from renorm.spec import require

__all__ = ["MullerBrown"]

DEPTH = (-200.0, -100.0, -170.0, 15.0)
CURVES = ((-1.0, 0.0, -10.0), (-1.0, 0.0, -10.0), (-6.5, 11.0, -6.5), (0.7, 0.6, 0.7))
CENTRES = ((1.0, 0.0), (0.0, 0.5), (-0.5, 1.5), (-1.0, 1.0))
BOX = ((-2.5, 2.0), (-1.5, 3.0))


@dataclass(frozen=True)
class MullerBrown:
    r"""Four Gaussian terms in a plane; the density is $e^{-V/T}$ on a box.

    $$ V(x, y) = \sum_{i=1}^{4} A_i\, e^{a_i (x - x_i)^2 + b_i (x - x_i)(y - y_i) + c_i (y - y_i)^2} $$

    Args:
        temperature: T > 0, in units of the potential.

    Source:
        Müller & Brown 1979, Theor. Chim. Acta 53, 75.

    Example:
        >>> law = MullerBrown(15.0)
        >>> round(law.log_z(501), 5), round(law.mean(lambda x: x[:, 0, 0], 501), 5)
        (7.36486, -0.48356)
    """

    temperature: float

    def __post_init__(self) -> None:
        require(self.temperature > 0, "temperature must be > 0 (at 0 nothing moves)", self.temperature)

    def potential(self, x: Float[Tensor, "batch 1 2"]) -> Float[Tensor, " batch"]:
        """V at each point, in its own units."""
        u, v, curve = self._around(x)
        return (x.new_tensor(DEPTH) * self._exponent(u, v, curve).exp()).sum(1)

    def grad(self, x: Float[Tensor, "batch 1 2"]) -> Float[Tensor, "batch 1 2"]:
        """Gradient of the action V / T."""
        u, v, curve = self._around(x)
        a, b, c = curve
        pull = x.new_tensor(DEPTH) * self._exponent(u, v, curve).exp() / self.temperature
        return torch.stack([(pull * (2 * a * u + b * v)).sum(1), (pull * (b * u + 2 * c * v)).sum(1)], 1)[:, None]

    def __call__(self, x: Float[Tensor, "batch 1 2"]) -> Float[Tensor, " batch"]:
        """Action V / T of each point, in nats."""
        return self.potential(x) / self.temperature

    def log_z(self, nodes: int = 1001) -> float:
        r"""$\ln\int e^{-V/T}$ over the box [-2.5, 2] x [-1.5, 3], by the trapezoidal rule, in nats.

        Args:
            nodes: On each axis.
        """
        points, cell = self._grid(nodes)
        return float((-self(points)).logsumexp(0) + cell.log())

    def mean(self, observable: Callable[[Tensor], Tensor], nodes: int = 1001) -> float:
        """Mean of a function of the points over the box."""
        points, _ = self._grid(nodes)
        return float((-self(points)).softmax(0) @ observable(points))

    @staticmethod
    def _around(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Both coordinates from the centre of each term, (batch, 4), and the terms' a, b and c."""
        centres = x.new_tensor(CENTRES)
        return x[:, 0, :1] - centres[:, 0], x[:, 0, 1:] - centres[:, 1], x.new_tensor(CURVES).T

    @staticmethod
    def _exponent(u: Tensor, v: Tensor, curve: Tensor) -> Tensor:
        # What is next to nothing stays a normal number: others are a hundred times slower.
        return (curve[0] * u * u + curve[1] * u * v + curve[2] * v * v).clamp(min=-70)

    def _grid(self, nodes: int) -> tuple[Tensor, Tensor]:
        # The density is next to nothing at the edge, so its weight there does not matter.
        axes = [torch.linspace(low, high, nodes, dtype=torch.float64) for low, high in BOX]
        cell = (axes[0][1] - axes[0][0]) * (axes[1][1] - axes[1][0])
        return torch.cartesian_prod(*axes)[:, None], cell
