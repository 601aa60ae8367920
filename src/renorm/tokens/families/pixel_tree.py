"""Which pixel hangs under which: trees over the sites of an image for the hidden tokens behind them.

Source:
    Chow, Liu, IEEE Trans. Inf. Theory 14, 462 (1968).
"""

import numpy as np
import torch
from jaxtyping import Float, Int64, Integer
from torch.nn import functional

from renorm.errors import DataError, RecipeError
from renorm.tokens.trees.shape import Tree

__all__ = ["block_tree", "chow_liu", "latent_tree", "mutual_information", "states_by_entropy"]


def mutual_information(
    values: Integer[np.ndarray, "images pixels"], *, bins: int = 4, limit: int = 10_000
) -> Float[np.ndarray, "pixels pixels"]:
    r"""Mutual information of each pair of pixels, grey values sorted into a few bins.

    $$I_{ij} = \sum_{a, b} p_{ij}(a, b) \ln \frac{p_{ij}(a, b)}{p_i(a)\, p_j(b)}$$

    The first bin is black (0); the others hold equally many of the other values.

    Args:
        values: Grey values >= 0.
        bins: Number of bins, >= 2.
        limit: Number of images to count.

    Returns:
        Nats; on the diagonal the entropy of each pixel's bins.

    Raises:
        DataError: If no image is given.

    Example:
        >>> x = np.array([[0, 0, 0], [0, 0, 9], [9, 9, 0], [9, 9, 9]])
        >>> (mutual_information(x, bins=2)[0] / np.log(2)).round(6) + 0.0
        array([1., 1., 0.])
    """
    if len(values) == 0:
        raise DataError("mutual information needs at least one image, got 0")
    values = values[:limit]
    binned = torch.from_numpy(np.searchsorted(_edges(values, bins), values))
    number, pixels = binned.shape
    joint = torch.zeros(pixels * bins, pixels * bins)
    for part in binned.split(2000):
        seen = functional.one_hot(part, bins).reshape(len(part), -1).float()
        joint.addmm_(seen.T, seen)
    plogp = torch.special.xlogy(joint, joint / number) / number
    entropy = -plogp.view(pixels, bins, pixels, bins).sum((1, 3), dtype=torch.float64)
    single = entropy.diagonal()
    return (single[:, None] + single - entropy).numpy()


