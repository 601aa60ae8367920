"""Cascades of a spec, and their runs by the command line: fit, resume, measure, draw; every mistake is one line."""

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

import renorm
from renorm.cascade.build import make_parts, make_steps, site_law
from renorm.cascade.cascade import Cascade
from renorm.cascade.conditionals.heads import SplineHead
from renorm.cascade.conditionals.linear_gaussian import GaussianTop, LinearGaussian
from renorm.cascade.conditionals.local import LocalConditional, SiteTop
from renorm.cascade.conditionals.standardised import Standardised
from renorm.cascade.gaussian import gaussian_cascade
from renorm.cascade.pictures import rendered
from renorm.cascade.spec import BendSpec, CascadeFit, CascadeSpec, EnergySpec, FlowSpec, GaussianSpec, LocalSpec
from renorm.cli import main
from renorm.coarse.wavelet import Wavelet
from renorm.data.spec import DataSpec
from renorm.errors import CheckpointError, DataError, RecipeError
from renorm.lattice import Lattice
from renorm.laws.chain import DoubleWellChain
from renorm.laws.gaussian_field import GaussianField
from renorm.laws.ising import Ising
from renorm.laws.phi4 import Phi4
from renorm.laws.spec import FreeFieldSpec, IsingSpec, LognormalSpec, Phi4Spec
from renorm.recipes import cascade_fit, cascade_run
from renorm.recipes.cascade_measure import _one_sided
from renorm.recipes.observables import exact_answers, field_statistics, observables
from renorm.recipes.run import fit_run, load_run, measure_run
from renorm.recipes.spec import CascadeRecipe, MeasureSpec, load_recipe
from renorm.testing import check_model

