"""The pages say what is true: their code runs, their commands parse, their tables name every option and every key."""

import argparse
import ast
import dataclasses
import doctest
import math
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import get_args

import pytest

import renorm
from renorm.cascade.clusters.spec import ClusterFit, ClusterSpec
from renorm.cascade.spec import CascadeSpec, ConditionalSpec
from renorm.cli.parser import build_parser as _parser
from renorm.diffusion.regulator import REGULATORS
from renorm.diffusion.sampler import SAMPLERS
from renorm.diffusion.spacing import SPACINGS
from renorm.laws import spec as laws
from renorm.recipes.spec import WINGS, CascadeRecipe, Recipe, TokensRecipe, load_recipe, shipped
from renorm.spec import from_mapping, parse_toml
from renorm.tokens.spec import CodebookSpec, HierarchySpec, LawSpec

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
GUIDE = ROOT / "CONTRIBUTING.md"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


def blocks(path, language):
    """The fenced blocks of one language, with the lines on which they begin."""
    text = path.read_text(encoding="utf-8")
    fence = re.compile(rf"^```{language}\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    return [(text[: found.start(1)].count("\n"), found.group(1)) for found in fence.finditer(text)]


def name_of(path):
    return path.relative_to(ROOT).as_posix()


# -- code ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [path for path in PAGES if blocks(path, "python")], ids=name_of)
def test_the_python_of_a_page_runs(path, tmp_path, monkeypatch, capsys):
    """From top to bottom in an empty folder: a block may use what an earlier one made.

    Where a line reads ``print(...)  # value``, that is what it prints.
    """
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "page"}
    for line, code in blocks(path, "python"):
        if ">>>" in code:
            example = doctest.DocTestParser().get_doctest(code, names, name_of(path), str(path), line)
            runner = doctest.DocTestRunner(optionflags=FLAGS)
            runner.run(example, clear_globs=False)
            names |= example.globs
            assert runner.summarize(verbose=False).failed == 0
        else:
            exec(compile("\n" * line + code, str(path), "exec"), names)
            printed = capsys.readouterr().out.splitlines()
            promised = re.findall(r"^print\(.*\) +# (.+)$", code, re.MULTILINE)
            assert not [text for text in promised if text not in printed], printed


def apply(package, change):
    """Apply one ``diff`` block: hunks between ``@@``, each found once, whatever its line."""
    head, *lines = change.splitlines()
    path = package / head.removeprefix("+++ src/renorm/")
    text = path.read_text(encoding="utf-8")
    for hunk in "\n".join(lines).split("\n@@\n"):
        rows = hunk.split("\n")
        old = "\n".join(row[1:] for row in rows if not row.startswith("+"))
        new = "\n".join(row[1:] for row in rows if not row.startswith("-"))
        assert text.count(old) == 1, f"CONTRIBUTING.md and {path.name} have drifted apart:\n{old}"
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")


