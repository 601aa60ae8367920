"""Level-1 tokens of images, several for each patch: residual quantisation, coarse to fine, and product quantisation."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int64

from renorm.errors import DataError, RecipeError
from renorm.tokens.codebooks.clustering import Method, cluster, nearest
from renorm.tokens.codebooks.codebook import require_tokens
from renorm.tokens.codebooks.glimpse import Glimpse

__all__ = ["ProductCodebook", "ResidualCodebook"]


@dataclass(kw_only=True)
class _Patches(ABC):
    """What both share: patches that do not overlap, ``depth`` tokens for each, patch by patch.

    Args:
        shape: Channels, height, width of the images.
        window: Edge of a patch in sites (of a chain: 1 by ``window``); patches fill the image.
        tokens: Number of tokens of each stage or part.
        method: See ``cluster``.
        iterations: Most rounds of k-means.
        sample: Most patches that are clustered; 0: all.

    Attributes:
        mean_: Mean image, shown where nothing else is known.
        centroids_: Of each stage or part.

    Raises:
        DataError: If patches do not fill an image.
        RecipeError: If a value is out of range.
    """

    shape: tuple[int, int, int]
    window: int = 4
    tokens: int = 64
    method: Method = "full"
    iterations: int = 25
    sample: int = 200_000
    mean_: np.ndarray = field(init=False, repr=False, default_factory=lambda: np.empty(0, np.float32))
    centroids_: np.ndarray = field(init=False, repr=False, default_factory=lambda: np.empty((0, 0, 0), np.float32))

    def __post_init__(self) -> None:
        """Check the geometry; the rest is checked where the values are used."""
        if self.window < 1 or any(sites % edge for sites, edge in zip(self.shape[1:], self.edges, strict=True)):
            raise DataError(
                "patches must fill an image (they do not overlap); choose a window that divides height and width, got "
                f"{self.window} for images of {self.shape[1]} x {self.shape[2]}"
            )
        if self.tokens < 2 or self.iterations < 1 or self.sample < 0:
            raise RecipeError(
                "tokens must be >= 2 (one says nothing), iterations >= 1 and sample >= 0, got "
                f"{self.tokens}, {self.iterations} and {self.sample}"
            )

    @property
    @abstractmethod
    def depth(self) -> int:
        """Tokens of a patch."""

    @abstractmethod
    def _learn(self, patches: np.ndarray, seed: int) -> None: ...

    @abstractmethod
    def _name(self, patches: np.ndarray) -> np.ndarray:
        """Tokens (rows, depth) of patches."""

    @abstractmethod
    def _show(self, tokens: np.ndarray, mean: np.ndarray) -> np.ndarray:
        """Patches of tokens (rows, depth), for the mean image at their place, which stands in where -1 hides one."""

    @property
    def guesses(self) -> bool:
        """Nothing depends on hidden sites."""
        return False

    @property
    def edges(self) -> tuple[int, int]:
        """Height and width of a patch: a chain is one site high."""
        return (1 if self.shape[1] == 1 else self.window), self.window

    @property
    def features(self) -> int:
        """Values in a patch."""
        return self.shape[0] * self.edges[0] * self.edges[1]

    @property
    def patch_grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.shape[1] // self.edges[0], self.shape[2] // self.edges[1]

    @property
    def grid(self) -> tuple[int, int] | None:
        """The grid of patches where each has one token, else None: a place has several positions."""
        return self.patch_grid if self.depth == 1 else None

    @property
    def sizes(self) -> Int64[np.ndarray, " positions"]:
        """Number of tokens, the same everywhere."""
        return np.full(self.patch_grid[0] * self.patch_grid[1] * self.depth, self.tokens, np.int64)

    @property
    def locations(self) -> Float[np.ndarray, "positions 2"]:
        """Centre of the patch of each token (row, column), in sites."""
        rows, columns = (
            np.arange(n) * edge + (edge - 1) / 2 for n, edge in zip(self.patch_grid, self.edges, strict=True)
        )
        centres = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)
        return np.repeat(centres, self.depth, axis=0)

    def fit(self, x: Float[np.ndarray, "number channel height width"], *, seed: int) -> "_Patches":
        """Cluster patches drawn from images.

        Args:
            x: Images in [0, 1].
            seed: Of the draw of patches, and of k-means.

        Raises:
            DataError: If images have another shape, or fewer patches differ than there are to be tokens.
        """
        patches = self._cut(x).reshape(-1, self.features)
        if self.sample and self.sample < len(patches):
            chosen = np.random.default_rng(seed).choice(len(patches), self.sample, replace=False)
            patches = patches[np.sort(chosen)]
        self.mean_ = x.mean(axis=0, dtype=np.float64).astype(np.float32)
        self._learn(patches, seed)
        return self

    def encode(self, x: Float[np.ndarray, "number channel height width"]) -> Int64[np.ndarray, "number positions"]:
        """Tokens of each patch, patch by patch, row by row.

        Raises:
            DataError: If images have another shape.
        """
        return self._name(self._cut(x).reshape(-1, self.features)).reshape(len(x), len(self.sizes))

    def decode(self, tokens: Int[np.ndarray, "number positions"]) -> Float32[np.ndarray, "number channel height width"]:
        """Images of tokens; -1 where hidden.

        Raises:
            DataError: If a token is unknown.
        """
        require_tokens(tokens, self.sizes)
        rows, columns = self.patch_grid
        mean = np.tile(self._cut(self.mean_[None]).reshape(-1, self.features), (len(tokens), 1))
        patches = self._show(tokens.reshape(-1, self.depth), mean).astype(np.float32)
        parts = patches.reshape(len(tokens), rows, columns, self.shape[0], *self.edges)
        return np.ascontiguousarray(parts.transpose(0, 3, 1, 4, 2, 5)).reshape(len(tokens), *self.shape)

    def visible(self, mask: Bool[np.ndarray, "height width"]) -> Bool[np.ndarray, " positions"]:
        """Whether all sites of each token's patch are seen."""
        rows, columns = self.patch_grid
        whole = mask.reshape(rows, self.edges[0], columns, self.edges[1]).all(axis=(1, 3))
        return np.repeat(whole.reshape(-1), self.depth)

    def match(
        self, x: Float[np.ndarray, "number channel height width"], seen: Bool[np.ndarray, "number height width"]
    ) -> Glimpse:
        """Tokens of the patches that are wholly seen; of a patch that is seen in part, nothing is said."""
        shown = np.stack([self.visible(mask) for mask in seen])
        return Glimpse.whole(np.where(shown, self.encode(x), -1))

    def vectors(self) -> Float[np.ndarray, "tokens features"]:
        """What each token looks like, where a patch has one.

        Raises:
            RecipeError: If it has several: what a token looks like differs from stage to stage.
        """
        if self.depth > 1:
            raise RecipeError(
                f"tokens of {self.depth} stages or parts have no common looks (each has its own); take one, or windows"
            )
        return self._show(np.arange(self.tokens)[:, None], np.zeros((self.tokens, self.features), np.float32))

    def state(self) -> dict[str, np.ndarray]:
        """Arrays to store; ``restore`` reads them."""
        return {"mean": self.mean_, "centroids": self.centroids_}

    def restore(self, state: Mapping[str, np.ndarray]) -> "_Patches":
        """Read what ``state`` gave."""
        self.mean_, self.centroids_ = np.asarray(state["mean"]), np.asarray(state["centroids"])
        return self

    def _cut(self, x: np.ndarray) -> np.ndarray:
        """Patches, (number, rows, columns, channel, height, width)."""
        if x.ndim != 4 or len(x) == 0 or x.shape[1:] != self.shape:
            raise DataError(
                f"images must have the shape {self.shape} that the codebook was made for (its patches lie on that "
                f"lattice), and there must be some; got {x.shape}"
            )
        (rows, columns), (height, width) = self.patch_grid, self.edges
        parts = x.reshape(len(x), self.shape[0], rows, height, columns, width)
        return np.ascontiguousarray(parts.transpose(0, 2, 4, 1, 3, 5), np.float32)


