"""Lossless coding under a tree of categorical tables: integer beliefs, one product down and one up per node."""

import hashlib
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64, Int, Int64

from renorm.errors import DataError, RecipeError
from renorm.tokens.codec.container import Container, read_container, write_container
from renorm.tokens.codec.range_coder import TOTAL, RangeDecoder, RangeEncoder
from renorm.tokens.trees.shape import Tree

__all__ = ["TreeCodec", "quantise"]

EXACT_BITS = 52  # every sum of a product of matrices stays at or below 2^52: float64 holds all integers to 2^53
BLOCK = 1024
MAX_BLOCK = 2**16 - 1
ROW_TOLERANCE = 1e-4

Code = Callable[[Float64[np.ndarray, "batch states"], Int64[np.ndarray, "states values"], int], np.ndarray]


@dataclass(frozen=True)
class _Step:
    """One move of the walk through the tree.

    Args:
        kind: Go down to a hidden node, code a node's value, come back up from a hidden node, or leave a node for good.
        node: The node that is entered, coded or left.
        parent: The node above it; -1 above the root.
        position: Which value is coded.
        carry: Whether the parent is hidden, so that what is learned below changes its belief.
        inner: Whether coded nodes stand below.
    """

    kind: Literal["down", "code", "up", "leave"]
    node: int
    parent: int
    position: int = -1
    carry: bool = True
    inner: bool = False


