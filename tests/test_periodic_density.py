"""Periodic densities: the action against autograd, the flat limit in closed form, von Mises laws, levels, disk."""

import math

import numpy as np
import pytest
import torch

from renorm.cascade.field_posterior import action, choose_length, lengths, posterior_mode, stiffness
from renorm.cascade.periodic_density import PeriodicDensity, PeriodicDensitySpec
from renorm.errors import CheckpointError, DataError
from renorm.model import Grade
from renorm.spec import from_toml, to_toml
from renorm.testing import check_model


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def von_mises(kappa, shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).vonmises(0.3, kappa, shape))


@pytest.fixture(scope="module")
def pair():
    """Two angles, fitted."""
    x = von_mises(2.0, (600, 1, 2))
    x[:, :, 1] = torch.remainder(x[:, :, 1] + x[:, :, 0] + math.pi, 2 * math.pi) - math.pi
    return PeriodicDensity(PeriodicDensitySpec(cells=16)).fit(x), x


# The field


@pytest.mark.parametrize("shape", [(16,), (8, 8)])
@pytest.mark.parametrize("exposed", [False, True])
def test_the_mode_has_no_slope_and_a_convex_action(shape, exposed):
    g = generator()
    counts = 30 * torch.rand(shape, generator=g, dtype=torch.float64) ** 3
    exposure = torch.randn(shape, generator=g, dtype=torch.float64) if exposed else None
    kwargs = {"length": 0.7, "power": 2.0, "log_exposure": exposure}
    field = posterior_mode(counts, **kwargs)
    assert abs(float(field.mean())) < 1e-12
    slope, curvature = (
        torch.autograd.functional.jacobian(lambda f: action(f, counts, **kwargs), field),
        torch.autograd.functional.hessian(lambda f: action(f, counts, **kwargs), field).reshape(counts.numel(), -1),
    )
    assert slope.abs().max() < 1e-4
    eigenvalues = torch.linalg.eigvalsh(curvature)
    assert abs(float(eigenvalues[0])) < 1e-9  # the constant alone
    assert eigenvalues[1] > 1e-6
    elsewhere = posterior_mode(counts, **kwargs, start=field + torch.randn(shape, generator=g, dtype=torch.float64))
    torch.testing.assert_close(field, elsewhere, rtol=0, atol=1e-4)


@pytest.mark.parametrize("power", [1.0, 2.0, 1.5])
def test_a_nearly_flat_density_is_filtered_wave_by_wave(power):
    """The Gaussian limit: each wave keeps 1 / (1 + (length k)^(2 power) / N) of its amplitude."""
    n, number, length, small = 32, 50.0, 0.8, 1e-5
    x = 2 * math.pi * torch.arange(n, dtype=torch.float64) / n
    waves = {(1, 0): 1.0, (0, 3): -0.5, (2, 2): 0.7}
    relative = sum(a * torch.cos(k * x[:, None] + m * x[None]) for (k, m), a in waves.items())
    field = posterior_mode(number * (1 + small * relative) / n**2, length=length, power=power)
    kept = {k: 1 / (1 + (length**2 * (k[0] ** 2 + k[1] ** 2)) ** power / number) for k in waves}
    exact = -small * sum(a * kept[k] * torch.cos(k[0] * x[:, None] + k[1] * x[None]) for k, a in waves.items())
    torch.testing.assert_close(field, exact, rtol=0, atol=1e-4 * small + small**2)


def test_the_prior_is_the_mean_square_of_a_derivative():
    """By hand: field a cos(3 x) and power 1: length^2 times the mean of (3 a sin)^2, halved."""
    n, a, length = 24, 0.9, 1.3
    x = 2 * math.pi * torch.arange(n, dtype=torch.float64) / n
    field, counts = a * torch.cos(3 * x), torch.full((n,), 1e-12, dtype=torch.float64)
    found = action(field, counts, length=length, power=1.0)
    assert float(found) == pytest.approx(length**2 * 9 * a**2 / 4, rel=1e-9)
    assert stiffness((4, 4), 2.0, 1.0)[1].tolist() == [4.0, 8.0, 20.0]


