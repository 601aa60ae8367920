"""One factor to pymdp and back."""

import numpy as np
import pytest

from renorm.errors import DataError, RecipeError
from renorm.interop.pymdp import from_pymdp, to_pymdp
from renorm.tokens.paths.tower import Tower
from renorm.tokens.paths.tower_law import TowerLaw


@pytest.fixture
def law():
    tower = Tower([np.array([0, 0, 1]), np.array([0, 0])])
    tower.learn([np.random.default_rng(0).integers(3, size=(60, 3))])
    return TowerLaw(tower)


def moves_of(factor):
    """How often each path of each state was taken, and where it leads."""
    events = zip(factor.events.rows.tolist(), factor.paths.tolist(), factor.events.counts.tolist(), strict=True)
    return {(*event, path): count for event, path, count in events}


@pytest.mark.parametrize(("level", "place"), [(1, 0), (1, 1), (2, 0)])
def test_there_and_back(law, level, place):
    factor = law.tower.levels[level - 1][place]
    arrays = to_pymdp(law, level, place)
    for table in (*arrays["A"], *arrays["B"]):
        np.testing.assert_allclose(table.sum(axis=0), 1, atol=1e-12)
    back = from_pymdp(arrays)
    assert back.states.rows.tolist() == factor.states.rows.tolist()
    assert back.states.counts.tolist() == factor.states.counts.tolist()
    assert moves_of(back) == moves_of(factor)


def test_a_path_leads_where_it_did(law):
    factor = law.tower.levels[0][0]
    moves = to_pymdp(law, 1)["B"][0]
    for (first, then), path in zip(factor.events.rows, factor.paths, strict=True):
        assert moves[then, first, path] == 1


def test_the_law_is_that_of_the_tower(law):
    """One frame of one factor: the evidence by the arrays is that of the sweep."""
    seen = np.array([[2, 0, -1]])
    tower = Tower([np.array([0, 0, 0])])
    tower.learn([np.random.default_rng(1).integers(3, size=(40, 3))])
    law = TowerLaw(tower)
    arrays = to_pymdp(law, 1)
    by_hand = (arrays["A"][0][2] * arrays["A"][1][0]) @ arrays["D"][0]
    assert law.log_evidence(seen) == pytest.approx(np.log(by_hand), abs=1e-12)


def test_wrong_arrays(law):
    with pytest.raises(RecipeError, match="levels 1 to 2"):
        to_pymdp(law, 3)
    with pytest.raises(RecipeError, match="levels 1 to 2"):
        law.outcome_laws(1, 2)
    arrays = to_pymdp(law, 1)
    with pytest.raises(DataError, match="whole numbers"):
        from_pymdp(arrays | {"pA": arrays["A"]})
    with pytest.raises(DataError, match="one outcome of each child"):
        from_pymdp(arrays | {"pA": [own + 1 for own in arrays["pA"]]})
    with pytest.raises(DataError, match="pA are"):
        from_pymdp(arrays | {"pA": [own[:, :-1] for own in arrays["pA"]]})
    with pytest.raises(DataError, match="one factor"):
        from_pymdp(arrays | {"pB": arrays["pB"] * 2})
    with pytest.raises(DataError, match="counts pA and pB, got nothing"):
        from_pymdp({})
    with pytest.raises(DataError, match="3 children and 2 pA"):
        from_pymdp(arrays, np.arange(3))
    long = Tower([np.array([0])], length=3)
    long.learn([np.arange(12)[:, None] % 3])
    with pytest.raises(RecipeError, match="events have 3"):
        to_pymdp(TowerLaw(long), 1)


def test_a_law_is_of_what_was_known(law):
    law.tower.learn([np.random.default_rng(9).integers(6, size=(60, 3))])
    with pytest.raises(DataError, match="make a new law"):
        to_pymdp(law, 1)


def test_more_than_memory_is_told(law, monkeypatch):
    monkeypatch.setattr("renorm.interop.pymdp.MOST_BYTES", 1000)
    with pytest.raises(RecipeError, match="take a lower level"):
        to_pymdp(law, 1)


def test_an_agent_takes_them(law):
    agent = pytest.importorskip("pymdp.agent", reason="pymdp is not installed: pip install inferactively-pymdp")
    import jax.numpy as jnp

    arrays = to_pymdp(law, 1)
    batch = {key: [jnp.asarray(own)[None] for own in arrays[key]] for key in ("A", "B", "C", "D")}
    who = agent.Agent(**batch, A_dependencies=arrays["A_dependencies"], B_dependencies=arrays["B_dependencies"])
    belief = who.infer_states([jnp.array([2]), jnp.array([0])], empirical_prior=who.D)
    by_hand = arrays["A"][0][2] * arrays["A"][1][0] * arrays["D"][0]
    np.testing.assert_allclose(np.asarray(belief[0]).reshape(-1), by_hand / by_hand.sum(), atol=1e-5)
