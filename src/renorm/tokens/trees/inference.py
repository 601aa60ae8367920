r"""Exact sum-product and max-product on a tree of tables, many images and many nodes at once.

Upward, each node $i$ gathers from its children $c$, and tells its parent $p$,

$$\beta_i(s_i) = [s_i \text{ agrees with what is seen}] \prod_c \lambda_c(s_i), \qquad
  \lambda_i(s_p) = \sum_{s_i} T_i(s_p, s_i)\, \beta_i(s_i) .$$

Downward, the posterior of a parent becomes that of its children,

$$\pi_i(s_i) = \sum_{s_p} \frac{\pi_p(s_p)}{\lambda_i(s_p)} T_i(s_p, s_i)\, \beta_i(s_i) .$$

Messages are logarithms with the greatest state near 0; what was taken off is summed apart, in float64, so that float32
keeps its digits over a thousand nodes. A seen leaf costs one row of a table, never a product.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from renorm.errors import DataError
from renorm.tokens.trees.evidence import VirtualEvidence, place
from renorm.tokens.trees.shape import Layer, Pool, Tree

__all__ = [
    "Messages",
    "Tables",
    "chunks",
    "count",
    "descend",
    "draw",
    "largest",
    "log_prob",
    "marginals",
    "root_log_prob",
    "upward",
]

WORKING_BYTES = 96 * 2**20
FAINT = {torch.float32: 1e-30, torch.float64: 1e-290}


@dataclass(frozen=True, eq=False)
class Tables:
    """The tables of a law in the forms that the passes read.

    Args:
        tree: Which node hangs under which.
        root: p(root).
        stacks: For each layer (tables, states of the parent, states).
    """

    tree: Tree
    root: Tensor
    stacks: list[Tensor]

    @cached_property
    def rows(self) -> list[Tensor | None]:
        """For each layer of leaves log T by (table, token) row; then one row of log 1 for each hidden table.

        Where a gradient is wanted the 1 is the sum of the table's row: that is what the gradient sees of it.
        """
        return [
            self._by_row(stack, _log(stack.sum(2)) if stack.requires_grad else torch.zeros_like(stack[:, :, 0]))
            if layer.leaf
            else None
            for layer, stack in zip(self.tree.layers, self.stacks, strict=True)
        ]

    @cached_property
    def best_rows(self) -> list[Tensor | None]:
        """The same for max-product, where a hidden leaf takes its likeliest token."""
        return [
            self._by_row(stack, stack.amax(2).log()) if layer.leaf else None
            for layer, stack in zip(self.tree.layers, self.stacks, strict=True)
        ]

    def own(self, index: int) -> Tensor:
        """The table of each node of a layer."""
        stack, layer = self.stacks[index], self.tree.layers[index]
        return stack[place(layer.table, stack)] if layer.tied else stack

    @staticmethod
    def _by_row(stack: Tensor, hidden: Tensor) -> Tensor:
        number, above, states = stack.shape
        return torch.cat([_log(stack.transpose(1, 2).reshape(number * states, above)), hidden])


@dataclass(frozen=True, eq=False)
class Messages:
    """What the upward pass leaves: log beta of each node with children, log lambda, and what was taken off.

    Args:
        root: log p(root, seen) less ``scale``, (batch, states).
        beta: For each layer with children (nodes, batch, states), None for leaves.
        up: For each such layer log lambda (nodes, batch, states of the parent) less the greatest of beta.
        scale: Sum of all that was taken off, (batch,), float64.
    """

    root: Tensor
    beta: list[Tensor | None]
    up: list[Tensor | None]
    scale: Tensor


def chunks(tree: Tree, batch: int, itemsize: int, *, extra: int = 0) -> Iterator[slice]:
    """Slices of the batch whose working arrays stay within ``WORKING_BYTES``; ``extra`` values more an image."""
    values = 4 * sum(pool.states * len(pool.nodes) for pool in tree.pools) + 4 * len(tree) + extra
    size = max(1, WORKING_BYTES // (itemsize * values))
    number = max(1, math.ceil(batch / size))
    bounds = [batch * k // number for k in range(number + 1)]
    return (slice(start, stop) for start, stop in pairwise(bounds))


def upward(
    tables: Tables, observed: Tensor, *, maximum: bool = False, virtual: VirtualEvidence | None = None
) -> Messages:
    """Pass all evidence to the root.

    Args:
        tables: The law.
        observed: State of each node, (batch, nodes); -1 where hidden.
        maximum: Maximise over the hidden states in place of summing them.
        virtual: What is known of hidden nodes.

    Returns:
        The messages; ``root`` holds log p(root, seen) less ``scale``.
    """
    tree, batch = tables.tree, observed.shape[0]
    pools = [tables.root.new_zeros(len(pool.nodes), batch, pool.states) for pool in tree.pools]
    beta: list[Tensor | None] = [None] * len(tree.layers)
    up: list[Tensor | None] = [None] * len(tree.layers)
    scale = torch.zeros(batch, dtype=torch.float64, device=observed.device)
    lift = _lift_maximum if maximum else _lift
    for index in reversed(range(len(tree.layers))):
        layer = tree.layers[index]
        if layer.leaf:
            rows = (tables.best_rows if maximum else tables.rows)[index]
            assert rows is not None
            _gather(layer, rows, observed, pools[layer.above])
            if virtual is not None:
                slots, log = virtual.of(layer, observed)
                if len(slots):
                    message = _glimpsed(
                        tables.own(index)[place(slots, log)], log, observed, layer.nodes[slots], maximum
                    )
                    pools[layer.above].index_add_(0, place(layer.slots[slots], observed), message)
            continue
        own = pools[layer.home][layer.start : layer.start + len(layer.nodes)]
        if virtual is not None:
            slots, log = virtual.of(layer, observed)
            own = own.index_add(0, place(slots, own), log) if len(slots) else own
        own = _clamped(own, observed.index_select(1, place(layer.nodes, observed)))
        top = own.detach().amax(2)
        top = torch.where(torch.isneginf(top), 0.0, top)
        scale = scale + top.sum(0, dtype=torch.float64)
        own = own - top[:, :, None]
        message = lift(own, tables.own(index))
        pools[layer.above].index_add_(0, place(layer.slots, observed), message)
        beta[index], up[index] = own, message
    if virtual is not None and 0 in virtual.nodes:
        pools[0] = pools[0] + virtual.of_root(observed)
    root = _clamped(pools[0], observed[:, :1])[0] + _log(tables.root)
    return Messages(root, beta, up, scale)


def root_log_prob(messages: Messages) -> Tensor:
    """log p(root, seen), (batch, states)."""
    return messages.root + messages.scale.to(messages.root.dtype)[:, None]


def log_prob(messages: Messages) -> Tensor:
    """log p(seen), (batch,)."""
    return _log_sum(messages.root) + messages.scale.to(messages.root.dtype)


def _gather(layer: Layer, rows: Tensor, observed: Tensor, pool: Tensor) -> None:
    """Add to each parent log T(s_p, token) of its leaves."""
    keys = _keys(layer, observed)
    for bag in layer.bags:
        key = keys[:, place(bag.columns, keys)].transpose(0, 1)
        parents, batch, size = key.shape
        if size == 1:
            found = functional.embedding(key.reshape(-1), rows)
        else:
            found = functional.embedding_bag(key.reshape(-1, size), rows, mode="sum")
        pool.index_add_(0, place(bag.slots, keys), found.view(parents, batch, -1))


def _glimpsed(table: Tensor, log: Tensor, observed: Tensor, nodes: np.ndarray, maximum: bool) -> Tensor:
    """What hidden leaves tell their parents by virtual evidence, beside what ``_gather`` took for them."""
    top = log.amax(2, keepdim=True)
    top = torch.where(torch.isneginf(top), 0.0, top)
    log = log - top
    if maximum:
        message = _lift_maximum(log, table) - table.amax(2).log()[:, None]
    else:
        message = _lift(log, table)
    clamped = observed[:, place(nodes, observed)].T >= 0
    return torch.where(clamped[:, :, None], 0.0, message + top)


def _keys(layer: Layer, observed: Tensor) -> Tensor:
    """Row of ``Tables.rows`` for each image and leaf of a layer."""
    token, table = observed.index_select(1, place(layer.nodes, observed)), place(layer.table, observed)
    return torch.where(token < 0, layer.tables * layer.shape[1] + table, table * layer.shape[1] + token)


def _clamped(beta: Tensor, seen: Tensor) -> Tensor:
    """Log 0 for all states but the seen one."""
    if not (seen >= 0).any():
        return beta
    state = seen.T[:, :, None]
    agrees = (state < 0) | (state == torch.arange(beta.shape[2], device=beta.device))
    return torch.where(agrees, beta, -math.inf)


def _log(x: Tensor) -> Tensor:
    """Logarithm with log 0 = -inf and no gradient there (0 times infinity is not a number)."""
    if not x.requires_grad:
        return x.log()
    return torch.where(x > 0, torch.where(x > 0, x, 1.0).log(), -math.inf)


def _lift(beta: Tensor, table: Tensor) -> Tensor:
    """Log of the sum over states; where all that counts underflows, once more with logarithms."""
    message = torch.bmm(beta.exp(), table.transpose(1, 2))
    result = _log(message)
    least = FAINT[message.dtype]
    if bool(message.detach().amin() >= least):
        return result
    faint = message.detach() < least
    faint &= (beta.detach().amax(2) > -math.inf)[:, :, None]
    node, image, above = faint.nonzero(as_tuple=True)
    if len(node) == 0:
        return result
    parts = [
        _log_sum(_log(table[node[part], above[part]]) + beta[node[part], image[part]])
        for part in _parts(len(node), 3 * beta.shape[2] * beta.element_size())
    ]
    return result.index_put((node, image, above), torch.cat(parts))


def _log_sum(x: Tensor) -> Tensor:
    """Log sum exp over the last axis, -inf where all are, without a gradient there."""
    top = x.detach().amax(-1, keepdim=True)
    top = torch.where(torch.isneginf(top), 0.0, top)
    return _log((x - top).exp().sum(-1)) + top[..., 0]


def _lift_maximum(beta: Tensor, table: Tensor) -> Tensor:
    """The greatest log T(s_p, s) + log beta(s), one state of the parent after the other to spare memory."""
    log = table.log()
    return torch.stack([(beta + log[:, above, None, :]).amax(2) for above in range(table.shape[1])], 2)


def _parts(number: int, row_bytes: int) -> Iterator[slice]:
    """Slices of rows that fit into the working memory."""
    size = max(1, WORKING_BYTES // row_bytes)
    return (slice(start, start + size) for start in range(0, number, size))


def posterior(root: Tensor) -> Tensor:
    """p(root given the seen); zeros where the seen is impossible."""
    top = root.amax(1, keepdim=True)
    weight = (root - torch.where(torch.isneginf(top), 0.0, top)).exp()
    return weight / weight.sum(1, keepdim=True).clamp(min=torch.finfo(root.dtype).tiny)


def _spread(layer: Layer, table: Tensor, beta: Tensor, up: Tensor, above: Tensor, counts: Tensor | None) -> Tensor:
    """Posterior (times weight) of a layer's nodes from that of their parents; adds expected counts on the way."""
    log_faint = math.log(FAINT[beta.dtype])
    faint = None
    if bool(up.amin() < log_faint):
        weak = up < log_faint
        faint = (above > 0) & weak & (up > -math.inf)
        ratio = torch.where(weak, 0.0, above * (-up.clamp(min=log_faint)).exp())
    else:
        ratio = above * (-up).exp()
    seen = beta.exp()
    here = torch.bmm(ratio, table) * seen
    if counts is not None:
        added = torch.bmm(ratio.transpose(1, 2), seen).mul_(table)
        counts.index_add_(0, place(layer.table, added), added) if layer.tied else counts.add_(added)
    if faint is not None and faint.any():
        _spread_faint(layer, table, (beta, up, above), faint.nonzero(), here, counts)
    return here


