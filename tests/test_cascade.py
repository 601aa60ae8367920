"""Cascades against closed forms, enumeration and quadrature: free fields, heat baths, learned parts, weights."""

import itertools
import math

import pytest
import torch

from conftest import TOLERANCE
from renorm.cascade.cascade import Cascade
from renorm.cascade.checkerboards import checkerboard_cascade, doubled
from renorm.cascade.conditionals.heads import SpinHead, SplineHead
from renorm.cascade.conditionals.heat_bath import EvenAction, HeatBath
from renorm.cascade.conditionals.linear_gaussian import GaussianTop, LinearGaussian
from renorm.cascade.conditionals.local import LocalConditional, SiteTop, sublattices
from renorm.cascade.conditionals.site_laws import IsingSite, Phi4Site
from renorm.cascade.conditionals.spectral_gaussian import SpectralGaussian, joint_covariance, spectral_covariance
from renorm.cascade.gaussian import gaussian_cascade
from renorm.cascade.learning.training import fit_to_action, fit_to_fields
from renorm.coarse.checkerboard import Checkerboard, RotatedCheckerboard
from renorm.coarse.fourier import FourierShell
from renorm.coarse.learned import CayleyBlock
from renorm.coarse.wavelet import Wavelet
from renorm.errors import DataError, NonFiniteLossError, RecipeError
from renorm.lattice import Lattice
from renorm.laws.gaussian_field import GaussianField
from renorm.laws.ising import Ising
from renorm.laws.phi4 import Phi4
from renorm.measure.free_energy import log_z
from renorm.measure.statistics import ess
from renorm.nn.patch import PatchNet


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def free_field(edge, mass_sq, dim=2):
    """Lattice and spectrum in the order of torch.fft."""
    k = 2 * math.pi * torch.arange(edge, dtype=torch.float64) / edge
    total = torch.full((edge,) * dim, mass_sq, dtype=torch.float64)
    for axis in range(dim):
        total = total + (4 * torch.sin(k / 2) ** 2).reshape([-1 if a == axis else 1 for a in range(dim)])
    return Lattice((edge,) * dim, boundary="periodic"), (1 / total).to(torch.complex128)[..., None, None]


STEPS = {
    "haar": [Wavelet(order=1, dim=2)] * 3,
    "db4": [Wavelet(order=4, dim=2)] * 2,
    "checkerboard": [Checkerboard(), RotatedCheckerboard()] * 2,
}


# Gaussian fields, exactly


@pytest.mark.parametrize("mass_sq", [0.1, 0.01, 1e-4])
@pytest.mark.parametrize("name", STEPS)
def test_the_cascade_of_a_free_field_is_the_free_field(mass_sq, name):
    lattice, covariance = free_field(8, mass_sq)
    model = gaussian_cascade(lattice, covariance, STEPS[name])
    law = GaussianField((8, 8), mass_sq=mass_sq)
    weighted = model.weigh(law, 50, generator=generator())
    assert torch.allclose(weighted.log_weight, torch.tensor(law.log_z, dtype=torch.float64), atol=1e-9)
    assert ess(weighted.log_weight) == pytest.approx(1.0, abs=1e-12)
    x = law.sample(20, generator=generator(1), dtype=torch.float64)
    assert torch.allclose(model.log_prob(x), -law(x) - law.log_z, atol=1e-9)


def test_conditional_entropies_and_condition_numbers_of_the_free_field():
    """Numbers of a 32 x 32 torus at m^2 = 1e-4, made by dense linear algebra elsewhere."""
    lattice, covariance = free_field(32, 1e-4)
    haar = gaussian_cascade(lattice, covariance, [Wavelet(order=1, dim=2)] * 5)
    each = [float(c.noise.entropy) / (c.noise.sites * c.noise.channels) for c in haar.conditionals[:4]]
    assert each == pytest.approx([0.679612, 1.105239, 1.681189, 2.351348], abs=1e-6)
    numbers = [c.noise.condition_number for c in haar.conditionals[:4]]
    assert numbers == pytest.approx([4.00, 6.00, 8.00, 9.01], abs=6e-3)
    db4 = gaussian_cascade(lattice, covariance, [Wavelet(order=4, dim=2)] * 3)
    each = [float(c.noise.entropy) / (c.noise.sites * c.noise.channels) for c in db4.conditionals]
    assert each == pytest.approx([0.661694, 1.140872, 1.784463], abs=1e-6)
    assert [c.noise.condition_number for c in db4.conditionals] == pytest.approx([4.00, 6.76, 7.74], abs=6e-3)
    boards = gaussian_cascade(lattice, covariance, [Checkerboard(), RotatedCheckerboard()] * 5)
    assert max(c.noise.condition_number for c in boards.conditionals) < 2 + 1e-6


