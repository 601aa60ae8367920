"""Laws and golden numbers of the forward flow.

The golden numbers were computed in float64 from the formulas, apart from this package, and agree with the authors'
released code (arXiv:2501.09064) to its float32.
"""

import math
from itertools import pairwise

import hypothesis
import hypothesis.strategies as st
import pytest
import torch

from renorm.diffusion.presets import (
    SNR_COARSE,
    SNR_FINE,
    calibrated,
    chain_steps,
    ddpm_linear,
    rgdm_chain,
    rgdm_images,
    separated,
    variance_exploding,
    white,
)
from renorm.diffusion.regulator import REGULATORS, Sharpened
from renorm.diffusion.schedule import CLEAN, Schedule
from renorm.diffusion.spacing import InfraredAngle, LogUniform
from renorm.diffusion.spec import DiffusionSpec
from renorm.lattice import Lattice


def assert_near(actual, expected, rtol=1e-6):
    actual = actual if isinstance(actual, torch.Tensor) else torch.tensor(actual, dtype=torch.float64)
    expected = torch.as_tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(actual.double().reshape(expected.shape), expected, rtol=rtol, atol=0)


def square(size):
    return Lattice((size, size))


def images_4x4():
    """The unit table's lattice: m_L = k_c = 0.4 pi is 1.6 pi / 4."""
    return rgdm_images(square(4), steps=5)


def tau(schedule, steps):
    return -(steps - 1) / math.log(schedule.cutoff_coarse / schedule.cutoff_fine)


# -- golden numbers ------------------------------------------------------------------------------------------------


def test_end_points_are_those_of_ddpm():
    assert_near(SNR_FINE, 9999)
    assert_near(SNR_COARSE, 4.0359926511684205e-05)


@pytest.mark.parametrize(
    ("steps", "expected"), [(200, 20.59197952), (300, 30.93970792), (500, 51.63516473), (1000, 103.37380674)]
)
def test_decay_time(steps, expected):
    assert_near(tau(rgdm_images(square(32)), steps), expected)
    assert_near(tau(rgdm_images(square(64)), steps), expected)


@pytest.mark.parametrize(
    ("size", "fine", "coarse"), [(32, 47.12153355, 2.99375541e-3), (64, 23.56076678, 1.49687770e-3)]
)
def test_cutoffs(size, fine, coarse):
    schedule = rgdm_images(square(size))
    assert_near(schedule.cutoff(0.0), fine)
    assert_near(schedule.cutoff(1.0), coarse)


GOLDEN_32 = [  # t of 200, cutoff, weight, alive, mode, alpha^2, sigma^2, step alpha^2, step variance
    (0, 47.12153, 36.49520197, 1024, (0, 0), 9.99988888e-1, 1.00008890e-4, None, None),
    (0, 47.12153, 36.49520197, 1024, (31, 31), 9.91715250e-1, 9.91814432e-5, None, None),
    (1, 44.88786, 34.77024880, 1024, (0, 0), 9.99987754e-1, 1.10209504e-4, 0.99999887, 1.02007280e-5),
    (50, 4.156196, 3.70182434, 1024, (0, 0), 9.98573644e-1, 1.28372002e-2, 0.99986798, 1.18818054e-3),
    (50, 4.156196, 3.70182434, 1024, (4, 4), 9.81081506e-1, 1.26123294e-2, 0.99824895, 1.16736703e-3),
    (50, 4.156196, 3.70182434, 1024, (31, 31), 4.82197495e-1, 6.19890765e-3, 0.95207344, 5.73756058e-4),
    (100, 0.3665833, 1.25116646, 1024, (0, 0), 8.44873444e-1, 1.39613900, 0.98564186, 1.29223285e-1),
    (100, 0.3665833, 1.25116646, 1024, (0, 1), 7.96602284e-1, 1.31637173, 0.98117399, 1.21840218e-1),
    (100, 0.3665833, 1.25116646, 1024, (4, 4), 2.87461683e-1, 4.75025545e-1, 0.93404916, 4.39672277e-2),
    (100, 0.3665833, 1.25116646, 1024, (31, 31), 7.19248681e-3, 1.18854622e-2, 0.90810811, 1.10008994e-3),
    (150, 0.03233324, 1.05857825, 494, (0, 0), 4.06477781e-2, 8.63417000, 0.91120465, 7.99158114e-1),
    (199, 2.993755e-3, 2.24492299, 4, (0, 0), 3.63107444e-4, 8.99673203, 0.90747600, 8.32715988e-1),
    (199, 2.993755e-3, 2.24492299, 4, (4, 4), 2.69058937e-5, 6.66648729e-1, 0.90744488, 6.17034111e-2),
]


