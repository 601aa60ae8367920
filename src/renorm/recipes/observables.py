"""What is measured on fields of a run, and what it should be: exact where that is known, else that of other fields."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from renorm.errors import DataError, RecipeError
from renorm.lattice import Lattice
from renorm.laws.build import Law, make_law
from renorm.laws.chain import DoubleWellChain
from renorm.laws.gaussian_field import GaussianField
from renorm.laws.ising import MOST_SITES, Ising
from renorm.laws.kaufman import kaufman_energy
from renorm.laws.lognormal import Lognormal
from renorm.laws.lognormal_shells import shell_bispectrum, shell_power
from renorm.laws.muller_brown import MullerBrown
from renorm.laws.phi4 import Phi4
from renorm.laws.rouse import GaussianChain
from renorm.laws.spec import LawSpec, LognormalSpec
from renorm.measure.bispectrum import bispectrum
from renorm.measure.lattice_observables import (
    binder,
    correlation_length,
    magnetisation,
    neighbour_product,
    site_moments,
    susceptibility,
)
from renorm.measure.one_point import kolmogorov_smirnov, peak_counts
from renorm.measure.spectrum import power_spectrum
from renorm.measure.statistics import Estimate

__all__ = ["Observable", "exact_answers", "field_statistics", "observables"]

GROUPS = 10  # of fields, whose scatter is the error of a ratio
LOUD = 3.0  # standard errors beyond which a triangle of the bispectrum counts as measured
MOST_FIELDS = 2000  # whose triangles and peaks are counted
THRESHOLDS = (1.0, 2.0, 3.0)  # of peaks, in standard deviations of the data


@dataclass(frozen=True)
class Observable:
    """A number with its error, and what it should be.

    Attributes:
        name: As in the figures.
        value: Of the model's fields, reweighted where there are weights.
        error: One standard error of the value.
        exact: The exact answer, where it is known.
        reference: Of other fields of the law, or of test fields.
        reference_error: One standard error of the reference.
    """

    name: str
    value: float
    error: float
    exact: float | None = None
    reference: float | None = None
    reference_error: float | None = None

    def mapping(self) -> dict[str, Any]:
        """For JSON: what is not known, or no number, is left out."""
        found = {key: getattr(self, key) for key in self.__dataclass_fields__}
        return {key: v for key, v in found.items() if isinstance(v, str) or (v is not None and math.isfinite(v))}


def observables(
    x: Tensor, target: Tensor, law: LawSpec | None, exact: dict[str, float], log_weights: Tensor
) -> list[Observable]:
    r"""Order, fluctuations and correlations of a law, by reweighted draws and by simulated fields.

    $\langle |m| \rangle$, $\chi = V \langle m^2 \rangle$, Binder's $U_4$, the second-moment correlation length, the
    product with forward neighbours, and of fields (not spins) $\langle \phi^2 \rangle$ and $\langle \phi^4 \rangle$.

    Args:
        x: Draws of the model.
        target: Fields of the law.
        law: Which.
        exact: Known answers by name.
        log_weights: Of the draws.
    """
    spins = law is not None and law.kind == "ising"
    wide = max(x.shape[2:]) > 2  # on two sites the longest wave is the shortest too
    found: list[Observable] = []
    for name, function in _functions(spins, wide).items():
        ours, theirs = _tried(function, x, log_weights), _tried(function, target, None)
        if ours is not None:
            reference = (None, None) if theirs is None else (float(theirs.value), float(theirs.error))
            found.append(Observable(name, float(ours.value), float(ours.error), exact.get(name), *reference))
    return found


def exact_answers(law: Law) -> dict[str, float]:
    """What is known exactly of a law on its lattice, by the names of ``observables``; seconds at most.

    Example:
        >>> answers = exact_answers(Ising((16, 16), 0.44068679350977147))
        >>> round(answers["log_z"], 6), round(answers["neighbour_product"], 6)
        (238.642257, 1.453065)
    """
    if isinstance(law, Ising):
        answers = {"log_z": law.log_z}
        if law.beta > 0:
            answers["neighbour_product"] = -kaufman_energy(law.shape, law.beta)
        return answers | (_enumerated(law) if law.sites <= MOST_SITES - 4 else {})
    if isinstance(law, Phi4):
        try:
            moments = law.moments()
        except RecipeError:  # wider than a transfer matrix can be
            return {}
        return {
            "log_z": moments.log_z,
            "phi_sq": moments.phi_sq,
            "phi_4": moments.phi_4,
            "neighbour_product": moments.neighbour,
            "chi": moments.chi,
        }
    if isinstance(law, DoubleWellChain):
        square, fourth = law.transfer.mean(lambda v: v**2), law.transfer.mean(lambda v: v**4)
        return {"log_z": law.log_z, "phi_sq": square, "phi_4": fourth}
    if isinstance(law, GaussianField):
        corner = float(law.correlation.flatten()[0])
        return {"log_z": law.log_z, "phi_sq": corner, "phi_4": 3 * corner**2, "chi": 1 / law.mass_sq, "binder": 0.0}
    if isinstance(law, GaussianChain):
        return {"log_z": law.log_z}
    return {"log_z": law.log_z()} if isinstance(law, MullerBrown) else {}


def field_statistics(x: Tensor, reference: Tensor, lattice: Lattice, law: LawSpec | None = None) -> list[Observable]:
    """Fields without an action beside test fields: one-point law, bispectrum, peaks.

    ``ks_p`` is that of one site of each field, so that its values are independent. ``bispectrum_ratio`` is the mean
    ratio over triangles that stand out of the test fields' noise, ``peaks_1`` the peaks per site above one standard
    deviation. Lognormal maps have exact answers: ``power_1``, ``power_2``, ... are ratios of the power to the exact one
    in four bins up to half the Nyquist wavenumber (fewer below 16 sites on an axis), ``bispectrum_1``, ... those of
    equilateral triangles of the bins.
    """
    found: list[Observable] = []
    site = (slice(None), slice(0, 1), *[slice(0, 1)] * lattice.dim)
    p = kolmogorov_smirnov(x[site], reference[site])
    found.append(Observable("ks_p", p.p_value, 0.0))
    scale, centre = float(reference.std()), float(reference.mean())
    for name, power in (("variance", 2), ("skewness", 3)):
        moments = [site_moments((part - centre) / scale, (power,)) for part in (x, reference)]
        (value, error), (other, spread) = [(float(m.value[0]), float(m.error[0])) for m in moments]
        found.append(Observable(name, value, error, None, other, spread))
    if lattice.boundary == "periodic" and lattice.dim > 1 and min(lattice.shape) > 2:
        x, reference = x[:MOST_FIELDS], reference[:MOST_FIELDS]
        found += _bispectrum(x, reference, lattice)
        if isinstance(law, LognormalSpec):
            found += _exact_ratios(x, reference, lattice, make_law(law, lattice.shape))
        levels = torch.tensor(THRESHOLDS, dtype=torch.float64) * scale + centre
        ours, theirs = peak_counts(x, levels), peak_counts(reference, levels)
        for index, threshold in enumerate(THRESHOLDS):
            pair = [(float(e.value[index]), float(e.error[index])) for e in (ours, theirs)]
            found.append(Observable(f"peaks_{threshold:g}", *pair[0], None, *pair[1]))
    return found


def _functions(spins: bool, wide: bool) -> dict[str, Callable[..., Estimate]]:
    functions: dict[str, Callable[..., Estimate]] = {
        "abs_m": lambda x, log_weights: magnetisation(x, log_weights=log_weights).absolute,
        "chi": lambda x, log_weights: susceptibility(x, log_weights=log_weights),
        "binder": lambda x, log_weights: binder(x, log_weights=log_weights),
        "neighbour_product": lambda x, log_weights: neighbour_product(x, log_weights=log_weights),
    }
    if wide:
        functions["correlation_length"] = lambda x, log_weights: correlation_length(x, log_weights=log_weights)
    if not spins:
        functions["phi_sq"] = lambda x, log_weights: _scalar(site_moments(x, (2,), log_weights=log_weights))
        functions["phi_4"] = lambda x, log_weights: _scalar(site_moments(x, (4,), log_weights=log_weights))
    return functions


def _scalar(estimate: Estimate) -> Estimate:
    return Estimate(estimate.value[0], estimate.error[0])


def _tried(function: Callable[..., Estimate], x: Tensor, log_weights: Tensor | None) -> Estimate | None:
    """Nothing where there are too few fields, or too little weight, for an error."""
    try:
        return function(x, log_weights)
    except DataError:
        return None


def _enumerated(law: Ising) -> dict[str, float]:
    states = law.enumerate()
    m2, m4 = (states.mean(lambda s, n=n: s.flatten(1).mean(1).double() ** n) for n in (2, 4))  # type: ignore[misc]
    absolute = states.mean(lambda s: s.flatten(1).mean(1).abs())
    return {"chi": law.sites * m2, "abs_m": absolute, "binder": 1 - m4 / (3 * m2**2)}


def _bispectrum(x: Tensor, reference: Tensor, lattice: Lattice) -> list[Observable]:
    """Mean ratio over triangles whose bispectrum stands out of the noise, chosen on one half of the reference and
    divided by the other; triangles share modes, so the errors are those of the ratio over groups of fields."""
    edges = _quarters(lattice)
    chosen_on, judge = reference[::2], reference[1::2]
    try:
        seen = bispectrum(chosen_on, lattice, edges=edges)
        theirs = bispectrum(judge, lattice, edges=edges).value
        loud = (seen.value.abs() > LOUD * seen.error) & (theirs != 0)
        if not loud.any():
            return []
        groups = [
            torch.stack([(bispectrum(part, lattice, edges=edges).value[loud] / theirs[loud]).mean() for part in parts])
            for parts in (x.tensor_split(GROUPS), judge.tensor_split(GROUPS))
        ]
    except DataError:
        return []
    (value, error), (_, noise) = [(float(g.mean()), float(g.std()) / math.sqrt(GROUPS)) for g in groups]
    return [Observable("bispectrum_ratio", value, error, None, 1.0, noise)]


def _exact_ratios(x: Tensor, reference: Tensor, lattice: Lattice, law: Law) -> list[Observable]:
    """Power and equilateral bispectrum of draws and of test fields over those of the law, each exactly 1."""
    assert isinstance(law, Lognormal)
    edges = _quarters(lattice)
    bins = len(edges) - 1
    equal = torch.arange(bins)[:, None].expand(-1, 3)
    power = shell_power(law, edges)
    spectra = [power_spectrum(part, lattice, bins=edges) for part in (x, reference)]
    found = _listed("power", *((part.power / power, part.error / power) for part in spectra))
    try:
        three = shell_bispectrum(law, edges, equal)
        ours, theirs = (bispectrum(part, lattice, edges=edges, triangles=equal) for part in (x, reference))
    except DataError:
        return found
    ratios = [(part.value / three, part.error / three.abs()) for part in (ours, theirs)]
    return found + _listed("bispectrum", *ratios)


def _listed(name: str, ours: tuple[Tensor, Tensor], theirs: tuple[Tensor, Tensor]) -> list[Observable]:
    columns = zip(*(part.tolist() for part in (*ours, *theirs)), strict=True)
    return [
        Observable(f"{name}_{index + 1}", value, error, 1.0, other, spread)
        for index, (value, error, other, spread) in enumerate(columns)
    ]


def _quarters(lattice: Lattice) -> Tensor:
    """Edges of four bins up to half the Nyquist wavenumber, in rad/site; of fewer below 16 sites, so that each holds
    modes."""
    side = min(lattice.shape)
    last = max(1, side // 4)
    return torch.linspace(0.5, last + 0.5, min(4, last) + 1, dtype=torch.float64) * 2 * math.pi / side
