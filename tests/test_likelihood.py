"""How likely fields are to a diffusion: the exact density of Gaussian fields, by both ways, scale by scale."""

import math
from dataclasses import replace

import pytest
import torch

from renorm.bases import basis_for
from renorm.diffusion.denoiser import GaussianDenoiser
from renorm.diffusion.likelihood import bits_per_dimension, flow_log_prob, variational_bound
from renorm.diffusion.mode_diffusion import ModeDiffusion
from renorm.diffusion.presets import rgdm_images, separated, variance_exploding, white
from renorm.diffusion.regulator import LogSquared, Sharpened
from renorm.diffusion.spec import DiffusionSpec
from renorm.lattice import Lattice
from renorm.laws.gaussian_field import GaussianField
from renorm.model import Grade

LATTICE = Lattice((12, 12))
SPECTRUM = (LATTICE.k_sq() + 0.3**2) ** -1.5
SCHEDULES = {
    "paper": rgdm_images(LATTICE),
    "white": white(LATTICE),
    "edm": variance_exploding(LATTICE),
    "separated": separated(LATTICE, SPECTRUM, regulator=Sharpened(LogSquared(), 0.5), floor=0.03),
    "sharpened": rgdm_images(LATTICE, regulator=LogSquared()),
}


def density(x, spectrum=SPECTRUM, mean=0.0):
    return -0.5 * ((x - mean) ** 2 / spectrum + torch.log(2 * math.pi * spectrum))


