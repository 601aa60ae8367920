"""Samples of clusters: files that are read or refused, and what the benchmark measures of draws."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from renorm.bench import particles
from renorm.data import store
from renorm.data.particles import clusters, read_clusters
from renorm.errors import DataError
from renorm.laws.particles import DoubleWellCluster, LennardJonesCluster


@pytest.fixture
def given(shared_data, monkeypatch):
    """The file of the samples, where it is."""
    if not (shared_data / "particles" / "lj13_dw4.npz").is_file():
        pytest.skip("needs particles/lj13_dw4.npz: set RENORM_DATA")
    monkeypatch.setattr(store, "roots", lambda: [shared_data])


def test_samples_belong_to_the_energies(given):
    """<x . grad U> is the number of inner coordinates, 3 x 12: the virial theorem."""
    x, law = clusters("lj13"), LennardJonesCluster()
    virial = (x * law.grad(x)).flatten(1).sum(1).double()
    assert abs(virial.mean() - 36) < 5 * virial.std() / 100
    assert clusters("dw4", "train").shape == (100_000, 2, 4)
    assert clusters("dw4").mean(2).abs().max() < 1e-5
    assert DoubleWellCluster()(clusters("dw4", "val")).mean() < -20


def test_lj13_has_nothing_to_train_on():
    with pytest.raises(DataError, match="no samples to train on"):
        clusters("lj13", "train")


def test_a_file_that_is_not_here(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "roots", lambda: [tmp_path])
    with pytest.raises(DataError, match="set RENORM_DATA"):
        clusters("dw4")


def test_other_files(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, flat=np.zeros(6), odd=np.zeros((2, 5)), bad=np.array([[0.0, 0, 0, 0], [0, np.nan, 0, 0]]))
    with pytest.raises(DataError, match="must be"):
        read_clusters(path, "flat", 2, 2)
    with pytest.raises(DataError, match="must be"):
        read_clusters(path, "odd", 2, 2)
    with pytest.raises(DataError, match="sample 1"):
        read_clusters(path, "bad", 2, 2)
    with pytest.raises(DataError, match="must hold an array 'none'"):
        read_clusters(path, "none", 2, 2)


def test_distances_add_to_one(generator):
    x = torch.randn(50, 3, 5, generator=generator)
    p = particles.distances(x, far=3.0)
    assert float(p.sum()) == pytest.approx(1.0)
    share = torch.zeros(50, dtype=torch.float64)
    share[3] = 1.0
    torch.testing.assert_close(particles.distances(x, share, far=3.0), particles.distances(x[3:4], far=3.0))


def test_icosahedron():
    x = particles.icosahedron()
    apart = (x[:, 1:, None] - x[:, None, 1:]).norm(dim=0)
    nearest = apart.masked_fill(torch.eye(12, dtype=torch.bool), torch.inf).amin(1)
    torch.testing.assert_close(nearest, torch.full((12,), 1.0514622), rtol=1e-5, atol=0)  # 4 / sqrt(10 + 2 sqrt 5)
    assert float(LennardJonesCluster()(x[None])) < -60


def test_moved_clusters_are_the_same(generator):
    x = torch.randn(20, 3, 5, generator=generator)
    y = particles.moved(x, generator)
    law = LennardJonesCluster(5)
    centred = [z - z.mean(2, keepdim=True) for z in (x, y)]
    torch.testing.assert_close(law(centred[1]), law(centred[0]), rtol=1e-3, atol=1e-3)
    many = particles.moved(torch.zeros(20_000, 2, 4), generator)
    assert abs(float(many.mean(2).var()) - 0.25) < 5 * 0.25 * math.sqrt(2 / 40_000)


class Trap(DoubleWellCluster):
    """Four particles in a plane, each in a harmonic trap, about a centre of variance 1/4: Z = (2 pi)^4."""

    def __call__(self, x):
        inner = x - x.mean(2, keepdim=True)
        return 0.5 * inner.square().sum((1, 2)) + 2 * x.mean(2).square().sum(1)


@pytest.mark.parametrize("method", particles.METHODS)
def test_weights_of_all_methods_give_the_partition_function(method, generator):
    torch.manual_seed(0)
    system = dataclasses.replace(particles.SYSTEMS["dw4"], law=Trap(), parts=4, candidates=4)
    known = torch.randn(500, 2, 4, generator=generator)
    ours = method == "ours"
    model = particles.Ours(system, known, generator) if ours else particles.Flow(system, method, known)
    assert model.loss(known, generator).shape == (500,)
    x, log_weight = model.weighed(20_000, generator)
    assert x.shape == (20_000, 2, 4)
    weight = (log_weight - 4 * math.log(2 * math.pi)).exp()
    assert abs(weight.mean() - 1) < 5 * weight.std() / math.sqrt(20_000) < 0.6


def test_a_row_and_the_picture(given, tmp_path, monkeypatch):
    """One second of each method, kept and taken up again; other settings are made anew."""
    monkeypatch.setattr(particles, "ROOT", tmp_path)
    small = {"seconds": 1.0, "draws": 250, "batch": 16, "candidates": 4}
    systems = {name: dataclasses.replace(system, **small) for name, system in particles.SYSTEMS.items()}
    monkeypatch.setattr(particles, "SYSTEMS", systems)
    monkeypatch.setattr(particles, "CHAINS", 4)
    monkeypatch.setattr(particles, "BURN", 2)
    monkeypatch.setattr(particles, "ROUNDS", 20)
    assert particles.samples(0)["samples"] == 4
    asked = (("dw4", "autoregressive"), ("dw4", "ours"), ("lj13", "ours"))
    rows = [particles.piece(system, method, 0) for system, method in asked]
    assert all(0 <= row["ess"] <= 1 and row["energy_w1"] > 0 and 0 < row["distance_tv"] < 1 for row in rows)
    assert particles.picture(rows).count("<svg") == 1
    monkeypatch.setattr(particles, "learned", None)
    monkeypatch.setattr(particles, "simulated", None)
    assert [particles.piece(system, method, 0) for system, method in asked] == rows
    assert particles.samples(0)["samples"] == 4
    monkeypatch.setattr(particles, "CLIP", 30.0)
    with pytest.raises(TypeError):  # other settings are judged anew
        particles.piece("dw4", "ours", 0)
