"""What a network is trained on: the square error of its target, scale by scale."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor, nn

from renorm.bases.corner import Corner
from renorm.data.fields import Fields
from renorm.diffusion.denoiser import NetworkDenoiser
from renorm.diffusion.spacing import Spacing, cdf
from renorm.fit.randomness import seed_of

__all__ = ["DenoisingLoss", "Stratum", "denoising_loss", "strata"]

UNNAMED = 0.1  # share of the training fields whose class is not told: they teach what ``condition=None`` means


class Stratum(NamedTuple):
    """Fields of a batch that the network sees on one lattice.

    Attributes:
        lattice: It.
        number: How many.
        share: Of all scales in training, as (from, to) of their quantile function.
    """

    lattice: Corner
    number: int
    share: tuple[float, float]

    @property
    def mass(self) -> float:
        """Share of all scales."""
        return self.share[1] - self.share[0]


def strata(denoiser: NetworkDenoiser, training: Spacing, batch: int) -> list[Stratum]:
    r"""How many fields of a batch are shown on each lattice, smallest lattice first.

    With c the cost of a field and s the spread of its gradient, most is learned for a given work from numbers
    proportional to $m\,s/\sqrt c$, m being the share of scales. Both c and $s^2$ grow with the modes that are shown, so
    the numbers are as the scales are drawn, $m$ of the batch, none below 1 (Neyman's allocation); they are the same at
    every step.

    Args:
        denoiser: Its lattices and where each is left.
        training: How scales are drawn.
        batch: Fields of a step.
    """
    edges = [1.0] + [cdf(training, denoiser.schedule, min(max(t, 0.0), 1.0)) for t in denoiser.opens[:-1]] + [0.0]
    shown = [
        (lattice, low, high)
        for lattice, high, low in zip(denoiser.lattices, edges[:-1], edges[1:], strict=True)
        if high > low
    ]
    number = [max(1, round(batch * (high - low))) for _, low, high in shown]
    while len(shown) > 1 and sum(number) > batch and max(number) > 1:
        number[number.index(max(number))] -= 1
    number[-1] += batch - sum(number)
    if min(number) < 1:  # fewer fields than lattices: all on the whole one, which carries every scale
        return [Stratum(denoiser.lattices[-1], batch, (0.0, 1.0))]
    return [Stratum(lattice, n, (low, high)) for (lattice, low, high), n in zip(shown, number, strict=True)]


def denoising_loss(
    denoiser: NetworkDenoiser,
    x: Float[Tensor, "batch channel *sites"],
    t: Float[Tensor, " batch"],
    noise: Float[Tensor, "batch channel *modes"],
    condition: Int[Tensor, " batch"] | None = None,
    lattice: Corner | None = None,
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
        lattice: Where the network sees the fields; the smallest that carries all of them if not given.

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
    return (active * (denoiser.raw(modes, t, condition, here, lattice) - target)).square().mean()


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
        self._known: dict[int, list[Stratum]] = {}

    def draw(self, index: Int64[Tensor, " batch"], generator: torch.Generator) -> tuple[Tensor, ...]:
        """Clean fields, scales and noise, and classes where the model knows them, on the generator's device."""
        device = generator.device
        mirror = torch.Generator().manual_seed(seed_of(generator.initial_seed(), "flip")) if self.flip else None
        x = self.fields.batch(index, flip_generator=mirror).to(device, non_blocking=True)
        u = torch.rand(len(x), generator=generator, device=device, dtype=torch.float64)
        noise = torch.randn(x.shape, generator=generator, device=device)
        shown = self._strata(len(x))
        low, width = (
            torch.cat([u.new_full((s.number,), v) for s, v in zip(shown, values, strict=True)])
            for values in ([s.share[0] for s in shown], [s.mass for s in shown])
        )
        t = self.training.quantile(low + width * u, self.schedule)
        if self.labels is None:
            return x, t, noise
        unnamed = torch.rand(len(x), generator=generator, device=device) < UNNAMED
        return x, t, noise, self.labels[index].to(device).masked_fill(unnamed, self.num_classes)

    def __call__(self, network: nn.Module, *shown: Tensor) -> Float[Tensor, ""]:
        """``denoising_loss`` of a network."""
        self.denoiser = self.denoiser.to(shown[0].device)
        denoiser = self.denoiser.with_network(network)
        number, total, first = len(shown[0]), shown[0].new_zeros(()), 0
        for stratum in self._strata(number):
            rows = slice(first, first + stratum.number)
            x, t, noise, *condition = (part[rows] for part in shown)
            here = denoising_loss(denoiser, x, t, noise, *(condition or [None]), lattice=stratum.lattice)
            total = total + stratum.mass * here
            first = rows.stop
        return total

    def _strata(self, batch: int) -> Sequence[Stratum]:
        if batch not in self._known:
            self._known[batch] = strata(self.denoiser, self.training, batch)
        return self._known[batch]
