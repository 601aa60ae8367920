"""Coarse-graining steps: round trips, volumes, conventions by hand, and what they do to a Gaussian free field."""

import math

import numpy as np
import pytest
import torch

from renorm.coarse.base import BlockRule, CoarseGraining, Split
from renorm.coarse.block_spin import BlockMean, BlockSum, Decimation, Majority
from renorm.coarse.blocks import from_blocks, to_blocks
from renorm.coarse.checkerboard import Checkerboard, RotatedCheckerboard, centre_neighbours, odd_neighbours
from renorm.coarse.filters import MAX_ORDER, daubechies, mirror
from renorm.coarse.fourier import FourierShell, mode_order
from renorm.coarse.learned import CayleyBlock
from renorm.coarse.wavelet import Wavelet
from renorm.errors import DataError, RecipeError
from renorm.lattice import Lattice
from renorm.testing import check_coarse_graining


def periodic(*shape, channels=1):
    return Lattice(shape, boundary="periodic", channels=channels)


def field(lattice, num=2, dtype=torch.float64, seed=0):
    return torch.randn(num, *lattice.event_shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def turned(seed=1, scale=0.7):
    """A learned block whose parameters are not those of Haar."""
    block = CayleyBlock()
    with torch.no_grad():
        block.rotation += scale * torch.randn(6, generator=torch.Generator().manual_seed(seed))
    return block


STEPS = [
    (Wavelet(1, 1), periodic(2)),
    (Wavelet(1, 1), periodic(10, channels=2)),
    (Wavelet(1, 2), periodic(6, 4, channels=2)),
    (Wavelet(1, 2), Lattice((4, 6))),
    (Wavelet(1, 3), periodic(2, 4, 6)),
    (Wavelet(2, 1), periodic(16)),
    (Wavelet(4, 2), periodic(8, 8)),
    (Wavelet(4, 2), periodic(2, 6, channels=3)),
    (Wavelet(3, 3), periodic(4, 4, 2)),
    (Wavelet(MAX_ORDER, 1), periodic(2)),
    (Wavelet(MAX_ORDER, 2), periodic(4, 6)),
    (FourierShell(1), periodic(2)),
    (FourierShell(1), periodic(10, channels=2)),
    (FourierShell(2), periodic(6, 8)),
    (FourierShell(2, "open"), Lattice((4, 8), channels=2)),
    (FourierShell(3), periodic(2, 4, 6)),
    (Checkerboard(), periodic(2, 2)),
    (Checkerboard(), periodic(6, 8)),
    (RotatedCheckerboard(), periodic(3, 5, channels=2)),
    (CayleyBlock(), periodic(4, 6)),
    (turned(), periodic(6, 4, channels=2)),
    (turned(), Lattice((2, 2))),
]
IDS = [f"{step!r}-{lattice.event_shape}-{lattice.boundary}" for step, lattice in STEPS]
every_step = pytest.mark.parametrize(("step", "lattice"), STEPS, ids=IDS)


# -- what all steps promise --------------------------------------------------------------------------------------------


@every_step
def test_a_step_keeps_every_promise(step, lattice):
    """Shapes, dtypes, there and back to 1e-12, and log_det against the Jacobian."""
    check_coarse_graining(step, lattice)
    assert isinstance(step, CoarseGraining)


@every_step
def test_squared_norms_add_up(step, lattice):
    """Parseval; the Fourier shell's coarse field has the factor that its log_det says."""
    x = field(lattice)
    coarse, detail, log_det = step.split(x)
    number = coarse[0].numel()
    scale = torch.exp(-2 * log_det / number)  # of squared amplitudes
    total = scale * coarse.square().flatten(1).sum(1) + detail.square().flatten(1).sum(1)
    torch.testing.assert_close(total, x.square().flatten(1).sum(1), rtol=1e-12, atol=0)
    volume = -lattice.dim / 2 * math.log(2) * number if isinstance(step, FourierShell) else 0.0
    torch.testing.assert_close(log_det, torch.full_like(log_det, volume), rtol=1e-14, atol=0)


@every_step
def test_gradients_flow_both_ways(step, lattice):
    x = field(lattice).requires_grad_()
    coarse, detail, _ = step.split(x)
    step.merge(coarse, detail).square().sum().backward()
    torch.testing.assert_close(x.grad, 2 * x.detach(), rtol=1e-11, atol=1e-11)


SHIFTED = [(step, lattice) for step, lattice in STEPS if step != FourierShell(2, "open")]


@pytest.mark.parametrize(("step", "lattice"), SHIFTED)
def test_a_shift_by_two_sites_is_a_shift_by_one(step, lattice):
    """On every axis; of the coarse field for all steps, of the detail where it lives on the coarse lattice.

    (Not of the open shell: cosines know where the ends are.)
    """
    shift = 1 if isinstance(step, RotatedCheckerboard) else 2
    x = field(lattice)
    for axis in range(-lattice.dim, 0):
        here, there = step.split(x), step.split(x.roll(shift, axis))
        torch.testing.assert_close(there.coarse, here.coarse.roll(1, axis), rtol=0, atol=1e-13)
        if not isinstance(step, FourierShell):
            torch.testing.assert_close(there.detail, here.detail.roll(1, axis), rtol=0, atol=1e-13)


# -- filters -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", range(1, MAX_ORDER + 1))
def test_a_filter_obeys_its_equations(order):
    low, high = daubechies(order), mirror(daubechies(order))
    assert low.shape == (2 * order,)
    assert low.sum() == pytest.approx(math.sqrt(2), abs=1e-14)
    for shift in range(order):
        for a, b, one in ((low, low, 1.0), (high, high, 1.0), (low, high, 0.0)):
            overlap = a[2 * shift :] @ b[: 2 * order - 2 * shift]
            assert overlap == pytest.approx(one if shift == 0 else 0.0, abs=2e-13)
            assert b[2 * shift :] @ a[: 2 * order - 2 * shift] == pytest.approx(overlap, abs=2e-13)
    k = np.arange(2 * order) / (2 * order)  # in units of the filter's length, so that high moments stay of order 1
    moments = [float(high @ k**m) for m in range(order + 1)]
    np.testing.assert_allclose(moments[:order], 0, atol=1e-13)
    assert abs(moments[order]) > 1e-9, "one moment more does not vanish"


@pytest.mark.parametrize("order", range(2, MAX_ORDER + 1))
def test_a_filter_has_minimum_phase(order):
    """All zeros other than those at -1 lie inside the unit circle: partial energies are the largest that can be."""
    low = daubechies(order)
    for _ in range(order):
        low = np.polydiv(low, [1.0, 1.0])[0]
    assert (np.abs(np.roots(low)) < 1).all()
    assert low[0] > 0


def test_known_filters():
    """Haar and order 2 in closed form; order 4 as published (Daubechies 1988, table 1)."""
    s = math.sqrt(3)
    np.testing.assert_allclose(daubechies(1), [math.sqrt(0.5)] * 2, rtol=1e-15)
    np.testing.assert_allclose(daubechies(2), np.array([1 + s, 3 + s, 3 - s, 1 - s]) / (4 * math.sqrt(2)), rtol=1e-14)
    published = [0.23037781, 0.71484657, 0.63088077, -0.02798377, -0.18703481, 0.03084138, 0.03288301, -0.01059740]
    np.testing.assert_allclose(daubechies(4), published, rtol=0, atol=6e-9)
    longest = [0.026670057900555554, 0.188176800077691497, 0.527201188931725628]  # PyWavelets 1.8.0, db10
    np.testing.assert_allclose(daubechies(10)[:3], longest, rtol=0, atol=1e-13)


@pytest.mark.parametrize("order", range(1, MAX_ORDER + 1))
def test_agrees_with_pywavelets(order):
    """Taps and bands; PyWavelets' periodic transform starts at another site."""
    pywt = pytest.importorskip("pywt")
    wavelet = pywt.Wavelet(f"db{order}")
    np.testing.assert_allclose(daubechies(order), wavelet.rec_lo, rtol=0, atol=1e-11)
    x = field(periodic(32, 16))
    coarse, detail, _ = Wavelet(order).split(x)
    rolled = x[:, 0].roll((1 - order, 1 - order), (-2, -1)).numpy()
    theirs, bands = pywt.dwt2(rolled, wavelet, mode="periodization", axes=(-2, -1))
    np.testing.assert_allclose(coarse[:, 0], theirs, rtol=0, atol=1e-10)
    vertical, horizontal, diagonal = bands  # PyWavelets names them by the edges that they see: the other way round
    for ours, band in zip(detail.unbind(1), (horizontal, vertical, diagonal), strict=True):
        np.testing.assert_allclose(ours, band, rtol=0, atol=1e-10)


@pytest.mark.parametrize("order", [0, -1, MAX_ORDER + 1])
def test_an_order_that_no_filter_has(order):
    with pytest.raises(RecipeError, match=rf"1 \(Haar\) to 10, got {order}"):
        daubechies(order)
    with pytest.raises(RecipeError, match="Haar"):
        Wavelet(order)


def test_a_filter_is_shared_and_so_read_only():
    with pytest.raises(ValueError, match="read-only"):
        daubechies(2)[0] = 0.0


# -- wavelets ----------------------------------------------------------------------------------------------------------


def test_haar_by_hand():
    x = torch.tensor([[[[1.0, 2.0], [3.0, 7.0]]]])
    coarse, detail, _ = Wavelet().split(x)
    assert coarse.item() == 6.5
    assert detail.flatten().tolist() == [-2.5, -3.5, 1.5]  # (1-2+3-7, 1+2-3-7, 1-2-3+7) / 2


def test_haar_in_one_and_three_dimensions_by_hand():
    x = torch.arange(8.0, dtype=torch.float64)
    coarse, detail, _ = Wavelet(dim=1).split(x[None, None, :2] * 3 + 1)
    assert coarse.item() == pytest.approx(5 / math.sqrt(2))
    assert detail.item() == pytest.approx(-3 / math.sqrt(2))
    coarse, detail, _ = Wavelet(dim=3).split(x.reshape(1, 1, 2, 2, 2))  # 4 z + 2 y + x
    assert coarse.item() == pytest.approx(28 / math.sqrt(8))
    np.testing.assert_allclose(detail.flatten() * math.sqrt(8), [-4, -8, 0, -16, 0, 0, 0], atol=1e-14)


def test_bands_are_outermost_and_keep_the_channels():
    lattice = periodic(4, 4, channels=3)
    x = field(lattice)
    for step in (Wavelet(2), turned()):
        detail = step.split(x).detail.unflatten(1, (3, 3))
        for channel in range(3):
            alone = step.split(x[:, channel : channel + 1]).detail
            torch.testing.assert_close(detail[:, :, channel], alone, rtol=0, atol=1e-14)


@pytest.mark.parametrize("order", range(1, MAX_ORDER + 1))
@pytest.mark.parametrize("size", [2, 4, 6, 32])
def test_the_transform_is_orthonormal_on_every_even_axis(order, size):
    bands = Wavelet(order, 1).split(torch.eye(size, dtype=torch.float64)[:, None])
    matrix = torch.cat([bands.coarse, bands.detail], dim=2)[:, 0]
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(size, dtype=torch.float64), rtol=0, atol=5e-13)


