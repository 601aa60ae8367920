"""Every sampler has the order that it declares, and carries Gaussian data to Gaussian data."""

import dataclasses
import math
from itertools import pairwise

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from renorm.bases import basis_for
from renorm.diffusion.denoiser import GaussianDenoiser
from renorm.diffusion.presets import calibrated, ddpm_linear, rgdm_chain, rgdm_images, variance_exploding, white
from renorm.diffusion.regulator import REGULATORS
from renorm.diffusion.reverse import start, walk_up
from renorm.diffusion.running import RunningSpectrum, _shell_sums, _shells, shell_index
from renorm.diffusion.sampler import SAMPLERS, Ancestral, Angle, AnglePC
from renorm.diffusion.schedule import CLEAN
from renorm.diffusion.spacing import (
    SPACINGS,
    Cosine,
    EqualError,
    InfraredAngle,
    Karras,
    LinearBeta,
    LogNormal,
    LogUniform,
    grid,
)
from renorm.diffusion.transport import gaussian_kl, transported_variance
from renorm.lattice import Lattice
from renorm.testing import check_sampler_order

NAMES = sorted(SAMPLERS)
CARRIED = [name for name in NAMES if name != "running-churn"]  # it remembers and draws: no amplitude carries its law
EXACT_ON_GAUSSIANS = {"running", "running-churn"}  # their order is measured on another law


def marginal_variance(schedule, spectrum):
    return lambda t: schedule.alpha(t) ** 2 * spectrum + schedule.sigma(t) ** 2


def order_of(sampler, schedule, spectrum):
    """``check_sampler_order`` on Gaussian data of this spectrum; the measured order."""

    def transport(sampler, times, initial):
        return transported_variance(schedule, spectrum, sampler, times, initial=initial)

    return check_sampler_order(sampler, transport=transport, variance=marginal_variance(schedule, spectrum))


@pytest.mark.parametrize("name", sorted(set(SAMPLERS) - EXACT_ON_GAUSSIANS))
@pytest.mark.parametrize("make", [white, rgdm_images, variance_exploding], ids=lambda f: f.__name__)
def test_order_is_the_declared_one(name, make):
    schedule = dataclasses.replace(make(Lattice((3,))), dead_beyond=math.inf)  # a shell has no order
    spectrum = torch.tensor([3.0, 1.5, 0.1], dtype=torch.float64) * schedule.prior_spectrum
    order_of(SAMPLERS[name](), schedule, spectrum)


def test_a_sampler_that_boasts_is_caught():
    """Euler's method that declares order 2."""

    @dataclasses.dataclass(frozen=True)
    class Boaster(Angle):
        order = 2

    schedule = white(Lattice((3,)))
    spectrum = torch.tensor([3.0, 1.5, 0.1], dtype=torch.float64)
    with pytest.raises(AssertionError, match="Boaster has the order that it declares, 2, got 1"):
        order_of(Boaster(), schedule, spectrum)


@pytest.mark.parametrize("make", [white, rgdm_images, variance_exploding], ids=lambda f: f.__name__)
@pytest.mark.parametrize("factor", [7.0, 0.1])
def test_ancestral_steps_of_the_datas_variance_are_exact(make, factor):
    """Long steps, that to clean data among them, reach the law of Gaussian data of any spectrum."""
    schedule = dataclasses.replace(make(Lattice((4,))), dead_beyond=math.inf)
    spectrum = factor * schedule.prior_spectrum * torch.tensor([1.0, 2.0, 0.5, 1.0], dtype=torch.float64)
    law = marginal_variance(schedule, spectrum)
    for times in ([1.0, 0.6, 0.1], [1.0, 0.5, CLEAN]):
        variance = transported_variance(schedule, spectrum, Ancestral(spectrum), times, initial=law(1.0))
        torch.testing.assert_close(variance, law(times[-1]), rtol=1e-9, atol=0)


@pytest.mark.parametrize("make", [white, rgdm_images], ids=lambda f: f.__name__)
def test_limits_of_the_ancestral_variance(make):
    """P = G is "large" (the paper), P = 0 is "small", whatever the data."""
    schedule = make(Lattice((4,)))
    prior = schedule.prior_spectrum
    times = grid(LogUniform(), schedule, 5, stop=0.0)  # to clean data the limits go without noise
    for name, spectrum in (("large", prior), ("small", 0 * prior)):
        named, given = (transported_variance(schedule, 3 * prior, Ancestral(v), times) for v in (name, spectrum))
        torch.testing.assert_close(given, named, rtol=1e-9, atol=0)


