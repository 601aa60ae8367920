"""Denoisers and their training targets: against closed forms, numbers by hand, and each other."""

import math

import pytest
import torch
from torch import nn

from renorm.bases import basis_for
from renorm.diffusion.denoiser import (
    CleanField,
    ColouredNoise,
    GaussianDenoiser,
    NetworkDenoiser,
    Preconditioned,
    Velocity,
)
from renorm.diffusion.objective import denoising_loss
from renorm.diffusion.presets import calibrated, rgdm_images, variance_exploding, white
from renorm.diffusion.regulator import REGULATORS
from renorm.lattice import Lattice

LATTICE = Lattice((4, 3), "periodic", channels=2)
SPECTRUM = 1 / (LATTICE.k_sq() + 0.3)
MEAN = torch.linspace(-2, 2, 24, dtype=torch.float64).reshape(2, 4, 3)
SCHEDULES = {
    "rgdm": rgdm_images(LATTICE),
    "white": white(LATTICE),
    "edm": variance_exploding(LATTICE),
    "calibrated": calibrated(LATTICE, SPECTRUM),
}
PREDICTIONS = {
    "coloured-noise": ColouredNoise(),
    "clean-field": CleanField(),
    "velocity": Velocity(),
    "preconditioned": Preconditioned(SPECTRUM),
    "preconditioned-mean": Preconditioned(SPECTRUM, MEAN),
}
TIMES = [0.0, 0.4, 0.97, 1.0]


@pytest.fixture(params=SCHEDULES)
def schedule(request):
    return SCHEDULES[request.param]


def draw(generator, number=5):
    return torch.randn(number, 2, 4, 3, generator=generator, dtype=torch.float64)


def zero(x, t, condition=None):
    return torch.zeros_like(x)


def answering(target, lattice=LATTICE):
    """A network that gives the modes ``target``, whatever it is shown."""
    return lambda x, t, condition=None: basis_for(lattice).inverse(target)


def target_by_hand(name, schedule, t, clean, noise):
    """What each prediction asks for, from its own definition, as a function of the clean modes and the noise."""
    alpha, sigma, prior = schedule.alpha(t), schedule.sigma(t), schedule.prior_spectrum
    theta = torch.atan2(sigma, alpha * prior.sqrt())
    if name == "coloured-noise":
        return schedule.weight(t) * sigma * noise
    if name == "clean-field":
        return clean
    if name == "velocity":
        return theta.cos() * prior.sqrt() * noise - theta.sin() * clean
    centred = clean - (MEAN if name == "preconditioned-mean" else 0)
    return (sigma * centred - alpha * SPECTRUM * noise) / (SPECTRUM * (alpha**2 * SPECTRUM + sigma**2)).sqrt()


@pytest.mark.parametrize("name", PREDICTIONS)
@pytest.mark.parametrize("t", TIMES)
def test_the_exact_target_gives_back_the_clean_field(name, t, schedule, generator):
    clean, noise = draw(generator), draw(generator)
    modes = schedule.alpha(t) * clean + schedule.sigma(t) * noise
    target = target_by_hand(name, schedule, t, clean, noise)
    prediction = PREDICTIONS[name]
    found = NetworkDenoiser(answering(target), schedule, prediction)(modes, t)
    dead = torch.zeros(()).double() if prediction.mean is None else prediction.mean
    expected = torch.where(schedule.alive(t), clean, dead)
    # the noise is up to 160 times the field at the coarse end of EDM, and is taken away again
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", PREDICTIONS)
def test_the_exact_target_has_no_loss(name, schedule, generator):
    """The loss compares with the same target as the denoiser inverts, a scale for each field."""
    clean, noise = draw(generator, 4), draw(generator, 4)
    t = torch.tensor(TIMES, dtype=torch.float64)
    target = torch.stack([target_by_hand(name, schedule, s, c, z) for s, c, z in zip(TIMES, clean, noise, strict=True)])
    x = basis_for(LATTICE).inverse(clean)
    denoiser = NetworkDenoiser(answering(target), schedule, PREDICTIONS[name])
    assert denoising_loss(denoiser, x, t, noise).item() < 1e-16 * target.square().mean().item() + 1e-18


@pytest.mark.parametrize("mean", [None, MEAN], ids=["centred", "mean"])
@pytest.mark.parametrize("t", TIMES)
def test_a_zero_residual_is_the_gaussian_denoiser(mean, t, schedule, generator):
    """Preconditioned by the spectrum, a network that outputs zero is exact for Gaussian data."""
    modes = torch.where(schedule.alive(t), draw(generator), 0.0)
    ours = NetworkDenoiser(zero, schedule, Preconditioned(SPECTRUM, mean))(modes, t)
    exact = GaussianDenoiser(schedule, SPECTRUM, mean)(modes, t)
    alive = schedule.alive(t).expand_as(modes)
    torch.testing.assert_close(ours[alive], exact[alive], rtol=1e-12, atol=1e-12)


