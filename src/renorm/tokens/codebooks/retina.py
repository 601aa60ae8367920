r"""Level-1 tokens of images: overlapping tiles, each described by its principal weights, in bins."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int, Int64

from renorm.errors import DataError, RecipeError
from renorm.tokens.codebooks.codebook import require_tokens
from renorm.tokens.codebooks.glimpse import Glimpse
from renorm.tokens.codebooks.straighten import straighten

__all__ = ["RetinaCodebook", "equalise"]

EQUALISE_WIDTH = (
    24.0  # the equalised values fall like exp(-d^2 / (24 n)) with the distance d in rank from the brightest
)
BACKGROUND = 1e-4  # equalising leaves sites below this at 0: their order among each other is noise
CUBIC = -0.5  # slope of the bicubic kernel (Catmull-Rom)
_IMAGES = 2048  # images whose weights are computed together
CELLS = 2**28  # most weights of tiles: 1 GiB


@dataclass(kw_only=True)
class RetinaCodebook:
    r"""Tiles of an image as their principal weights, each weight one of a few levels.

    Tile t looks at the sites i around its centre with the weight $w_{ti}$, a Gaussian cut off at ``reach`` tiles and
    normalised so that $\sum_t w_{ti} = 1$. With the principal vectors $v_{tm}$ of $w_t x$ (no mean is taken off),

    $$ u_{tm} = \sum_i v_{tmi} w_{ti} x_i, \qquad
       z_{tm} = \mathrm{round}\Bigl(\tfrac{u_{tm} / U_{tm} + 1}{2} (\text{bins} - 1)\Bigr), \qquad
       \hat x_i = \sum_{tm} v_{tmi} \hat u_{tm}, $$

    where $U_{tm}$ is the largest $|u_{tm}|$ that was seen and $\hat u$ the level of the bin. Every mode of every tile
    is a position of its own, tile by tile, modes by falling variance.

    Args:
        shape: Channels, height, width.
        tile: Distance between the centres of tiles, in sites of the resized image.
        bins: Levels of a weight; odd, so that one of them is 0.
        modes: Most modes of a tile.
        threshold: A mode is kept if its variance exceeds ``1 / threshold`` of the mean variance of a tile's sites.
        resize: Height to which images are brought first; 0: as they are. A chain keeps its sites.
        blur: Standard deviation of a Gaussian blur, in sites of the resized image; 0: none.
        equalise: Whether the histogram of each image is equalised; then fields come back equalised too.
        reach: Radius of a tile, in tiles.
        width: Standard deviation of its weight, in tiles.
        straighten: Whether images are sheared upright first, by their moments; then fields come back upright.

    Raises:
        RecipeError: If a value is out of range.

    Source:
        Friston et al. 2024, arXiv:2407.20292 (three equal colours there: its threshold 8 is 24 here).

    Example:
        >>> images = np.random.default_rng(0).random((50, 1, 8, 8), dtype=np.float32)
        >>> book = RetinaCodebook(shape=(1, 8, 8), resize=0, blur=0.0, equalise=False).fit(images, seed=0)
        >>> tokens = book.encode(images)
        >>> len(book.tile_places), tokens.shape == (50, len(book.sizes)), book.decode(tokens).shape
        (4, True, (50, 1, 8, 8))
    """

    shape: tuple[int, int, int]
    tile: float = 4.0
    bins: int = 7
    modes: int = 16
    threshold: float = 24.0
    resize: int = 32
    blur: float = 0.849
    equalise: bool = True
    reach: float = 2.0
    width: float = 0.5
    straighten: bool = False
    tile_: np.ndarray = field(init=False, repr=False, default_factory=lambda: np.empty(0, np.int64))
    vectors_: np.ndarray = field(init=False, repr=False, default_factory=lambda: np.empty((0, 0), np.float32))
    top_: np.ndarray = field(init=False, repr=False, default_factory=lambda: np.empty(0, np.float32))
    mean_: np.ndarray = field(init=False, repr=False, default_factory=lambda: np.empty(0, np.float32))

    def __post_init__(self) -> None:
        """Check the values."""
        rules = [
            (self.bins >= 3 and self.bins % 2 == 1, "bins must be odd and >= 3 (one level is 0)", self.bins),
            (self.modes >= 1, "modes must be >= 1", self.modes),
            (self.threshold > 0, "threshold must be > 0", self.threshold),
            (self.resize >= 0, "resize must be >= 0 sites (0: as they are)", self.resize),
            (self.blur >= 0, "blur must be >= 0 sites (0: none)", self.blur),
            (0 < self.tile <= self._edge, f"tile must be in (0, {self._edge}] sites", self.tile),
            (self.width > 0, "width must be > 0 tiles", self.width),
            (self.reach >= 1, "reach must be >= 1 tile (else sites between tiles are lost)", self.reach),
        ]
        for kept, rule, value in rules:
            if not kept:
                raise RecipeError(f"{rule}, got {value}")
        rows, columns = self.frame
        if len(self.tile_places) * rows * columns > CELLS:
            raise RecipeError(
                f"tiles times sites must be at most 2^28 (each tile weighs every site), got {len(self.tile_places)} "
                f"tiles on {rows} x {columns} sites; set resize = 0 or smaller, or a larger tile"
            )

    @property
    def guesses(self) -> bool:
        """Whether ``match`` looks at what is guessed of hidden sites."""
        return self.equalise

    @property
    def frame(self) -> tuple[int, int]:
        """Height and width of the image that the tiles look at; an axis of one site stays one site."""
        _, height, width = self.shape
        if not self.resize or height == 1:
            return height, width
        return self.resize, 1 if width == 1 else max(1, round(self.resize * width / height))

    @property
    def _edge(self) -> int:
        """The largest tile: the shorter edge, of a chain its length."""
        return max(self.frame) if 1 in self.frame else min(self.frame)

    @property
    def sizes(self) -> Int64[np.ndarray, " positions"]:
        """``bins`` at each position."""
        return np.full(len(self.tile_), self.bins, np.int64)

    @property
    def locations(self) -> Float[np.ndarray, "positions 2"]:
        """Centre of each position's tile, in sites of the image."""
        scale = np.array(self.shape[1:]) / np.array(self.frame)
        return (self.tile_places[self.tile_] + 0.5) * scale - 0.5

    @property
    def grid(self) -> tuple[int, int] | None:
        """None: a tile has several positions."""
        return None

    @cached_property
    def tile_places(self) -> Float[np.ndarray, "tiles 2"]:
        """Centre of each tile, row by row, in sites of the frame."""
        axes = [(np.arange(n) + 0.5) * edge / n - 0.5 for edge in self.frame for n in [max(1, round(edge / self.tile))]]
        return np.stack([part.reshape(-1) for part in np.meshgrid(*axes, indexing="ij")], axis=1)

    @cached_property
    def tile_weights(self) -> Float[np.ndarray, "tiles sites"]:
        """How much each tile sees of each site of the frame; the tiles of a site add up to 1."""
        sites = np.stack(np.divmod(np.arange(self.frame[0] * self.frame[1]), self.frame[1]), axis=1)
        rows, columns = self.tile_places.T[:, :, None]
        distance = (rows - sites[:, 0]) ** 2 + (columns - sites[:, 1]) ** 2
        weight = np.exp(-distance / (2 * (self.width * self.tile) ** 2))
        weight[distance >= (self.reach * self.tile) ** 2] = 0.0
        return (weight / weight.sum(axis=0)).astype(np.float32)

    def fit(self, x: Float[np.ndarray, "number channel height width"], *, seed: int) -> "RetinaCodebook":
        """Find the modes and their levels; nothing is drawn.

        Raises:
            DataError: If there are no images, or all are blank.
        """
        if not len(x) or not max(x.max(), -x.min()) > 0:
            raise DataError(f"a retina needs images that are not blank (it has no modes else), got {len(x)} images")
        f = self._prepared(x)
        self.mean_ = f.mean(axis=0)
        found, tops, tile = [], [], []
        for t, weight in enumerate(self._channel_weights):
            members = np.flatnonzero(weight)
            y = f[:, members]
            y *= weight[members]
            values, vectors = np.linalg.eigh((y.T @ y).astype(np.float64))
            values, vectors = values[::-1], vectors[:, ::-1]
            kept = np.flatnonzero(values[: self.modes] * len(values) * self.threshold > max(values.sum(), 1e-12))
            modes = np.zeros((len(kept), f.shape[1]), np.float32)
            modes[:, members] = _signed(vectors[:, kept].T)
            found.append(modes)
            tops.append(np.abs(y @ modes[:, members].T).max(axis=0))
            tile += [t] * len(kept)
        self.vectors_, self.top_ = np.concatenate(found), np.concatenate(tops).astype(np.float32)
        self.tile_ = np.array(tile, np.int64)
        return self

    def encode(self, x: Float[np.ndarray, "number channel height width"]) -> Int64[np.ndarray, "number positions"]:
        """The bin of each weight; weights beyond those seen while learning take the outermost bins."""
        look = (self.vectors_ * self._channel_weights[self.tile_] / self.top_[:, None]).T
        tokens = np.empty((len(x), len(self.tile_)), np.int64)
        for start in range(0, len(x), _IMAGES):
            u = self.prepare(x[start : start + _IMAGES]) @ look
            tokens[start : start + _IMAGES] = np.clip(np.rint((u + 1) / 2 * (self.bins - 1)), 0, self.bins - 1)
        return tokens

    def values(self, tokens: Int[np.ndarray, "number positions"]) -> Float[np.ndarray, "number positions"]:
        """The weight that each token stands for; 0 where hidden."""
        step = 2 * self.top_ / (self.bins - 1)
        return np.where(tokens >= 0, (tokens - (self.bins - 1) // 2) * step, 0.0).astype(np.float32)

    def decode(self, tokens: Int[np.ndarray, "number positions"]) -> Float[np.ndarray, "number channel height width"]:
        """The sum of the tiles, over their share where some are hidden; the mean image where all of them are.

        A tile of which any token is hidden is left out. Blur and equalising are not undone.

        Raises:
            DataError: If a token is unknown.
        """
        require_tokens(tokens, self.sizes)
        tiles = len(self.tile_places)
        hidden = (tokens < 0).astype(np.float32) @ (self.tile_[:, None] == np.arange(tiles)).astype(np.float32) > 0
        weights = self._channel_weights
        u = np.where(hidden[:, self.tile_], 0.0, self.values(tokens)).astype(np.float32)
        share = (~hidden).astype(np.float32) @ weights
        whole = np.where(share > 1e-6, (u @ self.vectors_) / np.maximum(share, 1e-6), self.mean_)
        fields = whole.reshape(len(tokens), self.shape[0], *self.frame)
        rows, columns = (_cubic(n, m) for n, m in zip(self.frame, self.shape[1:], strict=True))
        back = np.einsum("ij,ncjk,lk->ncil", rows, fields, columns, optimize=True)
        return np.clip(back, 0.0, 1.0).astype(np.float32)

    def visible(self, mask: Bool[np.ndarray, "height width"]) -> Bool[np.ndarray, " positions"]:
        """Whether a tile sees no site of the frame to which a hidden site contributes.

        Raises:
            RecipeError: If images are straightened, for then the sites of a tile differ from image to image.
        """
        if self.straighten:
            raise RecipeError("tiles of straightened images have no fixed sites: choose straighten = False")
        rows, columns = (np.abs(part) > 1e-3 for part in self._resizing)
        frame = rows.astype(np.float32) @ (~mask).astype(np.float32) @ columns.astype(np.float32).T
        touched = (self.tile_weights > 0) @ (frame.reshape(-1) > 0)
        return np.asarray(~touched.astype(bool)[self.tile_])

    def match(
        self, x: Float[np.ndarray, "number channel height width"], seen: Bool[np.ndarray, "number height width"]
    ) -> Glimpse:
        """Tokens of tiles that see no hidden site.

        Args:
            x: Images in [0, 1]; equalising looks at the hidden sites too: give a guess there.
            seen: Sites that are to be believed.

        Raises:
            DataError: If no tile is seen wholly though some sites are: a weight of half a tile says little of it.
            RecipeError: If images are straightened.
        """
        masks, which = np.unique(seen.reshape(len(x), -1), axis=0, return_inverse=True)
        shown = np.stack([self.visible(mask.reshape(seen.shape[1:])) for mask in masks])[which.reshape(-1)]
        if (seen.any(axis=(1, 2)) & ~shown.any(axis=1)).any():
            raise DataError(
                "no tile of the retina lies wholly in the sites that are seen (its weights need all of them); see "
                "more, or take a codebook of windows"
            )
        return Glimpse.whole(np.where(shown, self.encode(x), -1))

    def vectors(self) -> Float[np.ndarray, "tokens looks"]:
        """Not here: what a token means differs from position to position.

        Raises:
            RecipeError: Always.
        """
        raise RecipeError("tokens of a retina have no common looks (each mode has its own): use values, or exemplars")

    def prepare(self, x: Float[np.ndarray, "number channel height width"]) -> Float[np.ndarray, "number features"]:
        """The frame that the tiles look at: resized, blurred, equalised; one row an image.

        Raises:
            DataError: If the images do not have ``shape``.
        """
        if tuple(x.shape[1:]) != tuple(self.shape):
            raise DataError(f"the retina was made for images of shape {self.shape}, got {tuple(x.shape[1:])}")
        rows, columns = self._resizing
        upright = straighten(x) if self.straighten else x.astype(np.float32)
        fields = np.einsum("ij,ncjk,lk->ncil", rows, upright, columns, optimize=True)
        if self.equalise:
            fields = equalise(fields.reshape(-1, self.frame[0] * self.frame[1]))
        return fields.reshape(len(x), -1).astype(np.float32)

    def _prepared(self, x: np.ndarray) -> np.ndarray:
        """``prepare``, some images after the other."""
        found = np.empty((len(x), self.shape[0] * self.frame[0] * self.frame[1]), np.float32)
        for start in range(0, len(x), _IMAGES):
            found[start : start + _IMAGES] = self.prepare(x[start : start + _IMAGES])
        return found

    def state(self) -> dict[str, np.ndarray]:
        """Arrays to store; ``restore`` reads them."""
        return {"tile": self.tile_, "vectors": self.vectors_, "top": self.top_, "mean": self.mean_}

    def restore(self, state: Mapping[str, np.ndarray]) -> "RetinaCodebook":
        """Read what ``state`` gave."""
        self.tile_, self.vectors_, self.top_, self.mean_ = (state[key] for key in ("tile", "vectors", "top", "mean"))
        return self

    @cached_property
    def _channel_weights(self) -> np.ndarray:
        return np.tile(self.tile_weights, (1, self.shape[0]))

    @cached_property
    def _resizing(self) -> tuple[np.ndarray, np.ndarray]:
        """Resizing and blur of each axis, as one matrix; an axis of one site has nothing to blur."""
        pairs = zip(self.shape[1:], self.frame, strict=True)
        rows, columns = ((_blur(m, self.blur if n > 1 else 0.0) @ _cubic(n, m)).astype(np.float32) for n, m in pairs)
        return rows, columns


def equalise(x: Float[np.ndarray, "images sites"]) -> Float[np.ndarray, "images sites"]:
    r"""Give the sites of each image a fixed histogram, in their order.

    $$ x_i \leftarrow \exp\Bigl(-\frac{(r_i - n)^2}{24\, n}\Bigr), \qquad r_i = 1 \dots n \text{ the rank of site } i $$

    Sites of the background (below 1e-4) become 0.

    Example: the brightest of four becomes 1, the next exp(-1/96).
        >>> equalise(np.array([[0.0, 0.9, 0.2, 0.0]], np.float32)).round(4).tolist()
        [[0.0, 1.0, 0.9896000027656555, 0.0]]
    """
    number = x.shape[1]
    values = np.exp(-((np.arange(1, number + 1) - number) ** 2) / (EQUALISE_WIDTH * number)).astype(x.dtype)
    out = np.empty_like(x)
    np.put_along_axis(out, np.argsort(x, axis=1, kind="stable"), np.broadcast_to(values, x.shape), axis=1)
    return np.where(x > BACKGROUND, out, 0).astype(x.dtype)


def _cubic(sites: int, wanted: int) -> np.ndarray:
    """Bicubic interpolation along one axis (wanted, sites), widened where the field shrinks; rows sum to 1."""
    scale = sites / wanted
    x = np.abs(np.arange(sites) + 0.5 - (np.arange(wanted)[:, None] + 0.5) * scale) / max(scale, 1.0)
    near = (CUBIC + 2) * x**3 - (CUBIC + 3) * x**2 + 1
    far = CUBIC * (x**3 - 5 * x**2 + 8 * x - 4)
    kernel = np.where(x < 1, near, np.where(x < 2, far, 0.0))
    return np.asarray(kernel / kernel.sum(axis=1, keepdims=True))


def _blur(sites: int, deviation: float) -> np.ndarray:
    """Gaussian blur along one axis, with darkness beyond the edges."""
    if deviation == 0:
        return np.eye(sites)
    reach = np.arange(-int(4 * deviation + 0.5), int(4 * deviation + 0.5) + 1)
    total = np.exp(-(reach**2) / (2 * deviation**2)).sum()
    distance = np.arange(sites)[:, None] - np.arange(sites)
    kernel = np.exp(-(distance**2) / (2 * deviation**2)) / total
    return np.asarray(np.where(np.abs(distance) <= reach[-1], kernel, 0.0))


def _signed(vectors: np.ndarray) -> np.ndarray:
    """Each vector with its largest entry positive: the sign is then no accident of the solver."""
    largest = np.take_along_axis(vectors, np.abs(vectors).argmax(axis=1, keepdims=True), axis=1)
    return np.asarray(vectors * np.where(largest < 0, -1.0, 1.0))
