"""Spacings that look at the data's spectrum: their definitions, recomputed; and the Gaussian law at a walk's start."""

import math
from itertools import pairwise

import pytest
import torch

from renorm.diffusion.denoiser import denoiser_gain
from renorm.diffusion.mode_diffusion import ModeDiffusion
from renorm.diffusion.moments import Moments
from renorm.diffusion.presets import rgdm_chain, rgdm_images
from renorm.diffusion.regulator import Exponential, LogSquared, Rational
from renorm.diffusion.reverse import Walk, start
from renorm.diffusion.schedule import CLEAN
from renorm.diffusion.spacing import SPACINGS, ModeShare, NoiseShare, Window, grid
from renorm.diffusion.spec import BY_SPECTRUM, DiffusionSpec
from renorm.lattice import Lattice

LATTICE = Lattice((8, 8))
SPECTRUM = 1 / (LATTICE.k_sq() + 0.3)
REGULATORS = [Rational(), LogSquared(), Exponential()]


def ratios(schedule, t):
    """Mean signal-to-noise ratio of each octave, mode by mode."""
    sums: dict[int, list[float]] = {}
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    for i in range(8):
        for j in range(8):
            k = math.hypot(i, j)  # in units of the fundamental
            octave = int(math.log2(k)) if k >= 1 else 0
            sums.setdefault(octave, []).append(float(alpha[i, j] ** 2 * SPECTRUM[i, j] / sigma[i, j] ** 2))
    return [sum(values) / len(values) for _, values in sorted(sums.items())]


@pytest.mark.parametrize("regulator", REGULATORS, ids=lambda r: type(r).__name__)
def test_a_window_begins_where_all_octaves_are_lost_and_ends_where_all_are_clear(regulator):
    schedule = rgdm_images(LATTICE, regulator=regulator)
    times = Window(SPECTRUM).exact_grid(9, schedule)
    assert max(ratios(schedule, times[0])) == pytest.approx(1 / 3, rel=1e-6)
    assert min(ratios(schedule, times[-1])) == pytest.approx(3.0, rel=1e-6)
    steps = [a - b for a, b in pairwise(times)]  # t is linear in the logarithm of the cutoff
    assert steps == pytest.approx([steps[0]] * 8)
    assert grid(Window(SPECTRUM), schedule, 9) == [*times, CLEAN]
    assert max(ratios(schedule, *Window(SPECTRUM).exact_grid(1, schedule))) == pytest.approx(0.5, rel=1e-6)
    assert min(ratios(schedule, Window(SPECTRUM).exact_grid(60, schedule)[-1])) == pytest.approx(20.0, rel=1e-6)


@pytest.mark.parametrize("regulator", REGULATORS, ids=lambda r: type(r).__name__)
def test_noise_share_is_even_in_the_mean_share_of_noise_of_the_octaves(regulator):
    schedule = rgdm_images(LATTICE, regulator=regulator)
    u = torch.linspace(0.05, 0.95, 10, dtype=torch.float64)
    t = NoiseShare(SPECTRUM).quantile(u, schedule)

    def share(s: float) -> float:
        sums: dict[int, list[float]] = {}
        noise, signal = schedule.sigma(s) ** 2, schedule.alpha(s) ** 2 * SPECTRUM
        for i in range(8):
            for j in range(8):
                octave = int(math.log2(max(math.hypot(i, j), 1.0)))
                sums.setdefault(octave, []).append(float(noise[i, j] / (noise[i, j] + signal[i, j])))
        return sum(sum(v) / len(v) for v in sums.values()) / len(sums)

    first, last = share(0.0), share(1.0)
    found = torch.tensor([(share(s) - first) / (last - first) for s in t.tolist()])
    assert (found - u).abs().max() < 2e-3  # one in a thousand is spread evenly