@pytest.mark.parametrize(("i", "cutoff", "w", "alive", "mode", "a", "b", "step_a", "step_b"), GOLDEN_32)
def test_golden_images_32(i, cutoff, w, alive, mode, a, b, step_a, step_b):
    schedule = rgdm_images(square(32), steps=200)
    t = i / 199
    assert_near(schedule.cutoff(t), cutoff)
    assert_near(schedule.weight(t), w)
    assert schedule.alive(t).sum() == alive
    assert_near(schedule.alpha(t)[mode] ** 2, a)
    assert_near(schedule.sigma(t)[mode] ** 2, b)
    if step_a is not None:
        alpha, variance = schedule.transition((i - 1) / 199, t)
        assert_near(alpha[mode] ** 2, step_a)
        assert_near(variance[mode], step_b)


def test_golden_images_32_thousand_steps():
    schedule = rgdm_images(square(32), steps=1000)
    t, before = 500 / 999, 499 / 999
    assert_near(schedule.cutoff(t), 0.3737810)
    assert_near(schedule.weight(t), 1.25656495)
    assert_near(schedule.alpha(t)[0, 0] ** 2, 0.849902243)
    assert_near(schedule.sigma(t)[0, 0] ** 2, 1.35087981)
    assert_near(schedule.transition(before, t).alpha[0, 0] ** 2, 0.99712393)
    assert_near(schedule.transition(before, t).variance[0, 0], 2.58846184e-2)
    assert_near(schedule.alpha(t)[4, 4] ** 2, 0.295492578)
    assert_near(schedule.sigma(t)[4, 4] ** 2, 0.469671615)
    assert_near(schedule.transition(998 / 999, 1.0).alpha[0, 0] ** 2, 0.98084565)
    assert_near(schedule.transition(998 / 999, 1.0).variance[0, 0], 0.172389115)
    assert schedule.alive(750 / 999).sum() == 524
    assert_near(schedule.weight(750 / 999), 1.05407211)


@pytest.mark.parametrize(
    ("i", "w"), [(0, 19.98369603), (50, 2.55549524), (100, 1.19930657), (150, 1.15429602), (199, 2.44791131)]
)
def test_golden_weights_64(i, w):
    assert_near(rgdm_images(square(64)).weight(i / 199), w)


def test_golden_images_64():
    schedule = rgdm_images(square(64))
    t = 100 / 199
    assert_near(schedule.alpha(t)[0, 0] ** 2, 0.844873444)
    assert_near(schedule.sigma(t)[0, 0] ** 2, 5.58455601)
    assert_near(schedule.alpha(t)[63, 63] ** 2, 1.75280e-3, rtol=1e-5)  # given to six digits
    assert_near(schedule.sigma(t)[63, 63] ** 2, 1.15858909e-2)


ALIVE = {
    32: {137: 1024, 138: 1023, 140: 999, 160: 189, 170: 75, 180: 30, 190: 11},
    64: {123: 4096, 124: 4086, 130: 3320, 140: 1277, 150: 494, 160: 189, 170: 75, 180: 30, 190: 11},
}


@pytest.mark.parametrize(("size", "i", "count"), [(L, i, n) for L, rows in ALIVE.items() for i, n in rows.items()])
def test_golden_alive_modes(size, i, count):
    assert rgdm_images(square(size)).alive(i / 199).sum() == count


FIRST_MASKED = [(32, 200, 138), (32, 300, 208), (32, 500, 346), (32, 1000, 693)]
FIRST_MASKED += [(64, 200, 124), (64, 300, 186), (64, 500, 310), (64, 1000, 620)]


@pytest.mark.parametrize(("size", "steps", "first"), FIRST_MASKED)
def test_first_scale_with_a_masked_mode(size, steps, first):
    schedule = rgdm_images(square(size), steps=steps)
    assert schedule.alive((first - 1) / (steps - 1)).all()
    assert not schedule.alive(first / (steps - 1)).all()


@pytest.mark.parametrize(("size", "mean", "largest"), [(32, 0.13282691572947927, 3.0), (64, 0.15793360528574707, 6.0)])
def test_golden_prior(size, mean, largest):
    prior = rgdm_images(square(size)).prior_spectrum
    assert_near(prior.mean(), mean)
    assert_near(prior[0, 0].sqrt(), largest)