def fields(num, seed=0):
    noise = torch.randn(num, 1, *LATTICE.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return SPECTRUM.sqrt() * noise


def generator(seed=1):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("way", [variational_bound, flow_log_prob], ids=["bound", "flow"])
def test_gaussian_fields_of_a_known_spectrum_have_their_own_density(name, way):
    """Field by field and mode by mode."""
    schedule, x = SCHEDULES[name], fields(8)
    found = way(schedule, GaussianDenoiser(schedule, SPECTRUM), x, generator=generator(), spectrum=SPECTRUM)
    torch.testing.assert_close(found, density(x), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_flow_finds_the_density_of_a_spectrum_that_it_was_not_told(name):
    schedule, x = SCHEDULES[name], fields(8)
    if schedule.entry == "prior":
        schedule = replace(schedule, prior_spectrum=2 * schedule.prior_spectrum, dead_beyond=math.inf)
    found = flow_log_prob(schedule, GaussianDenoiser(schedule, SPECTRUM), x, generator=generator())
    bits = bits_per_dimension(found.flatten(1).sum(1), LATTICE.sites)
    exact = bits_per_dimension(density(x).flatten(1).sum(1), LATTICE.sites)
    assert float((bits - exact).abs().max()) < 5e-3
    assert float((bits - exact).mean().abs()) < 1e-3


@pytest.mark.parametrize("name", ["paper", "white", "sharpened"])
def test_the_bound_is_the_density_on_average(name):
    """Of a spectrum that it was not told: right within 4 standard errors."""
    schedule, x = SCHEDULES[name], fields(600)
    found = variational_bound(schedule, GaussianDenoiser(schedule, SPECTRUM), x, generator=generator(), evaluations=60)
    off = (found - density(x)).flatten(1).sum(1)
    assert float(off.mean().abs()) < 4 * float(off.std()) / len(x) ** 0.5


def test_the_bound_of_a_wrong_denoiser_is_lower():
    schedule, x = SCHEDULES["paper"], fields(200)
    wrong = GaussianDenoiser(schedule, 3 * SPECTRUM)
    for spectrum in (None, SPECTRUM):
        found = variational_bound(schedule, wrong, x, generator=generator(), spectrum=spectrum)
        off = (found - density(x)).flatten(1).sum(1)
        assert float(off.mean()) < -4 * float(off.std()) / len(x) ** 0.5


def test_the_flow_is_of_fourth_order():
    """Twice the steps, a sixteenth of the error."""
    schedule, x = SCHEDULES["white"], fields(4)
    denoiser = GaussianDenoiser(schedule, SPECTRUM)
    found = [flow_log_prob(schedule, denoiser, x, generator=generator(), evaluations=n) for n in (60, 120, 960)]
    error = [float((one - found[-1]).abs().mean()) for one in found[:-1]]
    assert 3.0 < math.log2(error[0] / error[1]) < 6.0


def test_modes_that_mix_are_right_on_average_over_the_signs():
    """A denoiser of correlated modes: the trace is that of its Jacobian, as a mean over many vectors of signs."""
    lattice = Lattice((4,))
    root = torch.randn(4, 4, generator=generator(3), dtype=torch.float64)
    covariance = root @ root.T / 4 + 0.2 * torch.eye(4, dtype=torch.float64)
    schedule = white(lattice)

    def denoiser(modes, t, condition=None):
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        total = alpha[:, None] * covariance * alpha + torch.diag(sigma**2)
        return modes @ torch.linalg.solve(total, alpha[:, None] * covariance)

    x = torch.tensor([[[0.3, -0.5, 0.8, 0.1]]], dtype=torch.float64)
    exact = torch.distributions.MultivariateNormal(torch.zeros(4, dtype=torch.float64), covariance).log_prob(x[0, 0])
    found = flow_log_prob(schedule, denoiser, x.expand(64, 1, 4), generator=generator(), evaluations=200)
    total = found.flatten(1).sum(1)
    assert abs(float(total.mean() - exact)) < 4 * float(total.std()) / 8 + 2e-3


def test_the_hallway_has_them():
    """A model of Gaussian data: its grade, both ways, shares by level, the same number for the same field."""
    law = GaussianField((16, 16), mass_sq=0.16)
    x = law.sample(4000, generator=generator())
    model = ModeDiffusion(DiffusionSpec(denoiser="gaussian", isotropic=True), law.lattice).fit(x)
    assert model.grade is Grade.BOUND
    exact = law.log_prob(x[:50]).double()
    for method in ("bound", "flow"):
        found = model.log_prob(x[:50], method=method).double()
        assert float((found - exact).mean().abs()) < 1.0  # of 256 modes, with a measured spectrum
        parts = model.log_prob(x[:50], method=method, per_level=True)
        assert parts.shape == (50, len(model.levels))
        torch.testing.assert_close(parts.sum(1).double(), found, rtol=1e-5, atol=1e-2)
    assert torch.equal(model.log_prob(x[:3]), model.log_prob(x[:3]))
    coarsest = int(model.levels[-1].modes)
    assert float(parts[:, 0].abs().mean()) <= 8 * coarsest


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("way", [variational_bound, flow_log_prob], ids=["bound", "flow"])
def test_fields_about_a_mean_have_their_own_density(name, way):
    """A mean of many standard deviations: all of it is said about the mean."""
    schedule, mean = SCHEDULES[name], 30 * SPECTRUM.sqrt()
    x = fields(8) + mean
    denoiser = GaussianDenoiser(schedule, SPECTRUM, mean)
    found = way(schedule, denoiser, x, generator=generator(), mean=mean, spectrum=SPECTRUM)
    torch.testing.assert_close(found, density(x, mean=mean), rtol=0, atol=1e-4)


@pytest.mark.parametrize("way", [variational_bound, flow_log_prob], ids=["bound", "flow"])
def test_modes_that_no_scale_knows_have_their_gaussian_law(way):
    """Some are dead at the finest scale already: they are drawn with the data's variance, and so they count."""
    schedule, x = SCHEDULES["white"], fields(8)
    least = SPECTRUM.flatten().quantile(0.3)
    faint = (SPECTRUM - least) < 0
    schedule = replace(schedule, dead_beyond=torch.where(faint, 1e-12, float("inf")))
    assert not bool(schedule.alive(0.0)[faint].any())
    found = way(schedule, GaussianDenoiser(schedule, SPECTRUM), x, generator=generator(), spectrum=SPECTRUM)
    torch.testing.assert_close(found, density(x), rtol=0, atol=1e-4)


def test_bad_values_are_refused():
    schedule, x = SCHEDULES["paper"], fields(1)
    denoiser = GaussianDenoiser(schedule, SPECTRUM)
    with pytest.raises(ValueError, match=r"at least 2 evaluations.*got 1"):
        variational_bound(schedule, denoiser, x, generator=generator(), evaluations=1)
    with pytest.raises(ValueError, match=r"at least 4 evaluations.*got 3"):
        flow_log_prob(schedule, denoiser, x, generator=generator(), evaluations=3)
    model = ModeDiffusion(DiffusionSpec(denoiser="gaussian"), LATTICE).fit(
        basis_for(LATTICE).inverse(fields(50)).float()
    )
    with pytest.raises(ValueError, match="method must be"):
        model.log_prob(torch.zeros(1, 1, 12, 12), method="guess")
    with pytest.raises(ValueError, match="fields must be"):
        model.log_prob(torch.zeros(1, 1, 8, 8))