def test_constants_and_polynomials_leave_no_detail():
    """A constant c becomes 2^(d/2) c; order p is blind to polynomials below degree p, away from the wrap."""
    coarse, detail, _ = Wavelet(4, 2).split(torch.full((1, 1, 8, 8), 3.0, dtype=torch.float64))
    np.testing.assert_allclose(coarse, 6.0, rtol=1e-14)
    np.testing.assert_allclose(detail, 0.0, atol=1e-14)
    x = torch.arange(32, dtype=torch.float64)[None, None] / 32
    for order in (1, 2, 3, 5):
        inside = slice(0, 16 - order + 1)  # taps of these sites do not wrap
        assert Wavelet(order, 1).split(x ** (order - 1)).detail[..., inside].abs().max() < 1e-13
        assert Wavelet(order, 1).split(x**order).detail[..., inside].abs().min() > 1e-8


def test_the_phase_is_where_a_ramp_is_read():
    x = torch.arange(32, dtype=torch.float64)[None, None]
    assert Wavelet(1).phase == pytest.approx(0.5)
    assert Wavelet(2).phase == pytest.approx(0.6339746, abs=1e-7)  # (3 - sqrt 3) / 2
    for order in (1, 2, 4):
        step = Wavelet(order, 1)
        coarse = step.split(x).coarse[0, 0, : 16 - order + 1] / math.sqrt(2)
        np.testing.assert_allclose(coarse, 2 * np.arange(len(coarse)) + step.phase, rtol=1e-12)