def test_stiff_fields_are_flat_and_loose_ones_are_histograms():
    counts = torch.tensor([1.0, 2.0, 3.0, 4.0, 3.0, 2.0, 1.0, 1.0]).double()
    assert posterior_mode(counts, length=1e4, power=2.0).abs().max() < 1e-6
    loose = (-posterior_mode(counts, length=1e-3, power=2.0)).softmax(0)
    torch.testing.assert_close(loose, counts / counts.sum(), rtol=1e-6, atol=0)


def test_exposure_is_divided_out():
    counts = torch.tensor([1.0, 2.0, 3.0, 4.0, 3.0, 2.0, 1.0, 1.0]).double()
    exposure = torch.tensor([0.0, 1.0, 5.0, 2.0, -3.0, 0.0, 0.0, 1.0]).double()
    p = (-posterior_mode(counts, length=1e-4, power=2.0, log_exposure=exposure)).softmax(0)
    expected = counts * (-exposure).exp()
    torch.testing.assert_close(p, expected / expected.sum(), rtol=1e-5, atol=0)


def test_the_best_length_is_the_one_that_foretells_best():
    """Blocks that agree ask for a loose field, blocks that differ for a stiff one."""
    same = torch.from_numpy(np.random.default_rng(0).poisson(3.0, (1, 64)).astype(float)).expand(4, -1)
    other = torch.from_numpy(np.random.default_rng(1).poisson(3.0, (4, 64)).astype(float))
    candidates = lengths(float(other.sum()), 1.0)
    loose = choose_length(same, [float(same[:3].sum())] * 4, candidates, power=1.0)
    stiff = choose_length(other, [float(other[:3].sum())] * 4, candidates, power=1.0)
    assert loose[0].length < stiff[0].length
    assert [each.nats for each in stiff] == sorted((each.nats for each in stiff), reverse=True)
    rest = other[1:].sum(0)
    by_hand = (-posterior_mode(rest, length=candidates[0], power=1.0)).log_softmax(0)
    alone = choose_length(torch.stack([other[0], rest]), [float(rest.sum()), 1.0], candidates[:1], power=1.0)
    back = (-posterior_mode(other[0] / other[0].sum(), length=candidates[0], power=1.0)).log_softmax(0)
    expected = (other[0] @ by_hand + rest @ back) / other.sum()
    assert alone[0].nats == pytest.approx(float(expected), rel=1e-9)


@pytest.mark.parametrize("counts", [[-1.0, 2.0], [0.0, 0.0], [math.nan, 1.0]])
def test_counts_that_are_none_are_refused(counts):
    with pytest.raises(DataError, match="counts must be finite and >= 0"):
        posterior_mode(torch.tensor(counts).double(), length=1.0, power=1.0)


def test_a_length_that_is_none_is_refused():
    with pytest.raises(ValueError, match="length and power must be > 0"):
        posterior_mode(torch.ones(4).double(), length=0.0, power=1.0)
    with pytest.raises(DataError, match="at least 2 must have weight"):
        choose_length(torch.tensor([[1.0, 1.0], [0.0, 0.0]]).double(), [1.0, 1.0], [1.0], power=1.0)


# The density


def test_a_von_mises_law_is_learned_the_better_the_more_frames():
    x = torch.linspace(-math.pi, math.pi, 201).double()[:-1, None, None]
    exact = 2.0 * torch.cos(x[:, 0, 0] - 0.3) - math.log(2 * math.pi * float(torch.special.i0(torch.tensor(2.0))))
    errors = []
    for num in (300, 30_000):
        model = PeriodicDensity(PeriodicDensitySpec(angles=1, cells=128)).fit(von_mises(2.0, (num, 1, 1)))
        errors.append(float((exact.exp() * (model.log_prob(x) - exact) ** 2).mean().sqrt()))
    assert errors[1] < 0.03 < errors[0] < 0.2


def test_weights_of_a_deep_well_are_learned_to_its_top():
    """Flat frames that weigh as a von Mises law of 24 nats: each place is as well known as any other."""
    x = 2 * math.pi * torch.rand(4000, 1, 1, generator=generator(), dtype=torch.float64) - math.pi
    weights = 12 * x[:, 0, 0].cos()
    model = PeriodicDensity(PeriodicDensitySpec(angles=1)).fit(x, log_weights=weights)
    shifted = PeriodicDensity(PeriodicDensitySpec(angles=1)).fit(x, log_weights=weights + 500)
    torch.testing.assert_close(model.field, shifted.field, rtol=0, atol=1e-6)
    at = model.coarsen(x, 1)
    exact = 12 * at[:, 0, 0].cos() - math.log(2 * math.pi * float(torch.special.i0(torch.tensor(12.0).double())))
    assert float((model.log_prob(at) - exact).square().mean().sqrt()) < 0.2


