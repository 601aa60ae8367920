r"""A sampler that reads the spectrum of the field off the denoiser, shell by shell, and lets it run with the scale.

Of a Gaussian field of spectrum P the denoiser returns a fixed share of every mode, $\alpha x_0 = g\,\phi$ with
$g/(1 - g) = P/n^2$, $n = \sigma/\alpha$. Whatever the field, the share that a shell of wavenumbers gets back says
which Gaussian field it looks like at this scale. As the field is refined that spectrum runs; between two scales it
hardly moves, and the flow of a Gaussian field is known in closed form.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from renorm.diffusion.reverse import Walk
from renorm.diffusion.schedule import CLEAN
from renorm.lattice import Lattice
from renorm.spec import require

__all__ = ["RunningSpectrum", "shell_index"]

STEEPEST = 2.0  # powers of k by which the spectrum of a field is carried on beyond its live modes, at most
OCTAVES = 2  # of live modes by which it is
LONGEST = 1.0  # e-folds that a running spectrum is carried on by, at most: a trained denoiser is noisy


class _Reading(NamedTuple):
    """What one look at the denoiser says, in the frame $y = \\phi/\\alpha$ of the clean field's units."""

    y: Tensor
    log_noise: Tensor  # ln n of every mode
    log_power: Tensor  # ln P of every mode, one for each field and shell
    rest: Tensor  # what the denoiser expects beyond the Gaussian share


class _Move(NamedTuple):
    """A step that was taken, in the same frame."""

    start: _Reading
    noise: Tensor  # n of every mode to which it led, before fresh noise
    y: Tensor  # the field there


@dataclass(frozen=True)
class RunningSpectrum:
    r"""Exact flow of the Gaussian field that each shell looks like; DPM-Solver++'s step for what is left over.

    With $y = \phi/\alpha$, $n = \sigma/\alpha$ and the sums over the modes of a shell of one field (all channels),

    $$ g = \frac{\sum x_0\,y}{\sum y^2}, \qquad P = \frac{g}{1 - g}\,n^2, \qquad
       y_s = \sqrt{\frac{P + n_s^2}{P + n^2}}\;y + \Big(1 - \frac{n_s}{n}\Big)\,(x_0 - g\,y) $$

    Both parts are of second order at one evaluation a step, where 0 < g < 1 (else g is held inside, and the rest takes
    over): $\ln P$ and the rest are carried on by half of their change since the last step, and the last step is taken
    again with the mean of both ends once the new end is known. Of the rest only what differs from the change that this
    formula implies counts as one. Exact in any number of steps for Gaussian fields whose spectrum depends on |k|
    alone; where nothing is predictable (P = 0) it is DPM-Solver++(2M) with that correction. Nothing is calibrated: the
    spectrum comes from the denoiser.

    With ``churn`` c > 0 a step goes on to less noise, and what is missing is drawn afresh:

    $$ n_c = n_s\,(n_s/n)^c, \qquad y_s \leftarrow y_{n_c} + \sqrt{n_s^2 - n_c^2}\;z $$

    That is as exact for Gaussian fields. At c = 1 as much noise is fresh as in DDPM's ancestral step of small variance.
    $\ln P$ is then carried on over the longer way, the rest never by more than half of its change.

    Args:
        flat: One number P for all modes, as for white data: what is left of the method without a spectrum.
        carried: Draw modes that come alive with the power that the field's own spectrum, carried on to them, says; else
            with that of the data or the prior.
        churn: c, how much of the noise is drawn afresh in each step.

    Raises:
        ValueError: If ``churn`` is negative or no number.

    Source:
        The flow is renorm's own. Fresh noise: Song, Meng & Ermon 2020, arXiv:2010.02502, for the share at c = 1;
        Karras, Aittala, Aila & Laine 2022, arXiv:2206.00364, for churn in a walk of higher order.

    Example: five steps from noise to data of a spectrum that neither schedule nor sampler was told.
        >>> from renorm.diffusion.presets import white
        >>> from renorm.diffusion.spacing import LogUniform, grid
        >>> from renorm.diffusion.transport import transported_variance
        >>> P = torch.tensor([9.0, 1.0, 0.1], dtype=torch.float64)
        >>> schedule = white(Lattice((3,)))
        >>> start = schedule.alpha(1.0) ** 2 * P + schedule.sigma(1.0) ** 2
        >>> times = grid(LogUniform(), schedule, 5)
        >>> transported_variance(schedule, P, RunningSpectrum(), times, initial=start).round(decimals=6)
        tensor([9.0000, 1.0000, 0.1000], dtype=torch.float64)
    """

    flat: bool = False
    carried: bool = False
    churn: float = 0.0
    order = 2
    evaluations = 1

    def __post_init__(self) -> None:
        require(0 <= self.churn < math.inf, "churn must be >= 0 and finite", self.churn)

    def step(self, phi: Tensor, t: float, s: float, walk: Walk, memory: Any) -> tuple[Tensor, Any]:
        """Correct the last step, then move on along the Gaussian field that each shell looks like."""
        alpha, sigma, alpha_s, sigma_s = walk.amplitudes(t, s)
        x0 = walk.denoise(phi, t)
        moves = walk.schedule.alive(t).to(phi.device) & (sigma > 0)  # what is finished, or dead, stays where it is
        now = self._read(phi, x0, torch.where(moves, alpha, 1.0), torch.where(moves, sigma, 1.0), moves, walk)
        noise_s = torch.where(moves, sigma_s / torch.where(alpha_s > 0, alpha_s, 1.0), 0.0)
        aim = noise_s
        if self.churn:
            aim = noise_s * torch.where(moves, noise_s / now.log_noise.exp(), 1.0).clamp(max=1.0) ** self.churn
        if self.carried and walk.entering:
            walk.expected = _carried_on(now.log_power, moves, walk)
        ahead = now
        if memory is not None:
            last: _Move = memory
            before = last.start
            known = walk.seasoned & moves & (before.log_noise != now.log_noise)
            change = now.rest - _fading_rest(before, now.log_noise)
            mean = before._replace(log_power=(before.log_power + now.log_power) / 2, rest=before.rest + change / 2)
            now = now._replace(y=now.y + torch.where(known, _moved(mean, last.noise) - last.y, 0.0))
            ahead = now
            if s != CLEAN:
                length = now.log_noise - torch.where(aim > 0, aim, 1.0).log()
                share = torch.where(known & (aim > 0), length / (2 * (before.log_noise - now.log_noise)), 0.0)
                runs = (share * (now.log_power - before.log_power)).clamp(-LONGEST, LONGEST)
                ahead = now._replace(log_power=now.log_power + runs, rest=now.rest + share.clamp(max=0.5) * change)
        y = _moved(ahead, aim)
        move = _Move(now, aim, y)
        if self.churn and s != CLEAN:
            y = y + (noise_s**2 - aim**2).clamp(min=0).sqrt() * walk.draw()
        return torch.where(moves, alpha_s * y, alpha_s * x0), move

    def _read(self, phi: Tensor, x0: Tensor, alpha: Tensor, sigma: Tensor, moves: Tensor, walk: Walk) -> _Reading:
        y, expected = torch.where(moves, phi / alpha, 0.0), torch.where(moves, x0, 0.0)
        log_noise = sigma.log() - alpha.log()
        index, number = _shells(walk.schedule.lattice, self.flat)
        index = index.to(phi.device)
        expected_square, square = (_shell_sums(part, index, number) for part in (expected * y, y * y))
        info = torch.finfo(phi.dtype)
        share = (expected_square / square.clamp_min(info.tiny)).clamp(info.eps**2, 1 - info.eps)
        share = share.index_select(1, index).unflatten(1, phi.shape[2:]).unsqueeze(1)
        log_power = torch.logit(share) + 2 * log_noise
        return _Reading(y, log_noise, log_power, expected - share * y)


