"""Local Gibbs energies: score matching against exact laws, gradients against autograd, moves against closed forms."""

import math

import pytest
import torch

from renorm.bases import basis_for
from renorm.bench.wcrg import LocalPhi4, plane_waves, windows
from renorm.cascade.conditionals.spectral_gaussian import joint_covariance
from renorm.cascade.energy.gibbs import ConditionalAction, GibbsConditional, local_terms
from renorm.cascade.energy.phi4_couplings import couplings, phi4_couplings, phi4_terms
from renorm.cascade.energy.score_matching import merged, score_moments, solve_energy
from renorm.cascade.energy.stencils import DetailStencil, FieldStencil
from renorm.cascade.energy.terms import Bumps, Monomials, cell_sum
from renorm.cascade.energy.tiles import TiledLangevin
from renorm.coarse.fourier import FourierShell
from renorm.coarse.wavelet import Wavelet
from renorm.errors import DataError, RecipeError
from renorm.lattice import Lattice
from renorm.laws.gaussian_field import GaussianField
from renorm.laws.phi4 import Phi4
from renorm.laws.simulate import simulate
from renorm.mcmc.kernel import Kernel, run
from renorm.mcmc.langevin import Langevin
from renorm.model import Grade


def torus(*shape):
    return Lattice(shape, boundary="periodic")


def exact_fields(law):
    """As many fields as there are modes, whose second moments are exactly those of a Gaussian law."""
    sites = math.prod(law.shape)
    modes = torch.eye(sites, dtype=torch.float64).reshape(sites, 1, *law.shape)
    return basis_for(law.lattice).inverse(modes * (law.covariance * sites).sqrt())


def gaussian_energy(law, step, levels=0, radius=1):
    x, lattice = exact_fields(law), law.lattice
    for _ in range(levels):
        x, lattice = step.split(x).coarse, step.coarse_lattice(lattice)
    coarse, detail, _ = step.split(x)
    energy = GibbsConditional(step, lattice, local_terms(step, lattice, radius=radius, bumps=0), ridge=1e-13)
    energy.solve(detail, coarse)
    return energy, detail, coarse


def random_energy(step, lattice, generator, *, extra=()):
    """Every kind of term, with random weights."""
    field = FieldStencil({"phi^2": [(0,) * lattice.dim], "far": [(1, 2)[: lattice.dim], (2, -1)[: lattice.dim]]})
    law = GibbsConditional(step, lattice, [*local_terms(step, lattice, bumps=4), field, *extra])
    x = torch.randn(6, lattice.channels, *lattice.shape, generator=generator, dtype=torch.float64)
    coarse, detail, _ = step.split(x)
    law.solve(detail, coarse)
    law.theta.copy_(torch.randn(law.theta.shape, generator=generator, dtype=torch.float64))
    return law, detail, coarse


CASES = {
    "haar": (Wavelet(), torus(8, 8)),
    "haar, two channels": (Wavelet(), Lattice((4, 8), boundary="periodic", channels=2)),
    "db2": (Wavelet(2), torus(8, 8)),
    "one axis": (Wavelet(dim=1), torus(8)),
}


@pytest.fixture(params=CASES, ids=str)
def case(request):
    return CASES[request.param]


# -- energies, their gradients and curvatures -----------------------------------------------------------


def test_gradient_and_hessian_against_autograd(case, generator):
    law, detail, coarse = random_energy(*case, generator)
    y = detail.clone().requires_grad_()
    (expected,) = torch.autograd.grad(law.energy(y, coarse).sum(), y)
    torch.testing.assert_close(law.gradient(merged(law.step, coarse, detail)), expected, rtol=1e-10, atol=1e-9)
    torch.testing.assert_close(law.log_prob(detail, coarse), -law.energy(detail, coarse))

    one = detail[:1]
    flat = torch.autograd.functional.hessian(
        lambda z: law.energy(z.reshape(one.shape), coarse[:1]).sum(), one.flatten()
    )
    scale = law.scale[:, None].expand(-1, one[0, 0].numel()).flatten()
    torch.testing.assert_close(law.hessian(one, coarse[:1]), scale[:, None] * flat * scale, rtol=1e-9, atol=1e-8)
    eigenvalues = torch.linalg.eigvalsh(scale[:, None] * flat * scale)
    torch.testing.assert_close(law.curvatures(one, coarse[:1])[0], eigenvalues[[0, -1]], rtol=1e-9, atol=1e-8)


