"""Schedules by name: the paper's images and chains, white noise, variance exploding, calibrated on data, separated."""

import math
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from renorm.diffusion.regulator import LogSquared, Rational, Regulator
from renorm.diffusion.schedule import Schedule
from renorm.errors import RecipeError
from renorm.lattice import Lattice
from renorm.spec import require

__all__ = [
    "BOND_LENGTH",
    "SNR_FINE",
    "calibrated",
    "chain_steps",
    "ddpm_chain",
    "ddpm_linear",
    "flattened",
    "rgdm_chain",
    "rgdm_images",
    "separated",
    "variance_exploding",
    "white",
]


def ddpm_linear(steps: int = 1000, beta_first: float = 1e-4, beta_last: float = 0.02) -> Tensor:
    r"""Signal shares $\prod_{s\le t}(1 - \beta_s)$ of DDPM's linear schedule (float64, shape ``(steps,)``).

    Source:
        Ho, Jain & Abbeel 2020, arXiv:2006.11239.
    """
    return torch.cumprod(1 - torch.linspace(beta_first, beta_last, steps, dtype=torch.float64), 0)


def _snr(signal_share: Tensor) -> float:
    return (signal_share / (1 - signal_share)).item()


# The reference DDPM schedule (1000 linear steps) fixes the signal-to-noise ratios between which every other one runs.
SNR_FINE, SNR_COARSE = _snr(ddpm_linear()[0]), _snr(ddpm_linear()[-1])

PRIOR_SCALE = 0.15 * math.pi  # m_0 of the paper's images, rad/site
INFRARED = 1.6 * math.pi  # m_L L = k_c L: the infrared mass and the last modes to be erased, rad
BOND_LENGTH = 3.8  # distance of neighbouring C-alpha atoms, angstrom
CHAIN_PRIOR = BOND_LENGTH**2 / 2.3211  # makes the root mean square bond of the Gaussian chain 3.8 angstrom
CHAIN_MASS = 0.01 * math.pi  # rad/site


def rgdm_images(
    lattice: Lattice,
    *,
    steps: int = 200,
    prior_scale: float = PRIOR_SCALE,
    infrared: float = INFRARED,
    regulator: Regulator | None = None,
) -> Schedule:
    r"""The paper's images: $q^2 = k^2 + m_L^2$, $G = m_0^2/q^2$, modes erased scale by scale.

    $$ \Lambda_0 = m_0 \sqrt{\mathrm{SNR}_0}\,(32/L), \qquad \Lambda_1 = m_0\sqrt{\mathrm{SNR}_1}\,(32/L), \qquad
       \text{alive} \Leftrightarrow r(x) \ge r\big((k_c^2 + m_L^2)/\Lambda_1^2\big), $$

    with $m_L = k_c = 1.6\pi/L$ and L the longest axis, so that the lowest modes alone survive at t = 1. With the
    rational regulator $\sigma_k/\alpha_k = m_0/\Lambda$ is the same for all modes.

    Args:
        lattice: One, two or three axes, open (the paper) or periodic.
        steps: The paper's T; it only sets ``Schedule.steps``.
        prior_scale: $m_0$, in rad/site (it also carries the units of the field).
        infrared: $m_L L = k_c L$, in rad.
        regulator: Rational (the paper) if not given; any other runs between the same signal-to-noise ratios at
            the slowest mode (coarse end) and the fastest (fine end).

    Source:
        Masuki & Ashida 2025, arXiv:2501.09064, with the constants of the authors' released configurations.
    """
    longest = max(lattice.shape)
    mass = infrared / longest
    wavenumber_sq = lattice.k_sq() + mass**2
    scale = 32 / longest
    cutoff_fine = prior_scale * math.sqrt(SNR_FINE) * scale
    cutoff_coarse = prior_scale * math.sqrt(SNR_COARSE) * scale
    dead_beyond = 2 * mass**2 / cutoff_coarse**2
    if regulator is not None and not isinstance(regulator, Rational):
        # r of the rational regulator is 1/x: the others run between the same values of r.
        slowest, fastest = wavenumber_sq.min().item(), wavenumber_sq.max().item()
        cutoff_fine = math.sqrt(fastest / regulator.inverse(cutoff_fine**2 / fastest))
        cutoff_coarse = math.sqrt(slowest / regulator.inverse(cutoff_coarse**2 / slowest))
        dead_beyond = regulator.inverse(1 / dead_beyond)
    return Schedule(
        lattice=lattice,
        wavenumber_sq=wavenumber_sq,
        prior_spectrum=prior_scale**2 / wavenumber_sq,
        cutoff_fine=cutoff_fine,
        cutoff_coarse=cutoff_coarse,
        regulator=regulator or Rational(),
        dead_beyond=dead_beyond,
        steps=steps,
    )


