"""The network on the lattice that its live modes need: the same waves, the same law, the same gradient on average."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

import renorm
from renorm.bases import basis_for
from renorm.bases.corner import Corner, corners
from renorm.data.fields import Fields
from renorm.diffusion.denoiser import CleanField, GaussianDenoiser, NetworkDenoiser, Preconditioned
from renorm.diffusion.mode_diffusion import ModeDiffusion
from renorm.diffusion.nested import NestedDenoiser, prediction_on, schedule_on
from renorm.diffusion.objective import DenoisingLoss, denoising_loss, denoising_loss_of_modes, strata
from renorm.diffusion.presets import flattened, rgdm_images, separated
from renorm.diffusion.regulator import LogSquared, Sharpened
from renorm.diffusion.reverse import start, walk_up
from renorm.diffusion.running import RunningSpectrum
from renorm.diffusion.schedule import CLEAN
from renorm.diffusion.spacing import LogUniform, grid
from renorm.diffusion.spec import DiffusionSpec
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

    def __init__(self, schedule, spectrum):
        super().__init__()
        self.schedule, self.spectrum, self.shapes = schedule, spectrum, []

    def forward(self, x, t):
        lattice = self.schedule.lattice
        corner = Corner(lattice, tuple(x.shape[2:]))
        self.shapes.append(corner.small.shape)
        spectrum = corner.cut(self.spectrum) * corner.small.sites / lattice.sites
        exact = GaussianDenoiser(schedule_on(self.schedule, corner), spectrum)
        return corner.basis.inverse(exact(corner.basis.forward(x), t))


class InUnits(CleanField):
    """The network is shown the field as it is."""

    def coefficients(self, schedule, t):
        found = super().coefficients(schedule, t)
        return found._replace(scale_in=torch.ones_like(found.scale_in))


@pytest.mark.parametrize("lattice", LATTICES, ids=str)
def test_the_gaussian_denoiser_reaches_the_same_fields_on_nested_lattices(lattice):
    """Step by step the same walk, and fewer sites at its coarse end."""
    schedule, spectrum = _schedule(lattice)
    times = grid(LogUniform(), schedule, 12)
    found, seen = [], []
    for kind in (lambda n: NestedDenoiser.nested(n, schedule, InUnits(), corners(lattice)), None):
        network = Seen(schedule, spectrum)
        denoiser = NetworkDenoiser(network, schedule, InUnits()) if kind is None else kind(network)
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


@pytest.mark.parametrize("lattice", LATTICES, ids=str)
def test_a_flow_on_a_corner_is_the_same_flow_of_its_modes(lattice):
    """Signal, noise, life and the coefficients of the network: those of the whole, in the units of the small."""
    schedule, spectrum = _schedule(lattice)
    prediction = Preconditioned(spectrum, 0.1 * spectrum)
    for corner in corners(lattice)[:-1]:
        small, share = schedule_on(schedule, corner), corner.small.sites / lattice.sites
        carried = corner.cut(torch.ones(lattice.shape)).bool()
        for t in (0.1, 0.5, 1.0):
            torch.testing.assert_close(small.alpha(t)[carried], corner.cut(schedule.alpha(t))[carried])
            torch.testing.assert_close(
                small.sigma(t)[carried] ** 2, share * corner.cut(schedule.sigma(t) ** 2)[carried]
            )
            assert torch.equal(small.alive(t), corner.cut(schedule.alive(t)))
            ours = prediction_on(prediction, corner).coefficients(small, t)
            theirs = prediction.coefficients(schedule, t)
            torch.testing.assert_close(ours.skip[carried], corner.cut(theirs.skip)[carried])
            torch.testing.assert_close(ours.out[carried] ** 2, share * corner.cut(theirs.out**2)[carried])
        assert not bool(small.alive(0.0)[~carried].any())
        assert not bool(small.sigma(0.0)[~carried].any())


def test_fields_of_several_scales_are_each_denoised_on_their_own_lattice():
    lattice = Lattice((16, 16))
    schedule, spectrum = _schedule(lattice)
    denoiser = NestedDenoiser.nested(Seen(schedule, spectrum), schedule, InUnits(), corners(lattice))
    modes = torch.randn(3, 1, 16, 16, dtype=torch.float64)
    t = torch.tensor([0.1, 0.95, 0.5], dtype=torch.float64)
    together = denoiser(modes, t)
    for i in range(3):
        torch.testing.assert_close(together[i : i + 1], denoiser(modes[i : i + 1], float(t[i])))


def test_each_lattice_is_left_when_the_first_mode_comes_alive_that_it_does_not_carry():
    schedule, _ = _schedule(Lattice((32, 32)))
    denoiser = NestedDenoiser.nested(torch.nn.Identity(), schedule, CleanField(), corners(schedule.lattice, 4))
    opens = [nest.opens for nest in denoiser.nests]
    assert opens[-1] == CLEAN
    assert opens == sorted(opens, reverse=True)
    for nest in denoiser.nests[:-1]:
        assert not bool((schedule.alive(nest.opens) & ~nest.corner.carried).any())
        assert bool((schedule.alive(nest.opens - 1e-5) & ~nest.corner.carried).any())
        assert denoiser.nest_at(nest.opens) is nest


def test_a_schedule_that_erases_nothing_needs_the_whole_lattice():
    schedule = replace(_schedule(Lattice((16,)))[0], dead_beyond=float("inf"))
    denoiser = NestedDenoiser.nested(torch.nn.Identity(), schedule, CleanField(), corners(schedule.lattice))
    assert denoiser.nest_at(1.0).corner.whole
    assert [s.sites for s in strata(denoiser, LogUniform())] == [16]


def test_strata_hold_every_scale_once():
    schedule, _ = _schedule(Lattice((32, 32)))
    denoiser = NestedDenoiser.nested(torch.nn.Identity(), schedule, CleanField(), corners(schedule.lattice, 4))
    found = strata(denoiser, LogUniform())
    assert len(found) == 4
    assert [s.high for s in found] == [1.0] + [s.low for s in found[:-1]]
    assert found[-1].low == 0.0
    assert sum(s.probability for s in found) == pytest.approx(1)
    # twice the edge, twice the root of the sites: half as often for the same share of the scales
    odds = [s.probability / (s.high - s.low) for s in found]
    assert [a / b for a, b in pairwise(odds)] == pytest.approx([2.0] * 3)


def test_every_step_is_drawn_from_the_scales_of_its_lattice():
    """As often as it should, and of its own scales; the clean modes are those of the fields."""
    lattice = Lattice((16, 16))
    schedule, spectrum = _schedule(lattice)
    x = basis_for(lattice).inverse(spectrum.sqrt() * torch.randn(8, 1, 16, 16, dtype=torch.float64)).float()
    denoiser = NestedDenoiser.nested(torch.nn.Identity(), schedule, Preconditioned(spectrum), corners(lattice, 4))
    loss = DenoisingLoss(denoiser, Fields(x, lattice), LogUniform())
    count = dict.fromkeys((s.sites for s in loss.strata), 0)
    for seed in range(400):
        which, clean, t, noise = loss.draw(torch.arange(8), torch.Generator().manual_seed(seed))
        sites = len(which)
        shape = tuple(clean.shape[2:])
        stratum = next(s for s in loss.strata if s.sites == sites)
        assert stratum.low <= float(t.min()) <= float(t.max()) <= stratum.high
        assert noise.shape == clean.shape
        count[sites] += 1
    corner = Corner(lattice, shape)
    torch.testing.assert_close(clean, corner.down(basis_for(lattice).forward(x)))
    for stratum in loss.strata:
        error = (stratum.probability * (1 - stratum.probability) / 400) ** 0.5
        assert abs(count[stratum.sites] / 400 - stratum.probability) < 4 * error


def test_the_loss_of_all_lattices_is_the_loss_of_all_scales():
    """With a network that says zero: the mean over steps of one lattice each is that of scales drawn freely."""
    lattice = Lattice((16, 16))
    schedule, spectrum = _schedule(lattice)
    x = basis_for(lattice).inverse(spectrum.sqrt() * torch.randn(64, 1, 16, 16, dtype=torch.float64)).float()

    class Zero(torch.nn.Module):
        def forward(self, x, t):
            return 0 * x

    prediction, values = Preconditioned(spectrum), []
    for denoiser in (
        NestedDenoiser.nested(Zero(), schedule, prediction, corners(lattice, 4)),
        NetworkDenoiser(Zero(), schedule, prediction),
    ):
        loss = DenoisingLoss(denoiser, Fields(x, lattice), LogUniform())
        drawn = [loss(Zero(), *loss.draw(torch.arange(64), torch.Generator().manual_seed(i))) for i in range(400)]
        values.append(torch.stack(drawn))
    error = sum((v.var() / len(v)) for v in values).sqrt()
    assert abs(float(values[0].mean() - values[1].mean())) < 4 * float(error)


def test_several_processes_are_refused(monkeypatch):
    lattice = Lattice((16, 16))
    schedule, spectrum = _schedule(lattice)
    denoiser = NestedDenoiser.nested(torch.nn.Identity(), schedule, Preconditioned(spectrum), corners(lattice, 4))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RecipeError, match=r"are for one process.*got 2"):
        DenoisingLoss(denoiser, Fields(torch.zeros(2, 1, 16, 16), lattice), LogUniform())


def test_the_loss_on_a_small_lattice_is_that_of_the_whole_over_its_modes():
    """A network that sees only the low modes: the same square error, as a mean over fewer."""
    lattice = Lattice((16, 16))
    schedule, spectrum = _schedule(lattice)
    prediction, corner = Preconditioned(spectrum), Corner(lattice, (8, 8))
    clean, noise = torch.randn(2, 4, 1, 16, 16, dtype=torch.float64)
    clean = clean * spectrum.sqrt()
    nest = next(
        n
        for n in NestedDenoiser.nested(
            torch.nn.Identity(), schedule, prediction, [corner, *corners(lattice)[-1:]]
        ).nests
    )
    t = torch.full((4,), nest.opens + 0.01, dtype=torch.float64)

    class Zero(torch.nn.Module):
        def forward(self, x, t):
            return 0 * x

    small = denoising_loss_of_modes(nest.denoiser.with_network(Zero()), corner.down(clean), t, corner.cut(noise))
    whole = denoising_loss_of_modes(NetworkDenoiser(Zero(), schedule, prediction), clean, t, noise)
    assert float(small) == pytest.approx(4 * float(whole), rel=1e-9)


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
    _, _, t, noise = loss.draw(torch.arange(6), torch.Generator().manual_seed(2))
    expected = denoising_loss(denoiser.with_network(Same()), x, t, noise)
    assert loss(Same(), *loss.draw(torch.arange(6), torch.Generator().manual_seed(2))) == expected


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
    assert len(model.denoiser.nests) == 4
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
    sampler = RunningSpectrum(carried=True)
    x = walk_up(schedule, GaussianDenoiser(schedule, spectrum), sampler, times, phi, draw)
    ratio = (x.double().square() / spectrum).mean((0, 1))
    k = lattice.k_sq().sqrt()
    octaves = [ratio[(k >= low) & (k < 2 * low)].mean().log() for low in (0.2, 0.4, 0.8, 1.6)]
    assert max(abs(float(one)) for one in octaves) < 0.1


def test_modes_that_never_die_are_alive_at_the_coarsest_scale():
    schedule, _ = _schedule(Lattice((16, 16)))
    kept = Corner(schedule.lattice, (4, 4)).carried
    assert bool(replace(schedule, undying=kept).alive(1.0)[kept].all())
    assert not bool(schedule.alive(1.0)[kept].all())


def test_the_white_twin_is_seen_on_nested_lattices_by_the_same_floor():
    """Every mode of the twin is erased where its own signal-to-noise ratio falls below the floor."""
    lattice = Lattice((16, 16))
    _, spectrum = _schedule(lattice)
    rational = separated(lattice, spectrum, floor=0.03)
    twin = flattened(rational, spectrum, floor=0.03)
    for t in (0.2, 0.6, 0.95):
        ratio = twin.alpha(t) ** 2 * spectrum / twin.sigma(t) ** 2
        assert torch.equal(twin.alive(t), ratio >= 0.03 * (1 - 1e-9))
    denoiser = NestedDenoiser.nested(torch.nn.Identity(), twin, Preconditioned(spectrum), corners(lattice, 4))
    assert not denoiser.nest_at(1.0).corner.whole
    small = denoiser.nests[0].denoiser.schedule
    assert torch.equal(small.alive(0.9), denoiser.nests[0].corner.cut(twin.alive(0.9)))
    left = twin.leaves_at()
    inside = (left > 0) & (left < 1)
    for k in inside.nonzero()[:5].tolist():
        t = float(left[tuple(k)])
        assert bool(twin.alive(t - 1e-6)[tuple(k)])
        assert not bool(twin.alive(t + 1e-6)[tuple(k)])


FOLDING = renorm.UNetSpec(width=8, multipliers=(1, 2, 2), groups=4, blocks=1, attention=(), dropout=0.0, entries=3)


@pytest.mark.parametrize("shape", [(32,), (16, 32), (8, 8, 16)], ids=str)
def test_a_folded_field_enters_a_coarser_level(shape):
    """The same sites come out, the finer levels are not asked, and every entry is learned."""
    from renorm.nn.unet import UNet

    network = UNet(FOLDING, dim=len(shape), channels=2)
    x, t = torch.randn(3, 2, *shape), torch.rand(3)
    for entry in range(3):
        network.zero_grad()
        y = network(x, t, entry=entry)
        assert y.shape == x.shape
        y.square().mean().backward()
        used = {name for name, p in network.named_parameters() if p.grad is not None and bool(p.grad.abs().max() > 0)}
        assert any(name.startswith("middle") for name in used)
        assert ("head.weight" in used) == (entry == 0)
        assert any(name.startswith("down.0.") for name in used) == (entry == 0)
        assert any(name.startswith(f"entries.{entry - 1}.") for name in used) == (entry > 0)


def test_a_folded_field_is_left_where_the_fine_modes_are_no_longer_noise():
    lattice = Lattice((16, 16))
    spectrum = (lattice.k_sq() + 0.1) ** -1.5
    schedule = separated(lattice, spectrum, regulator=Sharpened(LogSquared(), 0.5))

    class Told(torch.nn.Module):
        def forward(self, x, t, entry=0):
            return torch.full_like(x, float(entry))

    prediction = CleanField()
    denoiser = NestedDenoiser.folded(Told(), schedule, prediction, corners(lattice)[-3:], spectrum, below=0.1)
    assert [nest.sites for nest in denoiser.nests] == [16, 64, 256]
    modes = torch.randn(1, 1, 16, 16)
    for nest, entry in zip(denoiser.nests, (2, 1, 0), strict=True):
        if nest.opens == CLEAN:
            continue
        beyond = ~Corner(lattice, (int(nest.sites**0.5),) * 2).carried
        ratio = schedule.alpha(nest.opens) ** 2 * spectrum / schedule.sigma(nest.opens) ** 2
        assert float(ratio[beyond].max()) == pytest.approx(0.1, rel=1e-6)
        field = basis_for(lattice).inverse(denoiser(modes, nest.opens + 1e-6))
        alive = schedule.alive(nest.opens + 1e-6)
        if bool(alive.all()):
            torch.testing.assert_close(field, torch.full_like(field, float(entry)), atol=1e-4, rtol=0)


def test_folded_fields_by_recipe():
    """Trained a little, every entry meets its scales, and the samples are whole."""
    from renorm.nn.unet import unet_on

    spec = renorm.DiffusionSpec(
        schedule="separated",
        regulator="log-squared",
        sharpness=0.5,
        lattices="folded",
        prediction="preconditioned",
        sampler="running",
        spacing="window",
        network=FOLDING,
    )
    lattice = Lattice((16, 16))
    spectrum = (lattice.k_sq() + 0.1) ** -1.0
    noise = torch.randn(64, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    x = basis_for(lattice).inverse(spectrum.sqrt() * noise).float()
    network = unet_on(lattice, spec.network)
    model = renorm.ModeDiffusion(spec, lattice, network=network)
    before = {name: value.clone() for name, value in network.named_parameters()}
    model.fit(x, spec=renorm.FitSpec(steps=30, batch=8, warmup=1), progress=False)
    after = dict(network.named_parameters())
    assert {s.sites for s in strata(model.denoiser, model.training)} >= {16, 256}
    for name in ("entries.1.head.weight", "head.weight"):
        assert not torch.equal(before[name], after[name])
    y = model.sample(3, generator=torch.Generator().manual_seed(0), steps=6)
    assert y.shape == (3, 1, 16, 16)
    assert bool(y.isfinite().all())
    with pytest.raises(ValueError, match="fold must be > 0"):
        renorm.DiffusionSpec(fold=0.0)
    with pytest.raises(ValueError, match=r"entries must be 1 to 2 \(the levels\), got 3"):
        renorm.UNetSpec(multipliers=(1, 2), entries=3)


def test_a_network_of_one_entry_cannot_fold():
    spec = renorm.DiffusionSpec(lattices="folded", network=renorm.UNetSpec(width=8, multipliers=(1, 2), groups=4))
    with pytest.raises(RecipeError, match=r"lattices = 'folded'.*network.entries"):
        renorm.ModeDiffusion(spec, Lattice((8, 8)), network=torch.nn.Identity(), moments=_moments(Lattice((8, 8))))


def _moments(lattice):
    from renorm.diffusion.moments import Moments

    return Moments(
        torch.zeros(lattice.event_shape, dtype=torch.float64), torch.ones(lattice.shape, dtype=torch.float64)
    )


@pytest.mark.parametrize("prior", ["coloured", "flat"])
def test_a_high_floor_leaves_the_slowest_mode_where_nothing_is_nested(prior, generator):
    """A walk has to start from something; Gaussian data come out as they are."""
    x = torch.randn(4000, 1, 4, 4, generator=generator)
    spec = DiffusionSpec(schedule="separated", floor=0.1, prior=prior, denoiser="gaussian")
    model = ModeDiffusion(spec, Lattice((4, 4))).fit(x)
    assert int(model.schedule.alive(1.0).sum()) >= 1
    assert abs(model.sample(4000, generator=generator).var().item() - 1) < 0.05