SQUARE = Lattice((4, 4), boundary="periodic")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def out_of(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


# Specs, parts, disk


SMALL = LocalSpec(width=4, bins=4)
KINDS = {
    "gaussian": (CascadeSpec(coarse="db2", conditional=GaussianSpec()), None),
    "local": (CascadeSpec(coarse="haar", conditional=SMALL), None),
    "mixture": (CascadeSpec(conditional=LocalSpec(head="mixture", width=4, bins=3), levels=2), None),
    "flow": (CascadeSpec(coarse="learned", conditional=FlowSpec(width=4, rounds=1), levels=1), None),
    "mera": (CascadeSpec(coarse="mera", conditional=SMALL, bend=BendSpec(kind="spline")), None),
    "disentangled": (CascadeSpec(coarse="disentangled", conditional=SMALL, levels=3), None),
    "tied disentangled": (CascadeSpec(coarse="disentangled", conditional=SMALL, tied=True), None),
    "energy": (CascadeSpec(coarse="haar", conditional=EnergySpec(sweeps=10), levels=1), None),
    "spins": (CascadeSpec(conditional=LocalSpec(head="spin", width=4), heat_bath=True), IsingSpec()),
    "phi4": (CascadeSpec(conditional=SMALL, heat_bath=True), Phi4Spec()),
    "positive": (CascadeSpec(coarse="haar", conditional=SMALL, symmetric=False, positive=True), None),
    "tied": (CascadeSpec(conditional=SMALL, tied=True, symmetric=False), None),
    "tied flow": (CascadeSpec(coarse="haar", conditional=FlowSpec(width=4, rounds=1), tied=True), None),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_cascade_of_each_kind_keeps_the_promises_of_the_hallway(name, tmp_path):
    spec, law = KINDS[name]
    x = torch.randn(200, 1, 4, 4, generator=seeded())
    x = x.sign() if spec.spins else x.abs() - 0.9 if spec.positive else x
    model = Cascade.of(spec, SQUARE, law=law).fit(x, spec=CascadeFit(steps=3, batch=16))
    check_model(model, x[:2], tmp_path=tmp_path / "model")
    again = Cascade.load(tmp_path / "model")
    assert torch.equal(again.log_prob(x[:5]), model.log_prob(x[:5]))


def test_a_gaussian_cascade_is_solved_and_read_back_exactly(tmp_path):
    law = GaussianField((8, 8), mass_sq=0.1)
    lattice = Lattice((8, 8), boundary="periodic")
    x = law.sample(4000, generator=seeded())
    model = Cascade.of(CascadeSpec(coarse="haar", conditional=GaussianSpec()), lattice).fit(x)
    test = law.sample(2000, generator=seeded(1))
    lost = (law.log_prob(test) - model.log_prob(test)).double().mean()
    assert 0 < lost < 0.02  # half a nat for each of some tens of spectra, over 4000 samples
    model.save(tmp_path)
    assert torch.equal(Cascade.load(tmp_path).log_prob(test), model.log_prob(test))
    covariance = torch.fft.fftn(law.correlation).to(torch.complex128)[..., None, None]
    exact = gaussian_cascade(lattice, covariance, model.steps)
    blank = Cascade.of(CascadeSpec(coarse="haar", conditional=GaussianSpec()), lattice)
    blank.load_state_dict(exact.state_dict())  # buffers alone make the law
    assert torch.allclose(blank.log_prob(test), law.log_prob(test).double(), atol=1e-4)
    with pytest.raises(DataError, match="every mode needs a variance > 0"):
        GaussianTop.unfitted(1, (4,)).solve(torch.zeros(3, 1, 4), torch.empty(3, 0))
    with pytest.raises(DataError, match="every mode needs a variance > 0"):
        LinearGaussian.unfitted(1, 1, (4,)).solve(torch.zeros(3, 1, 4), torch.randn(3, 1, 4, generator=seeded()))


def test_levels_are_learned_one_by_one_from_their_own_samples():
    """Site by site a Gaussian of another spread and centre at each level; the units are those of the samples."""
    x = 3 + 2 * torch.randn(4000, 1, 2, 2, generator=seeded())
    spec = CascadeSpec(coarse="haar", conditional=SMALL, symmetric=False)
    model = Cascade.of(spec, Lattice((2, 2), boundary="periodic")).fit(x, spec=CascadeFit(steps=1, rate=1e-9))
    exact = -torch.distributions.Normal(3.0, 2.0).log_prob(x).flatten(1).sum(1).mean()
    assert -model.log_prob(x).mean().item() == pytest.approx(float(exact), abs=0.01)
    assert model.top.centre.item() == pytest.approx(6.0, abs=0.1)  # Haar: half the sum of four
    one = Standardised(SiteTop((1, 1), SplineHead(bins=4)), 0, 1, symmetric=True).standardise(
        x[:, :, 0, :1], x[:, 0, 0, :0]
    )
    assert one.centre.item() == 0.0
    assert one.spread.item() == pytest.approx(math.sqrt(13), rel=0.02)


def test_standardised_laws_know_their_density():
    inner = LocalConditional(1, 1, 1, SplineHead(bins=4), width=4).double()
    law = Standardised(inner, 1, 1, symmetric=False).double()
    coarse = 5 + torch.randn(100, 1, 4, dtype=torch.float64, generator=seeded())
    law.standardise(2 * coarse - 1, coarse)
    draw = law.draw(coarse, generator=seeded())
    assert torch.allclose(law.log_prob(draw.value, coarse), draw.log_prob, atol=1e-9)
    grid = torch.linspace(-40, 60, 20_001, dtype=torch.float64).reshape(-1, 1, 1)
    each = law.log_prob(grid, coarse[:1, :, :1].expand(len(grid), -1, -1))
    assert each.exp().sum().item() * 100 / 20_000 == pytest.approx(1.0, abs=1e-6)


def test_a_stage_depends_on_its_place_and_the_seed_alone():
    x = torch.randn(100, 1, 4, 4, generator=seeded())
    spec, fit = CascadeSpec(coarse="haar", conditional=SMALL), CascadeFit(steps=3, batch=8)
    a, b = (Cascade.of(spec, SQUARE) for _ in range(2))
    assert a.stages == 3
    a.fit(x, spec=fit)
    for stage in (2, 0, 1):  # in any order
        b.fit_stage(x, stage, fit)
    assert all(torch.equal(p, q) for p, q in zip(a.state_dict().values(), b.state_dict().values(), strict=True))
    other = Cascade.of(spec, SQUARE).fit(x, spec=replace(fit, seed=1))
    assert not torch.equal(other.log_prob(x), a.log_prob(x))


def test_tied_levels_share_their_weights():
    spec = CascadeSpec(conditional=SMALL, tied=True)
    model = Cascade.of(spec, Lattice((8, 8), boundary="periodic"))
    alone = Cascade.of(replace(spec, tied=False), Lattice((8, 8), boundary="periodic"))
    count = {m: sum(p.numel() for p in m.parameters()) for m in (model, alone)}
    assert 2.9 < count[alone] / count[model] < 3.1
    assert model.conditionals[0].law is model.conditionals[4].law
    assert model.conditionals[0].law is not model.conditionals[1].law
    assert (model.stages, alone.stages) == (1, 7)


def test_tied_flows_share_their_weights_and_keep_their_units():
    """A chain of 4 sites, whose two levels have other spreads: one flow, and each level's law a density by itself."""
    spec = CascadeSpec(coarse="haar", conditional=FlowSpec(width=6, rounds=1, bins=4), tied=True, symmetric=False)
    model = Cascade.of(spec, Lattice((4,), boundary="periodic"))
    x = 2 + torch.randn(500, 1, 4, generator=seeded()).cumsum(-1)
    model.fit(x, spec=CascadeFit(steps=20, batch=64, rate=0.02)).double()
    fine, coarse = model.conditionals
    assert fine.law is coarse.law
    assert fine.spread.item() < 0.9 * coarse.spread.item()
    with torch.no_grad():
        next(fine.law.parameters()).add_(0.3)
        draw = model.draw(50, generator=seeded(1))
        torch.testing.assert_close(model.log_prob(draw.value), draw.log_prob, rtol=0, atol=1e-8)
        torch.testing.assert_close(model.decode(model.encode(draw.value)), draw.value, rtol=0, atol=1e-12)
        for law, sites in ((coarse, 1), (fine, 2)):
            axis = torch.linspace(-20, 20, 4001 if sites == 1 else 401, dtype=torch.float64)
            grid = torch.cartesian_prod(*[axis] * sites).reshape(-1, 1, sites)
            for c in (1.0, 6.0):
                density = law.log_prob(grid, torch.full((len(grid), 1, sites), c, dtype=torch.float64)).exp()
                assert float(density.sum() * axis.diff()[0] ** sites) == pytest.approx(1, abs=1e-3)


def test_steps_are_as_many_as_the_lattice_allows():
    assert len(make_steps(CascadeSpec(coarse="haar"), Lattice((12, 8), boundary="periodic"))) == 2
    assert len(make_steps(CascadeSpec(), Lattice((8, 8), boundary="periodic"))) == 6
    assert len(make_steps(CascadeSpec(levels=3), Lattice((8, 8), boundary="periodic"))) == 3
    assert len(make_steps(CascadeSpec(coarse="haar"), Lattice((8, 8, 8)))) == 3
    site = site_law(FreeFieldSpec(mass_sq=0.2))
    h, phi = torch.tensor([1.3], dtype=torch.float64), torch.tensor([0.4], dtype=torch.float64)
    law = torch.distributions.Normal(1.3 / 4.2, (1 / 4.2) ** 0.5)  # of a site of a free field, given its neighbours
    assert site.log_prob(phi, h).item() == pytest.approx(law.log_prob(phi).item(), abs=1e-6)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"coarse": "haar", "heat_bath": True}, "heat_bath needs coarse = 'checkerboard' .* got 'haar'"),
        ({"coarse": "haar", "conditional": LocalSpec(head="spin")}, "spins need coarse = 'checkerboard'"),
        ({"levels": 0}, "levels must be >= 1 step, got 0"),
        ({"tied": True, "conditional": GaussianSpec()}, "tied needs a conditional that serves lattices of every size"),
        ({"coarse": "learned", "conditional": GaussianSpec()}, "learned step is trained along"),
        ({"coarse": "mera", "conditional": GaussianSpec()}, "learned step is trained along"),
        ({"coarse": "haar", "positive": True}, "positive needs symmetric = false"),
        ({"conditional": EnergySpec()}, "local energies need a wavelet"),
    ],
)
def test_specs_say_what_does_not_go_together(values, words):
    with pytest.raises(ValueError, match=words):
        CascadeSpec(**values)


