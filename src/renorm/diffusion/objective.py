"""What a network is trained on: the square error of its target, scale by scale."""

import os
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor, nn

from renorm.bases.corner import Corner
from renorm.data.fields import Fields
from renorm.diffusion.denoiser import NetworkDenoiser
from renorm.diffusion.nested import NestedDenoiser
from renorm.diffusion.spacing import Spacing, cdf
from renorm.errors import RecipeError
from renorm.fit.randomness import seed_of

__all__ = ["DenoisingLoss", "Stratum", "denoising_loss", "denoising_loss_of_modes", "strata"]

UNNAMED = 0.1  # share of the training fields whose class is not told: they teach what ``condition=None`` means


class Stratum(NamedTuple):
    """The scales that are learned on one lattice.

    Attributes:
        denoiser: Of that lattice.
        sites: On which the network works.
        low, high: Of all scales in training, as shares of their law.
        probability: That a step has this lattice.
        weight: Of its loss, which is a mean over its own modes: so that all steps together weigh every scale, and every
            mode, as the whole lattice alone would.
    """

    denoiser: NetworkDenoiser
    sites: int
    low: float
    high: float
    probability: float
    weight: float = 1.0


def strata(denoiser: NetworkDenoiser | NestedDenoiser, training: Spacing) -> list[Stratum]:
    r"""Which scales are learned on which lattice, and how often, smallest lattice first.

    A step on v sites costs as many, so of steps whose gradients are as noisy, the mean of all is known best for a given
    time where the lattice of a share m of all scales has

    $$ p \propto m / \sqrt{v} $$

    of them (Neyman's allocation at unequal costs); their loss is weighted back by m / p. Lattices on which nothing is
    learned are left out.

    Args:
        denoiser: Its lattices, and where each is left.
        training: How scales are drawn.

    Source:
        Neyman 1934, J. R. Stat. Soc. 97, 558; with costs Cochran, Sampling Techniques, section 5.5.
    """
    if isinstance(denoiser, NetworkDenoiser):
        return [Stratum(denoiser, denoiser.schedule.lattice.sites, 0.0, 1.0, 1.0)]
    left = [cdf(training, denoiser.schedule, min(max(nest.opens, 0.0), 1.0)) for nest in denoiser.nests[:-1]]
    found = [
        (nest, low, high)
        for nest, low, high in zip(denoiser.nests, [*left, 0.0], [1.0, *left], strict=True)
        if high > low
    ]
    shares = [(high - low) * nest.sites**-0.5 for nest, low, high in found]
    return [
        Stratum(
            nest.denoiser,
            nest.sites,
            low,
            high,
            share / sum(shares),
            (high - low) * sum(shares) / share * nest.corner.small.sites / denoiser.schedule.lattice.sites,
        )
        for (nest, low, high), share in zip(found, shares, strict=True)
    ]


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
    return denoising_loss_of_modes(denoiser, denoiser.basis.forward(x), t, noise, condition)


def denoising_loss_of_modes(
    denoiser: NetworkDenoiser,
    clean: Float[Tensor, "batch channel *modes"],
    t: Float[Tensor, " batch"],
    noise: Float[Tensor, "batch channel *modes"],
    condition: Int[Tensor, " batch"] | None = None,
) -> Float[Tensor, ""]:
    """``denoising_loss`` of fields that are given by their modes."""
    schedule, here = denoiser.schedule, denoiser.at(t, clean)
    alpha, sigma = (amplitude.unsqueeze(1).to(clean) for amplitude in (schedule.alpha(t), schedule.sigma(t)))
    modes = here.alive * (alpha * clean + sigma * noise)
    active = schedule.active(t).unsqueeze(1).to(clean.device) & (here.out != 0)
    inverse = torch.where(active, 1 / torch.where(active, here.out, 1.0), 0.0)
    target = inverse * (clean - here.mean - here.skip * (modes - here.shift))
    return (active * (denoiser.raw(modes, t, condition, here) - target)).square().mean()


class DenoisingLoss:
    r"""The loss of fields by their indices, in the two parts of ``renorm.fit.gradient.SplitLoss``.

    On nested lattices each step has one of them, the whole batch, see ``strata``. Fields are given as modes, on a
    small lattice those that it carries, and the mean is over these.

    Args:
        denoiser: Its schedule and prediction; networks come with each call.
        fields: To learn from.
        training: How scales are drawn.
        num_classes: Of the model; 0: fields are shown without their class.
        flip: Whether half of the fields are mirrored along their last axis.
    """

    def __init__(
        self,
        denoiser: NetworkDenoiser | NestedDenoiser,
        fields: Fields,
        training: Spacing,
        *,
        num_classes: int = 0,
        flip: bool = False,
    ) -> None:
        self.schedule, self.basis = denoiser.schedule, denoiser.basis
        self.fields, self.training = fields, training
        self.labels = fields.labels if num_classes else None
        self.num_classes, self.flip = num_classes, flip
        self.strata = strata(denoiser, training)
        if len(self.strata) > 1 and int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise RecipeError(
                "model.lattices = 'nested' and 'folded' are for one process (each would draw a lattice of its own, and "
                f"all wait for the largest), got {os.environ['WORLD_SIZE']}; take 'whole'"
            )
        self._denoisers = {stratum.sites: stratum.denoiser for stratum in self.strata}  # they move to the device
        self._weights = {stratum.sites: stratum.weight for stratum in self.strata}

    def draw(self, index: Int64[Tensor, " batch"], generator: torch.Generator) -> tuple[Tensor, ...]:
        """Modes of clean fields, scales, noise, and classes where the model knows them, on the generator's device."""
        device, seed = generator.device, generator.initial_seed()
        mirror = torch.Generator().manual_seed(seed_of(seed, "flip")) if self.flip else None
        x = self.fields.batch(index, flip_generator=mirror).to(device, non_blocking=True)
        stratum = self._stratum(seed)
        corner = Corner(self.schedule.lattice, stratum.denoiser.schedule.lattice.shape)
        clean = corner.down(self.basis.forward(x))
        u = torch.rand(len(x), generator=generator, device=device, dtype=torch.float64)
        noise = torch.randn(clean.shape, generator=generator, device=device)
        t = self.training.quantile(stratum.low + (stratum.high - stratum.low) * u, self.schedule)
        which = t.new_empty(stratum.sites, 0)  # its shape names the lattice, which so is known before any value
        if self.labels is None:
            return which, clean, t, noise
        unnamed = torch.rand(len(x), generator=generator, device=device) < UNNAMED
        return which, clean, t, noise, self.labels[index].to(device).masked_fill(unnamed, self.num_classes)

    def __call__(self, network: nn.Module, *shown: Tensor) -> Float[Tensor, ""]:
        """``denoising_loss`` of a network."""
        which, clean, t, noise, *condition = shown
        sites = len(which)
        denoiser = self._denoisers[sites] = self._denoisers[sites].to(clean.device)
        loss = denoising_loss_of_modes(denoiser.with_network(network), clean, t, noise, *condition)
        return loss if len(self.strata) == 1 else self._weights[sites] * loss

    def _stratum(self, seed: int) -> Stratum:
        """The lattice of a step."""
        u = torch.rand((), generator=torch.Generator().manual_seed(seed_of(seed, "lattice")), dtype=torch.float64)
        for stratum in self.strata:
            u -= stratum.probability
            if u < 0:
                break
        return stratum
