"""Lattice observables against closed forms, exact spectra, hand-made fields, brute force, and noise within errors."""

import itertools
import math

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import torch

from renorm.bases import basis_for
from renorm.errors import DataError
from renorm.lattice import Lattice
from renorm.measure.autocorrelation import autocorrelation, chain_mean, integrated_time, windowed_time
from renorm.measure.bispectrum import bispectrum, reduced_bispectrum
from renorm.measure.free_energy import acceptance, bar, log_z, log_z_from_target, lower_bound, upper_bound
from renorm.measure.lattice_observables import (
    binder,
    correlation_length,
    energy_density,
    magnetisation,
    neighbour_product,
    site_moments,
    susceptibility,
    two_point,
    two_point_axis,
    two_point_radial,
)
from renorm.measure.one_point import histogram, kolmogorov_smirnov, peak_counts
from renorm.measure.spectrum import power_spectrum
from renorm.measure.statistics import bootstrap, ess, jackknife, weighted_mean

INF = math.inf


def normal(*shape, generator, dtype=torch.float64):
    return torch.randn(*shape, generator=generator, dtype=dtype)


def close(a, b, tolerance=1e-12):
    torch.testing.assert_close(
        torch.as_tensor(a, dtype=torch.float64), torch.as_tensor(b, dtype=torch.float64), rtol=tolerance, atol=tolerance
    )


# -- error bars ------------------------------------------------------------------------------------------------------


def test_the_jackknife_error_of_a_mean_is_the_standard_error(generator, dtype):
    a = normal(50, 3, 2, generator=generator, dtype=dtype)
    value, error = jackknife(a)
    close(value, a.double().mean(0))
    close(error, a.double().std(0) / math.sqrt(50))


def test_the_jackknife_over_blocks_is_the_standard_error_of_block_means(generator):
    a = normal(60, generator=generator)
    close(jackknife(a, blocks=12).error, a.reshape(12, 5).mean(1).std() / math.sqrt(12))


def test_unequal_blocks_against_the_formula_written_out(generator):
    """Busing's delete-m jackknife, with pseudo-values, for ln(mean) of seven samples in three blocks."""
    a = normal(7, generator=generator).exp()
    groups = [a[:3], a[3:5], a[5:]]  # sample i belongs to block floor(3 i / 7)
    theta = a.mean().log()
    left = torch.stack([torch.cat([g for g in groups if g is not group]).mean().log() for group in groups])
    h = torch.tensor([7 / 3, 7 / 2, 7 / 2], dtype=torch.float64)
    pseudo = h * theta - (h - 1) * left
    expected = ((pseudo - (pseudo / h).sum()) ** 2 / (h - 1)).mean().sqrt()
    estimate = jackknife(a, torch.log, blocks=3)
    close(estimate.value, theta)
    close(estimate.error, expected)


def test_a_function_of_means_has_the_error_of_its_slope(generator):
    a = 5 + normal(20000, generator=generator)
    estimate = jackknife(a, torch.square)
    close(estimate.error / (2 * a.mean() * a.std() / math.sqrt(20000)), 1.0, 1e-3)


def test_whole_weights_are_repeated_samples(generator):
    a, repeats = normal(6, 2, generator=generator), torch.tensor([1, 3, 2, 0, 1, 4])
    close(weighted_mean(a, repeats.double().log() + 700), a.repeat_interleave(repeats, 0).mean(0))
    # leaving out a weighted sample is leaving out all its copies
    w = repeats.double()
    left = torch.stack([(w[:, None] * a).sum(0) - w[i] * a[i] for i in range(6)]) / (w.sum() - w)[:, None]
    expected = (5 / 6 * ((left - left.mean(0)) ** 2).sum(0)).sqrt()
    close(jackknife(a, log_weights=w.log()).error, expected)


def test_weights_too_far_apart_for_float64(generator):
    """One weight carries all to 1e-400; without it the mean is that of the others, all the same."""
    a = torch.tensor([1.0, 2.0, 4.0])
    estimate = jackknife(a, log_weights=torch.tensor([-1000.0, 0.0, -1000.0]))
    close(estimate.value, 2.0)
    left = torch.tensor([2.0, 2.5, 2.0], dtype=torch.float64)
    close(estimate.error, (2 / 3 * ((left - left.mean()) ** 2).sum()).sqrt())


def test_bootstrap_of_a_mean(generator):
    a = normal(400, generator=generator)
    estimate = bootstrap(a, generator=generator, replicas=4000)
    expected = a.std(correction=0) / math.sqrt(400)
    assert abs(estimate.error / expected - 1) < 5 / math.sqrt(2 * 4000)
    again = [bootstrap(a, generator=torch.Generator().manual_seed(7), replicas=50).error for _ in range(2)]
    assert torch.equal(*again)


def test_bootstrap_agrees_with_the_jackknife_under_weights_and_blocks(generator):
    a, logs = 3 + normal(3000, 2, generator=generator), normal(3000, generator=generator)

    def ratio(means):
        return means[:, 0] / means[:, 1]

    one = bootstrap(a, ratio, generator=generator, blocks=300, log_weights=logs, replicas=2000)
    two = jackknife(a, ratio, blocks=300, log_weights=logs)
    close(one.value, two.value)
    assert abs(one.error / two.error - 1) < 0.15


