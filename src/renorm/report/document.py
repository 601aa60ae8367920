"""The frame of a page: one HTML file that needs nothing else, light and dark, and allowed to fetch nothing."""

import base64
import hashlib
from collections.abc import Sequence
from html import escape
from pathlib import Path

__all__ = ["document"]

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def document(name: str, over: str, head: Sequence[str], body: Sequence[str], *, chains: bool = False) -> str:
    """A whole page.

    Args:
        name: Its title, as text.
        over: What kind of page it is, as text.
        head: Pieces of HTML under the title.
        body: Pieces of HTML that follow.
        chains: Whether pictures of chains stand in it. Their viewer then comes along, the only script that may run: the
            page's policy names it by its digest.

    Example:
        >>> "default-src 'none'" in document("a < b", "renorm run", [], [])
        True
    """
    style, policy, script = _shipped("style.css"), _POLICY, ""
    if chains:
        style += _shipped("chains.css")
        code = _shipped("viewer.js")
        digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode("ascii")
        policy, script = f"{policy}; script-src 'sha256-{digest}'", f"<script>{code}</script>\n"
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(name)} · renorm</title>\n<style>\n{style}</style>\n</head>\n<body>",
            f'<header>\n<p class="over">{escape(over)}</p>\n<h1>{escape(name)}</h1>',
            *head,
            "</header>\n<main>",
            *body,
            f"</main>\n{script}</body>\n</html>\n",
        ]
    )


def _shipped(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")
