"""Laws of positive densities: volumes by autograd, draws that stay positive, starts in closed form, exact shells."""

import math

import pytest
import torch

from renorm.cascade.conditionals.heads import SpinHead, SplineHead
from renorm.cascade.conditionals.local import LocalConditional
from renorm.cascade.conditionals.relative_details import RelativeDetails
from renorm.cascade.conditionals.standardised import Standardised
from renorm.cascade.learning.levels import fit_level
from renorm.cascade.learning.warm_start import start_linear, start_positive, start_quadratic
from renorm.coarse.wavelet import Wavelet
from renorm.errors import DataError
from renorm.lattice import Lattice
from renorm.laws.lognormal import Lognormal
from renorm.laws.lognormal_shells import shell_bispectrum, shell_power
from renorm.laws.spec import LognormalSpec
from renorm.measure.spectrum import power_spectrum
from renorm.recipes.observables import field_statistics


def _law(dim, scale, generator):
    """A local law of random weights, so that nothing cancels."""
    law = LocalConditional(dim, 2, 2**dim - 1, SplineHead(bins=4), radius=1, width=8, symmetric=False).double()
    for parameter in law.parameters():
        parameter.data = 0.02 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return RelativeDetails(law, scale, dim)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_the_density_is_that_of_the_law_inside_times_a_jacobian(dim, generator):
    """log|dv/dy| by autograd, the whole matrix."""
    law = _law(dim, 2 ** (dim / 2), generator)
    delta = Lognormal((4,) * dim, 0.5).sample(1, generator=generator, dtype=torch.float64)
    coarse, detail, _ = Wavelet(dim=dim).split(delta)
    jacobian = torch.autograd.functional.jacobian(lambda y: law.relative(y, coarse)[0], detail)
    log_det = torch.linalg.slogdet(jacobian.reshape(detail.numel(), detail.numel())).logabsdet
    v, seen = law.relative(detail, coarse)
    torch.testing.assert_close(law.log_prob(detail, coarse), law.law.log_prob(v, seen) + log_det, rtol=0, atol=1e-9)


@pytest.mark.parametrize("dim", [1, 2, 3])
@torch.no_grad()
def test_draws_are_positive_and_weighed_as_drawn(dim, generator):
    law = _law(dim, 2 ** (dim / 2), generator)
    coarse = 2 ** (dim / 2) * (3 * torch.rand(200, 1, *[2] * dim, generator=generator, dtype=torch.float64) - 0.9)
    y, log_prob = law.draw(coarse, generator=generator)
    fine = Wavelet(dim=dim).merge(coarse, y)
    assert float(fine.min()) > -1
    torch.testing.assert_close(law.log_prob(y, coarse), log_prob, rtol=0, atol=1e-6)
    torch.testing.assert_close(Wavelet(dim=dim).split(fine).coarse, coarse, rtol=0, atol=1e-12)


def test_a_share_by_hand():
    """Densities 3 and 1: the left half has the difference 2 of 4, u = 1/2, v = 1/sqrt 3."""
    law = _law(1, 2**0.5, torch.Generator().manual_seed(0))
    coarse, detail, _ = Wavelet(dim=1).split(torch.tensor([[[2.0, 0.0]]], dtype=torch.float64))
    v, seen = law.relative(detail, coarse)
    assert v.item() == pytest.approx(1 / math.sqrt(3), rel=1e-12)
    assert seen.flatten().tolist() == pytest.approx([1 / 3, 1 / (2 * math.sqrt(2))], rel=1e-12)
    with pytest.raises(DataError, match=r"contrasts must be > -1 \(a density is positive\), got -2"):
        law.log_prob(*Wavelet(dim=1).split(torch.tensor([[[2.0, -2.0]]], dtype=torch.float64))[1::-1])
    with pytest.raises(ValueError, match="scale must be > 0"):
        RelativeDetails(law.law, 0.0, 1)


