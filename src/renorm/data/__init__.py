"""Files, sample sets and simulations become standardised fields: ``load(DataSpec("mnist", size=16))``."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from renorm.data.download import fetch
    from renorm.data.fields import Fields
    from renorm.data.images import SOURCES, load
    from renorm.data.spec import DataSpec
    from renorm.data.store import where

__all__ = ["SOURCES", "DataSpec", "Fields", "fetch", "load", "where"]

_HOME = {
    "SOURCES": "images",
    "DataSpec": "spec",
    "Fields": "fields",
    "fetch": "download",
    "load": "images",
    "where": "store",
}


def __getattr__(name: str) -> Any:
    # Lazy, so that reading a recipe does not import torch.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
