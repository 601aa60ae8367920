"""A mode diffusion as the conditional of a cascade: the detail is denoised with the coarse field beside it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from renorm.cascade.conditional import CascadeConditional, Draw
from renorm.coarse.base import CoarseGraining
from renorm.diffusion.denoiser import NetworkDenoiser
from renorm.diffusion.mode_diffusion import ModeDiffusion
from renorm.diffusion.moments import Moments
from renorm.diffusion.objective import denoising_loss
from renorm.diffusion.spec import DiffusionSpec
from renorm.errors import DataError, NoLikelihoodError, RecipeError
from renorm.fit.gradient import fit
from renorm.fit.spec import FitSpec
from renorm.lattice import Lattice
from renorm.model import Grade
from renorm.nn.unet import UNet

__all__ = ["DiffusionConditional"]

ROWS = 256  # details that walk together


class _Beside(nn.Module):
    """A network of details that also sees the coarse field, put there before it is called."""

    def __init__(self, network: nn.Module, details: int) -> None:
        super().__init__()
        self.network, self.details = network, details
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
        return self.network(torch.cat([x, self.coarse.to(x)], 1), t)[:, : self.details]  # type: ignore[no-any-return]


class DiffusionConditional(CascadeConditional):
    r"""Details drawn by a reverse diffusion that is shown the coarse field.

    $$ y_t = \alpha_t y + \sigma_t z, \qquad E[y \mid y_t, c] \approx f_\theta(y_t, t, c / s_c) $$

    It can be sampled and has no density: a cascade that holds one has the grade ``NONE``.

    Args:
        step: The coarse-graining step, whose details have a site for each coarse site (wavelets, majorities).
        lattice: Of the fine field.
        spec: Of the diffusion; its network is made for details and coarse field together.
        seed: Of the network's first weights.

    Raises:
        RecipeError: If the details do not live on the coarse lattice, or the network's stride does not divide it.

    Source:
        Guth, Coste, De Bortoli, Mallat 2022, arXiv:2208.05003 (score models of wavelets given the coarser scale).

    Example:
        >>> from renorm.coarse.wavelet import Wavelet
        >>> from renorm.nn.spec import UNetSpec
        >>> small = UNetSpec(width=8, multipliers=(1,), blocks=1, attention=(), middle_attention=False, groups=4)
        >>> spec = DiffusionSpec(network=small, steps=4)
        >>> law = DiffusionConditional(Wavelet(), Lattice((8, 8), boundary="periodic"), spec)
        >>> law.sample(torch.zeros(2, 1, 4, 4), generator=torch.Generator().manual_seed(0)).shape
        torch.Size([2, 3, 4, 4])
    """

    reparametrised = False
    grade = Grade.NONE
    scale: Tensor

    def __init__(self, step: CoarseGraining, lattice: Lattice, spec: DiffusionSpec, *, seed: int = 0) -> None:
        super().__init__()
        coarse = step.coarse_lattice(lattice)
        details, *sites = step.detail_shape(lattice)
        if tuple(sites) != coarse.shape:
            raise RecipeError(f"details must live on the coarse lattice {coarse.shape}, got {tuple(sites)}")
        if any(n % spec.network.stride for n in coarse.shape):
            raise RecipeError(
                f"the network's stride {spec.network.stride} must divide the coarse lattice, got {coarse.shape}; take "
                "fewer multipliers"
            )
        self.details = Lattice(coarse.shape, boundary=coarse.boundary, channels=details)
        unet = UNet(
            spec.network,
            dim=coarse.dim,
            channels=details + coarse.channels,
            boundary=coarse.boundary,
            generator=torch.Generator().manual_seed(seed),
        )
        self.network = _Beside(unet, details)
        ones = torch.ones(self.details.event_shape, dtype=torch.float64)
        self.register_buffer("mean", torch.zeros_like(ones))
        self.register_buffer("spectrum", ones)
        self.register_buffer("scale", torch.ones(()))
        self.diffusion = ModeDiffusion(spec, self.details, network=self.network, moments=self._moments)

    @property
    def _moments(self) -> Moments:
        return Moments(mean=self.mean, spectrum=self.spectrum)

    def fit(self, detail: Tensor, coarse: Tensor, spec: FitSpec, *, folder: Path | None = None) -> None:
        """Train on pairs, after their moments were measured.

        Raises:
            DataError: If details and coarse fields do not come in pairs.
        """
        if len(detail) != len(coarse):
            raise DataError(f"details and coarse fields come in pairs, got {len(detail)} and {len(coarse)}")
        from renorm.data.fields import Fields

        self.diffusion.measure(Fields(detail.float(), self.details))
        moments = self.diffusion.moments
        assert moments is not None
        self.mean, self.spectrum = moments.mean, moments.spectrum
        self.scale = coarse.square().mean().sqrt().float()
        denoiser = self.diffusion.denoiser
        assert isinstance(denoiser, NetworkDenoiser)

        def loss(network: nn.Module, index: Tensor, generator: torch.Generator) -> Tensor:
            u = torch.rand(len(index), generator=generator, dtype=torch.float64, device=generator.device)
            t = self.diffusion.training.quantile(u, self.diffusion.schedule)
            noise = torch.randn((len(index), *self.details.event_shape), generator=generator, device=generator.device)
            plain = NetworkDenoiser(network, self.diffusion.schedule, denoiser.prediction)
            inner: _Beside = network.module if hasattr(network, "module") else network  # type: ignore[assignment]
            with inner.seeing(coarse[index] / self.scale):
                return denoising_loss(plain, detail[index].float(), t, noise)

        def train(place: Path) -> None:
            result = fit(self.network, loss, len(detail), spec, place, progress=False)
            self.network.load_state_dict(result.ema.state_dict())
            self.network.eval()

        if folder is not None:
            return train(folder)
        with TemporaryDirectory() as temporary:
            return train(Path(temporary))

    def draw(self, coarse: Tensor, *, generator: torch.Generator) -> Draw:
        """One detail for each coarse field; its density is not known (nan)."""
        drawn = []
        for part in coarse.split(ROWS):
            with self.network.seeing(part / self.scale):
                drawn.append(self.diffusion.sample(len(part), generator=generator, batch=len(part)))
        value = torch.cat(drawn).to(coarse)
        return Draw(value, torch.full((len(value),), torch.nan, dtype=value.dtype, device=value.device))

    def log_prob(self, detail: Tensor, coarse: Tensor) -> Tensor:
        """Refused.

        Raises:
            NoLikelihoodError: Always.
        """
        raise NoLikelihoodError(
            "a diffusion as a conditional has no density; sample it, or take another conditional for likelihoods"
        )
