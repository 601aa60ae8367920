"""Coupling flows and mixtures: log-determinants by autograd, densities that integrate to one, the mirror, one scale."""

import itertools
import math
import time

import numpy as np
import pytest
import torch

from renorm.bench import cascade_images, longrange
from renorm.bench.cascade_images import Equalised
from renorm.bench.equal_time import mean_log_prob, train_for
from renorm.cascade.cascade import Cascade
from renorm.cascade.conditionals.coupling import CouplingFlow
from renorm.cascade.conditionals.heads import Head
from renorm.cascade.conditionals.local import LocalConditional
from renorm.cascade.conditionals.mixture import MixtureHead
from renorm.cascade.conditionals.standardised import Standardised
from renorm.cascade.learning.training import fit_to_fields
from renorm.coarse.wavelet import Wavelet
from renorm.errors import DataError, RecipeError
from renorm.lattice import Lattice
from renorm.nn.local import LocalNet
from renorm.nn.spec import UNetSpec


def shaken(flow, seed=0, size=0.15):
    """A flow far from its untrained start, though not so far that digits go: last layers, and units, are random."""
    generator = torch.Generator().manual_seed(seed)
    flow = flow.double()
    with torch.no_grad():
        for name, parameter in flow.named_parameters():
            spread = size if "last" in name else 1 / math.sqrt(max(1, parameter[0].numel()))
            parameter.copy_(spread * torch.randn(parameter.shape, generator=generator))
        if isinstance(flow, Standardised):
            for name, buffer in flow.named_buffers(recurse=False):
                noise = torch.randn(buffer.shape, generator=generator)
                if "spread" in name:
                    buffer.copy_((0.3 * noise).exp())
                elif not flow.symmetric:
                    buffer.copy_(0.3 * noise)
    return flow


def flow_on(dim, channels, details, **options):
    return CouplingFlow(dim, channels, details, **{"bins": 4, "width": 6, **options})


def in_units(dim, channels, details, **options):
    flow = flow_on(dim, channels, details, **options)
    return Standardised(flow, channels, details, symmetric=flow.symmetric)


SHAPES = [((1,), 1, 1), ((2,), 1, 1), ((5,), 2, 1), ((1, 1), 1, 3), ((2, 2), 1, 3), ((3, 4), 2, 2), ((2, 1, 3), 1, 7)]


@pytest.mark.parametrize(("sites", "channels", "details"), SHAPES, ids=str)
@pytest.mark.parametrize("symmetric", [True, False])
def test_log_det_is_that_of_the_jacobian(sites, channels, details, symmetric, generator):
    flow = shaken(flow_on(len(sites), channels, details, symmetric=symmetric, dilations=(1, 2)))
    coarse = torch.randn(1, channels, *sites, generator=generator, dtype=torch.float64)
    y = torch.randn(1, details, *sites, generator=generator, dtype=torch.float64)
    z, _ = flow.whiten(y, coarse)
    jacobian = torch.autograd.functional.jacobian(lambda v: flow.whiten(v, coarse)[0].flatten(), y)
    log_det = torch.linalg.slogdet(jacobian.reshape(y.numel(), -1))[1]
    exact = log_det - 0.5 * (z.square().sum() + z.numel() * math.log(2 * math.pi))
    torch.testing.assert_close(flow.log_prob(y, coarse)[0], exact, rtol=0, atol=1e-8)


