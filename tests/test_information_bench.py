"""The two benchmarks of what rules and codebooks keep, made small."""

import math

import pytest

from renorm.bench import information, staged_codebooks


@pytest.fixture(scope="module")
def small():
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"EDGE": 12, "LEARN": 300, "HELD": 96, "PAIRS": 32, "PLACES": 4, "STEPS": 30}.items():
            patch.setattr(information, name, value)
        yield information.run(0)


def test_every_rule_has_its_row_and_the_exact_ones_are_exact(small):
    """Worked out apart from the benchmark, by other code: sums over all states with another order of the bits."""
    figures = small.figures
    assert figures["exact_majority_4x4"] == pytest.approx(0.5377702381640166, abs=1e-12)
    assert figures["exact_majority_coin_4x4"] == pytest.approx(0.5350736897356807, abs=1e-12)
    assert figures["exact_decimation_4x5"] == pytest.approx(0.3467105734181618, abs=1e-12)
    assert figures["exact_block_sum_4x5"] == pytest.approx(0.4677111254781341, abs=1e-12)
    assert figures["exact_best_odd_4x4"] == pytest.approx(0.5378119979645986, abs=1e-12)
    for end in ("4x4", "4x5"):
        best, all_of_it = figures[f"exact_best_odd_{end}"], figures[f"exact_whole_block_{end}"]
        assert figures[f"exact_learned_{end}"] <= best + 1e-12 < all_of_it
        assert figures[f"exact_learned_four_states_{end}"] <= all_of_it + 1e-12
    rows = [(row["lattice"], row["block"], row["rule"]) for row in small.table]
    assert len(rows) == len(set(rows)) == 8 + 2 * 9 + 1 + 6 + 1
    assert {"mutual_information_ratio", "mutual_information_ratio_error", "mutual_information_ratio_block4"} <= set(
        figures
    )


def test_bounds_lie_between_nothing_and_a_bit(small):
    for row in small.table:
        if row["lattice"] == "12 x 12":
            assert row["information"] < row["entropy"]
            assert row["error"] > 0
            assert (row["rule"] == "majority") == (row["over_majority_error"] == 0)
    assert 0.1 < small.figures["information_majority"] < math.log(2)
    assert 0.1 < small.figures["info_nce_majority"] < math.log(2)


def test_stages_are_compared_at_equal_bits(monkeypatch):
    monkeypatch.setattr(staged_codebooks, "BITS", (4, 8))
    monkeypatch.setattr(staged_codebooks, "LIMIT", {"digits": 500})
    monkeypatch.setattr(staged_codebooks, "find", lambda name: None)
    result = staged_codebooks.run(0)
    assert len(result.table) == 10
    error = {(row["codebook"], row["bits"]): row["distortion_train"] for row in result.table}
    for kind in ("one_stage", "residual_2", "residual_4", "product_2", "product_4"):
        assert error[kind, 8] < error[kind, 4]
        assert error["one_stage", 8] <= error[kind, 8]
    assert all(row["class_nats"] < row["class_entropy"] for row in result.table)
