r"""Grey values at the leaves of a tree of hidden tokens: the pixel model, learned by recounting.

A latent token $h_i$ stands behind each pixel $x_i$, and the latents form a tree that follows the mutual information
of the pixels (a hidden Chow-Liu tree),

$$p(x) = \sum_h p(h_0) \prod_{i > 0} p(h_i \mid h_{\mathrm{parent}(i)}) \prod_i p(x_i \mid h_i) .$$

Nothing here follows a gradient. Latents start as clusters of each pixel's surroundings, and are then recounted: each
batch of images adds its expected counts to what earlier batches left, which fade. The 256 grey values of a pixel are
too many to count for each latent state; so a row of grey values leans on a mixture of a few *shades*, laws of grey
values that all pixels share.

Source:
    Chow, Liu, IEEE Trans. Inf. Theory 14, 462 (1968); Cappé, Moulines, J. R. Stat. Soc. B 71, 593 (2009);
    Liu, Van den Broeck, NeurIPS (2021) [hidden Chow-Liu trees].
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Integer
from torch import Tensor
from torch.nn import functional

from renorm.errors import DataError, RecipeError
from renorm.tokens.families.pixel_tree import block_tree, chow_liu, latent_tree
from renorm.tokens.trees.inference import Tables, chunks, count
from renorm.tokens.trees.shape import Tree
from renorm.tokens.trees.tree import TreeLaw

__all__ = ["HiddenPrior", "block_tree", "chow_liu", "fit_hidden_tree", "latent_tree"]

Progress = Callable[[int, int, float], None]


@dataclass(frozen=True)
class HiddenPrior:
    """How much a table leans on coarser ones, in pseudo-counts, and how fast early counts fade.

    Args:
        grey: Weight, in each row of grey values, of the mixture of shades.
        shades: Number of laws of grey values that the pixels share.
        step: Weight of each state of a parent for the child's marginal.
        fade: Batch t enters with weight max(floor, (t + 2)**-fade).
        floor: The least weight of a batch.
    """

    grey: float = 1000.0
    shades: int = 24
    step: float = 2.0
    fade: float = 0.7
    floor: float = 0.05

    def __post_init__(self) -> None:
        """Refuse what makes no law."""
        if not (self.grey > 0 and self.step > 0):
            raise RecipeError(f"grey and step must be > 0 (else rows never seen are no law), got {self}")
        if self.shades < 3:
            raise RecipeError(f"shades must be >= 3 (black, and two to mix), got {self.shades}")
        if not (0.5 < self.fade <= 1 and 0 < self.floor <= 1):
            raise RecipeError(f"fade must be in (0.5, 1] and floor in (0, 1], got {self.fade} and {self.floor}")


@dataclass
class _Statistics:
    """Mean expected counts of an image, and of how many images they speak.

    Stacks of leaves stand by row, as in ``inference.Tables.rows``: (pixels * greys + pixels, states).
    """

    tree: Tree
    root: Tensor
    stacks: list[Tensor]
    images: float = 0.0

    @classmethod
    def empty(cls, tree: Tree) -> "_Statistics":
        stacks = []
        for layer in tree.layers:
            rows = (layer.tables * (layer.shape[1] + 1), layer.shape[0])
            stacks.append(torch.zeros(rows if layer.leaf else (layer.tables, *layer.shape)))
        return cls(tree, torch.zeros(int(tree.states[0])), stacks)

    def blend(self, batch: "_Statistics", weight: float, most: float) -> None:
        """Let a batch (of sums, not means) enter with a weight, the earlier ones fade."""
        for mine, new in zip((self.root, *self.stacks), (batch.root, *batch.stacks), strict=True):
            mine.mul_(1 - weight).add_(new, alpha=weight / batch.images)
        old = (1 - weight) ** 2 / self.images if self.images else 0.0
        self.images = min(most, 1 / (old + weight**2 / batch.images))

    def counts(self, index: int) -> Tensor:
        """Counts of a layer: leaves as (pixels, greys, states), others (nodes, states of the parent, states)."""
        return self.sums(index) * self.images

    def sums(self, index: int) -> Tensor:
        """The same before they are scaled to the number of images."""
        layer, stack = self.tree.layers[index], self.stacks[index]
        if not layer.leaf:
            return stack
        return stack[: layer.tables * layer.shape[1]].view(layer.tables, layer.shape[1], layer.shape[0])


class _Shades:
    r"""Laws of grey values that all pixels share, and how each latent state mixes them.

    $$\mathrm{base}_i(x \mid s) = \sum_k m_i(k \mid s)\, b(x \mid k)$$

    One step of expectation and maximisation for m and b at fixed counts; it never lowers their likelihood.
    """

    def __init__(self, tree: Tree, values: np.ndarray, shades: int) -> None:
        self.layers = [index for index, layer in enumerate(tree.layers) if layer.leaf]
        greys = int(tree.states[tree.leaves].max())
        self.laws = torch.from_numpy(_quantile_bumps(values, greys, shades)).float()
        self.mixing = {
            index: torch.full((tree.layers[index].tables, shades, tree.layers[index].shape[0]), 1 / shades)
            for index in self.layers
        }

    def step(self, statistics: _Statistics) -> None:
        laws = torch.zeros_like(self.laws)
        for index in self.layers:
            counts, mixing = statistics.counts(index), self.mixing[index]
            ratio = counts / (self.laws.T @ mixing).clamp(min=1e-20)
            laws += self.laws * torch.bmm(mixing, ratio.transpose(1, 2)).sum(0)
            mixing = mixing * (self.laws @ ratio)
            mean = mixing.sum(2, keepdim=True) + 1e-3
            mixing = mixing + mean / mean.sum(1, keepdim=True)
            self.mixing[index] = mixing / mixing.sum(1, keepdim=True)
        total = laws.sum(0) + 1.0
        laws = laws + 1e-3 * laws.sum(1, keepdim=True) * total / total.sum() + 1e-4
        self.laws = laws / laws.sum(1, keepdim=True)

    def base(self, index: int) -> Tensor:
        """The mixture for a layer of leaves, (pixels, greys, states)."""
        return self.laws.T @ self.mixing[index]


def _quantile_bumps(values: np.ndarray, greys: int, shades: int) -> np.ndarray:
    """Black, and bumps at equal steps of the rank among all other grey values."""
    number = np.bincount(values[:: max(1, len(values) // 5000)].reshape(-1), minlength=greys).astype(float) + 1e-3
    bright = np.where(np.arange(greys) > 0, number, 0.0)
    bright /= bright.sum()
    rank = bright.cumsum() - bright / 2
    centres = np.linspace(0, 1, shades - 1)[:, None]
    bumps = np.exp(-0.5 * ((rank - centres) * (shades - 2)) ** 2) * (bright + 1e-3 / greys)
    laws = np.concatenate([np.eye(1, greys), bumps]) + 1e-6 / greys
    return laws / laws.sum(1, keepdims=True)


def _law(statistics: _Statistics, shades: _Shades, prior: HiddenPrior) -> TreeLaw:
    """The tables: counts, with coarser tables behind them."""
    tree, stacks = statistics.tree, []
    for index, layer in enumerate(tree.layers):
        counts = statistics.counts(index)
        if layer.leaf:
            table = (counts + prior.grey * shades.base(index)).transpose(1, 2)
        else:
            child = counts.sum(1, keepdim=True) + 0.1
            table = counts + prior.step * child / child.sum(2, keepdim=True)
        stacks.append(table / table.sum(2, keepdim=True))
    root = statistics.root * statistics.images + 1
    return TreeLaw(tree, root / root.sum(), stacks)


def _expect(law: TreeLaw, values: np.ndarray) -> tuple[_Statistics, float]:
    """Expected counts of a batch, and its bits per pixel."""
    statistics, total = _Statistics.empty(law.tree), 0.0
    tables = Tables(law.tree, law.root, law.tables)
    observed = law.observe(torch.from_numpy(values.astype(np.int64)))
    for part in chunks(law.tree, len(values), 4):
        total += float(count(tables, observed[part], None, statistics.stacks, statistics.root).double().sum())
    statistics.images = float(len(values))
    return statistics, -total / math.log(2) / values.size


def fit_hidden_tree(
    values: Integer[np.ndarray, "images pixels"],
    tree: Tree,
    *,
    shape: tuple[int, ...],
    epochs: int | float = 1,
    batch: int = 500,
    prior: HiddenPrior | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> TreeLaw:
    r"""Learn the tables of a latent tree: cluster each latent's surroundings, then recount batch after batch.

    $$n \leftarrow (1 - \gamma_t)\, n + \gamma_t\, \mathbb{E}[\text{counts of batch } t], \qquad
      \gamma_t = \max(\text{floor}, (t + 2)^{-\text{fade}})$$

    Args:
        values: Grey values of the images, row-major, channel by channel.
        tree: Of ``latent_tree``.
        shape: (Channels,) height and width, in sites.
        epochs: Passes over the images.
        batch: Images between two updates of the tables.
        prior: How much tables lean on coarser ones.
        seed: Of the clusters and of the order of the images.
        progress: Told after each batch: batches done, batches in all, bits per pixel of the batch before it counted.

    Returns:
        The law; ``law.observe(values)`` makes evidence of images.

    Raises:
        DataError: If the images do not fit the shape or the tree, or a value is not one of its grey values.

    Example:
        >>> x = np.repeat(np.random.default_rng(0).integers(0, 2, (600, 1)), 4, axis=1)
        >>> tree = latent_tree(chow_liu(x, bins=2), 2, greys=2)
        >>> law = fit_hidden_tree(x, tree, shape=(2, 2), batch=200, prior=HiddenPrior(grey=1.0))
        >>> bool(law.log_prob(law.observe(torch.ones(1, 4, dtype=torch.int64))).exp() > 0.45)
        True
    """
    if values.shape[1] != math.prod(shape) or len(tree.leaves) != values.shape[1] or len(values) == 0:
        raise DataError(
            f"each image must have {' * '.join(map(str, shape))} pixels, one for each of the {len(tree.leaves)} "
            f"leaves, got {values.shape}"
        )
    greys = int(tree.states[tree.leaves].min())
    if values.min() < 0 or values.max() >= greys:
        raise DataError(f"grey values must be in 0..{greys - 1}, got {max(values.max(), -values.min())}")
    prior = prior or HiddenPrior()
    rng = np.random.default_rng(seed)
    event = (1, *shape) if len(shape) == 2 else shape
    statistics = _clustered(values, tree, event, rng)
    shades = _Shades(tree, values, prior.shades)
    for _ in range(8):
        shades.step(statistics)
    law = _law(statistics, shades, prior)
    steps = max(1, round(epochs * len(values) / batch))
    order = np.concatenate([rng.permutation(len(values)) for _ in range(math.ceil(epochs) + 1)])
    for step in range(steps):
        seen, bits = _expect(law, values[order[step * batch : (step + 1) * batch]])
        statistics.blend(seen, max(prior.floor, (step + 2) ** -prior.fade), float(len(values)))
        shades.step(statistics)
        law = _law(statistics, shades, prior)
        if progress:
            progress(step + 1, steps, bits)
    return law


def _clustered(
    values: np.ndarray, tree: Tree, shape: tuple[int, ...], rng: np.random.Generator, *, most: int = 4000
) -> _Statistics:
    """Counts of some images whose latents are clusters of the pixels around them."""
    values = values[rng.permutation(len(values))[:most]]
    states = _surroundings(values, tree, shape, torch.Generator().manual_seed(int(rng.integers(2**62))))
    states[:, tree.leaves] = values
    statistics = _Statistics.empty(tree)
    statistics.root += torch.bincount(torch.from_numpy(states[:, 0]), minlength=len(statistics.root)) / len(values)
    for layer, stack in zip(tree.layers, statistics.stacks, strict=True):
        for table, node, parent in zip(layer.table, layer.nodes, layer.parents, strict=True):
            above, size = layer.shape
            key = states[:, parent] * size + states[:, node]
            pairs = np.bincount(key, minlength=above * size).reshape(above, size) / len(values)
            if layer.leaf:
                stack[table * size : (table + 1) * size] = torch.from_numpy(pairs.T)
            else:
                stack[table] = torch.from_numpy(pairs)
    statistics.images = float(len(values))
    return statistics


def _surroundings(
    values: np.ndarray, tree: Tree, shape: tuple[int, ...], generator: torch.Generator, *, radius: int = 3
) -> np.ndarray:
    """State of each latent: the nearest of its clusters of windows (near sites weigh more); nodes in all, pixels 0.

    A latent sees the neighbours of its site in the channels that it stands behind, of the others the site alone.
    """
    images = torch.from_numpy(values.reshape(-1, *shape)).float() / max(1, int(values.max()))
    images = functional.pad(images, (radius,) * 4)
    place, own = _centres(tree, shape)
    offset = torch.arange(-radius, radius + 1)
    weight = torch.exp(-(offset[:, None] ** 2 + offset**2) / 9.0).reshape(-1)
    centre = torch.zeros_like(weight)
    centre[len(weight) // 2] = 1
    seen = torch.where(torch.from_numpy(own)[:, :, None], weight, centre).flatten(1)
    states = np.zeros((len(values), len(tree)), np.int64)
    for size in np.unique(tree.states[: len(place)]):
        alike = np.flatnonzero(tree.states[: len(place)] == size)
        for nodes in np.array_split(alike, math.ceil(len(alike) / 28)):
            cut = [images[..., r : r + len(offset), c : c + len(offset)].flatten(1) for r, c in place[nodes].tolist()]
            windows = torch.stack(cut) * seen[nodes][:, None]
            states[:, nodes] = _nearest(windows, int(size), generator).T.numpy()
    return states


def _centres(tree: Tree, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Mean place (row, column) of the pixels under each latent, its own if it has any, and which channels they have.

    (latents, 2), (latents, channels)
    """
    number, channels = len(tree) - len(tree.leaves), shape[0]
    channel, row, column = np.unravel_index(np.arange(len(tree.leaves)), shape)
    sites = np.column_stack([row, column, np.ones(len(row)), channel[:, None] == np.arange(channels)])
    total = np.zeros((number, 3 + channels))
    np.add.at(total, tree.parent[tree.leaves], sites)
    bare = total[:, 2] == 0
    for node in reversed(range(1, number)):
        if bare[tree.parent[node]]:
            total[tree.parent[node]] += total[node]
    return np.rint(total[:, :2] / np.maximum(total[:, 2:3], 1)).astype(np.int64), total[:, 3:] > 0


def _nearest(windows: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Cluster of each window, for each latent apart; the first cluster begins at black."""
    chosen = torch.multinomial((windows**2).sum(2) + 1e-6, size, generator=generator)
    centre = windows.gather(1, chosen[:, :, None].expand(-1, -1, windows.shape[2])).clone()
    centre[:, 0] = 0
    for round_ in range(4):
        distance = torch.baddbmm((centre**2).sum(2)[:, None], windows, centre.transpose(1, 2), alpha=-2)
        label = distance.argmin(2)
        if round_ == 3:
            break
        total = torch.zeros_like(centre).scatter_add_(1, label[:, :, None].expand_as(windows), windows)
        number = torch.zeros(centre.shape[:2]).scatter_add_(1, label, torch.ones(label.shape))[:, :, None]
        centre = torch.where(number > 0, total / number.clamp(min=1), centre)
    return label