def test_energy_is_its_terms_written_out(generator):
    """By hand: products of details at a displacement, of a detail and the coarse field, bumps and phi^4."""
    step, lattice = Wavelet(), torus(8, 8)
    law, detail, coarse = random_energy(step, lattice, generator)
    by_name = law.named()
    phi = step.merge(coarse, detail)
    total = torch.zeros(len(detail), dtype=torch.float64)
    stencil, bumps = law.terms[0], law.terms[1]
    for (a, b, (i, j)), name in zip(stencil.products, stencil.names, strict=True):
        other = detail[:, b] if b < 3 else coarse[:, b - 3]
        moved = torch.stack(
            [torch.stack([other[:, (x + i) % 4, (z + j) % 4] for z in range(4)], -1) for x in range(4)], -2
        )
        total += by_name[name] * (detail[:, a] * moved).sum((1, 2))
    for m, (centre, width) in enumerate(zip(bumps.centres.tolist(), bumps.widths.tolist(), strict=True)):
        both = torch.exp(-((phi - centre) ** 2) / (2 * width**2)) + torch.exp(-((phi + centre) ** 2) / (2 * width**2))
        total += by_name[f"bump{m}"] * both.flatten(1).sum(1)
    total += by_name["phi^4"] * phi.pow(4).flatten(1).sum(1) + by_name["phi^2"] * phi.square().flatten(1).sum(1)
    far = phi.roll((-1, -2), (2, 3)) + phi.roll((-2, 1), (2, 3))
    total += by_name["far"] * (phi * far).flatten(1).sum(1)
    torch.testing.assert_close(law.energy(detail, coarse), total, rtol=1e-10, atol=1e-9)


def test_moments_are_those_of_gradient_and_hessian(case, generator):
    """For any weights a: a M a is the mean square of the gradient of a U, and a b the mean trace of its Hessian."""
    law, detail, coarse = random_energy(*case, generator)
    moments = score_moments(law.step, list(law.terms), coarse[:2], detail[:2], scale=law.scale)
    scale = law.scale.reshape(-1, *[1] * (detail.ndim - 2))
    for _ in range(3):
        a = torch.randn(law.theta.shape, generator=generator, dtype=torch.float64)
        law.theta.copy_(a)
        square = (law.gradient(merged(law.step, coarse[:2], detail[:2])) * scale).square().sum() / 2
        torch.testing.assert_close(a @ moments.gram[0] @ a, square, rtol=1e-9, atol=1e-9)
        trace = sum(law.hessian(detail[i : i + 1], coarse[i : i + 1]).trace() for i in range(2)) / 2
        torch.testing.assert_close(a @ moments.laplacian[0], trace, rtol=1e-9, atol=1e-9)


# -- Gaussian fields, where everything is known ---------------------------------------------------------


@pytest.mark.parametrize(("order", "radius"), [(1, 1), (2, 2)], ids=["haar", "db2"])
def test_a_gaussian_field_gives_the_exact_conditional_precision(order, radius):
    """The finest precision of a free field has the range of the wavelet; score matching finds every entry."""
    law, step = GaussianField((8, 8), 0.05), Wavelet(order)
    energy, _, _ = gaussian_energy(law, step, radius=radius)
    covariance = 1 / (
        law.mass_sq
        + sum(
            2 - 2 * torch.cos(2 * math.pi * torch.fft.fftfreq(8).double())[v]
            for v in ((slice(None), None), (None, slice(None)))
        )
    )
    joint = joint_covariance(step, law.lattice, covariance.to(torch.complex128)[..., None, None])
    precision = torch.linalg.inv(joint)[..., 1:, :]  # of details, with coarse field and details
    noise = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    modes = torch.fft.fftn(noise.to(torch.complex128), dim=(-2, -1))
    expected = torch.fft.ifftn(torch.einsum("xyab,nbxy->naxy", precision, modes), dim=(-2, -1)).real
    found = energy.gradient(merged(step, noise[:, :1], noise[:, 1:]))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)
    assert energy.grade is Grade.ENERGY
    assert energy.closed_form


