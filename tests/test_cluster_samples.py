"""Samples of clusters: files that are read or refused, and what the benchmark measures of draws."""

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
    assert particles.tv(p, p) == 0
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