@pytest.mark.parametrize(
    ("spec", "lattice", "law", "words"),
    [
        (CascadeSpec(), Lattice((5, 5), boundary="periodic"), None, "every axis must have a multiple of 2 sites"),
        (CascadeSpec(coarse="haar"), Lattice((1, 1), boundary="periodic"), None, "multiple of 2 sites"),
        (CascadeSpec(), Lattice((4, 4)), None, "a checkerboard is a periodic lattice"),
        (CascadeSpec(coarse="db4"), Lattice((4, 4)), None, "must be periodic"),
        (CascadeSpec(coarse="haar", levels=3), SQUARE, None, r"levels = 3 is too many for \(4, 4\)"),
        (CascadeSpec(coarse="haar", conditional=GaussianSpec()), Lattice((4, 4)), None, "need a periodic lattice"),
        (CascadeSpec(heat_bath=True), SQUARE, None, "got data without a law"),
        (CascadeSpec(heat_bath=True), SQUARE, LognormalSpec(), "got 'lognormal'"),
        (CascadeSpec(), SQUARE, IsingSpec(), "head = 'spin'"),
        (CascadeSpec(conditional=LocalSpec(head="spin")), SQUARE, Phi4Spec(), "head = 'spin' is for spins"),
    ],
)
def test_lattices_and_laws_that_a_cascade_cannot_have(spec, lattice, law, words):
    with pytest.raises(RecipeError, match=words):
        make_parts(spec, lattice, law)


