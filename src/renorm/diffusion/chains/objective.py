"""The loss of chains of different lengths, each at a scale of its own, in batches of chains that are alike."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from renorm.bases import basis_for
from renorm.diffusion.chains.denoiser import Coarse, answer
from renorm.diffusion.chains.flow import coefficients, schedule_of
from renorm.diffusion.chains.profile import spectrum_of
from renorm.diffusion.chains.spec import ChainSpec
from renorm.diffusion.spacing import Spacing
from renorm.errors import DataError
from renorm.lattice import Lattice
from renorm.nn.chain import LETTERS

__all__ = ["ChainLoss", "TrainingChain", "modes_of"]

ALIKE = 0.7  # on a CPU chains go through the network together if the shortest has this share of the longest's points


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


class _Shown(NamedTuple):
    """A batch of chains as a network learns them, padded."""

    phi: Tensor
    target: Tensor
    weight: Tensor  # of each mode in the mean square
    t: Tensor
    alive: Tensor
    number: Tensor  # of points
    sites: Tensor
    letters: Tensor
    features: Tensor | None = None

    def rows(self, index: Tensor) -> "_Shown":
        """Some of the chains, without what pads all of them."""
        length = int(self.sites[index].max())
        return _Shown(
            phi=self.phi[index, :, :length],
            target=self.target[index, :, :length],
            weight=self.weight[index, :length],
            t=self.t[index],
            alive=self.alive[index, :length],
            number=self.number[index],
            sites=self.sites[index],
            letters=self.letters[index, :length],
            features=None if self.features is None else self.features[index, :length],
        )


class ChainLoss:
    r"""Mean square error of the network's answer, over the modes that move, chain by chain.

    $$ \mathcal L = \Big\langle \frac{1}{3 n_t} \sum_{k\,\mathrm{moves}}
       \Big| f_k - \frac{\phi_{0k} - c_\mathrm{skip}\phi_k}{c_\mathrm{out}} \Big|^2 \Big\rangle $$

    in the two parts of ``renorm.fit.gradient.SplitLoss``. Every chain counts alike, whatever its length and however few
    of its modes move. A network that is silent has the loss 1 on chains that are Gaussian and of the prior's spectrum.

    On a GPU all chains are padded to the longest there is, so that every step is alike; on a CPU, to the longest of a
    few.

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
        self.longest = max((modes.shape[1] for modes in self.modes), default=0)
        known = profile if spec.spectrum == "measured" else None
        self.spectra: dict[int, Tensor | None] = {}
        self.training: dict[int, Spacing] = {}
        for schedule in dict.fromkeys(self.schedules):  # one for each length
            n = len(schedule.prior_spectrum)
            self.spectra[n] = spectrum = None if known is None else spectrum_of(known, n, spec.mass)
            self.training[n] = training(schedule.prior_spectrum if spectrum is None else spectrum)

    def draw(self, index: Int64[Tensor, " batch"], generator: torch.Generator) -> tuple[Tensor, ...]:
        """Some chains at scales, and with noise, from a generator, on its device; and what the network is to answer."""
        device = generator.device
        which = index.tolist()
        draw = torch.rand(2, len(which), generator=generator, device=device, dtype=torch.float64).cpu()
        strata = (torch.arange(len(which)) + draw[0]) / len(which)  # even over the scales in every batch
        longest = self.longest if device.type == "cuda" else max(self.modes[i].shape[1] for i in which)
        noise = torch.randn(len(which), 3, longest, generator=generator, device=device)
        times = [self._time(i, u) for i, u in zip(which, strata, strict=True)]
        here = coefficients([self.schedules[i] for i in which], times, self._spectra(which), length=longest).to(noise)
        clean = torch.stack([F.pad(self.modes[i], (0, longest - self.modes[i].shape[1])) for i in which]).to(device)
        phi = here.alive[:, None] * (here.alpha[:, None] * clean + here.sigma[:, None] * noise)
        moves = here.out > 0
        inverse = torch.where(moves, 1 / torch.where(moves, here.out, 1.0), 0.0)
        target = inverse[:, None] * (clean - here.skip[:, None] * phi)
        weight = moves / (3 * moves.sum(1, keepdim=True).clamp(min=1))
        t = torch.tensor(times, dtype=torch.float32).to(device)
        letters, features = self._told(which, draw[1] < self.spec.unnamed, longest, device)
        shown = _Shown(phi, target, weight, t, here.alive, here.number, here.sites, letters, features)
        return tuple(x for x in shown if x is not None)

    def __call__(self, network: nn.Module, *shown: Tensor) -> Float[Tensor, ""]:
        """The loss of what was drawn."""
        batch = _Shown(*shown)
        if batch.phi.device.type == "cuda":
            return _errors(network, batch, batch.phi.shape[2]).mean()
        total = batch.phi.new_zeros(())
        for rows in _alike(batch.number):
            part = batch.rows(rows)
            total = total + _errors(network, part, int(part.number.max())).sum()
        return total / len(batch.t)

    def _time(self, i: int, u: Tensor) -> float:
        """The scale below which training spends a share u on chains of this length."""
        return self.training[self.modes[i].shape[1]].quantile(u[None], self.schedules[i]).item()

    def _spectra(self, which: list[int]) -> list[Tensor] | None:
        found = [self.spectra[self.modes[i].shape[1]] for i in which]
        return [spectrum for spectrum in found if spectrum is not None] or None

    def _told(
        self, which: list[int], silent: Tensor, longest: int, device: torch.device
    ) -> tuple[Tensor, Tensor | None]:
        letters = torch.full((len(which), longest), LETTERS)
        for row, i in enumerate(which):
            if not silent[row]:
                letters[row, : len(self.chains[i].letters)] = self.chains[i].letters
        parts = [self.chains[i].features for i in which]
        if any(part is None for part in parts):
            return letters.to(device), None
        padded = torch.nn.utils.rnn.pad_sequence([part for part in parts if part is not None], batch_first=True)
        padded = padded * ~silent[:, None, None]  # they would tell the sequence
        padded = F.pad(padded, (0, 0, 0, longest - padded.shape[1]))
        return letters.to(device), padded.to(device, torch.float32)


def _errors(network: nn.Module, batch: _Shown, points: int) -> Float[Tensor, " batch"]:
    """Mean square error of each chain over the modes that move."""
    coarse = Coarse(batch.alive, batch.number, batch.sites)
    f = answer(network, batch.phi, batch.t, coarse, (batch.letters, batch.features), points=points)
    return (batch.weight[:, None] * (f - batch.target).square()).sum((1, 2))


def modes_of(x: Float[Tensor, "3 sites"]) -> Float[Tensor, "3 modes"]:
    """Modes of a chain, about its centre."""
    x = x.double() - x.double().mean(1, keepdim=True)
    return basis_for(Lattice((x.shape[1],), channels=3)).forward(x).float()


def _alike(count: Int64[Tensor, " batch"]) -> list[Tensor]:
    """Rows in groups, none padded by much."""
    order = count.argsort(descending=True)
    groups: list[list[int]] = []
    for row in order.tolist():
        if groups and int(count[row]) >= ALIKE * int(count[groups[-1][0]]):
            groups[-1].append(row)
        else:
            groups.append([row])
    return [torch.tensor(group) for group in groups]
