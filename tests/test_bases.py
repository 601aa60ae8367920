"""Changes of basis: orthonormal, equal to SciPy's, matrix and FFT the same."""

import numpy as np
import pytest
import scipy.fft
import scipy.fftpack
import torch

from conftest import TOLERANCE
from renorm.bases import TRANSFORMS, Basis, basis_for
from renorm.lattice import Lattice

SHAPES = [(1,), (2,), (7,), (8,), (5, 6), (8, 8), (3, 4, 5), (150,), (2, 131)]
BOUNDARIES = ["open", "periodic"]


def _oracle(x, lattice):
    """SciPy's orthonormal transform of the last axes."""
    axes = tuple(range(-lattice.dim, 0))
    if lattice.boundary == "open":
        return scipy.fft.dctn(x, axes=axes, norm="ortho")
    for axis in axes:
        size = x.shape[axis]
        scale = np.full(size, np.sqrt(2 / size))
        scale[0] = np.sqrt(1 / size)
        if size % 2 == 0:
            scale[-1] = np.sqrt(1 / size)
        x = np.moveaxis(np.moveaxis(scipy.fftpack.rfft(x, axis=axis), axis, -1) * scale, -1, axis)
    return x


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("limit", [0, 1000], ids=["fft", "matrix"])
def test_agrees_with_scipy(shape, boundary, limit, dtype, generator):
    lattice = Lattice(shape, boundary)
    basis = Basis(lattice, TRANSFORMS[boundary](), matrix_limit=limit)
    x = torch.randn(3, 2, *shape, generator=generator, dtype=torch.float64)
    expected = torch.from_numpy(_oracle(x.numpy(), lattice).copy())
    modes = basis.forward(x.to(dtype))
    tolerance = 10 * TOLERANCE[dtype]
    torch.testing.assert_close(modes.double(), expected, rtol=tolerance, atol=tolerance)
    assert modes.dtype == dtype
    torch.testing.assert_close(basis.inverse(modes).double(), x, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_modes_are_waves_of_their_wavenumber(boundary):
    """The lattice Laplacian of mode n is -(2 - 2 cos k_n) times the mode: the order of wavenumbers is right."""
    lattice = Lattice((9,), boundary)
    waves = basis_for(lattice).inverse(torch.eye(9, dtype=torch.float64))
    if boundary == "open":
        padded = torch.cat([waves[:, :1], waves, waves[:, -1:]], dim=-1)
    else:
        padded = torch.cat([waves[:, -1:], waves, waves[:, :1]], dim=-1)
    laplacian = padded[:, 2:] - 2 * waves + padded[:, :-2]
    eigenvalue = 2 - 2 * torch.cos(lattice.wavenumbers(0))
    torch.testing.assert_close(laplacian, -eigenvalue[:, None] * waves, rtol=0, atol=1e-13)


def test_a_mode_worked_out_by_hand():
    """Two open sites: mode 1 of (1, -1) is sqrt(2/2) (cos(pi/4) - cos(3 pi/4)) = sqrt 2."""
    modes = basis_for(Lattice((2,))).forward(torch.tensor([1.0, -1.0], dtype=torch.float64))
    torch.testing.assert_close(modes, torch.tensor([0.0, 2**0.5], dtype=torch.float64), rtol=0, atol=1e-15)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_gradient_flows_through(boundary, generator):
    basis = basis_for(Lattice((4, 5), boundary))
    x = torch.randn(4, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(basis.forward, (x,))
    assert torch.autograd.gradcheck(basis.inverse, (x,))


def test_a_field_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"expected a field on \(4, 4\) sites"):
        basis_for(Lattice((4, 4))).forward(torch.zeros(1, 4, 5))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(((),), "one to three axes"), (((0,),), "at least one site")],
)
def test_a_lattice_that_cannot_be(arguments, message):
    with pytest.raises(ValueError, match=message):
        Lattice(*arguments)


def test_wavenumbers_add_over_axes():
    k_sq = Lattice((4, 2), spacing=2.0).k_sq()
    assert k_sq.shape == (4, 2)
    torch.testing.assert_close(k_sq[3, 1].item(), (3 * np.pi / 4) ** 2 + (np.pi / 2) ** 2, rtol=1e-15, atol=0)
