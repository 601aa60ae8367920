"""Molecules and clusters from recipes: laws, simulations, parts, runs, backmapping, surfaces; mistakes are one line."""

import json
import math

import numpy as np
import pytest
import torch

from renorm.cascade.backmapping import allowed_draws, moved_at_fixed_beads
from renorm.cascade.build import make_steps
from renorm.cascade.cascade import Cascade
from renorm.cascade.clusters.cluster_model import ClusterModel
from renorm.cascade.clusters.spec import ClusterFit, ClusterSpec
from renorm.cascade.evidence import evidence_of
from renorm.cascade.rings import gaussian_beads
from renorm.cascade.spec import BackmapSpec, BeadsSpec, CascadeFit, CascadeSpec, GaussianSpec
from renorm.cascade.weighing import Weighted
from renorm.cli import main
from renorm.coarse.beads import bead_steps
from renorm.data import load
from renorm.data.spec import DataSpec
from renorm.errors import CheckpointError, DataError, NoLikelihoodError, RecipeError
from renorm.graph import Graph
from renorm.lattice import Lattice
from renorm.laws.build import lattice_of, make_law
from renorm.laws.fene import FenePolymer
from renorm.laws.muller_brown import MullerBrown
from renorm.laws.particles import DoubleWellCluster, LennardJonesCluster
from renorm.laws.rouse import GaussianChain
from renorm.laws.simulate import simulate
from renorm.laws.simulate_molecules import crystal
from renorm.laws.spec import (
    DoubleWellClusterSpec,
    FeneSpec,
    GaussianChainSpec,
    LennardJonesSpec,
    MullerBrownSpec,
)
from renorm.recipes.molecule_measure import bonds_of, molecule_observables, shapes
from renorm.recipes.spec import CascadeRecipe, ClustersRecipe, load_recipe
from renorm.recipes.torsions_run import minima
from renorm.report.molecule_figures import molecule_grid, molecule_strip, shapes_figure
from renorm.testing import check_model


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def out_of(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


def within(values, exact, sigmas=4.0):
    values = values.double()
    return abs(float(values.mean()) - exact) < sigmas * float(values.std()) / len(values) ** 0.5


# -- laws and their simulations ----------------------------------------------------------------------------------------


def test_specs_make_their_laws():
    assert make_law(GaussianChainSpec(bond=2.0), (8,)) == GaussianChain(8, 2.0)
    assert make_law(FeneSpec(), (8,)) == FenePolymer(8)
    assert make_law(DoubleWellClusterSpec(), (4,)) == DoubleWellCluster()
    assert make_law(LennardJonesSpec(), (13,)) == LennardJonesCluster()
    assert make_law(MullerBrownSpec(), (2,)) == MullerBrown(15.0)
    assert lattice_of(GaussianChainSpec(ring=True, dim=2), (6,)) == Lattice((6,), "periodic", 2)
    assert lattice_of(MullerBrownSpec(), (2,)) == Lattice((2,))


@pytest.mark.parametrize(
    ("spec", "shape", "match"),
    [
        (FeneSpec(), (1,), "one axis of 2 or more for a chain"),
        (LennardJonesSpec(), (3, 3), "one axis of 2 or more for a cluster"),
        (MullerBrownSpec(), (3,), r"shape must be \[2\]"),
    ],
)
def test_laws_that_do_not_live_there(spec, shape, match):
    with pytest.raises(RecipeError, match=match):
        make_law(spec, shape)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: GaussianChainSpec(bond=0.0),
        lambda: GaussianChainSpec(spread=math.inf),
        lambda: FeneSpec(reach=1.0),
        lambda: DoubleWellClusterSpec(c=0.0),
        lambda: DoubleWellClusterSpec(a=math.nan),
        lambda: LennardJonesSpec(rm=-1.0),
        lambda: MullerBrownSpec(temperature=0.0),
    ],
)
def test_laws_out_of_range(wrong):
    with pytest.raises(ValueError, match="must be"):
        wrong()


def test_a_ring_is_periodic_and_a_chain_open():
    ring = DataSpec("law", shape=(6,), boundary="periodic", law=GaussianChainSpec(ring=True), number=20)
    assert load(ring).lattice == Lattice((6,), "periodic", 3)
    for boundary, law in (("open", GaussianChainSpec(ring=True)), ("periodic", FeneSpec())):
        with pytest.raises(RecipeError, match=r"data\.boundary must be"):
            DataSpec("law", shape=(6,), boundary=boundary, law=law)


