"""What a network is trained on: the square error of its target, scale by scale."""

import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor, nn

from renorm.data.fields import Fields
from renorm.diffusion.denoiser import NetworkDenoiser
from renorm.diffusion.spacing import Spacing
from renorm.fit.randomness import seed_of

__all__ = ["DenoisingLoss", "denoising_loss"]

UNNAMED = 0.1  # share of the training fields whose class is not told: they teach what ``condition=None`` means


def denoising_loss(
    denoiser: NetworkDenoiser,
    x: Float[Tensor, "batch channel *sites"],
    t: Float[Tensor, " batch"],
    noise: Float[Tensor, "batch channel *modes"],
    condition: Int[Tensor, " batch"] | None = None,
) -> Float[Tensor, ""]:
    r"""Mean square error of the network's output against its target, over all modes (those not active count zero).

    $$ \phi_t = C_t(\alpha U x + \sigma z), \qquad
       \mathcal L = \Big\langle \Big| A_t \Big[ f - \frac{U x - c_\mathrm{skip}\phi_t}{c_\mathrm{out}} \Big] \Big|^2
       \Big\rangle $$

    $A_t$ keeps the modes that are alive and not finished. With ``ColouredNoise`` the target is the paper's
    $w_t\sigma z$, and the loss of a network that outputs zero is the mean of the prior spectrum at every scale. The
    basis is orthonormal, so the mean over modes is the mean over sites.

    Args:
        denoiser: Network, schedule and prediction.
        x: Clean fields.
        t: One scale in [0, 1] for each field.
        noise: White noise in the space of modes.
        condition: Class of each field.

    Returns:
        The loss, dimensionless where the target is (preconditioned), else in field units squared.

    Source:
        Masuki & Ashida 2025, arXiv:2501.09064.
    """
    schedule, here = denoiser.schedule, denoiser.at(t, x)
    alpha, sigma = (amplitude.unsqueeze(1).to(x) for amplitude in (schedule.alpha(t), schedule.sigma(t)))
    clean = denoiser.basis.forward(x)
    modes = here.alive * (alpha * clean + sigma * noise)
    active = schedule.active(t).unsqueeze(1).to(x.device) & (here.out != 0)
    inverse = torch.where(active, 1 / torch.where(active, here.out, 1.0), 0.0)
    target = inverse * (clean - here.mean - here.skip * (modes - here.shift))
    return (active * (denoiser.raw(modes, t, condition, here) - target)).square().mean()


class DenoisingLoss:
    """The loss of fields by their indices, in the two parts of ``renorm.fit.gradient.SplitLoss``.

    Args:
        denoiser: Its schedule and prediction; networks come with each call.
        fields: To learn from.
        training: How scales are drawn.
        num_classes: Of the model; 0: fields are shown without their class.
        flip: Whether half of the fields are mirrored along their last axis.
    """

    def __init__(
        self, denoiser: NetworkDenoiser, fields: Fields, training: Spacing, *, num_classes: int = 0, flip: bool = False
    ) -> None:
        self.denoiser, self.schedule = denoiser, denoiser.schedule  # the first moves to the device
        self.fields, self.training = fields, training
        self.labels = fields.labels if num_classes else None
        self.num_classes, self.flip = num_classes, flip

    def draw(self, index: Int64[Tensor, " batch"], generator: torch.Generator) -> tuple[Tensor, ...]:
        """Clean fields, scales and noise, and classes where the model knows them, on the generator's device."""
        device = generator.device
        mirror = torch.Generator().manual_seed(seed_of(generator.initial_seed(), "flip")) if self.flip else None
        x = self.fields.batch(index, flip_generator=mirror).to(device, non_blocking=True)
        u = torch.rand(len(x), generator=generator, device=device, dtype=torch.float64)
        noise = torch.randn(x.shape, generator=generator, device=device)
        t = self.training.quantile(u, self.schedule)
        if self.labels is None:
            return x, t, noise
        unnamed = torch.rand(len(x), generator=generator, device=device) < UNNAMED
        return x, t, noise, self.labels[index].to(device).masked_fill(unnamed, self.num_classes)

    def __call__(self, network: nn.Module, *shown: Tensor) -> Float[Tensor, ""]:
        """``denoising_loss`` of a network."""
        x, t, noise, *condition = shown
        self.denoiser = self.denoiser.to(t.device)
        return denoising_loss(self.denoiser.with_network(network), x, t, noise, *condition)