@pytest.mark.parametrize("name", CARRIED)
def test_the_gaussian_law_is_reached(name):
    """1000 evaluations bring every sampler within 0.1 nats on k^-2 data over 64 modes."""
    lattice = Lattice((8, 8))
    spectrum = 1 / (lattice.k_sq() + 0.05)
    spectrum = spectrum * 0.25 / spectrum.mean()
    schedule = rgdm_images(lattice)
    variance = transported_variance(schedule, spectrum, SAMPLERS[name](), grid(LogUniform(), schedule, 1000))
    assert gaussian_kl(variance, spectrum) < 0.1


EXACT = [(0.999989, 0, 0), (0.99985, 4, 4), (0.991715, 31, 31)]


def paper_ancestral(factor, steps):
    """Output variance over the data's, for data of ``factor`` times the prior, by the paper's ancestral sampler."""
    schedule = rgdm_images(Lattice((32, 32)), steps=steps)
    spectrum = factor * schedule.prior_spectrum
    return transported_variance(schedule, spectrum, Ancestral(), grid(LogUniform(), schedule, steps)) / spectrum


def test_golden_ancestral_output():
    """Computed from the formulas apart from this package; for P = G the last factor is alpha_0^2."""
    same = paper_ancestral(1.0, 200)
    for value, i, j in EXACT:
        assert abs(same[i, j].item() - value) < 2e-6
    four = paper_ancestral(4.0, 200)
    for value, i, j in [(0.97917, 0, 0), (0.979137, 4, 4), (0.977091, 31, 31)]:
        assert abs(four[i, j].item() - value) < 2e-6
    assert abs(paper_ancestral(4.0, 1000)[0, 0].item() - 0.995804) < 2e-6


def test_a_data_set_of_the_priors_spectrum_does_not_move():
    """Calibrated on the data's own spectrum, one evaluation is exact: the velocity vanishes."""
    lattice = Lattice((32, 32))
    spectrum = 1 / (lattice.k_sq() + 0.05**2) ** 1.5
    schedule = calibrated(lattice, spectrum)
    for sampler in (Angle(), AnglePC()):
        variance = transported_variance(schedule, spectrum, sampler, grid(LogUniform(), schedule, 1))
        assert gaussian_kl(variance, spectrum) < 1e-20


def test_transport_agrees_with_sampling(generator):
    """The carried variance is the variance of samples, within 5 standard errors, noise and shells included."""
    lattice = Lattice((4, 4))
    schedule = rgdm_images(lattice)
    spectrum = 1 / (lattice.k_sq() + 0.3)
    for sampler in (Ancestral(), Ancestral("small"), AnglePC()):
        times = grid(LogUniform(), schedule, 7)
        n = 40_000

        def draw(n=n):
            return torch.randn(n, 1, 4, 4, generator=generator, dtype=torch.float64)

        phi = walk_up(
            schedule, GaussianDenoiser(schedule, spectrum), sampler, times, start(schedule, 1.0, draw()), draw
        )
        expected = transported_variance(schedule, spectrum, sampler, times)
        error = (phi[:, 0] ** 2).mean(0) / expected - 1
        assert error.abs().max() < 5 * math.sqrt(2 / n)


def test_a_sampler_may_not_both_draw_and_remember():
    class Both(Ancestral):
        def step(self, phi, t, s, walk, memory):
            return super().step(phi, t, s, walk, memory)[0], "a memory"

    schedule = white(Lattice((2,)))
    with pytest.raises(ValueError, match="must have no memory"):
        transported_variance(schedule, torch.ones(2).double(), Both(), grid(LogUniform(), schedule, 3))


@pytest.mark.parametrize("name", NAMES)
def test_evaluations_are_counted_truly(name):
    calls = []
    schedule = rgdm_images(Lattice((8,)))
    exact = GaussianDenoiser(schedule, schedule.prior_spectrum)

    def counting(modes, t, condition):
        calls.append(t)
        return exact(modes, t, condition)

    generator = torch.Generator().manual_seed(0)

    def draw():
        return torch.randn(2, 1, 8, generator=generator)

    sampler = SAMPLERS[name]()
    times = grid(LogUniform(), schedule, 5)
    walk_up(schedule, counting, sampler, times, start(schedule, 1.0, draw()), draw)
    assert len(calls) == 5 * sampler.evaluations - (sampler.evaluations - 1)  # the step to clean data needs one