def test_clusters_keep_the_virial_theorem():
    r"""$\langle x \cdot \nabla U\rangle$ is the number of components, centre taken off."""
    for law, num, burn in ((DoubleWellCluster(), 2000, 150), (LennardJonesCluster(4), 1000, 100)):
        x = simulate(law, num, generator=seeded(), burn_in=burn, thin=10)
        x = x - x.mean(2, keepdim=True)
        virial = (x * law.grad(x)).flatten(1).sum(1)
        assert within(virial, (law.particles - 1) * law.dim)


def test_the_plane_is_simulated_in_all_wells():
    law = MullerBrown(30.0)
    x = simulate(law, 2000, generator=seeded(), burn_in=100, thin=5)
    assert x.shape == (2000, 1, 2)
    assert within(x[:, 0, 0], law.mean(lambda y: y[:, 0, 0]))
    y = torch.randn(5, 1, 2, dtype=torch.float64, generator=seeded(1), requires_grad=True)
    (gradient,) = torch.autograd.grad(law(y).sum(), y)
    assert torch.allclose(law.grad(y.detach()), gradient, rtol=1e-9)


def test_two_atoms_have_no_pivot_and_the_bond_of_their_integral():
    law = FenePolymer(2, spread=0.5)
    x = simulate(law, 2000, generator=seeded(), burn_in=60, thin=5)
    r = torch.linspace(0.6, 1.4999, 20001, dtype=torch.float64)
    y = torch.zeros(len(r), 3, 2, dtype=torch.float64)
    y[:, 0, 1] = r
    weight = (-law(y - y.mean(2, keepdim=True))).softmax(0) * r**2
    assert within(x.diff(dim=2).norm(dim=1)[:, 0], float((weight * r).sum() / weight.sum()))


def test_a_crystal_has_no_overlap():
    for particles, dim in ((2, 1), (7, 2), (38, 3)):
        points = crystal(particles, dim)
        assert points.shape == (dim, particles)
        assert torch.pdist(points.T).min() > 0.999


def test_simulations_refuse_nothing():
    for wrong in ({"chains": 0}, {"burn_in": 0}, {"thin": 0}):
        with pytest.raises(ValueError, match="must be >= 1"):
            simulate(FenePolymer(4), 2, generator=seeded(), **wrong)


# -- beads of a spec ---------------------------------------------------------------------------------------------------


CHAIN = CascadeSpec(coarse="beads", conditional=GaussianSpec())


def test_gaussian_beads_of_a_spec_are_the_chain():
    law = GaussianChain(8)
    model = Cascade.of(CHAIN, law.lattice).fit(law.sample(200_000, generator=seeded()))
    exact = gaussian_beads(law.lattice, law.covariance, bead_steps(Graph.linear(8)))
    x = law.sample(200, generator=seeded(1))
    assert torch.allclose(model.log_prob(x), exact.log_prob(x), atol=0.15)
    assert [level.modes for level in model.levels] == [24, 12, 6, 3]


def test_a_ring_and_bonds_of_your_own():
    ring = make_steps(CHAIN, Lattice((8,), "periodic", 3))
    assert [len(step.parts) for step in ring] == [4, 2, 1]
    star = CascadeSpec(
        coarse="beads", conditional=GaussianSpec(), beads=BeadsSpec(((0, 1), (0, 2), (0, 3)), (4.0, 1.0, 1.0, 1.0))
    )
    (step, *_) = make_steps(star, Lattice((4,), channels=2))
    x = torch.zeros(1, 2, 4)
    x[0, 0, 1:] = 7.0
    assert step.split(x).coarse[0, :, 0].tolist() == [3.0, 0.0]  # (3 x 7 + 4 x 0) / 7


@pytest.mark.parametrize(
    ("beads", "match"),
    [
        (BeadsSpec(((0, 1), (2, 3))), "disconnected"),
        (BeadsSpec(((0, 9),)), "a bond joins two different atoms"),
        (BeadsSpec(masses=(1.0,)), "each of 4 atoms has a mass"),
    ],
)
def test_molecules_that_are_none(beads, match):
    with pytest.raises(RecipeError, match=f"model.beads: .*{match}"):
        make_steps(CascadeSpec(coarse="beads", conditional=GaussianSpec(), beads=beads), Lattice((4,), channels=3))


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (lambda: CascadeSpec(coarse="beads"), "beads need a conditional of positions"),
        (lambda: CascadeSpec(coarse="haar", conditional=BackmapSpec()), "needs coarse = 'beads'"),
        (lambda: CascadeSpec(beads=BeadsSpec(spread=2.0)), "with coarse = 'beads'"),
        (lambda: BeadsSpec(spread=0.0), "spread must be > 0"),
        (lambda: BeadsSpec(bonds=((1, 1),)), "a bond joins two atoms"),
        (lambda: BeadsSpec(masses=(0.0,)), "masses must be > 0"),
        (lambda: BackmapSpec(bins=1), "bins must be 2"),
        (
            lambda: CascadeSpec(coarse="beads", conditional=BackmapSpec(), beads=BeadsSpec(masses=(1.0, 2.0))),
            "chain of equal atoms",
        ),
    ],
)
def test_specs_that_do_not_go_together(wrong, match):
    with pytest.raises(ValueError, match=match):
        wrong()


