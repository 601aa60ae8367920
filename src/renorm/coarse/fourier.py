r"""A sharp cutoff at half the wavenumbers: the modes beyond it are the shell, those below live on half the sites."""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from renorm.bases import basis_for
from renorm.coarse.base import Split, check_field, check_parts, shrunk
from renorm.errors import RecipeError
from renorm.lattice import Boundary, Lattice

__all__ = ["FourierShell", "mode_order"]


@dataclass(frozen=True)
class FourierShell:
    r"""Split a field into its lower modes, as a field on half the sites, and the modes of the shell above them.

    With $\tilde\phi_n$ the orthonormal modes in rising order on each axis ($L$ sites, $d$ axes),

    $$ \tilde c_n = 2^{-d/2}\, \tilde\phi_n \quad (n_a < L_a/2 \text{ on every axis}), \qquad
       y = (\tilde\phi_n)_{\text{all other } n}, \qquad
       \ln|\det| = -\tfrac d2 \ln 2 \cdot \#c , $$

    $\#c$ the number of coarse sites times channels. The factor keeps the values of the field: coarse site $X$ has the
    value that the lower modes alone have at fine site $2X$ (open boundary: at the middle of the block of $X$), and
    the power of every mode falls by the same $2^d$. One mode is special: for $L/2$ even, the highest coarse mode of a
    periodic axis is the cosine of $k = \pi/2$, whose sine stays in the shell. It has the factor of the others, so
    that the power spectrum has no step there, and so $1/\sqrt2$ of its value.

    The detail is one vector for each field: channel after channel, the shell's modes by rising $|k|$, modes of one
    $|k|$ in the order of the array of modes (``shell_k_sq`` gives their wavenumbers).

    Args:
        dim: Axes of the lattice, 1 to 3.
        boundary: That of the fields, which says which modes: real Fourier if periodic, cosines if open.

    Raises:
        RecipeError: If dim or boundary is none of these.

    Example:
        >>> x = torch.tensor([[[3.0, 3.0, 1.0, 1.0]]])
        >>> coarse, detail, log_det = FourierShell(dim=1, boundary="open").split(x)
        >>> coarse.round(decimals=4), tuple(detail.shape), round(log_det.item(), 4)
        (tensor([[[2.9239, 1.0761]]]), (1, 2), -0.6931)
    """

    dim: int = 2
    boundary: Boundary = "periodic"

    def __post_init__(self) -> None:
        if not 1 <= self.dim <= 3:
            raise RecipeError(f"a lattice has one to three axes, so dim is 1, 2 or 3, got {self.dim!r}")
        if self.boundary not in ("open", "periodic"):
            raise RecipeError(f"boundary must be 'open' or 'periodic', got {self.boundary!r}")

    def coarse_lattice(self, lattice: Lattice) -> Lattice:
        """Half the sites on every axis, twice as far apart.

        Raises:
            RecipeError: If an axis is odd, or the lattice has other axes or another boundary than this step.
        """
        if lattice.dim != self.dim or lattice.boundary != self.boundary:
            raise RecipeError(
                f"this shell is made for {self.dim} {self.boundary} axes (set dim and boundary), "
                f"got a lattice of {lattice.shape}, {lattice.boundary}"
            )
        return shrunk(lattice, 2)

    def detail_shape(self, lattice: Lattice) -> tuple[int, ...]:
        """(channels times modes of the shell,)."""
        coarse = self.coarse_lattice(lattice)
        return (lattice.channels * (lattice.sites - coarse.sites),)

    def shell_k_sq(self, lattice: Lattice) -> Float64[Tensor, " details"]:
        """Squared wavenumber of each entry of the detail, in (rad/site)^2 of the fine lattice."""
        shell = _mode_order(self._lattice(lattice.shape))[self.coarse_lattice(lattice).sites :]
        return lattice.k_sq().flatten()[shell].repeat(lattice.channels)

    def split(self, x: Float[Tensor, "batch channel *sites"]) -> Split:
        """Coarse field and modes of the shell.

        Raises:
            DataError: If an axis of ``x`` is odd, or there are not ``dim`` of them.
        """
        check_field(x, self.dim, 2)
        lattice = self._lattice(tuple(x.shape[2:]))
        coarse = shrunk(lattice, 2)
        modes = basis_for(lattice).forward(x).flatten(2)[..., _mode_order(lattice).to(x.device)]
        low, shell = modes[..., : coarse.sites], modes[..., coarse.sites :]
        field = basis_for(coarse).inverse((low * self._factor).unflatten(-1, coarse.shape))
        log_det = -self.dim / 2 * math.log(2) * x.shape[1] * coarse.sites
        return Split(field, shell.flatten(1), x.new_full((len(x),), log_det))

    def merge(
        self, coarse: Float[Tensor, "batch channel *sites"], detail: Float[Tensor, "batch details"]
    ) -> Float[Tensor, "batch channel *fine"]:
        """The field with these lower modes and this shell.

        Raises:
            DataError: If coarse field and detail do not belong together.
        """
        channels = coarse.shape[1]
        lattice = self._lattice(tuple(2 * n for n in coarse.shape[2:]))
        here = shrunk(lattice, 2)
        check_parts(coarse, detail, self.dim, (channels * (lattice.sites - here.sites),))
        low = basis_for(here).forward(coarse).flatten(2) / self._factor
        modes = torch.cat([low, detail.unflatten(1, (channels, -1))], dim=-1)
        place = _mode_order(lattice).argsort().to(coarse.device)
        return basis_for(lattice).inverse(modes[..., place].unflatten(-1, lattice.shape))

    @property
    def _factor(self) -> float:
        return float(2 ** (-self.dim / 2))

    def _lattice(self, shape: tuple[int, ...]) -> Lattice:
        return Lattice(shape, boundary=self.boundary)


def mode_order(lattice: Lattice) -> Int64[Tensor, " modes"]:
    """Places of the modes in the flat array: the lower ones as they stand, then the shell by rising wavenumber.

    Example:
        >>> mode_order(Lattice((2, 2))).tolist()
        [0, 1, 2, 3]
    """
    return _mode_order(lattice).clone()


@lru_cache(maxsize=64)
def _mode_order(lattice: Lattice) -> Tensor:
    lower = torch.zeros(lattice.shape, dtype=torch.bool)
    lower[tuple(slice(n // 2) for n in lattice.shape)] = True
    shell = (~lower).flatten().nonzero().squeeze(1)
    k_sq = lattice.k_sq().flatten()[shell].round(decimals=9)  # sums over axes in another order are the same |k|
    return torch.cat([lower.flatten().nonzero().squeeze(1), shell[k_sq.argsort(stable=True)]])
