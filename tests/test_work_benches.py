"""Benchmarks of the network's work: lattices that grow with the scale, regulators, and where a training step goes."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from renorm.bases.corner import corners
from renorm.bench import cores, mixture_nfe, mixture_work, profile, regulators
from renorm.bench.gaussian_nfe import LATTICE
from renorm.bench.regulators import Choice
from renorm.data.fields import Fields
from renorm.diffusion.mode_diffusion import ModeDiffusion
from renorm.diffusion.objective import DenoisingLoss
from renorm.diffusion.spacing import grid
from renorm.diffusion.spec import DiffusionSpec
from renorm.lattice import Lattice
from renorm.nn.spec import UNetSpec
from renorm.nn.unet import unet_on


def test_work_is_that_of_the_lattices_of_a_walk():
    """Each evaluation costs v/V, and v sites carry all that lives; white noise erases nothing."""
    ours = mixture_work.ours()
    total = 0.0
    for t in grid(ours.spacing, ours.schedule, 8)[:-1]:
        alive = ours.schedule.alive(t)
        fits = [c for c in corners(LATTICE) if not bool((alive & ~c.carried).any())]
        total += min(c.small.sites for c in fits) / LATTICE.sites
    assert mixture_work.work_of(ours, 8) == pytest.approx(total)
    assert total < 2
    assert mixture_work.work_of(mixture_work.named("edm, heun"), 49) == 49
    assert mixture_work.work_of(mixture_work.named("white, edm grid, dpm2m"), 19) == 19


def test_ours_passes_where_the_work_of_few_evaluations_is_spent(monkeypatch):
    """The bar, with fewer samples: at most a thirtieth of DDPM's 100 evaluations, a third of the best white 11."""
    monkeypatch.setattr(mixture_nfe, "SEEDS", 1)
    for spectrum in mixture_nfe.spectra().values():
        found = mixture_nfe.judged(mixture_work.ours(), spectrum, 14, 7, samples=2000)
        assert max(found[:2]) < 0.1
        assert mixture_work.work_of(mixture_work.ours(), 14) < 100 / 30


def test_the_least_work_of_every_prior_is_that_of_its_rows(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    some = [Choice("paper", "rational", 1.0, 1e-2), Choice("separated", "litim", 1.0, 1e-4)]
    some.append(Choice("calibrated", "rational", 1.0, 0.0))
    monkeypatch.setattr(regulators, "choices", lambda: iter(some))
    monkeypatch.setattr(cores, "ProcessPoolExecutor", lambda *how: ThreadPoolExecutor(2))
    monkeypatch.setattr(mixture_nfe, "SEEDS", 1)
    monkeypatch.setattr(mixture_nfe, "BATCH", 100)
    monkeypatch.setattr(regulators, "SAMPLES", 300)
    monkeypatch.setattr(regulators, "EVALUATIONS", (10, 20))
    result = regulators.run(0)
    assert len(result.table) == 2 * 3 * 2
    assert regulators.PICTURE.read_text().count("<use") >= len(result.table)  # a mark for each
    for data in ("k2", "k3"):
        rows = [row for row in result.table if row["data"] == data and row["prior"] == "separated"]
        passed = [row["work"] for row in rows if max(row["w1"], row["power"]) <= 0.1]
        assert result.figures.get(f"work_litim_{data}") == min(passed, default=None)
        assert all(0 < row["work"] <= row["evaluations"] for row in rows)


class DoublePrecision(Fields):
    def batch(self, index, *, flip_generator=None):
        return super().batch(index).double()


def test_a_training_step_changes_basis_three_times_and_never_in_float64():
    lattice = Lattice((8, 8))
    x = torch.randn(32, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    network = unet_on(lattice, UNetSpec(width=8, multipliers=(1, 2), attention=(), groups=4, patch=1))
    spec = DiffusionSpec(schedule="separated", prediction="preconditioned", training="noise-share")
    model = ModeDiffusion(spec, lattice, network=network).measure(Fields(x, lattice))
    loss = DenoisingLoss(model.denoiser, Fields(x, lattice), model.training)
    assert profile.basis_changes(loss, network, torch.arange(8), 0) == 3
    loss.fields = DoublePrecision(x, lattice)
    network.double()
    with pytest.raises(AssertionError, match="in float64"):
        profile.basis_changes(loss, network, torch.arange(8), 0)
