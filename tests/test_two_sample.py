"""Distances between samples, precision and recall, memorisation: against hand-worked cases, oracles and exact laws."""

import inspect
import math
import statistics
import warnings

import pytest
import torch

from renorm.errors import DataError
from renorm.measure.manifold import Manifold, manifold
from renorm.measure.neighbours import memorisation, nearest, square_distances
from renorm.measure.two_sample import kernel_distance, sliced_wasserstein


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def unchecked(function):
    """As users have it: the tests alone check the shapes of annotations."""
    return inspect.unwrap(function)


def normal(*shape, generator):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


# -- kernel distance -------------------------------------------------------------------------------------------------


def kernel_distance_by_loops(a, b):
    k = lambda x, y: float(x @ y / len(x) + 1) ** 3  # noqa: E731
    within = [sum(k(s[i], s[j]) for i in range(len(s)) for j in range(len(s)) if i != j) for s in (a, b)]
    across = sum(k(x, y) for x in a for y in b)
    n, m = len(a), len(b)
    return within[0] / (n * (n - 1)) + within[1] / (m * (m - 1)) - 2 * across / (n * m)


def jackknife_by_loops(a, b, parts, generator):
    """Leave out each part in turn and do everything anew."""
    a, b = (x[torch.randperm(len(x), generator=generator)] for x in (a, b))
    without = [
        kernel_distance_by_loops(
            *(torch.cat([p for i, p in enumerate(x.tensor_split(parts)) if i != j]) for x in (a, b))
        )
        for j in range(parts)
    ]
    mean = sum(without) / parts
    return math.sqrt((parts - 1) / parts * sum((u - mean) ** 2 for u in without))


def test_a_kernel_distance_and_its_error_are_those_of_loops(generator):
    a, b = normal(13, 3, generator=generator), 1.2 * normal(11, 3, generator=generator) + 0.3
    found = kernel_distance(a, b, parts=4, generator=seeded(5))
    assert float(found.value) == pytest.approx(kernel_distance_by_loops(a, b), rel=1e-12)
    assert float(found.error) == pytest.approx(jackknife_by_loops(a, b, 4, seeded(5)), rel=1e-9)
    assert float(kernel_distance(a, b, parts=4, generator=seeded(6)).value) == pytest.approx(float(found.value))


class Projection(torch.nn.Module):
    """Eight fixed features of a picture; the extractor that torchmetrics is lent."""

    def __init__(self, generator):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(64, 8, generator=generator), requires_grad=False)
        self.num_features = 8

    def forward(self, x):
        return torch.tanh(x.float().flatten(1) @ self.weight / 4)


def test_a_kernel_distance_is_that_of_torchmetrics(generator):
    from torchmetrics.image.kid import KernelInceptionDistance

    extractor = Projection(generator)
    real, fake = (torch.rand(200, 1, 8, 8, generator=generator) for _ in range(2))
    fake = fake**1.3
    with warnings.catch_warnings(action="ignore"):  # that it keeps all features
        oracle = KernelInceptionDistance(feature=extractor, subsets=1, subset_size=200, normalize=True)
    oracle.update(real, real=True)
    oracle.update(fake, real=False)
    ours = kernel_distance(extractor(fake), extractor(real), generator=generator)
    assert float(ours.value) == pytest.approx(float(oracle.compute()[0]), rel=1e-4)


@pytest.mark.parametrize(("shift", "low", "high"), [(0.0, 0.9, 1.7), (0.7, 0.8, 1.25)])
def test_the_error_of_a_kernel_distance_is_its_spread_over_fresh_samples(shift, low, high, generator):
    """Exact mean: 0 for one law; for N(shift, 1) and N(0, 1) in one dimension E k = E (x y + 1)^3 in closed form."""
    found = [
        kernel_distance(
            normal(80, 1, generator=generator) + shift, normal(120, 1, generator=generator), generator=generator
        )
        for _ in range(200)
    ]
    values, errors = (torch.stack([getattr(one, key) for one in found]) for key in ("value", "error"))
    # (xy + 1)^3 = 1 + 3 xy + 3 x^2 y^2 + x^3 y^3: squared differences of the first three moments
    moments = (shift, shift**2, shift**3 + 3 * shift)
    exact = 3 * moments[0] ** 2 + 3 * moments[1] ** 2 + moments[2] ** 2
    assert abs(values.mean() - exact) < 4 * values.std() / math.sqrt(200)
    ratio = float(errors.square().mean().sqrt() / values.std())
    assert low < ratio < high


# -- sliced Wasserstein ----------------------------------------------------------------------------------------------


def test_a_shift_is_moved_straight(generator):
    a, v = normal(50, 4, generator=generator), torch.tensor([3.0, 0.0, -4.0, 0.0]).double()
    found = sliced_wasserstein(a, a + v, generator=generator, directions=4000)
    assert abs(found.value - 5 / math.sqrt(4)) < 4 * found.error
    assert 0.01 < found.error < 0.03
    u = torch.randn(4, 4000, generator=seeded(3)).double()  # the very directions: every slice moves by (u . v)^2
    u = u / u.norm(dim=0)
    again = sliced_wasserstein(a, a + v, generator=seeded(3), directions=4000)
    assert float(again.value) == pytest.approx(float(((v @ u) ** 2).mean().sqrt()), rel=1e-12)
    assert sliced_wasserstein(a, a, generator=generator).value < 1e-12


