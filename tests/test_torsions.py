"""Torsion angles: files that are read or refused, surfaces against von Mises laws, errors against theory, real runs."""

import json
import math
from itertools import pairwise

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import torch

from renorm.bench import ala2
from renorm.data import store
from renorm.data.torsions import TorsionRun, alanine_dipeptide, read_torsions
from renorm.errors import DataError
from renorm.laws.thermal import thermal_energy
from renorm.measure.torsions import free_energy, surface, surface_error, surface_rmse

RT = 2.4943387854  # kJ/mol at 300 K, R = 8.314462618 J/mol/K
COLVAR = (
    "#! FIELDS time phi psi ene opes.bias\n#! SET min_phi -pi\n 0.0 -1.5 3.1 -40 0\n 1.0 3.14159 -0.5 -39 4.9886776\n"
)


@pytest.fixture
def colvar(tmp_path):
    path = tmp_path / "COLVAR"
    path.write_text(COLVAR)
    return path


@pytest.fixture
def runs(shared_data, monkeypatch):
    """The file of alanine dipeptide, where it is."""
    if not (shared_data / "molecules" / "ala2_colvar.npz").is_file():
        pytest.skip("needs molecules/ala2_colvar.npz: set RENORM_DATA")
    monkeypatch.setattr(store, "roots", lambda: [shared_data])


# Files


@pytest.mark.parametrize(("unit", "nats"), [("kJ/mol", 2.0), ("kcal/mol", 2 * 4.184), ("kT", 4.9886776)])
def test_a_bias_becomes_weights_in_its_unit(colvar, unit, nats):
    run = read_torsions(colvar, temperature=300.0, bias_unit=unit)
    torch.testing.assert_close(run.log_weights, torch.tensor([0.0, nats]).double(), rtol=1e-6, atol=0)
    assert run.time.tolist() == [0.0, 1.0]
    assert run.angles.tolist() == [[[-1.5, 3.1]], [[3.14159, -0.5]]]
    half = read_torsions(colvar, temperature=600.0, bias_unit=unit).log_weights[1] / run.log_weights[1]
    assert half == pytest.approx(1.0 if unit == "kT" else 0.5)


def test_an_npz_and_a_colvar_file_give_the_same_run(colvar, tmp_path):
    names = np.array(["time", "phi", "psi", "ene", "opes.bias"])
    values = np.array([[0, -1.5, 3.1, -40, 0], [1, 3.14159, -0.5, -39, 4.9886776]])
    np.savez(tmp_path / "runs.npz", multi=values, multi_fields=names)
    a = read_torsions(tmp_path / "runs.npz", run="multi", temperature=300.0, bias_unit="kJ/mol")
    b = read_torsions(colvar, temperature=300.0, bias_unit="kJ/mol")
    assert all(torch.equal(getattr(a, key), getattr(b, key)) for key in ("phi", "psi", "log_weights", "time"))
    with pytest.raises(DataError, match="say which, such as run='multi'"):
        read_torsions(tmp_path / "runs.npz", temperature=300.0)
    with pytest.raises(DataError, match="must hold an array 'A', got multi"):
        read_torsions(tmp_path / "runs.npz", run="A", temperature=300.0)


def test_a_run_without_a_bias_needs_no_unit_and_two_biases_add_up(tmp_path):
    path = tmp_path / "COLVAR"
    path.write_text("#! FIELDS time phi psi\n0 1 2\n")
    assert read_torsions(path, temperature=300.0).log_weights.tolist() == [0.0]
    path.write_text("#! FIELDS time phi psi a.bias b.bias\n0 1 2 0.5 0.25\n")
    assert read_torsions(path, temperature=300.0, bias_unit="kT").log_weights.tolist() == [pytest.approx(0.75)]


@pytest.mark.parametrize(
    ("text", "unit", "message"),
    [
        (COLVAR, None, r"'opes.bias' of .* needs its unit, which the file does not name"),
        (COLVAR, "eV", r"bias_unit must be one of 'kJ/mol', 'kcal/mol', 'kT', got 'eV'"),
        (COLVAR.replace("-1.5", "nan"), "kT", "phi must be finite, got nan at frame 0"),
        (COLVAR.replace("4.9886776", "inf"), "kT", "log_weights must be finite, got inf at frame 1"),
        (COLVAR.replace("3.1 ", "177 "), "kT", r"'psi' of .* must be in rad, got 177"),
        (COLVAR.replace("psi", "chi"), "kT", "must have a column 'psi', got time, phi, chi, ene, opes.bias"),
        (COLVAR + " 2.0 1.0\n", "kT", r"line 5 of .* must hold 5 numbers"),
        (COLVAR + " 2.0 1.0 x 0 0\n", "kT", r"line 5 of .* must hold 5 numbers"),
        (COLVAR + "#! FIELDS time phi\n", "kT", "line 5 of .* changes the columns"),
        ("", "kT", "must be a COLVAR file of PLUMED"),
    ],
)
def test_a_bad_file_is_told(tmp_path, text, unit, message):
    path = tmp_path / "COLVAR"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_torsions(path, temperature=300.0, bias_unit=unit)