@torch.no_grad()
def test_the_linear_start_is_least_squares(generator):
    """A part sees the coarse field and the parts before it; numpy's solver says the same from rows made by hand."""
    law = LocalConditional(1, 1, 1, SplineHead(), period=2, radius=1, symmetric=False).double()
    coarse = torch.randn(400, 1, 6, generator=generator, dtype=torch.float64)
    noise = 0.3 * torch.randn(400, 1, 6, generator=generator, dtype=torch.float64)
    detail = coarse + 0.5 * coarse.roll(1, 2) + noise + 0.8 * noise.roll(1, 2) + 1
    start_linear(law, detail, coarse, ridge=0.0)
    c, y = coarse[:, 0], detail[:, 0]
    rows, values = [], []
    for i in (1, 3, 5):  # the second part: all its neighbours are drawn
        near = [(i - 1) % 6, i, (i + 1) % 6]
        rows.append(torch.cat([c[:, near], y[:, [near[0], near[2]]], torch.ones(400, 1).double()], 1))
        values.append(y[:, i])
    x, value = torch.cat(rows), torch.cat(values)
    solved = torch.linalg.lstsq(x, value[:, None]).solution[:, 0]
    spread = (value - x @ solved).square().mean().sqrt()
    net = law.nets["1_0"]
    weight = net.linear.weight[0].reshape(2, 3)  # of the channels, on three sites
    found = torch.stack([*weight[0], weight[1, 0], weight[1, 2]])
    torch.testing.assert_close(found, solved[:5], rtol=1e-6, atol=1e-6)
    assert float(net.linear.bias[0]) == pytest.approx(float(solved[5]), abs=1e-6)
    assert float((4 * torch.tanh(net.linear.bias[1] / 4)).exp()) == pytest.approx(float(spread), rel=1e-6)
    with pytest.raises(DataError, match="a start in closed form needs a head with a mean and a scale, got SpinHead"):
        start_linear(LocalConditional(1, 1, 1, SpinHead()), detail, coarse)


@torch.no_grad()
def test_lognormal_details_are_all_but_linear(generator):
    """Two sites: the linear start comes close to the exact conditional likelihood, found by quadrature."""
    law = Lognormal((2,), 0.5, zero_power=0.2)
    delta = law.sample(20000, generator=generator, dtype=torch.float64)
    coarse, detail, _ = Wavelet(dim=1).split(delta)
    inner = Standardised(
        LocalConditional(1, 2, 1, SplineHead(), period=1, radius=1, symmetric=False), 2, 1, symmetric=False
    )
    part = RelativeDetails(inner.double(), 2**0.5, 1).standardise(detail, coarse)
    v, seen = part.relative(detail, coarse)
    start_linear(
        inner.law,
        (v - inner.centre[:, None]) / inner.spread[:, None],
        (seen - inner.coarse_centre[:, None]) / inner.coarse_spread[:, None],
    )
    # ln p(y | c) = ln p(delta) - ln p(c), where p(c) is the integral over y
    grid = torch.linspace(-1 + 1e-4, 1 - 1e-4, 2001, dtype=torch.float64)[:, None, None]
    c = coarse[:200]
    each = []
    for one in c:
        y = grid * (one + 2**0.5)
        both = Wavelet(dim=1).merge(one.expand(len(y), 1, 1), y)
        each.append(law.log_prob(both).logsumexp(0) + torch.log(1e-3 * (one.squeeze() + 2**0.5)))
    exact = law.log_prob(delta[:200]) - torch.stack(each)
    lost = float((exact - part.log_prob(detail[:200], c)).mean())
    assert -0.01 < lost < 0.02


