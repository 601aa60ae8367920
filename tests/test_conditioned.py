"""Walks of which a part is known: closed forms for Gaussian fields, weights of a mixture, and classes."""

import pytest
import torch

import renorm
from renorm.bases import basis_for
from renorm.bases.corner import Corner
from renorm.bench.mixture_nfe import AMPLITUDES, MixtureDenoiser
from renorm.diffusion.conditioned import Known, known_modes, walk_given
from renorm.diffusion.denoiser import GaussianDenoiser, Guided
from renorm.diffusion.presets import rgdm_images, separated
from renorm.diffusion.regulator import LogSquared, Sharpened
from renorm.diffusion.spacing import LogUniform, grid
from renorm.errors import RecipeError
from renorm.lattice import Lattice

CHAIN = Lattice((16,))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def correlated(lattice, seed=0):
    """Covariance of modes that know of one another: a decaying spectrum, correlations of a quarter or so."""
    sites = lattice.sites
    spectrum = (lattice.k_sq() + 0.1) ** -1.0
    random = torch.randn(sites, 40, generator=generator(seed), dtype=torch.float64)
    correlation = 0.5 * torch.eye(sites, dtype=torch.float64) + 0.5 * torch.corrcoef(random)
    return spectrum, spectrum.sqrt()[:, None] * correlation * spectrum.sqrt()


class Correlated:
    """The exact denoiser of Gaussian modes of any covariance, on a chain."""

    def __init__(self, schedule, covariance):
        self.schedule, self.covariance = schedule, covariance

    def __call__(self, modes, t, condition=None):
        alpha, sigma, alive = self.schedule.alpha(t), self.schedule.sigma(t), self.schedule.alive(t)
        total = alpha[:, None] * self.covariance * alpha + torch.diag(sigma**2)
        gain = torch.zeros_like(total)
        gain[:, alive] = (self.covariance * alpha)[:, alive] @ torch.linalg.inv(total[alive][:, alive])
        return modes @ gain.T


def test_the_law_of_the_fine_given_the_coarse_is_the_closed_form():
    """Mean and covariance of twelve modes given the four lowest, within standard errors; those are kept bit for bit."""
    spectrum, covariance = correlated(CHAIN)
    schedule = separated(CHAIN, spectrum, regulator=LogSquared(), floor=0.01)
    values = torch.zeros(1, 1, 16, dtype=torch.float64)
    values[..., :4] = torch.linalg.cholesky(covariance[:4, :4]) @ torch.tensor([1.0, -1.5, 0.7, 1.2]).double()
    num, mask = 4000, Corner(CHAIN, (4,)).carried
    known = Known(values.expand(num, 1, 16).contiguous(), mask)
    drawn = walk_given(
        schedule,
        Correlated(schedule, covariance),
        grid(LogUniform(), schedule, 100),
        known,
        generator=generator(),
        spectrum=spectrum,
        particles=8,
    )[:, 0]
    assert torch.equal(drawn[:, :4], known.values[:, 0, :4])
    gain = covariance[4:, :4] @ torch.linalg.inv(covariance[:4, :4])
    mean, law = gain @ values[0, 0, :4], covariance[4:, 4:] - gain @ covariance[:4, 4:]
    off = (drawn[:, 4:].mean(0) - mean) / (law.diag() / num).sqrt()
    assert float(off.square().mean().sqrt()) < 1.5
    assert float(off.abs().max()) < 4
    error = ((law**2 + law.diag()[:, None] * law.diag()) / num).sqrt()
    beyond = (torch.cov(drawn[:, 4:].T) - law) / error
    assert float(beyond.square().mean().sqrt()) < 1.4
    assert float(beyond.abs().max()) < 4.5
    assert float((mean / (law.diag() / num).sqrt()).abs().max()) > 15  # the coarse field says much of the fine ones