def test_an_absent_file_is_told_with_the_places_where_it_may_be(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="there is no file"):
        read_torsions(tmp_path / "COLVAR", temperature=300.0)
    monkeypatch.setattr(store, "roots", lambda: [tmp_path])
    with pytest.raises(DataError, match=rf"no molecules.ala2_colvar.npz in {tmp_path}.*set RENORM_DATA"):
        alanine_dipeptide()
    with pytest.raises(DataError, match="ala2_colvar"):
        ala2.run(0)


def test_a_run_is_checked_and_cut():
    zero = torch.zeros(3).double()
    with pytest.raises(DataError, match="phi 3, psi 2, log_weights 3, time 3"):
        TorsionRun(zero, zero[:2], zero, zero, 300.0)
    with pytest.raises(DataError, match="psi must be in rad, -pi <= angle < pi"):
        TorsionRun(zero, zero + math.pi, zero, zero, 300.0)
    with pytest.raises(ValueError, match="temperature must be > 0 K"):
        TorsionRun(zero, zero, zero, zero, 0.0)
    run = TorsionRun(zero, zero + 1, zero, torch.arange(3).double(), 300.0)
    assert run.thermal_energy == pytest.approx(RT)
    assert run.frames(run.time > 0).time.tolist() == [1.0, 2.0]
    assert len(run.frames(slice(1))) == 1


# Surfaces


def von_mises(kappa, edges):
    return np.diff(scipy.stats.vonmises(kappa).cdf(edges))


def test_the_surface_of_a_von_mises_law_is_its_cosine(generator):
    bins, kappa = 18, 1.5
    edges = np.linspace(-math.pi, math.pi, bins + 1)
    exact = free_energy(torch.from_numpy(von_mises(kappa, edges)), temperature=300.0)
    x = torch.from_numpy(np.random.default_rng(0).vonmises(0, kappa, (200_000, 1, 1)))
    found = surface(x, bins, temperature=300.0)
    scale = RT / found.effective.sqrt()
    assert ((found.value - exact - (found.value - exact).mean()).abs() < 5 * scale).all()
    # by hand: - RT ln p = - RT kappa cos(phi) at the centre of a bin, to the order of its width squared
    centre = torch.from_numpy((edges[1:] + edges[:-1]) / 2)
    assert surface_rmse(exact, -RT * kappa * centre.cos(), torch.ones(bins, dtype=bool)) < 0.02 * RT * kappa


def test_weights_turn_one_law_into_another():
    """Flat angles with weights of two angles that know each other, against quadrature."""

    def density(phi, psi):
        return math.exp(1.2 * math.cos(phi) + 0.8 * math.cos(phi - psi))

    x = 2 * math.pi * torch.rand(400_000, 1, 2, generator=torch.Generator().manual_seed(1)).double() - math.pi
    log_weights = 1.2 * x[:, 0, 0].cos() + 0.8 * (x[:, 0, 0] - x[:, 0, 1]).cos() + 700  # constants do not matter
    found = surface(x, 4, temperature=300.0, log_weights=log_weights)
    edges = np.linspace(-math.pi, math.pi, 5)
    exact = [[scipy.integrate.dblquad(density, c, d, a, b)[0] for a, b in pairwise(edges)] for c, d in pairwise(edges)]
    exact = torch.tensor(exact).double().T  # dblquad integrates its first argument inside
    torch.testing.assert_close(found.probability, exact / exact.sum(), rtol=0.03, atol=0)
    assert found.probability.sum() == pytest.approx(1)
    assert found.value.min() == 0


def test_effective_frames_are_those_of_kish_and_whole_turns_do_not_matter():
    x = torch.tensor([0.1, 0.2, 0.3, -0.1])[:, None, None]
    logs = torch.tensor([2.0, 1.0, 1.0, 5.0]).log()
    found = surface(x, 2, temperature=300.0, log_weights=logs)
    torch.testing.assert_close(found.effective, torch.tensor([1.0, 16 / 6]).double())
    turned = surface(
        x + torch.tensor([2.0, -2.0, 4.0, 6.0])[:, None, None] * math.pi, 2, temperature=300.0, log_weights=logs
    )
    assert torch.equal(turned.probability, found.probability)
    assert surface(x[:3], 2, temperature=300.0).value.tolist() == [math.inf, 0.0]


def test_the_best_constant_is_the_plain_mean_of_the_chosen_bins(generator):
    a, b = torch.randn(2, 30, generator=generator).double()
    chosen = torch.arange(30) < 20
    least = min(float((a - b - c)[chosen].square().mean().sqrt()) for c in np.linspace(-3, 3, 6001))
    assert surface_rmse(a, b, chosen) == pytest.approx(least, rel=1e-5)
    assert surface_rmse(a, a + 7, chosen) < 1e-12
    with pytest.raises(DataError, match="at least 2 bins, got 1"):
        surface_rmse(a, b, torch.arange(30) < 1)
    a[3] = math.inf
    with pytest.raises(DataError, match="got 1 of 20 that are empty"):
        surface_rmse(a, b, chosen)


