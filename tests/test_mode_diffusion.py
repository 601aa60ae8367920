"""Mode diffusions keep the hallway's promises, and are exact where the data are Gaussian."""

import dataclasses
import math
from functools import partial

import pytest
import torch
from torch import nn

from renorm.bases import basis_for
from renorm.data.fields import Fields
from renorm.diffusion.mode_diffusion import ModeDiffusion
from renorm.diffusion.moments import Moments
from renorm.diffusion.presets import rgdm_images
from renorm.diffusion.regulator import Rational
from renorm.diffusion.sampler import SAMPLERS
from renorm.diffusion.spacing import SPACINGS, Window, grid
from renorm.diffusion.spec import DiffusionSpec
from renorm.errors import CheckpointError, DataError, NoLikelihoodError, RecipeError
from renorm.fit.spec import FitSpec
from renorm.lattice import Lattice
from renorm.model import Grade
from renorm.nn.spec import UNetSpec
from renorm.nn.unet import UNet
from renorm.testing import check_model

SHAPES = [(12,), (6, 5), (4, 3, 4)]
BOUNDARIES = ["open", "periodic"]
SCHEDULES = ["rgdm", "white", "edm", "calibrated", "separated"]
BRIEF = FitSpec(steps=2, batch=4, lr=1e-3, warmup=1)
TINY = UNetSpec(width=4, multipliers=(1, 2), blocks=1, attention=(), middle_attention=False, groups=2)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def spectrum_of(lattice):
    return 1 / (lattice.k_sq() + 0.3)


def gaussian_modes(lattice, number, seed=0):
    noise = torch.randn(number, *lattice.event_shape, generator=seeded(seed))
    return noise * spectrum_of(lattice).sqrt().float()


def gaussian_fields(lattice, number, seed=0):
    return basis_for(lattice).inverse(gaussian_modes(lattice, number, seed))


def exact_model(lattice, **spec):
    """The Gaussian model of the true spectrum."""
    moments = Moments(torch.zeros(lattice.event_shape, dtype=torch.float64), spectrum_of(lattice))
    return ModeDiffusion(DiffusionSpec(denoiser="gaussian", **spec), lattice, moments=moments)


def tiny_model(lattice, num_classes=0, **spec):
    network = UNet(
        TINY,
        dim=lattice.dim,
        channels=lattice.channels,
        boundary=lattice.boundary,
        num_classes=num_classes,
        generator=seeded(0),
    )
    return ModeDiffusion(DiffusionSpec(network=TINY, **spec), lattice, network=network, num_classes=num_classes)


# -- the hallway -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "boundary"),
    [*((name, "open") for name in SCHEDULES), ("rgdm", "periodic"), ("calibrated", "periodic")],
)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gaussian_models_keep_their_promises(shape, boundary, schedule, tmp_path):
    lattice = Lattice(shape, boundary, channels=2)
    x = gaussian_fields(lattice, 50)
    model = ModeDiffusion(DiffusionSpec(schedule=schedule, denoiser="gaussian", steps=2), lattice).fit(x)
    check_model(model, x[:2], tmp_path=tmp_path)


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_every_sampler_keeps_the_promises(name, tmp_path):
    model = exact_model(Lattice((8,)), sampler=name, spacing="equal-error", steps=4)
    check_model(model, gaussian_fields(model.lattice, 2), tmp_path=tmp_path)


@pytest.mark.parametrize(
    ("shape", "boundary", "prediction"),
    [((8,), "periodic", "coloured-noise"), ((8, 4), "open", "preconditioned"), ((4, 4, 4), "open", "velocity")],
    ids=str,
)
def test_trained_networks_keep_the_promises(shape, boundary, prediction, tmp_path):
    lattice = Lattice(shape, boundary)
    x = gaussian_fields(lattice, 8)
    model = tiny_model(lattice, prediction=prediction, steps=3)
    model.fit(x, spec=BRIEF, progress=False)
    check_model(model, x[:2], tmp_path=tmp_path)


def test_an_injected_network_keeps_the_promises(tmp_path):
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.tensor(0.1))

        def forward(self, x, t):
            return self.weight * x + t[:, None, None]

    model = ModeDiffusion(DiffusionSpec(steps=3), Lattice((8,)), network=Own())
    load = partial(ModeDiffusion.load, network=Own())
    check_model(model, gaussian_fields(model.lattice, 2), tmp_path=tmp_path, load=load)


def lying(**methods):
    model = exact_model(Lattice((8,)), steps=3)
    model.__class__ = type("Liar", (ModeDiffusion,), methods)
    return model