def test_gaussians_of_two_widths_differ_by_the_difference_of_widths(generator):
    a, b = normal(40_000, 3, generator=generator), 1.5 * normal(30_000, 3, generator=generator)
    found = sliced_wasserstein(a, b, generator=generator, directions=32)
    assert abs(found.value - 0.5) < 0.02


@pytest.mark.parametrize(("n", "m"), [(3, 2), (4, 7), (6, 3), (5, 1)])
def test_unequal_numbers_are_paired_by_quantiles(n, m, generator):
    """As if each side were repeated until both are equally many."""
    a, b = normal(n, 2, generator=generator), normal(m, 2, generator=generator)
    found = sliced_wasserstein(a, b, generator=seeded(1), directions=16)
    same = sliced_wasserstein(a.repeat(m, 1), b.repeat(n, 1), generator=seeded(1), directions=16)
    assert float(found.value) == pytest.approx(float(same.value), rel=1e-12)


def test_one_line_by_hand():
    a, b = torch.tensor([[0.0], [3.0]]), torch.tensor([[0.0], [1.0], [5.0]])
    # thirds and halves: (0,0) 1/3, (0,1) 1/6, (3,1) 1/6, (3,5) 1/3
    exact = math.sqrt((0 * 2 + 1 + 4 + 4 * 2) / 6)
    assert float(sliced_wasserstein(a, b, generator=seeded()).value) == pytest.approx(exact)


# -- precision, recall, density, coverage ----------------------------------------------------------------------------


def manifold_by_loops(y, x, k):
    def ball(s):
        return [sorted(float((p - q).norm()) for q in s)[k] for p in s]

    of_x, of_y = ball(x), ball(y)
    inside = [[float((q - p).norm()) <= r for p, r in zip(x, of_x, strict=True)] for q in y]
    reached = [any(float((p - q).norm()) <= r for q, r in zip(y, of_y, strict=True)) for p in x]
    return Manifold(
        sum(map(any, inside)) / len(y),
        sum(reached) / len(x),
        sum(map(sum, inside)) / (k * len(y)),
        sum(any(row[i] for row in inside) for i in range(len(x))) / len(x),
    )


@pytest.mark.parametrize("k", [1, 3])
def test_precision_and_its_kin_are_those_of_loops(k, generator, monkeypatch):
    monkeypatch.setattr("renorm.measure.neighbours.CHUNK", 100)  # a few rows at a time
    y, x = 0.7 * normal(30, 2, generator=generator) + 0.5, normal(40, 2, generator=generator)
    assert manifold(y, x, k=k) == pytest.approx(manifold_by_loops(y, x, k))


def test_a_lost_mode_costs_recall_and_coverage_not_precision(generator):
    data = normal(400, 4, generator=generator)
    data[200:, 0] += 20
    half = normal(300, 4, generator=generator)
    found = manifold(half, data)
    assert found.precision > 0.9
    assert found.recall < 0.55
    assert found.coverage < 0.55
    assert found.density > 0.9
    swapped = manifold(data, half)  # samples that invent a mode
    assert swapped.precision < 0.55
    assert swapped.recall > 0.9


def test_all_samples_alike(generator):
    data = normal(200, 4, generator=generator)
    one = torch.zeros(100, 4).double() + data[0]
    found = manifold(one, data)
    assert found.precision == 1
    assert found.recall == 1 / 200  # the very point that is repeated
    assert found.coverage < 0.1


def test_a_law_against_itself(generator):
    x = normal(150, 3, generator=generator)
    same = manifold(x, x, k=4)  # each ball holds its own point and four others, the fourth on its surface
    assert same == pytest.approx(Manifold(1.0, 1.0, 5 / 4, 1.0))
    fresh = manifold(normal(1500, 3, generator=generator), normal(1500, 3, generator=generator))
    assert abs(fresh.density - 1) < 0.05
    assert min(fresh.precision, fresh.recall, fresh.coverage) > 0.9


def test_coverage_of_one_law_is_exact():
    """A ball is empty where the k nearest of the other 2n - 1 points all are of the data: their order is free."""
    n, k = 150, 5
    missed = math.prod((n - j) / (2 * n - j) for j in range(1, k + 1))
    g = seeded(2)
    found = [manifold(normal(n, 2, generator=g), normal(n, 2, generator=g), k=k).coverage for _ in range(200)]
    mean, error = statistics.mean(found), statistics.stdev(found) / math.sqrt(200)
    assert error < 0.002
    assert abs(mean - (1 - missed)) < 4 * error


# -- neighbours ------------------------------------------------------------------------------------------------------