def test_backmapping_goes_down_to_three_beads():
    spec = CascadeSpec(coarse="beads", conditional=BackmapSpec(width=8))
    assert [len(step.parts) for step in make_steps(spec, Lattice((32,), channels=3))] == [16, 8, 4]
    assert [len(step.parts) for step in make_steps(spec, Lattice((12,), channels=3))] == [6, 3]
    for lattice, match in (
        (Lattice((5,), channels=3), "6 atoms or more, an even number"),
        (Lattice((8,), channels=2), "chains in space"),
        (Lattice((8,), "periodic", 3), "chains in space"),
        (Lattice((4, 4), channels=3), "atoms along one axis"),
    ):
        with pytest.raises(RecipeError, match=match):
            make_steps(spec, lattice)
    with pytest.raises(RecipeError, match="levels = 9 is more"):
        make_steps(CascadeSpec(coarse="beads", conditional=GaussianSpec(), levels=9), Lattice((8,), channels=3))


@pytest.fixture(scope="module")
def small():
    """A polymer's cascade, hardly trained."""
    law = FenePolymer(8)
    x = simulate(law, 400, generator=seeded(), burn_in=40, thin=2)
    spec = CascadeSpec(coarse="beads", levels=1, conditional=BackmapSpec(width=16))
    return Cascade.of(spec, law.lattice).fit(x, spec=CascadeFit(steps=60, batch=128)), law, x


def test_a_backmap_of_a_spec_keeps_the_promises_of_models(small, tmp_path):
    model, _, x = small
    check_model(model, x[:2], tmp_path=tmp_path)
    assert abs(float(model.conditionals[0].bond) - 0.97) < 0.05  # measured


def test_moves_keep_the_beads_and_mend_the_bonds(small):
    model, law, x = small
    coarse = model.coarsen(x[:40], 1)
    drawn, again = allowed_draws(model, law, coarse, 1, generator=seeded())
    assert bool(law(drawn).isfinite().all())
    assert 0 <= again < 1
    moved, acceptance = moved_at_fixed_beads(model, law, drawn, 1, moves=30, generator=seeded(1))
    assert torch.allclose(model.coarsen(moved, 1), coarse, atol=1e-4)
    assert 0 < acceptance <= 1
    assert float(law(moved).median()) < float(law(drawn).median())
    with pytest.raises(ValueError, match="moves must be >= 1"):
        moved_at_fixed_beads(model, law, drawn, 1, moves=0, generator=seeded())
    with pytest.raises(DataError, match="no draw of finite energy"):
        allowed_draws(model, lambda y: y.new_full((len(y),), torch.inf), coarse[:1], 1, generator=seeded())


def test_draws_of_infinite_energy_weigh_nothing():
    law = GaussianChain(4)
    model = gaussian_beads(law.lattice, law.covariance, bead_steps(Graph.linear(4)))
    x, log_prob = model.draw(1000, generator=seeded())

    def walled(y):
        return torch.where(y[:, 0, 0] > 0, law(y), torch.inf)

    drawn = Weighted(x, log_prob, model.log_weight(walled, x, log_prob))
    found = evidence_of(model, walled, drawn)
    assert float(found.lower.value) == -math.inf
    assert abs(float(found.log_z.value) - (law.log_z - math.log(2))) < 5 * float(found.log_z.error)
    for action in (lambda y: law(y) * torch.nan, lambda y: law(y) - torch.inf, lambda y: law(y) + torch.inf):
        with pytest.raises(DataError, match="action must be finite"):
            model.log_weight(action, x, log_prob)


# -- clusters in the hallway -------------------------------------------------------------------------------------------