@pytest.mark.parametrize("name", CARRIED)
def test_chains_finish_their_slow_modes_and_never_move_the_centre(name, generator):
    """The Gaussian chain itself comes out with the prior's variance, and mode 0 stays zero."""
    schedule = rgdm_chain(24)
    times = grid(LogUniform(), schedule, 300)
    variance = transported_variance(schedule, schedule.prior_spectrum, SAMPLERS[name](), times)
    assert variance[0] == 0
    assert (variance / schedule.prior_spectrum - 1)[1:].abs().max() < 0.05


# -- the running spectrum --------------------------------------------------------------------------------------------


class TwoHumps:
    """Modes that are each N(m, v) or N(-m, v), with their exact denoiser and their exact probability flow.

    v > m^2, so that the denoiser never gives back more than it was given.
    """

    middle, variance = 1.0, 1.2

    def __init__(self, schedule):
        self.schedule = schedule

    def __call__(self, modes, t, condition=None):
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        y, noise = modes / alpha, (sigma / alpha) ** 2
        gain = self.variance / (self.variance + noise)
        hump = self.middle * torch.tanh(self.middle * y / (self.variance + noise))
        return gain * y + (1 - gain) * hump

    def distribution(self, y, t):
        width = (self.variance + (self.schedule.sigma(t) / self.schedule.alpha(t)) ** 2).sqrt()
        return sum(torch.special.ndtr((y - m) / width) for m in (self.middle, -self.middle)) / 2

    def flow(self, modes, t, s):
        """A flow in one dimension keeps the order of its points: quantiles go to quantiles."""
        share = self.distribution(modes / self.schedule.alpha(t), t)
        low, high = torch.full_like(modes, -50.0), torch.full_like(modes, 50.0)
        for _ in range(80):
            middle = (low + high) / 2
            below = self.distribution(middle, s) < share
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return self.schedule.alpha(s) * low


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("make", [white, rgdm_images, variance_exploding], ids=lambda f: f.__name__)
def test_a_running_spectrum_has_order_two(make, flat):
    """On modes that are no Gaussians, three of which share a shell, so that not all is said by its spectrum."""
    schedule = dataclasses.replace(make(Lattice((2, 2))), dead_beyond=math.inf)
    law, begin, end = TwoHumps(schedule), 0.75, 0.35
    share = torch.tensor([0.7, 0.4, 0.15, 0.9], dtype=torch.float64).reshape(1, 1, 2, 2)
    width = (law.variance + law.middle**2 + (schedule.sigma(begin) / schedule.alpha(begin)) ** 2).sqrt()
    phi = schedule.alpha(begin) * width * torch.special.ndtri(share)
    exact, errors = law.flow(phi, begin, end), []
    for n in (64, 128, 256):
        times = [begin + (end - begin) * i / n for i in range(n)] + [end]
        reached = walk_up(schedule, law, RunningSpectrum(flat), times, phi, lambda: torch.zeros_like(phi))
        errors.append((reached - exact).abs().max().item())
    orders = [math.log2(a / b) for a, b in pairwise(errors)]
    assert all(abs(order - 2) < 0.2 for order in orders), (errors, orders)


@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("make", [white, rgdm_images, variance_exploding], ids=lambda f: f.__name__)
def test_a_running_spectrum_is_exact_for_isotropic_gaussians(make, steps):
    schedule = dataclasses.replace(make(Lattice((4, 4))), dead_beyond=math.inf)
    spectrum = 2 / (schedule.lattice.k_sq().sqrt().round(decimals=1) + 0.1) ** 3
    index, number = shell_index(schedule.lattice)
    spectrum = torch.stack([spectrum.flatten()[index == i].mean() for i in range(number)])[index].reshape(4, 4)
    law = marginal_variance(schedule, spectrum)
    times = grid(LogUniform(), schedule, steps)
    variance = transported_variance(schedule, spectrum, RunningSpectrum(), times, initial=law(1.0))
    torch.testing.assert_close(variance, spectrum, rtol=1e-6, atol=0)


