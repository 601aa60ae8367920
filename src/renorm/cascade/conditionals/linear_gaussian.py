"""The conditional that is exact for Gaussian fields: a linear filter of the coarse field, and coloured noise."""

from typing import Any

import torch
from jaxtyping import Complex128, Float
from torch import Tensor

from renorm.cascade.conditional import CascadeConditional, Draw
from renorm.cascade.conditionals.spectral_gaussian import (
    SpectralGaussian,
    filtered,
    require_alive,
    spectral_covariance,
)

__all__ = ["GaussianTop", "LinearGaussian"]


class LinearGaussian(CascadeConditional):
    r"""Details that are a linear function of the coarse field, and Gaussian noise around it.

    $$ p(y \mid c) = \prod_k \mathcal{N}\big(y(k);\ G(k)\, c(k),\ S(k)\big), \qquad
       G = C_{yc} C_{cc}^{-1}, \quad S = C_{yy} - C_{yc} C_{cc}^{-1} C_{cy} $$

    Args:
        covariance: Of coarse field and detail at each wavenumber of the coarse lattice, the coarse channels first.
        channels: How many channels are the coarse field's.

    Raises:
        DataError: If the covariance is not positive definite.

    Source:
        Marchand, Ozawa, Biroli, Mallat 2022, arXiv:2207.04941 (such conditionals stay well conditioned at criticality).

    Example: two independent channels.
        >>> law = LinearGaussian(torch.diag(torch.tensor([1.0, 4.0])).to(torch.complex128).expand(3, 2, 2), 1)
        >>> law.gain.abs().max().item(), law.noise.condition_number
        (0.0, 1.0)
    """

    closed_form = True
    parts: Tensor  # real and imaginary part of the covariance: files hold no complex numbers of this size

    def __init__(self, covariance: Complex128[Tensor, "*sites channels channels"], channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.register_buffer("parts", _real(covariance))
        self.register_load_state_dict_post_hook(_conditioned)
        self._condition()

    @classmethod
    def unfitted(cls, channels: int, details: int, shape: tuple[int, ...]) -> "LinearGaussian":
        """White noise, whatever the coarse field: what ``solve`` and a file start from."""
        return cls(_white(channels + details, shape), channels)

    @classmethod
    def from_fields(
        cls, coarse: Float[Tensor, "batch channel *sites"], detail: Float[Tensor, "batch details *sites"]
    ) -> "LinearGaussian":
        """The most likely one for samples: their covariance at each wavenumber."""
        return cls(spectral_covariance(torch.cat([coarse, detail], 1)), coarse.shape[1])

    @property
    def covariance(self) -> Complex128[Tensor, "*sites channels channels"]:
        """Of coarse field and detail at each wavenumber."""
        return torch.view_as_complex(self.parts.double())

    def solve(self, detail: Tensor, coarse: Tensor) -> None:
        """Take the covariance of samples.

        Raises:
            DataError: If there are too few samples for it to have full rank.
        """
        self.parts = _measured(torch.cat([coarse, detail], 1))
        self._condition()

    def draw(self, coarse: Tensor, *, generator: torch.Generator) -> Draw:
        """One detail for each coarse field, and its log density."""
        noise = self.noise.sample(len(coarse), generator=generator)
        value = filtered(self.gain, coarse) + noise
        return Draw(value.to(coarse.dtype), self.noise.log_prob(noise))

    def log_prob(self, detail: Tensor, coarse: Tensor) -> Tensor:
        """Log density of each detail given its coarse field, in nats."""
        return self.noise.log_prob(detail.double() - filtered(self.gain, coarse))

    def _condition(self) -> None:
        c = self.channels
        joint = self.covariance
        self.top = SpectralGaussian(joint[..., :c, :c])
        self.gain = torch.linalg.solve(joint[..., :c, :c], joint[..., :c, c:]).mH
        noise = joint[..., c:, c:] - self.gain @ joint[..., :c, c:]
        self.noise = SpectralGaussian((noise + noise.mH) / 2)


class GaussianTop(CascadeConditional):
    """The law of the coarsest field of a Gaussian cascade.

    Args:
        covariance: Of its channels at each wavenumber.

    Example:
        >>> top = GaussianTop(torch.ones(2, 2, 1, 1, dtype=torch.complex128))
        >>> top.draw(torch.empty(3, 0), generator=torch.Generator().manual_seed(0)).value.shape
        torch.Size([3, 1, 2, 2])
    """

    closed_form = True
    parts: Tensor

    def __init__(self, covariance: Complex128[Tensor, "*sites channel channel"]) -> None:
        super().__init__()
        self.register_buffer("parts", _real(covariance))
        self.register_load_state_dict_post_hook(_conditioned)
        self._condition()

    @classmethod
    def unfitted(cls, channels: int, shape: tuple[int, ...]) -> "GaussianTop":
        """White noise."""
        return cls(_white(channels, shape))

    @property
    def covariance(self) -> Complex128[Tensor, "*sites channel channel"]:
        """Of the channels at each wavenumber."""
        return torch.view_as_complex(self.parts.double())

    def solve(self, detail: Tensor, coarse: Tensor) -> None:
        """Take the covariance of samples; there is no coarse field.

        Raises:
            DataError: If there are too few samples for it to have full rank.
        """
        self.parts = _measured(detail)
        self._condition()

    def draw(self, coarse: Tensor, *, generator: torch.Generator) -> Draw:
        """As many fields as ``coarse`` has rows, and their log density."""
        value = self.law.sample(len(coarse), generator=generator)
        return Draw(value, self.law.log_prob(value))

    def log_prob(self, detail: Tensor, coarse: Tensor) -> Tensor:
        """Nats of each field."""
        return self.law.log_prob(detail)

    def _condition(self) -> None:
        self.law = SpectralGaussian(self.covariance)


def _measured(x: Tensor) -> Tensor:
    covariance = spectral_covariance(x)
    require_alive(torch.linalg.eigvalsh(covariance), x.dtype)
    return _real(covariance)


def _real(covariance: Tensor) -> Tensor:
    return torch.view_as_real(covariance.resolve_conj()).contiguous()


def _white(channels: int, shape: tuple[int, ...]) -> Tensor:
    return torch.eye(channels, dtype=torch.complex128).expand(*shape, channels, channels).clone()


def _conditioned(part: Any, _: Any) -> None:
    """After a covariance was read from a file: what follows from it."""
    part._condition()
