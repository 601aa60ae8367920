"""States of an object, also where another one hides a part of it: what is hidden is not absent."""

import sys

import numpy as np
from jaxtyping import Bool, Int64

from renorm.tokens.paths.planes import Planes
from renorm.tokens.paths.tally import Tally
from renorm.tokens.trees.rows import distinct_rows

__all__ = ["ObjectStates"]

ABSENT, PRESENT, HIDDEN = 0, 1, 2
ROOM = 1 << 24  # comparisons at once


class ObjectStates:
    """Distinct tuples of an object's tokens, each taken for the commonest one that it may be.

    A token is hidden where its site shows the colour of another object: it may be there or not. So a tuple with hidden
    tokens may be any that agrees with it elsewhere, and is taken for the one that was seen most often (hidden tokens
    counted as absent).

    Args:
        planes: All tokens.
        groups: Object of each token.
        own: Which object.

    Example: three sites, object 0 of colour 1, object 1 of colour 2 on top of it.
        >>> pictures = np.array([[[1, 1, 0]], [[1, 1, 2]], [[1, 2, 0]], [[0, 0, 2]]], np.uint8)
        >>> planes = Planes.of(pictures)
        >>> groups = (planes.colours == 2).astype(np.int64)
        >>> object_0 = ObjectStates(planes, groups, 0)
        >>> object_0.learn(planes.tokens(pictures)).tolist()
        [0, 0, 0, 1]
    """

    def __init__(self, planes: Planes, groups: Int64[np.ndarray, " tokens"], own: int) -> None:
        self.members = np.flatnonzero(groups == own)
        others = groups != own
        self._above = [np.flatnonzero(others & (planes.sites == planes.sites[i])) for i in self.members]
        self._states: dict[bytes, int] = {}  # of every tuple that was seen, hidden tokens told
        self._common = np.empty((0, len(self.members)), np.uint8)  # commonest first
        self._number = np.empty(0, np.int64)

    def __len__(self) -> int:
        return 1 + max(self._states.values(), default=-1)

    @property
    def nbytes(self) -> int:
        """Memory of all tables, in bytes."""
        keys = len(self._states) * (sys.getsizeof(b"") + len(self.members)) + sys.getsizeof(self._states)
        return keys + self._common.nbytes + self._number.nbytes

    def learn(self, tokens: Bool[np.ndarray, "frames tokens"]) -> Int64[np.ndarray, " frames"]:
        """Number the states of these frames, once and for all."""
        rows = self._rows(tokens)
        first, which = distinct_rows(rows)
        tally = Tally(len(self.members))
        tally.learn((rows[first] == PRESENT).astype(np.uint8), np.bincount(which))
        order = np.argsort(-tally.counts, kind="stable")
        self._common = tally.rows[order].astype(np.uint8)
        agreeing = self._agreeing(rows[first])
        _, number = distinct_rows(agreeing[:, None])
        self._number = np.full(len(order), -1, np.int64)
        self._number[agreeing] = number
        taken = self._number >= 0  # the others were only ever seen in part
        self._common, self._number = self._common[taken], self._number[taken]
        self._states = {row.tobytes(): int(state) for row, state in zip(rows[first], number, strict=True)}
        return number[which]

    def find(
        self, tokens: Bool[np.ndarray, "frames tokens"], strange: Bool[np.ndarray, "frames tokens"]
    ) -> Int64[np.ndarray, " frames"]:
        """States of other frames; -1 where nothing that was learned agrees.

        Args:
            tokens: Which are there.
            strange: Which are covered by what nobody knows.
        """
        rows = self._rows(tokens)
        rows[strange[:, self.members]] = HIDDEN
        first, which = distinct_rows(rows)
        found = np.array([self._states.get(row.tobytes(), -1) for row in rows[first]], np.int64)
        new = np.flatnonzero(found < 0)
        if len(new):
            agreeing = self._agreeing(rows[first[new]])
            found[new] = np.where(agreeing >= 0, self._number[agreeing], -1)
        return found[which]

    def _rows(self, tokens: np.ndarray) -> np.ndarray:
        rows = tokens[:, self.members].astype(np.uint8)
        for i, above in enumerate(self._above):
            if len(above):
                rows[tokens[:, above].any(axis=1), i] = HIDDEN
        return rows

    def _agreeing(self, rows: np.ndarray) -> np.ndarray:
        """Place of the commonest tuple that agrees with each row where it is not hidden; -1: none."""
        found = np.full(len(rows), -1, np.int64)
        step = max(1, ROOM // max(1, self._common.size))
        for begin in range(0, len(rows), step):
            part = rows[begin : begin + step, None]
            agrees = ((part == self._common) | (part == HIDDEN)).all(axis=2)
            found[begin : begin + step] = np.where(agrees.any(axis=1), agrees.argmax(axis=1), -1)
        return found
