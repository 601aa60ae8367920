"""What a network is trained on: the square error of its target, scale by scale."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from renorm.diffusion.denoiser import NetworkDenoiser

__all__ = ["denoising_loss"]


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