def sample_globally(self, num, *, generator, **rest):
    return ModeDiffusion.sample(self, num, generator=torch.default_generator, **rest)


def encode_in_place(self, x):
    y = ModeDiffusion.encode(self, x)
    x += 1e-7
    return y


def deny(self, x, **rest):
    raise NoLikelihoodError("none")


LIES = {
    "same, bit for bit": {"sample": sample_globally},
    "coarsen to level 0 is the identity": {"coarsen": lambda self, x, level, generator=None: 1.001 * x},
    "no method changes the fields": {"encode": encode_in_place},
    "finest first": {"levels": property(lambda self: [replace_modes(l) for l in ModeDiffusion.levels.fget(self)])},
    "refine from level . to . raises ValueError": {"refine": lambda self, coarse, **rest: coarse},
    "decode undoes encode": {"decode": lambda self, pyramid: pyramid.coarse},
    "log_prob raises NoLikelihoodError": {"grade": Grade.NONE, "log_prob": lambda self, x: x.flatten(1).sum(1)},
    "grade 'exact' gives a number": {"grade": Grade.EXACT, "log_prob": deny},
    "a loaded model draws the same": {"load": classmethod(lambda cls, path: exact_model(Lattice((8,)), steps=4))},
}


def replace_modes(level):
    return dataclasses.replace(level, modes=level.index)


@pytest.mark.parametrize("promise", LIES)
def test_a_broken_promise_is_named(promise, tmp_path):
    model = lying(**LIES[promise])
    with pytest.raises(AssertionError, match=f"promised: .*{promise}"):
        check_model(model, gaussian_fields(model.lattice, 2), tmp_path=tmp_path)


def test_something_else_is_no_model(tmp_path):
    with pytest.raises(AssertionError, match="has every method and property of RenormModel"):
        check_model(nn.Identity(), torch.zeros(2, 1, 8), tmp_path=tmp_path)


# -- exact where the data are Gaussian -------------------------------------------------------------------------------

N = 15_000


def assert_law(modes, expected):
    """The variance of every mode is as expected, within 5 standard errors, and zero where it should be."""
    power = modes[:, 0].double().square().mean(0)
    assert (power[expected == 0] < 1e-10).all()
    ratio = power[expected > 0] / expected[expected > 0]
    assert (ratio - 1).abs().max() < 5 * math.sqrt(2 / len(modes))


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_fit_and_sample_return_the_spectrum(shape, boundary):
    """The whole pipeline, from fields to fields: the spectrum that was measured comes back."""
    lattice = Lattice(shape, boundary)
    model = ModeDiffusion(DiffusionSpec(denoiser="gaussian"), lattice).fit(gaussian_fields(lattice, N))
    assert (model.moments.spectrum / spectrum_of(lattice) - 1).abs().max() < 5 * math.sqrt(2 / N)
    x = model.sample(N, generator=seeded(1), batch=N)
    assert_law(basis_for(lattice).forward(x), model.moments.spectrum)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_mean_field_comes_back(schedule):
    """With the mean taken out: mean and variance of every mode, within 5 standard errors."""
    lattice, offset = Lattice((6,)), torch.linspace(-3, 3, 6)
    x = gaussian_fields(lattice, N) + offset
    spec = DiffusionSpec(schedule=schedule, denoiser="gaussian", subtract_mean=True)
    y = ModeDiffusion(spec, lattice).fit(x).sample(N, generator=seeded(1), batch=N)
    modes = basis_for(lattice).forward(y)
    error = spectrum_of(lattice).sqrt() * math.sqrt(2 / N)
    assert ((modes - basis_for(lattice).forward(x)).mean(0)[0] / error).abs().max() < 5
    assert_law(modes - modes.mean(0), spectrum_of(lattice) * (1 + 1 / N))


def law_at(model, level):
    """(alpha, variance) of every mode of the forward flow at a level, zero where dead."""
    t = model.levels[level].scale
    alpha, sigma, alive = model.schedule.alpha(t), model.schedule.sigma(t), model.schedule.alive(t)
    variance = alpha**2 * spectrum_of(model.lattice) + sigma**2
    return alpha, torch.where(alive, variance, 0.0)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("shape", "boundary"), [((12,), "open"), ((6, 5), "periodic")], ids=str)
