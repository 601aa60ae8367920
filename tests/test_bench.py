"""Benchmarks keep one shape, and their arithmetic is right; the long ones run by ``renorm bench`` alone."""

import json
import math
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import torch

from renorm.bench import BENCHMARKS, cores, gaussian_nfe, mixture_nfe
from renorm.bench.result import Result, run_benchmark
from renorm.errors import DataError, RecipeError

RESULTS = Path(__file__).parents[1] / "docs" / "results"
KEYS = {"bench", "command", "commit", "date", "machine", "seeds", "figures", "table"}
TRAINED = {
    *(f"fd_{method}_{n}" for method in ("ours", "white_twin", "edm_best", "ddpm_best") for n in (10, 20)),
    "fd_ddpm_ancestral_200",
    "fd_rgdm_paper_best_20",
    "fd_floor",
}
FIGURES = {
    "gaussian-nfe": {"rg_best_nfe_k2", "rg_best_nfe_k3", "ddpm_ancestral_nfe_k2", "ddpm_ancestral_nfe_k3"},
    "mixture-nfe": {
        "rg_best_nfe_k2",
        "rg_best_nfe_k3",
        "white_best_nfe_k2",
        "white_best_nfe_k3",
        "ddpm_ancestral_nfe_k2",
    },
    "mnist16": TRAINED,
    "cifar16": TRAINED,
    "gaussian16": {f"sliced_wasserstein_{m}_{n}" for m in ("ours", "white_twin", "edm_best") for n in (10, 20)},
    "cifar10": {"fd_ours_20", "fd_nested_20", "fd_ddpm_20", "fd_ddpm_200", "fd_ddpm_1000", "fd_edm_20", "gpu_seconds"},
    "likelihood": {"gaussian_bits_error", "bits_error_flow_k3", "bits_error_bound_k2_untold"},
    "memory": {"sample_10000_mib", "fit_mib"},
    "mnist16-speed": {"step_ratio_to_white", "seconds_per_step"},
    "resume": {"kills", "identical"},
    "demo": {"seconds"},
    "tokens-mnist": {
        "accuracy_lite_20k",
        "accuracy_lite_60k",
        "accuracy_lite_position",
        "accuracy_best",
        "seconds_best",
        "accuracy_1000_labels",
        "accuracy_rgm",
        "fd_generated",
    },
    "tokens-codec": {"bits_per_pixel", "bits_per_pixel_png", "images_exact"},
    "tokens-speed": {"speedup_over_loops"},
    "tokens-levels": {"accuracy_level1", "accuracy_level4", "accuracy_tree", "nats_per_image"},
    "gff": {"max_entropy_error", "ess", "max_condition"},
    "phi4": {
        "log_z_4",
        "acceptance_4",
        "seconds_4",
        "acceptance_8",
        "acceptance_16",
        "chi_16",
        "chi_16_error",
    },
    "ising": {"log_z_16", "ess_16", "ess_32", "ess_64", "ess_one_scale_16"},
    "wcrg": {"beta", "lambda", "tau_8", "tau_64"},
    "scaling": {"gamma_over_nu", "gamma_over_nu_error"},
    "lognormal": {"max_power_error", "max_bispectrum_error", "ks_p"},
    "lognormal-large": {"cascade_2d_max_power_error", "cascade_3d_max_power_error"},
    "longrange": {"cascade_error", "one_scale_error", "g_error_ours", "g_error_ddpm", "g_error_edm"},
    "mixture-work": {"work_ratio_k2", "work_ratio_k3", "work_ratio_white_k2", "work_ratio_white_k3"},
    "regulators": {f"work_{prior}_{data}" for prior in ("paper", "separated") for data in ("k2", "k3")},
    "profile": {"step_seconds", "basis_changes", "part_forward", "part_backward", "compiled_ratio"},
    "cascade-images": {"bits_per_dim", "bits_per_dim_one_scale"},
    "pong": {
        "hits",
        "misses",
        "learn_seconds_10k",
        "frames_per_second",
        "random_serve_hits_20k",
        "random_serve_misses_20k",
        "q_learner_hits_20k",
    },
    "mnist32": {
        "time_ratio_at_ddpm200_fd",
        "fd_ours_best",
        "fd_ddpm_best",
        "fd_edm_best",
        "fd_white_twin_best",
        "train_step_ratio",
    },
    "clothing64": {"fd_ours_best", "fd_white_twin_best", "fd_ddpm_best", "fd_edm_best", "time_ratio_at_ddpm200_fd"},
    "mnist32-lattices": {
        "train_step_ratio",
        *(f"fd_{which}_short_{n}" for which in ("ours", "sites", "sites_folded", "folded") for n in (10, 20)),
    },
    "breakout": {"score", "score_random", "score_q_learner"},
    "structure-cost": {"seconds_1e6", "bytes_1e6", "growth_exponent"},
    "movie": {"exact", "bits_ratio_to_gzip", "completed"},
    "chain": {"rg2_linear", "rg2_ring", "log_z_error_max"},
    "learned-rg": {"bound_gap_nats", "neural_rg_gap_nats", "mutual_information_ratio"},
    "particles": {"dw4_ess", "dw4_ess_one_scale", "lj13_energy_w1", "lj13_energy_w1_one_scale"},
    "information": {"mutual_information_ratio"},
    "staged-codebooks": set(),
    "backmap": {"bond_tv", "angle_tv"},
    "ala2": {"fes_rmse_kj_mol", "histogram_rmse_kj_mol", "kde_rmse_kj_mol", "floor_kj_mol", "bins", "share"},
    "protein": {
        *(
            f"{method}_{key}_{evaluations}"
            for method in ("rgdm", "ddpm")
            for key in ("bond_rmse", "angle_js", "dihedral_js", "rg_error", "clashes")
            for evaluations in (50, 500)
        ),
        "median_tm_heldout_rgdm",
        "median_tm_heldout_ddpm",
        "median_tm_cameo_rgdm",
        "median_tm_cameo_ddpm",
        "median_tm_cameo_nearest",
        "seconds_per_structure_128",
        "growth_exponent",
    },
}


