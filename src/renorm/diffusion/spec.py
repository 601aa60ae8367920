"""A mode diffusion as a typed value, without torch: what a recipe says about the model."""

import math
from dataclasses import dataclass, field
from typing import Literal

from renorm.nn.spec import UNetSpec
from renorm.spec import require, require_literals

__all__ = ["BY_SPECTRUM", "DiffusionSpec"]

BY_SPECTRUM = ("equal-error", "noise-share", "mode-share", "window")
"""Spacings that look at the data's spectrum."""


@dataclass(frozen=True)
class DiffusionSpec:
    """Which flow, what the network predicts, and how to walk back up.

    Args:
        schedule: ``"rgdm"`` (the paper's images), ``"white"`` (DDPM), ``"edm"`` (variance exploding),
            ``"calibrated"`` (the paper's flow, its prior the data's own power spectrum: all modes fade together) or
            ``"separated"`` (the same prior, modes fade in the order of their wavenumbers).
        regulator: Of ``"rgdm"`` and ``"separated"``: a name in ``renorm.diffusion.regulator.REGULATORS``.
        prior_scale: m_0 of ``"rgdm"``, in rad/site.
        infrared: m_L L = k_c L of ``"rgdm"`` and ``"separated"``, in rad.
        sharpness: Of these two: s of the regulator's x^s, how far apart the scales fade.
        prior: ``"coloured"``, as the schedule has it, or ``"flat"``, one variance for all modes, which fade together
            (as with the rational regulator), and none erased: the white twin, beside which a gain is one of
            renormalization.
        floor: Of ``"separated"``: modes of a smaller signal-to-noise ratio are erased; 0: next to nothing is lost.
        lattices: ``"whole"``, or ``"nested"``: while all live modes fit on a lattice of half the sites along each axis,
            or a quarter, ..., the network sees the field there, at a fraction of the cost. It pays where scales are
            apart (``"separated"``, ``sharpness``, ``floor``).
            ``"folded"``: it sees all modes, but while the fine ones are mostly noise the field enters a coarser level
            of it, a block of sites as one site of many channels (``network.entries``).
        fold: Of ``"folded"``: signal-to-noise ratio up to which a mode counts as mostly noise.
        denoiser: ``"network"``, or ``"gaussian"``: the exact one for Gaussian data of the measured mean and spectrum.
        prediction: What the network is asked for: ``"coloured-noise"`` (paper), ``"clean-field"``, ``"velocity"``, or
            ``"preconditioned"`` by the data's spectrum, or ``"edm"``, by their variance, the same for all modes.
        subtract_mean: Whether the mean field is taken out (``"gaussian"`` and ``"preconditioned"``).
        isotropic: Whether the data's spectrum is averaged over modes of equal |k|.
        training: Distribution of the scales in training, a name in ``renorm.diffusion.spacing.SPACINGS``;
            ``"auto"`` takes the one that belongs to the schedule.
        sampler: A name in ``renorm.diffusion.sampler.SAMPLERS``.
        spacing: Where the steps lie, named as ``training``.
        steps: Steps of a walk from noise to data, if not said otherwise.
        network: The U-Net.

    Raises:
        ValueError: If a value is out of its range.
    """

    schedule: Literal["rgdm", "white", "edm", "calibrated", "separated"] = "rgdm"
    regulator: str = "rational"
    prior_scale: float = 0.15 * math.pi
    infrared: float = 1.6 * math.pi
    sharpness: float = 1.0
    prior: Literal["coloured", "flat"] = "coloured"
    floor: float = 0.0
    lattices: Literal["whole", "nested", "folded"] = "whole"
    fold: float = 0.1
    denoiser: Literal["network", "gaussian"] = "network"
    prediction: Literal["coloured-noise", "clean-field", "velocity", "preconditioned", "edm"] = "coloured-noise"
    subtract_mean: bool = False
    isotropic: bool = False
    training: str = "auto"
    sampler: str = "angle-pc"
    spacing: str = "auto"
    steps: int = 50
    network: UNetSpec = field(default_factory=UNetSpec)

    def __post_init__(self) -> None:
        require_literals(self)
        require(
            self.prior_scale > 0,
            "prior_scale must be > 0 (noise of variance 0 cannot be undone)",
            self.prior_scale,
        )
        require(self.infrared > 0, "infrared must be > 0 (the zero mode diverges at 0)", self.infrared)
        for name in ("prior_scale", "infrared"):
            value = getattr(self, name)
            require(1e-6 <= value <= 1e6, f"{name} must be in [1e-6, 1e6] (the spectrum overflows)", value)
        require(
            0.25 <= self.sharpness <= 4,
            "sharpness must be in [0.25, 4] (below, hardly a scale is parted from another; above, noise underflows)",
            self.sharpness,
        )
        require(
            0 <= self.floor <= 0.5,
            "floor must be in [0, 0.5] (above, modes enter with more signal than noise)",
            self.floor,
        )
        require(self.fold > 0, "fold must be > 0 (a signal-to-noise ratio)", self.fold)
        require(self.steps >= 1, "steps must be >= 1 (a walk needs at least one step)", self.steps)

    @property
    def needs_moments(self) -> bool:
        """Whether the mean and the spectrum of the data enter."""
        by_name = self.spacing in BY_SPECTRUM or self.training in BY_SPECTRUM
        return (
            by_name
            or self.schedule in ("calibrated", "separated")
            or self.denoiser == "gaussian"
            or self.prediction in ("preconditioned", "edm")
            or self.lattices == "folded"
        )