def _spread_faint(
    layer: Layer,
    table: Tensor,
    messages: tuple[Tensor, Tensor, Tensor],
    places: Tensor,
    here: Tensor,
    counts: Tensor | None,
) -> None:
    """The part of the posterior whose numbers underflow unless they stay logarithms until the end."""
    beta, up, above = messages
    for part in _parts(len(places), 4 * beta.shape[2] * beta.element_size()):
        node, image, state = places[part].unbind(1)
        log = table[node, state].log() + beta[node, image] - up[node, image, state, None]
        joint = above[node, image, state, None] * log.exp()
        here.index_put_((node, image), joint, accumulate=True)
        if counts is not None:
            counts.index_put_((place(layer.table, node)[node], state), joint, accumulate=True)


def _pools_down(tables: Tables, messages: Messages, root: Tensor, counts: list[Tensor] | None) -> list[Tensor]:
    """Posterior of each pool of nodes, (nodes, batch, states), times the weight that ``root`` carries."""
    tree, batch = tables.tree, root.shape[0]
    pools: list[Tensor] = [_empty(pool, batch, root) for pool in tree.pools]
    pools[0][0] = root
    for index, layer in enumerate(tree.layers):
        beta, up = messages.beta[index], messages.up[index]
        if beta is None or up is None:
            continue
        above = pools[layer.above].index_select(0, place(layer.slots, root))
        stop = layer.start + len(layer.nodes)
        stack = None if counts is None else counts[index]
        pools[layer.home][layer.start : stop] = _spread(layer, tables.own(index), beta, up, above, stack)
    return pools


