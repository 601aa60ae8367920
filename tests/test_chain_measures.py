"""What a C-alpha chain is worth: against hand-worked cases, loops, scipy and TM-align, turned and mirrored."""

import inspect
import math
import sys
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.spatial.distance import jensenshannon
from scipy.spatial.transform import Rotation

from renorm.errors import DataError
from renorm.measure.chains.alignment import tm_aligned
from renorm.measure.chains.contacts import contact_map, contact_precision
from renorm.measure.chains.geometry import (
    bond_lengths,
    clashes,
    counted,
    handedness,
    pseudo_angles,
    pseudo_dihedrals,
    radius_of_gyration,
)
from renorm.measure.chains.histograms import angle_counts, bin_counts, dihedral_counts, js_distance
from renorm.measure.chains.search import fragments, square_distances, visits
from renorm.measure.chains.similarity import gdt, gdt_ha, gdt_ts, lddt, tm_distance, tm_score
from renorm.measure.chains.summary import chain_figures, gyration_law
from renorm.measure.chains.superposition import rmsd, superpose

MIRROR = torch.tensor([1.0, 1.0, -1.0]).double()


def unchecked(function):
    """As users have it: the tests alone check the shapes of annotations."""
    return inspect.unwrap(function)


def normal(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def walk(n, *, seed):
    """Steps of 3.8 in random directions."""
    return 3.8 * torch.nn.functional.normalize(normal(n, 3, seed=seed), dim=-1).cumsum(0)


def turned(x, *, seed):
    """The same chain elsewhere."""
    rotation = torch.from_numpy(Rotation.random(random_state=seed).as_matrix())
    return x @ rotation.T + 30 * normal(3, seed=seed)


def helix(n, *, radius=2.3, rise=1.5):
    turn = math.radians(100)
    at = torch.arange(n).double()
    return torch.stack([radius * (turn * at).cos(), radius * (turn * at).sin(), rise * at], 1)


def build(bonds, angles, dihedrals):
    """A chain from its internal coordinates, one site after the other."""
    x = [np.zeros(3), np.array([bonds[0], 0, 0])]
    x.append(x[1] + bonds[1] * np.array([-math.cos(angles[0]), math.sin(angles[0]), 0]))
    for b, theta, tau in zip(bonds[2:], angles[1:], dihedrals, strict=True):
        e = (x[-1] - x[-2]) / np.linalg.norm(x[-1] - x[-2])
        normal_ = np.cross(x[-2] - x[-3], e)
        normal_ /= np.linalg.norm(normal_)
        side = np.cross(normal_, e)
        x.append(
            x[-1]
            + b
            * (
                -math.cos(theta) * e
                + math.sin(theta) * math.cos(tau) * side
                + math.sin(theta) * math.sin(tau) * normal_
            )
        )
    return torch.from_numpy(np.array(x))


@cache
def unbroken(file):
    data = np.load(file)
    ca, offsets = data["backbone_mA"][:, 1] / 1000, data["offsets"]
    cuts = zip(offsets[:-1], offsets[1:], data["chain_breaks"], strict=True)
    return [torch.from_numpy(ca[a:b]) for a, b, breaks in cuts if breaks == 0]


@pytest.fixture
def real_chains(shared_data):
    """C-alpha atoms of 685 measured proteins."""
    file = shared_data / "proteins" / "train.npz"
    if not file.exists():
        pytest.skip("needs proteins/train.npz of the real data")
    return unbroken(file)


# -- superposition ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("mirror", [False, True])
def test_a_superposition_is_that_of_scipy(seed, mirror):
    x, y = walk(20, seed=seed), walk(20, seed=seed) + normal(20, 3, seed=seed + 50)
    y = turned(y * (MIRROR if mirror else 1), seed=seed)
    w = torch.rand(20, generator=torch.Generator().manual_seed(seed)).double()
    found = superpose(x, y, weights=w)
    cx, cy = ((w / w.sum()) @ one for one in (x, y))
    oracle, rssd = Rotation.align_vectors((y - cy).numpy(), (x - cx).numpy(), weights=w.numpy())
    np.testing.assert_allclose(found.rotation.numpy(), oracle.as_matrix(), atol=1e-9)
    assert float((w @ (found.move(x) - y).square().sum(1)).sqrt()) == pytest.approx(rssd, rel=1e-9)
    assert float(found.rotation.det()) == pytest.approx(1)


def test_rmsd_by_hand_and_under_rotation_and_mirror():
    x = walk(30, seed=0)
    assert float(rmsd(turned(x, seed=1), x)) < 1e-12
    assert float(rmsd(turned(x * MIRROR, seed=1), x)) > 1  # a mirror image is another chain
    flat = x * torch.tensor([1.0, 1.0, 0.0]).double()
    assert float(rmsd(flat @ torch.diag(torch.tensor([1.0, -1.0, 1.0]).double()), flat)) < 1e-12  # turned over
    rod = torch.tensor([[0.0, 0, 0], [3.0, 0, 0], [6.0, 0, 0]])
    assert float(rmsd(rod, rod * 1.5)) == pytest.approx(1.5 * math.sqrt(2 / 3))
    # one residue of a long rigid chain moved by 1: sqrt(1 / n) but for what turning gains
    moved = x.clone()
    moved[15] += torch.tensor([1.0, 0, 0])
    assert 0.9 < float(rmsd(moved, x)) * math.sqrt(30) < 1


def test_batches_masks_and_dtypes(dtype):
    y = walk(12, seed=3)
    x = torch.stack([turned(y, seed=1), y + normal(12, 3, seed=5), y * MIRROR])
    alone = torch.stack([rmsd(one, y) for one in x])
    tolerance = 1e-4 if dtype == torch.float32 else 1e-12
    assert torch.allclose(rmsd(x.to(dtype), y.to(dtype)), alone, atol=tolerance)
    mask = torch.ones(12, dtype=torch.bool)
    mask[[0, 7]] = False
    holes = x.clone()
    holes[:, [0, 7]] = torch.nan
    for score in (rmsd, tm_score, gdt_ts, gdt_ha, lddt):
        cut = torch.stack([score(one[mask], y[mask]) for one in x])
        assert torch.allclose(score(holes, y, mask=mask), cut, atol=1e-9), score
    assert torch.allclose(radius_of_gyration(holes, mask=mask.expand(3, 12)), radius_of_gyration(x[:, mask]))
    assert torch.allclose(clashes(holes, mask=mask.expand(3, 12), separation=12), torch.zeros(3).double())


@settings(max_examples=15)
@given(seed=st.integers(0, 10**6), n=st.integers(4, 25), noise=st.floats(0, 5))
def test_what_a_rotation_leaves_alone(seed, n, noise):
    x = walk(n, seed=seed)
    y = x + noise * normal(n, 3, seed=seed + 1)
    z = turned(x, seed=seed % 2**32)
    for score in (rmsd, tm_score, lddt):
        assert float(score(z, y)) == pytest.approx(float(score(x, y)), abs=1e-5), score
    for value in (bond_lengths, pseudo_angles, radius_of_gyration, clashes):
        assert torch.allclose(value(z), value(x), atol=1e-6), value
        assert torch.allclose(value(x * MIRROR), value(x), atol=1e-9), value
    apart = (pseudo_dihedrals(z) - pseudo_dihedrals(x)).remainder(2 * math.pi)
    assert torch.minimum(apart, 2 * math.pi - apart).max() < 1e-5
    assert torch.allclose(pseudo_dihedrals(x * MIRROR), -pseudo_dihedrals(x))
    assert 0 <= float(lddt(x, y)) <= 1
    assert 0 < float(tm_score(x, y)) <= 1 + 1e-12


# -- TM-score --------------------------------------------------------------------------------------------------------


def test_seeds_are_all_runs():
    seeds = fragments(18)
    assert seeds.sum(1).int().tolist() == [18] + 10 * [9] + 15 * [4]
    assert torch.equal(fragments(18, 5)[1:4].argmax(1), torch.tensor([0, 5, 9]))  # the last run is there
    assert fragments(3).tolist() == [[1, 1, 1]]


def test_distances_of_the_search_are_those_of_superpositions():
    x, y = walk(15, seed=0), walk(15, seed=1)
    seeds = fragments(15)
    expected = torch.stack([(superpose(x, y, weights=w).move(x) - y).square().sum(1) for w in seeds])
    assert torch.allclose(square_distances(x, y, seeds), expected, atol=1e-7)


def test_a_search_visits_no_set_twice():
    x = walk(20, seed=0)
    y = x + normal(20, 3, seed=1)
    kept = list(visits(x, y, first=2.0, then=3.0))
    assert sum(len(squares) for squares in kept[1:]) < len(kept[0]) * 20


def test_the_distance_scale_by_hand():
    assert tm_distance(15 + 8) == pytest.approx(1.24 * 2 - 1.8)
    assert tm_distance(15 + 125) == pytest.approx(1.24 * 5 - 1.8)
    assert tm_distance(21) == tm_distance(4) == 0.5


def test_a_chain_of_two_rigid_parts():
    """60 of 100 residues fit exactly, the others are 1000 A away: each of those adds less than (d0 / 900)^2."""
    y = walk(100, seed=0)
    x = y.clone()
    x[60:] = turned(y[60:], seed=1) + 1000
    assert 0.6 - 1e-9 <= float(tm_score(x, y)) < 0.60001
    assert float(tm_score(x, y, length=200)) == pytest.approx(0.3, abs=1e-4)
    assert gdt(x, y).tolist() == pytest.approx([0.6] * 4)
    assert float(gdt_ts(x, y, length=200)) == pytest.approx(0.3)
    short = y[-40:]
    assert float(gdt_ha(turned(x[60:], seed=5), short)) == pytest.approx(1)


def climbed(x, y, length, starts, seed):
    """The TM-score by a general optimiser from random rotations and from the rmsd's."""
    d0, best = tm_distance(length), 0.0
    x, y = x.numpy(), y.numpy()
    rng = np.random.default_rng(seed)

    def loss(p):
        d = Rotation.from_rotvec(p[:3]).apply(x) + p[3:] - y
        return -(1 / (1 + (d**2).sum(1) / d0**2)).sum() / length

    for k in range(starts):
        i = rng.integers(len(x) - 3)
        piece = slice(None) if k == 0 else slice(i, i + 4)
        found = superpose(torch.from_numpy(x[piece]), torch.from_numpy(y[piece]))
        start = np.concatenate([Rotation.from_matrix(found.rotation.numpy()).as_rotvec(), found.translation.numpy()])
        best = max(best, -minimize(loss, start, method="BFGS").fun)
    return best


@pytest.mark.parametrize(("noise", "seed"), [(0.5, 0), (1.5, 1), (3.0, 2)])
def test_no_optimiser_climbs_higher(noise, seed):
    y = walk(40, seed=seed)
    x = turned(y + noise * normal(40, 3, seed=seed + 9), seed=seed)
    ours, theirs = float(tm_score(x, y)), climbed(x, y, 40, 15, seed)
    assert ours >= theirs - 1e-6
    if noise < 1:
        assert ours == pytest.approx(theirs, abs=1e-6)


def test_exchange_and_mirror():
    x, y = walk(50, seed=0), walk(50, seed=0) + 1.5 * normal(50, 3, seed=1)
    assert float(tm_score(x, y)) == pytest.approx(float(tm_score(y, x)), abs=1e-5)
    coil = helix(60)
    assert float(tm_score(coil * MIRROR, coil)) < 0.6
    assert float(lddt(coil * MIRROR, coil)) == pytest.approx(1)  # distances know no mirror


def of_tm_align(x, y):
    return tm_aligned(x, y, matching="identity").score


@pytest.mark.parametrize("n", [5, 20, 60, 130])
@pytest.mark.parametrize("noise", [0.0, 0.3, 1.0])
def test_a_score_is_that_of_tm_align_on_walks(n, noise):
    pytest.importorskip("tmtools")
    y = walk(n, seed=n)
    x = turned(y + noise * normal(n, 3, seed=7), seed=n)
    ours, theirs = float(tm_score(x, y)), of_tm_align(x, y)
    assert ours >= theirs - 1e-4
    if n > 20:  # below, d0 is 0.5 A and the maximum is sharp: the search of TM-align stops short of it
        assert ours == pytest.approx(theirs, abs=1e-4 if noise < 1 else 1e-3)


@pytest.mark.parametrize(
    ("noise", "most"), [(0.3, 1e-6), (1.0, 1e-4), (2.0, 2e-4), (5.0, 3e-3), (9.0, 3e-3), ("drift", 3e-3)]
)
def test_a_score_is_that_of_tm_align_on_proteins(noise, most, real_chains):
    """Never less; on noisy pairs more, since the best superpositions are polished, and TM-align's are not."""
    pytest.importorskip("tmtools")
    for k in range(3, 683, 340):
        y = real_chains[k]
        g = normal(*y.shape, seed=k)
        x = turned(y + (0.6 * g.cumsum(0) if noise == "drift" else noise * g), seed=k)
        ours = float(tm_score(x, y))
        more = ours - of_tm_align(x, y)
        assert -1e-7 < more < most
        assert float(tm_score(x, y, stride=4)) > ours - 5e-3


def test_chains_that_have_nothing_in_common(real_chains):
    pytest.importorskip("tmtools")
    for a, b in ((0, 100), (200, 300), (400, 600)):
        n = min(len(real_chains[a]), len(real_chains[b]))
        x, y = real_chains[a][:n], real_chains[b][:n]
        assert of_tm_align(x, y) - 1e-4 < float(tm_score(x, y)) < of_tm_align(x, y) + 0.02
        assert float(tm_score(x, y)) < 0.4


# -- TM-align --------------------------------------------------------------------------------------------------------


def test_tm_align_finds_which_residues_belong_together(real_chains):
    pytest.importorskip("tmtools")
    y = real_chains[10]
    x = turned(y[20:], seed=4)
    found = tm_aligned(x, y)
    assert found.pairs == [(i, i + 20) for i in range(len(x))]
    assert (found.superposition.move(x) - y[20:]).norm(dim=-1).max() < 1e-2
    assert found.score_by_x == pytest.approx(1, abs=1e-6)
    assert found.score == pytest.approx(len(x) / len(y), abs=1e-3)
    assert found.rmsd < 1e-3
    named = tm_aligned(x, y, sequences=("G" * len(x), "W" * len(y)))
    assert named.score == pytest.approx(found.score, abs=1e-6)
    assert tm_aligned(y * MIRROR, y).score < 0.7


def test_tm_align_says_what_is_missing(monkeypatch):
    pytest.importorskip("tmtools")
    x = walk(10, seed=0)
    with pytest.raises(DataError, match="one length"):
        tm_aligned(x[1:], x, matching="identity")
    with pytest.raises(DataError, match="one letter"):
        tm_aligned(x, x, sequences=("AAA", "A" * 10))
    with pytest.raises(DataError, match="at least 3"):
        tm_aligned(x[:2], x)
    monkeypatch.setitem(sys.modules, "tmtools", None)
    with pytest.raises(DataError, match=r"pip install 'renorm\[protein\]'"):
        tm_aligned(x, x)


# -- GDT and lDDT ----------------------------------------------------------------------------------------------------


def test_a_distance_test_by_hand():
    """Five residues of 20 are off along one line by 0.7, 1.5, 3, 7 and 20 A; the other 15 hold the chain in place."""
    y = walk(20, seed=2) * 5
    x = y.clone()
    for i, off in zip((2, 6, 10, 14, 18), (0.7, 1.5, 3.0, 7.0, 20.0), strict=True):
        x[i, 0] += off
    shares = gdt(x, y, cutoffs=(0.3, 0.5, 1.0, 2.0, 4.0, 8.0))
    # a superposition may give way by a little: never less than those that hold still
    still = torch.tensor([15, 15, 16, 17, 18, 19]).double() / 20
    assert (shares >= still).all()
    assert shares[0] == 0.75
    assert (shares.diff() >= 0).all()
    assert float(gdt_ts(x, y)) == pytest.approx(float(gdt(x, y, cutoffs=(1.0, 2.0, 4.0, 8.0)).mean()))
    assert float(gdt_ha(x, y)) <= float(gdt_ts(x, y))


def test_random_superpositions_never_find_more():
    x, y = walk(30, seed=0), walk(30, seed=0) + 2 * normal(30, 3, seed=1)
    most = gdt(x, y)
    rng = np.random.default_rng(0)
    for _ in range(300):
        chosen = torch.from_numpy(rng.choice(30, size=int(rng.integers(3, 30)), replace=False))
        distance = (superpose(x[chosen], y[chosen]).move(x) - y).norm(dim=1)
        assert ((distance[:, None] <= torch.tensor([1.0, 2.0, 4.0, 8.0])).double().mean(0) <= most + 0.07).all()
    assert most[2] >= ((superpose(x, y).move(x) - y).norm(dim=1) <= 4).double().mean()


def lddt_by_loops(x, y):
    kept = pairs = 0
    for i in range(len(x)):
        for j in range(len(x)):
            if i != j and float((y[i] - y[j]).norm()) < 15:
                pairs += 1
                off = abs(float((x[i] - x[j]).norm() - (y[i] - y[j]).norm()))
                kept += sum(off < t for t in (0.5, 1, 2, 4)) / 4
    return kept / pairs


@pytest.mark.parametrize("noise", [0.2, 1.0, 4.0])
def test_local_distances_are_those_of_loops(noise):
    y = walk(25, seed=1)
    x = y + noise * normal(25, 3, seed=2)
    assert float(lddt(x, y)) == pytest.approx(lddt_by_loops(x, y), abs=1e-12)
    assert lddt(torch.stack([x, y]), y).tolist() == pytest.approx([lddt_by_loops(x, y), 1.0])


def test_parts_that_moved_lose_only_the_pairs_between_them():
    y = torch.cat([helix(10), helix(10) + 100])
    x = torch.cat([helix(10), turned(helix(10), seed=0)])
    assert float(lddt(x, y)) == pytest.approx(1)


# -- geometry --------------------------------------------------------------------------------------------------------


def test_a_helix_in_closed_form():
    """Bond and angle of a helix of radius r, rise h, turn w: b^2 = 4 r^2 sin^2(w/2) + h^2."""
    radius, rise, turn = 2.3, 1.5, math.radians(100)
    x = helix(20)
    bond = math.sqrt(4 * radius**2 * math.sin(turn / 2) ** 2 + rise**2)
    second = math.sqrt(4 * radius**2 * math.sin(turn) ** 2 + 4 * rise**2)
    assert torch.allclose(bond_lengths(x), torch.tensor(bond).double(), atol=1e-9)
    assert torch.allclose(pseudo_angles(x), torch.tensor(2 * math.asin(second / 2 / bond)).double(), atol=1e-9)
    tau = pseudo_dihedrals(x)
    assert tau.min() > math.radians(48)
    assert tau.max() < math.radians(52)  # right-handed: positive
    assert float(handedness(x)) == pytest.approx(float(tau[0].sin()))
    assert float(handedness(x * MIRROR)) == pytest.approx(-float(tau[0].sin()))
    assert handedness(torch.arange(5).double()[:, None] * torch.ones(3).double() * 2).isnan()  # a straight rod


@given(st.integers(0, 10**6), st.integers(4, 12))
def test_internal_coordinates_come_back(seed, n):
    rng = np.random.default_rng(seed)
    bonds = rng.uniform(2.9, 4.1, n - 1)
    angles = rng.uniform(0.3, math.pi - 0.3, n - 2)
    dihedrals = rng.uniform(-math.pi, math.pi, n - 3)
    x = build(bonds, angles, dihedrals)
    np.testing.assert_allclose(bond_lengths(x), bonds, atol=1e-9)
    np.testing.assert_allclose(pseudo_angles(x), angles, atol=1e-7)
    np.testing.assert_allclose(pseudo_dihedrals(x), dihedrals, atol=1e-6)


def test_a_rod_has_its_radius():
    rod = torch.arange(11).double()[:, None] * torch.tensor([3.8, 0.0, 0.0]).double()
    assert float(radius_of_gyration(rod)) == pytest.approx(3.8 * math.sqrt((11**2 - 1) / 12))


def test_what_touches_a_hole_is_nan():
    x = walk(10, seed=0)
    mask = torch.ones(10, dtype=torch.bool)
    mask[4] = False
    assert bond_lengths(x, mask=mask).isnan().nonzero().flatten().tolist() == [3, 4]
    assert pseudo_angles(x, mask=mask).isnan().nonzero().flatten().tolist() == [2, 3, 4]
    assert pseudo_dihedrals(x, mask=mask).isnan().nonzero().flatten().tolist() == [1, 2, 3, 4]
    assert torch.equal(bond_lengths(x, mask=mask)[:3], bond_lengths(x)[:3])
    assert not handedness(x, mask=mask).isinf()


@pytest.mark.parametrize("separation", [1, 2, 3, 5])
def test_clashes_are_those_of_loops(separation):
    x = 0.5 * walk(40, seed=3)
    pairs = [(i, j) for i in range(40) for j in range(i + separation, 40) if float((x[i] - x[j]).norm()) < 3.6]
    assert pairs
    assert float(clashes(x, separation=separation)) == pytest.approx(len(pairs) / 40)


def test_proteins_hardly_clash_and_are_right_handed(real_chains):
    chains = real_chains[::5]
    total = sum(float(clashes(x)) * len(x) for x in chains)
    assert 1e-4 < total / sum(map(len, chains)) < 1e-3
    hands = torch.stack([handedness(x) for x in chains])
    assert (hands > 0).double().mean() > 0.97
    assert float(handedness(chains[0] * MIRROR)) == pytest.approx(-float(hands[0]))


# -- contacts --------------------------------------------------------------------------------------------------------


def test_contacts_are_those_of_loops():
    x = walk(30, seed=1)
    expected = [[i != j and float((x[i] - x[j]).norm()) < 8 for j in range(30)] for i in range(30)]
    assert contact_map(x).tolist() == expected
    mask = torch.ones(30, dtype=torch.bool)
    mask[3] = False
    assert not contact_map(x, mask=mask)[3].any()


def test_precision_of_known_and_of_reversed_distances(real_chains):
    x = real_chains[0]
    n, distance = len(x), torch.cdist(x, x)
    far = distance[torch.ones(n, n).triu(24).bool()].sort().values
    found = contact_precision(distance, x)
    assert float(found.fifth) == pytest.approx(float((far[: math.ceil(n / 5)] < 8).double().mean()))
    assert float(found.full) == pytest.approx(float((far[:n] < 8).double().mean()))
    assert float(found.fifth) == 1
    assert float(contact_precision(-distance, x).full) == 0
    both = contact_precision(torch.stack([distance, -distance]), torch.stack([x, x]))
    assert both.fifth.tolist() == [1, 0]
    few = contact_precision(distance[:26, :26], x[:26])  # three pairs are that far apart, fewer than L/5
    assert float(few.full) == float(few.fifth)


@pytest.mark.parametrize("n", [26, 33, 60])
def test_precision_is_that_of_loops(n, generator):
    x = 0.4 * walk(n, seed=n)  # dense: about every second pair is a contact
    predicted = torch.randint(0, 9, (n, n), generator=generator).double()  # with ties, and not symmetric
    mask = torch.ones(n, dtype=torch.bool)
    mask[1] = False
    sites = [i for i in range(n) if mask[i]]
    pairs = sorted((float(predicted[i, j]), i, j) for i in sites for j in sites if j - i >= 24)
    touch = [float((x[i] - x[j]).norm()) < 8 for _, i, j in pairs]
    found = contact_precision(predicted, x, mask=mask)
    for share, most in ((found.fifth, math.ceil((n - 1) / 5)), (found.full, n - 1)):
        assert float(share) == pytest.approx(np.mean(touch[:most]))


# -- histograms ------------------------------------------------------------------------------------------------------


def test_a_divergence_is_that_of_scipy(generator):
    a, b = (torch.randint(0, 9, (3, 20), generator=generator) for _ in range(2))
    a[:, 4] = b[:, 7] = 0
    a[:, 11] = b[:, 11] = 0
    expected = jensenshannon(a.sum(0).numpy(), b.sum(0).numpy(), base=2)
    assert float(js_distance(a, b).value) == pytest.approx(expected, rel=1e-12)
    assert float(js_distance(b, a).value) == pytest.approx(expected, rel=1e-12)
    assert float(js_distance(a, 3 * a).value) == pytest.approx(0, abs=1e-7)
    assert float(js_distance(torch.tensor([[1, 0]]), torch.tensor([[0, 5]])).value) == 1
    assert js_distance(a[:1], b).error.isnan()


@given(st.lists(st.floats(-20, 20), min_size=1, max_size=30), st.integers(-3, 3))
def test_dihedrals_come_round(values, turns):
    tau = torch.tensor(values).double()
    inside = torch.atan2(tau.sin(), tau.cos())
    edge = (inside + math.pi) * 36 / math.pi
    clear = (edge - edge.round()).abs() > 1e-6  # not on an edge, where rounding decides
    assert torch.equal(dihedral_counts(inside[clear] + 2 * math.pi * turns), dihedral_counts(inside[clear]))
    assert int(dihedral_counts(tau).sum()) == len(values)


def test_bins_by_hand():
    angles = torch.tensor([0.0, math.pi / 36 * 1.5, math.pi, torch.nan]).double()
    assert angle_counts(angles).nonzero().flatten().tolist() == [0, 1, 35]
    assert angle_counts(torch.tensor([math.pi])).argmax() == 35  # in float32 that is above pi
    dihedrals = torch.tensor([[-math.pi, math.pi, 0.01], [-0.01, torch.nan, torch.nan]], dtype=torch.float64)
    found = dihedral_counts(dihedrals)
    assert found.sum(1).tolist() == [3, 1]
    assert [int(found[0, k]) for k in (0, 36)] == [2, 1]
    assert int(found[1, 35]) == 1


def test_the_floor_and_the_error_of_a_distance(generator):
    """Rows of independent values: the mean square is the docstring's floor; far from it the error is the spread."""
    uniform = lambda rows: torch.randint(0, 36, (rows, 40), generator=generator)  # noqa: E731
    counts = lambda x: torch.nn.functional.one_hot(x, 36).sum(1)  # noqa: E731
    floor = [float(js_distance(counts(uniform(50)), counts(uniform(25))).value) ** 2 for _ in range(200)]
    expected = 35 / (8 * math.log(2)) * (1 / 2000 + 1 / 1000)
    assert np.mean(floor) == pytest.approx(expected, rel=0.08)
    tilted = lambda rows: (uniform(rows) + uniform(rows)) // 2  # noqa: E731
    found = [js_distance(counts(tilted(30)), counts(uniform(30))) for _ in range(200)]
    values, errors = (torch.stack([getattr(one, key) for one in found]) for key in ("value", "error"))
    assert 0.85 < float(errors.square().mean().sqrt() / values.std()) < 1.2


# -- summary ---------------------------------------------------------------------------------------------------------


def test_a_power_law_comes_back():
    chains = []
    for n in (10, 40, 90, 160):
        x = walk(n, seed=n)
        chains.append(x * (2.5 * n**0.4 / radius_of_gyration(x)))
    law = gyration_law(chains)
    assert law.a == pytest.approx(2.5)
    assert law.nu == pytest.approx(0.4)
    assert law.log_ratio(math.e * chains[0]) == pytest.approx(1)
    same = gyration_law([chains[0], 2 * chains[0]])  # one length: a globule's exponent
    assert same.nu == pytest.approx(1 / 3)
    assert same.a * 10 ** (1 / 3) == pytest.approx(math.sqrt(2) * 2.5 * 10**0.4)


def test_figures_by_hand():
    chains = [walk(n, seed=n) for n in (20, 30, 40)]
    same = chain_figures(chains, chains)
    assert same == pytest.approx(
        {
            "bond_rmse": 0,
            "angle_js": 0,
            "dihedral_js": 0,
            "rg_error": same["rg_error"],
            "rg_distance": 0,
            "clashes": sum(float(clashes(x)) * len(x) for x in chains) / 90,
        },
        abs=1e-9,
    )
    logs = [gyration_law(chains).log_ratio(x) for x in chains]
    assert same["rg_error"] == pytest.approx(np.abs(logs).mean())
    wide = chain_figures([1.1 * x for x in chains], chains)  # bonds 0.38 too long, sizes off by log 1.1
    assert wide["bond_rmse"] == pytest.approx(0.38)
    assert wide["rg_distance"] == pytest.approx(math.log(1.1))
    assert wide["angle_js"] == pytest.approx(0, abs=1e-6)
    batch = chain_figures(torch.stack([chains[0], chains[0]]), chains)
    assert batch == pytest.approx(chain_figures([chains[0]], chains))


def test_a_mirror_shows_in_the_dihedrals_alone(real_chains):
    chains = real_chains[::10]
    found = chain_figures([x * MIRROR for x in chains], chains)
    assert found.pop("dihedral_js") > 0.5
    same = chain_figures(chains, chains)
    same.pop("dihedral_js")
    assert found == pytest.approx(same, abs=1e-6)


def test_floors_of_proteins(real_chains):
    """Every second chain of a third, against the others; the docstring's floors are means over many such splits."""
    found = chain_figures(real_chains[::6], real_chains[3::6])
    assert 0.04 < found["bond_rmse"] < 0.09
    assert found["angle_js"] < 0.08
    assert found["dihedral_js"] < 0.09
    assert 0.08 < found["rg_error"] < 0.18
    assert found["rg_distance"] < 0.08
    assert found["clashes"] < 0.002
    swollen = chain_figures([1.05 * x for x in real_chains[::6]], real_chains[3::6])
    assert swollen["bond_rmse"] > 0.18


# -- errors ----------------------------------------------------------------------------------------------------------

X = torch.zeros(6, 3)
NAN = torch.full((6, 3), torch.nan)
NONE = torch.zeros(6, dtype=torch.bool)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: unchecked(rmsd)(X, X[:5]), "as many, got 6 and 5"),
        (lambda: unchecked(rmsd)(X[:, :2], X[:, :2]), r"\(n, 3\)"),
        (lambda: rmsd(NAN, X), "finite"),
        (lambda: rmsd(X, X, mask=NONE), "at least 1 residue"),
        (lambda: superpose(X, X, weights=torch.full((6,), -1.0)), ">= 0"),
        (lambda: superpose(X, X, weights=torch.zeros(6)), "at least 1 residue"),
        (lambda: tm_score(X[:2], X[:2]), "at least 3 residues that count, got 2"),
        (lambda: tm_score(X, X, length=0), "length of the reference must be >= 1"),
        (lambda: tm_score(X, X, stride=0), "stride >= 1, got 0"),
        (lambda: gdt(X, X, cutoffs=()), "cut-offs > 0"),
        (lambda: gdt(X, X, cutoffs=(1.0, -1.0)), "cut-offs > 0"),
        (lambda: gdt(X, X, length=0), ">= 1"),
        (lambda: lddt(X, 40 * torch.arange(6.0)[:, None] + X), "nearer than 15.0 A"),
        (lambda: lddt(X, X, thresholds=()), "at least 1 threshold"),
        (lambda: pseudo_dihedrals(X[:3]), "n >= 4, got"),
        (lambda: unchecked(bond_lengths)(X[:, :2]), r"\(n, 3\)"),
        (lambda: counted(NAN), "mask those"),
        (lambda: clashes(X, separation=0), ">= 1, got 0"),
        (lambda: unchecked(contact_precision)(torch.zeros(5, 5), X), "6 residues"),
        (lambda: contact_precision(torch.zeros(6, 6), X), "24 apart"),
        (lambda: contact_precision(torch.full((6, 6), torch.nan), X, separation=3), "nan"),
        (lambda: bin_counts(torch.zeros(3), bins=0, low=0.0, high=1.0), "bins >= 1"),
        (lambda: angle_counts(torch.tensor([4.0])), "lie from 0 to 3.142"),
        (lambda: dihedral_counts(torch.tensor([torch.inf])), "finite"),
        (lambda: unchecked(js_distance)(torch.ones(1, 3).long(), torch.ones(1, 4).long()), "same bins"),
        (lambda: js_distance(torch.zeros(1, 3).long(), torch.ones(1, 3).long()), "above 0"),
        (lambda: js_distance(torch.tensor([[-1, 3]]), torch.tensor([[1, 1]])), ">= 0"),
        (lambda: gyration_law([]), "at least 1 chain"),
        (lambda: gyration_law([X]), "single point"),
        (lambda: chain_figures([], [X]), "got no samples"),
        (lambda: chain_figures([X], [X[:3]]), "in reference"),
    ],
)
def test_errors_say_the_rule_and_the_value(call, message):
    with pytest.raises(DataError, match=message):
        call()