def test_a_result_has_its_shape_and_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(gaussian_nfe, "run", lambda seed: Result({"x": 1.0}, [{"a": 1}], (seed,)))
    report = run_benchmark("gaussian-nfe", seed=3, keep=tmp_path)
    assert set(report) >= KEYS
    assert report["figures"] == {"x": 1.0}
    assert report["seeds"] == [3]
    assert json.loads((tmp_path / "gaussian-nfe.json").read_text()) == report


def test_an_unknown_benchmark_is_named():
    with pytest.raises(RecipeError, match="unknown benchmark 'warp'; known: gaussian-nfe"):
        run_benchmark("warp")


@pytest.mark.parametrize("name", BENCHMARKS)
def test_kept_results_have_the_figures_that_others_read(name):
    kept = json.loads((RESULTS / f"{name}.json").read_text())
    assert set(kept) >= KEYS
    assert set(kept["figures"]) >= FIGURES[name]
    assert kept["bench"] == name


def test_spectra_of_the_gaussian_benchmark():
    """Both have mean 0.25; k3 falls from 188.28 at the zero mode, computed apart from this package."""
    for spectrum in gaussian_nfe.spectra().values():
        assert abs(spectrum.mean().item() - 0.25) < 1e-12
    assert abs(gaussian_nfe.spectra()["k3"][0, 0].item() - 188.28391366) < 1e-6


def test_passing_means_from_there_on():
    kl = {n: [0.5] for n in gaussian_nfe.EVALUATIONS}
    assert gaussian_nfe.first_passing(kl, 1.0) == 5
    for bad in ([1.1], [0.5, 1.1], [0.5, math.nan]):
        assert gaussian_nfe.first_passing(kl | {20: bad}, 1.0) == 50
        assert gaussian_nfe.first_passing(kl | {1000: bad}, 1.0) == 0


# Published beside the benchmark's definition, from an independent program: (data, schedule, sampler, N) -> nats.
KNOWN = [
    ("k2", "ddpm", "ancestral", 200, 0.929),
    ("k2", "rgdm", "ancestral", 10, 0.170),
    ("k3", "rgdm", "ancestral", 100, 0.662),
    ("k3", "ddpm", "ddim", 20, 388.0),
]


@pytest.mark.parametrize(("data", "name", "sampler", "evaluations", "nats"), KNOWN)
def test_divergence_of_known_methods(data, name, sampler, evaluations, nats):
    spectrum = gaussian_nfe.spectra()[data]
    schedule, spacing = next((s, p) for n, s, p, _ in gaussian_nfe.methods(spectrum) if n == name)
    kl = gaussian_nfe._divergence(schedule, spectrum, sampler, spacing, evaluations)
    assert abs(kl / nats - 1) < 5e-3


def test_paper_prior_reaches_both_spectra_in_ten_evaluations():
    """The bar of the benchmark: at most 1 nat at 10 evaluations, no look at the data's spectrum."""
    for spectrum in gaussian_nfe.spectra().values():
        schedule, spacing = next((s, p) for n, s, p, _ in gaussian_nfe.methods(spectrum) if n == "rgdm")
        for evaluations in (10, 20, 50):
            assert gaussian_nfe._divergence(schedule, spectrum, "angle-pc", spacing, evaluations) < 1.0