# -- a Gaussian free field: no critical slowing down -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("order", "raw", "scaled", "entropies"),
    [
        (1, (4.00, 6.00, 8.00, 9.01), (3.00, 4.20, 5.22, 5.64), (0.679612, 1.105239, 1.681189, 2.351348)),
        (4, (4.00, 6.76, 7.74), (3.00, 4.40, 4.87), (0.661694, 1.140872, 1.784463)),
    ],
    ids=["haar", "db4"],
)
def test_details_of_a_free_field_are_well_conditioned(order, raw, scaled, entropies):
    r"""S = ½ φ(-Δ + m²)φ, m² = 1e-4, on 32 x 32 sites: condition number 80001, of a detail given coarse below 10."""
    size, step = 32, Wavelet(order, 2)
    ring = 2 * np.eye(size) - np.roll(np.eye(size), 1, 0) - np.roll(np.eye(size), -1, 0)
    precision = np.kron(ring, np.eye(size)) + np.kron(np.eye(size), ring) + 1e-4 * np.eye(size**2)
    assert 1 + 8 / 1e-4 == 80001.0
    covariance = np.linalg.inv(precision)
    for level in range(len(raw)):
        sites = size // 2**level
        units = torch.eye(sites**2, dtype=torch.float64).reshape(-1, 1, sites, sites)
        coarse, detail, _ = step.split(units)
        down, shell = coarse.flatten(1).numpy(), detail.flatten(1).numpy()  # (fine sites, parts)
        given = shell.T @ np.linalg.inv(covariance) @ shell  # conditional precision of the detail
        eigenvalues = np.linalg.eigvalsh(given)
        diagonal = np.sqrt(np.diag(given))
        normalised = np.linalg.eigvalsh(given / diagonal / diagonal[:, None])
        assert eigenvalues[-1] / eigenvalues[0] == pytest.approx(raw[level], abs=0.006)
        assert normalised[-1] / normalised[0] == pytest.approx(scaled[level], abs=0.006)
        entropy = 0.5 * (math.log(2 * math.pi) + 1 - np.log(eigenvalues).mean())
        assert entropy == pytest.approx(entropies[level], abs=2e-6)
        covariance = down.T @ covariance @ down


