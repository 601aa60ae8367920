"""The page of a run, made of synthetic run folders: pictures pixel by pixel, curves by their numbers, hostile text."""

import base64
import io
import json
import math
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image

from renorm.errors import CheckpointError, DataError
from renorm.report.figures import (
    PALETTE,
    field_grid,
    field_strip,
    loss_figure,
    numeral,
    png_bytes,
    shown_range,
    spectrum_figure,
)
from renorm.report.page import write_report
from renorm.report.token_figures import (
    AGAINST,
    confusion_figure,
    evidence_picture,
    field_rows,
    reliability_figure,
)

PARTS = ["manifest.json", "metrics.jsonl", "measures.json", "samples/samples.npz", "samples/strip.npz"]
HOSTILE = '</pre><script>alert("1")</script><img src="https://example.org/x.png" onerror=alert(1)>&'
VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """What a test asks of a page: nesting that closes, ids used once, what is fetched, the text."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.attributes, self.text = [], [], [], ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes.extend((tag, key, value) for key, value in attributes)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes.extend((tag, key, value) for key, value in attributes)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def values(self, name):
        return [value for _, key, value in self.attributes if key == name]


def powers(num=9):
    k = np.arange(num) * math.pi / 8
    data = 1 / (k**2 + 0.1)
    return {
        "k": k.tolist(),
        "data": data.tolist(),
        "data_error": (0.1 * data).tolist(),
        "samples": (1.1 * data).tolist(),
        "samples_error": (0.1 * data).tolist(),
    }


def steps(num, loss=lambda step: 1 / step):
    return [{"step": n, "loss": loss(n), "lr": 1e-3, "grad_norm": 1.0, "seconds": n} for n in range(1, num + 1)]


def make_run(folder, *, sites=(8, 8), channels=1, text="plain"):
    rng = np.random.default_rng(0)
    (folder / "samples").mkdir(parents=True)
    recipe = f"description = {json.dumps(text)}\n[data]\nname = 'digits'\n[model]\nschedule = 'rgdm'\n"
    (folder / "recipe.toml").write_text(recipe, encoding="utf-8")
    manifest = {
        "renorm": "0.1.0",
        "machine": text,
        "seed": 1234567,
        "data": {"name": text, "sha256": "ab" * 32, "number": 1500},
        "parameters": 98765,
        "seconds": 4000.0,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in steps(200)), encoding="utf-8")
    figures = {"FD[mnist-cnn]": 3.25, "log_prob": math.nan, "energy": -math.inf, "none": None, text: 1}
    measures = {"figures": figures, "notes": {"reference": text, text: 2}, "spectrum": powers()}
    (folder / "measures.json").write_text(json.dumps(measures), encoding="utf-8")

    def fields(*leading):
        return rng.uniform(-1, 1, (*leading, channels, *sites)).astype(np.float32)

    np.savez(folder / "samples" / "samples.npz", x=fields(20), data=fields(12), value_range=[-1.0, 1.0])
    np.savez(
        folder / "samples" / "strip.npz",
        generated=fields(3, 5),
        flow=fields(3),
        scales=[0.1, 0.5, 1.0],
        cutoffs=[math.inf, 1.57, 0.39],
    )
    return folder


def read(path):
    return path.read_text(encoding="utf-8")


def pictures(page):
    return [Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) for source in page.values("src")]


# ---------------------------------------------------------------------------------------------------------- pictures


def test_a_grid_places_every_site_where_it_belongs():
    x = np.zeros((3, 1, 2, 2), dtype=np.float32)
    x[:, 0] = [[[-1, 1], [0, -1]], [[1, 1], [1, 1]], [[-1.1, 1.1], [0.5, -0.5]]]
    sheet = np.asarray(field_grid(x, columns=2, scale=2, gap=1))
    assert sheet.shape == (9, 9, 4)
    first, second, third = sheet[:4, :4], sheet[:4, 5:], sheet[5:, :4]
    assert first[::2, ::2, 0].tolist() == [[0, 255], [128, 0]]
    assert first[1::2, 1::2].tolist() == first[::2, ::2].tolist()  # nearest: each site is a block of 2 x 2
    assert (second[..., :3] == 255).all()
    assert third[::2, ::2, 0].tolist() == [[0, 255], [191, 64]]  # clipped at both ends
    assert (first[..., 3] == 255).all()
    assert (sheet[4, :, 3] == 0).all()
    assert (sheet[5:, 5:, 3] == 0).all()  # the empty place


def test_small_fields_are_enlarged_by_a_whole_number():
    assert field_grid(np.zeros((4, 1, 16, 16))).size == (2 * 64 + 2, 2 * 64 + 2)
    assert field_grid(np.zeros((1, 1, 28, 28))).size == (84, 84)
    assert field_grid(np.zeros((1, 1, 100, 90))).size == (90, 100)


def test_three_channels_are_colours_and_two_are_not():
    x = np.zeros((1, 3, 1, 1))
    x[0, :, 0, 0] = [1, 0, -1]
    assert np.asarray(field_grid(x, scale=1))[0, 0].tolist() == [255, 128, 0, 255]
    assert np.asarray(field_grid(x[:, :2], scale=1))[0, 0].tolist() == [255, 255, 255, 255]


def test_a_cube_shows_its_middle_slice():
    x = np.full((1, 1, 5, 3, 3), -1.0)
    x[0, 0, 2] = np.linspace(-1, 1, 9).reshape(3, 3)
    assert field_grid(x).tobytes() == field_grid(x[:, :, 2]).tobytes()


def test_lines_stand_where_their_values_are():
    x = np.stack([np.full((1, 32), value) for value in (-1.0, 0.0, 1.0)])
    sheet = np.asarray(field_grid(x, columns=3, gap=0))
    assert sheet.shape == (64, 3 * 128, 4)
    darkest = [int(cell[:, 64].sum(-1).argmin()) for cell in np.split(sheet.astype(int), 3, axis=1)]
    assert darkest == pytest.approx([0.94 * 64, 32, 0.06 * 64], abs=1.5)


def test_what_is_not_finite_is_transparent():
    x = np.zeros((1, 1, 2, 2))
    x[0, 0, 0] = [math.nan, math.inf]
    assert np.asarray(field_grid(x, scale=1))[..., 3].tolist() == [[0, 0], [255, 255]]
    assert field_grid(np.full((1, 1, 8), math.nan)).size == (128, 64)


def test_a_foreign_range_gives_way_to_percentiles_and_an_overshoot_does_not():
    rng = np.random.default_rng(0)
    overshooting = rng.uniform(-1.15, 1.15, 10_000)
    assert shown_range(overshooting, (-1.0, 1.0)) == (-1.0, 1.0)
    low, high = shown_range(rng.normal(50, 10, 100_000), (-1.0, 1.0))
    assert low == pytest.approx(50 - 2.3263 * 10, abs=0.3)  # the normal law's 1st percentile
    assert high == pytest.approx(50 + 2.3263 * 10, abs=0.3)
    assert shown_range(np.full(5, 7.0), (-1.0, 1.0)) == (6.0, 8.0)
    one_bad_site = np.append(np.zeros(99), 1e9)
    assert shown_range(one_bad_site, (-1.0, 1.0)) == (-1.0, 1.0)


def test_bytes_and_tensors_are_drawn_alike():
    values = np.array([[[[0, 255], [128, 64]]]], dtype=np.uint8)
    assert np.asarray(field_grid(values, scale=1))[..., 0].tolist() == [[0, 255], [128, 64]]
    x = torch.linspace(-1, 1, 16, requires_grad=True).reshape(1, 1, 4, 4)
    assert field_grid(x).tobytes() == field_grid(x.detach().numpy()).tobytes()


def test_a_strip_keeps_rows_and_levels_and_draws_each_level_on_its_own_range():
    rows = np.zeros((2, 3, 1, 2, 2))
    rows[0, 1], rows[1, 2] = 1, -1
    rows[:, 0] = 1000 * np.arange(8).reshape(2, 1, 2, 2)
    strip = np.asarray(field_strip(rows, ["a", "b", "Λ ∞"], scale=32, gap=0))
    body = strip[-128:, :, 0]
    assert strip.shape[1] == 3 * 64
    assert body[::64, 64::64].tolist() == [[255, 128], [128, 0]]
    assert body[0, 0] == 0  # 0 of a level that runs from 0 to 7000
    assert body[-1, 63] == 255
    label = strip[:-128, :, 3]
    assert all(label[:, 64 * n : 64 * (n + 1)].any() for n in range(3))


@pytest.mark.parametrize("shape", [(0, 1, 4, 4), (2, 1, 2, 2, 2, 2)])
def test_what_cannot_be_drawn_says_so(shape):
    with pytest.raises(DataError, match=re.escape(str(shape))):
        field_grid(np.zeros(shape))


def test_a_strip_needs_a_label_for_each_level():
    with pytest.raises(DataError, match="one label for each level, got 2"):
        field_strip(np.zeros((2, 3, 1, 4, 4)), ["a", "b"])


def test_png_bytes_come_back_as_the_same_picture():
    picture = field_grid(np.random.default_rng(0).uniform(-1, 1, (4, 3, 8, 8)))
    assert Image.open(io.BytesIO(png_bytes(picture))).tobytes() == picture.tobytes()


# ------------------------------------------------------------------------------------------------------------ curves


def labels(svg):
    return [
        "".join(text.itertext()).strip() for text in ElementTree.fromstring(svg).iter() if text.tag.endswith("text")
    ]


def marks(svg, color):
    """Centres of the dots of one colour, in points."""
    found = re.findall(r'<use xlink:href="#\w+" x="([\d.]+)" y="([\d.]+)" style="fill: ' + color, svg)
    return [(float(x), float(y)) for x, y in found]


def test_curves_are_svg_with_text_and_the_same_bytes_each_time():
    svg = spectrum_figure(powers())
    assert {"wavenumber [rad/site]", "power", "ratio", "data", "samples", "0", "π/8", "π/2", "π"} <= set(labels(svg))
    assert svg == spectrum_figure(powers())
    assert {"step", "loss"} <= set(labels(loss_figure(steps(5))))
    assert set(re.findall(r"#[0-9a-f]{6}", svg)) <= set(PALETTE.values())


def test_the_ratio_of_the_spectrum_is_samples_over_data():
    k = [math.pi / 4, math.pi / 2, math.pi]
    svg = spectrum_figure({"k": k, "data": [1.0, 1.0, 1.0], "samples": [1.0, 2.0, 0.5]})
    (x1, one), (x2, two), (x3, half) = marks(svg, PALETTE["accent"])[-3:]
    assert two < one < half  # y points down
    assert one - two == pytest.approx(half - one, abs=0.01)  # as logarithms
    assert x2 - x1 == pytest.approx(x3 - x2, abs=0.01)
    assert {"0.5", "1", "2"} <= set(labels(svg))


def test_an_error_bar_of_the_ratio_adds_relative_errors_in_quadrature():
    """Powers 1 and 1, errors 0.3 and 0.4: the bar reaches from 0.5 to 1.5, beyond ticks at 1/1.25 and 1.25."""
    k = [math.pi / 2, math.pi]
    errors = {"data_error": [0.3, 0.0], "samples_error": [0.4, 0.0]}
    svg = spectrum_figure({"k": k, "data": [1.0, 1.0], "samples": [1.0, 2.0], **errors})
    below = svg[svg.index('id="axes_2"') :]
    (_, one), (_, two) = marks(below, PALETTE["accent"])
    bars = re.findall(
        r'd="M ([\d.]+) ([\d.]+) \nL \1 ([\d.]+) \n" clip-path="[^"]+" style="fill: none; stroke: #', below
    )
    start, end = next((float(a), float(b)) for _, a, b in bars if a != b)
    octave = one - two
    assert one - end == pytest.approx(octave * math.log2(1.5), abs=0.02)
    assert one - start == pytest.approx(octave * math.log2(0.5), abs=0.02)


def test_a_spectrum_passes_over_what_has_no_logarithm():
    spectrum = powers()
    spectrum["samples"][2], spectrum["samples"][3], spectrum["data"][4] = math.nan, 0.0, None
    spectrum["data_error"][1] = math.nan
    bins, rings = len(spectrum["k"]), marks(spectrum_figure(spectrum), PALETTE["accent"])
    assert len(rings) == (bins - 2) + (bins - 3) + 1  # of the samples, of the ratio, in the legend


@pytest.mark.parametrize("bins", [1, 2, 300])
def test_a_spectrum_of_any_size_has_few_ticks(bins):
    spectrum = {key: value[:bins] for key, value in powers(bins).items()}
    assert sum("π" in label or label == "0" for label in labels(spectrum_figure(spectrum))) <= 10


@pytest.mark.parametrize(
    ("change", "message"),
    [({"k": [1.0]}, "one length, got 1 wave"), ({"data": [0.0] * 9, "samples": [math.nan] * 9}, "positive power")],
)
def test_a_spectrum_that_cannot_be_drawn_says_so(change, message):
    with pytest.raises(DataError, match=message):
        spectrum_figure({**powers(), **change})


@pytest.mark.parametrize("num", [1, 2, 50, 500])
@pytest.mark.parametrize("loss", [lambda n: 1 / n, lambda n: -n, lambda n: math.nan if n % 7 == 2 else 1.0])
def test_any_loss_is_drawn(num, loss):
    ElementTree.fromstring(loss_figure(steps(num, loss)))


def test_no_loss_says_so():
    with pytest.raises(DataError, match="at least one finite loss, got 1 lines"):
        loss_figure([{"step": 1, "loss": math.nan}, {"lr": 1.0}])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.0, "0"),
        (999, "999"),
        (12345.6, "12\u202f346"),
        (2.0e9, "2 × 10⁹"),
        (1e-3, "0.001"),
        (-1e-6, "−10⁻⁶"),
    ],
)
def test_numerals(value, text):
    assert numeral(value) == text


# -------------------------------------------------------------------------------------------------------------- page


def test_a_page_holds_every_section_and_stands_alone(tmp_path):
    run = make_run(tmp_path / "run-7")
    path = write_report(run)
    assert path == run / "report.html"
    assert list(run.glob("*.tmp")) == []
    page = Page(read(path))
    for title in (
        "run-7",
        "Key figures",
        "Samples and data",
        "From coarse to fine",
        "Power spectrum",
        "Loss",
        "Recipe",
    ):
        assert title in page.text
    assert "left out" not in page.text
    assert "fitted to 1\u202f500 fields of plain for 200 steps in 1 h 7 min on plain" in page.text
    assert "seed" in page.text
    assert "1\u202f234\u202f567" in page.text
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert all(source.startswith("data:image/png;base64,") for source in page.values("src"))
    references = page.values("href") + page.values("xlink:href")
    assert all(reference.startswith("#") for reference in references)
    assert "@import" not in read(path)
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)", read(path)))


def test_a_page_is_accessible(tmp_path):
    page = Page(read(write_report(make_run(tmp_path / "run"))))
    images = page.tags.count("img")
    assert images == 4
    assert len([alt for alt in page.values("alt") if alt]) == images
    assert page.tags.count("h1") == 1
    assert page.tags.count("svg") == page.values("role").count("img") == 2
    headers = page.tags.count("th")
    assert headers == len(page.values("scope"))
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    assert set(page.values("aria-labelledby")) <= set(ids)
    used = page.values("xlink:href") + re.findall(r"url\((#[^)]*)\)", str(page.attributes))
    assert {reference[1:] for reference in used} <= set(ids)


def test_curves_take_the_colours_of_the_page(tmp_path):
    text = read(write_report(make_run(tmp_path / "run")))
    svg = text[text.index("<svg") : text.rindex("</svg>")]
    assert not re.search(r"#[0-9a-f]{6}", svg)
    assert "var(--accent)" in svg
    assert "prefers-color-scheme: dark" in text


def test_numbers_that_are_none_are_said_in_words(tmp_path):
    page = Page(read(write_report(make_run(tmp_path / "run"))))
    for key, value in {"FD[mnist-cnn]": "3.25", "log prob": "not a number", "energy": "−∞", "none": "none"}.items():
        assert f"{key}{value}" in page.text


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("harm", ["missing", "empty", "nonsense", "truncated"])
def test_a_part_that_is_missing_or_damaged_is_left_out_with_a_word(tmp_path, part, harm):
    run = make_run(tmp_path / "run")
    whole = (run / part).read_bytes()
    content = {"empty": b"", "nonsense": b"\xff\xfe[1, 2", "truncated": whole[: len(whole) // 3]}
    if harm == "missing":
        (run / part).unlink()
    else:
        (run / part).write_bytes(content[harm])
    page = Page(read(write_report(run)))
    expected = {"measures.json": 2, "metrics.jsonl": 0 if harm == "truncated" else 1}.get(part, 1)
    assert page.text.count(" left out: ") == expected
    assert "Recipe" in page.text


def test_a_bare_run_still_has_a_page(tmp_path):
    (tmp_path / "recipe.toml").write_text("no TOML at all", encoding="utf-8")
    page = Page(read(write_report(tmp_path)))
    assert page.text.count(" left out: ") == 6
    assert "no TOML at all" in page.text


@pytest.mark.parametrize("part", ["manifest.json", "measures.json"])
@pytest.mark.parametrize("content", ["[]", "3", '"text"', '{"figures": 3, "data": 3, "spectrum": [1], "notes": 0}'])
def test_json_of_another_shape_does_no_harm(tmp_path, part, content):
    run = make_run(tmp_path / "run")
    (run / part).write_text(content, encoding="utf-8")
    Page(read(write_report(run)))


def test_arrays_of_another_shape_are_left_out(tmp_path):
    run = make_run(tmp_path / "run")
    np.savez(run / "samples" / "samples.npz", x=np.zeros(3), data=np.zeros((0, 1, 2)))
    np.savez(run / "samples" / "strip.npz", generated=np.zeros((2, 1, 4)), flow=np.zeros((2, 1, 4)))
    page = Page(read(write_report(run)))
    assert "'x' of samples/samples.npz must hold fields or numbers, got float64 of shape (3,)" in page.text
    assert "generated must be (levels, rows, channel, *sites)" in page.text


def test_hostile_text_stays_text(tmp_path):
    run = make_run(tmp_path / "a<b>&'run", text=HOSTILE)
    (run / "recipe.toml").write_text(read(run / "recipe.toml") + f"# {HOSTILE}\n", encoding="utf-8")
    plain = make_run(tmp_path / "plain", text="x")
    text = read(write_report(run))
    page = Page(text)
    assert page.tags == Page(read(write_report(plain))).tags
    assert page.text.count(HOSTILE) >= 6
    assert not page.values("onerror")
    assert "a<b>&'run" in page.text


def test_half_a_surrogate_pair_does_not_stop_the_page(tmp_path):
    run = make_run(tmp_path / "run")
    (run / "manifest.json").write_text('{"machine": "\\ud800"}', encoding="utf-8")
    Page(read(write_report(run)))


@pytest.mark.parametrize(("sites", "channels"), [((32,), 2), ((8, 8), 3), ((4, 4, 4), 1), ((80, 96), 1)])
def test_fields_of_any_lattice_have_a_page(tmp_path, sites, channels):
    page = Page(read(write_report(make_run(tmp_path / "run", sites=sites, channels=channels))))
    assert "left out" not in page.text
    assert len(pictures(page)) == 4


def test_float_data_of_another_range_lend_it_to_the_samples(tmp_path):
    run = make_run(tmp_path / "run")
    data = np.linspace(0, 100, 1600, dtype=np.float32).reshape(16, 1, 10, 10)
    x = data[:8] / 2 + 25
    x[1:] = 1000
    x[1, 0, 0, 0] = math.inf
    np.savez(run / "samples" / "samples.npz", x=x, data=data, value_range=[-1.0, 1.0])
    page = Page(read(write_report(run)))
    assert page.text.count("drawn from 1 to 99") == 2
    sheet = np.asarray(pictures(page)[0])
    assert sheet[0, 0, 0] == round(255 * 24 / 98)  # a sample's 25 on the data's scale
    assert sheet[-1, 0].tolist() == [255, 255, 255, 255]  # its 1000, clipped
    assert sheet[0, 72, 3] == 0  # its infinity
    assert "drawn from" not in read(write_report(make_run(tmp_path / "other")))


def test_the_strips_run_from_coarse_to_fine_and_back(tmp_path):
    run = make_run(tmp_path / "run")
    ramp = np.array([-1.0, 0.0, 1.0], dtype=np.float32).reshape(3, 1, 1, 1) * np.ones((1, 1, 4, 4), dtype=np.float32)
    generated = np.broadcast_to(ramp[:, None], (3, 5, 1, 4, 4))
    np.savez(run / "samples" / "strip.npz", generated=generated, flow=ramp[::-1], cutoffs=[math.inf, 1.5, 0.4])
    up, down = pictures(Page(read(write_report(run))))[2:]
    middle = [np.asarray(up)[-10, x, 0] for x in (96, 296, 496)]
    assert middle == [0, 128, 255]
    assert [np.asarray(down)[-10, x, 0] for x in (96, 296, 496)] == [255, 128, 0]
    labels_up, labels_down = (np.asarray(picture)[:50, :, 3] for picture in (up, down))
    assert (labels_up[:, :192] == labels_down[:, -192:]).all()  # the coarsest label stands left above, right below


# ------------------------------------------------------------------------------------------------------------ tokens

TOKEN_PARTS = {
    "samples/reliability.npz": "Classes",
    "samples/tokens.npz": "Tokens",
    "samples/path.npz": "Path of an image",
    "samples/completed.npz": "Completed",
}


def make_tokens_run(folder, *, sites=(8, 8), members=1):
    """A run of token hierarchies with three classes."""
    run = make_run(folder, sites=sites)
    (run / "metrics.jsonl").unlink()
    member = "[[model.members]]\n[model.members.codebook]\nkind = 'windows'\n[model.members.law]\nkind = 'styles'\n"
    (run / "recipe.toml").write_text("wing = 'tokens'\n[data]\nname = 'digits'\n" + members * member, encoding="utf-8")
    rng, samples, classes = np.random.default_rng(0), run / "samples", np.array([3, 5, 8])
    shape = (1, *sites)[-2:]
    arrays = {
        "count": np.array([0, 4, 16]),
        "confidence": np.array([0.0, 0.5, 0.9]),
        "accuracy": np.array([0.0, 0.75, 1.0]),
        "confusion": np.array([[9, 1, 0], [0, 5, 0], [0, 0, 5]]),
    }
    np.savez(samples / "reliability.npz", classes=classes, **arrays)
    speaking = rng.random((3, 2, 1, *shape))
    speaking[..., : shape[1] // 2] = math.nan
    levels = {"level1": rng.random((5, 1, 1, 4)), "level2": rng.random((1, 1, *shape))}
    uses = {"uses1": np.array([2.5, 1, 0.5, 0.25, 0.125]), "uses2": np.ones(1)}
    nats = np.array([[0.5, 0.25], [0.2, 0.1], [0.2, 0.125]])
    np.savez(samples / "tokens.npz", speaking=speaking, nats=nats, classes=classes, members=members, **levels, **uses)
    said = np.array([[7.125, -1.5, 0.0]] * members)
    evidence = {"images": rng.random((members, 1, *shape)), "sites": rng.normal(size=(members, *shape)), "nats": said}
    np.savez(samples / "path.npz", posterior=np.array([0.1, 0.8765, 0.0235]), classes=classes, label=8, **evidence)
    true = rng.uniform(-1, 1, (4, 1, *sites)).astype(np.float32)
    seen = np.where(np.arange(sites[-1]) < 4, true, math.nan)
    np.savez(samples / "completed.npz", seen=seen, draws=np.stack([true, -true]), true=true)
    return run


def headings(run):
    return re.findall(r"<h2[^>]*>([^<]*)", read(write_report(run)))


def test_a_page_of_tokens_holds_its_sections_in_order(tmp_path):
    run = make_tokens_run(tmp_path / "run")
    assert headings(run) == [
        *["Key figures", "Samples and data", "Classes", "Tokens", "Path of an image", "Completed"],
        *["From coarse to fine", "Power spectrum", "Recipe", "Versions and seed"],
    ]
    page = Page(read(write_report(run)))
    assert "left out" not in page.text
    assert "A token hierarchy (styles on windows) fitted to" in page.text
    assert "on 20 test images: accuracy 0.95, calibration error 0.13" in page.text
    assert "the 5 most used tokens, row by row; the first is expected 2.5 times" in page.text
    assert "Level 2: the only token" in page.text
    assert "class 5 (probability 0.8765, true class 8)" in page.text
    assert "All tokens say 7.12 nats; fitting the hidden tokens above adds −1.5." in page.text
    assert len(pictures(page)) == page.tags.count("img") == 9
    assert page.tags.count("svg") == 3
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    svgs = re.findall(r"<svg.*?</svg>", read(write_report(run)), flags=re.DOTALL)
    assert not any(re.search(r"#[0-9a-f]{6}", svg) for svg in svgs)


def test_a_page_of_several_members_says_so(tmp_path):
    page = Page(read(write_report(make_tokens_run(tmp_path / "run", members=2))))
    assert "A product of 2 token hierarchies (2 × styles on windows)" in page.text
    assert "the 5 most used tokens of the member that draws" in page.text
    assert "say 7.12 + 7.12 nats; fitting the hidden tokens above adds −1.5 − 1.5." in page.text


def test_levels_without_pictures_are_passed_over(tmp_path):
    run = make_tokens_run(tmp_path / "run")
    path = run / "samples" / "tokens.npz"
    np.savez(path, **{key: array for key, array in np.load(path).items() if key not in ("level1", "speaking")})
    page = Page(read(write_report(run)))
    assert "left out" not in page.text
    assert "Level 2: the only token" in page.text
    assert "Level 1" not in page.text


def test_a_run_of_another_wing_has_no_sections_of_tokens(tmp_path):
    run = make_tokens_run(tmp_path / "run")
    plain = make_run(tmp_path / "plain" / "run")
    before = read(write_report(plain))
    for part in TOKEN_PARTS:
        shutil.copy(run / part, plain / part)
    assert read(write_report(plain)) == before


def test_chains_have_a_page_of_tokens_too(tmp_path):
    page = Page(read(write_report(make_tokens_run(tmp_path / "run", sites=(32,)))))
    assert "left out" not in page.text


@pytest.mark.parametrize("part", TOKEN_PARTS)
@pytest.mark.parametrize("harm", ["missing", "truncated", "one number", "other names", "empty"])
def test_a_part_of_tokens_that_is_damaged_is_left_out_with_a_word(tmp_path, part, harm):
    run = make_tokens_run(tmp_path / "run")
    arrays = dict(np.load(run / part))
    whole = (run / part).read_bytes()
    (run / part).unlink()
    if harm == "truncated":
        (run / part).write_bytes(whole[: len(whole) // 3])
    elif harm == "one number":
        np.savez(run / part, **dict.fromkeys(arrays, 3.0))
    elif harm == "other names":
        np.savez(run / part, **{f"my_{key}": array for key, array in arrays.items()})
    elif harm == "empty":
        np.savez(run / part, **{key: np.zeros((0, *array.shape[1:])) for key, array in arrays.items()})
    page = Page(read(write_report(run)))
    assert page.text.count(" left out: ") == 1
    assert f"{TOKEN_PARTS[part]} left out: " in page.text


@pytest.mark.parametrize(
    "members", ["3", "[]", "[1, 2]", "[{law = 3}]", "'text'", "[{law = {kind = 7}, codebook = {kind = '<b>'}}]"]
)
def test_members_of_another_shape_do_no_harm(tmp_path, members):
    run = make_tokens_run(tmp_path / "run")
    (run / "recipe.toml").write_text(f"wing = 'tokens'\nmodel = {{members = {members}}}\n", encoding="utf-8")
    page = Page(read(write_report(run)))
    assert "oken hierarch" in page.text
    assert "b" not in page.tags


def test_dots_of_a_reliability_diagram_lie_where_accuracy_and_confidence_do():
    svg = reliability_figure(np.array([10, 20, 30]), np.array([0.0, 0.5, 1.0]), np.array([0.0, 0.25, 1.0]))
    (x0, y0), (x1, y1), (x2, y2) = marks(svg, PALETTE["accent"])
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.01)
    assert (y0 - y1) == pytest.approx((y0 - y2) / 4, abs=0.01)
    assert {"accuracy", "images", "probability of the chosen class", "0.5", "1", "10"} <= set(labels(svg))
    assert svg == reliability_figure(np.array([10, 20, 30]), np.array([0.0, 0.5, 1.0]), np.array([0.0, 0.25, 1.0]))


def test_an_empty_bin_has_no_dot():
    svg = reliability_figure(np.array([0, 20]), np.array([0.0, 0.5]), np.array([0.0, 0.25]))
    assert len(marks(svg, PALETTE["accent"])) == 1
    with pytest.raises(DataError, match="needs lists of one length and an image, got 2 counts"):
        reliability_figure(np.array([0, 0]), np.zeros(2), np.zeros(2))


@pytest.mark.parametrize("confusion", [np.diag([3, 4]), np.array([[3, 1], [0, 4]]), np.array([[0, 0], [0, 4]])])
def test_confusions_are_written_out(confusion):
    svg = confusion_figure(confusion, ["cat", "dog"])
    texts = labels(svg)
    assert sorted(text for text in texts if text.isdigit()) == sorted(str(n) for n in confusion.ravel() if n)
    assert {"cat", "dog", "true class", "predicted class"} <= set(texts)
    errors = svg.count(f"fill: {PALETTE['accent']}")
    assert errors == np.count_nonzero(confusion - np.diag(np.diag(confusion)))


def test_too_many_classes_have_no_matrix(tmp_path):
    with pytest.raises(DataError, match=r"1 \.\.\. 32 classes, got 33"):
        confusion_figure(np.eye(33, dtype=np.int64), [str(n) for n in range(33)])
    run = make_tokens_run(tmp_path / "run")
    path = run / "samples" / "reliability.npz"
    arrays = dict(np.load(path))
    np.savez(path, **{**arrays, "confusion": np.eye(33, dtype=np.int64), "classes": np.arange(33)})
    page = Page(read(write_report(run)))
    assert "left out" not in page.text
    assert page.tags.count("svg") == 2


def test_rows_stand_beside_their_labels_and_hidden_sites_are_tinted():
    rows = np.ones((2, 3, 1, 4, 4))
    rows[1, 0, 0, :2] = math.nan
    picture = np.asarray(field_rows(rows, ["seen", "true"], scale=8, gap=4))
    margin = picture.shape[1] - (3 * 32 + 2 * 4)
    assert picture.shape[0] == 2 * 32 + 4
    assert picture[:32, :margin, 3].any()
    assert picture[36:, :margin, 3].any()
    assert picture[0, margin].tolist() == [255, 255, 255, 255]
    assert 0 < picture[36, margin, 3] < 128  # hidden
    assert picture[36 + 16, margin].tolist() == [255, 255, 255, 255]
    assert picture[0, margin + 32, 3] == 0  # the gap
    with pytest.raises(DataError, match="one label for each row, got 1"):
        field_rows(rows, ["seen"])


def test_evidence_for_has_the_accent_and_against_another_colour():
    images, sites = np.zeros((1, 1, 2, 2)), np.array([[[2.0, -2.0], [0.0, 1.0]]])
    picture = np.asarray(evidence_picture(images, sites, scale=1, gap=0))
    assert picture.shape == (2, 4, 4)
    plain, tinted = picture[:, :2, :3], picture[:, 2:, :3]
    assert not plain.any()
    assert "#{:02x}{:02x}{:02x}".format(*tinted[0, 0]) == PALETTE["accent"]
    assert "#{:02x}{:02x}{:02x}".format(*tinted[0, 1]) == AGAINST
    paper = tinted[1, 0].astype(float)
    assert len(set(paper)) == 1
    assert tinted[1, 1] == pytest.approx((paper + tinted[0, 0]) / 2, abs=1)
    with pytest.raises(DataError, match="sites for each image"):
        evidence_picture(images, sites[:, :1])


def test_the_page_goes_where_it_is_sent(tmp_path):
    run, out = make_run(tmp_path / "run"), tmp_path / "else" / "page.html"
    assert write_report(run, out) == out
    assert out.is_file()
    assert not (run / "report.html").exists()
    again = read(out)
    write_report(run, out)
    assert read(out) == again


def test_what_is_no_run_folder_says_so(tmp_path):
    with pytest.raises(CheckpointError, match=r"there is no run folder .*nowhere; .*renorm fit"):
        write_report(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"no recipe\.toml"):
        write_report(tmp_path)
    run = make_run(tmp_path / "run")
    shutil.copy(run / "recipe.toml", tmp_path / "file")
    with pytest.raises(CheckpointError, match="there is no run folder"):
        write_report(tmp_path / "file")
    with pytest.raises(CheckpointError, match="cannot write"):
        write_report(run, run / "samples")


def test_the_room_is_lazy():
    code = "import sys, renorm.report; assert not {'torch', 'matplotlib', 'PIL'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_drawing_leaves_no_trace_in_matplotlib():
    import matplotlib

    before = dict(matplotlib.rcParams)
    spectrum_figure(powers())
    assert dict(matplotlib.rcParams) == before
    code = "import sys, renorm.report.page; assert 'matplotlib.pyplot' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