@pytest.mark.parametrize("churn", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("steps", [2, 5])
def test_fresh_noise_leaves_a_gaussian_law_as_it_is(churn, steps):
    """In as few steps as without it; 20 000 fields of 16 modes."""
    schedule = dataclasses.replace(rgdm_images(Lattice((4, 4))), dead_beyond=math.inf)
    index, number = shell_index(schedule.lattice)
    spectrum = (2 / (1.0 + torch.arange(number, dtype=torch.float64)) ** 3)[index].reshape(4, 4)
    generator, fields = torch.Generator().manual_seed(1), 20_000

    def draw():
        return torch.randn(fields, 1, 4, 4, generator=generator, dtype=torch.float64)

    phi = marginal_variance(schedule, spectrum)(1.0).sqrt() * draw()
    denoiser, times = GaussianDenoiser(schedule, spectrum), grid(LogUniform(), schedule, steps)
    reached = walk_up(schedule, denoiser, RunningSpectrum(churn=churn), times, phi, draw)
    z = ((reached**2).mean((0, 1)) / spectrum - 1) / math.sqrt(2 / fields)
    assert z.abs().max() < 4, z
    if steps > 2:  # in two, what is drawn afresh is too little to see
        kept = (phi * reached).mean((0, 1)) / ((phi**2).mean((0, 1)) * (reached**2).mean((0, 1))).sqrt()
        assert kept.min() < 0.9


@pytest.mark.parametrize("precision", [torch.float32, torch.float64], ids=str)
def test_fresh_noise_bears_modes_that_finish(precision):
    """The law of a chain, whose slow modes are clean before the walk ends."""
    schedule, generator = rgdm_chain(24), torch.Generator().manual_seed(2)

    def draw():
        return torch.randn(4000, 3, 24, generator=generator, dtype=precision)

    times, denoiser = grid(LogUniform(), schedule, 60), GaussianDenoiser(schedule, schedule.prior_spectrum)
    phi = walk_up(schedule, denoiser, RunningSpectrum(churn=1.0), times, start(schedule, 1.0, draw()), draw)
    ratio = ((phi.double() ** 2).mean((0, 1)) / schedule.prior_spectrum)[1:]
    assert (ratio - 1).abs().max() < 5 * math.sqrt(2 / 12_000)
    assert not phi[..., 0].any()


def test_fresh_noise_bears_modes_that_enter():
    """Images of the prior's spectrum, in float32: modes come alive on the way, each with its noise."""
    schedule, generator = rgdm_images(Lattice((8, 8))), torch.Generator().manual_seed(3)

    def draw():
        return torch.randn(8000, 1, 8, 8, generator=generator)

    denoiser, times = GaussianDenoiser(schedule, schedule.prior_spectrum), grid(LogUniform(), schedule, 12)
    assert any(bool(schedule.shell(t, s).any()) for t, s in pairwise(times))
    phi = walk_up(schedule, denoiser, RunningSpectrum(churn=1.0), times, start(schedule, 1.0, draw()), draw)
    ratio = (phi.double() ** 2).mean((0, 1)) / schedule.prior_spectrum
    assert (ratio - 1).abs().max() < 5 * math.sqrt(2 / 8000)


def test_churn_is_no_negative_number():
    with pytest.raises(ValueError, match="churn must be >= 0 and finite"):
        RunningSpectrum(churn=-1.0)


def test_a_running_spectrum_without_signal_is_a_multistep_solver():
    """A denoiser that always expects the same field shows no Gaussian share on average: the walk ends at that field."""
    schedule = white(Lattice((4,)))
    field = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64).expand(2, 1, 4)
    generator = torch.Generator().manual_seed(0)

    def draw():
        return torch.randn(2, 1, 4, generator=generator, dtype=torch.float64)

    times = grid(LogUniform(), schedule, 40)
    reached = walk_up(schedule, lambda *_: field, RunningSpectrum(), times, start(schedule, 1.0, draw()), draw)
    torch.testing.assert_close(reached, field, rtol=0, atol=0.02)


@pytest.mark.parametrize("noise", [0.01, 0.05])
def test_a_running_spectrum_bears_a_noisy_denoiser(noise):
    """A chain whose modes finish one by one, with a denoiser that errs by a share of each mode's deviation."""
    schedule = rgdm_chain(24)
    exact = GaussianDenoiser(schedule, schedule.prior_spectrum)
    generator = torch.Generator().manual_seed(0)

    def draw():
        return torch.randn(400, 3, 24, generator=generator, dtype=torch.float64)

    def denoise(modes, t, condition):
        return exact(modes, t, condition) + noise * schedule.prior_spectrum.sqrt() * draw()

    times = grid(LogUniform(), schedule, 100)
    phi = walk_up(schedule, denoise, RunningSpectrum(), times, start(schedule, 1.0, draw()), draw)
    ratio = ((phi**2).mean((0, 1)) / schedule.prior_spectrum)[1:]
    assert 0.7 < ratio.min() < ratio.max() < 1.5