def test_samples_of_a_level_have_the_law_of_coarse_fields(shape, boundary, schedule):
    model = exact_model(Lattice(shape, boundary), schedule=schedule)
    x = gaussian_fields(model.lattice, N)
    for level in (1, len(model.levels) - 1):
        _, variance = law_at(model, level)
        assert_law(model.basis.forward(model.coarsen(x, level, generator=seeded(1))), variance)
        assert_law(model.basis.forward(model.sample(N, generator=seeded(2), level=level, batch=N)), variance)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("shape", "boundary"), [((12,), "open"), ((6, 5), "periodic")], ids=str)
def test_refined_fields_have_the_conditional_law(shape, boundary, schedule):
    r"""(coarse, refined) has the joint law of (phi_t, phi_s): Cov = (alpha_t / alpha_s) V_s where alive, else 0."""
    model = exact_model(Lattice(shape, boundary), schedule=schedule, steps=20)
    x, last = gaussian_fields(model.lattice, N), len(model.levels) - 1
    for level, to in {(last, 0), (1, 0), (last, 1)} - {(1, 1)}:
        coarse = model.coarsen(x, level, generator=seeded(1))
        fine = model.refine(coarse, level=level, to=to, generator=seeded(2), batch=N)
        (alpha_t, v_t), (alpha_s, v_s) = law_at(model, level), law_at(model, to)
        c, f = (model.basis.forward(y)[:, 0].double() for y in (coarse, fine))
        assert_law(f[:, None], v_s)
        expected = torch.where(v_t > 0, alpha_t / alpha_s * v_s, 0.0)
        error = ((v_t * v_s + expected**2) / N).sqrt()
        gap = (c * f).mean(0) - expected
        assert (gap[v_t == 0].abs() < 1e-6).all()
        assert (gap / error)[v_t > 0].abs().max() < 5


def test_refine_draws_many_fields_for_one_coarse_one():
    """Their spread is that of the posterior, P sigma^2 / (alpha^2 P + sigma^2) where alive and P where not."""
    model = exact_model(Lattice((8,)))
    coarse = model.coarsen(gaussian_fields(model.lattice, 1), 1, generator=seeded(1)).expand(N, 1, 8)
    modes = model.basis.forward(model.refine(coarse, level=1, generator=seeded(2), batch=N))
    alpha, variance = law_at(model, 1)
    spectrum = spectrum_of(model.lattice)
    sigma_sq = variance - alpha**2 * spectrum
    expected = torch.where(variance > 0, spectrum * sigma_sq / variance, spectrum)
    assert_law(modes - modes.mean(0), expected)


def test_the_mean_of_the_flow_is_drawn_without_a_generator():
    model = exact_model(Lattice((8,)))
    modes = gaussian_modes(model.lattice, 3)
    alpha, variance = law_at(model, 1)
    mean = model.basis.forward(model.coarsen(model.basis.inverse(modes), 1))
    torch.testing.assert_close(mean, torch.where(variance > 0, alpha * modes, 0.0).float(), rtol=1e-5, atol=1e-6)


def test_a_silent_network_is_the_gaussian_model():
    """Preconditioned by the data's spectrum, zero output walks as the exact denoiser does."""

    class Silent(nn.Module):
        def forward(self, x, t):
            return torch.zeros_like(x)

    exact = exact_model(Lattice((8,)))
    spec = DiffusionSpec(prediction="preconditioned")
    silent = ModeDiffusion(spec, exact.lattice, network=Silent(), moments=exact.moments)
    x, y = (model.sample(4, generator=seeded(3)) for model in (exact, silent))
    torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-4)


def test_levels_are_octaves():
    """By hand on 16 open sites: level l keeps k <= (15 pi / 16) / 2^l, modes n <= 15 / 2^l; the last is the prior."""
    model = exact_model(Lattice((16,)))
    assert [level.modes for level in model.levels] == [16, 8, 4, 2, 1, 0]
    assert [model.levels[0].cutoff, model.levels[0].scale, model.levels[-1].scale] == [math.inf, -math.inf, 1.0]
    for level, n in zip(model.levels[1:5], [7, 3, 1, 0], strict=True):  # Lambda^2 = k^2 + m_L^2
        assert math.isclose(level.cutoff**2, (math.pi * n / 16) ** 2 + (1.6 * math.pi / 16) ** 2, rel_tol=1e-9)


def test_a_pyramid_holds_the_shells():
    """Mode 5 of 16 stands in the shell between level 2 (n <= 3) and level 1 (n <= 7), and nowhere else."""
    model = exact_model(Lattice((16,)))
    modes = torch.zeros(1, 1, 16)
    modes[0, 0, 5] = 3.0
    pyramid = model.encode(model.basis.inverse(modes))
    sizes = [round(part.abs().max().item(), 5) for part in (pyramid.coarse, *pyramid.details)]
    assert sizes == [0, 0, 0, 0, 3, 0]  # coarse to fine


