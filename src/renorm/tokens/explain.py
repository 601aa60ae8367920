"""Why a token hierarchy says what it says: tokens that speak for a class, evidence on the sites, looks of tokens."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64, Shaped
from torch import Tensor

from renorm.errors import DataError, RecipeError
from renorm.tokens.codebooks.codebook import Codebook
from renorm.tokens.codebooks.straighten import straighten
from renorm.tokens.token_hierarchy import TokenHierarchy
from renorm.tokens.trees.tree import TreeLaw

__all__ = [
    "ClassTokens",
    "Evidence",
    "TokenPictures",
    "evidence_map",
    "given_class",
    "speaks_for",
    "token_pictures",
    "token_windows",
    "tokens_in_place",
]

_TRIED = 16  # tokens of a position that are decoded to see which sites it touches


class ClassTokens(NamedTuple):
    """What tokens say of classes.

    Attributes:
        log_odds: For each position ln p(z | class) - ln p(z) in nats, (classes, tokens); 0 where p(z) = 0.
        positions, tokens: Those that speak most for each class, (classes, most), the loudest first.
        nats: How much they speak for it, p(z, class) (ln p(z | class) - ln p(z)).
    """

    log_odds: list[np.ndarray]
    positions: Int64[np.ndarray, "classes most"]
    tokens: Int64[np.ndarray, "classes most"]
    nats: Float64[np.ndarray, "classes most"]


class Evidence(NamedTuple):
    """Where the log-odds of a class come from, in nats; ``prior + positions.sum() + rest`` is all of them.

    Attributes:
        label: The class that is spoken for: its place in ``classes_``.
        prior: What its frequency says.
        positions: What the token of each position says.
        rest: What is paid for hidden tokens that fit the image; 0 where the class alone is above the tokens.
        image: The image as the codebook looks at it (upright, where it straightens), in [0, 1].
        sites: ``positions``, each spread over the sites that it looks at, most on the middle ones, and ``rest``, the
            part of each hidden token over the sites under it; nats/site. They add up to both.
    """

    label: int
    prior: float
    positions: Float64[np.ndarray, " positions"]
    rest: float
    image: Float[np.ndarray, "channel height width"]
    sites: Float64[np.ndarray, "height width"]


class TokenPictures(NamedTuple):
    """What tokens of one level look like, the most used first.

    Attributes:
        pictures: In [0, 1], (number, channel, height, width); NaN beyond a window smaller than the largest.
        positions, tokens: Which token is shown, and where.
        uses: How often it is expected in an image, at any position.
    """

    pictures: Float[np.ndarray, "number channel height width"]
    positions: Int64[np.ndarray, " number"]
    tokens: Int64[np.ndarray, " number"]
    uses: Float64[np.ndarray, " number"]


@torch.no_grad()
def given_class(law: TreeLaw) -> list[Tensor]:
    r"""Law of every node given the class, all between them summed out.

    $$ p(s_i \mid c) = (T_{1} T_{2} \cdots T_i)_{c\, s_i} $$

    the product of the tables down the path from the root to node i.

    Args:
        law: Any law; its root is the class.

    Returns:
        For each node (classes, states), float64; the identity for the root.

    Example:
        >>> from renorm.tokens.trees.tree import Tree
        >>> table = torch.tensor([[[0.75, 0.25], [0.25, 0.75]]])
        >>> tree = Tree(np.array([-1, 0, 1]), np.array([2, 2, 2]), leaves=np.array([2]))
        >>> given_class(TreeLaw(tree, torch.tensor([0.5, 0.5]), [table, table]))[2].tolist()
        [[0.625, 0.375], [0.375, 0.625]]
    """
    found = {0: torch.eye(len(law.root), dtype=torch.float64)}
    for layer, stack in zip(law.tree.layers, law.tables, strict=True):
        for node, parent, table in zip(layer.nodes.tolist(), layer.parents.tolist(), layer.table.tolist(), strict=True):
            found[node] = found[parent] @ stack[table].double()
    return [found[node] for node in range(len(law.tree))]


def speaks_for(model: TokenHierarchy, most: int = 8) -> ClassTokens:
    r"""The log-odds that each token gives each class, and the tokens that speak most for it.

    $$ \ell_{p}(z, c) = \ln p(z_p = z \mid c) - \ln p(z_p = z), \qquad i_p(z, c) = p(z_p = z, c)\, \ell_p(z, c) $$

    $i_p$ adds up, over tokens and classes, to the mutual information of the class and the token at p: the tokens named
    are the largest single terms, those that are common in the class and rare elsewhere.

    Args:
        model: A fitted hierarchy.
        most: How many tokens to name for each class; fewer, where there are fewer.

    Example:
        >>> from renorm.tokens.spec import PyramidSpec, ValueSpec
        >>> x, y = np.array([[[0, 1]], [[0, 0]], [[1, 1]], [[1, 0]]], np.float32), np.array([0, 0, 1, 1])
        >>> model = TokenHierarchy(ValueSpec(bins=2), PyramidSpec(levels=0)).fit(x, y)
        >>> found = speaks_for(model, most=1)  # 3/4 of class 0 are dark at the first site, half of all
        >>> found.positions[:, 0].tolist(), found.tokens[:, 0].tolist(), np.exp(found.log_odds[0][0]).round(4).tolist()
        ([0, 0], [0, 1], [1.5, 0.5])
    """
    law = model.law_
    prior = law.root.double().numpy()
    given = given_class(law)
    log_odds, said = [], []
    for node in law.tree.leaves.tolist():
        p = given[node].numpy()
        with np.errstate(divide="ignore", invalid="ignore"):
            odds = np.where(prior @ p > 0, np.log(p) - np.log(prior @ p), 0.0)
            said.append(np.where(p > 0, prior[:, None] * p * odds, 0.0))
        log_odds.append(odds)
    positions = np.repeat(np.arange(len(said)), [part.shape[1] for part in said])
    tokens = np.concatenate([np.arange(part.shape[1]) for part in said])
    nats = np.concatenate(said, axis=1)
    order = np.argsort(-nats, axis=1, kind="stable")[:, :most]
    return ClassTokens(log_odds, positions[order], tokens[order], np.take_along_axis(nats, order, axis=1))


def evidence_map(model: TokenHierarchy, x: Shaped[np.ndarray, "*event"], label: int | None = None) -> Evidence:
    r"""What each position of one image says for a class against the mean of the others.

    $$ L_c = \ln p(c \mid x) - \frac{1}{C - 1} \sum_{c' \ne c} \ln p(c' \mid x) $$

    With $q_c(s) = p(s \mid z, c)$, the law of the hidden tokens given the image and a class,

    $$ \ln p(z \mid c) = \sum_p \bigl\langle \ln p(z_p \mid s_{\mathrm{parent}(p)}) \bigr\rangle_{q_c}
       - \mathrm{KL}\bigl(q_c(s) \,\|\, p(s \mid c)\bigr) $$

    holds exactly: how well the tokens are foretold, less what it costs to fit hidden tokens to them. ``positions`` are
    the terms of the sum in $L_c$, ``rest`` is the cost's. Where tokens are independent given the class nothing is
    hidden, so the positions and the prior alone are the log-odds. On a tree the cost is a sum over hidden nodes,

    $$ -\mathrm{KL} = \sum_i \bigl\langle \ln \textstyle\sum_{s_i} p(s_i \mid s_{\mathrm{parent}(i)})
       \lambda_i(s_i) \bigr\rangle_{q_c} - \bigl\langle \ln \lambda_i(s_i) \bigr\rangle_{q_c}, \qquad
       \lambda_i(s_i) = p(\text{tokens under } i \mid s_i) $$

    so it too has its place on the sites. Each part of the likelihood is multiplied by the model's ``temper``.

    Args:
        model: A fitted hierarchy with at least two classes.
        x: One image, in the shape that ``fit`` was given.
        label: Place of the class in ``classes_``; the likeliest, if not given.

    Raises:
        DataError: If there is nothing to compare: one class, or a class (or all others) of probability 0.
    """
    log_joint = model.predict_log_joint(x[None])[0]
    classes = len(log_joint)
    label = int(log_joint.argmax()) if label is None else label
    if classes < 2 or not 0 <= label < classes:
        raise DataError(f"evidence needs a class 0 ... C - 1 of C >= 2 to compare, got {label} of {classes} classes")
    possible = np.isfinite(log_joint)
    weight = -1.0 * (possible & (np.arange(classes) != label))
    if not possible[label] or not weight.any():
        raise DataError(
            f"evidence needs a class and another of probability > 0 (else log-odds are infinite), got {log_joint}"
        )
    weight /= -weight.sum()
    weight[label] = 1.0
    tokens = torch.from_numpy(model.transform(x[None], level=1))
    each = model.temper * (weight @ np.where(possible[:, None], _node_terms(model.law_, tokens), 0.0))
    leaves = model.law_.tree.leaves
    positions = each[leaves]
    prior = float(weight @ np.where(possible, model.law_.root.double().log().numpy(), 0.0))
    total = float(weight @ np.where(possible, log_joint, 0.0))
    shape = model.pictures_.shape
    image = model.pictures_.images(x[None])
    if getattr(model.codebook_, "straighten", False):
        image = straighten(image)
    nodes = np.arange(len(each))
    windows = token_windows(model.codebook_, shape)
    sites = _painted(each[1:], _hulls(model.law_.tree.parent, leaves, nodes, windows)[1:], shape[1:])
    return Evidence(label, prior, positions, total - prior - float(positions.sum()), image[0], sites)


def token_windows(codebook: Codebook, shape: tuple[int, int, int]) -> Int64[np.ndarray, "positions 4"]:
    """The smallest rectangle that holds all sites which a position looks at: top, bottom, left, right, ends excluded.

    A position looks at a line of sites if it is no longer visible when that line is hidden. Codebooks that move sites
    (straightening) cannot say so: there it is the rectangle in which decoded tokens leave a mark.

    Args:
        codebook: A fitted one.
        shape: Channels, height, width of its images.

    Example:
        >>> from renorm.tokens.codebooks.values import ValueCodebook
        >>> token_windows(ValueCodebook((1, 2, 2)), (1, 2, 2)).tolist()
        [[0, 1, 0, 1], [0, 1, 1, 2], [1, 2, 0, 1], [1, 2, 1, 2]]
    """
    _, height, width = shape
    try:
        rows = np.stack(
            [~codebook.visible(np.broadcast_to(row, (width, height)).T) for row in ~np.eye(height, dtype=bool)]
        )
        columns = np.stack(
            [~codebook.visible(np.broadcast_to(line, (height, width))) for line in ~np.eye(width, dtype=bool)]
        )
    except RecipeError:
        return _marked(codebook, shape)
    if len(codebook.sizes) > 1 and rows.all() and columns.all():
        return _marked(codebook, shape)
    return _rectangles(rows, columns)


def token_pictures(model: TokenHierarchy, level: int, most: int = 64) -> TokenPictures:
    r"""What the most used tokens of a level look like.

    $$ \langle n_k \rangle = \sum_p p(s_p = k), \qquad p_k = \arg\max_p p(s_p = k) $$

    Shown is ``render`` of token k at $p_k$, all else hidden, cut out at the window of $p_k$: level 1 decoded, above it
    the mean of what lies below. Where all positions of a grid have equally many tokens they are the same tokens;
    else each position has its own.

    Args:
        model: A fitted hierarchy.
        level: 1: the codebook's tokens; more: those above.
        most: How many tokens to show.

    Raises:
        DataError: If there is no such level, or a token alone shows nothing (as one of many modes of a tile).
    """
    tree, coarse = model.law_.tree, model.family_.coarse_nodes
    if not 1 <= level <= 1 + len(coarse):
        raise DataError(f"pictures are of the tokens of levels 1 ... {1 + len(coarse)}, got level {level}")
    nodes = tree.leaves if level == 1 else coarse[level - 2][0]
    positions, tokens, uses = _most_used(model, nodes, most)
    y = torch.full((len(tokens), len(nodes)), -1)
    y[torch.arange(len(tokens)), torch.from_numpy(positions)] = torch.from_numpy(tokens)
    event = model.levels[level].event_shape
    assert event is not None  # levels of tokens have grids of their own
    shown = model.pictures_.images(model.render(y.reshape(len(tokens), *event), level).numpy())
    _require_marks(model.codebook_, shown)
    windows = _hulls(tree.parent, tree.leaves, nodes, token_windows(model.codebook_, model.pictures_.shape))
    return TokenPictures(_cut_out(shown, windows[positions]), positions, tokens, uses)


def tokens_in_place(
    model: TokenHierarchy, positions: Int64[np.ndarray, " number"], tokens: Int64[np.ndarray, " number"]
) -> Float[np.ndarray, "number channel height width"]:
    """Level-1 tokens decoded one by one, each on the image of its own; NaN beyond its window.

    Args:
        model: A fitted hierarchy.
        positions: Where each token stands.
        tokens: The tokens.

    Raises:
        DataError: If a token alone shows nothing.
    """
    codebook = model.codebook_
    y = np.full((len(tokens), len(codebook.sizes)), -1)
    y[np.arange(len(tokens)), positions] = tokens
    shown = codebook.decode(y)
    _require_marks(codebook, shown)
    out = np.full_like(shown, np.nan)
    windows = token_windows(codebook, model.pictures_.shape)[positions]
    for picture, image, (top, bottom, left, right) in zip(out, shown, windows, strict=True):
        picture[:, top:bottom, left:right] = image[:, top:bottom, left:right]
    return out


def _node_terms(law: TreeLaw, tokens: Tensor) -> np.ndarray:
    """What each node adds to ln p(tokens | class), (classes, nodes): leaves foretell, hidden nodes cost."""
    tree, classes = law.tree, len(law.root)
    observed = law.observe(tokens).repeat(classes, 1)
    observed[:, 0] = torch.arange(classes)
    posterior = [q.double() / q.double().sum(-1, keepdim=True).clamp_min(1e-300) for q in law.marginals(observed)]
    below = [torch.zeros(int(states), dtype=torch.float64) for states in tree.states]  # ln lambda
    terms = np.zeros((classes, len(tree)))
    for layer, stack in zip(reversed(tree.layers), reversed(law.tables), strict=True):
        for node, parent, table in zip(layer.nodes.tolist(), layer.parents.tolist(), layer.table.tolist(), strict=True):
            token = int(observed[0, node])
            if token >= 0:
                below[node] = torch.where(torch.arange(len(below[node])) == token, below[node], -torch.inf)
            message = _log_mean(stack[table].double(), below[node])
            below[parent] = below[parent] + message
            terms[:, node] = (_mean(posterior[parent], message) - _mean(posterior[node], below[node])).numpy()
    return terms


def _log_mean(table: Tensor, log_p: Tensor) -> Tensor:
    """ln sum_s table[., s] p(s), row by row: states of one class may all be a thousand nats below those of another."""
    return torch.logsumexp(table.log() + log_p, dim=-1)


def _mean(q: Tensor, value: Tensor) -> Tensor:
    """Mean over q; what has no probability counts nothing, be it infinite."""
    return torch.where(q > 0, q * value, 0.0).sum(-1)


def _painted(values: np.ndarray, windows: np.ndarray, sites: tuple[int, int]) -> np.ndarray:
    """Each value as a pyramid over its window, whose sites add up to it: flat ones would show the windows' edges."""
    out = np.zeros(sites)
    for value, (top, bottom, left, right) in zip(values, windows.tolist(), strict=True):
        rows, columns = _tent(bottom - top), _tent(right - left)
        out[top:bottom, left:right] += value * np.outer(rows, columns) / (rows.sum() * columns.sum())
    return out