class TreeCodec:
    r"""Codes rows of values by the joint law of a tree, each at its exact conditional probability.

    Nodes are visited parents first, one subtree after the other. A hidden node v carries the belief
    $b_v(s) \propto p(s_v = s \mid \text{all values coded so far})$ and the evidence
    $\ell_v(s) \propto p(\text{values coded below } v \mid s_v = s)$. With the table $T$ of a child,

    $$ p(x) = \sum_s b_v(s) T_{sx} \ \text{(a value)}, \qquad b_c(k) = \sum_s b_v(s) T_{sk} \ \text{(down)}, \qquad
       \lambda_c(s) = \sum_k T_{sk} \ell_c(k) \ \text{(up)}, $$

    and $b_v$ and $\ell_v$ are multiplied by $T_{\cdot x}$ or by $\lambda_c$. The product of all $p(x)$ is the tree's
    law, and an image costs $O(\text{nodes} \cdot S^2)$. A coded node may have children (a tree of pixels alone): its
    belief is then the value itself.

    Encoder and decoder must find the same integers on every machine. Tables are integers in $[1, 2^m]$ with rows of sum
    $2^m$. Beliefs and evidence of a node with S states are integers in $[0, K]$,
    $K = 2^{52 - m - \lceil\log_2 S\rceil}$ (0 only where the value itself is known). A sum of a
    product of matrices is then at most $S K 2^m \le 2^{52}$ going down or over values, and at most $K 2^m \le 2^{52}$
    going up. All its terms are integers and none is negative, so each partial sum, in whatever order and with or
    without fused multiply-add, is an integer below $2^{53}$: float64 holds it exactly. All else is done entry by entry:
    products, $\max$, division and $\lfloor\cdot\rfloor$, which IEEE 754 rounds in one way only.
    After each step, $b \to \max(1, \lfloor b \cdot (K / \max b) \rfloor)$, and the weights of the n values out of
    $2^{24}$ are $1 + \lfloor F_{x+1} r \rfloor - \lfloor F_x r \rfloor$, $F_x = \sum_s b(s) \sum_{k<x} T_{sk}$,
    $r = (2^{24} - n)/F_n$. What these roundings cost is seen in `bits` against the law's own `log_prob`.

    Args:
        tree: Which variable hangs under which; ``tree.leaves`` are the nodes that are coded.
        root: Probabilities of the root's states.
        tables: One stack (tables, states of the parent, states) per layer of the tree, rows of sum 1 (or integers with
            rows of sum ``2**table_bits``, taken as they are).
        shape: Sites of one image; kept in the file for its reader.
        codebook_id: What else must be equal for a file to mean the same, such as a digest of the codebook.
        table_bits: m, the digits of the integer tables. 16 keeps a model small; 20 resolves smaller probabilities.

    Raises:
        RecipeError: If tables do not fit the tree, are no probabilities, or have more states than their digits allow.

    Example:
        >>> import numpy as np
        >>> from renorm.tokens.trees.shape import Tree
        >>> tree = Tree(np.array([-1, 0, 0]), np.array([2, 3, 3]), leaves=np.array([1, 2]))
        >>> table = np.array([[[0.8, 0.1, 0.1], [0.1, 0.1, 0.8]]])
        >>> codec = TreeCodec(tree, np.array([0.5, 0.5]), [np.repeat(table, 2, axis=0)], shape=(1, 2))
        >>> codec.bits(np.array([[0, 0], [0, 2]])).round(3)  # -log2 of 0.5 (0.8^2 + 0.1^2), of 0.5 (2 * 0.8 * 0.1)
        array([1.621, 3.644])
    """

    def __init__(
        self,
        tree: Tree,
        root: Any,
        tables: Sequence[Any],
        *,
        shape: Sequence[int],
        codebook_id: bytes = b"",
        table_bits: int = 16,
    ) -> None:
        if not 4 <= table_bits <= 20:
            raise RecipeError(f"table_bits must be in [4, 20] (products must stay exact in float64), got {table_bits}")
        if not 1 <= len(shape) <= 4 or min(shape) < 1:
            raise RecipeError(f"shape must have 1 to 4 axes of at least one site (a file has room for 4), got {shape}")
        self.tree = tree
        self.shape = tuple(int(sites) for sites in shape)
        self.table_bits = table_bits
        self._codebook_id = bytes(codebook_id)
        self._states = np.asarray(tree.states, np.int64)
        self._tables, self._table = _integer_tables(tree, root, tables, table_bits)
        self._limit = [2.0 ** (EXACT_BITS - table_bits - (int(states) - 1).bit_length()) for states in self._states]
        if min(self._limit) < 2**table_bits:
            raise RecipeError(
                f"nodes of {self._states.max()} states leave too few digits for beliefs: use fewer states, or tables of"
                f" fewer digits than table_bits = {table_bits}"
            )
        self._steps = tuple(_walk(tree))

    @cached_property
    def _stored(self) -> bytes:
        """Tree and integer tables in one order: what a decoder needs, and what is hashed."""
        entry = "<u2" if self.table_bits <= 16 else "<u4"
        parts = [np.asarray(values).astype("<i8").tobytes() for values in (self.tree.parent, self._states)]
        parts += [np.asarray(values).astype("<i8").tobytes() for values in (self.tree.leaves, self._table)]
        parts += [(table - 1).astype(entry).tobytes() for table in self._tables]
        return b"".join(parts)

    @cached_property
    def model_hash(self) -> str:
        """SHA-256 of all that decides how a file is read; a file holds its first 32 digits."""
        facts = [len(self.tree.parent), len(self.tree.leaves), self.table_bits, len(self.shape), *self.shape]
        head = b"renorm tree codec 1\n" + np.array(facts, dtype="<i8").tobytes()
        return hashlib.sha256(head + self._stored + self._codebook_id).hexdigest()

    @cached_property
    def model_bytes(self) -> int:
        """Size in bytes of tree and integer tables as zlib packs them: what a reader must have beside the files."""
        return len(zlib.compress(self._stored, 9))

    def bits(self, values: Int[np.ndarray, "number positions"]) -> Float64[np.ndarray, "number"]:
        r"""Code length of each row: $\sum \log_2(2^{24} / w)$ over its values, $w$ their integer weights.

        Raises:
            DataError: If a value is not a state of its node.
        """
        values = self._checked(values)
        lengths = np.zeros(len(values))
        for rows in _blocks(len(values), BLOCK):
            found = lengths[rows]

            def count(belief: np.ndarray, table: np.ndarray, position: int, part: Any = rows, into: Any = found) -> Any:
                symbol = values[part, position]
                into += np.log2(TOTAL / _left_and_weight(belief, table, symbol)[1])
                return symbol

            self._visit(len(found), count)
        return lengths

    def compress(self, values: Int[np.ndarray, "number positions"], *, block: int = BLOCK) -> bytes:
        """A file that holds the rows of values.

        Args:
            values: A state of each coded node, for each image.
            block: Images coded together; memory grows with it.

        Raises:
            DataError: If a value is not a state of its node.
            RecipeError: If the block is out of range, or constriction is not installed.
        """
        if not 1 <= block <= MAX_BLOCK:
            raise RecipeError(f"block must be in [1, {MAX_BLOCK}] (a file has two bytes for it), got {block}")
        values = self._checked(values)
        encoder = RangeEncoder()
        for rows in _blocks(len(values), block):

            def write(belief: np.ndarray, table: np.ndarray, position: int, part: Any = rows) -> np.ndarray:
                symbol = values[part, position]
                encoder.encode(symbol, *_left_and_weight(belief, table, symbol), size=table.shape[1])
                return symbol

            self._visit(len(values[rows]), write)
        held = Container(self._own, self.shape, len(values), block, _crc(values), encoder.finish())
        return write_container(held)

    def decompress(self, data: bytes) -> Int64[np.ndarray, "number positions"]:
        """The rows of values that a file holds.

        Raises:
            DataError: If the file is damaged, foreign, of another version, or was made with another model.
            RecipeError: If constriction is not installed.
        """
        held = read_container(data)
        if held.model != self._own:
            raise DataError(
                f"a file is read with the model that wrote it: it was written with {held.model.hex()[:8]}, this model"
                f" is {self.model_hash[:8]}; open it with the other model, or code the images again with this one"
            )
        decoder = RangeDecoder(held.payload)
        found = [np.zeros((0, len(self.tree.leaves)), np.int64)]
        for rows in _blocks(held.number, held.block):
            values = np.zeros((rows.stop - rows.start, len(self.tree.leaves)), np.int64)

            def read(belief: np.ndarray, table: np.ndarray, position: int, into: np.ndarray = values) -> np.ndarray:
                into[:, position] = decoder.decode(_edges(belief, table))
                return into[:, position]

            self._visit(len(values), read)
            found.append(values)
        values = np.concatenate(found)
        if _crc(values) != held.values_crc:
            raise DataError(
                f"the CRC-32 of the decoded values must be the file's own, {held.values_crc:08x}, got"
                f" {_crc(values):08x}: this machine's arithmetic differs from the writer's, or the file was forged;"
                " decode it on another machine, and please report this"
            )
        return values

    @property
    def _own(self) -> bytes:
        return bytes.fromhex(self.model_hash[:32])

    def _checked(self, values: np.ndarray) -> np.ndarray:
        values = np.asarray(values, np.int64)
        leaves = self._states[self.tree.leaves]
        if values.shape[1] != len(leaves):
            raise DataError(
                f"a row has one value for each coded node of the tree, {len(leaves)}, got {values.shape[1]}: give"
                f" images of shape {self.shape}, or tokens of this model's codebook"
            )
        wrong = np.argwhere((values < 0) | (values >= leaves))
        if len(wrong):
            row, position = wrong[0]
            raise DataError(
                f"a value is a state of its node (a hidden one, -1, has no code), 0..{leaves[position] - 1} at position"
                f" {position}, got {values[row, position]} in row {row}: fill hidden values first"
            )
        return values

    def _visit(self, number: int, code: Code) -> None:
        """Walk the tree for a block of images; ``code`` is asked for the values at each coded node."""
        belief = {-1: np.ones((number, 1))}
        evidence: dict[int, np.ndarray] = {}
        for step in self._steps:
            table = self._tables[self._table[step.node]]
            if step.kind == "down":
                belief[step.node] = _scaled(belief[step.parent] @ table.astype(np.float64), self._limit[step.node])
                evidence[step.node] = np.ones((number, table.shape[1]))
                continue
            if step.kind == "leave":
                del belief[step.node]
                continue
            if step.kind == "code":
                symbol = code(belief[step.parent], table, step.position)
                if step.inner:
                    belief[step.node] = self._limit[step.node] * (np.arange(table.shape[1]) == symbol[:, None])
                if not step.carry:
                    continue
                message = np.ascontiguousarray(table.T, dtype=np.float64)[symbol]
            else:
                del belief[step.node]
                message = evidence.pop(step.node) @ table.T.astype(np.float64)
            limit = self._limit[step.parent]
            belief[step.parent] = _scaled(belief[step.parent] * message, limit)
            evidence[step.parent] = _scaled(evidence[step.parent] * message, limit)


