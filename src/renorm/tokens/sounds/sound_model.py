"""One sound, learned by a tower: bands of a spectrum in short blocks are tokens."""

import itertools
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from renorm.errors import DataError, RecipeError
from renorm.tokens.codebooks.clustering import cluster, nearest
from renorm.tokens.paths.factor import Seen
from renorm.tokens.paths.groups import block_groups
from renorm.tokens.paths.tower import Tower
from renorm.tokens.paths.tower_law import TowerLaw
from renorm.tokens.sounds.lapped import lapped, unlapped
from renorm.tokens.trees.rows import distinct_rows

__all__ = ["SoundModel", "bands_of"]

FINE = 2.0**-18  # amplitudes are told apart down to it: samples of 16 bits come back as they were
CONCENTRATION, LOOSENESS = 1e-6, 1e-2
LOWEST = 4  # amplitudes in the lowest band
ITERATIONS = 50


@dataclass(frozen=True, eq=False)
class SoundModel:
    """A tower over tokens in time and frequency, and its law.

    Attributes:
        size: Samples from block to block.
        edges: Where bands begin, and where the last one ends.
        words: For each band its tokens' amplitudes.
        samples: Length of the sound that was learned.
        tower, seen: Blocks of bands and times; states and events of each.
        law: Of all sounds that the tower can tell.

    Example: two tones in turn, and the second half of the turn is lost.
        >>> rate, size = 8000, 64
        >>> time = np.arange(32 * size) / rate
        >>> tones = np.where(np.arange(len(time)) // (4 * size) % 2, np.sin(2 * np.pi * 500 * time), 0.5)
        >>> model = SoundModel.fit(tones, size=size)
        >>> bool(abs(model.regenerated() - tones).max() < 1e-3)
        True
    """

    size: int
    edges: tuple[int, ...]
    words: list[Float64[np.ndarray, "_ _"]]
    samples: int
    tower: Tower
    seen: list[list[Seen]]
    law: TowerLaw

    @classmethod
    def fit(
        cls,
        sound: Float64[np.ndarray, " samples"],
        *,
        size: int = 256,
        bands: int = 8,
        tokens: int | None = None,
        seed: int = 0,
    ) -> "SoundModel":
        """Learn a sound.

        Args:
            sound: -1 to 1.
            size: Samples from block to block.
            bands: Groups of amplitudes, wider and wider; a power of 2.
            tokens: In each band, by k-means; if not given, all amplitudes that differ by $2^{-18}$ are, and samples of
                16 bits come back as they were.
            seed: Of k-means.

        Raises:
            DataError: If the sound is silent, not finite, or shorter than the tower's windows.
            RecipeError: If a number is out of range.
        """
        if not np.isfinite(sound).all():
            raise DataError("a sound must be finite numbers, it has some that are not")
        if not sound.any():
            raise DataError(f"all {len(sound)} samples are silent, so there is nothing to learn")
        if bands < 1 or bands & (bands - 1):
            raise RecipeError(f"bands are a power of 2, got {bands}")
        if tokens is not None and tokens < 2:
            raise RecipeError(f"a band needs tokens >= 2, got {tokens}")
        edges, groups = bands_of(size, bands), block_groups((bands,))
        if -(-len(sound) // size) + 1 < 2 ** len(groups):
            raise DataError(
                f"{len(groups)} levels need {2 ** len(groups)} blocks of {size} samples or more, got "
                f"{len(sound)} samples; take smaller blocks or fewer bands"
            )
        amplitudes = lapped(sound, size)
        words, rows = [], np.empty((len(amplitudes), bands), np.int64)
        for band, (low, high) in enumerate(itertools.pairwise(edges)):
            words_here, rows[:, band] = _tokens(amplitudes[:, low:high], tokens, seed)
            words.append(words_here)
        tower = Tower(groups)
        seen = tower.learn([rows])
        law = TowerLaw(tower, [len(own) for own in words], concentration=CONCENTRATION, looseness=LOOSENESS)
        return cls(size, edges, words, len(sound), tower, seen, law)

    @property
    def tokens(self) -> Int64[np.ndarray, "blocks bands"]:
        """Those of the sound that was learned, from the states of the highest level."""
        return self.tower.replayed(self.seen)

    @property
    def states(self) -> list[int]:
        """Distinct states of all factors of each level."""
        return self.tower.sizes

    def regenerated(self) -> Float64[np.ndarray, " samples"]:
        """The sound that was learned, from the states of the highest level alone."""
        return self._sound(self.tokens, self.samples)

    def generated(self, blocks: int, generator: np.random.Generator) -> Float64[np.ndarray, " samples"]:
        """A sound drawn from the law: what followed, now and then a cut to something else that was heard."""
        if blocks < 1:
            raise RecipeError(f"a sound needs blocks >= 1, got {blocks}")
        hidden = np.full((blocks, self.tower.tokens), -1)
        return self._sound(self.law.sample(hidden, 1, generator)[0], blocks * self.size)

    def completed(self, known: Bool[np.ndarray, "blocks bands"]) -> Float64[np.ndarray, " samples"]:
        """The sound that was learned, with its hidden tokens filled in by their likeliest.

        Args:
            known: Of ``tokens``, or of its first blocks: so many are completed.

        Raises:
            DataError: If ``known`` has more blocks or other bands than ``tokens``, or is too long for memory.
        """
        tokens = self.tokens
        if known.shape[1] != tokens.shape[1] or not 1 <= len(known) <= len(tokens):
            raise DataError(f"this sound has {tokens.shape} tokens (blocks, bands), got {known.shape}")
        tokens = tokens[: len(known)]
        samples = min(self.samples, len(known) * self.size)
        return self._sound(self.law.explain(np.where(known, tokens, -1)).likeliest, samples)

    def _sound(self, tokens: np.ndarray, samples: int) -> np.ndarray:
        amplitudes = np.concatenate([own[tokens[:, i]] for i, own in enumerate(self.words)], axis=1)
        return unlapped(amplitudes, samples)


def bands_of(size: int, bands: int) -> tuple[int, ...]:
    """Where bands of amplitudes begin, and where the last one ends: each as much wider than the one below.

    Raises:
        RecipeError: If there are more bands than amplitudes.

    Example:
        >>> bands_of(256, 4)
        (0, 4, 16, 64, 256)
    """
    if bands > size:
        raise RecipeError(f"{size} amplitudes make {size} bands at most, got {bands}")
    first = min(LOWEST, size // bands)
    wished = np.geomspace(first, size, bands).round().astype(int) if bands > 1 else np.array([size])
    ends = [max(int(end), i + 1) for i, end in enumerate(wished)]
    for i in range(1, bands):
        ends[i] = max(ends[i], ends[i - 1] + 1)
    return (0, *ends[:-1], size)


def _tokens(amplitudes: np.ndarray, tokens: int | None, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Words of a band, and which each block says."""
    fine = np.round(amplitudes / FINE).astype(np.int64)
    first, which = distinct_rows(fine)
    if tokens is None or len(first) <= tokens:
        return fine[first] * FINE, which
    points = amplitudes.astype(np.float32)
    words = cluster(points, tokens, method="full", iterations=ITERATIONS, seed=seed)
    return words.astype(np.float64), nearest(points, words)[:, 0]