def test_the_fine_has_the_amplitude_of_the_coarse():
    """Fields of two amplitudes: as many fine ones of each as the coarse ones say, within three standard errors."""
    lattice = Lattice((16, 16))
    spectrum = (lattice.k_sq() + 0.05**2) ** -1.0
    mixed = float(AMPLITUDES.square().mean()) * spectrum
    schedule = separated(lattice, mixed, regulator=LogSquared(), floor=0.01)
    num, mask = 200, Corner(lattice, (8, 8)).carried
    choice = torch.randint(0, 2, (num,), generator=generator(1))
    modes = AMPLITUDES[choice, None, None, None] * spectrum.sqrt()
    modes = (modes * torch.randn(num, 1, 16, 16, generator=generator(2))).float()
    drawn = walk_given(
        schedule,
        MixtureDenoiser(schedule, spectrum),
        grid(LogUniform(), schedule, 30),
        Known(modes, mask),
        generator=generator(3),
        spectrum=mixed,
    )
    square = (modes[:, 0] ** 2 / spectrum)[:, mask]
    evidence = [-0.5 * (square / a**2).sum(1) - square.shape[1] * a.log() for a in AMPLITUDES]
    weight = torch.stack(evidence, 1).softmax(1)[:, 1]
    large = ((drawn[:, 0] ** 2 / spectrum)[:, ~mask].mean(1) > 1).double()
    error = ((weight * (1 - weight)).sum() + 0.01).sqrt() / num
    assert abs(float(large.mean() - weight.mean())) < 3 * float(error)
    ratio = (drawn[:, 0] ** 2 / spectrum)[:, ~mask].mean(1) / AMPLITUDES[choice] ** 2
    assert abs(float(ratio.mean()) - 1) < 0.1


def exact_model(lattice, *, steps=20, num=400):
    spectrum = (lattice.k_sq() + 0.2) ** -1.0
    x = basis_for(lattice).inverse(
        spectrum.sqrt() * torch.randn(num, 1, *lattice.shape, generator=generator()).double()
    )
    spec = renorm.DiffusionSpec(denoiser="gaussian", steps=steps)
    return renorm.ModeDiffusion(spec, lattice).fit(x.float()), x.float()


@pytest.mark.parametrize("boundary", ["open", "periodic"])
def test_refine_from_a_smaller_lattice_keeps_the_coarse_modes(boundary):
    lattice = Lattice((32, 32), boundary)
    model, x = exact_model(lattice)
    corner = Corner(lattice, (8, 8))
    coarse = corner.basis.inverse(corner.down(model.basis.forward(x[:6])))
    fine = model.refine(coarse, generator=generator())
    assert fine.shape == (6, 1, 32, 32)
    kept = corner.basis.inverse(corner.down(model.basis.forward(fine)))
    expected = corner.basis.inverse(corner.down(corner.up(corner.basis.forward(coarse))))
    assert float((kept - expected).norm() / expected.norm()) < 1e-6  # far below the 1e-4 that is promised
    again = model.refine(coarse, generator=generator(1))
    assert float((fine - again).abs().mean()) > 0.1  # many fine fields for one coarse


def test_sites_that_are_known_are_kept_and_the_rest_is_drawn():
    lattice = Lattice((16, 16))
    model, x = exact_model(lattice)
    known = torch.zeros(16, 16, dtype=torch.bool)
    known[:, :8] = True
    y = model.inpaint(x[:4], known, generator=generator(), steps=40)
    torch.testing.assert_close(y[..., :8], x[:4, ..., :8], rtol=0, atol=1e-5)
    assert float((y[..., 8:] - x[:4, ..., 8:]).abs().mean()) > 0.1
    step = float((y[..., 8] - y[..., 7]).square().mean()) / float((x[..., 8] - x[..., 7]).square().mean())
    assert 0.3 < step < 3  # no seam


def test_known_modes_anywhere_are_kept():
    model, x = exact_model(Lattice((16, 16)))
    known = torch.rand(16, 16, generator=generator()) < 0.3
    y = model.inpaint(x[:4], known, space="modes", generator=generator(), particles=3)
    torch.testing.assert_close(
        model.basis.forward(y)[..., known], model.basis.forward(x[:4])[..., known], atol=1e-5, rtol=0
    )


