"""Styles: a few latent ways to write each class, found by counting again and again."""

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float, Int64
from scipy.sparse import csr_array, vstack
from torch.nn import functional

from renorm.errors import DataError, RecipeError
from renorm.tokens.codebooks.codebook import Codebook
from renorm.tokens.trees.counts import SOFT, Counts
from renorm.tokens.trees.tree import Tree, TreeLaw
from renorm.tokens.trees.tree_counts import TreeCounts

__all__ = ["Styles", "share_counts"]

_SETTLED = 0.005  # part of the images that may still change their style when recounting stops
_FAINT = 0.5  # counts given to each token, and to each style, beforehand
_BATCH = 4096


class Styles:
    r"""Each class has some styles; given class and style the tokens are independent.

    $$ p(c, s, z) = p(c)\, p(s \mid c) \prod_p \theta_{csp z_p} $$

    Hard EM, within each class: count the tokens of each style, give each image its likeliest style, count again. The
    counts n are whole numbers. Tables lean on coarser ones, style on class on no class, and on their neighbours on the
    grid of tokens, since a stroke may stand a site aside:

    $$ N_{csp} = \sum_q w_{pq} n_{csq}, \quad m_p \propto \sum_{cs} N_{csp} + \tfrac12, \quad
       t_{cp} = \frac{\sum_s N_{csp} + \kappa m_p}{\sum_{sk} N_{cspk} + \kappa}, \quad
       \theta_{csp} = \frac{N_{csp} + \lambda t_{cp}}{\sum_k N_{cspk} + \lambda} $$

    w is 1 at p itself, ``share`` at the next token in its row or column, and ``share`` squared across the corner.

    Soft EM goes on from there: each image counts in every style of its class (of all classes, where its label is
    unknown) by the posterior $p(s \mid c, z)$, in whole multiples of $2^{-20}$ that sum to 1, so that counts still add
    in any order.

    Args:
        styles: Of each class.
        share: $w \ge 0$ of the next token; needs a codebook with a grid, 0: every position for itself.
        strength: $\lambda > 0$, counts by which a style leans on its class.
        backoff: $\kappa > 0$, counts by which a class leans on the mean of all classes.
        recounts: Most rounds of counting.
        soft: Whether images are shared among styles, in as many more rounds.

    Attributes:
        tree: Class, style, tokens.
        counts: n, and the counts of classes and styles.

    Raises:
        RecipeError: If a value is out of range.

    Source:
        Huang 1998, Data Min. Knowl. Discov. 2, 283 (k-modes, from which the first styles are taken); Nigam,
        McCallum, Thrun, Mitchell 2000, Mach. Learn. 39, 103 (images without labels).

    Example:
        >>> from renorm.tokens.codebooks.values import ValueCodebook
        >>> tokens = np.array([[0, 0, 0], [1, 1, 1], [0, 1, 0], [0, 1, 0]])  # class 0 is written in two ways
        >>> labels, book = np.array([0, 0, 1, 1]), ValueCodebook((1, 1, 3), bins=2)
        >>> law = Styles(styles=2, share=0.0).fit(book, tokens, labels, 2, None, seed=0).law()
        >>> law.root_log_prob(law.observe(torch.tensor([[1, 1, 1], [0, 1, 0]]))).argmax(1)
        tensor([0, 1])
    """

    kind = "styles"

    def __init__(
        self,
        *,
        styles: int = 48,
        share: float = 0.5,
        strength: float = 20.0,
        backoff: float = 10.0,
        recounts: int = 8,
        soft: bool = False,
    ) -> None:
        if styles < 1 or recounts < 1:
            raise RecipeError(f"styles and recounts must be >= 1, got {styles} and {recounts}")
        if share < 0:
            raise RecipeError(f"share must be >= 0 (it weighs the counts of neighbours), got {share}")
        if min(strength, backoff) <= 0:
            raise RecipeError(
                f"strength and backoff must be > 0 (else a token not seen yet rules a style out), got {strength} "
                f"and {backoff}"
            )
        self.styles, self.share, self.recounts = styles, share, recounts
        self.strength, self.backoff, self.soft = strength, backoff, soft
        self.tree = Tree(np.array([-1]), np.array([1]), np.array([], np.int64))
        self.counts = TreeCounts.empty(self.tree)
        self._known: tuple[TreeCounts, TreeLaw] | None = None

    def fit(
        self,
        codebook: Codebook,
        tokens: Int64[np.ndarray, "number positions"],
        labels: Int64[np.ndarray, " number"],
        num_classes: int,
        weight: Float[np.ndarray, " number"] | None = None,
        *,
        seed: int,
    ) -> "Styles":
        """Find the styles, then count.

        Args:
            codebook: Gives the number of tokens, and the grid.
            tokens: -1 where hidden.
            labels: Class of each image, -1 where unknown: these take their likeliest class and style in each round.
            num_classes: Number of classes.
            weight: How often each image counts.
            seed: Of the images that the styles start from.

        Raises:
            DataError: If no image at all has a label, and there are classes to tell apart.
            RecipeError: If the codebook does not suit.
        """
        self._grow(codebook, num_classes)
        known = np.zeros_like(labels) if num_classes == 1 else labels
        guessed = known < 0
        classes = self._first_classes(tokens, known, weight)
        style = np.zeros_like(classes)
        tables = self._class_tables(self._count(tokens, classes, num_classes, weight))
        for c in range(num_classes):
            of_class = np.flatnonzero(classes == c)
            w = None if weight is None else weight[of_class]
            generator = np.random.default_rng([seed, c])
            style[of_class] = self._separate(tokens[of_class], tables[:, :, c : c + 1], w, generator)
        self._recount(tokens, classes, classes * self.styles + style, weight)
        if self.soft:
            return self._soften(tokens, known, weight)
        for _ in range(self.recounts if guessed.any() else 0):
            before = classes
            classes, style = self._likeliest(tokens, known)
            self._recount(tokens, classes, style, weight)
            if (classes != before).mean() < _SETTLED:
                break
        return self

    def add(
        self,
        tokens: Int64[np.ndarray, "number positions"],
        labels: Int64[np.ndarray, " number"],
        weight: Float[np.ndarray, " number"] | None = None,
    ) -> "Styles":
        """Count more images, each in its likeliest style (and class, where it has no label), or in all if soft."""
        before = self.counts
        if self.soft:
            self._share_out(tokens, self._posterior(tokens, labels), weight)
        else:
            self._recount(tokens, *self._likeliest(tokens, labels), weight)
        self.counts = before + self.counts
        return self

    def states(
        self, tokens: Int64[np.ndarray, "number positions"], labels: Int64[np.ndarray, " number"]
    ) -> Int64[np.ndarray, "number nodes"]:
        """Class and tokens as they are; the style is hidden."""
        return np.concatenate([labels[:, None], np.full((len(labels), 1), -1), tokens], axis=1)

    def law(self) -> TreeLaw:
        """The law of the predictive probabilities."""
        if self._known is None or self._known[0] is not self.counts:
            self._known = None  # tables are large: the old ones go before the new ones come
            self._known = (self.counts, self._smoothed())
        return self._known[1]

    @property
    def lossless(self) -> bool:
        """Tokens leave the style open."""
        return False

    @property
    def coarse_nodes(self) -> list[tuple[Int64[np.ndarray, " nodes"], tuple[int, int]]]:
        """The style, the only node between tokens and class."""
        return [(np.array([1]), (1, 1))]

    def state(self) -> dict[str, np.ndarray]:
        """Arrays to store; ``restore`` reads them."""
        return self.counts.state()

    def restore(self, codebook: Codebook, num_classes: int, state: Mapping[str, np.ndarray]) -> "Styles":
        """Read what ``state`` gave."""
        self._grow(codebook, num_classes)
        self.counts = TreeCounts.from_state(state)
        return self

    def _grow(self, codebook: Codebook, num_classes: int) -> None:
        sizes, self._grid = codebook.sizes, codebook.grid
        if (sizes != sizes[0]).any():
            raise RecipeError(
                f"styles need as many tokens at each position (their tables are one stack), got {sizes.min()} ... "
                f"{sizes.max()}; choose another codebook or law"
            )
        if self.share > 0 and self._grid is None:
            raise RecipeError(
                f"share > 0 needs a codebook with a grid (else no token has neighbours), got {self.share}"
            )
        above = [num_classes, num_classes * self.styles]
        self.tree = Tree(
            np.array([-1, 0, *[1] * len(sizes)]), np.array([*above, *sizes]), leaves=np.arange(2, 2 + len(sizes))
        )

    def _first_classes(self, tokens: np.ndarray, labels: np.ndarray, weight: np.ndarray | None) -> np.ndarray:
        """Labels; where there is none the likeliest class without styles, first by the labelled images, then by all."""
        guessed = labels < 0
        if guessed.all():
            raise DataError(
                f"at least one image must have a label (classes have no meaning else), got {len(labels)} without"
            )
        classes = labels
        for _ in range(2 if guessed.any() else 0):
            n = self._count(tokens, classes, int(self.tree.states[0]), weight)
            score = _scores(tokens[guessed], np.log(self._class_tables(n)))
            classes = labels.copy()
            classes[guessed] = (score + np.log(n.sum(axis=(0, 1)) + _FAINT)).argmax(axis=1)
        return classes

    def _separate(
        self, tokens: np.ndarray, base: np.ndarray, weight: np.ndarray | None, generator: np.random.Generator
    ) -> np.ndarray:
        """Style of each image of one class: by the most tokens in common with an exemplar, then by recounting."""
        number = min(self.styles, len(tokens))
        if number <= 1:
            return np.zeros(len(tokens), np.int64)
        exemplars = tokens[generator.choice(len(tokens), number, replace=False)]
        same = np.zeros((*base.shape[:2], number), np.float32)
        for p, names in enumerate(exemplars.T):
            same[p, names[names >= 0], np.flatnonzero(names >= 0)] = 1
        style = _scores(tokens, same).argmax(axis=1)
        for _ in range(self.recounts):
            n = self._count(tokens, style, number, weight)
            size = np.bincount(style, weight, number)
            tables = _lean(share_counts(n, self._grid, self.share), base, self.strength, axis=1)
            before, style = style, (_scores(tokens, np.log(tables)) + np.log(size + _FAINT)).argmax(axis=1)
            if (style != before).mean() < _SETTLED:
                break
        return style

    def _count(self, tokens: np.ndarray, group: np.ndarray, groups: int, weight: np.ndarray | None) -> np.ndarray:
        """Counts (positions, tokens, groups); what is hidden, or in no group, counts nothing."""
        size = int(self.tree.states[-1])
        n = np.empty((tokens.shape[1], size, groups), np.float32)
        for p, names in enumerate(tokens.T):
            seen = (names >= 0) & (group >= 0)
            w = None if weight is None else weight[seen]
            n[p] = np.bincount(names[seen] * groups + group[seen], w, size * groups).reshape(size, groups)
        return n

    def _class_tables(self, n: np.ndarray) -> np.ndarray:
        """t, from counts (positions, tokens, classes)."""
        shared = share_counts(n, self._grid, self.share)
        mean = shared.sum(axis=2, keepdims=True) + np.float32(_FAINT)
        return _lean(shared, mean / mean.sum(axis=1, keepdims=True), self.backoff, axis=1)

    def _recount(self, tokens: np.ndarray, classes: np.ndarray, style: np.ndarray, weight: np.ndarray | None) -> None:
        states = np.concatenate([classes[:, None], style[:, None], tokens], axis=1)
        self.counts = TreeCounts.of(self.tree, states, weight)

    def _likeliest(self, tokens: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Class and style of each image; a known label stays."""
        known = self.law()
        law = TreeLaw(known.tree, known.root, known.tables)  # a law keeps logarithms of its tables: these go at once
        states = law.most_probable(torch.from_numpy(self.states(tokens, labels)))
        return states[:, 0].numpy(), states[:, 1].numpy()

    def _soften(self, tokens: np.ndarray, labels: np.ndarray, weight: np.ndarray | None) -> "Styles":
        """Rounds of soft EM, until the posteriors have settled."""
        posterior = None
        for _ in range(self.recounts):
            before, posterior = posterior, self._posterior(tokens, labels)
            self._share_out(tokens, posterior, weight)
            if before is not None and abs(posterior - before).sum() / 2 < _SETTLED * len(tokens):
                break
        return self

    def _posterior(self, tokens: np.ndarray, labels: np.ndarray) -> csr_array:
        """Probability of each class and style of each image given its tokens, (number, classes * styles)."""
        law = self.law()
        styles = self.styles
        prior = (law.root @ law.tables[0][0]).float()
        leaves = np.arange(tokens.shape[1]) + 1
        star = Tree(np.append(-1, np.zeros_like(leaves)), self.tree.states[1:], leaves)
        flat = TreeLaw(star, prior / prior.sum(), law.tables[1:])
        parts = [csr_array((0, len(prior)))]
        for start in range(0, len(tokens), _BATCH):
            joint = flat.root_log_prob(flat.observe(torch.from_numpy(tokens[start : start + _BATCH])))
            known = torch.from_numpy(labels[start : start + _BATCH])[:, None]
            barred = (known >= 0) & (known != torch.arange(len(prior)) // styles)
            parts.append(csr_array(_whole_units(joint.double().masked_fill(barred, -torch.inf).softmax(-1).numpy())))
        return vstack(parts, format="csr")

    def _share_out(self, tokens: np.ndarray, posterior: csr_array, weight: np.ndarray | None) -> None:
        """Count each image in all its styles."""
        image, state = posterior.nonzero()
        share = posterior.data if weight is None else posterior.data * weight[image]
        states = np.empty((len(image), 2 + tokens.shape[1]), np.int64)
        states[:, 0], states[:, 1] = state // self.styles, state
        states[:, 2:] = tokens[image]
        self.counts = TreeCounts.of(self.tree, states, share)

    def _smoothed(self) -> TreeLaw:
        classes, styles = int(self.tree.states[0]), self.styles
        root = torch.from_numpy(self.counts.root.dense()[0, 0]) + _FAINT
        own = torch.block_diag(*[torch.full((1, styles), _FAINT)] * classes).double()
        style = torch.from_numpy(self.counts.layers[0].dense()) + own
        theta = _dense(self.counts.layers[1])  # (positions, classes * styles, tokens)
        n = theta.reshape(len(theta), classes, styles, -1).sum(axis=2).transpose(0, 2, 1)
        t = self._class_tables(n).transpose(0, 2, 1)
        for c in range(classes):
            of_class = slice(c * styles, (c + 1) * styles)
            shared = share_counts(theta[:, of_class], self._grid, self.share)
            theta[:, of_class] = _lean(shared, t[:, c : c + 1], self.strength, axis=2)
        tables = [(style / style.sum(-1, keepdim=True)).float(), torch.from_numpy(theta)]
        return TreeLaw(self.tree, (root / root.sum()).float(), tables)


def share_counts(
    n: Float[np.ndarray, "positions *rest"], grid: tuple[int, int] | None, share: float
) -> Float[np.ndarray, "positions *rest"]:
    r"""Counts of each position with those of its neighbours on the grid.

    $$ N_p = \sum_q w_{pq} n_q, \qquad w = (\text{share}, 1, \text{share}) \text{ along rows} \otimes
       \text{the same along columns} $$

    Args:
        n: Counts, positions row by row.
        grid: Rows and columns.
        share: Weight of the next row or column.

    Example:
        >>> share_counts(np.array([0.0, 4.0, 0.0, 0.0]), (2, 2), 0.5)
        array([2., 4., 1., 2.])
    """
    if share == 0 or grid is None:
        return n
    out = n.reshape(*grid, *n.shape[1:])
    for axis in (0, 1):
        lines = out.swapaxes(0, axis)
        total = out.copy()
        moved = total.swapaxes(0, axis)
        moved[1:] += share * lines[:-1]
        moved[:-1] += share * lines[1:]
        out = total
    return out.reshape(n.shape)


def _lean(n: np.ndarray, base: np.ndarray, strength: float, *, axis: int) -> np.ndarray:
    total = n.sum(axis=axis, keepdims=True) + n.dtype.type(strength)
    return (n + n.dtype.type(strength) * base) / total


def _scores(tokens: np.ndarray, log_tables: np.ndarray) -> np.ndarray:
    """Sum over positions of log_tables[p, token at p], (number, groups); a hidden token adds nothing."""
    positions, size, groups = log_tables.shape
    rows = torch.from_numpy(np.ascontiguousarray(log_tables, dtype=np.float32).reshape(positions * size, groups))
    out = []
    for start in range(0, len(tokens), _BATCH):
        names = tokens[start : start + _BATCH]
        place = torch.from_numpy(np.maximum(names, 0) + np.arange(positions) * size)
        seen = torch.from_numpy((names >= 0).astype(np.float32)) if names.min() < 0 else None
        out.append(functional.embedding_bag(place, rows, mode="sum", per_sample_weights=seen).numpy())
    return np.concatenate(out) if out else np.empty((0, groups), np.float32)


def _whole_units(p: np.ndarray) -> np.ndarray:
    """Distributions in whole multiples of the unit of counts; what rounding leaves over goes to the likeliest."""
    out = np.rint(p / SOFT)
    rows = np.arange(len(p))
    out[rows, p.argmax(axis=1)] += 1 / SOFT - out.sum(axis=1)
    return np.asarray(out * SOFT)


def _dense(counts: Counts) -> np.ndarray:
    """Counts as float32: half of what ``Counts.dense`` takes, and these are the largest tables of the law."""
    flat = np.zeros(int(np.prod(counts.shape)), np.float32)
    flat[counts.keys] = counts.values * counts.unit
    return flat.reshape(counts.shape)
