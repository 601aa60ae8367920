"""Fields that share a coarse field: Markov chains that move the details and leave the beads where they are."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from renorm.coarse.base import CoarseGraining
from renorm.errors import DataError, RecipeError
from renorm.lattice import Lattice
from renorm.mcmc.hmc import Action, value_and_grad

__all__ = ["Fibre", "FibreAction"]


class Fibre:
    r"""All fields of one axis with the same coarse field, in orthonormal coordinates.

    $$ c = C x, \qquad x = C^+ c + Q y, \qquad C Q = 0, \quad Q^\top Q = 1 $$

    C is what linear steps make of the sites of a channel, one channel like the other. Given c, the law of y has the
    density $e^{-S(C^+c + Qy)}$ up to a constant, so any kernel of ``renorm.mcmc`` moves it.

    Args:
        steps: Linear steps, finest first (``Beads``, ``Alternate``).
        lattice: Of the finest field, one axis.

    Raises:
        RecipeError: If there is no step, the lattice has more axes, or a step is not linear.

    Example:
        >>> from renorm.coarse.beads import Beads
        >>> fibre = Fibre([Beads(((0, 1), (2, 3)))], Lattice((4,)))
        >>> x = torch.tensor([[[0.0, 2.0, 5.0, 6.0]]])
        >>> coarse, y = fibre.apart(x)
        >>> coarse.tolist(), y.shape, torch.allclose(fibre.field(coarse, y), x)
        ([[[1.0, 5.5]]], torch.Size([1, 1, 2]), True)
    """

    def __init__(self, steps: Sequence[CoarseGraining], lattice: Lattice) -> None:
        if not steps or lattice.dim != 1:
            raise RecipeError(f"a fibre is of one step or more on one axis, got {len(steps)} and {lattice.shape}")
        self.steps, self.lattice = tuple(steps), lattice
        unit = torch.eye(lattice.sites, dtype=torch.float64)[:, None]
        for step in steps:
            unit = step.split(unit).coarse
        self.rows: Float64[Tensor, "coarse sites"] = unit[:, 0].T
        probe = torch.randn(2, 1, lattice.sites, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        if not torch.allclose(self._coarse(probe), probe @ self.rows.T, atol=1e-8):
            raise RecipeError("the steps of a fibre must be linear (else it is curved), and one of these is not")
        self.lift = torch.linalg.pinv(self.rows)
        full, _ = torch.linalg.qr(self.rows.T, mode="complete")
        self.basis: Float64[Tensor, "sites detail"] = full[:, len(self.rows) :]

    def apart(self, x: Float[Tensor, "batch channel sites"]) -> tuple[Tensor, Tensor]:
        """The coarse field, and the place in its fibre; DataError if fields do not live here."""
        if tuple(x.shape[2:]) != self.lattice.shape:
            raise DataError(f"fields must have {self.lattice.sites} sites on one axis, got {tuple(x.shape)}")
        return x @ self.rows.T.to(x), x @ self.basis.to(x)

    def field(
        self, coarse: Float[Tensor, "batch channel coarse"], y: Float[Tensor, "batch channel detail"]
    ) -> Float[Tensor, "batch channel sites"]:
        """The field at a place of the fibre of a coarse field."""
        return coarse.to(y) @ self.lift.T.to(y) + y @ self.basis.T.to(y)

    def action(self, action: Action, coarse: Float[Tensor, "batch channel coarse"]) -> "FibreAction":
        """S along the fibres of these coarse fields, one for each chain."""
        return FibreAction(self, action, coarse)

    def _coarse(self, x: Tensor) -> Tensor:
        for step in self.steps:
            x = step.split(x).coarse
        return x


class FibreAction:
    """An action as a function of the place in a fibre, with its gradient there; see ``Fibre``.

    Args:
        fibre: Where chains move.
        action: Of the whole field, in nats.
        coarse: Of each chain.
    """

    def __init__(self, fibre: Fibre, action: Action, coarse: Tensor) -> None:
        self.fibre, self.whole, self.coarse = fibre, action, coarse

    def __call__(self, y: Tensor) -> Tensor:
        """Nats of every place."""
        return self.whole(self.fibre.field(self.coarse, y))

    def grad(self, y: Tensor) -> Tensor:
        """The gradient along the fibre."""
        return value_and_grad(self.whole, self.fibre.field(self.coarse, y))[1] @ self.fibre.basis.to(y)