@pytest.mark.parametrize(("sites", "channels", "details"), SHAPES, ids=str)
@pytest.mark.parametrize("symmetric", [True, False])
def test_draws_know_their_density(sites, channels, details, symmetric, generator):
    flow = shaken(in_units(len(sites), channels, details, symmetric=symmetric))
    coarse = torch.randn(7, channels, *sites, generator=generator, dtype=torch.float64)
    draw = flow.draw(coarse, generator=generator)
    assert draw.value.shape == (7, details, *sites)
    torch.testing.assert_close(flow.log_prob(draw.value, coarse), draw.log_prob, rtol=0, atol=1e-8)
    twin = torch.Generator().manual_seed(5)
    again = flow.sample(coarse, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(again, flow.draw(coarse, generator=twin).value, rtol=0, atol=0)


@pytest.mark.parametrize("symmetric", [True, False])
def test_density_of_two_sites_integrates_to_one(symmetric, generator):
    """A sum over a fine grid, whose error at the splines' kinks is what the bound leaves room for."""
    flow = shaken(in_units(1, 1, 1, symmetric=symmetric))
    coarse = torch.randn(1, 1, 2, generator=generator, dtype=torch.float64)
    axis = torch.linspace(-10, 10, 301, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)[:, None]
    with torch.no_grad():
        density = flow.log_prob(grid, coarse.expand(len(grid), 1, 2)).exp()
    assert abs(float(density.sum()) * (20 / 300) ** 2 - 1) < 2e-4


@pytest.mark.parametrize("places", [True, False])
def test_mirror(places, generator):
    """p(-y | -c) = p(y | c) for a symmetric flow, with the same noise turned over; not for another."""
    c = torch.randn(5, 2, 4, 4, generator=generator, dtype=torch.float64)
    y = torch.randn(5, 3, 4, 4, generator=generator, dtype=torch.float64)
    flow = shaken(flow_on(2, 2, 3, places=places))
    torch.testing.assert_close(flow.log_prob(-y, -c), flow.log_prob(y, c), rtol=0, atol=1e-11)
    torch.testing.assert_close(flow.whiten(-y, -c)[0], -flow.whiten(y, c)[0], rtol=0, atol=1e-11)
    other = shaken(flow_on(2, 2, 3, symmetric=False))
    assert float((other.log_prob(-y, -c) - other.log_prob(y, c)).detach().abs().min()) > 1e-3


def test_translation_and_places(generator):
    """A periodic flow commutes with shifts by two sites, which keep the colours; places break that."""
    c = torch.randn(3, 1, 6, generator=generator, dtype=torch.float64)
    y = torch.randn(3, 2, 6, generator=generator, dtype=torch.float64)
    turned = c.roll(2, -1), y.roll(2, -1)
    for options, same in (({}, True), ({"places": True}, False), ({"boundary": "open"}, False)):
        flow = shaken(flow_on(1, 1, 2, **options))
        with torch.no_grad():
            difference = (flow.log_prob(turned[1], turned[0]) - flow.log_prob(y, c)).abs().max()
        assert (float(difference) < 1e-10) == same


def test_a_detail_sees_the_rest():
    """Every number depends, through the layers, on its neighbours, the other channels and the coarse field."""
    flow = shaken(flow_on(1, 1, 2))
    c, y = torch.zeros(1, 1, 4, dtype=torch.float64), torch.full((1, 2, 4), 0.1, dtype=torch.float64)
    of_y = torch.autograd.functional.jacobian(lambda v: flow.whiten(v, c)[0].flatten(), y).reshape(8, 8)
    of_c = torch.autograd.functional.jacobian(lambda v: flow.whiten(y, v)[0].flatten(), c).reshape(8, 4)
    assert float(of_y.abs().min()) > 0
    assert float(of_c.abs().min()) > 0


def test_untrained_flow_is_noise_in_the_units_of_the_samples(generator):
    detail = 3 * torch.randn(500, 2, 4, generator=generator) + 1
    coarse = torch.randn(500, 1, 4, generator=generator)
    for symmetric in (True, False):
        flow = in_units(1, 1, 2, symmetric=symmetric).standardise(detail, coarse)
        rows = detail.transpose(0, 1).flatten(1)
        centre = 0 * rows[:, 0] if symmetric else rows.mean(1)
        spread = ((rows - centre[:, None]) ** 2).mean(1).sqrt()
        law = torch.distributions.Normal(centre[:, None], spread[:, None])
        torch.testing.assert_close(
            flow.log_prob(detail, coarse), law.log_prob(detail).sum((1, 2)), rtol=1e-5, atol=1e-4
        )


def test_training_finds_a_known_law(generator):
    """One scale, two sites, correlated: the likelihood comes to that of the exact Gaussian."""
    covariance = torch.tensor([[1.0, 0.7], [0.7, 1.0]])
    x = torch.randn(4000, 2, generator=generator) @ torch.linalg.cholesky(covariance).T
    with torch.random.fork_rng():
        torch.manual_seed(0)
        flow = CouplingFlow(1, 0, 1, sites=(2,), rounds=1, width=8, layers=1, bins=4)
    model = Cascade(Lattice((2,), boundary="periodic"), [], [], flow)
    fit_to_fields(model, x[:, None], steps=150, rate=2e-2, generator=generator)
    law = torch.distributions.MultivariateNormal(torch.zeros(2), covariance)
    fresh = torch.randn(4000, 2, generator=generator) @ torch.linalg.cholesky(covariance).T
    with torch.no_grad():
        loss = law.log_prob(fresh) - model.log_prob(fresh[:, None])
    # A mean of 4000 differences; a flow that ignores the correlation loses 0.337 nats.
    assert float(loss.mean()) < 0.02
    sample = model.sample(4000, generator=generator)[:, 0]
    assert abs(float((sample[:, 0] * sample[:, 1]).mean()) - 0.7) < 4 * math.sqrt((1 + 0.7**2) / 4000) + 0.05


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_one_scale_is_a_cascade_without_steps(dim, generator):
    shape = (4, 2, 2)[:dim]
    model = Cascade(Lattice(shape, boundary="periodic"), [], [], shaken(flow_on(dim, 0, 1, sites=shape)))
    draw = model.draw(6, generator=generator)
    assert draw.value.shape == (6, 1, *shape)
    torch.testing.assert_close(model.log_prob(draw.value), draw.log_prob, rtol=0, atol=1e-8)
    assert model.log_prob(draw.value, per_level=True).shape == (6, 1)
    torch.testing.assert_close(model.log_prob(-draw.value), draw.log_prob, rtol=0, atol=1e-8)
    assert [level.modes for level in model.levels] == [math.prod(shape)]


def test_in_a_cascade(generator):
    """Parts of the levels add up, and gradients of a draw reach every level."""
    flows = [shaken(in_units(2, 1, 3), seed) for seed in range(2)]
    top = shaken(in_units(2, 0, 1, sites=(2, 2)), 7)
    model = Cascade(Lattice((8, 8), boundary="periodic"), [Wavelet()] * 2, flows, top)
    draw = model.draw(4, generator=generator)
    parts = model.log_prob(draw.value, per_level=True)
    torch.testing.assert_close(parts.sum(1), draw.log_prob, rtol=0, atol=1e-8)
    draw.value.square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for part in (*flows, top) for p in part.parameters())


