"""Diffusion of chains: coarse chains, coefficients of many lengths, the loss of silence, one length of many."""

import math
import shutil
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from renorm.bases import basis_for
from renorm.diffusion.chains import objective
from renorm.diffusion.chains.coarse_chain import cosines, enough, to_modes, to_points
from renorm.diffusion.chains.denoiser import ChainDenoiser, Coarse, answer
from renorm.diffusion.chains.flow import coefficients, schedule_of
from renorm.diffusion.chains.model import ChainDiffusion
from renorm.diffusion.chains.objective import ChainLoss, TrainingChain, modes_of
from renorm.diffusion.chains.profile import measure_profile, spectrum_of
from renorm.diffusion.chains.spec import ChainSpec
from renorm.diffusion.denoiser import GaussianDenoiser
from renorm.diffusion.presets import BOND_LENGTH, chain_steps
from renorm.diffusion.remaining import RemainingError
from renorm.diffusion.spacing import LogUniform
from renorm.errors import CheckpointError, DataError, RecipeError
from renorm.fit.record import read_metrics
from renorm.fit.spec import FitSpec
from renorm.nn.spec import ChainNetSpec

SMALL = ChainNetSpec(width=16, layers=1, heads=2, pair=8)
SPECS = {"rgdm": ChainSpec(network=SMALL), "ddpm": ChainSpec(schedule="ddpm", network=SMALL)}


class Silent(nn.Module):
    def forward(self, points, t, letters=None, features=None):
        return torch.zeros_like(points.x)


silent = Silent()


def gaussian_chain(sites: int, spec: ChainSpec, generator: torch.Generator) -> TrainingChain:
    schedule = schedule_of(spec, sites)
    z = torch.randn(3, sites, generator=generator, dtype=torch.float64)
    modes = schedule.prior_spectrum.sqrt() * z
    modes[:, 0] = 0
    letters = torch.randint(20, (sites,), generator=generator)
    return TrainingChain(basis_for(schedule.lattice).inverse(modes).float(), letters)


@settings(max_examples=20, deadline=None)
@given(sites=st.integers(8, 40), kept=st.integers(3, 8))
def test_a_coarse_chain_is_the_chain_between_its_residues(sites, kept):
    """Points of a chain of few modes, against the cosines themselves at the middles of the stretches."""
    generator = torch.Generator().manual_seed(sites)
    modes = torch.zeros(1, 3, sites, dtype=torch.float64)
    modes[..., :kept] = torch.randn(1, 3, kept, generator=generator, dtype=torch.float64)
    number = min(sites, kept + 2)
    u = cosines(torch.tensor([number]), number).double()
    x = to_points(modes, u, torch.tensor([number / sites], dtype=torch.float64))
    middle = (torch.arange(number, dtype=torch.float64) + 0.5) * sites / number  # in residues, from the end
    n = torch.arange(sites)[:, None]
    gain = torch.where(n > 0, 2.0, 1.0).sqrt() / math.sqrt(sites)
    by_hand = modes[0] @ (gain * torch.cos(math.pi * n * middle / sites))
    torch.testing.assert_close(x[0], by_hand, rtol=0, atol=1e-5)
    back = to_modes(x / math.sqrt(number / sites), u, sites)
    torch.testing.assert_close(back, modes, rtol=0, atol=1e-5)


def test_as_many_points_as_residues_are_the_residues():
    x = torch.randn(2, 3, 20, generator=torch.Generator().manual_seed(0))
    lattice = schedule_of(SPECS["rgdm"], 20).lattice
    u = cosines(torch.tensor([20, 20]), 20)
    modes = basis_for(lattice).forward(x)
    torch.testing.assert_close(to_points(modes, u, torch.ones(2)), x, rtol=0, atol=1e-5)