def test_clusters_keep_the_promises_of_models(tmp_path):
    model = ClusterModel(ClusterSpec(width=8, parts=2, candidates=4), 4, 2)
    x = torch.randn(20, 2, 4, generator=seeded())
    model.fit(x, spec=ClusterFit(steps=3, batch=8))
    check_model(model, x[:2], tmp_path=tmp_path)
    pair = model.coarsen(x[:3], 2, generator=seeded(1))
    assert torch.equal(model.refine(pair, level=2, generator=seeded(2))[..., :2], pair)
    assert int(model.shown(pair).isnan().sum()) == 3 * 2 * 2
    with pytest.raises(NoLikelihoodError, match="exact weights"):
        model.log_prob(x)
    for wrong in (
        lambda: model.sample(0, generator=seeded()),
        lambda: model.refine(x, level=2, generator=seeded()),
        lambda: model.sample(1, generator=seeded(), condition=torch.zeros(1)),
    ):
        with pytest.raises(DataError):
            wrong()
    with pytest.raises(CheckpointError, match="no law of clusters"):
        ClusterModel.load(tmp_path / "nowhere")


def test_levels_of_clusters_are_those_of_whole_ones():
    """The centre of a whole cluster has its variance, that of a coarse one lies about it."""
    model = ClusterModel(ClusterSpec(width=8, parts=2, candidates=2, spread=3.0), 3, 2)
    x = model.sample(4000, generator=seeded())
    assert within(x.mean(2)[:, 0].square(), 9 / 3)
    assert model.sample(300, generator=seeded(), level=1).shape == (300, 2, 2)
    first = model.sample(4000, generator=seeded(), level=1)
    assert abs(float(first[:, 0, 0].mean() - first[:, 0, 1].mean())) < 0.25  # in no order


# -- what is measured --------------------------------------------------------------------------------------------------


def test_observables_of_a_chain_are_exact():
    law = GaussianChain(16)
    x = law.sample(20_000, generator=seeded())
    bonds = [(i, i + 1) for i in range(15)]
    for one in molecule_observables(x, x[:2000], law, bonds):
        assert one.exact is not None
        assert abs(one.value - one.exact) < 4 * one.error
    ring = GaussianChain(6, ring=True)
    y = ring.sample(20_000, generator=seeded())
    found = {o.name: o for o in molecule_observables(y, y[:100], ring, [*[(i, i + 1) for i in range(5)], (5, 0)])}
    assert "end_to_end_sq" not in found
    assert abs(found["bond_sq"].value - found["bond_sq"].exact) < 4 * found["bond_sq"].error


def test_shapes_tell_how_far_apart():
    law = FenePolymer(8)
    x = simulate(law, 600, generator=seeded(), burn_in=40, thin=2)
    bonds = [(i, i + 1) for i in range(7)]
    same = shapes(x[:300], x[300:], law, bonds).figures
    other = shapes(1.1 * x[:300], x[300:], law, bonds, refined=x[:300])
    for key in ("bond_tv", "energy_w1"):
        assert other.figures[key] > 3 * same[key]
        assert other.figures[f"refined_{key}"] == pytest.approx(same[key])
    assert same["bond_tv"] < 3 * same["bond_tv_floor"]
    svg, caption = shapes_figure({k: v.numpy() for k, v in other.arrays.items()})
    assert svg.startswith("<svg")
    assert "dotted" in caption
    broken = x[:300].clone()
    broken[0, :, 0] += 5.0  # a bond that cannot be
    assert shapes(broken, x[300:], law, bonds).figures["energy_w1"] < 1 + same["energy_w1"]
    assert "energy" not in {o.name for o in molecule_observables(broken, x[300:], law, bonds)}


def test_pictures_leave_out_atoms_that_are_not_there():
    x = np.random.default_rng(0).normal(size=(3, 2, 5))
    x[0, :, 3:] = np.nan
    x[1] = np.nan
    assert molecule_grid(x, []).size == (262, 262)
    strip = molecule_strip(np.stack([x, x], 1), ["n = 1", "n = 2"], [])
    assert strip.width == 262
    for wrong in (lambda: molecule_grid(np.zeros((0, 3, 5)), []), lambda: molecule_strip(x[:, None], [], [])):
        with pytest.raises(DataError):
            wrong()
    with pytest.raises(DataError, match="got none"):
        shapes_figure({})
    with pytest.raises(DataError, match="a share for each of 2 bins"):
        shapes_figure({"bond_edges": np.arange(3.0), "bond_data": np.ones(2)})


def test_minima_are_apart():
    surface = torch.full((24, 24), 40.0, dtype=torch.float64)
    surface[3, 3], surface[4, 4], surface[20, 0], surface[12, 12] = 0.0, 1.0, 8.0, 39.0
    assert [each["kj_mol"] for each in minima(surface)] == [0.0, 8.0]


