"""Level-1 tokens of images: overlapping windows, standardised, each named by its nearest centroid."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64, Int, Int64
from threadpoolctl import threadpool_limits

from renorm.errors import DataError, RecipeError
from renorm.tokens.codebooks.clustering import Method, cluster, nearest
from renorm.tokens.codebooks.codebook import require_tokens
from renorm.tokens.codebooks.glimpse import Glimpse
from renorm.tokens.codebooks.straighten import Pose, straighten

__all__ = ["WindowCodebook", "WindowTokens"]

_IMAGES = 64  # images whose windows are cut out together
_SPREAD = 1e-4  # variance of a site about its token's picture is no less
_FAINT = 1e-3  # part of a site that may be hidden where sites were moved
_STATE = ("centroids", "projection", "looks", "pictures", "mean", "spread")


class WindowTokens(NamedTuple):
    """Tokens, and what standardising took away.

    Attributes:
        tokens: (number, positions).
        moments: (number, positions, 2), mean and scale of each window.
    """

    tokens: Int64[np.ndarray, "number positions"]
    moments: Float32[np.ndarray, "number positions 2"]


@dataclass(kw_only=True)
class WindowCodebook:
    r"""Windows of ``window`` by ``window`` sites (of a chain: 1 by ``window``), every ``stride`` sites.

    $$ y = \frac{v - \bar v}{\sqrt{\mathrm{var}(v) + \epsilon} + \delta}, \qquad
       z = \arg\min_k |V^\top y - c_k|^2 $$

    v are the values of all channels of a window, V the leading principal components of y over the training images.
    Token 0 is the background: its centroid is the origin, and all windows of a variance below ``background`` bear it.

    Args:
        shape: Channels, height, width of the images.
        window: Edge in sites.
        stride: Sites from one window to the next; equal to ``window``: patches that do not overlap. Where it does not
            come out even, one window more stands at the edge.
        tokens: Number of tokens, the background's included.
        floor: $\epsilon$, variance below which contrast counts as noise.
        margin: $\delta$, added to the standard deviation.
        background: Variance below which a window is background; 0: there is no such token.
        ink: Only windows of a mean above this are clustered.
        method: See ``cluster``.
        iterations: Most rounds of k-means.
        sample: Most windows that are clustered; 0: all.
        components: Most columns of V; 0, or as many as a window has values: V is the identity.
        straighten: Whether images are sheared upright first, see ``straighten``. Their pictures come back upright.

    Attributes:
        centroids_: $c_k$, (tokens, components).
        projection_: V, (features, components).
        looks_: Mean of y over the windows of each token, (tokens, features).
        pictures_: Mean of v over the windows of each token, (tokens, features).
        mean_: Mean image, shown where no token is seen.
        spread_: Variance of v about the picture of each token, (tokens,): how well a part of a window tells its token.

    Raises:
        DataError: If a window is greater than an image.
        RecipeError: If a value is out of range.

    Source:
        Coates, Ng, Lee 2011, AISTATS 15, 215 (k-means of standardised patches).

    Example:
        >>> x = np.random.default_rng(0).random((20, 1, 6, 6)).astype(np.float32)
        >>> book = WindowCodebook(shape=(1, 6, 6), window=4, stride=2, tokens=8, components=3).fit(x, seed=0)
        >>> book.encode(x).shape, book.decode(book.encode(x)).shape
        ((20, 4), (20, 1, 6, 6))
    """

    shape: tuple[int, int, int]
    window: int = 10
    stride: int = 2
    tokens: int = 1024
    floor: float = 0.02
    margin: float = 0.0
    background: float = 1e-3
    ink: float = 0.0
    method: Method = "full"
    iterations: int = 10
    sample: int = 200_000
    components: int = 32
    straighten: bool = False

    def __post_init__(self) -> None:
        """Check the geometry; the rest is checked where the values are used."""
        _, height, width = self.shape
        most = min(height, width) if height > 1 else width
        if not 1 <= self.window <= most:
            raise DataError(
                "images must be at least as large as a window (there is no token else); choose a window of "
                f"1 ... {most} sites for images of {height} x {width}, got {self.window}"
            )
        if not 1 <= self.stride <= self.window:
            raise RecipeError(
                f"stride must be in 1 ... window = {self.window} (else sites are lost), got {self.stride}"
            )
        least = 1 + (self.background > 0)
        if self.tokens < least:
            raise RecipeError(f"tokens must be >= {least} (the background is one of them), got {self.tokens}")
        if min(self.floor, self.margin) < 0 or self.floor + self.margin == 0:
            raise RecipeError(
                "floor and margin must be >= 0 and one of them > 0 (a flat window would be divided by 0), "
                f"got {self.floor} and {self.margin}"
            )

    @property
    def guesses(self) -> bool:
        """Whether ``match`` looks at what is guessed of hidden sites."""
        return self.straighten

    @property
    def edges(self) -> tuple[int, int]:
        """Height and width of a window: a chain is one site high."""
        return (1 if self.shape[1] == 1 else self.window), self.window

    @property
    def features(self) -> int:
        """Values in a window."""
        return self.shape[0] * self.edges[0] * self.edges[1]

    @property
    def starts(self) -> tuple[Int64[np.ndarray, " rows"], Int64[np.ndarray, " columns"]]:
        """First row and first column of the windows; the last ones reach the edge of the image."""
        rows, columns = (
            np.unique([*range(0, sites - edge + 1, self.stride), sites - edge])
            for sites, edge in zip(self.shape[1:], self.edges, strict=True)
        )
        return rows, columns

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of windows."""
        rows, columns = self.starts
        return len(rows), len(columns)

    @property
    def sizes(self) -> Int64[np.ndarray, " positions"]:
        """Number of tokens, the same everywhere."""
        return np.full(self.grid[0] * self.grid[1], self.tokens, np.int64)

    @property
    def locations(self) -> Float64[np.ndarray, "positions 2"]:
        """Centre of each window (row, column), in sites."""
        first = np.stack(np.meshgrid(*self.starts, indexing="ij"), axis=-1).reshape(-1, 2)
        return first + (np.array(self.edges) - 1) / 2

    def fit(self, x: Float[np.ndarray, "number channel height width"], *, seed: int) -> "WindowCodebook":
        """Cluster windows drawn from images.

        Args:
            x: Images in [0, 1].
            seed: Of the draw of windows, and of k-means.

        Raises:
            DataError: If images have another shape, or fewer windows differ than there are to be tokens.
        """
        upright = self._upright(x)
        raw = self._drawn(upright, seed)
        y, mean, _, live = self._standardised(raw)
        kept = y[live & (mean > self.ink)]
        self.projection_ = _principal(kept, self.components)
        number = self.tokens - (self.background > 0)
        found = cluster(kept @ self.projection_, number, method=self.method, iterations=self.iterations, seed=seed)
        origin = np.zeros((self.tokens - number, found.shape[1]), np.float32)
        self.centroids_ = np.concatenate([origin, found])
        self.mean_ = upright.mean(axis=0, dtype=np.float64).astype(np.float32)
        member = np.where(live, nearest(y @ self.projection_, self.centroids_)[:, 0], 0)
        back = self.centroids_ @ self.projection_.T
        self.looks_ = back if self.projection_.shape[1] == self.features else _means(y, member, back)
        self.pictures_ = _means(raw, member, back * np.sqrt(self.floor) + raw.mean())
        about = ((raw - self.pictures_[member]) ** 2).mean(axis=1, keepdims=True)
        self.spread_ = np.maximum(_means(about, member, np.full((self.tokens, 1), about.mean())), _SPREAD)[:, 0]
        return self

    def encode(self, x: Float[np.ndarray, "number channel height width"]) -> Int64[np.ndarray, "number positions"]:
        """Token of each window, row by row.

        Args:
            x: Images in [0, 1].

        Raises:
            DataError: If images have another shape.
        """
        return self.encode_nearest(x, 1)[:, :, 0]

    def encode_nearest(
        self, x: Float[np.ndarray, "number channel height width"], number: int
    ) -> Int64[np.ndarray, "number positions nearest"]:
        """The ``number`` nearest tokens of each window, nearest first; all 0 where it is background."""
        return self._each_window(x, number)[0]

    def encode_moments(self, x: Float[np.ndarray, "number channel height width"]) -> WindowTokens:
        """Tokens with mean and scale of each window, from which ``decode`` gives back contrast and brightness."""
        tokens, moments = self._each_window(x, 1)
        return WindowTokens(tokens[:, :, 0], moments)

    def decode(
        self,
        tokens: Int[np.ndarray, "number positions"],
        moments: Float32[np.ndarray, "number positions 2"] | None = None,
    ) -> Float32[np.ndarray, "number channel height width"]:
        """Images: at each site the mean of the windows that see it.

        Args:
            tokens: -1 where hidden. A site that no token sees shows the mean image.
            moments: From ``encode_moments``; without them each token is shown by the mean picture of its windows.
        """
        require_tokens(tokens, self.sizes)
        out = np.empty((len(tokens), *self.shape), np.float32)
        for start in range(0, len(tokens), _IMAGES):
            part = slice(start, start + _IMAGES)
            z = np.maximum(tokens[part], 0)
            if moments is None:
                patches = self.pictures_[z]
            else:
                patches = self.looks_[z] * moments[part, :, 1:] + moments[part, :, :1]
            out[part] = self._overlaid(patches, tokens[part] >= 0)
        return out

    def visible(self, mask: Bool[np.ndarray, "height width"]) -> Bool[np.ndarray, " positions"]:
        """Whether all sites of each window are seen; straightening moves sites, so there all or nothing is seen."""
        if self.straighten:
            return np.full(len(self.sizes), bool(mask.all()))
        return np.ascontiguousarray(self._cut(mask[None, None]).all(axis=(3, 4, 5)).reshape(-1))

    def match(
        self, x: Float[np.ndarray, "number channel height width"], seen: Bool[np.ndarray, "number height width"]
    ) -> Glimpse:
        r"""Tokens of images of which some sites are hidden.

        A window of which only the sites S are seen fits each token k by

        $$ \ell_k = -\tfrac12 \sum_{i \in S} \Bigl[\frac{(v_i - p_{ki})^2}{\sigma_k^2} + \ln \sigma_k^2\Bigr] $$

        with the picture p of the token and the variance $\sigma^2$ of the values about it.

        Args:
            x: Images in [0, 1]; straightening, and nothing else, looks at the hidden sites: give a guess there.
            seen: Sites that are to be believed.
        """
        pose, weight = None, seen[:, None].astype(np.float32)
        if self.straighten:
            pose, values = Pose.of(x), x * weight
            # A moved site is seen in part: its value is the mean of what is. Beyond the edge all is known to be 0.
            weight = pose.apply(weight) + 1 - pose.apply(np.ones_like(weight))
            x = np.asarray(pose.apply(values) / np.maximum(weight, _FAINT), np.float32)
        share = self._cut(weight).reshape(len(x), len(self.sizes), -1)
        whole: np.ndarray = np.all(share > 1 - _FAINT, axis=-1)
        part: np.ndarray = np.any(share > 0, axis=-1)
        view = self._cut(x)
        raw = view.reshape(len(x), len(self.sizes), self.features).astype(np.float32)
        tokens = np.full(whole.shape, -1, np.int64)
        tokens[whole] = self._named(raw[whole], 1)[0][:, 0]
        places = np.flatnonzero((part & ~whole).any(axis=0))
        log = np.zeros((len(x), len(places), self.tokens), np.float32)
        for column, place in enumerate(places):
            believed = np.tile(share[:, place], (1, self.shape[0]))
            log[:, column] = self._fit_of_parts(raw[:, place], believed)
        log[whole[:, places]] = 0
        return Glimpse(tokens, places, log, pose)

    def _fit_of_parts(self, raw: np.ndarray, seen: np.ndarray) -> np.ndarray:
        """Log likelihood of values of windows, seen for a share of 0 to 1, by each token: (number, tokens)."""
        square = (seen * raw**2).sum(1)[:, None] - 2 * (seen * raw) @ self.pictures_.T + seen @ (self.pictures_**2).T
        return np.asarray(-0.5 * (np.maximum(square, 0) / self.spread_ + seen.sum(1)[:, None] * np.log(self.spread_)))

    def vectors(self) -> Float[np.ndarray, "tokens features"]:
        """The standardised look of each token."""
        return self.looks_

    def state(self) -> dict[str, np.ndarray]:
        """Arrays to store; ``restore`` reads them."""
        return {name: getattr(self, f"{name}_") for name in _STATE}

    def restore(self, state: Mapping[str, np.ndarray]) -> "WindowCodebook":
        """Read what ``state`` gave."""
        for name in _STATE:
            setattr(self, f"{name}_", np.asarray(state[name]))
        return self

    def _upright(self, x: np.ndarray) -> np.ndarray:
        if len(x) == 0 or x.shape[1:] != self.shape:
            raise DataError(
                f"images must have the shape {self.shape} that the codebook was made for (its windows lie on that "
                f"lattice), and there must be some; got {x.shape}"
            )
        return straighten(x) if self.straighten else x

    def _cut(self, x: np.ndarray) -> np.ndarray:
        """Windows, (number, *grid, channel, height, width): a view where the stride comes out even."""
        view = np.lib.stride_tricks.sliding_window_view(x, self.edges, axis=(2, 3))  # type: ignore[call-overload]
        for axis, starts in zip((2, 3), self.starts, strict=True):
            even = slice(0, int(starts[-1]) + 1, self.stride)
            regular = len(starts) == len(range(*even.indices(view.shape[axis]))) and starts[-1] % self.stride == 0
            view = view[(slice(None),) * axis + (even,)] if regular else view.take(starts, axis=axis)
        return view.transpose(0, 2, 3, 1, 4, 5)

    def _drawn(self, x: np.ndarray, seed: int) -> np.ndarray:
        """The windows to cluster, drawn without replacement."""
        total = len(x) * len(self.sizes)
        if self.sample and self.sample < total:
            chosen = np.sort(np.random.default_rng(seed).choice(total, self.sample, replace=False))
        else:
            chosen = np.arange(total)
        image, place = np.divmod(chosen, len(self.sizes))
        row, column = np.divmod(place, self.grid[1])
        rows, columns = self.starts
        view = np.lib.stride_tricks.sliding_window_view(x, self.edges, axis=(2, 3))  # type: ignore[call-overload]
        return view[image, :, rows[row], columns[column]].reshape(len(chosen), -1).astype(np.float32)

    def _standardised(self, raw: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """y, mean, scale, and which windows are no background."""
        mean = raw @ np.full(self.features, 1 / self.features, np.float32)
        y = raw - mean[:, None]
        var = np.einsum("nf,nf->n", y, y) / self.features
        scale = np.sqrt(var + np.float32(self.floor)) + np.float32(self.margin)
        y /= scale[:, None]
        return y, mean, scale, var >= self.background

    def _each_window(self, x: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
        upright = self._upright(x)
        tokens = np.zeros((len(x), len(self.sizes), number), np.int64)
        moments = np.empty((len(x), len(self.sizes), 2), np.float32)

        def name(start: int) -> None:
            part = slice(start, start + _IMAGES)
            raw = self._cut(upright[part]).reshape(-1, self.features).astype(np.float32, copy=False)
            found, parted = self._named(raw, number)
            tokens[part] = found.reshape(tokens[part].shape)
            moments[part] = parted.reshape(moments[part].shape)

        # One thread a chunk: the products are too small for BLAS to share out.
        with threadpool_limits(1), ThreadPoolExecutor(torch.get_num_threads()) as pool:
            list(pool.map(name, range(0, len(x), _IMAGES)))
        return tokens, moments

    def _named(self, raw: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
        """The nearest tokens of windows (rows), and their means and scales."""
        y, mean, scale, live = self._standardised(raw)
        found = np.zeros((len(raw), number), np.int64)
        found[live] = nearest(y[live] @ self.projection_, self.centroids_, number)
        return found, np.stack([mean, scale], axis=1)

    def _overlaid(self, patches: np.ndarray, seen: np.ndarray) -> np.ndarray:
        (rows, columns), (height, width) = self.starts, self.edges
        weight = seen.reshape(-1, 1, len(rows), len(columns)).astype(np.float32)
        values = patches.reshape(-1, len(rows), len(columns), self.shape[0], height, width).transpose(0, 3, 1, 2, 4, 5)
        total = np.zeros((len(patches), *self.shape), np.float32)
        cover = np.zeros((len(patches), 1, *self.shape[1:]), np.float32)
        for r in range(height):
            for c in range(width):  # no site comes twice: windows of one phase start at different sites
                at = (..., (rows + r)[:, None], columns + c)
                total[at] += weight * values[..., r, c]
                cover[at] += weight
        return np.where(cover > 0, total / np.maximum(cover, 1), self.mean_)


def _principal(y: np.ndarray, components: int) -> np.ndarray:
    """The leading eigenvectors of the second moment of y, as columns."""
    features = y.shape[1]
    if not 0 < components < features:
        return np.eye(features, dtype=np.float32)
    _, vectors = np.linalg.eigh((y.T @ y).astype(np.float64))
    return np.ascontiguousarray(vectors[:, ::-1][:, :components], dtype=np.float32)


def _means(values: np.ndarray, member: np.ndarray, empty: np.ndarray) -> np.ndarray:
    """Mean of the rows that belong to each token; a row of ``empty`` where none does."""
    number = len(empty)
    size = np.bincount(member, minlength=number)[:, None]
    order = np.argsort(member, kind="stable")
    first = np.searchsorted(member[order], np.flatnonzero(size[:, 0]))
    out = empty.astype(np.float32)
    out[size[:, 0] > 0] = np.add.reduceat(values[order], first, axis=0) / size[size[:, 0] > 0]
    return out