def test_particles_are_walked_in_batches_of_the_same_memory():
    model, x = exact_model(Lattice((8,)), steps=5)
    sizes = []
    coarse = known_modes(x[:5, :, ::2], model.lattice).values[:, :, :4]
    model.refine(coarse, generator=generator(), particles=4, batch=8, callback=lambda *a: sizes.append(len(a[3])))
    assert set(sizes) == {4, 8}


class Labelled:
    """Expects the class itself, and 7 of any."""

    def __call__(self, modes, t, condition=None):
        return condition.reshape(-1, *(1,) * (modes.ndim - 1)).to(modes).expand_as(modes)


def test_guidance_sets_a_class_off_from_any():
    modes, condition = torch.zeros(3, 1, 4), torch.tensor([0, 1, 2])
    for weight in (0.0, 1.0, 2.5):
        found = Guided(Labelled(), weight, 7)(modes, torch.rand(3), condition)
        expected = 7 + weight * (condition - 7)
        assert torch.equal(found[:, 0, 0], expected.to(found))


def test_guidance_of_a_trained_model(tmp_path):
    """Weight 1 is the model itself, others are not; without classes guidance is refused."""
    from renorm.nn.unet import UNet

    lattice = Lattice((8, 8))
    spec = renorm.DiffusionSpec(
        steps=3, network=renorm.UNetSpec(width=8, multipliers=(1,), groups=4, blocks=1, attention=())
    )
    network = UNet(spec.network, dim=2, channels=1, num_classes=2, generator=generator())
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator()))
    model = renorm.ModeDiffusion(spec, lattice, network=network, num_classes=2)
    condition = torch.tensor([0, 1])
    plain = model.sample(2, condition=condition, generator=generator())
    assert torch.equal(model.sample(2, condition=condition, generator=generator(), guidance=1.0), plain)
    assert not torch.equal(model.sample(2, condition=condition, generator=generator(), guidance=3.0), plain)
    with pytest.raises(RecipeError, match=r"needs one for each field, got guidance 3\.0 without"):
        model.sample(2, generator=generator(), guidance=3.0)


def test_bad_values_are_refused():
    model, x = exact_model(Lattice((8, 8)), steps=3)
    for shape in [(2, 1, 8, 8), (2, 1, 16, 16), (2, 1, 4), (2, 3, 4, 4)]:
        with pytest.raises(ValueError, match=r"coarse fields without a level.*fewer sites than \(8, 8\)"):
            model.refine(torch.zeros(shape), generator=generator())
    with pytest.raises(ValueError, match="particles must be >= 1, got 0"):
        model.refine(torch.zeros(2, 1, 4, 4), generator=generator(), particles=0)
    with pytest.raises(ValueError, match="refined to level 0, got 1"):
        model.refine(torch.zeros(2, 1, 4, 4), generator=generator(), to=1)
    with pytest.raises(ValueError, match="particles are for clean fields"):
        model.refine(x[:2], level=1, generator=generator(), particles=2)
    with pytest.raises(ValueError, match=r"one entry a site or mode, \(8, 8\).*got \(4, 8\)"):
        model.inpaint(x[:2], torch.ones(4, 8, dtype=torch.bool), generator=generator())
    with pytest.raises(ValueError, match="of sites take 1, got 2"):
        model.inpaint(x[:2], torch.ones(8, 8, dtype=torch.bool), generator=generator(), particles=2)


def test_one_particle_of_independent_modes_needs_no_weights():
    """Gaussian fields whose modes are independent: what is known says nothing of the rest, which has its own law."""
    lattice = Lattice((16,))
    spectrum = (lattice.k_sq() + 0.1) ** -1.0
    schedule = rgdm_images(lattice, regulator=Sharpened(LogSquared(), 0.5))
    values = torch.zeros(3000, 1, 16, dtype=torch.float64)
    values[..., :4] = 2.0
    mask = Corner(lattice, (4,)).carried
    times = grid(LogUniform(), schedule, 40)
    exact = GaussianDenoiser(schedule, spectrum)
    drawn = walk_given(schedule, exact, times, Known(values, mask), generator=generator(), spectrum=spectrum)[:, 0]
    ratio = (drawn[:, 4:] ** 2).mean(0) / spectrum[4:]
    assert float((ratio - 1).abs().max()) < 5 * (2 / 3000) ** 0.5