def test_errors():
    with pytest.raises(RecipeError, match="must be told its sites"):
        CouplingFlow(2, 0, 1)
    with pytest.raises(ValueError, match="rounds must be >= 1"):
        CouplingFlow(2, 1, 1, rounds=0)
    with pytest.raises(DataError, match=r"details have 2 channel\(s\) here"):
        CouplingFlow(1, 1, 2).log_prob(torch.ones(1, 3, 4), torch.ones(1, 1, 4))


@pytest.mark.parametrize("boundary", ["open", "periodic"])
@pytest.mark.parametrize("dilation", [1, 3])
def test_networks_pad_as_they_say(boundary, dilation, generator):
    """Against taps written out site by site, also where they wrap more than once."""
    net = LocalNet(1, 1, 1, width=1, layers=1, boundary=boundary, dilation=dilation).double()
    taps = net.hidden[0].weight.detach().flatten()
    with torch.no_grad():
        net.last.weight.fill_(1.0)
    for size in (1, 2, 5):
        x = torch.randn(1, 1, size, generator=generator, dtype=torch.float64)
        hidden = []
        for i, k in itertools.product(range(size), range(3)):
            place = i + dilation * (k - 1)
            inside = boundary == "periodic" or 0 <= place < size
            hidden.append(taps[k] * x[0, 0, place % size] if inside else 0 * taps[k])
        total = torch.stack(hidden).reshape(size, 3).sum(1) + net.hidden[0].bias
        torch.testing.assert_close(net(x)[0, 0], torch.nn.functional.silu(total), rtol=0, atol=1e-12)
        at = torch.tensor([size - 1])
        torch.testing.assert_close(net(x, at=at)[..., 0], net(x)[..., -1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("components", [1, 2, 5])
def test_mixture_is_the_sum_of_its_gaussians(components, generator):
    head = MixtureHead(components)
    assert isinstance(head, Head)
    theta = torch.randn(head.size, generator=generator, dtype=torch.float64)
    w, m, s = theta.chunk(3)
    x = torch.linspace(-60, 60, 40001, dtype=torch.float64)
    density = head.log_prob(x, theta.expand(len(x), -1)).exp()
    assert abs(float(density.sum()) * 120 / 40000 - 1) < 1e-9
    # An untrained mixture has mean 0 and variance 1; theta moves, widens and weighs.
    rest = head.log_prob(x, torch.zeros(len(x), head.size, dtype=torch.float64)).exp() * 120 / 40000
    torch.testing.assert_close((rest * x**2).sum(), torch.ones(()).double(), rtol=0, atol=1e-8)
    places = torch.special.ndtri((torch.arange(components).double() + 0.5) / components)
    mean = float((w.softmax(0) * (places + m)).sum())
    assert abs(float((density * x).sum()) * 120 / 40000 - mean) < 1e-8
    width = (1 - places.square().mean()).sqrt() * (4 * torch.tanh(s / 4)).exp()
    second = float((w.softmax(0) * ((places + m) ** 2 + width**2)).sum())
    assert abs(float((density * x**2).sum()) * 120 / 40000 - second) < 1e-7


def test_mixture_draws_and_mirror(generator):
    head = MixtureHead(3)
    theta, other = torch.randn(2, head.size, generator=generator, dtype=torch.float64)
    law, turned = head.mirrored(theta, other), head.mirrored(other, theta)
    x = torch.linspace(-3, 3, 11, dtype=torch.float64)
    torch.testing.assert_close(
        head.log_prob(x, law.expand(11, -1)), head.log_prob(-x, turned.expand(11, -1)), rtol=0, atol=1e-12
    )
    num = 20000
    draw = head.draw(theta.expand(num, -1), generator=generator)
    torch.testing.assert_close(head.log_prob(draw.value, theta.expand(num, -1)), draw.log_prob)
    grid = torch.linspace(-60, 60, 40001, dtype=torch.float64)
    share = (head.log_prob(grid, theta.expand(len(grid), -1)).exp() * 120 / 40000).cumsum(0)
    ordered = draw.value.sort().values
    exact = np.interp(ordered.numpy(), grid.numpy(), share.numpy())
    distance = np.abs(exact - (np.arange(num) + 0.5) / num).max()
    assert distance < 1.95 / math.sqrt(num)  # Kolmogorov-Smirnov, p = 0.001


def test_mixture_gradients_are_those_of_the_quantile(generator):
    """dx/dtheta at a fixed share of the distribution, against finite differences of a bisection."""
    head = MixtureHead(3)
    start = torch.randn(head.size, generator=generator, dtype=torch.float64)
    theta = start.clone().requires_grad_()
    x = head.draw(theta[None], generator=generator).value
    (gradient,) = torch.autograd.grad(x.sum(), theta)

    def share(at, parameters):
        log_w, m, log_s = head._parts(parameters)
        return float((log_w.exp() * torch.special.ndtr((at - m) / log_s.exp())).sum())

    def quantile(level, parameters):
        low, high = -100.0, 100.0
        for _ in range(200):
            middle = (low + high) / 2
            low, high = (middle, high) if share(middle, parameters) < level else (low, middle)
        return low

    level = share(float(x.detach()), start)
    for index in range(head.size):
        step = torch.zeros(head.size, dtype=torch.float64)
        step[index] = 1e-5
        difference = (quantile(level, start + step) - quantile(level, start - step)) / 2e-5
        assert abs(difference - float(gradient[index])) < 1e-6


def test_mixtures_in_a_local_conditional(generator):
    law = LocalConditional(1, 1, 1, MixtureHead(3))
    shaken_law = shaken(law) if hasattr(law, "symmetric") else law
    c = torch.randn(4, 1, 6, generator=generator, dtype=torch.float64)
    draw = shaken_law.draw(c, generator=generator)
    torch.testing.assert_close(shaken_law.log_prob(draw.value, c), draw.log_prob, rtol=0, atol=1e-8)
    torch.testing.assert_close(shaken_law.log_prob(-draw.value, -c), draw.log_prob, rtol=0, atol=1e-8)


def test_equalised_values_keep_the_density(generator):
    """The map is monotone, its volume is that of its slope, and a uniform set comes to normal numbers."""
    grey = torch.tensor([0] * 90 + [10] * 6 + [255] * 4, dtype=torch.uint8)
    flatten = Equalised(grey, mix=0.25)
    v = torch.tensor([[0], [10], [77], [255]], dtype=torch.uint8)
    u = torch.tensor([[0.3], [0.5], [0.9], [0.2]], dtype=torch.float64)
    x, log_det = flatten(v, u)
    assert bool((x.diff(dim=0) > 0).all())
    step = 0.02  # x is float32
    slope = (flatten(v, u + step)[0] - flatten(v, u - step)[0]).double() / (2 * step)
    torch.testing.assert_close(log_det.double(), slope.log()[:, 0], rtol=0, atol=1e-2)
    # F by hand: 3/4 of the share of values below, 1/4 of the place in 0 ... 256.
    share = 0.75 * 0.9 * 0.3 + 0.25 * 0.3 / 256
    torch.testing.assert_close(x[0, 0].double(), torch.special.ndtri(torch.tensor(share).double()), rtol=0, atol=1e-6)
    ends, volume = flatten(torch.tensor([[0], [255]], dtype=torch.uint8), torch.tensor([[0.0], [1.0]]))
    assert bool(ends.isfinite().all() & volume.isfinite().all())


def test_the_benchmark_of_images_weighs_all_of_an_image(generator):
    """Untrained flows are white noise, whatever the levels: the parts then add up to that of the whole image."""
    x = torch.randn(3, 1, 28, 28, generator=generator)
    exact = -0.5 * (x**2 + math.log(2 * math.pi)).flatten(1).sum(1)
    for steps, laws in (
        cascade_images.cascade("checkerboard"),
        cascade_images.cascade("haar"),
        cascade_images.one_scale(),
    ):
        parts = cascade_images.level_log_probs(steps, laws, x)
        assert len(parts) == len(steps) + 1
        torch.testing.assert_close(sum(parts), exact, rtol=1e-5, atol=1e-2)


def test_training_for_a_time_learns_and_stops(generator):
    law = flow_on(1, 0, 1, sites=(2,), rounds=1)
    x = 0.2 * torch.randn(256, 1, 2, generator=generator)
    before = mean_log_prob(law, x, x[:, 0, :0])
    begun = time.process_time()
    steps = train_for(law, lambda: (x, x[:, 0, :0]), seconds=0.7, rate=2e-2)
    assert steps >= 3
    assert time.process_time() - begun < 5
    after = mean_log_prob(law, x, x[:, 0, :0], rows=100)
    assert float((after - before).mean()) > 0


def test_far_correlations_of_known_fields(generator):
    """Constant fields of variance 1 have G = 1 everywhere; of amplitude 1.1 they are 21 % off."""
    sign = torch.where(torch.rand(640, 1, 1, 1, generator=generator) < 0.5, 1.0, -1.0)
    one, more = (longrange.far(a * sign.expand(640, 1, 8, 8)) for a in (1.0, 1.1))
    error, statistical = longrange.relative_error(more, one)
    assert abs(error - 0.21) < 1e-5
    assert statistical < 1e-5
    assert one.value.shape == (3,)


def test_the_benchmark_of_far_correlations_runs_on_a_small_lattice():
    small = UNetSpec(width=8, multipliers=(1, 2), attention=(), groups=4)
    numbers = {"edge": 8, "train": 64, "validation": 16, "reference": 64, "samples": 64, "diffusion_samples": 64}
    plan = longrange.Plan(**numbers, seconds=0.5, diffusion_seconds=0.5, network=small)
    result = longrange.run(0, plan)
    assert {"cascade_error", "one_scale_error", "cascade_seconds", "one_scale_seconds"} <= result.figures.keys()
    for method in ("ours", "ddpm", "edm"):
        errors = [row["error"] for row in result.table if row["model"] == method]
        assert len(errors) == (1 if method == "ours" else 3)
        assert min(errors) == result.figures[f"g_error_{method}"]
    assert all(math.isfinite(value) for value in result.figures.values())