# -- Fourier -----------------------------------------------------------------------------------------------------------


def test_lower_waves_keep_their_values():
    """Below the coarse lattice's last wavenumber a wave is read off at every second site."""
    x, y = torch.meshgrid(torch.arange(8.0).double(), torch.arange(12.0).double(), indexing="ij")
    wave = 1.5 + torch.cos(2 * math.pi * x / 8 + 0.3) * torch.sin(2 * math.pi * 2 * y / 12 + 0.1)
    coarse, detail, _ = FourierShell().split(wave[None, None])
    torch.testing.assert_close(coarse[0, 0], wave[::2, ::2], rtol=0, atol=1e-13)
    assert detail.abs().max() < 1e-13
    above = torch.cos(2 * math.pi * 3 * x / 8)
    assert FourierShell().split(above[None, None]).coarse.abs().max() < 1e-13


def test_open_waves_keep_their_values_in_the_middle_of_blocks():
    middle = (torch.arange(4).double() + 0.5) * 2
    for n in range(4):
        wave = torch.cos(math.pi * n * (torch.arange(8).double() + 0.5) / 8)
        coarse, detail, _ = FourierShell(1, "open").split(wave[None, None])
        torch.testing.assert_close(coarse[0, 0], torch.cos(math.pi * n * middle / 8), rtol=0, atol=1e-13)
        assert detail.abs().max() < 1e-13