def test_each_level_has_its_own_law():
    """The marginal of Haar's coarse field, by dense linear algebra."""
    lattice, covariance = free_field(8, 0.05)
    model = gaussian_cascade(lattice, covariance, STEPS["haar"])
    unit = torch.eye(64, dtype=torch.float64).reshape(64, 1, 8, 8)
    dense = torch.fft.ifft2(torch.fft.fft2(unit[:, 0]) * covariance[..., 0, 0]).real.reshape(64, 64)
    w = Wavelet(order=1, dim=2).split(unit).coarse.reshape(64, 16).T
    law = torch.distributions.MultivariateNormal(torch.zeros(16, dtype=torch.float64), w @ dense @ w.T)
    x = model.sample(10, generator=generator(), level=1)
    assert torch.allclose(model.log_prob_level(x, 1), law.log_prob(x.flatten(1)), atol=1e-9)
    per_level = model.log_prob_level(x, 1, per_level=True)
    assert per_level.shape == (10, 3)
    assert torch.allclose(per_level.sum(1), law.log_prob(x.flatten(1)), atol=1e-9)


@pytest.mark.parametrize("dim", [1, 3])
def test_other_dimensions(dim):
    lattice, covariance = free_field(4, 0.3, dim)
    model = gaussian_cascade(lattice, covariance, [Wavelet(order=1, dim=dim)] * 2)
    law = GaussianField((4,) * dim, mass_sq=0.3)
    x = law.sample(5, generator=generator(), dtype=torch.float64)
    assert torch.allclose(model.log_prob(x), -law(x) - law.log_z, atol=1e-9)


def test_a_learned_block_is_a_linear_step_too():
    lattice, covariance = free_field(8, 0.1)
    block = CayleyBlock().double()
    torch.nn.init.normal_(next(block.parameters()), generator=generator())
    model = gaussian_cascade(lattice, covariance, [block, Wavelet(order=1, dim=2)])
    law = GaussianField((8, 8), mass_sq=0.1)
    x = law.sample(5, generator=generator(), dtype=torch.float64)
    assert torch.allclose(model.log_prob(x), -law(x) - law.log_z, atol=1e-9)
    assert len(list(model.learned_steps.parameters())) == 1


def test_samples_teach_the_linear_cascade():
    lattice, covariance = free_field(8, 0.2)
    exact = gaussian_cascade(lattice, covariance, STEPS["haar"])
    model = gaussian_cascade(lattice, spectral_covariance(exact.sample(4000, generator=generator())), STEPS["haar"])
    x = exact.sample(500, generator=generator(1))
    lost = (exact.log_prob(x) - model.log_prob(x)).mean()
    assert 0 < lost < 0.02  # half a nat for each of some tens of spectra, over 4000 samples
    with pytest.raises(DataError, match="every mode needs a variance > 0"):
        gaussian_cascade(lattice, spectral_covariance(torch.zeros(4, 1, 8, 8, dtype=torch.float64)), STEPS["haar"])


def test_draws_have_the_covariance(dtype):
    matrix = torch.tensor([[2.0, 0.5j], [-0.5j, 1.0]], dtype=torch.complex128)
    covariance = torch.stack([matrix.real.to(torch.complex128), matrix, matrix.conj()])
    law = SpectralGaussian(covariance)
    x = law.sample(40_000, generator=generator())
    assert torch.allclose(spectral_covariance(x), covariance, atol=0.05)
    conditional = LinearGaussian(covariance, 1)
    coarse = torch.randn(7, 1, 3, dtype=dtype, generator=generator())
    draw = conditional.draw(coarse, generator=generator())
    assert draw.value.dtype == dtype
    assert torch.allclose(conditional.log_prob(draw.value, coarse), draw.log_prob, atol=100 * TOLERANCE[dtype])


