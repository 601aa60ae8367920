"""How levels learn: weights from the coarser level, and fits that are stopped inside a stage."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from renorm.cascade.cascade import Cascade
from renorm.cascade.learning.descent import descend
from renorm.cascade.learning.levels import begin_from_coarser
from renorm.cascade.spec import CascadeFit, CascadeSpec, FlowSpec, GaussianSpec, LocalSpec
from renorm.data.spec import DataSpec
from renorm.errors import CheckpointError, RecipeError
from renorm.lattice import Lattice
from renorm.laws.gaussian_field import GaussianField
from renorm.laws.spec import FreeFieldSpec, IsingSpec
from renorm.recipes import keeping
from renorm.recipes.run import fit_run
from renorm.recipes.spec import CascadeRecipe

SQUARE = Lattice((8, 8), boundary="periodic")
SMALL = LocalSpec(width=8, layers=1, bins=4)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


# Weights of the coarser level


def test_few_steps_go_further_from_the_weights_of_the_coarser_level():
    """A long chain near criticality, whose levels are alike, beside its exact density."""
    law = GaussianField((64,), mass_sq=0.01)
    spec, fit = CascadeSpec(coarse="haar", conditional=SMALL), CascadeFit(steps=20, batch=64, rate=1e-2)
    x = law.sample(1200, generator=seeded())
    models = [Cascade.of(spec, law.lattice).fit(x[:400], spec=replace(fit, transfer=on)) for on in (True, False)]
    a, b = ((law.log_prob(x[400:]) - model.log_prob(x[400:])).detach().double() for model in models)
    gain = b - a
    assert gain.mean() > 8 * gain.std() / len(gain) ** 0.5
    assert 0 < a.mean() < 0.65 * b.mean()  # nats lost to the exact density


def test_a_level_begins_with_the_weights_of_its_coarser_neighbour_in_its_own_units():
    x = GaussianField((8, 8), mass_sq=0.02).sample(100, generator=seeded())
    fit = CascadeFit(steps=3, batch=16, transfer=True)
    still = replace(fit, rate=1e-30)  # what is handed on stays as it is
    for spec, above in ((CascadeSpec(coarse="haar", conditional=SMALL), 1), (CascadeSpec(conditional=SMALL), 2)):
        model = Cascade.of(spec, SQUARE)
        assert model.order(fit) == list(range(model.stages))[::-1]
        for stage in model.order(fit)[:-1]:
            model.fit_stage(x, stage, fit)
        model.fit_stage(x, 0, still)
        fine, coarse = model.conditionals[0], model.conditionals[above]
        assert all(map(torch.equal, fine.parameters(), coarse.parameters()))
        assert not torch.equal(fine.spread, coarse.spread)
        again = Cascade.of(spec, SQUARE).fit(x, spec=fit)
        model.fit_stage(x, 0, fit)  # a function of the fields, the spec, the stage and the coarser levels
        assert all(map(torch.equal, again.state_dict().values(), model.state_dict().values()))
    assert not begin_from_coarser(model.top, [])
    assert not begin_from_coarser(model.conditionals[0], [model.conditionals[1], model.top])


def test_weights_that_cannot_be_handed_on():
    fit, x = CascadeFit(transfer=True), torch.randn(9, 1, 4, 4, generator=seeded())
    for spec, why in [
        (CascadeSpec(coarse="haar", conditional=GaussianSpec()), "a closed form has none to begin with"),
        (CascadeSpec(conditional=SMALL, tied=True), "here all levels learn at once"),
        (CascadeSpec(coarse="learned", conditional=FlowSpec(width=4)), "here all levels learn at once"),
        (CascadeSpec(coarse="haar", conditional=SMALL, symmetric=False, positive=True), "model.positive begin in"),
        (CascadeSpec(coarse="haar", conditional=SMALL, levels=1), "no level here is made like a coarser one"),
    ]:
        with pytest.raises(RecipeError, match=f"fit.transfer hands .*{why}") as of_model:
            Cascade.of(spec, Lattice((4, 4), boundary="periodic")).fit(x, spec=fit)
        with pytest.raises(RecipeError) as of_recipe:  # before any data are read
            CascadeRecipe(model=spec, fit=fit)
        assert str(of_recipe.value) == str(of_model.value)
    turned = CascadeSpec(conditional=SMALL, levels=2)  # one straight, one turned
    with pytest.raises(RecipeError, match="no level here is made like a coarser one"):
        Cascade.of(turned, SQUARE).order(fit)
    CascadeRecipe(model=turned, fit=replace(fit, transfer=False))
    with pytest.raises(ValueError, match="transfer needs a teacher that reads fields"):
        CascadeFit(transfer=True, teacher="chain")


# Fits that are stopped inside a stage


class Held:
    """Keeps every third step in memory, as a copy."""

    def __init__(self):
        self.kept, self.steps = None, []

    def load(self):
        return self.kept

    def save(self, step, standing):
        self.steps.append(step)
        if step % 3 == 0:
            self.kept = {name: value.clone() for name, value in standing().items()}


def test_a_descent_is_taken_up_where_it_was_kept():
    """A loss with noise and a memory of its own; one parameter that it never reaches."""

    def descent(steps, keeper, stop=None):
        x, unused = nn.Parameter(torch.tensor([1.0, -2.0])), nn.Parameter(torch.zeros(3))
        noise, memory, told = seeded(), {"mean": torch.zeros(2)}, []

        def loss():
            drawn = torch.randn(2, generator=noise)
            memory["mean"] = 0.9 * memory["mean"] + 0.1 * drawn
            return (x + drawn - memory["mean"]).square().sum(), float(drawn[0])

        def tell(step, value):
            told.append((step, value))
            if step == stop:
                raise KeyboardInterrupt

        kept = {"keeper": keeper, "generator": noise, "memory": memory}
        try:
            trained = descend([x, unused], loss, steps=steps, rate=0.1, tell=tell, **kept)
        except KeyboardInterrupt:
            return None
        return x.detach(), unused.detach(), memory["mean"], trained, told

    whole, held = descent(20, None), Held()
    assert descent(20, held, stop=8) is None
    assert held.steps[-1] == 8
    again = descent(20, held)
    assert held.steps[8:] == list(range(7, 21))  # from the sixth step on
    for a, b in zip(whole[:3], again[:3], strict=True):
        assert torch.equal(a, b)
    assert whole[3:] == again[3:]  # losses, spread, and what was told
    kept = held.kept
    fewer = {name: value for name, value in kept.items() if name != "parameter.1"}
    for held.kept in (fewer, kept | {"parameter.2": torch.zeros(3)}, kept | {"parameter.1": torch.zeros(4)}):
        with pytest.raises(CheckpointError, match="belongs to other parameters"):
            descent(20, held)


def recipe_of(teacher):
    law, model = IsingSpec(), CascadeSpec(conditional=LocalSpec(head="spin", width=4), heat_bath=True)
    if teacher != "chain":
        law, model = FreeFieldSpec(mass_sq=0.5), CascadeSpec(coarse="haar", conditional=SMALL)
    chains = {"chains": 16, "every": 2, "grow": True} if teacher == "chain" else {}
    return CascadeRecipe(
        data=DataSpec("law", shape=(8, 8), boundary="periodic", number=120, law=law),
        model=model,
        fit=CascadeFit(teacher, steps=7, small_steps=7, batch=8, transfer=teacher == "fields", **chains),
    )


@pytest.mark.parametrize("teacher", ["fields", "action", "chain"])
def test_a_run_that_was_stopped_inside_a_stage_ends_the_same(teacher, tmp_path, monkeypatch):
    recipe = recipe_of(teacher)
    fit_run(recipe, tmp_path / "whole", progress=False)
    run, stop = tmp_path / "run", 5 if teacher == "action" else 12  # the first stage, or the second
    monkeypatch.setattr(keeping, "KEEP", 0.0)
    add, save = keeping.Metrics.add, keeping.StageKeeper.save

    def stopped(self, step, *arguments, **words):
        add(self, step, *arguments, **words)
        if step == stop:
            raise KeyboardInterrupt

    monkeypatch.setattr(keeping.Metrics, "add", stopped)
    with pytest.raises(KeyboardInterrupt):
        fit_run(recipe, run, progress=False)
    assert len(list((run / "checkpoints" / "stage").glob("*.safetensors"))) == 1
    monkeypatch.setattr(keeping.Metrics, "add", add)
    steps = []

    def counted(self, step, standing):
        steps.append(step)
        save(self, step, standing)

    monkeypatch.setattr(keeping.StageKeeper, "save", counted)
    shown = []
    monkeypatch.setattr(keeping.FitProgress, "begin", lambda self, step: shown.append(("begin", step)))
    monkeypatch.setattr(keeping.FitProgress, "update", lambda self, step, loss: shown.append(step))
    fit_run(recipe, run, resume=True, progress=False)
    inside = (stop - 1) % 7 + 1
    whole = [step for step, _ in enumerate(shown[1:], start=stop + 1)]
    assert shown == [("begin", stop), *whole]  # the bar counts what this run does
    assert steps[: 7 - inside] == list(range(inside + 1, 8))  # not one step is taken twice
    for name in ("model.safetensors", "model.toml", "metrics.jsonl"):
        assert (run / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert not (run / "checkpoints" / "stage").exists()


def test_what_is_kept_of_a_stage_is_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(keeping, "KEEP", 0.0)
    keeper = keeping.StageKeeper(tmp_path / "stage", {"fit": {"rate": 0.1}}, 2)
    assert keeper.load() is None
    keeper.save(3, lambda: {"losses": torch.ones(3)})
    assert keeping.StageKeeper(tmp_path / "stage", {"fit": {"rate": 0.1}}, 2).load()["losses"].tolist() == [1, 1, 1]
    assert keeping.StageKeeper(tmp_path / "stage", {"fit": {"rate": 0.1}}, 3).load() is None
    assert keeping.StageKeeper(tmp_path / "stage", {"fit": {"rate": 0.2}}, 2).load() is None
    (tmp_path / "stage" / "step-00000003.safetensors").write_bytes(b"damaged")
    assert keeping.StageKeeper(tmp_path / "stage", {"fit": {"rate": 0.1}}, 2).load() is None
    monkeypatch.setattr(keeping, "KEEP", 100.0)
    patient = keeping.StageKeeper(tmp_path / "other", {}, 0)
    patient.save(1, dict)
    assert not (tmp_path / "other").exists()
