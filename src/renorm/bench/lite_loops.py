"""The two-level "lite" token model in plain loops: slow, obviously right, the oracle and the peer of the fast one.

Nothing here is shared with ``renorm.tokens``: one image, one patch, one centroid table at a time, double precision.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt8

from renorm.errors import DataError, RecipeError

__all__ = ["LiteLoops", "fit", "resize_bilinear"]

PATCH, BLOCK = 4, 2  # sites along a patch, patches along a block
BLANK = 0.10  # patches whose mean is not above this do not shape the codebook
EPSILON = 1e-6  # added to a standard deviation before it divides
TINY = 1e-12  # added to a probability before its logarithm


@dataclass(frozen=True)
class LiteLoops:
    r"""A fitted lite model: tokens of 4x4 patches, supertokens of 2x2 tokens, a class on top.

    $$ p(c, z) = \pi_c \prod_b \sum_s \theta_{cs} \prod_{i \in b} \psi_{s z_i} $$

    Args:
        codebook: (tokens, 16) centroids of standardised patches.
        supercodebook: (supertokens, 64) centroids of standardised quadruples of centroids.
        pi: (classes,) frequency of each class.
        theta: (classes, supertokens) or, where it knows positions, (blocks, classes, supertokens); rows sum to 1.
        psi: (supertokens, tokens) or, where it knows sub-positions, (4, supertokens, tokens); rows sum to 1.
        side: Patches along a side.
    """

    codebook: Float[np.ndarray, "tokens 16"]
    supercodebook: Float[np.ndarray, "supertokens 64"]
    pi: Float[np.ndarray, " classes"]
    theta: Float[np.ndarray, "... supertokens"]
    psi: Float[np.ndarray, "... tokens"]
    side: int = 4

    def tokens(self, image: Float[np.ndarray, "height width"]) -> Int[np.ndarray, " positions"]:
        """The nearest centroid of each patch, row by row."""
        return np.array([_nearest(self.codebook, _standardise(patch)) for patch in _patches(image)])

    def supertokens(self, tokens: Int[np.ndarray, " positions"]) -> Int[np.ndarray, " blocks"]:
        """The nearest supercentroid of each block of tokens, row by row."""
        found = []
        for children in _blocks(self.side, self.side):
            quadruple = np.concatenate([self.codebook[tokens[child]] for child in children])
            found.append(_nearest(self.supercodebook, _standardise(quadruple)))
        return np.array(found)

    def predict_log_joint(
        self, images: Float[np.ndarray, "number 1 height width"]
    ) -> Float[np.ndarray, "number classes"]:
        """Log probability of the tokens of each image together with each class [nats]."""
        return np.array([self.log_joint(self.tokens(image[0])) for image in images])

    def log_joint(self, tokens: Int[np.ndarray, " positions"]) -> Float[np.ndarray, " classes"]:
        r"""Log probability of the tokens of one image together with each class [nats], supertokens summed out.

        $$ \ln p(c, z) = \ln \pi_c + \sum_b \ln \sum_s \exp[ \ln \theta_{cs} + \sum_{i \in b} \ln \psi_{s z_i} ] $$
        """
        log_joint = np.log(self.pi + TINY)
        for b, children in enumerate(_blocks(self.side, self.side)):
            below = np.zeros(len(self.supercodebook))
            for i, token in enumerate(tokens[children]):
                psi = self.psi[i] if self.psi.ndim == 3 else self.psi
                below += np.log(psi[:, token] + TINY)
            theta = self.theta[b] if self.theta.ndim == 3 else self.theta
            for c in range(len(self.pi)):
                terms = np.log(theta[c] + TINY) + below
                log_joint[c] += terms.max() + np.log(np.exp(terms - terms.max()).sum())
        return log_joint

    def reconstruct(
        self, images: Float[np.ndarray, "number 1 height width"]
    ) -> Float[np.ndarray, "number 1 height width"]:
        """Each patch as its centroid, with the mean and the standard deviation of the patch itself given back."""
        out = np.zeros(images.shape)
        for n, image in enumerate(images):
            tokens = self.tokens(image[0])
            for position, patch in enumerate(_patches(image[0])):
                row, column = PATCH * (position // self.side), PATCH * (position % self.side)
                values = self.codebook[tokens[position]] * patch.std() + patch.mean()
                out[n, 0, row : row + PATCH, column : column + PATCH] = values.reshape(PATCH, PATCH)
        return out


def fit(
    images: Float[np.ndarray, "number 1 side side"],
    labels: Int[np.ndarray, " number"],
    *,
    tokens: int = 256,
    supertokens: int = 64,
    classes: int = 10,
    iterations: int = 25,
    seed: int = 42,
    positions: bool = False,
    subpositions: bool = False,
) -> LiteLoops:
    r"""Fit by k-means and counting, every count plus one.

    $$ \pi_c \propto 1 + n_c, \qquad \theta_{cs} \propto 1 + n_{cs}, \qquad \psi_{sz} \propto 1 + n_{sz} $$

    Args:
        images: Values in [0, 1]; the side is a multiple of 8.
        labels: Class of each image, from 0.
        tokens: Centroids of patches.
        supertokens: Centroids of blocks of 2x2 tokens.
        classes: Number of classes.
        iterations: Rounds of Lloyd's algorithm, at both levels.
        seed: Of the samples that both k-means start from.
        positions: Whether theta is counted for each block by itself.
        subpositions: Whether psi is counted for each place inside a block by itself.

    Returns:
        The fitted model.

    Raises:
        DataError: If the side is no multiple of 8 or the labels do not match.
        RecipeError: If there are fewer samples than centroids.

    Source: V. Heller's two-level sketch of a renormalising generative model (January 2026), from its description.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> model = fit(rng.random((8, 1, 16, 16)), np.arange(8) % 2, tokens=4, supertokens=2, classes=2)
        >>> model.predict_log_joint(rng.random((3, 1, 16, 16))).shape
        (3, 2)
    """
    side = images.shape[-1]
    if side % (PATCH * BLOCK):
        raise DataError(f"blocks of 2x2 patches of 4x4 sites need a side that is a multiple of 8, got {side}")
    if len(labels) != len(images) or labels.min() < 0 or labels.max() >= classes:
        raise DataError(f"each of the {len(images)} images needs one label from 0 to {classes - 1}, got {len(labels)}")
    patches = [patch for image in images for patch in _patches(image[0])]
    inked = [_standardise(patch) for patch in patches if patch.mean() > BLANK]
    codebook = _k_means(inked, tokens, iterations, seed)

    children = _blocks(side // PATCH, side // PATCH)
    codes, quadruples = [], []
    for image in images:
        code = np.array([_nearest(codebook, _standardise(patch)) for patch in _patches(image[0])])
        codes.append(code)
        for block in children:
            quadruples.append(_standardise(np.concatenate([codebook[code[child]] for child in block])))
    supercodebook = _k_means(quadruples, supertokens, iterations, seed)

    pi = np.ones(classes)
    theta = np.ones((len(children), classes, supertokens))
    psi = np.ones((BLOCK * BLOCK, supertokens, tokens))
    for n, code in enumerate(codes):
        pi[labels[n]] += 1
        for b, block in enumerate(children):
            s = _nearest(supercodebook, quadruples[n * len(children) + b])
            theta[b, labels[n], s] += 1
            for i, child in enumerate(block):
                psi[i, s, code[child]] += 1
    if not positions:
        theta = theta.sum(axis=0) - (len(children) - 1)
    if not subpositions:
        psi = psi.sum(axis=0) - (BLOCK * BLOCK - 1)
    return LiteLoops(
        codebook,
        supercodebook,
        pi / pi.sum(),
        theta / theta.sum(axis=-1, keepdims=True),
        psi / psi.sum(axis=-1, keepdims=True),
        side // PATCH,
    )


def resize_bilinear(
    images: UInt8[np.ndarray, "number 1 edge edge"], size: int = 16
) -> Float[np.ndarray, "number 1 size size"]:
    r"""Bytes to values in [0, 1] on a smaller lattice: a Gaussian blur, then linear interpolation, along each axis.

    $$ \sigma = (f - 1) / 2, \qquad y_i = \bar x((i + 1/2) f - 1/2), \qquad f = \text{edge} / \text{size} $$

    The blur is cut off at four sigma and mirrored about the outermost sites.

    Raises:
        DataError: If ``size`` is not smaller than the edge.

    Example:
        >>> float(resize_bilinear(np.full((1, 1, 28, 28), 255, np.uint8))[0, 0, 0, 0].round(6))
        1.0
    """
    edge = images.shape[-1]
    if not 0 < size < edge:
        raise DataError(f"resize_bilinear makes images smaller: the size must be from 1 to {edge - 1}, got {size}")
    factor = edge / size
    sigma = (factor - 1) / 2
    radius = int(4 * sigma + 0.5)
    weights = [float(np.exp(-0.5 * (offset / sigma) ** 2)) for offset in range(-radius, radius + 1)]
    blur = np.zeros((edge, edge))
    for i in range(edge):
        for offset, weight in zip(range(-radius, radius + 1), weights, strict=True):
            j = abs(i + offset)
            blur[i, j if j < edge else 2 * (edge - 1) - j] += weight / sum(weights)
    interpolate = np.zeros((size, edge))
    for i in range(size):
        place = (i + 0.5) * factor - 0.5
        left = int(place)
        interpolate[i, left] += 1 - (place - left)
        interpolate[i, min(left + 1, edge - 1)] += place - left
    matrix = interpolate @ blur
    out = np.empty((len(images), 1, size, size))
    for n, image in enumerate(images):
        out[n, 0] = matrix @ (image[0] / 255) @ matrix.T
    return out


def _patches(image: np.ndarray) -> list[np.ndarray]:
    rows, columns = range(0, image.shape[0], PATCH), range(0, image.shape[1], PATCH)
    return [image[r : r + PATCH, c : c + PATCH].ravel() for r in rows for c in columns]


def _blocks(rows: int, columns: int) -> list[list[int]]:
    """Positions of the four tokens of each block."""
    corners = [(r, c) for r in range(0, rows, BLOCK) for c in range(0, columns, BLOCK)]
    return [[(r + i) * columns + c + j for i in range(BLOCK) for j in range(BLOCK)] for r, c in corners]


def _standardise(vector: np.ndarray) -> np.ndarray:
    return (vector - vector.mean()) / (vector.std() + EPSILON)


def _nearest(centroids: np.ndarray, vector: np.ndarray) -> int:
    return int(((centroids - vector) ** 2).sum(axis=1).argmin())


def _k_means(vectors: list[np.ndarray], number: int, iterations: int, seed: int) -> np.ndarray:
    if len(vectors) < number:
        raise RecipeError(f"{number} centroids need as many samples to start from, got {len(vectors)}")
    start = np.random.default_rng(seed).choice(len(vectors), number, replace=False)
    centroids = np.array([vectors[i] for i in start], dtype=np.float64)
    for _ in range(iterations):
        total, count = np.zeros_like(centroids), np.zeros(number)
        for vector in vectors:
            nearest = _nearest(centroids, vector)
            total[nearest] += vector
            count[nearest] += 1
        for k in range(number):
            if count[k] > 0:  # an empty cluster keeps its centroid
                centroids[k] = total[k] / count[k]
    return centroids