def test_condition_numbers_of_a_nearly_massless_field():
    """Diagonally normalised, Haar, L = 32, m^2 = 1e-4: 3.00, 4.20, 5.22 (exact linear algebra done elsewhere).

    At the finest level the radius 1 is exact; below it the range is cut, which shows in the third digit at most.
    """
    law, found = GaussianField((16, 16), 1e-4), []
    for level in range(2):
        energy, detail, coarse = gaussian_energy(law, Wavelet(), levels=level)
        least, most = energy.curvatures(detail[:1], coarse[:1])[0].tolist()
        assert least > 0
        found.append(most / least)
    assert found == pytest.approx([3.0, 4.2], abs=0.03)


def test_draws_have_the_law_of_a_gaussian_conditional(generator):
    """Mean and variance of details at one coarse field, against the inverse Hessian: tiles and the whole field."""
    law = GaussianField((16, 16), 0.05)
    energy, _, coarse = gaussian_energy(law, Wavelet())
    energy.sweeps = 50
    hessian = energy.hessian(torch.zeros(1, 3, 8, 8, dtype=torch.float64), coarse[:1])
    slope = energy.gradient(merged(Wavelet(), coarse[:1], torch.zeros(1, 3, 8, 8, dtype=torch.float64)))
    scale = energy.scale[:, None, None]
    mean = -torch.linalg.solve(hessian, (slope * scale).flatten()).reshape(3, 8, 8) * scale
    covariance = torch.linalg.inv(hessian)
    chains = 250
    for tile in (4, 0):
        energy.tile = tile
        draw = energy.draw(coarse[:1].float().expand(chains, 1, 8, 8), generator=generator)
        assert draw.value.dtype == torch.float32
        torch.testing.assert_close(
            draw.log_prob, energy.log_prob(draw.value, coarse[:1].float().expand(chains, 1, 8, 8))
        )
        z = ((draw.value.double() - mean) / scale).flatten(1)
        pull = z.mean(0) / (covariance.diagonal() / chains).sqrt()
        assert float(pull.square().mean()) == pytest.approx(1, abs=0.45), tile
        # x^T H x is chi^2 with as many degrees of freedom as details
        square = torch.einsum("ni,ij,nj->n", z, hessian, z)
        assert float(square.mean()) == pytest.approx(192, abs=4 * math.sqrt(2 * 192 / chains)), tile
        together = (z @ hessian[:, 3] / hessian[3, 3]).var()  # what is left of one detail, given all others
        assert float(together * hessian[3, 3]) == pytest.approx(1, abs=4 * math.sqrt(2 / chains)), tile


# -- couplings ------------------------------------------------------------------------------------------


def test_couplings_of_phi4(generator):
    """Known couplings, within errors, which are small; also with five operators that should be zero or nearly."""
    x = simulate(Phi4((16, 16), 0.3, 0.5, c2=0.1), 1000, generator=generator)
    for step in (Wavelet(), Wavelet(2)):
        found = phi4_couplings(step, x)
        for name, value, size in (("beta", 0.6, 0.01), ("lambda", 0.5, 0.01), ("c2", 0.1, 0.03)):
            assert abs(float(found[name].value) - value) < 4 * float(found[name].error), (step, name)
            assert 0 < float(found[name].error) < size
    wide = phi4_couplings(Wavelet(), x, reach=2)
    assert set(wide) == {"beta", "lambda", "c2", "diagonals", "second", "phi^6"}
    for name in ("diagonals", "second", "phi^6"):
        assert abs(float(wide[name].value)) < 4 * float(wide[name].error), name


def test_errors_of_couplings_are_honest(generator):
    """Over 40 sets of fields, deviations in units of the error have the spread 1."""
    law, step = GaussianField((8, 8), 0.5), Wavelet()
    pulls = []
    for _ in range(40):
        coarse, detail, _ = step.split(law.sample(200, generator=generator))
        found = couplings(step, phi4_terms()[:1], coarse, detail, blocks=25)
        pulls.append([float((found[k].value - v) / found[k].error) for k, v in (("phi^2", 2.25), ("neighbours", -1.0))])
    spread = torch.tensor(pulls).square().mean(0).sqrt()
    assert bool(((spread > 0.7) & (spread < 1.4)).all()), spread