def test_the_gaussian_denoiser_is_the_regression_on_samples(generator):
    """Least squares of the clean modes on the noisy ones: slope and offset within 5 standard errors."""
    schedule, t, n = SCHEDULES["rgdm"], 0.6, 20_000
    clean = MEAN + SPECTRUM.sqrt() * draw(generator, n)
    modes = schedule.alpha(t) * clean + schedule.sigma(t) * draw(generator, n)
    residual = clean - GaussianDenoiser(schedule, SPECTRUM, MEAN)(modes, t)
    centred = modes - modes.mean(0)
    for moment in (residual, residual * centred):  # E = 0, and nothing left to explain
        assert (moment.mean(0) / moment.std(0)).abs().max() < 5 / math.sqrt(n)


@pytest.mark.parametrize(
    "make",
    [lambda s: GaussianDenoiser(s, SPECTRUM, MEAN)]
    + [lambda s, p=p: NetworkDenoiser(lambda x, t, condition=None: x.cos(), s, p) for p in PREDICTIONS.values()],
    ids=["gaussian", *PREDICTIONS],
)
def test_a_batch_of_scales_is_the_scales_one_by_one(make, schedule, generator):
    modes, denoiser = draw(generator, 4), make(schedule)
    together = denoiser(modes, torch.tensor(TIMES, dtype=torch.float64))
    for i, t in enumerate(TIMES):
        torch.testing.assert_close(together[i : i + 1], denoiser(modes[i : i + 1], t), rtol=1e-9, atol=1e-9)


# -- the size of the target ------------------------------------------------------------------------------------------


def scales(number, generator):
    return torch.rand(number, generator=generator, dtype=torch.float64)


def test_loss_of_silence_is_the_mean_prior(generator):
    """With coloured noise it is mean_k G_k, 0.13282691572947927 at L = 32, whatever the data and the scales."""
    lattice, n = Lattice((32, 32)), 256
    schedule = rgdm_images(lattice)
    t = scales(n, generator)
    x = 3 * torch.randn(n, 1, 32, 32, generator=generator, dtype=torch.float64)
    noise = torch.randn(n, 1, 32, 32, generator=generator, dtype=torch.float64)
    loss = denoising_loss(NetworkDenoiser(zero, schedule, ColouredNoise()), x, t, noise)
    power = schedule.weight(t)[:, None, None] ** 2 * torch.where(schedule.alive(t), schedule.sigma(t) ** 2, 0.0)
    error = (2 * power**2).sum().sqrt().item() / power.numel()  # z^2 has variance 2
    assert error < 0.005
    assert abs(loss.item() - 0.13282691572947927) < 5 * error


@pytest.mark.parametrize("i", range(5))
def test_the_target_by_hand(i):
    """The 4 x 4 unit table: with noise 1 in every mode the mean square is (0.0225 / 16) sum 1 / (n^2 / 16 + 0.16)."""
    schedule = rgdm_images(Lattice((4, 4)), steps=5)
    ones = torch.ones(1, 1, 4, 4, dtype=torch.float64)
    denoiser = NetworkDenoiser(zero, schedule, ColouredNoise())
    loss = denoising_loss(denoiser, 7 * ones, torch.tensor([i / 4], dtype=torch.float64), ones)
    assert abs(loss.item() - 0.0527685) < 1e-7


@pytest.mark.parametrize("mean", [None, MEAN], ids=["centred", "mean"])
def test_preconditioned_targets_have_unit_variance(mean, schedule, generator):
    """On Gaussian data every mode that is alive has a target of variance 1, at every scale."""
    n = 4000
    t = scales(n, generator)
    clean = SPECTRUM.sqrt() * draw(generator, n) + (0 if mean is None else mean)
    x, noise = basis_for(LATTICE).inverse(clean), draw(generator, n)
    loss = denoising_loss(NetworkDenoiser(zero, schedule, Preconditioned(SPECTRUM, mean)), x, t, noise)
    alive = schedule.alive(t).double()
    assert abs(loss.item() - alive.mean().item()) < 5 * math.sqrt(2 / (2 * alive.sum().item()))