def _edges(values: np.ndarray, bins: int) -> np.ndarray:
    """Upper edges of all bins but the last: 0, then quantiles of what is not 0."""
    bright = values[values > 0]
    if len(bright) == 0:
        return np.full(bins - 1, 0.5)
    every = max(1, len(bright) // 100_000)
    return np.concatenate([[0.5], np.quantile(bright[::every], np.arange(1, bins - 1) / (bins - 1)) + 0.5])


def states_by_entropy(
    values: Integer[np.ndarray, "images pixels"], most: int, *, bins: int = 4, limit: int = 10_000
) -> Int64[np.ndarray, "pixels"]:
    r"""Numbers of latent states, many only where a pixel is uncertain: the empty border is as good as known.

    A pixel whose bins have an entropy of 0.3 nats or more gets all states, from 0.02 nats a quarter (four at least),
    below that two.

    Args:
        values: Grey values >= 0.
        most: Greatest number of states, >= 2.
        bins: Number of bins of a grey value.
        limit: Number of images to count.

    Raises:
        RecipeError: If ``most`` is less than 2.

    Example:
        >>> states_by_entropy(np.array([[0, 0], [0, 9]]), 32).tolist()
        [2, 32]
    """
    if most < 2:
        raise RecipeError(f"the most states must be >= 2 (else nothing is hidden), got {most}")
    values = values[:limit]
    binned = np.searchsorted(_edges(values, bins), values)
    share = np.stack([(binned == k).mean(0) for k in range(bins)])
    entropy = -(share * np.log(np.maximum(share, 1e-300))).sum(0)
    quarter = min(most, max(4, most // 4))
    return np.select([entropy >= 0.3, entropy >= 0.02], [most, quarter], 2).astype(np.int64)


def chow_liu(
    values: Integer[np.ndarray, "images pixels"], *, bins: int = 4, limit: int = 10_000
) -> Int64[np.ndarray, "pixels"]:
    r"""The tree of pixels that keeps most mutual information, $\max \sum_{(i, j)} I_{ij}$, rooted at its centre.

    Args:
        values: Grey values >= 0.
        bins: Number of bins of a grey value.
        limit: Number of images to count.

    Returns:
        The pixel above each pixel; -1 for the root.

    Invariant:
        No path from the root is longer than half the longest path of the tree, rounded up.

    Example:
        >>> x = np.random.default_rng(0).integers(0, 2, (500, 3))
        >>> x[:, 2] = x[:, 0]; x[:, 1] = x[:, 0] * x[:, 1]
        >>> sorted(chow_liu(x, bins=2).tolist())[0]
        -1
    """
    return _rooted(_widest_tree(mutual_information(values, bins=bins, limit=limit)))


def _widest_tree(weight: np.ndarray) -> list[list[int]]:
    """Neighbours of each node in the spanning tree of greatest weight (Prim)."""
    number = len(weight)
    near: list[list[int]] = [[] for _ in range(number)]
    best, source = weight[0].copy(), np.zeros(number, np.int64)
    outside = np.ones(number, bool)
    outside[0] = False
    for _ in range(number - 1):
        node = int(np.where(outside, best, -np.inf).argmax())
        outside[node] = False
        near[node].append(int(source[node]))
        near[int(source[node])].append(node)
        better = weight[node] > best
        best, source = np.where(better, weight[node], best), np.where(better, node, source)
    return near


def _walk(near: list[list[int]], root: int) -> tuple[np.ndarray, int]:
    """Parents seen from a root, and the last (so a farthest) node of a walk in breadth."""
    parent = np.full(len(near), -1, np.int64)
    order = [root]
    for node in order:
        for other in near[node]:
            if other != parent[node]:
                parent[other] = node
                order.append(other)
    return parent, order[-1]


def _rooted(near: list[list[int]]) -> np.ndarray:
    """Parents seen from the middle of the longest path."""
    _, end = _walk(near, 0)
    parent, other = _walk(near, end)
    path = [other]
    while parent[path[-1]] >= 0:
        path.append(int(parent[path[-1]]))
    return _walk(near, path[len(path) // 2])[0]


def block_tree(
    shape: tuple[int, int], *, channels: int = 1
) -> tuple[Int64[np.ndarray, "latents"], Int64[np.ndarray, "pixels"]]:
    """A latent behind each 2 x 2 block of sites (all their channels), one behind each 2 x 2 of these, up to one.

    Args:
        shape: Height and width of the lattice, in sites.
        channels: Pixels at each site.

    Returns:
        The latent above each latent (-1 for the root), and the latent behind each pixel (by channel, row-major).

    Example:
        >>> parent, carriers = block_tree((4, 4))
        >>> parent.tolist(), carriers.reshape(4, 4)[:, ::2].tolist()
        ([-1, 0, 0, 0, 0], [[1, 2], [1, 2], [3, 4], [3, 4]])
    """
    grids = [shape]
    while max(grids[-1]) > 1:
        grids.append(((grids[-1][0] + 1) // 2, (grids[-1][1] + 1) // 2))
    blocks = grids[:0:-1] or [shape]
    first = np.cumsum([0] + [rows * columns for rows, columns in blocks])
    parent = [np.array([-1])]
    for level in range(1, len(blocks)):
        parent.append(first[level - 1] + _block(blocks[level], blocks[level - 1][1]))
    return np.concatenate(parent), np.tile(first[len(blocks) - 1] + _block(shape, blocks[-1][1]), channels)


def _block(grid: tuple[int, int], width: int) -> np.ndarray:
    """Which 2 x 2 block each site is in."""
    rows, columns = np.divmod(np.arange(grid[0] * grid[1]), grid[1])
    return rows // 2 * width + columns // 2


def latent_tree(
    parent: Int64[np.ndarray, "latents"],
    states: int | Int64[np.ndarray, "latents"],
    *,
    carriers: Int64[np.ndarray, "pixels"] | None = None,
    greys: int = 256,
) -> Tree:
    """The tree of latents and the pixels under them.

    Args:
        parent: The latent above each latent, in any order; -1 for the root.
        states: Number of states of each latent.
        carriers: The latent behind each pixel; default: pixel i hangs under latent i.
        greys: Number of grey values.

    Returns:
        Latents by their distance from the root, then the pixels in their order (``leaves``).

    Raises:
        RecipeError: If the parents make no tree.

    Example:
        >>> latent_tree(np.array([1, -1, 1]), 8).parent.tolist()
        [-1, 0, 0, 1, 0, 2]
    """
    carriers = np.arange(len(parent)) if carriers is None else carriers
    depth = np.where(parent < 0, 0, -1)
    while (depth < 0).any():
        new = (depth < 0) & (depth[parent] >= 0)
        if not new.any():
            raise RecipeError(f"parents must lead to the one root (-1), got a circle through {np.argmin(depth)}")
        depth = np.where(new, depth[parent] + 1, depth)
    order = np.argsort(depth, kind="stable")
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    above = np.where(parent[order] < 0, -1, place[parent[order]])
    sizes = np.concatenate([np.broadcast_to(states, (len(parent),))[order], np.full(len(carriers), greys)])
    leaves = len(parent) + np.arange(len(carriers))
    return Tree(np.concatenate([above, place[carriers]]), sizes.astype(np.int64), leaves=leaves)