def test_colours_of_a_field_share_their_shells():
    """The sums go over channels: exchanging them commutes with a step."""
    schedule = rgdm_images(Lattice((4, 4), channels=3))
    generator = torch.Generator().manual_seed(0)
    phi = torch.randn(2, 3, 4, 4, generator=generator, dtype=torch.float64)
    gain = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64).reshape(3, 1, 1)

    def walk(order):
        def denoise(modes, t, condition):
            return gain[order] * modes

        return walk_up(schedule, denoise, RunningSpectrum(), [0.6, 0.4, 0.2], phi[:, order], lambda: phi[:, order])

    torch.testing.assert_close(walk([2, 0, 1]), walk([0, 1, 2])[:, [2, 0, 1]])


@pytest.mark.parametrize("flat", [False, True])
def test_sums_over_shells_are_those_of_a_loop(dtype, flat):
    lattice = Lattice((5, 6), channels=2)
    x = torch.randn(3, 2, 5, 6, generator=torch.Generator().manual_seed(0), dtype=dtype)
    index, number = shell_index(lattice)
    shells = [index == i for i in range(number)] if not flat else [index >= 0]
    by_hand = torch.stack([x.double().flatten(2)[:, :, shell].sum((1, 2)) for shell in shells], 1)
    found = _shell_sums(x, *_shells(lattice, flat))
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), by_hand, rtol=0, atol=64 * torch.finfo(dtype).eps)


def test_a_running_spectrum_needs_no_more_memory_than_its_field():
    """No array of a step has modes times shells components."""

    class Largest(TorchDispatchMode):
        components = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            made = func(*args, **(kwargs or {}))
            for each in tree_leaves(made):
                if isinstance(each, torch.Tensor):
                    Largest.components = max(Largest.components, each.numel())
            return made

    schedule = rgdm_images(Lattice((20, 20, 20)))
    phi = torch.ones(1, 1, 20, 20, 20)
    with Largest():
        walk_up(schedule, lambda modes, *_: 0.5 * modes, RunningSpectrum(), [0.6, 0.4], phi, lambda: phi)
    assert 20**3 <= Largest.components <= 2 * 20**3


def test_even_angles_of_the_infrared():
    """By hand: q_min = pi/20 rad/site, an octave below it pi/40; at equal angles 2 lies half way between its ends."""
    schedule = rgdm_images(Lattice((32, 32)))
    times = grid(InfraredAngle(), schedule, 3)[:-1]
    q = math.pi / 40
    angles = [math.atan(q / schedule.cutoff(t).item()) for t in times]
    assert abs(angles[1] - (angles[0] + angles[2]) / 2) < 1e-9
    for regulator in ("log-squared", "exponential", "litim"):
        other = rgdm_images(Lattice((32, 32)), regulator=REGULATORS[regulator]())
        times = grid(InfraredAngle(), other, 6)
        assert all(a > b for a, b in pairwise(times)), regulator


# -- where the steps lie ---------------------------------------------------------------------------------------------


def spacings():
    lattice = Lattice((8, 8))
    error = EqualError(1 / (lattice.k_sq() + 0.1))
    return [LogUniform(), LinearBeta(), Cosine(), Karras(), InfraredAngle(), LogNormal(), error]


