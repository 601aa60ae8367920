"""A mode diffusion as the conditional of a cascade: details are denoised with the coarse field beside them.

It lives here, since only recipes know both wings; ``MAKERS`` brings it to ``Cascade.of`` and ``Cascade.load``.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from renorm.cascade.build import Maker
from renorm.cascade.conditional import CascadeConditional, Draw
from renorm.cascade.conditionals.standardised import columns, units_of
from renorm.cascade.spec import CascadeSpec, DiffusionPartSpec
from renorm.coarse.base import CoarseGraining
from renorm.data.fields import Fields
from renorm.diffusion.denoiser import NetworkDenoiser
from renorm.diffusion.mode_diffusion import ModeDiffusion
from renorm.diffusion.moments import Moments, measure_moments
from renorm.diffusion.objective import denoising_loss
from renorm.diffusion.spec import DiffusionSpec
from renorm.errors import NoLikelihoodError, RecipeError
from renorm.lattice import Lattice
from renorm.model import Grade
from renorm.nn.spec import UNetSpec
from renorm.nn.unet import UNet

__all__ = ["MAKERS", "DiffusionConditional"]

ROWS = 256  # details that walk together
TOGETHER = 4  # channels that a group norm takes together, or more: one alone would lose its mean on few sites


class _Beside(nn.Module):
    """A network of details that is also shown the coarse field, which is put there before it is called."""

    def __init__(self, network: nn.Module, *, symmetric: bool) -> None:
        super().__init__()
        self.network, self.symmetric = network, symmetric
        self.coarse: Tensor | None = None

    @contextmanager
    def seeing(self, coarse: Tensor) -> Iterator[None]:
        """While this lasts, the network sees these coarse fields."""
        self.coarse = coarse
        try:
            yield
        finally:
            self.coarse = None

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        assert self.coarse is not None
        both = torch.cat([x, self.coarse.to(x)], 1)
        if not self.symmetric:
            return self.network(both, t)  # type: ignore[no-any-return]
        here, mirrored = self.network(torch.cat([both, -both]), torch.cat([t, t])).chunk(2)
        return (here - mirrored) / 2  # type: ignore[no-any-return]  # odd, so the law of the draws is symmetric


class DiffusionConditional(CascadeConditional):
    r"""Details drawn by a reverse diffusion that is shown the coarse field.

    $$ y_t = \alpha_t y + \sigma_t z, \qquad
       E[y \mid y_t, c] = \frac{\alpha P}{\alpha^2 P + \sigma^2}\,y_t
       + \frac{\sqrt P \sigma}{\sqrt{\alpha^2 P + \sigma^2}}\, f_\theta(y_t, c, t) $$

    Details and coarse fields are in units of their spread, channel by channel, and P is the variance of each mode of
    the details then; ``standardise`` measures both. Until it is trained, $f$ is next to nothing: the draws are Gaussian
    with the details' spread and spectrum, whatever the coarse field. It has no density: a cascade that holds one has
    the grade ``NONE``.

    Args:
        spec: Of the network and the walk.
        coarse: Where the coarse field lives, and each channel of the detail.
        details: Channels of the detail.
        symmetric: Whether draws are symmetric under a change of sign of details and coarse field, by an odd network.

    Source:
        Guth, Coste, De Bortoli & Mallat 2022, arXiv:2208.05003 (score models of wavelets given the coarser scale).

    Example:
        >>> at = Lattice((4, 4), boundary="periodic")
        >>> law = DiffusionConditional(DiffusionPartSpec(width=8, steps=4), at, 3)
        >>> law.sample(torch.zeros(2, 1, 4, 4), generator=torch.Generator().manual_seed(0)).shape
        torch.Size([2, 3, 4, 4])
    """

    reparametrised = False
    grade = Grade.NONE
    coarse_centre: Tensor
    coarse_spread: Tensor
    spread: Tensor
    mean: Tensor
    spectrum: Tensor

    def __init__(self, spec: DiffusionPartSpec, coarse: Lattice, details: int, *, symmetric: bool = True) -> None:
        super().__init__()
        self.at = Lattice(coarse.shape, coarse.boundary, details)
        unet = _unet_spec(spec, coarse.shape)
        channels = details + coarse.channels
        net = UNet(unet, dim=coarse.dim, channels=channels, boundary=coarse.boundary, out_channels=details)
        self.network = _Beside(net, symmetric=symmetric)
        self.spec = DiffusionSpec(
            schedule="white", prediction="preconditioned", subtract_mean=not symmetric, steps=spec.steps, network=unet
        )
        self.register_buffer("coarse_centre", torch.zeros(coarse.channels))
        self.register_buffer("coarse_spread", torch.ones(coarse.channels))
        self.register_buffer("spread", torch.ones(details))
        self.register_buffer("mean", torch.zeros(self.at.event_shape, dtype=torch.float64))
        self.register_buffer("spectrum", torch.ones(self.at.shape, dtype=torch.float64))
        self.register_load_state_dict_post_hook(_assembled)
        self._assemble()

    @torch.no_grad()
    def standardise(
        self, detail: Float[Tensor, "batch details *sites"], coarse: Float[Tensor, "batch channel *sites"]
    ) -> "DiffusionConditional":
        """Measure units, mean and spectrum on samples; a channel that never moves keeps its spread of 1."""
        symmetric = self.network.symmetric
        centre, spread = units_of(coarse, symmetric=symmetric)
        self.coarse_centre.copy_(centre)
        self.coarse_spread.copy_(spread)
        self.spread.copy_(units_of(detail, symmetric=symmetric)[1])
        fields = Fields((detail / columns(self.spread, detail)).float(), self.at)
        moments = measure_moments(fields, centred=not symmetric, isotropic=False)
        self.mean.copy_(moments.mean)
        self.spectrum.copy_(moments.spectrum)
        self._assemble()
        return self

    def loss(self, detail: Tensor, coarse: Tensor, *, generator: torch.Generator) -> Tensor:
        """The denoising loss, as a sum over the numbers of a detail; the same mean for each, and no likelihood."""
        denoiser = self.diffusion.denoiser
        assert isinstance(denoiser, NetworkDenoiser)
        u = torch.rand(len(detail), generator=generator, dtype=torch.float64)
        t = self.diffusion.training.quantile(u, self.diffusion.schedule)
        noise = torch.randn(detail.shape, generator=generator).to(detail)
        with self.network.seeing(self._seen(coarse)):
            mean = denoising_loss(denoiser, detail / columns(self.spread, detail), t, noise)
        return (mean * detail[0].numel()).expand(len(detail))

    @torch.no_grad()
    def draw(self, coarse: Tensor, *, generator: torch.Generator) -> Draw:
        """One detail for each coarse field; its log density is not known (nan)."""
        drawn = []
        for part in coarse.split(ROWS):
            with self.network.seeing(self._seen(part)):
                drawn.append(self.diffusion.sample(len(part), generator=generator, batch=len(part)))
        value = torch.cat(drawn).to(coarse)
        value = value * columns(self.spread, value)
        return Draw(value, value.new_full((len(value),), math.nan))

    def log_prob(self, detail: Tensor, coarse: Tensor) -> Tensor:
        """Refused.

        Raises:
            NoLikelihoodError: Always.
        """
        raise NoLikelihoodError(
            "a diffusion as a conditional has no density (grade 'none'); compare samples, or take another conditional"
        )

    def _seen(self, coarse: Tensor) -> Tensor:
        return (coarse - columns(self.coarse_centre, coarse)) / columns(self.coarse_spread, coarse)

    def _assemble(self) -> None:
        """Put the walk together around the moments, which come from samples or from a file."""
        moments = Moments(self.mean, self.spectrum)
        self.diffusion = ModeDiffusion(self.spec, self.at, network=self.network, moments=moments)


def _make(spec: CascadeSpec, step: CoarseGraining, lattice: Lattice) -> CascadeConditional:
    part = spec.conditional
    if not isinstance(part, DiffusionPartSpec):
        raise RecipeError(f"this maker is for conditionals of kind 'diffusion', got '{part.kind}'")
    coarse = step.coarse_lattice(lattice)
    return DiffusionConditional(part, coarse, step.detail_shape(lattice)[0], symmetric=spec.symmetric)


MAKERS: Mapping[str, Maker] = {"diffusion": _make}
"""For ``Cascade.of`` and ``Cascade.load``: conditionals that cascades do not know themselves, by kind."""


def _unet_spec(spec: DiffusionPartSpec, shape: tuple[int, ...]) -> UNetSpec:
    """The network for a lattice: as many levels as it can be halved for. No dropout, which would draw by itself."""
    levels = 1
    while levels < len(spec.multipliers) and all(n % 2**levels == 0 for n in shape):
        levels += 1
    return UNetSpec(
        width=spec.width,
        multipliers=spec.multipliers[:levels],
        blocks=spec.blocks,
        attention=(),
        middle_attention=False,
        dropout=0.0,
        groups=max(n for n in (1, 2, 4, 8) if n == 1 or (spec.width % n == 0 and spec.width >= n * TOGETHER)),
    )


def _assembled(part: Any, _: Any) -> None:
    """After moments were read from a file: the walk around them."""
    part._assemble()