def _moved(at: _Reading, noise_s: Tensor) -> Tensor:
    """The field in clean units at the scale where noise over signal is ``noise_s``."""
    ratio = noise_s / at.log_noise.exp()
    share = torch.sigmoid(at.log_power - 2 * at.log_noise)  # g of this P at this noise
    return (share + (1 - share) * ratio**2).sqrt() * at.y + (1 - ratio) * at.rest


def _carried_on(
    log_power: Float[Tensor, "batch 1 *modes"], moves: Bool[Tensor, "*modes"], walk: Walk
) -> Float[Tensor, "batch 1 *modes"] | None:
    r"""Power of all modes, from that of the live ones: a power of k times the prior's spectrum, or the data's if known.

    $$ \ln(\hat P_k/P_k) = a + b\ln q_k $$

    by least squares over the two highest octaves that move, each field by itself; b is held in a ridge of one mode.
    """
    if not bool(moves.any()):
        return None
    schedule = walk.schedule
    known = (schedule.prior_spectrum if walk.spectrum is None else walk.spectrum).to(log_power).log()
    place = schedule.wavenumber_sq.to(log_power).log() / 2
    top = moves & (place >= place[moves].max() - OCTAVES * math.log(2))
    y, x = (log_power - known)[..., top], place[top]
    mean = y.mean(-1, keepdim=True)
    slope = ((y - mean) * (x - x.mean())).sum(-1, keepdim=True) / ((x - x.mean()).square().sum() + 1)
    slope = slope.clamp(-STEEPEST, STEEPEST)
    dims = (1,) * schedule.lattice.dim
    line = mean.reshape(-1, 1, *dims) + slope.reshape(-1, 1, *dims) * (place - x.mean())
    return (known + line).exp()


def _fading_rest(at: _Reading, log_noise_s: Tensor) -> Tensor:
    """The rest at another scale if ``_moved`` is exact: constant where P = 0, like the noise where P is large."""
    share = torch.sigmoid(at.log_power - 2 * log_noise_s)
    return at.rest * (1 - share * (1 - torch.exp(log_noise_s - at.log_noise)))


def _shells(lattice: Lattice, flat: bool) -> tuple[Int64[Tensor, " modes"], int]:
    """The shell of each mode, and how many there are; a single one if ``flat``."""
    index, number = shell_index(lattice)
    return (torch.zeros_like(index), 1) if flat else (index, number)


def _shell_sums(
    x: Float[Tensor, "batch channel *modes"], index: Int64[Tensor, " all_modes"], number: int
) -> Float[Tensor, "batch shells"]:
    """Sums over the modes of each shell, all channels; in float64, so that no order of adding shows in float32."""
    modes = x.sum(1).flatten(1).double()
    return modes.new_zeros(len(x), number).index_add(1, index, modes).to(x.dtype)


@lru_cache(maxsize=8)
def shell_index(lattice: Lattice) -> tuple[Int64[Tensor, " modes"], int]:
    r"""Number of the shell of each mode, $|k|$ in units of the longest axis' fundamental, rounded; and how many.

    Example:
        >>> index, number = shell_index(Lattice((2, 2)))
        >>> index.tolist(), number  # |k| = 0, 1, 1 and the square root of 2
        ([0, 1, 1, 1], 2)
    """
    longest = max(range(lattice.dim), key=lambda axis: lattice.shape[axis])
    k = lattice.wavenumbers(longest)
    fundamental = float(k[1]) if len(k) > 1 else 1.0
    rounded = (lattice.k_sq().sqrt() / fundamental).round().long().flatten()
    values, index = rounded.unique(return_inverse=True)
    return index, len(values)