def test_golden_unit_table():
    schedule = images_4x4()
    assert_near(tau(schedule, 5), 0.41390913608910207)
    assert_near(schedule.cutoff(0.0), 376.9722684036119)
    times = [i / 4 for i in range(5)]
    assert_near(
        torch.stack([schedule.weight(t) for t in times]),
        [183.7657272, 16.44866858, 1.845179727, 1.011964774, 1.41496481],
    )
    assert [int(schedule.alive(t).sum()) for t in times] == [16, 16, 16, 16, 4]
    assert_near(schedule.alpha(0.5)[0] ** 2, [0.8511321201, 0.8043575118, 0.6905143064, 0.5587189413])
    assert_near(schedule.sigma(0.5)[0] ** 2, [0.0209345456, 0.0197840718, 0.016983971, 0.0137423167])
    alpha, variance = schedule.transition(0.25, 0.5)
    assert_near(alpha[0] ** 2, [0.8523187068, 0.8059169265, 0.6929811353, 0.5622362763])
    assert_near(variance[0], [0.0207676819, 0.0196263782, 0.0168485962, 0.0136327803])


@pytest.mark.parametrize("size", [4, 32, 64])
def test_coloured_noise_target_has_the_prior_mean_square_at_every_scale(size):
    """E[target^2] = w_t^2 mean_k(alive sigma_k^2) equals mean_k G_k; 0.13282691572947927 at L = 32."""
    schedule = rgdm_images(square(size))
    for t in torch.linspace(0, 1, 200, dtype=torch.float64).tolist():
        target = schedule.weight(t) ** 2 * torch.where(schedule.alive(t), schedule.sigma(t) ** 2, 0.0).mean()
        assert_near(target, schedule.prior_spectrum.mean())


CHAIN_STEPS = {32: 79, 64: 86, 100: 91, 128: 94, 200: 99, 256: 101, 300: 103, 512: 109, 750: 113}


@pytest.mark.parametrize(("sites", "steps"), CHAIN_STEPS.items())
def test_golden_chain_steps(sites, steps):
    assert chain_steps(sites) == steps
    assert rgdm_chain(sites).steps == steps


@pytest.mark.parametrize(("sites", "steps"), [(32, 80), (64, 86), (128, 92), (289, 98)])
def test_chain_steps_of_the_caption(sites, steps):
    """T = 80 + tau ln(N/32), tau = 8.1747, rounded up."""
    assert chain_steps(sites, "paper") == steps


@pytest.mark.parametrize(("sites", "cutoff"), [(32, 30.35774378), (128, 31.09220532), (256, 31.21461558)])
def test_golden_chain_cutoff(sites, cutoff):
    assert_near(rgdm_chain(sites).cutoff(0.0), cutoff)


CHAIN_FASTEST = [  # step, alpha^2, 1 - alpha^2, step alpha^2, step variance over noise variance
    (0, 0.9999, 1e-4, None, None),
    (1, 0.999855553, 1.444467e-4, 0.999955549, 0.30773389),
    (10, 0.996176387, 3.82361337e-3, 0.998843806, 0.30238252),
    (20, 0.890532952, 0.109467048, 0.968976607, 0.28340395),
    (30, 0.197023826, 0.802976174, 0.730721973, 0.33534996),
    (41, 1.03002242e-4, 0.999896998, 0.356794076, 0.64327218),
]


@pytest.mark.parametrize(("j", "a", "noise", "step_a", "share"), CHAIN_FASTEST)
def test_golden_fastest_mode_of_a_chain(j, a, noise, step_a, share):
    schedule = rgdm_chain(128)
    t = j / (schedule.steps - 1)
    prior = schedule.prior_spectrum[-1]
    assert_near(schedule.alpha(t)[-1] ** 2, a)
    assert_near(schedule.sigma(t)[-1] ** 2 / prior, noise)
    if step_a is not None:
        alpha, variance = schedule.transition((j - 1) / (schedule.steps - 1), t)
        assert_near(alpha[-1] ** 2, step_a)
        assert_near(variance[-1] / schedule.sigma(t)[-1] ** 2, share, rtol=2e-6)


