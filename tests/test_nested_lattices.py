"""The network on the lattice that its live modes need: the same waves, the same law, the same gradient on average."""

from dataclasses import replace

import pytest
import torch

import renorm
from renorm.bases import basis_for
from renorm.bases.corner import Corner, corners
from renorm.data.fields import Fields
from renorm.diffusion.denoiser import CleanField, GaussianDenoiser, NetworkDenoiser, Preconditioned
from renorm.diffusion.objective import DenoisingLoss, denoising_loss, strata
from renorm.diffusion.presets import rgdm_images, separated
from renorm.diffusion.regulator import LogSquared, Sharpened
from renorm.diffusion.reverse import start, walk_up
from renorm.diffusion.running import RunningSpectrum
from renorm.diffusion.schedule import CLEAN
from renorm.diffusion.spacing import LogUniform, grid
from renorm.errors import RecipeError
from renorm.lattice import Lattice

LATTICES = [Lattice((32,)), Lattice((16, 32), "periodic"), Lattice((16, 16)), Lattice((8, 8, 16), "periodic")]


def _schedule(lattice, floor=0.01):
    spectrum = (lattice.k_sq() + 0.1) ** -1.5
    return separated(lattice, spectrum, regulator=Sharpened(LogSquared(), 2.0), floor=floor), spectrum


@pytest.mark.parametrize("lattice", LATTICES, ids=str)
def test_a_wave_has_the_same_values_on_fewer_sites(lattice):
    """Every mode that is carried, at the sites of the small lattice; and up undoes down."""
    for corner in corners(lattice)[:-1]:
        modes = torch.where(corner.carried, torch.randn(lattice.shape, dtype=torch.float64), 0.0)
        torch.testing.assert_close(corner.up(corner.down(modes)), modes, rtol=0, atol=1e-14)
        small = corner.basis.inverse(corner.down(modes))
        exact = modes
        for axis, (n, whole) in enumerate(zip(corner.small.shape, lattice.shape, strict=True)):
            x = (torch.arange(n, dtype=torch.float64) + 0.5 * (lattice.boundary == "open")) * whole / n
            k = lattice.wavenumbers(axis)
            if lattice.boundary == "open":
                waves = torch.cos(k[:, None] * x)
            else:
                sine = (torch.arange(whole) % 2 == 0)[:, None]
                waves = torch.where(sine & (k > 0)[:, None], -torch.sin(k[:, None] * x), torch.cos(k[:, None] * x))
            scale = torch.full((whole,), (2 / whole) ** 0.5, dtype=torch.float64)
            scale[0] = whole**-0.5
            exact = torch.tensordot(exact, scale[:, None] * waves, dims=([0], [0]))
        torch.testing.assert_close(small, exact, rtol=0, atol=1e-12)


class Seen(torch.nn.Module):
    """The exact Gaussian answer on whatever lattice it is shown, and a record of the lattices."""

    def __init__(self, denoiser):
        super().__init__()
        self.denoiser, self.shapes = denoiser, []

    def forward(self, x, t):
        lattice = self.denoiser.schedule.lattice
        self.shapes.append(tuple(x.shape[2:]))
        corner = Corner(lattice, tuple(x.shape[2:]))
        modes = corner.up(corner.basis.forward(x))
        clean = torch.stack([self.denoiser(m[None], float(s))[0] for m, s in zip(modes, t, strict=True)])
        return corner.basis.inverse(corner.down(clean))


@pytest.mark.parametrize("lattice", LATTICES, ids=str)
def test_the_gaussian_denoiser_reaches_the_same_fields_on_nested_lattices(lattice):
    """Step by step the same walk, and fewer sites at its coarse end."""
    schedule, spectrum = _schedule(lattice)
    exact = GaussianDenoiser(schedule, spectrum)

    class InUnits(CleanField):
        def coefficients(self, schedule, t):
            return super().coefficients(schedule, t)._replace(scale_in=torch.ones(lattice.shape, dtype=torch.float64))

    times = grid(LogUniform(), schedule, 12)
    found, seen = [], []
    for nested in (corners(lattice), ()):
        network = Seen(exact)
        denoiser = NetworkDenoiser(network, schedule, InUnits(), nested)
        generator = torch.Generator().manual_seed(3)

        def draw(generator=generator):
            return torch.randn(2, 1, *lattice.shape, generator=generator, dtype=torch.float64)

        begin = start(schedule, times[0], draw(), spectrum=spectrum)
        found.append(walk_up(schedule, denoiser, RunningSpectrum(), times, begin, draw, spectrum=spectrum))
        seen.append(network.shapes)
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-9)
    sites = [torch.Size(shape).numel() for shape in seen[0]]
    assert sites == sorted(sites)
    assert sites[0] < sites[-1] == lattice.sites
    assert set(seen[1]) == {lattice.shape}


def test_each_lattice_is_left_when_the_first_mode_comes_alive_that_it_does_not_carry():
    schedule, _ = _schedule(Lattice((32, 32)))
    denoiser = NetworkDenoiser(torch.nn.Identity(), schedule, CleanField(), corners(schedule.lattice, 4))
    assert denoiser.opens[-1] == CLEAN
    assert list(denoiser.opens) == sorted(denoiser.opens, reverse=True)
    for corner, t in zip(denoiser.lattices[:-1], denoiser.opens[:-1], strict=True):
        assert not bool((schedule.alive(t) & ~corner.carried).any())
        assert bool((schedule.alive(t - 1e-5) & ~corner.carried).any())
        assert denoiser.lattice_at(t) is corner


