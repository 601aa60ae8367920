"""Clusters of particles: energies by hand, forces by autograd, symmetries, and samples that others made."""

import itertools
import math

import numpy as np
import pytest
import torch

from renorm.errors import DataError
from renorm.laws.particles import DoubleWellCluster, LennardJonesCluster

LAWS = [DoubleWellCluster(), DoubleWellCluster(3, dim=3, a=0.5, tau=2.0), LennardJonesCluster(), LennardJonesCluster(5)]


def spread_out(law, num, generator):
    """Positions without overlaps: corners of a grid, shaken."""
    grid = torch.tensor(list(itertools.product(range(3), repeat=law.dim)), dtype=torch.float64)
    grid = torch.cat([grid, grid + 10.0])[: law.particles].T
    return 1.2 * grid + 0.1 * torch.randn(num, law.dim, law.particles, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("law", LAWS, ids=["dw4", "dw3", "lj13", "lj5"])
class TestClusters:
    def test_gradient(self, law, generator):
        x = spread_out(law, 3, generator).requires_grad_()
        (exact,) = torch.autograd.grad(law(x).sum(), x)
        torch.testing.assert_close(law.grad(x.detach()), exact, rtol=1e-9, atol=1e-9)

    def test_symmetries(self, law, generator):
        x = spread_out(law, 3, generator)
        x = x - x.mean(2, keepdim=True)
        turn, _ = torch.linalg.qr(torch.randn(law.dim, law.dim, generator=generator, dtype=torch.float64))
        torch.testing.assert_close(law(turn @ x), law(x), rtol=1e-9, atol=1e-9)
        order = torch.randperm(law.particles, generator=generator)
        torch.testing.assert_close(law(x[..., order]), law(x), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(law(x + 0.5) - law(x), (law(x + 0.5) - law(x))[:1].expand(3), rtol=0, atol=1e-9)

    def test_other_positions(self, law):
        with pytest.raises(DataError, match="positions must be"):
            law(torch.zeros(1, law.dim, law.particles + 1))


def test_lennard_jones_by_hand():
    x = torch.tensor([[[0.0, 1.2], [0.0, 0.0], [0.0, 0.0]]], dtype=torch.float64)
    sixth = 1.2**-6
    expected = 2 * (sixth**2 - 2 * sixth) + 0.5 * 2 * 0.6**2 + 2 * 0.6**2 / 2
    assert LennardJonesCluster(2)(x).item() == pytest.approx(expected, rel=1e-12)


def test_overlaps_are_infinite():
    for apart in (0.0, 1e-5):
        x = torch.zeros(1, 3, 3)
        x[0, 0] = torch.tensor([0.0, apart, 2.0])
        assert LennardJonesCluster(3)(x).item() == math.inf


def test_law_of_the_centre(generator):
    """exp(-U) over the centre is a Gaussian of variance s^2 / n."""
    law = DoubleWellCluster(spread=2.0)
    x = spread_out(law, 1, generator)
    x = x - x.mean(2, keepdim=True)
    moved = law(x + torch.tensor([0.7, 0.0], dtype=torch.float64)[:, None]) - law(x)
    assert moved.item() == pytest.approx(4 * 0.7**2 / (2 * 2.0**2), rel=1e-6)


@pytest.mark.parametrize(
    ("make", "wrong"),
    [
        (DoubleWellCluster, {"particles": 1}),
        (DoubleWellCluster, {"c": 0.0}),
        (DoubleWellCluster, {"tau": 0.0}),
        (LennardJonesCluster, {"particles": 1}),
        (LennardJonesCluster, {"epsilon": 0.0}),
        (LennardJonesCluster, {"rm": -1.0}),
        (LennardJonesCluster, {"spread": 0.0}),
    ],
)
def test_bad_values(make, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        make(**wrong)


def test_given_samples_keep_the_virial_theorem(shared_data):
    """<x . grad U> = 36 degrees of freedom, for equilibrium samples of LJ13: these are the constants."""
    path = shared_data / "particles" / "lj13_dw4.npz"
    if not path.is_file():
        pytest.skip("needs particles/lj13_dw4.npz")
    flat = np.load(path)["test_split_LJ13"]
    x = torch.tensor(flat).double().unflatten(1, (13, 3)).mT
    virial = (x * LennardJonesCluster().grad(x)).flatten(1).sum(1)
    assert abs(virial.mean() - 36) < 0.05 * 36