def quantise(probability: Float64[np.ndarray, "*lead values"], bits: int) -> Int64[np.ndarray, "*lead values"]:
    r"""Integers in proportion to probabilities: each at least 1, each row of sum $2^{\text{bits}}$.

    $n_k = \max(1, \lfloor 2^m p_k \rfloor)$; what is missing goes to the largest remainders, what is too much is taken
    in proportion to $n_k - 1$. Only exact steps, so that equal floats give equal integers everywhere.

    Example:
        >>> quantise(np.array([0.5, 0.3, 0.2, 0.0]), 4).tolist()
        [8, 4, 3, 1]

    Raises:
        RecipeError: If a row has a negative or missing probability, a sum other than 1, or more than
            $2^{\text{bits} - 1}$ values.
    """
    size, total = probability.shape[-1], 2**bits
    if not (np.isfinite(probability).all() and (probability >= 0).all()):
        raise RecipeError("probabilities must be finite and >= 0 (they become code lengths): mend the tables")
    off = np.abs(probability.sum(-1) - 1).max(initial=0)
    if off > ROW_TOLERANCE:
        raise RecipeError(f"each row of a table must sum to 1 within {ROW_TOLERANCE}, one is off by {off:.2g}")
    if 2 * size > total:
        raise RecipeError(f"{size} values in {total} parts leave no choice: raise table_bits or use fewer states")
    scaled = probability.astype(np.float64) * total
    whole = np.maximum(np.floor(scaled), 1).astype(np.int64)
    spare = total - whole.sum(-1, keepdims=True)
    excess, free = np.maximum(-spare, 0), whole - 1
    share = excess * free // np.maximum(free.sum(-1, keepdims=True), 1)
    whole, excess = whole - share, excess - share.sum(-1, keepdims=True)
    whole -= _rank(-whole) < excess
    spare = np.maximum(spare, 0)
    whole += spare // size
    whole += _rank(np.floor(scaled) - scaled) < spare % size
    return whole


