"""A diffusion as a cascade's conditional: exact for Gaussian details, told of the coarse field, without a density."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from renorm.bases import basis_for
from renorm.cascade.cascade import Cascade
from renorm.cascade.learning.levels import fit_level
from renorm.cascade.spec import CascadeFit, CascadeSpec, DiffusionPartSpec
from renorm.cli import main
from renorm.errors import CheckpointError, NoLikelihoodError, RecipeError
from renorm.lattice import Lattice
from renorm.model import Grade
from renorm.recipes import cascade_run
from renorm.recipes.diffusion_conditional import MAKERS, DiffusionConditional
from renorm.recipes.run import fit_run, load_run
from renorm.recipes.spec import load_recipe
from renorm.spec import from_mapping
from renorm.testing import check_model

SMALL = DiffusionPartSpec(width=4, multipliers=(1, 2), steps=3)
SPEC = CascadeSpec(coarse="haar", conditional=SMALL)
SQUARE = Lattice((4, 4), boundary="periodic")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(autouse=True)
def same_weights():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def coloured(num, at, generator, scale, mean):
    """Gaussian details of one spectrum, whose channels differ by a factor; and that spectrum, of mean 1."""
    spectrum = 1 / (0.5 + at.k_sq())
    spectrum = spectrum / spectrum.mean()
    white = torch.randn(num, *at.event_shape, generator=generator)
    return basis_for(at).inverse(spectrum.sqrt().float() * white) * scale + mean, spectrum


@pytest.mark.parametrize("boundary", ["periodic", "open"])
def test_gaussian_details_are_drawn_with_their_mean_spread_and_spectrum_before_anything_is_trained(boundary):
    at = Lattice((8,), boundary, 2)
    scale, num = torch.tensor([[3.0], [0.2]]), 1000
    law = DiffusionConditional(replace(SMALL, steps=20), Lattice((8,), boundary), 2, symmetric=False)
    y, spectrum = coloured(10000, at, seeded(), scale, 5 * scale)
    law.standardise(y, torch.randn(10000, 1, 8, generator=seeded(1)))
    drawn = law.sample(7 * torch.randn(num, 1, 8, generator=seeded(2)), generator=seeded(3)) / scale
    # Standard errors of the draws; 2 % are for the samples behind the moments, and for the steps of the walk.
    assert (drawn.mean((0, 2)) - 5).abs().max() < 4 * (float(spectrum.max()) / (8 * num)) ** 0.5 + 0.02
    error = (2 * float(spectrum.square().mean()) / (8 * num)) ** 0.5
    assert ((drawn - 5).square().mean((0, 2)) - 1).abs().max() < 4 * error + 0.02
    ratio = basis_for(at).forward(drawn - 5).square().mean((0, 1)) / spectrum
    assert (ratio - 1).abs().max() < 4 * (2 / (2 * num)) ** 0.5 + 0.02


def test_a_linear_conditional_is_learned():
    at = Lattice((4,), "periodic")
    coarse = 2 * torch.randn(4000, 1, 4, generator=seeded())
    detail = 0.4 * coarse + 0.6 * torch.randn(4000, 1, 4, generator=seeded(1))  # 0.64 of the variance is the coarse one
    law = DiffusionConditional(DiffusionPartSpec(width=8, multipliers=(1,), steps=10), at, 1)
    size = {"steps": 120, "batch": 128, "rate": 1e-2}
    trained = fit_level(law, detail, coarse, **size, generator=seeded(2))
    assert np.mean(trained.losses[-50:]) < 0.8 * np.mean(trained.losses[:5])
    told = 2 * torch.randn(1000, 1, 4, generator=seeded(3))
    drawn = law.sample(told, generator=seeded(4))
    slope = float((drawn * told).mean() / told.square().mean())
    rest = float((drawn - slope * told).std())
    assert slope == pytest.approx(0.4, abs=0.04)
    assert rest == pytest.approx(0.6, abs=0.06)


@pytest.mark.parametrize("symmetric", [True, False])
def test_a_symmetric_law_is_symmetric_by_construction(symmetric):
    law = DiffusionConditional(SMALL, SQUARE, 3, symmetric=symmetric)
    with torch.no_grad():
        for weight in law.parameters():
            weight.copy_(torch.randn(weight.shape, generator=seeded(1)) / 5)
    x, c = (torch.randn(5, n, 4, 4, generator=seeded(n)) for n in (3, 1))
    t = torch.rand(5, generator=seeded())
    with law.network.seeing(c):
        here = law.network(x, t)
    with law.network.seeing(-c):
        mirrored = law.network(-x, t)
    assert torch.allclose(here, -mirrored, atol=1e-5) is symmetric
    with law.network.seeing(c.flip(0)):
        assert not torch.allclose(law.network(x, t), here, atol=1e-3)  # the coarse field is looked at


@pytest.mark.parametrize("shape", [(1,), (3,), (1, 1), (2, 2), (3, 6), (4, 4)])
@pytest.mark.parametrize("boundary", ["periodic", "open"])
def test_small_and_odd_lattices_take_a_network_of_fewer_levels(shape, boundary):
    law = DiffusionConditional(replace(SMALL, multipliers=(1, 2, 2)), Lattice(shape, boundary), 1)
    law.standardise(torch.randn(50, 1, *shape, generator=seeded()), torch.randn(50, 1, *shape, generator=seeded(1)))
    coarse = torch.randn(2, 1, *shape, generator=seeded(2))
    assert torch.isfinite(law.sample(coarse, generator=seeded())).all()
    loss = law.loss(coarse, coarse, generator=seeded())
    loss.mean().backward()
    assert loss.shape == (2,)
    assert all(torch.isfinite(p.grad).all() for p in law.parameters() if p.grad is not None)


def test_moments_are_kept_with_the_weights_and_draws_follow_the_generator():
    at = Lattice((8,), "periodic")
    law, again = (DiffusionConditional(SMALL, at, 1, symmetric=False) for _ in range(2))
    coarse = 3 + torch.randn(300, 1, 8, generator=seeded(1))
    law.standardise(4 * torch.randn(300, 1, 8, generator=seeded()).cumsum(-1) + 2, coarse)
    drawn = law.sample(coarse[:5], generator=seeded(2))
    assert torch.equal(law.sample(coarse[:5], generator=seeded(2)), drawn)
    assert not torch.equal(law.sample(coarse[:5], generator=seeded(3)), drawn)
    assert not torch.allclose(again.sample(coarse[:5], generator=seeded(2)), drawn)
    again.load_state_dict(law.state_dict())
    assert torch.equal(again.sample(coarse[:5], generator=seeded(2)), drawn)
    assert again.diffusion.moments.spectrum is again.spectrum


def test_details_that_never_move_stay_where_they_are():
    law = DiffusionConditional(replace(SMALL, steps=20), Lattice((4,), "periodic"), 1)
    law.standardise(torch.zeros(9, 1, 4), torch.ones(9, 1, 4))
    drawn = law.sample(torch.ones(9, 1, 4), generator=seeded())
    assert drawn.abs().max() < 0.1  # in units of 1


# In a cascade


def test_a_cascade_with_a_diffusion_keeps_the_promises_of_the_hallway_without_a_likelihood(tmp_path):
    x = torch.randn(100, 1, 4, 4, generator=seeded())
    model = Cascade.of(SPEC, SQUARE, makers=MAKERS).fit(x, spec=CascadeFit(steps=2, batch=16))
    check_model(model, x[:20], tmp_path=tmp_path / "model", load=lambda path: Cascade.load(path, makers=MAKERS))
    assert model.grade is Grade.NONE
    with pytest.raises(NoLikelihoodError, match="has no density"):
        model.log_prob(x)
    with pytest.raises(NoLikelihoodError, match="weights need exact densities"):
        model.weigh(lambda fields: fields.flatten(1).sum(1), 5, generator=seeded())
    assert model.log_prob_level(model.coarsen(x, 2), 2).isfinite().all()  # the top alone has one
    model.save(tmp_path)
    again = Cascade.load(tmp_path, makers=MAKERS)
    assert torch.equal(again.sample(5, generator=seeded()), model.sample(5, generator=seeded()))
    with pytest.raises(RecipeError, match="needs its maker"):
        Cascade.load(tmp_path)


def test_draws_of_a_refined_field_keep_it_and_differ():
    x = torch.randn(100, 1, 4, 4, generator=seeded())
    model = Cascade.of(SPEC, SQUARE, makers=MAKERS, seed=3).fit(x, spec=CascadeFit(steps=2, batch=16))
    coarse = model.coarsen(x[:1], 1).expand(6, -1, -1, -1)
    fine = model.refine(coarse, level=1, generator=seeded())
    assert torch.allclose(model.coarsen(fine, 1), coarse, atol=1e-5)
    assert fine.std(0).min() > 0.05


def test_what_does_not_go_together_is_refused():
    law = {"kind": "diffusion", "width": 8, "multipliers": [1, 1], "steps": 5}
    spec = from_mapping(CascadeSpec, {"coarse": "db2", "conditional": law})
    assert spec.conditional == DiffusionPartSpec(width=8, multipliers=(1, 1), steps=5)
    for wrong in ({}, {"coarse": "learned"}, {"coarse": "haar", "tied": True}, {"heat_bath": True}):
        with pytest.raises(RecipeError, match=r"'diffusion'|wavelet"):
            from_mapping(CascadeSpec, {**wrong, "conditional": law})
    for key, value in (("width", 3), ("multipliers", []), ("steps", 0), ("blocks", 0)):
        with pytest.raises(RecipeError, match=key):
            from_mapping(CascadeSpec, {"coarse": "haar", "conditional": {**law, key: value}})


RECIPE = """
wing = "cascade"
[data]
name = "gaussian"
shape = [4, 4]
number = 120
boundary = "periodic"
[model]
coarse = "haar"
symmetric = false
[model.conditional]
kind = "diffusion"
width = 4
multipliers = [1]
steps = 2
[fit]
steps = 4
batch = 16
[measure]
samples = 30
"""


def test_a_recipe_with_a_diffusion_runs_by_the_command_line(tmp_path, capsys):
    (tmp_path / "r.toml").write_text(RECIPE)
    run = tmp_path / "run"
    for command in (
        ["fit", tmp_path / "r.toml", "--out", run],
        ["sample", run, "-n", 4, "--out", tmp_path / "a.npz"],
        ["refine", run, "--level", 1, "-n", 3, "--out", tmp_path / "b.npz"],
        ["flow", run],
        ["measure", run],
    ):
        assert main([*map(str, command), "--quiet"]) == 0, capsys.readouterr().err
    assert np.load(tmp_path / "a.npz")["x"].shape == (4, 1, 4, 4)
    measured = json.loads((run / "measures.json").read_text())
    assert "without a density" in measured["notes"]["likelihood"]
    assert not {"nats_per_site", "log_z", "ess"} & measured["figures"].keys()
    assert "without a density" in (run / "report.html").read_text()
    x = load_run(run).sample(4, generator=seeded())
    assert np.array_equal(np.load(tmp_path / "a.npz")["x"], x.numpy())
    law = {"data.name": "law", "data.law": {"kind": "phi4"}}
    with pytest.raises(RecipeError, match="trains by gradient"):  # an action needs a density
        load_recipe(str(tmp_path / "r.toml"), {**law, "fit.teacher": "action"})


def test_a_killed_fit_with_a_diffusion_resumes_to_the_same_draws(tmp_path, monkeypatch):
    (tmp_path / "r.toml").write_text(RECIPE)
    recipe = load_recipe(str(tmp_path / "r.toml"))
    whole = fit_run(recipe, tmp_path / "whole", progress=False)
    stage, real = [], cascade_run.run_stage

    def killed(*arguments):
        stage.append(1)
        if len(stage) == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(cascade_run, "run_stage", killed)
    with pytest.raises(KeyboardInterrupt):
        fit_run(recipe, tmp_path / "cut", progress=False)
    with pytest.raises(CheckpointError, match="not finished"):
        load_run(tmp_path / "cut")
    resumed = fit_run(recipe, tmp_path / "cut", resume=True, progress=False)
    assert torch.equal(resumed.sample(3, generator=seeded()), whole.sample(3, generator=seeded()))