CHAIN_SHELL = [(0, 116, 128, 2.955221), (1, 106, 128, 2.289105), (10, 46, 128, 1.241441), (21, 17, 128, None)]
CHAIN_SHELL += [(42, 3, 116, 1.062690), (93, 0, 2, 5.118594)]


@pytest.mark.parametrize(("i", "low", "high", "w"), CHAIN_SHELL)
def test_golden_chain_shell(i, low, high, w):
    """Modes [low, high) are in the shell; mode 0 counts with mode 1 but never takes part."""
    schedule = rgdm_chain(128)
    t = i / (schedule.steps - 1)
    inside = schedule.active(t).nonzero().flatten().tolist()
    assert inside == list(range(max(low, 1), high))
    if w is not None:
        assert_near(schedule.weight(t), w)


def test_chain_keeps_its_bond_length():
    """The Gaussian chain's root mean square bond is 3.8 angstrom (per mode, on a long chain without a mass)."""
    schedule = rgdm_chain(4000, mass=0.0)
    k = schedule.lattice.wavenumbers(0)[1:]
    bond_sq = 3 * (schedule.prior_spectrum[1:] * (2 - 2 * torch.cos(k))).mean()
    assert_near(bond_sq.sqrt(), 3.8, rtol=1e-3)


# -- laws ------------------------------------------------------------------------------------------------------------


def schedules():
    lattice = Lattice((6, 5))
    spectrum = 1 / (lattice.k_sq() + 0.3)
    return {
        "images": rgdm_images(lattice),
        "periodic": rgdm_images(Lattice((8,), "periodic")),
        "volume": rgdm_images(Lattice((4, 4, 4))),
        "exponential": rgdm_images(lattice, regulator=REGULATORS["exponential"]()),
        "log-squared": rgdm_images(lattice, regulator=REGULATORS["log-squared"]()),
        "litim": rgdm_images(lattice, regulator=REGULATORS["litim"]()),
        "chain": rgdm_chain(40),
        "chain-paper": rgdm_chain(40, convention="paper"),
        "white": white(lattice),
        "exploding": variance_exploding(lattice),
        "calibrated": calibrated(lattice, spectrum),
        "separated": separated(lattice, spectrum, regulator=Sharpened(REGULATORS["log-squared"](), 0.65)),
    }


@pytest.fixture(params=schedules().keys())
def schedule(request):
    return schedules()[request.param]


def test_the_prior_is_a_fixed_point(schedule):
    """A field of spectrum G keeps its variance, in the rescaled frame; frozen modes aside."""
    if not schedule.rescaled:
        pytest.skip("the variance explodes by design")
    for t in (CLEAN, 0.0, 0.3, 1.0):
        total = schedule.alpha(t) ** 2 * schedule.prior_spectrum + schedule.sigma(t) ** 2
        live = slice(None) if schedule.frozen_modes is None else ~schedule.frozen_modes
        torch.testing.assert_close(total[live], schedule.prior_spectrum[live], rtol=1e-12, atol=0)