def test_a_schedule_that_erases_nothing_needs_the_whole_lattice():
    schedule = replace(_schedule(Lattice((16,)))[0], dead_beyond=float("inf"))
    denoiser = NetworkDenoiser(torch.nn.Identity(), schedule, CleanField(), corners(schedule.lattice))
    assert denoiser.lattice_at(1.0).whole
    assert [s.lattice.whole for s in strata(denoiser, LogUniform(), 8)] == [True]


def test_strata_hold_every_scale_once_and_every_field():
    schedule, _ = _schedule(Lattice((32, 32)))
    denoiser = NetworkDenoiser(torch.nn.Identity(), schedule, CleanField(), corners(schedule.lattice, 4))
    for batch in (1, 2, 3, 7, 128):
        found = strata(denoiser, LogUniform(), batch)
        assert sum(s.number for s in found) == batch
        assert min(s.number for s in found) >= 1
        assert sum(s.mass for s in found) == pytest.approx(1)
    assert len(found) == 4


def test_the_loss_of_strata_is_the_loss_of_all_scales():
    """With a network that says zero: the mean of many stratified losses is that of scales drawn freely."""
    lattice = Lattice((16, 16))
    schedule, spectrum = _schedule(lattice)
    x = basis_for(lattice).inverse(spectrum.sqrt() * torch.randn(64, 1, 16, 16, dtype=torch.float64)).float()

    class Zero(torch.nn.Module):
        def forward(self, x, t):
            return 0 * x

    prediction = Preconditioned(spectrum)
    fields = Fields(x, lattice)
    means = []
    for nested in (corners(lattice, 4), ()):
        denoiser = NetworkDenoiser(Zero(), schedule, prediction, nested)
        loss = DenoisingLoss(denoiser, fields, LogUniform())
        drawn = [loss(Zero(), *loss.draw(torch.arange(64), torch.Generator().manual_seed(i))) for i in range(60)]
        means.append(torch.stack(drawn).mean().item())
    assert means[0] == pytest.approx(means[1], rel=0.02)


def test_one_lattice_learns_as_before():
    """The same bits: the stratum of everything."""
    lattice = Lattice((8, 8))
    schedule, spectrum = _schedule(lattice)
    x = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    denoiser = NetworkDenoiser(torch.nn.Identity(), schedule, Preconditioned(spectrum))

    class Same(torch.nn.Module):
        def forward(self, x, t):
            return x

    loss = DenoisingLoss(denoiser, Fields(x, lattice), LogUniform())
    shown = loss.draw(torch.arange(6), torch.Generator().manual_seed(2))
    expected = denoising_loss(denoiser.with_network(Same()), *shown)
    assert loss(Same(), *shown) == expected


def test_nested_lattices_by_recipe(tmp_path):
    """A tiny run with nested lattices samples fields of the whole lattice."""
    spec = renorm.DiffusionSpec(
        schedule="separated",
        regulator="log-squared",
        sharpness=2.0,
        floor=0.01,
        lattices="nested",
        prediction="preconditioned",
        sampler="running",
        spacing="window",
        network=renorm.UNetSpec(width=8, multipliers=(1, 2), groups=4, blocks=1, attention=()),
    )
    lattice = Lattice((16, 16))
    from renorm.nn.unet import unet_on

    model = renorm.ModeDiffusion(spec, lattice, network=unet_on(lattice, spec.network))
    x = torch.randn(32, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    model.fit(x, spec=renorm.FitSpec(steps=2, batch=8), progress=False)
    assert len(model.denoiser.lattices) == 4
    y = model.sample(3, generator=torch.Generator().manual_seed(0), steps=4)
    assert y.shape == (3, 1, 16, 16)
    assert bool(y.isfinite().all())


def test_a_lattice_that_cannot_be_halved_is_refused():
    spec = renorm.DiffusionSpec(lattices="nested", network=renorm.UNetSpec(width=8, multipliers=(1, 2), groups=4))
    with pytest.raises(RecipeError, match=r"nested.*stride 2.*\(6, 6\)"):
        renorm.ModeDiffusion(spec, Lattice((6, 6)), network=torch.nn.Identity())
    with pytest.raises(ValueError, match="floor"):
        renorm.DiffusionSpec(floor=0.7)


@pytest.mark.parametrize("exponent", [-1.0, -1.5])
@pytest.mark.parametrize("amplitude", [0.5, 2.0])
def test_modes_enter_with_the_power_that_the_field_has(exponent, amplitude):
    """Erased at a hundredth of the noise, of a spectrum that nobody was told, they still end with the right power."""
    lattice = Lattice((32, 32))
    regulator = Sharpened(LogSquared(), 0.75)
    schedule = rgdm_images(lattice, regulator=regulator)
    kept = Corner(lattice, (4, 4)).carried
    schedule = replace(schedule, dead_beyond=regulator.inverse(0.01), undying=kept)
    spectrum = amplitude**2 * (lattice.k_sq() + 0.05**2) ** exponent
    generator = torch.Generator().manual_seed(0)

    def draw():
        return torch.randn(100, 1, 32, 32, generator=generator)

    times = grid(LogUniform(), schedule, 40)
    phi = start(schedule, times[0], draw())
    x = walk_up(schedule, GaussianDenoiser(schedule, spectrum), RunningSpectrum(), times, phi, draw)
    ratio = (x.double().square() / spectrum).mean((0, 1))
    k = lattice.k_sq().sqrt()
    octaves = [ratio[(k >= low) & (k < 2 * low)].mean().log() for low in (0.2, 0.4, 0.8, 1.6)]
    assert max(abs(float(one)) for one in octaves) < 0.1


def test_modes_that_never_die_are_alive_at_the_coarsest_scale():
    schedule, _ = _schedule(Lattice((16, 16)))
    kept = Corner(schedule.lattice, (4, 4)).carried
    assert bool(replace(schedule, undying=kept).alive(1.0)[kept].all())
    assert not bool(schedule.alive(1.0)[kept].all())