def test_ess_by_hand():
    assert ess(torch.zeros(5)) == pytest.approx(1, abs=1e-12)
    assert ess(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64).log() - 1e4) == pytest.approx(
        36 / (3 * 14), abs=1e-10
    )
    assert ess(torch.tensor([0.0, -2000.0])) == pytest.approx(0.5, abs=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: jackknife(torch.zeros(3), blocks=4), "ask for 1 to 3 blocks, got 4"),
        (lambda: jackknife(torch.zeros(3), blocks=1), "at least 2 blocks .* got 1"),
        (lambda: jackknife(torch.zeros(1)), "at least 2 blocks .* got 1"),
        (lambda: jackknife(torch.zeros(0)), "ask for 1 to 0 blocks"),
        (lambda: jackknife(torch.tensor([1.0, math.nan])), "samples must be finite"),
        (lambda: jackknife(torch.zeros(3), log_weights=torch.zeros(2)), "3 samples, got 2 log weights"),
        (lambda: jackknife(torch.zeros(2), log_weights=torch.tensor([0.0, -INF])), "weight in at least 2 blocks"),
        (lambda: jackknife(torch.zeros(2), log_weights=torch.tensor([0.0, math.nan])), "got 1 nan or"),
        (lambda: ess(torch.tensor([-INF, -INF])), "got 2 of -inf alone"),
        (lambda: bootstrap(torch.zeros(3), generator=torch.Generator(), replicas=1), "2 replicas, got 3 and 1"),
        (lambda: binder(torch.zeros(3, 1, 4), blocks=5), "ask for 1 to 3 blocks, got 5"),
    ],
)
def test_statistics_that_cannot_be(call, message):
    with pytest.raises(DataError, match=message):
        call()


# -- memory of chains ------------------------------------------------------------------------------------------------


def autoregressive(chains, steps, a, generator):
    noise = normal(steps, chains, generator=generator) * math.sqrt(1 - a**2)
    out, state = torch.empty(steps, chains, dtype=torch.float64), normal(chains, generator=generator)
    for t in range(steps):
        state = a * state + noise[t]
        out[t] = state
    return out.T


def test_the_autocorrelation_by_two_loops(generator):
    a = normal(2, 9, generator=generator)
    b = a - a.mean()
    gamma = torch.stack([(b[:, : 9 - t] * b[:, t:]).mean() for t in range(9)])
    close(autocorrelation(a), gamma / gamma[0])
    close(autocorrelation(a, mean=0.0)[1], (a[:, :-1] * a[:, 1:]).mean() / a.square().mean())


@pytest.mark.parametrize("rule", ["sokal", "wolff"])
@pytest.mark.parametrize("a", [0.0, 0.5, 0.9, 0.98])
def test_the_time_of_an_exact_exponential(a, rule):
    """rho = a^t: tau = (1 + a) / (2 (1 - a)) less the tail a^(W + 1) / (1 - a), which the window cuts off."""
    num = 10**7
    time = windowed_time(a ** torch.arange(4000, dtype=torch.float64), num, rule=rule)
    exact, tail = (1 + a) / (2 * (1 - a)), a ** (time.window + 1) / (1 - a)
    assert time.value == pytest.approx(exact - tail, rel=1e-12)
    assert tail < 0.01 * exact
    spread = 2 * (2 * time.window + 1) if rule == "sokal" else 4 * (time.window + 0.5 - time.value)
    assert time.error == pytest.approx(time.value * math.sqrt(spread / num), rel=1e-12)


def test_the_windows_by_hand():
    rho = 0.5 ** torch.arange(40, dtype=torch.float64)
    # tau(W) = 3/2 - 2^-W: 5 tau(7) = 7.46 > 7, 5 tau(8) = 7.48 <= 8
    assert windowed_time(rho, 100).window == 8
    assert windowed_time(rho, 100, factor=2.0).window == 3  # 2 tau(2) = 2.5, 2 tau(3) = 2.75
    # S / ln((2 tau + 1) / (2 tau - 1)) at tau(2) = 1.25 is 1.770: e^(-2/1.770) = .323 against 1.770 / sqrt(2 N)
    assert windowed_time(rho, 14, rule="wolff").window == 2
    assert windowed_time(rho, 16, rule="wolff").window == 3


@pytest.mark.parametrize("rule", ["sokal", "wolff"])
@pytest.mark.parametrize("a", [-0.5, 0.0, 0.8])
def test_the_time_of_an_autoregressive_process(a, rule, generator):
    series = autoregressive(50, 2000, a, generator)
    time = integrated_time(series, rule=rule)
    exact = (1 + a) / (2 * (1 - a))
    assert abs(time.value - exact) < 4 * time.error
    assert time.error < 0.1 * exact
    assert abs(integrated_time(series, rule=rule, mean=0.0).value - exact) < 4 * time.error