def test_equal_weights_are_no_weights():
    x = von_mises(2.0, (300, 1, 1))
    models = [
        PeriodicDensity(PeriodicDensitySpec(angles=1)).fit(x, log_weights=w) for w in (None, torch.full((300,), -3.0))
    ]
    torch.testing.assert_close(models[0].field, models[1].field, rtol=0, atol=1e-8)
    none = torch.cat([torch.zeros(300), torch.full((50,), -torch.inf)])
    more = torch.cat([x, torch.ones(50, 1, 1).double()])
    spec = PeriodicDensitySpec(angles=1, length=1.0)
    fields = [PeriodicDensity(spec).fit(x).field, PeriodicDensity(spec).fit(more, log_weights=none).field]
    torch.testing.assert_close(*fields, rtol=0, atol=1e-8)


@pytest.mark.parametrize("angles", [1, 2])
def test_it_keeps_the_promises_of_the_hallway(angles, tmp_path, dtype):
    x = von_mises(1.0, (400, 1, angles))
    model = PeriodicDensity(PeriodicDensitySpec(angles=angles, cells=32)).fit(x)
    check_model(model, x[:20].to(dtype), tmp_path=tmp_path)
    assert model.grade is Grade.EXACT
    assert [level.modes for level in model.levels] == [n**angles for n in (32, 32, 16, 8, 4)]


def test_the_density_integrates_to_one_at_every_level(pair):
    model, _ = pair
    n = 48  # three points a cell: exact for a density that is flat in cells
    at = (torch.arange(n, dtype=torch.float64) + 0.5) * (2 * math.pi / n) - math.pi
    points = torch.cartesian_prod(at, at)[:, None]
    parts = model.log_prob(points, per_level=True)
    torch.testing.assert_close(parts.sum(1), model.log_prob(points))
    area = (2 * math.pi / n) ** 2
    assert float(model.log_prob(points).exp().sum() * area) == pytest.approx(1, rel=1e-12)
    for depth in range(1, parts.shape[1]):
        cells = (4 * 2 ** (depth - 1)) ** 2
        total = (parts[:, :depth].sum(1).exp() * cells / n**2).sum()
        assert float(total) == pytest.approx(1, rel=1e-12)


def test_samples_have_the_probabilities_of_their_cells(pair):
    model, _ = pair
    num = 100_000
    for level in (0, 1, 3):
        x = model.sample(num, generator=generator(level), level=level)
        table = model.tables[max(level, 1) - 1]
        edge = len(table)
        place = ((x[:, 0] + math.pi) / (2 * math.pi) * edge).floor().long()
        counts = torch.bincount(place[:, 0] * edge + place[:, 1], minlength=edge**2)
        expected = num * table.exp().flatten()
        chi_sq = float(((counts - expected) ** 2 / expected).sum())
        assert abs(chi_sq - edge**2) < 5 * math.sqrt(2 * edge**2)


def test_points_are_flat_inside_their_cell(pair):
    model, _ = pair
    x = model.sample(50_000, generator=generator())
    within = torch.remainder((x + math.pi) / (2 * math.pi / 16), 1)
    assert abs(float(within.mean()) - 0.5) < 5 * math.sqrt(1 / 12 / within.numel())
    assert abs(float(within.var()) - 1 / 12) < 0.002
    assert -math.pi <= float(x.min()) <= float(x.max()) < math.pi


def test_refine_keeps_the_cell_and_draws_by_the_density(pair, dtype):
    model, x = pair
    coarse = model.coarsen(x[:1], 3).to(dtype).expand(60_000, -1, -1)
    for to in (0, 1, 2):
        fine = model.refine(coarse, level=3, to=to, generator=generator(to))
        assert fine.dtype == dtype
        assert torch.equal(model.coarsen(fine, 3), coarse)
        if to:
            assert torch.equal(model.coarsen(fine, to), fine)
    fine = model.refine(coarse, level=3, to=1, generator=generator())
    at, counts = fine.unique(dim=0, return_counts=True)
    parts = model.log_prob(at, per_level=True)
    conditional = parts[:, 1:3].sum(1).exp()
    assert float(conditional.sum()) == pytest.approx(1, rel=1e-12)
    expected = 60_000 * conditional
    assert float(((counts - expected) ** 2 / expected).sum()) < len(at) + 5 * math.sqrt(2 * len(at))