def test_linear_parts_refuse_what_they_cannot_do():
    lattice, covariance = free_field(8, 0.1)
    with pytest.raises(RecipeError, match="details on the coarse lattice"):
        joint_covariance(FourierShell(dim=2), lattice, covariance)
    with pytest.raises(RecipeError, match="need a periodic lattice"):
        joint_covariance(Wavelet(order=1, dim=2), Lattice((8, 8)), covariance)


# Heat baths


def test_spins_of_a_heat_bath_are_exact():
    """ln Z of 4 x 4 spins from the even ones alone, and the chain rule of entropies."""
    law = Ising((4, 4), beta=0.44068679350977147)
    site = IsingSite(law.beta)
    even = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=8)), dtype=torch.float64).reshape(-1, 2, 2, 2)
    log_weight = -EvenAction(site)(even)
    assert float(log_weight.logsumexp(0)) == pytest.approx(15.521915458755283, abs=1e-12)
    p = log_weight.softmax(0)
    entropy = -(p * p.log()).sum()
    assert float(entropy) == pytest.approx(2.783599215441522, abs=1e-12)
    bath = HeatBath(site)
    draws = bath.draw(even, generator=generator())
    assert torch.allclose(bath.log_prob(draws.value, even), draws.log_prob)
    odd = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=8)), dtype=torch.float64).reshape(-1, 2, 2, 2)
    for state in even[[0, 37, 255]]:
        each = bath.log_prob(odd, state.expand(256, -1, -1, -1))
        assert float(each.exp().sum()) == pytest.approx(1.0, abs=1e-12)
        fields = Checkerboard().merge(state.expand(256, -1, -1, -1), odd)
        energy = -law(fields)
        assert torch.allclose(each, energy - energy.logsumexp(0), atol=1e-12)


@pytest.mark.parametrize(
    ("kappa", "lam", "c2"), [(0.34, 1.0, None), (0.2, 0.022, None), (0.3, 0.0, 1.5), (0.5, 3.0, -6.0)]
)
def test_the_normaliser_of_a_site_is_its_integral(kappa, lam, c2):
    site = Phi4Site(kappa, lam, c2)
    h = torch.tensor([-30.0, -3.3, 0.0, 0.7, 16.0, 41.0], dtype=torch.float64, requires_grad=True)
    phi = torch.linspace(-60, 60, 400_001, dtype=torch.float64)
    log = 2 * kappa * h.detach()[:, None] * phi - site.potential(phi)
    assert torch.allclose(site.log_normaliser(h), log.logsumexp(1) + math.log(120 / 400_000), atol=1e-9, rtol=1e-12)
    (slope,) = torch.autograd.grad(site.log_normaliser(h).sum(), h)
    assert torch.allclose(slope, 2 * kappa * (log.softmax(1) * phi).sum(1), atol=1e-6)


@pytest.mark.parametrize(("kappa", "lam", "c2"), [(0.34, 1.0, None), (0.5, 3.0, -6.0), (0.3, 0.0, 1.5)])
def test_sites_are_drawn_from_their_law(kappa, lam, c2):
    site = Phi4Site(kappa, lam, c2)
    phi = torch.linspace(-15, 15, 200_001, dtype=torch.float64)
    for h in (0.0, 1.1, -4.0):
        number = 40_000
        draw = site.draw(torch.full((number,), h, dtype=torch.float64), generator=generator())
        p = (2 * kappa * h * phi - site.potential(phi)).softmax(0)
        cdf = p.cumsum(0)
        place = torch.searchsorted(phi, draw.value).clamp(max=len(phi) - 1)
        uniform = cdf[place].sort().values
        steps = torch.arange(1, number + 1, dtype=torch.float64) / number
        assert float((uniform - steps).abs().max()) < 1.95 / math.sqrt(number)  # Kolmogorov, p = 0.001
        assert torch.allclose(draw.log_prob, site.log_prob(draw.value, torch.full((number,), h, dtype=torch.float64)))


