"""Pages of chains: what stands in them, that nothing is fetched, and that the viewer runs on what it is given."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from renorm.data.proteins import Chain
from renorm.diffusion.chains.model import ChainDiffusion
from renorm.diffusion.chains.spec import ChainSpec
from renorm.diffusion.presets import ddpm_chain, rgdm_chain
from renorm.diffusion.schedule import CLEAN
from renorm.errors import DataError
from renorm.measure.chains.superposition import superpose
from renorm.nn.spec import ChainNetSpec
from renorm.recipes.chains_run import Fold
from renorm.recipes.chains_scales import Moments, moments_of
from renorm.report import chain_figures, fold_page
from renorm.report.fold_page import Folded, write_fold_page
from renorm.report.page import write_report
from renorm.report.tubes import Strand, standalone, tube_picture, tube_strip, view_of
from renorm.report.viewer import UNIT, Target, viewer
from test_report import HOSTILE, Page


def walk(residues, seed=0):
    step = np.random.default_rng(seed).normal(size=(residues, 3))
    return np.cumsum(3.8 * step / np.linalg.norm(step, axis=1, keepdims=True), axis=0)


@pytest.fixture
def run(tmp_path):
    """A run of chains of which only what the page needs is there; one residue of the first target is missing."""
    (tmp_path / "samples").mkdir()
    (tmp_path / "recipe.toml").write_text('wing = "chains"\n[model]\nschedule = "rgdm"\n', encoding="utf-8")
    known = [walk(20, 1), walk(15, 2)]
    known[0][4] = np.nan
    folds = {f"fold{i}": walk(len(x), 5 + i) for i, x in enumerate(known)}
    folds |= {f"known{i}": x for i, x in enumerate(known)}
    np.savez(tmp_path / "samples" / "folds.npz", **{k: x.astype(np.float32) for k, x in folds.items()})
    five = {name: np.stack([walk(20, s + i) for i in range(5)]) for s, name in enumerate(("drawn", "known"))}
    np.savez(tmp_path / "samples" / "scales.npz", **five, cutoffs=[0.03, 0.1, 0.3, 1, np.inf], modes=[3, 6, 12, 19, 19])
    targets = [{"target": HOSTILE, "tm": 0.5}, {"target": "two", "tm": 0.25}]
    (tmp_path / "measures.json").write_text(json.dumps({"figures": {}, "targets": targets}), encoding="utf-8")
    return tmp_path


def coordinates(text):
    return json.loads(re.search(r'<script type="application/json">(.*?)</script>', text, re.DOTALL)[1])


def fetched(text):
    return [url for url in re.findall(r"(?:https?:)?//[\w.]+\.\w+/[^\"'\s<]*", text) if "www.w3.org" not in url]


def test_the_page_of_a_run_has_its_pictures_and_fetches_nothing(run):
    text = write_report(run).read_text(encoding="utf-8")
    page = Page(text)
    assert {"Folds", "Coarse to fine", "two, 15 residues, TM-score 0.25."} <= set(re.split(r"\n", page.text))
    assert page.tags.count("noscript") == 1
    assert page.tags.count("svg") == 1 + 2 * 2 + 1  # without a script; on the known one and contacts; scales
    assert page.tags.count("script") == 2
    assert not {"link", "iframe", "object", "img"} & set(page.tags)
    assert len(page.values("aria-label")) == page.tags.count("svg") == page.values("role").count("img")
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    without = text.replace(json.dumps(HOSTILE)[1:-1].replace("<", "\\u003c"), "")  # a name is no address
    assert not [url for url in fetched(without) if "example.org" not in url]
    assert "<img" not in text
    assert not re.search(
        r"import|fetch\(|XMLHttp|eval\(|innerHTML", Path(chain_figures.__file__).with_name("viewer.js").read_text()
    )


def test_only_the_viewer_may_run(run):
    text = write_report(run).read_text(encoding="utf-8")
    code = re.search(r"<script>(.*?)</script>", text, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'" in text


def test_places_are_whole_hundredths_of_an_angstrom(run):
    value = coordinates(write_report(run).read_text(encoding="utf-8"))
    assert value["unit"] == UNIT == 0.01
    first = value["targets"][0]
    assert first["name"] == HOSTILE
    with np.load(run / "samples" / "folds.npz") as arrays:
        assert first["drawn"] == [np.rint(arrays["fold0"].astype(float).ravel() * 100).astype(int).tolist()]
        known = arrays["known0"].astype(float).ravel()
    assert [i for i, n in enumerate(first["known"]) if n is None] == [12, 13, 14]
    assert [n for n in first["known"] if n is not None] == np.rint(100 * known[np.isfinite(known)]).astype(int).tolist()
    x = np.array([[[0.0, 1.234, -1.236], [2.675, 0, 0]]])
    assert '"drawn":[[0,123,-124,268,0,0]]' in viewer([Target("two", x)], "")
    turn = np.array(first["view"]).reshape(3, 3)
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-5)
    assert np.linalg.det(turn) == pytest.approx(1, abs=1e-5)


def test_five_scales_stand_in_two_rows(run):
    svg = chain_figures.scales(run)
    assert svg.count("<g ") == svg.count("<text") == 10
    assert svg.count("<path") == 10 * 19 * 2
    assert svg.count("Λ 0.03, 3 modes") == svg.count("Λ ∞, 19 modes") == 2


@pytest.mark.parametrize("name", ["folds", "scales"])
@pytest.mark.parametrize("harm", ["missing", "nonsense", "truncated", "other"])
def test_a_file_that_is_missing_or_damaged_is_a_data_error(run, name, harm):
    path = run / "samples" / f"{name}.npz"
    whole = path.read_bytes()
    path.write_bytes({"nonsense": b"\xff\xfe[1, 2", "truncated": whole[: len(whole) // 3]}.get(harm, b""))
    if harm == "missing":
        path.unlink()
    if harm == "other":
        np.savez(path, fold0=np.zeros((4, 2)), known0=np.zeros((4, 2)), drawn=[1], known=[1], cutoffs=[1], modes=[1])
    with pytest.raises(DataError, match=f"{name}.npz"):
        getattr(chain_figures, name)(run)
    page = Page(write_report(run).read_text(encoding="utf-8"))
    title = {"folds": "Folds", "scales": "Coarse to fine"}[name]
    assert f"{title} left out: " in page.text or (harm == "missing" and title not in page.text)


def test_scales_that_do_not_belong_together_are_told():
    x = np.zeros((5, 8, 3))
    good = {"drawn": x, "known": x, "cutoffs": np.ones(5), "modes": np.ones(5)}
    for wrong, message in (
        ({"known": x[:4]}, "got shape"),
        ({"drawn": x * np.nan}, "finite places"),
        ({"cutoffs": np.ones(4)}, "one cutoff for each scale, got 4 for 5"),
    ):
        with pytest.raises(DataError, match=message):
            chain_figures.scales_picture(good | wrong)


def test_contacts_by_hand():
    x = np.array([[0.0, 0, 0], [5, 0, 0], [10, 0, 0], [10, 5, 0]])
    known = x.copy()
    known[3] = np.nan
    svg = chain_figures.contacts_picture(x, known, "four")
    assert '<path class="drawn" d="M1 0h1v1h-1zM2 1h2v1h-2zM3 2h1v1h-1z"/>' in svg  # 1-3: 7.07 angstrom
    assert '<path class="known" d="M0 1h1v1h-1zM1 2h1v1h-1z"/>' in svg


def test_a_tube_goes_through_its_residues_and_stops_where_one_is_missing():
    x = np.array([[0.0, 0, 0], [4, 0, 0], [8, 0, 0], [np.nan] * 3, [16, 2, 0], [20, 2, 0]])
    svg = tube_picture([Strand(x)], "six")
    curves = re.findall(
        r'class="c\d+ d\d" stroke-width="\d+" d="M(\d+) (\d+)C.* (\d+) (\d+)"', svg.replace("/>", "/>\n")
    )
    assert len(curves) == 3
    turn, centre = view_of(x)
    seen = (x - centre) @ turn.T
    across = np.array([[int(a), int(c)] for a, _, c, _ in curves])
    scale = (across[:, 1] - across[:, 0]) / np.diff(seen[:, 0])[[0, 1, 4]]
    assert np.ptp(scale) < 0.5
    assert {"h"} == set(re.findall(r'class="(h|ck)', svg))
    assert "ck d" in tube_picture([Strand(x, known=True)], "six")
    with pytest.raises(DataError, match="got none"):
        view_of(x * np.nan)
    with pytest.raises(DataError, match="one label for each chain"):
        tube_strip([[Strand(x)]], [["a", "b"]], "")
    alone = standalone(svg)
    assert alone.startswith('<svg xmlns="http://www.w3.org/2000/svg" class="tube"')
    assert "--n8" in alone
    assert not fetched(alone)


def test_a_near_piece_is_drawn_over_a_far_one():
    x = np.stack([np.linspace(0, 40, 9), np.linspace(0, 4, 9) ** 2, np.where(np.arange(9) > 4, 6.0, 0.0)], axis=1)
    depths = [int(d) for d in re.findall(r'class="c\d+ d(\d)', tube_picture([Strand(x)], "nine"))]
    assert depths == sorted(depths)
    assert len(set(depths)) > 2


def test_moments_are_even_in_log_scale():
    for schedule in (rgdm_chain(128), ddpm_chain(128)):
        times = moments_of(schedule)
        assert (len(times), times[-1]) == (5, CLEAN)
        steps = np.diff(np.log([schedule.cutoff(t).item() for t in times[:-1]]))
        np.testing.assert_allclose(steps, steps[0], rtol=1e-9)
        assert steps[0] > 0
    assert 1 < int(rgdm_chain(48).alive(moments_of(rgdm_chain(48))[0]).sum()) < 10


def test_a_walk_is_kept_on_its_way_and_turned_as_a_whole():
    model = ChainDiffusion(ChainSpec(network=ChainNetSpec(width=16, layers=1, heads=2, pair=8))).of(16)
    told = []
    moments = Moments(model, lambda *seen: told.append(seen[0]))
    x = model.sample(2, generator=torch.Generator().manual_seed(0), steps=30, callback=moments).mT
    target = Chain("t", "M" * 16, torch.from_numpy(walk(16)).float())
    laid = superpose(x[:1], target.coordinates[None])
    arrays = moments.arrays(laid, target)
    assert told == list(range(1, len(told) + 1))
    assert arrays["drawn"].shape == arrays["known"].shape == (5, 16, 3)
    assert arrays["scales"].tolist() == sorted(arrays["scales"].tolist(), reverse=True)
    there = laid.move(x[:1])[0]
    torch.testing.assert_close(arrays["drawn"][-1], (there - there.mean(0)).float(), atol=1e-4, rtol=0)
    centred = target.coordinates - target.coordinates.mean(0)
    torch.testing.assert_close(arrays["known"][-1], centred, atol=1e-4, rtol=0)
    assert arrays["modes"].tolist() == sorted(arrays["modes"].tolist())
    quick = Moments(model)
    model.sample(1, generator=torch.Generator().manual_seed(0), steps=1, callback=quick)
    assert quick.scales == [CLEAN]


def folded(name, models, residues):
    x = torch.from_numpy(np.stack([walk(residues, seed) for seed in range(models)])).float()
    return Folded(name, f"{name}.pdb", Fold(x, (x - x.mean(0)).square().sum(-1).mean(0).sqrt()))


def test_folds_have_a_page(tmp_path, monkeypatch):
    path = tmp_path / "folds.html"
    assert write_fold_page(path, [folded("one", 3, 12), folded("a b", 1, 9)], run="protein") == ""
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    targets = coordinates(text)["targets"]
    assert [(t["name"], len(t["drawn"]), t["known"], t["spread"] is None) for t in targets] == [
        ("one", 3, None, False),
        ("a b", 1, None, True),
    ]
    assert targets[0]["spread"] == np.rint(100 * folded("one", 3, 12).fold.spread.double().numpy()).astype(int).tolist()
    assert page.values("href") == ["one.pdb", "a%20b.pdb"]
    assert page.tags.count("noscript") == page.tags.count("svg") == 1
    assert not fetched(text)
    monkeypatch.setattr(fold_page, "PLACES", 60)
    capped = write_fold_page(path, [folded("one", 30, 12), folded("two", 2, 9)], run="protein")
    assert capped.startswith("To stay small the page shows the first 1 of 2 sequences and the first 5 of 30 chains")
    assert capped in Page(path.read_text(encoding="utf-8")).text
    with pytest.raises(DataError, match="got none"):
        write_fold_page(path, [], run="protein")


def test_a_viewer_says_what_it_cannot_show():
    x = walk(6)[None]
    for targets, message in (
        ([], "got none"),
        ([Target("t", x * np.nan)], "must be finite"),
        ([Target("t", x[0])], "must be finite and"),
        ([Target("t", x, known=walk(5))], "known must be of the 6 residues"),
        ([Target("t", x, spread=np.ones(7))], "spread must be of the 6 residues"),
    ):
        with pytest.raises(DataError, match=message):
            viewer(targets, "")


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
@pytest.mark.parametrize("motion", ["moves", "still"])
def test_the_viewer_runs(run, motion):
    path = write_report(run)
    command = ["node", str(Path(__file__).with_name("viewer_stub.js")), str(path), motion]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["start"]["waiting"] == (motion == "moves")  # it goes on turning only where motion is welcome
    pieces = {"drawn": 19 * 6, "known": 17 * 6}  # six pieces a bond; two bonds lack a residue
    assert told["still"]["strokes"] == 4 * (pieces["drawn"] + pieces["known"])
    assert {key: told[key]["strokes"] for key in pieces} == {key: 4 * n for key, n in pieces.items()}
    assert told["still"]["waiting"] == 0
    assert told["still"]["letters"] == "NC"
    assert told["right"]["x"] == pytest.approx(told["still"]["x"])
    assert abs(told["left"]["x"] - told["still"]["x"]) > 0.01
    assert abs(told["plus"]["x"] - told["still"]["x"]) > 0.01
    assert abs(told["drag"]["x"] - told["still"]["x"]) > 0.01
    assert "known chain as a tube" in told["label"]
    assert (told["role"], told["space"]) == ("application", 1)