def test_a_cascade_put_together_by_hand_has_no_file(tmp_path):
    model = Cascade(
        Lattice((2,)), [Wavelet(dim=1)], [LocalConditional(1, 1, 1, SplineHead())], SiteTop((1, 1), SplineHead())
    )
    with pytest.raises(RecipeError, match="only a cascade of a spec can be saved"):
        model.save(tmp_path)
    with pytest.raises(CheckpointError, match=r"holds no cascade .there is no model.toml"):
        Cascade.load(tmp_path)
    (tmp_path / "model.toml").write_text("kind = 'token-hierarchy'")
    with pytest.raises(CheckpointError, match="holds no cascade"):
        Cascade.load(tmp_path)


def test_coarse_fields_are_shown_on_the_finest_lattice():
    model = Cascade.of(CascadeSpec(conditional=SMALL), SQUARE)
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert rendered(model, model.coarsen(x, 2), 2)[0, 0, 0].tolist() == [0.0, 0.0, 2.0, 2.0]
    for level in range(5):
        y = model.coarsen(x, level)
        shown = rendered(model, y, level)
        assert shown.shape == x.shape
        assert torch.equal(model.coarsen(shown, level), y)


# Runs


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cascade")
    changes = ["fit.steps=120", "data.number=4000", "measure.samples=2000", "model.conditional.width=8"]
    sets = [word for change in changes for word in ("--set", change)]
    assert main(["fit", "recipes/ising4.toml", "--out", str(folder / "run"), "--quiet", *sets]) == 0
    return folder / "run"


