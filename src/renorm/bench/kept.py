"""Pieces of long benchmarks that are made once: what was found, with which settings, at which commit."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from renorm.errors import DataError
from renorm.recipes.folder import machine, write_json

__all__ = ["kept"]

T = TypeVar("T")


def kept(
    path: Path, settings: Any, make: Callable[[], T], *, read: Callable[[Any], T] = lambda value: value
) -> tuple[T, str]:
    """What a file holds if it was found with these settings, else found now and written; and the commit that did.

    Args:
        path: A JSON file, in a folder that may not be there yet.
        settings: All that it depends on but the code, as JSON has it: lists, no tuples.
        make: Finds it.
        read: From what JSON makes of it to what ``make`` gives.

    Raises:
        DataError: If the file is damaged.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     first, again, other = (kept(Path(folder, "x.json"), n, lambda n=n: n)[0] for n in (1, 1, 2))
        >>> first, again, other
        (1, 1, 2)
    """
    if path.is_file():
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
            if before["settings"] == settings:
                return read(before["found"]), str(before["commit"])
        except (ValueError, KeyError, TypeError, AttributeError):
            raise DataError(
                f"{path} must hold what a method reached, but is damaged; remove it to judge anew"
            ) from None
    commit = machine()["commit"]
    found = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"commit": commit, "settings": settings, "found": found})
    return found, commit