def test_a_pyramid_holds_the_way_to_the_point(pair):
    model, x = pair
    pyramid = model.encode(x)
    torch.testing.assert_close(model.decode(pyramid), x)
    assert torch.equal(pyramid.coarse, model.coarsen(x, 3))
    assert len(pyramid.details) == 3
    for detail, width in zip(pyramid.details, (math.pi / 8, math.pi / 16, math.pi / 16), strict=True):
        assert detail.abs().max() <= width + 1e-12  # to the centres of halves, then to the point
    assert bool((pyramid.details[0].abs() - math.pi / 8).abs().max() < 1e-12)


def test_a_fit_is_kept_on_disk_with_its_choice(pair, tmp_path):
    model, x = pair
    model.save(tmp_path)
    copy = PeriodicDensity.load(tmp_path)
    assert torch.equal(copy.field, model.field)
    assert (copy.spec, copy.length, copy.foretold) == (model.spec, model.length, model.foretold)
    assert torch.equal(copy.log_prob(x), model.log_prob(x))
    assert from_toml(PeriodicDensitySpec, to_toml(model.spec)) == model.spec
    (tmp_path / "model.toml").write_text('cells = 32\nkind = "periodic-density"\n')
    with pytest.raises(CheckpointError, match="holds no field of"):
        PeriodicDensity.load(tmp_path)
    (tmp_path / "model.toml").write_text("cells = 9\n")
    with pytest.raises(CheckpointError, match=r"holds no periodic density: .*power of two"):
        PeriodicDensity.load(tmp_path)
    with pytest.raises(CheckpointError, match=r"there is no model.toml"):
        PeriodicDensity.load(tmp_path / "nowhere")


def test_a_density_that_has_learned_nothing_is_flat(tmp_path):
    model = PeriodicDensity()
    assert float(model.log_prob(torch.zeros(1, 1, 2))) == pytest.approx(-2 * math.log(2 * math.pi))
    model.save(tmp_path)
    assert PeriodicDensity.load(tmp_path).length is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"angles": 3}, "angles must be 1 or 2"),
        ({"cells": 48}, "cells must be a power of two from 8 on"),
        ({"cells": 4}, "cells must be a power of two from 8 on"),
        ({"power": 1.0}, "power must be > angles / 2"),
        ({"length": 0.0}, "length must be > 0 rad"),
        ({"blocks": 1}, "blocks must be >= 2"),
    ],
)
def test_a_spec_refuses_what_is_out_of_range(values, message):
    with pytest.raises(ValueError, match=message):
        PeriodicDensitySpec(**values)


def test_bad_input_is_refused(pair):
    model, x = pair
    with pytest.raises(DataError, match=r"angles have the shape \(batch, 1, 2\), got"):
        model.fit(torch.zeros(9, 2, 2))
    with pytest.raises(DataError, match=r"angles must be in rad, .* got 180"):
        model.log_prob(torch.full((1, 1, 2), 180.0))
    with pytest.raises(DataError, match="angles must be in rad"):
        model.fit(x / 0)
    with pytest.raises(DataError, match="needs at least 5 frames"):
        model.fit(x[:4])
    with pytest.raises(DataError, match="600 samples, got 3"):
        model.fit(x, log_weights=torch.zeros(3))
    with pytest.raises(DataError, match="at least 2 must have weight"):
        model.fit(x, log_weights=torch.where(torch.arange(600) < 100, 0.0, -torch.inf))
    with pytest.raises(DataError, match="no classes"):
        model.sample(1, generator=generator(), condition=torch.zeros(1))
    with pytest.raises(DataError, match="num must be >= 1"):
        model.sample(0, generator=generator())
    with pytest.raises(DataError, match=r"level must be 0 ... 3, got 4"):
        model.coarsen(x, 4)
    with pytest.raises(DataError, match=r"refine goes to a finer level, 0 ... 0, got to = 1"):
        model.refine(x, level=1, to=1, generator=generator())