def test_a_ring_of_double_wells_from_its_energy(tmp_path, capsys):
    changes = ["fit.steps=120", "data.number=2000", "measure.samples=2000", "model.conditional.width=8"]
    sets = [word for change in changes for word in ("--set", change)]
    assert out_of(capsys, "fit", "wells32", "--out", tmp_path / "run", "--quiet", *sets)[0] == 0
    code, out, _ = out_of(capsys, "measure", tmp_path / "run", "--json", "--quiet")
    figures = json.loads(out)
    assert code == 0
    assert figures["log_z_exact"] == pytest.approx(DoubleWellChain(32, 1.0, 1.0).log_z)
    assert abs(figures["log_z_bar"] - figures["log_z_exact"]) < 5 * figures["log_z_bar_error"] + 1e-3
    assert figures["log_z_lower"] < figures["log_z_exact"] < figures["log_z_upper"]


def test_spins_from_their_action_meet_exact_answers(fitted, capsys):
    code, out, _ = out_of(capsys, "measure", fitted, "--json", "--quiet")
    figures = json.loads(out)
    assert code == 0
    assert figures["log_z_exact"] == pytest.approx(15.521915458755283, abs=1e-9)
    assert abs(figures["log_z"] - figures["log_z_exact"]) < 4 * figures["log_z_error"] + 1e-3
    assert figures["log_z_lower"] < figures["log_z_exact"] + 4 * figures["log_z_lower_error"]
    assert figures["log_z_upper"] > figures["log_z_exact"] - 4 * figures["log_z_upper_error"]
    assert abs(figures["log_z_bar"] - figures["log_z_exact"]) < 4 * figures["log_z_bar_error"] + 1e-3
    assert figures["ess"] > 0.5
    assert figures["acceptance"] > 0.5
    measured = json.loads((fitted / "measures.json").read_text())
    rows = {row["name"]: row for row in measured["observables"]}
    assert rows["chi"]["exact"] == pytest.approx(16 * 0.7613589085686718, abs=1e-6)
    assert rows["abs_m"]["exact"] == pytest.approx(0.8438604448134195, abs=1e-6)
    assert rows["binder"]["exact"] == pytest.approx(0.6171993184124585, abs=1e-6)
    for name in ("chi", "abs_m", "binder", "neighbour_product"):
        assert abs(rows[name]["value"] - rows[name]["exact"]) < 4.5 * rows[name]["error"], name
        assert abs(rows[name]["reference"] - rows[name]["exact"]) < 4.5 * rows[name]["reference_error"], name
    assert not {"collapsed", "mode_lost", "both_ends"} & measured["notes"].keys()
    nats = np.load(fitted / "samples" / "levels.npz")
    total = (nats["nats"] * nats["numbers"]).sum() / 16
    assert total == pytest.approx(figures["nats_per_site"], abs=1e-9)
    page = (fitted / "report.html").read_text(encoding="utf-8")
    for heading in ("Observables", "Log weights", "Nats of each level", "From coarse to fine", "Loss"):
        assert f">{heading}</h2>" in page
    assert "left out" not in page
    assert "A cascade of checkerboards (local conditionals, exact heat bath at the finest level)" in page
    np.savez(fitted / "samples" / "couplings.npz", K1=[0.44, 0.4], K1_error=[0.0, 0.01], K2=[0.0, 0.1])
    assert out_of(capsys, "report", fitted)[0] == 0
    assert ">Flow of couplings</h2>" in (fitted / "report.html").read_text(encoding="utf-8")
    (fitted / "samples" / "couplings.npz").unlink()
    assert out_of(capsys, "report", fitted)[0] == 0
    assert "couplings" not in (fitted / "report.html").read_text(encoding="utf-8")
    encoded = np.load(fitted / "samples" / "encoded.npz")
    assert encoded["sees"].shape == encoded["moves"].shape == (4, 4, 4)
    assert encoded["swapped"].shape == (5, 4, 4)
    assert (encoded["sees"].reshape(4, -1).sum(1) == 1).all()  # of a checkerboard a coarse site is a fine one
    field, other = encoded["field"], encoded["other"]
    assert ((encoded["swapped"] == field) | (encoded["swapped"] == other)).all()
    assert ">What each level encodes</h2>" in page