def test_errors_of_time_and_mean_are_right(generator):
    """Over 200 runs of 4 chains, deviations in units of the error have spread one, and no common shift."""
    a, exact = 0.7, 1.7 / 0.6
    runs = autoregressive(800, 1000, a, generator).reshape(200, 4, 1000)
    times = [integrated_time(run) for run in runs]
    pull = torch.tensor([(time.value - exact) / time.error for time in times])
    # the estimate is skew at this length, and the window cuts a tail of some percent
    assert 0.7 < pull.std() < 1.2
    assert abs(pull.mean()) < 0.35
    means = [chain_mean(run) for run in runs]
    pull = torch.tensor([float(m.value / m.error) for m in means])
    assert abs(pull.std() - 1) < 5 / math.sqrt(2 * 200)
    assert abs(pull.mean()) < 5 / math.sqrt(200)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: autocorrelation(torch.zeros(1)), "at least 2 steps of a chain, got 1"),
        (lambda: autocorrelation(torch.ones(3, 10)), "got a constant"),
        (lambda: autocorrelation(torch.tensor([0.0, INF])), "a chain must be finite"),
        (lambda: integrated_time(torch.arange(20.0)), "got 20 steps and a window of rule 'sokal' that does not end"),
    ],
)
def test_chains_that_cannot_tell(call, message):
    with pytest.raises(DataError, match=message):
        call()


# -- free energies ---------------------------------------------------------------------------------------------------


def gaussian_ends(num, sigma):
    """Log weights of exp(-x^2 / 2 sigma^2) against N(0, 1) at evenly spaced quantiles of both: a quadrature."""
    z = torch.from_numpy(scipy.stats.norm.ppf((np.arange(num) + 0.5) / num))

    def log_weight(x):
        return -(x**2) / (2 * sigma**2) + x**2 / 2 + math.log(2 * math.pi) / 2

    return log_weight(z), log_weight(sigma * z), math.log(sigma * math.sqrt(2 * math.pi))


@pytest.mark.parametrize("sigma", [0.7, 1.2])
def test_free_energies_of_gaussians(sigma):
    model, target, exact = gaussian_ends(200_000, sigma)
    close(log_z(model).value, exact, 1e-3)
    close(log_z_from_target(target).value, exact, 1e-3)
    close(bar(model, target).value, exact, 1e-4)
    close(lower_bound(model).value, exact - ((1 / sigma**2 - 1) / 2 + math.log(sigma)), 1e-3)  # less KL(q || p)
    close(upper_bound(target).value, exact + (sigma**2 - 1) / 2 - math.log(sigma), 1e-3)  # more KL(p || q)


def test_bennett_finds_the_ratio_by_likelihood(generator):
    """The root of Bennett's equation maximises the likelihood of who drew which sample: a scan agrees."""
    model, target = 0.3 + normal(40, generator=generator), 1.1 + normal(25, generator=generator)
    offset = math.log(25 / 40)
    grid = torch.linspace(-2, 4, 60001, dtype=torch.float64)[:, None]
    logits = torch.nn.functional.logsigmoid
    likelihood = logits(target - grid + offset).sum(1) + logits(grid - offset - model).sum(1)
    close(bar(model, target).value, grid[likelihood.argmax(), 0], 2e-4)


def test_a_perfect_model_knows_its_free_energy():
    logs = torch.full((10,), 3.5, dtype=torch.float64)
    for estimate in (log_z(logs), log_z_from_target(logs), lower_bound(logs), upper_bound(logs), bar(logs, logs)):
        close(estimate.value, 3.5)
        close(estimate.error, 0.0, 1e-7)
    close(acceptance(logs).value, 1.0)
    close(acceptance(logs, logs).value, 1.0)


def test_errors_of_free_energies_are_right(generator):
    """Deviations over 300 repeats in units of the error have spread one; BAR has the least error of the three."""
    sigma, exact = 0.9, math.log(0.9 * math.sqrt(2 * math.pi))

    def log_weight(x):
        return -(x**2) / (2 * sigma**2) + x**2 / 2 + math.log(2 * math.pi) / 2

    pulls, errors = [], []
    for _ in range(300):
        model = log_weight(normal(500, generator=generator))
        target = log_weight(sigma * normal(300, generator=generator))
        both = [log_z(model), log_z_from_target(target), bar(model, target)]
        pulls.append(torch.stack([(e.value - exact) / e.error for e in both]))
        errors.append(torch.stack([e.error for e in both]))
    pulls = torch.stack(pulls)
    assert ((pulls.std(0) - 1).abs() < 5 / math.sqrt(2 * 300)).all()
    assert (pulls.mean(0).abs() < 5 / math.sqrt(300)).all()
    assert torch.stack(errors).mean(0).argmin() == 2


def test_bar_without_overlap_and_with_zero_weights():
    """Far ends: finite, and the shift of all log weights shifts the answer (to the last digits)."""
    model, target = torch.tensor([-900.0, -INF, -950.0]).double(), torch.tensor([800.0, 820.0]).double()
    estimate = bar(model, target)
    assert -900 < estimate.value < 800
    close(bar(model + 100, target + 100).value, estimate.value + 100, 1e-10)


def test_acceptance_by_all_pairs(generator):
    model, target = normal(30, generator=generator), 0.5 + normal(20, generator=generator)
    model[3], model[5] = -INF, model[4]
    close(acceptance(model, target).value, (model - target[:, None]).exp().clamp_max(1).mean())
    w = model.exp()
    pairs = torch.minimum(w, w[:, None])
    close(acceptance(model).value, (pairs.sum() - pairs.diag().sum()) / (30 * 29) / w.mean())
    close(acceptance(model + 2000).value, acceptance(model).value, 1e-9)


