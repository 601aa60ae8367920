"""What a denoiser leaves open, and the ancestral steps that draw no more than that."""

import pytest
import torch

from renorm.diffusion.denoiser import GaussianDenoiser
from renorm.diffusion.presets import rgdm_chain, rgdm_images, white
from renorm.diffusion.remaining import Look, RemainingError
from renorm.diffusion.reverse import Walk
from renorm.diffusion.sampler import Analytic, Ancestral
from renorm.diffusion.schedule import CLEAN
from renorm.lattice import Lattice


def steps_of(sampler, schedule, spectrum, t, s):
    """One step from the same field with the same noise."""
    shape = (5, schedule.lattice.channels, *schedule.lattice.shape)
    phi = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    walk = Walk(schedule, GaussianDenoiser(schedule, spectrum), lambda: noise, None, phi, spectrum=spectrum)
    return sampler.step(phi, t, s, walk, None)[0]


@pytest.mark.parametrize("make", [white, rgdm_images], ids=lambda f: f.__name__)
def test_with_all_left_open_it_is_ancestral_of_the_spectrum_and_with_nothing_its_small_limit(make):
    schedule = make(Lattice((6,)))
    spectrum = schedule.prior_spectrum * torch.linspace(0.2, 2, 6, dtype=torch.float64)
    for share, ancestral in ((1.0, Ancestral(spectrum)), (0.0, Ancestral("small"))):
        table = RemainingError(torch.full((3, 4), share, dtype=torch.float64))
        found, expected = (steps_of(sampler, schedule, spectrum, 0.6, 0.4) for sampler in (Analytic(table), ancestral))
        alive = schedule.alive(0.6)
        torch.testing.assert_close(found[..., alive], expected[..., alive], rtol=1e-9, atol=1e-9)
    assert torch.equal(
        steps_of(Analytic(), schedule, spectrum, 0.6, CLEAN),
        steps_of(Ancestral("small"), schedule, spectrum, 0.6, CLEAN),
    )
    torch.testing.assert_close(
        steps_of(Analytic(), schedule, spectrum, 0.6, 0.4),
        steps_of(Analytic(RemainingError(torch.ones(2, 2, dtype=torch.float64))), schedule, spectrum, 0.6, 0.4),
    )


def test_the_exact_denoiser_leaves_all_of_gaussian_chains_open():
    from renorm.diffusion.chains.denoiser import ChainDenoiser

    schedule = rgdm_chain(40)
    denoiser = ChainDenoiser(lambda points, *_: torch.zeros_like(points.x), schedule)
    generator = torch.Generator().manual_seed(0)

    def looks():
        for _ in range(200):
            x, noise = (torch.randn(1, 3, 40, generator=generator) for _ in range(2))
            for t in (0.0, 0.5, 1.0):
                yield denoiser.look(x * schedule.prior_spectrum.sqrt().float(), t, noise)

    share = RemainingError.measured(looks(), scales=3, ratios=6).share
    assert (share - 1).abs().max() < 0.1


def test_bins_of_few_modes_take_the_nearest_and_scales_of_none_the_finer_one():
    many = torch.full((30,), -6.0)
    looks = [Look(0.5, many, torch.full((30,), 0.25)), Look(0.5, torch.tensor([8.0]), torch.tensor([9.0]))]
    share = RemainingError.measured(looks, scales=3, ratios=4).share
    assert share[0].tolist() == [1.0] * 4
    assert share[1].tolist() == [0.25] * 4
    assert share[2].tolist() == [0.25] * 4
    table = RemainingError(torch.tensor([[0.0, 1.0], [1.0, 3.0]], dtype=torch.float64))
    assert table.at(0.25, torch.tensor([-100.0, 100.0])).tolist() == [0.25, 1.5]


def test_a_mode_that_is_finished_at_the_end_of_a_step_becomes_the_clean_one():
    schedule = rgdm_chain(40)
    times = torch.linspace(0, 1, 200).tolist()
    s = next(s for s in times if bool((schedule.sigma(s) == 0).any()) and bool((schedule.sigma(s) > 0).any()))
    t = s + 0.2
    done = schedule.alive(t) & (schedule.sigma(t) > 0) & (schedule.sigma(s) == 0)
    assert done.any()
    found = steps_of(Analytic(), schedule, 0.5 * schedule.prior_spectrum, t, s)
    phi = torch.randn(found.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x0 = GaussianDenoiser(schedule, 0.5 * schedule.prior_spectrum)(phi, t)
    torch.testing.assert_close(found[..., done], x0[..., done])


def test_ten_steps_keep_most_of_the_variance_of_gaussian_chains_and_fifty_nearly_all():
    """What is lost is the last bit of modes as they become clean."""
    from renorm.diffusion.reverse import start, walk_up
    from renorm.diffusion.spacing import SPACINGS, grid

    schedule = rgdm_chain(64)
    spectrum = schedule.prior_spectrum
    generator = torch.Generator().manual_seed(0)

    def draw():
        return torch.randn(300, 3, 64, generator=generator)

    for steps, least in ((10, 0.9), (50, 0.98)):
        times = grid(SPACINGS["mode-share"](spectrum), schedule, steps)
        begin = start(schedule, times[0], draw(), spectrum=spectrum)
        denoiser = GaussianDenoiser(schedule, spectrum)
        x = walk_up(schedule, denoiser, Analytic(), times, begin, draw, spectrum=spectrum)
        kept = (x.double().square().mean((0, 1)) / spectrum)[1:].mean()
        assert least < kept < 1.02


@pytest.mark.parametrize("share", [-1.0, float("nan"), float("inf")])
def test_shares_are_numbers_that_are_not_negative(share):
    with pytest.raises(ValueError, match="shares must be >= 0"):
        RemainingError(torch.full((3, 4), share, dtype=torch.float64))