@torch.no_grad()
def test_the_quadratic_start_finds_bent_means_and_variances(generator):
    """mu = 0.3 c + 0.4 q(c) and 2 s = 0.5 c + 0.3 q(c) - 1 are of its form: found at new inputs, to the noise."""
    coarse, noise = (torch.randn(4000, 1, 8, generator=generator) for _ in range(2))

    def true(c):
        bent = c * torch.tanh(c / 2)
        return 0.3 * c + 0.4 * bent, (0.5 * c + 0.3 * bent - 1) / 2

    mean, scale = true(coarse)
    law = LocalConditional(1, 1, 1, SplineHead(), radius=1, width=8, layers=1, symmetric=False)
    start_quadratic(law, mean + scale.exp() * noise, coarse)
    c = torch.tensor([-1.5, -0.5, 0.0, 1.0, 1.5])
    drawn = torch.stack([law.sample(one.expand(4000, 1, 8), generator=generator) for one in c]).flatten(1)
    mean, scale = true(c)
    torch.testing.assert_close(drawn.mean(1), mean, rtol=0, atol=0.08)
    torch.testing.assert_close(drawn.std(1).log(), scale, rtol=0, atol=0.1)
    with pytest.raises(DataError, match="a quadratic start needs networks of one hidden layer, got 2"):
        start_quadratic(LocalConditional(1, 1, 1, SplineHead(), symmetric=False), coarse, coarse)


@pytest.mark.parametrize("sites", [(1, 1), (2, 1), (2, 2)])
def test_the_quadratic_start_blows_up_no_noise_on_small_lattices(sites, generator):
    """Details that nothing foretells, on lattices seen several times around: no worse than linear on other samples."""

    def fields():
        coarse = torch.randn(2000, 1, *sites, generator=generator)
        return (0.5 + 0.1 * coarse.square()) * torch.randn(2000, 3, *sites, generator=generator), coarse

    (detail, coarse), (other, at) = fields(), fields()
    nats = []
    for start in (start_quadratic, start_linear):
        law = LocalConditional(2, 1, 3, SplineHead(), width=32, layers=1, symmetric=False)
        log_prob = start(law, detail, coarse).log_prob(other, at).detach()
        nats.append(float(-log_prob.mean()))
        assert log_prob.min() > -100
    assert nats[0] < nats[1] - 0.05


def test_the_quadratic_start_bears_a_patch_that_wraps_around_many_times(generator):
    """One coarse site fills a patch of 49: every input is seen so often, to rounding."""
    x = Lognormal((2, 2), 1.0).sample(20_000, generator=generator)
    coarse, detail, _ = Wavelet().split(x)
    nats = []
    for layers in (1, 2):  # quadratic, linear
        size = {"period": 4, "radius": 3, "width": 256, "layers": layers}
        local = LocalConditional(2, 2, 3, SplineHead(), symmetric=False, **size)
        law = RelativeDetails(Standardised(local, 2, 3, symmetric=False), 2.0, 2)
        assert start_positive(law, detail[:10_000], coarse[:10_000])
        nats.append(float(-law.log_prob(detail[10_000:], coarse[10_000:]).detach().mean()))
    assert nats[0] < nats[1] + 0.01


def test_a_share_is_foretold_by_products_of_the_coarse_field_and_shares_before(generator):
    """v_2 = 0.3 c v_1 + noise: the product of a surprise and a detail drawn before is found, to its coefficient."""
    coarse, first = torch.randn(2, 20_000, 1, 2, 2, generator=generator).unbind(0)
    noise = torch.randn(20_000, 1, 2, 2, generator=generator)
    law = LocalConditional(2, 1, 2, SplineHead(), radius=1, width=64, layers=1, symmetric=False)
    law = start_quadratic(law, torch.cat([first, 0.3 * coarse * first + 0.5 * noise], 1), coarse)
    coarse, first = torch.randn(2, 4000, 1, 2, 2, generator=generator).unbind(0)
    drawn = law.sample(coarse, generator=generator).detach()
    slope = (drawn[:, 1] * drawn[:, 0] * coarse[:, 0]).mean() / (drawn[:, 0] * coarse[:, 0]).square().mean()
    assert abs(float(slope) - 0.3) < 0.03