def test_draws_refinements_and_the_flow(fitted, tmp_path, capsys):
    assert out_of(capsys, "sample", fitted, "-n", 6, "--npz", "--out", tmp_path / "x.npz")[0] == 0
    x = np.load(tmp_path / "x.npz")["x"]
    assert x.shape == (6, 1, 4, 4)
    assert set(np.unique(x)) == {-1.0, 1.0}
    assert out_of(capsys, "sample", fitted, "-n", 3, "--level", 1)[0] == 0
    code, _, err = out_of(capsys, "refine", fitted, "-n", 3, "--level", 2, "--out", tmp_path / "y.npz")
    assert (code, err) == (0, "")
    arrays = np.load(tmp_path / "y.npz")
    assert (arrays["x"][:, :, ::2, ::2] == arrays["coarse"]).all()
    assert out_of(capsys, "flow", fitted)[0] == 0
    np.save(tmp_path / "field.npy", np.ones((2, 1, 4, 4), np.float32))
    assert out_of(capsys, "refine", fitted, "--input", tmp_path / "field.npy")[0] == 0
    np.save(tmp_path / "other.npy", np.ones((2, 1, 6, 6), np.float32))
    for arguments, words in [
        (["refine", "--input", tmp_path / "other.npy"], r"shape \(batch, 1, 4, 4\), got"),
        (["sample", "--label", 1], "no classes"),
        (["sample", "--steps", 5], "steps are for the walk of a diffusion"),
        (["sample", "--sampler", "ddim"], "for the walk of a diffusion"),
        (["sample", "--level", 9], r"level must be 0 \.\.\. 4, got 9"),
        (["measure", "--steps", 3], "steps are for the walk of a diffusion"),
        (["compress"], "holds no token hierarchy"),
    ]:
        code, _, err = out_of(capsys, arguments[0], fitted, *arguments[1:])
        assert (code, err.count("\n")) == (2, 1), err
        assert re.search(words, err), err


def test_options_of_other_wings_are_refused(tmp_path, capsys):
    for arguments, words in [
        (["--schedule", "rgdm"], "--schedule is for diffusions; this recipe is of the wing 'cascade'"),
        (["--set", "data.flip=true"], "data.flip must be false in a recipe of cascades"),
        (["--set", "measure.steps=5"], "measure.steps must not be set"),
        (["--set", "fit.grow=true"], "grow needs a square lattice|power of two"),
        (["--set", "data.shape=[3,3]"], "multiple of 2 sites"),
        (["--set", "data.shape=[1,1]"], "sides >= 2|multiple of 2"),
        (["--set", "data.law.beta=-1.0"], "beta must be >= 0"),
        (["--set", "data.boundary=open"], "boundary must be 'periodic'"),
        (["--set", "model.heat_bath=false", "--set", "fit.teacher=chain"], "teacher = 'chain' needs model.heat_bath"),
        (["--set", "model.conditional={kind='gaussian'}"], "heat_bath needs a conditional that is trained"),
        (["--set", "data={name='law', boundary='periodic', law={kind='phi4', lam=-1.0}}"], "lam must be >= 0"),
        (["--set", "data={name='digits'}"], "needs data of a law with an action"),
    ]:
        out = tmp_path / "run"
        if "fit.grow=true" in arguments:
            arguments = [*arguments, "--set", "data.shape=[6,6]"]
        code, _, err = out_of(capsys, "fit", "ising4", "--out", out, "--quiet", *arguments)
        assert (code, err.count("\n")) == (2, 1), (arguments, err)
        assert re.search(words, err), (arguments, err)
        assert not (out / "manifest.json").exists()


def tiny(**changes):
    """Free fields on four by four sites, learned by three levels of wavelets."""
    recipe = CascadeRecipe(
        data=DataSpec("law", shape=(4, 4), boundary="periodic", number=300, law=FreeFieldSpec(mass_sq=0.5)),
        model=CascadeSpec(coarse="haar", conditional=SMALL),
        fit=CascadeFit(steps=4, batch=16),
        measure=MeasureSpec(samples=200),
    )
    return replace(recipe, **changes)