@dataclass(kw_only=True)
class ResidualCodebook(_Patches):
    r"""Patches as sums: each stage names what the stages before left over, by its nearest centroid.

    $$ r_0 = v, \qquad z_s = \arg\min_k|r_s - c_{sk}|^2, \qquad r_{s+1} = r_s - c_{sz_s}, \qquad
       \hat v = \sum_s c_{sz_s} $$

    S stages of K tokens are $S\log_2 K$ bits a patch, and cost $SK$ comparisons where one stage would need $K^S$. The
    tokens of a patch stand one after the other, coarse to fine: the first ones alone are a picture already.

    Args:
        stages: S. With one, each patch is named by its nearest centroid.

    Attributes:
        centroids_: $c_{sk}$, (stages, tokens, features).

    Source:
        Juang & Gray 1982, "Multiple stage vector quantization for speech coding"; Lee et al. 2022, arXiv:2203.01941
        (residual tokens of images, learned with an encoder).

    Example: each stage lowers the error.
        >>> x = np.random.default_rng(0).random((200, 1, 8, 8)).astype(np.float32)
        >>> books = [ResidualCodebook(shape=(1, 8, 8), tokens=16, stages=s).fit(x, seed=0) for s in (1, 2, 4)]
        >>> errors = [float(((book.decode(book.encode(x)) - x) ** 2).mean()) for book in books]
        >>> errors[0] > errors[1] > errors[2], books[1].encode(x).shape
        (True, (200, 8))
    """

    stages: int = 2

    def __post_init__(self) -> None:
        """Check the values."""
        super().__post_init__()
        if self.stages < 1:
            raise RecipeError(f"stages must be >= 1 (a patch needs a token), got {self.stages}")

    @property
    def depth(self) -> int:
        """Tokens of a patch, one a stage."""
        return self.stages

    def decode_stages(
        self, tokens: Int[np.ndarray, "number positions"], stages: int
    ) -> Float32[np.ndarray, "number channel height width"]:
        """Images of the first stages alone.

        Raises:
            DataError: If a token is unknown.
            RecipeError: If there are not so many stages.
        """
        if not 1 <= stages <= self.stages:
            raise RecipeError(f"this codebook has stages 1 ... {self.stages}, got {stages}")
        later = np.tile(np.arange(self.stages) >= stages, tokens.shape[1] // self.stages)
        return self.decode(np.where(later, -1, tokens))

    def _learn(self, patches: np.ndarray, seed: int) -> None:
        left, found = patches.copy(), []
        for stage in range(self.stages):
            book = cluster(left, self.tokens, method=self.method, iterations=self.iterations, seed=seed + stage)
            left -= book[nearest(left, book)[:, 0]]
            found.append(book)
        self.centroids_ = np.stack(found)

    def _name(self, patches: np.ndarray) -> np.ndarray:
        left, tokens = patches.copy(), np.empty((len(patches), self.stages), np.int64)
        for stage, book in enumerate(self.centroids_):
            tokens[:, stage] = nearest(left, book)[:, 0]
            left -= book[tokens[:, stage]]
        return tokens

    def _show(self, tokens: np.ndarray, mean: np.ndarray) -> np.ndarray:
        # What stages leave over has the mean 0, but for the first: a hidden correction is no correction.
        out = np.where(tokens[:, :1] >= 0, self.centroids_[0][tokens[:, 0]], mean)
        for book, z in zip(self.centroids_[1:], tokens.T[1:], strict=True):
            out = out + np.where(z[:, None] >= 0, book[z], 0.0)
        return out


@dataclass(kw_only=True)
class ProductCodebook(_Patches):
    r"""Patches in parts: the values of a patch are cut into groups, each named by its own nearest centroid.

    $$ v = (v_1, \dots, v_G), \qquad z_g = \arg\min_k|v_g - c_{gk}|^2, \qquad \hat v = (c_{1z_1}, \dots, c_{Gz_G}) $$

    Groups are runs of equal length of the patch's values, channel by channel, row by row: with as many parts as
    channels, each channel has its token. It loses nothing that lies between groups only where these are independent.

    Args:
        parts: G, which divides the values of a patch.

    Attributes:
        centroids_: $c_{gk}$, (parts, tokens, features of a part).

    Source:
        Jégou, Douze & Schmid 2011, IEEE PAMI 33, 117.

    Example: sites that are 0 or 1 lie on the corners of a cube, which is a product: nothing is lost.
        >>> x = np.random.default_rng(0).integers(0, 2, (100, 1, 4, 4)).astype(np.float32)
        >>> book = ProductCodebook(shape=(1, 4, 4), window=2, tokens=2, parts=4).fit(x, seed=0)
        >>> bool(np.allclose(book.decode(book.encode(x)), x, atol=1e-5))
        True
    """

    parts: int = 2

    def __post_init__(self) -> None:
        """Check the values."""
        super().__post_init__()
        if self.parts < 1 or self.features % self.parts:
            raise RecipeError(
                f"parts must divide the {self.features} values of a patch (groups are equal), got {self.parts}"
            )

    @property
    def depth(self) -> int:
        """Tokens of a patch, one a part."""
        return self.parts

    def _learn(self, patches: np.ndarray, seed: int) -> None:
        self.centroids_ = np.stack(
            [
                cluster(part, self.tokens, method=self.method, iterations=self.iterations, seed=seed + index)
                for index, part in enumerate(self._parted(patches))
            ]
        )

    def _name(self, patches: np.ndarray) -> np.ndarray:
        groups = zip(self._parted(patches), self.centroids_, strict=True)
        return np.stack([nearest(part, book)[:, 0] for part, book in groups], axis=1)

    def _show(self, tokens: np.ndarray, mean: np.ndarray) -> np.ndarray:
        groups = zip(self._parted(mean), self.centroids_, tokens.T, strict=True)
        return np.concatenate([np.where(z[:, None] >= 0, book[z], part) for part, book, z in groups], axis=1)

    def _parted(self, patches: np.ndarray) -> list[np.ndarray]:
        return [np.ascontiguousarray(part) for part in np.split(patches, self.parts, axis=1)]