def test_shares_begin_in_closed_form_once(generator):
    """The quadratic start beats the linear one on coarse lognormal maps; what has learned is not begun again."""
    delta = Lognormal((8, 8), 1.0).sample(6000, generator=generator)
    coarse, detail, _ = Wavelet().split(Wavelet().split(delta).coarse)
    nats = []
    for layers in (1, 2):
        torch.manual_seed(0)
        inner = LocalConditional(2, 2, 3, SplineHead(bins=4), radius=1, width=16, layers=layers, symmetric=False)
        law = RelativeDetails(Standardised(inner, 2, 3, symmetric=False), 4.0, 2)
        assert start_positive(law, detail[:5000], coarse[:5000])
        nats.append(float(-law.log_prob(detail[5000:], coarse[5000:]).mean().detach()))
    assert nats[0] < nats[1] - 0.02
    before = {name: value.clone() for name, value in law.named_parameters()}
    assert not start_positive(law, detail, coarse)
    fit_level(law, detail, coarse, steps=1, batch=8, rate=1e-3, generator=generator)
    assert any(not torch.equal(before[name], value) for name, value in law.named_parameters())
    assert not start_positive(RelativeDetails(inner, 4.0, 2), detail, coarse)


def test_a_shell_is_the_mean_of_its_triangles():
    """By the law's own bispectrum, triple by triple; the mean power of a shell, mode by mode."""
    law, unit = Lognormal((6, 8), 0.7), 2 * math.pi / 8
    edges = torch.tensor([0.9, 1.6, 2.6]) * unit
    shells = {}
    for n in range(-2, 4):
        for m in range(-3, 5):
            k = 2 * math.pi * math.hypot(n / 6, m / 8)
            shells[n % 6, m % 8] = int(torch.bucketize(torch.tensor(k), edges.double(), right=True)) - 1
    for triangle in ((0, 0, 1), (1, 1, 1)):
        each = [
            law.bispectrum(a, b)
            for a in shells
            for b in shells
            if (shells[a], shells[b], shells[(-a[0] - b[0]) % 6, (-a[1] - b[1]) % 8]) == triangle
        ]
        found = float(shell_bispectrum(law, edges, torch.tensor([triangle])))
        assert found == pytest.approx(sum(each) / len(each), rel=1e-9)
    with pytest.raises(DataError, match="every triangle of shells must close"):
        shell_bispectrum(law, torch.tensor([0.9, 1.1, 2.9]) * unit, torch.tensor([[0, 0, 9]]))
    with pytest.raises(DataError, match=r"no mode in bins \[0\]"):
        shell_power(law, torch.tensor([0.1, 0.2, 2.9]) * unit)


def test_lognormal_fields_are_held_against_exact_answers(generator):
    law = Lognormal((16, 16), 0.5)
    x, other = law.sample(1500, generator=generator), law.sample(1500, generator=generator)
    lattice = Lattice((16, 16), "periodic")
    rows = {row.name: row for row in field_statistics(x, other, lattice, LognormalSpec())}
    for name in ("power_1", "power_4", "bispectrum_1", "bispectrum_2"):
        assert rows[name].exact == 1.0
        assert abs(rows[name].value - 1) < 4.5 * rows[name].error < 0.7, name
    edges = torch.tensor([0.5, 1.5]) * 2 * math.pi / 16
    found = power_spectrum(x, lattice, bins=edges)
    assert abs(float(found.power - shell_power(law, edges))) < 4.5 * float(found.error)
    assert (
        abs({r.name: r for r in field_statistics(1.2 * x, other, lattice, LognormalSpec())}["power_1"].value - 1) > 0.3
    )


@pytest.mark.parametrize("edge", [3, 4, 8, 12])
def test_small_lognormal_fields_have_as_many_bins_as_hold_modes(edge, generator):
    x = Lognormal((edge, edge), 0.3).sample(200, generator=generator)
    found = field_statistics(x[:100], x[100:], Lattice((edge, edge), boundary="periodic"), LognormalSpec(amplitude=0.3))
    assert sum(one.name.startswith("power_") for one in found) == max(1, edge // 4)
    assert all(math.isfinite(one.value) for one in found)