def test_a_new_part_is_one_new_file_and_an_entry(tmp_path):
    """The guide's files, put into a copy of the package with the guide's changes, do what the guide says."""
    package = tmp_path / "renorm"
    shutil.copytree(Path(renorm.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    uses, files = [], []
    for line, code in blocks(GUIDE, "python"):
        found = re.match(r"# src/renorm/(\S+)\n", code)
        if found is None:
            uses.append("\n" * line + code)
            continue
        assert not (package / found.group(1)).exists(), f"{found.group(1)} is no new file"
        (package / found.group(1)).write_text(code.partition("\n")[2], encoding="utf-8")
        files.append(package / found.group(1))
    changes = [code.rstrip("\n") for _, code in blocks(GUIDE, "diff")]
    assert len(files) == len(changes) == len(uses) == 4
    for change in changes:
        apply(package, change)
        entries = [row for row in change.splitlines()[1:] if row.startswith("+") and "import" not in row]
        assert len([row for row in entries if row != "+"]) == 1, "a new part is one line in its registry"
    (tmp_path / "use.py").write_text("\n".join(use.lstrip("\n") for use in uses), encoding="utf-8")
    where = f"import renorm; assert renorm.__file__.startswith({str(package)!r}), renorm.__file__; "
    script = where + "import runpy; runpy.run_path('use.py')"
    # plain doctest imports the modules by name: no second pytest with its plugins
    checked = "".join(
        f"; import doctest, renorm.{'.'.join(file.relative_to(package).with_suffix('').parts)} as m"
        f"; assert doctest.testmod(m, optionflags={FLAGS}).failed == 0"
        for file in files
    )
    done = subprocess.run(
        [sys.executable, "-c", script + checked],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


# -- commands --------------------------------------------------------------------------------------------------------


def commands():
    """Name -> parser of every command."""
    parser = _parser()
    return next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction)).choices


def shell_lines():
    lines = []
    for path in [*PAGES, GUIDE]:
        for line, code in blocks(path, "bash"):
            for i, text in enumerate(code.splitlines()):
                words = shlex.split(text, comments=True)
                words = words[words.index("-m") + 1 :] if "torchrun" in words else words
                if words and words[0] == "renorm":
                    lines.append(pytest.param(words[1:], id=f"{name_of(path)}:{line + i + 1}"))
    return lines


@pytest.mark.parametrize("words", shell_lines())
def test_the_commands_of_the_pages_parse(words):
    options = _parser().parse_args(words)
    if getattr(options, "recipe", None) in shipped():
        changes = dict(text.split("=", 1) for text in options.set or [])
        load_recipe(options.recipe, changes)
    for registry, name in ((SAMPLERS, "sampler"), (SPACINGS, "spacing")):
        value = getattr(options, name, None)
        assert value is None or value in registry, value


def sections(path):
    """Heading -> text under it, for headings of the second level."""
    parts = re.split(r"^## +(.+)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_every_command_has_its_section():
    assert set(sections(DOCS / "cli.md")) == set(commands())


@pytest.mark.parametrize("name", sorted(commands()))
def test_the_page_names_every_option_of_a_command_and_no_other(name):
    text = sections(DOCS / "cli.md")[name]
    own = {s for a in commands()[name]._actions for s in a.option_strings} - {"-h", "--help", "--json", "--quiet"}
    rows = [row.split(" | ")[0] for row in text.splitlines() if row.startswith("| `-")]
    named = {option for row in rows for option in re.findall(r"`(--?[a-z-]+)`", row)}
    assert named == own
    examples = [words.values[0] for words in shell_lines() if words.id.startswith("docs/cli.md")]
    assert any(words[0] == name for words in examples), "each command has an example"


@pytest.mark.parametrize("registry", [SAMPLERS, SPACINGS, REGULATORS], ids=["samplers", "spacings", "regulators"])
def test_the_pages_name_every_entry_of_a_registry(registry):
    pages = [DOCS / "recipes.md"] + ([DOCS / "cli.md"] if registry is not REGULATORS else [])
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert not [name for name in registry if f"`{name}`" not in text]


# -- recipes ---------------------------------------------------------------------------------------------------------


LAW_KEY = re.compile(r"^\| `data\.law\.([a-z0-9_]+)` \| (\S.*?) \| ", re.MULTILINE)


def keys(spec, where=""):
    """Dotted key -> default of every value of a recipe."""
    found = {}
    for field in dataclasses.fields(spec):
        value = getattr(spec, field.name)
        path = f"{where}{field.name}"
        found |= keys(value, f"{path}.") if dataclasses.is_dataclass(value) else {path: value}
    return found


def meant(text):
    """The value that a cell of the page stands for."""
    if text == "–":
        return None
    text = text.strip("`")
    if text.endswith("π"):
        return float(text[:-1]) * math.pi
    value = tomllib.loads(f"v = {text}")["v"]
    return tuple(value) if isinstance(value, list) else value


def test_the_page_has_every_key_of_a_recipe_with_its_default():
    text = (DOCS / "recipes.md").read_text(encoding="utf-8").split("## Keys of cascades\n")[0]
    rows = re.findall(r"^\| `([a-z_.]+)` \| (\S.*?) \| ", text, re.MULTILINE)
    page = {key: meant(default) for key, default in rows if key not in shipped() and not key.startswith("data.law.")}
    truth = keys(TokensRecipe()) | keys(Recipe())
    del truth["model.members"]  # has tables of its own, below
    assert page.keys() == truth.keys()
    for key, value in truth.items():
        assert page[key] == pytest.approx(value) if isinstance(value, float) else page[key] == value, key


def test_the_page_has_every_key_of_a_law_with_its_default():
    text = (DOCS / "recipes.md").read_text(encoding="utf-8")
    text = text.split("### Laws of molecules\n")[0]
    page = dict(LAW_KEY.findall(text))
    fields = [kind for kind in get_args(laws.LawSpec) if kind not in laws.MOLECULES]
    truth = {f.name: f.default for kind in fields[::-1] for f in dataclasses.fields(kind)}
    assert page.keys() == truth.keys()
    assert page.pop("beta") == "`ln(1 + √2) / 2`"
    assert math.log(1 + math.sqrt(2)) / 2 == truth["beta"]
    assert all(meant(default) == truth[key] for key, default in page.items())


@pytest.mark.parametrize("spec", laws.MOLECULES)
def test_the_page_has_every_key_of_a_law_of_molecules_with_its_default(spec):
    text = (DOCS / "recipes.md").read_text(encoding="utf-8").split(f"#### `{spec.kind}`\n")[1].split("\n### ")[0]
    page = dict(LAW_KEY.findall(text.split("\n#### ")[0]))
    assert {k: meant(v) for k, v in page.items()} == {field.name: field.default for field in dataclasses.fields(spec)}


def test_the_page_has_every_key_of_clusters_with_its_default():
    text = (DOCS / "recipes.md").read_text(encoding="utf-8").split("## Keys of clusters\n")[1].split("\n## ")[0]
    page = {k: meant(default) for k, default in re.findall(r"^\| `([a-z_.]+)` \| (\S.*?) \| ", text, re.MULTILINE)}
    assert page == keys(ClusterSpec(), "model.") | keys(ClusterFit(), "fit.")


def test_the_page_has_every_key_of_a_cascade_with_its_default():
    text = (DOCS / "recipes.md").read_text(encoding="utf-8").split("## Keys of cascades\n")[1].split("\n### ")[0]
    page = {k: meant(default) for k, default in re.findall(r"^\| `([a-z_.]+)` \| (\S.*?) \| ", text, re.MULTILINE)}
    truth = keys(CascadeRecipe())
    truth = {k: v for k, v in truth.items() if k.startswith(("model.", "fit.")) and "conditional." not in k}
    assert page.pop("model.conditional") == {"kind": CascadeSpec().conditional.kind}
    assert page == truth


@pytest.mark.parametrize("spec", get_args(ConditionalSpec))
def test_the_page_has_every_key_of_a_conditional_with_its_default(spec):
    text = (
        (DOCS / "recipes.md")
        .read_text(encoding="utf-8")
        .split(f"### Conditional `{spec.kind}`\n")[1]
        .split("\n### ")[0]
    )
    page = dict(re.findall(r"^\| `model\.conditional\.([a-z_]+)` \| (\S.*?) \| ", text, re.MULTILINE))
    assert {k: meant(v) for k, v in page.items()} == {field.name: field.default for field in dataclasses.fields(spec)}


def rows_of_member(heading, part):
    """Key -> default in the table under a heading of the third level."""
    text = (DOCS / "recipes.md").read_text(encoding="utf-8").split(f"### {heading}\n")[1].split("\n#")[0]
    found = re.findall(rf"^\| `model\.members\.0\.{part}([a-z_]+)` \| (\S.*?) \| ", text, re.MULTILINE)
    return {key: meant(default) for key, default in found}


@pytest.mark.parametrize("spec", [*get_args(CodebookSpec), *get_args(LawSpec)])
def test_the_page_has_every_key_of_a_member_with_its_default(spec):
    part = "codebook" if spec in get_args(CodebookSpec) else "law"
    page = rows_of_member(f"{part.capitalize()} `{spec.kind}`", f"{part}.")
    assert page == {field.name: field.default for field in dataclasses.fields(spec)}


def test_the_page_has_every_key_of_members():
    page, truth = rows_of_member("Members", ""), HierarchySpec()
    kinds = {name: {"kind": getattr(truth, name).kind} for name in ("codebook", "law")}
    assert page == {"temper": truth.temper, "seed": truth.seed} | kinds


def test_the_page_names_every_shipped_recipe():
    text = (DOCS / "recipes.md").read_text(encoding="utf-8")
    assert not [name for name in shipped() if f"| `{name}` |" not in text]


def test_the_recipes_on_the_pages_are_valid():
    found = [code for path in PAGES for _, code in blocks(path, "toml")]
    assert found
    for code in found:
        table = parse_toml(code, source="page")
        from_mapping(WINGS[table.get("wing", "diffusion")], table)


# -- the rest --------------------------------------------------------------------------------------------------------


def test_every_dependency_is_explained():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    listed = [*project["dependencies"], *(d for extra in project["optional-dependencies"].values() for d in extra)]
    names = {re.match(r"[A-Za-z0-9-]+", text).group() for text in listed} - {"renorm"}
    rows = [row for row in (DOCS / "dependencies.md").read_text(encoding="utf-8").splitlines() if row.startswith("|")]
    assert not [name for name in sorted(names) if not any(f"`{name}`" in row for row in rows)]


def test_links_between_pages_lead_somewhere():
    for path in [*PAGES, GUIDE, *sorted((DOCS / "api").glob("*.md"))]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), f"{name_of(path)} links to {target}"


def test_every_module_is_in_the_reference():
    text = "".join(path.read_text(encoding="utf-8") for path in (DOCS / "api").glob("*.md"))
    for path in sorted(Path(renorm.__file__).parent.rglob("*.py")):
        parts = path.relative_to(Path(renorm.__file__).parents[1]).with_suffix("").parts
        name = ".".join(parts).removesuffix(".__init__")
        if name in ("renorm", "renorm.__main__") or not _says_something(path):
            continue
        assert f".. automodule:: {name}\n" in text, name


def _says_something(path):
    """Whether a module holds more than re-exports."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    own = [node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    return path.name != "__init__.py" or bool([name for name in own if not name.startswith("_")])


@pytest.mark.parametrize(
    ("docstring", "rest"),
    [
        ("At $k^2$ it is", r"At \ :math:`k^2`\  it is"),
        ("fields (batch, *sites) and |k|, ``*sites``", r"fields (batch, \*sites) and \|k\|, ``*sites``"),
        ("Example:\n    >>> 2 * 3", "Example:\n    >>> 2 * 3"),
        ("As in::\n\n    a * b * c", "As in::\n\n    a * b * c"),
        ("Args:\n    x: So $|x|\n        y$.", "Args:\n    x: So \\ :math:`|x| y`\\ ."),
    ],
)
def test_docstrings_become_rest(docstring, rest):
    assert runpy.run_path(str(DOCS / "conf.py"))["to_rest"](docstring) == rest


def test_a_displayed_formula_becomes_a_block():
    rest = runpy.run_path(str(DOCS / "conf.py"))["to_rest"]("Head:\n\n    $$ a *\n       b, $$\n\n    and so on.")
    lines = [line for line in rest.splitlines() if line.strip()]
    assert lines == ["Head:", "    .. math::", "        a *", "        b,", "    and so on."]