@pytest.mark.parametrize("kind", ["levels", "grown"])
def test_a_run_that_was_killed_goes_on_to_the_same_model(kind, tmp_path, monkeypatch):
    recipe = tiny()
    if kind == "grown":
        spins = LocalSpec(head="spin", width=4)
        recipe = CascadeRecipe(
            data=DataSpec("law", shape=(8, 8), boundary="periodic", law=IsingSpec()),
            model=CascadeSpec(conditional=spins, heat_bath=True),
            fit=CascadeFit(teacher="chain", grow=True, steps=3, small_steps=4, batch=8, chains=16, every=2),
        )
    whole = fit_run(recipe, tmp_path / "whole", progress=False)
    real, calls = cascade_run.run_stage, []

    def killed(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(cascade_run, "run_stage", killed)
    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        fit_run(recipe, run, progress=False)
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="not finished"):
        load_run(run)
    with pytest.raises(CheckpointError, match="already holds a run"):
        fit_run(recipe, run, progress=False)
    with pytest.raises(CheckpointError, match=r"fit\.steps was \d, is 9"):
        fit_run(replace(recipe, fit=replace(recipe.fit, steps=9)), run, resume=True, progress=False)
    again = fit_run(recipe, run, resume=True, progress=False)
    ours, theirs = again.state_dict(), whole.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    lines = [(path / "metrics.jsonl").read_text() for path in (run, tmp_path / "whole")]
    assert lines[0] == lines[1]
    assert json.loads((run / "manifest.json").read_text())["seconds"] > 0
    assert torch.equal(load_run(run).sample(3, generator=seeded()), whole.sample(3, generator=seeded()))


def test_a_grown_cascade_begins_at_the_smaller_ones_levels():
    recipe = load_recipe("ising16", {"data.shape": [8, 8], "model.conditional.width": 4, "model.tied": True})
    stages = cascade_fit.plan(recipe, cascade_fit.begin(recipe, Lattice((8, 8), boundary="periodic")))
    assert [(stage.shape, stage.steps) for stage in stages] == [
        ((4, 4), recipe.fit.small_steps),
        ((8, 8), recipe.fit.steps),
    ]
    small = cascade_fit.begin(recipe, SQUARE)
    torch.nn.init.constant_(small.top.theta, 0.3)
    for part in small.conditionals[1:]:
        for parameter in part.parameters():
            torch.nn.init.normal_(parameter, std=0.2, generator=seeded(1))
    large = cascade_fit.grown(small, recipe, (8, 8))
    assert large.lattice.shape == (8, 8)
    assert torch.equal(large.top.theta, small.top.theta)
    assert cascade_fit.grown(large, recipe, (8, 8)) is large
    x = small.sample(5, generator=seeded(), level=2)  # straight lattices of 2 x 2 sites: the law of the coarse levels
    assert torch.allclose(large.log_prob_level(x, 4), small.log_prob_level(x, 2), atol=1e-6)


def test_own_maps_are_measured_beside_test_fields(tmp_path, capsys):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "maps.npy", rng.exponential(1.0, (400, 1, 4, 4)).astype(np.float32))
    recipe = tiny(
        data=DataSpec("array", path=str(tmp_path / "maps.npy"), boundary="periodic"),
        model=CascadeSpec(conditional=SMALL, symmetric=False),
        fit=CascadeFit(steps=10, batch=32),
    )
    fit_run(recipe, tmp_path / "run", progress=False)
    figures = measure_run(tmp_path / "run")["figures"]
    assert {"nats_per_site", "ks_p", "skewness", "peaks_1"} <= figures.keys()
    assert "log_z" not in figures
    assert out_of(capsys, "report", tmp_path / "run")[0] == 0
    assert "left out" not in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    spins = tiny(data=recipe.data, model=CascadeSpec(conditional=LocalSpec(head="spin")))
    with pytest.raises(DataError, match="is for fields of \\+1 and -1"):
        fit_run(spins, tmp_path / "spins", progress=False)
    assert not (tmp_path / "spins").exists()