# -- runs --------------------------------------------------------------------------------------------------------------


FAST = ["--set", "data.number=400", "--set", "measure.samples=200", "--quiet"]


def test_a_chain_from_the_command_line(tmp_path, capsys):
    run = tmp_path / "rouse"
    changes = ["--set", "data.shape=[8]", "--set", "data.number=4000", "--set", "measure.samples=2000"]
    assert out_of(capsys, "fit", "rouse32", *changes, "--quiet", "--out", run)[0] == 0
    code, out, _ = out_of(capsys, "measure", run, "--quiet", "--json")
    figures = json.loads(out)
    assert code == 0
    assert abs(figures["rg_sq"] - GaussianChain(8).rg_sq) < 5 * figures["rg_sq_error"]
    assert abs(figures["log_z"] - figures["log_z_exact"]) < 0.1
    assert figures["ess"] > 0.9
    page = (run / "report.html").read_text(encoding="utf-8")
    for words in ("A cascade of beads (gaussian conditionals)", "Real configurations", "Shapes", "end to end sq"):
        assert words in page
    assert "spectrum" in page.lower()
    for arguments in (["sample", run, "-n", 4], ["refine", run, "-n", 2], ["flow", run]):
        assert out_of(capsys, *arguments)[0] == 0
    beads = tmp_path / "beads.npy"
    np.save(beads, np.zeros((3, 3, 2), np.float32))
    code, out, _ = out_of(capsys, "refine", run, "--coarse", beads, "--level", 2, "-n", 5, "--moves", 4, "--json")
    told = json.loads(out)
    assert (told["frames"], told["draws"], code) == (3, 5, 0)
    with np.load(told["file"]) as arrays:
        assert arrays["x"].shape == (3, 5, 3, 8)
        pairs = arrays["x"].reshape(-1, 3, 2, 4).mean(3)
        assert np.abs(pairs).max() < 1e-4


def test_a_polymer_from_the_command_line(tmp_path, capsys):
    run = tmp_path / "polymer"
    changes = ["--set", "data.shape=[8]", "--set", "model.conditional.width=8", "--set", "fit.steps=20"]
    assert out_of(capsys, "fit", "polymer32", *changes, *FAST, "--out", run)[0] == 0
    code, out, _ = out_of(capsys, "measure", run, "--quiet", "--json")
    figures = json.loads(out)
    assert code == 0
    assert {"bond_tv", "refined_bond_tv", "angle_tv", "energy_w1", "ess", "log_z_bar", "rg_sq"} <= figures.keys()
    assert "null" not in out


def test_positions_of_a_file(tmp_path, capsys):
    """Where a molecule is does not matter: the centre has a law of its own."""
    law = GaussianChain(6)
    x = law.sample(2000, generator=seeded())
    far = x + 100 * torch.randn(2000, 3, 1, generator=seeded(1))
    np.save(tmp_path / "x.npy", far.numpy())
    (tmp_path / "recipe.toml").write_text(
        f'wing = "cascade"\n[data]\nname = "array"\npath = "{tmp_path / "x.npy"}"\nchannels = 3\n'
        '[model]\ncoarse = "beads"\n[model.conditional]\nkind = "gaussian"\n[model.beads]\nspread = 2.0\n'
        "[measure]\nsamples = 500\n"
    )
    run = tmp_path / "run"
    assert out_of(capsys, "fit", tmp_path / "recipe.toml", "--quiet", "--out", run)[0] == 0
    model = Cascade.load(run)
    top = model.sample(4000, generator=seeded(), level=len(model.levels) - 1)
    assert within(top[:, 0, 0].square(), 4 / 3, 5)
    code, out, _ = out_of(capsys, "measure", run, "--quiet", "--json")
    figures = json.loads(out)
    assert code == 0
    assert abs(figures["rg_sq"] - law.rg_sq) < 6 * figures["rg_sq_error"]
    code, _, said = out_of(capsys, "refine", run, "--moves", 3)
    assert code == 2
    assert "--moves need data of a law" in said


