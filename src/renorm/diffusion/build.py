"""From a spec to the parts of a mode diffusion; every name is looked up here, once."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

from renorm.bases.corner import Corner, corners
from renorm.diffusion import presets
from renorm.diffusion.denoiser import (
    CleanField,
    ColouredNoise,
    Denoiser,
    GaussianDenoiser,
    Network,
    NetworkDenoiser,
    Preconditioned,
    Prediction,
    Velocity,
)
from renorm.diffusion.moments import Moments
from renorm.diffusion.nested import NestedDenoiser
from renorm.diffusion.regulator import REGULATORS, Regulator, Sharpened
from renorm.diffusion.sampler import SAMPLERS, Sampler
from renorm.diffusion.schedule import Schedule
from renorm.diffusion.spacing import SPACINGS, PlacedBy, Spacing
from renorm.diffusion.spec import BY_SPECTRUM, DiffusionSpec
from renorm.errors import RecipeError
from renorm.lattice import Lattice

__all__ = ["Flow", "make_denoiser", "make_flow", "make_sampler", "make_schedule", "make_spacing"]

T = TypeVar("T")


_OWN_SPACING = {"white": "linear-beta", "edm": "karras"}
_OWN_TRAINING = {"white": "linear-beta", "edm": "log-normal"}


def lookup(registry: Mapping[str, Callable[..., T]], name: str, what: str) -> Callable[..., T]:
    """The entry of a registry, or a RecipeError that lists what there is."""
    if name not in registry:
        raise RecipeError(f"unknown {what} '{name}'; known: {', '.join(registry)}")
    return registry[name]


def make_schedule(spec: DiffusionSpec, lattice: Lattice, moments: Moments | None) -> Schedule:
    """The forward flow that the spec names, on this lattice, whatever its ``prior``: a twin is made of it."""
    if spec.schedule == "white":
        return presets.white(lattice)
    if spec.schedule == "edm":
        return presets.variance_exploding(lattice)
    if spec.schedule == "calibrated":
        return presets.calibrated(lattice, _given(moments, "the calibrated schedule").spectrum)
    regulator: Regulator = lookup(REGULATORS, spec.regulator, "regulator")()
    if spec.sharpness != 1:
        regulator = Sharpened(regulator, spec.sharpness)
    if spec.schedule == "separated":
        known = _given(moments, "the separated schedule").spectrum
        floor = spec.floor or presets.SNR_COARSE / 2
        schedule = presets.separated(lattice, known, infrared=spec.infrared, regulator=regulator, floor=floor)
    else:
        schedule = presets.rgdm_images(
            lattice, prior_scale=spec.prior_scale, infrared=spec.infrared, regulator=regulator
        )
    if not bool((schedule.sigma(0.0) > 0).all()):
        raise RecipeError(
            f"regulator '{spec.regulator}' lets no mode fade, so there is nothing to learn between clean and gone; "
            "choose another for a diffusion (this one coarse-grains)"
        )
    return schedule


class Flow(NamedTuple):
    """A forward flow, where the steps of a walk lie in it, and where training draws its scales."""

    schedule: Schedule
    spacing: Spacing
    training: Spacing


def make_flow(spec: DiffusionSpec, lattice: Lattice, moments: Moments | None) -> Flow:
    """The flow that the spec names; with a flat prior the white twin's, at the places that its rules take
    with the rational regulator."""
    lookup(REGULATORS, spec.regulator, "regulator")
    flat = spec.prior == "flat"
    # Modes that all fade at once have no order that a regulator could set: the twin's noise is the rational one's.
    schedule = make_schedule(replace(spec, regulator="rational", sharpness=1.0) if flat else spec, lattice, moments)
    if spec.lattices == "nested":  # on the smallest lattice nothing is gained by erasing
        schedule = replace(schedule, undying=_lattices(spec, lattice)[0].carried)
    elif not bool(schedule.alive(1.0).any()):  # a floor above the coarsest signal: a walk has to start from something
        schedule = replace(schedule, undying=schedule.wavenumber_sq == schedule.wavenumber_sq.min())
    spacing = make_spacing(spec, moments)
    training = make_spacing(spec, moments, training=True)
    if flat and spec.schedule == "separated":  # coloured noise also with the rational regulator: no places for white
        known = _given(moments, "the separated schedule").spectrum
        return Flow(presets.flattened(schedule, known, floor=spec.floor), spacing, training)
    if flat:
        return Flow(presets.flattened(schedule), PlacedBy(spacing, schedule), PlacedBy(training, schedule))
    return Flow(schedule, spacing, training)


def make_denoiser(
    spec: DiffusionSpec, schedule: Schedule, moments: Moments | None, network: Network | None
) -> Denoiser:
    """The denoiser that the spec names; ``network`` is injected where it needs one."""
    if spec.denoiser == "gaussian":
        known = _given(moments, "the Gaussian denoiser")
        return GaussianDenoiser(schedule, known.spectrum, known.mean)
    if network is None:
        raise RecipeError("denoiser = 'network' needs a network, got none; pass one, or ask for 'gaussian'")
    prediction, nested = _prediction(spec, moments), _lattices(spec, schedule.lattice)
    if spec.lattices == "folded":
        spectrum = _given(moments, "a folded field").spectrum
        return NestedDenoiser.folded(network, schedule, prediction, nested, spectrum, below=spec.fold)
    if nested:
        return NestedDenoiser.nested(network, schedule, prediction, nested)
    return NetworkDenoiser(network, schedule, prediction)


def _lattices(spec: DiffusionSpec, lattice: Lattice) -> tuple[Corner, ...]:
    """Where the network sees fields; the whole lattice alone if none."""
    if spec.lattices == "whole":
        return ()
    if spec.lattices == "folded":
        if spec.network.entries == 1:
            raise RecipeError(
                "lattices = 'folded' needs levels of the network at which a field may enter, got network.entries = 1; "
                f"take up to {len(spec.network.multipliers)}, or lattices = 'whole'"
            )
        return corners(lattice)[-spec.network.entries :]
    nested = corners(lattice, spec.network.stride)
    if len(nested) == 1:
        raise RecipeError(
            f"lattices = 'nested' needs axes that can be halved and stay divisible by the network's stride "
            f"{spec.network.stride}, got {lattice.shape}; choose another size, or lattices = 'whole'"
        )
    return nested


def make_sampler(name: str) -> Sampler:
    """The sampler of this name."""
    return lookup(SAMPLERS, name, "sampler")()


def make_spacing(spec: DiffusionSpec, moments: Moments | None, *, training: bool = False) -> Spacing:
    """Where steps lie, or where training draws its scales."""
    name = spec.training if training else spec.spacing
    if name == "auto":
        name = (_OWN_TRAINING if training else _OWN_SPACING).get(spec.schedule, "log-uniform")
    kind: Callable[..., Any] = lookup(SPACINGS, name, "spacing")
    arguments = [_given(moments, f"the {name} spacing").spectrum] if name in BY_SPECTRUM else []
    spacing: Spacing = kind(*arguments)
    return spacing


def _prediction(spec: DiffusionSpec, moments: Moments | None) -> Prediction:
    if spec.prediction in ("preconditioned", "edm"):
        known = _given(moments, f"the {spec.prediction} prediction")
        spectrum = known.spectrum
        if spec.prediction == "edm":
            spectrum = spectrum.mean().expand_as(spectrum)
        return Preconditioned(spectrum, known.mean if spec.subtract_mean else None)
    plain: dict[str, Callable[[], Prediction]] = {
        "coloured-noise": ColouredNoise,
        "clean-field": CleanField,
        "velocity": Velocity,
    }
    return plain[spec.prediction]()


def _given(moments: Moments | None, who: str) -> Moments:
    if moments is None:
        raise RecipeError(f"{who} needs the mean and spectrum of the data, got none; fit on data first")
    return moments