def test_steps_compose(schedule):
    """Two short steps are one long step (semigroup), and steps from clean data are the marginal law."""
    first, second, whole = (
        schedule.transition(0.2, 0.5),
        schedule.transition(0.5, 0.9),
        schedule.transition(0.2, 0.9),
    )
    torch.testing.assert_close(first.alpha * second.alpha, whole.alpha, rtol=1e-10, atol=1e-14)
    composed = second.alpha**2 * first.variance + second.variance
    torch.testing.assert_close(composed, whole.variance, rtol=1e-9, atol=1e-14)
    clean = schedule.transition(CLEAN, 0.7)
    torch.testing.assert_close(clean.alpha, schedule.alpha(0.7), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(clean.variance, schedule.sigma(0.7) ** 2, rtol=1e-12, atol=1e-14)


def test_a_batch_of_scales_is_the_scales_one_by_one(schedule):
    times = torch.tensor([0.0, 0.25, 1.0], dtype=torch.float64)
    for name in ("alpha", "sigma", "alive", "active", "weight", "angle"):
        rows = torch.stack([getattr(schedule, name)(t) for t in times.tolist()])
        torch.testing.assert_close(getattr(schedule, name)(times), rows, rtol=1e-12, atol=1e-14)


def test_fine_modes_die_first():
    schedule = rgdm_images(Lattice((64,)))
    assert (schedule.alpha(0.5).diff() < 0).all()
    alive = [schedule.alive(t) for t in (0.0, 0.6, 0.8, 1.0)]
    assert all((coarse <= fine).all() for fine, coarse in pairwise(alive))


def test_cutoff_and_time_are_inverse(schedule):
    for t in (-0.5, 0.0, 0.4, 1.0):
        assert_near(schedule.time(schedule.cutoff(t).item()), t, rtol=1e-12) if t else None
    assert schedule.cutoff(CLEAN) == math.inf


def test_white_noise_is_ddpm():
    """At every step of the linear schedule alpha^2 is the product of 1 - beta."""
    share = ddpm_linear()
    schedule = white(square(4))
    times = torch.tensor([schedule.time(math.sqrt(a / (1 - a))) for a in share.tolist()], dtype=torch.float64)
    assert_near(schedule.alpha(times)[:, 2, 1] ** 2, share, rtol=1e-9)
    assert schedule.alive(1.0).all()
    assert_near(times[[0, -1]], [0.0, 1.0], rtol=1e-9)


def test_edm_noise_levels():
    schedule = variance_exploding(square(4), sigma_min=0.002, sigma_max=80.0, data_std=0.5)
    assert_near(schedule.sigma(0.0), torch.full((4, 4), 0.002))
    assert_near(schedule.sigma(1.0), torch.full((4, 4), 80.0))
    assert (schedule.alpha(0.3) == 1).all()


def test_image_noise_to_signal_is_the_same_for_every_mode():
    """The key identity of the rational regulator: sigma_k / alpha_k = m_0 / cutoff."""
    schedule = rgdm_images(square(16))
    ratio = schedule.sigma(0.37) / schedule.alpha(0.37)
    assert_near(ratio, (0.15 * math.pi / schedule.cutoff(0.37)).expand(16, 16), rtol=1e-12)


@hypothesis.given(x=st.floats(1e-6, 1e3), name=st.sampled_from(sorted(REGULATORS)))
def test_regulator_shares(x, name):
    regulator = REGULATORS[name]()
    point = torch.tensor([x], dtype=torch.float64)
    r, signal, noise = regulator.r(point), regulator.signal_share(point), regulator.noise_share(point)
    torch.testing.assert_close(signal + noise, torch.ones_like(point), rtol=1e-12, atol=0)
    expected = r / (1 + r) if r.isfinite() else torch.ones_like(r)
    torch.testing.assert_close(signal, expected, rtol=1e-9, atol=1e-300)


@hypothesis.given(r=st.floats(1e-8, 1e8), name=st.sampled_from(sorted(set(REGULATORS) - {"sharp"})))
def test_regulator_inverse(r, name):
    regulator = REGULATORS[name]()
    x = torch.tensor(regulator.inverse(r), dtype=torch.float64)
    torch.testing.assert_close(regulator.r(x).item(), r, rtol=1e-6, atol=0)


@pytest.mark.parametrize(("name", "x", "share"), [("rational", 3.0, 0.25), ("log-squared", math.e - 1, math.exp(-1))])
def test_regulator_by_hand(name, x, share):
    assert_near(REGULATORS[name]().signal_share(torch.tensor(x, dtype=torch.float64)), share, rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "x", "share"), [("exponential", 2.0, math.exp(-2)), ("litim", 0.3, 0.7), ("sharp", 0.3, 1)]
)
def test_other_regulators_by_hand(name, x, share):
    assert_near(REGULATORS[name]().signal_share(torch.tensor(x, dtype=torch.float64)), share, rtol=1e-12)


@pytest.mark.parametrize("name", sorted(REGULATORS))
def test_small_noise_keeps_its_digits_in_float32(name):
    """Far below the cutoff 1 - alpha^2 is about 1e-9: a subtraction would round it to zero."""
    if name == "sharp":
        pytest.skip("no small noise: a mode is untouched or gone")
    x = torch.tensor([1e-9])
    noise = REGULATORS[name]().noise_share(x)
    torch.testing.assert_close(noise.double(), REGULATORS[name]().noise_share(x.double()), rtol=1e-6, atol=0)