def test_clusters_from_the_command_line(tmp_path, capsys):
    run = tmp_path / "dw4"
    changes = [
        "--set",
        "fit.steps=40",
        "--set",
        "model.width=12",
        "--set",
        "model.parts=4",
        "--set",
        "data.law.tau=4.0",
    ]
    assert out_of(capsys, "fit", "dw4", *changes, *FAST, "--out", run)[0] == 0
    code, out, _ = out_of(capsys, "measure", run, "--quiet", "--json")
    figures = json.loads(out)
    assert code == 0
    assert {"ess", "log_z", "distance_tv", "energy_w1", "energy"} <= figures.keys()
    page = (run / "report.html").read_text(encoding="utf-8")
    for words in ("A law of clusters", "Shapes", "Log weights", "labelled by the number of particles"):
        assert words in page
    for arguments in (
        ["sample", run, "-n", 4, "--level", 1],
        ["refine", run, "--level", 2, "-n", 2],
        ["flow", run],
        ["report", run],
    ):
        assert out_of(capsys, *arguments)[0] == 0
    code, _, said = out_of(capsys, "refine", run, "--coarse", "x.npy")
    assert (code, "--coarse and --moves are for cascades" in said) == (2, True)
    code, _, said = out_of(capsys, "fit", "dw4", *changes, *FAST, "--out", run)
    assert (code, "already holds a run" in said) == (2, True)
    assert out_of(capsys, "fit", "dw4", *changes, *FAST, "--out", run, "--resume")[0] == 0


def test_a_law_of_clusters_resumes_to_the_same_bits(tmp_path, monkeypatch):
    from renorm.recipes import keeping
    from renorm.recipes.run import fit_run

    changes = {"fit.steps": 12, "fit.batch": 16, "model.width": 8, "data.number": 64, "data.law.tau": 4.0}
    recipe = load_recipe("dw4", changes)
    whole = fit_run(recipe, tmp_path / "whole", progress=False)
    monkeypatch.setattr(keeping, "KEEP", 0.0)
    saved = keeping.StageKeeper.save

    def killed(self, step, standing):
        saved(self, step, standing)
        if step == 7 and not (tmp_path / "again").exists():
            (tmp_path / "again").touch()
            raise KeyboardInterrupt

    monkeypatch.setattr(keeping.StageKeeper, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        fit_run(recipe, tmp_path / "killed", progress=False)
    resumed = fit_run(recipe, tmp_path / "killed", resume=True, progress=False)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name])


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"data.law": {"kind": "fene"}}, "learns from data.name"),
        ({"model.spread": 2.0}, "model.spread must be that of the law"),
        ({"measure.steps": 3}, "measure.steps means nothing"),
        ({"fit.rate": 0.0}, "rate must be > 0"),
        ({"model.rule": "inner"}, "must be one of"),
    ],
)
def test_recipes_of_clusters_that_are_none(changes, match):
    with pytest.raises(RecipeError, match=match):
        load_recipe("dw4", changes)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["--coarse", "{beads}", "--level", "1"], r"must hold \(frames, 3, 4\) of level 1"),
        (["--coarse", "nowhere.npy"], "nowhere.npy"),
        (["--coarse", "beads.txt"], "must name an .npy or .npz"),
        (["--coarse", "{nan}", "--level", "2"], "coarse fields must be finite, and frame 1"),
        (["--coarse", "{beads}", "--level", "9"], "--level must be 1 ... 3"),
        (["--moves", "-1"], "--moves >= 0"),
        (["--coarse", "{beads}", "--input", "x.npy"], "take one"),
        (["--coarse", "{beads}", "--level", "2", "--out", "x.png"], "--out must end in .npz"),
        (["--coarse", "{beads}", "--steps", "3"], "--steps is for diffusions"),
    ],
)
def test_mistakes_in_backmapping_are_one_line(chain_run, tmp_path, capsys, arguments, match):
    import re

    np.save(tmp_path / "beads.npy", np.zeros((2, 3, 2)))
    np.save(tmp_path / "nan.npy", np.full((2, 3, 2), [[[0.0]], [[np.nan]]]))
    named = [a.format(beads=tmp_path / "beads.npy", nan=tmp_path / "nan.npy") for a in arguments]
    code, _, said = out_of(capsys, "refine", chain_run, *named)
    assert code == 2
    assert re.search(match, said)
    assert "Traceback" not in said