def test_the_mixtures_denoiser_is_tweedies_formula():
    """alpha x0 = phi + sigma^2 grad ln p(phi), the gradient by autograd, at a scale where both amplitudes count."""
    schedule = next(mixture_nfe.methods()).schedule
    spectrum = mixture_nfe.spectra()["k3"]
    generator = torch.Generator().manual_seed(0)
    t = schedule.time(0.47 / 8)  # the noise of sigma/alpha = 8, where the amplitude is decided
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    clean = spectrum.sqrt() * torch.randn(4, 1, 32, 32, generator=generator, dtype=torch.float64)
    phi = alpha * clean + sigma * torch.randn(clean.shape, generator=generator, dtype=torch.float64)
    phi = torch.where(schedule.alive(t), phi, 0.0).requires_grad_()
    parts = []
    for a in (0.5, 2.0):
        law = torch.distributions.Normal(0.0, (alpha**2 * a**2 * spectrum + sigma**2).sqrt())
        parts.append(torch.where(schedule.alive(t), law.log_prob(phi), 0.0).flatten(1).sum(1))
    share = torch.stack(parts).softmax(0)
    assert ((share > 0.05) & (share < 0.95)).any()  # both are in play
    (slope,) = torch.autograd.grad(torch.stack(parts).logsumexp(0).sum(), phi)
    exact = torch.where(schedule.alive(t), (phi + sigma**2 * slope) / alpha, 0.0)
    found = mixture_nfe.MixtureDenoiser(schedule, spectrum)(phi.detach(), t)
    torch.testing.assert_close(found, exact.detach(), rtol=1e-9, atol=1e-9)


def test_the_distance_of_log_amplitudes():
    """Exact samples lie at the floor; a field half as strong lies ln 2 away; one amplitude alone ln(4) / 2."""
    generator = torch.Generator().manual_seed(0)
    n, modes = 4000, 1024
    strength = torch.randn(n, modes, generator=generator).square().mean(1).double().log() / 2
    a = torch.tensor([0.5, 2.0]).double().log()
    exact = a[torch.arange(n) % 2] + strength
    assert mixture_nfe.wasserstein(exact) < 0.005
    assert mixture_nfe.wasserstein(exact - math.log(2)) == pytest.approx(math.log(2), abs=0.01)
    assert mixture_nfe.wasserstein(a[0] + strength) == pytest.approx(math.log(4) / 2, abs=0.01)


def test_shells_of_the_mixture_part_the_modes():
    shells = torch.stack(mixture_nfe._shells())
    assert (shells.sum(0) == 1).all()
    assert shells.flatten(1).any(1).all()
    assert shells[0, 0, 0]
    assert shells[-1, -1, -1]


def test_a_method_passes_where_it_passes_from_there_on():
    good, bad = mixture_nfe.Figures(0.05, 0.05), mixture_nfe.Figures(0.05, 0.2)
    assert mixture_nfe.passing({4: good, 5: bad, 6: good, 10: good}) == 6
    assert mixture_nfe.passing({4: good, 5: good, 6: bad}) == 0


def test_more_samples_decide_where_a_method_first_passes():
    good, bad, better = (mixture_nfe.Figures(x, 0.05) for x in (0.09, 0.11, 0.08))
    asked = []

    def again(n):
        asked.append(n)
        return {3: bad, 4: better, 5: better, 6: bad, 7: better, 8: better}[n]

    found = mixture_nfe.confirmed({3: bad, 4: bad, 5: good, 6: good, 7: good, 8: good}, again)
    assert mixture_nfe.passing(found) == 4  # one that had failed passes, so the one before is asked too
    assert sorted(asked) == [3, 4, 5]
    asked.clear()
    found = mixture_nfe.confirmed({3: bad, 4: bad, 5: bad, 6: good, 7: good, 8: good}, again)
    assert mixture_nfe.passing(found) == 7
    assert sorted(asked) == [5, 6, 7]
    assert found[7] == better
    assert mixture_nfe.confirmed({3: bad}, again) == {3: bad}