# -- projections and frames ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PREDICTIONS)
def test_the_network_stands_between_two_projections(name, generator):
    """It sees nothing of the dead modes, and what it says of them is not heard."""
    schedule, basis, t = SCHEDULES["rgdm"], basis_for(LATTICE), 0.97
    alive = schedule.alive(t)
    assert 0 < alive.sum() < alive.numel()
    seen = []

    def network(x, times, condition=None):
        seen.append(x)
        assert times.shape == (len(x),)
        return torch.randn(x.shape, generator=generator, dtype=x.dtype)

    denoiser = NetworkDenoiser(network, schedule, PREDICTIONS[name])
    modes = draw(generator)
    said = denoiser.raw(modes, t)
    assert basis.forward(seen[0])[:, :, ~alive].abs().max() < 1e-14
    assert (said[:, :, ~alive] == 0).all()
    assert (said[:, :, alive] != 0).all()
    other = torch.where(alive, modes, 100.0)
    denoiser.raw(other, t)
    torch.testing.assert_close(seen[1], seen[0], rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", PREDICTIONS)
def test_exploding_variance_is_the_same_flow_in_another_frame(name, generator):
    """phi_VE = phi_VP / alpha: the same network sees the same input and says the same clean field."""
    exploding = variance_exploding(LATTICE, data_std=0.5)
    preserving = white(LATTICE, variance=0.25, snr_fine=exploding.cutoff_fine**2, snr_coarse=exploding.cutoff_coarse**2)
    clean, noise = draw(generator), draw(generator)

    def network(x, t, condition=None):
        return x.sin() + t.reshape(-1, 1, 1, 1)

    for t in (0.1, 0.5, 0.9):
        fields = [s.alpha(t) * clean + s.sigma(t) * noise for s in (exploding, preserving)]
        torch.testing.assert_close(fields[0], fields[1] / preserving.alpha(t), rtol=1e-12, atol=1e-12)
        found = [
            NetworkDenoiser(network, s, PREDICTIONS[name])(f, t)
            for s, f in zip((exploding, preserving), fields, strict=True)
        ]
        torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", PREDICTIONS)
def test_gradients_reach_every_weight(name, schedule, generator):
    class Small(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.scale = nn.Conv2d(2, 2, 3, padding=1), nn.Linear(1, 2)

        def forward(self, x, t, condition=None):
            return self.conv(x) + self.scale(t[:, None])[:, :, None, None]

    network = Small()
    x, noise = draw(generator, 8).float(), draw(generator, 8).float()
    loss = denoising_loss(NetworkDenoiser(network, schedule, PREDICTIONS[name]), x, scales(8, generator), noise)
    loss.backward()
    for parameter in network.parameters():
        assert parameter.grad.isfinite().all()
        assert (parameter.grad != 0).any()


def test_a_condition_reaches_the_network(generator):
    classes = torch.tensor([3, 1, 4, 1, 5])
    seen = []

    def network(x, t, condition):
        seen.append(condition)
        return x

    NetworkDenoiser(network, SCHEDULES["white"], CleanField())(draw(generator), 0.5, classes)
    assert torch.equal(seen[0], classes)


@pytest.mark.parametrize("name", ["exponential", "log-squared", "litim", "rational"])
@pytest.mark.parametrize("prediction", [ColouredNoise(), CleanField(), Velocity()], ids=lambda p: type(p).__name__)
def test_dead_modes_never_bring_an_infinity(name, prediction):
    """Where alpha underflows float32, 1/alpha is infinite: those modes are dead, and must not poison the loss."""
    schedule = rgdm_images(Lattice((32, 32)), regulator=REGULATORS[name]())
    denoiser = NetworkDenoiser(lambda x, t: x, schedule, prediction)
    g = torch.Generator().manual_seed(0)
    x, noise = torch.randn(4, 1, 32, 32, generator=g), torch.randn(4, 1, 32, 32, generator=g)
    t = torch.tensor([0.0, 0.3, 0.8, 1.0], dtype=torch.float64)
    assert denoising_loss(denoiser, x, t, noise).isfinite()
    assert denoiser(noise, 1.0).isfinite().all()


@pytest.mark.parametrize("prediction", [ColouredNoise(), CleanField(), Velocity()], ids=lambda p: type(p).__name__)
def test_coefficients_live_where_the_scales_are(prediction):
    """On another device than the schedule's (here: meta) nothing is mixed."""
    schedule = rgdm_images(Lattice((8, 8)))
    t = torch.zeros(3, dtype=torch.float64, device="meta")
    assert all(c.device.type == "meta" for c in prediction.coefficients(schedule, t))


@pytest.mark.parametrize("value", [-1.0, float("inf"), float("nan")])
def test_a_spectrum_that_cannot_be(value):
    spectrum = torch.tensor([1.0, value], dtype=torch.float64)
    with pytest.raises(ValueError, match="a spectrum must be >= 0 and finite"):
        Preconditioned(spectrum)
    with pytest.raises(ValueError, match="a spectrum must be >= 0 and finite"):
        GaussianDenoiser(rgdm_images(Lattice((2,))), spectrum)