def test_odd_sites_of_phi4_are_integrated_out():
    """Z of 2 x 2 sites, by quadrature over the two even ones."""
    phi = torch.linspace(-4.5, 4.5, 301, dtype=torch.float64)
    pairs = torch.cartesian_prod(phi, phi).reshape(-1, 2, 1, 1)
    value = (-EvenAction(Phi4Site(0.34, 1.0))(pairs)).logsumexp(0) + 2 * math.log(9 / 300)
    assert float(value) == pytest.approx(5.573127085267, abs=1e-9)


@pytest.mark.parametrize(("lam", "c2"), [(-0.1, None), (0.0, -1.0), (math.nan, None)])
def test_a_site_must_be_bounded(lam, c2):
    with pytest.raises(ValueError, match=r"bounded below|finite"):
        Phi4Site(0.3, lam, c2)


# Heads and local conditionals


@pytest.mark.parametrize("head", [SplineHead(bins=5, bound=3.0), SpinHead()])
def test_heads_are_laws_that_turn_over(head, dtype):
    theta, other = (torch.randn(9, head.size, dtype=dtype, generator=generator(k)) for k in (0, 1))
    draw = head.draw(theta, generator=generator())
    assert torch.allclose(head.log_prob(draw.value, theta), draw.log_prob, atol=300 * TOLERANCE[dtype])
    up, down = head.mirrored(theta, other), head.mirrored(other, theta)
    value = head.draw(up, generator=generator()).value
    assert torch.allclose(head.log_prob(value, up), head.log_prob(-value, down), atol=300 * TOLERANCE[dtype])
    if isinstance(head, SplineHead):
        x = torch.linspace(-60, 60, 200_001, dtype=torch.float64)
        each = head.log_prob(x, theta[0].double().expand(len(x), -1))
        assert float(each.exp().sum().detach()) * 120 / 200_000 == pytest.approx(1.0, abs=1e-4)
    else:
        both = torch.stack([head.log_prob(torch.full((9,), s, dtype=dtype), theta) for s in (-1.0, 1.0)])
        assert torch.allclose(both.exp().sum(0), torch.ones(9, dtype=dtype))


def shaken(model, seed=0):
    """Parameters that are not at their start."""
    torch.manual_seed(seed)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.mark.parametrize("head", [SplineHead(bins=4), SpinHead()])
@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (4, 6)])
def test_local_conditionals_know_their_density_and_turn_over(head, shape):
    law = shaken(LocalConditional(2, 2, 2, head, width=6)).double()
    coarse = torch.randn(5, 2, *shape, dtype=torch.float64, generator=generator())
    draw = law.draw(coarse, generator=generator())
    assert draw.value.shape == (5, 2, *shape)
    assert torch.allclose(law.log_prob(draw.value, coarse), draw.log_prob, atol=1e-10)
    assert torch.allclose(law.log_prob(-draw.value, -coarse), draw.log_prob, atol=1e-10)
    moved = law.log_prob(draw.value.roll(2, -1), coarse.roll(2, -1))  # by a whole cell
    if shape[1] % 2 == 0:
        assert torch.allclose(moved, draw.log_prob, atol=1e-10)


def test_spins_of_a_local_conditional_sum_to_one():
    law = shaken(LocalConditional(2, 1, 1, SpinHead(), width=6)).double()
    spins = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=6)), dtype=torch.float64).reshape(-1, 1, 2, 3)
    coarse = torch.randn(1, 1, 2, 3, dtype=torch.float64, generator=generator()).expand(64, -1, -1, -1)
    assert float(law.log_prob(spins, coarse).exp().sum().detach()) == pytest.approx(1.0, abs=1e-12)


def test_sublattices_cover_each_site_once():
    for shape, period, parts in [((4, 4), 2, 4), ((1, 1), 2, 1), ((2, 6, 4), 2, 8), ((6,), 3, 3), ((3, 1), 2, 2)]:
        places = sublattices(shape, period)
        assert len(places) == parts
        seen = torch.zeros(shape, dtype=torch.long)
        for place in places:
            seen[tuple(slice(first, None, period) for first in place)] += 1
        assert (seen == 1).all()
    assert sublattices((2, 2), 2) == [(0, 0), (1, 1), (0, 1), (1, 0)]


