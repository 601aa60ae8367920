"""Which tokens become the children of one parent, where they lie on no grid: by place, or by what they say of others.

Square blocks of a regular grid, overlapping or not, are ``renorm.tokens.families.structure.Blocks``.
"""

import math

import numpy as np
from jaxtyping import Float, Int, Int64

from renorm.errors import DataError, RecipeError

__all__ = ["centroid_lattice", "groups_by_information", "groups_by_place", "halving_edges", "pair_information"]

FAINT = math.exp(-16)  # entries of an eigenvector below this belong to other groups


def halving_edges(locations: Float[np.ndarray, "tokens axes"]) -> tuple[int, ...]:
    r"""Edges of the lattices that halve a set of locations, again and again, until one group is left.

    With U different locations, $n = \lceil \sqrt{U / 4} \rceil$ in two dimensions and $\lceil U / 2 \rceil$ in one.

    Returns:
        Edges of the lattices of groups, finest first; the last is 1.

    Raises:
        DataError: If there is no location.

    Example: an 8 x 8 grid, however many tokens share a place.
        >>> rows, columns = np.divmod(np.arange(64.0), 8)
        >>> halving_edges(np.stack([rows, columns], axis=1))
        (4, 2, 1)
    """
    if not len(locations):
        raise DataError("grouping needs at least one token with a location, got none")
    edges: list[int] = []
    while not edges or edges[-1] > 1:
        places = np.unique(locations, axis=0)
        axes = max(1, int((np.ptp(places, axis=0) > 0).sum()))
        edge = math.ceil((len(places) / 2**axes) ** (1 / axes) - 1e-9)
        if edges:
            edge = min(edge, edges[-1] - 1)  # locations in general position: still end
        group = groups_by_place(locations, edge)
        locations = np.stack([locations[group == g].mean(axis=0) for g in range(group.max() + 1)])
        edges.append(1 if len(locations) == 1 else edge)
    return tuple(edges)


def centroid_lattice(locations: Float[np.ndarray, "tokens axes"], edge: int) -> Float[np.ndarray, "points axes"]:
    """Centres of ``edge`` equal cells along each axis of the bounding box, in the order of rows.

    Example:
        >>> centroid_lattice(np.array([[0.0, 0.0], [0.0, 4.0]]), 2).tolist()
        [[0.0, 1.0], [0.0, 3.0]]
    """
    low, span = locations.min(axis=0), np.ptp(locations, axis=0)
    cells = [edge if width > 0 else 1 for width in span]
    axes = [a + (np.arange(n) + 0.5) * width / n for a, width, n in zip(low, span, cells, strict=True)]
    return np.stack([part.reshape(-1) for part in np.meshgrid(*axes, indexing="ij")], axis=1)


def groups_by_place(locations: Float[np.ndarray, "tokens axes"], edge: int) -> Int64[np.ndarray, " tokens"]:
    """Group of each token: the nearest point of a lattice over the bounding box, the first of them in a tie.

    Args:
        locations: Where the tokens are.
        edge: Points of the lattice along each axis.

    Returns:
        Groups, numbered in the order of the lattice's rows; points that no token is near to get no number.

    Raises:
        RecipeError: If ``edge`` is below 1.

    Example:
        >>> groups_by_place(np.array([[0.0], [1.0], [2.0], [3.0]]), 2).tolist()
        [0, 0, 1, 1]
    """
    if edge < 1:
        raise RecipeError(f"a lattice of groups needs an edge >= 1, got {edge}")
    points = centroid_lattice(locations, edge)
    distance = ((locations[:, None] - points) ** 2).sum(axis=-1)
    nearest = (distance <= distance.min(axis=1, keepdims=True) + 1e-9).argmax(axis=1)
    return np.unique(nearest, return_inverse=True)[1].reshape(-1).astype(np.int64)


def pair_information(
    tokens: Int[np.ndarray, "number tokens"], others: Int[np.ndarray, "number others"] | None = None
) -> Float[np.ndarray, "tokens others"]:
    r"""Mutual information of every two tokens, in nats; rows and columns of a token that never changes are 0.

    $$ I_{ij} = \sum_{ab} P_{ij}(a, b) \ln\frac{P_{ij}(a, b)}{P_i(a) P_j(b)} $$

    Args:
        tokens: Of each image, or frame.
        others: What j runs over, those of the next frame say; the same tokens, if not told.

    Raises:
        DataError: If there is no image, or a hidden token.

    Example: a copy says all, ln 2; an independent token nothing.
        >>> pair_information(np.array([[0, 0, 0], [0, 0, 1], [1, 1, 0], [1, 1, 1]])).round(3)[0].tolist()
        [0.693, 0.693, 0.0]
    """
    others = tokens if others is None else others
    number = len(tokens)
    if number == 0 or min(tokens.min(), others.min()) < 0:
        raise DataError("information needs images without hidden tokens, got a hidden one (-1) or no image")
    (one, rows), (other, columns) = _one_hot(tokens), _one_hot(others)
    joint = (one.T @ other).astype(np.float64) / number
    apart = np.outer(one.mean(axis=0, dtype=np.float64), other.mean(axis=0, dtype=np.float64))
    terms = joint * np.log(np.where(joint > 0, joint, 1.0) / np.where(joint > 0, apart, 1.0))
    return np.asarray(np.add.reduceat(np.add.reduceat(terms, rows, axis=0), columns, axis=1))


def _one_hot(
    tokens: Int[np.ndarray, "number tokens"],
) -> tuple[Float[np.ndarray, "number states"], Int64[np.ndarray, " tokens"]]:
    """Which state each token has, as 0 and 1 (float32 counts exactly up to 2^24); where those of each begin."""
    start = np.concatenate([[0], np.cumsum(tokens.max(axis=0) + 1)])
    hot = np.zeros((len(tokens), start[-1]), np.float32)
    np.put_along_axis(hot, tokens + start[:-1], 1.0, axis=1)
    return hot, start[:-1]


def groups_by_information(information: Float[np.ndarray, "tokens tokens"], size: int) -> Int64[np.ndarray, " tokens"]:
    r"""Group of each token: those that load most on the first eigenvector of what tokens say of each other.

    Find the principal eigenvector e of the information among the tokens left, take the (at most) ``size`` ones with the
    largest $|e_i| > e^{-16}$, begin again with the rest.

    Args:
        information: Mutual information of every two tokens, nats.
        size: Most tokens of a group.

    Returns:
        Groups in the order in which they are found, so the one that hangs together most is 0.

    Raises:
        RecipeError: If ``size`` is below 1.

    Example:
        >>> groups_by_information(np.array([[1, 0, 0.9], [0, 0.5, 0], [0.9, 0, 1]]), 2).tolist()
        [0, 1, 0]
    """
    if size < 1:
        raise RecipeError(f"a group needs room for at least one token, got size {size}")
    group = np.full(len(information), -1, np.int64)
    left = np.arange(len(information))
    while len(left):
        loading = np.abs(np.linalg.eigh(information[np.ix_(left, left)])[1][:, -1])
        order = np.argsort(-loading.round(12), kind="stable")
        chosen = order[: min(size, int((loading > FAINT).sum()))]
        group[left[chosen]] = group.max() + 1
        left = np.delete(left, chosen)
    return group