def _empty(pool: Pool, batch: int, like: Tensor) -> Tensor:
    return like.new_empty(len(pool.nodes), batch, pool.states)


def marginals(tables: Tables, observed: Tensor) -> list[Tensor]:
    """p(s_i given the seen) of each node, each (batch, states); zeros where the seen is impossible."""
    tree, messages = tables.tree, upward(tables, observed)
    root = posterior(messages.root)
    pools = _pools_down(tables, messages, root, None)
    found: list[Tensor] = [root] * len(tree)
    for pool, values in zip(tree.pools, pools, strict=True):
        for slot, node in enumerate(pool.nodes.tolist()):
            found[node] = values[slot]
    for index, layer in enumerate(tree.layers):
        if not layer.leaf:
            continue
        below = torch.bmm(pools[layer.above].index_select(0, place(layer.slots, root)), tables.own(index))
        states = torch.arange(layer.shape[1], device=root.device)
        for slot, node in enumerate(layer.nodes.tolist()):
            seen = observed[:, node, None]
            exact = (seen == states) * (root.sum(1, keepdim=True) > 0)
            found[node] = torch.where(seen < 0, below[slot], exact.to(root.dtype))
    return found


def count(tables: Tables, observed: Tensor, weight: Tensor | None, rows: list[Tensor], root: Tensor) -> Tensor:
    r"""Add the expected counts of some images, $\sum_{\mathrm{images}} p(s_p, s_i \mid \mathrm{seen})$.

    Args:
        tables: The law.
        observed: State of each node, (batch, nodes); -1 where hidden.
        weight: Weight of each image, (batch,).
        rows: The counts, changed in place: for a layer of leaves by row as in ``Tables.rows`` (where the last rows
            count the posteriors over hidden leaves, not yet spread over their tokens), else like the stack.
        root: Counts of the root, changed in place.

    Returns:
        log p(seen), (batch,).
    """
    tree, messages = tables.tree, upward(tables, observed)
    above = posterior(messages.root)
    if weight is not None:
        above = above * weight[:, None].to(above.dtype)
    pools = _pools_down(tables, messages, above, rows)
    root += above.sum(0)
    for index, layer in enumerate(tree.layers):
        if not layer.leaf:
            continue
        keys, pool = _keys(layer, observed), pools[layer.above]
        for bag in layer.bags:
            whole = np.array_equal(bag.slots, np.arange(len(pool)))
            source = (pool if whole else pool[place(bag.slots, pool)]).flatten(0, 1)
            for column in bag.columns.T:
                rows[index].index_add_(0, keys[:, place(column, keys)].T.reshape(-1), source)
    return log_prob(messages)