@pytest.mark.parametrize("shape", [(1,), (2,), (5,), (2, 4), (1, 3), (2, 1, 4)])
def test_patches_wrap_around_the_lattice(shape):
    """A patch network against sites looked up one by one."""
    torch.manual_seed(0)
    net = PatchNet(len(shape), 2, 3, radius=2, width=5)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(2, 2, *shape, generator=generator())
    first = tuple(min(1, n - 1) for n in shape)
    out = net(x, first, 2)
    for place in itertools.product(*(range(start, n, 2) for start, n in zip(first, shape, strict=True))):
        around = x
        for axis, (site, n) in enumerate(zip(place, shape, strict=True)):
            around = around.index_select(axis + 2, torch.arange(site - 2, site + 3) % n)
        flat = around.flatten(1)
        hidden = torch.nn.functional.silu(flat @ net.first.weight.flatten(1).T + net.first.bias)
        hidden = torch.nn.functional.silu(hidden @ net.hidden[0].weight.flatten(1).T + net.hidden[0].bias)
        exact = flat @ net.linear.weight.flatten(1).T + net.linear.bias + hidden @ net.last.weight.flatten(1).T
        index = tuple((site - start) // 2 for site, start in zip(place, first, strict=True))
        assert torch.allclose(out[(slice(None), slice(None), *index)], exact, atol=1e-3)


# Whole cascades


@pytest.mark.parametrize("head", [SplineHead(bins=4), SpinHead()])
def test_a_cascade_of_checkerboards_keeps_its_promises(head):
    site = Phi4Site(0.3, 1.0) if isinstance(head, SplineHead) else IsingSite(0.4)
    model = shaken(checkerboard_cascade(8, site, head, width=6)).double()
    assert [level.modes for level in model.levels] == [64, 32, 16, 8, 4, 2, 1]
    x, log_prob = model.draw(6, generator=generator())
    assert torch.allclose(model.log_prob(x), log_prob, atol=1e-8)
    parts = model.log_prob(x, per_level=True)
    assert parts.shape == (6, 7)
    assert torch.allclose(parts.sum(1), log_prob, atol=1e-8)
    assert torch.allclose(model.log_prob(-x), log_prob, atol=1e-8)
    assert torch.equal(model.decode(model.encode(x)), x)
    for level in (1, 3):
        coarse = model.coarsen(x, level)
        fine = model.refine(coarse, level=level, generator=generator(1))
        assert torch.equal(model.coarsen(fine, level), coarse)
        assert torch.equal(
            model.sample(3, generator=generator(2), level=level),
            model.draw(3, generator=generator(2), level=level).value,
        )


def test_spins_of_a_cascade_sum_to_one():
    model = shaken(checkerboard_cascade(4, IsingSite(0.4), SpinHead(), width=4)).double()
    even = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=8)), dtype=torch.float64).reshape(-1, 2, 2, 2)
    assert float(model.log_prob_level(even, 1).exp().sum().detach()) == pytest.approx(1.0, abs=1e-12)


def test_spins_learn_from_their_action_alone():
    law = Ising((4, 4), beta=0.44068679350977147)
    torch.manual_seed(0)
    model = checkerboard_cascade(4, IsingSite(law.beta), SpinHead(), width=12)
    trained = fit_to_action(
        model, EvenAction(IsingSite(law.beta)), steps=250, batch=128, rate=1e-2, level=1, generator=generator()
    )
    assert min(trained.losses[-20:]) < -15.3
    weighted = model.weigh(law, 4000, generator=generator(1))
    value, error = log_z(weighted.log_weight)
    assert ess(weighted.log_weight) > 0.8
    assert abs(value - 15.521915458755283) < 4 * error + 1e-3


