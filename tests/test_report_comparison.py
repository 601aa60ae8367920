"""The page of a comparison: what its curves show, and that the caption promises no more."""

import json
import re

import pytest

from renorm.report.comparison import comparison_figure, write_comparison
from renorm.report.figures import PALETTE

NAMES = [f"method {i}" for i in range(12)]


def row(method, asked, value, seconds=0.5):
    mean = {"value": value, "error": None, "seeds": 1}
    times = {"value": seconds, "error": None, "seeds": 1}
    about = {"method": method, "walk": "ddim@karras", "asked": asked, "evaluations": asked, "best": True}
    return about | {"quality": mean, "seconds": times}


def page_of(folder, rows, floor=None):
    by = {"commit": "aaaaaaa", "date": "2026-01-01", "machine": "a CPU", "torch": "2.0"}
    found = {
        "quality": "FD[x]",
        "notes": {},
        "table": rows,
        "gains": [],
        "runs": [{"run": "runs/a", "method": "a", "baseline": None, "seed": 0, "weights_sha256": {}}],
        "floor": {} if floor is None else {"figures": {"FD[x]": floor}},
        "cells": [{"provenance": by}],
        "versions": {},
    }
    (folder / "compare.json").write_text(json.dumps(found))
    return write_comparison(folder).read_text(encoding="utf-8")


def lines_of(svg):
    """Colour and dashes of the lines in the axes, the lowest first; those of the legend are not clipped."""
    groups = re.findall(r'<g id="line2d_\d+">\s*<path d="[^"]*" clip-path[^>]*style="([^"]*)"', svg)
    return [
        (re.search(r"stroke: (#\w+)", style)[1], (re.search(r"stroke-dasharray: ([^;]*)", style) or [0, "solid"])[1])
        for style in groups
        if PALETTE["rule"] not in style
    ]


def test_no_two_methods_look_alike_and_none_like_the_floor():
    rows = [row(name, n, 1.0 + i + n) for i, name in enumerate(NAMES) for n in (5, 10)]
    floor, *curves = lines_of(comparison_figure(rows, "evaluations", "FD[x]", floor=0.5, names=NAMES))
    assert len(curves) == len(set(curves)) == len(NAMES)
    assert [dash for _, dash in curves[:4]] == ["solid"] * 4
    assert floor[1] not in {dash for _, dash in curves}
    assert re.fullmatch(r"[\d.]+,[\d.]+", floor[1].strip())  # dashes and nothing else: one length, one gap
    dashes = {dash for _, dash in curves} - {"solid"}
    assert any(len(dash.split(",")) == 4 for dash in dashes)  # dash and dot


@pytest.mark.parametrize(("floor", "drawn"), [(0.5, True), (None, False), (0.0, False)])
def test_the_caption_speaks_of_a_floor_where_there_is_one(tmp_path, floor, drawn):
    page = page_of(tmp_path, [row("a", 5, 2.0), row("a", 10, 1.0)], floor)
    assert page.count("<figcaption>The best walk of each method") == 2
    assert ("the dashed line is that of as many training fields" in page) is drawn
    assert ("stroke-dasharray" in page) is drawn


def test_without_seconds_there_is_no_plot_of_them(tmp_path):
    page = page_of(tmp_path, [row("a", 5, 2.0, seconds=None), row("a", 10, 1.0, seconds=None)])
    assert "Against evaluations" in page
    assert "Against seconds" not in page
    assert page.count("<svg") == 1
    assert "Against seconds" in page_of(tmp_path, [row("a", 5, 2.0), row("a", 10, 1.0)])