@pytest.fixture(scope="module")
def chain_run(tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "chain"
    assert main(["fit", "rouse32", "--set", "data.shape=[8]", *FAST, "--out", str(run)]) == 0
    return run


def test_a_surface_from_the_command_line(tmp_path, capsys):
    g = seeded()
    phi = 2 * math.pi * torch.rand(3000, generator=g, dtype=torch.float64) - math.pi
    psi = 2 * math.pi * torch.rand(3000, generator=g, dtype=torch.float64) - math.pi
    bias = 2.494339 * (3 * (phi - 1).cos() + 3 * (psi + 2).cos())
    rows = torch.stack([torch.arange(3000).double(), phi, psi, bias], 1)
    path = tmp_path / "COLVAR"
    lines = ["#! FIELDS time phi psi opes.bias", *(" ".join(f"{v:.6f}" for v in row) for row in rows.tolist())]
    path.write_text("\n".join(lines) + "\n")
    out = tmp_path / "surface"
    asked = ["torsions", path, "--temperature", 300, "--bias-unit", "kJ/mol", "--cells", 32, "--out", out]
    code, text, _ = out_of(capsys, *asked, "-n", 50, "--json")
    told = json.loads(text)
    assert code == 0
    (deepest, *others) = told["minima"]
    assert not others
    assert abs(deepest["phi"] - math.degrees(1)) < 15  # the one minimum of -3 cos - 3 cos
    assert abs(deepest["psi"] - math.degrees(-2)) < 15
    with np.load(out / "surface.npz") as arrays:
        assert arrays["free_energy"].shape == (32, 32)
        assert abs(arrays["free_energy"].max() - 12 * 2.494339) < 4
    with np.load(out / "samples.npz") as arrays:
        assert arrays["x"].shape == (50, 1, 2)
    assert (out / "surface.svg").read_text().startswith("<svg")
    for wrong, words in (
        (["--bias-unit", "eV"], "bias_unit must be one of"),
        (["--from", 1e9], "no frame is left"),
        (["--cells", 20], "power of two"),
        (["-n", -1], "--num must be >= 0"),
        (["--temperature", 0], "temperature must be > 0"),
    ):
        code, _, said = out_of(capsys, *asked, *wrong)
        assert (code, words in said, "Traceback" in said) == (2, True, False)
    code, _, said = out_of(capsys, *asked[:-2], "--out", tmp_path)
    assert (code, "holds something else" in said) == (2, True)
    assert out_of(capsys, *asked)[0] == 0  # the same folder again


def test_bonds_of_recipes():
    lattice = Lattice((4,), channels=3)
    assert bonds_of(load_recipe("polymer32"), lattice) == [(0, 1), (1, 2), (2, 3)]
    assert bonds_of(load_recipe("dw4"), lattice) == []
    assert bonds_of(load_recipe("wells32"), lattice) is None
    star = CascadeSpec(coarse="beads", conditional=GaussianSpec(), beads=BeadsSpec(((0, 1), (2, 0), (0, 3), (0, 3))))
    own = CascadeRecipe(data=DataSpec("array", path="x.npy", channels=3), model=star)
    assert bonds_of(own, lattice) == [(0, 1), (0, 2), (0, 3)]
    assert isinstance(load_recipe("lj13"), ClustersRecipe)


# -- what a reading found ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("law", "variance"),
    [
        (FenePolymer(4, spread=20.0), 400 / 3),
        (LennardJonesCluster(4, spread=50.0), 2500 / 4),
        (DoubleWellCluster(spread=3.0), 9 / 4),
        (GaussianChain(4, spread=5.0), 25 / 3),
    ],
)
def test_the_centre_has_its_law(law, variance):
    x = simulate(law, 600, generator=seeded(), burn_in=20, thin=1)
    assert within(x.mean(2)[:, 0].double().square(), variance)


def test_a_law_too_stiff_for_the_samplers_is_told():
    with pytest.raises(DataError, match="hardly move"):
        simulate(LennardJonesCluster(4, epsilon=1e7), 20, generator=seeded(), burn_in=5, thin=1)


def test_coincident_particles_have_a_gradient():
    assert bool(DoubleWellCluster().grad(torch.zeros(1, 2, 4)).isfinite().all())