ChainTime = Literal["code", "paper"]


def _chain_clock(sites: int, convention: ChainTime) -> tuple[float, int, int]:
    """(tau, steps a mode stays in the shell, steps the shell needs to sweep the chain) for a chain of this length."""
    require(sites >= 3, "a chain needs at least 3 sites", sites)
    low, high = LogSquared().inverse(SNR_FINE), LogSquared().inverse(SNR_COARSE)
    reference_sites, reference_steps = 32, 80
    if convention == "code":
        tau = 2 * (reference_steps - 1) / math.log((reference_sites - 1) ** 2 * high / low)
        in_shell = math.floor(reference_steps - tau * math.log(reference_sites - 1))
        return tau, in_shell, math.floor(tau * math.log(sites - 1))
    require(convention == "paper", "the convention of tau must be 'code' or 'paper'", convention)
    tau = 2 * (reference_steps - 1) / math.log(SNR_FINE / SNR_COARSE)
    sweep = math.floor(tau * math.log(sites - 1))
    total = max(reference_steps + math.ceil(tau * math.log(sites / reference_sites)), sweep + 2)
    return tau, total - sweep, sweep


def chain_steps(sites: int, convention: ChainTime = "code") -> int:
    r"""Number of steps T(N) of a chain of N sites; it grows by $\tau\ln 2$ when the chain doubles.

    ``"code"`` (as released): $\lfloor 80 - \tau\ln 31\rfloor + \lfloor\tau\ln(N-1)\rfloor$ with tau = 10.817;
    ``"paper"`` (caption of Fig. 3): $80 + \lceil\tau\ln(N/32)\rceil$ with tau = 8.175.

    Example:
        >>> [chain_steps(n) for n in (32, 128, 750)], chain_steps(32, "paper")
        ([79, 94, 113], 80)
    """
    _, in_shell, sweep = _chain_clock(sites, convention)
    return in_shell + sweep


def rgdm_chain(sites: int, *, convention: ChainTime = "code", mass: float = CHAIN_MASS) -> Schedule:
    r"""The paper's chains: a log-squared regulator, a Gaussian-chain prior, and a shell that sweeps the modes.

    $$ G_k = \frac{c}{k^2 + \mu^2}, \qquad x = \frac{k_\mathrm{max}^2}{\Lambda_0^2}\,e^{2 (j - d_k)/\tau}, \qquad
       d_k = \lfloor\tau\ln(k_\mathrm{max}/k)\rfloor, \qquad j = 0, \dots, T(N) - 1 $$

    A mode waits $d_k$ steps (finished), spends a fixed number of steps in the shell, and is integrated out after; all
    chains share one schedule, shifted. The centre of mass (mode 0) does not take part. The field has three channels,
    in angstrom.

    Args:
        sites: Number of C-alpha atoms N.
        convention: Whose tau, see ``chain_steps``. t runs from 0 to 1 over T(N) steps.
        mass: $\mu$, in rad/site; it enters the prior alone.

    Source:
        Masuki & Ashida 2025, arXiv:2501.09064.
    """
    tau, in_shell, sweep = _chain_clock(sites, convention)
    lattice = Lattice((sites,), boundary="open", channels=3)
    k = lattice.wavenumbers(0)
    k[0] = k[1]
    delay = torch.floor(tau * torch.log(k[-1] / k) + 1e-12)
    lowest = LogSquared().inverse(SNR_FINE)
    cutoff_fine = k[-1].item() / math.sqrt(lowest)
    steps = in_shell + sweep
    frozen = torch.zeros(sites, dtype=torch.bool)
    frozen[0] = True
    return Schedule(
        lattice=lattice,
        wavenumber_sq=(k[-1] * torch.exp(-delay / tau)) ** 2,
        prior_spectrum=CHAIN_PRIOR / (k**2 + mass**2),
        cutoff_fine=cutoff_fine,
        cutoff_coarse=cutoff_fine * math.exp(-(steps - 1) / tau),
        regulator=LogSquared(),
        dead_beyond=lowest * math.exp(2 * (in_shell - 0.5) / tau),  # between the last step inside and the first outside
        clean_below=lowest,
        frozen_modes=frozen,
        weighting="count",
        steps=steps,
    )