def test_acceptance_of_gaussians():
    """Both forms against the double integral of min(1, w'/w) over x ~ N(0, .8^2), x' ~ N(0, 1)."""
    sigma = 0.8
    model, target, _ = gaussian_ends(20_000, sigma)

    # w falls with |x|: min(1, w'/w) = 1 where |x'| < |x|, so A = 2 P(|x'| < |x|) by symmetry of min(p q', p' q)
    ratio = scipy.integrate.quad(lambda r: 2 * scipy.stats.norm.pdf(r) * 2 * scipy.stats.norm.sf(r / sigma), 0, 20)[0]
    close(acceptance(model, target).value, 2 * ratio, 1e-3)
    close(acceptance(model).value, 2 * ratio, 1e-3)


def test_the_error_of_acceptance_against_leaving_out(generator):
    """The linear part and a jackknife that leaves out one sample agree to the order that both leave out, 1/N."""
    logs = 0.5 * normal(400, generator=generator)
    left = torch.stack([acceptance(torch.cat([logs[:i], logs[i + 1 :]])).value for i in range(400)])
    close(acceptance(logs).error / (399 / 400 * ((left - left.mean()) ** 2).sum()).sqrt(), 1.0, 0.02)


def test_errors_of_acceptance_are_right(generator):
    logs, other = normal(200, 400, generator=generator), normal(200, 300, generator=generator)
    for estimates in ([acceptance(a) for a in logs], [acceptance(a, b) for a, b in zip(logs, other, strict=True)]):
        spread = torch.stack([e.value for e in estimates]).std()
        error = torch.stack([e.error for e in estimates]).mean()
        assert abs(error / spread - 1) < 5 / math.sqrt(2 * 200)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: log_z(torch.zeros(1)), "at least 2 log weights, got 1"),
        (lambda: upper_bound(torch.tensor([0.0, -INF])), "samples of the target must have log weights above -inf"),
        (lambda: bar(torch.zeros(2), torch.tensor([0.0, -INF])), "samples of the target"),
        (lambda: lower_bound(torch.tensor([0.0, -INF])), "samples must be finite"),
        (lambda: log_z(torch.tensor([0.0, INF])), "got 1 nan or"),
    ],
)
def test_free_energies_that_cannot_be(call, message):
    with pytest.raises(DataError, match=message):
        call()


# -- lattice fields --------------------------------------------------------------------------------------------------


def free_field_modes(lattice, mass_sq):
    """One field for each mode, sized so that their plain mean has the free field's covariance exactly."""
    k_hat = sum(
        (2 - 2 * torch.cos(lattice.wavenumbers(axis))).reshape([-1 if a == axis else 1 for a in range(lattice.dim)])
        for axis in range(lattice.dim)
    )
    power = 1 / (mass_sq + k_hat).flatten()
    waves = torch.eye(lattice.sites, dtype=torch.float64).reshape(-1, 1, *lattice.shape)
    fields = basis_for(lattice).inverse(waves)
    scale = (lattice.sites * power).sqrt().reshape(-1, *[1] * (lattice.dim + 1))
    return scale * fields, power, fields