def test_the_last_coarse_wave_keeps_its_cosine():
    """k = pi/2: the cosine becomes the staggered mode, 1/sqrt2 of its value; the sine stays in the shell."""
    x = math.pi / 2 * torch.arange(8).double()
    coarse, detail, _ = FourierShell(1).split(torch.stack([x.cos(), x.sin()])[:, None])
    staggered = torch.tensor([1.0, -1, 1, -1], dtype=torch.float64) / math.sqrt(2)
    torch.testing.assert_close(coarse[0, 0], staggered, rtol=0, atol=1e-13)
    assert coarse[1].abs().max() < 1e-13
    assert detail[0].abs().max() < 1e-13
    torch.testing.assert_close(detail[1].abs(), torch.tensor([2.0, 0, 0, 0]).double(), rtol=0, atol=1e-13)


def test_the_order_of_modes_is_the_callers_own():
    x = torch.randn(1, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    before = FourierShell().split(x).detail
    mode_order(Lattice((4, 4), boundary="periodic")).zero_()
    assert torch.equal(FourierShell().split(x).detail, before)


@pytest.mark.parametrize("step", [FourierShell(2), FourierShell(2, "open")], ids=["periodic", "open"])
def test_shell_modes_stand_by_rising_wavenumber(step):
    """A wave of the k of each entry, and of no other: minus its Laplacian's eigenvalue says which."""
    lattice = Lattice((4, 8), boundary=step.boundary, channels=2)
    k_sq = step.shell_k_sq(lattice)
    assert k_sq.shape == step.detail_shape(lattice) == (2 * 24,)
    assert torch.equal(k_sq[:24], k_sq[24:])
    assert (k_sq[:24].diff() >= -1e-12).all()
    low = lattice.k_sq()[:2, :4].flatten()
    everything = torch.cat([low, k_sq[:24]]).sort().values
    torch.testing.assert_close(everything, lattice.k_sq().flatten().sort().values, rtol=0, atol=0)
    place = int(k_sq[:24].argmax())
    details = torch.zeros(1, 48, dtype=torch.float64)
    details[0, 24 + place] = 1.0
    wave = step.merge(torch.zeros(1, 2, 2, 4, dtype=torch.float64), details)
    assert wave[0, 0].abs().max() == 0, "the second half of the detail is the second channel's"
    assert (wave[0, 1, :, :-1] * wave[0, 1, :, 1:] < 0).all(), "the last mode alternates"


# -- block spins -------------------------------------------------------------------------------------------------------


def spins(text):
    return torch.tensor([[[[1.0 if s == "+" else -1.0 for s in row] for row in text.split()]]])


def test_block_rules_by_hand():
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert Decimation().coarsen(x).tolist() == [[[[0, 2], [8, 10]]]]
    assert BlockSum().coarsen(x).tolist() == [[[[10, 18], [42, 50]]]]
    assert BlockMean().coarsen(x).tolist() == [[[[2.5, 4.5], [10.5, 12.5]]]]
    assert BlockSum(4).coarsen(x).tolist() == [[[[120]]]]
    assert Decimation(4).coarsen(x).tolist() == [[[[0]]]]
    assert BlockSum().coarsen(x.long()).dtype == torch.int64


def test_a_majority_by_hand():
    x = spins("++-- +--- -++- +-+-")
    assert Majority().coarsen(x).tolist() == [[[[1, -1], [-1, 1]]]]  # 3:1, 0:4, and two ties by their corner
    nine = spins("++- +-- -+-")
    assert Majority(3).coarsen(nine).item() == -1.0  # 4:5
    assert Majority(3).coarsen(-nine).item() == 1.0
    assert Majority().coarsen(x.to(torch.int8)).dtype == torch.int8


def test_ties_are_fair_coins_of_the_generator():
    tie = spins("+- -+").repeat(4000, 1, 1, 1)
    draw = Majority().coarsen(tie, generator=torch.Generator().manual_seed(0))
    again = Majority().coarsen(tie, generator=torch.Generator().manual_seed(0))
    assert torch.equal(draw, again)
    assert set(draw.unique().tolist()) == {-1.0, 1.0}
    assert abs(draw.mean().item()) < 4 / math.sqrt(4000)
    clear = spins("++ -+").repeat(50, 1, 1, 1)
    assert (Majority().coarsen(clear, generator=torch.Generator().manual_seed(0)) == 1).all()


@pytest.mark.parametrize("shape", [(8,), (4, 6), (2, 4, 6)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_block_rules_in_all_dimensions(shape, dtype):
    lattice = periodic(*shape, channels=2)
    x = field(lattice, dtype=dtype)
    haar = Wavelet(dim=len(shape)).split(x).coarse
    for rule in (BlockMean(), BlockSum(), Decimation()):
        assert isinstance(rule, BlockRule)
        y = rule.coarsen(x)
        assert tuple(y.shape[1:]) == rule.coarse_lattice(lattice).event_shape
        assert y.dtype == dtype
    torch.testing.assert_close(BlockMean().coarsen(x), haar / 2 ** (len(shape) / 2))
    torch.testing.assert_close(BlockSum().coarsen(x), haar * 2 ** (len(shape) / 2))
    assert torch.equal(Decimation().coarsen(x), x[(..., *[slice(None, None, 2)] * len(shape))])
    ups = torch.where(x > 0, 1.0, -1.0).to(dtype)
    assert torch.equal(Majority().coarsen(-ups), -Majority().coarsen(ups))
    assert torch.equal(from_blocks(to_blocks(x, 2), 2), x)


def test_decimation_of_a_checkerboard_is_two_steps():
    x = field(periodic(6, 8))
    coarse = RotatedCheckerboard().split(Checkerboard().split(x).coarse).coarse
    assert torch.equal(coarse, Decimation().coarsen(x))


# -- checkerboard ------------------------------------------------------------------------------------------------------


def test_a_checkerboard_by_hand():
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    coarse, detail, _ = Checkerboard().split(x)
    assert coarse[0].tolist() == [[[0, 2], [8, 10]], [[5, 7], [13, 15]]]
    assert detail[0].tolist() == [[[1, 3], [9, 11]], [[4, 6], [12, 14]]]
    assert torch.equal(Checkerboard().merge(coarse, detail), x)


@pytest.mark.parametrize("shape", [(2, 2), (4, 6)], ids=str)
def test_neighbours_are_those_of_the_torus(shape):
    x = field(periodic(*shape))
    four = [x.roll(1, -2), x.roll(-1, -2), x.roll(1, -1), x.roll(-1, -1)]  # above, below, left, right
    wanted = torch.stack([Checkerboard().split(y).detail for y in four], dim=2)
    even = Checkerboard().split(x).coarse
    assert torch.equal(odd_neighbours(even), wanted)
    diagonal = [x.roll(shift, (-2, -1)) for shift in ((1, 1), (1, -1), (-1, 1), (-1, -1))]
    centre = torch.cat([Checkerboard().split(y).coarse[:, 1:] for y in diagonal], dim=1)
    assert torch.equal(centre_neighbours(RotatedCheckerboard().split(even).coarse), centre)


def test_spins_of_any_type_can_stand_on_a_checkerboard():
    x = spins("++-- +--- -++- +-+-").to(torch.int8)
    coarse, detail, log_det = Checkerboard().split(x)
    assert coarse.dtype == detail.dtype == torch.int8
    assert torch.equal(Checkerboard().merge(coarse, detail), x)
    assert log_det.shape == (1,)


# -- learned -----------------------------------------------------------------------------------------------------------


def test_a_block_starts_as_haar():
    x = field(periodic(4, 6, channels=2))
    ours, haar = CayleyBlock().split(x), Wavelet().split(x)
    for a, b in zip(ours, haar, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-15)


def test_a_turn_in_one_plane_by_hand():
    """A with one entry t turns its plane by the angle -2 arctan t (Cayley)."""
    block = CayleyBlock()
    with torch.no_grad():
        block.rotation[0] = 0.5
    x = torch.tensor([[[[1.0, 2.0], [3.0, 7.0]]]], dtype=torch.float64)
    a, h, v, d = 6.5, -2.5, -3.5, 1.5
    cos, sin = 0.6, 0.8  # (1 - t²) / (1 + t²), 2 t / (1 + t²)
    coarse, detail, _ = block.split(x)
    assert coarse.item() == pytest.approx(cos * a - sin * h, abs=1e-14)
    assert detail.flatten().tolist() == pytest.approx([sin * a + cos * h, v, d], abs=1e-14)


def test_a_block_stays_orthogonal_and_learns():
    """Sites of one value and noise: the step learns to put all of a chosen pattern into the coarse field."""
    block, dtype = turned(seed=3, scale=2.0), torch.float64
    matrix = block.matrix(dtype)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(4, dtype=dtype), rtol=0, atol=1e-14)
    amplitude = torch.randn(64, 1, 1, 1, generator=torch.Generator().manual_seed(0), dtype=dtype)
    x = amplitude * torch.tensor([[1.0, 0.5], [0.0, -0.5]], dtype=dtype)
    block = CayleyBlock()
    optimizer = torch.optim.Adam(block.parameters(), lr=0.05)
    for _ in range(150):
        optimizer.zero_grad()
        loss = block.split(x).detail.square().mean()
        loss.backward()
        optimizer.step()
    assert loss.item() < 1e-3 * x.square().mean().item()


def test_gradients_of_a_block_against_differences():
    x = field(periodic(2, 4))
    block = turned().double()

    def coarse_of(parameters):
        split = torch.func.functional_call(block, {"rotation": parameters}, (x,))
        return split.coarse, split.detail

    block.forward = block.split
    assert torch.autograd.gradcheck(coarse_of, (block.rotation.detach().requires_grad_(),))


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "lattice", "message"),
    [
        (Wavelet(), periodic(4, 5), r"multiple of 2 sites.*crop or pad.*got \(4, 5\)"),
        (Wavelet(), periodic(1, 4), r"multiple of 2 sites.*got \(1, 4\)"),
        (Wavelet(dim=1), periodic(4, 4), r"made for 1 axes \(set dim\)"),
        (Wavelet(2), Lattice((8, 8)), "filter of 4 taps wraps.*must be periodic"),
        (FourierShell(), periodic(4, 3), "multiple of 2 sites"),
        (FourierShell(), Lattice((4, 4)), r"2 periodic axes \(set dim and boundary\).*got .*open"),
        (FourierShell(1), periodic(4, 4), "1 periodic axes"),
        (Checkerboard(), periodic(4, 3), "multiple of 2 sites"),
        (Checkerboard(), periodic(4), "periodic lattice of two axes"),
        (Checkerboard(), Lattice((4, 4)), "periodic lattice of two axes"),
        (Checkerboard(), periodic(4, 4, channels=2), r"fields of 1 channel\(s\), got 2"),
        (RotatedCheckerboard(), periodic(4, 4), r"fields of 2 channel\(s\), got 1"),
        (CayleyBlock(), periodic(4, 7), "multiple of 2 sites"),
        (CayleyBlock(), periodic(4), "need a lattice of two axes"),
        (BlockMean(3), periodic(4, 3), "multiple of 3 sites"),
    ],
)
def test_a_lattice_that_cannot_be_coarse_grained(step, lattice, message):
    with pytest.raises(RecipeError, match=message):
        step.coarse_lattice(lattice)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Wavelet().split(torch.zeros(1, 1, 4, 5)), r"multiple of 2 sites.*got \(4, 5\)"),
        (lambda: Wavelet().split(torch.zeros(1, 1, 4)), r"made for 2-D fields.*got shape \(1, 1, 4\)"),
        (lambda: FourierShell().split(torch.zeros(1, 1, 3, 4)), "multiple of 2 sites"),
        (lambda: FourierShell(3).split(torch.zeros(1, 1, 4, 4)), "made for 3-D fields"),
        (lambda: Checkerboard().split(torch.zeros(1, 2, 4, 4)), r"fields of 1 channel\(s\) here"),
        (lambda: RotatedCheckerboard().split(torch.zeros(1, 1, 4, 4)), r"fields of 2 channel\(s\) here"),
        (lambda: CayleyBlock().split(torch.zeros(1, 1, 4, 1)), "multiple of 2 sites"),
        (lambda: Wavelet().merge(torch.zeros(2, 1, 2, 2), torch.zeros(2, 1, 2, 2)), r"detail of shape \(2, 3, 2, 2\)"),
        (lambda: Wavelet().merge(torch.zeros(2, 1, 2), torch.zeros(2, 3, 2)), "2 axes of sites"),
        (lambda: FourierShell().merge(torch.zeros(1, 1, 2, 2), torch.zeros(1, 4)), r"detail of shape \(1, 12\)"),
        (lambda: Checkerboard().merge(torch.zeros(1, 1, 2, 2), torch.zeros(1, 2, 2, 2)), r"2 channel\(s\) here"),
        (lambda: RotatedCheckerboard().merge(torch.zeros(1, 2, 2, 2), torch.zeros(1, 1, 2, 2)), "1 channel"),
        (lambda: CayleyBlock().merge(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)), r"\(1, 3, 2, 2\)"),
        (lambda: Majority().coarsen(torch.zeros(1, 1, 4)), r"values are \+1 and -1, got 0"),
        (lambda: BlockSum().coarsen(torch.zeros(1, 1, 5)), "multiple of 2 sites"),
        (lambda: Decimation().coarsen(torch.zeros(1, 1)), "one to three axes, got shape"),
    ],
)
def test_fields_that_do_not_fit(call, message):
    with pytest.raises(DataError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Wavelet(dim=4), "dim is 1, 2 or 3, got 4"),
        (lambda: FourierShell(dim=0), "dim is 1, 2 or 3, got 0"),
        (lambda: Majority(1), "2 sites or more on every axis, .*got 1"),
    ],
)
def test_steps_that_cannot_be(call, message):
    with pytest.raises(RecipeError, match=message):
        call()