@pytest.mark.parametrize("spacing", spacings(), ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("make", [white, rgdm_images], ids=lambda f: f.__name__)
def test_a_spacing_is_a_distribution(spacing, make):
    schedule = make(Lattice((8, 8)))
    u = torch.linspace(0, 1, 301, dtype=torch.float64)
    t = spacing.quantile(u, schedule)
    assert (t.diff() >= 0).all()
    assert abs(t[0]) < 1e-6
    assert abs(t[-1] - 1) < 1e-6
    times = grid(spacing, schedule, 6)
    assert times[0] == 1.0
    assert times[-1] == CLEAN
    assert len(times) == 7
    assert all(a > b for a, b in pairwise(times))


@pytest.mark.parametrize("spacing", spacings(), ids=lambda s: type(s).__name__)
def test_a_walk_may_start_late_and_stop_early(spacing):
    schedule = rgdm_images(Lattice((8, 8)))
    times = grid(spacing, schedule, 4, start=0.7, stop=0.3)
    assert len(times) == 5
    assert times[0] == 0.7
    assert times[-1] == 0.3
    assert all(a > b for a, b in pairwise(times))


def test_linear_beta_is_ddpm_at_its_own_number_of_steps():
    schedule = white(Lattice((2,)))
    times = grid(LinearBeta(), schedule, 1000)[:-1]
    share = schedule.alpha(torch.tensor(times).double())[:, 0] ** 2
    torch.testing.assert_close(share.flip(0), ddpm_linear(), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("steps", "beta"), [(500, 0.0398291015625), (300, 0.0658514404296875), (200, 0.09771728515625)]
)
def test_linear_beta_matches_the_ends_of_the_papers_baselines(steps, beta):
    """The last beta that gives T steps the end of 1000: the values of the authors' configurations."""
    schedule = white(Lattice((2,)))
    times = torch.tensor(grid(LinearBeta(), schedule, steps)[:-1]).double()
    share = schedule.alpha(times)[:, 0] ** 2
    last_beta = 1 - share[0] / share[1]
    assert abs(last_beta.item() / beta - 1) < 1e-3


def test_karras_is_edm_at_eighteen_steps():
    """EDM's second noise level of 18 between 0.002 and 80 at rho = 7, by hand: 57.586."""
    schedule = variance_exploding(Lattice((2,)))
    sigma = schedule.sigma(torch.tensor(grid(Karras(), schedule, 18)[:2]).double())[:, 0]
    torch.testing.assert_close(sigma, torch.tensor([80.0, 57.58598]).double(), rtol=1e-5, atol=0)


def test_equal_error_beats_log_uniform_on_its_spectrum():
    lattice = Lattice((16, 16))
    spectrum = 1 / (lattice.k_sq() + 0.05**2) ** 1.5
    schedule = rgdm_images(lattice)
    kl = [
        gaussian_kl(transported_variance(schedule, spectrum, Angle(), grid(spacing, schedule, 10)), spectrum)
        for spacing in (EqualError(spectrum), LogUniform())
    ]
    assert kl[0] < kl[1]


@pytest.mark.parametrize("steps", [0, -3])
def test_a_walk_without_steps_is_refused(steps):
    with pytest.raises(ValueError, match="at least one step"):
        grid(LogUniform(), white(Lattice((2,))), steps)


def test_a_walk_must_go_up():
    with pytest.raises(ValueError, match="must start at a coarser scale"):
        grid(LogUniform(), white(Lattice((2,))), 3, start=0.2, stop=0.4)


def test_registries_build_their_values():
    assert {type(make()).__name__ for make in SAMPLERS.values()} >= {"Angle", "AnglePC", "DDIM", "DPM2M", "Heun"}
    assert set(SPACINGS) == {
        "log-uniform",
        "linear-beta",
        "cosine",
        "karras",
        "infrared-angle",
        "log-normal",
        "equal-error",
        "noise-share",
        "mode-share",
        "window",
    }


@pytest.mark.parametrize("shape", [(12,), (6, 5), (4, 3, 4)], ids=str)
@pytest.mark.parametrize("boundary", ["open", "periodic"])
def test_fields_of_any_dimension_and_boundary(shape, boundary, generator):
    """Sampled fields on 1-D, 2-D and 3-D lattices have the right spectrum within 5 standard errors."""
    lattice = Lattice(shape, boundary)
    spectrum = 1 / (lattice.k_sq() + 0.3)
    schedule = rgdm_images(lattice)

    def draw():
        return torch.randn(20_000, 1, *shape, generator=generator, dtype=torch.float64)

    times = grid(LogUniform(), schedule, 40)
    denoiser = GaussianDenoiser(schedule, spectrum)
    phi = walk_up(schedule, denoiser, AnglePC(), times, start(schedule, 1.0, draw()), draw)
    x = basis_for(lattice).inverse(phi)
    power = (basis_for(lattice).forward(x)[:, 0] ** 2).mean(0)
    assert (power / spectrum - 1).abs().max() < 5 * math.sqrt(2 / 20_000)