def _rank(key: np.ndarray) -> np.ndarray:
    """Place of each entry of a row in rising order; equal entries as they stand."""
    return np.argsort(np.argsort(key, axis=-1, kind="stable"), axis=-1, kind="stable")


def _integer_tables(
    tree: Tree, root: Any, tables: Sequence[Any], bits: int
) -> tuple[list[np.ndarray], Int64[np.ndarray, "nodes"]]:
    """All different tables in order of the first node that has them, and each node's place in that list."""
    if len(tables) != len(tree.layers):
        raise RecipeError(f"each layer of the tree has one stack of tables: give {len(tree.layers)}, got {len(tables)}")
    stacks = [_whole(root, (1, 1, int(tree.states[0])), bits)]
    home = {0: (0, 0)}
    for index, (layer, stack) in enumerate(zip(tree.layers, tables, strict=True), start=1):
        number = int(np.max(layer.table)) + 1
        stacks.append(_whole(stack, (number, *layer.shape), bits))
        home |= {int(node): (index, int(place)) for node, place in zip(layer.nodes, layer.table, strict=True)}
    order = {key: place for place, key in enumerate(dict.fromkeys(home[node] for node in range(len(home))))}
    place = np.array([order[home[node]] for node in range(len(home))], np.int64)
    return [stacks[layer][table].astype(np.int32) for layer, table in order], place