@pytest.mark.parametrize("count", [2, 6])
def test_the_error_of_a_surface_is_its_scatter_over_runs(count):
    """Frames in clumps of 10 that are the same: the blocks must know, and sqrt(10) is what they know."""
    generator, chosen, blocks = torch.Generator().manual_seed(0), torch.arange(6) < count, 200

    def clumped():
        return (2 * math.pi * torch.rand(200, 1, 1, generator=generator) - math.pi).repeat_interleave(10, 0)

    truth = torch.zeros(6).double()
    scatter = [surface_rmse(surface(clumped(), 6, temperature=300.0).value, truth, chosen) for _ in range(300)]
    true = math.sqrt(np.mean(np.square(scatter)))
    kwargs = {"temperature": 300.0, "generator": generator}
    found = [surface_error(clumped(), 6, chosen, blocks=blocks, **kwargs) for _ in range(10)]
    assert np.mean(found) == pytest.approx(true, rel=0.1)
    blind = surface_error(clumped(), 6, chosen, blocks=2000, **kwargs)
    assert blind == pytest.approx(true / math.sqrt(10), rel=0.2)


def test_surfaces_refuse_what_has_no_meaning(generator):
    x = torch.zeros(3, 1, 1)
    with pytest.raises(ValueError, match="temperature must be > 0 K"):
        thermal_energy(-1.0)
    with pytest.raises(ValueError, match="at least 1 bin"):
        surface(x, 0, temperature=300.0)
    with pytest.raises(DataError, match="at least 1 frame"):
        surface(x[:0], 2, temperature=300.0)
    with pytest.raises(DataError, match="must be finite"):
        surface(x / 0, 2, temperature=300.0)
    with pytest.raises(DataError, match="3 samples, got 2 log weights"):
        surface(x, 2, temperature=300.0, log_weights=torch.zeros(2))
    for p in ([-0.1, 1.1], [0.0, 0.0], [math.nan, 1.0]):
        with pytest.raises(DataError, match="must be finite and >= 0"):
            free_energy(torch.tensor(p), temperature=300.0)
    with pytest.raises(DataError, match="each with a frame in it"):
        surface_error(x, 2, torch.ones(2, dtype=bool), temperature=300.0, blocks=2, generator=generator)


# The benchmark's own parts


def test_a_kernel_density_wraps_and_is_the_law_that_it_should_be():
    zero = torch.zeros(1).double()
    edge = TorsionRun(zero - math.pi, zero, zero, zero, 300.0)
    p = ala2.kernel_density(edge, 0.3, 12)
    torch.testing.assert_close(p, p.flip(0))  # a frame on the seam lies on both sides
    torch.testing.assert_close(p, p.flip(1))
    inner = scipy.stats.norm(0, 0.3).cdf(math.pi / 6) - 0.5
    assert float(p[0].sum()) == pytest.approx(inner, rel=1e-3)


def test_a_kernel_density_of_one_frame_is_foretold_best_by_the_width_of_the_others():
    """Frames of a normal law of 0.3 rad: neither a thirtieth of it nor all of it."""
    phi, psi = (0.3 * torch.randn(2, 600, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).unbind()
    zero = torch.zeros_like(phi)
    run = TorsionRun(phi, psi, zero, zero, 300.0)
    assert 0.05 < ala2.chosen_bandwidth(run) < 0.25
    # by hand: the circular variance of a normal law is its variance
    assert ala2.scott(run) == pytest.approx(0.3 * 600 ** (-1 / 6), rel=0.1)


def test_cells_are_shared_among_bins():
    share = ala2.overlap(64, 36)
    torch.testing.assert_close(share.sum(0), torch.ones(64).double())
    torch.testing.assert_close(share.sum(1), torch.full((36,), 64 / 36).double())


# The real runs


def test_the_bias_of_the_real_run_is_in_kj_per_mol_and_weighs_up(runs):
    """In a basin that both visit, the reweighted run has the law of the unbiased one; with the other sign not."""
    multi, alone = alanine_dipeptide("multi"), alanine_dipeptide("B")
    assert (len(multi), len(alone), multi.temperature) == (5001, 5001, 300.0)
    assert (multi.log_weights[:101] == 0).all()
    assert (alone.log_weights == 0).all()
    settled = multi.frames(multi.time >= 500)

    def gap(share):
        found = surface(settled.angles, 36, temperature=300.0, log_weights=share * settled.log_weights)
        chosen = (surface(settled.angles, 36, temperature=300.0).effective >= 20) & (reference.effective >= 20)
        return surface_rmse(found.value, reference.value, chosen)

    reference = surface(alone.angles, 36, temperature=300.0)
    assert gap(1.0) < 1.0
    assert gap(-1.0) > 5.0


def test_an_error_is_that_of_the_held_out_part(runs):
    settled = alanine_dipeptide("multi")
    pieces = ala2.splits(settled.frames(settled.time >= 500))
    assert [split.name for split in pieces] == ["first-half", "second-half", "even-pieces", "odd-pieces"]
    for split in pieces:
        assert not set(split.train.time.tolist()) & set(split.test.time.tolist())
        assert len(split.train) + len(split.test) == 4501
    assert json.dumps(ala2.agrees(settled, "B", 0))