def _tent(width: int) -> np.ndarray:
    """1, 2, ..., 2, 1."""
    steps = np.arange(1, width + 1)
    return np.minimum(steps, steps[::-1])


def _rectangles(rows: np.ndarray, columns: np.ndarray) -> Int64[np.ndarray, "positions 4"]:
    """Rectangles from which rows, and which columns, each position looks at: (lines, positions)."""
    ends = []
    for lines in (rows, columns):
        ends += [lines.argmax(axis=0), len(lines) - lines[::-1].argmax(axis=0)]
    return np.stack(ends, axis=1).astype(np.int64)


def _marked(codebook: Codebook, shape: tuple[int, int, int]) -> np.ndarray:
    """Rectangles of the sites that change when one position is decoded."""
    blank, number = _blank(codebook), len(codebook.sizes)
    rows, columns = np.zeros((shape[1], number), bool), np.zeros((shape[2], number), bool)
    for position, size in enumerate(codebook.sizes):
        tried = np.unique(np.linspace(0, size - 1, _TRIED).astype(np.int64))
        tokens = np.full((len(tried), number), -1)
        tokens[:, position] = tried
        changed = (codebook.decode(tokens) != blank).any(axis=(0, 1))
        rows[:, position], columns[:, position] = changed.any(axis=1), changed.any(axis=0)
    return _rectangles(rows, columns)


