"""Between a hierarchy and its coder: the law's tables as integers, and how they are kept."""

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from renorm.tokens.codebooks.codebook import Codebook
from renorm.tokens.codec.tree_codec import TreeCodec, quantise
from renorm.tokens.trees.tree import Tree, TreeLaw

__all__ = ["IntegerTables", "codec_of", "integer_tables", "packed", "unpacked"]

BITS = 16


class IntegerTables(NamedTuple):
    """Root and stacks of tables, entries in 1 ... 2^16, rows of sum 2^16."""

    root: np.ndarray
    stacks: list[np.ndarray]


def integer_tables(law: TreeLaw) -> IntegerTables:
    """The tables of a law, rounded once, so that no coder ever rounds a real number in another way."""
    root, *stacks = (quantise(table.double().numpy(), BITS) for table in (law.root, *law.tables))
    return IntegerTables(root, stacks)


def codec_of(tree: Tree, tables: IntegerTables, shape: tuple[int, ...], codebook: Codebook) -> TreeCodec:
    """The coder of a tree; files name the codebook too, for what its tokens mean."""
    digest = hashlib.sha256(type(codebook).__name__.encode())
    for name, array in sorted(codebook.state().items()):
        digest.update(name.encode() + np.ascontiguousarray(array).tobytes())
    return TreeCodec(tree, tables.root, tables.stacks, shape=shape, codebook_id=digest.digest(), table_bits=BITS)


def packed(tables: IntegerTables) -> dict[str, np.ndarray]:
    """Two bytes an entry: 1 ... 2^16 becomes 0 ... 2^16 - 1."""
    named = {"root": tables.root, **{f"layer{i}": stack for i, stack in enumerate(tables.stacks)}}
    return {name: (table - 1).astype(np.uint16) for name, table in named.items()}


def unpacked(state: Mapping[str, np.ndarray]) -> IntegerTables:
    """What ``packed`` gave."""
    stacks = [state[f"layer{i}"].astype(np.int64) + 1 for i in range(len(state) - 1)]
    return IntegerTables(state["root"].astype(np.int64) + 1, stacks)