# -- fitting ---------------------------------------------------------------------------------------------------------


class Listener(nn.Module):
    """Remembers the classes that it is told."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.heard = []

    def forward(self, x, t, condition=None):
        self.heard.append(condition)
        shift = 0 if condition is None else condition.reshape(-1, *[1] * (x.ndim - 1))
        return self.weight * x + shift

    def __deepcopy__(self, memo):
        copy = Listener()
        copy.load_state_dict(self.state_dict())
        return copy


def test_classes_are_told_and_sometimes_not():
    """A tenth of the training fields show the class "any", so that sampling without a condition has been learnt."""
    lattice, network = Lattice((4,)), Listener()
    x, labels = gaussian_fields(lattice, 60), torch.arange(60) % 3
    model = ModeDiffusion(DiffusionSpec(steps=2), lattice, network=network, num_classes=3)
    model.fit(x, condition=labels, spec=FitSpec(steps=40, batch=50, warmup=1), progress=False)
    counts = torch.cat(network.heard).bincount(minlength=4) / 2000
    expected = torch.tensor([0.3, 0.3, 0.3, 0.1])
    assert ((counts - expected) / (expected * (1 - expected) / 2000).sqrt()).abs().max() < 5
    zero, two = (model.sample(2, condition=torch.full((2,), c), generator=seeded(0), steps=1) for c in (0, 2))
    assert not torch.equal(zero, two)


def test_a_model_without_classes_ignores_labels():
    lattice, network = Lattice((4,)), Listener()
    fields = Fields(gaussian_fields(lattice, 8), lattice, torch.arange(8) % 2, 2)
    ModeDiffusion(DiffusionSpec(), lattice, network=network).fit(fields, spec=BRIEF, progress=False)
    assert network.heard == [None, None]


def test_a_fit_may_be_followed_by_another():
    """The averaged weights are put into the network that was given, which can be trained further."""
    model = tiny_model(Lattice((8,)), steps=2)
    x, network = gaussian_fields(model.lattice, 8), model.network
    before = [p.clone() for p in network.parameters()]
    model.fit(x, spec=BRIEF, progress=False).fit(x, spec=BRIEF, progress=False)
    assert model.network is network
    assert not network.training
    assert any(not torch.equal(p, q) for p, q in zip(network.parameters(), before, strict=True))


def test_a_run_folder_is_a_saved_model(tmp_path):
    """``fit`` leaves the weights in its folder; with ``save_frame`` beside them the folder loads."""
    model = tiny_model(Lattice((8,)), num_classes=2, steps=2)
    x = gaussian_fields(model.lattice, 8)
    model.save_frame(tmp_path)
    with pytest.raises(CheckpointError, match="holds no weights yet"):
        ModeDiffusion.load(tmp_path)
    model.fit(x, condition=torch.arange(8) % 2, spec=BRIEF, folder=tmp_path, progress=False)
    final = ModeDiffusion.load(tmp_path).sample(2, generator=seeded(0))
    assert torch.equal(final, model.sample(2, generator=seeded(0)))
    (tmp_path / "model.safetensors").unlink()  # as if the fit had been stopped before its end
    assert torch.equal(final, ModeDiffusion.load(tmp_path).sample(2, generator=seeded(0)))


# -- errors teach ----------------------------------------------------------------------------------------------------


def test_what_cannot_be_fitted():
    model = tiny_model(Lattice((8,)))
    with pytest.raises(DataError, match="must live on the model's lattice"):
        model.fit(Fields(torch.zeros(4, 1, 8), Lattice((8,), "periodic")))
    with pytest.raises(DataError, match="shape"):
        model.fit(torch.zeros(4, 1, 6))
    with pytest.raises(DataError, match="finite"):
        model.fit(torch.full((4, 1, 8), math.nan))
    with pytest.raises(DataError, match="must have the model's 3 classes, got None"):
        tiny_model(Lattice((8,)), num_classes=3).fit(torch.zeros(4, 1, 8))


def test_what_cannot_be_sampled():
    model = exact_model(Lattice((8,)))
    with pytest.raises(ValueError, match="num must be >= 1"):
        model.sample(0, generator=seeded(0))
    with pytest.raises(ValueError, match="steps must be >= 1"):
        model.sample(1, generator=seeded(0), steps=0)
    with pytest.raises(ValueError, match="condition needs a model with classes"):
        model.sample(1, generator=seeded(0), condition=torch.zeros(1, dtype=torch.int64))
    with pytest.raises(ValueError, match="fields must be"):
        model.refine(torch.zeros(2, 1, 9), level=1, generator=seeded(0))
    classed = tiny_model(Lattice((8,)), num_classes=3)
    with pytest.raises(ValueError, match="classes are 0 to 2, got 3"):
        classed.sample(1, generator=seeded(0), condition=torch.tensor([3]))
    with pytest.raises(ValueError, match="one a field"):
        classed.sample(2, generator=seeded(0), condition=torch.tensor([1]))


def test_an_adaptive_model_must_be_fitted_first():
    model = ModeDiffusion(DiffusionSpec(denoiser="gaussian"), Lattice((8,)))
    for use in (lambda: model.sample(1, generator=seeded(0)), lambda: model.levels):
        with pytest.raises(CheckpointError, match="call fit first"):
            use()


def test_a_network_model_needs_a_network():
    with pytest.raises(RecipeError, match="needs a network"):
        ModeDiffusion(DiffusionSpec(), Lattice((8,)))


def test_another_walk_needs_what_it_needs():
    model = tiny_model(Lattice((8,)))
    assert model.with_walk(sampler="heun", steps=7).spec.steps == 7
    with pytest.raises(RecipeError, match="needs the data's spectrum"):
        model.with_walk(spacing="equal-error")


def damaged_kind(folder):
    card = folder / "model.toml"
    card.write_text(card.read_text().replace("mode-diffusion", "cascade"))


DAMAGES = {
    "holds no model": lambda folder: (folder / "model.toml").unlink(),
    "kind must be one of 'mode-diffusion'": damaged_kind,
    "lacks moments.safetensors": lambda folder: (folder / "moments.safetensors").unlink(),
    "another version": lambda folder: (folder / "model.toml").write_text("unknown = 1"),
}


@pytest.mark.parametrize("message", DAMAGES)
def test_a_damaged_folder(message, tmp_path):
    exact_model(Lattice((8,))).save(tmp_path)
    DAMAGES[message](tmp_path)
    with pytest.raises(CheckpointError, match=message):
        ModeDiffusion.load(tmp_path)


@pytest.mark.parametrize("sampler", ["angle", "angle-pc", "ddim", "dpm2m", "heun"])
def test_few_steps_keep_the_mean(sampler):
    """Five steps on data of mean 1 and standard deviation 0.3: samplers walk about the mean, so it comes out."""
    lattice = Lattice((8, 8))
    x = 1 + 0.3 * torch.randn(4000, 1, 8, 8, generator=seeded(0))
    spec = DiffusionSpec(denoiser="gaussian", subtract_mean=True, sampler=sampler, steps=5)
    y = ModeDiffusion(spec, lattice).fit(x).sample(2000, generator=seeded(1))
    assert abs(y.mean().item() - 1) < 0.01


def test_a_part_of_a_walk_takes_its_share_of_the_steps():
    model = ModeDiffusion(DiffusionSpec(denoiser="gaussian", steps=40), Lattice((16,)))
    model.fit(torch.randn(100, 1, 16, generator=seeded(0)))
    seen = []
    model.sample(2, level=2, generator=seeded(0), callback=lambda step, steps, scale, modes: seen.append(steps))
    assert len(seen) < 40
    assert seen[0] == len(seen)


@pytest.mark.parametrize(("name", "value"), [("schedule", "foo"), ("prediction", "foo"), ("denoiser", "foo")])
def test_a_spec_made_in_python_is_checked_too(name, value):
    with pytest.raises((ValueError, TypeError)):
        DiffusionSpec(**{name: value})


@pytest.mark.parametrize("schedule", ["rgdm", "calibrated"])
def test_a_white_twin_differs_in_its_prior_alone(schedule, generator):
    """Signal to noise, cutoffs and grids are the same at every scale; the prior is flat and no mode is erased."""
    lattice = Lattice((8, 8))
    x = torch.randn(64, 1, 8, 8, generator=generator).cumsum(-1)
    ours, twin = (
        ModeDiffusion(
            DiffusionSpec(schedule=schedule, denoiser="gaussian", prior=prior, sampler="running"), lattice
        ).fit(x)
        for prior in ("coloured", "flat")
    )
    t = torch.linspace(0, 1, 7, dtype=torch.float64)
    torch.testing.assert_close(twin.schedule.log_snr(t), ours.schedule.log_snr(t), rtol=0, atol=1e-9)
    prior = twin.schedule.prior_spectrum
    torch.testing.assert_close(prior, ours.schedule.prior_spectrum.mean().expand_as(prior))
    assert twin.schedule.alive(1.0).all()
    assert type(ours.sampler) is type(twin.sampler)
    for spacing in SPACINGS:  # those that look at modes or at the prior too
        a, b = (model.with_walk(spacing=spacing) for model in (ours, twin))
        assert grid(a.spacing, a.schedule, 9) == grid(b.spacing, b.schedule, 9), spacing


def test_a_twin_fades_as_with_the_rational_regulator(generator):
    """A regulator orders the modes; those of one variance have no order, and grids for white noise fit."""
    x = torch.randn(64, 1, 8, generator=generator).cumsum(-1)
    twins = [
        ModeDiffusion(DiffusionSpec(regulator=name, prior="flat", denoiser="gaussian", spacing="window"), Lattice((8,)))
        for name in ("rational", "log-squared")
    ]
    a, b = (twin.fit(x) for twin in twins)
    assert isinstance(b.schedule.regulator, Rational)
    torch.testing.assert_close(a.schedule.log_snr(0.3), b.schedule.log_snr(0.3))
    assert grid(a.spacing, a.schedule, 5) == grid(b.spacing, b.schedule, 5)
    assert grid(b.spacing, b.schedule, 5) == grid(Window(b.moments.spectrum), rgdm_images(Lattice((8,))), 5)
    with pytest.raises(RecipeError, match="unknown regulator 'none'"):
        ModeDiffusion(DiffusionSpec(regulator="none", prior="flat", denoiser="gaussian"), Lattice((8,))).fit(x)


def test_the_twin_of_separated_scales_is_white_and_knows_no_units(generator):
    """Signal to noise of data of unit spectrum: one for all modes; fields in other units have the same walk."""
    spec = DiffusionSpec("separated", "log-squared", sharpness=0.5, prior="flat", denoiser="gaussian", spacing="window")
    x = torch.randn(64, 1, 8, generator=generator).cumsum(-1)
    twin, scaled = (ModeDiffusion(spec, Lattice((8,))).fit(c * x) for c in (1.0, 100.0))
    prior = twin.schedule.prior_spectrum
    torch.testing.assert_close(prior, twin.moments.spectrum.mean().expand_as(prior))
    assert twin.schedule.alive(1.0).all()
    assert isinstance(twin.schedule.regulator, Rational)
    ratio = twin.schedule.log_snr(0.4)
    torch.testing.assert_close(ratio, ratio[0].expand_as(ratio))
    assert grid(twin.spacing, twin.schedule, 5) == grid(Window(twin.moments.spectrum), twin.schedule, 5)
    assert grid(scaled.spacing, scaled.schedule, 5) == pytest.approx(grid(twin.spacing, twin.schedule, 5), abs=1e-5)
    ours, larger = (
        ModeDiffusion(dataclasses.replace(spec, prior="coloured"), Lattice((8,))).fit(c * x) for c in (1, 9)
    )
    assert ours.schedule.alpha(0.7)[0] > 1.1 * ours.schedule.alpha(0.7)[-1]
    torch.testing.assert_close(larger.schedule.alpha(0.7), ours.schedule.alpha(0.7))
    torch.testing.assert_close(larger.schedule.sigma(0.7), 9 * ours.schedule.sigma(0.7), rtol=1e-4, atol=0)


def test_edms_preconditioning_is_that_of_one_variance(generator):
    """c_skip, c_out and c_in of Karras et al. 2022, table 1, for the variance of the data."""
    x = 0.7 * torch.randn(4000, 1, 8, generator=generator)
    network = torch.nn.Identity()
    model = ModeDiffusion(DiffusionSpec(schedule="edm", prediction="edm"), Lattice((8,)), network=network)
    model.measure(Fields(x, Lattice((8,))))
    data_sq = x.double().square().mean()
    sigma = model.schedule.sigma(0.6)[0]
    skip, out, scale_in = (c[0] for c in model.denoiser.prediction.coefficients(model.schedule, 0.6))
    torch.testing.assert_close(skip, data_sq / (data_sq + sigma**2))
    torch.testing.assert_close(out, sigma * data_sq.sqrt() / (data_sq + sigma**2).sqrt())
    torch.testing.assert_close(scale_in, (data_sq + sigma**2).rsqrt())
