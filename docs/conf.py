"""Sphinx: the pages of this folder, and the docstrings of the library.

Formulas are drawn in the reader's browser by MathJax, which the pages take from the network; building needs none.
"""

import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from renorm import __version__

project = "renorm"
author = "The renorm developers"
project_copyright = "The renorm developers"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
exclude_patterns = ["_build", "results/**", "pictures/**"]
default_role = "code"  # `name` in a docstring is a name of the code
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"renorm {release}"
html_static_path = ["_static"]
html_css_files = ["renorm.css"]
html_show_sphinx = False

autodoc_default_options = {"members": True}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # attributes are described once, by their class
napoleon_custom_sections = ["Source", "Invariant"]
toc_object_entries_show_parents = "hide"

# -- our docstrings as reST ------------------------------------------------------------------------------------------
# They are written to be read in an editor: $...$ and $$...$$ for formulas, bare * and | in shapes and norms.

_LITERAL = re.compile(r"``.+?``|`[^`\n]+`", re.DOTALL)
_CODE = re.compile(r"^\s*(>>>|\.\.\. |\.\.\.$)")
_STRAY = re.compile(r"(?<!\\)([*|]|(?<=\w)_(?!\w))")


def to_rest(text: str, *, module: bool = False) -> str:
    """A docstring as valid reST.

    Args:
        text: The docstring, without its margin.
        module: Whether an indented block is a figure or a formula in plain letters, as at the head of a module.
    """
    done: list[str] = []
    literal = False  # the paragraph before ended in ::, so what is indented is literal
    for part in re.split(r"(\n[ \t]*\n)", text):
        if not part.strip():
            done.append(part)
            continue
        literal = literal and part.startswith(" ")
        done.append(part if literal else _paragraph(part, module))
        literal = literal or part.rstrip().endswith("::")
    return "".join(done)


def _paragraph(text: str, module: bool) -> str:
    lines = text.splitlines()
    if module and all(line.startswith("    ") for line in lines) and not _CODE.match(lines[0]):
        return "::\n\n" + text  # a literal block
    code = next((i for i, line in enumerate(lines) if _CODE.match(line)), len(lines))
    prose = "\n".join(lines[:code])
    head, *rest = prose.split("$$")
    parts = [_inline(head)]
    for i, part in enumerate(rest):
        before = "$$".join([head, *rest[:i]])
        parts.append(_inline(part.lstrip(" .")) if i % 2 else _display(part, _margin(prose, before)))
    return "\n".join(["".join(parts), *lines[code:]]) if code else text


def _margin(text: str, before: str) -> str:
    """White space at the head of the line on which a formula begins."""
    line = text[len(before) - len(before.rpartition("\n")[2]) :].split("\n", 1)[0]
    return line[: len(line) - len(line.lstrip())]


def _display(formula: str, margin: str) -> str:
    lines = [f"{margin}    {line.strip()}" for line in formula.strip().splitlines()]
    return "\n".join(["", "", f"{margin}.. math::", "", *lines, "", margin])


def _inline(text: str) -> str:
    """Formulas, literals and plain words of one paragraph."""
    pieces, at = [], 0
    for found in re.finditer(rf"{_LITERAL.pattern}|\$[^$]+?\$", text, re.DOTALL):
        pieces += [_STRAY.sub(r"\\\1", text[at : found.start()]), _formula(found.group())]
        at = found.end()
    return "".join([*pieces, _STRAY.sub(r"\\\1", text[at:])])


def _formula(piece: str) -> str:
    """``$...$`` as a role, set off from a letter that touches it; a literal stays as it is."""
    if not piece.startswith("$"):
        return piece
    return rf"\ :math:`{' '.join(piece[1:-1].split())}`\ "


def _process(app: Any, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    lines[:] = to_rest("\n".join(lines), module=what == "module").split("\n")


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", _process, priority=400)  # before napoleon's, at 500