def test_bytes_have_a_density_once_they_are_spread(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (1200, 1, 4, 4)).astype(np.uint8)
    np.save(tmp_path / "pixels.npy", pixels)
    recipe = tiny(
        data=DataSpec("array", path=str(tmp_path / "pixels.npy"), boundary="periodic"),
        model=CascadeSpec(coarse="haar", conditional=GaussianSpec()),
    )
    fit_run(recipe, tmp_path / "run", progress=False)
    bits = measure_run(tmp_path / "run")["figures"]["bits_per_dim"]
    gaussian = 8 + 0.5 * math.log2(2 * math.pi * math.e / 12)  # white noise of the variance of a uniform byte
    assert bits == pytest.approx(gaussian, abs=0.1)


def test_a_collapsed_fit_is_said_aloud(tmp_path, capsys):
    changes = {"data.shape": [16, 16], "data.number": 200, "fit.steps": 1, "fit.small_steps": 1, "fit.grow": False}
    changes |= {"model.conditional.width": 4, "fit.chains": 4, "fit.batch": 4, "measure.samples": 10_000}
    run = tmp_path / "run"
    fit_run(load_recipe("ising16", changes), run, progress=False)
    measured = measure_run(run)
    assert measured["figures"]["ess"] < 1e-3
    assert "misses the law" in measured["notes"]["collapsed"]
    assert out_of(capsys, "report", run)[0] == 0
    assert '<p class="alarm"><strong>Collapsed fit</strong>' in (run / "report.html").read_text(encoding="utf-8")
    recipe = load_recipe("phi4-16")
    up = torch.ones(100, 1, 4, 4)
    assert "one of its two modes is lost" in _one_sided(recipe, up)["mode_lost"]
    assert _one_sided(recipe, torch.cat([up, -up])) == {}


def test_exact_answers_are_those_of_the_law():
    ising = exact_answers(Ising((4, 4), 0.44068679350977147))
    states = Ising((4, 4), 0.44068679350977147).enumerate()
    bonds = states.mean(lambda s: (s * (s.roll(1, -1) + s.roll(1, -2))).flatten(1).mean(1))
    assert ising["neighbour_product"] == pytest.approx(bonds, abs=1e-6)
    phi4 = exact_answers(Phi4((4, 4), 0.34, 1.0))
    assert phi4["log_z"] == pytest.approx(20.089925184, abs=1e-6)
    assert phi4["phi_sq"] == pytest.approx(0.86397796, abs=1e-6)
    assert exact_answers(Phi4((8, 8), 0.34, 1.0)) == {}
    law = GaussianField((4, 4), mass_sq=0.3)
    x = law.sample(4000, generator=seeded())
    rows = {
        o.name: o for o in observables(x, x[:2000], FreeFieldSpec(mass_sq=0.3), exact_answers(law), torch.zeros(4000))
    }
    for name in ("chi", "phi_sq", "phi_4", "binder"):
        assert abs(rows[name].value - rows[name].exact) < 4.5 * rows[name].error, name


def test_statistics_of_equal_fields_agree_and_of_others_do_not():
    lattice = Lattice((16, 16), boundary="periodic")
    a, b = (torch.empty(300, 1, 16, 16).exponential_(generator=seeded(k)) for k in (0, 1))
    same = {o.name: o for o in field_statistics(a, b, lattice)}
    assert same["ks_p"].value > 1e-3
    assert abs(same["skewness"].value - same["skewness"].reference) < 5 * math.hypot(
        same["skewness"].error, same["skewness"].reference_error
    )
    assert same["bispectrum_ratio"].value == pytest.approx(1.0, abs=0.3)
    other = {o.name: o for o in field_statistics(1 + torch.randn(300, 1, 16, 16, generator=seeded()), b, lattice)}
    assert other["ks_p"].value < 1e-3
    assert abs(other["skewness"].value) < 0.1


def test_the_face_has_cascades():
    assert renorm.Cascade is Cascade
    assert isinstance(renorm.load_recipe("lognormal64"), renorm.CascadeRecipe)