def test_beads_far_away_get_the_same_atoms(tmp_path, capsys):
    law = GaussianChain(8)
    x = law.sample(2000, generator=seeded()) + torch.tensor([50.0, 60.0, 70.0])[:, None]
    np.save(tmp_path / "x.npy", x.numpy())
    text = (
        f'wing = "cascade"\n[data]\nname = "array"\npath = "{tmp_path / "x.npy"}"\nchannels = 3\n'
        '[model]\ncoarse = "beads"\n[model.conditional]\nkind = "gaussian"\n'
    )
    (tmp_path / "r.toml").write_text(text)
    run = tmp_path / "run"
    assert out_of(capsys, "fit", tmp_path / "r.toml", "--quiet", "--out", run)[0] == 0
    beads = Cascade.load(run).coarsen(x[:50], 1).numpy()
    near, far = tmp_path / "near.npy", tmp_path / "far.npy"
    np.save(far, beads)
    np.save(near, beads - beads.mean(2, keepdims=True))
    drawn = {}
    for path in (near, far):
        out = path.with_suffix(".npz")
        assert out_of(capsys, "refine", run, "--coarse", path, "-n", 3, "--out", out)[0] == 0  # the level by its shape
        drawn[path] = np.load(out)["x"]
    shift = beads.mean(2, keepdims=True)[:, None]
    assert np.abs(drawn[far] - drawn[near] - shift).max() < 1e-3
    assert abs(np.square(np.diff(drawn[far], axis=3)).sum(2).mean() - 1) < 0.1
    code, _, said = out_of(capsys, "refine", run, "--coarse", far, "--index", 3)
    assert (code, "--index chooses a fine field" in said) == (2, True)
    figures = json.loads(out_of(capsys, "measure", run, "-n", 400, "--quiet", "--json")[1])
    assert not [key for key in figures if key.startswith("sliced_wasserstein_floor")]


def test_a_run_reads_its_own_samples(chain_run, tmp_path, capsys):
    out = tmp_path / "s.npz"
    assert out_of(capsys, "sample", chain_run, "-n", 3, "--out", out)[0] == 0
    assert out_of(capsys, "refine", chain_run, "--input", out, "-n", 2, "--out", tmp_path / "r.png")[0] == 0


def test_bonds_are_those_of_the_law():
    odd = load_recipe("rouse32", {"model.beads.bonds": [[0, 2], [2, 1], [1, 3], [1, 3]]})
    assert bonds_of(odd, Lattice((4,), channels=3)) == [(0, 1), (1, 2), (2, 3)]


@pytest.mark.parametrize(
    ("name", "changes", "match"),
    [
        ("rouse32", {"data.law": {"kind": "muller-brown"}}, "binds atoms"),
        ("rouse32", {"model.beads.spread": 2.0}, "a law has its own"),
        ("dw4", {"data.law.dim": 1}, "must be 2 or 3"),
        ("dw4", {"data.law.dim": 8}, "dim must be 1, 2 or 3"),
    ],
)
def test_recipes_that_would_mislead(name, changes, match):
    with pytest.raises(RecipeError, match=match):
        load_recipe(name, changes)


def test_clusters_in_a_box_are_refused():
    with pytest.raises(RecipeError, match="unwrap the positions"):
        ClustersRecipe(data=DataSpec("array", path="x.npy", channels=3, boundary="periodic"))


def test_a_failed_fit_of_clusters_leaves_the_place(tmp_path, capsys):
    run = tmp_path / "run"
    changes = ["--set", "data.law.tau=4.0", "--steps", 30, "--quiet", "--out", run]
    code, _, said = out_of(capsys, "fit", "dw4", "--set", "data.number=40", "--set", "fit.rate=1e9", *changes)
    assert (code, "smaller rate" in said, "Traceback" in said) == (2, True, False)
    code, _, said = out_of(capsys, "fit", "dw4", "--set", "data.number=1", *changes)
    assert (code, "two or more" in said) == (2, True)
    assert out_of(capsys, "fit", "dw4", "--set", "data.number=10", *changes)[0] == 0
    code, _, said = out_of(capsys, "measure", run)
    assert (code, "set data.number to 20 or more" in said) == (2, True)


def test_broken_draws_do_not_lose_the_rest(tmp_path, capsys):
    run = tmp_path / "run"
    settings = ["--set", "data.law.reach=1.1", "--set", "model.conditional.width=4", "--set", "data.shape=[32]"]
    assert out_of(capsys, "fit", "polymer32", *settings, "--steps", 2, *FAST, "--out", run)[0] == 0
    code, out, _ = out_of(capsys, "measure", run, "-n", 50, "--quiet", "--json")
    figures = json.loads(out)
    assert code == 0
    assert "refined_bond_tv" in figures
    assert "ess" not in figures or figures["share_of_no_weight"] > 0.5
    assert "Collapsed fit" in (run / "report.html").read_text(encoding="utf-8")


def test_rigid_bonds_are_no_noise():
    steps = torch.randn(400, 3, 5, generator=seeded())
    x = (steps / steps.norm(dim=1, keepdim=True)).cumsum(2)
    found = shapes(x[:200], x[200:], None, [(i, i + 1) for i in range(4)]).figures
    assert found["bond_tv_floor"] < 0.05
    assert shapes(1.2 * x[:200], x[200:], None, [(i, i + 1) for i in range(4)]).figures["bond_tv"] > 0.9
