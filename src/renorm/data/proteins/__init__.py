"""Protein chains, C-alpha only: ``read_structure("1abc.cif.gz")``, ``read_folder("mine/")``, ``load("train")``."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from renorm.data.proteins.chains import Chain, Chains
    from renorm.data.proteins.choosing import by_cluster, by_date, of_lengths, unbroken
    from renorm.data.proteins.filling import fill, fill_all
    from renorm.data.proteins.folder import read_folder
    from renorm.data.proteins.packed import load
    from renorm.data.proteins.reading import Dropped
    from renorm.data.proteins.sequence import parse_sequence, read_fasta
    from renorm.data.proteins.structure_files import read_chain, read_structure

__all__ = [
    "Chain",
    "Chains",
    "Dropped",
    "by_cluster",
    "by_date",
    "fill",
    "fill_all",
    "load",
    "of_lengths",
    "parse_sequence",
    "read_chain",
    "read_fasta",
    "read_folder",
    "read_structure",
    "unbroken",
]

_HOME = {
    "Chain": "chains",
    "Chains": "chains",
    "Dropped": "reading",
    "by_cluster": "choosing",
    "by_date": "choosing",
    "fill": "filling",
    "fill_all": "filling",
    "load": "packed",
    "of_lengths": "choosing",
    "parse_sequence": "sequence",
    "read_chain": "structure_files",
    "read_fasta": "sequence",
    "read_folder": "folder",
    "read_structure": "structure_files",
    "unbroken": "choosing",
}


def __getattr__(name: str) -> Any:
    # Lazy, so that reading a recipe does not import torch.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