def test_neighbours_are_those_of_a_full_search(generator, monkeypatch):
    monkeypatch.setattr("renorm.measure.neighbours.CHUNK", 999)
    x, training = normal(37, 2, 3, generator=generator), normal(250, 2, 3, generator=generator) + 100
    found = nearest(x, training, k=3)
    exact = torch.cdist(x.flatten(1), training.flatten(1), compute_mode="donot_use_mm_for_euclid_dist")
    values, index = exact.topk(3, largest=False)
    assert torch.equal(found.indices, index)
    assert torch.allclose(found.distance, values, rtol=1e-12)
    assert torch.allclose(torch.cat(list(square_distances(x.flatten(1), training.flatten(1)))).sqrt(), exact)


def test_copies_of_bytes_are_found_at_distance_zero():
    g = seeded(1)
    training = torch.randint(256, (500, 1, 16, 16), generator=g, dtype=torch.uint8)
    copies = training[[7, 401, 0]].clone()
    copies[2, 0, 3, 3] ^= 1
    found = nearest(copies, training, k=2)
    assert found.indices[:, 0].tolist() == [7, 401, 0]
    assert found.distance[:, 0].tolist() == [0.0, 0.0, 1.0]
    assert found.distance[:, 1].min() > 1000


def distances(x, training):
    return nearest(x, training, k=2).distance


def test_fresh_samples_are_no_copies_and_copies_are_said_aloud():
    g = seeded(4)
    training, test, fresh = (normal(num, 12, generator=g) for num in (2000, 600, 700))
    honest = memorisation(distances(fresh, training), distances(test, training))
    assert abs(honest.near - honest.expected) < 0.02
    assert honest.expected == 6 / 601
    assert 0.95 < honest.ratio < 1.05
    assert honest.copies == 0
    assert honest.p_value > 0.01
    mixed = fresh.clone()
    mixed[:20] = training[50:70] + 0.01 * normal(20, 12, generator=g)
    found = memorisation(distances(mixed, training), distances(test, training))
    assert found.copies == 20 / 700
    assert 20 / 700 <= found.near < 45 / 700
    # Pr(20 copies among 700 and none among 600) = (700 choose 20)/(1300 choose 20)
    assert found.p_copies == pytest.approx(math.comb(700, 20) / math.comb(1300, 20))
    assert found.p_value == 2 * min(found.p_near, found.p_copies) < 1e-3
    blurred = memorisation(distances(0.3 * fresh, training), distances(test, training))
    assert blurred.ratio < 0.8
    assert blurred.near > 0.1 > blurred.copies
    assert blurred.p_value < 1e-3


def test_the_chance_of_near_samples_by_hand():
    """Two samples below the least of three test fields: of the ten orders of five distances, one."""
    both = memorisation(torch.tensor([[1.0, 9.0], [1.5, 9.0]]).double() + 1, torch.tensor([[3.0, 4.0]] * 3).double())
    assert both.p_near == pytest.approx(1 / 10)
    one = memorisation(torch.tensor([[1.0, 2.0], [4.0, 5.0]]).double(), torch.tensor([[3.0, 4.0]] * 3).double())
    assert one.p_near == pytest.approx(4 / 10)  # the least of all is a sample: 2 of 5
    assert one.p_copies == 1


def test_the_chance_of_near_samples_is_right():
    """Of exchangeable distances, a p-value below q comes with a probability of at most q."""
    g = seeded(9)
    draws = torch.rand(1000, 350, 1, generator=g, dtype=torch.float64)
    p = [memorisation(*(torch.cat([1 + d, 1 + d], 1) for d in each.split([150, 200]))).p_value for each in draws]
    for q in (0.05, 0.2, 0.5):
        share = sum(value <= q for value in p) / 1000
        assert share < q / 2 + 4 * math.sqrt(q / 2 / 1000)  # half: no copies, so the other sign never speaks
    assert sum(value <= 0.5 for value in p) > 100


TWO = torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: kernel_distance(torch.zeros(39, 3), torch.zeros(80, 3), generator=seeded()), "at least 40 .* got 39"),
        (lambda: kernel_distance(TWO * torch.nan, TWO, generator=seeded()), "finite"),
        (lambda: sliced_wasserstein(TWO, TWO[:0], generator=seeded()), r"got \(2, 3\) and \(0, 3\)"),
        (lambda: sliced_wasserstein(TWO, TWO, generator=seeded(), directions=1), "at least 2 directions"),
        (lambda: manifold(TWO, TWO, k=2), "more than k samples"),
        (lambda: unchecked(manifold)(TWO[0], TWO[0], k=1), r"\(num, features\), got \(3,\) and \(3,\)"),
        (lambda: unchecked(manifold)(TWO, TWO[:, :2], k=1), r"got \(2, 3\) and \(2, 2\)"),
        (lambda: unchecked(manifold)(TWO, TWO[None], k=1), r"got \(2, 3\) and \(1, 2, 3\)"),
        (lambda: manifold(TWO * torch.inf, TWO, k=1), "finite"),
        (lambda: nearest(TWO, TWO, k=3), "1 <= k <= 2"),
        (lambda: nearest(TWO * torch.nan, TWO), "finite"),
        (lambda: memorisation(torch.zeros(0, 2).double(), torch.zeros(1, 2).double()), "two smallest distances"),
    ],
)
def test_errors_teach(call, message):
    with pytest.raises(DataError, match=message):
        call()