@pytest.mark.parametrize("sites", [12, 57])
@pytest.mark.parametrize("everywhere", [0.001, 0.25])
def test_mode_share_is_even_in_the_mean_share_of_noise_of_the_modes_that_move(sites, everywhere):
    schedule = rgdm_chain(sites)
    spectrum = torch.rand(sites, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.5
    u = torch.linspace(0.05, 0.95, 10, dtype=torch.float64)
    t = ModeShare(spectrum, everywhere, resolution=4096).quantile(u, schedule)

    def share(s: float) -> float:
        noise, signal = schedule.sigma(s) ** 2, schedule.alpha(s) ** 2 * spectrum
        return sum(float(noise[k] / (noise[k] + signal[k])) for k in range(1, sites)) / (sites - 1)

    first, last = share(0.0), share(1.0)
    found = [(1 - everywhere) * (share(s) - first) / (last - first) + everywhere * s for s in t.tolist()]
    assert found == pytest.approx(u.tolist(), abs=2e-3)


@pytest.mark.parametrize(
    "spacing", [NoiseShare(SPECTRUM), ModeShare(SPECTRUM), Window(SPECTRUM)], ids=lambda s: type(s).__name__
)
@pytest.mark.parametrize("regulator", REGULATORS, ids=lambda r: type(r).__name__)
def test_quantiles_rise_from_the_finest_scale_to_the_coarsest(spacing, regulator):
    schedule = rgdm_images(LATTICE, regulator=regulator)
    t = spacing.quantile(torch.linspace(0, 1, 1001, dtype=torch.float64), schedule)
    assert t[0] == 0
    assert t[-1] == pytest.approx(1)
    assert (t.diff() > 0).all()
    part = grid(spacing, schedule, 4, start=0.99, stop=0.9)  # above the window, where few steps lie
    assert part[0] == 0.99
    assert part[-1] == 0.9
    assert all(a > b for a, b in pairwise(part))


def test_data_without_variance_have_the_whole_range():
    schedule = rgdm_images(LATTICE)
    nothing = torch.zeros(8, 8, dtype=torch.float64)
    assert Window(nothing).exact_grid(3, schedule) == [1.0, 0.5, 0.0]
    u = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)
    assert torch.allclose(NoiseShare(nothing).quantile(u, schedule), u)


def test_a_walk_starts_and_modes_enter_with_the_mean_and_variance_of_the_data():
    schedule = rgdm_images(LATTICE, regulator=LogSquared())
    t, noise = 0.8, torch.ones(1, 1, 8, 8, dtype=torch.float64)
    mean = 2 * torch.ones(8, 8, dtype=torch.float64)
    alpha, sigma, alive = schedule.alpha(t), schedule.sigma(t), schedule.alive(t)
    std = start(schedule, t, noise, spectrum=SPECTRUM)[0, 0]
    assert torch.allclose(std[alive] ** 2, (alpha**2 * SPECTRUM + sigma**2)[alive])
    assert torch.allclose((start(schedule, t, noise, mean, SPECTRUM)[0, 0] - std)[alive], (2 * alpha)[alive])
    assert 0 < int(alive.sum()) < 64
    assert not std[~alive].any()
    walk = Walk(schedule, lambda *_: noise, lambda: noise, None, noise, spectrum=SPECTRUM)
    walk.enter(t, 0.5)
    fresh = schedule.shell(t, 0.5)
    entered = walk.admit(torch.zeros_like(noise))[0, 0]
    assert fresh.any()
    expected = schedule.alpha(0.5) ** 2 * SPECTRUM + schedule.sigma(0.5) ** 2
    assert torch.allclose(entered[fresh] ** 2, expected[fresh])


