"""The benchmark of learned coarse-graining on a small lattice: what is kept is taken up again, rows are whole."""

import math

import pytest

from renorm.bench import information, learned_rg
from renorm.bench.result import Result


@pytest.fixture
def small(tmp_path, monkeypatch):
    sizes = {"EDGE": 4, "SECONDS": 1.0, "SPINS": 200, "STARTING": 100, "DRAWS": 200, "MIXED_DRAWS": 60, "TARGETS": 30}
    for name, value in (sizes | {"THEIR_BATCH": 16, "MOST": 32, "MOST_BENT": 32, "LEAST": 8}).items():
        monkeypatch.setattr(learned_rg, name, value)
    monkeypatch.setattr(learned_rg, "ROOT", tmp_path)
    return tmp_path


@pytest.mark.parametrize("method", learned_rg.METHODS)
def test_a_method(small, method, monkeypatch):
    row = learned_rg.piece(method, 0)
    assert row["model"] == method
    assert row["steps"] >= 1
    assert all(math.isfinite(value) for value in row.values() if not isinstance(value, str))
    assert row["bound_gap"] < row["bound_gap_unmixed"] + 5 * math.hypot(
        row["bound_gap_error"], row["bound_gap_unmixed_error"]
    )
    monkeypatch.setattr(learned_rg, "learn", None)  # neither weights nor figures are made again
    assert learned_rg.piece(method, 0) == row
    (small / f"{method}-0.json").unlink()
    again = learned_rg.piece(method, 0)
    assert again["steps"] == row["steps"]
    monkeypatch.setattr(learned_rg, "RATE", 1e-3)
    with pytest.raises(TypeError):  # other settings are learned anew
        learned_rg.piece(method, 0)


def test_rules_are_kept(small, monkeypatch):
    monkeypatch.setattr(information, "run", lambda seed: Result({"x": 1.0}))
    assert learned_rg.rules(0) == {"x": 1.0}
    monkeypatch.setattr(information, "run", None)
    assert learned_rg.rules(0) == {"x": 1.0}