def _whole(table: Any, shape: tuple[int, int, int], bits: int) -> np.ndarray:
    """A stack of tables as integers."""
    values = np.asarray(table.detach().cpu() if hasattr(table, "detach") else table)
    if values.size != np.prod(shape) or values.shape[-1] != shape[-1]:
        raise RecipeError(f"a stack of this tree's tables has shape {shape}, got {tuple(values.shape)}")
    values = values.reshape(shape)
    if not np.issubdtype(values.dtype, np.integer):
        return quantise(values.astype(np.float64), bits)
    if (values < 1).any() or (values.sum(-1) != 2**bits).any():
        raise RecipeError(f"integer tables need entries >= 1 and rows of sum 2^{bits}, or no value has a code")
    return values.astype(np.int64)


def _walk(tree: Tree) -> Iterator[_Step]:
    """The steps of the visit: subtrees with nothing to code, and nodes of one state, are left out."""
    parent = np.asarray(tree.parent, np.int64)
    position = {int(node): place for place, node in enumerate(tree.leaves)}
    below: list[list[int]] = [[] for _ in parent]
    needed = [node in position for node in range(len(parent))]
    for node in range(len(parent) - 1, 0, -1):
        if needed[node]:
            needed[parent[node]] = True
            below[parent[node]].insert(0, node)
    # Not a recursion: a chain is as deep as it is long.
    todo: list[tuple[int, bool]] = [(0, False)] if needed[0] else []
    while todo:
        node, back = todo.pop()
        above = int(parent[node])
        carry = above >= 0 and above not in position
        if back:
            hidden = carry and node not in position
            yield _Step("up" if hidden else "leave", node, above)
            continue
        if node not in position or tree.states[node] == 1:
            # A coded node of a single state has no bits, but its children start from it.
            if below[node]:
                yield _Step("down", node, above)
        else:
            yield _Step("code", node, above, position[node], carry, bool(below[node]))
        todo += [(node, True)] if below[node] else []
        todo += [(child, False) for child in reversed(below[node])]


def _blocks(number: int, block: int) -> Iterator[slice]:
    for start in range(0, number, block):
        yield slice(start, min(start + block, number))


def _scaled(values: np.ndarray, limit: float) -> np.ndarray:
    """Integers in [1, limit], the largest of each row at the limit (or one below, by rounding)."""
    values = values * (limit / values.max(axis=1, keepdims=True))
    np.floor(values, out=values)
    return np.maximum(values, 1.0, out=values)


def _edges(belief: np.ndarray, table: np.ndarray) -> Float64[np.ndarray, "batch edges"]:
    """The rising integers between which each value's weight lies (less one per value)."""
    most = TOTAL - table.shape[1]
    edges = np.zeros((len(belief), table.shape[1] + 1))
    np.matmul(belief, np.cumsum(table, axis=1, dtype=np.float64), out=edges[:, 1:])
    edges *= most / edges[:, -1:]
    np.floor(edges, out=edges)
    edges[:, -1] = most
    return edges


def _left_and_weight(
    belief: np.ndarray, table: np.ndarray, symbol: np.ndarray
) -> tuple[Int64[np.ndarray, "batch"], Int64[np.ndarray, "batch"]]:
    """Edge and weight of one value, the same integers as by `_edges` without those of all other values."""
    size = table.shape[1]
    until = np.zeros((size + 1, table.shape[0]))
    until[1:] = np.cumsum(table, axis=1, dtype=np.float64).T
    ratio = (TOTAL - size) / (belief @ until[-1])
    left = np.floor((belief * until[symbol]).sum(axis=1) * ratio)
    right = np.floor((belief * until[symbol + 1]).sum(axis=1) * ratio)
    right[symbol == size - 1] = TOTAL - size
    return (left + symbol).astype(np.int64), (right - left + 1).astype(np.int64)


def _crc(values: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(values, dtype="<i4").data)