def test_a_larger_basis_projects_to_the_couplings(generator):
    """Score matching in many terms, projected on three operators, is score matching in these three."""
    step, x = Wavelet(), simulate(Phi4.kaupuzs((8, 8), 0.6), 300, generator=generator)
    coarse, detail, _ = step.split(x)
    few = phi4_terms()
    terms = [*few, DetailStencil(2, 1, 3), Bumps(5)]
    terms[-1].prepare(merged(step, coarse, detail))
    gram, laplacian = (part[0] for part in score_moments(step, terms, coarse, detail))
    theta = solve_energy(gram, laplacian, ridge=1e-11)
    projection = torch.linalg.solve(gram[:3, :3], gram[:3] @ theta)
    direct = torch.stack([e.value for e in couplings(step, few, coarse, detail, blocks=10).values()])
    torch.testing.assert_close(projection, direct, rtol=1e-4, atol=1e-4)


def test_draws_of_a_learned_phi4(generator):
    """Details drawn at coarse fields of the data make fields with the data's moments at a site and of neighbours."""
    x = simulate(Phi4.kaupuzs((8, 8), 0.6), 1500, generator=generator, chains=500)
    step = Wavelet()
    law = GibbsConditional(step, torus(8, 8), sweeps=100)
    coarse, detail, _ = step.split(x)
    law.solve(detail, coarse)
    found = step.merge(coarse[:600], law.sample(coarse[:600], generator=generator))
    torch.testing.assert_close(step.split(found).coarse, coarse[:600])
    gaps = []
    for field in (found, x[:600]):
        near = field * (field.roll(1, -1) + field.roll(1, -2))
        gaps.append(torch.stack([field.square(), field.pow(4), near]).flatten(2).double().mean(2))
    gap = gaps[0] - gaps[1]
    assert bool((gap.mean(1).abs() < 4 * gap.std(1) / math.sqrt(600)).all()), gap.mean(1)
    assert bool((gap.std(1) / math.sqrt(600) < 0.02 * gaps[1].mean(1)).all())


# -- moves in tiles -------------------------------------------------------------------------------------


def test_tiles_keep_the_law(generator):
    """phi^4 on 16^2 in tiles of 4, from equilibrium by clusters: moments stay, whatever the step size."""
    law = Phi4.kaupuzs((16, 16), 0.5)
    x = simulate(law, 300, generator=generator)
    before = torch.stack([x.square().mean(), x.pow(4).mean(), (x * x.roll(1, -1)).mean()])
    kernel = TiledLangevin(LocalPhi4(law), tile=4, step_size=0.4)
    assert isinstance(kernel, Kernel)
    result = run(kernel, kernel.start(x), 40, generator=generator, thin=40)
    after = result.values[-1]
    assert float(((after - x).abs() > 1e-6).double().mean()) > 0.9
    each = torch.stack([after.square(), after.pow(4), after * after.roll(1, -1)]).flatten(2).mean(2)
    error = each.std(1) / math.sqrt(300) * math.sqrt(2)
    assert bool(((each.mean(1) - before).abs() < 4 * error).all()), (each.mean(1), before, error)
    assert 0.2 < float(result.acceptance.mean()) < 0.95
    torch.testing.assert_close(result.state.density, LocalPhi4(law).density(after))
    torch.testing.assert_close(result.state.gradient, LocalPhi4(law).grad(after))


def test_tiles_start_from_a_wrong_law_and_arrive(generator):
    """From zero, tiles reach the moments of clusters; a wrong test would not."""
    law = Phi4.kaupuzs((16, 16), 0.3)
    exact = simulate(law, 500, generator=generator).square().mean((1, 2, 3))
    kernel = TiledLangevin(LocalPhi4(law), tile=4, step_size=0.5, burn_in=40)
    result = run(kernel, kernel.start(torch.zeros(200, 1, 16, 16)), 70, generator=generator, thin=70)
    found = result.values[-1].square().mean((1, 2, 3))
    error = math.hypot(float(found.std()) / math.sqrt(200), float(exact.std()) / math.sqrt(500))
    assert abs(float(found.mean() - exact.mean())) < 4 * error
    assert float(result.acceptance[40:].mean()) == pytest.approx(0.574, abs=0.06)