def ddpm_chain(sites: int, *, mass: float = CHAIN_MASS) -> Schedule:
    r"""Plain diffusion of chains, beside which the paper's stands: white noise of one variance, no mode is erased.

    The variance is the mean of the Gaussian chain's, so that a chain keeps its size; the centre of mass does not take
    part. T(N) is the paper's, $80 + \lceil\tau\ln(N/32)\rceil$ with tau = 8.175.

    Args:
        sites: Number of C-alpha atoms N.
        mass: $\mu$ of the Gaussian chain, in rad/site.

    Example:
        >>> schedule = ddpm_chain(128)
        >>> schedule.steps, bool(schedule.alive(1.0)[1:].all()), schedule.sigma(1.0)[0].item()
        (92, True, 0.0)
    """
    chain = rgdm_chain(sites, convention="paper", mass=mass)
    variance = chain.prior_spectrum[1:].mean().item()
    return replace(
        white(chain.lattice, variance=variance, steps=chain.steps),
        frozen_modes=chain.frozen_modes,
        weighting="variance",
    )


def white(
    lattice: Lattice,
    *,
    steps: int = 1000,
    variance: float = 1.0,
    snr_fine: float = SNR_FINE,
    snr_coarse: float = SNR_COARSE,
) -> Schedule:
    r"""Plain diffusion: white noise of one variance, every mode fades together, none is erased.

    $\Lambda^2$ is the signal-to-noise ratio for data of the prior's variance, so DDPM's linear and cosine schedules are
    this value with their own spacing of steps (``renorm.diffusion.spacing``).
    """
    ones = torch.ones(lattice.shape, dtype=torch.float64)
    return Schedule(
        lattice=lattice,
        wavenumber_sq=ones,
        prior_spectrum=variance * ones,
        cutoff_fine=math.sqrt(snr_fine),
        cutoff_coarse=math.sqrt(snr_coarse),
        steps=steps,
    )


def variance_exploding(
    lattice: Lattice,
    *,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    data_std: float = 0.5,
    steps: int = 18,
) -> Schedule:
    r"""EDM's process $\phi_t = \phi_0 + \sigma\xi$ with white noise, $\sigma = \sigma_d/\Lambda$ from 80 down to 0.002.

    Args:
        data_std: $\sigma_d$, standard deviation of the data at a site; it fixes the frame in which solvers rotate.

    Source:
        Karras, Aittala, Aila & Laine 2022, arXiv:2206.00364.
    """
    require(sigma_max > sigma_min > 0, "sigma must grow from sigma_min > 0 to sigma_max", (sigma_min, sigma_max))
    ones = torch.ones(lattice.shape, dtype=torch.float64)
    return Schedule(
        lattice=lattice,
        wavenumber_sq=ones,
        prior_spectrum=data_std**2 * ones,
        cutoff_fine=data_std / sigma_min,
        cutoff_coarse=data_std / sigma_max,
        rescaled=False,
        steps=steps,
    )


def calibrated(lattice: Lattice, spectrum: Tensor, *, steps: int = 200) -> Schedule:
    r"""The paper's flow with the data's own power spectrum P as prior: $G_k = P_k$, $q_k^2 = m_0^2/P_k$.

    Signal-to-noise is $\Lambda^2/m_0^2$ for every mode, as for the paper's images, but now data that are Gaussian are
    exactly the fixed point: the reverse flow has nothing left to do for them, whatever the number of steps.

    Args:
        spectrum: Variance of each mode of the data, field units squared (shape ``lattice.shape``); modes of less than
            1e-8 of the mean variance get that much.

    Raises:
        ValueError: If the spectrum is not finite or is zero everywhere.
    """
    spectrum = _positive(spectrum)
    scale = 32 / max(lattice.shape)
    wavenumber_sq = PRIOR_SCALE**2 / spectrum
    cutoff_coarse = PRIOR_SCALE * math.sqrt(SNR_COARSE) * scale
    # As in the paper, the four strongest modes (the lowest, for any natural spectrum) outlive all others.
    survivors = min(4, lattice.sites)
    dead_beyond = wavenumber_sq.flatten().sort().values[survivors - 1].item() / cutoff_coarse**2
    return Schedule(
        lattice=lattice,
        wavenumber_sq=wavenumber_sq,
        prior_spectrum=spectrum,
        cutoff_fine=PRIOR_SCALE * math.sqrt(SNR_FINE) * scale,
        cutoff_coarse=cutoff_coarse,
        dead_beyond=dead_beyond,
        entry="prior",
        steps=steps,
    )