def test_the_running_spectrum_needs_six_evaluations_on_the_mixture(monkeypatch):
    """The bar of the benchmark, with fewer samples: 0.10 at six evaluations, where the best white solver is far."""
    monkeypatch.setattr(mixture_nfe, "SEEDS", 1)
    ways = {method.name: method for method in mixture_nfe.methods()}
    for name, spectrum in mixture_nfe.spectra().items():
        ours = mixture_nfe.judged(ways["rgdm, running"], spectrum, 6, 0, samples=2000)
        white = mixture_nfe.judged(ways["white, log-uniform, dpm2m"], spectrum, 6, 0, samples=2000)
        assert max(ours[:2]) < 0.1 < min(white[:2]), name


def test_every_core_has_a_process_of_one_thread_and_a_failure_ends_all(monkeypatch):
    told = []
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)
    jobs = [torch.get_num_threads, partial(os.getenv, "MALLOC_TRIM_THRESHOLD_"), os.getpid]
    threads, threshold, process = cores.on_all_cores(jobs, lambda *done: told.append(done))
    assert (threads, threshold) == (1, cores.KEEP_PAGES["MALLOC_TRIM_THRESHOLD_"])
    assert process != os.getpid()
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert "MALLOC_TRIM_THRESHOLD_" not in os.environ
    with pytest.raises(ValueError, match="math domain"):
        cores.on_all_cores([partial(math.sqrt, -1.0), *jobs], lambda *done: None)


def test_the_mixture_tells_the_fewest_evaluations_of_every_family(monkeypatch, tmp_path):
    """Few methods, samples and numbers of evaluations, in threads: the figures are those of the table."""
    monkeypatch.setattr(mixture_nfe, "ROOT", tmp_path)
    some = (mixture_nfe.OURS, "ddpm, ancestral", "white, log-uniform, dpm2m", "white twin")
    few = [method for method in mixture_nfe.methods() if method.name in some]
    monkeypatch.setattr(mixture_nfe, "methods", lambda: iter(few))
    monkeypatch.setattr(cores, "ProcessPoolExecutor", lambda *how: ThreadPoolExecutor(2))
    for name, small in (("EVALUATIONS", (6, 20)), ("MORE", (30,)), ("SEEDS", 1), ("SAMPLES", 100), ("MANY", 200)):
        monkeypatch.setattr(mixture_nfe, name, small)
    monkeypatch.setattr(mixture_nfe, "BATCH", 100)
    result = mixture_nfe.run(0)
    assert [(row["data"], row["method"]) for row in result.table] == [(d, m) for d in ("k2", "k3") for m in some]
    assert FIGURES["mixture-nfe"] <= result.figures.keys()
    for data in mixture_nfe.spectra():
        rows = [row for row in result.table if row["data"] == data]
        for family, key in (("rg", "rg_best"), ("white", "white_best"), ("white twin", "white_twin")):
            named = [row["nfe"] for row in rows if row["family"] == family]
            assert result.figures[f"{key}_nfe_{data}"] == gaussian_nfe.least(named)
        ours = next(row for row in rows if row["method"] == mixture_nfe.OURS)
        assert {key for key in ours if key.startswith("w1_")} >= {"w1_6", "w1_20"}
        assert result.figures[f"rg_w1_7_{data}"] > 0
    monkeypatch.setattr(mixture_nfe, "examined", None)  # all is kept
    assert mixture_nfe.run(0) == result
    monkeypatch.setattr(mixture_nfe, "SEEDS", 2)
    with pytest.raises(TypeError):  # other settings are judged anew
        mixture_nfe.run(0)
    for text in ("{", "[]", "null", json.dumps({"settings": mixture_nfe.settings()})):
        (tmp_path / "k2-white-twin-0.json").write_text(text)
        with pytest.raises(DataError, match="is damaged; remove it to judge anew"):
            mixture_nfe.kept("k2", "white twin", 0)


def test_a_method_is_judged_again_with_more_samples_where_it_first_passes(monkeypatch):
    """Cells of many samples stand where it is decided, and more numbers are tried where none passes."""
    asked = []

    def judged(method, spectrum, evaluations, seed, samples):
        asked.append((evaluations, samples))
        found = 0.05 if evaluations >= least else 0.5
        return mixture_nfe.Figures(found, found)

    monkeypatch.setattr(mixture_nfe, "judged", judged)
    for least in (7, 50, 1000):
        asked.clear()
        found = mixture_nfe.examined("k2", "ddpm, ancestral", 0)
        assert mixture_nfe.passing(found) == (least if least < 1000 else 0)
        again = {n for n, samples in asked if samples == mixture_nfe.MANY}
        assert again == {7: {6, 7}, 50: {30, 50}, 1000: set()}[least]
        assert set(found) == {*mixture_nfe.EVALUATIONS} | ({50, 100, 200} if least > 30 else set())