@pytest.mark.parametrize("shape", [(9,), (8, 8), (4, 6), (3, 4, 4)])
@pytest.mark.parametrize("mass_sq", [0.1, 1.0])
def test_the_free_field_from_its_exact_spectrum(shape, mass_sq):
    lattice = Lattice(shape, "periodic")
    x, power, waves = free_field_modes(lattice, mass_sq)
    close(correlation_length(x).value, 1 / math.sqrt(mass_sq), 1e-10)
    close(susceptibility(x).value, 1 / mass_sq, 1e-10)
    close(site_moments(x, (2,)).value, power.mean().reshape(1), 1e-10)
    # the same by importance weights of unit waves
    close(correlation_length(waves, log_weights=power.log()).value, 1 / math.sqrt(mass_sq), 1e-10)
    # G(r) = mean over sites of the covariance at that displacement
    flat = x.flatten(1)
    covariance = (flat.T @ flat / len(flat)).reshape(*shape, *shape)
    g = two_point(x)
    close(g.value, covariance[(0,) * len(shape)], 1e-10)
    line = two_point_axis(x, len(shape) - 1)
    close(line.value, g.value[(0,) * (len(shape) - 1)][: shape[-1] // 2 + 1], 1e-10)
    close(
        neighbour_product(x).value,
        sum(covariance[(0,) * len(shape)].select(a, 1).flatten()[0] for a in range(lattice.dim)),
        1e-10,
    )


def test_free_field_numbers_of_the_literature():
    """<phi^2> of the two-dimensional free field, m^2 = 0.01, on 8 x 8 and 16 x 16."""
    for size, exact in [(8, 1.9389041136), (16, 0.8705502710)]:
        x, _, _ = free_field_modes(Lattice((size, size), "periodic"), 0.01)
        close(site_moments(x, (2,)).value, [exact], 1e-9)


def test_ising_4_by_4_at_the_critical_point_by_enumeration():
    """All 2^16 states with Boltzmann weights: moments, cumulant and energy of the literature."""
    beta = math.log(1 + math.sqrt(2)) / 2
    bits = (torch.arange(2**16)[:, None] >> torch.arange(16)) & 1
    x = (2.0 * bits - 1).reshape(-1, 1, 4, 4)

    def energy(spins):
        return -(spins * spins.roll(1, 2) + spins * spins.roll(1, 3)).flatten(1).sum(1)

    logs = -beta * energy(x).double()
    moments = magnetisation(x, log_weights=logs, blocks=16)
    close(moments.second.value, 0.7613589085686718)
    close(moments.absolute.value, 0.8438604448134195)
    close(moments.mean.value, 0.0)
    close(binder(x, log_weights=logs, blocks=16).value, 0.6171993184124585)
    close(susceptibility(x, log_weights=logs, blocks=16).value, 16 * 0.7613589085686718)
    connected = susceptibility(x, about="absolute", log_weights=logs, blocks=16)
    close(connected.value, 16 * (0.7613589085686718 - 0.8438604448134195**2))
    close(logs.logsumexp(0), 15.521915458755283)
    close(log_z(logs).value + 16 * math.log(2), 15.521915458755283)
    u = energy_density(x, energy, log_weights=logs, blocks=16)
    close(u.value, -neighbour_product(x, log_weights=logs, blocks=16).value)
    mean = (logs.softmax(0) @ energy(x).double()) / 16
    close(u.value, mean)


def test_binder_of_order_and_of_noise(generator):
    up = torch.ones(1, 1, 4, 4)
    estimate = binder(torch.cat([up, -up, -up, up]))
    close(estimate.value, 2 / 3)
    close(estimate.error, 0.0)
    estimate = binder(normal(4000, 1, 4, 4, generator=generator))
    assert abs(estimate.value) < 4 * estimate.error
    # var(m^4 / 3 m2^2 - 2 m^2 / m2) = (105 - 9) / 9 + 4 * 2 - 2 * (2 / 3) * (15 - 3) = 8 / 3
    close(estimate.error / math.sqrt(8 / 3 / 4000), 1.0, 0.25)


def test_susceptibilities_by_hand():
    """Fields of magnetisation 1 and 3 on two sites: 2 * 5, 2 * (5 - 4), the same about |m|; signs matter to one."""
    x = torch.tensor([[[1.0, 1.0]], [[4.0, 2.0]]])
    assert [float(susceptibility(x, about=a).value) for a in ("zero", "mean", "absolute")] == [10, 2, 2]
    x[0] *= -1
    assert [float(susceptibility(x, about=a).value) for a in ("zero", "mean", "absolute")] == [10, 8, 2]


def test_channels_are_copies(generator):
    x = normal(40, 3, 4, 6, generator=generator)
    whole = susceptibility(x)
    parts = torch.stack([susceptibility(x[:, c : c + 1]).value for c in range(3)])
    close(whole.value, parts.mean())
    close(two_point(x).value, torch.stack([two_point(x[:, c : c + 1]).value for c in range(3)]).mean(0))


@pytest.mark.parametrize("shape", [(7,), (4, 6), (3, 4, 5)])
def test_the_two_point_function_by_rolling(shape, generator):
    x = 1 + normal(6, 2, *shape, generator=generator)
    axes = tuple(range(2, x.dim()))
    expected = torch.stack([(x * x.roll([-d for d in r], axes)).mean() for r in itertools.product(*map(range, shape))])
    close(two_point(x).value.flatten(), expected)
    connected = expected - x.mean((0, *axes)).square().mean()
    close(two_point(x, about="mean").value.flatten(), connected)
    radial = two_point_radial(x)
    r = torch.tensor(
        [
            math.hypot(*[min(d, n - d) for d, n in zip(place, shape, strict=True)])
            for place in itertools.product(*map(range, shape))
        ]
    )
    assert radial.count.sum() == math.prod(shape)
    for i, centre in enumerate(sorted({math.floor(float(d) + 0.5) for d in r})):
        here = (r + 0.5).floor() == centre
        assert radial.count[i] == here.sum()
        close(radial.value[i], expected[here].mean())
        close(radial.r[i], r[here].double().mean(), 1e-6)
    # its Fourier sum is the power spectrum
    power = torch.fft.fftn(two_point(x).value).real
    close(power.mean(), two_point(x).value.flatten()[0])


def test_correlation_length_of_a_sampled_free_field(generator, dtype):
    lattice = Lattice((16, 16), "periodic")
    _, power, _ = free_field_modes(lattice, 0.25)
    white = normal(2000, 1, 16, 16, generator=generator)
    x = basis_for(lattice).inverse(white * power.sqrt().reshape(16, 16)).to(dtype)
    for estimate, exact in [
        (correlation_length(x), 2.0),
        (susceptibility(x), 4.0),
        (binder(x), 0.0),
        (site_moments(x, (2,)), power.mean()),
    ]:
        assert ((estimate.value - exact).abs() < 4 * estimate.error).all()
    g = two_point_radial(x)
    flat = power.reshape(16, 16)
    assert g.error[0] > 0
    close(power_spectrum(x, lattice).power[0], susceptibility(x).value, 1e-5)
    assert abs(float(flat.mean() - g.value[0])) < 4 * float(g.error[0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: correlation_length(torch.zeros(2, 1, 1)), "axis of at least 2 sites"),
        (lambda: two_point_axis(torch.zeros(2, 1, 4), 1), "one of the 1 axes of sites"),
        (lambda: energy_density(torch.zeros(2, 1, 4), lambda x: x), "one number for each of 2 fields"),
        (lambda: two_point_radial(torch.zeros(2, 1, 4), bins=torch.tensor([10.0, 11.0])), "some distance must lie"),
        (lambda: peak_counts(torch.zeros(2, 1, 2), torch.zeros(1)), "at least 3 sites an axis"),
        (lambda: histogram(torch.zeros(2, 1, 2), torch.tensor([1.0, 1.0])), "at least 2 edges that rise"),
        (lambda: histogram(torch.zeros(2, 1, 2), torch.linspace(-1, 1, 6)), "fewer bins .* got 4 values for 5 bins"),
        (lambda: histogram(torch.zeros(2, 1, 2), torch.linspace(-1, 1, 4), blocks=3), "1 to 2 blocks, got 3"),
        (lambda: peak_counts(torch.zeros(2, 1, 3), torch.zeros(1), blocks=3), "1 to 2 blocks, got 3"),
        (lambda: kolmogorov_smirnov(torch.zeros(2, 1, 2), torch.tensor([math.nan])), "perhaps nan"),
        (lambda: kolmogorov_smirnov(torch.zeros(2, 1, 2), torch.zeros(3), per_independent=0.0), "must be > 0"),
        (lambda: kolmogorov_smirnov(torch.zeros(2, 1, 2), torch.zeros(3), per_independent=50.0), "1 independent value"),
    ],
)
def test_observables_that_cannot_be(call, message):
    with pytest.raises(DataError, match=message):
        call()


# -- one point and peaks ---------------------------------------------------------------------------------------------


def test_histogram_is_numpys(generator):
    x = normal(20, 2, 5, 5, generator=generator)
    edges = torch.linspace(-2, 2, 9, dtype=torch.float64)
    result = histogram(x, edges)
    counts, _ = np.histogram(x.numpy(), edges.numpy())
    close(result.density, torch.from_numpy(counts).double() / x.numel() / 0.5)
    per_field = torch.from_numpy(np.stack([np.histogram(f.numpy(), edges.numpy())[0] for f in x])).double() / 50 / 0.5
    close(result.error, per_field.std(0) / math.sqrt(20))
    weights = torch.rand(20, generator=generator, dtype=torch.float64)
    weighted, _ = np.histogram(x.numpy(), edges.numpy(), weights=weights[:, None, None, None].expand_as(x).numpy())
    close(
        histogram(x, edges, log_weights=weights.log()).density, torch.from_numpy(weighted / weights.sum().item() / 25)
    )


def test_the_last_bin_of_a_histogram_holds_its_edge():
    x = torch.tensor([[[0.0, 0.5, 1.0, 1.0]], [[0.0, 2.0, -1.0, 1.0]]])
    close(histogram(x, torch.tensor([0.0, 0.5, 1.0])).density, [2 / 8 / 0.5, 4 / 8 / 0.5])


def test_an_empty_bin_of_a_histogram_has_no_error():
    result = histogram(torch.tensor([[[0.1, 0.6]], [[0.2, 0.3]]]), torch.tensor([-1.0, 0.0, 0.5, 1.0]))
    close(result.density, [0.0, 3 / 4 / 0.5, 1 / 4 / 0.5])
    assert result.error.isnan().tolist() == [True, False, False]
    assert bool((result.error[1:] > 0).all())


def test_kolmogorov_smirnov_is_scipys(generator):
    x, other = normal(6, 1, 10, generator=generator), 0.3 + normal(80, generator=generator)
    one = kolmogorov_smirnov(x, scipy.stats.norm.cdf)
    expected = scipy.stats.kstest(x.flatten().numpy(), "norm")
    assert one == pytest.approx((expected.statistic, expected.pvalue), abs=1e-10)
    two = kolmogorov_smirnov(x, other)
    expected = scipy.stats.ks_2samp(x.flatten().numpy(), other.numpy(), method="asymp")
    assert two == pytest.approx((expected.statistic, expected.pvalue), abs=1e-10)
    # half the values independent: n = 30; ties between samples
    assert kolmogorov_smirnov(x, scipy.stats.norm.cdf, per_independent=2.0).p_value == pytest.approx(
        scipy.stats.kstwo.sf(one.statistic, 30), abs=1e-12
    )
    assert kolmogorov_smirnov(x, x) == pytest.approx((0, 1), abs=1e-12)


def test_weights_mend_the_distribution(generator):
    """N(0, 1) values weighed to N(0.5, 1): far from the first law, near to the second."""
    x = normal(4000, 1, 1, generator=generator)
    logs = 0.5 * x[:, 0, 0] - 0.125
    shifted = scipy.stats.norm(0.5).cdf
    assert kolmogorov_smirnov(x, shifted, log_weights=logs).p_value > 0.01
    assert kolmogorov_smirnov(x, scipy.stats.norm.cdf, log_weights=logs).p_value < 1e-6
    sample = 0.5 + normal(3000, generator=generator)
    assert kolmogorov_smirnov(x, sample, log_weights=logs).p_value > 0.01
    repeats = torch.tensor([1, 2, 0, 3])
    few = torch.tensor([0.3, -1.0, 5.0, 0.8]).reshape(4, 1, 1)
    copies = few.flatten().repeat_interleave(repeats).numpy()
    expected = scipy.stats.kstest(copies, "norm").statistic
    assert kolmogorov_smirnov(few, scipy.stats.norm.cdf, log_weights=repeats.double().log()).statistic == pytest.approx(
        expected
    )


@pytest.mark.parametrize("shape", [(8,), (5, 6), (4, 5, 3)])
def test_peaks_by_brute_force(shape, generator):
    x = normal(4, 2, *shape, generator=generator)
    levels = torch.tensor([-1.0, 0.0, 1.0])
    expected = torch.zeros(3)
    steps = [s for s in itertools.product((-1, 0, 1), repeat=len(shape)) if any(s)]
    for field in x.reshape(-1, *shape):
        for site in itertools.product(*map(range, shape)):
            around = [field[tuple((a + b) % n for a, b, n in zip(site, s, shape, strict=True))] for s in steps]
            expected += (field[site] > max(around)) * (field[site] >= levels)
    close(peak_counts(x, levels).value, expected / 8)


def test_peaks_of_white_noise(generator):
    """One site in nine is the highest of its 3 x 3 block; a plateau has no peak."""
    estimate = peak_counts(normal(300, 1, 12, 12, generator=generator), torch.tensor([-100.0]))
    assert abs(float(estimate.value) - 16) < 4 * float(estimate.error)
    assert float(peak_counts(torch.ones(2, 1, 4, 4), torch.tensor([0.0])).value) == 0


# -- bispectrum ------------------------------------------------------------------------------------------------------


def lognormal_fields(num, lattice, generator, mass_sq=0.6):
    """1 + delta = exp(G - sigma^2 / 2), and the two-point function of delta on the torus, exact."""
    _, power, _ = free_field_modes(lattice, mass_sq)
    power = power.reshape(lattice.shape)
    g = basis_for(lattice).inverse(normal(num, 1, *lattice.shape, generator=generator) * power.sqrt())
    x, _, _ = free_field_modes(lattice, mass_sq)
    xi_g = two_point(x).value
    return (g - xi_g.flatten()[0] / 2).exp() - 1, xi_g.exp() - 1


def brute_bispectrum(weights, lattice, edges, triangle):
    """Mean over ordered triples k1 + k2 + k3 = 0 (mod 2 pi) in three shells: sum of weights, and number."""
    shape = lattice.shape
    places = list(itertools.product(*map(range, shape)))
    size = {p: math.hypot(*[2 * math.pi * min(n, L - n) / L for n, L in zip(p, shape, strict=True)]) for p in places}
    shell = [[p for p in places if edges[b] <= size[p] < edges[b + 1]] for b in triangle]
    third, total, count = set(shell[2]), 0.0, 0
    for p, q in itertools.product(shell[0], shell[1]):
        r = tuple((-a - b) % L for a, b, L in zip(p, q, shape, strict=True))
        if r in third:
            total, count = total + weights(p, q, r), count + 1
    return total, count


@pytest.mark.parametrize("shape", [(8, 8), (4, 6), (4, 5, 4), (12,)])
def test_the_bispectrum_by_a_sum_over_modes(shape, generator):
    """All triangles of shells up to the corner of the Brillouin zone, also those that close modulo 2 pi."""
    lattice = Lattice(shape, "periodic")
    x, _ = lognormal_fields(2, lattice, generator)
    edges = torch.linspace(0.5, 0.1 + math.pi * math.sqrt(len(shape)), 4, dtype=torch.float64)
    result = bispectrum(x, lattice, edges=edges)
    assert len(result.count) > 3
    modes = torch.fft.fftn(x[:, 0], dim=tuple(range(1, x.dim() - 1)))
    for i, triangle in enumerate(result.shells.tolist()):
        sums = [
            brute_bispectrum(lambda p, q, r, f=f: (f[p] * f[q] * f[r]).item(), lattice, edges.tolist(), triangle)
            for f in modes
        ]
        assert result.count[i] == sums[0][1]
        exact = np.mean([total / count for total, count in sums]) / lattice.sites
        assert abs(exact.imag) < 1e-10
        close(result.value[i], exact.real, 1e-9)


def test_a_lognormal_field_has_the_bispectrum_of_its_three_point_function(generator):
    """zeta = xi12 xi23 xi31 + xi12 xi23 + xi23 xi31 + xi31 xi12, Fourier-summed, against 4000 fields."""
    lattice = Lattice((8, 8), "periodic")
    x, xi = lognormal_fields(4000, lattice, generator)
    place = torch.arange(8)
    between = (place - place[:, None]) % 8  # r - s
    xi_r, xi_s = xi[:, :, None, None], xi[None, None]
    xi_rs = xi[between[:, None, :, None], between[None, :, None, :]]
    zeta = xi_r * xi_s * xi_rs + xi_r * xi_s + xi_s * xi_rs + xi_rs * xi_r
    exact_modes = torch.fft.fftn(zeta).real
    edges = [0.5, 0.9, 1.3, 1.9]
    result = bispectrum(x, lattice, edges=torch.tensor(edges, dtype=torch.float64))
    reduced = reduced_bispectrum(x, lattice, edges=torch.tensor(edges, dtype=torch.float64))
    power = torch.fft.fftn(xi).real
    for i, triangle in enumerate(result.shells.tolist()):
        total, count = brute_bispectrum(lambda p, q, r: exact_modes[p + q].item(), lattice, edges, triangle)
        assert abs(result.value[i] - total / count) < 4.5 * result.error[i]
        assert result.value[i] > 5 * result.error[i]
        shells = [
            [
                power[p].item()
                for p in itertools.product(range(8), range(8))
                if edges[b] <= math.hypot(*[2 * math.pi * min(n, 8 - n) / 8 for n in p]) < edges[b + 1]
            ]
            for b in triangle
        ]
        a, b, c = [np.mean(values) for values in shells]
        assert abs(reduced.value[i] - total / count / (a * b + b * c + c * a)) < 4.5 * reduced.error[i]


@pytest.mark.parametrize("shape", [(8, 8), (5, 7)])
def test_the_reduced_bispectrum_up_to_the_last_mode(shape, generator):
    """Powers of shells from the complex transform of all modes, the staggered ones too."""
    lattice = Lattice(shape, "periodic")
    x, _ = lognormal_fields(3, lattice, generator)
    edges = torch.tensor([0.5, 1.6, 4.5], dtype=torch.float64)
    k = [2 * math.pi * torch.fft.fftfreq(n, dtype=torch.float64) for n in shape]
    size = (k[0][:, None] ** 2 + k[1] ** 2).sqrt()
    modes = (torch.fft.fftn(x[:, 0], dim=(1, 2)).abs() ** 2).mean(0) / lattice.sites
    power = torch.stack([modes[(size >= low) & (size < high)].mean() for low, high in itertools.pairwise(edges)])
    a, b, c = power[bispectrum(x, lattice, edges=edges).shells].unbind(1)
    plain, reduced = bispectrum(x, lattice, edges=edges), reduced_bispectrum(x, lattice, edges=edges)
    close(reduced.value, plain.value / (a * b + b * c + c * a))


def test_a_gaussian_field_has_no_bispectrum(generator):
    lattice = Lattice((12, 12), "periodic")
    _, power, _ = free_field_modes(lattice, 0.5)
    x = basis_for(lattice).inverse(normal(600, 2, 12, 12, generator=generator) * power.sqrt().reshape(12, 12))
    result = bispectrum(x, lattice)
    assert result.shells.max() == 2  # shells 1, 2, 3: 3.5 <= 12 / 3 < 4.5
    assert (result.value.abs() < 4 * result.error).all()
    # a triangle of unequal shells has variance N P1 P2 P3 / T; here over 600 fields of 2 channels
    different = (result.shells.diff(dim=1) > 0).all(1)
    assert different.any()
    spectrum = power_spectrum(x, lattice).power[1:4][result.shells[different]].prod(1)
    predicted = (144 * spectrum / result.count[different] / 600 / 2).sqrt()
    close(result.error[different] / predicted, torch.ones(int(different.sum())), 0.25)


def test_skew_white_noise_has_its_third_cumulant_everywhere(generator):
    """Exponential noise: kappa_3 = 2, in two and three dimensions, whatever the shape."""
    for shape in [(8, 10), (6, 6, 8)]:
        lattice = Lattice(shape, "periodic")
        uniform = torch.rand(1500, 1, *shape, generator=generator, dtype=torch.float64)
        result = bispectrum(
            -(1 - uniform).log(), lattice, edges=torch.tensor([0.5, 1.1, 1.7, 2.2]), triangles="equilateral"
        )
        assert ((result.value - 2).abs() < 4 * result.error).all()
        assert (result.shells == result.shells[:, :1]).all()
        assert len(result.count) > 1


def test_triangles_may_be_chosen_and_weighed(generator):
    lattice = Lattice((8, 8), "periodic")
    x, _ = lognormal_fields(5, lattice, generator)
    edges = torch.tensor([0.5, 0.9, 1.3, 1.9])
    every = bispectrum(x, lattice, edges=edges)
    one = bispectrum(x, lattice, edges=edges, triangles=torch.tensor([[1, 0, 0]]))  # sides in any order
    close(one.value[0], every.value[every.shells.tolist().index([0, 0, 1])])
    repeats = torch.tensor([1, 0, 2, 1, 3])
    weighted = bispectrum(x, lattice, edges=edges, log_weights=repeats.double().log())
    close(weighted.value, bispectrum(x.repeat_interleave(repeats, 0), lattice, edges=edges).value)
    shifted = bispectrum(x + 7, lattice, edges=edges)
    close(shifted.value, every.value, 1e-8)  # the mean is in no shell


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, p: bispectrum(x, Lattice((8, 8))), "needs a periodic lattice"),
        (lambda x, p: bispectrum(x, Lattice((8, 4), "periodic")), "to live here"),
        (lambda x, p: bispectrum(x[:1], p), "at least 2 blocks"),
        (lambda x, p: bispectrum(x, p, edges=torch.tensor([0.1, 0.2, 1.0])), "every shell needs a mode"),
        (lambda x, p: bispectrum(x, p, edges=torch.tensor([0.1, 0.2, 0.3])), r"no mode in shells \[0, 1\]"),
        (lambda x, p: reduced_bispectrum(x, p, blocks=3), "1 to 2 blocks, got 3"),
        (lambda x, p: bispectrum(x, p, edges=torch.tensor([2.3, 2.4])), "some triangle of the shells must close"),
        (lambda x, p: bispectrum(x, p, edges=torch.tensor([1.0, 0.5])), "2 edges that rise"),
        (lambda x, p: bispectrum(x, p, triangles=torch.tensor([[0, 0, 9]])), "from 0 to 1"),
        (
            lambda x, p: bispectrum(
                x, p, edges=torch.tensor([0.7, 0.8, 2.3, 2.4]), triangles=torch.tensor([[0, 0, 2]])
            ),
            "add up to zero",
        ),
    ],
)
def test_bispectra_that_cannot_be(call, message):
    with pytest.raises(DataError, match=message):
        call(torch.zeros(2, 1, 8, 8), Lattice((8, 8), "periodic"))