def test_calibrated_prior_is_the_spectrum():
    lattice = Lattice((6, 5))
    spectrum = 1 / (lattice.k_sq() + 0.3)
    schedule = calibrated(lattice, spectrum)
    assert_near(schedule.prior_spectrum, spectrum, rtol=1e-12)
    assert schedule.alive(1.0).sum() == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cutoff_fine": 0.1}, "the cutoff must fall from fine to coarse"),
        ({"prior_spectrum": torch.zeros(4, dtype=torch.float64)}, "the prior spectrum must be > 0"),
        ({"wavenumber_sq": torch.ones(5, dtype=torch.float64)}, "must have the lattice's shape"),
        ({"prior_spectrum": torch.ones(4)}, "must be float64"),
    ],
)
def test_a_schedule_that_cannot_be(change, message):
    ones = torch.ones(4, dtype=torch.float64)
    values = {
        "lattice": Lattice((4,)),
        "wavenumber_sq": ones,
        "prior_spectrum": ones,
        "cutoff_fine": 9.0,
        "cutoff_coarse": 1.0,
    }
    with pytest.raises(ValueError, match=message):
        Schedule(**(values | change))


def test_separated_scales_fade_alike_whatever_the_spectrum():
    """By hand on a line of four sites, k = n pi/4 and m_L = 1.6 pi/4: r is the SNR of data of that spectrum."""
    lattice = Lattice((4,))
    spectrum = torch.tensor([9.0, 1.0, 0.5, 0.0], dtype=torch.float64)
    schedule = separated(lattice, spectrum)
    assert_near(schedule.prior_spectrum, [9.0, 1.0, 0.5, 1e-8 * 2.625], rtol=1e-12)
    q_sq = [(math.pi / 4) ** 2 * (n**2 + 1.6**2) for n in range(4)]
    for t in (0.0, 0.5, 1.0):
        ratio = schedule.alpha(t) ** 2 * schedule.prior_spectrum / schedule.sigma(t) ** 2
        assert_near(ratio * torch.tensor(q_sq, dtype=torch.float64), [float(schedule.cutoff(t)) ** 2] * 4, rtol=1e-12)
    fine = schedule.alpha(0.0)[3] ** 2, schedule.alpha(1.0)[0] ** 2
    assert_near(fine[0] / (1 - fine[0]), SNR_FINE, rtol=1e-9)
    assert_near(fine[1] / (1 - fine[1]), SNR_COARSE, rtol=1e-9)
    assert schedule.alive(1.0).tolist() == [True, True, False, False]  # q^2 up to twice the smallest
    assert schedule.alive(0.0).all()


def test_sharpness_is_a_power_of_x():
    x = torch.tensor([0.25, 1.0, 4.0], dtype=torch.float64)
    soft = Sharpened(REGULATORS["log-squared"](), 0.5)
    share = [math.exp(-(math.log1p(math.sqrt(each)) ** 2)) for each in x.tolist()]
    assert_near(soft.signal_share(x), share, rtol=1e-12)
    assert_near(soft.signal_share(x) + soft.noise_share(x), [1.0] * 3, rtol=1e-12)
    assert_near(soft.r(x), [s / (1 - s) for s in share], rtol=1e-12)
    assert soft.inverse(float(soft.r(x)[2])) == pytest.approx(4.0, rel=1e-12)


@pytest.mark.parametrize("sharpness", [0.25, 4.0])
@pytest.mark.parametrize("name", sorted(set(REGULATORS) - {"sharp"}))
def test_every_spacing_covers_the_whole_range_of_a_sharp_or_soft_regulator(name, sharpness):
    lattice = Lattice((16, 16))
    spectrum = 1 / (lattice.k_sq() + 0.3)
    made = separated(lattice, spectrum, regulator=Sharpened(REGULATORS[name](), sharpness))
    u = torch.linspace(0, 1, 9, dtype=torch.float64)
    for kind in (InfraredAngle, LogUniform):
        t = kind().quantile(u, made)
        assert t[0].abs() < 1e-6, kind
        assert (t[-1] - 1).abs() < 1e-6, kind
        assert (t.diff() > 0).all(), kind
    sigma = made.sigma(u).float()
    assert (sigma[sigma > 0] > 1e-35).all()  # far from where float32 loses its digits


@pytest.mark.parametrize("value", [0.2, 5.0, math.nan])
def test_sharpness_has_a_range(value):
    with pytest.raises(ValueError, match=r"sharpness must be in \[0.25, 4\]"):
        DiffusionSpec("separated", sharpness=value)


def test_a_flat_data_set_cannot_calibrate():
    for made in (calibrated, separated):
        with pytest.raises(ValueError, match="must not vanish"):
            made(Lattice((4,)), torch.zeros(4))
        with pytest.raises(ValueError, match="must be finite"):
            made(Lattice((4,)), torch.full((4,), math.nan))