@pytest.mark.parametrize("regulator", ["rational", "log-squared", "exponential"])
def test_gaussian_data_are_reached_in_few_steps_from_where_they_are_lost(regulator):
    spec = DiffusionSpec(
        denoiser="gaussian", regulator=regulator, subtract_mean=True, sampler="running", spacing="window", steps=3
    )
    lattice = Lattice((16,))  # on a line every shell is one mode, where the sampler is exact
    spectrum = 1 / (lattice.k_sq() + 0.3)
    model = ModeDiffusion(spec, lattice, moments=Moments(torch.ones(1, 16, dtype=torch.float64), spectrum))
    modes = model.basis.forward(model.sample(4000, generator=torch.Generator().manual_seed(0)))[:, 0].double()
    assert (modes.var(0) / spectrum - 1).abs().max() < 4.5 * math.sqrt(2 / 4000)
    assert ((modes.mean(0) - 1) / spectrum.sqrt()).abs().max() < 4.5 / math.sqrt(4000)


@pytest.mark.parametrize("spacing", SPACINGS)
def test_fields_are_refined_from_where_they_stand(spacing):
    """Slope of the fine mean on the coarse one: the exact denoiser's gain, also where a walk would begin later."""
    lattice = Lattice((16,))
    spectrum = 30 / (lattice.k_sq() + 0.3)
    spec = DiffusionSpec(denoiser="gaussian", regulator="log-squared", spacing=spacing, steps=60)
    model = ModeDiffusion(spec, lattice, moments=Moments(torch.zeros(1, 16, dtype=torch.float64), spectrum))
    generator = torch.Generator().manual_seed(0)
    last = len(model.levels) - 1
    modes = spectrum.sqrt() * torch.randn(3000, 1, 16, generator=generator, dtype=torch.float64)
    coarse = model.coarsen(model.basis.inverse(modes), last, generator=generator)
    fine = model.refine(coarse, level=last, generator=generator)
    a, b = (model.basis.forward(x)[:, 0, 0].double() for x in (coarse, fine))
    t = model.levels[last].scale
    exact = denoiser_gain(model.schedule.alpha(t), model.schedule.sigma(t), spectrum)[0]
    error = math.sqrt(float((b - exact * a).var() / a.var()) / 3000)
    assert abs(float((a * b).mean() / (a * a).mean()) - exact) < 4.5 * error + 0.05 * exact


@pytest.mark.parametrize("shape", [(1,), (1, 1), (2,), (1, 8), (3, 5, 4)], ids=str)
@pytest.mark.parametrize("regulator", REGULATORS, ids=lambda r: type(r).__name__)
def test_lattices_of_any_shape(shape, regulator):
    lattice = Lattice(shape)
    schedule = rgdm_images(lattice, regulator=regulator)
    spectrum = 1 / (lattice.k_sq() + 0.3)
    for spacing in (NoiseShare(spectrum), ModeShare(spectrum), Window(spectrum)):
        times = grid(spacing, schedule, 6)
        assert all(a > b for a, b in pairwise(times))
        assert 0 <= times[-2] < times[0] <= 1


def test_modes_that_hold_nothing_or_take_no_part_do_not_widen_the_window():
    schedule = rgdm_images(LATTICE)
    limited = torch.where(LATTICE.k_sq() < 1.0, SPECTRUM, 0.0)
    empty = torch.where(LATTICE.k_sq() < (math.pi / 8 * 3.9) ** 2, SPECTRUM, 0.0)  # no mode of the last octaves
    assert Window(empty).exact_grid(4, schedule)[-1] > 0
    assert Window(limited).exact_grid(4, schedule)[-1] > 0
    chain = rgdm_chain(32)
    k = chain.lattice.k_sq()
    spectrum = 1 / (k + 0.01)
    t = Window(spectrum).exact_grid(4, chain)[0]
    assert float(chain.alpha(t)[1] ** 2 * spectrum[1] / chain.sigma(t)[1] ** 2) == pytest.approx(0.5, rel=1e-3)


def test_the_registry_and_the_spec_name_the_same_spacings_by_spectrum():
    fields = {name: getattr(kind, "__dataclass_fields__", {}) for name, kind in SPACINGS.items()}
    assert {name for name, of in fields.items() if "spectrum" in of} == set(BY_SPECTRUM)