def separated(
    lattice: Lattice,
    spectrum: Tensor,
    *,
    steps: int = 200,
    infrared: float = INFRARED,
    regulator: Regulator | None = None,
    floor: float = SNR_COARSE / 2,
) -> Schedule:
    r"""The data's own power spectrum P as prior, and modes that fade in the order of their wavenumbers.

    $$ G_k = P_k, \qquad q_k^2 = k^2 + m_L^2, \qquad \frac{\alpha_k^2 P_k}{\sigma_k^2} = r(q_k^2/\Lambda^2) $$

    The regulator alone says how far apart the scales of a field fade, whatever its spectrum: white noise parts those
    of $P \propto k^{-2}$ as the rational regulator does here, and those of a flat spectrum not at all. Gaussian data
    are the fixed point, as in ``calibrated``.

    Args:
        spectrum: Variance of each mode of the data, field units squared (shape ``lattice.shape``); modes of less than
            1e-8 of the mean variance get that much.
        steps: It only sets ``Schedule.steps``.
        infrared: $m_L L$, in rad; modes below $m_L$ fade together.
        regulator: Rational if not given.
        floor: Signal-to-noise ratio $r$ below which a mode is erased. What a mode would say below it is lost: it enters
            with the data's variance, not with what the others say of it.

    Raises:
        ValueError: If the spectrum is not finite or is zero everywhere, or the floor is not in (0, 1].

    Example:
        >>> lattice = Lattice((8, 8))
        >>> steep, flat = (separated(lattice, (lattice.k_sq() + 0.1) ** -e) for e in (1.0, 0.0))
        >>> bool((steep.alpha(0.4) == flat.alpha(0.4)).all()), int(steep.alive(1.0).sum()), int(steep.alive(0.0).sum())
        (True, 4, 64)
    """
    require(0 < floor <= 1, "floor must be in (0, 1] (above, modes enter that are more signal than noise)", floor)
    spectrum, regulator = _positive(spectrum), regulator or Rational()
    wavenumber_sq = lattice.k_sq() + (infrared / max(lattice.shape)) ** 2
    slowest, fastest = wavenumber_sq.min().item(), wavenumber_sq.max().item()
    return Schedule(
        lattice=lattice,
        wavenumber_sq=wavenumber_sq,
        prior_spectrum=spectrum,
        cutoff_fine=math.sqrt(fastest / regulator.inverse(SNR_FINE)),
        cutoff_coarse=math.sqrt(slowest / regulator.inverse(SNR_COARSE)),
        regulator=regulator,
        dead_beyond=regulator.inverse(floor),  # as for the paper's images: half of what the slowest has last
        entry="prior",
        steps=steps,
    )


def _positive(spectrum: Tensor) -> Tensor:
    """A power spectrum that can be a prior: no mode has less than 1e-8 of the mean variance."""
    spectrum = spectrum.double()
    require(bool(spectrum.isfinite().all()), "the data's spectrum must be finite", "nan or inf")
    require(spectrum.mean().item() > 0, "the data's spectrum must not vanish (all fields are the same)", 0.0)
    return spectrum.clamp(min=1e-8 * spectrum.mean().item())


def flattened(schedule: Schedule, spectrum: Tensor | None = None, *, floor: float = 0.0) -> Schedule:
    r"""The white twin of a schedule: one prior variance for all modes, their mean, and none erased.

    $$ G'_k = \langle G \rangle, \qquad q'^2_k = \langle q^2 G \rangle / \langle G \rangle $$

    With the rational regulator of the images $\sigma_k/\alpha_k = q_k\sqrt{G_k}/\Lambda$ is the same for all modes, and
    the twin has the same at every scale: noise, spacings and cutoffs agree, and what differs is the prior alone.

    White noise too covers the small structure of most data first. With a floor, modes are erased by the same rule as in
    ``separated``, where their signal-to-noise ratio $\alpha^2 P_k/\sigma^2$ falls below it; so the twin may be seen on
    nested lattices as well.

    Args:
        schedule: With the rational regulator.
        spectrum: P, variance of every mode of the data, if modes shall be erased.
        floor: Signal-to-noise ratio below which they are; 0: none is.

    Raises:
        RecipeError: If the regulator is another: noise would differ from mode to mode, and the twin in more than its
            prior.

    Example:
        >>> schedule = rgdm_images(Lattice((8, 8)))
        >>> twin = flattened(schedule)
        >>> ratio = (twin.log_snr(0.3) - schedule.log_snr(0.3)).abs().max()
        >>> bool(ratio < 1e-12), bool(twin.alive(1.0).all())
        (True, True)
    """
    if not isinstance(schedule.regulator, Rational):
        raise RecipeError(
            "a white twin is that of a schedule with the rational regulator (with another, noise differs from mode to "
            f"mode, and so would more than the prior), got {type(schedule.regulator).__name__}"
        )
    prior, ones = schedule.prior_spectrum, torch.ones_like(schedule.prior_spectrum)
    dead: float | Tensor = math.inf
    if floor and spectrum is not None:
        dead = spectrum.double() / (floor * prior.mean())  # r(x) = 1/x
    return replace(
        schedule,
        prior_spectrum=prior.mean() * ones,
        wavenumber_sq=(schedule.wavenumber_sq * prior).mean() / prior.mean() * ones,
        dead_beyond=dead,
    )
