"""Pictures of few colours as tokens that are there or not."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from renorm.errors import DataError

__all__ = ["Planes"]


@dataclass(frozen=True)
class Planes:
    """A token for each site and colour that comes and goes; the commonest colour is the ground, and has none.

    Attributes:
        shape: Rows and columns of a picture.
        sites: Of each token, row by row.
        colours: Of each token.
        ground: The colour that has no token.

    Example:
        >>> pictures = np.array([[[0, 0, 7]], [[0, 3, 7]]], np.uint8)
        >>> planes = Planes.of(pictures)
        >>> planes.sites.tolist(), planes.colours.tolist()
        ([1], [3])
        >>> planes.tokens(pictures).tolist()
        [[False], [True]]
    """

    shape: tuple[int, int]
    sites: Int64[np.ndarray, " tokens"]
    colours: Int64[np.ndarray, " tokens"]
    ground: int

    @classmethod
    def of(cls, pictures: UInt8[np.ndarray, "frames rows columns"]) -> "Planes":
        """The tokens of these pictures.

        Raises:
            DataError: If nothing ever changes.
        """
        frames, rows, columns = pictures.shape
        flat = pictures.reshape(frames, -1)
        often = np.stack([(flat == colour).sum(axis=0) for colour in range(int(pictures.max(initial=0)) + 1)], axis=1)
        changes = (often > 0) & (often < frames)
        ground = int(often.sum(axis=0).argmax())
        changes[:, ground] = False
        sites, colours = np.nonzero(changes)
        if not len(sites):
            raise DataError(f"nothing ever changes in these {frames} pictures, so there is nothing to learn")
        return cls((rows, columns), sites, colours, ground)

    def tokens(self, pictures: UInt8[np.ndarray, "frames rows columns"]) -> Bool[np.ndarray, "frames tokens"]:
        """Which are there.

        Raises:
            DataError: If pictures have another shape.
        """
        if pictures.shape[1:] != self.shape:
            raise DataError(f"pictures here are {self.shape[0]} x {self.shape[1]}, got {pictures.shape[1:]}")
        return np.asarray(pictures.reshape(len(pictures), -1)[:, self.sites] == self.colours)

    def strange(self, pictures: UInt8[np.ndarray, "frames rows columns"]) -> Bool[np.ndarray, "frames tokens"]:
        """Which are covered by a colour that their site never showed: nothing is known of them."""
        shown = pictures.reshape(len(pictures), -1)[:, self.sites]
        known = np.zeros((self.shape[0] * self.shape[1], np.iinfo(np.uint8).max + 1), bool)
        known[:, self.ground] = known[self.sites, self.colours] = True
        return np.asarray(~known[self.sites, shown])
