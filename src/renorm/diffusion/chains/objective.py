"""The loss of chains of different lengths, each at a scale of its own, in batches of chains that are alike."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from renorm.bases import basis_for
from renorm.diffusion.chains.denoiser import Told, answer
from renorm.diffusion.chains.flow import Coefficients, coefficients, schedule_of
from renorm.diffusion.chains.profile import spectrum_of
from renorm.diffusion.chains.spec import ChainSpec
from renorm.diffusion.spacing import Spacing
from renorm.errors import DataError
from renorm.lattice import Lattice
from renorm.nn.chain import LETTERS

__all__ = ["ChainLoss", "TrainingChain", "modes_of"]

ALIKE, ALIKE_ON_GPU = 0.7, 0.2
"""Chains go through the network together if the shortest has this share of the longest's points: a CPU waits for
arithmetic, which padding wastes; a GPU for launches."""


@dataclass(frozen=True, eq=False)
class TrainingChain:
    """A chain to learn from.

    Attributes:
        x: Where its residues are, in angstrom; none is missing.
        letters: Kinds of its residues.
        features: Further features of them, where the network has some; may be kept in half precision.

    Raises:
        DataError: If letters or features are not one for each residue.
    """

    x: Float[Tensor, "3 sites"]
    letters: Int64[Tensor, " letters"]
    features: Float[Tensor, "rows feature"] | None = None

    def __post_init__(self) -> None:
        sites = self.x.shape[1]
        for what, value in (("letters", self.letters), ("features", self.features)):
            if value is not None and len(value) != sites:
                raise DataError(f"{what} must be one for each of the {sites} residues, got {len(value)}")


class ChainLoss:
    r"""Mean square error of the network's answer, over the modes that move, chain by chain.

    $$ \mathcal L = \Big\langle \frac{1}{3 n_t} \sum_{k\,\mathrm{moves}}
       \Big| f_k - \frac{\phi_{0k} - c_\mathrm{skip}\phi_k}{c_\mathrm{out}} \Big|^2 \Big\rangle $$

    Every chain counts alike, whatever its length and however few of its modes move. A network that is silent has the
    loss 1 on chains that are Gaussian and of the prior's spectrum.

    Args:
        chains: To learn from.
        spec: The flow, and how many chains keep their sequence to themselves; their features are 0.
        training: How scales are drawn, for chains of a spectrum.
        profile: Of the spectrum of chains, see ``measure_profile``; the prior's if not given.
    """

    def __init__(
        self,
        chains: Sequence[TrainingChain],
        spec: ChainSpec,
        training: Callable[[Tensor], Spacing],
        profile: Float[Tensor, " bins"] | None = None,
    ) -> None:
        self.chains, self.spec = chains, spec
        self.schedules = [schedule_of(spec, chain.x.shape[1]) for chain in chains]
        self.modes = [modes_of(chain.x) for chain in chains]
        known = profile if spec.spectrum == "measured" else None
        self.spectra: dict[int, Tensor | None] = {}
        self.training: dict[int, Spacing] = {}
        for schedule in dict.fromkeys(self.schedules):  # one for each length
            n = len(schedule.prior_spectrum)
            self.spectra[n] = spectrum = None if known is None else spectrum_of(known, n, spec.mass)
            self.training[n] = training(schedule.prior_spectrum if spectrum is None else spectrum)

    def __call__(self, network: nn.Module, index: Int64[Tensor, " batch"], generator: torch.Generator) -> Tensor:
        """The loss of some chains, at scales and with noise from a generator."""
        device = generator.device
        which = index.tolist()
        draw = torch.rand(2, len(which), generator=generator, device=device, dtype=torch.float64).cpu()
        strata = (torch.arange(len(which)) + draw[0]) / len(which)  # even over the scales in every batch
        longest = max(self.modes[i].shape[1] for i in which)
        noise = torch.randn(len(which), 3, longest, generator=generator, device=device)
        times = [self._time(i, u) for i, u in zip(which, strata, strict=True)]
        here = coefficients([self.schedules[i] for i in which], times, self._spectra(which))
        clean = torch.nn.utils.rnn.pad_sequence([self.modes[i].T for i in which], batch_first=True).mT.to(device)
        told = self._told(which, draw[1] < self.spec.unnamed, longest, device)
        t = torch.tensor(times, device=device)
        groups = _alike(here.number, ALIKE if device.type == "cpu" else ALIKE_ON_GPU)
        return self._loss(network, clean, noise, t, here.to(clean), told, groups) / len(which)

    def _time(self, i: int, u: Tensor) -> float:
        """The scale below which training spends a share u on chains of this length."""
        return self.training[self.modes[i].shape[1]].quantile(u[None], self.schedules[i]).item()

    def _spectra(self, which: list[int]) -> list[Tensor] | None:
        found = [self.spectra[self.modes[i].shape[1]] for i in which]
        return [spectrum for spectrum in found if spectrum is not None] or None

    def _told(self, which: list[int], silent: Tensor, longest: int, device: torch.device) -> Told:
        letters = torch.full((len(which), longest), LETTERS)
        for row, i in enumerate(which):
            if not silent[row]:
                letters[row, : len(self.chains[i].letters)] = self.chains[i].letters
        parts = [self.chains[i].features for i in which]
        if any(part is None for part in parts):
            return letters.to(device), None
        padded = torch.nn.utils.rnn.pad_sequence([part for part in parts if part is not None], batch_first=True)
        padded = padded * ~silent[:, None, None]  # they would tell the sequence
        return letters.to(device), padded.to(device, torch.float32)

    def _loss(
        self,
        network: nn.Module,
        clean: Tensor,
        noise: Tensor,
        t: Tensor,
        here: Coefficients,
        told: Told,
        groups: Sequence[Tensor],
    ) -> Tensor:
        """Sum over the chains, which go through the network in groups of about as many points."""
        total = clean.new_zeros(())
        for rows in groups:
            rows = rows.to(clean.device)
            part = here.rows(rows)
            length = int(part.sites.max())
            x, z = clean[rows, :, :length], noise[rows, :, :length]
            part = Coefficients(*(value[:, :length] if value.ndim == 2 else value for value in part))
            phi = part.alive[:, None] * (part.alpha[:, None] * x + part.sigma[:, None] * z)
            moves = part.out > 0
            inverse = torch.where(moves, 1 / torch.where(moves, part.out, 1.0), 0.0)
            target = inverse[:, None] * (x - part.skip[:, None] * phi)
            some: Told = tuple(None if value is None else value[rows, :length] for value in told)  # type: ignore[assignment]
            f = answer(network, phi, t[rows], part, some)
            error = (moves[:, None] * (f - target)).square().sum((1, 2)) / (3 * moves.sum(1).clamp(min=1))
            total = total + error.sum()
        return total


def modes_of(x: Float[Tensor, "3 sites"]) -> Float[Tensor, "3 modes"]:
    """Modes of a chain, about its centre."""
    x = x.double() - x.double().mean(1, keepdim=True)
    return basis_for(Lattice((x.shape[1],), channels=3)).forward(x).float()


def _alike(count: Int64[Tensor, " batch"], share: float) -> list[Tensor]:
    """Rows in groups, none padded by much: the fewest points are at least a share of the most."""
    order = count.argsort(descending=True)
    groups: list[list[int]] = []
    for row in order.tolist():
        if groups and int(count[row]) >= share * int(count[groups[-1][0]]):
            groups[-1].append(row)
        else:
            groups.append([row])
    return [torch.tensor(group) for group in groups]