def _blank(codebook: Codebook) -> np.ndarray:
    return codebook.decode(np.full((1, len(codebook.sizes)), -1))


def _require_marks(codebook: Codebook, shown: np.ndarray) -> None:
    if np.array_equal(shown, np.broadcast_to(_blank(codebook), shown.shape)):
        raise DataError("a token of this codebook shows nothing by itself (only all tokens of a tile together do)")


def _most_used(model: TokenHierarchy, nodes: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Position, token and expected uses of the most used tokens of some nodes; tokens that cannot be are left out."""
    given, prior = given_class(model.law_), model.law_.root.double()
    p = [(prior @ given[node]).numpy() for node in nodes.tolist()]
    if model.codebook_.grid is not None and len({len(part) for part in p}) == 1:
        table = np.stack(p)
        positions, tokens, uses = table.argmax(axis=0), np.arange(table.shape[1]), table.sum(axis=0)
    else:
        positions = np.repeat(np.arange(len(p)), [len(part) for part in p])
        tokens, uses = np.concatenate([np.arange(len(part)) for part in p]), np.concatenate(p)
    order = np.argsort(-uses, kind="stable")[:most]
    order = order[uses[order] > 0]
    return positions[order], tokens[order], uses[order]


def _hulls(parent: np.ndarray, leaves: np.ndarray, nodes: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """The rectangle around the windows of all leaves at or under each node."""
    place = {int(node): index for index, node in enumerate(nodes)}
    hulls = np.tile(np.iinfo(np.int64).max * np.array([1, -1, 1, -1]), (len(nodes), 1))
    for leaf, window in zip(leaves.tolist(), windows, strict=True):
        node = leaf
        while node >= 0:
            if node in place:
                hull = hulls[place[node]]
                hull[::2], hull[1::2] = np.minimum(hull[::2], window[::2]), np.maximum(hull[1::2], window[1::2])
            node = int(parent[node])
    return hulls


def _cut_out(shown: np.ndarray, windows: np.ndarray) -> Float[np.ndarray, "number channel height width"]:
    """Each image cut at its window; smaller windows are filled up with NaN."""
    height, width = ((windows[:, end] - windows[:, end - 1]).max(initial=0) for end in (1, 3))
    out = np.full((*shown.shape[:2], height, width), np.nan, np.float32)
    for picture, image, (top, bottom, left, right) in zip(out, shown, windows, strict=True):
        picture[:, : bottom - top, : right - left] = image[:, top:bottom, left:right]
    return out