def test_fields_learn_from_their_action_alone():
    law = Phi4((2, 2), kappa=0.34, lam=1.0)
    torch.manual_seed(0)
    site = Phi4Site(0.34, 1.0)
    model = checkerboard_cascade(2, site, SplineHead(bins=6), width=8)
    told = []
    fit_to_action(
        model,
        EvenAction(site),
        steps=300,
        batch=128,
        rate=1e-2,
        level=1,
        generator=generator(),
        tell=lambda *a: told.append(a),
    )
    assert told[-1][0] == 300
    weighted = model.weigh(law, 4000, generator=generator(1))
    value, error = log_z(weighted.log_weight)
    assert ess(weighted.log_weight) > 0.94
    assert abs(value - 5.573127085267) < 4 * error + 1e-3
    assert weighted.log_weight.mean() < 5.573 + 4 * weighted.log_weight.std() / 4000**0.5


def test_samples_teach_a_cascade():
    """Two sites of a double well: from samples of it to its likelihood."""
    x = torch.randn(2000, 1, 2, generator=generator())
    fields = x.sign() + 0.3 * torch.randn(2000, 1, 2, generator=generator(1))
    model = Cascade(
        Lattice((2,), boundary="periodic"),
        [Wavelet(order=1, dim=1)],
        [LocalConditional(1, 1, 1, SplineHead(bins=8, bound=4.0), width=16)],
        SiteTop((1, 1), SplineHead(bins=8, bound=4.0)),
    )
    torch.manual_seed(0)
    before = -model.log_prob(fields).mean()
    trained = fit_to_fields(model, fields[:1500], steps=300, rate=1e-2, generator=generator(2))
    after = -model.log_prob(fields[1500:]).mean()
    assert trained.losses[-1] < trained.losses[0]
    exact = torch.stack([torch.distributions.Normal(m, 0.3).log_prob(fields[1500:]) for m in (-1.0, 1.0)]).logsumexp(
        0
    ) - math.log(2)
    best = -exact.flatten(1).sum(1).mean()
    assert after < before - 0.3
    assert after < best + 0.12


def test_a_doubled_cascade_has_its_parts_from_the_smaller():
    model = shaken(checkerboard_cascade(4, IsingSite(0.4), SpinHead(), width=4))
    twice = doubled(model)
    assert twice.lattice.shape == (8, 8)
    assert len(twice.steps) == 6
    x = twice.sample(3, generator=generator())
    assert torch.isfinite(twice.log_prob(x)).all()
    for new, old in [(1, 1), (2, 2), (4, 2), (3, 3), (5, 3)]:
        a, b = (list(m.conditionals[k].parameters()) for m, k in ((twice, new), (model, old)))
        assert all(torch.equal(p, q) for p, q in zip(a, b, strict=True)), (new, old)


def test_bad_input_is_named():
    with pytest.raises(RecipeError, match=r"power of two, at least 2 .* got 6"):
        checkerboard_cascade(6, IsingSite(0.4), SpinHead())
    model = checkerboard_cascade(4, IsingSite(0.4), SpinHead(), width=4)
    x = model.sample(2, generator=generator())
    for call, message in [
        (lambda: model.log_prob(x[..., :2]), r"level 0 have the shape \(batch, 1, 4, 4\), got \(2, 1, 4, 2\)"),
        (lambda: model.coarsen(x, 9), r"level must be 0 \.\.\. 4, got 9"),
        (lambda: model.refine(x, level=0, generator=generator()), r"goes to a finer level"),
        (lambda: model.sample(0, generator=generator()), "num must be >= 1"),
        (lambda: model.log_prob(x, condition=torch.zeros(2)), "no classes"),
        (lambda: model.weigh(lambda f: f.sum((1, 2, 3)) / 0.0, 5, generator=generator()), "action must be finite"),
        (lambda: fit_to_fields(model, x[:1], steps=1, generator=generator()), "two fields or more"),
    ]:
        with pytest.raises(DataError, match=message):
            call()
    with pytest.raises(RecipeError, match="each of 1 steps needs a conditional, got 0"):
        Cascade(
            Lattice((4, 4), boundary="periodic"),
            [Checkerboard()],
            [],
            GaussianTop(torch.ones(2, 2, 1, 1, dtype=torch.complex128)),
        )
    site = Phi4Site(0.3, 1.0)
    model = checkerboard_cascade(2, site, SplineHead(bins=4), width=4)
    with pytest.raises(NonFiniteLossError, match="bounded below"):
        fit_to_action(model, lambda f: f.flatten(1).sum(1) / 0.0, steps=2, level=1, generator=generator())