# -- the conformance check finds what it should ------------------------------------------------------------------------


class Broken(Wavelet):
    """Haar with one promise broken."""

    def __init__(self, fault):
        super().__init__()
        object.__setattr__(self, "fault", fault)

    def split(self, x):
        coarse, detail, log_det = super().split(x)
        if self.fault == "volume":
            log_det = log_det + 0.1
        elif self.fault == "dtype":
            log_det = log_det.double()
        elif self.fault == "shape":
            log_det = log_det[:, None]
        elif self.fault == "there and back":
            coarse = coarse * 1.001
        elif self.fault == "batch":
            coarse = coarse - coarse.mean()
        elif self.fault == "in place":
            x += 1
        elif self.fault == "infinite":
            detail = detail / 0
        return Split(coarse, detail, log_det)

    def merge(self, coarse, detail):
        x = super().merge(coarse, detail)
        if self.fault == "in place back":
            coarse += 1
        return x

    def detail_shape(self, lattice):
        channels, *sites = super().detail_shape(lattice)
        return (channels + (self.fault == "count"), *sites)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("volume", "log_det is that of the Jacobian"),
        ("dtype", "log_det keeps the dtype"),
        ("shape", "shape of log_det"),
        ("there and back", "merge undoes split"),
        ("batch", "coarse of a field does not depend on the other fields"),
        ("in place", "split does not change the fields"),
        ("in place back", "merge does not change the parts"),
        ("infinite", "values of detail are finite"),
        ("count", "as many numbers as the field"),
    ],
)
def test_the_check_names_a_broken_promise(fault, message):
    with pytest.raises(AssertionError, match=message):
        check_coarse_graining(Broken(fault), periodic(4, 4))


def test_the_check_wants_a_step_and_a_small_lattice():
    with pytest.raises(AssertionError, match="every method of CoarseGraining"):
        check_coarse_graining(object(), periodic(4, 4))
    with pytest.raises(AssertionError, match="at most 1024 sites times channels, got 4096"):
        check_coarse_graining(Wavelet(), periodic(64, 64))