def test_one_tile_is_langevin():
    """Where no axis is cut, the moves are those of MALA, bit for bit up to rounding."""
    law = Phi4.kaupuzs((4, 4), 0.5)
    x = torch.randn(5, 1, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ends = []
    for kernel in (TiledLangevin(LocalPhi4(law), tile=4, step_size=0.4), Langevin(law, step_size=0.4)):
        generator = torch.Generator().manual_seed(2)
        state = kernel.start(x)
        if isinstance(kernel, Langevin):  # it draws a step size (without jitter) first
            momentum = torch.randn(x.shape, generator=generator, dtype=x.dtype)
            half = momentum - 0.2 * law.grad(x)
            new = x + 0.4 * half
            end = half - 0.2 * law.grad(new)
            gain = law(x) - law(new) + (momentum.square() - end.square()).flatten(1).sum(1) / 2
            u = torch.rand((5, 1, 1), generator=generator, dtype=x.dtype).flatten()
            ends.append(torch.where((u < gain.exp())[:, None, None, None], new, x))
        else:
            ends.append(kernel.step(state, generator=generator)[0].x)
    torch.testing.assert_close(*ends)


def test_the_reach_of_an_energy(generator):
    """Haar and neighbours: one coarse site; Daubechies' taps reach further, and tiles grow with it."""
    for step, terms, reach in ((Wavelet(), None, 1), (Wavelet(3), [Monomials((2, 4))], 2)):
        lattice = torus(32, 32)
        law = GibbsConditional(step, lattice, terms)
        x = torch.randn(20, 1, 32, 32, generator=generator)
        coarse, detail, _ = step.split(x)
        law.solve(detail, coarse)
        action = ConditionalAction(law, coarse)
        assert action.reach() == reach
        assert law.kernel(action, burn_in=0).tile == max(4, 2 * reach)


# -- keeping, errors, small parts -----------------------------------------------------------------------


def test_a_state_dict_says_it_all(generator):
    step, lattice = Wavelet(), torus(8, 8)
    law, detail, coarse = random_energy(step, lattice, generator)
    field = FieldStencil({"phi^2": [(0, 0)], "far": [(1, 2), (2, -1)]})
    other = GibbsConditional(step, lattice, [*local_terms(step, lattice, bumps=4), field])
    other.load_state_dict(law.state_dict())
    assert torch.equal(other.log_prob(detail, coarse), law.log_prob(detail, coarse))
    large = step.split(torch.randn(2, 1, 16, 16, generator=generator, dtype=torch.float64))
    assert law.energy(large.detail, large.coarse).shape == (2,)  # an energy is local, and serves larger lattices


def test_energies_refuse():
    step, lattice = Wavelet(), torus(8, 8)
    law = GibbsConditional(step, lattice)
    coarse, detail = torch.ones(3, 1, 4, 4), torch.ones(3, 3, 4, 4)
    with pytest.raises(DataError, match="an energy must be learned before it is drawn from"):
        law.draw(coarse, generator=torch.Generator())
    with pytest.raises(DataError, match="samples must be finite"):
        law.solve(detail * torch.nan, coarse)
    with pytest.raises(DataError, match="bumps stand at different values"):
        law.solve(detail * 0, coarse)
    with pytest.raises(RecipeError, match="local energies need details on the coarse lattice"):
        GibbsConditional(FourierShell(), lattice)
    with pytest.raises(DataError, match="every block needs at least 1 sample"):
        phi4_couplings(step, torch.randn(10, 1, 8, 8))
    with pytest.raises(DataError, match="every term must move with the details"):
        solve_energy(torch.zeros(1, 1).double(), torch.zeros(1).double())
    with pytest.raises(ValueError, match="sweeps must be >= 2"):
        GibbsConditional(step, lattice, sweeps=1)


class Doubling(Wavelet):
    """A step that is linear, but not orthonormal."""

    def merge(self, coarse, detail):
        return 2 * super().merge(coarse, detail)


def test_a_step_must_be_orthonormal(generator):
    x = torch.randn(4, 1, 8, 8, generator=generator)
    coarse, detail, _ = Wavelet().split(x)
    with pytest.raises(RecipeError, match="need a linear, orthonormal step"):
        score_moments(Doubling(), [Monomials()], coarse, detail)


def test_cells_windows_and_waves():
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert cell_sum(x, (2, 2)).tolist() == [[[0 + 1 + 4 + 5, 2 + 3 + 6 + 7], [8 + 9 + 12 + 13, 10 + 11 + 14 + 15]]]
    large = torch.arange(64.0).reshape(1, 1, 8, 8)
    assert torch.equal(windows(large)[0, 0, 1], large[0, 0, :4, 4:])
    assert torch.equal(windows(x[..., :2, :2])[0, 0, 0], x[0, 0, :2, :2])
    waves = plane_waves(x)
    assert waves.shape == (1, 4, 1)
    assert waves.flatten().tolist() == [120.0, -8.0, -32.0, 0.0]
