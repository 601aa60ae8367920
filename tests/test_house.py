"""The layout is the theory: which room may import which, and what no room may hold.

Every import counts, also one under ``if TYPE_CHECKING`` or inside a function: an arrow is an arrow. Only the face,
``renorm/__init__.py``, stands outside: it re-exports names of every floor, lazily.
"""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import renorm

ROOT = Path(renorm.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

# Floors from the ground up; rooms in one tuple are siblings and never touch. The ground floor has five stairs.
HOUSE = [
    ("errors", "version"),
    ("spec",),
    ("lattice", "graph"),
    ("bases",),
    ("nn", "mcmc", "worlds"),
    ("coarse", "laws"),
    ("data",),
    ("measure",),
    ("model", "fit"),
    ("diffusion", "cascade", "tokens", "testing"),
    ("recipes", "interop", "planning"),
    ("report", "bench"),
    ("explorer",),
    ("cli",),
    ("__main__",),
]
FLOOR = {room: floor for floor, rooms in enumerate(HOUSE) for room in rooms}


def name_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in FILES}


def test_the_house_is_here():
    assert {"lattice", "bases", "diffusion.mode_diffusion", "testing"} <= MODULES.keys()


@cache
def tree(name):
    return ast.parse(MODULES[name].read_text(encoding="utf-8"))


def imported(module, names):
    """Modules of the house that ``from module import names`` reaches; a name that is no module stands for its home."""
    if module.split(".")[0] != "renorm":
        return set()
    home = module.removeprefix("renorm").removeprefix(".")
    inner = {f"{home}.{name}".strip(".") for name in names}
    return {name if name in MODULES else home for name in inner} or {home}


@cache
def arrows(name):
    """(module of the house, line) for every import in a file."""
    found = set()
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Import):
            found |= {(target, node.lineno) for alias in node.names for target in imported(alias.name, [])}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}:{node.lineno}: imports are written in full, from renorm on"
            found |= {(target, node.lineno) for target in imported(node.module, [a.name for a in node.names])}
    return found


def room(name):
    return name.split(".")[0]


def test_every_room_has_a_floor():
    assert {room(name) for name in MODULES} - {""} <= FLOOR.keys()


@pytest.mark.parametrize("name", sorted(MODULES.keys() - {""}))
def test_no_arrow_runs_up_or_between_siblings(name):
    here = room(name)
    for target, line in sorted(arrows(name)):
        there = room(target)
        if there in (here, ""):  # the bare package gives its version and its folder
            continue
        kind = "up" if FLOOR[there] > FLOOR[here] else "between siblings"
        assert FLOOR[there] < FLOOR[here], f"{name}:{line}: an arrow runs {kind}, {here} -> {there}"


def test_measures_know_no_data_sets():
    """Of the data room, measures may only ask where files are kept."""
    seen = {target for name in MODULES if room(name) == "measure" for target, _ in arrows(name)}
    assert {name for name in seen if room(name) == "data"} <= {"data.store"}


def test_no_circles():
    """Imports between files have no circle."""
    graph = {name: {t for t, _ in arrows(name) if t} - {name} for name in MODULES if name}
    for package in [name for name, path in MODULES.items() if path.name == "__init__.py" and name]:
        # a package that re-exports is imported through its parts, by whoever is outside it
        for name in graph:
            if room(name) == room(package):
                graph[name].discard(package)
    done = set()

    def visit(name, path):
        assert name not in path, f"imports run in a circle: {' -> '.join([*path[path.index(name) :], name])}"
        if name not in done:
            for target in sorted(graph[name]):
                visit(target, [*path, name])
            done.add(name)

    for name in sorted(graph):
        visit(name, [])


LIGHT = [
    "",
    "spec",
    "errors",
    "lattice",
    "diffusion.spec",
    "nn.spec",
    "fit.spec",
    "data.spec",
    "laws.spec",
    "cascade.spec",
]


def test_specs_do_not_import_torch():
    """The command line shows its help, and checks a recipe, without waiting for torch."""
    lines = [f"import {f'renorm.{name}'.rstrip('.')}; assert 'torch' not in sys.modules, {name!r}" for name in LIGHT]
    done = subprocess.run([sys.executable, "-c", "\n".join(["import sys", *lines])], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def _dotted(node):
    return f"{node.value.id}.{node.attr}" if isinstance(node.value, ast.Name) else ""


@pytest.mark.parametrize("name", sorted(MODULES))
def test_nothing_is_pickled(name):
    """A model is tensors and values: no file that is read can run code. (And torchvision is not needed.)"""
    for node in ast.walk(tree(name)):
        where = f"{name}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            banned = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "torchvision"}
            assert not {(module or "").split(".")[0] for module in modules} & banned, where
        elif isinstance(node, ast.Attribute):
            assert _dotted(node) not in {"torch.load", "torch.save", "torch.hub", "numpy.load"}, where
        elif isinstance(node, ast.keyword) and node.arg in ("allow_pickle", "weights_only"):
            assert isinstance(node.value, ast.Constant), where
            assert node.value.value is (node.arg == "weights_only"), where


@pytest.mark.parametrize("name", sorted(MODULES))
def test_rooms_are_small_and_named_after_what_they_do(name):
    assert not set(name.split(".")) & {"utils", "util", "helpers", "common", "core", "misc"}
    assert len(MODULES[name].read_text(encoding="utf-8").splitlines()) <= 450