def test_points_follow_the_modes():
    schedule = schedule_of(SPECS["rgdm"], 128)
    numbers = [int(coefficients([schedule], [t]).number) for t in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert numbers == sorted(numbers, reverse=True)
    assert (numbers[0], numbers[-1]) == (128, 12)
    assert int(coefficients([schedule_of(SPECS["ddpm"], 128)], [1.0]).number) == 128
    assert enough(2, 5) == 5


@pytest.mark.parametrize("name", SPECS)
def test_coefficients_are_those_of_each_schedule(name):
    sites, times = (20, 45, 30), (0.9, 0.0, 0.3)
    schedules = [schedule_of(SPECS[name], n) for n in sites]
    spectra = [2 * schedule.prior_spectrum for schedule in schedules]
    found = coefficients(schedules, times, spectra)
    for row, (schedule, t, spectrum) in enumerate(zip(schedules, times, spectra, strict=True)):
        n, alive = sites[row], schedule.alive(t)
        alpha, sigma = (torch.where(alive, value, 0.0) for value in (schedule.alpha(t), schedule.sigma(t)))
        total = torch.where(alive, alpha**2 * spectrum + sigma**2, 1.0)
        by_hand = (alpha, sigma, alpha * spectrum / total, sigma * (spectrum / total).sqrt())
        for value, expected in zip(found, by_hand, strict=False):
            torch.testing.assert_close(value[row, :n], expected, rtol=1e-12, atol=1e-12)
        assert found.alive[row, :n].equal(alive)
        assert not found.alive[row, n:].any()
    assert found.sites.tolist() == list(sites)


def test_how_chains_are_grouped_changes_no_loss(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    chains = [gaussian_chain(n, SPECS["rgdm"], generator) for n in (60, 20, 33, 45)]
    model = ChainDiffusion(SPECS["rgdm"])
    loss = ChainLoss(chains, SPECS["rgdm"], lambda _: LogUniform())
    values = []
    for share in (0.0, 0.7, 1.0):
        monkeypatch.setattr("renorm.diffusion.chains.objective.ALIKE", share)
        values.append(loss(model.network, *loss.draw(torch.arange(4), torch.Generator().manual_seed(1))).item())
    assert max(values) - min(values) < 1e-5


@pytest.mark.parametrize("name", SPECS)
def test_what_a_gpu_records_looks_at_no_value(name):
    """On fake tensors, which have none; padded as on a GPU it is the same loss."""
    generator = torch.Generator().manual_seed(0)
    loss = ChainLoss([gaussian_chain(n, SPECS[name], generator) for n in (30, 20)], SPECS[name], lambda _: LogUniform())
    network = ChainDiffusion(SPECS[name]).network
    shown = loss.draw(torch.arange(2), generator)
    padded = objective._errors(network, objective._Shown(*shown), shown[0].shape[2])
    torch.testing.assert_close(padded.mean(), loss(network, *shown), rtol=1e-5, atol=1e-6)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        batch = objective._Shown(*(mode.from_tensor(x) for x in shown))
        objective._errors(network, batch, batch.phi.shape[2]).mean().backward()


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("t", [0.0, 0.3, 0.8, 1.0])
def test_a_silent_network_is_the_gaussian_denoiser(name, t):
    schedule = schedule_of(SPECS[name], 30)
    modes = torch.randn(4, 3, 30, generator=torch.Generator().manual_seed(0)) * schedule.prior_spectrum.sqrt().float()
    modes = torch.where(schedule.alive(t), modes, 0.0)
    exact = GaussianDenoiser(schedule, schedule.prior_spectrum)(modes, t)
    found = ChainDenoiser(silent, schedule)(modes, t)
    torch.testing.assert_close(found, torch.where(schedule.alive(t), exact, 0.0), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", SPECS)
def test_silence_costs_one_on_gaussian_chains(name):
    """Of the prior's own spectrum, which for plain diffusion is white."""
    generator = torch.Generator().manual_seed(0)
    chains = [gaussian_chain(n, SPECS[name], generator) for n in (20, 30, 30, 45) for _ in range(100)]
    loss = ChainLoss(chains, SPECS[name], lambda _: LogUniform())
    assert abs(loss(silent, *loss.draw(torch.arange(400), generator)).item() - 1) < 0.05


def test_a_batch_is_its_chains_one_by_one():
    spec = SPECS["rgdm"]
    generator = torch.Generator().manual_seed(0)
    chains, times = [gaussian_chain(n, spec, generator) for n in (50, 20, 33)], (0.1, 0.4, 0.9)
    model = ChainDiffusion(spec)
    schedules = [schedule_of(spec, chain.x.shape[1]) for chain in chains]
    here = coefficients(schedules, times).to(chains[0].x)
    coarse = Coarse(here.alive, here.number, here.sites)
    modes = torch.zeros(3, 3, 50)
    letters = torch.zeros(3, 50, dtype=torch.int64)
    for row, chain in enumerate(chains):
        modes[row, :, : chain.x.shape[1]] = torch.randn(chain.x.shape, generator=generator)
        letters[row, : chain.x.shape[1]] = chain.letters
    both = answer(model.network, modes, torch.tensor(times), coarse, (letters, None), points=int(here.number.max()))
    for row, chain in enumerate(chains):
        n = chain.x.shape[1]
        one = answer(
            model.network,
            modes[row : row + 1, :, :n],
            torch.tensor([times[row]]),
            Coarse(here.alive[row : row + 1, :n], here.number[row : row + 1], here.sites[row : row + 1]),
            (letters[row : row + 1, :n], None),
            points=int(here.number[row]),
        )
        torch.testing.assert_close(both[row, :, :n], one[0], rtol=1e-3, atol=1e-6)
        assert bool((both[row, :, n:] == 0).all())


@pytest.mark.parametrize("name", SPECS)
def test_drawn_from_silence_chains_are_those_of_the_prior(name):
    """Bonds of 3.8 angstrom, root mean square, of the paper's prior; white noise has longer ones."""
    spec = SPECS[name]
    model = ChainDiffusion(spec, network=silent)
    x = model.fold(torch.zeros(64, dtype=torch.int64), 200, generator=torch.Generator().manual_seed(0), batch=200)
    bonds = x.diff(dim=2).square().sum(1).mean().sqrt().item()
    prior = schedule_of(spec, 64).prior_spectrum[1:]
    expected = BOND_LENGTH if name == "rgdm" else math.sqrt(6 * prior.mean().item())
    assert abs(bonds / expected - 1) < 0.03
    assert x.mean(2).abs().max() < 1e-4


def test_one_length_keeps_to_the_hallway(tmp_path):
    model = ChainDiffusion(SPECS["rgdm"]).of(24)
    assert model.spec.steps == chain_steps(24)
    x = gaussian_chain(24, SPECS["rgdm"], torch.Generator().manual_seed(0)).x[None]
    coarse = model.coarsen(x, 2)
    fine = model.refine(coarse, level=2, generator=torch.Generator().manual_seed(1), steps=4)
    assert fine.shape == x.shape
    torch.testing.assert_close(model.decode(model.encode(x)), x, rtol=0, atol=1e-4)
    assert model.with_walk(sampler="ddim", steps=7).sample(1, generator=torch.Generator()).isfinite().all()
    with pytest.raises(RecipeError, match="a part of a ChainDiffusion"):
        model.fit()
    with pytest.raises(RecipeError, match="a part of a ChainDiffusion"):
        model.save(tmp_path)


def test_it_learns_and_reads_back(tmp_path):
    generator = torch.Generator().manual_seed(0)
    bent = [TrainingChain(helix(n, generator), torch.zeros(n, dtype=torch.int64)) for n in (16, 20, 24)]
    model = ChainDiffusion(SPECS["rgdm"])
    fit = FitSpec(steps=100, batch=6, lr=1e-2, warmup=5, ema=0.9, log_every=10)
    model.fit(bent * 4, spec=fit, folder=tmp_path, progress=False)
    model.save_frame(tmp_path)
    again = ChainDiffusion.load(tmp_path)
    draws = [m.fold(bent[0].letters, 2, generator=torch.Generator().manual_seed(1), steps=5) for m in (model, again)]
    assert torch.equal(*draws)
    assert again.remaining is not None
    assert again.remaining.share.min() < 0.9
    draws = [
        m.with_walk(sampler="analytic").fold(bent[0].letters, 2, generator=torch.Generator().manual_seed(1), steps=5)
        for m in (model, again, ChainDiffusion(model.spec, model.network, profile=model.profile))
    ]
    assert torch.equal(*draws[:2])
    assert not torch.allclose(draws[0], draws[2])
    longer = ChainDiffusion(SPECS["rgdm"]).fit(
        bent * 4, spec=replace(fit, steps=101), folder=tmp_path, resume=True, progress=False
    )
    assert not torch.equal(longer.remaining.share, model.remaining.share)  # of other weights
    losses = [line["loss"] for line in read_metrics(tmp_path / "metrics.jsonl")]
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("damage", ["absent", "damaged", "of other weights"])
def test_a_walk_never_takes_what_other_weights_leave_open(damage, tmp_path):
    """A fit that was killed after its weights: the analytic walk is refused, and a resume measures."""
    generator = torch.Generator().manual_seed(0)
    chains = [TrainingChain(helix(16, generator), torch.zeros(16, dtype=torch.int64))] * 6
    spec, fit = replace(SPECS["rgdm"], sampler="analytic"), FitSpec(steps=2, batch=6, warmup=0)
    model = ChainDiffusion(spec).fit(chains, spec=fit, folder=tmp_path, progress=False)
    model.save_frame(tmp_path)
    table = tmp_path / "remaining.safetensors"
    if damage == "absent":
        table.unlink()
    elif damage == "damaged":
        table.write_bytes(table.read_bytes()[:-9])
    else:
        ChainDiffusion(spec, seed=5, profile=model.profile, remaining=model.remaining).save(tmp_path / "other")
        shutil.copy(tmp_path / "other" / table.name, table)
    read, walk = ChainDiffusion.load(tmp_path), {"generator": torch.Generator(), "steps": 2}
    with pytest.raises(CheckpointError, match=r"remaining.safetensors.*--resume` measures it"):
        read.fold(chains[0].letters, **walk)
    ancestral = read.with_walk(sampler="ancestral")
    assert ancestral.fold(chains[0].letters, **walk).isfinite().all()
    with pytest.raises(CheckpointError, match="sampler 'analytic' needs"):
        ancestral.with_walk(sampler="analytic").fold(chains[0].letters, **walk)
    ChainDiffusion(spec).fit(chains, spec=fit, folder=tmp_path, resume=True, progress=False)
    torch.testing.assert_close(ChainDiffusion.load(tmp_path).remaining.share, model.remaining.share)


def test_a_saved_model_leaves_no_table_of_another(tmp_path):
    table = RemainingError(torch.full((2, 3), 0.5, dtype=torch.float64))
    for remaining in (table, None):
        model = ChainDiffusion(SPECS["rgdm"], profile=torch.ones(4, dtype=torch.float64), remaining=remaining)
        model.save(tmp_path)
        assert (ChainDiffusion.load(tmp_path).remaining is None) == (remaining is None)


def test_what_is_left_open_is_measured_alike_by_a_seed_and_draws_nothing_else():
    generator = torch.Generator().manual_seed(0)
    chains = [TrainingChain(helix(16, generator), torch.zeros(16, dtype=torch.int64))] * 3
    model = ChainDiffusion(SPECS["rgdm"]).measure(chains)
    state = torch.random.get_rng_state()
    first, second, other = (model.measure_remaining(chains, seed=seed).remaining.share for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_chains_of_the_priors_spectrum_walk_where_modes_are_in_doubt():
    spec = replace(SPECS["rgdm"], spectrum="prior", spacing="mode-share", training="mode-share", sampler="analytic")
    model = ChainDiffusion(spec)
    assert model.fold(torch.zeros(20, dtype=torch.int64), 1, generator=torch.Generator(), steps=4).isfinite().all()


def helix(sites: int, generator: torch.Generator) -> torch.Tensor:
    """An ideal alpha helix, turned at random: 1.5 angstrom and 100 degrees a residue."""
    turn = torch.arange(sites) * math.radians(100)
    x = torch.stack([2.3 * turn.cos(), 2.3 * turn.sin(), 1.5 * torch.arange(sites)])
    q, _ = torch.linalg.qr(torch.randn(3, 3, generator=generator))
    return q * torch.linalg.det(q) @ x


def test_the_spectrum_is_measured():
    spec = SPECS["rgdm"]
    generator = torch.Generator().manual_seed(0)
    chains = [gaussian_chain(n, spec, generator) for n in (20, 41) for _ in range(300)]
    profile = measure_profile(2 * modes_of(chain.x) for chain in chains)
    assert (profile / 4 - 1).abs().max() < 0.2
    torch.testing.assert_close(spectrum_of(None, 41), schedule_of(spec, 41).prior_spectrum, rtol=1e-12, atol=0)
    assert (spectrum_of(profile, 30) / spectrum_of(None, 30) / 4 - 1).abs().max() < 0.2
    with pytest.raises(DataError, match="needs a chain"):
        measure_profile([])


def test_bad_input_is_one_clear_line(tmp_path):
    model = ChainDiffusion(SPECS["rgdm"])
    x, letters = torch.zeros(3, 24), torch.zeros(24, dtype=torch.int64)
    with pytest.raises(RecipeError, match="features must be one for each of the 24 residues, got 25"):
        model.of(24, features=torch.zeros(25, 3))
    for wrong, what in (((letters[1:],), "letters"), ((letters, torch.zeros(23, 3)), "features")):
        with pytest.raises(DataError, match=f"{what} must be one for each of the 24 residues, got 23"):
            TrainingChain(x, *wrong)
    with pytest.raises(RecipeError, match="letters must be one for each of the 24 residues, got 23"):
        model.of(24, torch.zeros(23, dtype=torch.int64))
    with pytest.raises(ValueError, match="at least 3 sites"):
        model.of(2)
    with pytest.raises(RecipeError, match="unknown spacing"):
        ChainDiffusion(ChainSpec(spacing="evn", network=SMALL))
    with pytest.raises(CheckpointError, match="no chain diffusion"):
        ChainDiffusion.load(tmp_path)
    model.save_frame(tmp_path)
    with pytest.raises(CheckpointError, match="no weights yet"):
        ChainDiffusion.load(tmp_path)
    model.save(tmp_path)
    with pytest.raises(CheckpointError, match=r"lacks profile\.safetensors"):
        ChainDiffusion.load(tmp_path)