def descend(
    tables: Tables,
    messages: Messages,
    observed: Tensor,
    choose: Callable[[Tensor], Tensor],
    virtual: VirtualEvidence | None = None,
) -> Tensor:
    """Choose the hidden states from the root to the leaves, each given its parent and all that is seen below.

    Args:
        tables: The law.
        messages: The upward pass of the same evidence.
        observed: State of each node, (batch, nodes); -1 where hidden.
        choose: One state from each row of unnormalised log probabilities.
        virtual: That of the upward pass.

    Returns:
        The state of each node, (batch, nodes), the seen ones unchanged.

    Raises:
        DataError: If the law gives the evidence probability 0.
    """
    if torch.isneginf(messages.root.amax(1)).any():
        raise DataError(
            "hidden states can be found only for evidence that the law allows, got evidence of probability 0: "
            "give the tables a prior strength > 0, or hide the contradicting nodes"
        )
    states = observed.clone()
    states[:, 0] = choose(messages.root)
    for index, layer in enumerate(tables.tree.layers):
        stack, nodes = tables.stacks[index], place(layer.nodes, observed)
        key = place(layer.table, observed) * layer.shape[0] + states[:, place(layer.parents, observed)]
        image, slot = (observed[:, nodes] < 0).nonzero(as_tuple=True)
        beta, flat = messages.beta[index], stack.flatten(0, 1)
        if beta is None and virtual is not None:
            beta = _leaf_beta(layer, virtual, observed)
        for part in _parts(len(image), 4 * layer.shape[1] * 8):
            log = flat[key[image[part], slot[part]]].log()
            if beta is not None:
                log = log + beta[slot[part], image[part]]
            states[image[part], nodes[slot[part]]] = choose(log)
    return states


def _leaf_beta(layer: Layer, virtual: VirtualEvidence, observed: Tensor) -> Tensor | None:
    """Virtual evidence of a layer of leaves, (nodes, batch, states); None where there is none."""
    slots, log = virtual.of(layer, observed)
    if len(slots) == 0:
        return None
    return log.new_zeros(len(layer.nodes), *log.shape[1:]).index_copy_(0, place(slots, log), log)


def largest(log: Tensor) -> Tensor:
    """The likeliest state of each row."""
    return log.argmax(1)


def draw(log: Tensor, *, generator: torch.Generator) -> Tensor:
    """An exact draw from each row of unnormalised log probabilities: one uniform number, never a state of weight 0."""
    weight = (log - log.amax(1, keepdim=True)).double().exp()
    total = weight.cumsum(1)
    uniform = torch.rand(len(log), 1, generator=generator, dtype=torch.float64, device=log.device)
    return torch.searchsorted(total, uniform * total[:, -1:], right=True)[:, 0]
